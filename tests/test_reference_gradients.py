"""Gradients of the reference backend without torch: finite differences, and the adjoint identity on integers.

The linear operators satisfy <f(x), g> = <x, backward(g)> exactly where all values are small integers, which catches any
slip of padding, stride or dilation, also in the forms that torch does not have (strided "same", asymmetric padding).
"""

import numpy as np
import pytest

from checks import DTYPES, assert_exact, directional_derivative, dtype_name, integers
from fastconv import reference as ref

CONVOLUTIONS = [
    # nd, size, kernel, stride, padding, dilation, groups
    (1, (11,), (4,), 3, "same", 1, 1),
    (1, (7,), (3,), 2, [(0, 3)], 2, 2),
    (2, (7, 6), (3, 2), (2, 3), "same", (2, 1), 1),
    (2, (5, 9), (3, 3), 1, [(2, 0), (1, 1)], 1, 4),
    (2, (4, 4), (4, 4), 5, 3, 1, 2),
    (2, (6, 5), (1, 1), 2, 1, 1, 1),
    (3, (4, 5, 3), (2, 3, 1), (1, 2, 3), [(0, 0), (1, 2), (1, 1)], 1, 2),
]


def pullback_of(f, *backward):
    """A vjp from a forward function and one function of (dy, *args) for each argument."""
    return lambda *args: (f(*args), lambda dy: tuple(b(dy, *args) for b in backward))


def inner(a, b):
    return int(np.sum(a.astype(np.int64) * b.astype(np.int64)))


