"""Images made for a network by climbing the gradient: what a class looks like to it, and what it dreams."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.nn.modules.arguments import size
from fastconv.nn.modules.module import Module
from fastconv.optim import Adam
from fastconv.random import generator
from fastconv.tape import enable_grad
from fastconv.tensor import Tensor
from fastconv.visualize.images import resize
from fastconv.visualize.layers import batch, chosen_units, first_output, inspection, outputs

__all__ = ["deep_dream", "maximize_unit"]


def maximize_unit(
    model: Module,
    unit: int,
    start: Any,
    layer: str | None = None,
    *,
    steps: int = 200,
    lr: float = 0.05,
    l2: float = 1e-3,
    jitter: int = 0,
    limits: tuple[float, float] | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Class maximisation: an image that a class, or a unit of a layer, answers to most.

    Climbs ``score(image) - l2 * sum(image**2)`` with Adam.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode.
    unit : int
        Class of the output, or channel of `layer`. The score is the output before a softmax; in a map, its mean.
    start : array, shape (N, C, H, W), or tuple of int
        Images to begin with, or the shape of noise of standard deviation 0.1 to begin with.
    layer : str, optional
        Layer of the unit; by default the output.
    steps : int
    lr : float
        Step size of Adam, in units of the image's values.
    l2 : float
        Weight of the penalty that keeps the image plain.
    jitter : int
        The image is moved by up to so many pixels (cyclically) in each step, which suppresses fine patterns.
    limits : pair of float, optional
        Smallest and largest value of a pixel.
    rng : numpy.random.Generator, optional
        Of the noise and the jitter; by default that of `fastconv.manual_seed`.

    Returns
    -------
    ndarray, shape (N, C, H, W)

    Raises
    ------
    ValueError, TypeError
        No such layer or unit, or an argument out of its range.

    Notes
    -----
    Erhan et al. 2009, "Visualizing higher-layer features of a deep network"; Simonyan, Vedaldi & Zisserman 2014, "Deep
    inside convolutional networks", section 2.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(2, 1))
    >>> net[1].weight.data[:] = [[3, -1]]
    >>> image = visualize.maximize_unit(net, 0, np.zeros((1, 1, 1, 2), np.float32), l2=0.5, steps=300)
    >>> image.round(2)  # weight / (2 * l2) is the summit
    array([[[[ 3., -1.]]]], dtype=float32)
    """
    noise = generator(rng)
    if isinstance(start, tuple):
        dtype = next((parameter.data.dtype for parameter in model.parameters()), np.dtype(np.float32))
        start = (0.1 * noise.standard_normal([size("start", n, 1) for n in start])).astype(dtype)
    image = Tensor(batch(start, "start").copy(), requires_grad=True)
    count, shift = size("steps", steps, 0), size("jitter", jitter, 0)
    penalty = not_negative("l2", l2)
    optimizer = Adam([image], lr=lr, maximize=True)
    with inspection(model), enable_grad():
        for _ in range(count):
            moved, offsets = _moved(image.data, shift, noise)
            leaf = Tensor(moved, requires_grad=True)
            output = first_output(model(leaf)) if layer is None else outputs(model, leaf, [layer], stop=True)[layer]
            chosen_units(output.data, unit)  # checks it
            gradient = np.zeros_like(output.data)
            gradient[:, unit] = 1 / max(np.prod(output.shape[2:]), 1)
            output.backward(gradient)
            if leaf.grad is None:
                raise ValueError("the unit does not depend on the input")
            image.grad = np.roll(leaf.grad, [-n for n in offsets], _axes(image.data)) - 2 * penalty * image.data
            optimizer.step()
            limit(image.data, limits)
    return image.data


