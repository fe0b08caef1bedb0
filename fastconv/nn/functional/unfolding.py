"""unfold (im2col) and fold (col2im)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from ...devices import array_module
from ...differentiable import A, apply, differentiable
from .parameters import Sizes, check_floating, compute_dtype, integers


class _Windows(NamedTuple):
    """The windows of a plane: `counts` of them, each `kernel` large."""

    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    stride: tuple[int, ...]
    size: tuple[int, ...]
    counts: tuple[int, ...]


def _windows(size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> _Windows:
    kernel, steps = integers(kernel_size, 2, "kernel_size", 1), integers(dilation, 2, "dilation", 1)
    pads, strides = integers(padding, 2, "padding", 0), integers(stride, 2, "stride", 1)
    counts = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in zip(size, kernel, steps, pads, strides))
    if min(counts) < 1:
        raise ValueError(f"kernel_size {kernel} with dilation {steps} must fit into {tuple(size)} with padding {pads}")
    return _Windows(kernel, steps, pads, strides, tuple(size), counts)


def _taps(w: _Windows) -> list[tuple[int, int, tuple[Any, ...]]]:
    """For each position (r, s) in the window, the elements of the padded plane that lie there."""
    return [
        (r, s, (..., *(slice(o * d, o * d + n * t, t) for o, d, n, t in zip((r, s), w.dilation, w.counts, w.stride))))
        for r in range(w.kernel[0])
        for s in range(w.kernel[1])
    ]


def _columns(x: ndarray, w: _Windows) -> ndarray:
    """(..., C, H, W) to (..., C * R * S, P * Q)."""
    none = ((0, 0),) * (x.ndim - 2)
    padded = np.pad(x, (*none, *((p, p) for p in w.padding))) if any(w.padding) else x
    y = array_module(x).empty((*x.shape[:-2], *w.kernel, *w.counts), x.dtype)
    for r, s, tap in _taps(w):
        y[..., r, s, :, :] = padded[tap]
    return y.reshape(*x.shape[:-3], x.shape[-3] * w.kernel[0] * w.kernel[1], w.counts[0] * w.counts[1])


def _planes(columns: ndarray, w: _Windows, channels: int) -> ndarray:
    """The transpose of `_columns`: every element of a window is added to where it came from."""
    lead = (*columns.shape[:-2], channels)
    parts = columns.reshape(*lead, *w.kernel, *w.counts)
    padded = array_module(columns).zeros(
        (*lead, *(n + 2 * p for n, p in zip(w.size, w.padding))), compute_dtype(columns)
    )
    for r, s, tap in _taps(w):
        padded[tap] += parts[..., r, s, :, :]
    inner: tuple[Any, ...] = (..., *(slice(p, p + n) for n, p in zip(w.size, w.padding)))
    return array_module(columns).ascontiguousarray(padded[inner]).astype(columns.dtype, copy=False)


def _unfold_rule(wanted, x, kernel_size, dilation, padding, stride):
    check_floating(x, "input")
    if x.ndim not in (3, 4):
        raise ValueError(f"input must have shape (N, C, H, W) or (C, H, W), got {x.shape}")
    w = _windows(x.shape[-2:], kernel_size, dilation, padding, stride)
    return _columns(x, w), lambda dy: (_planes(dy, w, x.shape[-3]),)


def _fold_rule(wanted, x, output_size, kernel_size, dilation, padding, stride):
    check_floating(x, "input")
    if x.ndim not in (2, 3):
        raise ValueError(f"input must have shape (N, C * R * S, L) or (C * R * S, L), got {x.shape}")
    w = _windows(integers(output_size, 2, "output_size", 1), kernel_size, dilation, padding, stride)
    taps, windows = w.kernel[0] * w.kernel[1], w.counts[0] * w.counts[1]
    if x.shape[-2] % taps or x.shape[-1] != windows:
        raise ValueError(
            f"input must have a multiple of {taps} rows and {windows} columns for this output_size, got shape {x.shape}"
        )
    return _planes(x, w, x.shape[-2] // taps), lambda dy: (_columns(dy, w),)


@differentiable(_unfold_rule, wrt=("input",))
def unfold(input: A, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> A:
    """The windows of an image as columns (im2col), as torch.nn.functional.unfold.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        float32, float64, float16 or bfloat16.
    kernel_size, dilation, padding, stride : int or two ints
        As for `conv2d`.

    Returns
    -------
    array, shape (N, C * R * S, P * Q) or (C * R * S, P * Q)

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.unfold(np.arange(6.0).reshape(1, 2, 3), 2)
    array([[0., 1.],
           [1., 2.],
           [3., 4.],
           [4., 5.]])
    """
    return apply(unfold, input, kernel_size, dilation, padding, stride)


@differentiable(_fold_rule, wrt=("input",))
def fold(
    input: A,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> A:
    """Sum of windows put back into an image (col2im), as torch.nn.functional.fold; the transpose of `unfold`.

    Parameters
    ----------
    input : array, shape (N, C * R * S, P * Q) or (C * R * S, P * Q)
        float32, float64, float16 or bfloat16.
    output_size : int or two ints
        H and W.
    kernel_size, dilation, padding, stride : int or two ints
        As for `unfold`.

    Returns
    -------
    array, shape (N, C, H, W) or (C, H, W)

    Raises
    ------
    ValueError
        Shapes that do not fit together, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.fold(np.ones((4, 2)), (2, 3), 2)
    array([[[1., 2., 1.],
            [1., 2., 1.]]])
    """
    return apply(fold, input, output_size, kernel_size, dilation, padding, stride)
