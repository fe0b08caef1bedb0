"""The catalogue, its command, and the models without a family: perceptron, linear classifier, MLP, Keras' network."""

import functools
import inspect
import json

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv import models
from fastconv.cli import main
from model_checks import assert_follows_torch, count


def test_catalogue():
    names = models.list_models()
    assert len(set(names)) == len(names)
    for name in names:
        info = models.model_info(name)
        assert info.name == name and info.source and len(info.input_shape) in (2, 3, 4)
    net = models.get_model("lenet5", num_classes=3)
    assert isinstance(net, models.LeNet5) and net.classifier[-1].out_features == 3
    with pytest.raises(
        ValueError, match=r"name must be one of linear_classifier, mlp, .*; got 'lenet6', which is like 'lenet5'"
    ):
        models.get_model("lenet6")
    with pytest.raises(TypeError, match="wings"):
        models.get_model("mlp", wings=2)


@pytest.mark.parametrize("name", models.list_models())
def test_every_model_takes_classes_and_channels(name):
    info = models.model_info(name)
    with nn.init.skip_init():
        net = info.build(num_classes=7, in_channels=2)
        first = next(p for p in net.parameters() if p.ndim > 1)
        assert first.shape[1] % 2 == 0
        for option in ("num_classes", "in_channels"):
            with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
                info.build(**{option: 0})
            with pytest.raises(TypeError, match=f"{option} must be an integer"):
                info.build(**{option: 1.5})


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "alexnet", "m5", "c3d", "lenet5"])
def test_no_images_give_no_logits(name):
    net = models.get_model(name, num_classes=3).eval()
    assert net(np.zeros((0, *models.model_info(name).input_shape), np.float32)).shape == (0, 3)


def test_parameters_of_the_small_models():
    assert count("linear_classifier") == 7850
    assert count("mlp", hidden=(300,)) == 238_510
    assert count("lenet5") == 61_706
    assert count("keras_mnist") == 93_322


def test_keras_summary_table():
    table = str(models.KerasMNIST().summary((1, 1, 28, 28)))
    for row in (
        "features.0 (Conv2d)     (1, 32, 26, 26)         320",
        "features.3 (Conv2d)     (1, 64, 11, 11)      18,496",
        "features.6 (Conv2d)     (1, 64, 3, 3)        36,928",
        "classifier.1 (Linear)   (1, 64)              36,928",
        "classifier.3 (Linear)   (1, 10)                 650",
        "93,322 parameters",
    ):
        assert row in table


def test_macs_are_counted_by_the_direct_method():
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ConvTranspose2d(6, 2, 2, stride=2), nn.Flatten(), nn.Linear(128, 3)
    )
    rows = net.summary((2, 4, 4, 4)).rows
    assert [row.macs for row in rows] == [2 * 6 * 16 * 2 * 9, 2 * 6 * 16 * 2 * 4, 0, 2 * 3 * 128]
    assert net.summary((2, 4, 4, 4)).macs == sum(row.macs for row in rows)


def test_linear_models_are_torchs(torch):
    theirs = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    assert_follows_torch(
        models.MLP(3, 2, image_size=(3, 4), hidden=(5,), activation="tanh"), theirs, torch, (4, 2, 3, 4)
    )
    assert [type(layer) for layer in models.MLP(2, 1, image_size=1, hidden=(4,), dropout=0.5)][3] is nn.Dropout
    assert len(models.MLP(hidden=())) == 2
    for options in ({"hidden": (0,)}, {"activation": "step"}, {"image_size": 0}, {"image_size": (1, 2, 3)}):
        with pytest.raises(ValueError, match=next(iter(options))):
            models.MLP(**options)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MultiMarginLoss(), nn.OneVsAllHingeLoss(p=2)])
def test_linear_classifier_learns(loss):
    fc.manual_seed(1)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    x = (rng.standard_normal((60, 4)) * 0.3 + np.eye(3, 4)[labels] * 2).astype(np.float32)
    net = models.LinearClassifier(3, 4, image_size=1)
    optimizer = fc.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        loss(net(fc.tensor(x)), labels).backward()
        optimizer.step()
    assert (net(x).argmax(1) == labels).mean() > 0.95


