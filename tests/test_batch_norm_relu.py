"""batch_norm_relu: the bits of its operations one after another, its gradients, bad input, and where layers use it."""

from __future__ import annotations

import numpy as np
import pytest

import checks
import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import DTYPES, assert_bound, assert_same_bits, dtype_name, float32, float64, normal
from fastconv import models, reference
from fastconv.models.residual import Add, norm_add_relu
from fastconv.nn.modules import norm_relu as fusing

# Register tails, planes longer than a block, rows that come one and four at a time, rows longer than a tile.
SHAPES = [(5, 64), (300, 3), (2, 3, 5, 7), (4, 1, 9), (2, 2, 2051), (3, 515, 3), (9, 2050, 1), (3, 2, 2, 3, 4)]
EPS = 1e-5
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
by_limit = pytest.mark.parametrize("limit", [np.inf, 0.75], ids=["relu", "relu_0.75"])
by_mode = pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])


def problem(shape, dtype):
    """x, weight, bias, running statistics, gradient and residual."""
    rng = np.random.default_rng(11)
    x = (normal(rng, shape, float64) * 2 + 1).astype(dtype)
    w, b, mean = (normal(rng, shape[1:2], dtype) for _ in range(3))
    var = (rng.random(shape[1]) + 0.5).astype(dtype)
    return x, w, b, mean, var, normal(rng, shape, dtype), normal(rng, shape, dtype)


def activation(backend, limit):
    """ReLU up to `limit` and its gradient: forward(x), backward(dy, y)."""
    if limit == np.inf:
        return backend.relu_forward, backend.relu_backward
    return (
        lambda x: backend.hardtanh_forward(x, 0.0, limit),
        lambda dy, y: backend.hardtanh_backward(dy, y, 0.0, limit),
    )


@by_mode
@by_limit
@by_dtype
def test_without_a_residual_bits_are_those_of_two_operations(backend, dtype, limit, train):
    relu, relu_backward = activation(backend, limit)
    for shape in SHAPES:
        x, w, b, mean, var, dy, _ = problem(shape, dtype)
        for (_, view), (_, gradient) in zip(checks.layouts(x), reversed(list(checks.layouts(dy))), strict=True):
            run = [[mean.copy(), var.copy()] for _ in range(2)]
            z, *moments = backend.batch_norm_forward(view, w, b, *run[0], train, 0.1, EPS)
            y, saved = backend.batch_norm_relu_forward(view, w, b, *run[1], train, 0.1, EPS, None, limit)
            assert y.strides == z.strides
            assert_same_bits(y, relu(z))
            for got, expected in zip(run[1], run[0], strict=True):
                assert_same_bits(got, expected)
            expected = backend.batch_norm_backward(relu_backward(gradient, y), view, w, *moments, train)
            got = backend.batch_norm_relu_backward(gradient, view, w, saved, train, limit)
            if backend is reference:  # its two ways round at other places
                for one, other in zip(got, expected, strict=True):
                    np.testing.assert_allclose(one.astype(float64), other.astype(float64), rtol=0.02, atol=0.02)
                continue
            for one, other in zip(got, expected, strict=True):
                assert_same_bits(one, other)


