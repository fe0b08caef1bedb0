"""interpolate, the shuffles, the norms within samples, embedding: what the cases against torch do not reach."""

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import from_torch, to_torch

X = np.random.default_rng(0).normal(size=(2, 3, 7, 5))


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("given", [{"size": 1}, {"size": (13, 4)}, {"scale_factor": 0.5}, {"scale_factor": (1.7, 3.0)}])
def test_interpolation_is_torchs(torch, mode, given):
    choices = [{}]
    if mode in ("bilinear", "bicubic"):
        choices += [{"align_corners": True}, {"antialias": True}]
    for options in choices:
        expected = torch.nn.functional.interpolate(to_torch(X), mode=mode, **given, **options)
        np.testing.assert_allclose(F.interpolate(X, mode=mode, **given, **options), from_torch(expected), atol=1e-12)


def test_recomputed_scale_is_torchs(torch):
    for recompute in (True, False, None):
        options = {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": recompute}
        expected = torch.nn.functional.interpolate(to_torch(X), **options)
        np.testing.assert_allclose(F.interpolate(X, **options), from_torch(expected), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_rounds_positions_as_torch(torch, dtype):
    """At every size, where n / m is no power of two: torch computes positions in the input's type."""
    for n in (3, 7, 10, 49, 100):
        x = np.arange(n, dtype=dtype)[None, None]
        for m in range(1, 120):
            expected = torch.nn.functional.interpolate(to_torch(x), size=m)
            np.testing.assert_array_equal(F.interpolate(x, size=m), from_torch(expected))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, size=3, mode="area"),
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: F.channel_shuffle(x, 4),
        lambda x: F.group_norm(x, 2),
        lambda x: F.layer_norm(x, (8, 6, 4), np.ones((8, 6, 4), np.float32)),
        lambda x: F.normalize(x),
        F.silu,
    ],
)
def test_channels_last_in_channels_last_out(function):
    x = np.random.default_rng(1).normal(size=(2, 8, 6, 4)).astype(np.float32)
    expected = function(x)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    y = function(last)
    np.testing.assert_array_equal(y, expected)
    assert np.moveaxis(y, 1, -1).flags.c_contiguous
    np.testing.assert_array_equal(function(np.concatenate([x, x])[:2]), expected)  # the batch decides no bit


def test_channel_shuffle_is_torchs_and_undone_by_its_pullback(torch):
    x = np.random.default_rng(2).normal(size=(2, 6, 3))
    y, pullback = F.channel_shuffle.vjp(x, 3)
    np.testing.assert_array_equal(y, from_torch(torch.nn.ChannelShuffle(3)(to_torch(x[..., None])))[..., 0])
    np.testing.assert_array_equal(pullback(y)[0], x)
    np.testing.assert_array_equal(nn.ChannelShuffle(3)(x), y)


def test_shuffles_undo_each_other():
    x = np.random.default_rng(3).normal(size=(2, 8, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), x)


def test_norms_without_spread_and_of_16_bit_inputs():
    np.testing.assert_array_equal(F.layer_norm(np.full((2, 1), 5.0), (1,), bias=np.ones(1)), np.ones((2, 1)))
    np.testing.assert_array_equal(F.group_norm(np.full((3, 2), 5.0), 2), np.zeros((3, 2)))
    assert F.group_norm(np.zeros((0, 4, 3)), 2).shape == (0, 4, 3)
    x = np.random.default_rng(4).normal(size=(3, 8)).astype(np.float16)
    y = F.layer_norm(x, 8, np.full(8, 2, np.float32))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, 2 * F.layer_norm(x.astype(np.float64), 8), atol=2e-3)


def test_gradients_of_embedding_options(torch):
    numbers, weight = np.array([4, 0, 4, 3, 4]), np.random.default_rng(5).normal(size=(5, 2))
    options = {"padding_idx": -2, "scale_grad_by_freq": True}
    tensor = to_torch(weight).requires_grad_()
    torch.nn.functional.embedding(to_torch(numbers), tensor, **options).sum().backward()
    (dw,) = F.embedding.vjp(numbers, weight, **options)[1](np.ones((5, 2)))
    np.testing.assert_allclose(dw, from_torch(tensor.grad), rtol=1e-12)


def test_one_hot(torch):
    numbers = np.array([[2, 0], [1, 2]])
    expected = torch.nn.functional.one_hot(torch.tensor(numbers)).numpy()
    y = F.one_hot(numbers)
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == np.int64 and F.one_hot(numbers, 5).shape == (2, 2, 5)
    assert isinstance(F.one_hot(fc.tensor(numbers)), fc.Tensor)
    assert isinstance(F.one_hot(torch.tensor(numbers)), torch.Tensor)


