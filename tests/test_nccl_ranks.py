"""Ranks with a GPU each, over stand-ins for CuPy and NCCL and real MPI: operations, training, refusals."""

import json
import re

import numpy as np
import pytest
from test_distributed_ranks import TRAINING

import fastconv as fc
import fastconv.distributed as dist
from ranks import mpiexec

simulated = pytest.mark.skipif("cuda:simt" not in fc.available_backends(), reason="the simulator is not built")

START = """
    import fake_nccl
    fake_nccl.install()
"""

OPERATIONS = (
    START
    + """
    import cupy, numpy as np, fastconv.distributed as dist
    group = dist.NCCLCommunicator()
    assert group.device == f"cuda:{group.rank}" and group.size == dist.world().size

    def on_gpu(values, dtype=None):
        with cupy.cuda.Device(group.rank):
            return cupy.asarray(np.asarray(values, dtype))

    # Several sums under way at once, waited for in another order; the last one is never waited for.
    works, arrays = [], []
    for size, dtype in ((0, "f4"), (1, "f4"), (1000, "f4"), (3, "f8"), (5, "f2"), (7, "i8"), (2, "f4")):
        arrays.append(on_gpu(np.arange(size) + group.rank, dtype))
        works.append(group.all_reduce(arrays[-1]))
    assert not works[2].test()
    for work in works[:-1][::-1]:
        work.wait()
        assert work.test()
    for array in arrays[:-1]:
        expected = group.size * np.arange(array.size) + sum(range(group.size))
        assert (array.get() == expected.astype(array.dtype)).all(), array
    for root in range(group.size):
        for dtype in (np.float16, np.uint8, bool, np.int64):
            array = on_gpu(np.full((2, 3), group.rank), dtype)
            group.broadcast(array, root)
            assert (array.get() == np.full((2, 3), root).astype(dtype)).all()
    gathered = group.all_gather(on_gpu(np.full((2, 1), group.rank)))
    assert type(gathered) is cupy.ndarray and gathered.device.id == group.rank
    assert gathered.tolist() == [[[r], [r]] for r in range(group.size)]
    assert group.all_gather(on_gpu(2.5)).tolist() == [2.5] * group.size

    # The host's arrays go through MPI.
    array = np.full(3, group.rank, np.float64)
    group.all_reduce(array).wait()
    assert (array == sum(range(group.size))).all()
    assert group.all_gather(array).shape == (group.size, 3)
    group.broadcast(array, 1)
    group.barrier()
    assert works[-1].test()

    with cupy.cuda.Device((group.rank + 1) % 4):
        elsewhere = cupy.asarray(np.ones(2, np.float32))
    for call, error in (
        (lambda: group.all_reduce(elsewhere), "ValueError: array must be on cuda:"),
        (lambda: group.all_reduce([1.0]), "TypeError: array must be a cupy.ndarray or a numpy.ndarray, got list"),
        (lambda: group.all_reduce(on_gpu([1], np.int32)), "TypeError: array must be an array of float16, float32"),
        (lambda: group.all_reduce(on_gpu(np.ones((2, 2), "f4"))[:, :1]), "ValueError: array must be contiguous"),
        (lambda: group.broadcast(on_gpu([1.0]), group.size), "ValueError: root must be a rank from 0"),
        (lambda: group.broadcast(on_gpu(np.ones((3, 4)))[:, 1:]), "ValueError: array must be contiguous"),
        (lambda: dist.NCCLCommunicator(device=0), "ValueError: device must be another GPU on each rank"),
        (lambda: dist.NCCLCommunicator(device=9), "ValueError: device must name one of 4 GPUs"),
    ):
        try:
            call()
            raise SystemExit(f"no {error}")
        except (TypeError, ValueError) as raised:
            assert f"{type(raised).__name__}: {raised}".startswith(error), raised
    print(group.size, flush=True)
"""
)

ON_GPUS = TRAINING.replace("group = dist.world()", "group = dist.NCCLCommunicator()")
for before, after in (
    ("import json, sys\n", START.lstrip() + "    import json, sys, cupy\n"),
    ("parallel = dist.DataParallel(nn", "net.to(group.device)\n    parallel = dist.DataParallel(nn"),
    ("bucket_cap_mb=2e-4)", "bucket_cap_mb=2e-4, process_group=group)"),
    ("convert_sync_batchnorm(net)", "convert_sync_batchnorm(net, group)"),
    ("parallel(fc.tensor(images[mine]))", "parallel(fc.tensor(on_gpu(images[mine])))"),
    ("labels[mine])\n", "on_gpu(labels[mine]))\n"),
    ("value.ravel()", "fc.devices.to_host(value).ravel()"),
    (
        "    curve = []\n",
        "    curve = []\n    on_gpu = lambda a: fc.devices.to_device(a, group.device)\n",
    ),
):
    assert ON_GPUS.count(before) == 1, before
    ON_GPUS = ON_GPUS.replace(before, after)


