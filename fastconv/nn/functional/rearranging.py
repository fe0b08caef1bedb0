"""Rearrangement of channels: moved into space and back, and shuffled between groups."""

from __future__ import annotations

from typing import Any

from numpy import ndarray

from ...differentiable import A, apply, differentiable
from .parameters import check_floating, in_layout, integers


def _factor(x: ndarray, factor: Any, name: str) -> int:
    check_floating(x, "input")
    if x.ndim < 3:
        raise ValueError(f"input must have at least three dimensions (*, C, H, W), got shape {x.shape}")
    return integers(factor, 1, name, 1)[0]


def _to_space(x: ndarray, r: int) -> ndarray:
    """(*, C * r * r, H, W) to (*, C, H * r, W * r)."""
    *lead, c, h, w = x.shape
    k, c = len(lead), c // (r * r)
    split = x.reshape(*lead, c, r, r, h, w).transpose(*range(k + 1), k + 3, k + 1, k + 4, k + 2)
    return split.reshape(*lead, c, h * r, w * r)


def _to_channels(x: ndarray, r: int) -> ndarray:
    """(*, C, H * r, W * r) to (*, C * r * r, H, W)."""
    *lead, c, h, w = x.shape
    k, h, w = len(lead), h // r, w // r
    split = x.reshape(*lead, c, h, r, w, r).transpose(*range(k + 1), k + 2, k + 4, k + 1, k + 3)
    return split.reshape(*lead, c * r * r, h, w)


def _pixel_shuffle_rule(wanted, x, upscale_factor):
    r = _factor(x, upscale_factor, "upscale_factor")
    if x.shape[-3] % (r * r):
        raise ValueError(f"input must have a multiple of upscale_factor ** 2 = {r * r} channels, got shape {x.shape}")
    return in_layout(_to_space(x, r), x), lambda dy: (in_layout(_to_channels(dy, r), x),)


def _pixel_unshuffle_rule(wanted, x, downscale_factor):
    r = _factor(x, downscale_factor, "downscale_factor")
    if x.shape[-2] % r or x.shape[-1] % r:
        raise ValueError(f"input must have a height and a width that downscale_factor {r} divides, got shape {x.shape}")
    return in_layout(_to_channels(x, r), x), lambda dy: (in_layout(_to_space(dy, r), x),)


def _channel_shuffle_rule(wanted, x, groups):
    check_floating(x, "input")
    (g,) = integers(groups, 1, "groups", 1)
    if x.ndim < 3 or x.shape[1] % g:
        raise ValueError(f"input must be (N, C, *) with a multiple of groups={g} channels, got shape {x.shape}")

    def move(array, rows, columns):
        n, _, *rest = x.shape
        return in_layout(array.reshape(n, rows, columns, *rest).swapaxes(1, 2).reshape(x.shape), x)

    return move(x, g, x.shape[1] // g), lambda dy: (move(dy, x.shape[1] // g, g),)


@differentiable(_pixel_shuffle_rule, wrt=("input",))
def pixel_shuffle(input: A, upscale_factor: int) -> A:
    """Move channels into space: (*, C * r * r, H, W) to (*, C, H * r, W * r), as torch.nn.functional.pixel_shuffle.

    Parameters
    ----------
    input : array, shape (*, C * r * r, H, W)
        float32, float64, float16 or bfloat16.
    upscale_factor : int
        r.

    Returns
    -------
    array, shape (*, C, H * r, W * r)

    Raises
    ------
    ValueError
        Fewer than three dimensions, or channels that are no multiple of r * r.
    TypeError
        A dtype that is not supported, or a factor that is no int.

    Notes
    -----
    Shi et al., 2016, arXiv:1609.05158.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.pixel_shuffle(np.arange(4.0).reshape(4, 1, 1), 2)
    array([[[0., 1.],
            [2., 3.]]])
    """
    return apply(pixel_shuffle, input, upscale_factor)


@differentiable(_pixel_unshuffle_rule, wrt=("input",))
def pixel_unshuffle(input: A, downscale_factor: int) -> A:
    """The inverse of `pixel_shuffle`, as torch.nn.functional.pixel_unshuffle.

    Parameters
    ----------
    input : array, shape (*, C, H * r, W * r)
        float32, float64, float16 or bfloat16.
    downscale_factor : int
        r.

    Returns
    -------
    array, shape (*, C * r * r, H, W)

    Raises
    ------
    ValueError
        Fewer than three dimensions, or a height or width that r does not divide.
    TypeError
        A dtype that is not supported, or a factor that is no int.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.pixel_unshuffle(np.arange(4.0).reshape(1, 2, 2), 2).ravel()
    array([0., 1., 2., 3.])
    """
    return apply(pixel_unshuffle, input, downscale_factor)


@differentiable(_channel_shuffle_rule, wrt=("input",))
def channel_shuffle(input: A, groups: int) -> A:
    """Interleave the channels of `groups` groups, as torch.nn.functional.channel_shuffle.

    Parameters
    ----------
    input : array, shape (N, C, *)
        float32, float64, float16 or bfloat16.
    groups : int
        Divides C.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError
        Fewer than three dimensions, or channels that are no multiple of `groups`.
    TypeError
        A dtype that is not supported, or `groups` that is no int.

    Notes
    -----
    Zhang et al., 2018, arXiv:1707.01083 (ShuffleNet).

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.channel_shuffle(np.arange(4.0).reshape(1, 4, 1), 2).ravel()
    array([0., 2., 1., 3.])
    """
    return apply(channel_shuffle, input, groups)
