"""Stage "sanitizer": compute-sanitizer's tools over a call of every function, at tiny shapes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .device import Device
from .stage import Case, Settings, Skip

TOOLS = ("memcheck", "racecheck", "synccheck")
_FOUND = 99  # compute-sanitizer's exit status where it found something
_PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")


def _program() -> str | None:
    return shutil.which("compute-sanitizer") or next(
        (str(p) for p in (Path(place, "compute-sanitizer") for place in _PLACES) if p.exists()), None
    )


def _last(m: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(m, 1, -1)), -1, 1)


def call_everything(dry: bool) -> int:
    """Call every backend function in every dtype, convolutions in both layouts and with every tile; count the calls.

    Every array has an allocation of its own, so that the sanitizer sees an access beyond it.
    """
    from fastconv.cases import available_dtypes
    from hostile import VALID

    device, count = Device(dry), 0
    if not dry:
        device.library.cuda.set_allocator(None)
    for dtype in available_dtypes().values():
        for function, arguments in VALID.items():
            values = [_typed(kind, value, dtype) for _, kind, value in arguments]
            getattr(device.kernels, function)(*map(partial(_there, device), values))
            count += 1
        rng = np.random.default_rng(1)
        x, w, dy = (rng.standard_normal(s).astype(dtype) for s in ((2, 16, 7, 6), (24, 16, 3, 3), (2, 24, 7, 6)))
        for tile in ("small", "large"):
            device.native.set_conv_tile(tile)
            for arrange in (np.ascontiguousarray, _last):
                a, b, c = (_there(device, m) for m in (arrange(x), w, arrange(dy)))
                device.kernels.conv_forward(a, b, None, 1, 1, 1, 1, 2)
                device.kernels.conv_backward_input(c, b, x.shape, 1, 1, 1, 1, 2)
                device.kernels.conv_backward_weight(c, a, w.shape, 1, 1, 1, 1, 2)
                count += 3
        device.native.set_conv_tile("by_shape")
    device.synchronize()
    return count


def _typed(kind: str, value: Any, dtype: np.dtype) -> Any:
    if isinstance(value, list | tuple):  # the stages of a chain
        return type(value)(_typed(kind, each, dtype) for each in value)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    wide = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    return value.astype(wide if kind in ("moment",) else dtype)


def _there(device: Device, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_there(device, each) for each in value)
    return device.array(value) if isinstance(value, np.ndarray) else value


def _run(settings: Settings, tool: str | None) -> dict[str, Any]:
    command = [sys.executable, sys.argv[0], "--call-everything", *(["--dry-run"] if settings.dry else [])]
    if tool is not None:
        program = _program()
        if program is None:
            raise Skip("compute-sanitizer is not installed")
        command = [program, "--tool", tool, "--error-exitcode", str(_FOUND), *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if "Device not supported" in done.stdout:
        raise Skip("compute-sanitizer does not support this device here")
    if done.returncode:
        raise ValueError(f"exit status {done.returncode}:\n{_tail(done.stdout)}")
    return {"note": _tail(done.stdout, 1)}


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def cases(device: Device, settings: Settings) -> Iterator[Case]:
    """The calls by themselves, then under one tool after the other."""
    yield Case("calls", partial(_run, settings, None))
    if not settings.dry:
        for tool in TOOLS:
            yield Case(tool, partial(_run, settings, tool))
