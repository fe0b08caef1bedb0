"""What nvcc says of every kernel instance, without a GPU: registers, spills, and the instructions of its PTX."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

# Groups of PTX instructions that are counted; the first that fits.
GROUPS = {
    "mma": re.compile(r"mma\.sync|wgmma\.mma"),
    "ldmatrix": re.compile(r"ldmatrix"),
    "cp.async": re.compile(r"cp\.async\.c[ag]|cp\.async\.bulk"),
    "fma": re.compile(r"fma\."),
    "ld.global": re.compile(r"ld\.global"),
    "st.global": re.compile(r"st\.global"),
    "ld.shared": re.compile(r"ld\.shared"),
    "st.shared": re.compile(r"st\.shared"),
    "barrier": re.compile(r"bar(rier)?\.sync"),
    "div": re.compile(r"(div|rem)\.[su]64"),
}
_NOISE = re.compile(r"fastconv::cuda::|\(anonymous namespace\)::|^void |\(.*$")


class Kernel(NamedTuple):
    """One compiled instance."""

    name: str
    registers: int
    spilled: int
    instructions: int  # of the PTX: each as often as it is written, whatever the loops
    counts: dict[str, int]


def registers(log: str) -> dict[str, tuple[int, int]]:
    """Registers and spilled bytes by mangled name, of the output of ``ptxas -v``."""
    entry = re.compile(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        re.S,
    )
    return {name: (int(used), int(stores) + int(loads)) for name, stores, loads, used in entry.findall(log)}


def instructions(ptx: str) -> dict[str, tuple[int, dict[str, int]]]:
    """Instructions by mangled name: all, and by group.

    >>> instructions(".visible .entry k(\\n)\\n{\\n fma.rn.f32 %f1, %f2, %f3, %f4;\\n ret;\\n}\\n")["k"][1]["fma"]
    1
    """
    found = {}
    for name, body in re.findall(r"\.entry (\w+)\(.*?^\{(.*?)^\}", ptx, re.S | re.M):
        lines = [re.sub(r"^@!?%p\d+\s+", "", line.strip()) for line in body.splitlines()]
        lines = [line for line in lines if re.match(r"[a-z]", line)]
        counts = dict.fromkeys(GROUPS, 0)
        for line in lines:
            group = next((group for group, pattern in GROUPS.items() if pattern.match(line)), None)
            if group is not None:
                counts[group] += 1
        found[name] = len(lines), counts
    return found


def readable(names: Iterable[str]) -> list[str]:
    """C++ names without their name spaces."""
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [_NOISE.sub("", line) for line in text.splitlines()]


def compile_one(source: Path, architecture: str) -> list[Kernel]:
    """The kernels of one source for one target."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "nvcc",
            "-std=c++17",
            "-O3",
            "-Xptxas=-v",
            f"-gencode=arch=compute_{architecture},code=sm_{architecture}",
        ]
        command += ["--keep", f"--keep-dir={folder}", "-cubin", "-o", f"{folder}/out.cubin", str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{source.name} does not compile: {done.stderr[-2000:]}")
        used = registers(done.stdout + done.stderr)
        counted = instructions(next(Path(folder).glob("*.ptx")).read_text(encoding="utf-8"))
    names = [name for name in counted if name in used]
    return [Kernel(text, *used[name], *counted[name]) for name, text in zip(names, readable(names), strict=True)]


def census(tree: Path, architecture: str = "90a") -> list[Kernel] | None:
    """All kernels of the tree, by name; None where there is no nvcc."""
    if shutil.which("nvcc") is None or shutil.which("c++filt") is None:
        return None
    sources = sorted((tree / "csrc" / "cuda").glob("*.cu"))
    with ThreadPoolExecutor(2) as pool:
        found = [kernel for kernels in pool.map(lambda s: compile_one(s, architecture), sources) for kernel in kernels]
    return sorted((k for k in found if not k.name.startswith("primitive_kernel")), key=lambda k: k.name)


def table(kernels: list[Kernel]) -> list[str]:
    """Markdown: one row an instance."""
    lines = [f"| kernel | registers | spilled | PTX | {' | '.join(GROUPS)} |", "|---|" + "---:|" * (3 + len(GROUPS))]
    for k in kernels:
        cells = [k.registers, k.spilled, k.instructions, *(k.counts[group] or "" for group in GROUPS)]
        lines.append(f"| `{k.name}` | {' | '.join(map(str, cells))} |")
    return lines
