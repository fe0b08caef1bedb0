"""Batch normalisation, a sum and ReLU as one operation, and pooling before ReLU: layers that are nothing but that."""

from __future__ import annotations

from typing import Any

from fastconv.nn.modules.activation import ReLU, ReLU6
from fastconv.nn.modules.module import Module
from fastconv.nn.modules.normalization import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d
from fastconv.nn.modules.pooling import MaxPool1d, MaxPool2d, MaxPool3d
from fastconv.tape import mode

__all__ = ["LEADERS", "fuses", "is_untouched", "norm_relu", "pools_first"]

_LIMITS = {ReLU: float("inf"), ReLU6: 6.0}
_POOLS = frozenset((MaxPool1d, MaxPool2d, MaxPool3d))
_NORMS = frozenset((BatchNorm1d, BatchNorm2d, BatchNorm3d))
LEADERS = _NORMS | {ReLU}
"""The first of two layers that `fuses` or `pools_first` may agree to."""


def is_untouched(module: Module) -> bool:
    """Whether calling `module` is its class's forward and nothing else: no hooks, no forward of its own."""
    return not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in module.__dict__
    )


def fuses(norm: Module, relu: Module) -> bool:
    """Whether `relu` after `norm` can be one operation that nobody can tell from two.

    In training only: in evaluation `fastconv.optimize` puts both into the convolution before them. Subclasses may do
    anything, hooks want to see what lies between, and so does who changes rules of gradients or records values.
    """
    return type(norm) in _NORMS and type(relu) in _LIMITS and norm.training and _nobody_looks(norm, relu)


def pools_first(relu: Module, pool: Module) -> bool:
    """Whether `relu` and the max-pooling after it may change places: the maximum of what is left of each window is what
    is left of its maximum, with the same gradients, and a quarter of the elements is left to do.

    Not where a window may hold nothing but padding (dilation), nor where ReLU shall overwrite its input; ReLU6 keeps
    the sign of -0, of which the maximum would see less.
    """
    return (
        type(pool) in _POOLS
        and type(relu) is ReLU
        and not (relu.inplace or pool.return_indices or pool.padding)
        and pool.dilation == 1
        and _nobody_looks(relu, pool)
    )


def _nobody_looks(first: Module, second: Module) -> bool:
    """Whether nobody asks for what lies between two layers."""
    return mode.substitute is None and mode.values is None and is_untouched(first) and is_untouched(second)


def norm_relu(norm: Module, relu: Module, input: Any, residual: Any = None) -> Any:
    """``relu(norm(input) + residual)``, in training as one operation that moves less memory.

    For the forward of your own blocks; `Sequential` and the networks of `fastconv.models` do it by themselves.

    Parameters
    ----------
    norm, relu : Module
        One operation where they are a BatchNorm1d, 2d or 3d in training mode and a ReLU or ReLU6, without hooks;
        otherwise both are called.
    input : array or Tensor, shape (N, C, *)
    residual : array or Tensor of the same shape, optional
        Added before ReLU.

    Returns
    -------
    array or Tensor of the input's shape

    Raises
    ------
    ValueError, TypeError
        As the layers do.

    Notes
    -----
    Outputs and gradients have the same bits either way, but for 16-bit sums with a residual, which are rounded once.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv, self.bn, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
    ...
    ...     def forward(self, x):
    ...         return nn.utils.norm_relu(self.bn, self.relu, self.conv(x), x)
    >>> Block()(np.zeros((2, 4, 5, 5), np.float32)).shape
    (2, 4, 5, 5)
    """
    if isinstance(norm, BatchNorm) and fuses(norm, relu):
        return norm._rectified(input, residual, _LIMITS[type(relu)])
    y = norm(input)
    return relu(y if residual is None else y + residual)
