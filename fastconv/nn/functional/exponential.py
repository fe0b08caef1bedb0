"""softmax, log_softmax and softmin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from ...differentiable import A, apply, differentiable
from .parameters import check_dim, check_floating, compute_dtype, largest


def shifted_exponentials(x: ndarray, dim: int) -> tuple[ndarray, ndarray, ndarray]:
    """x - max, its exponentials, and their sum: softmax without overflow. 0-d arrays are not taken."""
    with np.errstate(invalid="ignore"):  # a slice of infinities gives NaN
        shifted = x - largest(x, dim, -np.inf)
        exponentials = np.exp(shifted)
    return shifted, exponentials, exponentials.sum(axis=dim, keepdims=True)


def _prepare(x: ndarray, dim: int | None, dtype: Any) -> tuple[ndarray, int, np.dtype]:
    """The input in the type to compute in, at least 1-d; the dimension; and the type of the result."""
    check_floating(x, "input")
    if dim is None:  # torch's rule from before it had the argument
        dim = 0 if x.ndim in (0, 1, 3) else 1
    dim = check_dim(dim, x.ndim)
    if dtype is not None:
        x = x.astype(dtype)
        check_floating(x, "dtype")
    return np.atleast_1d(x).astype(compute_dtype(x), copy=False), dim, x.dtype


def _softmax_rule(wanted, x, dim, dtype):
    wide, axis, result = _prepare(x, dim, dtype)
    _, exponentials, total = shifted_exponentials(wide, axis)
    with np.errstate(invalid="ignore"):
        y = (exponentials / total).reshape(x.shape)

    def pullback(dy):
        product = np.atleast_1d(dy * y)
        dx = product - np.atleast_1d(y) * product.sum(axis=axis, keepdims=True)
        return (dx.reshape(x.shape).astype(x.dtype, copy=False),)

    return y.astype(result, copy=False), pullback


def _log_softmax_rule(wanted, x, dim, dtype):
    wide, axis, result = _prepare(x, dim, dtype)
    shifted, exponentials, total = shifted_exponentials(wide, axis)
    with np.errstate(divide="ignore"):  # no classes: log(0) for no elements
        y = shifted - np.log(total)

    def pullback(dy):
        wide_dy = np.atleast_1d(dy).astype(y.dtype, copy=False)
        with np.errstate(invalid="ignore"):
            dx = wide_dy - exponentials / total * wide_dy.sum(axis=axis, keepdims=True)
        return (dx.reshape(x.shape).astype(x.dtype, copy=False),)

    return y.reshape(x.shape).astype(result, copy=False), pullback


def _softmin_rule(wanted, x, dim, dtype):
    check_floating(x, "input")
    y, pullback = _softmax_rule(wanted, -x, dim, dtype)
    return y, lambda dy: (-pullback(dy)[0],)


@differentiable(_softmax_rule, wrt=("input",))
def softmax(input: A, dim: int | None = None, *, dtype: Any = None) -> A:
    """exp(x) / sum(exp(x)) along `dim`, as torch.nn.functional.softmax.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    dim : int, optional
        None chooses 0 for 0-, 1- and 3-dimensional arrays and 1 otherwise, as torch's old rule does.
    dtype : dtype, optional
        Type to convert the input to first, and of the result.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError
        `dim` out of range.
    TypeError
        A dtype that is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.softmax(np.array([[0.0, 0.0, -np.inf]]), dim=1)
    array([[0.5, 0.5, 0. ]])
    """
    return apply(softmax, input, dim, dtype)


@differentiable(_log_softmax_rule, wrt=("input",))
def log_softmax(input: A, dim: int | None = None, *, dtype: Any = None) -> A:
    """log(softmax(x)) along `dim` without its rounding errors, as torch.nn.functional.log_softmax.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    dim, dtype
        As for `softmax`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError
        `dim` out of range.
    TypeError
        A dtype that is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.log_softmax(np.array([0.0, 1000.0]), dim=0)
    array([-1000.,     0.])
    """
    return apply(log_softmax, input, dim, dtype)


@differentiable(_softmin_rule, wrt=("input",))
def softmin(input: A, dim: int | None = None, *, dtype: Any = None) -> A:
    """softmax of -x along `dim`, as torch.nn.functional.softmin.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    dim, dtype
        As for `softmax`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError
        `dim` out of range.
    TypeError
        A dtype that is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.softmin(np.array([0.0, 0.0, np.inf]), dim=0)
    array([0.5, 0.5, 0. ])
    """
    return apply(softmin, input, dim, dtype)
