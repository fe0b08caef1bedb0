"""IDX files, the format that MNIST is distributed in.

Two zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, then the elements,
big-endian (Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits).
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from .dataset import TrainTest

__all__ = ["load_idx", "read_idx"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 20
# A deflate stream cannot expand beyond 1032:1 (zlib's technical details), so a header that asks for more is a lie.
_DEFLATE_EXPANSION = 1032


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one IDX file, plain or gzip-compressed.

    Parameters
    ----------
    path : path-like
        Compression is recognised by the content, not by the name.

    Returns
    -------
    ndarray
        uint8, int8, int16, int32, float32 or float64 in native byte order, in the shape that the file states.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is not an IDX file, is truncated, corrupt, or longer than its header says; the message names the file.
        No more memory is allocated than the file can fill.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastconv.data import read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     read_idx(path)
    array([7, 8, 9], dtype=uint8)
    """
    path = Path(path)
    with path.open("rb") as plain:
        stored = os.fstat(plain.fileno()).st_size
        compressed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        capacity = stored * _DEFLATE_EXPANSION if compressed else stored
        try:
            if compressed:
                with gzip.GzipFile(fileobj=plain) as unpacked:
                    return _read(cast(BinaryIO, unpacked), path, capacity)
            return _read(plain, path, capacity)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: damaged gzip data ({error})") from error


def _read(file: BinaryIO, path: Path, capacity: int) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise ValueError(f"{path}: not an IDX file (it starts with {magic.hex(' ') or 'nothing'})")
    dtype, rank = np.dtype(_TYPES[magic[2]]), magic[3]
    header = file.read(4 * rank)
    if len(header) < 4 * rank:
        raise ValueError(f"{path}: truncated in the header")
    shape = struct.unpack(f">{rank}I", header)
    if rank == 0 or rank > 8:
        raise ValueError(f"{path}: {rank} dimensions, expected 1 to 8")
    size = math.prod(shape) * dtype.itemsize
    if size > capacity:
        raise ValueError(f"{path}: the header promises {size} bytes for the shape {shape}, more than the file can hold")
    content = bytearray()
    while len(content) < size:
        chunk = file.read(min(_CHUNK, size - len(content)))
        if not chunk:
            raise ValueError(f"{path}: truncated, {len(content)} of the {size} bytes of the shape {shape}")
        content += chunk
    # Reading past the end also makes gzip compare its checksum.
    if file.read(1):
        raise ValueError(f"{path}: longer than the shape {shape} of its header")
    array = np.frombuffer(content, dtype=dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def load_idx(directory: str | os.PathLike[str]) -> TrainTest:
    """Read MNIST, or a data set in its format, from a directory.

    Parameters
    ----------
    directory : path-like
        Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte``; each may end in ``.gz`` and may have a dot in place of the second hyphen.

    Returns
    -------
    TrainTest
        Images (N, 1, H, W) in float32 from 0 to 1, labels int64.

    Raises
    ------
    FileNotFoundError
        If the directory or one of the files is missing.
    ValueError
        If a file is damaged (see `read_idx`) or the files do not belong together; the message names the file.

    Examples
    --------
    >>> from fastconv.data import load_idx
    >>> load_idx("no/such/directory")
    Traceback (most recent call last):
    FileNotFoundError: no/such/directory: no such directory
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory")
    train_images, train_labels = _pair(directory, "train")
    test_images, test_labels = _pair(directory, "t10k")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise ValueError(
            f"{directory}: training images of {train_images.shape[2:]}, test images of {test_images.shape[2:]} pixels"
        )
    return TrainTest(train_images, train_labels, test_images, test_labels)


def _pair(directory: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images_path = _find(directory, f"{part}-images", "idx3-ubyte")
    labels_path = _find(directory, f"{part}-labels", "idx1-ubyte")
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.dtype != np.uint8 or images.size == 0:
        raise ValueError(f"{images_path}: expected uint8 images (N, H, W), got {images.dtype} {images.shape}")
    if labels.ndim != 1 or labels.dtype != np.uint8:
        raise ValueError(f"{labels_path}: expected uint8 labels (N,), got {labels.dtype} {labels.shape}")
    if len(labels) != len(images):
        raise ValueError(f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path.name}")
    return (images[:, None] / np.float32(255)).astype(np.float32, copy=False), labels.astype(np.int64)


def _find(directory: Path, stem: str, ending: str) -> Path:
    for name in (f"{stem}-{ending}", f"{stem}.{ending}"):
        for path in (directory / name, directory / f"{name}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(f"{directory}: no file {stem}-{ending} or {stem}-{ending}.gz")
