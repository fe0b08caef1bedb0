"""Convolution, pooling and linear of the reference backend against torch, forward and backward, in float64."""

import itertools

import numpy as np
import pytest

from checks import from_torch, layouts, to_torch
from fastconv import reference as ref

torch = pytest.importorskip("torch")
F = torch.nn.functional

CONV = [F.conv1d, F.conv2d, F.conv3d]
CONV_TRANSPOSE = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d]
MAX_POOL = [F.max_pool1d, F.max_pool2d, F.max_pool3d]
MAX_UNPOOL = [F.max_unpool1d, F.max_unpool2d, F.max_unpool3d]
AVG_POOL = [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d]
LP_POOL = [F.lp_pool1d, F.lp_pool2d, F.lp_pool3d]
ADAPTIVE_AVG = [F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d]
ADAPTIVE_MAX = [F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d]


def close(actual, expected):
    assert actual.dtype == np.float64
    expected = from_torch(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-10)


def leaf(x):
    return to_torch(x).requires_grad_()


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def image(nd, batched, channels, seed=0, sizes=(9, 8, 7)):
    return arrays(seed, (2, channels, *sizes[-nd:]) if batched else (channels, *sizes[-nd:]))[0]


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(
    "stride, padding, dilation, groups, kernel",
    [
        (1, 0, 1, 1, 3),
        (2, 1, 1, 2, 3),
        (1, 2, 2, 4, 3),
        (3, (2, 1, 0), (1, 2, 1), 1, (3, 2, 4)),
        ((1, 2, 3), 3, 1, 2, 2),
        (9, 0, 1, 4, 1),
        (1, "same", 2, 1, (2, 3, 4)),
        (2, "valid", 1, 1, 3),
    ],
)
def test_convolution(nd, batched, stride, padding, dilation, groups, kernel):
    def cut(value):
        return value[-nd:] if isinstance(value, tuple) else value

    options = (cut(stride), cut(padding), cut(dilation), groups)
    window = cut(kernel) if isinstance(kernel, tuple) else (kernel,) * nd
    x = image(nd, batched, 4)
    w, b = arrays(1, (8, 4 // groups, *window), 8)
    tx, tw, tb = map(leaf, (x, w, b))
    ty = CONV[nd - 1](tx, tw, tb, *options)
    y = ref.conv_forward(x, w, b, *options, nd)
    close(y, ty)
    (dy,) = arrays(2, y.shape)
    ty.backward(to_torch(dy))
    close(ref.conv_backward_input(dy, w, x.shape, *options, nd), tx.grad)
    close(ref.conv_backward_weight(dy, x, w.shape, *options, nd), tw.grad)
    close(ref.conv_backward_bias(dy, nd), tb.grad)


@pytest.mark.parametrize("nd, pairs", [(1, [(3, 1)]), (2, [(0, 2), (1, 1)]), (3, [(1, 0), (0, 0), (2, 3)])])
@pytest.mark.parametrize("stride", [1, 2])
def test_asymmetric_padding_is_padding_the_input(nd, pairs, stride):
    x = image(nd, True, 2)
    (w,) = arrays(1, (3, 2, *(3,) * nd))
    flat = list(itertools.chain(*reversed(pairs)))
    flat = [n for before_after in zip(flat[::2], flat[1::2]) for n in before_after]
    tx, tw = leaf(x), leaf(w)
    ty = CONV[nd - 1](F.pad(tx, flat), tw, None, stride)
    y = ref.conv_forward(x, w, None, stride, pairs, 1, 1, nd)
    close(y, ty)
    (dy,) = arrays(2, y.shape)
    ty.backward(to_torch(dy))
    close(ref.conv_backward_input(dy, w, x.shape, stride, pairs, 1, 1, nd), tx.grad)
    close(ref.conv_backward_weight(dy, x, w.shape, stride, pairs, 1, 1, nd), tw.grad)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (1, 3), (2, 1), (3, 2), (4, 1)])
