"""`Tensor`: an array that records what is computed from it, and `backward`, which plays the record in reverse.

Every recorded value keeps a `Node`: the tensors that it was computed from and a pullback, which maps the gradient of
the value to theirs. The functions of `fastconv.nn.functional` bring their own (``.vjp``); the operators here are one
line each. Plain arrays never record anything: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .interop import to_numpy
from .tape import Node, Pullback, mode, run_backward

Array = np.ndarray
T = TypeVar("T")


class Extremum(NamedTuple):
    """What ``Tensor.max(dim)`` and ``Tensor.min(dim)`` return."""

    values: Tensor
    indices: Array


def _is_floating(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _wide(x: Array) -> np.dtype:
    """Type in which sums over `x` are accumulated: float32 for the 16-bit types."""
    return np.dtype(np.float32) if _is_floating(x.dtype) and x.dtype.itemsize == 2 else x.dtype


def _operand(x: Any) -> Any:
    """What NumPy computes with: a Tensor's array; Python numbers, which take the array's type, for NumPy scalars."""
    if isinstance(x, Tensor):
        return x.data
    return x.item() if isinstance(x, np.generic) else x


def _fit(gradient: Array, data: Array) -> Array:
    """Undo broadcasting: sum `gradient` to the shape of `data`, in its type."""
    if gradient.shape != data.shape:
        lead = gradient.ndim - data.ndim
        axes = (*range(lead), *(lead + i for i, n in enumerate(data.shape) if n == 1 and gradient.shape[lead + i] != 1))
        gradient = gradient.sum(axes, dtype=_wide(gradient), keepdims=True).reshape(data.shape)
    return gradient.astype(data.dtype, copy=False)


def record(value: Any, parents: Sequence[Tensor | None], pullback: Pullback) -> Tensor:
    """A Tensor with `value` whose gradient flows to `parents` through `pullback`."""
    result = Tensor(value)
    result.requires_grad = True
    result._node = Node(parents, pullback)
    return result


def _op(value: Any, *edges: tuple[Any, Callable[[Array], Array]]) -> Tensor:
    """A Tensor with `value`; each edge is an operand and its gradient as a function of the result's gradient."""
    needed = [(x, f) for x, f in edges if isinstance(x, Tensor) and x.requires_grad] if mode.enabled else []
    if not needed:
        return Tensor(value)
    return record(value, [x for x, _ in needed], lambda dy: [_fit(f(dy), x.data) for x, f in needed])


def _axes(dim: Any, axis: Any, ndim: int) -> tuple[int, ...]:
    """The dimensions that torch's `dim` or NumPy's `axis` names, not negative; all of them for None."""
    if dim is not None and axis is not None:
        raise ValueError("dim and axis are two names of one argument: give one of them")
    named = dim if axis is None else axis
    if named is None:
        return tuple(range(ndim))
    return tuple(_dimension(d, ndim) for d in (named if isinstance(named, tuple | list) else (named,)))


def _dimension(dim: int, ndim: int, name: str = "dim") -> int:
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise ValueError(f"{name} must be from {-ndim} to {ndim - 1} for {ndim} dimensions, got {dim}")
    return dim % max(ndim, 1)


def _shape(sizes: tuple) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes


