"""The 1,797 handwritten digits that scikit-learn ships."""

from __future__ import annotations

import numpy as np

from .dataset import TrainTest

__all__ = ["load_digits"]


def load_digits(test_fraction: float = 0.2, seed: int = 0) -> TrainTest:
    """Handwritten digits of 8 x 8 pixels, split for training and testing.

    Parameters
    ----------
    test_fraction : float, default 0.2
        Part of the 1,797 images that is kept for testing, between 0 and 1 (exclusive).
    seed : int, default 0
        Seed of the split.

    Returns
    -------
    TrainTest
        Images (N, 1, 8, 8) in float32 from 0 to 1, labels int64.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If `test_fraction` leaves one of the parts empty.

    Notes
    -----
    The test set of the Optical Recognition of Handwritten Digits data, E. Alpaydin and C. Kaynak, UCI Machine Learning
    Repository (1998), as `sklearn.datasets.load_digits` ships it.

    Examples
    --------
    >>> from fastconv.data import load_digits
    >>> digits = load_digits()
    >>> digits.train_images.shape, digits.test_images.shape
    ((1438, 1, 8, 8), (359, 1, 8, 8))
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            'the digits come with scikit-learn, which is not installed: pip install "fastconv[demo]"'
        ) from error
    images, labels = datasets.load_digits(return_X_y=True)
    count = len(labels)
    test = round(count * test_fraction) if 0 < test_fraction < 1 else 0
    if not 0 < test < count:
        raise ValueError(f"test_fraction must leave images on both sides, got {test_fraction!r} of {count}")
    order = np.random.default_rng(seed).permutation(count)
    images = (images[order] / 16).astype(np.float32).reshape(count, 1, 8, 8)
    labels = labels[order].astype(np.int64)
    return TrainTest(images[test:], labels[test:], images[:test], labels[:test])
