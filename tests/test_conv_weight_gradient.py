"""Weight gradient and depthwise kernels where their blocking changes: tile edges, blocks, partitions, chunks, bands.

``test_conv`` covers what the arguments mean; the sizes here straddle what the native kernels cut the work into.
"""

from __future__ import annotations

import numpy as np
import pytest

import direct
from checks import DTYPES, assert_exact, assert_same_bits, dtype_name, float32, float64, integers, normal
from direct import Conv


def conv(name, x_shape, w_shape, stride=1, padding=0, dilation=1, groups=1) -> Conv:
    nd = len(x_shape) - 2
    each = lambda v: v if isinstance(v, tuple) else (v,) * nd  # noqa: E731
    return Conv(name, x_shape, w_shape, each(stride), tuple((p, p) for p in each(padding)), each(dilation), groups)


# Register tiles: 14 (AVX-512) or 6 rows of input channels, one or two registers of output channels.
TILES = [
    conv(f"C{c}_K{k}", (1, c, 5, 6), (k, c, 3, 2), 1, 1)
    for c, k in [(1, 1), (3, 17), (5, 8), (6, 33), (7, 16), (13, 31), (14, 32), (15, 65), (29, 9)]
]
BLOCKS = [
    conv("many_small_images", (70, 5, 3, 3), (6, 5, 3, 3), 1, 1),
    conv("one_pixel_images", (600, 3, 4, 4), (5, 3, 4, 4)),
    conv("long_line", (2, 3, 1700), (4, 3, 5), 2, 2, 3),
    conv("wide_rows", (1, 2, 3, 1100), (3, 2, 3, 3), (2, 1), 1),
    conv("pixels_across_images", (5, 9, 13, 11), (4, 9, 1, 1)),
    conv("columns_one_by_one", (2, 3, 6, 40), (4, 3, 2, 3), 1, (0, 30), (1, 31)),
    conv("rows_one_by_one", (2, 3, 40, 6), (4, 3, 3, 2), 1, (30, 0), (31, 1)),
    conv("skipped_rows_and_columns", (1, 3, 31, 50), (4, 3, 2, 2), (7, 9)),
    conv("strided_pointwise", (2, 18, 9, 33), (7, 18, 1, 1), (3, 5)),
    conv("filter_of_the_image", (3, 4, 21, 23), (5, 4, 21, 23)),
    conv("line_filter_of_the_image", (1, 2, 3000), (3, 2, 2400)),
    conv("many_groups", (2, 68, 5, 5), (51, 4, 3, 3), 1, 1, 1, 17),
    conv("volume", (2, 5, 6, 7, 8), (9, 5, 3, 2, 3), (2, 1, 1), 1),
]
# 1x1: a product of matrices, whose operands change places, and which is added up in dw where that is large or short.
PRODUCTS = [
    conv(f"C{c}_K{k}_1x1", (2, c, 5, 7), (k, c, 1, 1))
    for c, k in [(1, 1), (3, 40), (40, 3), (7, 7), (8, 65), (65, 8), (16, 33), (33, 16), (70, 37), (64, 96)]
] + [
    conv("several_blocks_1x1", (2, 33, 19, 31), (40, 33, 1, 1)),
    conv("large_1x1", (1, 730, 5, 3), (811, 730, 1, 1)),
    conv("large_of_several_blocks_1x1", (1, 800, 27, 21), (700, 800, 1, 1)),
    conv("groups_1x1", (3, 57, 6, 6), (75, 19, 1, 1), groups=3),
    conv("large_groups_1x1", (1, 1500, 3, 3), (1400, 750, 1, 1), groups=2),
    # Whole registers of columns: channels-last arrays are read in place.
    *(
        conv(f"C{c}_K{k}_1x1", (2, c, 5, 7), (k, c, 1, 1))
        for c, k in [(1, 16), (16, 16), (24, 48), (48, 23), (520, 32)]
    ),
    conv("in_place_blocks_1x1", (2, 48, 19, 31), (40, 48, 1, 1)),
    conv("in_place_groups_1x1", (3, 96, 16, 16), (46, 48, 1, 1), groups=2),
    conv("in_place_rows_1x1", (2, 16, 27, 21), (528, 16, 1, 1)),
]
DEPTHWISE = [
    conv("bands_of_rows", (1, 3, 300, 7), (3, 1, 3, 3), 1, 1, 1, 3),
    conv("bands_of_columns", (1, 2, 3, 1300), (2, 1, 3, 5), (1, 2), 2, 1, 2),
    conv("five_strided", (2, 35, 12, 13), (35, 1, 5, 5), 2, 2, 1, 35),
    conv("stride_above_kernel", (2, 17, 9, 14), (17, 1, 2, 3), (3, 4), 0, 1, 17),
    conv("dilated_strided", (1, 18, 14, 15), (18, 1, 3, 3), (2, 3), (3, 4), (3, 2), 18),
    conv("multiplier", (2, 5, 9, 8), (15, 1, 3, 3), 2, 1, 1, 5),
    conv("volume_multiplier", (1, 3, 4, 5, 6), (6, 1, 2, 3, 3), (1, 2, 2), 1, (2, 1, 1), 3),
    conv("filter_of_the_image", (2, 2, 66, 65), (2, 1, 65, 64), 1, 1, 1, 2),
    conv("audio", (2, 3, 900), (3, 1, 31), 1, 15, 1, 3),
    conv("far_apart", (1, 2, 2, 9), (2, 1, 1, 3), 1, (0, 70000), (1, 70000), 2),
]


