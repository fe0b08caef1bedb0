"""What the layers of an optimised network hand on: results for certain layers alone, and work that is put off.

`fastconv.optimize` gives a layer the work of layers behind it. What it computes then is not its own output any more,
and a forward that uses it otherwise than the recorded one would compute something else. So the value travels in a
`Held`, which nobody can open but those layers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

import fastconv.nn.functional as F
from fastconv import backend
from fastconv.leaves import convert_leaves
from fastconv.tape import mode
from fastconv.tensor import Tensor
from fastconv.tensor_arithmetic import Deferred

if TYPE_CHECKING:
    from .conv import _Conv
    from .module import Module

__all__ = [
    "AnotherWayError",
    "Held",
    "Pending",
    "another_way",
    "bare",
    "close_held",
    "convert_held",
    "is_unrecorded",
    "limited",
    "open_held",
    "refuse_held",
    "take",
]


class AnotherWayError(ValueError):
    """An optimised network is called otherwise than in the pass that it was rewritten by.

    Attributes
    ----------
    taker : Module or None
        The layer that does not meet what it was to take.
    """

    def __init__(self, message: str, taker: Module | None = None) -> None:
        super().__init__(message)
        self.taker = taker


def another_way(what: str, taker: Module) -> NoReturn:
    """AnotherWayError that says so."""
    raise AnotherWayError(
        "forward goes another way than in the pass that optimize recorded, for a flag, a shape or its values: "
        f"{what}; optimize a model for each way",
        taker,
    )


class Held(Deferred):
    """A value that the layers `takers` alone may take, one after the other; everybody may ask for its shape and dtype.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv.nn.modules.pending import Held
    >>> norm = nn.Identity()
    >>> y = Held(np.ones(2), (norm,))
    >>> y.shape, y.taken_by(norm)
    ((2,), array([1., 1.]))
    >>> y + 1  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    fastconv.nn.modules.pending.AnotherWayError: forward goes another way than ...
    """

    __slots__ = ("takers", "value")

    def __init__(self, value: Any, takers: tuple[Module, ...]) -> None:
        self.value, self.takers = value, takers

    def taken_by(self, layer: Module) -> Any:
        """The value for the next taker, who must be `layer`; held for the one after it, if there is one."""
        if layer is not self.takers[0]:
            self.refuse()
        return Held(self.value, self.takers[1:]) if len(self.takers) > 1 else self.value

    def applied(self, operator: str, *others: Any) -> Any:
        """What `operator` gives, if the next taker stands for that in a forward that uses no layer for it."""
        taker = self.takers[0]
        if getattr(taker, "operator", None) != operator:
            self.refuse()
        return taker(self, *others)

    def __add__(self, other: Any) -> Any:
        return self.applied("+", other)

    __radd__ = __add__

    def relu(self) -> Any:
        """As of a Tensor."""
        return self.applied("relu")

    def computed(self) -> Held:
        """With an array in place of work that is put off."""
        return Held(self.value.plus(), self.takers) if isinstance(self.value, Pending) else self

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the value."""
        return tuple(self.value.shape)

    @property
    def ndim(self) -> int:
        """Of the value."""
        return len(self.value.shape)

    @property
    def dtype(self) -> np.dtype:
        """Of the value."""
        return self.value.dtype

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the extent of one dimension, as of a Tensor."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """The number of dimensions, as of a Tensor."""
        return self.ndim

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        """AnotherWayError: somebody else than the next taker takes it."""
        taker = self.takers[0]
        name = getattr(taker, "absorbed", taker)
        another_way(f"something reads what only {name!r} was to read, whose work is done", taker)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # what Python and NumPy look for, such as __cuda_array_interface__
        self.refuse()

    __array__ = __array_ufunc__ = __array_function__ = __dlpack_device__ = __dlpack__ = refuse
    __getitem__ = __iter__ = __len__ = __bool__ = __float__ = __int__ = __neg__ = __abs__ = refuse
    __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = refuse
    __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __floordiv__ = __mod__ = __setitem__ = __contains__ = refuse
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = refuse  # type: ignore[assignment]
    __hash__ = object.__hash__


class Pending:
    """Convolutions in a row that wait for the layer after them, which does their work."""

    __slots__ = ("layers", "x")

    def __init__(self, layers: tuple[_Conv, ...], x: Any) -> None:
        self.layers, self.x = layers, x

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what they compute."""
        shape = tuple(self.x.shape)
        for layer in self.layers:
            shape = layer._output_shape(shape)
        return shape

    @property
    def dtype(self) -> np.dtype:
        """Of what they compute."""
        return self.x.dtype

    def plus(self, other: Any = None, limits: tuple[float, float] | None = None) -> Any:
        """min(max(what they compute + other, low), high) in one pass, by default within their own limits."""
        last = self.layers[-1]
        if other is None and limits is None:
            limits = last._limits
        x = self.x.data if isinstance(self.x, Tensor) else self.x
        other = other.data if isinstance(other, Tensor) else other
        if len(self.layers) > 1:
            stages = [layer._stage(layer._limits) for layer in self.layers[:-1]]
            stages.append(last._stage(limits))
            y = backend.ops.conv_chain_forward(x, stages, last._nd, other)
        else:
            y = last._convolved(x, other, limits)
        return Tensor(y) if isinstance(self.x, Tensor) else y


def take(layer: Module, input: Any) -> Any:
    """The input of `layer`, for which it may have been held."""
    return input.taken_by(layer) if isinstance(input, Held) else input


def convert_held(convert: Any, value: Any) -> Any:
    """``convert(value)``, inside a `Held` where it is in one."""
    if not isinstance(value, Held):
        return convert(value)
    inner = value.value
    inner = Pending(inner.layers, convert(inner.x)) if isinstance(inner, Pending) else convert(inner)
    return Held(inner, value.takers)


def bare(value: Any) -> Any:
    """What a `Held` holds, other values as they are."""
    return value.value if isinstance(value, Held) else value


def open_held(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """For hooks, which see arrays: `values` with what is put off computed, and the same without what holds them."""
    holders = tuple(x.computed() if isinstance(x, Held) else x for x in values)
    return holders, tuple(map(bare, holders))


def close_held(holders: tuple[Any, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
    """`values`, what hooks made of the bare ones, held again as `holders` are."""
    if len(values) != len(holders):
        return values
    return tuple(Held(x, holder.takers) if isinstance(holder, Held) else x for x, holder in zip(values, holders))


def refuse_held(output: Any) -> None:
    """AnotherWayError where an output of a whole network is held, and nobody is left to take it."""
    convert_leaves(lambda leaf: leaf.refuse() if isinstance(leaf, Held) else None, output)


def limited(y: Any, limits: tuple[float, float] | None) -> Any:
    """`y` between the limits of an activation, as that does it: `fastconv.visualize` looks for rectifiers."""
    if limits is None:
        return y
    return F.relu(y) if limits == (0.0, math.inf) else F.relu6(y) if limits == (0.0, 6.0) else F.hardtanh(y, *limits)


def is_unrecorded(value: Any) -> bool:
    """Whether `value` is an array of the host's or a Tensor of one that no tape records."""
    if type(value) is Tensor and not mode.enabled and mode.substitute is None:
        value = value.data
    return type(value) is np.ndarray
