#!/usr/bin/env python3
"""The GPU day: ``python bench/gpu_day.py [--dry-run]`` in the source tree; ``--help`` and bench/README.md say more."""

import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent


def run() -> int:
    """Start the program of the installed package, or else of the tree."""
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != TREE / "bench"]  # its modules are bench's
    try:
        from fastconv.bench.gpu.program import main
    except ModuleNotFoundError:
        if str(TREE) not in sys.path:
            sys.path.insert(0, str(TREE))
        from bench.gpu.program import main
    return main(sys.argv[1:], TREE, [sys.executable, str(Path(__file__).resolve())])


if __name__ == "__main__":
    sys.exit(run())
