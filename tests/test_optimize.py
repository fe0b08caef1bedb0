"""optimize: the same results with less, whatever the network; and what must not be folded."""

import copy
import pickle

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv import models
from fastconv.fusion import ChannelScale
from fastconv.models.residual import Add

EPS = 2.0**-24


def settled(net, seed=0):
    """`net` in evaluation mode, as after training: statistics and factors of its normalisations off 0 and 1."""
    rng = np.random.default_rng(seed)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            for array, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (getattr(module.weight, "data", None), 0.5, 1.5),
                (getattr(module.bias, "data", None), -0.5, 0.5),
            ):
                if array is not None:
                    array[...] = rng.uniform(low, high, array.shape)
    return net.eval()


def image(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


# Network, input, and which of its normalisations cannot be folded.
NETWORKS = {
    "resnet": (
        lambda: models.ResNet(models.BasicBlock, (2, 1), 10, 3, width=8),
        (2, 3, 32, 32),
        [],
    ),
    "resnet bottleneck": (
        lambda: models.ResNet(models.Bottleneck, (1, 2), 10, 3, width=4, stem="small"),
        (2, 3, 16, 16),
        [],
    ),
    "densenet": (
        lambda: models.DenseNet(4, (2, 2), 8, 10),
        (2, 3, 64, 64),
        [
            "features.denseblock1.denselayer1.norm1",
            "features.denseblock1.denselayer2.norm1",
            "features.transition1.norm",
            "features.denseblock2.denselayer1.norm1",
            "features.denseblock2.denselayer2.norm1",
            "features.norm5",
        ],
    ),
    "mobilenet v1": (lambda: models.MobileNetV1(10, width_mult=0.25), (2, 3, 64, 64), []),
    "mobilenet v2": (
        lambda: models.MobileNetV2(10, inverted_residual_setting=[(1, 8, 1, 1), (6, 8, 2, 2)], width_mult=0.5),
        (2, 3, 32, 32),
        [],
    ),
    "googlenet": (lambda: models.GoogLeNet(10, width=0.125, aux_logits=False), (2, 3, 64, 64), []),
    "inception v3": (lambda: models.InceptionV3(10, width=0.0625, aux_logits=False), (1, 3, 75, 75), []),
    "vgg": (lambda: models.VGG((8, "M", 16), 10, batch_norm=True, hidden=8, pooled_size=2), (2, 3, 16, 16), []),
    "waveform": (lambda: models.m34_res(width=0.125), (2, 1, 2048), []),
    "clips": (lambda: models.C3D(5, 1, width=0.03125, batch_norm=True), (1, 1, 16, 32, 32), []),
    "unet": (lambda: models.UNet(3, 1, width=4, depth=2), (2, 1, 16, 24), []),
    "lenet, nothing to fold": (models.LeNet5, (2, 1, 28, 28), []),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_results_are_the_networks(name):
    make, shape, kept = NETWORKS[name]
    fc.manual_seed(0)
    net = settled(make())
    x = image(*shape)
    exact = copy.deepcopy(net).double()(x.astype(np.float64))
    before = {key: value.copy() for key, value in net.state_dict().items()}
    original = x.copy()
    fast = fc.optimize(net, shape)
    y = fast(x)
    # As exact as the network itself: both round every layer's sums once, in another order.
    largest = np.abs(exact).max()
    error, own = np.abs(y - exact).max() / largest, np.abs(net(x) - exact).max() / largest
    assert error <= 4 * own + 8 * EPS
    assert y.dtype == np.float32 and y.flags.c_contiguous
    kinds = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | ChannelScale
    assert [n for n, m in fast.model.named_modules() if isinstance(m, kinds)] == kept
    assert len(fast.folded) + len(kept) == sum(key.endswith("running_mean") for key in before)
    # Neither the network nor the input has changed.
    np.testing.assert_array_equal(x, original)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert not any(getattr(module, "inplace", False) for module in net.modules())
    assert all(p.requires_grad for p in net.parameters()) and not any(p.requires_grad for p in fast.parameters())


def test_layers_of_a_block():
    net = settled(models.ResNet(models.BasicBlock, (1,), 10, 3, width=4))
    fast = fc.optimize(net, (1, 3, 32, 32))
    assert fast.folded == (("conv1", "bn1"), ("layer1.0.conv1", "layer1.0.bn1"), ("layer1.0.conv2", "layer1.0.bn2"))
    assert fast.fused == (
        ("layer1.0.conv2", "layer1.0.add"),
        ("conv1", "relu"),
        ("layer1.0.conv1", "layer1.0.relu"),
        ("layer1.0.add", "layer1.0.relu"),
    )
    assert isinstance(fast.model.relu, nn.Identity)
    assert isinstance(fast.model.bn1, nn.Identity) and fast.model.conv1.bias is not None


def test_a_normalisation_that_stays_takes_along_what_follows_it():
    net = settled(models.DenseNet(4, (2,), 8, 10))
    fast = fc.optimize(net, (1, 3, 32, 32))
    first = fast.model.features.denseblock1.denselayer1
    assert isinstance(first.norm1, ChannelScale) and isinstance(first.relu1, nn.Identity)
    assert ("features.denseblock1.denselayer1.norm1", "features.denseblock1.denselayer1.relu1") in fast.fused
    assert fast.chained == ()
    state = fc.get_rng_state()
    again = fc.optimize(net, (1, 3, 32, 32))
    assert fc.get_rng_state() == state  # nothing is drawn for it
    x = image(2, 3, 32, 32)
    np.testing.assert_array_equal(again(x), fast(x))


class PreActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.add, self.other = nn.BatchNorm2d(3), Add(), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.other(self.add(self.norm(x), x))


def test_a_sum_behind_a_normalisation_is_taken_along_and_nothing_else_changes():
    net = settled(PreActivation())
    fast = fc.optimize(net, (1, 3, 6, 5))
    assert fast.fused == (("norm", "add"),)
    assert isinstance(fast.model.norm, ChannelScale) and isinstance(fast.model.other, nn.BatchNorm2d)
    x = image(2, 3, 6, 5)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-6)
    half = fc.optimize(copy.deepcopy(net).to(np.float16), (1, 3, 6, 5))
    assert isinstance(half.model.norm, nn.BatchNorm2d)


def test_memory_layout_follows_the_input():
    fast = fc.optimize(settled(models.UNet(3, 2, width=4, depth=1)))
    assert fast.folded is None
    x = image(2, 2, 8, 12)
    plain, last = fast(x), fast(channels_last(x))
    assert fast.folded is not None and plain.flags.c_contiguous
    assert np.moveaxis(last, 1, -1).flags.c_contiguous and not last.flags.c_contiguous
    np.testing.assert_array_equal(plain, last)
    np.testing.assert_array_equal(fast(x[:, :, ::-1].copy()[:, :, ::-1]), plain)
    inner = {}
    fast.model.bottom.register_forward_hook(lambda module, inputs, output: inner.update(y=inputs[0]))
    fast(x)
    assert np.moveaxis(inner["y"], 1, -1).flags.c_contiguous
    assert fast(x[:1]).shape == (1, 3, 8, 12) and fast(x[:0]).shape == (0, 3, 8, 12)


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: [nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)], (2, 4, 7, 6)),
        (lambda: [nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6)], (2, 4, 7, 6)),
        (lambda: [nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6, affine=False)], (2, 4, 7, 6)),
        (lambda: [nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, bias=False)], (2, 4, 7, 6)),
        (lambda: [nn.ConvTranspose2d(4, 6, 3, 2, groups=2), nn.BatchNorm2d(6)], (2, 4, 5, 6)),
        (lambda: [nn.ConvTranspose1d(4, 6, 3, bias=False), nn.BatchNorm1d(6)], (2, 4, 5)),
        (lambda: [nn.Conv3d(2, 6, 2), nn.BatchNorm3d(6)], (2, 2, 3, 4, 5)),
        (lambda: [nn.Linear(4, 6), nn.BatchNorm1d(6)], (3, 4)),
    ],
)
def test_folding_is_exact_in_float64(make, shape):
    net = settled(nn.Sequential(*make()).double())
    x = image(*shape, dtype=np.float64)
    fast = fc.optimize(net, shape)
    assert fast.folded == (("0", "1"),) and isinstance(fast.model[1], nn.Identity)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float16, "bfloat16"])
