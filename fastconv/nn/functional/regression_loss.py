"""Losses of one number against another: mse, l1, smooth_l1, huber, kl_div, hinge embedding, binary cross entropy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy import ndarray

from ...devices import as_array
from ...differentiable import A, Array, apply, differentiable
from .activation import log1p_exp, logistic
from .reduction import REDUCTIONS, check_reduction, element_weight, may_read, pair, reduce


def _difference_rule(wanted, x, target, reduction, weight, value: Callable, slope: Callable, *, by_weight: bool = True):
    """Rule for a loss of the difference d = x - target: `value` of d, and its derivative `slope`.

    `by_weight`: "mean" divides by the sum of the weights, not by their number.
    """
    check_reduction(reduction)
    a, b = pair(x, target)
    w = element_weight(weight, x)
    d = a - b
    loss = value(d) if w is None else w * value(d)
    y, spread = reduce(loss, reduction, w.sum() if by_weight and w is not None else x.size, x.dtype)

    def pullback(dy):
        dx = spread(dy) * slope(d) if w is None else spread(dy) * w * slope(d)
        dx = as_array(dx, x.dtype)
        return dx if wanted[0] else None, -dx if wanted[1] else None

    return y, pullback


def _mse_rule(wanted, x, target, reduction, weight):
    return _difference_rule(wanted, x, target, reduction, weight, np.square, lambda d: 2 * d)


def _l1_rule(wanted, x, target, reduction, weight):
    return _difference_rule(wanted, x, target, reduction, weight, np.abs, np.sign)


def _smooth_l1_rule(wanted, x, target, reduction, beta):
    if not beta >= 0:
        raise ValueError(f"beta must not be negative, got {beta}")
    if beta == 0:
        return _l1_rule(wanted, x, target, reduction, None)

    def value(d: ndarray) -> ndarray:
        return np.where(np.abs(d) < beta, d * d / (2 * beta), np.abs(d) - beta / 2)

    return _difference_rule(wanted, x, target, reduction, None, value, lambda d: np.clip(d / beta, -1, 1))


def _huber_rule(wanted, x, target, reduction, delta, weight):
    if not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}")

    def value(d: ndarray) -> ndarray:
        return np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))

    def slope(d: ndarray) -> ndarray:
        return np.clip(d, -delta, delta)

    return _difference_rule(wanted, x, target, reduction, weight, value, slope, by_weight=False)


def _kl_div_rule(wanted, x, target, reduction, log_target):
    check_reduction(reduction, (*REDUCTIONS, "batchmean"))
    a, b = pair(x, target)
    with np.errstate(divide="ignore", invalid="ignore"):
        p, log_p = (np.exp(b), b) if log_target else (b, np.where(b == 0, 0, np.log(b)))
    loss = p * log_p - p * a
    count, reduction = (x.shape[0] if x.ndim else 1, "mean") if reduction == "batchmean" else (x.size, reduction)
    y, spread = reduce(loss, reduction, count, x.dtype)

    def pullback(dy):
        g = spread(dy)
        dx = as_array(-g * p, x.dtype) if wanted[0] else None
        dtarget = None
        if wanted[1]:
            slope = p * (log_p + 1 - a) if log_target else np.where(p == 0, 0, log_p + 1) - a
            dtarget = as_array(g * slope, x.dtype)
        return dx, dtarget

    return y, pullback


def _hinge_embedding_rule(wanted, x, target, margin, reduction):
    check_reduction(reduction)
    a, b = pair(x, target, integer_target=True)
    far = margin - a
    loss = np.where(b != 1, np.maximum(far, 0), 0) + np.where(b != -1, a, 0)
    y, spread = reduce(loss, reduction, x.size, x.dtype)

    def pullback(dy):
        slope = np.where(b != -1, 1, 0) - np.where((b != 1) & (far > 0), 1, 0)
        return (as_array(spread(dy) * slope, x.dtype),)

    return y, pullback


def _bce_rule(wanted, x, target, weight, reduction):
    check_reduction(reduction)
    a, b = pair(x, target)
    if may_read(a) and ((a < 0) | (a > 1)).any():  # its logarithms are NaN on a GPU
        raise ValueError("input must hold probabilities, from 0 to 1; use binary_cross_entropy_with_logits for logits")
    if may_read(b) and ((b < 0) | (b > 1)).any():
        raise ValueError(f"target must hold probabilities, from 0 to 1; got values from {b.min()} to {b.max()}")
    w = element_weight(weight, x)
    with np.errstate(divide="ignore"):
        log_yes, log_no = np.maximum(np.log(a), -100), np.maximum(np.log1p(-a), -100)
    loss = -(b * log_yes + (1 - b) * log_no)
    y, spread = reduce(loss if w is None else w * loss, reduction, x.size, x.dtype)

    def pullback(dy):
        g = spread(dy) if w is None else spread(dy) * w
        dx = as_array(g * (a - b) / np.maximum(a * (1 - a), 1e-12), x.dtype) if wanted[0] else None
        return dx, as_array(g * (log_no - log_yes), x.dtype) if wanted[1] else None

    return y, pullback


def _bce_with_logits_rule(wanted, x, target, weight, reduction, pos_weight):
    check_reduction(reduction)
    a, b = pair(x, target)
    w, positive = element_weight(weight, x), element_weight(pos_weight, x, "pos_weight")
    more = 0 if positive is None else positive - 1
    log_no = log1p_exp(-a)  # -log(sigmoid(x))
    yes = 1 + more * b
    loss = (1 - b) * a + yes * log_no
    y, spread = reduce(loss if w is None else w * loss, reduction, x.size, x.dtype)

    def pullback(dy):
        g = spread(dy) if w is None else spread(dy) * w
        dx = as_array(g * ((1 - b) - yes * logistic(-a)), x.dtype) if wanted[0] else None
        return dx, as_array(g * (more * log_no - a), x.dtype) if wanted[1] else None

    return y, pullback


@differentiable(_mse_rule, wrt=("input", "target"), buffers=("weight",))
def mse_loss(input: A, target: Array, *, reduction: str = "mean", weight: Array | None = None) -> A:
    """Squared difference, as torch.nn.functional.mse_loss.

    Parameters
    ----------
    input, target : array of one shape
        float32, float64, float16 or bfloat16, the same for both.
    reduction : {"mean", "sum", "none"}
    weight : array, optional
        Factor of each element, broadcast to the input's shape; "mean" divides by its sum.

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError
        Shapes that differ (torch broadcasts them with a warning), or an unknown reduction.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.mse_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    array(2.)
    """
    return apply(mse_loss, input, target, reduction, weight)


@differentiable(_l1_rule, wrt=("input", "target"), buffers=("weight",))
def l1_loss(input: A, target: Array, *, reduction: str = "mean", weight: Array | None = None) -> A:
    """Absolute difference, as torch.nn.functional.l1_loss.

    Parameters
    ----------
    input, target : array of one shape
        float32, float64, float16 or bfloat16, the same for both.
    reduction, weight
        As for `mse_loss`.

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.l1_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    array(1.)
    """
    return apply(l1_loss, input, target, reduction, weight)


@differentiable(_smooth_l1_rule, wrt=("input", "target"))
def smooth_l1_loss(input: A, target: Array, *, reduction: str = "mean", beta: float = 1.0) -> A:
    """``d**2 / (2 * beta)`` where |d| < beta, else ``|d| - beta / 2``, as torch.nn.functional.smooth_l1_loss.

    Parameters
    ----------
    input, target : array of one shape
        float32, float64, float16 or bfloat16, the same for both.
    reduction : {"mean", "sum", "none"}
    beta : float
        Not negative; 0 gives `l1_loss`.

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`; a negative `beta`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.smooth_l1_loss(np.array([0.5, 3.0]), np.zeros(2), reduction="none")
    array([0.125, 2.5  ])
    """
    return apply(smooth_l1_loss, input, target, reduction, beta)


@differentiable(_huber_rule, wrt=("input", "target"), buffers=("weight",))
def huber_loss(input: A, target: Array, reduction: str = "mean", delta: float = 1.0, weight: Array | None = None) -> A:
    """``d**2 / 2`` where |d| <= delta, else ``delta * (|d| - delta / 2)``, as torch.nn.functional.huber_loss.

    Parameters
    ----------
    input, target : array of one shape
        float32, float64, float16 or bfloat16, the same for both.
    reduction : {"mean", "sum", "none"}
    delta : float
        Positive.
    weight : array, optional
        Factor of each element; "mean" divides by the number of elements, as torch does here.

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`; a `delta` that is not positive.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.huber_loss(np.array([0.5, 3.0]), np.zeros(2), reduction="none")
    array([0.125, 2.5  ])
    """
    return apply(huber_loss, input, target, reduction, delta, weight)


@differentiable(_kl_div_rule, wrt=("input", "target"))
def kl_div(input: A, target: Array, *, reduction: str = "mean", log_target: bool = False) -> A:
    """``target * (log(target) - input)``, `input` being log-probabilities, as torch.nn.functional.kl_div.

    Parameters
    ----------
    input, target : array of one shape
        float32, float64, float16 or bfloat16, the same for both.
    reduction : {"mean", "batchmean", "sum", "none"}
        "batchmean", the sum divided by the first dimension, is the divergence of its definition.
    log_target : bool
        `target` holds log-probabilities, too.

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.kl_div(np.log([[0.5, 0.5]]), np.array([[1.0, 0.0]]), reduction="batchmean").round(4)
    np.float64(0.6931)
    """
    return apply(kl_div, input, target, reduction, log_target)


@differentiable(_hinge_embedding_rule, wrt=("input",), buffers=("target",))
def hinge_embedding_loss(input: A, target: Array, margin: float = 1.0, *, reduction: str = "mean") -> A:
    """x where the target is 1, ``max(0, margin - x)`` where it is -1, as torch.nn.functional.hinge_embedding_loss.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    target : array of the same shape
        1 and -1, of the input's dtype or integers.
    margin : float
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.hinge_embedding_loss(np.array([0.25, 0.25]), np.array([1, -1]), reduction="none")
    array([0.25, 0.75])
    """
    return apply(hinge_embedding_loss, input, target, margin, reduction)


@differentiable(_bce_rule, wrt=("input", "target"), buffers=("weight",))
def binary_cross_entropy(input: A, target: Array, weight: Array | None = None, *, reduction: str = "mean") -> A:
    """``-(t * log(x) + (1 - t) * log(1 - x))`` of probabilities x, as torch.nn.functional.binary_cross_entropy.

    Parameters
    ----------
    input : array of any shape
        From 0 to 1; float32, float64, float16 or bfloat16.
    target : array of the same shape and dtype
    weight : array, optional
        Factor of each element, broadcast to the input's shape.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`; an input or a target outside 0 to 1.

    Notes
    -----
    As in torch the logarithms are at least -100.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.binary_cross_entropy(np.array([0.5, 0.0]), np.array([1.0, 1.0]), reduction="none").round(4)
    array([  0.6931, 100.    ])
    """
    return apply(binary_cross_entropy, input, target, weight, reduction)


@differentiable(_bce_with_logits_rule, wrt=("input", "target"), buffers=("weight", "pos_weight"))
def binary_cross_entropy_with_logits(
    input: A,
    target: Array,
    weight: Array | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> A:
    """`binary_cross_entropy` of sigmoid(x), computed safely, as torch.nn.functional.binary_cross_entropy_with_logits.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    target : array of the same shape and dtype
    weight : array, optional
        Factor of each element, broadcast to the input's shape.
    reduction : {"mean", "sum", "none"}
    pos_weight : array, optional
        Factor of the term of the positive class, broadcast to the input's shape.

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.binary_cross_entropy_with_logits(np.array([0.0, 1000.0]), np.array([1.0, 0.0]), reduction="none").round(4)
    array([6.931e-01, 1.000e+03])
    """
    return apply(binary_cross_entropy_with_logits, input, target, weight, reduction, pos_weight)
