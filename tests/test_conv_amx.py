"""The AMX kernels: precision modes, values at the limits of float32, the order of summation, workspace.

They run on a processor with AMX (backend ``cpu:amx``) and, in a build with ``FASTCONV_EMULATE_AMX``, on emulated tiles
(``cpu:amx-emulated``), where every convolution that they can compute takes them. There the tests of all backends hold
too: shapes, layouts, integers, bounds, bits, NaN and infinity.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import direct
import fastconv as fc
from checks import assert_bound, assert_exact, assert_same_bits, bfloat16, float32, float64, integers, normal, shapes
from direct import Conv

AMX = [name for name in fc.available_backends() if name.startswith("cpu:amx")]


@pytest.fixture(params=AMX)
def amx(request):
    """An AMX table with its algorithm asked for, whatever the rule of selection thinks of the shape."""
    with fc.use_backend(request.param) as module:
        before = module.get_conv_algorithm()
        module.set_conv_algorithm("amx")
        yield module
        module.set_conv_algorithm(before)


@contextlib.contextmanager
def precision(module, word):
    before = module.get_float32_precision()
    module.set_float32_precision(word)
    try:
        yield
    finally:
        module.set_float32_precision(before)


def _pads(*pairs: int | tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((p, p) if isinstance(p, int) else p for p in pairs)


CASES = [
    Conv("amx-3x3", (2, 40, 9, 11), (36, 40, 3, 3), (1, 1), _pads(1, 1), (1, 1)),
    Conv("amx-7x7_image", (3, 64, 7, 7), (33, 64, 3, 3), (1, 1), _pads(1, 1), (1, 1)),
    Conv("amx-strided", (1, 33, 13, 38), (48, 33, 3, 3), (2, 2), _pads(1, (0, 1)), (1, 1)),
    Conv("amx-dilated_groups", (1, 70, 12, 19), (64, 35, 3, 2), (1, 1), _pads(2, 1), (2, 3), 2),
    Conv("amx-stem", (1, 3, 23, 40), (32, 3, 7, 7), (2, 2), _pads(3, 3), (1, 1)),
    Conv("amx-folded_runs", (1, 48, 6, 18), (16, 48, 3, 3), (1, 1), _pads(1, 1), (1, 1)),
    Conv("amx-1x1", (2, 65, 6, 20), (70, 65, 1, 1), (1, 1), _pads(0, 0), (1, 1)),
    Conv("amx-1x1_strided", (1, 64, 9, 9), (32, 64, 1, 1), (2, 2), _pads(0, 0), (1, 1)),
    Conv("amx-volume", (1, 32, 3, 5, 6), (32, 32, 2, 3, 3), (1, 2, 1), _pads(1, 1, 0), (1, 1, 1)),
]
by_case = pytest.mark.parametrize("case", CASES, ids=str)


def channels_last(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def run(module, c: Conv, x, w, b, dy):
    return (
        module.conv_forward(x, w, b, *c.options),
        module.conv_backward_input(dy, w, c.x_shape, *c.options),
        module.conv_backward_weight(dy, x, c.w_shape, *c.options),
    )


def same_with_any_threads(module, c: Conv, *arrays: np.ndarray):
    """The results of `run`, which have the same bits with 1, 2 and 5 threads."""
    before = module.get_num_threads()
    try:
        module.set_num_threads(1)
        expected = run(module, c, *arrays)
        for threads in (2, 5):
            module.set_num_threads(threads)
            for actual, right in zip(run(module, c, *arrays), expected, strict=True):
                assert_same_bits(actual, right)
    finally:
        module.set_num_threads(before)
    return expected


def oracle(c: Conv, *arguments: np.ndarray) -> tuple[np.ndarray, ...]:
    x, w, b, dy = (a.astype(float64) for a in arguments)
    return direct.forward(c, x, w, b), direct.backward_input(c, dy, w), direct.backward_weight(c, dy, x)


def terms(c: Conv) -> tuple[int, int, int]:
    return c.terms + 1, c.terms // c.w_shape[1] * c.w_shape[0], c.x_shape[0] * int(np.prod(c.y_shape[2:]))


def test_cases_take_amx(amx):
    for case in CASES:
        for op in ("conv_forward", "conv_backward_input", "conv_backward_weight"):
            plan = amx.conv_plan(op, case.x_shape, case.w_shape, case.stride, case.padding, case.dilation, case.groups)
            assert plan["algorithm"] == "amx", (case, op, plan)
            assert "6 products" in plan["kernel"]


@by_case
def test_bound_and_integers(amx, case):
    """The default precision has the rounding class of float32, both memory formats; integers are exact."""
    d, magnitude = direct.random(case, float32)
    e = direct.exact(case, float32)
    for convert in (np.ascontiguousarray, channels_last):
        results = run(amx, case, convert(d.x), d.w, d.b, convert(d.dy))
        for name, actual, count in zip(("y", "dx", "dw"), results, terms(case), strict=True):
            assert_bound(actual, getattr(d, name), getattr(magnitude, name), count, float32)
        results = run(amx, case, convert(e.x), e.w, e.b, convert(e.dy))
        for actual, expected in zip(results, (e.y, e.dx, e.dw), strict=True):
            assert_exact(actual, expected, float32)


@by_case
def test_precision_modes(amx, case):
    """The classes of "high" (about 2^-16 of each product left out) and of "medium" (inputs in bfloat16)."""
    d, magnitude = direct.random(case, float32)
    exact = run(amx, case, d.x, d.w, d.b, d.dy)
    # Relative to the products: a part is rounded by 2^-8, two parts by 2^-16 (amx_split.h).
    for word, share in (("high", 3 * 2.0**-16), ("medium", 2.0**-7 + 2.0**-16)):
        with precision(amx, word):
            results = run(amx, case, d.x, d.w, d.b, d.dy)
        for name, actual, best in zip(("y", "dx", "dw"), results, exact, strict=True):
            size = getattr(magnitude, name)
            error = np.abs(actual - getattr(d, name))
            assert (error <= (share + 2.0**-20) * size).all(), (word, name, float((error / size).max()))
            assert (actual != best).mean() > 0.25  # a strided 1x1 filter meets a quarter of dx
    with precision(amx, "medium"):
        rounded = run(amx, case, *(a.astype(bfloat16).astype(float32) for a in (d.x, d.w)), d.b, d.dy)
        for actual, right in zip(run(amx, case, d.x, d.w, d.b, d.dy)[::2], rounded[::2], strict=True):
            assert_same_bits(actual, right)


@by_case
def test_bfloat16(amx, case):
    """bfloat16 arrays: float32 sums of exact products, rounded once."""
    d, magnitude = direct.random(case, bfloat16)
    for convert in (np.ascontiguousarray, channels_last):
        results = run(amx, case, convert(d.x), d.w, d.b, convert(d.dy))
        for name, actual, count in zip(("y", "dx", "dw"), results, terms(case), strict=True):
            assert_bound(actual, getattr(d, name), getattr(magnitude, name), count, bfloat16)


# Factors on (x, w, dy): near the largest and the smallest numbers of float32, alone and against each other.
SCALES = {
    "huge_x": (1e37, 1e-20, 1e37),
    "largest_x": (7e37, 2.0**-12, 7e37),
    "tiny_x": (1e-38, 1.0, 1e-38),
    "tiny_x_large_w": (1e-37, 1e12, 1e-37),
    "huge_w": (1e-20, 1e37, 1e-3),
    "tiny_w": (1e20, 1e-37, 1e10),
    "small_both": (1e-18, 1e-12, 1e-19),
    "products_at_the_limit": (1e-19, 1e-19, 1e-18),
    "x_against_dy": (1e25, 1e3, 1e-38),
    "dy_against_x": (1e-37, 1e3, 1e30),
}


@pytest.mark.parametrize("scale", SCALES)
@by_case
def test_limits_of_float32(amx, case, scale):
    """No overflow on the way and no loss of class, wherever the fused multiply-adds of other tables have none."""
    d, _ = direct.random(case, float32)
    fx, fw, fdy = SCALES[scale]
    with np.errstate(all="ignore"):
        x, w, dy = (d.x * float32.type(fx), d.w * float32.type(fw), d.dy * float32.type(fdy))
        # A denormal reads as zero, here as on every other table.
        x, w, dy = (np.where(np.abs(a) < np.finfo(float32).tiny, float32.type(0), a) for a in (x, w, dy))
    b = np.zeros_like(d.b)
    assert np.isfinite(x).all() and np.isfinite(w).all() and np.isfinite(dy).all()
    expected, magnitude = oracle(case, x, w, b, dy), oracle(case, *map(np.abs, (x, w, b, dy)))
    results = run(amx, case, x, w, b, dy)
    with fc.use_backend("cpu:avx512") as module:
        others = run(module, case, x, w, b, dy)
    for name, actual, other, right, size, count in zip(
        ("y", "dx", "dw"), results, others, expected, magnitude, terms(case), strict=True
    ):
        if size.max() > 1e38:
            continue
        bound = 4 * 2.0**-24 * np.sqrt(count) * size + 2.0**-24 * np.abs(right) + 2.0**-126
        ratio, usual = (float((np.abs(a - right) / bound).max()) for a in (actual, other))
        assert ratio <= max(1, 2 * usual), (name, ratio, usual)


@by_case
def test_values_beyond_the_plain_range(amx, case):
    """A few huge or tiny values among normal ones: within the bound, and no bit changes that they do not meet."""
    d, _ = direct.random(case, float32)
    clean = run(amx, case, d.x, d.w, d.b, d.dy)
    middle = (0, -1, *(n // 2 for n in d.x.shape[2:]))
    at = (0, -1, *(n // 2 for n in d.dy.shape[2:]))
    for value in (3e38, -3e38, 2e-38, 3e-20):
        x, dy = d.x.copy(), d.dy.copy()
        x[middle], dy[at] = value, value
        w = d.w * float32.type(2.0**-5)
        met_y = direct.forward(case, (x != d.x).astype(float64), np.ones(case.w_shape)) != 0
        met_dx = direct.backward_input(case, (dy != d.dy).astype(float64), np.ones(case.w_shape)) != 0
        y, dx, _ = run(amx, case, x, d.w, d.b, dy)
        assert met_y.any() and met_dx.any()
        assert_same_bits(y[~met_y], clean[0][~met_y])
        assert_same_bits(dx[~met_dx], clean[1][~met_dx])
        expected, magnitude = oracle(case, x, w, d.b, d.dy), oracle(case, *map(np.abs, (x, w, d.b, d.dy)))
        results = run(amx, case, x, w, d.b, d.dy)
        for name, actual, right, size, count in zip(
            ("y", "dx", "dw"), results, expected, magnitude, terms(case), strict=True
        ):
            fits = size < 3e38
            assert fits.mean() > 0.5 and np.isfinite(actual[fits]).all(), name
            assert_bound(actual[fits], right[fits], size[fits], count, float32)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 2.0**-60, 2e-38])
def test_weights_beyond_the_plain_range(amx, value):
    """Such weights are another kernel's: the bits of the AVX-512 table, in each direction."""
    case = CASES[0]
    d, _ = direct.random(case, float32)
    w = d.w.copy()
    w[-1, -1, 1, 1] = value
    y, dx, _ = run(amx, case, d.x, w, d.b, d.dy)
    with fc.use_backend("cpu:avx512") as module:
        expected = run(module, case, d.x, w, d.b, d.dy)
    assert_same_bits(y, expected[0])
    assert_same_bits(dx, expected[1])


