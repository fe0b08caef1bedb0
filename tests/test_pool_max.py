"""Max pooling, adaptive max pooling and unpooling: values, indices, gradients, invariance, bad input; every backend.

Maxima move values and round nothing, so every comparison here is exact.
"""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import checks
import fastconv as fc
from fastconv import reference

# (nd, x shape, kernel, stride, padding, dilation, ceil_mode)
CASES = {
    "2x2": (2, (2, 3, 8, 34), 2, None, 0, 1, False),
    "3x3/2": (2, (2, 5, 15, 70), 3, 2, 1, 1, False),
    "3x3/1": (2, (1, 17, 9, 33), 3, 1, 1, 1, False),
    "3x3/2 ceil": (2, (1, 4, 14, 14), 3, 2, 0, 1, True),
    "planes of less than a register": (2, (2, 9, 7, 7), 3, 1, 1, 1, False),
    "planes of one row": (2, (2, 5, 1, 9), 3, 1, 1, 1, False),
    "very wide 2x2": (2, (1, 2, 9, 1100), 2, None, 0, 1, False),
    "very wide 3x3/1": (2, (1, 2, 5, 1100), 3, 1, 1, 1, False),
    "tall": (2, (1, 2, 140, 40), 3, 2, 1, 1, False),
    "unequal": (2, (2, 20, 11, 19), (4, 3), (3, 1), (2, 1), 1, True),
    "dilated": (2, (1, 3, 17, 41), 3, 2, 1, (2, 3), True),
    "strided by 4": (2, (1, 33, 20, 37), 3, 4, 1, 1, False),
    "long rows": (1, (2, 3, 301), 5, 2, 2, 1, False),
    "1-D dilated": (1, (1, 2, 50), 4, 1, 2, 3, False),
    "3-D": (3, (1, 18, 5, 6, 21), (2, 3, 3), (1, 2, 2), (1, 1, 0), 1, True),
    "many taps": (2, (1, 2, 40, 40), 18, 3, 9, 1, False),
    "more taps than vectors take": (1, (1, 2, 5000), 4100, 300, 0, 1, True),
    "tiles, two rows a register": (2, (2, 5, 14, 15), 2, None, 0, 1, False),
    "tiles, one row left over": (2, (1, 3, 11, 8), 2, None, 0, 1, False),
    "plane over the cache": (2, (1, 2, 129, 130), 3, 2, 1, 1, True),
    "short rows dilated by 4": (2, (2, 7, 19, 13), (2, 3), (3, 4), 1, 4, True),
    "windows in the padding": (2, (1, 2, 1, 20), 2, 1, 1, (2, 1), False),
    "pairs": (2, (2, 5, 15, 70), 3, 2, ((0, 1), (2, 0)), 1, False),
    "pairs, 3x3/1": (2, (1, 17, 9, 33), 3, 1, ((2, 0), (0, 2)), 1, False),
    "pairs over half the window": (2, (1, 4, 5, 40), (5, 4), 1, ((4, 3), (3, 3)), 1, True),
    "pairs, dilated": (2, (1, 3, 17, 41), 3, 2, ((4, 1), (0, 6)), (2, 3), True),
    "2x2 with a pair": (2, (1, 3, 8, 34), 2, 2, ((0, 0), (0, 1)), 1, False),
    "same": (2, (1, 18, 14, 21), 3, 2, "same", 1, False),
    "same, 3-D": (3, (1, 3, 5, 6, 21), (2, 3, 4), (1, 2, 3), "same", 1, False),
    "valid": (2, (1, 3, 9, 20), 3, 2, "valid", 1, False),
}
OF_TORCH = [c for c, (*_, padding, _, _) in CASES.items() if isinstance(padding, int) or isinstance(padding[0], int)]


def integers(shape, dtype, seed=1):
    return checks.integers(np.random.default_rng(seed), shape, dtype)


