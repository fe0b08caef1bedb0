"""Predicted times of every layer on an H200, from work, launches and stated assumptions; nothing of it is measured.

The kernels that the rule chooses are asked for by starting each layer at full size in the simulator, which records the
launches and runs none of them. A prediction is the slower of arithmetic and memory, and the time of the launches:

    arithmetic = operations / (rate of the unit x share that kernels of this kind reach x filling of the processors)
    memory     = (each input read once, each output written once, workspace written and read)
                 / (bandwidth x share, or what the threads keep in flight, if that is less)

``--against gpu_day.json`` puts measured times of stage "ours" beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
from fastconv import backend

from . import census
from .work import WAYS, Work, convolutions, memory_bound

PROCESSORS, THREADS, SHARED_BYTES, BLOCKS = 132, 2048, 227 << 10, 32  # of an H200, and of one of its processors
BANDWIDTH = 4.3e12  # bytes/s, read and written: an H200's copy
RATES = {"bf16": 790e12, "tf32": 400e12, "fp32": 50e12}  # operations/s that matrix products of cuBLAS reach
# The fastest way to float32's class is six products of bfloat16 parts.
FLOORS = {**RATES, "fp32": RATES["bf16"] / 6}
MEMORY_SHARE = 0.85
LATENCY = 0.8e-6  # seconds that a load takes under way: what is in flight in this time is what the memory delivers
THREAD_BYTES = 16  # in flight of one thread, where shared memory does not hold more
WARPS = 8  # that one processor needs to be busy
LAUNCH = 2.5e-6  # seconds between two kernels of one stream
NETWORKS = ("resnet50", "vgg16", "mobilenetv2")
BATCH = 64


class Kind(NamedTuple):
    """What is assumed of kernels whose plan says `pattern`: the unit, its share, and products for one of float32."""

    pattern: str
    unit: str
    share: float
    products: int


# The first that fits. Shares: what is expected of mma.sync fed by cp.async, 350 to 450 of 790; 40 of 50 on the
# ordinary cores with 8 x 8 sums a thread; splitting takes about a quarter of the instructions of six products. Those of
# warpgroups are what an H100 measured on its ceilings (bench/results/h100): 3x3 layers 290 to 560 of 800 TFLOP/s in
# bfloat16, 68 to 76 in float32's class.
KINDS = (
    Kind(r"warpgroups, three parts", "bf16", 0.55, 6),
    Kind(r"warpgroups, two parts", "bf16", 0.5, 3),
    Kind(r"warpgroups", "bf16", 0.5, 1),
    Kind(r"tensor.*three parts", "bf16", 0.4, 6),
    Kind(r"tensor.*two parts", "bf16", 0.4, 3),
    Kind(r"tensor", "bf16", 0.5, 1),
    Kind(r"direct|depthwise", "fp32", 0.5, 1),
    Kind(r"", "fp32", 0.8, 1),
)


class Launch(NamedTuple):
    """A recorded launch."""

    kernel: str
    blocks: int
    threads: int
    shared_bytes: int

    @property
    def resident(self) -> int:
        """Blocks on one processor, as threads and shared memory allow; registers may allow fewer."""
        return max(1, min(BLOCKS, THREADS // self.threads, SHARED_BYTES // max(self.shared_bytes + 1024, 1)))

    @property
    def waves(self) -> float:
        """Rounds in which the processors take the blocks."""
        return self.blocks / (PROCESSORS * self.resident)

    @property
    def bandwidth(self) -> float:
        """Bytes a second that this many threads can keep in flight, at most what the memory gives."""
        blocks = min(self.blocks, PROCESSORS * self.resident)
        in_flight = blocks * max(self.threads * THREAD_BYTES, self.shared_bytes)
        return min(BANDWIDTH * MEMORY_SHARE, in_flight / LATENCY)

    @property
    def filling(self) -> float:
        """Share of the arithmetic units' time that has work: the last round, and processors with too few warps."""
        load = self.blocks / PROCESSORS
        warps = min(math.ceil(load), self.resident) * self.threads // 32
        return load / math.ceil(load) * min(1.0, warps / WARPS)


