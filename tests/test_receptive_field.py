"""Receptive fields: published figures, and the pixels that really change a unit; the patches cut with them."""

from fractions import Fraction

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv import models, visualize


def vgg16_features():
    """The convolutions and poolings of VGG16 with one channel each: the arithmetic does not depend on channels."""
    layers = []
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            layers += [nn.Conv2d(1, 1, 3, padding=1), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def test_vgg16_by_name():
    """Araujo et al. 2019, table: 212 pixels with an effective stride of 32 at pool5; fc6 sees 404."""
    features = vgg16_features()
    net = nn.Sequential(features, nn.Conv2d(1, 1, 7), nn.Flatten(), nn.Linear(1, 2))
    fields = visualize.receptive_field(net, (1, 1, 224, 224))
    expected = {4: (6, 2), 9: (16, 4), 16: (44, 8), 23: (100, 16), 28: (196, 16), 30: (212, 32)}
    for index, (size, stride) in expected.items():
        field = fields[f"0.{index}"]
        assert (field.size, field.stride) == ((size,) * 2, (stride,) * 2)
    assert fields["0.30"].start == (-90, -90)
    assert fields["0.30"].box((1, 0)) == ((-58, 154), (-90, 122))
    assert fields["1"].size == (404, 404)
    assert fields["3"] == visualize.ReceptiveField((404, 404), (0, 0), (-90, -90))
    assert visualize.receptive_field(net, (1, 1, 224, 224), "0.30") == fields["0.30"]


def test_alexnet():
    """195 pixels with a stride of 32 at pool5, as in the same table (which is of the network with these paddings)."""
    sizes = ((11, 4, 2), (3, 2, None), (5, 1, 2), (3, 2, None), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, None))
    net = nn.Sequential(
        *(nn.MaxPool2d(k, s) if p is None else nn.Conv2d(1, 1, k, stride=s, padding=p) for k, s, p in sizes)
    )
    field = visualize.receptive_field(net, (1, 1, 224, 224), "7")
    assert (field.size, field.stride) == ((195, 195), (32, 32))


