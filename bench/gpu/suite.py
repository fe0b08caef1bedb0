"""Stage "suite": ``fastconv verify --backend cuda``, and the tests that run over every backend, on the GPU."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

from .device import Device
from .sanitizer import _tail
from .stage import Case, Settings, Skip

_BACKENDS = re.compile(r"def \w+\([^)]*\b(kernel_)?backend\b")  # the fixtures that take each backend in turn
_NO_TESTS = 5  # pytest's exit status


def _verify(families: list[str], quick: bool) -> dict[str, Any]:
    from fastconv.cli import main

    options = [part for family in families for part in ("--op", family)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = main(["verify", "--backend", "cuda", *options, *(["--quick"] if quick else [])])
    if status:
        raise ValueError(_tail(printed.getvalue()))
    return {"note": _tail(printed.getvalue(), 1)}


def _tests(settings: Settings, file: str) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        "-k",
        "cuda and not simt",
    ]
    if settings.dry:
        command += ["-p", "fake_gpu"]
    elif find_spec("xdist"):
        command += ["-n", "8"]
    done = subprocess.run(
        [*command, f"tests/{file}"], cwd=settings.tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode == _NO_TESTS:
        raise Skip("no test of this file is for the GPU")
    if done.returncode:
        raise ValueError(_tail(done.stdout, 40))
    return {"note": _tail(done.stdout, 1)}


def files(settings: Settings) -> list[str]:
    """The test files whose tests take a backend, those of the kernels first."""
    tests = sorted((settings.tree / "tests").glob("test_*.py"))
    found = [path.name for path in tests if _BACKENDS.search(path.read_text(encoding="utf-8"))]
    kernels = ("activation", "conv", "linear", "local_response", "norm", "pool")
    return sorted(found, key=lambda name: not name.removeprefix("test_").startswith(kernels))


def operations() -> list[str]:
    """The operations of ``verify``."""
    from fastconv.cases import all_cases

    return sorted({case.op for case in all_cases(random_cases=0)})


def cases(device: Device, settings: Settings) -> Iterator[Case]:
    """``verify`` operation by operation, then one test file after the other."""
    for operation in ["relu_forward", "batch_norm_backward"] if settings.dry else operations():
        yield Case(f"verify {operation}", partial(_verify, [operation], settings.dry))
    for file in ["test_local_response_norm.py"] if settings.dry else files(settings):
        yield Case(file, partial(_tests, settings, file))
