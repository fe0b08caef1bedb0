"""optimize: random networks of layers, functions and operators, whose forward may go another way for larger images."""

import random

import numpy as np
from test_optimize import settled

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.models.residual import Add

C = 4

LAYERS = {
    "conv": lambda rng: nn.Conv2d(C, C, rng.choice([1, 3]), padding="same", bias=rng.random() < 0.5),
    "depthwise": lambda rng: nn.Conv2d(C, C, 3, padding=1, groups=C),
    "norm": lambda rng: nn.BatchNorm2d(C),
    "activation": lambda rng: rng.choice([nn.ReLU, nn.ReLU6, nn.Hardtanh])(),
    "sum": lambda rng: Add(),
    "pool": lambda rng: nn.MaxPool2d(3, 1, 1),
    "dropout": lambda rng: nn.Dropout(0.3),
    "block": lambda rng: nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), nn.ReLU()),
    "joined": lambda rng: nn.Conv2d(2 * C, C, 1),
}
CALLS = {
    "sum": lambda layer, p, q: layer(p, q),
    "joined": lambda layer, p, q: layer(fc.cat([p, q], 1)),
    "+": lambda layer, p, q: p + q,
    "relu": lambda layer, p, q: F.relu(p),
    "Tensor.relu": lambda layer, p, q: p.relu(),
    "dropped": lambda layer, p, q: F.dropout(p, 0.5, training=False),
    "limited": lambda layer, p, q: F.hardtanh(p, -2, 2),
    "detached": lambda layer, p, q: p.detach() + q,
    "scaled": lambda layer, p, q: p * 0.5,
    "view": lambda layer, p, q: p.reshape(p.shape),
}
STEPS = [*sorted({*LAYERS, *CALLS} | {"shared"}), "conv", "conv", "norm", "activation", "shared", "+"]


class Random(nn.Module):
    """Steps (kind, operand, operand, layer) on the values so far, by `other` for images of more than 8 pixels."""

    def __init__(self, rng):
        super().__init__()
        self.shared = nn.ReLU()
        self.steps = []
        for i in range(rng.randrange(3, 14)):
            kind, name = rng.choice(STEPS), f"layer{i}"
            earlier = [step[3] for step in self.steps if step[0] == kind]
            if earlier and rng.random() < 0.15:
                name = rng.choice(earlier)
            elif kind in LAYERS:
                self.add_module(name, LAYERS[kind](rng))
            self.steps.append((kind, rng.randrange(max(0, i - 2), i + 1), rng.randrange(i + 1), name))
        self.other = list(self.steps)
        for _ in range(rng.randrange(3)):
            i = rng.randrange(len(self.steps))
            kind, p, q, name = self.steps[i]
            change = rng.choice(["operand", "scaled", "+", "relu"])
            self.other[i] = (kind, rng.randrange(i + 1), q, name) if change == "operand" else (change, p, q, name)

    def forward(self, x):
        values = [x]
        for kind, i, j, name in self.steps if x.shape[-1] <= 8 else self.other:
            layer = self.shared if kind == "shared" else self._modules.get(name)
            call = CALLS.get(kind, lambda layer, p, q: layer(p))
            values.append(call(layer, values[i], values[j]))
        return values[-1], values[-2]


def assert_same(fast, net, x):
    for y, expected in zip(fast(x), net(x), strict=True):
        y, expected = (value.numpy() if isinstance(value, fc.Tensor) else value for value in (y, expected))
        assert type(y) is np.ndarray and y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=0, atol=2e-4 * max(np.abs(expected).max(), 1e-3))


def test_random_networks_give_their_results_or_an_error():
    changed = fused = 0
    for seed in range(400):
        fc.manual_seed(seed)
        net = settled(Random(random.Random(seed)), seed)
        fast = fc.optimize(net, (1, C, 8, 8))
        fused += len(fast.fused) + len(fast.folded)
        rng = np.random.default_rng(seed)
        x, larger = (rng.standard_normal((2, C, n, n), np.float32) for n in (8, 9))
        for input in (x, x[:1], fc.tensor(x)):
            assert_same(fast, net, input)
        for input in (larger, fc.tensor(larger)):
            try:
                assert_same(fast, net, input)
            except ValueError as error:
                assert "forward goes another way" in str(error) and net.other != net.steps
                changed += 1
    assert fused > 200 and changed > 10
