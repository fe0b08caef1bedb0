"""The convolutions of bfloat16 pairs on processors with AVX512_BF16 (backend ``cpu:avx512_bf16``).

Each test asks for them, whatever the rule of selection thinks of the shape. The tests of all backends run on this one,
too, and packed weights are held against plain ones in test_packed_weight.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from test_conv_amx import CASES, _pads, channels_last, precision, run, same_with_any_threads, terms

import direct
import fastconv as fc
from checks import (
    assert_bound,
    assert_exact,
    assert_same_bits,
    bfloat16,
    dtype_name,
    float32,
    float64,
    integers,
    normal,
)
from direct import Conv

NAME = "cpu:avx512_bf16"
pytestmark = pytest.mark.skipif(NAME not in fc.available_backends(), reason="no AVX512_BF16 here")

ALL = [
    *CASES,
    # Runs of an odd number of values, of one block and a part of one; tiles of 5, 6 and 7 rows; rows that end early.
    Conv("dots-odd_run", (2, 3, 9, 10), (20, 3, 3, 3), (1, 1), _pads(1, 1), (1, 1)),
    Conv("dots-part_of_a_block", (1, 21, 7, 19), (48, 21, 3, 3), (1, 1), _pads(1, (0, 2)), (2, 1)),
    Conv("dots-last_pairs", (2, 44, 6, 5), (17, 44, 3, 1), (1, 2), _pads(1, 0), (1, 1)),
    # Read in place: several images, a stride, groups, pixels a multiple of 2 KB apart (which are copied), a single one.
    Conv("dots-in_place", (3, 46, 9, 23), (65, 46, 1, 1), (1, 1), _pads(0, 0), (1, 1)),
    Conv("dots-in_place_strided", (2, 32, 11, 25), (64, 32, 1, 1), (2, 3), _pads(0, 0), (1, 1)),
    Conv("dots-in_place_groups", (2, 60, 5, 9), (50, 30, 1, 1), (1, 1), _pads(0, 0), (1, 1), 2),
    Conv("dots-in_place_page", (1, 1024, 3, 9), (33, 1024, 1, 1), (1, 1), _pads(0, 0), (1, 1)),
    Conv("dots-one_pixel", (3, 64, 1, 1), (96, 64, 1, 1), (1, 1), _pads(0, 0), (1, 1)),
    Conv("dots-padded_1x1", (1, 64, 5, 6), (32, 64, 1, 1), (2, 1), _pads(1, 2), (1, 1)),
]
by_case = pytest.mark.parametrize("case", ALL, ids=str)
by_dtype = pytest.mark.parametrize("dtype", [bfloat16, float32], ids=dtype_name)


@pytest.fixture
def dots():
    with fc.use_backend(NAME) as module:
        module.set_conv_algorithm("bfloat16_dots")
        yield module
        module.set_conv_algorithm("")


def as_asked(dots, dtype):
    """float32 arrays take the kernel in precision "medium" alone."""
    return precision(dots, "medium" if dtype == float32 else "highest")


@by_dtype
def test_which_arrays_take_them(dots, dtype):
    for case in ALL:
        for op in ("conv_forward", "conv_backward_input", "conv_backward_weight"):
            arguments = op, case.x_shape, case.w_shape, *case.options[:-1], dtype.name
            with as_asked(dots, dtype):
                plan = dots.conv_plan(*arguments)
            assert plan["algorithm"] == "bfloat16_dots" and "bfloat16 pairs" in plan["kernel"], (case, op, plan)
            assert plan["workspace"] <= 32 << 20
            for word in ("high", "highest") if dtype == float32 else ():
                with precision(dots, word):
                    plan = dots.conv_plan(*arguments)
                assert "bfloat16_dots" not in (plan["algorithm"], *plan["others"])


@by_dtype
@by_case
def test_bound_and_integers(dots, case, dtype):
    """float32 sums of exact products, rounded once; float32 arrays as if they had been rounded to bfloat16 before."""
    d, magnitude = direct.random(case, bfloat16)
    e = direct.exact(case, bfloat16)
    for convert in (np.ascontiguousarray, channels_last):
        with as_asked(dots, dtype):
            x, w, b, dy = (a.astype(dtype) for a in (d.x, d.w, d.b, d.dy))
            results = run(dots, case, convert(x), w, b, convert(dy))
            for name, actual, count in zip(("y", "dx", "dw"), results, terms(case), strict=True):
                assert actual.dtype == dtype
                assert_bound(actual, getattr(d, name), getattr(magnitude, name), count, dtype)
            x, w, b, dy = (a.astype(dtype) for a in (e.x, e.w, e.b, e.dy))
            results = run(dots, case, convert(x), w, b, convert(dy))
            for actual, expected in zip(results, (e.y, e.dx, e.dw), strict=True):
                assert_exact(actual, expected, dtype)


@by_case
def test_medium_rounds_to_bfloat16(dots, case):
    d, _ = direct.random(case, float32)
    with precision(dots, "medium"):
        results = run(dots, case, d.x, d.w, d.b, d.dy)
        x, w, dy = (a.astype(bfloat16).astype(float32) for a in (d.x, d.w, d.dy))
        for actual, expected in zip(results, run(dots, case, x, w, d.b, dy), strict=True):
            assert_same_bits(actual, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@by_dtype
@by_case
def test_values_that_are_not_finite(dots, case, dtype, value):
    """They reach what they meet, and no other bit changes."""
    d, _ = direct.random(case, bfloat16)
    x, dy = d.x.astype(dtype), d.dy.astype(dtype)
    x[(0, 0, *(n // 2 for n in x.shape[2:]))], dy[(-1, -1, *(n // 2 for n in dy.shape[2:]))] = value, value
    met = (
        direct.forward(case, (x != d.x.astype(dtype)).astype(float64), np.ones(case.w_shape)) != 0,
        direct.backward_input(case, (dy != d.dy.astype(dtype)).astype(float64), np.ones(case.w_shape)) != 0,
    )
    with as_asked(dots, dtype):
        for convert in (np.ascontiguousarray, channels_last):
            clean = run(dots, case, convert(d.x.astype(dtype)), d.w.astype(dtype), None, convert(d.dy.astype(dtype)))
            results = run(dots, case, convert(x), d.w.astype(dtype), None, convert(dy))
            for actual, before, reached in zip(results[:2], clean[:2], met, strict=True):
                assert_same_bits(actual[~reached], before[~reached])
                if abs(value) != 3e38:
                    assert not np.isfinite(actual[reached].astype(float32)).any()
            if abs(value) != 3e38:
                assert not np.isfinite(results[2].astype(float32)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_weights_that_are_not_finite(dots, value):
    """Such weights are another kernel's: the bits of the AVX-512 table, in each direction."""
    for case in (ALL[0], Conv("1x1", (2, 64, 5, 6), (64, 64, 1, 1), (1, 1), _pads(0, 0), (1, 1))):
        d, _ = direct.random(case, bfloat16)
        w = d.w.copy()
        w[-1, -1, -1, -1] = value
        results = run(dots, case, channels_last(d.x), w, d.b, channels_last(d.dy))
        with fc.use_backend("cpu:avx512") as module:
            expected = run(module, case, channels_last(d.x), w, d.b, channels_last(d.dy))
        for actual, right in zip(results[:2], expected[:2], strict=True):
            assert_same_bits(actual, right)


