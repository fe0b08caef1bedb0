"""Padding layers."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import number, sizes
from fastconv.nn.modules.module import Module

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _Pad(Module):
    _nd: int
    _mode: str

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__()
        self.padding = sizes("padding", padding, 2 * self._nd, -(2**63))

    def forward(self, input: Any) -> Any:
        """Pad `input` of shape (N, C, *S) or (C, *S)."""
        if np.ndim(input) not in (self._nd + 1, self._nd + 2):
            raise ValueError(
                f"input must have {self._nd + 1} or {self._nd + 2} dimensions, got shape {np.shape(input)}"
            )
        return F.pad(input, self.padding, mode=self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    _mode = "constant"

    def __init__(self, padding: int | tuple[int, ...], value: float) -> None:
        super().__init__(padding)
        self.value = number("value", value)

    def forward(self, input: Any) -> Any:
        """Pad the last dimensions of `input`."""
        return F.pad(input, self.padding, mode="constant", value=self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ReflectionPad(_Pad):
    _mode = "reflect"


class _ReplicationPad(_Pad):
    _mode = "replicate"


class _CircularPad(_Pad):
    _mode = "circular"


class CircularPad1d(_CircularPad):
    """Pads a sequence with the elements of the other end.

    Parameters
    ----------
    padding : int or tuple of 2 int
        (left, right), or one size for all. At least 0 and at most the size of the input.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.CircularPad1d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.CircularPad1d((1, 2))(np.array([[[1.0, 2.0, 3.0]]], np.float32))
    array([[[3., 1., 2., 3., 1., 2.]]], dtype=float32)
    """

    _nd = 1


class CircularPad2d(_CircularPad):
    """Pads an image with the elements of the other end.

    Parameters
    ----------
    padding : int or tuple of 4 int
        (left, right, top, bottom), or one size for all. At least 0 and at most the size of the input.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.CircularPad2d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.CircularPad2d((1, 1, 2, 0))(np.zeros((1, 1, 3, 3), np.float32)).shape
    (1, 1, 5, 5)
    """

    _nd = 2


class CircularPad3d(_CircularPad):
    """Pads a volume with the elements of the other end.

    Parameters
    ----------
    padding : int or tuple of 6 int
        (left, right, top, bottom, front, back), or one size for all. At least 0 and at most the size of the input.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.CircularPad3d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.CircularPad3d(1)(np.zeros((1, 1, 2, 3, 4), np.float32)).shape
    (1, 1, 4, 5, 6)
    """

    _nd = 3


class ConstantPad1d(_ConstantPad):
    """Pads a sequence with a constant.

    Parameters
    ----------
    padding : int or tuple of 2 int
        (left, right), or one size for all. Negative entries crop.
    value : float
        The constant.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ConstantPad1d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ConstantPad1d((1, 2), 7.0)(np.array([[[1.0, 2.0, 3.0]]], np.float32))
    array([[[7., 1., 2., 3., 7., 7.]]], dtype=float32)
    """

    _nd = 1


class ConstantPad2d(_ConstantPad):
    """Pads an image with a constant.

    Parameters
    ----------
    padding : int or tuple of 4 int
        (left, right, top, bottom), or one size for all. Negative entries crop.
    value : float
        The constant.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ConstantPad2d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ConstantPad2d((1, 1, 2, 0), 7.0)(np.zeros((1, 1, 3, 3), np.float32)).shape
    (1, 1, 5, 5)
    """

    _nd = 2


class ConstantPad3d(_ConstantPad):
    """Pads a volume with a constant.

    Parameters
    ----------
    padding : int or tuple of 6 int
        (left, right, top, bottom, front, back), or one size for all. Negative entries crop.
    value : float
        The constant.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ConstantPad3d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ConstantPad3d(1, 7.0)(np.zeros((1, 1, 2, 3, 4), np.float32)).shape
    (1, 1, 4, 5, 6)
    """

    _nd = 3


class ReflectionPad1d(_ReflectionPad):
    """Pads a sequence with the mirror image of the elements, the edge not repeated.

    Parameters
    ----------
    padding : int or tuple of 2 int
        (left, right), or one size for all. At least 0 and less than the size of the input.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ReflectionPad1d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReflectionPad1d((1, 2))(np.array([[[1.0, 2.0, 3.0]]], np.float32))
    array([[[2., 1., 2., 3., 2., 1.]]], dtype=float32)
    """

    _nd = 1


class ReflectionPad2d(_ReflectionPad):
    """Pads an image with the mirror image of the elements, the edge not repeated.

    Parameters
    ----------
    padding : int or tuple of 4 int
        (left, right, top, bottom), or one size for all. At least 0 and less than the size of the input.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ReflectionPad2d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReflectionPad2d((1, 1, 2, 0))(np.zeros((1, 1, 3, 3), np.float32)).shape
    (1, 1, 5, 5)
    """

    _nd = 2


class ReflectionPad3d(_ReflectionPad):
    """Pads a volume with the mirror image of the elements, the edge not repeated.

    Parameters
    ----------
    padding : int or tuple of 6 int
        (left, right, top, bottom, front, back), or one size for all. At least 0 and less than the size of the input.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ReflectionPad3d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReflectionPad3d(1)(np.zeros((1, 1, 2, 3, 4), np.float32)).shape
    (1, 1, 4, 5, 6)
    """

    _nd = 3


class ReplicationPad1d(_ReplicationPad):
    """Pads a sequence with the edge elements.

    Parameters
    ----------
    padding : int or tuple of 2 int
        (left, right), or one size for all. At least 0.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ReplicationPad1d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReplicationPad1d((1, 2))(np.array([[[1.0, 2.0, 3.0]]], np.float32))
    array([[[1., 1., 2., 3., 3., 3.]]], dtype=float32)
    """

    _nd = 1


class ReplicationPad2d(_ReplicationPad):
    """Pads an image with the edge elements.

    Parameters
    ----------
    padding : int or tuple of 4 int
        (left, right, top, bottom), or one size for all. At least 0.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ReplicationPad2d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReplicationPad2d((1, 1, 2, 0))(np.zeros((1, 1, 3, 3), np.float32)).shape
    (1, 1, 5, 5)
    """

    _nd = 2


class ReplicationPad3d(_ReplicationPad):
    """Pads a volume with the edge elements.

    Parameters
    ----------
    padding : int or tuple of 6 int
        (left, right, top, bottom, front, back), or one size for all. At least 0.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ReplicationPad3d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ReplicationPad3d(1)(np.zeros((1, 1, 2, 3, 4), np.float32)).shape
    (1, 1, 4, 5, 6)
    """

    _nd = 3


class ZeroPad1d(_ZeroPad):
    """Pads a sequence with zeros.

    Parameters
    ----------
    padding : int or tuple of 2 int
        (left, right), or one size for all. Negative entries crop.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ZeroPad1d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ZeroPad1d((1, 2))(np.array([[[1.0, 2.0, 3.0]]], np.float32))
    array([[[0., 1., 2., 3., 0., 0.]]], dtype=float32)
    """

    _nd = 1


class ZeroPad2d(_ZeroPad):
    """Pads an image with zeros.

    Parameters
    ----------
    padding : int or tuple of 4 int
        (left, right, top, bottom), or one size for all. Negative entries crop.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ZeroPad2d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ZeroPad2d((1, 1, 2, 0))(np.zeros((1, 1, 3, 3), np.float32)).shape
    (1, 1, 5, 5)
    """

    _nd = 2


class ZeroPad3d(_ZeroPad):
    """Pads a volume with zeros.

    Parameters
    ----------
    padding : int or tuple of 6 int
        (left, right, top, bottom, front, back), or one size for all. Negative entries crop.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Source: torch.nn.ZeroPad3d; ONNX Pad.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.ZeroPad3d(1)(np.zeros((1, 1, 2, 3, 4), np.float32)).shape
    (1, 1, 4, 5, 6)
    """

    _nd = 3
