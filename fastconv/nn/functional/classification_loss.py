"""Losses of class scores: cross_entropy and nll_loss."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ...devices import array_module, as_array
from ...differentiable import A, Array, apply, differentiable
from .exponential import shifted_exponentials
from .parameters import check_floating, check_same_dtype, compute_dtype
from .reduction import check_reduction, may_read, reduce


def _class_weight(weight: ndarray | None, x: ndarray, dim: int) -> ndarray:
    """Weights of the classes, shaped to multiply `x`."""
    classes = x.shape[dim]
    shape = (classes, *(1,) * (x.ndim - 1 - dim))
    if weight is None:
        return array_module(x).ones(shape, compute_dtype(x))
    check_same_dtype(weight, "weight", x, "input")
    if weight.shape != (classes,):
        raise ValueError(f"weight must have one entry for each of {classes} classes, got shape {weight.shape}")
    return weight.astype(compute_dtype(x), copy=False).reshape(shape)


def _one_hot(target: ndarray, x: ndarray, dim: int, ignore_index: int) -> tuple[ndarray, ndarray, ndarray]:
    """Which class is each target's (shape of `x`), which targets count (1 in place of the classes), which are wrong."""
    expected = (*x.shape[:dim], *x.shape[dim + 1 :])
    if target.shape != expected:
        raise ValueError(f"target must have shape {expected} for an input of shape {x.shape}, got {target.shape}")
    classes = x.shape[dim]
    counted = target != ignore_index
    wrong = ((target < 0) | (target >= classes)) & counted
    if may_read(target) and wrong.any():
        raise ValueError(
            f"target must hold classes from 0 to {classes - 1} or ignore_index {ignore_index}, "
            f"got {target[wrong].flat[0]}"
        )
    labels = array_module(x).arange(classes).reshape(classes, *(1,) * (x.ndim - 1 - dim))
    counted = np.expand_dims(counted, dim)
    return (np.expand_dims(target, dim) == labels) & counted, counted, wrong


def _marked(loss: ndarray, wrong: ndarray) -> ndarray:
    """`loss`, NaN where a GPU found a target that is `wrong`."""
    return loss if may_read(loss) else np.where(wrong, np.nan, loss).astype(loss.dtype, copy=False)


def _weighted_sum(factors: ndarray, x: ndarray, dim: int) -> ndarray:
    """Sum of factors * x over the classes; a factor of 0 removes infinities, too."""
    with np.errstate(invalid="ignore"):
        return np.where(factors == 0, 0, factors * x).sum(axis=dim)


def _check_scores(x: ndarray) -> int:
    """The dimension of the classes."""
    check_floating(x, "input")
    if x.ndim < 1:
        raise ValueError("input must have shape (C,) or (N, C, *), got a 0-dimensional array")
    return 0 if x.ndim == 1 else 1


def _nll_rule(wanted, x, target, weight, ignore_index, reduction):
    check_reduction(reduction)
    dim = _check_scores(x)
    if target.dtype.kind not in "iu":
        raise TypeError(f"target must hold integers, the classes; got dtype {target.dtype}")
    hot, _, wrong = _one_hot(target, x, dim, ignore_index)
    factors = hot * _class_weight(weight, x, dim)
    loss = _marked(-_weighted_sum(factors, x, dim), wrong)
    y, spread = reduce(loss, reduction, factors.sum(), x.dtype)

    def pullback(dy):
        return (as_array(-factors * np.expand_dims(spread(dy), dim if reduction == "none" else ()), x.dtype),)

    return y, pullback


def _cross_entropy_rule(wanted, x, target, weight, ignore_index, reduction, label_smoothing):
    check_reduction(reduction)
    dim = _check_scores(x)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")
    classes = x.shape[dim]
    if classes == 0:
        raise ValueError(f"input must have at least one class, got shape {x.shape}")
    weights = _class_weight(weight, x, dim)
    smooth = label_smoothing / classes
    if target.dtype.kind in "iu":
        hot, counted, wrong = _one_hot(target, x, dim, ignore_index)
        factors = ((1 - label_smoothing) * hot + smooth * counted).astype(weights.dtype) * weights
        count = (hot * weights).sum()
    else:
        check_same_dtype(target, "target", x, "input")
        if target.shape != x.shape:
            raise ValueError(f"target must have the input's shape {x.shape} or hold integers, got {target.shape}")
        if ignore_index >= 0:
            raise ValueError(f"ignore_index must be left out where target holds probabilities, got {ignore_index}")
        factors = (target.astype(weights.dtype, copy=False) * (1 - label_smoothing) + smooth) * weights
        count, wrong = x.size // classes, None
    shifted, exponentials, total = shifted_exponentials(x.astype(weights.dtype, copy=False), dim)
    log_probabilities = shifted - np.log(total)
    loss = -_weighted_sum(factors, log_probabilities, dim)
    loss = loss if wrong is None else _marked(loss, wrong)
    y, spread = reduce(loss, reduction, count, x.dtype)

    def pullback(dy):
        g = np.expand_dims(spread(dy), dim if reduction == "none" else ())
        dx = dtarget = None
        if wanted[0]:
            share = factors.sum(axis=dim, keepdims=True)
            dx = as_array(g * (exponentials / total * share - factors), x.dtype)
        if wanted[1]:
            dtarget = as_array(g * (label_smoothing - 1) * weights * log_probabilities, x.dtype)
        return dx, dtarget

    return y, pullback


@differentiable(_cross_entropy_rule, wrt=("input", "target"), buffers=("weight",))
def cross_entropy(
    input: A,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> A:
    """``-log(softmax(input))`` of the target's class, as torch.nn.functional.cross_entropy.

    Parameters
    ----------
    input : array, shape (C,), (N, C) or (N, C, *)
        Logits; float32, float64, float16 or bfloat16.
    target : integer array, shape (), (N,) or (N, *); or array of the input's shape and dtype
        Classes, or the probability of each class.
    weight : array, shape (C,), optional
        Factor of each class; "mean" divides by the targets' factors.
    ignore_index : int
        Targets with this value count nothing.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        From 0 to 1: this share of the target is spread evenly over the classes.

    Returns
    -------
    array, shape (), or that of class targets for "none"

    Raises
    ------
    ValueError
        A class that does not exist, shapes that do not fit, an option out of its range.
    TypeError
        A dtype that is not supported.

    Notes
    -----
    ``cross_entropy.vjp`` gives the gradient of the input, and for probabilities that of the target, too.
    A batch whose targets are all ignored gives NaN under "mean", as in torch.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.cross_entropy(np.zeros((2, 10)), np.array([3, 7])).round(4)
    np.float64(2.3026)
    """
    return apply(cross_entropy, input, target, weight, ignore_index, reduction, label_smoothing)


@differentiable(_nll_rule, wrt=("input",), buffers=("target", "weight"))
def nll_loss(
    input: A,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> A:
    """``-input`` of the target's class, `input` being log-probabilities, as torch.nn.functional.nll_loss.

    Parameters
    ----------
    input : array, shape (C,), (N, C) or (N, C, *)
        float32, float64, float16 or bfloat16.
    target : integer array, shape (), (N,) or (N, *)
    weight, ignore_index, reduction
        As for `cross_entropy`.

    Returns
    -------
    array, shape (), or that of the target for "none"

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.nll_loss(np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.array([0, 1]))
    array(2.5)
    """
    return apply(nll_loss, input, target, weight, ignore_index, reduction)
