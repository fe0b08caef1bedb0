"""Inception v2 and v3: convolutions factorised into smaller and into one-dimensional ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.joining import cat, flatten
from fastconv.models.googlenet import BasicConv2d, imagenet_to_half
from fastconv.models.initialization import initialize
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import number, size

__all__ = ["InceptionOutputs", "InceptionV2", "InceptionV3", "inception_v2", "inception_v3"]

Scale = Callable[[int], int]


class InceptionOutputs(NamedTuple):
    """Logits in training mode, those of the auxiliary classifier beside them."""

    logits: Any
    aux_logits: Any


class _Module(nn.Module):
    """What the modules share: branches by torchvision's names, applied in chains."""

    def _add(self, name: str, in_channels: int, out_channels: int, kernel_size: Any, **options: Any) -> None:
        self.add_module(name, BasicConv2d(in_channels, out_channels, kernel_size, **options))

    def _chain(self, x: Any, *names: str) -> Any:
        for name in names:
            x = self._modules[name](x)  # type: ignore[misc]
        return x


class InceptionA(_Module):
    """Windows of 1, 5 and twice 3 and a pooling, at 35 x 35; the 5 x 5 is two more of 3 x 3 where `factorized`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.inception import InceptionA
    >>> InceptionA(32, 8, lambda c: c // 8)(np.zeros((1, 32, 5, 5), np.float32)).shape
    (1, 36, 5, 5)
    """

    def __init__(self, in_channels: int, pool_features: int, s: Scale, factorized: bool = False) -> None:
        super().__init__()
        self._add("branch1x1", in_channels, s(64), 1)
        if factorized:
            self._add("branch3x3_1", in_channels, s(48), 1)
            self._add("branch3x3_2", s(48), s(64), 3, padding=1)
        else:
            self._add("branch5x5_1", in_channels, s(48), 1)
            self._add("branch5x5_2", s(48), s(64), 5, padding=2)
        self._add("branch3x3dbl_1", in_channels, s(64), 1)
        self._add("branch3x3dbl_2", s(64), s(96), 3, padding=1)
        self._add("branch3x3dbl_3", s(96), s(96), 3, padding=1)
        self._add("branch_pool", in_channels, pool_features, 1)
        self._second = ("branch3x3_1", "branch3x3_2") if factorized else ("branch5x5_1", "branch5x5_2")
        self.out_channels = s(64) + s(64) + s(96) + pool_features

    def forward(self, x: Any) -> Any:
        """Features of all branches."""
        second = self._chain(x, *self._second)
        double = self._chain(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return cat([self.branch1x1(x), second, double, pooled], 1)


class InceptionB(_Module):
    """From 35 x 35 to 17 x 17: convolutions with stride 2 beside a pooling, so that nothing is lost on the way.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.inception import InceptionB
    >>> InceptionB(32, lambda c: c // 8)(np.zeros((1, 32, 5, 5), np.float32)).shape
    (1, 92, 2, 2)
    """

    def __init__(self, in_channels: int, s: Scale) -> None:
        super().__init__()
        self._add("branch3x3", in_channels, s(384), 3, stride=2)
        self._add("branch3x3dbl_1", in_channels, s(64), 1)
        self._add("branch3x3dbl_2", s(64), s(96), 3, padding=1)
        self._add("branch3x3dbl_3", s(96), s(96), 3, stride=2)
        self.out_channels = s(384) + s(96) + in_channels

    def forward(self, x: Any) -> Any:
        """Features of all branches."""
        double = self._chain(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        return cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class InceptionC(_Module):
    """Windows of 7 as 1 x 7 and 7 x 1, at 17 x 17.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.inception import InceptionC
    >>> InceptionC(32, 8, lambda c: c // 8)(np.zeros((1, 32, 5, 5), np.float32)).shape
    (1, 96, 5, 5)
    """

    def __init__(self, in_channels: int, channels_7x7: int, s: Scale) -> None:
        super().__init__()
        c7, out = channels_7x7, s(192)
        row: dict[str, Any] = {"kernel_size": (1, 7), "padding": (0, 3)}
        column: dict[str, Any] = {"kernel_size": (7, 1), "padding": (3, 0)}
        self._add("branch1x1", in_channels, out, 1)
        self._add("branch7x7_1", in_channels, c7, 1)
        self._add("branch7x7_2", c7, c7, **row)
        self._add("branch7x7_3", c7, out, **column)
        self._add("branch7x7dbl_1", in_channels, c7, 1)
        self._add("branch7x7dbl_2", c7, c7, **column)
        self._add("branch7x7dbl_3", c7, c7, **row)
        self._add("branch7x7dbl_4", c7, c7, **column)
        self._add("branch7x7dbl_5", c7, out, **row)
        self._add("branch_pool", in_channels, out, 1)
        self.out_channels = 4 * out

    def forward(self, x: Any) -> Any:
        """Features of all branches."""
        single = self._chain(x, *(f"branch7x7_{i}" for i in (1, 2, 3)))
        double = self._chain(x, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)))
        pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return cat([self.branch1x1(x), single, double, pooled], 1)


