"""Normalisation within each sample: over groups of channels, over the last dimensions, and to unit length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy import ndarray

from ... import backend
from ...devices import array_module
from ...differentiable import A, Array, apply, differentiable
from .embedding_loss import check_norm, distance
from .parameters import check_dim, check_floating, compute_dtype, in_layout, integers


def _unit_rows(x: ndarray, rows: int, eps: float) -> tuple[ndarray, Callable[[ndarray], ndarray]]:
    """`x`, seen as `rows` rows, each with mean 0 and variance 1, and the map from its gradient to that of `x`."""
    ops = backend.ops
    flat = array_module(x).ascontiguousarray(x).reshape(1, rows, x.size // rows if rows else 0)
    if flat.shape[2] < 2:
        return x - x, lambda dy: np.zeros_like(dy)
    y, mean, invstd = ops.instance_norm_forward(flat, None, None, None, None, True, 0.0, eps)

    def pullback(dy: ndarray) -> ndarray:
        gradient = array_module(dy).ascontiguousarray(dy).reshape(flat.shape)
        return ops.instance_norm_backward(gradient, flat, None, mean, invstd, True)[0].reshape(x.shape)

    return y.reshape(x.shape), pullback


def _scaled(wanted, x, rows, weight, bias, shape, eps):
    """The rule of both norms: unit rows times weight plus bias, which have `shape` where they meet `x`."""
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.dtype not in (x.dtype, compute_dtype(x)):
            raise TypeError(f"{name} must have the dtype of input, {x.dtype}; got {parameter.dtype}")
    wide = compute_dtype(x)
    unit, back = _unit_rows(x.astype(wide, copy=False), rows, eps)
    w = None if weight is None else weight.astype(wide, copy=False).reshape(shape)
    y = unit if w is None else unit * w
    y = y if bias is None else y + bias.astype(wide, copy=False).reshape(shape)
    summed = tuple(i for i, n in enumerate((*(1,) * (x.ndim - len(shape)), *shape)) if n == 1)

    def total(terms: ndarray, parameter: ndarray) -> ndarray:
        return terms.sum(axis=summed).reshape(parameter.shape).astype(parameter.dtype, copy=False)

    def pullback(dy):
        dy = dy.astype(wide, copy=False)
        return (
            in_layout(back(dy if w is None else dy * w).astype(x.dtype, copy=False), x) if wanted[0] else None,
            total(dy * unit, weight) if wanted[1] else None,
            total(dy, bias) if wanted[2] else None,
        )

    return in_layout(y.astype(x.dtype, copy=False), x), pullback


def _check_parameter(parameter: ndarray | None, name: str, shape: tuple[int, ...]) -> None:
    if parameter is not None and parameter.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {parameter.shape}")


def _group_norm_rule(wanted, x, num_groups, weight, bias, eps):
    check_floating(x, "input")
    (groups,) = integers(num_groups, 1, "num_groups", 1)
    if x.ndim < 2 or x.shape[1] % groups:
        raise ValueError(f"input must be (N, C, *) with a multiple of num_groups={groups} channels, got {x.shape}")
    if x.shape[1] and x.size == groups:
        raise ValueError(f"input must have more than one value a group, got shape {x.shape} for {groups} groups")
    for name, parameter in (("weight", weight), ("bias", bias)):
        _check_parameter(parameter, name, x.shape[1:2])
    return _scaled(wanted, x, x.shape[0] * groups, weight, bias, (x.shape[1], *(1,) * (x.ndim - 2)), eps)


def _last_dimensions(x: ndarray, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    """`normalized_shape` as a tuple, in which `x` must end."""
    given = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    shape = integers(given, len(given), "normalized_shape", 0)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"input must end in the dimensions normalized_shape={shape}, got shape {x.shape}")
    return shape


def _layer_norm_rule(wanted, x, normalized_shape, weight, bias, eps):
    check_floating(x, "input")
    shape = _last_dimensions(x, normalized_shape)
    for name, parameter in (("weight", weight), ("bias", bias)):
        _check_parameter(parameter, name, shape)
    lead = x.shape[: x.ndim - len(shape)]
    # Parameters meet every row alike: their gradients are sums over the leading dimensions alone.
    flat = x.reshape(math.prod(lead), math.prod(shape))
    y, back = _scaled(wanted, flat, len(flat), weight, bias, (flat.shape[1],), eps)

    def pullback(dy):
        dx, dw, db = back(dy.reshape(flat.shape))
        return None if dx is None else in_layout(dx.reshape(x.shape), x), dw, db

    return in_layout(y.reshape(x.shape), x), pullback


def _rms_norm_rule(wanted, x, normalized_shape, weight, eps):
    check_floating(x, "input")
    shape = _last_dimensions(x, normalized_shape)
    wide = compute_dtype(x)
    if weight is not None and weight.dtype not in (x.dtype, wide):
        raise TypeError(f"weight must have the dtype of input, {x.dtype}; got {weight.dtype}")
    _check_parameter(weight, "weight", shape)
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    values = x.astype(wide, copy=False)
    least = np.finfo(wide).eps if eps is None else eps
    inverse = 1 / np.sqrt((values * values).mean(axis=axes, keepdims=True) + wide.type(least))
    unit = values * inverse
    w = None if weight is None else weight.astype(wide, copy=False)

    def pullback(dy):
        dy = dy.astype(wide, copy=False)
        dunit = dy if w is None else dy * w
        dx = inverse * (dunit - unit * (dunit * unit).mean(axis=axes, keepdims=True)) if wanted[0] else None
        lead = tuple(range(x.ndim - len(shape)))
        return (
            None if dx is None else in_layout(dx.astype(x.dtype, copy=False), x),
            (dy * unit).sum(axis=lead).astype(weight.dtype, copy=False) if wanted[1] else None,
        )

    return in_layout((unit if w is None else unit * w).astype(x.dtype, copy=False), x), pullback


def _normalize_rule(wanted, x, p, dim, eps):
    check_floating(x, "input")
    check_norm(p)
    library = array_module(x)
    shape, vectors = x.shape, x if x.ndim else x.reshape(1)
    axis = check_dim(dim, vectors.ndim)
    # Contiguous: one order of sums.
    last = library.ascontiguousarray(np.moveaxis(vectors.astype(compute_dtype(x), copy=False), axis, -1))
    norm, slope = distance(last, library.zeros((), last.dtype), p, 0.0)
    divisor = np.maximum(norm, eps)

    def back(values: ndarray) -> ndarray:
        values = library.ascontiguousarray(np.moveaxis(values, -1, axis)).astype(x.dtype, copy=False)
        return in_layout(values, x) if x.ndim else values.reshape(shape)

    def pullback(dy):
        dy = np.moveaxis(dy.reshape(vectors.shape).astype(last.dtype, copy=False), axis, -1)
        # A norm below eps is not what divides, so nothing pulls back on it.
        shrinking = np.where(norm > eps, (dy * last).sum(axis=-1, keepdims=True) / (divisor * divisor), 0)
        return (back(dy / divisor - slope * shrinking),)

    return back(last / divisor), pullback


@differentiable(_group_norm_rule, wrt=("input", "weight", "bias"))
def group_norm(
    input: A, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> A:
    """Normalise groups of channels of each sample, as torch.nn.functional.group_norm.

    Parameters
    ----------
    input : array, shape (N, C, *)
        float32, float64, float16 or bfloat16.
    num_groups : int
        Divides C. One group is all channels, C groups are those of `instance_norm`.
    weight, bias : array, shape (C,), optional
        The input's dtype, or float32 for a 16-bit input.
    eps : float
        Added to the variance.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    ValueError
        Channels that are no multiple of `num_groups`, other shapes of the parameters, one value a group in all.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Notes
    -----
    Wu and He, 2018, arXiv:1803.08494.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.group_norm(np.array([[[1.0], [3.0], [10.0], [50.0]]]), 2).ravel().round(3)
    array([-1.,  1., -1.,  1.])
    """
    return apply(group_norm, input, num_groups, weight, bias, eps)


@differentiable(_layer_norm_rule, wrt=("input", "weight", "bias"))
def layer_norm(
    input: A,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> A:
    """Normalise the last dimensions of each sample, as torch.nn.functional.layer_norm.

    Parameters
    ----------
    input : array, shape (*, normalized_shape)
        float32, float64, float16 or bfloat16.
    normalized_shape : int or sequence of int
        The last dimensions of the input.
    weight, bias : array, shape normalized_shape, optional
        The input's dtype, or float32 for a 16-bit input.
    eps : float
        Added to the variance.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    ValueError
        An input that does not end in these dimensions, or other shapes of the parameters.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Notes
    -----
    Ba, Kiros and Hinton, 2016, arXiv:1607.06450.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.layer_norm(np.array([[1.0, 3.0], [10.0, 50.0]]), (2,)).round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    return apply(layer_norm, input, normalized_shape, weight, bias, eps)


