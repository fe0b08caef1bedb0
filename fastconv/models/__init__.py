"""Networks that are ready to train."""

from fastconv.models.lenet import LeNet5

__all__ = ["LeNet5"]
