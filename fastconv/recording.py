"""A recorded forward pass, from which `optimize` reads what layers may do of each other's work."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from .nn.modules.arguments import is_floating
from .nn.modules.calling import convert_leaves, plain
from .nn.modules.module import Module
from .tape import enable_grad, keep_values, parents_of, topological_order
from .tensor import Tensor

__all__ = ["Call", "Example", "Recording", "leaves"]

Example = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a forward."""


class Call(NamedTuple):
    """A call of a layer: its first input, its output."""

    layer: Module
    entry: Tensor
    output: Tensor


class Recording:
    """A recorded forward pass: the calls of layers without hooks in their order, who reads what, who does whose work.

    Attributes
    ----------
    calls : list of Call
        Those that the outputs depend on.
    outputs : list of Tensor
        Of the whole pass.
    arrays : list of array
        All that the pass gave, also without the tape.
    values : list of Tensor
        All that the outputs were computed from.
    worker : dict
        By the id of layers whose work goes to another layer: that layer.
    """

    def __init__(self, model: Module, example: Example, barred: set[str]) -> None:
        self.calls: list[Call] = []
        self._shown: list[int] = []  # values that hooks of containers see
        handles = []
        for name, module in model.named_modules():
            if module._modules:
                if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
                    handles.append(module.register_forward_hook(self._show, prepend=True))
            elif _is_plain(module) and name not in barred:
                handles.append(module.register_forward_hook(self._note))
        frozen = [p for p in model.parameters() if not p.requires_grad and is_floating(p.data.dtype)]
        try:
            for parameter in frozen:  # integers record nothing: what is computed of them does by its parameters
                parameter.requires_grad = True
            args, kwargs = convert_leaves(_recorded, example)
            with enable_grad(), keep_values() as self._values:
                result = model(*args, **kwargs)
        except ValueError as error:
            error.add_note("in the pass that optimize records")
            raise
        finally:
            for parameter in frozen:
                parameter.requires_grad = False
            for handle in handles:
                handle.remove()
        self.outputs = leaves(result, Tensor)
        self.arrays = [plain(leaf) for leaf in leaves(result, (Tensor, np.ndarray))]
        self.values = self._behind_outputs()
        self._readers = Counter(id(parent) for tensor in self.values for parent in self.parents(tensor))
        self._readers.update(id(output) for output in self.outputs)
        self._readers.update(self._shown)
        self._times = Counter(id(call.layer) for call in self.calls)
        used = {id(value) for value in self.values}
        self.calls = [call for call in self.calls if id(call.output) in used]
        self._made_by = {id(call.output): call.layer for call in self.calls}
        self.worker: dict[int, Module] = {}

    def _note(self, layer: Module, arguments: tuple[Any, ...], output: Any) -> None:
        if arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
            self.calls.append(Call(layer, arguments[0], output))

    def _show(self, module: Module, arguments: tuple[Any, ...], output: Any) -> None:
        self._shown += [id(value) for value in leaves((arguments, output), Tensor)]

    def _behind_outputs(self) -> list[Tensor]:
        vertices = {id(v): v for output in self.outputs for v in topological_order(output)}
        return [v if isinstance(v, Tensor) else self._values[id(v)] for v in vertices.values()]

    def parents(self, tensor: Tensor) -> list[Tensor]:
        """What `tensor` was computed from."""
        vertices = [] if tensor._node is None else parents_of(tensor._node)
        return [v if isinstance(v, Tensor) else self._values[id(v)] for v in vertices]

    def once(self, layer: Module) -> bool:
        """Whether `layer` is called once."""
        return self._times[id(layer)] == 1

    def add_operator(self, stand_in: Module, output: Tensor) -> None:
        """Take `stand_in` for the layer that made `output`, which an operator did."""
        self._made_by[id(output)] = stand_in
        self._times[id(stand_in)] = 1

    def made_by_a_layer(self, value: Tensor) -> bool:
        """Whether `value` is the output of a layer."""
        return id(value) in self._made_by

    def maker(self, value: Tensor) -> Any:
        """The layer whose only call made `value` for one reader alone, or the one that does its work; None: no such."""
        layer = self._made_by.get(id(value))
        if layer is None or not self.once(layer) or self._readers[id(value)] != 1:
            return None
        return self.worker.get(id(layer), layer)


def _is_plain(layer: Module) -> bool:
    """Whether `layer` computes what its class in this package does, and nobody looks."""
    return not (layer._users_forward or layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)


def _recorded(value: Any) -> Any:
    return Tensor(value, requires_grad=is_floating(value.dtype)) if isinstance(value, np.ndarray) else value


def leaves(value: Any, kind: Any) -> list[Any]:
    found: list[Any] = []
    convert_leaves(lambda leaf: found.append(leaf) if isinstance(leaf, kind) else None, value)
    return found
