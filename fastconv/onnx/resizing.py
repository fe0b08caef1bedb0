"""Resize, Upsample, GridSample and AffineGrid."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv.devices import array_module
from fastconv.nn.functional.interpolation import Taps, along, cubic_kernel, transposed_taps
from fastconv.tensor import Tensor

from .node import Node, operator

_MODES = ("nearest", "linear", "cubic")
_ROUND: dict[str, Any] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


def _positions(how: str, n: int, m: int, scale: float, part: tuple[float, float]) -> np.ndarray:
    """Where the `m` outputs lie among the `n` inputs."""
    o = np.arange(m, dtype=np.float64)
    whole = n * scale if abs(n * scale - m) > 1e-6 else m  # what the last output is counted from, also between two
    if how == "asymmetric":
        return o / scale
    if how == "align_corners":
        return o * (n - 1) / (whole - 1) if m > 1 else np.zeros(m)
    if how == "pytorch_half_pixel" and m == 1:
        return np.zeros(m)
    if how == "tf_crop_and_resize":
        start, end = part
        if m > 1:
            return start * (n - 1) + o * (end - start) * (n - 1) / (whole - 1)
        return np.full(m, 0.5 * (start + end) * (n - 1))
    centers = (o + 0.5) / scale - 0.5
    if how == "half_pixel_symmetric":
        return centers + n / 2 * (1 - m / (scale * n))
    return centers


def _taps(node: Node, n: int, m: int, scale: float, part: tuple[float, float]) -> tuple[Taps, np.ndarray]:
    """How `m` outputs follow from `n` inputs, and which of them lie outside, where that has a value of its own."""
    mode = node.get("mode", "nearest")
    how = node.get("coordinate_transformation_mode", "half_pixel")
    at = _positions(how, n, m, scale, part)
    outside = (at < 0) | (at > n - 1) if how == "tf_crop_and_resize" else np.zeros(m, bool)
    if mode == "nearest":
        nearest = _ROUND[node.get("nearest_mode", "round_prefer_floor")](at).astype(np.int64)
        return Taps(np.clip(nearest, 0, n - 1)[:, None], np.ones((m, 1))), outside
    stretch = max(1 / scale, 1.0) if node.get("antialias", 0) else 1.0
    reach = math.ceil((2 if mode == "cubic" else 1) * stretch)
    sources = np.floor(at).astype(np.int64)[:, None] + np.arange(-reach + 1, reach + 1)
    distance = (sources - at[:, None]) / stretch
    if mode == "cubic":
        weights = cubic_kernel(distance, node.get("cubic_coeff_a", -0.75))
    else:
        weights = np.maximum(1 - np.abs(distance), 0)
    if node.get("exclude_outside", 0):
        weights = np.where((sources >= 0) & (sources < n), weights, 0)
    return Taps(np.clip(sources, 0, n - 1), weights / weights.sum(axis=1, keepdims=True)), outside


def _resized(x: Any, axis: int, taps: Taps) -> Any:
    n = x.shape[axis]
    back = functools.cache(lambda: transposed_taps(taps, n))
    kind = x.dtype if x.dtype.kind == "f" and x.dtype.itemsize > 2 else np.dtype(np.float32)
    y = along(x.data.astype(kind, copy=False), axis, taps).astype(x.dtype, copy=False)
    return Tensor._op(y, (x, lambda dy: along(dy.astype(kind, copy=False), axis, back()).astype(dy.dtype)))


def _resize_axes(node: Node, x: Any, roi: Any, scales: Any, sizes: Any, axes: list[int]) -> Any:
    shape = [x.shape[axis] for axis in axes]
    if sizes is not None and len(sizes):
        wanted = sizes.tolist()
        policy = node.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            common = (min if policy == "not_larger" else max)(m / n for m, n in zip(wanted, shape))
            wanted = [math.floor(common * n + 0.5) for n in shape]
            factors = [common] * len(axes)
        else:
            factors = [m / n for m, n in zip(wanted, shape)]
    else:
        factors = [float(s) for s in scales.tolist()]
        wanted = [math.floor(n * s) for n, s in zip(shape, factors)]
    if min(wanted, default=1) < 1 or 0 in shape:
        raise ValueError(f"{node}: sizes {shape} become {wanted}: all must be at least 1")
    count = len(axes)
    parts = [(0.0, 1.0)] * count if roi is None or not len(roi) else list(zip(roi.tolist(), roi.tolist()[count:]))
    outside_of = {}
    for axis, n, m, factor, part in zip(axes, shape, wanted, factors, parts):
        taps, outside = _taps(node, n, m, factor, part)
        if n != m or factor != 1 or part != (0.0, 1.0):
            x = _resized(x, axis, taps)
            outside_of[axis] = outside
    for axis, outside in outside_of.items():
        if outside.any():
            library = array_module(x.data)
            mask = library.asarray(outside).reshape(*(-1 if i == axis else 1 for i in range(x.ndim)))
            x = x.masked_fill(library.broadcast_to(mask, x.shape), node.get("extrapolation_value", 0.0))
    return x


@operator("Resize", numbers=(1, 2, 3))
def _resize(node: Node, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    if node.get("mode", "nearest") not in _MODES:
        raise NotImplementedError(f"{node}: mode {node.get('mode')!r} is not computed")
    if node.opset < 11:  # scales alone, positions as Upsample's
        scales = roi
        return _upsample(node, x, scales)
    axes = [axis % x.ndim for axis in node.get("axes", range(x.ndim))]
    return _resize_axes(node, x, roi, scales, sizes, axes)


@operator("Upsample", numbers=(1,))
def _upsample(node: Node, x: Any, scales: Any = None) -> Any:
    factors = np.array(node.get("scales")) if scales is None else scales
    fixed = {"mode": node.get("mode", "nearest"), "nearest_mode": "floor"}
    old = node._replace(attributes={**fixed, "coordinate_transformation_mode": "asymmetric"})
    return _resize_axes(old, x, None, factors, None, list(range(x.ndim)))


_SAMPLING = {"linear": "bilinear", "cubic": "bicubic"}  # before opset 20 they had torch's names


@operator("GridSample")
def _grid_sample(node: Node, x: Any, grid: Any) -> Any:
    mode = node.get("mode", "linear")
    mode = _SAMPLING.get(mode, mode)
    return F.grid_sample(x, grid, mode, node.get("padding_mode", "zeros"), bool(node.get("align_corners", 0)))


@operator("AffineGrid", numbers=(1,))
def _affine_grid(node: Node, theta: Any, size: Any) -> Any:
    return F.affine_grid(theta, size.tolist(), bool(node.get("align_corners", 0)))
