"""Sums and joined arrays, by the backend where they are large: with all threads, in memory that is used again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import backend

_LARGE = 1 << 14
"""Elements from which a native call is faster than NumPy's."""


def is_floating(dtype: np.dtype) -> bool:
    """Whether `dtype` is one of NumPy's floating-point types or bfloat16."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _alike(arrays: Sequence[Any]) -> bool:
    """Whether these are NumPy arrays of one floating type."""
    return (
        set(map(type, arrays)) == {np.ndarray} and len({a.dtype for a in arrays}) == 1 and is_floating(arrays[0].dtype)
    )


def add(a: Any, b: Any, into: bool = False) -> Any:
    """a + b, as NumPy's; `into`: in the memory of `a`, whose type must hold the sum."""
    if type(a) is np.ndarray and a.size >= _LARGE and _alike((a, b)) and a.shape == b.shape and a.dtype.itemsize <= 8:
        return backend.ops.add_forward(a, b, into)
    if into:
        a += b
        return a
    return a + b


def concatenate(arrays: Sequence[Any], axis: int) -> Any:
    """numpy.concatenate."""
    if (
        arrays
        and _alike(arrays)
        and sum(a.size for a in arrays) >= _LARGE
        and len({a.ndim for a in arrays}) == 1
        and arrays[0].dtype.itemsize <= 8
    ):
        return backend.ops.cat_forward(axis, *arrays)
    return np.concatenate(arrays, axis=axis)
