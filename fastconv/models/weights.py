"""The argument ``weights`` of the functions that build networks."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastconv.nn.init import skip_init
from fastconv.nn.modules.module import Module

__all__ = ["takes_weights"]

M = TypeVar("M", bound=Module)


def takes_weights(build: Callable[..., M]) -> Callable[..., M]:
    """Give a function that builds a network the keyword ``weights``: None, a file of weights, or a state.

    Raises
    ------
    ValueError
        At the call: a file of another kind, or weights of another network, with all that differs.
    TypeError
        At the call: `weights` is something else.

    Examples
    --------
    >>> from fastconv import models
    >>> state = models.resnet18(num_classes=3).state_dict()
    >>> net = models.resnet18(weights=state, num_classes=3)
    >>> bool((net.fc.weight.data == state["fc.weight"]).all())
    True
    """

    @functools.wraps(build)
    def with_weights(*args: Any, weights: Any = None, **options: Any) -> M:
        if weights is None:
            return build(*args, **options)
        state = _state(weights)
        with skip_init():
            net = build(*args, **options)
        net.load_state_dict(state)
        return net

    signature = inspect.signature(build)
    *usual, last = signature.parameters.values()
    keyword = inspect.Parameter("weights", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Any")
    ordered = [*usual, keyword, last] if last.kind is inspect.Parameter.VAR_KEYWORD else [*usual, last, keyword]
    with_weights.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
    return with_weights


def _state(weights: Any) -> Mapping[str, Any]:
    if isinstance(weights, Mapping):
        return weights
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(f"weights must be None, a file or a state_dict, got {type(weights).__name__}")
    if not os.fspath(weights).endswith((".safetensors", ".npz")):
        raise ValueError(f"weights must be a file .safetensors or .npz (nothing is downloaded), got {weights!r}")
    from fastconv.serialization import load

    return load(weights)
