"""Data sets, batches and augmentation, without a download.

`DataLoader` goes through a `Dataset` (`TensorDataset`, `ImageFolder`, or a class of one's own) in batches, in the order
of a `Sampler` if need be;
`load_digits` (scikit-learn's), `load_idx` (MNIST) and `load_cifar` read well-known data from files that are there;
`transforms` augments batches of images.
"""

from . import transforms
from .cifar import load_cifar, read_cifar
from .dataset import ConcatDataset, Dataset, Subset, TensorDataset, TrainTest, batches, random_split
from .digits import load_digits
from .idx import load_idx, read_idx
from .image_folder import ImageFiles, ImageFolder, read_image
from .loader import DataLoader, collate
from .sampler import RandomSampler, Sampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler

__all__ = [
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "ImageFiles",
    "ImageFolder",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "TrainTest",
    "WeightedRandomSampler",
    "batches",
    "collate",
    "load_cifar",
    "load_digits",
    "load_idx",
    "random_split",
    "read_cifar",
    "read_idx",
    "read_image",
    "transforms",
]
