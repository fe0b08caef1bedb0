"""ZFNet: AlexNet with a first layer that sees more, found by looking inside with a deconvnet."""

from __future__ import annotations

from typing import Any

import fastconv.nn as nn
from fastconv.joining import flatten
from fastconv.models.initialization import initialize, normal
from fastconv.nn.modules.arguments import size

__all__ = ["ZFNet"]


class ZFNet(nn.Module):
    """ZFNet for images of 224 x 224 pixels (62,357,608 parameters).

    Parameters
    ----------
    num_classes, in_channels : int
        At least 1.
    dropout : float
        In the hidden linear layers.

    Attributes
    ----------
    features, avgpool, classifier : Module
        As those of :class:`~fastconv.models.AlexNet`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", figure 3: against AlexNet windows of
    7 x 7 with stride 2 in the first layer, and no groups. The contrast normalisation across feature maps is AlexNet's.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv.models import ZFNet
    >>> with nn.init.skip_init():
    ...     net = ZFNet()
    >>> sum(p.numel() for p in net.parameters())
    62357608
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        with nn.init.skip_init():
            self.features = nn.Sequential(
                nn.Conv2d(in_channels, 96, 7, stride=2, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, padding=1),
                nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
                nn.Conv2d(96, 256, 5, stride=2),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, padding=1),
                nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
                nn.Conv2d(256, 384, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(384, 384, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(3, 2),
            )
            self.avgpool = nn.AdaptiveAvgPool2d(6)
            self.classifier = nn.Sequential(
                nn.Linear(256 * 6 * 6, 4096),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(4096, 4096),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(4096, num_classes),
            )
        initialize(self, normal(0.01), normal(0.01))

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.avgpool(self.features(x))
        return self.classifier(flatten(x, 1))
