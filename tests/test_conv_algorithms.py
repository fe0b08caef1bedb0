"""Every algorithm that the selection rule may choose, asked for by name, on the shapes that it can compute.

What the rule itself chooses is tested in ``test_conv``; most test-sized shapes get the direct kernel there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_conv import CASES, channels_last, run

import direct
from checks import assert_exact, assert_same_bits, bfloat16, dtype_name, float16, float32, float64, integers, normal
from direct import Conv
from fastconv.testing import assert_bound

_ONE = ((1, 1), (1, 1))

# Blocks of tiles that end within an image, several blocks in a row, weights in two passes, and more images than the
# kernel takes at once.
TILES = [
    Conv("tiles_rows", (2, 20, 29, 31), (19, 20, 3, 3), (1, 1), _ONE, (1, 1)),
    Conv("tiles_columns", (1, 24, 4, 450), (18, 24, 3, 3), (1, 1), ((1, 0), (2, 0)), (1, 1)),
    Conv("tiles_passes", (1, 512, 4, 5), (192, 512, 3, 3), (1, 1), _ONE, (1, 1)),
    Conv("tiles_groups", (2, 66, 13, 9), (60, 22, 3, 3), (1, 1), _ONE, (1, 1), 3),
    Conv("tiles_images", (1030, 2, 3, 2), (3, 2, 3, 3), (1, 1), _ONE, (1, 1)),
    Conv("five_rows", (2, 20, 29, 31), (19, 20, 5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    Conv("five_columns", (1, 24, 6, 450), (18, 24, 5, 5), (1, 1), ((1, 0), (3, 0)), (1, 1)),
    Conv("five_passes", (1, 256, 4, 5), (300, 256, 5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    Conv("five_groups", (2, 66, 13, 9), (60, 22, 5, 5), (1, 1), ((4, 2), (0, 3)), (1, 1), 3),
]


def _square(taps: int) -> list[Conv]:
    cases = [c for c in (*CASES, *TILES) if c.w_shape[2:] == (taps, taps) and {*c.stride, *c.dilation} == {1}]
    return [c for c in cases if not c.groups == c.x_shape[1] > 1]


THREE, FIVE = _square(3), _square(5)
ONE = [c for c in CASES if {*c.w_shape[2:], *c.stride} == {1} and c.nd > 1 and not any(map(any, c.padding))]
WINOGRAD = ("winograd_2x2", "winograd_3x3", "winograd_4x4")
CANDIDATES = {"direct": ONE, "pointwise": ONE, **dict.fromkeys(WINOGRAD, THREE), "winograd_2x2": [*THREE, *FIVE]}
# In these the transforms round: results are of the class "highest" from so many channels on, else of "high".
INEXACT = {"winograd_3x3": 32, "winograd_4x4": 96}


def _candidates(algorithms: Iterable[str]) -> pytest.MarkDecorator:
    rows = [pytest.param(name, case, id=f"{name}-{case}") for name in algorithms for case in CANDIDATES[name]]
    return pytest.mark.parametrize("algorithm, case", rows)


by_candidate = _candidates(CANDIDATES)
by_exact_candidate = _candidates(name for name in CANDIDATES if name not in INEXACT)
by_winograd = pytest.mark.parametrize("algorithm", WINOGRAD)
# Enough tiles for some of them to be partial, enough channels for a last register of a few.
TILED = Conv("tiled", (3, 19, 11, 10), (21, 19, 3, 3), (1, 1), ((1, 2), (0, 1)), (1, 1))


def precision(algorithm: str, channels: int) -> str:
    return "high" if channels < INEXACT.get(algorithm, 0) else "highest"


def surroundings(magnitude: np.ndarray) -> np.ndarray:
    """The largest magnitude within three pixels: an output shares its errors with those of its tile."""
    for axis in (2, 3):
        padded = np.pad(magnitude, [(3, 3) if i == axis else (0, 0) for i in range(4)])
        magnitude = np.lib.stride_tricks.sliding_window_view(padded, 7, axis).max(axis=-1)
    return magnitude


def bounds(algorithm: str, case: Conv, d: direct.Data, magnitude: direct.Data) -> Iterator[tuple]:
    """Name, float64 result, magnitude, number of terms and class of the two results that an algorithm computes."""
    local = surroundings if algorithm in INEXACT else np.asarray
    yield "y", d.y, local(magnitude.y), case.terms + 1, precision(algorithm, case.w_shape[1])
    filters = case.w_shape[0] // case.groups
    yield "dx", d.dx, local(magnitude.dx), case.terms * case.w_shape[0], precision(algorithm, filters)


def test_the_selections_are_complete():
    assert len(THREE) > 50 and len(FIVE) > 5 and len(ONE) > 20


@pytest.mark.parametrize("dtype", (float32, float16, bfloat16), ids=dtype_name)
@by_exact_candidate
def test_exact(asked, algorithm, case, dtype):
    """Integer data: the bits of integer arithmetic, in both memory formats."""
    d = direct.exact(case, dtype)
    backend = asked(algorithm)
    for convert in (np.ascontiguousarray, channels_last):
        y, dx, _, _ = run(backend, case, convert(d.x), d.w, d.b, convert(d.dy))
        assert_exact(y, d.y, dtype)
        assert_exact(dx, d.dx, dtype)


@by_candidate
def test_bound_and_bits(asked, algorithm, case):
    """Within the bound of the algorithm's class; the same bits whatever the threads and the batch.

    Winograd gives them in both memory formats, too.
    """
    d, magnitude = direct.random(case, float32)
    backend = asked(algorithm)
    threads = backend.get_num_threads()
    first = None
    try:
        for convert in (np.ascontiguousarray, channels_last):
            x, dy = convert(d.x), convert(d.dy)
            backend.set_num_threads(1)
            results = run(backend, case, x, d.w, d.b, dy)[:2]
            first = first or results
            for actual, (name, y64, scale, terms, word) in zip(
                results, bounds(algorithm, case, d, magnitude), strict=True
            ):
                assert_bound(actual, y64, scale, terms, what=name, precision=word)
            if algorithm in WINOGRAD:
                for actual, expected in zip(results, first, strict=True):
                    assert_same_bits(actual, expected)
            for count in (2, 3):
                backend.set_num_threads(count)
                for actual, expected in zip(run(backend, case, x, d.w, d.b, dy), results, strict=False):
                    assert_same_bits(actual, expected)
            for i in range(min(2, case.x_shape[0])):
                one, done = convert(d.x[i : i + 1]), convert(d.dy[i : i + 1])
                assert_same_bits(backend.conv_forward(one, d.w, d.b, *case.options), results[0][i : i + 1])
                dx = backend.conv_backward_input(done, d.w, one.shape, *case.options)
                assert_same_bits(dx, results[1][i : i + 1])
    finally:
        backend.set_num_threads(threads)


@by_winograd
def test_half_precision_winograd(asked, algorithm):
    """float16 and bfloat16 arrays are summed in float32, whose bound they keep."""
    backend = asked(algorithm)
    for dtype in (float16, bfloat16):
        d, magnitude = direct.random(TILED, dtype)
        results = run(backend, TILED, d.x, d.w, d.b, d.dy)[:2]
        for actual, (name, y64, scale, terms, _) in zip(results, bounds(algorithm, TILED, d, magnitude), strict=True):
            assert_bound(actual, y64, scale, terms, dtype, what=name)
        plan = backend.conv_plan("conv_forward", TILED.x_shape, TILED.w_shape, dtype=dtype.name)
        assert plan["algorithm"] == algorithm


@st.composite
def tiled(draw, taps: int) -> Conv:
    groups = draw(st.integers(1, 3))
    per_group, filters = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    padding = tuple((draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in range(2))
    space = [draw(st.integers(max(1, taps - sum(p)), 23)) for p in padding]
    x_shape = (draw(st.integers(0, 3)), groups * per_group, *space)
    return Conv("drawn", x_shape, (groups * filters, per_group, taps, taps), (1, 1), padding, (1, 1), groups)


@given(c=tiled(3) | tiled(5), last=st.booleans())
def test_any_winograd_shape(cpu_backend, c, last):
    rng = np.random.default_rng(6)
    x, w, dy = (integers(rng, s, float64, -2, 2) for s in (c.x_shape, c.w_shape, c.y_shape))
    convert = channels_last if last else np.ascontiguousarray
    y64, dx64 = direct.forward(c, x, w), direct.backward_input(c, dy, w)
    xt, wt, dyt = (convert(a.astype(float32)) for a in (x, w, dy))
    try:
        for algorithm in WINOGRAD if c.w_shape[2] == 3 else WINOGRAD[:1]:
            cpu_backend.set_conv_algorithm(algorithm)
            y = cpu_backend.conv_forward(xt, wt, None, *c.options)
            dx = cpu_backend.conv_backward_input(dyt, wt, c.x_shape, *c.options)
            if algorithm in INEXACT:
                np.testing.assert_allclose(y, y64, rtol=0, atol=2**-16 * 4 * c.terms)
                np.testing.assert_allclose(dx, dx64, rtol=0, atol=2**-16 * 4 * 9 * (c.w_shape[0] // c.groups))
            else:
                assert_exact(y, y64, float32)
                assert_exact(dx, dx64, float32)
    finally:
        cpu_backend.set_conv_algorithm("")


@by_winograd
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(asked, algorithm, value):
    """A NaN or infinity reaches the results that it enters, none beside them, and no bit of another image."""
    d, magnitude = direct.random(TILED, float32)
    backend = asked(algorithm)
    clean = run(backend, TILED, d.x, d.w, d.b, d.dy)[:2]
    x, dy = d.x.copy(), d.dy.copy()
    x[1, 3, 5, 4] = dy[1, 2, 6, 6] = value
    results = run(backend, TILED, x, d.w, d.b, dy)[:2]
    with np.errstate(invalid="ignore"):
        expected = (
            direct.forward(TILED, x.astype(float64), d.w.astype(float64), d.b.astype(float64)),
            direct.backward_input(TILED, dy.astype(float64), d.w.astype(float64)),
        )
    for actual, right, before, (name, y64, scale, terms, word) in zip(
        results, expected, clean, bounds(algorithm, TILED, d, magnitude), strict=True
    ):
        finite = np.isfinite(right)
        assert finite[1].any() and not finite[1].all()
        np.testing.assert_array_equal(actual[~finite].astype(float64), right[~finite])
        assert_bound(actual[finite], y64[finite], scale[finite], terms, what=name, precision=word)
        for i in (0, 2):
            assert_same_bits(actual[i], before[i])


@by_winograd
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("scaled", ["x", "w"])
@pytest.mark.parametrize("scale", [np.nan, np.inf, 2.0**127, 2.0**-122], ids=["nan", "inf", "large", "small"])
def test_what_the_direct_kernel_takes(asked, algorithm, scaled, last, scale):
    """Where sums of inputs or weights would be infinite or flushed to zero, the results are the direct kernel's."""
    rng = np.random.default_rng(8)
    other = 2.0**-12 if scale == 2.0**127 else 1.0
    convert = channels_last if last else np.ascontiguousarray

    def values(shape, factor):
        random = rng.choice([-1, 1], shape) * rng.uniform(0.5, 1.9, shape)
        return convert((random * (factor if np.isfinite(factor) else 1)).astype(float32))

    x, dy = (values(shape, scale if scaled == "x" else other) for shape in (TILED.x_shape, TILED.y_shape))
    w, b = values(TILED.w_shape, scale if scaled == "w" else other), np.zeros(TILED.w_shape[0], float32)
    if not np.isfinite(scale):
        for a in (x, dy) if scaled == "x" else (w,):
            a[:, 1, 1, 1] = scale
    expected = run(asked("direct"), TILED, x, w, b, dy)[:2]
    for actual, right in zip(run(asked(algorithm), TILED, x, w, b, dy)[:2], expected, strict=True):
        assert_same_bits(actual, right)
        assert np.isfinite(right).all() == np.isfinite(scale)


