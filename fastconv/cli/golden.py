"""Golden outputs: ``fastconv verify --save`` and ``--check``.

An .npz file with one array an output and a JSON header. Inputs are not stored: they follow from the seed, and a
checksum notices where another NumPy draws other numbers. Two right results may lie on both sides of the exact one, so
the bound of the comparison is twice that of `verify`.
"""

from __future__ import annotations

import argparse
import json
import time
import zipfile
import zlib
from typing import Any

import numpy as np

from ..progress import progress
from .verify import RANDOM_CASES, Row, Selection, attempt, report, row, select

_FORMAT = "fastconv golden outputs 1"
_HEADER = "header"
# The largest output of the table is far below; a file that claims more is damaged.
_LARGEST_MEMBER = 64 << 20


def _checksum(arguments: tuple[Any, ...]) -> int:
    total = 0
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            total = zlib.crc32(np.ascontiguousarray(argument).tobytes(), total)
    return total


def _one_backend(arguments: argparse.Namespace, selection: Selection) -> str:
    return selection.backends[0] if arguments.backend else selection.backends[-1]


def save(arguments: argparse.Namespace, selection: Selection) -> int:
    """Write the outputs of one backend."""
    from .. import __version__, backend

    if not selection.cases:
        raise ValueError("nothing to save: no case matches the options")
    name = _one_backend(arguments, selection)
    entries: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    work = [(case, dtype) for case in selection.cases for dtype in selection.dtypes]
    with backend.use_backend(name) as module:
        for case, dtype in progress(work, len(work), "save", not arguments.json):
            values = case.arguments(arguments.seed, selection.dtypes[dtype])
            inputs = _checksum(values)
            outputs = case.run(module, values)
            for number, y in enumerate(outputs):
                arrays[f"{len(entries)}.{number}"] = y.view(np.uint16) if y.dtype.name == "bfloat16" else y
            entries.append({"case": case.name, "dtype": dtype, "inputs": inputs, "outputs": len(outputs)})
    header = {
        "format": _FORMAT,
        "fastconv": __version__,
        "backend": name,
        "seed": arguments.seed,
        "effort": arguments.effort,
        "entries": entries,
    }
    arrays[_HEADER] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with open(arguments.save, "wb") as file:
        np.savez_compressed(file, **arrays)
    if arguments.json:
        from .output import print_json

        print_json({"saved": arguments.save, "backend": name, "cases": len(entries), "seed": arguments.seed})
    else:
        print(f"{arguments.save}: outputs of {len(entries)} cases, backend {name}, seed {arguments.seed}")
    return 0


class _File:
    """A golden file; every damage is a ValueError that names it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.archive = self._guard(lambda: zipfile.ZipFile(path))
        header = self.read(_HEADER)
        try:
            self.header = json.loads(header.tobytes().decode())
            self.entries = [
                (str(e["case"]), str(e["dtype"]), int(e["inputs"]), int(e["outputs"])) for e in self.header["entries"]
            ]
            self.seed, self.effort = int(self.header["seed"]), str(self.header["effort"])
            known = self.header["format"] == _FORMAT
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: the header is damaged ({error!r})") from error
        if not known:
            raise ValueError(f"{path}: not written by `fastconv verify --save` of this version")

    def _guard(self, action: Any) -> Any:
        try:
            return action()
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            ValueError,
            KeyError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise ValueError(f"{self.path}: not a golden file, or damaged ({error})") from error

    def read(self, name: str, like: np.ndarray | None = None) -> np.ndarray:
        """One array; `like` states the shape and dtype that it has to have, before anything is allocated."""
        return self._guard(lambda: self._read(name, like))

    def _read(self, name: str, like: np.ndarray | None) -> np.ndarray:
        member = self.archive.getinfo(f"{name}.npy")
        if member.file_size > _LARGEST_MEMBER:
            raise ValueError(f"{name} claims {member.file_size} bytes")
        with self.archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"{name} has the .npy version {version}")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype.hasobject:
                raise ValueError(f"{name} holds Python objects")
            if like is not None and (shape, dtype) != (like.shape, like.dtype):
                raise ValueError(f"{name} is {dtype} {shape}, expected {like.dtype} {like.shape}")
            content = file.read()
        if len(content) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
            raise ValueError(f"{name} has {len(content)} bytes, which do not fill the shape {shape}")
        flat = np.frombuffer(content, dtype=dtype)
        return flat.reshape(shape, order="F" if fortran else "C")


def check(arguments: argparse.Namespace) -> int:
    """Compute the cases of a golden file again and compare."""
    from .. import backend
    from ..cases import Expected, all_cases

    started = time.perf_counter()
    golden = _File(arguments.check)
    arguments.seed, arguments.effort = golden.seed, golden.effort
    if golden.effort not in RANDOM_CASES:
        raise ValueError(f"{arguments.check}: the header is damaged (effort {golden.effort!r})")
    selection = select(arguments, whole=True)
    cases = {case.name: case for case in all_cases(golden.seed, RANDOM_CASES[golden.effort])}
    chosen = {case.name for case in selection.cases}
    rows: list[Row] = []
    name = _one_backend(arguments, selection)
    work = [(number, *entry) for number, entry in enumerate(golden.entries)]
    for number, case_name, dtype_name, inputs, count in progress(work, len(work), "check", not arguments.json):
        if case_name not in cases:
            raise ValueError(f"{arguments.check}: the case {case_name!r} is not in this version's table")
        if case_name not in chosen or dtype_name not in selection.dtypes:
            continue
        case, dtype = cases[case_name], selection.dtypes[dtype_name]
        values = case.arguments(golden.seed, dtype)
        if _checksum(values) != inputs:
            raise ValueError(f"{arguments.check}: the inputs of {case_name!r} differ; this NumPy draws other numbers")
        exact = case.expected(golden.seed, dtype)
        if count != len(exact.outputs):
            raise ValueError(f"{arguments.check}: {count} outputs of {case_name!r}, expected {len(exact.outputs)}")
        with backend.use_backend(name) as module:
            outputs = attempt(case, values, module)
        computed = () if isinstance(outputs, str) else outputs
        stored = tuple(_stored(golden, f"{number}.{part}", y) for part, y in enumerate(computed))
        rows.append(row(case, outputs, Expected(stored, exact.magnitudes), dtype_name, name, slack=2.0))
    return report(rows, arguments, time.perf_counter() - started)


def _stored(golden: _File, name: str, y: np.ndarray) -> np.ndarray:
    bits = y.dtype.name == "bfloat16"
    array = golden.read(name, y.view(np.uint16) if bits else y)
    array = array.view(y.dtype) if bits else array
    return array if array.dtype.kind in "iu" else array.astype(np.float64)
