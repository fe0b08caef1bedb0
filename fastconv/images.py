"""Convolution and correlation of images, as the lecture books define them.

A convolution turns the kernel by 180 degrees, a correlation does not; neural networks compute correlations and call
them convolutions. The results are those of `scipy.signal.convolve2d` and `scipy.signal.correlate2d`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .nn import functional as F

__all__ = ["convolve2d", "correlate2d", "separate"]

_PAD_MODE: dict[str, Any] = {  # the names of numpy.pad
    "fill": "constant",
    "wrap": "wrap",
    "symm": "symmetric",
    "reflect": "reflect",
    "edge": "edge",
}
_MODES = ("full", "same", "valid")


def convolve2d(
    image: ArrayLike,
    kernel: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: float = 0,
    *,
    separable: bool | str = False,
) -> np.ndarray:
    """Convolve an image with a kernel: the kernel is turned by 180 degrees and slid over the image.

    ``y[p, q] = sum over r, s of kernel[r, s] * image[p - r, q - s]``

    Parameters
    ----------
    image : array_like, shape (H, W) or (H, W, C)
        float32, float64, float16 or bfloat16; bool and integers of up to 16 bits are computed in float32, wider
        integers in float64. The channels of a colour image are convolved each on its own.
    kernel : array_like, shape (R, S)
        Converted to the dtype of the computation.
    mode : {"full", "same", "valid"}, default "full"
        Output of H+R-1 x W+S-1 (every overlap), of the image's size (the centre of "full"), or of H-R+1 x W-S+1 (no
        pixel from outside). In "valid" the kernel may be the larger one of the two (in both directions), as in SciPy.
    boundary : {"fill", "wrap", "symm", "reflect", "edge"}, default "fill"
        The pixels outside: `fillvalue`, periodic, mirrored with the edge pixel repeated, mirrored without, or the edge
        pixel. "valid" needs none.
    fillvalue : float, default 0
        For `boundary` "fill".
    separable : bool or "auto", default False
        True: compute with two 1-D filters, R + S instead of R * S products a pixel; the kernel has to be of rank 1 (see
        `separate`). "auto": do so if it is. The result then differs in rounding.

    Returns
    -------
    ndarray, floating
        Two or three dimensions like `image`.

    Raises
    ------
    TypeError
        If an array is not numeric, or is complex.
    ValueError
        For a wrong number of dimensions, an empty array, an unknown `mode` or `boundary`, a kernel of higher rank with
        ``separable=True``, or "valid" where neither array covers the other.

    Notes
    -----
    Same definition as `scipy.signal.convolve2d`, which has the boundaries "fill", "wrap" and "symm".

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image = np.zeros((3, 3)); image[1, 1] = 1
    >>> fc.convolve2d(image, [[1, 2], [3, 4]], mode="same")
    array([[0., 0., 0.],
           [0., 1., 2.],
           [0., 3., 4.]])
    """
    return _filter(image, kernel, mode, boundary, fillvalue, separable, flip=True)


def correlate2d(
    image: ArrayLike,
    kernel: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: float = 0,
    *,
    separable: bool | str = False,
) -> np.ndarray:
    """Correlate an image with a kernel: the kernel is slid over the image as it is.

    ``y[p, q] = sum over r, s of kernel[r, s] * image[p + r, q + s]``

    Parameters, result and errors are those of `convolve2d`. In mode "same" the centre of a kernel of even size is the
    upper left one of the four middle elements, as in `scipy.signal.correlate2d`.

    Parameters
    ----------
    image : array_like, shape (H, W) or (H, W, C)
    kernel : array_like, shape (R, S)
    mode : {"full", "same", "valid"}, default "full"
    boundary : {"fill", "wrap", "symm", "reflect", "edge"}, default "fill"
    fillvalue : float, default 0
    separable : bool or "auto", default False

    Returns
    -------
    ndarray, floating

    Raises
    ------
    TypeError, ValueError
        As `convolve2d`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.correlate2d(np.arange(9).reshape(3, 3), [[0, 1], [0, 0]], mode="valid")
    array([[1., 2.],
           [4., 5.]])
    """
    return _filter(image, kernel, mode, boundary, fillvalue, separable, flip=False)


def separate(kernel: ArrayLike, tolerance: float | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """Split a kernel of rank 1 into a column and a row filter.

    Parameters
    ----------
    kernel : array_like, shape (R, S)
    tolerance : float, optional
        The kernel counts as rank 1 if its second singular value is at most `tolerance` times the first; by default
        ``max(R, S)`` units of rounding of its dtype (float32 for integers).

    Returns
    -------
    (column, row) or None
        Arrays of shape (R,) and (S,) with ``np.outer(column, row)`` equal to the kernel within the tolerance, or None
        if the rank is above 1. The column is one of the kernel's own, so that integers stay integers.

    Raises
    ------
    TypeError
        If the kernel is not numeric, or is complex.
    ValueError
        If it is not two-dimensional, is empty, or has elements that are not finite.

    Examples
    --------
    >>> import fastconv as fc
    >>> column, row = fc.images.separate([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    >>> (column / column[0]).tolist(), (row * column[0]).tolist()
    ([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0])
    >>> fc.images.separate([[0, 1, 0], [1, -4, 1], [0, 1, 0]]) is None
    True
    """
    kernel = _kernel(kernel)
    dtype = _floating(kernel, "kernel")
    weights = kernel.astype(np.float64)
    if not np.isfinite(weights).all():
        raise ValueError("kernel must be finite to be separated")
    if tolerance is None:
        bits = {2: 2.0**-7, 4: 2.0**-23, 8: 2.0**-52}[dtype.itemsize]
        tolerance = max(weights.shape) * bits
    singular = np.linalg.svd(weights, compute_uv=False)
    if singular.size > 1 and singular[1] > tolerance * singular[0]:
        return None
    # The row and column through the largest element rather than the singular vectors: integers stay integers.
    r, s = np.unravel_index(int(np.argmax(np.abs(weights))), weights.shape)
    pivot = weights[r, s] if weights[r, s] else 1.0
    return weights[:, s].astype(dtype), (weights[r, :] / pivot).astype(dtype)


def _floating(array: np.ndarray, name: str) -> np.dtype:
    dtype = array.dtype
    if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize <= 2):
        return np.dtype(np.float32)
    if dtype.kind in "iu":
        return np.dtype(np.float64)
    if dtype.name in ("float16", "float32", "float64", "bfloat16"):
        return dtype.newbyteorder("=") if dtype.name != "bfloat16" else dtype
    raise TypeError(f"{name} must hold real numbers (bool, integer, float16, bfloat16, float32, float64), got {dtype}")


def _kernel(kernel: ArrayLike) -> np.ndarray:
    kernel = np.asarray(kernel)
    if kernel.ndim != 2:
        raise ValueError(f"kernel must be two-dimensional, got the shape {kernel.shape}")
    if kernel.size == 0:
        raise ValueError(f"kernel must not be empty, got the shape {kernel.shape}")
    return kernel


def _filter(
    image: ArrayLike,
    kernel: ArrayLike,
    mode: str,
    boundary: str,
    fillvalue: float,
    separable: bool | str,
    flip: bool,
) -> np.ndarray:
    image, kernel = np.asarray(image), _kernel(kernel)
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
    if boundary not in _PAD_MODE:
        raise ValueError(f"boundary must be one of {', '.join(_PAD_MODE)}, got {boundary!r}")
    if not isinstance(separable, bool) and separable != "auto":
        raise ValueError(f"separable must be True, False or 'auto', got {separable!r}")
    if image.ndim not in (2, 3):
        raise ValueError(f"image must have the shape (H, W) or (H, W, C), got {image.shape}")
    if image.size == 0:
        raise ValueError(f"image must not be empty, got the shape {image.shape}")
    try:
        fillvalue = float(fillvalue)
    except (TypeError, ValueError):
        raise ValueError(f"fillvalue must be a number, got {fillvalue!r}") from None
    dtype = _floating(image, "image")
    _floating(kernel, "kernel")

    mirrored = False
    if mode == "valid" and (image.shape[0] < kernel.shape[0] or image.shape[1] < kernel.shape[1]):
        if image.ndim == 3 or image.shape[0] > kernel.shape[0] or image.shape[1] > kernel.shape[1]:
            raise ValueError(
                f"mode 'valid' needs an image at least as large as the kernel in both directions, "
                f"got the image {image.shape} and the kernel {kernel.shape}"
            )
        # x * k = k * x for a convolution; exchanging the arguments of a correlation mirrors its result.
        image, kernel, mirrored = kernel, image, not flip

    image = image.astype(dtype, copy=False)
    passes = _passes(kernel, dtype, separable)
    if mode != "valid":
        image = _extend(image, kernel.shape, mode, boundary, fillvalue, flip)
    planes = image[..., None] if image.ndim == 2 else image
    x = np.moveaxis(planes, -1, 0)[None]  # (1, C, H, W), the channels innermost in memory
    for weights in passes:
        weights = weights[::-1, ::-1] if flip else weights
        w = np.ascontiguousarray(np.broadcast_to(weights, (x.shape[1], 1, *weights.shape)))
        x = F.conv2d(x, w, groups=x.shape[1])
    y = np.moveaxis(x[0], 0, -1)
    y = y[..., 0] if image.ndim == 2 else y
    return np.ascontiguousarray(y[::-1, ::-1] if mirrored else y)


def _passes(kernel: np.ndarray, dtype: np.dtype, separable: bool | str) -> list[np.ndarray]:
    if separable:
        factors = separate(kernel)
        if factors is not None:
            column, row = factors
            return [row[None, :].astype(dtype), column[:, None].astype(dtype)]
        if separable is True:
            raise ValueError(
                "separable=True needs a kernel of rank 1; this one is of higher rank (use separable='auto')"
            )
    return [kernel.astype(dtype)]


def _extend(
    image: np.ndarray, size: tuple[int, ...], mode: str, boundary: str, fillvalue: float, flip: bool
) -> np.ndarray:
    """Put the pixels of the outside around the image, so that what is left is a "valid" correlation."""
    if mode == "full":
        margins = [(k - 1, k - 1) for k in size]
    else:
        # The centre of "full" starts at (k - 1) // 2 of the turned kernel; the two cases differ for even k only.
        before = [k // 2 if flip else (k - 1) // 2 for k in size]
        margins = [(b, k - 1 - b) for b, k in zip(before, size)]
    if boundary == "reflect" and min(image.shape[:2]) == 1 and max(max(m) for m in margins) > 0:
        raise ValueError(f"boundary 'reflect' needs at least two pixels in each direction, got the image {image.shape}")
    margins += [(0, 0)] * (image.ndim - 2)
    if boundary == "fill":
        return np.pad(image, margins, mode="constant", constant_values=fillvalue)
    return np.pad(image, margins, mode=_PAD_MODE[boundary])
