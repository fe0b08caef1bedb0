"""Depthwise kernels of channels-first planes: every width around a register, both strides, all three directions."""

from __future__ import annotations

import numpy as np
import pytest

import direct
from checks import (
    DTYPES,
    assert_exact,
    assert_same_bits,
    channels_last,
    dtype_name,
    float16,
    float32,
    float64,
    integers,
    normal,
)
from direct import Conv

WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 14, 15, 16, 17, 18, 28, 31, 32, 33, 34, 35, 65, 130)


def depthwise(width, height, kernel, stride, padding, batch=2, channels=3) -> Conv:
    weight = (channels, 1, kernel, kernel)
    name = f"{height}x{width}"
    return Conv(name, (batch, channels, height, width), weight, (stride,) * 2, padding, (1, 1), channels)


def check_exact(backend, case, dtype):
    rng = np.random.default_rng(51)
    x, w, b, dy = (integers(rng, s, dtype, -1, 1) for s in (case.x_shape, case.w_shape, case.w_shape[:1], case.y_shape))
    x64, w64, b64, dy64 = (a.astype(float64) for a in (x, w, b, dy))
    assert_exact(backend.conv_forward(x, w, b, *case.options), direct.forward(case, x64, w64, b64), dtype)
    dx = backend.conv_backward_input(dy, w, case.x_shape, *case.options)
    assert_exact(dx, direct.backward_input(case, dy64, w64), dtype)
    dw = backend.conv_backward_weight(dy, x, case.w_shape, *case.options)
    assert_exact(dw, direct.backward_weight(case, dy64, x64), dtype)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "padding"),
    [(3, ((1, 1), (1, 1))), (3, ((0, 2), (2, 0))), (3, ((3, 0), (4, 1))), (5, ((2, 2), (2, 2))), (5, ((4, 1), (1, 6)))],
)
def test_every_width_around_a_register_is_exact(backend, kernel, padding, stride):
    for width in WIDTHS:
        if width + sum(padding[1]) >= kernel:
            check_exact(backend, depthwise(width, 3 + width % 7, kernel, stride, padding), float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_planes_in_parts_are_exact(backend, kernel, stride):
    """More columns and rows than the native kernels take at a time."""
    for width, height in ((300, 31), (530, 9), (40, 230)):
        check_exact(backend, depthwise(width, height, kernel, stride, ((1, 2), (2, 1)), 1, 2), float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_dtype_is_exact(backend, dtype, stride):
    for width, height in ((7, 7), (14, 6), (33, 5)):
        check_exact(backend, depthwise(width, height, 3, stride, ((1, 1), (1, 1)), 2, 5), dtype)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_not_finite_stays_in_its_windows(backend, stride):
    """Lanes behind the end of a row are computed with and thrown away: what lies there must not matter."""
    for width in (6, 7, 13, 14, 15, 16, 29, 30, 31, 32, 33):
        case = depthwise(width, 6, 3, stride, ((1, 1), (1, 0)))
        rng = np.random.default_rng(width)
        x, w, dy = (normal(rng, s, float32) for s in (case.x_shape, case.w_shape, case.y_shape))
        for row, column in ((0, 0), (5, width - 1), (3, width // 2)):
            bad = x.copy()
            bad[1, 1, row, column] = np.nan
            reached = direct.forward(case, np.isnan(bad).astype(float64), np.ones(case.w_shape), None) > 0
            np.testing.assert_array_equal(np.isnan(backend.conv_forward(bad, w, None, *case.options)), reached)
            taps = direct.backward_weight(case, np.ones(case.y_shape), np.isnan(bad).astype(float64)) > 0
            dw = backend.conv_backward_weight(dy, bad, case.w_shape, *case.options)
            np.testing.assert_array_equal(np.isnan(dw), taps)
        bad = dy.copy()
        bad[0, 2, 0, -1] = np.nan
        reached = direct.backward_input(case, np.isnan(bad).astype(float64), np.ones(case.w_shape)) > 0
        dx = backend.conv_backward_input(bad, w, case.x_shape, *case.options)
        np.testing.assert_array_equal(np.isnan(dx), reached)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("batch", "channels", "size"), [(1, 1, 90), (19, 2, 40), (70, 3, 7), (2, 130, 9)])
def test_weight_gradient_of_many_planes(kernel_backend, batch, channels, size, stride):
    """The same bits for any number of threads, and the error of short sums."""
    case = depthwise(size, size, 3, stride, ((1, 1), (1, 1)), batch, channels)
    rng = np.random.default_rng(52)
    x, dy = normal(rng, case.x_shape, float32), normal(rng, case.y_shape, float32)
    threads = kernel_backend.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3):
            kernel_backend.set_num_threads(n)
            results.append(kernel_backend.conv_backward_weight(dy, x, case.w_shape, *case.options))
    finally:
        kernel_backend.set_num_threads(threads)
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])
    expected = direct.backward_weight(case, dy.astype(float64), x.astype(float64))
    magnitude = direct.backward_weight(case, np.abs(dy).astype(float64), np.abs(x).astype(float64))
    assert (np.abs(results[0] - expected) <= 160 * 2.0**-24 * magnitude).all()


