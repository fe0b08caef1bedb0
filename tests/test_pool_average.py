"""Average, power-average (Lp) and adaptive average pooling: values, gradients, invariance, bad input; every backend."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import checks
from fastconv import reference

# (nd, x shape, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
CASES = {
    "2x2": (2, (2, 3, 8, 34), 2, None, 0, False, True, None),
    "3x3/2": (2, (2, 5, 15, 70), 3, 2, 1, False, True, None),
    "3x3/1 without padding in the count": (2, (1, 18, 9, 33), 3, 1, 1, False, False, None),
    "planes of less than a register": (2, (2, 9, 7, 7), 3, 1, 1, False, True, None),
    "very wide 3x3/2": (2, (1, 2, 7, 1100), 3, 2, 1, False, False, None),
    "ceil": (2, (1, 4, 14, 14), 3, 2, 0, True, True, None),
    "ceil without padding in the count": (2, (1, 4, 15, 40), (4, 3), (3, 2), 1, True, False, None),
    "5x5/3": (2, (1, 33, 14, 14), 5, 3, 2, True, True, None),
    "divisor": (2, (1, 4, 9, 9), 3, 2, 1, True, True, -5),
    "global": (2, (2, 20, 7, 7), 7, 1, 0, False, True, None),
    "global, of many channels": (2, (3, 37, 6, 5), (6, 5), 1, 0, False, False, None),
    "global with a divisor": (2, (2, 3, 4, 5), (4, 5), 1, 0, False, True, 7),
    "2x2 with a divisor, two rows a register": (2, (2, 3, 15, 14), 2, None, 0, False, True, 3),
    "long rows": (1, (2, 3, 301), 5, 2, 2, False, True, None),
    "more taps than vectors take": (1, (1, 2, 5000), 4100, 300, 0, True, True, None),
    "gaps": (2, (1, 3, 10, 20), 1, 3, 0, False, True, None),
    "3-D": (3, (1, 18, 5, 6, 21), (2, 3, 3), (1, 2, 2), (1, 1, 0), True, False, None),
    "pairs": (2, (2, 5, 15, 70), 3, 2, ((0, 1), (2, 0)), False, True, None),
    "pairs without padding in the count": (2, (1, 17, 9, 33), 3, 1, ((2, 0), (0, 2)), False, False, None),
    "pairs over half the window": (2, (1, 4, 5, 40), (5, 4), 1, ((4, 3), (3, 3)), True, False, None),
    "pairs, ceil": (2, (1, 4, 14, 15), 3, 2, ((0, 1), (1, 0)), True, True, None),
    "2x2 with a pair": (2, (1, 3, 8, 34), 2, 2, ((0, 0), (0, 1)), False, True, None),
    "same": (2, (1, 18, 14, 21), 3, 2, "same", False, False, None),
    "same, 3-D": (3, (1, 3, 5, 6, 21), (2, 3, 4), (1, 2, 3), "same", False, True, None),
    "valid": (2, (1, 3, 9, 20), 3, 2, "valid", False, True, None),
}
OF_TORCH = [c for c, (*_, padding, _, _, _) in CASES.items() if isinstance(padding, int) or isinstance(padding[0], int)]


def options(case):
    nd, shape, *rest = CASES[case]
    return nd, shape, (*rest, nd)


def taps(kernel, nd):
    return int(np.prod(np.broadcast_to(kernel, nd)))


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward_are_within_the_bound(backend, case, dtype):
    nd, shape, args = options(case)
    rng = np.random.default_rng(1)
    values = checks.normal(rng, shape, dtype)
    y64 = reference.avg_pool_forward(values.astype(np.float64), *args)
    magnitude = np.abs(reference.avg_pool_forward(np.abs(values).astype(np.float64), *args))
    dy = checks.normal(rng, y64.shape, dtype)
    dx64 = reference.avg_pool_backward(dy.astype(np.float64), shape, *args)
    dx_magnitude = np.abs(reference.avg_pool_backward(np.abs(dy).astype(np.float64), shape, *args))
    terms = taps(args[0], nd)
    for _, x in checks.layouts(values):
        checks.assert_bound(backend.avg_pool_forward(x, *args), y64, magnitude, terms, dtype)
    for _, gradient in checks.layouts(dy):
        checks.assert_bound(backend.avg_pool_backward(gradient, shape, *args), dx64, dx_magnitude, terms, dtype)


@pytest.mark.parametrize("case", OF_TORCH)
def test_values_are_those_of_torch(backend, torch, case):
    nd, shape, (kernel, stride, padding, ceil_mode, include, divisor, _) = options(case)
    x = checks.normal(np.random.default_rng(2), shape, np.float64)
    tx = checks.to_torch(x).requires_grad_()
    more = {"divisor_override": divisor} if nd > 1 else {}
    pool = getattr(torch.nn.functional, f"avg_pool{nd}d")
    y = pool(tx, kernel, stride, padding, ceil_mode=ceil_mode, count_include_pad=include, **more)
    args = (kernel, stride, padding, ceil_mode, include, divisor, nd)
    np.testing.assert_allclose(backend.avg_pool_forward(x, *args), checks.from_torch(y), rtol=1e-12, atol=1e-14)
    dy = checks.normal(np.random.default_rng(3), y.shape, np.float64)
    y.backward(checks.to_torch(dy))
    dx = backend.avg_pool_backward(dy, shape, *args)
    np.testing.assert_allclose(dx, checks.from_torch(tx.grad), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_integers_are_exact(backend, layout, dtype):
    rng = np.random.default_rng(4)
    x = dict(checks.layouts(checks.integers(rng, (2, 18, 10, 36), dtype)))[layout]
    for args in ((2, None, 0, False, True, None, 2), (4, 2, 2, True, True, 16, 2), (3, 1, 1, False, True, 1, 2)):
        y64 = reference.avg_pool_forward(x.astype(np.float64), *args)
        checks.assert_exact(backend.avg_pool_forward(x, *args), y64, dtype)
        dy = checks.integers(rng, y64.shape, dtype)
        dx = backend.avg_pool_backward(dy, x.shape, *args)
        checks.assert_exact(dx, reference.avg_pool_backward(dy.astype(np.float64), x.shape, *args), dtype)
        if dtype == np.float64:  # the adjoint identity
            assert np.sum(dx * x) == np.sum(dy * y64)


def test_every_width_of_tiles_around_a_register(backend):
    for width in (2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 34, 65):
        args = (2, None, 0, False, True, None, 2)
        for height in (6, 7):
            dy = checks.integers(np.random.default_rng(width), (3, 3, 3, width // 2), np.float32)
            shape = (3, 3, height, width)
            dx64 = reference.avg_pool_backward(dy.astype(np.float64), shape, *args)
            checks.assert_exact(backend.avg_pool_backward(dy, shape, *args), dx64, np.float32)
            x = checks.integers(np.random.default_rng(width), shape, np.float32)
            y64 = reference.avg_pool_forward(x.astype(np.float64), *args)
            checks.assert_exact(backend.avg_pool_forward(x, *args), y64, np.float32)


def test_global_average_of_a_batch_is_that_of_its_images(kernel_backend):
    for space in (1, 5, 7, 33):
        x = checks.normal(np.random.default_rng(space), (5, 11, space, space), np.float32)
        x[3] = -0.0
        y = kernel_backend.adaptive_avg_pool_forward(x, 1, 2)
        for n in range(5):
            checks.assert_same_bits(kernel_backend.adaptive_avg_pool_forward(x[n : n + 1], 1, 2), y[n : n + 1])


@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_average_of_a_constant_is_the_constant(backend, size):
    for _, x in checks.layouts(np.full((1, 17, 14, 37), 0.7, np.float32)):
        y = backend.avg_pool_forward(x, size, 2, size // 2, True, False, None, 2)
        np.testing.assert_allclose(y, np.float32(0.7), rtol=1e-6)
        ones = backend.avg_pool_forward(np.ones_like(x), size, 2, size // 2, True, False, None, 2)
        assert (ones == 1).all()


def test_nan_and_infinity_reach_their_windows_only(backend):
    x = np.zeros((1, 2, 9, 40), np.float32)
    x[0, 0, 4, 20], x[0, 1, 0, 0], x[0, 1, 0, 1] = np.nan, np.inf, -np.inf
    for _, view in zip(range(2), (v for _, v in checks.layouts(x)), strict=False):
        y = backend.avg_pool_forward(view, 3, 1, 1, False, True, None, 2)
        expected = reference.avg_pool_forward(x.astype(np.float64), 3, 1, 1, False, True, None, 2)
        np.testing.assert_array_equal(y, expected.astype(np.float32))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_bits_do_not_depend_on_threads_or_batch(kernel_backend, layout):
    x = dict(checks.layouts(checks.normal(np.random.default_rng(5), (6, 24, 40, 40), np.float32)))[layout]
    args = (3, 2, 1, False, False, None, 2)

    def run(x):
        y = kernel_backend.avg_pool_forward(x, *args)
        adaptive = kernel_backend.adaptive_avg_pool_forward(x, (7, 1), 2)
        power = kernel_backend.lp_pool_forward(x, 2, 3, 2, False, 2)
        return (
            y,
            kernel_backend.avg_pool_backward(y, x.shape, *args),
            adaptive,
            kernel_backend.adaptive_avg_pool_backward(adaptive, x.shape, 2),
            power,
            kernel_backend.lp_pool_backward(power, x, power, 2, 3, 2, False, 2),
        )

    threads = kernel_backend.get_num_threads()
    results = []
    for count in (1, 2):
        kernel_backend.set_num_threads(count)
        try:
            results.append(run(x))
        finally:
            kernel_backend.set_num_threads(threads)
    for a, b in zip(*results, strict=True):
        checks.assert_same_bits(a, b)
    for one, all_of_them in zip(run(x[4:5]), results[0], strict=True):
        checks.assert_same_bits(one, all_of_them[4:5])


def test_batch_may_be_empty_or_left_out(backend):
    x = checks.normal(np.random.default_rng(6), (3, 9, 9), np.float32)
    args = (2, None, 0, False, True, None, 2)
    y = backend.avg_pool_forward(x, *args)
    np.testing.assert_array_equal(y, backend.avg_pool_forward(x[None], *args)[0])
    dx = backend.avg_pool_backward(y, x.shape, *args)
    np.testing.assert_array_equal(dx, backend.avg_pool_backward(y[None], (1, 3, 9, 9), *args)[0])
    none = np.zeros((0, 3, 9, 9), np.float32)
    assert backend.avg_pool_forward(none, *args).shape == (0, 3, 4, 4)
    assert backend.avg_pool_backward(np.zeros((0, 3, 4, 4), np.float32), none.shape, *args).shape == none.shape
    assert backend.adaptive_avg_pool_forward(none, 2, 2).shape == (0, 3, 2, 2)
    assert backend.lp_pool_forward(none, 2, 3, None, False, 2).shape == (0, 3, 3, 3)


def test_memory_beside_the_arrays_is_neither_read_nor_written(backend):
    for case in CASES:
        _, shape, args = options(case)
        x = checks.guarded(shape, np.float32)
        x[...] = 1
        y = backend.avg_pool_forward(x, *args)
        dy = checks.guarded(y.shape, np.float32)
        dy[...] = 1
        dx = backend.avg_pool_backward(dy, shape, *args)
        assert not np.isnan(y).any() and not np.isnan(dx).any(), case
        assert checks.guards_intact(x) and checks.guards_intact(dy), case


# ---- power averages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("norm_type", [1, 2, 3, 2.5])
@pytest.mark.parametrize(
    ("nd", "shape", "kernel", "stride", "ceil_mode"),
    [(2, (2, 5, 13, 38), 3, 2, True), (2, (1, 18, 8, 8), 2, None, False), (1, (2, 3, 40), 4, 3, True)],
)
def test_power_average(backend, nd, shape, kernel, stride, ceil_mode, norm_type, dtype):
    rng = np.random.default_rng(7)
    values = (np.abs(checks.normal(rng, shape, np.float64)) + 0.5).astype(dtype)
    args = (norm_type, kernel, stride, ceil_mode, nd)
    y64 = reference.lp_pool_forward(values.astype(np.float64), *args)
    dy = (np.abs(checks.normal(rng, y64.shape, np.float64)) + 0.5).astype(dtype)
    y_rounded = y64.astype(dtype)
    wide = (a.astype(np.float64) for a in (dy, values, y_rounded))
    dx64 = reference.lp_pool_backward(*wide, *args)
    terms = taps(kernel, nd)
    for _, x in checks.layouts(values):
        checks.assert_bound(backend.lp_pool_forward(x, *args), y64, 4 * y64, terms, dtype)
        checks.assert_bound(backend.lp_pool_backward(dy, x, y_rounded, *args), dx64, 4 * dx64, terms, dtype)


def test_power_average_of_zeros_has_no_slope(backend):
    x = np.zeros((1, 1, 4, 4), np.float32)
    y = backend.lp_pool_forward(x, 2, 2, None, False, 2)
    assert (y == 0).all()
    assert (backend.lp_pool_backward(np.ones_like(y), x, y, 2, 2, None, False, 2) == 0).all()


def test_power_average_gradient_follows_differences(backend):
    def forward(x):
        return backend.lp_pool_forward(x, 3, 3, 2, True, 2)

    def vjp(x):
        y = forward(x)
        return y, lambda dy: (backend.lp_pool_backward(dy, x, y, 3, 3, 2, True, 2),)

    rng = np.random.default_rng(8)
    checks.directional_derivative(forward, vjp, [rng.random((2, 3, 8, 8)) + 0.5], rng)


# ---- adaptive -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize(
    ("nd", "shape", "size"),
    [
        (1, (2, 3, 130), 1),
        (1, (2, 3, 13), 5),
        (2, (2, 40, 7, 7), 1),
        (2, (2, 17, 13, 20), (6, 7)),
        (2, (1, 3, 5, 4), (8, 9)),
        (2, (1, 5, 7, 7), 7),
        (2, (2, 4, 7, 7), (None, 3)),
        (3, (1, 2, 4, 5, 6), (3, 5, 1)),
    ],
)
def test_adaptive_average(backend, nd, shape, size, dtype):
    rng = np.random.default_rng(9)
    values = checks.normal(rng, shape, dtype)
    y64 = reference.adaptive_avg_pool_forward(values.astype(np.float64), size, nd)
    magnitude = reference.adaptive_avg_pool_forward(np.abs(values).astype(np.float64), size, nd)
    dy = checks.normal(rng, y64.shape, dtype)
    dx64 = reference.adaptive_avg_pool_backward(dy.astype(np.float64), shape, nd)
    dx_magnitude = reference.adaptive_avg_pool_backward(np.abs(dy).astype(np.float64), shape, nd)
    terms = int(np.prod(shape[2:]))
    for _, x in checks.layouts(values):
        checks.assert_bound(backend.adaptive_avg_pool_forward(x, size, nd), y64, magnitude, terms, dtype)
    for _, gradient in checks.layouts(dy):
        dx = backend.adaptive_avg_pool_backward(gradient, shape, nd)
        checks.assert_bound(dx, dx64, dx_magnitude, terms, dtype)


def test_a_long_average_does_not_stall(backend):
    """Added one after the other in float32, 4 million values of 0.1 end more than 5 % off."""
    x = np.full((1, 1, 2048, 2048), 0.1, np.float32)
    assert abs(backend.adaptive_avg_pool_forward(x, 1, 2).item() - 0.1) < 1e-5
    assert abs(backend.adaptive_avg_pool_forward(x, (1, 2), 2)[0, 0, 0, 1] - 0.1) < 1e-5


def test_adaptive_size_zero_and_no_channels(backend):
    x = np.ones((2, 3, 5, 5), np.float32)
    assert backend.adaptive_avg_pool_forward(x, (0, 2), 2).shape == (2, 3, 0, 2)
    assert (backend.adaptive_avg_pool_backward(np.ones((2, 3, 0, 2), np.float32), x.shape, 2) == 0).all()
    assert backend.adaptive_avg_pool_forward(x[:, :0], 2, 2).shape == (2, 0, 2, 2)


# ---- bad input ------------------------------------------------------------------------------------------------------

X = np.zeros((1, 2, 6, 6), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"kernel": 0}, ValueError, "kernel_size"),
        ({"kernel": 7}, ValueError, "kernel_size"),
        ({"kernel": "3"}, TypeError, "kernel_size"),
        ({"stride": 0}, ValueError, "stride"),
        ({"stride": (1, False)}, TypeError, "stride"),
        ({"padding": 2}, ValueError, "padding"),
        ({"padding": -1}, ValueError, "padding"),
        ({"padding": ((0, 2), (0, 0))}, ValueError, "padding.*window"),
        ({"padding": ((0, 1), (0, 1), (0, 0))}, ValueError, "padding"),
        ({"padding": "full"}, ValueError, "padding"),
        ({"divisor": 0}, ValueError, "divisor_override"),
        ({"divisor": 2.0}, TypeError, "divisor_override"),
        ({"x": X.astype(np.int64)}, TypeError, "int64"),
        ({"x": X[0, 0]}, ValueError, "shape|entries"),
        ({"x": X.astype(">f4")}, TypeError, "f4|endian"),
    ],
)
def test_bad_parameters(backend, change, error, text):
    given = {"x": X, "kernel": 2, "stride": None, "padding": 0, "divisor": None} | change
    with pytest.raises(error, match=text):
        backend.avg_pool_forward(
            given["x"], given["kernel"], given["stride"], given["padding"], False, True, given["divisor"], 2
        )


@pytest.mark.parametrize("norm_type", [0, np.inf, np.nan])
def test_bad_norm_type(backend, norm_type):
    with pytest.raises(ValueError, match="norm_type"):
        backend.lp_pool_forward(X, norm_type, 2, None, False, 2)


@pytest.mark.parametrize(
    ("shape", "x_shape"),
    [
        ((9, 2, 3, 3), (1, 2, 6, 6)),
        ((1, 1, 3, 3), (1, 2, 6, 6)),
        ((1, 2, 3, 3), (-536870912,) * 4),
        ((2, 3, 3), (1, 2, 6, 6)),
    ],
)
def test_gradient_of_another_shape(backend, shape, x_shape):
    dy = np.zeros(shape, np.float32)
    with pytest.raises(ValueError):
        backend.avg_pool_backward(dy, x_shape, 2, None, 0, False, True, None, 2)
    with pytest.raises(ValueError):
        backend.adaptive_avg_pool_backward(dy, x_shape, 2)
    with pytest.raises(ValueError):
        backend.lp_pool_backward(dy, np.zeros(np.abs(x_shape) % 7, np.float32), dy, 2, 2, None, False, 2)


@pytest.mark.parametrize("size", [-1, (2, -1), (2, 2, 2), 2**62])
def test_bad_adaptive_size(backend, size):
    with pytest.raises(ValueError, match="output"):
        backend.adaptive_avg_pool_forward(X, size, 2)


def test_windows_far_larger_than_the_input(kernel_backend):
    """What is outside costs no time: a loop over all 2^40 taps would not end."""
    x = np.arange(10.0).reshape(1, 1, 10)
    args = (2**40, 1, 2**39, False, False, None, 1)
    np.testing.assert_array_equal(kernel_backend.avg_pool_forward(x, *args), np.full((1, 1, 11), 4.5))
    dx = kernel_backend.avg_pool_backward(np.ones((1, 1, 11)), x.shape, *args)
    np.testing.assert_allclose(dx, np.full((1, 1, 10), 1.1))


@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=25)
def test_random_shapes(kernel_backend, data):
    nd = data.draw(st.integers(1, 3), "nd")
    each = st.tuples(*[st.integers(1, 4)] * nd)
    shape = data.draw(
        st.tuples(st.integers(1, 2), st.integers(1, 19), *[st.integers(1, (60, 20, 7)[nd - 1])] * nd), "x"
    )
    kernel, stride = data.draw(each, "kernel"), data.draw(each, "stride")
    padding = tuple(data.draw(st.integers(0, k // 2), "padding") for k in kernel)
    if data.draw(st.booleans(), "in pairs"):
        padding = tuple(data.draw(st.tuples(*[st.integers(0, k - 1)] * 2), "pair") for k in kernel)
    args = (kernel, stride, padding, data.draw(st.booleans(), "ceil"), data.draw(st.booleans(), "include"), None, nd)
    rng = np.random.default_rng(10)
    x = checks.normal(rng, shape, np.float32)
    if data.draw(st.booleans(), "channels last"):
        x = dict(checks.layouts(x))["channels_last"]
    try:
        y64 = reference.avg_pool_forward(x.astype(np.float64), *args)
    except ValueError:
        with pytest.raises(ValueError):
            kernel_backend.avg_pool_forward(x, *args)
        return
    magnitude = reference.avg_pool_forward(np.abs(x).astype(np.float64), *args)
    checks.assert_bound(kernel_backend.avg_pool_forward(x, *args), y64, magnitude, taps(kernel, nd), np.float32)
    dy = checks.normal(rng, y64.shape, np.float32)
    dx64, dx_magnitude = (reference.avg_pool_backward(np.float64(v), shape, *args) for v in (dy, np.abs(dy)))
    dx = kernel_backend.avg_pool_backward(dy, shape, *args)
    checks.assert_bound(dx, dx64, dx_magnitude, taps(kernel, nd), np.float32)
