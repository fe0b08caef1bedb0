"""Images to train on, without a download: scikit-learn's digits, and MNIST's IDX files from a directory.

`load_digits` and `load_idx` return a `Dataset`; `batches` goes through arrays in batches.
"""

from .dataset import Dataset, batches
from .digits import load_digits
from .idx import load_idx, read_idx

__all__ = ["Dataset", "batches", "load_digits", "load_idx", "read_idx"]
