"""Images read at positions of a grid, and the grid of an affine map: the two halves of a spatial transformer."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from ...devices import array_module
from ...differentiable import A, Array, apply, differentiable
from .interpolation import CUBIC, cubic_kernel
from .parameters import check_floating, compute_dtype, in_layout, integers

_MODES = ("bilinear", "nearest", "bicubic")
_PADDING = ("zeros", "border", "reflection")


class _Tap(NamedTuple):
    """One of the elements along a dimension that each result is a sum of: arrays of the grid's shape."""

    source: ndarray
    weight: ndarray  # 0 where the element lies outside
    slope: ndarray  # of the weight, by the grid's value


def _reflected(position: ndarray, low: float, high: float) -> tuple[ndarray, ndarray]:
    """`position` thrown back and forth between `low` and `high`, and its derivative."""
    if high <= low:
        return np.zeros_like(position), np.zeros_like(position)
    span = high - low
    distance = np.abs(position - low)
    turns = np.floor(distance / span)
    rest = distance - turns * span
    odd = turns % 2 == 1
    sign = np.where(position < low, -1, 1) * np.where(odd, -1, 1)
    return np.where(odd, span - rest, rest) + low, sign.astype(position.dtype)


def _inside(position: ndarray, n: int, padding: str, align_corners: bool) -> tuple[ndarray, ndarray]:
    """`position` brought to where there are elements, and its derivative."""
    slope = np.ones_like(position)
    if padding == "zeros":
        return position, slope
    if padding == "reflection":
        position, slope = _reflected(position, *((0, n - 1) if align_corners else (-0.5, n - 0.5)))
    slope = np.where((position > 0) & (position < n - 1), slope, 0)
    return np.clip(np.where(np.isnan(position), 0, position), 0, n - 1), slope  # a reflected infinity is NaN


def _cubic(t: ndarray) -> Iterator[tuple[ndarray, ndarray]]:
    """Weights of the elements at -1, 0, 1 and 2 for a position `t` in [0, 1), with their derivatives."""
    a = CUBIC
    for offset in (-1, 0, 1, 2):
        d = np.abs(t - offset)
        near, far = (3 * (a + 2) * d - 2 * (a + 3)) * d, (3 * a * d - 10 * a) * d + 8 * a
        sign = np.where(t < offset, -1, 1).astype(t.dtype)
        yield cubic_kernel(d, a), sign * (near if offset in (0, 1) else far)


def _taps(grid: ndarray, n: int, mode: str, padding: str, align_corners: bool) -> list[_Tap]:
    """What a dimension of `n` elements gives at the grid's values along it; -1 and 1 are its ends."""
    grid = np.where(np.isnan(grid), -1, grid).astype(grid.dtype, copy=False)
    scale = (n - 1) / 2 if align_corners else n / 2
    position = (grid + 1) * scale - (0 if align_corners else 0.5)

    def tap(source: ndarray, weight: ndarray, slope: ndarray) -> _Tap:
        valid = (source >= 0) & (source <= n - 1)
        place = np.clip(np.where(valid, source, 0), 0, n - 1).astype(np.int64)
        return _Tap(place, np.where(valid, weight, 0), np.where(valid, slope * scale, 0))

    if mode == "bicubic":  # each of the elements is brought inside, not the position
        below = np.floor(position)
        share = np.where(np.isfinite(position), position - below, 0)
        return [
            tap(np.rint(_inside(below + i, n, padding, align_corners)[0]), weight, slope)
            for i, (weight, slope) in zip((-1, 0, 1, 2), _cubic(share))
        ]
    position, inner = _inside(position, n, padding, align_corners)
    if mode == "nearest":
        return [tap(np.rint(position), np.ones_like(position), np.zeros_like(position))]
    below = np.floor(position)
    share = position - below
    return [tap(below, 1 - share, -inner), tap(below + 1, share, inner)]


