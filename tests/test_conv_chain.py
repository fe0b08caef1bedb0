"""Convolutions in a row, computed a few rows at a time: the values of integers, the bits of one after the other."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn.functional as F
from checks import DTYPES, assert_exact, assert_same_bits, channels_last, dtype_name, float32, integers, normal
from fastconv import reference

INF = float("inf")


class Stage(NamedTuple):
    """One convolution of a chain; `kernel` and what follows have one entry a dimension or one for all."""

    filters: int
    kernel: tuple[int, ...]
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    low: float = -INF
    high: float = INF
    bias: bool = True


def depthwise(channels: int, kernel=(3, 3), stride: Any = 1, padding: Any = 1, dilation: Any = 1) -> Stage:
    return Stage(channels, kernel, stride, padding, dilation, channels, 0.0, 6.0)


# Input shape and stages. Wide ones have more rows than a band; those after "whole" cannot be cut into bands.
CHAINS = {
    "inverted residual": ((2, 5, 14, 13), [Stage(30, (1, 1), low=0, high=6), depthwise(30), Stage(7, (1, 1))]),
    "strided": ((1, 4, 15, 16), [Stage(20, (1, 1), low=0), depthwise(20, stride=2), Stage(9, (1, 1), bias=False)]),
    "stem": ((2, 3, 21, 20), [Stage(16, (3, 3), 2, 1, low=0, high=6), depthwise(16), Stage(8, (1, 1))]),
    "five": ((1, 6, 13, 9), [depthwise(6), Stage(10, (1, 1)), depthwise(10, stride=2), Stage(5, (1, 1)), depthwise(5)]),
    "many bands": ((1, 8, 60, 64), [Stage(96, (1, 1), low=0, high=6), depthwise(96), Stage(12, (1, 1))]),
    "many bands, strided": ((3, 8, 45, 64), [Stage(96, (1, 1)), depthwise(96, stride=2), Stage(10, (1, 1))]),
    "one row a band": (
        (1, 8, 9, 130),
        [Stage(256, (1, 1), low=0), depthwise(256, (5, 3), 1, (2, 1)), Stage(4, (1, 1))],
    ),
    "dilated": ((1, 6, 40, 90), [Stage(96, (1, 1)), depthwise(96, (3, 3), (1, 2), (4, 2), (4, 2)), Stage(8, (1, 1))]),
    "uneven borders": (
        (2, 5, 12, 11),
        [Stage(12, (1, 1)), depthwise(12, (4, 2), (3, 1), ((3, 0), (0, 1))), Stage(3, (1, 1))],
    ),
    "same": ((1, 5, 12, 11), [depthwise(5, (4, 4), 3, "same"), Stage(18, (1, 1))]),
    "padded 1x1": (
        (1, 5, 7, 8),
        [Stage(9, (1, 1), 1, ((0, 0), (0, 0))), depthwise(9, (3, 3), 1, "valid"), Stage(4, (1, 1), 2)],
    ),
    "multiplied": ((1, 5, 12, 11), [Stage(15, (3, 3), 1, 1, 1, 5), Stage(6, (1, 1))]),
    "grouped": ((2, 8, 12, 11), [depthwise(8), Stage(12, (1, 1), groups=4), Stage(12, (3, 3), 1, 1, 1, 2)]),
    "one stage": ((2, 5, 9, 9), [Stage(7, (3, 3), 1, 1, low=0)]),
    "one image without batch": ((5, 9, 8), [Stage(20, (1, 1)), depthwise(20), Stage(7, (1, 1))]),
    "no image": ((0, 5, 9, 8), [Stage(20, (1, 1)), depthwise(20), Stage(7, (1, 1))]),
    "whole: tiles": ((1, 20, 18, 17), [Stage(24, (3, 3), 1, 1), depthwise(24), Stage(20, (3, 3), 1, 1)]),
    "whole: rows of borders": ((1, 5, 4, 6), [Stage(8, (1, 1), 1, 3), depthwise(8), Stage(4, (1, 1))]),
    "whole: line": ((2, 5, 31), [Stage(12, (1,)), Stage(12, (5,), 1, 2, 1, 12), Stage(6, (1,))]),
    "whole: volume": ((1, 5, 4, 6, 5), [Stage(8, (1, 1, 1)), Stage(8, (3, 3, 3), 1, 1, 1, 8)]),
}
by_chain = pytest.mark.parametrize("name", CHAINS)


def drawn(name: str, dtype=float32, draw=normal, batch: int | None = None) -> tuple[np.ndarray, list[tuple], int]:
    """The input, the stages with their arrays, and the number of dimensions."""
    rng = np.random.default_rng(3)
    shape, stages = CHAINS[name]
    nd = len(stages[0].kernel)
    if batch is not None:
        shape = (batch, *shape[-nd - 1 :])
    x = draw(rng, shape, dtype)
    channels, found = x.shape[-nd - 1], []
    for s in stages:
        w = draw(rng, (s.filters, channels // s.groups, *s.kernel), dtype)
        b = draw(rng, (s.filters,), dtype) if s.bias else None
        found.append((w, b, s.stride, s.padding, s.dilation, s.groups, s.low, s.high))
        channels = s.filters
    return x, found, nd


def one_after_the_other(
    backend, x: np.ndarray, stages: list[tuple], nd: int, add: np.ndarray | None = None
) -> np.ndarray:
    for i, (*convolution, low, high) in enumerate(stages):
        x = backend.conv_forward(x, *convolution, nd, add if i + 1 == len(stages) else None, low, high)
    return x


def last(x: np.ndarray, nd: int = 2) -> np.ndarray:
    """In channels-last; an image without a batch dimension, too."""
    return channels_last(x) if x.ndim == nd + 2 else channels_last(x[None])[0]


def frozen(stages: list[tuple]) -> list[tuple]:
    return [(F.pack_weight(w), *rest) for w, *rest in stages]


@functools.cache
def of_integers(name: str) -> tuple[Any, ...]:
    """Input, stages, summand, the result and the one with the summand: integers that every type holds."""
    x, stages, nd = drawn(name, np.float64, lambda rng, shape, dtype: integers(rng, shape, dtype, -1, 1))
    stages = [(w, b, *options, -2.0, 2.0) for w, b, *options, _, _ in stages]
    expected = one_after_the_other(reference, x, stages, nd)
    add = integers(np.random.default_rng(4), expected.shape, np.float64, -1, 1)
    return x, stages, add, expected, one_after_the_other(reference, x, stages, nd, add)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@by_chain
def test_exact(backend, name, dtype):
    wide, wide_stages, add, expected, summed = of_integers(name)
    x, add, nd = wide.astype(dtype), add.astype(dtype), len(CHAINS[name][1][0].kernel)
    stages = [(w.astype(dtype), None if b is None else b.astype(dtype), *rest) for w, b, *rest in wide_stages]
    for arrange in (np.ascontiguousarray, lambda a: last(a, nd)):
        y = backend.conv_chain_forward(arrange(x), stages, nd)
        assert_exact(y, expected, dtype)
        assert_exact(backend.conv_chain_forward(arrange(x), stages, nd, arrange(add)), summed, dtype)
        assert not y.size or y.strides == arrange(expected.astype(dtype)).strides


@by_chain
def test_bits_of_one_after_the_other(cpu_backend, name):
    """For frozen weights, which are computed in bands; with any number of threads, and for each image alone."""
    x, stages, nd = drawn(name)
    kept = frozen(stages)
    before = cpu_backend.get_num_threads()
    try:
        for precision in ("highest", "high"):
            fc.set_float32_precision(precision)
            expected = one_after_the_other(cpu_backend, last(x, nd), stages, nd)
            add = normal(np.random.default_rng(4), expected.shape, float32)
            summed = one_after_the_other(cpu_backend, last(x, nd), stages, nd, add)
            for threads in (1, 2, 3):
                cpu_backend.set_num_threads(threads)
                assert_same_bits(cpu_backend.conv_chain_forward(last(x, nd), kept, nd), expected)
                assert_same_bits(cpu_backend.conv_chain_forward(last(x, nd), kept, nd, add), summed)
            if x.ndim == nd + 2:
                for n in range(len(x)):
                    one = cpu_backend.conv_chain_forward(last(x[n : n + 1], nd), kept, nd, add[n : n + 1])
                    assert_same_bits(one, summed[n : n + 1])
    finally:
        fc.set_float32_precision("highest")
        cpu_backend.set_num_threads(before)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_images_and_threads(cpu_backend, batch):
    """However images and their rows are shared out."""
    x, stages, nd = drawn("many bands, strided", batch=batch)
    kept = frozen(stages)
    expected = one_after_the_other(cpu_backend, channels_last(x), stages, nd)
    before = cpu_backend.get_num_threads()
    try:
        for threads in (1, 2, 4, 7):
            cpu_backend.set_num_threads(threads)
            assert_same_bits(cpu_backend.conv_chain_forward(channels_last(x), kept, nd), expected)
    finally:
        cpu_backend.set_num_threads(before)


def test_nothing_whole_lies_between(cpu_backend):
    """The scratch of a chain is a share of the arrays that it does without."""
    x, stages, nd = drawn("many bands", batch=16)
    between = 4 * len(x) * 96 * 60 * 64  # bytes
    kept = frozen(stages)
    cpu_backend.conv_chain_forward(channels_last(x), kept, nd)
    before = cpu_backend.get_num_threads()
    try:
        cpu_backend.set_num_threads(2)
        cpu_backend.reset_workspace_peak()
        cpu_backend.conv_chain_forward(channels_last(x), kept, nd)
        assert 0 < cpu_backend.workspace_peak() < between / 10
    finally:
        cpu_backend.set_num_threads(before)


def test_values_that_are_not_finite(backend):
    x, stages, nd = drawn("inverted residual")
    stages = [(w, b, *options, -INF, INF) for w, b, *options, _, _ in stages]
    x[0, 1, 3, 4], x[1, 2, 9, 9] = np.nan, np.inf
    for arrange in (np.ascontiguousarray, channels_last):
        y = backend.conv_chain_forward(arrange(x), stages if backend is reference else frozen(stages), nd)
        expected = one_after_the_other(backend, arrange(x), stages, nd)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
        assert np.isnan(y[0, :, 2:5, 3:6]).all() and not np.isnan(y[0, :, 6:]).any()


def test_bad_calls(backend):
    x, stages, nd = drawn("inverted residual")
    first, second, third = stages
    run = backend.conv_chain_forward
    for wrong, message in (
        ([], "stages must have 1 to 8 entries, got 0"),
        ([depthwise_stage(5)] * 9, "stages must have 1 to 8 entries, got 9"),
        ([first, first], "input"),  # 30 channels come, 5 are read
        ([first, (*second[:7], -1.0), third], "low must not be above high"),
        ([first, second, (*third[:4], 0, 1, -INF, INF)], "dilation"),
        ([(first[0], np.zeros(3, np.float32), *first[2:])], "bias"),
    ):
        with pytest.raises(ValueError, match=message):
            run(x, wrong, nd)
    for wrong, message in (
        (None, "stages must be a list"),
        ("stages", "stages must be a list"),
        ([first[:7]], "stages must hold tuples"),
        ([list(first)], "stages must hold tuples"),
        ([first, (second[0].astype(np.float64), *second[1:])], "weight"),
        ([(first[0].tolist(), *first[1:])], "weight"),
    ):
        with pytest.raises(TypeError, match=message):
            run(x, wrong, nd)
    with pytest.raises(ValueError, match="add"):
        run(x, stages, nd, np.zeros((2, 7, 14, 12), np.float32))
    with pytest.raises(ValueError, match="nd"):
        run(x, stages, 4)


def depthwise_stage(channels: int) -> tuple:
    return np.ones((channels, 1, 1, 1), np.float32), None, 1, 0, 1, channels, -INF, INF
