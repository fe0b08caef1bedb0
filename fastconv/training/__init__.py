"""Training of networks: :class:`Trainer`, its history and its checkpoints."""

from .checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .history import History
from .trainer import Trainer

__all__ = ["Checkpoint", "History", "Trainer", "read_checkpoint", "write_checkpoint"]
