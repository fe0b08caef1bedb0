"""Step sizes from the history of the gradient: Adagrad, RMSprop, Adadelta from its square, Rprop from its sign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .optimizer import Optimizer, check_pair, check_range

__all__ = ["Adadelta", "Adagrad", "RMSprop", "Rprop"]


class Adagrad(Optimizer):
    """Gradient descent whose step sizes shrink with the sum of the squared gradients.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them, see :class:`Optimizer`.
    lr : float
        Learning rate, not negative.
    lr_decay : float
        The learning rate of step t is ``lr / (1 + (t - 1) * lr_decay)``.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    initial_accumulator_value : float
        What the sum begins with.
    eps : float
        Added to the denominator.
    maximize : bool, keyword only
        Whether to climb instead of to descend.

    Raises
    ------
    ValueError, TypeError
        An option breaks its rule.

    Notes
    -----
    Duchi, Hazan & Singer 2011. Source: torch.optim.Adagrad.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.Adagrad([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.data
    array([3.5], dtype=float32)
    """

    _counts = ("step",)
    _arrays = ("sum",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            check_range(name, group[name])

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if not state:
            state.update(step=0, sum=np.full_like(parameter, group["initial_accumulator_value"]))
        state["step"] += 1
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        total = state["sum"]
        total += gradient * gradient
        step_size = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        parameter -= step_size * (gradient / (np.sqrt(total) + group["eps"]))


class RMSprop(Optimizer):
    """Gradient descent with steps divided by a running root mean square of the gradient.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them, see :class:`Optimizer`.
    lr : float
        Learning rate, not negative.
    alpha : float
        Decay of the running mean of the squares, in [0, 1).
    eps : float
        Added to the denominator.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    momentum : float
        Share of the last step that is kept.
    centered : bool
        Whether to divide by the standard deviation instead (Graves 2013).
    maximize : bool, keyword only
        Whether to climb instead of to descend.

    Raises
    ------
    ValueError, TypeError
        An option breaks its rule.

    Notes
    -----
    Tieleman & Hinton 2012, lecture 6.5. Source: torch.optim.RMSprop.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.RMSprop([w], lr=0.5, alpha=0.75)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.data
    array([3.], dtype=float32)
    """

    _counts = ("step",)
    _arrays = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay", "momentum"):
            check_range(name, group[name])
        check_range("alpha", group["alpha"], below=1.0)

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        alpha = group["alpha"]
        if not state:
            state.update(step=0, square_avg=np.zeros_like(parameter))
            if group["momentum"]:
                state["momentum_buffer"] = np.zeros_like(parameter)
            if group["centered"]:
                state["grad_avg"] = np.zeros_like(parameter)
        state["step"] += 1
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        square = state["square_avg"]
        square *= alpha
        square += (1 - alpha) * gradient * gradient
        if group["centered"]:
            mean = state["grad_avg"]
            mean += (1 - alpha) * (gradient - mean)
            square = square - mean * mean
        change = gradient / (np.sqrt(square) + group["eps"])
        if group["momentum"]:
            velocity = state["momentum_buffer"]
            velocity *= group["momentum"]
            velocity += change
            change = velocity
        parameter -= group["lr"] * change


class Adadelta(Optimizer):
    """Gradient descent whose steps have the size of earlier steps, not of a learning rate.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them, see :class:`Optimizer`.
    lr : float
        Factor of each step, not negative.
    rho : float
        Decay of the running means of squared gradients and squared steps, in [0, 1).
    eps : float
        Added under both roots.
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
    Zeiler 2012. Source: torch.optim.Adadelta.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.Adadelta([w], rho=0.75, eps=0.0625)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.data.round(3)
    array([3.501], dtype=float32)
    """

    _counts = ("step",)
    _arrays = ("square_avg", "acc_delta")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def _check_options(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            check_range(name, group[name])
        check_range("rho", group["rho"], below=1.0)

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        rho, eps = group["rho"], group["eps"]
        if not state:
            state.update(step=0, square_avg=np.zeros_like(parameter), acc_delta=np.zeros_like(parameter))
        state["step"] += 1
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        square, steps = state["square_avg"], state["acc_delta"]
        square *= rho
        square += (1 - rho) * gradient * gradient
        change = np.sqrt(steps + eps) / np.sqrt(square + eps) * gradient
        steps *= rho
        steps += (1 - rho) * change * change
        parameter -= group["lr"] * change


class Rprop(Optimizer):
    """Steps whose size grows while the gradient keeps its sign and shrinks when it changes; for whole batches.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them, see :class:`Optimizer`.
    lr : float
        The first steps' size, not negative.
    etas : pair of float
        By what a size is multiplied where the sign has changed, in (0, 1), and where it has not, above 1.
    step_sizes : pair of float
        The smallest and the largest size.
    maximize : bool, keyword only
        Whether to climb instead of to descend.

    Raises
    ------
    ValueError, TypeError
        An option breaks its rule.

    Notes
    -----
    Riedmiller & Braun 1993. Source: torch.optim.Rprop.

    Examples
    --------
    >>> import fastconv as fc, fastconv.optim as optim
    >>> w = fc.tensor([4.0], requires_grad=True)
    >>> optimizer = optim.Rprop([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.data
    array([3.5], dtype=float32)
    """

    _counts = ("step",)
    _arrays = ("prev", "step_size")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize})

    def _check_options(self, group: Mapping[str, Any]) -> None:
        check_range("lr", group["lr"])
        for name in ("etas", "step_sizes"):
            check_pair(name, group[name])
        shrink, grow = group["etas"]
        if not 0 < shrink < 1 < grow:
            raise ValueError(f"etas must lie in (0, 1) and above 1, got {group['etas']}")
        if group["step_sizes"][0] > group["step_sizes"][1]:
            raise ValueError(f"step_sizes must be the smallest and the largest, got {group['step_sizes']}")

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if not state:
            state.update(step=0, prev=np.zeros_like(parameter), step_size=np.full_like(parameter, group["lr"]))
        state["step"] += 1
        before, size = state["prev"], state["step_size"]
        agreement = gradient * before
        size *= np.where(agreement > 0, group["etas"][1], np.where(agreement < 0, group["etas"][0], 1)).astype(
            size.dtype
        )
        np.clip(size, *group["step_sizes"], out=size)
        before[...] = np.where(agreement < 0, 0, gradient)  # no step where the sign has changed
        parameter -= np.sign(before) * size
