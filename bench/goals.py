"""What the library promises about its speed, each goal as one number computed from a run's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .report import Ceilings, Row, bound_ms, geometric_mean, milliseconds, number, ratio_mean

# Copying less than this is bound by the call, not by memory.
_STREAMED_BYTES = 1 << 20
MAX_WORKSPACE = 32e6


@dataclass(frozen=True)
class Goal:
    """A row of the closing table: `value` of the rows of `op` must be at least, or at most, `target`."""

    title: str
    op: str
    target: float
    unit: str
    value: Callable[[Sequence[Row], Ceilings], float | None]
    at_most: bool = False
    kinds: tuple[str, ...] = ()

    def result(self, rows: Sequence[Row], ceilings: Ceilings) -> dict[str, Any]:
        """Title, value (None where the run has no such rows), target and whether it is met."""
        chosen = [row for row in rows if row["op"] == self.op and (not self.kinds or row["kind"] in self.kinds)]
        wrong = any(not row["check"]["passed"] for row in chosen)
        value = None if wrong or not chosen else self.value(chosen, ceilings)
        met = None if value is None else (value <= self.target if self.at_most else value >= self.target)
        return {
            "title": self.title,
            "rows": len(chosen),
            "value": value,
            "target": self.target,
            "relation": "at most" if self.at_most else "at least",
            "unit": self.unit,
            "met": False if wrong else met,
        }


def _speed(ours: str, theirs: str) -> Callable[[Sequence[Row], Ceilings], float | None]:
    return lambda rows, _: ratio_mean(rows, ours, theirs)


def _share_of_copy(rows: Sequence[Row], ceilings: Ceilings) -> float | None:
    def share(row: Row) -> float | None:
        ms, bound = milliseconds(row, "nchw"), bound_ms({**row, "flops": 0}, ceilings)
        return None if ms is None or bound is None else 100 * bound[0] / ms

    return geometric_mean(share(row) for row in rows if row["bytes"] >= _STREAMED_BYTES)


def _microseconds(rows: Sequence[Row], ceilings: Ceilings) -> float | None:
    return 1e3 * rows[0]["times"]["nchw"]["ms"]


def _workspace(rows: Sequence[Row], ceilings: Ceilings) -> float | None:
    sizes = [row["workspace"] for row in rows if row["workspace"] is not None]
    return max(sizes) / 1e6 if sizes else None


_POOLS = ("max", "avg")

GOALS: tuple[Goal, ...] = (
    Goal("conv2d forward, better layout against torch's better", "conv", 0.9, "x", _speed("best", "torch best")),
    Goal("conv2d forward, NCHW against torch NCHW", "conv", 1.3, "x", _speed("nchw", "torch nchw")),
    Goal(
        "conv2d backward, better layout against torch's better",
        "conv_backward",
        0.9,
        "x",
        _speed("best", "torch best"),
    ),
    Goal("depthwise forward, channels-last", "depthwise", 1.0, "x", _speed("nhwc", "torch nhwc")),
    Goal("depthwise forward, NCHW", "depthwise", 3.0, "x", _speed("nchw", "torch nchw")),
    Goal("max/avg pool forward, NCHW", "pool", 10.0, "x", _speed("nchw", "torch nchw"), kinds=_POOLS),
    Goal("max/avg pool forward, NCHW, of copy bandwidth", "pool", 70.0, "%", _share_of_copy, kinds=_POOLS),
    Goal("max/avg pool backward, NCHW", "pool_backward", 2.0, "x", _speed("nchw", "torch nchw"), kinds=_POOLS),
    *(
        Goal(
            f"batch_norm training {way}, {name}",
            op,
            1.2,
            "x",
            _speed(layout, f"torch {layout}"),
            kinds=("batch",),
        )
        for way, op in (("forward", "norm"), ("backward", "norm_backward"))
        for name, layout in (("NCHW", "nchw"), ("channels-last", "nhwc"))
    ),
    *(
        Goal(f"F.{name} on a (1, 1, 8, 8) image", "call", target, "µs", _microseconds, at_most=True, kinds=(name,))
        for name, target in (("conv2d", 6.0), ("max_pool2d", 4.0), ("relu", 3.0))
    ),
    *(
        Goal(f"workspace of any conv2d, {way}", op, MAX_WORKSPACE / 1e6, "MB", _workspace, at_most=True)
        for way, op in (("forward", "conv"), ("backward", "conv_backward"))
    ),
)


def results(rows: Sequence[Row], ceilings: Ceilings) -> list[dict[str, Any]]:
    """All goals for which the run has rows."""
    found = (goal.result(rows, ceilings) for goal in GOALS)
    return [result for result in found if result["value"] is not None or result["met"] is False]


def lines(results: Sequence[dict[str, Any]]) -> list[str]:
    """One line a goal."""
    text = [f"{'goal (geometric means)':<56}{'rows':>5}{'measured':>12}{'goal':>16}"]
    for r in results:
        value, goal = f"{number(r['value'])} {r['unit']}", f"{r['relation']} {number(r['target'], 2)} {r['unit']}"
        verdict = "met" if r["met"] else "SHORT"
        text.append(f"{r['title']:<56}{r['rows']:>5}{value:>12}{goal:>16}  {verdict}")
    return text
