"""Margin losses of class scores, those of multiclass support vector machines."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ...differentiable import A, Array, apply, differentiable
from .parameters import check_floating, check_same_dtype, compute_dtype
from .reduction import check_reduction, reduce


def _scores(x: ndarray, target: ndarray) -> tuple[ndarray, ndarray]:
    """Scores (N, C) in the type to compute in, and which entry is the target's class (N, C, bool)."""
    check_floating(x, "input")
    if target.dtype.kind not in "iu":
        raise TypeError(f"target must hold integers, the classes; got dtype {target.dtype}")
    if x.ndim not in (1, 2) or x.shape[-1] == 0:
        raise ValueError(f"input must have shape (N, C) or (C,) with at least one class, got {x.shape}")
    if target.shape != x.shape[:-1]:
        raise ValueError(f"target must have shape {x.shape[:-1]} for an input of shape {x.shape}, got {target.shape}")
    classes = x.shape[-1]
    wrong = target[(target < 0) | (target >= classes)]
    if wrong.size:
        raise ValueError(f"target must hold classes from 0 to {classes - 1}, got {wrong.flat[0]}")
    scores = x.reshape(-1, classes).astype(compute_dtype(x), copy=False)
    return scores, target.reshape(-1, 1) == np.arange(classes)


def _class_weight(weight: ndarray | None, x: ndarray, hot: ndarray) -> ndarray:
    """The factor (N, 1) of each sample: that of its class."""
    if weight is None:
        return np.ones((len(hot), 1), compute_dtype(x))
    check_same_dtype(weight, "weight", x, "input")
    if weight.shape != hot.shape[1:]:
        raise ValueError(f"weight must have one entry for each of {hot.shape[1]} classes, got shape {weight.shape}")
    return np.broadcast_to(weight, hot.shape)[hot].reshape(-1, 1).astype(compute_dtype(x))


def _multi_margin_rule(wanted, x, target, p, margin, weight, reduction):
    check_reduction(reduction)
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2, got {p!r}")
    scores, hot = _scores(x, target)
    factor = _class_weight(weight, x, hot) / hot.shape[1]
    excess = np.where(hot, 0, np.maximum(margin - scores[hot][:, None] + scores, 0))
    loss = (factor * (excess if p == 1 else excess * excess)).sum(axis=1)
    y, spread = reduce(loss.reshape(target.shape), reduction, target.size, x.dtype)

    def pullback(dy):
        slope = factor * (excess > 0 if p == 1 else 2 * excess)
        slope -= np.where(hot, slope.sum(axis=1, keepdims=True), 0)
        return (np.asarray((spread(dy).reshape(-1, 1) * slope).reshape(x.shape), x.dtype),)

    return y, pullback


def _one_vs_all_rule(wanted, x, target, p, margin, reduction):
    check_reduction(reduction)
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2, got {p!r}")
    scores, hot = _scores(x, target)
    sign = np.where(hot, 1, -1).astype(scores.dtype)
    excess = np.maximum(margin - sign * scores, 0)
    loss = (excess if p == 1 else excess * excess).sum(axis=1)
    y, spread = reduce(loss.reshape(target.shape), reduction, target.size, x.dtype)

    def pullback(dy):
        slope = -sign * (excess > 0 if p == 1 else 2 * excess)
        return (np.asarray((spread(dy).reshape(-1, 1) * slope).reshape(x.shape), x.dtype),)

    return y, pullback


@differentiable(_multi_margin_rule, wrt=("input",), buffers=("target", "weight"))
def multi_margin_loss(
    input: A,
    target: Array,
    p: int = 1,
    margin: float = 1.0,
    weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> A:
    """Multiclass SVM loss of Weston and Watkins, as torch.nn.functional.multi_margin_loss.

    ``sum over j != y of max(0, margin - x[y] + x[j]) ** p / C`` for the scores x of C classes and the true class y.

    Parameters
    ----------
    input : array, shape (N, C) or (C,)
        Scores; float32, float64, float16 or bfloat16.
    target : integer array, shape (N,) or ()
        The classes.
    p : {1, 2}
    margin : float
    weight : array, shape (C,), optional
        Factor of each class; unlike `cross_entropy`'s, "mean" divides by the number of samples all the same.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape (), or that of the target for "none"

    Raises
    ------
    ValueError
        A class that does not exist, shapes that do not fit, an option out of its range.
    TypeError
        A dtype that is not supported.

    See Also
    --------
    one_vs_all_hinge_loss : one binary SVM a class.

    Notes
    -----
    Weston & Watkins 1999, "Support vector machines for multi-class pattern recognition"; the paper, and the lectures of
    Stanford's CS231n, do not divide by C.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> (F.multi_margin_loss(np.array([[3.2, 5.1, -1.7]]), np.array([0])) * 3).round(4)
    np.float64(2.9)
    """
    return apply(multi_margin_loss, input, target, p, margin, weight, reduction)


@differentiable(_one_vs_all_rule, wrt=("input",), buffers=("target",))
def one_vs_all_hinge_loss(input: A, target: Array, p: int = 1, margin: float = 1.0, *, reduction: str = "mean") -> A:
    """One binary SVM a class: ``sum over j of max(0, margin - t[j] * x[j]) ** p``, t[j] = 1 for the class, else -1.

    Parameters
    ----------
    input : array, shape (N, C) or (C,)
        Scores; float32, float64, float16 or bfloat16.
    target : integer array, shape (N,) or ()
        The classes.
    p : {1, 2}
    margin : float
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape (), or that of the target for "none"

    Raises
    ------
    ValueError, TypeError
        As `multi_margin_loss`.

    Notes
    -----
    Rifkin & Klautau 2004, "In defense of one-vs-all classification".

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.one_vs_all_hinge_loss(np.array([[0.5, -2.0, 0.0]]), np.array([0]))
    array(1.5)
    """
    return apply(one_vs_all_hinge_loss, input, target, p, margin, reduction)
