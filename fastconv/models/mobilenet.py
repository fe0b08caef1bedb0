"""Separable convolutions, depthwise and spatial, and MobileNet v1 and v2, which are made of the depthwise kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastconv.nn as nn
from fastconv.joining import flatten
from fastconv.models.initialization import he_fan_out, initialize, normal
from fastconv.models.residual import Add
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import number, size

__all__ = [
    "DepthwiseSeparableConv2d",
    "MobileNetV1",
    "MobileNetV2",
    "SpatiallySeparableConv2d",
    "mobilenet_v1",
    "mobilenet_v2",
]


class SpatiallySeparableConv2d(nn.Sequential):
    """A k x k convolution as one of k x 1 and one of 1 x k: 2 k weights a filter in place of k².

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int
        k, at least 1.
    stride, padding : int
        Of each of the two in its dimension.
    bias : bool
        Of the second.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    With the two factors of a kernel of rank 1, such as Sobel's, it is that convolution. Szegedy et al. 2016, section
    3.2, calls them asymmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import SpatiallySeparableConv2d
    >>> layer = SpatiallySeparableConv2d(1, 1, 3, bias=False)
    >>> layer[0].weight.data[0, 0, :, 0] = 1, 2, 1
    >>> layer[1].weight.data[0, 0, 0, :] = -1, 0, 1
    >>> layer(np.tile(np.arange(4, dtype=np.float32), (1, 1, 3, 1)))
    array([[[[8., 8.]]]], dtype=float32)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        size("kernel_size", kernel_size, 1)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, (kernel_size, 1), (stride, 1), (padding, 0), bias=False),
            nn.Conv2d(out_channels, out_channels, (1, kernel_size), (1, stride), (0, padding), bias=bias),
        )