def test_many_values_that_are_not_finite(amx):
    """Too many to be added one by one in the weight gradient; every output is not finite then."""
    case = CASES[0]
    d, _ = direct.random(case, float32)
    x = np.full_like(d.x, np.nan)
    y, _, dw = run(amx, case, x, d.w, d.b, d.dy)
    assert np.isnan(y).all() and np.isnan(dw).all()


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_gradients_of_huge_values_are_added_once(amx, count):
    """Huge values of x and of dy that meet: each product is in the sum once, borders and strides included."""
    case = Conv("huge", (2, 35, 6, 7), (34, 35, 3, 3), (2, 1), _pads(1, (0, 2)), (1, 1))
    rng = np.random.default_rng(count)
    x, dy = integers(rng, case.x_shape, float32), integers(rng, case.y_shape, float32)
    x.reshape(-1)[rng.permutation(x.size)[:count]] = 2.0**52
    dy.reshape(-1)[rng.permutation(dy.size)[:count]] = 2.0**53
    for convert in (np.ascontiguousarray, channels_last):
        dw = amx.conv_backward_weight(convert(dy), convert(x), case.w_shape, *case.options)
        right = direct.backward_weight(case, dy.astype(float64), x.astype(float64))
        size = direct.backward_weight(case, np.abs(dy).astype(float64), np.abs(x).astype(float64))
        assert_bound(dw, right, size, terms(case)[2], float32)


