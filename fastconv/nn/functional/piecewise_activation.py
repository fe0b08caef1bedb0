"""Activations made of pieces: hard sigmoid and swish, shrinkage, thresholds, ReLU with random slopes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...devices import array_module
from ...differentiable import A, apply, differentiable
from ...random import generator
from .activation import write
from .parameters import check_floating, compute_dtype
from .smooth_activation import elementwise


def _hardsigmoid(x):
    y = np.clip(x + 3, 0, 6) / 6
    return y, lambda: np.where((x > -3) & (x < 3), 1 / 6, 0).astype(x.dtype)


def _hardswish(x):
    y = x * np.clip(x + 3, 0, 6) / 6
    return y, lambda: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)).astype(x.dtype)


def _outside(x, lambd):
    """1 where |x| > lambd and where x is NaN, 0 elsewhere."""
    return ~(np.abs(x) <= lambd)


def _hardshrink(x, lambd):
    kept = _outside(x, lambd)
    return np.where(kept, x, 0).astype(x.dtype), lambda: kept


def _softshrink(x, lambd):
    if not lambd >= 0:
        raise ValueError(f"lambd must not be negative, got {lambd}")
    kept = _outside(x, lambd)
    return np.where(kept, x - np.copysign(x.dtype.type(lambd), x), 0).astype(x.dtype), lambda: kept


def _threshold_value(x, threshold, value):
    below = x <= threshold
    return np.where(below, x.dtype.type(value), x), lambda: ~below


def _rrelu_rule(wanted, x, lower, upper, training, inplace, rng):
    check_floating(x, "input")
    if not lower <= upper:
        raise ValueError(f"lower must be at most upper, got {lower} and {upper}")
    random = generator(rng)
    wide = compute_dtype(x)
    slopes = random.uniform(lower, upper, x.shape) if training else np.full(x.shape, (lower + upper) / 2)
    slopes = np.where(x <= 0, array_module(x).asarray(slopes), 1).astype(wide)
    y = (x * slopes).astype(x.dtype, copy=False)
    return write(y, x, inplace), lambda dy: ((dy * slopes).astype(x.dtype, copy=False),)


@differentiable(elementwise(_hardsigmoid, inplace=True), wrt=("input",))
def hardsigmoid(input: A, inplace: bool = False) -> A:
    """min(max(x + 3, 0), 6) / 6, as torch.nn.functional.hardsigmoid.

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
    Howard et al., 2019, arXiv:1905.02244. The gradient is 0 at -3 and 3, too.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.hardsigmoid(np.array([-3.0, 0.0, 9.0]))
    array([0. , 0.5, 1. ])
    """
    return apply(hardsigmoid, input, inplace)


@differentiable(elementwise(_hardswish, inplace=True), wrt=("input",))
def hardswish(input: A, inplace: bool = False) -> A:
    """x * hardsigmoid(x), as torch.nn.functional.hardswish.

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
    Howard et al., 2019, arXiv:1905.02244.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.hardswish(np.array([-3.0, 1.5, 9.0]))
    array([-0.   ,  1.125,  9.   ])
    """
    return apply(hardswish, input, inplace)


@differentiable(elementwise(_hardshrink), wrt=("input",))
def hardshrink(input: A, lambd: float = 0.5) -> A:
    """x where |x| > lambd, else 0, as torch.nn.functional.hardshrink.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    lambd : float

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
    >>> F.hardshrink(np.array([-1.0, 0.25, 2.0]))
    array([-1.,  0.,  2.])
    """
    return apply(hardshrink, input, lambd)


@differentiable(elementwise(_softshrink), wrt=("input",))
def softshrink(input: A, lambd: float = 0.5) -> A:
    """x moved towards 0 by lambd, at most to 0, as torch.nn.functional.softshrink.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    lambd : float
        Not negative.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError
        A dtype that is not supported.
    ValueError
        `lambd` is negative.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.softshrink(np.array([-1.0, 0.25, 2.0]))
    array([-0.5,  0. ,  1.5])
    """
    return apply(softshrink, input, lambd)


@differentiable(elementwise(_threshold_value, inplace=True), wrt=("input",))
def threshold(input: A, threshold: float, value: float, inplace: bool = False) -> A:
    """x where x > threshold, else value, as torch.nn.functional.threshold.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    threshold, value : float
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
    >>> F.threshold(np.array([-1.0, 0.25, 2.0]), 0.5, 9.0)
    array([9., 9., 2.])
    """
    return apply(_threshold, input, threshold, value, inplace)


_threshold = threshold  # in the function its first option has the name


@differentiable(_rrelu_rule, wrt=("input",))
def rrelu(
    input: A,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
    *,
    rng: Any = None,
) -> A:
    """x where x > 0, else x times a random slope, as torch.nn.functional.rrelu.

    Parameters
    ----------
    input : array of any shape
        float32, float64, float16 or bfloat16.
    lower, upper : float
        Limits of the slopes, which are drawn uniformly for each element.
    training : bool
        Otherwise every slope is ``(lower + upper) / 2``.
    inplace : bool
        As for `relu`.
    rng : numpy.random.Generator, optional
        Default: the generator that `fastconv.manual_seed` seeds.

    Returns
    -------
    array of the same shape

    Raises
    ------
    TypeError, ValueError
        As `relu`; `lower` above `upper`.

    Notes
    -----
    Xu et al., 2015, arXiv:1505.00853. Every call of ``rrelu.vjp`` draws its slopes once.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.rrelu(np.array([-1.0, 2.0]), 0.25, 0.75)
    array([-0.5,  2. ])
    """
    return apply(rrelu, input, lower, upper, training, inplace, rng)
