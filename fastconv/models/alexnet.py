"""AlexNet: torchvision's single-column version, and the paper's with two groups and local response normalisation."""

from __future__ import annotations

from typing import Any

import fastconv.nn as nn
from fastconv.joining import flatten
from fastconv.models.initialization import initialize, normal
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import size

__all__ = ["AlexNet", "alexnet", "alexnet_two_groups"]


class AlexNet(nn.Module):
    """AlexNet for images of 224 x 224 pixels.

    Parameters
    ----------
    num_classes, in_channels : int
        At least 1.
    dropout : float
        In the hidden linear layers.
    two_groups : bool, keyword only
        The network of 2012: 96 channels at first, convolutions 2, 4 and 5 in two groups (then one on each GPU), local
        response normalisation after the first two, pooling windows of 3 that overlap by 1, and the paper's first
        weights. Otherwise the network of 2014, as in torchvision.

    Attributes
    ----------
    features, avgpool, classifier : Module
        As in torchvision.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural networks"; Krizhevsky
    2014, "One weird trick for parallelizing convolutional neural networks". Source: torchvision.models.AlexNet.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv.models import AlexNet
    >>> with nn.init.skip_init():
    ...     net = AlexNet(two_groups=True)
    >>> net.features[4]
    Conv2d(96, 256, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2), groups=2)
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5, *, two_groups: bool = False
    ) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        if two_groups:
            with nn.init.skip_init():
                self._build(_paper_features(in_channels), num_classes, dropout)
            initialize(self, normal(0.01), normal(0.01))
            hidden = [layer for layer in self.classifier if isinstance(layer, nn.Linear)][:2]
            for layer in (self.features[4], self.features[10], self.features[12], *hidden):
                nn.init.ones_(layer.bias)  # as in the paper: positive inputs let their ReLUs learn from the start
        else:
            self._build(_features(in_channels), num_classes, dropout)

    def _build(self, features: nn.Sequential, num_classes: int, dropout: float) -> None:
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.avgpool(self.features(x))
        return self.classifier(flatten(x, 1))


def _features(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )


def _paper_features(in_channels: int) -> nn.Sequential:
    def normalization() -> nn.Module:
        # The paper sums 1e-4 x² over the window; the layer's alpha is divided by the window's size.
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    return nn.Sequential(
        nn.Conv2d(in_channels, 96, 11, stride=4, padding=2),
        nn.ReLU(),
        normalization(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(),
        normalization(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )


@takes_weights
def alexnet(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> AlexNet:
    """AlexNet of 2014 (61,100,840 parameters), as torchvision.models.alexnet.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv.models import alexnet
    >>> with nn.init.skip_init():
    ...     net = alexnet()
    >>> sum(p.numel() for p in net.parameters())
    61100840
    """
    return AlexNet(num_classes, in_channels, dropout)


@takes_weights
def alexnet_two_groups(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> AlexNet:
    """AlexNet of 2012 (60,965,224 parameters): two groups, local response normalisation.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv.models import alexnet_two_groups
    >>> with nn.init.skip_init():
    ...     net = alexnet_two_groups()
    >>> sum(p.numel() for p in net.parameters())
    60965224
    """
    return AlexNet(num_classes, in_channels, dropout, two_groups=True)
