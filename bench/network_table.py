"""The README's table of whole networks, and its bar chart, made from a result file of `bench networks`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .markdown import lines
from .report import number

Row = dict[str, Any]

# A column's title, and the ways that it shows the fastest of.
_INFERENCE = (
    ("fastconv", ("fastconv", "fastconv nhwc")),
    ("optimized", ("fastconv optimized",)),
    ('"high"', ("fastconv high",)),
    ("torch", ("torch nchw", "torch nhwc", "torch optimized")),
    ("ONNX Runtime", ("onnxruntime",)),
    ("OpenVINO", ("openvino",)),
)
_TRAINING = (("fastconv", ("fastconv", "fastconv nhwc")), ("torch", ("torch nchw", "torch nhwc")))


def _fastest(row: Row, ways: Iterable[str]) -> float | None:
    return min((row["seconds"][way] for way in ways if way in row["seconds"]), default=None)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else number(1e3 * seconds)


def _megabytes(row: Row, ways: Iterable[str]) -> str:
    """Peak memory of the fastest of these ways."""
    peaks = [(row["seconds"][way], size) for way, size in row.get("memory", {}).items() if way in ways]
    return f"{min(peaks)[1] / 1e6:.0f}" if peaks else "-"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{number(ratio)}"


def _mean(rows: list[Row], name: str) -> float | None:
    """Geometric mean of a ratio; None where a row lacks it."""
    ratios = [row[name] for row in rows]
    return None if not ratios or None in ratios else math.exp(sum(map(math.log, ratios)) / len(ratios))


def _count(threads: int) -> str:
    return f"{threads} thread{'s' * (threads != 1)}"


def table(report: dict[str, Any]) -> str:
    """Where it was measured, and milliseconds a call of each library's best way, by network, batch and threads."""
    where, rows = report["environment"], report["rows"]
    names = [name for name in (where["peer"], *where.get("others", ())) if name]
    text = [
        f"{where['processor']} ({where['isa'] or where['backend']}), float32, milliseconds a call"
        + (f", beside {', '.join(names)} in the same run" if names else "")
        + "; x: the best of the others over fastconv's best.",
        "",
    ]
    inference = [row for row in rows if row["mode"] == "inference"]
    if inference:
        shown = [(t, ways) for t, ways in _INFERENCE if any(_fastest(row, ways) is not None for row in inference)]
        body = [
            [f"{row['network']}, batch {row['batch']}, {_count(row['threads'])}"]
            + [_milliseconds(_fastest(row, ways)) for _, ways in shown]
            + [_times(row["ratio"]), _times(row["ratio_high"])]
            for row in inference
        ]
        settings = dict.fromkeys((row["batch"], row["threads"]) for row in inference)
        for batch, threads in settings:
            group = [row for row in inference if (row["batch"], row["threads"]) == (batch, threads)]
            means = [_times(_mean(group, name)) for name in ("ratio", "ratio_high")]
            body.append([f"geometric mean, batch {batch}, {_count(threads)}", *("" for _ in shown), *means])
        text += [*lines(["inference", *(title for title, _ in shown), "x", 'x "high"'], body), ""]
    training = [row for row in rows if row["mode"] == "training"]
    if training:
        sized = _TRAINING if any(row.get("memory") for row in training) else ()
        body = [
            [f"{row['network']}, batch {row['batch']}, {_count(row['threads'])}"]
            + [_milliseconds(_fastest(row, ways)) for _, ways in _TRAINING]
            + [_times(row["ratio"])]
            + [_megabytes(row, ways) for _, ways in sized]
            for row in training
        ]
        mean = _times(_mean(training, "ratio"))
        body.append(["geometric mean", *("" for _ in _TRAINING), mean, *("" for _ in sized)])
        titles = [title for title, _ in _TRAINING]
        text += [*lines(["training step", *titles, "x", *(f"MB, {title}" for title, _ in sized)], body), ""]
    for row in rows:
        if row["mode"] == "denormal":
            ways = {way: _milliseconds(seconds) for way, seconds in row["seconds"].items()}
            text.append(
                f"{row['network']} where activations are denormal numbers, batch {row['batch']}, "
                f"{_count(row['threads'])}: {ways['fastconv']} ms, with normal ones {ways['fastconv normal']} ms"
                + (f"; torch {ways['torch']} and {ways['torch normal']} ms." if "torch" in ways else ".")
            )
            text.append("")
    return "\n".join(text).rstrip() + "\n"


def bars(report: dict[str, Any], path: Path) -> None:
    """Write a PNG: speed of each library's best way over torch's (without it fastconv's own), by network.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the plot needs matplotlib: pip install "fastconv[bench]"') from error
    groups: dict[tuple[str, int, int], list[Row]] = {}
    for row in report["rows"]:
        if row["mode"] != "denormal":
            groups.setdefault((row["mode"], row["batch"], row["threads"]), []).append(row)
    figure = Figure(figsize=(10, 2.6 * max(len(groups), 1)), layout="constrained")
    for axes, ((mode, batch, threads), rows) in zip(
        figure.subplots(max(len(groups), 1), squeeze=False)[:, 0], groups.items()
    ):
        ways = [
            (t, w) for t, w in (_INFERENCE if mode == "inference" else _TRAINING) if _fastest(rows[0], w) is not None
        ]
        width = 0.8 / len(ways)
        unit = next((names for title, names in ways if title == "torch"), ways[0][1])
        for i, (title, names) in enumerate(ways):
            speeds = [(_fastest(row, unit) or 0) / (_fastest(row, names) or math.inf) for row in rows]
            axes.bar([j + (i - (len(ways) - 1) / 2) * width for j in range(len(rows))], speeds, width, label=title)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xticks(range(len(rows)), [row["network"] for row in rows])
        axes.set(ylabel="speed", title=f"{mode}, batch {batch}, {_count(threads)}")
        axes.legend(fontsize="x-small", ncols=6)
    figure.suptitle(report["environment"]["processor"])
    figure.savefig(path, format="png", dpi=120)
