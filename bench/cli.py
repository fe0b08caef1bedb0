"""The command line: run the benchmark, compare two result files, or make the README's table of one."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import backend
from fastconv.cases import available_dtypes

from . import cliffs, compare, goals, markdown, network_table, networks, onnx_peers, peers, report, sweep
from .conv_tasks import REPRESENTATIVE
from .measure import Effort
from .run import OPERATIONS, Settings, ceilings, environment, row, set_threads, tasks
from .shapes import BATCH, CONVS, NORMS, POOLS, ConvCase, NormCase, PoolCase
from .task import LAYOUTS, Task

_Raw = argparse.RawDescriptionHelpFormatter
_QUICK = Effort(rounds=3, block_seconds=0.005)
_FULL = Effort(row_seconds=6)
_EPILOG = """\
Every row is checked before it is timed. Without --layer, --network or --all the convolutions are a selection of each
network's kinds of layers. Also: `bench compare BEFORE.json AFTER.json`, `bench table FILE.json [--insert README.md]`,
`bench cliffs [--quick] [--json FILE]`, `bench networks [NAME ...] [--mode training] [--batch N,...] [--json FILE]`,
`bench gpu-day [--dry-run]`, `bench predict [--against gpu_day.json] [--out FILE.md]`.
Exit status: 0 all is well, 1 a result was wrong, 2 bad usage or input."""


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _numbers(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _words(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if not set(names) <= set(known):
            raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}; got {text!r}")
        return [name for name in known if name in names]

    return parse


def _operations(text: str) -> list[str]:
    return list(OPERATIONS) if text == "all" else _words(OPERATIONS)(text)


def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"is no regular expression: {error}") from error


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Time the layers of well-known networks, against torch where it is installed.",
        epilog=_EPILOG,
        formatter_class=_Raw,
    )
    cases: tuple[ConvCase | PoolCase | NormCase, ...] = (*CONVS, *POOLS, *NORMS)
    networks = sorted({case.network for case in cases})
    parser.add_argument(
        "--op", type=_operations, default="all", metavar="OP,...", help=f"of {', '.join(OPERATIONS)} (default all)"
    )
    parser.add_argument("--network", choices=networks, help="all layers of one network")
    parser.add_argument("--layer", type=_expression, metavar="REGEX", help="all layers whose name has a match")
    parser.add_argument("--all", action="store_true", help="all layers of all networks")
    parser.add_argument(
        "--batch", type=_numbers, default=[BATCH], metavar="N,...", help=f"images in a call (default {BATCH})"
    )
    parser.add_argument("--threads", type=_numbers, metavar="N,...", help="default: the library's")
    parser.add_argument(
        "--layout", type=_words(LAYOUTS), default=list(LAYOUTS), metavar="nchw,nhwc", help="default: both"
    )
    parser.add_argument("--against", choices=("torch", "none"), default="torch", help="default: torch, if installed")
    parser.add_argument("--isa", help="instruction set of the kernels (default: the best)")
    parser.add_argument("--dtype", choices=tuple(available_dtypes()), default="float32", help="default: float32")
    parser.add_argument(
        "--precision",
        type=_words(("highest", "high", "medium")),
        default=["highest"],
        metavar="highest,high,medium",
        help="of float32 (default highest)",
    )
    parser.add_argument(
        "--sweep", action="store_true", help="every algorithm of the convolutions against the rule's choice"
    )
    parser.add_argument("--quick", action="store_true", help="every fourth row, short blocks: a first impression")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements")
    parser.add_argument("--roofline", type=Path, metavar="FILE", help="write the roofline plot (PNG, needs matplotlib)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark's command line; returns the exit status (see ``--help``)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["compare"]:
        return _compare(argv[1:])
    if argv[:1] == ["table"]:
        return _table(argv[1:])
    if argv[:1] == ["cliffs"]:
        return _cliffs(argv[1:])
    if argv[:1] == ["networks"]:
        return _networks(argv[1:])
    if argv[:1] == ["gpu-day"]:
        return _gpu_day(argv[1:])
    if argv[:1] == ["predict"]:
        return _predict(argv[1:])
    return _run(_run_parser().parse_args(argv))


def _tree() -> Path:
    places = (Path(__file__).resolve().parent.parent, Path.cwd())
    trees = [tree for tree in places if (tree / "bench/gpu_day.py").exists()]
    if not trees:
        raise ValueError("this needs the sources: start it in the source tree")
    return trees[0]


def _gpu_day(argv: Sequence[str]) -> int:
    from .gpu import program

    tree = _tree()
    return program.main(argv, tree, [sys.executable, str(tree / "bench/gpu_day.py")])


def _predict(argv: Sequence[str]) -> int:
    from .gpu import predict

    backend.simulator()  # or the ImportError that says how to build it
    return predict.main(argv, _tree())


def _selected(options: argparse.Namespace, batch: int) -> list[Task]:
    chosen: list[Task] = []
    for operation in options.op:
        found = [task for task in tasks(operation, batch) if _wanted(task, options)]
        named = options.layer or options.network
        chosen += found[::4] if options.quick and not named and operation != "call" else found
    if not chosen:
        raise ValueError("no layer is chosen by --op, --network and --layer together")
    return chosen


def _wanted(task: Task, options: argparse.Namespace) -> bool:
    if options.layer is not None and not options.layer.search(task.layer):
        return False
    if options.network is not None:
        return task.layer.startswith(f"{options.network}-")
    if options.layer is not None or options.all or not task.op.startswith("conv"):
        return True
    return task.layer in REPRESENTATIVE


def _destination(path: Path | None) -> None:
    """Notice before the measurement that its result could not be written after it."""
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(f"no such directory: {path.parent}")


@contextlib.contextmanager
def _backend(isa: str | None) -> Iterator[None]:
    if isa is None:
        yield
        return
    with fc.use_backend(f"cpu:{isa}"):
        yield


def _run(options: argparse.Namespace) -> int:
    for path in (options.json, options.roofline):
        _destination(path)
    if options.sweep:
        return _sweep(options)
    _selected(options, options.batch[0])
    torch = peers.load() if options.against == "torch" else None
    with _backend(options.isa), contextlib.ExitStack() as restore:
        native = backend.get_backend() != "reference"
        if native:
            restore.callback(fc.set_num_threads, fc.get_num_threads())
            restore.callback(fc.set_float32_precision, fc.get_float32_precision())
        if torch is not None:
            restore.callback(torch.set_threads, torch.module.get_num_threads())
            restore.enter_context(torch.module.no_grad())
        threads = options.threads or [fc.get_num_threads() if native else 1]
        result = _measure(options, threads, torch)
    if options.json is not None:
        options.json.write_text(_as_json(result), encoding="utf-8")
    limits = result["ceilings"][str(threads[-1])]
    if options.roofline is not None and limits is not None:
        from .picture import roofline

        shown = (threads[-1], options.batch[-1], options.precision[0])
        last = [r for r in result["rows"] if (r["threads"], r["batch"], r["precision"]) == shown]
        title = f"{result['environment']['processor']}, {threads[-1]} threads, {options.dtype}"
        roofline(last, limits, title, options.roofline)
    return 0 if all(r["check"]["passed"] for r in result["rows"]) else 1


def _sweep(options: argparse.Namespace) -> int:
    effort = _QUICK if options.quick else _FULL
    both = {"conv": sweep.WAYS[:1], "conv_backward": sweep.WAYS[1:]}
    ways = [way for op in options.op for way in both.get(op, ())]
    if len(options.batch) > 1 or len(options.precision) > 1:
        raise ValueError("--sweep takes one --batch and one --precision")
    batch = options.batch[0]
    names = {task.layer for task in tasks("conv", batch) if _wanted(task, options)}
    cases = [dataclasses.replace(case, N=batch) for case in CONVS if str(case) in names]
    if not ways or not cases:
        raise ValueError("no convolution is chosen by --op, --network and --layer together")
    dtype = np.dtype(available_dtypes()[options.dtype])
    rows: list[sweep.Sweep] = []
    with _backend(options.isa), contextlib.ExitStack() as restore:
        restore.callback(fc.set_num_threads, fc.get_num_threads())
        restore.callback(fc.set_float32_precision, fc.get_float32_precision())
        fc.set_float32_precision(options.precision[0])
        for count in options.threads or [fc.get_num_threads()]:
            fc.set_num_threads(count)
            print(f"GFLOP/s, the rule's choice first; {options.dtype}, batch {batch}, {count} threads")
            for found in sweep.run(cases, ways, effort, options.layout, dtype):
                rows.append(found)
                print(sweep.line(found), flush=True)
    lost = [row for row in rows if row.loss > sweep.MARGIN]
    print(f"the rule loses more than 5 % in {len(lost)} of {len(rows)} rows")
    if options.json is not None:
        written = [dataclasses.asdict(row) | {"loss": row.loss} for row in rows]
        text = json.dumps({"environment": environment(None), "rows": written}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _as_json(result: dict[str, Any]) -> str:
    """JSON with a line for each row, so that result files can be read, searched and compared as text."""
    frame = json.dumps({**result, "rows": []}, indent=1, allow_nan=False)
    rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in result["rows"])
    return frame.replace('"rows": []', f'"rows": [\n  {rows}\n ]') + "\n"


def _measure(options: argparse.Namespace, threads: list[int], torch: Any) -> dict[str, Any]:
    effort = _QUICK if options.quick else _FULL
    dtype = np.dtype(available_dtypes()[options.dtype])
    where, start = environment(torch), time.monotonic()
    print(f"{where['processor']}, {where['isa'] or where['backend']}, against {where['peer'] or 'nothing'}")
    print("x NCHW, x NHWC, x best: how many times as fast as torch in this layout, and in its better one")
    rows: list[report.Row] = []
    limits: dict[str, Any] = {}
    reached: list[dict[str, Any]] = []
    for precision, count in itertools.product(options.precision, threads):
        first = precision == options.precision[0]
        if where["backend"] != "reference":
            fc.set_float32_precision(precision)
        set_threads(count, torch)
        ceiling = ceilings(count, dtype, torch, effort)
        if first:
            limits[str(count)] = ceiling
        if ceiling is not None:
            print(f"ceilings: {report.compute_peaks(ceiling)}, copies {ceiling['bandwidth'] / 1e9:.1f} GB/s")
        for batch in options.batch:
            # What depends neither on the precision nor on the batch is measured once.
            chosen = [task for task in _selected(options, batch) if first or task.op.startswith("conv")]
            chosen = [task for task in chosen if batch == options.batch[0] or task.op != "call"]
            settings = Settings(options.layout, dtype, count, batch, effort, torch)
            group = f"batch {batch}, {count} threads, precision {precision!r}"
            begin = len(rows)
            for number, task in enumerate(chosen):
                if number == 0 or chosen[number - 1].op != task.op:
                    print(f"\n{task.op}, {dtype.name}, {group}\n{report.HEADER}")
                rows.append(row(task, settings))
                print("\n".join(report.lines(rows[-1], ceiling)), flush=True)
            found = goals.results(rows[begin:], ceiling)
            if found:
                print(f"\n{group}\n" + "\n".join(goals.lines(found)), flush=True)
            reached += [{"threads": count, "batch": batch, "precision": precision, **goal} for goal in found]
    print("\n" + "\n".join(report.means(rows)))
    print(f"\n{len(rows)} rows in {time.monotonic() - start:.0f} s")
    run = {
        "dtype": dtype.name,
        "batch": options.batch,
        "threads": threads,
        "precision": options.precision,
        "quick": options.quick,
    }
    return {"environment": where, "run": run, "ceilings": limits, "rows": rows, "goals": reached}


def _load(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(result, dict) or not {"rows", "environment", "run", "ceilings"} <= result.keys():
        raise ValueError(f"{path} is not a result file of bench --json")
    return result


def _compare(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench compare", description=compare.__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--relative", action="store_true", help="compare times over torch's of the same file")
    options = parser.parse_args(argv)
    compared = compare.compare(_load(options.before), _load(options.after), options.relative)
    if not compared:
        raise ValueError("the two files have no row in common")
    print("\n".join(compare.lines(compared, options.relative)))
    return 0


def _table(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench table", description=markdown.__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("--insert", type=Path, metavar="FILE.md", help="write it between the markers of this file")
    options = parser.parse_args(argv)
    result = _load(options.result)
    whole = result["run"].get("kind") == "networks"
    text = network_table.table(result) if whole else markdown.table(result)
    if options.insert is None:
        print(text, end="")
    else:
        markdown.insert(options.insert, text, "networks" if whole else "benchmark")
    return 0


def _cliffs(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench cliffs", description=cliffs.__doc__, formatter_class=_Raw)
    parser.add_argument("--quick", action="store_true", help="short blocks: a first impression")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements")
    options = parser.parse_args(argv)
    _destination(options.json)
    found = []
    for cliff in cliffs.run(_QUICK if options.quick else Effort()):
        found.append(cliff)
        print(cliffs.line(cliff), flush=True)
    print(f"\n{sum(cliff.met for cliff in found)} of {len(found)} within their limits")
    if options.json is not None:
        rows = [dataclasses.asdict(cliff) | {"met": cliff.met} for cliff in found]
        options.json.write_text(_as_json({"environment": environment(None), "rows": rows}), encoding="utf-8")
    return 0


def _networks(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench networks", description=networks.__doc__, formatter_class=_Raw)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(networks.NETWORKS)} (default: all), or a file.onnx"
    )
    parser.add_argument("--mode", choices=(*networks.MODES, "all"), default="all", help="default: all")
    parser.add_argument("--batch", type=_numbers, default=[1, BATCH], metavar="N,...", help=f"default: 1,{BATCH}")
    parser.add_argument("--threads", type=_numbers, metavar="N,...", help="default: 1 and the library's")
    parser.add_argument(
        "--against", choices=("all", "torch", "none"), default="all", help="default: all that are installed"
    )
    parser.add_argument("--quick", action="store_true", help="three rounds in place of seven")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of training steps (Linux)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a bar chart (PNG, needs matplotlib)")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in networks.NETWORKS and not name.endswith(".onnx")]
    if unknown:
        parser.error(f"NAME must be one of {', '.join(networks.NETWORKS)}, or a file.onnx; got {unknown[0]!r}")
    for path in (options.json, options.plot):
        _destination(path)
    torch = None if options.against == "none" else peers.load()
    readable = torch is not None or any(name.endswith(".onnx") for name in options.names)  # others need a file
    others = onnx_peers.load() if options.against == "all" and readable else {}
    threads = options.threads or sorted({1, fc.get_num_threads()})
    effort = _QUICK if options.quick else Effort(row_seconds=10)
    chosen = networks.MODES if options.mode == "all" else (options.mode,)
    plan = networks.Plan(options.batch, threads, chosen, effort, options.memory)
    found, start = [], time.monotonic()
    with contextlib.ExitStack() as restore:
        restore.callback(set_threads, fc.get_num_threads(), torch)
        for measured in networks.run(options.names or list(networks.NETWORKS), plan, torch, others):
            found.append(measured)
            print(measured, flush=True)
    print(f"\n{len(found)} rows in {time.monotonic() - start:.0f} s")
    rows = [dataclasses.asdict(each) | {"ratio": each.ratio, "ratio_high": each.ratio_high} for each in found]
    where = environment(torch) | {"others": [peer.name for peer in others.values()]}
    result = {"environment": where, "run": {"kind": "networks", "quick": options.quick}, "ceilings": {}, "rows": rows}
    if options.json is not None:
        options.json.write_text(_as_json(result), encoding="utf-8")
    if options.plot is not None:
        network_table.bars(result, options.plot)
    return 0
