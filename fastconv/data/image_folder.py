"""`ImageFolder`: a folder of pictures for each class, read through Pillow.

Pictures of all kinds become arrays of one kind: greyscale, palette, CMYK and transparent ones are converted, and those
of 16 bits are scaled (Pillow on its own would cut them off at 255). What cannot be read is named, and by choice an
error or left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..nn.modules.arguments import choice, sizes
from .dataset import Dataset

__all__ = ["ImageFolder", "read_image"]

_SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
_CHANNELS = {"RGB": 3, "L": 1}
_DIRECT = {"RGB": ("RGB",), "L": ("L", "1")}


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise ImportError('pictures need Pillow, which is not installed: pip install "fastconv[images]"') from error
    return PIL


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever Pillow raises about a file's content becomes a ValueError that names the file."""
    pil = _pillow()
    try:
        yield
    except pil.UnidentifiedImageError as error:
        kind = "is empty" if not path.stat().st_size else "is no picture that Pillow knows"
        raise ValueError(f"{path}: {kind}") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (OSError, SyntaxError, ValueError, EOFError, pil.Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: damaged, truncated or of an unknown kind ({error})") from error


def read_image(
    path: str | os.PathLike[str],
    mode: str = "RGB",
    *,
    size: int | tuple[int, int] | None = None,
    convert: bool = True,
    background: float = 1.0,
) -> np.ndarray:
    """Read one picture.

    Parameters
    ----------
    path : path-like
        JPEG, PNG or whatever else Pillow reads.
    mode : {"RGB", "L"}
        Three channels, or one of grey values.
    size : int or (height, width), keyword only, optional
        The picture is scaled until it covers this size, its proportions kept, and cut in the centre.
    convert : bool, keyword only
        Whether pictures of other kinds (greyscale, palette, CMYK, with transparency, of 16 bits) are converted. False
        refuses them.
    background : float, keyword only
        Grey value from 0 to 1 that shines through where a picture is transparent.

    Returns
    -------
    ndarray of float32, shape (3, H, W) or (1, H, W)
        From 0 to 1.

    Raises
    ------
    ImportError
        Pillow is not installed.
    OSError
        The file cannot be opened.
    ValueError
        It is empty, damaged, truncated, no picture, or of a kind that is refused; the message names the file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastconv.data import read_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "two.pgm")
    ...     _ = path.write_bytes(b"P5 2 1 255 " + bytes([0, 255]))
    ...     read_image(path, "L")
    array([[[0., 1.]]], dtype=float32)
    """
    choice("mode", mode, tuple(_CHANNELS))
    shape = None if size is None else sizes("size", size, 2, 1)
    path, pil = Path(path), _pillow()
    with _named(path), pil.Image.open(path) as picture:
        picture.load()
        kind = picture.mode
        if convert or kind in _DIRECT[mode]:
            picture, scale = _converted(picture, mode, background)
            if shape is not None:
                picture = pil.ImageOps.fit(picture, shape[::-1], pil.Image.Resampling.BILINEAR)
            array = np.asarray(picture, np.float32) * np.float32(scale)
            array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
            return np.ascontiguousarray(np.broadcast_to(array, (_CHANNELS[mode], *array.shape[1:])))
    raise ValueError(f"{path}: is of mode {kind}, not {mode}, and convert is False")


def _converted(picture: Any, mode: str, background: float) -> tuple[Any, float]:
    """The picture in a mode that holds its values, and the factor that takes them to 0 to 1."""
    pil = _pillow()
    kind = picture.mode
    if kind.startswith("I"):  # 16 bits, in all byte orders; Pillow widens some of them to 32
        values = np.asarray(picture).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("integers outside 16 bits")
        return pil.Image.fromarray(values), 1 / 65535
    if kind == "F":
        raise ValueError("floating-point pictures have no agreed range")
    if kind in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        clear = pil.Image.new("RGBA", picture.size, (round(255 * background),) * 3 + (255,))
        picture = pil.Image.alpha_composite(clear, picture.convert("RGBA"))
    return picture.convert(mode), 1 / 255


class ImageFolder(Dataset):
    """Pictures in a folder for each class: ``root/cat/1.jpg``, ``root/dog/2.png``.

    Parameters
    ----------
    root : path-like
        Its folders are the classes, numbered in the order of their names; pictures may lie deeper in them.
    transform : callable, optional
        Applied to each image. What is drawn at random belongs to the :class:`DataLoader`.
    mode : {"RGB", "L"}, keyword only
        Three channels, or one of grey values.
    size : int or (height, width), keyword only, optional
        Size of all images, see :func:`read_image`; batches need one.
    convert, background
        What becomes of greyscale, transparent and other pictures, see :func:`read_image`.
    bad_files : {"raise", "skip"}, keyword only
        "skip" decodes every picture once now, and leaves out those that cannot be read; "raise" raises when such a
        picture is asked for.

    Attributes
    ----------
    classes : list of str
        Names of the folders.
    samples : list of (Path, int)
        The pictures with their classes.
    skipped : list of (Path, str)
        What was left out, and why.

    Raises
    ------
    ImportError
        Pillow is not installed.
    FileNotFoundError
        No such directory.
    ValueError
        No class folders; class folders without pictures (or without one that can be read); a picture that cannot be
        read, when it is asked for. The message names them.

    Notes
    -----
    Source: torchvision.datasets.ImageFolder.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastconv.data import ImageFolder
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("dark", "light"):
    ...     pathlib.Path(folder.name, name).mkdir()
    ...     _ = pathlib.Path(folder.name, name, "1.pgm").write_bytes(b"P5 1 1 255 " + bytes([255 * (name == "light")]))
    >>> data = ImageFolder(folder.name, mode="L")
    >>> data.classes, data[1]
    (['dark', 'light'], (array([[[1.]]], dtype=float32), 1))
    >>> folder.cleanup()
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[np.ndarray], Any] | None = None,
        *,
        mode: str = "RGB",
        size: int | tuple[int, int] | None = None,
        convert: bool = True,
        background: float = 1.0,
        bad_files: str = "raise",
    ) -> None:
        _pillow()
        self.root = Path(root)
        self.transform = transform
        self.mode = choice("mode", mode, tuple(_CHANNELS))
        self.size: Any = None if size is None else sizes("size", size, 2, 1)
        self.convert, self.background = bool(convert), background
        choice("bad_files", bad_files, ("raise", "skip"))
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: no such directory")
        self.classes = sorted(entry.name for entry in self.root.iterdir() if _is_class(entry))
        if not self.classes:
            raise ValueError(f"{self.root}: no class folders")
        self.samples = [(path, i) for i, name in enumerate(self.classes) for path in _pictures(self.root / name)]
        self.skipped: list[tuple[Path, str]] = []
        self._check_classes()
        if bad_files == "skip":
            self.skipped = self.check()
            left_out = {path for path, _ in self.skipped}
            self.samples = [sample for sample in self.samples if sample[0] not in left_out]
            self._check_classes()

    def _check_classes(self) -> None:
        missing = sorted(set(range(len(self.classes))) - {label for _, label in self.samples})
        if missing:
            why = f"; {self.skipped[0][1]}" if self.skipped else ""
            raise ValueError(
                f"{self.root}: class folders without pictures: {', '.join(self.classes[i] for i in missing)}{why}"
            )

    def check(self) -> list[tuple[Path, str]]:
        """Decode every picture once; which cannot be read, and why."""

        def problem(sample: tuple[Path, int]) -> str | None:
            try:
                self._read(sample[0])
            except (ValueError, OSError) as error:
                return str(error)
            return None

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            problems = pool.map(problem, self.samples)
            return [(path, why) for (path, _), why in zip(self.samples, problems) if why is not None]

    def _read(self, path: Path) -> np.ndarray:
        return read_image(path, self.mode, size=self.size, convert=self.convert, background=self.background)

    @property
    def targets(self) -> np.ndarray:
        """The classes of all samples, int64."""
        return np.array([label for _, label in self.samples], np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        image = self._read(path)
        return (image if self.transform is None else self.transform(image)), label


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
