"""Which part of an image made the network say so: gradients, Grad-CAM, occlusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv.nn.modules.arguments import sizes
from fastconv.nn.modules.module import Module
from fastconv.tape import enable_grad, no_grad, substitute_rules
from fastconv.tensor import Tensor
from fastconv.visualize.images import resize
from fastconv.visualize.layers import (
    Target,
    backpropagate,
    batch,
    chosen_units,
    first_output,
    hooks,
    inspection,
    outputs,
)

__all__ = ["deconvnet", "grad_cam", "guided_backprop", "input_gradient", "occlusion_map", "saliency"]

_RECTIFIERS = tuple(function.spec.rule for function in (F.relu, F.relu6, F.leaky_relu))


def _guided(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rectifier whose pullback drops negative gradients besides those of negative inputs."""

    def guided_rule(wanted, *arguments):
        y, pullback = rule(wanted, *arguments)
        return y, lambda dy: pullback(np.maximum(dy, 0))

    return guided_rule


def _rectified_backwards(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rectifier whose pullback rectifies the gradient, whatever the input was."""

    def deconvnet_rule(wanted, *arguments):
        return rule(wanted, *arguments)[0], lambda dy: (np.maximum(dy, 0),)

    return deconvnet_rule


_RULES = {"guided": _guided, "deconvnet": _rectified_backwards}


def _gradient(model: Module, x: Any, target: Target, layer: str | None, rectifier: str | None) -> np.ndarray:
    leaf = Tensor(batch(x), requires_grad=True)
    if rectifier is None:
        changed: Any = nullcontext()
    else:
        change = _RULES[rectifier]
        changed = substitute_rules(lambda spec: change(spec.rule) if spec.rule in _RECTIFIERS else spec.rule)
    with inspection(model), enable_grad(), changed:
        output = first_output(model(leaf)) if layer is None else outputs(model, leaf, [layer])[layer]
        backpropagate(output, target)
    return np.zeros_like(leaf.data) if leaf.grad is None else leaf.grad


def input_gradient(model: Module, x: Any, target: Target = None, layer: str | None = None) -> np.ndarray:
    """Gradient of a score by the image.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode. Neither its mode nor its parameters' gradients are changed.
    x : array, shape (N, C, H, W) or any other with a batch dimension
        Images, in the model's dtype.
    target : int, sequence of N ints, callable, or None
        The class (or the channel of `layer`) that is asked about: one for all images or one for each; None is the
        strongest of each image. A function maps the output, a Tensor, to a Tensor with one score for each image.
    layer : str, optional
        Ask about a unit of this layer instead of the output. In a map the score is its strongest position.

    Returns
    -------
    ndarray of the shape of `x`

    Raises
    ------
    ValueError
        No such layer or unit, or `x` is no batch.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data[:] = [[3, -1]]
    >>> visualize.input_gradient(net, np.ones((1, 2), np.float32), target=0)
    array([[ 3., -1.]], dtype=float32)
    """
    return _gradient(model, x, target, layer, None)


def saliency(model: Module, x: Any, target: Target = None, layer: str | None = None) -> np.ndarray:
    """Saliency map: the size of the score's gradient at each pixel.

    Parameters
    ----------
    model, x, target, layer
        As for `input_gradient`; `x` is (N, C, H, W).

    Returns
    -------
    ndarray, shape (N, H, W)
        Largest absolute gradient over the channels.

    Raises
    ------
    ValueError
        As `input_gradient`.

    Notes
    -----
    Simonyan, Vedaldi & Zisserman 2014, "Deep inside convolutional networks", section 3.1.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    >>> visualize.saliency(net, np.ones((2, 3, 8, 8), np.float32), target=[7, 1]).shape
    (2, 8, 8)
    """
    return np.abs(input_gradient(model, x, target, layer)).max(axis=1)


def guided_backprop(model: Module, x: Any, target: Target = None, layer: str | None = None) -> np.ndarray:
    """Guided backpropagation: the gradient with negative signals dropped at every rectifier.

    Parameters
    ----------
    model, x, target, layer
        As for `input_gradient`. ReLU, ReLU6 and leaky ReLU are guided, as modules and as functions.

    Returns
    -------
    ndarray of the shape of `x`

    Raises
    ------
    ValueError
        As `input_gradient`.

    Notes
    -----
    Springenberg, Dosovitskiy, Brox & Riedmiller 2015, "Striving for simplicity: the all convolutional net".

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data[:], net[2].weight.data[:] = [[1], [1]], [[2, -3]]
    >>> x = np.ones((1, 1), np.float32)
    >>> visualize.input_gradient(net, x), visualize.guided_backprop(net, x)
    (array([[-1.]], dtype=float32), array([[2.]], dtype=float32))
    """
    return _gradient(model, x, target, layer, "guided")


def deconvnet(model: Module, x: Any, target: Target = None, layer: str | None = None) -> np.ndarray:
    """Projection of a unit back to the image by a deconvolutional network.

    Every layer is run in reverse: max pooling through its switches (each value goes back to where the maximum was,
    which is `max_unpool2d`; where windows overlap, what meets at one place is added), a rectifier as a rectifier of
    what comes back, and a convolution as its transpose.

    Parameters
    ----------
    model, x, target, layer
        As for `input_gradient`. Usually `layer` names a feature layer and `target` one of its channels: the strongest
        position of the map is projected alone, as in the paper.

    Returns
    -------
    ndarray of the shape of `x`

    Raises
    ------
    ValueError
        As `input_gradient`.

    Notes
    -----
    Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks". The signal starts as 1 instead of as
    the activation, which scales the picture only.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(2))
    >>> net[0].weight.data[:], net[0].bias.data[:] = 2, 0
    >>> image = np.array([[[[1, 5], [3, 4]]]], np.float32)
    >>> visualize.deconvnet(net, image, target=0)
    array([[[[0., 2.],
             [0., 0.]]]], dtype=float32)
    """
    return _gradient(model, x, target, layer, "deconvnet")


def grad_cam(model: Module, x: Any, layer: str, target: Target = None, *, upsample: bool = True) -> np.ndarray:
    """Grad-CAM: the maps of a layer, weighted by how much the score depends on each.

    ``relu(sum over k of a[k] * A[k])`` with ``a[k]`` the mean of the gradient of the score by map ``A[k]``.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode. Neither its mode nor its parameters' gradients are changed.
    x : array, shape (N, C, H, W)
    layer : str
        A layer whose output is (N, K, P, Q), as a rule the last one before the head.
    target : int, sequence of N ints, callable, or None
        As for `input_gradient`.
    upsample : bool
        Whether the map is enlarged to (H, W) by linear interpolation.

    Returns
    -------
    ndarray, shape (N, H, W) or (N, P, Q)
        Not negative, not normalised.

    Raises
    ------
    ValueError
        No such layer, a layer without maps, or one that the output does not depend on.

    Notes
    -----
    Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization". For a
    network that ends in global average pooling and one linear layer it is the class activation map of Zhou et al. 2016,
    up to the factor 1 / (P Q).

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> visualize.grad_cam(net, np.ones((2, 3, 16, 16), np.float32), "1", target=3).shape
    (2, 16, 16)
    """
    images = batch(x)
    leaf: list[Any] = []

    def restart(_name: str, output: Any) -> Any:
        """Begin the record here: what lies before the layer needs no gradient."""
        maps = first_output(output)
        if maps.ndim != 4:
            raise ValueError(f"layer must give maps (N, K, P, Q), {layer!r} gives shape {maps.shape}")
        leaf[:] = [Tensor(maps.data, requires_grad=True)]
        return (leaf[0], *output[1:]) if isinstance(output, tuple) else leaf[0]

    with inspection(model), enable_grad(), hooks(model, [layer], restart):
        output = first_output(model(Tensor(images)))
        if not leaf or not output.requires_grad:
            raise ValueError(f"the output does not depend on layer {layer!r}")
        backpropagate(output, target)
    maps, gradient = leaf[0].data, leaf[0].grad
    if gradient is None:
        raise ValueError(f"the score does not depend on layer {layer!r}")
    weights = gradient.mean(axis=(2, 3), keepdims=True)
    cam = np.maximum((weights * maps).sum(axis=1), 0)
    return resize(cam, images.shape[2:]) if upsample else cam


def occlusion_map(
    model: Module,
    x: Any,
    target: Target = None,
    *,
    window: int | Sequence[int] = 8,
    stride: int | Sequence[int] | None = None,
    value: float = 0.0,
    batch_size: int = 64,
) -> np.ndarray:
    """How much the score falls when a window of the image is covered.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode.
    x : array, shape (N, C, H, W)
    target : int, sequence of N ints, callable, or None
        As for `input_gradient`; None is the strongest class of the uncovered image.
    window : int or pair of int
        Size of the covered rectangle, at most that of the image.
    stride : int or pair of int, optional
        Its steps; by default half a window. The last window of a row ends at the border, so that all pixels count.
    value : float
        What covers it.
    batch_size : int
        Covered images that run at a time.

    Returns
    -------
    ndarray, shape (N, H, W)
        At each pixel the mean fall of the score over the windows that covered it: positive where the pixel speaks for
        the class, negative where against.

    Raises
    ------
    ValueError, TypeError
        A window that does not fit, or an argument out of its range.

    Notes
    -----
    Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    >>> net[1].weight.data[:] = [[0, 0, 5, 1]]
    >>> visualize.occlusion_map(net, np.ones((1, 1, 2, 2), np.float32), 0, window=1)
    array([[[0., 0.],
            [5., 1.]]], dtype=float32)
    """
    images = batch(x)
    if images.ndim != 4:
        raise ValueError(f"x must be images (N, C, H, W), got shape {images.shape}")
    height, width = images.shape[2:]
    rows, columns = sizes("window", window, 2, 1)
    if rows > height or columns > width:
        raise ValueError(f"window must fit the image of {height} x {width}, got {rows} x {columns}")
    steps = (max(rows // 2, 1), max(columns // 2, 1)) if stride is None else sizes("stride", stride, 2, 1)
    (at_once,) = sizes("batch_size", batch_size, 1, 1)
    places = [(top, left) for top in _starts(height, rows, steps[0]) for left in _starts(width, columns, steps[1])]
    fall = np.zeros(images.shape[:1] + images.shape[2:], np.float64)
    count = np.zeros((height, width))
    with inspection(model), no_grad():
        output = first_output(model(Tensor(images)))
        units = target if callable(target) else chosen_units(output.data, target)
        for i, image in enumerate(images):
            unit = units if callable(units) else int(units[i])
            full = _scores(output[i : i + 1], unit)[0]
            for first in range(0, len(places), at_once):
                part = places[first : first + at_once]
                covered = np.repeat(image[None], len(part), axis=0)
                for copy, (top, left) in zip(covered, part):
                    copy[:, top : top + rows, left : left + columns] = value
                scores = _scores(first_output(model(Tensor(covered))), unit)
                for (top, left), score in zip(part, scores):
                    fall[i, top : top + rows, left : left + columns] += full - score
    for top, left in places:
        count[top : top + rows, left : left + columns] += 1
    return (fall / count).astype(output.dtype)


def _starts(length: int, window: int, step: int) -> list[int]:
    starts = list(range(0, length - window + 1, step))
    return starts if starts[-1] == length - window else [*starts, length - window]


def _scores(output: Any, unit: Any) -> np.ndarray:
    """The scores in float64, without a record."""
    if callable(unit):
        return np.asarray(unit(output).data, np.float64)
    return np.asarray(output.data[:, unit].reshape(len(output.data), -1).max(axis=1), np.float64)
