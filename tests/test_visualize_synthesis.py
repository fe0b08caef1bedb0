"""Images made for a network: closed forms where there are some, torch's gradients where there are none."""

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
from fastconv import visualize


def features(library=nn):
    return library.Sequential(
        library.Conv2d(3, 6, 3, padding=1), library.ReLU(), library.MaxPool2d(2), library.Conv2d(6, 8, 3)
    )


@pytest.fixture
def net():
    fc.manual_seed(3)
    return features()


@pytest.fixture
def images():
    return np.random.default_rng(5).normal(size=(2, 3, 12, 14)).astype(np.float32)


@pytest.fixture
def twin(net, torch):
    other = features(torch.nn)
    other.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in net.state_dict().items()})
    return other


def test_maximum_of_a_penalised_linear_score():
    """w x - l2 x**2 is highest at w / (2 l2), from wherever the climb begins."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    weight = net[1].weight.data[1].reshape(1, 1, 2, 3)
    start = np.full((2, 1, 2, 3), 0.5, np.float32)
    found = visualize.maximize_unit(net, 1, start, l2=0.25, steps=400, lr=0.02)
    np.testing.assert_allclose(found, np.repeat(weight * 2, 2, axis=0), atol=1e-3)
    assert (start == 0.5).all()
    limited = visualize.maximize_unit(net, 1, start, l2=0.0, steps=100, limits=(-0.25, 0.75))
    np.testing.assert_array_equal(limited, np.repeat(np.where(weight > 0, 0.75, -0.25), 2, axis=0))


def test_maximum_of_a_layers_unit_is_the_mean_of_its_map():
    """A 1 x 1 filter w: every pixel of the map pulls its own pixel of the image, to w / (2 l2 positions)."""
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(7, 1))  # the head would not take this size
    weight = net[0].weight.data[2, :, 0, 0]
    for jitter in (0, 3):
        found = visualize.maximize_unit(
            net, 2, np.zeros((1, 2, 4, 5), np.float32), "0", l2=0.025, steps=500, lr=0.02, jitter=jitter
        )
        np.testing.assert_allclose(found, np.broadcast_to(weight[:, None, None], (1, 2, 4, 5)), atol=2e-3)


def test_class_images_are_reproducible_and_raise_the_score(net, images):
    net.extend([nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)])
    made = [
        visualize.maximize_unit(net, 2, (1, 3, 12, 12), steps=30, jitter=2, rng=np.random.default_rng(seed))
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    noise = visualize.maximize_unit(net, 2, (1, 3, 12, 12), steps=0, rng=np.random.default_rng(0))
    assert 0.05 < noise.std() < 0.15
    assert net(made[0])[0, 2] > net(noise)[0, 2] + 0.1


def dream_gradient(torch, twin, image, layers):
    x = torch.from_numpy(np.ascontiguousarray(image)).requires_grad_()
    y, energy = x, 0
    for i, layer in enumerate(twin):
        y = layer(y)
        if str(i) in layers:
            energy = energy + (y**2).sum() / 2
    energy.backward()
    return x.grad.numpy()


@pytest.mark.parametrize("layers", ["3", ["1", "3"]])
def test_deep_dream_climbs_torchs_gradient(torch, net, twin, images, layers):
    gradient = dream_gradient(torch, twin, images, layers)
    step = gradient / np.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)
    dream = visualize.deep_dream(net, images, layers, octaves=1, steps=1, lr=0.1, jitter=0)
    np.testing.assert_allclose(dream, images + 0.1 * step, rtol=1e-4, atol=1e-5)


def test_octaves_begin_small_and_carry_the_change(torch, net, twin, images):
    """Two octaves by hand: a step on the small image, its change enlarged, a step on the large one."""

    def step(image):
        gradient = dream_gradient(torch, twin, image, "3")
        return image + 0.1 * gradient / np.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)

    small = visualize.resize(images, (8, 9))
    change = visualize.resize(step(small) - small, (12, 14))
    expected = step(images + change)
    dream = visualize.deep_dream(net, images, "3", octaves=2, octave_scale=1.5, steps=1, lr=0.1, jitter=0)
    np.testing.assert_allclose(dream, expected, rtol=1e-4, atol=1e-4)


def test_deep_dream_stops_before_a_head_of_fixed_size(net, images):
    """The head takes 12 x 14 pixels alone, octaves and jitter come in other sizes and places."""
    whole = nn.Sequential(net, nn.Flatten(), nn.Linear(8 * 4 * 5, 3))
    calls = []
    whole[2].register_forward_hook(lambda *_: calls.append(1))
    options = {"octaves": 2, "steps": 3, "jitter": 4}
    dream = visualize.deep_dream(whole, images, "0.3", rng=np.random.default_rng(1), **options)
    assert not calls and dream.shape == images.shape and dream.dtype == images.dtype
    same = visualize.deep_dream(net, images, "3", rng=np.random.default_rng(1), **options)
    np.testing.assert_array_equal(dream, same)
    assert (net(dream) ** 2).sum() > 1.3 * (net(images) ** 2).sum()
    clipped = visualize.deep_dream(whole, images, "0.3", limits=(-1, 1), **options)
    assert clipped.min() == -1 and clipped.max() == 1


def test_gram_matrix_is_torchs(torch, images):
    x = torch.from_numpy(images)
    expected = torch.einsum("nchw,ndhw->ncd", x, x) / (12 * 14)
    np.testing.assert_allclose(visualize.gram_matrix(images), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(visualize.gram_matrix(fc.tensor(images)).data, visualize.gram_matrix(images))


def test_first_step_of_style_transfer_is_torchs(torch, net, twin, images):
    """Adam's first step is lr * gradient / (|gradient| + eps), which tells the gradient of the whole loss."""
    content, style = images[:1], np.random.default_rng(1).normal(size=(1, 3, 16, 10)).astype(np.float32)
    start = np.random.default_rng(2).normal(size=content.shape).astype(np.float32)

    def gram(y):
        return torch.einsum("nchw,ndhw->ncd", y, y) / (y.shape[2] * y.shape[3])

    def maps(x):
        first = twin[0](x)
        return first, twin[1:](first)

    x = torch.from_numpy(start).requires_grad_()
    found = maps(x)
    with torch.no_grad():
        kept = maps(torch.from_numpy(content))
        grams = [gram(y) for y in maps(torch.from_numpy(style))]
    content_loss = ((found[1] - kept[1]) ** 2).mean()
    parts = [((gram(y) - a) ** 2).sum() / (4 * y.shape[1] ** 2) for y, a in zip(found, grams)]
    style_loss = 0.25 * parts[0] + 0.75 * parts[1]
    (2 * content_loss + 30 * style_loss).backward()
    result = visualize.style_transfer(
        net,
        content,
        style,
        "3",
        {"0": 0.25, "3": 0.75},
        content_weight=2,
        style_weight=30,
        steps=1,
        lr=0.5,
        start=start,
    )
    np.testing.assert_allclose(result.content_losses, [content_loss.item()], rtol=1e-5)
    np.testing.assert_allclose(result.style_losses, [style_loss.item()], rtol=1e-5)
    gradient = x.grad.numpy()
    expected = -0.5 * gradient / (np.abs(gradient) + 1e-8)
    assert 0.2 < (expected > 0).mean() < 0.8
    certain = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
    assert certain.mean() > 0.9
    np.testing.assert_allclose((result.image - start)[certain], expected[certain], rtol=1e-3)


