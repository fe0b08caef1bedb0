"""The GPU day's program: dry run, what crashes and hangs, going on where a call ended, the report."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastconv as fc

try:
    from fastconv.bench import cli
    from fastconv.bench.gpu import build, device, program, report, stage, work
    from fastconv.bench.gpu.journal import Journal
except ModuleNotFoundError:  # a source tree: bench/ lies beside fastconv/
    from bench import cli
    from bench.gpu import build, device, program, report, stage, work
    from bench.gpu.journal import Journal

TREE = Path(__file__).resolve().parent.parent
DAY, FAULTS = TREE / "bench" / "gpu_day.py", TREE / "tests" / "gpu_day_faults.py"


def day(script, *arguments, cwd=TREE, **variables):
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {**os.environ, **variables}
    if path := environment.get("PYTHONPATH"):
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(part).resolve()) for part in path.split(os.pathsep))
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=cwd)


def statuses(folder, name):
    return {key: end["status"] for (at, key), end in Journal(folder / "gpu_day.jsonl").ended().items() if at == name}


@pytest.mark.skipif("cuda:simt" not in fc.available_backends(), reason="the simulator is not built")
def test_dry_run(tmp_path):
    """All stages but the suite, without torch: with it the program is run by itself in CI."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    stages = "build,primitives,sanitizer,exact,ceilings,ours,tiles"
    done = day(DAY, "--dry-run", "--results", tmp_path / "out", "--stages", stages, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "**Dry run over the simulator: nothing here was run on a GPU" in done.stdout
    assert statuses(tmp_path / "out", "ceilings") == {"torch": "skipped"}
    assert len(statuses(tmp_path / "out", "primitives")) >= 15
    result = json.loads((tmp_path / "out" / "gpu_day.json").read_text())
    assert result["environment"]["dry"] is True and result["ceilings"] == {}
    assert {case["status"] for case in result["cases"]} == {"passed", "skipped"}
    timed = list(csv.DictReader(io.StringIO((tmp_path / "out" / "layers.csv").read_text())))
    assert len(timed) > 40 and all(row["ms"] == "" and float(row["error"]) < 5e-3 for row in timed)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| suite | not run |" in text and "## Layers" not in text

    journal = tmp_path / "out" / "gpu_day.jsonl"
    before = journal.read_text().count('"begin"')
    again = day(DAY, "--dry-run", "--results", tmp_path / "out", "--stages", stages, PYTHONPATH=path)
    assert again.returncode == 0 and journal.read_text().count('"begin"') == before, "what had passed was run again"


def test_whatever_happens_the_rest_goes_on(tmp_path):
    done = day(FAULTS, "--dry-run", "--results", tmp_path, "--stages", "faulty,broken,absent,sound")
    assert done.returncode == 1, done.stdout + done.stderr
    ends = {key: end for (_, key), end in Journal(tmp_path / "gpu_day.jsonl").ended().items()}
    assert {key: end["status"] for key, end in ends.items() if key in ("note0", "skip4", "note6")} == {
        "note0": "passed",
        "skip4": "skipped",
        "note6": "passed",
    }
    assert ends["crash1"]["note"] == "crashed: signal 6 (SIGABRT)" and ends["hang2"]["note"] == "hung"
    assert ends["fail3"]["note"] == "RuntimeError: this one is wrong"
    assert (
        ends["lose5"]["status"] == "failed" and "the GPU is lost to this process" in (tmp_path / "log.txt").read_text()
    )
    assert ends["start"]["note"] == "the worker could not start: exit status 1: no such thing"
    results = {name: end["status"] for name, end in Journal(tmp_path / "gpu_day.jsonl").stages().items()}
    assert results == {"faulty": "failed", "broken": "failed", "absent": "skipped", "sound": "passed"}
    text = (tmp_path / "README.md").read_text()
    assert "* faulty, hang2: hung" in text and "| faulty | failed | 2 | 4 | 1 |" in text


def test_a_later_call_tries_again_what_failed_and_nothing_else(tmp_path):
    arguments = ("--dry-run", "--stages", "faulty")
    assert day(FAULTS, *arguments, "--results", tmp_path / "first", GPU_DAY_NOTE="first").returncode == 1
    journal = tmp_path / "first" / "gpu_day.jsonl"
    with journal.open("a") as file:
        file.write('{"event": "end", "stage": "faul')  # as a killed process leaves it
    with journal.open("a") as file:
        file.write("\n")
    more = ("--results", tmp_path / "second", "--continue-from", journal)
    assert day(FAULTS, *arguments, *more, GPU_DAY_NOTE="second").returncode == 1
    events = list(Journal(tmp_path / "second" / "gpu_day.jsonl").events())
    begun = [event["key"] for event in events if event["event"] == "begin"]
    every = ["note0", "crash1", "hang2", "fail3", "skip4", "lose5", "note6"]
    assert begun == [*every, "crash1", "hang2", "fail3", "lose5"]
    done = day(FAULTS, *arguments, "--results", tmp_path / "second", "--again", "faulty", GPU_DAY_NOTE="third")
    ends = Journal(tmp_path / "second" / "gpu_day.jsonl").ended()
    assert done.returncode == 1 and ends["faulty", "note0"]["note"] == "third"


def test_time_runs_out(tmp_path):
    arguments = ("--dry-run", "--stages", "endless", "--budget", 0.15, "--results", tmp_path.name)
    done = day(FAULTS, *arguments, cwd=tmp_path.parent)
    assert done.returncode == 3, done.stdout + done.stderr
    first = statuses(tmp_path, "endless")
    assert 0 < len(first) < 40 and "endless: endless cases" in done.stdout
    assert day(FAULTS, "--dry-run", "--results", tmp_path, "--stages", "endless", "--budget", 0.15).returncode == 3
    assert len(statuses(tmp_path, "endless")) > len(first)


@pytest.mark.parametrize("arguments", [["--stages", "nothing"], ["--budget", "0"], ["--again", "x"], ["--batch", "0"]])
def test_bad_usage(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        program.main(["--results", str(tmp_path), *arguments], TREE, [])
    assert error.value.code == 2 and "usage" in capsys.readouterr().err


def row(key, times, stage="ours", **fields):
    known = {
        "op": "conv",
        "layer": "a",
        "way": "forward",
        "precision": "bf16",
        "kind": "3x3",
        "flops": 8e12,
        "bytes": 1,
    }
    times = {name: None if ms is None else {"ms": ms, "spread": 0.01} for name, ms in times.items()}
    rest = {"status": "passed", "seconds": 1, "errors": {"fastconv nhwc": 1e-3}, "times": times}
    return {"stage": stage, "key": key, **known, **rest, **fields}


def test_report(tmp_path):
    journal = Journal(tmp_path / "gpu_day.jsonl")
    journal.add("environment", environment={"gpu": "NVIDIA H100 80GB HBM3", "dry": False, "driver": "13.0"})
    journal.add("end", stage="ceilings", key="c", status="passed", seconds=1, ceiling="bytes/s", value=2e12)
    both = {"fastconv nhwc": 10.0, "fastconv nchw": 20.0, "torch nhwc": 8.0, "torch nchw": 9.0}
    journal.add("end", **row("a", both))
    journal.add("end", **row("b", {**both, "fastconv nhwc": 40.0}))
    pool = {"op": "pool", "kind": "max", "precision": "fp32", "bytes": 18_000_000_000}
    journal.add("end", **row("p", {"fastconv nhwc": 10.0}, **pool))
    journal.add("end", **row("t", {"small": 2.0, "large": None}, stage="tiles"))
    journal.add("end", stage="ours", key="w", status="failed", seconds=1, note="ValueError: wrong\nby far")
    journal.add("stage", stage="ours", status="failed", seconds=12.5)
    report.write(journal, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "# GPU day: NVIDIA H100 80GB HBM3" in text and "Dry run" not in text
    assert "| ours | failed | 3 | 1 | 0 | 12.5 |" in text and "* ours, w: ValueError: wrong by far" in text
    assert (
        f"| bf16 3x3, forward: x torch | 0.6 | {(0.8 * 0.4) ** 0.5:.2f} | SHORT |" in text
    )  # 20 ms: NCHW is the better
    assert "| pool fp32, forward: share of the copy bandwidth | 0.85 | 0.90 | reached |" in text
    assert "| conv | a | forward | bf16 | 8 | 9 | 10 | 20 | 0.8 | 800 | 1e-10 |" in text
    assert "| a | forward | bf16 | 2 |  |" in text
    lines = (tmp_path / "layers.csv").read_text().splitlines()
    assert lines[0].startswith("stage,op,layer,way") and len(lines) == 1 + 4 + 4 + 1 + 2
    assert json.loads((tmp_path / "gpu_day.json").read_text())["ceilings"] == {"bytes/s": 2e12}


@pytest.mark.parametrize(
    ("name", "folder"),
    [("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200"), ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("", "gpu")],
)
def test_folder_of_a_gpu(name, folder):
    assert program._slug(name) == folder


class Clock:
    """CuPy's events over a clock that each call moves on by its own time."""

    now, flushed = 0.0, 0

    class Event:
        def record(self):
            self.at = Clock.now

    @staticmethod
    def get_elapsed_time(before, after):
        return after.at - before.at


def test_timing(monkeypatch):
    """Medians of interleaved calls, each after a flush of the caches, which does not count."""
    order = []

    def flush(value, size):
        Clock.now, Clock.flushed = Clock.now + 1, Clock.flushed + 1
        order.append("flush")

    def call(name, ms):
        def run():
            order.append(name)
            Clock.now += ms[order.count(name) % len(ms)]

        return run

    memory = SimpleNamespace(memset_async=flush)
    stream = SimpleNamespace(synchronize=lambda: None)
    cuda = SimpleNamespace(
        alloc=lambda size: memory,
        Event=Clock.Event,
        get_elapsed_time=Clock.get_elapsed_time,
        get_current_stream=lambda: stream,
    )
    gpu = device.Device.__new__(device.Device)
    gpu.dry, gpu.library, gpu._flushed = False, SimpleNamespace(cuda=cuda), None
    found = gpu.time({"a": call("a", [3.0, 3.0, 4.0]), "b": call("b", [0.5])})
    assert found["a"].ms == 3 and found["b"] == (0.5, 0)
    assert order[:12] == ["flush", "a"] * 3 + ["flush", "b"] * 3
    assert order[12:20] == ["flush", "a", "flush", "b"] * 2
    assert order.count("b") == 3 + 30 and 3 + 5 <= order.count("a") <= 3 + 6


def test_a_result_that_is_wrong_is_not_timed():
    fake = SimpleNamespace(torch=None, host=lambda a: a)
    right = np.ones((2, 3), np.float32)
    found = SimpleNamespace(precision="bf16")
    assert work.checked(found, right * np.float32(1.001), right, fake) == pytest.approx(1e-3, rel=0.01)
    for wrong in (right * 1.1, right * np.nan, np.zeros_like(right)):
        with pytest.raises(ValueError, match="wrong: relative error"):
            work.checked(found, wrong, right, fake)


def test_layers_that_are_timed():
    found = list(work.convolutions(64, program.NETWORKS, dry=False))
    assert len({w.key for w in found}) == len(found) and len(found) == 3 * 3 * 54
    assert {w.kind for w in found} == {"1x1", "3x3", "stem", "depthwise"}
    assert (found[0].way, found[0].precision, found[0].shapes["x"][0]) == ("forward", "bf16", 64)
    rest = list(work.memory_bound(64, program.NETWORKS, dry=False))
    assert {w.op for w in rest} == {"pool", "norm", "relu"} and {w.way for w in rest} == {"forward", "backward"}
    assert {w.shapes["x"][0] for w in rest} == {64}
    relu = next(w for w in rest if (w.layer, w.precision, w.way) == ("vgg16-relu1", "bf16", "forward"))
    assert relu.bytes == 2 * 2 * 64 * 64 * 224 * 224


def test_build_without_tools(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "_have_cuda_module", lambda tree: False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    assert build.build(tmp_path, 5) == ("failed", "needs cmake and pybind11 (pip install cmake ninja pybind11)")
    monkeypatch.undo()
    status, printed = build.run_group([sys.executable, "-c", "print('x', flush=True); import time; time.sleep(60)"], 1)
    assert status is None and printed == "x\n"
    assert build.run_group(["sh", "-c", "echo y; exit 3"], 10) == (3, "y\n")


def test_stages_are_those_of_the_help():
    assert [s.name for s in stage.STAGES][:4] == ["build", "primitives", "sanitizer", "exact"]
    assert sum(s.seconds for s in stage.STAGES) <= 25 * 60


def test_the_benchmark_knows_the_program(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["gpu-day", "--help"])
    assert error.value.code == 0 and "compute-sanitizer" in capsys.readouterr().out
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "bench" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="source tree"):
        cli.main(["gpu-day"])
