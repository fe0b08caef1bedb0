"""Loading of state dictionaries: everything is checked before anything is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastconv.cuda import is_device_array
from fastconv.devices import is_writable, thaw, to_host, write
from fastconv.nn.modules.arguments import is_floating
from fastconv.tensor import Tensor

__all__ = ["LoadResult", "host_array", "lazy_sizes", "load_entries"]


class LoadResult(NamedTuple):
    """What :meth:`Module.load_state_dict` did not match: keys it missed and keys it had no use for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not any(self):
            return "<All keys matched successfully>"
        return f"LoadResult(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def host_array(value: Any) -> np.ndarray:
    """`value` as a NumPy array: any array, a Tensor, a torch tensor, anything with ``__dlpack__``, or a sequence.

    Raises ValueError, TypeError, RuntimeError or BufferError, whichever the source of the value prefers.
    """
    if isinstance(value, Tensor):
        value = value.data
    if is_device_array(value):
        return to_host(value)
    if hasattr(value, "detach"):  # a torch tensor, which NumPy reads only without a graph and on the CPU
        value = value.detach().cpu()
        # NumPy has no bfloat16 of its own; float32 holds every one of its values exactly.
        return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


def _convert(key: str, target: np.ndarray, value: Any) -> np.ndarray | str:
    """A private copy of `value` in the dtype of `target`, or what is wrong with it."""
    try:
        array = host_array(value)
    except (ValueError, TypeError, RuntimeError, BufferError, OverflowError) as error:
        return f"{key!r} is no array: {type(value).__name__} ({error})"
    if is_floating(target.dtype):
        if not is_floating(array.dtype):
            return f"{key!r} has dtype {array.dtype}, the module needs a real floating type ({target.dtype})"
    elif target.dtype.kind in "iu":
        if array.dtype.kind not in "iu":
            return f"{key!r} has dtype {array.dtype}, the module needs an integer type ({target.dtype})"
    elif array.dtype != target.dtype:
        return f"{key!r} has dtype {array.dtype}, the module needs {target.dtype}"
    if array.shape != target.shape:
        return f"{key!r} has shape {array.shape}, the module needs {target.shape}"
    if not is_writable(target):
        return f"{key!r} is read-only in the module"
    with np.errstate(over="ignore", invalid="ignore"):
        # A copy in any case: the value may be a view of another entry that is about to be written.
        return np.array(array, dtype=target.dtype)


@contextlib.contextmanager
def lazy_sizes(module: Any, values: Any) -> Iterator[None]:
    """Context manager: the lazy layers below `module` take the sizes that `values` have, unless the body fails."""
    undo: list[Callable[[], None]] = []
    try:
        for path, each in module.named_modules() if isinstance(values, Mapping) else ():
            take = getattr(each, "_take_size", None)
            taken = take and take(values, f"{path}." if path else "")
            if taken:
                undo.append(taken)
        yield
    except BaseException:
        for take_back in undo:
            take_back()
        raise


def writable_state(module: Any) -> dict[str, Any]:
    """The state of `module`, whose packed weights are ordinary arrays again."""
    for parameter in module.parameters():
        thaw(parameter)
    state: dict[str, Any] = module.state_dict()
    return state


_MOST_SHOWN = 30
"""Problems of a state that a message lists."""


def load_entries(owner: str, targets: Mapping[str, Any], values: Mapping[str, Any], strict: bool) -> LoadResult:
    """Copy `values` into the arrays `targets` in place, or raise one ValueError that lists all problems."""
    if not isinstance(values, Mapping):
        raise TypeError(f"state_dict must be a mapping of names to arrays, got {type(values).__name__}")
    # States of torch before 0.4.1, and with them many published weights, lack the count of batches, which matters only
    # to a cumulative average: as in torch, it stays what it is.
    missing = [key for key in targets if key not in values and key.rpartition(".")[2] != "num_batches_tracked"]
    unexpected = [key for key in values if key not in targets]
    problems = [f"missing key {key!r}" for key in missing] if strict else []
    problems += [f"unexpected key {key!r}" for key in unexpected] if strict else []
    converted: dict[str, np.ndarray] = {}
    for key, target in targets.items():
        if key in values:
            result = _convert(key, target, values[key])
            if isinstance(result, str):
                problems.append(result)
            else:
                converted[key] = result
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        shown = problems[:_MOST_SHOWN]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        for prefix in ("model.", "module."):
            if targets and all(f"{prefix}{key}" in values for key in targets):
                shown.append(
                    f"all of its keys are there behind {prefix!r}: a checkpoint of fastconv.Trainer, or a wrapper"
                )
        raise ValueError("\n  ".join([f"cannot load this state into {owner}, which is unchanged; {count}:", *shown]))
    for key, array in converted.items():
        write(targets[key], array)
    return LoadResult(missing, unexpected)
