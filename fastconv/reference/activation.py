"""Activations forward and backward: relu, hardtanh, leaky_relu, prelu, on arrays of any shape.

Sources: torch.nn.functional.relu, hardtanh, leaky_relu, prelu; ONNX Relu, Clip, LeakyRelu, PRelu; He et al., "Delving
Deep into Rectifiers" (arXiv:1502.01852).
"""

from __future__ import annotations

import numpy as np

from . import checks


def _pair(dy: object, name: str, x: object) -> tuple[np.ndarray, np.ndarray]:
    """The gradient and the array saved by the forward pass, of one dtype and shape."""
    saved = checks.array(name, x)
    gradient = checks.array("grad_output", dy, (saved.dtype,))
    checks.same_shape("grad_output", gradient, saved.shape, f"the shape of {name}")
    return gradient, saved


def relu_forward(x: np.ndarray, inplace: bool = False) -> np.ndarray:
    """max(x, 0), NaN for NaN; `inplace` writes to x and returns it.

    >>> relu_forward(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    array = checks.array("input", x)
    if not checks.flag("inplace", inplace):
        return np.maximum(array, array.dtype.type(0), out=np.empty_like(array))
    if not array.flags.writeable:
        raise ValueError("input is read-only: must be writable with inplace=True")
    np.maximum(array, array.dtype.type(0), out=array)
    return x


@np.errstate(all="ignore")
def relu_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy where the output y was positive or NaN, 0 elsewhere."""
    dy, y = _pair(dy, "output", y)
    dx = np.empty_like(y)
    dx[...] = np.where(y <= 0, dy.dtype.type(0), dy)
    return dx


def _limits(min_val: object, max_val: object, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The limits as the input's dtype holds them, in float64."""
    low, high = checks.real("min_val", min_val), checks.real("max_val", max_val)
    if low > high:
        raise ValueError(f"min_val is {low}: must not be larger than max_val, {high}")
    limits = checks.wide(checks.rounded(np.array([low, high]), dtype))
    return limits[0], limits[1]


def hardtanh_forward(x: np.ndarray, min_val: float, max_val: float) -> np.ndarray:
    """x cut off at `min_val` and `max_val`; relu6 with 0 and 6.

    >>> hardtanh_forward(np.array([-3.0, 0.5, 3.0]), -1.0, 1.0)
    array([-1. ,  0.5,  1. ])
    """
    x = checks.array("input", x)
    return checks.finish_like(np.clip(checks.wide(x), *_limits(min_val, max_val, x.dtype)), x)


def hardtanh_backward(dy: np.ndarray, x: np.ndarray, min_val: float, max_val: float) -> np.ndarray:
    """dy where x lies between the limits, 0 at them, outside them and where x is NaN."""
    dy, x = _pair(dy, "input", x)
    low, high = _limits(min_val, max_val, x.dtype)
    x64 = checks.wide(x)
    return checks.finish_like(np.where((low < x64) & (x64 < high), checks.wide(dy), 0.0), x)


@np.errstate(all="ignore")
def leaky_relu_forward(x: np.ndarray, negative_slope: float) -> np.ndarray:
    """x where positive, x * negative_slope elsewhere.

    >>> leaky_relu_forward(np.array([-1.0, 2.0]), 0.5)
    array([-0.5,  2. ])
    """
    x = checks.array("input", x)
    slope = checks.finite("negative_slope", negative_slope)
    x64 = checks.wide(x)
    return checks.finish_like(np.where(x64 > 0, x64, x64 * slope), x)


@np.errstate(all="ignore")
def leaky_relu_backward(dy: np.ndarray, x: np.ndarray, negative_slope: float) -> np.ndarray:
    """dy where x is positive, dy * negative_slope elsewhere."""
    dy, x = _pair(dy, "input", x)
    slope = checks.finite("negative_slope", negative_slope)
    return checks.finish_like(np.where(checks.wide(x) > 0, 1.0, slope) * checks.wide(dy), x)


def _slopes(x: np.ndarray, weight: object) -> tuple[np.ndarray, np.ndarray]:
    """The weight, and the weight in float64 to broadcast against x; dimension 1 of x holds the channels."""
    w = checks.array("weight", weight, (x.dtype,))
    checks.rank("weight", w, (0, 1))
    channels = x.shape[1] if x.ndim > 1 else 1
    if w.size not in (1, channels):
        raise ValueError(f"weight has {w.size} values: must have 1, or one for each of the {channels} channels")
    shape = (w.size, *(1,) * (x.ndim - 2)) if x.ndim > 1 else ()
    return w, checks.wide(w).reshape(shape)


@np.errstate(all="ignore")
def prelu_forward(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x where positive, x * weight elsewhere; weight of size 1, or (C,) for x (N, C, ...).

    >>> prelu_forward(np.array([[-1.0, -2.0]]), np.array([0.5, 0.25]))
    array([[-0.5, -0.5]])
    """
    x = checks.array("input", x)
    _, slopes = _slopes(x, weight)
    x64 = checks.wide(x)
    return checks.finish_like(np.where(x64 > 0, x64, x64 * slopes), x)


@np.errstate(all="ignore")
def prelu_backward(dy: np.ndarray, x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(dx, dweight) of `prelu_forward`."""
    dy, x = _pair(dy, "input", x)
    w, slopes = _slopes(x, weight)
    x64, dy64 = checks.wide(x), checks.wide(dy)
    shares = np.where(x64 > 0, 0.0, x64 * dy64)
    per_channel = tuple(axis for axis in range(x.ndim) if axis != 1) if w.size != 1 else None
    dw = np.asarray(shares.sum(axis=per_channel)).reshape(w.shape)
    return checks.finish_like(np.where(x64 > 0, dy64, dy64 * slopes), x), checks.rounded(dw, w.dtype)
