"""ImageFolder over pictures of all kinds, good and bad; CIFAR's binary files."""

import sys

import numpy as np
import pytest

from fastconv import data

Image = pytest.importorskip("PIL.Image")

GREY = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
COLOUR = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two classes with three good pictures; the second class' folder has a folder of its own."""
    for name in ("cat", "dog/deeper"):
        (tmp_path / name).mkdir(parents=True)
    Image.fromarray(COLOUR).save(tmp_path / "cat/1.png")
    Image.fromarray(COLOUR).save(tmp_path / "cat/2.JPG", "JPEG")
    Image.fromarray(COLOUR).save(tmp_path / "dog/deeper/3.bmp")
    (tmp_path / "cat/notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.md").write_text("no class")
    return tmp_path


def _damage(folder):
    """Pictures that cannot be read, by their file names."""
    whole = (folder / "cat/2.JPG").read_bytes()
    (folder / "cat/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    png = (folder / "cat/1.png").read_bytes()
    (folder / "cat/corrupt.png").write_bytes(png[:60] + bytes(20) + png[80:])
    (folder / "cat/half.png").write_bytes(png[: len(png) // 2])
    (folder / "dog/empty.png").write_bytes(b"")
    (folder / "dog/text.jpg").write_text("this is no picture")
    return {"truncated.jpg", "corrupt.png", "half.png", "empty.png", "text.jpg"}


def test_a_folder(folder):
    images = data.ImageFolder(folder)
    assert images.classes == ["cat", "dog"] and len(images) == 3
    assert images.targets.tolist() == [0, 0, 1] and images.skipped == []
    image, label = images[0]
    assert label == 0 and image.dtype == np.float32 and image.flags.c_contiguous
    np.testing.assert_allclose(image, COLOUR.transpose(2, 0, 1) / 255, rtol=1e-6)
    grey = data.ImageFolder(folder, mode="L", transform=lambda x: 1 - x)[0][0]
    assert grey.shape == (1, 5, 7) and abs(grey.mean() - 0.5) < 0.1
    x, y = next(iter(data.DataLoader(data.ImageFolder(folder, size=(4, 6)), 3, num_workers=2)))
    assert x.shape == (3, 3, 4, 6) and y.tolist() == [0, 0, 1]
    assert data.ImageFolder(folder, size=3)[1][0].shape == (3, 3, 3)


def test_bad_files_are_named_or_left_out(folder):
    bad = _damage(folder)
    images = data.ImageFolder(folder)
    assert len(images) == 8
    for i, (path, _) in enumerate(images.samples):
        if path.name in bad:
            with pytest.raises(ValueError, match=str(path)):
                images[i]
        else:
            assert images[i][0].shape == (3, 5, 7)
    assert "empty" in dict(images.check())[folder / "dog/empty.png"]
    with pytest.raises(ValueError, match=r"corrupt\.png") as caught:
        list(data.DataLoader(images, 2, num_workers=2))
    assert "in batch" in caught.value.__notes__[0]
    skipping = data.ImageFolder(folder, bad_files="skip")
    assert len(skipping) == 3 and {path.name for path, _ in skipping.skipped} == bad
    assert len(list(data.DataLoader(skipping))) == 3


KINDS = {
    "grey.png": (GREY, {}),
    "black_and_white.png": (GREY > 100, {}),
    "sixteen.png": (GREY.astype(np.uint16) * 257, {}),
    "sixteen.tif": (GREY.astype(np.uint16) * 257, {}),
    "alpha.png": (np.dstack([COLOUR, GREY]), {}),
    "grey_alpha.png": (np.dstack([GREY, GREY]), {"mode": "LA"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_other_kinds_are_converted_or_refused(tmp_path, name):
    pixels, options = KINDS[name]
    picture = Image.fromarray(pixels) if not options else Image.merge("LA", [Image.fromarray(GREY)] * 2)
    picture.save(tmp_path / name)
    grey = GREY / 255
    expected = {
        "black_and_white.png": (GREY > 100) * 1.0,
        "alpha.png": (COLOUR * grey[..., None] + 255 * (1 - grey[..., None])).transpose(2, 0, 1) / 255,
        "grey_alpha.png": grey * grey + 1 - grey,
    }.get(name, grey)
    image = data.read_image(tmp_path / name)
    assert image.shape == (3, 5, 7)
    np.testing.assert_allclose(image, np.broadcast_to(expected, (3, 5, 7)), atol=0.6 / 255)
    assert data.read_image(tmp_path / name, "L", size=(2, 2)).shape == (1, 2, 2)
    with pytest.raises(ValueError, match=r"convert is False"):
        data.read_image(tmp_path / name, convert=False)
    if name == "alpha.png":
        dark = data.read_image(tmp_path / name, background=0.0)
        np.testing.assert_allclose(dark, (COLOUR * grey[..., None]).transpose(2, 0, 1) / 255, atol=0.6 / 255)


def test_sixteen_bits_keep_their_precision(tmp_path):
    pixels = np.array([[0, 1, 2, 65535]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "fine.png")
    np.testing.assert_allclose(data.read_image(tmp_path / "fine.png", "L")[0], pixels / 65535, rtol=1e-6)


def test_palette_and_cmyk(tmp_path):
    Image.fromarray(COLOUR).convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "print.jpg")
    for name in ("palette.gif", "print.jpg"):
        assert data.read_image(tmp_path / name).shape == (3, 5, 7)
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif.*no agreed range"):
        data.read_image(tmp_path / "float.tif")


def test_bad_folders(folder, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such directory"):
        data.ImageFolder(folder / "nothing")
    with pytest.raises(ValueError, match="no class folders"):
        data.ImageFolder(folder / "cat")
    with pytest.raises(FileNotFoundError):
        data.read_image(folder / "nothing.png")
    for options, word in (
        ({"mode": "CMYK"}, "mode"),
        ({"size": 0}, "size"),
        ({"bad_files": "ignore"}, "bad_files"),
    ):
        with pytest.raises(ValueError, match=word):
            data.ImageFolder(folder, **options)
    (folder / "bird").mkdir()
    (folder / "bird/feathers.txt").write_text("")
    with pytest.raises(ValueError, match="class folders without pictures: bird"):
        data.ImageFolder(folder)
    (folder / "bird/broken.png").write_bytes(b"")
    assert len(data.ImageFolder(folder)) == 4
    with pytest.raises(ValueError, match=r"without pictures: bird; .*broken\.png: is empty"):
        data.ImageFolder(folder, bad_files="skip")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"fastconv\[images\]"):
        data.ImageFolder(folder)


def _records(labels, extra=()):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (len(labels), 3072)).astype(np.uint8)
    heads = np.array(labels, np.uint8).reshape(len(labels), -1)
    return np.hstack([heads, pixels]).tobytes(), pixels.reshape(-1, 3, 32, 32)


def test_cifar(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin"):
        data.load_cifar(tmp_path)
    first, pixels = _records([3, 9])
    second, more = _records([0])
    (tmp_path / "data_batch_1.bin").write_bytes(first)
    (tmp_path / "data_batch_2.bin").write_bytes(second)
    with pytest.raises(FileNotFoundError, match=r"test_batch\.bin"):
        data.load_cifar(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(second)
    cifar = data.load_cifar(tmp_path)
    assert cifar.train_labels.tolist() == [3, 9, 0] and cifar.test_labels.tolist() == [0]
    np.testing.assert_allclose(cifar.train_images, np.concatenate([pixels, more]) / 255, rtol=1e-6)
    assert cifar.train_images.dtype == np.float32 and cifar.train_labels.dtype == np.int64


def test_cifar_100(tmp_path):
    content, pixels = _records([[1, 99], [2, 5]])
    for name in ("train.bin", "test.bin"):
        (tmp_path / name).write_bytes(content)
    cifar = data.load_cifar(tmp_path)
    assert cifar.test_labels.tolist() == [99, 5]
    np.testing.assert_array_equal(data.read_cifar(tmp_path / "test.bin", 100)[0], pixels)


@pytest.mark.parametrize(
    "content, word",
    [
        (b"", "no whole number of records"),
        (_records([1])[0][:-1], "3072 bytes"),
        (_records([1, 10])[0], "label 10 in record 1"),
    ],
)
def test_damaged_cifar(tmp_path, content, word):
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(ValueError, match=rf"data_batch_1\.bin: .*{word}"):
        data.read_cifar(tmp_path / "data_batch_1.bin")
    with pytest.raises(ValueError, match="classes must be 10 or 100"):
        data.read_cifar(tmp_path / "data_batch_1.bin", 20)
