"""Data sets: the base class, arrays, a part of one, several as one; the four arrays of a task, batches of arrays."""

from __future__ import annotations

import bisect
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..random import generator as default_generator

__all__ = ["ConcatDataset", "Dataset", "Subset", "TensorDataset", "TrainTest", "batches", "random_split"]


class Dataset:
    """Base class of data sets: a subclass defines ``__len__`` and ``__getitem__(index)``, which gives one sample.

    A sample is an array, a number, or a tuple or dictionary of them; usually ``(image, label)``. Whatever has these two
    methods will do for :class:`DataLoader`, derived from this class or not.

    Notes
    -----
    Source: torch.utils.data.Dataset.

    Examples
    --------
    >>> from fastconv.data import Dataset
    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 5
    ...
    ...     def __getitem__(self, index):
    ...         return index, index**2
    >>> Squares()[3]
    (3, 9)
    >>> len(Squares() + Squares())
    10
    """

    def __add__(self, other: Any) -> ConcatDataset:
        return ConcatDataset([self, other])

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} defines no __len__")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no __getitem__")


class TensorDataset(Dataset):
    """Arrays of one length as a data set, such as images and labels.

    Parameters
    ----------
    *arrays : array, shape (N, ...)
        At least one. They are not copied.
    transform : callable, keyword only, optional
        Applied to the entry of the first array of each sample. What is drawn at random belongs to the
        :class:`DataLoader`, whose batches have a generator of their own.

    Raises
    ------
    ValueError
        No arrays, or arrays of different lengths.

    Notes
    -----
    Source: torch.utils.data.TensorDataset.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data import TensorDataset
    >>> TensorDataset(np.eye(3), np.array([7, 8, 9]))[1]
    (array([0., 1., 0.]), np.int64(8))
    """

    def __init__(self, *arrays: Any, transform: Callable[[Any], Any] | None = None) -> None:
        self.arrays = tuple(np.asarray(array) for array in arrays)
        lengths = [len(array) if array.ndim else None for array in self.arrays]
        if not lengths or None in lengths or len(set(lengths)) != 1:
            raise ValueError(f"arrays must be at least one, all of one length, got the lengths {lengths}")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        first, *others = (array[index] for array in self.arrays)
        return (first if self.transform is None else self.transform(first), *others)

    def batch(self, indices: Sequence[int]) -> tuple[Any, ...]:
        """The samples `indices` as one tuple of arrays, without a detour over single samples."""
        if self.transform is None:
            return tuple(array[indices] for array in self.arrays)
        first = np.stack([self.transform(entry) for entry in self.arrays[0][indices]])
        return (first, *(array[indices] for array in self.arrays[1:]))


class Subset(Dataset):
    """Some samples of a data set, such as those kept for validation.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int
        From 0 to ``len(dataset) - 1``.

    Raises
    ------
    ValueError
        An index that the data set does not have.

    Notes
    -----
    Source: torch.utils.data.Subset.

    Examples
    --------
    >>> from fastconv.data import Subset
    >>> list(Subset("abcdef", [4, 0]))
    ['e', 'a']
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, np.int64)
        count = len(dataset)
        if ((self.indices < 0) | (self.indices >= count)).any():
            raise ValueError(f"indices must be from 0 to {count - 1}, got {self.indices.min()} to {self.indices.max()}")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]


class ConcatDataset(Dataset):
    """Data sets one after the other, as one.

    Parameters
    ----------
    datasets : iterable of Dataset
        At least one. ``a + b`` is ``ConcatDataset([a, b])``.

    Raises
    ------
    ValueError
        No data sets.
    IndexError
        An index that there is not.

    Notes
    -----
    Source: torch.utils.data.ConcatDataset.

    Examples
    --------
    >>> from fastconv.data import ConcatDataset
    >>> data = ConcatDataset(["abc", "de"])
    >>> len(data), data[3], data[-5]
    (5, 'd', 'a')
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("datasets must be at least one, got none")
        self.cumulative_sizes = np.cumsum([len(dataset) for dataset in self.datasets]).tolist()

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        count, position = len(self), operator.index(index)
        if not -count <= position < count:
            raise IndexError(f"index must be from {-count} to {count - 1}, got {position}")
        position %= count
        which = bisect.bisect_right(self.cumulative_sizes, position)
        return self.datasets[which][position - (self.cumulative_sizes[which - 1] if which else 0)]


