"""Dropout of elements and of whole channels, and the kind that goes with selu."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray

from ...devices import array_module, is_writable
from ...differentiable import A, apply, differentiable
from ...random import generator
from .activation import write
from .parameters import check_floating

_SELU_LIMIT = -1.7580993408473766  # of selu far below 0: what a dropped element becomes


def _dropout_rule(nd: int) -> Callable[..., Any]:
    """Rule for dropout of elements (nd = 0), or of channels with `nd` spatial dimensions."""

    def rule(wanted, x, p, training, inplace, rng):
        check_floating(x, "input")
        if not 0 <= p <= 1:
            raise ValueError(f"p must be from 0 to 1, got {p}")
        random = generator(rng)
        if nd and x.ndim not in (nd + 1, nd + 2):
            raise ValueError(f"input must have {nd + 1} or {nd + 2} dimensions, got shape {x.shape}")
        if inplace and not is_writable(x):
            raise ValueError("input must be writable for inplace=True, got a read-only array")
        if not training or p == 0:
            return x, lambda dy: (dy.copy(),)
        shape = x.shape if nd == 0 else (*x.shape[:-nd], *(1,) * nd)
        # Made on the host, also for a GPU: one seed gives one mask.
        drawn = random.random(shape, np.float32) >= p if p < 1 else np.zeros(shape, bool)
        kept = array_module(x).asarray(drawn)
        y = _scaled(x, kept, p, x if inplace else np.empty_like(x))
        return y, lambda dy: (_scaled(dy, kept, p, np.empty_like(dy)),)

    return rule


def _alpha_dropout_rule(channels: bool) -> Callable[..., Any]:
    """Rule for the dropout of `selu`: of elements, or of whole channels."""

    def rule(wanted, x, p, training, inplace, rng):
        check_floating(x, "input")
        if not 0 <= p <= 1:
            raise ValueError(f"p must be from 0 to 1, got {p}")
        random = generator(rng)
        if not training or p == 0:
            return x, lambda dy: (dy.copy(),)
        if channels and x.ndim < 2:
            raise ValueError(f"input must be (N, C, *), got shape {x.shape}")
        shape = (*x.shape[:2], *(1,) * (x.ndim - 2)) if channels else x.shape
        drawn = random.random(shape, np.float32) >= p if p < 1 else np.zeros(shape, bool)
        kept = array_module(x).asarray(drawn)
        scale = (1 - p + (1 - p) * p * _SELU_LIMIT**2) ** -0.5 if p < 1 else 0.0
        dropped = scale * _SELU_LIMIT * (1 - p) if p < 1 else 0.0
        y = np.where(kept, scale * x - scale * _SELU_LIMIT * p, dropped).astype(x.dtype)
        return write(y, x, inplace), lambda dy: (np.where(kept, scale * dy, 0).astype(x.dtype),)

    return rule


def _scaled(x: ndarray, kept: ndarray, p: float, out: ndarray) -> ndarray:
    """x / (1 - p) where `kept`, 0 elsewhere (also where x is NaN), in the memory layout of `out`."""
    library = array_module(x)
    np.multiply(x, library.asarray(1 / (1 - p) if p < 1 else 0, x.dtype), out=out)
    np.copyto(out, library.zeros((), x.dtype), where=~kept)
    return out


@differentiable(_dropout_rule(0), wrt=("input",))
def dropout(
    input: A,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: np.random.Generator | None = None,
) -> A:
    """Zero each element with probability `p` and scale the others by 1 / (1 - p), as torch.nn.functional.dropout.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    p : float
        From 0 to 1.
    training : bool
        Otherwise the input itself is returned.
    inplace : bool
        Write the result into `input`, an array. Tensors are never overwritten.
    rng : numpy.random.Generator, optional
        Default: the generator that `fastconv.manual_seed` seeds.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError
        `p` out of range; `inplace` with a read-only array.
    TypeError
        A dtype that is not supported, or an `rng` of another kind.

    Notes
    -----
    Srivastava et al., 2014, JMLR 15. Every call of ``dropout.vjp`` draws one mask, which its pullback uses.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> y = F.dropout(np.ones(1000), 0.5, rng=np.random.default_rng(0))
    >>> np.unique(y), 400 < (y == 0).sum() < 600
    (array([0., 2.]), np.True_)
    """
    return apply(dropout, input, p, training, inplace, rng)


@differentiable(_dropout_rule(1), wrt=("input",))
def dropout1d(
    input: A,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: np.random.Generator | None = None,
) -> A:
    """Zero each channel with probability `p`, as torch.nn.functional.dropout1d.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
    p, training, inplace, rng
        As for `dropout`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError, TypeError
        As `dropout`; another number of dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.dropout1d(np.ones((2, 3)), 1.0)
    array([[0., 0., 0.],
           [0., 0., 0.]])
    """
    return apply(dropout1d, input, p, training, inplace, rng)


@differentiable(_dropout_rule(2), wrt=("input",))
def dropout2d(
    input: A,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: np.random.Generator | None = None,
) -> A:
    """Zero each channel with probability `p`, as torch.nn.functional.dropout2d.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        Three dimensions are one sample without a batch dimension (torch still reads (N, C, L) there and warns).
    p, training, inplace, rng
        As for `dropout`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError, TypeError
        As `dropout`; another number of dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> y = F.dropout2d(np.ones((8, 16, 2, 2)), 0.5, rng=np.random.default_rng(0))
    >>> bool((y == y[:, :, :1, :1]).all())
    True
    """
    return apply(dropout2d, input, p, training, inplace, rng)


@differentiable(_dropout_rule(3), wrt=("input",))
def dropout3d(
    input: A,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: np.random.Generator | None = None,
) -> A:
    """Zero each channel with probability `p`, as torch.nn.functional.dropout3d.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
    p, training, inplace, rng
        As for `dropout`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError, TypeError
        As `dropout`; another number of dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.dropout3d(np.ones((1, 1, 1, 2)), 0.0)
    array([[[[1., 1.]]]])
    """
    return apply(dropout3d, input, p, training, inplace, rng)


@differentiable(_alpha_dropout_rule(False), wrt=("input",))
def alpha_dropout(
    input: A,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    rng: np.random.Generator | None = None,
) -> A:
    """Dropout for `selu` that keeps mean 0 and variance 1, as torch.nn.functional.alpha_dropout.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    p, training, inplace, rng
        As for `dropout`; `training` is False by default, as in torch.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError, TypeError
        As `dropout`.

    Notes
    -----
    Klambauer et al., 2017, arXiv:1706.02515.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> x = np.random.default_rng(0).normal(size=100_000)
    >>> y = F.alpha_dropout(x, 0.3, training=True, rng=np.random.default_rng(1))
    >>> abs(y.mean()) < 0.02, abs(y.std() - 1) < 0.02
    (np.True_, np.True_)
    """
    return apply(alpha_dropout, input, p, training, inplace, rng)


@differentiable(_alpha_dropout_rule(True), wrt=("input",))
def feature_alpha_dropout(
    input: A,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    rng: np.random.Generator | None = None,
) -> A:
    """`alpha_dropout` of whole channels, as torch.nn.functional.feature_alpha_dropout.

    Parameters
    ----------
    input : array, shape (N, C, *)
        float32, float64, float16 or bfloat16.
    p, training, inplace, rng
        As for `alpha_dropout`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError, TypeError
        As `dropout`; fewer than two dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> y = F.feature_alpha_dropout(np.ones((8, 16, 2, 2)), 0.5, training=True, rng=np.random.default_rng(0))
    >>> bool((y == y[:, :, :1, :1]).all()), len(np.unique(y))
    (True, 2)
    """
    return apply(feature_alpha_dropout, input, p, training, inplace, rng)
