"""Schedules that rise again, or end at a fixed step: products, polynomials, warm restarts, one cycle and many."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

from ...nn.modules.arguments import choice, number, size
from ..optimizer import Optimizer
from .factors import LambdaLR
from .scheduler import LRScheduler, factor_of

__all__ = ["CosineAnnealingWarmRestarts", "CyclicLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR"]


class MultiplicativeLR(LambdaLR):
    """The learning rate times a function of the epoch, in every epoch anew.

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable, or sequence of callable
        Factor as a function of the epoch, from epoch 1 on; one for all groups, or one for each.
    last_epoch : int
        See :class:`LRScheduler`. The functions are no part of ``state_dict``.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.8)
    >>> schedule = optim.lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.5)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.4]
    """

    def get_lr(self) -> list[float]:
        """The learning rates times the functions."""
        if self._begins or self.last_epoch == 0:
            return self._current()
        return [rate * factor(self.last_epoch) for rate, factor in zip(self._current(), self.lr_lambdas)]


class PolynomialLR(LRScheduler):
    """The learning rate down to 0 in `total_iters` epochs, as a power of what is left of them.

    Parameters
    ----------
    optimizer : Optimizer
    total_iters : int
        Epochs until 0, at least 1.
    power : float
        Not negative; 1 is a line.
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
    >>> schedule = optim.lr_scheduler.PolynomialLR(optimizer, total_iters=2, power=2.0)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.25]
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters = size("total_iters", total_iters, 1)
        self.power = factor_of("power", power)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates, moved on along the polynomial."""
        if self._begins or not 0 < self.last_epoch <= self.total_iters:
            return self._current()
        left = self.total_iters - self.last_epoch
        factor = (left / (left + 1)) ** self.power
        return [rate * factor for rate in self._current()]


class CosineAnnealingWarmRestarts(LRScheduler):
    """The learning rate along a cosine down to `eta_min`, and at once back to its first value, again and again.

    Parameters
    ----------
    optimizer : Optimizer
    T_0 : int
        Epochs until the first restart, at least 1.
    T_mult : int
        How many times as long each period is as the one before it, at least 1.
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
    Loshchilov & Hutter 2017, arXiv:1608.03983.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2)
    >>> for _ in range(2):
    ...     print(round(schedule.get_last_lr()[0], 3))
    ...     schedule.step()
    1.0
    0.5
    >>> schedule.get_last_lr()
    [1.0]
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_0 = self.T_i = size("T_0", T_0, 1)
        self.T_mult = size("T_mult", T_mult, 1)
        self.eta_min = factor_of("eta_min", eta_min)
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates on the cosine."""
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to `epoch`, which may be a fraction: ``epoch + batch / batches``."""
        if epoch is None:
            self.last_epoch += 1
            self.T_cur += 1
        else:
            if number("epoch", epoch) < 0:
                raise ValueError(f"epoch must not be negative, got {epoch}")
            self.last_epoch, self.T_cur, self.T_i = math.floor(epoch), epoch, self.T_0
        while self.T_cur >= self.T_i:
            self.T_cur -= self.T_i
            self.T_i *= self.T_mult
        self._set(self.get_lr())

    def restart(self) -> None:
        """Begin again at epoch 0."""
        self.step(0)


