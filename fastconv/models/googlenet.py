"""The Inception module, naive and with 1 x 1 reductions, and GoogLeNet with its auxiliary classifiers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.joining import cat, flatten
from fastconv.models.initialization import he_fan_in, initialize
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import choice, number, size
from fastconv.nn.utils import norm_relu

__all__ = ["GoogLeNet", "GoogLeNetOutputs", "Inception", "NaiveInception", "googlenet"]


class GoogLeNetOutputs(NamedTuple):
    """Logits in training mode; those of the auxiliary classifiers come from modules 4d (2) and 4a (1)."""

    logits: Any
    aux_logits2: Any
    aux_logits1: Any


class BasicConv2d(nn.Module):
    """Convolution, batch normalisation (or a bias in its place) and ReLU.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.googlenet import BasicConv2d
    >>> BasicConv2d(3, 8, 3, padding=1)(np.zeros((1, 3, 5, 5), np.float32)).shape
    (1, 8, 5, 5)
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, batch_norm: bool = True, **options: Any
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=not batch_norm, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001) if batch_norm else None
        self.relu = nn.ReLU()

    def forward(self, x: Any) -> Any:
        """Features (N, out_channels, H', W') of features (N, in_channels, H, W)."""
        x = self.conv(x)
        return self.relu(x) if self.bn is None else norm_relu(self.bn, self.relu, x)


class NaiveInception(nn.Module):
    """The first idea of an Inception module: convolutions of 1, 3 and 5 and max-pooling of 3, side by side.

    Parameters
    ----------
    in_channels : int
    ch1x1, ch3x3, ch5x5 : int
        Outputs of the convolutions; pooling adds `in_channels` more, so that the channels grow with every module.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Szegedy et al. 2015, "Going deeper with convolutions", figure 2a.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import Inception, NaiveInception
    >>> x = np.zeros((1, 192, 28, 28), np.float32)
    >>> naive, reduced = NaiveInception(192, 64, 128, 32), Inception(192, 64, 96, 128, 16, 32, 32, paper=True)
    >>> naive(x).shape, reduced(x).shape
    ((1, 416, 28, 28), (1, 256, 28, 28))
    >>> naive.summary(x.shape).macs // 10**6, reduced.summary(x.shape).macs // 10**6
    (303, 128)
    """

    def __init__(self, in_channels: int, ch1x1: int, ch3x3: int, ch5x5: int) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(in_channels, size("ch1x1", ch1x1, 1), 1, batch_norm=False)
        self.branch2 = BasicConv2d(in_channels, size("ch3x3", ch3x3, 1), 3, batch_norm=False, padding=1)
        self.branch3 = BasicConv2d(in_channels, size("ch5x5", ch5x5, 1), 5, batch_norm=False, padding=2)
        self.branch4 = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: Any) -> Any:
        """Features of all branches, (N, ch1x1 + ch3x3 + ch5x5 + in_channels, H, W)."""
        return cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Inception(nn.Module):
    """Inception module with 1 x 1 reductions before the larger convolutions and after the pooling.

    Parameters
    ----------
    in_channels : int
    ch1x1, ch3x3red, ch3x3, ch5x5red, ch5x5, pool_proj : int
        The columns of the paper's table 1.
    paper : bool, keyword only
        Biases and windows of 5 x 5 in the third branch, as in the paper. Otherwise batch normalisation and 3 x 3, which
        is an error of torchvision's that its weights have made permanent.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Szegedy et al. 2015, figure 2b. Source: torchvision.models.googlenet.Inception.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import Inception
    >>> Inception(16, 4, 4, 8, 2, 4, 4)(np.zeros((1, 16, 7, 7), np.float32)).shape
    (1, 20, 7, 7)
    """

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3red: int,
        ch3x3: int,
        ch5x5red: int,
        ch5x5: int,
        pool_proj: int,
        *,
        paper: bool = False,
    ) -> None:
        super().__init__()
        norm, (kernel, padding) = not paper, (5, 2) if paper else (3, 1)
        self.branch1 = BasicConv2d(in_channels, ch1x1, 1, norm)
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, ch3x3red, 1, norm), BasicConv2d(ch3x3red, ch3x3, 3, norm, padding=1)
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, ch5x5red, 1, norm), BasicConv2d(ch5x5red, ch5x5, kernel, norm, padding=padding)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), BasicConv2d(in_channels, pool_proj, 1, norm)
        )

    def forward(self, x: Any) -> Any:
        """Features of all branches, (N, ch1x1 + ch3x3 + ch5x5 + pool_proj, H, W)."""
        return cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    """Auxiliary classifier: pooling to 4 x 4, a 1 x 1 convolution, two linear layers.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.googlenet import InceptionAux
    >>> InceptionAux(64, 10, hidden=16)(np.zeros((1, 64, 14, 14), np.float32)).shape
    (1, 10)
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: float = 0.7,
        *,
        channels: int = 128,
        hidden: int = 1024,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv = BasicConv2d(in_channels, channels, 1, batch_norm)
        self.fc1 = nn.Linear(channels * 16, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of features (N, in_channels, H, W)."""
        x = self.conv(F.adaptive_avg_pool2d(x, 4))
        x = F.relu(self.fc1(flatten(x, 1)))
        return self.fc2(self.dropout(x))


