"""Batch, instance and local response normalisation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv.nn import init
from fastconv.nn.modules.arguments import floating_dtype, number, operands
from fastconv.nn.modules.arguments import size as checked_size
from fastconv.nn.modules.module import Module
from fastconv.tensor import Parameter

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LocalResponseNorm",
]


class _Norm(Module):
    """Scale, shift and running statistics of batch and instance normalisation."""

    _ranks: tuple[int, ...]

    def _set_up(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        bias: bool,
        dtype: Any,
    ) -> None:
        self.num_features = checked_size("num_features", num_features, 0)
        if number("eps", eps) < 0:
            raise ValueError(f"eps must not be negative, got {eps}")
        self.eps = eps
        self.momentum = None if momentum is None else number("momentum", momentum)
        self.affine = affine
        self.track_running_stats = track_running_stats
        kind = floating_dtype(dtype)
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, Parameter(np.empty(num_features, kind)) if wanted else None)
        for name, shape, buffer_kind in (
            ("running_mean", (num_features,), kind),
            ("running_var", (num_features,), kind),
            ("num_batches_tracked", (), np.dtype(np.int64)),
        ):
            self.register_buffer(name, np.empty(shape, buffer_kind) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1 and the count of batches to 0."""
        if self.running_mean is not None:
            self.running_mean[...] = 0
            self.running_var[...] = 1
            self.num_batches_tracked[...] = 0

    def reset_parameters(self) -> None:
        """Reset the running statistics; scale 1 and shift 0."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_rank(self, x: Any) -> None:
        if len(x.shape) not in self._ranks:
            allowed = " or ".join(f"{rank}D" for rank in self._ranks)
            raise ValueError(f"input must be {allowed} for {type(self).__name__}, got shape {tuple(x.shape)}")

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm(_Norm):
    """What the batch norms of all ranks of input share; users take BatchNorm1d, BatchNorm2d or BatchNorm3d."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._set_up(num_features, eps, momentum, affine, track_running_stats, bias, dtype)
        self.to(device=device)

    def forward(self, input: Any) -> Any:
        """Normalise `input`; in training mode the running statistics move towards those of this batch."""
        return self._forward(input, self._normalize)

    def _rectified(self, input: Any, residual: Any, max_val: float) -> Any:
        """ReLU of the normalised `input`, plus `residual` if there is one, as one operation; up to `max_val`."""
        return self._forward(
            input, functools.partial(F.batch_norm_relu, eps=self.eps, residual=residual, max_val=max_val)
        )

    def _forward(self, input: Any, normalize: Callable[..., Any]) -> Any:
        self._check_rank(input)
        weight, bias = operands(input, self.weight, self.bias)
        mean, var = self.running_mean, self.running_var
        updating = self.training and self.track_running_stats and mean is not None
        momentum = self.momentum
        if momentum is None:  # cumulative average: the k-th batch enters with weight 1 / k
            momentum = 1.0 / (int(self.num_batches_tracked) + 1) if updating else 0.0
        if self.training and not self.track_running_stats:
            mean = var = None
        y = normalize(input, mean, var, weight, bias, self.training or mean is None, momentum)
        if updating:
            self.num_batches_tracked[...] += 1
        return y

    def _normalize(self, x: Any, mean: Any, var: Any, weight: Any, bias: Any, training: bool, momentum: float) -> Any:
        return F.batch_norm(x, mean, var, weight, bias, training, momentum, self.eps)


class BatchNorm1d(BatchNorm):
    """Batch normalisation over (N, C) or (N, C, L).

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float
        Added to the variance.
    momentum : float or None
        Weight of a new batch in the running statistics; None: the average over all batches.
    affine : bool
        Whether to learn a scale and a shift per channel.
    track_running_stats : bool
        Whether to keep running statistics and use them in evaluation mode.
    bias : bool, keyword only
        With False `affine` learns the scale alone.
    dtype : dtype-like, keyword only
        Of parameters and statistics; float32 by default.

    Attributes
    ----------
    weight, bias : Parameter or None
        (C,): scale, starting at 1, and shift, starting at 0.
    running_mean, running_var, num_batches_tracked : array or None
        Buffers; the variance is the unbiased one.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, an input of another rank or with other channels, or fewer than two
        values a channel in training mode.

    Notes
    -----
    Ioffe & Szegedy 2015. Source: torch.nn.BatchNorm1d; ONNX BatchNormalization.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.BatchNorm1d(1)(np.array([[-1.0], [1.0]], np.float32)).round(3)
    array([[-1.],
           [ 1.]], dtype=float32)
    """

    _ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """Batch normalisation over (N, C, H, W); parameters as for :class:`BatchNorm1d`.

    Notes
    -----
    Ioffe & Szegedy 2015. Source: torch.nn.BatchNorm2d; ONNX BatchNormalization.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.BatchNorm2d(3)
    >>> layer(np.ones((2, 3, 4, 4), np.float32)).shape
    (2, 3, 4, 4)
    >>> layer.running_mean
    array([0.1, 0.1, 0.1], dtype=float32)
    """

    _ranks = (4,)


