"""Stage "primitives": each primitive of csrc/cuda/prims.cuh on the GPU against the simulator's result."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from fastconv import backend

from .device import Device
from .stage import Case, Settings

_WORDS = 1024
# Relative error of functions that the two compute by different means.
_APPROXIMATE = {"power float32": 1e-5, "power float64": 1e-12}


def words(name: str) -> np.ndarray:
    """The input of a primitive: bits of any float, or what its arithmetic keeps exact."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.startswith("warpgroup"):
        small = rng.integers(-4, 5, 2 * _WORDS).astype(np.float32)
        bits = small.view(np.uint32) >> 16 if "bfloat16" in name else small.astype(np.float16).view(np.uint16)
        return bits.astype(np.uint16).view(np.uint32).copy()
    if name.startswith("multiply"):  # a, b: pairs of 16-bit integers from -4 to 4; d: float integers
        small = rng.integers(-4, 5, 2 * _WORDS).astype(np.float32)
        bits = small.view(np.uint32) >> 16 if "bfloat16" in name else small.astype(np.float16).view(np.uint16)
        packed = bits.astype(np.uint16).view(np.uint32)[:_WORDS].copy()
        packed[192:] = rng.integers(-99, 100, _WORDS - 192).astype(np.float32).view(np.uint32)
        return packed
    if "float64" in name or name == "shuffle_down":
        values = np.exp(rng.uniform(-30, 30, _WORDS // 2))
        values[:4] = 0, np.inf, 1, 2.0**-1060
        return values.view(np.uint32)
    if name.startswith(("square_root", "power")):
        values = np.exp(rng.uniform(-30, 30, _WORDS)).astype(np.float32)
        values[:3] = 0, np.inf, 1
        return values.view(np.uint32)
    bits = rng.integers(0, 1 << 32, _WORDS, dtype=np.uint32)
    if name.startswith("from_accumulator"):  # the exponents of either 16-bit format, ties, and the special values
        scale = np.exp2(rng.integers(-30, 20, _WORDS)).astype(np.float32)
        values = rng.integers(-(1 << 12), 1 << 12, _WORDS).astype(np.float32) * scale
        values[:6] = 0, -0.0, np.inf, -np.inf, np.nan, 65520
        bits[: _WORDS // 2] = values.view(np.uint32)[: _WORDS // 2]
    return bits


def difference(name: str, actual: np.ndarray, expected: np.ndarray) -> str:
    """What is wrong with the words of a primitive; empty where they agree. Any NaN is as good as another."""
    kind = np.float64 if "float64" in name else np.float32
    if name in _APPROXIMATE or name.startswith(("to_accumulator", "square_root")):
        a, e = actual.view(kind), expected.view(kind)
        with np.errstate(invalid="ignore"):
            same = (a == e) | (np.isnan(a) & np.isnan(e)) | (np.abs(a - e) <= _APPROXIMATE.get(name, 0) * np.abs(e))
    elif name.startswith("from_accumulator"):
        infinity = 0x7F80 if "bfloat16" in name else 0x7C00
        both = (actual & 0x7FFF > infinity) & (expected & 0x7FFF > infinity)
        a, e, same = actual, expected, (actual == expected) | both
    else:
        a, e, same = actual, expected, actual == expected
    wrong = np.flatnonzero(~same)
    if wrong.size == 0:
        return ""
    return f"{wrong.size} of {a.size} differ, first at {wrong[0]}: {a[wrong[0]]!r}, the simulator has {e[wrong[0]]!r}"


def simulated(name: str, schedule: str = "up") -> np.ndarray:
    """The simulator's words."""
    simulator: Any = backend.simulator()
    simulator.set_schedule(schedule)
    try:
        return simulator.run_primitive(name, words(name), np.zeros(_WORDS, np.uint32))
    finally:
        simulator.set_schedule("rotate")


def check(device: Device, name: str) -> dict[str, Any]:
    """One primitive; ValueError where the two disagree."""
    expected = simulated(name)
    given, result = device.array(words(name)), device.array(np.zeros(_WORDS, np.uint32))
    if device.dry:
        backend.simulator().set_schedule("down")
    device.kernels.run_primitive(name, given, result)
    problem = difference(name, device.host(result), expected)
    if problem:
        raise ValueError(problem)
    return {}


def cases(device: Device, settings: Settings) -> Iterator[Case]:
    """One case a primitive."""
    for name in device.native.primitives():
        yield Case(name, partial(check, device, name))