@by_limit
@by_dtype
def test_with_a_residual_sums_are_rounded_once(backend, dtype, limit):
    for shape in SHAPES:
        x, w, b, _, _, _, residual = problem(shape, dtype)
        wide = [a.astype(float64) for a in (x, w, b)]
        z, mean, invstd = reference.batch_norm_forward(*wide, None, None, True, 0.1, EPS)
        expected = np.clip(z + residual.astype(float64), 0, np.asarray(limit, dtype).astype(float64))
        per_channel = (1, -1, *(1,) * (len(shape) - 2))
        mean, scale, shift = (a.reshape(per_channel) for a in (mean, np.abs(invstd * wide[1]), np.abs(wide[2])))
        magnitude = (np.abs(wide[0]) + np.abs(mean)) * scale + shift + np.abs(residual.astype(float64))
        for (_, view), (_, beside) in zip(checks.layouts(x), reversed(list(checks.layouts(residual))), strict=True):
            y, _ = backend.batch_norm_relu_forward(view, w, b, None, None, True, 0.1, EPS, beside, limit)
            assert_bound(y, expected, magnitude, x.size // shape[1], dtype)
            if backend is not reference and np.dtype(dtype).itemsize >= 4:
                z, *_ = backend.batch_norm_forward(view, w, b, None, None, True, 0.1, EPS)
                assert_same_bits(y, activation(backend, limit)[0](z + beside))


@by_dtype
def test_coefficients_are_those_of_the_normalisation(backend, dtype):
    x, w, b, *_ = problem((4, 5, 3, 3), dtype)
    _, saved = backend.batch_norm_relu_forward(x, w, b, None, None, True, 0.1, EPS, None, np.inf)
    expected = reference.batch_norm_relu_forward(x, w, b, None, None, True, 0.1, EPS, None, np.inf)[1]
    assert saved.shape == (4, 5) and saved.dtype == (float64 if dtype == float64 else float32)
    np.testing.assert_allclose(saved, expected, rtol=1e-5, atol=1e-5)


def test_gradients_pass_above_zero_and_below_the_limit_only(backend):
    """In evaluation with scale 1 and shift 0 the normalised values are the values: both limits block, NaN passes."""
    x = np.array([[-1.0, -0.0, 0.0, 2.0**-20, 1.0, 5.9999, 6.0, 7.0, np.inf, np.nan]]).T.astype(np.float32)
    dy, zero, one = np.full_like(x, 2), np.zeros(1, np.float32), np.ones(1, np.float32)
    for limit, y, passes in (
        (6.0, [0, 0, 0, 2.0**-20, 1, 5.9999, 6, 6, 6, np.nan], [0, 0, 0, 1, 1, 1, 0, 0, 0, 1]),
        (np.inf, [0, 0, 0, 2.0**-20, 1, 5.9999, 6, 7, np.inf, np.nan], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]),
    ):
        got, saved = backend.batch_norm_relu_forward(x, None, None, zero, one, False, 0, 0.0, None, limit)
        np.testing.assert_array_equal(got[:, 0], np.float32(y))
        assert not np.signbit(got[:3]).any()
        dx, _, db = backend.batch_norm_relu_backward(dy, x, None, saved, False, limit)
        np.testing.assert_array_equal(dx[:, 0], 2 * np.float32(passes))
        assert db[0] == 2 * sum(passes)


def test_a_limit_is_that_of_the_dtype(backend):
    """0.3 is 0.30005 in float16, and a value that is rounded to the limit has no gradient."""
    x = np.array([[0.25], [0.3], [0.5]], np.float16)
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    y, saved = backend.batch_norm_relu_forward(x, None, None, zero, one, False, 0, 0.0, None, 0.3)
    np.testing.assert_array_equal(y, np.float16([[0.25], [0.3], [0.3]]))
    dx, *_ = backend.batch_norm_relu_backward(np.ones_like(x), x, None, saved, False, 0.3)
    np.testing.assert_array_equal(dx, np.float16([[1], [0], [0]]))


