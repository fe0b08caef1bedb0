"""Smooth activations: ELU and its scaled kinds, GELU, SiLU, Mish, softsign, log sigmoid, tanh shrinkage, GLU."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy import ndarray

from ...differentiable import A, apply, differentiable
from .activation import log1p_exp, logistic, write
from .parameters import check_dim, check_floating, compute_dtype

_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805


def elementwise(function: Callable[..., Any], inplace: bool = False) -> Callable[..., Any]:
    """The rule of an activation: ``function(x, *options)`` gives its values and a function that gives its slopes.

    Both are computed in the type that NumPy computes in for `x`. With `inplace` that is the last option.
    """

    def rule(wanted, x, *options):
        check_floating(x, "input")
        overwrite = inplace and options[-1]
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            wide = x.astype(compute_dtype(x), copy=False)
            # The slopes need the input, which a value written in place would replace.
            y, slopes = function(wide.copy() if overwrite else wide, *(options[:-1] if inplace else options))
        y = y.astype(x.dtype, copy=False)

        def pullback(dy):
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                return ((dy * slopes()).astype(x.dtype, copy=False),)

        return write(y, x, overwrite), pullback

    return rule


def _elu_with(scale: float, alpha: float, inner: float, x: ndarray) -> tuple[ndarray, Callable[[], ndarray]]:
    """scale * x where x > 0, elsewhere scale * alpha * (exp(inner * x) - 1)."""
    negative = np.minimum(x, 0)  # exp of positive numbers would overflow where it is not wanted
    y = np.where(x > 0, scale * x, scale * alpha * np.expm1(inner * negative))
    slope = scale * alpha * inner
    return y, lambda: np.where(x > 0, scale, slope * np.exp(inner * negative))


def _elu(x, alpha):
    return _elu_with(1, alpha, 1, x)


def _celu(x, alpha):
    if alpha == 0:
        raise ValueError("alpha must not be 0")
    return _elu_with(1, alpha, 1 / alpha, x)


def _selu(x):
    return _elu_with(_SELU_SCALE, _SELU_ALPHA, 1, x)


# exp(x * x) * erfc(x) is smooth in t = (x - 3.5) / (x + 3.5), on a range where math.erfc does not underflow.
_ERFC_END = 26.0


def _erfc_variable(x: Any) -> Any:
    return (x - 3.5) / (x + 3.5)


@cache
def _erfc_series(degree: int) -> tuple[float, ...]:
    """Chebyshev coefficients of exp(x * x) * erfc(x), fitted to math.erfc over x from 0 to `_ERFC_END`."""

    def scaled(u: Any) -> Any:
        t = -1 + (u + 1) / 2 * (_erfc_variable(_ERFC_END) + 1)
        x = 3.5 * (1 + t) / (1 - t)
        return np.array([math.erfc(v) * math.exp(v * v) if v < 6 else _erfc_tail(v) for v in x.tolist()])

    return tuple(np.polynomial.chebyshev.chebinterpolate(scaled, degree).tolist())


def _erfc_tail(x: float) -> float:
    """exp(x * x) * erfc(x) as a continued fraction, which converges fast for large x and cannot overflow."""
    fraction = 0.0
    for k in range(60, 0, -1):
        fraction = k / 2 / (x + fraction)
    return 1 / math.sqrt(math.pi) / (x + fraction)


def _normal_tail(x: ndarray) -> ndarray:
    """The share of a normal distribution above x >= 0: erfc(x / sqrt(2)) / 2, in the type of `x`."""
    z = np.minimum(x * math.sqrt(0.5), _ERFC_END)
    u = (_erfc_variable(z) + 1) * (2 / (_erfc_variable(_ERFC_END) + 1)) - 1
    constant, *series = _erfc_series(12 if x.dtype == np.float32 else 22)
    first, second = np.zeros_like(u), np.zeros_like(u)
    for c in reversed(series):  # Clenshaw's recurrence
        first, second = 2 * u * first - second + c, first
    return 0.5 * np.exp(-0.5 * x * x) * (u * first - second + constant)


_ERF_NEAR = tuple(2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(14))


def erf(x: ndarray) -> ndarray:
    """The error function, in the type of `x`: Maclaurin's series where 1 - erfc(x) would cancel, up to 0.5."""
    a = x.astype(compute_dtype(x), copy=False)
    square = np.minimum(a * a, 0.25)
    series = a.dtype.type(0)
    for c in reversed(_ERF_NEAR):
        series = series * square + a.dtype.type(c)
    far = np.copysign(1 - 2 * _normal_tail(np.abs(a) * math.sqrt(2)), a)
    return np.where(np.abs(a) < 0.5, a * series, far).astype(x.dtype, copy=False)


def _gelu(x, approximate):
    if approximate == "none":
        tail = _normal_tail(np.abs(x))
        below = np.where(x > 0, 1 - tail, tail)
        return x * below, lambda: below + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    if approximate != "tanh":
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    rate, cubic = math.sqrt(2 / math.pi), 0.044715
    t = np.tanh(rate * (x + cubic * x * x * x))
    return 0.5 * x * (1 + t), lambda: 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * rate * (1 + 3 * cubic * x * x)


def _silu(x):
    s = logistic(x)
    return x * s, lambda: s * (1 + x * (1 - s))


def _mish(x):
    t = np.tanh(log1p_exp(x))
    return x * t, lambda: t + x * (1 - t * t) * logistic(x)


def _softsign(x):
    d = 1 + np.abs(x)
    return x / d, lambda: 1 / (d * d)


def _logsigmoid(x):
    return -log1p_exp(-x), lambda: logistic(-x)


