"""Triplet losses: an anchor should be nearer to what belongs to it than to what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...devices import array_module, as_array
from ...differentiable import A, Array, apply, differentiable
from ...tape import enable_grad
from ...tensor import Tensor
from .embedding_loss import check_norm, distance, pairwise_distance, vectors
from .parameters import compute_dtype
from .reduction import check_reduction, reduce


def _check_shapes(anchor: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> list[np.ndarray]:
    """The arrays in the type to compute in."""
    arrays = {"anchor": anchor, "positive": positive, "negative": negative}
    checked = vectors(arrays)
    if not anchor.ndim or anchor.shape != positive.shape or anchor.shape != negative.shape:
        shapes = ", ".join(str(array.shape) for array in arrays.values())
        raise ValueError(f"anchor, positive and negative must have one shape (*, D), got {shapes}")
    return checked


def _check_margin(margin: float) -> None:
    if not margin > 0:
        raise ValueError(f"margin must be above 0, got {margin}")


def _triplet_margin_rule(wanted, anchor, positive, negative, margin, p, eps, swap, reduction):
    check_reduction(reduction)
    _check_margin(margin)
    check_norm(p)
    a, b, c = _check_shapes(anchor, positive, negative)
    near, near_slope = distance(a, b, p, eps)
    far, far_slope = distance(a, c, p, eps)
    swapped = array_module(far).zeros(far.shape, bool)
    if swap:
        other, other_slope = distance(b, c, p, eps)
        swapped = other < far
        far = np.minimum(far, other)
    excess = np.maximum(margin + near - far, 0)
    y, spread = reduce(excess[..., 0], reduction, far.size, anchor.dtype)

    def pullback(dy):
        g = np.expand_dims(spread(dy), -1 if reduction == "none" else ()) * (excess > 0)
        da = near_slope - np.where(swapped, 0, far_slope)
        db, dc = -near_slope, np.where(swapped, 0, far_slope)
        if swap:
            db, dc = db - np.where(swapped, other_slope, 0), dc + np.where(swapped, other_slope, 0)
        return tuple(as_array(g * d, anchor.dtype) if w else None for d, w in zip((da, db, dc), wanted))

    return y, pullback


def _triplet_with_distance_rule(wanted, anchor, positive, negative, distance_function, margin, swap, reduction):
    check_reduction(reduction)
    _check_margin(margin)
    measure = pairwise_distance if distance_function is None else distance_function
    leaves = [Tensor(x, w) for x, w in zip(_check_shapes(anchor, positive, negative), wanted)]
    with enable_grad():
        near, far = measure(leaves[0], leaves[1]), measure(leaves[0], leaves[2])
        other = measure(leaves[1], leaves[2]) if swap else far
    if not all(isinstance(value, Tensor) and value.shape == near.shape for value in (near, far, other)):
        raise TypeError("distance_function must map two Tensors to one, of the same shape for all pairs")
    swapped = other.data < far.data
    excess = np.maximum(margin + near.data - np.minimum(far.data, other.data), 0)
    y, spread = reduce(excess, reduction, excess.size, anchor.dtype)

    def pullback(dy):
        g = as_array(spread(dy) * (excess > 0), compute_dtype(anchor))
        for leaf in leaves:
            leaf.grad = None
        parts = [(near, g), (far, np.where(swapped, 0, -g))]
        for value, part in [*parts, (other, np.where(swapped, -g, 0))] if swap else parts:
            if value.requires_grad:
                value.backward(part.astype(value.dtype), retain_graph=True)
        return tuple(
            (
                array_module(anchor).zeros(leaf.shape, anchor.dtype)
                if leaf.grad is None
                else leaf.grad.astype(anchor.dtype)
            )
            if w
            else None
            for leaf, w in zip(leaves, wanted)
        )

    return y, pullback


@differentiable(_triplet_margin_rule, wrt=("anchor", "positive", "negative"))
def triplet_margin_loss(
    anchor: A,
    positive: Array,
    negative: Array,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> A:
    """``max(0, margin + d(anchor, positive) - d(anchor, negative))``, as torch.nn.functional.triplet_margin_loss.

    Parameters
    ----------
    anchor, positive, negative : array of one shape (*, D)
        float32, float64, float16 or bfloat16, the same for all.
    margin : float
        Above 0.
    p, eps : float
        Of the distance d, see `pairwise_distance`.
    swap : bool
        Take d(positive, negative) for the last term where it is smaller.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape () or (*) for "none"

    Raises
    ------
    ValueError, TypeError
        As `margin_ranking_loss`; a margin of 0 or below, a `p` that is no number.

    Notes
    -----
    Balntas et al. 2016.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.triplet_margin_loss(np.zeros((1, 2)), np.array([[0.0, 2.0]]), np.array([[2.5, 0.0]])).round(4)
    np.float64(0.5)
    """
    return apply(triplet_margin_loss, anchor, positive, negative, margin, p, eps, swap, reduction)


@differentiable(_triplet_with_distance_rule, wrt=("anchor", "positive", "negative"))
def triplet_margin_with_distance_loss(
    anchor: A,
    positive: Array,
    negative: Array,
    *,
    distance_function: Callable[[Any, Any], Any] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> A:
    """`triplet_margin_loss` with a distance of one's own, as torch.nn.functional.triplet_margin_with_distance_loss.

    Parameters
    ----------
    anchor, positive, negative : array of one shape (*, D)
        float32, float64, float16 or bfloat16, the same for all.
    distance_function : callable, optional
        Takes two Tensors (16-bit types as float32) and returns one, the distances; `pairwise_distance` by default.
    margin : float
        Above 0.
    swap : bool
        Take the distance of positive and negative for the last term where it is smaller.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    array, shape () or that of the distances for "none"

    Raises
    ------
    ValueError
        Shapes that differ, a margin of 0 or below, or an unknown reduction.
    TypeError
        A dtype that is not supported, or a `distance_function` that returns no Tensor.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> def cosine_distance(x, y):
    ...     return 1 - F.cosine_similarity(x, y)
    >>> anchor, positive, negative = np.eye(3)[[0]], np.eye(3)[[1]], np.eye(3)[[0]]
    >>> F.triplet_margin_with_distance_loss(anchor, positive, negative, distance_function=cosine_distance)
    array(2.)
    """
    return apply(
        triplet_margin_with_distance_loss, anchor, positive, negative, distance_function, margin, swap, reduction
    )
