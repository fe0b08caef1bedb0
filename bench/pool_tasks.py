"""Pooling, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import fastconv.nn.functional as F

from .shapes import POOLS, PoolCase
from .task import Arrays, Call, Task, absolute, absolute_gradient, peer, selected


def _draw(case: PoolCase, backward: bool, rng: np.random.Generator) -> Arrays:
    arrays = {"x": rng.standard_normal(case.x_shape, np.float32)}
    return {**arrays, "dy": rng.standard_normal(case.y_shape, np.float32)} if backward else arrays


def _function(case: PoolCase) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    if case.kind == "adaptive_avg":
        return F.adaptive_avg_pool2d, (case.kernel,), {}
    function = F.max_pool2d if case.kind == "max" else F.avg_pool2d
    return function, (case.kernel, case.stride, case.padding), {"ceil_mode": case.ceil_mode}


def _forward(case: PoolCase, a: Arrays) -> Call:
    function, options, keywords = _function(case)
    return partial(function, a["x"], *options, **keywords)


def _backward(case: PoolCase, a: Arrays) -> Call:
    function, options, keywords = _function(case)
    _, pullback = function.vjp(a["x"], *options, **keywords)
    return partial(pullback, a["dy"])


def tasks(batch: int, backward: bool) -> Iterator[Task]:
    """One way of every pooling of the list."""
    for named in POOLS:
        case = replace(named, N=batch)
        x, y = int(np.prod(case.x_shape)), int(np.prod(case.y_shape))
        window = -(-x // y) if case.kind == "adaptive_avg" else case.kernel[0] * case.kernel[1]
        size, stride = case.kernel[0], f" s{case.stride[0]}" if case.kind != "adaptive_avg" else ""
        yield Task(
            op="pool_backward" if backward else "pool",
            layer=str(case),
            shape=f"{case.C}x{case.H}x{case.W} {case.kind} {size}x{size}{stride}",
            flops=y * window,
            bytes=4 * (x + y),
            draw=partial(_draw, case, backward),
            ours=partial(_backward if backward else _forward, case),
            torch=peer("pool_backward" if backward else "pool", case),
            magnitude=absolute_gradient if backward else selected if case.kind == "max" else absolute,
            terms=(window,),
            kind=case.kind,
        )
