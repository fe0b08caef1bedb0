"""The tape: whether computations are recorded, what a record is, and the walk back over it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .tensor import Tensor

Pullback = Callable[[np.ndarray], Sequence[np.ndarray | None]]


class GradMode(threading.local):
    enabled = True
    substitute: Callable[[Any], Callable[..., Any]] | None = None
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


def no_grad() -> contextlib._GeneratorContextManager[None]:
    """Context manager and decorator: record nothing, in this thread.

    Tensors stay Tensors (``requires_grad`` is False for what is computed inside). As torch.no_grad.

    Examples
    --------
    >>> import fastconv as fc
    >>> w = fc.tensor([1.0, 2.0], requires_grad=True)
    >>> with fc.no_grad():
    ...     (w * 2).requires_grad
    False
    """
    return _grad_mode(False)


def enable_grad() -> contextlib._GeneratorContextManager[None]:
    """Context manager and decorator: record again inside a `no_grad` block. As torch.enable_grad.

    Examples
    --------
    >>> import fastconv as fc
    >>> w = fc.tensor([1.0, 2.0], requires_grad=True)
    >>> with fc.no_grad(), fc.enable_grad():
    ...     (w * 2).requires_grad
    True
    """
    return _grad_mode(True)


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


class Node:
    """Where a Tensor came from: `parents` (None for those that need no gradient) and `pullback`, one gradient each."""

    __slots__ = ("parents", "pullback")

    def __init__(self, parents: Sequence[Tensor | None], pullback: Pullback) -> None:
        self.parents = parents
        self.pullback: Pullback | None = pullback


def _owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory `array` is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def topological_order(root: Tensor) -> list[Tensor]:
    """Every Tensor behind `root`, each after those that it was computed from; no recursion, for deep networks."""
    order, seen, stack = [], {id(root)}, [(root, iter(root._node.parents if root._node else ()))]
    while stack:
        tensor, parents = stack[-1]
        for parent in parents:
            if parent is not None and id(parent) not in seen:
                seen.add(id(parent))
                stack.append((parent, iter(parent._node.parents if parent._node else ())))
                break
        else:
            order.append(tensor)
            stack.pop()
    return order


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
        _walk_back(root, gradient, retain_graph)
        for callback in mode.after_backward:
            callback()
    finally:
        mode.after_backward = outer


def _walk_back(root: Tensor, gradient: np.ndarray, retain_graph: bool) -> None:
    order = topological_order(root)
    if any(t._node is not None and t._node.pullback is None for t in order):
        raise ValueError(
            "backward was called before and freed the record; use backward(retain_graph=True) in all but the last call"
        )
    gradients = {id(root): gradient}
    handed_out = {id(_owner(gradient))}  # memory that must not become a second Tensor's grad, too
    for tensor in reversed(order):
        dy = gradients.pop(id(tensor), None)
        node = tensor._node
        if dy is None:
            continue
        if node is None or node.pullback is None:
            if tensor.grad is not None:
                dy = tensor.grad + dy
            elif id(_owner(dy)) in handed_out or not dy.flags.writeable:
                dy = dy.copy()
            handed_out.add(id(_owner(dy)))
            tensor.grad = dy
            # A leaf comes after everything that was computed from it, so nothing more is added in this pass.
            for hook in tuple(tensor._gradient_hooks.values()) if tensor._gradient_hooks else ():
                hook(tensor)
            continue
        for parent, dx in zip(node.parents, node.pullback(dy)):
            if parent is not None and dx is not None:
                before = gradients.get(id(parent))
                gradients[id(parent)] = dx if before is None else before + dx
        if not retain_graph:
            node.pullback, node.parents = None, ()
