"""Hostile arguments to the reference backend: one clear error that names the argument, or the right empty result.

Rows marked with a CVE or an issue are malformed inputs that broke other libraries.
"""

import ml_dtypes
import numpy as np
import pytest

from fastconv import reference as ref

HUGE = 2**62


def z(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


def index(*shape, value=0):
    return np.full(shape, value, np.int64)


def conv(x, w, stride=1, padding=0, dilation=1, groups=1, nd=2, b=None):
    return ref.conv_forward(x, w, b, stride, padding, dilation, groups, nd)


def conv_dx(dy, w, x_shape, stride=1, padding=0, dilation=1, groups=1, nd=2):
    return ref.conv_backward_input(dy, w, x_shape, stride, padding, dilation, groups, nd)


def conv_dw(dy, x, w_shape, stride=1, padding=0, dilation=1, groups=1, nd=2):
    return ref.conv_backward_weight(dy, x, w_shape, stride, padding, dilation, groups, nd)


def transposed(x, w, stride=1, padding=0, output_padding=0, groups=1, dilation=1, nd=2, b=None):
    return ref.conv_transpose_forward(x, w, b, stride, padding, output_padding, groups, dilation, nd)


def max_pool(x, kernel, stride=None, padding=0, dilation=1, ceil_mode=False, nd=2, indices="none"):
    return ref.max_pool_forward(x, kernel, stride, padding, dilation, ceil_mode, nd, indices)


def avg_pool(x, kernel, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor=None, nd=2):
    return ref.avg_pool_forward(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor, nd)


def max_pool_dx(dy, saved, x_shape, kernel=2, nd=2):
    return ref.max_pool_backward(dy, saved, x_shape, kernel, None, 0, 1, False, nd)


def avg_pool_dx(dy, x_shape, kernel=2, nd=2):
    return ref.avg_pool_backward(dy, x_shape, kernel, None, 0, False, True, None, nd)


def batch_norm(x, w=None, b=None, mean=None, var=None, training=True, momentum=0.1, eps=1e-5):
    return ref.batch_norm_forward(x, w, b, mean, var, training, momentum, eps)


X, W = z(1, 2, 5, 5), z(2, 2, 3, 3)
OVERLAPPING = np.zeros(4)

VALUE_ERRORS = {
    # Convolution
    "CVE-2021-29526 zero filter": ("weight", lambda: conv(X, z(0, 0, 0, 0))),
    "filter without outputs": ("weight", lambda: conv(X, z(0, 2, 3, 3))),
    "filter without height": ("weight", lambda: conv(X, z(2, 2, 0, 3))),
    "CVE-2023-27579 no channels per group": ("input", lambda: conv(z(1, 0, 5, 5), z(2, 0, 3, 3))),
    "CVE-2022-35996 empty input in padding": ("input", lambda: conv(z(1, 1, 0, 2), z(1, 1, 1, 1), padding=1)),
    "CVE-2021-29525 empty filter, backward": ("input", lambda: conv_dx(z(52, 0, 1, 1), z(0, 0, 1, 5), (52, 0, 1, 5))),
    "CVE-2021-29538 empty shapes, backward": ("input", lambda: conv_dw(z(0, 0, 0, 0), z(0, 0, 0, 0), (0, 0, 0, 0))),
    "CVE-2021-29540 channels differ": ("input", lambda: conv_dw(z(1, 1, 1, 1), z(1, 2, 3, 3), (1, 1, 3, 3), (66, 49))),
    "CVE-2021-29540 empty input": ("input", lambda: conv_dw(z(0, 1, 1, 1), z(0, 5, 1, 1)[:, :, :0], (1, 1, 3, 8))),
    "CVE-2021-29520 inconsistent 3-d": (
        "weight|input|grad_output",
        lambda: conv_dx(z(1, 1, 1, 1, 1), z(1, 6, 4, 1, 1), (1, 2, 1, 1, 1), nd=3),
    ),
    "CVE-2021-29522 zero sizes 3-d": ("input", lambda: conv_dx(z(0, 0, 0, 0, 0), z(0, 0, 0, 0, 0), (0,) * 5, nd=3)),
    "CVE-2021-29566 dilated beyond the input": (
        "weight",
        lambda: conv(z(1, 3, 9, 9), z(1, 3, 2, 2), stride=40, dilation=56),
    ),
    "pytorch#149274 stride 0": ("stride", lambda: conv(X, W, stride=0)),
    "pytorch#136716 negative stride": ("stride", lambda: conv(X, W, stride=(1, -1))),
    "stride as large as 2**63": ("stride", lambda: conv(X, W, stride=2**63)),
    "pytorch#91549 dilation 0": ("dilation", lambda: conv(X, W, dilation=0)),
    "pytorch#136716 negative dilation": ("dilation", lambda: conv(X, W, dilation=-1)),
    "dilation overflows": ("dilation", lambda: conv(X, W, dilation=HUGE)),
    "pytorch#73193 groups 0": ("groups", lambda: conv(X, W, groups=0)),
    "groups negative": ("groups", lambda: conv(X, W, groups=-1)),
    "groups do not divide": ("groups", lambda: conv(z(1, 6, 5, 5), W, groups=3)),
    "groups and channels": ("input", lambda: conv(z(1, 3, 5, 5), W)),
    "negative padding": ("padding", lambda: conv(X, W, padding=-1)),
    "padding of one number too many": ("padding", lambda: conv(X, W, padding=(1, 1, 1))),
    "padding pair of three": ("padding", lambda: conv(X, W, padding=[(1, 1, 1), 0])),
    "unknown padding": ("padding", lambda: conv(X, W, padding="full")),
    "padded size overflows": ("padding|output", lambda: conv(X, W, padding=HUGE)),
    "output overflows": ("output", lambda: conv(X, W, padding=2**31)),
    "empty stride": ("stride", lambda: conv(X, W, stride=[])),
    "kernel larger than input": ("weight", lambda: conv(X, z(2, 2, 6, 1))),
    "wrong rank of input": ("input", lambda: conv(z(5, 5), W)),
    "wrong rank of weight": ("weight", lambda: conv(X, z(2, 2, 3))),
    "0-d input": ("input", lambda: conv(z(), W)),
    "0-d weight": ("weight", lambda: conv(X, z())),
    "bias of the wrong length": ("bias", lambda: conv(X, W, b=z(3))),
    "bias as a column": ("bias", lambda: conv(X, W, b=z(2, 1))),
    "nd 4": ("nd", lambda: conv(X, W, nd=4)),
    "grad_output of another batch": ("grad_output", lambda: conv_dx(z(2, 2, 3, 3), W, (1, 2, 5, 5))),
    "grad_output unbatched": ("grad_output", lambda: conv_dx(z(2, 3, 3), W, (1, 2, 5, 5))),
    "grad_output larger": ("grad_output", lambda: conv_dw(z(1, 2, 5, 5), X, W.shape)),
    "CVE-2022-41885 product of sizes": (
        "input",
        lambda: conv_dx(z(1, 2, 3, 3), W, (1879048192, 1879048192, 5, 5)),
    ),
    "product of sizes behind a zero": ("input", lambda: conv_dx(z(0, 2, 3, 3), W, (0, 2, HUGE, HUGE))),
    "negative size": ("input", lambda: conv_dx(z(1, 2, 3, 3), W, (-1, 2, 5, 5))),
    "negative weight size": ("weight", lambda: conv_dw(z(1, 2, 3, 3), X, (2, 2, -3, 3))),
    "bias gradient of a vector": ("grad_output", lambda: ref.conv_backward_bias(z(3), 2)),
    # Transposed convolution
    "CVE-2023-25661 no channels": ("weight|input", lambda: transposed(z(1, 0, 4, 4, 4), z(0, 2, 3, 3, 3), nd=3)),
    "transposed, empty width": ("input", lambda: transposed(z(1, 2, 4, 0), W)),
    "transposed, stride 0": ("stride", lambda: transposed(X, W, stride=0)),
    "transposed, output_padding as large as stride": ("output_padding", lambda: transposed(X, W, 2, 0, 2)),
    "transposed, negative output_padding": ("output_padding", lambda: transposed(X, W, 2, 0, -1)),
    "transposed, padding eats the output": ("padding", lambda: transposed(X, W, padding=4)),
    "transposed, same": ("padding", lambda: transposed(X, W, padding=[(1, 2, 3), 1])),
    "transposed, channels": ("input", lambda: transposed(z(1, 3, 5, 5), W)),
    "transposed, groups": ("groups", lambda: transposed(X, W, groups=3)),
    "transposed, bias": ("bias", lambda: transposed(X, W, groups=2, b=z(2))),
    "transposed, stride overflows": ("stride|output", lambda: transposed(X, W, stride=HUGE)),
    "pytorch#5112 grad_output": (
        "grad_output",
        lambda: ref.conv_transpose_backward_input(z(1, 2, 9, 9), W, X.shape, 2, 1, 1, 1, 2, 2),
    ),
    # Pooling
    "CVE-2022-21741 pool stride 0": ("stride", lambda: max_pool(X, 2, 0)),
    "CVE-2021-41196 pool size 0": ("kernel_size", lambda: max_pool(X, (2, 0))),
    "CVE-2021-41196 pool size negative": ("kernel_size", lambda: avg_pool(X, (2, -1))),
    "CVE-2022-35941 pool size 1e20": ("kernel_size", lambda: avg_pool(X, 10**20)),
    "pytorch#50967 empty kernel": ("kernel_size", lambda: max_pool(X, [])),
    "pool dilation 0": ("dilation", lambda: max_pool(X, 2, dilation=0)),
    "pool window larger than input": ("kernel_size", lambda: max_pool(X, 6)),
    "pool padding over half": ("padding", lambda: max_pool(X, 3, padding=2)),
    "avg padding over half": ("padding", lambda: avg_pool(X, 2, padding=2)),
    "pool dilation overflows": ("dilation", lambda: max_pool(X, 5, dilation=HUGE)),
    "pool of no channels": ("input", lambda: max_pool(z(1, 0, 4, 4), 2)),
    "pool of nothing": ("input", lambda: avg_pool(z(1, 2, 0, 4), 2, padding=1)),
    "indices mode": ("indices", lambda: max_pool(X, 2, indices="all")),
    "divisor 0": ("divisor_override", lambda: avg_pool(X, 2, divisor=0)),
    "divisor 0 of an empty batch": ("divisor_override", lambda: avg_pool(z(0, 2, 4, 4), 2, divisor=0)),
    "CVE-2022-35968 negative input shape": ("input", lambda: avg_pool_dx(z(1, 2, 2, 2), (-536870912,) * 4)),
    "CVE-2021-29577 grad of another batch": (
        "grad_output",
        lambda: ref.avg_pool_backward(z(10, 6, 3, 7, 7), (3, 1, 1, 1, 1), 1, None, 0, False, True, None, 3),
    ),
    "pytorch#140923 grad of other channels": ("grad_output", lambda: avg_pool_dx(z(1, 9, 2, 2), (1, 5, 4, 4))),
    "CVE-2021-29579 empty grad": (
        "grad_output",
        lambda: max_pool_dx(z(0, 0, 0, 0), index(0, 0, 0, 0), (1, 1, 1, 1), kernel=1),
    ),
    "CVE-2021-29576 saved of another batch": (
        "indices",
        lambda: max_pool_dx(z(1, 2, 2, 2), index(11, 2, 2, 2), (1, 2, 4, 4)),
    ),
    "saved index beyond the plane": (
        "indices contains 16",
        lambda: max_pool_dx(z(1, 2, 2, 2), index(1, 2, 2, 2, value=16), (1, 2, 4, 4)),
    ),
    "saved index negative": (
        "indices contains -2",
        lambda: max_pool_dx(z(1, 2, 2, 2), index(1, 2, 2, 2, value=-2), (1, 2, 4, 4)),
    ),
    "norm_type 0": ("norm_type", lambda: ref.lp_pool_forward(X, 0, 2, None, False, 2)),
    "norm_type inf": ("norm_type", lambda: ref.lp_pool_forward(X, np.inf, 2, None, False, 2)),
    "norm_type nan": ("norm_type", lambda: ref.lp_pool_forward(X, np.nan, 2, None, False, 2)),
    "lp output shape": ("output", lambda: ref.lp_pool_backward(z(1, 2, 2, 2), X, z(2, 2, 2), 2, 2, None, False, 2)),
    "adaptive size negative": ("output_size", lambda: ref.adaptive_avg_pool_forward(X, (2, -1), 2)),
    "adaptive size of three entries": ("output_size", lambda: ref.adaptive_avg_pool_forward(X, (2, 2, 2), 2)),
    "pytorch#142454 adaptive size": ("output", lambda: ref.adaptive_max_pool_forward(X, 2**31, 2, "none")),
    "adaptive of nothing": ("input", lambda: ref.adaptive_avg_pool_forward(z(1, 2, 0, 4), 2, 2)),
    "adaptive max of no channels": ("input", lambda: ref.adaptive_max_pool_forward(z(1, 0, 4, 4), 2, 2, "none")),
    "adaptive grad of other channels": (
        "grad_output",
        lambda: ref.adaptive_avg_pool_backward(z(1, 9, 2, 2), (1, 5, 4, 4), 2),
    ),
    "adaptive grad unbatched": ("input", lambda: ref.adaptive_avg_pool_backward(z(5, 2, 2), (1, 5, 4, 4), 2)),
    "pytorch#152804 unpool index negative": (
        "indices contains -1",
        lambda: ref.max_unpool_forward(X, index(1, 2, 5, 5, value=-1), (9, 9), 2),
    ),
    "pytorch#91555 unpool index too large": (
        "indices contains 81",
        lambda: ref.max_unpool_forward(X, index(1, 2, 5, 5, value=81), (9, 9), 2),
    ),
    "unpool indices of another shape": (
        "indices",
        lambda: ref.max_unpool_forward(X, index(1, 2, 5, 4), (9, 9), 2),
    ),
    "unpool to nothing": ("output_size", lambda: ref.max_unpool_forward(X, index(1, 2, 5, 5), (0, 9), 2)),
    "unpool size overflows": ("output", lambda: ref.max_unpool_forward(X, index(1, 2, 5, 5), (HUGE, HUGE), 2)),
    "unpool backward index": (
        "indices contains 25",
        lambda: ref.max_unpool_backward(X, index(1, 2, 2, 2, value=25), 2),
    ),
    "unpool backward channels": ("indices", lambda: ref.max_unpool_backward(X, index(1, 3, 2, 2), 2)),
    # Normalisation
    "CVE-2021-41223 grad of another shape": (
        "grad_output",
        lambda: ref.batch_norm_backward(z(1, 3, 1, 3), z(1, 2, 1, 1), z(2), z(2), z(3), True),
    ),
    "invstd of another length": (
        "invstd",
        lambda: ref.batch_norm_backward(z(3, 2), z(3, 2), z(2), z(2), z(3), True),
    ),
    "instance mean of the batch's shape": (
        "mean",
        lambda: ref.instance_norm_backward(z(3, 2, 4), z(3, 2, 4), None, z(2), z(2), True),
    ),
    "batch norm of one value": ("input", lambda: batch_norm(z(1, 3))),
    "batch norm of a vector": ("input", lambda: batch_norm(z(3))),
    "instance norm of one value": (
        "input",
        lambda: ref.instance_norm_forward(z(2, 3, 1), None, None, None, None, True, 0.1, 1e-5),
    ),
    "weight of another length": ("weight", lambda: batch_norm(z(4, 3), w=z(2))),
    "running_mean of another length": ("running_mean", lambda: batch_norm(z(4, 3), mean=z(2), var=z(3))),
    "running_var missing": ("running_var", lambda: batch_norm(z(4, 3), mean=z(3))),
    "evaluation without statistics": ("running_mean", lambda: batch_norm(z(4, 3), training=False)),
    "eps 0 in training": ("eps", lambda: batch_norm(z(4, 3), eps=0.0)),
    "eps negative": ("eps", lambda: batch_norm(z(4, 3), mean=z(3), var=z(3), training=False, eps=-1.0)),
    "momentum inf": ("momentum", lambda: batch_norm(z(4, 3), mean=z(3), var=z(3), momentum=np.inf)),
    "overlapping statistics": (
        "overlap",
        lambda: batch_norm(z(4, 3), mean=OVERLAPPING[:3], var=OVERLAPPING[1:]),
    ),
    "broadcast statistics": (
        "overlap|read-only",
        lambda: batch_norm(z(4, 3), mean=np.lib.stride_tricks.as_strided(z(1), (3,), (0,)), var=z(3)),
    ),
    "response norm size 0": ("size", lambda: ref.local_response_norm_forward(X, 0, 1.0, 1.0, 1.0)),
    "response norm of a matrix": ("input", lambda: ref.local_response_norm_forward(z(2, 3), 2, 1.0, 1.0, 1.0)),
    "response norm alpha nan": ("alpha", lambda: ref.local_response_norm_forward(X, 2, np.nan, 1.0, 1.0)),
    # Linear and activations
    "linear features": ("input", lambda: ref.linear_forward(z(2, 3), z(4, 2), None)),
    "linear 0-d": ("input", lambda: ref.linear_forward(z(), z(4, 2), None)),
    "linear weight of rank 3": ("weight", lambda: ref.linear_forward(z(2, 3), z(1, 4, 3), None)),
    "linear bias": ("bias", lambda: ref.linear_forward(z(2, 3), z(4, 3), z(3))),
    "linear grad": ("grad_output", lambda: ref.linear_backward_input(z(2, 3), z(4, 3))),
    "linear grad of another batch": ("grad_output", lambda: ref.linear_backward_weight(z(5, 4), z(2, 3))),
    "linear bias grad 0-d": ("grad_output", lambda: ref.linear_backward_bias(z())),
    "linear output overflows": (
        "output",
        lambda: ref.linear_forward(np.broadcast_to(z(1, 1), (2**31, 1)), np.broadcast_to(z(1, 1), (2**31, 1)), None),
    ),
    "relu grad": ("grad_output", lambda: ref.relu_backward(z(2), z(3))),
    "hardtanh limits": ("min_val", lambda: ref.hardtanh_forward(X, 1.0, -1.0)),
    "hardtanh nan": ("max_val", lambda: ref.hardtanh_forward(X, 1.0, np.nan)),
    "leaky slope inf": ("negative_slope", lambda: ref.leaky_relu_forward(X, np.inf)),
    "prelu weights": ("weight", lambda: ref.prelu_forward(X, z(3))),
    "prelu weight of rank 2": ("weight", lambda: ref.prelu_forward(X, z(1, 2))),
}


@pytest.mark.parametrize("name", VALUE_ERRORS)
def test_value_error_names_the_argument(name):
    argument, call = VALUE_ERRORS[name]
    with pytest.raises(ValueError, match=argument):
        call()
    assert not OVERLAPPING.any()


TYPE_ERRORS = {
    "bool stride": ("stride", lambda: conv(X, W, stride=True)),
    "numpy bool in a sequence": ("stride", lambda: conv(X, W, stride=(1, np.True_))),
    "float stride": ("stride", lambda: conv(X, W, stride=1.0)),
    "nan padding": ("padding", lambda: conv(X, W, padding=float("nan"))),
    "float padding pair": ("padding", lambda: conv(X, W, padding=[(1, 2.0), 0])),
    "None dilation": ("dilation", lambda: conv(X, W, dilation=None)),
    "groups as a string": ("groups", lambda: conv(X, W, groups="2")),
    "set of strides": ("stride", lambda: conv(X, W, stride={1, 2})),
    "bool nd": ("nd", lambda: ref.conv_backward_bias(z(2), True)),
    "shape as an integer": ("input", lambda: conv_dx(z(1, 2, 3, 3), W, 4)),
    "shape with a float": ("input", lambda: conv_dx(z(1, 2, 3, 3), W, (1, 2, 5.0, 5))),
    "transposed same": ("padding", lambda: transposed(X, W, padding="same")),
    "inf kernel": ("kernel_size", lambda: max_pool(X, float("inf"))),
    "ceil_mode 1": ("ceil_mode", lambda: max_pool(X, 2, ceil_mode=1)),
    "count_include_pad None": ("count_include_pad", lambda: avg_pool(X, 2, count_include_pad=None)),
    "float divisor": ("divisor_override", lambda: avg_pool(X, 2, divisor=2.0)),
    "float pool padding": ("padding", lambda: avg_pool(X, 2, padding=[(0, 0.5), 0])),
    "int32 indices": ("indices", lambda: max_pool_dx(z(1, 2, 2, 2), z(1, 2, 2, 2, dtype=np.int32), (1, 2, 4, 4))),
    "float indices": ("indices", lambda: ref.max_unpool_forward(X, X, (9, 9), 2)),
    "float output_size": ("output_size", lambda: ref.adaptive_avg_pool_forward(X, 2.0, 2)),
    "bool norm_type": ("norm_type", lambda: ref.lp_pool_forward(X, True, 2, None, False, 2)),
    "training 1": ("training", lambda: batch_norm(z(4, 3), training=1)),
    "momentum missing": ("momentum", lambda: batch_norm(z(4, 3), mean=z(3), var=z(3), momentum=None)),
    "complex eps": ("eps", lambda: batch_norm(z(4, 3), eps=1e-5j)),
    "weight beside float64": ("weight", lambda: batch_norm(z(4, 3), w=z(3, dtype=np.float32))),
    "float64 weight beside float32": ("weight", lambda: batch_norm(z(4, 3, dtype=np.float32), w=z(3))),
    "mean of the wrong precision": (
        "mean",
        lambda: ref.batch_norm_backward(z(3, 2), z(3, 2), None, z(2, dtype=np.float32), z(2), True),
    ),
    "slope as a string": ("negative_slope", lambda: ref.leaky_relu_forward(X, "0.1")),
    "inplace 1": ("inplace", lambda: ref.relu_forward(X, 1)),
    "dtypes differ": ("weight", lambda: conv(X, W.astype(np.float32))),
    "bias dtype differs": ("bias", lambda: conv(X, W, b=z(2, dtype=np.float16))),
    "weight missing": ("weight", lambda: conv(X, None)),
}


@pytest.mark.parametrize("name", TYPE_ERRORS)
def test_type_error_names_the_argument(name):
    argument, call = TYPE_ERRORS[name]
    with pytest.raises(TypeError, match=argument):
        call()


WRONG_ARRAYS = [
    np.zeros((1, 2, 4, 4), np.int64),
    np.zeros((1, 2, 4, 4), bool),
    np.zeros((1, 2, 4, 4), object),
    np.zeros((1, 2, 4, 4), complex),
    np.zeros((1, 2, 4, 4), ">f4"),
    np.zeros((1, 2, 4, 4), np.longdouble),
    np.zeros((1, 2, 4, 4), ml_dtypes.float8_e4m3fn),
    np.zeros((1, 2, 4, 4), "M8[s]"),
    [[[[0.0]]]],
    0.0,
    None,
]
UNARY = {
    "conv": lambda x: conv(x, z(2, 2, 3, 3)),
    "conv_backward_input": lambda x: conv_dx(x, W, (1, 2, 6, 6)),
    "conv_backward_weight": lambda x: conv_dw(x, X, W.shape),
    "conv_backward_bias": lambda x: ref.conv_backward_bias(x, 2),
    "conv_transpose": lambda x: transposed(x, W),
    "max_pool": lambda x: max_pool(x, 2),
    "max_pool_backward": lambda x: max_pool_dx(x, index(1, 2, 4, 4), (1, 2, 8, 8)),
    "max_unpool": lambda x: ref.max_unpool_forward(x, index(1, 2, 4, 4), (8, 8), 2),
    "avg_pool": lambda x: avg_pool(x, 2),
    "lp_pool": lambda x: ref.lp_pool_forward(x, 2, 2, None, False, 2),
    "adaptive_avg_pool": lambda x: ref.adaptive_avg_pool_forward(x, 2, 2),
    "adaptive_max_pool": lambda x: ref.adaptive_max_pool_forward(x, 2, 2, "flat"),
    "batch_norm": batch_norm,
    "instance_norm": lambda x: ref.instance_norm_forward(x, None, None, None, None, True, 0.1, 1e-5),
    "local_response_norm": lambda x: ref.local_response_norm_forward(x, 2, 1.0, 1.0, 1.0),
    "linear": lambda x: ref.linear_forward(x, z(3, 4), None),
    "relu": ref.relu_forward,
    "hardtanh": lambda x: ref.hardtanh_forward(x, 0.0, 6.0),
    "leaky_relu": lambda x: ref.leaky_relu_forward(x, 0.1),
    "prelu": lambda x: ref.prelu_forward(x, z(1)),
}


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("x", WRONG_ARRAYS, ids=lambda x: str(getattr(x, "dtype", type(x).__name__)))
def test_only_native_floating_arrays_are_taken(op, x):
    with pytest.raises(TypeError, match=r"input|grad_output"):
        UNARY[op](x)


def test_read_only_statistics_are_refused_before_the_other_is_updated():
    x = np.arange(12.0).reshape(4, 3)
    for name in ("running_mean", "running_var"):
        statistics = {"running_mean": z(3), "running_var": z(3)}
        statistics[name].flags.writeable = False
        with pytest.raises(ValueError, match=f"{name} is read-only"):
            batch_norm(x, mean=statistics["running_mean"], var=statistics["running_var"])
        assert not any(s.any() for s in statistics.values())


def test_large_sizes_that_do_not_overflow_are_a_memory_error():
    with pytest.raises(MemoryError):
        ref.adaptive_avg_pool_forward(z(1, 1, 4), 1_250_000_000_000, 1)
    with pytest.raises(MemoryError):
        conv(z(1, 1, 4), z(1, 1, 3), padding=2**45, nd=1)


def test_huge_windows_cost_nothing():
    x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    kernel, padding = 2**40, 2**39
    np.testing.assert_array_equal(max_pool(x, kernel, 2**50, padding, nd=1), [[[4]]])
    np.testing.assert_array_equal(avg_pool(x, kernel, 2**50, padding, nd=1), [[[10 / kernel]]])
    np.testing.assert_array_equal(conv(x, np.ones((1, 1, 2)), 2**50, 2**40, 2**41, nd=1), [[[0]]])


@pytest.mark.parametrize("op", [op for op in UNARY if "backward" not in op and op not in ("linear", "max_unpool")])
def test_empty_batch(op):
    y = UNARY[op](z(0, 2, 4, 4))
    y = y[0] if isinstance(y, tuple) else y
    assert y.shape[0] == 0 and y.ndim == 4


def test_empty_batch_of_the_others():
    assert ref.max_unpool_forward(z(0, 2, 4, 4), index(0, 2, 4, 4), (8, 8), 2).shape == (0, 2, 8, 8)
    assert ref.linear_forward(z(0, 4), z(3, 4), z(3)).shape == (0, 3)
    assert conv_dx(z(0, 2, 3, 3), W, (0, 2, 5, 5)).shape == (0, 2, 5, 5)
    assert not conv_dw(z(0, 2, 3, 3), z(0, 2, 5, 5), W.shape).any()
    assert not ref.conv_backward_bias(z(0, 2, 3, 3), 2).any()
    assert max_pool_dx(z(0, 2, 2, 2), index(0, 2, 2, 2), (0, 2, 4, 4)).shape == (0, 2, 4, 4)
    assert avg_pool_dx(z(0, 2, 2, 2), (0, 2, 4, 4)).shape == (0, 2, 4, 4)
    assert ref.adaptive_avg_pool_backward(z(0, 2, 2, 2), (0, 2, 4, 4), 2).shape == (0, 2, 4, 4)
    assert ref.prelu_backward(z(0, 2, 2), z(0, 2, 2), z(2))[1].shape == (2,)
    # No image, but pixels without number: nothing to compute and nothing to allocate.
    assert avg_pool(z(0, 1, 2**40), 2, nd=1).shape == (0, 1, 2**39)
    assert max_pool(z(0, 1, 2**40), 2, nd=1).shape == (0, 1, 2**39)
    assert ref.adaptive_avg_pool_forward(z(0, 1, 4), 2**40, 1).shape == (0, 1, 2**40)


def test_nan_and_infinity_in_the_data_go_through():
    x = np.ones((1, 1, 3, 3))
    x[0, 0, 0, 0], x[0, 0, 2, 2] = np.nan, np.inf
    y = conv(x, np.ones((1, 1, 2, 2)))[0, 0]
    assert np.isnan(y[0, 0]) and np.isposinf(y[1, 1]) and y[0, 1] == y[1, 0] == 4
    y = avg_pool(x, 2, 1)[0, 0]
    assert np.isnan(y[0, 0]) and np.isposinf(y[1, 1]) and y[0, 1] == y[1, 0] == 1
    y = ref.adaptive_avg_pool_forward(x, 3, 2)[0, 0]
    assert np.isnan(y[0, 0]) and np.isposinf(y[2, 2]) and y[1, 1] == 1


def test_a_call_leaves_its_arguments_alone():
    x, w = np.random.default_rng(0).standard_normal((2, 1, 2, 5, 5)), z(2, 2, 3, 3)
    x.flags.writeable = w.flags.writeable = False
    before = x.copy()
    y = conv(x[0], w, b=x[0, 0, :, 0, 0])
    assert not np.shares_memory(y, x) and y.flags.writeable
    for op in UNARY:
        if op not in ("conv_backward_weight", "max_unpool", "max_pool_backward", "conv_backward_input"):
            y = UNARY[op](x[0][..., :4, :4])
            y = y[0] if isinstance(y, tuple) else y
            assert not np.shares_memory(y, x) and y.flags.writeable, op
    np.testing.assert_array_equal(x, before)
