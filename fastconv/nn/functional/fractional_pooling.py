"""Max pooling over windows whose steps are drawn at random, so that the output may have any size."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from ...devices import array_module, to_host
from ...differentiable import A, Array, apply, differentiable
from ...random import generator
from .parameters import Sizes, check_floating, compute_dtype, integers


def _output_size(space: tuple[int, ...], size: Any, ratio: Any, nd: int) -> tuple[int, ...]:
    if (size is None) == (ratio is None):
        raise ValueError(f"exactly one of output_size and output_ratio must be given, got {size!r} and {ratio!r}")
    if size is not None:
        return integers(size, nd, "output_size", 1)
    ratios = list(ratio) if isinstance(ratio, Sequence | ndarray) else [ratio] * nd
    if len(ratios) != nd or not all(isinstance(r, numbers.Real) and 0 < float(r) < 1 for r in ratios):
        raise ValueError(f"output_ratio must be a number between 0 and 1, or {nd} of them, got {ratio!r}")
    sizes = tuple(int(n * r) for n, r in zip(space, ratios))
    if min(sizes) < 1:
        raise ValueError(f"output_ratio must give at least one output a dimension, got {ratio!r} for {space}")
    return sizes


def _starts(samples: ndarray, n: int, kernel: int, outputs: int) -> ndarray:
    """(planes, outputs): where the windows of each plane begin along a dimension (Graham 2014, pseudorandom)."""
    last = np.full((len(samples), 1), n - kernel)
    if outputs == 1:
        return last
    step = samples.dtype.type(n - kernel) / samples.dtype.type(outputs - 1)
    places = np.arange(outputs - 1, dtype=samples.dtype)
    starts = ((places + samples[:, None]) * step).astype(np.int64) - (samples[:, None] * step).astype(np.int64)
    return np.concatenate([starts, last], axis=1)


def _fractional_rule(nd: int, always_indices: bool = False) -> Callable[..., Any]:
    def rule(wanted, x, kernel_size, output_size, output_ratio, return_indices, samples, rng):
        check_floating(x, "input")
        if x.ndim not in (nd + 1, nd + 2):
            raise ValueError(f"input must have {nd + 1} or {nd + 2} dimensions, got shape {x.shape}")
        kernel = integers(kernel_size, nd, "kernel_size", 1)
        space, lead = x.shape[-nd:], x.shape[:-nd]
        sizes = _output_size(space, output_size, output_ratio, nd)
        for n, k, outputs in zip(space, kernel, sizes):
            if outputs + k - 1 > n:
                raise ValueError(
                    f"kernel_size {kernel} and output_size {sizes} do not fit into an input of {space}: "
                    "size + kernel - 1 must not be above"
                )
        batch, channels = (1, *lead) if len(lead) == 1 else lead
        kind = compute_dtype(x)
        if samples is None:
            samples = generator(rng).random((batch, channels, nd), np.float32)
        samples = to_host(samples)
        if samples.ndim != 3 or samples.shape[0] < batch or samples.shape[1:] != (channels, nd):
            raise ValueError(f"_random_samples must have shape {(batch, channels, nd)}, got {samples.shape}")
        samples = samples[:batch].reshape(-1, nd).astype(kind)
        # In torch the samples of images come last dimension first.
        axes = range(nd) if nd == 3 else range(nd - 1, -1, -1)
        library = array_module(x)
        planes = batch * channels
        flat = np.zeros((planes, *(1,) * (2 * nd)), np.int64)
        for d, axis in enumerate(axes):
            windows = _starts(samples[:, axis], space[d], kernel[d], sizes[d])[:, :, None] + np.arange(kernel[d])
            shape = [planes, *(1,) * (2 * nd)]
            shape[1 + d], shape[1 + nd + d] = sizes[d], kernel[d]
            flat = flat * space[d] + windows.reshape(shape)
        flat = library.asarray(flat.reshape(planes, int(np.prod(sizes)), int(np.prod(kernel))))
        rows = library.arange(planes)[:, None]
        values = x.reshape(planes, int(np.prod(space)))
        seen = values[rows[:, :, None], flat]
        chosen = np.take_along_axis(flat, seen.argmax(axis=2)[:, :, None], 2)[:, :, 0]
        shape = (*lead, *sizes)
        y = values[rows, chosen].reshape(shape)

        def pullback(dy):
            dx = library.zeros((planes, values.shape[1]), kind)
            library.add.at(dx, (rows, chosen), dy.reshape(chosen.shape).astype(kind, copy=False))
            return (dx.reshape(x.shape).astype(x.dtype, copy=False),)

        return ((y, chosen.reshape(shape)) if return_indices or always_indices else y), pullback

    return rule


@differentiable(_fractional_rule(2), wrt=("input",))
def fractional_max_pool2d(
    input: A,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Array | None = None,
    *,
    rng: np.random.Generator | None = None,
) -> Any:
    """Maximum of windows at random steps, for an output of any size, as torch.nn.functional.fractional_max_pool2d.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (C, H, W)
        float32, float64, float16 or bfloat16.
    kernel_size : int or two ints
        Of the windows, which may overlap.
    output_size : int or two ints, optional
    output_ratio : float or two floats, optional
        Instead of `output_size`: between 0 and 1, the output has ``int(n * ratio)`` elements.
    return_indices : bool
        Also give the index of each maximum in its plane.
    _random_samples : array, shape (N, C, 2), optional
        Numbers from 0 to 1 that decide the steps along width and height. By default they are drawn.
    rng : numpy.random.Generator, optional
        Default: the generator that `fastconv.manual_seed` seeds.

    Returns
    -------
    array, shape (N, C, *output_size) or (C, *output_size)
        With `return_indices`, a tuple of it and an int64 array of the same shape.

    Raises
    ------
    ValueError
        Both or neither of `output_size` and `output_ratio`, or windows that do not fit.
    TypeError
        A dtype that is not supported, or sizes that are no ints.

    Notes
    -----
    Graham, 2014, arXiv:1412.6071. Array code on every backend: windows lie elsewhere in every plane.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.fractional_max_pool2d(np.arange(25.0).reshape(1, 5, 5), 2, output_size=3, rng=np.random.default_rng(0)).shape
    (1, 3, 3)
    """
    return apply(
        fractional_max_pool2d, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, rng
    )


@differentiable(_fractional_rule(3), wrt=("input",))
def fractional_max_pool3d(
    input: A,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Array | None = None,
    *,
    rng: np.random.Generator | None = None,
) -> Any:
    """Maximum of windows at random steps, as torch.nn.functional.fractional_max_pool3d.

    Parameters
    ----------
    input : array, shape (N, C, D, H, W) or (C, D, H, W)
        float32, float64, float16 or bfloat16.
    kernel_size, output_size, output_ratio, return_indices, rng
        As for `fractional_max_pool2d`, with three dimensions.
    _random_samples : array, shape (N, C, 3), optional
        Numbers from 0 to 1 that decide the steps along depth, height and width.

    Returns
    -------
    array, shape (N, C, *output_size) or (C, *output_size)
        With `return_indices`, a tuple of it and an int64 array of the same shape.

    Raises
    ------
    ValueError, TypeError
        As `fractional_max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.fractional_max_pool3d(np.ones((1, 4, 5, 5)), 2, output_ratio=0.6).shape
    (1, 2, 3, 3)
    """
    return apply(
        fractional_max_pool3d, input, kernel_size, output_size, output_ratio, return_indices, _random_samples, rng
    )


@differentiable(_fractional_rule(2, always_indices=True), wrt=("input",))
def fractional_max_pool2d_with_indices(
    input: A,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Array | None = None,
    *,
    rng: np.random.Generator | None = None,
) -> Any:
    """`fractional_max_pool2d` that always gives the indices, too.

    Parameters
    ----------
    input, kernel_size, output_size, output_ratio, return_indices, _random_samples, rng
        As for `fractional_max_pool2d`.

    Returns
    -------
    tuple of array and int64 array

    Raises
    ------
    ValueError, TypeError
        As `fractional_max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.fractional_max_pool2d_with_indices(np.arange(4.0).reshape(1, 2, 2), 2, 1)
    (array([[[3.]]]), array([[[3]]]))
    """
    return apply(
        fractional_max_pool2d_with_indices,
        *(input, kernel_size, output_size, output_ratio, return_indices, _random_samples, rng),
    )


@differentiable(_fractional_rule(3, always_indices=True), wrt=("input",))
def fractional_max_pool3d_with_indices(
    input: A,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Array | None = None,
    *,
    rng: np.random.Generator | None = None,
) -> Any:
    """`fractional_max_pool3d` that always gives the indices, too.

    Parameters
    ----------
    input, kernel_size, output_size, output_ratio, return_indices, _random_samples, rng
        As for `fractional_max_pool3d`.

    Returns
    -------
    tuple of array and int64 array

    Raises
    ------
    ValueError, TypeError
        As `fractional_max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.fractional_max_pool3d_with_indices(np.arange(8.0).reshape(1, 2, 2, 2), 2, 1)[1].ravel()
    array([7])
    """
    return apply(
        fractional_max_pool3d_with_indices,
        *(input, kernel_size, output_size, output_ratio, return_indices, _random_samples, rng),
    )
