"""Gradients in flat arrays of a few megabytes, each summed over the ranks as soon as its last gradient is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..devices import array_module, guard, to_host
from ..tensor import Tensor
from .communicator import Communicator, Work

__all__ = ["Bucket", "Buckets"]


class Bucket:
    """Gradients of some parameters, then for each whether it was used, then the weight: the examples of this rank.

    The last two travel with the gradients. Summed over the ranks they say what to divide by, and which parameters no
    rank has used, whose ``grad`` stays None as it would in one process.
    """

    def __init__(self, parameters: Sequence[Tensor], dtype: np.dtype) -> None:
        self.parameters = list(parameters)
        sizes = [parameter.data.size for parameter in parameters]
        ends = np.cumsum(sizes).tolist()
        self._slices = [slice(end - size, end) for size, end in zip(sizes, ends)]
        with guard(parameters[0].data):
            self._flat = array_module(parameters[0].data).empty(ends[-1] + len(sizes) + 1, dtype)
        self._used = np.empty(len(sizes), bool)
        self._work: Work | None = None
        self.clear()

    def clear(self) -> None:
        """Forget all gradients."""
        self._used[...] = False

    def add(self, index: int) -> None:
        """Take the gradient of parameter `index`."""
        parameter = self.parameters[index]
        with guard(self._flat):
            self._flat[self._slices[index]].reshape(parameter.data.shape)[...] = parameter.grad
        self._used[index] = True

    @property
    def full(self) -> bool:
        """Whether every gradient is there."""
        return bool(self._used.all())

    def send(self, communicator: Communicator, weight: int) -> None:
        """Begin the sum over the ranks of the gradients times `weight`; those that are not there count as zero."""
        end = self._slices[-1].stop
        gradients = self._flat[:end]
        with guard(self._flat):
            for index, where in enumerate(self._slices):
                if not self._used[index]:
                    gradients[where] = 0
            if weight == 0:
                gradients[...] = 0  # not times 0: the mean loss of no examples is NaN
            else:
                gradients *= weight
            self._flat[end:] = array_module(self._flat).asarray(np.append(self._used, weight).astype(self._flat.dtype))
            self._work = communicator.all_reduce(self._flat)

    def test(self) -> None:
        """Drive the messages forward."""
        if self._work is not None:
            self._work.test()

    def receive(self) -> None:
        """Wait for the sum, and put the mean over all examples into ``grad``."""
        if self._work is None:
            raise RuntimeError("the sum of a bucket was awaited before it was begun")
        self._work.wait()
        self._work = None
        with guard(self._flat):
            *counts, examples = to_host(self._flat[self._slices[-1].stop :])  # the host waits for a GPU here
            for parameter, where, used in zip(self.parameters, self._slices, counts):
                if used:
                    mean = (self._flat[where] / max(examples, 1)).reshape(parameter.data.shape)
                    if parameter.grad is None:
                        parameter.grad = mean.astype(parameter.data.dtype)
                    else:
                        parameter.grad[...] = mean
        self.clear()


class Buckets:
    """All trainable parameters in buckets, which every rank sends in the same order.

    Parameters
    ----------
    parameters : sequence of Tensor
        In the order of the forward pass; the last ones, whose gradients come first, fill the first bucket.
    communicator : Communicator
    capacity : int
        Bytes of a bucket. A parameter that is larger has one of its own.
    """

    def __init__(self, parameters: Sequence[Tensor], communicator: Communicator, capacity: int) -> None:
        self._communicator = communicator
        self._buckets: list[Bucket] = []
        for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
            part: list[Tensor] = []
            filled = 0
            for parameter in reversed(parameters):
                if _sum_dtype(parameter) != dtype:
                    continue
                needed = parameter.data.size * dtype.itemsize
                if part and filled + needed > capacity:
                    self._buckets.append(Bucket(part, dtype))
                    part, filled = [], 0
                part.append(parameter)
                filled += needed
            if part:
                self._buckets.append(Bucket(part, dtype))
        self._place = {
            id(parameter): (bucket, index)
            for bucket in self._buckets
            for index, parameter in enumerate(bucket.parameters)
        }
        self._sent = 0

    def add(self, parameter: Tensor, weight: int) -> None:
        """Take a complete gradient, begin the sums that it makes possible, and drive those that run."""
        bucket, index = self._place[id(parameter)]
        bucket.add(index)
        while self._sent < len(self._buckets) and self._buckets[self._sent].full:
            self._send(weight)
        if self._sent:
            self._buckets[self._sent - 1].test()

    def _send(self, weight: int) -> None:
        self._buckets[self._sent].send(self._communicator, weight)
        self._sent += 1

    def finish(self, weight: int) -> None:
        """Send what is left, and wait for all sums."""
        while self._sent < len(self._buckets):
            self._send(weight)
        for bucket in self._buckets:
            bucket.receive()
        self._sent = 0


def _sum_dtype(parameter: Tensor) -> np.dtype:
    """float64 for float64; all narrower types are summed in float32 and rounded once."""
    return np.dtype(np.float64 if parameter.data.dtype == np.float64 else np.float32)
