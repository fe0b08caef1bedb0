"""VGG networks A to E: small convolutions, stacked deep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastconv.nn as nn
from fastconv.joining import flatten
from fastconv.models.initialization import he_fan_out, initialize, normal
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import size

__all__ = [
    "VGG",
    "vgg11",
    "vgg11_bn",
    "vgg11_lrn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_1x1",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
]

# The columns of the paper's table 1: channels of 3 x 3 convolutions; negative ones of 1 x 1, "M" for max-pooling.
_CONFIGURATIONS: dict[str, tuple[int | str, ...]] = {
    "A": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "B": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "C": (64, 64, "M", 128, 128, "M", 256, 256, -256, "M", 512, 512, -512, "M", 512, 512, -512, "M"),
    "D": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    "E": (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M"),
}


class VGG(nn.Module):
    """VGG network of any configuration.

    Parameters
    ----------
    configuration : {"A", "B", "C", "D", "E"} or sequence
        A column of the paper's table 1, or a list of layers: the channels of a 3 x 3 convolution, the negative channels
        of a 1 x 1 convolution, or "M" for max-pooling by 2.
    num_classes, in_channels : int
        At least 1.
    batch_norm : bool, keyword only
        Normalise after every convolution.
    local_response_norm : bool, keyword only
        Normalise after the first one as AlexNet does: A-LRN.
    hidden : int, keyword only
        Units of the two hidden linear layers; 0 leaves them out.
    pooled_size : int, keyword only
        Height and width that the features are pooled to before the linear layers.
    dropout : float, keyword only
        In the hidden linear layers.

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
    Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition".
    Source: torchvision.models.VGG.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import VGG
    >>> net = VGG((16, "M", 32, "M"), num_classes=10, in_channels=1, batch_norm=True, hidden=0, pooled_size=2)
    >>> net(np.zeros((2, 1, 8, 8), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self,
        configuration: str | Sequence[int | str],
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        batch_norm: bool = False,
        local_response_norm: bool = False,
        hidden: int = 4096,
        pooled_size: int = 7,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        channels = size("in_channels", in_channels, 1)
        size("hidden", hidden, 0)
        size("pooled_size", pooled_size, 1)
        if isinstance(configuration, str):
            if configuration not in _CONFIGURATIONS:
                raise ValueError(f"configuration must be one of {', '.join(_CONFIGURATIONS)}; got {configuration!r}")
            configuration = _CONFIGURATIONS[configuration]
        features: list[nn.Module] = []
        with nn.init.skip_init():
            for entry in configuration:
                if entry == "M":
                    features.append(nn.MaxPool2d(2, 2))
                    continue
                if not isinstance(entry, int) or entry == 0:
                    raise ValueError(f"configuration must hold channels other than 0 and 'M', got {entry!r}")
                kernel, padding = (3, 1) if entry > 0 else (1, 0)
                features.append(nn.Conv2d(channels, abs(entry), kernel, padding=padding))
                channels = abs(entry)
                if batch_norm:
                    features.append(nn.BatchNorm2d(channels))
                features.append(nn.ReLU())
                if local_response_norm and len(features) < 4:
                    # The paper sums without dividing by the size of the window, as the layer does.
                    features.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
            self.features = nn.Sequential(*features)
            self.avgpool = nn.AdaptiveAvgPool2d(pooled_size)
            width = channels * pooled_size**2
            head: list[nn.Module] = []
            for _ in range(2 if hidden else 0):
                head += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout)]
                width = hidden
            self.classifier = nn.Sequential(*head, nn.Linear(width, num_classes))
        initialize(self, he_fan_out, normal(0.01))

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.avgpool(self.features(x))
        return self.classifier(flatten(x, 1))


