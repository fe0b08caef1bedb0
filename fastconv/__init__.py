"""Fast CNN layers for NumPy arrays: native kernels, torch.nn's names, a NumPy reference.

>>> import numpy as np, fastconv as fc
>>> import fastconv.nn.functional as F
>>> image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
>>> box = np.ones((1, 1, 3, 3), np.float32)
>>> F.conv2d(image, box)
array([[[[45., 54.],
         [81., 90.]]]], dtype=float32)

Names that need more than NumPy (layers, optimisers, file formats, image filters, the native module) are imported
when they are first used, so that ``import fastconv`` costs a few milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .backend import available_backends, get_backend, set_backend, use_backend
from .config import (
    get_float32_precision,
    get_num_threads,
    num_threads,
    set_float32_precision,
    set_num_threads,
    show_config,
)
from .joining import cat, flatten, stack
from .random import get_rng_state, manual_seed, set_rng_state
from .tape import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled

# `tensor` is both a submodule and a function: importing it here, last, makes the function the package's attribute.
from .tensor import Parameter, Tensor, tensor

if TYPE_CHECKING:
    from . import data, distributed, filters, images, models, nn, onnx, optim, training, transfer, visualize
    from .explanation import explain
    from .images import convolve2d, correlate2d
    from .layouts import channels_first, channels_last
    from .nn.functional import log_softmax, relu, sigmoid, softmax, tanh
    from .optimization import optimize
    from .serialization import load, save
    from .training import Trainer

__version__ = "0.1.0"

_LAZY = {
    "channels_first": "fastconv.layouts",
    "channels_last": "fastconv.layouts",
    "convolve2d": "fastconv.images",
    "correlate2d": "fastconv.images",
    "explain": "fastconv.explanation",
    "load": "fastconv.serialization",
    "optimize": "fastconv.optimization",
    "save": "fastconv.serialization",
    "Trainer": "fastconv.training",
    "log_softmax": "fastconv.nn.functional",
    "relu": "fastconv.nn.functional",
    "sigmoid": "fastconv.nn.functional",
    "softmax": "fastconv.nn.functional",
    "tanh": "fastconv.nn.functional",
}
_LAZY_MODULES = (
    "data",
    "distributed",
    "filters",
    "images",
    "models",
    "nn",
    "onnx",
    "optim",
    "training",
    "transfer",
    "visualize",
)

__all__ = [
    "Parameter",
    "Tensor",
    "Trainer",
    "available_backends",
    "cat",
    "channels_first",
    "channels_last",
    "convolve2d",
    "correlate2d",
    "data",
    "distributed",
    "enable_grad",
    "explain",
    "filters",
    "flatten",
    "get_backend",
    "get_float32_precision",
    "get_num_threads",
    "get_rng_state",
    "images",
    "inference_mode",
    "is_grad_enabled",
    "load",
    "log_softmax",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "num_threads",
    "onnx",
    "optim",
    "optimize",
    "relu",
    "save",
    "set_backend",
    "set_float32_precision",
    "set_grad_enabled",
    "set_num_threads",
    "set_rng_state",
    "show_config",
    "sigmoid",
    "softmax",
    "stack",
    "tanh",
    "tensor",
    "training",
    "transfer",
    "use_backend",
    "visualize",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return import_module(f"fastconv.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
