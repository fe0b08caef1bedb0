"""The catalogue: every model under one name, with the input it was made for and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fastconv.nn as nn
from fastconv.models import keras_mnist, lenet, linear

__all__ = ["ModelInfo", "get_model", "list_models", "model_info"]


@dataclass(frozen=True)
class ModelInfo:
    """A model of the catalogue.

    Attributes
    ----------
    name : str
    build : callable
        ``build(num_classes=..., in_channels=..., **options)`` gives the Module; the defaults are those of the paper.
    input_shape : tuple of int
        Of one input, channels first, without the batch.
    source : str
        Authors and year.
    """

    name: str
    build: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    source: str


_DIGIT = (1, 28, 28)
_IMAGE = (3, 224, 224)

_MODELS = {
    info.name: info
    for info in (
        ModelInfo("linear_classifier", linear.LinearClassifier, _DIGIT, "linear SVM, softmax regression"),
        ModelInfo("mlp", linear.MLP, _DIGIT, "Rumelhart et al. 1986"),
        ModelInfo("lenet5", lenet.LeNet5, _DIGIT, "LeCun et al. 1998"),
        ModelInfo("keras_mnist", keras_mnist.KerasMNIST, _DIGIT, "Chollet 2017"),
    )
}


def list_models() -> list[str]:
    """Names of the models, from the simplest to the latest. As torchvision.models.list_models.

    Examples
    --------
    >>> from fastconv.models import list_models
    >>> list_models()[:4]
    ['linear_classifier', 'mlp', 'lenet5', 'keras_mnist']
    """
    return list(_MODELS)


def model_info(name: str) -> ModelInfo:
    """What the catalogue knows of a model.

    Raises
    ------
    ValueError
        No such model; the message lists those there are.

    Examples
    --------
    >>> from fastconv.models import model_info
    >>> model_info("lenet5").input_shape
    (1, 28, 28)
    """
    if name not in _MODELS:
        raise ValueError(f"name must be one of {', '.join(_MODELS)}; got {name!r}")
    return _MODELS[name]


def get_model(name: str, **options: Any) -> nn.Module:
    """A model by its name, with random weights. As torchvision.models.get_model.

    Parameters
    ----------
    name : str
        One of `list_models`.
    **options
        Of its constructor: ``num_classes``, ``in_channels`` and the paper's.

    Raises
    ------
    ValueError
        No such model, or an option out of its range.
    TypeError
        An option that the model does not have.

    Examples
    --------
    >>> from fastconv.models import get_model
    >>> get_model("mlp", num_classes=3, hidden=(16,))[-1]
    Linear(in_features=16, out_features=3, bias=True)
    """
    return model_info(name).build(**options)
