"""Layers that only rearrange: Identity, Flatten, Unflatten, Unfold, Fold."""

from __future__ import annotations

import math
from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import size, sizes
from fastconv.nn.modules.module import Module

__all__ = ["Flatten", "Fold", "Identity", "Unflatten", "Unfold"]


def _dimension(name: str, dim: int, rank: int) -> int:
    """`dim`, counted from the end where negative, as an index below `rank`."""
    if not -rank <= dim < rank:
        raise ValueError(f"{name} must lie between {-rank} and {rank - 1} for an input of rank {rank}, got {dim}")
    return dim % rank


class Identity(Module):
    """Returns its input; a place holder.

    Parameters
    ----------
    *args, **kwargs
        Ignored, so that any layer can be replaced.

    Notes
    -----
    Source: torch.nn.Identity; ONNX Identity.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> nn.Identity(54, unused=True)
    Identity()
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """Return `input`."""
        return input


class Flatten(Module):
    """Joins the dimensions from `start_dim` to `end_dim` into one.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last dimension, both included; negative ones count from the end.

    Raises
    ------
    ValueError
        At the call: a dimension that the input does not have, or `start_dim` behind `end_dim`.

    Notes
    -----
    Source: torch.nn.Flatten; ONNX Flatten.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Flatten()(np.zeros((2, 3, 4, 5), np.float32)).shape
    (2, 60)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = size("start_dim", start_dim, -(2**63))
        self.end_dim = size("end_dim", end_dim, -(2**63))

    def forward(self, input: Any) -> Any:
        """Flatten `input`."""
        shape = tuple(input.shape)
        first = _dimension("start_dim", self.start_dim, len(shape))
        last = _dimension("end_dim", self.end_dim, len(shape))
        if first > last:
            raise ValueError(f"start_dim must not come after end_dim, got {self.start_dim} and {self.end_dim}")
        return input.reshape((*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits one dimension into several, the inverse of :class:`Flatten`.

    Parameters
    ----------
    dim : int
        The dimension to split.
    unflattened_size : tuple of int
        What it is split into; one entry may be -1.

    Raises
    ------
    ValueError
        At the call: the sizes do not multiply to the dimension's size.

    Notes
    -----
    Source: torch.nn.Unflatten.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Unflatten(1, (3, -1))(np.zeros((2, 60), np.float32)).shape
    (2, 3, 20)
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = size("dim", dim, -(2**63))
        self.unflattened_size = tuple(size("unflattened_size", entry, -1) for entry in unflattened_size)
        if self.unflattened_size.count(-1) > 1:
            raise ValueError(f"unflattened_size must hold at most one -1, got {unflattened_size}")

    def forward(self, input: Any) -> Any:
        """Split a dimension of `input`."""
        shape = tuple(input.shape)
        dim = _dimension("dim", self.dim, len(shape))
        known = math.prod(entry for entry in self.unflattened_size if entry != -1)
        rest = shape[dim] // known if known else 0
        split = tuple(rest if entry == -1 else entry for entry in self.unflattened_size)
        if math.prod(split) != shape[dim]:
            raise ValueError(f"unflattened_size must multiply to {shape[dim]}, got {self.unflattened_size}")
        return input.reshape((*shape[:dim], *split, *shape[dim + 1 :]))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Unfold(Module):
    """Gathers sliding windows into columns (im2col).

    Parameters
    ----------
    kernel_size, dilation, padding, stride : int or pair of int
        The windows, as for :class:`Conv2d`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Input (N, C, H, W) or (C, H, W), output (N, C kH kW, windows) or (C kH kW, windows). Source: torch.nn.Unfold.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Unfold(3)(np.zeros((1, 2, 5, 6), np.float32)).shape
    (1, 18, 12)
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        dilation: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        stride: int | tuple[int, int] = 1,
    ) -> None:
        super().__init__()
        sizes("kernel_size", kernel_size, 2, 1)
        sizes("dilation", dilation, 2, 1)
        sizes("padding", padding, 2, 0)
        sizes("stride", stride, 2, 1)
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Any) -> Any:
        """Gather the windows of `input`."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Module):
    """Adds the columns of sliding windows back up to an image (col2im).

    Parameters
    ----------
    output_size : int or pair of int
        Height and width of the image.
    kernel_size, dilation, padding, stride : int or pair of int
        The windows, as for :class:`Conv2d`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Input (N, C kH kW, windows) or (C kH kW, windows), output (N, C, H, W) or (C, H, W). Source: torch.nn.Fold; ONNX
    Col2Im.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Fold((5, 6), 3)(np.zeros((1, 18, 12), np.float32)).shape
    (1, 2, 5, 6)
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        kernel_size: int | tuple[int, int],
        dilation: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        stride: int | tuple[int, int] = 1,
    ) -> None:
        super().__init__()
        sizes("output_size", output_size, 2, 1)
        sizes("kernel_size", kernel_size, 2, 1)
        sizes("dilation", dilation, 2, 1)
        sizes("padding", padding, 2, 0)
        sizes("stride", stride, 2, 1)
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Any) -> Any:
        """Add up the columns of `input`."""
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )
