"""Schedules of the learning rate with the names, arguments and values of torch.optim.lr_scheduler.

A schedule is made after its optimiser and called once an epoch (or once a batch, as one counts), after the optimiser:

>>> import fastconv as fc, fastconv.optim as optim
>>> w = fc.tensor([1.0], requires_grad=True)
>>> optimizer = optim.SGD([w], lr=0.5)
>>> schedule = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
>>> for epoch in range(3):
...     optimizer.step()
...     schedule.step()
>>> schedule.get_last_lr()
[0.05]

Each value follows from the one before it, as in torch, so that schedules of one optimiser multiply and a learning rate
changed by hand stays changed. ``state_dict`` holds numbers, strings and lists alone, so that ``json`` can write it.
"""

from .cycles import CosineAnnealingWarmRestarts, CyclicLR, MultiplicativeLR, OneCycleLR, PolynomialLR
from .factors import ConstantLR, CosineAnnealingLR, ExponentialLR, LambdaLR, LinearLR, MultiStepLR, StepLR
from .plateau import ReduceLROnPlateau
from .scheduler import LRScheduler
from .sequence import ChainedScheduler, SequentialLR

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
