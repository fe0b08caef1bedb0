"""SyncBatchNorm against the ordinary batch norm of the whole batch in float64, on ranks that are threads."""

import copy

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
from checks import DTYPES, assert_same_bits, dtype_name, float32, float64, layouts, normal
from fastconv.testing import unit_roundoff
from ranks import on_threads

PARTS = {"even": (3, 3), "uneven": (4, 1, 2), "one has none": (5, 0), "single values": (1, 1, 1)}


def parts_of(array, sizes):
    return np.split(array, np.cumsum(sizes)[:-1])


def assert_close(actual, expected, dtype):
    """Within a few roundings of `dtype`, and more of what it is computed in: means are 6 deviations away from 0."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    scale = max(np.abs(expected).max(initial=0), 1.0)
    wide = float64 if dtype == float64 else float32
    bound = (4 * unit_roundoff(dtype) + 256 * unit_roundoff(wide)) * scale
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def whole_batch(layer, x, dy):
    """Output, gradients (dx, dw, db) and running statistics of one process, in float64."""
    layer = copy.deepcopy(layer).double()
    x = fc.tensor(x.astype(np.float64), requires_grad=True)
    y = layer(x)
    y.backward(dy.astype(np.float64))
    gradients = [x.grad] if layer.weight is None else [x.grad, layer.weight.grad, layer.bias.grad]
    return y.numpy(), gradients, [layer.running_mean, layer.running_var]


def synchronized(layer, x, dy, sizes):
    """The same from ranks that have `sizes` examples each; their losses are means over their examples."""
    total = sum(sizes)
    results = on_threads(len(sizes), lambda group: rank_of(layer, parts_of(x, sizes), parts_of(dy, sizes), group))
    y, dx = (np.concatenate([each[i] for each in results]) for i in range(2))
    shares = [n / total for n in sizes]
    sums = [
        sum(np.asarray(g, np.float64) * share for g, share in zip(each, shares))
        for each in zip(*(r[2] for r in results))
    ]
    return y, [dx, *sums], [each[3] for each in results]


def rank_of(layer, x, dy, group):
    own = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(layer), group)
    leaf = fc.tensor(x[group.rank], requires_grad=True)
    share = max(len(leaf), 1) / sum(map(len, x))
    y = own(leaf)
    y.backward((dy[group.rank] / share).astype(leaf.dtype))
    weights = [] if own.weight is None else [own.weight.grad, own.bias.grad]
    return y.numpy(), leaf.grad * leaf.dtype.type(share), weights, [own.running_mean, own.running_var]


@pytest.mark.parametrize("sizes", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_ranks_normalise_as_one_process(dtype, sizes):
    rng = np.random.default_rng(len(sizes))
    shape = (sum(sizes), 4) if max(sizes) == 1 else (sum(sizes), 4, 3, 5)
    x = (0.5 * normal(rng, shape, float64) + 3).astype(dtype)  # far from 0: cancellation would show
    dy = normal(rng, shape, dtype)
    layer = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(4, momentum=0.3, dtype=dtype)
    layer.weight.data[...], layer.bias.data[...] = normal(rng, (2, 4), dtype)
    y, gradients, statistics = whole_batch(layer, x, dy)
    actual, sums, running = synchronized(layer, x, dy, sizes)
    assert actual.dtype == dtype
    assert_close(actual, y, dtype)
    for one, other in zip(sums, gradients, strict=True):
        assert_close(one, other, dtype)
    for one in running:
        for value, expected, first in zip(one, statistics, running[0]):
            assert_close(value, expected, dtype)
            assert_same_bits(value, first)


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}, {"momentum": None}], ids=str)
def test_options(options):
    rng = np.random.default_rng(0)
    x, dy = normal(rng, (6, 3, 4, 4), float32), normal(rng, (6, 3, 4, 4), float32)
    layer = nn.BatchNorm2d(3, **options)
    y, gradients, statistics = whole_batch(layer, x, dy)
    actual, sums, running = synchronized(layer, x, dy, (2, 4))
    assert_close(actual, y, float32)
    for one, other in zip(sums, gradients, strict=True):
        assert_close(one, other, float32)
    for value, expected in zip(running[1], statistics):
        assert (value is None and expected is None) or np.allclose(value, expected, rtol=1e-6)


def test_layouts():
    rng = np.random.default_rng(1)
    x, dy = normal(rng, (4, 3, 2, 5), float32), normal(rng, (4, 3, 2, 5), float32)
    _, (expected, *_), _ = whole_batch(nn.BatchNorm2d(3), x, dy)
    for (_, given), (_, gradient) in zip(layouts(x), layouts(dy)):
        assert_close(synchronized(nn.BatchNorm2d(3), given, gradient, (1, 3))[1][0], expected, float32)


def test_small_variances_keep_their_digits():
    """The variance far below eps comes back from the kernel as exactly as any other."""
    x = (1e-4 * np.random.default_rng(2).standard_normal((8, 2))).astype(float32)
    layer = nn.BatchNorm1d(2, momentum=1.0)
    _, _, running = synchronized(layer, x, np.ones_like(x), (4, 4))
    np.testing.assert_allclose(running[0][1], x.astype(np.float64).var(axis=0, ddof=1), rtol=1e-5)


def test_evaluation_needs_no_other_rank():
    """With the running statistics, as an ordinary batch norm; so does a group of one rank in training."""
    x = normal(np.random.default_rng(3), (4, 2), float32)
    layer = nn.BatchNorm1d(2)
    expected = layer(x)

    def program(group):
        own = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(layer), group).eval()
        return own(x) if group.rank == 0 else None

    assert_same_bits(on_threads(2, program)[0], layer.eval()(x))
    assert_same_bits(nn.SyncBatchNorm(2)(x), expected)


def test_bad_input():
    one = np.ones((1, 2), float32)
    with pytest.raises(ValueError, match="more than 1 value per channel, there are 1 on all ranks"):
        on_threads(2, lambda group: nn.SyncBatchNorm(2, process_group=group)(one[group.rank :]))
    with pytest.raises(ValueError, match=r"num_features=3 channels, got shape \(1, 2\)"):
        on_threads(2, lambda group: nn.SyncBatchNorm(3, process_group=group)(one))
    with pytest.raises(ValueError, match="input must be 2D or 3D or 4D or 5D for SyncBatchNorm"):
        nn.SyncBatchNorm(3)(np.ones(3, float32))
    with pytest.raises(TypeError, match="int64"):
        on_threads(2, lambda group: nn.SyncBatchNorm(2, process_group=group)(np.ones((2, 2), np.int64)))


def test_conversion():
    """Values, modes and hooks stay; a layer that stands in two places is replaced by one; others are left alone."""
    shared = nn.BatchNorm2d(3, eps=1e-3, momentum=0.2).double()
    net = nn.Sequential(nn.Conv2d(1, 3, 1), shared, nn.Sequential(nn.InstanceNorm2d(3), shared)).eval()
    shared.register_forward_hook(lambda module, inputs, output: output * 0)
    before = {name: value.copy() for name, value in net.state_dict().items()}
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert converted is net and type(net[1]) is nn.SyncBatchNorm and net[1] is net[2][1]
    assert type(net[2][0]) is nn.InstanceNorm2d
    assert (net[1].eps, net[1].momentum, net[1].training) == (1e-3, 0.2, False)
    assert net[1].weight is shared.weight and net[1].running_mean is shared.running_mean
    assert list(before) == list(net.state_dict())
    assert not net[1](np.ones((2, 3, 2, 2))).any()
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm1d(2))
    assert type(layer) is nn.SyncBatchNorm and nn.SyncBatchNorm.convert_sync_batchnorm(layer) is layer


def test_torch_has_the_same_names(torch):
    theirs = torch.nn.SyncBatchNorm(3)
    assert list(nn.SyncBatchNorm(3).state_dict()) == list(theirs.state_dict())
    nn.SyncBatchNorm(3).load_state_dict(theirs.state_dict())
