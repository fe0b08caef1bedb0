"""Whole programs on real MPI ranks, Trainer, command line and example: the losses of one process, files of rank 0."""

import json

import numpy as np
import pytest

import fastconv as fc
from fastconv.cli import main
from fastconv.examples import distributed_digits
from fastconv.training import read_checkpoint
from ranks import mpiexec, mpiexec_python

SETUP = """
    import json, sys
    import numpy as np, fastconv as fc, fastconv.nn as nn, fastconv.optim as optim, fastconv.distributed as dist
    from fastconv.data import DataLoader, Dataset, TensorDataset

    group = dist.world()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 18)
    images = (rng.normal(size=(18, 1, 6, 6)) + labels[:, None, None, None]).astype(np.float32)

    class OneByOne(Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return images[index], labels[index]

    def loader(data, **options):
        return DataLoader(data, 8, shard=(group.rank, group.size), **options)

    def trainer(path, *layers):
        fc.manual_seed(7 + group.rank)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *layers, nn.Flatten(), nn.Linear(64, 3))
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return fc.Trainer(net, optim.SGD(net.parameters(), lr=0.05, momentum=0.9), checkpoint=path, process_group=group)
"""

# The last of the batches of 8, 8 and 2 has no example for some of 4 ranks.
CURVE = """
    run = trainer(sys.argv[1])
    history = run.fit(loader(OneByOne(), shuffle=True, seed=3), 3, loader(TensorDataset(images, labels)))
    if group.rank == 0:
        print(json.dumps([[row[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")] for row in history]))
"""

RESUME = """
    def data():
        return loader(OneByOne(), shuffle=True, seed=3)

    whole = trainer(sys.argv[1] + "/whole.npz", nn.Dropout(0.5))
    whole.fit(data(), 4)
    trainer(sys.argv[1] + "/part.npz", nn.Dropout(0.5)).fit(data(), 2)
    group.barrier()  # rank 0 has written the file
    second = trainer(sys.argv[1] + "/part.npz", nn.Dropout(0.5))
    second.load(sys.argv[1] + "/part.npz")
    second.fit(data(), 4)
    for one, other in zip(whole.model.state_dict().values(), second.model.state_dict().values()):
        assert one.tobytes() == other.tobytes()
    try:
        trainer(None).fit(loader(OneByOne(), shuffle=True, seed=group.rank), 1)
    except ValueError as error:
        print(f"refused: {error}\\n", end="", flush=True)
    try:
        trainer(None).fit(DataLoader(OneByOne(), 8, seed=3), 1)
    except ValueError as error:
        print(f"refused: {error}\\n", end="", flush=True)
"""


def test_history_is_that_of_one_process(tmp_path):
    curves = []
    for ranks in (1, 2, 4):
        *lines, curve = mpiexec(ranks, SETUP + CURVE, tmp_path / f"{ranks}.npz").stdout.splitlines()
        assert [line.partition(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
        curves.append(json.loads(curve))
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=1e-3)
    states = [read_checkpoint(tmp_path / f"{ranks}.npz") for ranks in (1, 4)]
    assert states[0].epoch == states[1].epoch == 3
    for name, value in states[0].model.items():
        np.testing.assert_allclose(states[1].model[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_going_on_bit_for_bit(tmp_path):
    """With dropout, whose generator stands elsewhere on each rank; on another number of ranks it is refused."""
    done = mpiexec(2, SETUP + RESUME, tmp_path)
    refused = (
        "refused: train must have the same seed and epoch on every rank, got [0, 0] on rank 0 and [1, 0] on rank 1"
    )
    assert refused in done.stdout  # from both ranks, whose lines may run into each other
    assert "refused: train must give rank 1 its part of each batch: shard=(1, 2), got (0, 1)" in done.stdout
    net = fc.nn.Sequential(
        *(fc.nn.Conv2d(1, 4, 3), fc.nn.BatchNorm2d(4), fc.nn.ReLU()),
        *(fc.nn.Dropout(0.5), fc.nn.Flatten(), fc.nn.Linear(64, 3)),
    )
    alone = fc.Trainer(net, fc.optim.SGD(net.parameters(), lr=0.05, momentum=0.9))
    with pytest.raises(ValueError, match=r"the run was on 2 ranks, this one is on 1: .*; begin anew from the weights"):
        alone.load(tmp_path / "part.npz")


def command(data, output, *more):
    """The arguments of `python -m fastconv` for a short run."""
    options = ["--epochs", "2", "--batch-size", "16", "--workers", "1", "--optim", "sgd", "--output", output, *more]
    return list(map(str, ["train", "lenet5", "--data", data, *options]))


def test_command_line(tmp_path, capsys):
    """`mpiexec -n 2 python -m fastconv train` has one process's history, says things once, and goes on, on 2 ranks."""
    digits = tmp_path / "digits"
    digits.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 41), ("t10k", 10)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        images = rng.integers(0, 25, (count, 28, 28)).astype(np.uint8) + 20 * labels[:, None, None]
        for name, array in (
            (f"{part}-images-idx3-ubyte", images.astype(np.uint8)),
            (f"{part}-labels-idx1-ubyte", labels),
        ):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (digits / name).write_bytes(header + array.tobytes())

    def on_two(*arguments, **options):
        return mpiexec_python(2, "-m", "fastconv", *command(digits, *arguments), **options)

    done = on_two(tmp_path / "two")
    assert done.stdout.count("epoch 2/2: ") == done.stdout.count("best validation loss") == 1
    assert main(command(digits, tmp_path / "one")) == 0
    one, two = (read_checkpoint(tmp_path / name / "last.npz").history for name in ("one", "two"))
    np.testing.assert_allclose([row["loss"] for row in two], [row["loss"] for row in one], rtol=1e-4)
    assert "going on after epoch 2" in on_two(tmp_path / "two", "--resume").stdout
    capsys.readouterr()
    assert main(command(digits, tmp_path / "two", "--resume")) == 2
    assert "the run was on 2 ranks, this one is on 1" in capsys.readouterr().err
    broken = on_two(tmp_path / "broken", "--lr", "1e30", check=False)
    assert broken.returncode != 0 and "of 2 failed, which ends all ranks:" in broken.stderr
    assert "FloatingPointError" in broken.stderr


def test_example(tmp_path, capsys):
    """The example of the training loop, whose test accuracy shows that the network of rank 0 has learnt."""
    options = ["--epochs", "2", "--output"]
    losses = distributed_digits.main([*options, str(tmp_path / "one.npz")])
    alone = capsys.readouterr().out.splitlines()
    program = ("-m", "fastconv.examples.distributed_digits", *options)
    both = mpiexec_python(2, *program, tmp_path / "two.npz").stdout.splitlines()
    assert len(both) == len(alone) == 2 and float(both[-1].split()[-2]) > 80
    np.testing.assert_allclose([float(line.split()[3].rstrip(",")) for line in both], losses, rtol=1e-3)
    one, two = (fc.load(tmp_path / name) for name in ("one.npz", "two.npz"))
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in two.items()}


@pytest.mark.parametrize("threads", [None, "3"])
def test_ranks_share_the_cores(threads):
    """Unless the environment says how many threads each has."""
    source = """
        import fastconv as fc
        before, group = fc.get_num_threads(), fc.distributed.world()
        if group.rank == 0:
            print(before, fc.get_num_threads())
    """
    before, after = map(int, mpiexec(2, source, threads=threads).stdout.split())
    assert after == (max(1, before // 2) if threads is None else before)
