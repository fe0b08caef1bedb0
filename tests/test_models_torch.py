"""The networks of images: published parameter counts and operations, and torch definitions under one state."""

import numpy as np
import pytest

import fastconv.nn as nn
from checks import torch_networks as theirs
from fastconv import models
from model_checks import assert_follows_torch, count, macs

# Parameters and, in units of 10 million, multiply-accumulates as torchvision's documentation gives them ("GFLOPS"
# there); for the others the parameters of the paper or of its authors' code.
PUBLISHED = {
    "alexnet": (61_100_840, 71),
    "alexnet_two_groups": (60_965_224, None),
    "zfnet": (62_357_608, None),
    "vgg11": (132_863_336, 761),
    "vgg11_bn": (132_868_840, None),
    "vgg13": (133_047_848, None),
    "vgg13_bn": (133_053_736, None),
    "vgg16_1x1": (133_638_952, None),
    "vgg16": (138_357_544, None),
    "vgg16_bn": (138_365_992, None),
    "vgg19": (143_667_240, None),
    "vgg19_bn": (143_678_248, None),
    "googlenet": (13_004_888, 150),
    "inception_v3": (27_161_264, 571),
    "resnet18": (11_689_512, 181),
    "resnet34": (21_797_672, None),
    "resnet50": (25_557_032, 409),
    "resnet101": (44_549_160, None),
    "resnet152": (60_192_808, None),
    "densenet121": (7_978_856, 283),
    "densenet169": (14_149_480, None),
    "densenet201": (20_013_928, None),
    "densenet161": (28_681_000, None),
    "mobilenet_v1": (4_231_976, 57),
    "mobilenet_v2": (3_504_872, 30),
}
VARIANTS = [
    ("googlenet", {"aux_logits": False}, 6_624_904),
    ("googlenet", {"paper": True}, 13_378_280),
    ("googlenet", {"paper": True, "aux_logits": False}, 6_998_552),
    ("inception_v3", {"aux_logits": False}, 23_834_568),
    ("resnet50", {"groups": 32, "width_per_group": 4}, 25_028_904),  # ResNeXt-50 32x4d
    ("resnet50", {"width_per_group": 128}, 68_883_240),  # wide ResNet-50-2
    ("mobilenet_v2", {"width_mult": 0.5}, 1_968_680),
    ("mobilenet_v2", {"width_mult": 1.4}, 6_108_776),
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    parameters, operations = PUBLISHED[name]
    assert count(name) == parameters
    if operations is not None:
        assert round(macs(name) / 1e7) == operations


@pytest.mark.parametrize("name, options, parameters", VARIANTS, ids=str)
def test_published_sizes_of_variants(name, options, parameters):
    assert count(name, **options) == parameters


def test_densenets_of_the_paper_for_small_images():
    """Table 2 of the DenseNet paper: 1.0 million for L=40, k=12, and 0.8 million for DenseNet-BC, L=100, k=12."""
    with nn.init.skip_init():
        plain = models.DenseNet(12, (12, 12, 12), 16, 10, bn_size=0, compression=1.0, stem="small")
        compressed = models.DenseNet(12, (16, 16, 16), 24, 10, stem="small")
    assert sum(p.numel() for p in plain.parameters()) == 1_019_722
    assert sum(p.numel() for p in compressed.parameters()) == 769_162


BLOCKS = {"basic": models.BasicBlock, "bottleneck": models.Bottleneck}
RESNETS = [
    ("basic", (2, 1, 1, 1), {}, {}, (2, 3, 64, 64)),
    ("basic", (2, 1, 1), {"stem": "small", "shortcut": False}, {"small": True, "shortcut": False}, (2, 3, 8, 9)),
    ("bottleneck", (1, 2, 1, 1), {}, {}, (2, 3, 64, 64)),
    ("bottleneck", (1, 2), {"stride_in_1x1": True}, {"stride_in_1x1": True}, (3, 3, 32, 32)),
    ("bottleneck", (1, 1), {"groups": 2, "width_per_group": 32}, {"groups": 2, "base": 32}, (3, 3, 32, 32)),
]


@pytest.mark.parametrize("block, layers, mine, other, shape", RESNETS, ids=str)
def test_resnet(torch, block, layers, mine, other, shape):
    ours = models.ResNet(BLOCKS[block], layers, 5, 3, width=4, **mine)
    assert_follows_torch(
        ours, theirs.resnet(torch, block == "bottleneck", layers, 5, 3, width=4, **other), torch, shape
    )


CONFIGURATION = (4, "M", 6, -6, "M", 8)


@pytest.mark.parametrize("options", [{}, {"bn": True}, {"lrn": True}], ids=str)
def test_vgg(torch, options):
    mine = {"batch_norm": options.get("bn", False), "local_response_norm": options.get("lrn", False)}
    ours = models.VGG(CONFIGURATION, 5, 2, hidden=7, pooled_size=2, dropout=0.0, **mine)
    assert_follows_torch(ours, theirs.vgg(torch, CONFIGURATION, 5, 2, 7, 2, **options), torch, (3, 2, 12, 16))


def test_vgg_configurations_are_torchvisions():
    """Where the layers lie in `features` is what published weights are named by."""
    places = {
        "vgg11": [0, 3, 6, 8, 11, 13, 16, 18],
        "vgg16_bn": [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40],
        "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
    }
    for name, expected in places.items():
        with nn.init.skip_init():
            net = models.get_model(name)
        assert [i for i, layer in enumerate(net.features) if isinstance(layer, nn.Conv2d)] == expected
        assert [i for i, layer in enumerate(net.classifier) if isinstance(layer, nn.Linear)] == [0, 3, 6]


@pytest.mark.parametrize("two_groups", [False, True])
def test_alexnet(torch, two_groups):
    """The convolutions under one state; of the linear layers, 58 million numbers, the names and shapes."""
    with nn.init.skip_init():
        net = models.AlexNet(5, 2, two_groups=two_groups)
    assert_follows_torch(net.features, theirs.alexnet_features(torch, two_groups, 2), torch, (1, 2, 95, 95))
    head = {key: value.shape for key, value in net.classifier.state_dict().items()}
    assert head["1.weight"] == (4096, 9216) and head["4.weight"] == (4096, 4096) and head["6.weight"] == (5, 4096)
    assert net.features(np.zeros((1, 2, 224, 224))).shape == (1, 256, 6, 6)


def test_alexnet_of_2012_starts_with_biases_of_one():
    with nn.init.skip_init():
        net = models.AlexNet(5, 1, two_groups=True)
    biases = [float(p.data.mean()) for name, p in net.named_parameters() if name.endswith("bias")]
    assert biases == [0, 1, 0, 1, 1, 1, 1, 0]


def test_zfnet(torch):
    with nn.init.skip_init():
        net = models.ZFNet(5, 2)
    assert_follows_torch(net.features, theirs.zfnet_features(torch, 2), torch, (1, 2, 79, 79))
    assert [tuple(net.classifier[i].weight.shape) for i in (0, 3, 6)] == [(4096, 9216), (4096, 4096), (5, 4096)]
    assert net.features[0](np.zeros((1, 2, 224, 224))).shape == (1, 96, 110, 110)  # figure 3 of the paper
    assert net.features(np.zeros((1, 2, 224, 224))).shape == (1, 256, 6, 6)


@pytest.mark.parametrize("paper", [False, True])
def test_googlenet(torch, paper):
    ours = models.GoogLeNet(5, 2, width=0.0625, paper=paper, dropout=0.0, dropout_aux=0.0)
    assert_follows_torch(ours, theirs.googlenet(torch, 5, 2, 0.0625, paper), torch, (2, 2, 64, 64))


def test_googlenet_outputs_and_input_transform():
    net = models.GoogLeNet(5, 3, width=0.0625, stem="small", transform_input=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    output = net(x)
    assert isinstance(output, models.GoogLeNetOutputs)
    assert output.logits.shape == output.aux_logits1.shape == output.aux_logits2.shape == (2, 5)
    assert output.logits.dtype == np.float32
    expected = net.eval()(x)
    net.transform_input = False
    scale, shift = np.array([0.229, 0.224, 0.225]), np.array([0.485, 0.456, 0.406])
    by_hand = ((x * scale[:, None, None] + shift[:, None, None]) - 0.5) / 0.5
    np.testing.assert_allclose(net(by_hand.astype(np.float32)), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="transform_input needs in_channels=3, got 1"):
        models.GoogLeNet(5, 1, transform_input=True)
    with pytest.raises(ValueError, match="width must be positive, got 0"):
        models.GoogLeNet(width=0)


def test_naive_inception(torch):
    naive = models.NaiveInception(3, 2, 4, 5)
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7)).astype(np.float32)
    parts = [naive.branch1(x), naive.branch2(x), naive.branch3(x)]
    assert [part.shape[1] for part in parts] == [2, 4, 5] and (parts[2] >= 0).all()
    pooled = torch.nn.functional.max_pool2d(torch.tensor(x), 3, 1, 1).numpy()
    np.testing.assert_array_equal(naive(x), np.concatenate([*parts, pooled], 1))
    assert [p.shape for p in naive.parameters() if p.ndim == 4] == [(2, 3, 1, 1), (4, 3, 3, 3), (5, 3, 5, 5)]


