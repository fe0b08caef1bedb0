"""Margin losses of scores: those of multiclass support vector machines, of two classes, of several labels."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ...devices import array_module, as_array
from ...differentiable import A, Array, apply, differentiable
from .activation import log1p_exp, logistic
from .parameters import check_floating, check_same_dtype, compute_dtype
from .reduction import check_reduction, element_weight, may_read, pair, reduce


def _scores(x: ndarray, target: ndarray) -> tuple[ndarray, ndarray]:
    """Scores (N, C) in the type to compute in, and which entry is the target's class (N, C, bool)."""
    check_floating(x, "input")
    if target.dtype.kind not in "iu":
        raise TypeError(f"target must hold integers, the classes; got dtype {target.dtype}")
    if x.ndim > 2 or 0 in x.shape[-1:]:
        raise ValueError(f"input must have shape (N, C) or (C,) with at least one class, got {x.shape}")
    if target.shape != x.shape[:-1] and not (x.ndim < 2 and target.shape == (1,)):
        raise ValueError(f"target must have shape {x.shape[:-1]} for an input of shape {x.shape}, got {target.shape}")
    classes = x.shape[-1] if x.ndim else 1
    wrong = (target < 0) | (target >= classes)
    if may_read(wrong) and wrong.any():
        raise ValueError(f"target must hold classes from 0 to {classes - 1}, got {target[wrong].flat[0]}")
    scores = x.reshape(-1, classes).astype(compute_dtype(x), copy=False)
    if not may_read(wrong):
        scores = np.where(wrong.reshape(-1, 1), np.nan, scores).astype(scores.dtype, copy=False)
    return scores, target.reshape(-1, 1) == array_module(x).arange(classes)


def _of_class(values: ndarray, hot: ndarray) -> ndarray:
    """The entry (N, 1) of each row of `values` that is `hot`."""
    return np.where(hot, values, 0).sum(axis=1, keepdims=True, dtype=values.dtype)


def _class_weight(weight: ndarray | None, x: ndarray, hot: ndarray) -> ndarray:
    """The factor (N, 1) of each sample: that of its class."""
    if weight is None:
        return array_module(x).ones((len(hot), 1), compute_dtype(x))
    check_same_dtype(weight, "weight", x, "input")
    if weight.shape != hot.shape[1:]:
        raise ValueError(f"weight must have one entry for each of {hot.shape[1]} classes, got shape {weight.shape}")
    return _of_class(weight, hot).astype(compute_dtype(x))


def _multi_margin_rule(wanted, x, target, p, margin, weight, reduction):
    check_reduction(reduction)
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2, got {p!r}")
    scores, hot = _scores(x, target)
    factor = _class_weight(weight, x, hot) / hot.shape[1]
    excess = np.where(hot, 0, np.maximum(margin - _of_class(scores, hot) + scores, 0))
    loss = (factor * (excess if p == 1 else excess * excess)).sum(axis=1)
    y, spread = reduce(loss.reshape(target.shape), reduction, target.size, x.dtype)

    def pullback(dy):
        slope = factor * (excess > 0 if p == 1 else 2 * excess)
        slope -= np.where(hot, slope.sum(axis=1, keepdims=True), 0)
        return (as_array((spread(dy).reshape(-1, 1) * slope).reshape(x.shape), x.dtype),)

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
        return (as_array((spread(dy).reshape(-1, 1) * slope).reshape(x.shape), x.dtype),)

    return y, pullback


def _soft_margin_rule(wanted, x, target, reduction):
    check_reduction(reduction)
    a, t = pair(x, target, integer_target=True)
    y, spread = reduce(log1p_exp(-t * a), reduction, x.size, x.dtype)

    def pullback(dy):
        return (as_array(-spread(dy) * t * logistic(-t * a), x.dtype),)

    return y, pullback