def _check(x: ndarray, grid: ndarray, mode: str, padding: str) -> None:
    check_floating(x, "input")
    if grid.dtype != x.dtype:
        raise TypeError(f"grid must have the dtype of input, {x.dtype}; got {grid.dtype}")
    for name, value, allowed in (("mode", mode, _MODES), ("padding_mode", padding, _PADDING)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    if x.ndim not in (4, 5):
        raise ValueError(f"input must have shape (N, C, H, W) or (N, C, D, H, W), got {x.shape}")
    if mode == "bicubic" and x.ndim != 4:
        raise ValueError(f"input must have shape (N, C, H, W) in mode bicubic, got {x.shape}")
    if grid.ndim != x.ndim or len(grid) != len(x) or grid.shape[-1] != x.ndim - 2:
        dims = "D, H, W, 3" if x.ndim == 5 else "H, W, 2"
        raise ValueError(f"grid must have shape (N, {dims}) with the N={len(x)} of input, got {grid.shape}")
    if 0 in x.shape[2:]:
        raise ValueError(f"input must have at least one element in each dimension of space, got shape {x.shape}")


def _grid_sample_rule(wanted, x, grid, mode, padding_mode, align_corners):
    _check(x, grid, mode, padding_mode)
    library, wide = array_module(x), compute_dtype(x)
    n, channels, *sizes = x.shape
    nd, positions = len(sizes), math.prod(grid.shape[1:-1])
    values = grid.astype(wide, copy=False).reshape(n, positions, nd)
    with np.errstate(all="ignore"):  # of positions that are infinite
        axes = [
            _taps(values[..., nd - 1 - d], sizes[d], mode, padding_mode, bool(align_corners))
            for d in range(nd)  # the grid has width first
        ]
    flat = library.ascontiguousarray(x).reshape(n, channels, math.prod(sizes)).astype(wide, copy=False)

    def combinations() -> Iterator[tuple[tuple[_Tap, ...], ndarray]]:
        """One tap of each dimension, and where in an image that is: (N, 1, positions)."""
        for taps in itertools.product(*axes):
            place = taps[0].source
            for size, tap in zip(sizes[1:], taps[1:]):
                place = place * size + tap.source
            yield taps, place[:, None]

    def product(taps: Sequence[_Tap], but: int | None = None) -> ndarray:
        """The weight of a combination, with the slope in place of the weight in dimension `but`."""
        factors = [tap.slope if d == but else tap.weight for d, tap in enumerate(taps)]
        return functools.reduce(operator.mul, factors)[:, None]

    y = library.zeros((n, channels, positions), wide)
    for taps, place in combinations():
        y += np.take_along_axis(flat, np.broadcast_to(place, y.shape), 2) * product(taps).astype(wide, copy=False)

    def pullback(dy):
        dy = library.ascontiguousarray(dy).reshape(y.shape).astype(wide, copy=False)
        dx = library.zeros(flat.shape, wide) if wanted[0] else None
        dgrid = library.zeros((n, positions, nd), wide) if wanted[1] else None
        batch = library.arange(n)[:, None, None], library.arange(channels)[None, :, None]
        for taps, place in combinations():
            if dx is not None:
                library.add.at(dx, (*batch, place), dy * product(taps).astype(wide, copy=False))
            if dgrid is not None:
                along = (np.take_along_axis(flat, np.broadcast_to(place, y.shape), 2) * dy).sum(axis=1)
                for d in range(nd):
                    dgrid[..., nd - 1 - d] += along * product(taps, but=d)[:, 0]
        return (
            None if dx is None else in_layout(dx.reshape(x.shape).astype(x.dtype, copy=False), x),
            None if dgrid is None else dgrid.reshape(grid.shape).astype(grid.dtype, copy=False),
        )

    shape = (n, channels, *grid.shape[1:-1])
    return in_layout(y.reshape(shape).astype(x.dtype, copy=False), x), pullback


@differentiable(_grid_sample_rule, wrt=("input", "grid"))
def grid_sample(
    input: A,
    grid: Array,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> A:
    """Read images at the positions of a grid, as torch.nn.functional.grid_sample.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (N, C, D, H, W)
        float32, float64, float16 or bfloat16.
    grid : array, shape (N, H', W', 2) or (N, D', H', W', 3)
        Of the input's dtype. Along the last dimension: the position in the width, the height and the depth, from -1
        to 1 from one end of the image to the other. NaN counts as -1.
    mode : {"bilinear", "nearest", "bicubic"}
        "bilinear" is trilinear in volumes; "bicubic" is for images alone.
    padding_mode : {"zeros", "border", "reflection"}
        What lies outside: zeros, the nearest element, or the image mirrored.
    align_corners : bool, optional
        Whether -1 and 1 are the centres of the corner elements (True) or the corners of the image (False, the default).

    Returns
    -------
    array, shape (N, C, H', W') or (N, C, D', H', W')

    Raises
    ------
    ValueError
        Shapes that do not fit each other, a mode that is unknown or for images alone, an image without elements.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Notes
    -----
    Jaderberg et al. 2015, "Spatial transformer networks"; ONNX GridSample. In NumPy: clear rather than fast.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> x = np.arange(6.0).reshape(1, 1, 2, 3)
    >>> corners = np.array([[[[-1.0, -1.0], [1.0, 1.0], [0.5, 0.0]]]])
    >>> F.grid_sample(x, corners, align_corners=True)
    array([[[[0., 5., 3.]]]])
    """
    return apply(grid_sample, input, grid, mode, padding_mode, align_corners)


def _affine_grid_rule(wanted, theta, size, align_corners):
    check_floating(theta, "theta")
    shape = integers(size, len(size) if isinstance(size, Sequence) else 4, "size", 1)
    nd = len(shape) - 2
    if nd not in (2, 3):
        raise ValueError(f"size must be (N, C, H, W) or (N, C, D, H, W), got {size!r}")
    if theta.shape != (shape[0], nd, nd + 1):
        raise ValueError(f"theta must have shape {(shape[0], nd, nd + 1)} for size={tuple(shape)}, got {theta.shape}")
    wide = compute_dtype(theta)
    base = np.ones((*shape[2:], nd + 1), wide)
    for d, n in enumerate(shape[2:]):
        ends = 1.0 if align_corners else (n - 1) / n
        along = np.linspace(-ends, ends, n) if n > 1 else np.zeros(1)
        base[..., nd - 1 - d] = along.reshape([n if i == d else 1 for i in range(nd)])
    flat = array_module(theta).asarray(base.reshape(-1, nd + 1))
    y = flat @ theta.astype(wide, copy=False).swapaxes(1, 2)

    def pullback(dy):
        dy = dy.astype(wide, copy=False).reshape(y.shape)
        return ((dy.swapaxes(1, 2) @ flat).astype(theta.dtype, copy=False),)

    return y.reshape(shape[0], *shape[2:], nd).astype(theta.dtype, copy=False), pullback


@differentiable(_affine_grid_rule, wrt=("theta",))
def affine_grid(theta: A, size: Sequence[int], align_corners: bool | None = None) -> A:
    """The positions at which `grid_sample` reads to map images affinely, as torch.nn.functional.affine_grid.

    Parameters
    ----------
    theta : array, shape (N, 2, 3) or (N, 3, 4)
        For each image the matrix that takes a position (width, height, depth, 1) of the output to one of the input.
        float32, float64, float16 or bfloat16.
    size : sequence of int
        Of the output: (N, C, H, W) or (N, C, D, H, W).
    align_corners : bool, optional
        As for `grid_sample`.

    Returns
    -------
    array, shape (N, H, W, 2) or (N, D, H, W, 3)

    Raises
    ------
    ValueError
        A `size` of other length or with a dimension below 1, or matrices of another shape.
    TypeError
        A dtype that is not supported, or sizes that are no ints.

    Notes
    -----
    Jaderberg et al. 2015, "Spatial transformer networks"; ONNX AffineGrid.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> half_turn = np.array([[[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]])
    >>> x = np.arange(4.0).reshape(1, 1, 2, 2)
    >>> F.grid_sample(x, F.affine_grid(half_turn, x.shape))
    array([[[[3., 2.],
             [1., 0.]]]])
    """
    return apply(affine_grid, theta, size, align_corners)