SCALED = [
    (2, 3, 9, 11),
    (1, 2, 1, 1),
    (3, 9, 6, 7),
    (2, 16, 5, 5),
    (1, 31, 4, 9),
    (2, 33, 7, 3),
    (1, 8, 130, 300),
    (2, 301, 5, 4),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("shape", SCALED, ids=str)
def test_a_factor_and_a_shift_for_each_channel(backend, shape, dtype):
    """1x1 filters of stride 1: few and many channels, both layouts, with and without what comes after."""
    case = Conv("scale", shape, (shape[1], 1, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), shape[1])
    rng = np.random.default_rng(52)
    x, w, b, add = (integers(rng, s, dtype) for s in (shape, case.w_shape, shape[1:2], shape))
    product = x.astype(float64) * w.astype(float64).reshape(1, -1, 1, 1)
    sum = product + b.astype(float64).reshape(1, -1, 1, 1)
    for arrange in (np.ascontiguousarray, channels_last):
        run = backend.conv_forward
        assert_exact(run(arrange(x), w, None, *case.options), product, dtype)
        assert_exact(run(arrange(x), w, b, *case.options), sum, dtype)
        limited = np.clip(sum + add.astype(float64), -3, 5)
        assert_exact(run(arrange(x), w, b, *case.options, arrange(add), -3.0, 5.0), limited, dtype)
        dx = backend.conv_backward_input(arrange(x), w, shape, *case.options)
        assert_exact(dx, product, dtype)
        assert dx.strides == arrange(x).strides


@pytest.mark.parametrize("arrange", (np.ascontiguousarray, channels_last), ids=("channels first", "channels last"))
@pytest.mark.parametrize("factor", (1.0, 1.5, 0.1, 2.0**-9, -(2.0**-14), 2.0**9))
def test_every_float16_is_converted_and_rounded(backend, factor, arrange):
    """A product of two is exact in float32 and rounds to the nearest one, ties to even; denormals are kept."""
    x = np.arange(1 << 16, dtype=np.uint16).view(float16).reshape(1, 64, 32, 32)
    case = Conv("scale", x.shape, (64, 1, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 64)
    w = np.full(case.w_shape, factor, float16)
    y = backend.conv_forward(arrange(x), w, None, *case.options)
    with np.errstate(all="ignore"):
        expected = (x.astype(float32) * float32.type(w[0, 0, 0, 0])).astype(float16)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    numbers = ~np.isnan(expected) & (expected != 0)  # a sum of one term may be +0
    np.testing.assert_array_equal(np.ascontiguousarray(y)[numbers].view(np.uint16), expected[numbers].view(np.uint16))
    np.testing.assert_array_equal(y[expected == 0], 0)


@pytest.mark.parametrize("shape", SCALED, ids=str)
def test_scaled_bits_do_not_depend_on_threads_or_batch(kernel_backend, shape):
    """Also of numbers that a thread's mode may round to zero."""
    case = Conv("scale", shape, (shape[1], 1, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), shape[1])
    rng = np.random.default_rng(53)
    x, w, b = (normal(rng, s, float32) for s in (shape, case.w_shape, shape[1:2]))
    x[..., ::3] *= np.float32(1e-39)
    before = kernel_backend.get_num_threads()
    try:
        for arrange in (np.ascontiguousarray, channels_last):
            for bias in (None, b):
                kernel_backend.set_num_threads(1)
                expected = kernel_backend.conv_forward(arrange(x), w, bias, *case.options)
                kernel_backend.set_num_threads(2)
                assert_same_bits(kernel_backend.conv_forward(arrange(x), w, bias, *case.options), expected)
                for n in range(shape[0]):
                    one = arrange(x[n : n + 1])
                    assert_same_bits(kernel_backend.conv_forward(one, w, bias, *case.options), expected[n : n + 1])
                for other in (np.ascontiguousarray, channels_last):
                    assert_same_bits(kernel_backend.conv_forward(other(x), w, bias, *case.options), expected)
    finally:
        kernel_backend.set_num_threads(before)