def _tanhshrink(x):
    t = np.tanh(x)
    return x - t, lambda: t * t


def _glu_rule(wanted, x, dim):
    check_floating(x, "input")
    axis = check_dim(dim, x.ndim)
    if not x.ndim or x.shape[axis] % 2:
        raise ValueError(f"input must have an even size along dim {dim}, got shape {x.shape}")
    value, gate = np.split(x.astype(compute_dtype(x), copy=False), 2, axis)
    s = logistic(gate)

    def pullback(dy):
        return (np.concatenate([dy * s, dy * value * s * (1 - s)], axis).astype(x.dtype, copy=False),)

    return (value * s).astype(x.dtype, copy=False), pullback


@differentiable(elementwise(_elu, inplace=True), wrt=("input",))
def elu(input: A, alpha: float = 1.0, inplace: bool = False) -> A:
    """x where x > 0, else alpha * (exp(x) - 1), as torch.nn.functional.elu.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    alpha : float
    inplace : bool
        As for `relu`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError, ValueError
        As `relu`.

    Notes
    -----
    Clevert, Unterthiner and Hochreiter, 2016, arXiv:1511.07289.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.elu(np.array([-1.0, 2.0])).round(4)
    array([-0.6321,  2.    ])
    """
    return apply(elu, input, alpha, inplace)


@differentiable(elementwise(_selu, inplace=True), wrt=("input",))
def selu(input: A, inplace: bool = False) -> A:
    """`elu` scaled so that zero mean and unit variance are kept, as torch.nn.functional.selu.

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

    Notes
    -----
    Klambauer et al., 2017, arXiv:1706.02515.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.selu(np.array([-1.0, 2.0])).round(4)
    array([-1.1113,  2.1014])
    """
    return apply(selu, input, inplace)


@differentiable(elementwise(_celu, inplace=True), wrt=("input",))
def celu(input: A, alpha: float = 1.0, inplace: bool = False) -> A:
    """x where x > 0, else alpha * (exp(x / alpha) - 1), as torch.nn.functional.celu.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    alpha : float
        Not 0.
    inplace : bool
        As for `relu`.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError, ValueError
        As `relu`; `alpha` is 0.

    Notes
    -----
    Barron, 2017, arXiv:1704.07483.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.celu(np.array([-1.0, 2.0]), 0.5).round(4)
    array([-0.4323,  2.    ])
    """
    return apply(celu, input, alpha, inplace)


@differentiable(elementwise(_gelu), wrt=("input",))
def gelu(input: A, approximate: str = "none") -> A:
    """x times the share of a normal distribution below x, as torch.nn.functional.gelu.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    approximate : {"none", "tanh"}
        "tanh": the formula of the paper that needs no error function.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError
        A dtype that is not supported.
    ValueError
        Another `approximate`.

    Notes
    -----
    Hendrycks and Gimpel, 2016, arXiv:1606.08415.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.gelu(np.array([-1.0, 2.0])).round(4)
    array([-0.1587,  1.9545])
    """
    return apply(gelu, input, approximate)


@differentiable(elementwise(_silu, inplace=True), wrt=("input",))
def silu(input: A, inplace: bool = False) -> A:
    """x * sigmoid(x), also known as swish, as torch.nn.functional.silu.

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

    Notes
    -----
    Elfwing, Uchibe and Doya, 2018, arXiv:1702.03118.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.silu(np.array([-1.0, 2.0])).round(4)
    array([-0.2689,  1.7616])
    """
    return apply(silu, input, inplace)


@differentiable(elementwise(_mish, inplace=True), wrt=("input",))
def mish(input: A, inplace: bool = False) -> A:
    """x * tanh(softplus(x)), as torch.nn.functional.mish.

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

    Notes
    -----
    Misra, 2019, arXiv:1908.08681.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.mish(np.array([-1.0, 2.0])).round(4)
    array([-0.3034,  1.944 ])
    """
    return apply(mish, input, inplace)


@differentiable(elementwise(_softsign), wrt=("input",))
def softsign(input: A) -> A:
    """x / (1 + |x|), as torch.nn.functional.softsign.

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
    >>> F.softsign(np.array([-1.0, 3.0]))
    array([-0.5 ,  0.75])
    """
    return apply(softsign, input)


@differentiable(elementwise(_logsigmoid), wrt=("input",))
def logsigmoid(input: A) -> A:
    """log(sigmoid(x)) without its rounding errors, as torch.nn.functional.logsigmoid.

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
    >>> F.logsigmoid(np.array([-1000.0, 0.0])).round(4)
    array([-1.000e+03, -6.931e-01])
    """
    return apply(logsigmoid, input)


@differentiable(elementwise(_tanhshrink), wrt=("input",))
def tanhshrink(input: A) -> A:
    """x - tanh(x), as torch.nn.functional.tanhshrink.

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
    >>> F.tanhshrink(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.2384])
    """
    return apply(tanhshrink, input)


@differentiable(_glu_rule, wrt=("input",))
def glu(input: A, dim: int = -1) -> A:
    """The first half of `input` along `dim` times the sigmoid of the second, as torch.nn.functional.glu.

    Parameters
    ----------
    input : array
        float32, float64, float16 or bfloat16.
    dim : int
        Its size is even.

    Returns
    -------
    array of half the size along `dim`

    Raises
    ------
    TypeError
        A dtype that is not supported.
    ValueError
        `dim` out of range, or of odd size.

    Notes
    -----
    Dauphin et al., 2017, arXiv:1612.08083.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.glu(np.array([3.0, 4.0, 0.0, np.inf]))
    array([1.5, 4. ])
    """
    return apply(glu, input, dim)
