"""Convolution (cross-correlation) and transposed convolution, forward and backward, in one, two and three dimensions.

Six public operators are three sums over kernel taps: `_correlate`, its adjoint `_scatter`, and `_weight_gradient`.
Each tap is one matrix product of the channels, so that no im2col buffer is made.

Sources: torch.nn.functional.conv2d and conv_transpose2d, ONNX Conv and ConvTranspose; Dumoulin and Visin, "A guide to
convolution arithmetic for deep learning" (arXiv:1603.07285).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import checks
from .window import Window, convolution_window, transposed_window


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """(N, C, *S) as (N, groups, C / groups, *S)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _columns(x: np.ndarray) -> np.ndarray:
    """(N, groups, channels, *S) as (N, groups, channels, pixels)."""
    return x.reshape(*x.shape[:3], math.prod(x.shape[3:]))


def _by_tap(w: np.ndarray, groups: int) -> np.ndarray:
    """(rows, columns, *kernel) as (*kernel, groups, rows / groups, columns)."""
    split = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    return np.ascontiguousarray(np.moveaxis(split, (0, 1, 2), (-3, -2, -1)))


def _correlate(x: np.ndarray, w: np.ndarray, window: Window, groups: int) -> np.ndarray:
    x, w = _grouped(x, groups), _by_tap(w, groups)
    rows = w.shape[-2]
    y = np.zeros((x.shape[0], groups, rows, *window.out))
    for tap, dst, src in window.taps():
        part = y[dst]
        part += (w[tap] @ _columns(x[src])).reshape(part.shape)
    return y.reshape(x.shape[0], groups * rows, *window.out)


def _scatter(dy: np.ndarray, w: np.ndarray, window: Window, groups: int) -> np.ndarray:
    dy, w = _grouped(dy, groups), _by_tap(w, groups)
    columns = w.shape[-1]
    dx = np.zeros((dy.shape[0], groups, columns, *window.size))
    for tap, dst, src in window.taps():
        part = dx[src]
        part += (np.swapaxes(w[tap], -1, -2) @ _columns(dy[dst])).reshape(part.shape)
    return dx.reshape(dy.shape[0], groups * columns, *window.size)


def _weight_gradient(dy: np.ndarray, x: np.ndarray, window: Window, groups: int) -> np.ndarray:
    # Batch and pixels are both summed over: (groups, channels, N * pixels).
    def flatten(a: np.ndarray) -> np.ndarray:
        return np.moveaxis(a, 0, 2).reshape(*a.shape[1:3], a.shape[0] * math.prod(a.shape[3:]))

    dy, x = _grouped(dy, groups), _grouped(x, groups)
    dw = np.zeros((groups, dy.shape[2], x.shape[2], *window.kernel))
    for tap, dst, src in window.taps():
        dw[(..., *tap)] = flatten(dy[dst]) @ np.swapaxes(flatten(x[src]), -1, -2)
    return dw.reshape(groups * dy.shape[2], x.shape[2], *window.kernel)


def _channels(x_shape: tuple[int, ...], w_shape: tuple[int, ...], groups: object, nd: int, transposed: bool) -> int:
    """Check weight and groups against the (batched) input; return groups."""
    if len(w_shape) != nd + 2:
        raise ValueError(f"weight has shape {checks.describe(w_shape)}: must have {nd + 2} dimensions")
    checks.no_empty_dimension("weight", w_shape, 0)
    count = checks.integer("groups", groups, 1)
    if w_shape[0] % count:
        raise ValueError(f"groups is {count}: must divide the first dimension of weight, {w_shape[0]}")
    expected = w_shape[0] if transposed else w_shape[1] * count
    if x_shape[1] != expected:
        rule = "weight.shape[0]" if transposed else "weight.shape[1] * groups"
        raise ValueError(f"input has {x_shape[1]} channels: must be {rule} = {expected}")
    return count


def _bias(b: np.ndarray | None, channels: int) -> None:
    if b is not None:
        checks.same_shape("bias", b, (channels,), "one value for each output channel")


