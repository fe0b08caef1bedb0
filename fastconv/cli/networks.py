"""Networks of the catalogue for images of a given size, as ``train`` and ``predict`` build them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..models import get_model, model_info
from ..nn.modules.linear import Linear
from ..nn.modules.module import Module

__all__ = ["begin_with", "build", "freeze", "image_size", "read_weights"]


def read_weights(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A network's state from a file of weights or a checkpoint, and the options of the run that wrote the latter."""
    from ..serialization import load

    state = load(path)
    if "header" not in state:
        return state, {}
    from ..training import read_checkpoint

    checkpoint = read_checkpoint(path)
    return checkpoint.model, checkpoint.config


def begin_with(model: Module, path: str, new_head: bool) -> None:
    """Load the weights in a file into `model`; with `new_head`, all but those of the last layer."""
    state = read_weights(path)[0]
    own = model.state_dict()
    has_head = new_head or any(isinstance(layer, Linear) for layer in model.modules())
    heads = tuple(f"{head}." for head in _heads(model)) if has_head else ()
    new = {key: value for key, value in own.items() if key.startswith(heads)}
    if new_head:
        state = {key: value for key, value in state.items() if key not in new} | new
    try:
        model.load_state_dict(state)
    except ValueError as error:
        alike = set(state) == set(own)
        wrong = {key for key in own if alike and state[key].shape != own[key].shape}
        if wrong and not new_head and wrong <= set(new):
            raise ValueError(f"{error}; for other classes than the weights', add --new-head") from error
        raise


def _heads(model: Module) -> list[str]:
    """Names of the layers that give the classes: the last one, and those of auxiliary classifiers."""
    from ..transfer import find_head

    last = find_head(model)
    layers = dict(model.named_modules())
    auxiliary = [
        name
        for name, layer in layers.items()
        if isinstance(layer, Linear)
        and name.lower().startswith("aux")
        and layer.out_features == cast(Linear, layers[last]).out_features
    ]
    return [*auxiliary, last] if last not in auxiliary else auxiliary


def freeze(model: Module, words: str) -> None:
    """Freeze the layers that a list such as "conv1,layer1" names; "body" stands for all but the last layer."""
    from .. import transfer

    for word in (word.strip() for word in words.split(",")):
        if word == "body":
            transfer.freeze(model)
            transfer.unfreeze(model, *_heads(model))
        elif word:
            transfer.freeze(model, word)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"--freeze must leave a parameter to train, got {words!r}")


def image_size(model: str, wanted: int | None) -> tuple[int, int]:
    """Height and width of the images: `wanted`, or what the model was made for."""
    shape = model_info(model).input_shape
    if len(shape) != 3:
        raise ValueError(f"MODEL must take images, {model} takes inputs of shape {shape}")
    return (wanted, wanted) if wanted else (shape[1], shape[2])


def build(options: Mapping[str, Any]) -> Module:
    """The model of a run's options, with random weights."""
    chosen = dict(options["model_options"])
    height, width = image_size(options["model"], options["image_size"])
    shape = (options["channels"], height, width)
    if "in_features" in _parameters(options["model"]):  # the linear models, which take the image as a vector
        chosen.setdefault("in_features", options["channels"] * height * width)
    else:
        chosen.setdefault("in_channels", options["channels"])
    if "image_size" in _parameters(options["model"]):
        chosen.setdefault("image_size", height)
    model = get_model(options["model"], num_classes=len(options["classes"]), **chosen)
    _check(model, shape, options)
    return model


def _parameters(name: str) -> Any:
    import inspect

    return inspect.signature(model_info(name).build).parameters


def _check(model: Module, shape: tuple[int, ...], options: Mapping[str, Any]) -> None:
    """One image through the network, before the training rather than in its first step."""
    import numpy as np

    training = model.training
    output = model.eval()(np.zeros((1, *shape), np.float32))
    model.train(training)
    if output.shape != (1, len(options["classes"])):
        raise ValueError(f"MODEL must give one score a class, {options['model']} gives an output {output.shape[1:]}")
