"""Average and power-average pooling of one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy import ndarray

from ... import backend
from ...differentiable import A, apply, differentiable
from .parameters import Padding, Sizes


def _avg_pool_rule(nd: int) -> Callable[..., Any]:
    def rule(wanted, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override=None):
        ops = backend.ops
        options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, nd)

        def pullback(dy):
            return (ops.avg_pool_backward(dy, x.shape, *options) if wanted[0] else None,)

        return ops.avg_pool_forward(x, *options), pullback

    return rule


def _lp_pool_rule(nd: int) -> Callable[..., Any]:
    def rule(wanted, x, norm_type, kernel_size, stride, ceil_mode):
        ops = backend.ops
        options = (norm_type, kernel_size, stride, ceil_mode, nd)
        y = ops.lp_pool_forward(x, *options)

        def pullback(dy):
            return (ops.lp_pool_backward(dy, x, y, *options) if wanted[0] else None,)

        return y, pullback

    return rule


@differentiable(_avg_pool_rule(1), wrt=("input",))
def avg_pool1d(
    input: A,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> A:
    """Mean of each window over one dimension, as torch.nn.functional.avg_pool1d.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
        float32, float64, float16 or bfloat16.
    kernel_size, stride, padding, ceil_mode, count_include_pad
        As for `avg_pool2d`, with one dimension.

    Returns
    -------
    array, shape (N, C, P) or (C, P)

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.avg_pool1d(np.array([[1.0, 3.0, 2.0, 5.0]]), 2)
    array([[2. , 3.5]])
    """
    if type(input) is ndarray:
        return backend.ops.avg_pool_forward(input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1)
    return apply(avg_pool1d, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


@differentiable(_avg_pool_rule(2), wrt=("input",))
def avg_pool2d(
    input: A,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> A:
    """Mean of each window over two dimensions, as torch.nn.functional.avg_pool2d.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        float32, float64, float16 or bfloat16.
    kernel_size : int or one int a dimension
        Window, at least 1.
    stride : int or one int a dimension, optional
        Steps between the windows; None: `kernel_size`.
    padding : int, one int a dimension, one (before, after) pair a dimension, "same" or "valid"
        Zeros on each side, at most half of the window; in pairs, which may differ, smaller than the window. "same"
        gives ceil(size / stride) outputs (ONNX SAME_UPPER), "valid" is 0.
    ceil_mode : bool
        Round the output's size up instead of down.
    count_include_pad : bool
        Divide by the window's size, zeros included; otherwise by the number of elements of the input in it.
    divisor_override : int, optional
        Divide by this instead; not 0.

    Returns
    -------
    array, shape (N, C, P, Q) or (C, P, Q)

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.avg_pool2d(np.arange(16.0).reshape(1, 4, 4), 2)
    array([[[ 2.5,  4.5],
            [10.5, 12.5]]])
    """
    if type(input) is ndarray:
        return backend.ops.avg_pool_forward(
            input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2
        )
    return apply(avg_pool2d, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@differentiable(_avg_pool_rule(3), wrt=("input",))
def avg_pool3d(
    input: A,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> A:
    """Mean of each window over three dimensions, as torch.nn.functional.avg_pool3d.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
        float32, float64, float16 or bfloat16.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As for `avg_pool2d`, with three dimensions.

    Returns
    -------
    array, shape (N, C, O, P, Q) or (C, O, P, Q)

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.avg_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), 2)
    array([[[[3.5]]]])
    """
    if type(input) is ndarray:
        return backend.ops.avg_pool_forward(
            input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 3
        )
    return apply(avg_pool3d, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@differentiable(_lp_pool_rule(1), wrt=("input",))
def lp_pool1d(
    input: A,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> A:
    """The p-norm of each window, ``sum(x**p) ** (1/p)``, over one dimension, as torch.nn.functional.lp_pool1d.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
        float32, float64, float16 or bfloat16.
    norm_type : float
        The exponent p; not 0.
    kernel_size : int or one int a dimension
    stride : int or one int a dimension, optional
        None: `kernel_size`.
    ceil_mode : bool
        Round the output's size up instead of down.

    Returns
    -------
    array, shape (N, C, P) or (C, P)

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Notes
    -----
    As in torch, the sum is that of x**p, not of abs(x)**p, and a negative sum gives 0.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.lp_pool1d(np.array([[3.0, 4.0]]), 2, 2)
    array([[5.]])
    """
    if type(input) is ndarray:
        return backend.ops.lp_pool_forward(input, norm_type, kernel_size, stride, ceil_mode, 1)
    return apply(lp_pool1d, input, norm_type, kernel_size, stride, ceil_mode)


@differentiable(_lp_pool_rule(2), wrt=("input",))
def lp_pool2d(
    input: A,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> A:
    """The p-norm of each window, ``sum(x**p) ** (1/p)``, over two dimensions, as torch.nn.functional.lp_pool2d.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        float32, float64, float16 or bfloat16.
    norm_type : float
        The exponent p; not 0.
    kernel_size : int or one int a dimension
    stride : int or one int a dimension, optional
        None: `kernel_size`.
    ceil_mode : bool
        Round the output's size up instead of down.

    Returns
    -------
    array, shape (N, C, P, Q) or (C, P, Q)

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Notes
    -----
    As in torch, the sum is that of x**p, not of abs(x)**p, and a negative sum gives 0.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.lp_pool2d(np.array([[[1.0, 1.0], [1.0, 1.0]]]), 2, 2)
    array([[[2.]]])
    """
    if type(input) is ndarray:
        return backend.ops.lp_pool_forward(input, norm_type, kernel_size, stride, ceil_mode, 2)
    return apply(lp_pool2d, input, norm_type, kernel_size, stride, ceil_mode)


@differentiable(_lp_pool_rule(3), wrt=("input",))
def lp_pool3d(
    input: A,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> A:
    """The p-norm of each window, ``sum(x**p) ** (1/p)``, over three dimensions, as torch.nn.functional.lp_pool3d.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
        float32, float64, float16 or bfloat16.
    norm_type : float
        The exponent p; not 0.
    kernel_size : int or one int a dimension
    stride : int or one int a dimension, optional
        None: `kernel_size`.
    ceil_mode : bool
        Round the output's size up instead of down.

    Returns
    -------
    array, shape (N, C, O, P, Q) or (C, O, P, Q)

    Raises
    ------
    ValueError
        A window that does not fit, or an option out of its range.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Notes
    -----
    As in torch, the sum is that of x**p, not of abs(x)**p, and a negative sum gives 0.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.lp_pool3d(np.ones((1, 1, 2, 2)), 2, (1, 2, 2))
    array([[[[2.]]]])
    """
    if type(input) is ndarray:
        return backend.ops.lp_pool_forward(input, norm_type, kernel_size, stride, ceil_mode, 3)
    return apply(lp_pool3d, input, norm_type, kernel_size, stride, ceil_mode)
