"""Normalisation and activations of the reference backend against torch, forward and backward, in float64."""

import numpy as np
import pytest

from checks import DTYPES, dtype_name, from_torch, integers, layouts, to_torch
from fastconv import reference as ref

torch = pytest.importorskip("torch")
F = torch.nn.functional

NORM_SHAPES = [(5, 3), (4, 3, 7), (2, 3, 4, 5), (2, 3, 2, 3, 4)]


def close(actual, expected, rtol=1e-9):
    expected = from_torch(expected)
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-10)


def leaf(x):
    return to_torch(x).requires_grad_()


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize(
    "kind, shape",
    [*(("batch", shape) for shape in NORM_SHAPES), *(("instance", shape) for shape in NORM_SHAPES[1:])],
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_norms(kind, shape, training, affine):
    x, dy, w, b, mean = arrays(0, shape, shape, 3, 3, 3)
    var = np.abs(mean) + 0.5
    running, expected = [mean.copy(), var.copy()], [to_torch(mean), to_torch(var)]
    w, b = (w, b) if affine else (None, None)
    tx, tw, tb = leaf(x), leaf(w) if affine else None, leaf(b) if affine else None
    ty = getattr(F, f"{kind}_norm")(tx, *expected, tw, tb, training, 0.3, 1e-3)
    y, saved_mean, saved_invstd = getattr(ref, f"{kind}_norm_forward")(x, w, b, *running, training, 0.3, 1e-3)
    close(y, ty)
    assert saved_mean.shape == saved_invstd.shape == (shape[:2] if kind == "instance" else shape[1:2])
    for actual, statistic in zip(running, expected):
        close(actual, statistic)
    ty.backward(to_torch(dy))
    dx, dw, db = getattr(ref, f"{kind}_norm_backward")(dy, x, w, saved_mean, saved_invstd, training)
    close(dx, tx.grad)
    if affine:
        close(dw, tw.grad)
        close(db, tb.grad)


def test_batch_norm_without_running_statistics_and_momentum():
    (x,) = arrays(0, (2, 3, 4))
    y, mean, invstd = ref.batch_norm_forward(x, None, None, None, None, True, None, 1e-5)
    close(y, F.batch_norm(to_torch(x), None, None, training=True))
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2)))
    np.testing.assert_allclose(invstd, (x.var(axis=(0, 2)) + 1e-5) ** -0.5)


@pytest.mark.parametrize("dtype", DTYPES[2:], ids=dtype_name)
def test_batch_norm_of_half_precision_takes_float32_parameters(dtype):
    rng = np.random.default_rng(0)
    x = integers(rng, (4, 3, 5), dtype)
    w, b, mean = (integers(rng, (3,), np.float32) for _ in range(3))
    var = np.full(3, 2, np.float32)
    expected = [to_torch(mean), to_torch(var)]
    ty = F.batch_norm(to_torch(x), *expected, to_torch(w), to_torch(b), True)
    y, saved_mean, invstd = ref.batch_norm_forward(x, w, b, mean, var, True, 0.1, 1e-5)
    assert saved_mean.dtype == invstd.dtype == np.float32
    np.testing.assert_allclose(y.astype(float), from_torch(ty).astype(float), rtol=0.01, atol=0.01)
    close(mean, expected[0], rtol=1e-6)
    close(var, expected[1], rtol=1e-6)
    dx, dw, db = ref.batch_norm_backward(y, x, w, saved_mean, invstd, True)
    assert (dx.dtype, dw.dtype, db.dtype) == (dtype, np.float32, np.float32)


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 2, 3), (2, 3, 0)])
def test_norms_of_nothing_leave_the_statistics_alone(shape):
    x = np.zeros(shape)
    c = shape[1]
    mean, var = np.full(c, 5.0), np.full(c, 7.0)
    for forward in (ref.batch_norm_forward, ref.instance_norm_forward):
        y, saved_mean, invstd = forward(x, None, None, mean, var, True, 0.1, 1e-5)
        assert y.shape == shape and np.isfinite(saved_mean).all() and np.isfinite(invstd).all()
        assert (mean == 5).all() and (var == 7).all()
    assert ref.local_response_norm_forward(x, 3, 1e-4, 0.75, 1.0).shape == shape


