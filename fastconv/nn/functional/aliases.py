"""Activations that overwrite their input, by torch's names for them."""

from __future__ import annotations

from typing import Any

from ...differentiable import Differentiable
from .activation import hardtanh, leaky_relu, relu
from .piecewise_activation import rrelu, threshold
from .smooth_activation import celu, elu, selu


def _in_place(function: Any, options: str, arguments: str = "") -> Differentiable[..., Any]:
    """`function` with ``inplace=True``; `options` and `arguments`: what it takes after the input, for its docstring."""
    name = function.__name__

    def call(input: Any, *args: Any, **named: Any) -> Any:
        return function(input, *args, **named, inplace=True)

    def vjp(*args: Any, **named: Any) -> Any:
        return function.vjp(*args, **named)

    call.__name__ = call.__qualname__ = f"{name}_"
    call.__doc__ = f"""`{name}` with ``inplace=True``, as torch.nn.functional.{name}_.

    Parameters
    ----------
    input : array of any shape
        Overwritten with the result, but for a Tensor.
{options}
    Returns
    -------
    array
        `input`; for a Tensor another Tensor.

    Raises
    ------
    ValueError, TypeError
        As `{name}`; a read-only array.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> x = np.array([-1.0, 2.0])
    >>> F.{name}_(x{arguments}) is x
    True
    """
    vjp.__doc__ = f"Output and pullback of `{name}_`: those of `{name}`, nothing is overwritten."
    attached: Any = call
    attached.vjp, attached.spec = vjp, function.spec
    return attached


def _as(names: str, function: str) -> str:
    return f"    {names}\n        As for `{function}`.\n"


relu_ = _in_place(relu, "")
elu_ = _in_place(elu, _as("alpha", "elu"))
celu_ = _in_place(celu, _as("alpha", "celu"))
selu_ = _in_place(selu, "")
leaky_relu_ = _in_place(leaky_relu, _as("negative_slope", "leaky_relu"))
hardtanh_ = _in_place(hardtanh, _as("min_val, max_val", "hardtanh"))
rrelu_ = _in_place(rrelu, _as("lower, upper, training, rng", "rrelu"))
threshold_ = _in_place(threshold, _as("threshold, value", "threshold"), ", 0.5, 0.0")
