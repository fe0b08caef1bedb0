"""Methods of a Tensor by torch's names: what operators do, further functions of elements, reductions and selections."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .devices import array_module, as_array
from .tape import mode
from .tensor_arithmetic import Array, beside, is_floating, masked, operand, summed, wide
from .tensor_dimensions import Dimensions, as_sizes, dimension, index_steps, named_axes


class Ordered(NamedTuple):
    """What ``Tensor.sort`` and ``Tensor.topk`` return."""

    values: Any
    indices: Array


def _indices(index: Any) -> Any:
    """An array of indices, which must be integers."""
    index = operand(index)
    if not hasattr(index, "dtype"):
        index = np.asarray(index)
        index = index if index.size else index.astype(np.int64)
    if index.dtype.kind not in "iu":
        raise TypeError(f"index must hold integers, got dtype {index.dtype}")
    return index


def places(data: Array, axis: int, index: Array) -> tuple[Array, ...]:
    """The indices in all dimensions of `data` of what `index` names along `axis`: its own in the others."""
    library = array_module(data)
    grids = [library.arange(n).reshape(-1, *(1,) * (index.ndim - 1 - i)) for i, n in enumerate(index.shape)]
    return tuple(index if i == axis else grid for i, grid in enumerate(grids))


class Methods(Dimensions):
    """Each records itself through `_op`, or through the methods that it is made of."""

    __slots__ = ()

    # Operators by name.

    def add(self, other: Any, *, alpha: float = 1) -> Any:
        """self + alpha * other."""
        return self + (other if alpha == 1 else operand(alpha) * other)

    def sub(self, other: Any, *, alpha: float = 1) -> Any:
        """self - alpha * other."""
        return self - (other if alpha == 1 else operand(alpha) * other)

    def mul(self, other: Any) -> Any:
        """self * other."""
        return self * other

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Any:
        """self / other; rounded towards zero ("trunc") or down ("floor"), it has no gradient."""
        if rounding_mode is None:
            return self / other
        rounds = {"trunc": np.trunc, "floor": np.floor}
        if rounding_mode not in rounds:
            raise ValueError(f"rounding_mode must be None, 'trunc' or 'floor', got {rounding_mode!r}")
        return self._op(rounds[rounding_mode](self.data / beside(self.data, other)), (self, np.zeros_like))

    def neg(self) -> Any:
        """-self."""
        return -self

    def matmul(self, other: Any) -> Any:
        """self @ other."""
        return self @ other

    def mm(self, other: Any) -> Any:
        """The product of two matrices."""
        return self._product_of(other, 2)

    def bmm(self, other: Any) -> Any:
        """The products of two batches of matrices."""
        return self._product_of(other, 3)

    def dot(self, other: Any) -> Any:
        """The inner product of two vectors."""
        return self._product_of(other, 1)

    def _product_of(self, other: Any, ndim: int) -> Any:
        if not self.ndim == np.ndim(operand(other)) == ndim:
            raise ValueError(
                f"both operands must have {ndim} dimensions, got {self.ndim} and {np.ndim(operand(other))}"
            )
        return self @ other

    def eq(self, other: Any) -> Array:
        """self == other, as an array."""
        return self == other

    def ne(self, other: Any) -> Array:
        """self != other, as an array."""
        return self != other

    def lt(self, other: Any) -> Array:
        """self < other, as an array."""
        return self < other

    def le(self, other: Any) -> Array:
        """self <= other, as an array."""
        return self <= other

    def gt(self, other: Any) -> Array:
        """self > other, as an array."""
        return self > other

    def ge(self, other: Any) -> Array:
        """self >= other, as an array."""
        return self >= other

    # Functions of elements.

    def square(self) -> Any:
        """The square of each element."""
        return self * self

    def reciprocal(self) -> Any:
        """1 / self."""
        return 1 / self

    def rsqrt(self) -> Any:
        """1 / sqrt(self)."""
        y = 1 / np.sqrt(self.data)
        return self._op(y, (self, lambda dy: dy * y**3 * self.dtype.type(-0.5)))

    def log1p(self) -> Any:
        """log(1 + self), exact for small elements."""
        return self._op(np.log1p(self.data), (self, lambda dy: dy / (1 + self.data)))

    def log2(self) -> Any:
        """Logarithm to base 2."""
        return self._op(np.log2(self.data), (self, lambda dy: dy / (self.data * self.dtype.type(np.log(2)))))

    def log10(self) -> Any:
        """Logarithm to base 10."""
        return self._op(np.log10(self.data), (self, lambda dy: dy / (self.data * self.dtype.type(np.log(10)))))

    def sin(self) -> Any:
        """Sine."""
        return self._op(np.sin(self.data), (self, lambda dy: dy * np.cos(self.data)))

    def cos(self) -> Any:
        """Cosine."""
        return self._op(np.cos(self.data), (self, lambda dy: -dy * np.sin(self.data)))

    def sign(self) -> Any:
        """-1, 0 or 1; gradient 0."""
        return self._op(np.sign(self.data), (self, np.zeros_like))

    def round(self, *, decimals: int = 0) -> Any:
        """The nearest number with so many decimals, the even one of two; gradient 0."""
        return self._op(np.round(self.data, decimals), (self, np.zeros_like))

    def floor(self) -> Any:
        """The largest integer not above; gradient 0."""
        return self._op(np.floor(self.data), (self, np.zeros_like))

    def ceil(self) -> Any:
        """The smallest integer not below; gradient 0."""
        return self._op(np.ceil(self.data), (self, np.zeros_like))

    def maximum(self, other: Any) -> Any:
        """The larger of each two elements; equal ones share the gradient."""
        return self._larger(other, np.maximum, 1)

    def minimum(self, other: Any) -> Any:
        """The smaller of each two elements; equal ones share the gradient."""
        return self._larger(other, np.minimum, -1)

    def _larger(self, other: Any, choose: Any, sign: int) -> Any:
        a, b = self.data, beside(self.data, other)
        b = self._as_number(b)

        def share(dy: Array) -> Array:
            return dy * ((1 + np.sign(a - b) * sign) / 2).astype(dy.dtype)

        return self._op(choose(a, b), (self, share), (other, lambda dy: dy - share(dy)))

    # Reductions.

    def prod(self, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        """The product of all elements or along `dim`, of the elements as `dtype` where it is given."""
        if dtype is not None:
            return self.to(dtype=dtype).prod(dim, keepdim)
        x = self.reshape(-1) if dim is None or not self.ndim else self
        axis = dimension(0 if dim is None else dim, x.ndim)
        data = x.data
        ones = array_module(data).ones_like(data[(slice(None),) * axis + (slice(1),)])
        lead = (slice(None),) * axis + (slice(-1),)

        def others(dy: Array) -> Array:
            # The product of all elements before each, times that of all behind it: zeros divide nothing.
            before = np.concatenate([ones, np.cumprod(data, axis)[lead]], axis)
            behind = np.flip(np.concatenate([ones, np.cumprod(np.flip(data, axis), axis)[lead]], axis), axis)
            return dy.reshape(np.prod(data, axis=axis, keepdims=True).shape) * before * behind

        y = np.prod(data, axis=axis, dtype=wide(data), keepdims=keepdim and dim is not None and self.ndim > 0)
        return self._op(summed(y, data), (x, others))

    def norm(self, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
        """The `p`-norm of all elements or over `dim`: a number, infinity, or "fro" for 2; gradient 0 at 0.

        0 counts the elements other than 0.
        """
        p = 2 if p == "fro" or p is None else p
        if not isinstance(p, int | float) or p != p:
            raise ValueError(f'p must be a number or "fro", got {p!r}')
        if abs(p) == np.inf:
            return self.abs().amax(dim, keepdim) if p > 0 else self.abs().amin(dim, keepdim)
        if p == 0:
            count = (self.data != 0).sum(named_axes(dim, None, self.ndim), keepdims=keepdim)
            return self._op(as_array(count, self.dtype), (self, lambda dy: np.zeros_like(self.data)))
        if p == 1:
            return self.abs().sum(dim, keepdim)
        axes = named_axes(dim, None, self.ndim)
        x = self.data.astype(wide(self.data), copy=False)
        with np.errstate(divide="ignore"):
            y = (np.abs(x) ** p).sum(axes, keepdims=True) ** x.dtype.type(1 / p)
        safe = np.where(y == 0, 1, y)

        def gradient(dy: Array) -> Array:
            with np.errstate(divide="ignore", invalid="ignore"):
                slope = np.sign(x) * (np.abs(x) / safe) ** (p - 1)
            return dy.reshape(y.shape) * np.where(x == 0, 0, slope)

        kept = y if keepdim else y.reshape([n for i, n in enumerate(self.shape) if i not in axes])
        return self._op(kept.astype(self.dtype, copy=False), (self, gradient))

    def amax(self, dim: Any = None, keepdim: bool = False) -> Any:
        """The maximum over `dim`, one or several; equal elements share the gradient."""
        return self.max(axis=None if dim == () else dim, keepdim=keepdim)

    def amin(self, dim: Any = None, keepdim: bool = False) -> Any:
        """The minimum over `dim`, one or several; equal elements share the gradient."""
        return self.min(axis=None if dim == () else dim, keepdim=keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None) -> Array:
        """Index of the first minimum, as an array."""
        return np.argmin(self.data, axis=dim if axis is None else axis, keepdims=keepdim)

    def all(self, dim: int | None = None, keepdim: bool = False) -> Array:
        """Whether all elements are other than 0, as an array."""
        return np.all(self.data, axis=dim, keepdims=keepdim)

    def any(self, dim: int | None = None, keepdim: bool = False) -> Array:
        """Whether any element is other than 0, as an array."""
        return np.any(self.data, axis=dim, keepdims=keepdim)

    def logsumexp(self, dim: Any, keepdim: bool = False) -> Any:
        """log of the sum of exp over `dim`, without overflow."""
        axes = named_axes(dim, None, self.ndim)
        largest = np.max(self.data, axis=axes, keepdims=True)
        largest = np.where(np.isfinite(largest), largest, 0).astype(self.dtype)
        shape = [n for i, n in enumerate(self.shape) if i not in axes]
        sums = (self - largest).exp().sum(axes, keepdim=keepdim).log()
        return sums + (largest if keepdim else largest.reshape(shape))

    def cumsum(self, dim: int, *, dtype: Any = None) -> Any:
        """Sums of all elements along `dim` up to each, of the elements as `dtype` where it is given."""
        if dtype is not None:
            return self.to(dtype=dtype).cumsum(dim)
        axis = dimension(dim, self.ndim)
        if not self.ndim:
            return self.clone()
        y = summed(np.cumsum(self.data, axis, dtype=wide(self.data)), self.data)
        return self._op(y, (self, lambda dy: np.flip(np.cumsum(np.flip(dy, axis), axis), axis)))

    # Selections and copies.

    def sort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Ordered:
        """(values, indices) in order along `dim`; equal elements always keep theirs."""
        indices = self.argsort(dim, descending)
        return Ordered(self.gather(dim, indices), indices)

    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Array:
        """The indices that `sort` gives."""
        axis = dimension(dim, self.ndim)
        if not self.ndim:
            return array_module(self.data).zeros((), np.int64)
        if not descending:
            return np.argsort(self.data, axis, kind="stable")
        backwards = np.argsort(np.flip(self.data, axis), axis, kind="stable")
        return self.shape[axis] - 1 - np.flip(backwards, axis)

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Ordered:
        """(values, indices) of the `k` largest or smallest elements along `dim`, always in order."""
        axis = dimension(dim, self.ndim)
        if not self.ndim:
            if k != 1:
                raise ValueError(f"k must be 1 for a number, got {k}")
            return self.sort()
        if not 0 <= k <= self.shape[axis]:
            raise ValueError(f"k must be from 0 to {self.shape[axis]}, the size of dimension {axis}, got {k}")
        values, indices = self.sort(axis, descending=largest)
        first = (slice(None),) * axis + (slice(k),)
        return Ordered(values[first], indices[first])

    def gather(self, dim: int, index: Any) -> Any:
        """The elements at `index` along `dim`: y[i, j] = self[index[i, j], j] for ``dim=0``."""
        axis, index = dimension(dim, self.ndim), _indices(index)
        if index.ndim != max(self.ndim, 1) and not index.ndim == self.ndim == 0:
            raise ValueError(f"index must have {self.ndim} dimensions, got shape {index.shape}")
        if not self.ndim:
            return self.reshape(1)[index]
        return self[places(self.data, axis, index)]

    def index_select(self, dim: int, index: Any) -> Any:
        """The slices at `index`, a vector, along `dim`."""
        index = _indices(index)
        if index.ndim > 1:
            raise ValueError(f"index must be a vector, got shape {index.shape}")
        if not self.ndim:
            return self.reshape(1)[index.reshape(-1)].reshape(())
        return self[(slice(None),) * dimension(dim, self.ndim) + (index.reshape(-1),)]

    def masked_fill(self, mask: Any, value: Any) -> Any:
        """`value` where `mask` is true, else the elements as they are."""
        given = value
        mask, value = beside(self.data, mask), operand(value)
        if getattr(mask, "dtype", None) != np.bool_:
            raise TypeError(f"mask must be a bool array, got {getattr(mask, 'dtype', type(mask).__name__)}")
        y = np.where(mask, self._as_number(value), self.data)
        return self._op(
            y.astype(self.dtype, copy=False),
            (self, lambda dy: masked(~mask, dy)),
            (given, lambda dy: masked(mask, dy)),
        )

    def where(self, condition: Any, other: Any) -> Any:
        """The elements where `condition` is true, else those of `other`."""
        condition, b = beside(self.data, condition), beside(self.data, other)
        y = np.where(condition, self.data, self._as_number(b))
        return self._op(
            y,
            (self, lambda dy: masked(condition, dy)),
            (other, lambda dy: np.where(condition, dy.dtype.type(0), dy)),
        )

    def _as_number(self, value: Any) -> Any:
        """A Python number in this Tensor's type, where that is a floating one; anything else as it is."""
        return self.dtype.type(value) if isinstance(value, int | float) and is_floating(self.dtype) else value

    def repeat(self, *sizes: Any) -> Any:
        """Copies side by side, `sizes` of them in each dimension, in new ones in front where there are more sizes."""
        counts = as_sizes(sizes)
        if len(counts) < self.ndim or min(counts, default=0) < 0:
            raise ValueError(f"sizes must be {self.ndim} or more numbers of copies, not negative, got {counts}")
        shape = (*(1,) * (len(counts) - self.ndim), *self.shape)
        apart = [n for pair in zip(counts, shape) for n in pair]
        y = np.tile(self.data, counts)
        return self._op(y, (self, lambda dy: dy.reshape(apart).sum(tuple(range(0, len(apart), 2)), dtype=wide(dy))))

    def tile(self, *dims: Any) -> Any:
        """As `repeat`; fewer sizes than dimensions are those of the last."""
        counts = as_sizes(dims)
        return self.repeat(*(1,) * (self.ndim - len(counts)), *counts)

    def flip(self, *order: Any, dims: Any = ()) -> Any:
        """In the opposite order along `dims`, given one by one or as one sequence."""
        axes = [dimension(d, self.ndim, "dims") for d in as_sizes(order or (dims,))]
        if len({*axes}) < len(axes):
            raise ValueError(f"dims must name each dimension once, got {axes}")
        return self[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(self.ndim))]

    def roll(self, shifts: Any, dims: Any = None) -> Any:
        """Shifted along `dims`, what leaves at the end entering at the front; without `dims` as one vector."""
        counts = [len(a) if isinstance(a, tuple | list) else 1 for a in (shifts, 0 if dims is None else dims)]
        if counts[0] != counts[1]:
            raise ValueError(f"shifts must be one for each of dims, or one alone, got {shifts} and {dims}")
        back = tuple(-s for s in shifts) if isinstance(shifts, tuple | list) else -shifts
        return self._op(np.roll(self.data, shifts, dims), (self, lambda dy: np.roll(dy, back, dims)))

    def unbind(self, dim: int = 0) -> tuple[Any, ...]:
        """The slices along `dim`, without it."""
        axis = dimension(dim, self.ndim)
        return tuple(self[(slice(None),) * axis + (i,)] for i in range(self.shape[axis]))

    def view_as(self, other: Any) -> Any:
        """The same elements in the shape of `other`."""
        return self.reshape(other.shape)

    reshape_as = view_as

    # In place: where nothing is recorded.

    def _write(self, value: Any) -> Any:
        self._writable()[...] = beside(self.data, value)
        return self

    def _writable(self) -> Array:
        if mode.enabled and self.requires_grad:
            raise ValueError("a Tensor that requires grad can be changed in place only under fastconv.no_grad()")
        return self.data

    def __setitem__(self, index: Any, value: Any) -> None:
        data, (numbers, key) = self._writable(), index_steps(index, self.ndim)
        (data[numbers] if numbers else data)[key] = beside(self.data, value)

    def zero_(self) -> Any:
        """Set all elements to 0."""
        return self._write(0)

    def fill_(self, value: Any) -> Any:
        """Set all elements to `value`."""
        return self._write(value)

    def copy_(self, other: Any) -> Any:
        """Set the elements to those of `other`, which is broadcast."""
        return self._write(other)

    def add_(self, other: Any, *, alpha: float = 1) -> Any:
        """Add alpha * other."""
        return self._write(operand(self.add(other, alpha=alpha)))

    def sub_(self, other: Any, *, alpha: float = 1) -> Any:
        """Subtract alpha * other."""
        return self._write(operand(self.sub(other, alpha=alpha)))

    def mul_(self, other: Any) -> Any:
        """Multiply by `other`."""
        return self._write(operand(self * other))

    def div_(self, other: Any) -> Any:
        """Divide by `other`."""
        return self._write(operand(self / other))

    def clamp_(self, min: Any = None, max: Any = None) -> Any:
        """Limit to [min, max]."""
        return self._write(operand(self.clamp(min, max)))
