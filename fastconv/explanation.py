"""`explain`: what one call computes, with which kernel and why, and how fast it is against what the machine allows."""

from __future__ import annotations

import inspect
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import backend
from .roofline import measure

__all__ = ["Explanation", "explain"]

# Functions of `fastconv.nn.functional` with a kernel in the backends, by the name without its dimensions.
_KERNELS = {
    "adaptive_avg_pool": "adaptive_avg_pool_forward",
    "adaptive_max_pool": "adaptive_max_pool_forward",
    "avg_pool": "avg_pool_forward",
    "batch_norm": "batch_norm_forward",
    "batch_norm_relu": "batch_norm_relu_forward",
    "conv": "conv_forward",
    "conv_transpose": "conv_transpose_forward",
    "hardtanh": "hardtanh_forward",
    "instance_norm": "instance_norm_forward",
    "leaky_relu": "leaky_relu_forward",
    "linear": "linear_forward",
    "local_response_norm": "local_response_norm_forward",
    "lp_pool": "lp_pool_forward",
    "max_pool": "max_pool_forward",
    "max_unpool": "max_unpool_forward",
    "prelu": "prelu_forward",
    "relu": "relu_forward",
    "relu6": "hardtanh_forward",
}
_SECONDS, _RUNS = 0.2, 200