# The paper's table 1: outputs of 1x1, 3x3 reduction, 3x3, 5x5 reduction, 5x5, pooling's projection.
_MODULES = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNet(nn.Module):
    """GoogLeNet, Inception v1: nine Inception modules and two auxiliary classifiers.

    Parameters
    ----------
    num_classes, in_channels : int
        At least 1.
    aux_logits : bool, keyword only
        Whether there are auxiliary classifiers. With them, training mode returns :class:`GoogLeNetOutputs`; the paper
        adds 0.3 times their losses.
    transform_input : bool, keyword only
        Take images normalised for torchvision's other models (needs 3 channels), as its published weights want.
    dropout, dropout_aux : float, keyword only
        Before the last linear layers.
    paper : bool, keyword only
        The network of 2014: biases in place of batch normalisation, windows of 5 x 5 in the third branches, local
        response normalisation in the stem. Otherwise torchvision's, see :class:`Inception`.
    width : float, keyword only
        Factor of all channels, for small data.
    stem : {"imagenet", "small"}, keyword only
        Three convolutions that reduce the image eightfold, or one of 3 x 3 that keeps it, for 8 to 64 pixels.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Szegedy et al. 2015, "Going deeper with convolutions". Source: torchvision.models.GoogLeNet.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import GoogLeNet
    >>> net = GoogLeNet(10, 1, width=0.125, stem="small").eval()
    >>> net(np.zeros((2, 1, 16, 16), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        aux_logits: bool = True,
        transform_input: bool = False,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
        paper: bool = False,
        width: float = 1.0,
        stem: str = "imagenet",
    ) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        if not number("width", width) > 0:
            raise ValueError(f"width must be positive, got {width}")
        if transform_input and in_channels != 3:
            raise ValueError(f"transform_input needs in_channels=3, got {in_channels}")
        small = choice("stem", stem, ("imagenet", "small")) == "small"
        self.aux_logits = aux_logits
        self.transform_input = transform_input
        norm = not paper

        def scaled(channels: int) -> int:
            return max(1, round(channels * width))

        with nn.init.skip_init():
            if small:
                self.conv1 = BasicConv2d(in_channels, scaled(192), 3, norm, padding=1)
            else:
                self.conv1 = BasicConv2d(in_channels, scaled(64), 7, norm, stride=2, padding=3)
                self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
                self.conv2 = BasicConv2d(scaled(64), scaled(64), 1, norm)
                self.conv3 = BasicConv2d(scaled(64), scaled(192), 3, norm, padding=1)
                self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
            channels, at = scaled(192), {}
            for name, columns in _MODULES.items():
                at[name] = channels
                outs = [scaled(c) for c in columns]
                self.add_module(name, Inception(channels, *outs, paper=paper))
                channels = outs[0] + outs[2] + outs[4] + outs[5]
                if name == "inception3b":
                    self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
                elif name == "inception4e":
                    # torchvision's windows of 2; the paper's of 3 overlap here, too.
                    self.maxpool4 = nn.MaxPool2d(3 if paper else 2, stride=2, ceil_mode=True)
            if aux_logits:
                extent: dict[str, Any] = {"channels": scaled(128), "hidden": scaled(1024), "batch_norm": norm}
                self.aux1 = InceptionAux(at["inception4b"], num_classes, dropout_aux, **extent)
                self.aux2 = InceptionAux(at["inception4e"], num_classes, dropout_aux, **extent)
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(channels, num_classes)
        # The paper says nothing of its first weights; He's keep the signal through 22 layers, normalised or not.
        initialize(self, he_fan_in)
        self.lrn = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0) if paper and not small else None
        self._small = small

    def _stem(self, x: Any) -> Any:
        if self._small:
            return self.conv1(x)
        x = self.maxpool1(self.conv1(x))
        if self.lrn is None:
            return self.maxpool2(self.conv3(self.conv2(x)))
        return self.maxpool2(self.lrn(self.conv3(self.conv2(self.lrn(x)))))

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, H, W); in training :class:`GoogLeNetOutputs`."""
        if self.transform_input:
            x = imagenet_to_half(x)
        x = self.inception3b(self.inception3a(self._stem(x)))
        first = self.inception4a(self.maxpool3(x))
        second = self.inception4d(self.inception4c(self.inception4b(first)))
        x = self.maxpool4(self.inception4e(second))
        x = self.avgpool(self.inception5b(self.inception5a(x)))
        logits = self.fc(self.dropout(flatten(x, 1)))
        if not (self.training and self.aux_logits):
            return logits
        return GoogLeNetOutputs(logits, self.aux2(second), self.aux1(first))


def imagenet_to_half(x: Any) -> Any:
    """Images normalised with ImageNet's means and deviations, as if normalised with 0.5 and 0.5.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.googlenet import imagenet_to_half
    >>> white = ((1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    >>> imagenet_to_half(white).ravel().round(6)
    array([1., 1., 1.])
    """
    dtype = x.dtype
    scale = np.array([0.229, 0.224, 0.225]) / 0.5
    shift = (np.array([0.485, 0.456, 0.406]) - 0.5) / 0.5
    return x * scale.reshape(3, 1, 1).astype(dtype) + shift.reshape(3, 1, 1).astype(dtype)


@takes_weights
def googlenet(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> GoogLeNet:
    """GoogLeNet (6,624,904 parameters, 13,004,888 with its auxiliary classifiers), as torchvision.models.googlenet.

    `options` are those of :class:`GoogLeNet`.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv.models import googlenet
    >>> with nn.init.skip_init():
    ...     net = googlenet(aux_logits=False)
    >>> sum(p.numel() for p in net.parameters())
    6624904
    """
    return GoogLeNet(num_classes, in_channels, **options)
