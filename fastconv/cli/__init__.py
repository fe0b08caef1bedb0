"""The command line: ``fastconv`` and ``python -m fastconv``.

One module a verb, each with ``add_parser`` and ``run(arguments) -> exit status``. The status is 0 if all is well, 1 if
a check failed, 2 for bad usage or input, with one line on standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__
from . import bench, demo, explain, info, models, predict, train, verify, visualize

__all__ = ["main"]

_VERBS = (info, verify, explain, models, train, predict, visualize, bench, demo)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastconv",
        description="Fast CNN layers for NumPy arrays: what is installed, whether it is right, how fast it is.",
        epilog="exit status: 0 all is well, 1 a check failed, 2 bad usage or input",
    )
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    verbs = parser.add_subparsers(
        dest="verb", metavar="{info,verify,explain,models,train,predict,visualize,bench,demo}", required=True
    )
    for verb in _VERBS:
        verb.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 all is well, 1 a check failed, 2 bad usage or input, 130 interrupted.

    Examples
    --------
    >>> from fastconv.cli import main
    >>> main(["info", "--json"])  # doctest: +ELLIPSIS
    {
    ...
    }
    0
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", "") == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without the character shows another one
    if argv[:1] == ["bench"]:
        # The benchmark has its own parser; argparse would take its options for unknown ones.
        return _guarded("bench", bench.run, argv[1:])
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    return _guarded(arguments.verb, arguments.run, arguments)


def _guarded(verb: str, run: object, arguments: object) -> int:
    """Turn the errors of bad input into one line; anything else is a bug and keeps its traceback."""
    try:
        return run(arguments)  # type: ignore[operator]
    except BrokenPipeError:
        # The reader (head, less) has gone; closing standard output here keeps the interpreter quiet at exit.
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print(f"fastconv {verb}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError, MemoryError, NotImplementedError) as error:
        message = str(error).strip().replace("\n", " ") or type(error).__name__
        print(f"fastconv {verb}: error: {message}", file=sys.stderr)
        return 2
