"""Layers of max pooling at random steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import number, sizes
from fastconv.nn.modules.module import Module

__all__ = ["FractionalMaxPool2d", "FractionalMaxPool3d"]


class _FractionalMaxPool(Module):
    _nd: int

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        output_size: int | tuple[int, ...] | None = None,
        output_ratio: float | tuple[float, ...] | None = None,
        return_indices: bool = False,
        _random_samples: Any = None,
    ) -> None:
        super().__init__()
        nd = self._nd
        if (output_size is None) == (output_ratio is None):
            raise ValueError(
                f"exactly one of output_size and output_ratio must be given, got {output_size!r} and {output_ratio!r}"
            )
        self.kernel_size = sizes("kernel_size", kernel_size, nd, 1)
        self.output_size = None if output_size is None else sizes("output_size", output_size, nd, 1)
        self.output_ratio: tuple[float, ...] | None = None
        if output_ratio is not None:
            ratios = tuple(output_ratio) if isinstance(output_ratio, Sequence) else (output_ratio,) * nd
            if len(ratios) != nd or not all(0 < number("output_ratio", ratio) < 1 for ratio in ratios):
                raise ValueError(f"output_ratio must be a number between 0 and 1, or {nd} of them, got {output_ratio}")
            self.output_ratio = ratios
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input: Any) -> Any:
        """Pool `input` of shape (N, C, *S) or (C, *S)."""
        function = (F.fractional_max_pool2d, F.fractional_max_pool3d)[self._nd - 2]
        return function(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples
        )

    def extra_repr(self) -> str:
        wanted = "output_size" if self.output_ratio is None else "output_ratio"
        return f"kernel_size={self.kernel_size}, {wanted}={getattr(self, wanted)}"


class FractionalMaxPool2d(_FractionalMaxPool):
    """Max pooling over images at random steps, for an output of any size.

    Parameters
    ----------
    kernel_size : int or tuple of 2 int
        Window, at least 1.
    output_size : int or tuple of 2 int, optional
    output_ratio : float or tuple of 2 float, optional
        Instead of `output_size`: the share of the input, between 0 and 1.
    return_indices : bool
        Also give the index of each maximum in its plane, for :class:`MaxUnpool2d`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, windows that do not fit.

    Notes
    -----
    Random numbers come from the generator that :func:`fastconv.manual_seed` seeds, in evaluation, too. Graham 2014.
    Source: torch.nn.FractionalMaxPool2d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.FractionalMaxPool2d(2, output_ratio=0.7)(np.zeros((1, 3, 10, 10), np.float32)).shape
    (1, 3, 7, 7)
    """

    _nd = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """Max pooling over volumes at random steps; see :class:`FractionalMaxPool2d`.

    Notes
    -----
    Source: torch.nn.FractionalMaxPool3d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.FractionalMaxPool3d(2, output_size=3)(np.zeros((1, 3, 5, 6, 7), np.float32)).shape
    (1, 3, 3, 3, 3)
    """

    _nd = 3
