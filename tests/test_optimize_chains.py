"""optimize: depthwise convolutions and their neighbours in bands of rows, with the bits of layer after layer."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import assert_same_bits, channels_last, float32, normal
from fastconv import models


def block(narrow: int, wide: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(narrow, wide, 1, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU6(),
        nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU6(),
        nn.Conv2d(wide, narrow, 1, bias=False),
        nn.BatchNorm2d(narrow),
    )


def test_optimize_finds_chains():
    net = models.MobileNetV2(10, width_mult=0.5).eval()
    fast = fc.optimize(net, (1, 3, 64, 64))
    assert fast.chained is not None
    assert ("features.0.0", "features.1.conv.0.0", "features.1.conv.1") in fast.chained
    assert ("features.3.conv.0.0", "features.3.conv.1.0", "features.3.conv.2") in fast.chained
    x = normal(np.random.default_rng(0), (3, 3, 64, 64), float32)
    whole = fc.optimize(net, (1, 3, 64, 64), pack_weights=False)  # stage after stage
    assert whole.chained == fast.chained
    for input in (x, x[:1], channels_last(x)):
        assert_same_bits(fast(input), whole(input))
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-4, atol=1e-5)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert_same_bits(other(x), fast(x))


def test_long_chains_are_cut_where_least_lies_between():
    net = models.MobileNetV1(10).eval()
    chained = fc.optimize(net, (1, 3, 64, 64)).chained
    assert chained is not None and max(map(len, chained)) <= 5
    names = [name for chain in chained for name in chain]
    assert len(set(names)) == len(names)
    assert chained[0] == ("features.0.0", "features.1.0", "features.1.3", "features.2.0")
    # Of 256 channels on, products are what takes the time.
    assert all(dict(net.named_modules())[name].out_channels <= 256 for name in names)


def test_what_is_no_chain():
    wide = nn.Conv2d(24, 24, 3, padding=1, groups=24)

    class Twice(nn.Module):
        """What the depthwise layer gives has two readers."""

        def __init__(self):
            super().__init__()
            self.expand, self.depthwise, self.project = nn.Conv2d(6, 24, 1), copy.deepcopy(wide), nn.Conv2d(24, 6, 1)

        def forward(self, x):
            y = self.depthwise(self.expand(x))
            return self.project(y) + y[:, :6]

    shared = copy.deepcopy(wide)
    mirrored = nn.Conv2d(24, 24, 3, padding=1, groups=24, padding_mode="reflect")
    for net, expected in (
        (nn.Sequential(nn.Conv2d(6, 24, 1), copy.deepcopy(wide), nn.Conv2d(24, 6, 1)), (("0", "1", "2"),)),
        (nn.Sequential(nn.Conv2d(6, 24, 1), nn.Sigmoid(), copy.deepcopy(wide), nn.Conv2d(24, 6, 1)), (("2", "3"),)),
        (nn.Sequential(nn.Conv2d(6, 24, 1), nn.Conv2d(24, 24, 3), nn.Conv2d(24, 6, 1)), ()),
        (nn.Sequential(nn.Conv2d(6, 24, 1), mirrored, nn.Conv2d(24, 6, 1)), ()),
        (nn.Sequential(nn.Conv2d(6, 24, 1), shared, shared, nn.Conv2d(24, 6, 1)), ()),
        (nn.Sequential(copy.deepcopy(wide), nn.Conv2d(24, 200, 1)), ()),
        (nn.Sequential(nn.Conv1d(6, 24, 1), nn.Conv1d(24, 24, 3, groups=24), nn.Conv1d(24, 6, 1)), ()),
        (Twice(), (("expand", "depthwise"),)),
    ):
        first = next(m for m in net.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d)))
        shape = (2, first.in_channels, 12) if isinstance(first, nn.Conv1d) else (2, first.in_channels, 12, 11)
        fast = fc.optimize(net.eval(), shape)
        assert fast.chained == expected
        x = normal(np.random.default_rng(1), shape, float32)
        np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("residual", [False, True])
def test_whoever_looks_sees_arrays(residual):
    """Hooks on the layers of a chain; what is optimised is copied, recorded and set back to other weights."""
    net = models.mobilenet.InvertedResidual(8, 8, 1, 6) if residual else block(8, 48)
    fast = fc.optimize(net.eval(), (1, 8, 16, 16))
    assert len(fast.chained) == 1 and len(fast.chained[0]) == 3
    x = normal(np.random.default_rng(2), (2, 8, 16, 16), float32)
    expected, seen = fast(x), {}
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: np.asarray(output)}))
        for name, module in fast.model.named_modules()
    ]
    np.testing.assert_allclose(fast(x), expected, rtol=1e-5, atol=1e-6)
    assert all(value.dtype == np.float32 and value.shape[0] == 2 for value in seen.values())
    for handle in handles:
        handle.remove()
    assert_same_bits(fast(x), expected)
    recorded = fast.model(fc.tensor(x))
    np.testing.assert_allclose(recorded.numpy(), expected, rtol=1e-4, atol=1e-5)
    other = fc.optimize(
        block(8, 48).eval() if not residual else models.mobilenet.InvertedResidual(8, 8, 1, 6).eval(), (1, 8, 16, 16)
    )
    other.load_state_dict(fast.state_dict())
    assert_same_bits(other(x), expected)


def test_a_reader_sees_an_array_too():
    """An Identity between the layers of a chain, what stands where a normalisation was, hands on what waits."""
    fast = fc.optimize(block(8, 48).eval(), (1, 8, 16, 16))
    x = normal(np.random.default_rng(2), (2, 8, 16, 16), float32)
    expected, seen = fast(x), []
    fast.model[2].register_forward_hook(lambda module, inputs, output: seen.append(np.asarray(output)))
    assert_same_bits(fast(x), expected)
    y = F.hardtanh(F.conv2d(x, fast.model[0].weight.data, fast.model[0].bias.data), 0.0, 6.0)
    np.testing.assert_array_equal(seen[0], y)


def test_explained():
    net = models.MobileNetV2(10, width_mult=0.5).eval()
    fast = fc.optimize(net, (1, 3, 64, 64))
    plain, chained = (fc.explain(each, (2, 3, 64, 64)) for each in (net, fast))
    rows = {row.name.removeprefix("model."): row for row in chained.rows}
    before = {row.name: row for row in plain.rows if row.layer == "Conv2d"}
    row = rows["features.3.conv.0.0"]
    assert row.layer == "Conv2d + Conv2d + Conv2d + Add"
    names = ("features.3.conv.0.0", "features.3.conv.1.0", "features.3.conv.2")
    added = int(np.prod(row.output_shape))
    assert row.flops == sum(before[name].flops for name in names) + added
    assert (row.output_shape, row.receptive_field) == (before[names[2]].output_shape, before[names[2]].receptive_field)
    parameters = sum(p.data.size for name in names for p in dict(fast.model.named_modules())[name].parameters())
    assert row.bytes == 4 * (3 * added + parameters)  # read, summand and result; nothing between
    assert chained.bytes < plain.bytes
