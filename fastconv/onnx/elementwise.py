"""Operators of single elements: functions, activations, arithmetic, comparisons, logic."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.devices import array_module
from fastconv.models.residual import Add
from fastconv.tensor import Tensor

from .node import Inputs, Node, constant, layer, only_data, operator


def _enter(name: str, function: Callable[[Any], Any]) -> None:
    @operator(name)
    def apply(node: Node, x: Any) -> Any:
        return function(x)


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Abs": Tensor.abs,
    "Acos": Tensor.acos,
    "Acosh": Tensor.acosh,
    "Asin": Tensor.asin,
    "Asinh": Tensor.asinh,
    "Atan": Tensor.atan,
    "Atanh": Tensor.atanh,
    "Ceil": Tensor.ceil,
    "Cos": Tensor.cos,
    "Cosh": Tensor.cosh,
    "Erf": Tensor.erf,
    "Exp": Tensor.exp,
    "Floor": Tensor.floor,
    "HardSwish": F.hardswish,
    "IsNaN": Tensor.isnan,
    "Log": Tensor.log,
    "Mish": F.mish,
    "Neg": Tensor.neg,
    "Not": Tensor.logical_not,
    "Reciprocal": Tensor.reciprocal,
    "Round": Tensor.round,
    "Sigmoid": F.sigmoid,
    "Sign": Tensor.sign,
    "Sin": Tensor.sin,
    "Sinh": Tensor.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": Tensor.sqrt,
    "Tan": Tensor.tan,
    "Tanh": F.tanh,
}
for _name, _function in _FUNCTIONS.items():
    _enter(_name, _function)


# ---- activations -------------------------------------------------------------------------------------------------


@operator("Relu")
def _relu(node: Node, x: Any) -> Any:
    return F.relu(x) if x.dtype.kind not in "iu" else x.clamp(min=0)


@layer("Relu")
def _relu_layer(node: Node, inputs: Inputs) -> Any:
    return nn.ReLU()


@operator("LeakyRelu")
def _leaky_relu(node: Node, x: Any) -> Any:
    return F.leaky_relu(x, node.get("alpha", 0.01))


@layer("LeakyRelu")
def _leaky_relu_layer(node: Node, inputs: Inputs) -> Any:
    return nn.LeakyReLU(node.get("alpha", 0.01))


@operator("PRelu")
def _prelu(node: Node, x: Any, slope: Any) -> Any:
    if node.opset < 7 and slope.ndim == 1 and x.ndim > 1:  # one slope a channel
        slope = slope.reshape(-1, *(1,) * (x.ndim - 2))
    return x.clamp(min=0) + slope * x.clamp(max=0)


@operator("Elu")
def _elu(node: Node, x: Any) -> Any:
    return F.elu(x, node.get("alpha", 1.0))


@operator("Celu")
def _celu(node: Node, x: Any) -> Any:
    return F.celu(x, node.get("alpha", 1.0))


@operator("Selu")
def _selu(node: Node, x: Any) -> Any:
    alpha = node.get("alpha", 1.67326319217681884765625)
    gamma = node.get("gamma", 1.05070102214813232421875)
    return F.elu(x, alpha) * gamma


@operator("Gelu")
def _gelu(node: Node, x: Any) -> Any:
    return F.gelu(x, node.get("approximate", "none"))


@operator("Swish")
def _swish(node: Node, x: Any) -> Any:
    return x * F.sigmoid(x * node.get("alpha", 1.0))


@operator("HardSigmoid")
def _hard_sigmoid(node: Node, x: Any) -> Any:
    return (x * node.get("alpha", 0.2) + node.get("beta", 0.5)).clamp(0, 1)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node, x: Any) -> Any:
    return F.threshold(x, node.get("alpha", 1.0), 0.0)


@operator("Shrink")
def _shrink(node: Node, x: Any) -> Any:
    bias, limit = node.get("bias", 0.0), node.get("lambd", 0.5)
    outside = (x > limit) | (x < -limit)
    return (x - x.sign() * bias).masked_fill(~outside, 0)


@operator("Clip", numbers=(1, 2))
def _clip(node: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = _limits(node, low, high)
    return x if low is None and high is None else x.clamp(low, high)


def _limits(node: Node, low: Any, high: Any) -> tuple[Any, Any]:
    if node.opset < 11:
        return node.get("min"), node.get("max")
    return None if low is None else low.item(), None if high is None else high.item()


@layer("Clip")
def _clip_layer(node: Node, inputs: Inputs) -> Any:
    if not only_data(inputs):
        return None
    low, high = _limits(node, constant(inputs, 1), constant(inputs, 2))
    whole = not isinstance(low, float) and not isinstance(high, float)  # of integers
    if whole or (low is not None and high is not None and low > high):
        return None
    return nn.Hardtanh(-np.inf if low is None else low, np.inf if high is None else high)


def _along_axis(function: Any) -> Callable[[Node, Any], Any]:
    def apply(node: Node, x: Any) -> Any:
        if node.opset >= 13:
            return function(x, node.get("axis", -1))
        return function(x.flatten(node.get("axis", 1)), -1).reshape(x.shape)  # all dimensions from there on as one

    return apply


operator("Softmax")(_along_axis(F.softmax))
operator("LogSoftmax")(_along_axis(F.log_softmax))


def _hardmax(x: Any, dim: int) -> Any:
    classes = array_module(x.data).arange(x.shape[dim]).reshape(-1, *(1,) * (x.ndim - 1 - dim % x.ndim))
    return (x.argmax(dim, keepdim=True) == classes).astype(x.dtype)


operator("Hardmax")(_along_axis(_hardmax))


@operator("Dropout", numbers=(1, 2))
def _dropout(node: Node, x: Any, ratio: Any = None, training_mode: Any = None) -> Any:
    if training_mode is not None and training_mode.item():
        raise NotImplementedError(f"{node}: dropout with an input training_mode that is true is not computed")
    return x if node.outputs == 1 else (x, np.ones(x.shape, np.bool_))


@layer("Dropout")
def _dropout_layer(node: Node, inputs: Inputs) -> Any:
    if node.outputs > 1 or not only_data(inputs) or constant(inputs, 2) is not None:
        return None
    ratio = constant(inputs, 1)
    return nn.Dropout(node.get("ratio", 0.5) if ratio is None else ratio.item())


# ---- arithmetic --------------------------------------------------------------------------------------------------


def _placed(node: Node, x: Any, y: Any) -> Any:
    """`y` as opset 6 broadcasts it: its dimensions are those of `x` from the attribute ``axis`` on."""
    axis = node.get("axis")
    if node.opset >= 7 or axis is None:
        return y
    return y.reshape(*y.shape, *(1,) * (x.ndim - axis % x.ndim - y.ndim))


def _enter_pair(name: str, function: Callable[[Any, Any], Any]) -> None:
    @operator(name)
    def apply(node: Node, x: Any, y: Any) -> Any:
        return function(x, _placed(node, x, y))


def _divided(x: Any, y: Any) -> Any:
    return x / y if x.dtype.kind not in "iu" else x.div(y, rounding_mode="trunc").to(dtype=x.dtype)


_PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": Tensor.add,
    "And": Tensor.logical_and,
    "Div": _divided,
    "Equal": Tensor.eq,
    "Greater": Tensor.gt,
    "GreaterOrEqual": Tensor.ge,
    "Less": Tensor.lt,
    "LessOrEqual": Tensor.le,
    "Mul": Tensor.mul,
    "Or": Tensor.logical_or,
    "Pow": lambda x, y: x.pow(y).to(dtype=x.dtype),
    "Sub": Tensor.sub,
    "Xor": Tensor.logical_xor,
}
for _name, _pair in _PAIRS.items():
    _enter_pair(_name, _pair)


@layer("Add")
def _add_layer(node: Node, inputs: Inputs) -> Any:
    return Add() if all(entry is True for entry in inputs) and node.opset >= 7 else None


@layer("Sum")
def _sum_layer(node: Node, inputs: Inputs) -> Any:
    return Add() if len(inputs) == 2 and all(entry is True for entry in inputs) else None


@operator("Mod")
def _mod(node: Node, x: Any, y: Any) -> Any:
    return x.fmod(y) if node.get("fmod", 0) else x.remainder(y)


@operator("Sum")
def _sum(node: Node, *inputs: Any) -> Any:
    return functools.reduce(Tensor.add, inputs)


@operator("Mean")
def _mean(node: Node, *inputs: Any) -> Any:
    return functools.reduce(Tensor.add, inputs) / len(inputs)


@operator("Max")
def _max(node: Node, *inputs: Any) -> Any:
    return functools.reduce(Tensor.maximum, inputs)


@operator("Min")
def _min(node: Node, *inputs: Any) -> Any:
    return functools.reduce(Tensor.minimum, inputs)


@operator("Where")
def _where(node: Node, condition: Any, x: Any, y: Any) -> Any:
    return x.where(condition, y)


@operator("IsInf")
def _is_inf(node: Node, x: Any) -> Any:
    positive, negative = (x > 0) & bool(node.get("detect_positive", 1)), (x < 0) & bool(node.get("detect_negative", 1))
    return x.isinf() & (positive | negative)
