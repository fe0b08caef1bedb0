"""Classes as vectors: learned (embedding) and fixed (one_hot)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from ...devices import array_module
from ...differentiable import A, Array, apply, differentiable
from ...interop import like, to_array
from ...tensor import Tensor
from .embedding_loss import check_norm, distance
from .parameters import check_floating, compute_dtype, integers
from .reduction import may_read


def _check_classes(x: ndarray, count: int | None, name: str) -> None:
    if x.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got dtype {x.dtype}")
    if may_read(x) and x.size and (x.min() < 0 or (count is not None and x.max() >= count)):
        wrong = int(x.min()) if x.min() < 0 else int(x.max())
        limit = "at least 0" if count is None else f"from 0 to {count - 1}"
        raise ValueError(f"{name} must hold numbers {limit}, got {wrong}")


def _shorten(weight: ndarray, rows: ndarray, max_norm: float, norm_type: float) -> None:
    """Scale the `rows` of `weight` that are longer than `max_norm` down to it, in place."""
    if not max_norm >= 0:
        raise ValueError(f"max_norm must not be negative, got {max_norm}")
    check_norm(norm_type)
    rows = np.unique(rows)
    used = weight[rows].astype(compute_dtype(weight), copy=False)
    norm, _ = distance(used, array_module(used).zeros((), used.dtype), norm_type, 0.0)
    # torch's denominator, which keeps the result just below the limit.
    weight[rows] = np.where(norm > max_norm, used * (max_norm / (norm + 1e-7)), used).astype(weight.dtype)


def _embedding_rule(wanted, x, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse):
    check_floating(weight, "weight")
    if sparse:
        raise NotImplementedError("sparse=True is not supported: gradients are whole arrays")
    if weight.ndim != 2:
        raise ValueError(f"weight must have shape (entries, features), got {weight.shape}")
    _check_classes(x, len(weight), "input")
    if padding_idx is not None:
        (padding_idx,) = integers(padding_idx, 1, "padding_idx", -len(weight))
        if padding_idx >= len(weight):
            raise ValueError(f"padding_idx must be below the number of entries {len(weight)}, got {padding_idx}")
        padding_idx %= len(weight)
    if max_norm is not None:
        _shorten(weight, x, max_norm, norm_type)

    def pullback(dy):
        rows = x.reshape(-1)
        library = array_module(weight)
        dw = library.zeros(weight.shape, compute_dtype(weight))
        library.add.at(dw, rows, dy.reshape(-1, weight.shape[1]).astype(dw.dtype, copy=False))
        if scale_grad_by_freq:
            dw /= np.maximum(np.bincount(rows, minlength=len(weight)), 1)[:, None].astype(dw.dtype)
        if padding_idx is not None:
            dw[padding_idx] = 0
        return (dw.astype(weight.dtype, copy=False),)

    y = weight[x]
    if not may_read(x):
        y = np.where(((x < 0) | (x >= len(weight)))[..., None], np.nan, y).astype(y.dtype, copy=False)
    return y, pullback


@differentiable(_embedding_rule, wrt=("weight",), buffers=("input",))
def embedding(
    input: A,
    weight: Array,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> A:
    """The rows of `weight` that `input` names, as torch.nn.functional.embedding.

    Parameters
    ----------
    input : integer array of any shape
        Rows, from 0 on.
    weight : array, shape (entries, features)
        float32, float64, float16 or bfloat16.
    padding_idx : int, optional
        A row that gets no gradient.
    max_norm : float, optional
        Rows that are used and longer than this are first made as short, in `weight` itself.
    norm_type : float
        Which p-norm that is.
    scale_grad_by_freq : bool
        Divide each row's gradient by how often it occurs in `input`.
    sparse : bool
        Must be False: gradients are whole arrays.

    Returns
    -------
    array, shape (*, features)

    Raises
    ------
    ValueError
        A row that `weight` does not have.
    TypeError
        An input that is not of integers, or a dtype of the weight that is not supported.
    NotImplementedError
        `sparse`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.embedding(np.array([1, 0, 1]), np.array([[0.0, 1.0], [2.0, 3.0]]))
    array([[2., 3.],
           [0., 1.],
           [2., 3.]])
    """
    return apply(embedding, input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """A vector for each class number, with a 1 at its place, as torch.nn.functional.one_hot.

    Parameters
    ----------
    tensor : integer array of any shape
    num_classes : int
        Length of the vectors; -1: as long as the largest number needs.

    Returns
    -------
    int64 array, shape (*, num_classes)

    Raises
    ------
    ValueError
        A number that is negative or not below `num_classes`; an empty array without `num_classes`.
    TypeError
        An array that is not of integers.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.one_hot(np.array([2, 0]))
    array([[0, 0, 1],
           [1, 0, 0]])
    """
    x = to_array(tensor.data if isinstance(tensor, Tensor) else tensor, "tensor")
    (count,) = integers(num_classes, 1, "num_classes", -1)
    _check_classes(x, None if count == -1 else count, "tensor")
    if count == -1:
        if not x.size:
            raise ValueError("num_classes must be given for an empty array")
        count = int(x.max()) + 1
    y = (x[..., None] == array_module(x).arange(count)).astype(np.int64)
    return Tensor(y) if isinstance(tensor, Tensor) else like(y, tensor)
