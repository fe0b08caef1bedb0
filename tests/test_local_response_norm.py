"""local_response_norm: values and gradients against the reference and torch, windows at the edges, bad input."""

from __future__ import annotations

import numpy as np
import pytest

import checks
from fastconv import reference

SHAPES = [(2, 7, 5), (1, 1, 9), (2, 20, 3, 7), (1, 3, 2, 3, 17), (1, 70, 5), (1, 5, 1100), (0, 3, 4), (2, 3, 0)]
PARAMETERS = [(5, 1e-1, 0.75, 1.0), (4, 0.3, 0.5, 2.0), (1, 1.0, 1.0, 0.5), (200, 2.0, 0.6, 1.0), (3, 0.5, -1.5, 1.0)]


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_values_and_gradients_are_the_reference_within_the_bound(backend, dtype, parameters):
    rng = np.random.default_rng(2)
    for shape in SHAPES:
        x, dy = checks.normal(rng, shape, dtype), checks.normal(rng, shape, dtype)
        x64, dy64 = x.astype(np.float64), dy.astype(np.float64)
        y64 = reference.local_response_norm_forward(x64, *parameters)
        dx64 = reference.local_response_norm_backward(dy64, x64, *parameters)
        size, alpha, beta, k = parameters
        # The second term of dx changes its sign with that of dy, x and beta only.
        magnitude = reference.local_response_norm_backward(np.abs(dy64), np.abs(x64), size, alpha, -abs(beta), k)
        direct = np.abs(dy64 * np.divide(y64, x64, out=np.ones_like(y64), where=x64 != 0))
        terms = min(size, shape[1]) + 4
        for (_, view), (_, gradient) in zip(checks.layouts(x), reversed(list(checks.layouts(dy))), strict=True):
            y = backend.local_response_norm_forward(view, *parameters)
            checks.assert_bound(y, y64, np.abs(y64) * (1 + abs(beta)), terms, dtype)
            dx = backend.local_response_norm_backward(gradient, view, *parameters)
            checks.assert_bound(dx, dx64, (np.abs(magnitude) + direct) * (2 + abs(beta)), terms, dtype)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_torch_agrees(backend, torch, size):
    rng = np.random.default_rng(4)
    x, dy = (rng.standard_normal((2, 6, 4, 5)) for _ in range(2))
    t = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.local_response_norm(t, size, 0.3, 0.75, 1.5)
    y.backward(torch.tensor(dy))
    np.testing.assert_allclose(backend.local_response_norm_forward(x, size, 0.3, 0.75, 1.5), y.detach(), rtol=1e-12)
    dx = backend.local_response_norm_backward(dy, x, size, 0.3, 0.75, 1.5)
    np.testing.assert_allclose(dx, t.grad, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_gradient_is_the_directional_derivative(backend, beta):
    def vjp(x):
        y = backend.local_response_norm_forward(x, 4, 0.5, beta, 1.0)
        return y, lambda dy: (backend.local_response_norm_backward(dy, x, 4, 0.5, beta, 1.0),)

    rng = np.random.default_rng(6)
    checks.directional_derivative(lambda x: vjp(x)[0], vjp, (rng.standard_normal((2, 5, 4)),), rng)


def test_large_values_leave_no_trace_outside_their_window(backend):
    """A running sum that subtracts what leaves the window would keep the rounding of the large value."""
    x = np.ones((1, 12, 20), np.float32)
    x[:, 3] = 1e6
    for _, view in checks.layouts(x):
        y = backend.local_response_norm_forward(view, 3, 1.0, 0.75, 1.0)
        np.testing.assert_allclose(y[:, 5:-1], 2.0**-0.75, rtol=1e-6)


def test_nan_and_infinity_stay_in_their_window(backend):
    x = np.ones((1, 9, 20), np.float32)
    x[0, 4, 7] = np.nan
    x[0, 4, 11] = np.inf
    for _, view in checks.layouts(x):
        y = backend.local_response_norm_forward(view, 3, 1.0, 0.75, 1.0)
        with np.errstate(all="ignore"):
            y64 = reference.local_response_norm_forward(x.astype(np.float64), 3, 1.0, 0.75, 1.0)
        np.testing.assert_allclose(y, y64, rtol=1e-6)


def test_results_do_not_depend_on_threads_or_batch(kernel_backend):
    rng = np.random.default_rng(8)
    x, dy = (checks.normal(rng, (5, 24, 30, 31), np.float32) for _ in range(2))
    threads = kernel_backend.get_num_threads()
    try:
        for _, view in list(checks.layouts(x))[:2]:
            results = []
            for n in (1, 2, 5):
                kernel_backend.set_num_threads(n)
                results.append(
                    (
                        kernel_backend.local_response_norm_forward(view, 5, 1e-1, 0.75, 1.0),
                        kernel_backend.local_response_norm_backward(dy, view, 5, 1e-1, 0.75, 1.0),
                    )
                )
            for y, dx in results[1:]:
                checks.assert_same_bits(y, results[0][0])
                checks.assert_same_bits(dx, results[0][1])
            single = kernel_backend.local_response_norm_forward(view[3:4], 5, 1e-1, 0.75, 1.0)
            checks.assert_same_bits(single[0], results[0][0][3])
    finally:
        kernel_backend.set_num_threads(threads)


@pytest.mark.parametrize(
    ("position", "value", "error"),
    [
        (0, np.ones((2, 3), np.float32), ValueError),
        (0, np.ones((2, 3, 4), int), TypeError),
        (1, 0, ValueError),
        (1, -1, ValueError),
        (1, 2.0, TypeError),
        (1, True, TypeError),
        (2, float("nan"), ValueError),
        (3, float("inf"), ValueError),
        (4, "1", TypeError),
    ],
)
def test_bad_arguments_are_refused(backend, position, value, error):
    good = [np.ones((2, 3, 4), np.float32), 5, 1e-4, 0.75, 1.0]
    bad = [*good[:position], value, *good[position + 1 :]]
    with pytest.raises(error):
        backend.local_response_norm_forward(*bad)
    with pytest.raises(error):
        backend.local_response_norm_backward(np.ones((2, 3, 4), np.float32), *bad)


def test_backward_refuses_a_gradient_of_another_shape_or_dtype(backend):
    x = np.ones((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="grad_output"):
        backend.local_response_norm_backward(np.ones((2, 3, 5), np.float32), x, 5, 1e-4, 0.75, 1.0)
    with pytest.raises(TypeError, match="grad_output"):
        backend.local_response_norm_backward(np.ones((2, 3, 4)), x, 5, 1e-4, 0.75, 1.0)
