"""optimize: functions and operators in a forward, reading outside the tape, other ways than the recorded one, hooks."""

import copy
import pickle

import numpy as np
import pytest
from test_optimize import image, settled

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.fusion import Absorbed
from fastconv.models.residual import Add


class Peeking(nn.Module):
    """Reads values where the tape does not see it."""

    def __init__(self, peek):
        super().__init__()
        self.conv, self.norm, self.relu, self.peek = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), peek

    def forward(self, x):
        y = self.conv(x)
        z = self.norm(self.peek(y))
        return self.relu(z) + 10 * self.peek(y)


@pytest.mark.parametrize(
    "peek",
    [
        lambda y: y.detach(),
        lambda y: fc.tensor(y.data),
        lambda y: fc.tensor(y.numpy()),
        lambda y: F.dropout(y, 0.5, training=False),
        lambda y: y.contiguous(),
    ],
)
def test_what_is_read_outside_the_tape_stays(peek):
    net = settled(Peeking(peek))
    x = image(2, 3, 6, 6)
    fast = fc.optimize(net)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)
    assert fast.folded == ()


def test_a_dropout_between_that_hands_on_its_input_hides_the_normalisation_only():
    class Between(Peeking):
        def forward(self, x):
            return self.relu(self.norm(F.dropout(self.conv(x), 0.5, training=self.training)))

    net = settled(Between(None))
    x = image(2, 3, 6, 6)
    fast = fc.optimize(net, x.shape)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)


def test_a_forward_that_differs_every_time_is_refused_every_time():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.calls = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), 0

        def forward(self, x):
            self.calls += 1
            return self.norm(self.conv(x)) + self.calls

    net = settled(Counting())
    x = image(1, 3, 6, 6)
    fast = fc.optimize(net)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cannot optimize this model: its outputs change by .* where they reach"):
            fast(x)
    assert isinstance(fast.model.norm, nn.BatchNorm2d)
    with pytest.raises(ValueError, match="cannot optimize"):
        fc.optimize(net, x.shape)


class Branching(nn.Module):
    """Goes another way for images of more than 8 pixels."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()
        self.next, self.add, self.way = nn.Conv2d(3, 3, 1), Add(), way

    def forward(self, x):
        if x.shape[-1] <= 8:
            return self.add(self.next(self.relu(self.norm(self.conv(x)))), x)
        return self.way(self, x)


@pytest.mark.parametrize(
    "way",
    [
        lambda net, x: net.conv(x),
        lambda net, x: net.relu(net.conv(x)),
        lambda net, x: net.norm(x),
        lambda net, x: net.next(net.conv(x)),
        lambda net, x: net.next(x),
        lambda net, x: net.add(x, net.next(net.relu(x))),
        lambda net, x: net.norm(net.conv(x)) + 1,
        lambda net, x: 1 + net.norm(net.conv(x)),
        lambda net, x: x + net.norm(net.conv(x)),
        lambda net, x: F.relu(net.norm(net.conv(x))),
        lambda net, x: F.max_pool2d(net.conv(x), 2),
        lambda net, x: net.conv(x).mean(),
        lambda net, x: net.conv(x) == 0,
        lambda net, x: net.conv(x) != x,
        lambda net, x: net.conv(x)[:, 1:],
        lambda net, x: fc.cat([net.conv(x), x]),
        lambda net, x: F.softmax(net.conv(x), dim=1),
        lambda net, x: [x, {"y": net.conv(x)}],
    ],
)
def test_another_way_than_the_recorded_one_is_an_error_and_no_other_value(way):
    net = settled(Branching(way))
    x, other = image(2, 3, 8, 8), image(2, 3, 9, 9)
    fast = fc.optimize(net, x.shape)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)
    for input in (other, fc.tensor(other), fc.tensor(other, requires_grad=True)):
        with pytest.raises(ValueError, match="forward goes another way than in the pass that optimize recorded"):
            fast(input)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)
    # A model for that way.
    if not isinstance(net(other), list):
        np.testing.assert_allclose(fc.optimize(net, other.shape)(other), net(other), rtol=1e-5, atol=1e-5)


def test_other_ways_that_need_nothing_else_are_right():
    def twice(net, x):
        y = net.norm(net.conv(x))
        assert (y.shape, y.ndim, y.dtype) == (x.shape, 4, np.float32)
        return net.add(net.next(net.relu(y)), net.next(net.relu(net.norm(net.conv(x[:, :, 1:, 1:]))))[:, :, :1, :1])

    net = settled(Branching(twice))
    fast = fc.optimize(net, (1, 3, 8, 8))
    other = image(2, 3, 9, 9)
    with pytest.raises(ValueError, match="another way"):  # the second output of `next` waits for `add`
        fast(other)
    net.way = fast.model.way = lambda net, x: net.add(net.next(net.relu(net.norm(net.conv(x)))), x[:, :1, :1, :1])
    np.testing.assert_allclose(fast(other), net(other), rtol=1e-5, atol=1e-5)


class Functional(nn.Module):
    """A residual block as torch's users write it, with `relu` and a sum by `plus`."""

    def __init__(self, relu, plus):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.relu, self.plus = relu, plus

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.plus(self.bn2(self.conv2(y)), x))