@by_winograd
def test_zeros_and_denormals(asked, algorithm):
    backend = asked(algorithm)
    w = normal(np.random.default_rng(9), TILED.w_shape, float32)
    for value in (0.0, 1e-40):
        y = backend.conv_forward(np.full(TILED.x_shape, value, float32), w, None, *TILED.options)
        assert np.abs(y).max() <= (np.finfo(float32).tiny if value else 0)


@pytest.mark.parametrize("algorithm", ("direct", *WINOGRAD))
def test_threads_that_keep_to_their_panels(asked, algorithm):
    """Many output channels for few pixels: the bits of one thread, whoever transforms or packs which weights."""
    case = (6, 40, 8, 8), (136, 40, 3, 3)
    if algorithm == "direct":
        case = (3, 160, 5, 5), (256, 160, 1, 1)
    rng = np.random.default_rng(5)
    x, w = (rng.standard_normal(shape).astype(float32) for shape in case)
    pad = w.shape[2] // 2
    dy = rng.standard_normal((len(x), len(w), *x.shape[2:])).astype(float32)
    backend = asked(algorithm)
    threads = backend.get_num_threads()
    try:
        for count in (len(x), 1):
            for convert in (np.ascontiguousarray, channels_last):
                images, gradient = convert(x[:count]), convert(dy[:count])
                first = None
                for team in (1, 2, 3, 7):
                    backend.set_num_threads(team)
                    y = backend.conv_forward(images, w, None, 1, pad, 1, 1, 2)
                    dx = backend.conv_backward_input(gradient, w, images.shape, 1, pad, 1, 1, 2)
                    first = first or (y, dx)
                    assert_same_bits(y, first[0])
                    assert_same_bits(dx, first[1])
    finally:
        backend.set_num_threads(threads)


