"""Sum of two arrays, and arrays joined along a dimension. Sources: torch.add, torch.cat; ONNX Add, Concat."""

from __future__ import annotations

import numpy as np

from . import checks


@np.errstate(all="ignore")
def add_forward(a: np.ndarray, b: np.ndarray, inplace: bool = False) -> np.ndarray:
    """a + b of one shape and dtype; `inplace` writes to a and returns it.

    >>> add_forward(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    array([4., 6.])
    """
    first = checks.array("input", a)
    second = checks.array("other", b, (first.dtype,))
    checks.same_shape("other", second, first.shape, "the shape of input")
    if not checks.flag("inplace", inplace):
        return checks.finish_like(checks.wide(first) + checks.wide(second), first)
    if not first.flags.writeable:
        raise ValueError("input is read-only: must be writable with inplace=True")
    first[...] = checks.rounded(checks.wide(first) + checks.wide(second), first.dtype)
    return a


def cat_forward(dim: int, *arrays: np.ndarray) -> np.ndarray:
    """The arrays one after the other along `dim`.

    >>> cat_forward(0, np.array([1.0, 2.0]), np.array([3.0]))
    array([1., 2., 3.])
    """
    if not arrays:
        raise ValueError("arrays must hold at least one array, got none")
    first = checks.array("arrays[0]", arrays[0])
    axis = checks.integer("dim", dim, -first.ndim, first.ndim - 1) % max(first.ndim, 1)
    parts = [checks.array(f"arrays[{i}]", part, (first.dtype,)) for i, part in enumerate(arrays)]
    for i, part in enumerate(parts):
        shape = (*first.shape[:axis], *part.shape[axis : axis + 1], *first.shape[axis + 1 :])
        checks.same_shape(f"arrays[{i}]", part, shape, "the shape of arrays[0] but for dim")
    if first.ndim < 3 or first.flags.c_contiguous or not np.moveaxis(first, 1, -1).flags.c_contiguous:
        return np.concatenate(parts, axis)
    moved = [np.moveaxis(part, 1, -1) for part in parts]
    order = [0, *range(2, first.ndim), 1]
    return np.moveaxis(np.concatenate([np.ascontiguousarray(m) for m in moved], order.index(axis)), -1, 1)
