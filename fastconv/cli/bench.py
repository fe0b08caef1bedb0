"""``fastconv bench``: hands over to the benchmark program in ``fastconv.bench``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

_HELP = "time the layers of well-known networks, against torch where installed"
_PACKAGE = "fastconv.bench"


def add_parser(verbs: Any) -> None:
    """Add ``bench`` to the program's verbs, for the list in ``--help``; its options are the benchmark's own."""
    verbs.add_parser("bench", help=_HELP, add_help=False)


def _from_source_tree() -> None:
    """In a source tree the folder ``bench`` lies beside ``fastconv``: give it the name that it has when installed."""
    root = Path(__file__).resolve().parents[2]
    if _PACKAGE in sys.modules or not (root / "csrc").is_dir() or find_spec(_PACKAGE) is not None:
        return
    folder = root / "bench"
    spec = spec_from_file_location(_PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules[_PACKAGE] = module
        spec.loader.exec_module(module)


def run(arguments: Sequence[str]) -> int:
    """Call the benchmark's own command line."""
    _from_source_tree()
    try:
        program = import_module(f"{_PACKAGE}.__main__")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(_PACKAGE):
            raise
        raise ImportError("the benchmark is not part of this installation") from error
    try:
        status = program.main(list(arguments))
    except SystemExit as stop:
        status = stop.code
    return status if isinstance(status, int) else 0 if status is None else 2
