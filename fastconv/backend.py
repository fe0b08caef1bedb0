"""Which module computes: the native kernels (``"cpu"``) or the NumPy specification (``"reference"``).

A backend is a module with an agreed list of functions (``conv_forward``, ``max_pool_backward``, ...). `ops` is the
module in use; the functional layer looks it up at every call, so switching needs no more than an assignment. The choice
is global to the process, not to a thread: two threads that need different backends must take turns.

Arrays decide the device: the chosen backend computes NumPy arrays, CuPy's are computed on their GPU (`fastconv.cuda`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from . import cuda
from .cuda import ByDevice, kernels
from .interop import to_numpy


class _FirstUse:
    """Stands in for the default backend, so that `import fastconv` does not load the native module."""

    def __getattr__(self, name: str) -> Any:
        set_backend(_name)
        return getattr(ops, name)


ops: Any = _FirstUse()
_name = "cpu"


def native() -> ModuleType:
    """The native module ``fastconv._cpu``; ImportError that says how to build it where there is none."""
    try:
        if loaded := sys.modules.get("fastconv._cpu"):
            return loaded
        return import_module("fastconv._cpu")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the native module fastconv._cpu is not built ({error}). Build it with `pip install .` in the source tree "
            '(it needs g++ and CMake), or compute with NumPy alone: fastconv.set_backend("reference")'
        ) from error
    except ImportError as error:  # a library that it needs, or an instruction set in FASTCONV_ISA that there is not
        raise ImportError(f"the native module fastconv._cpu could not be loaded: {error}") from error


def simulator() -> ModuleType:
    """The module ``fastconv._cuda_simt``; ImportError that says how to build it where there is none."""
    try:
        return import_module("fastconv._cuda_simt")
    except ImportError as error:
        raise ImportError(
            f"the simulator of the CUDA kernels, fastconv._cuda_simt, is not built ({error}). It is for development: "
            "configure CMake with -DFASTCONV_SIMT=ON"
        ) from error


def _gpu() -> Any:
    """The backend functions for NumPy arrays on the GPU; ImportError that says what is missing where there is none."""
    if reasons := cuda.missing():
        raise ImportError(f'backend "cuda" cannot be used here: {"; ".join(reasons)}')
    from .host_arrays import over

    return over(kernels())


def _load(name: str) -> Any:
    """Import backend `name` and make its instruction set the one in use."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {type(name).__name__}")
    family, _, isa = name.partition(":")
    if name == "reference":
        return import_module("fastconv.reference")
    if name == "cuda:simt":
        return simulator()
    if name == "cuda":
        return _gpu()
    if family == "cpu" and name != "cpu:":
        module = native()
        if not isa or isa in module.available_isas():
            module.set_isa(isa or os.environ.get("FASTCONV_ISA", ""))
            return module
    raise ValueError(f"name must be one of {', '.join(available_backends())}; got {name!r}")


def available_backends() -> tuple[str, ...]:
    """Names that `set_backend` accepts on this machine.

    Returns
    -------
    tuple of str
        ``"reference"`` first; then ``"cpu"`` (the instruction set that ``FASTCONV_ISA`` names, else the best) and one
        ``"cpu:<isa>"`` for each instruction set that this processor runs, where the native module is built;
        ``"cuda:simt"``, the CUDA kernels run on the processor, where that is built (slow: for tests); and ``"cuda"``,
        NumPy arrays copied to the GPU and back in every call, where `fastconv.cuda.is_available` (for tests, too).

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.available_backends()[0]
    'reference'
    """
    names = ["reference"]
    with contextlib.suppress(ImportError):
        names += ["cpu", *(f"cpu:{isa}" for isa in native().available_isas())]
    with contextlib.suppress(ImportError):
        simulator()
        names.append("cuda:simt")
    if cuda.is_available():
        names.append("cuda")
    return tuple(names)


def get_backend() -> str:
    """Name of the backend in use; ``"cpu"`` unless it was changed.

    Examples
    --------
    >>> import fastconv as fc
    >>> with fc.use_backend("reference"):
    ...     fc.get_backend()
    'reference'
    """
    return _name


def set_backend(name: str) -> None:
    """Compute with backend `name` from now on, in all threads of the process.

    Parameters
    ----------
    name : str
        One of `available_backends`.

    Raises
    ------
    ValueError
        Unknown name, or an instruction set that this processor does not have.
    ImportError
        A ``"cpu"`` or ``"cuda"`` name where the native module is not built, or where there is no GPU; the message says
        what is missing and how to get it.

    Examples
    --------
    >>> import fastconv as fc
    >>> before = fc.get_backend()
    >>> fc.set_backend("reference")
    >>> fc.get_backend()
    'reference'
    >>> fc.set_backend(before)
    """
    global ops, _name
    ops, _name = _load(name), name


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[ModuleType]:
    """Context manager: backend `name` inside the block, the previous one after it.

    Parameters
    ----------
    name : str
        One of `available_backends`.

    Yields
    ------
    module
        The backend's module.

    Raises
    ------
    ValueError, ImportError
        As `set_backend`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc, fastconv.nn.functional as F
    >>> x = np.array([[-1.0, 2.0]])
    >>> with fc.use_backend("reference"):
    ...     F.relu(x)
    array([[0., 2.]])
    """
    global ops, _name
    previous = ops, _name
    set_backend(name)
    try:
        yield ops
    finally:
        if isinstance(previous[0], _FirstUse) and name == "reference":
            ops, _name = previous
        else:
            set_backend(previous[1])


def accept_device_arrays(name: str, *kind: str) -> None:
    """Let `ops` compute CuPy arrays beside the host's; `name` and `kind` are what the error message says of them."""
    global ops
    device = kernels(name, *kind)
    if not isinstance(ops, ByDevice):
        ops = ByDevice(ops, device)


def active(array: Any) -> ModuleType:
    """The module that computes for `array` (NumPy, or anything with ``__dlpack__`` in CPU memory).

    Raises
    ------
    TypeError
        Not an array.
    NotImplementedError
        An array on a GPU: those have one backend, `fastconv.cuda.kernels`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> from fastconv import backend
    >>> with fc.use_backend("reference") as module:
    ...     backend.active(np.zeros(3)) is module
    True
    """
    to_numpy(array, "array")
    if isinstance(ops, _FirstUse):
        set_backend(_name)
    return ops