def test_style_transfer_brings_content_and_style_together(net, images):
    content, style = images[:1], 2 * images[1:] + 1
    back = visualize.style_transfer(
        net, content, style, "0", "0", style_weight=0, steps=150, lr=0.1, start=np.zeros_like(content)
    )
    assert back.content_losses[-1] < 0.01 * back.content_losses[0]
    both = visualize.style_transfer(net, content, style, "3", ["0", "1"], steps=60, lr=0.05)
    assert both.content_losses[0] == 0 and both.style_losses[-1] < 0.2 * both.style_losses[0]
    assert len(both.style_losses) == 60
    limited = visualize.style_transfer(net, content, style, "3", "0", steps=3, limits=(0.0, 0.5))
    assert limited.image.min() == 0 and limited.image.max() == 0.5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net, x: visualize.maximize_unit(net, 8, x, "3"), "target must be from 0 to 7"),
        (lambda net, x: visualize.maximize_unit(net, 0, x, "9"), "layer must name"),
        (lambda net, x: visualize.maximize_unit(net, 0, x, "3", l2=-1.0), "l2 must be finite and not negative"),
        (lambda net, x: visualize.maximize_unit(net, 0, x, "3", steps=-1), "steps must be at least 0"),
        (lambda net, x: visualize.maximize_unit(net, 0, x, "3", limits=(1, 0)), "limits must be"),
        (lambda net, x: visualize.maximize_unit(net, 0, (1, 0, 3), "3"), "start must be at least 1"),
        (lambda net, x: visualize.deep_dream(net, x, []), "layers must name at least one"),
        (lambda net, x: visualize.deep_dream(net, x, "3", octave_scale=1.0), "octave_scale must be above 1"),
        (lambda net, x: visualize.deep_dream(net, x, "3", octaves=0), "octaves must be at least 1"),
        (lambda net, x: visualize.deep_dream(net, x[0], "3"), r"images must be \(N, C, H, W\)"),
        (lambda net, x: visualize.deep_dream(net, x, "3", octaves=9), "weight|kernel|input"),
        (lambda net, x: visualize.gram_matrix(x[0, 0]), "features must be"),
        (lambda net, x: visualize.style_transfer(net, x, x, "3", []), "style_layers must name at least one"),
        (lambda net, x: visualize.style_transfer(net, x, x[:, :1], "3", "0"), r"style must be \(N, 3, H, W\)"),
        (lambda net, x: visualize.style_transfer(net, x, x[[0, 0, 0]], "3", "0"), "style must be one image or 2"),
        (lambda net, x: visualize.style_transfer(net, x, x, "3", "0", start=x[:1]), "start of its shape"),
        (lambda net, x: visualize.style_transfer(net, x, x, {"3": -1}, "0"), r"content_layers\['3'\] must be"),
    ],
)
def test_bad_arguments(net, images, call, message):
    with pytest.raises(ValueError, match=message):
        call(net, images)
    assert all(p.requires_grad for p in net.parameters()) and net.training
    assert not any(module._forward_hooks for module in net.modules())
