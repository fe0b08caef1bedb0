"""Activations and attributions: against torch, against closed forms, and with what must be left as it was."""

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv import visualize
from fastconv.testing import assert_bound


def close(result, expected):
    """Equal up to the rounding of sums of up to about a thousand float32 terms."""
    scale = np.abs(expected).max()
    assert result.shape == expected.shape and scale > 0
    assert_bound(result, expected, scale, 1000)


def small_net(library=nn):
    return library.Sequential(
        library.Conv2d(3, 6, 3, padding=1),
        library.ReLU(),
        library.MaxPool2d(2),
        library.Conv2d(6, 8, 3),
        library.ReLU(),
        library.MaxPool2d(3, stride=2),
        library.Flatten(),
        library.Linear(32, 5),
    )


@pytest.fixture
def net():
    fc.manual_seed(3)
    net = small_net()
    net[7].weight.data *= 8  # so that the images of these tests belong to more than one class
    return net


@pytest.fixture
def images():
    return np.random.default_rng(5).normal(size=(4, 3, 16, 16)).astype(np.float32)


@pytest.fixture
def twin(net, torch):
    other = small_net(torch.nn)
    other.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in net.state_dict().items()})
    return other.eval()


def torch_gradient(torch, twin, images, target):
    x = torch.from_numpy(images).requires_grad_()
    twin(x)[torch.arange(len(x)), torch.as_tensor(target)].sum().backward()
    return x.grad.numpy()


TARGETS = [2, [0, 4, 1, 1]]


@pytest.mark.parametrize("target", TARGETS)
def test_saliency_is_torchs_gradient(torch, net, twin, images, target):
    expected = torch_gradient(torch, twin, images, target if isinstance(target, list) else [target] * 4)
    close(visualize.input_gradient(net, images, target), expected)
    close(visualize.saliency(net, images, target), np.abs(expected).max(axis=1))


def test_no_target_means_the_strongest_class(net, images):
    best = net(images).argmax(axis=1)
    assert len(set(best)) > 1
    np.testing.assert_array_equal(visualize.saliency(net, images), visualize.saliency(net, images, best))


def test_target_may_be_a_function(net, images):
    difference = visualize.input_gradient(net, images, lambda y: y[:, 1] - y[:, 3])
    close(difference, visualize.input_gradient(net, images, 1) - visualize.input_gradient(net, images, 3))


def rectifying_hook(torch, rule):
    """What torch's users hang on their ReLUs."""
    if rule == "guided_backprop":
        return lambda module, grad_in, grad_out: (torch.clamp(grad_in[0], min=0),)
    return lambda module, grad_in, grad_out: (torch.clamp(grad_out[0], min=0),)


