"""Random numbers for a part of a batch: those that the whole batch would have drawn for it."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ShardGenerator"]


class ShardGenerator(np.random.Generator):
    """Draws for all images of a batch, and gives the numbers of those from `start` to `stop` on.

    A transform draws an array with one row for each image. Processes that share a batch would each begin with the
    same numbers; here every one of them draws all rows and keeps its own, so that an image is transformed as it would
    be on one process. Draws of other lengths are those of any generator, and the same on all processes.

    Parameters
    ----------
    bits : numpy.random.BitGenerator
        In the same state on all processes.
    start, stop : int
        The images of this process.
    count : int
        Images in the whole batch.
    """

    def __init__(self, bits: np.random.BitGenerator, start: int, stop: int, count: int) -> None:
        super().__init__(bits)
        self._rows, self._count = slice(start, stop), count

    def _draw(self, method: Any, size: Any, *arguments: Any, **options: Any) -> Any:
        shape = (size,) if isinstance(size, int | np.integer) else size
        if not shape or shape[0] != self._rows.stop - self._rows.start:
            return method(*arguments, size=size, **options)
        return method(*arguments, size=(self._count, *shape[1:]), **options)[self._rows]

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """As numpy.random.Generator.random."""
        return self._draw(super().random, size, dtype=dtype)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """As numpy.random.Generator.standard_normal."""
        return self._draw(super().standard_normal, size, dtype=dtype)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """As numpy.random.Generator.uniform."""
        return self._draw(super().uniform, size, low, high)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """As numpy.random.Generator.normal."""
        return self._draw(super().normal, size, loc, scale)

    def integers(
        self, low: Any, high: Any = None, size: Any = None, dtype: Any = np.int64, endpoint: bool = False
    ) -> Any:
        """As numpy.random.Generator.integers."""
        return self._draw(super().integers, size, low, high, dtype=dtype, endpoint=endpoint)