@differentiable(_normalize_rule, wrt=("input",))
def normalize(input: A, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> A:
    """Divide by the p-norm along a dimension, as torch.nn.functional.normalize.

    Parameters
    ----------
    input : array
        A number is a vector of one; float32, float64, float16 or bfloat16.
    p : float
        Infinity is the largest absolute value, 0 the number of elements other than 0.
    dim : int
    eps : float
        The least that is divided by.

    Returns
    -------
    array of the same shape

    Raises
    ------
    ValueError
        A `p` that is no number, or `dim` out of range.
    TypeError
        A dtype that is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    return apply(normalize, input, p, dim, eps)


@differentiable(_rms_norm_rule, wrt=("input", "weight"))
def rms_norm(
    input: A, normalized_shape: int | Sequence[int], weight: Array | None = None, eps: float | None = None
) -> A:
    """Divide the last dimensions of each sample by their root mean square, as torch.nn.functional.rms_norm.

    Parameters
    ----------
    input : array, shape (*, normalized_shape)
        float32, float64, float16 or bfloat16.
    normalized_shape : int or sequence of int
        The last dimensions of the input.
    weight : array, shape normalized_shape, optional
        The input's dtype, or float32 for a 16-bit input.
    eps : float, optional
        Added to the mean square; by default the spacing of the numbers at 1, of float32 for a 16-bit input.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    ValueError
        An input that does not end in these dimensions, or another shape of the weight.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Notes
    -----
    Zhang and Sennrich, 2019, arXiv:1910.07467.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.rms_norm(np.array([[3.0, 4.0], [1.0, 1.0]]), (2,)).round(3)
    array([[0.849, 1.131],
           [1.   , 1.   ]])
    """
    return apply(rms_norm, input, normalized_shape, weight, eps)
