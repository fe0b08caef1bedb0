"""Loss layers: the functions of fastconv.nn.functional with their options held in an object."""

from __future__ import annotations

from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import choice, number, size
from fastconv.nn.modules.module import Module

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "NLLLoss",
    "SmoothL1Loss",
]


class _Loss(Module):
    def __init__(self, reduction: str, allowed: tuple[str, ...] = ("none", "mean", "sum")) -> None:
        super().__init__()
        self.reduction = choice("reduction", reduction, allowed)


class CrossEntropyLoss(_Loss):
    """Cross entropy between logits and classes.

    Parameters
    ----------
    weight : array, optional
        (C,): a factor per class; becomes a buffer.
    ignore_index : int, keyword only
        Targets of this class count for nothing.
    reduction : {"mean", "sum", "none"}, keyword only
        How the losses are put together; "mean" divides by the sum of the weights used.
    label_smoothing : float, keyword only
        Share of the target that is spread over all classes, from 0 to 1.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, a target outside the classes.

    Notes
    -----
    Input (N, C), (N, C, *S) or (C,); target classes (N,), (N, *S) or (), or probabilities shaped like the input.
    Source: torch.nn.CrossEntropyLoss; ONNX SoftmaxCrossEntropyLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> round(float(nn.CrossEntropyLoss()(np.zeros((2, 4), np.float32), np.array([0, 3]))), 4)
    1.3863
    """

    def __init__(
        self,
        weight: Any = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = size("ignore_index", ignore_index, -(2**63))
        if not 0 <= number("label_smoothing", label_smoothing) <= 1:
            raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of logits `input` against `target`."""
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """Negative log likelihood of log-probabilities, such as :class:`LogSoftmax` gives.

    Parameters
    ----------
    weight : array, optional
        (C,): a factor per class; becomes a buffer.
    ignore_index : int, keyword only
        Targets of this class count for nothing.
    reduction : {"mean", "sum", "none"}, keyword only
        How the losses are put together; "mean" divides by the sum of the weights used.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, a target outside the classes.

    Notes
    -----
    Input (N, C), (N, C, *S) or (C,), target classes (N,), (N, *S) or (). Source: torch.nn.NLLLoss; ONNX
    NegativeLogLikelihoodLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.NLLLoss()(np.array([[-0.5, -1.0]], np.float32), np.array([0])))
    0.5
    """

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = size("ignore_index", ignore_index, -(2**63))

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of log-probabilities `input` against `target`."""
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(_Loss):
    """Squared difference.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.

    Notes
    -----
    Source: torch.nn.MSELoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.MSELoss()(np.zeros(2, np.float32), np.array([1.0, 3.0], np.float32)))
    5.0
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of `input` against `target` of the same shape."""
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """Absolute difference.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.

    Notes
    -----
    Source: torch.nn.L1Loss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.L1Loss()(np.zeros(2, np.float32), np.array([1.0, -3.0], np.float32)))
    2.0
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of `input` against `target` of the same shape."""
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Squared difference near zero, absolute difference beyond `beta`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.
    beta : float, keyword only
        Where the two meet; not negative.

    Raises
    ------
    ValueError
        A parameter breaks its rule.

    Notes
    -----
    0.5 d² / beta where |d| < beta, |d| - beta / 2 elsewhere. Source: torch.nn.SmoothL1Loss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.SmoothL1Loss()(np.zeros(1, np.float32), np.array([3.0], np.float32)))
    2.5
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        if not number("beta", beta) >= 0:
            raise ValueError(f"beta must not be negative, got {beta}")
        self.beta = beta

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of `input` against `target` of the same shape."""
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Squared difference near zero, `delta` times the absolute difference beyond `delta`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        How the elements are put together.
    delta : float
        Where the two meet; above 0.

    Raises
    ------
    ValueError
        A parameter breaks its rule.

    Notes
    -----
    Huber 1964. `delta` times :class:`SmoothL1Loss` with ``beta=delta``; infinity gives half the squared difference.
    Source: torch.nn.HuberLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.HuberLoss(delta=2.0)(np.zeros(1, np.float32), np.array([3.0], np.float32)))
    4.0
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        if not number("delta", delta) > 0:
            raise ValueError(f"delta must be above 0, got {delta}")
        self.delta = delta

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of `input` against `target` of the same shape."""
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class KLDivLoss(_Loss):
    """Kullback-Leibler divergence of log-probabilities from a target distribution.

    Parameters
    ----------
    reduction : {"mean", "batchmean", "sum", "none"}, keyword only
        How the elements are put together; "batchmean" is the divergence as it is defined.
    log_target : bool, keyword only
        Whether the target holds log-probabilities too.

    Raises
    ------
    ValueError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.KLDivLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> p = np.array([[0.5, 0.5]], np.float32)
    >>> float(nn.KLDivLoss(reduction="batchmean")(np.log(p), p))
    0.0
    """

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction, ("none", "mean", "batchmean", "sum"))
        self.log_target = log_target

    def forward(self, input: Any, target: Any) -> Any:
        """The divergence of log-probabilities `input` from `target` of the same shape."""
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class HingeEmbeddingLoss(_Loss):
    """x where the target is 1, max(0, margin - x) where it is -1.

    Parameters
    ----------
    margin : float
        Distance beyond which dissimilar pairs cost nothing.
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.HingeEmbeddingLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> x = np.array([0.25, 0.75], np.float32)
    >>> nn.HingeEmbeddingLoss(reduction="none")(x, np.array([1.0, -1.0], np.float32))
    array([0.25, 0.25], dtype=float32)
    """

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = number("margin", margin)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of distances `input` against `target` (1 or -1) of the same shape."""
        return F.hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


class BCELoss(_Loss):
    """Binary cross entropy of probabilities.

    Parameters
    ----------
    weight : array, optional
        A factor per element, broadcast; becomes a buffer.
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.

    Raises
    ------
    ValueError
        A parameter breaks its rule.

    Notes
    -----
    Logarithms are limited to -100. Source: torch.nn.BCELoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> round(float(nn.BCELoss()(np.array([0.5], np.float32), np.array([1.0], np.float32))), 4)
    0.6931
    """

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of probabilities `input` against `target` of the same shape."""
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of logits: sigmoid and :class:`BCELoss` in one, without overflow.

    Parameters
    ----------
    weight : array, optional
        A factor per element, broadcast; becomes a buffer.
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.
    pos_weight : array, optional, keyword only
        A factor for the positive targets, broadcast; becomes a buffer.

    Raises
    ------
    ValueError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.BCEWithLogitsLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> round(float(nn.BCEWithLogitsLoss()(np.zeros(1, np.float32), np.ones(1, np.float32))), 4)
    0.6931
    """

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of logits `input` against `target` of the same shape."""
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )
