"""Augmentation of images as arrays: one image (C, H, W) or a batch (N, C, H, W), floating point.

A transform is called with the images and, by keyword, a ``numpy.random.Generator``; it draws anew for each image, never
writes to what it was given, and keeps the dtype. As the transform of a :class:`fastconv.data.DataLoader` it gets the
generator of the batch, so that an epoch's images follow from the loader's seed; without one it draws from the generator
of :func:`fastconv.manual_seed`.

>>> import numpy as np
>>> from fastconv.data import transforms
>>> augment = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
>>> augment(np.zeros((8, 3, 32, 32), np.float32), rng=np.random.default_rng(0)).shape
(8, 3, 32, 32)

Names and arguments are torchvision's where it has them; values are taken to lie from 0 to 1 until `Normalize`.
"""

from .base import Compose, Transform
from .colour import ColorJitter, Normalize, RandomErasing
from .geometry import CenterCrop, RandomCrop, RandomHorizontalFlip, RandomVerticalFlip
from .warp import RandomAffine, RandomResizedCrop, RandomRotation, RandomTranslation, RandomZoom, Resize

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "Normalize",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomTranslation",
    "RandomVerticalFlip",
    "RandomZoom",
    "Resize",
    "Transform",
]
