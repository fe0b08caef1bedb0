"""Convolution, forward and all gradients: backend x shape x layout x dtype, against the definition (``direct``)."""

from __future__ import annotations

import ctypes
import itertools
import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import direct
import fastconv.nn.functional as F
from checks import (
    DTYPES,
    assert_bound,
    assert_exact,
    assert_same_bits,
    bfloat16,
    channels_last,
    directional_derivative,
    dtype_name,
    float32,
    float64,
    from_torch,
    guarded,
    guards_intact,
    integers,
    layouts,
    normal,
    shapes,
    to_torch,
)
from direct import Conv


def _networks() -> list[Conv]:
    """One test-sized layer for each structure that occurs in the networks."""
    distinct = {}
    for case in map(shapes.shrink, shapes.CONVS):
        c = Conv.of(case)
        distinct.setdefault((c.x_shape, c.w_shape, c.options), c)
    return list(distinct.values())


def _pads(*pairs: int | tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((p, p) if isinstance(p, int) else p for p in pairs)


PLANE = [*map(Conv.of, shapes.AWKWARD), *_networks()]
# Depthwise 3x3: an odd row and overlapping columns at the end of the tiles, a last register of three channels, padding
# beyond a tile, and planes of several bands.
DEPTHWISE_TILES = [
    Conv("depthwise_tiles", (2, 19, 9, 8), (19, 1, 3, 3), (1, 1), _pads(1, 1), (1, 1), 19),
    Conv("depthwise_tiles_s2", (2, 19, 9, 15), (19, 1, 3, 3), (2, 2), _pads(1, 1), (1, 1), 19),
    Conv("depthwise_tiles_wide_padding", (1, 16, 1, 9), (16, 1, 3, 3), (1, 1), _pads((3, 9), (4, 1)), (1, 1), 16),
    Conv("depthwise_bands", (1, 17, 131, 30), (17, 1, 3, 3), (1, 1), _pads(1, 1), (1, 1), 17),
    Conv("depthwise_bands_s2", (1, 17, 141, 42), (17, 1, 3, 3), (2, 2), _pads(1, (0, 2)), (1, 1), 17),
]
# One tap along an axis with a stride: what lies between the pixels is left out of a block; padding of all kinds before.
SKIPPING = [
    Conv("skip_both", (2, 70, 9, 11), (40, 70, 1, 1), (2, 3), _pads((1, 2), (2, 0)), (1, 1)),
    Conv("skip_padding", (1, 18, 4, 5), (33, 18, 1, 1), (3, 4), _pads((5, 3), (7, 6)), (1, 1)),
    Conv("skip_rows", (2, 37, 10, 12), (35, 37, 1, 3), (3, 2), _pads((1, 0), 1), (1, 2)),
    Conv("skip_columns", (2, 37, 10, 12), (35, 37, 3, 1), (1, 3), _pads(1, (1, 2)), (2, 1)),
    Conv("skip_page", (2, 512, 4, 28), (20, 512, 1, 1), (1, 2), _pads(0, 0), (1, 1)),
    Conv("skip_groups", (2, 12, 7, 8), (36, 4, 1, 1), (2, 2), _pads(0, 0), (1, 1), 3),
]
OTHER_RANKS = [
    Conv("line", (2, 3, 17), (5, 3, 3), (1,), _pads(1), (1,)),
    Conv("line_audio", (1, 2, 90), (4, 2, 16), (8,), _pads(4), (1,)),
    Conv("line_dilated", (2, 4, 21), (6, 4, 3), (2,), _pads((2, 5)), (3,)),
    Conv("line_depthwise", (2, 19, 23), (19, 1, 5), (1,), _pads(2), (1,), 19),
    Conv("line_grouped_1", (3, 6, 8), (9, 2, 1), (1,), _pads(0), (1,), 3),
    Conv("line_empty_batch", (0, 3, 8), (4, 3, 3), (1,), _pads(0), (1,)),
    Conv("volume", (2, 3, 4, 5, 6), (5, 3, 3, 3, 3), (1, 1, 1), _pads(1, 1, 1), (1, 1, 1)),
    Conv("volume_strided", (1, 4, 5, 7, 6), (3, 4, 2, 3, 1), (2, 3, 1), _pads((0, 1), 2, 0), (1, 2, 1)),
    Conv("volume_depthwise", (2, 17, 4, 5, 5), (17, 1, 3, 3, 3), (1, 2, 1), _pads(1, 1, 1), (1, 1, 1), 17),
    Conv("volume_depthwise_tiles", (2, 17, 3, 4, 9), (17, 1, 1, 3, 3), (1, 1, 1), _pads(0, 1, 1), (1, 1, 1), 17),
    Conv("volume_grouped", (1, 4, 3, 4, 5), (6, 2, 2, 2, 2), (1, 1, 1), _pads(0, 1, 0), (1, 1, 1), 2),
    Conv("volume_pointwise", (2, 7, 3, 3, 5), (9, 7, 1, 1, 1), (1, 1, 1), _pads(0, 0, 0), (1, 1, 1)),
    Conv("volume_empty_batch", (0, 2, 3, 3, 3), (4, 2, 2, 2, 2), (1, 1, 1), _pads(0, 0, 0), (1, 1, 1)),
]
CASES = [*PLANE, *DEPTHWISE_TILES, *SKIPPING, *OTHER_RANKS]
# What the tests below run that are about something else than shapes: one case for each kind of kernel.
KINDS = [
    c
    for c in CASES
    if c.name
    in {
        "awkward-C17", "awkward-W33_s2", "awkward-C33_K33_1x1", "awkward-depthwise_C17", "awkward-depthwise_7x7_s2",
        "awkward-groups_of_17", "awkward-dilation_3_2_stride_2", "awkward-asymmetric_padding", "awkward-stride_2_1x1",
        "awkward-image_stem", "line_dilated", "volume",
    }
]  # fmt: skip
# Large enough that two threads share the work of one call.
SHARED = [
    Conv.of(shapes.shrink(case, 40, 20, 3))
    for case in shapes.CONVS
    if f"{case.network}-{case.name}"
    in {
        "resnet50-conv1", "resnet50-conv2_3x3", "resnet50-conv3a_3x3_s2", "resnet50-conv2_expand",
        "resnet50-conv3a_skip_s2", "googlenet-3a_5x5", "mobilenetv2-dw3", "mobilenetv2-dw4_s2", "keras_mnist-conv2",
        "lenet-conv1",
    }
]  # fmt: skip

by_case = pytest.mark.parametrize("case", CASES, ids=str)
by_kind = pytest.mark.parametrize("case", KINDS, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)


def is_channels_last(a: np.ndarray) -> bool:
    return np.moveaxis(a, 1, -1).flags.c_contiguous


def run(backend, c: Conv, x, w, b, dy):
    """All four results of a backend."""
    return (
        backend.conv_forward(x, w, b, *c.options),
        backend.conv_backward_input(dy, w, c.x_shape, *c.options),
        backend.conv_backward_weight(dy, x, c.w_shape, *c.options),
        backend.conv_backward_bias(dy, c.nd),
    )


def test_the_selections_are_complete():
    assert len(KINDS) == 12
    assert len(SHARED) == 10
    assert len({c.name for c in CASES}) == len(CASES)


@by_dtype
@by_case
def test_exact(backend, case, dtype):
    """Integer data: the bits of integer arithmetic, in both memory formats."""
    d = direct.exact(case, dtype)
    for convert in (np.ascontiguousarray, channels_last):
        results = run(backend, case, convert(d.x), convert(d.w), d.b, convert(d.dy))
        for actual, expected in zip(results, (d.y, d.dx, d.dw, d.db), strict=True):
            assert_exact(actual, expected, dtype)


@by_dtype
@by_case
def test_bound(backend, case, dtype):
    """Random data: within the rounding-error bound of the sums, in both memory formats."""
    d, magnitude = direct.random(case, dtype)
    positions = d.dy.size // max(1, case.w_shape[0])
    terms = case.terms + 1, case.terms * case.w_shape[0], positions, positions
    for convert in (np.ascontiguousarray, channels_last):
        results = run(backend, case, convert(d.x), convert(d.w), d.b, convert(d.dy))
        for name, actual, count in zip(("y", "dx", "dw", "db"), results, terms, strict=True):
            assert_bound(actual, getattr(d, name), getattr(magnitude, name), count, dtype)


@by_kind
def test_without_bias(backend, case):
    d = direct.exact(case, float32)
    y = backend.conv_forward(d.x, d.w, None, *case.options)
    assert_exact(y, d.y - d.b.reshape(-1, *[1] * case.nd), float32)


@by_dtype
@by_kind
def test_layouts(backend, case, dtype):
    """Every view of the same values gives the same values, whichever argument is the view."""
    d = direct.exact(case, dtype)
    # The bias has one dimension and so fewer layouts.
    biases = itertools.cycle(layouts(d.b))
    for (_, x), (_, w), (_, dy) in zip(layouts(d.x), layouts(d.w), layouts(d.dy), strict=True):
        b = next(biases)[1]
        for arguments in ((x, d.w, d.b, dy), (d.x, w, b, d.dy), (x, w, b, dy)):
            results = run(backend, case, *arguments)
            for actual, expected in zip(results, (d.y, d.dx, d.dw, d.db), strict=True):
                assert_exact(actual, expected, dtype)


@by_kind
def test_memory_format_is_kept(backend, case):
    d = direct.exact(case, float32)
    y, dx, _, _ = run(backend, case, d.x, d.w, d.b, d.dy)
    assert y.flags.c_contiguous and dx.flags.c_contiguous
    y, dx, _, _ = run(backend, case, channels_last(d.x), d.w, d.b, channels_last(d.dy))
    assert is_channels_last(y) and is_channels_last(dx)


@by_dtype
def test_overlapping_and_broadcast_views(backend, dtype):
    """Elements that share memory, by stride 0 or by overlapping windows, are read as the values they show."""
    rng = np.random.default_rng(1)
    c = Conv("views", (2, 3, 6, 7), (4, 3, 3, 3), (1, 1), _pads(1, 1), (1, 1))
    w, b, dy = (integers(rng, s, dtype) for s in (c.w_shape, c.w_shape[:1], c.y_shape))
    line = integers(rng, (20,), dtype)
    step = line.itemsize
    views = [
        np.broadcast_to(integers(rng, (1, 3, 6, 1), dtype), c.x_shape),
        np.broadcast_to(integers(rng, (1,), dtype), c.x_shape),
        np.lib.stride_tricks.as_strided(line, c.x_shape, (step, 2 * step, step, step), writeable=False),
    ]
    for x in views:
        y, _, dw, _ = run(backend, c, x, w, b, dy)
        x64, w64, b64, dy64 = (a.astype(np.float64) for a in (x, w, b, dy))
        assert_exact(y, direct.forward(c, x64, w64, b64), dtype)
        assert_exact(dw, direct.backward_weight(c, dy64, x64), dtype)


@pytest.mark.parametrize("shape", [(2, 1, 5, 6), (1, 4, 1, 6), (3, 4, 1, 1), (1, 1, 5, 5)], ids=str)
def test_strides_of_single_elements_mean_nothing(backend, shape):
    """A dimension of size 1 may carry any stride: same bits (pytorch/pytorch#82060)."""
    rng = np.random.default_rng(2)
    c = Conv("single", shape, (5, shape[1], 3, 3), (1, 1), _pads(1, 1), (1, 1))
    x, w, b, dy = (normal(rng, s, float32) for s in (shape, c.w_shape, c.w_shape[:1], c.y_shape))
    expected = run(backend, c, x, w, b, dy)
    for stride in (0, 4, 4096, -4):
        strides = [stride if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True)]
        odd = np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)
        for actual, right in zip(run(backend, c, odd, w, b, dy), expected, strict=True):
            assert_same_bits(actual, right)


