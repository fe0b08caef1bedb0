"""Activations that the backends compute: relu, relu6, hardtanh, leaky_relu, prelu."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from ... import backend
from ...differentiable import A, Array, apply, differentiable


def _relu_rule(wanted, x, inplace):
    ops = backend.ops
    y = ops.relu_forward(x, inplace)
    return y, lambda dy: (ops.relu_backward(dy, y) if wanted[0] else None,)


def _hardtanh_rule(wanted, x, min_val, max_val, inplace):
    ops = backend.ops
    if min_val >= max_val:
        raise ValueError(f"min_val must be less than max_val, got {min_val} and {max_val}")
    y = _write(ops.hardtanh_forward(x, min_val, max_val), x, inplace)
    return y, lambda dy: (ops.hardtanh_backward(dy, x, min_val, max_val) if wanted[0] else None,)


def _relu6_rule(wanted, x, inplace):
    return _hardtanh_rule(wanted, x, 0.0, 6.0, inplace)


def _leaky_relu_rule(wanted, x, negative_slope, inplace):
    ops = backend.ops
    y = _write(ops.leaky_relu_forward(x, negative_slope), x, inplace)
    return y, lambda dy: (ops.leaky_relu_backward(dy, x, negative_slope) if wanted[0] else None,)


def _prelu_rule(wanted, x, weight):
    ops = backend.ops

    def pullback(dy):
        dx, dweight = ops.prelu_backward(dy, x, weight)
        return dx if wanted[0] else None, dweight if wanted[1] else None

    return ops.prelu_forward(x, weight), pullback


def _write(y: ndarray, x: ndarray, inplace: Any) -> ndarray:
    """`y`, or `x` overwritten with it."""
    if not inplace:
        return y
    if not x.flags.writeable:
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
