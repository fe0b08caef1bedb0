"""The hooks of a Module: functions that see what goes through it, and the gradients that come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastconv.hooks import HookHandle, register_hook
from fastconv.tape import mode
from fastconv.tensor import Tensor, record

if TYPE_CHECKING:
    from .module import Module


class Hooked:
    """How hooks are hung onto a Module."""

    _forward_hooks: dict[int, Callable[..., Any]]
    _forward_pre_hooks: dict[int, Callable[..., Any]]
    _backward_hooks: dict[int, Callable[..., Any]]

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> HookHandle:
        """Call ``hook(module, inputs, output)`` after every forward; a result other than None replaces the output.

        Returns
        -------
        HookHandle
            Its ``remove()`` takes the hook out.

        Examples
        --------
        >>> import numpy as np
        >>> import fastconv.nn as nn
        >>> layer = nn.ReLU()
        >>> handle = layer.register_forward_hook(lambda module, inputs, output: print(output.shape))
        >>> _ = layer(np.zeros((2, 3), np.float32))
        (2, 3)
        >>> handle.remove()
        """
        return register_hook(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> HookHandle:
        """Call ``hook(module, inputs)`` before every forward; a result other than None replaces the inputs.

        Examples
        --------
        >>> import numpy as np
        >>> import fastconv.nn as nn
        >>> layer = nn.ReLU()
        >>> handle = layer.register_forward_pre_hook(lambda module, inputs: (-inputs[0],))
        >>> layer(np.array([-1.0, 2.0], np.float32))
        array([1., 0.], dtype=float32)
        """
        return register_hook(self._forward_pre_hooks, hook)

    def register_full_backward_hook(
        self, hook: Callable[[Module, tuple[Any, ...], tuple[Any, ...]], Any]
    ) -> HookHandle:
        """Call ``hook(module, grad_input, grad_output)`` in every backward pass through the module.

        As torch.nn.Module.register_full_backward_hook; the gradients are arrays, in tuples with one entry for each
        positional input and for each output, None where there is none. What the hook returns other than None takes the
        place of `grad_input`.

        Raises
        ------
        ValueError
            In the pass: a replacement that does not fit, or one for a module of several inputs that need gradients.

        Examples
        --------
        >>> import numpy as np, fastconv as fc, fastconv.nn as nn
        >>> layer = nn.ReLU()
        >>> handle = layer.register_full_backward_hook(lambda module, grad_input, grad_output: print(grad_input[0]))
        >>> layer(fc.tensor([-1.0, 2.0], requires_grad=True)).sum().backward()
        [0. 1.]
        >>> handle.remove()
        """
        return register_hook(self._backward_hooks, hook)


class GradientWatch:
    """One call of a module on the tape: inputs and outputs pass through here, and their gradients on the way back."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.expected: set[int] = set()  # inputs that need a gradient
        self.before: dict[int, Any] = {}  # the gradients that have come
        self.after: dict[int, Any] = {}
        self.inputs = self.outputs = 0

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs, recorded once more."""
        self.inputs = len(args)
        self.expected = {i for i, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad and mode.enabled}
        return tuple(self._pass(x, i, self._reached) if i in self.expected else x for i, x in enumerate(args))

    def leave(self, output: Any) -> Any:
        """The output or outputs, recorded once more."""
        several = isinstance(output, tuple | list)
        entries = list(output) if several else [output]
        self.outputs = len(entries)
        for i, y in enumerate(entries):
            if isinstance(y, Tensor) and y.requires_grad and mode.enabled:
                entries[i] = self._pass(y, i, self._began)
        if not several:
            return entries[0]
        return output._make(entries) if hasattr(output, "_make") else type(output)(entries)

    @staticmethod
    def _pass(x: Tensor, i: int, meet: Callable[[int, Any], Any]) -> Tensor:
        return record(x.data, [x], lambda dy: [meet(i, dy)])

    def _began(self, i: int, dy: Any) -> Any:
        self.after[i] = dy
        if not self.expected:
            self._call()
        return dy

    def _reached(self, i: int, dx: Any) -> Any:
        self.before[i] = dx
        if len(self.before) < len(self.expected):
            return dx
        replaced = self._call()
        return dx if replaced is None else replaced

    def _call(self) -> Any:
        """Run the hooks; the gradient in place of the only input's, or None."""
        before: tuple[Any, ...] = tuple(self.before.get(i) for i in range(self.inputs))
        after = tuple(self.after.get(i) for i in range(self.outputs))
        self.before, self.after = {}, {}  # the record may be played back again
        replaced = None
        for hook in tuple(self.module._backward_hooks.values()):
            given = hook(self.module, before, after)
            if given is None:
                continue
            if len(self.expected) != 1:
                raise ValueError("a hook can replace the gradient of a module with one input that needs one alone")
            (at,) = self.expected
            given = given if isinstance(given, tuple) else (given,)
            shape = getattr(given[at], "shape", None) if len(given) == self.inputs else None
            if shape != before[at].shape:
                raise ValueError(
                    f"a hook must return {self.inputs} gradients like grad_input, that of input {at} of shape "
                    f"{before[at].shape}, got {len(given)}, of shape {shape}"
                )
            replaced = given[at].astype(before[at].dtype, copy=False)
            before = given
        return replaced