@pytest.mark.parametrize("shape", [(4, 7, 3), (2, 7, 3, 4), (2, 7, 2, 3, 2), (1, 1, 3, 3)])
@pytest.mark.parametrize("size, alpha, beta, k", [(1, 0.5, 0.75, 1), (2, 1.5, 0.5, 2), (5, 1, 0.75, 1), (20, 2, 2, 1)])
def test_local_response_norm(shape, size, alpha, beta, k):
    x, dy = arrays(0, shape, shape)
    tx = leaf(x)
    ty = F.local_response_norm(tx, size, alpha, beta, k)
    close(ref.local_response_norm_forward(x, size, alpha, beta, k), ty)
    ty.backward(to_torch(dy))
    close(ref.local_response_norm_backward(dy, x, size, alpha, beta, k), tx.grad)


SPECIAL = np.array([[-3.0, -0.0, 0.0, 1.0, 6.0, 7.5, -1.0, np.nan, np.inf, -np.inf], np.linspace(-8, 8, 10)])
ACTIVATIONS = {
    "relu": (F.relu, ref.relu_forward, None),
    "relu6": (F.relu6, lambda x: ref.hardtanh_forward(x, 0.0, 6), lambda dy, x: ref.hardtanh_backward(dy, x, 0.0, 6)),
    "hardtanh": (
        lambda x: F.hardtanh(x, -3, 1),
        lambda x: ref.hardtanh_forward(x, -3, 1),
        lambda dy, x: ref.hardtanh_backward(dy, x, -3, 1),
    ),
    "leaky_relu": (
        lambda x: F.leaky_relu(x, 0.1),
        lambda x: ref.leaky_relu_forward(x, 0.1),
        lambda dy, x: ref.leaky_relu_backward(dy, x, 0.1),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    oracle, forward, backward = ACTIVATIONS[name]
    tx = leaf(SPECIAL)
    ty = oracle(tx)
    y = forward(SPECIAL)
    close(y, ty)
    (dy,) = arrays(0, SPECIAL.shape)
    ty.backward(to_torch(dy))
    close(ref.relu_backward(dy, y) if backward is None else backward(dy, SPECIAL), tx.grad)
    for dtype in DTYPES:
        x = SPECIAL.astype(dtype)
        np.testing.assert_array_equal(
            forward(x).astype(np.float64), from_torch(oracle(to_torch(x))).astype(np.float64), strict=True
        )


def test_relu_in_place():
    x = np.array([[-1.0, 2.0], [np.nan, -4.0]])
    view = x.T
    assert ref.relu_forward(view, True) is view
    np.testing.assert_array_equal(x, [[0, 2], [np.nan, 0]])
    x.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only.*inplace"):
        ref.relu_forward(x, True)


@pytest.mark.parametrize("shape, w_shape", [((4,), (1,)), ((5, 3), (3,)), ((2, 3, 4), (1,)), ((2, 3, 4, 5), (3,))])
def test_prelu(shape, w_shape):
    x, dy, w = arrays(0, shape, shape, w_shape)
    tx, tw = leaf(x), leaf(w)
    ty = F.prelu(tx, tw)
    close(ref.prelu_forward(x, w), ty)
    ty.backward(to_torch(dy))
    dx, dw = ref.prelu_backward(dy, x, w)
    close(dx, tx.grad)
    close(dw, tw.grad)


def test_layouts_have_no_influence_and_channels_last_is_kept():
    x, w = arrays(0, (2, 3, 4, 5), 3)
    calls = {
        "batch_norm": lambda x: ref.batch_norm_forward(x, w, None, None, None, True, None, 1e-5)[0],
        "instance_norm": lambda x: ref.instance_norm_forward(x, w, None, None, None, True, None, 1e-5)[0],
        "local_response_norm": lambda x: ref.local_response_norm_forward(x, 3, 1.0, 0.75, 1.0),
        "relu": ref.relu_forward,
        "prelu": lambda x: ref.prelu_forward(x, w),
    }
    for op, call in calls.items():
        expected = call(x)
        for name, view in layouts(x):
            y = call(view)
            np.testing.assert_allclose(y, expected, rtol=1e-14, err_msg=f"{op} {name}")
            if name == "channels_last":
                assert y.transpose(0, 2, 3, 1).flags.c_contiguous, op
