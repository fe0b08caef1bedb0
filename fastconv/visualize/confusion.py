"""Which classes a network takes for which."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.modules.arguments import choice, size
from fastconv.nn.modules.calling import plain

__all__ = ["confusion_matrix"]


def confusion_matrix(
    labels: Any, predictions: Any, num_classes: int | None = None, *, normalize: str | None = None
) -> np.ndarray:
    """Count how often each class was taken for each.

    Parameters
    ----------
    labels : array of int, shape (N,)
        The right classes.
    predictions : array of int, shape (N,), or of float, shape (N, K)
        The classes that were answered, or the scores, of which the first maximum counts.
    num_classes : int, optional
        By default that of the scores, or one more than the largest class that occurs.
    normalize : {"true", "predicted", "all"}, optional
        Give shares instead of counts: of a row, of a column, or of everything. What would be 0 / 0 is 0.

    Returns
    -------
    ndarray of int64 or, normalised, float64, shape (K, K)
        ``matrix[i, j]``: images of class i that were taken for j.

    Raises
    ------
    ValueError
        Lengths that differ, a class outside 0 ... K - 1, or an unknown `normalize`.
    TypeError
        Labels that are no integers.

    Notes
    -----
    As sklearn.metrics.confusion_matrix.

    Examples
    --------
    >>> from fastconv import visualize
    >>> visualize.confusion_matrix([0, 0, 1, 2], [0, 2, 1, 2])
    array([[1, 0, 1],
           [0, 1, 0],
           [0, 0, 1]])
    """
    right, answered = np.asarray(plain(labels)), np.asarray(plain(predictions))
    if answered.ndim == 2:
        num_classes = answered.shape[1] if num_classes is None else num_classes
        answered = answered.argmax(axis=1)
    for name, array in (("labels", right), ("predictions", answered)):
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if right.ndim != 1 or right.shape != answered.shape:
        raise ValueError(f"labels and predictions must be of one length, got shapes {right.shape}, {answered.shape}")
    largest = max((int(array.max()) for array in (right, answered) if array.size), default=-1)
    smallest = min((int(array.min()) for array in (right, answered) if array.size), default=0)
    classes = max(largest + 1, 1) if num_classes is None else size("num_classes", num_classes, 1)
    if smallest < 0 or largest >= classes:
        raise ValueError(f"classes must be from 0 to {classes - 1}, got {smallest if smallest < 0 else largest}")
    flat = np.bincount(right.astype(np.int64) * classes + answered.astype(np.int64), minlength=classes * classes)
    matrix = flat.reshape(classes, classes).astype(np.int64)
    if normalize is None:
        return matrix
    axes = {"true": 1, "predicted": 0, "all": None}[choice("normalize", normalize, ("true", "predicted", "all"))]
    total = matrix.sum(axis=axes, keepdims=True)
    return matrix / np.where(total > 0, total, 1)
