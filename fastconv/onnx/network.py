"""ONNX graphs as modules: reading, and running node by node."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.nn.init import skip_init
from fastconv.nn.modules.arguments import is_floating
from fastconv.nn.modules.module import Module

from .node import LAYERS, OPERATORS, Node
from .operation import Operation

__all__ = ["OnnxNetwork", "load"]

_SINCE = dict.fromkeys(("GlobalLpPool", "LpPool", "Pad", "Split"), 2)
_SINCE |= {"Concat": 4, "Reshape": 5, "Cast": 6, "Tile": 6, "Upsample": 7}
"""The first opset in which an operator was as it is read here, where that is not the first of all."""


class OnnxNetwork(Module):
    """A network that `load` has read, in evaluation mode.

    Its children are the graph's nodes in their order, named after them: layers of fastconv.nn where there are such, and
    an `Operation` elsewhere. Weights are Parameters, under the children's names in ``state_dict``.

    Attributes
    ----------
    input_names, output_names : tuple of str
        What the graph calls its inputs, in the order in which they are passed, and its outputs.
    input_shapes : tuple of tuples
        The shapes of the inputs as the file has them: an int, or a string or None for a size that is free.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> from onnx import TensorProto, helper
    >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="act")], "tiny", [x], [y])
    >>> net = fc.onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    >>> net
    OnnxNetwork(
      (act): ReLU()
    )
    >>> net.input_names, net.input_shapes
    (('x',), (('n', 3),))
    """

    def __init__(
        self,
        inputs: Mapping[str, tuple[int | str | None, ...]],
        outputs: Sequence[str],
        steps: Sequence[tuple[str, Module, tuple[str, ...], tuple[str, ...]]],
        constants: Mapping[str, np.ndarray],
    ) -> None:
        super().__init__()
        self.input_names = tuple(inputs)
        self.input_shapes = tuple(inputs.values())
        self.output_names = tuple(outputs)
        self._calls = [(name, entries, results) for name, _, entries, results in steps]
        self._last_use = _last_uses(self._calls, self.output_names)
        self._constants = {name: constants[name] for name in outputs if name in constants}
        for name, module, _, _ in steps:
            self.add_module(name, module)
        self.eval()

    def forward(self, *inputs: Any) -> Any:
        """The graph's output, or a tuple of them where it has several."""
        if len(inputs) != len(self.input_names):
            names = ", ".join(self.input_names)
            raise TypeError(f"this network takes {len(self.input_names)} inputs ({names}), got {len(inputs)}")
        values: dict[str, Any] = dict(zip(self.input_names, inputs))
        values.update(self._constants)
        for (name, entries, results), finished in zip(self._calls, self._last_use):
            output = _call(self._modules[name], name, [values[entry] for entry in entries])
            values.update(_named(results, output))
            for entry in finished:
                del values[entry]  # its memory serves the next layers
        outputs = tuple(values[name] for name in self.output_names)
        return outputs[0] if len(outputs) == 1 else outputs


def _call(module: Module, name: str, inputs: Sequence[Any]) -> Any:
    """What a node makes of `inputs`; errors say where they arose."""
    try:
        return module(*inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(getattr(x, "shape", ()))) for x in inputs)
        if isinstance(error, (IndexError, ZeroDivisionError)) and not isinstance(error, ValueError):
            raise ValueError(f"node {name!r} cannot be computed from inputs of shape {shapes}: {error}") from error
        error.add_note(f"in node {name!r}, with inputs of shape {shapes}")
        raise


def _named(results: Sequence[str], output: Any) -> Iterator[tuple[str, Any]]:
    outputs = output if isinstance(output, tuple) else (output,)
    return ((name, value) for name, value in zip(results, outputs, strict=True) if name)


def _last_uses(
    calls: Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]], outputs: Sequence[str]
) -> list[tuple[str, ...]]:
    """For each call the values that nothing needs after it."""
    seen, finished = set(outputs), []
    for _, entries, results in reversed(calls):
        ended = dict.fromkeys(name for name in (*entries, *results) if name and name not in seen)
        seen.update(ended)
        finished.append(tuple(ended))
    return finished[::-1]


def load(source: str | os.PathLike[str] | bytes | Any) -> OnnxNetwork:
    """Read a network from an ONNX file.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        Weights may lie in files of their own beside it.

    Returns
    -------
    OnnxNetwork
        A Module in evaluation mode. What depends on constants alone has been computed.

    Raises
    ------
    ImportError
        The package onnx is not installed.
    FileNotFoundError
        There is no such file.
    ValueError
        No ONNX file, or a graph that breaks ONNX's rules.
    NotImplementedError
        Operators that `operator_names` does not list; the message names all of them. Some forms of others, which the
        message names: among them 4- and 8-bit numbers, dropout in training mode, peepholes of LSTM.

    Notes
    -----
    ONNX operator specifications. What the ONNX project's own tests hold these operators to is tested here, too, and its
    nine networks (AlexNet to ShuffleNet). Weights of convolutions, matrix products and normalisations, and other
    initialisers with dimensions, become Parameters, so that a network can be trained further; dropout works again in
    training mode. Quantised and random operators, If, Loop and Scan are not read.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> from onnx import TensorProto, helper
    >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="act")], "tiny", [x], [y])
    >>> net = fc.onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    >>> net(np.array([[-1, 0, 2]], np.float32))
    array([[0., 0., 2.]], dtype=float32)
    """
    model = _checked_model(source)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    opset = opsets.get("ai.onnx", 1)
    graph = model.graph
    _require_known(graph.node, opset)
    if graph.sparse_initializer:
        raise NotImplementedError("sparse initializers are not read")
    return _network(graph, opset)


