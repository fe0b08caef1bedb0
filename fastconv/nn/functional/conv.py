"""Convolutions and transposed convolutions of one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy import ndarray

from ... import backend
from ...differentiable import A, Array, apply, differentiable
from .parameters import Padding, Sizes


def _conv_rule(nd: int) -> Callable[..., Any]:
    def rule(wanted, x, w, b, stride, padding, dilation, groups):
        ops = backend.ops

        def pullback(dy):
            options = (stride, padding, dilation, groups, nd)
            return (
                ops.conv_backward_input(dy, w, x.shape, *options) if wanted[0] else None,
                ops.conv_backward_weight(dy, x, w.shape, *options) if wanted[1] else None,
                ops.conv_backward_bias(dy, nd) if wanted[2] else None,
            )

        return ops.conv_forward(x, w, b, stride, padding, dilation, groups, nd), pullback

    return rule


def _conv_transpose_rule(nd: int) -> Callable[..., Any]:
    def rule(wanted, x, w, b, stride, padding, output_padding, groups, dilation):
        ops = backend.ops

        def pullback(dy):
            options = (stride, padding, output_padding, groups, dilation, nd)
            return (
                ops.conv_transpose_backward_input(dy, w, x.shape, *options) if wanted[0] else None,
                ops.conv_transpose_backward_weight(dy, x, w.shape, *options) if wanted[1] else None,
                ops.conv_backward_bias(dy, nd) if wanted[2] else None,
            )

        y = ops.conv_transpose_forward(x, w, b, stride, padding, output_padding, groups, dilation, nd)
        return y, pullback

    return rule


@differentiable(_conv_rule(1), wrt=("input", "weight", "bias"))
def conv1d(
    input: A,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> A:
    """Cross-correlation of `input` with `weight` along one dimension, as torch.nn.functional.conv1d.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
        float32, float64, float16 or bfloat16.
    weight : array, shape (K, C / groups, R)
        Same dtype.
    bias : array, shape (K,), optional
        Same dtype.
    stride, padding, dilation, groups
        As for `conv2d`, with one dimension.

    Returns
    -------
    array, shape (N, K, P) or (K, P)
        ``P = (L + padding before and after - dilation * (R - 1) - 1) // stride + 1``

    Raises
    ------
    ValueError, TypeError
        As `conv2d`.

    See Also
    --------
    conv2d : the same in two dimensions, with all options explained.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.conv1d(np.array([[1.0, 2.0, 4.0, 8.0]]), np.array([[[-1.0, 1.0]]]))
    array([[1., 2., 4.]])
    """
    if type(input) is ndarray and type(weight) is ndarray and (bias is None or type(bias) is ndarray):
        return backend.ops.conv_forward(input, weight, bias, stride, padding, dilation, groups, 1)
    return apply(conv1d, input, weight, bias, stride, padding, dilation, groups)


@differentiable(_conv_rule(2), wrt=("input", "weight", "bias"))
def conv2d(
    input: A,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> A:
    """Cross-correlation of `input` with `weight` over two dimensions, as torch.nn.functional.conv2d.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        float32, float64, float16 or bfloat16. Channels-last strides are computed as such, and the result has them, too.
    weight : array, shape (K, C / groups, R, S)
        Same dtype. The kernel is not flipped; `fastconv.convolve2d` does that.
    bias : array, shape (K,), optional
        Same dtype.
    stride : int or one int a dimension
        Steps between the windows, at least 1.
    padding : int, one int a dimension, one (before, after) pair a dimension, "same" or "valid"
        Zeros around the input. "same" gives ``ceil(size / stride)`` outputs, the odd zero at the end (ONNX SAME_UPPER);
        with stride 1 that is torch's. Pairs are ONNX's ``pads``.
    dilation : int or one int a dimension
        Steps between the elements of a window, at least 1.
    groups : int
        Divides C and K: each group of output channels sees its own C / groups input channels.

    Returns
    -------
    array, shape (N, K, P, Q) or (K, P, Q)
        ``P = (H + padding before and after - dilation * (R - 1) - 1) // stride + 1``, and Q alike.

    Raises
    ------
    ValueError
        Shapes that do not fit together, or an option out of its range.
    TypeError
        A dtype that is not supported, dtypes that differ, or an option of the wrong kind.

    Notes
    -----
    ``conv2d.vjp(...)`` returns ``(output, pullback)``; the pullback gives the gradients of input, weight and (where
    given) bias. An empty batch gives an empty result. 16-bit types are accumulated in float32.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> image = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> F.conv2d(image, np.ones((1, 1, 3, 3)), padding="same", stride=2)
    array([[[[45., 39.],
             [66., 50.]]]])
    >>> y, pullback = F.conv2d.vjp(image, np.ones((1, 1, 4, 4)), wrt=("weight",))
    >>> (dw,) = pullback(np.ones_like(y))
    >>> bool((dw == image).all())
    True
    """
    if type(input) is ndarray and type(weight) is ndarray and (bias is None or type(bias) is ndarray):
        return backend.ops.conv_forward(input, weight, bias, stride, padding, dilation, groups, 2)
    return apply(conv2d, input, weight, bias, stride, padding, dilation, groups)


@differentiable(_conv_rule(3), wrt=("input", "weight", "bias"))
def conv3d(
    input: A,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> A:
    """Cross-correlation of `input` with `weight` over three dimensions, as torch.nn.functional.conv3d.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
        float32, float64, float16 or bfloat16.
    weight : array, shape (K, C / groups, T, R, S)
        Same dtype.
    bias : array, shape (K,), optional
        Same dtype.
    stride, padding, dilation, groups
        As for `conv2d`, with three dimensions.

    Returns
    -------
    array, shape (N, K, O, P, Q) or (K, O, P, Q)

    Raises
    ------
    ValueError, TypeError
        As `conv2d`.

    See Also
    --------
    conv2d : the same in two dimensions, with all options explained.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.conv3d(np.ones((1, 1, 3, 3, 3)), np.ones((2, 1, 3, 3, 3)), bias=np.array([0.0, 1.0])).ravel()
    array([27., 28.])
    """
    if type(input) is ndarray and type(weight) is ndarray and (bias is None or type(bias) is ndarray):
        return backend.ops.conv_forward(input, weight, bias, stride, padding, dilation, groups, 3)
    return apply(conv3d, input, weight, bias, stride, padding, dilation, groups)


@differentiable(_conv_transpose_rule(1), wrt=("input", "weight", "bias"))
def conv_transpose1d(
    input: A,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> A:
    """Transposed convolution along one dimension, as torch.nn.functional.conv_transpose1d.

    Parameters
    ----------
    input : array, shape (N, C, L) or (C, L)
        float32, float64, float16 or bfloat16.
    weight : array, shape (C, K / groups, R)
        Same dtype.
    bias : array, shape (K,), optional
        Same dtype.
    stride, padding, output_padding, groups, dilation
        As for `conv_transpose2d`, with one dimension.

    Returns
    -------
    array, shape (N, K, P) or (K, P)
        ``P = (L - 1) * stride - 2 * padding + dilation * (R - 1) + output_padding + 1``

    Raises
    ------
    ValueError, TypeError
        As `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.conv_transpose1d(np.array([[1.0, 2.0]]), np.array([[[1.0, 10.0]]]), stride=2)
    array([[ 1., 10.,  2., 20.]])
    """
    if type(input) is ndarray and type(weight) is ndarray and (bias is None or type(bias) is ndarray):
        return backend.ops.conv_transpose_forward(
            input, weight, bias, stride, padding, output_padding, groups, dilation, 1
        )
    return apply(conv_transpose1d, input, weight, bias, stride, padding, output_padding, groups, dilation)


@differentiable(_conv_transpose_rule(2), wrt=("input", "weight", "bias"))
def conv_transpose2d(
    input: A,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> A:
    """Transposed convolution over two dimensions, as torch.nn.functional.conv_transpose2d.

    It is the gradient of `conv2d` with respect to its input, as a layer of its own.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        float32, float64, float16 or bfloat16.
    weight : array, shape (C, K / groups, R, S)
        Same dtype.
    bias : array, shape (K,), optional
        Same dtype.
    stride : int or one int a dimension
        Steps between the windows in the output.
    padding : int or one int a dimension
        Rows and columns cut from each side of the output.
    output_padding : int or one int a dimension
        Rows and columns added at the end of the output; less than stride or dilation.
    groups : int
        Divides C and K.
    dilation : int or one int a dimension
        Steps between the elements of a window.

    Returns
    -------
    array, shape (N, K, P, Q) or (K, P, Q)
        ``P = (H - 1) * stride - 2 * padding + dilation * (R - 1) + output_padding + 1``, and Q alike.

    Raises
    ------
    ValueError
        Shapes that do not fit together, or an option out of its range.
    TypeError
        A dtype that is not supported, dtypes that differ, or an option of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.conv_transpose2d(np.array([[[1.0, 2.0]]]), np.ones((1, 1, 2, 2)), stride=2)
    array([[[1., 1., 2., 2.],
            [1., 1., 2., 2.]]])
    """
    if type(input) is ndarray and type(weight) is ndarray and (bias is None or type(bias) is ndarray):
        return backend.ops.conv_transpose_forward(
            input, weight, bias, stride, padding, output_padding, groups, dilation, 2
        )
    return apply(conv_transpose2d, input, weight, bias, stride, padding, output_padding, groups, dilation)


@differentiable(_conv_transpose_rule(3), wrt=("input", "weight", "bias"))
def conv_transpose3d(
    input: A,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> A:
    """Transposed convolution over three dimensions, as torch.nn.functional.conv_transpose3d.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
        float32, float64, float16 or bfloat16.
    weight : array, shape (C, K / groups, T, R, S)
        Same dtype.
    bias : array, shape (K,), optional
        Same dtype.
    stride, padding, output_padding, groups, dilation
        As for `conv_transpose2d`, with three dimensions.

    Returns
    -------
    array, shape (N, K, O, P, Q) or (K, O, P, Q)

    Raises
    ------
    ValueError, TypeError
        As `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.conv_transpose3d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1, 2)), stride=2).shape
    (1, 1, 3, 4)
    """
    if type(input) is ndarray and type(weight) is ndarray and (bias is None or type(bias) is ndarray):
        return backend.ops.conv_transpose_forward(
            input, weight, bias, stride, padding, output_padding, groups, dilation, 3
        )
    return apply(conv_transpose3d, input, weight, bias, stride, padding, output_padding, groups, dilation)
