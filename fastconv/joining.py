"""cat, stack and flatten, for Tensors and for arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from .devices import one_device
from .elements import concatenate
from .tensor import Tensor
from .tensor_arithmetic import Array, operand
from .tensor_dimensions import flat_shape

T = TypeVar("T")


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Join Tensors or arrays along dimension `dim`. As torch.cat; arrays in, array out.

    Parameters
    ----------
    tensors : sequence of Tensor or array
        Of equal shapes but for `dim`.
    dim : int

    Raises
    ------
    ValueError
        Shapes that do not match, or `dim` out of range.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.cat([np.zeros((1, 2)), np.ones((1, 2))], dim=1)
    array([[0., 0., 1., 1.]])
    """
    if set(map(type, tensors)) == {np.ndarray}:
        return concatenate(tensors, dim)
    arrays = [operand(t) for t in tensors]
    one_device("cat", ((f"tensors[{i}]", array) for i, array in enumerate(arrays)))
    y = concatenate(arrays, dim)
    if not any(isinstance(t, Tensor) for t in tensors):
        return y
    if not any(isinstance(t, Tensor) and t.requires_grad for t in tensors):
        return Tensor(y)
    axis = dim % y.ndim
    ends = np.cumsum([a.shape[dim] for a in arrays]).tolist()

    def part(start: int, end: int) -> Callable[[Array], Array]:
        return lambda dy: dy[(slice(None),) * axis + (slice(start, end),)]

    return Tensor._op(y, *((t, part(start, end)) for t, start, end in zip(tensors, [0, *ends], ends)))


def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Join Tensors or arrays of one shape along a new dimension `dim`. As torch.stack; arrays in, array out.

    Parameters
    ----------
    tensors : sequence of Tensor or array
    dim : int

    Raises
    ------
    ValueError
        Shapes that differ, or `dim` out of range.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.stack([np.zeros(2), np.ones(2)]).shape
    (2, 2)
    """
    arrays = [operand(t) for t in tensors]
    one_device("stack", ((f"tensors[{i}]", array) for i, array in enumerate(arrays)))
    y = np.stack(arrays, axis=dim)
    if not any(isinstance(t, Tensor) for t in tensors):
        return y

    def layer(i: int) -> Callable[[Array], Array]:
        return lambda dy: np.take(dy, i, axis=dim)

    return Tensor._op(y, *((t, layer(i)) for i, t in enumerate(tensors)))


def flatten(input: T, start_dim: int = 0, end_dim: int = -1) -> T:
    """Join the dimensions from `start_dim` to `end_dim`. As torch.flatten; arrays in, array out.

    Raises
    ------
    ValueError
        A dimension out of range, or `start_dim` after `end_dim`.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> fc.flatten(np.zeros((8, 3, 2, 2)), 1).shape
    (8, 12)
    """
    shaped: Any = input
    return shaped.reshape(flat_shape(shaped.shape, start_dim, end_dim))
