"""The CUDA kernels on the simulator: what the tests that run over every backend, ``cuda:simt`` included, do not ask.

The results must not depend on the order of threads, on the tile of a convolution, or on what shared memory held.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

import numpy as np
import pytest

import fastconv as fc
from checks import assert_exact, assert_same_bits, bfloat16, integers
from direct import Conv, backward_input, backward_weight, forward
from fastconv import backend, reference
from fastconv.testing import assert_bound
from hostile import VALID

pytestmark = pytest.mark.skipif(
    "cuda:simt" not in fc.available_backends(), reason="the simulator is not built (CMake option FASTCONV_SIMT)"
)

SCHEDULES = ("up", "down", "shuffled")
TILES = ("small", "large", "by_shape")  # the last: warpgroups, but for float64
OTHER = {"small": "large", "large": "small", "by_shape": "by_shape"}  # tiles that add in the same order


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
@pytest.mark.parametrize("tile", TILES)
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


MATRIX_CASES = (
    Conv("pixels", (3, 64, 9, 7), (72, 64, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    Conv("strides", (3, 16, 11, 9), (40, 16, 3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    Conv("groups", (3, 32, 8, 8), (48, 16, 3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), 2),
)


def channels_last(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Normal values; channels are neighbours in memory."""
    values = rng.standard_normal((shape[0], *shape[2:], shape[1])).astype(dtype)
    return np.moveaxis(values, -1, 1)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("c", MATRIX_CASES, ids=str)
@pytest.mark.parametrize("dtype", (np.float16, bfloat16, np.float32), ids=("float16", "bfloat16", "float32"))
def test_tensor_cores_read_without_bank_conflicts_and_for_any_batch(simulator, c, tile, dtype):
    rng = np.random.default_rng(9)
    x, dy = channels_last(rng, c.x_shape, dtype), channels_last(rng, c.y_shape, dtype)
    w = rng.standard_normal(c.w_shape).astype(dtype)
    calls = (
        (x, lambda x: simulator.conv_forward(x, w, None, *c.options)),
        (dy, lambda dy: simulator.conv_backward_input(dy, w, (len(dy), *c.x_shape[1:]), *c.options)),
    )
    if np.dtype(dtype).itemsize == 2:
        results = []
        for schedule in SCHEDULES:
            simulator.set_schedule(schedule)
            simulator.set_conv_tile(tile)
            simulator.reset_counters()
            results.append(simulator.conv_backward_weight(dy, x, w.shape, *c.options))
            assert_same_bits(results[-1], results[0])
            counts = simulator.counters()
            assert counts["matrix_products"] > 0 and counts["bank_conflicts"] == 0
        simulator.set_schedule("rotate")
        x64, dy64 = x.astype(np.float64), dy.astype(np.float64)
        magnitude = backward_weight(c, np.abs(dy64), np.abs(x64))
        assert_bound(results[0], backward_weight(c, dy64, x64), magnitude, dy[:, 0].size)
    for images, convolve in calls:
        simulator.set_conv_tile(tile)
        simulator.reset_counters()
        together = convolve(images)
        counts = simulator.counters()
        assert (counts["matrix_loads"] > 0) is (tile != "by_shape") and counts["matrix_products"] > 0
        assert counts["bank_conflicts"] == 0
        simulator.set_conv_tile(OTHER[tile])
        for i in range(len(images)):
            assert_same_bits(convolve(images[i : i + 1])[0], together[i])


