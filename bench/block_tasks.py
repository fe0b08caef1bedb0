"""Blocks of MobileNetV2 for inference, as `fastconv.optimize` computes them; torch goes through their layers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
import fastconv.nn as nn

from .peers import Torch
from .task import Arrays, Call, Task, absolute


class Block(NamedTuple):
    """Sandler et al. 2018: 1x1 to `wide` channels, 3x3 depthwise, 1x1 to `out` channels; ReLU6 after the first two."""

    name: str
    channels: int
    size: int
    wide: int
    out: int
    stride: int

    @property
    def out_size(self) -> int:
        return (self.size - 1) // self.stride + 1

    def products(self, batch: int) -> int:
        before, after = batch * self.size**2, batch * self.out_size**2
        return before * self.channels * self.wide + after * self.wide * (9 + self.out)


BLOCKS = (
    Block("block2", 16, 112, 96, 24, 2),
    Block("block3", 24, 56, 144, 24, 1),
    Block("block4", 24, 56, 144, 32, 2),
    Block("block5", 32, 28, 192, 32, 1),
    Block("block8", 64, 14, 384, 64, 1),
    Block("block12", 96, 14, 576, 96, 1),
)


def _draw(case: Block, batch: int, rng: np.random.Generator) -> Arrays:
    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)

    return {
        "x": rng.standard_normal((batch, case.channels, case.size, case.size), np.float32),
        "expand": weight(case.wide, case.channels, 1, 1),
        "depthwise": weight(case.wide, 1, 3, 3),
        "project": weight(case.out, case.wide, 1, 1),
    }


def _ours(case: Block, a: Arrays) -> Call:
    wide, out = case.wide, case.out
    dtype = a["x"].dtype
    layers = {
        "expand": nn.Conv2d(case.channels, wide, 1, bias=False, dtype=dtype),
        "depthwise": nn.Conv2d(wide, wide, 3, case.stride, 1, groups=wide, bias=False, dtype=dtype),
        "project": nn.Conv2d(wide, out, 1, bias=False, dtype=dtype),
    }
    for name, layer in layers.items():
        layer.weight.data[...] = a[name]
    expand, depthwise, project = layers.values()
    net = nn.Sequential(expand, nn.ReLU6(), depthwise, nn.ReLU6(), project).eval()
    return partial(fc.optimize(net, (1, *a["x"].shape[1:])), a["x"])


def _torch(case: Block, torch: Torch, t: Any) -> Call:
    f = torch.module.nn.functional
    layout = {"memory_format": torch.module.channels_last} if not t["x"].is_contiguous() else {}
    expand, depthwise, project = (t[name].to(**layout) for name in ("expand", "depthwise", "project"))

    def call() -> Any:
        y = torch.module.clamp_(f.conv2d(t["x"], expand), 0, 6)
        y = torch.module.clamp_(f.conv2d(y, depthwise, None, case.stride, 1, 1, case.wide), 0, 6)
        return f.conv2d(y, project)

    return call


def tasks(batch: int) -> Iterator[Task]:
    """Every block of the list."""
    for case in BLOCKS:
        x, y = (
            batch * channels * size**2 for channels, size in ((case.channels, case.size), (case.out, case.out_size))
        )
        weights = case.wide * (case.channels + 9 + case.out)
        stride = f" s{case.stride}" if case.stride > 1 else ""
        yield Task(
            op="block",
            layer=f"mobilenetv2-{case.name}",
            shape=f"{case.channels}x{case.size}x{case.size} -> {case.wide} -> {case.out}{stride}",
            flops=2 * case.products(batch),
            bytes=4 * (x + weights + y),
            draw=partial(_draw, case, batch),
            ours=partial(_ours, case),
            torch=partial(_torch, case),
            magnitude=absolute,
            terms=(case.channels + 9 + case.wide,),
        )
