"""Sums of two arrays, arrays joined along a dimension, and the other memory layout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .case import Arguments, Case, relative, selected


def _add(shape: tuple[int, ...], inplace: bool = False, last: bool = False) -> Case:
    def draw(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(shape), rng.standard_normal(shape), inplace

    label = "x".join(map(str, shape)) + " inplace" * inplace + " nhwc" * last
    group = "layers" if np.prod(shape) > 10_000 else "edge"
    return Case("add_forward", label, group, draw, 1, relative, None, last)


def _cat(shape: tuple[int, ...], dim: int, sizes: tuple[int, ...], last: bool = False) -> Case:
    def draw(rng: np.random.Generator) -> Arguments:
        return dim, *(rng.standard_normal((*shape[:dim], size, *shape[dim + 1 :])) for size in sizes)

    label = f"{'x'.join(map(str, shape))} dim{dim} sizes{'+'.join(map(str, sizes))}" + " nhwc" * last
    return Case("cat_forward", label, "edge", draw, 0, selected, None, last)


def _layout(shape: tuple[int, ...], last: bool) -> Case:
    def draw(rng: np.random.Generator) -> Arguments:
        return rng.standard_normal(shape), not last

    label = "x".join(map(str, shape)) + (" nhwc to nchw" if last else " nchw to nhwc")
    return Case("layout_forward", label, "edge", draw, 0, selected, None, last)


def cases() -> Iterator[Case]:
    """Every case of this family."""
    for shape in ((1,), (3, 17), (2, 3, 5, 7), (4, 16, 28, 28)):
        yield _add(shape)
        yield _add(shape, inplace=True)
    yield _add((2, 17, 5, 6), last=True)
    for dim in range(4):
        yield _cat((2, 5, 4, 3), dim, (2, 1, 5))
        yield _cat((2, 5, 4, 3), dim, (2, 1, 5), last=True)
    images: tuple[tuple[int, ...], ...] = ((2, 3, 9, 10), (2, 17, 5, 7), (1, 40, 11, 13), (3, 2, 8), (2, 8, 2, 3, 4))
    for size in images:
        yield _layout(size, False)
        yield _layout(size, True)
