"""Several ranks for the tests: threads of this process, which share memory, and real processes that mpiexec starts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv.distributed import Communicator, SingleProcess, Work

__all__ = ["ThreadRank", "mpiexec", "mpiexec_python", "on_threads"]


class ThreadRank(Communicator):
    """A rank that is a thread: it lays its array on a table that all see, and waits for the others to do so."""

    def __init__(self, rank: int, table: list[Any], meeting: threading.Barrier) -> None:
        self.rank, self.size = rank, len(table)
        self._table, self._meeting = table, meeting

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        self._table[self.rank] = array
        self._meeting.wait()
        gathered = np.stack(self._table)
        self._meeting.wait()
        return gathered

    def all_reduce(self, array: np.ndarray) -> Work:
        parts = self.all_gather(array)
        array[...] = sum(parts[1:], start=parts[0])
        return SingleProcess().all_reduce(array)

    def broadcast(self, array: np.ndarray, root: int = 0) -> None:
        array[...] = self.all_gather(array)[root]

    def barrier(self) -> None:
        self._meeting.wait()


def on_threads(size: int, program: Callable[[Communicator], Any]) -> list[Any]:
    """What `program` returns for each of `size` ranks; what one raises ends all and is raised."""
    table: list[Any] = [None] * size
    meeting = threading.Barrier(size, timeout=30)

    def run(rank: int) -> Any:
        try:
            return program(ThreadRank(rank, table, meeting))
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None and not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [future.result() for future in futures]


def mpiexec(size: int, source: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python source on `size` MPI ranks, with the options of `mpiexec_python`."""
    return mpiexec_python(size, "-c", textwrap.dedent(source), *arguments, **options)


def mpiexec_python(
    size: int, *arguments: str | Path, check: bool = True, seconds: float = 120, threads: str | None = "1"
) -> subprocess.CompletedProcess[str]:
    """Run Python on `size` MPI ranks of so many threads (None: not told); unless `check` is off, all must end well."""
    # The mpiexec of the environment that holds mpi4py comes first: another one would start processes that are alone.
    launcher = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if launcher is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip('needs mpi4py and mpiexec: pip install "fastconv[mpi]"')
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FASTCONV_", "OMP_"))}
    done = subprocess.run(
        [launcher, "-n", str(size), sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        # Open MPI refuses to be started by root, and more ranks than cores, unless it is told that this is meant.
        env={
            **inherited,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **({} if threads is None else {"OMP_NUM_THREADS": threads}),
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        },
    )
    assert not check or done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
