"""``fastconv verify``: every operation, shape, dtype and instruction set of this machine against the reference."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..progress import progress
from .output import add_json, print_json, table

if TYPE_CHECKING:
    import numpy as np

    from ..cases import Case, Expected

_EXAMPLES = """examples:
  fastconv verify                              everything this machine can compute, about a minute
  fastconv verify --quick                      the small shapes in float32
  fastconv verify --op conv --backend cpu:avx2 one family with one instruction set
  fastconv verify --seed 7 --shapes random     other shapes and other numbers
  fastconv verify --save golden.npz            keep the outputs ...
  fastconv verify --check golden.npz           ... and hold another machine or version against them
"""
RANDOM_CASES = {"quick": 4, "normal": 24, "thorough": 200}


def add_parser(verbs: Any) -> None:
    """Add ``verify`` to the program's verbs."""
    parser = verbs.add_parser(
        "verify",
        help="hold every operation, dtype and instruction set against the NumPy reference",
        description="Compute every operation with every backend of this machine and compare with the reference in "
        "float64. A row shows the largest error and the bound that rounding explains; a row beyond it fails.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--op",
        action="append",
        metavar="NAME",
        help="only this operation or family (conv, max_pool_backward ...); may repeat",
    )
    parser.add_argument(
        "--shapes", action="append", metavar="GROUP", help="only this group of shapes: edge, layers, random; may repeat"
    )
    parser.add_argument("--dtype", action="append", metavar="NAME", help="only this dtype; may repeat")
    parser.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="a backend of `fastconv info` (default: each instruction set)",
    )
    parser.add_argument("--seed", type=_seed, default=0, help="seed of the inputs and of the random shapes (default 0)")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_const", const="quick", dest="effort", help="small shapes, float32")
    effort.add_argument("--thorough", action="store_const", const="thorough", dest="effort", help="many random shapes")
    golden = parser.add_mutually_exclusive_group()
    golden.add_argument("--save", metavar="FILE.npz", help="write the outputs of one backend as golden outputs")
    golden.add_argument(
        "--check", metavar="FILE.npz", help="compare with golden outputs; the inputs follow from the file"
    )
    add_json(parser)
    parser.set_defaults(run=run, effort="normal")


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


class Row(NamedTuple):
    """One comparison."""

    op: str
    shape: str
    dtype: str
    backend: str
    error: float
    bound: float
    passed: bool
    problem: str


class Selection(NamedTuple):
    """What the options ask for."""

    cases: list[Case]
    dtypes: dict[str, np.dtype]
    backends: tuple[str, ...]


def run(arguments: argparse.Namespace) -> int:
    """Verify, or write or check golden outputs."""
    from . import golden

    if arguments.check:
        return golden.check(arguments)
    selection = select(arguments)
    if arguments.save:
        return golden.save(arguments, selection)
    started = time.perf_counter()
    show = not arguments.json
    total = len(selection.cases) * len(selection.dtypes) * len(selection.backends)
    rows = list(progress(compare_all(selection, arguments.seed), total, "verify", show))
    return report(rows, arguments, time.perf_counter() - started)


def select(arguments: argparse.Namespace, whole: bool = False) -> Selection:
    """Turn the options into cases, dtypes and backends; ValueError for unknown names.

    Where no group or dtype is named, `--quick` and `--save` leave out the large shapes and `--quick` all dtypes but
    float32; `whole` leaves out nothing.
    """
    from .. import backend
    from ..cases import GROUPS, all_cases, available_dtypes

    cases = all_cases(arguments.seed, RANDOM_CASES[arguments.effort])
    groups = _known("--shapes", arguments.shapes, GROUPS)
    if groups is None and not whole and (arguments.effort == "quick" or arguments.save):
        groups = ["edge", "random"]
    ops = {case.op for case in cases}
    if groups is not None:
        cases = [case for case in cases if case.group in groups]
    if arguments.op:
        wanted = {op for name in arguments.op for op in _matching(name, ops)}
        cases = [case for case in cases if case.op in wanted]
    dtypes = available_dtypes()
    names = _known("--dtype", arguments.dtype, tuple(dtypes))
    if names is None and not whole and arguments.effort == "quick":
        names = ["float32"]
    available = backend.available_backends()
    backends = _known("--backend", arguments.backend, available)
    if backends is None:
        backends = [name for name in available if name.startswith("cpu:")] or ["reference"]
    return Selection(cases, {name: dtypes[name] for name in names or dtypes}, tuple(backends))


