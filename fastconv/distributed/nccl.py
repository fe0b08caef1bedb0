"""The communicator for CuPy arrays: NCCL through ``cupyx.distributed``, beside MPI for everything in the host's memory.

NCCL works on a stream of its own, which waits for what was computed so far and which later work waits for: sums run
while the backward pass goes on, and nothing waits on the host. What the ranks tell each other beside gradients, who
they are and whether they still live, goes through the communicator of the processes.
"""

from __future__ import annotations

import socket
from importlib import import_module
from typing import Any

import numpy as np

from ..cuda import is_device_array
from ..devices import device_of, parse
from .communicator import Communicator, Work, bytes_of, check_root, world

__all__ = ["NCCLCommunicator"]

_REDUCIBLE = ("float16", "float32", "float64", "int64")


class NCCLCommunicator(Communicator):
    """A group of ranks with one GPU each: CuPy arrays go through NCCL, NumPy arrays through another communicator.

    Parameters
    ----------
    processes : Communicator, optional
        The ranks themselves: all that mpiexec started (:func:`fastconv.distributed.world`) by default.
    device : int or str, optional
        The GPU of this rank, such as 1 or ``"cuda:1"``. By default the ranks of one machine take its GPUs in turn.

    Attributes
    ----------
    rank, size : int
        Those of `processes`.
    device : str
        ``"cuda:N"``.

    Raises
    ------
    NotImplementedError
        CuPy arrays cannot be computed here; the message says what is missing.
    ImportError
        CuPy finds no NCCL.
    ValueError
        `device` is no GPU of this machine, or the ranks of one machine do not have a GPU each.

    Notes
    -----
    The methods take arrays on `device` and return before the GPU has done its work; CuPy's current stream waits for the
    result. An array must be contiguous. The order of a sum is NCCL's: the same on all ranks, and in practice the same
    from run to run on the same machines, but it follows from their number and wiring, where MPI's sums are taken in the
    order of the ranks. A rank that dies ends the job through MPI; NCCL itself would wait for it for ever.
    Source: https://docs.nvidia.com/deeplearning/nccl and CuPy's ``cupyx.distributed.NCCLBackend``.

    Examples
    --------
    Started as ``mpiexec -n 2 python train.py`` on a machine with two GPUs:

    >>> import fastconv as fc, fastconv.nn as nn, fastconv.distributed as dist
    >>> if fc.cuda.device_count() >= dist.world().size > 1:
    ...     group = dist.NCCLCommunicator()
    ...     net = dist.DataParallel(nn.Linear(3, 2).to(group.device), process_group=group)
    """

    def __init__(self, processes: Communicator | None = None, *, device: Any = None) -> None:
        self._processes = world() if processes is None else processes
        self.rank, self.size = self._processes.rank, self._processes.size
        machines = self._all_text(socket.gethostname())
        here = [rank for rank in range(self.size) if machines[rank] == machines[self.rank]]
        self.device = parse(here.index(self.rank) if device is None else device)
        taken = self._all_text(self.device)
        for rank in here:
            if rank != self.rank and taken[rank] == self.device:
                raise ValueError(
                    f"device must be another GPU on each rank of a machine, got {self.device} on rank {rank}, too"
                )
        self._cupy = import_module("cupy")
        if not import_module("cupy.cuda.nccl").available:
            raise ImportError("CuPy finds no NCCL library: pip install nvidia-nccl-cu13")
        with self._on_device():
            backend = import_module("cupyx.distributed").NCCLBackend
            self._nccl = backend(self.size, self.rank, use_mpi=self.size > 1)
            self._stream = self._cupy.cuda.Stream(non_blocking=True)

    def all_reduce(self, array: Any) -> Work:
        if isinstance(array, np.ndarray):
            return self._processes.all_reduce(array)
        self._check(array)
        if array.dtype.name not in _REDUCIBLE:
            raise TypeError(f"array must be an array of {', '.join(_REDUCIBLE)}, got {array.dtype}")
        return self._begin(array, lambda stream: self._nccl.all_reduce(array, array, "sum", stream))

    def broadcast(self, array: Any, root: int = 0) -> None:
        check_root(root, self.size)
        if isinstance(array, np.ndarray):
            return self._processes.broadcast(array, root)
        self._check(array)
        bits = bytes_of(array)
        self._begin(bits, lambda stream: self._nccl.broadcast(bits, root, stream)).wait()

    def all_gather(self, array: Any) -> Any:
        if isinstance(array, np.ndarray):
            return self._processes.all_gather(array)
        self._check(array)
        with self._on_device():
            gathered = self._cupy.empty((self.size, *array.shape), array.dtype)
        bits, all_bits = bytes_of(array), bytes_of(gathered)
        self._begin((bits, all_bits), lambda stream: self._nccl.all_gather(bits, all_bits, bits.size, stream)).wait()
        return gathered

    def barrier(self) -> None:
        """Return when every rank has come here and its GPU has done what it was given."""
        with self._on_device():
            self._stream.synchronize()
            self._cupy.cuda.get_current_stream().synchronize()
        self._processes.barrier()

    def _on_device(self) -> Any:
        return self._cupy.cuda.Device(int(self.device[5:]))

    def _begin(self, arrays: Any, operation: Any) -> Work:
        """Give `operation` a stream that waits for what was computed so far."""
        with self._on_device():
            self._stream.wait_event(self._cupy.cuda.get_current_stream().record())
            operation(self._stream)
            return _OnStream(self._stream.record(), self._cupy, self._on_device(), arrays)

    def _check(self, array: Any) -> None:
        if not is_device_array(array):
            raise TypeError(f"array must be a cupy.ndarray or a numpy.ndarray, got {type(array).__name__}")
        if device_of(array) != self.device:
            raise ValueError(
                f"array must be on {self.device}, the GPU of rank {self.rank}, got one on {device_of(array)}"
            )
        if not array.flags.c_contiguous:
            raise ValueError("array must be contiguous")

    def _all_text(self, text: str) -> list[str]:
        padded = np.frombuffer(text.encode()[:256].ljust(256), np.uint8)
        return [row.tobytes().decode(errors="replace").rstrip() for row in self._processes.all_gather(padded)]


class _OnStream(Work):
    """What NCCL was given; its arrays live until then."""

    def __init__(self, event: Any, cupy: Any, device: Any, arrays: Any) -> None:
        self._event, self._cupy, self._device, self._arrays = event, cupy, device, arrays

    def test(self) -> bool:
        return bool(self._event.done)

    def wait(self) -> None:
        """Let CuPy's current stream wait, not the host."""
        with self._device:
            self._cupy.cuda.get_current_stream().wait_event(self._event)
        self._arrays = None
