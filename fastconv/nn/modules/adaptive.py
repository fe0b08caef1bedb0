"""Adaptive pooling layers: the output size is given, the windows follow from it."""

from __future__ import annotations

from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import output_sizes
from fastconv.nn.modules.module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
]


class _AdaptiveAvgPool(Module):
    _nd: int

    def __init__(self, output_size: int | tuple[int | None, ...] | None) -> None:
        super().__init__()
        output_sizes("output_size", output_size, self._nd)
        self.output_size = output_size

    def forward(self, input: Any) -> Any:
        """Pool `input` of shape (N, C, *S) or (C, *S)."""
        return _ADAPTIVE_AVG_POOL[self._nd](input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Mean over windows that are chosen so that the output has the given length.

    Parameters
    ----------
    output_size : int or tuple of 1 int
        Length of the output.

    Raises
    ------
    ValueError, TypeError
        A size is negative or no integer.

    Notes
    -----
    Window i spans floor(i L / out) to ceil((i + 1) L / out). Source: torch.nn.AdaptiveAvgPool1d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveAvgPool1d(2)(np.array([[[1.0, 2.0, 6.0]]], np.float32))
    array([[[1.5, 4. ]]], dtype=float32)
    """

    _nd = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Mean over windows that are chosen so that the output has the given height and width.

    Parameters
    ----------
    output_size : int, None or pair of them
        None keeps the input's size.

    Notes
    -----
    Source: torch.nn.AdaptiveAvgPool2d; with output size 1 ONNX GlobalAveragePool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveAvgPool2d((None, 1))(np.zeros((1, 8, 7, 7), np.float32)).shape
    (1, 8, 7, 1)
    """

    _nd = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Mean over windows that are chosen so that the output has the given size; see :class:`AdaptiveAvgPool2d`.

    Notes
    -----
    Source: torch.nn.AdaptiveAvgPool3d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveAvgPool3d(1)(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 1, 1, 1)
    """

    _nd = 3


class _AdaptiveMaxPool(Module):
    _nd: int

    def __init__(self, output_size: int | tuple[int | None, ...] | None, return_indices: bool = False) -> None:
        super().__init__()
        output_sizes("output_size", output_size, self._nd)
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Any) -> Any:
        """Pool `input` of shape (N, C, *S) or (C, *S); with `return_indices` (output, int64 positions in the plane)."""
        return _ADAPTIVE_MAX_POOL[self._nd](input, self.output_size, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maximum over windows that are chosen so that the output has the given length.

    Parameters
    ----------
    output_size : int or tuple of 1 int
        Length of the output.
    return_indices : bool
        Whether to return the positions of the maxima too.

    Raises
    ------
    ValueError, TypeError
        A size is negative or no integer.

    Notes
    -----
    Source: torch.nn.AdaptiveMaxPool1d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveMaxPool1d(2)(np.array([[[1.0, 2.0, 6.0]]], np.float32))
    array([[[2., 6.]]], dtype=float32)
    """

    _nd = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maximum over windows that are chosen so that the output has the given height and width.

    Parameters
    ----------
    output_size : int, None or pair of them
        None keeps the input's size.
    return_indices : bool
        Whether to return the positions of the maxima too.

    Notes
    -----
    Source: torch.nn.AdaptiveMaxPool2d; with output size 1 ONNX GlobalMaxPool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveMaxPool2d(3)(np.zeros((1, 8, 7, 7), np.float32)).shape
    (1, 8, 3, 3)
    """

    _nd = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Maximum over windows that are chosen so that the output has the given size; see :class:`AdaptiveMaxPool2d`.

    Notes
    -----
    Source: torch.nn.AdaptiveMaxPool3d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AdaptiveMaxPool3d((1, None, 2))(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 1, 4, 2)
    """

    _nd = 3


_ADAPTIVE_AVG_POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_ADAPTIVE_MAX_POOL = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
