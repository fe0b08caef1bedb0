"""Handwritten digits on several processes: the training loop written out.

    mpiexec -n 2 python -m fastconv.examples.distributed_digits --output digits.npz

Every process (rank) runs this program. Each takes its part of every batch and computes the gradients of its part;
DataParallel averages them while the backward pass still runs, so that all ranks take the same step. The losses are
those of one process, `python -m fastconv.examples.distributed_digits`, but for rounding.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

import fastconv as fc
import fastconv.distributed as dist
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv import data, optim


def network() -> nn.Module:
    """Two convolutions with batch normalisation for images of 8 x 8 pixels, 12,690 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 56), nn.ReLU(), nn.Linear(56, 10)),
    )


def whole_mean(group: dist.Communicator, values: Sequence[float], counts: Sequence[int]) -> float:
    """The mean over the examples of all ranks; `values` are means over `counts` examples of this one."""
    sums = np.array([np.dot(values, counts), np.sum(counts)], np.float64)
    group.all_reduce(sums).wait()
    return float(sums[0] / sums[1])


def main(argv: Sequence[str] | None = None) -> list[float]:
    """Train, and print and return the mean loss of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5, help="passes over the digits (default 5)")
    parser.add_argument("--batch-size", type=int, default=64, help="of all ranks together (default 64)")
    parser.add_argument("--output", metavar="FILE", help="where to save the network, .npz or .safetensors")
    arguments = parser.parse_args(argv)

    group = dist.world()  # one rank, where mpiexec did not start the program
    digits = data.load_digits()
    fc.manual_seed(0)
    # Batch statistics of the whole batch, not of each rank's part.
    net = nn.SyncBatchNorm.convert_sync_batchnorm(network())
    parallel = dist.DataParallel(net)
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    loader = data.DataLoader(
        data.TensorDataset(digits.train_images, digits.train_labels),
        arguments.batch_size,
        shuffle=True,
        seed=0,  # the same order on every rank,
        shard=(group.rank, group.size),  # of which each takes its part
    )
    epochs = []
    for epoch in range(arguments.epochs):
        losses, counts = [], []
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(parallel(fc.tensor(images)), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
            counts.append(len(images))
        epochs.append(whole_mean(group, losses, counts))
        if group.rank == 0:
            right = net.eval()(digits.test_images).argmax(axis=1) == digits.test_labels
            net.train()
            print(f"epoch {epoch + 1}: loss {epochs[-1]:.6f}, test accuracy {100 * right.mean():.2f} %", flush=True)
    if group.rank == 0 and arguments.output is not None:
        fc.save(net, arguments.output)
    return epochs


if __name__ == "__main__":
    main()
