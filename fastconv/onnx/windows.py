"""Paddings of ONNX's windows: explicit ones, and those that follow from the input's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .node import Node

__all__ = ["Pairs", "by_dimension", "extents", "halves", "numbers_or_pairs", "pads_of", "same_pads"]

Pairs = tuple[tuple[int, int], ...]


def by_dimension(node: Node, name: str, nd: int, default: int = 1) -> tuple[int, ...]:
    """An attribute with one number a dimension."""
    return tuple(node.get(name) or (default,) * nd)


def extents(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Inputs from the first to the last tap."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation))


def pads_of(node: Node, nd: int) -> Pairs | str | None:
    """(before, after) a dimension, "same" for SAME_UPPER, None for SAME_LOWER, which needs the input's size."""
    auto = node.get("auto_pad", "NOTSET")
    if auto == "SAME_UPPER":
        return "same"
    if auto == "SAME_LOWER":
        return None
    pads = node.get("pads") or (0,) * 2 * nd
    return tuple(zip(pads[:nd], pads[nd:])) if auto == "NOTSET" else ((0, 0),) * nd


def same_pads(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], lower: bool
) -> Pairs:
    """(before, after) a dimension for ceil(size / stride) outputs; an odd one out goes before where `lower`."""
    totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(size, stride, extents(kernel, dilation))]
    return halves(totals, lower)


def halves(totals: Sequence[int], lower: bool) -> Pairs:
    """(before, after) a dimension that make these totals; an odd one goes before where `lower`."""
    pairs = tuple((total // 2, total - total // 2) for total in totals)
    return tuple(pair[::-1] for pair in pairs) if lower else pairs


def numbers_or_pairs(pads: Any) -> Any:
    """Equal pairs as numbers, as layers print them."""
    if isinstance(pads, tuple) and all(before == after for before, after in pads):
        return tuple(before for before, _ in pads)
    return pads