def test_weights_of_several_passes(asked):
    """Small images, more transformed weights than are kept at a time: two threads take half of the batch each."""
    rng = np.random.default_rng(6)
    x = channels_last(rng.standard_normal((30, 300, 4, 4)).astype(float32))
    w = rng.standard_normal((300, 300, 3, 3)).astype(float32)
    backend = asked("winograd_4x4")
    threads = backend.get_num_threads()
    results = []
    try:
        for team in (1, 2):
            backend.set_num_threads(team)
            results.append(backend.conv_forward(x, w, None, 1, 1, 1, 1, 2))
            assert backend.conv_plan("conv_forward", x.shape, w.shape, padding=1)["workspace"] <= 32 << 20
        results.append(backend.conv_forward(x[29:], w, None, 1, 1, 1, 1, 2))
    finally:
        backend.set_num_threads(threads)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0][29:], results[2])


@by_winograd
def test_workspace_is_bounded(asked, algorithm):
    backend = asked(algorithm)
    threads = backend.get_num_threads()
    try:
        for x_shape, w_shape in (((2, 512, 14, 14), (512, 512, 3, 3)), ((1, 700, 3, 600), (48, 700, 3, 3))):
            for count in (1, 2, 64):
                backend.set_num_threads(count)
                for op in ("conv_forward", "conv_backward_input"):
                    plan = backend.conv_plan(op, x_shape, w_shape, padding=1)
                    assert plan["algorithm"] == algorithm and 0 < plan["workspace"] <= 32 << 20
        backend.reset_workspace_peak()
        x, w = np.zeros((1, 512, 9, 8), float32), np.zeros((96, 512, 3, 3), float32)
        backend.conv_forward(x, w, None, 1, 1, 1, 1, 2)
        assert backend.workspace_peak() == backend.conv_plan("conv_forward", x.shape, w.shape, padding=1)["workspace"]
    finally:
        backend.set_num_threads(threads)


