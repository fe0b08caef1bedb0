"""relu, hardtanh, leaky_relu and prelu: exact values, gradients, layouts, in-place calls and bad input."""

from __future__ import annotations

import numpy as np
import pytest

import checks
from fastconv import reference

# Register tails, one value, more than one chunk of a task, no values.
SHAPES = [(), (1,), (3, 5), (2, 17, 9), (2, 1, 3, 4), (2, 20, 3, 3), (1, 2, 9001), (0, 3), (2, 0, 4)]
UNARY = {"relu": (), "hardtanh": (-1.5, 2.0), "leaky_relu": (0.125,)}


def call(module, name, direction):
    return getattr(module, f"{name}_{direction}")


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("name", UNARY)
def test_values_and_gradients_are_exact_in_every_layout(backend, name, dtype):
    """Selections and one product by a power of two: nothing rounds."""
    rng = np.random.default_rng(1)
    parameters = UNARY[name]
    for shape in SHAPES:
        x, dy = checks.integers(rng, shape, dtype), checks.integers(rng, shape, dtype)
        y64 = call(reference, name, "forward")(x.astype(np.float64), *parameters)
        # relu differentiates by its output, the others by their input.
        saved = y64.astype(dtype) if name == "relu" else x
        dx64 = call(reference, name, "backward")(dy.astype(np.float64), saved.astype(np.float64), *parameters)
        views = zip(checks.layouts(x), checks.layouts(saved), reversed(list(checks.layouts(dy))), strict=True)
        for (layout, view), (_, saved_view), (_, gradient) in views:
            y = call(backend, name, "forward")(view, *parameters)
            checks.assert_exact(y, y64, dtype)
            checks.assert_exact(call(backend, name, "backward")(gradient, saved_view, *parameters), dx64, dtype)
            if layout == "channels_last" and min(shape) > 1:
                assert y.strides == view.strides
            np.testing.assert_array_equal(view.astype(np.float64), x.astype(np.float64))


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
def test_special_values(backend, dtype):
    tiny = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}[dtype.name]
    x = np.array([np.nan, -np.inf, np.inf, -0.0, tiny, -tiny] * 7, dtype)
    y = backend.relu_forward(x)
    np.testing.assert_array_equal(y.astype(np.float64), np.array([np.nan, 0, np.inf, 0, tiny, 0] * 7))
    # Zero where the output is not positive; a NaN output lets the gradient through, as in torch.
    dx = backend.relu_backward(np.full_like(x, 3), y)
    np.testing.assert_array_equal(dx.astype(np.float64), [3, 0, 3, 0, 3, 0] * 7)
    y = backend.hardtanh_forward(x, -1.0, 1.0).astype(np.float64)
    np.testing.assert_array_equal(y, [np.nan, -1, 1, 0, tiny, -tiny] * 7)
    y = backend.leaky_relu_forward(x[:4], 0.5).astype(np.float64)
    np.testing.assert_array_equal(y, [np.nan, -np.inf, np.inf, 0])
    assert np.signbit(y[3])


