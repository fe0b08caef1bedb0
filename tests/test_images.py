"""convolve2d and correlate2d against SciPy and against the sums of their definition, separation, named filters."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import filters, images

FILTERS = [name for name in filters.__all__ if name.isupper()]
KERNELS = [(1, 1), (3, 3), (2, 2), (4, 3), (2, 5)]
SCIPY_BOUNDARIES = ("fill", "wrap", "symm")


@pytest.fixture(autouse=True)
def over_each_backend(backend):
    """Every test of this module runs on every backend of this machine."""


def by_definition(image, kernel, flip):
    """Full output from the double sum over all pixel pairs."""
    (h, w), (r, s) = image.shape, kernel.shape
    out = np.zeros((h + r - 1, w + s - 1))
    kernel = kernel if flip else kernel[::-1, ::-1]
    for i in range(r):
        for j in range(s):
            out[i : i + h, j : j + w] += kernel[i, j] * image
    return out


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("flip", [True, False])
def test_definition(size, flip):
    rng = np.random.default_rng(1)
    image, kernel = rng.integers(-4, 5, (6, 7)), rng.integers(-4, 5, size)
    function = fc.convolve2d if flip else fc.correlate2d
    full = by_definition(image, kernel, flip)
    np.testing.assert_array_equal(function(image, kernel), full)
    r, s = size
    np.testing.assert_array_equal(function(image, kernel, "valid"), full[r - 1 : 7 - 1, s - 1 : 8 - 1])


@pytest.mark.parametrize("boundary", SCIPY_BOUNDARIES)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
def test_equals_scipy(name, mode, boundary):
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(2)
    for size in KERNELS:
        for shape in ((6, 7), (5, 5)):
            image = rng.integers(-4, 5, shape).astype(np.float64)
            kernel = rng.integers(-4, 5, size).astype(np.float64)
            fill = 3 if boundary == "fill" else 0
            expected = getattr(signal, name)(image, kernel, mode, boundary, fill)
            result = getattr(fc, name)(image, kernel, mode, boundary, fill)
            np.testing.assert_array_equal(result, expected, err_msg=f"{size} {shape}")


@pytest.mark.parametrize("boundary", ["wrap", "symm"])
def test_kernel_larger_than_the_image(boundary):
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(3)
    image, kernel = rng.integers(-4, 5, (2, 3)).astype(float), rng.integers(-4, 5, (7, 8)).astype(float)
    for name in ("convolve2d", "correlate2d"):
        for mode in ("full", "same"):
            expected = getattr(signal, name)(image, kernel, mode, boundary)
            np.testing.assert_array_equal(getattr(fc, name)(image, kernel, mode, boundary), expected)
        expected = getattr(signal, name)(image, kernel, "valid")
        np.testing.assert_array_equal(getattr(fc, name)(image, kernel, "valid"), expected)


@pytest.mark.parametrize("boundary, pad_mode", [("reflect", "reflect"), ("edge", "edge")])
def test_boundaries_that_scipy_lacks(boundary, pad_mode):
    rng = np.random.default_rng(4)
    image, kernel = rng.integers(-4, 5, (5, 6)), rng.integers(-4, 5, (3, 3))
    expected = by_definition(np.pad(image, 1, mode=pad_mode), kernel, True)[2:-2, 2:-2]
    np.testing.assert_array_equal(fc.convolve2d(image, kernel, "same", boundary), expected)


def test_asymmetric_kernel_is_flipped_by_convolution_alone():
    image = np.zeros((3, 3))
    image[1, 1] = 1
    kernel = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(fc.convolve2d(image, kernel, "same"), kernel)
    np.testing.assert_array_equal(fc.correlate2d(image, kernel, "same"), kernel[::-1, ::-1])


@pytest.mark.parametrize(
    "dtype, result",
    [
        (np.bool_, np.float32),
        (np.uint8, np.float32),
        (np.int16, np.float32),
        (np.int32, np.float64),
        (np.uint64, np.float64),
        (np.float16, np.float16),
        (np.float32, np.float32),
        (">f4", np.float32),
        (np.float64, np.float64),
    ],
)
def test_result_dtype(dtype, result):
    image = np.ones((4, 4), dtype)
    y = fc.correlate2d(image, np.ones((3, 3)), "valid")
    assert y.dtype == result
    np.testing.assert_array_equal(y, np.full((2, 2), 9))


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    y = fc.convolve2d(np.ones((4, 5), ml_dtypes.bfloat16), filters.LAPLACIAN_4, "valid", separable="auto")
    assert y.dtype == ml_dtypes.bfloat16 and (y == 0).all() and y.shape == (2, 3)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_colour_image_is_filtered_by_channel(mode):
    rng = np.random.default_rng(5)
    image, kernel = rng.integers(0, 256, (7, 8, 3), dtype=np.uint8), rng.integers(-4, 5, (3, 2))
    result = fc.convolve2d(image, kernel, mode, "symm")
    for channel in range(3):
        np.testing.assert_array_equal(result[..., channel], fc.convolve2d(image[..., channel], kernel, mode, "symm"))


def test_views_and_read_only_images():
    base = np.arange(200, dtype=np.float32).reshape(10, 20)
    base.flags.writeable = False
    for view in (base[::-1, ::-2], base.T, base[2:9, 3:11], np.broadcast_to(base[:1], (6, 20))):
        np.testing.assert_array_equal(
            fc.convolve2d(view, filters.SOBEL_X, "same"), fc.convolve2d(view.copy(), filters.SOBEL_X, "same")
        )


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((np.zeros(3), np.ones((2, 2))), ValueError, "image"),
        ((np.zeros((2, 2, 2, 2)), np.ones((2, 2))), ValueError, "image"),
        ((np.zeros((0, 3)), np.ones((2, 2))), ValueError, "image must not be empty"),
        ((np.zeros((3, 3)), np.ones(2)), ValueError, "kernel"),
        ((np.zeros((3, 3)), np.ones((0, 2))), ValueError, "kernel must not be empty"),
        ((np.zeros((3, 3)), np.ones((2, 2)), "half"), ValueError, "mode"),
        ((np.zeros((3, 3)), np.ones((2, 2)), "same", "mirror"), ValueError, "boundary"),
        ((np.zeros((3, 1)), np.ones((1, 2)), "valid"), ValueError, "valid"),
        ((np.zeros((3, 1)), np.ones((2, 2)), "valid"), ValueError, "valid"),
        ((np.zeros((1, 3)), np.ones((3, 3)), "same", "reflect"), ValueError, "reflect"),
        ((np.zeros((3, 3), complex), np.ones((2, 2))), TypeError, "image"),
        ((np.zeros((3, 3)), np.ones((2, 2), complex)), TypeError, "kernel"),
        ((np.full((3, 3), "a"), np.ones((2, 2))), TypeError, "image"),
        ((np.full((3, 3), None), np.ones((2, 2))), TypeError, "image"),
        ((np.zeros((3, 3)), np.ones((2, 2)), "same", "fill", "white"), ValueError, "fillvalue"),
    ],
)
def test_bad_input(arguments, error, message):
    for function in (fc.convolve2d, fc.correlate2d):
        with pytest.raises(error, match=message):
            function(*arguments)


@pytest.mark.parametrize("name", ["BOX_3", "BOX_5", "GAUSSIAN_3", "GAUSSIAN_5", "SOBEL_X", "PREWITT_Y", "SCHARR_X"])
def test_separable_filters(name):
    kernel = getattr(filters, name)
    column, row = images.separate(kernel)
    np.testing.assert_allclose(np.outer(column, row), kernel, rtol=1e-6, atol=1e-7)
    image = np.random.default_rng(6).standard_normal((9, 8)).astype(np.float32)
    for function in (fc.convolve2d, fc.correlate2d):
        for mode in ("full", "same", "valid"):
            direct = function(image, kernel, mode, "symm")
            separated = function(image, kernel, mode, "symm", separable=True)
            np.testing.assert_allclose(separated, direct, atol=1e-5)


@pytest.mark.parametrize("name", ["LAPLACIAN_4", "LAPLACIAN_8", "SHARPEN", "EMBOSS"])
def test_filters_of_higher_rank(name):
    kernel = getattr(filters, name)
    assert images.separate(kernel) is None
    image = np.arange(30, dtype=np.float32).reshape(5, 6)
    with pytest.raises(ValueError, match="rank 1"):
        fc.convolve2d(image, kernel, separable=True)
    np.testing.assert_array_equal(fc.convolve2d(image, kernel, separable="auto"), fc.convolve2d(image, kernel))


def test_separate_rank_and_tolerance():
    rng = np.random.default_rng(7)
    kernel = np.outer(rng.standard_normal(5), rng.standard_normal(4))
    assert images.separate(kernel) is not None
    kernel[0, 0] += 1e-6
    assert images.separate(kernel) is None
    assert images.separate(kernel, tolerance=1e-3) is not None
    column, row = images.separate(np.zeros((3, 2)))
    assert not np.outer(column, row).any() and np.outer(column, row).shape == (3, 2)
    with pytest.raises(ValueError, match="finite"):
        images.separate([[1, np.inf], [1, 1]])
    with pytest.raises(ValueError, match="separable"):
        fc.convolve2d(np.ones((3, 3)), np.ones((2, 2)), separable="yes")


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_read_only(name):
    mask = getattr(filters, name)
    assert mask.dtype == np.float32 and mask.ndim == 2
    with pytest.raises(ValueError, match="read-only"):
        mask[0, 0] = 1


def test_filters_do_what_their_names_say():
    ramp = np.tile(np.arange(6, dtype=np.float32), (5, 1))
    flat = np.full((5, 5), 7, np.float32)
    for kind in ("SOBEL", "PREWITT", "SCHARR"):
        across, down = getattr(filters, f"{kind}_X"), getattr(filters, f"{kind}_Y")
        assert (fc.correlate2d(ramp, across, "valid") > 0).all() and not fc.correlate2d(ramp, down, "valid").any()
        assert (fc.correlate2d(ramp.T, down, "valid") > 0).all()
        assert (fc.convolve2d(ramp, across, "valid") < 0).all()
    for name in ("LAPLACIAN_4", "LAPLACIAN_8"):
        assert not fc.correlate2d(ramp, getattr(filters, name), "valid").any()
    for name in ("IDENTITY", "SHARPEN", "BOX_3", "GAUSSIAN_5", "EMBOSS"):
        np.testing.assert_allclose(fc.correlate2d(flat, getattr(filters, name), "valid"), 7, rtol=1e-6)
    np.testing.assert_array_equal(fc.correlate2d(ramp, filters.IDENTITY, "same"), ramp)


def test_box_and_gaussian():
    np.testing.assert_allclose(filters.box(4).sum(), 1, rtol=1e-6)
    mask = filters.gaussian(1.5)
    assert mask.shape == (11, 11) and images.separate(mask) is not None
    np.testing.assert_allclose(mask.sum(), 1, rtol=1e-6)
    np.testing.assert_array_equal(mask, mask.T)
    assert filters.gaussian(1.0, 4).shape == (4, 4)
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="sigma"):
            filters.gaussian(bad)
    for bad, error in ((0, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="size"):
            filters.box(bad)