@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@by_limit
@by_mode
def test_torch_agrees(backend, torch, train, limit, residual):
    x, w, b, mean, var, dy, beside = problem((3, 5, 4, 6), float64)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b, beside)]
    run = [torch.tensor(a) for a in (mean, var)]
    z = torch.nn.functional.batch_norm(tensors[0], *run, *tensors[1:3], train, 0.3, EPS)
    y = torch.nn.functional.hardtanh(z + tensors[3] if residual else z, 0, limit)
    y.backward(torch.tensor(dy))
    extra = {"residual": beside} if residual else {}
    got, pullback = F.batch_norm_relu.vjp(x, mean, var, w, b, train, 0.3, EPS, max_val=limit, **extra)
    np.testing.assert_allclose(got, y.detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mean, run[0].numpy(), rtol=1e-12)
    for gradient, tensor in zip(pullback(dy), tensors[: 3 + residual], strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_any_number_of_threads_gives_the_same_bits(kernel_backend):
    before = fc.get_num_threads()
    try:
        for shape in [(6, 33, 40, 41), (64, 300)]:
            x, w, b, _, _, dy, residual = problem(shape, float32)
            for arrange in (np.ascontiguousarray, checks.channels_last):
                results = []
                for threads in (1, 2, 3, 7):
                    fc.set_num_threads(threads)
                    args = arrange(x), w, b, None, None, True, 0.1, EPS
                    y, saved = kernel_backend.batch_norm_relu_forward(*args, arrange(residual), np.inf)
                    gradients = kernel_backend.batch_norm_relu_backward(arrange(dy), arrange(x), w, saved, True, np.inf)
                    results.append((y, saved, *gradients))
                for other in results[1:]:
                    for one, two in zip(results[0], other, strict=True):
                        assert_same_bits(one, two)
    finally:
        fc.set_num_threads(before)


def test_bad_arguments_are_refused_before_anything_is_written(backend):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    memory = np.ones(64, np.float32)
    for error, message, change in (
        (ValueError, "residual", {"residual": np.ones((2, 3, 5), np.float32)}),
        (ValueError, "residual", {"residual": np.ones(3, np.float32)}),
        (TypeError, "residual", {"residual": np.ones((2, 3, 4))}),
        (TypeError, "residual", {"residual": 1.0}),
        (ValueError, "max_val", {"max_val": 0.0}),
        (ValueError, "max_val", {"max_val": -1}),
        (ValueError, "max_val", {"max_val": float("nan")}),
        (TypeError, "max_val", {"max_val": "6"}),
        (TypeError, "max_val", {"max_val": None}),
    ):
        mean, var = np.ones(3, np.float32), np.ones(3, np.float32)
        arguments = {"residual": None, "max_val": np.inf, **change}
        with pytest.raises(error, match=message):
            backend.batch_norm_relu_forward(x, None, None, mean, var, True, 0.1, EPS, *arguments.values())
        np.testing.assert_array_equal(mean, 1)
        np.testing.assert_array_equal(var, 1)
    if backend is not reference:  # which writes nothing but the statistics in place
        statistics, residual = (memory[20:23], memory[30:33]), memory[:24].reshape(2, 3, 4)
        with pytest.raises(ValueError, match="running_mean must not overlap residual"):
            backend.batch_norm_relu_forward(x, None, None, *statistics, True, 0.1, EPS, residual, np.inf)
    saved = np.ones((4, 3), np.float32)
    good = [x, x, None, saved, True, 6.0]
    backend.batch_norm_relu_backward(*good)
    for position, value, error in (
        (0, np.ones((1, 3, 4), np.float32), ValueError),
        (0, x.astype(float64), TypeError),
        (2, np.ones(2, np.float32), ValueError),
        (3, saved[:3], ValueError),
        (3, saved[:, :2], ValueError),
        (3, saved.astype(float64), TypeError),
        (4, 1, TypeError),
        (5, 0, ValueError),
        (5, None, TypeError),
    ):
        with pytest.raises(error):
            backend.batch_norm_relu_backward(*good[:position], value, *good[position + 1 :])


def test_empty_arrays(backend):
    for shape in [(0, 3, 4), (2, 0, 4), (2, 3, 0)]:
        x, saved = np.zeros(shape, np.float32), np.ones((4, shape[1]), np.float32)
        y, _ = backend.batch_norm_relu_forward(x, None, None, None, None, True, 0.1, EPS, x, 6.0)
        dx, dw, db = backend.batch_norm_relu_backward(x, x, None, saved, True, 6.0)
        assert y.shape == dx.shape == shape and not dw.any() and not db.any()


# ---- layers ----------------------------------------------------------------------------------------------------------


def calls(monkeypatch):
    """The names of the functions of batch normalisation that layers call from now on."""
    names: list[str] = []

    def note(name):
        function = getattr(F, name)

        def noting(*args, **kwargs):
            names.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(F, name, noting)

    note("batch_norm")
    note("batch_norm_relu")
    return names


def train_step(net, x):
    """Output, gradient of the input and of the parameters, buffers."""
    tensor = fc.tensor(x, requires_grad=True)
    y = net(tensor)
    y = y[0] if isinstance(y, tuple) else y
    y.backward(np.cos(np.arange(y.numel(), dtype=y.dtype)).reshape(y.shape))
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    return [y.numpy(), tensor.grad, *gradients, *(np.asarray(b) for b in net.buffers())]


def network(name):
    fc.manual_seed(3)
    small = {
        "sequential": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)),
        "relu6": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=None), nn.ReLU6(inplace=True)),
        "resnet18": lambda: models.resnet18(num_classes=10, width=8),
        "resnet50": lambda: models.resnet50(num_classes=10, width=8),
        "densenet": lambda: models.DenseNet(8, (2, 2), 16, num_classes=10),
        "googlenet": lambda: models.googlenet(num_classes=10, aux_logits=False, width=0.25),
        "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=10, width_mult=0.35),
    }
    return small[name]()


NETWORKS = ["sequential", "relu6", "resnet18", "resnet50", "densenet", "googlenet", "mobilenet_v2"]


