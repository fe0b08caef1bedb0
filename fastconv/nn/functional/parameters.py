"""Checks of arguments that the functions written in NumPy share; the backends check their own."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...devices import array_module
from ...layouts import channels_last

Sizes = int | Sequence[int]
Padding = int | Sequence[int] | Sequence[tuple[int, int]] | str

_SUPPORTED = "float32, float64, float16 or bfloat16"


def integers(value: Any, count: int, name: str, minimum: int) -> tuple[int, ...]:
    """`value`, an int or a sequence of `count` ints, as a tuple; none below `minimum`."""
    items = list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else [value] * count
    for item in items:
        if not isinstance(item, numbers.Integral) or isinstance(item, bool | np.bool_):
            raise TypeError(f"{name} must be an int or {count} ints, got {value!r}")
    if len(items) != count:
        raise ValueError(f"{name} must be an int or {count} ints, got {value!r}")
    numbers_given = tuple(int(item) for item in items)
    if any(not minimum <= number < 2**63 for number in numbers_given):
        raise ValueError(f"{name} must be at least {minimum} and fit 64 bits, got {value!r}")
    return numbers_given


def check_floating(x: np.ndarray, name: str) -> None:
    """TypeError unless `x` has one of the library's types, in the machine's byte order."""
    if not ((x.dtype.kind == "f" and x.dtype.itemsize <= 8) or x.dtype.name == "bfloat16") or not x.dtype.isnative:
        raise TypeError(f"{name} must be {_SUPPORTED}, got dtype {x.dtype!r}")


def check_same_dtype(x: np.ndarray, name: str, other: np.ndarray, other_name: str) -> None:
    """TypeError unless both have the same dtype."""
    if x.dtype != other.dtype:
        raise TypeError(f"{name} must have the dtype of {other_name}, {other.dtype}; got {x.dtype}")


def check_dim(dim: Any, ndim: int, name: str = "dim") -> int:
    """`dim` counted from the front; TypeError or ValueError where it names no dimension."""
    if not isinstance(dim, numbers.Integral) or isinstance(dim, bool):
        raise TypeError(f"{name} must be an int, got {dim!r}")
    chosen, count = int(dim), max(ndim, 1)
    if not -count <= chosen < count:
        raise ValueError(f"{name} must be from {-count} to {count - 1} for {ndim} dimensions, got {dim}")
    return chosen % count


def compute_dtype(x: np.ndarray) -> np.dtype:
    """Type in which NumPy computes for `x`: float32 for the 16-bit types."""
    return np.dtype(np.float32) if x.dtype.itemsize == 2 else x.dtype


def largest(x: np.ndarray, axis: int, empty: float) -> np.ndarray:
    """The maximum over `axis`, kept with size 1; `empty` where there are no elements."""
    if x.shape[axis]:
        return x.max(axis=axis, keepdims=True)
    axis %= x.ndim
    return array_module(x).full((*x.shape[:axis], 1, *x.shape[axis + 1 :]), empty, x.dtype)


def in_layout(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`y` in memory as `x` is: channels last where the strides of `x` say so."""
    if x.ndim < 3 or y.ndim != x.ndim or x.flags.c_contiguous or not np.moveaxis(x, 1, -1).flags.c_contiguous:
        return y
    return channels_last(y)
