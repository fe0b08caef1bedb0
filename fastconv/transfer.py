"""Transfer learning: take a trained network, give it another head, train only what is new, then perhaps a little more.

The steps, on a network from `fastconv.models` with its weights loaded:

1. ``freeze(model)``: nothing collects gradients, and what lies before the first parameter that does is not recorded.
2. ``replace_head(model, classes)``: a new last layer, which is trainable.
3. ``extract_features(model, images, head)`` once, then train ``head`` alone on the features: as good as training the
   whole network with its body frozen (and without augmentation), at a small part of the cost.
4. ``unfreeze(model, "features.24")``: fine-tune the last block, with a small learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.nn.modules.arguments import size
from fastconv.nn.modules.calling import evaluation_mode, plain
from fastconv.nn.modules.lookup import find_layer
from fastconv.tape import no_grad
from fastconv.tensor import tensor

__all__ = ["extract_features", "find_head", "freeze", "replace_head", "unfreeze"]


def freeze(model: nn.Module, *prefixes: str) -> list[str]:
    """Let parameters collect no gradients, so that optimisers leave them as they are and nothing is computed for them.

    Parameters
    ----------
    model : Module
    *prefixes : str
        Names of layers or parameters (``"features"``, ``"layer4.0"``, ``"fc.bias"``): all parameters below them. None
        given: all parameters.

    Returns
    -------
    list of str
        Names of the parameters concerned.

    Raises
    ------
    ValueError
        A prefix that names no parameter; nothing is changed then.

    Notes
    -----
    Gradients from before are forgotten, so that the next step of an optimiser does not use them. Batch normalisation in
    training mode goes on to update its running statistics, as in torch: put frozen layers in evaluation mode
    (``model.features.eval()``) where those shall stay, too.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv import transfer
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> transfer.freeze(net, "0")
    ['0.weight', '0.bias']
    >>> [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    ['2.weight', '2.bias']
    """
    return _set(model, prefixes, False)


def unfreeze(model: nn.Module, *prefixes: str) -> list[str]:
    """Let parameters collect gradients again.

    Parameters
    ----------
    model, *prefixes
        As for `freeze`.

    Returns
    -------
    list of str
        Names of the parameters concerned.

    Raises
    ------
    ValueError
        A prefix that names no parameter; nothing is changed then.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv import transfer
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> _ = transfer.freeze(net)
    >>> transfer.unfreeze(net, "2.bias")
    ['2.bias']
    """
    return _set(model, prefixes, True)


def _set(model: nn.Module, prefixes: tuple[str, ...], requires_grad: bool) -> list[str]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for prefix in prefixes:
        if not isinstance(prefix, str):
            raise TypeError(f"prefixes must be strings, got {prefix!r}")
        if not any(_below(name, prefix) for name in parameters):
            raise ValueError(f"no parameter of {type(model).__name__} is named {prefix!r} or lies below it")
    names = [name for name in parameters if not prefixes or any(_below(name, prefix) for prefix in prefixes)]
    for name in names:
        parameters[name].requires_grad = requires_grad
        if not requires_grad:
            parameters[name].grad = None
    return names


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def find_head(model: nn.Module) -> str:
    """Name of the last Linear layer in the order of registration: what gives the classes in most networks.

    Raises
    ------
    ValueError
        The model has no Linear layer.

    Examples
    --------
    >>> from fastconv import models, transfer
    >>> transfer.find_head(models.LeNet5())
    'classifier.5'
    """
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not names:
        raise ValueError(f"{type(model).__name__} has no Linear layer that could be its head; name the head")
    return names[-1]


def replace_head(model: nn.Module, head: int | nn.Module, name: str | None = None) -> str:
    """Put another last layer in the place of the old one.

    Parameters
    ----------
    model : Module
        Changed in place.
    head : int or Module
        Number of classes, for a new Linear layer with the old one's inputs and dtype; or the layer itself.
    name : str, optional
        Name of the layer to replace; by default `find_head` of the model.

    Returns
    -------
    str
        Its name.

    Raises
    ------
    ValueError
        No such layer, or, with a number of classes, one that is not Linear.
    TypeError
        `head` is neither an int nor a Module.

    Examples
    --------
    >>> from fastconv import models, transfer
    >>> net = models.LeNet5()
    >>> transfer.replace_head(net, 3)
    'classifier.5'
    >>> net.classifier[5]
    Linear(in_features=84, out_features=3, bias=True)
    """
    name = find_head(model) if name is None else name
    old = find_layer(model, name)
    if name == "":
        raise ValueError("name must be that of a layer inside the model, not of the model itself")
    if not isinstance(head, nn.Module):
        classes = size("head", head, 1)
        if not isinstance(old, nn.Linear):
            raise ValueError(
                f"layer {name!r} is {type(old).__name__}, not Linear: give the new layer instead of {head}"
            )
        head = nn.Linear(old.in_features, classes, bias=old.bias is not None).to(old.weight.data.dtype)
    head.train(old.training)
    parent, _, child = name.rpartition(".")
    setattr(find_layer(model, parent), child, head)
    return name


def extract_features(model: nn.Module, images: Any, head: str | None = None, *, batch_size: int = 64) -> Any:
    """What enters the head, computed once for all images.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode, without a record; its mode is restored.
    images : array, shape (N, ...), or iterable of batches
        Images; or batches ``(images, labels, ...)`` such as a loader yields.
    head : str, optional
        Name of the layer whose input is wanted; by default `find_head` of the model. It may be a whole part of the
        network (``"classifier"``).
    batch_size : int
        Images that run at a time, where `images` is an array.

    Returns
    -------
    ndarray, shape (N, ...), or tuple of ndarray
        The features; for an iterable of batches also what came beside the images: ``(features, labels, ...)``.

    Raises
    ------
    ValueError
        No such layer, a layer that is called not once in each pass, or no images.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models, transfer
    >>> net = models.LeNet5()
    >>> features = transfer.extract_features(net, np.zeros((5, 1, 28, 28), np.float32), "classifier.5")
    >>> features.shape
    (5, 84)
    >>> net.classifier[5](features).shape  # the head alone gives what the network gives
    (5, 10)
    """
    name = find_head(model) if head is None else head
    array = plain(images)
    if isinstance(array, np.ndarray) or hasattr(array, "__dlpack__"):
        step = size("batch_size", batch_size, 1)
        return _gather(model, name, ((array[i : i + step],) for i in range(0, len(array), step)))[0]
    return _gather(model, name, images)


def _gather(model: nn.Module, name: str, batches: Iterable[Any]) -> tuple[np.ndarray, ...]:
    entered: list[Any] = []
    columns: list[list[np.ndarray]] = []
    hook = find_layer(model, name).register_forward_hook(lambda _layer, inputs, _output: entered.append(inputs[0]))
    try:
        with evaluation_mode(model), no_grad():
            for batch in batches:
                images, *others = batch if isinstance(batch, tuple | list) else (batch,)
                entered.clear()
                model(tensor(images))  # as a Tensor, which no layer overwrites in place
                if len(entered) != 1:
                    raise ValueError(
                        f"layer {name!r} must be called once in a pass, {type(model).__name__} calls it {len(entered)} "
                        "times"
                    )
                columns.append([np.array(plain(entered[0])), *(np.asarray(plain(other)) for other in others)])
    finally:
        hook.remove()
    if not columns:
        raise ValueError("images must not be empty")
    return tuple(np.concatenate(parts) for parts in zip(*columns, strict=True))
