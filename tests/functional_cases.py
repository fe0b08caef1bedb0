"""Calls of ``fastconv.nn.functional`` with small arrays, and what must hold for every one of them.

A case names a function, its array arguments (a shape, or a function that draws the array) and its options. The names
and options are torch's, so that torch can be asked the same question.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn.functional as F
from checks import directional_derivative, from_torch, normal, to_torch
from fastconv.tensor import Parameter

Draw = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One call: function `name` with drawn `arrays` and `options`."""

    name: str
    arrays: dict[str, tuple[int, ...] | Draw]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> Any:
        return getattr(F, self.name)

    @property
    def differentiable(self) -> list[str]:
        """The array arguments that have a gradient, in signature order."""
        spec = self.function.spec
        integer = [name for name, a in self.draw(0).items() if a.dtype.kind in "iu"]
        return [spec.names[i] for i in spec.wrt if spec.names[i] in self.arrays and spec.names[i] not in integer]

    def draw(self, seed: int, dtype: Any = np.float64) -> dict[str, np.ndarray]:
        """The arrays; floating-point ones in `dtype`."""
        rng = np.random.default_rng(seed)
        drawn = {n: a(rng) if callable(a) else normal(rng, a, np.float64) for n, a in self.arrays.items()}
        return {n: a if a.dtype.kind in "iu" else a.astype(dtype) for n, a in drawn.items()}

    def __str__(self) -> str:
        shapes = "x".join(map(str, self.draw(0)[next(iter(self.arrays))].shape))
        options = ",".join(f"{k}={v}" for k, v in self.options.items()).replace(" ", "")
        return f"{self.name}-{shapes}-{options}" if options else f"{self.name}-{shapes}"


def positive(*shape: int) -> Draw:
    """Values from 0.5 to 2."""
    return lambda rng: rng.uniform(0.5, 2, shape)


def probabilities(*shape: int) -> Draw:
    """Values from 0.05 to 0.95."""
    return lambda rng: rng.uniform(0.05, 0.95, shape)


def distributions(*shape: int) -> Draw:
    """Positive values that sum to 1 along dimension 1 (0 for vectors)."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        x = rng.uniform(0.05, 1, shape)
        return x / x.sum(axis=min(1, len(shape) - 1), keepdims=True)

    return draw


def classes(count: int, *shape: int) -> Draw:
    """Class numbers below `count`."""
    return lambda rng: np.asarray(rng.integers(0, count, shape))


def signs(*shape: int) -> Draw:
    """1 and -1, as floating-point numbers."""
    return lambda rng: rng.choice([-1.0, 1.0], shape)


def positions(count: int, *shape: int) -> Draw:
    """In the last dimension, different positions below `count`."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        flat = int(np.prod(shape[1:]))
        return np.stack([rng.permutation(count)[:flat] for _ in range(shape[0])]).reshape(shape)

    return draw


