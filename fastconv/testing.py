"""Comparison against the numeric contract: one bound for every operation, dtype and backend.

A result is right when it differs from the float64 result by no more than what rounding explains::

    |y - y64| <= c * u_acc * sqrt(terms) * magnitude + u_out * |y64| + tiny

``magnitude`` is the operation computed on absolute values (``|x| conv |w|`` for a convolution), ``terms`` the length
of the reduction, ``u_acc`` the unit roundoff of the accumulator (float32 for float16 and bfloat16) and ``u_out`` that
of the stored result. ``tiny`` covers results that a kernel may flush to zero. The worst case that can be proved
replaces ``c * sqrt(terms)`` by ``terms`` (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); errors
of random data grow with the root, which keeps the bound tight enough to notice a single wrong term.

That is the class of float32 precision ``"highest"``. Results of ``"high"`` may be off by 2^-16 (1.5e-5) of the
magnitude where rounding explains less (`fastconv.set_float32_precision`).

The operations and shapes that ``fastconv verify`` runs are in `fastconv.cases`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

__all__ = ["assert_bound", "error_bound", "error_ratio", "unit_roundoff"]

# Significand bits including the hidden one; rounding to nearest costs half a unit in the last place: u = 2 ** -bits.
_SIGNIFICAND_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
_SMALLEST_SUBNORMAL = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}
_HIGH = 2.0**-16  # relative to the magnitude: what two bfloat16 terms keep of a product
_LARGEST = {
    "float64": float(np.finfo(np.float64).max),
    "float32": float(np.finfo(np.float32).max),
    "float16": 65504.0,
    "bfloat16": (2 - 2.0**-7) * 2.0**127,
}


def _name(dtype: DTypeLike) -> str:
    name = np.dtype(dtype).name
    if name not in _SIGNIFICAND_BITS:
        raise TypeError(f"dtype must be one of {', '.join(_SIGNIFICAND_BITS)}, got {name}")
    return name


def unit_roundoff(dtype: DTypeLike) -> float:
    """Half the distance from 1 to the next number of `dtype`.

    Parameters
    ----------
    dtype : dtype
        float64, float32, float16 or bfloat16 (of `ml_dtypes`).

    Returns
    -------
    float
        2^-53, 2^-24, 2^-11 or 2^-8.

    Raises
    ------
    TypeError
        For any other dtype.

    Examples
    --------
    >>> from fastconv.testing import unit_roundoff
    >>> unit_roundoff("float32") == 2**-24
    True
    """
    return 2.0 ** -_SIGNIFICAND_BITS[_name(dtype)]


def error_bound(
    y64: ArrayLike,
    magnitude: ArrayLike,
    terms: int,
    dtype: DTypeLike,
    c: float = 4.0,
    precision: str = "highest",
) -> np.ndarray:
    """Largest error that rounding explains, for each element.

    Parameters
    ----------
    y64 : array_like
        The result in float64.
    magnitude : array_like
        The same operation on absolute values, of a shape that broadcasts to that of `y64`; 0 for an operation that only
        selects values (max-pool, ReLU).
    terms : int
        Length of the longest reduction.
    dtype : dtype
        The dtype of the inputs and of the result.
    c : float, default 4
        Factor on the accumulated error.
    precision : {"highest", "high"}, default "highest"
        Class of the result; the two differ where sums are in float32.

    Returns
    -------
    ndarray of float64, the shape of `y64`

    Raises
    ------
    TypeError
        If `dtype` is not one of the four floating dtypes.
    ValueError
        If `terms` is negative, or `precision` is another word.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.testing import error_bound
    >>> bool(error_bound(1.0, 1.0, 16, np.float32) < 1.1e-6)
    True
    """
    name = _name(dtype)
    if terms < 0:
        raise ValueError(f"terms must be at least 0, got {terms}")
    if precision not in ("highest", "high"):
        raise ValueError(f"precision must be 'highest' or 'high', got {precision!r}")
    accumulator = "float64" if name == "float64" else "float32"
    relative = c * unit_roundoff(accumulator) * float(terms) ** 0.5
    if precision == "high" and accumulator == "float32":
        relative = max(relative, _HIGH)
    y64 = np.asarray(y64, dtype=np.float64)
    magnitude = np.broadcast_to(np.asarray(magnitude, dtype=np.float64), y64.shape)
    tiny = float(np.finfo(accumulator).tiny) + _SMALLEST_SUBNORMAL[name]
    with np.errstate(invalid="ignore", over="ignore"):
        return relative * magnitude + unit_roundoff(name) * np.abs(y64) + tiny


def error_ratio(y: ArrayLike, y64: ArrayLike, bound: ArrayLike, dtype: DTypeLike) -> np.ndarray:
    """Error of each element in units of its bound; above 1 the element is wrong.

    Not-a-number and infinity have to be in the same places (an element whose bound reaches the largest number of
    `dtype` may be either infinite or finite); the ratio there is 0, elsewhere infinity.

    Parameters
    ----------
    y, y64, bound : array_like
        The result, the float64 result and the bound, of one shape.
    dtype : dtype
        The dtype of the result.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    ValueError
        If the shapes of `y` and `y64` differ.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.testing import error_ratio
    >>> error_ratio([1.0, np.nan], [1.5, np.nan], [1.0, 1.0], np.float32)
    array([0.5, 0. ])
    """
    y = np.asarray(y).astype(np.float64)
    y64 = np.asarray(y64, dtype=np.float64)
    bound = np.asarray(bound, dtype=np.float64)
    if y.shape != y64.shape:
        raise ValueError(f"y has the shape {y.shape}, expected {y64.shape}")
    largest = _LARGEST[_name(dtype)]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = np.abs(y - y64)
        ratio = np.where(error == 0, 0.0, error / bound)
        may_overflow = np.isfinite(y64) & (np.abs(y64) + bound >= largest)
        same_special = (np.isnan(y) & np.isnan(y64)) | (np.isinf(y64) & (y == y64))
        overflowed = may_overflow & np.isinf(y) & (np.sign(y) == np.sign(y64))
        finite = np.isfinite(y) & np.isfinite(y64)
        return np.where(same_special | overflowed, 0.0, np.where(finite, ratio, np.inf))


def assert_bound(
    y: ArrayLike,
    y64: ArrayLike,
    magnitude: ArrayLike,
    terms: int,
    dtype: DTypeLike | None = None,
    c: float = 4.0,
    what: str = "result",
    precision: str = "highest",
) -> None:
    """Fail unless `y` is the float64 result `y64` within the numeric contract.

    Parameters
    ----------
    y : array_like
        The result under test.
    y64, magnitude, terms, c, precision
        As in `error_bound`.
    dtype : dtype, optional
        The dtype the contract is taken for; that of `y` when not given.
    what : str, default "result"
        Name of the array in the message.

    Raises
    ------
    AssertionError
        Where the shapes differ or an element is off by more than the bound; the message shows the worst element.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.testing import assert_bound
    >>> x = np.full(1000, 0.1, np.float32)
    >>> assert_bound(x.sum(), x.astype(np.float64).sum(), np.abs(x).sum(), x.size)
    """
    y = np.asarray(y)
    y64 = np.asarray(y64, dtype=np.float64)
    dtype = y.dtype if dtype is None else np.dtype(dtype)
    if y.shape != y64.shape:
        raise AssertionError(f"{what}: shape {y.shape}, expected {y64.shape}")
    if y.size == 0:
        return
    bound = error_bound(y64, magnitude, terms, dtype, c, precision)
    ratio = error_ratio(y, y64, bound, dtype)
    worst = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    if not ratio[worst] <= 1:
        wrong = int(np.count_nonzero(~(ratio <= 1)))
        raise AssertionError(
            f"{what}: {wrong} of {y.size} elements beyond the {dtype.name} bound ({terms} terms); worst at "
            f"{tuple(int(i) for i in worst)}: got {float(y[worst])!r}, expected {float(y64[worst])!r}, "
            f"error {abs(float(y[worst]) - float(y64[worst])):.3e}, bound {float(bound[worst]):.3e}"
        )
