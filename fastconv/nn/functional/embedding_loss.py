"""Distances of vectors, and the losses that embeddings are learned with."""

from __future__ import annotations

import math
import numbers

import numpy as np
from numpy import ndarray

from ...devices import array_module, as_array
from ...differentiable import A, Array, apply, differentiable
from ...tensor_arithmetic import fit
from .parameters import check_dim, check_floating, check_same_dtype, compute_dtype, largest
from .reduction import check_reduction, reduce

# torch adds this to the squared norms in cosine_embedding_loss.
_COSINE_EPS = 1e-12


def vectors(arrays: dict[str, ndarray]) -> list[ndarray]:
    """The arrays, checked to have one dtype and shapes that broadcast, in the type to compute in."""
    (first_name, first), *others = arrays.items()
    check_floating(first, first_name)
    for name, array in others:
        check_same_dtype(array, name, first, first_name)
    try:
        np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{' and '.join(arrays)} must have shapes that broadcast, got {shapes}") from None
    return [array.astype(compute_dtype(array), copy=False) for array in arrays.values()]


def distance(a: ndarray, b: ndarray, p: float, eps: float) -> tuple[ndarray, ndarray]:
    """The p-norm of a - b + eps over the last dimension (kept, with size 1), and its slope in a."""
    d = a - b + eps
    size = np.abs(d)
    if p == 0:
        return (size != 0).sum(axis=-1, keepdims=True).astype(size.dtype), np.zeros_like(size)
    # What no power of the others is above: the largest, of a negative p the smallest (infinite where there is none).
    peak = largest(size, -1, 0) if p > 0 or not size.shape[-1] else size.min(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        if math.isinf(p):
            at_peak = size == peak
            share = at_peak / at_peak.sum(axis=-1, keepdims=True)
            return peak, np.where(peak == 0, 0, np.sign(d) * share)
        # Relative to it, so that no power overflows.
        y = np.where(peak == 0, 0, peak * ((size / peak) ** p).sum(axis=-1, keepdims=True) ** (1 / p))
        return y, np.where((y == 0) | (size == 0), 0, np.sign(d) * (size / y) ** (p - 1))


def check_norm(p: float) -> None:
    if not isinstance(p, numbers.Real) or math.isnan(p):
        raise ValueError(f"p must be a number, got {p!r}")


def _pairwise_distance_rule(wanted, x1, x2, p, eps, keepdim):
    check_norm(p)
    a, b = vectors({"x1": x1, "x2": x2})
    if not a.ndim or not b.ndim:
        raise ValueError(f"x1 and x2 must have shape (*, D), got {x1.shape} and {x2.shape}")
    y, slope = distance(a, b, p, eps)
    value = y if keepdim else y[..., 0]

    def pullback(dy):
        d = dy.reshape(y.shape) * slope
        return tuple(fit(g, x.shape, x.dtype) if w else None for g, x, w in zip((d, -d), (x1, x2), wanted))

    return as_array(value, x1.dtype), pullback


def _cosine_similarity_rule(wanted, x1, x2, dim, eps):
    a, b = np.broadcast_arrays(*vectors({"x1": x1, "x2": x2}))
    axis = check_dim(dim, a.ndim)
    norms = [np.sqrt((x * x).sum(axis=axis, keepdims=True)) for x in (a, b)]
    limited = [np.maximum(norm, eps) for norm in norms]
    units = [x / norm for x, norm in zip((a, b), limited)]
    y = (units[0] * units[1]).sum(axis=axis, keepdims=True)

    def pullback(dy):
        dy = np.expand_dims(dy, axis)
        # A norm below eps is no longer that of the vector, so nothing pulls back on its length.
        slopes = [
            (other - y * unit * (norm > eps)) / scale
            for other, unit, norm, scale in zip(units[::-1], units, norms, limited)
        ]
        return tuple(fit(dy * s, x.shape, x.dtype) if w else None for s, x, w in zip(slopes, (x1, x2), wanted))

    return as_array(np.squeeze(y, axis), x1.dtype), pullback


def _check_target(target: ndarray, x: ndarray, shape: tuple[int, ...], name: str) -> ndarray:
    """1 and -1 as numbers to compute with; integers, or of the inputs' dtype."""
    if target.dtype.kind not in "iu":
        check_same_dtype(target, "target", x, name)
    if target.shape != shape:
        raise ValueError(f"target must have shape {shape} for inputs of shape {x.shape}, got {target.shape}")
    return target.astype(compute_dtype(x), copy=False)


def _margin_ranking_rule(wanted, x1, x2, target, margin, reduction):
    check_reduction(reduction)
    a, b = vectors({"input1": x1, "input2": x2})
    if x1.shape != x2.shape:
        raise ValueError(f"input2 must have the shape of input1, {x1.shape}; got {x2.shape}")
    t = _check_target(target, x1, x1.shape, "input1")
    excess = np.maximum(margin - t * (a - b), 0)
    y, spread = reduce(excess, reduction, x1.size, x1.dtype)

    def pullback(dy):
        d = as_array(-spread(dy) * t * (excess > 0), x1.dtype)
        return d if wanted[0] else None, -d if wanted[1] else None

    return y, pullback


def _cosine_embedding_rule(wanted, x1, x2, target, margin, reduction):
    check_reduction(reduction)
    a, b = vectors({"input1": x1, "input2": x2})
    if x1.shape != x2.shape or x1.ndim not in (1, 2):
        raise ValueError(f"input1 and input2 must both have shape (N, D) or (D,), got {x1.shape} and {x2.shape}")
    t = _check_target(target, x1, x1.shape[:-1], "input1")
    squares = [(x * x).sum(axis=-1) + _COSINE_EPS for x in (a, b)]
    scale = np.sqrt(squares[0] * squares[1])
    cosine = (a * b).sum(axis=-1) / scale
    loss = np.where(t == 1, 1 - cosine, np.where(t == -1, np.maximum(cosine - margin, 0), 0))
    y, spread = reduce(as_array(loss, a.dtype), reduction, target.size, x1.dtype)

    def pullback(dy):
        slope = spread(dy) * np.where(t == 1, -1, np.where((t == -1) & (cosine > margin), 1, 0))
        pairs = ((a, b, squares[0]), (b, a, squares[1]))
        return tuple(
            as_array(slope[..., None] * (other / scale[..., None] - (cosine / square)[..., None] * x), x1.dtype)
            if w
            else None
            for (x, other, square), w in zip(pairs, wanted)
        )

    return y, pullback


@differentiable(_pairwise_distance_rule, wrt=("x1", "x2"))
def pairwise_distance(x1: A, x2: Array, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> A:
    """The p-norm of ``x1 - x2 + eps`` over the last dimension, as torch.nn.functional.pairwise_distance.

    Parameters
    ----------
    x1, x2 : array, shape (*, D)
        float32, float64, float16 or bfloat16, the same for both; shapes that broadcast.
    p : float
        1 adds the differences up, 2 is Euclid's, ``inf`` takes the largest; below 1 no metric.
    eps : float
        Added to each difference.
    keepdim : bool
        Keep the last dimension with size 1.

    Returns
    -------
    array, shape (*) or (*, 1)

    Raises
    ------
    ValueError
        Shapes that do not fit, or a `p` that is no number.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.pairwise_distance(np.array([[3.0, 4.0]]), np.zeros((1, 2)), eps=0.0)
    array([5.])
    """
    return apply(pairwise_distance, x1, x2, p, eps, keepdim)


@differentiable(_cosine_similarity_rule, wrt=("x1", "x2"))
def cosine_similarity(x1: A, x2: Array, dim: int = 1, eps: float = 1e-8) -> A:
    """The cosine of the angle between vectors along `dim`, as torch.nn.functional.cosine_similarity.

    Parameters
    ----------
    x1, x2 : array
        float32, float64, float16 or bfloat16, the same for both; shapes that broadcast.
    dim : int
        The dimension of the vectors, which the result does not have.
    eps : float
        Smallest norm that is divided by.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        Shapes that do not fit, or a `dim` that does not exist.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Notes
    -----
    Where a norm is below `eps` the gradient is that of the value, which torch's is not.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.cosine_similarity(np.array([[3.0, 4.0]]), np.array([[2.0, 0.0]]))
    array([0.6])
    """
    return apply(cosine_similarity, x1, x2, dim, eps)


@differentiable(_margin_ranking_rule, wrt=("input1", "input2"), buffers=("target",))
def margin_ranking_loss(input1: A, input2: Array, target: Array, margin: float = 0, *, reduction: str = "mean") -> A:
    """``max(0, margin - target * (input1 - input2))``, as torch.nn.functional.margin_ranking_loss.

    Parameters
    ----------
    input1, input2 : array of one shape
        float32, float64, float16 or bfloat16, the same for both.
    target : array of the same shape
        1 where `input1` should rank higher, -1 where `input2` should; of the inputs' dtype or integers.
    margin : float
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape () or the inputs' for "none"

    Raises
    ------
    ValueError
        Shapes that differ, or an unknown reduction.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.margin_ranking_loss(np.array([1.0, 1.0]), np.array([0.5, 2.0]), np.array([1, 1]), reduction="none")
    array([0., 1.])
    """
    return apply(margin_ranking_loss, input1, input2, target, margin, reduction)


@differentiable(_cosine_embedding_rule, wrt=("input1", "input2"), buffers=("target",))
def cosine_embedding_loss(input1: A, input2: Array, target: Array, margin: float = 0, *, reduction: str = "mean") -> A:
    """``1 - cos`` of pairs with target 1, ``max(0, cos - margin)`` for -1: torch.nn.functional.cosine_embedding_loss.

    Parameters
    ----------
    input1, input2 : array, shape (N, D) or (D,)
        float32, float64, float16 or bfloat16, the same for both.
    target : array, shape (N,) or ()
        1 and -1, of the inputs' dtype or integers.
    margin : float
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape () or the target's for "none"

    Raises
    ------
    ValueError, TypeError
        As `margin_ranking_loss`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> x, y = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.6, 0.8], [0.6, 0.8]])
    >>> F.cosine_embedding_loss(x, y, np.array([1, -1]), reduction="none").round(6)
    array([0.4, 0.6])
    """
    return apply(cosine_embedding_loss, input1, input2, target, margin, reduction)


def _pdist_rule(wanted, x, p):
    check_floating(x, "input")
    check_norm(p)
    if p < 0:
        raise ValueError(f"p must not be negative, got {p}")
    if x.ndim != 2:
        raise ValueError(f"input must be (N, D), got shape {x.shape}")
    library = array_module(x)
    first, second = (library.asarray(rows) for rows in np.triu_indices(len(x), 1))
    wide = x.astype(compute_dtype(x), copy=False)
    y, slope = distance(wide[first], wide[second], p, 0.0)

    def pullback(dy):
        along = slope.astype(wide.dtype, copy=False) * dy.astype(wide.dtype, copy=False)[:, None]
        dx = library.zeros_like(wide)
        library.add.at(dx, first, along)
        library.add.at(dx, second, -along)
        return (dx.astype(x.dtype, copy=False),)

    return y[:, 0].astype(x.dtype, copy=False), pullback


@differentiable(_pdist_rule, wrt=("input",))
def pdist(input: A, p: float = 2.0) -> A:
    """p-norm distances of all pairs of rows, as torch.nn.functional.pdist.

    Parameters
    ----------
    input : array, shape (N, D)
        float32, float64, float16 or bfloat16.
    p : float
        As for `pairwise_distance`, not negative.

    Returns
    -------
    array, shape (N (N - 1) / 2,)
        Of rows 0 and 1, 0 and 2, ..., 1 and 2, ...

    Raises
    ------
    ValueError
        Another shape, or a negative `p`.
    TypeError
        A dtype that is not supported.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.pdist(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    array([5.        , 1.        , 4.24264069])
    """
    return apply(pdist, input, p)
