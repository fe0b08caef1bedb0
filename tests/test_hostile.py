"""Malformed input: the right answer or one clear error, never a crash, a hang or a half-written output.

The calls are the rows of ``hostile`` and ``advisories``. They run in a process of their own, one for each backend, and
one more after each row that ends it.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv.nn.functional as F
import hostile_process
from conftest import BACKENDS
from hostile import VALID, Row, f32


@functools.cache
def outcomes(backend_name: str) -> dict[str, dict]:
    """What each row did under a backend; a row that ended its process is noted and the rest goes on in another."""
    done: dict[str, dict] = {}
    left = list(hostile_process.ROWS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
    while left:
        child = subprocess.run(
            [sys.executable, str(Path(hostile_process.__file__)), backend_name],
            input=json.dumps(left),
            capture_output=True,
            text=True,
            env=environment,
            timeout=600,
        )
        started = None
        for line in child.stdout.splitlines():
            event = json.loads(line)
            started = event.pop("start", started)
            if "done" in event:
                done[event.pop("done")] = event
        if started is None:
            raise RuntimeError(f"{hostile_process.__file__} did not start: {child.stderr}")
        if started not in done:
            end = "hung" if "Timeout" in child.stderr else f"ended with status {child.returncode}"
            done[started] = {"died": f"the process {end}\n{child.stderr[-3000:]}"}
        left = left[left.index(started) + 1 :]
    return done


def verdict(row: Row, actual: dict) -> str | None:
    """What is wrong with an outcome, or None."""
    if "died" in actual:
        return actual["died"]
    if "shape" in actual:
        if not row.result:
            return f"accepted, with a result of shape {actual['shape']}"
        if row.shape is not None and tuple(actual["shape"]) != row.shape:
            return f"result of shape {actual['shape']}, expected {row.shape}"
        return None
    said = f"{actual['raised']}: {actual['message']}"
    if not set(row.errors) & set(actual["types"]):
        return f"not one of {row.errors}: {said}"
    words = {word.strip("().,:;[]`'\"") for word in re.split(r"[\s=.\[(]", actual["message"])}
    if actual["raised"] != "MemoryError" and not words & set(row.names):
        return f"names none of {row.names}: {said}"
    return None


GROUPS: dict[str, list[Row]] = {}
for _row in hostile_process.ROWS.values():
    GROUPS.setdefault(_row.id.partition("-")[0], []).append(_row)


# Nothing waits for a GPU to look at indices: what they name outside the plane is left out there.
INDICES = re.compile(r"_pool_backward-saved-at|_unpool_\w+-indices-at|^pytorch-\d+-unpool-|^saved-negative$")


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("backend_name", BACKENDS)
def test_rows(backend_name, group):
    """All rows of a function, or of a kind of advisory."""
    results = outcomes(backend_name)
    rows = [row for row in GROUPS[group] if backend_name != "cuda" or not INDICES.search(row.id)]
    problems = {row.id: problem for row in rows if (problem := verdict(row, results[row.id])) is not None}
    assert not problems, f"{len(problems)} of {len(GROUPS[group])} rows:\n" + "\n".join(
        f"{id}: {problem}" for id, problem in problems.items()
    )


def test_every_backend_function_has_rows(backend):
    functions = {name for name in dir(backend) if name.endswith(("_forward", "_backward")) or "_backward_" in name}
    assert functions == set(VALID)


NORMS = {
    "batch_norm_forward": (True, 0.1, 1e-5),
    "batch_norm_relu_forward": (True, 0.1, 1e-5, None, 6.0),
    "instance_norm_forward": (True, 0.1, 1e-5),
}


@pytest.mark.parametrize("function", NORMS)
@pytest.mark.parametrize(
    "spoil", ["read_only_mean", "read_only_var", "one_array", "overlap", "broadcast", "short", "int"]
)
def test_running_statistics_are_checked_before_any_is_written(backend, function, spoil):
    x = f32(3, 4, 5, 5)
    memory = np.arange(1, 13, dtype=np.float32)
    mean, var = memory[:4], memory[4:8]
    if spoil == "read_only_mean":
        mean.flags.writeable = False
    elif spoil == "read_only_var":
        var.flags.writeable = False
    elif spoil == "one_array":
        var = mean
    elif spoil == "overlap":
        var = memory[3:7]
    elif spoil == "broadcast":
        var = np.lib.stride_tricks.as_strided(memory[8:], (4,), (0,))
    elif spoil == "short":
        var = memory[4:7]
    else:
        var = np.ones(4, np.int64)
    with pytest.raises((ValueError, TypeError), match="running_"):
        getattr(backend, function)(x, None, None, mean, var, *NORMS[function])
    np.testing.assert_array_equal(memory, np.arange(1, 13))


@pytest.mark.parametrize("function", NORMS)
def test_a_refused_call_leaves_the_running_statistics(backend, function):
    mean, var = np.zeros(4, np.float32), np.ones(4, np.float32)
    bad_calls = [
        (f32(3, 4, 5), f32(3), None, mean, var, *NORMS[function]),
        (f32(3, 4, 5), f32(4), f32(5), mean, var, *NORMS[function]),
        (f32(3, 5, 5), None, None, mean, var, *NORMS[function]),
        (f32(3, 4, 5), None, None, mean, var, True, "0.1", 1e-5),
        (f32(3, 4, 5), None, None, mean, var, True, 0.1, "small"),
        (f32(1, 4, 1), None, None, mean, var, *NORMS[function]),
    ]
    for arguments in bad_calls:
        with pytest.raises((ValueError, TypeError)):
            getattr(backend, function)(*arguments)
        assert (mean == 0).all() and (var == 1).all()


def test_relu_in_place_writes_only_what_it_may(backend):
    x = f32(2, 3, 4)
    x.flags.writeable = False
    with pytest.raises(ValueError, match=r"input|inplace|read-only"):
        backend.relu_forward(x, True)
    frame = f32(4, 6)
    before = frame.copy()
    view = frame[1:3, ::2]
    assert backend.relu_forward(view, True) is not None
    np.testing.assert_array_equal(view, np.maximum(before[1:3, ::2], 0))
    untouched = np.ones_like(frame, dtype=bool)
    untouched[1:3, ::2] = False
    np.testing.assert_array_equal(frame[untouched], before[untouched])


def test_masked_arrays_are_refused(backend):
    """Their mask would be ignored without a word."""
    x = np.ma.masked_invalid(f32(1, 1, 4, 4))
    for function in (F.relu, lambda x: F.conv2d(x, f32(1, 1, 3, 3)), lambda x: F.max_pool2d(x, 2)):
        with pytest.raises(TypeError, match="input"):
            function(x)


def test_numpy_integers_are_integers(backend):
    x, w = f32(1, 4, 7, 7), f32(4, 2, 3, 3)
    plain = F.conv2d(x, w, stride=2, padding=(1, 0), groups=2)
    numpy = F.conv2d(x, w, stride=np.int32(2), padding=np.array([1, 0]), groups=np.uint8(2))
    np.testing.assert_array_equal(plain, numpy)
