"""Normalisation within each sample: over groups of channels, over the last dimensions, and by the mean square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv.nn import init
from fastconv.nn.modules.arguments import floating_dtype, number, operands, size
from fastconv.nn.modules.module import Module
from fastconv.tensor import Parameter

__all__ = ["GroupNorm", "LayerNorm", "RMSNorm"]


class _SampleNorm(Module):
    """Scale and shift of both layers."""

    def _set_up(self, shape: tuple[int, ...], eps: float, affine: bool, bias: bool, dtype: Any) -> None:
        if number("eps", eps) < 0:
            raise ValueError(f"eps must not be negative, got {eps}")
        self.eps = eps
        kind = floating_dtype(dtype)
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, Parameter(np.empty(shape, kind)) if wanted else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1 and shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class GroupNorm(_SampleNorm):
    """Normalises groups of channels of each sample, whatever the batch.

    Parameters
    ----------
    num_groups : int
        Divides the channels.
    num_channels : int
        Channels C.
    eps : float
        Added to the variance.
    affine : bool
        Whether to learn a scale and a shift per channel.
    bias : bool, keyword only
        With False `affine` learns the scale alone.
    device : str or int, keyword only
        Where its parameters lie: ``"cpu"`` (the default), ``"cuda"``, ``"cuda:N"`` or N.
    dtype : dtype-like, keyword only
        Of the parameters; float32 by default.

    Attributes
    ----------
    weight, bias : Parameter or None
        (C,): scale, starting at 1, and shift, starting at 0.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, an input with other channels.

    Notes
    -----
    Input (N, C, *). Wu & He 2018. Source: torch.nn.GroupNorm; ONNX GroupNormalization.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.GroupNorm(2, 4)(np.array([[[1.0], [3.0], [10.0], [50.0]]], np.float32)).ravel().round(3)
    array([-1.,  1., -1.,  1.], dtype=float32)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_groups = size("num_groups", num_groups, 1)
        self.num_channels = size("num_channels", num_channels, 0)
        if self.num_channels % self.num_groups:
            raise ValueError(f"num_channels must be a multiple of num_groups={num_groups}, got {num_channels}")
        self.affine = affine
        self._set_up((self.num_channels,), eps, affine, bias, dtype)
        self.to(device=device)

    def forward(self, input: Any) -> Any:
        """Normalise `input` of shape (N, C, *)."""
        if len(input.shape) < 2 or input.shape[1] != self.num_channels:
            raise ValueError(f"input must be (N, {self.num_channels}, *), got shape {tuple(input.shape)}")
        weight, bias = operands(input, self.weight, self.bias)
        return F.group_norm(input, self.num_groups, weight, bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LayerNorm(_SampleNorm):
    """Normalises the last dimensions of each sample.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The dimensions that an input ends in.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether to learn a scale and a shift for each element.
    bias : bool
        With False `elementwise_affine` learns the scale alone.
    device : str or int, keyword only
        Where its parameters lie: ``"cpu"`` (the default), ``"cuda"``, ``"cuda:N"`` or N.
    dtype : dtype-like, keyword only
        Of the parameters; float32 by default.

    Attributes
    ----------
    weight, bias : Parameter or None
        normalized_shape: scale, starting at 1, and shift, starting at 0.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, an input that ends in other dimensions.

    Notes
    -----
    Input (*, normalized_shape). Ba et al. 2016. Source: torch.nn.LayerNorm; ONNX LayerNormalization.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LayerNorm(2)(np.array([[1.0, 3.0], [10.0, 50.0]], np.float32)).round(3)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        entries = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        self.normalized_shape = tuple(size("normalized_shape", entry, 0) for entry in entries)
        if not self.normalized_shape:
            raise ValueError("normalized_shape must have at least one dimension, got none")
        self.elementwise_affine = elementwise_affine
        self._set_up(self.normalized_shape, eps, elementwise_affine, bias, dtype)
        self.to(device=device)

    def forward(self, input: Any) -> Any:
        """Normalise the last dimensions of `input`."""
        weight, bias = operands(input, self.weight, self.bias)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """Divides the last dimensions of each sample by their root mean square.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The dimensions that an input ends in.
    eps : float, optional
        Added to the mean square; by default the spacing of the numbers at 1.
    elementwise_affine : bool
        Whether to learn a scale for each element.
    device : str or int, keyword only
        Where its parameters lie: ``"cpu"`` (the default), ``"cuda"``, ``"cuda:N"`` or N.
    dtype : dtype-like, keyword only
        Of the parameter; float32 by default.

    Attributes
    ----------
    weight : Parameter or None
        normalized_shape: scale, starting at 1.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, an input that ends in other dimensions.

    Notes
    -----
    Input (*, normalized_shape). Zhang & Sennrich 2019. Source: torch.nn.RMSNorm; ONNX RMSNormalization.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.RMSNorm(2)(np.array([[3.0, 4.0], [1.0, 1.0]], np.float32)).round(3)
    array([[0.849, 1.131],
           [1.   , 1.   ]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        entries = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        self.normalized_shape = tuple(size("normalized_shape", entry, 0) for entry in entries)
        if not self.normalized_shape:
            raise ValueError("normalized_shape must have at least one dimension, got none")
        if eps is not None and number("eps", eps) < 0:
            raise ValueError(f"eps must not be negative, got {eps}")
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        kind = floating_dtype(dtype)
        weight = Parameter(np.ones(self.normalized_shape, kind)) if elementwise_affine else None
        self.register_parameter("weight", weight)
        self.to(device=device)

    def reset_parameters(self) -> None:
        """Scale 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Any) -> Any:
        """Normalise the last dimensions of `input`."""
        (weight,) = operands(input, self.weight)
        return F.rms_norm(input, self.normalized_shape, weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
