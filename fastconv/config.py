"""Threads, precision and the report of what this installation computes with."""

from __future__ import annotations

import contextlib
import numbers
import platform
from collections.abc import Iterator
from typing import Any

import numpy as np

from .backend import available_backends, get_backend, native

_PRECISIONS = ("highest", "high", "medium")
_MOST_THREADS = 4095  # the native module's limit


def set_num_threads(n: int) -> None:
    """Let the native kernels use `n` threads, in the whole process. Results do not depend on it.

    Threads are started when they are first needed, and sleep between calls. A call begins without those that have yet
    to wake up, and ends without those that have not come.

    Parameters
    ----------
    n : int
        At least 1. The default is the smallest of the processor affinity, the cgroup quota and ``OMP_NUM_THREADS``.

    Raises
    ------
    TypeError, ValueError
        `n` is not an integer, below 1 or above 4095.
    ImportError
        The native module is not built.

    Examples
    --------
    >>> import fastconv as fc
    >>> before = fc.get_num_threads()
    >>> fc.set_num_threads(1)
    >>> fc.get_num_threads()
    1
    >>> fc.set_num_threads(before)
    """
    if not isinstance(n, numbers.Integral) or isinstance(n, bool):
        raise TypeError(f"n must be an int, got {type(n).__name__}")
    if not 1 <= n <= _MOST_THREADS:
        raise ValueError(f"n must be from 1 to {_MOST_THREADS}, got {n}")
    native().set_num_threads(int(n))


def get_num_threads() -> int:
    """Number of threads that the native kernels use.

    Raises
    ------
    ImportError
        The native module is not built.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.get_num_threads() >= 1
    True
    """
    return native().get_num_threads()


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Context manager: `n` threads inside the block, as before after it.

    Parameters
    ----------
    n : int
        As for `set_num_threads`, with the same errors.

    Examples
    --------
    >>> import fastconv as fc
    >>> with fc.num_threads(1):
    ...     fc.get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def set_float32_precision(precision: str) -> None:
    """How exactly float32 products are computed; the words of torch.set_float32_matmul_precision.

    Parameters
    ----------
    precision : {"highest", "high", "medium"}
        ``"highest"`` (the default): the rounding class of a float32 FMA loop. ``"high"``: errors of about 1e-5 of the
        magnitude, which is the operation on absolute values. ``"medium"``: inputs rounded to bfloat16. A kernel may
        compute more exactly than asked.

        3x3 and 5x5 convolutions with stride 1 take Winograd's minimal filtering, in tiles of up to 4x4 outputs: under
        ``"highest"`` only where the sums are long enough for its errors (root mean square) to be about those of the
        loop or smaller. An output shares them with the others of its tile: the magnitude is the largest among those
        computed together, and sums of integers, whose products a loop adds exactly, may be off by such an error.
        `fastconv.explain` shows the choice.

    Raises
    ------
    ValueError
        Another word.
    ImportError
        The native module is not built.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.set_float32_precision("highest")
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(_PRECISIONS)}; got {precision!r}")
    native().set_float32_precision(precision)


def get_float32_precision() -> str:
    """The word given to `set_float32_precision`; ``"highest"`` unless it was changed.

    Raises
    ------
    ImportError
        The native module is not built.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.get_float32_precision()
    'highest'
    """
    return native().get_float32_precision()


def configuration() -> dict[str, Any]:
    """What `show_config` prints, as a dictionary of plain values.

    Examples
    --------
    >>> from fastconv.config import configuration
    >>> configuration()["backends"][0]
    'reference'
    """
    from . import __version__

    report: dict[str, Any] = {
        "fastconv": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "backend": get_backend(),
        "backends": list(available_backends()),
    }
    try:
        module = native()
    except ImportError as error:
        return report | {"native module": str(error)}
    return report | {
        "isa": module.isa(),
        "isas": list(module.available_isas()),
        "float32 precision": module.get_float32_precision(),
        "threads": module.thread_info(),
        "build": module.build_info(),
    }


def show_config() -> None:
    """Print versions, backend, instruction set, threads and the reasons for them: what a bug report needs.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.show_config()                     # doctest: +ELLIPSIS
    fastconv: 0.1.0
    ...
    """
    for key, value in configuration().items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, text in value.items():
                print(f"  {inner}: {text}")
        else:
            print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
