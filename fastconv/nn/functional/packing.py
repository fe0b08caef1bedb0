"""Weights that convolutions keep packed."""

from __future__ import annotations

from typing import Any

from numpy import ndarray

from ... import backend
from ...interop import to_numpy
from ...tensor import Tensor


def pack_weight(weight: Any) -> ndarray:
    """A read-only copy of `weight` that convolutions and linear layers pack once instead of in every call.

    Kernels read weights in another order than they are stored in, some of them transformed. For an ordinary array,
    which may be written to at any time, that is done in each call; for one from here by the first call alone. A single
    image then passes a layer of many channels in down to half the time.

    Parameters
    ----------
    weight : array, shape (K, C / groups, ...) or (out_features, in_features)
        Of a convolution or a linear layer: float32, float64, float16 or bfloat16, in CPU memory; or a Tensor of one.

    Returns
    -------
    numpy.ndarray
        The values of `weight`, not writable, and nobody can make it so. It is an array like any other: all functions
        take it, with the same bits as `weight`. Views of it, and copies, are packed in each call again.

    Raises
    ------
    TypeError
        A dtype that is not supported, or no array.
    ValueError
        No dimension, or more than five.
    NotImplementedError
        An array in GPU memory: the CUDA kernels read weights as they are.
    ImportError
        The native module is not built.

    Notes
    -----
    What is packed takes the memory of `weight` once more, Winograd's up to 4 times as much, and twice that of 16-bit
    weights, which are packed as float32; it lives as long as the array. A weight that meets several algorithms
    (images of several sizes) is packed for each. Convolutions with one input channel a group,
    transposed ones and gradients pack nothing that lasts.

    ``layer.weight.data = F.pack_weight(layer.weight)`` gives a layer such a weight, and `fastconv.optimize` a network.
    A step of an optimiser and ``load_state_dict`` then give the layer a writable array again, with nothing packed.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> x, weight = np.ones((1, 16, 8, 8), np.float32), np.ones((32, 16, 3, 3), np.float32)
    >>> packed = F.pack_weight(weight)
    >>> bool((F.conv2d(x, packed) == F.conv2d(x, weight)).all()), packed.flags.writeable
    (True, False)
    """
    return backend.native().pack_weight(to_numpy(weight.data if isinstance(weight, Tensor) else weight, "weight"))
