"""LeNet-5, the network that read handwritten digits in 1998."""

from __future__ import annotations

from typing import Any

import fastconv.nn as nn
from fastconv.nn.modules.arguments import choice, size

__all__ = ["LeNet5"]

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}
_POOLS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


class LeNet5(nn.Module):
    """LeNet-5: two convolutions with pooling, then three linear layers.

    Parameters
    ----------
    num_classes : int
        Outputs, at least 1.
    in_channels : int
        Channels of the images, at least 1.
    image_size : {28, 32}
        Height and width of the images. Images of 28 pixels are padded to 32 by the first convolution, as the original
        padded MNIST.
    activation : {"relu", "tanh"}
        "tanh" is closest to the original, "relu" trains faster.
    pooling : {"max", "avg"}
        "avg" is closest to the original (which scaled and shifted the mean), "max" is what is used now.

    Attributes
    ----------
    features : Sequential
        Convolutions and pooling: (N, in_channels, image_size, image_size) to (N, 16, 5, 5).
    classifier : Sequential
        The linear layers: (N, 400) to (N, num_classes).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition"; as in most
    implementations C3 sees all maps of S2, and the output layer is linear: its values are logits for
    :func:`fastconv.nn.functional.cross_entropy`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> from fastconv.models import LeNet5
    >>> net = LeNet5()
    >>> net(np.zeros((2, 1, 28, 28), np.float32)).shape
    (2, 10)
    >>> net.summary((1, 1, 28, 28)).parameters
    61706
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        *,
        image_size: int = 28,
        activation: str = "relu",
        pooling: str = "max",
    ) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        if image_size not in (28, 32):
            raise ValueError(f"image_size must be 28 or 32, got {image_size}")
        act = _ACTIVATIONS[choice("activation", activation, tuple(_ACTIVATIONS))]
        pool = _POOLS[choice("pooling", pooling, tuple(_POOLS))]
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=(32 - image_size) // 2),
            act(),
            pool(2),
            nn.Conv2d(6, 16, 5),
            act(),
            pool(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(400, 120),
            act(),
            nn.Linear(120, 84),
            act(),
            nn.Linear(84, num_classes),
        )

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        return self.classifier(self.features(x))
