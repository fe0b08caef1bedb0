"""A task: one operation of one layer, as this library, as torch and as the reference compute it, and its check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import backend
from fastconv.testing import error_bound, error_ratio

from .peers import Torch

Arrays = dict[str, np.ndarray]
Outputs = tuple[np.ndarray, ...]
Call = Callable[[], Any]
Evaluate = Callable[[Arrays], Outputs]
Magnitude = Callable[[Arrays, Outputs, Evaluate], tuple[Any, ...]]

LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True)
class Task:
    """One row of the benchmark.

    Attributes
    ----------
    op : str
        Group of the row: conv, conv_backward, depthwise, pool, ...
    layer, shape : str
        As printed.
    kind : str
        What the goals tell apart within a group: "max", "avg", ...
    flops, bytes : int
        Work of the direct method; each input read once and each output written once, in float32 (`bytes` is for
        4-byte elements).
    draw : callable
        ``draw(rng)`` gives the arrays by name: "x" and "dy" are images, in NCHW.
    ours : callable
        ``ours(arrays)`` prepares and returns the call that is timed.
    torch : callable
        ``torch(torch, tensors)`` does the same for torch.
    magnitude : callable
        Scale of the rounding errors of each output, see `fastconv.testing`.
    terms : tuple of int
        Length of the longest reduction, for each output.
    """

    op: str
    layer: str
    shape: str
    flops: int
    bytes: int
    draw: Callable[[np.random.Generator], Arrays]
    ours: Callable[[Arrays], Call]
    torch: Callable[[Torch, Any], Call]
    magnitude: Magnitude
    terms: tuple[int, ...]
    kind: str = ""

    def arrays(self, dtype: np.dtype) -> Arrays:
        """The arguments, the same in every run."""
        return {name: a.astype(dtype) for name, a in self.draw(np.random.default_rng(7)).items()}


def peer(method: str, case: Any) -> Callable[[Torch, Any], Call]:
    """What `Task.torch` is for a case: a method of `Torch`."""

    def prepare(torch: Torch, tensors: Any) -> Call:
        return getattr(torch, method)(case, tensors)

    return prepare


def arrange(arrays: Arrays, layout: str) -> Arrays | None:
    """The arrays with their images in `layout`; None where channels-last memory is not another arrangement."""
    if layout == "nchw":
        return arrays
    arranged = {name: channels_last(a) if name in ("x", "dy") and a.ndim == 4 else a for name, a in arrays.items()}
    return None if all(a.flags.c_contiguous for a in arranged.values()) else arranged


def channels_last(a: np.ndarray) -> np.ndarray:
    """The same values and shape, N C H W, with the channels next to each other in memory.

    >>> channels_last(np.zeros((2, 3, 4, 5), np.float32)).strides
    (240, 4, 60, 12)
    """
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def as_outputs(result: Any) -> Outputs:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


@dataclass(frozen=True)
class Oracle:
    """Expected outputs of a task in float64, with the largest errors that rounding explains in units of the bound."""

    name: str
    outputs: Outputs
    magnitudes: tuple[Any, ...]
    terms: tuple[int, ...]
    slack: float
    precision: str

    def error(self, result: Any) -> float:
        """Worst error of a result over its bound; at most 1 where the result is right, infinite where shapes differ."""
        outputs = as_outputs(result)
        if [y.shape for y in outputs] != [y.shape for y in self.outputs]:
            return np.inf
        return max(map(self._worst, outputs, self.outputs, self.magnitudes, self.terms))

    def _worst(self, y: np.ndarray, expected: np.ndarray, magnitude: Any, terms: int) -> float:
        magnitude = np.broadcast_to(magnitude, expected.shape)
        worst = 0.0
        for part in range(y.shape[0]):  # image by image: the largest layers would need gigabytes at once
            bound = self.slack * error_bound(expected[part], magnitude[part], terms, y.dtype, precision=self.precision)
            worst = max(worst, float(error_ratio(y[part], expected[part], bound, y.dtype).max(initial=0.0)))
        return worst


def oracle(task: Task, arrays: Arrays, torch: Torch | None) -> Oracle:
    """What the outputs must be: torch's, which carry rounding errors of their own, or else the reference's."""

    def with_torch(torch: Torch, values: Arrays) -> Outputs:
        return torch.wide(task.torch(torch, torch.tensors(values, False))())

    def with_reference(values: Arrays) -> Outputs:
        with fc.use_backend("reference"):
            return as_outputs(task.ours({name: a.astype(np.float64) for name, a in values.items()})())

    evaluate: Evaluate = with_reference if torch is None else partial(with_torch, torch)
    name, slack = ("reference", 1.0) if torch is None else (torch.name, 2.0)
    outputs = evaluate(arrays)
    native = backend.get_backend() != "reference"
    precision = "high" if native and fc.get_float32_precision() != "highest" else "highest"
    return Oracle(name, outputs, task.magnitude(arrays, outputs, evaluate), task.terms, slack, precision)


def absolute(arrays: Arrays, outputs: Outputs, evaluate: Evaluate) -> tuple[Any, ...]:
    """Magnitude of a multilinear operation: the operation on absolute values."""
    return evaluate({name: np.abs(a) for name, a in arrays.items()})


def absolute_gradient(arrays: Arrays, outputs: Outputs, evaluate: Evaluate) -> tuple[Any, ...]:
    """Magnitude of an operation that is linear in the gradient "dy" alone."""
    return evaluate({**arrays, "dy": np.abs(arrays["dy"])})


def selected(arrays: Arrays, outputs: Outputs, evaluate: Evaluate) -> tuple[Any, ...]:
    """Magnitude of an operation that only selects values."""
    return (0.0,) * len(outputs)


def itself(arrays: Arrays, outputs: Outputs, evaluate: Evaluate) -> tuple[Any, ...]:
    """Magnitude where a result is a product, or a sum of terms of one sign."""
    return tuple(np.abs(y) for y in outputs)
