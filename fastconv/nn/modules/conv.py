"""Convolution and transposed convolution layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv import backend
from fastconv.nn import init
from fastconv.nn.modules.arguments import choice, floating_dtype, operands, paddings, size, sizes
from fastconv.nn.modules.module import Module
from fastconv.nn.modules.pending import Held, Pending, is_unrecorded, limited, take
from fastconv.tensor import Parameter

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvBase(Module):
    """Arguments, parameters, initialisation and printing that all convolution layers share."""

    _nd: int
    _transposed = False
    # Set by `fastconv.optimize`: limits of an activation that went into the layer; the layers it does the work of, or
    # that do its work.
    _limits: tuple[float, float] | None = None
    _takers: tuple[Module, ...] = ()

    def _set_up(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        output_padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
        dtype: Any,
    ) -> None:
        nd = self._nd
        self.in_channels = size("in_channels", in_channels, 0)
        self.out_channels = size("out_channels", out_channels, 0)
        self.kernel_size = sizes("kernel_size", kernel_size, nd, 1)
        self.stride = sizes("stride", stride, nd, 1)
        self.padding = padding
        self.dilation = sizes("dilation", dilation, nd, 1)
        self.output_padding = sizes("output_padding", output_padding, nd, 0)
        self.groups = size("groups", groups, 1)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"{name} must be divisible by groups, got {name}={channels}, groups={groups}")
        across = (in_channels, out_channels) if self._transposed else (out_channels, in_channels)
        shape = (across[0], across[1] // self.groups, *self.kernel_size)
        kind = floating_dtype(dtype)
        self.weight = Parameter(np.zeros(shape, kind))
        if bias:
            self.bias = Parameter(np.zeros(out_channels, kind))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew: both from U(-b, b), b = 1 / sqrt(fan_in), as torch does (LeCun et al. 1998)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            # torch's fan_in is the second dimension times the kernel, for transposed layers too.
            bound = 1 / math.sqrt(max(math.prod(self.weight.data.shape[1:]), 1))
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        nd = self._nd
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0,) * nd:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * nd:
            parts.append(f"dilation={self.dilation}")
        if self.output_padding != (0,) * nd:
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        if self._limits is not None:
            parts.append(f"limits={self._limits}")
        return ", ".join(parts)


class _Conv(_ConvBase):
    _waits = False  # set by `fastconv.optimize`: the sum or the convolution that follows does the work

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[Any, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.padding_mode = choice("padding_mode", padding_mode, _PADDING_MODES)
        self._set_up(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            paddings(padding, self._nd),
            0,
            dilation,
            groups,
            bias,
            dtype,
        )
        self.to(device=device)

    def forward(self, input: Any) -> Any:
        """Convolve `input` of shape (N, C, *S) or (C, *S)."""
        input = take(self, input)
        if isinstance(input, Pending) or ((self._waits or self._limits is not None) and is_unrecorded(input)):
            before, x = (input.layers, input.x) if isinstance(input, Pending) else ((), input)
            pending = Pending((*before, self), x)
            y = pending if self._waits else pending.plus()
        else:
            weight, bias = operands(input, self.weight, self.bias)
            input, padding = self._padded(input)
            y = _CONV[self._nd](input, weight, bias, self.stride, padding, self.dilation, self.groups)
            y = limited(y, self._limits)
        return Held(y, self._takers) if self._takers else y

    def _arrays(self) -> tuple[Any, Any]:
        """Weight and bias as arrays, without the search that follows a lookup that fails, where they are parameters."""
        weight, bias = self._parameters.get("weight"), self._parameters.get("bias")
        if weight is None or (bias is None and "bias" not in self._parameters):
            return operands(None, self.weight, self.bias)
        return weight.data, None if bias is None else bias.data

    def _convolved(self, x: np.ndarray, add: np.ndarray | None, limits: tuple[float, float] | None) -> np.ndarray:
        weight, bias = self._arrays()
        x, padding = self._padded(x)
        options = self.stride, padding, self.dilation, self.groups, self._nd
        return backend.ops.conv_forward(x, weight, bias, *options, add, *(limits or (-math.inf, math.inf)))

    def _stage(self, limits: tuple[float, float] | None) -> tuple[Any, ...]:
        """Of a chain of convolutions; its borders are zeros."""
        weight, bias = self._arrays()
        return weight, bias, self.stride, self.padding, self.dilation, self.groups, *(limits or (-math.inf, math.inf))

    def _output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the output for an input of `shape`."""
        nd = self._nd
        border = self._border(shape[-nd:])[::-1]  # after and before, first dimension first
        space = tuple(
            (shape[d - nd] + border[2 * d] + border[2 * d + 1] - self.dilation[d] * (self.kernel_size[d] - 1) - 1)
            // self.stride[d]
            + 1
            for d in range(nd)
        )
        return (*shape[: -nd - 1], self.out_channels, *space)

    def _padded(self, x: Any) -> tuple[Any, Any]:
        """`x` and the padding that is left to the convolution: all of it, but for borders that are no zeros."""
        if self.padding_mode == "zeros":
            return x, self.padding
        amounts = self._border(tuple(x.shape)[-self._nd :])
        return F.pad(x, amounts, mode=self.padding_mode) if any(amounts) else x, 0

    def _border(self, extent: tuple[int, ...]) -> tuple[int, ...]:
        """The padding in F.pad's order: last dimension first, before and after."""
        if self.padding == "valid":
            return (0,) * (2 * self._nd)
        amounts: list[int] = []
        for d in reversed(range(self._nd)):
            if self.padding == "same":
                reach = self.dilation[d] * (self.kernel_size[d] - 1) + 1
                total = max((-(-extent[d] // self.stride[d]) - 1) * self.stride[d] + reach - extent[d], 0)
                amounts += [total // 2, total - total // 2]
            else:
                entry = self.padding[d]
                amounts += entry if isinstance(entry, tuple) else [entry, entry]
        return tuple(amounts)


class Conv1d(_Conv):
    """Convolution (cross-correlation) over sequences.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of input and output; both divisible by `groups`.
    kernel_size, stride, dilation : int or tuple of 1 int
        At least 1.
    padding : int, tuple, "same" or "valid"
        On both sides; a ``((before, after),)`` pair for unequal sides. "same" gives ceil(L / stride) outputs, with the
        extra element at the end.
    groups : int
        Number of separate convolutions the channels are split into.
    bias : bool
        Whether to add a learned bias.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding holds.
    dtype : dtype-like, keyword only
        Of the parameters; float32 by default.

    Attributes
    ----------
    weight : Parameter
        (out_channels, in_channels / groups, kernel_size).
    bias : Parameter or None
        (out_channels,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Input (N, C, L) or (C, L), in the dtype of the parameters. Source: torch.nn.Conv1d; ONNX Conv.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Conv1d(2, 4, 3, padding=1)(np.zeros((1, 2, 10), np.float32)).shape
    (1, 4, 10)
    """

    _nd = 1


class Conv2d(_Conv):
    """Convolution (cross-correlation) over images; parameters as for :class:`Conv1d` with pairs of ints.

    Attributes
    ----------
    weight : Parameter
        (out_channels, in_channels / groups, kH, kW).
    bias : Parameter or None
        (out_channels,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Input (N, C, H, W) or (C, H, W), in the dtype of the parameters. ``padding=((top, bottom), (left, right))`` pads
    unequal sides. Source: torch.nn.Conv2d; ONNX Conv.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.Conv2d(3, 8, 3, stride=2, padding="same")
    >>> layer
    Conv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding=same)
    >>> layer(np.zeros((2, 3, 9, 9), np.float32)).shape
    (2, 8, 5, 5)
    """

    _nd = 2


class Conv3d(_Conv):
    """Convolution (cross-correlation) over volumes; parameters as for :class:`Conv1d` with triples of ints.

    Attributes
    ----------
    weight : Parameter
        (out_channels, in_channels / groups, kD, kH, kW).
    bias : Parameter or None
        (out_channels,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Input (N, C, D, H, W) or (C, D, H, W), in the dtype of the parameters. Source: torch.nn.Conv3d; ONNX Conv.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Conv3d(1, 2, 3)(np.zeros((1, 1, 5, 6, 7), np.float32)).shape
    (1, 2, 3, 4, 5)
    """

    _nd = 3


class _ConvTranspose(_ConvBase):
    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        padding_mode: str = "zeros",
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.padding_mode = choice("padding_mode", padding_mode, ("zeros",))
        self._set_up(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            sizes("padding", padding, self._nd, 0),
            output_padding,
            dilation,
            groups,
            bias,
            dtype,
        )
        for extra, step, spread in zip(self.output_padding, self.stride, self.dilation, strict=True):
            if extra >= max(step, spread):
                raise ValueError(
                    f"output_padding must be smaller than stride or dilation, got {self.output_padding}, "
                    f"stride={self.stride}, dilation={self.dilation}"
                )
        self.to(device=device)

    def forward(self, input: Any, output_size: Any = None) -> Any:
        """Apply the layer to `input` of shape (N, C, *S) or (C, *S).

        Parameters
        ----------
        x : array or Tensor
        output_size : sequence of int, optional
            The wanted spatial size (the whole output shape is taken too): chooses among the sizes that a stride above
            1 leaves open, in place of the constructor's `output_padding`.

        Raises
        ------
        ValueError
            `output_size` cannot be reached.
        """
        weight, bias = operands(input, self.weight, self.bias)
        extra = self.output_padding if output_size is None else self._extra(tuple(input.shape), output_size)
        transpose = _CONV_TRANSPOSE[self._nd]
        y = transpose(input, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation)
        return Held(y, self._takers) if self._takers else y

    def _extra(self, shape: tuple[int, ...], output_size: Any) -> tuple[int, ...]:
        wanted = tuple(size("output_size", entry, 0) for entry in output_size)
        if len(wanted) not in (self._nd, len(shape)):
            raise ValueError(f"output_size must have {self._nd} or {len(shape)} entries, got {wanted}")
        wanted = wanted[-self._nd :]
        least = tuple(
            (extent - 1) * step - 2 * pad + spread * (kernel - 1) + 1
            for extent, step, pad, spread, kernel in zip(
                shape[-self._nd :], self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        )
        most = tuple(low + max(step, 1) - 1 for low, step in zip(least, self.stride, strict=True))
        if any(not low <= n <= high for low, n, high in zip(least, wanted, most, strict=True)):
            raise ValueError(f"output_size must lie from {least} to {most} for input shape {shape}, got {wanted}")
        return tuple(n - low for n, low in zip(wanted, least, strict=True))


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution over sequences: the gradient of :class:`Conv1d` with respect to its input.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of input and output; both divisible by `groups`.
    kernel_size, stride, dilation : int or tuple of 1 int
        At least 1.
    padding : int or tuple of 1 int
        Elements cut from both ends of the result.
    output_padding : int or tuple of 1 int
        Elements added at the end; smaller than `stride` or `dilation`.
    groups, bias, device, dtype
        As for :class:`Conv1d`.
    padding_mode : {"zeros"}
        The only one that is defined.

    Attributes
    ----------
    weight : Parameter
        (in_channels, out_channels / groups, kernel_size).
    bias : Parameter or None
        (out_channels,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Input (N, C, L) or (C, L). Source: torch.nn.ConvTranspose1d; ONNX ConvTranspose.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.ConvTranspose1d(2, 4, 3, stride=2)
    >>> x = np.zeros((1, 2, 5), np.float32)
    >>> layer(x).shape, layer(x, output_size=(12,)).shape
    ((1, 4, 11), (1, 4, 12))
    """

    _nd = 1


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution over images; parameters as for :class:`ConvTranspose1d` with pairs of ints.

    Attributes
    ----------
    weight : Parameter
        (in_channels, out_channels / groups, kH, kW).
    bias : Parameter or None
        (out_channels,).

    Notes
    -----
    Input (N, C, H, W) or (C, H, W). Source: torch.nn.ConvTranspose2d; ONNX ConvTranspose.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)
    >>> layer(np.zeros((1, 8, 7, 7), np.float32)).shape
    (1, 4, 14, 14)
    """

    _nd = 2


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution over volumes; parameters as for :class:`ConvTranspose1d` with triples of ints.

    Attributes
    ----------
    weight : Parameter
        (in_channels, out_channels / groups, kD, kH, kW).
    bias : Parameter or None
        (out_channels,).

    Notes
    -----
    Input (N, C, D, H, W) or (C, D, H, W). Source: torch.nn.ConvTranspose3d; ONNX ConvTranspose.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ConvTranspose3d(2, 1, 2, stride=2)(np.zeros((1, 2, 2, 3, 4), np.float32)).shape
    (1, 1, 4, 6, 8)
    """

    _nd = 3


_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