def options(case):
    nd, shape, kernel, stride, padding, dilation, ceil_mode = CASES[case]
    return nd, shape, (kernel, stride, padding, dilation, ceil_mode, nd)


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("case", CASES)
def test_values_indices_and_gradient_are_those_of_the_reference(backend, case, dtype):
    _, shape, args = options(case)
    for name, x in checks.layouts(integers(shape, dtype)):
        y64, index = reference.max_pool_forward(x.astype(np.float64), *args, "flat")
        dy = integers(y64.shape, dtype, 2)
        dx64 = reference.max_pool_backward(dy.astype(np.float64), index, shape, *args)
        y, flat = backend.max_pool_forward(x, *args, "flat")
        checks.assert_exact(y, y64, dtype)
        np.testing.assert_array_equal(flat, index, err_msg=name)
        checks.assert_exact(backend.max_pool_backward(dy, flat, shape, *args), dx64, dtype)
        checks.assert_exact(backend.max_pool_forward(x, *args, "none"), y64, dtype)
        y, saved = backend.max_pool_forward(x, *args, "window")
        checks.assert_exact(y, y64, dtype)
        checks.assert_exact(backend.max_pool_backward(dy, saved, shape, *args), dx64, dtype)


@pytest.mark.parametrize("case", [c for c in OF_TORCH if c != "windows in the padding"])
def test_values_and_indices_are_those_of_torch(backend, torch, case):
    nd, shape, (kernel, stride, padding, dilation, ceil_mode, _) = options(case)
    x = integers(shape, np.float32)
    pool = getattr(torch.nn.functional, f"max_pool{nd}d")
    tx = checks.to_torch(x).requires_grad_()
    y, index = pool(tx, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
    ours, flat = backend.max_pool_forward(x, kernel, stride, padding, dilation, ceil_mode, nd, "flat")
    np.testing.assert_array_equal(ours, checks.from_torch(y))
    np.testing.assert_array_equal(flat, index.numpy())
    dy = integers(ours.shape, np.float32, 3)
    y.backward(checks.to_torch(dy))
    dx = backend.max_pool_backward(dy, flat, shape, kernel, stride, padding, dilation, ceil_mode, nd)
    np.testing.assert_array_equal(dx, checks.from_torch(tx.grad))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_first_of_equal_values_wins_and_nan_before_numbers(backend, layout, stride):
    rng = np.random.default_rng(4)
    x = rng.choice(np.array([0.0, -0.0, 1.0, np.nan, -np.inf], np.float32), (2, 18, 9, 40), p=[0.3, 0.3, 0.2, 0.1, 0.1])
    x = dict(checks.layouts(x))[layout]
    args = (3, stride, 1, 1, False, 2)
    y, index = backend.max_pool_forward(x, *args, "flat")
    _, index64 = reference.max_pool_forward(x.astype(np.float64), *args, "flat")
    np.testing.assert_array_equal(index, index64)
    planes = np.ascontiguousarray(x).reshape(36, -1)
    chosen = np.take_along_axis(planes, np.ascontiguousarray(index).reshape(36, -1), axis=1).reshape(y.shape)
    checks.assert_same_bits(y, chosen)  # -0.0 and 0.0 are equal: the sign tells which was first
    checks.assert_same_bits(backend.max_pool_forward(x, *args, "none"), y)


def test_windows_of_minus_infinity_choose_their_first_value(backend):
    x = np.full((1, 2, 5, 20), -np.inf, np.float32)
    y, index = backend.max_pool_forward(x, 3, 2, 1, 1, False, 2, "flat")
    assert (y == -np.inf).all()
    rows, columns = np.array([0, 1, 3]), np.array([0, *range(1, 19, 2)])
    np.testing.assert_array_equal(index[0, 0], rows[:, None] * 20 + columns)


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("stride", [1, 2])
def test_overlapping_gradients_add_up_before_they_are_rounded(backend, dtype, stride):
    x = np.zeros((1, 2, 7, 21), dtype)
    x[:, :, 3, 9] = 1
    args = (5, stride, 2, 1, False, 2)
    for _, view in zip(range(2), (v for _, v in checks.layouts(x)), strict=False):
        for kind in ("flat", "window"):
            y, saved = backend.max_pool_forward(view, *args, kind)
            dy = np.full(y.shape, 1 + 2.0**-7, dtype)  # a sum of 25 in bfloat16 would lose the small part
            dx = backend.max_pool_backward(dy, saved, x.shape, *args)
            windows = int((y == 1)[0, 0].sum())
            assert dx[0, 0, 3, 9] == np.asarray(windows * (1 + 2.0**-7), dtype)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3])
