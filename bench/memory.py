"""Peak memory of training steps, a library in a process of its own: ``python -m bench.memory WAY NETWORK BATCH``.

Printed is by how many bytes the resident memory grew from the imported library to the most that it reached while the
network was made and took three steps: parameters, gradients, momentum, activations, scratch and what is kept for later.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

STEPS = 3


def peak(way: str, network: str, batch: int, threads: int) -> int:
    """Bytes, measured in a new process; `way` is "fastconv", "fastconv nhwc", "torch nchw" or "torch nhwc".

    Raises
    ------
    RuntimeError
        The process failed; the message holds what it wrote.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", f"{__package__}.memory", way, network, str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {way} failed: {done.stderr.strip()}")
    return int(done.stdout.split()[-1])


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}")


def main(arguments: Sequence[str]) -> None:
    from fastconv import models

    from . import networks

    way, network, batch = arguments[0], arguments[1], int(arguments[2])
    library, _, layout = way.partition(" ")
    shape = models.model_info(network).input_shape
    x = np.random.default_rng(0).standard_normal((batch, *shape), np.float32)
    ours, theirs = networks.NETWORKS[network]
    if library == "torch":
        import torch

        start = _status("VmRSS")
        last = torch.channels_last if layout == "nhwc" else torch.contiguous_format
        step = networks.their_step(torch, theirs(torch).train().to(memory_format=last), x, last)
    else:
        start = _status("VmRSS")
        step = networks.own_step(ours().train(), networks.channels_last(x) if layout == "nhwc" else x)
    for _ in range(STEPS):
        step()
    print(_status("VmHWM") - start)


if __name__ == "__main__":
    main(sys.argv[1:])
