"""NCCL for the stand-in for CuPy, over MPI: each rank is a process whose GPU is the simulator.

Its operations run when somebody waits for their stream; until then results are garbage, as they may be on a GPU.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

import fake_cupy

DTYPES = "bBiIlLqQefd"


class NCCLBackend:
    """The methods of ``cupyx.distributed.NCCLBackend`` that are in use, and what NCCL asks of their arguments."""

    def __init__(
        self, n_devices: int, rank: int, host: str = "127.0.0.1", port: int = 13333, use_mpi: bool = False
    ) -> None:
        from mpi4py import MPI

        self.comm = MPI.COMM_WORLD.Dup()
        assert n_devices == self.comm.Get_size() and rank == self.comm.Get_rank() and use_mpi == (n_devices > 1)
        self.device, self.size, self.rank = fake_cupy.Device.current, n_devices, rank

    def _check(self, array: Any, stream: Any) -> np.ndarray:
        assert isinstance(array, fake_cupy.ndarray) and isinstance(stream, fake_cupy.Stream)
        assert array.flags.c_contiguous and array.dtype.char in DTYPES
        assert array.device.id == fake_cupy.Device.current == self.device
        return array._host()

    def _later(self, stream: Any, out: np.ndarray, compute: Callable[[], np.ndarray]) -> None:
        out.view(np.uint8)[...] = 0xFF

        def finish() -> None:
            out[...] = compute()

        stream.pending.append(finish)

    def all_reduce(self, in_array: Any, out_array: Any, op: str = "sum", stream: Any = None) -> None:
        source, out = self._check(in_array, stream).copy(), self._check(out_array, stream)
        assert op == "sum" and source.shape == out.shape and source.dtype == out.dtype
        self._later(stream, out, lambda: sum(self.comm.allgather(source)).astype(out.dtype))

    def broadcast(self, in_out_array: Any, root: int = 0, stream: Any = None) -> None:
        out = self._check(in_out_array, stream)
        source = out.copy()
        self._later(stream, out, lambda: self.comm.bcast(source, root))

    def all_gather(self, in_array: Any, out_array: Any, count: int, stream: Any = None) -> None:
        source, out = self._check(in_array, stream).copy(), self._check(out_array, stream)
        assert count == source.size and out.size == count * self.size and source.dtype == out.dtype
        self._later(stream, out, lambda: np.concatenate(self.comm.allgather(source)).reshape(out.shape))


def install(available: bool = True) -> None:
    """As `fake_cupy.install`, with one GPU a rank and NCCL."""
    fake_cupy.install()
    nccl: Any = types.ModuleType("cupy.cuda.nccl")
    nccl.available = available
    distributed: Any = types.ModuleType("cupyx.distributed")
    distributed.NCCLBackend = NCCLBackend
    sys.modules |= {"cupy.cuda.nccl": nccl, "cupyx.distributed": distributed}