class InceptionD(_Module):
    """From 17 x 17 to 8 x 8.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.inception import InceptionD
    >>> InceptionD(32, lambda c: c // 8)(np.zeros((1, 32, 5, 5), np.float32)).shape
    (1, 96, 2, 2)
    """

    def __init__(self, in_channels: int, s: Scale) -> None:
        super().__init__()
        self._add("branch3x3_1", in_channels, s(192), 1)
        self._add("branch3x3_2", s(192), s(320), 3, stride=2)
        self._add("branch7x7x3_1", in_channels, s(192), 1)
        self._add("branch7x7x3_2", s(192), s(192), (1, 7), padding=(0, 3))
        self._add("branch7x7x3_3", s(192), s(192), (7, 1), padding=(3, 0))
        self._add("branch7x7x3_4", s(192), s(192), 3, stride=2)
        self.out_channels = s(320) + s(192) + in_channels

    def forward(self, x: Any) -> Any:
        """Features of all branches."""
        plain = self._chain(x, "branch3x3_1", "branch3x3_2")
        long = self._chain(x, *(f"branch7x7x3_{i}" for i in (1, 2, 3, 4)))
        return cat([plain, long, F.max_pool2d(x, 3, 2)], 1)


class InceptionE(_Module):
    """Filter banks that spread into 1 x 3 and 3 x 1 side by side, at 8 x 8.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.inception import InceptionE
    >>> InceptionE(32, lambda c: c // 8)(np.zeros((1, 32, 3, 3), np.float32)).shape
    (1, 256, 3, 3)
    """

    def __init__(self, in_channels: int, s: Scale) -> None:
        super().__init__()
        row: dict[str, Any] = {"kernel_size": (1, 3), "padding": (0, 1)}
        column: dict[str, Any] = {"kernel_size": (3, 1), "padding": (1, 0)}
        self._add("branch1x1", in_channels, s(320), 1)
        self._add("branch3x3_1", in_channels, s(384), 1)
        self._add("branch3x3_2a", s(384), s(384), **row)
        self._add("branch3x3_2b", s(384), s(384), **column)
        self._add("branch3x3dbl_1", in_channels, s(448), 1)
        self._add("branch3x3dbl_2", s(448), s(384), 3, padding=1)
        self._add("branch3x3dbl_3a", s(384), s(384), **row)
        self._add("branch3x3dbl_3b", s(384), s(384), **column)
        self._add("branch_pool", in_channels, s(192), 1)
        self.out_channels = s(320) + 4 * s(384) + s(192)

    def forward(self, x: Any) -> Any:
        """Features of all branches."""
        single = self.branch3x3_1(x)
        double = self._chain(x, "branch3x3dbl_1", "branch3x3dbl_2")
        pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        spread = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        spread += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return cat([self.branch1x1(x), *spread, pooled], 1)