@takes_weights
def vgg11(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """VGG A with 11 layers (132,863,336 parameters), as torchvision.models.vgg11; `options` are those of :class:`VGG`.

    Examples
    --------
    >>> from fastconv.models import vgg11
    >>> vgg11(num_classes=10, hidden=8).classifier[-1]
    Linear(in_features=8, out_features=10, bias=True)
    """
    return VGG("A", num_classes, in_channels, **options)


@takes_weights
def vgg11_lrn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """VGG A-LRN, with local response normalisation after the first layer; `options` are those of :class:`VGG`.

    Examples
    --------
    >>> from fastconv.models import vgg11_lrn
    >>> vgg11_lrn(num_classes=10, hidden=8).features[2]
    LocalResponseNorm(5, alpha=0.0005, beta=0.75, k=2.0)
    """
    return VGG("A", num_classes, in_channels, local_response_norm=True, **options)


@takes_weights
def vgg13(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """VGG B with 13 layers (133,047,848 parameters), as torchvision.models.vgg13; `options` are those of :class:`VGG`.

    Examples
    --------
    >>> from fastconv.models import vgg13
    >>> vgg13(num_classes=10, hidden=0).classifier
    Sequential(
      (0): Linear(in_features=25088, out_features=10, bias=True)
    )
    """
    return VGG("B", num_classes, in_channels, **options)


@takes_weights
def vgg16_1x1(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """VGG C: 16 layers, three of them 1 x 1 (133,638,952 parameters); `options` are those of :class:`VGG`.

    Examples
    --------
    >>> from fastconv.models import vgg16_1x1
    >>> vgg16_1x1(num_classes=10, hidden=8).features[14]
    Conv2d(256, 256, kernel_size=(1, 1), stride=(1, 1))
    """
    return VGG("C", num_classes, in_channels, **options)


@takes_weights
def vgg16(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """VGG D with 16 layers (138,357,544 parameters), as torchvision.models.vgg16; `options` are those of :class:`VGG`.

    Examples
    --------
    >>> from fastconv.models import vgg16
    >>> len(vgg16(num_classes=10, hidden=8).features)
    31
    """
    return VGG("D", num_classes, in_channels, **options)


@takes_weights
def vgg19(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """VGG E with 19 layers (143,667,240 parameters), as torchvision.models.vgg19; `options` are those of :class:`VGG`.

    Examples
    --------
    >>> from fastconv.models import vgg19
    >>> len(vgg19(num_classes=10, hidden=8).features)
    37
    """
    return VGG("E", num_classes, in_channels, **options)


@takes_weights
def vgg11_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """:func:`vgg11` with batch normalisation (132,868,840 parameters), as torchvision.models.vgg11_bn.

    Examples
    --------
    >>> from fastconv.models import vgg11_bn
    >>> len(vgg11_bn(num_classes=10, hidden=8).features)
    29
    """
    return vgg11(num_classes, in_channels, batch_norm=True, **options)


@takes_weights
def vgg13_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """:func:`vgg13` with batch normalisation (133,053,736 parameters), as torchvision.models.vgg13_bn.

    Examples
    --------
    >>> from fastconv.models import vgg13_bn
    >>> len(vgg13_bn(num_classes=10, hidden=8).features)
    35
    """
    return vgg13(num_classes, in_channels, batch_norm=True, **options)


@takes_weights
def vgg16_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """:func:`vgg16` with batch normalisation (138,365,992 parameters), as torchvision.models.vgg16_bn.

    Examples
    --------
    >>> from fastconv.models import vgg16_bn
    >>> len(vgg16_bn(num_classes=10, hidden=8).features)
    44
    """
    return vgg16(num_classes, in_channels, batch_norm=True, **options)


@takes_weights
def vgg19_bn(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> VGG:
    """:func:`vgg19` with batch normalisation (143,678,248 parameters), as torchvision.models.vgg19_bn.

    Examples
    --------
    >>> from fastconv.models import vgg19_bn
    >>> len(vgg19_bn(num_classes=10, hidden=8).features)
    53
    """
    return vgg19(num_classes, in_channels, batch_norm=True, **options)
