"""The backend ``"cuda"``: NumPy arrays computed on the GPU, copied there and back in every call.

It is for tests and ``fastconv verify``, which so hold the kernels of the GPU against the reference as any backend's. To
compute fast, give CuPy arrays to the functions of the package (`fastconv.cuda`).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import cuda

__all__ = ["HostArrays"]

_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8")
_ALIGNMENT = 64  # addresses keep their remainder


class HostArrays:
    """The functions of `fastconv.cuda.kernels` for NumPy arrays.

    Strides, alignment, overlaps and read-only flags of the arguments are those of their copies; what a function writes
    to its arguments is written to the arrays that were given.

    Parameters
    ----------
    kernels : fastconv.cuda.Kernels
        The backend functions for CuPy arrays.

    Examples
    --------
    >>> import numpy as np, fastconv.cuda
    >>> from fastconv.host_arrays import HostArrays
    >>> if fastconv.cuda.is_available():
    ...     y = HostArrays(fastconv.cuda.kernels()).relu_forward(np.ones(3, np.float32))
    """

    def __init__(self, kernels: cuda.Kernels) -> None:
        self._kernels = kernels

    def __dir__(self) -> list[str]:
        return dir(self._kernels.module)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        attribute = getattr(self._kernels.module, name)
        if not name.endswith(cuda.FUNCTIONS):
            return attribute

        def call(*arguments: Any, **named: Any) -> Any:
            return self._call(name, attribute, arguments, named)

        call.__name__ = name
        setattr(self, name, call)
        return call

    def _call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        found = (a for a in cuda.leaves((*arguments, *named.values())) if isinstance(a, np.ndarray))
        arrays = {id(a): a for a in found if a.ndim > 1 or a.dtype.kind not in "iu"}  # without rows of sizes
        if not arrays or any(a.dtype.name not in _DTYPES or not a.dtype.isnative for a in arrays.values()):
            return function(*arguments, **named)  # which says what is wrong with them
        library = self._kernels.library
        aligned = {key: a if a.flags.aligned else a.copy(order="K") for key, a in arrays.items()}
        blocks = [_Block(library, group) for group in _overlapping(list(aligned.values()))]
        home = {id(a): block for block in blocks for a in block.arrays}
        given = {key: home[id(a)].device(a) for key, a in aligned.items()}
        back = {id(device): arrays[key] for key, device in given.items()}
        there = cuda.replaced(arguments, given)
        named_there = {key: cuda.replaced(a, given) for key, a in named.items()}
        read_only = tuple(given[key] for key, a in arrays.items() if not a.flags.writeable)
        results = self._kernels.call(name, function, there, named_there, read_only)
        library.cuda.get_current_stream().synchronize()
        for key, a in aligned.items():
            if arrays[key].flags.writeable and home[id(a)].written():
                arrays[key][...] = home[id(a)].now(a)

        def host(result: Any) -> Any:
            return back[id(result)] if id(result) in back else _fetch(result)

        return tuple(map(host, results)) if isinstance(results, tuple) else host(results)


@functools.lru_cache(maxsize=1)
def over(kernels: cuda.Kernels) -> HostArrays:
    """The one object for these kernels."""
    return HostArrays(kernels)


class _Block:
    """Device memory with a copy of what lies under `arrays`, which overlap on the host."""

    def __init__(self, library: Any, arrays: list[np.ndarray]) -> None:
        self.arrays, self._library = arrays, library
        ends = [_reach(a) for a in arrays]
        self.low = min(low for low, _ in ends)
        self.size = max(high for _, high in ends) - self.low
        self._before = _bytes(self.low, self.size)
        memory = library.cuda.alloc(self.size + _ALIGNMENT)
        self._memory, self._offset = memory.mem, memory.ptr - memory.mem.ptr + self.low % _ALIGNMENT
        self._start = library.cuda.MemoryPointer(self._memory, self._offset)
        self._after: np.ndarray | None = None
        if self.size:
            self._start.copy_from_host(ctypes.c_void_p(self._before.ctypes.data), self.size)

    def device(self, a: np.ndarray) -> Any:
        """The library's array in the place of `a`."""
        place = self._library.cuda.MemoryPointer(self._memory, self._offset + a.ctypes.data - self.low)
        return self._library.ndarray(a.shape, a.dtype, memptr=place, strides=a.strides)

    def written(self) -> bool:
        """Whether the call changed a byte."""
        if self._after is None:
            self._after = np.empty_like(self._before)
            if self.size:
                self._start.copy_to_host(ctypes.c_void_p(self._after.ctypes.data), self.size)
        return not np.array_equal(self._before, self._after)

    def now(self, a: np.ndarray) -> np.ndarray:
        """The elements of `a` after the call."""
        return np.ndarray(a.shape, a.dtype, self._after, a.ctypes.data - self.low, a.strides)


def _reach(a: np.ndarray) -> tuple[int, int]:
    """Addresses of the first byte of the elements, and behind the last."""
    if a.size == 0:
        return a.ctypes.data, a.ctypes.data
    low, size = cuda.span(a.ctypes.data, a.shape, a.strides, a.itemsize)
    return low, low + size


def _bytes(address: int, size: int) -> np.ndarray:
    """A copy of host memory."""
    copy = np.empty(size, np.uint8)
    ctypes.memmove(copy.ctypes.data, address, size)
    return copy


def _overlapping(arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
    """The arrays in groups that share memory."""
    groups: list[list[np.ndarray]] = []
    end = -1
    for a in sorted(arrays, key=lambda a: _reach(a)[0]):
        low, high = _reach(a)
        if groups and low < end:
            groups[-1].append(a)
        else:
            groups.append([a])
        end = max(end, high)
    return groups


def _fetch(device: Any) -> np.ndarray:
    """A NumPy array with the elements and strides of an output."""
    low, size = cuda.span(device.data.ptr, device.shape, device.strides, device.dtype.itemsize)
    buffer = np.empty(size, np.uint8)
    if 0 not in device.shape:
        device.data.copy_to_host(ctypes.c_void_p(buffer.ctypes.data), size)  # the elements of an output are dense
    return np.ndarray(device.shape, device.dtype, buffer, device.data.ptr - low, device.strides)
