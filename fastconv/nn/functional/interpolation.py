"""Resizing of sounds, images and volumes: nearest, linear and cubic interpolation, and areas."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from ... import backend
from ...devices import array_module
from ...differentiable import A, apply, differentiable
from .parameters import check_floating, compute_dtype, in_layout, integers

_RANKS = {
    "nearest": (3, 4, 5),
    "nearest-exact": (3, 4, 5),
    "linear": (3,),
    "bilinear": (4,),
    "bicubic": (4,),
    "trilinear": (5,),
    "area": (3, 4, 5),
}
CUBIC, _CUBIC_SMOOTH = -0.75, -0.5  # Keys' parameter: torch's for interpolation, and with antialiasing


class Taps(NamedTuple):
    """For each output along one dimension the inputs that it is a sum of, and their weights: both (outputs, taps)."""

    sources: ndarray
    weights: ndarray


def cubic_kernel(distance: ndarray, a: float) -> ndarray:
    """Keys' kernel, 0 from distance 2 on."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _taps(n: int, m: int, scale: float | None, mode: str, align_corners: bool, antialias: bool, kind: np.dtype) -> Taps:
    """How `m` outputs follow from `n` inputs.

    `scale` is the factor that the user gave, or None; `kind` the type of the input, in which torch rounds positions
    before it takes the nearest element.
    """
    o = np.arange(m)
    if mode.startswith("nearest"):
        positions = o.astype(kind) + kind.type(0.5 if mode == "nearest-exact" else 0)
        spacing = kind.type(n) / kind.type(m) if scale is None else kind.type(1 / scale)
        sources = np.minimum(np.floor(positions * spacing).astype(np.int64), n - 1)
        return Taps(sources[:, None], np.ones((m, 1)))
    cubic = mode == "bicubic"
    step = n / m if scale is None else 1 / scale
    if align_corners:
        step = (n - 1) / (m - 1) if m > 1 else 0.0
    # torch's rule for antialiasing takes the step from the corners' centres, but not the positions.
    centers = o * step if align_corners and not antialias else step * (o + 0.5) - 0.5
    if antialias:  # the kernel is as wide as the step between outputs, and sums to 1 at the edges, too
        stretch = max(step, 1.0)
        support = (2 if cubic else 1) * stretch
        first = np.maximum(np.floor(centers - support + 1).astype(np.int64), 0)
        last = np.minimum(np.floor(centers + support + 1).astype(np.int64), n)
        sources = first[:, None] + np.arange(max(int((last - first).max(initial=1)), 1))
        distance = (sources - centers[:, None]) / stretch
        weights = cubic_kernel(distance, _CUBIC_SMOOTH) if cubic else np.maximum(1 - np.abs(distance), 0)
        weights = np.where(sources < last[:, None], weights, 0)
        return Taps(np.minimum(sources, n - 1), weights / weights.sum(axis=1, keepdims=True))
    if not cubic:
        centers = np.maximum(centers, 0)
    below = np.floor(centers).astype(np.int64)
    offsets = np.arange(-1, 3) if cubic else np.arange(2)
    sources = below[:, None] + offsets
    distance = centers[:, None] - sources
    weights = cubic_kernel(distance, CUBIC) if cubic else 1 - np.abs(distance)
    return Taps(np.clip(sources, 0, n - 1), weights)