def _main(launches: list[Launch]) -> Launch:
    """The launch that does the work."""
    return max(launches, key=lambda launch: launch.blocks * launch.threads * (launch.shared_bytes + 1))


class Prediction(NamedTuple):
    """A layer's floor and its predicted time, in seconds."""

    work: Work
    kernel: str
    launches: list[Launch]
    floor: float
    bound: str
    seconds: float


def _arrays(work: Work) -> dict[str, np.ndarray]:
    """Arrays of full size whose memory nobody touches, images channels-last."""
    made = {}
    for name, shape in work.shapes.items():
        if len(shape) == 4 and name != "w":
            n, *rest = shape
            made[name] = np.moveaxis(np.empty((n, *rest[1:], rest[0]), work.dtype), -1, 1)
        else:
            made[name] = np.empty(shape, work.dtype)
    return made


class _Simulator:
    """Takes the place of a device: the kernels are the simulator's."""

    def __init__(self, module: Any) -> None:
        self.kernels = module


def launches(work: Work) -> list[Launch]:
    """What one call of a layer starts."""
    simulator: Any = backend.simulator()
    with fc.use_backend("cuda:simt"):
        simulator.start_recording()
        call = work.ours(_Simulator(simulator), _arrays(work))  # type: ignore[arg-type]
        simulator.stop_recording()
        simulator.start_recording()
        call()
        return [Launch(*launch) for launch in simulator.stop_recording()]


_OPS = {"forward": "conv_forward", "dgrad": "conv_backward_input", "wgrad": "conv_backward_weight"}


def _plan(work: Work) -> tuple[str, int]:
    """The kernel that the rule chooses for a convolution, and its workspace."""
    if work.op != "conv":
        return work.op, 0
    simulator: Any = backend.simulator()
    call = work.ours(_Simulator(simulator), {name: np.empty(0) for name in ("x", "w", "dy")})  # type: ignore[arg-type]
    *_, stride, padding, dilation, groups, _ = call.args  # type: ignore[attr-defined]
    x = work.shapes.get("x") or call.args[2]  # type: ignore[attr-defined]
    options = (stride, padding, dilation, groups)
    plan = simulator.conv_plan(_OPS[work.way], x, work.shapes["w"], *options, work.dtype.name, True)
    return plan["kernel"], int(plan["workspace"])


def predict(work: Work) -> Prediction:
    """The floor and the predicted time of one layer."""
    simulator: Any = backend.simulator()
    before = simulator.get_float32_precision()
    simulator.set_float32_precision("high" if work.precision == "tf32" else "highest")
    try:
        (kernel, workspace), started = _plan(work), launches(work)
    finally:
        simulator.set_float32_precision(before)
    floors = {"compute": work.flops / FLOORS[work.precision], "memory": work.bytes / BANDWIDTH}
    if work.op != "conv":
        floors.pop("compute")
    bound = max(floors, key=lambda name: floors[name])
    main = _main(started)
    memory = (work.bytes + 2 * workspace) / main.bandwidth
    arithmetic = 0.0
    if work.op == "conv":
        kind = next(kind for kind in KINDS if re.search(kind.pattern, kernel))
        rate = RATES[kind.unit]
        arithmetic = work.flops * kind.products / (rate * kind.share * main.filling)
    seconds = max(arithmetic, memory) + LAUNCH * len(started)
    return Prediction(work, kernel, started, floors[bound], bound, seconds)


# ---- the table -----------------------------------------------------------------------------------------------------


