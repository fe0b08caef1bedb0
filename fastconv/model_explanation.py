"""`explain` for a network: layer by layer its work, the machine's bound, the measured time and the receptive field."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from .explanation import _flops, _scaled, _time
from .nn.modules.arguments import floating_dtype, input_shapes
from .nn.modules.calling import evaluation_mode
from .nn.modules.conv import _Conv
from .nn.modules.module import Module
from .nn.modules.pending import Pending, bare
from .nn.modules.recurrent import _Recurrent
from .nn.modules.shape import Identity
from .roofline import measure
from .visualize import ReceptiveFields, receptive_field

__all__ = ["LayerExplanation", "ModelExplanation", "explain_model"]

_SECONDS, _RUNS = 1.0, 20


@dataclass(frozen=True)
class LayerExplanation:
    """One call of one layer.

    Attributes
    ----------
    name, layer : str
        Its dotted name and its class. Of layers that `optimize` joined: the first one's name, and "Conv2d + Add" for a
        convolution that does the sum after it, too, "Conv2d + Conv2d" for two that are computed together.
    output_shape : tuple of int
    flops : int
        Additions and multiplications of the direct method; where nothing is summed, one an output element.
    bytes : int
        Inputs and parameters read once, outputs written once.
    bound_ms : float
        The time below which this machine cannot do it with the direct method.
    bound_by : str
        "compute" or "memory".
    measured_ms : float
        Median over the passes.
    receptive_field : tuple of int or None
        Pixels that a unit of the output sees in each dimension; None where there are none, as for vectors.

    Examples
    --------
    >>> import fastconv as fc, fastconv.nn as nn
    >>> row = fc.explain(nn.Sequential(nn.Conv1d(2, 4, 3)), (1, 2, 10)).rows[0]
    >>> row.name, row.layer, row.output_shape, row.flops, row.bytes, row.receptive_field
    ('0', 'Conv1d', (1, 4, 8), 384, 320, (3,))
    """

    name: str
    layer: str
    output_shape: tuple[int, ...]
    flops: int
    bytes: int
    bound_ms: float
    bound_by: str
    measured_ms: float
    receptive_field: tuple[int, ...] | None


@dataclass(frozen=True, repr=False)
class ModelExplanation:
    """What `explain` found of a network; printing it gives a table.

    Attributes
    ----------
    rows : tuple of LayerExplanation
        In the order of the calls.
    input_shape : tuple of int
        Of several inputs a tuple of such tuples.
    measured_ms : float
        Median of whole passes; what is not in the rows is spent between the layers (sums, concatenations, Python).
    peak_gflops, bandwidth_gbs : float
        The measured ceilings, see `fastconv.roofline`.

    Examples
    --------
    >>> import fastconv as fc, fastconv.nn as nn
    >>> report = fc.explain(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh()), (5, 4))
    >>> len(report.rows), report.flops, report.bytes
    (3, 135, 320)
    """

    rows: tuple[LayerExplanation, ...]
    input_shape: tuple[Any, ...]
    measured_ms: float
    peak_gflops: float
    bandwidth_gbs: float

    @property
    def flops(self) -> int:
        """Of all layers."""
        return sum(row.flops for row in self.rows)

    @property
    def bytes(self) -> int:
        """Of all layers, each of which reads what the one before has written."""
        return sum(row.bytes for row in self.rows)

    @property
    def bound_ms(self) -> float:
        """Sum of the layers' bounds."""
        return sum(row.bound_ms for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """All values, for JSON."""
        return {**asdict(self), "flops": self.flops, "bytes": self.bytes, "bound_ms": self.bound_ms}

    def __repr__(self) -> str:
        cells = [("layer", "output", "FLOP", "bytes", "bound", "", "measured", "of bound", "field")]
        for row in self.rows:
            field = "-" if row.receptive_field is None else "x".join(map(str, row.receptive_field))
            cells.append(
                (
                    f"{row.name} ({row.layer})",
                    "x".join(map(str, row.output_shape)),
                    _scaled(row.flops).strip(),
                    _scaled(row.bytes).strip(),
                    _time(row.bound_ms),
                    row.bound_by,
                    _time(row.measured_ms),
                    _share(row.bound_ms, row.measured_ms),
                    field,
                )
            )
        between = max(self.measured_ms - sum(row.measured_ms for row in self.rows), 0.0)
        cells.append(("between the layers", "", "", "", "", "", _time(between), "", ""))
        total = _scaled(self.flops).strip(), _scaled(self.bytes).strip(), _time(self.bound_ms)
        cells.append(("all", "", *total, "", _time(self.measured_ms), _share(self.bound_ms, self.measured_ms), ""))
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        left = (0, 1, 5)
        lines = [
            "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip()
            for line in cells
        ]
        shapes = input_shapes("input_shape", self.input_shape, 0)
        shape = " and ".join("x".join(map(str, shape)) for shape in shapes)
        machine = f"{self.peak_gflops:.0f} GFLOP/s, {self.bandwidth_gbs:.1f} GB/s (measured)"
        return "\n".join([f"input {shape}; machine {machine}", "", *lines])


def _share(bound: float, measured: float) -> str:
    return f"{100 * bound / measured:.0f} %" if measured else "-"


def explain_model(model: Module, input_shape: Any) -> ModelExplanation:
    """Explain a network in evaluation mode; see `fastconv.explain`, which calls this for a Module."""
    shapes = input_shapes("shape", input_shape, 1)
    dtype = floating_dtype(next((p.data.dtype for p in model.parameters()), None))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    calls: list[_Call] = []
    times: list[list[float]] = []
    whole: list[float] = []
    with evaluation_mode(model):
        model(*inputs)  # what is done once, such as folding, is not part of any pass
        # Identity is what folding leaves of a layer.
        names = {
            module: name
            for name, module in model.named_modules()
            if not isinstance(module, Identity) and (not module._modules or module._parameters)
        }
        # A sum that a convolution takes along may be no layer, but an operator in a forward.
        takers = [taker for module in model.modules() for taker in getattr(module, "_takers", ())]
        names |= {taker: "+" for taker in takers if getattr(taker, "operator", None) == "+"}
        with _watched(names, lambda call, seconds: calls.append(call)):
            model(*inputs)
        found = [_measures(call) for call in calls]
        described = [(names[call.modules[0]], names[call.modules[-1]], call.layer) for call in calls]
        calls.clear()
        while not whole or (sum(whole) < _SECONDS and len(whole) < _RUNS):
            seconds: list[float] = []
            with _watched(names, lambda call, spent, seconds=seconds: seconds.append(spent)):
                start = time.perf_counter()
                model(*inputs)
                whole.append(time.perf_counter() - start)
            times.append(seconds)
        alone = len(shapes) == 1 and 3 <= len(shapes[0]) <= 5
        fields = receptive_field(model, shapes[0]) if alone else ReceptiveFields()
    ceilings = measure("float64" if dtype == np.float64 else "float32")
    rows = []
    for i, ((name, last, layer), (output_shape, flops, transferred)) in enumerate(zip(described, found)):
        bound, bound_by = ceilings.bound(flops, transferred)
        spent = statistics.median(seconds[i] for seconds in times)
        field = fields[last].size if last in fields else None
        rows.append(
            LayerExplanation(name, layer, output_shape, flops, transferred, bound * 1e3, bound_by, spent * 1e3, field)
        )
    total = statistics.median(whole) * 1e3
    return ModelExplanation(
        tuple(rows),
        shapes[0] if len(shapes) == 1 else tuple(shapes),
        total,
        ceilings.flops / 1e9,
        ceilings.bandwidth / 1e9,
    )


class _Call(NamedTuple):
    """A call of a layer. Convolutions that waited for the one or for the sum after them are one call with that.

    `modules` are the convolutions, without the sum, whose other operand is a second input.
    """

    modules: tuple[Module, ...]
    layer: str
    inputs: tuple[Any, ...]
    output: Any


@contextmanager
def _watched(layers: dict[Module, str], note: Callable[..., None]) -> Iterator[None]:
    """Context manager: after each call of a layer, ``note(call, seconds)``."""

    def timed(module: Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **options: Any) -> Any:
            start = time.perf_counter()
            output = forward(*inputs, **options)
            seconds = time.perf_counter() - start
            y = bare(output)
            if isinstance(y, Pending):
                return output  # nothing is done yet
            modules: tuple[Module, ...] = (module,)
            layers = modules
            inputs = tuple(map(bare, inputs))
            if inputs and isinstance(inputs[0], Pending):
                waited = inputs[0]
                layers = (*waited.layers, module)
                modules = layers if isinstance(module, _Conv) else waited.layers
                inputs = (waited.x, *inputs[1:])
            note(_Call(modules, " + ".join(each._get_name() for each in layers), inputs, y), seconds)
            return output

        return call

    try:
        for module in layers:
            module.__dict__["forward"] = timed(module, module.forward)  # shadows the method of the class
        yield
    finally:
        for module in layers:
            module.__dict__.pop("forward", None)


def _measures(call: _Call) -> tuple[tuple[int, ...], int, int]:
    """Output shape, operations and transferred bytes of a layer's call."""
    modules, _, inputs, output = call
    arrays = [np.asarray(value) for value in inputs if hasattr(value, "shape")]
    y = np.asarray(output[0] if isinstance(output, tuple) else output)
    parameters = [p.data for module in modules for p in module._parameters.values() if p is not None]
    if any(np.may_share_memory(y, x) for x in arrays) and not getattr(modules[0], "inplace", False):
        return y.shape, 0, 0  # a view: Flatten, Identity, Dropout
    transferred = sum(a.nbytes for a in (*arrays, *parameters, y))
    if isinstance(modules[0], _Recurrent):
        steps = arrays[0].size // arrays[0].shape[-1]
        return y.shape, 2 * steps * sum(p.size for p in parameters if p.ndim == 2), transferred
    if isinstance(modules[0], _Conv):
        flops, shape = 0, arrays[0].shape
        for module in modules:
            shape = module._output_shape(shape)
            flops += 2 * math.prod(shape) * math.prod(module._parameters["weight"].data.shape[1:])
        return y.shape, flops + sum(a.size for a in arrays[1:]), transferred  # and what a sum adds to it
    (module,) = modules
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=LP)(?=Pool)", "_", type(module).__name__).lower()
    if name.startswith(("batch_norm", "instance_norm")):
        name = name[:-2]  # the functions have no number of dimensions
    named = {"input": arrays[0]} | {key: p.data for key, p in module._parameters.items() if p is not None}
    options = {**vars(module), "training": not getattr(module, "track_running_stats", True)}  # statistics of the input
    return y.shape, _flops(name, options, named, y), transferred