class OneCycleLR(LRScheduler):
    """The learning rate from a small value up to `max_lr` and down to almost nothing, one step a batch.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float or sequence of float
        Largest learning rate; one for all groups, or one for each.
    total_steps : int, optional
        Steps of the cycle.
    epochs, steps_per_epoch : int, optional
        Their product, instead of `total_steps`.
    pct_start : float
        Share of the steps in which the learning rate rises, from 0 to 1.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Whether momentum (Adam's first beta) falls from `max_momentum` to `base_momentum` meanwhile, and back.
    base_momentum, max_momentum : float or sequence of float
    div_factor : float
        `max_lr` over the first learning rate.
    final_div_factor : float
        The first learning rate over the last one.
    three_phase : bool
        Whether the fall stops at the first learning rate after as many steps as the rise, and goes on from there.
    last_epoch : int
        See :class:`LRScheduler`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; no number of steps; `cycle_momentum` and an optimiser without momentum; a step
        beyond the last.

    Notes
    -----
    Smith & Topin 2019, arXiv:1708.07120.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.9)
    >>> schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
    >>> for _ in range(2):
    ...     schedule.step()
    >>> schedule.get_last_lr(), optimizer.param_groups[0]["momentum"]
    ([1.0], 0.85)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
        if total_steps is not None:
            self.total_steps = size("total_steps", total_steps, 1)
        elif epochs is not None and steps_per_epoch is not None:
            self.total_steps = size("epochs", epochs, 1) * size("steps_per_epoch", steps_per_epoch, 1)
        else:
            raise ValueError("total_steps must be given, or epochs and steps_per_epoch")
        if not 0 <= number("pct_start", pct_start) <= 1:
            raise ValueError(f"pct_start must be from 0 to 1, got {pct_start}")
        self.anneal_strategy = choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
        groups = optimizer.param_groups
        largest = _each("max_lr", max_lr, len(groups))
        first = [rate / div_factor for rate in largest]
        smallest = [rate / final_div_factor for rate in first]
        self.cycle_momentum = bool(cycle_momentum)
        high = _each("max_momentum", max_momentum, len(groups))
        low = _each("base_momentum", base_momentum, len(groups))
        if self.cycle_momentum and not {"momentum", "betas"} & groups[0].keys():
            raise ValueError("cycle_momentum must be False for an optimizer without momentum")
        rise = float(pct_start * self.total_steps) - 1
        # Where a phase ends, the learning rates from which to which it goes, and the momenta.
        self.phases: list[Any] = [[rise, first, largest, high, low]]
        if three_phase:
            self.phases.append([2 * float(pct_start * self.total_steps) - 2, largest, first, low, high])
            self.phases.append([self.total_steps - 1, first, smallest, high, high])
        else:
            self.phases.append([self.total_steps - 1, largest, smallest, low, high])
        if last_epoch == -1:
            for group, rate in zip(groups, first):
                group["initial_lr"] = rate
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
        return (end - start) * share + start

    def _now(self) -> tuple[list[float], list[float]]:
        """Learning rates and momenta of this step."""
        # The step behind the last batch is one too many for the cycle, but what a loop over all batches does.
        if self.last_epoch > self.total_steps:
            raise ValueError(f"step must not be called more than total_steps={self.total_steps} times")
        begin = 0.0
        for end, *values in self.phases:
            if self.last_epoch <= end or end == self.phases[-1][0]:
                share = (self.last_epoch - begin) / (end - begin) if end != begin else 1.0
                lr0, lr1, m0, m1 = values
                return (
                    [self._between(a, b, share) for a, b in zip(lr0, lr1)],
                    [self._between(a, b, share) for a, b in zip(m0, m1)],
                )
            begin = end
        raise AssertionError("the last phase holds every step")

    def get_lr(self) -> list[float]:
        """The learning rates of this step."""
        return self._now()[0]

    def _set(self, rates: Sequence[float]) -> None:
        super()._set(rates)
        if self.cycle_momentum:
            _set_momenta(self.optimizer, self._now()[1])


class CyclicLR(LRScheduler):
    """The learning rate up from `base_lr` to `max_lr` and down again, over and over, one step a batch.

    Parameters
    ----------
    optimizer : Optimizer
    base_lr, max_lr : float or sequence of float
        Smallest and largest learning rate; one for all groups, or one for each.
    step_size_up : int
        Steps in which it rises.
    step_size_down : int, optional
        Steps in which it falls; `step_size_up` by default.
    mode : {"triangular", "triangular2", "exp_range"}
        All cycles alike; each half as high as the one before; times ``gamma**step``.
    gamma : float
    scale_fn : callable, optional
        Instead of `mode`: factor of the height as a function of the cycle, counted from 1, or of the step.
    scale_mode : {"cycle", "iterations"}
        What `scale_fn` takes.
    cycle_momentum : bool
        Whether momentum (Adam's first beta) falls from `max_momentum` to `base_momentum` meanwhile, and back.
    base_momentum, max_momentum : float or sequence of float
    last_epoch : int
        See :class:`LRScheduler`. `scale_fn` is no part of ``state_dict``.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; `cycle_momentum` and an optimiser without momentum.

    Notes
    -----
    Smith 2017, arXiv:1506.01186. Source: torch.optim.lr_scheduler.CyclicLR.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.9)
    >>> schedule = optim.lr_scheduler.CyclicLR(optimizer, base_lr=0.5, max_lr=1.0, step_size_up=2)
    >>> rates = []
    >>> for _ in range(5):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.75, 0.5]
    """

    _unsaved = ("optimizer", "_scale")

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[int], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
        groups = optimizer.param_groups
        up = size("step_size_up", step_size_up, 1)
        down = up if step_size_down is None else size("step_size_down", step_size_down, 1)
        self.total_size, self.step_ratio = up + down, up / (up + down)
        modes = {"triangular": lambda cycle: 1.0, "triangular2": lambda cycle: 1 / 2.0 ** (cycle - 1)}
        factor = number("gamma", gamma)
        chosen = choice("mode", mode, (*modes, "exp_range"))
        self._scale = modes.get(chosen, lambda step: factor**step) if scale_fn is None else scale_fn
        if not callable(self._scale):
            raise TypeError(f"scale_fn must be callable, got {scale_fn!r}")
        given = choice("scale_mode", scale_mode, ("cycle", "iterations"))
        self.scale_mode = given if scale_fn is not None else "iterations" if chosen == "exp_range" else "cycle"
        self.max_lrs = _each("max_lr", max_lr, len(groups))
        first = _each("base_lr", base_lr, len(groups))
        self.cycle_momentum = bool(cycle_momentum)
        if self.cycle_momentum and not {"momentum", "betas"} & groups[0].keys():
            raise ValueError("cycle_momentum must be False for an optimizer without momentum")
        self.base_momenta = _each("base_momentum", base_momentum, len(groups))
        self.max_momenta = _each("max_momentum", max_momentum, len(groups))
        if last_epoch == -1:
            for group, rate in zip(groups, first):
                group["initial_lr"] = group["lr"] = rate
        super().__init__(optimizer, last_epoch)

    def _height(self) -> float:
        """How far up this step is, from 0 to 1 times the scale of its cycle."""
        cycle = self.last_epoch // self.total_size + 1
        place = 1 + self.last_epoch / self.total_size - cycle
        rising = place <= self.step_ratio
        height = place / self.step_ratio if rising else (place - 1) / (self.step_ratio - 1)
        return height * self._scale(cycle if self.scale_mode == "cycle" else self.last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates of this step."""
        height = self._height()
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs)]

    def _set(self, rates: Sequence[float]) -> None:
        super()._set(rates)
        if self.cycle_momentum:
            height = self._height()
            pairs = zip(self.base_momenta, self.max_momenta)
            _set_momenta(self.optimizer, [high - (high - low) * height for low, high in pairs])


def _set_momenta(optimizer: Optimizer, momenta: Sequence[float]) -> None:
    for group, momentum in zip(optimizer.param_groups, momenta, strict=True):
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum


def _each(name: str, value: Any, count: int) -> list[float]:
    """`value` for each of `count` groups."""
    values = [value] * count if isinstance(value, numbers.Real) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} must be a number, or one for each of {count} groups, got {value!r}")
    return [factor_of(name, each) for each in values]