class DepthwiseSeparableConv2d(nn.Sequential):
    """One filter a channel, then a 1 x 1 convolution that mixes the channels; each with normalisation and ReLU.

    Parameters
    ----------
    in_channels, out_channels : int
    stride : int
        Of the depthwise convolution, whose windows are 3 x 3.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Howard et al. 2017, figure 3. Against a whole convolution it costs 1 / out_channels + 1 / 9.

    Examples
    --------
    >>> from fastconv.models import DepthwiseSeparableConv2d
    >>> DepthwiseSeparableConv2d(32, 64).summary((1, 32, 7, 7)).macs / (32 * 64 * 9 * 49)
    0.1267361111111111
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class MobileNetV1(nn.Module):
    """MobileNet: a convolution and 13 depthwise-separable ones.

    Parameters
    ----------
    num_classes, in_channels : int
        At least 1.
    width_mult : float, keyword only
        Factor of all channels (the paper's alpha).
    stem_stride : int, keyword only
        Of the first convolution; 1 for small images.

    Attributes
    ----------
    features, classifier : Module

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Howard et al. 2017, "MobileNets: efficient convolutional neural networks for mobile vision applications".

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import MobileNetV1
    >>> net = MobileNetV1(10, width_mult=0.125)
    >>> net(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, *, width_mult: float = 1.0, stem_stride: int = 2
    ) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        _check_width(width_mult)
        channels = [max(8, int(c * width_mult)) for c in (32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)]
        strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
        with nn.init.skip_init():
            first = _conv_norm(in_channels, channels[0], 3, stem_stride, activation=nn.ReLU)
            blocks = map(DepthwiseSeparableConv2d, channels, channels[1:], strides)
            self.features = nn.Sequential(first, *blocks)
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Linear(channels[-1], num_classes)
        initialize(self, he_fan_out, normal(0.01))

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.avgpool(self.features(x))
        return self.classifier(flatten(x, 1))


class InvertedResidual(nn.Module):
    """1 x 1 to more channels, 3 x 3 depthwise, 1 x 1 to few, and a shortcut between the narrow ends.

    Parameters
    ----------
    inp, oup : int
        Channels of input and output; the shortcut exists where they are equal and `stride` is 1.
    stride : {1, 2}
    expand_ratio : int
        Factor of the channels in between; 1 leaves the first convolution out.

    Notes
    -----
    Sandler et al. 2018, figure 3b. Source: torchvision.models.mobilenetv2.InvertedResidual.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.mobilenet import InvertedResidual
    >>> InvertedResidual(8, 8, 1, 6)(np.zeros((1, 8, 5, 5), np.float32)).shape
    (1, 8, 5, 5)
    """

    def __init__(self, inp: int, oup: int, stride: int, expand_ratio: int) -> None:
        super().__init__()
        hidden = round(inp * expand_ratio)
        self.conv = nn.Sequential(
            *([_conv_norm(inp, hidden, 1)] if expand_ratio != 1 else []),
            _conv_norm(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, oup, 1, bias=False),
            nn.BatchNorm2d(oup),
        )
        self.add = Add() if stride == 1 and inp == oup else None

    def forward(self, x: Any) -> Any:
        """Features (N, oup, H / stride, W / stride) of features (N, inp, H, W)."""
        y = self.conv(x)
        return y if self.add is None else self.add(y, x)


class MobileNetV2(nn.Module):
    """MobileNet v2: inverted residuals with linear bottlenecks.

    Parameters
    ----------
    num_classes, in_channels : int
        At least 1.
    width_mult : float, keyword only
        Factor of all channels, which are then rounded to multiples of `round_nearest`.
    inverted_residual_setting : sequence of (t, c, n, s), keyword only
        Expansion, channels, repetitions and first stride of the stages; the paper's table 2 by default.
    round_nearest : int, keyword only
    dropout : float, keyword only
        Before the last linear layer.
    stem_stride : int, keyword only
        Of the first convolution; 1 for small images.

    Attributes
    ----------
    features, classifier : Module
        As in torchvision.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Sandler, Howard, Zhu, Zhmoginov & Chen 2018, "MobileNetV2: inverted residuals and linear bottlenecks". Source:
    torchvision.models.MobileNetV2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import MobileNetV2
    >>> net = MobileNetV2(10, inverted_residual_setting=[(1, 16, 1, 1), (6, 24, 2, 2)], width_mult=0.5).eval()
    >>> net(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        width_mult: float = 1.0,
        inverted_residual_setting: Sequence[Sequence[int]] | None = None,
        round_nearest: int = 8,
        dropout: float = 0.2,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        size("round_nearest", round_nearest, 1)
        _check_width(width_mult)
        setting = _SETTING if inverted_residual_setting is None else inverted_residual_setting
        if not setting or any(len(row) != 4 for row in setting):
            raise ValueError(f"inverted_residual_setting must hold rows of 4 numbers, got {setting!r}")
        channels = _rounded(32 * width_mult, round_nearest)
        last = _rounded(1280 * max(1.0, width_mult), round_nearest)
        with nn.init.skip_init():
            features: list[nn.Module] = [_conv_norm(in_channels, channels, 3, stem_stride)]
            for t, c, n, s in setting:
                for i in range(n):
                    out = _rounded(c * width_mult, round_nearest)
                    features.append(InvertedResidual(channels, out, s if i == 0 else 1, t))
                    channels = out
            features.append(_conv_norm(channels, last, 1))
            self.features = nn.Sequential(*features)
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        initialize(self, he_fan_out, normal(0.01))

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.avgpool(self.features(x))
        return self.classifier(flatten(x, 1))


# The paper's table 2: expansion, channels, repetitions, first stride.
_SETTING = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _check_width(width_mult: float) -> None:
    if not number("width_mult", width_mult) > 0:
        raise ValueError(f"width_mult must be positive, got {width_mult}")


def _conv_norm(
    channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, activation: Any = nn.ReLU6
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        activation(),
    )


def _rounded(channels: float, divisor: int) -> int:
    """The nearest multiple of `divisor` that is not more than a tenth below `channels`, at least `divisor`."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


@takes_weights
def mobilenet_v1(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> MobileNetV1:
    """MobileNet (4,231,976 parameters); `options` are those of :class:`MobileNetV1`.

    Examples
    --------
    >>> from fastconv.models import mobilenet_v1
    >>> sum(p.numel() for p in mobilenet_v1().parameters())
    4231976
    """
    return MobileNetV1(num_classes, in_channels, **options)


@takes_weights
def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> MobileNetV2:
    """MobileNet v2 (3,504,872 parameters), as torchvision.models.mobilenet_v2; `options` are those of its class.

    Examples
    --------
    >>> from fastconv.models import mobilenet_v2
    >>> sum(p.numel() for p in mobilenet_v2().parameters())
    3504872
    """
    return MobileNetV2(num_classes, in_channels, **options)
