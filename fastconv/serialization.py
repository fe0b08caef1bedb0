"""Weights on disk: ``.safetensors`` and ``.npz``, neither of which can run code when it is read."""

from __future__ import annotations

import io
import os
import secrets
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from .devices import named_dtype
from .nn.modules.module import Module
from .nn.modules.state import host_array

__all__ = ["load", "save"]


def save(obj: Module | Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the state of a module, or a dictionary of arrays, to a file.

    Parameters
    ----------
    obj : Module or mapping of str to array
        A Module is saved as its ``state_dict()``. Values may be arrays, Tensors or torch tensors.
    path : str or path
        Ends in ``.safetensors`` (needs the safetensors package; other programs read the file, torch's included) or
        ``.npz`` (NumPy alone, no bfloat16).

    Raises
    ------
    ValueError
        Another suffix.
    TypeError
        A key is no string, or a value is of a dtype that the format cannot hold.
    ImportError
        safetensors is not installed.
    OSError
        The file cannot be written.

    Notes
    -----
    The file appears whole or not at all: it is written beside its place and moved there, so that an interrupted save
    leaves an older file as it was.

    Examples
    --------
    >>> import tempfile, numpy as np, fastconv as fc, fastconv.nn as nn
    >>> net = nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fc.save(net, folder + "/net.npz")
    ...     state = fc.load(folder + "/net.npz")
    >>> net.load_state_dict(state)
    <All keys matched successfully>
    """
    target = Path(path)
    write = _format_of(target, _WRITERS)
    entries = obj.state_dict() if isinstance(obj, Module) else obj
    if not isinstance(entries, Mapping):
        raise TypeError(f"obj must be a Module or a mapping of names to arrays, got {type(obj).__name__}")
    arrays: dict[str, np.ndarray] = {}
    for name, value in entries.items():
        if not isinstance(name, str):
            raise TypeError(f"names must be strings, got {name!r}")
        array = host_array(value)
        # Little-endian and C order is what both formats keep; ascontiguousarray would turn 0-d into 1-d.
        arrays[name] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    with replace_file(target) as file:
        write(arrays, file)


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once the block has ended without an error."""
    target = Path(path)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the arrays that :func:`save`, safetensors or ``numpy.savez`` has written.

    Parameters
    ----------
    path : str or path
        Ends in ``.safetensors`` or ``.npz``.

    Returns
    -------
    dict of str to numpy.ndarray
        What ``Module.load_state_dict`` takes. bfloat16 entries need the ml_dtypes package.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Another suffix, or a file that is truncated, corrupt, or holds pickled objects; the message names the file.
    ImportError
        safetensors (or, for bfloat16, ml_dtypes) is not installed.

    Examples
    --------
    >>> import tempfile, numpy as np, fastconv as fc
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fc.save({"kernel": np.eye(2)}, folder + "/kernel.npz")
    ...     fc.load(folder + "/kernel.npz")
    {'kernel': array([[1., 0.],
           [0., 1.]])}
    """
    source = Path(path)
    read = _format_of(source, _READERS)
    with open(source, "rb") as file:
        return read(file, source)


def _format_of(path: Path, table: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    if path.suffix.lower() not in table:
        hint = "; for torch's own files net.load_state_dict(torch.load(path))" if path.suffix in (".pt", ".pth") else ""
        raise ValueError(f"path must end in {' or '.join(table)}, got {str(path)!r}{hint}")
    return table[path.suffix.lower()]


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            ".safetensors files need the safetensors package: pip install 'fastconv[demo]'; .npz needs nothing"
        ) from error
    return safetensors


def _write_safetensors(arrays: Mapping[str, np.ndarray], file: IO[bytes]) -> None:
    safetensors = _safetensors()
    for name, array in arrays.items():
        if array.dtype.name not in _NAMES:
            raise TypeError(f"{name!r} has dtype {array.dtype}; .safetensors holds {', '.join(_NAMES)}")
    file.write(safetensors.numpy.save(dict(arrays)))


def _read_safetensors(file: IO[bytes], path: Path) -> dict[str, np.ndarray]:
    safetensors = _safetensors()
    try:
        entries = safetensors.deserialize(file.read())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no whole .safetensors file: {error}") from error
    arrays = {}
    for name, entry in entries:
        word = entry["dtype"]
        if word not in _WORDS and word != "BF16":
            raise ValueError(f"{path}: entry {name!r} has dtype {word}, which NumPy does not know")
        dtype = named_dtype("bfloat16") if word == "BF16" else np.dtype(_WORDS[word])
        # A copy, because whether NumPy may write to the entry's buffer depends on safetensors' version.
        arrays[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"]).copy()
    return arrays


def _write_npz(arrays: Mapping[str, np.ndarray], file: IO[bytes]) -> None:
    # numpy.savez would take the names as keyword arguments, among which "file" is its own.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            if array.dtype.kind not in "biufcSU":
                raise TypeError(f"{name!r} has dtype {array.dtype}, which .npz cannot hold; use .safetensors")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read_npz(file: IO[bytes], path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    raise ValueError(f"member {member.filename!r} is no .npy array")
                # The whole member first, which checks its CRC: what stands in its header is then at least no accident.
                content = io.BytesIO(archive.read(member))
                arrays[member.filename.removesuffix(".npy")] = _read_npy(content)
    except (ValueError, EOFError, OSError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is no whole .npz file of plain arrays: {error}") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no whole .npz file: {error}") from error
    return arrays


def _read_npy(content: io.BytesIO) -> np.ndarray:
    try:
        return np.lib.format.read_array(content, allow_pickle=False)
    except MemoryError as error:
        # The content is in memory already, so only a header that promises far more than follows ends here.
        raise ValueError("an array's header does not match its size") from error


_WORDS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "U64": "<u8",
    "I32": "<i4",
    "U32": "<u4",
    "I16": "<i2",
    "U16": "<u2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_NAMES = (*(np.dtype(code).name for code in _WORDS.values()), "bfloat16")
_WRITERS = {".safetensors": _write_safetensors, ".npz": _write_npz}
_READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}