@dataclass(frozen=True, repr=False)
class Explanation:
    """What `explain` found; printing it gives a table.

    Attributes
    ----------
    op : str
    inputs : tuple of str
        dtype, shape and memory layout of each array.
    output_shape : tuple of int
    flops : int
        Additions and multiplications of the direct method.
    bytes : int
        Each input read once, each output written once.
    backend, isa, kernel, why : str
        What computes, and why this kernel was chosen.
    others : dict of str to str
        Other algorithms that could compute the call, with what speaks against each.
    workspace : int
        Bytes beside inputs and outputs.
    peak_gflops, bandwidth_gbs : float
        The measured ceilings, see `fastconv.roofline`.
    bound_ms : float
        The time below which this machine cannot compute the call with the direct method.
    bound_by : str
        "compute" or "memory".
    measured_ms : float
        Median over repeated calls.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> import fastconv.nn.functional as F
    >>> report = fc.explain(F.relu, np.ones((2, 3), np.float32))
    >>> report.bytes, report.bound_by
    (48, 'memory')
    """

    op: str
    inputs: tuple[str, ...]
    output_shape: tuple[int, ...]
    flops: int
    bytes: int
    backend: str
    isa: str
    kernel: str
    why: str
    others: dict[str, str]
    workspace: int
    peak_gflops: float
    bandwidth_gbs: float
    bound_ms: float
    bound_by: str
    measured_ms: float

    @property
    def intensity(self) -> float:
        """Floating-point operations a byte."""
        return self.flops / max(self.bytes, 1)

    @property
    def efficiency(self) -> float:
        """Bound over measured time; 1 is as fast as the ceilings allow."""
        return self.bound_ms / self.measured_ms if self.measured_ms else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All values, for JSON."""
        return {**asdict(self), "intensity": self.intensity, "efficiency": self.efficiency}

    def __repr__(self) -> str:
        rate = self.flops / max(self.measured_ms, 1e-9) / 1e6
        stream = self.bytes / max(self.measured_ms, 1e-9) / 1e6
        lines = [
            ("operation", self.op),
            *(("input" if not i else "", text) for i, text in enumerate(self.inputs)),
            ("output", "x".join(map(str, self.output_shape))),
            ("work", f"{_scaled(self.flops)}FLOP, {_scaled(self.bytes)}B, {self.intensity:.2f} FLOP/B"),
            ("backend", f"{self.backend}, {self.isa}" if self.isa else self.backend),
            ("kernel", self.kernel),
            ("why", self.why),
            *(("" if i else "not", f"{name}: {text}") for i, (name, text) in enumerate(self.others.items())),
            ("workspace", f"{_scaled(self.workspace)}B"),
            ("machine", f"{self.peak_gflops:.0f} GFLOP/s, {self.bandwidth_gbs:.1f} GB/s (measured)"),
            ("bound", f"{_time(self.bound_ms)} ({self.bound_by})"),
            ("measured", f"{_time(self.measured_ms)}, {rate:.1f} GFLOP/s, {stream:.1f} GB/s"),
            ("of bound", f"{100 * self.efficiency:.0f} %"),
        ]
        return "\n".join(f"{name:<10} {text}" for name, text in lines)


def _scaled(value: float) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.2f} {letter}"
    return f"{value:.0f} "


def _time(ms: float) -> str:
    return f"{ms:.3f} ms" if ms >= 0.1 else f"{ms * 1e3:.2f} µs"


def explain(function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """Explain one call of a function of `fastconv.nn.functional`: work, kernel, bound and measured time.

    Or a network, layer by layer: ``explain(model, shape)``, with several inputs ``explain(model, [shape, shape])``.

    Parameters
    ----------
    function : callable
        Such as ``F.conv2d``; or a Module.
    *arrays, **options
        Its arguments. The call is repeated for about 0.2 s, and the machine's ceilings are measured once a process. For
        a Module one argument, the shape of an input with its batch dimension, or a list of one for each input; forward
        passes in evaluation mode are repeated for about 1 s. The work of layers is known; what a ``forward`` calls
        itself, such as ``F.conv2d``, counts as one operation an element of its result.

    Returns
    -------
    Explanation, or ModelExplanation
        Prints as a table; the latter adds the receptive field of every layer.

    Raises
    ------
    TypeError
        If `function` is not one of `fastconv.nn.functional`, nor a Module with one argument.
    TypeError, ValueError
        What the call itself raises.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> import fastconv.nn.functional as F
    >>> x, w = np.ones((1, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    >>> report = fc.explain(F.conv2d, x, w, padding=1)
    >>> report.output_shape, report.flops
    ((1, 4, 8, 8), 13824)
    >>> report = fc.explain(fc.models.LeNet5(), (1, 1, 28, 28))
    >>> [(row.layer, row.flops, row.receptive_field) for row in report.rows[:3]]
    [('Conv2d', 235200, (5, 5)), ('ReLU', 4704, (5, 5)), ('MaxPool2d', 4704, (6, 6))]
    """
    from .nn import functional
    from .nn.modules.module import Module

    if isinstance(function, Module):
        from .model_explanation import explain_model

        if len(arrays) != 1 or options or not isinstance(arrays[0], list | tuple):
            raise TypeError("explain takes a Module and the shape of its input, as in explain(model, (1, 3, 224, 224))")
        return explain_model(function, arrays[0])

    name = getattr(function, "__name__", "")
    if getattr(functional, name, None) is not function:
        raise TypeError(f"function must be one of fastconv.nn.functional, got {function!r}")
    arguments = inspect.signature(function).bind(*arrays, **options)
    arguments.apply_defaults()
    values = arguments.arguments
    native = _native_module()
    if native is not None:
        native.reset_workspace_peak()
    output = function(*arrays, **options)
    workspace = native.workspace_peak() if native is not None else 0
    outputs = [np.asarray(y) for y in (output if isinstance(output, tuple) else (output,))]
    inputs = {key: np.asarray(value) for key, value in values.items() if hasattr(value, "__array__")}
    if not inputs:
        raise TypeError(f"{name} was given no array")
    flops = _flops(name, values, inputs, outputs[0])
    transferred = sum(array.nbytes for array in (*inputs.values(), *outputs))
    kernel, why, others = _kernel(name, values, inputs, native)
    measured = _median_seconds(lambda: function(*arrays, **options))
    first = next(iter(inputs.values()))
    ceilings = measure("float64" if first.dtype == np.float64 else "float32")
    bound, bound_by = ceilings.bound(flops, transferred)
    return Explanation(
        op=name,
        inputs=tuple(_describe(key, array) for key, array in inputs.items()),
        output_shape=outputs[0].shape,
        flops=flops,
        bytes=transferred,
        backend=backend.get_backend(),
        isa=native.isa() if native is not None else "",
        kernel=kernel,
        why=why,
        others=others,
        workspace=int(workspace),
        peak_gflops=ceilings.flops / 1e9,
        bandwidth_gbs=ceilings.bandwidth / 1e9,
        bound_ms=bound * 1e3,
        bound_by=bound_by,
        measured_ms=measured * 1e3,
    )


def _native_module() -> Any:
    return backend.native() if backend.get_backend().startswith("cpu") else None


def _is_channels_last(array: np.ndarray) -> bool:
    last = np.moveaxis(array, 1, -1) if array.ndim > 2 else array
    return array.ndim > 2 and array.shape[1] > 1 and last.flags.c_contiguous and not array.flags.c_contiguous


def _describe(name: str, array: np.ndarray) -> str:
    layout = (
        "channels-last" if _is_channels_last(array) else "contiguous" if array.flags.c_contiguous else "strided view"
    )
    return f"{name} {array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'} {layout}"


def _family(name: str) -> str:
    name = name.removesuffix("_with_indices")
    return name[:-2] if name[-2:] in ("1d", "2d", "3d") else name


def _window(name: str, size: Any) -> int:
    nd = int(name.removesuffix("_with_indices")[-2])
    return math.prod(size) if isinstance(size, list | tuple) else int(size) ** nd


def _flops(name: str, values: dict[str, Any], inputs: dict[str, np.ndarray], y: np.ndarray) -> int:
    """Operations of the direct method; where nothing is summed, one an output element."""
    family = _family(name)
    x = next(iter(inputs.values()))
    if family == "conv":
        return 2 * y.size * math.prod(inputs["weight"].shape[1:])
    if family == "conv_transpose":
        return 2 * x.size * math.prod(inputs["weight"].shape[1:])
    if family == "linear":
        return 2 * y.size * x.shape[-1]
    if family in ("max_pool", "avg_pool"):
        return y.size * _window(name, values["kernel_size"])
    if family == "lp_pool":
        return 2 * y.size * _window(name, values["kernel_size"])
    if family.startswith("adaptive"):
        return x.size
    if family in ("batch_norm", "batch_norm_relu", "instance_norm"):
        # Mean 1, variance 3, scale and shift 2; with running statistics only the last. ReLU 1, the sum before it 1.
        from_input = values.get("training", values.get("use_input_stats", True))
        relu = (1 + ("residual" in inputs)) * (family == "batch_norm_relu")
        return ((6 if from_input else 2) + relu) * x.size
    if family == "local_response_norm":
        return x.size * (values["size"] + 4)
    return y.size


def _kernel(
    name: str, values: dict[str, Any], inputs: dict[str, np.ndarray], native: Any
) -> tuple[str, str, dict[str, str]]:
    family = _family(name)
    operation = _KERNELS.get(family)
    if operation is None:
        return "NumPy", "array code shared by all backends; this operation has no kernel of its own", {}
    if native is None:
        return f"reference.{operation}", "the reference backend is active", {}
    if family not in ("conv", "conv_transpose"):
        return operation, "the only kernel of this operation; it vectorises over the layout of the input", {}
    x, w = inputs["input"], inputs["weight"]
    shape = x.shape if x.ndim == w.ndim else (1, *x.shape)
    keys = ("stride", "padding", "dilation", "groups")
    options = [values[key] for key in keys]
    plan = native.conv_plan(operation, shape, w.shape, *options, x.dtype.name, _is_channels_last(x))
    return plan["kernel"], plan["why"], plan["others"]


def _median_seconds(call: Callable[[], Any]) -> float:
    times: list[float] = []
    while not times or (sum(times) < _SECONDS and len(times) < _RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
