"""Gradient clipping, parameters as one vector, normalised weights and folded normalisations, under the names that torch
gave them, and what helps to write blocks of layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastconv.devices import array_module, as_array, is_array, is_writable, thaw
from fastconv.joining import cat
from fastconv.nn.modules.arguments import number
from fastconv.nn.modules.module import Module
from fastconv.nn.modules.norm_relu import norm_relu
from fastconv.nn.reparameterization import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm
from fastconv.tensor import Tensor

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "fuse_conv_bn_eval",
    "fuse_linear_bn_eval",
    "get_total_norm",
    "norm_relu",
    "parameters_to_vector",
    "remove_spectral_norm",
    "remove_weight_norm",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]


def _tensors(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    entries = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for entry in entries:
        if not isinstance(entry, Tensor):
            raise TypeError(f"parameters must hold Tensors, got {type(entry).__name__}")
    return entries


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[tuple[Tensor, np.ndarray]]:
    return [(entry, entry.grad) for entry in _tensors(parameters) if entry.grad is not None]


def _check_limit(name: str, value: float) -> None:
    if not number(name, value) >= 0:
        raise ValueError(f"{name} must not be negative, got {value}")


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
    _check_limit("max_norm", max_norm)
    entries = _tensors(parameters)
    total = get_total_norm([entry.grad for entry in entries if entry.grad is not None], norm_type, error_if_nonfinite)
    clip_grads_with_norm_(entries, max_norm, total)
    return total


def get_total_norm(tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> float:
    """The norm of all tensors as one vector, which `clip_grad_norm_` takes. As torch.nn.utils.get_total_norm.

    Parameters
    ----------
    tensors : iterable of array or Tensor, or one of them
        Of any shapes and dtypes; accumulated in float64. Of none, the norm is 0.
    norm_type : float
        Positive; ``inf`` takes the largest absolute value.
    error_if_nonfinite : bool
        Whether a norm that is NaN or infinite is an error.

    Raises
    ------
    ValueError
        A number out of its range; a norm that is not finite, with `error_if_nonfinite`.
    TypeError
        An argument of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.utils.get_total_norm([np.array([3.0]), np.array([[4.0]])])
    5.0
    """
    if not number("norm_type", norm_type) > 0:
        raise ValueError(f"norm_type must be positive, got {norm_type}")
    entries = [tensors] if isinstance(tensors, Tensor) or is_array(tensors) else list(tensors)
    for entry in entries:
        if not isinstance(entry, Tensor) and not is_array(entry):
            raise TypeError(f"tensors must hold arrays or Tensors, got {type(entry).__name__}")
    sizes = [np.abs(as_array(entry, np.float64)) for entry in entries]
    if math.isinf(norm_type):
        total = float(np.max([float(size.max()) for size in sizes if size.size], initial=0))
    else:
        with np.errstate(over="ignore"):
            sums = [(size**norm_type).sum() for size in sizes]
            total = float(array_module(sums[0]).stack(sums).sum() ** (1 / norm_type)) if sums else 0.0
    if error_if_nonfinite and not math.isfinite(total):
        raise ValueError(f"the gradients' norm must be finite, got {total}")
    return total


def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: float) -> None:
    """Scale the gradients as `clip_grad_norm_` does, with a norm that is known: of the gradients of all processes, say.

    As torch.nn.utils.clip_grads_with_norm_.

    Parameters
    ----------
    parameters : iterable of Tensor, or one Tensor
        Their ``grad`` is changed in place; those without one are passed over.
    max_norm : float
        Not negative.
    total_norm : float
        The norm that is to become `max_norm` where it is larger. NaN makes all gradients NaN, infinity makes them zero.

    Raises
    ------
    ValueError
        A negative number.
    TypeError
        An argument of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> weight = nn.Parameter(np.zeros(2, np.float32))
    >>> weight.grad = np.array([3.0, 4.0], np.float32)
    >>> nn.utils.clip_grads_with_norm_([weight], 1.0, total_norm=10.0)
    >>> weight.grad.round(3)
    array([0.3, 0.4], dtype=float32)
    """
    _check_limit("max_norm", max_norm)
    if number("total_norm", total_norm) < 0:
        raise ValueError(f"total_norm must not be negative, got {total_norm}")
    # torch's constant keeps the quotient finite for gradients that are all zero.
    factor = max_norm / (total_norm + 1e-6)
    if not factor >= 1:
        for entry, gradient in _with_gradients(parameters):
            _write(entry, gradient * factor)


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
    _check_limit("clip_value", clip_value)
    for entry, gradient in _with_gradients(parameters):
        _write(entry, np.clip(gradient, -clip_value, clip_value))


def _write(entry: Tensor, gradient: Any) -> None:
    """Into the gradient's own memory, which others may look at; a read-only gradient is replaced."""
    if entry.grad is not None and is_writable(entry.grad):
        entry.grad[...] = gradient
    else:
        entry.grad = as_array(gradient)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters one after the other in one Tensor, which records. As torch.nn.utils.parameters_to_vector.

    Parameters
    ----------
    parameters : iterable of Tensor
        At least one; all of one dtype and on one device.

    Returns
    -------
    Tensor, shape (number of elements,)

    Raises
    ------
    ValueError
        No parameters.
    TypeError
        Something that is no Tensor.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> nn.utils.parameters_to_vector(nn.Linear(3, 2).parameters()).shape
    (8,)
    """
    entries = _tensors(parameters)
    if not entries:
        raise ValueError("parameters must be at least one, got none")
    return cat([entry.reshape(-1) for entry in entries])


def vector_to_parameters(vec: Any, parameters: Iterable[Tensor]) -> None:
    """Write the elements of a vector into the parameters, one after the other. As torch.nn.utils.vector_to_parameters.

    Parameters
    ----------
    vec : Tensor or array, shape (number of elements,)
    parameters : iterable of Tensor
        Written in place.

    Raises
    ------
    ValueError
        Another number of elements, or a vector that is none; no parameter is changed then.
    TypeError
        Something that is no Tensor.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.Linear(2, 1)
    >>> nn.utils.vector_to_parameters(np.float32([1, 2, 3]), layer.parameters())
    >>> layer.weight.data, layer.bias.data
    (array([[1., 2.]], dtype=float32), array([3.], dtype=float32))
    """
    values = as_array(vec.data if isinstance(vec, Tensor) else vec)
    entries = _tensors(parameters)
    wanted = sum(entry.data.size for entry in entries)
    if values.shape != (wanted,):
        raise ValueError(f"vec must have shape ({wanted},), the elements of all parameters, got {values.shape}")
    start = 0
    for entry in entries:
        thaw(entry)
        entry.data[...] = values[start : start + entry.data.size].reshape(entry.data.shape)
        start += entry.data.size


def fuse_conv_bn_eval(conv: Module, bn: Module, transpose: bool = False) -> Module:
    """A copy of a convolution that computes what the convolution and the normalisation after it do in evaluation mode.

    `fastconv.optimize` does this and more for a whole network.

    Parameters
    ----------
    conv : Conv1d, Conv2d, Conv3d or a transposed one
    bn : BatchNorm1d, BatchNorm2d or BatchNorm3d
        With running statistics, of as many channels as `conv` puts out.
    transpose : bool
        As in torch, where it must say whether `conv` is transposed; here the layer knows.

    Returns
    -------
    Module
        In evaluation mode, with a bias.

    Raises
    ------
    TypeError
        Layers of other kinds.
    ValueError
        A layer in training mode, other channels, or no running statistics.

    Notes
    -----
    Source: torch.nn.utils.fusion.fuse_conv_bn_eval; Jacob et al. 2018, section 3.2.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> conv, bn = nn.Conv2d(3, 8, 3, bias=False).eval(), nn.BatchNorm2d(8).eval()
    >>> nn.utils.fuse_conv_bn_eval(conv, bn).bias.shape
    (8,)
    """
    from fastconv.nn.modules.conv import _ConvBase

    if not isinstance(conv, _ConvBase):
        raise TypeError(f"conv must be a convolution, got {type(conv).__name__}")
    return _fused("conv", conv, conv.out_channels, bn)


def fuse_linear_bn_eval(linear: Module, bn: Module) -> Module:
    """A copy of a linear layer that computes what it and the normalisation after it do in evaluation mode.

    Parameters
    ----------
    linear : Linear
    bn : BatchNorm1d
        With running statistics, of as many features as `linear` puts out.

    Returns, Raises
    ---------------
    As `fuse_conv_bn_eval`.

    Notes
    -----
    Source: torch.nn.utils.fusion.fuse_linear_bn_eval.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> nn.utils.fuse_linear_bn_eval(nn.Linear(3, 2).eval(), nn.BatchNorm1d(2).eval())
    Linear(in_features=3, out_features=2, bias=True)
    """
    from fastconv.nn.modules.linear import Linear

    if not isinstance(linear, Linear):
        raise TypeError(f"linear must be a Linear layer, got {type(linear).__name__}")
    return _fused("linear", linear, linear.out_features, bn)


def _fused(name: str, layer: Module, channels: int, bn: Any) -> Module:
    from fastconv.fusion import fold, norm_affine
    from fastconv.nn.modules.normalization import BatchNorm

    if not isinstance(bn, BatchNorm):
        raise TypeError(f"bn must be a batch normalisation, got {type(bn).__name__}")
    if layer.training or bn.training:
        raise ValueError(f"{name} and bn must be in evaluation mode: call eval() first")
    if layer._parameters.get("weight") is None:
        raise ValueError(f"{name} must have its weight as a parameter; remove_weight_norm and its like make it one")
    if bn.num_features != channels:
        raise ValueError(f"bn must have the {channels} channels that {name} puts out, got {bn.num_features}")
    affine = norm_affine(bn)
    if affine is None:
        raise ValueError("bn must have running statistics, got a layer with track_running_stats=False")
    fused = copy.deepcopy(layer)
    fold(fused, *affine)
    for parameter in fused.parameters():
        parameter.requires_grad = True
    return fused