class Tensor:
    """An array whose computations are recorded, as torch.Tensor for the part that networks need.

    Parameters
    ----------
    data : array_like
        Used without a copy where it is an array. Made by `fastconv.tensor` as a rule.
    requires_grad : bool
        Whether ``backward`` shall leave a gradient in ``grad``. Floating-point types only.

    Attributes
    ----------
    data : numpy.ndarray
        The values.
    grad : numpy.ndarray or None
        Sum of the gradients of all ``backward`` calls since it was None; shape and type of `data`.
    requires_grad : bool

    Notes
    -----
    Operators broadcast as NumPy's and may mix Tensors, arrays and numbers. Comparisons, ``argmax`` and ``numpy()`` give
    plain arrays. Values that were recorded must not be written to before ``backward``.

    Examples
    --------
    >>> import fastconv as fc
    >>> x = fc.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> ((x * x).sum() / 2).backward()
    >>> x.grad
    array([1., 2., 3.], dtype=float32)
    """

    __slots__ = ("__weakref__", "_node", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # `array + tensor` must ask the Tensor, not NumPy
    __array_priority__ = 1000.0

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data: Array = np.asarray(data)
        if requires_grad and not _is_floating(self.data.dtype):
            raise TypeError(f"only floating-point tensors can require a gradient, got dtype {self.data.dtype}")
        self.requires_grad = bool(requires_grad)
        self.grad: Array | None = None
        self._node: Node | None = None

    shape = property(lambda self: self.data.shape, doc="Sizes of the dimensions.")
    dtype = property(lambda self: self.data.dtype, doc="NumPy dtype of the elements.")
    ndim = property(lambda self: self.data.ndim, doc="Number of dimensions.")
    is_leaf = property(lambda self: self._node is None, doc="True unless the value was computed on the tape.")
    T = property(lambda self: self.permute(*range(self.ndim)[::-1]), doc="All dimensions reversed.")

    def dim(self) -> int:
        """Number of dimensions."""
        return self.data.ndim

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of dimension `dim`."""
        return self.data.shape if dim is None else self.data.shape[_dimension(dim, self.ndim)]

    def numel(self) -> int:
        """Number of elements."""
        return self.data.size

    def numpy(self) -> Array:
        """The values as a NumPy array: the same memory, outside the tape."""
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self.data if dtype is None else self.data.astype(dtype, copy=False)
        return array.copy() if copy and array is self.data else array

    def item(self) -> Any:
        """The value of a Tensor with one element, as a Python number."""
        return self.data.astype(np.float64).item() if self.dtype.kind == "V" else self.data.item()

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self.data.tolist()

    def detach(self) -> Tensor:
        """A Tensor over the same memory that records nothing."""
        return Tensor(self.data)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set ``requires_grad`` and return the Tensor itself."""
        self.requires_grad = Tensor(self.data, requires_grad).requires_grad
        return self

    def contiguous(self) -> Tensor:
        """A Tensor whose values are contiguous in memory, as torch's programs ask for before `view`."""
        return _op(np.ascontiguousarray(self.data), (self, lambda dy: dy))

    def clone(self) -> Tensor:
        """A copy, on the tape."""
        return _op(self.data.copy(), (self, lambda dy: dy))

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item() if spec and self.data.size == 1 else str(self), spec)

    def __repr__(self) -> str:
        values = np.array2string(self.data, separator=", ", prefix="tensor(")
        return f"tensor({values}, dtype={self.dtype}{', requires_grad=True' if self.requires_grad else ''})"

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self.data)))

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add the gradient of this Tensor to ``grad`` of every Tensor that it was computed from and that requires one.

        Parameters
        ----------
        gradient : array or Tensor, optional
            Gradient of this Tensor, of its shape; 1 for a Tensor with one element.
        retain_graph : bool
            Keep the record for another call. Otherwise it is freed.

        Raises
        ------
        ValueError
            Nothing was recorded; the record was freed by an earlier call; `gradient` is missing or misshapen.
        """
        if not self.requires_grad:
            raise ValueError(
                "backward needs a Tensor that was recorded: nothing that it was computed from requires grad"
            )
        if gradient is None:
            if self.data.size != 1:
                raise ValueError(
                    f"gradient must be given for a Tensor that is no scalar; this one has shape {self.shape}"
                )
            gradient = np.ones_like(self.data)
        gradient = np.asarray(_operand(gradient), self.dtype)
        if gradient.shape != self.shape:
            raise ValueError(f"gradient must have the Tensor's shape {self.shape}, got {gradient.shape}")
        run_backward(self, gradient, retain_graph)

    # Arithmetic. Numbers keep the Tensor's type; arrays promote as in NumPy.

    def __add__(self, other: Any) -> Tensor:
        return _op(self.data + _operand(other), (self, lambda dy: dy), (other, lambda dy: dy))

    def __sub__(self, other: Any) -> Tensor:
        return _op(self.data - _operand(other), (self, lambda dy: dy), (other, lambda dy: -dy))

    def __rsub__(self, other: Any) -> Tensor:
        return _op(_operand(other) - self.data, (self, lambda dy: -dy))

    def __mul__(self, other: Any) -> Tensor:
        a, b = self.data, _operand(other)
        return _op(a * b, (self, lambda dy: dy * b), (other, lambda dy: dy * a))

    def __truediv__(self, other: Any) -> Tensor:
        a, b = self.data, _operand(other)
        return _op(a / b, (self, lambda dy: dy / b), (other, lambda dy: -dy * a / (b * b)))

    def __rtruediv__(self, other: Any) -> Tensor:
        a, b = _operand(other), self.data
        return _op(a / b, (self, lambda dy: -dy * a / (b * b)))

    def __pow__(self, exponent: Any) -> Tensor:
        a, n = self.data, _operand(exponent)
        y = a**n
        return _op(y, (self, lambda dy: dy * _power_slope(a, n)), (exponent, lambda dy: dy * y * np.log(a)))

    def __rpow__(self, base: Any) -> Tensor:
        a = _operand(base)
        y = a**self.data
        return _op(y, (self, lambda dy: dy * y * np.log(a)))

    def __matmul__(self, other: Any) -> Tensor:
        return _matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _matmul(other, self)

    def __neg__(self) -> Tensor:
        return _op(-self.data, (self, lambda dy: -dy))

    __radd__ = __add__
    __rmul__ = __mul__
    __hash__ = object.__hash__

    def _assign(self, value: Any) -> Tensor:
        """In-place operators write only where nothing is recorded (`p -= lr * p.grad` under `no_grad`)."""
        if not mode.enabled:
            self.data[...] = _operand(value)
            return self
        if self.requires_grad and self._node is None:
            raise ValueError("a leaf Tensor that requires grad can be changed in place only under fastconv.no_grad()")
        return value

    def __iadd__(self, other: Any) -> Tensor:
        return self._assign(self + other)

    def __isub__(self, other: Any) -> Tensor:
        return self._assign(self - other)

    def __imul__(self, other: Any) -> Tensor:
        return self._assign(self * other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._assign(self / other)

    def __eq__(self, other: object) -> Any:
        return self.data == _operand(other)

    def __ne__(self, other: object) -> Any:
        return self.data != _operand(other)

    def __lt__(self, other: Any) -> Array:
        return self.data < _operand(other)

    def __le__(self, other: Any) -> Array:
        return self.data <= _operand(other)

    def __gt__(self, other: Any) -> Array:
        return self.data > _operand(other)

    def __ge__(self, other: Any) -> Array:
        return self.data >= _operand(other)

    def exp(self) -> Tensor:
        """e to the power of each element."""
        y = np.exp(self.data)
        return _op(y, (self, lambda dy: dy * y))

    def log(self) -> Tensor:
        """Natural logarithm."""
        return _op(np.log(self.data), (self, lambda dy: dy / self.data))

    def sqrt(self) -> Tensor:
        """Square root."""
        y = np.sqrt(self.data)
        return _op(y, (self, lambda dy: dy / (2 * y)))

    def abs(self) -> Tensor:
        """Absolute value; gradient 0 at 0."""
        return _op(np.abs(self.data), (self, lambda dy: dy * np.sign(self.data)))

    __abs__ = abs

    def pow(self, exponent: Any) -> Tensor:
        """Each element to the power of `exponent`."""
        return self**exponent

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Limit to [min, max]; the gradient passes where the value lies inside, limits included."""
        low, high = _operand(min), _operand(max)
        inside = np.ones(self.shape, bool) if low is None else self.data >= low
        inside = inside if high is None else inside & (self.data <= high)
        return _op(np.clip(self.data, low, high), (self, lambda dy: dy * inside))

    clip = clamp

    # Reductions: torch's dim/keepdim and NumPy's axis/keepdims.

    def sum(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Sum over `dim` (all dimensions for None); 16-bit types are accumulated in float32."""
        axes = _axes(dim, axis, self.ndim)
        y = self.data.sum(axes, dtype=_wide(self.data), keepdims=True).astype(self.dtype, copy=False)
        shape = y.shape
        y = y if keepdim or keepdims else y.reshape([n for i, n in enumerate(self.shape) if i not in axes])
        return _op(y, (self, lambda dy: np.broadcast_to(dy.reshape(shape), self.shape)))

    def mean(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Mean over `dim` (all dimensions for None)."""
        count = np.prod([self.shape[i] for i in _axes(dim, axis, self.ndim)], dtype=np.int64).item()
        return self.sum(dim, keepdim, axis=axis, keepdims=keepdims) / count

    def var(
        self,
        dim: Any = None,
        keepdim: bool = False,
        correction: int = 1,
        *,
        unbiased: bool | None = None,
        axis: Any = None,
        keepdims: bool = False,
    ) -> Tensor:
        """Variance over `dim`, the sum of squares divided by the count less `correction`, as in torch."""
        axes = _axes(dim, axis, self.ndim)
        count = np.prod([self.shape[i] for i in axes], dtype=np.int64).item()
        correction = correction if unbiased is None else int(unbiased)
        centred = self - self.mean(axes, keepdim=True)
        return (centred * centred).sum(axes, keepdim or keepdims) / (count - correction)

    def std(self, dim: Any = None, keepdim: bool = False, correction: int = 1, **options: Any) -> Tensor:
        """Square root of `var`."""
        return self.var(dim, keepdim, correction, **options).sqrt()

    def max(self, dim: int | None = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """Maximum of all elements or over NumPy's `axis`; with torch's `dim`, (values, indices)."""
        return self._extremum(np.max, np.argmax, dim, axis, keepdim or keepdims)

    def min(self, dim: int | None = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """Minimum of all elements or over NumPy's `axis`; with torch's `dim`, (values, indices)."""
        return self._extremum(np.min, np.argmin, dim, axis, keepdim or keepdims)

    def _extremum(self, reduce: Any, locate: Any, dim: int | None, axis: Any, keep: bool) -> Any:
        x, axes = self.data, _axes(dim, axis, self.ndim)
        if dim is not None:
            indices = locate(x, axis=axes[0], keepdims=True)
            y = np.take_along_axis(x, indices, axes[0])
            chosen = np.zeros(x.shape, bool)
            np.put_along_axis(chosen, indices, True, axes[0])
            share = chosen.astype(_wide(x))
        else:
            y = reduce(x, axis=axes, keepdims=True)
            chosen = (x == y) | ((x != x) & (y != y))  # ties share the gradient, as in torch
            share = chosen / chosen.sum(axes, keepdims=True, dtype=_wide(x))
        narrow = [n for i, n in enumerate(x.shape) if i not in axes]
        values = _op(y if keep else y.reshape(narrow), (self, lambda dy: dy.reshape(y.shape) * share))
        return values if dim is None else Extremum(values, indices if keep else indices.reshape(narrow))

    def argmax(self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None) -> Array:
        """Index of the first maximum, as an array."""
        return np.argmax(self.data, axis=dim if axis is None else axis, keepdims=keepdim)

    # Shapes.

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        return _op(self.data.reshape(_shape(shape)), (self, lambda dy: dy.reshape(self.shape)))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Join the dimensions from `start_dim` to `end_dim`."""
        return self.reshape(_flat_shape(self.shape, start_dim, end_dim))

    def squeeze(self, dim: int | None = None) -> Tensor:
        """Without the dimensions of size 1, or without `dim` if that has size 1."""
        dims = range(self.ndim) if dim is None else (_dimension(dim, self.ndim),)
        return self.reshape([n for i, n in enumerate(self.shape) if not (i in dims and n == 1)])

    def unsqueeze(self, dim: int) -> Tensor:
        """With a dimension of size 1 before position `dim`."""
        dim = _dimension(dim, self.ndim + 1)
        return self.reshape((*self.shape[:dim], 1, *self.shape[dim:]))

    def permute(self, *dims: Any) -> Tensor:
        """The dimensions in another order."""
        order = tuple(_dimension(d, self.ndim, "dims") for d in _shape(dims))
        return _op(self.data.transpose(order), (self, lambda dy: dy.transpose(np.argsort(order))))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two dimensions exchanged, as in torch."""
        order = list(range(self.ndim))
        dim0, dim1 = _dimension(dim0, self.ndim, "dim0"), _dimension(dim1, self.ndim, "dim1")
        order[dim0], order[dim1] = dim1, dim0
        return self.permute(order)

    def t(self) -> Tensor:
        """The transpose of a matrix."""
        return self.T

    def __getitem__(self, index: Any) -> Tensor:
        items = index if isinstance(index, tuple) else (index,)
        key: Any = tuple(_operand(i) for i in items)
        basic = all(i is None or i is Ellipsis or (isinstance(i, int | slice) and not isinstance(i, bool)) for i in key)

        def scatter(dy: Array) -> Array:
            dx = np.zeros(self.shape, dy.dtype)
            if basic:
                dx[key] = dy
            else:
                np.add.at(dx, key, dy)  # an index may occur more than once
            return dx

        return _op(self.data[key], (self, scatter))

    def relu(self) -> Tensor:
        """`fastconv.nn.functional.relu` of this Tensor."""
        return _functional().relu(self)

    def sigmoid(self) -> Tensor:
        """`fastconv.nn.functional.sigmoid` of this Tensor."""
        return _functional().sigmoid(self)

    def tanh(self) -> Tensor:
        """`fastconv.nn.functional.tanh` of this Tensor."""
        return _functional().tanh(self)

    def softmax(self, dim: int) -> Tensor:
        """`fastconv.nn.functional.softmax` of this Tensor."""
        return _functional().softmax(self, dim)

    def log_softmax(self, dim: int) -> Tensor:
        """`fastconv.nn.functional.log_softmax` of this Tensor."""
        return _functional().log_softmax(self, dim)


class Parameter(Tensor):
    """A Tensor that a Module trains: ``requires_grad`` is True, and assigning it to a Module registers it.

    Parameters
    ----------
    data : array_like
        Used without a copy where it is an array.
    requires_grad : bool

    Notes
    -----
    As torch.nn.Parameter. In the functions of ``fastconv.nn.functional`` a Parameter next to a plain input array counts
    as its array: arrays in, arrays out.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.tensor import Parameter
    >>> Parameter(np.zeros(2, np.float32))
    Parameter containing: tensor([0., 0.], dtype=float32, requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data.data if isinstance(data, Tensor) else data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing: {super().__repr__()}"


def _functional() -> Any:
    from .nn import functional

    return functional


def _power_slope(a: Any, n: Any) -> Any:
    """Derivative of a**n by a; 0 for n = 0, also at a = 0, where the formula has 0 * inf."""
    if not isinstance(n, np.ndarray):
        return n * a ** (n - 1) if n else np.zeros_like(a)
    return np.where(n == 0, 0, n * a ** np.where(n == 0, 1, n - 1))


def _matmul(left: Any, right: Any) -> Tensor:
    a, b = _operand(left), _operand(right)
    y = np.matmul(a, b)
    rows = a.reshape(1, -1) if a.ndim == 1 else a
    columns = b.reshape(-1, 1) if b.ndim == 1 else b
    full = np.matmul(rows[..., :1], columns[..., :1, :]).shape  # of the result, were both operands matrices
    return _op(
        y,
        (left, lambda dy: _fit(np.matmul(dy.reshape(full), columns.swapaxes(-1, -2)), rows).reshape(a.shape)),
        (right, lambda dy: _fit(np.matmul(rows.swapaxes(-1, -2), dy.reshape(full)), columns).reshape(b.shape)),
    )


def _flat_shape(shape: tuple[int, ...], start_dim: int, end_dim: int) -> tuple[int, ...]:
    start, end = _dimension(start_dim, len(shape), "start_dim"), _dimension(end_dim, len(shape), "end_dim")
    if start > end:
        raise ValueError(f"start_dim must not come after end_dim, got {start_dim} and {end_dim}")
    joined = 1
    for n in shape[start : end + 1]:
        joined *= n
    return (*shape[:start], joined, *shape[end + 1 :])


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor of `data`.

    Parameters
    ----------
    data : array_like, array with ``__dlpack__``, or Tensor
        An array is used without a copy, in its own type. Python floats become float32, as in torch.
    dtype : dtype, optional
    requires_grad : bool
        Whether ``backward`` shall leave a gradient in its ``grad``.

    Raises
    ------
    TypeError
        `requires_grad` for an integer type, or `data` that NumPy makes no numbers of.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.tensor([[1.0, 2.0]])
    tensor([[1., 2.]], dtype=float32)
    """
    if isinstance(data, Tensor):
        array = data.data
    elif isinstance(data, np.ndarray | np.generic) or not hasattr(data, "__dlpack__"):
        array = np.asarray(data)
        if array.dtype == np.float64 and not isinstance(data, np.ndarray | np.generic):
            array = array.astype(np.float32)
    else:
        array = to_numpy(data, "data")
    if array.dtype.kind not in "biuf" and not _is_floating(array.dtype):
        raise TypeError(f"data must be an array of numbers, got dtype {array.dtype}")
    return Tensor(array if dtype is None else array.astype(dtype, copy=False), requires_grad)


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
    arrays = [_operand(t) for t in tensors]
    y = np.concatenate(arrays, axis=dim)
    if not any(isinstance(t, Tensor) for t in tensors):
        return y
    ends = np.cumsum([a.shape[dim] for a in arrays]).tolist()

    def part(start: int, end: int) -> Callable[[Array], Array]:
        return lambda dy: dy[(slice(None),) * (dim % y.ndim) + (slice(start, end),)]

    return _op(y, *((t, part(start, end)) for t, start, end in zip(tensors, [0, *ends], ends)))


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
    y = np.stack([_operand(t) for t in tensors], axis=dim)
    if not any(isinstance(t, Tensor) for t in tensors):
        return y

    def layer(i: int) -> Callable[[Array], Array]:
        return lambda dy: np.take(dy, i, axis=dim)

    return _op(y, *((t, layer(i)) for i, t in enumerate(tensors)))


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
    return shaped.reshape(_flat_shape(shaped.shape, start_dim, end_dim))
