"""What training on several processes needs of a message-passing library, and the trivial case of one process."""

from __future__ import annotations

import contextlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..devices import guard

__all__ = ["Communicator", "SingleProcess", "Work", "end_all_ranks", "world"]

_REDUCIBLE = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64))
# What the launchers of MPICH, Open MPI and PMIx tell each process: its number, and how many there are.
_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")


class Work(ABC):
    """A collective operation under way. Its array must be neither read nor written before it is complete."""

    @abstractmethod
    def test(self) -> bool:
        """Whether it is complete; never waits, but drives the messages of all operations forward."""

    @abstractmethod
    def wait(self) -> None:
        """Return when it is complete."""


class Communicator(ABC):
    """A group of processes, its ranks, that compute the same program on different data.

    Every rank must call the same methods in the same order, with arrays of the same shapes and dtypes.

    Attributes
    ----------
    rank : int
        The number of this process, from 0.
    size : int
        How many processes there are.
    device : str
        Where the arrays of networks lie that the group trains: ``"cpu"``, or ``"cuda:N"`` on this rank.
    """

    rank: int
    size: int
    device: str = "cpu"

    @abstractmethod
    def all_reduce(self, array: np.ndarray) -> Work:
        """Begin to replace `array`, on every rank, by the sum of the arrays of all ranks.

        The sum is taken in the order of the ranks, one after the other in the array's dtype, so its bits depend on
        nothing else, and they are the same on all ranks.

        Parameters
        ----------
        array : ndarray of float32, float64 or int64
            Contiguous and writable.

        Returns
        -------
        Work

        Raises
        ------
        TypeError, ValueError
            Another dtype or layout.
        """

    @abstractmethod
    def broadcast(self, array: np.ndarray, root: int = 0) -> None:
        """Overwrite the contiguous `array` (any dtype) with that of rank `root`, and return when that is done."""

    @abstractmethod
    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """The contiguous arrays of all ranks, (size, *shape), on every rank."""

    @abstractmethod
    def barrier(self) -> None:
        """Return when every rank has come here."""


class _Done(Work):
    def test(self) -> bool:
        return True

    def wait(self) -> None:
        return None


class SingleProcess(Communicator):
    """The group of one process, without any library: what `world` gives to a program that mpiexec did not start.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.distributed import SingleProcess
    >>> alone = SingleProcess()
    >>> alone.rank, alone.size
    (0, 1)
    >>> alone.all_gather(np.array([3.0, 4.0]))
    array([[3., 4.]])
    """

    rank = 0
    size = 1

    def all_reduce(self, array: np.ndarray) -> Work:
        check_reducible(array)
        return _Done()

    def broadcast(self, array: np.ndarray, root: int = 0) -> None:
        check_root(root, self.size)

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        return array[np.newaxis].copy()

    def barrier(self) -> None:
        return None


def check_reducible(array: np.ndarray) -> None:
    """Raise unless `array` is one that all_reduce takes."""
    if not isinstance(array, np.ndarray) or array.dtype not in _REDUCIBLE:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"array must be an array of float32, float64 or int64, got {kind}")
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError("array must be contiguous and writable")


def bytes_of(array: Any) -> Any:
    """The memory of a contiguous array, NumPy's or CuPy's, as one row of uint8."""
    with guard(array):
        return array.reshape(-1).view(np.uint8)


def check_root(root: int, size: int) -> None:
    """Raise unless `root` is one of the ranks."""
    if not 0 <= root < size:
        raise ValueError(f"root must be a rank from 0 to {size - 1}, got {root}")


_world: Communicator | None = None


def world() -> Communicator:
    """The group of all processes that one ``mpiexec`` started; of this process alone without mpiexec.

    The first call starts MPI (through mpi4py) and makes an uncaught exception of one rank end all of them: its
    traceback is printed with the rank, then MPI_Abort kills the job, whose exit status is not 0. Unless
    FASTCONV_NUM_THREADS or OMP_NUM_THREADS is set, the ranks on one machine share its cores.

    Returns
    -------
    Communicator

    Raises
    ------
    ImportError
        mpiexec started several processes, and mpi4py is not installed.
    RuntimeError
        The mpiexec belongs to another MPI library than mpi4py found, so that every process would be alone.

    Examples
    --------
    >>> import fastconv.distributed as dist
    >>> dist.world().size
    1
    """
    global _world
    if _world is None:
        _world = _start()
    return _world


def _start() -> Communicator:
    if "mpi4py.MPI" not in sys.modules and not any(name in os.environ for name in _RANK_VARIABLES):
        return SingleProcess()
    promised = max((int(os.environ[name]) for name in _SIZE_VARIABLES if name in os.environ), default=1)
    try:
        from mpi4py import MPI
    except ImportError as error:
        if promised == 1:
            return SingleProcess()
        raise ImportError('training on several processes needs mpi4py: pip install "fastconv[mpi]"') from error
    except RuntimeError as error:  # mpi4py is there and finds no MPI library
        raise ImportError(f'mpi4py cannot load an MPI library ({error}): pip install "fastconv[mpi]"') from error
    found = MPI.COMM_WORLD.Get_size()
    if promised > found:
        library = MPI.Get_library_version().partition("\n")[0].strip("\0 ")
        raise RuntimeError(
            f"mpiexec started {promised} processes, mpi4py sees {found}: the mpiexec is not that of the library that "
            f"mpi4py uses ({library})"
        )
    if found == 1:
        return SingleProcess()
    from .mpi import MPICommunicator, end_all_ranks_on_error, share_cores

    end_all_ranks_on_error(MPI.COMM_WORLD)
    share_cores(MPI.COMM_WORLD)
    return MPICommunicator(MPI.COMM_WORLD)


@contextlib.contextmanager
def end_all_ranks(group: Communicator) -> Iterator[None]:
    """Context manager: an error that leaves the block ends all ranks here, though a caller would handle it.

    For programs that turn errors into messages: what one rank handles, the others do not know of and wait for it.
    """
    try:
        yield
    except Exception as error:
        if group.size > 1:
            sys.excepthook(type(error), error, error.__traceback__)
        raise
