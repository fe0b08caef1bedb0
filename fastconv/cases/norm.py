"""Normalisation: batch (alone and with ReLU), instance and local response, with gradients.

The magnitudes follow from the formulas: with d = |x| + E|x| standing for the error of x - mean, the output is of the
order d * invstd * |weight| + |bias|, and each term of the gradient is taken by its absolute value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from .. import reference
from .case import Arguments, Case

_EPS, _MOMENTUM = 1e-5, 0.1


def _statistics(array: np.ndarray | None, x: np.ndarray) -> np.ndarray | None:
    """Saved statistics are float64 for float64 data and float32 for the rest."""
    return None if array is None else array.astype(np.float64 if x.dtype == np.float64 else np.float32)


class _Norm:
    """What batch_norm and instance_norm share: the axes of the reduction and the shapes that broadcast over them."""

    def __init__(self, kind: str, shape: tuple[int, ...], affine: bool, from_input: bool, channels_last: bool) -> None:
        self.kind, self.shape, self.affine, self.from_input = kind, shape, affine, from_input
        self.channels_last = channels_last
        self.axes = tuple(range(2, len(shape)))
        if kind == "batch_norm":
            self.axes = (0, *self.axes)
        self.count = math.prod(shape[axis] for axis in self.axes)
        self.label = "x".join(map(str, shape)) + (" affine" if affine else "")
        self.label += (" training" if from_input else " evaluation") + " nhwc" * channels_last

    def per_channel(self, a: np.ndarray | None, default: float) -> Any:
        """(C,) or (N, C) statistics in a shape that broadcasts with x."""
        if a is None:
            return default
        trailing = (1,) * (len(self.shape) - 2)
        return a.reshape(*a.shape, *trailing) if a.ndim == 2 else a.reshape(1, -1, *trailing)

    def over(self, a: np.ndarray) -> np.ndarray:
        """Mean over the reduction, broadcastable."""
        return a.mean(axis=self.axes, keepdims=True)

    def draw_forward(self, rng: np.random.Generator) -> Arguments:
        channels = self.shape[1]
        x = rng.standard_normal(self.shape) + 0.5
        w, b = (rng.uniform(0.5, 2, channels), rng.standard_normal(channels)) if self.affine else (None, None)
        return x, w, b, rng.standard_normal(channels), rng.uniform(0.5, 2, channels)

    def forward(self, module: ModuleType, arguments: Arguments) -> Any:
        x, w, b, mean, var = arguments
        mean, var = mean.copy(), var.copy()
        outputs = getattr(module, f"{self.kind}_forward")(x, w, b, mean, var, self.from_input, _MOMENTUM, _EPS)
        return (*outputs, mean, var)

    def magnitude_forward(self, case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
        x, w, b, mean, var = arguments
        _, _, invstd, _, _ = outputs
        center = self.over(np.abs(x)) if self.from_input else np.abs(self.per_channel(mean, 0))
        distance = (np.abs(x) + center) * self.per_channel(invstd, 1)
        y = distance * np.abs(self.per_channel(w, 1)) + np.abs(self.per_channel(b, 0))
        lead = invstd.shape if invstd.ndim == 2 else (1, *invstd.shape)
        average = np.broadcast_to(center, lead + center.shape[2:]).reshape(invstd.shape)
        # Running variance: the largest second moment of a channel stands for all of them.
        spread = np.abs(var) + (float((x * x).max(initial=0.0)) if self.from_input else 0.0)
        return y, average, np.abs(invstd), np.abs(mean) + average.max(initial=0.0), spread

    def draw_backward(self, rng: np.random.Generator) -> Arguments:
        x, w, _, mean, var = self.draw_forward(rng)
        dy = rng.standard_normal(self.shape)
        if self.from_input:
            mean = x.mean(axis=self.axes)
            invstd = 1 / np.sqrt(x.var(axis=self.axes) + _EPS)
        elif self.kind == "instance_norm":
            mean, invstd = (np.tile(a, (self.shape[0], 1)) for a in (mean, 1 / np.sqrt(var + _EPS)))
        else:
            invstd = 1 / np.sqrt(var + _EPS)
        return dy, x, w, mean, invstd

    def backward(self, module: ModuleType, arguments: Arguments) -> Any:
        dy, x, w, mean, invstd = arguments
        saved = _statistics(mean, x), _statistics(invstd, x)
        return getattr(module, f"{self.kind}_backward")(dy, x, w, *saved, self.from_input)

    def magnitude_backward(self, case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
        dy, x, w, mean, invstd = arguments
        scale = self.per_channel(invstd, 1)
        normalised = (np.abs(x) + np.abs(self.per_channel(mean, 0))) * scale
        dx = np.abs(dy)
        if self.from_input:
            dx = dx + self.over(np.abs(dy)) + normalised * self.over(np.abs(dy) * normalised)
        every = tuple(axis for axis in range(x.ndim) if axis != 1)
        return (
            dx * scale * np.abs(self.per_channel(w, 1)),
            (np.abs(dy) * normalised).sum(axis=every),
            np.abs(dy).sum(axis=every),
        )

    def cases(self) -> Iterator[Case]:
        group = "layers" if self.count > 300 else "edge"
        rest = {"channels_last": self.channels_last}
        terms = self.count + 8
        for way, draw, magnitude, call in (
            ("forward", self.draw_forward, self.magnitude_forward, self.forward),
            ("backward", self.draw_backward, self.magnitude_backward, self.backward),
        ):
            yield Case(f"{self.kind}_{way}", self.label, group, draw, terms, magnitude, call, **rest)


class _NormRelu(_Norm):
    """batch_norm_relu: forward with a residual and a limit, backward with neither."""

    def __init__(self, shape: tuple[int, ...], affine: bool, from_input: bool, channels_last: bool) -> None:
        super().__init__("batch_norm", shape, affine, from_input, channels_last)
        self.kind = "batch_norm_relu"

    def draw_forward(self, rng: np.random.Generator) -> Arguments:
        return *super().draw_forward(rng), rng.standard_normal(self.shape)

    def forward(self, module: ModuleType, arguments: Arguments) -> Any:
        x, w, b, mean, var, residual = arguments
        rest = self.from_input, _MOMENTUM, _EPS, residual, 2.0
        return module.batch_norm_relu_forward(x, w, b, mean.copy(), var.copy(), *rest)

    def magnitude_forward(self, case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
        *rest, residual = arguments
        _, (mean, invstd, scale, offset) = outputs
        y, average, *_ = super().magnitude_forward(case, tuple(rest), (outputs[0], mean, invstd, mean, mean))
        scale = np.abs(scale)
        # The offset makes up for what rounding the mean loses.
        return y + np.abs(residual), np.stack([average, invstd, scale, np.abs(offset) + average * scale])

    def draw_backward(self, rng: np.random.Generator) -> Arguments:
        x, w, b, mean, var, dy = self.draw_forward(rng)
        if self.from_input:
            mean, var = x.mean(axis=self.axes), x.var(axis=self.axes)
        invstd = 1 / np.sqrt(var + _EPS)
        scale, offset = (invstd, np.zeros_like(mean)) if w is None else (invstd * w, b)
        return dy, x, w, np.stack([mean, invstd, scale, offset])

    def backward(self, module: ModuleType, arguments: Arguments) -> Any:
        dy, x, w, saved = arguments
        return module.batch_norm_relu_backward(dy, x, w, _statistics(saved, x), self.from_input, math.inf)

    def magnitude_backward(self, case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
        dy, x, w, saved = arguments
        return super().magnitude_backward(case, (dy, x, w, saved[0], saved[1]), outputs)


def _response_norm(shape: tuple[int, ...], size: int, beta: float, last: bool = False) -> Iterator[Case]:
    options = (size, 0.5, beta, 1.5)

    def forward(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(shape), *options

    def backward(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(shape), rng.standard_normal(shape), *options

    def magnitude(case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
        return tuple(np.abs(y) for y in outputs)

    def magnitude_gradient(case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
        dy, x = np.abs(arguments[0]), np.abs(arguments[1])
        y = reference.local_response_norm_forward(x, *options)
        direct = dy * np.divide(y, x, out=np.zeros_like(x), where=x > 0)
        # dx = direct - cross with both terms positive here; the magnitude is their sum.
        return (2 * direct - reference.local_response_norm_backward(dy, x, *options),)

    label = f"{'x'.join(map(str, shape))} size{size} beta{beta:g}" + " nhwc" * last
    terms = size + 16
    yield Case("local_response_norm_forward", label, "edge", forward, terms, magnitude, None, last)
    yield Case("local_response_norm_backward", label, "edge", backward, terms, magnitude_gradient, None, last)


def cases() -> Iterator[Case]:
    """Every case of this family."""
    for shape, last in (
        ((4, 3), False),
        ((2, 17, 5, 7), False),
        ((3, 33, 4, 5), True),
        ((2, 5, 9), False),
        ((2, 4, 3, 4, 5), False),
        ((2, 64, 28, 28), False),
        ((2, 64, 28, 28), True),
    ):
        for affine, from_input in ((True, True), (False, True), (True, False)):
            yield from _Norm("batch_norm", shape, affine, from_input, last).cases()
            yield from _NormRelu(shape, affine, from_input, last).cases()
            if len(shape) > 2:
                yield from _Norm("instance_norm", shape, affine, from_input, last).cases()
    yield from _response_norm((2, 9, 4, 5), 5, 0.75)
    yield from _response_norm((1, 17, 6, 5), 4, 0.75, last=True)
    yield from _response_norm((2, 3, 7), 7, 0.6)
