"""Pooling layers: maximum, average, power average, and the inverse of max pooling."""

from __future__ import annotations

from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import number, paddings, size, sizes
from fastconv.nn.modules.module import Module

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]


class _MaxPool(Module):
    _nd: int

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: str | int | tuple[Any, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        sizes("kernel_size", kernel_size, self._nd, 1)
        paddings(padding, self._nd)
        sizes("dilation", dilation, self._nd, 1)
        self.kernel_size = kernel_size
        self.stride = _stride(stride, kernel_size, self._nd)
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Any) -> Any:
        """Pool `input` of shape (N, C, *S) or (C, *S); with `return_indices` (output, int64 positions in the plane)."""
        return _MAX_POOL[self._nd](
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Maximum over windows of a sequence.

    Parameters
    ----------
    kernel_size : int or tuple of 1 int
        Window, at least 1.
    stride : int or tuple of 1 int, optional
        At least 1; `kernel_size` by default.
    padding : int, tuple of 1 int, tuple of 1 (before, after) pair, "same" or "valid"
        Elements of minus infinity on both sides, at most half the kernel; in a pair, smaller than the window.
    dilation : int or tuple of 1 int
        Step between the elements of a window.
    return_indices : bool
        Whether to return the positions of the maxima too, for :class:`MaxUnpool1d`.
    ceil_mode : bool
        Whether the output size is rounded up.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    The first maximum wins, NaN wins over everything. Source: torch.nn.MaxPool1d; ONNX MaxPool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.MaxPool1d(2)(np.array([[[1.0, 3.0, 2.0, 0.0]]], np.float32))
    array([[[3., 2.]]], dtype=float32)
    """

    _nd = 1


class MaxPool2d(_MaxPool):
    """Maximum over windows of an image; parameters as for :class:`MaxPool1d` with pairs of ints.

    Notes
    -----
    Source: torch.nn.MaxPool2d; ONNX MaxPool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.MaxPool2d(3, stride=2, padding=1)
    >>> layer
    MaxPool2d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False)
    >>> layer(np.zeros((1, 8, 7, 7), np.float32)).shape
    (1, 8, 4, 4)
    """

    _nd = 2


class MaxPool3d(_MaxPool):
    """Maximum over windows of a volume; parameters as for :class:`MaxPool1d` with triples of ints.

    Notes
    -----
    Source: torch.nn.MaxPool3d; ONNX MaxPool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.MaxPool3d((1, 2, 2))(np.zeros((1, 2, 4, 4, 4), np.float32)).shape
    (1, 2, 4, 2, 2)
    """

    _nd = 3


class _MaxUnpool(Module):
    _nd: int

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
    ) -> None:
        super().__init__()
        self.kernel_size = sizes("kernel_size", kernel_size, self._nd, 1)
        self.stride = self.kernel_size if stride is None else sizes("stride", stride, self._nd, 1)
        self.padding = sizes("padding", padding, self._nd, 0)

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:
        """Put the elements of `input` where `indices` (int64, same shape) say, zeros elsewhere.

        Parameters
        ----------
        x : array or Tensor
            (N, C, *S) or (C, *S).
        indices : array
            From the max pooling layer.
        output_size : sequence of int, optional
            The pooled input's size, where kernel and stride leave it open.
        """
        return _MAX_UNPOOL[self._nd](input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Partial inverse of :class:`MaxPool1d`: maxima go back to their places, the rest is zero.

    Parameters
    ----------
    kernel_size, stride, padding
        Those of the pooling layer.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, an index outside the output.

    Notes
    -----
    Source: torch.nn.MaxUnpool1d; ONNX MaxUnpool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> x = np.array([[[1.0, 3.0, 2.0, 0.0]]], np.float32)
    >>> nn.MaxUnpool1d(2)(*nn.MaxPool1d(2, return_indices=True)(x))
    array([[[0., 3., 2., 0.]]], dtype=float32)
    """

    _nd = 1


class MaxUnpool2d(_MaxUnpool):
    """Partial inverse of :class:`MaxPool2d`; see :class:`MaxUnpool1d`.

    Notes
    -----
    Source: torch.nn.MaxUnpool2d; ONNX MaxUnpool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> y, indices = nn.MaxPool2d(2, return_indices=True)(np.ones((1, 1, 5, 5), np.float32))
    >>> nn.MaxUnpool2d(2)(y, indices, output_size=(5, 5)).shape
    (1, 1, 5, 5)
    """

    _nd = 2


class MaxUnpool3d(_MaxUnpool):
    """Partial inverse of :class:`MaxPool3d`; see :class:`MaxUnpool1d`.

    Notes
    -----
    Source: torch.nn.MaxUnpool3d; ONNX MaxUnpool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> y, indices = nn.MaxPool3d(2, return_indices=True)(np.ones((1, 1, 4, 4, 4), np.float32))
    >>> nn.MaxUnpool3d(2)(y, indices).shape
    (1, 1, 4, 4, 4)
    """

    _nd = 3


