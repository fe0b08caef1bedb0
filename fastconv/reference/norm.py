"""Normalisation forward and backward: batch, instance and local response.

Sources: Ioffe and Szegedy, "Batch Normalization" (arXiv:1502.03167); Ulyanov et al., "Instance Normalization"
(arXiv:1607.08022); Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3;
torch.nn.functional.batch_norm, instance_norm and local_response_norm; ONNX BatchNormalization and LRN.
"""

from __future__ import annotations

import math

import numpy as np

from . import checks

Parameter = np.ndarray | None


def _parameter_dtypes(x: np.ndarray) -> tuple[np.dtype, ...]:
    """What weight, bias and running statistics may be: the input's dtype, or float32 beside a 16-bit input."""
    return (x.dtype, np.dtype(np.float32)) if x.dtype.itemsize == 2 else (x.dtype,)


def _statistics_dtype(x: np.ndarray) -> np.dtype:
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _per_channel(name: str, value: object, x: np.ndarray) -> Parameter:
    """An optional (C,) array."""
    parameter = checks.optional_array(name, value, _parameter_dtypes(x))
    if parameter is not None:
        checks.same_shape(name, parameter, x.shape[1:2], "one value for each channel")
    return parameter


def _running_statistics(
    running_mean: object, running_var: object, x: np.ndarray, required: bool, updated: bool
) -> tuple[Parameter, Parameter]:
    mean = _per_channel("running_mean", running_mean, x)
    var = _per_channel("running_var", running_var, x)
    if (mean is None) != (var is None):
        raise ValueError("running_mean and running_var must both be given, or neither")
    if mean is None or var is None:
        if required:
            raise ValueError("running_mean is None: must be given where input statistics are not used")
        return None, None
    if updated:
        for name, statistic in (("running_mean", mean), ("running_var", var)):
            if not statistic.flags.writeable:
                raise ValueError(f"{name} is read-only: must be writable, since training updates it")
            if statistic.size > 1 and abs(statistic.strides[0]) < statistic.itemsize:
                raise ValueError(f"{name} has stride {statistic.strides[0]}: its values must not overlap")
        if np.shares_memory(mean, var):
            raise ValueError("running_mean and running_var must not overlap")
    return mean, var


def _epsilon(eps: object, may_be_zero: bool) -> float:
    value = checks.finite("eps", eps)
    if value < 0 or (value == 0 and not may_be_zero):
        raise ValueError(f"eps is {value}: must be {'at least 0' if may_be_zero else 'positive'}")
    return value


def _momentum(momentum: object, required: bool) -> float:
    return 0.0 if momentum is None and not required else checks.finite("momentum", momentum)


