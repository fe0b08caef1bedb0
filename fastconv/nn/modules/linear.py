"""Linear and bilinear layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv.nn import init
from fastconv.nn.modules.arguments import floating_dtype, operands, size
from fastconv.nn.modules.module import Module
from fastconv.nn.modules.pending import Held
from fastconv.tensor import Parameter, Tensor

__all__ = ["Bilinear", "Linear"]


class Linear(Module):
    """y = x Wᵀ + b.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last dimension of input and output.
    bias : bool
        Whether to add a learned bias.
    device : str or int, keyword only
        Where its parameters lie: ``"cpu"`` (the default), ``"cuda"``, ``"cuda:N"`` or N.
    dtype : dtype-like, keyword only
        Of the parameters; float32 by default.

    Attributes
    ----------
    weight : Parameter
        (out_features, in_features).
    bias : Parameter or None
        (out_features,).

    Raises
    ------
    ValueError, TypeError
        A size is negative or no integer.

    Notes
    -----
    Input (*, in_features), output (*, out_features). Source: torch.nn.Linear; ONNX Gemm.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Linear(3, 2)(np.zeros((5, 3), np.float32)).shape
    (5, 2)
    """

    _takers: tuple[Module, ...] = ()  # set by `fastconv.optimize`: the layers that it does the work of

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.in_features = size("in_features", in_features, 0)
        self.out_features = size("out_features", out_features, 0)
        kind = floating_dtype(dtype)
        self.weight = Parameter(np.zeros((self.out_features, self.in_features), kind))
        if bias:
            self.bias = Parameter(np.zeros(self.out_features, kind))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()
        self.to(device=device)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from U(-b, b), b = 1 / sqrt(in_features)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(max(self.in_features, 1))
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Any:
        """Apply the layer to `input` of shape (*, in_features)."""
        weight, bias = operands(input, self.weight, self.bias)
        y = F.linear(input, weight, bias)
        return Held(y, self._takers) if self._takers else y

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """y = x1ᵀ A x2 + b.

    Parameters
    ----------
    in1_features, in2_features, out_features : int
        Sizes of the last dimensions of both inputs (at least 1) and of the output.
    bias : bool
        Whether to add a learned bias.
    device : str or int, keyword only
        Where its parameters lie: ``"cpu"`` (the default), ``"cuda"``, ``"cuda:N"`` or N.
    dtype : dtype-like, keyword only
        Of the parameters; float32 by default.

    Attributes
    ----------
    weight : Parameter
        (out_features, in1_features, in2_features).
    bias : Parameter or None
        (out_features,).

    Notes
    -----
    Inputs (*, in1_features) and (*, in2_features). Source: torch.nn.Bilinear.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Bilinear(3, 4, 2)(np.zeros((5, 3), np.float32), np.zeros((5, 4), np.float32)).shape
    (5, 2)
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in1_features = size("in1_features", in1_features, 1)
        self.in2_features = size("in2_features", in2_features, 1)
        self.out_features = size("out_features", out_features, 0)
        kind = floating_dtype(dtype)
        self.weight = Parameter(np.zeros((self.out_features, self.in1_features, self.in2_features), kind))
        if bias:
            self.bias = Parameter(np.zeros(self.out_features, kind))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()
        self.to(device=device)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from U(-b, b), b = 1 / sqrt(in1_features)."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Any, input2: Any) -> Any:
        """Apply the layer to inputs of shapes (*, in1_features) and (*, in2_features)."""
        # One recording input is enough for the parameters to take part in the recording.
        weight, bias = operands(input1 if isinstance(input1, Tensor) else input2, self.weight, self.bias)
        return F.bilinear(input1, input2, weight, bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