def test_every_width_around_a_register(backend, kernel, stride):
    for width in (2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 34, 65):
        for height in (6, 7):
            check_window_taps(backend, (3, 3, height, max(width, kernel)), (kernel, stride, 0, 1, False, 2))


@pytest.mark.parametrize("args", [(2, 2, 0, 1, False, 2), (3, 2, 1, 1, False, 2), (3, 1, 1, 1, False, 2)], ids=str)
def test_tasks_keep_to_their_rows(kernel_backend, args):
    """Short rows are stored as whole registers, which must not reach into what another thread stores."""
    before = kernel_backend.get_num_threads()
    try:
        kernel_backend.set_num_threads(3)
        for width in (5, 6, 7, 13, 14, 15):
            check_window_taps(kernel_backend, (2, 150, 28, width), args)
    finally:
        kernel_backend.set_num_threads(before)


def check_window_taps(backend, shape, args):
    x = integers(shape, np.float32, shape[-1])
    y64, index = reference.max_pool_forward(x.astype(np.float64), *args, "flat")
    y, saved = backend.max_pool_forward(x, *args, "window")
    checks.assert_exact(y, y64, np.float32)
    checks.assert_same_bits(backend.max_pool_forward(x, *args, "none"), y)
    dy = integers(y.shape, np.float32, 2)
    dx64 = reference.max_pool_backward(dy.astype(np.float64), index, shape, *args)
    checks.assert_exact(backend.max_pool_backward(dy, saved, shape, *args), dx64, np.float32)


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
def test_gradient_is_the_adjoint(backend, dtype):
    _, shape, args = options("3x3/2")
    x = integers(shape, dtype)
    y, saved = backend.max_pool_forward(x, *args, "window")
    dy = integers(y.shape, dtype, 5)
    dx = backend.max_pool_backward(dy, saved, shape, *args)
    assert np.sum(dx.astype(np.float64) * x.astype(np.float64)) == np.sum(dy.astype(np.float64) * y.astype(np.float64))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_bits_do_not_depend_on_threads_or_batch(kernel_backend, layout):
    x = checks.normal(np.random.default_rng(6), (6, 24, 40, 40), np.float32)
    x = dict(checks.layouts(x))[layout]
    args = (3, 2, 1, 1, False, 2)
    threads = kernel_backend.get_num_threads()
    results = []
    for count in (1, 2):
        kernel_backend.set_num_threads(count)
        try:
            y, saved = kernel_backend.max_pool_forward(x, *args, "window")
            results.append((y, saved, kernel_backend.max_pool_backward(y, saved, x.shape, *args)))
        finally:
            kernel_backend.set_num_threads(threads)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    y, saved, dx = results[0]
    for n in range(0, 6, 5):
        one, tap = kernel_backend.max_pool_forward(x[n : n + 1], *args, "window")
        checks.assert_same_bits(one, y[n : n + 1])
        checks.assert_same_bits(
            kernel_backend.max_pool_backward(one, tap, one.shape[:2] + x.shape[2:], *args), dx[n : n + 1]
        )


