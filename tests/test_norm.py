"""batch_norm and instance_norm: values, statistics, gradients, invariance and bad input, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import checks
from fastconv import reference

# One value a plane, register tails, a channel more than a tile, planes longer than a block, rows of one channel.
SHAPES = [
    (5, 64),
    (300, 3),
    (2, 3, 5, 7),
    (4, 1, 9),
    (1, 20, 33),
    (20, 17, 1),
    (3, 2, 2, 3, 4),
    (2, 2, 2051),
    (3, 515, 3),
]
SPATIAL = [s for s in SHAPES if len(s) > 2 and np.prod(s[2:]) > 1]
EPS = 1e-5
KINDS = ("batch", "instance")


def ops(module, kind):
    return getattr(module, f"{kind}_norm_forward"), getattr(module, f"{kind}_norm_backward")


def cases(kind):
    return SHAPES if kind == "batch" else SPATIAL


def problem(shape, dtype, parameter_dtype=None):
    rng = np.random.default_rng(7)
    x = (checks.normal(rng, shape, np.float64) * 2 + 3).astype(dtype)
    w, b, mean = (checks.normal(rng, shape[1:2], parameter_dtype or dtype) for _ in range(3))
    var = (rng.random(shape[1]) + 0.5).astype(parameter_dtype or dtype)
    return x, w, b, mean, var, checks.normal(rng, shape, dtype)


def wide(*arrays):
    return tuple(a.astype(np.float64) for a in arrays)


def spread(values, x):
    """(C,) or (N, C) values to broadcast against x."""
    values = values if values.ndim == 2 else values[None]
    return values.reshape(*values.shape, *(1,) * (x.ndim - 2))


def reduced_axes(kind, x, mean):
    return tuple(range(2, x.ndim)) if kind == "instance" else (0, *range(2, x.ndim))


def assert_forward(kind, x, w, b, mean, var, train, result, eps=EPS):
    """The output of a call against the reference in float64."""
    x64, w64, b64, m64, v64 = wide(x, w, b, mean, var)
    y64, mean64, invstd64 = ops(reference, kind)[0](x64, w64, b64, m64, v64, train, 0.1, eps)
    scale = spread(np.abs(invstd64 * w64), x)
    magnitude = (np.abs(x64) + np.abs(spread(mean64, x))) * scale + np.abs(spread(b64, x))
    count = x.size // mean64.size if mean64.size else 0
    checks.assert_bound(result[0], y64, magnitude, max(count, 1), x.dtype)
    statistics = np.float64 if x.dtype == np.float64 else np.float32
    for got, expected in zip(result[1:], (mean64, invstd64), strict=True):
        assert got.dtype == statistics
        np.testing.assert_allclose(got, expected, rtol=16 * np.finfo(statistics).eps, atol=1e-6 if count else 0)


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_the_reference_within_the_bound_in_every_layout(backend, kind, dtype, train):
    for shape in cases(kind):
        x, w, b, mean, var, _ = problem(shape, dtype)
        for name, view in checks.layouts(x):
            result = ops(backend, kind)[0](view, w, b, mean.copy(), var.copy(), train, 0.1, EPS)
            assert_forward(kind, x, w, b, mean, var, train, result)
            if name == "channels_last" and min(shape[1:]) > 1:
                assert result[0].strides[1:] == view.strides[1:]


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("kind", KINDS)
def test_backward_is_the_reference_within_the_bound_in_every_layout(backend, kind, dtype, train):
    forward, backward = ops(reference, kind)
    for shape in cases(kind):
        x, w, b, mean, var, dy = problem(shape, dtype)
        _, mean, invstd = forward(x, w, b, mean, var, train, 0.1, EPS)
        x64, w64, mean64, invstd64, dy64 = wide(x, w, mean, invstd, dy)
        expected = backward(dy64, x64, w64, mean64, invstd64, train)
        normal = (np.abs(x64) + np.abs(spread(mean64, x))) * spread(invstd64, x)
        own, all_but_channels = reduced_axes(kind, x, mean), (0, *range(2, x.ndim))
        share = np.abs(dy64).mean(axis=own, keepdims=True), (np.abs(dy64) * normal).mean(axis=own, keepdims=True)
        magnitudes = (
            (np.abs(dy64) + share[0] + normal * share[1]) * spread(invstd64 * np.abs(w64), x),
            (np.abs(dy64) * normal).sum(axis=all_but_channels),
            np.abs(dy64).sum(axis=all_but_channels),
        )
        for (_, view), (_, gradient) in zip(checks.layouts(x), reversed(list(checks.layouts(dy))), strict=True):
            result = ops(backend, kind)[1](gradient, view, w, mean, invstd, train)
            for got, want, magnitude in zip(result, expected, magnitudes, strict=True):
                checks.assert_bound(got, want, magnitude, x.size // shape[1], dtype)


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_directional_derivatives(backend, kind, train):
    forward, backward = ops(backend, kind)
    rng = np.random.default_rng(3)
    for shape in [(3, 4, 5), (2, 3, 3, 3)]:
        x, w, b, mean, var, _ = problem(shape, np.float64)

        def vjp(x, w, b, mean=mean, var=var):
            y, m, invstd = forward(x, w, b, mean.copy(), var.copy(), train, 0.1, EPS)
            return y, lambda dy: backward(dy, x, w, m, invstd, train)

        checks.directional_derivative(lambda *a, vjp=vjp: vjp(*a)[0], vjp, (x, w, b), rng)


@pytest.mark.parametrize("parameters", [np.float32, None], ids=["float32", "same"])
@pytest.mark.parametrize("dtype", checks.DTYPES[2:], ids=checks.dtype_name)
def test_sixteen_bit_inputs_take_parameters_of_either_width(backend, dtype, parameters):
    x, w, b, mean, var, dy = problem((3, 5, 6), dtype, parameters)
    result = backend.batch_norm_forward(x, w, b, mean.copy(), var.copy(), True, 0.1, EPS)
    assert_forward("batch", x, w, b, mean, var, True, result)
    dx, dw, db = backend.batch_norm_backward(dy, x, w, *result[1:], True)
    assert (dx.dtype, dw.dtype, db.dtype) == (x.dtype, w.dtype, w.dtype)


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("kind", KINDS)
def test_running_statistics_move_by_momentum_whatever_their_strides(backend, kind, dtype):
    x, w, b, mean, var, _ = problem((4, 7, 3, 5), dtype)
    for step in (1, 2, -1):
        buffers = np.zeros((2, 14), dtype)
        run_mean, run_var = buffers[0, ::step][:7], buffers[1, ::step][:7]
        run_mean[...], run_var[...] = mean, var
        outside = buffers.astype(np.float64)
        ops(backend, kind)[0](x, w, b, run_mean, run_var, True, 0.25, EPS)
        m64, v64 = wide(mean, var)
        axes = (0, 2, 3) if kind == "batch" else (2, 3)
        sample = wide(x)[0].mean(axis=axes), wide(x)[0].var(axis=axes, ddof=1)
        if kind == "instance":
            sample = tuple(s.mean(axis=0) for s in sample)
        checks.assert_bound(run_mean, 0.75 * m64 + 0.25 * sample[0], np.abs(m64) + 6, 60, dtype)
        checks.assert_bound(run_var, 0.75 * v64 + 0.25 * sample[1], v64 + 12, 60, dtype)
        changed = buffers.astype(np.float64) != outside
        assert changed.sum() <= 14, "values beside the running statistics were written"


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_leaves_read_only_running_statistics_alone(backend, kind):
    x, w, b, mean, var, _ = problem((2, 3, 4), np.float32)
    mean.flags.writeable = var.flags.writeable = False
    assert_forward(kind, x, w, b, mean, var, False, ops(backend, kind)[0](x, w, b, mean, var, False, 0.1, EPS))


@pytest.mark.parametrize("kind", KINDS)
def test_torch_agrees(backend, torch, kind):
    x, w, b, mean, var, dy = problem((3, 5, 4, 6), np.float64)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    run = [torch.tensor(a) for a in (mean, var)]
    call = getattr(torch.nn.functional, f"{kind}_norm")
    y = call(tensors[0], *run, *tensors[1:], True, 0.3, EPS)
    y.backward(torch.tensor(dy))
    result = ops(backend, kind)[0](x, w, b, mean, var, True, 0.3, EPS)
    np.testing.assert_allclose(result[0], y.detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mean, run[0].numpy(), rtol=1e-12)
    np.testing.assert_allclose(var, run[1].numpy(), rtol=1e-12)
    for got, t in zip(ops(backend, kind)[1](dy, x, w, *result[1:], True), tensors, strict=True):
        np.testing.assert_allclose(got, t.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_variance_is_accurate_where_the_mean_is_large_or_the_first_value_is_far(backend, kind):
    rng = np.random.default_rng(5)
    for shape in [(2, 3, 50, 50), (700, 3, 2)] if kind == "batch" else [(2, 3, 50, 50)]:
        x = (1e4 + rng.standard_normal(shape)).astype(np.float32)
        x[0, 1, 0] = -1e4
        for _, view in checks.layouts(x):
            y, mean, invstd = ops(backend, kind)[0](view, None, None, None, None, True, 0.1, EPS)
            y64, mean64, invstd64 = ops(reference, kind)[0](
                x.astype(np.float64), None, None, None, None, True, 0.1, EPS
            )
            np.testing.assert_allclose(mean, mean64, rtol=2.0**-23)
            np.testing.assert_allclose(invstd, invstd64, rtol=8 * 2.0**-23)
            np.testing.assert_allclose(y, y64, rtol=2.0**-18, atol=2.0**-18)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e20, 1e-30])
def test_constant_channels_have_variance_zero(backend, value):
    x = np.full((3, 4, 5), value, np.float32)
    y, mean, invstd = backend.batch_norm_forward(x, None, None, None, None, True, 0.1, EPS)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(mean, np.where(abs(value) < 1e-37, 0, np.float32(value)))
    np.testing.assert_allclose(invstd, EPS**-0.5, rtol=1e-6)


def test_squares_beyond_float32_do_not_overflow(backend):
    x = np.array([[1e25], [-1e25], [3e25], [1e25]], np.float32)
    for view in (x, np.asfortranarray(x.reshape(2, 1, 2))):
        y, mean, invstd = backend.batch_norm_forward(view, None, None, None, None, True, 0.1, EPS)
        y64, mean64, invstd64 = reference.batch_norm_forward(
            view.astype(np.float64), None, None, None, None, True, 0.1, EPS
        )
        np.testing.assert_allclose(y, y64, rtol=1e-6)
        np.testing.assert_allclose((mean, invstd), (mean64, invstd64), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_stay_in_their_channel(backend, kind):
    x, w, b, *_ = problem((2, 4, 3, 11), np.float32)
    x[0, 1, 0, 3], x[1, 2, 2, 10] = np.nan, np.inf
    for _, view in checks.layouts(x):
        got = ops(backend, kind)[0](view, w, b, None, None, True, 0.1, EPS)
        want = ops(reference, kind)[0](x, w, b, None, None, True, 0.1, EPS)
        for g, r in zip(got, want, strict=True):
            np.testing.assert_array_equal(np.isnan(g), np.isnan(r))
            np.testing.assert_array_equal(np.isinf(g), np.isinf(r))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 3, 60, 60), (6, 40, 21, 20), (2, 1, 210, 200)])
def test_results_do_not_depend_on_the_number_of_threads(kernel_backend, kind, shape):
    x, w, b, _, _, dy = problem(shape, np.float32)
    forward, backward = ops(kernel_backend, kind)
    threads = kernel_backend.get_num_threads()
    try:
        for _, view in list(checks.layouts(x))[:2]:
            results = []
            for n in (1, 2, 5):
                kernel_backend.set_num_threads(n)
                run = np.zeros((2, shape[1]), np.float32)
                first = forward(view, w, b, run[0], run[1], True, 0.1, EPS)
                results.append((*first, run, *backward(dy, view, w, *first[1:], True)))
            for other in results[1:]:
                for a, c in zip(results[0], other, strict=True):
                    checks.assert_same_bits(c, a)
    finally:
        kernel_backend.set_num_threads(threads)


def test_an_image_does_not_depend_on_its_batch(backend):
    x, w, b, mean, var, _ = problem((5, 19, 7, 9), np.float32)
    for _, view in list(checks.layouts(x))[:2]:
        batch = backend.batch_norm_forward(view, w, b, mean, var, False, 0.1, EPS)[0]
        instance = backend.instance_norm_forward(view, w, b, None, None, True, 0.1, EPS)[0]
        for n in range(5):
            single = view[n : n + 1]
            checks.assert_same_bits(
                backend.batch_norm_forward(single, w, b, mean, var, False, 0.1, EPS)[0][0], batch[n]
            )
            own = backend.instance_norm_forward(single, w, b, None, None, True, 0.1, EPS)[0][0]
            checks.assert_same_bits(own, instance[n])


def test_arrays_larger_than_the_caches(cpu_backend):
    """Channels-last arrays of more than 8 MB are read a row at a time: right, and with the bits of their parts."""
    x, w, b, _, _, dy = problem((3, 137, 80, 80), np.float32)
    x, dy = checks.channels_last(x), checks.channels_last(dy)
    forward, backward = ops(cpu_backend, "batch")
    y, mean, invstd = forward(x, w, b, None, None, True, 0.1, EPS)
    x64, w64, b64, dy64 = wide(x, w, b, dy)
    y64, mean64, invstd64 = reference.batch_norm_forward(x64, w64, b64, None, None, True, 0.1, EPS)
    np.testing.assert_allclose(mean, mean64, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(invstd, invstd64, rtol=1e-6)
    np.testing.assert_allclose(y, y64, rtol=1e-5, atol=1e-5)
    gradients = backward(dy, x, w, mean, invstd, True)
    for actual, right in zip(
        gradients, reference.batch_norm_backward(dy64, x64, w64, mean64, invstd64, True), strict=True
    ):
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=1e-4 * float(np.abs(right).max()))
    forward, backward = ops(cpu_backend, "instance")
    y, mean, invstd = forward(x, w, b, None, None, True, 0.1, EPS)
    dx = backward(dy, x, w, mean, invstd, True)[0]
    own = forward(x[1:2], w, b, None, None, True, 0.1, EPS)
    checks.assert_same_bits(own[0], y[1:2])
    checks.assert_same_bits(backward(dy[1:2], x[1:2], w, *own[1:], True)[0], dx[1:2])


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (3, 2, 0)])
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_empty_arrays_give_empty_results_and_leave_statistics_alone(backend, shape, train):
    x, w, b, mean, var, dy = problem(shape, np.float32)
    before = mean.copy(), var.copy()
    y, m, invstd = backend.batch_norm_forward(x, w, b, mean, var, train, 0.1, EPS)
    assert y.shape == shape and m.shape == invstd.shape == shape[1:2]
    np.testing.assert_array_equal((mean, var), before)
    dx, dw, db = backend.batch_norm_backward(dy, x, w, m, invstd, train)
    assert dx.shape == shape
    np.testing.assert_array_equal((dw, db), 0)


def hostile():
    """name: (error, part of the message, change of the good arguments)."""
    shared = np.zeros(8, np.float32)
    f32 = np.float32
    return {
        "rank": (ValueError, "input", {"x": np.zeros(3, f32)}),
        "integers": (TypeError, "input", {"x": np.zeros((2, 3, 4), int)}),
        "big-endian": (TypeError, "input", {"x": np.zeros((2, 3, 4), ">f4")}),
        "list": (TypeError, "input", {"x": [[1.0, 2.0]]}),
        "short weight": (ValueError, "weight", {"weight": np.ones(2, f32)}),
        "matrix as weight": (ValueError, "weight", {"weight": np.ones((3, 1), f32)}),
        "wider weight": (TypeError, "weight", {"weight": np.ones(3)}),
        "long bias": (ValueError, "bias", {"bias": np.ones(4, f32)}),
        "short mean": (ValueError, "running_mean", {"running_mean": np.zeros(1, f32)}),
        "var dtype": (TypeError, "running_var", {"running_var": np.zeros(3, np.float16)}),
        "mean alone": (ValueError, "running_var", {"running_var": None}),
        "same array": (ValueError, "overlap", {"running_mean": shared[:3], "running_var": shared[2:5]}),
        "repeated": (ValueError, "overlap", {"running_var": np.broadcast_to(np.ones(1, f32), 3)}),
        "negative eps": (ValueError, "eps", {"eps": -1e-5}),
        "nan eps": (ValueError, "eps", {"eps": float("nan")}),
        "infinite momentum": (ValueError, "momentum", {"momentum": float("inf")}),
        "text momentum": (TypeError, "momentum", {"momentum": "0.1"}),
        "number as flag": (TypeError, "bool", {"train": 1}),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", hostile())
def test_bad_arguments_are_refused_before_anything_is_written(backend, kind, row):
    error, message, change = hostile()[row]
    good = {
        "x": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        **{name: np.ones(3, np.float32) for name in ("weight", "bias", "running_mean", "running_var")},
        **{"train": True, "momentum": 0.1, "eps": EPS},
    }
    arguments = {**good, **change}
    if row == "repeated":
        arguments["running_var"].flags.writeable = True
        message = "overlap"
    with pytest.raises(error, match=message):
        ops(backend, kind)[0](*arguments.values())
    for name in ("running_mean", "running_var"):
        if name not in change:
            np.testing.assert_array_equal(arguments[name], 1, err_msg=f"{name} was written")


@pytest.mark.parametrize("kind", KINDS)
def test_running_statistics_that_cannot_be_updated_are_refused(backend, kind):
    forward = ops(backend, kind)[0]
    x = np.ones((2, 3, 4), np.float32)
    run_mean, run_var = np.zeros(3, np.float32), np.ones(3, np.float32)
    run_var.flags.writeable = False
    with pytest.raises(ValueError, match="running_var"):
        forward(x, None, None, run_mean, run_var, True, 0.1, EPS)
    np.testing.assert_array_equal(run_mean, 0)
    with pytest.raises(ValueError, match="running_mean"):
        forward(x, None, None, None, None, False, 0.1, EPS)


def test_one_value_a_channel_has_no_variance(backend):
    for shape in [(1, 3), (1, 3, 1, 1)]:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            backend.batch_norm_forward(np.ones(shape, np.float32), None, None, None, None, True, 0.1, EPS)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        backend.instance_norm_forward(np.ones((2, 3, 1), np.float32), None, None, None, None, True, 0.1, EPS)
    backend.batch_norm_forward(
        np.ones((1, 3), np.float32), None, None, np.zeros(3, "f"), np.ones(3, "f"), False, 0, EPS
    )


@pytest.mark.parametrize("kind", KINDS)
def test_backward_refuses_arrays_that_do_not_belong_together(backend, kind):
    backward = ops(backend, kind)[1]
    x = np.ones((2, 3, 4), np.float32)
    statistics = np.ones((2, 3) if kind == "instance" else 3, np.float32)
    good = [x, x, np.ones(3, np.float32), statistics, statistics, True]
    backward(*good)
    for position, value, error in [
        (0, np.ones((1, 3, 3), np.float32), ValueError),  # the malformed gradient of CVE-2021-41223
        (0, x.astype(np.float64), TypeError),
        (2, np.ones(2, np.float32), ValueError),
        (3, np.ones(5, np.float32), ValueError),
        (4, statistics.astype(np.float64), TypeError),
        (4, np.float32(1), TypeError),
    ]:
        with pytest.raises(error):
            backward(*good[:position], value, *good[position + 1 :])