BAD_CALLS = [
    (ValueError, "exactly one of size and scale_factor must be given", lambda: F.interpolate(X)),
    (ValueError, "exactly one of size and scale_factor", lambda: F.interpolate(X, 3, 2.0)),
    (ValueError, "mode must be one of nearest, .*; got 'cubic'", lambda: F.interpolate(X, 3, mode="cubic")),
    (ValueError, "input must have 3 dimensions", lambda: F.interpolate(X, 3, mode="linear")),
    (ValueError, "align_corners must be left out in mode nearest", lambda: F.interpolate(X, 3, align_corners=False)),
    (ValueError, "antialias must be left out in mode area", lambda: F.interpolate(X, 3, mode="area", antialias=True)),
    (ValueError, "size must be at least 1", lambda: F.interpolate(X, 0)),
    (ValueError, "size must be an int or 2 ints", lambda: F.interpolate(X, (3, 3, 3))),
    (ValueError, "scale_factor must be a number or 2 of them", lambda: F.interpolate(X, scale_factor=(2.0,))),
    (ValueError, "scale_factor must give at least one output", lambda: F.interpolate(X, scale_factor=0.1)),
    (ValueError, "scale_factor must give at least one output", lambda: F.interpolate(X, scale_factor=float("nan"))),
    (ValueError, "at least one element", lambda: F.interpolate(X[:, :, :0], 3)),
    (TypeError, "scale_factor must be a number", lambda: F.interpolate(X, scale_factor="2")),
    (TypeError, "size must be an int", lambda: F.interpolate(X, 2.0)),
    (TypeError, "input must be float32", lambda: F.interpolate(X.astype(int), 3)),
    (ValueError, r"multiple of upscale_factor \*\* 2 = 4 channels", lambda: F.pixel_shuffle(X, 2)),
    (ValueError, "upscale_factor must be at least 1", lambda: F.pixel_shuffle(X, 0)),
    (ValueError, "downscale_factor 2 divides", lambda: F.pixel_unshuffle(X, 2)),
    (ValueError, "at least three dimensions", lambda: F.pixel_unshuffle(X[0, 0], 1)),
    (ValueError, "multiple of groups=2 channels", lambda: F.channel_shuffle(X, 2)),
    (ValueError, "multiple of num_groups=2 channels", lambda: F.group_norm(X, 2)),
    (ValueError, "more than one value a group", lambda: F.group_norm(np.ones((1, 4)), 4)),
    (ValueError, r"weight must have shape \(3,\), got \(2,\)", lambda: F.group_norm(X, 1, np.ones(2))),
    (TypeError, "bias must have the dtype of input", lambda: F.group_norm(X, 1, bias=np.ones(3, np.float32))),
    (ValueError, r"input must end in the dimensions normalized_shape=\(4,\)", lambda: F.layer_norm(X, 4)),
    (ValueError, r"bias must have shape \(5,\)", lambda: F.layer_norm(X, (5,), bias=np.ones(4))),
    (ValueError, "p must be a number", lambda: F.normalize(X, float("nan"))),
    (ValueError, "dim must be from", lambda: F.normalize(X, dim=4)),
    (TypeError, "input must hold integers, got dtype float64", lambda: F.embedding(np.ones(2), np.ones((3, 2)))),
    (ValueError, "input must hold numbers from 0 to 2, got 3", lambda: F.embedding(np.array([3, 0]), np.ones((3, 2)))),
    (ValueError, "numbers from 0 to 2, got -1", lambda: F.embedding(np.array([-1]), np.ones((3, 2)))),
    (ValueError, "weight must have shape", lambda: F.embedding(np.array([0]), np.ones(3))),
    (ValueError, "padding_idx must be", lambda: F.embedding(np.array([0]), np.ones((3, 2)), 3)),
    (NotImplementedError, "sparse=True", lambda: F.embedding(np.array([0]), np.ones((3, 2)), sparse=True)),
    (TypeError, "tensor must hold integers", lambda: F.one_hot(np.ones(2))),
    (ValueError, "tensor must hold numbers from 0 to 1, got 2", lambda: F.one_hot(np.array([2]), 2)),
    (ValueError, "num_classes must be given", lambda: F.one_hot(np.zeros(0, int))),
    (ValueError, "num_channels must be a multiple", lambda: nn.GroupNorm(2, 3)),
    (ValueError, r"input must be \(N, 4, \*\)", lambda: nn.GroupNorm(2, 4)(X)),
    (ValueError, "normalized_shape must", lambda: nn.LayerNorm(())),
    (TypeError, "normalized_shape must be an integer", lambda: nn.LayerNorm(4.0)),
    (ValueError, "mode must be one of", lambda: nn.Upsample(2, mode="cubic")),
    (ValueError, "padding_idx must be below", lambda: nn.Embedding(3, 2, 3)),
    (ValueError, "embeddings must have shape", lambda: nn.Embedding.from_pretrained(np.ones(3))),
    (ValueError, r"input must be \(N, C, H, W\)", lambda: nn.Softmax2d()(X[0, 0])),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD_CALLS, ids=[str(i) for i in range(len(BAD_CALLS))])
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
