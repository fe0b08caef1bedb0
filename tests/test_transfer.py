"""Transfer learning: what is frozen costs nothing and stays, heads are replaced, features stand for the body."""

import copy

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv import backend, data, models, optim, transfer


def network(classes=5):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(96, classes),
    )


@pytest.fixture
def net():
    fc.manual_seed(0)
    return network()


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(6, 1, 8, 8)).astype(np.float32)


def trainable(net):
    return [name for name, parameter in net.named_parameters() if parameter.requires_grad]


def test_prefixes(net):
    assert transfer.freeze(net, "0", "1.0.bias") == ["0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias", "1.0.bias"]
    assert trainable(net) == ["1.0.weight", "1.1.weight", "1.1.bias", "3.weight", "3.bias"]
    assert transfer.unfreeze(net, "0.1") == ["0.1.weight", "0.1.bias"]
    transfer.freeze(net)
    assert trainable(net) == []
    assert len(transfer.unfreeze(net)) == len(trainable(net)) == 10
    with pytest.raises(ValueError, match=r"'1\.2'"):
        transfer.freeze(net, "0", "1.2")  # a ReLU has no parameters
    with pytest.raises(ValueError, match="''"):
        transfer.freeze(net, "")
    with pytest.raises(TypeError, match="prefixes"):
        transfer.freeze(net, net[0])
    assert len(trainable(net)) == 10


def test_a_prefix_is_a_whole_name():
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(11)))
    assert transfer.freeze(net, "1") == ["1.weight", "1.bias"]


def step(net, images, optimizer=None):
    optimizer = optimizer or optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    F.cross_entropy(net(fc.tensor(images)), np.arange(len(images)) % 5).backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
def test_frozen_parameters_stay_bit_for_bit(net, images, kind):
    """Neither gradient, momentum nor weight decay moves them, whatever went before."""
    optimizer = kind(net.parameters(), lr=0.1, weight_decay=0.1)
    step(net, images, optimizer)
    before = {name: value.copy() for name, value in net.state_dict().items()}
    F.cross_entropy(net(fc.tensor(images)), np.zeros(6, int)).backward()  # gradients that freezing has to forget
    frozen = transfer.freeze(net, "0", "1")
    step(net, images, optimizer)
    after = net.state_dict()
    moved = [name for name, _ in net.named_parameters() if not np.array_equal(before[name], after[name])]
    assert moved == ["3.weight", "3.bias"] and len(frozen) == 8
    assert all(p.grad is None for name, p in net.named_parameters() if name in frozen)


def test_frozen_layers_cost_nothing_in_the_backward_pass(net, images, monkeypatch):
    module = backend.active(images)
    calls = []

    def counting(name):
        right = getattr(module, name)
        return lambda *args: calls.append(name) or right(*args)

    names = [name for name in dir(module) if name.endswith(("_backward", "_backward_input", "_backward_weight"))]
    assert {"conv_backward_weight", "conv_backward_input", "max_pool_backward", "relu_backward"} <= set(names)
    for name in names:
        monkeypatch.setattr(module, name, counting(name))
    step(net, images)
    assert calls.count("conv_backward_weight") == 2 and calls.count("conv_backward_input") == 1
    calls.clear()
    transfer.freeze(net, "0", "1")
    step(net, images)
    assert not [name for name in calls if not name.startswith("linear")]
    assert not net[1](net[0](fc.tensor(images))).requires_grad  # not even recorded
    calls.clear()
    transfer.unfreeze(net, "1.0")
    step(net, images)
    assert calls.count("conv_backward_weight") == 1 and calls.count("conv_backward_input") == 0


def test_heads():
    net = models.LeNet5()
    net.double().eval()
    assert transfer.replace_head(net, 3) == transfer.find_head(net) == "classifier.5"
    head = net.classifier[5]
    assert head.weight.dtype == np.float64 and not head.training
    assert list(net.state_dict())[-2:] == ["classifier.5.weight", "classifier.5.bias"]
    assert net(np.zeros((2, 1, 28, 28))).shape == (2, 3)
    assert transfer.replace_head(net, nn.Identity(), "classifier") == "classifier"
    assert net(np.zeros((2, 1, 28, 28))).shape == (2, 16, 5, 5)
    bare = nn.Sequential(nn.Linear(4, 2, bias=False))
    transfer.replace_head(bare, 7)
    assert bare[0].bias is None and bare[0].weight.shape == (7, 4)
    assert [name for name, _ in bare.named_children()] == ["0"]


