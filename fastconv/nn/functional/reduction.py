"""How a loss becomes one number: reduction "none", "mean" or "sum"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray

from ...cuda import is_device_array
from ...devices import as_array
from .parameters import check_floating, check_same_dtype, compute_dtype

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    """ValueError unless `reduction` is one of `allowed`."""
    if reduction not in allowed:
        raise ValueError(f"reduction must be one of {', '.join(allowed)}; got {reduction!r}")


def reduce(loss: ndarray, reduction: str, count: Any, dtype: np.dtype) -> tuple[ndarray, Callable[[ndarray], ndarray]]:
    """The reduced loss in `dtype`, and the gradient of each element as a function of the result's.

    `count` is what "mean" divides by; 0 gives NaN, as in torch.
    """
    if reduction == "none":
        return as_array(loss, dtype), lambda dy: dy.astype(loss.dtype, copy=False)
    total = loss.sum(dtype=loss.dtype)
    divisor: Any = count if reduction == "mean" else 1
    divisor = divisor.astype(loss.dtype) if hasattr(divisor, "dtype") else divisor
    with np.errstate(invalid="ignore", divide="ignore"):
        y = as_array(total / divisor, dtype)

    def spread(dy: ndarray) -> ndarray:
        # A mean of nothing is NaN, but what was left out of it (an ignored class) has the gradient 0.
        with np.errstate(invalid="ignore", divide="ignore"):
            share = dy.astype(loss.dtype) / divisor
        return np.where(divisor == 0, 0, share).astype(loss.dtype)

    return y, spread


def may_read(x: ndarray) -> bool:
    """Whether a check of the values of `x` waits for nothing.

    On a GPU none is made: a forbidden value gives a loss of NaN there.
    """
    return not is_device_array(x)


def pair(x: ndarray, target: ndarray, integer_target: bool = False) -> tuple[ndarray, ndarray]:
    """An elementwise loss' two arrays, checked, in the type to compute in."""
    check_floating(x, "input")
    if not (integer_target and target.dtype.kind in "iu"):
        check_same_dtype(target, "target", x, "input")
    if target.shape != x.shape:
        raise ValueError(f"target must have the input's shape {x.shape}, got {target.shape}")
    wide = compute_dtype(x)
    return x.astype(wide, copy=False), target.astype(wide, copy=False)


def element_weight(weight: ndarray | None, x: ndarray, name: str = "weight") -> ndarray | None:
    """A rescaling factor of an elementwise loss, which must broadcast to the input's shape."""
    if weight is None:
        return None
    check_same_dtype(weight, name, x, "input")
    try:
        fits = np.broadcast_shapes(weight.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must broadcast to the input's shape {x.shape}, got {weight.shape}")
    return np.broadcast_to(weight.astype(compute_dtype(x), copy=False), x.shape)
