"""Digits, IDX files and batches, with files that are truncated, corrupt or lie about their size."""

import gzip
import struct
import sys

import numpy as np
import pytest

from fastconv import data


def idx_bytes(array, code=0x08, shape=None):
    shape = array.shape if shape is None else shape
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "code, dtype", [(0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
@pytest.mark.parametrize("compress", [False, True])
def test_read_idx_types(tmp_path, code, dtype, compress):
    array = np.arange(-6, 6).astype(dtype).reshape(2, 3, 2)
    content = idx_bytes(array, code)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(content) if compress else content)
    result = data.read_idx(path)
    assert result.dtype == np.dtype(dtype).newbyteorder("=") and result.dtype.isnative
    np.testing.assert_array_equal(result, array)


def test_empty_idx(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(idx_bytes(np.zeros((0, 4), np.uint8)))
    assert data.read_idx(path).shape == (0, 4)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda good: b"", "not an IDX file"),
        (lambda good: good[:3], "not an IDX file"),
        (lambda good: b"\x01" + good[1:], "not an IDX file"),
        (lambda good: good[:2] + b"\x0a" + good[3:], "not an IDX file"),
        (lambda good: good[:9], "truncated in the header"),
        (lambda good: good[:3] + b"\0" + good[4:], "0 dimensions"),
        (lambda good: bytes([0, 0, 8, 255]) + bytes(4 * 255), "255 dimensions"),
        (lambda good: good[:-1], "more than the file can hold|truncated"),
        (lambda good: good[:16], "more than the file can hold|truncated"),
        (lambda good: good + b"\0", "longer than"),
        (lambda good: good[:4] + b"\xff" * 12 + good[16:], "more than the file can hold"),
        (lambda good: good[:4] + struct.pack(">3I", 2**31, 2, 2**31) + good[16:], "more than the file can hold"),
    ],
)
def test_damaged_idx(tmp_path, images, damage, message, compress):
    content = damage(idx_bytes(images))
    path = tmp_path / "train-images"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_idx(path)
    assert "train-images" in str(caught.value)


@pytest.mark.parametrize("keep", [3, 12, -8, -1])
def test_truncated_gzip(tmp_path, images, keep):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx_bytes(images))[:keep])
    with pytest.raises(ValueError, match=r"x\.gz"):
        data.read_idx(path)


def test_gzip_checksum_is_compared(tmp_path, images):
    content = bytearray(gzip.compress(idx_bytes(images)))
    content[-6] ^= 1
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged gzip"):
        data.read_idx(path)


def test_gzip_bomb_is_read_no_further_than_the_header_says(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(10, np.uint8)) + bytes(50_000_000)))
    with pytest.raises(ValueError, match="longer than"):
        data.read_idx(path)


def write_mnist(folder, images, labels, suffix="", dot=False):
    for part in ("train", "t10k"):
        for kind, array in (("images", images), ("labels", labels)):
            name = f"{part}-{kind}{'.' if dot else '-'}idx{array.ndim}-ubyte{suffix}"
            content = idx_bytes(array)
            (folder / name).write_bytes(gzip.compress(content) if suffix else content)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", [False, True])
def test_load_idx(tmp_path, images, suffix, dot):
    write_mnist(tmp_path, images, np.arange(5, dtype=np.uint8), suffix, dot)
    mnist = data.load_idx(tmp_path)
    assert mnist.train_images.shape == (5, 1, 4, 3) and mnist.train_images.dtype == np.float32
    np.testing.assert_array_equal(mnist.test_images[:, 0], images.astype(np.float32) / np.float32(255))
    assert mnist.train_labels.dtype == np.int64 and mnist.train_labels.tolist() == [0, 1, 2, 3, 4]


def test_load_idx_mismatch(tmp_path, images):
    write_mnist(tmp_path, images, np.arange(4, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"train-labels.*4 labels for the 5 images"):
        data.load_idx(tmp_path)
    write_mnist(tmp_path, images, np.arange(5, dtype=np.uint8))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images[:, :2]))
    with pytest.raises(ValueError, match="test images of"):
        data.load_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images[0]))
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte: expected uint8 images"):
        data.load_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(5, ">i2"), 0x0B))
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte: expected uint8 labels"):
        data.load_idx(tmp_path)


def test_load_idx_missing(tmp_path, images):
    with pytest.raises(FileNotFoundError, match="train-images"):
        data.load_idx(tmp_path)
    write_mnist(tmp_path, images, np.arange(5, dtype=np.uint8))
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels"):
        data.load_idx(tmp_path)


def test_load_digits():
    pytest.importorskip("sklearn")
    digits = data.load_digits()
    assert digits.train_images.shape == (1438, 1, 8, 8) and digits.train_images.dtype == np.float32
    assert digits.train_images.min() == 0 and digits.train_images.max() == 1
    assert sorted(set(digits.test_labels.tolist())) == list(range(10))
    again, other = data.load_digits(seed=0), data.load_digits(seed=1)
    np.testing.assert_array_equal(again.test_images, digits.test_images)
    assert not np.array_equal(other.test_labels, digits.test_labels)
    train = {image.tobytes() for image in digits.train_images}
    assert sum(image.tobytes() in train for image in digits.test_images) == 0


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1e-9, float("nan")])
def test_load_digits_bad_fraction(fraction):
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="test_fraction"):
        data.load_digits(test_fraction=fraction)


def test_load_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"fastconv\[demo\]"):
        data.load_digits()


def test_batches_cover_everything_once():
    x, y = np.arange(10), np.arange(10) * 2
    parts = list(data.batches(x, y, size=4, rng=np.random.default_rng(0)))
    assert [len(part[0]) for part in parts] == [4, 4, 2]
    seen = np.concatenate([part[0] for part in parts])
    assert sorted(seen.tolist()) == x.tolist() and seen.tolist() != x.tolist()
    assert all((part[1] == 2 * part[0]).all() for part in parts)


@pytest.mark.parametrize("size, error", [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)])
def test_batches_bad_size(size, error):
    with pytest.raises(error, match="size"):
        data.batches(np.arange(3), size=size)


def test_batches_bad_arrays():
    with pytest.raises(ValueError, match="lengths"):
        data.batches(np.arange(3), np.arange(4), size=2)
    with pytest.raises(ValueError, match="lengths"):
        data.batches(size=2)
