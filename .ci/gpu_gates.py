#!/usr/bin/env python3
"""What can be held against the CUDA kernels without a GPU: they compile without a warning for every target, keep their
values in registers, and leave assembly to one file. Prints the table that it checks.

usage: gpu_gates.py [--targets 80,90a,100] [--table FILE.md]

Needs nvcc and c++filt. Prints a table of each kernel instance's registers, with its spilled bytes and its stack where
it has any.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "csrc" / "cuda"
# Two instances save a register or two around the subroutine of a 64-bit division, before their loop; others nothing.
MOST_SPILLED_BYTES = 16
MOST_OBJECT_BYTES = 20 << 20  # of all objects together
FLAGS = [
    "-std=c++17",
    "-O3",
    "-Werror=all-warnings",
    "-Xptxas=-v",
    "--compress-mode=size",
    "-Xcompiler=-fPIC",
]
OUTSIDE_PRIMITIVES = re.compile(r"\basm\b|\b__(shfl|activemask|ballot|cvt|half2|float2|ld[cg]|syncwarp|shared__)")


class Kernel(NamedTuple):
    """One compiled instance: what ptxas says of it."""

    target: str
    name: str
    registers: int
    spilled: int
    stack: int


def strays() -> list[str]:
    """Lines with assembly or intrinsics outside prims.cuh."""
    found = []
    for path in sorted([*SOURCES.glob("*.cu"), *SOURCES.glob("*.cuh"), *SOURCES.glob("*.h")]):
        if path.name == "prims.cuh":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if OUTSIDE_PRIMITIVES.search(line.partition("//")[0]):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


def parse(log: str) -> list[Kernel]:
    """Kernels in the output of ptxas -v."""
    kernels = []
    entry = re.compile(
        r"Compiling entry function '(\w+)' for 'sm_(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        re.S,
    )
    for name, target, stack, stores, loads, registers in entry.findall(log):
        kernels.append(Kernel(target, name, int(registers), int(stores) + int(loads), int(stack)))
    return kernels


def compile_all(targets: list[str], folder: Path) -> tuple[list[Kernel], int]:
    """Compile each source for all targets, two at a time; kernels and the size of the objects."""
    generate = [f"-gencode=arch=compute_{t},code=sm_{t}" for t in targets]
    generate.append("-gencode=arch=compute_90,code=compute_90")

    def compile_one(source: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
        target = folder / f"{source.stem}.o"
        command = ["nvcc", *FLAGS, *generate, "-c", str(source), "-o", str(target)]
        return source, subprocess.run(command, capture_output=True, text=True)

    kernels: list[Kernel] = []
    with ThreadPoolExecutor(2) as pool:
        for source, run in pool.map(compile_one, sorted(SOURCES.glob("*.cu"))):
            log = run.stdout + run.stderr
            if run.returncode:
                sys.exit(f"{source.name} does not compile:\n{log}")
            kernels += parse(log)
    return kernels, sum(path.stat().st_size for path in folder.iterdir())


def readable(names: list[str]) -> list[str]:
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    drop = re.compile(r"\(anonymous namespace\)::|fastconv::cuda::|void |\(.*$")
    return [drop.sub("", line.replace("(anonymous namespace)::", "")) for line in text.splitlines()]


def table(kernels: list[Kernel]) -> str:
    """Markdown: one row an instance; registers, spilled bytes and stack by target."""
    targets = sorted({k.target for k in kernels})
    names = sorted({k.name for k in kernels})
    found = {(k.name, k.target): k for k in kernels}

    def cell(name: str, target: str) -> str:
        if (k := found.get((name, target))) is None:
            return ""
        more = [f", {size} B {what}" for size, what in ((k.spilled, "spilled"), (k.stack, "stack")) if size]
        return f"{k.registers}{''.join(more)}"

    rows = [f"| kernel | {' | '.join(f'sm_{t}' for t in targets)} |", "|---|" + "---:|" * len(targets)]
    for name, text in sorted(zip(names, readable(names)), key=lambda pair: pair[1]):
        rows.append(f"| `{text}` | {' | '.join(cell(name, t) for t in targets)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="80,90a,100", help="compute capabilities (default: %(default)s)")
    parser.add_argument("--table", metavar="FILE.md", help="write the table there")
    options = parser.parse_args()
    problems = [f"assembly or intrinsics outside prims.cuh: {line}" for line in strays()]
    with tempfile.TemporaryDirectory() as folder:
        kernels, size = compile_all(options.targets.split(","), Path(folder))
    if not kernels:
        sys.exit("no kernels in the output of ptxas")
    problems += [
        f"{k.name} for sm_{k.target} spills {k.spilled} bytes" for k in kernels if k.spilled > MOST_SPILLED_BYTES
    ]
    if size > MOST_OBJECT_BYTES:
        problems.append(f"the objects take {size} bytes, the limit is {MOST_OBJECT_BYTES}")
    text = table(kernels)
    if options.table:
        Path(options.table).write_text(f"# Registers of each kernel instance (nvcc, no GPU needed)\n\n{text}\n")
    most = max(kernels, key=lambda k: k.registers)
    print(text)
    print(
        f"{len(kernels)} kernel instances for {options.targets}; most registers: {most.registers}; "
        f"most bytes spilled: {max(k.spilled for k in kernels)}"
    )
    print(f"objects: {size / 1e6:.1f} MB")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
