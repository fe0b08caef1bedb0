"""
Transfer learning
=================

A network that knows the digits 0 to 4 learns 5 to 9 from three images of each: its body is frozen, what comes out of it
is computed once, and only a new last layer is trained.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv import data, transfer, visualize


def network():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(96, 5),
    )


def train(net, images, labels, epochs, lr):
    rng = np.random.default_rng(0)
    optimizer = fc.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=lr)
    net.train()
    for _ in range(epochs):
        for x, y in data.batches(images, labels, size=32, rng=rng):
            optimizer.zero_grad()
            F.cross_entropy(net(fc.tensor(x)), y).backward()
            optimizer.step()
    net.eval()


digits = data.load_digits()
old = digits.train_labels < 5
fc.manual_seed(0)
net = network()
train(net, digits.train_images[old], digits.train_labels[old], 6, 3e-3)

images, labels = digits.train_images[~old], digits.train_labels[~old] - 5
shots = np.concatenate([np.flatnonzero(labels == k)[:3] for k in range(5)])
new = digits.test_labels >= 5
tests, answers = digits.test_images[new], digits.test_labels[new] - 5

# %%
# Freeze, replace the head, extract once, train the head. For comparison, a network that begins with random weights.

transfer.freeze(net)
head = transfer.replace_head(net, 5)
features = transfer.extract_features(net, images[shots], head)
train(net[3], features, labels[shots], 60, 1e-2)

alone = network()
train(alone, images[shots], labels[shots], 20, 3e-3)
for name, model in (("transferred", net), ("from nothing", alone)):
    print(f"{name}: {(model(tests).argmax(axis=1) == answers).mean():.3f}")

# %%
# With all images of the new digits, the frozen body serves as well as one of their own.

train(net[3], transfer.extract_features(net, images, head), labels, 60, 1e-2)
matrix = visualize.confusion_matrix(answers, net(tests))
print(f"accuracy {np.trace(matrix) / matrix.sum():.3f}")
visualize.plot_confusion_matrix(matrix, list("56789"), ax=plt.subplots(figsize=(4, 4))[1])
plt.show()
