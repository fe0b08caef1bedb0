"""The random generator behind dropout and parameter initialisation."""

from __future__ import annotations

import numbers

import numpy as np

_generator: np.random.Generator | None = None


def manual_seed(seed: int) -> np.random.Generator:
    """Seed the generator that dropout and parameter initialisation use when no ``rng=`` is given.

    Parameters
    ----------
    seed : int
        Not negative.

    Returns
    -------
    numpy.random.Generator
        The generator now in use.

    Raises
    ------
    TypeError, ValueError
        `seed` is not an integer, or negative.

    Notes
    -----
    As torch.manual_seed, but the numbers are those of NumPy's Philox generator.

    Examples
    --------
    >>> import numpy as np, fastconv as fc, fastconv.nn.functional as F
    >>> x = np.ones((2, 8), np.float32)
    >>> _ = fc.manual_seed(3)
    >>> first = F.dropout(x)
    >>> _ = fc.manual_seed(3)
    >>> bool((F.dropout(x) == first).all())
    True
    """
    global _generator
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    _generator = np.random.Generator(np.random.Philox(int(seed)))
    return _generator


def generator(rng: np.random.Generator | None = None) -> np.random.Generator:
    """`rng` itself, or the module's generator where it is None (seeded by the operating system until `manual_seed`).

    Raises
    ------
    TypeError
        `rng` is not a ``numpy.random.Generator``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.random import generator
    >>> mine = np.random.default_rng(0)
    >>> generator(mine) is mine
    True
    """
    global _generator
    if rng is not None:
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
        return rng
    if _generator is None:
        _generator = np.random.Generator(np.random.Philox())
    return _generator
