"""Negative log likelihoods of predicted distributions: Gaussian and Poisson."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import ndarray

from ...devices import array_module, as_array
from ...differentiable import A, Array, apply, differentiable
from ...interop import to_array
from ...tensor import Tensor
from ...tensor_arithmetic import fit
from .parameters import check_same_dtype
from .reduction import check_reduction, may_read, pair, reduce


def _broadcast(target: ndarray, x: ndarray) -> ndarray:
    """`target` in the shape of `x` where it broadcasts to that, else as it is."""
    try:
        return np.broadcast_to(target, x.shape)
    except ValueError:
        return target


def _gaussian_nll_rule(wanted, x, target, var, full, eps, reduction):
    check_reduction(reduction)
    given, target = target, _broadcast(target, x)
    a, b = pair(x, target)
    check_same_dtype(var, "var", x, "input")
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
    v = var.astype(a.dtype, copy=False)
    if v.shape != x.shape and v.shape == x.shape[:-1]:
        v = v[..., None]
    if v.ndim not in (0, x.ndim) or any(n not in (1, size) for n, size in zip(v.shape, x.shape)):
        raise ValueError(
            f"var must have the input's shape {x.shape}, sizes of 1, or lack the last dimension; got {var.shape}"
        )
    if may_read(v) and (v < 0).any():
        raise ValueError("var must not be negative")
    v = np.where(v < 0, np.nan, np.maximum(v, eps)).astype(a.dtype, copy=False)
    d = a - b
    loss = 0.5 * (np.log(v) + d * d / v)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    y, spread = reduce(loss, reduction, x.size, x.dtype)

    def pullback(dy):
        g = spread(dy)
        dx = as_array(g * d / v, x.dtype)
        # As in torch the limit eps does not stop the gradient of the variance.
        dv = fit(g * 0.5 * (1 - d * d / v) / v, v.shape, var.dtype).reshape(var.shape) if wanted[2] else None
        return dx if wanted[0] else None, fit(-dx, given.shape, given.dtype) if wanted[1] else None, dv

    return y, pullback


def _poisson_nll_rule(wanted, x, target, log_input, full, eps, reduction):
    check_reduction(reduction)
    a, t = pair(x, target)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rate = np.exp(a) if log_input else a
        log_rate = a if log_input else np.log(a + eps)
        loss = rate - t * log_rate
        if full:
            # Stirling's formula for log(target!), which torch takes for 0 up to 1.
            loss = loss + np.where(t > 1, t * np.log(t) - t + 0.5 * np.log(2 * math.pi * t), 0)
    y, spread = reduce(loss, reduction, x.size, x.dtype)

    def pullback(dy):
        g = spread(dy)
        with np.errstate(divide="ignore", invalid="ignore"):
            dx = as_array(g * (rate - t if log_input else 1 - t / (a + eps)), x.dtype) if wanted[0] else None
            slope = -log_rate + (np.where(t > 1, np.log(t) + 0.5 / t, 0) if full else 0)
        return dx, as_array(g * slope, x.dtype) if wanted[1] else None

    return y, pullback


@differentiable(_gaussian_nll_rule, wrt=("input", "target", "var"))
def gaussian_nll_loss(
    input: A, target: Array, var: Array, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> A:
    """``(log(var) + (input - target)**2 / var) / 2``, as torch.nn.functional.gaussian_nll_loss.

    Parameters
    ----------
    input, target : array
        Predicted means, and samples, whose shape is the same or broadcasts to it; float32, float64, float16 or
        bfloat16, the same for all arrays.
    var : array, or float
        Predicted variances, not negative: of the input's shape, with sizes of 1, or without the last dimension.
        (``gaussian_nll_loss.vjp`` takes arrays only.)
    full : bool
        Add the constant ``log(2 * pi) / 2``.
    eps : float
        Smallest variance that is computed with; positive.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError
        Shapes that do not fit, a negative variance, an unknown reduction.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.gaussian_nll_loss(np.array([0.0, 2.0]), np.zeros(2), np.ones(2), reduction="none")
    array([0., 2.])
    """
    if isinstance(var, int | float):
        given: Any = input.data if isinstance(input, Tensor) else to_array(input, "input")
        var = array_module(given).full((), var, given.dtype)
    return apply(gaussian_nll_loss, input, target, var, full, eps, reduction)


@differentiable(_poisson_nll_rule, wrt=("input", "target"))
def poisson_nll_loss(
    input: A,
    target: Array,
    log_input: bool = True,
    full: bool = False,
    *,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> A:
    """``exp(input) - target * input`` of predicted log rates, as torch.nn.functional.poisson_nll_loss.

    Parameters
    ----------
    input, target : array of one shape
        float32, float64, float16 or bfloat16, the same for both.
    log_input : bool
        False takes the input for the rate itself: ``input - target * log(input + eps)``.
    full : bool
        Add Stirling's approximation of ``log(target!)`` where the target is above 1.
    eps : float
        Keeps the logarithm finite where `log_input` is False.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape () or the input's for "none"

    Raises
    ------
    ValueError
        Shapes that differ, or an unknown reduction.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.poisson_nll_loss(np.zeros(2), np.array([0.0, 3.0]), reduction="none")
    array([1., 1.])
    """
    return apply(poisson_nll_loss, input, target, log_input, full, eps, reduction)
