"""Tables on standard output, progress on standard error, JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


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


def progress(items: Iterable[T], total: int, label: str, show: bool = True) -> Iterator[T]:
    """Go through `items` with a progress bar on standard error: tqdm's where installed, else a plain one.

    Nothing is shown unless `show` is set and standard error is a terminal.
    """
    if not (show and sys.stderr.isatty()):
        yield from items
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield from _plain_progress(items, total, label)
        return
    yield from tqdm(items, total=total, desc=label, leave=False, dynamic_ncols=True)


def _plain_progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    width, shown = 30, 0.0
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - shown > 0.1:
            shown = now
            filled = width * done // max(total, 1)
            print(f"\r{label}: [{'#' * filled}{'.' * (width - filled)}] {done}/{total}", end="", file=sys.stderr)
        yield item
    print("\r" + " " * (len(label) + width + 30) + "\r", end="", file=sys.stderr, flush=True)
