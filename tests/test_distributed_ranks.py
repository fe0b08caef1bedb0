"""Training on real MPI ranks, 2 and 4: the same curve as one process, the same bits each time, and how jobs end."""

import json
import time

import numpy as np
import pytest

import fastconv as fc
from ranks import mpiexec

COMMUNICATION = """
    import numpy as np, fastconv.distributed as dist
    group = dist.world()

    def values(rank, size, dtype):
        return (1000 * np.random.default_rng(rank).standard_normal(size)).astype(dtype)

    # Several sums under way at once, of sizes that the ranks cannot share evenly; waited for in another order.
    cases = [(size, dtype) for size in (0, 1, 3, 1000) for dtype in ("f4", "f8", "i8")]
    arrays = [values(group.rank, *case) for case in cases]
    works = [group.all_reduce(array) for array in arrays]
    for case, array, work in list(zip(cases, arrays, works))[::-1]:
        work.wait()
        assert work.test()
        expected = values(0, *case)
        for rank in range(1, group.size):
            expected += values(rank, *case)  # one after the other
        assert array.tobytes() == expected.tobytes(), (case, array, expected)
    for root in range(group.size):
        array = np.full((2, 3), group.rank, np.float16)
        group.broadcast(array, root)
        assert (array == root).all()
    assert group.all_gather(np.full((2, 1), group.rank)).tolist() == [[[r], [r]] for r in range(group.size)]
    group.barrier()
    try:
        group.broadcast(np.zeros(1), group.size)
    except ValueError:
        print(group.size, flush=True)
"""

TRAINING = """
    import json, sys
    import numpy as np, fastconv as fc, fastconv.nn as nn, fastconv.nn.functional as F, fastconv.distributed as dist

    group = dist.world()
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((22, 1, 6, 6)).astype(np.float32), rng.integers(0, 3, 22)
    fc.manual_seed(group.rank)  # other weights on each rank: those of rank 0 count
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
    )
    parallel = dist.DataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(net), bucket_cap_mb=2e-4)
    optimizer = fc.optim.SGD(parallel.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    curve = []
    for epoch in range(3):
        # Batches of 8, 8 and 6 examples: the last one is in 4 uneven parts.
        for start in range(0, 22, 8):
            whole = np.arange(start, min(start + 8, 22))
            mine = whole[len(whole) * group.rank // group.size : len(whole) * (group.rank + 1) // group.size]
            optimizer.zero_grad()
            loss = F.cross_entropy(parallel(fc.tensor(images[mine])), labels[mine])
            loss.backward()
            optimizer.step()
            total = np.array([loss.item() * len(mine)])
            group.all_reduce(total).wait()
            curve.append(total[0] / len(whole))
    state = np.concatenate([value.ravel().astype(np.float64) for value in net.state_dict().values()])
    assert (group.all_gather(state) == state).all(), "the ranks have different states"
    if group.rank == 0:
        fc.save(net, sys.argv[1])
        print(json.dumps(curve))
"""


@pytest.mark.parametrize("ranks", [2, 4])
def test_sums_broadcasts_and_gathers(ranks):
    # Lines of several ranks may run into each other.
    assert "".join(mpiexec(ranks, COMMUNICATION).stdout.split()) == str(ranks) * ranks


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Loss curve and checkpoint of rank 0, of runs on so many ranks."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def train(ranks, name=""):
        path = folder / f"{ranks}{name}.npz"
        return json.loads(mpiexec(ranks, TRAINING, path).stdout), fc.load(path)

    return train


def test_training_is_that_of_one_process(trained):
    """The loss curve and the weights of 2 and 4 ranks are those of 1, and a second run has the same bits."""
    curve, state = trained(1)
    assert len(curve) == 9 and curve[-1] < curve[0]
    for ranks in (2, 4):
        other_curve, other_state = trained(ranks)
        np.testing.assert_allclose(other_curve, curve, rtol=2e-4)
        for name, value in state.items():
            np.testing.assert_allclose(other_state[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    again_curve, again_state = trained(4, "again")
    assert again_curve == other_curve
    assert all(again_state[name].tobytes() == value.tobytes() for name, value in other_state.items())


def failing(how):
    """Rank 1 ends as `how` says while the others wait for it."""
    return f"""
        import os, signal, sys, numpy as np, fastconv.distributed as dist, fastconv.distributed.mpi as mpi
        mpi._GRACE_SECONDS = 0.3
        group = dist.world()
        group.all_reduce(np.zeros(1)).wait()
        if group.rank == 1:
            {how}
        group.all_reduce(np.zeros(1)).wait()
        print("went on")
    """


@pytest.mark.parametrize(
    "how, message",
    [
        ("raise ValueError('label 11 is out of range')", "rank 1 of 2 failed, which ends all ranks:\nTraceback"),
        ("raise KeyboardInterrupt", "rank 1 of 2 was interrupted"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "Killed|signal 9|EXIT CODE: 9"),
        ("sys.exit(0)", "rank 0 waits for an all-reduce, but rank 1 has ended: all ranks must take the same number"),
    ],
    ids=["raises", "interrupted", "killed", "leaves early"],
)
def test_a_rank_that_ends_takes_the_others_along(how, message):
    started = time.monotonic()
    done = mpiexec(2, failing(how), check=False)
    assert done.returncode != 0 and "went on" not in done.stdout
    assert any(part in done.stdout + done.stderr for part in message.split("|")), done.stderr
    assert "label" not in how or "ValueError: label 11 is out of range" in done.stderr
    assert time.monotonic() - started < 60


def test_waiting_has_a_limit():
    source = """
        import time, numpy as np, fastconv.distributed as dist
        from mpi4py import MPI
        dist.world()
        try:
            dist.MPICommunicator(MPI.COMM_WORLD, timeout=0)
        except ValueError as error:
            assert str(error) == "timeout must be positive, got 0"
        group = dist.MPICommunicator(MPI.COMM_WORLD, timeout=0.2)
        if group.rank == 1:
            time.sleep(30)
        group.barrier()
    """
    done = mpiexec(2, source, check=False)
    assert done.returncode != 0
    assert "TimeoutError: rank 0 has waited 0.2 s for a barrier: do all ranks take the same steps?" in done.stderr
