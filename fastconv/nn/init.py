"""Initialisation of parameters in place, with the names and formulas of torch.nn.init.

Every function takes a Parameter, a Tensor or a plain array, fills it and returns it. Nothing is recorded. Random
numbers come from `generator`, or from the one that :func:`fastconv.manual_seed` seeds; inside :func:`skip_init` none
are drawn.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

from fastconv.devices import is_array, is_writable, write
from fastconv.nn.modules.arguments import choice, is_floating, number, size
from fastconv.random import generator as default_generator
from fastconv.tensor import Tensor, UninitializedParameter

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "skip_init",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

Target = TypeVar("Target")

_skipping: contextvars.ContextVar[bool] = contextvars.ContextVar("fastconv_skip_init", default=False)

_CONVOLUTIONS = tuple(f"conv{kind}{nd}d" for kind in ("", "_transpose") for nd in (1, 2, 3))
_LINEAR = ("linear", *_CONVOLUTIONS, "sigmoid")
_NONLINEARITIES = (*_LINEAR, "tanh", "relu", "leaky_relu", "selu")


def _array(tensor: Any) -> np.ndarray:
    if isinstance(tensor, UninitializedParameter):
        raise ValueError("tensor must have a size, got a parameter of a lazy layer before the layer's first input")
    array = tensor.data if isinstance(tensor, Tensor) else tensor
    if not is_array(array) or not is_floating(array.dtype):
        kind = array.dtype if is_array(array) else type(array).__name__
        raise TypeError(f"tensor must be a floating Parameter, Tensor or array, got {kind}")
    if not is_writable(array):
        raise ValueError("tensor must be writable, got a read-only array")
    return array


def _sampling_dtype(array: np.ndarray) -> type:
    # The generator draws float32 and float64; narrower types are rounded from float32.
    return np.float64 if array.dtype == np.float64 else np.float32


def _fans(array: np.ndarray) -> tuple[int, int]:
    if array.ndim < 2:
        raise ValueError(f"tensor must have at least 2 dimensions to have fans, got shape {array.shape}")
    receptive = math.prod(array.shape[2:])
    return array.shape[1] * receptive, array.shape[0] * receptive


@contextlib.contextmanager
def skip_init() -> Iterator[None]:
    """Context manager: draw no random numbers, leave to the arrays what they hold; the layers' new weights hold zeros.

    For networks whose weights are loaded next, or that are built to count their parameters: a new array of zeros costs
    no time and, until it is written to, no memory. Holds for the current thread.

    Notes
    -----
    Source: torch.nn.utils.skip_init, which leaves arbitrary values.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> with nn.init.skip_init():
    ...     layer = nn.Linear(25088, 4096)
    >>> layer.weight.data.size, layer.weight.data[0, 0]
    (102760448, np.float32(0.0))
    """
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def constant_(tensor: Target, val: float) -> Target:
    """Fill with `val`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.init.constant_(np.empty(3, np.float32), 0.5)
    array([0.5, 0.5, 0.5], dtype=float32)
    """
    _array(tensor)[...] = number("val", val)
    return tensor


def zeros_(tensor: Target) -> Target:
    """Fill with zeros.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.init.zeros_(np.empty(3, np.float32))
    array([0., 0., 0.], dtype=float32)
    """
    return constant_(tensor, 0.0)


def ones_(tensor: Target) -> Target:
    """Fill with ones.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.init.ones_(np.empty(3, np.float32))
    array([1., 1., 1.], dtype=float32)
    """
    return constant_(tensor, 1.0)


def uniform_(tensor: Target, a: float = 0.0, b: float = 1.0, generator: np.random.Generator | None = None) -> Target:
    """Draw from the uniform distribution on [a, b).

    Raises
    ------
    ValueError
        `a` exceeds `b`, or the target is read-only.
    TypeError
        The target is not floating.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> values = nn.init.uniform_(np.empty(100, np.float32), -2, 2)
    >>> bool((abs(values) <= 2).all())
    True
    """
    array = _array(tensor)
    if number("a", a) > number("b", b):
        raise ValueError(f"a must not exceed b, got a={a}, b={b}")
    if _skipping.get():
        return tensor
    sample = default_generator(generator).random(array.shape, dtype=_sampling_dtype(array))
    sample *= b - a
    sample += a
    write(array, sample)
    return tensor


def normal_(
    tensor: Target, mean: float = 0.0, std: float = 1.0, generator: np.random.Generator | None = None
) -> Target:
    """Draw from the normal distribution with the given mean and standard deviation.

    Raises
    ------
    ValueError
        `std` is negative, or the target is read-only.
    TypeError
        The target is not floating.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.init.normal_(np.empty(3, np.float32), mean=4.0, std=0.0)
    array([4., 4., 4.], dtype=float32)
    """
    array = _array(tensor)
    if number("std", std) < 0:
        raise ValueError(f"std must not be negative, got {std}")
    number("mean", mean)
    if _skipping.get():
        return tensor
    sample = default_generator(generator).standard_normal(array.shape, dtype=_sampling_dtype(array))
    sample *= std
    sample += mean
    write(array, sample)
    return tensor


def trunc_normal_(
    tensor: Target,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: np.random.Generator | None = None,
) -> Target:
    """Draw from the normal distribution with the given mean and standard deviation, cut off outside [a, b].

    Raises
    ------
    ValueError
        `std` is not positive, less than a thousandth of the distribution lies in the interval, or the target is
        read-only.
    TypeError
        The target is not floating.

    Notes
    -----
    Values outside are drawn again. As in torch, `a` and `b` are values, not multiples of `std`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> values = nn.init.trunc_normal_(np.empty(100, np.float32), std=3.0)
    >>> bool((abs(values) <= 2).all())
    True
    """
    array = _array(tensor)
    if not number("std", std) > 0:
        raise ValueError(f"std must be positive, got {std}")
    low, high = ((number(name, end) - number("mean", mean)) / std for name, end in (("a", a), ("b", b)))
    share = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    if not share > 1e-3:  # drawing again would take for ever
        raise ValueError(f"a and b must enclose 0.1 % of the values, got a={a}, b={b}, mean={mean}, std={std}")
    if _skipping.get():
        return tensor
    rng = default_generator(generator)
    sample = rng.standard_normal(array.size, dtype=_sampling_dtype(array))
    outside = np.flatnonzero((sample < low) | (sample > high))
    while outside.size:
        again = rng.standard_normal(outside.size, dtype=sample.dtype)
        sample[outside] = again
        outside = outside[(again < low) | (again > high)]
    # Rounding of the scaled value may step over the end by one unit in the last place.
    write(array, np.clip(sample * std + mean, a, b).reshape(array.shape))
    return tensor


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The recommended gain of a nonlinearity; `param` is leaky_relu's negative slope (default 0.01).

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> round(nn.init.calculate_gain("relu"), 4)
    1.4142
    """
    choice("nonlinearity", nonlinearity, _NONLINEARITIES)
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3.0
    if nonlinearity == "selu":
        return 0.75
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    slope = 0.01 if param is None else number("param", param)
    return math.sqrt(2.0 / (1.0 + slope**2))


