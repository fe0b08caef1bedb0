"""The float64 twins of array-code operators against torch."""

import numpy as np
import pytest

from checks import from_torch, to_torch
from fastconv.reference import functional, loss

torch = pytest.importorskip("torch")
F = torch.nn.functional


def close(actual, expected):
    expected = from_torch(expected)
    assert actual.shape == expected.shape and actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes]


EXTREMES = np.array([-1000.0, -21, -1, -1e-9, 0, 0.5, 19, 21, 1000])


def test_elementwise():
    t = to_torch(EXTREMES)
    close(functional.sigmoid(EXTREMES), torch.sigmoid(t))
    close(functional.tanh(EXTREMES), torch.tanh(t))
    close(functional.softplus(EXTREMES), F.softplus(t))
    close(functional.softplus(EXTREMES, 0.5, 3), F.softplus(t, 0.5, 3))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(axis):
    x = 300 * arrays((2, 3, 4))[0]
    close(functional.softmax(x, axis), F.softmax(to_torch(x), axis))
    close(functional.log_softmax(x, axis), F.log_softmax(to_torch(x), axis))


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_bilinear(lead):
    x1, x2, w, b = arrays((*lead, 3), (*lead, 4), (6, 3, 4), 6)
    close(functional.bilinear(x1, x2, w), F.bilinear(*map(to_torch, (x1, x2, w))))
    close(functional.bilinear(x1, x2, w, b), F.bilinear(*map(to_torch, (x1, x2, w, b))))


def test_dropout():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    mask = np.array([True, False, False, True])
    np.testing.assert_array_equal(functional.dropout(x, mask, 0.75), [4, 0, 0, 16])
    np.testing.assert_array_equal(functional.dropout(x, mask & False, 1.0), [0, 0, 0, 0])


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("widths", [(1, 2), (2, 0, 1, 3), (0, 1, 1, 0, 1, 1), (-1, 2), (3, -2, -1, -1)])
def test_pad(mode, widths):
    (x,) = arrays((2, 3, *(4, 5, 6)[-len(widths) // 2 :]))
    extra = (7.5,) if mode == "constant" else ()
    close(functional.pad(x, widths, mode, *extra), F.pad(to_torch(x), widths, mode, *extra))


@pytest.mark.parametrize("options", [(), ((2, 1),), ((1, 2), (2, 1)), ((1, 1), (1, 0), (3, 2))])
def test_unfold(options):
    (x,) = arrays((2, 3, 7, 6))
    close(functional.unfold(x, (3, 2), *options), F.unfold(to_torch(x), (3, 2), *options))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("lead, rest", [((), ()), ((5,), ()), ((4,), (2, 3))])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classification_losses(reduction, lead, rest, weighted, smoothing):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*lead, 3, *rest))
    target = np.asarray(rng.integers(0, 3, (*lead, *rest)))
    if target.size > 1:
        target.reshape(-1)[1] = 9
    weight = rng.random(3) + 0.5 if weighted else None
    t_weight = None if weight is None else to_torch(weight)
    axis = len(lead)
    tx, tt = to_torch(x), torch.from_numpy(target)
    close(
        loss.cross_entropy(x, target, weight, 9, reduction, smoothing),
        F.cross_entropy(tx, tt, t_weight, ignore_index=9, reduction=reduction, label_smoothing=smoothing),
    )
    close(
        loss.nll_loss(functional.log_softmax(x, axis), target, weight, 9, reduction),
        F.nll_loss(F.log_softmax(tx, axis), tt, t_weight, ignore_index=9, reduction=reduction),
    )
    probability = functional.softmax(rng.standard_normal(x.shape), axis)
    close(
        loss.cross_entropy(x, probability, weight, reduction=reduction, label_smoothing=smoothing),
        F.cross_entropy(tx, to_torch(probability), t_weight, reduction=reduction, label_smoothing=smoothing),
    )


def test_mean_over_nothing_is_nan():
    assert np.isnan(loss.nll_loss(np.zeros((2, 3)), np.array([1, 1]), ignore_index=1))
    assert np.isnan(loss.mse_loss(np.zeros((0, 3)), np.zeros((0, 3))))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_regression_losses(reduction):
    x, target = arrays((4, 3), (4, 3))
    tx, tt = to_torch(x), to_torch(target)
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss"):
        close(getattr(loss, name)(x, target, reduction), getattr(F, name)(tx, tt, reduction=reduction))
    for beta in (0.0, 0.3, 2.0):
        close(loss.smooth_l1_loss(x, target, reduction, beta), F.smooth_l1_loss(tx, tt, reduction=reduction, beta=beta))
    signs = np.where(target > 0.5, 1.0, np.where(target < -0.5, -1.0, 0.0))
    close(
        loss.hinge_embedding_loss(x, signs, 0.7, reduction),
        F.hinge_embedding_loss(tx, to_torch(signs), 0.7, reduction=reduction),
    )


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "batchmean"])
def test_kl_div(reduction):
    x, target = arrays((4, 3), (4, 3))
    log_p = functional.log_softmax(target, 1)
    p = np.exp(log_p)
    p[0, 0] = 0
    close(loss.kl_div(x, p, reduction), F.kl_div(to_torch(x), to_torch(p), reduction=reduction))
    close(
        loss.kl_div(x, log_p, reduction, True),
        F.kl_div(to_torch(x), to_torch(log_p), reduction=reduction, log_target=True),
    )


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [True, False])
def test_binary_losses(reduction, weighted):
    rng = np.random.default_rng(0)
    x, target = rng.random((4, 3)), rng.random((4, 3))
    x[0], target[0] = (0, 1, 0.5), (1, 1, 0)
    weight, positive = (rng.random((4, 3)), rng.random(3)) if weighted else (None, None)
    t_weight, t_positive = (to_torch(weight), to_torch(positive)) if weighted else (None, None)
    tt = to_torch(target)
    close(
        loss.binary_cross_entropy(x, target, weight, reduction),
        F.binary_cross_entropy(to_torch(x), tt, t_weight, reduction=reduction),
    )
    logits = 100 * (x - 0.5)
    close(
        loss.binary_cross_entropy_with_logits(logits, target, weight, reduction, positive),
        F.binary_cross_entropy_with_logits(to_torch(logits), tt, t_weight, reduction=reduction, pos_weight=t_positive),
    )
