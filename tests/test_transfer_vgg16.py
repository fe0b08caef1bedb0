"""The example of transfer learning, run on a VGG16 with few channels and pictures that are drawn here."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import models
from fastconv.examples import transfer_vgg16

pillow = pytest.importorskip("PIL.Image")

# VGG16 with 2 to 16 channels: the names of the layers are those of the real one.
NARROW = (4, 4, "M", 8, 8, "M", 8, 8, 8, "M", 16, 16, 16, "M", 16, 16, 16, "M")


@pytest.fixture
def narrow(monkeypatch):
    def build(**options):
        return models.VGG(NARROW, hidden=32, pooled_size=1, **options)

    monkeypatch.setattr(transfer_vgg16.models, "vgg16", build)
    return build


@pytest.fixture
def pictures(tmp_path):
    """Dark and light pictures of random colours; one file is no picture."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 6)):
        for name, low in (("dark", 0), ("light", 200)):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(low, low + 50, (1, 1, 3)) + rng.integers(-20, 21, (32, 32, 3))
                pillow.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "train" / "light" / "broken.png").write_bytes(b"")
    return tmp_path


def test_all_three_steps(narrow, pictures, tmp_path, capsys):
    fc.manual_seed(4)
    trained = narrow()
    for i in (0, 3):  # the paper's start is made for 4,096 units; with 32, next to nothing would come through
        trained.classifier[i].weight.data *= 30
    weights, output = tmp_path / "vgg16.npz", tmp_path / "mine.npz"
    fc.save(trained, weights)
    arguments = ["--weights", str(weights), "--data", str(pictures), "--size", "32", "--output", str(output)]
    result = transfer_vgg16.main([*arguments, "--tune-epochs", "1", "--head-epochs", "200"])
    said = capsys.readouterr().out
    assert "left out" in said and "broken.png" in said
    assert "16 pictures to train, 12 to test; classifier.6 now gives dark, light" in said
    assert result["head"] >= 0.9 and set(result) == {"head", "tuned"}
    before, after = trained.state_dict(), fc.load(output)
    moved = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    blocks = {f"{layer}.{kind}" for layer in transfer_vgg16.LAST_BLOCK for kind in ("weight", "bias")}
    assert moved == blocks | {"classifier.6.weight", "classifier.6.bias"}
    assert after["classifier.6.weight"].shape == (2, 32)
    again = transfer_vgg16.main([*arguments[:-2], "--tune-epochs", "1", "--head-epochs", "200"])
    assert again == result


def test_the_last_block_is_that_of_the_real_vgg16():
    with fc.nn.init.skip_init():
        net = models.vgg16()
    convolutions = [name for name, layer in net.named_modules() if type(layer).__name__ == "Conv2d"]
    assert tuple(convolutions[-3:]) == transfer_vgg16.LAST_BLOCK


def test_folders_that_do_not_belong_together(narrow, pictures, tmp_path):
    (pictures / "val" / "light").rename(pictures / "val" / "slanted")
    with pytest.raises(ValueError, match=r"train has the classes.*slanted"):
        transfer_vgg16.main(["--weights", "x.npz", "--data", str(pictures)])
