"""Recurrent functions, layers and cells against torch.nn's, forward and backward, from every backend; refusals."""

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import from_torch, to_torch
from functional_cases import Case, check_dlpack, check_dtype, check_finite_differences, check_pullback, check_tensor

SIZES = {"input": (3, 2, 4), "h0": (2, 5)}
LSTM = {**SIZES, "c0": (2, 5), "weight_ih": (20, 4), "weight_hh": (20, 5)}
GRU = {**SIZES, "weight_ih": (15, 4), "weight_hh": (15, 5)}
RNN = {**SIZES, "weight_ih": (5, 4), "weight_hh": (5, 5)}
CASES = [
    Case("lstm", {**LSTM, "bias_ih": (20,), "bias_hh": (20,)}),
    Case("lstm", LSTM),
    Case("gru", {**GRU, "bias_ih": (15,), "bias_hh": (15,)}),
    Case("gru", GRU),
    Case("rnn", {**RNN, "bias_ih": (5,), "bias_hh": (5,)}),
    Case("rnn", RNN, {"nonlinearity": "relu"}),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


@cases
def test_functions(backend, case, torch):
    check_finite_differences(case)
    check_pullback(case)
    check_tensor(case)
    check_dlpack(case, torch)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@cases
def test_dtype(case, dtype):
    check_dtype(case, dtype)


LAYERS = [
    ((4, 5), {}),
    ((4, 5, 3), {"bias": False}),
    ((4, 5, 2), {"bidirectional": True, "batch_first": True}),
    ((1, 1), {"bidirectional": True}),
]


def _pair(torch, name, args, options):
    """The layer in both libraries, in float64, with torch's weights."""
    theirs = getattr(torch.nn, name)(*args, **options).double()
    ours = getattr(nn, name)(*args, **options)
    assert repr(ours) == repr(theirs)
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours = ours.double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _close(ours, theirs):
    np.testing.assert_allclose(ours, from_torch(theirs), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("args, options", LAYERS, ids=str)
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_layers_are_torchs(torch, name, args, options, batched, states):
    rng = np.random.default_rng(5)
    ours, theirs = _pair(torch, name, args, options)
    directions = 2 if options.get("bidirectional") else 1
    x = rng.normal(size=(3, 6, args[0]) if batched else (6, args[0]))
    shape = (directions * ours.num_layers, *([6 if not options.get("batch_first") else 3] * batched), args[1])
    initial = [rng.normal(size=shape) for _ in range(2 if name == "LSTM" else 1)]
    given = [fc.tensor(s, requires_grad=True) for s in initial]
    others = [to_torch(s).requires_grad_() for s in initial]
    a, b = fc.tensor(x, requires_grad=True), to_torch(x).requires_grad_()

    def call(layer, value, hx):
        hx = None if not states else tuple(hx) if name == "LSTM" else hx[0]
        output, last = layer(value, hx)
        return [output, *(last if isinstance(last, tuple) else (last,))]

    results, expected = call(ours, a, given), call(theirs, b, others)
    weights = [rng.normal(size=result.shape) for result in results]
    for result, other in zip(results, expected, strict=True):
        assert result.shape == tuple(other.shape)
        _close(result.data, other.detach())
    sum((result * w).sum() for result, w in zip(results, weights, strict=True)).backward()
    sum((result * to_torch(w)).sum() for result, w in zip(expected, weights, strict=True)).backward()
    _close(a.grad, b.grad)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        _close(p.grad, q.grad)
    if states:
        for p, q in zip(given, others, strict=True):
            _close(p.grad, q.grad)
    plain = call(ours, x, initial)
    assert all(type(result) is np.ndarray for result in plain)
    _close(plain[0], expected[0].detach())


def test_arrays_of_torch_give_arrays_of_torch(torch):
    layer = nn.GRU(2, 3)
    x = torch.ones(4, 1, 2)
    output, last = layer(x)
    assert isinstance(output, torch.Tensor) and isinstance(last, torch.Tensor)
    np.testing.assert_array_equal(from_torch(output), layer(from_torch(x))[0])


@pytest.mark.parametrize("layer", [nn.LSTM(3, 4), nn.LSTM(3, 4, proj_size=2), nn.GRU(3, 4), nn.RNN(3, 4)], ids=repr)
def test_no_sequences_have_no_gradients(layer):
    x = fc.tensor(np.zeros((5, 0, 3), np.float32), requires_grad=True)
    layer(x)[0].sum().backward()
    assert x.grad.shape == x.shape
    assert all((p.grad == 0).all() for p in layer.parameters())


def test_dropout_works_between_layers_in_training():
    layer = nn.LSTM(2, 50, num_layers=2, dropout=1.0)
    x = np.ones((3, 1, 2), np.float32)
    without_input = nn.LSTM(50, 50)
    without_input.load_state_dict({k.replace("l1", "l0"): v for k, v in layer.state_dict().items() if "l1" in k})
    output, (h, _) = layer(x)
    np.testing.assert_array_equal(output, without_input(np.zeros((3, 1, 50), np.float32))[0])
    assert h[0].any()
    assert not np.array_equal(layer.eval()(x)[0], output)


def test_a_network_learns_a_sequence():
    """Whether the first of six inputs was positive: only the state can carry it to the end."""
    fc.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6, 1)).astype(np.float32)
    y = (x[:, 0, 0] > 0).astype(np.int64)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(1, 8, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    net = Net()
    optimizer = fc.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(fc.tensor(x)), y).backward()
        optimizer.step()
    assert (net.eval()(x).argmax(1) == y).mean() > 0.95
    assert net.summary((1, 6, 1)).parameters == sum(p.numel() for p in net.parameters())


