"""Linear and bilinear maps."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ... import backend
from ...differentiable import A, Array, apply, differentiable
from .parameters import check_floating, check_same_dtype, compute_dtype


def _linear_rule(wanted, x, w, b):
    ops = backend.ops

    def bias_gradient(dy):
        # A weight vector gives one number a row: its bias is a single value, of shape () or (1,).
        return (
            ops.linear_backward_bias(dy.reshape(-1, 1)).reshape(b.shape)
            if w.ndim == 1
            else ops.linear_backward_bias(dy)
        )

    def pullback(dy):
        return (
            ops.linear_backward_input(dy, w) if wanted[0] else None,
            ops.linear_backward_weight(dy, x) if wanted[1] else None,
            bias_gradient(dy) if wanted[2] else None,
        )

    return ops.linear_forward(x, w, b), pullback


def _check_bilinear(x1: ndarray, x2: ndarray, w: ndarray, b: ndarray | None) -> None:
    check_floating(x1, "input1")
    check_same_dtype(x2, "input2", x1, "input1")
    check_same_dtype(w, "weight", x1, "input1")
    if x1.ndim < 1 or x1.shape[:-1] != x2.shape[:-1] or x2.ndim != x1.ndim:
        raise ValueError(f"input1 and input2 must agree in all but the last dimension, got {x1.shape} and {x2.shape}")
    if w.ndim != 3 or w.shape[1:] != (x1.shape[-1], x2.shape[-1]):
        raise ValueError(f"weight must have shape (out, {x1.shape[-1]}, {x2.shape[-1]}), got {w.shape}")
    if b is not None:
        check_same_dtype(b, "bias", x1, "input1")
        if b.shape != w.shape[:1]:
            raise ValueError(f"bias must have shape {w.shape[:1]}, got {b.shape}")


def _times_rows(matrices: ndarray, rows: ndarray) -> ndarray:
    """Each matrix times its row. NumPy's product with a vector calls OpenBLAS, whose AVX-512 kernel for five columns
    computes with uninitialised memory beside the result: the warnings of an invalid value come and go."""
    return (matrices * rows[:, None]).sum(-1)


def _bilinear_rule(wanted, x1, x2, w, b):
    _check_bilinear(x1, x2, w, b)
    wide = compute_dtype(x1)
    outputs, size1, size2 = w.shape
    a1 = x1.reshape(-1, size1).astype(wide, copy=False)
    a2 = x2.reshape(-1, size2).astype(wide, copy=False)
    kernel = w.astype(wide, copy=False)
    y = _times_rows(np.tensordot(a1, kernel, (1, 1)), a2)
    if b is not None:
        y = y + b

    def pullback(dy):
        g = dy.reshape(-1, outputs).astype(wide, copy=False)
        dx1 = dx2 = dw = db = None
        if wanted[0]:
            dx1 = _times_rows(np.tensordot(g, kernel, (1, 0)), a2)
            dx1 = dx1.reshape(x1.shape).astype(x1.dtype, copy=False)
        if wanted[1]:
            dx2 = (a1[:, None, :] @ np.tensordot(g, kernel, (1, 0)))[:, 0]
            dx2 = dx2.reshape(x2.shape).astype(x1.dtype, copy=False)
        if wanted[2]:
            dw = np.tensordot(g[:, :, None] * a1[:, None, :], a2, (0, 0)).astype(x1.dtype, copy=False)
        if wanted[3]:
            db = g.sum(0).astype(x1.dtype, copy=False)
        return dx1, dx2, dw, db

    return y.reshape(*x1.shape[:-1], outputs).astype(x1.dtype, copy=False), pullback


@differentiable(_linear_rule, wrt=("input", "weight", "bias"))
def linear(input: A, weight: Array, bias: Array | None = None) -> A:
    """``input @ weight.T + bias``, as torch.nn.functional.linear.

    Parameters
    ----------
    input : array, shape (*, I)
        float32, float64, float16 or bfloat16.
    weight : array, shape (O, I) or (I,)
        Same dtype.
    bias : array, shape (O,) or (), optional
        Same dtype.

    Returns
    -------
    array, shape (*, O) or (*)

    Raises
    ------
    ValueError
        Shapes that do not fit together.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
    array([[11.5]])
    """
    if type(input) is ndarray and type(weight) is ndarray and (bias is None or type(bias) is ndarray):
        return backend.ops.linear_forward(input, weight, bias)
    return apply(linear, input, weight, bias)


@differentiable(_bilinear_rule, wrt=("input1", "input2", "weight", "bias"))
def bilinear(input1: A, input2: Array, weight: Array, bias: Array | None = None) -> A:
    """``y[o] = input1 @ weight[o] @ input2 + bias[o]``, as torch.nn.functional.bilinear.

    Parameters
    ----------
    input1 : array, shape (*, I)
        float32, float64, float16 or bfloat16.
    input2 : array, shape (*, J)
        Same dtype.
    weight : array, shape (O, I, J)
        Same dtype.
    bias : array, shape (O,), optional
        Same dtype.

    Returns
    -------
    array, shape (*, O)

    Raises
    ------
    ValueError
        Shapes that do not fit together.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.bilinear(np.array([[1.0, 2.0]]), np.array([[3.0]]), np.array([[[10.0], [1.0]]]))
    array([[36.]])
    """
    return apply(bilinear, input1, input2, weight, bias)
