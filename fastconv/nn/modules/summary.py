"""The table that Module.summary returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.devices import device_of, to_device
from fastconv.nn.modules.arguments import floating_dtype, input_shapes
from fastconv.nn.modules.calling import evaluation_mode
from fastconv.tape import no_grad

if TYPE_CHECKING:
    from fastconv.nn.modules.module import Module

__all__ = ["Summary", "SummaryRow", "summarize"]


@dataclass(frozen=True)
class SummaryRow:
    """One call of one layer.

    Its dotted name, its class, the output's shape (None: never called), its parameters, its multiply-accumulates.
    """

    name: str
    layer: str
    output_shape: tuple[int, ...] | None
    parameters: int
    macs: int = 0

    @property
    def title(self) -> str:
        """Name and class as the table shows them."""
        return f"{self.name} ({self.layer})" if self.name else self.layer


@dataclass(frozen=True)
class Summary:
    """Layers of a module in the order of their calls; ``print`` shows a table.

    Attributes
    ----------
    rows : tuple of SummaryRow
        One per call of a layer; a layer that is called again counts no parameters the second time.
    parameters, trainable : int
        Elements of all parameters, and of those that require gradients; shared parameters count once.
    macs : int
        Multiply-accumulate operations of the convolutions and linear layers, by the direct method.
    """

    rows: tuple[SummaryRow, ...]
    parameters: int
    trainable: int

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)

    def __str__(self) -> str:
        cells = [("Layer", "Output shape", "Parameters")]
        for row in self.rows:
            shape = "not called" if row.output_shape is None else str(row.output_shape)
            cells.append((row.title, shape, f"{row.parameters:,}"))
        widths = [max(len(line[column]) for line in cells) for column in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in cells]
        rule = "-" * len(lines[0])
        total = f"{self.parameters:,} parameters, {self.trainable:,} of them trainable"
        return "\n".join([lines[0], rule, *lines[1:], rule, total])

    __repr__ = __str__


def _macs(layer: Module, inputs: tuple[Any, ...], output: Any) -> int:
    """Every output element of a layer with a weight matrix (or input element, if transposed) meets one row of it."""
    weight = layer._parameters.get("weight")
    if weight is None or weight.data.ndim < 2:
        return 0
    met = inputs[0] if getattr(layer, "_transposed", False) else output
    return math.prod(met.shape) * math.prod(weight.data.shape[1:])


def place_of(module: Module) -> str:
    """The device of the first parameter or buffer; ``"cpu"`` where there is none."""
    arrays = (*(parameter.data for parameter in module.parameters()), *module.buffers())
    return device_of(arrays[0]) if arrays else "cpu"


def summarize(module: Module, input_shape: Any, dtype: Any) -> Summary:
    """Run `module` on zeros with hooks that note each layer's output; see :meth:`Module.summary`."""
    shapes = input_shapes("input_shape", input_shape, 0)
    if dtype is None:
        dtype = next((parameter.data.dtype for parameter in module.parameters()), None)
    inputs = [to_device(np.zeros(shape, floating_dtype(dtype)), place_of(module)) for shape in shapes]
    # Containers only pass on what their layers compute; a module with parameters of its own is a layer as well.
    layers = {
        layer: (name, sum(p.data.size for p in layer.parameters(recurse=False)))
        for name, layer in module.named_modules()
        if not layer._modules or layer._parameters
    }
    rows: list[SummaryRow] = []
    called: set[Module] = set()

    def note(layer: Module, inputs: tuple[Any, ...], output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        name, count = layers[layer]
        parameters = 0 if layer in called else count
        rows.append(SummaryRow(name, layer._get_name(), tuple(first.shape), parameters, _macs(layer, inputs, first)))
        called.add(layer)

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with evaluation_mode(module), no_grad():
            module(*inputs)
    except ValueError as error:
        error.add_note(f"while summarising with input_shape={input_shape}, which includes the batch dimension")
        raise
    finally:
        for handle in handles:
            handle.remove()
    rows += [
        SummaryRow(name, layer._get_name(), None, count)
        for layer, (name, count) in layers.items()
        if layer not in called
    ]
    parameters = list(module.parameters())
    return Summary(
        tuple(rows),
        sum(p.data.size for p in parameters),
        sum(p.data.size for p in parameters if p.requires_grad),
    )