LAYER = (64, 56, 56), (64, 64, 3, 3)


def test_the_rule_looks_at_one_image(cpu_backend):
    def chosen(n: int) -> str:
        return cpu_backend.conv_plan("conv_forward", (n, *LAYER[0]), LAYER[1], padding=1)["algorithm"]

    before = cpu_backend.get_float32_precision()
    try:
        for word, expected in (("highest", "winograd_3x3"), ("high", "winograd_4x4"), ("medium", "winograd_4x4")):
            cpu_backend.set_float32_precision(word)
            amx = cpu_backend.isa().startswith("amx")
            assert {chosen(n) for n in (1, 3, 64)} == {"amx" if amx else expected}
    finally:
        cpu_backend.set_float32_precision(before)


def rms_of_a_loop(x: np.ndarray, w: np.ndarray, y64: np.ndarray, fused: bool) -> float:
    """Root of the mean square error of a chain of float32 multiply-adds, channel by channel and tap by tap."""
    high, wide = y64.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(float64)
    total = np.zeros(y64.shape, float32)
    for c in range(x.shape[1]):
        for r in range(3):
            for s in range(3):
                taps = w[None, :, c, r, s, None, None]
                products = padded[:, c, None, r : r + high, s : s + wide] * taps
                total = (total + (products if fused else products.astype(float32))).astype(float32)
    return float(np.sqrt(np.mean((total - y64) ** 2)))


