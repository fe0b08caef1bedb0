"""Adam's relatives: Adamax, NAdam and RAdam."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .adam import RunningMoments
from .optimizer import check_range

__all__ = ["Adamax", "NAdam", "RAdam"]


class Adamax(RunningMoments):
    """Adam with the largest recent gradient, instead of a root mean square, in the denominator.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them, see :class:`Optimizer`.
    lr : float
        Learning rate, not negative.
    betas : pair of float
        Decay of the running mean of the gradient and of its largest magnitude, each in [0, 1).
    eps : float
        Added to the gradient's magnitude.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    maximize : bool, keyword only
        Whether to climb instead of to descend.

    Raises
    ------
    ValueError, TypeError
        An option breaks its rule.

    Notes
    -----
    Kingma & Ba 2015, section 7.1. Source: torch.optim.Adamax.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.Adamax([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.data
    array([3.5], dtype=float32)
    """

    _arrays = _running = ("exp_avg", "exp_inf")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        gradient = self._advance(parameter, gradient, state, group)
        largest = state["exp_inf"]
        largest *= group["betas"][1]
        np.maximum(largest, np.abs(gradient) + group["eps"], out=largest)
        step_size = group["lr"] / (1 - group["betas"][0] ** state["step"])
        parameter -= step_size * (state["exp_avg"] / largest)


class NAdam(RunningMoments):
    """Adam with Nesterov's momentum, which grows over the steps.

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
    momentum_decay : float
        How fast the momentum grows to the first beta, not negative.
    decoupled_weight_decay : bool
        Whether weight decay shrinks the parameter itself instead, as in :class:`AdamW`.
    maximize : bool, keyword only
        Whether to climb instead of to descend.

    Raises
    ------
    ValueError, TypeError
        An option breaks its rule.

    Notes
    -----
    Dozat 2016, "Incorporating Nesterov momentum into Adam". Source: torch.optim.NAdam.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.NAdam([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.data.round(3)
    array([3.472], dtype=float32)
    """

    _factors = ("mu_product",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: Mapping[str, Any]) -> None:
        super()._check_options(group)
        check_range("momentum_decay", group["momentum_decay"])

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        gradient = self._advance(parameter, gradient, state, group)
        step, (beta1, beta2), lr = state["step"], group["betas"], group["lr"]
        momentum, after = (beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1))
        product = state["mu_product"] = state.get("mu_product", 1.0) * momentum
        denominator = np.sqrt(state["exp_avg_sq"] / (1 - beta2**step))
        denominator += group["eps"]
        parameter -= lr * (1 - momentum) / (1 - product) * (gradient / denominator)
        parameter -= lr * after / (1 - product * after) * (state["exp_avg"] / denominator)


class RAdam(RunningMoments):
    """Adam that steps with the mean gradient alone until its second moment can be trusted.

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
    decoupled_weight_decay : bool
        Whether weight decay shrinks the parameter itself instead, as in :class:`AdamW`.
    maximize : bool, keyword only
        Whether to climb instead of to descend.

    Raises
    ------
    ValueError, TypeError
        An option breaks its rule.

    Notes
    -----
    Liu et al. 2020, "On the variance of the adaptive learning rate and beyond". Source: torch.optim.RAdam.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.RAdam([w], lr=0.125)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.data
    array([3.], dtype=float32)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        self._advance(parameter, gradient, state, group)
        step, (beta1, beta2) = state["step"], group["betas"]
        step_size = group["lr"] / (1 - beta1**step)
        # Samples that the second moment is worth: of this step, and in the long run.
        most = 2 / (1 - beta2) - 1
        samples = most - 2 * step * beta2**step / (1 - beta2**step)
        if samples <= 5:
            parameter -= step_size * state["exp_avg"]
            return
        trust = (samples - 4) * (samples - 2) * most / ((most - 4) * (most - 2) * samples)
        denominator = np.sqrt(state["exp_avg_sq"])
        denominator += group["eps"]
        parameter -= step_size * math.sqrt(trust * (1 - beta2**step)) * (state["exp_avg"] / denominator)
