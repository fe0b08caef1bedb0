"""Activations in NumPy: kinks, huge values and NaN as torch has them, the error function, in-place calls, slopes."""

import math

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn.functional as F
from checks import from_torch, to_torch

SPECIAL = np.array([-np.inf, -1e30, -1000, -90, -3, -0.5, -0.0, 0, 0.5, 3, 90, 1000, 1e30, np.inf, np.nan])
# The options put kinks on values of SPECIAL.
CALLS = {
    "elu": (0.5,),
    "selu": (),
    "celu": (0.5,),
    "gelu": (),
    "silu": (),
    "mish": (),
    "softsign": (),
    "logsigmoid": (),
    "tanhshrink": (),
    "hardsigmoid": (),
    "hardswish": (),
    "hardshrink": (0.5,),
    "softshrink": (0.5,),
    "threshold": (0.5, 7.0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_special_values_are_torchs(torch, name, dtype):
    if name == "gelu" and dtype == np.float32:
        pytest.skip("torch's has four digits at -3 and no number at infinity")
    x = SPECIAL.astype(dtype)
    tensor = to_torch(x).requires_grad_()
    expected = getattr(torch.nn.functional, name)(tensor, *CALLS[name])
    expected.sum().backward()
    y, pullback = getattr(F, name).vjp(x, *CALLS[name])
    near = {"rtol": 1e-6, "atol": 2e-7}  # torch has the constants of hardsigmoid and gelu in float32
    np.testing.assert_allclose(y, from_torch(expected.detach()), **near)
    (dx,), theirs = pullback(np.ones_like(x)), from_torch(tensor.grad)
    # Where torch's gradient is no number (infinity times zero), any will do, and any where the input is none.
    np.testing.assert_allclose(np.where(np.isnan(theirs), np.nan, dx)[:-1], theirs[:-1], **near)


@pytest.mark.parametrize("dtype, error", [(np.float64, 4e-14), (np.float32, 4e-7)])
def test_gelu_against_the_error_function(dtype, error):
    x = np.linspace(-12, 12, 4001).astype(dtype)
    shares = np.array([0.5 * math.erfc(-v * math.sqrt(0.5)) for v in x.tolist()])
    y, pullback = F.gelu.vjp(x)
    np.testing.assert_allclose(y, x * shares, rtol=10 * error, atol=error)
    slopes = shares + x * np.exp(-0.5 * x.astype(np.float64) ** 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(pullback(np.ones_like(x))[0], slopes, rtol=10 * error, atol=error)


@pytest.mark.parametrize("name", ["elu", "selu", "celu", "silu", "mish", "hardsigmoid", "hardswish", "threshold"])
def test_in_place(name):
    x = np.array([-2.0, -0.25, 3.0])
    expected = getattr(F, name)(x, *CALLS[name])
    out = x.copy()
    assert getattr(F, name)(out, *CALLS[name], inplace=True) is out
    np.testing.assert_array_equal(out, expected)
    recorded = fc.tensor(x, requires_grad=True)
    getattr(F, name)(recorded, *CALLS[name], inplace=True).sum().backward()
    np.testing.assert_array_equal(recorded.data, x)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="input must be writable"):
        getattr(F, name)(out, *CALLS[name], inplace=True)


def test_random_slopes():
    x = np.linspace(-1, 1, 2001)
    y, pullback = F.rrelu.vjp(x, 0.25, 0.5, training=True, rng=np.random.default_rng(0))
    slopes = pullback(np.ones_like(x))[0]
    np.testing.assert_array_equal(y, x * slopes)
    assert (slopes[x > 0] == 1).all()
    drawn = slopes[x <= 0]
    assert 0.25 <= drawn.min() < 0.26 and 0.49 < drawn.max() < 0.5 and len(set(drawn)) > 900
    again = F.rrelu(x, 0.25, 0.5, training=True, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(F.rrelu(x, 0.25, 0.5), np.where(x > 0, x, 0.375 * x))


def test_alpha_dropout_is_torchs_formula():
    x = np.random.default_rng(1).normal(size=10_000)
    y, pullback = F.alpha_dropout.vjp(x, 0.3, training=True, rng=np.random.default_rng(2))
    dropped = pullback(np.ones_like(x))[0] == 0
    assert 0.28 < dropped.mean() < 0.32 and len(set(y[dropped])) == 1
    limit = -1.7580993408473766
    a = (0.7 * (1 + 0.3 * limit**2)) ** -0.5
    np.testing.assert_allclose(y, a * np.where(dropped, limit, x) - a * limit * 0.3, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(F.alpha_dropout(x, 1.0, training=True), np.zeros_like(x))
    assert F.alpha_dropout(x, 0.3) is x


BAD_CALLS = [
    ("alpha must not be 0", lambda x: F.celu(x, 0.0)),
    ("approximate must be 'none' or 'tanh', got 'erf'", lambda x: F.gelu(x, "erf")),
    ("lambd must not be negative, got -1", lambda x: F.softshrink(x, -1)),
    ("lower must be at most upper, got 0.5 and 0.25", lambda x: F.rrelu(x, 0.5, 0.25)),
    (r"input must have an even size along dim 0, got shape \(3, 4\)", lambda x: F.glu(x, 0)),
    ("dim must be from -2 to 1", lambda x: F.glu(x, 2)),
    ("p must be from 0 to 1, got 2", lambda x: F.alpha_dropout(x, 2, training=True)),
]


@pytest.mark.parametrize(("message", "call"), BAD_CALLS, ids=[str(i) for i in range(len(BAD_CALLS))])
def test_bad_options(message, call):
    with pytest.raises(ValueError, match=message):
        call(np.ones((3, 4)))


@pytest.mark.parametrize("name", [*CALLS, "glu", "rrelu", "softmin", "alpha_dropout"])
def test_integers_are_refused(name):
    with pytest.raises(TypeError, match="input must be float32"):
        getattr(F, name)(np.ones((2, 2), int), *CALLS.get(name, ()))
