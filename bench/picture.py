"""The roofline plot (Williams, Waterman and Patterson 2009): rate over operations a byte, under measured ceilings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .report import Row, best, bfloat16_peak

_MARKERS = {"conv": "o", "depthwise": "s", "pool": "^", "norm": "D", "relu": "v"}


def roofline(rows: Sequence[Row], ceilings: Mapping[str, float], title: str, path: Path) -> None:
    """Write a PNG: each row at its better layout, filled for ours and hollow for torch.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the plot needs matplotlib: pip install "fastconv[bench]"') from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    shown = [row for row in rows if row["op"] != "call" and best(row) is not None]
    intensities = [row["flops"] / row["bytes"] for row in shown]
    peak, bandwidth = ceilings["flops"] / 1e9, ceilings["bandwidth"] / 1e9
    left, right = min([0.1, *intensities]) / 1.5, max([100.0, *intensities]) * 1.5
    ridge = peak / bandwidth
    axes.plot([left, ridge, right], [left * bandwidth, peak, peak], color="black", linewidth=1)
    axes.annotate(f"{peak:.0f} GFLOP/s", (right, peak), ha="right", va="bottom")
    if found := bfloat16_peak(ceilings):
        products = found[0] / 1e9
        axes.plot([products / bandwidth, right], [products, products], color="black", linewidth=1, linestyle="dashed")
        axes.annotate(f"{products:.0f} GFLOP/s on {found[1]}", (right, products), ha="right", va="bottom")
    axes.annotate(f"{bandwidth:.0f} GB/s", (left * 2, left * 2 * bandwidth), ha="left", va="top")
    for number, op in enumerate(dict.fromkeys(row["op"] for row in shown)):
        marker = _MARKERS.get(op.removesuffix("_backward"), "o")
        for peer, fill in (("", True), ("torch ", False)):
            points = [
                (row["flops"] / row["bytes"], row["flops"] / ms / 1e6)
                for row in shown
                if row["op"] == op and (ms := best(row, peer)) is not None
            ]
            if points:
                color = f"C{number}"
                face = color if fill else "none"
                label = f"{peer or 'fastconv '}{op}"
                across, up = zip(*points)
                axes.scatter(across, up, s=24, marker=marker, facecolors=face, edgecolors=color, label=label)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s", title=title, xlim=(left, right))
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, format="png", dpi=120)
