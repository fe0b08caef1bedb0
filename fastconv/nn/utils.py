"""Gradient clipping, under the module name that torch gave it, and what helps to write blocks of layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastconv.devices import array_module, as_array, is_writable
from fastconv.nn.modules.arguments import number
from fastconv.nn.modules.norm_relu import norm_relu
from fastconv.tensor import Tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_", "norm_relu"]


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[tuple[Tensor, np.ndarray]]:
    entries = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for entry in entries:
        if not isinstance(entry, Tensor):
            raise TypeError(f"parameters must hold Tensors, got {type(entry).__name__}")
    return [(entry, entry.grad) for entry in entries if entry.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale the gradients so that their common norm is at most `max_norm`. As torch.nn.utils.clip_grad_norm_.

    Parameters
    ----------
    parameters : iterable of Tensor, or one Tensor
        Their ``grad`` is changed in place; those without one are passed over.
    max_norm : float
        Not negative.
    norm_type : float
        Positive; ``inf`` takes the largest absolute value.
    error_if_nonfinite : bool
        Whether a norm that is NaN or infinite is an error instead of becoming the factor.

    Returns
    -------
    float
        The norm of all gradients as one vector, before clipping, accumulated in float64.

    Raises
    ------
    ValueError
        A number out of its range; a norm that is not finite, with `error_if_nonfinite`. No gradient is changed then.
    TypeError
        An argument of the wrong kind.

    Notes
    -----
    Pascanu, Mikolov & Bengio 2013.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> weight = nn.Parameter(np.zeros(2, np.float32))
    >>> weight.grad = np.array([3.0, 4.0], np.float32)
    >>> nn.utils.clip_grad_norm_([weight], max_norm=1.0)
    5.0
    >>> weight.grad.round(3)
    array([0.6, 0.8], dtype=float32)
    """
    if not number("max_norm", max_norm) >= 0:
        raise ValueError(f"max_norm must not be negative, got {max_norm}")
    if not number("norm_type", norm_type) > 0:
        raise ValueError(f"norm_type must be positive, got {norm_type}")
    clipped = _with_gradients(parameters)
    sizes = [np.abs(as_array(gradient, np.float64)) for _, gradient in clipped]
    if math.isinf(norm_type):
        total = float(np.max([float(size.max()) for size in sizes if size.size], initial=0))
    else:
        with np.errstate(over="ignore"):
            sums = [(size**norm_type).sum() for size in sizes]
            total = float(array_module(sums[0]).stack(sums).sum() ** (1 / norm_type)) if sums else 0.0
    if error_if_nonfinite and not math.isfinite(total):
        raise ValueError(f"the gradients' norm must be finite, got {total}")
    # torch's constant keeps the quotient finite for gradients that are all zero.
    factor = max_norm / (total + 1e-6)
    if not factor >= 1:
        for entry, gradient in clipped:
            _write(entry, gradient * factor)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every entry of the gradients to [-clip_value, clip_value]. As torch.nn.utils.clip_grad_value_.

    Parameters
    ----------
    parameters : iterable of Tensor, or one Tensor
        Their ``grad`` is changed in place; those without one are passed over.
    clip_value : float
        Not negative.

    Raises
    ------
    ValueError
        A negative `clip_value`.
    TypeError
        An argument of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> weight = nn.Parameter(np.zeros(2, np.float32))
    >>> weight.grad = np.array([3.0, -0.5], np.float32)
    >>> nn.utils.clip_grad_value_([weight], 1.0)
    >>> weight.grad
    array([ 1. , -0.5], dtype=float32)
    """
    if not number("clip_value", clip_value) >= 0:
        raise ValueError(f"clip_value must not be negative, got {clip_value}")
    for entry, gradient in _with_gradients(parameters):
        _write(entry, np.clip(gradient, -clip_value, clip_value))


def _write(entry: Tensor, gradient: Any) -> None:
    """Into the gradient's own memory, which others may look at; a read-only gradient is replaced."""
    if entry.grad is not None and is_writable(entry.grad):
        entry.grad[...] = gradient
    else:
        entry.grad = as_array(gradient)
