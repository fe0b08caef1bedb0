"""``fastconv bench``: hands over to the benchmark program in ``fastconv.bench``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

_HELP = "time the layers of well-known networks, against torch where installed"


def add_parser(verbs: Any) -> None:
    """Add ``bench`` to the program's verbs, for the list in ``--help``; its options are the benchmark's own."""
    verbs.add_parser("bench", help=_HELP, add_help=False)


def run(arguments: Sequence[str]) -> int:
    """Call the benchmark's own command line."""
    try:
        program = import_module("fastconv.bench.__main__")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("fastconv.bench"):
            raise
        raise ImportError(
            "the benchmark is not part of this installation (in a source tree: python -m bench)"
        ) from error
    try:
        status = program.main(list(arguments))
    except SystemExit as stop:
        status = stop.code
    return status if isinstance(status, int) else 0 if status is None else 2
