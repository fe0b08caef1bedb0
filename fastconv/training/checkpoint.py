"""All that a training run needs to go on bit for bit, in one file that holds no code.

The arrays (parameters, buffers, moments of the optimiser) are entries of a .npz or .safetensors file, under
``model.<name>`` and ``optimizer.<number>.<moment>``; everything else is JSON in the entry ``header``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..devices import is_array
from ..serialization import load, save

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint"]

_FORMAT = "fastconv checkpoint 1"


@dataclass
class Checkpoint:
    """State of a run at the end of an epoch.

    Attributes
    ----------
    epoch : int
        Epochs that are done.
    model : dict of str to ndarray
        The network's ``state_dict``.
    optimizer : dict
        The optimiser's ``state_dict``.
    scheduler, loader, rng : dict or None
        States of the schedule, of the loader and of the generator of :func:`fastconv.manual_seed`.
    history : list of dict
        See :class:`History`.
    config : dict
        What the run was started with; going on with something else is refused.
    progress : dict
        The best value so far, and the epochs since.
    """

    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None = None
    loader: dict[str, Any] | None = None
    rng: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)


_IN_HEADER = ("epoch", "scheduler", "loader", "rng", "history", "config", "progress")


def write_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the file appears whole or not at all, and an older one stays until then.

    Raises
    ------
    ValueError
        A suffix other than ``.npz`` and ``.safetensors``.
    TypeError
        What JSON cannot hold, among the options.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile, numpy as np, fastconv.nn as nn, fastconv.optim as optim
    >>> from fastconv.training import Checkpoint, read_checkpoint, write_checkpoint
    >>> net = nn.Linear(2, 1)
    >>> state = Checkpoint(3, net.state_dict(), optim.SGD(net.parameters()).state_dict())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_checkpoint(folder + "/last.npz", state)
    ...     read_checkpoint(folder + "/last.npz").epoch
    3
    """
    arrays = {f"model.{name}": value for name, value in checkpoint.model.items()}
    states: dict[str, dict[str, Any]] = {}
    for number, entries in checkpoint.optimizer["state"].items():
        states[str(number)] = {}
        for name, value in entries.items():
            if is_array(value):
                arrays[f"optimizer.{number}.{name}"] = value
            else:
                states[str(number)][name] = value
    header = {
        "format": _FORMAT,
        "optimizer": {"param_groups": checkpoint.optimizer["param_groups"], "state": states},
        **{name: getattr(checkpoint, name) for name in _IN_HEADER},
    }
    text = json.dumps(header, default=_number)
    save({**arrays, "header": np.frombuffer(text.encode(), np.uint8)}, path)


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a checkpoint holds numbers, strings and lists, got {type(value).__name__}")


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what :func:`write_checkpoint` has written.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is damaged, or no checkpoint (weights alone are none); the message names it.
    """
    arrays = load(path)
    if "header" not in arrays:
        raise ValueError(f"{path} is no checkpoint: it holds weights alone; load them with load_state_dict")
    try:
        header = json.loads(arrays.pop("header").tobytes().decode())
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']!r}")
        optimizer: dict[str, Any] = {
            "param_groups": list(header["optimizer"]["param_groups"]),
            "state": {int(number): dict(entry) for number, entry in header["optimizer"]["state"].items()},
        }
        for name in [name for name in arrays if name.startswith("optimizer.")]:
            _, number, moment = name.split(".", 2)
            optimizer["state"][int(number)][moment] = arrays.pop(name)
        model = {name.removeprefix("model."): value for name, value in arrays.items()}
        return Checkpoint(model=model, optimizer=optimizer, **{name: header[name] for name in _IN_HEADER})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint of this version, or damaged ({error})") from error
