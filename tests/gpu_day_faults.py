"""The GPU day with stages that fail in every way; `test_gpu_day` runs it as it runs bench/gpu_day.py."""

from __future__ import annotations

import os
import sys
import time
import types
from pathlib import Path

try:
    from fastconv.bench.gpu import program, report, stage, worker
except ModuleNotFoundError:  # a source tree: bench/ lies beside fastconv/
    from bench.gpu import program, report, stage, worker

TREE = Path(__file__).resolve().parent.parent


def crash():
    os.abort()


def hang():
    time.sleep(600)


def fail():
    raise RuntimeError("this one is wrong")


def skip():
    raise stage.Skip("there is none")


def note():
    return {"note": os.environ.get("GPU_DAY_NOTE", "fine")}


def slow():
    time.sleep(0.6)
    return {}


class Lost:
    """A device that no longer answers after a failure."""

    def __init__(self, dry, peer=False):
        pass

    def synchronize(self):
        if Lost.gone:
            raise RuntimeError("illegal address")

    gone = False


def lose():
    Lost.gone = True
    raise RuntimeError("illegal address in this case")


def module(*cases):
    found = types.ModuleType("faults")
    found.cases = lambda device, settings: [stage.Case(run.__name__ + str(i), run) for i, run in enumerate(cases)]
    return found


MODULES = {
    "faulty": module(note, crash, hang, fail, skip, lose, note),
    "sound": module(note, note),
    "endless": module(*[slow] * 40),
    "absent": module(skip, skip),
    "broken": module(),
}
STAGES = tuple(stage.Stage(name, name, 10, 1, False, f"{name} cases") for name in MODULES)


def main():
    program._GRACE = 0.5
    for user in (program, report, stage, worker):
        user.STAGES = STAGES
    worker.Device = Lost
    for name, found in MODULES.items():
        sys.modules[f"{stage.__package__}.{name}"] = found
    if "--worker" in sys.argv and "broken" in sys.argv:
        sys.exit("no such thing")
    return program.main(sys.argv[1:], TREE, [sys.executable, __file__])


if __name__ == "__main__":
    sys.exit(main())