X = np.ones((3, 2, 4))
W = {"lstm": (np.ones((20, 4)), np.ones((20, 5))), "gru": (np.ones((15, 4)), np.ones((15, 5)))}
H = np.zeros((2, 5))


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_bad_arrays(name):
    states = (H, H) if name == "lstm" else (H,)

    def call(x=X, states=states, weights=W[name], *biases):
        return getattr(F, name)(x, *states, *weights, *biases)

    for error, message, arguments in (
        (ValueError, r"input must have shape \(L, N, I\)", (X[0],)),
        (ValueError, "at least one step", (X[:0],)),
        (TypeError, "input must be float32", (X.astype(int),)),
        (ValueError, r"h0 must have shape \(2, H\)", (X, (H[:1], *states[1:]))),
        (ValueError, "weight_ih must have shape", (X, states, (W[name][0][:, :3], W[name][1]))),
        (ValueError, "weight_hh must have shape", (X, states, (W[name][0], W[name][1][:10]))),
        (ValueError, "bias_ih must have shape", (X, states, W[name], np.ones(3))),
        (TypeError, "weight_ih must have the dtype of input", (X, states, (W[name][0].astype(np.float32), W[name][1]))),
    ):
        with pytest.raises(error, match=message):
            call(*arguments)
    assert call(X[:, :0], tuple(s[:0] for s in states)).size == 0


@pytest.mark.parametrize(
    "args, options, error, word",
    [
        ((0, 3), {}, ValueError, "input_size"),
        ((3, 0), {}, ValueError, "hidden_size"),
        ((3, 2.0), {}, TypeError, "hidden_size"),
        ((3, 2, 0), {}, ValueError, "num_layers"),
        ((3, 2), {"dropout": 0.5}, ValueError, "dropout works between layers"),
        ((3, 2, 2), {"dropout": 1.5}, ValueError, "dropout"),
        ((3, 2), {"dtype": int}, TypeError, "dtype"),
    ],
    ids=str,
)
def test_bad_options(args, options, error, word):
    for layer in (nn.LSTM, nn.GRU):
        with pytest.raises(error, match=word):
            layer(*args, **options)
    with pytest.raises(ValueError, match="proj_size is for LSTM alone"):
        nn.GRU(3, 4, proj_size=2)