@pytest.mark.parametrize("relu", [False, True], ids=["normal", "relu"])
@pytest.mark.parametrize("channels", [16, 32, 64, 96, 128, 256, 512])
def test_rms_error_is_that_of_a_float32_loop(cpu_backend, channels, relu):
    """What the rule chooses under "highest": as exact as a loop on normal data, up to 1.3 of its error behind a ReLU.

    Where multiply-adds round twice, transforms lose a little more than the loop does.
    """
    rng = np.random.default_rng(10)
    x = normal(rng, (1, channels, 21, 20), float32)
    x = np.maximum(x, 0) if relu else x
    w = normal(rng, (24, channels, 3, 3), float32)
    y64 = cpu_backend.conv_forward(x.astype(float64), w.astype(float64), None, 1, 1, 1, 1, 2)
    y = cpu_backend.conv_forward(x, w, None, 1, 1, 1, 1, 2)
    rms = float(np.sqrt(np.mean((y - y64) ** 2)))
    fused = cpu_backend.isa() != "generic"
    assert rms <= (1.3 if relu else 1.1) * (1 if fused else 1.2) * rms_of_a_loop(x, w, y64, fused)


@pytest.mark.parametrize("c, expected", [(16, "2x2"), (31, "2x2"), (32, "3x3"), (95, "3x3"), (96, "4x4"), (512, "4x4")])
def test_larger_tiles_from_so_many_channels_on(cpu_backend, c, expected):
    if cpu_backend.isa().startswith("amx"):
        pytest.skip("tiles come first")
    for way, w_shape in (("conv_forward", (64, c, 3, 3)), ("conv_backward_input", (c, 64, 3, 3))):
        plan = cpu_backend.conv_plan(way, (1, w_shape[1], 56, 56), w_shape, padding=1)
        assert plan["algorithm"] == f"winograd_{expected}"
        if c < 96:
            assert "'highest'" in plan["others"]["winograd_4x4"]


@pytest.mark.parametrize(
    "x_shape, w_shape, options",
    [
        ((1, 64, 56, 56), (64, 64, 3, 3), {"stride": 2, "padding": 1}),
        ((1, 64, 56, 56), (64, 64, 3, 3), {"dilation": 2, "padding": 2}),
        ((1, 64, 56, 56), (64, 64, 5, 5), {"stride": 2, "padding": 2}),
        ((1, 64, 56, 56), (64, 64, 3, 5), {"padding": (1, 2)}),
        ((1, 64, 56, 56), (64, 64, 7, 7), {"padding": 3}),
        ((1, 64, 56, 56), (64, 64, 3, 3), {"padding": 1, "dtype": "float64"}),
        ((1, 64, 56, 56), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
        ((1, 64, 8, 56, 56), (64, 64, 3, 3, 3), {"padding": 1}),
    ],
)
def test_other_problems_keep_the_rules_choice(asked, x_shape, w_shape, options):
    before = asked("").conv_plan("conv_forward", x_shape, w_shape, **options)
    plan = asked("winograd_2x2").conv_plan("conv_forward", x_shape, w_shape, **options)
    assert plan == before and "winograd_2x2" not in plan["others"]
