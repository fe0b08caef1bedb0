"""Max unpooling of one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ... import backend
from ...differentiable import A, Array, apply, differentiable
from .parameters import Sizes, integers


def _max_unpool_rule(nd: int) -> Callable[..., Any]:
    def rule(wanted, x, indices, kernel_size, stride, padding, output_size):
        ops = backend.ops
        size = _unpooled_size(x.shape, kernel_size, stride, padding, output_size, nd)

        def pullback(dy):
            return (ops.max_unpool_backward(dy, indices, nd) if wanted[0] else None,)

        return ops.max_unpool_forward(x, indices, size, nd), pullback

    return rule


def _unpooled_size(
    shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, output_size: Any, nd: int
) -> tuple[int, ...]:
    """The plane that was pooled: the smallest that fits, or `output_size` where that lies within one stride of it."""
    if len(shape) not in (nd + 1, nd + 2):
        raise ValueError(f"input must have {nd + 1} or {nd + 2} dimensions, got shape {shape}")
    kernel = integers(kernel_size, nd, "kernel_size", 1)
    step = kernel if stride is None else integers(stride, nd, "stride", 1)
    pad = integers(padding, nd, "padding", 0)
    default = tuple((n - 1) * s - 2 * p + k for n, s, p, k in zip(shape[-nd:], step, pad, kernel))
    if output_size is None:
        return default
    given = tuple(output_size)[-nd:] if len(tuple(output_size)) in (nd + 1, nd + 2) else tuple(output_size)
    given = integers(given, nd, "output_size", 0)
    if any(not d - s < g < d + s for d, s, g in zip(default, step, given)):
        raise ValueError(f"output_size must be within one stride {step} of {default}, got {given}")
    return given


@differentiable(_max_unpool_rule(1), wrt=("input",), buffers=("indices",))
def max_unpool1d(
    input: A,
    indices: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> A:
    """Put values back to where `max_pool1d` found them, zeros elsewhere, as torch.nn.functional.max_unpool1d.

    Parameters
    ----------
    input : array, shape (N, C, P) or (C, P)
        float32, float64, float16 or bfloat16.
    indices : int64 array of the same shape
        Positions in the flattened planes of the output. Where one occurs twice, the last value wins.
    kernel_size, stride, padding : int or one int a dimension
        Those of the pooling.
    output_size : sequence of int, optional
        Which of the sizes that pool to the input's is meant, with or without N and C; default: the smallest.

    Returns
    -------
    array, shape (N, C, L) or (C, L)

    Raises
    ------
    ValueError
        Indices outside the plane, shapes that differ, an `output_size` that does not pool to the input's.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.max_unpool1d(np.array([[3.0, 5.0]]), np.array([[1, 3]]), 2)
    array([[0., 3., 0., 5.]])
    """
    return apply(max_unpool1d, input, indices, kernel_size, stride, padding, output_size)


@differentiable(_max_unpool_rule(2), wrt=("input",), buffers=("indices",))
def max_unpool2d(
    input: A,
    indices: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> A:
    """Put values back to where `max_pool2d` found them, zeros elsewhere, as torch.nn.functional.max_unpool2d.

    Parameters
    ----------
    input : array, shape (N, C, P, Q) or (C, P, Q)
        float32, float64, float16 or bfloat16.
    indices : int64 array of the same shape
        Positions in the flattened planes of the output. Where one occurs twice, the last value wins.
    kernel_size, stride, padding : int or one int a dimension
        Those of the pooling.
    output_size : sequence of int, optional
        Which of the sizes that pool to the input's is meant, with or without N and C; default: the smallest.

    Returns
    -------
    array, shape (N, C, H, W) or (C, H, W)

    Raises
    ------
    ValueError
        Indices outside the plane, shapes that differ, an `output_size` that does not pool to the input's.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.max_unpool2d(np.array([[[9.0]]]), np.array([[[3]]]), 2)
    array([[[0., 0.],
            [0., 9.]]])
    """
    return apply(max_unpool2d, input, indices, kernel_size, stride, padding, output_size)


@differentiable(_max_unpool_rule(3), wrt=("input",), buffers=("indices",))
def max_unpool3d(
    input: A,
    indices: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> A:
    """Put values back to where `max_pool3d` found them, zeros elsewhere, as torch.nn.functional.max_unpool3d.

    Parameters
    ----------
    input : array, shape (N, C, O, P, Q) or (C, O, P, Q)
        float32, float64, float16 or bfloat16.
    indices : int64 array of the same shape
        Positions in the flattened planes of the output. Where one occurs twice, the last value wins.
    kernel_size, stride, padding : int or one int a dimension
        Those of the pooling.
    output_size : sequence of int, optional
        Which of the sizes that pool to the input's is meant, with or without N and C; default: the smallest.

    Returns
    -------
    array, shape (N, C, D, H, W) or (C, D, H, W)

    Raises
    ------
    ValueError
        Indices outside the plane, shapes that differ, an `output_size` that does not pool to the input's.
    TypeError
        A dtype that is not supported, or an option of the wrong kind.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.max_unpool3d(np.array([[[[9.0]]]]), np.array([[[[7]]]]), 2)
    array([[[[0., 0.],
             [0., 0.]],
    <BLANKLINE>
            [[0., 0.],
             [0., 9.]]]])
    """
    return apply(max_unpool3d, input, indices, kernel_size, stride, padding, output_size)
