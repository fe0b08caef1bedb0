"""CIFAR-10 and CIFAR-100 in their binary version.

Records of one label byte (CIFAR-100: coarse label, fine label) and 3 * 32 * 32 bytes, red before green before blue
(A. Krizhevsky: Learning multiple layers of features from tiny images, 2009).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .dataset import TrainTest

__all__ = ["load_cifar", "read_cifar"]

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_TEN = ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"])
_HUNDRED = (["train.bin"], ["test.bin"])


def read_cifar(path: str | os.PathLike[str], classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Read one file of the binary version.

    Parameters
    ----------
    path : path-like
    classes : {10, 100}
        Which of the two data sets; of CIFAR-100's labels the fine ones are read.

    Returns
    -------
    images : ndarray of uint8, shape (N, 3, 32, 32)
    labels : ndarray of int64, shape (N,)

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no whole number of records, or has a label outside the classes; the message names the file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastconv.data import read_cifar
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "two.bin")
    ...     _ = path.write_bytes(bytes([3]) + bytes(3072) + bytes([9]) + bytes(3072))
    ...     images, labels = read_cifar(path)
    >>> images.shape, labels
    ((2, 3, 32, 32), array([3, 9]))
    """
    if classes not in (10, 100):
        raise ValueError(f"classes must be 10 or 100, got {classes!r}")
    path = Path(path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    record = _PIXELS + (1 if classes == 10 else 2)
    if not content.size or content.size % record:
        raise ValueError(f"{path}: {content.size} bytes, which is no whole number of records of {record} bytes")
    records = content.reshape(-1, record)
    labels = records[:, -_PIXELS - 1].astype(np.int64)
    if labels.max() >= classes:
        wrong = int(np.argmax(labels >= classes))
        raise ValueError(f"{path}: label {labels[wrong]} in record {wrong}, expected below {classes}")
    return records[:, -_PIXELS:].reshape(-1, 3, _SIDE, _SIDE), labels


def load_cifar(directory: str | os.PathLike[str]) -> TrainTest:
    """Read CIFAR-10 or CIFAR-100, whichever the directory holds, in the binary version.

    Parameters
    ----------
    directory : path-like
        Holds ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, or ``train.bin`` and ``test.bin``;
        as many of the five training files as there are.

    Returns
    -------
    TrainTest
        Images (N, 3, 32, 32) in float32 from 0 to 1, labels int64.

    Raises
    ------
    FileNotFoundError
        If the directory or one of the files is missing.
    ValueError
        If a file is damaged, see `read_cifar`.

    Examples
    --------
    >>> from fastconv.data import load_cifar
    >>> load_cifar("no/such/directory")
    Traceback (most recent call last):
    FileNotFoundError: no/such/directory: no such directory
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory")
    for classes, (train, test) in ((10, _TEN), (100, _HUNDRED)):
        found = [directory / name for name in train if (directory / name).is_file()]
        if not found:
            continue
        if not (directory / test[0]).is_file():
            raise FileNotFoundError(f"{directory}: no file {test[0]}")
        parts = [[read_cifar(path, classes) for path in paths] for paths in (found, [directory / test[0]])]
        images, labels = zip(*((np.concatenate(i), np.concatenate(y)) for i, y in (zip(*part) for part in parts)))
        scaled = [(part / np.float32(255)).astype(np.float32, copy=False) for part in images]
        return TrainTest(scaled[0], labels[0], scaled[1], labels[1])
    raise FileNotFoundError(f"{directory}: no file {_TEN[0][0]} (CIFAR-10) or {_HUNDRED[0][0]} (CIFAR-100)")