def xavier_uniform_(tensor: Target, gain: float = 1.0, generator: np.random.Generator | None = None) -> Target:
    """Draw from U(-a, a) with a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010).

    Raises
    ------
    ValueError
        Fewer than two dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> bool((abs(nn.init.xavier_uniform_(np.empty((8, 4), np.float32))) <= (6 / 12) ** 0.5).all())
    True
    """
    fan_in, fan_out = _fans(_array(tensor))
    bound = number("gain", gain) * math.sqrt(6.0 / max(fan_in + fan_out, 1))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Target, gain: float = 1.0, generator: np.random.Generator | None = None) -> Target:
    """Draw from N(0, s) with s = gain * sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio 2010).

    Raises
    ------
    ValueError
        Fewer than two dimensions.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.init.xavier_normal_(np.empty((8, 4), np.float32)).shape
    (8, 4)
    """
    fan_in, fan_out = _fans(_array(tensor))
    return normal_(tensor, 0.0, number("gain", gain) * math.sqrt(2.0 / max(fan_in + fan_out, 1)), generator)


def _kaiming_std(array: np.ndarray, a: float, mode: str, nonlinearity: str) -> float:
    choice("mode", mode, ("fan_in", "fan_out"))
    fan = _fans(array)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(
    tensor: Target,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: np.random.Generator | None = None,
) -> Target:
    """Draw from U(-b, b) with b = gain * sqrt(3 / fan) (He et al. 2015).

    Parameters
    ----------
    tensor : Parameter, Tensor or array
        Shape (out, in, ...) as the weights of convolution and linear layers have it.
    a : float
        Negative slope of the leaky ReLU that follows.
    mode : {"fan_in", "fan_out"}
        Whether to keep the variance of the forward or of the backward pass.
    nonlinearity : str
        As in :func:`calculate_gain`.

    Raises
    ------
    ValueError
        Fewer than two dimensions, unknown `mode` or `nonlinearity`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.Conv2d(3, 8, 3)
    >>> nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu") is layer.weight
    True
    """
    bound = math.sqrt(3.0) * _kaiming_std(_array(tensor), a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Target,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: np.random.Generator | None = None,
) -> Target:
    """Draw from N(0, s) with s = gain / sqrt(fan) (He et al. 2015); parameters as for :func:`kaiming_uniform_`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.init.kaiming_normal_(np.empty((8, 3, 3, 3), np.float32), mode="fan_out").shape
    (8, 3, 3, 3)
    """
    return normal_(tensor, 0.0, _kaiming_std(_array(tensor), a, mode, nonlinearity), generator)


