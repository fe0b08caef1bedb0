"""Memory layouts: bits of every dtype in both directions, x itself where nothing changes, mixed layouts, bad input."""

from __future__ import annotations

import numpy as np
import pytest

import checks
import fastconv as fc
import fastconv.nn.functional as F
from conftest import KERNEL_BACKENDS

# Three colours and their neighbours, ends of registers and of cache lines on both sides, several tasks, no values.
SHAPES = [(2, 1, 7), (2, 2, 9, 5), (3, 3, 40, 41), (2, 4, 3, 3), (1, 5, 11), (2, 17, 9, 2), (1, 33, 67)]
SHAPES += [(2, 64, 16, 16), (2, 131, 2, 3, 4), (1, 70, 150), (0, 3, 4), (2, 0, 4), (2, 3, 0)]


def is_last(x):
    return np.moveaxis(x, 1, -1).flags.c_contiguous


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_from_every_layout_to_both(backend, shape, dtype):
    rng = np.random.default_rng(0)
    item = np.dtype(dtype).itemsize
    x = rng.integers(0, 256, (*shape, item), np.uint8).view(f"u{item}")[..., 0].view(dtype)  # NaNs of all kinds, too
    for name, view in checks.layouts(x):
        for last in (False, True):
            y = backend.layout_forward(view, last)
            np.testing.assert_array_equal(checks.bits(y), checks.bits(x), err_msg=name)
            assert is_last(y) if last else y.flags.c_contiguous
            same = name != "misaligned" and (is_last(view) if last else view.flags.c_contiguous)
            assert not same or y is view


@pytest.mark.skipif(not KERNEL_BACKENDS, reason="no native module")
@pytest.mark.parametrize("shape", [(4, 3, 150, 151), (4, 40, 33, 31), (2, 700, 5, 5)], ids=str)
def test_large_arrays_and_threads(kernel_backend, shape):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    before = kernel_backend.get_num_threads()
    try:
        for threads in (1, 2, 3):
            kernel_backend.set_num_threads(threads)
            y = kernel_backend.layout_forward(x, True)
            assert is_last(y)
            np.testing.assert_array_equal(y, x)
            np.testing.assert_array_equal(kernel_backend.layout_forward(y, False), x)
    finally:
        kernel_backend.set_num_threads(before)


def test_a_gradient_of_the_other_layout(backend):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 9, 8)).astype(np.float32), rng.standard_normal((7, 5, 3, 3)).astype(np.float32)
    for first, second in ((x, checks.channels_last), (checks.channels_last(x), np.ascontiguousarray)):
        y, pullback = F.conv2d.vjp(first, w)
        dy = rng.standard_normal(y.shape).astype(np.float32)
        for one, other in zip(pullback(dy), pullback(second(dy)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64, bool, ">f4"], ids=str)
def test_functions_take_any_dtype(dtype):
    x = np.random.default_rng(0).integers(0, 2, (2, 3, 4, 5)).astype(dtype)
    y = fc.channels_last(x)
    assert is_last(y) and y.dtype == x.dtype and fc.channels_last(y) is y
    np.testing.assert_array_equal(y, x)
    assert fc.channels_first(x) is x
    back = fc.channels_first(y[:, ::-1])
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, x[:, ::-1])
    rows = x[:, :, 0, 0]
    np.testing.assert_array_equal(fc.channels_last(rows), rows)


def test_tensors_are_recorded():
    x = fc.tensor(np.arange(24.0).reshape(1, 2, 3, 4), requires_grad=True)
    y = fc.channels_last(x)
    assert is_last(y.data) and fc.channels_first(x) is x
    (y * np.arange(24.0).reshape(1, 2, 3, 4)).sum().backward()
    np.testing.assert_array_equal(x.grad, x.data)


def test_bad_input(backend):
    with pytest.raises(ValueError, match="at least two dimensions"):
        backend.layout_forward(np.zeros(3, np.float32), True)
    with pytest.raises(TypeError, match="dtype"):
        backend.layout_forward(np.zeros((2, 3, 4), int), True)
    with pytest.raises(ValueError, match=r"x must have at least two dimensions \(N, C, ...\), got 1"):
        fc.channels_last(np.zeros(3))
