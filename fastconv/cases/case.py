"""A case: arguments drawn from a seed, the float64 result, and the magnitude of its rounding errors."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from .. import reference
from ..testing import error_bound, error_ratio

__all__ = [
    "DTYPES",
    "GROUPS",
    "Case",
    "Comparison",
    "Expected",
    "absolute",
    "absolute_gradient",
    "available_dtypes",
    "relative",
    "selected",
]

DTYPES = ("float32", "float64", "float16", "bfloat16")
GROUPS = ("edge", "layers", "random")

Arguments = tuple[Any, ...]
Call = Callable[[ModuleType, Arguments], Any]
Magnitude = Callable[["Case", Arguments, tuple[np.ndarray, ...]], tuple[Any, ...]]


def available_dtypes() -> dict[str, np.dtype]:
    """The floating dtypes of the contract that this Python has: bfloat16 needs the package `ml_dtypes`.

    Returns
    -------
    dict
        Name to dtype.

    Examples
    --------
    >>> from fastconv.cases import available_dtypes
    >>> list(available_dtypes())[:3]
    ['float32', 'float64', 'float16']
    """
    dtypes = {name: np.dtype(name) for name in DTYPES[:3]}
    try:
        import ml_dtypes
    except ImportError:
        return dtypes
    return {**dtypes, "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class Expected:
    """The float64 result of a case.

    Attributes
    ----------
    outputs : tuple of ndarray
        float64, or int64 for indices.
    magnitudes : tuple
        One array or number an output, as `fastconv.testing.error_bound` takes it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.cases import all_cases
    >>> expected = all_cases(random_cases=0)[0].expected(0, np.dtype(np.float32))
    >>> expected.outputs[0].shape, expected.magnitudes[0].shape
    ((2, 1, 6, 6), (2, 1, 6, 6))
    """

    outputs: tuple[np.ndarray, ...]
    magnitudes: tuple[Any, ...]


@dataclass(frozen=True)
class Comparison:
    """The worst element of a result.

    Attributes
    ----------
    error, bound : float
        Its error, and the bound there.
    ratio : float
        error / bound; above 1 the element is wrong.
    problem : str
        What else is wrong: shape, dtype, number of outputs, indices.

    Examples
    --------
    >>> from fastconv.cases import Comparison
    >>> Comparison(error=1e-7, bound=2e-7, ratio=0.5).passed
    True
    """

    error: float
    bound: float
    ratio: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return self.ratio <= 1 and not self.problem


@dataclass(frozen=True)
class Case:
    """One operation with its shapes and options.

    Attributes
    ----------
    op : str
        The function of the backend modules.
    label : str
        Shapes and options, as they are printed.
    group : str
        One of `GROUPS`.
    draw : callable
        ``draw(rng)`` gives the positional arguments, arrays in float64.
    terms : int
        Length of the longest reduction.
    magnitude : callable
        ``magnitude(case, arguments, outputs)`` gives one array for each output.
    invoke : callable, optional
        ``invoke(module, arguments)`` where the call is more than ``getattr(module, op)(*arguments)``.
    channels_last : bool
        Whether the arrays are given with channels-last strides.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import reference
    >>> from fastconv.cases import all_cases
    >>> case, dtype = all_cases(random_cases=0)[0], np.dtype(np.float32)
    >>> case.name
    'conv_forward 2x1x8x8->1 k3x3'
    >>> outputs = case.run(reference, case.arguments(0, dtype))
    >>> case.compare(outputs, case.expected(0, dtype), dtype).passed
    True
    """

    op: str
    label: str
    group: str
    draw: Callable[[np.random.Generator], Arguments]
    terms: int
    magnitude: Magnitude
    invoke: Call | None = None
    channels_last: bool = False

    @property
    def name(self) -> str:
        """Operation and label, unique in the table."""
        return f"{self.op} {self.label}"

    def arguments(self, seed: int, dtype: np.dtype) -> Arguments:
        """The positional arguments in `dtype`.

        float32 and float64 share their values, and so do the two 16-bit types, whose values have 8 significant bits and
        stay in the normal range of float16: one float64 result serves two dtypes.
        """
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        narrow = np.dtype(dtype).itemsize == 2
        return tuple(self._place(a, dtype, narrow) for a in self.draw(rng))

    def _place(self, argument: Any, dtype: np.dtype, narrow: bool) -> Any:
        if not isinstance(argument, np.ndarray) or argument.dtype.kind != "f":
            return argument
        argument = _eight_bits(argument) if narrow else argument.astype(np.float32)
        argument = argument.astype(dtype)
        if self.channels_last and argument.ndim > 2:
            argument = np.moveaxis(np.ascontiguousarray(np.moveaxis(argument, 1, -1)), -1, 1)
        return argument

    def run(self, module: ModuleType, arguments: Arguments) -> tuple[Any, ...]:
        """Call the operation; always a tuple of outputs."""
        result = self.invoke(module, arguments) if self.invoke else getattr(module, self.op)(*arguments)
        return result if isinstance(result, tuple) else (result,)

    def expected(self, seed: int, dtype: np.dtype) -> Expected:
        """The result of the reference for the arguments of `dtype`, computed and kept in float64."""
        wide = tuple(
            a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind in "fV" else a
            for a in self.arguments(seed, dtype)
        )
        outputs = self.run(reference, wide)
        return Expected(outputs, self.magnitude(self, wide, outputs))

    def compare(self, outputs: tuple[Any, ...], expected: Expected, dtype: np.dtype, slack: float = 1.0) -> Comparison:
        """Hold outputs against the float64 result; `slack` multiplies the bound."""
        if len(outputs) != len(expected.outputs):
            return Comparison(np.inf, 0.0, np.inf, f"{len(outputs)} outputs, expected {len(expected.outputs)}")
        if outputs[0].dtype != dtype:
            return Comparison(np.inf, 0.0, np.inf, f"dtype {outputs[0].dtype}, expected {np.dtype(dtype)}")
        worst = Comparison(0.0, 0.0, 0.0)
        for number, (y, y64, magnitude) in enumerate(zip(outputs, expected.outputs, expected.magnitudes)):
            if y.shape != y64.shape:
                return Comparison(np.inf, 0.0, np.inf, f"output {number} has shape {y.shape}, expected {y64.shape}")
            if y.dtype.kind in "iu":
                if not np.array_equal(y, y64):
                    return Comparison(np.inf, 0.0, np.inf, f"output {number}: indices differ")
                continue
            if not y.size:
                continue
            bound = slack * error_bound(y64, magnitude, self.terms, y.dtype)
            ratio = error_ratio(y, y64, bound, y.dtype)
            at = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
            if not ratio[at] <= worst.ratio or not worst.bound:
                error = abs(float(y[at]) - float(y64[at]))
                worst = Comparison(error, float(bound[at]), float(ratio[at]))
        return worst


def _eight_bits(a: np.ndarray) -> np.ndarray:
    fraction, exponent = np.frexp(a)
    rounded = np.ldexp(np.round(fraction * 256) / 256, exponent)
    return np.where(np.abs(rounded) < 2.0**-14, 0.0, rounded)


def absolute(case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
    """Magnitude of a multilinear operation: the operation on absolute values."""
    positive = tuple(np.abs(a) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments)
    return case.run(reference, positive)


def absolute_gradient(case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
    """Magnitude of an operation that is linear in its first argument alone, the gradient."""
    return tuple(np.abs(m) for m in case.run(reference, (np.abs(arguments[0]), *arguments[1:])))


def selected(case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
    """Magnitude of an operation that computes nothing, only selects."""
    return (0.0,) * len(outputs)


def relative(case: Case, arguments: Arguments, outputs: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
    """Magnitude where every term of the result has one sign: the result itself."""
    return tuple(np.abs(y) for y in outputs)
