"""A short benchmark: the trained network with each backend, and with torch where that is installed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
import fastconv.nn.functional as F
from fastconv import backend, data

BATCH = 64
_SECONDS, _RUNS = 0.5, 100
# What separates two right float32 results of these sums, with a wide margin; a wrong kernel is off by far more.
_AGREEMENT = 1e-3


class Row(NamedTuple):
    """Medians of one backend."""

    backend: str
    forward_ms: float
    step_ms: float
    note: str


def measure(net: Any, dataset: data.TrainTest) -> list[Row]:
    """Forward and forward with backward; outputs are compared before anything is timed."""
    images, labels = dataset.test_images[:BATCH], dataset.test_labels[:BATCH]
    net.eval()
    with backend.use_backend("reference"):
        expected = np.asarray(net(images))
    rows: list[Row] = []

    def step() -> None:
        net.zero_grad()
        F.cross_entropy(net(fc.tensor(images)), labels).backward()

    names = dict.fromkeys((backend.get_backend(), "reference"))
    for name in names:
        with backend.use_backend(name):
            _check(np.asarray(net(images)), expected, name)
            rows.append(Row(name, _median_ms(lambda: net(images)), _median_ms(step), ""))
    peer = _torch(net, images, labels, expected)
    slowest = next(row for row in rows if row.backend == "reference")
    rows = [row._replace(note=_factor(slowest.step_ms / row.step_ms, "reference")) for row in rows]
    if peer is not None:
        rows.append(peer._replace(note=_factor(slowest.step_ms / peer.step_ms, "reference")))
    net.zero_grad()
    return rows


def _factor(value: float, name: str) -> str:
    return "" if value == 1 else f"{value:.1f} x {name}"


def _check(result: np.ndarray, expected: np.ndarray, name: str) -> None:
    difference = float(np.abs(result - expected).max())
    if not difference <= _AGREEMENT * max(1.0, float(np.abs(expected).max())):
        raise ValueError(f"{name} and the reference differ by {difference:.3g}; nothing was timed")


def _torch(net: Any, images: np.ndarray, labels: np.ndarray, expected: np.ndarray) -> Row | None:
    """The same network and weights in torch."""
    try:
        import torch
    except ImportError:
        return None
    layers = {"Conv2d": _torch_conv, "Linear": _torch_linear, "MaxPool2d": lambda _: torch.nn.MaxPool2d(2)}
    plain = {"ReLU": torch.nn.ReLU, "Flatten": torch.nn.Flatten}
    sequence = [
        layers[type(layer).__name__](layer) if type(layer).__name__ in layers else plain[type(layer).__name__]()
        for part in (net.features, net.classifier)
        for layer in part
    ]
    twin = torch.nn.Sequential(*sequence).eval()
    x, target = torch.from_numpy(images), torch.from_numpy(labels)

    def forward() -> Any:
        with torch.no_grad():
            return twin(x)

    def step() -> None:
        twin.zero_grad()
        torch.nn.functional.cross_entropy(twin(x), target).backward()

    name = f"torch {torch.__version__.split('+')[0]}"
    _check(forward().numpy(), expected, name)
    return Row(name, _median_ms(forward), _median_ms(step), "")


def _torch_conv(layer: Any) -> Any:
    import torch

    filters, channels = layer.weight.shape[:2]
    twin = torch.nn.Conv2d(channels, filters, layer.kernel_size, padding=layer.padding)
    return _with_weights(twin, layer)


def _torch_linear(layer: Any) -> Any:
    import torch

    return _with_weights(torch.nn.Linear(layer.weight.shape[1], layer.weight.shape[0]), layer)


def _with_weights(twin: Any, layer: Any) -> Any:
    import torch

    twin.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in layer.state_dict().items()})
    return twin


def _median_ms(call: Callable[[], Any]) -> float:
    call()
    times: list[float] = []
    while not times or (sum(times) < _SECONDS and len(times) < _RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
