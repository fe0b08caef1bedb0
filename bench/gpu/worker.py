"""A process that runs the cases of one stage, until it is told to stop, dies, or has lost the GPU."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any

from .device import Device
from .journal import Journal
from .stage import STAGES, Settings, Skip

COMPLETE, OUT_OF_TIME, LOST = 0, 10, 11  # exit statuses


def run(name: str, settings: Settings, journal: Journal, seconds: float) -> int:
    """Run the stage's cases that are still to be run; returns one of the exit statuses above."""
    stop = time.monotonic() + seconds
    stage = next(stage for stage in STAGES if stage.name == name)
    device = Device(settings.dry, stage.peer)
    module: Any = import_module(f".{stage.module}", __package__)
    skipped = journal.not_again(name)
    for case in module.cases(device, settings):
        if case.key in skipped:
            continue
        if time.monotonic() > stop:
            return OUT_OF_TIME
        journal.add("begin", stage=name, key=case.key)
        start = time.monotonic()
        status, found = "passed", {}
        try:
            found = case.run()
            device.synchronize()
        except Skip as why:
            status, found = "skipped", {"note": str(why)}
        except Exception as error:  # of whatever kind: it is recorded, and the next case may do better
            status, found = "failed", {"note": f"{type(error).__name__}: {error}"[:4000]}
        journal.add("end", stage=name, key=case.key, status=status, seconds=round(time.monotonic() - start, 3), **found)
        if status == "failed":
            print(f"{name}: {case.key}: {found['note']}", file=sys.stderr, flush=True)
            try:
                device.synchronize()
            except Exception as error:
                print(f"{name}: the GPU is lost to this process: {error}", file=sys.stderr, flush=True)
                return LOST
    return COMPLETE
