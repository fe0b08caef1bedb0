"""Stage "build": the native modules into the source tree, with what is installed, without a network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_LAST = 30  # lines of a log that are kept


def _have_cuda_module(tree: Path) -> bool:
    """Whether the fastconv that Python finds, elsewhere than in the tree, has the module."""
    code = "import fastconv, fastconv._cuda; print(fastconv.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    return done.returncode == 0 and tree not in Path(done.stdout.strip()).parents


def run_group(command: list[str], seconds: float) -> tuple[int | None, str]:
    """Exit status and output of a command; None where it took longer, and then nothing that it started lives on."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=seconds)
            return process.returncode, printed
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0]


def build(tree: Path, seconds: float) -> tuple[str, str]:
    """Build `_cpu`, `_cuda` (for this machine's GPU) and the simulator; status and the end of the log.

    A later call builds what has changed, which is nothing in most cases.
    """
    if _have_cuda_module(tree):
        return "passed", "an installed fastconv has the CUDA module"
    cmake = shutil.which("cmake")
    if cmake is None or find_spec("pybind11") is None:
        return "failed", "needs cmake and pybind11 (pip install cmake ninja pybind11)"
    import pybind11

    folder = tree / "build" / "gpu-day"
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    configure = [
        *(
            cmake,
            "-S",
            str(tree),
            "-B",
            str(folder),
            "-DFASTCONV_INPLACE=ON",
            "-DFASTCONV_SIMT=ON",
            "-DFASTCONV_CUDA=ON",
        ),
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DCMAKE_CUDA_COMPILER={nvcc}",
        f"-DCMAKE_CUDA_ARCHITECTURES={_architecture()}",
        *(["-G", "Ninja"] if shutil.which("ninja") else []),
    ]
    log = ""
    for command in (configure, [cmake, "--build", str(folder), "--parallel", str(os.cpu_count() or 2)]):
        status, printed = run_group(command, seconds)
        if status is None:
            return "failed", f"not built within {seconds:.0f} s; call again, it goes on where it was"
        lines = [line for line in printed.splitlines() if not line.startswith(("ptxas info", "    ", "["))]
        log = "\n".join((lines or printed.splitlines())[-_LAST:])
        if status:
            return "failed", log
    return "passed", log


def _architecture() -> str:
    """The compute capability of the GPU, with the instructions of its own where it is 9.0."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        number = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()[0]
        number = number.strip().replace(".", "")
        return {"90": "90a-real"}.get(number, f"{int(number)}-real")
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return "80-real;90a-real;100-real;90-virtual"
