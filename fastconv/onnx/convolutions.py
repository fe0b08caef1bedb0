"""Conv, ConvTranspose, Gemm and MatMul."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv.nn as nn
from fastconv.nn.modules.conv import _CONV, _CONV_TRANSPOSE

from .node import Inputs, Node, constant, floating_weight, layer, operator, owned
from .windows import by_dimension, extents, halves, numbers_or_pairs, pads_of, same_pads


def _dimensions(node: Node, weight: Any) -> int:
    nd = weight.ndim - 2
    if nd not in _CONV:
        raise ValueError(f"{node}: the weight must have 3 to 5 dimensions, got shape {tuple(weight.shape)}")
    return nd


@operator("Conv")
def _conv(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    nd = _dimensions(node, weight)
    stride, dilation = by_dimension(node, "strides", nd), by_dimension(node, "dilations", nd)
    pads = pads_of(node, nd)
    if pads is None:
        pads = same_pads(x.shape[2:], weight.shape[2:], stride, dilation, lower=True)
    return _CONV[nd](x, weight, bias, stride, pads, dilation, node.get("group", 1))


def _given(layer: Any, weight: np.ndarray, bias: np.ndarray | None) -> Any:
    layer.weight.data = owned(weight)
    if bias is not None:
        layer.bias.data = owned(bias.reshape(-1))
    return layer


@layer("Conv")
def _conv_layer(node: Node, inputs: Inputs) -> Any:
    weight, bias = floating_weight(inputs), constant(inputs, 2)
    if weight is None or weight.ndim - 2 not in _CONV:
        return None
    nd, groups = weight.ndim - 2, node.get("group", 1)
    pads = pads_of(node, nd)
    if pads is None:
        return None
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[nd - 1]
    conv = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2:],
        by_dimension(node, "strides", nd),
        numbers_or_pairs(pads),
        by_dimension(node, "dilations", nd),
        groups,
        bias is not None,
        dtype=weight.dtype,
    )
    return _given(conv, weight, bias)


@operator("ConvTranspose")
def _conv_transpose(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    nd = _dimensions(node, weight)
    stride, dilation = by_dimension(node, "strides", nd), by_dimension(node, "dilations", nd)
    extra, auto = by_dimension(node, "output_padding", nd, 0), node.get("auto_pad", "NOTSET")
    sizes = node.get("output_shape")
    if sizes is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = [n * s for n, s in zip(x.shape[2:], stride)]
    if sizes is None:
        pads: Any = pads_of(node, nd)
    else:
        full = [
            s * (n - 1) + more + e
            for n, s, more, e in zip(x.shape[2:], stride, extra, extents(weight.shape[2:], dilation))
        ]
        cuts = [max(whole - wanted, 0) for whole, wanted in zip(full, sizes[-nd:])]
        pads = halves(cuts, auto != "SAME_UPPER")
        # What is larger than the windows reach has zeros at the end.
        extra = tuple(more + max(wanted - whole, 0) for more, wanted, whole in zip(extra, sizes[-nd:], full))
    return _CONV_TRANSPOSE[nd](x, weight, bias, stride, pads, extra, node.get("group", 1), dilation)


@layer("ConvTranspose")
def _conv_transpose_layer(node: Node, inputs: Inputs) -> Any:
    weight, bias = floating_weight(inputs), constant(inputs, 2)
    if weight is None or weight.ndim - 2 not in _CONV:
        return None
    nd, groups = weight.ndim - 2, node.get("group", 1)
    pads = numbers_or_pairs(pads_of(node, nd))
    if node.get("output_shape") or not isinstance(pads, tuple) or isinstance(pads[0], tuple):
        return None
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[nd - 1]
    conv = kind(
        weight.shape[0],
        weight.shape[1] * groups,
        weight.shape[2:],
        by_dimension(node, "strides", nd),
        pads,
        by_dimension(node, "output_padding", nd, 0),
        groups,
        bias is not None,
        by_dimension(node, "dilations", nd),
        dtype=weight.dtype,
    )
    return _given(conv, weight, bias)


def _turned(x: Any, turn: Any) -> Any:
    return x.transpose(0, 1) if turn else x


@operator("Gemm")
def _gemm(node: Node, a: Any, b: Any, c: Any = None) -> Any:
    y = _turned(a, node.get("transA")) @ _turned(b, node.get("transB"))
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    y = y if alpha == 1 else y * alpha
    if c is None:
        return y
    return y + (c if beta == 1 else c * beta)


@layer("Gemm")
def _gemm_layer(node: Node, inputs: Inputs) -> Any:
    weight, bias = floating_weight(inputs), constant(inputs, 2)
    scaled = node.get("alpha", 1.0) != 1 or node.get("beta", 1.0) != 1 or node.get("transA")
    if weight is None or weight.ndim != 2 or scaled:
        return None
    weight = weight if node.get("transB") else weight.T
    if bias is not None and (bias.ndim > 2 or bias.size != weight.shape[0] or bias.shape[-1:] != (bias.size,)):
        return None
    return _linear(weight, bias)


def _linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=weight.dtype)
    return _given(linear, weight, bias)


@operator("MatMul")
def _matmul(node: Node, a: Any, b: Any) -> Any:
    return a @ b


@layer("MatMul")
def _matmul_layer(node: Node, inputs: Inputs) -> Any:
    weight = floating_weight(inputs)
    return None if weight is None or weight.ndim != 2 else _linear(weight.T, None)