def measured(path: Path) -> dict[str, float]:
    """Milliseconds of our channels-last calls by key, of a GPU day's JSON; ValueError of a dry run's."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not {"environment", "cases"} <= found.keys():
        raise ValueError(f"{path} is not the gpu_day.json of a GPU day")
    if found["environment"].get("dry"):
        raise ValueError(f"{path} is of a dry run: nothing in it is measured")
    times = {
        case["key"]: (case.get("times") or {}).get("fastconv nhwc")
        for case in found["cases"]
        if case["stage"] == "ours"
    }
    return {key: t["ms"] for key, t in times.items() if t}


def _time(p: Prediction, times: dict[str, float] | None) -> str:
    text = f"{1e6 * p.seconds:.3g}"
    if times is None:
        return text
    ms = times.get(p.work.key)
    return f"{text} / {1e3 * ms:.3g} ({1e3 * ms / 1e6 / p.seconds:.2f})" if ms else f"{text} / -"


def _short(p: Prediction) -> str:
    main = _main(p.launches)
    return f"{p.kernel}, {main.blocks} x {main.threads}, {main.waves:.2g} waves"


def layers(predictions: list[Prediction], times: dict[str, float] | None) -> list[str]:
    """Markdown: one row a layer and precision, its ways side by side."""
    ways = WAYS if predictions and predictions[0].work.op == "conv" else ("forward", "backward")
    lines = [f"| layer | precision | floor µs | bound | forward: kernel, blocks x threads | {' | '.join(ways)} |"]
    lines += ["|---|---|---:|---|---|" + "---:|" * len(ways)]
    by_layer: dict[tuple[str, str, str], dict[str, Prediction]] = {}
    for p in predictions:
        by_layer.setdefault((p.work.op, p.work.layer, p.work.precision), {})[p.work.way] = p
    for (_, layer, precision), found in by_layer.items():
        first = found.get("forward") or next(iter(found.values()))
        cells = [_time(found[way], times) if way in found else "" for way in ways]
        start = f"| {layer} | {precision} | {1e6 * first.floor:.3g} | {first.bound} | {_short(first)} |"
        lines.append(f"{start} {' | '.join(cells)} |")
    return lines


def text(tree: Path, against: Path | None = None, compile_kernels: bool = True) -> str:
    """The whole page."""
    times = None if against is None else measured(against)
    convs = [predict(work) for work in convolutions(BATCH, NETWORKS, dry=False)]
    rest = [predict(work) for work in memory_bound(BATCH, NETWORKS, dry=False)]
    order = {precision: i for i, precision in enumerate(RATES)}
    convs.sort(key=lambda p: order[p.work.precision])
    rates = ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in RATES.items())
    assumed = "; ".join(f"/{k.pattern or 'any other'}/ {k.share:.0%} of {k.unit} rate" for k in KINDS)
    unit = f"Times are in µs, for channels-last arrays and {BATCH} images."
    if times is not None:
        unit += f' Predicted / measured (measured over predicted); measured is stage "ours" of {against}.'
    lines = [
        "# Predicted, never measured",
        "",
        "Made by `python -m bench predict`. No figure here was taken on a GPU, but for those that say measured.",
        unit,
        "",
        f"Ceilings taken for an H200: {rates}, {BANDWIDTH / 1e12:.1f} TB/s copied.",
        f"Assumed, by the kernel's name: {assumed}; memory at {MEMORY_SHARE:.0%} of the bandwidth;",
        f"{WARPS} warps keep a processor busy; {1e6 * LAUNCH:.1f} µs a launch. The floor is of perfect kernels.",
        f"{THREAD_BYTES} bytes a thread, or its shared memory, are in flight for {1e6 * LATENCY:.1f} µs.",
        f"Waves: blocks over what {PROCESSORS} processors hold at once, by threads and shared memory.",
        "",
        "## Convolutions",
        "",
        *layers(convs, times),
        "",
        "## Pooling, normalisation in training, ReLU",
        "",
        *layers(rest, times),
    ]
    kernels = census.census(tree) if compile_kernels else None
    if kernels is not None:
        lines += ["", "## Kernel instances for sm_90a, as nvcc compiles them", ""]
        lines += ["PTX instructions are counted as they are written, whatever loops they are in.", ""]
        lines += census.table(kernels)
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str], tree: Path) -> int:
    """``bench predict``."""
    parser = argparse.ArgumentParser(
        prog="bench predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", type=Path, metavar="gpu_day.json", help="put its measured times beside the predicted"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write there instead of printing")
    parser.add_argument("--no-nvcc", action="store_true", help="leave out the table of kernel instances")
    options = parser.parse_args(argv)
    page = text(tree, options.against, not options.no_nvcc)
    if options.out is None:
        print(page, end="")
    else:
        options.out.write_text(page, encoding="utf-8")
    return 0
