"""`Tensor`: an array that records what is computed from it, and `backward`, which plays the record in reverse.

Every recorded value keeps a `Node`: the tensors that it was computed from and a pullback, which maps the gradient of
the value to theirs. The functions of `fastconv.nn.functional` bring their own (``.vjp``); the operators here are one
line each. Plain arrays never record anything: arrays in, arrays out.
"""

from __future__ import annotations

import builtins
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from .cuda import is_device_array
from .devices import (
    array_module,
    as_array,
    destination,
    device_of,
    guard,
    named_dtype,
    one_device,
    parse,
    to_device,
    to_host,
)
from .hooks import HookHandle, register_hook
from .interop import to_array
from .leaves import any_leaf, convert_leaves
from .tape import Node, Pullback, mode, run_backward
from .tensor_arithmetic import Array, fit, is_floating, operand
from .tensor_dimensions import dimension
from .tensor_functions import Functions


def record(value: Any, parents: Sequence[Tensor | None], pullback: Pullback) -> Tensor:
    """A Tensor with `value` whose gradient flows to `parents` through `pullback`."""
    result = Tensor(value)
    result.requires_grad = True
    result._node = Node(parents, pullback)
    if mode.values is not None:
        mode.values[id(result._node)] = result
    return result


def _op(value: Any, *edges: tuple[Any, Callable[[Array], Array]]) -> Tensor:
    """A Tensor with `value`; each edge is an operand and its gradient as a function of the result's gradient."""
    needed = [(x, f) for x, f in edges if isinstance(x, Tensor) and x.requires_grad] if mode.enabled else []
    if not needed:
        return Tensor(value)
    targets = [(f, x.data.shape, x.data.dtype) for x, f in needed]
    return record(value, [x for x, _ in needed], lambda dy: [fit(f(dy), shape, dtype) for f, shape, dtype in targets])


_UNRECORDED = (
    " amax amin array_split average broadcast_to clip column_stack concatenate cumprod cumsum diagonal diff dot dstack"
    " einsum expand_dims flip fliplr flipud hstack inner max mean median min moveaxis nan_to_num nanmean nansum outer"
    " pad prod ravel repeat reshape roll rot90 sort split squeeze stack std sum swapaxes take tensordot tile trace"
    " transpose tril triu var vstack where "
)
"""Functions of NumPy that make values of values, each between spaces."""


def _requires_grad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _array(value: Any) -> Any:
    return value.numpy() if isinstance(value, Tensor) else value


