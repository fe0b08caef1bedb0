"""Programs written for torch train after changing only their imports, and as torch trains them."""

import types

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv import optim
from fastconv.models import LeNet5


def _define(nn, F, flatten):
    """A user's class; the arguments are what its imports would be."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.conv2 = nn.Conv2d(4, 8, 3)
            self.drop = nn.Dropout(0.0)
            self.fc1 = nn.Linear(8, 16)
            self.fc2 = nn.Linear(16, 3)
            self.gain = nn.Parameter(self.fc2.bias.data * 0 + 1)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)
            x = F.relu(self.conv2(x))
            x = flatten(F.adaptive_avg_pool2d(x, 1), 1)
            x = x.view(x.size(0), -1)
            x = self.drop(F.relu(self.fc1(x)))
            return F.log_softmax(self.fc2(x) * self.gain, dim=1)

    return Net


def _images():
    """Three classes: a horizontal bar, a vertical bar, a block; with noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 48)
    images = rng.normal(scale=0.3, size=(48, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        row, column = rng.integers(1, 5, 2)
        part = (slice(row, row + 1), slice(None)), (slice(None), slice(column, column + 1)), (slice(2, 6), slice(2, 6))
        image[0][part[label]] += 2
    return images.astype(np.float32), labels


def _train(net, F, optimizer, x, y, steps):
    losses = []
    for step in range(steps):
        chosen = slice(step % 3 * 16, step % 3 * 16 + 16)
        optimizer.zero_grad()
        loss = F.nll_loss(net(x[chosen]), y[chosen])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name, options", [("SGD", {"lr": 0.05, "momentum": 0.9}), ("Adam", {"lr": 0.01})])
def test_a_torch_program_trains_along_torchs_curve(torch, name, options):
    images, labels = _images()
    torch.manual_seed(0)
    theirs = _define(torch.nn, torch.nn.functional, torch.flatten)()
    ours = _define(nn, F, fc.flatten)()
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    expected = _train(
        theirs,
        torch.nn.functional,
        getattr(torch.optim, name)(theirs.parameters(), **options),
        torch.tensor(images),
        torch.tensor(labels),
        24,
    )
    losses = _train(ours, F, getattr(optim, name)(ours.parameters(), **options), fc.tensor(images), labels, 24)
    # Rounding differs and training amplifies it: the first steps agree closely, the last ones to the eye.
    np.testing.assert_allclose(losses[:6], expected[:6], rtol=1e-4)
    np.testing.assert_allclose(losses, expected, rtol=0.05, atol=0.02)
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    ours.eval()
    theirs.eval()
    guesses = ours(images).argmax(1)  # a plain array: x.view(x.size(0), -1) must work for it, too
    assert type(guesses) is np.ndarray
    assert (guesses == theirs(torch.tensor(images)).argmax(1).numpy()).mean() > 0.95


def test_backends_agree_on_a_step(backend):
    """The gradients of a whole network, in float64, from every backend against the reference."""
    images, labels = _images()
    fc.manual_seed(1)
    net = _define(nn, F, fc.flatten)().double()

    def gradients():
        net.zero_grad()
        F.nll_loss(net(fc.tensor(images.astype(np.float64))), labels).backward()
        return [p.grad for p in net.parameters()]

    ours = gradients()
    with fc.use_backend("reference"):
        expected = gradients()
    for gradient, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-8, atol=1e-10)


def test_dropout_layers_follow_the_mode():
    fc.manual_seed(2)
    x = np.ones((4, 8, 5, 5), np.float32)
    for layer in (nn.Dropout(0.25), nn.Dropout2d(0.25)):
        y = layer(x)
        kept = y != 0
        assert 0.4 < kept.mean() < 0.99
        np.testing.assert_allclose(y[kept], 1 / 0.75, rtol=1e-6)
        np.testing.assert_array_equal(layer.eval()(x), x)
    whole = nn.Dropout2d(0.5)(x)
    np.testing.assert_array_equal(whole, np.broadcast_to(whole[:, :, :1, :1], x.shape))


def test_inplace_layers_write_arrays_and_spare_tensors():
    for make in (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh):
        x = np.array([-2.0, 0.5, 9.0], np.float32)
        expected = make()(x)
        assert make(inplace=True)(x) is x
        np.testing.assert_array_equal(x, expected)
        tensor = fc.tensor([-2.0, 0.5, 9.0], requires_grad=True)
        make(inplace=True)(tensor).sum().backward()
        assert tensor.data.tolist() == [-2.0, 0.5, 9.0] and tensor.grad is not None


def test_lenet_learns_and_checks_its_arguments():
    fc.manual_seed(0)
    images, labels = _images()
    padded = np.pad(images, ((0, 0), (0, 0), (12, 12), (12, 12)))
    net = LeNet5(num_classes=3, image_size=32)
    optimizer = optim.Adam(net.parameters(), lr=3e-3)
    losses = _train(net, types.SimpleNamespace(nll_loss=F.cross_entropy), optimizer, fc.tensor(padded), labels, 15)
    assert losses[-1] < 0.5 * losses[0]
    assert [p.shape for p in LeNet5().parameters()][:2] == [(6, 1, 5, 5), (6,)]
    classic = LeNet5(activation="tanh", pooling="avg", in_channels=3)
    assert classic(np.zeros((2, 3, 28, 28), np.float32)).shape == (2, 10)
    for options in ({"image_size": 30}, {"activation": "sine"}, {"pooling": "sum"}, {"num_classes": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            LeNet5(**options)
