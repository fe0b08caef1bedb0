"""A progress bar on standard error: tqdm's where it is installed, else a plain one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

__all__ = ["progress"]


def progress(
    items: Iterable[T], total: int, label: str, show: bool = True, describe: Callable[[], str] | None = None
) -> Iterator[T]:
    """Go through `items` with a progress bar; `describe` says in a few words how things stand.

    Nothing is shown unless `show` is set and standard error is a terminal.
    """
    if not (show and sys.stderr.isatty()):
        yield from items
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield from _plain_progress(items, total, label, describe)
        return
    with tqdm(items, total=total, desc=label, leave=False, dynamic_ncols=True) as bar:
        for item in bar:
            yield item
            if describe is not None:
                bar.set_postfix_str(describe(), refresh=False)


def _plain_progress(items: Iterable[T], total: int, label: str, describe: Callable[[], str] | None) -> Iterator[T]:
    width, shown, longest = 30, 0.0, 0
    try:
        for done, item in enumerate(items):
            now = time.monotonic()
            if now - shown > 0.1:
                shown = now
                filled = width * done // max(total, 1)
                words = f" {describe()}" if describe is not None and done else ""
                line = f"{label}: [{'#' * filled}{'.' * (width - filled)}] {done}/{total}{words}"
                print("\r" + line.ljust(longest), end="", file=sys.stderr, flush=True)
                longest = max(longest, len(line))
            yield item
    finally:
        print("\r" + " " * longest + "\r", end="", file=sys.stderr, flush=True)
