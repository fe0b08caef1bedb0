"""Layers of distances, and of the losses that embeddings are learned with."""

from __future__ import annotations

import math
from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import number
from fastconv.nn.modules.loss import _Loss
from fastconv.nn.modules.module import Module

__all__ = [
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "MarginRankingLoss",
    "PairwiseDistance",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]


def _norm(p: Any) -> Any:
    if math.isnan(number("p", p)):
        raise ValueError(f"p must be a number, got {p}")
    return p


class CosineSimilarity(Module):
    """Cosine of the angle between vectors along one dimension.

    Parameters
    ----------
    dim : int
        The dimension of the vectors, which the output does not have.
    eps : float
        Smallest norm that is divided by.

    Notes
    -----
    Source: torch.nn.CosineSimilarity.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.CosineSimilarity()(np.array([[3.0, 4.0]]), np.array([[2.0, 0.0]]))
    array([0.6])
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = number("eps", eps)

    def forward(self, x1: Any, x2: Any) -> Any:
        """The cosines of `x1` and `x2`, whose shapes broadcast."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """p-norm of the difference of vectors, along the last dimension.

    Parameters
    ----------
    p : float
        At least 1; ``inf`` takes the largest difference.
    eps : float
        Added to each difference.
    keepdim : bool
        Keep the last dimension with size 1.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.PairwiseDistance.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.PairwiseDistance(eps=0.0)(np.array([[3.0, 4.0]]), np.zeros((1, 2)))
    array([5.])
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm = _norm(p)
        self.eps = number("eps", eps)
        self.keepdim = keepdim

    def forward(self, x1: Any, x2: Any) -> Any:
        """The distances (*) of vectors `x1` and `x2` (*, D), whose shapes broadcast."""
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class MarginRankingLoss(_Loss):
    """max(0, margin - target * (input1 - input2)): the first of two scores should be the higher one (1) or not (-1).

    Parameters
    ----------
    margin : float
        By how much.
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.MarginRankingLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.MarginRankingLoss(0.5)(np.array([1.0]), np.array([0.75]), np.array([1])))
    0.25
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = number("margin", margin)

    def forward(self, input1: Any, input2: Any, target: Any) -> Any:
        """The loss of scores against `target` (1 or -1), all of one shape."""
        return F.margin_ranking_loss(input1, input2, target, self.margin, reduction=self.reduction)


class CosineEmbeddingLoss(_Loss):
    """1 - cos of pairs that belong together (1), max(0, cos - margin) of pairs that do not (-1).

    Parameters
    ----------
    margin : float
        Cosine below which pairs that do not belong together cost nothing; from -1 to 1.
    reduction : {"mean", "sum", "none"}, keyword only
        How the pairs are put together.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Inputs (N, D) or (D,), target (N,) or (). Source: torch.nn.CosineEmbeddingLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> round(float(nn.CosineEmbeddingLoss()(np.array([3.0, 4.0]), np.array([2.0, 0.0]), np.array(1))), 6)
    0.4
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = number("margin", margin)

    def forward(self, input1: Any, input2: Any, target: Any) -> Any:
        """The loss of pairs of vectors against `target` (1 or -1)."""
        return F.cosine_embedding_loss(input1, input2, target, self.margin, reduction=self.reduction)


class TripletMarginLoss(_Loss):
    """max(0, margin + d(anchor, positive) - d(anchor, negative)).

    Parameters
    ----------
    margin : float
        By how much the negative example must be farther away; above 0.
    p, eps : float
        Of the distance d, see :class:`PairwiseDistance`.
    swap : bool
        Take d(positive, negative) for the last term where it is smaller.
    reduction : {"mean", "sum", "none"}, keyword only
        How the triplets are put together.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Inputs (*, D). Balntas et al. 2016. Source: torch.nn.TripletMarginLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> loss = nn.TripletMarginLoss(eps=0.0)
    >>> float(loss(np.zeros((1, 2)), np.array([[0.0, 2.0]]), np.array([[2.5, 0.0]])))
    0.5
    """

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, *, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        if not number("margin", margin) > 0:
            raise ValueError(f"margin must be above 0, got {margin}")
        self.margin = margin
        self.p = _norm(p)
        self.eps = number("eps", eps)
        self.swap = swap

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Any:
        """The loss of three arrays of vectors of one shape (*, D)."""
        return F.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, reduction=self.reduction
        )


class TripletMarginWithDistanceLoss(_Loss):
    """:class:`TripletMarginLoss` with a distance of one's own.

    Parameters
    ----------
    distance_function : callable, keyword only, optional
        Takes two Tensors and returns one, the distances; :class:`PairwiseDistance` by default.
    margin : float, keyword only
        By how much the negative example must be farther away; above 0.
    swap : bool, keyword only
        Take the distance of positive and negative for the last term where it is smaller.
    reduction : {"mean", "sum", "none"}, keyword only
        How the triplets are put together.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.TripletMarginWithDistanceLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> loss = nn.TripletMarginWithDistanceLoss(distance_function=nn.PairwiseDistance(p=1.0, eps=0.0))
    >>> float(loss(np.zeros((1, 2)), np.array([[0.0, 2.0]]), np.array([[1.5, 1.0]])))
    0.5
    """

    def __init__(
        self, *, distance_function: Any = None, margin: float = 1.0, swap: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        if not number("margin", margin) > 0:
            raise ValueError(f"margin must be above 0, got {margin}")
        if distance_function is not None and not callable(distance_function):
            raise TypeError(f"distance_function must be callable, got {distance_function!r}")
        self.distance_function = PairwiseDistance() if distance_function is None else distance_function
        self.margin = margin
        self.swap = swap

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Any:
        """The loss of three arrays of vectors of one shape (*, D)."""
        return F.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )
