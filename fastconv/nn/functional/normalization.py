"""Batch, instance and local response normalisation."""

from __future__ import annotations

import math

from numpy import ndarray

from ... import backend
from ...differentiable import A, Array, apply, differentiable


def _batch_norm_rule(wanted, x, running_mean, running_var, weight, bias, training, momentum, eps):
    ops = backend.ops
    y, mean, invstd = ops.batch_norm_forward(x, weight, bias, running_mean, running_var, training, momentum, eps)

    def pullback(dy):
        gradients = ops.batch_norm_backward(dy, x, weight, mean, invstd, training)
        return tuple(g if is_wanted else None for g, is_wanted in zip(gradients, wanted))

    return y, pullback


def _batch_norm_relu_rule(
    wanted, x, running_mean, running_var, weight, bias, training, momentum, eps, residual, max_val
):
    ops = backend.ops
    y, saved = ops.batch_norm_relu_forward(
        x, weight, bias, running_mean, running_var, training, momentum, eps, residual, max_val
    )

    def pullback(dy):
        if residual is None:
            gradients = (*ops.batch_norm_relu_backward(dy, x, weight, saved, training, max_val), None)
        else:
            d = ops.relu_backward(dy, y) if max_val == math.inf else ops.hardtanh_backward(dy, y, 0.0, max_val)
            gradients = (*ops.batch_norm_backward(d, x, weight, saved[0], saved[1], training), d)
        return tuple(g if is_wanted else None for g, is_wanted in zip(gradients, wanted))

    return y, pullback


def _instance_norm_rule(wanted, x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps):
    ops = backend.ops
    y, mean, invstd = ops.instance_norm_forward(
        x, weight, bias, running_mean, running_var, use_input_stats, momentum, eps
    )

    def pullback(dy):
        gradients = ops.instance_norm_backward(dy, x, weight, mean, invstd, use_input_stats)
        return tuple(g if is_wanted else None for g, is_wanted in zip(gradients, wanted))

    return y, pullback


def _local_response_norm_rule(wanted, x, size, alpha, beta, k):
    ops = backend.ops

    def pullback(dy):
        return (ops.local_response_norm_backward(dy, x, size, alpha, beta, k) if wanted[0] else None,)

    return ops.local_response_norm_forward(x, size, alpha, beta, k), pullback


@differentiable(_batch_norm_rule, wrt=("input", "weight", "bias"), buffers=("running_mean", "running_var"))
def batch_norm(
    input: A,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> A:
    """Normalise each channel over batch and space, as torch.nn.functional.batch_norm.

    ``(x - mean) / sqrt(var + eps) * weight + bias``, with the batch's own mean and variance in training, otherwise with
    the running ones (Ioffe and Szegedy, 2015, arXiv:1502.03167).

    Parameters
    ----------
    input : array, shape (N, C) or (N, C, *)
        float32, float64, float16 or bfloat16.
    running_mean, running_var : array, shape (C,), or None
        Updated in place by a training call: ``running = (1 - momentum) * running + momentum * batch``, the variance
        with Bessel's correction. Needed where `training` is False.
    weight, bias : array, shape (C,), optional
        The input's dtype, or float32 for a 16-bit input.
    training : bool
    momentum, eps : float

    Returns
    -------
    array of the input's shape

    Raises
    ------
    ValueError
        Shapes that do not fit; fewer than two values a channel in training; running statistics that cannot be written.
    TypeError
        A dtype that is not supported.

    Notes
    -----
    ``batch_norm.vjp`` gives the gradients of input, weight and bias; its forward call updates the statistics, too.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> x, mean, var = np.array([[1.0], [3.0]]), np.zeros(1), np.ones(1)
    >>> F.batch_norm(x, mean, var, training=True).round(3)
    array([[-1.],
           [ 1.]])
    >>> mean, var
    (array([0.2]), array([1.1]))
    """
    if (
        type(input) is ndarray
        and (weight is None or type(weight) is ndarray)
        and (bias is None or type(bias) is ndarray)
        and (running_mean is None or type(running_mean) is ndarray)
        and (running_var is None or type(running_var) is ndarray)
    ):
        ops = backend.ops
        return ops.batch_norm_forward(input, weight, bias, running_mean, running_var, training, momentum, eps)[0]
    return apply(batch_norm, input, running_mean, running_var, weight, bias, training, momentum, eps)


@differentiable(
    _batch_norm_relu_rule, wrt=("input", "weight", "bias", "residual"), buffers=("running_mean", "running_var")
)
def batch_norm_relu(
    input: A,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Array | None = None,
    max_val: float = math.inf,
) -> A:
    """``relu(batch_norm(input) + residual)`` in one operation, which reads and writes less memory than three.

    The layers of most networks since ResNet: batch normalisation, the sum with a shortcut where there is one, and ReLU
    (or, with ``max_val=6``, ReLU6). `Sequential` and the networks of `fastconv.models` call it by themselves in
    training, and `fastconv.nn.utils.norm_relu` does it for layers.

    Parameters
    ----------
    input, running_mean, running_var, weight, bias, training, momentum, eps
        As for `batch_norm`.
    residual : array of the input's shape and dtype, optional, keyword only
        Added before ReLU.
    max_val : float, keyword only
        The largest output; positive.

    Returns
    -------
    array of the input's shape

    Raises
    ------
    ValueError
        As for `batch_norm`; `residual` of another shape; `max_val` not positive.
    TypeError
        A dtype that is not supported.

    Notes
    -----
    float32 and float64 give the bits that the operations one after another give, forward and backward; 16-bit sums with
    a residual are rounded once instead of twice. ``batch_norm_relu.vjp`` gives the gradients of input, weight, bias and
    residual; its forward call updates the statistics, too.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> x = np.array([[1.0], [3.0]])
    >>> F.batch_norm_relu(x, None, None, training=True, residual=np.array([[2.0], [0.5]])).round(3)
    array([[1. ],
           [1.5]])
    """
    if (
        type(input) is ndarray
        and (weight is None or type(weight) is ndarray)
        and (bias is None or type(bias) is ndarray)
        and (running_mean is None or type(running_mean) is ndarray)
        and (running_var is None or type(running_var) is ndarray)
        and (residual is None or type(residual) is ndarray)
    ):
        return backend.ops.batch_norm_relu_forward(
            input, weight, bias, running_mean, running_var, training, momentum, eps, residual, max_val
        )[0]
    return apply(
        batch_norm_relu, input, running_mean, running_var, weight, bias, training, momentum, eps, residual, max_val
    )


@differentiable(_instance_norm_rule, wrt=("input", "weight", "bias"), buffers=("running_mean", "running_var"))
def instance_norm(
    input: A,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> A:
    """Normalise each channel of each sample over space, as torch.nn.functional.instance_norm.

    Parameters
    ----------
    input : array, shape (N, C, *)
        float32, float64, float16 or bfloat16.
    running_mean, running_var : array, shape (C,), optional
        Updated in place where `use_input_stats`; needed where not.
    weight, bias : array, shape (C,), optional
        The input's dtype, or float32 for a 16-bit input.
    use_input_stats : bool
        Normalise with each sample's own mean and variance, otherwise with the running ones.
    momentum, eps : float

    Returns
    -------
    array of the input's shape

    Raises
    ------
    ValueError
        Shapes that do not fit; fewer than two values a channel; running statistics that cannot be written.
    TypeError
        A dtype that is not supported.

    Notes
    -----
    Ulyanov, Vedaldi and Lempitsky, 2016, arXiv:1607.08022.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.instance_norm(np.array([[[1.0, 3.0], [10.0, 50.0]]])).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    return apply(instance_norm, input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


@differentiable(_local_response_norm_rule, wrt=("input",))
def local_response_norm(input: A, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> A:
    """``x / (k + alpha / size * sum(x**2)) ** beta`` over `size` neighbouring channels, as in torch.

    Parameters
    ----------
    input : array, shape (N, C, *)
        float32, float64, float16 or bfloat16.
    size : int
        Channels in a window: ``size // 2`` before and ``(size - 1) // 2`` after the one that is normalised.
    alpha, beta, k : float

    Returns
    -------
    array of the input's shape

    Raises
    ------
    ValueError
        Fewer than three dimensions (torch's rule), or a `size` below 1.
    TypeError
        A dtype that is not supported, or a `size` that is no int.

    Notes
    -----
    torch.nn.functional.local_response_norm; Krizhevsky, Sutskever and Hinton, 2012, section 3.3.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.local_response_norm(np.ones((1, 2, 1)), 2, alpha=2.0, beta=1.0, k=1.0).round(3).ravel()
    array([0.5  , 0.333])
    """
    if type(input) is ndarray:
        return backend.ops.local_response_norm_forward(input, size, alpha, beta, k)
    return apply(local_response_norm, input, size, alpha, beta, k)