class BatchNorm3d(BatchNorm):
    """Batch normalisation over (N, C, D, H, W); parameters as for :class:`BatchNorm1d`.

    Notes
    -----
    Ioffe & Szegedy 2015. Source: torch.nn.BatchNorm3d; ONNX BatchNormalization.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.BatchNorm3d(2)(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 3, 4, 5)
    """

    _ranks = (5,)


class _InstanceNorm(_Norm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._set_up(num_features, eps, momentum, affine, track_running_stats, bias, dtype)
        self.to(device=device)

    def forward(self, input: Any) -> Any:
        """Normalise every channel of every sample of `input` over its own spatial elements."""
        self._check_rank(input)
        shape = tuple(input.shape)
        batched = input if len(shape) == max(self._ranks) else input.reshape((1, *shape))
        if batched.shape[1] != self.num_features:
            raise ValueError(f"input must have num_features={self.num_features} channels, got shape {shape}")
        weight, bias = operands(input, self.weight, self.bias)
        y = F.instance_norm(
            batched,
            self.running_mean,
            self.running_var,
            weight,
            bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return y if batched is input else y.reshape(shape)


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation over (N, C, L) or (C, L).

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float
        Added to the variance.
    momentum : float
        Weight of a new batch in the running statistics.
    affine : bool
        Whether to learn a scale and a shift per channel.
    track_running_stats : bool
        Whether to keep running statistics and use them in evaluation mode.
    bias, device, dtype
        As for :class:`BatchNorm1d`.

    Attributes
    ----------
    weight, bias : Parameter or None
        (C,).
    running_mean, running_var, num_batches_tracked : array or None
        Buffers; as in torch the count stays 0.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, an input of another rank or with other channels.

    Notes
    -----
    Ulyanov et al. 2016. Source: torch.nn.InstanceNorm1d; ONNX InstanceNormalization.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.InstanceNorm1d(1)(np.array([[[-1.0, 1.0]]], np.float32)).round(3)
    array([[[-1.,  1.]]], dtype=float32)
    """

    _ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation over (N, C, H, W) or (C, H, W); parameters as for :class:`InstanceNorm1d`.

    Notes
    -----
    Ulyanov et al. 2016. Source: torch.nn.InstanceNorm2d; ONNX InstanceNormalization.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.InstanceNorm2d(3, affine=True)(np.zeros((2, 3, 4, 4), np.float32)).shape
    (2, 3, 4, 4)
    """

    _ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation over (N, C, D, H, W) or (C, D, H, W); parameters as for :class:`InstanceNorm1d`.

    Notes
    -----
    Ulyanov et al. 2016. Source: torch.nn.InstanceNorm3d; ONNX InstanceNormalization.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.InstanceNorm3d(2)(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 3, 4, 5)
    """

    _ranks = (4, 5)


class LocalResponseNorm(Module):
    """Normalisation over neighbouring channels: x / (k + alpha / size * sum of squares) ** beta.

    Parameters
    ----------
    size : int
        Channels in the window, at least 1.
    alpha, beta, k : float
        As in the formula.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Input (N, C, *S). Krizhevsky et al. 2012. Source: torch.nn.LocalResponseNorm; ONNX LRN.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LocalResponseNorm(5)
    LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)
    >>> nn.LocalResponseNorm(1, alpha=3.0, beta=0.5)(np.ones((1, 2, 1), np.float32))
    array([[[0.5],
            [0.5]]], dtype=float32)
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = checked_size("size", size, 1)
        self.alpha = number("alpha", alpha)
        self.beta = number("beta", beta)
        self.k = number("k", k)

    def forward(self, input: Any) -> Any:
        """Normalise `input` of shape (N, C, *S)."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
