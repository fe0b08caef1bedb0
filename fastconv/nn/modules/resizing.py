"""Layers that resize images, and layers that move values between channels and space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import choice, size
from fastconv.nn.modules.module import Module

__all__ = [
    "ChannelShuffle",
    "PixelShuffle",
    "PixelUnshuffle",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
]

_MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area")


class Upsample(Module):
    """Resizes sounds, images and volumes by :func:`fastconv.nn.functional.interpolate`.

    Parameters
    ----------
    size : int or sequence of int, optional
        Of the output, without N and C.
    scale_factor : float or sequence of float, optional
        Instead of `size`.
    mode : str
        "nearest", "nearest-exact", "linear" (3D inputs), "bilinear" and "bicubic" (4D), "trilinear" (5D) or "area".
    align_corners : bool, optional
        For the linear and cubic modes: whether the corner elements lie on one another.
    recompute_scale_factor : bool, optional
        Whether positions follow from the sizes, rather than from `scale_factor`.

    Raises
    ------
    ValueError
        An unknown mode; at the call, whatever the function does not take.

    Notes
    -----
    Source: torch.nn.Upsample; ONNX Resize.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Upsample(scale_factor=2)
    Upsample(scale_factor=2.0, mode='nearest')
    >>> nn.Upsample(scale_factor=2, mode="bilinear")(np.zeros((1, 3, 4, 5), np.float32)).shape
    (1, 3, 8, 10)
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        if isinstance(scale_factor, Sequence):
            self.scale_factor: Any = tuple(float(factor) for factor in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode = choice("mode", mode, _MODES)
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Any) -> Any:
        """Resize `input`."""
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        given = f"size={self.size!r}" if self.scale_factor is None else f"scale_factor={self.scale_factor!r}"
        return f"{given}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Resizes images to the nearest element above and left.

    Parameters
    ----------
    size : int or pair of int, optional
        Of the output.
    scale_factor : float or pair of float, optional
        Instead of `size`.

    Notes
    -----
    Source: torch.nn.UpsamplingNearest2d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.UpsamplingNearest2d(scale_factor=2)(np.array([[[[1.0, 2.0]]]], np.float32))
    array([[[[1., 1., 2., 2.],
             [1., 1., 2., 2.]]]], dtype=float32)
    """

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
    ) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Resizes images by bilinear interpolation between their corner elements.

    Parameters
    ----------
    size : int or pair of int, optional
        Of the output.
    scale_factor : float or pair of float, optional
        Instead of `size`.

    Notes
    -----
    ``align_corners=True``. Source: torch.nn.UpsamplingBilinear2d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.UpsamplingBilinear2d((1, 3))(np.array([[[[1.0, 2.0]]]], np.float32))
    array([[[[1. , 1.5, 2. ]]]], dtype=float32)
    """

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
    ) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class PixelShuffle(Module):
    """Moves channels into space: (*, C r r, H, W) to (*, C, H r, W r).

    Parameters
    ----------
    upscale_factor : int
        r.

    Raises
    ------
    ValueError, TypeError
        The parameter breaks its rule; at the call, channels that are no multiple of r r.

    Notes
    -----
    Shi et al. 2016. Source: torch.nn.PixelShuffle; ONNX DepthToSpace.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.PixelShuffle(2)(np.zeros((1, 12, 4, 5), np.float32)).shape
    (1, 3, 8, 10)
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = size("upscale_factor", upscale_factor, 1)

    def forward(self, input: Any) -> Any:
        """Rearrange `input`."""
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Moves space into channels, the inverse of :class:`PixelShuffle`.

    Parameters
    ----------
    downscale_factor : int
        r; divides height and width.

    Raises
    ------
    ValueError, TypeError
        The parameter breaks its rule; at the call, a height or width that r does not divide.

    Notes
    -----
    Source: torch.nn.PixelUnshuffle; ONNX SpaceToDepth.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.PixelUnshuffle(2)(np.zeros((1, 3, 8, 10), np.float32)).shape
    (1, 12, 4, 5)
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = size("downscale_factor", downscale_factor, 1)

    def forward(self, input: Any) -> Any:
        """Rearrange `input`."""
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Interleaves the channels of several groups.

    Parameters
    ----------
    groups : int
        Divides the channels.

    Raises
    ------
    ValueError, TypeError
        The parameter breaks its rule; at the call, channels that are no multiple of `groups`.

    Notes
    -----
    Zhang et al. 2018 (ShuffleNet). Source: torch.nn.ChannelShuffle.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ChannelShuffle(2)(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)).ravel()
    array([0., 2., 1., 3.], dtype=float32)
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = size("groups", groups, 1)

    def forward(self, input: Any) -> Any:
        """Rearrange `input`."""
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
