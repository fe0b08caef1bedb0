"""The tape: whether computations are recorded, what a record is, and the walk back over it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Union, cast

import numpy as np

from .cuda import is_device_array
from .devices import guard
from .elements import add

if TYPE_CHECKING:
    from .tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")
Vertex = Union["Node", "Tensor"]  # of the graph of what was recorded: a Tensor where it is a leaf
Pullback = Callable[[np.ndarray], Sequence[np.ndarray | None]]


class GradMode(threading.local):
    enabled = True
    substitute: Callable[[Any], Callable[..., Any]] | None = None
    values: dict[int, Tensor] | None = None
    after_backward: list[Callable[[], None]] | None = None  # None while no backward runs


mode = GradMode()


@contextlib.contextmanager
def _grad_mode(enabled: bool) -> Iterator[None]:
    before = mode.enabled
    mode.enabled = enabled
    try:
        yield
    finally:
        mode.enabled = before


def _context(enabled: bool, name: str, function: Callable[..., Any] | None) -> Any:
    if function is None:
        return _grad_mode(enabled)
    if not callable(function):
        raise TypeError(f"{name} takes a function to decorate, or nothing, got {type(function).__name__}")
    return _grad_mode(enabled)(function)


def no_grad(function: Callable[..., Any] | None = None) -> Any:
    """Context manager and decorator, ``@no_grad()`` or ``@no_grad``: record nothing, in this thread.

    Tensors stay Tensors (``requires_grad`` is False for what is computed inside). As torch.no_grad.

    Examples
    --------
    >>> import fastconv as fc
    >>> w = fc.tensor([1.0, 2.0], requires_grad=True)
    >>> with fc.no_grad():
    ...     (w * 2).requires_grad
    False
    """
    return _context(False, "no_grad", function)


def enable_grad(function: Callable[..., Any] | None = None) -> Any:
    """Context manager and decorator, with or without parentheses: record again inside a `no_grad` block.

    As torch.enable_grad.

    Examples
    --------
    >>> import fastconv as fc
    >>> w = fc.tensor([1.0, 2.0], requires_grad=True)
    >>> with fc.no_grad(), fc.enable_grad():
    ...     (w * 2).requires_grad
    True
    """
    return _context(True, "enable_grad", function)


def inference_mode(mode: Any = True) -> Any:
    """As :func:`no_grad`, under another name of torch's: nothing that is computed inside differs from what is computed
    there. With `mode` False as :func:`enable_grad`.

    Examples
    --------
    >>> import fastconv as fc
    >>> w = fc.tensor([1.0, 2.0], requires_grad=True)
    >>> with fc.inference_mode():
    ...     (w * 2).requires_grad
    False
    """
    if isinstance(mode, bool):
        return _grad_mode(not mode)
    return _context(False, "inference_mode", mode)


class set_grad_enabled:  # lower case, for it is called like a function
    """Record from now on, or not, in this thread; the end of a ``with`` block takes that back.

    As a decorator it acts in the calls of the function alone.

    Parameters
    ----------
    mode : bool

    Notes
    -----
    Source: torch.set_grad_enabled.

    Examples
    --------
    >>> import fastconv as fc
    >>> training = False
    >>> with fc.set_grad_enabled(training):
    ...     fc.is_grad_enabled()
    False
    >>> fc.is_grad_enabled()
    True
    """

    def __init__(self, mode: bool) -> None:
        self._mode = bool(mode)
        self._before = _swap_grad_mode(self._mode)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        _swap_grad_mode(self._before)
        return _grad_mode(self._mode)(function)

    def __enter__(self) -> set_grad_enabled:
        return self

    def __exit__(self, *_: object) -> None:
        _swap_grad_mode(self._before)


def _swap_grad_mode(enabled: bool) -> bool:
    before, mode.enabled = mode.enabled, enabled
    return before


def is_grad_enabled() -> bool:
    """Whether computations with Tensors are recorded in this thread.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.is_grad_enabled()
    True
    """
    return mode.enabled


@contextlib.contextmanager
def substitute_rules(substitute: Callable[[Any], Callable[..., Any]]) -> Iterator[None]:
    """Context manager: record each differentiable function by the rule ``substitute(spec)``, in this thread.

    Guided backpropagation gives ReLU another gradient this way, and receptive fields are read off the calls that pass.
    """
    before = mode.substitute
    mode.substitute = substitute
    try:
        yield
    finally:
        mode.substitute = before


@contextlib.contextmanager
def keep_values() -> Iterator[dict[int, Tensor]]:
    """Context manager: the Tensors that are recorded in this thread, by the id of their Node.

    For those who look at a graph rather than play it back: a record alone keeps no values.
    """
    before, mode.values = mode.values, {}
    try:
        yield mode.values
    finally:
        mode.values = before


class Node:
    """Where a value came from: `parents` (None for those that need no gradient) and `pullback`, one gradient each.

    Parents are the Nodes of values that were recorded, too, and leaf Tensors. Values themselves are not kept: what a
    gradient needs, its pullback holds, and everything else is freed as soon as the program drops it.
    """

    __slots__ = ("hooks", "keep", "parents", "pullback")

    def __init__(self, parents: Sequence[Tensor | None], pullback: Pullback) -> None:
        self.parents: Sequence[Vertex | None] = [None if p is None else p._node or p for p in parents]
        self.pullback: Pullback | None = pullback
        self.hooks: dict[int, Callable[[Any], Any]] | None = None  # of Tensor.register_hook
        self.keep: Callable[[Any], None] | None = None  # takes the value's gradient: Tensor.retain_grad


def _owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory `array` is a view of."""
    while isinstance(array.base, np.ndarray) or (array.base is not None and is_device_array(array)):
        array = array.base
    return array


