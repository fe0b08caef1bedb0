"""The end of a shortcut: the sum as a layer with a name, so that it can be looked at and be done in place, and ReLU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastconv.nn as nn
from fastconv.nn.modules.norm_relu import fuses, is_untouched
from fastconv.nn.modules.pending import Held, Pending, is_unrecorded, limited, take

__all__ = ["Add", "norm_add_relu"]


class Add(nn.Module):
    """x + y.

    Parameters
    ----------
    inplace : bool
        Write the sum into `x`, an array. Tensors are never overwritten.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.residual import Add
    >>> Add()(np.ones(2), np.ones(2))
    array([2., 2.])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    # Set by `fastconv.optimize`: limits of an activation that went into the layer, and that activation.
    _limits: tuple[float, float] | None = None
    _takers: tuple[nn.Module, ...] = ()

    def forward(self, x: Any, y: Any) -> Any:
        """The sum of two features of one shape."""
        x = take(self, x)
        total = self._taken_along(x, y) if isinstance(x, Pending) else None
        if total is None:
            total = limited(self._sum(x.plus() if isinstance(x, Pending) else x, y), self._limits)
        return Held(total, self._takers) if self._takers else total

    def _taken_along(self, x: Pending, y: Any) -> Any:
        """The sum by the convolutions that wait for it; None where they cannot."""
        if not is_unrecorded(y):
            return None
        try:
            return x.plus(y, self._limits or (-math.inf, math.inf))
        except ValueError:
            if tuple(x.shape) == tuple(y.shape):
                raise
            return None  # it broadcasts

    def _sum(self, x: Any, y: Any) -> Any:
        if self.inplace and type(x) is np.ndarray and type(y) is np.ndarray:
            return np.add(x, y, out=x)
        return x + y

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


def norm_add_relu(norm: nn.Module, add: Add, relu: nn.Module, x: Any, shortcut: Any) -> Any:
    """``relu(add(norm(x), shortcut))``, in training as one operation where the layers are nothing but that.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv.models.residual import Add, norm_add_relu
    >>> x, shortcut = np.float32([[1], [3]]), np.float32([[2], [0.5]])
    >>> norm_add_relu(nn.BatchNorm1d(1), Add(), nn.ReLU(), x, shortcut).round(2)
    array([[1. ],
           [1.5]], dtype=float32)
    """
    if fuses(norm, relu) and is_untouched(add) and add._limits is None:
        return nn.utils.norm_relu(norm, relu, x, shortcut)
    return relu(add(norm(x), shortcut))
