"""One-dimensional networks that hear raw waveforms: M3, M5, M11, M18 and M34 with residual blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastconv.nn as nn
from fastconv.joining import flatten
from fastconv.models.initialization import initialize
from fastconv.models.residual import Add
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import size

__all__ = ["WaveformNet", "m3", "m5", "m11", "m18", "m34_res"]


def _conv_norm(channels: int, out: int, kernel: int = 3, stride: int = 1, padding: Any = 1) -> list[nn.Module]:
    return [nn.Conv1d(channels, out, kernel, stride, padding=padding), nn.BatchNorm1d(out)]


class WaveformBlock(nn.Module):
    """Two convolutions of width 3 and a shortcut, as in M34-res.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.waveform import WaveformBlock
    >>> WaveformBlock(4, 8)(np.zeros((1, 4, 9), np.float32)).shape
    (1, 8, 9)
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv_norm(in_channels, channels), nn.ReLU(), *_conv_norm(channels, channels))
        self.shortcut = nn.Identity() if in_channels == channels else nn.Conv1d(in_channels, channels, 1)
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Any) -> Any:
        """Features (N, channels, L) of features (N, in_channels, L)."""
        return self.relu(self.add(self.body(x), self.shortcut(x)))


class WaveformNet(nn.Module):
    """A long first filter with stride 4, stages of short convolutions with max-pooling by 4 between them, a mean.

    Parameters
    ----------
    stages : sequence of (int, int)
        Channels and convolutions of each stage after the first filter.
    first : int
        Filters of the first layer.
    num_classes, in_channels : int
        At least 1; one channel for mono sound.
    pool_last : bool, keyword only
        Whether max-pooling follows the last stage, too.
    residual : bool, keyword only
        Blocks of two convolutions with a shortcut in place of single convolutions.
    kernel_size : int, keyword only
        Of the first layer: 80 samples are 10 ms at 8 kHz.

    Attributes
    ----------
    features, classifier : Module

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Dai, Dai, Qu, Li & Das 2017, "Very deep convolutional neural networks for raw waveforms", table 1; the paper's
    input is 4 s at 8 kHz. All its networks are fully convolutional: the mean over time makes any length fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import WaveformNet
    >>> net = WaveformNet([(8, 1), (16, 1)], 8, num_classes=10)
    >>> net(np.zeros((2, 1, 2000), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self,
        stages: Sequence[tuple[int, int]],
        first: int,
        num_classes: int = 10,
        in_channels: int = 1,
        *,
        pool_last: bool = False,
        residual: bool = False,
        kernel_size: int = 80,
    ) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        size("kernel_size", kernel_size, 1)
        channels = size("first", first, 1)
        with nn.init.skip_init():
            # "same" in the paper: 32,000 samples become 8,000.
            layers = [*_conv_norm(in_channels, first, kernel_size, 4, "same"), nn.ReLU(), nn.MaxPool1d(4)]
            for i, (width, depth) in enumerate(stages):
                for _ in range(depth):
                    if residual:
                        layers.append(WaveformBlock(channels, width))
                    else:
                        layers += [*_conv_norm(channels, width), nn.ReLU()]
                    channels = width
                if pool_last or i + 1 < len(stages):
                    layers.append(nn.MaxPool1d(4))
            self.features = nn.Sequential(*layers)
            self.avgpool = nn.AdaptiveAvgPool1d(1)
            self.classifier = nn.Linear(channels, num_classes)
        initialize(self, nn.init.xavier_uniform_, nn.init.xavier_uniform_)

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of waveforms (N, in_channels, L)."""
        x = self.avgpool(self.features(x))
        return self.classifier(flatten(x, 1))


def _scaled(width: float, stages: Sequence[tuple[int, int]], first: int) -> tuple[list[tuple[int, int]], int]:
    return [(max(1, round(c * width)), n) for c, n in stages], max(1, round(first * width))


@takes_weights
def m3(num_classes: int = 10, in_channels: int = 1, *, width: float = 1.0, **options: Any) -> WaveformNet:
    """M3: two convolutions of 256 filters (0.2 million parameters); `width` is a factor of all channels.

    Examples
    --------
    >>> from fastconv.models import m3
    >>> sum(p.numel() for p in m3().parameters())
    221194
    """
    return WaveformNet(*_scaled(width, [(256, 1)], 256), num_classes, in_channels, pool_last=True, **options)


@takes_weights
def m5(num_classes: int = 10, in_channels: int = 1, *, width: float = 1.0, **options: Any) -> WaveformNet:
    """M5: four convolutions (0.5 million parameters); `width` is a factor of all channels.

    Examples
    --------
    >>> from fastconv.models import m5
    >>> sum(p.numel() for p in m5().parameters())
    559114
    """
    stages = [(128, 1), (256, 1), (512, 1)]
    return WaveformNet(*_scaled(width, stages, 128), num_classes, in_channels, pool_last=True, **options)


@takes_weights
def m11(num_classes: int = 10, in_channels: int = 1, *, width: float = 1.0, **options: Any) -> WaveformNet:
    """M11: ten convolutions (1.8 million parameters); `width` is a factor of all channels.

    Examples
    --------
    >>> from fastconv.models import m11
    >>> sum(p.numel() for p in m11().parameters())
    1786442
    """
    stages = [(64, 2), (128, 2), (256, 3), (512, 2)]
    return WaveformNet(*_scaled(width, stages, 64), num_classes, in_channels, **options)


@takes_weights
def m18(num_classes: int = 10, in_channels: int = 1, *, width: float = 1.0, **options: Any) -> WaveformNet:
    """M18: 17 convolutions (3.7 million parameters); `width` is a factor of all channels.

    Examples
    --------
    >>> from fastconv.models import m18
    >>> sum(p.numel() for p in m18().parameters())
    3683786
    """
    stages = [(64, 4), (128, 4), (256, 4), (512, 4)]
    return WaveformNet(*_scaled(width, stages, 64), num_classes, in_channels, **options)


@takes_weights
def m34_res(num_classes: int = 10, in_channels: int = 1, *, width: float = 1.0, **options: Any) -> WaveformNet:
    """M34-res: 16 residual blocks (4 million parameters); `width` is a factor of all channels.

    Examples
    --------
    >>> from fastconv.models import m34_res
    >>> sum(p.numel() for p in m34_res().parameters())
    4075930
    """
    stages = [(48, 3), (96, 4), (192, 6), (384, 3)]
    return WaveformNet(*_scaled(width, stages, 48), num_classes, in_channels, residual=True, **options)
