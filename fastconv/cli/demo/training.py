"""The data, brought to LeNet-5's 28 x 28 pixels, and the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
import fastconv.nn.functional as F
from fastconv import data, models, optim

from ...progress import progress

SIDE = 28
_BATCH = 32
_RATE, _FINAL_RATE = 3e-3, 1e-4


class History(NamedTuple):
    """The trained network, the loss of every batch, the test accuracy after every epoch."""

    net: Any
    losses: list[float]
    accuracies: list[float]


def load(directory: str | None, seed: int) -> data.TrainTest:
    """MNIST from a directory, or scikit-learn's digits; images (N, 1, 28, 28), labels below 10."""
    dataset = data.load_digits(seed=seed) if directory is None else data.load_idx(directory)
    if directory is None:
        return dataset._replace(train_images=_enlarge(dataset.train_images), test_images=_enlarge(dataset.test_images))
    if dataset.train_images.shape[2:] != (SIDE, SIDE):
        raise ValueError(f"{directory}: LeNet-5 needs images of 28 x 28 pixels, got {dataset.train_images.shape[2:]}")
    for labels in (dataset.train_labels, dataset.test_labels):
        if labels.max() > 9:
            raise ValueError(f"{directory}: labels must be 0 to 9, got {labels.max()}")
    return dataset


def _enlarge(images: np.ndarray) -> np.ndarray:
    """8 x 8 pixels to 24 x 24, with a margin of 2 as MNIST has."""
    enlarged = data.transforms.Resize(3 * images.shape[-1])(images)
    return np.pad(enlarged, ((0, 0), (0, 0), (2, 2), (2, 2)))


def _shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to one pixel: a digit stays that digit, and the network sees more of them."""
    moved = np.arange(SIDE) - rng.integers(-1, 2, (2, len(images), 1))
    rows, columns = moved % SIDE
    return images[np.arange(len(images))[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(dataset: data.TrainTest, epochs: int, seed: int, say: Callable[[str], None], bar: bool) -> History:
    """Adam with a learning rate that falls along a cosine; the same seed gives the same network, bit for bit."""
    fc.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = models.LeNet5()
    optimiser = optim.Adam(net.parameters(), lr=_RATE)
    losses: list[float] = []
    accuracies: list[float] = []
    count = -(-len(dataset.train_labels) // _BATCH)
    for epoch in range(epochs):
        net.train()
        parts = data.batches(dataset.train_images, dataset.train_labels, size=_BATCH, rng=rng)
        for step, (images, labels) in enumerate(progress(parts, count, f"epoch {epoch + 1}/{epochs}", bar)):
            done = (epoch * count + step) / (epochs * count)
            optimiser.param_groups[0]["lr"] = _FINAL_RATE + (_RATE - _FINAL_RATE) * (1 + np.cos(np.pi * done)) / 2
            optimiser.zero_grad()
            loss = F.cross_entropy(net(fc.tensor(_shifted(images, rng))), labels)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.item()))
        accuracies.append(accuracy(net, dataset.test_images, dataset.test_labels))
        recent = float(np.mean(losses[-count:]))
        say(f"epoch {epoch + 1:2d}: loss {recent:.4f}, test accuracy {100 * accuracies[-1]:.2f} %")
    return History(net, losses, accuracies)


def accuracy(net: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """Part of the images that get their own label."""
    net.eval()
    right = sum(
        int((net(part).argmax(axis=1) == wanted).sum()) for part, wanted in data.batches(images, labels, size=256)
    )
    return right / len(labels)
