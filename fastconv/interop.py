"""Arrays of other libraries: taken through ``__dlpack__`` without a copy, and results handed back in kind."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np

from .cuda import is_device_array

# Device types of dlpack.h that ordinary processor code may read: kDLCPU, and kDLCUDAHost (pinned host memory).
_HOST_DEVICES = (1, 3)
# kDLCUDA and kDLCUDAManaged.
_GPUS = (2, 13)


def _library(array: Any) -> Any:
    """The module with the ``from_dlpack`` of the library that `array` belongs to."""
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules[type(array).__module__.partition(".")[0]]


def _is_bfloat16(array: Any) -> bool:
    return str(getattr(array, "dtype", "")).endswith("bfloat16")


def to_numpy(array: Any, name: str) -> np.ndarray:
    """`array` as a NumPy array over the same memory.

    Parameters
    ----------
    array : numpy.ndarray or object with ``__dlpack__``
    name : str
        The argument's name, for the error messages.

    Raises
    ------
    TypeError
        Lists, scalars, masked arrays and anything else that is not an array.
    NotImplementedError
        The array lives on a GPU.
    ValueError
        The library will not export it (torch tensors that require a gradient, sparse tensors).
    """
    if isinstance(array, np.ndarray):
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{name} must not be a masked array: the kernels would ignore the mask; fill it first")
        return array if type(array) is np.ndarray else array.view(np.ndarray)
    if isinstance(array, np.generic) or not hasattr(array, "__dlpack__"):
        raise TypeError(
            f"{name} must be an array (numpy.ndarray or an object with __dlpack__), got {type(array).__name__}"
        )
    device = array.__dlpack_device__()[0] if hasattr(array, "__dlpack_device__") else 1
    if device not in _HOST_DEVICES:
        raise NotImplementedError(
            f"{name} must be in the host's memory, got a {type(array).__module__}.{type(array).__qualname__} "
            "elsewhere: copy it to the host first (cupy.asnumpy(x), x.cpu())"
        )
    try:
        if _is_bfloat16(array):  # NumPy's from_dlpack knows no bfloat16: carry the bits as int16
            import ml_dtypes

            return np.from_dlpack(array.view(_library(array).int16)).view(ml_dtypes.bfloat16)
        return np.from_dlpack(array)
    except (BufferError, RuntimeError) as error:
        raise ValueError(f"{name} could not be taken through dlpack: {error}") from error


def to_array(array: Any, name: str) -> Any:
    """`array` over the same memory: NumPy, or CuPy where it is on a GPU and the backend is ready for it.

    Parameters, Raises
    ------------------
    As `to_numpy`; NotImplementedError where CuPy arrays cannot be computed here, which says what is missing.
    """
    if type(array) is np.ndarray:
        return array
    if not is_device_array(array):
        if not _is_on_gpu(array):
            return to_numpy(array, name)
        _accept(name, f" is a {type(array).__module__}.{type(array).__qualname__} in GPU memory, which")
        return _to_cupy(array, name)
    _accept(name)
    return array


def _accept(name: str, *kind: str) -> None:
    from .backend import accept_device_arrays

    accept_device_arrays(name, *kind)


def _is_on_gpu(array: Any) -> bool:
    if hasattr(array, "__dlpack_device__"):
        return array.__dlpack_device__()[0] in _GPUS
    # torch's tensors have the attribute everywhere, and raise where they are elsewhere.
    return hasattr(type(array), "__cuda_array_interface__") and not hasattr(array, "__dlpack__")


def _to_cupy(array: Any, name: str) -> Any:
    """A CuPy array over the memory of another library's, ordered after what that library still computes there."""
    library = import_module("cupy")
    try:
        if not hasattr(array, "__dlpack__"):
            return library.asarray(array)
        if _is_bfloat16(array):  # carry the bits as int16, as on the host
            import ml_dtypes

            return library.from_dlpack(array.view(_library(array).int16)).view(ml_dtypes.bfloat16)
        return library.from_dlpack(array)
    except (BufferError, RuntimeError) as error:
        raise ValueError(f"{name} could not be taken into CuPy: {error}") from error


def like(result: Any, owner: Any) -> Any:
    """`result` (an array or a tuple of arrays) as arrays of the library that `owner` belongs to."""
    if isinstance(owner, np.ndarray) or result is None or is_device_array(result):
        return result
    if isinstance(result, tuple):
        return tuple(like(item, owner) for item in result)
    library = _library(owner)
    if not hasattr(library, "from_dlpack"):
        raise TypeError(f"{library.__name__} has no from_dlpack to take the result; pass numpy.from_dlpack(x) instead")
    if _is_bfloat16(result):
        return library.from_dlpack(result.view(np.int16)).view(library.bfloat16)
    return library.from_dlpack(result)
