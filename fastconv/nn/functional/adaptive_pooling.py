"""Adaptive average and max pooling: the output's size is given, the windows follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy import ndarray

from ... import backend
from ...differentiable import A, apply, differentiable

Sizes = int | None | Sequence[int | None]


def _adaptive_avg_rule(nd: int) -> Callable[..., Any]:
    def rule(wanted, x, output_size):
        ops = backend.ops

        def pullback(dy):
            return (ops.adaptive_avg_pool_backward(dy, x.shape, nd) if wanted[0] else None,)

        return ops.adaptive_avg_pool_forward(x, output_size, nd), pullback

    return rule


def _adaptive_max_rule(nd: int, always_indices: bool = False) -> Callable[..., Any]:
    def rule(wanted, x, output_size, return_indices):
        ops = backend.ops
        return_indices = return_indices or always_indices
        indices = "flat" if return_indices else "window" if wanted[0] else "none"
        output = ops.adaptive_max_pool_forward(x, output_size, nd, indices)
        y, saved = output if indices != "none" else (output, None)

        def pullback(dy):
            return (ops.adaptive_max_pool_backward(dy, saved, x.shape, nd) if wanted[0] else None,)

        return (output if return_indices else y), pullback

    return rule


@differentiable(_adaptive_avg_rule(1), wrt=("input",))
def adaptive_avg_pool1d(input: A, output_size: Sizes) -> A:
    """Mean over windows that give `output_size`, over one dimension, as torch.nn.functional.adaptive_avg_pool1d.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
        float32, float64, float16 or bfloat16.
    output_size : int
        Size of the output; None keeps the input's. Window i of n goes from ``floor(i * L / n)`` to
        ``ceil((i + 1) * L / n)``.

    Returns
    -------
    array, shape (N, C, P) or (C, P)

    Raises
    ------
    ValueError
        An empty plane, or a negative size.
    TypeError
        A dtype that is not supported, or a size that is no int.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.adaptive_avg_pool1d(np.array([[1.0, 3.0, 2.0, 5.0]]), 2)
    array([[2. , 3.5]])
    """
    if type(input) is ndarray:
        return backend.ops.adaptive_avg_pool_forward(input, output_size, 1)
    return apply(adaptive_avg_pool1d, input, output_size)


@differentiable(_adaptive_avg_rule(2), wrt=("input",))
def adaptive_avg_pool2d(input: A, output_size: Sizes) -> A:
    """Mean over windows that give `output_size`, over two dimensions, as torch.nn.functional.adaptive_avg_pool2d.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        float32, float64, float16 or bfloat16.
    output_size : int, None, or 2 of them
        Size of the output; None keeps the input's. Window i of n goes from ``floor(i * L / n)`` to
        ``ceil((i + 1) * L / n)``.

    Returns
    -------
    array, shape (N, C, P, Q) or (C, P, Q)

    Raises
    ------
    ValueError
        An empty plane, or a negative size.
    TypeError
        A dtype that is not supported, or a size that is no int.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.adaptive_avg_pool2d(np.arange(16.0).reshape(1, 4, 4), (1, 2))
    array([[[6.5, 8.5]]])
    """
    if type(input) is ndarray:
        return backend.ops.adaptive_avg_pool_forward(input, output_size, 2)
    return apply(adaptive_avg_pool2d, input, output_size)


@differentiable(_adaptive_avg_rule(3), wrt=("input",))
def adaptive_avg_pool3d(input: A, output_size: Sizes) -> A:
    """Mean over windows that give `output_size`, over three dimensions, as torch.nn.functional.adaptive_avg_pool3d.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
        float32, float64, float16 or bfloat16.
    output_size : int, None, or 3 of them
        Size of the output; None keeps the input's. Window i of n goes from ``floor(i * L / n)`` to
        ``ceil((i + 1) * L / n)``.

    Returns
    -------
    array, shape (N, C, O, P, Q) or (C, O, P, Q)

    Raises
    ------
    ValueError
        An empty plane, or a negative size.
    TypeError
        A dtype that is not supported, or a size that is no int.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.adaptive_avg_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), (None, 1, 1))
    array([[[[1.5]],
    <BLANKLINE>
            [[5.5]]]])
    """
    if type(input) is ndarray:
        return backend.ops.adaptive_avg_pool_forward(input, output_size, 3)
    return apply(adaptive_avg_pool3d, input, output_size)


@differentiable(_adaptive_max_rule(1), wrt=("input",))
def adaptive_max_pool1d(input: A, output_size: Sizes, return_indices: bool = False) -> Any:
    """Maximum over windows chosen to give `output_size`, as torch.nn.functional.adaptive_max_pool1d.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
        float32, float64, float16 or bfloat16.
    output_size : int
        As for `adaptive_avg_pool1d`.
    return_indices : bool
        Return ``(output, indices)``: the int64 position of each maximum in its flattened plane.

    Returns
    -------
    array, shape (N, C, P) or (C, P)
        With `return_indices`, a tuple of it and an int64 array of the same shape.

    Raises
    ------
    ValueError
        An empty plane, or a negative size.
    TypeError
        A dtype that is not supported, or a size that is no int.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.adaptive_max_pool1d(np.array([[1.0, 3.0, 2.0, 5.0]]), 2)
    array([[3., 5.]])
    """
    if type(input) is ndarray:
        indices = "flat" if return_indices else "none"
        return backend.ops.adaptive_max_pool_forward(input, output_size, 1, indices)
    return apply(adaptive_max_pool1d, input, output_size, return_indices)


@differentiable(_adaptive_max_rule(2), wrt=("input",))
def adaptive_max_pool2d(input: A, output_size: Sizes, return_indices: bool = False) -> Any:
    """Maximum over windows chosen to give `output_size`, as torch.nn.functional.adaptive_max_pool2d.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        float32, float64, float16 or bfloat16.
    output_size : int, None, or 2 of them
        As for `adaptive_avg_pool2d`.
    return_indices : bool
        Return ``(output, indices)``: the int64 position of each maximum in its flattened plane.

    Returns
    -------
    array, shape (N, C, P, Q) or (C, P, Q)
        With `return_indices`, a tuple of it and an int64 array of the same shape.

    Raises
    ------
    ValueError
        An empty plane, or a negative size.
    TypeError
        A dtype that is not supported, or a size that is no int.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.adaptive_max_pool2d(np.arange(16.0).reshape(1, 4, 4), (1, 2))
    array([[[13., 15.]]])
    """
    if type(input) is ndarray:
        indices = "flat" if return_indices else "none"
        return backend.ops.adaptive_max_pool_forward(input, output_size, 2, indices)
    return apply(adaptive_max_pool2d, input, output_size, return_indices)


@differentiable(_adaptive_max_rule(3), wrt=("input",))
def adaptive_max_pool3d(input: A, output_size: Sizes, return_indices: bool = False) -> Any:
    """Maximum over windows chosen to give `output_size`, as torch.nn.functional.adaptive_max_pool3d.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
        float32, float64, float16 or bfloat16.
    output_size : int, None, or 3 of them
        As for `adaptive_avg_pool3d`.
    return_indices : bool
        Return ``(output, indices)``: the int64 position of each maximum in its flattened plane.

    Returns
    -------
    array, shape (N, C, O, P, Q) or (C, O, P, Q)
        With `return_indices`, a tuple of it and an int64 array of the same shape.

    Raises
    ------
    ValueError
        An empty plane, or a negative size.
    TypeError
        A dtype that is not supported, or a size that is no int.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.adaptive_max_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), (None, 1, 1))
    array([[[[3.]],
    <BLANKLINE>
            [[7.]]]])
    """
    if type(input) is ndarray:
        indices = "flat" if return_indices else "none"
        return backend.ops.adaptive_max_pool_forward(input, output_size, 3, indices)
    return apply(adaptive_max_pool3d, input, output_size, return_indices)


@differentiable(_adaptive_max_rule(1, always_indices=True), wrt=("input",))
def adaptive_max_pool1d_with_indices(input: A, output_size: Sizes, return_indices: bool = False) -> tuple[A, Any]:
    """`adaptive_max_pool1d` with ``return_indices=True``, as torch.nn.functional.adaptive_max_pool1d_with_indices.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
    output_size
        As for `adaptive_avg_pool1d`.
    return_indices : bool
        Ignored, as in torch: the indices are always returned.

    Returns
    -------
    output : array, shape (N, C, P) or (C, P)
    indices : int64 array of the same shape

    Raises
    ------
    ValueError, TypeError
        As `adaptive_max_pool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.adaptive_max_pool1d_with_indices(np.array([[1.0, 3.0, 2.0, 5.0]]), 2)[1].ravel()
    array([1, 3])
    """
    return apply(adaptive_max_pool1d_with_indices, input, output_size, return_indices)


@differentiable(_adaptive_max_rule(2, always_indices=True), wrt=("input",))
def adaptive_max_pool2d_with_indices(input: A, output_size: Sizes, return_indices: bool = False) -> tuple[A, Any]:
    """`adaptive_max_pool2d` with ``return_indices=True``, as torch.nn.functional.adaptive_max_pool2d_with_indices.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
    output_size
        As for `adaptive_avg_pool2d`.
    return_indices : bool
        Ignored, as in torch: the indices are always returned.

    Returns
    -------
    output : array, shape (N, C, P, Q) or (C, P, Q)
    indices : int64 array of the same shape

    Raises
    ------
    ValueError, TypeError
        As `adaptive_max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.adaptive_max_pool2d_with_indices(np.arange(16.0).reshape(1, 4, 4), (1, 2))[1].ravel()
    array([13, 15])
    """
    return apply(adaptive_max_pool2d_with_indices, input, output_size, return_indices)


@differentiable(_adaptive_max_rule(3, always_indices=True), wrt=("input",))
def adaptive_max_pool3d_with_indices(input: A, output_size: Sizes, return_indices: bool = False) -> tuple[A, Any]:
    """`adaptive_max_pool3d` with ``return_indices=True``, as torch.nn.functional.adaptive_max_pool3d_with_indices.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
    output_size
        As for `adaptive_avg_pool3d`.
    return_indices : bool
        Ignored, as in torch: the indices are always returned.

    Returns
    -------
    output : array, shape (N, C, O, P, Q) or (C, O, P, Q)
    indices : int64 array of the same shape

    Raises
    ------
    ValueError, TypeError
        As `adaptive_max_pool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.adaptive_max_pool3d_with_indices(np.arange(8.0).reshape(1, 2, 2, 2), (None, 1, 1))[1].ravel()
    array([3, 7])
    """
    return apply(adaptive_max_pool3d_with_indices, input, output_size, return_indices)
