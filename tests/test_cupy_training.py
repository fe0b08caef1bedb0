"""Layers, optimisers and the Trainer on CuPy arrays, over a stand-in for CuPy and the simulator."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import fake_cupy
import fastconv as fc
import fastconv.distributed
import fastconv.nn as nn
import fastconv.nn.functional as F
import fastconv.optim as optim
from checks import assert_same_bits
from fastconv.data import DataLoader, TensorDataset
from fastconv.devices import to_device, to_host

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "plain": lambda p: optim.SGD(p, lr=0.1, maximize=True),
    "Adam": lambda p: optim.Adam(p, amsgrad=True, weight_decay=0.01),
    "AdamW": lambda p: optim.AdamW(p),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.1),
    "RMSprop": lambda p: optim.RMSprop(p, momentum=0.5, centered=True),
    "Adadelta": lambda p: optim.Adadelta(p),
    "Adamax": lambda p: optim.Adamax(p, weight_decay=0.01),
    "NAdam": lambda p: optim.NAdam(p, weight_decay=0.01, decoupled_weight_decay=True),
    "RAdam": lambda p: optim.RAdam(p, betas=(0.5, 0.9)),
    "Rprop": lambda p: optim.Rprop(p, lr=1e-3),
}


def network() -> nn.Module:
    fc.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(4 * 4 * 4, 3),
    )


def digits(count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 1, 8, 8), dtype=np.float32), rng.integers(0, 3, count)


def states(net: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.asarray(to_host(value)) for name, value in net.state_dict().items()}


def is_on_gpu(net: nn.Module, device: str = "cuda:0") -> bool:
    found = {fc.devices.device_of(value) for value in net.state_dict().values()}
    return found == {device}


def train(net: nn.Module, optimizer: Any, x: Any, target: Any, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(fc.tensor(x)), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_that_of_numpy_arrays(cupy, name):
    x, target = digits()
    with fc.use_backend("cuda:simt"):
        net = network()
        expected = train(net, OPTIMIZERS[name](net.parameters()), x, target, 4)
    mine = network().cuda()
    assert is_on_gpu(mine)
    optimizer = OPTIMIZERS[name](mine.parameters())
    losses = train(mine, optimizer, cupy.asarray(x), cupy.asarray(target), 4)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    for key, value in states(mine).items():
        np.testing.assert_allclose(value, states(net)[key], rtol=1e-5, atol=1e-7, err_msg=key)
    assert all(isinstance(p.grad, fake_cupy.ndarray) for p in mine.parameters())
    kept = optimizer.state_dict()["state"]
    assert all(isinstance(v, fake_cupy.ndarray | int | float) for entry in kept.values() for v in entry.values())


def test_a_step_reads_nothing_back(cupy):
    x, target = (cupy.asarray(a) for a in digits())
    net = network().to("cuda")
    for name, make in OPTIMIZERS.items():
        optimizer = make(net.parameters())
        reads = fake_cupy.Reads.count
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(net(fc.tensor(x)), target).backward()
            optimizer.step()
        assert fake_cupy.Reads.count == reads, name


def test_lenet_learns_as_on_the_host(cupy):
    rng = np.random.default_rng(4)
    x, target = rng.standard_normal((4, 1, 28, 28), dtype=np.float32), np.arange(4)
    fc.manual_seed(2)
    net = fc.models.LeNet5()
    mine = copy.deepcopy(net).cuda()
    expected = train(net, optim.SGD(net.parameters(), lr=0.1, momentum=0.9), x, target, 3)
    optimizer = optim.SGD(mine.parameters(), lr=0.1, momentum=0.9)
    losses = train(mine, optimizer, cupy.asarray(x), cupy.asarray(target), 3)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)  # the processor's kernels sum in another order
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_follow_the_parameters(cupy, name):
    x, target = digits()
    with fc.use_backend("cuda:simt"):
        net = network()
        expected = train(net, OPTIMIZERS[name](net.parameters()), x, target, 4)
        mine = network()
        optimizer = OPTIMIZERS[name](mine.parameters())
        losses = train(mine, optimizer, x, target, 2)
    parameters = list(mine.parameters())
    mine.to("cuda:1")
    assert is_on_gpu(mine, "cuda:1") and all(a is b for a, b in zip(parameters, mine.parameters()))
    losses += train(mine, optimizer, cupy.asarray(x, device=1), cupy.asarray(target, device=1), 1)
    mine.cpu()
    with fc.use_backend("cuda:simt"):
        losses += train(mine, optimizer, x, target, 1)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_to_reads_its_arguments_as_torch_does(cupy):
    layer = nn.BatchNorm1d(3)
    layer.weight.grad = np.ones(3, np.float32)
    assert layer.to("cuda", np.float64) is layer
    assert layer.weight.device == "cuda:0" and layer.weight.dtype == np.float64
    assert isinstance(layer.weight.grad, fake_cupy.ndarray) and layer.weight.grad.dtype == np.float64
    assert layer.running_mean.dtype == np.float64 and layer.num_batches_tracked.dtype == np.int64
    assert isinstance(layer.num_batches_tracked, fake_cupy.ndarray)
    layer.to(device=2)
    assert layer.bias.device == "cuda:2"
    layer.to(dtype=np.float32).to(fc.tensor([1.0]))
    assert layer.bias.device == "cpu" and layer.bias.dtype == np.float32
    layer.cuda(3)
    assert layer.running_var.device.id == 3
    layer.float().cpu()
    assert type(layer.running_var) is np.ndarray
    for wrong, error, words in (
        (("cuda:9",), ValueError, "one of 4 GPUs, cuda:0 to cuda:3, got 'cuda:9'"),
        (("cuda:x",), ValueError, '"cuda:N", got'),
        (("cuda", np.int32), TypeError, "dtype must be float32"),
        (("cpu", np.float32, 1), TypeError, "got 3 arguments"),
    ):
        with pytest.raises(error, match=words):
            layer.to(*wrong)
    with pytest.raises(TypeError, match="device must be a str"):
        layer.to(device=1.5)
    assert type(layer.weight.data) is np.ndarray


LAYERS = {
    "Conv1d": (2, 4, 3),
    "Conv2d": (2, 4, 3),
    "Conv3d": (2, 4, 1),
    "ConvTranspose1d": (2, 4, 3),
    "ConvTranspose2d": (2, 4, 3),
    "ConvTranspose3d": (2, 4, 1),
    "Linear": (3, 2),
    "Bilinear": (3, 2, 4),
    "PReLU": (3,),
    "Embedding": (5, 2),
    "BatchNorm1d": (3,),
    "BatchNorm2d": (3,),
    "BatchNorm3d": (3,),
    "SyncBatchNorm": (3,),
    "InstanceNorm2d": (3, 1e-5, 0.1, True, True),
    "GroupNorm": (1, 3),
    "LayerNorm": (3,),
    "RMSNorm": (3,),
    "RNN": (3, 2),
    "LSTM": (3, 2),
    "GRU": (3, 2),
    "RNNCell": (3, 2),
    "LSTMCell": (3, 2),
    "GRUCell": (3, 2),
    "LazyConv2d": (4, 3),
    "LazyConvTranspose2d": (4, 3),
    "LazyLinear": (4,),
    "LazyBatchNorm2d": (),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_begin_where_they_are_told(cupy, name):
    """With the values that the same layer has on the host."""
    fc.manual_seed(1)
    layer = getattr(nn, name)(*LAYERS[name], device="cuda:1", dtype=np.float64)
    fc.manual_seed(1)
    other = getattr(nn, name)(*LAYERS[name], device="cpu", dtype=np.float64)
    values = layer.state_dict(), other.state_dict()
    assert is_on_gpu(layer, "cuda:1") and all(type(value) is np.ndarray for value in values[1].values())
    assert list(layer.parameters()) and all(parameter.dtype == np.float64 for parameter in layer.parameters())
    if not name.startswith("Lazy"):
        for mine, host in zip(*(v.values() for v in values), strict=True):
            assert_same_bits(np.asarray(to_host(mine)), host)
    with pytest.raises(ValueError, match="one of 4 GPUs, cuda:0 to cuda:3, got 'cuda:4'"):
        getattr(nn, name)(*LAYERS[name], device="cuda:4")


def test_a_lazy_layer_stays_where_it_was_told(cupy):
    layer = nn.LazyLinear(4, device="cuda:1")
    with cupy.cuda.Device(1):
        layer(cupy.asarray(np.ones((2, 3), np.float32)))
    assert layer.weight.shape == (4, 3) and is_on_gpu(layer, "cuda:1")


def test_tensors_begin_where_they_are_told(cupy):
    x = fc.tensor([1.5, 2.5], requires_grad=True, device="cuda:1")
    assert x.device == "cuda:1" and x.is_leaf and x.requires_grad and x.dtype == np.float32
    assert fc.tensor(x, device="cpu").tolist() == [1.5, 2.5]
    assert x.new_zeros(2).device == "cuda:1" and x.new_ones(2, device="cpu").tolist() == [1, 1]
    assert x.new_full((2,), 3, device=2).device == "cuda:2"


def test_tensors_move_on_the_tape(cupy):
    x = fc.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = (x.cuda() * 2).to("cuda:1")
    with cupy.cuda.Device(1):
        y = y.sum()
    assert y.device == "cuda:1" and repr(y) == "tensor(12., dtype=float32, device='cuda:1', requires_grad=True)"
    with pytest.raises(TypeError, match=r"Tensor on cuda:1 has no NumPy array: .*\.cpu\(\)"):
        y.numpy()
    with pytest.raises(TypeError, match=r"\.cpu\(\)"):
        np.asarray(y)
    y.cpu().backward()
    assert type(x.grad) is np.ndarray and x.grad.tolist() == [2, 2, 2]
    assert x.to("cpu") is x and x.cpu() is x
    assert x.to(np.float64).dtype == np.float64
    assert y.item() == 12 and float(y) == 12 and y.tolist() == 12


def test_operators_of_tensors(cupy):
    rng = np.random.default_rng(6)
    a, b = rng.uniform(0.5, 2, (3, 4)).astype(np.float32), rng.uniform(0.5, 2, (4,)).astype(np.float32)

    def compute(x: fc.Tensor, y: fc.Tensor, index: Any) -> list[fc.Tensor]:
        pooled = [x.max(1).values, x.min(0).values, x.max(axis=1), x.min()]
        parts = [*x.split([1, 3], 1), *x.chunk(2), fc.cat([x, x * 2]), fc.stack([x, x]), x[1:, ::2], x[index]]
        sums = [x.sum(0), x.mean(), x.var(1), x.std(0, keepdim=True)]
        shapes = [x.t(), x.T, x.flatten(), x.unsqueeze(0).expand(2, -1, -1), x.reshape(2, 6), x.contiguous(), x.clone()]
        values = [x + y, x - y, 2 - x, x * y, x / y, 1 / x, x**2, x**y, 2**x, -x, x @ y, x.exp(), x.log(), x.sqrt()]
        more = [abs(x), x.clamp(0.7, 1.5), x.clamp(max=1.2), x.relu(), x.sigmoid(), x.tanh(), x.softmax(1)]
        return [*pooled, *parts, *sums, *shapes, *values, *more, x.log_softmax(0)]

    index = np.array([0, 2, 0])
    count = len(compute(fc.tensor(a), fc.tensor(b), index))
    for i in range(count):
        leaves = [fc.tensor(v, requires_grad=True) for v in (a, b)]
        on_gpu = [fc.tensor(cupy.asarray(v), requires_grad=True) for v in (a, b)]
        with fc.use_backend("cuda:simt"):
            expected = compute(*leaves, index)[i]
            (expected * expected).sum().backward()
        result = compute(*on_gpu, cupy.asarray(index))[i]
        (result * result).sum().backward()
        assert_same_bits(to_host(result.data), np.asarray(expected.data))
        for mine, theirs in zip(on_gpu, leaves):
            assert (mine.grad is None) == (theirs.grad is None), i
            if theirs.grad is not None:
                assert isinstance(mine.grad, fake_cupy.ndarray)
                assert_same_bits(to_host(mine.grad), theirs.grad)


def test_in_place_comparisons_and_hooks(cupy):
    x = fc.tensor(cupy.asarray(np.array([1.0, -2.0], np.float32)), requires_grad=True)
    seen = []
    x.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad))
    x.sum().backward()
    x.sum().backward()
    assert to_host(x.grad).tolist() == [2, 2] and len(seen) == 2
    seen.clear()
    with fc.no_grad():
        x -= 0.5 * x.grad
    assert to_host(x.data).tolist() == [0, -3]
    assert to_host(x > -1).tolist() == [True, False] and to_host(x.argmax(0)) == 0
    assert len(x) == 2 and [t.item() for t in x] == [0, -3]


def test_gradients_that_are_views_become_arrays_of_their_own(cupy):
    x, y = (fc.tensor(cupy.asarray(np.ones(3, np.float32)), requires_grad=True) for _ in range(2))
    (x + y).sum().backward()
    x.grad[...] = 5
    assert to_host(y.grad).tolist() == [1, 1, 1]
    assert x.grad.strides == (4,)


def test_state_dicts_and_files_are_those_of_the_host(cupy, tmp_path):
    net = network().cuda()
    expected = states(network())
    for suffix in ("npz", "safetensors"):
        path = tmp_path / f"net.{suffix}"
        fc.save(net, path)
        loaded = fc.load(path)
        assert all(type(value) is np.ndarray for value in loaded.values())
        for name, value in expected.items():
            assert_same_bits(np.asarray(loaded[name]), value)
        other = network().to("cuda:1")
        for parameter in other.parameters():
            nn.init.ones_(parameter)
        arrays = [p.data for p in other.parameters()]
        other.load_state_dict(loaded)
        assert is_on_gpu(other, "cuda:1")
        assert all(a is p.data for a, p in zip(arrays, other.parameters()))
        for name, value in states(other).items():
            assert_same_bits(value, expected[name])
    network().load_state_dict(net.state_dict())  # from a GPU
    with pytest.raises(ValueError, match=r"'0\.weight' has shape"):
        net.load_state_dict({**expected, "0.weight": np.ones((1, 1, 3, 3), np.float32)})


def test_channels_last_survives_the_way_there_and_back(cupy):
    x = np.moveaxis(np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3), -1, 1)
    there = to_device(x, "cuda:1")
    assert there.device.id == 1 and there.strides == x.strides
    back = to_host(there)
    assert back.strides == x.strides
    assert_same_bits(back, x)
    for view in (x[:, ::2], x[::-1], np.float32(3) + np.zeros(()), np.zeros((0, 3))):
        np.testing.assert_array_equal(to_host(to_device(np.asarray(view), "cuda:0")), view)


def test_initialisation_is_that_of_the_host(cupy):
    for fill in (nn.init.xavier_uniform_, nn.init.kaiming_normal_, nn.init.trunc_normal_, nn.init.normal_):
        fc.manual_seed(3)
        expected = fill(np.empty((4, 5), np.float32))
        fc.manual_seed(3)
        mine = fill(nn.Parameter(cupy.asarray(np.zeros((4, 5), np.float32))))
        assert_same_bits(to_host(mine.data), expected)


def test_layers_of_ones_own_and_recurrent_ones(cupy):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, 2, bidirectional=True)
            self.gru = nn.GRU(8, 5)

        def forward(self, x: fc.Tensor) -> fc.Tensor:
            return self.gru(self.lstm(x)[0])[0].view(-1, 5)

    fc.manual_seed(7)
    net = Own()
    x = np.random.default_rng(1).standard_normal((6, 2, 3), dtype=np.float32)
    with fc.use_backend("cuda:simt"):
        expected, pullback = net.vjp(x)
        dx = pullback(np.ones_like(expected))
    net.cuda()
    assert_same_bits(to_host(net(cupy.asarray(x))), expected)
    y, pullback = net.vjp(cupy.asarray(x))
    assert_same_bits(to_host(y), expected)
    np.testing.assert_allclose(to_host(pullback(cupy.asarray(np.ones_like(expected)))), dx, rtol=1e-6)
    assert "GRU" in str(net.summary((6, 2, 3)))


def test_clipping(cupy):
    for norm in (2.0, np.inf):
        layers = [nn.Linear(3, 2), nn.Linear(3, 2).cuda()]
        for layer in layers:
            for p in layer.parameters():
                p.grad = to_device(np.full(p.shape, 2.0, np.float32), p.device)
        first, second = (nn.utils.clip_grad_norm_(layer.parameters(), 1.0, norm) for layer in layers)
        assert type(second) is float and first == second
        assert_same_bits(to_host(layers[1].weight.grad), layers[0].weight.grad)
    nn.utils.clip_grad_value_(layers[1].parameters(), 0.1)
    assert float(to_host(layers[1].weight.grad).max()) == np.float32(0.1)


def test_mixed_devices_of_layers_and_optimisers(cupy):
    x, _ = digits(2)
    with pytest.raises(
        ValueError, match=r"conv2d: all arrays must be on one device, got input on cpu, weight on cuda:0"
    ):
        network().cuda()(x)
    layer = nn.Linear(2, 2).cuda()
    layer.weight.grad = np.ones((2, 2), np.float32)
    before = to_host(layer.weight.data)
    with pytest.raises(ValueError, match="step: all arrays must be on one device"):
        optim.SGD(layer.parameters()).step()
    assert_same_bits(to_host(layer.weight.data), before)


@pytest.mark.parametrize("device", (None, "cuda", "cuda:1"))
def test_trainer(cupy, tmp_path, device):
    x, target = digits(12)

    def fit(net: nn.Module, name: str, epochs: int, resume: bool = False, **options: Any) -> tuple[fc.Trainer, Any]:
        fc.manual_seed(0)
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        loader = DataLoader(TensorDataset(x, target), batch_size=4, shuffle=True, seed=1)
        options.update(log=None, max_grad_norm=5.0, checkpoint=tmp_path / f"{name}.npz")
        trainer = fc.Trainer(net, optimizer, **options)
        if resume:
            trainer.load(tmp_path / f"{name}.npz")
        return trainer, trainer.fit(loader, epochs, loader).rows

    with fc.use_backend("cuda:simt"):
        _, expected = fit(network(), "host", 2)
    net = network() if device else network().cuda()
    trainer, rows = fit(net, "gpu", 2, device=device)
    assert is_on_gpu(net, "cuda:1" if device == "cuda:1" else "cuda:0")
    for mine, theirs in zip(rows, expected, strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-5)
    outputs = trainer.predict([x[:4], (x[4:], target[4:])])
    assert type(outputs) is np.ndarray and outputs.shape == (12, 3)
    # A run goes on anywhere.
    fit(network().cuda(), "moved", 1)
    with fc.use_backend("cuda:simt"):
        _, rows = fit(network(), "moved", 2, resume=True)
    assert rows[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=1e-5)


def test_trainer_finds_where_nan_began(cupy):
    x, target = digits(4)
    net = network()
    net[6].weight.data[...] = 3e38
    trainer = fc.Trainer(net, optim.SGD(net.parameters()), log=None, device="cuda")
    with pytest.raises(FloatingPointError, match=r"it began in layer '6' \(Linear\)"):
        trainer.fit([(x, target)], 1)


def test_optimize(cupy):
    x, _ = digits(2)
    net = network().eval()
    with fc.use_backend("cuda:simt"):
        expected = fc.optimize(net)(x)
    net.cuda()
    fast = fc.optimize(net)
    y = fast(cupy.asarray(x))
    assert isinstance(y, fake_cupy.ndarray) and fast.folded == (("0", "1"),)
    np.testing.assert_allclose(to_host(y), expected, rtol=1e-5, atol=1e-6)
    assert is_on_gpu(net) and is_on_gpu(fast)


def test_several_ranks_refuse_a_gpu(cupy):
    class Two(fc.distributed.SingleProcess):
        size = 2

    with pytest.raises(ValueError, match="parameters or buffers on cuda:0: on GPUs its process_group is a NCCLComm"):
        fc.distributed.DataParallel(nn.Linear(2, 2).cuda(), process_group=Two())


def test_devices_need_what_is_missing_here(monkeypatch):
    if fc.cuda.is_available():
        pytest.skip("nothing is missing here")
    monkeypatch.setattr(fc.cuda, "_kernels", None)
    for move in (lambda: nn.Linear(1, 1).cuda(), lambda: fc.tensor([1.0]).to("cuda:0")):
        with pytest.raises(NotImplementedError, match=r"device 'cuda.*' cannot be computed|device 'cuda"):
            move()