def test_sums_are_those_of_the_processor(amx):
    """TDPBF16PS: halves of 32 steps, its pairs, are two chains of fused multiply-adds, added, then added to the sum."""
    rng = np.random.default_rng(6)
    x = normal(rng, (5, 64), float32).astype(bfloat16).astype(float32)
    w = normal(rng, (40, 64), float32).astype(bfloat16).astype(float32)
    b = normal(rng, (40,), float32)
    with precision(amx, "medium"):
        y = amx.linear_forward(x, w, b)
    sums = np.broadcast_to(b, y.shape).astype(float32)
    for block in (0, 32):
        chains = [np.zeros(y.shape, float32), np.zeros(y.shape, float32)]
        for k in range(block, block + 32):
            # Exact in float64 but for the one rounding, as both terms are normal numbers of similar size.
            product = x[:, k : k + 1].astype(float64) * w[:, k].astype(float64)
            half = k // 16 % 2
            chains[half] = (chains[half].astype(float64) + product).astype(float32)
        sums = sums + (chains[0] + chains[1])
    assert_same_bits(y, sums)


@pytest.mark.parametrize("rows", [1, 2, 31, 70])
def test_linear(amx, rows):
    """All three directions of a linear layer, and the same bits for a row alone and among others."""
    rng = np.random.default_rng(rows)
    x, w, b, dy = (normal(rng, s, float32) for s in ((rows, 100), (65, 100), (65,), (rows, 65)))
    x64, w64, dy64 = (a.astype(float64) for a in (x, w, dy))
    y, dx, dw = amx.linear_forward(x, w, b), amx.linear_backward_input(dy, w), amx.linear_backward_weight(dy, x)
    assert_bound(y, x64 @ w64.T + b, np.abs(x64) @ np.abs(w64).T + np.abs(b), 101, float32)
    assert_bound(dx, dy64 @ w64, np.abs(dy64) @ np.abs(w64), 65, float32)
    assert_bound(dw, dy64.T @ x64, np.abs(dy64).T @ np.abs(x64), rows, float32)
    assert_same_bits(amx.linear_forward(x[-1:], w, b), y[-1:])
    assert_same_bits(amx.linear_backward_input(dy[-1:], w), dx[-1:])


