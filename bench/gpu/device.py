"""The GPU of this process, or in a dry run the simulator in its place."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
import fastconv.cuda

Call = Callable[[], Any]
Arrays = dict[str, Any]

# Written before every call that is timed: more than the L2 cache of any GPU, so that no call finds its arrays there,
# and long enough for the processor to have queued the call before the GPU is ready for it.
_FLUSH_BYTES = 512 << 20
_SECONDS = 0.02  # that the samples of one contestant should take
_SAMPLES = (5, 30)


class Timing(NamedTuple):
    """Milliseconds of one call on the GPU: the median of the samples, and the distance of their quartiles over it."""

    ms: float
    spread: float


class Device:
    """What the stages need of CuPy, torch and the native module.

    Parameters
    ----------
    dry : bool
        The simulator and a stand-in for CuPy (``tests/fake_cupy.py``, which must be on the path); nothing is timed.
    peer : bool
        Whether torch is wanted; `torch` is None where it is not installed, or has no GPU.
    """

    def __init__(self, dry: bool, peer: bool = False) -> None:
        self.dry = dry
        if dry:
            import fake_cupy

            fake_cupy.install()
        else:
            import cupy  # noqa: F401  a message of its own, where it cannot be imported
        fc.set_backend("cpu")
        self.kernels = fastconv.cuda.kernels()
        self.library, self.native = self.kernels.library, self.kernels.module
        self.torch: Any = _torch(dry) if peer else None
        self._flushed: Any = None

    @property
    def name(self) -> str:
        """The GPU's name."""
        if self.dry:
            return "simulator (dry run)"
        name = self.library.cuda.runtime.getDeviceProperties(0)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    def environment(self) -> dict[str, Any]:
        """What the numbers depend on."""
        found = {
            "gpu": self.name,
            "dry": self.dry,
            "fastconv": fc.__version__,
            "driver": self.native.driver_version(),
            "runtime": self.native.runtime_version(),
            "cupy": getattr(self.library, "__version__", "stand-in"),
        }
        if not self.dry:
            properties = self.library.cuda.runtime.getDeviceProperties(0)
            found |= {
                "processors": int(properties["multiProcessorCount"]),
                "L2 bytes": int(properties["l2CacheSize"]),
                "memory bytes": int(properties["totalGlobalMem"]),
            }
        if self.torch is not None:
            found["torch"] = self.torch.__version__
            if self.torch.backends.cudnn.is_available():
                found["cudnn"] = str(self.torch.backends.cudnn.version())
        return found

    def synchronize(self) -> None:
        """Wait for the GPU; an error of an earlier call is raised here."""
        self.library.cuda.get_current_stream().synchronize()

    # ---- arrays ----

    def array(self, values: np.ndarray) -> Any:
        """A device array with the values and strides of a dense host array."""
        memory = self.library.cuda.alloc(max(values.nbytes, 1))
        dense = values.copy(order="K")
        if dense.nbytes:
            memory.copy_from_host(dense.ctypes.data_as(_pointer()), dense.nbytes)
        return self.library.ndarray(values.shape, values.dtype, memptr=memory, strides=dense.strides)

    def host(self, array: Any) -> np.ndarray:
        """A host array with the values and strides of a dense device array."""
        self.synchronize()
        size = math.prod(array.shape) * array.dtype.itemsize
        buffer = np.empty(max(size, 1), np.uint8)
        if size:
            array.data.copy_to_host(buffer.ctypes.data_as(_pointer()), size)
        return np.ndarray(array.shape, array.dtype, buffer, 0, array.strides)

    def normal(self, shape: tuple[int, ...], dtype: np.dtype, last: bool, seed: int) -> Any:
        """A device array of normal numbers, NCHW or channels-last; the same values for both."""
        if self.torch is not None and not self.dry:
            torch = self.torch
            generator = torch.Generator("cuda").manual_seed(seed)
            t = torch.randn(shape, device="cuda", generator=generator).to(_torch_type(torch, dtype))
            return self.of_torch(t.contiguous(memory_format=torch.channels_last) if last and t.ndim == 4 else t, dtype)
        block = np.random.default_rng(seed).standard_normal(min(math.prod(shape), 1 << 20), np.float32)
        values = np.resize(block, shape).astype(dtype)
        if last and values.ndim == 4:
            values = np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 1, -1)), -1, 1)
        return self.array(values)

    def of_torch(self, t: Any, dtype: np.dtype) -> Any:
        """The device array over a tensor's memory."""
        cuda, item = self.library.cuda, t.element_size()
        memory = cuda.UnownedMemory(t.data_ptr(), max(t.numel(), 1) * item, t, 0)
        strides = tuple(step * item for step in t.stride())
        return self.library.ndarray(tuple(t.shape), dtype, memptr=cuda.MemoryPointer(memory, 0), strides=strides)

    def to_torch(self, array: Any) -> Any:
        """The tensor over a device array's memory; in a dry run a copy."""
        torch = self.torch
        if self.dry:
            values = self.host(array)
            if values.dtype.name == "bfloat16":
                return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
            return torch.from_numpy(values)
        item = array.dtype.itemsize
        words = {1: "|u1", 2: "<i2", 4: "<i4", 8: "<i8"}[item]
        interface = {
            "shape": tuple(array.shape),
            "strides": tuple(array.strides),
            "typestr": words,
            "data": (array.data.ptr, False),
            "version": 3,
        }
        holder = type("Holder", (), {"__cuda_array_interface__": interface, "array": array})()
        return torch.as_tensor(holder, device="cuda").view(_torch_type(torch, array.dtype))

    # ---- time ----

    def time(self, calls: Mapping[str, Call]) -> dict[str, Timing | None]:
        """Time every call, in turns, each with cold caches; in a dry run make each call once and time nothing."""
        if self.dry:
            for call in calls.values():
                call()
            return dict.fromkeys(calls)
        cuda = self.library.cuda
        if self._flushed is None:
            self._flushed = cuda.alloc(_FLUSH_BYTES)

        def sample(call: Call) -> tuple[Any, Any]:
            self._flushed.memset_async(0, _FLUSH_BYTES)
            before, after = cuda.Event(), cuda.Event()
            before.record()
            call()
            after.record()
            return before, after

        counts = {}
        for name, call in calls.items():
            for _ in range(3):
                ends = sample(call)
            self.synchronize()
            seconds = max(cuda.get_elapsed_time(*ends) / 1e3, 1e-6)
            counts[name] = min(max(int(_SECONDS / seconds), _SAMPLES[0]), _SAMPLES[1])
        taken: dict[str, list[tuple[Any, Any]]] = {name: [] for name in calls}
        for i in range(max(counts.values(), default=0)):
            for name, call in calls.items():
                if i < counts[name]:
                    taken[name].append(sample(call))
        self.synchronize()
        return {name: _timing([cuda.get_elapsed_time(*ends) for ends in pairs]) for name, pairs in taken.items()}


def _timing(samples: list[float]) -> Timing:
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(float(f"{middle:.6g}"), float(f"{(high - low) / middle:.3g}"))


def _pointer() -> Any:
    import ctypes

    return ctypes.c_void_p


def _torch(dry: bool) -> Any:
    try:
        import torch
    except ImportError:
        return None
    if not dry and not torch.cuda.is_available():
        return None
    torch.backends.cudnn.benchmark = True
    torch.set_grad_enabled(False)
    return torch


def _torch_type(torch: Any, dtype: np.dtype) -> Any:
    return getattr(torch, np.dtype(dtype).name)


def describe(dry: bool) -> int:
    """Print the environment as JSON: what the program asks a process of its own before it begins."""
    import json

    json.dump(Device(dry, peer=True).environment(), sys.stdout)
    return 0
