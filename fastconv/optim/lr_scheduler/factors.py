"""Schedules that follow from the epoch alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...nn.modules.arguments import size
from ..optimizer import Optimizer
from .scheduler import LRScheduler, factor_of

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "StepLR",
]


class LambdaLR(LRScheduler):
    """The first learning rate times a function of the epoch.

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable, or sequence of callable
        Factor as a function of the epoch; one for all groups, or one for each.
    last_epoch : int
        See :class:`LRScheduler`. The functions are no part of ``state_dict``.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    >>> schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.25]
    """

    _unsaved = ("optimizer", "lr_lambdas")

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        count = len(getattr(optimizer, "param_groups", ()))
        self.lr_lambdas: list[Any] = list(lr_lambda) if isinstance(lr_lambda, list | tuple) else [lr_lambda] * count
        if len(self.lr_lambdas) != count or not all(map(callable, self.lr_lambdas)):
            raise ValueError(f"lr_lambda must be a function, or one for each of {count} groups, got {lr_lambda!r}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The first learning rates times the functions."""
        return [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas)]


class StepLR(LRScheduler):
    """The learning rate times `gamma` every `step_size` epochs.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
        At least 1.
    gamma : float
        Not negative.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    >>> schedule = optim.lr_scheduler.StepLR(optimizer, 1)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.05]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = size("step_size", step_size, 1)
        self.gamma = factor_of("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates, times `gamma` in every `step_size`-th epoch."""
        due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [rate * self.gamma for rate in self._current()] if due else self._current()


class MultiStepLR(LRScheduler):
    """The learning rate times `gamma` at each of the milestones.

    Parameters
    ----------
    optimizer : Optimizer
    milestones : iterable of int
        Epochs; one that stands there twice counts twice.
    gamma : float
        Not negative.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    >>> schedule = optim.lr_scheduler.MultiStepLR(optimizer, [1, 30])
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.05]
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = sorted(size("milestones", milestone, 0) for milestone in milestones)
        self.gamma = factor_of("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates, times `gamma` at a milestone."""
        times = Counter(self.milestones)[self.last_epoch]
        return [rate * self.gamma**times for rate in self._current()]


class LinearLR(LRScheduler):
    """Factors of the learning rate that grow (warm-up) or fall along a line.

    Parameters
    ----------
    optimizer : Optimizer
    start_factor : float
        Factor in epoch 0, above 0 and at most 1.
    end_factor : float
        Factor from epoch `total_iters` on, from 0 to 1.
    total_iters : int
        Epochs from one factor to the other, at least 1.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    >>> for _ in range(2):
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.75]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor, self.end_factor = (
            factor_of("start_factor", start_factor),
            factor_of("end_factor", end_factor),
        )
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor must be above 0 and at most 1, got {start_factor}")
        if end_factor > 1:
            raise ValueError(f"end_factor must be from 0 to 1, got {end_factor}")
        self.total_iters = size("total_iters", total_iters, 1)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates, moved on by one part of the line."""
        if self.last_epoch == 0:
            return [rate * self.start_factor for rate in self._current()]
        if self._begins or self.last_epoch > self.total_iters:
            return self._current()
        slope = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * slope
        return [rate * (1.0 + slope / before) for rate in self._current()]


class ConstantLR(LRScheduler):
    """A constant factor of the learning rate until epoch `total_iters`.

    Parameters
    ----------
    optimizer : Optimizer
    factor : float
        Above 0 and at most 1.
    total_iters : int
        The epoch in which the factor goes, at least 1.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> optim.lr_scheduler.ConstantLR(optimizer, factor=0.5).get_last_lr()
    [0.5]
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        self.factor = factor_of("factor", factor)
        if not 0 < factor <= 1:
            raise ValueError(f"factor must be above 0 and at most 1, got {factor}")
        self.total_iters = size("total_iters", total_iters, 1)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates with the factor, or freed of it."""
        if self.last_epoch == 0:
            return [rate * self.factor for rate in self._current()]
        if self.last_epoch == self.total_iters:
            return [rate * (1.0 / self.factor) for rate in self._current()]
        return self._current()


class ExponentialLR(LRScheduler):
    """The learning rate times `gamma` every epoch.

    Parameters
    ----------
    optimizer : Optimizer
    gamma : float
        Not negative.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = factor_of("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates times `gamma`."""
        if self._begins or self.last_epoch == 0:
            return self._current()
        return [rate * self.gamma for rate in self._current()]


class CosineAnnealingLR(LRScheduler):
    """The learning rate along a cosine from its first value to `eta_min` in `T_max` epochs, and back.

    Parameters
    ----------
    optimizer : Optimizer
    T_max : int
        Epochs of half a period, at least 1.
    eta_min : float
        Smallest learning rate, not negative.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Loshchilov & Hutter 2017, without the restarts.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    >>> schedule.step()
    >>> round(schedule.get_last_lr()[0], 6)
    0.5
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = size("T_max", T_max, 1)
        self.eta_min = factor_of("eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates, moved on along the cosine."""
        if self._begins or self.last_epoch == 0:
            return self._current()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # the quotient below would be 0 / 0
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [rate + (base - self.eta_min) * rise for rate, base in zip(self._current(), self.base_lrs)]
        now, before = (1 + math.cos(math.pi * epoch / self.T_max) for epoch in (self.last_epoch, self.last_epoch - 1))
        return [now / before * (rate - self.eta_min) + self.eta_min for rate in self._current()]
