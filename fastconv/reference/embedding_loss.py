"""float64 twins, forward only, of the distances and of the losses that embeddings are learned with.

They take arrays that are already known to be right and return float64; `reduction` is "none", "mean" or "sum".
Sources: the functions of the same names in torch.nn.functional.
"""

from __future__ import annotations

import numpy as np

from .checks import wide
from .loss import _reduced


def pairwise_distance(x1: np.ndarray, x2: np.ndarray, p: float = 2.0, eps: float = 1e-6) -> np.ndarray:
    """The p-norm of x1 - x2 + eps over the last dimension."""
    return np.linalg.norm(wide(x1) - wide(x2) + eps, p, axis=-1)


def cosine_similarity(x1: np.ndarray, x2: np.ndarray, dim: int = 1, eps: float = 1e-8) -> np.ndarray:
    """x1 . x2 / (max(|x1|, eps) * max(|x2|, eps)) along a dimension.

    >>> cosine_similarity(np.array([3.0, 4.0]), np.array([1.0, 0.0]), 0).item()
    0.6
    """
    a, b = np.broadcast_arrays(wide(x1), wide(x2))
    lengths = [np.maximum(np.linalg.norm(x, axis=dim), eps) for x in (a, b)]
    return (a * b).sum(axis=dim) / (lengths[0] * lengths[1])


def margin_ranking_loss(
    x1: np.ndarray, x2: np.ndarray, target: np.ndarray, margin: float = 0.0, reduction: str = "mean"
) -> np.ndarray:
    """max(0, margin - target * (x1 - x2))."""
    return _reduced(np.maximum(margin - wide(target) * (wide(x1) - wide(x2)), 0), reduction)


def cosine_embedding_loss(
    x1: np.ndarray, x2: np.ndarray, target: np.ndarray, margin: float = 0.0, reduction: str = "mean"
) -> np.ndarray:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1; torch's 1e-12 on the squared lengths."""
    a, b = wide(x1), wide(x2)
    cosine = (a * b).sum(axis=-1) / np.sqrt(((a * a).sum(axis=-1) + 1e-12) * ((b * b).sum(axis=-1) + 1e-12))
    return _reduced(np.where(target == 1, 1 - cosine, np.maximum(cosine - margin, 0) * (target == -1)), reduction)


def triplet_margin_loss(
    anchor: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> np.ndarray:
    """max(0, margin + d(anchor, positive) - d(anchor, negative)); `swap`: d(positive, negative) where smaller."""
    near, far = (pairwise_distance(anchor, other, p, eps) for other in (positive, negative))
    if swap:
        far = np.minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduced(np.maximum(margin + near - far, 0), reduction)