@by_kind
def test_unbatched(backend, case):
    """An input without the batch dimension gives results without it."""
    d = direct.exact(case, float32)
    x, dy = d.x[0], d.dy[0]
    y = backend.conv_forward(x, d.w, d.b, *case.options)
    dx = backend.conv_backward_input(dy, d.w, case.x_shape[1:], *case.options)
    dw = backend.conv_backward_weight(dy, x, case.w_shape, *case.options)
    db = backend.conv_backward_bias(dy, case.nd)
    assert_exact(y, d.y[0], float32)
    assert_exact(dx, d.dx[0], float32)
    assert_exact(dw, direct.backward_weight(case, dy[None].astype(float64), x[None].astype(float64)), float32)
    assert_exact(db, direct.backward_bias(dy[None].astype(float64)), float32)


@by_dtype
@by_kind
def test_arguments_are_only_read(backend, case, dtype):
    """No byte beside an argument is used (NaN margins) and none of an argument is written."""
    d = direct.exact(case, dtype)
    arrays = []
    for a in (d.x, d.w, d.b, d.dy):
        arrays.append(guarded(a.shape, dtype))
        arrays[-1][...] = a
    results = run(backend, case, *arrays)
    for actual, expected in zip(results, (d.y, d.dx, d.dw, d.db), strict=True):
        assert_exact(actual, expected, dtype)
    for array, original in zip(arrays, (d.x, d.w, d.b, d.dy), strict=True):
        assert_same_bits(array, original)
        assert guards_intact(array)


