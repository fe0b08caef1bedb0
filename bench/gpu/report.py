"""What a GPU day found, as JSON, CSV and Markdown: of the journal, after every stage."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .journal import Journal
from .stage import STAGES

Row = dict[str, Any]

# (op, kind or None, way or None, precision): least ratio of the peer's time to ours, or share of the copy bandwidth.
GOALS: tuple[tuple[str, str, tuple[str, ...], str, float], ...] = (
    ("conv", "fp32 convolutions", ("1x1", "3x3", "stem", "other"), "fp32", 1.5),
    ("conv", "bf16 3x3", ("3x3",), "bf16", 0.6),
    ("conv", "bf16 1x1 and stem", ("1x1", "stem"), "bf16", 0.95),
    ("conv", "bf16 depthwise", ("depthwise",), "bf16", 2.0),
    ("conv", "fp32 depthwise", ("depthwise",), "fp32", 2.0),
)
_SHARE = 0.85  # of the copy bandwidth, for what is bound by memory
_FIELDS = ("stage", "op", "layer", "way", "precision", "kind", "flops", "bytes")


def rows(journal: Journal, stage: str) -> list[Row]:
    """The rows of a stage that have times, or would have them were it not a dry run."""
    return [end for (name, _), end in journal.ended().items() if name == stage and end.get("times")]


def ceilings(journal: Journal) -> dict[str, float]:
    """Measured ceilings by name: ``bytes/s``, ``FLOP/s bf16``, ..."""
    ends = journal.ended().items()
    return {end["ceiling"]: end["value"] for (name, _), end in ends if name == "ceilings" and end.get("value")}


def ms(row: Row, who: str) -> float | None:
    """The better time of one side, ``fastconv`` or ``torch``, over the layouts."""
    found = [t["ms"] for name, t in row["times"].items() if t and name.startswith(who)]
    return min(found) if found else None


def as_json(journal: Journal) -> dict[str, Any]:
    """Everything but the times of begins."""
    ends = journal.ended()
    return {
        "environment": journal.environment(),
        "stages": journal.stages(),
        "ceilings": ceilings(journal),
        "cases": [{k: v for k, v in end.items() if k != "event"} for end in ends.values()],
    }


def as_csv(journal: Journal) -> str:
    """One line a layer, stage and contestant."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FIELDS, "contestant", "ms", "spread", "error"])
    for stage in ("ours", "tiles"):
        for row in rows(journal, stage):
            for name, t in row["times"].items():
                cells = [row["stage"], *(row[field] for field in _FIELDS[1:])]
                taken = ["", ""] if t is None else [t["ms"], t["spread"]]
                writer.writerow([*cells, name, *taken, row["errors"].get(name, "")])
    return text.getvalue()


def mean(values: Iterable[float]) -> float | None:
    """Geometric mean; None of nothing.

    >>> mean([1.0, 4.0])
    2.0
    """
    found = list(values)
    return math.exp(sum(map(math.log, found)) / len(found)) if found else None


def ratio(row: Row) -> float | None:
    """How many times as fast as torch's better layout, in one run."""
    ours, theirs = ms(row, "fastconv"), ms(row, "torch")
    return theirs / ours if ours and theirs else None


