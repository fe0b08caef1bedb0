"""Pooling in all its forms, with gradients and indices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from .. import reference
from .case import Arguments, Case, absolute, absolute_gradient, relative, selected


@dataclass(frozen=True)
class Pool:
    """Shapes and options of one pooling; `stride` None is that of the window."""

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: int | str | tuple[int, ...] | tuple[tuple[int, int], ...] = 0
    dilation: int = 1
    ceil_mode: bool = False
    channels_last: bool = False
    group: str = "edge"

    @property
    def nd(self) -> int:
        return len(self.kernel)

    @property
    def label(self) -> str:
        parts = ["x".join(map(str, self.shape)), "k" + "x".join(map(str, self.kernel))]
        for name, value, default in (("s", self.stride, None), ("p", self.padding, 0), ("d", self.dilation, 1)):
            if value != default:
                parts.append(name + ("x".join(map(str, value)) if isinstance(value, tuple) else str(value)))
        parts += ["ceil"] * self.ceil_mode + ["nhwc"] * self.channels_last
        return " ".join(parts)

    def case(self, op: str, draw: Any, magnitude: Any, terms: int, note: str = "", invoke: Any = None) -> Case:
        label = f"{self.label} {note}".rstrip()
        return Case(op, label, self.group, draw, terms, magnitude, invoke, self.channels_last)


def _shape_of(y: Any) -> tuple[int, ...]:
    return (y[0] if isinstance(y, tuple) else y).shape


def max_pool_cases(spec: Pool) -> Iterator[Case]:
    """Maximum with and without indices, its gradient through both kinds of indices, and the inverse."""
    options = (spec.kernel, spec.stride, spec.padding, spec.dilation, spec.ceil_mode)
    window = math.prod(spec.kernel)

    def forward(kind: str) -> Any:
        return lambda rng: (rng.standard_normal(spec.shape), *options, spec.nd, kind)

    def backward(rng: np.random.Generator) -> Arguments:
        x = rng.standard_normal(spec.shape)
        y, _ = reference.max_pool_forward(x, *options, spec.nd, "flat")
        return rng.standard_normal(y.shape), x

    def through(kind: str) -> Any:
        def invoke(module: ModuleType, arguments: Arguments) -> Any:
            dy, x = arguments
            saved = module.max_pool_forward(x, *options, spec.nd, kind)[1]
            return module.max_pool_backward(dy, saved, spec.shape, *options, spec.nd)

        return invoke

    yield spec.case("max_pool_forward", forward("none"), selected, 0)
    yield spec.case("max_pool_forward", forward("flat"), selected, 0, "indices")
    yield spec.case("max_pool_backward", backward, absolute_gradient, window, "window", through("window"))
    yield spec.case("max_pool_backward", backward, absolute_gradient, window, "flat", through("flat"))


def max_unpool_cases(spec: Pool) -> Iterator[Case]:
    """Values back to where their maximum was; windows do not overlap here, so the result is unique."""

    def indices(rng: np.random.Generator) -> np.ndarray:
        x = rng.standard_normal(spec.shape)
        return reference.max_pool_forward(x, spec.kernel, None, 0, 1, False, spec.nd, "flat")[1]

    def forward(rng: np.random.Generator) -> Arguments:
        where = indices(rng)
        return rng.standard_normal(where.shape), where, spec.shape[-spec.nd :], spec.nd

    def backward(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(spec.shape), indices(rng), spec.nd

    yield spec.case("max_unpool_forward", forward, selected, 0)
    yield spec.case("max_unpool_backward", backward, selected, 0)


def avg_pool_cases(spec: Pool, count_include_pad: bool = True, divisor: int | None = None) -> Iterator[Case]:
    """Mean and its gradient."""
    options = (spec.kernel, spec.stride, spec.padding, spec.ceil_mode, count_include_pad, divisor, spec.nd)
    note = " ".join(["nopad"] * (not count_include_pad) + [f"div{divisor}"] * (divisor is not None))

    def forward(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(spec.shape), *options

    def backward(rng: np.random.Generator) -> Arguments:
        y = reference.avg_pool_forward(np.zeros(spec.shape), *options)
        return rng.standard_normal(y.shape), spec.shape, *options

    window = math.prod(spec.kernel) + 1
    yield spec.case("avg_pool_forward", forward, absolute, window, note)
    yield spec.case("avg_pool_backward", backward, absolute, window, note)


def lp_pool_cases(spec: Pool, norm: float) -> Iterator[Case]:
    """Power mean of positive values (roots of sums near zero have no useful bound) and its gradient."""
    options = (norm, spec.kernel, spec.stride, spec.ceil_mode, spec.nd)

    def forward(rng: np.random.Generator) -> Arguments:
        return rng.uniform(0.5, 2, spec.shape), *options

    def backward(rng: np.random.Generator) -> Arguments:
        x = rng.uniform(0.5, 2, spec.shape)
        y = reference.lp_pool_forward(x, *options)
        return rng.standard_normal(y.shape), x, y, *options

    # The powers cost a few units beyond the sum.
    terms = math.prod(spec.kernel) + 16
    yield spec.case("lp_pool_forward", forward, relative, terms, f"norm{norm:g}")
    yield spec.case("lp_pool_backward", backward, absolute, terms, f"norm{norm:g}")


def adaptive_cases(shape: tuple[int, ...], size: tuple[int | None, ...], last: bool = False) -> Iterator[Case]:
    """Adaptive mean and maximum with their gradients."""
    nd = len(size)
    label = f"{'x'.join(map(str, shape))}->{'x'.join(map(str, size))}" + " nhwc" * last
    reach = [-(-n // (s or n)) + 1 for n, s in zip(shape[-nd:], size)]
    terms = math.prod(reach) + 1

    def average(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(shape), size, nd

    def average_gradient(rng: np.random.Generator) -> Arguments:
        y = reference.adaptive_avg_pool_forward(np.zeros(shape), size, nd)
        return rng.standard_normal(y.shape), shape, nd

    def maximum(kind: str) -> Any:
        return lambda rng: (rng.standard_normal(shape), size, nd, kind)

    def maximum_gradient(rng: np.random.Generator) -> Arguments:
        x = rng.standard_normal(shape)
        return rng.standard_normal(_shape_of(reference.adaptive_max_pool_forward(x, size, nd, "none"))), x

    def invoke(module: ModuleType, arguments: Arguments) -> Any:
        dy, x = arguments
        saved = module.adaptive_max_pool_forward(x, size, nd, "window")[1]
        return module.adaptive_max_pool_backward(dy, saved, shape, nd)

    yield Case("adaptive_avg_pool_forward", label, "edge", average, terms, absolute, None, last)
    yield Case("adaptive_avg_pool_backward", label, "edge", average_gradient, terms, absolute, None, last)
    yield Case("adaptive_max_pool_forward", label, "edge", maximum("none"), 0, selected, None, last)
    yield Case("adaptive_max_pool_forward", f"{label} indices", "edge", maximum("flat"), 0, selected, None, last)
    yield Case("adaptive_max_pool_backward", label, "edge", maximum_gradient, terms, absolute_gradient, invoke, last)


_WINDOWS = (
    Pool((2, 3, 8, 8), (2, 2)),
    Pool((1, 17, 9, 11), (3, 3), 2, 1),
    Pool((2, 33, 7, 9), (3, 3), 1, 1, channels_last=True),
    Pool((1, 4, 10, 9), (3, 2), (2, 1), (1, 0), ceil_mode=True),
    Pool((3, 5, 6), (2, 3), channels_last=False),
    Pool((0, 3, 6, 6), (2, 2)),
    Pool((2, 5, 19), (4,), 3, 2),
    Pool((1, 3, 6, 5, 7), (2, 3, 2), 2, 1),
    Pool((2, 5, 9, 10), (3, 3), 2, ((0, 1), (2, 0))),
    Pool((1, 34, 8, 7), (3, 2), 1, ((2, 0), (0, 1)), ceil_mode=True, channels_last=True),
    Pool((2, 3, 11, 8), (3, 3), 2, "same"),
    Pool((1, 3, 6, 9, 5), (3, 2, 4), (1, 2, 3), "same", channels_last=True),
    Pool((1, 4, 2, 3), (5, 4), 1, ((4, 4), (3, 0))),
    Pool((1, 64, 28, 28), (3, 3), 2, 1, group="layers"),
    Pool((1, 64, 28, 28), (2, 2), channels_last=True, group="layers"),
)


def _random(rng: np.random.Generator) -> Pool:
    nd = int(rng.choice([1, 2, 2, 2, 3]))
    kernel = tuple(int(k) for k in rng.integers(1, 5, nd))
    shape = (
        int(rng.integers(1, 4)),
        int(rng.integers(1, 40)),
        *(int(k + n) for k, n in zip(kernel, rng.integers(0, 14, nd))),
    )
    stride = tuple(int(s) for s in rng.integers(1, 4, nd))
    if rng.random() < 0.5:
        padding: Any = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    else:
        padding = tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in kernel)
    flags = rng.random(2) < 0.5
    return Pool(shape, kernel, stride, padding, 1, bool(flags[0]), bool(flags[1]), "random")


def cases(seed: int, random_cases: int) -> Iterator[Case]:
    """Every case of this family."""
    rng = np.random.default_rng([seed, 2])
    for number, spec in enumerate((*_WINDOWS, *(_random(rng) for _ in range(random_cases)))):
        yield from max_pool_cases(spec)
        yield from avg_pool_cases(spec, count_include_pad=number % 2 == 0)
    yield from max_pool_cases(Pool((1, 3, 12, 11), (3, 3), 2, 1, dilation=2))
    yield from max_pool_cases(Pool((1, 3, 4, 11), (3, 3), (1, 2), ((3, 4), (0, 2)), dilation=2))
    yield from avg_pool_cases(Pool((1, 3, 9, 8), (3, 3), 2, 1), divisor=5)
    for spec in (
        Pool((2, 3, 8, 6), (2, 2)),
        Pool((3, 4, 6), (2, 3)),
        Pool((1, 2, 9), (3,)),
        Pool((1, 2, 4, 4, 6), (2, 2, 2)),
    ):
        yield from max_unpool_cases(spec)
    for spec in (
        Pool((2, 3, 8, 9), (3, 2), 2),
        Pool((1, 9, 7, 7), (2, 2), ceil_mode=True, channels_last=True),
        Pool((1, 3, 17), (4,), 3),
        Pool((1, 2, 5, 4, 6), (2, 2, 3)),
    ):
        yield from lp_pool_cases(spec, 2.0)
        yield from lp_pool_cases(spec, 3.0)
    yield from adaptive_cases((2, 5, 7, 9), (3, 4))
    yield from adaptive_cases((1, 33, 7, 7), (1, 1), last=True)
    yield from adaptive_cases((1, 4, 5, 6), (7, None))
    yield from adaptive_cases((3, 4, 10), (4,))
    yield from adaptive_cases((1, 2, 5, 6, 4), (2, 3, None))
