"""What a call costs beside its arithmetic: one image of 8 x 8 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import fastconv.nn.functional as F

from .peers import Torch
from .task import Arrays, Call, Task, absolute, selected

_SHAPE = (1, 1, 8, 8)


def _draw(rng: np.random.Generator) -> Arrays:
    return {
        "x": rng.standard_normal(_SHAPE, np.float32),
        "w": rng.standard_normal((1, 1, 3, 3), np.float32),
    }


def _call(functional: Any, name: str, a: Any) -> Call:
    arguments = {"conv2d": ("x", "w"), "max_pool2d": ("x",), "relu": ("x",)}[name]
    options = (2,) if name == "max_pool2d" else ()
    return partial(getattr(functional, name), *(a[argument] for argument in arguments), *options)


def _torch_call(name: str, torch: Torch, t: Any) -> Call:
    return _call(torch.module.nn.functional, name, t)


def tasks() -> Iterator[Task]:
    """One call of each of three functions."""
    for name, flops, size, magnitude, terms in (
        ("conv2d", 2 * 36 * 9, 64 + 9 + 36, absolute, 9),
        ("max_pool2d", 64, 64 + 16, selected, 4),
        ("relu", 64, 128, selected, 1),
    ):
        yield Task(
            op="call",
            layer=f"F.{name}",
            shape="1x1x8x8" + (" 3x3" if name == "conv2d" else " 2x2" if name == "max_pool2d" else ""),
            flops=flops,
            bytes=4 * size,
            draw=_draw,
            ours=partial(_call, F, name),
            torch=partial(_torch_call, name),
            magnitude=magnitude,
            terms=(terms,),
            kind=name,
        )
