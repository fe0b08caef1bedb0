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
GROUPS, GROUPS_WEIGHT, TILES = "warpgroup_gemm.cuh", "warpgroup_weight.cuh", "warpgroup.cuh"
LAST_WAIT = "    prim::async_wait<0>();\n    prim::warpgroup_wait(sums);\n"
FENCE = "      prim::async_wait<stages - 2>();\n      prim::fence_for_warpgroups();\n"
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
    Fault("warpgroups: missing barrier", GROUPS, BARRIER.replace("    ", "      ", 1), "", WRONG),
    Fault(
        "warpgroups: sums are not waited for", GROUPS, LAST_WAIT, "    prim::async_wait<0>();\n", "report: |" + WRONG
    ),
    Fault(
        "warpgroups: copies without a fence",
        GROUPS,
        FENCE,
        "      prim::async_wait<stages - 2>();\n",
        "report: .*fence",
    ),
    Fault("warpgroups: chunks in another order", TILES, "(chunk ^ (row & 7))", "chunk", WRONG),
    Fault("warpgroups: taps that a row does not meet", GROUPS, "lacks[i] = ~row.met", "lacks[i] = 0", WRONG),
    Fault("warpgroups: tap of before", GROUPS, "      tap++;\n", "", WRONG),
    Fault("warpgroups: part left out", TILES, "int both = Parts - 1;", "int both = Parts - 2;", WRONG),
    Fault("warpgroups: stage that is read", GROUPS, "keep(next, k);", "keep(stage, k);", WRONG),
    Fault("warpgroups: pixels beyond the end", GROUPS_WEIGHT, "* BK + thread < e.end};", "* BK >= 0};", WRONG),
    Fault("warpgroups: pixels of others", GROUPS_WEIGHT, "load(t + stages - 1, n", "load(t + stages, n", WRONG),
    Fault("warpgroups: columns of one block", GROUPS_WEIGHT, "right_eight / 8 * Memory::kBlock", "0", WRONG),
)


def probe(folder: Path, warpgroups: bool) -> str:
    """What the probe built from `folder` prints."""
    simulator = folder / "cuda" / "simt"
    program = folder / "probe"
    sources = [str(simulator / "fault_probe.cpp"), str(simulator / "simt.cpp")]
    which = f"-DWARPGROUPS={int(warpgroups)}"
    command = ["g++", "-std=c++17", "-O1", which, "-Wno-unknown-pragmas", "-o", str(program), *sources]
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


@pytest.mark.parametrize("warpgroups", (False, True))
def test_the_right_kernel_is_exact(sources, warpgroups):
    assert probe(sources, warpgroups).splitlines() == ["exact", "bank conflicts: 0"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_noticed(sources, fault):
    path = sources / "cuda" / fault.file
    text = path.read_text()
    assert text.count(fault.right) == 1, "the line to be spoilt has changed"
    path.write_text(text.replace(fault.right, fault.wrong))
    warpgroups = fault.name.startswith("warpgroups")
    assert re.search(fault.noticed, probe(sources, warpgroups)), "the simulator did not notice"
