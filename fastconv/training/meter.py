"""Means over the batches of an epoch: loss, and accuracy where targets are classes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..devices import as_array
from ..distributed import Communicator
from ..tensor import Tensor

__all__ = ["Meter"]


class Meter:
    """Collects what the batches of one epoch gave, each weighted by its length."""

    def __init__(self) -> None:
        self.count = 0
        self._loss = 0.0
        self._right = 0
        self._targets = 0
        self._started = time.perf_counter()

    def add(self, loss: float, output: Tensor, target: Any, count: int) -> None:
        """Take a batch of `count` examples in."""
        if count == 0:  # the mean loss of no examples is NaN
            return
        self.count += count
        self._loss += loss * count
        labels = as_array(target)
        if labels.dtype.kind in "iu" and output.ndim == labels.ndim + 1:
            # Outputs (N, C, ...) against classes (N, ...): also that of each pixel.
            self._right += int((output.data.argmax(axis=1) == labels).sum())
            self._targets += labels.size

    def reduce(self, group: Communicator) -> None:
        """Take in what all ranks have collected."""
        sums = np.array([self.count, self._loss, self._right, self._targets], np.float64)
        group.all_reduce(sums).wait()
        self.count, self._right, self._targets = (int(sums[i]) for i in (0, 2, 3))
        self._loss = float(sums[1])

    def values(self) -> dict[str, float]:
        """The means."""
        means = {"loss": self._loss / self.count}
        if self._targets:
            means["accuracy"] = self._right / self._targets
        return means

    def speed(self, seconds: float) -> dict[str, float]:
        """Seconds, and examples in each."""
        return {"seconds": round(seconds, 3), "images_per_second": round(self.count / max(seconds, 1e-9), 1)}

    def describe(self) -> str:
        """How things stand, for a progress bar."""
        if not self.count:
            return ""
        words = ", ".join(f"{name} {value:.4f}" for name, value in self.values().items())
        return f"{words}, {self.count / max(time.perf_counter() - self._started, 1e-9):.0f} img/s"