def test_same_padding_follows_onnx(size, kernel, stride, dilation):
    x, w = arrays(0, (1, 1, size), (1, 1, kernel))
    out = -(-size // stride)
    total = max((out - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    padded = F.pad(to_torch(x), (total // 2, total - total // 2))
    y = ref.conv_forward(x, w, None, stride, "same", dilation, 1, 1)
    assert y.shape == (1, 1, out)
    close(y, F.conv1d(padded, to_torch(w), None, stride, 0, dilation))


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(
    "stride, padding, output_padding, groups, dilation, kernel",
    [
        (1, 0, 0, 1, 1, 3),
        (2, 1, 1, 2, 1, 3),
        (3, 2, 2, 4, 1, 5),
        (1, 1, 1, 1, 2, 3),
        (2, 0, 2, 2, 3, 2),
        (4, 0, 3, 1, 1, 1),
    ],
)
def test_transposed_convolution(nd, batched, stride, padding, output_padding, groups, dilation, kernel):
    options = (stride, padding, output_padding, groups, dilation)
    x = image(nd, batched, 4, sizes=(3, 4, 5))
    w, b = arrays(1, (4, 3, *(kernel,) * nd), 3 * groups)
    tx, tw, tb = map(leaf, (x, w, b))
    ty = CONV_TRANSPOSE[nd - 1](tx, tw, tb, *options)
    y = ref.conv_transpose_forward(x, w, b, *options, nd)
    close(y, ty)
    (dy,) = arrays(2, y.shape)
    ty.backward(to_torch(dy))
    close(ref.conv_transpose_backward_input(dy, w, x.shape, *options, nd), tx.grad)
    close(ref.conv_transpose_backward_weight(dy, x, w.shape, *options, nd), tw.grad)
    close(ref.conv_backward_bias(dy, nd), tb.grad)


@pytest.mark.parametrize("x_shape, w_shape", [((4, 3), (5, 3)), ((3,), (5, 3)), ((2, 4, 3), (3,)), ((3,), (3,))])
def test_linear(x_shape, w_shape):
    x, w = arrays(0, x_shape, w_shape)
    b = arrays(1, w_shape[:-1])[0] if len(w_shape) == 2 else None
    tx, tw = leaf(x), leaf(w)
    tb = None if b is None else leaf(b)
    ty = F.linear(tx, tw, tb)
    y = ref.linear_forward(x, w, b)
    close(y, ty)
    dy = np.random.default_rng(2).standard_normal(size=y.shape) + np.zeros(y.shape)
    ty.backward(to_torch(np.asarray(dy)))
    close(ref.linear_backward_input(np.asarray(dy), w), tx.grad)
    close(ref.linear_backward_weight(np.asarray(dy), x), tw.grad)
    if b is not None:
        close(ref.linear_backward_bias(dy), tb.grad)


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize(
    "kernel, stride, padding, dilation",
    [(2, None, 0, 1), (3, 2, 1, 1), (3, 1, 1, 1), (2, 3, 1, 2), (3, 2, 1, 3), (1, 4, 0, 1)],
)
def test_max_pool(nd, batched, ceil_mode, kernel, stride, padding, dilation):
    # Few different values: ties have to go to the first.
    x = np.round(image(nd, batched, 3))
    options = (kernel, stride, padding, dilation, ceil_mode)
    tx = leaf(x)
    ty, tindex = MAX_POOL[nd - 1](tx, *options, return_indices=True)
    y, index = ref.max_pool_forward(x, *options, nd, "flat")
    close(y, ty)
    np.testing.assert_array_equal(index, from_torch(tindex))
    np.testing.assert_array_equal(ref.max_pool_forward(x, *options, nd, "none"), y)
    (dy,) = arrays(2, y.shape)
    ty.backward(to_torch(dy))
    _, saved = ref.max_pool_forward(x, *options, nd, "window")
    close(ref.max_pool_backward(dy, saved, x.shape, *options, nd), tx.grad)
    close(ref.max_pool_backward(dy, index, x.shape, *options, nd), tx.grad)


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
def test_max_unpool(nd, batched):
    x = image(nd, batched, 3)
    pooled, index = ref.max_pool_forward(x, 2, 2, 0, 1, False, nd, "flat")
    tp = leaf(pooled)
    ty = MAX_UNPOOL[nd - 1](tp, to_torch(index), 2, 2, 0, output_size=x.shape[-nd:])
    y = ref.max_unpool_forward(pooled, index, x.shape[-nd:], nd)
    close(y, ty)
    (dy,) = arrays(2, y.shape)
    ty.backward(to_torch(dy))
    close(ref.max_unpool_backward(dy, index, nd), tp.grad)


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("ceil_mode, count_include_pad", list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("kernel, stride, padding", [(2, None, 0), (3, 2, 1), (4, 3, 2), (3, 1, 1), (1, 4, 0)])
def test_avg_pool(nd, batched, ceil_mode, count_include_pad, kernel, stride, padding):
    x = image(nd, batched, 3)
    for divisor in (None, 3, -2) if nd > 1 else (None,):
        tx = leaf(x)
        extra = () if divisor is None else (divisor,)
        ty = AVG_POOL[nd - 1](tx, kernel, stride, padding, ceil_mode, count_include_pad, *extra)
        options = (kernel, stride, padding, ceil_mode, count_include_pad, divisor)
        y = ref.avg_pool_forward(x, *options, nd)
        close(y, ty)
        (dy,) = arrays(2, y.shape)
        ty.backward(to_torch(dy))
        close(ref.avg_pool_backward(dy, x.shape, *options, nd), tx.grad)


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("power, kernel, stride", [(2, 3, 2), (1, 2, None), (3, 2, 3), (1.5, 3, 1), (-2, 2, 1)])
def test_lp_pool(nd, batched, ceil_mode, power, kernel, stride):
    x = np.abs(image(nd, batched, 3)) + 0.1
    if power == 2:
        x *= np.sign(image(nd, batched, 3, seed=5))
    tx = leaf(x)
    ty = LP_POOL[nd - 1](tx, power, kernel, stride, ceil_mode)
    y = ref.lp_pool_forward(x, power, kernel, stride, ceil_mode, nd)
    close(y, ty)
    (dy,) = arrays(2, y.shape)
    ty.backward(to_torch(dy))
    close(ref.lp_pool_backward(dy, x, y, power, kernel, stride, ceil_mode, nd), tx.grad)


def test_lp_pool_of_negative_sums_and_zeros():
    x = np.array([[-1.0, -2.0, 0.0, 0.0, 3.0, 4.0]])
    y = ref.lp_pool_forward(x, 3, 2, None, False, 1)
    close(y, F.lp_pool1d(to_torch(x), 3, 2))
    assert np.isnan(y[0, 0])
    y = ref.lp_pool_forward(x, 2, 2, None, False, 1)
    dx = ref.lp_pool_backward(np.ones_like(y), x, y, 2, 2, None, False, 1)
    np.testing.assert_allclose(dx, [[-1 / 5**0.5, -2 / 5**0.5, 0, 0, 0.6, 0.8]])


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("output_size", [1, 3, 5, 8, 11])
def test_adaptive_pools(nd, batched, output_size):
    x = image(nd, batched, 3)
    tx = leaf(x)
    ty = ADAPTIVE_AVG[nd - 1](tx, output_size)
    y = ref.adaptive_avg_pool_forward(x, output_size, nd)
    close(y, ty)
    (dy,) = arrays(2, y.shape)
    ty.backward(to_torch(dy))
    close(ref.adaptive_avg_pool_backward(dy, x.shape, nd), tx.grad)

    x = np.round(x)
    tx = leaf(x)
    ty, tindex = ADAPTIVE_MAX[nd - 1](tx, output_size, return_indices=True)
    y, index = ref.adaptive_max_pool_forward(x, output_size, nd, "flat")
    close(y, ty)
    np.testing.assert_array_equal(index, from_torch(tindex))
    ty.backward(to_torch(dy))
    close(ref.adaptive_max_pool_backward(dy, index, x.shape, nd), tx.grad)


def test_adaptive_pools_keep_a_size_for_none():
    x = image(2, True, 3)
    close(ref.adaptive_avg_pool_forward(x, (None, 3), 2), F.adaptive_avg_pool2d(to_torch(x), (None, 3)))
    close(ref.adaptive_max_pool_forward(x, (5, None), 2, "none"), F.adaptive_max_pool2d(to_torch(x), (5, None)))
    assert ref.adaptive_avg_pool_forward(x, (0, 3), 2).shape == F.adaptive_avg_pool2d(to_torch(x), (0, 3)).shape


def test_max_pools_of_nan_infinity_and_ties():
    x = np.array([[[-np.inf, -np.inf, 1, 1, np.nan, 7, np.nan, np.nan]]])
    y, index = ref.max_pool_forward(x, 2, None, 0, 1, False, 1, "flat")
    np.testing.assert_array_equal(y, [[[-np.inf, 1, np.nan, np.nan]]])
    np.testing.assert_array_equal(index, [[[0, 2, 4, 6]]])
    y, index = ref.adaptive_max_pool_forward(x, 4, 1, "flat")
    np.testing.assert_array_equal(y, [[[-np.inf, 1, np.nan, np.nan]]])
    np.testing.assert_array_equal(index, [[[0, 2, 4, 6]]])


@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize(
    "kernel, stride, pair", [(3, 2, (0, 1)), (3, 1, (2, 0)), (4, 3, (1, 3)), (2, 2, (1, 0)), (3, 2, "same")]
)
def test_pools_padded_in_pairs_are_pools_of_a_padded_input(nd, ceil_mode, kernel, stride, pair):
    x = image(nd, True, 3)
    padding, pairs = (pair,) * nd, (pair,) * nd
    if pair == "same":
        padding = pair
        totals = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
        pairs = [(total // 2, total - total // 2) for total in totals]
    wide = [number for before_and_after in reversed(pairs) for number in before_and_after]

    options = (kernel, stride, padding, 1, ceil_mode, nd)
    y, index = ref.max_pool_forward(x, *options, "flat")
    # Windows that would begin behind the input are dropped; torch knows only where the padded input ends.
    kept = (..., *map(slice, y.shape[2:]))
    tx = leaf(x)
    ty = MAX_POOL[nd - 1](F.pad(tx, wide, value=-np.inf), kernel, stride, 0, 1, ceil_mode)[kept]
    close(y, ty)
    (dy,) = arrays(2, y.shape)
    ty.backward(to_torch(dy))
    close(ref.max_pool_backward(dy, index, x.shape, *options), tx.grad)

    tx = leaf(x)
    ty = AVG_POOL[nd - 1](F.pad(tx, wide), kernel, stride, 0, ceil_mode)[kept]
    options = (kernel, stride, padding, ceil_mode, True, None, nd)
    close(ref.avg_pool_forward(x, *options), ty)
    ty.backward(to_torch(dy))
    close(ref.avg_pool_backward(dy, x.shape, *options), tx.grad)
    counted = AVG_POOL[nd - 1](F.pad(torch.ones_like(tx), wide), kernel, stride, 0, ceil_mode)[kept]
    close(ref.avg_pool_forward(x, kernel, stride, padding, ceil_mode, False, None, nd), ty / counted)


def test_a_window_in_the_padding_alone_is_minus_infinity():
    y, index = ref.max_pool_forward(np.ones((1, 1, 1)), 2, 1, 1, 2, False, 1, "flat")
    close(y, F.max_pool1d(torch.ones((1, 1, 1)).double(), 2, 1, 1, 2))
    assert index == -1
    assert not ref.max_pool_backward(np.ones((1, 1, 1)), index, (1, 1, 1), 2, 1, 1, 2, False, 1).any()


def test_layouts_have_no_influence_and_channels_last_is_kept():
    x = image(2, True, 4)
    w, b = arrays(1, (6, 2, 3, 3), 6)
    calls = {
        "conv": lambda x: ref.conv_forward(x, w, b, 2, 1, 1, 2, 2),
        "conv_transpose": lambda x: ref.conv_transpose_forward(x, w[:4, :, :, :2], None, 2, 1, 0, 1, 1, 2),
        "max_pool": lambda x: ref.max_pool_forward(x, 2, None, 0, 1, False, 2, "none"),
        "avg_pool": lambda x: ref.avg_pool_forward(x, 2, None, 0, False, True, None, 2),
        "lp_pool": lambda x: ref.lp_pool_forward(x, 2, 2, None, False, 2),
        "adaptive_avg_pool": lambda x: ref.adaptive_avg_pool_forward(x, 3, 2),
        "adaptive_max_pool": lambda x: ref.adaptive_max_pool_forward(x, 3, 2, "none"),
    }
    for op, call in calls.items():
        expected = call(x)
        for name, view in layouts(x):
            y = call(view)
            np.testing.assert_array_equal(y, expected, err_msg=f"{op} {name}")
            channels_last = y.transpose(0, 2, 3, 1).flags.c_contiguous
            assert channels_last == (name == "channels_last"), (op, name, y.strides)