def test_gradients_at_the_limits_are_zero(backend):
    """And hardtanh's where the input is NaN, as in torch."""
    x = np.array([0.0, 6.0, 3.0, -1.0, 7.0, np.nan], np.float32)
    np.testing.assert_array_equal(backend.hardtanh_backward(np.ones_like(x), x, 0.0, 6.0), [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(backend.leaky_relu_backward(np.ones_like(x), x, 0.5), [0.5, 1, 1, 0.5, 1, 0.5])


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
def test_limits_are_those_the_dtype_holds(backend, dtype):
    y = backend.hardtanh_forward(np.array([-9, 9, 0], dtype), -0.1, 0.3)
    np.testing.assert_array_equal(y, np.array([-0.1, 0.3, 0]).astype(dtype))


@pytest.mark.parametrize("name", ["relu", "hardtanh", "leaky_relu"])
def test_torch_agrees(backend, torch, name):
    x = checks.normal(np.random.default_rng(3), (4, 33), np.float32)
    parameters = UNARY[name]
    t = torch.tensor(x, requires_grad=True)
    y = getattr(torch.nn.functional, name)(t, *parameters)
    y.sum().backward()
    np.testing.assert_array_equal(call(backend, name, "forward")(x, *parameters), y.detach().numpy())
    saved = y.detach().numpy() if name == "relu" else x
    np.testing.assert_array_equal(call(backend, name, "backward")(np.ones_like(x), saved, *parameters), t.grad.numpy())


def test_relu_in_place_writes_any_view_and_returns_it(backend):
    x = checks.integers(np.random.default_rng(5), (2, 5, 4, 3), np.float32)
    for _, view in checks.layouts(x):
        assert backend.relu_forward(view, True) is view
        np.testing.assert_array_equal(view, np.maximum(x, 0))


def test_relu_in_place_leaves_the_surroundings_alone(backend):
    a = np.full((6, 8), -1.0, np.float32)
    backend.relu_forward(a[1:-1, 2:6:3], inplace=True)
    assert (a == 0).sum() == 4 * 2
    guarded = checks.guarded((3, 7), np.float32)
    guarded[...] = -1
    backend.relu_forward(guarded, inplace=True)
    assert (guarded == 0).all() and checks.guards_intact(guarded)


def test_relu_in_place_refuses_read_only_arrays(backend):
    x = np.full(3, -1.0, np.float32)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="input"):
        backend.relu_forward(x, inplace=True)
    np.testing.assert_array_equal(x, -1)
    np.testing.assert_array_equal(backend.relu_forward(x), 0)


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
def test_prelu_is_exact_for_shared_and_channel_slopes(backend, dtype):
    rng = np.random.default_rng(9)
    for shape in [(3, 5), (4, 70), (2, 17, 9), (2, 1, 3, 4), (3, 2, 700), (2, 520, 2), (0, 3), (7,), ()]:
        x, dy = checks.integers(rng, shape, dtype, -2, 2), checks.integers(rng, shape, dtype, -1, 1)
        for slopes in ((1,), shape[1:2] or (1,), ()):
            w = np.asarray(checks.integers(rng, slopes, np.float64) / 8).astype(dtype)
            x64, dy64, w64 = (np.asarray(a, np.float64) for a in (x, dy, w))
            y64 = reference.prelu_forward(x64, w64)
            dx64, dw64 = reference.prelu_backward(dy64, x64, w64)
            for (_, view), (_, gradient) in zip(checks.layouts(x), reversed(list(checks.layouts(dy))), strict=True):
                checks.assert_exact(backend.prelu_forward(view, w), y64, dtype)
                dx, dw = backend.prelu_backward(gradient, view, w)
                checks.assert_exact(dx, dx64, dtype)
                checks.assert_exact(dw, dw64, dtype)


@pytest.mark.parametrize("slopes", [1, 5])
def test_prelu_gradients_are_directional_derivatives(backend, slopes):
    def vjp(x, w):
        return backend.prelu_forward(x, w), lambda dy: backend.prelu_backward(dy, x, w)

    rng = np.random.default_rng(11)
    x = rng.choice([-1, 1], (3, 5, 4)) * (rng.random((3, 5, 4)) + 0.5)
    checks.directional_derivative(lambda x, w: vjp(x, w)[0], vjp, (x, rng.random(slopes)), rng)


def test_prelu_gradient_does_not_depend_on_the_number_of_threads(kernel_backend):
    rng = np.random.default_rng(12)
    x, dy = (checks.normal(rng, (6, 20, 41, 20), np.float32) for _ in range(2))
    threads = kernel_backend.get_num_threads()
    try:
        for _, view in list(checks.layouts(x))[:2]:
            for slopes in (1, 20):
                w = np.full(slopes, 0.25, np.float32)
                kernel_backend.set_num_threads(1)
                first = kernel_backend.prelu_backward(dy, view, w)
                kernel_backend.set_num_threads(5)
                for a, b in zip(first, kernel_backend.prelu_backward(dy, view, w), strict=True):
                    checks.assert_same_bits(b, a)
    finally:
        kernel_backend.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [int, bool, object, ">f4", complex])
@pytest.mark.parametrize("name", UNARY)
def test_other_dtypes_are_refused(backend, name, dtype):
    x = np.ones(3, dtype)
    with pytest.raises(TypeError, match="input"):
        call(backend, name, "forward")(x, *UNARY[name])
    with pytest.raises(TypeError, match="must"):
        call(backend, name, "backward")(np.ones(3, np.float32), x, *UNARY[name])


@pytest.mark.parametrize("name", UNARY)
def test_backward_refuses_a_gradient_of_another_shape_or_dtype(backend, name):
    x = np.ones((2, 3), np.float32)
    for gradient in (np.ones((3, 2), np.float32), np.ones(6, np.float32), np.ones((1, 2, 3), np.float32)):
        with pytest.raises(ValueError, match="grad_output"):
            call(backend, name, "backward")(gradient, x, *UNARY[name])
    with pytest.raises(TypeError, match="grad_output"):
        call(backend, name, "backward")(np.ones((2, 3)), x, *UNARY[name])


@pytest.mark.parametrize(
    ("name", "parameters", "error"),
    [
        ("hardtanh", (1.0, -1.0), ValueError),
        ("hardtanh", (float("nan"), 1.0), ValueError),
        ("hardtanh", ("0", 6.0), TypeError),
        ("hardtanh", (False, 6.0), TypeError),
        ("leaky_relu", (float("inf"),), ValueError),
        ("leaky_relu", (None,), TypeError),
        ("prelu", (np.ones(4, np.float32),), ValueError),
        ("prelu", (np.ones((1, 1, 1), np.float32),), ValueError),
        ("prelu", (np.ones(0, np.float32),), ValueError),
        ("prelu", (np.ones(3),), TypeError),
        ("prelu", (0.25,), TypeError),
    ],
)
def test_bad_parameters_are_refused(backend, name, parameters, error):
    x = np.ones((2, 3), np.float32)
    with pytest.raises(error):
        call(backend, name, "forward")(x, *parameters)
    with pytest.raises(error):
        call(backend, name, "backward")(x, x, *parameters)
