"""How the networks draw their first weights: layer by layer, once, after they were built inside `skip_init`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import fastconv.nn as nn

__all__ = ["he_fan_in", "he_fan_out", "initialize", "normal"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

he_fan_in = functools.partial(nn.init.kaiming_normal_, nonlinearity="relu")
he_fan_out = functools.partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")


def normal(std: float) -> Callable[[Any], Any]:
    """Initialiser N(0, std)."""
    return functools.partial(nn.init.normal_, std=std)


def initialize(net: nn.Module, conv: Callable[[Any], Any], linear: Callable[[Any], Any] | None = None) -> None:
    """Draw the weights of all convolutions with `conv` and of all linear layers with `linear`; their biases are zero.

    None leaves linear layers as torch draws them. Normalisation layers start as 1 and 0 on their own.
    """
    for module in net.modules():
        if isinstance(module, _CONVOLUTIONS):
            conv(module.weight)
        elif isinstance(module, nn.Linear) and linear is not None:
            linear(module.weight)
        elif isinstance(module, nn.Linear):
            module.reset_parameters()
            continue
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
