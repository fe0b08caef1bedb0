"""float64 twins, forward only, of the losses: what tests compare `fastconv.nn.functional` with.

They take arrays that are already known to be right and return float64; `reduction` is "none", "mean" or "sum".
Sources: the functions of the same names in torch.nn.functional.
"""

from __future__ import annotations

import numpy as np

from .checks import wide
from .functional import log_softmax


def _reduced(loss: np.ndarray, reduction: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        if reduction == "mean":
            return np.asarray(loss.sum() / np.float64(loss.size))
        return np.asarray(loss.sum() if reduction == "sum" else loss)


@np.errstate(all="ignore")
def nll_loss(
    log_probability: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> np.ndarray:
    """-weight[t] * log_probability[t] for class indices t; the mean is weighted and leaves out `ignore_index`.

    log_probability (N, C, *S) with target (N, *S), or (C,) with target ().
    """
    axis = 0 if log_probability.ndim == 1 else 1
    kept = target != ignore_index
    index = np.where(kept, target, 0)
    picked = np.take_along_axis(wide(log_probability), np.expand_dims(index, axis), axis).squeeze(axis)
    weights = np.where(kept, 1.0 if weight is None else wide(weight)[index], 0.0)
    loss = np.where(kept, -weights * picked, 0.0)
    return np.asarray(loss.sum() / weights.sum()) if reduction == "mean" else _reduced(loss, reduction)


@np.errstate(all="ignore")
def cross_entropy(
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> np.ndarray:
    """-sum over classes of weight * target * log_softmax(logits), for class indices or class probabilities.

    >>> cross_entropy(np.zeros((1, 2)), np.array([1]), reduction="sum") == np.log(2)
    np.True_
    """
    axis = 0 if logits.ndim == 1 else 1
    classes = logits.shape[axis]
    column = (classes, *(1,) * (logits.ndim - axis - 1))
    weights = np.ones(column) if weight is None else wide(weight).reshape(column)
    log_probability = log_softmax(logits, axis)
    if target.shape == logits.shape and target.dtype.kind not in "iu":
        smoothed = wide(target) * (1 - label_smoothing) + label_smoothing / classes
        loss = -(weights * smoothed * log_probability).sum(axis=axis)
        return _reduced(loss, reduction)
    kept = target != ignore_index
    index = np.where(kept, target, 0)
    one_hot = np.moveaxis(np.eye(classes)[index], -1, axis)
    # Smoothing spreads its share over all classes; the weights of the mean stay those of the target class.
    smoothed = one_hot * (1 - label_smoothing) + label_smoothing / classes
    terms = np.where(smoothed == 0, 0.0, weights * smoothed * log_probability)
    loss = np.where(kept, -terms.sum(axis=axis), 0.0)
    if reduction == "mean":
        return np.asarray(loss.sum() / (np.where(kept, weights.reshape(-1)[index], 0.0)).sum())
    return _reduced(loss, reduction)


def mse_loss(x: np.ndarray, target: np.ndarray, reduction: str = "mean") -> np.ndarray:
    """(x - target) ** 2."""
    return _reduced(np.square(wide(x) - wide(target)), reduction)


def l1_loss(x: np.ndarray, target: np.ndarray, reduction: str = "mean") -> np.ndarray:
    """|x - target|."""
    return _reduced(np.abs(wide(x) - wide(target)), reduction)


def smooth_l1_loss(x: np.ndarray, target: np.ndarray, reduction: str = "mean", beta: float = 1.0) -> np.ndarray:
    """d ** 2 / (2 beta) where d = |x - target| is below beta, d - beta / 2 elsewhere."""
    distance = np.abs(wide(x) - wide(target))
    with np.errstate(all="ignore"):
        return _reduced(np.where(distance < beta, distance**2 / 2 / beta, distance - beta / 2), reduction)


@np.errstate(all="ignore")
def kl_div(x: np.ndarray, target: np.ndarray, reduction: str = "mean", log_target: bool = False) -> np.ndarray:
    """target * (log(target) - x), 0 where the target is; "batchmean" divides the sum by the first dimension."""
    t = wide(target)
    entropy, share = (np.exp(t) * t, np.exp(t)) if log_target else (np.where(t == 0, 0.0, t * np.log(t)), t)
    loss = entropy - share * wide(x)
    return np.asarray(loss.sum() / x.shape[0]) if reduction == "batchmean" else _reduced(loss, reduction)


def hinge_embedding_loss(x: np.ndarray, target: np.ndarray, margin: float = 1.0, reduction: str = "mean") -> np.ndarray:
    """x where the target is 1, max(0, margin - x) where it is -1; torch adds both where it is neither."""
    positive = np.where(target != -1, wide(x), 0.0)
    negative = np.where(target != 1, np.maximum(margin - wide(x), 0), 0.0)
    return _reduced(positive + negative, reduction)


@np.errstate(all="ignore")
def binary_cross_entropy(
    x: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None, reduction: str = "mean"
) -> np.ndarray:
    """-(target * log(x) + (1 - target) * log(1 - x)), the logarithms not below -100, as in torch."""
    probability, t = wide(x), wide(target)
    loss = -(t * np.maximum(np.log(probability), -100) + (1 - t) * np.maximum(np.log1p(-probability), -100))
    return _reduced(loss if weight is None else loss * wide(weight), reduction)


@np.errstate(all="ignore")
def binary_cross_entropy_with_logits(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    reduction: str = "mean",
    pos_weight: np.ndarray | None = None,
) -> np.ndarray:
    """`binary_cross_entropy` of sigmoid(x), from log(sigmoid(x)) = -log(1 + exp(-x)); pos_weight scales the ones."""
    logits, t = wide(x), wide(target)
    ones = 1.0 if pos_weight is None else wide(pos_weight)
    loss = ones * t * np.logaddexp(0, -logits) + (1 - t) * np.logaddexp(0, logits)
    return _reduced(loss if weight is None else loss * wide(weight), reduction)


def multi_margin_loss(
    x: np.ndarray,
    target: np.ndarray,
    p: int = 1,
    margin: float = 1.0,
    weight: np.ndarray | None = None,
    reduction: str = "mean",
) -> np.ndarray:
    """weight[t] * sum over j != t of max(0, margin - x[t] + x[j]) ** p / C, for x (N, C) and classes t (N,)."""
    rows = np.arange(len(x))
    hinges = np.maximum(margin - wide(x)[rows, target][:, None] + wide(x), 0) ** p
    hinges[rows, target] = 0
    return _reduced(hinges.sum(axis=1) / x.shape[1] * (1.0 if weight is None else wide(weight)[target]), reduction)


def soft_margin_loss(x: np.ndarray, target: np.ndarray, reduction: str = "mean") -> np.ndarray:
    """log(1 + exp(-target * x))."""
    return _reduced(np.logaddexp(0, -wide(target) * wide(x)), reduction)


def multilabel_margin_loss(x: np.ndarray, target: np.ndarray, reduction: str = "mean") -> np.ndarray:
    """Sum over right classes y, those before the first -1, and wrong ones j of max(0, 1 - x[y] + x[j]) / C; x (N, C).

    >>> multilabel_margin_loss(np.array([[0.5, 0.0, 1.0]]), np.array([[2, -1, 0]]), "sum").item() * 3
    0.5
    """
    loss = np.zeros(len(x))
    for n, (scores, labels) in enumerate(zip(wide(x), target.tolist())):
        right = labels[: labels.index(-1)] if -1 in labels else labels
        wrong = [j for j in range(len(scores)) if j not in right]
        loss[n] = sum(max(0.0, 1 - scores[y] + scores[j]) for y in right for j in wrong) / len(scores)
    return _reduced(loss, reduction)


def multilabel_soft_margin_loss(
    x: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None, reduction: str = "mean"
) -> np.ndarray:
    """`binary_cross_entropy_with_logits`, averaged over the last dimension."""
    return _reduced(binary_cross_entropy_with_logits(x, target, weight, "none").mean(axis=-1), reduction)


@np.errstate(all="ignore")
def gaussian_nll_loss(
    x: np.ndarray, target: np.ndarray, var: np.ndarray, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> np.ndarray:
    """(log(v) + (x - target) ** 2 / v) / 2 with v = max(var, eps), and log(2 pi) / 2 if `full`."""
    v = np.maximum(wide(var), eps)
    v = v[..., None] if v.shape == x.shape[:-1] and v.shape != x.shape else v
    constant = 0.5 * np.log(2 * np.pi) if full else 0.0
    return _reduced(0.5 * (np.log(v) + (wide(x) - wide(target)) ** 2 / v) + constant, reduction)


@np.errstate(all="ignore")
def poisson_nll_loss(
    x: np.ndarray,
    target: np.ndarray,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> np.ndarray:
    """rate - target * log(rate), of log rates or rates x; if `full`, Stirling's log(target!) for targets above 1."""
    t = wide(target)
    loss = np.exp(wide(x)) - t * wide(x) if log_input else wide(x) - t * np.log(wide(x) + eps)
    stirling = np.where(t > 1, t * np.log(t) - t + 0.5 * np.log(2 * np.pi * t), 0.0)
    return _reduced(loss + stirling if full else loss, reduction)