@pytest.mark.parametrize("rule", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize("target", TARGETS)
def test_rectified_gradients_are_torchs_with_hooks(torch, net, twin, images, rule, target):
    for module in twin.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_full_backward_hook(rectifying_hook(torch, rule))
    expected = torch_gradient(torch, twin, images, target if isinstance(target, list) else [target] * 4)
    result = getattr(visualize, rule)(net, images, target)
    close(result, expected)
    assert not np.allclose(result, visualize.input_gradient(net, images, target))


class Functional(nn.Module):
    """A user's forward: the rectifiers are functions, which hooks on modules would not see."""

    def __init__(self, net):
        super().__init__()
        self.first, self.second, self.head = net[0], net[3], net[7]

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(self.second(x).relu(), 3, stride=2)
        return self.head(x.view(x.size(0), -1))


@pytest.mark.parametrize("rule", ["saliency", "guided_backprop", "deconvnet"])
def test_functional_rectifiers_count(net, images, rule):
    function = getattr(visualize, rule)
    np.testing.assert_array_equal(function(Functional(net), images, 1), function(net, images, 1))


def test_deconvnet_is_unpooling_rectifying_and_transposed_convolution(net, images):
    """The chain of the paper written out for one unit of the second convolution, with windows that do not overlap."""
    image, channel = images[:1], 5
    maps = F.relu(net[0](image))
    pooled, switches = F.max_pool2d(maps, 2, return_indices=True)
    signal = net[3](pooled)
    strongest = np.zeros_like(signal)
    position = np.unravel_index(signal[0, channel].argmax(), signal.shape[2:])
    strongest[0, channel][position] = 1
    back = F.conv_transpose2d(strongest, net[3].weight.data)
    back = F.relu(F.max_unpool2d(back, switches, 2))
    expected = F.conv_transpose2d(back, net[0].weight.data, padding=1)
    close(visualize.deconvnet(net, image, channel, layer="3"), expected)


def test_deconvnet_by_hand():
    """One filter (1, -1), ReLU, pooling over two: the switch is at the second difference, 5 - 1."""
    net = nn.Sequential(nn.Conv2d(1, 1, (1, 2), bias=False), nn.ReLU(), nn.MaxPool2d((1, 2)))
    net[0].weight.data[:] = [[[[1, -1]]]]
    image = np.array([[[[3, 5, 1]]]], np.float32)
    np.testing.assert_array_equal(net(image), [[[[4]]]])
    np.testing.assert_array_equal(visualize.deconvnet(net, image, 0), [[[[0, 1, -1]]]])
    # The gradient that arrives at the ReLU is what deconvnet rectifies; a negative one ends there.
    tail = nn.Sequential(*net, nn.Flatten(), nn.Linear(1, 1, bias=False))
    tail[4].weight.data[:] = -2
    np.testing.assert_array_equal(visualize.deconvnet(tail, image, 0), np.zeros_like(image))
    np.testing.assert_array_equal(visualize.input_gradient(tail, image, 0), [[[[0, -2, 2]]]])


def test_grad_cam_is_the_class_activation_map(images):
    fc.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5, bias=False)
    )
    maps = visualize.activations(net, images, "1")
    expected = np.maximum(np.einsum("k,nkpq->npq", net[4].weight.data[2] / 196, maps), 0)
    assert 0 < (expected > 0).mean() < 1
    close(visualize.grad_cam(net, images, "1", 2, upsample=False), expected)
    close(visualize.grad_cam(net, images, "1", 2), visualize.resize(expected, (16, 16)))


