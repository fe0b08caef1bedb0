"""Activations and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from .case import Arguments, Case, absolute_gradient, relative, selected

_SHAPES = ((1,), (2, 3, 5, 7), (3, 17), (4, 16, 28, 28))
_OPTIONS: dict[str, Arguments] = {"hardtanh": (-0.5, 0.75), "leaky_relu": (0.125,)}


def _elementwise(op: str, shape: tuple[int, ...], last: bool = False) -> Iterator[Case]:
    label = "x".join(map(str, shape)) + " nhwc" * last
    group = "layers" if np.prod(shape) > 10_000 else "edge"
    options = _OPTIONS.get(op, ())

    def forward(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(shape), *options

    def backward(rng: np.random.Generator) -> Arguments:
        dy, x = rng.standard_normal(shape), rng.standard_normal(shape)
        # ReLU's gradient is taken from its output.
        return dy, np.maximum(x, 0) if op == "relu" else x, *options

    scaled = op == "leaky_relu"
    forward_magnitude, backward_magnitude = (relative, absolute_gradient) if scaled else (selected, selected)
    yield Case(f"{op}_forward", label, group, forward, int(scaled), forward_magnitude, None, last)
    yield Case(f"{op}_backward", label, group, backward, int(scaled), backward_magnitude, None, last)


def _relu_in_place(shape: tuple[int, ...]) -> Case:
    def invoke(module: ModuleType, arguments: Arguments) -> Any:
        x = arguments[0].copy()
        module.relu_forward(x, True)
        return x

    def draw(rng: np.random.Generator) -> Arguments:
        return (rng.standard_normal(shape),)

    return Case("relu_forward", "x".join(map(str, shape)) + " inplace", "edge", draw, 0, selected, invoke)


def _prelu(shape: tuple[int, ...], slopes: int, last: bool = False) -> Iterator[Case]:
    label = f"{'x'.join(map(str, shape))} slopes{slopes}" + " nhwc" * last

    def forward(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(shape), rng.uniform(0, 0.5, slopes)

    def backward(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(shape), *forward(rng)

    terms = int(np.prod(shape)) // (slopes if slopes > 1 else 1)
    yield Case("prelu_forward", label, "edge", forward, 1, relative, None, last)
    yield Case("prelu_backward", label, "edge", backward, terms, absolute_gradient, None, last)


def cases() -> Iterator[Case]:
    """Every case of this family."""
    for op in ("relu", "hardtanh", "leaky_relu"):
        for shape in _SHAPES:
            yield from _elementwise(op, shape)
        yield from _elementwise(op, (2, 17, 5, 6), last=True)
    yield _relu_in_place((3, 5, 7))
    yield from _prelu((2, 5, 4, 3), 1)
    yield from _prelu((2, 17, 6, 5), 17)
    yield from _prelu((2, 17, 6, 5), 17, last=True)
    yield from _prelu((4, 3), 3)
