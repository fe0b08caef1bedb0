"""Run hostile calls in a process of their own: ``python hostile_process.py BACKEND`` with the row ids as JSON on stdin.

One JSON line before each call and one after it tell the parent how far it came, whatever ends the process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
from typing import Any

import numpy as np

import fastconv as fc
from advisories import known_rows
from hostile import Row, spoilt_rows

# A call that asks for more memory than this gets a MemoryError instead of the machine's swap.
MEMORY_LIMIT = 6 << 30
SECONDS = 10


def _rows() -> dict[str, Row]:
    rows = [*spoilt_rows(), *known_rows()]
    by_id = {row.id: row for row in rows}
    assert len(by_id) == len(rows), "row ids must differ"
    return by_id


ROWS = _rows()


def outcome(row: Row, backend: Any) -> dict[str, Any]:
    """What a call did, as JSON-able data."""
    try:
        with np.errstate(all="ignore"):
            result = row.call(backend)
    except Exception as error:
        types = [kind.__name__ for kind in type(error).__mro__]
        return {"raised": type(error).__name__, "types": types, "message": str(error)[:2000]}
    first = result[0] if isinstance(result, tuple) else result
    return {"shape": list(np.shape(first))}


def main(backend_name: str, ids: list[str]) -> None:
    if "asan" not in os.environ.get("LD_PRELOAD", ""):  # the sanitizer reserves terabytes of address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    with fc.use_backend(backend_name) as backend:
        for id in ids:
            print(json.dumps({"start": id}), flush=True)
            # Native code cannot be interrupted: a call that hangs ends the process, which is noticed like a crash.
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            result = outcome(ROWS[id], backend)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps({"done": id, **result}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
