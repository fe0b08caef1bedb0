"""Margin loss layers: those of multiclass support vector machines, of two classes and of several labels at once."""

from __future__ import annotations

from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import number, size
from fastconv.nn.modules.loss import _Loss

__all__ = [
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "OneVsAllHingeLoss",
    "SoftMarginLoss",
]


def _exponent(p: Any) -> int:
    if size("p", p, 1) > 2:
        raise ValueError(f"p must be 1 or 2, got {p}")
    return p


class MultiMarginLoss(_Loss):
    """Multiclass SVM loss of Weston and Watkins: sum over j != y of max(0, margin - x[y] + x[j]) ** p / C.

    Parameters
    ----------
    p : {1, 2}
        2 squares the hinges.
    margin : float
        By how much the score of the class must exceed the others.
    weight : array, optional
        (C,): a factor per class; becomes a buffer.
    reduction : {"mean", "sum", "none"}, keyword only
        How the samples are put together.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, a target outside the classes.

    Notes
    -----
    Input (N, C) or (C,), target classes (N,) or (). Weston & Watkins 1999. Source: torch.nn.MultiMarginLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.MultiMarginLoss()(np.array([[1.0, 0.5]], np.float32), np.array([0])))
    0.25
    """

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.p = _exponent(p)
        self.margin = number("margin", margin)
        self.register_buffer("weight", weight)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of scores `input` against classes `target`."""
        return F.multi_margin_loss(input, target, self.p, self.margin, self.weight, reduction=self.reduction)


class OneVsAllHingeLoss(_Loss):
    """One binary SVM a class: sum over j of max(0, margin - t[j] x[j]) ** p, t[j] = 1 for the class, else -1.

    Parameters
    ----------
    p : {1, 2}
        2 squares the hinges.
    margin : float
        Scores beyond it, on the right side, cost nothing.
    reduction : {"mean", "sum", "none"}, keyword only
        How the samples are put together.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, a target outside the classes.

    Notes
    -----
    Input (N, C) or (C,), target classes (N,) or (). Rifkin & Klautau 2004.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.OneVsAllHingeLoss()(np.array([[1.0, -0.5]], np.float32), np.array([0])))
    0.5
    """

    def __init__(self, p: int = 1, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.p = _exponent(p)
        self.margin = number("margin", margin)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of scores `input` against classes `target`."""
        return F.one_vs_all_hinge_loss(input, target, self.p, self.margin, reduction=self.reduction)


class SoftMarginLoss(_Loss):
    """log(1 + exp(-target * input)) of two classes, 1 and -1.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.

    Notes
    -----
    Source: torch.nn.SoftMarginLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> round(float(nn.SoftMarginLoss()(np.zeros(2), np.array([1, -1]))), 4)
    0.6931
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of scores `input` against `target` (1 or -1) of the same shape."""
        return F.soft_margin_loss(input, target, reduction=self.reduction)


class MultiLabelMarginLoss(_Loss):
    """Sum over right classes y and wrong classes j of max(0, 1 - x[y] + x[j]) / C.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, keyword only
        How the samples are put together.

    Notes
    -----
    Input (N, C) or (C,); target of the same shape: the right classes, then -1. Source: torch.nn.MultiLabelMarginLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> round(float(nn.MultiLabelMarginLoss()(np.array([[0.1, 0.2, 0.4, 0.8]]), np.array([[3, 0, -1, 1]]))), 4)
    0.85
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of scores `input` against the classes `target`."""
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_Loss):
    """Binary cross entropy of logits, averaged over the classes.

    Parameters
    ----------
    weight : array, optional
        (C,): a factor per class; becomes a buffer.
    reduction : {"mean", "sum", "none"}, keyword only
        How the samples are put together.

    Raises
    ------
    ValueError
        A parameter breaks its rule.

    Notes
    -----
    Input and target (*, C). Source: torch.nn.MultiLabelSoftMarginLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> round(float(nn.MultiLabelSoftMarginLoss()(np.zeros((2, 3)), np.ones((2, 3)))), 4)
    0.6931
    """

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of logits `input` against `target` (1 or 0) of the same shape."""
        return F.multilabel_soft_margin_loss(input, target, self.weight, reduction=self.reduction)