def _convolution(
    x_shape: object, w_shape: object, stride: object, padding: object, dilation: object, groups: object, nd: int
) -> tuple[bool, Window, int, tuple[int, ...]]:
    """Validate one convolution: (batched, window, groups, (batched) output shape)."""
    shape = checks.shape_argument("input", x_shape, (nd + 1, nd + 2))
    weight = checks.shape_argument("weight", w_shape, (nd + 2,))
    batched, full = checks.images("input", shape, nd, 1)
    count = _channels(full, weight, groups, nd, transposed=False)
    window = convolution_window(full[2:], weight[2:], stride, padding, dilation)
    return batched, window, count, checks.size_limit("output", (full[0], weight[0], *window.out))


def _transposed_convolution(
    x_shape: object,
    w_shape: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    nd: int,
) -> tuple[bool, Window, int, tuple[int, ...]]:
    """Validate one transposed convolution: (batched, window, groups, (batched) output shape)."""
    shape = checks.shape_argument("input", x_shape, (nd + 1, nd + 2))
    weight = checks.shape_argument("weight", w_shape, (nd + 2,))
    batched, full = checks.images("input", shape, nd, 1)
    count = _channels(full, weight, groups, nd, transposed=True)
    window = transposed_window(full[2:], weight[2:], stride, padding, output_padding, dilation)
    return batched, window, count, checks.size_limit("output", (full[0], weight[1] * count, *window.size))


def _gradient(dy: np.ndarray, output: tuple[int, ...], batched: bool) -> np.ndarray:
    """The output's gradient, batched, in float64."""
    checks.same_shape("grad_output", dy, output if batched else output[1:], "the shape of the output")
    return checks.wide(dy).reshape(output)


