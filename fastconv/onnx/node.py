"""A node of a graph as the operators see it, and the two tables that they enter themselves in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv.nn.modules.arguments import is_floating
from fastconv.nn.modules.module import Module

__all__ = [
    "LAYERS",
    "OPERATORS",
    "Inputs",
    "Node",
    "constant",
    "floating_weight",
    "layer",
    "only_data",
    "operator",
    "owned",
]


class Node(NamedTuple):
    """What an ONNX node says, without the arrays that it works on."""

    op_type: str
    opset: int
    name: str
    attributes: dict[str, Any]
    outputs: int
    """How many outputs there are up to the last one that is used."""

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute's value; numbers, strings, lists of them, arrays."""
        return self.attributes.get(attribute, default)

    def numbers(self, attribute: str, given: np.ndarray | None) -> list[Any] | None:
        """Those that an input gives, or in the opsets before it was one the attribute; None without either."""
        return self.get(attribute) if given is None else given.reshape(-1).tolist()

    def __str__(self) -> str:
        return f"{self.op_type} {self.name!r}"


Function = Callable[..., Any]
"""``f(node, *inputs)``: Tensors in the order of ONNX, None where an optional one is left out."""


class Operator(NamedTuple):
    """How an operator is computed.

    `numbers` are the inputs that say how to compute (a shape, axes, scales): they reach `function` as NumPy arrays.
    """

    function: Function
    numbers: tuple[int, ...]


OPERATORS: dict[str, Operator] = {}
"""Every operator that can be computed, by its ONNX name."""

Inputs = Sequence[Any]
"""A node's inputs when it is read: an array for a constant, True for one that is computed, None for one left out."""

LAYERS: dict[str, Callable[[Node, Inputs], Module | None]] = {}
"""How nodes become layers of fastconv.nn, which are called with the computed inputs. None: these inputs make no layer,
the operator computes them."""


def operator(*names: str, numbers: tuple[int, ...] = ()) -> Callable[[Function], Function]:
    """Decorator: enter a function under these names of operators."""

    def enter(function: Function) -> Function:
        for name in names:
            OPERATORS[name] = Operator(function, numbers)
        return function

    return enter


def layer(name: str) -> Callable[[Any], Any]:
    """Decorator: enter a function that makes layers."""

    def enter(function: Any) -> Any:
        LAYERS[name] = function
        return function

    return enter


def only_data(inputs: Inputs) -> bool:
    """Whether the first input is computed and no other is."""
    return inputs[0] is True and not any(entry is True for entry in inputs[1:])


def owned(array: np.ndarray) -> np.ndarray:
    """`array` as a parameter may have it: contiguous, and not memory of the file."""
    return array if array.flags.c_contiguous and array.flags.writeable else np.array(array, order="C")


def floating_weight(inputs: Inputs) -> np.ndarray | None:
    """The second input where it is a constant with floating numbers and the first input is all that is computed."""
    weight = constant(inputs, 1)
    return weight if only_data(inputs) and weight is not None and is_floating(weight.dtype) else None


def constant(inputs: Inputs, i: int) -> np.ndarray | None:
    """Input `i` where it is a constant."""
    return inputs[i] if len(inputs) > i and isinstance(inputs[i], np.ndarray) else None