def test_bad_inputs_of_layers():
    lstm, gru = nn.LSTM(4, 5), nn.GRU(4, 5)
    x, h = X.astype(np.float32), np.zeros((1, 2, 5), np.float32)
    for layer in (lstm, gru):
        with pytest.raises(ValueError, match=r"input must have shape \(L, N, 4\) or \(L, 4\)"):
            layer(x[..., :3])
        with pytest.raises(ValueError, match="input must have shape"):
            layer(x[None])
    with pytest.raises(TypeError, match="hx must be a tuple"):
        lstm(x, h)
    with pytest.raises(ValueError, match=r"h_0 must have shape \(1, 2, 5\)"):
        gru(x, h[:, :1])
    with pytest.raises(ValueError, match=r"c_0 must have shape \(1, 2, 5\)"):
        lstm(x, (h, h[0]))


CELLS = [
    ("RNNCell", {}),
    ("RNNCell", {"nonlinearity": "relu", "bias": False}),
    ("LSTMCell", {}),
    ("LSTMCell", {"bias": False}),
    ("GRUCell", {}),
]


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("name, options", CELLS, ids=str)
def test_cells_are_torchs(torch, name, options, batched, states):
    """Three steps in a loop, with the gradients of inputs, first states and parameters."""
    rng = np.random.default_rng(6)
    ours, theirs = _pair(torch, name, (4, 5), options)
    x = rng.normal(size=(3, 6, 4) if batched else (3, 4))
    initial = [rng.normal(size=(6, 5) if batched else (5,)) for _ in range(2 if name == "LSTMCell" else 1)]
    given = [fc.tensor(s, requires_grad=True) for s in initial]
    others = [to_torch(s).requires_grad_() for s in initial]
    a, b = fc.tensor(x, requires_grad=True), to_torch(x).requires_grad_()

    def loop(cell, steps, hx):
        hx = None if not states else tuple(hx) if name == "LSTMCell" else hx[0]
        for step in steps:
            hx = cell(step, hx)
        return hx if isinstance(hx, tuple) else (hx,)

    results, expected = loop(ours, a, given), loop(theirs, b, others)
    for result, other in zip(results, expected, strict=True):
        _close(result.data, other.detach())
    sum((result * result).sum() for result in results).backward()
    sum((result * result).sum() for result in expected).backward()
    _close(a.grad, b.grad)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        _close(p.grad, q.grad)
    if states:
        for p, q in zip(given, others, strict=True):
            _close(p.grad, q.grad)
    plain = loop(ours, x, initial)
    assert all(type(result) is np.ndarray for result in plain)
    _close(plain[0], expected[0].detach())


def test_relu_networks_are_torchs(torch):
    ours, theirs = _pair(torch, "RNN", (4, 5, 2, "relu"), {"bidirectional": True})
    x = np.random.default_rng(7).normal(size=(6, 3, 4))
    for result, other in zip(ours(x), theirs(to_torch(x)), strict=True):
        _close(result, other.detach())


def test_what_cells_refuse():
    cell = nn.LSTMCell(3, 4)
    for call, message in (
        (lambda: cell(np.zeros((2, 4), np.float32)), r"input must have shape \(N, 3\) or \(3,\)"),
        (lambda: cell(np.zeros((1, 2, 3), np.float32)), "input must have shape"),
        (lambda: cell(np.zeros((2, 3), np.float32), (np.zeros((2, 4), np.float32),) * 1 + (np.zeros(4),)), "c_0 must"),
        (lambda: nn.RNNCell(3, 4, nonlinearity="sigmoid"), "nonlinearity must be"),
        (lambda: nn.RNN(3, 4, nonlinearity="sigmoid"), "nonlinearity must be"),
        (lambda: F.rnn(*(np.zeros(s) for s in ((2, 1, 3), (1, 4), (4, 3), (4, 4))), nonlinearity=""), "nonlinearity"),
        (lambda: nn.GRUCell(0, 4), "input_size"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"hx must be a tuple \(h_0, c_0\)"):
        cell(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