class Residual(nn.Module):
    """A block of ResNet-18 in a user's words, with functional rectifiers."""

    def __init__(self, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 1, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(1, 1, 3, padding=1)
        self.norm = nn.BatchNorm2d(1)
        self.shortcut = nn.Conv2d(1, 1, 1, stride=stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        return F.relu(self.norm(self.conv2(F.relu(self.conv1(x)))) + self.shortcut(x))


def test_resnet18():
    """435 pixels with a stride of 32: the stem, then four stages of two blocks."""
    blocks = [Residual(stride) for stride in (1, 1, 2, 1, 2, 1, 2, 1)]
    net = nn.Sequential(nn.Conv2d(1, 1, 7, stride=2, padding=3), nn.MaxPool2d(3, stride=2, padding=1), *blocks)
    field = visualize.receptive_field(net, (1, 1, 64, 64), "9")
    by_hand, step = 1 + 6 + 2 * 2, 4
    for stage in range(4):
        # in a stage with a stride, the first convolution still steps over the finer grid
        by_hand += 2 * step if stage else 2 * 4
        step = step * 2 if stage else 4
        by_hand += 3 * 2 * step
    assert by_hand == 435
    assert (field.size, field.stride) == ((435, 435), (32, 32))


def seen(model, shape, layer):
    """For each unit of the layer, which pixels change it: all weights are positive, every pixel is raised in turn."""
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.data[...] = rng.uniform(0.5, 1, parameter.shape)
    model.double()
    image = rng.uniform(1, 2, shape)
    before = visualize.activations(model, image, layer)[0].max(axis=0)
    pixels = np.prod(shape[2:])
    raised = np.repeat(image, pixels, axis=0)
    raised.reshape(pixels, shape[1], pixels)[np.arange(pixels), :, np.arange(pixels)] += 100
    after = visualize.activations(model, raised, layer).max(axis=1)
    return np.moveaxis((after != before).reshape(*shape[2:], *before.shape), range(len(shape) - 2), range(-2, 0))


def bounds(mask):
    """First and last True in each dimension."""
    return [(int(where.min()), int(where.max()) + 1) for where in np.nonzero(mask)]


class Branches(nn.Module):
    """An inception of two branches, then a gate from the mean of all, then a slice that keeps the size."""

    def __init__(self, gated):
        super().__init__()
        self.a = nn.Conv2d(1, 2, (3, 1), padding=(1, 0), stride=2)
        self.b = nn.Conv2d(1, 2, 5, padding=(2, 2), stride=2)
        self.gated = gated

    def forward(self, x):
        y = fc.cat([self.a(x), self.b(x)], dim=1)
        return y * y.mean((2, 3), keepdim=True) if self.gated else y[:, 1:]


CHAINS = {
    "strides": lambda: [nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(2, 1, (1, 3), padding="same")],
    "dilations": lambda: [nn.Conv2d(1, 1, 3, dilation=2, padding=(1, 3)), nn.MaxPool2d(2, 1), nn.BatchNorm2d(1)],
    "same": lambda: [nn.Conv2d(1, 1, 4, stride=3, padding="same"), nn.Conv2d(1, 1, 2, padding=((1, 0), (0, 1)))],
    "pools": lambda: [nn.AvgPool2d(3, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(2)],
    "pad": lambda: [nn.ZeroPad2d((1, 2, 3, 0)), nn.Conv2d(1, 1, 3, stride=2), nn.LPPool2d(2, 2)],
    "adaptive": lambda: [nn.Conv2d(1, 1, 2), nn.AdaptiveAvgPool2d((4, 3))],
    "branches": lambda: [Branches(False), nn.Conv2d(3, 1, 2)],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_fields_are_the_pixels_that_change_a_unit(chain):
    net = nn.Sequential(*CHAINS[chain]())
    layer = str(len(net) - 1)
    shape = (1, 1, 13, 13)
    field = visualize.receptive_field(net, shape, layer)
    mask = seen(net, shape, layer)
    inside = 0
    for position in np.ndindex(mask.shape[:2]):
        box = field.box(position)
        clipped = [(max(start, 0), min(stop, 13)) for start, stop in box]
        assert bounds(mask[position]) == clipped
        inside += clipped == list(box)
    assert inside > 0


@pytest.mark.parametrize(
    "chain, size",
    [
        ([nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1), nn.ReLU()], 2),
        ([nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 4, stride=2)], 4),
        ([nn.AdaptiveAvgPool2d(5)], 4),
        ([nn.Upsample(scale_factor=2)], 1),
        ([nn.Upsample(20), nn.ReLU()], 1),
        ([nn.Upsample(9, mode="nearest-exact")], 1),
        ([nn.Conv2d(1, 1, 3, padding=1), nn.Upsample(scale_factor=2, mode="bilinear")], 4),
        ([nn.Upsample(8, mode="bilinear")], 2),
        ([nn.UpsamplingBilinear2d(25)], 2),
        ([nn.Upsample(17, mode="bicubic")], 4),
        ([nn.Upsample(5, mode="area")], 4),
    ],
)
def test_fields_of_irregular_windows_hold_all_pixels(chain, size):
    """Transposed and uneven adaptive windows differ from unit to unit: the field is what the largest needs."""
    net = nn.Sequential(*chain)
    layer = str(len(net) - 1)
    shape = (1, 1, 13, 13)
    field = visualize.receptive_field(net, shape, layer)
    mask = seen(net, shape, layer)
    largest = 0
    for position in np.ndindex(mask.shape[:2]):
        for (start, stop), (low, high) in zip(field.box(position), bounds(mask[position])):
            assert start <= low and high <= stop
            largest = max(largest, high - low)
    assert field.size == (size, size) and size - 1 <= largest <= size


def test_global_operations_see_everything():
    gated = nn.Sequential(Branches(True), nn.ReLU())
    assert visualize.receptive_field(gated, (1, 1, 13, 13), "1") == visualize.ReceptiveField((17, 17), (0, 0), (-2, -2))
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    for layer in "123":
        field = visualize.receptive_field(pooled, (1, 1, 13, 9), layer)
        assert field == visualize.ReceptiveField((13, 9), (0, 0), (0, 0))
    rows = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(7, 7))  # mixes the last dimension only
    field = visualize.receptive_field(rows, (1, 1, 13, 9), "1")
    assert field == visualize.ReceptiveField((3, 9), (1, 0), (0, 0))


def test_one_and_three_dimensions():
    waves = nn.Sequential(nn.Conv1d(1, 2, 80, stride=4), nn.MaxPool1d(4))
    field = visualize.receptive_field(waves, (1, 1, 800), "1")
    assert (field.size, field.stride) == ((92,), (16,))
    clips = nn.Sequential(nn.Conv3d(1, 1, 3, padding=1), nn.MaxPool3d((1, 2, 2)))
    assert visualize.receptive_field(clips, (1, 1, 4, 8, 8), "1").size == (3, 4, 4)
    up = nn.Sequential(nn.ConvTranspose1d(1, 1, 2, stride=2))
    assert visualize.receptive_field(up, (1, 1, 5), "0").stride == (Fraction(1, 2),)


def test_layers_off_the_path():
    class Off(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.constant, self.unused = nn.Conv2d(1, 1, 3), nn.Linear(2, 2), nn.ReLU()

        def forward(self, x):
            self.constant(fc.tensor(np.ones((1, 2), np.float32)))
            return self.used(x)

    assert list(visualize.receptive_field(Off(), (1, 1, 5, 5))) == ["used"]
    for layer, reason in (
        ("constant", "does not depend"),
        ("unused", "was not called"),
        ("other", "must name a layer"),
    ):
        with pytest.raises(ValueError, match=reason):
            visualize.receptive_field(Off(), (1, 1, 5, 5), layer)
    for shape in ((1, 1), (1, 1, 0, 5), (1,) * 6):
        with pytest.raises(ValueError, match="input_shape"):
            visualize.receptive_field(Off(), shape)
    with pytest.raises(ValueError, match="position must have 2 entries"):
        visualize.receptive_field(Off(), (1, 1, 5, 5), "used").box((1,))


def test_strongest_inputs_find_planted_patterns():
    """A detector of a cross: the images with crosses are found, the strongest first, cut where they are."""
    rng = np.random.default_rng(2)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.float32)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 1, 1))
    net[0].weight.data[:] = np.stack([np.zeros((3, 3)), cross])[:, None]
    net[3].weight.data[:], net[3].bias.data[:] = [[[[0]], [[1]]]], 0
    images = rng.uniform(0, 0.1, (20, 1, 10, 10)).astype(np.float32)
    for index, strength, (row, column) in ((13, 5, (0, 4)), (4, 3, (6, 7)), (8, 4, (7, 7))):
        images[index, 0, row : row + 3, column : column + 3] += strength * cross
    found = visualize.strongest_inputs(net, images, "3", 0, count=3, batch_size=6)
    assert [each.index for each in found] == [13, 8, 4]
    assert found[0].score > found[1].score > found[2].score > 15
    for each, (row, column) in zip(found, ((0, 4), (7, 7), (6, 7))):
        (top, bottom), (left, right) = each.box
        assert bottom - top == right - left == 4
        assert top <= row and row + 3 <= bottom and left <= column and column + 3 <= right
        padded = np.pad(images[each.index], ((0, 0), (4, 4), (4, 4)))
        np.testing.assert_array_equal(each.patch, padded[:, top + 4 : bottom + 4, left + 4 : right + 4])
    assert found[0].box[0] == (-1, 3) and not found[0].patch[0, 0].any()  # begins in the padding
    best = visualize.activations(net, images, "3")[:, 0].max(axis=(1, 2))
    np.testing.assert_allclose([each.score for each in found], np.sort(best)[:-4:-1], rtol=1e-6)


