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


def test_truncated_normal_distribution():
    values = nn.init.trunc_normal_(np.empty(SHAPE, np.float32), 1.0, 2.0, -1.0, 3.0, np.random.default_rng(1))
    assert values.min() >= -1 and values.max() <= 3
    # Symmetric about the mean at one standard deviation: the variance shrinks to 0.291125 of the whole normal's.
    assert values.mean() == pytest.approx(1.0, abs=0.03)
    assert values.std() == pytest.approx(2 * math.sqrt(0.291125), rel=0.02)
    for interval in ({"a": 2.0, "b": -2.0}, {"a": 9.0, "b": 10.0}, {"a": float("nan")}):
        with pytest.raises(ValueError, match=r"a and b must enclose 0.1 % of the values"):
            nn.init.trunc_normal_(np.empty(3), **interval)
    with pytest.raises(ValueError, match="std must be positive, got 0"):
        nn.init.trunc_normal_(np.empty(3), std=0)


def test_skip_init_draws_nothing_and_ends():
    fc.manual_seed(7)
    expected = nn.Linear(3, 2).weight.data
    fc.manual_seed(7)
    with nn.init.skip_init():
        layers = [nn.Conv2d(2, 4, 3), nn.ConvTranspose1d(2, 4, 3), nn.Linear(3, 2), nn.Bilinear(2, 3, 4)]
        kept = nn.init.trunc_normal_(nn.init.normal_(np.full(2, 5.0)))
        with pytest.raises(ValueError, match="std must not be negative"):
            nn.init.normal_(kept, std=-1)
        norm = nn.BatchNorm1d(2)
    for layer in layers:
        assert not layer.weight.data.any() and not layer.bias.data.any()
    np.testing.assert_array_equal(kept, [5, 5])
    np.testing.assert_array_equal(norm.weight.data, [1, 1])
    np.testing.assert_array_equal(nn.Linear(3, 2).weight.data, expected)


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
        (lambda: nn.init.sparse_(np.empty(3), 0.1), ValueError, "two dimensions"),
        (lambda: nn.init.sparse_(np.empty((3, 3)), 1.5), ValueError, "sparsity must be between 0 and 1, got 1.5"),
        (lambda: nn.init.sparse_(np.empty((3, 3)), "0.1"), TypeError, "sparsity"),
        (lambda: nn.init.sparse_(np.empty((3, 3)), 0.1, -1), ValueError, "std"),
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


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (8, 2, 3), (16, 2, 2)])
def test_orthogonal(shape):
    w = nn.init.orthogonal_(np.empty(shape, np.float32), 2.0, np.random.default_rng(3)).reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)
    again = nn.init.orthogonal_(np.empty(shape, np.float32), 2.0, np.random.default_rng(3)).reshape(w.shape)
    np.testing.assert_array_equal(again, w)
    assert abs(nn.init.orthogonal_(np.empty((200, 200)), generator=np.random.default_rng(4)).mean()) < 0.01


@pytest.mark.parametrize("shape", [(10, 6), (7, 1), (1, 5), (0, 3)])
@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 1.0])
def test_sparse_has_torchs_number_of_zeros_in_each_column(torch, shape, sparsity):
    expected = (torch.nn.init.sparse_(torch.empty(shape), sparsity).numpy() == 0).sum(axis=0)
    w = nn.init.sparse_(np.full(shape, 7, np.float32), sparsity, 2.0, np.random.default_rng(6))
    np.testing.assert_array_equal((w == 0).sum(axis=0), expected)


def test_sparse_draws_its_zeros_anywhere():
    w = nn.init.sparse_(np.empty((400, 300)), 0.25, 2.0, np.random.default_rng(7))
    zeros = (w == 0).sum(axis=1)
    assert zeros.min() > 40 and zeros.max() < 110
    assert 1.9 < w[w != 0].std() < 2.1
    fc.manual_seed(8)
    first = nn.init.sparse_(np.empty((5, 5)), 0.5)
    fc.manual_seed(8)
    np.testing.assert_array_equal(nn.init.sparse_(np.empty((5, 5)), 0.5), first)
    with nn.init.skip_init():
        assert (nn.init.sparse_(np.full((3, 3), 7.0), 0.5) == 7).all()


@pytest.mark.parametrize("shape, groups", [((4, 4, 3), 1), ((6, 3, 3, 3), 1), ((3, 5, 2, 4), 1), ((6, 2, 3, 3, 3), 3)])
def test_dirac_and_eye_are_torchs(torch, shape, groups):
    expected = torch.nn.init.dirac_(torch.empty(shape), groups).numpy()
    np.testing.assert_array_equal(nn.init.dirac_(np.full(shape, 7, np.float32), groups), expected)
    expected = torch.nn.init.eye_(torch.empty(shape[:2])).numpy()
    np.testing.assert_array_equal(nn.init.eye_(np.full(shape[:2], 7, np.float32)), expected)


def test_structured_fillings_refuse_other_shapes():
    for call, message in (
        (lambda: nn.init.eye_(np.empty(3)), "two dimensions"),
        (lambda: nn.init.dirac_(np.empty((3, 3))), "three to five dimensions"),
        (lambda: nn.init.dirac_(np.empty((3, 3, 3)), 2), "groups must divide the 3 output channels"),
        (lambda: nn.init.orthogonal_(np.empty(3)), "at least two dimensions"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    w = np.full((2, 2), 7.0)
    with nn.init.skip_init():
        assert nn.init.orthogonal_(nn.init.eye_(w)) is w
    assert (w == 7).all()
