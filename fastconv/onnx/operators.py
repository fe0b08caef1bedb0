"""All operators: importing this module fills the tables."""

from __future__ import annotations

from . import (  # noqa: F401
    convolutions,
    elementwise,
    normalizations,
    pooling,
    recurrent,
    reductions,
    resizing,
    shaping,
)
from .node import OPERATORS

__all__ = ["operator_names"]


def operator_names() -> tuple[str, ...]:
    """The ONNX operators that `load` reads, in alphabetical order.

    Examples
    --------
    >>> import fastconv as fc
    >>> "Conv" in fc.onnx.operator_names()
    True
    """
    return tuple(sorted(OPERATORS))
