"""How a run on several ranks says where its loss went wrong."""

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
from fastconv import optim
from fastconv.data import DataLoader, TensorDataset
from ranks import on_threads


def test_a_loss_that_is_no_number_on_one_rank():
    """Batch normalisation over all ranks carries it to the others, which must not wait for each other to look back."""
    images, labels = np.ones((8, 2, 3), np.float32), np.arange(8) % 2

    def program(group):
        net = nn.Sequential(nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(6, 2))
        nn.SyncBatchNorm.convert_sync_batchnorm(net, group)
        own = images * (np.nan if group.rank == 1 else 1)
        train = DataLoader(TensorDataset(own, labels), 4, seed=3, shard=(group.rank, group.size))
        with pytest.raises(FloatingPointError) as caught:
            fc.Trainer(net, optim.SGD(net.parameters()), process_group=group, log=None).fit(train, 1)
        return str(caught.value)

    first, second = on_threads(2, program)
    assert "it began in the part of the batch of another rank" in first
    assert "it began in the images" in second
