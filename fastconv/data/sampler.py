"""Which samples an epoch goes through, and in which order, where it is not each of them once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..nn.modules.arguments import size
from ..random import generator

__all__ = ["RandomSampler", "Sampler", "SequentialSampler", "SubsetRandomSampler", "WeightedRandomSampler"]


class Sampler:
    """Base class of samplers: a subclass defines ``__len__`` and ``draw(rng)``, the indices of an epoch.

    :class:`DataLoader` gives each epoch a generator of its own, so that its order follows from the loader's seed alone;
    ``iter(sampler)`` draws from the generator of :func:`fastconv.manual_seed`.

    Notes
    -----
    Source: torch.utils.data.Sampler.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data import DataLoader, Sampler
    >>> class Backwards(Sampler):
    ...     def __len__(self):
    ...         return 5
    ...
    ...     def draw(self, rng):
    ...         return np.arange(5)[::-1]
    >>> [batch.tolist() for batch in DataLoader(np.arange(5) ** 2, batch_size=2, sampler=Backwards())]
    [[16, 9], [4, 1], [0]]
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} defines no __len__")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The indices of one epoch, ``len(self)`` of them."""
        raise NotImplementedError(f"{type(self).__name__} defines no draw")

    def __iter__(self) -> Iterator[int]:
        return iter(np.asarray(self.draw(generator())).tolist())


class SequentialSampler(Sampler):
    """Each sample once, in the order of the data set. As torch.utils.data.SequentialSampler.

    Parameters
    ----------
    data_source : Dataset

    Examples
    --------
    >>> from fastconv.data import SequentialSampler
    >>> list(SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Any) -> None:
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """0 to ``len(self) - 1``."""
        return np.arange(len(self))


class RandomSampler(Sampler):
    """Samples at random. As torch.utils.data.RandomSampler.

    Parameters
    ----------
    data_source : Dataset
    replacement : bool
        Whether each draw is from all samples, or only from those that were not drawn.
    num_samples : int, optional
        Drawn in an epoch; as many as there are by default. More than that without replacement: whole orders one after
        the other.

    Raises
    ------
    ValueError
        No samples to draw from, or none to draw.

    Examples
    --------
    >>> from fastconv.data import RandomSampler
    >>> sorted(RandomSampler("abcd"))
    [0, 1, 2, 3]
    >>> len(list(RandomSampler("abcd", replacement=True, num_samples=7)))
    7
    """

    def __init__(self, data_source: Any, replacement: bool = False, num_samples: int | None = None) -> None:
        self.data_source, self.replacement = data_source, bool(replacement)
        self.num_samples = None if num_samples is None else size("num_samples", num_samples, 1)
        if not len(data_source):
            raise ValueError("data_source must hold at least one sample, got none")

    def __len__(self) -> int:
        return len(self.data_source) if self.num_samples is None else self.num_samples

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Indices at random."""
        count = len(self.data_source)
        if self.replacement:
            return rng.integers(count, size=len(self))
        orders = [rng.permutation(count) for _ in range(-(-len(self) // count))]
        return np.concatenate(orders)[: len(self)]


class SubsetRandomSampler(Sampler):
    """Each of some samples once, in a random order. As torch.utils.data.SubsetRandomSampler.

    Parameters
    ----------
    indices : sequence of int

    Raises
    ------
    TypeError
        Something else.

    Examples
    --------
    >>> from fastconv.data import SubsetRandomSampler
    >>> sorted(SubsetRandomSampler([2, 5, 7]))
    [2, 5, 7]
    """

    def __init__(self, indices: Sequence[int]) -> None:
        given = np.asarray(indices)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise TypeError(f"indices must be a sequence of integers, got {given.dtype} of shape {given.shape}")
        self.indices = given.astype(np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The indices in a random order."""
        return rng.permutation(self.indices)


class WeightedRandomSampler(Sampler):
    """Samples at random, each with its own probability: for classes of unequal size. As torch's, in torch.utils.data.

    Parameters
    ----------
    weights : sequence of float, one for each sample
        Not negative; they need not sum to 1.
    num_samples : int
        Drawn in an epoch.
    replacement : bool
        Whether a sample may be drawn more than once in an epoch.

    Raises
    ------
    ValueError
        Weights that are negative, not finite or all 0, or without replacement fewer above 0 than `num_samples`.

    Examples
    --------
    Ten of one class and two of another, drawn alike:

    >>> import numpy as np
    >>> from fastconv.data import WeightedRandomSampler
    >>> labels = np.array([0] * 10 + [1] * 2)
    >>> sampler = WeightedRandomSampler(1 / np.bincount(labels)[labels], 1000)
    >>> drawn = labels[sampler.draw(np.random.default_rng(0))]
    >>> bool(0.45 < drawn.mean() < 0.55)
    True
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True) -> None:
        self.weights = np.asarray(weights, np.float64)
        self.num_samples, self.replacement = size("num_samples", num_samples, 1), bool(replacement)
        if self.weights.ndim != 1 or not np.isfinite(self.weights).all() or (self.weights < 0).any():
            raise ValueError(f"weights must be one finite number from 0 on for each sample, got {weights!r}")
        largest = self.weights.max(initial=0)
        # Their own sum may be infinite.
        self._shares = self.weights / largest / (self.weights / largest).sum() if largest else self.weights
        possible = int(np.count_nonzero(self._shares))
        if possible < (1 if self.replacement else self.num_samples):
            raise ValueError(
                f"weights must be above 0 for at least {1 if self.replacement else self.num_samples} samples, "
                f"got {possible}"
            )

    def __len__(self) -> int:
        return self.num_samples

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Indices with the probabilities of the weights."""
        return rng.choice(len(self.weights), self.num_samples, self.replacement, self._shares)
