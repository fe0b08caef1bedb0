"""Methods of a Tensor by torch's names that programs use now and then: further functions, parts, and new arrays."""

from __future__ import annotations

import operator
from itertools import accumulate
from typing import Any

import numpy as np

from .devices import array_module, as_array, guard
from .tensor_arithmetic import Array, beside, masked, operand, summed, wide
from .tensor_dimensions import Extremum, as_sizes, dimension, named_axes
from .tensor_methods import Methods, _indices, places


class Casts(Methods):
    """Apart from the others, whose annotations would read these names."""

    __slots__ = ()

    def int(self) -> Any:
        """As int32; no gradient."""
        return self.to(dtype=np.int32)

    def long(self) -> Any:
        """As int64; no gradient."""
        return self.to(dtype=np.int64)

    def bool(self) -> Any:
        """Where elements are other than 0; no gradient."""
        return self.to(dtype=np.bool_)


class Functions(Casts):
    """Each records itself through `_op`, or through the methods that it is made of."""

    __slots__ = ()

    # Functions of elements.

    def trunc(self) -> Any:
        """The integer towards 0; gradient 0."""
        return self._op(np.trunc(self.data), (self, np.zeros_like))

    def frac(self) -> Any:
        """What `trunc` cuts off."""
        return self._op(self.data - np.trunc(self.data), (self, lambda dy: dy))

    def exp2(self) -> Any:
        """2 to the power of each element."""
        y = np.exp2(self.data)
        return self._op(y, (self, lambda dy: dy * y * self.dtype.type(np.log(2))))

    def expm1(self) -> Any:
        """exp(self) - 1, exact for small elements."""
        y = np.expm1(self.data)
        return self._op(y, (self, lambda dy: dy * (y + 1)))

    def tan(self) -> Any:
        """Tangent."""
        y = np.tan(self.data)
        return self._op(y, (self, lambda dy: dy * (1 + y * y)))

    def asin(self) -> Any:
        """Inverse sine."""
        return self._op(np.arcsin(self.data), (self, lambda dy: dy / np.sqrt(1 - self.data * self.data)))

    def acos(self) -> Any:
        """Inverse cosine."""
        return self._op(np.arccos(self.data), (self, lambda dy: -dy / np.sqrt(1 - self.data * self.data)))

    def atan(self) -> Any:
        """Inverse tangent."""
        return self._op(np.arctan(self.data), (self, lambda dy: dy / (1 + self.data * self.data)))

    def atan2(self, other: Any) -> Any:
        """The angle of the point (other, self)."""
        y, x = self.data, beside(self.data, other)
        square = x * x + y * y
        return self._op(np.arctan2(y, x), (self, lambda dy: dy * x / square), (other, lambda dy: -dy * y / square))

    def sinh(self) -> Any:
        """Hyperbolic sine."""
        return self._op(np.sinh(self.data), (self, lambda dy: dy * np.cosh(self.data)))

    def cosh(self) -> Any:
        """Hyperbolic cosine."""
        return self._op(np.cosh(self.data), (self, lambda dy: dy * np.sinh(self.data)))

    def asinh(self) -> Any:
        """Inverse hyperbolic sine."""
        return self._op(np.arcsinh(self.data), (self, lambda dy: dy / np.hypot(self.data, 1)))

    def acosh(self) -> Any:
        """Inverse hyperbolic cosine."""
        return self._op(np.arccosh(self.data), (self, lambda dy: dy / np.sqrt(self.data * self.data - 1)))

    def atanh(self) -> Any:
        """Inverse hyperbolic tangent."""
        return self._op(np.arctanh(self.data), (self, lambda dy: dy / (1 - self.data * self.data)))

    def erf(self) -> Any:
        """The error function, 2 / sqrt(pi) times the integral of exp(-t * t) from 0 to each element."""
        from .nn.functional.smooth_activation import erf  # not before it is needed: it comes with all of nn

        slope = self.dtype.type(2 / np.sqrt(np.pi))
        return self._op(erf(self.data), (self, lambda dy: dy * slope * np.exp(-self.data * self.data)))

    def logaddexp(self, other: Any) -> Any:
        """log(exp(self) + exp(other)), without overflow."""
        a, b = self.data, beside(self.data, other)
        y = np.logaddexp(a, b)
        return self._op(y, (self, lambda dy: dy * np.exp(a - y)), (other, lambda dy: dy * np.exp(b - y)))

    def lerp(self, end: Any, weight: Any) -> Any:
        """self + weight * (end - self)."""
        end = end if hasattr(end, "requires_grad") else operand(end)
        return self + (end - self) * weight

    def addcmul(self, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
        """self + value * tensor1 * tensor2."""
        return self + tensor1 * tensor2 * value

    def addcdiv(self, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
        """self + value * tensor1 / tensor2."""
        return self + tensor1 / tensor2 * value

    def fmod(self, other: Any) -> Any:
        """The remainder of the division rounded towards 0, of the sign of self."""
        a, b = self.data, beside(self.data, other)
        return self._op(np.fmod(a, b), (self, lambda dy: dy), (other, lambda dy: -dy * np.trunc(a / b)))

    def remainder(self, other: Any) -> Any:
        """The remainder of the division rounded down, of the sign of `other`."""
        a, b = self.data, beside(self.data, other)
        return self._op(np.remainder(a, b), (self, lambda dy: dy), (other, lambda dy: -dy * np.floor(a / b)))

    __mod__ = remainder

    def floor_divide(self, other: Any) -> Any:
        """self / other, rounded down; no gradient."""
        return self.div(other, rounding_mode="floor")

    __floordiv__ = floor_divide

    def nan_to_num(self, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
        """With numbers in place of NaN and infinities, by default 0 and the type's largest and smallest."""
        finite = np.isfinite(self.data)
        y = np.nan_to_num(self.data, nan=nan, posinf=posinf, neginf=neginf)
        return self._op(y, (self, lambda dy: masked(finite, dy)))

    def isnan(self) -> Array:
        """Where elements are NaN, as an array."""
        return np.isnan(self.data)

    def isinf(self) -> Array:
        """Where elements are infinite, as an array."""
        return np.isinf(self.data)

    def isfinite(self) -> Array:
        """Where elements are neither infinite nor NaN, as an array."""
        return np.isfinite(self.data)

    def isclose(self, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
        """Where elements differ by no more than atol + rtol * abs(other), as an array."""
        return np.isclose(self.data, beside(self.data, other), rtol, atol, equal_nan)

    def allclose(self, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
        """Whether `isclose` holds everywhere."""
        return bool(self.isclose(other, rtol, atol, equal_nan).all())

    def equal(self, other: Any) -> bool:
        """Whether both have one shape and the same elements."""
        other = beside(self.data, other)
        return np.shape(other) == self.shape and bool((self.data == other).all())

    def logical_not(self) -> Array:
        """Where elements are 0, as an array."""
        return np.logical_not(self.data)

    def logical_and(self, other: Any) -> Array:
        """Where both are other than 0, as an array."""
        return np.logical_and(self.data, beside(self.data, other))

    def logical_or(self, other: Any) -> Array:
        """Where one or both are other than 0, as an array."""
        return np.logical_or(self.data, beside(self.data, other))

    def logical_xor(self, other: Any) -> Array:
        """Where just one is other than 0, as an array."""
        return np.logical_xor(self.data, beside(self.data, other))

    # Products.

    def addmm(self, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
        """beta * self + alpha * (mat1 @ mat2)."""
        return self._plus_product(mat1 @ mat2, beta, alpha)

    def addmv(self, mat: Any, vec: Any, *, beta: float = 1, alpha: float = 1) -> Any:
        """beta * self + alpha * (mat @ vec)."""
        return self._plus_product(mat @ vec, beta, alpha)

    def baddbmm(self, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
        """beta * self + alpha * (batch1 @ batch2), of batches of matrices."""
        return self._plus_product(batch1 @ batch2, beta, alpha)

    def _plus_product(self, product: Any, beta: float, alpha: float) -> Any:
        # With a factor of 0 self counts for nothing, also where it is NaN.
        product = product if alpha == 1 else product * alpha
        return product if beta == 0 else (self if beta == 1 else self * beta) + product

    def mv(self, vec: Any) -> Any:
        """The product of a matrix and a vector."""
        if self.ndim != 2 or np.ndim(operand(vec)) != 1:
            raise ValueError(f"needs a matrix and a vector, got shapes {self.shape} and {np.shape(operand(vec))}")
        return self @ vec

    def outer(self, vec2: Any) -> Any:
        """The products of all elements of two vectors."""
        if self.ndim != 1 or np.ndim(operand(vec2)) != 1:
            raise ValueError(f"both operands must be vectors, got shapes {self.shape} and {np.shape(operand(vec2))}")
        return self.reshape(-1, 1) * vec2

    # Reductions.

    def count_nonzero(self, dim: Any = None) -> Array:
        """How many elements are other than 0, in all or over `dim`, as an array."""
        return as_array((self.data != 0).sum(named_axes(dim, None, self.ndim)))

    def nansum(self, dim: Any = None, keepdim: bool = False) -> Any:
        """`sum` of the elements that are not NaN."""
        return self.masked_fill(as_array(np.isnan(self.data)), 0).sum(dim, keepdim)

    def nanmean(self, dim: Any = None, keepdim: bool = False) -> Any:
        """`mean` of the elements that are not NaN."""
        count = as_array(~np.isnan(self.data)).sum(named_axes(dim, None, self.ndim), keepdims=keepdim)
        return self._in_wide_type(lambda x: x.nansum(dim, keepdim) / as_array(count, x.dtype))

    def aminmax(self, *, dim: int | None = None, keepdim: bool = False) -> tuple[Any, Any]:
        """(`amin`, `amax`)."""
        return self.amin(dim, keepdim), self.amax(dim, keepdim)

    def cumprod(self, dim: int, *, dtype: Any = None) -> Any:
        """Products of all elements along `dim` up to each, of the elements as `dtype` where it is given."""
        if dtype is not None:
            return self.to(dtype=dtype).cumprod(dim)
        axis = dimension(dim, self.ndim)
        if not self.ndim:
            return self.clone()
        if self.requires_grad and (self.data == 0).any():  # which the gradient below would divide by
            from .joining import stack

            return stack(list(accumulate(self.unbind(axis), operator.mul)), axis)
        y = summed(np.cumprod(self.data, axis, dtype=wide(self.data)), self.data)

        def gradient(dy: Array) -> Array:
            return np.flip(np.cumsum(np.flip(dy * y, axis), axis, dtype=wide(dy)), axis) / self.data

        return self._op(y, (self, gradient))

    def median(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The lower median of all elements, or (values, indices) along `dim`; NaN where there is one."""
        if dim is None:
            return self.reshape(-1).median(0).values if self.ndim else self.clone()
        axis = dimension(dim, self.ndim)
        if not self.ndim:
            return Extremum(self.clone(), array_module(self.data).zeros((), np.int64))
        order = np.argsort(self.data, axis, kind="stable")
        middle = order[(slice(None),) * axis + (slice((self.shape[axis] - 1) // 2, (self.shape[axis] + 1) // 2),)]
        lacking = np.isnan(self.data)
        first = np.argmax(lacking, axis=axis, keepdims=True)
        index = np.where(lacking.any(axis=axis, keepdims=True), first, middle)
        values = self.gather(axis, index)
        return Extremum(values if keepdim else values.squeeze(axis), index if keepdim else np.squeeze(index, axis))

    # Parts.

    def narrow(self, dim: int, start: int, length: int) -> Any:
        """`length` elements along `dim` from `start` on, which counts from the end where it is negative."""
        axis = dimension(dim, self.ndim)
        start = int(operand(start))
        begin = start + self.shape[axis] if start < 0 else start
        if not 0 <= begin <= begin + length <= self.shape[axis]:
            raise ValueError(f"start and length must lie in a dimension of {self.shape[axis]}, got {start}, {length}")
        return self[(slice(None),) * axis + (slice(begin, begin + length),)]

    def select(self, dim: int, index: int) -> Any:
        """The slice at `index` along `dim`, without it."""
        return self[(slice(None),) * dimension(dim, self.ndim) + (int(index),)]

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
        """The elements whose index in `dim2` is that in `dim1` plus `offset`; they become the last dimension."""
        first, second = dimension(dim1, self.ndim, "dim1"), dimension(dim2, self.ndim, "dim2")
        if first == second:
            raise ValueError(f"dim1 and dim2 must differ, got {dim1} and {dim2}")
        count = max(min(self.shape[first] - max(-offset, 0), self.shape[second] - max(offset, 0)), 0)
        steps = array_module(self.data).arange(count)
        order = [i for i in range(self.ndim) if i not in (first, second)] + [first, second]
        return self.permute(order)[..., steps + max(-offset, 0), steps + max(offset, 0)]

    def trace(self) -> Any:
        """The sum of a matrix' diagonal."""
        if self.ndim != 2:
            raise ValueError(f"needs a matrix, got shape {self.shape}")
        return self.diagonal().sum()

    def tril(self, diagonal: int = 0) -> Any:
        """The lower triangle of matrices, with 0 above the diagonal."""
        kept = array_module(self.data).tri(*self.shape[-2:], diagonal, bool)
        return self._op(np.tril(self.data, diagonal), (self, lambda dy: masked(kept, dy)))

    def triu(self, diagonal: int = 0) -> Any:
        """The upper triangle of matrices, with 0 below the diagonal."""
        kept = ~array_module(self.data).tri(*self.shape[-2:], diagonal - 1, bool)
        return self._op(np.triu(self.data, diagonal), (self, lambda dy: masked(kept, dy)))

    def masked_select(self, mask: Any) -> Any:
        """The elements where `mask` is true, as a vector."""
        mask = beside(self.data, mask)
        shape = np.broadcast_shapes(self.shape, mask.shape)
        return self.expand(shape)[np.broadcast_to(mask, shape)]

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        """The indices of the elements other than 0, one a row, as an array; or one array a dimension."""
        if as_tuple:
            return np.nonzero(self.data.reshape(self.shape or (1,)))
        return np.stack(np.nonzero(self.data), axis=1) if self.ndim else np.argwhere(self.data)

    def take_along_dim(self, indices: Any, dim: int | None = None) -> Any:
        """`gather` with indices that broadcast; without `dim` of the elements as one vector."""
        if dim is None:
            return self.reshape(-1).gather(0, _indices(indices).reshape(-1))
        axis, indices = dimension(dim, self.ndim), _indices(indices)
        shape = np.broadcast_shapes(*([*a.shape[:axis], 1, *a.shape[axis + 1 :]] for a in (self, indices)))
        wide_self = self.expand([*shape[:axis], self.shape[axis], *shape[axis + 1 :]])
        return wide_self.gather(
            axis, np.broadcast_to(indices, [*shape[:axis], indices.shape[axis], *shape[axis + 1 :]])
        )

    def repeat_interleave(self, repeats: Any, dim: int | None = None) -> Any:
        """Each element or slice along `dim` several times in a row: `repeats`, a number or one for each."""
        x, axis = (self.reshape(-1), 0) if dim is None else (self, dimension(dim, self.ndim))
        library = array_module(self.data)
        counts = operand(repeats)
        return x.index_select(axis, library.repeat(library.arange(x.shape[axis]), counts))

    def scatter(self, dim: int, index: Any, src: Any) -> Any:
        """A copy with `src`, an array or number, written to `index` along `dim`, the reverse of `gather`."""
        axis, index, values = self._scattered(dim, index, src)
        y = self.data.copy()
        to = places(y, axis, index)
        y[to] = values
        written = array_module(y).zeros(y.shape, np.bool_)
        written[to] = True
        return self._op(y, (self, lambda dy: masked(~written, dy)), (src, self._gathered(src, index, axis)))

    def scatter_add(self, dim: int, index: Any, src: Any) -> Any:
        """A copy with the elements of `src` added at `index` along `dim`."""
        axis, index, values = self._scattered(dim, index, src)
        y = self.data.copy()
        array_module(y).add.at(y, places(y, axis, index), values)
        return self._op(y, (self, lambda dy: dy), (src, self._gathered(src, index, axis)))

    def _scattered(self, dim: int, index: Any, src: Any) -> tuple[int, Array, Any]:
        """The dimension, the indices, and the part of `src` that they take, where it is an array."""
        axis, index, values = dimension(dim, self.ndim), _indices(index), beside(self.data, src)
        if not self.ndim:
            raise ValueError("needs a Tensor with dimensions, got a number")
        if index.ndim != self.ndim or any(n > m for i, (n, m) in enumerate(zip(index.shape, self.shape)) if i != axis):
            raise ValueError(f"index must fit into shape {self.shape} beside dimension {axis}, got {index.shape}")
        if index.size and not 0 <= index.min() <= index.max() < self.shape[axis]:
            raise ValueError(f"index must hold numbers from 0 to {self.shape[axis] - 1}")
        if hasattr(values, "shape"):
            if values.ndim != index.ndim or any(n > m for n, m in zip(index.shape, values.shape)):
                raise ValueError(f"src must be at least as large as index, {index.shape}, got {values.shape}")
            values = values[tuple(slice(n) for n in index.shape)]
        return axis, index, values

    @staticmethod
    def _gathered(src: Any, index: Array, axis: int) -> Any:
        """The gradient of `src` from that of an array which it was scattered into."""

        def gradient(dy: Array) -> Array:
            dsrc = array_module(dy).zeros(src.shape, dy.dtype)
            part = dy[tuple(slice(n) if i != axis else slice(None) for i, n in enumerate(index.shape))]
            dsrc[tuple(slice(n) for n in index.shape)] = np.take_along_axis(part, index, axis)
            return dsrc

        return gradient

    # Shapes.

    def ravel(self) -> Any:
        """One vector of all elements."""
        return self.reshape(-1)

    def broadcast_to(self, *size: Any) -> Any:
        """`expand`."""
        return self.expand(*size)

    def movedim(self, source: Any, destination: Any) -> Any:
        """With the dimensions `source` at the positions `destination`, the others in their order."""
        pairs = [(s,) if isinstance(s, int) else tuple(s) for s in (source, destination)]
        taken, places = ([dimension(d, self.ndim, "source") for d in dims] for dims in pairs)
        if len(set(taken)) != len(taken) or len(set(places)) != len(places) or len(taken) != len(places):
            raise ValueError(f"source and destination must name as many dimensions, each once, got {pairs}")
        order = [d for d in range(self.ndim) if d not in taken]
        for place, d in sorted(zip(places, taken)):
            order.insert(place, d)
        return self.permute(order)

    moveaxis = movedim

    def swapaxes(self, axis0: int, axis1: int) -> Any:
        """`transpose`."""
        return self.transpose(axis0, axis1)

    swapdims = swapaxes

    def unflatten(self, dim: int, sizes: Any) -> Any:
        """Dimension `dim` as several, of `sizes`; one size may be -1."""
        axis = dimension(dim, self.ndim)
        parts = list(sizes)
        if -1 in parts:
            known = -int(np.prod(parts))
            parts[parts.index(-1)] = self.shape[axis] // known if known else 0
        if int(np.prod(parts)) != self.shape[axis]:
            raise ValueError(f"sizes must multiply to {self.shape[axis]}, got {tuple(sizes)}")
        return self.reshape((*self.shape[:axis], *parts, *self.shape[axis + 1 :]))

    def fliplr(self) -> Any:
        """The columns in the opposite order."""
        return self.flip(1)

    def flipud(self) -> Any:
        """The rows in the opposite order."""
        return self.flip(0)

    # New arrays of this Tensor's type and device.

    def new_zeros(self, *size: Any, dtype: Any = None, device: Any = None) -> Any:
        """A Tensor of zeros."""
        return self.new_full(as_sizes(size), 0, dtype=dtype, device=device)

    def new_ones(self, *size: Any, dtype: Any = None, device: Any = None) -> Any:
        """A Tensor of ones."""
        return self.new_full(as_sizes(size), 1, dtype=dtype, device=device)

    def new_full(self, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
        """A Tensor full of `fill_value`."""
        with guard(self.data):
            full = array_module(self.data).full(tuple(size), fill_value, self.dtype if dtype is None else dtype)
        return self._op(full).to(device=device)
