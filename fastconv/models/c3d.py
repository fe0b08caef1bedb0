"""C3D: 3 x 3 x 3 convolutions over clips."""

from __future__ import annotations

from typing import Any

import fastconv.nn as nn
from fastconv.joining import flatten
from fastconv.models.initialization import initialize, normal
from fastconv.models.weights import takes_weights
from fastconv.nn.modules.arguments import number, size

__all__ = ["C3D", "c3d"]


class C3D(nn.Module):
    """C3D for clips of 16 frames of 112 x 112 pixels.

    Parameters
    ----------
    num_classes, in_channels : int
        At least 1.
    width : float, keyword only
        Factor of all channels and hidden units.
    batch_norm : bool, keyword only
        Normalise after every convolution.
    dropout : float, keyword only
        In the hidden linear layers.

    Attributes
    ----------
    features, avgpool, classifier : Module

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Tran, Bourdev, Fergus, Torresani & Paluri 2015, "Learning spatiotemporal features with 3D convolutional networks",
    figure 3: the first pooling leaves time alone. Clips of other sizes are pooled to the same 1 x 4 x 4 at the end.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import C3D
    >>> net = C3D(5, 1, width=0.0625)
    >>> net(np.zeros((2, 1, 16, 32, 32), np.float32)).shape
    (2, 5)
    """

    def __init__(
        self,
        num_classes: int = 487,
        in_channels: int = 3,
        *,
        width: float = 1.0,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        channels = size("in_channels", in_channels, 1)
        if not number("width", width) > 0:
            raise ValueError(f"width must be positive, got {width}")
        hidden = max(1, round(4096 * width))
        layers: list[nn.Module] = []
        with nn.init.skip_init():
            for i, stage in enumerate(((64,), (128,), (256, 256), (512, 512), (512, 512))):
                for planes in stage:
                    out = max(1, round(planes * width))
                    layers.append(nn.Conv3d(channels, out, 3, padding=1))
                    if batch_norm:
                        layers.append(nn.BatchNorm3d(out))
                    layers.append(nn.ReLU())
                    channels = out
                # The last pooling's padding makes 4 x 4 of 7 x 7, as in the authors' model.
                layers.append(nn.MaxPool3d((1, 2, 2) if i == 0 else 2, padding=(0, 1, 1) if i == 4 else 0))
            self.features = nn.Sequential(*layers)
            self.avgpool = nn.AdaptiveAvgPool3d((1, 4, 4))
            self.classifier = nn.Sequential(
                nn.Linear(channels * 16, hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, num_classes),
            )
        initialize(self, normal(0.01), normal(0.005))

    def forward(self, x: Any) -> Any:
        """Logits (N, num_classes) of clips (N, in_channels, T, H, W), T, H and W at least 16."""
        x = self.avgpool(self.features(x))
        return self.classifier(flatten(x, 1))


@takes_weights
def c3d(num_classes: int = 487, in_channels: int = 3, **options: Any) -> C3D:
    """C3D (79,991,015 parameters for the 487 classes of Sports-1M); `options` are those of :class:`C3D`.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv.models import c3d
    >>> with nn.init.skip_init():
    ...     net = c3d()
    >>> sum(p.numel() for p in net.parameters())
    79991015
    """
    return C3D(num_classes, in_channels, **options)
