"""explain(model, shape): every call of every layer with its work, time and receptive field."""

import json

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
from fastconv import models
from fastconv.cli import main


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Two passes are enough to see that times are there."""
    monkeypatch.setattr("fastconv.model_explanation._RUNS", 2)


def test_rows_of_lenet():
    net = models.LeNet5()
    report = fc.explain(net, (2, 1, 28, 28))
    assert [(row.name, row.layer) for row in report.rows][:3] == [
        ("features.0", "Conv2d"),
        ("features.1", "ReLU"),
        ("features.2", "MaxPool2d"),
    ]
    conv, relu, pool = report.rows[:3]
    assert conv.flops == 2 * (2 * 6 * 28 * 28) * 25 and relu.flops == 2 * 6 * 28 * 28
    assert pool.flops == 2 * 6 * 14 * 14 * 4
    assert conv.bytes == 4 * (2 * 28 * 28 + 6 * 25 + 6 + 2 * 6 * 28 * 28) and relu.bytes == 2 * 4 * 2 * 6 * 28 * 28
    assert conv.output_shape == (2, 6, 28, 28)
    assert [row.receptive_field for row in report.rows[:4]] == [(5, 5), (5, 5), (6, 6), (14, 14)]
    flatten = next(row for row in report.rows if row.layer == "Flatten")
    assert flatten.flops == flatten.bytes == 0
    macs = net.summary((2, 1, 28, 28)).macs
    assert sum(row.flops for row in report.rows if row.layer in ("Conv2d", "Linear")) == 2 * macs
    assert report.flops == sum(row.flops for row in report.rows) and report.input_shape == (2, 1, 28, 28)
    assert 0 < sum(row.measured_ms for row in report.rows) <= report.measured_ms * 5
    assert all(row.bound_ms >= 0 and row.bound_by in ("compute", "memory") for row in report.rows)


def test_table_and_dictionary():
    report = fc.explain(models.ResNet(models.BasicBlock, (1,), 5, 3, width=4), [1, 3, 32, 32])
    text = str(report)
    for part in ("input 1x3x32x32", "layer1.0.add (Add)", "bn1 (BatchNorm2d)", "between the layers", "7x7", "measured"):
        assert part in text
    lines = text.splitlines()
    assert lines[2].split()[:4] == ["layer", "output", "FLOP", "bytes"] and lines[-1].startswith("all ")
    values = json.loads(json.dumps(report.as_dict()))
    assert values["flops"] == report.flops and values["rows"][0]["name"] == "conv1"
    # A layer that is called twice has two rows.
    assert [row.name for row in report.rows].count("layer1.0.relu") == 2


@pytest.mark.parametrize(
    "net, shape, flops",
    [
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2)), (2, 3, 5, 5), 2 * (2 * 3 * 25) * (4 * 4)),
        (nn.Sequential(nn.BatchNorm1d(3)), (2, 3, 5), 2 * 30),
        (nn.Sequential(nn.InstanceNorm2d(3)), (2, 3, 5, 5), 6 * 150),
        (nn.Sequential(nn.LocalResponseNorm(5)), (2, 3, 5, 5), 150 * 9),
        (nn.Sequential(nn.AdaptiveAvgPool2d(2)), (2, 3, 5, 5), 150),
        (nn.Sequential(nn.LPPool2d(2, 2)), (2, 3, 4, 4), 2 * 24 * 4),
        (nn.Sequential(nn.PReLU()), (2, 3), 6),
        (nn.Sequential(nn.LSTM(3, 5)), (7, 2, 3), 2 * 14 * (4 * 5 * 3 + 4 * 5 * 5)),
    ],
)
def test_operations_of_other_layers(net, shape, flops):
    assert fc.explain(net, shape).rows[0].flops == flops


def test_leaves_the_model_as_it_was():
    net = models.ResNet(models.BasicBlock, (1,), 5, 3, width=4)
    net.conv1.weight.requires_grad = False
    before = {key: value.copy() for key, value in net.state_dict().items()}
    fc.explain(net, (2, 3, 16, 16))
    assert all(module.training for module in net.modules())
    assert not any("forward" in module.__dict__ or module._forward_hooks for module in net.modules())
    assert not net.conv1.weight.requires_grad and net.fc.weight.requires_grad and net.fc.weight.grad is None
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    with pytest.raises(ValueError, match="channels"):
        fc.explain(net, (2, 4, 16, 16))
    assert not any("forward" in module.__dict__ for module in net.modules()) and net.training


@pytest.mark.parametrize("block", [models.BasicBlock, models.Bottleneck])
@pytest.mark.parametrize("prepared", [False, True])
def test_optimized_networks_have_fewer_layers(block, prepared):
    net = models.ResNet(block, (1, 1), 5, 3, width=4)
    optimized = fc.optimize(net, (1, 3, 32, 32) if prepared else None)
    before, after = (fc.explain(each, (1, 3, 32, 32)) for each in (net, optimized))
    assert {row.layer for row in before.rows} >= {"Conv2d", "BatchNorm2d", "ReLU", "Add"}
    assert {row.layer for row in after.rows} == {"Conv2d", "Conv2d + Add", "MaxPool2d", "AdaptiveAvgPool2d", "Linear"}
    convolutions = [[row for row in report.rows if row.layer.startswith("Conv2d")] for report in (before, after)]
    plain, fused = ({row.name.removeprefix("model."): row for row in rows} for rows in convolutions)
    assert sorted(plain) == sorted(fused)
    for name, row in fused.items():
        added = np.prod(row.output_shape) if row.layer == "Conv2d + Add" else 0
        assert row.flops == plain[name].flops + added
        assert row.bytes == plain[name].bytes + 4 * (row.output_shape[1] + added)  # the bias, the other summand
        assert (row.output_shape, row.receptive_field) == (plain[name].output_shape, plain[name].receptive_field)


def test_vectors_have_no_receptive_field():
    report = fc.explain(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), (5, 4))
    assert [row.receptive_field for row in report.rows] == [None, None]
    assert "  -" in str(report)


def test_bad_arguments():
    net = models.LeNet5()
    for arguments in ((net,), (net, (1, 1, 28, 28), 3), (net, np.zeros((1, 1, 28, 28), np.float32))):
        with pytest.raises(TypeError, match="explain takes a Module and the shape of its input"):
            fc.explain(*arguments)
    with pytest.raises(TypeError, match="explain takes a Module and the shape"):
        fc.explain(net, (1, 1, 28, 28), stride=2)
    with pytest.raises(ValueError, match="shape must be at least 1, got 0"):
        fc.explain(net, (0, 1, 28, 28))


def test_command(capsys):
    assert main(["models", "lenet5", "--explain", "--batch-size", "2", "--optimize"]) == 0
    out = capsys.readouterr().out
    assert "input 2x1x28x28" in out and "model.features.0 (Conv2d)" in out and "between the layers" in out
    assert main(["models", "lenet5", "--explain", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["name"] == "lenet5" and report["input_shape"] == [1, 1, 28, 28] and report["rows"][0]["flops"]
    assert main(["models", "--explain"]) == 2
    assert "--explain needs the NAME of one network" in capsys.readouterr().err
    assert main(["models", "lenet5", "--explain", "--batch-size", "0"]) == 2


class Siamese(nn.Module):
    """Two inputs of different shapes."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 1), nn.ReLU()

    def forward(self, x, y):
        return self.relu(self.left(x) + self.right(y))


