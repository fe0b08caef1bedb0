"""A learned vector for each of a number of classes."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

import fastconv.nn.functional as F
from fastconv.nn import init
from fastconv.nn.modules.arguments import floating_dtype, number, operands, size
from fastconv.nn.modules.module import Module
from fastconv.nn.modules.state import host_array
from fastconv.tensor import Parameter

__all__ = ["Embedding"]


class Embedding(Module):
    """Looks up a learned vector for each integer of its input.

    Parameters
    ----------
    num_embeddings : int
        Vectors; the input's integers lie below it.
    embedding_dim : int
        Length of each.
    padding_idx : int, optional
        A vector that starts at 0 and is not trained.
    max_norm : float, optional
        Vectors that are used and longer than this are first made as short.
    norm_type : float
        Which p-norm that is.
    scale_grad_by_freq : bool
        Divide each vector's gradient by how often it is used in the batch.
    sparse : bool
        Must be False: gradients are whole arrays.
    device : str or int, keyword only
        Where its parameters lie: ``"cpu"`` (the default), ``"cuda"``, ``"cuda:N"`` or N.
    dtype : dtype-like, keyword only
        Of the parameter; float32 by default.

    Attributes
    ----------
    weight : Parameter
        (num_embeddings, embedding_dim), from N(0, 1).

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        A parameter breaks its rule; at the call, an input that is not of integers below `num_embeddings`.

    Notes
    -----
    A Tensor of integers as input records, an array does not. Source: torch.nn.Embedding; ONNX Gather.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.Embedding(10, 3, padding_idx=0)(np.array([[4, 0], [2, 4]])).shape
    (2, 2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = size("num_embeddings", num_embeddings, 0)
        self.embedding_dim = size("embedding_dim", embedding_dim, 0)
        if padding_idx is not None:
            if size("padding_idx", padding_idx, -num_embeddings) >= num_embeddings:
                raise ValueError(f"padding_idx must be below num_embeddings={num_embeddings}, got {padding_idx}")
            padding_idx %= num_embeddings
        if sparse:
            raise NotImplementedError("sparse=True is not supported: gradients are whole arrays")
        self.padding_idx = padding_idx
        self.max_norm = None if max_norm is None else number("max_norm", max_norm)
        self.norm_type = number("norm_type", norm_type)
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        self.weight = Parameter(np.empty((self.num_embeddings, self.embedding_dim), floating_dtype(dtype)))
        self.reset_parameters()
        self.to(device=device)

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, **options: Any) -> Self:
        """A layer with the given vectors, (num_embeddings, embedding_dim), by default not trained any further."""
        vectors = host_array(embeddings)
        if vectors.ndim != 2:
            raise ValueError(f"embeddings must have shape (num_embeddings, embedding_dim), got {vectors.shape}")
        layer = cls(*vectors.shape, **options, dtype=vectors.dtype)
        layer.weight.data[...] = vectors
        layer.weight.requires_grad = not freeze
        return layer

    def reset_parameters(self) -> None:
        """Draw all vectors anew from N(0, 1); that of `padding_idx` is 0."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, input: Any) -> Any:
        """The vectors of the integers in `input`."""
        (weight,) = operands(input, self.weight)
        return F.embedding(
            input, weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        for name, usual in (("padding_idx", None), ("max_norm", None), ("norm_type", 2), ("scale_grad_by_freq", False)):
            value = getattr(self, name)
            text += "" if value == usual else f", {name}={value}"
        return text
