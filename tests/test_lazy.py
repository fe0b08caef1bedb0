"""Lazy layers: sizes from the first input or from a state, the same objects before and after, nothing half done."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F

# Lazy class, its arguments and options, shape of an input, the size that is found.
CASES = [
    ("Conv1d", (4, 3), {"stride": 2, "padding": 1}, (2, 6, 9), 6),
    ("Conv2d", (4, 3), {"padding": "same", "groups": 2}, (2, 6, 5, 7), 6),
    ("Conv2d", (4, (1, 3)), {"bias": False, "padding_mode": "reflect", "padding": (0, 1)}, (3, 5, 7), 3),
    ("Conv3d", (2, 2), {"dilation": 2}, (1, 3, 4, 5, 6), 3),
    ("ConvTranspose1d", (4, 3), {"stride": 2, "output_padding": 1}, (2, 6, 9), 6),
    ("ConvTranspose2d", (4, 3), {"groups": 2, "bias": False}, (2, 6, 5, 7), 6),
    ("ConvTranspose3d", (2, 2), {}, (3, 4, 5, 6), 3),
    ("Linear", (4,), {}, (2, 3, 5), 5),
    ("Linear", (4, False), {}, (5,), 5),
    ("BatchNorm1d", (), {"eps": 0.1}, (4, 3), 3),
    ("BatchNorm1d", (), {"momentum": None}, (4, 3, 5), 3),
    ("BatchNorm2d", (1e-3, 0.2), {}, (4, 3, 5, 5), 3),
    ("BatchNorm2d", (), {"affine": False}, (4, 3, 5, 5), 3),
    ("BatchNorm2d", (), {"track_running_stats": False}, (4, 3, 5, 5), 3),
    ("BatchNorm3d", (), {"affine": False, "track_running_stats": False}, (4, 3, 2, 2, 2), 3),
    ("InstanceNorm1d", (), {}, (2, 3, 5), 3),
    ("InstanceNorm2d", (), {"affine": True, "track_running_stats": True}, (2, 3, 5, 5), 3),
    ("InstanceNorm3d", (), {"affine": False, "track_running_stats": False}, (3, 2, 3, 4), 3),
]
by_case = pytest.mark.parametrize(
    ("name", "arguments", "options", "shape", "size"), CASES, ids=[f"{c[0]}{i}" for i, c in enumerate(CASES)]
)


def lazy(name, arguments=(), **options):
    return getattr(nn, f"Lazy{name}")(*arguments, **options)


def ordinary_layer(name, size, arguments, options):
    if name.startswith("InstanceNorm"):  # whose defaults differ, as torch's do
        options = {"affine": True, "track_running_stats": True, **options}
    return getattr(nn, name)(size, *arguments, **options)


@by_case
def test_first_input_makes_the_ordinary_layer(name, arguments, options, shape, size):
    x = np.random.default_rng(3).standard_normal(shape, np.float32)
    layer = lazy(name, arguments, **options)
    assert isinstance(layer, getattr(nn, name)) and repr(layer).startswith(f"Lazy{name}(")
    before = dict(layer.named_parameters())
    assert layer.has_uninitialized_params() == bool(before)
    assert all(isinstance(p, nn.UninitializedParameter) for p in before.values())
    fc.manual_seed(5)
    y = layer(x)
    fc.manual_seed(5)
    ordinary = ordinary_layer(name, size, arguments, options)
    assert type(layer) is type(ordinary) and repr(layer) == repr(ordinary)
    assert layer.__dict__.keys() == ordinary.__dict__.keys()
    assert all(layer.get_parameter(key) is p and type(p) is nn.Parameter for key, p in before.items())
    np.testing.assert_array_equal(y, ordinary(x))
    for (key, value), (other, expected) in zip(layer.state_dict().items(), ordinary.state_dict().items(), strict=True):
        assert key == other
        np.testing.assert_array_equal(value, expected)


@pytest.mark.filterwarnings("ignore:input's size at dim=1 does not match num_features")  # torch's own layer
@by_case
def test_as_torch(torch, name, arguments, options, shape, size):
    x = np.random.default_rng(3).standard_normal(shape, np.float32)
    if name.startswith("InstanceNorm") and len(shape) < int(name[-2]) + 2:
        shape = (1, *shape)  # torch takes the batch for channels
        x = x[None]
    theirs = getattr(torch.nn, f"Lazy{name}")(*arguments, **options)
    expected = theirs(torch.from_numpy(x)).detach().numpy()
    layer = lazy(name, arguments, **options)
    assert list(layer.state_dict()) == list(theirs.state_dict())
    layer.load_state_dict(
        {k: v for k, v in theirs.state_dict().items() if "running" not in k and "num" not in k}, False
    )
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert {k: v.shape for k, v in layer.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }


@by_case
def test_state_gives_the_sizes(name, arguments, options, shape, size):
    state = ordinary_layer(name, size, arguments, options).state_dict()
    layer = lazy(name, arguments, **options)
    assert not any(layer.load_state_dict(state))
    assert type(layer) is getattr(nn, name if state else f"Lazy{name}")
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, state[key])


def test_a_state_that_does_not_fit_changes_nothing():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    parameters = list(net.parameters())
    other = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"'3.weight' has shape \(3, 4\), the module needs \(2, 4\)"):
        net.load_state_dict(other.state_dict())
    assert [type(m).__name__ for m in net] == ["LazyConv2d", "LazyBatchNorm2d", "Flatten", "LazyLinear"]
    assert all(isinstance(p, nn.UninitializedParameter) and p.shape == (0,) for p in parameters)
    assert net[1].running_mean.shape == (0,) and net[0].in_channels == 0
    assert net(np.zeros((2, 3, 5, 5), np.float32)).shape == (2, 2)
    assert all(p is q for p, q in zip(parameters, net.parameters(), strict=True))


def test_state_of_a_layer_that_waits_goes_to_one_that_waits():
    state = nn.LazyConv2d(4, 3).state_dict()
    layer = nn.LazyConv2d(4, 3)
    assert not any(layer.load_state_dict(state)) and layer.has_uninitialized_params()
    with pytest.raises(ValueError, match="shape"):
        nn.Conv2d(2, 4, 3).load_state_dict(state)


def test_training_begins_before_the_sizes_are_known():
    """A network in the style of "Dive into Deep Learning", with the optimiser made first."""
    net = nn.Sequential(
        nn.LazyConv2d(6, kernel_size=5, padding=2),
        nn.LazyBatchNorm2d(),
        nn.Sigmoid(),
        nn.AvgPool2d(kernel_size=2, stride=2),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    optimizer = fc.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((16, 1, 8, 8), np.float32), rng.integers(0, 10, 16)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(fc.tensor(x)), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.data))
    assert losses[-1] < 0.2 * losses[0]
    assert [type(m).__name__ for m in net][::5] == ["Conv2d", "Linear"]


def test_dtype_mode_and_freezing_reach_layers_that_wait():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()).double().eval().requires_grad_(False)
    y = net(np.ones((2, 3, 5, 5)))
    assert y.dtype == np.float64 and not any(p.requires_grad for p in net.parameters())
    assert {a.dtype.name for a in net.state_dict().values()} == {"float64", "int64"}
    assert nn.LazyLinear(3, dtype=np.float64)(np.ones((2, 2))).dtype == np.float64
    np.testing.assert_array_equal(net[1].running_mean, 0)


def test_copies_wait_on_their_own():
    layer = nn.LazyLinear(3)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other(np.ones((2, 5), np.float32)).shape == (2, 3) and type(other) is nn.Linear
        assert layer.has_uninitialized_params() and type(layer) is nn.LazyLinear


def test_hooks_and_vjp_see_an_ordinary_call():
    layer = nn.LazyConv2d(2, 1)
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0][:, :2],))
    y, pullback = layer.vjp(np.ones((1, 3, 2, 2), np.float32))
    assert layer.in_channels == 2 and pullback(np.ones_like(y)).shape == (1, 3, 2, 2)
    assert "Conv2d" in str(nn.Sequential(nn.LazyConv2d(2, 1)).summary((1, 3, 4, 4)))


def test_transposed_layers_take_their_output_size():
    layer = nn.LazyConvTranspose2d(2, 2, stride=2)
    assert layer(np.ones((1, 3, 4, 4), np.float32), output_size=(9, 9)).shape == (1, 2, 9, 9)


def test_reset_parameters_waits():
    layer = nn.LazyLinear(3)
    layer.reset_parameters()
    assert layer.has_uninitialized_params()


def test_what_a_layer_that_waits_cannot_do():
    layer = nn.LazyConv2d(4, 3, groups=2)
    with pytest.raises(ValueError, match="before the layer's first input"):
        nn.init.ones_(layer.weight)
    with pytest.raises(ValueError, match="in_channels must be divisible by groups, got in_channels=3, groups=2"):
        layer(np.zeros((1, 3, 5, 5), np.float32))
    with pytest.raises(ValueError, match=r"input must be 3D or 4D for LazyConv2d, got shape \(2, 3\)"):
        layer(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"input must be 4D for LazyBatchNorm2d, got shape \(2, 3\)"):
        nn.LazyBatchNorm2d()(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"at least one dimension for LazyLinear, got shape \(\)"):
        nn.LazyLinear(3)(np.float32(1).reshape(()))
    with pytest.raises(ValueError, match="out_channels"):
        nn.LazyConv2d(-1, 3)
    assert layer.has_uninitialized_params() and layer(np.zeros((1, 4, 5, 5), np.float32)).shape == (1, 4, 3, 3)
