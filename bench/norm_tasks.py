"""Normalisation and ReLU, forward and backward, and changes of the memory layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import fastconv as fc
import fastconv.nn.functional as F

from .shapes import NORMS, NormCase
from .task import Arrays, Call, Evaluate, Outputs, Task, absolute_gradient, itself, peer, selected

_AXES = (0, 2, 3)
_EPS = 1e-5


def _draw(case: NormCase, rng: np.random.Generator) -> Arrays:
    return {
        "x": rng.standard_normal(case.x_shape, np.float32) + np.float32(0.5),
        "dy": rng.standard_normal(case.x_shape, np.float32),
        "w": rng.uniform(0.5, 2, case.C).astype(np.float32),
        "b": rng.standard_normal(case.C, np.float32),
        "mean": np.zeros(case.C, np.float32),
        "variance": np.ones(case.C, np.float32),
    }


def _training(function: Any, a: Arrays) -> Call:
    """A call of batch_norm, alone or with ReLU, or of its vjp."""
    # A training call updates its running statistics in place: every caller has its own.
    mean, variance = a["mean"].copy(), a["variance"].copy()
    return partial(function, a["x"], mean, variance, a["w"], a["b"], training=True)


def _batch_norm(case: NormCase, a: Arrays) -> Call:
    return _training(F.batch_norm, a)


def _batch_norm_backward(case: NormCase, a: Arrays) -> Call:
    return partial(_training(F.batch_norm.vjp, a)()[1], a["dy"])


def _batch_norm_relu(case: NormCase, a: Arrays) -> Call:
    return _training(F.batch_norm_relu, a)


def _batch_norm_relu_backward(case: NormCase, a: Arrays) -> Call:
    return partial(_training(F.batch_norm_relu.vjp, a)()[1], a["dy"])


def _local_response_norm(case: NormCase, a: Arrays) -> Call:
    return partial(F.local_response_norm, a["x"], case.size)


def _relu(case: NormCase, a: Arrays) -> Call:
    return partial(F.relu, a["x"])


def _relu_backward(case: NormCase, a: Arrays) -> Call:
    _, pullback = F.relu.vjp(a["x"])
    return partial(pullback, a["dy"])


def _layout(case: NormCase, a: Arrays) -> Call:
    return partial(fc.channels_last if a["x"].flags.c_contiguous else fc.channels_first, a["x"])


def _normalised(a: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """|x - mean| and 1 / deviation, as far as rounding sees them: |x| + E|x| stands for the difference."""
    x = a["x"].astype(np.float64)
    invstd = 1 / np.sqrt(x.var(axis=_AXES, keepdims=True) + _EPS)
    np.abs(x, out=x)
    return (x + x.mean(axis=_AXES, keepdims=True)) * invstd, invstd


def _channels(v: np.ndarray) -> np.ndarray:
    return np.abs(v.astype(np.float64)).reshape(1, -1, 1, 1)


def _magnitude(a: Arrays, outputs: Outputs, evaluate: Evaluate) -> tuple[Any, ...]:
    distance, _ = _normalised(a)
    return (distance * _channels(a["w"]) + _channels(a["b"]),)


def _magnitude_backward(a: Arrays, outputs: Outputs, evaluate: Evaluate) -> tuple[Any, ...]:
    distance, invstd = _normalised(a)
    dy = np.abs(a["dy"].astype(np.float64))
    along = (dy * distance).mean(axis=_AXES, keepdims=True)
    count = dy.size / dy.shape[1]
    dx = (dy + dy.mean(axis=_AXES, keepdims=True) + distance * along) * invstd * _channels(a["w"])
    return dx, along.reshape(-1) * count, dy.sum(axis=_AXES)


def _magnitude_relu_backward(a: Arrays, outputs: Outputs, evaluate: Evaluate) -> tuple[Any, ...]:
    """Where rounding decides whether the normalised value is above 0, the gradient may be there or not."""
    dx, *rest = _magnitude_backward(a, outputs, evaluate)
    distance, invstd = _normalised(a)
    x, w, b = (a[name].astype(np.float64) for name in ("x", "w", "b"))
    y = (x - x.mean(axis=_AXES, keepdims=True)) * invstd * w.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)
    undecided = np.abs(y) < 1e-6 * (distance * _channels(w) + _channels(b))
    return np.where(undecided, np.inf, dx), *rest


# Operation: call, magnitude, operations an element, arrays of x's size that it must read and write. In the training
# forward: mean 1, variance 3, scale and shift 2; in the backward: two sums of 4, and 5 for dx.
_FORWARD: dict[str, tuple[Any, Any, int, int]] = {
    "batch": (_batch_norm, _magnitude, 6, 2),
    "local_response": (_local_response_norm, itself, 9, 2),
}


def _task(op: str, name: str, case: NormCase, call: Any, magnitude: Any, flops: int, arrays: int, terms: int) -> Task:
    elements = int(np.prod(case.x_shape))
    return Task(
        op=op,
        layer=str(case),
        shape=f"{case.C}x{case.H}x{case.W}" + ("" if case.kind == "batch" else f" {case.kind}"),
        flops=flops * elements,
        bytes=4 * arrays * elements,
        draw=partial(_draw, case),
        ours=partial(call, case),
        torch=peer(name, case),
        magnitude=magnitude,
        terms=(terms,) * 3,  # batch_norm_backward has three outputs, the others one
        kind=case.kind,
    )


def tasks(batch: int, backward: bool) -> Iterator[Task]:
    """Batch normalisation in training, both ways; local response normalisation forward."""
    for named in NORMS:
        case = replace(named, N=batch)
        if backward and case.kind != "batch":
            continue
        terms = batch * case.H * case.W + 8 if case.kind == "batch" else case.size + 16
        if backward:
            rest = ("batch_norm_backward", case, _batch_norm_backward, _magnitude_backward, 13, 3, terms)
            yield _task("norm_backward", *rest)
        else:
            call, magnitude, flops, arrays = _FORWARD[case.kind]
            yield _task("norm", f"{case.kind}_norm", case, call, magnitude, flops, arrays, terms)


def norm_relu_tasks(batch: int, backward: bool) -> Iterator[Task]:
    """Batch normalisation and ReLU as one operation, in training."""
    for named in NORMS:
        if named.kind != "batch":
            continue
        case, terms = replace(named, N=batch), batch * named.H * named.W + 8
        if backward:
            rest = ("batch_norm_relu_backward", case, _batch_norm_relu_backward, _magnitude_relu_backward, 14, 3, terms)
            yield _task("norm_relu_backward", *rest)
        else:
            yield _task("norm_relu", "batch_norm_relu", case, _batch_norm_relu, _magnitude, 7, 2, terms)


def relu_tasks(batch: int, backward: bool) -> Iterator[Task]:
    """ReLU where a few networks have it, from the caches to memory."""
    for network, name, channels, size in (
        ("vgg16", "relu1", 64, 224),
        ("resnet50", "relu1", 64, 112),
        ("resnet50", "relu4", 256, 14),
        ("lenet", "relu1", 6, 28),
    ):
        case = NormCase(name, network, "batch", batch, channels, size, size)
        if backward:
            yield _task("relu_backward", "relu_backward", case, _relu_backward, absolute_gradient, 1, 3, 1)
        else:
            yield _task("relu", "relu", case, _relu, selected, 1, 2, 1)


def layout_tasks(batch: int) -> Iterator[Task]:
    """Into the other memory layout: pictures, and images of networks from the caches to memory."""
    for network, name, channels, size in (
        ("vgg16", "images", 3, 224),
        ("resnet50", "layout1", 64, 112),
        ("resnet50", "layout2", 256, 56),
        ("resnet50", "layout4", 1024, 14),
        ("googlenet", "layout4", 112, 14),
        ("resnet50", "layout5", 512, 7),
    ):
        case = NormCase(name, network, "batch", batch, channels, size, size)
        yield _task("layout", "layout", case, _layout, selected, 1, 2, 1)