def _along_channels(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(C,) or (N, C) values in float64, to broadcast against x (N, C, *S)."""
    lead = values.shape if values.ndim == 2 else (1, *values.shape)
    return checks.wide(values).reshape(*lead, *(1,) * (x.ndim - 2))


def _moments(x64: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance over `axes`, both 0 over nothing."""
    count = max(math.prod(x64.shape[axis] for axis in axes), 1)
    mean = x64.sum(axis=axes) / count
    centred = x64 - np.expand_dims(mean, axes)
    return mean, np.square(centred).sum(axis=axes) / count


def _affine(x: np.ndarray, x64: np.ndarray, mean: np.ndarray, invstd: np.ndarray, w: Parameter, b: Parameter):
    """The normalised x in float64."""
    y = (x64 - _along_channels(mean, x)) * _along_channels(invstd, x)
    if w is not None:
        y = y * _along_channels(w, x)
    if b is not None:
        y = y + _along_channels(b, x)
    return y


def _update(running: Parameter, value: np.ndarray, momentum: float) -> None:
    if running is not None:
        running[...] = checks.rounded((1 - momentum) * checks.wide(running) + momentum * value, running.dtype)


def _channels(x: object) -> np.ndarray:
    """The input of a batch normalisation."""
    x = checks.array("input", x)
    if x.ndim < 2:
        raise ValueError(f"input has shape {x.shape}: must have at least 2 dimensions, (N, C, ...)")
    return x


def _batch_norm(
    x: np.ndarray,
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
    training: bool,
    momentum: float | None,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`batch_norm_forward` in float64."""
    w, b = _per_channel("weight", weight, x), _per_channel("bias", bias, x)
    train = checks.flag("training", training)
    run_mean, run_var = _running_statistics(running_mean, running_var, x, required=not train, updated=train)
    epsilon = _epsilon(eps, not train)
    rate = _momentum(momentum, train and run_mean is not None)
    axes = (0, *range(2, x.ndim))
    count = math.prod(x.shape[axis] for axis in axes)
    if train and count == 1:
        raise ValueError(f"input has shape {x.shape}: training needs more than 1 value per channel")
    x64 = checks.wide(x)
    if run_mean is None or run_var is None or train:
        mean, var = _moments(x64, axes)
    else:
        mean, var = checks.wide(run_mean), checks.wide(run_var)
    invstd = 1 / np.sqrt(var + epsilon)
    if train and count:
        _update(run_mean, mean, rate)
        _update(run_var, var * (count / (count - 1)), rate)
    return _affine(x, x64, mean, invstd, w, b), mean, invstd


@np.errstate(all="ignore")
def batch_norm_forward(
    x: np.ndarray,
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
    training: bool,
    momentum: float | None,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x - mean) / sqrt(var + eps) * weight + bias for each channel of x (N, C, *S); returns (y, mean, invstd).

    Training takes mean and biased variance from x and moves the running statistics (unbiased variance) towards them by
    `momentum`, in place; otherwise the running statistics are used. mean and invstd are (C,), float32 or, for float64
    x, float64.

    >>> x = np.array([[1.0], [3.0]])
    >>> batch_norm_forward(x, None, None, None, None, True, 0.1, 1e-12)[0]
    array([[-1.],
           [ 1.]])
    """
    x = _channels(x)
    y, mean, invstd = _batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)
    dtype = _statistics_dtype(x)
    return checks.finish_like(y, x), checks.rounded(mean, dtype), checks.rounded(invstd, dtype)


def _normalisation_backward(
    dy: np.ndarray,
    x: np.ndarray,
    weight: Parameter,
    mean: np.ndarray,
    invstd: np.ndarray,
    axes: tuple[int, ...],
    input_statistics: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of a normalisation over `axes`; those of weight and bias are summed over all but the channels."""
    dy64, scale = checks.wide(dy), _along_channels(invstd, x)
    normalised = (checks.wide(x) - _along_channels(mean, x)) * scale
    if weight is not None:
        scale = scale * _along_channels(weight, x)
    dx = dy64
    if input_statistics:
        # The mean and the variance depend on x too: their share is the projection of dy on 1 and on the normalised x.
        count = max(math.prod(x.shape[axis] for axis in axes), 1)
        on_mean = dy64.sum(axis=axes, keepdims=True) / count
        on_std = (dy64 * normalised).sum(axis=axes, keepdims=True) / count
        dx = dy64 - on_mean - normalised * on_std
    all_but_channels = (0, *range(2, x.ndim))
    dtype = x.dtype if weight is None else weight.dtype
    return (
        checks.finish_like(dx * scale, x),
        checks.rounded((dy64 * normalised).sum(axis=all_but_channels), dtype),
        checks.rounded(dy64.sum(axis=all_but_channels), dtype),
    )


@np.errstate(all="ignore")
def batch_norm_backward(
    dy: np.ndarray, x: np.ndarray, weight: Parameter, mean: np.ndarray, invstd: np.ndarray, training: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dw, db) of `batch_norm_forward`, with the mean and invstd (C,) it returned."""
    x = _channels(x)
    dy = checks.array("grad_output", dy, (x.dtype,))
    checks.same_shape("grad_output", dy, x.shape, "the shape of the output")
    w = _per_channel("weight", weight, x)
    for name, statistic in (("mean", mean), ("invstd", invstd)):
        checks.array(name, statistic, (_statistics_dtype(x),))
        checks.same_shape(name, statistic, x.shape[1:2], "one value for each channel")
    train = checks.flag("training", training)
    return _normalisation_backward(dy, x, w, mean, invstd, (0, *range(2, x.ndim)), train)


def _upper_limit(max_val: object, dtype: np.dtype) -> float:
    """`max_val` as the input's dtype holds it."""
    value = checks.real("max_val", max_val)
    if not value > 0:
        raise ValueError(f"max_val is {value}: must be positive")
    return float(checks.wide(checks.rounded(np.array(value), dtype)))


@np.errstate(all="ignore")
def batch_norm_relu_forward(
    x: np.ndarray,
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
    training: bool,
    momentum: float | None,
    eps: float,
    residual: np.ndarray | None,
    max_val: float,
) -> tuple[np.ndarray, np.ndarray]:
    """min(max(normalised x + residual, 0), max_val), with `batch_norm_forward`'s normalised x; returns (y, saved).

    saved holds four rows of C values for the backward pass: mean, invstd, scale and offset, of
    normalised x = (x - mean) * scale + offset.

    >>> x = np.array([[1.0], [3.0]])
    >>> batch_norm_relu_forward(x, None, None, None, None, True, 0.1, 1e-12, None, np.inf)[0]
    array([[0.],
           [1.]])
    """
    x = _channels(x)
    if residual is not None:
        checks.array("residual", residual, (x.dtype,))
        checks.same_shape("residual", residual, x.shape, "the shape of the input")
    high = _upper_limit(max_val, x.dtype)
    y, mean, invstd = _batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)
    if residual is not None:
        y = y + checks.wide(residual)
    scale = invstd if weight is None else invstd * checks.wide(weight)
    offset = np.zeros_like(mean) if bias is None else checks.wide(bias)
    saved = np.stack([mean, invstd, scale, offset])
    y = np.minimum(np.where(y <= 0, 0.0, y), high)
    return checks.finish_like(y, x), checks.rounded(saved, _statistics_dtype(x))


@np.errstate(all="ignore")
def batch_norm_relu_backward(
    dy: np.ndarray, x: np.ndarray, weight: Parameter, saved: np.ndarray, training: bool, max_val: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dw, db) of `batch_norm_relu_forward` without a residual, with the `saved` that it returned.

    Gradients pass where the normalised x, in its dtype, is above 0 and below max_val, or NaN.
    """
    x = _channels(x)
    dy = checks.array("grad_output", dy, (x.dtype,))
    checks.same_shape("grad_output", dy, x.shape, "the shape of the output")
    w = _per_channel("weight", weight, x)
    saved = checks.array("saved", saved, (_statistics_dtype(x),))
    checks.same_shape("saved", saved, (4, x.shape[1]), "four values for each channel")
    high = _upper_limit(max_val, x.dtype)
    train = checks.flag("training", training)
    mean, invstd, scale, offset = saved
    centred = checks.wide(x) - _along_channels(mean, x)
    normalised = checks.rounded(centred * _along_channels(scale, x) + _along_channels(offset, x), x.dtype)
    blocked = (normalised <= 0) | ((normalised >= high) & (high < math.inf))
    passed = np.where(blocked, dy.dtype.type(0), dy)
    return _normalisation_backward(passed, x, w, mean, invstd, (0, *range(2, x.ndim)), train)


@np.errstate(all="ignore")
def instance_norm_forward(
    x: np.ndarray,
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
    use_input_stats: bool,
    momentum: float | None,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`batch_norm_forward` for each image of x (N, C, *S) on its own; mean and invstd are (N, C).

    The running statistics move towards the mean over the batch of the images' statistics.

    >>> instance_norm_forward(np.array([[[1.0, 3.0]]]), None, None, None, None, True, 0.1, 1e-12)[0]
    array([[[-1.,  1.]]])
    """
    x = checks.array("input", x)
    if x.ndim < 3:
        raise ValueError(f"input has shape {x.shape}: must have at least 3 dimensions, (N, C, spatial)")
    w, b = _per_channel("weight", weight, x), _per_channel("bias", bias, x)
    own = checks.flag("use_input_stats", use_input_stats)
    run_mean, run_var = _running_statistics(running_mean, running_var, x, required=not own, updated=own)
    epsilon = _epsilon(eps, True)
    rate = _momentum(momentum, own and run_mean is not None)
    count = math.prod(x.shape[2:])
    if own and count == 1:
        raise ValueError(f"input has shape {x.shape}: use_input_stats needs more than 1 spatial element")
    x64 = checks.wide(x)
    if run_mean is None or run_var is None or own:
        mean, var = _moments(x64, tuple(range(2, x.ndim)))
    else:
        mean, var = (np.broadcast_to(checks.wide(r), x.shape[:2]) for r in (run_mean, run_var))
    invstd = 1 / np.sqrt(var + epsilon)
    y = checks.finish_like(_affine(x, x64, mean, invstd, w, b), x)
    if own and x.size:
        _update(run_mean, mean.mean(axis=0), rate)
        _update(run_var, var.mean(axis=0) * (count / (count - 1)), rate)
    dtype = _statistics_dtype(x)
    return y, checks.rounded(mean, dtype), checks.rounded(invstd, dtype)


@np.errstate(all="ignore")
def instance_norm_backward(
    dy: np.ndarray, x: np.ndarray, weight: Parameter, mean: np.ndarray, invstd: np.ndarray, use_input_stats: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dw, db) of `instance_norm_forward`, with the mean and invstd (N, C) it returned."""
    x = checks.array("input", x)
    if x.ndim < 3:
        raise ValueError(f"input has shape {x.shape}: must have at least 3 dimensions, (N, C, spatial)")
    dy = checks.array("grad_output", dy, (x.dtype,))
    checks.same_shape("grad_output", dy, x.shape, "the shape of the output")
    w = _per_channel("weight", weight, x)
    for name, statistic in (("mean", mean), ("invstd", invstd)):
        checks.array(name, statistic, (_statistics_dtype(x),))
        checks.same_shape(name, statistic, x.shape[:2], "one value for each image and channel")
    own = checks.flag("use_input_stats", use_input_stats)
    return _normalisation_backward(dy, x, w, mean, invstd, tuple(range(2, x.ndim)), own)


def _sum_over_channels(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """Sum over channels c - before to c + after, as far as they exist."""
    channels = x.shape[1]
    y = np.zeros(x.shape)
    for shift in range(max(-before, 1 - channels), min(after, channels - 1) + 1):
        low, high = max(0, -shift), min(channels, channels - shift)
        y[:, low:high] += x[:, low + shift : high + shift]
    return y


def _response_parameters(
    x: np.ndarray, size: object, alpha: object, beta: object, k: object
) -> tuple[int, float, float, float]:
    if x.ndim < 3:
        raise ValueError(f"input has shape {x.shape}: must have at least 3 dimensions, (N, C, spatial)")
    return (
        checks.integer("size", size, 1),
        checks.finite("alpha", alpha),
        checks.finite("beta", beta),
        checks.finite("k", k),
    )


@np.errstate(all="ignore")
def local_response_norm_forward(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """x / (k + alpha / size * sum of x ** 2 over `size` neighbouring channels) ** beta for x (N, C, *S).

    The window of channel c is c - size // 2 to c + (size - 1) // 2, as in torch.

    >>> local_response_norm_forward(np.array([[[3.0], [4.0]]]), 2, 2.0, 0.5, 0.0)
    array([[[1. ],
            [0.8]]])
    """
    x = checks.array("input", x)
    size, alpha, beta, k = _response_parameters(x, size, alpha, beta, k)
    x64 = checks.wide(x)
    base = k + alpha / size * _sum_over_channels(np.square(x64), size // 2, (size - 1) // 2)
    return checks.finish_like(x64 / base**beta, x)


@np.errstate(all="ignore")
def local_response_norm_backward(
    dy: np.ndarray, x: np.ndarray, size: int, alpha: float, beta: float, k: float
) -> np.ndarray:
    """Gradient of the input of `local_response_norm_forward`."""
    x = checks.array("input", x)
    dy = checks.array("grad_output", dy, (x.dtype,))
    size, alpha, beta, k = _response_parameters(x, size, alpha, beta, k)
    checks.same_shape("grad_output", dy, x.shape, "the shape of the output")
    x64, dy64 = checks.wide(x), checks.wide(dy)
    base = k + alpha / size * _sum_over_channels(np.square(x64), size // 2, (size - 1) // 2)
    # x[i] is in the windows of the channels that it has in its mirrored window.
    through_base = _sum_over_channels(dy64 * x64 * base ** (-beta - 1), (size - 1) // 2, size // 2)
    return checks.finish_like(dy64 * base**-beta - 2 * alpha * beta / size * x64 * through_base, x)
