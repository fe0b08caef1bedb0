"""Batch, instance, group, layer, root-mean-square and local response normalisation, and norms of vectors."""

from __future__ import annotations

from typing import Any

import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.nn.modules.normalization import BatchNorm

from .node import Inputs, Node, constant, layer, only_data, operator


class BatchNormalization(BatchNorm):
    """Batch normalisation of any number of dimensions: the graph does not say how many there are."""

    _ranks = tuple(range(2, 9))


@operator("BatchNormalization")
def _batch_norm(node: Node, x: Any, scale: Any, shift: Any, mean: Any, var: Any) -> Any:
    eps, training = node.get("epsilon", 1e-5), node.opset >= 14 and node.get("training_mode", 0)
    if node.get("spatial", 1) != 1:
        raise NotImplementedError(f"{node}: spatial = 0 is not computed")
    if not training:
        return F.batch_norm(x, mean, var, scale, shift, False, 0.0, eps)
    axes = tuple(i for i in range(x.ndim) if i != 1)
    y = F.batch_norm(x, None, None, scale, shift, True, 0.0, eps)
    kept = node.get("momentum", 0.9)
    # ONNX keeps the variance of the batch itself, torch that of what it was drawn from.
    moments = (x.mean(axes), mean), (x.var(axes, correction=0), var)
    return (y, *(old * kept + new * (1 - kept) for new, old in moments))[: node.outputs]


@layer("BatchNormalization")
def _batch_norm_layer(node: Node, inputs: Inputs) -> Any:
    arrays = [array for i in range(1, 5) if (array := constant(inputs, i)) is not None]
    training = node.opset >= 14 and node.get("training_mode", 0)
    if not only_data(inputs) or len(arrays) < 4 or training or node.get("spatial", 1) != 1:
        return None
    scale = arrays[0]
    norm = BatchNormalization(len(scale), node.get("epsilon", 1e-5), 1 - node.get("momentum", 0.9), dtype=scale.dtype)
    for target, values in zip((norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var), arrays):
        target[...] = values
    return norm


@operator("InstanceNormalization")
def _instance_norm(node: Node, x: Any, scale: Any, shift: Any) -> Any:
    return F.instance_norm(x, None, None, scale, shift, eps=node.get("epsilon", 1e-5))


@operator("GroupNormalization")
def _group_norm(node: Node, x: Any, scale: Any, shift: Any) -> Any:
    groups = node.get("num_groups")
    if node.opset < 21:  # one scale a group
        repeats = x.shape[1] // groups
        scale, shift = (p.repeat_interleave(repeats) for p in (scale, shift))
    return F.group_norm(x, groups, scale, shift, node.get("epsilon", 1e-5))


@operator("LayerNormalization")
def _layer_norm(node: Node, x: Any, scale: Any, shift: Any = None) -> Any:
    axis = node.get("axis", -1) % x.ndim
    eps = node.get("epsilon", 1e-5)
    y = F.layer_norm(x, x.shape[axis:], scale, shift, eps)
    if node.outputs == 1:
        return y
    axes = tuple(range(axis, x.ndim))
    spread = (x.var(axes, keepdim=True, correction=0) + eps) ** -0.5
    return (y, x.mean(axes, keepdim=True), spread)[: node.outputs]


@operator("RMSNormalization")
def _rms_norm(node: Node, x: Any, scale: Any) -> Any:
    axis = node.get("axis", -1) % x.ndim
    return F.rms_norm(x, x.shape[axis:], None, node.get("epsilon", 1e-5)) * scale


@operator("LRN")
def _local_response_norm(node: Node, x: Any) -> Any:
    size = node.get("size")
    options = (size, node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0))
    if size % 2:
        return F.local_response_norm(x, *options)
    # Of an even number of channels ONNX takes the odd one behind, torch the one before.
    return F.local_response_norm(x.flip(1), *options).flip(1)


@layer("LRN")
def _local_response_norm_layer(node: Node, inputs: Inputs) -> Any:
    size = node.get("size")
    if not size % 2:
        return None
    return nn.LocalResponseNorm(size, node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0))


@operator("LpNormalization")
def _lp_normalization(node: Node, x: Any) -> Any:
    size = x.norm(node.get("p", 2), node.get("axis", -1), keepdim=True)
    return x / size.masked_fill(size.eq(0), 1.0)


@operator("MeanVarianceNormalization")
def _mean_variance_normalization(node: Node, x: Any) -> Any:
    axes = tuple(axis % x.ndim for axis in node.get("axes", (0, 2, 3)))
    spread = x.var(axes, keepdim=True, correction=0).sqrt() + 1e-9
    return (x - x.mean(axes, keepdim=True)) / spread
