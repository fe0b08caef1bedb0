"""Independent pieces of NumPy work on as many threads as the kernels use."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Sequence


def _thread_count() -> int:
    """That of the native module; one where it is not in use."""
    native = sys.modules.get("fastconv._cpu")
    return 1 if native is None else native.get_num_threads()


def run_together(tasks: Sequence[Callable[[], None]], most: int) -> None:
    """Call every task once, in at most `most` threads: NumPy computes without the interpreter's lock.

    Raises what a task raises; the tasks that no thread has begun by then are left out.
    """
    threads = min(_thread_count(), most, len(tasks))
    if threads < 2:
        for task in tasks:
            task()
        return
    waiting, lock = iter(tasks), threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        while not errors:
            with lock:
                task = next(waiting, None)
            if task is None:
                return
            try:
                task()
            except BaseException as error:
                errors.append(error)

    # A copy of the context each: what numpy.errstate says holds in all of them.
    helpers = [threading.Thread(target=contextvars.copy_context().run, args=(work,)) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
