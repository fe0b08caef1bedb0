"""PyTorch, where it is installed: the library that this one is compared with, and the oracle of the checks.

It is imported when it is asked for, so that the benchmark runs without it. Each function here has the name of a
function of `fastconv.nn.functional` or of its pullback, takes tensors, and returns a call without arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .shapes import ConvCase, NormCase, PoolCase

Call = Callable[[], Any]
Tensors = dict[str, Any]


def load() -> Torch | None:
    """torch, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return Torch(torch)


def symmetric(case: ConvCase) -> tuple[int, int]:
    """The padding of one side; torch's convolution has no other."""
    (top, bottom), (left, right) = case.padding
    if top != bottom or left != right:
        raise ValueError(f"{case} is padded by {case.padding}: torch pads both sides alike")
    return top, left


class Torch:
    """The functions of torch that the benchmark times."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.name = f"torch {module.__version__.split('+')[0]}"

    def set_threads(self, threads: int) -> None:
        self.module.set_num_threads(threads)

    def tensor(self, array: np.ndarray) -> Any:
        """A tensor with the array's memory and strides."""
        if array.dtype.name == "bfloat16":
            return self.module.from_numpy(array.view(np.int16)).view(self.module.bfloat16)
        return self.module.from_numpy(array)

    def tensors(self, arrays: dict[str, np.ndarray], channels_last: bool) -> Tensors:
        """All arrays as tensors; filters, too, are channels-last where the images are: torch's fastest way."""
        tensors = {name: self.tensor(array) for name, array in arrays.items()}
        if channels_last and "w" in tensors and tensors["w"].ndim == 4:
            tensors["w"] = tensors["w"].to(memory_format=self.module.channels_last)
        return tensors

    def wide(self, outputs: Any) -> tuple[np.ndarray, ...]:
        """Results as float64 arrays, without those that were not asked for."""
        outputs = outputs if isinstance(outputs, tuple | list) else (outputs,)
        return tuple(t.detach().double().numpy() for t in outputs if t is not None)

    def conv(self, case: ConvCase, t: Tensors) -> Call:
        call = self.module.nn.functional.conv2d
        options = {"stride": case.stride, "padding": symmetric(case), "dilation": case.dilation, "groups": case.groups}
        return partial(call, t["x"], t["w"], None, **options)

    def conv_backward(self, case: ConvCase, t: Tensors) -> Call:
        call = self.module.ops.aten.convolution_backward
        stride, padding, dilation = list(case.stride), list(symmetric(case)), list(case.dilation)
        rest = (stride, padding, dilation, False, [0, 0], case.groups, [True, True, False])
        return partial(call, t["dy"], t["x"], t["w"], None, *rest)

    def pool(self, case: PoolCase, t: Tensors) -> Call:
        f = self.module.nn.functional
        if case.kind == "adaptive_avg":
            return partial(f.adaptive_avg_pool2d, t["x"], case.kernel)
        call = f.max_pool2d if case.kind == "max" else f.avg_pool2d
        return partial(call, t["x"], case.kernel, case.stride, case.padding, ceil_mode=case.ceil_mode)

    def pool_backward(self, case: PoolCase, t: Tensors) -> Call:
        aten, dy, x = self.module.ops.aten, t["dy"], t["x"]
        if case.kind == "adaptive_avg":
            return partial(aten._adaptive_avg_pool2d_backward, dy, x)
        window = (list(case.kernel), list(case.stride), list(case.padding))
        if case.kind == "avg":
            return partial(aten.avg_pool2d_backward, dy, x, *window, case.ceil_mode, True, None)
        _, indices = aten.max_pool2d_with_indices(x, *window, [1, 1], case.ceil_mode)
        return partial(aten.max_pool2d_with_indices_backward, dy, x, *window, [1, 1], case.ceil_mode, indices)

    def batch_norm(self, case: NormCase, t: Tensors) -> Call:
        mean, variance = t["mean"].clone(), t["variance"].clone()
        call = self.module.nn.functional.batch_norm
        return partial(call, t["x"], mean, variance, t["w"], t["b"], training=True)

    def batch_norm_backward(self, case: NormCase, t: Tensors) -> Call:
        aten, mean, variance = self.module.ops.aten, t["mean"].clone(), t["variance"].clone()
        _, *saved = aten.native_batch_norm(t["x"], t["w"], t["b"], mean, variance, True, 0.1, 1e-5)
        rest = (mean, variance, *saved, True, 1e-5, [True, True, True])
        return partial(aten.native_batch_norm_backward, t["dy"], t["x"], t["w"], *rest)

    def batch_norm_relu(self, case: NormCase, t: Tensors) -> Call:
        norm, relu = self.batch_norm(case, t), self.module.relu_
        return lambda: relu(norm())

    def batch_norm_relu_backward(self, case: NormCase, t: Tensors) -> Call:
        aten, mean, variance = self.module.ops.aten, t["mean"].clone(), t["variance"].clone()
        y, *saved = aten.native_batch_norm(t["x"], t["w"], t["b"], mean, variance, True, 0.1, 1e-5)
        rest, y = (mean, variance, *saved, True, 1e-5, [True, True, True]), self.module.relu_(y)
        norm, relu = aten.native_batch_norm_backward, aten.threshold_backward
        return lambda: norm(relu(t["dy"], y, 0), t["x"], t["w"], *rest)

    def local_response_norm(self, case: NormCase, t: Tensors) -> Call:
        return partial(self.module.nn.functional.local_response_norm, t["x"], case.size)

    def layout(self, case: NormCase, t: Tensors) -> Call:
        torch = self.module
        other = torch.channels_last if t["x"].is_contiguous() else torch.contiguous_format
        return partial(t["x"].contiguous, memory_format=other)

    def relu(self, case: NormCase, t: Tensors) -> Call:
        return partial(self.module.relu, t["x"])

    def relu_backward(self, case: NormCase, t: Tensors) -> Call:
        return partial(self.module.ops.aten.threshold_backward, t["dy"], self.module.relu(t["x"]), 0)
