"""
Train LeNet-5
=============

With :class:`fastconv.training.Trainer`: epochs over a loader, validation, and the history as a picture. The digits of
8 x 8 pixels are enlarged to the 28 x 28 that LeNet-5 takes.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastconv as fc
from fastconv import data, models, optim, training, visualize

digits = data.load_digits()
enlarged = [visualize.resize(x, 24) for x in (digits.train_images, digits.test_images)]
large = [np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))) for x in enlarged]
train = data.DataLoader(data.TensorDataset(large[0], digits.train_labels), batch_size=32, shuffle=True, seed=0)
test = data.DataLoader(data.TensorDataset(large[1], digits.test_labels), batch_size=64)

fc.manual_seed(0)
net = models.LeNet5()
print(net.summary((1, 1, 28, 28)))

# %%
# Adam, and a learning rate that falls along a cosine.

optimizer = optim.Adam(net.parameters(), lr=3e-3)
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
trainer = training.Trainer(net, optimizer, scheduler=schedule, progress=False)
history = trainer.fit(train, 6, test)

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for ax, quantity in zip(axes, ("loss", "accuracy")):
    for name in history.names:
        if name.endswith(quantity):
            ax.plot(history.column(name), marker="o", label=name)
    ax.set(xlabel="epoch", title=quantity)
    ax.legend()

# %%
# Which digits are taken for which.

net.eval()
matrix = visualize.confusion_matrix(digits.test_labels, net(large[1]))
print(f"accuracy {np.trace(matrix) / matrix.sum():.4f}")
visualize.plot_confusion_matrix(matrix, ax=plt.subplots(figsize=(5, 5))[1])
plt.show()
