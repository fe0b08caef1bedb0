"""The table on the terminal, and what is derived from times: rates, shares of the ceilings, ratios to torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Ceilings = Mapping[str, float] | None

HEADER = (
    f"{'layer':<29}{'shape':<28}{'layout':<7}{'ms':>9}{'±':>6}{'GFLOP/s':>9}{'GB/s':>8}{'of ceiling':>12}"
    f"{'x NCHW':>8}{'x NHWC':>8}{'x best':>8}"
)


def milliseconds(row: Row, name: str) -> float | None:
    """Time of "nchw", "nhwc", "torch nchw" or "torch nhwc"; None where that was not measured."""
    timing = row["times"].get(name)
    return None if timing is None else timing["ms"]


def best(row: Row, peer: str = "") -> float | None:
    """The shorter of the times of both layouts."""
    times = [milliseconds(row, f"{peer}{layout}") for layout in ("nchw", "nhwc")]
    return min((t for t in times if t is not None), default=None)


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times as fast as `theirs`; None where one of them is missing."""
    return None if ours is None or theirs is None else theirs / ours


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are there; None where there is none.

    >>> geometric_mean([2.0, None, 8.0])
    4.0
    """
    logs = [math.log2(v) for v in values if v is not None]
    return 2.0 ** (sum(logs) / len(logs)) if logs else None


def compute_peaks(ceilings: Mapping[str, float]) -> str:
    """The FMA units' peak, and that of bfloat16 products, as many as the dtype and precision take."""
    found = bfloat16_peak(ceilings)
    return f"{ceilings['flops'] / 1e9:.0f} GFLOP/s{f', {found[0] / 1e9:.0f} on {found[1]}' if found else ''}"


def bfloat16_peak(ceilings: Mapping[str, float]) -> tuple[float, str] | None:
    """What bfloat16 products reach, and by which instructions; None for a processor without them."""
    for key, name in (("amx", "AMX"), ("bf16", "BF16")):
        if key in ceilings:
            return ceilings[key], name
    return None


def bound_ms(row: Row, ceilings: Ceilings) -> tuple[float, str] | None:
    """The time that the measured ceilings allow, and which one sets it: "FMA", "AMX", "BF16" or "copy"."""
    if ceilings is None:
        return None
    peak, unit = ceilings["flops"], "FMA"
    if row["op"] in ("conv", "conv_packed", "conv_backward"):
        peak, unit = max((peak, unit), bfloat16_peak(ceilings) or (0.0, ""))
    compute, memory = 1e3 * row["flops"] / peak, 1e3 * row["bytes"] / ceilings["bandwidth"]
    return (compute, unit) if compute > memory else (memory, "copy")


def number(value: float | None, digits: int = 3, most_places: int = 4) -> str:
    """`value` to `digits` significant digits, at most `most_places` behind the point; "-" for None."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return str(value)
    places = min(most_places, max(0, digits - 1 - math.floor(math.log10(abs(value)))))
    return f"{value:.{places}f}"


def lines(row: Row, ceilings: Ceilings) -> list[str]:
    """A line for each layout of ours."""
    label = f"{row['layer']:<29}{row['shape']:<28}"
    if not row["check"]["passed"]:
        error = number(row["check"]["error over bound"])
        return [f"{label}WRONG: error is {error} of its bound; not timed"]
    peers = milliseconds(row, "torch nchw"), milliseconds(row, "torch nhwc"), best(row, "torch ")
    text = []
    for layout in ("nchw", "nhwc"):
        ms = milliseconds(row, layout)
        if ms is None:
            continue
        bound = bound_ms(row, ceilings)
        share = "-" if bound is None else f"{100 * bound[0] / ms:.0f} % {bound[1]}"
        spread = f"{100 * row['times'][layout]['spread']:.0f}%"
        rates = f"{number(row['flops'] / ms / 1e6):>9}{number(row['bytes'] / ms / 1e6):>8}"
        ratios = "".join(f"{number(ratio(ms, peer)):>8}" for peer in peers)
        text.append(f"{label}{layout:<7}{number(ms, most_places=6):>9}{spread:>6}{rates}{share:>12}{ratios}")
        label = " " * len(label)
    return text


def means(rows: Sequence[Row]) -> list[str]:
    """Geometric means of the ratios to torch, one line an operation."""
    header = ("NCHW / NCHW", "NHWC / NHWC", "NCHW / best", "NHWC / best", "best / best")
    text = [f"{'geometric means of ours / torch':<37}{'rows':>5}" + "".join(f"{name:>13}" for name in header)]
    settings = list(dict.fromkeys(map(setting, rows)))
    for op, which in dict.fromkeys((row["op"], setting(row)) for row in rows):
        group = [row for row in rows if (row["op"], setting(row)) == (op, which) and row["check"]["passed"]]
        columns = (
            ratio_mean(group, "nchw", "torch nchw"),
            ratio_mean(group, "nhwc", "torch nhwc"),
            ratio_mean(group, "nchw", "torch best"),
            ratio_mean(group, "nhwc", "torch best"),
            ratio_mean(group, "best", "torch best"),
        )
        label = f"{op}, {setting_label(which, settings)}"
        text.append(f"{label:<37}{len(group):>5}" + "".join(f"{number(value):>13}" for value in columns))
    return text


Setting = tuple[int, int, str]


def setting(row: Row) -> Setting:
    """Threads, batch and precision of a row."""
    return row["threads"], row["batch"], row.get("precision", "highest")


def setting_label(which: Setting, among: Sequence[Setting]) -> str:
    """The threads, and of batch and precision what differs in a run.

    >>> setting_label((1, 8, "high"), [(1, 8, "high"), (1, 8, "highest")])
    '1 thread, high'
    """
    threads, batch, precision = which
    text = f"{threads} thread{'s' * (threads != 1)}"
    if len({each[1] for each in among}) > 1:
        text += f", batch {batch}"
    return text + (f", {precision}" if len({each[2] for each in among}) > 1 else "")


def ratio_mean(rows: Iterable[Row], ours: str, theirs: str) -> float | None:
    """Geometric mean of times of `theirs` over `ours`; "best" and "torch best" stand for the better layout."""

    def time(row: Row, name: str) -> float | None:
        return best(row, name.removesuffix("best")) if name.endswith("best") else milliseconds(row, name)

    return geometric_mean(ratio(time(row, ours), time(row, theirs)) for row in rows)
