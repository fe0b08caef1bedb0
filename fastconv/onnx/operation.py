"""Operators that are no layers of fastconv.nn, as modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.devices import as_array, to_host
from fastconv.nn.modules.arguments import is_floating
from fastconv.nn.modules.calling import holds_tensor, plain
from fastconv.nn.modules.module import Module
from fastconv.tape import no_grad
from fastconv.tensor import Parameter, Tensor

from .node import OPERATORS, Inputs, Node, owned

__all__ = ["Operation"]


class Operation(Module):
    """One operator of an ONNX graph, with its constant inputs.

    Parameters
    ----------
    node : Node
    inputs : sequence
        In the order of ONNX: an array for a constant, True for one that the call brings, None for one left out.
    learned : set of int
        The constants that are parameters.
    """

    def __init__(self, node: Node, inputs: Inputs, learned: set[int]) -> None:
        super().__init__()
        self.node = node
        self.inputs: list[Any] = []  # an array on the host, None, True, or the name of a parameter or buffer
        numbers = OPERATORS[node.op_type].numbers
        for i, value in enumerate(inputs):
            if isinstance(value, np.ndarray) and is_floating(value.dtype) and i not in numbers:
                name = f"input{i}"
                if i in learned:
                    self.register_parameter(name, Parameter(owned(value)))
                else:
                    self.register_buffer(name, owned(value))
                value = name
            self.inputs.append(value)

    def forward(self, *inputs: Any) -> Any:
        """The operator's output, or a tuple of them; arrays in, arrays out."""
        function, numbers = OPERATORS[self.node.op_type]
        given = iter(inputs)
        arguments = []
        for i, value in enumerate(self.inputs):
            if value is True:
                value = next(given)
            elif isinstance(value, str):
                value = getattr(self, value)
            if value is not None:
                value = to_host(plain(value)) if i in numbers else _as_tensor(value)
            arguments.append(value)
        if holds_tensor(inputs):
            return function(self.node, *arguments)
        with no_grad():
            result = function(self.node, *arguments)
        return tuple(map(_as_array, result)) if isinstance(result, tuple) else _as_array(result)

    def channel_affine(self, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
        """A factor and a shift a channel that this operator is for inputs of `shape`, in float64; None for others.

        `fastconv.optimize` gives them to the layer before.
        """
        kind, constant = self.node.op_type, next((v for v in self.inputs if isinstance(v, str)), None)
        if kind not in ("Add", "Sub", "Mul", "Div") or constant is None or len(shape) < 2 or self.node.opset < 7:
            return None
        array = to_host(plain(getattr(self, constant)))
        full = (1,) * (len(shape) - array.ndim) + array.shape
        if len(full) > len(shape) or any(n != 1 for i, n in enumerate(full) if i != 1) or full[1] not in (1, shape[1]):
            return None
        values = np.broadcast_to(array.reshape(-1), shape[1:2]).astype(np.float64)
        ones, zeros = np.ones(shape[1]), np.zeros(shape[1])
        if kind == "Add":
            return ones, values
        if kind == "Mul":
            return values, zeros
        first = self.inputs[0] is True
        if kind == "Sub":
            return (ones, -values) if first else (-ones, values)
        return (1 / values, zeros) if first and values.all() else None

    def _get_name(self) -> str:
        return self.node.op_type


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor(value)


def _as_array(value: Any) -> Any:
    return None if value is None else as_array(plain(value))