@by_dtype
@by_case
def test_bits_do_not_depend_on_threads_or_batch(dots, case, dtype):
    d, _ = direct.random(case, dtype)
    one = Conv("", (1, *case.x_shape[1:]), case.w_shape, *case.options[:-1])
    with as_asked(dots, dtype):
        for convert in (np.ascontiguousarray, channels_last):
            expected = same_with_any_threads(dots, case, convert(d.x), d.w, d.b, convert(d.dy))
            alone = run(dots, one, convert(d.x[-1:]), d.w, d.b, convert(d.dy[-1:]))
            assert_same_bits(alone[0], expected[0][-1:])
            assert_same_bits(alone[1], expected[1][-1:])


@pytest.mark.parametrize("rows", [1, 2, 7, 9, 70])
@pytest.mark.parametrize(("features", "columns"), [(100, 65), (64, 96), (4096, 300), (37, 512)])
def test_linear(dots, rows, features, columns):
    """All three directions of a linear layer, and the same bits for a row alone and among others."""
    rng = np.random.default_rng(rows)
    x, w, b, dy = (
        normal(rng, s, bfloat16) for s in ((rows, features), (columns, features), (columns,), (rows, columns))
    )
    x64, w64, dy64 = (a.astype(float64) for a in (x, w, dy))
    y, dx, dw = dots.linear_forward(x, w, b), dots.linear_backward_input(dy, w), dots.linear_backward_weight(dy, x)
    assert_bound(y, x64 @ w64.T + b.astype(float64), np.abs(x64) @ np.abs(w64).T + np.abs(b), features + 1, bfloat16)
    assert_bound(dx, dy64 @ w64, np.abs(dy64) @ np.abs(w64), columns, bfloat16)
    assert_bound(dw, dy64.T @ x64, np.abs(dy64).T @ np.abs(x64), rows, bfloat16)
    assert_same_bits(dots.linear_forward(x[-1:], w, b), y[-1:])
    assert_same_bits(dots.linear_backward_input(dy[-1:], w), dx[-1:])


def test_epilogue(dots):
    """A sum, and limits, before the one rounding; tiles of 32 columns and of fewer."""
    rng = np.random.default_rng(3)
    for columns in (9, 64, 70):
        x, w = integers(rng, (2, 64, 7, 9), bfloat16), integers(rng, (columns, 64, 1, 1), bfloat16)
        add = integers(rng, (2, columns, 7, 9), bfloat16)
        exact = np.einsum("nchw,kc->nkhw", x.astype(float64), w[:, :, 0, 0].astype(float64)) + add.astype(float64)
        for convert in (np.ascontiguousarray, channels_last):
            y = dots.conv_forward(convert(x), w, None, 1, 0, 1, 1, 2, convert(add), 0.0, 50.0)
            assert_same_bits(np.ascontiguousarray(y), np.clip(exact, 0, 50).astype(bfloat16))
