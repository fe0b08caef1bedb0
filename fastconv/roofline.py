"""The two ceilings of this machine, measured: how fast it multiplies and how fast it copies.

Both are measured in a fraction of a second, once a process. The FMA peak is that of the native module's tiles of
sums with their operands in the L1 cache or, where that is higher or there is no native module, of 1024 x 1024 matrix
products in NumPy's BLAS, which does not know every processor's vector units; matrix units (AMX) may go beyond it. The
bandwidth is that of copying an array far larger than the caches with one thread a core, bytes read plus bytes
written. Both are lower limits of what the hardware can do, so an operation may reach a few percent more than 100 %.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from . import backend

__all__ = ["Ceilings", "measure"]

_SIDE = 1024
_COPY_BYTES = 96 << 20


class Ceilings(NamedTuple):
    """What the machine can do in a second.

    Attributes
    ----------
    flops : float
        Multiplications and additions.
    bandwidth : float
        Bytes copied, read and written counted both.

    Examples
    --------
    >>> from fastconv.roofline import Ceilings
    >>> Ceilings(flops=1e11, bandwidth=1e10).bound(flops=1e9, transferred=1e6)
    (0.01, 'compute')
    """

    flops: float
    bandwidth: float

    def bound(self, flops: float, transferred: float) -> tuple[float, str]:
        """Shortest time for this work in seconds, and which ceiling sets it: "compute" or "memory"."""
        compute, memory = flops / self.flops, transferred / self.bandwidth
        return (compute, "compute") if compute > memory else (memory, "memory")


@functools.lru_cache(maxsize=2)
def measure(dtype: str = "float32") -> Ceilings:
    """Measure FMA peak and copy bandwidth.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        float16 and bfloat16 are computed in float32 and share its peak.

    Returns
    -------
    Ceilings

    Raises
    ------
    ValueError
        For another dtype.

    Examples
    --------
    >>> from fastconv.roofline import measure
    >>> measure().flops > 1e8 and measure().bandwidth > 1e8
    True
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    return Ceilings(_peak(np.dtype(dtype)), _bandwidth())


def _peak(dtype: np.dtype) -> float:
    a = np.full((_SIDE, _SIDE), 0.5, dtype)
    out = np.empty_like(a)
    products = 2.0 * _SIDE**3 / _best_seconds(lambda: np.matmul(a, a, out=out))
    try:
        return max(products, backend.native().fma_peak(dtype == np.float64))
    except ImportError:
        return products


def _bandwidth() -> float:
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    source = np.zeros(_COPY_BYTES, np.uint8)
    source[:] = 1  # a page that was never written is not read from memory
    target = np.empty_like(source)
    parts = [slice(i * _COPY_BYTES // threads, (i + 1) * _COPY_BYTES // threads) for i in range(threads)]

    def copy(part: slice) -> None:
        np.copyto(target[part], source[part])  # releases the interpreter lock

    with ThreadPoolExecutor(threads) as pool:
        best = _best_seconds(lambda: list(pool.map(copy, parts)))
    return 2.0 * _COPY_BYTES / best


def _best_seconds(action: Callable[[], Any]) -> float:
    """The shortest of the runs that fit into a fifth of a second, at least four."""
    times: list[float] = []
    while len(times) < 4 or sum(times) < 0.2:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)
