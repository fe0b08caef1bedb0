"""Convolutions, dense and depthwise: forward, and the gradients of input and weight together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import fastconv.nn.functional as F

from .peers import symmetric
from .shapes import CONVS, ConvCase
from .task import Arrays, Call, Task, absolute, peer

# One layer of each kind of shape in each network: what a run times that names no layers.
REPRESENTATIVE = frozenset(
    {
        *(f"resnet50-conv{name}" for name in ("1", "2_3x3", "2_expand", "2_reduce", "3a_3x3_s2", "3_3x3", "3_expand")),
        *(f"resnet50-conv{name}" for name in ("4_3x3", "4_expand", "4a_skip_s2", "5_3x3", "5_expand")),
        *(f"vgg16-conv{name}" for name in ("1_2", "2_2", "3_2", "4_2", "5")),
        *(f"googlenet-{name}" for name in ("3a_5x5", "4a_1x1", "4e_3x3")),
        *(f"alexnet-conv{name}" for name in ("1", "2")),
        *(f"mobilenetv2-{name}" for name in ("pw2_expand", "pw5_expand", "last")),
        *(f"densenet121-{name}" for name in ("block2_3x3", "block3_bottleneck")),
        *("lenet-conv1", "keras_mnist-conv2"),
    }
)


def _draw(case: ConvCase, rng: np.random.Generator) -> Arrays:
    scale = (2 / case.terms) ** 0.5  # He et al. 2015: outputs of the inputs' size
    return {
        "x": rng.standard_normal(case.x_shape, np.float32),
        "w": rng.standard_normal(case.w_shape, np.float32) * np.float32(scale),
        "dy": rng.standard_normal(case.y_shape, np.float32),
    }


def _options(case: ConvCase) -> dict[str, Any]:
    padding = symmetric(case)
    return {"stride": case.stride, "padding": padding, "dilation": case.dilation, "groups": case.groups}


def _forward(case: ConvCase, a: Arrays) -> Call:
    return partial(F.conv2d, a["x"], a["w"], None, **_options(case))


def _packed(case: ConvCase, a: Arrays) -> Call:
    return partial(F.conv2d, a["x"], F.pack_weight(a["w"]), None, **_options(case))


def _backward(case: ConvCase, a: Arrays) -> Call:
    _, pullback = F.conv2d.vjp(a["x"], a["w"], **_options(case))
    return partial(pullback, a["dy"])


def _shape(case: ConvCase) -> str:
    stride = f" s{case.stride[0]}" if case.stride[0] > 1 else ""
    return f"{case.C}x{case.H}x{case.W} -> {case.K}, {case.R}x{case.S}{stride}"


def packed_tasks(batch: int) -> Iterator[Task]:
    """The dense convolutions forward with weights that were packed before: `F.pack_weight`."""
    for task in tasks(batch, backward=False, depthwise=False):
        case = next(named for named in CONVS if str(named) == task.layer)
        yield replace(task, op="conv_packed", ours=partial(_packed, replace(case, N=batch)))


def tasks(batch: int, backward: bool, depthwise: bool) -> Iterator[Task]:
    """One way of every convolution of the list, dense or depthwise."""
    for named in CONVS:
        if named.depthwise is not depthwise:
            continue
        case = replace(named, N=batch)
        x, w, y = (int(np.prod(shape)) for shape in (case.x_shape, case.w_shape, case.y_shape))
        kind = "depthwise" if depthwise else "conv"
        if backward:
            yield Task(
                op=f"{kind}_backward",
                layer=str(case),
                shape=_shape(case),
                flops=2 * case.flops,
                bytes=4 * (2 * x + 2 * w + y),
                draw=partial(_draw, case),
                ours=partial(_backward, case),
                torch=peer("conv_backward", case),
                magnitude=absolute,
                terms=(case.K // case.groups * case.R * case.S, batch * case.P * case.Q),
            )
        else:
            yield Task(
                op=kind,
                layer=str(case),
                shape=_shape(case),
                flops=case.flops,
                bytes=4 * (x + w + y),
                draw=partial(_draw, case),
                ours=partial(_forward, case),
                torch=peer("conv", case),
                magnitude=absolute,
                terms=(case.terms,),
            )
