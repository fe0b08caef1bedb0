"""The network that most of the pictures look into: trained once in a build, as all of them run in one process."""

import functools

import numpy as np

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F


def build():
    """Three convolutions for 8 x 8 pixels, then the mean of each map and one linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


@functools.cache
def trained():
    """The network and the digits."""
    digits = fc.data.load_digits()
    fc.manual_seed(0)
    net = build()
    rng = np.random.default_rng(0)
    optimizer = fc.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(12):
        for images, labels in fc.data.batches(digits.train_images, digits.train_labels, size=32, rng=rng):
            optimizer.zero_grad()
            F.cross_entropy(net(fc.tensor(images)), labels).backward()
            optimizer.step()
    return net.eval(), digits
