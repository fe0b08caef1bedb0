"""The operators of a Tensor: arithmetic, comparisons, elementwise functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .cuda import is_device_array
from .devices import array_module, device_of
from .elements import add, is_floating
from .tape import mode

Array = np.ndarray


def wide(x: Array) -> np.dtype:
    """Type in which sums over `x` are accumulated: float32 for the 16-bit types, int64 for integers and bool."""
    if x.dtype.kind in "biu":
        return np.dtype(np.int64)
    return np.dtype(np.float32) if is_floating(x.dtype) and x.dtype.itemsize == 2 else x.dtype


def summed(y: Array, x: Array) -> Array:
    """What was accumulated over `x` in its type; sums of integers stay int64, as torch's."""
    return y.astype(x.dtype, copy=False) if is_floating(x.dtype) else y


def operand(x: Any) -> Any:
    """What NumPy computes with: a Tensor's array; Python numbers, which take the array's type, for NumPy scalars."""
    if isinstance(x, Arithmetic):
        return x.data
    return x.item() if isinstance(x, np.generic) else x


def beside(data: Array, x: Any) -> Any:
    """`operand(x)`, which must be on the device of `data`."""
    x = operand(x)
    if isinstance(x, float) and data.dtype.kind == "V":
        return data.dtype.type(x)  # NumPy lets a float decide the type of a result beside bfloat16
    if type(x) is not type(data) and hasattr(x, "shape") and is_device_array(x) != is_device_array(data):
        raise ValueError(
            f"both operands must be on one device, got arrays on {device_of(data)} and {device_of(x)}: "
            'move one with .to("cuda") or .to("cpu")'
        )
    return x


def fit(gradient: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """Undo broadcasting: sum `gradient` to `shape`, in `dtype`."""
    if gradient.shape != shape:
        lead = gradient.ndim - len(shape)
        axes = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1 and gradient.shape[lead + i] != 1))
        gradient = gradient.sum(axes, dtype=wide(gradient), keepdims=True).reshape(shape)
    return gradient.astype(dtype, copy=False)


def masked(chosen: Array, gradient: Array) -> Array:
    """`gradient` where `chosen` is true, else 0, in its type."""
    return np.where(chosen, gradient, gradient.dtype.type(0))


def power_slope(a: Any, n: Any) -> Any:
    """Derivative of a**n by a; 0 for n = 0, also at a = 0, where the formula has 0 * inf."""
    if not hasattr(n, "shape"):
        return n * a ** (n - 1) if n else np.zeros_like(a)
    return np.where(n == 0, 0, n * a ** np.where(n == 0, 1, n - 1))


def exponent_slope(a: Any, n: Any, y: Any) -> Any:
    """Derivative of y = a**n by n; 0 for a = 0 where n is not negative, where the formula has 0 * inf."""
    return y * np.log(np.where((a == 0) & (n >= 0), 1, a))


class Deferred:
    """A value that is no array yet, and decides itself what ``+`` and ReLU make of it; see nn/modules/pending.py."""

    __slots__ = ()

    def applied(self, operator: str, *others: Any) -> Any:
        """What `operator` gives: "+" with another operand, or "relu"."""
        raise NotImplementedError


