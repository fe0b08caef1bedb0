"""What a Tensor's indices and selections give where torch and NumPy differ, or where a dimension is named twice."""

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from checks import from_torch, to_torch

VALUES = np.arange(120.0).reshape(2, 3, 4, 5)

INDICES = {
    "number and array apart": lambda m: (0, slice(None), [0, 1]),
    "array and number apart": lambda m: ([1, 0, 1], slice(None), -1),
    "number behind an ellipsis": lambda m: ([1, 0], Ellipsis, 2),
    "numbers around arrays": lambda m: (1, [0, 2], slice(1, 3), [1, 4]),
    "new dimensions": lambda m: (None, 0, slice(None), None, [3, 0]),
    "a mask of two dimensions": lambda m: (1, slice(None), m(VALUES[0, 0] % 3 == 0)),
    "a mask and a number behind it": lambda m: (m(np.array([True, False])), 2, slice(None), 1),
    "side by side": lambda m: (0, [0, 1], slice(None), slice(1, 4)),
    "numbers alone": lambda m: (1, Ellipsis, 0),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_indices_are_torchs(torch, index):
    x, t = fc.tensor(VALUES, requires_grad=True), to_torch(VALUES).requires_grad_()
    y, expected = x[index(np.asarray)], t[index(torch.from_numpy)]
    np.testing.assert_array_equal(y.data, from_torch(expected.detach()))
    weights = np.random.default_rng(0).random(y.shape)
    (y * weights).sum().backward()
    (expected * to_torch(weights)).sum().backward()
    np.testing.assert_allclose(x.grad, from_torch(t.grad))


def test_an_empty_dim_names_all(torch):
    x, t = fc.tensor(VALUES), to_torch(VALUES)
    for name in ("sum", "mean", "var", "std", "amax"):
        np.testing.assert_allclose(getattr(x, name)(()).data, from_torch(getattr(t, name)(())))
    assert x.sum(axis=()).shape == VALUES.shape  # NumPy's names none


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, bool])
def test_sums_of_integers_do_not_wrap(torch, dtype):
    values = np.random.default_rng(0).integers(0, 2 if dtype is bool else 120, (3, 40)).astype(dtype)
    x, t = fc.tensor(values), torch.from_numpy(values)
    for name, arguments in (
        ("sum", ()),
        ("sum", (1,)),
        ("cumsum", (0,)),
        ("cumsum", (1,)),
        ("cumprod", (0,)),
        ("prod", (0,)),
    ):
        y, expected = (getattr(a, name)(*arguments) for a in (x, t))
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y.data, expected.numpy())
    assert x.mean().dtype == np.float64
    np.testing.assert_allclose(x.mean(1).data, values.mean(1))
    np.testing.assert_allclose(x.var(1).data, values.astype(float).var(1, ddof=1))


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_writing_to_indices_is_torchs(torch, index):
    x, t = fc.tensor(VALUES.copy()), to_torch(VALUES.copy())
    value = np.random.default_rng(0).random(x[index(np.asarray)].shape)
    x[index(np.asarray)] = value
    t[index(torch.from_numpy)] = to_torch(value)
    np.testing.assert_array_equal(x.data, from_torch(t))
    leaf = fc.tensor(VALUES.copy(), requires_grad=True)
    with pytest.raises(ValueError, match=r"under fastconv\.no_grad"):
        leaf[0] = 1
    with fc.no_grad():
        leaf[..., 0] = fc.tensor(2.0)
    assert (leaf.data[..., 0] == 2).all() and leaf.data[0, 0, 0, 1] == 1


def test_parts_of_nothing_are_torchs(torch):
    x, t = fc.tensor(np.zeros((0, 3))), torch.zeros(0, 3)
    for method, arguments in (("split", (2,)), ("chunk", (3,)), ("split", (2, 1))):
        ours, theirs = (getattr(a, method)(*arguments) for a in (x, t))
        assert [part.shape for part in ours] == [tuple(part.shape) for part in theirs]


def test_dimensions_that_are_refused():
    x = fc.tensor(VALUES)
    for call, message in (
        (lambda: x.flip((0, 0)), "dims must name each dimension once"),
        (lambda: x.flip(1, -3), "dims must name each dimension once"),
        (lambda: x.roll((1, 2)), "shifts must be one for each of dims"),
        (lambda: x.roll(1, (0, 1)), "shifts must be one for each of dims"),
        (lambda: x.expand(-1, 2, 3, 4, 5), "sizes must name 4 dimensions or more, new ones by a size"),
        (lambda: x.expand(4, 5), "sizes must name 4 dimensions or more"),
        (lambda: x.t(), "at most 2 dimensions, got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_functions_of_numpy_drop_no_gradient_in_silence():
    x = fc.tensor(VALUES[0, 0], requires_grad=True)
    for call in (
        lambda t: np.concatenate([t, t]),
        lambda t: np.transpose(t),
        lambda t: np.where(VALUES[0, 0] > 3, t, 0),
        lambda t: np.mean(t, axis=0),
        lambda t: np.clip(t, 0, 1),
        lambda t: np.pad(t * 2, 1),
    ):
        with pytest.raises(TypeError, match=r"numpy\..* records no gradient"):
            call(x)
        expected = call(VALUES[0, 0])
        with fc.no_grad():
            np.testing.assert_array_equal(call(x), expected)
        result = call(fc.tensor(VALUES[0, 0]))
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected)
    assert np.shape(x) == (4, 5) and np.array_equal(x, VALUES[0, 0]) and np.asarray(x) is x.data


def test_bfloat16_by_name():
    x = fc.tensor([1.0, 3.0], dtype="bfloat16", requires_grad=True)
    assert x.dtype == ml_dtypes.bfloat16 and x.bfloat16() is x
    assert fc.tensor([1.5]).bfloat16().dtype == fc.tensor([1.5]).to("cpu", "bfloat16").dtype == ml_dtypes.bfloat16
    layer = fc.nn.Linear(2, 1, dtype="bfloat16")
    assert layer.weight.dtype == fc.nn.Linear(2, 1).bfloat16().weight.dtype == ml_dtypes.bfloat16
    layer(x).sum().backward()
    np.testing.assert_array_equal(x.grad, layer.weight.data[0])
