"""Transforms of values: colour, erasing, normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...nn.modules.arguments import number
from .base import Transform, area_scale, positive_pair, probability, random_rectangles

__all__ = ["ColorJitter", "Normalize", "RandomErasing"]

# ITU-R BT.601, as Pillow and torchvision weigh red, green and blue.
_LUMA = (0.299, 0.587, 0.114)


def _factors(name: str, value: Any) -> tuple[float, float]:
    """A range of factors; one number x stands for (max(0, 1 - x), 1 + x)."""
    if isinstance(value, tuple | list):
        if len(value) != 2 or not 0 <= number(name, value[0]) <= number(name, value[1]):
            raise ValueError(f"{name} must be a number or a pair 0 <= low <= high, got {value!r}")
        return value[0], value[1]
    if not number(name, value) >= 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return max(0.0, 1 - value), 1 + value


class ColorJitter(Transform):
    """Change brightness, contrast and saturation of an image by factors drawn evenly from their ranges.

    Parameters
    ----------
    brightness, contrast, saturation : float or (low, high)
        Ranges of the factors; one number x stands for (max(0, 1 - x), 1 + x). Saturation needs three channels and is
        left out for others.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    As torchvision.transforms.ColorJitter without hue, always in this order; results are limited to 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import ColorJitter
    >>> ColorJitter(brightness=(2.0, 2.0))(np.array([[[0.25, 0.75]]]))
    array([[[0.5, 1. ]]])
    """

    def __init__(self, brightness: Any = 0.0, contrast: Any = 0.0, saturation: Any = 0.0) -> None:
        self.brightness = _factors("brightness", brightness)
        self.contrast = _factors("contrast", contrast)
        self.saturation = _factors("saturation", saturation)

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        kind = np.float32 if images.dtype.itemsize == 2 else images.dtype
        images = images.astype(kind, copy=False)
        brightness, contrast, saturation = (
            rng.uniform(*limits, (len(images), 1, 1, 1)).astype(kind)
            for limits in (self.brightness, self.contrast, self.saturation)
        )
        images = np.clip(brightness * images, 0, 1)
        mean = _grey(images).mean(axis=(1, 2, 3), keepdims=True)
        images = np.clip(contrast * images + (1 - contrast) * mean, 0, 1)
        if images.shape[1] != 3:
            return images
        grey = _grey(images)
        return np.clip(saturation * images + (1 - saturation) * grey, 0, 1)


def _grey(images: np.ndarray) -> np.ndarray:
    if images.shape[1] != 3:
        return images
    return np.tensordot(images, np.array(_LUMA, images.dtype), (1, 0))[:, None]


class RandomErasing(Transform):
    """Overwrite a random rectangle of an image with probability `p`.

    Parameters
    ----------
    p : float
        From 0 to 1.
    scale : (low, high)
        Part of the image's area, above 0 and at most 1.
    ratio : (low, high)
        Height over width, above 0.
    value : float or "random"
        What the rectangle is filled with; "random" draws each value from a standard normal distribution.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Zhong et al. 2017. As torchvision.transforms.RandomErasing, except that a rectangle too large for the image is cut.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import RandomErasing
    >>> RandomErasing(1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0))(np.ones((1, 2, 2)))
    array([[[0., 0.],
            [0., 0.]]])
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: Any = 0.0,
    ) -> None:
        self.p = probability("p", p)
        self.scale, self.ratio = area_scale(scale), positive_pair("ratio", ratio)
        self.value = value if value == "random" else number("value", value)

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, _, height, width = images.shape
        one_each = (count, 1, 1, 1)
        chosen = rng.random(one_each) < self.p
        heights, widths = random_rectangles(rng, one_each, (height, width), self.scale, self.ratio)
        # From numbers without limits of their own, so that every draw has one row for each image.
        down = np.arange(height)[:, None] - np.floor(rng.random(one_each) * (height - heights + 1))
        right = np.arange(width) - np.floor(rng.random(one_each) * (width - widths + 1))
        inside = (down >= 0) & (down < heights) & (right >= 0) & (right < widths) & chosen
        value = rng.standard_normal(images.shape, np.float32) if self.value == "random" else self.value
        return np.where(inside, value, images)


class Normalize(Transform):
    """(x - mean) / std, for each channel.

    Parameters
    ----------
    mean, std : float or sequence of float
        One number for all channels, or one for each; `std` above 0.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the call, images of another number of channels.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import Normalize
    >>> Normalize(mean=0.5, std=0.25)(np.array([[[0.5, 1.0]]]))
    array([[[0., 2.]]])
    """

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = (
            tuple(float(number(name, part)) for part in (value if np.ndim(value) == 1 else (value,)))
            for name, value in (("mean", mean), ("std", std))
        )
        if not all(part > 0 for part in self.std):
            raise ValueError(f"std must be above 0, got {std}")

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for name, value in (("mean", self.mean), ("std", self.std)):
            if len(value) not in (1, images.shape[1]):
                raise ValueError(f"{name} must be one number or one for each of {images.shape[1]} channels")
        kind = np.float32 if images.dtype.itemsize == 2 else images.dtype
        mean, std = (np.array(value, kind).reshape(1, -1, 1, 1) for value in (self.mean, self.std))
        return (images.astype(kind, copy=False) - mean) / std
