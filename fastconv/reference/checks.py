"""Validation, widening to float64 and rounding back: what every reference operator does around its arithmetic.

Bad input raises `ValueError` (shapes and parameters) or `TypeError` (dtypes and kinds) that names the argument, the
value and the rule, before anything large is allocated. The names in the messages are those of
`fastconv.nn.functional`.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import TypeGuard

import numpy as np

INT64_MAX = 2**63 - 1
FLOAT_DTYPES = ("float16", "float32", "float64", "bfloat16")


def describe(value: object) -> str:
    """`repr` of a possibly hostile value, short enough for an error message."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def array(name: str, value: object, dtypes: Sequence[np.dtype] | None = None) -> np.ndarray:
    """`value` as a plain ndarray of one of `dtypes` (default: the four floating types in native byte order)."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a numpy.ndarray, got {type(value).__name__}")
    dtype = value.dtype
    if not dtype.isnative:
        raise TypeError(f"{name} has dtype {dtype.str}: the byte order must be the machine's own")
    if dtypes is None and dtype.name not in FLOAT_DTYPES:
        raise TypeError(f"{name} has dtype {dtype}: must be one of {', '.join(FLOAT_DTYPES)}")
    if dtypes is not None and dtype not in dtypes:
        raise TypeError(f"{name} has dtype {dtype}: must be {' or '.join(str(d) for d in dtypes)}")
    return np.asarray(value)


def optional_array(name: str, value: object, dtypes: Sequence[np.dtype]) -> np.ndarray | None:
    return None if value is None else array(name, value, dtypes)


def integer(name: str, value: object, minimum: int | None = None, maximum: int = INT64_MAX) -> int:
    """A Python or NumPy integer (bool and float are a `TypeError`) within the limits."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}: must be an integer, not a bool")
    if isinstance(value, np.ndarray) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {describe(value)}: must be an integer, not {type(value).__name__}")
    number = operator.index(value)
    if minimum is not None and number < minimum:
        raise ValueError(f"{name} is {number}: must be at least {minimum}")
    if number > maximum:
        raise ValueError(f"{name} is {describe(number)}: must be at most {maximum}")
    return number


def sequence(name: str, value: object, length: int) -> list:
    """The `length` entries of a list, tuple or one-dimensional array."""
    if not isinstance(value, list | tuple | np.ndarray) or (isinstance(value, np.ndarray) and value.ndim != 1):
        raise TypeError(f"{name} is {describe(value)}: must be an integer or a sequence of {length} integers")
    if len(value) != length:
        raise ValueError(f"{name} is {describe(value)}: must have {length} entries, has {len(value)}")
    return list(value)


def is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    """Whether `value` is a list, a tuple or an array of at least one dimension."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def integers(name: str, value: object, nd: int, minimum: int) -> tuple[int, ...]:
    """An integer for all `nd` dimensions, alone or in a sequence of one, or a sequence with one for each."""
    if is_sequence(value):
        entries = sequence(name, value, 1 if len(value) == 1 else nd)
        return tuple(integer(name, entry, minimum) for entry in entries) * (nd if len(entries) == 1 else 1)
    return (integer(name, value, minimum),) * nd


def real(name: str, value: object) -> float:
    """A real number (bool and complex are a `TypeError`) that is not NaN."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} is {describe(value)}: must be a real number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} is {describe(value)}: must fit into float64") from None
    if math.isnan(number):
        raise ValueError(f"{name} is nan: must be a number")
    return number


def finite(name: str, value: object) -> float:
    number = real(name, value)
    if math.isinf(number):
        raise ValueError(f"{name} is {number}: must be finite")
    return number


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {describe(value)}: must be a bool")
    return bool(value)


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} is {describe(value)}: must be one of {', '.join(map(repr, allowed))}")
    return str(value)


def dimensions(nd: object) -> int:
    """The number of spatial dimensions."""
    number = integer("nd", nd)
    if number not in (1, 2, 3):
        raise ValueError(f"nd is {number}: must be 1, 2 or 3")
    return number


