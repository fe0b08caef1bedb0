"""The network that ``visualize`` looks into, with weights from a file, and pictures in the form that it takes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from .arguments import natural

# Those of ImageNet's colours, which published weights were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def add_network(parser: argparse.ArgumentParser) -> None:
    """The options that say which network it is and what its pictures look like."""
    parser.add_argument("model", metavar="MODEL", help="a network of `fastconv models`")
    parser.add_argument("--weights", metavar="FILE", help=".safetensors or .npz: weights, or a checkpoint of training")
    parser.add_argument("--size", type=_pair, metavar="N or HxW", help="size of the picture (default: the network's)")
    parser.add_argument("--mean", type=_numbers, metavar="M,M,M", help="of the colours; default ImageNet's, grey: 0")
    parser.add_argument("--std", type=_numbers, metavar="S,S,S", help="of the colours; default ImageNet's, grey: 1")
    parser.add_argument("--seed", type=natural, default=0, help="of random numbers (default 0)")


def _pair(text: str) -> tuple[int, int]:
    parts = [int(part) for part in text.lower().split("x")]
    if len(parts) > 2 or min(parts) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number or two as in 224x160, got {text}")
    return parts[0], parts[-1]


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def load_network(name: str, weights: str | None, seed: int) -> tuple[Any, dict[str, Any]]:
    """The network, and the options it was trained with, where `fastconv train` has written the file.

    From other files it has as many classes and channels as the weights; without a file, random weights.
    """
    import fastconv as fc
    from fastconv import models
    from fastconv.nn.init import skip_init

    from .networks import build, read_weights

    info = models.model_info(name)
    if weights is None:
        fc.manual_seed(seed)
        return info.build().eval(), {}
    state, trained = read_weights(weights)
    with skip_init():
        if "classes" in trained:
            if trained["model"] != name:
                raise ValueError(f"{weights} holds a {trained['model']}, not a {name}")
            net = build(trained)
        else:
            net, trained = info.build(), {}
            options = _options(net, state)
            net = info.build(**options) if options else net
    net.load_state_dict(state)
    return net.eval(), trained


def _options(net: Any, state: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Classes and channels of `state` where they are not those of `net`."""
    from fastconv import nn

    found = {}
    layers = [(name, layer) for name, layer in net.named_modules() if layer._parameters.get("weight") is not None]
    layers = [(name, layer) for name, layer in layers if layer.weight.data.ndim > 1]
    for option, (name, layer), axis in (("in_channels", layers[0], 1), ("num_classes", layers[-1], 0)):
        if isinstance(layer, nn.Linear) and option == "in_channels":
            continue  # its inputs are pixels, not channels
        stored = state.get(f"{name}.weight" if name else "weight")
        if stored is None or stored.ndim != layer.weight.data.ndim:
            continue  # the weights of another architecture, which loading will say
        if stored.shape[axis] != layer.weight.shape[axis]:
            found[option] = int(stored.shape[axis])
    return found


class Pictures:
    """How pictures become inputs of one network, and back."""

    def __init__(self, net: Any, arguments: argparse.Namespace, trained: Mapping[str, Any]) -> None:
        from fastconv import nn
        from fastconv.models import model_info

        from .networks import image_size

        default_size = image_size(arguments.model, trained.get("image_size"))
        first = next((layer for layer in net.modules() if isinstance(layer, nn.Conv2d)), None)
        self.channels = model_info(arguments.model).input_shape[0] if first is None else first.in_channels
        if self.channels not in (1, 3):
            raise ValueError(
                f"{arguments.model} with these weights takes {self.channels} channels, pictures have 1 or 3"
            )
        self.size = arguments.size or default_size
        colour = self.channels == 3
        usual = {"mean": _MEAN if colour else (0.0,), "std": _STD if colour else (1.0,)}
        self.mean = self._per_channel("--mean", arguments.mean, trained.get("mean", usual["mean"]))
        self.std = self._per_channel("--std", arguments.std, trained.get("std", usual["std"]))
        if not (self.std > 0).all():
            raise ValueError(f"--std must be above 0, got {arguments.std}")
        # The range that black and white of all channels lie in.
        self.limits = float((-self.mean / self.std).min()), float(((1 - self.mean) / self.std).max())

    def _per_channel(self, name: str, given: tuple[float, ...] | None, default: Any) -> np.ndarray:
        values = np.atleast_1d(default if given is None else given)
        if len(values) not in (1, self.channels):
            raise ValueError(f"{name} must be one number or {self.channels}, got {len(values)}")
        return np.broadcast_to(values.astype(np.float32), (self.channels,)).reshape(1, -1, 1, 1)

    def read(self, path: str) -> np.ndarray:
        """The picture as an input of shape (1, C, H, W)."""
        from fastconv.data import read_image

        pixels = read_image(path, "RGB" if self.channels == 3 else "L", size=self.size)
        return ((pixels[None] - self.mean) / self.std).astype(np.float32)

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """An input (N, C, H, W) as colours from 0 to 1."""
        return np.clip(image * self.std + self.mean, 0, 1)
