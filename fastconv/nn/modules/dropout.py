"""Dropout layers."""

from __future__ import annotations

from typing import Any

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import number
from fastconv.nn.modules.module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= number("p", p) <= 1:
            raise ValueError(f"p must be between 0 and 1, got {p}")
        self.p = p
        self.inplace = inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training mode, zero each element with probability p and scale the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        Probability, from 0 to 1.
    inplace : bool
        Whether to write into the input's memory.

    Raises
    ------
    ValueError
        `p` lies outside its range.

    Notes
    -----
    The input in evaluation mode. Random numbers come from the generator that :func:`fastconv.manual_seed` seeds.
    Srivastava et al. 2014. Source: torch.nn.Dropout; ONNX Dropout.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.Dropout(0.5)
    >>> sorted(set(layer(np.ones(100, np.float32)).tolist()))
    [0.0, 2.0]
    >>> layer.eval()(np.ones(2, np.float32))
    array([1., 1.], dtype=float32)
    """

    def forward(self, input: Any) -> Any:
        """Drop elements of `input` (any shape)."""
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_Dropout):
    """In training mode, zero whole channels with probability p and scale the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        Probability, from 0 to 1.
    inplace : bool
        Whether to write into the input's memory.

    Raises
    ------
    ValueError
        `p` lies outside its range.

    Notes
    -----
    Input (N, C, L) or (C, L). Tompson et al. 2015. Source: torch.nn.Dropout1d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> y = nn.Dropout1d(0.5)(np.ones((1, 8, 4), np.float32))
    >>> bool((y == y[:, :, :1]).all())
    True
    """

    def forward(self, input: Any) -> Any:
        """Drop channels of `input`."""
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """In training mode, zero whole channels with probability p and scale the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        Probability, from 0 to 1.
    inplace : bool
        Whether to write into the input's memory.

    Raises
    ------
    ValueError
        `p` lies outside its range.

    Notes
    -----
    Input (N, C, H, W) or (C, H, W). Tompson et al. 2015. Source: torch.nn.Dropout2d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> y = nn.Dropout2d(0.5)(np.ones((1, 8, 2, 2), np.float32))
    >>> bool((y == y[:, :, :1, :1]).all())
    True
    """

    def forward(self, input: Any) -> Any:
        """Drop channels of `input`."""
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_Dropout):
    """In training mode, zero whole channels with probability p and scale the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        Probability, from 0 to 1.
    inplace : bool
        Whether to write into the input's memory.

    Raises
    ------
    ValueError
        `p` lies outside its range.

    Notes
    -----
    Input (N, C, D, H, W) or (C, D, H, W). Tompson et al. 2015. Source: torch.nn.Dropout3d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> y = nn.Dropout3d(0.5)(np.ones((1, 8, 2, 1, 1), np.float32))
    >>> bool((y == y[:, :, :1]).all())
    True
    """

    def forward(self, input: Any) -> Any:
        """Drop channels of `input`."""
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_Dropout):
    """Dropout for networks of :class:`SELU`, which keeps mean 0 and variance 1.

    Parameters
    ----------
    p : float
        Probability, from 0 to 1.
    inplace : bool
        Whether to write into the input's memory.

    Raises
    ------
    ValueError
        `p` lies outside its range.

    Notes
    -----
    Klambauer et al. 2017. Source: torch.nn.AlphaDropout.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> len(set(nn.AlphaDropout(0.5)(np.zeros(100, np.float32)).tolist()))
    2
    """

    def forward(self, input: Any) -> Any:
        """Drop elements of `input` (any shape)."""
        return F.alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(_Dropout):
    """Alpha dropout of whole channels; parameters as for :class:`AlphaDropout`.

    Notes
    -----
    Input (N, C, *). Source: torch.nn.FeatureAlphaDropout.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.FeatureAlphaDropout().eval()(np.ones((1, 2, 2)))
    array([[[1., 1.],
            [1., 1.]]])
    """

    def forward(self, input: Any) -> Any:
        """Apply the layer to `input` of shape (N, C, *)."""
        return F.feature_alpha_dropout(input, self.p, self.training, self.inplace)
