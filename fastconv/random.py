"""The random generator behind dropout and parameter initialisation."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

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


def get_rng_state() -> dict[str, Any]:
    """Where the generator of :func:`manual_seed` stands, in numbers, strings and lists that JSON can hold.

    Examples
    --------
    >>> import fastconv as fc
    >>> state = fc.get_rng_state()
    >>> first = fc.random.generator().random(3)
    >>> fc.set_rng_state(state)
    >>> bool((fc.random.generator().random(3) == first).all())
    True
    """
    return _plain(dict(generator().bit_generator.state))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put the generator of :func:`manual_seed` where it stood at :func:`get_rng_state`.

    Raises
    ------
    ValueError
        `state` is not what :func:`get_rng_state` returns; the generator is left as it was.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.set_rng_state({})
    Traceback (most recent call last):
    ValueError: state must be what get_rng_state returned
    """
    global _generator
    bits = np.random.Philox(0)
    try:
        inner = {name: np.array(entry, np.uint64) for name, entry in state["state"].items()}
        whole: Any = {**state, "state": inner, "buffer": np.array(state["buffer"], np.uint64)}
        bits.state = whole
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError):
        raise ValueError("state must be what get_rng_state returned") from None
    _generator = np.random.Generator(bits)
