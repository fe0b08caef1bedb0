"""RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import fastconv.nn.functional as F
from fastconv.devices import array_module
from fastconv.joining import cat, stack
from fastconv.tensor import Tensor

from .node import Node, operator

_USUAL = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}

Layer = Callable[..., tuple[Any, Sequence[Any]]]
"""One direction: ``f(x, states, w_input, w_state, b_input, b_state)`` gives all outputs and the last states."""


def _both_ways(node: Node, layer: Layer, gates: int, x: Any, w: Any, r: Any, b: Any, lengths: Any, states: Any) -> Any:
    """Run a layer in the directions that the node asks for; (Y, Y_h, Y_c) as far as they are used."""
    direction = node.get("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    usual = _USUAL[node.op_type] * count
    if tuple(node.get("activations", usual)) != usual or node.get("clip") is not None or node.get("input_forget"):
        raise NotImplementedError(f"{node}: only the usual activations are computed, without clip and input_forget")
    batch_first = bool(node.get("layout", 0))
    if batch_first:
        x = x.transpose(0, 1)
        states = [None if s is None else s.transpose(0, 1) for s in states]
    steps, batch = x.shape[:2]
    if lengths is not None and (lengths != steps).any():
        raise NotImplementedError(f"{node}: sequences of different lengths are not computed, got {lengths.tolist()}")
    hidden = r.shape[-1]
    outputs, ends = [], []
    for d in range(count):
        backwards = direction == "reverse" or d == 1
        zero = Tensor(array_module(x.data).zeros((batch, hidden), x.dtype))
        first = [zero if s is None else s[d] for s in states]
        half = gates * hidden
        biases = (None, None) if b is None else (b[d, :half], b[d, half:])
        y, last = layer(x.flip(0) if backwards else x, first, w[d], r[d], *biases)
        outputs.append(y.flip(0) if backwards else y)
        ends.append(last)
    y = stack(outputs, 1)
    finals = [stack(parts, 0) for parts in zip(*ends)]
    if batch_first:
        y = y.permute(2, 0, 1, 3)
        finals = [final.transpose(0, 1) for final in finals]
    return (y, *finals)[: node.outputs]


def _rows(array: Any, order: Sequence[int]) -> Any:
    """The gates of a weight or bias in another order."""
    if array is None:
        return None
    parts = array.split(array.shape[0] // len(order), 0)
    return cat([parts[i] for i in order], 0)


@operator("RNN", numbers=(4,))
def _rnn(node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None) -> Any:
    def layer(x: Any, states: Any, *weights: Any) -> Any:
        y = F.rnn(x, states[0], *weights)
        return y, [y[-1]]

    return _both_ways(node, layer, 1, x, w, r, b, lengths, [h])


@operator("LSTM", numbers=(4,))
def _lstm(
    node: Node,
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    lengths: Any = None,
    h: Any = None,
    c: Any = None,
    peepholes: Any = None,
) -> Any:
    if peepholes is not None:
        raise NotImplementedError(f"{node}: peephole connections are not computed")

    def layer(x: Any, states: Any, *weights: Any) -> Any:
        # ONNX has the gates in the order input, output, forget, cell; torch input, forget, cell, output.
        y, cells = F.lstm(x, *states, *(_rows(weight, (0, 2, 3, 1)) for weight in weights)).unbind()
        return y, [y[-1], cells[-1]]

    return _both_ways(node, layer, 4, x, w, r, b, lengths, [h, c])


@operator("GRU", numbers=(4,))
def _gru(node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None) -> Any:
    run = _gru_layer if node.get("linear_before_reset", 0) else _gru_layer_reset_first
    return _both_ways(node, run, 3, x, w, r, b, lengths, [h])


def _gru_layer(x: Any, states: Any, *weights: Any) -> Any:
    # ONNX has the gates in the order update, reset, new; torch reset, update, new.
    y = F.gru(x, states[0], *(_rows(weight, (1, 0, 2)) for weight in weights))
    return y, [y[-1]]


def _gru_layer_reset_first(x: Any, states: Any, w: Any, r: Any, b_input: Any, b_state: Any) -> Any:
    """Cho et al. 2014: the reset gate works on the state, not on its product with the weights."""
    bias = None if b_input is None else b_input + b_state
    from_input = F.linear(x, w, bias)
    update_and_reset, new = r.split([2 * (r.shape[0] // 3), r.shape[0] // 3], 0)
    h, outputs = states[0], []
    for t in range(x.shape[0]):
        parts = from_input[t]
        gates = F.sigmoid(parts[:, : len(update_and_reset)] + F.linear(h, update_and_reset))
        z, reset = gates.chunk(2, 1)
        n = F.tanh(parts[:, len(update_and_reset) :] + F.linear(reset * h, new))
        h = (1 - z) * n + z * h
        outputs.append(h)
    return stack(outputs, 0), [h]
