"""add and cat of the backends: NumPy's bits in every layout, parts of arrays, in place, threads, bad input."""

from __future__ import annotations

import numpy as np
import pytest

import checks
import fastconv as fc
from conftest import KERNEL_BACKENDS

# Register tails, no dimension, no values, more than one task a row, rows shorter than a task.
SHAPES = [(), (1,), (3, 5), (2, 17, 9), (2, 3, 4, 5), (0, 3), (2, 0, 4), (2, 20_000), (40, 6, 5, 7)]


def bits(x):
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_have_numpys_bits_in_every_layout(backend, shape, dtype):
    rng = np.random.default_rng(0)
    a, b = checks.normal(rng, shape, dtype), checks.normal(rng, shape, dtype)
    expected = np.asarray(a + b)
    for (_, first), (_, second) in zip(checks.layouts(a), reversed(list(checks.layouts(b))), strict=True):
        y = backend.add_forward(first, second)
        np.testing.assert_array_equal(bits(y), bits(expected))
        np.testing.assert_array_equal(first, a)
        assert backend.add_forward(first, second, True) is first
        np.testing.assert_array_equal(bits(first), bits(expected))


def test_sums_of_special_values(backend):
    a = np.array([np.inf, np.inf, np.nan, -0.0, 1e-45, 3e38], np.float32)
    b = np.array([-np.inf, 1, 1, -0.0, 1e-45, 3e38], np.float32)
    with np.errstate(all="ignore"):
        expected = a + b
    np.testing.assert_array_equal(backend.add_forward(a, b), expected)
    assert np.signbit(backend.add_forward(a, b)[3])


def test_in_place_sums_of_overlapping_memory(backend):
    x = np.arange(40_000, dtype=np.float32)
    expected = x.copy()
    expected[1:] = x[1:] + x[:-1]
    backend.add_forward(x[1:], x[:-1], True)
    np.testing.assert_array_equal(x, expected)
    backend.add_forward(x, x, True)
    np.testing.assert_array_equal(x, 2 * expected)
    backend.add_forward(x, x[::-1], True)
    np.testing.assert_array_equal(x, 2 * expected + 2 * expected[::-1])


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_parts_of_channels_are_read_and_written_where_they_lie(backend, last):
    rng = np.random.default_rng(0)
    whole = checks.normal(rng, (3, 9, 6, 5), np.float32)
    whole = checks.channels_last(whole) if last else whole
    part = whole[:, 2:7]
    other = checks.normal(rng, part.shape, np.float32)
    expected = whole.copy()
    expected[:, 2:7] += other
    y = backend.add_forward(part, other)
    np.testing.assert_array_equal(y, expected[:, 2:7])
    assert (y.strides[1] == 4) == last
    backend.add_forward(part, other, True)
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -3])
def test_joined_arrays_are_numpys_in_every_layout(backend, dim, dtype):
    rng = np.random.default_rng(0)
    parts = []
    for size in (2, 0, 1, 7):
        shape = [3, 4, 5, 6]
        shape[dim] = size
        parts.append(checks.normal(rng, tuple(shape), dtype))
    expected = np.concatenate(parts, dim)
    for views in zip(*(checks.layouts(part) for part in parts), strict=True):
        y = backend.cat_forward(dim, *(view for _, view in views))
        np.testing.assert_array_equal(bits(y), bits(expected))
        if views[0][0] == "channels_last":
            assert y.strides == checks.channels_last(expected).strides
    assert backend.cat_forward(dim, parts[0]).base is not parts[0]


@pytest.mark.skipif(not KERNEL_BACKENDS, reason="no native module")
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_large_arrays_and_threads(kernel_backend, last):
    rng = np.random.default_rng(0)
    a, b = checks.normal(rng, (4, 40, 33, 31), np.float32), checks.normal(rng, (4, 40, 33, 31), np.float32)
    if last:
        a, b = checks.channels_last(a), checks.channels_last(b)
    before = kernel_backend.get_num_threads()
    try:
        for threads in (1, 2):
            kernel_backend.set_num_threads(threads)
            np.testing.assert_array_equal(kernel_backend.add_forward(a, b), a + b)
            joined = kernel_backend.cat_forward(1, a, b[:, 3:5], a)
            np.testing.assert_array_equal(joined, np.concatenate([a, b[:, 3:5], a], 1))
    finally:
        kernel_backend.set_num_threads(before)


def test_bad_input(backend):
    x, y = np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="other"):
        backend.add_forward(x, y)
    with pytest.raises(ValueError, match="other"):
        backend.add_forward(x, x[:1])  # nothing broadcasts
    with pytest.raises(TypeError, match="other"):
        backend.add_forward(x, x.astype(np.float64))
    with pytest.raises(TypeError, match="input"):
        backend.add_forward(x.astype(int), x)
    fixed = x.copy()
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        backend.add_forward(fixed, x, True)
    with pytest.raises(ValueError, match="at least one array"):
        backend.cat_forward(0)
    with pytest.raises(ValueError, match="dim"):
        backend.cat_forward(2, x, x)
    with pytest.raises(ValueError, match=r"arrays\[1\]"):
        backend.cat_forward(0, x, y)
    with pytest.raises(ValueError, match=r"arrays\[1\]"):
        backend.cat_forward(1, x, x[0])
    with pytest.raises(TypeError, match=r"arrays\[2\]"):
        backend.cat_forward(1, x, x, x.astype(np.float16))
    with pytest.raises(ValueError, match="dim"):
        backend.cat_forward(0, np.zeros((), np.float32))


def test_large_tensors_are_added_and_joined_as_small_ones(backend):
    """What Tensors compute does not depend on whether the backend or NumPy adds."""
    rng = np.random.default_rng(0)
    x = fc.tensor(checks.normal(rng, (2, 8, 40, 40), np.float32), requires_grad=True)
    y = fc.tensor(checks.normal(rng, (2, 8, 40, 40), np.float32), requires_grad=True)
    joined = fc.cat([x, y + x, x], 1)
    np.testing.assert_array_equal(joined.data, np.concatenate([x.data, x.data + y.data, x.data], 1))
    dy = checks.normal(rng, joined.shape, np.float32)
    joined.backward(dy)
    np.testing.assert_allclose(x.grad, dy[:, :8] + dy[:, 8:16] + dy[:, 16:], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(y.grad, dy[:, 8:16])
    mixed = fc.cat([x.data, np.zeros((2, 1, 40, 40))], 1)  # other types and shapes stay NumPy's
    assert mixed.dtype == np.float64 and (x + 1.0).dtype == np.float32 and (x + y.data[:1]).shape == x.shape
