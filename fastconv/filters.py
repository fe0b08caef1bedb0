"""The classical image filters, as read-only float32 arrays.

Each mask is written as the books print it, to be laid over the image: use it with `fastconv.correlate2d`. The
mathematical convolution `fastconv.convolve2d` turns the mask by 180 degrees first, which leaves the symmetric ones
(box, Gaussian, Laplacian, sharpen) as they are and changes the sign of the antisymmetric ones (Sobel, Prewitt, Scharr).

========================  =====================================================================================
``IDENTITY``              gives the image back
``BOX_3``, ``BOX_5``      mean of 3 x 3 and 5 x 5 pixels
``GAUSSIAN_3``, ``_5``    binomial approximation of a Gaussian, sigma about 0.7 and 1.0
``SOBEL_X``, ``SOBEL_Y``  derivative to the right and downwards, smoothed by [1, 2, 1] (Sobel and Feldman, 1968)
``PREWITT_X``, ``_Y``     the same, smoothed by [1, 1, 1] (Prewitt, 1970)
``SCHARR_X``, ``_Y``      the same, smoothed by [3, 10, 3], closer to rotational symmetry (Scharr, 2000)
``LAPLACIAN_4``, ``_8``   second derivative with 4 and with 8 neighbours
``SHARPEN``               the image minus its 4-neighbour Laplacian
``EMBOSS``                relief lit from the upper left, laid over the image
========================  =====================================================================================

`box` and `gaussian` make the two smoothing filters of any size.

Examples
--------
>>> import numpy as np, fastconv as fc
>>> from fastconv.filters import SOBEL_X
>>> ramp = np.tile(np.arange(5, dtype=np.float32), (4, 1))
>>> fc.correlate2d(ramp, SOBEL_X, mode="valid")[0]
array([8., 8., 8.], dtype=float32)
"""

from __future__ import annotations

import operator

import numpy as np

__all__ = [
    "BOX_3",
    "BOX_5",
    "EMBOSS",
    "GAUSSIAN_3",
    "GAUSSIAN_5",
    "IDENTITY",
    "LAPLACIAN_4",
    "LAPLACIAN_8",
    "PREWITT_X",
    "PREWITT_Y",
    "SCHARR_X",
    "SCHARR_Y",
    "SHARPEN",
    "SOBEL_X",
    "SOBEL_Y",
    "box",
    "gaussian",
]


def _mask(rows: object, divisor: float = 1.0) -> np.ndarray:
    mask = (np.asarray(rows, dtype=np.float64) / divisor).astype(np.float32)
    mask.flags.writeable = False
    return mask


def _side(size: int) -> int:
    if isinstance(size, bool | np.bool_):
        raise TypeError("size must be an int, got bool")
    try:
        value = operator.index(size)
    except TypeError:
        raise TypeError(f"size must be an int, got {type(size).__name__}") from None
    if value < 1:
        raise ValueError(f"size must be at least 1, got {value}")
    return value


def box(size: int) -> np.ndarray:
    """Mean filter: `size` x `size` equal weights of sum 1.

    Parameters
    ----------
    size : int
        At least 1.

    Returns
    -------
    ndarray of float32, shape (size, size), read-only

    Raises
    ------
    TypeError
        If `size` is not an int.
    ValueError
        If `size` is below 1.

    Examples
    --------
    >>> from fastconv.filters import box
    >>> box(2)
    array([[0.25, 0.25],
           [0.25, 0.25]], dtype=float32)
    """
    size = _side(size)
    return _mask(np.ones((size, size)), size * size)


def gaussian(sigma: float, size: int | None = None) -> np.ndarray:
    """Sampled Gaussian of sum 1.

    Parameters
    ----------
    sigma : float
        Standard deviation in pixels, above 0.
    size : int, optional
        Side of the mask; by default the odd number that reaches 3 sigma on both sides.

    Returns
    -------
    ndarray of float32, shape (size, size), read-only

    Raises
    ------
    TypeError
        If `size` is not an int.
    ValueError
        If `sigma` is not a positive finite number or `size` is below 1.

    Examples
    --------
    >>> from fastconv.filters import gaussian
    >>> gaussian(1.0).shape, round(float(gaussian(1.0).sum()), 6)
    ((7, 7), 1.0)
    """
    if not 0 < sigma < np.inf:
        raise ValueError(f"sigma must be a positive finite number, got {sigma!r}")
    size = 2 * int(np.ceil(3 * sigma)) + 1 if size is None else _side(size)
    position = np.arange(size) - (size - 1) / 2
    weights = np.exp(-0.5 * (position / sigma) ** 2)
    weights /= weights.sum()
    return _mask(np.outer(weights, weights))


IDENTITY = _mask([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
BOX_3 = box(3)
BOX_5 = box(5)
GAUSSIAN_3 = _mask(np.outer([1, 2, 1], [1, 2, 1]), 16)
GAUSSIAN_5 = _mask(np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]), 256)
SOBEL_X = _mask([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
SOBEL_Y = _mask([[-1, -2, -1], [0, 0, 0], [1, 2, 1]])
PREWITT_X = _mask([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]])
PREWITT_Y = _mask([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
SCHARR_X = _mask([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]])
SCHARR_Y = _mask([[-3, -10, -3], [0, 0, 0], [3, 10, 3]])
LAPLACIAN_4 = _mask([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
LAPLACIAN_8 = _mask([[1, 1, 1], [1, -8, 1], [1, 1, 1]])
SHARPEN = _mask([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])
EMBOSS = _mask([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