def test_grad_cam_finds_the_place():
    """A detector of one bright pixel: the map is bright there and nowhere else."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    net[0].weight.data[:] = [[[[1]]], [[[-1]]]]
    image = np.zeros((1, 1, 6, 6), np.float32)
    image[0, 0, 4, 1] = 9
    expected = np.zeros((1, 6, 6))
    expected[0, 4, 1] = 9 / 36
    np.testing.assert_allclose(visualize.grad_cam(net, image, "1", 0), expected, rtol=1e-6)


def test_grad_cam_is_torchs(torch, net, twin, images):
    kept = {}
    twin[4].register_forward_hook(lambda module, inputs, output: kept.update(maps=output))
    x = torch.from_numpy(images)
    score = twin(x)[:, 3].sum()
    (gradient,) = torch.autograd.grad(score, kept["maps"])
    cam = torch.relu((gradient.mean((2, 3), keepdim=True) * kept["maps"]).sum(1)).detach().numpy()
    close(visualize.grad_cam(net, images, "4", 3, upsample=False), cam)


def test_occlusion_of_a_linear_model_is_its_terms():
    """Covering a window takes away the window's terms of the sum; overlapping windows are averaged."""
    weight = np.random.default_rng(0).integers(-4, 5, (2, 5, 7)).astype(np.float32)
    net = nn.Sequential(nn.Flatten(), nn.Linear(35, 2))
    net[1].weight.data[:] = weight.reshape(2, 35)
    x = np.random.default_rng(1).integers(0, 4, (2, 1, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(visualize.occlusion_map(net, x, 1, window=1), weight[1] * x[:, 0], atol=1e-4)
    result = visualize.occlusion_map(net, x, [0, 1], window=(2, 3), stride=2, batch_size=2)
    expected, count = np.zeros((2, 5, 7)), np.zeros((5, 7))
    for i in (0, 2, 3):  # the last window of a column moves up to end at the border
        for j in (0, 2, 4):
            part = (slice(i, i + 2), slice(j, j + 3))
            count[part] += 1
            for n in (0, 1):
                expected[(n, *part)] += (weight[n] * x[n, 0])[part].sum()
    np.testing.assert_allclose(result, expected / count, atol=1e-4)
    filled = visualize.occlusion_map(net, x, 1, window=1, value=2.0)
    np.testing.assert_allclose(filled, weight[1] * (x[:, 0] - 2), atol=1e-4)


def test_occlusion_with_a_function_and_without_a_target(net, images):
    best = net(images).argmax(axis=1)
    by_default = visualize.occlusion_map(net, images, window=6)
    np.testing.assert_array_equal(by_default, visualize.occlusion_map(net, images, best, window=6))
    np.testing.assert_array_equal(
        visualize.occlusion_map(net, images, lambda y: y[:, 2], window=6),
        visualize.occlusion_map(net, images, 2, window=6),
    )


def test_activations_by_name(net, images):
    found = visualize.activations(net, images)
    assert list(found) == list("01234567")
    x = images
    for name, layer in net.named_children():
        x = layer(x)
        np.testing.assert_array_equal(found[name], x)
    assert list(visualize.activations(net, images, ["5", "2"])) == ["5", "2"]
    np.testing.assert_array_equal(visualize.activations(net, images, ""), net(images))


def test_activations_before_an_inplace_layer_are_kept(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    before, after = visualize.activations(net, images).values()
    assert before.min() < 0 and after.min() == 0


def test_activations_of_a_layer_called_twice_are_the_last():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    shared = nn.Sequential(net, net)
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(visualize.activations(shared, x, "0.0"), net[0](net(x)))


def test_models_are_left_as_they_were(net, images):
    net.append(nn.Dropout(0.5))
    net.train()
    net[0].weight.requires_grad = False
    net[3].weight.grad = kept = np.ones_like(net[3].weight.data)
    before = {name: value.copy() for name, value in net.state_dict().items()}

    def refused(function, argument):
        with pytest.raises(ValueError):
            function(net, images, argument)

    for call in (
        lambda: visualize.saliency(net, images),
        lambda: visualize.deconvnet(net, images, 0, layer="3"),
        lambda: visualize.grad_cam(net, images, "4"),
        lambda: visualize.occlusion_map(net, images, window=6),
        lambda: visualize.activations(net, images),
        lambda: refused(visualize.saliency, 99),
        lambda: refused(visualize.grad_cam, "6"),
    ):
        call()
        assert all(module.training and not module._forward_hooks for module in net.modules())
        assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["0.weight"]
        assert [name for name, p in net.named_parameters() if p.grad is not None] == ["3.weight"]
    assert net[3].weight.grad is kept
    assert all(np.array_equal(before[name], value) for name, value in net.state_dict().items())
    # Guided rules end with their block: an ordinary gradient is ordinary again.
    np.testing.assert_array_equal(F.relu.vjp(np.ones(1))[1](-np.ones(1))[0], [-1])
    x = fc.tensor(np.ones(1), requires_grad=True)
    (-F.relu(x)).sum().backward()
    np.testing.assert_array_equal(x.grad, [-1])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net, x: visualize.activations(net, x, "nothing"), "layer must name a layer of Sequential.*'nothing'"),
        (lambda net, x: visualize.saliency(net, x, 5), "target must be from 0 to 4, got 5"),
        (lambda net, x: visualize.saliency(net, x, [0, 1]), "one unit for each of 4 images"),
        (lambda net, x: visualize.saliency(net, x, 0.5), "target must be"),
        (lambda net, x: visualize.saliency(net, x, lambda y: y), "one score for each of 4 images"),
        (lambda net, x: visualize.saliency(net, x[:0]), "batch of floating values"),
        (lambda net, x: visualize.saliency(net, x.astype(int)), "batch of floating values.*int64"),
        (lambda net, x: visualize.grad_cam(net, x, "7"), r"maps \(N, K, P, Q\), '7' gives shape \(4, 5\)"),
        (lambda net, x: visualize.occlusion_map(net, x, window=17), "window must fit the image of 16 x 16"),
        (lambda net, x: visualize.occlusion_map(net, x, window=0), "window must be at least 1"),
        (lambda net, x: visualize.occlusion_map(net, x, stride=0), "stride must be at least 1"),
        (lambda net, x: visualize.occlusion_map(net, x[:, 0]), r"images \(N, C, H, W\)"),
        (lambda net, x: visualize.resize(x, 0), "size must be at least 1"),
        (lambda net, x: visualize.resize(x[..., :0], 3), "not empty"),
        (lambda net, x: visualize.tile(x[0, 0]), r"images must be \(N, H, W\)"),
        (lambda net, x: visualize.filter_grid(x[0]), "weight must be"),
    ],
)
def test_bad_arguments(net, images, call, message):
    with pytest.raises(ValueError, match=message):
        call(net, images)