@pytest.mark.parametrize("version", [2, 3])
def test_inception(torch, version):
    ours = (models.InceptionV2 if version == 2 else models.InceptionV3)(
        5, 2, width=0.0625, aux_logits=False, dropout=0.0
    )
    assert_follows_torch(ours, theirs.inception(torch, version, 5, 2, 0.0625, False), torch, (2, 2, 107, 107))


@pytest.mark.parametrize("version", [2, 3])
def test_inception_with_auxiliary_classifier(torch, version):
    ours = (models.InceptionV2 if version == 2 else models.InceptionV3)(5, 1, width=0.03125, dropout=0.0)
    assert_follows_torch(ours, theirs.inception(torch, version, 5, 1, 0.03125, True), torch, (2, 1, 299, 299))
    output = ours.train()(np.zeros((2, 1, 299, 299)))
    assert isinstance(output, models.InceptionOutputs) and output.aux_logits.shape == (2, 5)


def test_inception_module_sizes_are_the_papers():
    """Table 1 of the paper: channels between the modules."""
    with nn.init.skip_init():
        v2, v3 = models.inception_v2(), models.inception_v3()
    assert [getattr(v2, name).out_channels for name in ("figure5b", "figure5c", "figure6e", "reduction")] == [
        288,
        768,
        768,
        1280,
    ]
    assert v2.fc.in_features == v3.fc.in_features == 2048
    # torchvision's deviations: 0.1, but 0.01 and 0.001 in the auxiliary classifier.
    net = models.InceptionV3(100, width=0.125)
    assert net.AuxLogits.conv1.conv.weight.data.std() == pytest.approx(0.01, rel=0.1)
    assert net.AuxLogits.fc.weight.data.std() == pytest.approx(0.001, rel=0.1)
    assert net.fc.weight.data.std() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("options", [{}, {"bn_size": 0, "compression": 1.0, "small": True}], ids=str)
