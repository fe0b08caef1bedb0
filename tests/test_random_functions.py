"""Functions that draw numbers, and other names: windows at random steps, samples of classes, dropped weights."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import from_torch, to_torch

X2, X3 = (np.random.default_rng(0).standard_normal(s) for s in ((2, 3, 13, 10), (2, 3, 7, 9, 8)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kernel", "sizes"), [(2, (5, 7)), ((3, 1), (4, 4)), (3, 1), (4, (10, 2))])
def test_random_windows_lie_where_torchs_do(torch, kernel, sizes, dtype):
    x, samples = X2.astype(dtype), np.random.default_rng(1).random((2, 3, 2)).astype(dtype)
    y, indices = F.fractional_max_pool2d(x, kernel, sizes, None, True, samples)
    theirs = to_torch(x).requires_grad_()
    given = {"return_indices": True, "_random_samples": to_torch(samples)}
    expected, places = torch.nn.functional.fractional_max_pool2d(theirs, kernel, sizes, **given)
    np.testing.assert_array_equal(y, from_torch(expected))
    np.testing.assert_array_equal(indices, from_torch(places))
    _, pullback = F.fractional_max_pool2d.vjp(x, kernel, sizes, None, False, samples)
    expected.backward(torch.ones_like(expected))
    np.testing.assert_array_equal(pullback(np.ones_like(y))[0], from_torch(theirs.grad))
    layer = nn.FractionalMaxPool2d(kernel, sizes, return_indices=True, _random_samples=samples)
    np.testing.assert_array_equal(layer(x)[1], indices)
    planes = x.reshape(2, 3, -1)
    np.testing.assert_array_equal(np.take_along_axis(planes, indices.reshape(2, 3, -1), 2).reshape(y.shape), y)


def test_random_windows_of_volumes(torch):
    samples = np.random.default_rng(1).random((2, 3, 3))
    y, indices = F.fractional_max_pool3d_with_indices(X3, (2, 3, 1), (4, 3, 5), None, False, samples)
    given = {"_random_samples": to_torch(samples)}
    call = torch.nn.functional.fractional_max_pool3d_with_indices
    expected, places = call(to_torch(X3), (2, 3, 1), (4, 3, 5), **given)
    np.testing.assert_array_equal(y, from_torch(expected))
    np.testing.assert_array_equal(indices, from_torch(places))
    assert nn.FractionalMaxPool3d(2, output_ratio=(0.5, 0.4, 0.9))(X3).shape == (2, 3, 3, 3, 7)


def test_seeds_decide_the_windows():
    fc.manual_seed(3)
    first = F.fractional_max_pool2d(X2, 2, output_ratio=0.6)
    fc.manual_seed(3)
    np.testing.assert_array_equal(F.fractional_max_pool2d(X2, 2, output_ratio=0.6), first)
    assert not np.array_equal(F.fractional_max_pool2d(X2, 2, output_ratio=0.6), first)
    one = F.fractional_max_pool2d(X2, 2, output_ratio=0.6, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(F.fractional_max_pool2d(X2, 2, output_ratio=0.6, rng=np.random.default_rng(5)), one)


def test_nan_wins_in_random_windows():
    x = X2.copy()
    x[0, 0, 4, 5] = np.nan
    y = F.fractional_max_pool2d(x, 2, (12, 9))
    assert np.isnan(y[0, 0]).sum() == 4 and np.isnan(y).sum() == 4


def test_bad_random_windows():
    for call, message in (
        (lambda: F.fractional_max_pool2d(X2, 2), "exactly one of output_size and output_ratio"),
        (lambda: F.fractional_max_pool2d(X2, 2, 3, 0.5), "exactly one of output_size and output_ratio"),
        (lambda: F.fractional_max_pool2d(X2, 3, 9), "do not fit"),
        (lambda: F.fractional_max_pool2d(X2, 2, output_ratio=1.0), "output_ratio must be a number between"),
        (lambda: F.fractional_max_pool2d(X2, 2, output_ratio=0.01), "at least one output"),
        (lambda: F.fractional_max_pool2d(X2[0, 0], 2, 2), "input must have 3 or 4 dimensions"),
        (lambda: F.fractional_max_pool2d(X2, 2, 2, None, False, np.zeros((2, 2))), "_random_samples must have shape"),
        (lambda: nn.FractionalMaxPool2d(2), "exactly one"),
        (lambda: nn.FractionalMaxPool3d(2, output_ratio=(0.5, 0.5)), "output_ratio"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="output_size"):
        F.fractional_max_pool2d(X2, 2, 2.5)


def test_samples_of_classes():
    """Shares of the classes; one-hot samples with the gradient of the soft ones."""
    logits = np.log(np.array([0.5, 0.2, 0.3]))
    many = np.broadcast_to(logits, (20000, 3))
    hard = F.gumbel_softmax(many, hard=True, rng=np.random.default_rng(0))
    assert set(np.unique(hard)) == {0.0, 1.0} and (hard.sum(1) == 1).all()
    np.testing.assert_allclose(hard.mean(0), [0.5, 0.2, 0.3], atol=0.015)
    soft, back = F.gumbel_softmax.vjp(many[:50], 0.7, rng=np.random.default_rng(1))
    same, straight = F.gumbel_softmax.vjp(many[:50], 0.7, True, rng=np.random.default_rng(1))
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-12)
    np.testing.assert_array_equal(soft.argmax(1), same.argmax(1))
    dy = np.random.default_rng(2).standard_normal(soft.shape)
    np.testing.assert_array_equal(back(dy)[0], straight(dy)[0])
    expected = soft * (dy - (dy * soft).sum(1, keepdims=True)) / 0.7
    np.testing.assert_allclose(back(dy)[0], expected, rtol=1e-12, atol=1e-15)
    columns = F.gumbel_softmax(np.zeros((3, 4), np.float32), dim=0, hard=True)
    assert columns.dtype == np.float32 and (columns.sum(0) == 1).all()
    with pytest.raises(ValueError, match="tau must be positive"):
        F.gumbel_softmax(logits, 0)
    with pytest.raises(ValueError, match="dim"):
        F.gumbel_softmax(logits, dim=1)


def test_whole_channels_of_alpha_dropout():
    x = np.random.default_rng(0).standard_normal((64, 32, 5, 5))
    y, pullback = F.feature_alpha_dropout.vjp(x, 0.4, True, rng=np.random.default_rng(1))
    dropped = (y == y[:, :, :1, :1]).all((2, 3))
    assert 0.35 < dropped.mean() < 0.45 and abs(y.mean()) < 0.05 and abs(y.std() - 1) < 0.05
    (dx,) = pullback(np.ones_like(y))
    np.testing.assert_array_equal(dx[dropped], 0)
    assert len(np.unique(dx[~dropped])) == 1
    assert F.feature_alpha_dropout(x) is x
    layer = nn.FeatureAlphaDropout(0.4)
    assert len(np.unique(layer(np.zeros((4, 50, 3, 3))))) == 2 and layer.eval()(x) is x
    with pytest.raises(ValueError, match=r"\(N, C, \*\)"):
        F.feature_alpha_dropout(x[0, 0, 0], training=True)


def test_dropped_weights_of_attention():
    q, k, v = (np.random.default_rng(i).standard_normal((2, 40, 8)) for i in range(3))
    call = F.scaled_dot_product_attention
    y, pullback = call.vjp(q, k, v, None, 0.3, rng=np.random.default_rng(3))
    whole = call(q, k, v)
    assert not np.allclose(y, whole)
    many = np.mean([call(q, k, v, None, 0.3, rng=np.random.default_rng(i)) for i in range(300)], axis=0)
    np.testing.assert_allclose(many, whole, atol=0.15)
    dy = np.random.default_rng(4).standard_normal(y.shape)
    step = 1e-6
    direction = np.random.default_rng(5).standard_normal(q.shape)
    ahead, behind = (call(q + s * direction, k, v, None, 0.3, rng=np.random.default_rng(3)) for s in (step, -step))
    slope = ((ahead - behind) * dy).sum() / (2 * step)
    np.testing.assert_allclose((pullback(dy)[0] * direction).sum(), slope, rtol=1e-6)
    np.testing.assert_array_equal(call(q, k, v, None, 1.0), 0)


def test_masks_of_attention(torch):
    q, k, v = (np.random.default_rng(i).standard_normal((2, 5, 4)) for i in range(3))
    mask = np.random.default_rng(3).random((5, 5)) < 0.5
    mask[2] = False  # this query sees nothing
    y, pullback = F.scaled_dot_product_attention.vjp(q, k, v, mask)
    tensors = [to_torch(a).requires_grad_() for a in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*tensors, to_torch(mask))
    np.testing.assert_allclose(y, from_torch(expected), rtol=1e-12)
    np.testing.assert_array_equal(y[:, 2], 0)
    dy = np.random.default_rng(4).standard_normal(y.shape)
    expected.backward(to_torch(dy))
    gradients = pullback(dy)
    for gradient, tensor in zip(gradients, tensors):
        np.testing.assert_allclose(gradient, from_torch(tensor.grad), rtol=1e-10, atol=1e-14)
    for call, message in (
        (lambda f: f(q, k[..., :3], v), "key must have the query's 4 features"),
        (lambda f: f(q, k, v[:, :4]), "value must have one row for each of the 5 keys"),
        (lambda f: f(q[0, 0], k, v), "at least 2 dimensions"),
        (lambda f: f(q, k, v, mask, is_causal=True), "attn_mask must be left out"),
        (lambda f: f(q, k, v, None, 1.5), "dropout_p must be from 0 to 1"),
        (lambda f: f(q[:, None].repeat(3, 1), k[:, None].repeat(2, 1), v[:, None], enable_gqa=True), "divides"),
    ):
        with pytest.raises(ValueError, match=message):
            call(F.scaled_dot_product_attention)
    with pytest.raises(TypeError, match="key must have the dtype of query"):
        F.scaled_dot_product_attention(q, k.astype(np.float32), v)


def test_names_of_what_overwrites_its_input():
    x = np.random.default_rng(0).standard_normal((3, 4))
    for name, arguments in (
        *(("relu", ()), ("elu", (0.5,)), ("celu", (2.0,)), ("selu", ()), ("leaky_relu", (0.1,))),
        *(("hardtanh", (-0.5, 0.7)), ("rrelu", (0.1, 0.3, False)), ("threshold", (0.1, 20.0))),
    ):
        expected = getattr(F, name)(x, *arguments)
        memory = x.copy()
        function = getattr(F, f"{name}_")
        assert function(memory, *arguments) is memory and function.__name__ == f"{name}_"
        np.testing.assert_array_equal(memory, expected)
        recorded = fc.tensor(x, requires_grad=True)
        np.testing.assert_array_equal(function(recorded, *arguments).data, expected)
        np.testing.assert_array_equal(recorded.data, x)
    frozen = x.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        F.relu_(frozen)


def test_old_names_of_resizing():
    np.testing.assert_array_equal(F.upsample(X2, scale_factor=2), F.interpolate(X2, scale_factor=2))
    np.testing.assert_array_equal(F.upsample_nearest(X2, (5, 6)), F.interpolate(X2, (5, 6)))
    expected = F.interpolate(X2, (20, 21), mode="bilinear", align_corners=True)
    np.testing.assert_array_equal(F.upsample_bilinear(X2, (20, 21)), expected)
    np.testing.assert_array_equal(F.upsample(X2, (20, 21), mode="bilinear", align_corners=True), expected)


def test_root_mean_square_layer(torch):
    ours, theirs = nn.RMSNorm((3, 4), eps=1e-3), torch.nn.RMSNorm((3, 4), eps=1e-3)
    assert repr(ours) == repr(theirs)
    weight = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    ours.load_state_dict({"weight": weight})
    theirs.load_state_dict({"weight": to_torch(weight)})
    x = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(ours(x), from_torch(theirs(to_torch(x)).detach()), rtol=1e-5)
    for dtype in (np.float32, np.float64):  # the default of eps
        small = np.full((1, 2), 1e-4, dtype)
        expected = torch.nn.functional.rms_norm(to_torch(small), (2,))
        np.testing.assert_allclose(F.rms_norm(small, 2), from_torch(expected), rtol=1e-5)
    assert not list(nn.RMSNorm(3, elementwise_affine=False).parameters())
    for call, message in (
        (lambda: F.rms_norm(x, (3,)), "must end in the dimensions"),
        (lambda: F.rms_norm(x, (4,), weight), "weight must have shape"),
        (lambda: nn.RMSNorm(()), "at least one dimension"),
        (lambda: nn.RMSNorm(3, eps=-1.0), "eps must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="weight must have the dtype"):
        F.rms_norm(x, (3, 4), weight.astype(np.float64))
