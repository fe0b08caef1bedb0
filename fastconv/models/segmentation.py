"""A class for every pixel: FCN with dilated convolutions and skips, and U-Net."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.joining import cat
from fastconv.models.initialization import he_fan_in, initialize
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import size

__all__ = ["FCN", "UNet", "bilinear_kernel", "fcn8s", "unet"]


def _block(channels: int, out: int, dilation: int = 1) -> nn.Sequential:
    """Twice: convolution of 3 x 3 that keeps the size, batch normalisation, ReLU."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        ]
        channels = out
    return nn.Sequential(*layers)


def _check(num_classes: int, in_channels: int, width: int, depth: int) -> None:
    size("num_classes", num_classes, 1)
    size("in_channels", in_channels, 1)
    size("width", width, 1)
    size("depth", depth, 1)


def _fits(x: Any, multiple: int) -> None:
    if any(extent == 0 or extent % multiple for extent in x.shape[2:]):
        raise ValueError(f"input must have a height and a width divisible by {multiple}, got shape {tuple(x.shape)}")


class UNet(nn.Module):
    """U-Net: a path down that halves the image, a path up of transposed convolutions, and copies across.

    Parameters
    ----------
    num_classes, in_channels : int
        At least 1.
    width : int, keyword only
        Channels of the first stage; every stage down doubles them.
    depth : int, keyword only
        How often the image is halved: its sides must be divisible by 2 ** depth.
    dilation : int, keyword only
        Of the convolutions at the bottom; above 1 they see further without another halving.

    Attributes
    ----------
    down, up, across : ModuleList
        Blocks of the two paths, and the transposed convolutions between those of `up`.
    bottom : Sequential
    head : Conv2d
        The last 1 x 1 convolution.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, an image whose sides cannot be halved so often.

    Notes
    -----
    Ronneberger, Fischer & Brox 2015, "U-Net: convolutional networks for biomedical image segmentation", with padded
    convolutions, so that the output has the image's size, and batch normalisation.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import UNet
    >>> UNet(3, 1, width=4, depth=2)(np.zeros((2, 1, 16, 24), np.float32)).shape
    (2, 3, 16, 24)
    """

    def __init__(
        self, num_classes: int = 2, in_channels: int = 1, *, width: int = 64, depth: int = 4, dilation: int = 1
    ) -> None:
        super().__init__()
        _check(num_classes, in_channels, width, depth)
        widths = [width << i for i in range(depth + 1)]
        with nn.init.skip_init():
            self.down = nn.ModuleList(map(_block, [in_channels, *widths], widths[:-1]))
            self.bottom = _block(widths[-2], widths[-1], size("dilation", dilation, 1))
            self.across = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1])
            self.up = nn.ModuleList(_block(2 * w, w) for w in widths[-2::-1])
            self.head = nn.Conv2d(width, num_classes, 1)
        initialize(self, he_fan_in)

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes, H, W) of images (N, in_channels, H, W)."""
        _fits(x, 2 ** len(self.down))
        kept = []
        for block in self.down:
            x = block(x)
            kept.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for enlarge, block in zip(self.across, self.up):
            x = block(cat([kept.pop(), enlarge(x)], 1))
        return self.head(x)


class FCN(nn.Module):
    """Fully convolutional network: coarse scores, refined with those of earlier stages, enlarged bilinearly.

    Parameters
    ----------
    num_classes, in_channels : int
        At least 1.
    width : int, keyword only
        Channels of the first stage; every stage doubles them up to 8 times.
    depth : int, keyword only
        Stages, each of which halves the image: its sides must be divisible by 2 ** depth.
    skips : int, keyword only
        How many earlier stages refine the scores: 0 is FCN-32s, 1 FCN-16s, 2 FCN-8s for a depth of 5; below `depth`.
    dilation : int, keyword only
        Of the convolutions after the last stage: context without further halving.

    Attributes
    ----------
    stages, scores, enlarge : ModuleList
        Convolutions; 1 x 1 convolutions to scores, the coarsest first; transposed convolutions, which start as bilinear
        interpolation and are trained with the rest.
    context : Sequential
        The dilated convolutions.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, an image whose sides cannot be halved so often.

    Notes
    -----
    Long, Shelhamer & Darrell 2015, "Fully convolutional networks for semantic segmentation"; Yu & Koltun 2016,
    "Multi-scale context aggregation by dilated convolutions", for the context.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import FCN
    >>> FCN(3, 1, width=4, depth=3, skips=1, dilation=2)(np.zeros((2, 1, 16, 24), np.float32)).shape
    (2, 3, 16, 24)
    """

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        width: int = 64,
        depth: int = 5,
        skips: int = 2,
        dilation: int = 2,
    ) -> None:
        super().__init__()
        _check(num_classes, in_channels, width, depth)
        if size("skips", skips, 0) >= depth:
            raise ValueError(f"skips must be below depth={depth}, got {skips}")
        widths = [width * min(2**i, 8) for i in range(depth)]
        with nn.init.skip_init():
            self.stages = nn.ModuleList(map(_block, [in_channels, *widths], widths))
            self.context = _block(widths[-1], widths[-1], size("dilation", dilation, 1))
            self.scores = nn.ModuleList(
                nn.Conv2d(w, num_classes, 1) for w in [widths[-1], *widths[-2 : -2 - skips : -1]]
            )
            factors = [2] * skips + [2 ** (depth - skips)]
            self.enlarge = nn.ModuleList(
                nn.ConvTranspose2d(
                    num_classes, num_classes, 2 * f, stride=f, padding=f // 2, groups=num_classes, bias=False
                )
                for f in factors
            )
        initialize(self, he_fan_in)
        for layer, factor in zip(self.enlarge, factors):
            layer.weight.data[...] = bilinear_kernel(factor)

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes, H, W) of images (N, in_channels, H, W)."""
        _fits(x, 2 ** len(self.stages))
        features = []
        for block in self.stages:
            x = F.max_pool2d(block(x), 2)
            features.append(x)
        features[-1] = self.context(x)
        y = self.scores[0](features.pop())
        for i, score in enumerate(list(self.scores)[1:]):
            y = self.enlarge[i](y) + score(features.pop())
        return self.enlarge[-1](y)


