"""Pooling forward and backward: maximum, average, power average, their adaptive forms, and unpooling.

Averages are separable, so they are sums of slices along one axis after the other. Maxima keep the flat index of the
winner in the unpadded plane, from which the backward pass scatters.

Sources: torch.nn.functional.max_pool2d, avg_pool2d, lp_pool2d, adaptive_avg_pool2d, adaptive_max_pool2d, max_unpool2d;
ONNX MaxPool, AveragePool, LpPool, MaxUnpool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import checks
from .window import Index, Window, pooling_window

Range = tuple[int, int]


def _pooled(
    x_shape: Sequence[int],
    kernel: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: object,
    nd: int,
) -> tuple[bool, tuple[int, ...], Window, tuple[int, ...]]:
    """Validate one pooling: (batched, (batched) input shape, window, (batched) output shape)."""
    shape = checks.shape_argument("input", tuple(x_shape), (nd + 1, nd + 2))
    batched, full = checks.images("input", shape, nd, 1)
    window = pooling_window(full[2:], kernel, stride, padding, dilation, ceil_mode)
    return batched, full, window, checks.size_limit("output", (*full[:2], *window.out))


def _gradient(dy: np.ndarray, output: tuple[int, ...], batched: bool) -> np.ndarray:
    """The output's gradient, batched, in float64."""
    checks.same_shape("grad_output", dy, output if batched else output[1:], "the shape of the output")
    return checks.wide(dy).reshape(output)


def _index_array(indices: object, plane: int, lowest: int) -> np.ndarray:
    """int64 flat positions in a plane of `plane` values, all of them in range."""
    index = checks.array("indices", indices, (np.dtype(np.int64),))
    if index.size and (index.min() < lowest or index.max() >= plane):
        worst = int(index.min()) if index.min() < lowest else int(index.max())
        raise ValueError(f"indices contains {worst}: must be in the plane of {plane} values, 0 to {plane - 1}")
    return index


