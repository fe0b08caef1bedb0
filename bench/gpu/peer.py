"""Stage "ceilings": what this GPU can do at most, measured with torch; and torch as the layers' yardstick."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from .device import Device
from .stage import Case, Settings, Skip
from .work import PRECISIONS, Work, convolutions, memory_bound

_COPY_BYTES = 2 << 30
_SIDE = 8192


def works(settings: Settings) -> Iterator[Work]:
    """All layers, in the order of what is asked first."""
    yield from convolutions(settings.batch, settings.networks, settings.dry, (True,))
    yield from memory_bound(settings.batch, settings.networks, settings.dry)
    yield from convolutions(settings.batch, settings.networks, settings.dry, (False,))


def set_precision(device: Device, precision: str) -> None:
    """Let float32 products be what `precision` says, in torch and in the native module."""
    word = PRECISIONS[precision][1]
    device.native.set_float32_precision(word)
    if device.torch is not None:
        device.torch.backends.cudnn.allow_tf32 = word == "high"
        device.torch.backends.cuda.matmul.allow_tf32 = word == "high"


def tensors(work: Work, device: Device, layout: str) -> dict[str, Any]:
    """The arrays as tensors; filters, too, are channels-last where the images are: torch's fastest way."""
    t = {name: device.to_torch(a) for name, a in work.arrays(device, layout).items()}
    if layout == "nhwc" and "w" in t and t["w"].ndim == 4:
        t["w"] = t["w"].to(memory_format=device.torch.channels_last)
    return t


def columns(work: Work) -> dict[str, Any]:
    """What a row says of its layer."""
    names = ("op", "layer", "way", "precision", "kind", "flops", "bytes")
    return {name: getattr(work, name) for name in names}


def times(found: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds and spread for each contestant; None in a dry run."""
    return {name: None if t is None else {"ms": t.ms, "spread": t.spread} for name, t in found.items()}


def copy(device: Device) -> dict[str, Any]:
    """Bytes read and written in a second by a copy of 2 GiB."""
    size = 1 << 16 if device.dry else _COPY_BYTES
    torch = device.torch
    source = torch.ones(size, dtype=torch.uint8, device="cpu" if device.dry else "cuda")
    target = torch.empty_like(source)
    (timing,) = device.time({"copy": lambda: target.copy_(source)}).values()
    return {"ceiling": "bytes/s", "value": None if timing is None else 2e3 * size / timing.ms}


def matrix(device: Device, precision: str) -> dict[str, Any]:
    """Operations in a second of a large matrix product of random numbers."""
    set_precision(device, precision)
    torch = device.torch
    side = 64 if device.dry else _SIDE // (2 if precision == "fp32" else 1)
    dtype = getattr(torch, PRECISIONS[precision][0])
    a, b = (torch.randn(side, side, device="cpu" if device.dry else "cuda").to(dtype) for _ in range(2))
    (timing,) = device.time({"product": lambda: a @ b}).values()
    return {"ceiling": f"FLOP/s {precision}", "value": None if timing is None else 2e3 * side**3 / timing.ms}


def absent() -> dict[str, Any]:
    raise Skip("torch is not installed, or sees no GPU")


def cases(device: Device, settings: Settings) -> Iterator[Case]:
    """Copies, and matrix products in each precision."""
    if device.torch is None:
        print("no torch: nothing to compare with", file=sys.stderr)
        yield Case("torch", absent)
        return
    yield Case("ceiling copy", partial(copy, device))
    for precision in PRECISIONS:
        yield Case(f"ceiling {precision}", partial(matrix, device, precision))
