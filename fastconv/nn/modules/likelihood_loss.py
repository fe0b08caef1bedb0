"""Layers of negative log likelihoods of predicted distributions."""

from __future__ import annotations

from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import number, size
from fastconv.nn.modules.loss import _Loss

__all__ = ["CTCLoss", "GaussianNLLLoss", "PoissonNLLLoss"]


class CTCLoss(_Loss):
    """Connectionist temporal classification: -log of the probability of a labelling, wherever its labels lie.

    Parameters
    ----------
    blank : int
        The class that stands for no label.
    reduction : {"mean", "sum", "none"}
        How the sequences are put together; "mean" divides each by its number of labels first.
    zero_infinity : bool
        0 instead of infinity where there are too few steps for the labels.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Graves et al. 2006. Source: torch.nn.CTCLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> log_probs = np.log(np.full((2, 1, 3), 1 / 3))
    >>> float(np.exp(-nn.CTCLoss()(log_probs, np.array([[1]]), [2], [1])).round(6))
    0.333333
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction)
        self.blank = size("blank", blank, 0)
        self.zero_infinity = zero_infinity

    def forward(self, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any) -> Any:
        """The loss of `log_probs` (T, N, C) or (T, C), see `fastconv.nn.functional.ctc_loss`."""
        options = self.blank, self.reduction, self.zero_infinity
        return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, *options)


class GaussianNLLLoss(_Loss):
    """(log(var) + (input - target)² / var) / 2 of predicted means and variances.

    Parameters
    ----------
    full : bool, keyword only
        Add the constant log(2 pi) / 2.
    eps : float, keyword only
        Smallest variance that is computed with; positive.
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.GaussianNLLLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.GaussianNLLLoss()(np.array([2.0]), np.zeros(1), np.ones(1)))
    2.0
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = full
        if not number("eps", eps) > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.eps = eps

    def forward(self, input: Any, target: Any, var: Any) -> Any:
        """The loss of means `input` and variances `var` against samples `target`."""
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class PoissonNLLLoss(_Loss):
    """exp(input) - target * input of predicted log rates.

    Parameters
    ----------
    log_input : bool
        False takes the input for the rate itself.
    full : bool
        Add Stirling's approximation of log(target!).
    eps : float, keyword only
        Keeps the logarithm finite where `log_input` is False.
    reduction : {"mean", "sum", "none"}, keyword only
        How the elements are put together.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.PoissonNLLLoss.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> float(nn.PoissonNLLLoss()(np.zeros(1), np.array([3.0])))
    1.0
    """

    def __init__(
        self, log_input: bool = True, full: bool = False, *, eps: float = 1e-8, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.log_input = log_input
        self.full = full
        self.eps = number("eps", eps)

    def forward(self, log_input: Any, target: Any) -> Any:
        """The loss of (log) rates `log_input` against counts `target` of the same shape."""
        return F.poisson_nll_loss(log_input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction)