class InceptionAux(nn.Module):
    """Auxiliary classifier at 17 x 17; batch-normalised in v3, plain in v2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models.inception import InceptionAux
    >>> InceptionAux(32, 10, lambda c: c // 8)(np.zeros((2, 32, 17, 17), np.float32)).shape
    (2, 10)
    """

    def __init__(self, in_channels: int, num_classes: int, s: Scale, batch_norm: bool = True) -> None:
        super().__init__()
        self.conv0 = BasicConv2d(in_channels, s(128), 1, batch_norm)
        self.conv1 = BasicConv2d(s(128), s(768), 5, batch_norm)
        self.fc = nn.Linear(s(768), num_classes)

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of features (N, in_channels, H, W), H and W at least 17."""
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))
        x = F.adaptive_avg_pool2d(x, 1)
        return self.fc(flatten(x, 1))


class _InceptionNet(nn.Module):
    """Arguments, initialisation and forward of both networks."""

    _layers: tuple[str, ...]
    _aux_after: str

    def _check(self, num_classes: int, in_channels: int, transform_input: bool, width: float) -> Scale:
        size("num_classes", num_classes, 1)
        size("in_channels", in_channels, 1)
        if not number("width", width) > 0:
            raise ValueError(f"width must be positive, got {width}")
        if transform_input and in_channels != 3:
            raise ValueError(f"transform_input needs in_channels=3, got {in_channels}")
        self.transform_input = transform_input
        return lambda channels: max(1, round(channels * width))

    def _finish(self, channels: int, num_classes: int, dropout: float) -> None:
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def _initialize(self) -> None:
        draw = functools.partial(nn.init.trunc_normal_, std=0.1)
        initialize(self, draw, draw)
        if self.aux_logits:
            nn.init.trunc_normal_(self.AuxLogits.conv1.conv.weight, std=0.01)
            nn.init.trunc_normal_(self.AuxLogits.fc.weight, std=0.001)

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of images (N, in_channels, H, W); in training :class:`InceptionOutputs`."""
        if self.transform_input:
            x = imagenet_to_half(x)
        aux = None
        for name in self._layers:
            x = self._modules[name](x)  # type: ignore[misc]
            if name == self._aux_after and self.training and self.aux_logits:
                aux = self.AuxLogits(x)
        x = self.dropout(self.avgpool(x))
        logits = self.fc(flatten(x, 1))
        return logits if aux is None else InceptionOutputs(logits, aux)


class InceptionV3(_InceptionNet):
    """Inception v3 for images of 299 x 299 pixels (75 at least, without the auxiliary classifier).

    Parameters
    ----------
    num_classes, in_channels : int
        At least 1.
    aux_logits : bool, keyword only
        Whether there is the batch-normalised auxiliary classifier. With it, training mode returns
        :class:`InceptionOutputs`; images of less than 299 pixels are too small for it. torchvision adds 0.4 times its
        loss.
    transform_input : bool, keyword only
        Take images normalised for torchvision's other models (needs 3 channels), as its published weights want.
    dropout : float, keyword only
        Before the last linear layer.
    width : float, keyword only
        Factor of all channels, for small data.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Szegedy, Vanhoucke, Ioffe, Shlens & Wojna 2016, "Rethinking the Inception architecture for computer vision".
    Source: torchvision.models.Inception3.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import InceptionV3
    >>> net = InceptionV3(10, width=0.125).eval()
    >>> net(np.zeros((1, 3, 75, 75), np.float32)).shape
    (1, 10)
    """

    _aux_after = "Mixed_6e"

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        aux_logits: bool = True,
        transform_input: bool = False,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        s = self._check(num_classes, in_channels, transform_input, width)
        self.aux_logits = aux_logits
        with nn.init.skip_init():
            self.Conv2d_1a_3x3 = BasicConv2d(in_channels, s(32), 3, stride=2)
            self.Conv2d_2a_3x3 = BasicConv2d(s(32), s(32), 3)
            self.Conv2d_2b_3x3 = BasicConv2d(s(32), s(64), 3, padding=1)
            self.maxpool1 = nn.MaxPool2d(3, 2)
            self.Conv2d_3b_1x1 = BasicConv2d(s(64), s(80), 1)
            self.Conv2d_4a_3x3 = BasicConv2d(s(80), s(192), 3)
            self.maxpool2 = nn.MaxPool2d(3, 2)
            self.Mixed_5b = InceptionA(s(192), s(32), s)
            self.Mixed_5c = InceptionA(self.Mixed_5b.out_channels, s(64), s)
            self.Mixed_5d = InceptionA(self.Mixed_5c.out_channels, s(64), s)
            self.Mixed_6a = InceptionB(self.Mixed_5d.out_channels, s)
            self.Mixed_6b = InceptionC(self.Mixed_6a.out_channels, s(128), s)
            self.Mixed_6c = InceptionC(self.Mixed_6b.out_channels, s(160), s)
            self.Mixed_6d = InceptionC(self.Mixed_6c.out_channels, s(160), s)
            self.Mixed_6e = InceptionC(self.Mixed_6d.out_channels, s(192), s)
            if aux_logits:
                self.AuxLogits = InceptionAux(self.Mixed_6e.out_channels, num_classes, s)
            self.Mixed_7a = InceptionD(self.Mixed_6e.out_channels, s)
            self.Mixed_7b = InceptionE(self.Mixed_7a.out_channels, s)
            self.Mixed_7c = InceptionE(self.Mixed_7b.out_channels, s)
            self._layers = tuple(name for name in self._modules if name != "AuxLogits")
            self._finish(self.Mixed_7c.out_channels, num_classes, dropout)
        self._initialize()


