"""
Ten lines to start with
=======================

A convolutional network that learns handwritten digits, and the share of the test images that it reads.
"""

from fastconv import data, nn, optim, tensor

digits = data.load_digits()
net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
optimizer = optim.Adam(net.parameters(), lr=3e-3)
for _ in range(10):
    for images, labels in data.batches(digits.train_images, digits.train_labels, size=32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(tensor(images)), labels).backward()
        optimizer.step()
print((net(digits.test_images).argmax(axis=1) == digits.test_labels).mean())
