"""``fastconv info``: what this installation computes with, and why."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .output import add_json, print_json

_EXAMPLES = """examples:
  fastconv info            for people
  fastconv info --json     for scripts and bug reports
"""


def add_parser(verbs: Any) -> None:
    """Add ``info`` to the program's verbs."""
    parser = verbs.add_parser(
        "info",
        help="versions, instruction set and why, threads and why",
        description="Print versions, instruction set and threads with the reasons for both, OpenMP, compiler.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report."""
    report = collect()
    if arguments.json:
        print_json(report)
        return 0
    for key, value in report.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, text in value.items():
                print(f"  {inner}: {_text(text)}")
        else:
            print(f"{key}: {_text(value)}")
    return 0


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)


def collect() -> dict[str, Any]:
    """The report as a dictionary of plain values."""
    from .. import config

    report = dict(config.configuration())
    report["openmp_runtime"] = _openmp_runtimes() or "none loaded"
    report["optional"] = {
        name: _version(name) for name in ("scikit-learn", "matplotlib", "tqdm", "safetensors", "torch")
    }
    report["optional"]["ml_dtypes"] = _version("ml_dtypes")
    report["cupy"] = _cupy() or "not installed"
    report["cuda"] = "this build computes on the CPU"
    report["executable"] = sys.executable
    return report


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cupy() -> str | None:
    """CuPy's wheels are named after the CUDA release, and importing CuPy would touch the driver."""
    for name in ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x"):
        version = _version(name)
        if version != "not installed":
            return f"{name} {version}"
    return None


def _openmp_runtimes() -> list[str]:
    """OpenMP libraries in this process: other packages', whose threads may spin on the cores that ours need."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count(" ") >= 5 and "/" in line}
    return sorted(path for path in paths if Path(path).name.startswith(("libgomp", "libomp", "libiomp")))
