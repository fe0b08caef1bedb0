"""The networks against torchvision's own definitions, where it is installed: keys, outputs, gradients, statistics."""

import importlib
import importlib.util
import sys
import types

import pytest

import fastconv.nn as nn
from fastconv import models
from model_checks import assert_follows_torch

# Name, options of both constructors, input. The heads of AlexNet and VGG are up to 124 million numbers: features alone.
NETWORKS = [
    ("resnet18", {}, (2, 3, 64, 64)),
    ("resnet34", {}, (2, 3, 40, 72)),
    ("resnet50", {}, (2, 3, 64, 64)),
    ("resnet50", {"groups": 32, "width_per_group": 4}, (2, 3, 64, 64)),
    ("densenet121", {}, (2, 3, 64, 64)),
    ("mobilenet_v2", {}, (2, 3, 64, 96)),
    ("mobilenet_v2", {"width_mult": 0.5}, (2, 3, 64, 64)),
    ("googlenet", {"init_weights": False}, (2, 3, 96, 96)),
    ("inception_v3", {"init_weights": False}, (2, 3, 299, 299)),
]
FEATURES = [
    ("alexnet", (2, 3, 95, 95)),
    ("vgg11", (1, 3, 64, 64)),
    ("vgg13_bn", (2, 3, 32, 64)),
    ("vgg16", (1, 3, 32, 32)),
    ("vgg19_bn", (2, 3, 32, 32)),
]


@pytest.fixture(scope="module")
def definitions():
    """torchvision.models, without the package's compiled operators: no network needs one, and beside another build of
    torch than they were compiled for the package itself does not import."""
    pytest.importorskip("torch")
    found = importlib.util.find_spec("torchvision")
    if found is None:
        pytest.skip("torchvision is not installed")
    package = types.ModuleType("torchvision")
    package.__path__ = list(found.submodule_search_locations)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            patch.delitem(sys.modules, name)
        patch.setitem(sys.modules, "torchvision", package)
        yield importlib.import_module("torchvision.models")
        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]


def without_dropout(network, kinds):
    for module in network.modules():
        if isinstance(module, kinds):
            module.p = 0.0
    return network


@pytest.mark.parametrize("name, options, shape", NETWORKS, ids=str)
def test_network(torch, definitions, name, options, shape):
    theirs = without_dropout(getattr(definitions, name)(num_classes=5, **options), torch.nn.Dropout)
    options = {key: value for key, value in options.items() if key != "init_weights"}
    with nn.init.skip_init():
        ours = models.get_model(name, num_classes=5, **options)
    assert_follows_torch(without_dropout(ours, nn.Dropout), theirs, torch, shape)


@pytest.mark.parametrize("name, shape", FEATURES, ids=str)
def test_features(torch, definitions, name, shape):
    with nn.init.skip_init(), torch.device("meta"):
        ours, theirs = models.get_model(name), getattr(definitions, name)()
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }
    assert_follows_torch(ours.features, getattr(definitions, name)(num_classes=1).features, torch, shape)