def _labels(x: ndarray, target: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Scores (N, C) in the type to compute in; the classes of each sample (N, C), and which of them count (bool)."""
    check_floating(x, "input")
    if target.dtype.kind not in "iu":
        raise TypeError(f"target must hold integers, the classes; got dtype {target.dtype}")
    if x.ndim > 2 or 0 in x.shape[-1:]:
        raise ValueError(f"input must have shape (N, C) or (C,) with at least one class, got {x.shape}")
    if target.shape != x.shape:
        raise ValueError(f"target must have the input's shape {x.shape}, got {target.shape}")
    classes = x.shape[-1] if x.ndim else 1
    wrong = (target < -1) | (target >= classes)
    if may_read(wrong) and wrong.any():
        raise ValueError(
            f"target must hold classes from 0 to {classes - 1}, or -1 after the last; got {target[wrong].flat[0]}"
        )
    labels, scores = target.reshape(-1, classes), x.reshape(-1, classes).astype(compute_dtype(x), copy=False)
    if not may_read(wrong):
        scores = np.where(wrong.reshape(-1, classes), np.nan, scores).astype(scores.dtype, copy=False)
        labels = np.where(wrong.reshape(-1, classes), 0, labels)
    return scores, labels, np.cumsum(labels == -1, axis=1) == 0


def _multilabel_margin_rule(wanted, x, target, reduction):
    check_reduction(reduction)
    scores, labels, counted = _labels(x, target)
    classes = scores.shape[1]
    # (N, label, class)
    chosen = (labels[:, :, None] == array_module(x).arange(classes)) & counted[:, :, None]
    others = ~chosen.any(axis=1)
    of_label = np.take_along_axis(scores, np.where(counted, labels, 0), 1)
    excess = np.maximum(1 - of_label[:, :, None] + scores[:, None, :], 0)
    excess *= counted[:, :, None] & others[:, None, :]
    y, spread = reduce(excess.sum(axis=(1, 2)).reshape(x.shape[:-1]) / classes, reduction, len(scores), x.dtype)

    def pullback(dy):
        active = (excess > 0).astype(scores.dtype)
        slope = active.sum(axis=1)
        slope -= (chosen * active.sum(axis=2, keepdims=True)).sum(axis=1)
        return (as_array((spread(dy).reshape(-1, 1) * slope / classes).reshape(x.shape), x.dtype),)

    return y, pullback


def _multilabel_soft_margin_rule(wanted, x, target, weight, reduction):
    check_reduction(reduction)
    a, t = pair(x, target, integer_target=True)
    if not x.ndim or x.shape[-1] == 0:
        raise ValueError(f"input must have shape (*, C) with at least one class, got {x.shape}")
    w = element_weight(weight, x)
    share = 1 / x.shape[-1] if w is None else w / x.shape[-1]
    log_no = log1p_exp(-a)  # -log(sigmoid(x))
    loss = (share * (log_no + (1 - t) * a)).sum(axis=-1)
    y, spread = reduce(as_array(loss), reduction, loss.size, x.dtype)

    def pullback(dy):
        g = np.expand_dims(spread(dy), -1 if reduction == "none" else ()) * share
        dx = as_array(g * (1 - t - logistic(-a)), x.dtype) if wanted[0] else None
        return dx, as_array(-g * a, x.dtype) if wanted[1] else None

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


@differentiable(_soft_margin_rule, wrt=("input",), buffers=("target",))
def soft_margin_loss(input: A, target: Array, *, reduction: str = "mean") -> A:
    """``log(1 + exp(-target * input))`` of two classes, 1 and -1, as torch.nn.functional.soft_margin_loss.

    Parameters
    ----------
    input : array of any shape
        Scores; float32, float64, float16 or bfloat16.
    target : array of the same shape
        1 and -1, of the input's dtype or integers.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError
        Shapes that differ, or an unknown reduction.
    TypeError
        A dtype that is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.soft_margin_loss(np.array([0.0, 1000.0]), np.array([1, -1]), reduction="none").round(4)
    array([6.931e-01, 1.000e+03])
    """
    return apply(soft_margin_loss, input, target, reduction)


@differentiable(_multilabel_margin_rule, wrt=("input",), buffers=("target",))
def multilabel_margin_loss(input: A, target: Array, *, reduction: str = "mean") -> A:
    """Hinges of every right class against every wrong one, as torch.nn.functional.multilabel_margin_loss.

    ``sum over right classes y and wrong classes j of max(0, 1 - x[y] + x[j]) / C``.

    Parameters
    ----------
    input : array, shape (N, C) or (C,)
        Scores; float32, float64, float16 or bfloat16.
    target : integer array of the same shape
        The right classes of each sample, then -1; what follows counts nothing.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape (), or (N,) for "none"

    Raises
    ------
    ValueError
        A class that does not exist, shapes that differ, an unknown reduction.
    TypeError
        A dtype that is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.multilabel_margin_loss(np.array([[0.1, 0.2, 0.4, 0.8]]), np.array([[3, 0, -1, 1]])).round(4)
    np.float64(0.85)
    """
    return apply(multilabel_margin_loss, input, target, reduction)


@differentiable(_multilabel_soft_margin_rule, wrt=("input", "target"), buffers=("weight",))
def multilabel_soft_margin_loss(input: A, target: Array, weight: Array | None = None, *, reduction: str = "mean") -> A:
    """Binary cross entropy of sigmoid(x), mean over classes, as torch.nn.functional.multilabel_soft_margin_loss.

    Parameters
    ----------
    input : array, shape (*, C)
        Logits; float32, float64, float16 or bfloat16.
    target : array of the same shape and dtype
        1 for each class that the sample belongs to, else 0.
    weight : array, optional
        Factor of each element, broadcast to the input's shape.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape (), or (*) for "none"

    Raises
    ------
    ValueError
        Shapes that do not fit, or an unknown reduction.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.multilabel_soft_margin_loss(np.zeros((2, 3)), np.ones((2, 3))).round(4)
    np.float64(0.6931)
    """
    return apply(multilabel_soft_margin_loss, input, target, weight, reduction)