@pytest.mark.parametrize("kind", [list, tuple])
def test_networks_of_several_inputs(kind):
    net, shapes = Siamese().eval(), [(2, 3, 8, 9), (2, 3, 6, 7)]
    report = fc.explain(net, kind(shapes))
    assert report.input_shape == tuple(shapes) and "2x3x8x9 and 2x3x6x7" in str(report)
    assert [(row.name, row.output_shape) for row in report.rows] == [
        (name, (2, 4, 6, 7)) for name in ("left", "right", "relu")
    ]
    assert all(row.receptive_field is None for row in report.rows)
    summary = net.summary(kind(shapes))
    assert [row.output_shape for row in summary.rows] == [(2, 4, 6, 7)] * 3 and summary.parameters == 112 + 16
    fast = fc.optimize(net, kind(shapes))
    assert fast.fused == (("left", "left +"), ("left +", "relu"))
    x, y = (np.random.default_rng(0).standard_normal(shape, np.float32) for shape in shapes)
    np.testing.assert_allclose(fast(x, y), net(x, y), rtol=1e-5, atol=1e-5)
    for call in (net.summary, lambda shapes: fc.explain(net, shapes), lambda shapes: fc.optimize(net, shapes)):
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            call(shapes[0])
        with pytest.raises(TypeError, match="shape must be an integer, got"):
            call([shapes[0], 3])
