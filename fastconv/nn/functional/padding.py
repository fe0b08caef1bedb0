"""Padding of arrays: constant, reflect, replicate, circular."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from ...devices import array_module
from ...differentiable import A, apply, differentiable
from .parameters import check_floating, compute_dtype, in_layout, integers

_MODES = ("constant", "reflect", "replicate", "circular")


def _check_pads(pad: Sequence[int], shape: tuple[int, ...], mode: str) -> list[tuple[int, int, int]]:
    """The padded dimensions as (axis, before, after), last dimension first as in torch."""
    if isinstance(pad, numbers.Integral) or len(pad) % 2 or len(pad) > 2 * len(shape):
        raise ValueError(
            f"pad must be (before, after) for up to {len(shape)} dimensions, the last one first; got {pad!r}"
        )
    pads = integers(pad, len(pad), "pad", -(2**62))
    found = []
    for i in range(len(pads) // 2):
        axis, (before, after) = len(shape) - 1 - i, pads[2 * i : 2 * i + 2]
        n = shape[axis]
        if before + n + after < 0 or before < -n or after < -n:
            raise ValueError(f"pad must not remove more than there is: {(before, after)} for a dimension of {n}")
        limit = {"reflect": n - 1, "circular": n, "replicate": 2**62 if n else 0}.get(mode, 2**62)
        if max(before, after) > limit and max(before, after) > 0:
            raise ValueError(
                f"pad must be at most {max(limit, 0)} in mode {mode} for a dimension of {n}, got {(before, after)}"
            )
        if mode == "circular" and max(before, after) > 0 and n + min(before, after) <= 0:
            raise ValueError(f"pad must leave something to repeat in mode circular, got {(before, after)} for {n}")
        if before + n + after >= 2**62:
            raise ValueError(f"pad must give a size that fits 64 bits, got {(before, after)}")
        if before or after:
            found.append((axis, before, after))
    return found


def _sources(n: int, before: int, after: int, mode: str) -> ndarray:
    """For each position of the padded dimension, the position in the input that it repeats."""
    i = np.arange(-before, n + after)
    if mode == "circular":
        # What is cropped at one end is not repeated at the other.
        first, last = max(-before, 0), n - max(-after, 0)
        return first + (i - first) % (last - first) if last > first else i
    if mode == "replicate":
        return np.clip(i, 0, max(n - 1, 0))
    return np.where(i < 0, -i, np.where(i >= n, 2 * (n - 1) - i, i))


def _along(axis: int, index: slice | int) -> tuple:
    return (*(slice(None),) * axis, index)


def _pad_constant(x: ndarray, pads: list[tuple[int, int, int]], value: float) -> ndarray:
    shape, inner, outer = list(x.shape), [slice(None)] * x.ndim, [slice(None)] * x.ndim
    for axis, before, after in pads:
        shape[axis] += before + after
        inner[axis] = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
        outer[axis] = slice(max(before, 0), shape[axis] - max(after, 0))
    y = array_module(x).full(shape, value, x.dtype)
    y[tuple(outer)] = x[tuple(inner)]
    return y


def _gather_back(dy: ndarray, n: int, axis: int, before: int, after: int, mode: str) -> ndarray:
    """Add each position of the padded dimension to the one that it repeats."""
    sources = _sources(n, before, after, mode)
    dx = array_module(dy).zeros((*dy.shape[:axis], n, *dy.shape[axis + 1 :]), dy.dtype)
    first, last = max(before, 0), len(sources) - max(after, 0)
    dx[_along(axis, slice(max(-before, 0), n - max(-after, 0)))] = dy[_along(axis, slice(first, last))]
    for i in (*range(first), *range(last, len(sources))):
        dx[_along(axis, int(sources[i]))] += dy[_along(axis, i)]
    return dx


def _pad_rule(wanted, x, pad, mode, value):
    check_floating(x, "input")
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(_MODES)}; got {mode!r}")
    if mode != "constant" and value is not None:
        raise ValueError(f"value must not be given in mode {mode}, got {value!r}")
    pads = _check_pads(pad, x.shape, mode)
    if mode == "constant":
        y = _pad_constant(x, pads, 0 if value is None else value)
    else:
        y = x.copy()
        for axis, before, after in pads:
            y = y.take(array_module(x).asarray(_sources(x.shape[axis], before, after, mode)), axis)

    def pullback(dy):
        if mode == "constant":
            return (in_layout(_pad_constant(dy, [(axis, -before, -after) for axis, before, after in pads], 0), x),)
        dx = dy.astype(compute_dtype(dy))
        for axis, before, after in reversed(pads):
            dx = _gather_back(dx, x.shape[axis], axis, before, after, mode)
        return (in_layout(dx.astype(x.dtype, copy=False), x),)

    return in_layout(y, x), pullback


@differentiable(_pad_rule, wrt=("input",))
def pad(input: A, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> A:
    """Grow (or, with negative numbers, crop) the last dimensions, as torch.nn.functional.pad.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    pad : sequence of int
        ``(before, after)`` of the last dimension, then of the one before it, and so on.
    mode : {"constant", "reflect", "replicate", "circular"}
        "reflect" repeats no edge and pads less than the size; "circular" at most the size.
    value : float, optional
        What mode "constant" fills in; default 0.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        An odd number of pads or too many, more than the mode allows, an unknown mode, a `value` for another mode.
    TypeError
        A dtype that is not supported, or pads that are no ints.

    Notes
    -----
    Any number of trailing dimensions may be padded in every mode (torch: up to three, after N and C).

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.pad(np.array([1.0, 2.0, 3.0]), (2, 1), mode="reflect")
    array([3., 2., 1., 2., 3., 2.])
    >>> F.pad(np.array([1.0, 2.0, 3.0]), (-1, 1), value=9.0)
    array([2., 3., 9.])
    """
    return apply(_pad, input, pad, mode, value)


_pad = pad  # in the function its first option has the name
