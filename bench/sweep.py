"""Every algorithm that can compute a convolution of the list, against the one that the rule chooses.

A row is one layer, one way (forward, input gradient, weight gradient) and one layout. LOSES marks those in which the
rule's choice takes more than 5 % longer than another algorithm of the precision that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastconv import backend

from .measure import Effort, interleaved
from .shapes import ConvCase
from .task import arrange

WAYS = ("conv_forward", "conv_backward_input", "conv_backward_weight")
MARGIN = 1.05
_LESS_EXACT = "precision 'highest'"  # in what the rule has against an algorithm


@dataclass(frozen=True)
class Sweep:
    """One measurement: seconds of each algorithm by name; `chosen` is the rule's."""

    layer: str
    way: str
    layout: str
    flops: int
    chosen: str
    seconds: dict[str, float]
    less_exact: tuple[str, ...] = ()  # less than the precision in force

    @property
    def best(self) -> str:
        """The fastest algorithm that the precision allows."""
        return min((name for name in self.seconds if name not in self.less_exact), key=self.seconds.__getitem__)

    @property
    def loss(self) -> float:
        """Time of the rule's choice over that of the best."""
        return self.seconds[self.chosen] / self.seconds[self.best]


def _call(case: ConvCase, way: str, layout: str, native: Any, dtype: np.dtype) -> Callable[[], Any]:
    rng = np.random.default_rng(7)
    shapes = {"x": case.x_shape, "w": case.w_shape, "dy": case.y_shape}
    arrays = {name: rng.standard_normal(shape, np.float32).astype(dtype) for name, shape in shapes.items()}
    a = arrange(arrays, layout) or arrays
    given = {
        "conv_forward": (a["x"], a["w"], None),
        "conv_backward_input": (a["dy"], a["w"], case.x_shape),
        "conv_backward_weight": (a["dy"], a["x"], case.w_shape),
    }
    return partial(getattr(native, way), *given[way], case.stride, case.padding, case.dilation, case.groups, 2)


def run(
    cases: Iterable[ConvCase], ways: Iterable[str], effort: Effort, layouts: Iterable[str], dtype: np.dtype
) -> Iterator[Sweep]:
    """All rows of these layers for which there is more than one algorithm; the precision is the one in force."""
    native = backend.native()
    before = native.get_conv_algorithm()

    def computed_by(name: str, call: Callable[[], Any]) -> Any:
        native.set_conv_algorithm(name)
        return call()

    try:
        for case in cases:
            for way in ways:
                for layout in layouts:
                    native.set_conv_algorithm("")
                    options = (case.stride, case.padding, case.dilation, case.groups, dtype.name, layout == "nhwc")
                    plan = native.conv_plan(way, case.x_shape, case.w_shape, *options)
                    if not plan["others"]:
                        continue
                    call = _call(case, way, layout, native, dtype)
                    names = (plan["algorithm"], *plan["others"])
                    timings = interleaved({name: partial(computed_by, name, call) for name in names}, effort)
                    seconds = {name: timing.seconds for name, timing in timings.items()}
                    less_exact = tuple(name for name, why in plan["others"].items() if _LESS_EXACT in why)
                    yield Sweep(str(case), way, layout, case.flops, plan["algorithm"], seconds, less_exact)
    finally:
        native.set_conv_algorithm(before)


def line(row: Sweep) -> str:
    """One printed row: GFLOP/s of each algorithm, the rule's choice first."""
    rates = "  ".join(f"{name} {row.flops / seconds / 1e9:.0f}" for name, seconds in row.seconds.items())
    verdict = f"  LOSES {row.loss:.2f} to {row.best}" if row.loss > MARGIN else ""
    return f"{row.layer:26} {row.way.removeprefix('conv_'):16} {row.layout}  {rates}{verdict}"