class InceptionV2(_InceptionNet):
    """Inception v2 for images of 299 x 299 pixels: the network of the "Rethinking" paper's table 1.

    Parameters
    ----------
    num_classes, in_channels, aux_logits, transform_input, dropout, width
        As for :class:`InceptionV3`; the auxiliary classifier has no batch normalisation.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Szegedy et al. 2016: windows of 5 x 5 as two of 3 x 3 (figure 5), of 7 x 7 as 1 x 7 and 7 x 1 (figure 6), banks that
    spread (figure 7). The paper gives the sizes between the modules but not the widths within: those are of v3.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import InceptionV2
    >>> net = InceptionV2(10, width=0.125).eval()
    >>> net(np.zeros((1, 3, 75, 75), np.float32)).shape
    (1, 10)
    """

    _aux_after = "figure6e"

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        aux_logits: bool = True,
        transform_input: bool = False,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        s = self._check(num_classes, in_channels, transform_input, width)
        self.aux_logits = aux_logits
        with nn.init.skip_init():
            self.conv1 = BasicConv2d(in_channels, s(32), 3, stride=2)
            self.conv2 = BasicConv2d(s(32), s(32), 3)
            self.conv3 = BasicConv2d(s(32), s(64), 3, padding=1)
            self.maxpool = nn.MaxPool2d(3, 2)
            self.conv4 = BasicConv2d(s(64), s(80), 3)
            self.conv5 = BasicConv2d(s(80), s(192), 3, stride=2)
            self.conv6 = BasicConv2d(s(192), s(288), 3, padding=1)
            channels = s(288)
            for name in ("figure5a", "figure5b"):
                self.add_module(name, InceptionA(channels, s(64), s, factorized=True))
                channels = self._modules[name].out_channels  # type: ignore[union-attr]
            self.figure5c = InceptionB(channels, s)
            channels = self.figure5c.out_channels
            for name, c7 in zip("abcde", (128, 128, 160, 160, 192)):
                self.add_module(f"figure6{name}", InceptionC(channels, s(c7), s))
                channels = 4 * s(192)
            if aux_logits:
                self.AuxLogits = InceptionAux(channels, num_classes, s, batch_norm=False)
            self.reduction = InceptionD(channels, s)
            self.figure7a = InceptionE(self.reduction.out_channels, s)
            self.figure7b = InceptionE(self.figure7a.out_channels, s)
            self._layers = tuple(name for name in self._modules if name != "AuxLogits")
            self._finish(self.figure7b.out_channels, num_classes, dropout)
        self._initialize()


@takes_weights
def inception_v3(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> InceptionV3:
    """Inception v3 (27,161,264 parameters, 23,834,568 without the auxiliary classifier), as torchvision's.

    `options` are those of :class:`InceptionV3`.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv.models import inception_v3
    >>> with nn.init.skip_init():
    ...     net = inception_v3()
    >>> sum(p.numel() for p in net.parameters())
    27161264
    """
    return InceptionV3(num_classes, in_channels, **options)


@takes_weights
def inception_v2(num_classes: int = 1000, in_channels: int = 3, **options: Any) -> InceptionV2:
    """Inception v2; `options` are those of :class:`InceptionV2`.

    Examples
    --------
    >>> from fastconv.models import inception_v2
    >>> inception_v2(10, width=0.125).fc
    Linear(in_features=256, out_features=10, bias=True)
    """
    return InceptionV2(num_classes, in_channels, **options)
