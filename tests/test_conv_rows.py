"""1x1 layers of few channels, channels-last, all of whose output channels are computed for a few pixels at a time."""

from __future__ import annotations

import numpy as np
import pytest

import checks
from checks import assert_bound, assert_same_bits, channels_last, dtype_name, integers, normal
from fastconv import reference

# Channels, output channels: from three registers (of 4, 8 or 16 values) to fourteen, whole and with a rest; more of
# either than fits.
SIZES = [(1, 33), (16, 48), (3, 40), (16, 96), (24, 144), (10, 150), (31, 224), (64, 96), (24, 13), (7, 27), (9, 300)]
# More than a block's pixels, and a number of them that no tile divides.
SHAPE = (3, 19, 31)
OPTIONS = (1, 0, 1, 1, 2)
by_size = pytest.mark.parametrize(("channels", "outputs"), SIZES)
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=dtype_name)


def problem(channels, outputs, dtype, draw=normal):
    rng = np.random.default_rng(channels)
    n, *space = SHAPE
    x, y = ((n, c, *space) for c in (channels, outputs))
    return (draw(rng, shape, dtype) for shape in (x, (outputs, channels, 1, 1), (outputs,), y))


@by_dtype
@by_size
def test_exact_integers_forward_and_back(cpu_backend, channels, outputs, dtype):
    x, w, b, other = problem(channels, outputs, dtype, integers)
    expected = reference.conv_forward(x, w, b, *OPTIONS)
    source = checks.guarded((SHAPE[0], *SHAPE[1:], channels), dtype)
    source[...] = np.moveaxis(x, 1, -1)
    y = cpu_backend.conv_forward(np.moveaxis(source, -1, 1), w, b, *OPTIONS)
    np.testing.assert_array_equal(y, expected)
    assert np.moveaxis(y, 1, -1).flags.c_contiguous and checks.guards_intact(source)
    limited = cpu_backend.conv_forward(channels_last(x), w, b, *OPTIONS, channels_last(other), 0.0, 9.0)
    np.testing.assert_array_equal(limited, np.clip(expected + other, 0, 9))
    # The input gradient of the opposite layer is the same kind of product.
    w = np.ascontiguousarray(w.swapaxes(0, 1))
    dx = cpu_backend.conv_backward_input(channels_last(x), w, other.shape, *OPTIONS)
    np.testing.assert_array_equal(dx, reference.conv_backward_input(x, w, other.shape, *OPTIONS))


@by_dtype
@by_size
def test_rounding(cpu_backend, channels, outputs, dtype):
    x, w, b, _ = problem(channels, outputs, dtype)
    wide = [a.astype(np.float64) for a in (x, w, b)]
    magnitude = reference.conv_forward(*map(np.abs, wide), *OPTIONS)
    y = cpu_backend.conv_forward(channels_last(x), w, b, *OPTIONS)
    assert_bound(y, reference.conv_forward(*wide, *OPTIONS), magnitude, channels + 1, dtype)


@by_dtype
@by_size
def test_bits_do_not_depend_on_threads_batch_or_packing(cpu_backend, channels, outputs, dtype):
    x, w, b, other = problem(channels, outputs, dtype)
    x, other = channels_last(x), channels_last(other)
    whole = cpu_backend.conv_forward(x, w, b, *OPTIONS, other, -0.5, np.inf)
    threads = cpu_backend.get_num_threads()
    try:
        for n in (1, 2, 3):
            cpu_backend.set_num_threads(n)
            assert_same_bits(cpu_backend.conv_forward(x, w, b, *OPTIONS, other, -0.5, np.inf), whole)
    finally:
        cpu_backend.set_num_threads(threads)
    kept = cpu_backend.pack_weight(w)
    for _ in range(2):
        assert_same_bits(cpu_backend.conv_forward(x, kept, b, *OPTIONS, other, -0.5, np.inf), whole)
    for n in range(len(x)):
        assert_same_bits(
            cpu_backend.conv_forward(x[n : n + 1], w, b, *OPTIONS, other[n : n + 1], -0.5, np.inf), whole[n : n + 1]
        )
    one = cpu_backend.conv_forward(
        x[1:2, :, 4:5, 7:8], w, b, *OPTIONS, other[1:2, :, 4:5, 7:8], -0.5, np.inf
    )  # by tiles
    assert_same_bits(one, whole[1:2, :, 4:5, 7:8])


def test_values_that_are_no_numbers(cpu_backend):
    x, w, b, _ = problem(16, 96, np.float32)
    x[1, 3, 4, 5], x[2, 0, 0, 0], w[50, 2] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        expected = reference.conv_forward(x, w, b, *OPTIONS)
    y = cpu_backend.conv_forward(channels_last(x), w, b, *OPTIONS)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(y[np.isinf(expected)], expected[np.isinf(expected)])