@simulated
@pytest.mark.parametrize("ranks", [2, 4])
def test_sums_broadcasts_gathers_and_refusals(ranks):
    assert "".join(mpiexec(ranks, OPERATIONS).stdout.split()) == str(ranks) * ranks


@simulated
def test_training_is_that_of_processors(tmp_path):
    """The curve and the weights of 2 and 4 GPUs are those of one processor; a second run has the same bits."""
    expected = json.loads(mpiexec(1, TRAINING, tmp_path / "host.npz").stdout)
    state = fc.load(tmp_path / "host.npz")
    for ranks, name in ((2, "2.npz"), (4, "4.npz"), (4, "again.npz")):
        curve = json.loads(mpiexec(ranks, ON_GPUS, tmp_path / name).stdout)
        np.testing.assert_allclose(curve, expected, rtol=2e-4)
        for key, value in fc.load(tmp_path / name).items():
            np.testing.assert_allclose(value, state[key], rtol=1e-3, atol=1e-4, err_msg=key)
    first, second = fc.load(tmp_path / "4.npz"), fc.load(tmp_path / "again.npz")
    assert all(first[key].tobytes() == second[key].tobytes() for key in first)


COMMAND = (
    START
    + """
    import sys
    from fastconv.cli import main
    options = ["--epochs", "1", "--image-size", "8", "--batch-size", "256", "--workers", "1"]
    sys.exit(main(["train", "mlp", "--data", "digits", "--output", sys.argv[1], "--device", sys.argv[2], *options]))
"""
)


@simulated
def test_command(tmp_path):
    """``mpiexec -n 2 python -m fastconv train --device cuda``: each rank has a GPU."""
    pytest.importorskip("sklearn")
    mpiexec(2, COMMAND, tmp_path / "run", "cuda")
    assert (tmp_path / "run" / "last.npz").exists()
    done = mpiexec(2, COMMAND, tmp_path / "other", "cuda:1", check=False)
    assert done.returncode != 0 and "--device must be cpu, or cuda, where each" in done.stdout + done.stderr


REFUSALS = (
    START.replace("install()", "install(available=False)")
    + """
    import sys, numpy as np, fastconv as fc, fastconv.nn as nn, fastconv.distributed as dist

    def refusal(call):
        try:
            call()
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    answers = [refusal(dist.NCCLCommunicator)]
    sys.modules["cupy.cuda.nccl"].available = True
    group = dist.NCCLCommunicator()
    answers.append(refusal(lambda: dist.DataParallel(nn.Linear(3, 2).to("cuda:0"))))
    answers.append(refusal(lambda: dist.DataParallel(nn.Linear(3, 2), process_group=group)))
    dist.world().barrier()
    if group.rank == 0:
        print("\\n".join(answers), flush=True)
"""
)


@simulated
def test_refusals():
    lines = mpiexec(2, REFUSALS).stdout.strip().splitlines()
    expected = (
        r"ImportError: CuPy finds no NCCL library: pip install nvidia-nccl-cu13",
        r"ValueError: module must be on cpu, where rank 0 of its process_group computes, got parameters or buffers on "
        r"cuda:0: on GPUs its process_group is a NCCLCommunicator",
        r'ValueError: module must be on cuda:0, where rank 0 .* got parameters or buffers on cpu: call to\("cuda:0"\)',
    )
    assert len(lines) == 3
    for line, pattern in zip(lines, expected, strict=True):
        assert re.match(pattern, line), line


def test_without_a_gpu():
    if fc.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(NotImplementedError, match="device 'cuda:0' cannot be computed here"):
        dist.NCCLCommunicator()


def test_one_rank_with_a_gpu():
    """The real libraries, as far as one GPU shows: what one rank sums, sends and gathers stays what it is."""
    if not fc.cuda.is_available():
        pytest.skip("there is no GPU")
    cupy = pytest.importorskip("cupy")
    if not pytest.importorskip("cupy.cuda.nccl").available:
        pytest.skip("CuPy finds no NCCL")
    group = dist.NCCLCommunicator(dist.SingleProcess())
    values = cupy.arange(1000, dtype=np.float32)
    work = group.all_reduce(values)
    group.broadcast(values)
    gathered = group.all_gather(values)
    work.wait()
    group.barrier()
    assert work.test() and gathered.shape == (1, 1000)
    for array in (values, gathered[0]):
        np.testing.assert_array_equal(array.get(), np.arange(1000))
