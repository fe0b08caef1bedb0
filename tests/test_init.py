"""nn.init and the initialisation of the layers: bounds, moments and formulas of torch.nn.init."""

import math

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn

SHAPE = (64, 16, 3, 3)


@pytest.mark.parametrize(
    "name, options, bound",
    [
        ("uniform_", {"a": -0.5, "b": 0.5}, 0.5),
        ("xavier_uniform_", {"gain": 2.0}, 2 * math.sqrt(6 / (80 * 9))),
        ("kaiming_uniform_", {"a": math.sqrt(5)}, 1 / math.sqrt(16 * 9)),
        ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "relu"}, math.sqrt(6 / (64 * 9))),
    ],
)
def test_uniform_distributions(name, options, bound):
    values = getattr(nn.init, name)(np.empty(SHAPE, np.float32), generator=np.random.default_rng(1), **options)
    assert 0.999 * bound < abs(values).max() <= bound * (1 + 1e-6)
    assert abs(values.mean()) < 0.03 * bound
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(
    "name, options, mean, std",
    [
        ("normal_", {"mean": 3.0, "std": 0.5}, 3.0, 0.5),
        ("xavier_normal_", {}, 0.0, math.sqrt(2 / (80 * 9))),
        ("kaiming_normal_", {"nonlinearity": "tanh"}, 0.0, 5 / 3 / math.sqrt(16 * 9)),
        ("kaiming_normal_", {"a": 0.5, "mode": "fan_out"}, 0.0, math.sqrt(2 / 1.25) / math.sqrt(64 * 9)),
    ],
)
def test_normal_distributions(name, options, mean, std):
    values = getattr(nn.init, name)(np.empty(SHAPE, np.float64), generator=np.random.default_rng(1), **options)
    assert values.mean() == pytest.approx(mean, abs=0.05 * std)
    assert values.std() == pytest.approx(std, rel=0.03)


def test_gains_are_torchs(torch):
    for word in ("linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert nn.init.calculate_gain(word) == pytest.approx(torch.nn.init.calculate_gain(word))
    assert nn.init.calculate_gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))


@pytest.mark.parametrize(
    "make",
    [
        lambda library: library.Conv2d(16, 32, 5, groups=4),
        lambda library: library.ConvTranspose2d(16, 32, 5, groups=2),
        lambda library: library.Linear(300, 200),
        lambda library: library.Bilinear(20, 30, 100),
        lambda library: library.BatchNorm2d(7),
        lambda library: library.PReLU(5, 0.1),
    ],
)
def test_layers_start_from_torchs_distribution(torch, make):
    fc.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = make(nn).state_dict(), make(torch.nn).state_dict()
    for key, value in theirs.items():
        value = value.numpy().astype(float)
        if value.std() == 0:
            np.testing.assert_array_equal(ours[key], value)
        else:
            assert ours[key].std() == pytest.approx(value.std(), rel=0.25 if value.ndim == 1 else 0.03)
            assert abs(ours[key]).max() == pytest.approx(abs(value).max(), rel=0.1)


def test_seeds_and_generators():
    fc.manual_seed(5)
    first = nn.Linear(3, 3).weight.data.copy()
    second = nn.Linear(3, 3).weight.data.copy()
    fc.manual_seed(5)
    np.testing.assert_array_equal(nn.Linear(3, 3).weight.data, first)
    assert (first != second).any()
    a = nn.init.uniform_(np.empty(5), generator=np.random.default_rng(2))
    np.testing.assert_array_equal(nn.init.uniform_(np.empty(5), generator=np.random.default_rng(2)), a)


def test_targets_are_filled_in_place():
    layer = nn.Linear(4, 3)
    array = layer.weight.data
    assert nn.init.constant_(layer.weight, 2.5) is layer.weight
    assert layer.weight.data is array and (array == 2.5).all()
    view = np.zeros((6, 6), np.float16)
    nn.init.ones_(view[::2, ::3])
    assert view.sum() == 6
    assert not nn.init.zeros_(layer.bias).data.any()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: nn.init.kaiming_uniform_(np.empty(3)), ValueError, "2 dimensions"),
        (lambda: nn.init.xavier_normal_(np.empty(())), ValueError, "2 dimensions"),
        (lambda: nn.init.kaiming_normal_(np.empty((2, 2)), mode="fan_both"), ValueError, "mode"),
        (lambda: nn.init.kaiming_normal_(np.empty((2, 2)), nonlinearity="step"), ValueError, "nonlinearity"),
        (lambda: nn.init.uniform_(np.empty(3), 2, 1), ValueError, "a must"),
        (lambda: nn.init.normal_(np.empty(3), 0, -1), ValueError, "std"),
        (lambda: nn.init.zeros_(np.broadcast_to(1.0, 3)), ValueError, "read-only"),
        (lambda: nn.init.zeros_(np.empty(3, int)), TypeError, "int64"),
        (lambda: nn.init.zeros_([1.0]), TypeError, "list"),
        (lambda: nn.init.constant_(np.empty(3), "1"), TypeError, "val"),
        (lambda: nn.init.uniform_(np.empty(3), generator=3), TypeError, "Generator"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