def _checked_model(source: Any) -> Any:
    try:
        import onnx
        import onnx.inliner
        from google.protobuf.message import DecodeError
    except ImportError:
        raise ImportError('reading ONNX files needs the package onnx: pip install "fastconv[onnx]"') from None
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {str(path)!r}")
        name = repr(str(path))
    else:
        path, name = None, "source"
    try:
        if path is not None:
            model = onnx.load(path)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            model = onnx.load_model_from_string(bytes(source))
        elif isinstance(source, onnx.ModelProto):
            model = source
        else:
            raise TypeError(f"source must be a path, bytes or an onnx.ModelProto, got {type(source).__name__}")
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        onnx.checker.check_model(path if path is not None and not model.functions else model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{name} is no valid ONNX model: {error}") from error
    return model


def _require_known(nodes: Sequence[Any], opset: int) -> None:
    """NotImplementedError that names all operators of other domains or without an implementation."""
    for node in nodes:
        if opset < _SINCE.get(node.op_type, 1):
            since = _SINCE[node.op_type]
            raise NotImplementedError(f"{node.op_type} of opset {opset} is not read: opset {since} and later are")
    unknown: dict[str, str] = {}
    for node in nodes:
        foreign = node.domain not in ("", "ai.onnx")
        if foreign or node.op_type not in OPERATORS:
            kind = f"{node.domain}.{node.op_type}" if foreign else node.op_type
            unknown.setdefault(kind, node.name or (node.output[0] if node.output else ""))
    if unknown:
        listed = ", ".join(f"{kind} (first at {name!r})" for kind, name in sorted(unknown.items()))
        raise NotImplementedError(f"fastconv does not have the operators {listed}")


def _network(graph: Any, opset: int) -> OnnxNetwork:
    from onnx import numpy_helper

    constants: dict[str, np.ndarray] = {}
    weights: set[str] = set()  # initialisers, which a network learns; what Constant nodes hold is no weight
    for entry in graph.initializer:
        constants[entry.name] = numpy_helper.to_array(entry)
        if is_floating(constants[entry.name].dtype) and constants[entry.name].ndim:
            weights.add(entry.name)
    inputs = {entry.name: _shape_of(entry) for entry in graph.input if entry.name not in constants}
    names = _child_names(graph.node)
    uses = Counter(entry for proto in graph.node for entry in proto.input)
    used = {*uses, *(entry.name for entry in graph.output)} - {""}
    steps = []

    def value_of(entry: str) -> Any:
        value = constants.get(entry, True) if entry else None
        # Parameters of two nodes share no memory.
        return value.copy() if isinstance(value, np.ndarray) and uses[entry] > 1 else value

    with skip_init():  # the file has the weights
        for proto, name in zip(graph.node, names):
            entries, results = tuple(proto.input), _without_unused(proto.output, used)
            node = Node(proto.op_type, opset, name, _attributes(proto), len(results))
            given = [value_of(entry) for entry in entries]
            if not any(value is True for value in given):
                constants.update(_named(results, _call(Operation(node, given, set()), name, ())))
                if not weights.isdisjoint(entries):
                    weights.update(results)  # a weight in another form is one
                continue
            module = LAYERS[node.op_type](node, given) if node.op_type in LAYERS else None
            if module is None:
                module = Operation(node, given, {i for i, entry in enumerate(entries) if entry in weights})
            computed = tuple(entry for entry, value in zip(entries, given) if value is True)
            steps.append((name, module, computed, results))
    return OnnxNetwork(inputs, [entry.name for entry in graph.output], steps, constants)


def _shape_of(entry: Any) -> tuple[int | str | None, ...]:
    sizes = entry.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in sizes)


def _without_unused(names: Sequence[str], used: Container[str]) -> tuple[str, ...]:
    """The outputs up to the last one that is used, but the first in any case."""
    count = max((i for i, name in enumerate(names, 1) if name in used), default=1)
    return tuple(names[:count])


def _attributes(proto: Any) -> dict[str, Any]:
    from onnx import TensorProto, helper, numpy_helper

    found = {}
    for attribute in proto.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, TensorProto):
            value = numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, list):
            value = [entry.decode() if isinstance(entry, bytes) else entry for entry in value]
        found[attribute.name] = value
    return found


def _child_names(nodes: Sequence[Any]) -> list[str]:
    """A name for each node that can be an attribute: its own, or its first output's, without dots."""
    taken = {*dir(OnnxNetwork), "training", "input_names", "input_shapes", "output_names"}
    names = []
    for node in nodes:
        base = re.sub(r"\W+", "_", node.name or (node.output[0] if node.output else "")).strip("_") or node.op_type
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        names.append(name)
    return names
