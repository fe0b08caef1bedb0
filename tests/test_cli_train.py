"""``fastconv train`` and ``fastconv predict``: whole runs on small data, going on, refusals."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastconv as fc
from checks import heed_interrupts
from fastconv import data
from fastconv.cli import main, networks, recipe
from fastconv.training import read_checkpoint

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve pictures each of bright and of dark squares."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 60)):
        (folder / name).mkdir()
        for i in range(12):
            pixels = np.clip(level + rng.normal(scale=30, size=(10, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


SMALL = ["--image-size", "8", "--batch-size", "6", "--workers", "1"]


def _train(photos, output, *more, model="mlp"):
    return main(["train", model, "--data", str(photos), "--output", str(output), *SMALL, *more])


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "mlp"
    augment = ",".join(recipe.AUGMENTATIONS)
    assert _train(photos, output, "--epochs", "4", "--augment", augment, "--lr", "0.003", "--warmup", "1") == 0
    return output


def test_a_run_leaves_all_its_files(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"last.npz", "last-best.npz", "history.csv"} <= names
    rows = list(csv.DictReader((trained / "history.csv").read_text().splitlines()))
    assert len(rows) == 4 and float(rows[-1]["val_accuracy"]) >= 0.75
    config = read_checkpoint(trained / "last.npz").config
    assert config["classes"] == ["bright", "dark"] and config["channels"] == 3 and len(config["mean"]) == 3
    assert float(rows[0]["lr"]) == pytest.approx(3e-5) and float(rows[1]["lr"]) == pytest.approx(0.003)


def test_prediction_names_classes(trained, photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"")
    given = [str(photos / "bright" / "03.png"), str(photos / "dark")]
    assert main(["predict", str(trained), *given, "--json", "--top", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["pictures"]) == 13 and report["weights"].endswith("last-best.npz")
    right = [entry["top"][0]["class"] in entry["picture"] for entry in report["pictures"]]
    assert np.mean(right) > 0.75
    assert main(["predict", str(trained), given[0], str(tmp_path), "--bad-files", "skip"]) == 0
    lines = capsys.readouterr().out
    assert "broken.png: is empty" in lines and "bright" in lines and "%" in lines
    assert main(["predict", str(trained), str(tmp_path)]) == 2
    assert "broken.png: is empty" in capsys.readouterr().err
    assert main(["predict", str(trained / "last.npz"), "--data", str(photos), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    last = read_checkpoint(trained / "last.npz").history[-1]
    assert measured["accuracy"] == last["val_accuracy"] and measured["images"] == 5


def test_resuming_gives_the_bits_of_one_run(photos, tmp_path, capsys):
    options = ["--augment", "flip,erase", "--schedule", "constant", "--optim", "sgd", "--seed", "3"]
    assert _train(photos, tmp_path / "whole", "--epochs", "3", *options) == 0
    assert _train(photos, tmp_path / "parts", "--epochs", "1", *options) == 0
    resume = ["train", "mlp", "--resume", "--output", str(tmp_path / "parts"), "--epochs", "3", "--json"]
    capsys.readouterr()
    assert main(resume) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 3
    whole, parts = (read_checkpoint(tmp_path / name / "last.npz") for name in ("whole", "parts"))
    for name, value in whole.model.items():
        np.testing.assert_array_equal(parts.model[name], value)
    assert [row["loss"] for row in parts.history] == [row["loss"] for row in whole.history]


@pytest.mark.parametrize(
    "more, message",
    [
        (["--lr", "0.5"], "--lr 0.003 then, 0.5 now"),
        (["--epochs", "9"], "--epochs 4 then, 9 now"),
        (["--augment", "flip"], "--augment"),
        (["--overwrite"], "exclude each other"),
    ],
)
def test_resuming_with_other_options_is_refused(trained, capsys, more, message):
    before = (trained / "last.npz").read_bytes()
    assert main(["train", "mlp", "--resume", "--output", str(trained), *more]) == 2
    assert message in capsys.readouterr().err
    assert main(["train", "lenet5", "--resume", "--output", str(trained)]) == 2
    assert "--model mlp then, lenet5 now" in capsys.readouterr().err
    assert (trained / "last.npz").read_bytes() == before


def test_weights_of_a_checkpoint_and_of_another_architecture(trained, photos, tmp_path, capsys):
    """Both files of a run are weights to begin with; those of another network are refused with all that differs."""
    for name in ("last.npz", "last-best.npz"):
        output = tmp_path / name.partition(".")[0]
        weights = ["--weights", str(trained / name)]
        assert _train(photos, output, "--epochs", "1", "--lr", "0", "--overwrite", *weights) == 0
        state = read_checkpoint(output / "last.npz").model
        expected = read_checkpoint(trained / "last.npz").model if name == "last.npz" else fc.load(trained / name)
        for key, value in expected.items():
            np.testing.assert_array_equal(state[key], value)
    capsys.readouterr()
    refused = tmp_path / "refused"
    assert _train(photos, refused, "--weights", str(trained / "last.npz"), model="linear_classifier") == 2
    error = capsys.readouterr().err
    assert "cannot load this state into LinearClassifier, which is unchanged; " in error
    assert "missing key " in error and "unexpected key " in error
    assert not refused.exists()


def test_weights_for_other_classes(trained, photos, tmp_path, capsys):
    """--new-head: all but the last layer; --freeze: what stays as it is, also after going on."""
    third = tmp_path / "three"
    third.mkdir()
    for name in ("bright", "dark", "dim"):
        (third / name).symlink_to(photos / name.replace("dim", "dark"))
    weights = ["--epochs", "1", "--weights", str(trained / "last-best.npz")]
    assert _train(third, tmp_path / "a", *weights) == 2
    assert "for other classes than the weights', add --new-head" in capsys.readouterr().err
    assert _train(third, tmp_path / "a", *weights, "--new-head", "--freeze", "body", "--schedule", "constant") == 0
    before, after = fc.load(trained / "last-best.npz"), read_checkpoint(tmp_path / "a" / "last.npz").model
    head = list(before)[-1].rpartition(".")[0]
    assert set(after) == set(before) and after[f"{head}.weight"].shape[0] == 3
    for key in before:
        assert key.startswith(head) or np.array_equal(after[key], before[key])
    assert main(["train", "mlp", "--resume", "--epochs", "2", "--output", str(tmp_path / "a")]) == 0
    again = read_checkpoint(tmp_path / "a" / "last.npz").model
    for key in before:
        assert key.startswith(head) != np.array_equal(again[key], after[key])
    capsys.readouterr()
    for options, message in (
        (["--new-head"], "--new-head must come with --weights"),
        (["--freeze", "layer9"], "no parameter of MLP is named 'layer9'"),
        (["--freeze", f"body,{head}"], "--freeze must leave a parameter to train"),
    ):
        assert _train(third, tmp_path / "b", "--epochs", "1", *options) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_new_heads_of_auxiliary_classifiers_and_networks_without_a_head(tmp_path):
    path = tmp_path / "weights.npz"
    small = {"width": 0.125}
    fc.save(fc.models.GoogLeNet(5, **small), path)
    model = fc.models.GoogLeNet(3, **small)
    with pytest.raises(ValueError, match="add --new-head"):
        networks.begin_with(model, str(path), False)
    before = model.state_dict()
    networks.begin_with(model, str(path), True)
    weights = fc.load(path)
    heads = ("fc.", "aux1.fc2.", "aux2.fc2.")
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key] if key.startswith(heads) else weights[key])
    networks.freeze(model, "body")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"{head}{kind}" for head in heads for kind in ("weight", "bias")
    }
    plain = fc.nn.Sequential(fc.nn.Conv2d(1, 2, 3))
    fc.save(plain, path)
    networks.begin_with(plain, str(path), False)
    with pytest.raises(ValueError, match="has no Linear layer"):
        networks.begin_with(plain, str(path), True)


def test_a_run_is_not_overwritten_by_accident(trained, photos, capsys):
    assert _train(photos, trained, "--epochs", "1") == 2
    assert "--resume" in capsys.readouterr().err


def test_folders_with_a_validation_part_and_grey_pictures(photos, tmp_path, capsys):
    for part in ("train", "val"):
        (tmp_path / "split").mkdir(exist_ok=True)
        (tmp_path / "split" / part).symlink_to(photos)
    bad = tmp_path / "weights.npz"
    assert _train(tmp_path / "split", tmp_path / "run", "--epochs", "1", "--grey", "--schedule", "step", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["epochs"] == 1 and report["history"][0]["val_accuracy"] <= 1
    state = read_checkpoint(tmp_path / "run" / "last.npz")
    assert state.config["channels"] == 1 and len(state.config["mean"]) == 1
    fc.save(state.model, bad)
    assert _train(photos, tmp_path / "other", "--epochs", "1", "--weights", str(bad)) == 2
    assert "has shape" in capsys.readouterr().err
    assert _train(photos, tmp_path / "again", "--grey", "--epochs", "1", "--weights", str(bad), "--lr", "0") == 0


def test_idx_and_cifar_directories(tmp_path, capsys):
    rng = np.random.default_rng(1)
    for part, count in (("train", 12), ("t10k", 4)):
        pixels = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        header = bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">u4").tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes() + bytes(i % 3 for i in range(count))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    options = ["--epochs", "1", "--batch-size", "11", "--model-option", "hidden=(4,)", "--json"]
    assert main(["train", "mlp", "--data", str(tmp_path), "--output", str(tmp_path / "run"), *options]) == 0
    assert len(read_checkpoint(tmp_path / "run" / "last.npz").config["classes"]) == 3
    cifar = tmp_path / "cifar"
    cifar.mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (4, 3073)).astype(np.uint8)
        records[:, 0] = range(4)
        (cifar / name).write_bytes(records.tobytes())
    assert (
        main(["train", "linear_classifier", "--data", str(cifar), "--output", str(tmp_path / "c"), "--epochs", "1"])
        == 0
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["mlp"], "--data must be given"),
        (["mlp", "--data", "no/such/place"], "no such directory"),
        (["nothing", "--data", "PHOTOS"], "must be one of"),
        (["m5", "--data", "PHOTOS"], "MODEL must take images"),
        (["unet", "--data", "PHOTOS", "--image-size", "32"], "one score a class"),
        (["mlp", "--data", "PHOTOS", "--augment", "flip,blur"], "--augment must name some of"),
        (["mlp", "--data", "PHOTOS", "--model-option", "depth=3"], "depth"),
        (["mlp", "--data", "PHOTOS", "--validation", "0"], "--validation must leave pictures"),
        (["mlp", "--data", "PHOTOS", "--warmup", "10"], "--warmup must be"),
        (["mlp", "--data", "PHOTOS", "--resume", "--output", "nowhere"], "last.npz"),
        (["mlp", "--data", "PHOTOS", "--epochs", "0"], "at least 1"),
        (["mlp", "--data", "PHOTOS", "--label-smoothing", "2"], "from 0 to 1"),
        (["mlp", "--data", "PHOTOS", "--lr", "nan"], "at least 0"),
        (["mlp", "--data", "PHOTOS", "--model-option", "deep"], "NAME=VALUE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_and_leaves_nothing(photos, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    given = [str(photos) if word == "PHOTOS" else word for word in arguments]
    assert main(["train", *given]) == 2
    errors = capsys.readouterr().err
    assert message in errors.splitlines()[-1] and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_bad_data_for_training(photos, tmp_path, capsys):
    for part in ("train", "val"):
        (tmp_path / "data" / part / "bright").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / part / "bright" / "1.png")
    (tmp_path / "data" / "val" / "other").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "data" / "val" / "other" / "1.png")
    assert _train(tmp_path / "data", tmp_path / "run") == 2
    assert "same classes; other" in capsys.readouterr().err
    folder = tmp_path / "mixed"
    for name in ("bright", "dark"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (4, 4)).save(folder / name / f"{i}.png")
    (folder / "dark" / "broken.png").write_bytes(b"x")
    assert _train(folder, tmp_path / "run", "--epochs", "1") == 2
    assert "broken.png: is no picture" in capsys.readouterr().err
    assert _train(folder, tmp_path / "run", "--epochs", "1", "--bad-files", "skip") == 0
    assert "left out: " in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_status_1(photos, tmp_path, capsys):
    options = ["--optim", "sgd", "--lr", "1e30", "--schedule", "constant", "--epochs", "2"]
    assert _train(photos, tmp_path / "run", *options) == 1
    assert "the loss became" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "run" / "last.npz").epoch == 0


def test_predict_refuses(trained, photos, tmp_path, capsys):
    fc.save({"x": np.ones(2)}, tmp_path / "last.npz")
    other = tmp_path / "other"
    for name in ("a", "b"):
        (other / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (4, 4)).save(other / name / f"{i}.png")
    for arguments, message in (
        ([str(trained)], "either pictures or --data"),
        ([str(trained), "x.png", "--data", "digits"], "either pictures or --data"),
        ([str(trained), str(tmp_path / "nothing.png")], "nothing.png"),
        ([str(tmp_path), "x.png"], "no checkpoint"),
        ([str(tmp_path / "none"), "x.png"], "none"),
        ([str(trained), "--data", str(other)], "must have the run's classes"),
    ):
        assert main(["predict", *arguments]) == 2, arguments
        assert message in capsys.readouterr().err


def test_interruption_leaves_a_checkpoint_to_go_on_from(photos, tmp_path):
    command = [
        sys.executable,
        "-m",
        "fastconv",
        "train",
        "mlp",
        "--data",
        str(photos),
        "--output",
        str(tmp_path / "run"),
    ]
    command += [*SMALL, "--epochs", "100000", "--schedule", "constant"]
    process = subprocess.Popen(
        command,
        preexec_fn=heed_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )
    for line in process.stdout:
        if line.startswith("epoch      2"):
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in errors and "interrupted" in errors and "Traceback" not in errors
    done = read_checkpoint(tmp_path / "run" / "last.npz").epoch
    assert done >= 2
    more = ["train", "mlp", "--resume", "--output", str(tmp_path / "run"), "--epochs", str(done + 1)]
    assert main(more) == 0
    assert read_checkpoint(tmp_path / "run" / "last.npz").epoch == done + 1


def test_every_default_is_an_option():
    names = {"model_options": "model_option"}
    from fastconv.cli import _parser

    parsed = vars(_parser().parse_args(["train", "mlp"]))
    assert all(names.get(name, name) in parsed for name in recipe.DEFAULTS)
    assert isinstance(data.transforms.Compose(recipe.augmentation("flip, zoom", (8, 8))), data.transforms.Compose)
    assert len(recipe.augmentation("flip, zoom", (8, 8))) == 2 and recipe.augmentation("", (8, 8)) == []


def test_device(cupy, photos, tmp_path, capsys):
    constant = ("--schedule", "constant")
    assert _train(photos, tmp_path / "gpu", "--epochs", "1", "--device", "cuda:1", *constant) == 0
    with fc.use_backend("cuda:simt"):
        assert _train(photos, tmp_path / "host", "--epochs", "1", *constant) == 0
    runs = [read_checkpoint(tmp_path / name / "last.npz") for name in ("gpu", "host")]
    assert runs[0].history[0]["loss"] == pytest.approx(runs[1].history[0]["loss"], rel=1e-5)
    assert _train(photos, tmp_path / "gpu", "--epochs", "2", "--resume") == 0  # goes on on the host
    assert _train(photos, tmp_path / "none", "--epochs", "1", "--device", "tpu") != 0
    assert 'device must be "cpu", "cuda"' in capsys.readouterr().err