def test_bad_heads(net):
    before = repr(net)
    for arguments, message in (
        ((0,), "head must be at least 1"),
        ((3, "0"), "'0' is Sequential, not Linear"),
        ((3, "9"), "layer must name a layer"),
        ((nn.ReLU(), ""), "inside the model"),
    ):
        with pytest.raises(ValueError, match=message):
            transfer.replace_head(net, *arguments)
    with pytest.raises(TypeError, match="head must be an integer"):
        transfer.replace_head(net, "3")
    with pytest.raises(ValueError, match="no Linear layer"):
        transfer.find_head(net[0])
    assert repr(net) == before


def test_features_are_what_enters_the_head(net, images):
    net.train()
    statistics = net[0][1].running_mean.copy()
    features = transfer.extract_features(net, images, batch_size=4)
    assert net.training and np.array_equal(net[0][1].running_mean, statistics)
    net.eval()
    np.testing.assert_array_equal(features, net[:3](images))
    np.testing.assert_array_equal(transfer.extract_features(net, images, "1"), net[0](images))
    labels = np.arange(6)
    batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    found, kept = transfer.extract_features(net, batches)
    np.testing.assert_array_equal(found, features)
    np.testing.assert_array_equal(kept, labels)
    overwriting = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
    assert transfer.extract_features(overwriting, images, "1").min() < 0
    for arguments, message in (
        ((net, images[:0]), "images must not be empty"),
        ((net, []), "images must not be empty"),
        ((net, images, "none"), "layer must name a layer"),
        ((nn.Sequential(net[0][0], nn.Sequential(*[net[0][2]] * 2)), images, "1.0"), "calls it 2 times"),
    ):
        with pytest.raises(ValueError, match=message):
            transfer.extract_features(*arguments)
    assert not any(layer._forward_hooks for layer in net.modules())


def train(net, images, labels, epochs, lr, seed):
    rng = np.random.default_rng(seed)
    optimizer = optim.Adam([p for p in net.parameters() if p.requires_grad], lr=lr)
    net.train()
    for _ in range(epochs):
        for x, y in data.batches(images, labels, size=32, rng=rng):
            optimizer.zero_grad()
            F.cross_entropy(net(fc.tensor(x)), y).backward()
            optimizer.step()
    net.eval()


def accuracy(net, images, labels):
    return (net(images).argmax(axis=1) == labels).mean()


def transferred(net, images, labels):
    """A new head, trained on the features of the frozen body; then everything but the first block, gently."""
    transfer.freeze(net)
    head = transfer.replace_head(net, 5)
    train(net[3], transfer.extract_features(net, images, head), labels, 60, 1e-2, 1)
    yield net
    transfer.unfreeze(net, "1")
    tail = nn.Sequential(net[1], net[2], net[3])
    train(tail, transfer.extract_features(net, images, "1"), labels, 20, 1e-3, 2)
    yield net


def test_digits_learnt_from_other_digits():
    """Trained on 0 to 4: the body serves for 5 to 9, and helps most where there are only three images of each."""
    pytest.importorskip("sklearn")
    digits = data.load_digits()
    old = digits.train_labels < 5
    fc.manual_seed(0)
    body = network()
    train(body, digits.train_images[old], digits.train_labels[old], 6, 3e-3, 0)
    images, labels = digits.train_images[~old], digits.train_labels[~old] - 5
    new = digits.test_labels >= 5
    test = digits.test_images[new], digits.test_labels[new] - 5

    rates = [accuracy(net, *test) for net in transferred(copy.deepcopy(body), images, labels)]
    assert rates[0] > 0.93 and rates[1] > max(rates[0], 0.97)

    means = np.zeros(4)
    for draw in range(4):
        shots = np.concatenate([np.flatnonzero(labels == k)[3 * draw : 3 * draw + 3] for k in range(5)])
        few = images[shots], labels[shots]
        net = copy.deepcopy(body)
        rates = [accuracy(net, *test) for net in transferred(net, *few)]
        for path, value in body.state_dict().items():  # the first block stays as it was, its statistics included
            assert np.array_equal(net.state_dict()[path], value) == path.startswith("0."), path
        fc.manual_seed(draw)
        untrained, scratch = network(), network()
        train(scratch, *few, 20, 3e-3, 1)
        random_features = next(transferred(untrained, *few))
        means += np.array([*rates, accuracy(random_features, *test), accuracy(scratch, *test)]) / 4
    features, tuned, random, alone = means
    assert features > 0.7 and tuned > 0.7
    assert min(features, tuned) > alone + 0.03 and alone > random
