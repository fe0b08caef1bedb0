"""What the library promises about its speed, each goal as one number computed from a run's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .report import Ceilings, Row, bound_ms, geometric_mean, milliseconds, number, ratio_mean

# Copying less than this is bound by the call, not by memory.
_STREAMED_BYTES = 1 << 20
MAX_WORKSPACE = 32e6


@dataclass(frozen=True)
class Goal:
    """A row of the closing table: `value` of the rows of `op` must be at least, or at most, `target`.

    It is a goal for rows of this dtype, precision and batch (None: any) alone, of the kinds and networks named.
    """

    title: str
    op: str
    target: float
    unit: str
    value: Callable[[Sequence[Row], Ceilings], float | None]
    at_most: bool = False
    kinds: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    dtype: str = "float32"
    precision: str | None = None
    batch: int | None = None

    def concerns(self, row: Row) -> bool:
        """Whether this row counts."""
        return (
            row["op"] == self.op
            and row["dtype"] == self.dtype
            and self.precision in (None, row.get("precision", "highest"))
            and self.batch in (None, row["batch"])
            and (not self.kinds or row["kind"] in self.kinds)
            and (not self.networks or row["layer"].split("-")[0] in self.networks)
        )

    def result(self, rows: Sequence[Row], ceilings: Ceilings) -> dict[str, Any]:
        """Title, value (None where the run has no such rows), target and whether it is met."""
        chosen = [row for row in rows if self.concerns(row)]
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


def _lowest(rows: Sequence[Row], ceilings: Ceilings) -> float | None:
    ratios = (ratio_mean([row], "best", "torch best") for row in rows)
    return min((ratio for ratio in ratios if ratio is not None), default=None)


_BETTER, _NCHW = _speed("best", "torch best"), _speed("nchw", "torch nchw")
_POOLS = ("max", "avg")
_SMALL = ("lenet", "keras_mnist")


def _conv_goals() -> Iterator[Goal]:
    for way, op, best, best_high in (("forward", "conv", 1.7, 2.5), ("backward", "conv_backward", 1.6, 2.3)):
        name = f"conv2d {way}"
        yield Goal(f"{name}, better layouts", op, best, "x", _BETTER, precision="highest")
        yield Goal(f"{name}, better layouts, 'high'", op, best_high, "x", _BETTER, precision="high")
        yield Goal(f"{name}, the layer of the lowest ratio", op, 1.0, "x", _lowest, precision="highest")
        if op == "conv":
            yield Goal(f"{name}, NCHW against torch NCHW", op, 2.3, "x", _NCHW, precision="highest")
            yield Goal(f"{name}, NCHW against torch NCHW, 'high'", op, 3.5, "x", _NCHW, precision="high")
        bfloat16 = _speed("best", "torch nhwc")
        target = 1.1 if op == "conv" else 1.2
        yield Goal(f"{name}, bfloat16, against channels-last", op, target, "x", bfloat16, dtype="bfloat16")
        title = f"{name}, LeNet and Keras-MNIST, one image"
        yield Goal(title, op, 3.0, "x", _BETTER, networks=_SMALL, precision="highest", batch=1)
        workspace = MAX_WORKSPACE / 1e6
        yield Goal(f"workspace of any conv2d, {way}", op, workspace, "MB", _workspace, at_most=True)


GOALS: tuple[Goal, ...] = (
    *_conv_goals(),
    Goal("depthwise forward, better layouts", "depthwise", 1.1, "x", _BETTER),
    Goal("depthwise forward, NCHW", "depthwise", 3.0, "x", _NCHW),
    Goal("depthwise backward, better layouts", "depthwise_backward", 1.1, "x", _BETTER),
    Goal("depthwise backward, NCHW", "depthwise_backward", 3.0, "x", _NCHW),
    Goal("max/avg pool forward, NCHW", "pool", 20.0, "x", _NCHW, kinds=_POOLS),
    Goal("max/avg pool forward, better layouts", "pool", 1.5, "x", _BETTER, kinds=_POOLS),
    Goal("max/avg pool forward, NCHW, of copy bandwidth", "pool", 85.0, "%", _share_of_copy, kinds=_POOLS),
    Goal("max/avg pool backward, better layouts", "pool_backward", 2.0, "x", _BETTER, kinds=_POOLS),
    Goal("batch_norm training forward, better layouts", "norm", 1.5, "x", _BETTER, kinds=("batch",)),
    Goal("batch_norm training backward, better layouts", "norm_backward", 1.5, "x", _BETTER, kinds=("batch",)),
    *(
        Goal(f"F.{name} on a (1, 1, 8, 8) image", "call", target, "µs", _microseconds, at_most=True, kinds=(name,))
        for name, target in (("conv2d", 4.0), ("max_pool2d", 2.2), ("relu", 1.5))
    ),
)


def results(rows: Sequence[Row], ceilings: Ceilings) -> list[dict[str, Any]]:
    """All goals for which there are rows, which are of one number of threads, one batch and one precision."""
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