def add_into(y, x):
    y += x
    return y


@pytest.mark.parametrize("relu", [F.relu, fc.relu, lambda y: y.relu(), nn.ReLU(), lambda y: F.relu(y, inplace=True)])
@pytest.mark.parametrize("plus", [lambda y, x: y + x, lambda y, x: x + y, add_into])
def test_functions_and_operators_of_a_forward_are_fused_too(relu, plus):
    net = settled(Functional(relu, plus))
    x = 3 * image(2, 3, 8, 8)
    fast = fc.optimize(net, (1, 3, 8, 8))
    for activation in ("relu", "conv1 relu"):
        if activation == ("relu" if isinstance(relu, nn.ReLU) else "conv1 relu"):
            assert ("conv1", activation) in fast.fused
    assert ("conv2", "conv2 +") in fast.fused and len(fast.fused) == 3 and len(fast.folded) == 2
    for each in (fast, copy.deepcopy(fast)):
        np.testing.assert_allclose(each(x), net(x), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(each(fc.tensor(x)).numpy(), net(x), rtol=1e-5, atol=1e-5)
    gradients = []
    for each in (net, fast):
        t = fc.tensor(x, requires_grad=True)
        each(t).sum().backward()
        gradients.append(t.grad)
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)
    (row,) = [row for row in fc.explain(fast, x.shape).rows if row.name == "model.conv2"]
    assert row.layer == "Conv2d + Add" and row.output_shape == x.shape
    for layer in (fast.model.conv2, fast.model.bn2):
        layer.register_forward_hook(lambda module, inputs, y: y)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "relu, plus",
    [
        (lambda y: y.clamp(min=0), lambda y, x: y - -x),
        (lambda y: y.maximum(0 * y), lambda y, x: y.add(x)),
        (lambda y: y.abs() + 1, lambda y, x: y + x[:, :1]),
        (lambda y: F.hardtanh(y, 0, 1e9), lambda y, x: fc.stack([y, x]).sum(0)),
    ],
)
def test_functions_that_compute_the_same_in_another_way_stay(relu, plus):
    net = settled(Functional(relu, plus))
    x = 3 * image(2, 3, 8, 8)
    fast = fc.optimize(net, (1, 3, 8, 8))
    assert fast.fused == ()
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "relu, plus",
    [
        (F.relu, lambda y, x: y - x if x.shape[-1] > 8 else y + x),
        (F.relu, lambda y, x: y if x.shape[-1] > 8 else y + x),
        (lambda y: y + 1 if y.shape[-1] > 8 else F.relu(y), lambda y, x: y + x),
        (lambda y: y if y.shape[-1] > 8 else y.relu(), lambda y, x: y + x),
        (lambda y: F.gelu(y) if y.shape[-1] > 8 else y.relu(), lambda y, x: y + x),
    ],
)
def test_operators_that_change_are_errors(relu, plus):
    net = settled(Functional(relu, plus))
    fast = fc.optimize(net, (1, 3, 8, 8))
    assert len(fast.fused) == 3
    for input in (image(1, 3, 9, 9), fc.tensor(image(1, 3, 9, 9))):
        with pytest.raises(ValueError, match="forward goes another way"):
            fast(input)


def test_hooks_in_an_optimised_network_see_and_change_arrays():
    net = settled(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8)))
    fast = fc.optimize(net, (1, 3, 8, 8))
    assert fast.chained == (("0", "3"),) and isinstance(fast.model[1], Absorbed)
    x = image(2, 3, 8, 8)
    expected, seen = fast(x), []
    handles = [layer.register_forward_hook(lambda m, inputs, y: seen.append((inputs[0], y))) for layer in fast.model]
    handles += [layer.register_forward_pre_hook(lambda m, inputs: (1 * inputs[0],)) for layer in fast.model]
    np.testing.assert_allclose(fast(x), expected, rtol=1e-5, atol=1e-6)
    assert all(type(array) is np.ndarray for pair in seen for array in pair)
    np.testing.assert_allclose(seen[0][1], F.relu(net[1](net[0](x))), rtol=1e-5, atol=1e-6)
    fast.model[1].register_forward_hook(lambda module, inputs, y: 2 * y)
    np.testing.assert_allclose(fast(x), net[3](2 * seen[0][1]), rtol=1e-5, atol=1e-5)
    for handle in handles:
        handle.remove()