def test_perceptron_separates_what_a_line_separates():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((50, 2)).astype(np.float32)
    target = np.where(x @ [1.0, -2.0] > 0.3, 1, -1)
    unit = models.Perceptron(2)
    passes = 1
    while unit.learn(x, target):
        passes += 1
        assert passes < 500
    np.testing.assert_array_equal(unit.predict(x), target)
    np.testing.assert_allclose(unit(x), F.linear(x, unit.linear.weight.data, unit.linear.bias.data)[:, 0])
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    exclusive_or = models.Perceptron(2)
    assert all(exclusive_or.learn(corners, np.array([-1, 1, 1, -1])) for _ in range(50))


def test_perceptron_refuses():
    unit = models.Perceptron(2)
    x = np.zeros((3, 2), np.float32)
    for message, call in (
        (r"x must have shape \(N, 2\), got \(3, 4\)", lambda: unit.learn(np.zeros((3, 4)), [1, 1, 1])),
        ("target must hold -1 or 1 for each of 3 samples", lambda: unit.learn(x, [0, 1, 1])),
        ("target must hold -1 or 1", lambda: unit.learn(x, [1, 1])),
        ("lr must be positive", lambda: unit.learn(x, [1, 1, 1], lr=0)),
        ("in_features must be at least 1", lambda: models.Perceptron(0)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert not unit.linear.weight.data.any()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_through_files(tmp_path, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    net, other = models.KerasMNIST(), models.KerasMNIST()
    fc.save(net, tmp_path / f"net{suffix}")
    other.load_state_dict(fc.load(tmp_path / f"net{suffix}"))
    x = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    np.testing.assert_array_equal(other(x), net(x))


def test_weights_of_another_architecture_list_the_mismatches_and_load_nothing():
    net = models.LeNet5()
    before = {key: value.copy() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="cannot load this state into LeNet5, which is unchanged; ") as caught:
        net.load_state_dict(models.KerasMNIST().state_dict())
    message = str(caught.value)
    for line in (
        "missing key 'classifier.5.weight'",
        "unexpected key 'features.6.weight'",
        "'features.0.weight' has shape (32, 1, 3, 3), the module needs (6, 1, 5, 5)",
    ):
        assert line in message
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_command_for_one_model(capsys):
    assert main(["models", "keras_mnist"]) == 0
    out = capsys.readouterr().out
    assert "93,322 parameters" in out and "36,928" in out and "2,794,240 multiply-accumulates" in out
    assert main(["models", "keras_mnist", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == 93_322 and report["input_shape"] == [1, 28, 28]
    assert report["layers"][0] == {
        "name": "features.0",
        "layer": "Conv2d",
        "output_shape": [1, 32, 26, 26],
        "parameters": 320,
        "macs": 26 * 26 * 32 * 9,
    }
    assert main(["models", "lenet6"]) == 2
    assert "name must be one of" in capsys.readouterr().err


def test_command_for_all_models(capsys, monkeypatch):
    monkeypatch.setattr(models, "list_models", lambda: ["lenet5", "keras_mnist"])
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "input", "parameters", "MACs", "source"]
    assert lines[2].split()[:5] == ["lenet5", "1x28x28", "61,706", "0.42", "M"] and len(lines) == 4
    assert main(["models", "--json"]) == 0
    assert [m["name"] for m in json.loads(capsys.readouterr().out)["models"]] == ["lenet5", "keras_mnist"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_built_with_weights(tmp_path, suffix):
    options = {"num_classes": 3, "width": 8}
    net = models.resnet18(**options)
    path = tmp_path / f"net{suffix}"
    fc.save(net, path)
    before = fc.get_rng_state()
    for weights in (path, str(path), net.state_dict()):
        for build in (models.resnet18, functools.partial(models.get_model, "resnet18")):
            loaded = build(weights=weights, **options)
            for key, value in net.state_dict().items():
                np.testing.assert_array_equal(loaded.state_dict()[key], value)
    assert fc.get_rng_state() == before  # nothing was drawn that weights replace
    assert models.resnet18(weights=None, **options).fc.out_features == 3
    with pytest.raises(ValueError, match=r"(?s)cannot load this state into ResNet.*'fc.weight' has shape"):
        models.resnet18(weights=path, num_classes=4, width=8)
    with pytest.raises(ValueError, match="nothing is downloaded"):
        models.vgg16(weights="IMAGENET1K_V1")
    with pytest.raises(TypeError, match="weights must be None, a file or a state_dict, got bool"):
        models.vgg16(weights=True)


def test_every_function_that_builds_takes_weights():
    for name in models.list_models():
        build = models.model_info(name).build
        assert inspect.isclass(build) or inspect.signature(build).parameters["weights"].default is None, name
