"""What a stage of the GPU day is: named cases, run one after the other in a process of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One piece of work; `run` gives what is recorded of it, or raises."""

    key: str
    run: Callable[[], dict[str, Any]]


class Skip(Exception):
    """Raised by a case that cannot run here; the message says why."""


class Settings(NamedTuple):
    """What a run keeps for all its stages."""

    tree: Path
    dry: bool
    batch: int
    networks: tuple[str, ...]


class Stage(NamedTuple):
    """A stage: the module of this package whose ``cases(device, settings)`` gives its work.

    `seconds` is its share of a budget that is long enough, `case_seconds` what its slowest case may take, and
    `peer` says that it uses torch.
    """

    name: str
    module: str
    seconds: int
    case_seconds: int
    peer: bool
    title: str


STAGES = (
    Stage("build", "", 240, 240, False, "native modules, with the kernels for this GPU alone"),
    Stage("primitives", "primitives", 40, 30, False, "each primitive against the simulator's result"),
    Stage("sanitizer", "sanitizer", 150, 90, False, "compute-sanitizer over every function, tiny shapes"),
    Stage("exact", "exact", 90, 30, False, "convolutions of integers: every tile, layout and dtype, bit for bit"),
    Stage("suite", "suite", 240, 150, False, "`fastconv verify` and the test suite on backend cuda"),
    Stage("ceilings", "peer", 15, 60, True, "copies and matrix products: what this GPU can do at most"),
    Stage("ours", "ours", 600, 60, True, "fastconv and torch with cuDNN, in turns"),
    Stage("tiles", "tiles", 90, 60, True, "the tiles of convolutions against each other"),
)
