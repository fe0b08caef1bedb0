"""F.pack_weight: the bits of the weight as it is, from every algorithm; nobody writes to what is packed."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from test_conv import CASES, channels_last
from test_conv_algorithms import TILES

import direct
import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import DTYPES, assert_same_bits, bfloat16, dtype_name, float32
from direct import Conv
from fastconv.backend import native

ALGORITHMS = ("", "direct", "pointwise", "winograd_2x2", "winograd_4x4", "amx", "bfloat16_dots")
# One panel, panels of half a register, several passes, groups, taps apart, one image of a few pixels, a batch of rows.
ROWS = [
    Conv("rows_one", (1, 70, 1, 1), (50, 70, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    Conv("rows_many", (300, 90, 1, 1), (33, 90, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
]


def image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("case", [*CASES, *TILES, *ROWS], ids=str)
def test_every_algorithm_gives_the_same_bits(cpu_backend, asked, case):
    d, _ = direct.random(case, float32)
    packed = F.pack_weight(d.w)
    threads = cpu_backend.get_num_threads()
    try:
        for algorithm in ALGORITHMS:
            asked(algorithm)
            for convert in (np.ascontiguousarray, channels_last):
                x = convert(d.x)
                expected = cpu_backend.conv_forward(x, d.w, d.b, *case.options)
                for count in (2, 1):  # packed by the first, read by the second
                    cpu_backend.set_num_threads(count)
                    assert_same_bits(cpu_backend.conv_forward(x, packed, d.b, *case.options), expected)
                for part in (x[:1], x[1:]):
                    y = cpu_backend.conv_forward(part, packed, d.b, *case.options)
                    assert_same_bits(y, cpu_backend.conv_forward(part, d.w, d.b, *case.options))
        assert_same_bits(packed, d.w)
    finally:
        cpu_backend.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_every_dtype(cpu_backend, asked, dtype):
    case = Conv("dtypes", (2, 40, 9, 9), (36, 40, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    d = direct.exact(case, dtype)
    packed = F.pack_weight(d.w)
    for algorithm in ALGORITHMS:
        asked(algorithm)
        expected = cpu_backend.conv_forward(d.x, d.w, d.b, *case.options)
        for _ in range(2):
            assert_same_bits(cpu_backend.conv_forward(d.x, packed, d.b, *case.options), expected)


def test_one_weight_in_several_roles(cpu_backend):
    """Groups, dilation and the shape decide what a form holds: one array in all of these roles."""
    weight = image(32, 8, 3, 3)
    packed = F.pack_weight(weight)
    for _ in range(2):
        for groups, dilation, channels in ((1, 1, 8), (2, 1, 16), (4, 2, 32), (1, 2, 8), (1, 3, 8)):
            x = image(2, channels, 12, 12, seed=channels)
            for y in (x, channels_last(x)):
                options = {"padding": 1, "dilation": dilation, "groups": groups}
                assert_same_bits(F.conv2d(y, packed, **options), F.conv2d(y, weight, **options))
    reshaped = F.pack_weight(weight)
    F.conv2d(image(1, 8, 12, 12), reshaped)
    reshaped.shape = 16, 16, 3, 3  # NumPy lets this happen to read-only arrays
    x = image(1, 16, 12, 12)
    assert_same_bits(F.conv2d(x, reshaped), F.conv2d(x, weight.reshape(16, 16, 3, 3)))
    other = F.pack_weight(weight.astype(np.float16))
    x = image(1, 8, 12, 12).astype(np.float16)
    F.conv2d(x, other)
    other.dtype = bfloat16
    assert_same_bits(F.conv2d(x.astype(bfloat16), other), F.conv2d(x.astype(bfloat16), other.copy()))


def test_what_is_packed_lasts_and_is_counted(cpu_backend):
    weight, x = image(64, 32, 3, 3), image(4, 32, 32, 32)  # of a few tiles, a call would keep a part of the weights
    packed = F.pack_weight(weight)
    assert native().packed_bytes(packed) == 0
    F.conv2d(x, packed)
    once = native().packed_bytes(packed)
    assert once >= weight.nbytes
    cpu_backend.reset_workspace_peak()
    F.conv2d(x, packed)
    assert native().packed_bytes(packed) == once
    lasting = cpu_backend.workspace_peak()
    cpu_backend.reset_workspace_peak()
    F.conv2d(x, weight)
    assert lasting <= cpu_backend.workspace_peak() - weight.nbytes
    F.conv_transpose2d(image(1, 64, 4, 4), packed)
    assert native().packed_bytes(packed) == once


def test_linear(cpu_backend):
    weight, bias = image(70, 300), image(70)
    packed = F.pack_weight(weight)
    for rows in (1, 2, 33, 500):
        x = image(rows, 300, seed=rows)
        assert_same_bits(F.linear(x, packed, bias), F.linear(x, weight, bias))
    assert native().packed_bytes(packed) >= weight.nbytes
    vector = F.pack_weight(weight[0])
    assert_same_bits(F.linear(image(5, 300), vector), F.linear(image(5, 300), weight[0]))


def test_values_that_leave_a_fast_algorithm(cpu_backend, asked):
    """Images with an infinity take another kernel, and so do weights that AMX cannot split."""
    x = image(3, 40, 12, 12)
    x[1, 3, 4, 5] = np.inf
    for scale in (1.0, 1e30, 1e-38):
        weight = (image(40, 40, 3, 3) * scale).astype(np.float32)
        packed = F.pack_weight(weight)
        for algorithm in ALGORITHMS:
            asked(algorithm)
            with np.errstate(all="ignore"):
                for _ in range(2):
                    np.testing.assert_array_equal(F.conv2d(x, packed, padding=1), F.conv2d(x, weight, padding=1))


def test_nobody_writes_to_it(cpu_backend):
    weight = image(8, 4, 3, 3)
    packed = F.pack_weight(weight)
    weight[...] = 0  # a copy: the caller's array stays the caller's
    assert packed.any()
    with pytest.raises(ValueError, match="read-only"):
        packed[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        packed.flags.writeable = True
    with pytest.raises(ValueError, match="WRITEABLE"):
        packed[1:].setflags(write=True)
    layer = nn.Conv2d(4, 8, 3)
    layer.weight.data = F.pack_weight(layer.weight)
    layer(image(1, 4, 8, 8))
    before = layer.weight.data.copy()
    layer.weight.grad, layer.bias.grad = np.ones_like(before), np.ones(8, np.float32)
    with pytest.raises(ValueError, match="read-only"):
        nn.init.zeros_(layer.weight)
    assert_same_bits(layer.weight.data, before)
    layer.weight.data = layer.weight.data * 2  # another array: nothing of the old one is used
    x = image(1, 4, 8, 8)
    assert_same_bits(layer(x), F.conv2d(x, before * 2, layer.bias.data))


def test_steps_and_loaded_states_reach_packed_layers(cpu_backend):
    layer, other = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)
    other.load_state_dict(layer.state_dict())
    x = image(1, 4, 8, 8)
    for _ in range(3):
        layer.weight.data = F.pack_weight(layer.weight)
        assert_same_bits(layer(x), other(x))
        for each in (layer, other):
            optimizer = fc.optim.SGD(each.parameters(), lr=0.1, momentum=0.9)
            F.mse_loss(each(fc.tensor(x)), np.zeros((1, 8, 6, 6), np.float32)).backward()
            optimizer.step()
        assert layer.weight.data.flags.writeable
        assert_same_bits(layer(x), other(x))
    layer.weight.data = F.pack_weight(layer.weight)
    layer(x)
    state = {key: value * 2 for key, value in other.state_dict().items()}
    layer.load_state_dict(state)
    other.load_state_dict(state)
    assert_same_bits(layer(x), other(x))
    frozen_by_the_caller = other.weight.data
    frozen_by_the_caller.flags.writeable = False
    other.weight.grad = np.ones_like(frozen_by_the_caller)
    with pytest.raises(ValueError, match="read-only"):
        fc.optim.SGD(other.parameters(), lr=0.1).step()


def test_views_and_copies_are_ordinary_arrays(cpu_backend):
    weight, x = image(12, 6, 3, 3), image(1, 6, 9, 9)
    packed = F.pack_weight(weight)
    F.conv2d(x, packed)
    once = native().packed_bytes(packed)
    for view in (packed[2:], packed[:, :, ::-1], packed.reshape(12, 6, 9, 1), packed.copy(), copy.deepcopy(packed)):
        assert_same_bits(F.conv2d(x, view), F.conv2d(x, np.array(view)))
    assert native().packed_bytes(packed) == once
    del packed
    assert view.flags.writeable


def test_gradients(cpu_backend):
    weight, x = image(24, 16, 3, 3), image(2, 16, 8, 8)
    packed = F.pack_weight(weight)
    F.conv2d(x, packed, padding=1)
    results = []
    for w in (weight, packed):
        y, pullback = F.conv2d.vjp(x, w, padding=1)
        results.append((y, *pullback(y)))
    for actual, expected in zip(*results, strict=True):
        assert_same_bits(actual, expected)


def test_other_backends_take_it(backend):
    weight, x = image(8, 6, 3, 3), image(1, 6, 7, 7)
    assert_same_bits(F.conv2d(x, F.pack_weight(weight)), F.conv2d(x, weight))


def test_first_calls_at_the_same_time(cpu_backend):
    x, weight = channels_last(image(1, 128, 28, 28)), image(128, 128, 3, 3)
    expected = F.conv2d(x, weight, padding=1)
    for _ in range(20):
        packed, results = F.pack_weight(weight), []
        barrier = threading.Barrier(4)

        def call(packed=packed, results=results, barrier=barrier):
            barrier.wait()
            results.append(F.conv2d(x, packed, padding=1))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        for result in results:
            assert_same_bits(result, expected)


@pytest.mark.parametrize(
    "weight, error, message",
    [
        (np.zeros((2, 2), np.int32), TypeError, "weight must have dtype"),
        (np.float32(1.0), TypeError, "weight must be an array"),
        ([[1.0]], TypeError, "weight must be an array"),
        (np.array(1.0), ValueError, "1 to 5 dimensions"),
        (np.zeros((1,) * 6, np.float32), ValueError, "1 to 5 dimensions"),
        (np.ma.zeros((2, 2)), TypeError, "masked"),
    ],
)
def test_bad_weights(weight, error, message):
    with pytest.raises(error, match=message):
        F.pack_weight(weight)


def test_strides_and_empty_weights(cpu_backend):
    weight = image(6, 3, 3, 4).transpose(0, 3, 1, 2)
    packed = F.pack_weight(weight)
    assert packed.flags.c_contiguous
    assert_same_bits(packed, np.ascontiguousarray(weight))
    empty = F.pack_weight(np.zeros((0, 4, 3, 3), np.float32))
    assert empty.shape == (0, 4, 3, 3)
    with pytest.raises(ValueError, match="weight must have no empty dimension"):
        F.conv2d(image(1, 4, 5, 5), empty)


# ---- optimize ----------------------------------------------------------------------------------------------------


@pytest.fixture
def net():
    layers = nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, groups=24), nn.Flatten(), nn.Linear(864, 5)
    return nn.Sequential(*layers).eval()


def frozen(model) -> list[bool]:
    return [not parameter.data.flags.writeable for name, parameter in model.named_parameters() if "weight" in name]


def test_optimized_networks_pack_their_weights(net, cpu_backend):
    x = image(2, 3, 8, 8)
    packed, plain = fc.optimize(net, x.shape), fc.optimize(net, x.shape, pack_weights=False)
    assert frozen(packed) == [True, False, True]  # one channel a group: nothing to pack
    assert frozen(plain) == frozen(net) == [False, False, False]
    for _ in range(2):
        assert_same_bits(packed(x), plain(x))
    assert native().packed_bytes(packed.model[0].weight.data) > 0


def test_copies_of_an_optimized_network_pack_again(net):
    x = image(2, 3, 8, 8)
    fast = fc.optimize(net)
    assert frozen(fast) == [False, False, False]
    y = fast(x)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), fc.optimize(fast)):
        assert frozen(other) == frozen(fast) == [True, False, True]
        assert_same_bits(other(x), y)
        assert other.model[0].weight.data is not fast.model[0].weight.data


def test_an_optimized_network_loads_a_state(net):
    x = image(2, 3, 8, 8)
    fast, other = fc.optimize(net, x.shape), fc.optimize(copy.deepcopy(net), x.shape)
    fast(x)
    state = {key: value * 2 for key, value in other.state_dict().items()}
    with pytest.raises(ValueError, match="unchanged"):
        fast.load_state_dict({**state, "more": x})
    assert frozen(fast) == [True, False, True]
    assert_same_bits(fast(x), other(x))
    fast.load_state_dict(state)
    assert frozen(fast) == [True, False, True]
    for parameter in other.parameters():
        parameter.data = parameter.data * 2
    assert_same_bits(fast(x), other(x))


def test_the_reference_optimizes_without_packing(net):
    with fc.use_backend("reference"):
        assert frozen(fc.optimize(net, (1, 3, 8, 8))) == [False, False, False]
