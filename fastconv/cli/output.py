"""Tables and JSON on standard output; where a picture may be written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option that every verb has."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def print_json(report: dict[str, Any]) -> None:
    """One object, floats that JSON has no word for as null."""
    print(json.dumps(_plain(report), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def table(rows: Sequence[Sequence[str]], header: Sequence[str], right: str = "") -> str:
    """Aligned columns; `right` has one letter a column, "r" for right-aligned."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = (
            cell.rjust(width) if right[i : i + 1] == "r" else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        )
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def check_picture(path: str) -> None:
    """Fail before the work: the name is that of a PNG, its directory is there."""
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"--output must end in .png, got {path}")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"--output: the directory {target.absolute().parent} does not exist")
    if target.is_dir():
        raise IsADirectoryError(f"--output: {path} is a directory")