def test_gradients_at_the_layers_of_an_optimised_network():
    net = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)))
    fast = fc.optimize(net, (1, 3, 8, 8))
    seen = {}
    for layer in (fast.model[0], fast.model[1], net[3]):
        layer.register_full_backward_hook(lambda module, before, after: seen.update({module: (before, after)}))
    x = image(2, 3, 8, 8)
    for each in (net, fast):
        t = fc.tensor(x, requires_grad=True)
        each(t).sum().backward()
    np.testing.assert_allclose(seen[fast.model[0]][0][0], t.grad, rtol=1e-5, atol=1e-6)
    # What stands for the normalisation hands on what ReLU gave.
    np.testing.assert_allclose(seen[fast.model[1]][0][0], seen[net[3]][0][0], rtol=1e-4, atol=1e-5)


def test_a_comparison_by_the_recorded_way_is_a_reader():
    class Comparing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)

        def forward(self, x):
            y = self.conv(x)
            return F.relu(y) + 1 * (y == 0)

    net, x = Comparing().eval(), np.zeros((1, 1, 4, 4), np.float32)
    np.testing.assert_array_equal(fc.optimize(net, x.shape)(x), np.ones_like(x))


class Hard(nn.ReLU6):
    def forward(self, x):
        return super().forward(x + 3) / 6


class Doubled(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("layers", [[Hard()], [Doubled(3)], [nn.BatchNorm2d(3), Hard()]])
def test_layers_with_a_forward_of_their_own_stay(layers):
    net = settled(nn.Sequential(nn.Conv2d(3, 3, 1), *layers))
    x = image(2, 3, 4, 4)
    fast = fc.optimize(net)
    assert fast(x[:0]).shape == (0, 3, 4, 4)  # what is found out on no image holds for images
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)
    assert len(fast.folded) == len(layers) - 1 and fast.fused == ()


def test_a_forward_that_reads_weights_is_left_as_it_is():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            return F.conv_transpose2d(F.relu(self.norm(self.conv(x))), self.conv.weight)

    net, x = settled(Tied()), image(2, 3, 8, 8)
    fast = fc.optimize(net, x.shape)
    assert fast.folded == fast.fused == ()
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-5)


def test_hooks_of_containers_see_what_they_saw():
    net = settled(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.ReLU(), nn.Conv2d(4, 4, 1)))
    seen = []
    net[0].register_forward_hook(lambda module, inputs, y: seen.append(y))
    x = image(2, 3, 8, 8)
    fast = fc.optimize(net, x.shape)
    seen.clear()
    for each in (net, fast):
        each(x)
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-5, atol=1e-5)
    assert fast.folded == (("0.0", "0.1"),) and fast.fused == () and (seen[1] < 0).any()


class Arguments(nn.Module):
    """Words, a number, a dictionary and an option; gives an array that no tape knows, too."""

    def __init__(self):
        super().__init__()
        self.words, self.linear, self.norm = nn.Embedding(10, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, words, times, more, scale=1.0):
        y = self.norm(self.linear(self.words(words).mean(1)))
        for _ in range(times):
            y = y + more["y"]
        return scale * y, np.arange(times)


def test_arguments_of_all_kinds():
    net = settled(Arguments())
    words, more = np.arange(6).reshape(2, 3), {"y": image(2, 4)}
    fast = fc.optimize(net)
    for _ in range(2):
        expected, numbers = net(words, 2, more, scale=0.5)
        y, same = fast(words, 2, more, scale=0.5)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(numbers, same)
    assert fast.folded == (("linear", "norm"),)


def test_rectifiers_of_an_optimised_network_are_seen():
    from fastconv import visualize

    net = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU6(), nn.Flatten()))
    x = image(1, 3, 8, 8)
    fast = fc.optimize(net, x.shape)
    for function in (visualize.guided_backprop, visualize.deconvnet, visualize.saliency):
        np.testing.assert_allclose(function(fast, x), function(net, x), rtol=1e-4, atol=1e-5)


def test_the_error_can_be_copied():
    net = settled(Branching(lambda net, x: net.conv(x)))
    fast = fc.optimize(net, (1, 3, 8, 8))
    with pytest.raises(ValueError) as caught:
        fast(image(1, 3, 9, 9))
    for error in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert str(error) == str(caught.value)
