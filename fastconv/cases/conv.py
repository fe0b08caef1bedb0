"""Convolution, transposed convolution and linear layers, with their gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from .case import Arguments, Case, absolute

Padding = int | str | tuple[int | tuple[int, int], ...]


@dataclass(frozen=True)
class Conv:
    """Shapes and options of one convolution; `kernel` and `space` have one entry a dimension."""

    batch: int
    channels: int
    space: tuple[int, ...]
    filters: int
    kernel: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: Padding = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    bias: bool = True
    channels_last: bool = False
    group: str = "edge"

    @property
    def nd(self) -> int:
        return len(self.space)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.batch, self.channels, *self.space)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.filters, self.channels // self.groups, *self.kernel)

    def each(self, value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value,) * self.nd if isinstance(value, int) else value

    @property
    def y_shape(self) -> tuple[int, ...]:
        stride, dilation = self.each(self.stride), self.each(self.dilation)
        if self.padding == "same":
            return (self.batch, self.filters, *(-(-n // s) for n, s in zip(self.space, stride)))
        padding = (self.padding,) * self.nd if isinstance(self.padding, int) else self.padding
        margins = [p if isinstance(p, tuple) else (int(p), int(p)) for p in padding]
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, self.kernel)]
        return (
            self.batch,
            self.filters,
            *((n + sum(m) - r) // s + 1 for n, m, r, s in zip(self.space, margins, reach, stride)),
        )

    @property
    def label(self) -> str:
        parts = [f"{_times(self.x_shape)}->{self.filters}", f"k{_times(self.kernel)}"]
        for name, value, default in (
            ("s", self.stride, 1),
            ("p", self.padding, 0),
            ("d", self.dilation, 1),
            ("g", self.groups, 1),
        ):
            if value != default:
                parts.append(f"{name}{_times(value) if isinstance(value, tuple) else value}")
        if not self.bias:
            parts.append("nobias")
        if self.channels_last:
            parts.append("nhwc")
        return " ".join(parts)

    @property
    def options(self) -> Arguments:
        return (self.stride, self.padding, self.dilation, self.groups, self.nd)

    def forward(self, rng: np.random.Generator) -> Arguments:
        x, w = rng.standard_normal(self.x_shape), rng.standard_normal(self.w_shape)
        return (x, w, rng.standard_normal(self.filters) if self.bias else None, *self.options)

    def backward_input(self, rng: np.random.Generator) -> Arguments:
        return (rng.standard_normal(self.y_shape), rng.standard_normal(self.w_shape), self.x_shape, *self.options)

    def backward_weight(self, rng: np.random.Generator) -> Arguments:
        return (rng.standard_normal(self.y_shape), rng.standard_normal(self.x_shape), self.w_shape, *self.options)


def _times(value: tuple) -> str:
    return "x".join("+".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in value)


def conv_cases(spec: Conv) -> Iterator[Case]:
    """Forward and the gradients of input, weight and bias of one convolution."""

    def backward_bias(rng: np.random.Generator) -> Arguments:
        return (rng.standard_normal(spec.y_shape), spec.nd)

    window, outputs = math.prod(spec.kernel), spec.batch * math.prod(spec.y_shape[2:])
    for name, draw, terms in (
        ("forward", spec.forward, spec.channels // spec.groups * window + 1),
        ("backward_input", spec.backward_input, spec.filters // spec.groups * window),
        ("backward_weight", spec.backward_weight, outputs),
        ("backward_bias", backward_bias, outputs),
    ):
        if name != "backward_bias" or spec.bias:
            yield Case(f"conv_{name}", spec.label, spec.group, draw, terms, absolute, channels_last=spec.channels_last)


@dataclass(frozen=True)
class ConvTranspose(Conv):
    """Shapes and options of one transposed convolution; padding is symmetric."""

    output_padding: int = 0

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.channels, self.filters // self.groups, *self.kernel)

    @property
    def y_shape(self) -> tuple[int, ...]:
        stride, dilation = self.each(self.stride), self.each(self.dilation)
        margin = self.each(self.padding)  # type: ignore[arg-type]
        return (
            self.batch,
            self.filters,
            *(
                (n - 1) * s - 2 * m + d * (k - 1) + self.output_padding + 1
                for n, s, m, d, k in zip(self.space, stride, margin, dilation, self.kernel)
            ),
        )

    @property
    def label(self) -> str:
        return super().label + (f" op{self.output_padding}" if self.output_padding else "")

    @property
    def options(self) -> Arguments:
        return (self.stride, self.padding, self.output_padding, self.groups, self.dilation, self.nd)


def conv_transpose_cases(spec: ConvTranspose) -> Iterator[Case]:
    """Forward and the gradients of input and weight of one transposed convolution."""

    window = math.prod(spec.kernel)
    for name, draw, terms in (
        ("forward", spec.forward, spec.channels // spec.groups * window + 1),
        ("backward_input", spec.backward_input, spec.filters // spec.groups * window),
        ("backward_weight", spec.backward_weight, spec.batch * math.prod(spec.space)),
    ):
        op = f"conv_transpose_{name}"
        yield Case(op, spec.label, spec.group, draw, terms, absolute, channels_last=spec.channels_last)


def linear_cases(lead: tuple[int, ...], inputs: int, outputs: int, bias: bool, group: str = "edge") -> Iterator[Case]:
    """Forward and the gradients of one linear layer."""
    label = f"{_times((*lead, inputs))}->{outputs}" + ("" if bias else " nobias")

    def forward(rng: np.random.Generator) -> Arguments:
        x, w = rng.standard_normal((*lead, inputs)), rng.standard_normal((outputs, inputs))
        return x, w, rng.standard_normal(outputs) if bias else None

    def backward_input(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal((*lead, outputs)), rng.standard_normal((outputs, inputs))

    def backward_weight(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal((*lead, outputs)), rng.standard_normal((*lead, inputs))

    def backward_bias(rng: np.random.Generator) -> Arguments:
        return (rng.standard_normal((*lead, outputs)),)

    rows = math.prod(lead)
    yield Case("linear_forward", label, group, forward, inputs + 1, absolute)
    yield Case("linear_backward_input", label, group, backward_input, outputs, absolute)
    yield Case("linear_backward_weight", label, group, backward_weight, rows, absolute)
    if bias:
        yield Case("linear_backward_bias", label, group, backward_bias, rows, absolute)


def chain_case(
    batch: int, channels: int, size: tuple[int, int], wide: int, out: int, stride: int, last: bool, group: str = "edge"
) -> Case:
    """An inverted residual block (Sandler et al. 2018): 1x1 to `wide` channels, 3x3 depthwise, 1x1 to `out`.

    Of -1, 0 and 1: what lies between the stages is exact in every dtype, so that rounding to it adds no error.
    """

    def draw(rng: np.random.Generator) -> Arguments:
        def numbers(*shape: int) -> np.ndarray:
            return rng.integers(-1, 2, shape).astype(np.float64)

        expand, depthwise, project = (wide, channels, 1, 1), (wide, 1, 3, 3), (out, wide, 1, 1)
        weights = [array for shape in (expand, depthwise, project) for array in (numbers(*shape), numbers(shape[0]))]
        return numbers(batch, channels, *size), *weights

    def invoke(module: ModuleType, a: Arguments) -> Any:
        x, w1, b1, w2, b2, w3, b3 = a
        if module.__name__.endswith("._cpu"):  # stages with frozen weights are computed in bands of rows
            w1, w3 = module.pack_weight(w1), module.pack_weight(w3)
        stages = [
            (w1, b1, 1, 0, 1, 1, -6.0, 6.0),
            (w2, b2, stride, 1, 1, wide, -6.0, 6.0),
            (w3, b3, 1, 0, 1, 1, -np.inf, np.inf),
        ]
        return module.conv_chain_forward(x, stages, 2)

    label = f"{_times((batch, channels, *size))}->{wide}->{out}" + f" s{stride}" * (stride > 1) + " nhwc" * last
    return Case("conv_chain_forward", label, group, draw, wide + 1, absolute, invoke, last)


_EDGE = (
    Conv(2, 1, (8, 8), 1, (3, 3)),
    Conv(1, 3, (9, 11), 17, (3, 3), padding=1),
    Conv(2, 17, (7, 7), 33, (3, 3), padding=1, bias=False),
    Conv(2, 16, (14, 13), 32, (3, 3), padding=1, channels_last=True),
    Conv(3, 31, (5, 6), 65, (1, 1)),
    Conv(2, 64, (7, 7), 16, (1, 1), channels_last=True),
    Conv(1, 24, (9, 9), 40, (1, 1), stride=2, bias=False),
    Conv(1, 5, (12, 10), 7, (3, 3), stride=2, padding="same"),
    Conv(1, 5, (12, 10), 7, (4, 2), padding="same", dilation=(1, 2)),
    Conv(1, 4, (10, 9), 6, (3, 3), padding=((0, 2), (3, 1)), stride=(2, 1)),
    Conv(1, 4, (13, 12), 8, (3, 3), padding=2, dilation=2, groups=2),
    Conv(1, 9, (8, 8), 6, (3, 3), padding=1, groups=3, channels_last=True),
    Conv(1, 3, (6, 5), 4, (5, 5), padding=4),
    Conv(1, 3, (35, 33), 8, (11, 11), stride=4, padding=2),
    Conv(1, 2, (4, 40), 3, (1, 9), padding=(0, 4)),
    Conv(0, 3, (6, 6), 4, (3, 3)),
    Conv(2, 8, (9, 8), 8, (3, 3), padding=1, groups=8),
    Conv(2, 33, (7, 9), 33, (3, 3), padding=1, groups=33, channels_last=True),
    Conv(1, 16, (10, 11), 16, (5, 5), stride=2, padding=2, groups=16, bias=False),
    Conv(1, 6, (9, 9), 12, (3, 3), padding=2, dilation=2, groups=6),
    Conv(2, 5, (37,), 9, (7,), stride=3, padding=3),
    Conv(1, 3, (64,), 4, (16,), stride=8, dilation=2),
    Conv(1, 3, (5, 6, 7), 4, (3, 3, 3), padding=1),
    Conv(1, 4, (6, 6, 5), 6, (2, 3, 1), stride=(2, 1, 2), groups=2, channels_last=True),
)
_LAYERS = (
    Conv(1, 1, (28, 28), 6, (5, 5), padding=2, group="layers"),  # LeNet-5
    Conv(1, 6, (14, 14), 16, (5, 5), group="layers"),
    Conv(1, 3, (112, 112), 32, (7, 7), stride=2, padding=3, bias=False, group="layers"),  # ResNet stem
    Conv(1, 64, (28, 28), 64, (3, 3), padding=1, bias=False, group="layers"),
    Conv(1, 128, (14, 14), 256, (1, 1), bias=False, channels_last=True, group="layers"),
    Conv(1, 256, (7, 7), 128, (3, 3), padding=1, bias=False, channels_last=True, group="layers"),
    Conv(1, 96, (28, 28), 96, (3, 3), stride=2, padding=1, groups=96, bias=False, group="layers"),  # MobileNetV2
    Conv(1, 96, (28, 28), 96, (3, 3), padding=1, groups=96, bias=False, channels_last=True, group="layers"),
)
_TRANSPOSE = (
    ConvTranspose(2, 3, (5, 6), 4, (3, 3)),
    ConvTranspose(1, 4, (5, 4), 6, (4, 4), stride=2, padding=1),
    ConvTranspose(1, 6, (6, 5), 9, (3, 3), stride=2, padding=1, output_padding=1, groups=3),
    ConvTranspose(1, 17, (7, 6), 33, (2, 2), stride=2, bias=False, channels_last=True),
    ConvTranspose(1, 3, (4, 5), 5, (3, 3), stride=3, dilation=2, output_padding=1),
    ConvTranspose(1, 5, (5, 5), 5, (3, 3), stride=2, groups=5),
    ConvTranspose(1, 3, (20,), 4, (16,), stride=8, padding=4),
    ConvTranspose(1, 2, (3, 4, 3), 3, (2, 3, 2), stride=2),
    ConvTranspose(0, 2, (3, 3), 3, (2, 2)),
    ConvTranspose(1, 32, (14, 14), 16, (4, 4), stride=2, padding=1, group="layers"),  # a generator's upsampling
)


def _random(rng: np.random.Generator, transpose: bool) -> Conv:
    nd = int(rng.choice([1, 2, 2, 2, 3]))
    groups = int(rng.choice([1, 1, 1, 2, 3, 8]))
    depthwise = groups > 2 and rng.random() < 0.5
    channels = groups * (1 if depthwise else int(rng.integers(1, 20)))
    filters = groups * (1 if depthwise else int(rng.integers(1, 40)))
    kernel = tuple(int(k) for k in rng.integers(1, 6, nd))
    stride = tuple(int(s) for s in rng.integers(1, 4, nd))
    dilation = tuple(int(d) for d in rng.integers(1, 3, nd))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    space = tuple(int(r + n) for r, n in zip(reach, rng.integers(0, 16, nd)))
    padding = tuple(int(rng.integers(0, r // 2 + 1)) for r in reach)
    layout = bool(rng.random() < 0.5)
    batch = int(rng.integers(1, 4))
    if transpose:
        return ConvTranspose(
            batch,
            channels,
            space,
            filters,
            kernel,
            stride,
            padding,
            dilation,
            groups,
            channels_last=layout,
            group="random",
        )
    return Conv(
        batch, channels, space, filters, kernel, stride, padding, dilation, groups, channels_last=layout, group="random"
    )


def cases(seed: int, random_cases: int) -> Iterator[Case]:
    """Every case of this family."""
    rng = np.random.default_rng([seed, 1])
    for spec in (*_EDGE, *_LAYERS, *(_random(rng, False) for _ in range(random_cases))):
        yield from conv_cases(spec)
    for spec in (*_TRANSPOSE, *(_random(rng, True) for _ in range(random_cases))):
        yield from conv_transpose_cases(spec)  # type: ignore[arg-type]
    for last in (False, True):
        yield chain_case(2, 5, (9, 8), 17, 6, 1, last)
        yield chain_case(1, 4, (15, 13), 20, 9, 2, last)
    yield chain_case(1, 24, (56, 56), 144, 24, 1, True, "layers")  # MobileNetV2
    yield from linear_cases((), 5, 3, True)
    yield from linear_cases((7,), 17, 33, True)
    yield from linear_cases((2, 3), 65, 16, False)
    yield from linear_cases((0,), 4, 3, True)
    yield from linear_cases((8,), 400, 120, True, "layers")
