"""The methods of a Tensor that reduce dimensions or rearrange them."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .devices import array_module
from .tensor_arithmetic import Arithmetic, Array, is_floating, masked, operand, summed, wide


class Extremum(NamedTuple):
    """What ``Tensor.max(dim)`` and ``Tensor.min(dim)`` return."""

    values: Any
    indices: Array


def named_axes(dim: Any, axis: Any, ndim: int) -> tuple[int, ...]:
    """The dimensions that torch's `dim` or NumPy's `axis` names, not negative; all of them for None."""
    if dim is not None and axis is not None:
        raise ValueError("dim and axis are two names of one argument: give one of them")
    named = dim if axis is None else axis
    if named is None or (axis is None and named in ((), [])):  # torch's empty dim names all
        return tuple(range(ndim))
    axes = tuple(dimension(d, ndim) for d in (named if isinstance(named, tuple | list) else (named,)))
    return axes if ndim else ()  # a number has one dimension to name, and none to reduce


def dimension(dim: int, ndim: int, name: str = "dim") -> int:
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise ValueError(f"{name} must be from {-ndim} to {ndim - 1} for {ndim} dimensions, got {dim}")
    return dim % max(ndim, 1)


def as_sizes(sizes: tuple) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes


def flat_shape(shape: tuple[int, ...], start_dim: int, end_dim: int) -> tuple[int, ...]:
    start, end = dimension(start_dim, len(shape), "start_dim"), dimension(end_dim, len(shape), "end_dim")
    if start > end:
        raise ValueError(f"start_dim must not come after end_dim, got {start_dim} and {end_dim}")
    joined = 1
    for n in shape[start : end + 1]:
        joined *= n
    return (*shape[:start], joined, *shape[end + 1 :])


def _is_basic(key: tuple[Any, ...]) -> bool:
    """Whether an index names a view: neither arrays nor lists nor bools."""
    return all(i is None or i is Ellipsis or type(i) is int or isinstance(i, slice) for i in key)


def index_steps(index: Any, ndim: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """An index as two, the first of which takes out the dimensions with numbers where others have arrays, or is empty.

    As torch, where a number takes its dimension out first; NumPy lets it decide where the dimensions of the arrays go.
    """
    key = tuple(operand(i) for i in (index if isinstance(index, tuple) else (index,)))
    if _is_basic(key) or not any(type(i) is int for i in key):
        return (), key

    def covered(k: Any) -> int:
        if k is None or k is Ellipsis or isinstance(k, bool):
            return 0
        return np.ndim(k) if np.asarray(k).dtype == bool and not isinstance(k, slice) else 1

    left = ndim - sum(map(covered, key))
    numbers: list[Any] = []
    for k in key:
        dims = max(left, 0) if k is Ellipsis else covered(k)
        numbers += [k] if type(k) is int else [slice(None)] * dims
    return tuple(numbers), tuple(k for k in key if type(k) is not int)


class Dimensions(Arithmetic):
    """Reductions and changes of shape; each records itself through `_op`."""

    __slots__ = ()

    def _in_wide_type(self, reduce: Callable[[Any], Any]) -> Any:
        """`reduce` of the Tensor in the type of sums; of a floating Tensor, the result in its own type."""
        y = reduce(self.to(dtype=wide(self.data)))
        return y.to(dtype=self.dtype) if is_floating(self.dtype) else y

    # Reductions: torch's dim/keepdim and NumPy's axis/keepdims.

    def sum(
        self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False, dtype: Any = None
    ) -> Any:
        """Sum over `dim` (all dimensions for None), of the elements as `dtype` where it is given.

        16-bit types are accumulated in float32.
        """
        if dtype is not None:
            return self.to(dtype=dtype).sum(dim, keepdim, axis=axis, keepdims=keepdims)
        axes = named_axes(dim, axis, self.ndim)
        y = summed(self.data.sum(axes, dtype=wide(self.data), keepdims=True), self.data)
        full, kept = self.shape, y.shape
        y = y if keepdim or keepdims else y.reshape([n for i, n in enumerate(self.shape) if i not in axes])
        return self._op(y, (self, lambda dy: np.broadcast_to(dy.reshape(kept), full)))

    def mean(
        self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False, dtype: Any = None
    ) -> Any:
        """Mean over `dim` (all dimensions for None), of the elements as `dtype` where it is given."""
        x = self if dtype is None else self.to(dtype=dtype)
        count = np.prod([self.shape[i] for i in named_axes(dim, axis, self.ndim)], dtype=np.int64).item()
        return x._in_wide_type(lambda y: y.sum(dim, keepdim, axis=axis, keepdims=keepdims) / count)

    def var(
        self,
        dim: Any = None,
        keepdim: bool = False,
        correction: int | None = 1,
        *,
        unbiased: bool | None = None,
        axis: Any = None,
        keepdims: bool = False,
    ) -> Any:
        """Variance over `dim`, the sum of squares divided by the count less `correction`, as in torch.

        ``var(unbiased)`` and ``var(dim, unbiased, keepdim)`` are understood, too: a bool is no dimension.
        """
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        axes = named_axes(dim, axis, self.ndim)
        count = np.prod([self.shape[i] for i in axes], dtype=np.int64).item()
        less = (1 if correction is None else correction) if unbiased is None else int(unbiased)

        def spread(x: Any) -> Any:
            centred = x - x.mean(axes, keepdim=True)
            return (centred * centred).sum(axes, keepdim or keepdims) / max(count - less, 0)

        return self._in_wide_type(spread)

    def std(self, dim: Any = None, keepdim: bool = False, correction: int | None = 1, **options: Any) -> Any:
        """Square root of `var`; where it is 0, so is its gradient."""

        def root(x: Any) -> Any:
            square = x.var(dim, keepdim, correction, **options)
            y = np.sqrt(square.data)
            return self._op(y, (square, lambda dy: masked(y != 0, dy / (2 * np.where(y == 0, 1, y)))))

        return self._in_wide_type(root)

    def max(self, dim: int | None = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """Maximum of all elements or over NumPy's `axis`; with torch's `dim`, (values, indices).

        An array or Tensor in its place is compared with: `maximum`.
        """
        if dim is not None and not isinstance(dim, numbers.Integral):
            return self.maximum(dim)
        return self._extremum(np.max, np.argmax, dim, axis, keepdim or keepdims)

    def min(self, dim: int | None = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """Minimum of all elements or over NumPy's `axis`; with torch's `dim`, (values, indices).

        An array or Tensor in its place is compared with: `minimum`.
        """
        if dim is not None and not isinstance(dim, numbers.Integral):
            return self.minimum(dim)
        return self._extremum(np.min, np.argmin, dim, axis, keepdim or keepdims)

    def _extremum(self, reduce: Any, locate: Any, dim: int | None, axis: Any, keep: bool) -> Any:
        if not self.ndim and dim is not None:
            return self.reshape(1)._extremum(reduce, locate, dim, axis, False)
        x, axes = self.data, named_axes(dim, axis, self.ndim)
        if dim is not None:
            indices = locate(x, axis=axes[0], keepdims=True)
            y = np.take_along_axis(x, indices, axes[0])
            positions = array_module(x).arange(x.shape[axes[0]])
            share = (positions.reshape(-1, *(1,) * (x.ndim - 1 - axes[0])) == indices).astype(wide(x))
        else:
            y = reduce(x, axis=axes, keepdims=True)
            chosen = (x == y) | ((x != x) & (y != y))  # ties share the gradient, as in torch
            share = chosen / chosen.sum(axes, keepdims=True, dtype=wide(x))
        narrow = [n for i, n in enumerate(x.shape) if i not in axes]
        values = self._op(y if keep else y.reshape(narrow), (self, lambda dy: dy.reshape(y.shape) * share))
        return values if dim is None else Extremum(values, indices if keep else indices.reshape(narrow))

    def argmax(self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None) -> Array:
        """Index of the first maximum, as an array."""
        return np.argmax(self.data, axis=dim if axis is None else axis, keepdims=keepdim)

    # Shapes.

    def reshape(self, *shape: Any) -> Any:
        """The same elements in another shape; one size may be -1."""
        before = self.shape
        return self._op(self.data.reshape(as_sizes(shape)), (self, lambda dy: dy.reshape(before)))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Any:
        """Join the dimensions from `start_dim` to `end_dim`."""
        return self.reshape(flat_shape(self.shape, start_dim, end_dim))

    def squeeze(self, dim: Any = None) -> Any:
        """Without the dimensions of size 1, or without those of `dim`, one or several, that have size 1."""
        dims = named_axes(None, dim, self.ndim)  # of which an empty one names none
        return self.reshape([n for i, n in enumerate(self.shape) if not (i in dims and n == 1)])

    def unsqueeze(self, dim: int) -> Any:
        """With a dimension of size 1 before position `dim`."""
        dim = dimension(dim, self.ndim + 1)
        return self.reshape((*self.shape[:dim], 1, *self.shape[dim:]))

    def permute(self, *dims: Any) -> Any:
        """The dimensions in another order."""
        order = tuple(dimension(d, self.ndim, "dims") for d in as_sizes(dims))
        return self._op(self.data.transpose(order), (self, lambda dy: dy.transpose(np.argsort(order).tolist())))

    def transpose(self, dim0: int, dim1: int) -> Any:
        """Two dimensions exchanged, as in torch."""
        order = list(range(self.ndim))
        dim0, dim1 = dimension(dim0, self.ndim, "dim0"), dimension(dim1, self.ndim, "dim1")
        if not order:
            return self
        order[dim0], order[dim1] = dim1, dim0
        return self.permute(order)

    def expand(self, *sizes: Any) -> Any:
        """Dimensions of size 1 repeated to `sizes`, without a copy; -1 keeps a size."""
        wanted = as_sizes(sizes)
        new = len(wanted) - self.ndim
        if new < 0 or -1 in wanted[:new]:
            raise ValueError(f"sizes must name {self.ndim} dimensions or more, new ones by a size, got {wanted}")
        kept = (*(1,) * new, *self.shape)
        target = tuple(have if size == -1 else size for size, have in zip(wanted, kept))
        return self._op(np.broadcast_to(self.data, target), (self, lambda dy: dy))

    def expand_as(self, other: Any) -> Any:
        """`expand` to the shape of `other`."""
        return self.expand(other.shape)

    def split(self, size: Any, dim: int = 0) -> tuple[Any, ...]:
        """Parts along `dim`, each of `size` (the last may be smaller), or of the sizes in a list."""
        dim = dimension(dim, self.ndim)
        n = self.shape[dim]
        if not isinstance(size, list | tuple) and size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        sizes = size if isinstance(size, list | tuple) else [size] * (n // size) + [n % size] * (n % size > 0 or not n)
        if sum(sizes) != n or min(sizes, default=0) < 0:
            raise ValueError(f"size must give parts that add up to {n} in dimension {dim}, got {size}")
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return tuple(self[(slice(None),) * dim + (slice(end - part, end),)] for part, end in zip(sizes, ends))

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Any, ...]:
        """At most `chunks` parts of equal size along `dim` (the last may be smaller)."""
        if chunks < 1:
            raise ValueError(f"chunks must be at least 1, got {chunks}")
        n = self.shape[dimension(dim, self.ndim)]
        return self.split(-(-n // chunks) if n else [0] * chunks, dim)

    def t(self) -> Any:
        """The transpose of a matrix; a vector or a number as it is."""
        if self.ndim > 2:
            raise ValueError(f"t wants at most 2 dimensions, got {self.ndim}; see mT and permute")
        return self.permute(*range(self.ndim)[::-1])

    def __getitem__(self, index: Any) -> Any:
        numbers, key = index_steps(index, self.ndim)
        if numbers:
            return self[numbers][key]
        basic, shape = _is_basic(key), self.shape

        def scatter(dy: Array) -> Array:
            library = array_module(dy)
            dx = library.zeros(shape, dy.dtype)
            if basic:
                dx[key] = dy
            else:
                library.add.at(dx, key, dy)  # an index may occur more than once
            return dx

        return self._op(self.data[key], (self, scatter))
