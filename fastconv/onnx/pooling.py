"""Maxima, means and power means of windows, their global forms, and MaxUnpool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.devices import array_module
from fastconv.nn.modules.adaptive import _ADAPTIVE_AVG_POOL, _ADAPTIVE_MAX_POOL
from fastconv.nn.modules.calling import plain
from fastconv.nn.modules.conv import _CONV
from fastconv.nn.modules.pooling import _MAX_POOL
from fastconv.tensor import Tensor

from .node import Inputs, Node, layer, operator
from .windows import Pairs, by_dimension, extents, numbers_or_pairs, pads_of, same_pads

_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

Window = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Pairs, bool]
"""Kernel, stride, dilation, padding and whether the output's size is rounded up."""


def _window(node: Node, x: Any) -> Window:
    kernel = tuple(node.get("kernel_shape"))
    nd = len(kernel)
    if nd not in _MAX_POOL or x.ndim != nd + 2:
        raise ValueError(f"{node}: needs an input of {nd + 2} dimensions, 3 to 5, got shape {tuple(x.shape)}")
    stride, dilation = by_dimension(node, "strides", nd), by_dimension(node, "dilations", nd)
    pads = pads_of(node, nd)
    if not isinstance(pads, tuple):
        pads = same_pads(x.shape[2:], kernel, stride, dilation, lower=pads is None)
    return kernel, stride, dilation, pads, bool(node.get("ceil_mode", 0))


def _of_layer(pads: Pairs | str, kernel: Sequence[int]) -> Any:
    """Padding as the pooling layers take it: numbers where they may be."""
    if isinstance(pads, tuple) and any(before > k // 2 for (before, _), k in zip(pads, kernel)):
        return pads
    return numbers_or_pairs(pads)


@operator("MaxPool")
def _max_pool(node: Node, x: Any) -> Any:
    kernel, stride, dilation, pads, ceil_mode = _window(node, x)
    pool = _MAX_POOL[len(kernel)]
    if node.outputs == 1:
        return pool(x, kernel, stride, pads, dilation, ceil_mode)
    y, index = pool(x, kernel, stride, pads, dilation, ceil_mode, return_indices=True)
    return y, _whole_index(plain(index), x.shape, bool(node.get("storage_order", 0)))


def _whole_index(index: Any, shape: Sequence[int], column_major: bool) -> Any:
    """Positions in the whole array of `shape`, from those in a plane."""
    space = shape[2:]
    if column_major:
        places = []
        for size in reversed(space):
            places.append(index % size)
            index = index // size
        index = sum(place * math.prod(space[:i]) for i, place in enumerate(reversed(places)))
    planes = array_module(index).arange(shape[0] * shape[1]).reshape(*shape[:2], *(1,) * len(space))
    return index + planes * math.prod(space)


@layer("MaxPool")
def _max_pool_layer(node: Node, inputs: Inputs) -> Any:
    kernel = tuple(node.get("kernel_shape"))
    nd = len(kernel)
    pads = pads_of(node, nd)
    if node.outputs > 1 or pads is None or nd not in _MAX_POOL:
        return None
    kind = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[nd - 1]
    return kind(
        kernel,
        by_dimension(node, "strides", nd),
        _of_layer(pads, kernel),
        by_dimension(node, "dilations", nd),
        ceil_mode=bool(node.get("ceil_mode", 0)),
    )


def _window_sums(x: Any, window: Window) -> Any:
    """The sum of each window, zeros around the input."""
    kernel, stride, dilation, pads, ceil_mode = window
    if all(d == 1 for d in dilation):
        if len(kernel) > 1:
            return _AVERAGE[len(kernel)](x, kernel, stride, pads, ceil_mode, True, divisor_override=1)
        wide = ((1, *kernel), (1, *stride), ((0, 0), *pads))
        return F.avg_pool2d(x.unsqueeze(2), *wide, ceil_mode, True, divisor_override=1).squeeze(2)
    if ceil_mode:
        pads = tuple(map(_rounded_up, x.shape[2:], extents(kernel, dilation), stride, pads))
    ones = array_module(x.data).ones((1, 1, *kernel), x.dtype)
    y = _CONV[len(kernel)](x.reshape(-1, 1, *x.shape[2:]), ones, None, stride, pads, dilation)
    return y.reshape(*x.shape[:2], *y.shape[2:])


def _rounded_up(size: int, extent: int, stride: int, pair: tuple[int, int]) -> tuple[int, int]:
    """The padding with which as many windows fit as `ceil_mode` makes."""
    before, after = pair
    steps = -(-(size + before + after - extent) // stride)
    if steps * stride >= size + before:
        steps -= 1
    return before, max(after, steps * stride + extent - size - before)


@operator("AveragePool")
def _average_pool(node: Node, x: Any) -> Any:
    window = kernel, stride, dilation, pads, ceil_mode = _window(node, x)
    include_pad = bool(node.get("count_include_pad", 0))
    if all(d == 1 for d in dilation):
        return _AVERAGE[len(kernel)](x, kernel, stride, pads, ceil_mode, include_pad)
    y = _window_sums(x, window)
    counted = Tensor(array_module(x.data).ones((1, 1, *x.shape[2:]), x.dtype))
    if include_pad:
        counted = F.pad(counted, [n for pair in reversed(pads) for n in pair], value=1.0)
        window = (kernel, stride, dilation, ((0, 0),) * len(kernel), ceil_mode)
    return y / _window_sums(counted, window)[(..., *map(slice, y.shape[2:]))]


@layer("AveragePool")
def _average_pool_layer(node: Node, inputs: Inputs) -> Any:
    kernel = tuple(node.get("kernel_shape"))
    nd = len(kernel)
    pads = pads_of(node, nd)
    if pads is None or nd not in _AVERAGE or any(d != 1 for d in by_dimension(node, "dilations", nd)):
        return None
    options = (kernel, by_dimension(node, "strides", nd), _of_layer(pads, kernel))
    kind: Any = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[nd - 1]
    return kind(*options, bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0)))


