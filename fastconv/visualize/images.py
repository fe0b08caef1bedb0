"""Arrays as pictures: sizes, ranges, several in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.nn.modules.arguments import sizes
from fastconv.nn.modules.calling import plain

__all__ = ["filter_grid", "resize", "tile"]


def _interpolation(source: int, target: int) -> np.ndarray:
    """Matrix (target, source) of linear interpolation; when shrinking, the triangle is as wide as the new pixels."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(source)) / max(scale, 1.0))
    return weights / weights.sum(axis=1, keepdims=True)


def resize(images: Any, size: int | Sequence[int]) -> np.ndarray:
    """Images of another size by linear interpolation, smoothed where they shrink.

    Parameters
    ----------
    images : array, shape (..., H, W)
    size : int or pair of int
        New height and width.

    Returns
    -------
    ndarray, shape (..., *size), in the dtype of `images` (float32 for integers)

    Raises
    ------
    ValueError, TypeError
        `size` is no pair of positive ints, or an image is empty.

    Notes
    -----
    Pixels are squares whose corners stay aligned: ``torch.nn.functional.interpolate(..., mode="bilinear",
    antialias=True)``, and Pillow's ``BILINEAR``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import visualize
    >>> visualize.resize(np.array([[0.0, 4.0]]), (1, 4))
    array([[0., 1., 3., 4.]])
    """
    array = np.asarray(plain(images))
    height, width = sizes("size", size, 2, 1)
    if array.ndim < 2 or 0 in array.shape[-2:]:
        raise ValueError(f"images must be (..., H, W) and not empty, got shape {array.shape}")
    dtype = np.dtype(np.float32) if array.dtype.kind in "biu" else array.dtype
    rows, columns = _interpolation(array.shape[-2], height), _interpolation(array.shape[-1], width)
    return (rows @ array.astype(np.float64) @ columns.T).astype(dtype)


def scaled(images: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """`images` in float32 with `low` at 0 and `high` at 1; constant images become 0."""
    span = np.asarray(high, np.float32) - np.asarray(low, np.float32)
    return (images.astype(np.float32) - np.asarray(low, np.float32)) / np.where(span > 0, span, 1)


def tile(images: Any, columns: int | None = None, *, border: int = 1, fill: float = 0.0) -> np.ndarray:
    """Several images as one, in rows from left to right.

    Parameters
    ----------
    images : array, shape (N, H, W) or (N, C, H, W)
    columns : int, optional
        Images in a row; by default a nearly square arrangement.
    border : int
        Pixels between the images.
    fill : float
        Value of the border and of empty places.

    Returns
    -------
    ndarray, shape (rows * (H + border) - border, columns * (W + border) - border), with (C,) in front for (N, C, H, W)

    Raises
    ------
    ValueError, TypeError
        No images, or an argument out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import visualize
    >>> visualize.tile(np.array([[[1.0]], [[2.0]], [[3.0]]]))
    array([[1., 0., 2.],
           [0., 0., 0.],
           [3., 0., 0.]])
    """
    array = np.asarray(plain(images))
    if array.ndim not in (3, 4) or array.size == 0:
        raise ValueError(f"images must be (N, H, W) or (N, C, H, W) and not empty, got shape {array.shape}")
    count, *lead, height, width = array.shape
    (across,) = sizes("columns", -(-count // max(round(count**0.5), 1)) if columns is None else columns, 1, 1)
    (gap,) = sizes("border", border, 1, 0)
    across = min(across, count)
    down = -(-count // across)
    grid = np.full((*lead, down * (height + gap) - gap, across * (width + gap) - gap), fill, array.dtype)
    for i, image in enumerate(array):
        top, left = i // across * (height + gap), i % across * (width + gap)
        grid[..., top : top + height, left : left + width] = image
    return grid


def filter_grid(weight: Any, columns: int | None = None, *, each: bool = False, border: int = 1) -> np.ndarray:
    """The filters of a convolution as one picture.

    Parameters
    ----------
    weight : array, shape (K, C, R, S)
        ``conv.weight``. With one channel the picture is grey, with three it is in colour; of other numbers of channels
        every channel is an image of its own, a row for each filter.
    columns : int, optional
        Filters in a row; by default a nearly square arrangement, or C for a row for each filter.
    each : bool
        Scale every filter by its own range; by default one range is used for all, so that weak filters look weak.
    border : int
        Pixels between the filters, in white.

    Returns
    -------
    ndarray of float32, shape (height, width) or, in colour, (height, width, 3)
        From 0 to 1; a weight of 0 is 0.5.

    Raises
    ------
    ValueError, TypeError
        `weight` is not four-dimensional or empty, or an argument is out of its range.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv import visualize
    >>> visualize.filter_grid(nn.Conv2d(1, 6, 5).weight).shape
    (11, 17)
    >>> visualize.filter_grid(nn.Conv2d(3, 64, 11).weight).shape
    (95, 95, 3)
    """
    array = np.asarray(plain(weight))
    if array.ndim != 4 or array.size == 0:
        raise ValueError(f"weight must be (K, C, R, S) and not empty, got shape {array.shape}")
    values = array.astype(np.float32)
    limit = np.abs(values).max(axis=(1, 2, 3) if each else None, keepdims=True)
    values = scaled(values, -limit, limit) * (limit > 0) + np.float32(0.5) * (limit == 0)
    channels = values.shape[1]
    if channels == 3:
        return np.moveaxis(tile(values, columns, border=border, fill=1.0), 0, -1)
    rows = values.reshape(-1, *values.shape[2:])
    return tile(rows, columns if columns or channels == 1 else channels, border=border, fill=1.0)
