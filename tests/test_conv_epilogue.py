"""What a convolution does to its outputs before it stores them: a sum and limits, in every kernel."""

from __future__ import annotations

import numpy as np
import pytest

import direct
from checks import DTYPES, assert_bound, assert_same_bits, channels_last, dtype_name, float32, normal
from direct import Conv

_ONE = ((1, 1), (1, 1))
CASES = [
    Conv("direct", (2, 19, 9, 11), (21, 19, 3, 3), (2, 1), _ONE, (1, 1)),
    Conv("tiles", (3, 20, 16, 15), (37, 20, 3, 3), (1, 1), _ONE, (1, 1)),
    Conv("pointwise", (2, 17, 14, 15), (35, 17, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    Conv("one_block", (1, 300, 3, 3), (70, 300, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    Conv("narrow", (2, 3, 21, 23), (5, 3, 5, 5), (2, 2), ((2, 2), (2, 2)), (1, 1)),
    Conv("one_channel", (2, 1, 13, 12), (1, 1, 3, 3), (1, 1), _ONE, (1, 1)),
    Conv("depthwise", (2, 18, 15, 17), (18, 1, 3, 3), (1, 1), _ONE, (1, 1), 18),
    Conv("depthwise_2", (2, 33, 15, 17), (33, 1, 3, 3), (2, 2), _ONE, (1, 1), 33),
    Conv("depthwise_multiplied", (2, 5, 9, 8), (10, 1, 3, 2), (1, 1), _ONE, (1, 1), 5),
    Conv("depthwise_7", (1, 20, 12, 11), (20, 1, 7, 7), (1, 1), ((3, 3), (3, 3)), (1, 1), 20),
    Conv("grouped", (2, 12, 10, 9), (24, 4, 3, 3), (1, 1), _ONE, (1, 1), 3),
    Conv("line", (2, 7, 31), (9, 7, 5), (1,), ((2, 2),), (1,)),
    Conv("volume", (2, 5, 4, 6, 5), (7, 5, 3, 3, 3), (1, 1, 1), ((1, 1), (1, 1), (1, 1)), (1, 1, 1)),
]
by_case = pytest.mark.parametrize("case", CASES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)


def clipped(y: np.ndarray, low: float, high: float) -> np.ndarray:
    y = np.where(y <= low, np.asarray(low, y.dtype), y)
    return np.where(y > high, np.asarray(high, y.dtype), y)


def operands(case: Conv, dtype) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    shapes = case.x_shape, case.w_shape, (case.w_shape[0],), case.y_shape
    return tuple(normal(rng, shape, dtype) for shape in shapes)


@by_dtype
@by_case
def test_as_separate_passes(backend, case, dtype):
    """float32 and float64: the bits of convolution, sum and activation one after the other."""
    x, w, b, add = operands(case, dtype)
    for arrange in (np.ascontiguousarray, channels_last):
        plain = backend.conv_forward(arrange(x), w, b, *case.options)
        for extra, low, high in ((None, 0.0, np.inf), (None, 0.0, 6.0), (add, -np.inf, np.inf), (add, -0.5, np.inf)):
            y = backend.conv_forward(
                arrange(x), w, b, *case.options, extra if extra is None else arrange(extra), low, high
            )
            assert y.strides == plain.strides
            if np.dtype(dtype).itemsize >= 4 and backend.__name__ != "fastconv.reference":
                assert_same_bits(y, clipped(plain if extra is None else plain + extra, low, high))
            wide = direct.forward(case, *(a.astype(np.float64) for a in (x, w, b)))
            magnitude = direct.forward(case, *(np.abs(a.astype(np.float64)) for a in (x, w, b)))
            # Depthwise kernels without an epilogue of their own round 16-bit sums before it.
            twice = case.groups > 1 and np.dtype(dtype).itemsize == 2
            rounding = np.abs(wide) * (2.0**-8 if twice else 0)
            if extra is not None:
                wide, magnitude = wide + extra.astype(np.float64), magnitude + np.abs(extra.astype(np.float64))
            right = clipped(wide, low, high)
            right = right + np.clip(y.astype(np.float64) - right, -rounding, rounding)
            assert_bound(y, right, magnitude, case.terms + 2, dtype)


@by_case
def test_every_algorithm(kernel_backend, case):
    if not hasattr(kernel_backend, "set_conv_algorithm"):
        pytest.skip("one algorithm")
    x, w, _, add = operands(case, float32)
    for arrange in (np.ascontiguousarray, channels_last):
        plan = kernel_backend.conv_plan("conv_forward", case.x_shape, case.w_shape, *case.options[:-1])
        for name in ("", plan["algorithm"], *plan["others"]):
            kernel_backend.set_conv_algorithm(name)
            try:
                plain = kernel_backend.conv_forward(arrange(x), w, None, *case.options)
                y = kernel_backend.conv_forward(arrange(x), w, None, *case.options, arrange(add), 0.0, np.inf)
            finally:
                kernel_backend.set_conv_algorithm("")
            assert_same_bits(y, clipped(plain + add, 0.0, np.inf))


@by_case
def test_bits_do_not_depend_on_threads_or_batch(kernel_backend, case):
    x, w, b, add = operands(case, float32)
    before = kernel_backend.get_num_threads()
    try:
        kernel_backend.set_num_threads(1)
        y = kernel_backend.conv_forward(x, w, b, *case.options, add, 0.0, 6.0)
        kernel_backend.set_num_threads(2)
        assert_same_bits(kernel_backend.conv_forward(x, w, b, *case.options, add, 0.0, 6.0), y)
        one = kernel_backend.conv_forward(x[-1], w, b, *case.options, add[-1], 0.0, 6.0)
        assert_same_bits(one, y[-1])
    finally:
        kernel_backend.set_num_threads(before)


def test_images_that_are_computed_again(backend):
    """An infinity sends its image from Winograd to the direct kernel: the sum is added once."""
    c = CASES[1]
    x, w, b, add = operands(c, float32)
    x[1, 3, 4, 5] = np.inf
    y = backend.conv_forward(x, w, b, *c.options, add, 0.0, np.inf)
    with np.errstate(invalid="ignore"):
        expected = clipped(backend.conv_forward(x, w, b, *c.options) + add, 0.0, np.inf)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-5)


def test_nan_stays(backend):
    c = CASES[0]
    x, w, b, add = operands(c, float32)
    add[0, 1, 2, 3] = np.nan
    y = backend.conv_forward(x, w, b, *c.options, add, 0.0, 6.0)
    assert np.isnan(y[0, 1, 2, 3]) and np.isnan(y).sum() == 1


def test_any_strides_of_the_summand(backend):
    c = CASES[0]
    x, w, b, add = operands(c, float32)
    expected = backend.conv_forward(x, w, b, *c.options, add)
    views = channels_last(add), np.broadcast_to(add[:1], add.shape), np.repeat(add, 2, 3)[..., ::2], add[:, ::-1]
    for view, same in zip(views, (True, False, True, False), strict=True):
        y = backend.conv_forward(x, w, b, *c.options, view)
        assert np.array_equal(y, expected) is same
        assert_same_bits(y, backend.conv_forward(x, w, b, *c.options, np.ascontiguousarray(view)))


@pytest.mark.parametrize(
    ("add", "low", "high", "error", "words"),
    [
        (np.zeros((2, 21, 5, 10), np.float32), 0.0, 1.0, ValueError, "add"),
        (np.zeros((21, 5, 11), np.float32), 0.0, 1.0, ValueError, "add"),
        (np.zeros((2, 21, 5, 11)), 0.0, 1.0, TypeError, "add"),
        ([1.0], 0.0, 1.0, TypeError, "add"),
        (None, 1.0, 0.0, ValueError, "low must not be above high"),
        (None, np.nan, 1.0, ValueError, "low"),
        (None, 0.0, "6", TypeError, "high"),
    ],
)
def test_bad_arguments(backend, add, low, high, error, words):
    c = CASES[0]
    x, w, b, _ = operands(c, float32)
    with pytest.raises(error, match=words):
        backend.conv_forward(x, w, b, *c.options, add, low, high)
