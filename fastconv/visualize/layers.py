"""Running a network to look at it: layers by name, their outputs, the score whose origin is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastconv.nn.modules.arguments import is_floating
from fastconv.nn.modules.calling import evaluation_mode, plain
from fastconv.nn.modules.lookup import find_layer
from fastconv.nn.modules.module import Module
from fastconv.tape import no_grad
from fastconv.tensor import Tensor, tensor

__all__ = ["activations"]

Target = int | Sequence[int] | np.ndarray | Callable[[Any], Any] | None


def first_output(output: Any) -> Any:
    """The output itself, or the first of several (of a recurrent layer, of a pooling with indices)."""
    return output[0] if isinstance(output, tuple) else output


def batch(x: Any, name: str = "x") -> np.ndarray:
    """`x` as a floating array with a batch dimension."""
    array = tensor(plain(x)).data
    if array.ndim < 2 or array.size == 0 or not is_floating(array.dtype):
        raise ValueError(
            f"{name} must be a batch of floating values (N, C, H, W), not empty; got {array.dtype} {array.shape}"
        )
    return array


@contextlib.contextmanager
def inspection(model: Module) -> Iterator[None]:
    """Context manager: evaluation mode, and parameters that need no gradient, so that none is computed or left."""
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad = False
        with evaluation_mode(model):
            yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad = requires_grad


@contextlib.contextmanager
def hooks(model: Module, names: Sequence[str], hook: Callable[[str, Any], Any]) -> Iterator[None]:
    """Context manager: after every call of a named layer, ``hook(name, output)``; a result replaces the output."""

    def named(name: str) -> Callable[..., Any]:
        return lambda _module, _inputs, output: hook(name, output)

    layers = {name: find_layer(model, name) for name in names}
    handles = [layer.register_forward_hook(named(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Reached(BaseException):
    """Ends a forward pass after the last layer that is wanted; no handler of a user's forward shall hold it."""


def outputs(model: Module, x: Any, names: Sequence[str], *, stop: bool = False) -> dict[str, Any]:
    """What the named layers give for the Tensor `x`; of several calls of one layer, the last.

    With `stop` the pass ends when all have been called (and the first call counts), so that `x` may be of a size that
    only the layers before a head of fixed size can take.
    """
    found: dict[str, Any] = {}

    def note(name: str, output: Any) -> None:
        found[name] = first_output(output)
        if stop and len(found) == len(set(names)):
            raise _Reached

    with hooks(model, names, note), contextlib.suppress(_Reached):
        model(x)
    for name in names:
        if name not in found:
            raise ValueError(f"layer {name!r} was not called by the forward pass of {type(model).__name__}")
    return found


def activations(model: Module, x: Any, layers: str | Sequence[str] | None = None) -> Any:
    """Outputs of layers, by name.

    Parameters
    ----------
    model : Module
        Runs in evaluation mode; its mode is restored.
    x : array, shape (N, ...)
        Input of the model.
    layers : str, sequence of str, or None
        Names as ``model.named_modules()`` gives them (``"features.3"``). None: all layers that contain no others.

    Returns
    -------
    ndarray, or dict of str to ndarray
        The array for one name, a dictionary for several (in the order of the names). Of a layer that is called more
        than once, the last output.

    Raises
    ------
    ValueError
        There is no such layer, the forward pass does not call it, or `x` is no batch.

    Notes
    -----
    Layers with ``inplace=True`` do not overwrite what was noted before them.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2))
    >>> x = np.ones((2, 1, 28, 28), np.float32)
    >>> visualize.activations(net, x, "1").shape
    (2, 6, 24, 24)
    >>> {name: maps.shape for name, maps in visualize.activations(net, x, ["0", "2"]).items()}
    {'0': (2, 6, 24, 24), '2': (2, 6, 12, 12)}
    """
    if layers is None:
        called: dict[str, Any] = {}
        with inspection(model), no_grad():
            names = [name for name, module in model.named_modules() if not module._modules]
            with hooks(model, names, lambda name, output: called.update({name: first_output(output).data})):
                model(Tensor(batch(x)))
        return {name: called[name] for name in names if name in called}
    names = [layers] if isinstance(layers, str) else list(layers)
    with inspection(model), no_grad():
        found = outputs(model, Tensor(batch(x)), names)
    return found[names[0]].data if isinstance(layers, str) else {name: found[name].data for name in names}


def chosen_units(output: np.ndarray, target: Target) -> np.ndarray:
    """One unit (class or channel) for each image: `target`, or the strongest for None."""
    count, units = output.shape[:2]
    if target is None:
        return output.reshape(count, units, -1).max(axis=2).argmax(axis=1)
    given = np.asarray(target)
    if given.dtype.kind not in "iu" or given.ndim > 1 or given.shape not in ((), (count,)):
        raise ValueError(
            f"target must be None, a unit, one unit for each of {count} images, or a function; got {target!r}"
        )
    if given.size and (given.min() < 0 or given.max() >= units):
        raise ValueError(f"target must be from 0 to {units - 1}, got {target!r}")
    return np.broadcast_to(given, (count,))


def score_gradient(output: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """The score of each image and its gradient by `output`, which is (N, units) or (N, units, *positions).

    The score is the output of the chosen unit, in a map its maximum over the positions (the first of equal ones).
    """
    if output.ndim < 2:
        raise ValueError(f"the output must be (N, classes) or (N, channels, ...), got shape {output.shape}")
    data = output.data
    count = len(data)
    flat = data.reshape(count, data.shape[1], -1)
    rows, units = np.arange(count), chosen_units(data, target)
    positions = flat[rows, units].argmax(axis=1)
    gradient = np.zeros_like(flat)
    gradient[rows, units, positions] = 1
    return flat[rows, units, positions], gradient.reshape(data.shape)


def backpropagate(output: Any, target: Target) -> np.ndarray:
    """The scores of `target` in the recorded `output`; leaves their gradient in the leaves behind it."""
    if not isinstance(output, Tensor) or not output.requires_grad:
        raise ValueError("the output does not depend on the input by recorded operations, so it has no gradient")
    if not callable(target):
        scores, gradient = score_gradient(output, target)
        output.backward(gradient)
        return scores
    scores = target(output)
    if not isinstance(scores, Tensor) or scores.shape != output.shape[:1]:
        raise ValueError(
            f"target must return a Tensor with one score for each of {len(output.data)} images, got "
            f"{type(scores).__name__} of shape {np.shape(scores)}"
        )
    scores.sum().backward()
    return scores.data
