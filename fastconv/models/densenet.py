"""DenseNets: every layer sees the features of all layers before it."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.joining import cat, flatten
from fastconv.models.initialization import he_fan_in, initialize
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import choice, number, size
from fastconv.nn.modules.state import LoadResult
from fastconv.nn.utils import norm_relu

__all__ = ["DenseNet", "densenet121", "densenet161", "densenet169", "densenet201"]

# torchvision's files of 2017 say "denselayer1.norm.1.weight" for "denselayer1.norm1.weight".
_OLD_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")


class DenseLayer(nn.Module):
    """Normalisation, ReLU and convolution, twice: 1 x 1 to ``bn_size * growth_rate`` channels, 3 x 3 to `growth_rate`.

    With ``bn_size=0`` there is the 3 x 3 alone.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.densenet import DenseLayer
    >>> DenseLayer(8, 4, 4, 0.0)(np.zeros((1, 8, 5, 5), np.float32)).shape
    (1, 4, 5, 5)
    """

    def __init__(self, in_channels: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        if bn_size:
            inner = bn_size * growth_rate
            self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(inner)
            self.relu2 = nn.ReLU()
            self.conv2: nn.Module | None = nn.Conv2d(inner, growth_rate, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, growth_rate, 3, padding=1, bias=False)
            self.conv2 = None
        self.drop_rate = drop_rate

    def forward(self, x: Any) -> Any:
        """New features (N, growth_rate, H, W) of all features before, (N, in_channels, H, W)."""
        y = self.conv1(norm_relu(self.norm1, self.relu1, x))
        if self.conv2 is not None:
            y = self.conv2(norm_relu(self.norm2, self.relu2, y))
        return F.dropout(y, self.drop_rate, self.training) if self.drop_rate else y


class DenseBlock(nn.Module):
    """Dense layers, each of which gets the input and the outputs of all layers before it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.densenet import DenseBlock
    >>> DenseBlock(3, 8, 4, 4, 0.0)(np.zeros((1, 8, 5, 5), np.float32)).shape
    (1, 20, 5, 5)
    """

    def __init__(self, layers: int, in_channels: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        for i in range(layers):
            layer = DenseLayer(in_channels + i * growth_rate, growth_rate, bn_size, drop_rate)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Any) -> Any:
        """Features (N, in_channels + layers * growth_rate, H, W)."""
        for layer in self.children():
            x = cat([x, layer(x)], 1)
        return x


class DenseNet(nn.Module):
    """Densely connected network.

    Parameters
    ----------
    growth_rate : int
        Channels that each layer adds (the paper's k).
    block_config : sequence of int
        Layers of each dense block.
    num_init_features : int
        Channels of the stem.
    num_classes, in_channels : int
        At least 1.
    bn_size : int, keyword only
        Channels of the 1 x 1 convolutions in multiples of the growth rate (bottleneck, "B"); 0 leaves them out.
    compression : float, keyword only
        Share of the channels that a transition keeps (the paper's theta, "C" below 1), above 0 to 1.
    drop_rate : float, keyword only
        Dropout after every dense layer.
    stem : {"imagenet", "small"}, keyword only
        7 x 7 with stride 2 and max-pooling, or one 3 x 3 convolution for images of 8 to 64 pixels.

    Attributes
    ----------
    features, classifier : Module
        As in torchvision.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Huang, Liu, van der Maaten & Weinberger 2017, "Densely connected convolutional networks". Source:
    torchvision.models.DenseNet, whose older files, with other keys, load as well.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import DenseNet
    >>> net = DenseNet(8, (2, 2), 16, num_classes=10, in_channels=1, stem="small")
    >>> net(np.zeros((2, 1, 8, 8), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        bn_size: int = 4,
        compression: float = 0.5,
        drop_rate: float = 0.0,
        stem: str = "imagenet",
    ) -> None:
        super().__init__()
        for name, value in (
            ("growth_rate", growth_rate),
            ("num_init_features", num_init_features),
            ("num_classes", num_classes),
            ("in_channels", in_channels),
            *(("block_config", layers) for layers in block_config),
        ):
            size(name, value, 1)
        size("bn_size", bn_size, 0)
        if not 0 < number("compression", compression) <= 1:
            raise ValueError(f"compression must be above 0 and at most 1, got {compression}")
        if not 0 <= number("drop_rate", drop_rate) <= 1:
            raise ValueError(f"drop_rate must be from 0 to 1, got {drop_rate}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        with nn.init.skip_init():
            if choice("stem", stem, ("imagenet", "small")) == "small":
                layers["conv0"] = nn.Conv2d(in_channels, num_init_features, 3, padding=1, bias=False)
            else:
                layers["conv0"] = nn.Conv2d(in_channels, num_init_features, 7, stride=2, padding=3, bias=False)
                layers["norm0"] = nn.BatchNorm2d(num_init_features)
                layers["relu0"] = nn.ReLU()
                layers["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)
            channels = num_init_features
            for i, count in enumerate(block_config, 1):
                layers[f"denseblock{i}"] = DenseBlock(count, channels, growth_rate, bn_size, drop_rate)
                channels += count * growth_rate
                if i < len(block_config):
                    kept = max(1, int(channels * compression))
                    layers[f"transition{i}"] = _transition(channels, kept)
                    channels = kept
            layers["norm5"] = nn.BatchNorm2d(channels)
            self.features = nn.Sequential(layers)
            self.relu = nn.ReLU()
            self.classifier = nn.Linear(channels, num_classes)
        initialize(self, he_fan_in)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = F.adaptive_avg_pool2d(self.relu(self.features(x)), 1)
        return self.classifier(flatten(x, 1))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """As :meth:`fastconv.nn.Module.load_state_dict`, for the keys of torchvision's files of 2017, too."""
        if isinstance(state_dict, Mapping):
            state_dict = {
                _OLD_KEY.sub(r"\1\2", key) if isinstance(key, str) else key: value for key, value in state_dict.items()
            }
        return super().load_state_dict(state_dict, strict)


def _transition(channels: int, kept: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, kept, 1, bias=False),
            pool=nn.AvgPool2d(2, 2),
        )
    )


@takes_weights
def densenet121(num_classes: int = 1000, in_channels: int = 3, *, growth_rate: int = 32, **options: Any) -> DenseNet:
    """DenseNet-121 (7,978,856 parameters), as torchvision.models.densenet121; `options` as :class:`DenseNet`'s.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv.models import densenet121
    >>> with nn.init.skip_init():
    ...     net = densenet121()
    >>> sum(p.numel() for p in net.parameters())
    7978856
    """
    return DenseNet(growth_rate, (6, 12, 24, 16), 2 * growth_rate, num_classes, in_channels, **options)


@takes_weights
def densenet169(num_classes: int = 1000, in_channels: int = 3, *, growth_rate: int = 32, **options: Any) -> DenseNet:
    """DenseNet-169 (14,149,480 parameters), as torchvision.models.densenet169; `options` as :class:`DenseNet`'s.

    Examples
    --------
    >>> from fastconv.models import densenet169
    >>> len(list(densenet169(10, growth_rate=4).features.denseblock4.children()))
    32
    """
    return DenseNet(growth_rate, (6, 12, 32, 32), 2 * growth_rate, num_classes, in_channels, **options)


@takes_weights
def densenet201(num_classes: int = 1000, in_channels: int = 3, *, growth_rate: int = 32, **options: Any) -> DenseNet:
    """DenseNet-201 (20,013,928 parameters), as torchvision.models.densenet201; `options` as :class:`DenseNet`'s.

    Examples
    --------
    >>> from fastconv.models import densenet201
    >>> len(list(densenet201(10, growth_rate=4).features.denseblock3.children()))
    48
    """
    return DenseNet(growth_rate, (6, 12, 48, 32), 2 * growth_rate, num_classes, in_channels, **options)


@takes_weights
def densenet161(num_classes: int = 1000, in_channels: int = 3, *, growth_rate: int = 48, **options: Any) -> DenseNet:
    """DenseNet-161 (28,681,000 parameters), as torchvision.models.densenet161; `options` as :class:`DenseNet`'s.

    Examples
    --------
    >>> from fastconv.models import densenet161
    >>> densenet161(10, growth_rate=4).features.conv0.out_channels
    8
    """
    return DenseNet(growth_rate, (6, 12, 36, 24), 2 * growth_rate, num_classes, in_channels, **options)
