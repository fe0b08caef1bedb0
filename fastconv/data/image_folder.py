"""`ImageFolder`: a folder of pictures for each class; `ImageFiles`: pictures alone; both read through Pillow.

Pictures of all kinds become arrays of one kind: greyscale, palette, CMYK and transparent ones are converted, and those
of 16 bits are scaled (Pillow on its own would cut them off at 255). What cannot be read is named, and by choice an
error or left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..nn.modules.arguments import choice, sizes
from .dataset import Dataset

__all__ = ["ImageFiles", "ImageFolder", "pictures", "read_image"]

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


class ImageFiles(Dataset):
    """Pictures as images, without labels: what there is to predict.

    Parameters
    ----------
    paths : sequence of path-like
        The pictures.
    transform, mode, size, convert, background, bad_files
        As for :class:`ImageFolder`.

    Attributes
    ----------
    paths : list of Path
        The pictures.
    skipped : list of (Path, str)
        What was left out, and why.

    Raises
    ------
    ImportError
        Pillow is not installed.
    ValueError
        An option breaks its rule; a picture that cannot be read, when it is asked for. The message names it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastconv.data import ImageFiles
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "two.pgm")
    ...     _ = path.write_bytes(b"P5 2 1 255 " + bytes([0, 255]))
    ...     ImageFiles([path], mode="L")[0]
    array([[[0., 1.]]], dtype=float32)
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        transform: Callable[[np.ndarray], Any] | None = None,
        *,
        mode: str = "RGB",
        size: int | tuple[int, int] | None = None,
        convert: bool = True,
        background: float = 1.0,
        bad_files: str = "raise",
    ) -> None:
        _pillow()
        self.transform = transform
        self.mode = choice("mode", mode, tuple(_CHANNELS))
        self.size: Any = None if size is None else sizes("size", size, 2, 1)
        self.convert, self.background = bool(convert), background
        self.paths = [Path(path) for path in paths]
        self.skipped: list[tuple[Path, str]] = []
        if choice("bad_files", bad_files, ("raise", "skip")) == "skip":
            self.skipped = self.check()
            left_out = {path for path, _ in self.skipped}
            self.paths = [path for path in self.paths if path not in left_out]

    def check(self) -> list[tuple[Path, str]]:
        """Decode every picture once; which cannot be read, and why."""

        def problem(path: Path) -> str | None:
            try:
                self._read(path)
            except (ValueError, OSError) as error:
                return str(error)
            return None

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            return [(path, why) for path, why in zip(self.paths, pool.map(problem, self.paths)) if why is not None]

    def _read(self, path: Path) -> np.ndarray:
        return read_image(path, self.mode, size=self.size, convert=self.convert, background=self.background)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        image = self._read(self.paths[index])
        return image if self.transform is None else self.transform(image)


class ImageFolder(ImageFiles):
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
    targets : ndarray of int64
        The classes of all pictures.
    paths : list of Path
        The pictures.
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
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: no such directory")
        self.classes = sorted(entry.name for entry in self.root.iterdir() if _is_class(entry))
        if not self.classes:
            raise ValueError(f"{self.root}: no class folders")
        labels = {path: i for i, name in enumerate(self.classes) for path in pictures(self.root / name)}
        self._check_classes(labels.values())
        super().__init__(
            list(labels),
            transform,
            mode=mode,
            size=size,
            convert=convert,
            background=background,
            bad_files=bad_files,
        )
        self.targets = np.array([labels[path] for path in self.paths], np.int64)
        self._check_classes(self.targets.tolist(), f"; {self.skipped[0][1]}" if self.skipped else "")

    def _check_classes(self, labels: Iterable[int], why: str = "") -> None:
        missing = sorted(set(range(len(self.classes))) - set(labels))
        if missing:
            names = ", ".join(self.classes[i] for i in missing)
            raise ValueError(f"{self.root}: class folders without pictures: {names}{why}")

    @property
    def samples(self) -> list[tuple[Path, int]]:
        """The pictures with their classes."""
        return list(zip(self.paths, self.targets.tolist()))

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return super().__getitem__(index), int(self.targets[index])


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def pictures(path: Path) -> list[Path]:
    """The picture files below a directory, by their suffixes; `path` itself where it is a file."""
    if not path.is_dir():
        return [path]
    return sorted(found for found in path.rglob("*") if found.suffix.lower() in _SUFFIXES and found.is_file())
