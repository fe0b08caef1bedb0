"""Sequential pools before the ReLU that comes first where nobody can tell: same outputs and gradients, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
from checks import DTYPES, assert_same_bits, dtype_name
from fastconv.nn.modules import norm_relu as fusing

PAIRS = {
    "2x2": ((2, 6, 8, 8), nn.ReLU(), nn.MaxPool2d(2)),
    "3x3 strided, ceil": ((2, 3, 8, 9), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
    "overlapping": ((2, 3, 7, 7), nn.ReLU(), nn.MaxPool2d(3, 1)),
    "waves": ((3, 5, 33), nn.ReLU(), nn.MaxPool1d(4)),
    "volumes": ((1, 2, 4, 6, 6), nn.ReLU(), nn.MaxPool3d(2)),
    "unbatched": ((6, 8, 8), nn.ReLU(), nn.MaxPool2d(2)),
}


def draw(shape, dtype):
    """Ties, windows without a positive number, infinities; NaN in one place."""
    rng = np.random.default_rng(2)
    x = rng.integers(-9, 9, shape).astype(np.float64)
    x[..., -2:] = -np.abs(x[..., -2:])
    x.reshape(-1)[[3, 17, 30]] = np.inf, -np.inf, np.nan
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_outputs_and_gradients_have_the_same_bits(monkeypatch, pair, dtype):
    shape, relu, pool = pair
    results = []
    for first in (True, False):
        if not first:
            monkeypatch.setattr(fusing, "_POOLS", frozenset())
        assert fusing.pools_first(relu, pool) == first
        x = fc.tensor(draw(shape, dtype), requires_grad=True)
        y = nn.Sequential(relu, pool)(x)
        y.backward(np.random.default_rng(3).integers(-4, 5, y.shape).astype(dtype))
        results.append((y.data, x.grad, nn.Sequential(relu, pool)(x.data)))
    for swapped, plain in zip(*results, strict=True):
        assert_same_bits(swapped, plain)


def test_the_smaller_array_is_rectified():
    net, seen = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), []
    original = nn.ReLU.forward

    def forward(self, input):
        seen.append(input.shape)
        return original(self, input)

    nn.ReLU.forward = forward
    try:
        assert net(np.ones((1, 3, 8, 8), np.float32)).shape == (1, 48)
    finally:
        nn.ReLU.forward = original
    assert seen == [(1, 3, 4, 4)]


def test_only_plain_layers_change_places():
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    assert fusing.pools_first(relu, pool)
    for other in (nn.LeakyReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Tanh()):
        assert not fusing.pools_first(other, pool)
    for other in (
        nn.AvgPool2d(2),
        nn.MaxPool2d(2, return_indices=True),
        nn.MaxPool2d(3, padding=1),
        nn.MaxPool2d(2, dilation=2),
    ):
        assert not fusing.pools_first(relu, other)


def test_hooks_see_what_lies_between():
    x = draw((1, 2, 4, 4), np.float32)
    for at in (0, 1):
        net, seen = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), []
        net[at].register_forward_hook(lambda module, inputs, output, seen=seen: seen.append((inputs[0], output)))
        net(x)
        ((before, after),) = seen
        assert before.shape == (1, 2, 4, 4) and after.shape == ((1, 2, 2, 2) if at else (1, 2, 4, 4))
        assert not np.signbit(after).any()
