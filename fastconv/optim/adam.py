"""Adam, and AdamW with decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .optimizer import Optimizer, check_pair, check_range

__all__ = ["Adam", "AdamW"]


class RunningMoments(Optimizer):
    """What Adam and its relatives share: checks of the options, weight decay and the running moments."""

    _counts = ("step",)
    _arrays: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    _running: tuple[str, ...] = ("exp_avg", "exp_avg_sq")  # made by the first step
    _decoupled = False  # where no option says so

    def _check_options(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            check_range(name, group[name])
        check_pair("betas", group["betas"], below=1.0)

    def _advance(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> np.ndarray:
        """One step more, weight decay and the running moments; the gradient that the step is made of."""
        beta1, beta2 = group["betas"]
        if not state:
            state.update(step=0, **{name: np.zeros_like(parameter) for name in self._running})
        state["step"] += 1
        if group["weight_decay"]:
            if group.get("decoupled_weight_decay", self._decoupled):
                parameter *= 1 - group["lr"] * group["weight_decay"]
            else:
                gradient = gradient + group["weight_decay"] * parameter
        mean = state["exp_avg"]
        mean += (1 - beta1) * (gradient - mean)
        if "exp_avg_sq" in state:
            square = state["exp_avg_sq"]
            square *= beta2
            square += (1 - beta2) * gradient * gradient
        return gradient


class Adam(RunningMoments):
    """Gradient descent with step sizes from running moments of the gradient.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them, see :class:`Optimizer`.
    lr : float
        Learning rate, not negative.
    betas : pair of float
        Decay of the running mean of the gradient and of its square, each in [0, 1).
    eps : float
        Added to the denominator.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    amsgrad : bool
        Whether the second moment never decreases (Reddi et al. 2018).
    maximize : bool, keyword only
        Whether to climb instead of to descend.

    Raises
    ------
    ValueError, TypeError
        An option breaks its rule.

    Notes
    -----
    Kingma & Ba 2015. Source: torch.optim.Adam.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.Adam([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.data
    array([3.5], dtype=float32)
    """

    _arrays = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        first = not state
        self._advance(parameter, gradient, state, group)
        if first and group["amsgrad"]:
            state["max_exp_avg_sq"] = np.zeros_like(parameter)
        (beta1, beta2), mean, square = group["betas"], state["exp_avg"], state["exp_avg_sq"]
        if group["amsgrad"]:
            square = np.maximum(state["max_exp_avg_sq"], square, out=state["max_exp_avg_sq"])
        step_size = group["lr"] / (1 - beta1 ** state["step"])
        denominator = np.sqrt(square)
        denominator /= math.sqrt(1 - beta2 ** state["step"])
        denominator += group["eps"]
        parameter -= step_size * (mean / denominator)


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter itself instead of entering the moments.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, maximize
        As for :class:`Adam`.
    weight_decay : float
        Share of the parameter, times `lr`, that each step takes away.

    Raises
    ------
    ValueError, TypeError
        An option breaks its rule.

    Notes
    -----
    Loshchilov & Hutter 2019. Source: torch.optim.AdamW.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.AdamW([w], lr=0.5, weight_decay=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.data
    array([2.5], dtype=float32)
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
