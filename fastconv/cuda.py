"""CuPy arrays on NVIDIA GPUs: whether they can be used here, and the backend functions for them.

A CuPy array given to a function of `fastconv.nn.functional` that has kernels (convolution, linear, pooling,
normalisation, the ReLU family), or to its ``.vjp``, is computed on its GPU, on CuPy's current stream, and gives CuPy
arrays whose memory comes from CuPy's pool. Nothing waits for the GPU.

Three things are needed, and `is_available` is true where all are there: the native module ``fastconv._cuda``, CuPy, and
a GPU with its driver. `show_config` says which is missing and how to get it. Importing this module
touches none of them.

>>> import fastconv.cuda
>>> fastconv.cuda.device_count() >= 0
True
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["Kernels", "device_count", "is_available", "is_device_array", "kernels", "missing", "show_config"]

# Endings of the backend functions that take arrays.
FUNCTIONS = ("_forward", "_input", "_weight", "_bias", "_backward")

_HOW_TO_BUILD = (
    "the native module fastconv._cuda is not built: with the CUDA toolkit's nvcc (13.0) on the machine, "
    "`pip install . -C cmake.define.FASTCONV_CUDA=ON` in the source tree"
)
_HOW_TO_GET_CUPY = "CuPy is not installed: `pip install cupy-cuda13x`"


def _native() -> ModuleType | None:
    try:
        return import_module("fastconv._cuda")
    except ImportError:
        return None


def is_device_array(array: Any) -> bool:
    """Whether `array` is a CuPy array.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.cuda import is_device_array
    >>> is_device_array(np.zeros(3))
    False
    """
    kind = type(array)
    return kind.__module__.partition(".")[0] == "cupy" and kind.__name__ == "ndarray"


def missing() -> list[str]:
    """What keeps CuPy arrays from being computed here: one sentence each, with how to get it; empty where nothing does.

    Examples
    --------
    >>> from fastconv.cuda import is_available, missing
    >>> is_available() == (not missing())
    True
    """
    reasons = []
    native = _native()
    if native is None:
        reasons.append(_HOW_TO_BUILD)
    if "cupy" not in sys.modules and find_spec("cupy") is None:
        reasons.append(_HOW_TO_GET_CUPY)
    if native is not None and native.device_count() == 0:
        reasons.append(
            f"no GPU answers (driver: CUDA {native.driver_version()}, needed: {native.runtime_version()}): "
            "`nvidia-smi` must list one"
        )
    return reasons


def is_available() -> bool:
    """Whether CuPy arrays can be computed: the native module, CuPy, and a GPU with its driver are there.

    Examples
    --------
    >>> import fastconv.cuda
    >>> fastconv.cuda.is_available() in (True, False)
    True
    """
    return not missing()


def device_count() -> int:
    """Number of GPUs that the native module sees; 0 without the module, a driver or a GPU.

    Examples
    --------
    >>> import fastconv.cuda
    >>> fastconv.cuda.device_count() >= 0
    True
    """
    native = _native()
    return 0 if native is None else native.device_count()


def show_config() -> None:
    """Print what is there for CuPy arrays, and what is missing.

    Examples
    --------
    >>> import fastconv.cuda
    >>> fastconv.cuda.show_config()  # doctest: +ELLIPSIS
    CUDA: ...
    """
    reasons = missing()
    print("CUDA:", "not available" if reasons else "available")
    for reason in reasons:
        print(f"  {reason}")
    native = _native()
    if native is not None:
        print(f"  runtime {native.runtime_version()}, driver {native.driver_version()}, {device_count()} GPUs")


class Kernels:
    """The backend functions over the arrays of one library.

    The native module knows NumPy arrays alone. It is given NumPy views of device addresses, which nobody reads: outputs
    and scratch come from `allocate`, and what moves bytes comes back to `copy` and `zero`.

    Parameters
    ----------
    native : module
        ``fastconv._cuda``.
    library : module
        CuPy, or what behaves like it.

    Raises
    ------
    ValueError
        In every function: arrays of different devices, NumPy and CuPy arrays in one call among them, and what the
        backend functions refuse anyway.
    """

    def __init__(self, native: Any, library: Any) -> None:
        self.module, self.library = native, library
        native.set_array_library(self)

    # ---- called by the native module ----

    def allocate(self, size: int) -> tuple[int, Any]:
        """Address and owner of `size` bytes of the library's pool."""
        pointer = self.library.cuda.alloc(size)
        return pointer.ptr, pointer

    def copy(self, to: np.ndarray, source: np.ndarray) -> None:
        """Copy between views of device memory; `source` broadcasts."""
        if to.dtype == source.dtype:  # only bits move: CuPy need not know bfloat16's copies
            to, source = (a.view(f"u{a.itemsize}") for a in (to, source))
        target = self._borrowed(to)
        target[...] = self._borrowed(source)

    def zero(self, array: np.ndarray) -> None:
        """Fill a view of device memory with zeros."""
        self._borrowed(array.view(f"u{array.itemsize}"))[...] = 0

    # ---- views ----

    def _view(self, array: Any) -> np.ndarray:
        """A NumPy array with the address, shape, strides and dtype of `array`, whose elements must not be touched."""
        return _ndarray(array.data.ptr, array.shape, array.strides, array.dtype)

    def _borrowed(self, view: np.ndarray) -> Any:
        """The library's array over the memory of `view`."""
        low, size = span(view.ctypes.data, view.shape, view.strides, view.itemsize)
        cuda = self.library.cuda
        memory = cuda.UnownedMemory(low, size, view)
        pointer = cuda.MemoryPointer(memory, view.ctypes.data - low)
        return self.library.ndarray(view.shape, view.dtype, memptr=pointer, strides=view.strides)

    def _owned(self, view: np.ndarray) -> Any:
        """The library's array over an output."""
        owner = self.module.owner_of(view.ctypes.data)
        return self.library.ndarray(view.shape, view.dtype, memptr=owner, strides=view.strides)

    # ---- the functions ----

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        function = getattr(self.module, name)

        def call(*arguments: Any, **named: Any) -> Any:
            return self.call(name, function, arguments, named)

        call.__name__ = name
        setattr(self, name, call)
        return call

    def call(
        self,
        name: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        read_only: tuple[Any, ...] = (),
    ) -> Any:
        """Call a function of the native module; arrays in `read_only` are refused where it would write to them."""
        everything = list(leaves((*arguments, *named.values())))
        arrays = [a for a in everything if is_device_array(a)]
        devices = sorted({a.device.id for a in arrays})
        if len(devices) > 1:
            raise ValueError(f"{name}: all arrays must be on one device, got arrays on devices {devices}")
        for a in everything:
            if isinstance(a, np.ndarray) and (a.ndim > 1 or a.dtype.kind not in "iu"):  # a row of sizes may be one
                raise ValueError(f"{name}: all arrays must be CuPy arrays where one of them is, got a numpy.ndarray")
        views = {id(a): self._view(a) for a in arrays}
        for a in read_only:
            views[id(a)].flags.writeable = False
        cuda = self.library.cuda
        given = {id(views[id(a)]): a for a in arrays}

        def view(a: Any) -> Any:
            return replaced(a, views)

        def back(result: Any) -> Any:
            return given[id(result)] if id(result) in given else self._owned(result)

        with cuda.Device(devices[0]):
            self.module.set_stream(cuda.get_current_stream().ptr)
            try:
                results = function(*map(view, arguments), **{key: view(a) for key, a in named.items()})
            except RuntimeError as error:  # of a launch
                shapes = ", ".join(f"{a.dtype.name} {tuple(a.shape)}" for a in arrays)
                raise RuntimeError(f"{name} of {shapes}: {error}") from error
            return tuple(map(back, results)) if isinstance(results, tuple) else back(results)


