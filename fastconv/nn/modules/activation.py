"""Activation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv.nn.init import constant_
from fastconv.nn.modules.arguments import floating_dtype, number, operands, size
from fastconv.nn.modules.module import Module
from fastconv.tensor import Parameter

__all__ = [
    "Hardtanh",
    "LeakyReLU",
    "LogSoftmax",
    "PReLU",
    "ReLU",
    "ReLU6",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


class ReLU(Module):
    """max(0, x) elementwise, for an input of any shape.

    Parameters
    ----------
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    NaN stays NaN. Source: torch.nn.ReLU; ONNX Relu.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReLU()(np.array([-1.0, 2.0], np.float32))
    array([0., 2.], dtype=float32)
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.relu(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Hardtanh(Module):
    """min(max(x, min_val), max_val) elementwise, for an input of any shape.

    Parameters
    ----------
    min_val, max_val : float
        The limits; `max_val` above `min_val`.
    inplace : bool
        Whether to write into the input's memory.

    Raises
    ------
    ValueError
        `max_val` is not above `min_val`.

    Notes
    -----
    Source: torch.nn.Hardtanh; ONNX Clip.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Hardtanh()(np.array([-3.0, 0.5, 2.0], np.float32))
    array([-1. ,  0.5,  1. ], dtype=float32)
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if not number("max_val", max_val) > number("min_val", min_val):
            raise ValueError(f"max_val must be above min_val, got min_val={min_val}, max_val={max_val}")
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.hardtanh(input, self.min_val, self.max_val, inplace=self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class ReLU6(Hardtanh):
    """min(max(0, x), 6) elementwise, for an input of any shape.

    Parameters
    ----------
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Source: torch.nn.ReLU6.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReLU6()(np.array([-1.0, 2.0, 9.0], np.float32))
    array([0., 2., 6.], dtype=float32)
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.relu6(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """x where x > 0, negative_slope * x elsewhere, for an input of any shape.

    Parameters
    ----------
    negative_slope : float
        Slope for negative values.
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Source: torch.nn.LeakyReLU; ONNX LeakyRelu.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LeakyReLU(0.5)(np.array([-1.0, 2.0], np.float32))
    array([-0.5,  2. ], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = number("negative_slope", negative_slope)
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.leaky_relu(input, self.negative_slope, inplace=self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """x where x > 0, weight * x elsewhere, with a learned slope.

    Parameters
    ----------
    num_parameters : int
        1, or the number of channels (dimension 1 of the input).
    init : float
        First value of the slopes.
    device : str or int, keyword only
        Where its parameters lie: ``"cpu"`` (the default), ``"cuda"``, ``"cuda:N"`` or N.
    dtype : dtype-like, keyword only
        Of the parameter; float32 by default.

    Attributes
    ----------
    weight : Parameter
        (num_parameters,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    He et al. 2015. Source: torch.nn.PReLU; ONNX PRelu.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.PReLU()(np.array([[-1.0, 2.0]], np.float32))
    array([[-0.25,  2.  ]], dtype=float32)
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = size("num_parameters", num_parameters, 1)
        self.init = number("init", init)
        self.weight = Parameter(np.empty(num_parameters, floating_dtype(dtype)))
        self.reset_parameters()
        self.to(device=device)

    def reset_parameters(self) -> None:
        """Set all slopes to `init`."""
        constant_(self.weight, self.init)

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.prelu(input, *operands(input, self.weight))

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Sigmoid(Module):
    """1 / (1 + exp(-x)) elementwise, for an input of any shape.

    Notes
    -----
    Source: torch.nn.Sigmoid; ONNX Sigmoid.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Sigmoid()(np.zeros(2, np.float32))
    array([0.5, 0.5], dtype=float32)
    """

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.sigmoid(input)


class Tanh(Module):
    """Hyperbolic tangent elementwise, for an input of any shape.

    Notes
    -----
    Source: torch.nn.Tanh; ONNX Tanh.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Tanh()(np.zeros(2, np.float32))
    array([0., 0.], dtype=float32)
    """

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.tanh(input)


class Softplus(Module):
    """log(1 + exp(beta * x)) / beta elementwise, for an input of any shape.

    Parameters
    ----------
    beta : float
        Sharpness.
    threshold : float
        The function is x itself where beta * x exceeds this.

    Notes
    -----
    Source: torch.nn.Softplus; ONNX Softplus.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Softplus()(np.array([0.0, 30.0], np.float32)).round(4)
    array([ 0.6931, 30.    ], dtype=float32)
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = number("beta", beta)
        self.threshold = number("threshold", threshold)

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """exp(x) divided by its sum over a dimension.

    Parameters
    ----------
    dim : int
        The dimension that sums to 1.

    Notes
    -----
    Source: torch.nn.Softmax; ONNX Softmax.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Softmax(dim=1)(np.zeros((1, 4), np.float32))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """Logarithm of :class:`Softmax`, computed without overflow.

    Parameters
    ----------
    dim : int
        The dimension whose exponentials sum to 1.

    Notes
    -----
    Source: torch.nn.LogSoftmax; ONNX LogSoftmax.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LogSoftmax(dim=1)(np.zeros((1, 2), np.float32)).round(4)
    array([[-0.6931, -0.6931]], dtype=float32)
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
