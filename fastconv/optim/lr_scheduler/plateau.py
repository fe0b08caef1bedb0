"""A schedule that watches a measured value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...nn.modules.arguments import choice, size
from ..optimizer import Optimizer, check_range
from .scheduler import LRScheduler

__all__ = ["ReduceLROnPlateau"]


class ReduceLROnPlateau(LRScheduler):
    """The learning rate times `factor` when a measured value has not improved for more than `patience` epochs.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether a lower or a higher value is better.
    factor : float
        Below 1.
    patience : int
        Epochs without improvement that are waited for.
    threshold : float
        What counts as improvement: this share of the best value ("rel"), or this difference to it ("abs").
    threshold_mode : {"rel", "abs"}
    cooldown : int
        Epochs after a reduction in which nothing is counted.
    min_lr : float, or sequence of float
        Smallest learning rate, of all groups or of each.
    eps : float
        Reductions that are not larger than this are left out.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.optim.lr_scheduler.ReduceLROnPlateau.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (3.0, 3.0, 3.0):
    ...     schedule.step(loss)
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
        check_range("factor", factor, below=1.0)
        check_range("threshold", threshold)
        check_range("eps", eps)
        groups = len(optimizer.param_groups)
        self.optimizer = optimizer
        self.min_lrs: list[Any] = list(min_lr) if isinstance(min_lr, list | tuple) else [min_lr] * groups
        if len(self.min_lrs) != groups:
            raise ValueError(f"min_lr must be one number or one for each of {groups} groups, got {min_lr}")
        for rate in self.min_lrs:
            check_range("min_lr", rate)
        self.mode = choice("mode", mode, ("min", "max"))
        self.threshold_mode = choice("threshold_mode", threshold_mode, ("rel", "abs"))
        self.factor, self.threshold, self.eps = factor, threshold, eps
        self.patience, self.cooldown = size("patience", patience, 0), size("cooldown", cooldown, 0)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self._current()

    def _is_better(self, value: float) -> bool:
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            limit = self.best * (1 + sign * self.threshold)
        else:
            limit = self.best + sign * self.threshold
        return value > limit if self.mode == "max" else value < limit

    def step(self, metrics: Any = None) -> None:
        """Count the epoch whose measured value is `metrics`."""
        if metrics is None:
            raise TypeError("metrics must be given: the value that is watched")
        value = float(metrics)
        self.last_epoch += 1
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        rates = self._current()
        if self.num_bad_epochs > self.patience:
            lower = [max(rate * self.factor, least) for rate, least in zip(rates, self.min_lrs)]
            rates = [new if old - new > self.eps else old for old, new in zip(rates, lower)]
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._set(rates)
