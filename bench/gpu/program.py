"""The GPU day: build once, prove the kernels, measure them beside the peer; one command, any GPU machine, no network.

Every stage runs in a process of its own. Whatever crashes, hangs or is missing is recorded, and the rest goes on. All
that is found is in a journal from the first second: a call that is cut off can be followed by another one, which goes
on where it ended without building again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import report
from .build import build
from .journal import Journal
from .stage import STAGES, Settings, Stage

LOG = "log.txt"  # what the workers write to their standard error
LONGEST_BUILD = 420  # seconds
MOST_RESTARTS = 8  # of the worker of one stage
NETWORKS = ("resnet50", "vgg16", "mobilenetv2")
_GRACE = 20  # seconds that a worker may take to start, beside its case


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu_day.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="stages:\n"
        + "\n".join(f"  {s.name:11} {s.title}" for s in STAGES)
        + "\n\nExit status: 0 all passed, 1 something failed, 2 bad usage, 3 nothing failed but time ran out.",
    )
    names = [stage.name for stage in STAGES]
    parser.add_argument("--stages", type=lambda text: text.split(","), default=names, metavar="NAME,...")
    parser.add_argument("--budget", type=float, default=25, metavar="MINUTES", help="default: 25")
    parser.add_argument("--batch", type=int, default=64, help="images in a layer that is timed (default 64)")
    parser.add_argument("--networks", type=lambda text: tuple(text.split(",")), default=NETWORKS, metavar="NAME,...")
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: bench/results/<name of the GPU>")
    parser.add_argument("--continue-from", type=Path, metavar="gpu_day.jsonl", help="the journal of an earlier call")
    parser.add_argument(
        "--again", type=lambda text: text.split(","), default=[], metavar="NAME,...", help="forget these"
    )
    parser.add_argument("--dry-run", action="store_true", help="all of it over the simulator; times nothing")
    for hidden in ("--worker", "--journal", "--seconds", "--tree"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--call-everything", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--describe", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str], tree: Path, script: list[str]) -> int:
    """Run the program; `script` is the command that runs it again as a worker."""
    parser = _parser()
    options = parser.parse_args(argv)
    settings = Settings(tree, options.dry_run, 1 if options.dry_run else options.batch, options.networks)
    if options.describe:
        from .device import describe

        return describe(options.dry_run)
    if options.call_everything:
        from .sanitizer import call_everything

        print(call_everything(options.dry_run), "calls")
        return 0
    if options.worker:
        from . import worker

        return worker.run(options.worker, settings, Journal(Path(options.journal)), float(options.seconds))
    unknown = sorted({*options.stages, *options.again} - {stage.name for stage in STAGES})
    if unknown or options.budget <= 0 or options.batch < 1:
        parser.error(f"unknown stage: {unknown[0]}" if unknown else "--budget and --batch must be positive")
    with contextlib.ExitStack() as clean:
        if options.dry_run and options.results is None:
            options.results = Path(clean.enter_context(tempfile.TemporaryDirectory()))
        return Day(options, settings, script).run()


class Day:
    """One call of the program."""

    def __init__(self, options: argparse.Namespace, settings: Settings, script: list[str]) -> None:
        self.options, self.settings, self.script = options, settings, script
        self.stop = time.monotonic() + 60 * options.budget
        self.folder: Path
        self.journal: Journal

    def run(self) -> int:
        """All stages, then the report; the exit status."""
        stages = [stage for stage in STAGES if stage.name in self.options.stages]
        self.folder = self.options.results or self.settings.tree / "bench" / "results" / _slug(_gpu_name())
        self.folder = self.folder.resolve()  # workers have a working directory of their own
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.folder / "gpu_day.jsonl")
        earlier = self.options.continue_from
        if earlier is not None and earlier.resolve() != self.journal.path.resolve():
            shutil.copyfile(earlier, self.journal.path)
        self.journal.add("run", stages=[stage.name for stage in stages])
        for name in self.options.again:
            self.journal.add("forget", stage=name)
        if "build" not in self.options.stages:
            print(*self.describe())
        for i, stage in enumerate(stages):
            left = self.stop - time.monotonic()
            share = left * stage.seconds / sum(other.seconds for other in stages[i:])
            if stage.name == "build":  # without it there is nothing to do
                share = min(left, LONGEST_BUILD)
            start = time.monotonic()
            print(f"== {stage.name}: {stage.title} (at most {share:.0f} of {left:.0f} s left)", flush=True)
            status = self.build(share) if stage.name == "build" else self.stage(stage, share)
            seconds = round(time.monotonic() - start, 1)
            self.journal.add("stage", stage=stage.name, status=status, seconds=seconds)
            print(f"   {status} after {seconds} s{self.counts(stage)}", flush=True)
            report.write(self.journal, self.folder)
        print(report.table(self.journal))
        print(f"results: {self.folder}")
        last = self.journal.stages()
        statuses = [last[stage.name]["status"] for stage in stages]
        return 1 if "failed" in statuses else 3 if "partial" in statuses else 0

    def counts(self, stage: Stage) -> str:
        """How many cases ended how."""
        ends = [end["status"] for (name, _), end in self.journal.ended().items() if name == stage.name]
        parts = [f"{ends.count(status)} {status}" for status in dict.fromkeys(ends)]
        return f": {', '.join(parts)}" if parts else ""

    def build(self, seconds: float) -> str:
        """The native modules, and what they find."""
        status, note = ("passed", "simulator") if self.settings.dry else build(self.settings.tree, seconds)
        if status == "passed":
            status, note = self.describe(note)
        self.journal.add("end", stage="build", key="build", status=status, seconds=0, note=note[-4000:])
        if status != "passed":
            print(note, file=sys.stderr)
        return status

    def describe(self, note: str = "") -> tuple[str, str]:
        """Record what the numbers depend on, found by a process of its own; passed with the note, or failed and why."""
        command = [*self.script, "--describe", *self.dry()]
        try:
            done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            return "failed", "the GPU does not answer within two minutes"
        if done.returncode:
            return "failed", "\n".join(done.stderr.strip().splitlines()[-10:])
        self.journal.add("environment", environment=json.loads(done.stdout.splitlines()[-1]))
        return "passed", note

    def stage(self, stage: Stage, seconds: float) -> str:
        """Run workers until the stage is complete; failed, where a case failed, partial, where time ran out."""
        stop, status = time.monotonic() + seconds, "passed"
        for _ in range(MOST_RESTARTS):
            ended = self.work(stage, stop)
            if ended == 0:
                break
            if ended == 10:  # worker.OUT_OF_TIME
                status = "partial"
                break
            case = self.journal.unfinished()
            if case is not None:
                how = "hung" if ended is None else f"crashed: {_exit(ended)}"
                if ended is None and time.monotonic() >= stop:
                    how = "cut off: the stage's time was over"
                print(f"{stage.name}: {case[1]}: {how}", file=sys.stderr, flush=True)
                self.journal.add("end", stage=case[0], key=case[1], status="failed", seconds=0, note=how)
            elif ended != 11:  # worker.LOST
                how = "no answer" if ended is None else _exit(ended)
                how = f"the worker could not start: {how}: {self.last_words()}"
                self.journal.add("end", stage=stage.name, key="start", status="failed", seconds=0, note=how)
                break
            if time.monotonic() >= stop:
                status = "partial"
                break
        ends = [end for (name, _), end in self.journal.ended().items() if name == stage.name]
        if any(end["status"] == "failed" for end in ends):
            return "failed"
        if ends and all(end["status"] == "skipped" for end in ends):
            return "skipped"
        return status

    def work(self, stage: Stage, stop: float) -> int | None:
        """One worker; its exit status, None where it was stopped because a case took too long."""
        seconds = max(stop - time.monotonic(), 1)
        command = [
            *self.script,
            "--worker",
            stage.name,
            "--journal",
            str(self.journal.path),
            "--seconds",
            f"{seconds:.1f}",
        ]
        command += ["--batch", str(self.settings.batch), "--networks", ",".join(self.settings.networks), *self.dry()]
        with (
            (self.folder / LOG).open("ab") as log,
            subprocess.Popen(
                command, env=self.environment(), cwd=self.settings.tree, stderr=log, start_new_session=True
            ) as process,
        ):
            try:
                return self.watch(process, stage, stop)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with what it started

    def last_words(self) -> str:
        """The last line that a worker wrote to its log."""
        lines = (self.folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def watch(self, process: subprocess.Popen[bytes], stage: Stage, stop: float) -> int | None:
        limit, size, since = stage.case_seconds + _GRACE, -1, time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.2)
            now = self.journal.path.stat().st_size
            if now != size:
                size, since = now, time.monotonic()
            late = time.monotonic() - since
            if late > limit or time.monotonic() > stop + min(limit, 30):
                return None

    def environment(self) -> dict[str, str]:
        """Of the workers: the tree's package where it was built there, and its tests."""
        tree = self.settings.tree
        given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        paths = [str(tree / "tests"), *(str(Path(path).resolve()) for path in given)]
        if any((tree / "fastconv").glob("_cpu*.so")):
            paths.insert(0, str(tree))
        # PYTHONSAFEPATH: not the working directory's package, where another one is installed.
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}

    def dry(self) -> list[str]:
        return ["--dry-run"] if self.settings.dry else []


def _exit(status: int) -> str:
    return f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"exit status {status}"


def _gpu_name() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown GPU"


def _slug(name: str) -> str:
    """A folder's name of a GPU's: "NVIDIA H100 80GB HBM3" is h100."""
    words: list[Any] = [
        word for word in re.split(r"[\s-]+", name.lower()) if word not in ("nvidia", "geforce", "tesla")
    ]
    kept = [word for word in words if not re.fullmatch(r"\d+gb|hbm\w*|pcie|sxm\d*", word)]
    return "-".join(kept) or "gpu"
