"""Training on several processes, each with its part of the data: ``mpiexec -n 4 python train.py``.

>>> import fastconv as fc, fastconv.nn as nn, fastconv.distributed as dist
>>> group = dist.world()
>>> net = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))
>>> parallel = dist.DataParallel(net)  # every rank gets the values of rank 0
>>> optimizer = fc.optim.SGD(parallel.parameters(), lr=0.1)

Then the training loop is that of one process: `DataParallel` averages the gradients during ``backward``, a
``fastconv.data.DataLoader(..., shard=(group.rank, group.size))`` gives every rank its part of each batch, and rank 0
saves ``net``. Without mpiexec the same program runs on one process. The ranks are processes that talk through MPI
(``pip install "fastconv[mpi]"``). Those with a GPU each sum its arrays through NCCL: `NCCLCommunicator`. `Communicator`
is all that another transport has to provide.
"""

from .communicator import Communicator, SingleProcess, Work, end_all_ranks, world
from .mpi import MPICommunicator
from .nccl import NCCLCommunicator
from .parallel import DataParallel

__all__ = [
    "Communicator",
    "DataParallel",
    "MPICommunicator",
    "NCCLCommunicator",
    "SingleProcess",
    "Work",
    "end_all_ranks",
    "world",
]
