"""What `fastconv.cuda` uses of CuPy, over host memory: with the simulator it is a GPU for the tests.

Its arrays know only what CuPy documents (``data.ptr``, ``device.id``, shape, strides in bytes, dtype), so that code
which takes them for NumPy's fails here as it would there.
"""

from __future__ import annotations

import ctypes
import sys
import types
from typing import Any

import numpy as np

LIMIT = 1 << 30


class MemoryPointer:
    def __init__(self, memory: Any, offset: int) -> None:
        self.mem, self.ptr = memory, memory.ptr + offset

    def copy_from_host(self, address: ctypes.c_void_p, size: int) -> None:
        ctypes.memmove(self.ptr, address, size)

    def copy_to_host(self, address: ctypes.c_void_p, size: int) -> None:
        ctypes.memmove(address, self.ptr, size)


class UnownedMemory:
    def __init__(self, ptr: int, size: int, owner: Any) -> None:
        self.ptr, self.size, self.owner = ptr, size, owner


class Memory:
    alive = 0

    def __init__(self, size: int) -> None:
        self.buffer = np.full(size + 64, 0xFF, np.uint8)  # what the pool hands out was used before
        self.ptr = self.buffer.ctypes.data
        Memory.alive += 1

    def __del__(self) -> None:
        Memory.alive -= 1


def alloc(size: int) -> MemoryPointer:
    if size > LIMIT:
        raise MemoryError(f"out of memory allocating {size} bytes")
    return MemoryPointer(Memory(size), 0)


class Device:
    current = 0

    def __init__(self, id: int) -> None:
        self.id = id

    def __enter__(self) -> None:
        self.before, Device.current = Device.current, self.id

    def __exit__(self, *error: Any) -> None:
        Device.current = self.before


class Stream:
    ptr = 0

    def synchronize(self) -> None:
        pass


class ndarray:
    __module__ = "cupy"

    def __init__(
        self, shape: Any, dtype: Any, memptr: MemoryPointer, strides: Any = None, device: int | None = None
    ) -> None:
        self.data = memptr
        self.device = Device(Device.current if device is None else device)
        dtype = np.dtype(dtype)
        self.shape, self.dtype, self.ndim = tuple(shape), dtype, len(shape)
        self.strides = np.empty(shape, dtype).strides if strides is None else tuple(strides)

    def _host(self) -> np.ndarray:
        """The elements."""
        reach = [(n - 1) * step for n, step in zip(self.shape, self.strides)] if 0 not in self.shape else [0]
        low = sum(r for r in reach if r < 0)
        size = sum(r for r in reach if r > 0) - low + self.dtype.itemsize
        buffer = (ctypes.c_char * size).from_address(self.data.ptr + low)
        return np.ndarray(self.shape, self.dtype, buffer, -low, self.strides)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._host()[key] = value._host() if isinstance(value, ndarray) else value

    def _like(self, view: np.ndarray) -> ndarray:
        offset = view.ctypes.data - self.data.ptr
        moved = MemoryPointer(self.data, offset)
        return ndarray(view.shape, view.dtype, moved, view.strides, self.device.id)

    def __getitem__(self, key: Any) -> ndarray:
        return self._like(self._host()[key])

    def copy(self) -> ndarray:
        return asarray(self._host(), self.device.id)

    def reshape(self, *shape: Any) -> ndarray:
        return self._like(self._host().reshape(*shape))

    def transpose(self, *axes: int) -> ndarray:
        return self._like(self._host().transpose(*axes))


def asarray(values: np.ndarray, device: int = 0) -> ndarray:
    """A "device" copy with the strides of `values` where these are dense."""
    values = np.asarray(values)
    dense = values.copy(order="K")
    memory = alloc(max(dense.nbytes, 1))
    result = ndarray(dense.shape, dense.dtype, memory, dense.strides, device)
    result[...] = values
    return result


def asnumpy(array: ndarray) -> np.ndarray:
    return array._host().copy(order="K")


def module() -> types.ModuleType:
    """The fake as a module named cupy."""
    fake: Any = types.ModuleType("cupy")
    fake.ndarray, fake.asarray, fake.asnumpy = ndarray, asarray, asnumpy
    fake.cuda = types.SimpleNamespace(
        alloc=alloc, UnownedMemory=UnownedMemory, MemoryPointer=MemoryPointer, Device=Device, get_current_stream=Stream
    )
    return fake


class _Gpu(types.ModuleType):
    """``fastconv._cuda`` as on a machine with a GPU: the simulator's functions."""

    def __init__(self, simulator: Any) -> None:
        super().__init__("fastconv._cuda")
        self._simulator = simulator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simulator, name)

    def __dir__(self) -> list[str]:
        return [*dir(self._simulator), "device_count", "driver_version", "runtime_version"]

    def isa(self) -> str:
        return "cuda"

    def available_isas(self) -> tuple[str, ...]:
        return ("cuda",)

    def device_count(self) -> int:
        return 1

    def driver_version(self) -> str:
        return "none (simulator)"

    def runtime_version(self) -> str:
        return "none (simulator)"


def install() -> None:
    """Let this process have a GPU that is the simulator: backend "cuda", and CuPy arrays. Not undone."""
    from fastconv import backend

    sys.modules["cupy"] = module()
    sys.modules["fastconv._cuda"] = _Gpu(backend.simulator())