def deep_dream(
    model: Module,
    images: Any,
    layers: str | Sequence[str],
    *,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    lr: float = 0.03,
    jitter: int = 16,
    limits: tuple[float, float] | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """DeepDream: change images so that what layers find in them grows.

    Begins with the images made small, climbs the sum of squares of the layers' outputs, enlarges what was changed and
    goes on with the next larger size, up to the images' own.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode, up to the last of the layers only: a head of fixed size does not mind other sizes.
    images : array, shape (N, C, H, W)
    layers : str or sequence of str
        Names of the layers whose outputs shall grow.
    octaves : int
        Sizes, the images' own included.
    octave_scale : float
        Ratio of one size to the next, above 1.
    steps : int
        Steps at each size.
    lr : float
        Mean change of a pixel in a step: gradients are divided by their mean absolute value.
    jitter : int
        The image is moved by up to so many pixels (cyclically) in each step.
    limits : pair of float, optional
        Smallest and largest value of a pixel.
    rng : numpy.random.Generator, optional
        Of the jitter; by default that of `fastconv.manual_seed`.

    Returns
    -------
    ndarray of the shape of `images`

    Raises
    ------
    ValueError, TypeError
        No such layer, images that become too small for it, or an argument out of its range.

    Notes
    -----
    Mordvintsev, Olah & Tyka 2015, "Inceptionism: going deeper into neural networks", and their notebook "deepdream".

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> image = np.random.default_rng(0).normal(size=(1, 3, 20, 30)).astype(np.float32)
    >>> dream = visualize.deep_dream(net, image, "1", octaves=2)
    >>> dream.shape, bool((net(dream) ** 2).sum() > (net(image) ** 2).sum())
    ((1, 3, 20, 30), True)
    """
    arrays = batch(images, "images")
    if arrays.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), got shape {arrays.shape}")
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise ValueError("layers must name at least one layer")
    scale = not_negative("octave_scale", octave_scale)
    if scale <= 1:
        raise ValueError(f"octave_scale must be above 1, got {octave_scale}")
    count, shift, noise = size("steps", steps, 0), size("jitter", jitter, 0), generator(rng)
    rate = not_negative("lr", lr)
    height, width = arrays.shape[2:]
    change = np.zeros_like(arrays)
    with inspection(model), enable_grad():
        for octave in reversed(range(size("octaves", octaves, 1))):
            shape = tuple(max(round(n / scale**octave), 1) for n in (height, width))
            base = resize(arrays, shape) if octave else arrays
            dream = base + resize(change, shape)
            for _ in range(count):
                moved, offsets = _moved(dream, shift, noise)
                leaf = Tensor(moved, requires_grad=True)
                found = outputs(model, leaf, names, stop=True)
                for name in names:
                    found[name].backward(found[name].data, retain_graph=True)
                if leaf.grad is None:
                    raise ValueError(f"layers {names} do not depend on the input")
                gradient = np.roll(leaf.grad, [-n for n in offsets], (2, 3))
                mean = np.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)
                dream = dream + rate * gradient / np.where(mean > 0, mean, 1)
                limit(dream, limits)
            change = dream - base
    return dream.astype(arrays.dtype, copy=False)


def _axes(array: np.ndarray) -> tuple[int, ...]:
    """The spatial dimensions."""
    return tuple(range(2, array.ndim))


def _moved(array: np.ndarray, jitter: int, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """`array` rolled by random offsets, and the offsets."""
    offsets = rng.integers(-jitter, jitter + 1, array.ndim - 2).tolist()
    return np.roll(array, offsets, _axes(array)), offsets


def limit(array: np.ndarray, limits: tuple[float, float] | None) -> None:
    """Clip `array` in place to a pair of limits, if there is one."""
    if limits is not None:
        low, high = limits
        if not low < high:
            raise ValueError(f"limits must be (low, high) with low below high, got {limits}")
        np.clip(array, low, high, out=array)


def not_negative(name: str, value: Any) -> float:
    """`value` as a float; TypeError or ValueError with `name` unless it is finite and at least 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if not 0 <= float(value) < float("inf"):
        raise ValueError(f"{name} must be finite and not negative, got {value}")
    return float(value)