def test_half_types(dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    net = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).to(dtype)
    x = image(2, 3, 6, 6).astype(dtype)
    y = fc.optimize(net, x.shape)(x)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y.astype(float), net(x).astype(float), atol=8 * float(np.finfo(np.float16).eps) * 8)


class Shared(nn.Module):
    """Layers that must stay: used or read twice, without statistics, watched by a hook, behind no convolution."""

    def __init__(self):
        super().__init__()
        self.read_twice = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.twice = nn.Conv2d(3, 3, 1)
        self.twice_norm = nn.BatchNorm2d(3)
        self.watched = nn.Conv2d(3, 3, 1)
        self.watched_norm = nn.BatchNorm2d(3)
        self.blind = nn.Conv2d(3, 3, 1)
        self.blind_norm = nn.BatchNorm2d(3, track_running_stats=False)
        self.relu = nn.ReLU()
        self.relu_of_view = nn.ReLU()
        self.relu_of_input = nn.ReLU()
        self.relu_read_twice = nn.ReLU()

    def forward(self, x):
        y = self.read_twice(x)
        y = self.norm(y) + y
        y = self.twice_norm(self.twice(y))
        y = self.twice_norm(self.twice(y))
        y = self.watched_norm(self.watched(y))
        y = self.blind_norm(self.blind(y))
        y = self.relu(y - 1.0)
        z = y.reshape(y.shape[0], -1)
        view = self.relu_of_view(z)
        other = self.relu_read_twice(y)
        return view.sum() + (other * y).sum() + self.relu_of_input(x).sum()


