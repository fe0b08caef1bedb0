"""Several schedules of one optimiser: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from ...nn.modules.arguments import size
from ..optimizer import Optimizer
from .plateau import ReduceLROnPlateau
from .scheduler import LRScheduler, plain

__all__ = ["ChainedScheduler", "SequentialLR"]


class _Several(LRScheduler):
    """The states of the schedules within another."""

    _unsaved = ("optimizer", "_schedulers")
    _schedulers: list[LRScheduler]

    @staticmethod
    def _checked(schedulers: Sequence[LRScheduler], optimizer: Any) -> list[LRScheduler]:
        for schedule in schedulers:
            if isinstance(schedule, ReduceLROnPlateau):
                raise ValueError("schedulers must not hold ReduceLROnPlateau, which needs a measured value")
            if not isinstance(schedule, LRScheduler) or schedule.optimizer is not optimizer:
                raise ValueError(f"schedulers must be schedules of this optimizer, got {schedule!r}")
        return list(schedulers)

    def state_dict(self) -> dict[str, Any]:
        """The states of this schedule and, under ``"_schedulers"``, of those in it."""
        return {**super().state_dict(), "_schedulers": [schedule.state_dict() for schedule in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the states of the same schedules."""
        own = self.state_dict()
        states = state_dict.get("_schedulers") if isinstance(state_dict, Mapping) else None
        if not isinstance(states, list | tuple) or set(state_dict) != set(own) or len(states) != len(self._schedulers):
            raise ValueError(f"state_dict must be that of a {type(self).__name__} of {len(self._schedulers)} schedules")
        before = own["_schedulers"]
        try:
            for schedule, state in zip(self._schedulers, states):
                schedule.load_state_dict(state)
        except (ValueError, TypeError):
            for schedule, state in zip(self._schedulers, before):
                schedule.load_state_dict(state)
            raise
        self.__dict__.update({name: plain(value) for name, value in state_dict.items() if name != "_schedulers"})


class SequentialLR(_Several):
    """One schedule after the other, such as a warm-up and then a cosine.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : sequence of LRScheduler
        All of the same optimiser; each begins at its epoch 0.
    milestones : sequence of int
        The epochs in which the second, third, ... schedule begins, rising.
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
    >>> warm_up = optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> cosine = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    >>> schedule = optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[2])
    >>> rates = []
    >>> for epoch in range(4):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> [round(rate, 3) for rate in rates]
    [0.5, 0.75, 1.0, 0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        schedulers = list(schedulers)
        self._milestones = [size("milestones", milestone, 1) for milestone in milestones]
        if not schedulers or len(schedulers) != len(self._milestones) + 1:
            raise ValueError(
                f"milestones must be one fewer than schedulers, got {len(self._milestones)} and {len(schedulers)}"
            )
        if any(a >= b for a, b in zip(self._milestones, self._milestones[1:])):
            raise ValueError(f"milestones must rise, got {self._milestones}")
        self._schedulers = self._checked(schedulers, optimizer)
        super().__init__(optimizer, last_epoch)

    def step(self) -> None:
        """Go on to the next epoch of the schedule whose turn it is."""
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        schedule = self._schedulers[turn]
        if self.last_epoch == (self._milestones[turn - 1] if turn else 0):
            schedule.restart()
        else:
            schedule.step()
        self._last_lr = schedule.get_last_lr()

    def restart(self) -> None:
        """Begin again with the first schedule."""
        self.last_epoch = -1
        self.step()


class ChainedScheduler(_Several):
    """Several schedules at once, each on the learning rate that the one before has left.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
        All of the same optimiser.
    optimizer : Optimizer, optional
        By default that of the first schedule.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> warm_up = optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> schedule = optim.lr_scheduler.ChainedScheduler([warm_up, optim.lr_scheduler.ExponentialLR(optimizer, 0.9)])
    >>> rates = []
    >>> for epoch in range(3):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> [round(rate, 3) for rate in rates]
    [0.5, 0.45, 0.81]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        schedulers = list(schedulers)
        if not schedulers:
            raise ValueError("schedulers must have at least one entry, got none")
        owner = getattr(schedulers[0], "optimizer", None) if optimizer is None else optimizer
        if not isinstance(owner, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {type(owner).__name__}")
        self.optimizer = owner
        self._schedulers = self._checked(schedulers, owner)
        self._last_lr = self._current()

    def step(self) -> None:
        """Go on to the next epoch in all of them."""
        for schedule in self._schedulers:
            schedule.step()
        self._last_lr = self._current()

    def restart(self) -> None:
        """Begin again: the first schedule from the learning rates that the optimiser began with, the others on its."""
        first, *others = self._schedulers
        first.restart()
        for schedule in others:
            schedule.last_epoch = 0
            schedule._set(schedule.get_lr())
        self._last_lr = self._current()