@pytest.mark.parametrize("name", NETWORKS)
def test_training_has_the_bits_of_separate_layers(name, monkeypatch):
    x = normal(np.random.default_rng(5), (2, 3, 64, 64), float32)
    names = calls(monkeypatch)
    fused = train_step(network(name), x)
    assert "batch_norm_relu" in names
    names.clear()
    monkeypatch.setattr(fusing, "_LIMITS", {})
    separate = train_step(network(name), x)
    assert "batch_norm_relu" not in names and "batch_norm" in names
    for one, other in zip(fused, separate, strict=True):
        assert_same_bits(one, other)


def test_plain_arrays_are_normalised_in_one_operation_too(monkeypatch):
    x = normal(np.random.default_rng(5), (2, 3, 9, 9), float32)
    y = network("sequential")(x)
    monkeypatch.setattr(fusing, "_LIMITS", {})
    assert type(y) is np.ndarray
    assert_same_bits(y, network("sequential")(x))


def test_hooks_see_what_lies_between(monkeypatch):
    x = normal(np.random.default_rng(5), (2, 3, 9, 9), float32)
    expected = network("sequential")(x)
    for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        for layer in (1, 2):
            net, seen = network("sequential"), []
            handle = getattr(net[layer], register)(lambda *a, seen=seen: seen.append(a))
            names = calls(monkeypatch)
            y = net(fc.tensor(x, requires_grad=True))
            y.backward(np.ones(y.shape, np.float32))
            assert seen and "batch_norm_relu" not in names
            assert_same_bits(y.numpy(), expected)
            handle.remove()
            net(x)
            assert names[-1] == "batch_norm_relu"


class Doubled(nn.ReLU):
    def forward(self, input):
        return super().forward(input) * 2


def test_only_plain_layers_in_training_mode_are_fused():
    norm, relu = nn.BatchNorm2d(3), nn.ReLU()
    assert fusing.fuses(norm, relu) and fusing.fuses(nn.BatchNorm1d(3), nn.ReLU6())
    for other in (nn.LeakyReLU(), nn.Hardtanh(0.0, 6.0), Doubled(), nn.Identity()):
        assert not fusing.fuses(norm, other)
    for other in (nn.SyncBatchNorm(3), nn.InstanceNorm2d(3), nn.LazyBatchNorm2d(), nn.Identity()):
        assert not fusing.fuses(other, relu)
    assert not fusing.fuses(nn.BatchNorm2d(3).eval(), relu)
    patched = nn.ReLU()
    patched.__dict__["forward"] = lambda x: x
    assert not fusing.fuses(norm, patched)


def test_running_statistics_that_are_not_tracked(monkeypatch):
    x = normal(np.random.default_rng(5), (4, 3, 5), float32)
    names = calls(monkeypatch)
    net = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False, affine=False), nn.ReLU())
    assert_same_bits(net(x), F.relu(F.batch_norm(x, None, None, training=True)))
    assert names[0] == "batch_norm_relu"
    cumulative = nn.Sequential(nn.BatchNorm1d(3, momentum=None), nn.ReLU())
    for _ in range(3):
        cumulative(x)
    assert int(cumulative[0].num_batches_tracked) == 3
    np.testing.assert_allclose(cumulative[0].running_mean, x.mean(axis=(0, 2)), rtol=1e-4, atol=1e-6)


def test_blocks_of_ones_own(monkeypatch):
    rng = np.random.default_rng(5)
    x, shortcut = normal(rng, (4, 3, 5), float32), normal(rng, (4, 3, 5), float32)
    norm, relu = nn.BatchNorm1d(3), nn.ReLU()
    names = calls(monkeypatch)
    together = [
        nn.utils.norm_relu(norm, relu, x),
        nn.utils.norm_relu(norm, relu, x, shortcut),
        norm_add_relu(norm, Add(), relu, x, shortcut),
    ]
    assert names == ["batch_norm_relu"] * 3
    apart = [relu(norm(x)), relu(norm(x) + shortcut), relu(norm(x) + shortcut)]
    for one, other in zip(together, apart, strict=True):
        assert_same_bits(one, other)
    watched, sums = Add(), []
    watched.register_forward_hook(lambda module, inputs, output: sums.append(output))
    assert_same_bits(norm_add_relu(norm, watched, relu, x, shortcut), apart[2])
    assert len(sums) == 1
    norm.eval()
    assert_same_bits(nn.utils.norm_relu(norm, relu, x, shortcut), relu(norm(x) + shortcut))
    with pytest.raises(ValueError, match="must be 2D or 3D"):
        nn.utils.norm_relu(norm.train(), relu, np.ones((2, 3, 4, 5), np.float32))