def random_split(dataset: Any, lengths: Sequence[float], generator: np.random.Generator | None = None) -> list[Subset]:
    """Divide a data set at random. As torch.utils.data.random_split.

    Parameters
    ----------
    dataset : Dataset
    lengths : sequence of int, or of float
        How many samples each part gets, all of them together; or shares that sum to 1, where the first parts get what
        rounding leaves.
    generator : numpy.random.Generator, optional
        Default: the generator that :func:`fastconv.manual_seed` seeds.

    Returns
    -------
    list of Subset

    Raises
    ------
    ValueError
        Lengths that are negative, or do not sum to the number of samples or to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data import TensorDataset, random_split
    >>> parts = random_split(TensorDataset(np.zeros((10, 2)), np.arange(10)), [0.75, 0.25], np.random.default_rng(0))
    >>> [len(part) for part in parts]
    [8, 2]
    """
    count, parts = len(dataset), list(lengths)
    if parts and all(0 <= part <= 1 for part in parts) and abs(sum(parts) - 1) < 1e-9:
        sizes = [int(part * count) for part in parts]
        for i in range(count - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [operator.index(part) if isinstance(part, int | np.integer) else -1 for part in parts]
        if any(part < 0 for part in sizes) or sum(sizes) != count:
            raise ValueError(f"lengths must be counts that sum to {count} or shares that sum to 1, got {parts}")
    order = default_generator(generator).permutation(count)
    ends = np.cumsum(sizes)
    return [Subset(dataset, order[end - part : end].tolist()) for end, part in zip(ends, sizes)]


class TrainTest(NamedTuple):
    """Images and labels for training and for testing, as the readers of well-known data sets return them.

    Attributes
    ----------
    train_images, test_images : ndarray of float32, shape (N, C, H, W)
        From 0 to 1.
    train_labels, test_labels : ndarray of int64, shape (N,)

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data import TrainTest
    >>> images, labels = np.zeros((3, 1, 8, 8), np.float32), np.arange(3)
    >>> TrainTest(images, labels, images[:1], labels[:1]).test_labels
    array([0])
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def batches(*arrays: np.ndarray, size: int, rng: np.random.Generator | None = None) -> Iterator[tuple[np.ndarray, ...]]:
    """Go once through arrays of equal length in batches.

    Parameters
    ----------
    *arrays : ndarray, shape (N, ...)
        At least one; all of the same length.
    size : int
        Examples in a batch; the last batch holds what is left.
    rng : numpy.random.Generator, optional
        Shuffles the order; without it the order is that of the arrays.

    Yields
    ------
    tuple of ndarray
        One part of each array.

    Raises
    ------
    TypeError
        If `size` is not an int.
    ValueError
        If no array is given, the lengths differ, or `size` is below 1. Raised by the call, before the first batch.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data import batches
    >>> [x.tolist() for (x,) in batches(np.arange(5), size=2)]
    [[0, 1], [2, 3], [4]]
    """
    if isinstance(size, bool):
        raise TypeError("size must be an int, got bool")
    try:
        size = operator.index(size)
    except TypeError:
        raise TypeError(f"size must be an int, got {type(size).__name__}") from None
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    lengths = [len(array) for array in arrays]
    if not lengths or len(set(lengths)) != 1:
        raise ValueError(f"batches needs at least one array, all of one length, got the lengths {lengths}")

    def parts() -> Iterator[tuple[np.ndarray, ...]]:
        order = None if rng is None else rng.permutation(lengths[0])
        for start in range(0, lengths[0], size):
            index = slice(start, start + size) if order is None else order[start : start + size]
            yield tuple(array[index] for array in arrays)

    return parts()
