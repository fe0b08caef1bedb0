"""Values inside tuples, lists and dictionaries, as the arguments and results of a network hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["any_leaf", "convert_leaves"]


def convert_leaves(convert: Callable[[Any], Any], value: Any) -> Any:
    """`value` with `convert` applied to what lies in its tuples, lists and dictionaries."""
    if isinstance(value, tuple):
        entries = [convert_leaves(convert, entry) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    if isinstance(value, list):
        return [convert_leaves(convert, entry) for entry in value]
    if isinstance(value, dict):
        return {key: convert_leaves(convert, entry) for key, entry in value.items()}
    return convert(value)


def any_leaf(test: Callable[[Any], bool], value: Any) -> bool:
    """Whether `test` is true of `value`, or of anything that lies in its tuples, lists and dictionaries."""
    if isinstance(value, (tuple, list)):
        return any(any_leaf(test, entry) for entry in value)
    if isinstance(value, dict):
        return any(any_leaf(test, entry) for entry in value.values())
    return test(value)