@pytest.mark.parametrize("dtype", (float32, bfloat16), ids=dtype_name)
@pytest.mark.parametrize("case", [*KINDS, *SHARED], ids=str)
def test_bits_do_not_depend_on_threads_batch_or_run(kernel_backend, case, dtype):
    d, _ = direct.random(case, dtype)
    before = kernel_backend.get_num_threads()
    try:
        for convert in (np.ascontiguousarray, channels_last):
            x, dy = convert(d.x), convert(d.dy)
            kernel_backend.set_num_threads(1)
            expected = run(kernel_backend, case, x, d.w, d.b, dy)
            for threads in (1, 2, 2, 3):
                kernel_backend.set_num_threads(threads)
                for actual, right in zip(run(kernel_backend, case, x, d.w, d.b, dy), expected, strict=True):
                    assert_same_bits(actual, right)
            for i in range(case.x_shape[0]):
                one, done = convert(d.x[i : i + 1]), convert(d.dy[i : i + 1])
                y = kernel_backend.conv_forward(one, d.w, d.b, *case.options)
                dx = kernel_backend.conv_backward_input(done, d.w, one.shape, *case.options)
                assert_same_bits(y, expected[0][i : i + 1])
                assert_same_bits(dx, expected[1][i : i + 1])
    finally:
        kernel_backend.set_num_threads(before)


