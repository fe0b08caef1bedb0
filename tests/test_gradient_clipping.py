"""nn.utils.clip_grad_norm_ and clip_grad_value_ against torch, and their refusals."""

import numpy as np
import pytest

import fastconv.nn as nn
from checks import from_torch, to_torch

SHAPES = [(3, 4), (), (5,)]


def _parameters(torch, dtype=np.float64):
    rng = np.random.default_rng(3)
    ours, theirs = [], []
    for shape in SHAPES:
        gradient = np.asarray(rng.normal(size=shape)).astype(dtype)
        ours.append(nn.Parameter(np.zeros(shape, dtype)))
        theirs.append(torch.nn.Parameter(to_torch(np.zeros(shape, dtype))))
        ours[-1].grad, theirs[-1].grad = gradient, to_torch(gradient.copy())
    ours.append(nn.Parameter(np.zeros(2, dtype)))  # without a gradient
    theirs.append(torch.nn.Parameter(to_torch(np.zeros(2, dtype))))
    return ours, theirs


def _compare(ours, theirs, rtol=1e-12):
    for p, q in zip(ours[:-1], theirs, strict=False):
        assert p.grad.dtype == p.dtype
        np.testing.assert_allclose(p.grad, from_torch(q.grad), rtol=rtol)
    assert ours[-1].grad is None


@pytest.mark.parametrize("norm_type", [1.0, 2, 3.5, float("inf")])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6])
def test_norm_is_torchs(torch, max_norm, norm_type):
    ours, theirs = _parameters(torch)
    arrays = [p.grad for p in ours[:-1]]
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert nn.utils.clip_grad_norm_(iter(ours), max_norm, norm_type) == pytest.approx(float(expected), rel=1e-12)
    _compare(ours, theirs)
    assert all(p.grad is array for p, array in zip(ours, arrays, strict=False))


def test_value_is_torchs(torch):
    for dtype in (np.float64, np.float32, np.float16):
        ours, theirs = _parameters(torch, dtype)
        nn.utils.clip_grad_value_(ours, 0.4)
        torch.nn.utils.clip_grad_value_(theirs, 0.4)
        _compare(ours, theirs)
        assert abs(ours[0].grad).max() == dtype(0.4)


def test_half_precision_and_a_single_read_only_gradient(torch):
    ours, theirs = _parameters(torch, np.float16)
    nn.utils.clip_grad_norm_(ours, 0.5)
    torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    _compare(ours, theirs, rtol=1e-2)
    single = nn.Parameter(np.zeros(4, np.float32))
    single.grad = np.broadcast_to(np.float32(2), 4)
    assert nn.utils.clip_grad_norm_(single, 2.0) == 4.0
    np.testing.assert_allclose(single.grad, 1.0, rtol=1e-6)
    single.grad = np.zeros(0, np.float32)
    assert nn.utils.clip_grad_norm_([single], 1.0, float("inf")) == nn.utils.clip_grad_norm_([], 1.0) == 0.0


def test_norms_that_are_not_finite(torch):
    for wrong in (np.nan, np.inf):
        ours, theirs = _parameters(torch)
        ours[0].grad[1, 2] = wrong
        theirs[0].grad[1, 2] = wrong
        before = [p.grad.copy() for p in ours[:-1]]
        with pytest.raises(ValueError, match="must be finite"):
            nn.utils.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
        for p, old in zip(ours, before, strict=False):
            np.testing.assert_array_equal(p.grad, old)
        with np.errstate(invalid="ignore"):
            nn.utils.clip_grad_norm_(ours, 1.0)
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        _compare(ours, theirs)


@pytest.mark.parametrize("norm_type", [1.0, 2, float("inf")])
def test_the_two_halves_of_clipping_by_norm(torch, norm_type):
    ours, theirs = _parameters(torch)
    expected = torch.nn.utils.get_total_norm([q.grad for q in theirs[:-1]], norm_type)
    total = nn.utils.get_total_norm((p.grad for p in ours[:-1]), norm_type)
    assert total == pytest.approx(float(expected), rel=1e-12)
    assert nn.utils.get_total_norm(ours[0], norm_type) == nn.utils.get_total_norm([], norm_type) == 0
    nn.utils.clip_grads_with_norm_(ours, 0.5, 3 * total)
    torch.nn.utils.clip_grads_with_norm_(theirs, 0.5, 3 * expected)
    _compare(ours, theirs)
    before = [p.grad.copy() for p in ours[:-1]]
    nn.utils.clip_grads_with_norm_(ours, 0.5, 0.25)
    assert all((p.grad == old).all() for p, old in zip(ours, before, strict=False))


def test_bad_norms():
    with pytest.raises(ValueError, match="norm_type must be positive, got 0"):
        nn.utils.get_total_norm([], 0)
    with pytest.raises(ValueError, match="must be finite, got inf"):
        nn.utils.get_total_norm([np.full(2, np.inf)], error_if_nonfinite=True)
    with pytest.raises(TypeError, match="tensors must hold arrays or Tensors, got str"):
        nn.utils.get_total_norm(["1"])
    with pytest.raises(ValueError, match=r"total_norm must not be negative, got -1\.0"):
        nn.utils.clip_grads_with_norm_([], 1.0, -1.0)
    with pytest.raises(ValueError, match="max_norm must not be negative"):
        nn.utils.clip_grads_with_norm_([], -1.0, 1.0)


@pytest.mark.parametrize(
    "arguments, error, word",
    [
        ((-1.0,), ValueError, "max_norm"),
        ((float("nan"),), ValueError, "max_norm"),
        (("1",), TypeError, "max_norm"),
        ((1.0, 0), ValueError, "norm_type"),
        ((1.0, None), TypeError, "norm_type"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, error, word):
    with pytest.raises(error, match=word):
        nn.utils.clip_grad_norm_(nn.Linear(2, 1).parameters(), *arguments)


def test_bad_values():
    with pytest.raises(ValueError, match="clip_value"):
        nn.utils.clip_grad_value_([], -1.0)
    with pytest.raises(TypeError, match="parameters must hold Tensors"):
        nn.utils.clip_grad_value_([np.zeros(2)], 1.0)
