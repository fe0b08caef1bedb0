"""Residual networks, and the plain networks without shortcuts that show why they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastconv.nn as nn
from fastconv.joining import flatten
from fastconv.models.initialization import he_fan_out, initialize
from fastconv.models.residual import Add, norm_add_relu
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import choice, size
from fastconv.nn.utils import norm_relu

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "ResNet",
    "plain18",
    "plain34",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]


def _conv3x3(channels: int, out: int, stride: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, padding=1, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions of 3 x 3 and a shortcut around them.

    Parameters
    ----------
    inplanes, planes : int
        Channels of input and output.
    stride : int
        Of the first convolution.
    downsample : Module, optional
        What the shortcut does to the input where its shape changes.
    groups, base_width : int
        1 and 64, as in :class:`Bottleneck`.
    shortcut : bool
        False for a block of a plain network.
    stride_in_1x1 : bool
        Has no meaning here.

    Notes
    -----
    He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", figure 5 left.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.resnet import BasicBlock
    >>> BasicBlock(8, 8)(np.zeros((1, 8, 4, 4), np.float32)).shape
    (1, 8, 4, 4)
    """

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        shortcut: bool = True,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        if groups != 1 or base_width != 64:
            raise ValueError(f"BasicBlock needs groups=1 and width_per_group=64, got {groups} and {base_width}")
        self.conv1 = _conv3x3(inplanes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.conv2 = _conv3x3(planes, planes, 1)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample
        self.add = Add() if shortcut else None

    def forward(self, x: Any) -> Any:
        """Features (N, planes, H / stride, W / stride) of features (N, inplanes, H, W)."""
        y = norm_relu(self.bn1, self.relu, self.conv1(x))
        y = self.conv2(y)
        if self.add is None:
            return norm_relu(self.bn2, self.relu, y)
        return norm_add_relu(self.bn2, self.add, self.relu, y, x if self.downsample is None else self.downsample(x))


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1, the middle one with a fourth of the channels, and a shortcut.

    Parameters
    ----------
    inplanes, planes : int
        Channels of the input, and a fourth of those of the output.
    stride : int
        Of the 3 x 3 convolution, or with `stride_in_1x1` of the first.
    downsample : Module, optional
        What the shortcut does to the input where its shape changes.
    groups, base_width : int
        Groups of the 3 x 3 convolution, and channels of each where `planes` is 64 (ResNeXt: 32 and 4).
    shortcut : bool
        False for a block of a plain network.
    stride_in_1x1 : bool
        As in the paper; torchvision's weights are of the other kind ("ResNet v1.5").

    Notes
    -----
    He, Zhang, Ren & Sun 2016, figure 5 right; Xie et al. 2017 for the groups.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.resnet import Bottleneck
    >>> Bottleneck(32, 8)(np.zeros((1, 32, 4, 4), np.float32)).shape
    (1, 32, 4, 4)
    """

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        shortcut: bool = True,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        width = int(planes * (base_width / 64.0)) * groups
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(inplanes, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, second, groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = downsample
        self.add = Add() if shortcut else None

    def forward(self, x: Any) -> Any:
        """Features (N, 4 planes, H / stride, W / stride) of features (N, inplanes, H, W)."""
        y = norm_relu(self.bn1, self.relu, self.conv1(x))
        y = self.conv3(norm_relu(self.bn2, self.relu, self.conv2(y)))
        if self.add is None:
            return norm_relu(self.bn3, self.relu, y)
        return norm_add_relu(self.bn3, self.add, self.relu, y, x if self.downsample is None else self.downsample(x))


class ResNet(nn.Module):
    """Residual network: a stem, four stages of blocks that halve the image and double the channels, one linear layer.

    Parameters
    ----------
    block : {BasicBlock, Bottleneck}
    layers : sequence of 1 to 4 int
        Blocks of each stage.
    num_classes, in_channels : int
        At least 1.
    width : int, keyword only
        Channels of the first stage.
    groups, width_per_group : int, keyword only
        Of the 3 x 3 convolutions of :class:`Bottleneck`: ResNeXt-50 has 32 and 4, wide ResNet-50 1 and 128.
    zero_init_residual : bool, keyword only
        Start the last normalisation of each block at 0, so that blocks begin as the identity (Goyal et al. 2017).
    shortcut : bool, keyword only
        False leaves the shortcuts out: the plain network, whose training error grows with its depth.
    stem : {"imagenet", "small"}, keyword only
        7 x 7 with stride 2 and max-pooling, or one 3 x 3 convolution for images of 8 to 64 pixels.
    stride_in_1x1 : bool, keyword only
        Where bottlenecks stride, see :class:`Bottleneck`.

    Attributes
    ----------
    conv1, bn1, relu, maxpool, layer1, layer2, layer3, layer4, avgpool, fc : Module
        As in torchvision, as far as `layers` has stages; the pooling of a small stem is the identity.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition". Source: torchvision.models.ResNet.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import ResNet
    >>> from fastconv.models.resnet import BasicBlock
    >>> net = ResNet(BasicBlock, (1, 1), num_classes=10, in_channels=1, width=8, stem="small")
    >>> net(np.zeros((2, 1, 8, 8), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        width: int = 64,
        groups: int = 1,
        width_per_group: int = 64,
        zero_init_residual: bool = False,
        shortcut: bool = True,
        stem: str = "imagenet",
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        size("width", width, 1)
        size("groups", groups, 1)
        size("width_per_group", width_per_group, 1)
        small = choice("stem", stem, ("imagenet", "small")) == "small"
        if not 1 <= len(layers) <= 4:
            raise ValueError(f"layers must have 1 to 4 entries, got {layers!r}")
        self._inplanes = width
        self._stages = tuple(f"layer{i + 1}" for i in range(len(layers)))
        options = {
            "groups": groups,
            "base_width": width_per_group,
            "shortcut": shortcut,
            "stride_in_1x1": stride_in_1x1,
        }
        with nn.init.skip_init():
            if small:
                self.conv1 = _conv3x3(in_channels, width, 1)
            else:
                self.conv1 = nn.Conv2d(in_channels, width, 7, 2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU()
            self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
            for i, blocks in enumerate(layers):
                self.add_module(f"layer{i + 1}", self._stage(block, width << i, blocks, i, options))
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(self._inplanes, num_classes)
        initialize(self, he_fan_out)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck):
                    nn.init.zeros_((module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight)

    def _stage(self, block: Any, planes: int, blocks: int, index: int, options: dict[str, Any]) -> nn.Sequential:
        size("layers", blocks, 1)
        stride = 1 if index == 0 else 2
        stage = []
        for i in range(blocks):
            step = stride if i == 0 else 1
            out = planes * block.expansion
            downsample = None
            if options["shortcut"] and (step != 1 or self._inplanes != out):
                downsample = nn.Sequential(nn.Conv2d(self._inplanes, out, 1, step, bias=False), nn.BatchNorm2d(out))
            stage.append(block(self._inplanes, planes, step, downsample, **options))
            self._inplanes = out
        return nn.Sequential(*stage)

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.maxpool(norm_relu(self.bn1, self.relu, self.conv1(x)))
        for name in self._stages:
            x = self._modules[name](x)  # type: ignore[misc]
        x = self.avgpool(x)
        return self.fc(flatten(x, 1))


@takes_weights
def resnet18(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """ResNet-18 (11,689,512 parameters), as torchvision.models.resnet18; `options` are those of :class:`ResNet`.

    Examples
    --------
    >>> from fastconv.models import resnet18
    >>> resnet18(num_classes=10, width=8).fc
    Linear(in_features=64, out_features=10, bias=True)
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, **options)


@takes_weights
def resnet34(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """ResNet-34 (21,797,672 parameters), as torchvision.models.resnet34; `options` are those of :class:`ResNet`.

    Examples
    --------
    >>> from fastconv.models import resnet34
    >>> len(resnet34(num_classes=10, width=8).layer3)
    6
    """
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, **options)


@takes_weights
def resnet50(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """ResNet-50 (25,557,032 parameters), as torchvision.models.resnet50; `options` are those of :class:`ResNet`.

    ``groups=32, width_per_group=4`` makes it ResNeXt-50 32x4d, ``width_per_group=128`` wide ResNet-50-2.

    Examples
    --------
    >>> from fastconv.models import resnet50
    >>> resnet50(num_classes=10, width=8).fc
    Linear(in_features=256, out_features=10, bias=True)
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, **options)


@takes_weights
def resnet101(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """ResNet-101 (44,549,160 parameters), as torchvision.models.resnet101; `options` are those of :class:`ResNet`.

    Examples
    --------
    >>> from fastconv.models import resnet101
    >>> len(resnet101(num_classes=10, width=8).layer3)
    23
    """
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, **options)


@takes_weights
def resnet152(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """ResNet-152 (60,192,808 parameters), as torchvision.models.resnet152; `options` are those of :class:`ResNet`.

    Examples
    --------
    >>> from fastconv.models import resnet152
    >>> len(resnet152(num_classes=10, width=8).layer3)
    36
    """
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, in_channels, **options)


@takes_weights
def plain18(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """ResNet-18 without its shortcuts; `options` are those of :class:`ResNet`.

    Examples
    --------
    >>> from fastconv.models import plain18
    >>> plain18(num_classes=10, width=8).layer2[0].downsample is None
    True
    """
    return resnet18(num_classes, in_channels, shortcut=False, **options)


@takes_weights
def plain34(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> ResNet:
    """ResNet-34 without its shortcuts: the paper's plain network; `options` are those of :class:`ResNet`.

    Examples
    --------
    >>> from fastconv.models import plain34
    >>> plain34(num_classes=10, width=8).layer2[0].downsample is None
    True
    """
    return resnet34(num_classes, in_channels, shortcut=False, **options)
