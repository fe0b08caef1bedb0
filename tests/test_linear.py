"""Linear layers: y = x w^T + b for x of any rank, and the gradients."""

from __future__ import annotations

import functools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv.nn.functional as F
from checks import (
    DTYPES,
    assert_bound,
    assert_exact,
    assert_same_bits,
    directional_derivative,
    dtype_name,
    float32,
    float64,
    from_torch,
    guarded,
    guards_intact,
    integers,
    layouts,
    normal,
    shapes,
    to_torch,
)

# (shape of x, outputs); None outputs: w is a vector and the last dimension of y is dropped.
SHAPES: list[tuple[tuple[int, ...], int | None]] = [
    *(((3, n), 5) for n in shapes.EDGES),
    *(((3, 7), n) for n in shapes.EDGES),
    *(((n, 9), 6) for n in shapes.EDGES),
    ((130, 257), 65),
    ((8, 864), 10),
    ((1, 1), 1),
    ((5,), 4),
    ((2, 3, 5), 4),
    ((2, 1, 3, 6), 7),
    ((0, 5), 4),
    ((2, 0, 5), 4),
    ((4, 6), None),
    ((6,), None),
    ((2, 3, 17), None),
]
by_shape = pytest.mark.parametrize("shape,outputs", SHAPES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """The definition, a sum over the last axis."""
    y = (x[..., None, :] * w).sum(axis=-1) if w.ndim == 2 else (x * w).sum(axis=-1)
    return y if b is None else y + b


def gradients(dy: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    if w.ndim == 1:
        return dy[..., None] * w, (dy.reshape(-1, 1) * rows).sum(axis=0), dy.sum()
    dy_rows = dy.reshape(rows.shape[0], w.shape[0])
    return (dy[..., None] * w).sum(axis=-2), (dy_rows[:, :, None] * rows[:, None]).sum(axis=0), dy_rows.sum(axis=0)


@functools.cache
def problem(shape, outputs, dtype, make=integers):
    """Arguments (x, w, b, dy) and float64 results (y, dx, dw, db), with the results' magnitudes."""
    rng = np.random.default_rng(zlib.crc32(f"{shape}{outputs}".encode()))
    w_shape = (shape[-1],) if outputs is None else (outputs, shape[-1])
    x, w, b = make(rng, shape, dtype), make(rng, w_shape, dtype), make(rng, w_shape[:-1], dtype)
    dy = make(rng, shape[:-1] + w_shape[:-1], dtype)

    def results(x, w, b, dy):
        return linear(x, w, b), *gradients(dy, x, w)

    wide = [a.astype(float64) for a in (x, w, b, dy)]
    return (x, w, b, dy), results(*wide), results(*(np.abs(a) for a in wide))


def run(backend, x, w, b, dy):
    return (
        backend.linear_forward(x, w, b),
        backend.linear_backward_input(dy, w),
        backend.linear_backward_weight(dy, x),
    )


@by_dtype
@by_shape
def test_exact(backend, shape, outputs, dtype):
    arguments, (y, dx, dw, db), _ = problem(shape, outputs, dtype)
    for actual, expected in zip(run(backend, *arguments), (y, dx, dw), strict=True):
        assert_exact(actual, expected, dtype)
    if outputs is not None:
        assert_exact(backend.linear_backward_bias(arguments[3]), db, dtype)


@by_dtype
@by_shape
def test_bound(backend, shape, outputs, dtype):
    arguments, results, magnitudes = problem(shape, outputs, dtype, normal)
    terms = shape[-1] + 1, outputs or 1, int(np.prod(shape[:-1]))
    for actual, expected, size, count in zip(run(backend, *arguments), results, magnitudes, terms, strict=False):
        assert_bound(actual, expected, size, count, dtype)
    if outputs is not None:
        assert_bound(backend.linear_backward_bias(arguments[3]), results[3], magnitudes[3], terms[2], dtype)


@by_dtype
@pytest.mark.parametrize("shape,outputs", [((6, 17), 5), ((2, 3, 9), 16), ((33, 7), None)], ids=str)
def test_layouts(backend, shape, outputs, dtype):
    """Every view of the same values gives the same values."""
    arguments, (y, dx, dw, _), _ = problem(shape, outputs, dtype)
    x, w, b, dy = arguments
    for actual, expected in zip(run(backend, x, w, None, dy), (y - b.astype(float64), dx, dw), strict=True):
        assert_exact(actual, expected, dtype)
    for i, argument in enumerate(arguments):
        for _, view in layouts(argument):
            varied = [*arguments[:i], view, *arguments[i + 1 :]]
            for actual, expected in zip(run(backend, *varied), (y, dx, dw), strict=True):
                assert_exact(actual, expected, dtype)


@by_dtype
def test_arguments_are_only_read(backend, dtype):
    arguments, (y, dx, dw, _), _ = problem((5, 19), 9, dtype)
    inside = []
    for a in arguments:
        inside.append(guarded(a.shape, dtype))
        inside[-1][...] = a
    for actual, expected in zip(run(backend, *inside), (y, dx, dw), strict=True):
        assert_exact(actual, expected, dtype)
    for array, original in zip(inside, arguments, strict=True):
        assert_same_bits(array, original)
        assert guards_intact(array)


@by_dtype
@by_shape
def test_bits_do_not_depend_on_threads_batch_or_run(kernel_backend, shape, outputs, dtype):
    (x, w, b, dy), _, _ = problem(shape, outputs, dtype, normal)
    before = kernel_backend.get_num_threads()
    try:
        kernel_backend.set_num_threads(1)
        expected = run(kernel_backend, x, w, b, dy)
        for threads in (1, 2, 2):
            kernel_backend.set_num_threads(threads)
            for actual, right in zip(run(kernel_backend, x, w, b, dy), expected, strict=True):
                assert_same_bits(actual, right)
        if x.ndim > 1:
            for i in range(x.shape[0]):
                assert_same_bits(kernel_backend.linear_forward(x[i : i + 1], w, b), expected[0][i : i + 1])
                assert_same_bits(kernel_backend.linear_backward_input(dy[i : i + 1], w), expected[1][i : i + 1])
    finally:
        kernel_backend.set_num_threads(before)


@by_dtype
def test_non_finite_values_reach_what_they_meet(backend, dtype):
    (x, w, b, _), _, _ = problem((5, 19), 9, dtype, normal)
    clean = backend.linear_forward(x, w, b)
    for value in (np.nan, np.inf, -np.inf):
        odd = x.copy()
        odd[2, 7] = value
        y = backend.linear_forward(odd, w, b)
        with np.errstate(invalid="ignore"):
            expected = value * np.sign(w[:, 7].astype(float64))
        np.testing.assert_array_equal(y[2].astype(float64), expected)
        assert_same_bits(np.delete(y, 2, axis=0), np.delete(clean, 2, axis=0))


@pytest.mark.parametrize("shape,outputs", [((6, 7), 5), ((2, 3, 4), 6), ((5,), 3), ((4, 6), None)], ids=str)
def test_functional_and_vjp(backend, torch, shape, outputs):
    (x, w, b, dy), (y, dx, dw, db), _ = problem(shape, outputs, float64)
    assert_exact(F.linear(x, w, b), y, float64)
    assert_exact(F.linear(x, w), y - b, float64)
    # torch takes a weight vector only without a bias.
    torch_arguments = [to_torch(a) for a in ((x, w) if outputs is None else (x, w, b))]
    expected = from_torch(torch.nn.functional.linear(*torch_arguments))
    assert_exact(F.linear(*(from_torch(a) for a in torch_arguments)), expected, float64)
    value, pullback = F.linear.vjp(x, w, b)
    assert_exact(value, y, float64)
    for _ in range(2):
        for actual, expected in zip(pullback(dy), (dx, dw, np.asarray(db)), strict=True):
            assert_exact(actual, expected, float64)
    (only,) = F.linear.vjp(x, w, b, wrt=("weight",))[1](dy)
    assert_exact(only, dw, float64)
    directional_derivative(F.linear, F.linear.vjp, (x, w, b), np.random.default_rng(1))


@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=3),
    inputs=st.integers(1, 70),
    outputs=st.none() | st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
)
def test_any_shape(backend, shape, inputs, outputs, dtype):
    arguments, (y, dx, dw, _), _ = problem((*shape, inputs), outputs, dtype)
    for actual, expected in zip(run(backend, *arguments), (y, dx, dw), strict=True):
        assert_exact(actual, expected, dtype)


def test_half_precision_is_summed_in_single(backend):
    """4096 ones: a float16 sum would stop at 2048, a bfloat16 sum at 256."""
    for dtype in DTYPES[2:]:
        ones = np.ones((1, 4096), dtype)
        assert float(backend.linear_forward(ones, ones, None)[0, 0]) == 4096
    assert backend.linear_forward(np.ones((1, 3), float32), np.ones((2, 3), float32), None).dtype == float32