@operator("LpPool")
def _power_pool(node: Node, x: Any) -> Any:
    p = node.get("p", 2)
    return _window_sums(x.abs() ** p, _window(node, x)) ** (1 / p)


@operator("GlobalMaxPool")
def _global_max_pool(node: Node, x: Any) -> Any:
    return _ADAPTIVE_MAX_POOL[x.ndim - 2](x, 1)


@operator("GlobalAveragePool")
def _global_average_pool(node: Node, x: Any) -> Any:
    return _ADAPTIVE_AVG_POOL[x.ndim - 2](x, 1)


@operator("GlobalLpPool")
def _global_power_pool(node: Node, x: Any) -> Any:
    p = node.get("p", 2)
    return (x.abs() ** p).sum(tuple(range(2, x.ndim)), keepdim=True) ** (1 / p)


@operator("MaxUnpool", numbers=(2,))
def _max_unpool(node: Node, x: Any, index: Any, output_shape: Any = None) -> Any:
    kernel = tuple(node.get("kernel_shape"))
    nd = len(kernel)
    pads = pads_of(node, nd)
    if x.ndim != nd + 2 or not isinstance(pads, tuple):
        raise ValueError(f"{node}: needs an input of {nd + 2} dimensions and explicit pads, got shape {tuple(x.shape)}")
    # The indices are those of a pooled array of the size that kernel, stride and padding give.
    stride = by_dimension(node, "strides", nd)
    space = [(n - 1) * s - sum(pair) + k for n, s, pair, k in zip(x.shape[2:], stride, pads, kernel)]
    plane = math.prod(space)
    zeros = Tensor(array_module(x.data).zeros((*x.shape[:2], plane), x.dtype))
    flat = (*x.shape[:2], -1)
    y = zeros.scatter(2, plain(index).reshape(flat) % plane, x.reshape(flat)).reshape(*x.shape[:2], *space)
    if output_shape is None:
        return y
    wanted = output_shape.tolist()[2:]
    return F.pad(y, [n for have, want in zip(reversed(space), reversed(wanted)) for n in (0, want - have)])