def one_value_on(a: np.ndarray) -> np.ndarray:
    """A copy in channels-last order that begins one value after a multiple of 16 bytes."""
    memory = np.empty(a.size + 32, a.dtype)
    start = -(memory.ctypes.data // a.itemsize) % (16 // a.itemsize) + 1
    last = np.moveaxis(a, 1, -1)
    moved = memory[start : start + a.size].reshape(last.shape)
    assert moved.ctypes.data % 16 == a.itemsize
    moved[...] = last
    return np.moveaxis(moved, -1, 1)


@pytest.mark.parametrize("c", MATRIX_CASES, ids=str)
@pytest.mark.parametrize("dtype", (np.float16, bfloat16, np.float32), ids=("float16", "bfloat16", "float32"))
def test_bits_do_not_depend_on_where_an_array_begins(simulator, c, dtype):
    rng = np.random.default_rng(14)
    x, dy = channels_last(rng, c.x_shape, dtype), channels_last(rng, c.y_shape, dtype)
    w = rng.standard_normal(c.w_shape).astype(dtype)
    results = []
    for place in (lambda a: a, one_value_on):
        simulator.reset_counters()
        results.append(
            (
                simulator.conv_forward(place(x), w, None, *c.options),
                simulator.conv_backward_input(place(dy), w, x.shape, *c.options),
                simulator.conv_backward_weight(place(dy), x, w.shape, *c.options),
                simulator.conv_backward_weight(dy, place(x), w.shape, *c.options),
                simulator.counters()["matrix_products"],
            )
        )
    assert results[0][-1] == results[1][-1] > 0
    for here, there in zip(results[0][:-1], results[1][:-1]):
        assert_same_bits(there, here)


@pytest.fixture
def precision(simulator):
    """A function that sets the float32 precision until the test ends."""
    before = simulator.get_float32_precision()
    yield simulator.set_float32_precision
    simulator.set_float32_precision(before)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("c", MATRIX_CASES, ids=str)
def test_parts_of_float32(simulator, precision, c, tile):
    """Three parts keep float32's bound, two that of "high", one is the product of bfloat16 numbers."""
    rng = np.random.default_rng(11)
    x, dy = channels_last(rng, c.x_shape, np.float32), channels_last(rng, c.y_shape, np.float32)
    w = rng.standard_normal(c.w_shape).astype(np.float32)
    simulator.set_conv_tile(tile)
    products = []
    for word in ("highest", "high", "medium"):
        precision(word)
        simulator.reset_counters()
        y = simulator.conv_forward(x, w, None, *c.options)
        products.append(simulator.counters()["matrix_products"])
        dx = simulator.conv_backward_input(dy, w, x.shape, *c.options)
        if word == "medium":
            x, w, dy = (a.astype(bfloat16).astype(np.float32) for a in (x, w, dy))
        for actual, compute, arrays, terms in (
            (y, forward, (x, w), c.terms),
            (dx, backward_input, (dy, w), c.terms * c.w_shape[0]),
        ):
            expected = compute(c, *(a.astype(np.float64) for a in arrays))
            magnitude = compute(c, *(np.abs(a).astype(np.float64) for a in arrays))
            assert_bound(actual, expected, magnitude, terms, precision="high" if word == "high" else "highest")
    assert products == [6 * products[2], 3 * products[2], products[2]] and products[2] > 0


# The error that is allowed, of the sum of the products' magnitudes.
SHARE = {"highest": 1e-6, "high": 1e-4, "medium": 1e-2}


def images_and_weights(rng: np.random.Generator, c: Conv) -> tuple[np.ndarray, np.ndarray]:
    """Normal float32 values, the images channels-last."""
    return channels_last(rng, c.x_shape, np.float32), rng.standard_normal(c.w_shape).astype(np.float32)


@pytest.mark.parametrize("tile", ("small", "by_shape"))
@pytest.mark.parametrize("word", ("highest", "high", "medium"))
@pytest.mark.parametrize("spoiled", ("x", "w"))
@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf, 3.3e38, 1e-38), ids=str)
def test_what_parts_do_not_hold(simulator, precision, value, spoiled, word, tile):
    """Infinities and NaN reach what they meet and nothing else; near the limits float32's class is kept."""
    precision(word)
    simulator.set_conv_tile(tile)
    c = MATRIX_CASES[1]
    rng = np.random.default_rng(12)
    x, w = images_and_weights(rng, c)
    x.view(np.uint32)[0, 0, 0, 0] = 0x7FFFFFFF if np.isnan(value) else np.float32(value).view(np.uint32)
    if spoiled == "w":
        x, w = channels_last(rng, c.x_shape, np.float32), w.copy()
        w.view(np.uint32)[3, 2, 1, 1] = 0x7FFFFFFF if np.isnan(value) else np.float32(value).view(np.uint32)
    if value == 1e-38:
        (x if spoiled == "x" else w)[...] *= np.float32(value)
    if value == 3.3e38:
        x, w = x.copy("K"), w.copy()
        (w if spoiled == "x" else x)[...] *= np.float32(2.0**-20)
    with np.errstate(all="ignore"):
        expected = forward(c, x.astype(np.float64), w.astype(np.float64)).astype(np.float32)
        magnitude = forward(c, np.abs(x).astype(np.float64), np.abs(w).astype(np.float64))
    y = simulator.conv_forward(x, w, None, *c.options)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(y[~finite], expected[~finite])
    assert (np.abs(y[finite] - expected[finite]) <= SHARE[word] * magnitude[finite] + 1e-44).all()
    assert finite.any() and finite.all() == np.isfinite(value)


@pytest.mark.parametrize("tile", ("large", "by_shape"))
@pytest.mark.parametrize("word", ("highest", "high", "medium"))
@pytest.mark.parametrize("exponent", (-116, -120, -124, -130, -140))
@pytest.mark.parametrize("small", ("x", "w"))
def test_small_values_that_meet_large_ones(simulator, precision, small, exponent, word, tile):
    """float32's class where parts would be lost but the result is of ordinary size, whatever lies in the same tile."""
    precision(word)
    simulator.set_conv_tile(tile)
    c = MATRIX_CASES[1]
    rng = np.random.default_rng(13)
    x, w = images_and_weights(rng, c)
    scales = (2.0**exponent, 2.0 ** min(-exponent - 20, 120))
    for array, scale in zip((x, w), scales if small == "x" else scales[::-1]):
        array[::2] *= np.float32(scale)
    x, w = x.copy("K"), w.copy()
    expected = forward(c, x.astype(np.float64), w.astype(np.float64))
    magnitude = forward(c, np.abs(x).astype(np.float64), np.abs(w).astype(np.float64))
    y = simulator.conv_forward(x, w, None, *c.options)
    assert (np.abs(y - expected) <= SHARE[word] * magnitude + 2.0**-126).all()
    simulator.set_conv_tile(OTHER[tile])
    for i in range(len(x)):
        assert_same_bits(simulator.conv_forward(x[i : i + 1], w, None, *c.options)[0], y[i])


