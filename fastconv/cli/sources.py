"""What ``--data`` names: scikit-learn's digits, MNIST or CIFAR files, or a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import data
from ..data.transforms import Resize

__all__ = ["Source", "open_source"]

DIGITS = "digits"
_VALIDATION = ("val", "validation", "test")


class Source(NamedTuple):
    """Data sets of images of one size, and the names of their classes."""

    train: Any
    validation: Any
    classes: list[str]
    channels: int


def open_source(
    where: str, size: tuple[int, int], *, seed: int, fraction: float, grey: bool, bad_files: str, say: Any = None
) -> Source:
    """Open `where`; images become `size`, and `fraction` of those that have no test part are kept for validation."""
    if where == DIGITS:
        return _arrays(data.load_digits(seed=seed), size)
    path = Path(where)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such directory; --data takes one, or the word {DIGITS}")
    names = {entry.name for entry in path.iterdir()}
    if any(name.startswith("train-images") for name in names):
        return _arrays(data.load_idx(path), size)
    if names & {"data_batch_1.bin", "train.bin"}:
        return _arrays(data.load_cifar(path), size)
    options: dict[str, Any] = {"mode": "L" if grey else "RGB", "size": size, "bad_files": bad_files}
    return _folder(path, options, seed, fraction, say or (lambda *_: None))


def _arrays(arrays: data.TrainTest, size: tuple[int, int]) -> Source:
    resize = Resize(size)
    train, test = (
        data.TensorDataset(resize(images), labels)
        for images, labels in ((arrays.train_images, arrays.train_labels), (arrays.test_images, arrays.test_labels))
    )
    count = 1 + int(max(arrays.train_labels.max(), arrays.test_labels.max()))
    return Source(train, test, [str(i) for i in range(count)], arrays.train_images.shape[1])


def _folder(path: Path, options: dict[str, Any], seed: int, fraction: float, say: Any) -> Source:
    channels = 1 if options["mode"] == "L" else 3
    kept = [name for name in _VALIDATION if (path / name).is_dir()]
    if (path / "train").is_dir() and kept:
        train, validation = (data.ImageFolder(path / name, **options) for name in ("train", kept[0]))
        if train.classes != validation.classes:
            odd = sorted({*train.classes} ^ {*validation.classes})
            raise ValueError(
                f"{path}: train and {kept[0]} must have the same classes; {', '.join(odd)} is in one of them"
            )
        folders = [train, validation]
        source = Source(train, validation, train.classes, channels)
    else:
        whole = data.ImageFolder(path, **options)
        order = np.random.default_rng(seed).permutation(len(whole))
        held_out = round(len(whole) * fraction)
        if not 0 < held_out < len(whole):
            raise ValueError(f"--validation must leave pictures on both sides, got {fraction} of {len(whole)}")
        kept_out, rest = (np.sort(part).tolist() for part in (order[:held_out], order[held_out:]))
        folders = [whole]
        source = Source(data.Subset(whole, rest), data.Subset(whole, kept_out), whole.classes, channels)
    for folder in folders:
        for _, why in folder.skipped:
            say(f"left out: {why}")
    return source
