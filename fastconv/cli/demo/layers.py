"""The trained network held against the reference, each layer on the input that the network gives it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastconv import backend, reference
from fastconv.testing import error_bound, error_ratio

from ..output import table


class Row(NamedTuple):
    """One layer: its worst error and the bound there."""

    layer: str
    shape: tuple[int, ...]
    error: float
    bound: float
    passed: bool


def verify(net: Any, images: np.ndarray) -> list[Row]:
    """One row a layer; a layer's input is the previous layer's output, so errors do not add up."""
    net.eval()
    rows = []
    x = images
    for part in (net.features, net.classifier):
        for layer in part:
            y = layer(x)
            y64, magnitude, terms = _expected(layer, x.astype(np.float64))
            rows.append(_row(_name(layer), y, y64, magnitude, terms))
            x = y
    return rows


def text(rows: list[Row]) -> str:
    """The table that is printed."""
    cells = [
        (
            row.layer,
            "x".join(map(str, row.shape)),
            f"{row.error:.2e}",
            f"{row.bound:.2e}",
            "ok" if row.passed else "FAILED",
        )
        for row in rows
    ]
    return table(cells, ("layer", "output", "error", "bound", ""), "llrr")


def _name(layer: Any) -> str:
    return type(layer).__name__


def _row(name: str, y: np.ndarray, y64: np.ndarray, magnitude: Any, terms: int) -> Row:
    if y.shape != y64.shape:
        return Row(name, y.shape, float("inf"), 0.0, False)
    bound = error_bound(y64, magnitude, terms, y.dtype)
    ratio = error_ratio(y, y64, bound, y.dtype)
    worst = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    return Row(name, y.shape, abs(float(y[worst]) - float(y64[worst])), float(bound[worst]), bool(ratio[worst] <= 1))


def _expected(layer: Any, x: np.ndarray) -> tuple[np.ndarray, Any, int]:
    """Output in float64, magnitude and terms: layers with weights sum, the others select."""
    name = _name(layer)
    if name not in ("Conv2d", "Linear"):
        with backend.use_backend("reference"):
            return np.asarray(layer(x)), 0.0, 0
    weight = np.asarray(layer.weight.data, dtype=np.float64)
    bias = np.asarray(layer.bias.data, dtype=np.float64)
    terms = int(np.prod(weight.shape[1:])) + 1
    if name == "Linear":
        y = reference.linear_forward(x, weight, bias)
        return y, reference.linear_forward(np.abs(x), np.abs(weight), np.abs(bias)), terms
    options = (layer.stride, layer.padding, layer.dilation, layer.groups, 2)
    y = reference.conv_forward(x, weight, bias, *options)
    return y, reference.conv_forward(np.abs(x), np.abs(weight), np.abs(bias), *options), terms
