"""Transposed convolution: the adjoint of a convolution, held against the convolution's definition (``direct``).

A transposed convolution with weights (C, K // groups, *kernel) computes the input gradient of the convolution that maps
its output back to its input, whose weights are the same array; `Conv` here is that convolution.
"""

from __future__ import annotations

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
    channels_last,
    directional_derivative,
    dtype_name,
    float32,
    float64,
    from_torch,
    integers,
    layouts,
    to_torch,
)
from direct import Conv


def transposed(
    name: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    output_padding: tuple[int, ...],
    groups: int = 1,
    dilation: tuple[int, ...] | None = None,
) -> Conv:
    """The convolution whose input gradient is the transposed convolution of x (N, C, *S) by w (C, K // groups, *k)."""
    dilation = dilation or (1,) * len(stride)
    sizes = zip(x_shape[2:], w_shape[2:], stride, padding, output_padding, dilation, strict=True)
    space = ((n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, k, s, p, o, d in sizes)
    c = Conv(
        name,
        (x_shape[0], w_shape[1] * groups, *space),
        w_shape,
        stride,
        tuple((p, p) for p in padding),
        dilation,
        groups,
    )
    assert c.y_shape == x_shape, f"{name}: output_padding must be below the stride"
    return c


CASES = [
    transposed("plain", (2, 3, 5, 6), (3, 4, 3, 3), (1, 1), (0, 0), (0, 0)),
    transposed("padded", (2, 5, 6, 7), (5, 4, 3, 3), (1, 1), (1, 1), (0, 0)),
    transposed("upsample_2", (2, 7, 5, 6), (7, 6, 4, 4), (2, 2), (1, 1), (0, 0)),
    transposed("upsample_2_output_padding", (2, 4, 5, 6), (4, 3, 3, 3), (2, 2), (1, 1), (1, 1)),
    transposed("upsample_3_2", (1, 4, 4, 5), (4, 5, 5, 2), (3, 2), (2, 0), (2, 1)),
    transposed("stride_over_kernel", (2, 3, 4, 4), (3, 5, 2, 1), (3, 4), (0, 0), (2, 3)),
    transposed("pointwise", (2, 33, 4, 5), (33, 17, 1, 1), (1, 1), (0, 0), (0, 0)),
    transposed("dilated", (2, 3, 5, 5), (3, 4, 3, 2), (2, 1), (1, 2), (1, 0), dilation=(2, 3)),
    transposed("grouped", (2, 6, 4, 5), (6, 3, 3, 3), (2, 2), (1, 1), (0, 1), groups=2),
    transposed("depthwise", (2, 17, 6, 5), (17, 1, 3, 3), (2, 2), (1, 1), (1, 1), groups=17),
    transposed("depthwise_stride_1", (2, 9, 7, 8), (9, 1, 5, 5), (1, 1), (2, 2), (0, 0), groups=9),
    transposed("channels_16", (1, 16, 4, 7), (16, 32, 3, 3), (1, 1), (1, 1), (0, 0)),
    transposed("channels_15_49", (1, 15, 4, 9), (15, 49, 3, 3), (2, 1), (1, 1), (0, 0)),
    transposed("one_pixel", (1, 5, 1, 1), (5, 3, 4, 4), (1, 1), (0, 0), (0, 0)),
    transposed("one_pixel_batch", (9, 20, 1, 1), (20, 18, 3, 4), (2, 1), (0, 0), (0, 0)),
    transposed("one_pixel_line", (3, 7, 1), (7, 5, 6), (1,), (0,), (0,)),
    transposed("one_pixel_volume", (2, 6, 1, 1, 1), (6, 5, 2, 3, 2), (1, 1, 1), (0, 0, 0), (0, 0, 0)),
    transposed("one_pixel_grouped", (2, 6, 1, 1), (6, 2, 3, 3), (1, 1), (0, 0), (0, 0), groups=2),
    transposed("one_pixel_behind", (2, 3, 1, 1), (3, 4, 2, 2), (2, 2), (0, 0), (1, 1)),
    transposed("empty_batch", (0, 3, 4, 4), (3, 2, 3, 3), (2, 2), (1, 1), (0, 0)),
    transposed("line", (2, 4, 9), (4, 3, 3), (2,), (1,), (1,)),
    transposed("line_audio", (1, 3, 6), (3, 2, 32), (8,), (12,), (0,)),
    transposed("volume", (2, 3, 3, 4, 3), (3, 4, 2, 3, 3), (2, 1, 2), (0, 1, 1), (1, 0, 1)),
    transposed("volume_grouped", (1, 4, 2, 3, 4), (4, 2, 3, 1, 2), (1, 2, 1), (1, 0, 0), (0, 1, 0), groups=2),
]

by_case = pytest.mark.parametrize("case", CASES, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)


def options(c: Conv) -> tuple:
    """stride, padding, output_padding, groups, dilation, nd of the transposed convolution."""
    reached = zip(c.y_shape[2:], c.w_shape[2:], c.stride, c.padding, c.dilation, c.x_shape[2:], strict=True)
    output_padding = tuple(n - ((m - 1) * s - sum(p) + d * (k - 1) + 1) for m, k, s, p, d, n in reached)
    return c.stride, tuple(before for before, _ in c.padding), output_padding, c.groups, c.dilation, c.nd


def arguments(d: direct.Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, w, dy) of the transposed convolution: it takes what the convolution gives."""
    return d.dy, d.w, d.x


def run(backend, c: Conv, x, w, dy):
    """y, dx and dw of a backend."""
    return (
        backend.conv_transpose_forward(x, w, None, *options(c)),
        backend.conv_transpose_backward_input(dy, w, c.y_shape, *options(c)),
        backend.conv_transpose_backward_weight(dy, x, c.w_shape, *options(c)),
    )


@by_dtype
@by_case
def test_exact(backend, case, dtype):
    """Integer data: the bits of integer arithmetic, in both memory formats, which the result keeps."""
    d = direct.exact(case, dtype)
    x, w, dy = arguments(d)
    expected = d.dx, direct.forward(case, d.x.astype(float64), d.w.astype(float64)), d.dw
    for convert in (np.ascontiguousarray, channels_last):
        for actual, right in zip(run(backend, case, convert(x), w, convert(dy)), expected, strict=True):
            assert_exact(actual, right, dtype)
    x = channels_last(x)
    if not x.flags.c_contiguous:  # else its strides say both
        y = backend.conv_transpose_forward(x, w, None, *options(case))
        assert np.moveaxis(y, 1, -1).flags.c_contiguous


@by_dtype
@by_case
def test_bound(backend, case, dtype):
    d, magnitude = direct.random(case, dtype)
    terms = case.terms * case.w_shape[0], case.terms, d.dy.size // case.w_shape[0]
    bias = d.b.reshape(-1, *[1] * case.nd)
    expected = (d.dx, magnitude.dx), (d.y - bias, magnitude.y - np.abs(bias)), (d.dw, magnitude.dw)
    for actual, (right, size), count in zip(run(backend, case, *arguments(d)), expected, terms, strict=True):
        assert_bound(actual, right, size, count, dtype)


@by_dtype
@by_case
def test_bias(backend, case, dtype):
    rng = np.random.default_rng(6)
    d = direct.exact(case, dtype)
    b = integers(rng, (case.x_shape[1],), dtype)
    y = backend.conv_transpose_forward(d.dy, d.w, b, *options(case))
    assert_exact(y, d.dx + b.astype(float64).reshape(-1, *[1] * case.nd), dtype)


@by_case
def test_layouts(backend, case):
    d = direct.exact(case, float32)
    expected = d.dx, direct.forward(case, d.x.astype(float64), d.w.astype(float64)), d.dw
    x, w, dy = (list(layouts(a)) for a in arguments(d))
    for views in zip(x, w, dy, strict=True):
        for actual, right in zip(run(backend, case, *(view for _, view in views)), expected, strict=True):
            assert_exact(actual, right, float32)


@by_case
def test_unbatched(backend, case):
    if case.x_shape[0] == 0:
        x, w = np.ones(case.y_shape[1:], np.float32), np.ones(case.w_shape, np.float32)
        batched = backend.conv_transpose_forward(x[None], w, None, *options(case))
        assert_same_bits(backend.conv_transpose_forward(x, w, None, *options(case)), batched[0])
        return
    d = direct.exact(case, float32)
    assert_exact(backend.conv_transpose_forward(d.dy[0], d.w, None, *options(case)), d.dx[0], float32)
    y = direct.forward(case, d.x.astype(float64), d.w.astype(float64))
    dx = backend.conv_transpose_backward_input(d.x[0], d.w, case.y_shape[1:], *options(case))
    assert_exact(dx, y[0], float32)


@by_case
def test_bits_do_not_depend_on_threads_batch_or_run(kernel_backend, case):
    d, _ = direct.random(case, float32)
    x, w, dy = arguments(d)
    before = kernel_backend.get_num_threads()
    try:
        kernel_backend.set_num_threads(1)
        expected = run(kernel_backend, case, x, w, dy)
        for threads in (1, 2, 2):
            kernel_backend.set_num_threads(threads)
            for actual, right in zip(run(kernel_backend, case, x, w, dy), expected, strict=True):
                assert_same_bits(actual, right)
        for i in range(x.shape[0]):
            y = kernel_backend.conv_transpose_forward(x[i : i + 1], w, None, *options(case))
            assert_same_bits(y, expected[0][i : i + 1])
    finally:
        kernel_backend.set_num_threads(before)


def test_pixels_whose_images_are_computed_in_parts(backend):
    """Channels-last images of more than 8 MB from single pixels."""
    c = transposed("one_pixel_parts", (19, 2, 1, 1), (2, 1024, 11, 11), (1, 1), (0, 0), (0, 0))
    rng = np.random.default_rng(3)
    x, w = integers(rng, c.y_shape, float32), integers(rng, c.w_shape, float32)
    b = integers(rng, (1024,), float32)
    y = backend.conv_transpose_forward(channels_last(x), w, b, *options(c))
    right = np.einsum("nk,kcrs->ncrs", x[:, :, 0, 0], w) + b[:, None, None]
    assert_exact(y, right, float32)
    assert_exact(
        backend.conv_backward_input(channels_last(x), w, c.x_shape, *c.options), right - b[:, None, None], float32
    )


@by_case
def test_functional_and_vjp(backend, case):
    conv = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[case.nd]
    stride, padding, output_padding, groups, dilation, _ = options(case)
    d = direct.exact(case, float32)
    b = np.arange(case.x_shape[1], dtype=np.float32)
    positional = stride, padding, output_padding, groups, dilation
    y, pullback = conv.vjp(d.dy, d.w, b, *positional)
    assert_exact(y, d.dx + b.astype(float64).reshape(-1, *[1] * case.nd), float32)
    assert_same_bits(conv(d.dy, d.w, b, *positional), y)
    dx, dw, db = pullback(d.x)
    assert_exact(dx, direct.forward(case, d.x.astype(float64), d.w.astype(float64)), float32)
    assert_exact(dw, d.dw, float32)
    assert_exact(db, direct.backward_bias(d.x.astype(float64)), float32)


@by_case
def test_gradients_are_derivatives(backend, case):
    conv = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[case.nd]
    rng = np.random.default_rng(7)
    d, _ = direct.random(case, float64)
    b = rng.standard_normal(case.x_shape[1])
    rest = options(case)[:5]
    directional_derivative(lambda *a: conv(*a, *rest), lambda *a: conv.vjp(*a, *rest), (d.dy, d.w, b), rng)


@by_case
def test_agrees_with_torch(backend, torch, case):
    """Same arguments in the same order with the same meaning."""
    names = {1: "conv_transpose1d", 2: "conv_transpose2d", 3: "conv_transpose3d"}
    oracle, ours = (getattr(module, names[case.nd]) for module in (torch.nn.functional, F))
    d = direct.exact(case, float64)
    b = np.arange(case.x_shape[1], dtype=np.float64)
    rest = options(case)[:5]
    expected = from_torch(oracle(*(to_torch(a) for a in (d.dy, d.w, b)), *rest))
    assert_exact(ours(d.dy, d.w, b, *rest), expected, float64)


def test_output_padding_may_reach_the_dilation(backend, torch):
    """output_padding below the dilation but not below the stride (pytorch/pytorch#5112)."""
    rng = np.random.default_rng(9)
    x, w, b = (integers(rng, shape, float64) for shape in ((1, 2, 4, 4), (2, 3, 3, 3), (3,)))
    rest = (1, 2), (0, 1), (1, 2), 1, (2, 3)
    arguments = [to_torch(a).requires_grad_() for a in (x, w, b)]
    expected = torch.nn.functional.conv_transpose2d(*arguments, *rest)
    y, pullback = F.conv_transpose2d.vjp(x, w, b, *rest)
    assert_exact(y, from_torch(expected), float64)
    dy = integers(rng, y.shape, float64)
    expected.backward(to_torch(dy))
    for actual, argument in zip(pullback(dy), arguments, strict=True):
        assert_exact(actual, from_torch(argument.grad), float64)


@st.composite
def transposed_convolutions(draw) -> Conv:
    nd = draw(st.integers(1, 3))
    limit = {1: 12, 2: 6, 3: 3}[nd]
    groups = draw(st.integers(1, 3))
    space, kernel, stride, padding, output_padding, dilation = [], [], [], [], [], []
    for _ in range(nd):
        k, s, d = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
        # A convolution counts windows down to the stride: only an output_padding below it is its inverse.
        extra = draw(st.integers(0, s - 1))
        n = draw(st.integers(1, limit))
        # At least one output element must be left after the crop.
        p = draw(st.integers(0, min(3, ((n - 1) * s + d * (k - 1) + extra) // 2)))
        space.append(n), kernel.append(k), stride.append(s), padding.append(p)
        output_padding.append(extra), dilation.append(d)
    x_shape = (draw(st.integers(0, 2)), groups * draw(st.integers(1, 5)), *space)
    w_shape = (x_shape[1], draw(st.integers(1, 5)), *kernel)
    return transposed(
        "drawn", x_shape, w_shape, tuple(stride), tuple(padding), tuple(output_padding), groups, tuple(dilation)
    )


@given(case=transposed_convolutions(), dtype=st.sampled_from(DTYPES))
def test_any_shape(backend, case, dtype):
    rng = np.random.default_rng(8)
    dy, w, x = (integers(rng, s, dtype, -2, 2) for s in (case.x_shape, case.w_shape, case.y_shape))
    y, dx, dw = run(backend, case, x, w, dy)
    x64, w64, dy64 = (a.astype(float64) for a in (x, w, dy))
    assert_exact(y, direct.backward_input(case, x64, w64), dtype)
    assert_exact(dx, direct.forward(case, dy64, w64), dtype)
    assert_exact(dw, direct.backward_weight(case, x64, dy64), dtype)
