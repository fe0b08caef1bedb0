"""Batch normalisation over the batch of all ranks.

Each rank takes the moments of its part with the kernel of batch_norm; the parts' counts, means and sums of squared
deviations are gathered and combined in float64 in the order of the ranks (Chan, Golub, LeVeque 1979), so every rank
gets the same bits. What remains is batch_norm with given statistics. The gradient

    dx = weight * invstd * (dy - mean(dy) - xhat * mean(dy * xhat)),    xhat = (x - mean) * invstd

needs two more means over all ranks, which the kernel's gradients of bias and weight are the local sums of. As in
DataParallel, the loss of a rank is a mean over its n examples: its dy counts n times, and dx is that of its own loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend
from fastconv.devices import array_module, device_of, to_device, to_host
from fastconv.differentiable import apply, differentiable
from fastconv.nn.modules.module import Module
from fastconv.nn.modules.normalization import BatchNorm

if TYPE_CHECKING:
    from fastconv.distributed import Communicator

__all__ = ["SyncBatchNorm"]

# The kernel gives 1 / sqrt(variance + eps). With an eps far below any variance that matters beside the layer's own,
# the variance comes back out of it without cancellation.
_NO_EPS = 1e-30


def _local_moments(x: Any) -> Any:
    """Count of values a channel, then means, then sums of squared deviations, in float64: (1 + 2 C,)."""
    channels = x.shape[1]
    count = x.shape[0] * math.prod(x.shape[2:])
    library = array_module(x)
    moments = library.zeros((1 + 2 * channels,))
    moments[0] = count
    mean_part, squares_part = moments[1 : 1 + channels], moments[1 + channels :]
    if count == 1:  # the kernel rightly refuses to normalise a single value
        mean_part[...] = x.reshape(channels)
    elif count > 1:
        _, mean, invstd = backend.ops.batch_norm_forward(x, None, None, None, None, True, 0.0, _NO_EPS)
        mean_part[...] = mean
        squares_part[...] = np.maximum(1 / np.square(invstd.astype(np.float64)) - _NO_EPS, 0) * count
    return moments


def _global_moments(x: np.ndarray, group: Communicator) -> tuple[int, np.ndarray, np.ndarray]:
    """Count, mean (C,) and biased variance (C,) over all ranks; ValueError, on all of them, for less than 2 values."""
    gathered = to_host(group.all_gather(_local_moments(x)))  # the host waits for a GPU here
    counts = gathered[:, :1]
    count = int(counts.sum())
    if count < 2:
        raise ValueError(
            f"input has shape {x.shape} on rank {group.rank}: training needs more than 1 value per channel, there are "
            f"{count} on all ranks"
        )
    means, squares = np.split(gathered[:, 1:], 2, axis=1)
    mean = (counts * means).sum(axis=0) / count
    return count, mean, (squares + counts * np.square(means - mean)).sum(axis=0) / count


def _rule(wanted, x, running_mean, running_var, weight, bias, momentum, eps, group):
    ops = backend.ops
    count, mean64, variance = _global_moments(x, group)
    kind = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    place = device_of(x)
    mean, var = to_device(mean64.astype(kind), place), to_device(variance.astype(kind), place)
    scale, shift = (None if each is None else each.astype(kind, copy=False) for each in (weight, bias))
    y, _, invstd = ops.batch_norm_forward(x, scale, shift, mean, var, False, 0.0, eps)
    if running_mean is not None:
        for running, value in ((running_mean, mean64), (running_var, variance * (count / (count - 1)))):
            running[...] = (1 - momentum) * running.astype(np.float64) + momentum * to_device(value, place)

    def pullback(dy):
        # 16-bit types are computed in float32 and rounded once.
        wide_x, wide_dy = x.astype(kind, copy=False), dy.astype(kind, copy=False)
        # With the statistics held constant: dx without the terms of the means, and the local sums.
        dx, dw, db = ops.batch_norm_backward(wide_dy, wide_x, scale, mean, invstd, False)
        if wanted[0]:
            examples = len(x)
            local = array_module(dw).stack([dw, db]).astype(np.float64) * examples
            sums = group.all_gather(local).sum(axis=0)
            factor = invstd if scale is None else scale * invstd
            of_std, of_mean = (sums / (count * max(examples, 1)) * factor).astype(kind)
            dx -= ops.batch_norm_forward(wide_x, of_std, of_mean, mean, var, False, 0.0, eps)[0]
        return tuple(
            gradient.astype(argument.dtype, copy=False) if is_wanted else None
            for gradient, argument, is_wanted in zip((dx, dw, db), (x, weight, bias), wanted)
        )

    return y, pullback


@differentiable(_rule, wrt=("input", "weight", "bias"), buffers=("running_mean", "running_var"))
def _sync_batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    momentum: float,
    eps: float,
    process_group: Communicator,
) -> Any:
    return apply(_sync_batch_norm, input, running_mean, running_var, weight, bias, momentum, eps, process_group)


class SyncBatchNorm(BatchNorm):
    """Batch normalisation over (N, C, *S) with the statistics of the batches of all ranks together.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, device, dtype
        As for :class:`BatchNorm1d`.
    process_group : Communicator, keyword only
        All ranks (:func:`fastconv.distributed.world`) by default.

    Attributes
    ----------
    weight, bias, running_mean, running_var, num_batches_tracked
        As for :class:`BatchNorm1d`; the running statistics are equal on all ranks.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, an input of another rank or with other channels, or in training mode
        fewer than two values a channel on all ranks together.

    Notes
    -----
    In training mode every rank must call the layer, and go back through it. A rank may have another number of examples
    than the others, even none; the loss of each is taken as a mean over its examples, as by
    :class:`fastconv.distributed.DataParallel`. In evaluation mode, and on one rank, it is an ordinary batch norm.
    Ioffe & Szegedy 2015. Source: torch.nn.SyncBatchNorm.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    >>> nn.SyncBatchNorm.convert_sync_batchnorm(net)[1]
    SyncBatchNorm(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    >>> net(np.ones((2, 1, 5, 5), np.float32)).shape
    (2, 4, 3, 3)
    """

    _ranks = (2, 3, 4, 5)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        process_group: Communicator | None = None,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias=bias, device=device, dtype=dtype
        )
        self.process_group = process_group

    def _normalize(self, x: Any, mean: Any, var: Any, weight: Any, bias: Any, training: bool, momentum: float) -> Any:
        from fastconv.distributed import world  # not above: fastconv.distributed is built on the layers

        group = world() if self.process_group is None else self.process_group
        if not training or group.size == 1:
            return super()._normalize(x, mean, var, weight, bias, training, momentum)
        if x.shape[1] != self.num_features:
            raise ValueError(f"input must have num_features={self.num_features} channels, got shape {tuple(x.shape)}")
        return _sync_batch_norm(x, mean, var, weight, bias, momentum, self.eps, group)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Communicator | None = None) -> Module:
        """Replace every BatchNorm1d, 2d and 3d in `module` by a SyncBatchNorm with the same parameters and buffers.

        Parameters
        ----------
        module : Module
            Changed in place, unless it is itself a batch norm.
        process_group : Communicator, optional

        Returns
        -------
        Module
            `module`, or the layer that replaces it.
        """
        return cls._convert(module, process_group, {})

    @classmethod
    def _convert(cls, module: Module, process_group: Communicator | None, converted: dict[int, Module]) -> Module:
        if id(module) not in converted:
            converted[id(module)] = module
            if isinstance(module, BatchNorm) and not isinstance(module, SyncBatchNorm):
                layer = cls(module.num_features, module.eps, module.momentum)
                layer.__dict__.update({**module.__dict__, "process_group": process_group})
                converted[id(module)] = layer
            for name, child in module._modules.items():
                if child is not None:
                    module._modules[name] = cls._convert(child, process_group, converted)
        return converted[id(module)]
