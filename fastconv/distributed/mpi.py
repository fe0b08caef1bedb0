"""The communicator over MPI (mpi4py): non-blocking messages, sums in the order of the ranks, no silent hang.

An all-reduce is a reduce-scatter and an all-gather, each rank summing one part of the array: as much traffic as MPI's
own algorithm for large arrays, but the order of the sum is ours, where MPI leaves it to the library.

Nothing blocks inside MPI: a rank that waits tests its requests and sleeps in between. So Ctrl-C works, more ranks than
cores do not starve each other, and a rank that waits for one that has ended notices it.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from types import TracebackType
from typing import Any

import numpy as np

from ..config import get_num_threads, set_num_threads
from .communicator import Communicator, Work, bytes_of, check_reducible, check_root

__all__ = ["MPICommunicator", "end_all_ranks_on_error", "share_cores"]

_FAREWELL = 1
_SPIN_SECONDS = 2e-4  # testing without a pause, for answers that are already on their way
_PAUSE_SECONDS = 1e-4
# Each test moves a piece of a large message: the sum of 24 MB over 2 ranks takes 328 ms with one test between pauses,
# 22 ms with 32 (MPICH 5.0, AVX-512 server, 2 cores), and no less than 9 ms without pauses.
_TESTS = 32
_LOOK_SECONDS = 0.1  # between looks for ranks that have ended
_PRINT_SECONDS = 1.0  # mpiexec drops what it has not yet read of the output when a rank aborts
_GRACE_SECONDS = 5.0  # for messages that a rank sent before it ended


class MPICommunicator(Communicator):
    """A group of ranks over an mpi4py communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Duplicated, so that its other messages and these do not meet. All its ranks must take part.
    timeout : float
        Seconds to wait for the other ranks in one operation before a TimeoutError.

    Raises
    ------
    ValueError
        `timeout` is not positive.

    Notes
    -----
    Methods raise RuntimeError where a rank has ended that an operation needs, TimeoutError after `timeout`.
    """

    def __init__(self, comm: Any, timeout: float = 1800.0) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        from mpi4py import MPI

        self.in_place = MPI.IN_PLACE
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self._timeout = timeout
        self._comm = comm.Dup()
        # MPI matches the collectives of one communicator by their order. When a rank enters the second half of an
        # all-reduce depends on time, so that each half has a communicator, on which the order is the same everywhere.
        self._scatter, self._gather = comm.Dup(), comm.Dup()
        self._summing: deque[_AllReduce] = deque()
        others = [rank for rank in range(self.size) if rank != self.rank]
        self._farewells = {rank: self._comm.Irecv(bytearray(1), rank, _FAREWELL) for rank in others}
        self._ended: list[int] = []
        atexit.register(self._leave)

    def all_reduce(self, array: np.ndarray) -> Work:
        check_reducible(array)
        work = _AllReduce(self, array.reshape(-1))
        self._summing.append(work)
        return work

    def broadcast(self, array: np.ndarray, root: int = 0) -> None:
        check_root(root, self.size)
        if not array.flags.c_contiguous:
            raise ValueError("array must be contiguous")
        self.finish(self._comm.Ibcast(bytes_of(array), root).Test, "a broadcast")

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        gathered = np.empty((self.size, *array.shape), array.dtype)
        request = self._comm.Iallgather(bytes_of(np.ascontiguousarray(array)), bytes_of(gathered))
        self.finish(request.Test, "an all-gather")
        return gathered

    def barrier(self) -> None:
        self.finish(self._comm.Ibarrier().Test, "a barrier")

    def progress(self) -> None:
        """Enter the second half of those all-reduces whose first half is complete, in the order of their begin."""
        while self._summing and self._summing[0].received():
            self._summing.popleft().distribute()

    def finish(self, done: Callable[[], bool], what: str) -> None:
        """Test until `done`; an error where that can no longer happen."""
        start = look = time.monotonic()
        alone_since: float | None = None
        while not _within_tests(done):
            now = time.monotonic()
            if now - start < _SPIN_SECONDS:
                os.sched_yield()
            else:
                time.sleep(_PAUSE_SECONDS)
            if now - look > _LOOK_SECONDS:
                look = now
                if self._has_ended() and alone_since is None:
                    alone_since = now
            if alone_since is not None and now - alone_since > _GRACE_SECONDS:
                raise RuntimeError(
                    f"rank {self.rank} waits for {what}, but rank {self._ended[0]} has ended: all ranks must take the "
                    "same number of steps"
                )
            if now - start > self._timeout:
                raise TimeoutError(
                    f"rank {self.rank} has waited {self._timeout:g} s for {what}: do all ranks take the same steps?"
                )

    def _has_ended(self) -> bool:
        self._ended += [rank for rank, farewell in self._farewells.items() if farewell.Test()]
        self._farewells = {rank: each for rank, each in self._farewells.items() if rank not in self._ended}
        return bool(self._ended)

    def _leave(self) -> None:
        """Tell the others that this rank ends, and wait until they do: at the exit of the interpreter."""
        sent = [self._comm.Isend(bytes(1), rank, _FAREWELL) for rank in range(self.size) if rank != self.rank]
        for request in (*sent, *self._farewells.values()):
            while not request.Test():
                time.sleep(_PAUSE_SECONDS)


class _AllReduce(Work):
    """The sum of a flat array: every rank gets one part from all others, sums it, and sends the sum to all."""

    def __init__(self, group: MPICommunicator, array: np.ndarray) -> None:
        self._group = group
        self._array = array
        bounds = [array.size * rank // group.size for rank in range(group.size + 1)]
        self._starts, self._counts = bounds[:-1], [end - start for start, end in pairwise(bounds)]
        own = self._counts[group.rank]
        self._parts = np.empty((group.size, own), array.dtype)
        self._request = group._scatter.Ialltoallv(
            [array, (self._counts, self._starts)],
            [self._parts, ([own] * group.size, [own * rank for rank in range(group.size)])],
        )
        self._distributing = False

    def received(self) -> bool:
        """Whether the part that this rank sums is there from every rank."""
        return self._request.Test()

    def distribute(self) -> None:
        """Sum the part and begin to send it."""
        start, own = self._starts[self._group.rank], self._counts[self._group.rank]
        total = self._array[start : start + own]
        total[...] = self._parts[0]
        for part in self._parts[1:]:
            total += part
        self._request = self._group._gather.Iallgatherv(
            self._group.in_place, [self._array, (self._counts, self._starts)]
        )
        self._distributing = True

    def _advance(self) -> bool:
        self._group.progress()
        return self._distributing and self._request.Test()

    def test(self) -> bool:
        return _within_tests(self._advance)

    def wait(self) -> None:
        self._group.finish(self._advance, "an all-reduce")


def _within_tests(done: Callable[[], bool]) -> bool:
    return any(done() for _ in range(_TESTS))


def end_all_ranks_on_error(comm: Any) -> None:
    """Let an exception that nothing catches end every rank of `comm`, after its traceback is printed with the rank."""
    rank, size = comm.Get_rank(), comm.Get_size()

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            text = f"rank {rank} of {size} was interrupted\n"
        else:
            text = f"rank {rank} of {size} failed, which ends all ranks:\n"
            text += "".join(traceback.format_exception(kind, error, trace))
        sys.stdout.flush()
        sys.stderr.write(text)  # in one piece: the other ranks may be writing, too
        sys.stderr.flush()
        time.sleep(_PRINT_SECONDS)
        comm.Abort(130 if issubclass(kind, KeyboardInterrupt) else 1)

    sys.excepthook = end


def share_cores(comm: Any) -> None:
    """Give each rank its part of the threads, unless the environment says how many it gets."""
    from mpi4py import MPI

    local = comm.Split_type(MPI.COMM_TYPE_SHARED)
    if not {"FASTCONV_NUM_THREADS", "OMP_NUM_THREADS"} & set(os.environ):
        set_num_threads(max(1, get_num_threads() // local.Get_size()))
    local.Free()
