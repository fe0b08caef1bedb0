"""Memory layouts: channels-first is C order, channels-last has the channels innermost. Source: torch.memory_format."""

from __future__ import annotations

import numpy as np

from . import checks


def layout_forward(x: np.ndarray, channels_last: bool) -> np.ndarray:
    """The values of x (N, C, ...) in this layout; x itself where it has it.

    >>> layout_forward(np.zeros((1, 2, 3, 3)), True).strides
    (144, 8, 48, 16)
    """
    array = checks.array("input", x)
    if array.ndim < 2:
        raise ValueError(f"input must have at least two dimensions (N, C, ...), got {array.ndim}")
    if not checks.flag("channels_last", channels_last):
        return x if array.flags.c_contiguous else np.ascontiguousarray(array)
    moved = np.moveaxis(array, 1, -1)
    return x if moved.flags.c_contiguous else np.moveaxis(np.ascontiguousarray(moved), -1, 1)
