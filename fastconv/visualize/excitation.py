"""The inputs that excite a unit most, cut to what the unit can see of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.nn.modules.arguments import size
from fastconv.nn.modules.module import Module
from fastconv.tape import no_grad
from fastconv.tensor import Tensor
from fastconv.visualize.layers import batch, inspection, outputs, score_gradient
from fastconv.visualize.receptive import receptive_field

__all__ = ["Excitation", "strongest_inputs"]


@dataclass(frozen=True)
class Excitation:
    """One input and where in it a unit is excited most.

    Attributes
    ----------
    score : float
        Output of the unit there.
    index : int
        Which of the images it is.
    position : tuple of int
        Place of the unit in its map; empty for a layer without maps, whose units see the whole image.
    box : tuple of (int, int)
        (start, stop) of the unit's receptive field in each dimension, outside the image included.
    patch : ndarray, shape (C, ...)
        The image inside `box`, zeros outside the image.
    """

    score: float
    index: int
    position: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    patch: np.ndarray


def strongest_inputs(
    model: Module, images: Any, layer: str, unit: int, count: int = 9, *, batch_size: int = 64
) -> list[Excitation]:
    """The images that excite a unit most, with the patch that it sees.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode.
    images : array, shape (N, C, H, W), (N, C, L) or (N, C, D, H, W)
    layer : str
        Name of the layer.
    unit : int
        Channel of its maps, or the unit of a layer without maps.
    count : int
        Images wanted. Of each image its strongest position counts.
    batch_size : int
        Images that run at a time.

    Returns
    -------
    list of Excitation
        `count` of them, fewer if there are fewer images; the strongest first, of equal ones the earlier.

    Raises
    ------
    ValueError, TypeError
        No such layer or unit, or an argument out of its range.

    Notes
    -----
    Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", figure 2, where `deconvnet` of the
    same image is shown beside each patch.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.ReLU())
    >>> net[0].weight.data[:] = [[[[1, 0], [0, 1]]]]
    >>> images = np.zeros((3, 1, 4, 4), np.float32)
    >>> images[1, 0, 1, 2] = images[1, 0, 2, 3] = 1
    >>> best = visualize.strongest_inputs(net, images, "1", 0, count=1)[0]
    >>> best.index, best.position, best.box
    (1, (1, 2), ((1, 3), (2, 4)))
    >>> best.patch
    array([[[1., 0.],
            [0., 1.]]], dtype=float32)
    """
    arrays = batch(images, "images")
    wanted = size("count", count, 1)
    unit = size("unit", unit, 0)
    scores, positions = [], []
    for part in _parts(arrays, size("batch_size", batch_size, 1)):
        with inspection(model), no_grad():
            output = outputs(model, Tensor(part), [layer])[layer]
        values, strongest = score_gradient(output, unit)
        scores.append(values)
        positions.append(np.argwhere(strongest)[:, 2:])
    score, position = np.concatenate(scores), np.concatenate(positions)
    maps = position.shape[1] == arrays.ndim - 2 > 0
    field = receptive_field(model, (1, *arrays.shape[1:]), layer) if maps else None
    found = []
    for index in np.argsort(-score.astype(np.float64), kind="stable")[:wanted]:
        place = tuple(int(i) for i in position[index])
        box = field.box(place) if field else tuple((0, n) for n in arrays.shape[2:])
        found.append(Excitation(float(score[index]), int(index), place, box, _cut(arrays[index], box)))
    return found


def _parts(arrays: np.ndarray, count: int) -> Iterator[np.ndarray]:
    return (arrays[first : first + count] for first in range(0, len(arrays), count))


def _cut(image: np.ndarray, box: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The part of an image inside a box, zeros where the box lies outside."""
    patch = np.zeros((*image.shape[: image.ndim - len(box)], *(stop - start for start, stop in box)), image.dtype)
    inner: Any = []
    outer: Any = []
    for (start, stop), n in zip(box, image.shape[image.ndim - len(box) :]):
        low, high = min(max(start, 0), n), min(max(stop, 0), n)
        outer.append(slice(low, high))
        inner.append(slice(low - start, high - start))
    patch[(..., *inner)] = image[(..., *outer)]
    return patch