def replaced(value: Any, substitutes: dict[int, Any]) -> Any:
    """`value`, or what it holds where it is a list or tuple (the stages of a chain), with substitutes by id."""
    if isinstance(value, list | tuple):
        return type(value)([replaced(each, substitutes) for each in value])
    return substitutes.get(id(value), value)


def leaves(values: Any) -> Iterator[Any]:
    """What lists and tuples hold, at any depth."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from leaves(value)
        else:
            yield value


def span(address: int, shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> tuple[int, int]:
    """Lowest address of an array's elements, and the bytes from there to the end of the highest."""
    if 0 in shape:
        return address, 1
    reach = [(n - 1) * step for n, step in zip(shape, strides)]
    low = sum(r for r in reach if r < 0)
    return address + low, sum(r for r in reach if r > 0) - low + item


def _ndarray(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> np.ndarray:
    low, size = span(address, shape, strides, np.dtype(dtype).itemsize)
    buffer: Any = (ctypes.c_char * size).from_address(low)
    return np.ndarray(shape, dtype, buffer, address - low, strides)


_kernels: Kernels | None = None
_lock = threading.Lock()


def kernels(name: str = "array", kind: str = " is a CuPy array, which") -> Kernels:
    """The backend functions for CuPy arrays.

    Parameters
    ----------
    name, kind : str
        What the error message calls the array that needs them.

    Raises
    ------
    NotImplementedError
        They cannot be used here; the message says what is missing and how to get it.

    Examples
    --------
    >>> import fastconv.cuda
    >>> if fastconv.cuda.is_available():
    ...     functions = fastconv.cuda.kernels()
    """
    global _kernels
    with _lock:
        if _kernels is None:
            reasons = missing()
            if reasons:
                raise NotImplementedError(
                    f"{name}{kind} cannot be computed here: {'; '.join(reasons)}. Or stay on the host: cupy.asnumpy(x)"
                )
            _kernels = Kernels(_native(), import_module("cupy"))
        return _kernels


class ByDevice:
    """Backend functions that choose by their arrays: CuPy's go to the GPU, all others to the host's backend."""

    def __init__(self, host: Any, device: Kernels) -> None:
        self._host, self._device = host, device

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if not name.endswith(FUNCTIONS):
            return getattr(self._host, name)

        def call(*arguments: Any) -> Any:
            return getattr(self._device if any(map(is_device_array, arguments)) else self._host, name)(*arguments)

        setattr(self, name, call)
        return call