def test_densenet(torch, options):
    mine = {**options, "stem": "small" if options.pop("small", False) else "imagenet"}
    mine.pop("small", None)
    other = {**options, "small": mine["stem"] == "small"}
    ours = models.DenseNet(4, (2, 3), 6, 5, 2, **mine)
    assert_follows_torch(ours, theirs.densenet(torch, 4, (2, 3), 6, 5, 2, **other), torch, (3, 2, 32, 32))


def test_densenet_loads_torchvisions_older_keys():
    net, other = (models.DenseNet(4, (2, 2), 8, 5) for _ in range(2))
    old = {}
    for key, value in net.state_dict().items():
        for kind in ("norm", "conv"):
            for i in "12":
                if "denselayer" in key:
                    key = key.replace(f".{kind}{i}.", f".{kind}.{i}.")
        if not key.endswith("num_batches_tracked"):
            old[key] = value + 1
    assert "features.denseblock1.denselayer1.norm.1.weight" in old and "features.transition1.norm.weight" in old
    assert other.load_state_dict(old) == ([], [])
    np.testing.assert_array_equal(
        other.features.denseblock2.denselayer1.conv2.weight.data,
        net.features.denseblock2.denselayer1.conv2.weight.data + 1,
    )
    with pytest.raises(TypeError, match="state_dict must be a mapping"):
        net.load_state_dict([1])