def test_linear_is_too_wide_for_any_number_of_rows(amx):
    """Whether 16 rows fit the cache decides for one row, too: the batch must not change bits."""
    rng = np.random.default_rng(7)
    for features in (14000, 17000):
        x, w = normal(rng, (17, features), float32), normal(rng, (3, features), float32)
        assert_same_bits(amx.linear_forward(x[:1], w, None), amx.linear_forward(x, w, None)[:1])


@by_case
def test_bits_do_not_depend_on_threads(amx, case):
    d, _ = direct.random(case, float32)
    for convert in (np.ascontiguousarray, channels_last):
        same_with_any_threads(amx, case, convert(d.x), d.w, d.b, convert(d.dy))


def test_workspace_is_bounded(amx):
    """At most 32 MB for every layer of the bench, on 64 threads, in all precisions and both memory formats."""
    before = amx.get_num_threads()
    amx.set_num_threads(64)
    try:
        for case in map(Conv.of, shapes.CONVS):
            for word in ("highest", "medium"):
                for op in ("conv_forward", "conv_backward_input", "conv_backward_weight"):
                    for last in (False, True):
                        with precision(amx, word):
                            plan = amx.conv_plan(
                                op, case.x_shape, case.w_shape, case.stride, case.padding, case.dilation, case.groups,
                                channels_last=last,
                            )  # fmt: skip
                        assert plan["workspace"] <= 32 << 20, (case, op, plan)
    finally:
        amx.set_num_threads(before)
