"""The case table: every operation of a backend with shapes that have broken such kernels before.

``fastconv verify`` runs the table, and tests may import it. A case knows how to draw its arguments, and how large the
terms of its sums are (the magnitude of the bound in `fastconv.testing`). Arguments depend on the seed and on the case
alone, so that golden outputs stay comparable when the table grows.

Three groups: "edge" (sizes around tile edges, every option), "layers" (layers of well-known networks, batch 1) and
"random" (drawn from the seed).
"""

from __future__ import annotations

from . import activation, conv, joining, norm, pool
from .case import DTYPES, GROUPS, Case, Comparison, Expected, available_dtypes

__all__ = ["DTYPES", "GROUPS", "Case", "Comparison", "Expected", "all_cases", "available_dtypes"]


def all_cases(seed: int = 0, random_cases: int = 8) -> list[Case]:
    """The whole table.

    Parameters
    ----------
    seed : int, default 0
        Draws the shapes of the "random" group.
    random_cases : int, default 8
        Convolutions, transposed convolutions and pools in that group, each.

    Returns
    -------
    list of Case
        With unique names.

    Examples
    --------
    >>> from fastconv.cases import all_cases
    >>> cases = all_cases(random_cases=0)
    >>> cases[0].op
    'conv_forward'
    """
    drawn = conv.cases(seed, random_cases), pool.cases(seed, random_cases)
    parts = (*drawn, norm.cases(), activation.cases(), joining.cases())
    unique = {case.name: case for part in parts for case in part}
    return list(unique.values())