@pytest.mark.parametrize("word", ("highest", "high", "medium"))
@pytest.mark.parametrize("spoiled", ("x", "dy"))
@pytest.mark.parametrize("value", (np.nan, np.inf, 3.3e38, 1e-38, 2.0**-120), ids=str)
def test_what_parts_of_a_weight_gradient_do_not_hold(simulator, precision, value, spoiled, word):
    """As above, for a sum over pixels; 2^-120 meets values of 2^100."""
    precision(word)
    c = MATRIX_CASES[1]
    rng = np.random.default_rng(14)
    arrays = {"x": channels_last(rng, c.x_shape, np.float32), "dy": channels_last(rng, c.y_shape, np.float32)}
    array, other = arrays[spoiled], arrays["dy" if spoiled == "x" else "x"]
    if value == 3.3e38:
        other *= np.float32(2.0**-20)
    if value in (1e-38, 2.0**-120):
        array[:, ::2] *= np.float32(value)
    if value == 2.0**-120:
        other[:, ::2] *= np.float32(2.0**100)
    if not value < 1:
        array[1, 2, 1, 1] = value
    x, dy = arrays["x"], arrays["dy"]
    with np.errstate(all="ignore"):
        expected = backward_weight(c, dy.astype(np.float64), x.astype(np.float64)).astype(np.float32)
        magnitude = backward_weight(c, np.abs(dy).astype(np.float64), np.abs(x).astype(np.float64))
    dw = simulator.conv_backward_weight(dy, x, c.w_shape, *c.options)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(dw[~finite], expected[~finite])
    assert (np.abs(dw[finite] - expected[finite]) <= SHARE[word] * magnitude[finite] + 1e-44).all()
    assert finite.any() and finite.all() == np.isfinite(value)


def test_images_are_copied_a_few_at_a_time(simulator):
    """Copies that do not fit half a gibibyte together: eight channels in place of one, 300 MB an image."""
    side, images = 4400, 3
    x = np.zeros((images, 1, side, side), np.float16)
    rng = np.random.default_rng(15)
    corners = integers(rng, (images, 1, 2, 2), np.float16)
    x[:, :, :: side - 1, :: side - 1] = corners
    w = integers(rng, (4, 1, 1, 1), np.float16)
    c = Conv("near", corners.shape, w.shape, (1, 1), ((0, 0), (0, 0)), (1, 1))
    simulator.reset_counters()
    y = simulator.conv_forward(x, w, None, (side - 1, side - 1), *c.options[1:])
    assert simulator.counters()["launches"] == 1 + 2 * images
    assert_exact(y, forward(c, corners, w), np.float16)


@pytest.mark.skipif(sys.platform != "linux", reason="needs memory that is reserved once it is written")
@pytest.mark.parametrize(
    ("dtype", "channels", "side"), [(np.float32, 1, 46342), (np.float16, 8, 16386)], ids=("scalar", "tensor cores")
)
def test_offsets_beyond_32_bits(simulator, dtype, channels, side):
    step = side - 1
    values = side * side * channels
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    memory = mmap.mmap(-1, values * np.dtype(dtype).itemsize, flags=flags)
    x = np.moveaxis(np.frombuffer(memory, dtype).reshape(1, side, side, channels), -1, 1)
    assert x.size > 2**31
    rng = np.random.default_rng(10)
    corners = integers(rng, (1, channels, 2, 2), dtype)
    x[:, :, ::step, ::step] = corners  # a filter of one tap meets these four pixels alone
    w, dy = integers(rng, (8, channels, 1, 1), dtype), integers(rng, (1, 8, 2, 2), dtype)
    c = Conv("near", corners.shape, w.shape, (1, 1), ((0, 0), (0, 0)), (1, 1))
    options = ((step, step), *c.options[1:])
    assert_exact(simulator.conv_forward(x, w, None, *options), forward(c, corners, w), dtype)
    assert_exact(simulator.conv_backward_weight(dy, x, w.shape, *options), backward_weight(c, dy, corners), dtype)


def test_counters(simulator):
    simulator.reset_counters()
    simulator.relu_forward(np.ones(4000, np.float32))  # four a thread
    counts = simulator.counters()
    assert counts["launches"] == 1 and counts["blocks"] == 4 and counts["barriers"] == 0
    simulator.conv_backward_bias(np.ones((1, 2, 3, 3), np.float32), 2)
    assert simulator.counters()["barriers"] > 0


@pytest.mark.parametrize(("setter", "value"), [("set_schedule", "sideways"), ("set_conv_tile", "huge")])
def test_unknown_settings(simulator, setter, value):
    with pytest.raises(ValueError, match=f"must be .*got '{value}'"):
        getattr(simulator, setter)(value)
