"""Arrays of the host and of GPUs: which library computes them, where they are, and how they move.

Code that is written in NumPy computes CuPy arrays too: NumPy's functions hand them to CuPy's. What makes new arrays
cannot know which kind is meant, and takes the module from `array_module`.

>>> import numpy as np
>>> from fastconv.devices import array_module, device_of
>>> array_module(np.zeros(3)).__name__, device_of(np.zeros(3))
('numpy', 'cpu')
"""

from __future__ import annotations

import contextlib
import numbers
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from .cuda import is_device_array, kernels

__all__ = [
    "array_module",
    "as_array",
    "device_of",
    "guard",
    "is_writable",
    "named_dtype",
    "one_device",
    "parse",
    "thaw",
    "to_device",
    "to_host",
]


def array_module(array: Any) -> Any:
    """The library that `array` belongs to: CuPy for its arrays, NumPy for everything else.

    Examples
    --------
    >>> from fastconv.devices import array_module
    >>> array_module([1, 2]).__name__
    'numpy'
    """
    return import_module("cupy") if type(array) is not np.ndarray and is_device_array(array) else np


def as_array(value: Any, dtype: Any = None) -> Any:
    """``numpy.asarray``, which leaves CuPy arrays on their GPU."""
    if type(value) is np.ndarray or not is_device_array(value):
        return np.asarray(value, dtype)
    return value if dtype is None else value.astype(dtype, copy=False)


def is_array(value: Any) -> bool:
    """Whether `value` is a NumPy or a CuPy array."""
    return isinstance(value, np.ndarray) or is_device_array(value)


def write(target: Any, values: np.ndarray) -> None:
    """Copy `values`, an array of the host, into `target` on whatever device."""
    if isinstance(target, np.ndarray):
        target[...] = values
    else:
        with guard(target):
            target[...] = import_module("cupy").asarray(values, target.dtype)


def is_writable(array: Any) -> bool:
    """Whether elements may be assigned; CuPy has no arrays that refuse."""
    return getattr(array.flags, "writeable", True)


def thaw(tensor: Any) -> None:
    """Give `tensor` a writable copy of its array where that is one of `fastconv.nn.functional.pack_weight`.

    What was packed goes with the old array. Other read-only arrays are the caller's, and stay.
    """
    data = tensor.data
    if isinstance(data, np.ndarray) and not data.flags.writeable and type(data.base).__name__ == "PyCapsule":
        tensor.data = data.copy()


def device_of(array: Any) -> str:
    """``"cpu"``, or ``"cuda:N"`` for a CuPy array on GPU N.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.devices import device_of
    >>> device_of(np.ones(2))
    'cpu'
    """
    return f"cuda:{array.device.id}" if is_device_array(array) else "cpu"


def one_device(name: str, arrays: Iterable[tuple[str, Any]]) -> None:
    """ValueError unless all `arrays` (pairs of name and array) are on one device."""
    places = [(argument, device_of(array)) for argument, array in arrays if array is not None]
    if len({place for _, place in places}) > 1:
        listed = ", ".join(f"{argument} on {place}" for argument, place in places)
        raise ValueError(f"{name}: all arrays must be on one device, got {listed}")


@contextlib.contextmanager
def guard(array: Any) -> Iterator[None]:
    """Context manager: the GPU of `array` is the current one; nothing for arrays of the host."""
    if type(array) is np.ndarray or not is_device_array(array):
        yield
    else:
        with import_module("cupy").cuda.Device(array.device.id):
            yield


def parse(device: Any) -> str:
    """`device` by its full name: ``"cpu"`` or ``"cuda:N"``; ``"cuda"`` is CuPy's current GPU, an int is its number.

    Raises
    ------
    ValueError
        No such name.
    TypeError
        Neither a string nor an int.
    NotImplementedError
        A GPU, where CuPy arrays cannot be computed; the message says what is missing.

    Examples
    --------
    >>> from fastconv.devices import parse
    >>> parse("cpu")
    'cpu'
    """
    if isinstance(device, numbers.Integral) and not isinstance(device, bool):
        device = f"cuda:{int(device)}"
    if not isinstance(device, str):
        raise TypeError(f'device must be a str such as "cpu", "cuda" or "cuda:1", or an int, got {device!r}')
    if device == "cpu":
        return device
    if not re.fullmatch(r"cuda(:[0-9]{1,4})?", device):
        raise ValueError(f'device must be "cpu", "cuda" or "cuda:N", got {device!r}')
    kernels("device " + repr(device), "")
    runtime = import_module("cupy").cuda
    number = int(device[5:]) if ":" in device else runtime.Device().id
    count = runtime.runtime.getDeviceCount()
    if number >= count:
        raise ValueError(f"device must name one of {count} GPUs, cuda:0 to cuda:{count - 1}, got {device!r}")
    return f"cuda:{number}"


def to_host(array: Any) -> np.ndarray:
    """`array` as a NumPy array: itself, or a copy of a CuPy array with its memory layout (waits for the GPU)."""
    if not is_device_array(array):
        return np.asarray(array)
    order, back = _memory_order(array)
    copied: np.ndarray = array.transpose(order).get()
    return copied.transpose(back)


def to_device(array: Any, device: str) -> Any:
    """`array` (NumPy or CuPy) on the `device` that `parse` named; itself where it is there already."""
    if device_of(array) == device:
        return array
    if device == "cpu":
        return to_host(array)
    library = import_module("cupy")
    with library.cuda.Device(int(device[5:])):
        if is_device_array(array):
            return array.copy()  # onto the current GPU
        order, back = _memory_order(array)
        return library.asarray(array.transpose(order), order="C").transpose(back)


def destination(args: tuple[Any, ...], device: Any, dtype: Any) -> tuple[str | None, Any]:
    """The device (None: as it is) and dtype (likewise) that the arguments of a ``to`` name, as torch reads them."""
    if len(args) > 2:
        raise TypeError(f"to takes a device, a dtype, both, or a Tensor; got {len(args)} arguments")
    for value in args:
        if hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, type):
            device, dtype = device_of(getattr(value, "data", value)), value.dtype
        elif type(value) is int or (isinstance(value, str) and (value == "cpu" or value.startswith("cuda"))):
            device = value
        elif value is not None:
            dtype = value
    return None if device is None else parse(device), named_dtype(dtype)


def named_dtype(dtype: Any) -> Any:
    """`dtype`, the word "bfloat16" as the type that the package ml_dtypes has; NumPy knows none of this name."""
    if not isinstance(dtype, str) or dtype != "bfloat16":
        return dtype
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("bfloat16 needs the ml_dtypes package: pip install 'fastconv[demo]'") from error
    return np.dtype(ml_dtypes.bfloat16)


def _memory_order(array: Any) -> tuple[list[int], list[int]]:
    """The dimensions from the largest stride to the smallest, and their order back."""
    order = sorted(range(array.ndim), key=lambda i: (-array.strides[i], i))
    return order, sorted(range(array.ndim), key=order.__getitem__)
