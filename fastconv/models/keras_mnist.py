"""The convolutional network of Keras' first example, on MNIST."""

from __future__ import annotations

from typing import Any

import fastconv.nn as nn
from fastconv.nn.modules.arguments import size

__all__ = ["KerasMNIST"]


class KerasMNIST(nn.Module):
    """Conv32 - pool - Conv64 - pool - Conv64 - Dense64 - Dense10, for images of 28 x 28 pixels.

    Parameters
    ----------
    num_classes : int
        Outputs, at least 1.
    in_channels : int
        Channels of the images, at least 1.

    Attributes
    ----------
    features : Sequential
        Three convolutions of 3 x 3 with ReLU: (N, in_channels, 28, 28) to (N, 64, 3, 3).
    classifier : Sequential
        The dense layers: (N, 576) to (N, num_classes).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Chollet, "Deep Learning with Python", section 5.1; TensorFlow's tutorial "Convolutional Neural Network (CNN)". Its
    last layer is a softmax there; here it gives logits for :func:`fastconv.nn.functional.cross_entropy`. Weights start
    as Glorot and Bengio's, biases at zero, as in Keras.

    Examples
    --------
    >>> from fastconv.models import KerasMNIST
    >>> table = KerasMNIST().summary((1, 1, 28, 28))
    >>> [row.parameters for row in table.rows if row.parameters]
    [320, 18496, 36928, 36928, 650]
    >>> table.parameters
    93322
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        with nn.init.skip_init():
            self.features = nn.Sequential(
                nn.Conv2d(in_channels, 32, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(32, 64, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(64, 64, 3),
                nn.ReLU(),
            )
            self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, 28, 28)."""
        return self.classifier(self.features(x))