class AvgPool1d(Module):
    """Mean over windows of a sequence.

    Parameters
    ----------
    kernel_size : int or tuple of 1 int
        Window, at least 1.
    stride : int or tuple of 1 int, optional
        At least 1; `kernel_size` by default.
    padding : int, tuple of 1 int, tuple of 1 (before, after) pair, "same" or "valid"
        Zeros on both sides, at most half the kernel; in a pair, smaller than the window.
    ceil_mode : bool
        Whether the output size is rounded up.
    count_include_pad : bool
        Whether the zeros of the padding count in the divisor.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.AvgPool1d; ONNX AveragePool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AvgPool1d(2)(np.array([[[1.0, 3.0, 2.0, 0.0]]], np.float32))
    array([[[2., 1.]]], dtype=float32)
    """

    def __init__(
        self,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] | None = None,
        padding: str | int | tuple[Any, ...] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = sizes("kernel_size", kernel_size, 1, 1)
        self.stride = self.kernel_size if stride is None else sizes("stride", stride, 1, 1)
        self.padding = paddings(padding, 1)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Any) -> Any:
        """Pool `input` of shape (N, C, L) or (C, L)."""
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    _nd: int

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: str | int | tuple[Any, ...] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        sizes("kernel_size", kernel_size, self._nd, 1)
        paddings(padding, self._nd)
        if divisor_override is not None and size("divisor_override", divisor_override, -(2**63)) == 0:
            raise ValueError("divisor_override must not be 0")
        self.kernel_size = kernel_size
        self.stride = _stride(stride, kernel_size, self._nd)
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Any) -> Any:
        """Pool `input` of shape (N, C, *S) or (C, *S)."""
        return _AVG_POOL[self._nd](
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """Mean over windows of an image.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad
        As for :class:`AvgPool1d`, with pairs of ints.
    divisor_override : int, optional
        Divisor in place of the window's size; not 0.

    Notes
    -----
    Source: torch.nn.AvgPool2d; ONNX AveragePool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AvgPool2d(2, divisor_override=1)(np.ones((1, 1, 2, 4), np.float32))
    array([[[[4., 4.]]]], dtype=float32)
    """

    _nd = 2


class AvgPool3d(_AvgPool):
    """Mean over windows of a volume; parameters as for :class:`AvgPool2d` with triples of ints.

    Notes
    -----
    Source: torch.nn.AvgPool3d; ONNX AveragePool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.AvgPool3d(2)(np.zeros((1, 2, 4, 4, 4), np.float32)).shape
    (1, 2, 2, 2, 2)
    """

    _nd = 3


class _LPPool(Module):
    _nd: int

    def __init__(
        self,
        norm_type: float,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        if not number("norm_type", norm_type) > 0:
            raise ValueError(f"norm_type must be above 0, got {norm_type}")
        sizes("kernel_size", kernel_size, self._nd, 1)
        if stride is not None:
            sizes("stride", stride, self._nd, 1)
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Any) -> Any:
        """Pool `input` of shape (N, C, *S) or (C, *S)."""
        return _LP_POOL[self._nd](input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """Power-average pooling over a sequence: (sum of x**p over the window) ** (1 / p).

    Parameters
    ----------
    norm_type : float
        The power p, above 0; 1 is sum pooling, infinity in the limit max pooling.
    kernel_size : int or tuple of 1 int
        Window, at least 1.
    stride : int or tuple of 1 int, optional
        At least 1; `kernel_size` by default.
    ceil_mode : bool
        Whether the output size is rounded up.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.LPPool1d; ONNX LpPool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LPPool1d(2, 2)(np.array([[[3.0, 4.0]]], np.float32))
    array([[[5.]]], dtype=float32)
    """

    _nd = 1


class LPPool2d(_LPPool):
    """Power-average pooling over an image; parameters as for :class:`LPPool1d` with pairs of ints.

    Notes
    -----
    Source: torch.nn.LPPool2d; ONNX LpPool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LPPool2d(2, 2)(np.ones((1, 1, 2, 4), np.float32))
    array([[[[2., 2.]]]], dtype=float32)
    """

    _nd = 2


class LPPool3d(_LPPool):
    """Power-average pooling over a volume; parameters as for :class:`LPPool1d` with triples of ints.

    Notes
    -----
    Source: torch.nn.LPPool3d; ONNX LpPool.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LPPool3d(1, 2)(np.ones((1, 1, 2, 2, 2), np.float32)).item()
    8.0
    """

    _nd = 3


def _stride(stride: Any, kernel_size: Any, nd: int) -> Any:
    """`stride` as it was given (that is what repr shows) after its check; the kernel's size where it is None."""
    if stride is None:
        return kernel_size
    sizes("stride", stride, nd, 1)
    return stride


_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MAX_UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}
_AVG_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}
_LP_POOL = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
