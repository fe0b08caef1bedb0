"""The base class of the schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...nn.modules.arguments import size
from ..optimizer import Optimizer, check_range

__all__ = ["LRScheduler", "factor_of", "plain"]


def plain(value: Any) -> Any:
    """`value`, sequences as lists of their own."""
    return list(value) if isinstance(value, list | tuple) else value


def factor_of(name: str, value: Any) -> float:
    """`value`, which must be a real number that is not negative."""
    check_range(name, value)
    return value


class LRScheduler:
    """Base class of the schedules: a subclass defines ``get_lr``.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' ``"lr"`` is what changes. Each group keeps its first learning rate under ``"initial_lr"``.
    last_epoch : int
        Steps that an earlier schedule of this optimiser has done, less one: the first ``step`` goes on from the rates
        that the optimiser has. Loading a ``state_dict`` is simpler.

    Attributes
    ----------
    base_lrs : list of float
        The learning rate of each group that the schedule began with.
    last_epoch : int
        How many times ``step`` was called.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.optim.lr_scheduler.LRScheduler.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> class Halving(optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [base * 0.5**self.last_epoch for base in self.base_lrs]
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    >>> schedule = Halving(optimizer)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.05]
    """

    # What state_dict() leaves out.
    _unsaved: tuple[str, ...] = ("optimizer",)
    # Whether `get_lr` is asked for the rates to begin with.
    _begins = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.last_epoch = size("last_epoch", last_epoch, -1)
        for group in optimizer.param_groups:
            if self.last_epoch >= 0 and "initial_lr" not in group:
                raise ValueError(f"last_epoch must be -1 for an optimizer without 'initial_lr', got {last_epoch}")
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self._last_lr: list[float] = []
        self._begins = True
        self.step()
        del self._begins

    def get_lr(self) -> list[float]:
        """The learning rate of each group in epoch ``last_epoch``, from those of the epoch before."""
        raise NotImplementedError(f"{type(self).__name__} defines no get_lr")

    def get_last_lr(self) -> list[float]:
        """The learning rate that the schedule set last, for each group."""
        return list(self._last_lr)

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _current(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Go on to the next epoch."""
        self.last_epoch += 1
        self._set(self.get_lr())

    def restart(self) -> None:
        """Begin again at epoch 0, from the learning rates that the optimiser began with."""
        self.last_epoch = 0
        self._set(self.base_lrs)
        self._set(self.get_lr())

    def state_dict(self) -> dict[str, Any]:
        """All that the schedule remembers but the optimiser."""
        return {name: plain(value) for name, value in self.__dict__.items() if name not in self._unsaved}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of another schedule of the same kind (the optimiser has a state of its own).

        Raises
        ------
        ValueError
            The state is that of another kind of schedule, or of another number of groups; nothing is changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping, got {type(state_dict).__name__}")
        own = self.state_dict()
        if set(state_dict) != set(own):
            raise ValueError(
                f"state_dict must hold {sorted(own)} for {type(self).__name__}, got {sorted(map(str, state_dict))}"
            )
        for name in ("base_lrs", "_last_lr"):
            if name in own and len(state_dict[name]) != len(own[name]):
                raise ValueError(
                    f"state_dict has {name} for {len(state_dict[name])} groups, the optimizer {len(own[name])}"
                )
        self.__dict__.update({name: plain(value) for name, value in state_dict.items()})
