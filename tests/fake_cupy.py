"""CuPy over host memory: with the simulator it is a GPU for the tests.

Its arrays are no NumPy arrays and refuse what CuPy's refuse: to become NumPy arrays on their own, to be mixed with
NumPy arrays, generalised ufuncs and methods of ufuncs called through NumPy, arguments that CuPy's functions lack. So
code that takes them for NumPy's fails here as it would there. Its functions are a subset of CuPy's (`test_fake_cupy`
compares them where CuPy is installed).
"""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

LIMIT = 1 << 30
DEVICES = 4

# What CuPy 14 calls the parameters of the functions that exist here.
SIGNATURES = {
    "any": "a axis out keepdims",
    "all": "a axis out keepdims",
    "argmax": "a axis dtype out keepdims",
    "argmin": "a axis dtype out keepdims",
    "argsort": "a axis kind",
    "array_equal": "a1 a2 equal_nan",
    "ascontiguousarray": "a dtype",
    "atleast_1d": "*arys",
    "broadcast_arrays": "*args",
    "broadcast_to": "array shape",
    "clip": "a a_min a_max out",
    "concatenate": "tup axis out dtype casting",
    "copyto": "dst src casting where",
    "cumprod": "a axis dtype out",
    "cumsum": "a axis dtype out",
    "empty_like": "prototype dtype order subok shape",
    "expand_dims": "a axis",
    "flip": "a axis",
    "full_like": "a fill_value dtype order subok shape",
    "max": "a axis out keepdims",
    "mean": "a axis dtype out keepdims",
    "min": "a axis out keepdims",
    "moveaxis": "a source destination",
    "ones_like": "a dtype order subok shape",
    "pad": "array pad_width mode **kwargs",
    "prod": "a axis dtype out keepdims",
    "roll": "a shift axis",
    "round": "a decimals out",
    "shape": "a",
    "split": "ary indices_or_sections axis",
    "squeeze": "a axis",
    "stack": "tup axis out dtype casting",
    "sum": "a axis dtype out keepdims",
    "take": "a indices axis out",
    "take_along_axis": "a indices axis",
    "tensordot": "a b axes",
    "tile": "A reps",
    "transpose": "a axes",
    "tril": "m k",
    "triu": "m k",
    "where": "condition x y",
    "zeros_like": "a dtype order subok shape",
}
# Those that make arrays; in place of the array they take shapes and numbers.
CREATION = {
    "arange": "start stop step dtype",
    "empty": "shape dtype order",
    "eye": "N M k dtype order",
    "full": "shape fill_value dtype order",
    "ones": "shape dtype order",
    "tri": "N M k dtype",
    "zeros": "shape dtype order",
}
UFUNCS = {
    *("absolute", "add", "bitwise_and", "bitwise_or", "divide", "equal", "exp", "floor_divide", "greater"),
    *("greater_equal", "invert", "isfinite", "isnan", "less", "less_equal", "log", "log1p", "logaddexp", "maximum"),
    *("minimum", "multiply", "negative", "not_equal", "power", "remainder", "sign", "sqrt", "square", "subtract"),
    *("copysign", "cos", "cosh", "expm1", "floor", "isinf", "logical_and", "logical_not", "logical_or", "positive"),
    *("reciprocal", "rint", "sin", "sinh", "tanh", "ceil", "trunc", "log2", "log10", "tan", "fmod", "logical_xor"),
    *("arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "hypot"),
}


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
        self.ptr, self.size = self.buffer.ctypes.data, size
        Memory.alive += 1

    def __del__(self) -> None:
        Memory.alive -= 1


def alloc(size: int) -> MemoryPointer:
    if size > LIMIT:
        raise MemoryError(f"out of memory allocating {size} bytes")
    return MemoryPointer(Memory(size), 0)


class Device:
    current = 0

    def __init__(self, id: int | None = None) -> None:
        self.id = Device.current if id is None else id

    def __enter__(self) -> None:
        self.before, Device.current = Device.current, self.id

    def __exit__(self, *error: Any) -> None:
        Device.current = self.before


class Event:
    """The work of a stream up to here."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.work = stream, len(stream.pending)

    @property
    def done(self) -> bool:
        return self.work == 0

    def finish(self) -> None:
        while self.work:
            self.stream.work_off()


class Stream:
    """The null stream does its work at once; another one, as late as it may: when somebody waits for it."""

    ptr = 0

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.pending: list[Callable[[], None]] = []
        self.events: list[Event] = []

    def work_off(self) -> None:
        self.pending.pop(0)()
        for event in self.events:
            event.work = max(event.work - 1, 0)

    def record(self, event: Event | None = None) -> Event:
        assert event is None
        self.events.append(Event(self))
        return self.events[-1]

    def wait_event(self, event: Event) -> None:
        event.finish()

    def synchronize(self) -> None:
        while self.pending:
            self.work_off()


class Reads:
    """How often the host read values of the device, which waits for it."""

    count = 0


class Flags:
    """What CuPy's flags tell; there is no ``writeable``."""

    def __init__(self, array: ndarray) -> None:
        host = array._host().flags
        self.c_contiguous, self.f_contiguous, self.owndata = host.c_contiguous, host.f_contiguous, array.base is None


def _numpy(value: Any) -> Any:
    """What NumPy computes with; no arrays of its own."""
    if isinstance(value, ndarray):
        return value._host()
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(map(_numpy, value))
    return value


def _device(result: Any, given: tuple[Any, ...] = ()) -> Any:
    """`result` on the device: a view where it is one of the arrays `given`."""
    if isinstance(result, tuple | list):
        return type(result)(_device(part, given) for part in result)
    if not isinstance(result, np.ndarray | np.generic):
        return result
    if isinstance(result, np.ndarray):
        for array in given:
            if isinstance(array, ndarray):
                if array._holds(result):
                    return array._like(result)
            elif isinstance(array, tuple | list):
                for part in array:
                    if isinstance(part, ndarray) and part._holds(result):
                        return part._like(result)
    return _copy(np.asarray(result))


class ndarray:
    __module__ = "cupy"

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: MemoryPointer | None = None,
        strides: Any = None,
        device: int | None = None,
    ) -> None:
        dtype = np.dtype(dtype)
        self.shape, self.dtype, self.ndim = tuple(shape), dtype, len(shape)
        self.size = int(np.prod(self.shape))
        self.itemsize, self.nbytes = dtype.itemsize, self.size * dtype.itemsize
        self.data = alloc(max(self.nbytes, 1)) if memptr is None else memptr
        self.device = Device(Device.current if device is None else device)
        self.strides = np.empty(shape, dtype).strides if strides is None else tuple(strides)
        self.base: ndarray | None = None

    def _host(self) -> np.ndarray:
        """The elements."""
        reach = [(n - 1) * step for n, step in zip(self.shape, self.strides)] if 0 not in self.shape else [0]
        low = sum(r for r in reach if r < 0)
        size = sum(r for r in reach if r > 0) - low + self.dtype.itemsize
        buffer = (ctypes.c_char * size).from_address(self.data.ptr + low)
        return np.ndarray(self.shape, self.dtype, buffer, -low, self.strides)

    def _holds(self, view: np.ndarray) -> bool:
        memory = self.data
        while isinstance(memory, MemoryPointer):
            memory = memory.mem
        return memory.ptr <= view.ctypes.data < memory.ptr + max(memory.size, 1)

    def _like(self, view: np.ndarray) -> ndarray:
        offset = view.ctypes.data - self.data.ptr
        result = ndarray(view.shape, view.dtype, MemoryPointer(self.data, offset), view.strides, self.device.id)
        result.base = self if self.base is None else self.base
        return result

    # ---- what CuPy refuses ----

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or ufunc.signature is not None or ufunc.__name__ not in UFUNCS:
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        return _ufunc(ufunc)(*inputs, **kwargs)

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        own = _functions().get(function.__name__)
        if own is None or any(kind not in (ndarray, np.ndarray) for kind in kinds):
            return NotImplemented
        return own(*args, **kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device.id

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("CuPy's arrays need not be exported")

    # ---- values ----

    def get(self, stream: Any = None, order: str = "C") -> np.ndarray:
        Reads.count += 1
        return self._host().copy(order=order)

    def item(self) -> Any:
        Reads.count += 1
        return self._host().item()

    def tolist(self) -> Any:
        Reads.count += 1
        return self._host().tolist()

    def __bool__(self) -> bool:
        Reads.count += 1
        return bool(self._host())

    def __float__(self) -> float:
        Reads.count += 1
        return float(self._host())

    def __int__(self) -> int:
        Reads.count += 1
        return int(self._host())

    __index__ = __int__
    __hash__ = None

    def __deepcopy__(self, memo: Any) -> ndarray:
        with self.device:
            return self.copy()

    def __len__(self) -> int:
        return len(self._host())

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return repr(self._host())

    # ---- parts and shapes ----

    def __getitem__(self, key: Any) -> ndarray:
        keys = key if isinstance(key, tuple) else (key,)
        Reads.count += any(isinstance(k, ndarray) and k.dtype == bool for k in keys)
        return _device(self._host()[tuple(_numpy(k) for k in keys)], (self,))

    def __setitem__(self, key: Any, value: Any) -> None:
        keys = key if isinstance(key, tuple) else (key,)
        self._host()[tuple(_numpy(k) for k in keys)] = _numpy(value)

    T = property(lambda self: self.transpose())
    flags = property(Flags)

    def reshape(self, *shape: Any) -> ndarray:
        return _device(self._host().reshape(*shape), (self,))

    def transpose(self, *axes: Any) -> ndarray:
        return _device(self._host().transpose(*axes), (self,))

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        return _device(self._host().swapaxes(axis1, axis2), (self,))

    def squeeze(self, axis: Any = None) -> ndarray:
        return _device(self._host().squeeze(axis), (self,))

    def ravel(self, order: str = "C") -> ndarray:
        return _device(self._host().ravel(order), (self,))

    def view(self, dtype: Any) -> ndarray:
        return _device(self._host().view(dtype), (self,))

    def copy(self, order: str = "C") -> ndarray:
        return _copy(self._host().copy(order=order))

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        if not copy and self.dtype == dtype:
            return self
        return _copy(self._host().astype(dtype, order=order))

    def fill(self, value: Any) -> None:
        self._host().fill(_numpy(value))

    def set(self, values: np.ndarray) -> None:
        assert isinstance(values, np.ndarray) and values.shape == self.shape and values.dtype == self.dtype
        self._host()[...] = values

    def take(self, indices: Any, axis: int | None = None, out: Any = None) -> ndarray:
        return _device(self._host().take(_numpy(indices), axis))

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _device(self._host().sum(axis, dtype, keepdims=keepdims))

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _device(self._host().max(axis, keepdims=keepdims))

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _device(self._host().min(axis, keepdims=keepdims))

    def mean(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _device(self._host().mean(axis, dtype, keepdims=keepdims))

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _device(self._host().any(axis, keepdims=keepdims))

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _device(self._host().all(axis, keepdims=keepdims))

    def argmax(self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False) -> ndarray:
        return _device(self._host().argmax(axis, keepdims=keepdims))

    def __matmul__(self, other: Any) -> ndarray:
        return _device(np.matmul(self._host(), _numpy(other)))


def _operator(name: str, ufunc: Any) -> None:
    def binary(self: ndarray, other: Any) -> Any:
        return _ufunc(ufunc)(self, other)

    def reflected(self: ndarray, other: Any) -> Any:
        return _ufunc(ufunc)(other, self)

    def inplace(self: ndarray, other: Any) -> Any:
        return _ufunc(ufunc)(self, other, out=self)

    setattr(ndarray, f"__{name}__", binary)
    setattr(ndarray, f"__r{name}__", reflected)
    setattr(ndarray, f"__i{name}__", inplace)


for _name, _function in {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
}.items():
    _operator(_name, _function)
for _name, _function in {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}.items():
    setattr(ndarray, f"__{_name}__", lambda self, other, f=_function: _ufunc(f)(self, other))
for _name, _function in {"neg": np.negative, "abs": np.absolute, "invert": np.invert}.items():
    setattr(ndarray, f"__{_name}__", lambda self, f=_function: _ufunc(f)(self))


def _ufunc(ufunc: Any) -> Callable[..., Any]:
    def call(*inputs: Any, out: ndarray | None = None, dtype: Any = None) -> Any:
        options: Any = {} if dtype is None else {"dtype": dtype}
        with np.errstate(all="ignore"):  # a GPU warns of nothing
            if out is None:
                return _device(ufunc(*map(_numpy, inputs), **options))
            ufunc(*map(_numpy, inputs), out=_numpy(out), **options)
        return out

    return call


def _like_cupys(name: str, parameters: str, makes: bool) -> Callable[..., Any]:
    names = parameters.split()
    function = getattr(np, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not any(p.startswith("**") for p in names):
            unknown = set(kwargs) - set(names)
            if unknown or (len(args) > len(names) and not names[0].startswith("*")):
                raise TypeError(f"{name}() got an unexpected argument {sorted(unknown) or args}")
        with np.errstate(all="ignore"):
            result = function(*map(_numpy, args), **{key: _numpy(value) for key, value in kwargs.items()})
        return _device(result, () if makes else (*args, *kwargs.values()))

    return call


def _copy(values: np.ndarray, device: int | None = None) -> ndarray:
    """A "device" copy with the strides of `values` where these are dense."""
    dense = values.copy(order="K")
    result = ndarray(dense.shape, dense.dtype, alloc(max(dense.nbytes, 1)), dense.strides, device)
    result._host()[...] = dense
    return result


def asarray(a: Any, dtype: Any = None, order: str | None = None, device: int | None = None) -> ndarray:
    """CuPy's; with `device`, which CuPy lacks, on that one."""
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    return _copy(np.array(a, dtype, order=order or "K"), device)


def asnumpy(a: Any, stream: Any = None, order: str = "K") -> np.ndarray:
    return a._host().copy(order="K") if isinstance(a, ndarray) else np.asarray(a)


def from_dlpack(array: Any) -> ndarray:
    """Over the memory of an object of the tests: its ``__dlpack__`` gives the array of this module itself."""
    result: ndarray = array.__dlpack__()
    return result


class _Add:
    """``cupy.add`` with its method `at`."""

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return _ufunc(np.add)(*inputs, **options)

    def at(self, a: ndarray, indices: Any, b: Any) -> None:
        np.add.at(a._host(), _numpy(indices), _numpy(b))


def _functions() -> dict[str, Callable[..., Any]]:
    return {
        **{name: _like_cupys(name, parameters, False) for name, parameters in SIGNATURES.items()},
        **{name: _like_cupys(name, parameters, True) for name, parameters in CREATION.items()},
        **{name: _ufunc(getattr(np, name)) for name in UFUNCS},
        "add": _Add(),
        "asarray": asarray,
        "asnumpy": asnumpy,
        "from_dlpack": from_dlpack,
    }


def module() -> types.ModuleType:
    """The fake as a module named cupy."""
    fake: Any = types.ModuleType("cupy")
    fake.ndarray = ndarray
    for name, function in _functions().items():
        setattr(fake, name, function)
    fake.cuda = types.SimpleNamespace(
        alloc=alloc,
        UnownedMemory=UnownedMemory,
        MemoryPointer=MemoryPointer,
        Device=Device,
        Stream=Stream,
        get_current_stream=Stream,
        runtime=types.SimpleNamespace(getDeviceCount=lambda: DEVICES),
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
