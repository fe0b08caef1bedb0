"""float64 twins, forward only, of the operators that are array code on every backend: what tests compare them with.

They take arrays that are already known to be right (`fastconv.nn.functional` checks its arguments) and return float64.
Sources: the functions of the same names in torch.nn.functional.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .checks import wide


@np.errstate(all="ignore")
def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), by way of tanh, which never overflows.

    >>> sigmoid(np.array([-1000.0, 0.0]))
    array([0. , 0.5])
    """
    return 0.5 * (1 + np.tanh(0.5 * wide(x)))


def tanh(x: np.ndarray) -> np.ndarray:
    """Hyperbolic tangent."""
    return np.tanh(wide(x))


@np.errstate(all="ignore")
def softplus(x: np.ndarray, beta: float = 1, threshold: float = 20) -> np.ndarray:
    """log(1 + exp(beta * x)) / beta, and x where beta * x exceeds the threshold."""
    scaled = beta * wide(x)
    return np.where(scaled > threshold, wide(x), np.logaddexp(0, scaled) / beta)


@np.errstate(all="ignore")
def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """x - log(sum of exp(x)) along an axis."""
    shifted = wide(x) - wide(x).max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """exp(x) / sum of exp(x) along an axis.

    >>> softmax(np.array([0.0, 0.0]), 0)
    array([0.5, 0.5])
    """
    return np.exp(log_softmax(x, axis))


def bilinear(x1: np.ndarray, x2: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """y[..., k] = x1[..., i] w[k, i, j] x2[..., j] + b[k]."""
    y = np.einsum("...i,kij,...j->...k", wide(x1), wide(w), wide(x2))
    return y if b is None else y + wide(b)


def dropout(x: np.ndarray, mask: np.ndarray, p: float) -> np.ndarray:
    """x times the mask of kept values, scaled by 1 / (1 - p) (dropout2d: a mask (N, C, 1, 1))."""
    return wide(x) * mask / (1 - p) if p < 1 else np.zeros(x.shape)


def pad(x: np.ndarray, widths: Sequence[int], mode: str = "constant", value: float = 0) -> np.ndarray:
    """Pad the last dimensions, the last one first; negative widths cut off.

    >>> pad(np.array([1.0, 2.0, 3.0]), (2, -1), "reflect")
    array([3., 2., 1., 2.])
    """
    pairs = list(zip(widths[::2], widths[1::2]))[::-1]
    pairs = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    grown = [(max(before, 0), max(after, 0)) for before, after in pairs]
    cut = tuple(slice(max(-before, 0), n - max(-after, 0)) for (before, after), n in zip(pairs, x.shape))
    if mode == "circular":  # what is cut off does not come round
        return np.pad(wide(x)[cut], grown, mode="wrap")
    if mode == "constant":
        return np.pad(wide(x)[cut], grown, mode="constant", constant_values=value)
    y = np.pad(wide(x), grown, mode="reflect" if mode == "reflect" else "edge")
    return y[tuple(slice(max(-before, 0), n - max(-after, 0)) for (before, after), n in zip(pairs, y.shape))]


def unfold(
    x: np.ndarray,
    kernel: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    stride: tuple[int, int] = (1, 1),
) -> np.ndarray:
    """The windows of x (N, C, H, W) as columns (N, C * kernel, windows)."""
    padded = np.pad(wide(x), ((0, 0), (0, 0), *((p, p) for p in padding)))
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    windows = sliding_window_view(padded, extent, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    n, c, rows, columns = windows.shape[:4]
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * kernel[0] * kernel[1], rows * columns)
