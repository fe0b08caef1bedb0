"""Sums, means, extremes and norms over axes, and the places of extremes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.devices import array_module
from fastconv.tensor import Tensor

from .node import Node, operator

Reduce = Callable[[Any, tuple[int, ...], bool], Any]
"""The reduction of a Tensor over axes, which keeps them with size 1 where the flag says so."""


def _product(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _largest(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return _extreme(x, axes, keep, Tensor.amax, -1)


def _smallest(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    return _extreme(x, axes, keep, Tensor.amin, 1)


def _extreme(x: Any, axes: tuple[int, ...], keep: bool, reduce: Any, sign: int) -> Any:
    """`reduce`; of no elements, infinity of this sign or the largest number of an integer type."""
    if x.data.size or not any(x.shape[axis] == 0 for axis in axes):
        return reduce(x, axes, keep)
    if x.dtype.kind == "b":
        value: Any = sign > 0
    elif x.dtype.kind in "iu":
        limits = np.iinfo(x.dtype)
        value = limits.max if sign > 0 else limits.min
    else:
        value = sign * np.inf
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]
    return Tensor(array_module(x.data).full(shape, value, x.dtype))


_REDUCTIONS: dict[str, Reduce] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: (x * x).sum(axes, keep).sqrt(),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep) if x.data.size else x.exp().sum(axes, keep).log(),
    "ReduceMax": _largest,
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": _smallest,
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keep),
}


def _enter(name: str, reduce: Reduce) -> None:
    @operator(name, numbers=(1,))
    def apply(node: Node, x: Any, axes: Any = None) -> Any:
        chosen = node.numbers("axes", axes) or (() if node.get("noop_with_empty_axes", 0) else range(x.ndim))
        over, keep = tuple(axis % x.ndim for axis in chosen), bool(node.get("keepdims", 1))
        if not over:  # each element alone
            x, over, keep = x.unsqueeze(0), (0,), False
        return reduce(x, over, keep).to(dtype=x.dtype)


for _name, _reduce in _REDUCTIONS.items():
    _enter(_name, _reduce)


def _enter_place(name: str, place: Any) -> None:
    @operator(name)
    def apply(node: Node, x: Any) -> Any:
        axis = node.get("axis", 0) % x.ndim
        if not node.get("select_last_index", 0):
            found = place(x, axis)
        else:
            found = x.shape[axis] - 1 - place(x.flip(axis), axis)
        return np.expand_dims(found, axis) if node.get("keepdims", 1) else found


_enter_place("ArgMax", Tensor.argmax)
_enter_place("ArgMin", Tensor.argmin)


@operator("TopK", numbers=(1,))
def _top_k(node: Node, x: Any, k: Any) -> Any:
    return tuple(x.topk(int(k.item()), node.get("axis", -1), bool(node.get("largest", 1))))


@operator("CumSum", numbers=(1,))
def _cumulative_sum(node: Node, x: Any, axis: Any) -> Any:
    place = int(axis.item()) % x.ndim
    if node.get("reverse", 0):
        x = x.flip(place)
    y = x.cumsum(place).to(dtype=x.dtype)
    if node.get("exclusive", 0):
        y = y - x
    return y.flip(place) if node.get("reverse", 0) else y
