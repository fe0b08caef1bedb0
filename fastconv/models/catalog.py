"""The catalogue: every model under one name, with the input it was made for and where it comes from."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fastconv.nn as nn
from fastconv.models.alexnet import alexnet, alexnet_two_groups
from fastconv.models.c3d import c3d
from fastconv.models.densenet import densenet121, densenet161, densenet169, densenet201
from fastconv.models.googlenet import googlenet
from fastconv.models.inception import inception_v2, inception_v3
from fastconv.models.keras_mnist import KerasMNIST
from fastconv.models.lenet import LeNet5
from fastconv.models.linear import MLP, LinearClassifier
from fastconv.models.mobilenet import mobilenet_v1, mobilenet_v2
from fastconv.models.resnet import plain18, plain34, resnet18, resnet34, resnet50, resnet101, resnet152
from fastconv.models.segmentation import fcn8s, unet
from fastconv.models.vgg import vgg11, vgg11_bn, vgg11_lrn, vgg13, vgg13_bn, vgg16, vgg16_1x1, vgg16_bn, vgg19, vgg19_bn
from fastconv.models.waveform import m3, m5, m11, m18, m34_res
from fastconv.models.zfnet import ZFNet

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
_LARGE_IMAGE = (3, 299, 299)
_SOUND = (1, 32000)
_CLIP = (3, 16, 112, 112)

_MODELS = {
    info.name: info
    for info in (
        ModelInfo("linear_classifier", LinearClassifier, _DIGIT, "linear SVM, softmax regression"),
        ModelInfo("mlp", MLP, _DIGIT, "Rumelhart et al. 1986"),
        ModelInfo("lenet5", LeNet5, _DIGIT, "LeCun et al. 1998"),
        ModelInfo("keras_mnist", KerasMNIST, _DIGIT, "Chollet 2017"),
        ModelInfo("alexnet", alexnet, _IMAGE, "Krizhevsky 2014"),
        ModelInfo("alexnet_two_groups", alexnet_two_groups, _IMAGE, "Krizhevsky et al. 2012"),
        ModelInfo("zfnet", ZFNet, _IMAGE, "Zeiler & Fergus 2014"),
        ModelInfo("vgg11", vgg11, _IMAGE, "Simonyan & Zisserman 2015, A"),
        ModelInfo("vgg11_lrn", vgg11_lrn, _IMAGE, "Simonyan & Zisserman 2015, A-LRN"),
        ModelInfo("vgg13", vgg13, _IMAGE, "Simonyan & Zisserman 2015, B"),
        ModelInfo("vgg16_1x1", vgg16_1x1, _IMAGE, "Simonyan & Zisserman 2015, C"),
        ModelInfo("vgg16", vgg16, _IMAGE, "Simonyan & Zisserman 2015, D"),
        ModelInfo("vgg19", vgg19, _IMAGE, "Simonyan & Zisserman 2015, E"),
        ModelInfo("vgg11_bn", vgg11_bn, _IMAGE, "with batch normalisation"),
        ModelInfo("vgg13_bn", vgg13_bn, _IMAGE, "with batch normalisation"),
        ModelInfo("vgg16_bn", vgg16_bn, _IMAGE, "with batch normalisation"),
        ModelInfo("vgg19_bn", vgg19_bn, _IMAGE, "with batch normalisation"),
        ModelInfo("googlenet", googlenet, _IMAGE, "Szegedy et al. 2015"),
        ModelInfo("inception_v2", inception_v2, _LARGE_IMAGE, "Szegedy et al. 2016"),
        ModelInfo("inception_v3", inception_v3, _LARGE_IMAGE, "Szegedy et al. 2016"),
        ModelInfo("plain18", plain18, _IMAGE, "He et al. 2016, without shortcuts"),
        ModelInfo("plain34", plain34, _IMAGE, "He et al. 2016, without shortcuts"),
        ModelInfo("resnet18", resnet18, _IMAGE, "He et al. 2016"),
        ModelInfo("resnet34", resnet34, _IMAGE, "He et al. 2016"),
        ModelInfo("resnet50", resnet50, _IMAGE, "He et al. 2016"),
        ModelInfo("resnet101", resnet101, _IMAGE, "He et al. 2016"),
        ModelInfo("resnet152", resnet152, _IMAGE, "He et al. 2016"),
        ModelInfo("densenet121", densenet121, _IMAGE, "Huang et al. 2017"),
        ModelInfo("densenet169", densenet169, _IMAGE, "Huang et al. 2017"),
        ModelInfo("densenet201", densenet201, _IMAGE, "Huang et al. 2017"),
        ModelInfo("densenet161", densenet161, _IMAGE, "Huang et al. 2017"),
        ModelInfo("mobilenet_v1", mobilenet_v1, _IMAGE, "Howard et al. 2017"),
        ModelInfo("mobilenet_v2", mobilenet_v2, _IMAGE, "Sandler et al. 2018"),
        ModelInfo("m3", m3, _SOUND, "Dai et al. 2017"),
        ModelInfo("m5", m5, _SOUND, "Dai et al. 2017"),
        ModelInfo("m11", m11, _SOUND, "Dai et al. 2017"),
        ModelInfo("m18", m18, _SOUND, "Dai et al. 2017"),
        ModelInfo("m34_res", m34_res, _SOUND, "Dai et al. 2017"),
        ModelInfo("c3d", c3d, _CLIP, "Tran et al. 2015"),
        ModelInfo("fcn8s", fcn8s, _IMAGE, "Long et al. 2015"),
        ModelInfo("unet", unet, (1, 256, 256), "Ronneberger et al. 2015"),
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
        close = difflib.get_close_matches(str(name), _MODELS, 1)
        hint = f", which is like {close[0]!r}" if close else ""
        raise ValueError(f"name must be one of {', '.join(_MODELS)}; got {name!r}{hint}")
    return _MODELS[name]


def get_model(name: str, **options: Any) -> nn.Module:
    """A model by its name, with random weights. As torchvision.models.get_model.

    Parameters
    ----------
    name : str
        One of `list_models`.
    **options
        Of its constructor: ``num_classes``, ``in_channels``, ``weights`` (but for the linear models, LeNet-5, ZFNet
        and Keras' network) and the paper's.

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
