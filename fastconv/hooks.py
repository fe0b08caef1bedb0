"""Functions that users hang onto modules and Tensors, called in the order of registration; handles to remove them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["HookHandle", "register_hook"]


class HookHandle:
    """Removes the hook that ``register_forward_hook`` or ``register_post_accumulate_grad_hook`` has installed.

    A ``with`` block removes it at its end.
    """

    def __init__(self, hooks: dict[int, Callable[..., Any]], key: int) -> None:
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Take the hook out; a second call does nothing."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def register_hook(hooks: dict[int, Any], hook: Any, prepend: bool = False) -> HookHandle:
    """Append `hook` to `hooks`, or put it before them; TypeError where it cannot be called."""
    if not callable(hook):
        raise TypeError(f"hook must be callable, got {hook!r}")
    key = max(hooks, default=-1) + 1
    others = dict(hooks) if prepend else {}
    if prepend:
        hooks.clear()
    hooks[key] = hook
    hooks.update(others)
    return HookHandle(hooks, key)
