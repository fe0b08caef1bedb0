"""Elementwise activations: the piecewise linear ones come from the backend, sigmoid, tanh and softplus are NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from ... import backend
from ...devices import is_writable
from ...differentiable import A, Array, apply, differentiable
from ...tensor_arithmetic import Deferred
from .parameters import check_floating, compute_dtype


def _relu_rule(wanted, x, inplace):
    ops = backend.ops
    y = ops.relu_forward(x, inplace)
    return y, lambda dy: (ops.relu_backward(dy, y) if wanted[0] else None,)


def _hardtanh_rule(wanted, x, min_val, max_val, inplace):
    ops = backend.ops
    if min_val > max_val:
        raise ValueError(f"min_val must not be above max_val, got {min_val} and {max_val}")
    y = write(ops.hardtanh_forward(x, min_val, max_val), x, inplace)
    return y, lambda dy: (ops.hardtanh_backward(dy, x, min_val, max_val) if wanted[0] else None,)


def _relu6_rule(wanted, x, inplace):
    return _hardtanh_rule(wanted, x, 0.0, 6.0, inplace)


def _leaky_relu_rule(wanted, x, negative_slope, inplace):
    ops = backend.ops
    y = write(ops.leaky_relu_forward(x, negative_slope), x, inplace)
    return y, lambda dy: (ops.leaky_relu_backward(dy, x, negative_slope) if wanted[0] else None,)


def _prelu_rule(wanted, x, weight):
    ops = backend.ops

    def pullback(dy):
        dx, dweight = ops.prelu_backward(dy, x, weight)
        return dx if wanted[0] else None, dweight if wanted[1] else None

    return ops.prelu_forward(x, weight), pullback


def logistic(x: ndarray) -> ndarray:
    """1 / (1 + exp(-x)) without overflow: exp of negative numbers only."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def log1p_exp(x: ndarray) -> ndarray:
    """log(1 + exp(x)) without overflow."""
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.logaddexp(x, 0)


def _sigmoid_rule(wanted, x):
    check_floating(x, "input")
    y = logistic(x.astype(compute_dtype(x), copy=False))
    return y.astype(x.dtype, copy=False), lambda dy: ((dy * y * (1 - y)).astype(x.dtype, copy=False),)


def _tanh_rule(wanted, x):
    check_floating(x, "input")
    y = np.tanh(x.astype(compute_dtype(x), copy=False))
    return y.astype(x.dtype, copy=False), lambda dy: ((dy * (1 - y * y)).astype(x.dtype, copy=False),)


def _softplus_rule(wanted, x, beta, threshold):
    check_floating(x, "input")
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    scaled = x.astype(compute_dtype(x), copy=False) * beta
    linear = scaled > threshold
    y = np.where(linear, x, log1p_exp(scaled) / beta)

    def pullback(dy):
        return (np.where(linear, dy, dy * logistic(scaled)).astype(x.dtype, copy=False),)

    return y.astype(x.dtype, copy=False), pullback


def write(y: ndarray, x: ndarray, inplace: Any) -> ndarray:
    """`y`, or `x` overwritten with it."""
    if not inplace:
        return y
    if not is_writable(x):
        raise ValueError("input must be writable for inplace=True, got a read-only array")
    np.copyto(x, y)
    return x


@differentiable(_relu_rule, wrt=("input",))
def relu(input: A, inplace: bool = False) -> A:
    """max(x, 0), as torch.nn.functional.relu.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    inplace : bool
        Write the result into `input`, an array, and return that. Tensors are never overwritten.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError
        A dtype that is not supported.
    ValueError
        `inplace` with a read-only array.

    Notes
    -----
    relu(NaN) is NaN. The gradient at 0 is 0.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.relu(np.array([-1.0, 0.5]))
    array([0. , 0.5])
    """
    if type(input) is ndarray:
        return backend.ops.relu_forward(input, inplace)
    if isinstance(input, Deferred):
        return input.applied("relu")
    return apply(relu, input, inplace)


@differentiable(_relu6_rule, wrt=("input",))
def relu6(input: A, inplace: bool = False) -> A:
    """min(max(x, 0), 6), as torch.nn.functional.relu6.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    inplace : bool
        As for `relu`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError, ValueError
        As `relu`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.relu6(np.array([-1.0, 3.0, 8.0]))
    array([0., 3., 6.])
    """
    return apply(relu6, input, inplace)


@differentiable(_hardtanh_rule, wrt=("input",))
def hardtanh(input: A, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> A:
    """Limit to [min_val, max_val], as torch.nn.functional.hardtanh.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    min_val, max_val : float
    inplace : bool
        As for `relu`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError
        `min_val` is not less than `max_val`; `inplace` with a read-only array.
    TypeError
        A dtype that is not supported.

    Notes
    -----
    The gradient is 0 at the limits, too.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.hardtanh(np.array([-3.0, 0.5, 3.0]))
    array([-1. ,  0.5,  1. ])
    """
    return apply(hardtanh, input, min_val, max_val, inplace)


@differentiable(_leaky_relu_rule, wrt=("input",))
def leaky_relu(input: A, negative_slope: float = 0.01, inplace: bool = False) -> A:
    """x where x > 0, else negative_slope * x, as torch.nn.functional.leaky_relu.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    negative_slope : float
    inplace : bool
        As for `relu`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError, ValueError
        As `relu`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.leaky_relu(np.array([-1.0, 2.0]), 0.5)
    array([-0.5,  2. ])
    """
    return apply(leaky_relu, input, negative_slope, inplace)


@differentiable(_prelu_rule, wrt=("input", "weight"))
def prelu(input: A, weight: Array) -> A:
    """x where x > 0, else weight * x, one weight for all or one for each channel, as torch.nn.functional.prelu.

    Parameters
    ----------
    input : array, shape (N, C, *) or any for a single weight
        float32, float64, float16 or bfloat16.
    weight : array, shape (1,) or (C,)
        Same dtype.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    ValueError
        A number of weights that is neither 1 nor C.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.prelu(np.array([[-1.0, -1.0]]), np.array([0.1, 0.2]))
    array([[-0.1, -0.2]])
    """
    return apply(prelu, input, weight)


@differentiable(_sigmoid_rule, wrt=("input",))
def sigmoid(input: A) -> A:
    """1 / (1 + exp(-x)), as torch.nn.functional.sigmoid.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError
        A dtype that is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.sigmoid(np.array([0.0, -np.inf]))
    array([0.5, 0. ])
    """
    return apply(sigmoid, input)


@differentiable(_tanh_rule, wrt=("input",))
def tanh(input: A) -> A:
    """Hyperbolic tangent, as torch.nn.functional.tanh.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError
        A dtype that is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.tanh(np.array([0.0, np.inf]))
    array([0., 1.])
    """
    return apply(tanh, input)


@differentiable(_softplus_rule, wrt=("input",))
def softplus(input: A, beta: float = 1.0, threshold: float = 20.0) -> A:
    """log(1 + exp(beta * x)) / beta, and x where beta * x > threshold, as torch.nn.functional.softplus.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    beta : float
        Positive.
    threshold : float

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError
        A dtype that is not supported.
    ValueError
        `beta` is not positive.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.softplus(np.array([-50.0, 0.0, 50.0])).round(4)
    array([ 0.    ,  0.6931, 50.    ])
    """
    return apply(softplus, input, beta, threshold)
