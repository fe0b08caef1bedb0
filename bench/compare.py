"""Two result files, row by row: what became faster or slower, and what the spread of the blocks leaves open.

FAST and SLOW: the medians differ by more than the threshold, and the quartiles of the blocks do not overlap. SAME: the
medians differ by less than the threshold. AMBG (ambiguous): they differ by more, but their quartiles overlap.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from .measure import quartiles
from .report import Row, geometric_mean, number

THRESHOLD = 0.05
LAYOUTS = ("nchw", "nhwc")

Key = tuple[Any, ...]


def _key(row: Row) -> Key:
    names = ("op", "layer", "dtype", "threads", "batch")
    return (*(row[name] for name in names), row.get("precision", "highest"))


def _interval(row: Row, layout: str, relative: bool) -> tuple[float, float, float] | None:
    """Lower quartile, median, upper quartile of the time; relative: in units of torch's time in the same file."""
    timing, peer = row["times"].get(layout), row["times"].get(f"torch {layout}")
    if timing is None or (relative and peer is None):
        return None
    unit = peer["ms"] if relative else 1.0
    low, high = quartiles(tuple(timing["blocks"]))
    return low / unit, timing["ms"] / unit, high / unit


def verdict(before: tuple[float, float, float], after: tuple[float, float, float]) -> str:
    """FAST, SLOW, SAME or AMBG, from (lower quartile, median, upper quartile) of both.

    >>> verdict((9.9, 10, 10.1), (4.9, 5, 5.1)), verdict((9.9, 10, 10.1), (9.8, 10.1, 10.3))
    ('FAST', 'SAME')
    >>> verdict((9.9, 10, 10.1), (19, 20, 21)), verdict((9, 10, 14), (8, 12, 13))
    ('SLOW', 'AMBG')
    """
    if abs(after[1] / before[1] - 1) <= THRESHOLD:
        return "SAME"
    if after[2] < before[0]:
        return "FAST"
    return "SLOW" if after[0] > before[2] else "AMBG"


def compare(before: dict[str, Any], after: dict[str, Any], relative: bool = False) -> list[dict[str, Any]]:
    """Rows that both reports have: what, both times (or times over torch's), speed-up and verdict."""
    old = {_key(row): row for row in before["rows"]}
    found = []
    for row in after["rows"]:
        for layout in LAYOUTS:
            was = _interval(old[_key(row)], layout, relative) if _key(row) in old else None
            now = _interval(row, layout, relative)
            if was is not None and now is not None:
                found.append(
                    {
                        "op": row["op"],
                        "layer": row["layer"],
                        "layout": layout,
                        "threads": row["threads"],
                        "before": was[1],
                        "after": now[1],
                        "speedup": was[1] / now[1],
                        "verdict": verdict(was, now),
                    }
                )
    return found


def lines(compared: list[dict[str, Any]], relative: bool) -> list[str]:
    """A line a row, then the counts and the geometric mean of the speed-ups."""
    unit = "x torch's time" if relative else "ms"
    text = [f"{'operation':<20}{'layer':<30}{'layout':<8}{'threads':>7}{'before':>10}{'after':>10}{'speed-up':>10}"]
    for r in compared:
        times = f"{number(r['before']):>10}{number(r['after']):>10}{number(r['speedup']):>10}"
        text.append(f"{r['op']:<20}{r['layer']:<30}{r['layout']:<8}{r['threads']:>7}{times}  {r['verdict']}")
    counts = Counter(r["verdict"] for r in compared)
    total = ", ".join(f"{counts[name]} {name}" for name in ("FAST", "SLOW", "SAME", "AMBG"))
    text.append(f"times in {unit}; {total}; geometric mean {number(geometric_mean(r['speedup'] for r in compared))}")
    return text
