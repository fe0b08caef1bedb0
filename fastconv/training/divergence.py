"""Where a loss that is no number comes from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices import as_array, is_array
from ..distributed import SingleProcess, world
from ..elements import is_floating
from ..nn.modules.calling import convert_leaves, plain
from ..nn.modules.module import Module
from ..nn.modules.sync_batch_norm import SyncBatchNorm
from ..random import get_rng_state, set_rng_state
from ..tape import no_grad
from ..tensor import Tensor

__all__ = ["is_finite", "origin"]


def is_finite(value: Any) -> bool:
    """Whether all floating arrays in `value` are free of NaN and infinity."""
    found = []

    def look(leaf: Any) -> Any:
        array = plain(leaf)
        if is_array(array) and is_floating(array.dtype):
            found.append(bool(np.isfinite(array).all()))
        return leaf

    convert_leaves(look, value)
    return all(found)


def origin(model: Module, images: Any, rng: dict[str, Any]) -> str:
    """In words, where the first value that is not finite came from in a training step over `images`.

    `rng` is the state of the random generator before the step. The forward pass is run again with hooks; buffers and
    generator are left as they were.
    """
    if not is_finite(images):
        return "the images: they hold NaN or infinity"
    broken = [name for name, parameter in model.named_parameters() if not is_finite(parameter)]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        return f"the update of the step before: parameter {broken[0]!r}{more} is not finite"
    found: list[str] = []
    handles = []

    def watch(name: str) -> Any:
        def hook(layer: Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not found and not is_finite(output):
                place = f"layer {name!r} ({type(layer).__name__})"
                found.append(place if is_finite(inputs) else f"the input of {place}")

        return hook

    for name, layer in model.named_modules():
        if not any(True for _ in layer.children()):
            handles.append(layer.register_forward_hook(watch(name)))
    # Layers that ask other processes for their statistics would wait for them for ever: only this one looks back.
    grouped = [(layer, layer.process_group) for layer in model.modules() if isinstance(layer, SyncBatchNorm)]
    for synchronised, _ in grouped:
        synchronised.process_group = SingleProcess()
    buffers = [(buffer, buffer.copy()) for buffer in model.buffers()]
    after = get_rng_state()
    set_rng_state(rng)
    try:
        with no_grad(), np.errstate(all="ignore"):
            model(Tensor(as_array(plain(images))))
    finally:
        set_rng_state(after)
        for handle in handles:
            handle.remove()
        for synchronised, group in grouped:
            synchronised.process_group = group
        for buffer, before in buffers:
            buffer[...] = before
    if found:
        return found[0]
    if any((group or world()).size > 1 for _, group in grouped):
        return "the part of the batch of another rank, or the loss function: the network is finite on this one"
    return "the loss function: the network's output is finite"
