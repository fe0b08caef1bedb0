"""Layers of negative log likelihoods of predicted distributions."""

from __future__ import annotations

from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import number
from fastconv.nn.modules.loss import _Loss

__all__ = ["GaussianNLLLoss", "PoissonNLLLoss"]


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

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of (log) rates `input` against counts `target` of the same shape."""
        return F.poisson_nll_loss(input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction)
