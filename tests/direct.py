"""Convolution as its definition says, in float64: the oracle of the convolution tests.

Independent of both backends: the sum over filter taps is a Python loop, the sum over channels an ``einsum``. Integer
data gives exact results. A `Conv` is a convolution of any rank with its padding resolved to (before, after) pairs.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from checks import integers, normal, shapes


@dataclass(frozen=True)
class Conv:
    """One convolution: x (N, C, *S), w (K, C // groups, *kernel)."""

    name: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @classmethod
    def of(cls, case: shapes.ConvCase) -> Conv:
        return cls(str(case), case.x_shape, case.w_shape, case.stride, case.padding, case.dilation, case.groups)

    @property
    def nd(self) -> int:
        return len(self.stride)

    @property
    def y_shape(self) -> tuple[int, ...]:
        sizes = zip(self.x_shape[2:], self.w_shape[2:], self.stride, self.padding, self.dilation, strict=True)
        space = ((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)
        return (self.x_shape[0], self.w_shape[0], *space)

    @property
    def terms(self) -> int:
        """Products in one element of y."""
        return int(np.prod(self.w_shape[1:]))

    @property
    def options(self) -> tuple[Any, ...]:
        """What the backend functions take after their arrays and shapes."""
        return self.stride, self.padding, self.dilation, self.groups, self.nd

    def __str__(self) -> str:
        return self.name

    def taps(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Each filter tap with the part of the padded input that it meets."""
        steps = list(zip(self.stride, self.dilation, self.y_shape[2:], strict=True))
        for tap in np.ndindex(*self.w_shape[2:]):
            yield tap, tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, (s, d, n) in zip(tap, steps, strict=True))

    def pad(self, x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, 0), *self.padding))

    def crop(self, padded: np.ndarray) -> np.ndarray:
        """The inverse of `pad`."""
        space = zip(self.padding, self.x_shape[2:], strict=True)
        return padded[(..., *(slice(before, before + n) for (before, _), n in space))]


def _grouped(a: np.ndarray, groups: int, axis: int) -> np.ndarray:
    """Split the channels of `axis` into (groups, channels of a group)."""
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])


def forward(c: Conv, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """y of a convolution."""
    xg, wg = _grouped(c.pad(x), c.groups, 1), _grouped(w, c.groups, 0)
    y = np.zeros((x.shape[0], c.groups, c.w_shape[0] // c.groups, *c.y_shape[2:]))
    for tap, window in c.taps():
        y += np.einsum("ngc...,gkc->ngk...", xg[(..., *window)], wg[(..., *tap)], optimize=True)
    y = y.reshape(x.shape[0], *c.y_shape[1:])
    return y if b is None else y + b.reshape(-1, *[1] * c.nd)


def backward_input(c: Conv, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """dx of a convolution, which is y of the transposed convolution."""
    dyg, wg = _grouped(dy, c.groups, 1), _grouped(w, c.groups, 0)
    padded = [n + sum(p) for n, p in zip(c.x_shape[2:], c.padding, strict=True)]
    dx = np.zeros((dy.shape[0], c.groups, c.w_shape[1], *padded))
    for tap, window in c.taps():
        dx[(..., *window)] += np.einsum("ngk...,gkc->ngc...", dyg, wg[(..., *tap)], optimize=True)
    return c.crop(dx.reshape(dy.shape[0], c.x_shape[1], *padded))


def backward_weight(c: Conv, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dw of a convolution."""
    xg, dyg = _grouped(c.pad(x), c.groups, 1), _grouped(dy, c.groups, 1)
    positions = int(np.prod(c.y_shape[2:]))
    rows = dyg.reshape(*dyg.shape[:3], positions)
    dw = np.empty((c.groups, c.w_shape[0] // c.groups, *c.w_shape[1:]))
    for tap, window in c.taps():
        met = xg[(..., *window)]
        dw[(..., *tap)] = np.einsum("ngkp,ngcp->gkc", rows, met.reshape(*met.shape[:3], positions), optimize=True)
    return dw.reshape(c.w_shape)


def backward_bias(dy: np.ndarray) -> np.ndarray:
    """db of a convolution."""
    return dy.sum(axis=(0, *range(2, dy.ndim)))


@dataclass(frozen=True)
class Data:
    """Arguments and results of a convolution and its gradients, all read-only; the results in float64."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    dy: np.ndarray
    y: np.ndarray
    dx: np.ndarray
    dw: np.ndarray
    db: np.ndarray


def _data(c: Conv, x: np.ndarray, w: np.ndarray, b: np.ndarray, dy: np.ndarray) -> Data:
    x64, w64, b64, dy64 = (a.astype(np.float64) for a in (x, w, b, dy))
    results = (
        forward(c, x64, w64, b64),
        backward_input(c, dy64, w64),
        backward_weight(c, dy64, x64),
        backward_bias(dy64),
    )
    for a in (x, w, b, dy, *results):
        a.flags.writeable = False
    return Data(x, w, b, dy, *results)


def _arguments(c: Conv, make: Any, dtype: Any) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(zlib.crc32(c.name.encode()))
    return tuple(make(rng, shape, dtype) for shape in (c.x_shape, c.w_shape, c.w_shape[:1], c.y_shape))


@functools.cache
def exact(c: Conv, dtype: Any) -> Data:
    """Integer-valued arguments; every dtype has the same ones."""
    if dtype != np.float64:
        data = exact(c, np.dtype(np.float64))
        converted = [a.astype(dtype) for a in (data.x, data.w, data.b, data.dy)]
        for a in converted:
            a.flags.writeable = False
        return Data(*converted, data.y, data.dx, data.dw, data.db)
    return _data(c, *_arguments(c, integers, dtype))


@functools.cache
def random(c: Conv, dtype: Any) -> tuple[Data, Data]:
    """Normally distributed arguments, and the results' magnitudes: the same sums over absolute values."""
    arguments = _arguments(c, normal, dtype)
    return _data(c, *arguments), _data(c, *(np.abs(a) for a in arguments))