def test_what_must_stay_stays():
    net = settled(Shared())
    calls = []
    net.watched.register_forward_hook(lambda module, inputs, output: calls.append(1))
    x = image(2, 3, 6, 5)
    fast = fc.optimize(net, x.shape)
    assert fast.folded == () and fast.fused == (("norm", "norm +"),)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5)


def test_is_a_module_like_others(tmp_path):
    net = settled(models.ResNet(models.BasicBlock, (1,), 10, 3, width=4, stem="small"))
    fast = fc.optimize(net, (1, 3, 8, 8))
    x = image(2, 3, 8, 8)
    y = fast(x)
    assert not any(m.training for m in fast.train().modules())
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), fc.optimize(fast)):
        np.testing.assert_array_equal(twin(x), y)
    np.testing.assert_allclose(fast(fc.tensor(x)).data, y, rtol=1e-5, atol=1e-6)
    fc.save(fast, tmp_path / "fast.npz")
    other = fc.optimize(models.ResNet(models.BasicBlock, (1,), 10, 3, width=4, stem="small"), (1, 3, 8, 8))
    other.load_state_dict(fc.load(tmp_path / "fast.npz"))
    np.testing.assert_array_equal(other(x), y)
    net.fc.weight.data[...] = 0  # the copy has its own weights
    np.testing.assert_array_equal(fast(x), y)


def test_training_mode_and_dropout_of_the_original_do_not_matter():
    net = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9)))
    x = image(2, 3, 5, 5)
    expected = net(x)
    net.train()
    fast = fc.optimize(net)
    assert net[2].training
    np.testing.assert_allclose(fast(x), expected, rtol=1e-5, atol=1e-6)


def test_unbatched_and_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x, y):
            return self.norm(self.conv(x)), F.relu(y)

    net = settled(Two())
    a, b = image(2, 3, 6, 6), image(4, 5)
    fast = fc.optimize(net)
    for y, expected in zip(fast(a, b), net(a, b), strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert len(fast.folded) == 1
    layer = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()).eval()
    np.testing.assert_allclose(fc.optimize(layer)(a[0]), layer(a[0]), rtol=1e-6)


def test_bad_arguments():
    with pytest.raises(TypeError, match="model must be a Module, got function"):
        fc.optimize(F.relu)
    with pytest.raises(ValueError, match="input_shape must be at least 1, got 0"):
        fc.optimize(models.LeNet5(), (1, 1, 28, 0))
    with pytest.raises(ValueError, match="channels"):
        fc.optimize(models.LeNet5(), (1, 3, 28, 28))


def test_layers_with_hooks_before_their_forward_stay_as_they_are():
    """A hook may change what the layer computes of: nothing is folded into it."""
    net = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    net[1].register_forward_pre_hook(lambda module, inputs: 2 * inputs[0])
    x = image(2, 3, 8, 8)
    fast = fc.optimize(net, x.shape)
    assert fast.folded == (("2", "3"),)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-4, atol=1e-5)


def test_fused_layers_before_hooks_tensors_and_other_sums():
    """What went into a convolution is computed for a Tensor, too, and a hook sees arrays."""
    net = settled(models.ResNet(models.BasicBlock, (1,), 10, 3, width=4))
    fast = fc.optimize(net, (1, 3, 32, 32))
    x = image(2, 3, 32, 32)
    expected = fast(x)
    np.testing.assert_allclose(expected, net(x), rtol=1e-4, atol=1e-5)
    t = fc.tensor(x, requires_grad=True)
    y = fast(t)
    np.testing.assert_allclose(y.data, expected, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    u = fc.tensor(x, requires_grad=True)
    net(u).sum().backward()
    np.testing.assert_allclose(t.grad, u.grad, rtol=1e-3, atol=1e-4)
    seen = []
    fast.model.layer1[0].conv2.register_forward_hook(lambda module, inputs, output: seen.append(type(output)))
    np.testing.assert_allclose(fast(x), expected, rtol=1e-4, atol=1e-5)
    assert seen == [np.ndarray]


class Broadcasting(nn.Module):
    """A sum whose parts have different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.add, self.clamp = nn.Conv2d(3, 4, 3), Add(), nn.ReLU6()

    def forward(self, x):
        y = self.conv(x)
        return self.clamp(self.add(y, x[:, :1, :1, :1]))


def test_sums_that_broadcast_are_not_fused():
    net = Broadcasting().eval()
    x = 5 * image(2, 3, 9, 8)
    fast = fc.optimize(net, x.shape)
    assert fast.fused == (("add", "clamp"),)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)
