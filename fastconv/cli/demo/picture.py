"""The picture: loss and accuracy, learned filters, one digit and what the network makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv import data

from ..output import check_picture
from .training import History


def check(path: str) -> None:
    """Fail early: matplotlib is there, the directory is there, the name is that of a PNG."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('the picture needs matplotlib: pip install "fastconv[demo]", or use --no-picture') from error
    check_picture(path)


def draw(path: str, history: History, dataset: data.TrainTest) -> None:
    """Write the picture; the Figure is made without pyplot, so that no window system is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    net = history.net
    image = dataset.test_images[:1]
    first, second, probabilities = _activations(net, image)
    filters = np.asarray(net.features[0].weight.data)[:, 0]

    figure = Figure(figsize=(12, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"LeNet-5, test accuracy {100 * history.accuracies[-1]:.2f} %")
    parts: Any = figure.subfigures(3, 1, height_ratios=(1.15, 1.1, 1))
    top, middle, bottom = parts

    curve, rate, digit, bars = top.subplots(1, 4, width_ratios=(1.5, 1.2, 0.9, 1.2))
    _loss_curve(curve, history.losses)
    epochs = np.arange(1, len(history.accuracies) + 1)
    rate.plot(epochs, [100 * value for value in history.accuracies], marker="o", markersize=3)
    rate.set(xlabel="epoch", title="test accuracy, %")
    rate.xaxis.get_major_locator().set_params(integer=True)
    rate.grid(alpha=0.3)
    digit.imshow(image[0, 0], cmap="gray_r", interpolation="nearest")
    digit.set(title=f"a test image: {int(dataset.test_labels[0])}", xticks=[], yticks=[])
    bars.bar(np.arange(10), probabilities, color="tab:green")
    bars.set(xticks=np.arange(10), ylim=(0, 1), title="probability of each class")

    middle.suptitle(
        "the six 5 x 5 filters of the first layer (blue below 0, red above), and what they make of the digit"
    )
    axes = middle.subplots(2, 6)
    limit = float(np.abs(filters).max())
    for axis, mask in zip(axes[0], filters):
        _show(axis, mask, "RdBu_r", -limit, limit)
    for axis, plane in zip(axes[1], first):
        _show(axis, plane, "viridis", 0.0, float(first.max()))

    bottom.suptitle("the sixteen maps after the second convolution")
    for axis, plane in zip(bottom.subplots(2, 8).flat, second):
        _show(axis, plane, "viridis", 0.0, float(second.max()))
    figure.savefig(path, dpi=100)


def _activations(net: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The maps after the first and the second ReLU, and the probabilities of the classes."""
    net.eval()
    maps = []
    x = image
    for layer in net.features:
        x = layer(x)
        if type(layer).__name__ == "ReLU":
            maps.append(np.asarray(x)[0])
    return maps[0], maps[1], np.asarray(F.softmax(net(image), dim=1))[0]


def _loss_curve(axis: Any, losses: list[float]) -> None:
    """Every batch, and the mean over the last 45 batches (an epoch of the digits)."""
    steps = np.arange(1, len(losses) + 1)
    axis.semilogy(steps, losses, linewidth=0.6, alpha=0.4)
    window = min(45, len(losses))
    total = np.cumsum(np.concatenate([[0.0], losses]))
    axis.semilogy(steps[window - 1 :], (total[window:] - total[:-window]) / window, color="tab:blue")
    axis.set(xlabel="batch", title="training loss")
    axis.grid(alpha=0.3)


def _show(axis: Any, plane: np.ndarray, colours: str, low: float, high: float) -> None:
    axis.imshow(plane, cmap=colours, vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