def _scatter_to_planes(dy: np.ndarray, index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Add dy (N, C, *out) at its flat index in each plane of an (N, C, *S) array of zeros; -1 goes nowhere."""
    planes, plane = shape[0] * shape[1], math.prod(shape[2:])
    base = np.arange(planes).reshape(*shape[:2], *(1,) * (dy.ndim - 2)) * plane
    taken = index >= 0
    total = np.bincount((index + base)[taken], weights=dy[taken], minlength=planes * plane)
    return total.reshape(shape)


def _with_indices(
    y: np.ndarray, index: np.ndarray, x: np.ndarray, nd: int, batched: bool, indices: str
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    value = checks.finish(y, x, nd, batched)
    if indices == "none":
        return value
    saved = np.empty_like(value, dtype=np.int64)
    saved[...] = index if batched else index[0]
    return value, saved


@np.errstate(all="ignore")
def max_pool_forward(
    x: np.ndarray,
    kernel: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: bool,
    nd: int,
    indices: str,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Largest value of each window; the first of equal ones, NaN before any number, padding is -inf.

    x (N, C, *S) or (C, *S). `indices` "none" returns y; "flat" and "window" return (y, int64 index into the plane S),
    where -1 marks a window that a dilated kernel leaves in the padding entirely.

    >>> max_pool_forward(np.array([[1.0, 3.0, 2.0, 0.0]]), 2, None, 0, 1, False, 1, "flat")
    (array([[3., 2.]]), array([[1, 2]]))
    """
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    wanted = checks.choice("indices", indices, ("none", "flat", "window"))
    batched, full, window, output = _pooled(x.shape, kernel, stride, padding, dilation, ceil_mode, nd)
    y = np.full(output, -np.inf)
    index = np.full(output, -1)
    if 0 in output:
        return _with_indices(y, index, x, nd, batched, wanted)
    values = checks.wide(x).reshape(full)
    position = np.arange(math.prod(window.size)).reshape(window.size)
    for _, dst, src in window.taps():
        best, best_index, candidate = y[dst], index[dst], values[src]
        better = (best_index < 0) | (candidate > best) | (np.isnan(candidate) & ~np.isnan(best))
        np.copyto(best, candidate, where=better)
        np.copyto(best_index, position[src], where=better)
    return _with_indices(y, index, x, nd, batched, wanted)


@np.errstate(all="ignore")
def max_pool_backward(
    dy: np.ndarray,
    saved: np.ndarray,
    x_shape: tuple[int, ...],
    kernel: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: bool,
    nd: int,
) -> np.ndarray:
    """dy scattered to the winners `saved` by the forward pass; overlapping windows add up."""
    nd = checks.dimensions(nd)
    dy = checks.array("grad_output", dy)
    shape = checks.shape_argument("input", x_shape, (nd + 1, nd + 2))
    batched, full, window, output = _pooled(shape, kernel, stride, padding, dilation, ceil_mode, nd)
    dy64 = _gradient(dy, output, batched)
    index = _index_array(saved, math.prod(window.size), -1)
    checks.same_shape("indices", index, dy.shape, "the shape of the output")
    return checks.finish(_scatter_to_planes(dy64, index.reshape(output), full), dy, nd, batched)


def max_unpool_forward(x: np.ndarray, indices: np.ndarray, output_size: object, nd: int) -> np.ndarray:
    """Zeros of spatial size `output_size` with x at its flat indices; of duplicates the last one stays.

    >>> max_unpool_forward(np.array([[3.0, 2.0]]), np.array([[1, 2]]), (4,), 1)
    array([[0., 3., 2., 0.]])
    """
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    batched, full = checks.images("input", x.shape, nd, 1)
    size = checks.integers("output_size", output_size, nd, 1)
    planes, plane = full[0] * full[1], math.prod(size)
    checks.size_limit("output", (*full[:2], *size))
    index = _index_array(indices, plane, 0)
    checks.same_shape("indices", index, x.shape, "the shape of input")
    y = np.zeros((planes, plane))
    flat = (planes, math.prod(full[2:]))
    y[np.arange(planes)[:, None], index.reshape(flat)] = checks.wide(x).reshape(flat)
    return checks.finish(y.reshape(*full[:2], *size), x, nd, batched)


def max_unpool_backward(dy: np.ndarray, indices: np.ndarray, nd: int) -> np.ndarray:
    """The values of dy at the flat indices: the gradient of `max_unpool_forward`."""
    nd = checks.dimensions(nd)
    dy = checks.array("grad_output", dy)
    batched, full = checks.images("grad_output", dy.shape, nd, 1)
    planes, plane = full[0] * full[1], math.prod(full[2:])
    index = _index_array(indices, plane, 0)
    checks.rank("indices", index, (dy.ndim,))
    checks.same_shape("indices", index, dy.shape[:-nd] + index.shape[-nd:], "with grad_output's batch and channels")
    shape = (*full[:2], *index.shape[-nd:])
    flat = index.reshape(planes, math.prod(index.shape[-nd:]))
    dx = np.take_along_axis(checks.wide(dy).reshape(planes, plane), flat, axis=1)
    return checks.finish(dx.reshape(shape), dy, nd, batched)


def _sum_ranges(x: np.ndarray, axis: int, ranges: Sequence[Range]) -> np.ndarray:
    """Sum x over each range of positions along one axis."""
    shape = (*x.shape[:axis], len(ranges), *x.shape[axis + 1 :])
    y = np.zeros(shape)
    before: Index = (slice(None),) * axis
    for position, (start, end) in enumerate(ranges):
        y[(*before, position)] = x[(*before, slice(start, end))].sum(axis=axis)
    return y


def _spread_ranges(dy: np.ndarray, axis: int, ranges: Sequence[Range], size: int) -> np.ndarray:
    """The adjoint of `_sum_ranges`: add each value of dy to its whole range."""
    dx = np.zeros((*dy.shape[:axis], size, *dy.shape[axis + 1 :]))
    before: Index = (slice(None),) * axis
    for position, (start, end) in enumerate(ranges):
        dx[(*before, slice(start, end))] += dy[(*before, slice(position, position + 1))]
    return dx


def _sum_windows(x: np.ndarray, ranges: Sequence[Sequence[Range]]) -> np.ndarray:
    for axis, ranges_of_axis in enumerate(ranges, 2):
        x = _sum_ranges(x, axis, ranges_of_axis)
    return x


def _spread_windows(dy: np.ndarray, ranges: Sequence[Sequence[Range]], size: Sequence[int]) -> np.ndarray:
    for axis, (ranges_of_axis, length) in enumerate(zip(ranges, size), 2):
        dy = _spread_ranges(dy, axis, ranges_of_axis, length)
    return dy


def _outer(lengths: Sequence[Sequence[int]]) -> np.ndarray:
    """Product over the dimensions of one length a position."""
    product = np.ones(())
    for axis_lengths in lengths:
        product = product[..., None] * np.array(axis_lengths, np.float64)
    return product


def _window_ranges(window: Window) -> list[list[Range]]:
    """The part of each window that lies in the input."""
    return [
        [(max(o * s - p, 0), min(o * s - p + k, n)) for o in range(out)]
        for n, k, s, p, out in zip(window.size, window.kernel, window.stride, window.before, window.out)
    ]


def _override(divisor_override: object) -> int | None:
    if divisor_override is None:
        return None
    divisor = checks.integer("divisor_override", divisor_override, -checks.INT64_MAX)
    if divisor == 0:
        raise ValueError("divisor_override is 0: must not be zero")
    return divisor


def _divisor(window: Window, include_pad: bool, override: int | None) -> np.ndarray:
    """What each window's sum is divided by: the override, or its size with or without padding, clipped as in torch."""
    if override is not None:
        return np.full(window.out, float(override))
    if not include_pad:
        return _outer([[end - start for start, end in ranges] for ranges in _window_ranges(window)])
    padded_size = [sum(sizes) for sizes in zip(window.before, window.size, window.after)]
    return _outer(
        [
            [min(k, padded - o * s) for o in range(out)]
            for padded, k, s, out in zip(padded_size, window.kernel, window.stride, window.out)
        ]
    )


@np.errstate(all="ignore")
def avg_pool_forward(
    x: np.ndarray,
    kernel: object,
    stride: object,
    padding: object,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    nd: int,
) -> np.ndarray:
    """Sum of each window over its divisor. x (N, C, *S) or (C, *S).

    >>> avg_pool_forward(np.array([[1.0, 3.0, 2.0, 0.0]]), 2, None, 0, False, True, None, 1)
    array([[2., 1.]])
    """
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    batched, full, window, output = _pooled(x.shape, kernel, stride, padding, 1, ceil_mode, nd)
    include_pad, override = checks.flag("count_include_pad", count_include_pad), _override(divisor_override)
    if 0 in output:
        return checks.finish(np.zeros(output), x, nd, batched)
    divisor = _divisor(window, include_pad, override)
    y = _sum_windows(checks.wide(x).reshape(full), _window_ranges(window))
    return checks.finish(y / divisor, x, nd, batched)


@np.errstate(all="ignore")
def avg_pool_backward(
    dy: np.ndarray,
    x_shape: tuple[int, ...],
    kernel: object,
    stride: object,
    padding: object,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    nd: int,
) -> np.ndarray:
    """Gradient of the input of `avg_pool_forward`."""
    nd = checks.dimensions(nd)
    dy = checks.array("grad_output", dy)
    shape = checks.shape_argument("input", x_shape, (nd + 1, nd + 2))
    batched, full, window, output = _pooled(shape, kernel, stride, padding, 1, ceil_mode, nd)
    include_pad, override = checks.flag("count_include_pad", count_include_pad), _override(divisor_override)
    dy64 = _gradient(dy, output, batched)
    if 0 in output:
        return checks.finish(np.zeros(full), dy, nd, batched)
    divisor = _divisor(window, include_pad, override)
    dx = _spread_windows(dy64 / divisor, _window_ranges(window), window.size)
    return checks.finish(dx, dy, nd, batched)


def _power(norm_type: object) -> float:
    p = checks.finite("norm_type", norm_type)
    if p == 0:
        raise ValueError("norm_type is 0: must not be zero")
    return p


def _clipped_share(window: Window) -> np.ndarray:
    """Full over clipped window size: torch averages the clipped window and multiplies by the full size."""
    return math.prod(window.kernel) / _outer([[end - start for start, end in axis] for axis in _window_ranges(window)])


@np.errstate(all="ignore")
def lp_pool_forward(
    x: np.ndarray, norm_type: float, kernel: object, stride: object, ceil_mode: bool, nd: int
) -> np.ndarray:
    """(sum of x ** p over each window) ** (1 / p); a clipped window's sum is scaled to the full size, as in torch.

    x (N, C, *S) or (C, *S). A negative sum gives NaN where 1 / p is not an integer.

    >>> lp_pool_forward(np.array([[3.0, 4.0]]), 2, 2, None, False, 1)
    array([[5.]])
    """
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    p = _power(norm_type)
    batched, full, window, output = _pooled(x.shape, kernel, stride, 0, 1, ceil_mode, nd)
    if 0 in output:
        return checks.finish(np.zeros(output), x, nd, batched)
    sums = _sum_windows(checks.wide(x).reshape(full) ** p, _window_ranges(window))
    return checks.finish((sums * _clipped_share(window)) ** (1 / p), x, nd, batched)


@np.errstate(all="ignore")
def lp_pool_backward(
    dy: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    norm_type: float,
    kernel: object,
    stride: object,
    ceil_mode: bool,
    nd: int,
) -> np.ndarray:
    """Gradient of the input of `lp_pool_forward` with its output y; zero where y is zero, as in torch."""
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    dy = checks.array("grad_output", dy, (x.dtype,))
    y = checks.array("output", y, (x.dtype,))
    p = _power(norm_type)
    batched, full, window, output = _pooled(x.shape, kernel, stride, 0, 1, ceil_mode, nd)
    dy64 = _gradient(dy, output, batched)
    checks.same_shape("output", y, dy.shape, "the shape of the output")
    if 0 in output:
        return checks.finish(np.zeros(full), x, nd, batched)
    y64 = checks.wide(y).reshape(output)
    slope = np.where(y64 == 0, 0.0, dy64 * y64 ** (1 - p)) * _clipped_share(window)
    spread = _spread_windows(slope, _window_ranges(window), window.size)
    dx = np.where(spread == 0, 0.0, spread * checks.wide(x).reshape(full) ** (p - 1))
    return checks.finish(dx, x, nd, batched)


def _adaptive(
    x_shape: Sequence[int], output_size: object, nd: int, first: int
) -> tuple[bool, tuple[int, ...], tuple[int, ...]]:
    """Validate adaptive pooling: (batched, (batched) input shape, (batched) output shape)."""
    shape = checks.shape_argument("input", tuple(x_shape), (nd + 1, nd + 2))
    batched, full = checks.images("input", shape, nd, first)
    if output_size is None or isinstance(output_size, list | tuple):
        entries = [None] * nd if output_size is None else checks.sequence("output_size", output_size, nd)
        size = tuple(
            n if entry is None else checks.integer("output_size", entry, 0) for n, entry in zip(full[2:], entries)
        )
    else:
        size = checks.integers("output_size", output_size, nd, 0)
    return batched, full, checks.size_limit("output", (*full[:2], *size))


def _adaptive_ranges(size: Sequence[int], out: Sequence[int]) -> list[list[Range]]:
    """Window i covers floor(i * n / m) to ceil((i + 1) * n / m), in integers."""
    return [[(i * n // m, -(-(i + 1) * n // m)) for i in range(m)] for n, m in zip(size, out)]


@np.errstate(all="ignore")
def adaptive_avg_pool_forward(x: np.ndarray, output_size: object, nd: int) -> np.ndarray:
    """Averages over the windows that divide x (N, C, *S) or (C, *S) into `output_size`; None keeps a size.

    >>> adaptive_avg_pool_forward(np.array([[1.0, 2.0, 3.0]]), 2, 1)
    array([[1.5, 2.5]])
    """
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    batched, full, output = _adaptive(x.shape, output_size, nd, 2)
    y = np.zeros(output)
    if y.size:
        ranges = _adaptive_ranges(full[2:], output[2:])
        sums = _sum_windows(checks.wide(x).reshape(full), ranges)
        y = sums / _outer([[end - start for start, end in axis] for axis in ranges])
    return checks.finish(y, x, nd, batched)


@np.errstate(all="ignore")
def adaptive_avg_pool_backward(dy: np.ndarray, x_shape: tuple[int, ...], nd: int) -> np.ndarray:
    """Gradient of the input of `adaptive_avg_pool_forward`."""
    nd = checks.dimensions(nd)
    dy = checks.array("grad_output", dy)
    checks.rank("grad_output", dy, (nd + 1, nd + 2))
    shape = checks.shape_argument("input", x_shape, (dy.ndim,))
    batched, full, output = _adaptive(shape, dy.shape[-nd:], nd, 2)
    dy64 = _gradient(dy, output, batched)
    dx = np.zeros(full)
    if dy64.size:
        ranges = _adaptive_ranges(full[2:], output[2:])
        lengths = _outer([[end - start for start, end in axis] for axis in ranges])
        dx = _spread_windows(dy64 / lengths, ranges, full[2:])
    return checks.finish(dx, dy, nd, batched)


@np.errstate(all="ignore")
def adaptive_max_pool_forward(
    x: np.ndarray, output_size: object, nd: int, indices: str
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Maxima over the windows of `adaptive_avg_pool_forward`; `indices` as for `max_pool_forward`.

    >>> adaptive_max_pool_forward(np.array([[1.0, 3.0, 2.0]]), 1, 1, "flat")
    (array([[3.]]), array([[1]]))
    """
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    wanted = checks.choice("indices", indices, ("none", "flat", "window"))
    batched, full, output = _adaptive(x.shape, output_size, nd, 1)
    values = checks.wide(x).reshape(full)
    y = np.zeros(output)
    index = np.zeros(output, np.int64)
    if y.size:
        position = np.arange(math.prod(full[2:])).reshape(full[2:])
        ranges = _adaptive_ranges(full[2:], output[2:])
        for cell in np.ndindex(*output[2:]):
            window: Index = (..., *(slice(*axis[i]) for axis, i in zip(ranges, cell)))
            # argmax takes the first maximum, and the first NaN before any number.
            members = values[window].reshape(*full[:2], -1)
            winner = members.argmax(axis=-1)
            y[(..., *cell)] = np.take_along_axis(members, winner[..., None], axis=-1)[..., 0]
            index[(..., *cell)] = position[window].reshape(-1)[winner]
    return _with_indices(y, index, x, nd, batched, wanted)


@np.errstate(all="ignore")
def adaptive_max_pool_backward(dy: np.ndarray, saved: np.ndarray, x_shape: tuple[int, ...], nd: int) -> np.ndarray:
    """dy scattered to the winners `saved` by the forward pass."""
    nd = checks.dimensions(nd)
    dy = checks.array("grad_output", dy)
    checks.rank("grad_output", dy, (nd + 1, nd + 2))
    shape = checks.shape_argument("input", x_shape, (dy.ndim,))
    batched, full, output = _adaptive(shape, dy.shape[-nd:], nd, 1)
    dy64 = _gradient(dy, output, batched)
    index = _index_array(saved, math.prod(full[2:]), 0)
    checks.same_shape("indices", index, dy.shape, "the shape of the output")
    return checks.finish(_scatter_to_planes(dy64, index.reshape(output), full), dy, nd, batched)
