"""The four arrays of a classification task, and the way through them in batches."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

__all__ = ["Dataset", "batches"]


class Dataset(NamedTuple):
    """Images and labels for training and for testing.

    Attributes
    ----------
    train_images, test_images : ndarray of float32, shape (N, 1, H, W)
        Grey values from 0 (background) to 1 (ink).
    train_labels, test_labels : ndarray of int64, shape (N,)

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data import Dataset
    >>> images, labels = np.zeros((3, 1, 8, 8), np.float32), np.arange(3)
    >>> Dataset(images, labels, images[:1], labels[:1]).test_labels
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