def test_batch_may_be_empty_or_left_out(backend):
    x = integers((3, 9, 9), np.float32)
    y, saved = backend.max_pool_forward(x, 2, None, 0, 1, False, 2, "window")
    full, index = backend.max_pool_forward(x[None], 2, None, 0, 1, False, 2, "flat")
    assert y.shape == saved.shape == (3, 4, 4)
    np.testing.assert_array_equal(y, full[0])
    dx = backend.max_pool_backward(y, saved, x.shape, 2, None, 0, 1, False, 2)
    np.testing.assert_array_equal(dx, backend.max_pool_backward(full, index, (1, 3, 9, 9), 2, None, 0, 1, False, 2)[0])
    y, saved = backend.max_pool_forward(np.zeros((0, 3, 9, 9), np.float32), 2, None, 0, 1, False, 2, "window")
    assert y.shape == (0, 3, 4, 4)
    assert backend.max_pool_backward(y, saved, (0, 3, 9, 9), 2, None, 0, 1, False, 2).shape == (0, 3, 9, 9)


def test_memory_beside_the_arrays_is_neither_read_nor_written(backend):
    for case in CASES:
        _, shape, args = options(case)
        x = checks.guarded(shape, np.float32)
        x[...] = integers(shape, np.float32)
        y, saved = backend.max_pool_forward(x, *args, "window")
        assert not np.isnan(y).any(), case
        dy = checks.guarded(y.shape, np.float32)
        dy[...] = 1
        assert not np.isnan(backend.max_pool_backward(dy, saved, shape, *args)).any(), case
        assert checks.guards_intact(x) and checks.guards_intact(dy), case


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_result_keeps_the_memory_format(backend, layout):
    x = dict(checks.layouts(integers((2, 8, 10, 10), np.float32)))[layout]
    y, saved = backend.max_pool_forward(x, 2, None, 0, 1, False, 2, "window")
    dx = backend.max_pool_backward(y, saved, x.shape, 2, None, 0, 1, False, 2)
    last = layout == "channels_last"
    assert np.moveaxis(y, 1, -1).flags.c_contiguous == last == np.moveaxis(dx, 1, -1).flags.c_contiguous


# ---- adaptive -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize(
    ("nd", "shape", "size"),
    [
        (1, (2, 3, 13), 5),
        (2, (2, 17, 13, 20), (6, 7)),
        (2, (1, 3, 5, 4), (8, 9)),
        (2, (2, 4, 7, 7), (None, 3)),
        (3, (1, 2, 4, 5, 6), (3, 5, 1)),
    ],
)
def test_adaptive_maximum(backend, nd, shape, size, dtype):
    for _, x in checks.layouts(integers(shape, dtype)):
        y64, index64 = reference.adaptive_max_pool_forward(x.astype(np.float64), size, nd, "flat")
        y, index = backend.adaptive_max_pool_forward(x, size, nd, "flat")
        checks.assert_exact(y, y64, dtype)
        np.testing.assert_array_equal(index, index64)
        checks.assert_exact(backend.adaptive_max_pool_forward(x, size, nd, "none"), y64, dtype)
        dy = integers(y.shape, dtype, 8)
        dx64 = reference.adaptive_max_pool_backward(dy.astype(np.float64), index64, shape, nd)
        checks.assert_exact(backend.adaptive_max_pool_backward(dy, index, shape, nd), dx64, dtype)


# ---- unpooling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "negative"])
def test_unpooling_puts_maxima_back(backend, layout, dtype):
    x = checks.normal(np.random.default_rng(9), (2, 18, 8, 12), dtype)
    x = dict(checks.layouts(x))[layout]
    y, index = backend.max_pool_forward(x, 2, None, 0, 1, False, 2, "flat")
    back = backend.max_unpool_forward(y, index, (8, 12), 2)
    kept = back != 0
    assert kept.sum() == y.size
    checks.assert_same_bits(back[kept], x[kept])
    checks.assert_same_bits(backend.max_unpool_backward(x, index, 2), y)


def test_last_of_duplicate_indices_wins(backend):
    x = np.arange(1.0, 5.0).reshape(1, 4)
    index = np.array([[2, 0, 2, 2]])
    np.testing.assert_array_equal(backend.max_unpool_forward(x, index, 3, 1), [[2.0, 0.0, 4.0]])
    np.testing.assert_array_equal(
        backend.max_unpool_backward(np.array([[7.0, 8.0, 9.0]]), index, 1), [[9.0, 7.0, 9.0, 9.0]]
    )