@pytest.mark.parametrize("nd, size, kernel, stride, padding, dilation, groups", CONVOLUTIONS)
def test_convolution_and_its_adjoints(nd, size, kernel, stride, padding, dilation, groups):
    rng = np.random.default_rng(0)
    options = (stride, padding, dilation, groups, nd)
    x = integers(rng, (2, 4, *size), np.float64)
    w = integers(rng, (8, 4 // groups, *kernel), np.float64)
    y = ref.conv_forward(x, w, None, *options)
    dy = integers(rng, y.shape, np.float64)
    dx = ref.conv_backward_input(dy, w, x.shape, *options)
    dw = ref.conv_backward_weight(dy, x, w.shape, *options)
    assert inner(y, dy) == inner(x, dx) == inner(w, dw)

    x, w, b = (rng.standard_normal(shape) for shape in (x.shape, w.shape, (8,)))
    directional_derivative(
        lambda x, w, b: ref.conv_forward(x, w, b, *options),
        pullback_of(
            lambda x, w, b: ref.conv_forward(x, w, b, *options),
            lambda dy, x, w, b: ref.conv_backward_input(dy, w, x.shape, *options),
            lambda dy, x, w, b: ref.conv_backward_weight(dy, x, w.shape, *options),
            lambda dy, x, w, b: ref.conv_backward_bias(dy, nd),
        ),
        (x, w, b),
        rng,
    )


@pytest.mark.parametrize("padding", [0, 1, [(1, 2), (0, 1)]])
@pytest.mark.parametrize("stride, output_padding, groups, dilation", [(1, 0, 1, 1), (3, 2, 2, 1), (2, (0, 1), 1, 2)])
def test_transposed_convolution_is_the_adjoint_of_convolution(padding, stride, output_padding, groups, dilation):
    rng = np.random.default_rng(1)
    options = (stride, padding, output_padding, groups, dilation, 2)
    x = integers(rng, (2, 4, 3, 5), np.float64)
    w = integers(rng, (4, 2, 3, 2), np.float64)
    y = ref.conv_transpose_forward(x, w, None, *options)
    dy = integers(rng, y.shape, np.float64)
    if output_padding == 0:
        np.testing.assert_array_equal(ref.conv_backward_input(x, w, y.shape, stride, padding, dilation, groups, 2), y)
    dx = ref.conv_transpose_backward_input(dy, w, x.shape, *options)
    dw = ref.conv_transpose_backward_weight(dy, x, w.shape, *options)
    assert inner(y, dy) == inner(x, dx) == inner(w, dw)

    x, w, b = (rng.standard_normal(shape) for shape in (x.shape, w.shape, (2 * groups,)))
    directional_derivative(
        lambda x, w, b: ref.conv_transpose_forward(x, w, b, *options),
        pullback_of(
            lambda x, w, b: ref.conv_transpose_forward(x, w, b, *options),
            lambda dy, x, w, b: ref.conv_transpose_backward_input(dy, w, x.shape, *options),
            lambda dy, x, w, b: ref.conv_transpose_backward_weight(dy, x, w.shape, *options),
            lambda dy, x, w, b: ref.conv_backward_bias(dy, 2),
        ),
        (x, w, b),
        rng,
    )


POOLS = {
    "max": (
        lambda x: ref.max_pool_forward(x, 3, 2, 1, 1, True, 2, "none"),
        lambda dy, x: ref.max_pool_backward(
            dy, ref.max_pool_forward(x, 3, 2, 1, 1, True, 2, "window")[1], x.shape, 3, 2, 1, 1, True, 2
        ),
    ),
    "avg": (
        lambda x: ref.avg_pool_forward(x, 3, 2, 1, True, False, None, 2),
        lambda dy, x: ref.avg_pool_backward(dy, x.shape, 3, 2, 1, True, False, None, 2),
    ),
    "lp": (
        lambda x: ref.lp_pool_forward(x, 2.5, 3, 2, True, 2),
        lambda dy, x: ref.lp_pool_backward(dy, x, ref.lp_pool_forward(x, 2.5, 3, 2, True, 2), 2.5, 3, 2, True, 2),
    ),
    "adaptive_avg": (
        lambda x: ref.adaptive_avg_pool_forward(x, (3, 5), 2),
        lambda dy, x: ref.adaptive_avg_pool_backward(dy, x.shape, 2),
    ),
    "adaptive_max": (
        lambda x: ref.adaptive_max_pool_forward(x, (3, 5), 2, "none"),
        lambda dy, x: ref.adaptive_max_pool_backward(
            dy, ref.adaptive_max_pool_forward(x, (3, 5), 2, "window")[1], x.shape, 2
        ),
    ),
    "local_response_norm": (
        lambda x: ref.local_response_norm_forward(x, 3, 0.7, 0.75, 1.5),
        lambda dy, x: ref.local_response_norm_backward(dy, x, 3, 0.7, 0.75, 1.5),
    ),
    "leaky_relu": (
        lambda x: ref.leaky_relu_forward(x - 1.5, 0.2),
        lambda dy, x: ref.leaky_relu_backward(dy, x - 1.5, 0.2),
    ),
    "hardtanh": (
        lambda x: ref.hardtanh_forward(x, 1.0, 2.0),
        lambda dy, x: ref.hardtanh_backward(dy, x, 1.0, 2.0),
    ),
    "relu": (
        lambda x: ref.relu_forward(x - 1.5),
        lambda dy, x: ref.relu_backward(dy, ref.relu_forward(x - 1.5)),
    ),
    "max_unpool": (
        lambda x: ref.max_unpool_forward(x, np.arange(42)[::-1].reshape(7, 6) + np.zeros((2, 3, 1, 1), int), (8, 6), 2),
        lambda dy, x: ref.max_unpool_backward(dy, np.arange(42)[::-1].reshape(7, 6) + np.zeros((2, 3, 1, 1), int), 2),
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_finite_differences_of_one_input(name):
    forward, backward = POOLS[name]
    rng = np.random.default_rng(2)
    # All values are different and positive, at least 0.01 apart: no maximum changes hands within a step.
    x = rng.permutation(2 * 3 * 7 * 6).reshape(2, 3, 7, 6) * 0.01 + 0.505
    directional_derivative(forward, pullback_of(forward, backward), (x,), rng)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("op", ["batch_norm", "instance_norm"])
def test_finite_differences_of_norms(op, training):
    rng = np.random.default_rng(3)
    x, w, b = (rng.standard_normal(shape) for shape in ((3, 4, 2, 5), (4,), (4,)))
    mean, var = rng.standard_normal(4), rng.random(4) + 0.5

    def forward(x, w, b):
        function = getattr(ref, f"{op}_forward")
        return function(x, w, b, mean.copy(), var.copy(), training, 0.1, 1e-3)

    def vjp(x, w, b):
        y, saved_mean, invstd = forward(x, w, b)
        backward = getattr(ref, f"{op}_backward")
        return y, lambda dy: backward(dy, x, w, saved_mean, invstd, training)

    directional_derivative(lambda *args: forward(*args)[0], vjp, (x, w, b), rng)


@pytest.mark.parametrize("x_shape, w_shape", [((2, 3, 4), (5, 4)), ((4,), (5, 4)), ((2, 3, 4), (4,)), ((0, 4), (5, 4))])
def test_linear_adjoints(x_shape, w_shape):
    rng = np.random.default_rng(4)
    x, w = integers(rng, x_shape, np.float64), integers(rng, w_shape, np.float64)
    y = ref.linear_forward(x, w, None)
    dy = integers(rng, y.shape, np.float64)
    dx, dw = ref.linear_backward_input(dy, w), ref.linear_backward_weight(dy, x)
    assert (dx.shape, dw.shape) == (x.shape, w.shape)
    assert inner(y, dy) == inner(x, dx) == inner(w, dw)


def test_prelu_finite_differences():
    rng = np.random.default_rng(5)
    x = rng.permutation(60).reshape(2, 3, 10) * 0.1 - 3.05
    for size in (1, 3):
        directional_derivative(
            ref.prelu_forward, lambda x, w: (ref.prelu_forward(x, w), lambda dy: ref.prelu_backward(dy, x, w)),
            (x, rng.standard_normal(size)), rng,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_integers_are_exact_in_every_dtype(dtype):
    rng = np.random.default_rng(6)
    x, w = integers(rng, (2, 4, 6, 5), dtype), integers(rng, (4, 2, 3, 3), dtype, -1, 1)
    options = (1, 1, 1, 2, 2)
    y = ref.conv_forward(x, w, None, *options)
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3)).reshape(2, 2, 2, 6, 5, 3, 3)
    expected = np.einsum("ngchwrs,gkcrs->ngkhw", windows, w.astype(np.int64).reshape(2, 2, 2, 3, 3)).reshape(y.shape)
    assert_exact(y, expected, dtype)
    pooled = ref.avg_pool_forward(x, 2, 1, 0, False, True, 1, 2)
    wide = x.astype(np.int64)
    sums = wide[..., :-1, :-1] + wide[..., 1:, :-1] + wide[..., :-1, 1:] + wide[..., 1:, 1:]
    assert_exact(pooled, sums, dtype)


def test_bfloat16_results_are_rounded_once():
    bfloat16 = DTYPES[3]
    # 1 + 2**-8 + 2**-30 is above the midpoint of 1 and 1 + 2**-7; by way of float32 it would be a tie, and round to 1.
    x = np.array([1, 2.0**-8, 2.0**-30]).astype(bfloat16)
    y = ref.linear_forward(x, np.ones((1, 3), bfloat16), None)
    assert float(y[0]) == 1 + 2.0**-7
    assert float(ref.linear_forward(-x, np.ones((1, 3), bfloat16), None)[0]) == -1 - 2.0**-7
    big = np.full(4, 3e38).astype(bfloat16)
    assert np.isposinf(ref.linear_forward(big, np.ones((1, 4), bfloat16), None).astype(float))
    assert np.isnan(
        ref.linear_forward(np.full(4, np.nan).astype(bfloat16), np.ones((1, 4), bfloat16), None).astype(float)
    )
