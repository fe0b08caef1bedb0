"""Models without convolution: Rosenblatt's perceptron, the linear classifier, the multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastconv.nn as nn
from fastconv.nn.modules.arguments import choice, number, size, sizes

__all__ = ["MLP", "LinearClassifier", "Perceptron"]

_ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def _features(in_channels: int, image_size: Any) -> int:
    return size("in_channels", in_channels, 1) * math.prod(sizes("image_size", image_size, 2, 1))


class Perceptron(nn.Module):
    """One threshold unit and Rosenblatt's rule to teach it two classes, -1 and 1.

    Parameters
    ----------
    in_features : int
        Length of the vectors, at least 1.

    Attributes
    ----------
    linear : Linear
        Weights and threshold, starting at zero.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Rosenblatt 1958, "The perceptron: a probabilistic model for information storage and organization in the brain". The
    rule ends where a hyperplane separates the classes (Novikoff 1962), and never where none does, as for XOR.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import Perceptron
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    >>> unit, logical_and = Perceptron(2), np.array([-1, -1, -1, 1])
    >>> while unit.learn(x, logical_and):
    ...     pass
    >>> unit.predict(x)
    array([-1, -1, -1,  1])
    """

    def __init__(self, in_features: int) -> None:
        super().__init__()
        size("in_features", in_features, 1)
        with nn.init.skip_init():
            self.linear = nn.Linear(in_features, 1)

    def forward(self, x: Any) -> Any:
        """Scores (N,) of vectors (N, in_features): positive on the side of class 1."""
        return self.linear(x).reshape(-1)

    def predict(self, x: Any) -> np.ndarray:
        """Classes (N,) of vectors (N, in_features): 1 where the score is positive, else -1."""
        scores = self(x)
        return np.where(np.asarray(scores) > 0, 1, -1)

    def learn(self, x: Any, target: Any, lr: float = 1.0) -> int:
        """Go once over the samples and add ``lr * target * x`` to the weights at every mistake.

        Parameters
        ----------
        x : array, shape (N, in_features)
        target : integer array, shape (N,)
            -1 and 1.
        lr : float
            Step size, positive.

        Returns
        -------
        int
            Number of mistakes; 0 when all samples are on their sides.

        Raises
        ------
        ValueError
            Shapes that do not fit, other targets, or a step size that is not positive.
        """
        x, target = np.asarray(x), np.asarray(target)
        weight, bias = self.linear.weight.data, self.linear.bias.data
        if x.ndim != 2 or x.shape[1] != weight.shape[1]:
            raise ValueError(f"x must have shape (N, {weight.shape[1]}), got {x.shape}")
        if target.shape != x.shape[:1] or not np.isin(target, (-1, 1)).all():
            raise ValueError(f"target must hold -1 or 1 for each of {len(x)} samples")
        if not number("lr", lr) > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        mistakes = 0
        for sample, sign in zip(x, target):
            if sign * (weight[0] @ sample + bias[0]) <= 0:
                weight[0] += lr * sign * sample
                bias[0] += lr * sign
                mistakes += 1
        return mistakes


class LinearClassifier(nn.Module):
    """One score a class, linear in the pixels.

    With :class:`~fastconv.nn.MultiMarginLoss` or :class:`~fastconv.nn.OneVsAllHingeLoss` and weight decay it is the
    multiclass support vector machine, with :class:`~fastconv.nn.CrossEntropyLoss` softmax regression.

    Parameters
    ----------
    num_classes : int
        Outputs, at least 1.
    in_channels : int
        Channels of the images, at least 1.
    image_size : int or (int, int), keyword only
        Height and width of the images; 1 for vectors of `in_channels` features.

    Attributes
    ----------
    linear : Linear
        A row of its weight, shaped as an image, is the template of a class.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv.models import LinearClassifier
    >>> net = LinearClassifier(10, 3, image_size=32)
    >>> scores = net(np.zeros((4, 3, 32, 32), np.float32))
    >>> scores.shape, nn.MultiMarginLoss()(scores, np.array([0, 3, 9, 1])).shape
    ((4, 10), ())
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, *, image_size: int | tuple[int, int] = 28) -> None:
        super().__init__()
        size("num_classes", num_classes, 1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(_features(in_channels, image_size), num_classes)

    def forward(self, x: Any) -> Any:
        """Scores (N, num_classes) of images (N, in_channels, H, W)."""
        return self.linear(self.flatten(x))


class MLP(nn.Sequential):
    """Multi-layer perceptron: linear layers with a nonlinearity between them.

    Parameters
    ----------
    num_classes : int
        Outputs, at least 1.
    in_channels : int
        Channels of the images, at least 1.
    image_size : int or (int, int), keyword only
        Height and width of the images; 1 for vectors of `in_channels` features.
    hidden : sequence of int, keyword only
        Units of the hidden layers; empty for a linear classifier.
    activation : {"relu", "sigmoid", "tanh"}, keyword only
        The nonlinearity.
    dropout : float, keyword only
        Probability of dropping a hidden unit in training.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors".

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.models import MLP
    >>> net = MLP(10, 1, image_size=28, hidden=(300, 100))
    >>> net(np.zeros((4, 1, 28, 28), np.float32)).shape
    (4, 10)
    >>> net.summary((1, 1, 28, 28)).parameters
    266610
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        *,
        image_size: int | tuple[int, int] = 28,
        hidden: Sequence[int] = (300, 100),
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        size("num_classes", num_classes, 1)
        act = _ACTIVATIONS[choice("activation", activation, tuple(_ACTIVATIONS))]
        width = _features(in_channels, image_size)
        layers: list[nn.Module] = [nn.Flatten()]
        for units in hidden:
            layers += [nn.Linear(width, size("hidden", units, 1)), act(), *([nn.Dropout(dropout)] if dropout else [])]
            width = units
        super().__init__(*layers, nn.Linear(width, num_classes))
