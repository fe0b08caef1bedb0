"""The Winograd weight gradient, asked for by name: every shape that it computes, its blocking, and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_conv_algorithms import FIVE, THREE, WINOGRAD

import direct
from checks import (
    assert_exact,
    assert_same_bits,
    bfloat16,
    channels_last,
    dtype_name,
    float16,
    float32,
    float64,
    integers,
    normal,
)
from direct import Conv
from fastconv.testing import assert_bound

LAYOUTS = (np.ascontiguousarray, channels_last)


def conv(name, x_shape, filters, padding=((1, 1), (1, 1)), groups=1, taps=3) -> Conv:
    return Conv(name, x_shape, (filters, x_shape[1] // groups, taps, taps), (1, 1), padding, (1, 1), groups)


# Several blocks and partitions, along rows, along columns and of images; tasks of some channels and some panels; panels
# in chunks; groups that a task's panels do not end with.
BLOCKS = [
    conv("rows", (1, 33, 62, 40), 35),
    conv("columns", (1, 17, 4, 700), 16, ((2, 0), (1, 3))),
    conv("images", (70, 20, 7, 7), 33),
    conv("channels", (2, 150, 9, 9), 300),
    conv("chunks", (2, 700, 6, 6), 800),
    conv("groups", (2, 60, 20, 21), 165, groups=3),
    conv("many_groups", (1, 120, 8, 8), 80, groups=20),
]
BLOCKS_OF_FIVE = [
    conv("five_rows", (1, 33, 62, 40), 35, taps=5),
    conv("five_images", (70, 20, 7, 7), 33, ((2, 2), (0, 4)), taps=5),
    conv("five_chunks", (2, 400, 6, 6), 500, ((2, 2), (2, 2)), taps=5),
]
CASES = [c for c in (*THREE, *BLOCKS, *FIVE, *BLOCKS_OF_FIVE) if c.x_shape[0]]


by_winograd = pytest.mark.parametrize("algorithm", WINOGRAD)


def gradient(backend, case: Conv, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    plan = backend.conv_plan("conv_backward_weight", x.shape, case.w_shape, padding=case.padding, groups=case.groups)
    assert plan["algorithm"] == backend.get_conv_algorithm()
    return backend.conv_backward_weight(dy, x, case.w_shape, *case.options)


@pytest.mark.parametrize("dtype", (float32, float16, bfloat16), ids=dtype_name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(asked, case, dtype):
    """Integer data: the bits of integer arithmetic, in both memory formats."""
    rng = np.random.default_rng(41)
    x, dy = integers(rng, case.x_shape, dtype, -2, 2), integers(rng, case.y_shape, dtype, -2, 2)
    expected = direct.backward_weight(case, dy.astype(float64), x.astype(float64))
    backend = asked("winograd_2x2")
    for convert in LAYOUTS:
        assert_exact(gradient(backend, case, convert(dy), convert(x)), expected, dtype)


@pytest.mark.parametrize(
    "algorithm, case", [(a, c) for a in WINOGRAD for c in CASES if a == WINOGRAD[0] or c.w_shape[2] == 3]
)
def test_bound_and_bits(asked, algorithm, case):
    """Within the bound; the same bits in both memory formats and for any number of threads.

    Tiles of 3x3 and 4x4 are in the class of precision "highest" where the rule takes them: in sums over many pixels.
    """
    rng = np.random.default_rng(42)
    x, dy = normal(rng, case.x_shape, float32), normal(rng, case.y_shape, float32)
    x64, dy64 = x.astype(float64), dy.astype(float64)
    expected = direct.backward_weight(case, dy64, x64)
    magnitude = direct.backward_weight(case, np.abs(dy64), np.abs(x64))
    backend = asked(algorithm)
    threads = backend.get_num_threads()
    first = None
    try:
        for convert in LAYOUTS:
            for count in (1, 2, 3):
                backend.set_num_threads(count)
                dw = gradient(backend, case, convert(dy), convert(x))
                first = dw if first is None else first
                assert_same_bits(dw, first)
    finally:
        backend.set_num_threads(threads)
    pixels = int(np.prod(case.y_shape[2:]))
    fewest = {"winograd_3x3": 196, "winograd_4x4": 784}.get(algorithm, 25 if case.w_shape[2] == 5 else 0)
    word = "high" if pixels < fewest else "highest"
    assert_bound(first, expected, magnitude, len(x) * pixels, what="dw", precision=word)


sizes = st.integers(1, 40)


@given(
    n=st.integers(1, 5), c=sizes, k=sizes, h=st.integers(1, 15), w=st.integers(1, 15),
    pads=st.tuples(*[st.integers(0, 4)] * 4), groups=st.integers(1, 3), last=st.booleans(),
    taps=st.sampled_from([3, 5]),
)  # fmt: skip
def test_any_shape(cpu_backend, n, c, k, h, w, pads, groups, last, taps):
    padding = (pads[:2], pads[2:])
    if h + sum(pads[:2]) < taps or w + sum(pads[2:]) < taps or (groups > 1 and c == 1):
        return
    case = conv("any", (n, c * groups, h, w), k * groups, padding, groups, taps)
    rng = np.random.default_rng(43)
    x, dy = integers(rng, case.x_shape, float32), integers(rng, case.y_shape, float32)
    expected = direct.backward_weight(case, dy.astype(float64), x.astype(float64))
    convert = LAYOUTS[last]
    try:
        for algorithm in WINOGRAD if taps == 3 else WINOGRAD[:1]:
            cpu_backend.set_conv_algorithm(algorithm)
            dw = gradient(cpu_backend, case, convert(dy), convert(x))
            if algorithm == "winograd_2x2":
                assert_exact(dw, expected, float32)
            else:
                np.testing.assert_allclose(dw, expected, rtol=0, atol=2**-16 * 9 * n * int(np.prod(case.y_shape[2:])))
    finally:
        cpu_backend.set_conv_algorithm("")


@by_winograd
@pytest.mark.parametrize("convert", LAYOUTS, ids=["first", "last"])
@pytest.mark.parametrize("spoiled", ["x", "dy"])
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 2.0**127, 2.0**-122], ids=str)
def test_what_the_tap_products_take(asked, algorithm, spoiled, scale, convert):
    """Where sums of a tile are infinite or flushed to zero although no product is."""
    rng = np.random.default_rng(44)
    case = conv("spoiled", (3, 19, 11, 10), 21, ((1, 2), (0, 1)))

    other = 2.0**-12 if scale == 2.0**127 else 1.0

    def values(shape, spoil):
        random = rng.choice([-1, 1], shape) * rng.uniform(0.5, 1.9, shape)
        a = convert((random * (scale if spoil and np.isfinite(scale) else other)).astype(float32))
        if spoil and not np.isfinite(scale):
            a[1, 3, 5, 4] = scale
        return a

    x, dy = values(case.x_shape, spoiled == "x"), values(case.y_shape, spoiled == "dy")
    expected = asked("tap_products").conv_backward_weight(dy, x, case.w_shape, *case.options)
    assert_same_bits(gradient(asked(algorithm), case, dy, x), expected)
    finite = np.isfinite(expected)
    assert finite.any() and finite.all() == np.isfinite(scale)


@by_winograd
def test_zeros_and_denormals(asked, algorithm):
    case = conv("zeros", (2, 9, 8, 8), 16)
    dy = normal(np.random.default_rng(45), case.y_shape, float32)
    for value in (0.0, 1e-40):
        dw = gradient(asked(algorithm), case, dy, np.full(case.x_shape, value, float32))
        assert np.abs(dw).max() <= (1e-35 if value else 0)


@by_winograd
def test_workspace_is_bounded(asked, algorithm):
    backend = asked(algorithm)
    threads = backend.get_num_threads()
    shapes = ((2, 512, 14, 14), 512), ((1, 700, 3, 600), 48), ((8, 1024, 7, 7), 1024), ((1, 3000, 6, 6), 40)
    try:
        for x_shape, filters in (*shapes, ((300, 16, 20, 2000), 16)):
            for count in (1, 2, 64):
                backend.set_num_threads(count)
                w_shape = (filters, x_shape[1], 3, 3)
                plan = backend.conv_plan("conv_backward_weight", x_shape, w_shape, padding=1)
                assert plan["algorithm"] == algorithm and 0 < plan["workspace"] <= 32 << 20
        for case in BLOCKS:
            backend.reset_workspace_peak()
            x, dy = np.zeros(case.x_shape, float32), np.zeros(case.y_shape, float32)
            gradient(backend, case, dy, x)
            options = {"padding": case.padding, "groups": case.groups}
            plan = backend.conv_plan("conv_backward_weight", case.x_shape, case.w_shape, **options)
            assert backend.workspace_peak() == plan["workspace"]
    finally:
        backend.set_num_threads(threads)


@pytest.mark.parametrize(
    "x_shape, filters, algorithm",
    [
        ((1, 64, 56, 56), 64, "winograd_4x4"),
        ((64, 64, 56, 56), 64, "winograd_4x4"),
        ((1, 64, 28, 28), 64, "winograd_4x4"),
        ((1, 64, 26, 26), 64, "winograd_3x3"),
        ((1, 64, 14, 14), 64, "winograd_3x3"),
        ((1, 64, 13, 14), 64, "winograd_2x2"),
        ((1, 512, 7, 7), 512, "winograd_2x2"),
        ((1, 3, 224, 224), 64, "tap_products"),  # few channels
        ((1, 64, 3, 3), 64, "tap_products"),  # few tiles
        ((1, 1024, 7, 7), 1024, "tap_products"),  # many weights
    ],
)
def test_rule(cpu_backend, x_shape, filters, algorithm):
    if cpu_backend.isa().startswith("amx"):
        pytest.skip("tiles come first")
    plan = cpu_backend.conv_plan("conv_backward_weight", x_shape, (filters, x_shape[1], 3, 3), padding=1)
    assert plan["algorithm"] == algorithm
    assert set(WINOGRAD) & set(plan["others"]) == set(WINOGRAD) - {algorithm}


@by_winograd
def test_sums_that_do_not_fit(asked, algorithm):
    """A gradient whose sums of one panel would exceed the workspace is left to the tap products."""
    plan = asked(algorithm).conv_plan("conv_backward_weight", (1, 40000, 64, 64), (64, 40000, 3, 3), padding=1)
    assert not {algorithm} & {plan["algorithm"], *plan["others"]} and plan["workspace"] <= 32 << 20


@pytest.mark.parametrize(
    "w_shape, options",
    [
        ((64, 64, 3, 3), {"stride": 2, "padding": 1}),
        ((64, 64, 3, 3), {"dilation": 2, "padding": 2}),
        ((64, 64, 5, 5), {"padding": 2, "stride": 2}),
        ((64, 64, 3, 3), {"padding": 1, "dtype": "float64"}),
        ((64, 1, 3, 3), {"padding": 1, "groups": 64}),
    ],
)
def test_other_problems_keep_the_rules_choice(asked, w_shape, options):
    before = asked("").conv_plan("conv_backward_weight", (1, 64, 56, 56), w_shape, **options)
    plan = asked("winograd_2x2").conv_plan("conv_backward_weight", (1, 64, 56, 56), w_shape, **options)
    assert plan == before and "winograd_2x2" not in plan["others"]