def bilinear_kernel(factor: int) -> np.ndarray:
    """The kernel (2 factor, 2 factor) with which a transposed convolution of this stride interpolates bilinearly.

    Parameters
    ----------
    factor : int
        Even.

    Returns
    -------
    numpy.ndarray
        float64.

    Raises
    ------
    ValueError
        Another factor.

    Examples
    --------
    >>> from fastconv.models.segmentation import bilinear_kernel
    >>> bilinear_kernel(2)[1]
    array([0.1875, 0.5625, 0.5625, 0.1875])
    """
    if size("factor", factor, 1) % 2:
        raise ValueError(f"factor must be even, got {factor}")
    slope = 1 - np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor
    return np.outer(slope, slope)


@takes_weights
def unet(num_classes: int = 2, in_channels: int = 1, **options: Any) -> UNet:
    """U-Net; `options` are those of :class:`UNet`.

    Examples
    --------
    >>> from fastconv.models import unet
    >>> unet(width=4).head
    Conv2d(4, 2, kernel_size=(1, 1), stride=(1, 1))
    """
    return UNet(num_classes, in_channels, **options)


@takes_weights
def fcn8s(num_classes: int = 21, in_channels: int = 3, **options: Any) -> FCN:
    """FCN-8s; `options` are those of :class:`FCN`.

    Examples
    --------
    >>> from fastconv.models import fcn8s
    >>> [layer.stride for layer in fcn8s(width=4).enlarge]
    [(2, 2), (2, 2), (8, 8)]
    """
    return FCN(num_classes, in_channels, **options)
