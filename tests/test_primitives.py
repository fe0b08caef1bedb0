"""The primitives of the CUDA kernels, one by one: the simulator's results against NumPy, and a probe for each."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from fastconv import backend

try:
    from fastconv.bench.gpu import primitives
except ModuleNotFoundError:  # a source tree: bench/ lies beside fastconv/
    from bench.gpu import primitives

SOURCES = Path(__file__).resolve().parent.parent / "csrc" / "cuda"
LANES = np.arange(32)

pytestmark = pytest.mark.skipif("cuda:simt" not in fc.available_backends(), reason="the simulator is not built")


def names():
    return backend.simulator().primitives() if "cuda:simt" in fc.available_backends() else []


def narrow(name):
    return np.dtype(ml_dtypes.bfloat16) if "bfloat16" in name else np.dtype(np.float16)


def each(function, kind=np.float32):
    with np.errstate(all="ignore"):
        return lambda words: function(words.view(kind)).astype(kind).view(np.uint32)


def rounded(name):
    with np.errstate(all="ignore"):
        return lambda words: words.view(np.float32).astype(narrow(name)).view(np.uint16).astype(np.uint32)


def widened(name):
    return lambda words: words.astype(np.uint16).view(narrow(name)).astype(np.float32).view(np.uint32)


def shuffled_down(words):
    values = words.view(np.float64).reshape(32, 16)
    steps = 1 << np.arange(16) % 5
    sources = LANES[:, None] + steps
    return np.take_along_axis(values, np.where(sources < 32, sources, LANES[:, None]), 0).reshape(-1).view(np.uint32)


def copied(words):
    chunks = words.reshape(-1, 4).copy()
    chunks[::3] = 0
    return chunks.reshape(-1)


def matrices_loaded(words):
    rows = words.reshape(8, 32, 4)[:, LANES * 5 % 32]  # the row that each lane gives the address of
    out = np.empty((8, 32, 4), np.uint32)
    for lane in LANES:
        for matrix in range(4):
            out[:, lane, matrix] = rows[:, 8 * matrix + lane // 4, lane % 4]
    return out.reshape(-1)


def transposed_matrices_loaded(words):
    rows = words.view(np.uint16).reshape(8, 32, 8)[:, LANES * 5 % 32]
    out = np.empty((8, 32, 4, 2), np.uint16)
    for lane in LANES:
        for matrix in range(4):
            for half in range(2):
                out[:, lane, matrix, half] = rows[:, 8 * matrix + 2 * (lane % 4) + half, lane // 4]
    return out.reshape(-1).view(np.uint32)


def multiplied(name):
    def product(words):
        halves = words.view(np.uint16).view(narrow(name)).astype(np.float32)
        a, b = np.empty((16, 16), np.float32), np.empty((16, 8), np.float32)
        d = words[192:320].view(np.float32).reshape(32, 4).copy()
        for lane in LANES:
            row, pair = lane // 4, lane % 4 * 2
            for i in range(2):
                for v in range(4):
                    a[row + v % 2 * 8, pair + v // 2 * 8 + i] = halves[8 * lane + 2 * v + i]
                for v in range(2):
                    b[pair + 8 * v + i, row] = halves[256 + 4 * lane + 2 * v + i]
        sums = a @ b
        for lane in LANES:
            for v in range(4):
                d[lane, v] += sums[lane // 4 + v // 2 * 8, lane % 4 * 2 + v % 2]
        return np.concatenate([d.reshape(-1).view(np.uint32), np.zeros(1024 - 128, np.uint32)])

    return product


def warpgroup_multiplied(name):
    def product(words):
        halves = words.view(np.uint16).view(narrow(name)).astype(np.float32)
        sums = halves[: 64 * 16].reshape(64, 16) @ halves[64 * 16 : 96 * 16].reshape(32, 16).T
        d = np.arange(128)[:, None] % 7 + np.arange(16)
        for thread in range(128):
            for v in range(16):
                row = thread // 32 * 16 + thread % 32 // 4 + v % 4 // 2 * 8
                d[thread, v] += int(sums[row, v // 4 * 8 + thread % 4 * 2 + v % 2])
        return np.ascontiguousarray(d.astype(np.int16)).view(np.uint32).reshape(-1)

    return product


EXPECTED = {
    "from_accumulator float16": rounded("float16"),
    "from_accumulator bfloat16": rounded("bfloat16"),
    "to_accumulator float16": widened("float16"),
    "to_accumulator bfloat16": widened("bfloat16"),
    "multiply_add": each(lambda v: np.where(np.isinf(v), np.nan, v * np.float32(0.5))),
    "larger_magnitude": each(lambda v: np.fmax(np.float32(1), np.abs(v))),
    "square_root float32": each(np.sqrt),
    "square_root float64": each(np.sqrt, np.float64),
    "power float32": each(lambda v: v.astype(np.float64) ** -0.75),
    "power float64": each(lambda v: v**-0.75, np.float64),
    "is_finite": lambda words: np.isfinite(words.view(np.float32)).astype(np.uint32),
    "atomic_max": lambda words: np.full(1024, words.max()),
    "shuffle_down": shuffled_down,
    "async_copy_16": copied,
    "load_matrices": matrices_loaded,
    "load_matrices_transposed": transposed_matrices_loaded,
    "multiply_16816 float16": multiplied("float16"),
    "multiply_16816 bfloat16": multiplied("bfloat16"),
    "warpgroup_multiply float16": warpgroup_multiplied("float16"),
    "warpgroup_multiply bfloat16": warpgroup_multiplied("bfloat16"),
    "warpgroup_multiply across float16": warpgroup_multiplied("float16"),
    "warpgroup_multiply across bfloat16": warpgroup_multiplied("bfloat16"),
}


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("schedule", ("up", "down", "shuffled"))
@pytest.mark.parametrize("name", names())
def test_the_simulator_does_what_the_primitive_means(name, schedule):
    words = primitives.words(name)
    assert words.shape == (1024,) and words.dtype == np.uint32
    result = primitives.simulated(name, schedule)
    assert primitives.difference(name, result, EXPECTED[name](words)) == ""
    spoilt = result.copy()
    spoilt[-1 if name != "multiply_16816 float16" else 3] ^= 1 << 30
    assert primitives.difference(name, spoilt, result) != ""


def test_every_primitive_has_a_probe():
    text = (SOURCES / "prims.cuh").read_text()
    found = set(re.findall(r"FC_DEVICE \w+\*? (\w+)\(", text)) | set(re.findall(r"FC_DEVICE T (\w+)\(", text))
    probes = (SOURCES / "primitive_probe.cu").read_text()
    indirect = {"shared_address", "run"}  # of async_copy_16, load_matrices and warpgroup_multiply
    assert {name for name in found - indirect if f"prim::{name}" not in probes} == set()
    assert len(found) > 10


def test_refusals():
    simulator = backend.simulator()
    words = np.zeros(1024, np.uint32)
    with pytest.raises(ValueError, match=r"name must be one of primitives\(\), got 'nothing'"):
        simulator.run_primitive("nothing", words, words.copy())
    for wrong in (words[:100], words.astype(np.int64), words.reshape(32, 32)):
        with pytest.raises(ValueError, match="output must be 1024 uint32"):
            simulator.run_primitive("is_finite", words, wrong)
