"""Max pooling of one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy import ndarray

from ... import backend
from ...differentiable import A, apply, differentiable
from .parameters import Padding, Sizes


def _max_pool_rule(nd: int, always_indices: bool = False) -> Callable[..., Any]:
    def rule(wanted, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
        ops = backend.ops
        options = (kernel_size, stride, padding, dilation, ceil_mode, nd)
        # without indices to return, the backend may keep what it likes for the gradient: the offset in the window
        return_indices = return_indices or always_indices
        indices = "flat" if return_indices else "window" if wanted[0] else "none"
        output = ops.max_pool_forward(x, *options, indices)
        y, saved = output if indices != "none" else (output, None)

        def pullback(dy):
            return (ops.max_pool_backward(dy, saved, x.shape, *options) if wanted[0] else None,)

        return (output if return_indices else y), pullback

    return rule


@differentiable(_max_pool_rule(1), wrt=("input",))
def max_pool1d(
    input: A,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum of each window over one dimension, as torch.nn.functional.max_pool1d.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
        float32, float64, float16 or bfloat16.
    kernel_size, stride, padding, dilation, ceil_mode, return_indices
        As for `max_pool2d`, with one dimension.

    Returns
    -------
    array, shape (N, C, P) or (C, P)
        With `return_indices`, a tuple of it and an int64 array of the same shape.

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Notes
    -----
    NaN wins; of equal values the first does, and it alone gets the gradient.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.max_pool1d(np.array([[1.0, 3.0, 2.0, 5.0]]), 2)
    array([[3., 5.]])
    """
    if type(input) is ndarray:
        indices = "flat" if return_indices else "none"
        return backend.ops.max_pool_forward(input, kernel_size, stride, padding, dilation, ceil_mode, 1, indices)
    return apply(max_pool1d, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@differentiable(_max_pool_rule(2), wrt=("input",))
def max_pool2d(
    input: A,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum of each window over two dimensions, as torch.nn.functional.max_pool2d.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        float32, float64, float16 or bfloat16.
    kernel_size : int or one int a dimension
        Window, at least 1.
    stride : int or one int a dimension, optional
        Steps between the windows; None: `kernel_size`.
    padding : int, one int a dimension, one (before, after) pair a dimension, "same" or "valid"
        Rows of minus infinity on each side, at most half of the window; in pairs, which may differ, smaller than the
        window. "same" gives ceil(size / stride) outputs (ONNX SAME_UPPER), "valid" is 0.
    dilation : int or one int a dimension
        Steps between the elements of a window.
    ceil_mode : bool
        Round the output's size up instead of down: also windows that begin inside but end outside count.
    return_indices : bool
        Return ``(output, indices)``: the int64 position of each maximum in its flattened plane.

    Returns
    -------
    array, shape (N, C, P, Q) or (C, P, Q)
        With `return_indices`, a tuple of it and an int64 array of the same shape.

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Notes
    -----
    NaN wins; of equal values the first does, and it alone gets the gradient.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> image = np.arange(16.0).reshape(1, 4, 4)
    >>> F.max_pool2d(image, 2)
    array([[[ 5.,  7.],
            [13., 15.]]])
    >>> F.max_pool2d(image, 2, return_indices=True)[1]
    array([[[ 5,  7],
            [13, 15]]])
    """
    if type(input) is ndarray:
        indices = "flat" if return_indices else "none"
        return backend.ops.max_pool_forward(input, kernel_size, stride, padding, dilation, ceil_mode, 2, indices)
    return apply(max_pool2d, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@differentiable(_max_pool_rule(3), wrt=("input",))
def max_pool3d(
    input: A,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum of each window over three dimensions, as torch.nn.functional.max_pool3d.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
        float32, float64, float16 or bfloat16.
    kernel_size, stride, padding, dilation, ceil_mode, return_indices
        As for `max_pool2d`, with three dimensions.

    Returns
    -------
    array, shape (N, C, O, P, Q) or (C, O, P, Q)
        With `return_indices`, a tuple of it and an int64 array of the same shape.

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Notes
    -----
    NaN wins; of equal values the first does, and it alone gets the gradient.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.max_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), 2)
    array([[[[7.]]]])
    """
    if type(input) is ndarray:
        indices = "flat" if return_indices else "none"
        return backend.ops.max_pool_forward(input, kernel_size, stride, padding, dilation, ceil_mode, 3, indices)
    return apply(max_pool3d, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@differentiable(_max_pool_rule(1, always_indices=True), wrt=("input",))
def max_pool1d_with_indices(
    input: A,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[A, Any]:
    """`max_pool1d` with ``return_indices=True``, as torch.nn.functional.max_pool1d_with_indices.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
    kernel_size, stride, padding, dilation, ceil_mode
        As for `max_pool1d`.
    return_indices : bool
        Ignored, as in torch: the indices are always returned.

    Returns
    -------
    output : array, shape (N, C, P) or (C, P)
    indices : int64 array of the same shape
        Position of each maximum in its flattened plane.

    Raises
    ------
    ValueError, TypeError
        As `max_pool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.max_pool1d_with_indices(np.array([[1.0, 3.0, 2.0, 5.0]]), 2)[1].ravel()
    array([1, 3])
    """
    return apply(max_pool1d_with_indices, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@differentiable(_max_pool_rule(2, always_indices=True), wrt=("input",))
def max_pool2d_with_indices(
    input: A,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[A, Any]:
    """`max_pool2d` with ``return_indices=True``, as torch.nn.functional.max_pool2d_with_indices.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
    kernel_size, stride, padding, dilation, ceil_mode
        As for `max_pool2d`.
    return_indices : bool
        Ignored, as in torch: the indices are always returned.

    Returns
    -------
    output : array, shape (N, C, P, Q) or (C, P, Q)
    indices : int64 array of the same shape
        Position of each maximum in its flattened plane.

    Raises
    ------
    ValueError, TypeError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.max_pool2d_with_indices(np.arange(16.0).reshape(1, 4, 4), 2)[1].ravel()
    array([ 5,  7, 13, 15])
    """
    return apply(max_pool2d_with_indices, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@differentiable(_max_pool_rule(3, always_indices=True), wrt=("input",))
def max_pool3d_with_indices(
    input: A,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[A, Any]:
    """`max_pool3d` with ``return_indices=True``, as torch.nn.functional.max_pool3d_with_indices.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
    kernel_size, stride, padding, dilation, ceil_mode
        As for `max_pool3d`.
    return_indices : bool
        Ignored, as in torch: the indices are always returned.

    Returns
    -------
    output : array, shape (N, C, O, P, Q) or (C, O, P, Q)
    indices : int64 array of the same shape
        Position of each maximum in its flattened plane.

    Raises
    ------
    ValueError, TypeError
        As `max_pool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.max_pool3d_with_indices(np.arange(8.0).reshape(1, 2, 2, 2), 2)[1].ravel()
    array([7])
    """
    return apply(max_pool3d_with_indices, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
