"""Activation layers beyond those that have kernels: smooth ones, hard ones, shrinkage, random slopes, gates."""

from __future__ import annotations

from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import choice, number, size
from fastconv.nn.modules.module import Module

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "LogSigmoid",
    "Mish",
    "RReLU",
    "SiLU",
    "Softmax2d",
    "Softmin",
    "Softshrink",
    "Softsign",
    "Tanhshrink",
    "Threshold",
]


class ELU(Module):
    """x where x > 0, alpha * (exp(x) - 1) elsewhere.

    Parameters
    ----------
    alpha : float
        Minus the limit far below 0.
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Clevert et al. 2016. Source: torch.nn.ELU; ONNX Elu.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ELU()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-0.6321,  2.    ], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = number("alpha", alpha)
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class SELU(Module):
    """ELU scaled so that zero mean and unit variance are kept.

    Parameters
    ----------
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Klambauer et al. 2017. Source: torch.nn.SELU; ONNX Selu.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.SELU()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-1.1113,  2.1014], dtype=float32)
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.selu(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class CELU(Module):
    """x where x > 0, alpha * (exp(x / alpha) - 1) elsewhere.

    Parameters
    ----------
    alpha : float
        Minus the limit far below 0; not 0.
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Barron 2017. Source: torch.nn.CELU; ONNX Celu.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.CELU(0.5)(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-0.4323,  2.    ], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = number("alpha", alpha)
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.celu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class GELU(Module):
    """x times the share of a normal distribution below x.

    Parameters
    ----------
    approximate : str
        "none", or "tanh" for the formula without an error function.

    Notes
    -----
    Hendrycks & Gimpel 2016. Source: torch.nn.GELU; ONNX Gelu.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.GELU()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-0.1587,  1.9545], dtype=float32)
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = choice("approximate", approximate, ("none", "tanh"))

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x * sigmoid(x), also known as swish.

    Parameters
    ----------
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Elfwing et al. 2018. Source: torch.nn.SiLU; ONNX Swish.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.SiLU()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-0.2689,  1.7616], dtype=float32)
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.silu(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Mish(Module):
    """x * tanh(softplus(x)).

    Parameters
    ----------
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Misra 2019. Source: torch.nn.Mish; ONNX Mish.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Mish()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-0.3034,  1.944 ], dtype=float32)
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.mish(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Hardsigmoid(Module):
    """min(max(x + 3, 0), 6) / 6.

    Parameters
    ----------
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Howard et al. 2019. Source: torch.nn.Hardsigmoid; ONNX HardSigmoid.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Hardsigmoid()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([0.3333, 0.8333], dtype=float32)
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.hardsigmoid(input, self.inplace)


class Hardswish(Module):
    """x * min(max(x + 3, 0), 6) / 6.

    Parameters
    ----------
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Howard et al. 2019. Source: torch.nn.Hardswish; ONNX HardSwish.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Hardswish()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-0.3333,  1.6667], dtype=float32)
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.hardswish(input, self.inplace)


class Hardshrink(Module):
    """x where abs(x) > lambd, 0 elsewhere.

    Parameters
    ----------
    lambd : float
        The limit.

    Notes
    -----
    Source: torch.nn.Hardshrink; ONNX Shrink.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Hardshrink(1.5)(np.array([-1.0, 2.0], np.float32)).round(4)
    array([0., 2.], dtype=float32)
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = number("lambd", lambd)

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Softshrink(Module):
    """x moved towards 0 by lambd, at most to 0.

    Parameters
    ----------
    lambd : float
        How far; not negative.

    Notes
    -----
    Source: torch.nn.Softshrink; ONNX Shrink.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Softshrink()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-0.5,  1.5], dtype=float32)
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = number("lambd", lambd)

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Tanhshrink(Module):
    """x - tanh(x).

    Notes
    -----
    Source: torch.nn.Tanhshrink.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Tanhshrink()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-0.2384,  1.036 ], dtype=float32)
    """

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.tanhshrink(input)


class Softsign(Module):
    """x / (1 + abs(x)).

    Notes
    -----
    Source: torch.nn.Softsign; ONNX Softsign.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Softsign()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-0.5   ,  0.6667], dtype=float32)
    """

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.softsign(input)


class LogSigmoid(Module):
    """log(sigmoid(x)), computed without overflow.

    Notes
    -----
    Source: torch.nn.LogSigmoid.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LogSigmoid()(np.array([-1.0, 2.0], np.float32)).round(4)
    array([-1.3133, -0.1269], dtype=float32)
    """

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.logsigmoid(input)


class Threshold(Module):
    """x where x > threshold, value elsewhere.

    Parameters
    ----------
    threshold : float
        The limit.
    value : float
        What smaller elements become.
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Source: torch.nn.Threshold.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Threshold(0.5, 9.0)(np.array([-1.0, 2.0], np.float32)).round(4)
    array([9., 2.], dtype=float32)
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = number("threshold", threshold)
        self.value = number("value", value)
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}" + (", inplace=True" if self.inplace else "")


class RReLU(Module):
    """x where x > 0, elsewhere x times a slope, drawn anew for each element in training mode.

    Parameters
    ----------
    lower : float
        Least slope.
    upper : float
        Largest slope; evaluation mode takes the middle of both.
    inplace : bool
        Whether to write into the input's memory.

    Notes
    -----
    Random numbers come from the generator that :func:`fastconv.manual_seed` seeds. Xu et al. 2015.
    Source: torch.nn.RReLU.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.RReLU(0.25, 0.75).eval()(np.array([-1.0, 2.0], np.float32))
    array([-0.5,  2. ], dtype=float32)
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = number("lower", lower)
        self.upper = number("upper", upper)
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class GLU(Module):
    """The first half of the input along a dimension times the sigmoid of the second half.

    Parameters
    ----------
    dim : int
        The dimension, of even size.

    Notes
    -----
    Dauphin et al. 2017. Source: torch.nn.GLU.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.GLU()(np.array([3.0, 4.0, 0.0, np.inf], np.float32))
    array([1.5, 4. ], dtype=float32)
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = size("dim", dim, -(2**63))

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmin(Module):
    """exp(-x) divided by its sum over a dimension.

    Parameters
    ----------
    dim : int or None
        The dimension that sums to 1.

    Notes
    -----
    Source: torch.nn.Softmin.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Softmin(dim=0)(np.array([0.0, 0.0, np.inf], np.float32))
    array([0.5, 0.5, 0. ], dtype=float32)
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        return F.softmin(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax2d(Module):
    """Softmax over the channels at each place of an image.

    Raises
    ------
    ValueError
        At the call: an input that is neither (N, C, H, W) nor (C, H, W).

    Notes
    -----
    Source: torch.nn.Softmax2d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Softmax2d()(np.zeros((1, 4, 1, 1), np.float32)).ravel()
    array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """

    def forward(self, input: Any) -> Any:
        """Apply the activation."""
        if len(input.shape) not in (3, 4):
            raise ValueError(f"input must be (N, C, H, W) or (C, H, W), got shape {tuple(input.shape)}")
        return F.softmax(input, -3)