def goals(journal: Journal) -> list[str]:
    """Markdown rows: what was promised and what was measured."""
    found, measured = [], rows(journal, "ours")
    for op, title, kinds, precision, least in GOALS:
        for way in ("forward", "dgrad", "wgrad"):
            chosen = [r for r in measured if (r["op"], r["precision"], r["way"]) == (op, precision, way)]
            value = mean(x for x in map(ratio, (r for r in chosen if r["kind"] in kinds)) if x)
            if value is not None:
                mark = "reached" if value >= least else "SHORT"
                found.append(f"| {title}, {way}: x torch | {least:g} | {value:.2f} | {mark} |")
    copy = ceilings(journal).get("bytes/s")
    for op in ("pool", "norm", "relu"):
        for way in ("forward", "backward"):
            for precision in ("bf16", "fp32"):
                chosen = [r for r in measured if (r["op"], r["precision"], r["way"]) == (op, precision, way)]
                chosen = [r for r in chosen if r["bytes"] >= 64 << 20 and ms(r, "fastconv")]
                value = mean(r["bytes"] / (ms(r, "fastconv") or 1) * 1e3 / copy for r in chosen) if copy else None
                if value is not None:
                    mark = "reached" if value >= _SHARE else "SHORT"
                    found.append(
                        f"| {op} {precision}, {way}: share of the copy bandwidth | {_SHARE} | {value:.2f} | {mark} |"
                    )
    return found


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def table(journal: Journal) -> str:
    """The Markdown report."""
    where, stages, ends = journal.environment(), journal.stages(), journal.ended()
    dry = bool(where.get("dry"))
    lines = [f"# GPU day: {where.get('gpu', 'no GPU answered')}", ""]
    if dry:
        lines += ["**Dry run over the simulator: nothing here was run on a GPU, and nothing was timed.**", ""]
    facts = ", ".join(f"{name} {value}" for name, value in where.items() if name not in ("gpu", "dry"))
    lines += [facts, ""] if facts else []
    lines += ["| stage | result | passed | failed | skipped | s |", "|---|---|---:|---:|---:|---:|"]
    for stage in STAGES:
        if stage.name not in stages:
            lines.append(f"| {stage.name} | not run | | | | |")
            continue
        statuses = [end["status"] for (name, _), end in ends.items() if name == stage.name]
        counts = " | ".join(str(statuses.count(status)) for status in ("passed", "failed", "skipped"))
        last = stages[stage.name]
        lines.append(f"| {stage.name} | {last['status']} | {counts} | {last['seconds']:g} |")
    failures = [(at, end) for at, end in ends.items() if end["status"] == "failed"]
    if failures:
        lines += ["", "## Failures", ""]
        lines += [f"* {stage}, {key}: {_line(end.get('note', ''))}" for (stage, key), end in failures]
    if dry:
        return "\n".join(lines) + "\n"
    found = ceilings(journal)
    if found:
        lines += ["", "## Ceilings, measured", ""]
        lines += [f"* {name}: {value / 1e12:.3g} T" for name, value in found.items()]
    met = goals(journal)
    if met:
        lines += ["", "## Goals (geometric means)", "", "| what | goal | measured | |", "|---|---:|---:|---|", *met]
    lines += _layers(journal)
    lines += _tiles(journal)
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _layers(journal: Journal) -> list[str]:
    found = rows(journal, "ours")
    if not found:
        return []
    names = ("torch nhwc", "torch nchw", "fastconv nhwc", "fastconv nchw")
    lines = ["", "## Layers: ms, cold L2 cache", ""]
    lines += [f"| op | layer | way | precision | {' | '.join(names)} | x torch | TFLOP/s | TB/s |"]
    lines += ["|---|---|---|---|" + "---:|" * (len(names) + 3)]
    for row in found:
        cells = [_cell((row["times"].get(name) or {}).get("ms")) for name in names]
        best = ms(row, "fastconv")
        speed = [_cell(best and row[what] / best * 1e3 / 1e12) for what in ("flops", "bytes")]
        labels = [str(row[name]) for name in ("op", "layer", "way", "precision")]
        lines.append(f"| {' | '.join([*labels, *cells, _cell(ratio(row)), *speed])} |")
    return lines


def _tiles(journal: Journal) -> list[str]:
    found = rows(journal, "tiles")
    if not found:
        return []
    names = list(dict.fromkeys(name for row in found for name in row["times"]))
    lines = [
        "",
        "## Tiles: ms",
        "",
        f"| layer | way | precision | {' | '.join(names)} |",
        "|---|---|---|" + "---:|" * len(names),
    ]
    for row in found:
        cells = [_cell((row["times"].get(name) or {}).get("ms")) for name in names]
        lines.append(f"| {row['layer']} | {row['way']} | {row['precision']} | {' | '.join(cells)} |")
    return lines


def write(journal: Journal, folder: Path) -> None:
    """Write gpu_day.json, layers.csv and README.md into the folder."""
    (folder / "gpu_day.json").write_text(
        json.dumps(as_json(journal), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    (folder / "layers.csv").write_text(as_csv(journal), encoding="utf-8")
    (folder / "README.md").write_text(table(journal), encoding="utf-8")