def transposed_taps(taps: Taps, n: int) -> Taps:
    """For each of the `n` inputs the outputs that it went into; where they are fewer than elsewhere, weights 0."""
    m, width = taps.sources.shape
    order = np.argsort(taps.sources, axis=None, kind="stable")
    counts = np.bincount(taps.sources.ravel(), minlength=n)
    starts = np.cumsum(counts) - counts
    places = np.minimum(np.arange(max(counts.max(initial=1), 1)), np.maximum(counts - 1, 0)[:, None])
    entries = order[np.minimum(starts[:, None] + places, m * width - 1)]
    used = np.arange(places.shape[1]) < counts[:, None]
    return Taps(entries // width, np.where(used, taps.weights.ravel()[entries], 0))


def along(x: ndarray, axis: int, taps: Taps) -> ndarray:
    """The weighted sums along `axis`, tap by tap."""
    shape = [1] * x.ndim
    shape[axis] = len(taps.sources)
    library = array_module(x)
    parts = (
        x.take(library.asarray(sources), axis)
        if (weights == 1).all()
        else x.take(library.asarray(sources), axis) * library.asarray(weights.astype(x.dtype).reshape(shape))
        for sources, weights in zip(taps.sources.T, taps.weights.T)
    )
    y = next(parts)
    for part in parts:
        y += part
    return y


def _sizes(x: ndarray, size: Any, scale_factor: Any, recompute: bool | None) -> tuple[tuple[int, ...], list[Any]]:
    """The output's size, and for each dimension the scale that positions are computed with (None: from the sizes)."""
    nd = x.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ValueError(f"exactly one of size and scale_factor must be given, got {size!r} and {scale_factor!r}")
    if size is not None:
        if recompute:
            raise ValueError("recompute_scale_factor must not be given with size")
        return integers(size, nd, "size", 1), [None] * nd
    several = isinstance(scale_factor, Sequence | ndarray) and not isinstance(scale_factor, str)
    scales = list(scale_factor) if several else [scale_factor] * nd
    if len(scales) != nd:
        raise ValueError(f"scale_factor must be a number or {nd} of them, got {scale_factor!r}")
    for scale in scales:
        if not isinstance(scale, numbers.Real) or isinstance(scale, bool):
            raise TypeError(f"scale_factor must be a number or {nd} of them, got {scale_factor!r}")
    sizes = tuple(math.floor(n * float(scale)) if 0 < scale < math.inf else 0 for n, scale in zip(x.shape[2:], scales))
    if min(sizes) < 1:
        raise ValueError(f"scale_factor must give at least one output a dimension, got {scale_factor!r}")
    return sizes, [None] * nd if recompute else [float(scale) for scale in scales]


def _interpolate_rule(wanted, x, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias):
    check_floating(x, "input")
    if mode not in _RANKS:
        raise ValueError(f"mode must be one of {', '.join(_RANKS)}; got {mode!r}")
    if x.ndim not in _RANKS[mode]:
        allowed = " or ".join(map(str, _RANKS[mode]))
        raise ValueError(f"input must have {allowed} dimensions (N, C, ...) in mode {mode}, got shape {x.shape}")
    if align_corners is not None and not mode.endswith(("linear", "cubic")):
        raise ValueError(f"align_corners must be left out in mode {mode}, got {align_corners!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"antialias must be left out in mode {mode}")
    if 0 in x.shape[2:]:
        raise ValueError(f"input must have at least one element in each dimension of space, got shape {x.shape}")
    sizes, scales = _sizes(x, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        ops = backend.ops
        y = ops.adaptive_avg_pool_forward(x, sizes, len(sizes))
        return y, lambda dy: (ops.adaptive_avg_pool_backward(dy, x.shape, len(sizes)),)
    steps = [
        (axis, n, _taps(n, m, scale, mode, bool(align_corners), antialias, compute_dtype(x)))
        for axis, n, m, scale in zip(range(2, x.ndim), x.shape[2:], sizes, scales)
    ]
    y = x.astype(compute_dtype(x), copy=False)
    for axis, _, taps in steps:
        y = along(y, axis, taps)

    def pullback(dy):
        dx = dy.astype(compute_dtype(dy), copy=False)
        for axis, n, taps in reversed(steps):
            dx = along(dx, axis, transposed_taps(taps, n))
        return (in_layout(dx.astype(x.dtype, copy=False), x),)

    return in_layout(y.astype(x.dtype, copy=False), x), pullback


@differentiable(_interpolate_rule, wrt=("input",))
def interpolate(
    input: A,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> A:
    """Resize images, sounds or volumes, as torch.nn.functional.interpolate.

    Parameters
    ----------
    input : array, shape (N, C, L), (N, C, H, W) or (N, C, D, H, W)
        float32, float64, float16 or bfloat16.
    size : int or one int a dimension, optional
        Of the output, without N and C.
    scale_factor : float or one float a dimension, optional
        Instead of `size`: the output has ``floor(n * scale_factor)`` elements.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"}
        "linear" takes three dimensions, "bilinear" and "bicubic" four, "trilinear" five. "nearest" rounds positions
        down, "nearest-exact" to the nearest; "area" is adaptive average pooling.
    align_corners : bool, optional
        For the linear and cubic modes: whether the centres of the corner elements (True) or the corners of the images
        (False, the default) lie on one another.
    recompute_scale_factor : bool, optional
        Whether positions follow from the sizes, rather than from `scale_factor`.
    antialias : bool
        For "bilinear" and "bicubic": smooth what is made smaller.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        Both or neither of `size` and `scale_factor`, a mode that is unknown or for other dimensions, an option that
        the mode does not have, an output or input without elements.
    TypeError
        A dtype that is not supported, sizes that are no ints, scales that are no numbers.

    Notes
    -----
    "bicubic" is Keys' kernel (1981) with a = -0.75, antialiased -0.5, as in torch.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.interpolate(np.array([[[1.0, 2.0]]]), scale_factor=2)
    array([[[1., 1., 2., 2.]]])
    >>> F.interpolate(np.array([[[1.0, 2.0]]]), size=3, mode="linear", align_corners=True)
    array([[[1. , 1.5, 2. ]]])
    """
    return apply(interpolate, input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)


def _upsample_rule(mode, align_corners):
    """The rule of one of the old names, which fix the options."""

    def rule(wanted, x, size, scale_factor):
        return _interpolate_rule(wanted, x, size, scale_factor, mode, align_corners, None, False)

    return rule


def _any_upsample_rule(wanted, x, size, scale_factor, mode, align_corners):
    return _interpolate_rule(wanted, x, size, scale_factor, mode, align_corners, None, False)


@differentiable(_any_upsample_rule, wrt=("input",))
def upsample(
    input: A,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> A:
    """`interpolate` under its old name, as torch.nn.functional.upsample.

    Parameters
    ----------
    input, size, scale_factor, mode, align_corners
        As for `interpolate`.

    Returns
    -------
    array

    Raises
    ------
    ValueError, TypeError
        As `interpolate`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.upsample(np.array([[[1.0, 2.0]]]), scale_factor=2)
    array([[[1., 1., 2., 2.]]])
    """
    return apply(upsample, input, size, scale_factor, mode, align_corners)


@differentiable(_upsample_rule("nearest", None), wrt=("input",))
def upsample_nearest(
    input: A, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> A:
    """`interpolate` with the nearest element, as torch.nn.functional.upsample_nearest.

    Parameters
    ----------
    input, size, scale_factor
        As for `interpolate`.

    Returns
    -------
    array

    Raises
    ------
    ValueError, TypeError
        As `interpolate`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.upsample_nearest(np.array([[[1.0, 2.0]]]), size=3)
    array([[[1., 1., 2.]]])
    """
    return apply(upsample_nearest, input, size, scale_factor)


@differentiable(_upsample_rule("bilinear", True), wrt=("input",))
def upsample_bilinear(
    input: A, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> A:
    """Bilinear `interpolate` with aligned corners, as torch.nn.functional.upsample_bilinear.

    Parameters
    ----------
    input, size, scale_factor
        As for `interpolate`; four dimensions.

    Returns
    -------
    array

    Raises
    ------
    ValueError, TypeError
        As `interpolate`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.upsample_bilinear(np.array([[[[1.0, 2.0]]]]), size=(1, 3))
    array([[[[1. , 1.5, 2. ]]]])
    """
    return apply(upsample_bilinear, input, size, scale_factor)
