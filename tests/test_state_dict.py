"""load_state_dict: values of many sources, hostile dictionaries, and never a model that is updated by half."""

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn


def _net():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def _copy(state):
    return {key: value.copy() for key, value in state.items()}


def _assert_same(state, expected):
    assert list(state) == list(expected)
    for key, value in state.items():
        np.testing.assert_array_equal(value, expected[key])


def test_state_dict_shares_memory_and_loading_writes_in_place():
    net, other = _net(), _net()
    weight = net[0].weight
    array = weight.data
    assert net.state_dict()["0.weight"] is array
    result = net.load_state_dict(other.state_dict())
    assert result.missing_keys == result.unexpected_keys == []
    assert net[0].weight is weight and weight.data is array
    _assert_same(net.state_dict(), other.state_dict())
    other[0].weight.data[...] = 0
    assert array.any()
    assert next(iter(net.state_dict(prefix="net."))) == "net.0.weight"


def test_values_of_many_sources(torch):
    layer = nn.Linear(2, 1)
    weight, bias = np.array([[1.5, -2.0]]), np.array([0.25])
    sources = [
        (weight, bias),
        (weight.astype(np.float16), bias.astype(">f8")),
        (fc.tensor(weight), nn.Parameter(bias)),
        (weight.tolist(), bias.tolist()),
        (np.broadcast_to(weight, (1, 2)), bias[::-1]),
        (torch.tensor(weight, requires_grad=True), torch.nn.Parameter(torch.tensor(bias))),
        (torch.tensor(weight, dtype=torch.bfloat16), torch.tensor(bias, dtype=torch.float16)),
    ]
    for w, b in sources:
        nn.init.zeros_(layer.weight)
        layer.load_state_dict({"weight": w, "bias": b})
        np.testing.assert_array_equal(layer.weight.data, weight.astype(np.float32))
        np.testing.assert_array_equal(layer.bias.data, bias.astype(np.float32))
        assert layer.weight.dtype == np.float32


def test_values_that_are_views_of_the_module_itself():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    state = _copy(net.state_dict())
    own = net.state_dict()
    net.load_state_dict(
        {
            "0.weight": own["1.weight"].T,
            "0.bias": own["1.bias"],
            "1.weight": own["0.weight"],
            "1.bias": own["0.bias"][::-1],
        }
    )
    np.testing.assert_array_equal(net[0].weight.data, state["1.weight"].T)
    np.testing.assert_array_equal(net[1].weight.data, state["0.weight"])
    np.testing.assert_array_equal(net[1].bias.data, state["0.bias"][::-1])


def test_all_problems_in_one_error_and_nothing_written():
    net = _net()
    before = _copy(net.state_dict())
    state = {key: np.ones_like(value) for key, value in before.items()}
    del state["3.bias"], state["1.running_mean"]
    state["0.weight"] = np.ones((3, 2, 3, 2), np.float32)
    state["1.num_batches_tracked"] = np.float32(3)
    state["surplus"] = np.zeros(1)
    with pytest.raises(ValueError) as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    assert "5 problems" in text and "Sequential" in text
    for words in ("missing key '3.bias'", "missing key '1.running_mean'", "unexpected key 'surplus'", "(3, 2, 3, 2)"):
        assert words in text
    _assert_same(net.state_dict(), before)


def test_not_strict_still_refuses_misshapen_values():
    net = _net()
    before = _copy(net.state_dict())
    with pytest.raises(ValueError, match="shape"):
        net.load_state_dict({"0.bias": np.ones(3, np.float32), "3.bias": np.ones(3, np.float32)}, strict=False)
    _assert_same(net.state_dict(), before)
    result = net.load_state_dict({"0.bias": np.ones(3, np.float32), "extra": None}, strict=False)
    assert result.unexpected_keys == ["extra"] and len(result.missing_keys) == len(before) - 2
    assert net[0].bias.data.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        object(),
        [[1.0, 2.0], [3.0]],
        np.ones((1, 2), np.int64),
        np.ones((1, 2), bool),
        np.ones((1, 2), np.complex64),
        np.ones((1, 2), object),
        np.array([["a", "b"]]),
        np.ones((2, 1), np.float32),
        np.ones(2, np.float32),
        np.ones((1, 2, 1), np.float32),
        np.float32(1),
        np.ones((0, 2), np.float32),
        {"nested": 1},
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}{getattr(value, 'shape', '')}",
)
@pytest.mark.parametrize("strict", [True, False])
def test_hostile_values(value, strict):
    layer = nn.Linear(2, 1)
    before = _copy(layer.state_dict())
    with pytest.raises(ValueError, match="'weight'"):
        # The good entry comes first: it must not be written either.
        layer.load_state_dict({"bias": np.full(1, 9, np.float32), "weight": value}, strict=strict)
    _assert_same(layer.state_dict(), before)


@pytest.mark.parametrize("state", [None, [], "text", 3, [("weight", 1)]])
def test_states_that_are_no_mapping(state):
    with pytest.raises(TypeError, match="mapping"):
        nn.Linear(2, 1).load_state_dict(state)


def test_read_only_parameters_are_named():
    layer = nn.Linear(2, 1)
    frozen = np.zeros((1, 2), np.float32)
    frozen.flags.writeable = False
    layer.weight.data = frozen
    bias = layer.bias.data.copy()
    with pytest.raises(ValueError, match="'weight' is read-only"):
        layer.load_state_dict({"bias": np.ones(1, np.float32), "weight": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(layer.bias.data, bias)


def test_nan_and_infinity_are_values_like_others():
    layer = nn.Linear(2, 1)
    weight = np.array([[np.nan, np.inf]], np.float32)
    layer.load_state_dict({"weight": weight, "bias": np.array([1e300])})
    np.testing.assert_array_equal(layer.weight.data, weight)
    assert np.isinf(layer.bias.data).all()


def test_weights_go_back_to_torch(torch):
    ours = _net()
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(12, 2)
    )
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    x = np.random.default_rng(3).normal(size=(2, 2, 4, 4)).astype(np.float32)
    expected = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours.eval()(x), expected, rtol=1e-5, atol=1e-6)


def test_states_without_a_count_of_batches():
    """States of torch before 0.4.1 have none; torch keeps the count, whatever it is."""
    net = nn.Sequential(nn.BatchNorm1d(2))
    net[0].num_batches_tracked[...] = 5
    state = {key: value + 1 for key, value in net.state_dict().items() if "tracked" not in key}
    assert net.load_state_dict(state) == ([], [])
    assert net[0].num_batches_tracked == 5 and net[0].running_mean.tolist() == [1, 1]
    del state["0.running_mean"]
    with pytest.raises(ValueError, match=r"1 problem:\n  missing key '0\.running_mean'"):
        net.load_state_dict(state)
