"""The demo: trains, verifies, times and draws; refuses bad data and says which extra is missing."""

import json
import struct
import sys

import numpy as np
import pytest

import fastconv as fc
from fastconv import data
from fastconv.cli import main

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from fastconv.cli.demo import DEFAULT_EPOCHS, layers, picture, timing, training

pytestmark = pytest.mark.skipif("cpu" not in fc.available_backends(), reason="the native module is not built")


@pytest.fixture(scope="module")
def digits():
    return training.load(None, 0)


def few(dataset, count):
    return data.TrainTest(*(array[:count] for array in dataset))


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(folder, dataset, side=28):
    for part, images, labels in (
        ("train", dataset.train_images, dataset.train_labels),
        ("t10k", dataset.test_images, dataset.test_labels),
    ):
        write_idx(folder / f"{part}-images-idx3-ubyte", np.round(images[:, 0, :side] * 255))
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)


def test_short_run(tmp_path, capsys):
    path = tmp_path / "demo.png"
    assert main(["demo", "--epochs", "2", "--output", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["picture"] == str(path)
    first, last = report["accuracies"]
    assert last > max(first, 0.8)
    assert np.mean(report["losses"][-10:]) < 0.5 * np.mean(report["losses"][:10])
    assert [row["layer"] for row in report["layers"]].count("Conv2d") == 2
    assert all(row["error"] <= row["bound"] for row in report["layers"])
    assert {"cpu", "reference"} <= {row["backend"] for row in report["timings"]}
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    assert struct.unpack(">II", content[16:24]) == (1200, 900)


def test_accuracy_of_the_default_run(digits):
    history = training.train(digits, DEFAULT_EPOCHS, 0, lambda _: None, bar=False)
    assert history.accuracies[-1] >= 0.97


def test_same_seed_same_network(digits):
    some = few(digits, 96)
    runs = [training.train(some, 1, seed, lambda _: None, bar=False) for seed in (0, 0, 1)]
    assert runs[0].losses == runs[1].losses != runs[2].losses
    states = [run.net.state_dict() for run in runs]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_mnist_files(tmp_path, capsys, digits):
    write_mnist(tmp_path, few(digits, 80))
    assert main(["demo", "--data", str(tmp_path), "--epochs", "1", "--no-picture"]) == 0
    out = capsys.readouterr().out
    assert "80 images to train, 80 to test" in out and "every layer is within its bound" in out


@pytest.mark.parametrize("damage", ["size", "label", "truncated", "missing"])
def test_bad_mnist_files(tmp_path, capsys, digits, damage):
    write_mnist(tmp_path, few(digits, 20), side=20 if damage == "size" else 28)
    path = tmp_path / "train-labels-idx1-ubyte"
    if damage == "label":
        write_idx(path, np.full(20, 10))
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "missing":
        path.unlink()
    assert main(["demo", "--data", str(tmp_path), "--no-picture"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error and len(error.splitlines()) == 1


def test_missing_extras(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["demo", "--output", str(tmp_path / "x.png")]) == 2
    assert "fastconv[demo]" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["demo", "--no-picture"]) == 2
    assert "fastconv[demo]" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["x.jpg", "no/such/directory/x.png"])
def test_bad_output_is_noticed_before_the_training(monkeypatch, capsys, output):
    monkeypatch.setattr(training, "load", lambda *_: pytest.fail("trained first"))
    assert main(["demo", "--output", output]) == 2
    assert "--output" in capsys.readouterr().err


def test_wrong_layer_is_noticed(monkeypatch, capsys, digits):
    net = fc.models.LeNet5()
    images = digits.test_images[:4]
    assert all(row.passed for row in layers.verify(net, images))
    right = net.classifier[1].forward
    net.classifier[1].forward = lambda x: right(x) * np.float32(1.001)
    assert [row.layer for row in layers.verify(net, images) if not row.passed] == ["Linear"]
    monkeypatch.setattr(training, "load", lambda *_: few(digits, 4))
    monkeypatch.setattr(training, "train", lambda *_, **__: training.History(net, [1.0], [0.5]))
    assert main(["demo", "--no-picture"]) == 1
    assert "BEYOND" in capsys.readouterr().out


def test_nothing_is_timed_unless_it_is_right(digits):
    net = fc.models.LeNet5()
    right = net.forward
    net.forward = lambda x: right(x) + np.float32(fc.get_backend() == "reference")
    with pytest.raises(ValueError, match="nothing was timed"):
        timing.measure(net, few(digits, 8))


def test_enlarged_digits(digits):
    assert digits.train_images.shape == (1438, 1, 28, 28)
    assert digits.train_images.min() >= 0 and digits.train_images.max() <= 1
    assert not digits.train_images[:, :, :2].any() and digits.train_images[:, :, 2:-2, 2:-2].any()
    np.testing.assert_array_equal(training._enlarge(np.ones((1, 1, 8, 8), np.float32))[0, 0, 2:-2, 2:-2], 1)


def test_picture_of_an_untrained_network(tmp_path, digits):
    path = tmp_path / "x.png"
    picture.draw(str(path), training.History(fc.models.LeNet5(), [2.3], [0.1]), few(digits, 1))
    assert path.stat().st_size > 10_000
