"""Resizing, of crops too; rotation, shift and zoom, affine maps with bilinear interpolation, a whole batch at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...nn.modules.arguments import choice, number, sizes
from ...nn.modules.arguments import size as whole
from .base import Transform, area_scale, pair_of_numbers, positive_pair, random_rectangles

__all__ = ["RandomAffine", "RandomResizedCrop", "RandomRotation", "RandomTranslation", "RandomZoom", "Resize"]


def _resizing(have: int, want: int, dtype: np.dtype) -> np.ndarray:
    """Weights (want, have) of a triangle about each new pixel, which is as wide as the new pixels are apart."""
    scale = have / want
    width = max(scale, 1.0)
    centres = (np.arange(want) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(have)) / width)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(dtype)


def _size_of(images: np.ndarray) -> tuple[int, ...]:
    if 0 in images.shape[2:]:
        raise ValueError(f"images must have at least one pixel, got shape {images.shape}")
    return images.shape[2:]


def _wide(images: np.ndarray) -> np.ndarray:
    return images if images.dtype.itemsize > 2 else images.astype(np.float32)


def _resized(images: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    rows, columns = (_resizing(*ends, images.dtype) for ends in zip(images.shape[-2:], size))
    return rows @ images @ columns.T


class Resize(Transform):
    """Another size, by bilinear interpolation; averages over all pixels where it shrinks.

    Parameters
    ----------
    size : int or (height, width)
        One number is the length of the shorter edge; the other edge keeps the proportions.

    Raises
    ------
    ValueError, TypeError
        `size` breaks its rule.

    Notes
    -----
    As Pillow's BILINEAR and torchvision.transforms.Resize with antialias.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import Resize
    >>> Resize((1, 4))(np.array([[[0.0, 1.0]]]))
    array([[[0.  , 0.25, 0.75, 1.  ]]])
    >>> Resize(8)(np.zeros((3, 16, 30))).shape
    (3, 8, 15)
    """

    def __init__(self, size: Any) -> None:
        self.size: int | tuple[int, ...]
        self.size = sizes("size", size, 2, 1) if isinstance(size, tuple | list) else whole("size", size, 1)

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        have = _size_of(images)
        want = self.size
        if isinstance(want, int):
            want = tuple(want * n // min(have) for n in have)
        return images.copy() if have == want else _resized(_wide(images), want)


class RandomResizedCrop(Transform):
    """A part of an image of random size, proportions and place, in one size: how networks for ImageNet are trained.

    Parameters
    ----------
    size : int or (height, width)
        Of the result.
    scale : (low, high)
        Range of the part's share of the area, at most 1.
    ratio : (low, high)
        Range of its width over its height; its logarithm is drawn evenly.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Szegedy et al. 2015, section 6. As torchvision.transforms.RandomResizedCrop with antialias, except that a part too
    large for the image is cut, not drawn again.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import RandomResizedCrop
    >>> RandomResizedCrop(8)(np.zeros((2, 3, 20, 30))).shape
    (2, 3, 8, 8)
    """

    def __init__(
        self, size: Any, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ) -> None:
        self.size = sizes("size", size, 2, 1)
        self.scale, self.ratio = area_scale(scale), positive_pair("ratio", ratio)

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count = len(images)
        height, width = _size_of(images)
        across, down = random_rectangles(rng, (count,), (width, height), self.scale, self.ratio)
        tops, lefts = (
            (rng.random(count) * (n - part + 1)).astype(int) for n, part in ((height, down), (width, across))
        )
        work = _wide(images)
        result = np.empty((*images.shape[:2], *self.size), work.dtype)
        for image, out, top, left, h, w in zip(work, result, tops, lefts, down, across):
            out[...] = _resized(image[:, top : top + h, left : left + w], self.size)
        return result


def _bilinear(images: np.ndarray, y: np.ndarray, x: np.ndarray, fill: float | None) -> np.ndarray:
    """Values of images (N, C, H, W) at the positions y, x (N, P, Q); outside `fill`, or the nearest pixel for None."""
    count, channels = images.shape[:2]
    result = np.empty((count, channels, *y.shape[1:]), images.dtype)
    # A frame of one pixel stands for all that lies outside: positions are limited to it.
    frame = 0 if fill is None else 1
    for image, rows, columns, out in zip(images, y, x, result):
        if fill is not None:
            image = np.pad(image, ((0, 0), (1, 1), (1, 1)), constant_values=fill)
        height, width = image.shape[1:]
        pixels = np.ascontiguousarray(image.reshape(channels, height * width).T)  # a position's channels side by side
        corners = []
        for position, end in ((rows, height - 1), (columns, width - 1)):
            limited = np.clip(position + frame, 0, end)
            low = limited.astype(np.intp)
            corners.append((low, np.minimum(low + 1, end), (limited - low).astype(images.dtype)[..., None]))
        (top, bottom, down), (left, right, over) = corners
        upper = pixels[top * width + left] * (1 - over) + pixels[top * width + right] * over
        lower = pixels[bottom * width + left] * (1 - over) + pixels[bottom * width + right] * over
        out[...] = np.moveaxis(upper * (1 - down) + lower * down, -1, 0)
    return result


class RandomAffine(Transform):
    """Rotate, shift and zoom an image, each by an amount drawn evenly from its range.

    Parameters
    ----------
    degrees : float or (low, high)
        Angle, counter-clockwise; one number x stands for (-x, x).
    translate : float or (float, float)
        Largest shift as a part of width and height, in this order, up to 1.
    scale : (low, high)
        Factor of the size; above 1 magnifies.
    fill : float, keyword only
        Value of what comes from outside.
    padding_mode : {"constant", "edge"}, keyword only
        "edge" takes the nearest pixel instead of `fill`.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    About the image's centre, bilinear interpolation. As torchvision.transforms.RandomAffine, which turns clockwise and
    shears, too.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import RandomAffine
    >>> RandomAffine((90, 90))(np.array([[[1.0, 2.0], [3.0, 4.0]]])).round(6)
    array([[[2., 4.],
            [1., 3.]]])
    """

    def __init__(
        self,
        degrees: Any = 0.0,
        translate: Any = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        *,
        fill: float = 0.0,
        padding_mode: str = "constant",
    ) -> None:
        self.degrees = pair_of_numbers("degrees", degrees)
        shift: tuple[float, ...] = tuple(translate) if isinstance(translate, tuple | list) else (translate, translate)
        if len(shift) != 2 or not all(0 <= number("translate", part) <= 1 for part in shift):
            raise ValueError(f"translate must be one number or two, from 0 to 1; got {translate!r}")
        self.translate = shift
        self.scale = positive_pair("scale", scale)
        self.fill = number("fill", fill)
        self.padding_mode = choice("padding_mode", padding_mode, ("constant", "edge"))

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, _, height, width = images.shape
        angle = np.deg2rad(rng.uniform(*self.degrees, (count, 1, 1)))
        down, right = (rng.uniform(-part, part, (count, 1, 1)) for part in reversed(self.translate))
        zoom = rng.uniform(*self.scale, (count, 1, 1))
        # Where each pixel of the result comes from: the inverse map, about the centre.
        rows = np.arange(height)[None, :, None] - (height - 1) / 2 - down * height
        columns = np.arange(width)[None, None, :] - (width - 1) / 2 - right * width
        sine, cosine = np.sin(angle) / zoom, np.cos(angle) / zoom
        y = cosine * rows + sine * columns + (height - 1) / 2
        x = cosine * columns - sine * rows + (width - 1) / 2
        return _bilinear(_wide(images), y, x, self.fill if self.padding_mode == "constant" else None)


class RandomRotation(RandomAffine):
    """Rotate an image about its centre.

    Parameters
    ----------
    degrees : float or (low, high)
        Angle, counter-clockwise; one number x stands for (-x, x).
    fill, padding_mode
        As for :class:`RandomAffine`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import RandomRotation
    >>> RandomRotation((180, 180))(np.array([[[1.0, 2.0, 3.0]]])).round(6)
    array([[[3., 2., 1.]]])
    """

    def __init__(self, degrees: Any, *, fill: float = 0.0, padding_mode: str = "constant") -> None:
        super().__init__(degrees, fill=fill, padding_mode=padding_mode)


class RandomTranslation(RandomAffine):
    """Shift an image.

    Parameters
    ----------
    translate : float or (float, float)
        Largest shift as a part of width and height, in this order, up to 1.
    fill, padding_mode
        As for :class:`RandomAffine`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import RandomTranslation
    >>> RandomTranslation(0.2)(np.zeros((2, 3, 8, 8))).shape
    (2, 3, 8, 8)
    """

    def __init__(self, translate: Any, *, fill: float = 0.0, padding_mode: str = "constant") -> None:
        super().__init__(0.0, translate, fill=fill, padding_mode=padding_mode)


class RandomZoom(RandomAffine):
    """Magnify or shrink an image about its centre.

    Parameters
    ----------
    scale : (low, high)
        Factor of the size; above 1 magnifies.
    fill, padding_mode
        As for :class:`RandomAffine`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import RandomZoom
    >>> RandomZoom((3.0, 3.0))(np.array([[[0.0, 7.0, 0.0]]])).round(3)
    array([[[4.667, 7.   , 4.667]]])
    """

    def __init__(self, scale: tuple[float, float], *, fill: float = 0.0, padding_mode: str = "constant") -> None:
        super().__init__(0.0, 0.0, scale, fill=fill, padding_mode=padding_mode)
