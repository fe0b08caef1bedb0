"""Checks of constructor arguments and the choice of operands, shared by the layer files."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastconv.devices import named_dtype
from fastconv.elements import is_floating
from fastconv.tensor import Tensor

__all__ = ["choice", "floating_dtype", "is_floating", "number", "operands", "output_sizes", "paddings", "size", "sizes"]


def size(name: str, value: Any, minimum: int) -> int:
    """`value` as a Python int that is at least `minimum`; numpy integers count, bool and float do not."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    value = operator.index(value)
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return value


def sizes(name: str, value: Any, nd: int, minimum: int) -> tuple[int, ...]:
    """`value` as a tuple of `nd` ints: one integer stands for all, a sequence must have `nd` entries."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return (size(name, value, minimum),) * nd
    entries = tuple(value)
    if len(entries) != nd:
        raise ValueError(f"{name} must be one integer or {nd} of them, got {value!r}")
    return tuple(size(name, entry, minimum) for entry in entries)


def input_shapes(name: str, value: Any, minimum: int) -> list[tuple[int, ...]]:
    """The shapes of a network's inputs: `value` is the only one's, or a sequence of one for each."""
    entries = list(value)
    several = bool(entries) and all(isinstance(entry, (list, tuple)) for entry in entries)
    return [tuple(size(name, extent, minimum) for extent in shape) for shape in (entries if several else [entries])]


def paddings(value: Any, nd: int) -> Any:
    """A constructor's padding as a word, one int a dimension, or one (before, after) pair a dimension."""
    if isinstance(value, str):
        return choice("padding", value, ("same", "valid"))
    if isinstance(value, (list, tuple)) and any(isinstance(entry, (list, tuple)) for entry in value):
        if len(value) != nd:
            raise ValueError(f"padding must have {nd} entries, got {value!r}")
        return tuple(sizes("padding", entry, 2, 0) for entry in value)
    return sizes("padding", value, nd, 0)


def output_sizes(name: str, value: Any, nd: int) -> None:
    """Check the output size of an adaptive layer, whose entries may be None (keep the input's size)."""
    entries = tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else (value,) * nd
    if len(entries) != nd:
        raise ValueError(f"{name} must be one integer or {nd} of them, got {value!r}")
    for entry in entries:
        if entry is not None:
            size(name, entry, 0)


def number(name: str, value: Any) -> Any:
    """`value`, which must be a real number other than a bool."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    return value


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """`value`, which must be one of the words `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def floating_dtype(dtype: Any) -> np.dtype:
    """`dtype` (None: float32) as one of the four types the layers compute in."""
    message = f"dtype must be float32, float64, float16 or bfloat16, got {dtype!r}"
    try:
        result = np.dtype(np.float32 if dtype is None else named_dtype(dtype))
    except TypeError as error:
        raise TypeError(message) from error
    if result.name not in ("float32", "float64", "float16", "bfloat16") or not result.isnative:
        raise TypeError(message)
    return result


def operands(x: Any, *parameters: Any) -> tuple[Any, ...]:
    """The parameters as `x` asks for them: Tensors where `x` records, plain arrays where it is one.

    This is what makes "arrays in, arrays out, nothing recorded" hold for layers, whose parameters are Tensors.
    """
    if isinstance(x, Tensor):
        return parameters
    return tuple([p.data if isinstance(p, Tensor) else p for p in parameters])
