"""The networks of the field, from the perceptron on, each with its paper's options.

Where torchvision has a model, its constructor has torchvision's name, and its ``state_dict`` torchvision's keys and
shapes, so that published weights load: ``resnet50(weights="resnet50.safetensors")``. All functions that build a network
take the keyword ``weights``: a file (.safetensors or .npz), or a ``state_dict``, also of torch tensors; nothing is
downloaded.
"""

from fastconv.models.alexnet import AlexNet, alexnet, alexnet_two_groups
from fastconv.models.c3d import C3D, c3d
from fastconv.models.catalog import ModelInfo, get_model, list_models, model_info
from fastconv.models.densenet import DenseNet, densenet121, densenet161, densenet169, densenet201
from fastconv.models.googlenet import GoogLeNet, GoogLeNetOutputs, Inception, NaiveInception, googlenet
from fastconv.models.inception import InceptionOutputs, InceptionV2, InceptionV3, inception_v2, inception_v3
from fastconv.models.keras_mnist import KerasMNIST
from fastconv.models.lenet import LeNet5
from fastconv.models.linear import MLP, LinearClassifier, Perceptron
from fastconv.models.mobilenet import (
    DepthwiseSeparableConv2d,
    MobileNetV1,
    MobileNetV2,
    SpatiallySeparableConv2d,
    mobilenet_v1,
    mobilenet_v2,
)
from fastconv.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    plain18,
    plain34,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from fastconv.models.segmentation import FCN, UNet, fcn8s, unet
from fastconv.models.vgg import (
    VGG,
    vgg11,
    vgg11_bn,
    vgg11_lrn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_1x1,
    vgg16_bn,
    vgg19,
    vgg19_bn,
)
from fastconv.models.waveform import WaveformNet, m3, m5, m11, m18, m34_res
from fastconv.models.zfnet import ZFNet

__all__ = [
    "C3D",
    "FCN",
    "MLP",
    "VGG",
    "AlexNet",
    "BasicBlock",
    "Bottleneck",
    "DenseNet",
    "DepthwiseSeparableConv2d",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "Inception",
    "InceptionOutputs",
    "InceptionV2",
    "InceptionV3",
    "KerasMNIST",
    "LeNet5",
    "LinearClassifier",
    "MobileNetV1",
    "MobileNetV2",
    "ModelInfo",
    "NaiveInception",
    "Perceptron",
    "ResNet",
    "SpatiallySeparableConv2d",
    "UNet",
    "WaveformNet",
    "ZFNet",
    "alexnet",
    "alexnet_two_groups",
    "c3d",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "fcn8s",
    "get_model",
    "googlenet",
    "inception_v2",
    "inception_v3",
    "list_models",
    "m3",
    "m5",
    "m11",
    "m18",
    "m34_res",
    "mobilenet_v1",
    "mobilenet_v2",
    "model_info",
    "plain18",
    "plain34",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "unet",
    "vgg11",
    "vgg11_bn",
    "vgg11_lrn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_1x1",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
]
