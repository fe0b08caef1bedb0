"""The kernel for few output channels, forced on problems that the rule would give to others, too."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc
from checks import DTYPES, assert_bound, channels_last, dtype_name, integers, normal
from fastconv import reference

# x_shape, K, kernel, stride, padding, dilation, groups
CASES = {
    "one-to-one": ((2, 1, 9, 11), 1, (3, 3), 1, 1, 1, 1),
    "tile-edges": ((2, 5, 9, 40), 3, (3, 3), 1, 1, 1, 1),
    "several-tiles": ((1, 4, 7, 7), 17, (3, 3), 1, 1, 1, 1),
    "stride-2": ((2, 5, 12, 37), 4, (3, 3), 2, 1, 1, 1),
    "stride-3-dilated": ((1, 4, 22, 23), 6, (5, 3), (2, 3), (2, 1), (1, 2), 2),
    "stride-over-kernel": ((2, 1, 10, 10), 8, (2, 2), 3, 0, 1, 1),
    "pointwise": ((3, 17, 5, 7), 5, (1, 1), 1, 0, 1, 1),
    "groups": ((1, 12, 10, 10), 8, (3, 3), 1, 1, 1, 4),
    "1d": ((2, 6, 50), 7, (4,), 3, 1, 2, 1),
    "3d": ((1, 4, 5, 6, 7), 2, (2, 3, 3), (2, 1, 2), 1, 1, 1),
    "wide-rows": ((1, 2, 3, 600), 2, (3, 3), 1, 1, 1, 1),
    "row-blocks": ((1, 24, 40, 90), 3, (3, 3), 1, 1, 1, 1),
}


@pytest.fixture
def narrow(cpu_backend):
    """The native functions with this kernel forced."""
    cpu_backend.set_conv_algorithm("narrow")
    yield cpu_backend
    cpu_backend.set_conv_algorithm("")


def problem(rng, draw, case, dtype):
    x_shape, outputs, kernel, *options, groups = CASES[case]
    shapes = x_shape, (outputs, x_shape[1] // groups, *kernel), (outputs,)
    return (*(draw(rng, shape, dtype) for shape in shapes), (*options, groups, len(kernel)))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("case", CASES)
def test_exact_integers(narrow, case, dtype, last):
    rng = np.random.default_rng(3)
    x, w, b, options = problem(rng, integers, case, dtype)
    plan = narrow.conv_plan("conv_forward", x.shape, w.shape, *options[:-1], "float32", last)
    assert plan["algorithm"] == "narrow"
    y = reference.conv_forward(x, w, b, *options)
    dy = integers(rng, y.shape, dtype)
    arrange = channels_last if last else np.asarray
    np.testing.assert_array_equal(narrow.conv_forward(arrange(x), w, b, *options), y)
    expected = reference.conv_backward_input(dy, w, x.shape, *options)
    np.testing.assert_array_equal(narrow.conv_backward_input(arrange(dy), w, x.shape, *options), expected)
    expected = reference.conv_backward_weight(dy, x, w.shape, *options)
    np.testing.assert_array_equal(narrow.conv_backward_weight(arrange(dy), arrange(x), w.shape, *options), expected)


@pytest.mark.parametrize("case", CASES)
def test_bound_and_bits(narrow, case):
    """Within the bound, and the same bits in both formats, alone or in a batch, with one thread or two."""
    rng = np.random.default_rng(4)
    x, w, b, options = problem(rng, normal, case, np.float32)
    y = narrow.conv_forward(x, w, b, *options)
    wide = [a.astype(np.float64) for a in (x, w, b)]
    magnitude = reference.conv_forward(*map(np.abs, wide), *options)
    assert_bound(y, reference.conv_forward(*wide, *options), magnitude, w[0].size + 1, np.float32)
    np.testing.assert_array_equal(narrow.conv_forward(channels_last(x), w, b, *options), y)
    for i in range(len(x)):
        np.testing.assert_array_equal(narrow.conv_forward(x[i : i + 1], w, b, *options), y[i : i + 1])
    dy = normal(rng, y.shape, np.float32)
    dw = narrow.conv_backward_weight(dy, x, w.shape, *options)
    magnitude = reference.conv_backward_weight(np.abs(dy.astype(np.float64)), np.abs(wide[0]), w.shape, *options)
    expected = reference.conv_backward_weight(dy.astype(np.float64), wide[0], w.shape, *options)
    assert_bound(dw, expected, magnitude, dy[:, 0].size, np.float32)
    with fc.num_threads(1):
        np.testing.assert_array_equal(narrow.conv_forward(x, w, b, *options), y)
        np.testing.assert_array_equal(narrow.conv_backward_weight(dy, x, w.shape, *options), dw)


def test_weight_gradient_keeps_nan_to_its_taps(narrow):
    """A corner pixel's NaN reaches the taps that see the corner, not those that only pass it."""
    x = np.ones((1, 1, 6, 20), np.float32)
    x[0, 0, 0, 0] = np.nan
    dw = narrow.conv_backward_weight(np.ones((1, 1, 6, 20), np.float32), x, (1, 1, 3, 3), 1, 1, 1, 1, 2)
    np.testing.assert_array_equal(np.isnan(dw[0, 0]), [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_rule(cpu_backend):
    """First layers' input gradients and last maps take it; layers that fill registers, or huge kernels, do not."""
    if cpu_backend.isa() == "amx-emulated":
        pytest.skip("its table has no rule: it takes AMX wherever it can")
    filled = "amx" if cpu_backend.isa() == "amx" else "tap_products"

    def chosen(op, x, w, padding=1, dilation=1, last=False):
        return cpu_backend.conv_plan(op, x, w, 1, padding, dilation, 1, "float32", last)["algorithm"]

    assert chosen("conv_backward_input", (1, 3, 32, 32), (64, 3, 3, 3)) == "narrow"
    assert chosen("conv_forward", (1, 64, 32, 32), (1, 64, 3, 3)) == "narrow"
    assert chosen("conv_forward", (1, 64, 32, 32), (4, 64, 1, 1), 0) == "narrow"
    assert chosen("conv_forward", (1, 64, 32, 32), (1, 64, 3, 3), last=True) == "narrow"
    assert chosen("conv_forward", (1, 64, 32, 32), (1, 64, 1, 1), 0, last=True) == "direct"
    assert chosen("conv_forward", (1, 64, 32, 32), (64, 64, 3, 3)) != "narrow"
    assert chosen("conv_backward_weight", (1, 64, 32, 32), (1, 64, 3, 3)) == "narrow"
    assert chosen("conv_backward_weight", (1, 64, 32, 32), (64, 64, 7, 7)) == filled
    assert chosen("conv_backward_weight", (1, 64, 7, 7), (1, 64, 3, 3)) == "tap_products"
    assert chosen("conv_forward", (1, 64, 1200, 1200), (1, 64, 3, 3), 512, 512) == "direct"
