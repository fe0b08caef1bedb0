"""The CUDA kernels on the simulator: what the tests that run over every backend, ``cuda:simt`` included, do not ask.

The results must not depend on the order of threads, on the tile of a convolution, or on what shared memory held.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv as fc
from checks import assert_exact, assert_same_bits, integers
from direct import Conv, backward_input, backward_weight, forward
from fastconv import backend, reference
from hostile import VALID

pytestmark = pytest.mark.skipif(
    "cuda:simt" not in fc.available_backends(), reason="the simulator is not built (CMake option FASTCONV_SIMT)"
)

SCHEDULES = ("up", "down", "shuffled")


@pytest.fixture
def simulator():
    module = backend.simulator()
    yield module
    module.set_schedule("rotate")
    module.set_conv_tile("by_shape")


def call(module: Any, function: str) -> list[np.ndarray]:
    """The results of a valid call, and the arrays that it writes to."""
    values = [np.array(value) if kind == "stats" else value for _, kind, value in VALID[function]]
    results = getattr(module, function)(*values)
    written = [value for value, (_, kind, _) in zip(values, VALID[function]) if kind == "stats"]
    return [*(results if isinstance(results, tuple) else (results,)), *written]


def test_functions_are_those_of_the_other_backends(simulator):
    assert set(reference.__all__) <= set(dir(simulator))
    native = {name for name in dir(backend.native()) if not name.startswith("_")}
    assert native <= set(dir(simulator))
    assert set(VALID) == set(reference.__all__)


@pytest.mark.parametrize("function", sorted(VALID))
def test_bits_do_not_depend_on_the_order_of_threads(simulator, function):
    expected = None
    for schedule in SCHEDULES:
        simulator.set_schedule(schedule)
        assert simulator.schedule() == schedule
        results = call(simulator, function)
        expected = expected or results
        for result, first in zip(results, expected, strict=True):
            assert_same_bits(result, first)


CASES = (
    Conv("ragged", (2, 5, 9, 7), (35, 5, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    Conv("strides", (1, 6, 11, 13), (12, 3, 3, 2), (2, 3), ((2, 0), (0, 1)), (2, 1), 2),
    Conv("volume", (1, 9, 4, 5, 6), (9, 9, 2, 2, 2), (1, 2, 1), ((0, 1), (1, 1), (0, 0)), (1, 1, 2)),
    Conv("more than a tile", (1, 16, 12, 12), (136, 16, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
)


@pytest.mark.parametrize("last", (False, True), ids=("channels_first", "channels_last"))
@pytest.mark.parametrize("tile", ("small", "large"))
@pytest.mark.parametrize("c", CASES, ids=str)
@pytest.mark.parametrize("dtype", (np.float32, np.float64), ids=("float32", "float64"))
def test_every_tile_is_exact(simulator, c, tile, last, dtype):
    rng = np.random.default_rng(7)

    def image(shape):
        x = integers(rng, shape, dtype)
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if last else x

    simulator.set_conv_tile(tile)
    x, w, dy = image(c.x_shape), integers(rng, c.w_shape, dtype), image(c.y_shape)
    assert_exact(simulator.conv_forward(x, w, None, *c.options), forward(c, x, w), dtype)
    assert_exact(simulator.conv_backward_input(dy, w, x.shape, *c.options), backward_input(c, dy, w), dtype)
    assert_exact(simulator.conv_backward_weight(dy, x, w.shape, *c.options), backward_weight(c, dy, x), dtype)


def test_tiles_sum_in_one_order(simulator):
    c = CASES[0]
    rng = np.random.default_rng(8)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (c.x_shape, c.w_shape))
    results = []
    for tile in ("small", "large"):
        simulator.set_conv_tile(tile)
        results.append(simulator.conv_forward(x, w, None, *c.options))
    assert_same_bits(*results)


def test_counters(simulator):
    simulator.reset_counters()
    simulator.relu_forward(np.ones(1000, np.float32))
    counts = simulator.counters()
    assert counts["launches"] == 1 and counts["blocks"] == 4 and counts["barriers"] == 0
    simulator.conv_backward_bias(np.ones((1, 2, 3, 3), np.float32), 2)
    assert simulator.counters()["barriers"] > 0


@pytest.mark.parametrize(("setter", "value"), [("set_schedule", "sideways"), ("set_conv_tile", "huge")])
def test_unknown_settings(simulator, setter, value):
    with pytest.raises(ValueError, match=f"must be .*got '{value}'"):
        getattr(simulator, setter)(value)