def _is_own(array: np.ndarray) -> bool:
    """Whether a gradient may be written to: not the view that repeats one element, which CuPy does not mark."""
    return array.base is None if is_device_array(array) else array.flags.writeable


def topological_order(root: Tensor) -> list[Vertex]:
    """Every vertex behind `root`, each after those that it was computed from; no recursion, for deep networks."""
    first: Vertex = root._node or root
    order: list[Vertex] = []
    seen, stack = {id(first)}, [(first, iter(parents_of(first)))]
    while stack:
        vertex, parents = stack[-1]
        for parent in parents:
            if id(parent) not in seen:
                seen.add(id(parent))
                stack.append((parent, iter(parents_of(parent))))
                break
        else:
            order.append(vertex)
            stack.pop()
    return order


def parents_of(vertex: Vertex) -> list[Vertex]:
    """The vertices that `vertex` was computed from and that need a gradient."""
    return [parent for parent in vertex.parents if parent is not None] if isinstance(vertex, Node) else []


def after_backward(callback: Callable[[], None]) -> None:
    """Call `callback` once, at the end of the backward pass that runs in this thread (if it raises nothing).

    For hooks of gradients that have work to finish when the last gradient is there.
    """
    if mode.after_backward is None:
        raise RuntimeError("after_backward was called while no backward pass runs in this thread")
    mode.after_backward.append(callback)


def run_backward(root: Tensor, gradient: np.ndarray, retain_graph: bool) -> None:
    """Add to ``grad`` of every leaf behind `root` its part of `gradient`; frees the record unless `retain_graph`."""
    outer, mode.after_backward = mode.after_backward, []
    try:
        with guard(gradient):
            _walk_back(root, gradient, retain_graph)
        for callback in mode.after_backward:
            callback()
    finally:
        mode.after_backward = outer


def _walk_back(root: Tensor, gradient: np.ndarray, retain_graph: bool) -> None:
    order = topological_order(root)
    if any(isinstance(vertex, Node) and vertex.pullback is None for vertex in order):
        raise ValueError(
            "backward was called before and freed the record; use backward(retain_graph=True) in all but the last call"
        )
    gradients = {id(order[-1]): gradient}
    sums: set[int] = set()  # vertices whose gradient is a sum that was made here, so that nothing else refers to it
    handed_out = {id(_owner(gradient))}  # memory that must not become a second Tensor's grad, too
    del gradient
    while order:
        vertex = order.pop()
        dy = gradients.pop(id(vertex), None)
        if dy is None:
            continue
        if not isinstance(vertex, Node):
            _finish_leaf(vertex, dy, handed_out)
            continue
        if vertex.hooks:
            dy = _hooked(vertex.hooks, dy)
        if vertex.keep is not None:
            vertex.keep(dy)
        pullback, parents = cast(Pullback, vertex.pullback), vertex.parents
        if not retain_graph:
            vertex.pullback, vertex.parents = None, ()
        received = list(zip(parents, pullback(dy)))
        del dy, pullback  # with what they hold: the sums below find its memory free
        for parent, dx in received:
            if parent is not None and dx is not None:
                key = id(parent)
                before = gradients.get(key)
                if before is None:
                    gradients[key] = dx
                else:
                    gradients[key] = add(before, dx, into=key in sums)
                    sums.add(key)
        del received


def _hooked(hooks: dict[int, Callable[[Any], Any]], dy: np.ndarray) -> np.ndarray:
    """What the hooks make of a gradient, each of what the one before gave."""
    for hook in tuple(hooks.values()):
        replacement = hook(dy)
        if replacement is not None:
            replacement = getattr(replacement, "data", replacement) if hasattr(replacement, "_node") else replacement
            if getattr(replacement, "shape", None) != dy.shape:
                raise ValueError(
                    f"a hook must return a gradient of shape {dy.shape} or None, got "
                    f"{getattr(replacement, 'shape', type(replacement).__name__)}"
                )
            dy = replacement.astype(dy.dtype, copy=False)
    return dy


def _finish_leaf(tensor: Tensor, dy: np.ndarray, handed_out: set[int]) -> None:
    if tensor._hooks:
        dy = _hooked(tensor._hooks, dy)
    if tensor.grad is not None:
        dy = add(tensor.grad, dy)
    elif id(_owner(dy)) in handed_out or not _is_own(dy):
        dy = dy.copy()
    handed_out.add(id(_owner(dy)))
    tensor.grad = dy
    # A leaf comes after everything that was computed from it, so nothing more is added in this pass.
    for hook in tuple(tensor._gradient_hooks.values()) if tensor._gradient_hooks else ():
        hook(tensor)
