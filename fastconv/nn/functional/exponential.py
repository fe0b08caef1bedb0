"""softmax, its logarithm, its mirror image, and samples of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from ...devices import array_module
from ...differentiable import A, apply, differentiable
from ...random import generator
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


def _gumbel_softmax_rule(wanted, logits, tau, hard, eps, dim, rng):
    check_floating(logits, "logits")
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}")
    library, wide = array_module(logits), compute_dtype(logits)
    noise = -np.log(generator(rng).exponential(size=logits.shape))
    noisy = (logits.astype(wide, copy=False) + library.asarray(noise.astype(wide))) / wide.type(tau)
    axis = check_dim(dim, logits.ndim)
    soft, back = _softmax_rule(wanted, noisy, axis, None)
    y = soft
    if hard:
        places = library.arange(logits.shape[axis] if logits.ndim else 1)
        places = places.reshape(-1, *(1,) * (logits.ndim - 1 - axis)) if logits.ndim else places.reshape(())
        y = (np.argmax(soft, axis=axis, keepdims=True) == places if logits.ndim else soft == soft).astype(wide)

    def pullback(dy):
        return ((back(dy.astype(wide, copy=False))[0] / wide.type(tau)).astype(logits.dtype, copy=False),)

    return y.astype(logits.dtype, copy=False), pullback


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


@differentiable(_gumbel_softmax_rule, wrt=("logits",))
def gumbel_softmax(
    logits: A,
    tau: float = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    rng: np.random.Generator | None = None,
) -> A:
    """A sample of classes along `dim` that has a gradient, as torch.nn.functional.gumbel_softmax.

    Parameters
    ----------
    logits : array of any shape
        float32, float64, float16 or bfloat16.
    tau : float
        Temperature: near 0 samples are almost one-hot.
    hard : bool
        One-hot samples, with the gradient of the soft ones.
    eps : float
        Ignored, as in torch.
    dim : int
    rng : numpy.random.Generator, optional
        Default: the generator that `fastconv.manual_seed` seeds.

    Returns
    -------
    array of the same shape
        Sums to 1 along `dim`.

    Raises
    ------
    ValueError
        `tau` not positive, or `dim` out of range.
    TypeError
        A dtype that is not supported.

    Notes
    -----
    Jang, Gu and Poole, 2016, arXiv:1611.01144; Maddison, Mnih and Teh, 2016, arXiv:1611.00712.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.gumbel_softmax(np.array([0.0, 100.0, 0.0]), hard=True)
    array([0., 1., 0.])
    """
    return apply(gumbel_softmax, logits, tau, hard, eps, dim, rng)
