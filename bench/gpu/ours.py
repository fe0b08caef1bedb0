"""Stages "ours" and "tiles": the kernels of this package, checked, then timed in turns with torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from .device import Device
from .exact import TILES
from .peer import columns, set_precision, tensors, times, works
from .stage import Case, Settings
from .work import LAYOUTS, REPRESENTATIVE, Work, checked, convolutions, expected, first


def measure(device: Device, work: Work) -> dict[str, Any]:
    """Our time for one layer in both layouts, and torch's in channels-last memory within the same seconds."""
    set_precision(device, work.precision)
    right = expected(work, device, work.arrays(device, "nchw"))
    calls, errors = {}, {}
    for layout in LAYOUTS:
        name = f"fastconv {layout}"
        calls[name] = work.ours(device, work.arrays(device, layout))
        errors[name] = checked(work, first(calls[name]()), right, device)
    if device.torch is not None:
        for layout in LAYOUTS:
            calls[f"torch {layout}"] = work.torch(device, tensors(work, device, layout))
    return {**columns(work), "errors": errors, "times": times(device.time(calls))}


def cases(device: Device, settings: Settings) -> Iterator[Case]:
    """One case a layer."""
    for work in works(settings):
        yield Case(work.key, partial(measure, device, work))


def compare_tiles(device: Device, work: Work) -> dict[str, Any]:
    """One convolution with every tile, in channels-last memory."""
    set_precision(device, work.precision)
    arrays = work.arrays(device, "nhwc")
    right = expected(work, device, arrays)
    call = work.ours(device, arrays)
    errors = {}

    def with_tile(tile: str) -> Any:
        device.native.set_conv_tile(tile)
        return call()

    try:
        for tile in TILES:
            errors[tile] = checked(work, first(with_tile(tile)), right, device)
        found = device.time({tile: partial(with_tile, tile) for tile in TILES})
    finally:
        device.native.set_conv_tile("by_shape")
    return {**columns(work), "errors": errors, "times": times(found)}


def tile_cases(device: Device, settings: Settings) -> Iterator[Case]:
    """The representative convolutions in every precision."""
    for work in convolutions(settings.batch, settings.networks, settings.dry):
        if work.kind != "depthwise" and (settings.dry or work.layer in REPRESENTATIVE):
            yield Case(work.key, partial(compare_tiles, device, work))
