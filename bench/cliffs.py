"""Cliffs: sizes, values and thread counts at which an operation suddenly takes much longer than beside them.

Four tables, each with the worst of its kind and the limit that it is held against:

sizes      time per operation of a 3x3 convolution with C, K, H or W = 1 ... 64 over that with the next multiple of 16
denormals  time on denormal inputs over the time on normal ones
threads    speed with two threads over the speed with one, convolutions above 0.1 GFLOP
memory     growth of the process' memory over repeated calls, after the first few
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
import fastconv.nn.functional as F

from .conv_tasks import REPRESENTATIVE
from .conv_tasks import tasks as conv_tasks
from .measure import Effort, interleaved
from .shapes import ConvCase
from .task import LAYOUTS, Call, arrange

_MIDDLE = ConvCase("middle", "cliffs", N=4, C=32, H=32, W=32, K=32, R=3, S=3, padding=((1, 1), (1, 1)))
_SIZES = (*range(1, 18), 20, 23, 24, 25, 28, 31, 32, 33, 40, 47, 48, 49, 56, 63, 64)
_WAYS = ("forward", "input gradient", "weight gradient")
_DENORMAL = np.float32(1e-41)


@dataclass(frozen=True)
class Cliff:
    """One measurement: `value` must be at most (or at least) `limit`."""

    table: str
    what: str
    layout: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def _ways(case: ConvCase, layout: str, scale: np.float32 | None = None) -> dict[str, Call]:
    """The three calls of a convolution; with `scale`, all its arrays hold that value."""
    rng = np.random.default_rng(0)
    shapes = {"x": case.x_shape, "w": case.w_shape, "dy": case.y_shape}
    a = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    if scale is not None:
        a = {name: np.full_like(values, scale) for name, values in a.items()}
    a = arrange(a, layout) or a
    options: dict[str, Any] = {"padding": 1}
    calls: dict[str, Call] = {"forward": partial(F.conv2d, a["x"], a["w"], None, **options)}
    for way, wrt in zip(_WAYS[1:], ("input", "weight"), strict=True):
        _, pullback = F.conv2d.vjp(a["x"], a["w"], wrt=(wrt,), **options)
        calls[way] = partial(pullback, a["dy"])
    return calls


def sizes(effort: Effort, layouts: Sequence[str] = LAYOUTS, values: Sequence[int] = _SIZES) -> Iterator[Cliff]:
    """The worst size of every dimension, way and layout; limit 2."""
    for layout in layouts:
        for dimension in "CKHW":
            seconds: dict[str, dict[int, float]] = {way: {} for way in _WAYS}
            for size in sorted({*values, *(_aligned(v) for v in values)}):
                case = replace(_MIDDLE, **{dimension: size})
                for way, timing in interleaved(_ways(case, layout), effort).items():
                    seconds[way][size] = timing.seconds / size
            for way, found in seconds.items():
                ratio, size = max((found[v] / found[_aligned(v)], v) for v in values)
                yield Cliff("sizes", f"{way}, worst {dimension} = {size}", layout, ratio, 2)


def _aligned(size: int) -> int:
    return -(-size // 16) * 16


def _streams(x: np.ndarray) -> dict[str, Call]:
    """Operations bound by memory."""
    return {
        "depthwise": partial(
            F.conv2d, x, np.full((x.shape[1], 1, 3, 3), x.flat[0]), None, padding=1, groups=x.shape[1]
        ),
        "max_pool2d": partial(F.max_pool2d, x, 2),
        "avg_pool2d": partial(F.avg_pool2d, x, 2),
        "batch_norm": partial(F.batch_norm, x, None, None, training=True),
        "local_response_norm": partial(F.local_response_norm, x, 5),
        "relu": partial(F.relu, x),
        "leaky_relu": partial(F.leaky_relu, x),
    }


def denormals(effort: Effort, layouts: Sequence[str] = LAYOUTS) -> Iterator[Cliff]:
    """Every way of a convolution, and the operations bound by memory; limit 1.1."""
    for layout in layouts:
        timings = []
        for value in (np.float32(0.5), _DENORMAL):
            x = {"x": np.full((8, 64, 56, 56), value)}
            x = arrange(x, layout) or x
            timings.append({**_ways(replace(_MIDDLE, C=64, K=64), layout, value), **_streams(x["x"])})
        for what in timings[0]:
            pair = interleaved({"normal": timings[0][what], "denormal": timings[1][what]}, effort)
            yield Cliff("denormals", what, layout, pair["denormal"].seconds / pair["normal"].seconds, 1.1)


def threads(effort: Effort) -> Iterator[Cliff]:
    """Representative convolutions above 0.1 GFLOP in a batch of 8, one thread against two; limit 1.8."""
    before = fc.get_num_threads()
    for task in conv_tasks(8, backward=False, depthwise=False):
        if task.flops < 1e8 or task.layer not in REPRESENTATIVE:
            continue
        arrays = task.arrays(np.dtype(np.float32))
        for layout in LAYOUTS:
            call = task.ours(arrange(arrays, layout) or arrays)

            def with_threads(count: int, call: Call = call) -> Any:
                fc.set_num_threads(count)
                return call()

            try:
                pair = interleaved({"1": partial(with_threads, 1), "2": partial(with_threads, 2)}, effort)
            finally:
                fc.set_num_threads(before)
            yield Cliff("threads", task.layer, layout, pair["1"].seconds / pair["2"].seconds, 1.8, at_least=True)


def _resident() -> int:
    """Resident memory of this process in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(calls: int = 200) -> Iterator[Cliff]:
    """Bytes by which repeated calls of each way make the process grow; limit 1 MB."""
    for layout in LAYOUTS:
        for way, call in _ways(replace(_MIDDLE, C=64, K=64, H=56, W=56), layout).items():
            for _ in range(5):
                call()
            before = _resident()
            for _ in range(calls):
                call()
            yield Cliff("memory", f"{way}, {calls} calls, MB", layout, (_resident() - before) / 1e6, 1)


def run(effort: Effort) -> Iterator[Cliff]:
    """All four tables."""
    yield from sizes(effort)
    yield from denormals(effort)
    if fc.get_num_threads() >= 2:
        yield from threads(effort)
    if Path("/proc/self/statm").exists():
        yield from memory()


def line(cliff: Cliff) -> str:
    """One printed row."""
    relation = "at least" if cliff.at_least else "at most"
    verdict = "" if cliff.met else "  CLIFF"
    return f"{cliff.table:10} {cliff.layout:5} {cliff.what:48} {cliff.value:7.2f}  {relation} {cliff.limit:g}{verdict}"