@by_dtype
@by_kind
def test_non_finite_values_reach_what_they_meet(backend, case, dtype):
    """One NaN or infinity in an argument changes the results that it enters, as in IEEE, and no other bit."""
    d, _ = direct.random(case, dtype)
    y, dx, dw, db = run(backend, case, d.x, d.w, d.b, d.dy)
    for value in (np.nan, np.inf, -np.inf):
        x, dy = d.x.copy(), d.dy.copy()
        x[(0, -1, *(n // 2 for n in x.shape[2:]))] = value
        dy[(0, -1, *(n // 2 for n in dy.shape[2:]))] = value
        with np.errstate(invalid="ignore"):
            expected = (
                direct.forward(case, x.astype(float64), d.w.astype(float64), d.b.astype(float64)),
                direct.backward_input(case, dy.astype(float64), d.w.astype(float64)),
                direct.backward_weight(case, d.dy.astype(float64), x.astype(float64)),
                direct.backward_bias(dy.astype(float64)),
            )
            changed = (
                backend.conv_forward(x, d.w, d.b, *case.options),
                backend.conv_backward_input(dy, d.w, case.x_shape, *case.options),
                backend.conv_backward_weight(d.dy, x, case.w_shape, *case.options),
                backend.conv_backward_bias(dy, case.nd),
            )
        for clean, actual, right in zip((y, dx, dw, db), changed, expected, strict=True):
            finite = np.isfinite(right)
            assert not finite.all()
            np.testing.assert_array_equal(actual[~finite].astype(float64), right[~finite])
            assert_same_bits(actual[finite], clean[finite])


@pytest.fixture
def before_a_hole():
    """A function that copies an array to memory whose last byte is followed by a page that may not be read."""
    libc, page, taken = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE, []

    def place(values):
        size = -(-values.nbytes // page) * page
        memory = mmap.mmap(-1, size + page)
        whole = np.frombuffer(memory, np.uint8)
        taken.append((whole.ctypes.data + size, memory))
        assert libc.mprotect(ctypes.c_void_p(taken[-1][0]), ctypes.c_size_t(page), 0) == 0
        array = whole[size - values.nbytes : size].view(values.dtype).reshape(values.shape)
        array[...] = values
        return array

    yield place
    for address, _ in taken:
        libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("dtype", [float32, bfloat16], ids=dtype_name)
@pytest.mark.parametrize("pixels", [*range(48, 54), *range(112, 121), 1001])
@pytest.mark.parametrize(("groups", "channels", "columns"), [(1, 21, 37), (1, 40, 9), (2, 8, 20), (1, 34, 64)])
def test_nothing_is_read_behind_the_last_pixel(kernel_backend, before_a_hole, pixels, groups, channels, columns, dtype):
    """Where 1x1 convolutions read the pixels in place, and the last tile is no whole one."""
    rng = np.random.default_rng(pixels)
    x = before_a_hole(integers(rng, (1, 1, pixels, groups * channels), dtype)).transpose(0, 3, 1, 2)
    w = before_a_hole(integers(rng, (groups * columns, channels, 1, 1), dtype))
    add = before_a_hole(integers(rng, (1, 1, pixels, groups * columns), dtype)).transpose(0, 3, 1, 2)
    filters = w.astype(float64).reshape(groups, columns, channels)
    expected = np.matmul(filters, x.astype(float64).reshape(groups, channels, pixels)).reshape(add.shape)
    options = (1, 0, 1, groups, 2)
    np.testing.assert_array_equal(kernel_backend.conv_forward(x, w, None, *options), expected.astype(dtype))
    summed = kernel_backend.conv_forward(x, w, None, *options, add, 0.0, np.inf)
    np.testing.assert_array_equal(summed, np.maximum(expected + add.astype(float64), 0).astype(dtype))
    dx = kernel_backend.conv_backward_input(add, w, x.shape, *options)
    back = np.matmul(filters.swapaxes(1, 2), add.astype(float64).reshape(groups, columns, pixels))
    np.testing.assert_array_equal(dx, back.reshape(x.shape).astype(dtype))


def test_weights_that_are_not_finite(backend):
    d, _ = direct.random(Conv("finite", (1, 3, 4, 5), (6, 3, 3, 3), (1, 1), _pads(0, 0), (1, 1)), float32)
    for value in (np.nan, np.inf):
        w = d.w.copy()
        w[2, 1, 1, 1] = value
        with np.errstate(invalid="ignore"):
            y = backend.conv_forward(d.x, w, d.b, 1, 0, 1, 1, 2)
        expected = value * np.where(d.x[:, 1, 1:3, 1:4] > 0, 1, -1)
        np.testing.assert_array_equal(y[:, 2], expected)
        assert np.isfinite(np.delete(y, 2, axis=1)).all()


@by_kind
def test_functional_and_vjp(backend, case):
    """F.conv*d is the backend's forward; its pullback gives the backend's gradients, as often as asked."""
    d = direct.exact(case, float32)
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[case.nd]
    options = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation, "groups": case.groups}
    assert_exact(conv(d.x, d.w, d.b, **options), d.y, float32)
    y, pullback = conv.vjp(d.x, d.w, d.b, **options)
    assert_exact(y, d.y, float32)
    for _ in range(2):
        dx, dw, db = pullback(d.dy)
        assert_exact(dx, d.dx, float32)
        assert_exact(dw, d.dw, float32)
        assert_exact(db, d.db, float32)
    assert len(conv.vjp(d.x, d.w, **options)[1](d.dy)) == 2
    (dw,) = conv.vjp(d.x, d.w, d.b, **options, wrt=("weight",))[1](d.dy)
    assert_exact(dw, d.dw, float32)


@by_kind
def test_gradients_are_derivatives(backend, case):
    rng = np.random.default_rng(3)
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[case.nd]
    options = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation, "groups": case.groups}
    d, _ = direct.random(case, float64)
    directional_derivative(lambda *a: conv(*a, **options), lambda *a: conv.vjp(*a, **options), (d.x, d.w, d.b), rng)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5), (4, 4)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, (3, 1)], ids=str)
def test_named_padding(backend, padding, kernel, stride):
    """ "same" gives ceil(size / stride) windows with an odd rest of padding at the end (ONNX SAME_UPPER)."""
    rng = np.random.default_rng(4)
    x, w = integers(rng, (2, 3, 8, 9), float32), integers(rng, (4, 3, *kernel), float32)
    steps = (stride, stride) if isinstance(stride, int) else stride
    pads = []
    for n, k, s in zip(x.shape[2:], kernel, steps, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0) if padding == "same" else 0
        pads.append((total // 2, total - total // 2))
    c = Conv("named", x.shape, w.shape, steps, tuple(pads), (1, 1))
    y = backend.conv_forward(x, w, None, stride, padding, 1, 1, 2)
    assert_exact(y, direct.forward(c, x.astype(float64), w.astype(float64)), float32)
    dy = integers(rng, y.shape, float32)
    dx = backend.conv_backward_input(dy, w, x.shape, stride, padding, 1, 1, 2)
    assert_exact(dx, direct.backward_input(c, dy.astype(float64), w.astype(float64)), float32)
    dw = backend.conv_backward_weight(dy, x, w.shape, stride, padding, 1, 1, 2)
    assert_exact(dw, direct.backward_weight(c, dy.astype(float64), x.astype(float64)), float32)


@pytest.mark.parametrize("case", [c for c in KINDS if all(a == b for a, b in c.padding)], ids=str)
@by_dtype
def test_agrees_with_torch(backend, torch, case, dtype):
    """Same meaning of all arguments, checked on integer data, where every order of summation gives the same bits."""
    d = direct.exact(case, dtype)
    conv = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[case.nd]
    # float64: torch lacks some of its half-precision kernels on the CPU.
    arguments = [to_torch(a.astype(float64)) for a in (d.x, d.w, d.b)]
    padding = [a for a, _ in case.padding]
    y = conv(*arguments, stride=case.stride, padding=padding, dilation=case.dilation, groups=case.groups)
    assert_exact(backend.conv_forward(d.x, d.w, d.b, *case.options), from_torch(y), dtype)


@st.composite
def convolutions(draw) -> Conv:
    """Any small valid convolution of rank 1 to 3."""
    nd = draw(st.integers(1, 3))
    limit = {1: 24, 2: 10, 3: 5}[nd]
    groups = draw(st.integers(1, 4))
    per_group, filters = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    kernel, stride, dilation, padding, space = [], [], [], [], []
    for _ in range(nd):
        k, s, d = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
        before, after = draw(st.integers(0, 4)), draw(st.integers(0, 4))
        n = draw(st.integers(max(1, d * (k - 1) + 1 - before - after), limit + d * (k - 1)))
        kernel.append(k), stride.append(s), dilation.append(d), padding.append((before, after)), space.append(n)
    x_shape = (draw(st.integers(0, 3)), groups * per_group, *space)
    w_shape = (groups * filters, per_group, *kernel)
    return Conv("drawn", x_shape, w_shape, tuple(stride), tuple(padding), tuple(dilation), groups)


@given(c=convolutions(), dtype=st.sampled_from(DTYPES), last=st.booleans())
def test_any_shape(backend, c, dtype, last):
    """Exact on integers, and <conv(x), dy> = <x, dx> = <w, dw>: forward and gradients are adjoint."""
    rng = np.random.default_rng(5)
    x, w, dy = (integers(rng, s, float64, -2, 2) for s in (c.x_shape, c.w_shape, c.y_shape))
    convert = channels_last if last else np.ascontiguousarray
    xt, wt, dyt = (convert(a.astype(dtype)) for a in (x, w, dy))
    y = backend.conv_forward(xt, wt, None, *c.options)
    dx = backend.conv_backward_input(dyt, wt, c.x_shape, *c.options)
    dw = backend.conv_backward_weight(dyt, xt, c.w_shape, *c.options)
    assert_exact(y, direct.forward(c, x, w), dtype)
    assert_exact(dx, direct.backward_input(c, dy, w), dtype)
    assert_exact(dw, direct.backward_weight(c, dy, x), dtype)
    if dtype == float64:
        assert np.vdot(y, dy) == np.vdot(x, dx) == np.vdot(w, dw)
