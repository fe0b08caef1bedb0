"""Memory layouts of images: the same values and shape, in another order in memory."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from . import backend
from .devices import array_module, as_array, guard
from .tensor import Tensor

__all__ = ["channels_first", "channels_last"]

T = TypeVar("T")


def channels_last(x: T) -> T:
    """`x` with the channels innermost in memory, as in ``torch.channels_last``.

    Convolutions, pooling and normalisation compute such arrays without copying them, mostly faster, and their results
    have the same layout: converting a network's input converts all of it.

    Parameters
    ----------
    x : ndarray, cupy.ndarray or Tensor
        Shape (N, C, spatial...), of any dtype.

    Returns
    -------
    ndarray, cupy.ndarray or Tensor
        Of the same shape, dtype and values; `x` itself where it is channels-last, or has no spatial dimensions. A
        Tensor is recorded.

    Raises
    ------
    ValueError
        `x` has less than two dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> x = np.zeros((8, 3, 32, 32), np.float32)
    >>> fc.channels_last(x).strides
    (12288, 4, 384, 12)
    >>> fc.channels_first(fc.channels_last(x)).strides == x.strides
    True
    """
    return _in_layout(x, True)


def channels_first(x: T) -> T:
    """`x` in C order: width, then height innermost in memory, as in ``torch.contiguous_format``.

    Parameters
    ----------
    x : ndarray, cupy.ndarray or Tensor
        Shape (N, C, spatial...), of any dtype.

    Returns
    -------
    ndarray, cupy.ndarray or Tensor
        Of the same shape, dtype and values; `x` itself where it is C-contiguous. A Tensor is recorded.

    Raises
    ------
    ValueError
        `x` has less than two dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> pictures = np.zeros((8, 32, 32, 3), np.uint8)
    >>> fc.channels_first(np.moveaxis(pictures, -1, 1)).strides
    (3072, 1024, 32, 1)
    """
    return _in_layout(x, False)


def _in_layout(x: Any, last: bool) -> Any:
    if isinstance(x, Tensor):
        y = _in_layout(x.data, last)
        return x if y is x.data else Tensor._op(y, (x, lambda dy: dy))
    array = as_array(x)
    if array.ndim < 2:
        raise ValueError(f"x must have at least two dimensions (N, C, ...), got {array.ndim}")
    ordered = np.moveaxis(array, 1, -1) if last else array
    if ordered.flags.c_contiguous:
        return array
    dtype = array.dtype
    if dtype.name in ("float32", "float64", "float16", "bfloat16") and dtype.isnative:
        if type(array) is not np.ndarray:
            backend.accept_device_arrays("channels_last" if last else "channels_first")
        with guard(array):
            return backend.ops.layout_forward(array, last)
    copy = array_module(array).ascontiguousarray(ordered)
    return np.moveaxis(copy, -1, 1) if last else copy