def test_arguments_of_the_wrong_kind(net, images):
    with pytest.raises(TypeError, match="model must be a Module"):
        visualize.activations(lambda x: x, images, "0")
    with pytest.raises(TypeError, match="layer must be the name"):
        visualize.activations(net, images, [net[0]])

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 3), nn.ReLU()

        def forward(self, x):
            return fc.tensor(self.used(x).numpy().mean(axis=(2, 3)))

    with pytest.raises(ValueError, match="'unused' was not called"):
        visualize.activations(Unused(), images, "unused")
    with pytest.raises(ValueError, match="recorded operations"):
        visualize.saliency(Unused(), images, 0)
    with pytest.raises(ValueError, match="does not depend on layer 'used'"):
        visualize.grad_cam(Unused(), images, "used", 0)


@pytest.mark.parametrize("size", [(5, 7), (24, 13), (12, 30), 3])
def test_resize_is_torchs_interpolation(torch, images, size):
    pair = size if isinstance(size, tuple) else (size, size)
    expected = torch.nn.functional.interpolate(torch.from_numpy(images), pair, mode="bilinear", antialias=True).numpy()
    np.testing.assert_allclose(visualize.resize(images, size), expected, atol=1e-5)


def test_tiles_and_filters():
    grid = visualize.tile(np.arange(1, 6)[:, None, None] * np.ones((5, 2, 3)), 3, border=2, fill=-1)
    assert grid.shape == (6, 13)
    np.testing.assert_array_equal(grid[0], [1, 1, 1, -1, -1, 2, 2, 2, -1, -1, 3, 3, 3])
    np.testing.assert_array_equal(grid[5], [4, 4, 4, -1, -1, 5, 5, 5, -1, -1, -1, -1, -1])
    weight = np.array([-2, 0, 1, 4], np.float32).reshape(4, 1, 1, 1)
    np.testing.assert_array_equal(visualize.filter_grid(weight, 4, border=0), [[0.25, 0.5, 0.625, 1]])
    np.testing.assert_array_equal(visualize.filter_grid(weight, 4, border=0, each=True), [[0, 0.5, 1, 1]])
    colour = visualize.filter_grid(np.arange(-3, 9).reshape(4, 3, 1, 1), 2, border=0)
    assert colour.shape == (2, 2, 3) and colour[1, 1, 2] == 1
    assert visualize.filter_grid(np.ones((4, 5, 3, 3))).shape == (15, 19)
