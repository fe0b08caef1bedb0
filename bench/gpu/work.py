"""The layers that are timed on a GPU, as fastconv and as torch compute them, and the check before their time counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.cases import available_dtypes

from .. import norm_tasks, pool_tasks
from ..conv_tasks import REPRESENTATIVE
from ..peers import Torch, symmetric
from ..shapes import CONVS, ConvCase, shrink
from ..task import Task
from .device import Arrays, Call, Device

# Precision: dtype, and what float32 products are made of.
PRECISIONS = {"bf16": ("bfloat16", "highest"), "fp32": ("float32", "highest"), "tf32": ("float32", "high")}
WAYS = ("forward", "dgrad", "wgrad")
LAYOUTS = ("nhwc", "nchw")
# Norm of the error over that of the result: rounding of the result, and of the sums, is well below.
TOLERANCE = {"bf16": 5e-3, "fp32": 1e-5, "tf32": 1e-3}


@dataclass(frozen=True)
class Work:
    """One operation of one layer in one precision.

    Attributes
    ----------
    op, layer, way, precision : str
        Its name: conv, pool, norm, ...; the layer; forward, dgrad, wgrad or backward; a key of `PRECISIONS`.
    kind : str
        3x3, 1x1, stem, depthwise or other for a convolution; what the goals tell apart.
    flops, bytes : int
        Of the direct method; each input read once, each output written once.
    shapes : dict
        Shape of each array; four-dimensional ones are images (filters in torch's channels-last runs, too).
    ours, torch : callable
        ``ours(device, arrays)`` and ``torch(device, tensors)`` give the call that is timed.
    """

    op: str
    layer: str
    way: str
    precision: str
    kind: str
    flops: int
    bytes: int
    shapes: dict[str, tuple[int, ...]]
    ours: Callable[[Device, Arrays], Call]
    torch: Callable[[Device, Arrays], Call]

    @property
    def key(self) -> str:
        return f"{self.op} {self.layer} {self.way} {self.precision}"

    @property
    def dtype(self) -> np.dtype:
        return available_dtypes()[PRECISIONS[self.precision][0]]

    def arrays(self, device: Device, layout: str) -> Arrays:
        """Device arrays, the same values in every run; filters are NCHW, as the layers of the package keep them."""
        made = {}
        for seed, (name, shape) in enumerate(self.shapes.items()):
            if name in ("mean", "variance", "w", "b") and len(shape) == 1:
                made[name] = device.array(np.full(shape, name != "mean", self.dtype))
            else:
                made[name] = device.normal(shape, self.dtype, layout == "nhwc" and name != "w", seed)
        return made


# ---- convolutions --------------------------------------------------------------------------------------------------


def _options(case: ConvCase) -> tuple[Any, ...]:
    return case.stride, case.padding, case.dilation, case.groups, 2


def _ours(case: ConvCase, way: str, device: Device, a: Arrays) -> Call:
    k = device.kernels
    if way == "forward":
        return partial(k.conv_forward, a["x"], a["w"], None, *_options(case))
    if way == "dgrad":
        return partial(k.conv_backward_input, a["dy"], a["w"], case.x_shape, *_options(case))
    return partial(k.conv_backward_weight, a["dy"], a["x"], case.w_shape, *_options(case))


def _torch(case: ConvCase, way: str, device: Device, t: Arrays) -> Call:
    torch = Torch(device.torch)
    if way == "forward":
        return torch.conv(case, t)
    aten = device.torch.ops.aten
    rest = (list(case.stride), list(symmetric(case)), list(case.dilation), False, [0, 0], case.groups)
    mask = [way == "dgrad", way == "wgrad", False]
    return lambda: aten.convolution_backward(t["dy"], t["x"], t["w"], None, *rest, mask)[way == "wgrad"]


def conv_kind(case: ConvCase) -> str:
    """What the goals tell apart."""
    if case.depthwise:
        return "depthwise"
    if case.C < 8:
        return "stem"
    return f"{case.R}x{case.S}" if (case.R, case.S) in ((1, 1), (3, 3)) else "other"


def conv(case: ConvCase, way: str, precision: str) -> Work:
    """A convolution or one of its gradients."""
    item = available_dtypes()[PRECISIONS[precision][0]].itemsize
    sizes: dict[str, tuple[int, ...]] = {"x": case.x_shape, "w": case.w_shape, "dy": case.y_shape}
    moved = item * sum(int(np.prod(shape)) for shape in sizes.values())
    if way == "forward":
        sizes.pop("dy")
    return Work(
        "conv",
        str(case),
        way,
        precision,
        conv_kind(case),
        case.flops,
        moved,
        sizes,
        partial(_ours, case, way),
        partial(_torch, case, way),
    )


def convolutions(
    batch: int, networks: tuple[str, ...], dry: bool, selected: tuple[bool, ...] = (True, False)
) -> Iterator[Work]:
    """Layers of the networks in every precision: those selected (True), one of each kind, then the others (False)."""
    chosen = [replace(case, N=batch) for case in CONVS if case.network in networks]
    if dry:
        chosen = [shrink(case, 16, 6, 1) for case in chosen[2:4]] + [shrink(c, 8, 5, 1) for c in chosen if c.depthwise][
            :1
        ]
    few = REPRESENTATIVE | {"mobilenetv2-dw1", "mobilenetv2-dw4_s2", "mobilenetv2-dw8"}
    for part in selected:
        for precision in PRECISIONS:
            if dry and precision == "tf32":
                continue
            for way in WAYS:
                for case in chosen:
                    if (str(case) in few) is part:
                        yield conv(case, way, precision)


# ---- memory-bound layers -------------------------------------------------------------------------------------------


def _of_task(task: Task, way: str, precision: str, shapes: dict[str, tuple[int, ...]]) -> Work:
    item = available_dtypes()[PRECISIONS[precision][0]].itemsize

    def ours(device: Device, a: Arrays) -> Call:
        return task.ours(a)

    def torch(device: Device, t: Arrays) -> Call:
        return task.torch(Torch(device.torch), t)

    op = task.op.removesuffix("_backward")
    return Work(op, task.layer, way, precision, task.kind, task.flops, task.bytes // 4 * item, shapes, ours, torch)


def memory_bound(batch: int, networks: tuple[str, ...], dry: bool) -> Iterator[Work]:
    """Pooling, normalisation in training and ReLU of the networks, both ways."""
    families: tuple[Callable[[int, bool], Iterator[Task]], ...] = (
        pool_tasks.tasks,
        norm_tasks.tasks,
        norm_tasks.relu_tasks,
    )
    for precision in ("bf16", "fp32"):
        for family in families:
            for backward in (False, True):
                for task, small in zip(family(batch, backward), family(1, backward), strict=True):
                    if task.layer.partition("-")[0] not in networks or task.kind == "local_response":
                        continue
                    if dry and (task.layer != "resnet50-conv5_bn" and not task.layer.startswith("resnet50-global")):
                        continue
                    drawn = small.draw(np.random.default_rng(0))
                    shapes = {
                        name: (batch, *a.shape[1:]) if a.ndim == 4 and name in ("x", "dy") else a.shape
                        for name, a in drawn.items()
                    }
                    yield _of_task(task, "backward" if backward else "forward", precision, shapes)


# ---- the check -----------------------------------------------------------------------------------------------------


def first(result: Any) -> Any:
    """The output that the check looks at: the first of several."""
    return result[0] if isinstance(result, tuple | list) else result


def expected(work: Work, device: Device, arrays: Arrays) -> Any:
    """The result of torch in float32, for float32 in float64, or of the processor's kernels where there is no torch."""
    if device.torch is not None:
        wide = device.torch.float64 if work.precision == "fp32" else device.torch.float32
        cudnn = device.torch.backends.cudnn
        before = cudnn.benchmark, cudnn.allow_tf32
        cudnn.benchmark, cudnn.allow_tf32 = False, False  # trying every algorithm in float64 would take seconds
        try:
            return first(
                work.torch(device, {name: device.to_torch(a).to(wide) for name, a in arrays.items()})()
            ).double()
        finally:
            cudnn.benchmark, cudnn.allow_tf32 = before
    host = {name: device.host(a).astype(np.float32) for name, a in arrays.items()}
    with fc.use_backend("cpu") as module:
        return first(work.ours(_Host(module), host)())


class _Host:
    """Takes the place of a device for arrays of the host."""

    def __init__(self, module: Any) -> None:
        self.kernels = module


def error(result: Any, right: Any, device: Device) -> float:
    """Norm of the difference over the norm of what is right; not-a-number where a result is none."""
    if device.torch is not None:
        got = device.to_torch(result) if not isinstance(result, device.torch.Tensor) else result
        scale = right.norm().item()
        return float((got.double().reshape(right.shape) - right).norm().item() / (scale or 1.0))
    got = device.host(result).astype(np.float64)
    scale = float(np.linalg.norm(right))
    return float(np.linalg.norm((got - right).ravel()) / (scale or 1.0))


def checked(work: Work, result: Any, right: Any, device: Device) -> float:
    """The error; ValueError beyond the tolerance of the precision."""
    found, limit = error(result, right, device), TOLERANCE[work.precision]
    if not found <= limit:
        raise ValueError(f"wrong: relative error {found:.2g}, at most {limit:.0e}")
    return float(f"{found:.3g}")
