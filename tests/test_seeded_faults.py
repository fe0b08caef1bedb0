"""Mistakes put into the tensor-core kernel on purpose: the simulator has to notice each of them.

Each test changes one line of a copy of the sources, builds ``csrc/cuda/simt/fault_probe.cpp`` with g++ and runs it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

import fastconv as fc

CSRC = Path(__file__).resolve().parent.parent / "csrc"

pytestmark = [
    pytest.mark.skipif("cuda:simt" not in fc.available_backends(), reason="the simulator is not built"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


class Fault(NamedTuple):
    """One replacement in `file`, and what the probe must then print."""

    name: str
    file: str
    right: str
    wrong: str
    noticed: str


MATRIX, GATHER, PROBLEM = "matrix_gemm.cuh", "gather_gemm.cuh", "slide_problem.cuh"
WEIGHT, WEIGHT_PROBLEM = "matrix_weight.cuh", "weight_problem.cuh"
BARRIER = "    __syncthreads();  // tile t is there for all, and nobody reads the stage that is loaded next\n"
WRONG = r"wrong: \d+ results"
FAULTS = (
    Fault("missing barrier", MATRIX, BARRIER, "", WRONG),
    Fault("wait that leaves one group too many", MATRIX, "async_wait<stages - 2>", "async_wait<stages - 1>", WRONG),
    Fault("load into the stage that is read", MATRIX, "int(next % stages)", "int(t % stages)", WRONG),
    Fault("swapped fragments", MATRIX, "b[2 * j][1] = two[1]", "b[2 * j][1] = two[2]", WRONG),
    Fault("missing final wait", MATRIX, "  prim::async_wait<0>();\n", "", "report: .*asynchronous copies in flight"),
    Fault(
        "halo one too wide",
        GATHER,
        "< std::uint64_t(p.gathered.size[2])",
        "<= std::uint64_t(p.gathered.size[2])",
        WRONG,
    ),
    Fault("unguarded tail of the sum", MATRIX, "within = k < e.end", "within = true", WRONG),
    Fault(
        "barrier that half of the threads meet",
        MATRIX,
        BARRIER,
        "    if (threadIdx.x < 64) __syncthreads();\n",
        "report: .*(divergent barrier|partial warp|returned|wrong)|" + WRONG,
    ),
    Fault("no permutation of chunks", MATRIX, "(chunk ^ (row >> 1 & 3))", "chunk", r"bank conflicts: [1-9]"),
    Fault(
        "half a warp in a collective",
        MATRIX,
        "prim::load_matrices(r, left",
        "if (lane < 16) prim::load_matrices(r, left",
        "report: ",
    ),
    Fault(
        "chunk off its 16 bytes",
        MATRIX,
        "&shared.left[stage][chunk_offset<T>(i, chunk)]",
        "&shared.left[stage][chunk_offset<T>(i, chunk) + 1]",
        "report: .*misaligned",
    ),
    Fault(
        "a part of a float32 left out",
        MATRIX,
        "q < Parts; q++)\n              if",
        "q < 2; q++)\n              if",
        WRONG,
    ),
    Fault("parts of other sums", MATRIX, "b[j][0][both - q], b[j][1]", "b[j][0][both - q], b[j][0]", WRONG),
    Fault("values in another order", MATRIX, "right_chunks(high, j, 2)", "right_chunks(high, j, 0)", WRONG),
    Fault("rest of a part", MATRIX, "prim::float_of(y & upper)", "prim::float_of(x & upper)", WRONG),
    Fault("stride of the taps", PROBLEM, "s.at[d] = f.tap_move * j[d]", "s.at[d] = j[d] + 1", WRONG),
    Fault("no carry from step to step", GATHER, "c.digit[d - 1]++", "c.digit[d - 1] += 0", WRONG),
    Fault("unguarded end of a split", WEIGHT, "within = k < e.end", "within = true", WRONG),
    Fault("transposed matrices in another order", WEIGHT, "k + matrix / 2 * 8", "k + matrix % 2 * 8", WRONG),
    Fault("pixels without permutation", WEIGHT, "pixel & 7", "0", r"bank conflicts: [1-9]"),
    Fault("channels that are no eight", WEIGHT, "m : e.rows - 8", "m : e.rows - 1", "report: .*misaligned"),
    Fault("second split begins with the first", WEIGHT_PROBLEM, "first = q.split * split", "first = 0", WRONG),
)


def probe(folder: Path) -> str:
    """What the probe built from `folder` prints."""
    simulator = folder / "cuda" / "simt"
    program = folder / "probe"
    sources = [str(simulator / "fault_probe.cpp"), str(simulator / "simt.cpp")]
    command = ["g++", "-std=c++17", "-O1", "-Wno-unknown-pragmas", "-o", str(program), *sources]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return subprocess.run([str(program)], check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def sources(tmp_path):
    for name in ("cuda", "ops.h", "shapes.h", "context.h"):
        source = CSRC / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


def test_the_right_kernel_is_exact(sources):
    assert probe(sources).splitlines() == ["exact", "bank conflicts: 0"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_noticed(sources, fault):
    path = sources / "cuda" / fault.file
    text = path.read_text()
    assert text.count(fault.right) == 1, "the line to be spoilt has changed"
    path.write_text(text.replace(fault.right, fault.wrong))
    assert re.search(fault.noticed, probe(sources)), "the simulator did not notice"
