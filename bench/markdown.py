"""The table of the README, made from a result file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .report import Row, compute_peaks, number, ratio_mean, setting, setting_label

_TITLES = {
    "conv": "conv2d forward",
    "conv_packed": "conv2d forward, weights packed before",
    "conv_backward": "conv2d backward",
    "depthwise": "depthwise conv2d forward",
    "depthwise_backward": "depthwise conv2d backward",
    "pool": "pooling forward",
    "pool_backward": "pooling backward",
    "norm": "normalisation forward",
    "norm_backward": "batch_norm backward",
    "norm_relu": "batch_norm and ReLU forward",
    "norm_relu_backward": "batch_norm and ReLU backward",
    "relu": "ReLU forward",
    "relu_backward": "ReLU backward",
    "layout": "to the other layout",
}


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---", *("---:" for _ in header[1:])]
    return ["| " + " | ".join(cells) + " |" for cells in (header, ruler, *rows)]


def table(report: dict[str, Any]) -> str:
    """Where and how it was measured, ratios to torch by operation, goals: two Markdown tables."""
    where, run = report["environment"], report["run"]
    rows: list[Row] = [row for row in report["rows"] if row["check"]["passed"]]
    threads = sorted({row["threads"] for row in rows})
    settings = list(dict.fromkeys(map(setting, rows)))
    batches = ", ".join(str(batch) for batch in dict.fromkeys(which[1] for which in settings))
    ceilings = [report["ceilings"].get(str(n)) for n in threads]
    measured = ", ".join(
        f"{n} thread{'s' * (n != 1)}: {compute_peaks(c)}, {c['bandwidth'] / 1e9:.0f} GB/s copied"
        for n, c in zip(threads, ceilings)
        if c is not None
    )
    text = [
        f"{where['processor']} ({where['isa'] or where['backend']}), {run['dtype']}, batch {batches}"
        + (f"; ceilings measured in the same run: {measured}." if measured else "."),
        "",
    ]
    if where["peer"]:
        text += [f"Speed as a multiple of {where['peer']} in the same run, geometric means over layers:", ""]
        names = ["nchw / torch nchw", "nhwc / torch nhwc", "best / torch best"]
        body = [
            [
                _TITLES[op] + (f", {setting_label(which, settings)}" if len(settings) > 1 else ""),
                str(len(group)),
                *(number(ratio_mean(group, *name.split(" / "))) for name in names),
            ]
            for which in settings
            for op in _TITLES
            if (group := [row for row in rows if row["op"] == op and setting(row) == which])
        ]
        text += lines(["operation", "layers", "NCHW", "channels-last", "better layout of each"], body)
        text.append("")
    calls = [row for row in rows if row["op"] == "call"]
    if calls:
        body = [
            [f"`{row['layer']}` {row['shape']}", *(_microseconds(row, name) for name in ("nchw", "torch nchw"))]
            for row in calls
        ]
        text += lines(["whole call, µs", "fastconv", where["peer"] or "torch"], body)
        text.append("")
    return "\n".join(text).rstrip() + "\n"


def _microseconds(row: Row, name: str) -> str:
    timing = row["times"].get(name)
    return "-" if timing is None else number(1e3 * timing["ms"])


def insert(document: Path, text: str, kind: str = "benchmark") -> None:
    """Put `text` between the two marker lines of a Markdown file, ``<!-- kind: begin -->`` and ``<!-- kind: end -->``.

    Raises
    ------
    ValueError
        The file does not have each marker once, in order.
    """
    begin, end = f"<!-- {kind}: begin -->", f"<!-- {kind}: end -->"
    content = document.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise ValueError(f"{document} must have the lines {begin} and {end} once, in this order")
    before, rest = content.split(begin)
    after = rest.split(end)[1]
    document.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")
