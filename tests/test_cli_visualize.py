"""``fastconv visualize``: every method gives a picture of the right thing; mistakes are one line."""

import json
import struct

import numpy as np
import pytest

import fastconv as fc
from fastconv import models, optim, visualize
from fastconv.cli import main

pillow = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the pictures appear: two photographs, one of them grey, and LeNet's weights for three classes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pillow.fromarray(rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)).save("photo.png")
    pillow.fromarray(rng.integers(0, 256, (50, 50)).astype(np.uint8)).save("grey.png")
    fc.manual_seed(1)
    fc.save(models.LeNet5(num_classes=3), "lenet.npz")
    return tmp_path


def report(capsys, *argv):
    assert main(["visualize", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def drawn(folder, name="fastconv-visualize.png"):
    content = (folder / name).read_bytes()
    assert content.startswith(b"\x89PNG\r\n") and len(content) > 2000
    return struct.unpack(">II", content[16:24])


LENET = ("--weights", "lenet.npz", "--image", "photo.png")


@pytest.mark.parametrize(
    "method, options, layer",
    [
        ("filters", (), "features.0"),
        ("filters", ("--layer", "features.3"), "features.3"),
        ("activations", (), "features.0"),
        ("receptive-field", (), "features.5"),
        ("saliency", ("--unit", "2"), None),
        ("guided", ("--layer", "features.4", "--unit", "3"), "features.4"),
        ("deconvnet", ("--layer", "features.1"), "features.1"),
        ("grad-cam", (), "features.5"),
        ("occlusion", ("--window", "7"), None),
        ("maximize", ("--unit", "0", "--steps", "3"), None),
        ("dream", ("--steps", "2", "--layer", "features.1"), "features.1"),
        ("style", ("--style", "grey.png", "--steps", "4"), None),
    ],
)
def test_methods(folder, capsys, method, options, layer):
    found = report(capsys, "lenet5", method, *LENET, *options, "--output", "out.png")
    assert found["method"] == method and found["weights"] == "lenet.npz" and found["output"] == "out.png"
    assert method == "style" or found["layer"] == layer
    width, height = drawn(folder, "out.png")
    assert width == height == 750


def test_scores_are_those_of_the_network(folder, capsys):
    net = models.LeNet5(num_classes=3)
    net.load_state_dict(fc.load("lenet.npz"))
    image = fc.data.read_image("photo.png", "L", size=28)[None]
    scores = net(image)[0]
    found = report(capsys, "lenet5", "saliency", *LENET)
    assert found["unit"] == scores.argmax() and found["score"] == pytest.approx(scores.max(), abs=1e-3)
    found = report(capsys, "lenet5", "guided", *LENET, "--layer", "features.3", "--unit", "5")
    strongest = visualize.activations(net, image, "features.3")[0, 5].max()
    assert found["score"] == pytest.approx(strongest, abs=1e-3)
    with_mean = report(capsys, "lenet5", "saliency", *LENET, "--unit", "1", "--mean", "0.5", "--std", "0.25")
    assert with_mean["score"] == pytest.approx(net((image - 0.5) / 0.25)[0, 1], abs=1e-3)
    few = report(capsys, "lenet5", "maximize", *LENET, "--unit", "1", "--steps", "0")
    more = report(capsys, "lenet5", "maximize", *LENET, "--unit", "1", "--steps", "20")
    assert few["score"] == pytest.approx(scores[1], abs=1e-3) and more["score"] > few["score"] + 0.01


def test_checkpoints_and_other_numbers_of_channels(folder, capsys):
    from fastconv.training import Checkpoint, write_checkpoint

    net = models.LeNet5(num_classes=4, in_channels=3)
    write_checkpoint("last.npz", Checkpoint(1, net.state_dict(), optim.SGD(net.parameters(), lr=0.1).state_dict()))
    found = report(capsys, "lenet5", "saliency", "--weights", "last.npz", "--image", "photo.png")
    image = fc.data.read_image("photo.png", "RGB", size=28)[None]
    image = (image - np.reshape([0.485, 0.456, 0.406], (1, 3, 1, 1))) / np.reshape([0.229, 0.224, 0.225], (1, 3, 1, 1))
    assert found["score"] == pytest.approx(net(image.astype(np.float32)).max(), abs=1e-3)


def test_runs_of_train_bring_their_own_options(folder, capsys):
    """Classes, channels, size and normalisation are those of the run."""
    from fastconv.training import Checkpoint, write_checkpoint

    config = {"model": "lenet5", "model_options": {"pooling": "avg"}, "image_size": 32, "channels": 1}
    config |= {"classes": list("abcd"), "mean": [0.25], "std": [0.5]}
    net = models.LeNet5(num_classes=4, image_size=32, pooling="avg")
    state = optim.SGD(net.parameters(), lr=0.1).state_dict()
    write_checkpoint("last.npz", Checkpoint(1, net.state_dict(), state, config=config))
    found = report(capsys, "lenet5", "saliency", "--weights", "last.npz", "--image", "grey.png")
    image = (fc.data.read_image("grey.png", "L", size=32)[None] - 0.25) / 0.5
    assert found["score"] == pytest.approx(net(image.astype(np.float32)).max(), abs=1e-3)
    assert main(["visualize", "keras_mnist", "filters", "--weights", "last.npz"]) == 2
    assert "holds a lenet5, not a keras_mnist" in capsys.readouterr().err


def test_random_weights_and_tables(folder, capsys):
    assert main(["visualize", "keras_mnist", "filters"]) == 0
    out = capsys.readouterr().out
    assert "filters of keras_mnist (random weights), layer features.0" in out and "fastconv-visualize.png" in out
    drawn(folder)
    (folder / "fastconv-visualize.png").unlink()
    assert main(["visualize", "lenet5", "receptive-field"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["Layer", "Field", "Stride", "Start"] and "16 x 16" in out
    assert not (folder / "fastconv-visualize.png").exists()
    found = report(capsys, "m3", "receptive-field", "--layer", "features.7")
    assert found["fields"]["features.7"] == {"size": [172], "stride": [64.0]}


@pytest.mark.parametrize(
    "argv, message",
    [
        (("lenet6", "filters"), "name must be one of"),
        (("lenet5", "saliency"), "saliency needs --image"),
        (("lenet5", "style", *LENET), "style needs --style"),
        (("lenet5", "maximize"), "maximize needs --unit"),
        (("lenet5", "saliency", *LENET, "--unit", "3"), "from 0 to 2, got 3"),
        (("lenet5", "saliency", *LENET, "--layer", "none"), "layer must name a layer"),
        (("lenet5", "activations", *LENET, "--layer", "classifier.1"), "has no maps"),
        (("lenet5", "filters", "--layer", "features.1"), "has no filters"),
        (("mlp", "filters"), "has no filters"),
        (("lenet5", "occlusion", *LENET, "--layer", "features.1"), "takes no --layer"),
        (("lenet5", "saliency", *LENET, "--mean", "1,2"), "--mean must be one number or 1"),
        (("lenet5", "saliency", *LENET, "--std", "0"), "--std must be above 0"),
        (("lenet5", "saliency", "--image", "photo.png", "--weights", "missing.npz"), "missing.npz"),
        (("keras_mnist", "saliency", *LENET), "missing key"),
        (("lenet5", "saliency", "--weights", "lenet.npz", "--image", "lenet.npz"), "lenet.npz"),
        (("m5", "saliency", "--image", "photo.png"), "MODEL must take images"),
        (("lenet5", "filters", "--output", "x.jpg"), "--output must end in .png"),
        (("lenet5", "nonsense"), "METHOD"),
        (("lenet5", "saliency", *LENET, "--size", "0x3"), "--size"),
    ],
)
def test_mistakes(folder, capsys, argv, message):
    assert main(["visualize", *argv]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and "Traceback" not in error
    assert not (folder / "fastconv-visualize.png").exists()


def test_missing_extra(folder, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert main(["visualize", "lenet5", "filters"]) == 2
    assert "fastconv[visualize]" in capsys.readouterr().err
