"""Transforms that move pixels without changing them: flips and crops."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...nn.modules.arguments import choice, number, sizes
from ...nn.modules.arguments import size as whole
from .base import Transform, probability

__all__ = ["CenterCrop", "RandomCrop", "RandomHorizontalFlip", "RandomVerticalFlip"]

_PADDINGS = ("constant", "edge", "reflect")


class RandomHorizontalFlip(Transform):
    """Mirror an image left to right with probability `p`.

    Parameters
    ----------
    p : float
        From 0 to 1.

    Raises
    ------
    ValueError, TypeError
        `p` breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import RandomHorizontalFlip
    >>> RandomHorizontalFlip(1.0)(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[3., 2., 1.]]])
    """

    _axis = -1

    def __init__(self, p: float = 0.5) -> None:
        self.p = probability("p", p)

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.random(len(images)) < self.p
        return np.where(chosen[:, None, None, None], np.flip(images, self._axis), images)


class RandomVerticalFlip(RandomHorizontalFlip):
    """Mirror an image top to bottom with probability `p`.

    Parameters
    ----------
    p : float
        From 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import RandomVerticalFlip
    >>> RandomVerticalFlip(1.0)(np.array([[[1.0], [2.0]]]))
    array([[[2.],
            [1.]]])
    """

    _axis = -2


def _crops(images: np.ndarray, tops: np.ndarray, lefts: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    rows = tops[:, None] + np.arange(size[0])
    columns = lefts[:, None] + np.arange(size[1])
    channels = np.arange(images.shape[1])[None, :, None, None]
    number_of_image = np.arange(len(images))[:, None, None, None]
    return images[number_of_image, channels, rows[:, None, :, None], columns[:, None, None, :]]


class RandomCrop(Transform):
    """A part of an image at a random place, of the image with a margin where `padding` is given.

    Parameters
    ----------
    size : int or (height, width)
        Of the result.
    padding : int
        Pixels added on all sides first.
    padding_mode : {"constant", "edge", "reflect"}
        What they hold: `fill`, the nearest pixel, or the image mirrored.
    fill : float

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, images that are smaller than `size` or, mirrored, than `padding`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import RandomCrop
    >>> RandomCrop(28, padding=2)(np.zeros((4, 1, 28, 28))).shape
    (4, 1, 28, 28)
    """

    def __init__(self, size: Any, padding: int = 0, padding_mode: str = "constant", fill: float = 0.0) -> None:
        self.size = sizes("size", size, 2, 1)
        self.padding = whole("padding", padding, 0)
        self.padding_mode = choice("padding_mode", padding_mode, _PADDINGS)
        self.fill = number("fill", fill)

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.padding:
            if self.padding_mode == "reflect" and self.padding >= min(images.shape[2:]):
                raise ValueError(f"padding must be below the images' size {images.shape[2:]}, got {self.padding}")
            widths = ((0, 0), (0, 0), (self.padding,) * 2, (self.padding,) * 2)
            options: dict[str, Any] = {"constant_values": self.fill} if self.padding_mode == "constant" else {}
            images = np.pad(images, widths, self.padding_mode, **options)  # type: ignore[call-overload]
        room = [have - want for have, want in zip(images.shape[2:], self.size)]
        if min(room) < 0:
            raise ValueError(f"size must fit into the images, {images.shape[2:]} with their padding; got {self.size}")
        tops, lefts = (rng.integers(0, free + 1, len(images)) for free in room)
        return _crops(images, tops, lefts, self.size)


class CenterCrop(Transform):
    """The middle of an image.

    Parameters
    ----------
    size : int or (height, width)
        Where the halves of what is cut off differ by a pixel, the larger one is where torchvision has it.

    Raises
    ------
    ValueError, TypeError
        `size` breaks its rule; at the call, images that are smaller.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import CenterCrop
    >>> CenterCrop((1, 2))(np.arange(4.0).reshape(1, 1, 4))
    array([[[1., 2.]]])
    """

    def __init__(self, size: Any) -> None:
        self.size = sizes("size", size, 2, 1)

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        room = [have - want for have, want in zip(images.shape[2:], self.size)]
        if min(room) < 0:
            raise ValueError(f"size must fit into the images {images.shape[2:]}, got {self.size}")
        top, left = (round(free / 2) for free in room)
        return images[:, :, top : top + self.size[0], left : left + self.size[1]].copy()
