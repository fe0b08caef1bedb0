"""The networks of the field, from the perceptron on, each with its paper's options.

Where torchvision has a model, its constructor has torchvision's name, and its ``state_dict`` torchvision's keys and
shapes, so that published weights load: ``net.load_state_dict(fastconv.load("resnet50.safetensors"))``. A network whose
weights are loaded next is built fastest inside :func:`fastconv.nn.init.skip_init`.
"""

from fastconv.models.catalog import ModelInfo, get_model, list_models, model_info
from fastconv.models.keras_mnist import KerasMNIST
from fastconv.models.lenet import LeNet5
from fastconv.models.linear import MLP, LinearClassifier, Perceptron

__all__ = [
    "MLP",
    "KerasMNIST",
    "LeNet5",
    "LinearClassifier",
    "ModelInfo",
    "Perceptron",
    "get_model",
    "list_models",
    "model_info",
]
