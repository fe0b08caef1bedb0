"""Timing on machines that are not quiet: short blocks of every candidate in turn, medians of the blocks' medians.

A slow second of the machine then falls on all candidates alike, and a ratio of two of them stays right where their
times do not.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Threads of a library go on looking for work after their last loop, on the cores that the next candidate needs: those
# of an OpenMP runtime (torch brings its own) for about 5 ms, ONNX Runtime's for 40.
SETTLE_SECONDS = 0.008
MOST_PAUSES = 25
# Below this the clock's own cost and resolution would show.
SHORTEST_SAMPLE = 100e-6


@dataclass(frozen=True)
class Timing:
    """Time of one call: the median of the blocks' medians, in seconds, and all of these."""

    blocks: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return statistics.median(self.blocks)

    @property
    def spread(self) -> float:
        """Distance between the quartiles of the blocks over their median."""
        low, high = quartiles(self.blocks)
        return (high - low) / self.seconds


def quartiles(values: tuple[float, ...]) -> tuple[float, float]:
    """The first and the third quartile.

    >>> quartiles((4.0, 1.0, 2.0, 3.0, 5.0))
    (2.0, 4.0)
    """
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


@dataclass(frozen=True)
class Effort:
    """How long to measure: blocks of each candidate, and the seconds that one block should last.

    Where all candidates together would take more than `row_seconds`, there are fewer rounds, but at least two.
    """

    rounds: int = 7
    block_seconds: float = 0.04
    row_seconds: float = math.inf

    def rounds_of(self, seconds: float) -> int:
        """How many rounds of `seconds` each there will be.

        >>> [Effort(row_seconds=10).rounds_of(seconds) for seconds in (0.1, 2.0, 60.0)]
        [7, 5, 2]
        """
        return self.rounds if self.rounds * seconds <= self.row_seconds else max(2, int(self.row_seconds / seconds))


@dataclass(frozen=True)
class _Block:
    """Calls in one sample, between two looks at the clock, and samples in one block."""

    calls: int
    samples: int
    warm: bool
    seconds: float

    def run(self, call: Callable[[], object]) -> float:
        if self.warm:
            call()
        clock, count, times = time.perf_counter, range(self.calls), []
        for _ in range(self.samples):
            start = clock()
            for _ in count:
                call()
            times.append((clock() - start) / self.calls)
        return statistics.median(times)


def _plan(call: Callable[[], object], effort: Effort) -> _Block:
    start = time.perf_counter()
    call()
    calls, elapsed = 1, 0.0
    first = time.perf_counter() - start
    if first > 10 * effort.block_seconds:  # too long for one call more; what only the first one does is small beside it
        elapsed = first
    while elapsed < SHORTEST_SAMPLE:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        elapsed = time.perf_counter() - start
        if elapsed < SHORTEST_SAMPLE:
            calls *= 2
    samples = max(1, min(100, int(effort.block_seconds / elapsed)))
    # The first call of a block finds other data in the caches. A long call is timed as it is: it evicts its own data.
    warm = elapsed < effort.block_seconds
    return _Block(calls, samples, warm, samples * elapsed + warm * elapsed / calls)


def settle() -> None:
    """Pause until no thread of this process is busy."""
    for _ in range(MOST_PAUSES):
        used = time.process_time()
        time.sleep(SETTLE_SECONDS)
        if time.process_time() - used <= 0.1 * SETTLE_SECONDS:
            return


def interleaved(calls: Mapping[str, Callable[[], object]], effort: Effort) -> dict[str, Timing]:
    """Time every call, in turns: block of the first, block of the second, ..., again from the first.

    >>> timings = interleaved({"sum": lambda: sum(range(1000))}, Effort(rounds=5, block_seconds=0.001))
    >>> 0 < timings["sum"].seconds < 1 and len(timings["sum"].blocks) == 5
    True
    """
    plans = {name: _plan(call, effort) for name, call in calls.items()}
    blocks: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(effort.rounds_of(sum(plan.seconds for plan in plans.values()))):
            for name, call in calls.items():
                settle()
                blocks[name].append(plans[name].run(call))
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(tuple(values)) for name, values in blocks.items()}