@pytest.mark.parametrize("bad", [-1, 16, 2**40, -(2**63)])
def test_an_index_outside_the_plane_is_named(backend, bad):
    x, index = np.ones((1, 2, 2, 2), np.float32), np.zeros((1, 2, 2, 2), np.int64)
    index[0, 1, 1, 0] = bad
    calls = [
        lambda: backend.max_unpool_forward(x, index, (4, 4), 2),
        lambda: backend.max_unpool_backward(np.ones((1, 2, 4, 4), np.float32), index, 2),
        lambda: backend.adaptive_max_pool_backward(x, index, (1, 2, 4, 4), 2),
    ]
    if bad != -1:  # there: a window that lies in the padding
        calls.append(lambda: backend.max_pool_backward(x, index, (1, 2, 4, 4), 2, None, 0, 1, False, 2))
    for call in calls:
        with pytest.raises(ValueError, match=str(bad)):
            call()


def test_any_saved_taps_are_safe(kernel_backend):
    """What max_pool_backward is given as `saved` may be anything: no write leaves the array."""
    for shape in ((2, 17, 9, 35), (1, 1, 130, 129)):
        for stride in (1, 2, 3):
            args = (3, stride, 1, 1, False, 2)
            y, saved = kernel_backend.max_pool_forward(integers(shape, np.float32), *args, "window")
            wild = np.random.default_rng(10).integers(0, 256, saved.shape).astype(saved.dtype)
            dx = kernel_backend.max_pool_backward(np.ones_like(y), wild, shape, *args)
            assert 0 <= dx.sum() <= y.size


# ---- bad input ------------------------------------------------------------------------------------------------------

X = np.zeros((1, 2, 6, 6), np.float32)


def forward(backend, x=X, kernel=2, stride=None, padding=0, dilation=1, ceil_mode=False, nd=2, indices="none"):
    return backend.max_pool_forward(x, kernel, stride, padding, dilation, ceil_mode, nd, indices)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"stride": 0}, ValueError, "stride"),
        ({"stride": 2**63 - 1, "kernel": 7}, ValueError, "kernel_size"),
        ({"kernel": 0}, ValueError, "kernel_size"),
        ({"kernel": (2, -1)}, ValueError, "kernel_size"),
        ({"kernel": []}, ValueError, "kernel_size"),
        ({"kernel": (2, 2, 2)}, ValueError, "kernel_size"),
        ({"kernel": 2.0}, TypeError, "kernel_size"),
        ({"kernel": True}, TypeError, "kernel_size"),
        ({"kernel": 7}, ValueError, "kernel_size"),
        ({"kernel": 10**20}, ValueError, "kernel_size"),
        ({"padding": 2}, ValueError, "padding"),
        ({"padding": -1}, ValueError, "padding"),
        ({"padding": ((0, -1), (0, 0))}, ValueError, "padding"),
        ({"padding": ((0, 2), (0, 0))}, ValueError, "padding.*window"),
        ({"padding": ((5, 0), (0, 0)), "dilation": 4}, ValueError, "padding.*window"),
        ({"padding": ((0, 1),)}, ValueError, "padding"),
        ({"padding": ((0, 1), (0, 1, 1))}, ValueError, "padding"),
        ({"padding": ((0, 1), (0, 0.5))}, TypeError, "padding"),
        ({"padding": "full"}, ValueError, "padding"),
        ({"dilation": 0}, ValueError, "dilation"),
        ({"dilation": 2**62}, ValueError, "dilation|kernel|large"),
        ({"indices": "all"}, ValueError, "indices"),
        ({"nd": 4}, ValueError, "nd"),
        ({"x": np.zeros((6, 6), np.float32)}, ValueError, "shape|entries"),
        ({"x": np.zeros((1, 0, 6, 6), np.float32)}, ValueError, "channel|empty|input"),
        ({"x": np.zeros((1, 2, 0, 6), np.float32)}, ValueError, "empty|input"),
        ({"x": np.zeros((1, 2, 6, 6), np.int32)}, TypeError, "dtype|int32"),
        ({"x": np.zeros((1, 2, 6, 6), ">f4")}, TypeError, "f4|endian"),
        ({"x": [[1.0]]}, TypeError, "ndarray|array"),
    ],
)
def test_bad_parameters(backend, change, error, text):
    with pytest.raises(error, match=text):
        forward(backend, **change)


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (1, 1, 3, 3), (1, 2, 3, 4), (2, 3, 3), (11, 2, 3, 3)])
def test_gradient_of_another_shape(backend, shape):
    _, saved = forward(backend, indices="flat")
    with pytest.raises(ValueError, match="shape"):
        backend.max_pool_backward(np.zeros(shape, np.float32), saved, X.shape, 2, None, 0, 1, False, 2)
    with pytest.raises(ValueError, match="shape"):
        backend.max_pool_backward(
            np.zeros((1, 2, 3, 3), np.float32), np.zeros(shape, np.int64), X.shape, 2, None, 0, 1, False, 2
        )
    with pytest.raises(TypeError):
        backend.max_pool_backward(
            np.zeros((1, 2, 3, 3), np.float32), saved.astype(np.float32), X.shape, 2, None, 0, 1, False, 2
        )


