"""Optimisers and learning-rate schedules with torch.optim's names, arguments and arithmetic.

Optimisers change the arrays of the parameters in place, from the gradients that ``backward`` (or a module's pullback)
left in ``grad``. Parameters without a gradient are passed over. Plain gradient descent is :class:`SGD` without
momentum. Schedules stand in :mod:`fastconv.optim.lr_scheduler`, gradient clipping in :mod:`fastconv.nn.utils`.
"""

from . import lr_scheduler
from .adam import Adam, AdamW
from .adam_family import Adamax, NAdam, RAdam
from .adaptive import Adadelta, Adagrad, RMSprop, Rprop
from .optimizer import Optimizer
from .sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
]