def _known(option: str, given: list[str] | None, known: tuple[str, ...]) -> list[str] | None:
    if not given:
        return None
    names = [name for text in given for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"{option} must be one of {', '.join(known)}; got {name!r}")
    return names


def _matching(name: str, ops: set[str]) -> set[str]:
    """The operations of a family: "conv", "conv2d" and "conv_backward_input" are all understood."""
    family = name[:-2] if name[-2:] in ("1d", "2d", "3d") else name
    found = {op for op in ops if op == family or op.startswith((f"{family}_forward", f"{family}_backward"))}
    if not found:
        families = sorted({op.split("_forward")[0].split("_backward")[0] for op in ops})
        raise ValueError(f"--op must be one of {', '.join(families)}, or one of their functions; got {name!r}")
    return found


def compare_all(selection: Selection, seed: int) -> Iterator[Row]:
    """Every row of the selection."""
    from .. import backend

    for case in selection.cases:
        expected: dict[int, Expected] = {}
        for name, dtype in selection.dtypes.items():
            width = 2 if dtype.itemsize == 2 else 4  # the dtypes of one width class share their values
            if width not in expected:
                expected[width] = case.expected(seed, dtype)
            for backend_name in selection.backends:
                with backend.use_backend(backend_name) as module:
                    outputs = attempt(case, case.arguments(seed, dtype), module)
                yield row(case, outputs, expected[width], name, backend_name)


def attempt(case: Case, values: Any, module: Any) -> tuple[Any, ...] | str:
    """The outputs of a case, or what went wrong: a kernel that raises is a failed row, not the end."""
    try:
        return case.run(module, values)
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")


def row(
    case: Case, outputs: tuple[Any, ...] | str, expected: Expected, dtype: str, backend: str, slack: float = 1.0
) -> Row:
    """One comparison of what `attempt` returned."""
    if isinstance(outputs, str):
        return Row(case.op, case.label, dtype, backend, float("inf"), 0.0, False, outputs)
    from ..cases import available_dtypes

    found = case.compare(outputs, expected, available_dtypes()[dtype], slack)
    return Row(case.op, case.label, dtype, backend, found.error, found.bound, found.passed, found.problem)


def report(rows: list[Row], arguments: argparse.Namespace, seconds: float) -> int:
    """Print the rows and a summary; the exit status."""
    if not rows:
        raise ValueError("nothing to verify: no case matches the options")
    failed = [row for row in rows if not row.passed]
    if arguments.json:
        print_json(
            {
                "passed": not failed,
                "rows": [row._asdict() for row in rows],
                "failed": len(failed),
                "seed": arguments.seed,
                "seconds": round(seconds, 3),
            }
        )
        return 1 if failed else 0
    print(
        table([_cells(row) for row in rows], ("operation", "shape", "dtype", "backend", "error", "bound", ""), "llllrr")
    )
    print()
    backends = sorted({row.backend for row in rows})
    for backend in backends:
        mine = [row for row in rows if row.backend == backend]
        wrong = sum(not row.passed for row in mine)
        print(f"{backend}: {len(mine) - wrong} of {len(mine)} within the bound")
    verdict = f"{len(failed)} of {len(rows)} comparisons FAILED" if failed else f"all {len(rows)} comparisons passed"
    print(f"{verdict} in {seconds:.1f} s (seed {arguments.seed})")
    for row in failed[:20]:
        print(f"FAILED {row.op} {row.shape} {row.dtype} {row.backend} {row.problem}".rstrip(), file=sys.stderr)
    return 1 if failed else 0


def _cells(row: Row) -> tuple[str, ...]:
    verdict = "ok" if row.passed else f"FAILED {row.problem}".rstrip()
    return row.op, row.shape, row.dtype, row.backend, f"{row.error:.2e}", f"{row.bound:.2e}", verdict