def test_windows_far_larger_than_the_input(kernel_backend):
    """What is outside costs no time: a loop over all 2^40 taps would not end."""
    x = integers((1, 2, 10), np.float32)
    args = (2**40, 1, 2**39, 1, False, 1)
    y, index = kernel_backend.max_pool_forward(x, *args, "flat")
    assert y.shape == (1, 2, 11) and (y == x.max(axis=-1, keepdims=True)).all()
    dx = kernel_backend.max_pool_backward(y, index, x.shape, *args)
    np.testing.assert_array_equal(dx.sum(axis=-1), y.sum(axis=-1))
    _, saved = kernel_backend.max_pool_forward(x, *args, "window")
    np.testing.assert_array_equal(kernel_backend.max_pool_backward(y, saved, x.shape, *args), dx)


@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=25)
def test_random_shapes(kernel_backend, data):
    nd = data.draw(st.integers(1, 3), "nd")
    each = st.tuples(*[st.integers(1, 4)] * nd)
    shape = data.draw(
        st.tuples(st.integers(1, 2), st.integers(1, 19), *[st.integers(1, (60, 20, 7)[nd - 1])] * nd), "x"
    )
    kernel, stride, dilation = (data.draw(each, n) for n in ("kernel", "stride", "dilation"))
    padding = tuple(data.draw(st.integers(0, k // 2), "padding") for k in kernel)
    if data.draw(st.booleans(), "in pairs"):
        reach = [(k - 1) * d for k, d in zip(kernel, dilation)]
        padding = tuple(data.draw(st.tuples(*[st.integers(0, r)] * 2), "pair") for r in reach)
    args = (kernel, stride, padding, dilation, data.draw(st.booleans(), "ceil_mode"), nd)
    x = integers(shape, np.float32)
    if data.draw(st.booleans(), "channels last"):
        x = dict(checks.layouts(x))["channels_last"]
    try:
        expected, index = reference.max_pool_forward(x, *args, "flat")
    except ValueError:
        with pytest.raises(ValueError):
            kernel_backend.max_pool_forward(x, *args, "flat")
        return
    y, flat = kernel_backend.max_pool_forward(x, *args, "flat")
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(flat, index)
    _, saved = kernel_backend.max_pool_forward(x, *args, "window")
    dx = reference.max_pool_backward(y, index, shape, *args)
    np.testing.assert_array_equal(kernel_backend.max_pool_backward(y, saved, shape, *args), dx)


def test_functional_layer_reaches_the_kernels(backend):
    x = integers((1, 2, 7, 7), np.float32)
    y, pullback = fc.nn.functional.max_pool2d.vjp(x, 3, stride=2)
    (dx,) = pullback(np.ones_like(y))
    assert y.shape == (1, 2, 3, 3) and dx.sum() == y.size
