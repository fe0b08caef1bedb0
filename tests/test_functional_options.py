"""What the functional layer adds to torch's: padding pairs, strided "same", rng, writing in place, other libraries."""

import inspect
import sys
import timeit
import types

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
import fastconv.cuda
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import integers, layouts
from fastconv.tensor import Parameter

RNG = np.random.default_rng(0)


def zeros_around(x: np.ndarray, pads: list[tuple[int, int]]) -> np.ndarray:
    return np.pad(x, [(0, 0)] * (x.ndim - len(pads)) + pads)


SIZES_OF_TWO = {  # an option of two dimensions, and what every backend must make of it
    "int": (2, (2, 2)),
    "NumPy's int": (np.int64(2), (2, 2)),
    "one for both": ((2,), (2, 2)),
    "list": ([2, 1], (2, 1)),
    "array": (np.array([1, 2]), (1, 2)),
    "array of one": (np.array([2]), (2, 2)),
    "array of no dimensions": (np.array(2), TypeError),
    "bool": (True, TypeError),
    "float": (2.0, TypeError),
    "None": (None, TypeError),
    "word": (["2", "2"], TypeError),
    "three": ((1, 2, 1), ValueError),
    "none": ((), ValueError),
    "negative": (-1, ValueError),
    "too large": (2**70, ValueError),
}


