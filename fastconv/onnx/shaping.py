"""Operators that make, cut, join, move and copy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.devices import array_module
from fastconv.joining import cat
from fastconv.nn.modules.arguments import is_floating
from fastconv.nn.modules.calling import plain

from .node import Inputs, Node, layer, operator


def _dtype(number: int) -> np.dtype:
    from onnx import helper

    return _computed(np.dtype(helper.tensor_dtype_to_np_dtype(number)))


def _computed(dtype: np.dtype) -> np.dtype:
    if not (dtype.isbuiltin == 1 and dtype.kind in "biuf") and dtype.name != "bfloat16":
        raise NotImplementedError(f"arrays of {dtype.name} are not computed")
    return dtype


def _index(values: Any, beside: Any) -> Any:
    """Indices as an array where `beside` is."""
    return array_module(beside.data).asarray(plain(values))


# ---- constants ---------------------------------------------------------------------------------------------------


@operator("Constant")
def _constant(node: Node) -> Any:
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, value in node.attributes.items():
        if name == "value":
            return value
        if name in kinds:
            return np.array(value, kinds[name])
    raise NotImplementedError(f"{node}: only numbers are read, not {', '.join(node.attributes)}")


@operator("ConstantOfShape", numbers=(0,))
def _constant_of_shape(node: Node, shape: Any) -> Any:
    value = node.get("value", np.zeros(1, np.float32))
    return np.full(shape.tolist(), value.item(), value.dtype)


@operator("Range", numbers=(0, 1, 2))
def _range(node: Node, start: Any, limit: Any, delta: Any) -> Any:
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    return (start + np.arange(count).astype(start.dtype) * delta).astype(start.dtype)


@operator("EyeLike")
def _eye_like(node: Node, x: Any) -> Any:
    dtype = _dtype(node.get("dtype")) if node.get("dtype") is not None else x.dtype
    return array_module(x.data).eye(*x.shape, k=node.get("k", 0), dtype=dtype)


@operator("OneHot", numbers=(1, 2))
def _one_hot(node: Node, indices: Any, depth: Any, values: Any) -> Any:
    classes = int(depth.item())
    library = array_module(indices.data)
    places = indices.data[..., None] % classes == library.arange(classes)
    places &= ((indices.data >= -classes) & (indices.data < classes))[..., None]
    off, on = values.tolist()
    return library.moveaxis(library.where(places, on, off).astype(values.dtype), -1, node.get("axis", -1))


# ---- shapes ------------------------------------------------------------------------------------------------------


@operator("Shape")
def _shape(node: Node, x: Any) -> Any:
    return np.array(x.shape[node.get("start", 0) : node.get("end")], np.int64)


@operator("Size")
def _size(node: Node, x: Any) -> Any:
    return np.array(math.prod(x.shape), np.int64)


@operator("Reshape", numbers=(1,))
def _reshape(node: Node, x: Any, shape: Any) -> Any:
    sizes = shape.tolist()
    if not node.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(*sizes)


@operator("Flatten")
def _flatten(node: Node, x: Any) -> Any:
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze", numbers=(1,))
def _squeeze(node: Node, x: Any, axes: Any = None) -> Any:
    chosen = node.numbers("axes", axes)
    wrong = [axis for axis in chosen or () if x.shape[axis] != 1]
    if wrong:
        raise ValueError(f"{node}: axes {wrong} of shape {tuple(x.shape)} are not of size 1")
    return x.squeeze(None if chosen is None else tuple(chosen))


@operator("Unsqueeze", numbers=(1,))
def _unsqueeze(node: Node, x: Any, axes: Any = None) -> Any:
    chosen = node.numbers("axes", axes) or []
    rank = x.ndim + len(chosen)
    new = {axis % rank for axis in chosen}
    sizes = iter(x.shape)
    return x.reshape(*(1 if i in new else next(sizes) for i in range(rank)))


@operator("Transpose")
def _transpose(node: Node, x: Any) -> Any:
    return x.permute(*node.get("perm", range(x.ndim)[::-1]))


@operator("Expand", numbers=(1,))
def _expand(node: Node, x: Any, shape: Any) -> Any:
    return x.expand(*np.broadcast_shapes(x.shape, tuple(shape.tolist())))


@operator("Tile", numbers=(1,))
def _tile(node: Node, x: Any, repeats: Any) -> Any:
    return x.tile(*repeats.tolist())


@operator("Identity")
def _identity(node: Node, x: Any) -> Any:
    return x


@layer("Identity")
def _identity_layer(node: Node, inputs: Inputs) -> Any:
    return nn.Identity()


@operator("Cast")
def _cast(node: Node, x: Any) -> Any:
    return x.to(dtype=_dtype(node.get("to")))


@operator("CastLike")
def _cast_like(node: Node, x: Any, target: Any) -> Any:
    return x.to(dtype=_computed(target.dtype))


# ---- parts -------------------------------------------------------------------------------------------------------


@operator("Concat")
def _concat(node: Node, *inputs: Any) -> Any:
    return cat(inputs, node.get("axis"))


@operator("Split", numbers=(1,))
def _split(node: Node, x: Any, split: Any = None) -> Any:
    axis = node.get("axis", 0) % x.ndim
    sizes = node.numbers("split", split)
    if sizes is None:
        count = node.get("num_outputs", node.outputs)
        each = -(-x.shape[axis] // count)
        sizes = [min(each, max(x.shape[axis] - i * each, 0)) for i in range(count)]
    return tuple(x.split(list(sizes), axis))


@operator("Slice", numbers=(1, 2, 3, 4))
def _slice(node: Node, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    first, last = node.numbers("starts", starts) or [], node.numbers("ends", ends) or []
    chosen = node.numbers("axes", axes)
    strides = [1] * len(first) if steps is None else steps.tolist()
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(range(len(first)) if chosen is None else chosen, first, last, strides):
        # An end before the first element, in steps back, is no end for Python.
        before_all = step < 0 and end < -x.shape[axis]
        index[axis] = slice(start, None if before_all else end, step)
    return x[tuple(index)]


@operator("Gather")
def _gather(node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % x.ndim
    return x[(slice(None),) * axis + (_index(indices, x),)]


@operator("GatherElements")
def _gather_elements(node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % x.ndim
    return x.gather(axis, _index(indices, x) % x.shape[axis])


@operator("GatherND")
def _gather_nd(node: Node, x: Any, indices: Any) -> Any:
    index = _index(indices, x)
    batch = node.get("batch_dims", 0)
    places = np.moveaxis(index, -1, 0)
    library = array_module(x.data)
    rows = [
        library.arange(n).reshape(*(n if i == k else 1 for i in range(places.ndim - 1)))
        for k, n in enumerate(x.shape[:batch])
    ]
    return x[(*rows, *places)]


@operator("ScatterElements", "Scatter")
def _scatter_elements(node: Node, x: Any, indices: Any, updates: Any) -> Any:
    axis = node.get("axis", 0) % x.ndim
    index = _index(indices, x) % x.shape[axis]
    reduction = node.get("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, index, updates)
    if reduction == "add":
        return x.scatter_add(axis, index, updates)
    raise NotImplementedError(f"{node}: reduction {reduction!r} is not computed")


@operator("Trilu", numbers=(1,))
def _triangle(node: Node, x: Any, k: Any = None) -> Any:
    diagonal = 0 if k is None else int(k.item())
    return x.triu(diagonal) if node.get("upper", 1) else x.tril(diagonal)


# ---- borders and blocks ------------------------------------------------------------------------------------------


@operator("Pad", numbers=(1, 2, 3))
def _pad(node: Node, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    given = node.numbers("pads", pads) or []
    chosen = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    pairs = [(0, 0)] * x.ndim
    for axis, before, after in zip(chosen, given, given[len(chosen) :]):
        pairs[axis] = before, after
    mode = node.get("mode", "constant")
    if mode == "constant":
        filling = node.get("value", 0.0) if value is None else value.item()
        return _with_border(x, pairs, filling)
    if mode not in ("reflect", "edge", "wrap"):
        raise NotImplementedError(f"{node}: mode {mode!r} is not computed")
    for axis, (before, after) in enumerate(pairs):
        n = x.shape[axis]
        x = x.index_select(axis, _index(_copied(n, before, after, mode), x)) if before or after else x
    return x


def _copied(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """Which of `n` elements stands where, after padding; negative numbers cut off."""
    places = np.pad(np.arange(n), (max(before, 0), max(after, 0)), mode)  # type: ignore[call-overload]
    return places[max(-before, 0) : len(places) - max(-after, 0)]


def _with_border(x: Any, pairs: Sequence[tuple[int, int]], value: Any) -> Any:
    wide = [n for pair in reversed(pairs) for n in pair]
    if is_floating(x.dtype):
        return F.pad(x, wide, value=value)
    inner = x.data[tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, pairs))]
    return array_module(inner).pad(inner, [(max(b, 0), max(a, 0)) for b, a in pairs], constant_values=value)


@operator("CenterCropPad", numbers=(1,))
def _center_crop_pad(node: Node, x: Any, shape: Any) -> Any:
    axes = node.get("axes", range(x.ndim))
    pairs = [(0, 0)] * x.ndim
    for axis, wanted in zip(axes, shape.tolist()):
        missing = wanted - x.shape[axis]
        cut = -missing
        pairs[axis] = (missing // 2, missing - missing // 2) if missing > 0 else (-(cut // 2), cut // 2 - cut)
    return _with_border(x, pairs, 0)


@operator("DepthToSpace")
def _depth_to_space(node: Node, x: Any) -> Any:
    block = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


@operator("SpaceToDepth")
def _space_to_depth(node: Node, x: Any) -> Any:
    block = node.get("blocksize")
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block)
    parts = parts.permute(0, 1, 3, 5, 2, 4) if node.get("mode", "DCR") == "CRD" else parts.permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


@operator("Col2Im", numbers=(1, 2))
def _columns_to_image(node: Node, x: Any, image_shape: Any, block_shape: Any) -> Any:
    if len(image_shape) != 2:
        raise NotImplementedError(f"{node}: only images of two dimensions are computed, got {len(image_shape)}")
    pads = node.get("pads", [0] * 4)
    full = [n + before + after for n, before, after in zip(image_shape.tolist(), pads, pads[2:])]
    options = (node.get("dilations", (1, 1)), 0, node.get("strides", (1, 1)))
    y = F.fold(x, full, block_shape.tolist(), *options)
    return y[..., pads[0] : full[0] - pads[2], pads[1] : full[1] - pads[3]]