class Arithmetic:
    """Operators over `data`; each records itself through `_op`, which `fastconv.Tensor` brings."""

    __slots__ = ()

    data: Array
    requires_grad: bool
    shape: Any
    ndim: Any
    dtype: Any
    _node: Any
    _op: ClassVar[Callable[..., Any]]
    to: Any
    clone: Any
    maximum: Any
    minimum: Any

    # Arithmetic. Numbers keep the Tensor's type; arrays promote as in NumPy.

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Deferred):
            return NotImplemented  # which asks `other`
        return self._op(add(self.data, beside(self.data, other)), (self, lambda dy: dy), (other, lambda dy: dy))

    def __sub__(self, other: Any) -> Any:
        return self._op(self.data - beside(self.data, other), (self, lambda dy: dy), (other, lambda dy: -dy))

    def __rsub__(self, other: Any) -> Any:
        return self._op(beside(self.data, other) - self.data, (self, lambda dy: -dy), (other, lambda dy: dy))

    def __mul__(self, other: Any) -> Any:
        a, b = self.data, beside(self.data, other)
        return self._op(a * b, (self, lambda dy: dy * b), (other, lambda dy: dy * a))

    def __truediv__(self, other: Any) -> Any:
        a, b = self.data, beside(self.data, other)
        return self._op(a / b, (self, lambda dy: dy / b), (other, lambda dy: -dy * a / (b * b)))

    def __rtruediv__(self, other: Any) -> Any:
        a, b = beside(self.data, other), self.data
        return self._op(a / b, (self, lambda dy: -dy * a / (b * b)), (other, lambda dy: dy / b))

    def __pow__(self, exponent: Any) -> Any:
        a, n = self.data, beside(self.data, exponent)
        y = a**n
        return self._op(
            y, (self, lambda dy: dy * power_slope(a, n)), (exponent, lambda dy: dy * exponent_slope(a, n, y))
        )

    def __rpow__(self, base: Any) -> Any:
        a = beside(self.data, base)
        n = self.data
        y = a**n
        return self._op(y, (self, lambda dy: dy * exponent_slope(a, n, y)), (base, lambda dy: dy * power_slope(a, n)))

    def __matmul__(self, other: Any) -> Any:
        return self._product(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return self._product(other, self)

    def _product(self, left: Any, right: Any) -> Any:
        a, b = operand(left), operand(right)
        beside(a, b)
        y = a @ b
        if a.dtype == b.dtype:
            y = y.astype(a.dtype, copy=False)  # NumPy gives float32 for bfloat16
        rows = a.reshape(1, -1) if a.ndim == 1 else a
        columns = b.reshape(-1, 1) if b.ndim == 1 else b
        full = y.shape  # becomes the shape that the result has where both operands are matrices
        if a.ndim == 1:
            full = (*full[:-1], 1, *full[-1:])
        if b.ndim == 1:
            full = (*full, 1)

        def left_gradient(dy: Array) -> Array:
            product = dy.reshape(full) @ columns.swapaxes(-1, -2)
            return fit(product, rows.shape, rows.dtype).reshape(a.shape)

        def right_gradient(dy: Array) -> Array:
            product = rows.swapaxes(-1, -2) @ dy.reshape(full)
            return fit(product, columns.shape, columns.dtype).reshape(b.shape)

        return self._op(y, (left, left_gradient), (right, right_gradient))

    def __neg__(self) -> Any:
        return self._op(-self.data, (self, lambda dy: -dy))

    __radd__ = __add__
    __rmul__ = __mul__
    __hash__ = object.__hash__

    def _assign(self, value: Any) -> Any:
        """In-place operators write only where nothing is recorded (`p -= lr * p.grad` under `no_grad`)."""
        if not mode.enabled:
            self.data[...] = beside(self.data, value)
            return self
        if self.requires_grad and self._node is None:
            raise ValueError("a leaf Tensor that requires grad can be changed in place only under fastconv.no_grad()")
        return value

    def __iadd__(self, other: Any) -> Any:
        return self._assign(self + other)

    def __isub__(self, other: Any) -> Any:
        return self._assign(self - other)

    def __imul__(self, other: Any) -> Any:
        return self._assign(self * other)

    def __itruediv__(self, other: Any) -> Any:
        return self._assign(self / other)

    def __eq__(self, other: object) -> Any:
        return self.data == beside(self.data, other)

    def __ne__(self, other: object) -> Any:
        return self.data != beside(self.data, other)

    def __lt__(self, other: Any) -> Array:
        return self.data < beside(self.data, other)

    def __le__(self, other: Any) -> Array:
        return self.data <= beside(self.data, other)

    def __gt__(self, other: Any) -> Array:
        return self.data > beside(self.data, other)

    def __ge__(self, other: Any) -> Array:
        return self.data >= beside(self.data, other)

    def exp(self) -> Any:
        """e to the power of each element."""
        y = np.exp(self.data)
        return self._op(y, (self, lambda dy: dy * y))

    def log(self) -> Any:
        """Natural logarithm."""
        return self._op(np.log(self.data), (self, lambda dy: dy / self.data))

    def sqrt(self) -> Any:
        """Square root."""
        y = np.sqrt(self.data)
        return self._op(y, (self, lambda dy: dy / (2 * y)))

    def abs(self) -> Any:
        """Absolute value; gradient 0 at 0."""
        return self._op(np.abs(self.data), (self, lambda dy: dy * np.sign(self.data)))

    __abs__ = abs

    def pow(self, exponent: Any) -> Any:
        """Each element to the power of `exponent`."""
        return self**exponent

    def clamp(self, min: Any = None, max: Any = None) -> Any:
        """Limit to [min, max], numbers or arrays; the gradient passes where the value lies inside, limits included."""
        if min is None and max is None:
            raise ValueError("min or max must be given")
        x = self.data
        low, high = (None if bound is None else beside(x, bound) for bound in (min, max))
        y = x if low is None else np.maximum(x, low)
        below = array_module(x).zeros(y.shape, bool) if low is None else x < low
        above = array_module(x).zeros(y.shape, bool) if high is None else y > high
        y = y if high is None else np.minimum(y, high)
        y = y.astype(x.dtype, copy=False) if is_floating(x.dtype) else y
        # Where min is above max, max wins.
        return self._op(
            y,
            (self, lambda dy: masked(~(below | above), dy)),
            (min, lambda dy: masked(below & ~above, dy)),
            (max, lambda dy: masked(above, dy)),
        )

    clip = clamp
