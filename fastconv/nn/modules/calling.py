"""Ways to call a module: a user's forward on plain arrays (it sees Tensors, nothing is recorded), evaluation mode."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fastconv.devices import is_array
from fastconv.leaves import any_leaf, convert_leaves
from fastconv.nn.modules.pending import convert_held
from fastconv.tape import no_grad
from fastconv.tensor import Tensor

if TYPE_CHECKING:
    from fastconv.nn.modules.module import Module

__all__ = ["call_with_tensors", "convert_leaves", "evaluation_mode", "holds_tensor", "note_layer", "plain"]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def holds_tensor(value: Any) -> bool:
    """Whether `value` is a Tensor, or a tuple, list or dictionary that holds one."""
    return any_leaf(_is_tensor, value)


def plain(value: Any) -> Any:
    """The array of a Tensor, other values as they are."""
    return value.data if isinstance(value, Tensor) else value


def _wrapped(value: Any) -> Any:
    return Tensor(value) if is_array(value) else value


_to_tensor = functools.partial(convert_held, _wrapped)
_to_array = functools.partial(convert_held, plain)


def call_with_tensors(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call `forward` on plain arrays as if they were Tensors, and give plain arrays back.

    A forward in torch's style says ``x.view(x.size(0), -1)``, which an array does not understand. So that what works in
    training works in inference too, a user's forward always meets Tensors; without gradients, they record nothing.
    """
    with no_grad():
        output = forward(*convert_leaves(_to_tensor, args), **convert_leaves(_to_tensor, kwargs))
    return convert_leaves(_to_array, output)


_NOTE = "in layer "


def note_layer(module: Module, args: tuple[Any, ...], error: Exception) -> None:
    """Note in `error`, once, in which layer it arose, and what the layer was given."""
    if any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
        return
    name = (
        repr(module) if type(module).__module__.startswith("fastconv.") and not module._modules else module._get_name()
    )
    inputs = [x for x in args if hasattr(x, "dtype") and hasattr(x, "shape")]
    note = f"{_NOTE}{name}" + "".join(f", {x.dtype} {tuple(x.shape)}" for x in inputs)
    own = sorted({str(p.dtype) for p in module._parameters.values() if p is not None})
    if own and any(getattr(x.dtype, "kind", "") == "f" and str(x.dtype) not in own for x in inputs):
        note += f"; its parameters are {', '.join(own)}: convert the input (astype), or the network (to)"
    error.add_note(note)


@contextlib.contextmanager
def evaluation_mode(module: Module) -> Iterator[None]:
    """Context manager: `module` and all below it in evaluation mode, each in its own mode again afterwards."""
    modes = [(each, each.training) for each in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for each, mode in modes:
            each.training = mode