@np.errstate(all="ignore")
def conv_forward(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    nd: int,
    add: np.ndarray | None = None,
    low: float = -np.inf,
    high: float = np.inf,
) -> np.ndarray:
    """y[n, k, o] = b[k] + sum over c, t of w[k, c, t] * x[n, c, o * stride + t * dilation - padding].

    x (N, C, *S) or (C, *S), w (K, C / groups, *kernel), b (K,) or None; returns (N, K, *out) or (K, *out). With `add`,
    an array of the result's shape, and limits: min(max(y + add, low), high), rounded once.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> conv_forward(x, np.ones((1, 1, 2, 2)), None, 1, 0, 1, 1, 2)[0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    w = checks.array("weight", w, (x.dtype,))
    b = checks.optional_array("bias", b, (x.dtype,))
    batched, window, groups, output = _convolution(x.shape, w.shape, stride, padding, dilation, groups, nd)
    _bias(b, output[1])
    y = _correlate(checks.wide(x if batched else x[None]), checks.wide(w), window, groups)
    if b is not None:
        y += checks.wide(b).reshape(-1, *(1,) * nd)
    low, high = checks.real("low", low) + 0.0, checks.real("high", high)  # -0 is 0
    if low > high:
        raise ValueError(f"low must not be above high, got low={low} and high={high}")
    if add is not None:
        add = checks.array("add", add, (x.dtype,))
        checks.same_shape("add", add, output if batched else output[1:], "the shape of the output")
        y += checks.wide(add).reshape(y.shape)
    y = np.where(y <= low, low, np.where(y > high, high, y))
    return checks.finish(y, x, nd, batched)


def conv_chain_forward(
    x: np.ndarray, stages: Sequence[tuple[Any, ...]], nd: int, add: np.ndarray | None = None
) -> np.ndarray:
    """`conv_forward` of each stage ``(w, b, stride, padding, dilation, groups, low, high)`` on the last one's result.

    1 to 8 stages; `add` is added by the last. What lies between two of them is rounded to the arrays' type.

    >>> twice = (np.full((1, 1, 1, 1), 2.0), None, 1, 0, 1, 1, -np.inf, np.inf)
    >>> conv_chain_forward(np.ones((1, 1, 1, 2)), [twice, twice], 2, np.ones((1, 1, 1, 2)))
    array([[[[5., 5.]]]])
    """
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    if not isinstance(stages, (list, tuple)):
        raise TypeError(f"stages must be a list, got {type(stages).__name__}")
    if not 1 <= len(stages) <= 8:
        raise ValueError(f"stages must have 1 to 8 entries, got {len(stages)}")
    for i, stage in enumerate(stages):
        if not isinstance(stage, tuple) or len(stage) != 8:
            raise TypeError(
                f"stages must hold tuples (w, b, stride, padding, dilation, groups, low, high), got {stage!r}"
            )
        w, b, stride, padding, dilation, groups, low, high = stage
        last = i + 1 == len(stages)
        x = conv_forward(x, w, b, stride, padding, dilation, groups, nd, add if last else None, low, high)
    return x


@np.errstate(all="ignore")
def conv_backward_input(
    dy: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, ...],
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    nd: int,
) -> np.ndarray:
    """Gradient of the input of `conv_forward`, of shape `x_shape` (with the batch dimension if dy has one)."""
    nd = checks.dimensions(nd)
    dy = checks.array("grad_output", dy)
    w = checks.array("weight", w, (dy.dtype,))
    batched, window, groups, output = _convolution(x_shape, w.shape, stride, padding, dilation, groups, nd)
    dx = _scatter(_gradient(dy, output, batched), checks.wide(w), window, groups)
    return checks.finish(dx, dy, nd, batched)


@np.errstate(all="ignore")
def conv_backward_weight(
    dy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, ...],
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    nd: int,
) -> np.ndarray:
    """Gradient of the weight of `conv_forward`, of shape `w_shape`."""
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    dy = checks.array("grad_output", dy, (x.dtype,))
    batched, window, groups, output = _convolution(x.shape, w_shape, stride, padding, dilation, groups, nd)
    dy64 = _gradient(dy, output, batched)
    return checks.rounded(_weight_gradient(dy64, checks.wide(x if batched else x[None]), window, groups), x.dtype)


@np.errstate(all="ignore")
def conv_backward_bias(dy: np.ndarray, nd: int) -> np.ndarray:
    """Gradient of the bias of (transposed) convolution: dy (N, K, *S) or (K, *S) summed to (K,)."""
    nd = checks.dimensions(nd)
    dy = checks.array("grad_output", dy)
    checks.rank("grad_output", dy, (nd + 1, nd + 2))
    channel = dy.ndim - nd - 1
    return checks.rounded(checks.wide(dy).sum(axis=tuple(a for a in range(dy.ndim) if a != channel)), dy.dtype)


@np.errstate(all="ignore")
def conv_transpose_forward(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    nd: int,
) -> np.ndarray:
    """The adjoint of `conv_forward` in its input, plus a bias.

    x (N, C, *S) or (C, *S), w (C, K / groups, *kernel), b (K,) or None; returns (N, K, *out) or (K, *out) with
    out = (S - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1.

    >>> conv_transpose_forward(np.ones((1, 1, 2)), np.ones((1, 1, 2)), None, 1, 0, 0, 1, 1, 1)
    array([[[1., 2., 1.]]])
    """
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    w = checks.array("weight", w, (x.dtype,))
    b = checks.optional_array("bias", b, (x.dtype,))
    batched, window, groups, output = _transposed_convolution(
        x.shape, w.shape, stride, padding, output_padding, groups, dilation, nd
    )
    _bias(b, output[1])
    y = _scatter(checks.wide(x if batched else x[None]), checks.wide(w), window, groups)
    if b is not None:
        y += checks.wide(b).reshape(-1, *(1,) * nd)
    return checks.finish(y, x, nd, batched)


@np.errstate(all="ignore")
def conv_transpose_backward_input(
    dy: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, ...],
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    nd: int,
) -> np.ndarray:
    """Gradient of the input of `conv_transpose_forward`, of shape `x_shape`: a convolution of dy."""
    nd = checks.dimensions(nd)
    dy = checks.array("grad_output", dy)
    w = checks.array("weight", w, (dy.dtype,))
    batched, window, groups, output = _transposed_convolution(
        x_shape, w.shape, stride, padding, output_padding, groups, dilation, nd
    )
    dx = _correlate(_gradient(dy, output, batched), checks.wide(w), window, groups)
    return checks.finish(dx, dy, nd, batched)


@np.errstate(all="ignore")
def conv_transpose_backward_weight(
    dy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, ...],
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    nd: int,
) -> np.ndarray:
    """Gradient of the weight of `conv_transpose_forward`, of shape `w_shape`."""
    nd = checks.dimensions(nd)
    x = checks.array("input", x)
    dy = checks.array("grad_output", dy, (x.dtype,))
    batched, window, groups, output = _transposed_convolution(
        x.shape, w_shape, stride, padding, output_padding, groups, dilation, nd
    )
    dy64 = _gradient(dy, output, batched)
    return checks.rounded(_weight_gradient(checks.wide(x if batched else x[None]), dy64, window, groups), x.dtype)