def test_strongest_inputs_of_a_layer_without_maps():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(4, 2))
    images = np.random.default_rng(3).normal(size=(5, 1, 4, 4)).astype(np.float32)
    found = visualize.strongest_inputs(net, images, "2", 1)
    assert [each.index for each in found] == list(np.argsort(-net(images)[:, 1]))
    np.testing.assert_array_equal(found[0].patch, images[found[0].index])
    assert found[0].position == () and found[0].box == ((0, 4), (0, 4))
    for arguments in (("2", 2), ("2", -1), ("none", 0), ("2", 0, 0)):
        with pytest.raises(ValueError):
            visualize.strongest_inputs(net, images, *arguments)


@pytest.mark.parametrize(
    "name, layer, size, side",
    [
        ("mobilenet_v1", "features", 315, 32),
        ("inception_v3", "Mixed_7c", 1311, 96),
        ("resnet50", "layer4", 427, 32),
        ("densenet121", "features", 2071, 32),
    ],
)
def test_networks_of_the_catalogue(name, layer, size, side):
    """MobileNet and Inception v3 as in the table of Araujo et al.; torchvision's ResNet-50 strides in its 3 x 3 layers.

    Of the others: 427 = 11 + 4 (2 + 2 + 2) + 4 * 2 + 8 * 3 * 2 + 8 * 2 + 16 * 5 * 2 + 16 * 2 + 32 * 2 * 2, and
    2071 = 11 + 4 * 12 + 4 + 8 * 24 + 8 + 16 * 48 + 16 + 32 * 32.
    """
    with fc.nn.init.skip_init():
        net = models.get_model(name)
    field = visualize.receptive_field(net, (1, 3, side, side), layer)
    assert (field.size, field.stride) == ((size, size), (32, 32))
