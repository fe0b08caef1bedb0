"""What all transforms have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...nn.modules.arguments import number
from ...random import generator

__all__ = [
    "Compose",
    "Transform",
    "area_scale",
    "pair_of_numbers",
    "positive_pair",
    "probability",
    "random_rectangles",
]


def probability(name: str, value: Any) -> float:
    """`value`, which must lie from 0 to 1."""
    if not 0 <= number(name, value) <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {value}")
    return value


def pair_of_numbers(name: str, value: Any) -> tuple[float, float]:
    """`value` as a rising pair; one number x stands for (-x, x)."""
    if isinstance(value, tuple | list):
        if len(value) != 2 or not number(name, value[0]) <= number(name, value[1]):
            raise ValueError(f"{name} must be a number or a pair (low, high), got {value!r}")
        return value[0], value[1]
    if not number(name, value) >= 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return -value, value


def positive_pair(name: str, value: Any) -> tuple[float, float]:
    """`value`, which must be a rising pair of numbers above 0."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name} must be a pair (low, high), got {value!r}")
    if not 0 < number(name, value[0]) <= number(name, value[1]):
        raise ValueError(f"{name} must be a pair 0 < low <= high, got {value!r}")
    return value[0], value[1]


def area_scale(value: Any) -> tuple[float, float]:
    """A range of shares of an image's area."""
    pair = positive_pair("scale", value)
    if pair[1] > 1:
        raise ValueError(f"scale must be at most 1, got {value!r}")
    return pair


def random_rectangles(
    rng: np.random.Generator, shape: tuple[int, ...], size: tuple[int, int], scale: Any, ratio: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The two sides of rectangles, arrays of `shape`, as shares of the area of `size`, both cut to it.

    The first is `ratio` times as long as the second; the logarithm of the ratio is drawn evenly.
    """
    area = rng.uniform(scale[0], scale[1], shape) * size[0] * size[1]
    factor = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), shape))
    first, second = (
        np.clip(np.rint(np.sqrt(product)), 1, n).astype(int) for product, n in zip((area * factor, area / factor), size)
    )
    return first, second


class Transform:
    """Base class: a subclass defines ``_apply(images, rng)`` on a batch (N, C, H, W).

    Raises
    ------
    TypeError
        Images that are no floating-point array.
    ValueError
        Images that have neither three nor four dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data.transforms import Transform
    >>> class Negative(Transform):
    ...     def _apply(self, images, rng):
    ...         return 1 - images
    >>> Negative()(np.zeros((1, 1, 2)))
    array([[[1., 1.]]])
    """

    def __call__(self, images: Any, *, rng: np.random.Generator | None = None) -> np.ndarray:
        """The transformed images, with a generator to draw from."""
        array = np.asarray(images)
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise TypeError(f"images must be floating-point, got dtype {array.dtype}; divide bytes by 255")
        if array.ndim not in (3, 4):
            raise ValueError(f"images must have shape (C, H, W) or (N, C, H, W), got {array.shape}")
        batch = array if array.ndim == 4 else array[None]
        result = self._apply(batch, generator(rng)).astype(array.dtype, copy=False)
        return result if array.ndim == 4 else result[0]

    def _apply(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} defines no _apply")

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({options})"


class Compose:
    """Several transforms, one after the other.

    Parameters
    ----------
    transforms : sequence of callable
        Each is called with the images and ``rng=``.

    Raises
    ------
    TypeError
        An entry is not callable.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data import transforms
    >>> transforms.Compose([transforms.CenterCrop(2), transforms.Normalize(0.5, 0.5)])(np.ones((1, 4, 4)))
    array([[[1., 1.],
            [1., 1.]]])
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = list(transforms)
        for transform in self.transforms:
            if not callable(transform):
                raise TypeError(f"transforms must be callable, got {transform!r}")

    def __call__(self, images: Any, *, rng: np.random.Generator | None = None) -> Any:
        """The images after all transforms."""
        rng = generator(rng)
        for transform in self.transforms:
            images = transform(images, rng=rng)
        return images

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"
