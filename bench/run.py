"""Runs tasks: first the check, then the times; a row is a dictionary of plain values, ready for JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import backend, config, roofline

from . import block_tasks, call_tasks, conv_tasks, norm_tasks, pool_tasks
from .measure import Effort, interleaved
from .peers import Torch
from .task import Task, arrange, oracle

Row = dict[str, Any]

OPERATIONS = (
    *("conv", "conv_packed", "conv_backward", "depthwise", "pool", "norm", "norm_relu", "relu"),
    *("layout", "block", "call"),
)


def tasks(operation: str, batch: int) -> Iterator[Task]:
    """All rows of one of `OPERATIONS`; those after the convolutions come both ways."""
    if operation in ("conv", "conv_backward"):
        yield from conv_tasks.tasks(batch, operation == "conv_backward", depthwise=False)
    elif operation == "conv_packed":
        yield from conv_tasks.packed_tasks(batch)
    elif operation == "layout":
        yield from norm_tasks.layout_tasks(batch)
    elif operation == "block":
        yield from block_tasks.tasks(batch)
    elif operation == "call":
        yield from call_tasks.tasks()
    else:
        for backward in (False, True):
            if operation == "depthwise":
                yield from conv_tasks.tasks(batch, backward, depthwise=True)
            elif operation == "pool":
                yield from pool_tasks.tasks(batch, backward)
            elif operation == "norm":
                yield from norm_tasks.tasks(batch, backward)
            elif operation == "norm_relu":
                yield from norm_tasks.norm_relu_tasks(batch, backward)
            else:
                yield from norm_tasks.relu_tasks(batch, backward)


@dataclass(frozen=True)
class Settings:
    """What one run keeps for all its rows."""

    layouts: Sequence[str]
    dtype: np.dtype
    threads: int
    batch: int
    effort: Effort
    torch: Torch | None


def set_threads(threads: int, torch: Torch | None) -> None:
    """Let both libraries use `threads`; the reference backend has no threads of its own."""
    if backend.get_backend() != "reference":
        fc.set_num_threads(threads)
    if torch is not None:
        torch.set_threads(threads)


def _rounded(value: float) -> float:
    """Six digits are more than a clock gives, and keep result files short."""
    return float(f"{value:.6g}")


def row(task: Task, settings: Settings) -> Row:
    """Check one task, and time it if every layout passed."""
    native = backend.native() if backend.get_backend() != "reference" else None
    arrays, torch = task.arrays(settings.dtype), settings.torch
    expected = oracle(task, arrays, torch)
    calls, error = {}, 0.0
    if native is not None:
        native.reset_workspace_peak()
    for layout in settings.layouts:
        arranged = arrange(arrays, layout)
        if arranged is not None:
            calls[layout] = task.ours(arranged)
            error = max(error, expected.error(calls[layout]()))
    workspace = native.workspace_peak() if native is not None else None
    if torch is not None:
        for layout in settings.layouts:
            arranged = arrange(arrays, layout)
            if arranged is not None:
                calls[f"torch {layout}"] = task.torch(torch, torch.tensors(arranged, layout == "nhwc"))
    passed = error <= 1
    del expected
    timings = interleaved(calls, settings.effort) if passed else {}
    return {
        "op": task.op,
        "kind": task.kind,
        "layer": task.layer,
        "shape": task.shape,
        "dtype": settings.dtype.name,
        "threads": settings.threads,
        "batch": settings.batch,
        "precision": config.get_float32_precision() if native is not None else "highest",
        "flops": task.flops,
        "bytes": task.bytes // 4 * settings.dtype.itemsize,
        "workspace": workspace,
        "check": {"passed": passed, "error over bound": error if np.isfinite(error) else None},
        "times": {
            name: {
                "ms": _rounded(1e3 * t.seconds),
                "spread": _rounded(t.spread),
                "blocks": [_rounded(1e3 * s) for s in t.blocks],
            }
            for name, t in timings.items()
        },
    }


def ceilings(threads: int, dtype: np.dtype, torch: Torch | None, effort: Effort) -> dict[str, float] | None:
    """FMA peak and copy bandwidth with this number of threads, measured now.

    Where convolutions take bfloat16 products also what these, as many as dtype and precision take, come to: "amx", or
    "bf16" for those of vector registers.

    NumPy's are those of all cores. All are lower limits of the hardware, so the highest measurement counts. None where
    neither NumPy nor torch measures with this number.
    """
    native = backend.native() if backend.get_backend() != "reference" else None
    wide = "float64" if dtype == np.float64 else "float32"
    found: list[roofline.Ceilings] = []
    if threads == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()):
        found.append(roofline.measure(wide))
    if torch is not None:
        module = torch.module
        a = module.full((1024, 1024), 0.5, dtype=getattr(module, wide))
        source = module.full((24 << 20,), 1.0)
        out, target = module.empty_like(a), module.empty_like(source)
        calls = {"peak": lambda: module.mm(a, a, out=out), "copy": lambda: target.copy_(source)}
        best = {name: min(t.blocks) for name, t in interleaved(calls, effort).items()}
        found.append(roofline.Ceilings(2 * 1024**3 / best["peak"], 2 * 4 * (24 << 20) / best["copy"]))
    if not found:
        return None
    ours = native.fma_peak(wide == "float64") if native is not None else 0.0
    limits = {"flops": max(ours, *(c.flops for c in found)), "bandwidth": max(c.bandwidth for c in found)}
    products = 1 if dtype.name == "bfloat16" else {"highest": 6, "high": 3, "medium": 1}[config.get_float32_precision()]
    tiles = native.tile_peak() if native is not None and dtype.name in ("float32", "bfloat16") else 0
    if native is None or not tiles:
        return limits
    if native.isa() == "amx":
        return {**limits, "amx": tiles / products}
    return {**limits, "bf16": tiles} if products == 1 else limits


def environment(torch: Torch | None) -> dict[str, Any]:
    """What the numbers depend on: processor, versions, instruction set."""
    report = config.configuration()
    names = [
        line.partition(":")[2].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ())
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(names) or None,
        "system": report["machine"],
        "backend": report["backend"],
        "isa": report.get("isa"),
        "fastconv": report["fastconv"],
        "numpy": report["numpy"],
        "python": report["python"],
        "peer": torch.name if torch is not None else None,
    }