def first_of(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def torch_function(name: str, torch: Any) -> Callable[..., Any]:
    """torch's function of this name, or what it calls by several."""
    functions = torch.nn.functional

    def batch_norm_relu(residual: Any = None, max_val: float = np.inf, **rest: Any) -> Any:
        y = functions.batch_norm(**rest)
        return functions.hardtanh(y if residual is None else y + residual, 0.0, max_val)

    return batch_norm_relu if name == "batch_norm_relu" else getattr(functions, name)


def check_matches_torch(case: Case, torch: Any) -> None:
    """Value and gradients are torch's, in float64."""
    arrays, expected_arrays = case.draw(1), case.draw(1)
    tensors = {n: to_torch(a) for n, a in expected_arrays.items()}
    for name in case.differentiable:
        tensors[name].requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch advises against the default reduction of kl_div
        expected = first_of(torch_function(case.name, torch)(**tensors, **case.options))
    assert_near(first_of(case.function(**arrays, **case.options)), from_torch(expected))
    arrays = case.draw(1)  # running statistics were updated by the call
    output, pullback = case.function.vjp(**arrays, **case.options)
    y = first_of(output)
    assert_near(y, from_torch(expected))
    dy = np.asarray(normal(np.random.default_rng(2), y.shape, np.float64))
    expected.backward(to_torch(dy))
    gradients = pullback(dy)
    assert len(gradients) == len(case.differentiable)
    for name, gradient in zip(case.differentiable, gradients):
        assert_near(gradient, from_torch(tensors[name].grad))
    for name, array in arrays.items():
        assert_near(array, from_torch(tensors[name]))


def assert_near(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the rounding of float64 sums of a few hundred terms."""
    assert type(actual) is np.ndarray
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


def check_finite_differences(case: Case) -> None:
    """The pullback is the transposed derivative of the function."""
    arrays = case.draw(3)
    names = case.differentiable

    def arguments(values: tuple) -> dict[str, Any]:
        return {n: a.copy() for n, a in arrays.items()} | dict(zip(names, map(np.asarray, values))) | case.options

    def function(*values: np.ndarray) -> np.ndarray:
        return first_of(case.function(**arguments(values)))

    def vjp(*values: np.ndarray) -> tuple:
        output, pullback = case.function.vjp(**arguments(values), wrt=names)
        return first_of(output), pullback

    directional_derivative(function, vjp, [arrays[n] for n in names], np.random.default_rng(4))


def check_pullback(case: Case) -> None:
    """wrt selects gradients without changing them; the pullback can be repeated; a wrong dy is refused."""
    names = case.differentiable
    output, pullback = case.function.vjp(**case.draw(5), **case.options)
    y = first_of(output)
    dy = np.asarray(normal(np.random.default_rng(6), y.shape, np.float64))
    gradients = pullback(dy)
    for first, second in zip(gradients, pullback(dy)):
        np.testing.assert_array_equal(first, second)
    for name, expected in zip(names, gradients):
        (gradient,) = case.function.vjp(**case.draw(5), **case.options, wrt=(name,))[1](dy)
        np.testing.assert_array_equal(gradient, expected)
    with pytest.raises(ValueError, match="wrt must name"):
        case.function.vjp(**case.draw(5), **case.options, wrt=("nothing",))
    with pytest.raises(ValueError, match="dy must have the output's shape"):
        pullback(np.zeros((*y.shape, 2)))
    with pytest.raises(TypeError, match="dy must have the output's dtype"):
        pullback(dy.astype(np.float32))
    with pytest.raises(TypeError, match="dy must be an array"):
        pullback([dy.tolist()])


def check_tensor(case: Case) -> None:
    """Tensors record what vjp computes; without grad, they stay Tensors and record nothing; Parameters are arrays."""
    names = case.differentiable
    output, pullback = case.function.vjp(**case.draw(7), **case.options)
    dy = np.asarray(normal(np.random.default_rng(8), first_of(output).shape, np.float64))
    tensors: dict[str, Any] = case.draw(7)
    for name in names:
        tensors[name] = fc.tensor(tensors[name], requires_grad=True)
    result = first_of(case.function(**tensors, **case.options))
    np.testing.assert_array_equal(result.data, first_of(output))
    result.backward(dy)
    for name, expected in zip(names, pullback(dy)):
        np.testing.assert_array_equal(tensors[name].grad, expected)
    with fc.no_grad():
        quiet = first_of(case.function(**tensors, **case.options))
    assert isinstance(quiet, fc.Tensor) and not quiet.requires_grad
    arrays: dict[str, Any] = case.draw(7)
    for name in names[1:]:
        arrays[name] = Parameter(arrays[name])
    plain = first_of(case.function(**arrays, **case.options))
    assert type(plain) is np.ndarray
    np.testing.assert_array_equal(plain, first_of(output))


def check_dtype(case: Case, dtype: Any) -> None:
    """The result and the gradients have the input's dtype and its accuracy."""
    eps = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[np.dtype(dtype).name]

    def assert_accurate(actual: np.ndarray, exact: np.ndarray) -> None:
        assert actual.dtype == dtype and actual.shape == exact.shape
        error = np.abs(actual.astype(np.float64) - exact)
        assert (error <= 16 * eps * (1 + np.abs(exact).max(initial=0))).all(), f"error {error.max() / eps} ulp"

    def rounded() -> dict[str, np.ndarray]:
        return {n: a if a.dtype.kind in "iu" else a.astype(np.float64) for n, a in case.draw(9, dtype).items()}

    output, pullback = case.function.vjp(**case.draw(9, dtype), **case.options)
    exact, exact_pullback = case.function.vjp(**rounded(), **case.options)
    assert_accurate(first_of(output), first_of(exact))
    dy = np.asarray(normal(np.random.default_rng(10), first_of(output).shape, dtype))
    for gradient, expected in zip(pullback(dy), exact_pullback(dy.astype(np.float64))):
        assert_accurate(gradient, expected)


def check_dlpack(case: Case, torch: Any) -> None:
    """torch tensors in, torch tensors out, with the bits of the NumPy call."""
    tensors = {n: to_torch(a) for n, a in case.draw(11, np.float32).items()}
    arrays = case.draw(11, np.float32)
    expected, pullback = case.function.vjp(**arrays, **case.options)
    result, torch_pullback = case.function.vjp(**tensors, **case.options)
    assert isinstance(first_of(result), torch.Tensor)
    np.testing.assert_array_equal(from_torch(first_of(result)), first_of(expected))
    dy = np.asarray(normal(np.random.default_rng(12), first_of(expected).shape, np.float32))
    for gradient, wanted in zip(torch_pullback(to_torch(dy)), pullback(dy), strict=True):
        np.testing.assert_array_equal(from_torch(gradient), wanted)
    called = first_of(case.function(**{n: to_torch(a) for n, a in case.draw(11, np.float32).items()}, **case.options))
    np.testing.assert_array_equal(from_torch(called), first_of(expected))