def in_layouts(*arrays):
    yield arrays
    yield tuple(np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) for a in arrays)


@pytest.mark.parametrize("case", [*TILES, *BLOCKS, *PRODUCTS], ids=str)
def test_weight_gradient_is_exact(backend, case):
    rng = np.random.default_rng(31)
    x, dy = integers(rng, case.x_shape, float32), integers(rng, case.y_shape, float32)
    expected = direct.backward_weight(case, dy.astype(float64), x.astype(float64))
    for xl, dyl in in_layouts(x, dy):
        assert_exact(backend.conv_backward_weight(dyl, xl, case.w_shape, *case.options), expected, float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_depthwise_is_exact(backend, case, dtype):
    rng = np.random.default_rng(32)
    x, w, b, dy = (integers(rng, s, dtype, -1, 1) for s in (case.x_shape, case.w_shape, case.w_shape[:1], case.y_shape))
    x64, w64, b64, dy64 = (a.astype(float64) for a in (x, w, b, dy))
    y, dx = direct.forward(case, x64, w64, b64), direct.backward_input(case, dy64, w64)
    dw = direct.backward_weight(case, dy64, x64)
    for xl, dyl in in_layouts(x, dy):
        assert_exact(backend.conv_forward(xl, w, b, *case.options), y, dtype)
        assert_exact(backend.conv_backward_input(dyl, w, case.x_shape, *case.options), dx, dtype)
        assert_exact(backend.conv_backward_weight(dyl, xl, case.w_shape, *case.options), dw, dtype)


@pytest.mark.parametrize("case", [*TILES[-3:], *BLOCKS[:5], *PRODUCTS[-3:], *DEPTHWISE[:6]], ids=str)
def test_weight_gradient_bits_do_not_depend_on_threads(kernel_backend, case):
    rng = np.random.default_rng(33)
    x, dy = normal(rng, case.x_shape, float32), normal(rng, case.y_shape, float32)
    threads = kernel_backend.get_num_threads()
    try:
        for xl, dyl in in_layouts(x, dy):
            results = []
            for n in (1, 2, 3):
                kernel_backend.set_num_threads(n)
                results.append(kernel_backend.conv_backward_weight(dyl, xl, case.w_shape, *case.options))
            assert_same_bits(results[1], results[0])
            assert_same_bits(results[2], results[0])
    finally:
        kernel_backend.set_num_threads(threads)


@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_depthwise_bits_do_not_depend_on_layout_or_batch(kernel_backend, case):
    rng = np.random.default_rng(34)
    x, w, dy = (normal(rng, s, float32) for s in (case.x_shape, case.w_shape, case.y_shape))
    b = normal(rng, case.w_shape[:1], float32)
    results = [
        (
            kernel_backend.conv_forward(xl, w, b, *case.options),
            kernel_backend.conv_backward_input(dyl, w, case.x_shape, *case.options),
        )
        for xl, dyl in in_layouts(x, dy)
    ]
    for first, other in zip(*results, strict=True):
        assert_same_bits(other, first)
    y = np.concatenate([kernel_backend.conv_forward(x[i : i + 1], w, b, *case.options) for i in range(len(x))])
    assert_same_bits(y, results[0][0])


@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("case", [TILES[3], BLOCKS[0], DEPTHWISE[2]], ids=str)
def test_what_is_not_finite_stays_where_it_belongs(backend, case, last):
    """One infinity in a corner of x reaches the taps that see it, and no other weight."""
    rng = np.random.default_rng(35)
    x, dy = normal(rng, case.x_shape, float32), np.ones(case.y_shape, float32)
    x[0, 0, 0, 0] = np.inf
    xl, dyl = list(in_layouts(x, dy))[last]
    dw = backend.conv_backward_weight(dyl, xl, case.w_shape, *case.options)
    seen = direct.backward_weight(case, dy.astype(float64), np.isinf(x).astype(float64)) > 0
    np.testing.assert_array_equal(dw[seen], np.inf)
    assert np.isfinite(dw[~seen]).all() and seen.any() and not seen.all()


def test_weights_larger_than_the_workspace(kernel_backend):
    """The accumulators of a large layer are worked off in chunks."""
    rng = np.random.default_rng(36)
    x, dy = integers(rng, (3, 9000), float32), integers(rng, (3, 500), float32)
    kernel_backend.reset_workspace_peak()
    dw = kernel_backend.linear_backward_weight(dy, x)
    assert kernel_backend.workspace_peak() <= 32 << 20
    assert_exact(dw, dy.astype(float64).T @ x.astype(float64), float32)
    # One input channel's taps alone exceed a chunk.
    x, dy = integers(rng, (1, 1, 700, 700), float32), integers(rng, (1, 2, 6, 6), float32)
    case = conv("large_filter", x.shape, (2, 1, 695, 695))
    dw = kernel_backend.conv_backward_weight(dy, x, case.w_shape, *case.options)
    assert kernel_backend.workspace_peak() <= 32 << 20
    windows = np.lib.stride_tricks.sliding_window_view(x[0, 0].astype(float64), (695, 695))
    assert_exact(dw[:, 0], np.einsum("kpq,pqrs->krs", dy[0].astype(float64), windows, optimize=True), float32)