def size_limit(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """`shape`, if an array of it can be addressed with 64-bit byte offsets (zero dimensions do not hide the others)."""
    if math.prod(max(d, 1) for d in shape) * 8 > INT64_MAX:
        raise ValueError(f"{name} has shape {describe(tuple(shape))}: the product of its sizes overflows 64 bits")
    return tuple(shape)


def shape_argument(name: str, value: object, ndims: Sequence[int]) -> tuple[int, ...]:
    """A shape given as a sequence of non-negative integers, with an allowed number of dimensions."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} is {describe(value)}: must be a tuple of integers")
    if len(value) not in ndims:
        raise ValueError(f"{name} is {describe(value)}: must have {' or '.join(map(str, ndims))} entries")
    return size_limit(name, [integer(name, entry, 0) for entry in value])


def rank(name: str, x: np.ndarray, ndims: Sequence[int]) -> None:
    if x.ndim not in ndims:
        raise ValueError(
            f"{name} has shape {x.shape}: must have {' or '.join(map(str, ndims))} dimensions, has {x.ndim}"
        )


def same_shape(name: str, x: np.ndarray, shape: Sequence[int], rule: str) -> None:
    if x.shape != tuple(shape):
        raise ValueError(f"{name} has shape {x.shape}: must be {describe(tuple(shape))}, {rule}")


def no_empty_dimension(name: str, shape: Sequence[int], first: int) -> None:
    """Refuse zero sizes in dimensions `first`, `first` + 1, ..."""
    for axis in range(first, len(shape)):
        if shape[axis] == 0:
            raise ValueError(f"{name} has shape {describe(tuple(shape))}: dimension {axis} must be at least 1")


def images(name: str, shape: Sequence[int], nd: int, first: int) -> tuple[bool, tuple[int, ...]]:
    """(batched, batched shape) of an (N, C, *S) or (C, *S) shape whose dimensions from `first` on are not empty."""
    if len(shape) not in (nd + 1, nd + 2):
        raise ValueError(
            f"{name} has shape {describe(tuple(shape))}: must have {nd + 2} dimensions, or {nd + 1} unbatched"
        )
    batched = len(shape) == nd + 2
    full = tuple(shape) if batched else (1, *shape)
    no_empty_dimension(name, shape, first - (not batched))
    return batched, full


def wide(x: np.ndarray) -> np.ndarray:
    """`x` in float64."""
    return x.astype(np.float64)


def is_channels_last(x: np.ndarray, nd: int) -> bool:
    """Whether the strides of (N, C, *S) or (C, *S) say that channels are innermost.

    Size-1 dimensions have no say; an array that is both (one channel, or one pixel) counts as channels-first.
    """
    channels, spatial = x.ndim - nd - 1, range(x.ndim - nd, x.ndim)
    order = [x.strides[axis] for axis in (*spatial, channels) if x.shape[axis] > 1]
    return (
        x.shape[channels] > 1
        and len(order) > 1
        and order[-1] > 0
        and all(outer >= inner for outer, inner in itertools.pairwise(order))
        and order[-2] > order[-1]
    )


def rounded(y: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64 `y` rounded to `dtype` once, to nearest even."""
    y = np.asarray(y)
    with np.errstate(all="ignore"):
        if dtype.name != "bfloat16":
            return y.astype(dtype)
        # The cast to bfloat16 goes through float32. Rounding to odd on the way keeps it a single rounding: truncate,
        # then set the last bit of what was inexact.
        single = y.astype(np.float32, order="C")
        bits = single.view(np.int32)
        inexact = (single != y) & ~np.isnan(y)
        bits -= inexact & (np.abs(single) > np.abs(y))
        bits |= inexact
        return single.astype(dtype)


def finish(y: np.ndarray, model: np.ndarray, nd: int, batched: bool) -> np.ndarray:
    """A float64 (N, C, *S) result in the dtype, the memory format and the rank of the input `model`."""
    result = rounded(y, model.dtype)
    if is_channels_last(model, nd):
        result = np.moveaxis(np.ascontiguousarray(np.moveaxis(result, 1, -1)), -1, 1)
    else:
        result = np.ascontiguousarray(result)
    return result if batched else result[0]


def finish_like(y: np.ndarray, model: np.ndarray) -> np.ndarray:
    """A result of the shape of `model` in the dtype and the memory order of `model`."""
    result = np.empty_like(model)
    result[...] = rounded(y, model.dtype)
    return result
