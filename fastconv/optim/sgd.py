"""Gradient descent and its momentum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..devices import as_array
from .optimizer import Optimizer, check_range

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum on request.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them, see :class:`Optimizer`.
    lr : float
        Learning rate, not negative.
    momentum : float
        Share of the last step that is kept.
    dampening : float
        Share of the gradient that does not enter the momentum.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    nesterov : bool
        Nesterov's momentum; needs a `momentum` above 0 and no `dampening`.
    maximize : bool, keyword only
        Whether to climb instead of to descend.

    Raises
    ------
    ValueError, TypeError
        An option breaks its rule.

    Notes
    -----
    Sutskever et al. 2013. Source: torch.optim.SGD.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.SGD([w], lr=0.25)
    >>> for _ in range(3):
    ...     optimizer.zero_grad()
    ...     (w * w).sum().backward()
    ...     optimizer.step()
    >>> w.data
    array([0.5], dtype=float32)
    """

    _arrays = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            check_range(name, group[name])
        check_range("dampening", group["dampening"], low=-math.inf)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"nesterov needs momentum above 0 and dampening 0, got momentum={group['momentum']}, "
                f"dampening={group['dampening']}"
            )

    def _keeps_state(self, group: Mapping[str, Any]) -> bool:
        return bool(group["momentum"])

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        if group["momentum"]:
            velocity = state.get("momentum_buffer")
            if velocity is None:  # the first gradient enters whole, as in torch
                velocity = state["momentum_buffer"] = as_array(gradient).copy()
            else:
                velocity *= group["momentum"]
                velocity += (1 - group["dampening"]) * gradient
            gradient = gradient + group["momentum"] * velocity if group["nesterov"] else velocity
        parameter -= group["lr"] * gradient