@pytest.mark.parametrize("name", SIZES_OF_TWO)
def test_sizes_are_read_alike(backend, name):
    value, expected = SIZES_OF_TWO[name]
    x, w = np.zeros((1, 1, 9, 8), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    calls = [
        lambda: F.conv2d(x, w, padding=value).shape[2:],
        lambda: F.conv2d(x, w, stride=value).shape[2:],
        lambda: F.conv2d(x, np.zeros((1, 1, 2, 2), np.float32), dilation=value).shape[2:],
        lambda: F.max_pool2d(x, value, stride=1).shape[2:],
        lambda: F.avg_pool2d(x, 1, stride=value).shape[2:],
    ]
    if isinstance(expected, type):
        for call in calls[:4] if value is None else calls:  # a pool without a stride takes the kernel's
            with pytest.raises(expected):
                call()
        return
    a, b = expected
    strided = (-(-9 // a), -(-8 // b))
    shapes = [(9 + 2 * a, 8 + 2 * b), strided, (9 - a, 8 - b), (9 - a + 1, 8 - b + 1), strided]
    assert [call() for call in calls] == shapes


PADDINGS = {
    "pairs": ([(1, 2), (0, 3)], (12, 11)),
    "array of pairs": (np.array([[1, 2], [0, 3]]), (12, 11)),
    "one pair": ([(1, 2)], ValueError),
    "a pair and an int": ([(1, 2), 1], (TypeError, ValueError)),
    "an int and a pair": ([1, (1, 2)], TypeError),
    "pairs of one": ([(1,), (2,)], ValueError),
}


@pytest.mark.parametrize("name", PADDINGS)
def test_pairs_are_read_alike(backend, name):
    value, expected = PADDINGS[name]
    x, w = np.zeros((1, 1, 9, 8), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    if isinstance(expected[0] if isinstance(expected, tuple) else expected, type):
        with pytest.raises(expected):
            F.conv2d(x, w, padding=value)
    else:
        assert F.conv2d(x, w, padding=value).shape[2:] == expected


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("function", "size"), [(F.conv1d, (8,)), (F.conv2d, (8, 5)), (F.conv3d, (5, 4, 3))], ids=["1d", "2d", "3d"]
)
def test_same_and_pairs(backend, function, size, stride):
    """Strided "same" and asymmetric pairs are a convolution of the input padded by hand, gradients included."""
    nd = len(size)
    x, w = integers(RNG, (2, 2, *size), np.float32), integers(RNG, (3, 2, *(4, 3, 2)[:nd]), np.float32)
    totals = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(size, w.shape[2:])]
    pads = [(t // 2, t - t // 2) for t in totals]
    padded = zeros_around(x, pads)
    expected, exact_pullback = function.vjp(padded, w, stride=stride)
    dy = integers(RNG, expected.shape, np.float32)
    dx, dw = exact_pullback(dy)
    dx = dx[(..., *(slice(a, a + n) for (a, _), n in zip(pads, size)))]
    for padding in ("same", pads):
        y, pullback = function.vjp(x, w, stride=stride, padding=padding)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(function(x, w, None, stride, padding), expected)
        for gradient, exact in zip(pullback(dy), (dx, dw)):
            np.testing.assert_array_equal(gradient, exact)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pools_take_same_and_pairs(backend, stride):
    x = integers(RNG, (2, 2, 8, 5), np.float32)
    totals = [max((-(-n // stride) - 1) * stride + 3 - n, 0) for n in x.shape[2:]]
    pads = [(t // 2, t - t // 2) for t in totals]
    lowest = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=-100)
    for padding in ("same", pads):
        np.testing.assert_array_equal(F.max_pool2d(x, 3, stride, padding), F.max_pool2d(lowest, 3, stride))
        np.testing.assert_array_equal(
            F.avg_pool2d(x, 3, stride, padding), F.avg_pool2d(zeros_around(x, pads), 3, stride)
        )
        layers = nn.MaxPool2d(3, stride, padding), nn.AvgPool2d(3, stride, padding)
        for layer, function in zip(layers, (F.max_pool2d, F.avg_pool2d)):
            np.testing.assert_array_equal(layer(x), function(x, 3, stride, padding))


def test_absent_bias_is_not_in_the_tuple(backend):
    x, w, b = np.ones((1, 2, 4, 4)), np.ones((3, 2, 3, 3)), np.ones(3)
    assert len(F.conv2d.vjp(x, w)[1](np.ones((1, 3, 2, 2)))) == 2
    assert len(F.conv2d.vjp(x, w, b)[1](np.ones((1, 3, 2, 2)))) == 3
    (db,) = F.conv2d.vjp(x, w, b, wrt="bias")[1](np.ones((1, 3, 2, 2)))
    np.testing.assert_array_equal(db, 4)
    with pytest.raises(ValueError, match="wrt must name arrays given among input, weight; got 'bias'"):
        F.conv2d.vjp(x, w, wrt=("bias",))


def test_only_wanted_gradients_are_computed(backend, monkeypatch):
    from fastconv import backend as backends

    computed = []

    class Spy:
        def __getattr__(self, name):
            computed.append(name)
            return getattr(backend, name)

    monkeypatch.setattr(backends, "ops", Spy())
    x, w, b = np.ones((1, 2, 4, 4)), np.ones((3, 2, 3, 3)), np.ones(3)
    y, pullback = F.conv2d.vjp(x, w, b, wrt=("weight",))
    pullback(np.ones_like(y))
    assert computed == ["conv_forward", "conv_backward_weight"]


def test_max_pool_indices(backend):
    x = integers(RNG, (2, 3, 6, 5), np.float32, -50, 50)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(2, 3, 30), indices.reshape(2, 3, -1), 2), y.reshape(2, 3, -1)
    )
    for again in (F.max_pool2d_with_indices(x, 2), F.max_pool2d.vjp(x, 2, return_indices=True)[0]):
        np.testing.assert_array_equal(again[0], y)
        np.testing.assert_array_equal(again[1], indices)
    t, tensor_indices = F.max_pool2d(fc.tensor(x, requires_grad=True), 2, return_indices=True)
    assert isinstance(t, fc.Tensor) and isinstance(tensor_indices, fc.Tensor) and not tensor_indices.requires_grad
    restored = F.max_unpool2d(t, tensor_indices, 2, output_size=(2, 3, 6, 5))
    assert restored.shape == x.shape and restored.requires_grad
    np.testing.assert_array_equal(F.max_pool2d(restored, 2).data, np.maximum(y, 0))


@pytest.mark.parametrize("output_size", [(3,), (9, 9), (2, 3, 6), (2, 5), "44"])
def test_max_unpool_output_size(backend, output_size):
    with pytest.raises((ValueError, TypeError), match="output_size must"):
        F.max_unpool2d(np.ones((1, 2, 2)), np.zeros((1, 2, 2), np.int64), 2, output_size=output_size)


def test_max_unpool_index_outside(backend):
    with pytest.raises(ValueError, match="indices"):
        F.max_unpool2d(np.ones((1, 2, 2)), np.full((1, 2, 2), 16), 2)


def test_batch_norm_updates_only_its_statistics_and_only_in_training(backend):
    x, weight, bias = RNG.standard_normal((4, 3, 2, 2)), np.ones(3), np.zeros(3)
    mean, var = np.zeros(3), np.ones(3)
    F.batch_norm(x, mean, var, weight, bias)
    np.testing.assert_array_equal(mean, 0)
    y, pullback = F.batch_norm.vjp(x, mean, var, weight, bias, training=True)
    np.testing.assert_allclose(mean, 0.1 * x.mean((0, 2, 3)))
    np.testing.assert_allclose(var, 0.9 + 0.1 * x.var((0, 2, 3), ddof=1))
    before = mean.copy()
    assert len(pullback(np.ones_like(y))) == 3
    np.testing.assert_array_equal(mean, before)
    tensor_mean, tensor_var = np.zeros(3), np.ones(3)
    F.batch_norm(fc.tensor(x), tensor_mean, tensor_var, Parameter(weight), Parameter(bias), training=True)
    np.testing.assert_array_equal(tensor_mean, mean)
    np.testing.assert_array_equal(tensor_var, var)


def test_running_statistics_of_torch_are_updated(backend, torch):
    x, mean, var = torch.arange(8.0).reshape(4, 2), torch.zeros(2), torch.ones(2)
    assert isinstance(F.batch_norm(x, mean, var, training=True), torch.Tensor)
    assert torch.allclose(mean, torch.tensor([0.3, 0.4]))


IN_PLACE = [
    (F.relu, ()),
    (F.relu6, ()),
    (F.leaky_relu, (0.1,)),
    (F.hardtanh, (-0.5, 0.5)),
]


@pytest.mark.parametrize(("function", "options"), IN_PLACE, ids=[f[0].__name__ for f in IN_PLACE])
def test_in_place(backend, function, options):
    x = RNG.standard_normal((2, 3, 4))
    expected = function(x, *options)
    for name, view in layouts(x):
        assert function(view, *options, inplace=True) is view, name
        np.testing.assert_array_equal(view, expected)
    before = x.copy()
    t = fc.tensor(x, requires_grad=True)
    recorded = function(t, *options, inplace=True)
    np.testing.assert_array_equal(recorded.data, expected)
    function.vjp(x, *options, inplace=True)
    np.testing.assert_array_equal(x, before)
    x.flags.writeable = False
    with pytest.raises(ValueError):
        function(x, *options, inplace=True)


def test_in_place_on_torch(backend, torch):
    t = torch.tensor([-1.0, 2.0])
    assert F.relu(t, inplace=True) is t and F.leaky_relu(t, inplace=True) is t
    assert t.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("function", [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d])
def test_dropout(function):
    nd = {"t": 0, "d": int(function.__name__[-2]) if function.__name__[-1] == "d" else 0}[function.__name__[-1]]
    x = RNG.uniform(1, 2, (20, 30, *(3, 2, 2)[: nd or 2]))
    y, pullback = function.vjp(x, 0.3, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(function(x, 0.3, rng=np.random.default_rng(1)), y)
    dropped = y == 0
    np.testing.assert_allclose(y[~dropped], x[~dropped] / 0.7)
    np.testing.assert_array_equal(pullback(np.ones_like(x))[0] == 0, dropped)
    samples = dropped.reshape(600, -1)[:, 0] if nd else dropped
    assert abs(samples.mean() - 0.3) < 4 * (0.21 / samples.size) ** 0.5
    if nd:
        assert (dropped == dropped[(..., *(slice(1),) * nd)]).all()
    assert function(x, 0.3, training=False) is x and function(x, 0.0) is x
    np.testing.assert_array_equal(function(x, 1.0), 0)
    np.testing.assert_array_equal(function(np.full_like(x, np.nan), 1.0), 0)
    fc.manual_seed(3)
    first = function(x)
    fc.manual_seed(3)
    np.testing.assert_array_equal(function(x), first)
    copy = x.copy()
    assert function(copy, 0.3, inplace=True, rng=np.random.default_rng(1)) is copy
    np.testing.assert_array_equal(copy, y)
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="p must be from 0 to 1"):
            function(x, p)
    with pytest.raises(TypeError, match="rng must be"):
        function(x, rng=1)


def test_channels_last_stays_channels_last():
    x = np.moveaxis(RNG.standard_normal((2, 5, 4, 3)), -1, 1)
    for y in (F.sigmoid(x), F.softplus(x), F.dropout(x), F.pad(x, (1, 1)), F.pad(x, (1, 1), mode="reflect")):
        assert np.moveaxis(y, 1, -1).flags.c_contiguous


def test_softmax_dim_none_and_dtype():
    for shape, dim in [((), 0), ((3,), 0), ((2, 3), 1), ((2, 3, 4), 0), ((2, 3, 4, 5), 1)]:
        x = np.asarray(RNG.standard_normal(shape))
        np.testing.assert_array_equal(F.softmax(x), F.softmax(x, dim))
        np.testing.assert_array_equal(F.log_softmax(x), F.log_softmax(x, dim))
    half = RNG.standard_normal((2, 3)).astype(np.float16)
    y, pullback = F.softmax.vjp(half, 1, dtype=np.float32)
    assert y.dtype == np.float32 and pullback(y)[0].dtype == np.float16
    assert F.softmax(np.zeros((2, 0)), 1).shape == (2, 0)
    assert np.isnan(F.softmax(np.full(2, -np.inf), 0)).all()


def test_extreme_values_stay_finite():
    x = np.array([-1e4, -100.0, 0.0, 100.0, 1e4])
    np.testing.assert_allclose(F.sigmoid(x), [0, 3.72e-44, 0.5, 1, 1], rtol=1e-3)
    np.testing.assert_allclose(F.softplus(x), [0, 3.72e-44, np.log(2), 100, 1e4], rtol=1e-3)
    np.testing.assert_allclose(F.softplus(x, threshold=1e9), F.softplus(x))
    logits = np.stack([x, -x], 1)
    assert np.isfinite(F.cross_entropy.vjp(logits, np.zeros(5, int))[1](1.0)[0]).all()
    masked = np.array([[0.0, -np.inf, 0.0]])
    assert F.cross_entropy(masked, np.array([2])) == np.log(2)
    y, pullback = F.binary_cross_entropy_with_logits.vjp(x, np.ones(5), reduction="none")
    np.testing.assert_allclose(y, [1e4, 100, np.log(2), 0, 0], atol=1e-40)
    np.testing.assert_allclose(pullback(np.ones(5))[0], [-1, -1, -0.5, 0, 0], atol=1e-40)


def test_ignored_targets():
    x, target = RNG.standard_normal((4, 3)), np.array([0, -100, 2, -100])
    for function in (F.cross_entropy, F.nll_loss):
        y, pullback = function.vjp(x, target)
        np.testing.assert_allclose(y, function(x[::2], target[::2]))
        np.testing.assert_array_equal(pullback(1.0)[0][1::2], 0)
        assert np.isnan(function(x, np.full(4, -100)))
        assert function(x, np.full(4, -100), reduction="sum") == 0


def test_parameter_beside_an_array_is_its_array(backend):
    x, w, b = np.ones((1, 1, 4, 4)), Parameter(np.ones((1, 1, 3, 3))), Parameter(np.zeros(1))
    assert type(F.conv2d(x, w, b)) is np.ndarray
    (dx, dw, _) = F.conv2d.vjp(x, w, b)[1](np.ones((1, 1, 2, 2)))
    assert type(dx) is np.ndarray and type(dw) is np.ndarray and w.grad is None


def test_arrays_of_other_libraries(backend, torch):
    x, w = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
    assert isinstance(F.conv2d(x, np.ones((1, 1, 3, 3), np.float32)), torch.Tensor)
    assert type(F.conv2d(np.ones((1, 1, 4, 4), np.float32), w)) is np.ndarray
    assert F.conv2d(x.bfloat16(), w.bfloat16()).dtype == torch.bfloat16
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert indices.dtype == torch.int64 and y.shape == (1, 1, 2, 2)
    with pytest.raises(ValueError, match="input could not be taken through dlpack"):
        F.relu(x.requires_grad_())


class OnDevice:
    """What an array in GPU memory says of itself."""

    dtype = np.dtype(np.float32)

    def __init__(self, device: int) -> None:
        self.device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.device, 0)

    def __dlpack__(self, **options: object) -> object:
        raise AssertionError("asked for the data")


@pytest.mark.skipif(fastconv.cuda.is_available(), reason="they are computed")
@pytest.mark.parametrize("device", [2, 10, 13])  # DLPack's CUDA, ROCm, and memory that CUDA manages
def test_gpu_arrays_are_refused(backend, device):
    for call in (
        lambda a: F.relu(a),
        lambda a: F.conv2d(np.ones((1, 1, 4, 4), np.float32), a),
        lambda a: F.softmax.vjp(a, 0),
        lambda a: fc.tensor(a),
        lambda a: fc.backend.active(a),
    ):
        with pytest.raises(
            NotImplementedError,
            match=r"in (GPU memory, which cannot be computed here: |the host's memory, got .* elsewhere)",
        ):
            call(OnDevice(device))


@pytest.mark.parametrize("wrong", [[1.0, 2.0], 1.0, None, "x", (1.0,), np.float32(1), np.ma.masked_array([1.0])])
def test_what_is_no_array(backend, wrong):
    for function in (F.relu, F.sigmoid, lambda x: F.softmax.vjp(x, 0), lambda x: F.linear(x, np.ones((2, 2)))):
        with pytest.raises((TypeError, AttributeError) if wrong is None else TypeError):
            function(wrong)
    with pytest.raises(TypeError, match="weight must be an array"):
        F.linear(np.ones((2, 2)), [[1.0, 2.0]])


def test_ndarray_subclasses(backend, tmp_path):
    np.save(tmp_path / "x.npy", np.array([-1.0, 2.0]))
    y = F.relu(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert type(y) is np.ndarray and y.tolist() == [0.0, 2.0]


def test_a_library_without_from_dlpack(monkeypatch):
    class Foreign:
        """An array that can be read but not made."""

        def __dlpack__(self, **options: object) -> object:
            return np.ones(2).__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    monkeypatch.setitem(sys.modules, "foreign", types.ModuleType("foreign"))
    Foreign.__module__ = "foreign.arrays"
    with pytest.raises(TypeError, match="foreign has no from_dlpack"):
        F.sigmoid(Foreign())


def test_scalar_gradients():
    x = np.array([1.0, 2.0], np.float32)
    loss, pullback = F.mse_loss.vjp(x, np.zeros(2, np.float32))
    for dy in (1.0, 1, np.float32(1), np.ones((), np.float32), np.ones_like(loss)):
        np.testing.assert_array_equal(pullback(dy)[0], x)
    with pytest.raises(TypeError, match="dy must have the output's dtype float32, got int64"):
        pullback(np.int64(1))


def test_signatures_are_torchs(torch):
    """Names and defaults in torch's order; what torch deprecated is left out, what follows it is by keyword."""
    for name in F.__all__:
        function = getattr(F, name)
        if not hasattr(torch.nn.functional, name):
            continue
        try:
            theirs = inspect.signature(getattr(torch.nn.functional, name)).parameters
        except ValueError:
            continue  # a builtin of torch
        if "args" in theirs:
            continue
        old = (
            "size_average",
            "reduce",
            "_stacklevel",
            "out",
            *(["dtype"] if name.endswith(("softmax", "min")) else []),
        )
        ours = inspect.signature(function).parameters
        assert [n for n in theirs if n not in old] == [n for n in ours if n not in ("rng", "dtype")], name
        for parameter in theirs.values():
            if parameter.name in ours:
                assert ours[parameter.name].default == parameter.default, (name, parameter.name)


def test_every_function_is_documented_and_differentiable():
    for name in F.__all__:
        function = getattr(F, name)
        for part in ("Parameters\n", "Returns\n", "Raises\n", "Examples\n", ">>> "):
            assert part in function.__doc__, (name, part)
        if name not in ("one_hot", "pack_weight"):  # integers in, integers out; the values as they are
            assert callable(function.vjp) and name in function.vjp.__doc__


def test_sixteen_bit_losses_accumulate_in_float32():
    n = 1 << 14
    x = np.ones(n, ml_dtypes.bfloat16)
    assert F.mse_loss(x, np.zeros_like(x), reduction="sum") == n
    assert F.softmax(np.zeros(n, ml_dtypes.bfloat16), 0)[0] == 1 / n
    assert F.cross_entropy(np.zeros((1, n), np.float16), np.array([0])) == np.float16(np.log(n))


def test_overhead_of_a_plain_call(monkeypatch):
    """About a microsecond of Python between the caller and the backend; several, to survive a busy machine."""
    from fastconv import backend as backends

    nothing = types.SimpleNamespace(conv_forward=lambda *a: None, max_pool_forward=lambda *a: None)
    monkeypatch.setattr(backends, "ops", nothing)
    x = np.zeros((1, 1, 8, 8), np.float32)
    for call in (lambda: F.conv2d(x, x, padding=1), lambda: F.max_pool2d(x, 2)):
        assert min(timeit.repeat(call, number=2000, repeat=20)) / 2000 < 3e-6


def test_shares_of_a_mean_over_many_halves_are_not_rounded_twice():
    x = np.full(100_000, 10, np.float16)
    (dx,) = F.mse_loss.vjp(x, np.zeros_like(x), wrt=("input",))[1](np.float16(1))
    np.testing.assert_array_equal(dx, np.float16(2e-4))


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_where_all_targets_are_ignored_the_mean_is_nan_and_its_gradient_is_zero(loss):
    y, pullback = loss.vjp(np.ones((2, 3), np.float32), np.array([1, 1]), ignore_index=1)
    assert np.isnan(y)
    np.testing.assert_array_equal(pullback(np.float32(1))[0], np.zeros((2, 3), np.float32))