class Tensor(Functions):
    """An array whose computations are recorded, as torch.Tensor for the part that networks need.

    Parameters
    ----------
    data : array_like
        Used without a copy where it is an array. Made by `fastconv.tensor` as a rule.
    requires_grad : bool
        Whether ``backward`` shall leave a gradient in ``grad``. Floating-point types only.

    Attributes
    ----------
    data : numpy.ndarray or cupy.ndarray
        The values; what is computed from them is computed there.
    grad : numpy.ndarray, cupy.ndarray or None
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

    __slots__ = ("__weakref__", "_gradient_hooks", "_hooks", "_node", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # `array + tensor` must ask the Tensor, not NumPy
    __array_priority__ = 1000.0
    _op = staticmethod(_op)

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data: Array = as_array(data)
        if requires_grad and not is_floating(self.data.dtype):
            raise TypeError(f"only floating-point tensors can require a gradient, got dtype {self.data.dtype}")
        self.requires_grad = bool(requires_grad)
        self.grad: Array | None = None
        self._node: Node | None = None
        self._gradient_hooks: dict[int, Callable[[Tensor], None]] | None = None
        self._hooks: dict[int, Callable[[Any], Any]] | None = None  # of a leaf; others have theirs in the Node

    def __getstate__(self) -> tuple[Any, dict[str, Any]]:
        others, slots = cast(tuple[Any, dict[str, Any]], object.__getstate__(self))
        return others, {
            **slots,
            "_gradient_hooks": None,
            "_hooks": None,
        }  # hooks belong to this object, not to its copies

    shape = property(lambda self: self.data.shape, doc="Sizes of the dimensions.")
    dtype = property(lambda self: self.data.dtype, doc="NumPy dtype of the elements.")
    ndim = property(lambda self: self.data.ndim, doc="Number of dimensions.")
    is_leaf = property(lambda self: self._node is None, doc="True unless the value was computed on the tape.")
    T = property(lambda self: self.permute(*range(self.ndim)[::-1]), doc="All dimensions reversed.")

    device = property(lambda self: device_of(self.data), doc='``"cpu"``, or ``"cuda:N"`` on a GPU.')

    def to(
        self, *args: Any, device: Any = None, dtype: Any = None, copy: bool = False, non_blocking: bool = False
    ) -> Tensor:
        """The Tensor on another device, in another type, or both, on the tape; itself where nothing changes.

        Takes a device (``"cpu"``, ``"cuda"``, ``"cuda:1"``), a dtype, both in this order, or another Tensor, whose
        device and dtype are meant. As torch.Tensor.to; `copy` makes a new Tensor in any case, `non_blocking` changes
        nothing.

        Examples
        --------
        >>> import fastconv as fc
        >>> fc.tensor([1.5]).to("cpu", "float64").dtype
        dtype('float64')
        """
        place, kind = destination(args, device, dtype)
        source = self.data
        data = source if place is None else to_device(source, place)
        if kind is not None:
            data = data.astype(kind, copy=False)
        if data is source:
            return self.clone() if copy else self
        here = device_of(source)
        if self.requires_grad and is_floating(data.dtype):
            return self._op(data, (self, lambda dy: to_device(dy, here)))
        return Tensor(data)

    def cpu(self) -> Tensor:
        """The Tensor in the host's memory; itself where it is there."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Tensor:
        """The Tensor on GPU `device`, by default CuPy's current one."""
        return self.to("cuda" if device is None else device)

    def float(self) -> Tensor:
        """The Tensor in float32, on the tape; itself where it is."""
        return self.to(dtype=np.float32)

    def double(self) -> Tensor:
        """The Tensor in float64, on the tape; itself where it is."""
        return self.to(dtype=np.float64)

    def half(self) -> Tensor:
        """The Tensor in float16, on the tape; itself where it is."""
        return self.to(dtype=np.float16)

    def bfloat16(self) -> Tensor:
        """The Tensor in bfloat16, which needs the package ml_dtypes, on the tape; itself where it is."""
        return self.to(dtype="bfloat16")

    def dim(self) -> int:
        """Number of dimensions."""
        return self.data.ndim

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of dimension `dim`."""
        return self.data.shape if dim is None else self.data.shape[dimension(dim, self.ndim)]

    def numel(self) -> int:
        """Number of elements."""
        return self.data.size

    def numpy(self) -> Array:
        """The values as a NumPy array: the same memory, outside the tape. On a GPU a TypeError, as in torch."""
        if type(self.data) is not np.ndarray and is_device_array(self.data):
            raise TypeError(f"a Tensor on {self.device} has no NumPy array: copy it to the host first, with .cpu()")
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        self.numpy()
        array = self.data if dtype is None else self.data.astype(dtype, copy=False)
        return array.copy() if copy and array is self.data else array

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        # NumPy would take the array of a recorded Tensor, and what comes of it would train nothing.
        if mode.enabled and f" {function.__name__} " in _UNRECORDED and any_leaf(_requires_grad, (args, kwargs)):
            raise TypeError(
                f"numpy.{function.__name__} records no gradient: call the Tensor's method or fastconv's function of "
                "this name, or pass .data if none is wanted"
            )
        return function(*convert_leaves(_array, args), **convert_leaves(_array, kwargs))

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
        data = self.data
        return self._op(array_module(data).ascontiguousarray(data).reshape(data.shape), (self, lambda dy: dy))

    def clone(self) -> Tensor:
        """A copy, on the tape."""
        return self._op(self.data.copy(), (self, lambda dy: dy))

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> builtins.float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item() if spec and self.data.size == 1 else str(self), spec)

    def __repr__(self) -> str:
        values = np.array2string(to_host(self.data), separator=", ", prefix="tensor(")
        place = "" if self.device == "cpu" else f", device={self.device!r}"
        return f"tensor({values}, dtype={self.dtype}{place}{', requires_grad=True' if self.requires_grad else ''})"

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
            with guard(self.data):
                gradient = np.ones_like(self.data)
        gradient = operand(gradient)
        if hasattr(gradient, "shape"):
            one_device("backward", (("gradient", gradient), ("the Tensor", self.data)))
        with guard(self.data):
            gradient = array_module(self.data).asarray(gradient, self.dtype)
        if gradient.shape != self.shape:
            raise ValueError(f"gradient must have the Tensor's shape {self.shape}, got {gradient.shape}")
        run_backward(self, gradient, retain_graph)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> HookHandle:
        """Call ``hook(tensor)`` in every backward pass as soon as ``grad`` of this Tensor is complete, within the pass.

        As torch.Tensor.register_post_accumulate_grad_hook: for what need not wait for the other gradients, such as
        sending this one to other processes, or a step that frees it at once. The hook may change or drop ``grad``.

        Parameters
        ----------
        hook : callable
            Takes the Tensor; what it returns is ignored, what it raises ends the pass.

        Returns
        -------
        HookHandle
            Its ``remove()`` takes the hook out.

        Raises
        ------
        ValueError
            The Tensor is no leaf that requires a gradient.
        TypeError
            `hook` is not callable.

        Examples
        --------
        >>> import fastconv as fc
        >>> x = fc.tensor([1.0, 2.0], requires_grad=True)
        >>> handle = x.register_post_accumulate_grad_hook(lambda leaf: print(leaf.grad))
        >>> (x * x).sum().backward()
        [2. 4.]
        >>> handle.remove()
        """
        if not (self.is_leaf and self.requires_grad):
            raise ValueError("a hook of the gradient needs a leaf that requires a gradient: other Tensors keep none")
        if self._gradient_hooks is None:
            self._gradient_hooks = {}
        return register_hook(self._gradient_hooks, hook)

    def register_hook(self, hook: Callable[[Any], Any]) -> HookHandle:
        """Call ``hook(gradient)`` in every backward pass when this Tensor's gradient is complete.

        As torch.Tensor.register_hook, for Tensors that were computed and for leaves: to look at a gradient, or to send
        another one back in its place.

        Parameters
        ----------
        hook : callable
            Takes the gradient, an array that it must not write to; may return another of its shape.

        Returns
        -------
        HookHandle
            Its ``remove()`` takes the hook out.

        Raises
        ------
        ValueError
            The Tensor requires no gradient; in the pass: what the hook returns has another shape.
        TypeError
            `hook` is not callable.

        Examples
        --------
        >>> import fastconv as fc
        >>> x = fc.tensor([1.0, 2.0], requires_grad=True)
        >>> y = x * 3
        >>> handle = y.register_hook(lambda gradient: 10 * gradient)
        >>> y.sum().backward()
        >>> x.grad
        array([30., 30.], dtype=float32)
        """
        if not self.requires_grad:
            raise ValueError("a hook of the gradient needs a Tensor that requires a gradient")
        if self._node is None:
            self._hooks = hooks = {} if self._hooks is None else self._hooks
        else:
            self._node.hooks = hooks = {} if self._node.hooks is None else self._node.hooks
        return register_hook(hooks, hook)

    def retain_grad(self) -> None:
        """Leave the gradient of this Tensor in ``grad``, though it was computed; a leaf's is left there anyway.

        As torch.Tensor.retain_grad; hooks see the gradient first.

        Raises
        ------
        ValueError
            The Tensor requires no gradient.

        Examples
        --------
        >>> import fastconv as fc
        >>> x = fc.tensor([1.0, 2.0], requires_grad=True)
        >>> y = x * 3
        >>> y.retain_grad()
        >>> (y * y).sum().backward()
        >>> y.grad
        array([ 6., 12.], dtype=float32)
        """
        if not self.requires_grad:
            raise ValueError("retain_grad needs a Tensor that requires a gradient")
        this = weakref.ref(self)

        def keep(dy: Array) -> None:
            tensor = this()
            if tensor is not None:
                tensor.grad = dy.copy() if tensor.grad is None else tensor.grad + dy

        if self._node is not None:
            self._node.keep = keep

    def relu(self) -> Tensor:
        """`fastconv.nn.functional.relu` of this Tensor."""
        return _functional().relu(self)

    def sigmoid(self) -> Tensor:
        """`fastconv.nn.functional.sigmoid` of this Tensor."""
        return _functional().sigmoid(self)

    def tanh(self) -> Tensor:
        """`fastconv.nn.functional.tanh` of this Tensor."""
        return _functional().tanh(self)

    def softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """`fastconv.nn.functional.softmax` of this Tensor."""
        return _functional().softmax(self, dim, dtype=dtype)

    def log_softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """`fastconv.nn.functional.log_softmax` of this Tensor."""
        return _functional().log_softmax(self, dim, dtype=dtype)


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


class UninitializedParameter(Parameter):
    """A Parameter of a lazy layer that has no size yet: an array without elements, until :meth:`materialize`.

    Parameters
    ----------
    dtype : dtype-like, optional
        float32 by default.
    requires_grad : bool

    Notes
    -----
    The object stays the same and becomes a Parameter, so an optimiser may have it before. Source:
    torch.nn.UninitializedParameter.

    Examples
    --------
    >>> from fastconv.tensor import UninitializedParameter
    >>> p = UninitializedParameter()
    >>> p
    <UninitializedParameter>
    >>> p.materialize((2,))
    >>> p
    Parameter containing: tensor([0., 0.], dtype=float32, requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, dtype: Any = None, requires_grad: bool = True) -> None:
        super().__init__(np.empty(0, np.float32 if dtype is None else dtype), requires_grad)

    def materialize(self, shape: tuple[int, ...]) -> None:
        """Become a Parameter of zeros of this shape, on the same device."""
        self.data = array_module(self.data).zeros(shape, self.dtype)
        self.__class__ = Parameter  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<UninitializedParameter>"


def _functional() -> Any:
    from .nn import functional

    return functional


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False, *, device: Any = None) -> Tensor:
    """A Tensor of `data`.

    Parameters
    ----------
    data : array_like, array with ``__dlpack__``, or Tensor
        An array is used without a copy, in its own type. Python floats become float32, as in torch.
    dtype : dtype, optional
    requires_grad : bool
        Whether ``backward`` shall leave a gradient in its ``grad``.
    device : str or int, keyword only, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or N; by default where `data` lies.

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
    elif isinstance(data, np.ndarray | np.generic) or not (
        hasattr(data, "__dlpack__") or hasattr(data, "__cuda_array_interface__")
    ):
        array = np.asarray(data)
        if array.dtype == np.float64 and not isinstance(data, np.ndarray | np.generic):
            array = array.astype(np.float32)
    else:
        array = to_array(data, "data")
    if array.dtype.kind not in "biuf" and not is_floating(array.dtype):
        raise TypeError(f"data must be an array of numbers, got dtype {array.dtype}")
    if device is not None:
        array = to_device(array, parse(device))
    return Tensor(array if dtype is None else array.astype(named_dtype(dtype), copy=False), requires_grad)
