"""Finding a layer by its dotted name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastconv.nn.modules.module import Module

__all__ = ["find_layer"]


def find_layer(model: Module, name: str) -> Module:
    """The module below `model` with this dotted name; a ValueError lists the nearest names where there is none."""
    if not isinstance(name, str):
        raise TypeError(f"layer must be the name of a layer, a string; got {type(name).__name__}")
    layers = dict(model.named_modules(remove_duplicate=False))
    if name not in layers:
        stem = name.rpartition(".")[0]
        near = [n for n in layers if n and n.rpartition(".")[0] == stem] or [n for n, _ in model.named_children()]
        raise ValueError(
            f"layer must name a layer of {type(model).__name__}, got {name!r}; there are {', '.join(near)}"
        )
    return layers[name]