def eye_(tensor: Target) -> Target:
    """Fill a matrix with the identity: 1 on the diagonal, 0 elsewhere.

    Raises
    ------
    ValueError
        Other than two dimensions, or the target is read-only.
    TypeError
        The target is not floating.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.init.eye_(np.empty((2, 3), np.float32))
    array([[1., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """
    array = _array(tensor)
    if array.ndim != 2:
        raise ValueError(f"tensor must have two dimensions, got shape {array.shape}")
    if not _skipping.get():
        array[...] = np.eye(*array.shape, dtype=array.dtype)
    return tensor


def dirac_(tensor: Target, groups: int = 1) -> Target:
    """Fill the weight of a convolution so that channels pass through it as they are.

    Parameters
    ----------
    tensor : Parameter, Tensor or array
        Shape (out, in / groups, ...) with one to three spatial dimensions.
    groups : int
        Groups, each with its own identity; divides the output channels.

    Raises
    ------
    ValueError
        Another number of dimensions, `groups` does not divide the output channels, or the target is read-only.
    TypeError
        The target is not floating, or `groups` is no int.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.init.dirac_(np.empty((2, 2, 3), np.float32))
    array([[[0., 1., 0.],
            [0., 0., 0.]],
    <BLANKLINE>
           [[0., 0., 0.],
            [0., 1., 0.]]], dtype=float32)
    """
    array = _array(tensor)
    if not 3 <= array.ndim <= 5:
        raise ValueError(f"tensor must have three to five dimensions, got shape {array.shape}")
    if array.shape[0] % size("groups", groups, 1):
        raise ValueError(f"groups must divide the {array.shape[0]} output channels, got {groups}")
    if _skipping.get():
        return tensor
    array[...] = 0
    middle, outputs = tuple(n // 2 for n in array.shape[2:]), array.shape[0] // groups
    for group in range(groups):
        for channel in range(min(outputs, array.shape[1])):
            array[(group * outputs + channel, channel, *middle)] = 1
    return tensor


def orthogonal_(tensor: Target, gain: float = 1, generator: np.random.Generator | None = None) -> Target:
    """Draw rows (or columns, where these are fewer) that are orthogonal and `gain` long (Saxe et al. 2014).

    Parameters
    ----------
    tensor : Parameter, Tensor or array
        At least two dimensions; all but the first are taken together.
    gain : float
    generator : numpy.random.Generator, optional

    Raises
    ------
    ValueError
        Fewer than two dimensions, or the target is read-only.
    TypeError
        The target is not floating.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> w = nn.init.orthogonal_(np.empty((2, 3, 3)))
    >>> (w.reshape(2, 9) @ w.reshape(2, 9).T).round(6) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    array = _array(tensor)
    if array.ndim < 2:
        raise ValueError(f"tensor must have at least two dimensions, got shape {array.shape}")
    number("gain", gain)
    if _skipping.get() or not array.size:
        return tensor
    rows, columns = array.shape[0], array.size // array.shape[0]
    sample = default_generator(generator).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(sample)
    q *= np.where(np.diag(r) < 0, -1, 1)  # uniform among all such matrices
    array[...] = (gain * (q if rows >= columns else q.T)).reshape(array.shape)
    return tensor


def sparse_(tensor: Target, sparsity: float, std: float = 0.01, generator: np.random.Generator | None = None) -> Target:
    """Draw from the normal distribution of mean 0, and set the same share of every column to zero (Martens 2010).

    Parameters
    ----------
    tensor : Parameter, Tensor or array
        Two dimensions.
    sparsity : float
        The share, between 0 and 1; rounded up to whole elements.
    std : float
        Standard deviation, not negative.
    generator : numpy.random.Generator, optional

    Raises
    ------
    ValueError
        Not two dimensions, a number out of its range, or the target is read-only.
    TypeError
        The target is not floating, or no number is given.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> w = nn.init.sparse_(np.empty((10, 4)), 0.25, generator=np.random.default_rng(0))
    >>> (w == 0).sum(axis=0)
    array([3, 3, 3, 3])
    """
    array = _array(tensor)
    if array.ndim != 2:
        raise ValueError(f"tensor must have two dimensions, got shape {array.shape}")
    if not 0 <= number("sparsity", sparsity) <= 1:
        raise ValueError(f"sparsity must be between 0 and 1, got {sparsity}")
    draw = default_generator(generator)
    sample: np.ndarray = normal_(np.empty(array.shape, _sampling_dtype(array)), 0.0, std, draw)
    if _skipping.get() or not array.size:
        return tensor
    order = draw.random(array.shape).argsort(axis=0)  # of each column, a permutation of its rows
    sample[order < math.ceil(sparsity * array.shape[0])] = 0
    write(array, sample)
    return tensor
