"""The hooks of a Module: functions that see what goes through it, and the gradients that come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastconv.devices import array_module
from fastconv.hooks import HookHandle, register_hook
from fastconv.nn.modules.pending import close_held, open_held
from fastconv.tape import mode
from fastconv.tensor import Tensor, record

if TYPE_CHECKING:
    from .module import Module


class Hooked:
    """How hooks are hung onto a Module."""

    _forward_hooks: dict[int, Callable[..., Any]]
    _forward_pre_hooks: dict[int, Callable[..., Any]]
    _backward_hooks: dict[int, Callable[..., Any]]

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call ``hook(module, inputs, output)`` after every forward; a result other than None replaces the output.

        Parameters
        ----------
        hook : callable
        prepend : bool, keyword only
            Before the hooks that there are, not after them.
        with_kwargs : bool, keyword only
            Call ``hook(module, inputs, kwargs, output)``, with the keyword arguments of the call.

        Returns
        -------
        HookHandle
            Its ``remove()`` takes the hook out, as does the end of a ``with`` block.

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
        return register_hook(self._forward_hooks, _taking(hook, with_kwargs), prepend)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call ``hook(module, inputs)`` before every forward; a result other than None replaces the inputs.

        `prepend` and `with_kwargs` as in :meth:`register_forward_hook`: ``hook(module, inputs, kwargs)``, which may
        give a tuple of both in their place.

        Examples
        --------
        >>> import numpy as np
        >>> import fastconv.nn as nn
        >>> layer = nn.ReLU()
        >>> handle = layer.register_forward_pre_hook(lambda module, inputs: (-inputs[0],))
        >>> layer(np.array([-1.0, 2.0], np.float32))
        array([1., 0.], dtype=float32)
        """
        return register_hook(self._forward_pre_hooks, _taking(hook, with_kwargs), prepend)

    def register_full_backward_hook(
        self, hook: Callable[[Module, tuple[Any, ...], tuple[Any, ...]], Any], prepend: bool = False
    ) -> HookHandle:
        """Call ``hook(module, grad_input, grad_output)`` in every backward pass through the module.

        As torch.nn.Module.register_full_backward_hook; the gradients are arrays, in tuples with one entry for each
        positional input and for each output, None where there is none, zeros for an input that was not used. What the
        hook returns other than None takes the place of `grad_input`.

        Raises
        ------
        ValueError
            In the pass: a replacement that does not fit.

        Examples
        --------
        >>> import numpy as np, fastconv as fc, fastconv.nn as nn
        >>> layer = nn.ReLU()
        >>> handle = layer.register_full_backward_hook(lambda module, grad_input, grad_output: print(grad_input[0]))
        >>> layer(fc.tensor([-1.0, 2.0], requires_grad=True)).sum().backward()
        [0. 1.]
        >>> handle.remove()
        """
        return register_hook(self._backward_hooks, hook, prepend)


def _taking(hook: Any, with_kwargs: bool) -> Any:
    return WithKeywords(hook) if with_kwargs and callable(hook) else hook


class WithKeywords(NamedTuple):
    """A hook that takes the keyword arguments of the call, too."""

    hook: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.hook(*arguments)


def call_before(
    module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that the hooks before forward make of `args` and `kwargs`."""
    holders, args = open_held(args)
    for hook in tuple(module._forward_pre_hooks.values()):
        if isinstance(hook, WithKeywords):
            given = hook(module, args, kwargs)
            if given is None:
                continue
            if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], dict)):
                raise ValueError(f"a hook with keywords must return None or a tuple (args, kwargs), got {given!r}")
            inputs, kwargs = given
        else:
            inputs = hook(module, args)
        if inputs is not None:
            args = inputs if isinstance(inputs, tuple) else (inputs,)
    return close_held(holders, args), kwargs


def call_after(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """What the hooks after forward make of `output`."""
    args = open_held(args)[1]
    holders, (output,) = open_held((output,))
    for hook in tuple(module._forward_hooks.values()):
        given = hook(module, args, *([kwargs] if isinstance(hook, WithKeywords) else []), output)
        if given is not None:
            output = given
    return close_held(holders, (output,))[0]


class GradientWatch:
    """One call of a module on the tape: inputs and outputs pass through here, and their gradients on the way back.

    All of them are recorded as computed from one more value, the gate, which is computed from the inputs: the walk back
    reaches it once, when all gradients of the outputs have come and all that will come of the inputs.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.inputs: tuple[Any, ...] = ()  # shape and type of those that need a gradient, None for the others
        self.outputs = 0
        self.before: dict[int, Any] = {}  # the gradients that have come
        self.after: dict[int, Any] = {}
        self.gate: Any = None

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs, recorded once more."""
        holders, args = open_held(args)
        needed = [isinstance(x, Tensor) and x.requires_grad and mode.enabled for x in args]
        self.inputs = tuple((x.shape, x.dtype) if need else None for x, need in zip(args, needed))
        self.gate = record(np.zeros(0), [x for x, need in zip(args, needed) if need], lambda _: self._call())
        passed = tuple(self._pass(x, i, self.before) if need else x for i, (x, need) in enumerate(zip(args, needed)))
        return close_held(holders, passed)

    def leave(self, output: Any) -> Any:
        """The output or outputs, recorded once more."""
        several = isinstance(output, tuple | list)
        holders, opened = open_held(tuple(output) if several else (output,))
        entries = list(opened)
        self.outputs = len(entries)
        for i, y in enumerate(entries):
            if isinstance(y, Tensor) and y.requires_grad and mode.enabled:
                entries[i] = self._pass(y, i, self.after, y)
        entries = list(close_held(holders, tuple(entries)))
        if not several:
            return entries[0]
        return output._make(entries) if hasattr(output, "_make") else type(output)(entries)

    def _pass(self, x: Tensor, i: int, gradients: dict[int, Any], *source: Tensor) -> Tensor:
        """`x`, whose gradient is kept and goes on to its `source`."""

        def pull(dy: Any) -> list[Any]:
            gradients[i] = dy
            return [*(dy for _ in source), np.zeros(0)]

        return record(x.data, [*source, self.gate], pull)

    def _call(self) -> list[Any]:
        """Run the hooks; the gradients of the inputs that need one."""
        library = array_module(next(iter((self.after or self.before).values())))
        before: tuple[Any, ...] = tuple(
            known and self.before.get(i, library.zeros(*known)) for i, known in enumerate(self.inputs)
        )
        after = tuple(self.after.get(i) for i in range(self.outputs))
        self.before.clear()  # the record may be played back again
        self.after.clear()
        for hook in tuple(self.module._backward_hooks.values()):
            given = hook(self.module, before, after)
            if given is not None:
                before = self._replaced(given if isinstance(given, tuple) else (given,))
        return [dx for dx, known in zip(before, self.inputs) if known]

    def _replaced(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """The gradients of the inputs that a hook gave, which must be of the inputs' shapes."""
        if len(given) != len(self.inputs):
            raise ValueError(f"a hook must return {len(self.inputs)} gradients like grad_input, got {len(given)}")
        for i, (dx, known) in enumerate(zip(given, self.inputs)):
            if known and getattr(dx, "shape", None) != known[0]:
                raise ValueError(
                    f"a hook must return {len(given)} gradients like grad_input, for input {i} of shape {known[0]}, "
                    f"got one of shape {getattr(dx, 'shape', None)}"
                )
        return tuple(dx.astype(known[1], copy=False) if known else None for dx, known in zip(given, self.inputs))
