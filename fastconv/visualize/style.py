"""Neural style transfer: an image with the content of one and the style of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv.nn.modules.arguments import size
from fastconv.nn.modules.module import Module
from fastconv.optim import Adam
from fastconv.tape import enable_grad, no_grad
from fastconv.tensor import Tensor
from fastconv.visualize.layers import batch, inspection, outputs
from fastconv.visualize.synthesis import limit, not_negative

__all__ = ["StyleTransfer", "gram_matrix", "style_transfer"]

Layers = str | Sequence[str] | Mapping[str, float]


class StyleTransfer(NamedTuple):
    """The image, and the loss before each step.

    Attributes
    ----------
    image : ndarray, shape (N, C, H, W)
    content_losses, style_losses : list of float
        The two parts of the loss, without their weights.
    """

    image: np.ndarray
    content_losses: list[float]
    style_losses: list[float]


def gram_matrix(features: Any) -> Any:
    """Correlations of the channels of a layer's output, which keep its style and forget its places.

    Parameters
    ----------
    features : array or Tensor, shape (N, C, ...)

    Returns
    -------
    array or Tensor, shape (N, C, C)
        ``G[n, i, j]``: mean over the positions of ``features[n, i] * features[n, j]``. Gatys' matrix is the sum; the
        mean lets images of different sizes be compared.

    Raises
    ------
    ValueError
        Fewer than three dimensions.

    Notes
    -----
    Gatys, Ecker & Bethge 2016, "Image style transfer using convolutional neural networks", equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import visualize
    >>> visualize.gram_matrix(np.array([[[1.0, 3.0], [1.0, -1.0]]]))
    array([[[ 5., -1.],
            [-1.,  1.]]])
    """
    if len(features.shape) < 3:
        raise ValueError(f"features must be (N, C, ...), got shape {features.shape}")
    count, channels = features.shape[:2]
    flat = features.reshape(count, channels, -1)
    other = flat.transpose(1, 2) if isinstance(flat, Tensor) else flat.swapaxes(1, 2)
    return flat @ other / flat.shape[2]


def style_transfer(
    model: Module,
    content: Any,
    style: Any,
    content_layers: Layers,
    style_layers: Layers,
    *,
    content_weight: float = 1.0,
    style_weight: float = 100.0,
    steps: int = 300,
    lr: float = 0.02,
    start: Any = None,
    limits: tuple[float, float] | None = None,
) -> StyleTransfer:
    """An image whose deep layers look like `content` and whose correlations are those of `style`.

    Minimises, with Adam, ``content_weight`` times the mean square difference of the content layers' outputs, plus
    ``style_weight`` times ``sum((G - A)**2) / (4 C**2)`` over the Gram matrices of the style layers' C channels.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode, up to the last of the layers only.
    content : array, shape (N, C, H, W)
    style : array, shape (1 or N, C, any height, any width)
    content_layers, style_layers : str, sequence of str, or mapping of str to float
        Names of layers, in a mapping with their weights; otherwise the layers of each kind share a weight of 1.
    content_weight, style_weight : float
        Not negative.
    steps : int
    lr : float
        Step size of Adam, in units of the image's values.
    start : array of the shape of `content`, optional
        Image to begin with; by default `content`.
    limits : pair of float, optional
        Smallest and largest value of a pixel.

    Returns
    -------
    StyleTransfer
        The image and the losses on the way.

    Raises
    ------
    ValueError, TypeError
        No such layer, images that do not fit together, or an argument out of its range.

    Notes
    -----
    Gatys, Ecker & Bethge 2016, "Image style transfer using convolutional neural networks" (which took conv4_2 of VGG-19
    for content, conv1_1 to conv5_1 for style, and L-BFGS to minimise).

    Examples
    --------
    >>> import numpy as np, fastconv as fc, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> _ = fc.manual_seed(0)
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> photo, painting = np.random.default_rng(0).uniform(size=(2, 1, 3, 16, 16)).astype(np.float32)
    >>> result = visualize.style_transfer(net, photo, painting, "2", ["0", "2"], steps=20)
    >>> result.image.shape, result.style_losses[-1] < result.style_losses[0]
    ((1, 3, 16, 16), True)
    """
    target, style_images = batch(content, "content"), batch(style, "style")
    image = Tensor((target if start is None else batch(start, "start")).copy(), requires_grad=True)
    if target.ndim != 4 or image.shape != target.shape or image.dtype != target.dtype:
        raise ValueError(
            f"content must be (N, C, H, W) and start of its shape and dtype, got {target.shape} {target.dtype} and "
            f"{image.shape} {image.dtype}"
        )
    if style_images.ndim != 4 or style_images.shape[1] != target.shape[1]:
        raise ValueError(f"style must be (N, {target.shape[1]}, H, W), got shape {style_images.shape}")
    if len(style_images) not in (1, len(target)):
        raise ValueError(f"style must be one image or {len(target)}, got {len(style_images)}")
    of_content, of_style = _weights("content_layers", content_layers), _weights("style_layers", style_layers)
    alpha, beta = not_negative("content_weight", content_weight), not_negative("style_weight", style_weight)
    names = [*dict.fromkeys([*of_content, *of_style])]
    losses: tuple[list[float], list[float]] = ([], [])
    optimizer = Adam([image], lr=lr)
    with inspection(model):
        with no_grad():
            kept = outputs(model, Tensor(target), list(of_content), stop=True)
            grams = {
                name: gram_matrix(found).data
                for name, found in outputs(model, Tensor(style_images), list(of_style), stop=True).items()
            }
        with enable_grad():
            for _ in range(size("steps", steps, 0)):
                found = outputs(model, image, names, stop=True)
                content_loss = sum(
                    (weight * ((found[name] - kept[name].data) ** 2).mean() for name, weight in of_content.items()),
                    start=Tensor(np.zeros((), image.dtype)),
                )
                style_loss = sum(
                    (
                        weight * ((gram_matrix(found[name]) - grams[name]) ** 2).sum() / (4 * found[name].shape[1] ** 2)
                        for name, weight in of_style.items()
                    ),
                    start=Tensor(np.zeros((), image.dtype)),
                )
                losses[0].append(float(content_loss))
                losses[1].append(float(style_loss))
                optimizer.zero_grad()
                (alpha * content_loss + beta * style_loss).backward()
                optimizer.step()
                limit(image.data, limits)
    return StyleTransfer(image.data, *losses)


def _weights(name: str, layers: Layers) -> dict[str, float]:
    if isinstance(layers, Mapping):
        weights = {layer: not_negative(f"{name}[{layer!r}]", weight) for layer, weight in layers.items()}
    else:
        listed = [layers] if isinstance(layers, str) else list(layers)
        weights = {layer: 1 / len(listed) for layer in listed}
    if not weights:
        raise ValueError(f"{name} must name at least one layer")
    return weights