def test_mobilenet_v1(torch):
    ours = models.MobileNetV1(5, 2, width_mult=0.125)
    assert_follows_torch(ours, theirs.mobilenet_v1(torch, 5, 2, 0.125), torch, (2, 2, 64, 64))


def test_mobilenet_v2(torch):
    setting = [(1, 8, 1, 1), (6, 16, 2, 2), (2, 16, 2, 1)]
    ours = models.MobileNetV2(5, 2, inverted_residual_setting=setting, width_mult=0.25, dropout=0.0)
    # A quarter of 32 and 8, rounded to multiples of 8 that lose no more than a tenth; the last layer never shrinks.
    other = theirs.mobilenet_v2(torch, 5, 2, [(t, 8, n, s) for t, _, n, s in setting], 8, 1280)
    assert_follows_torch(ours, other, torch, (2, 2, 32, 32))


def test_separable_convolutions():
    layer = models.SpatiallySeparableConv2d(3, 4, 5, stride=2, padding=2)
    x = np.random.default_rng(0).standard_normal((2, 3, 11, 9)).astype(np.float32)
    assert layer(x).shape == (2, 4, 6, 5)
    assert [p.shape for p in layer.parameters()] == [(4, 3, 5, 1), (4, 4, 1, 5), (4,)]
    with pytest.raises(TypeError, match="kernel_size must be an integer"):
        models.SpatiallySeparableConv2d(3, 4, (5, 5))


BAD = [
    (lambda: models.VGG("F"), "configuration must be one of A, B, C, D, E; got 'F'"),
    (lambda: models.VGG((4, "P")), "configuration must hold channels other than 0 and 'M', got 'P'"),
    (lambda: models.VGG((4,), hidden=-1), "hidden must be at least 0"),
    (lambda: models.ResNet(models.BasicBlock, ()), "layers must have 1 to 4 entries"),
    (lambda: models.ResNet(models.BasicBlock, (1, 0)), "layers must be at least 1, got 0"),
    (lambda: models.resnet18(groups=2, width=4), "BasicBlock needs groups=1"),
    (lambda: models.resnet18(stem="big"), "stem must be one of 'imagenet', 'small', got 'big'"),
    (lambda: models.DenseNet(compression=0), "compression must be above 0"),
    (lambda: models.DenseNet(drop_rate=2), "drop_rate must be from 0 to 1"),
    (lambda: models.DenseNet(block_config=(2, 0)), "block_config must be at least 1"),
    (lambda: models.MobileNetV1(width_mult=0), "width_mult must be positive"),
    (lambda: models.MobileNetV2(inverted_residual_setting=[(1, 2, 3)]), "must hold rows of 4 numbers"),
    (lambda: models.InceptionV3(width=-1.0), "width must be positive"),
    (lambda: models.InceptionV2(in_channels=1, transform_input=True), "transform_input needs in_channels=3"),
    (lambda: models.AlexNet(dropout=2.0), "p must be between 0 and 1"),
]


@pytest.mark.parametrize("make, message", BAD)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_zero_init_residual_begins_as_the_identity():
    net = models.ResNet(models.Bottleneck, (2,), 5, 3, width=4, zero_init_residual=True)
    block = net.layer1[1]
    x = np.random.default_rng(0).random((2, 16, 5, 5), np.float32)
    np.testing.assert_array_equal(block(x), x)
