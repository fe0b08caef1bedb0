"""Stage "exact": convolutions of small integers, whose sums every format holds, must be right to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import backend
from fastconv.cases import available_dtypes

from ..shapes import AWKWARD, CONVS, ConvCase, shrink
from ..task import channels_last
from .device import Device
from .stage import Case, Settings

TILES = ("by_shape", "small", "large")


def _expected(case: ConvCase, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> dict[str, np.ndarray]:
    options = (case.stride, case.padding, case.dilation, case.groups, 2)
    with fc.use_backend("cpu" if "cpu" in fc.available_backends() else "reference") as module:
        return {
            "forward": module.conv_forward(x, w, None, *options),
            "dgrad": module.conv_backward_input(dy, w, x.shape, *options),
            "wgrad": module.conv_backward_weight(dy, x, w.shape, *options),
        }


def check(device: Device, case: ConvCase, tiles: tuple[str, ...] = TILES) -> dict[str, Any]:
    """One convolution and its gradients in every dtype, layout and tile; ValueError names the first that is wrong."""
    rng = np.random.default_rng(3)
    x, w, dy = (rng.integers(-4, 5, shape).astype(np.float64) for shape in (case.x_shape, case.w_shape, case.y_shape))
    expected = _expected(case, x, w, dy)
    options = (case.stride, case.padding, case.dilation, case.groups, 2)
    results = 0
    for dtype in available_dtypes().values():
        right = {way: value.astype(dtype) for way, value in expected.items()}
        for arrange in (np.ascontiguousarray, channels_last):
            a, b, c = (device.array(m.astype(dtype)) for m in (arrange(x), w, arrange(dy)))
            for tile in tiles:
                device.native.set_conv_tile(tile)
                try:
                    found = {
                        "forward": device.kernels.conv_forward(a, b, None, *options),
                        "dgrad": device.kernels.conv_backward_input(c, b, x.shape, *options),
                        "wgrad": device.kernels.conv_backward_weight(c, a, w.shape, *options),
                    }
                finally:
                    device.native.set_conv_tile("by_shape")
                for way, result in found.items():
                    wrong = int(np.count_nonzero(device.host(result) != right[way]))
                    if wrong:
                        layout = "NCHW" if arrange is np.ascontiguousarray else "channels-last"
                        raise ValueError(
                            f"{way}, {dtype.name}, {layout}, tile {tile}: {wrong} of {right[way].size} wrong"
                        )
                    results += 1
    return {"results": results}


def convolutions(dry: bool) -> list[ConvCase]:
    """Awkward sizes first, then the layers of the networks, smaller; in a dry run a few of each kind."""
    if dry:
        return [*AWKWARD[::12], *(shrink(case, 16, 6, 1) for case in CONVS[:30:6])]
    return [*AWKWARD, *(shrink(case, 72, 20) for case in CONVS)]


def cases(device: Device, settings: Settings) -> Iterator[Case]:
    """One case a convolution."""
    backend.native()
    for case in convolutions(settings.dry):
        yield Case(str(case), partial(check, device, case))
