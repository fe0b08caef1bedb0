"""How `optimize` rewrites a network: which layers may do the work of those behind them, read from a recorded pass."""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .elements import add
from .nn import functional as F
from .nn.modules.activation import Hardtanh, ReLU
from .nn.modules.calling import convert_leaves
from .nn.modules.conv import Conv2d, _Conv, _ConvBase
from .nn.modules.linear import Linear
from .nn.modules.module import Module
from .nn.modules.normalization import BatchNorm
from .nn.modules.pending import AnotherWayError, Held, another_way, refuse_held
from .nn.modules.shape import Identity
from .recording import Example, Recording, leaves
from .tensor import Parameter, Tensor

__all__ = ["Absorbed", "ChannelScale", "Rewritten", "fold", "norm_affine", "rewrite"]

Affine = tuple[np.ndarray, np.ndarray]
"""A factor and a shift for each channel."""


class Rewritten(NamedTuple):
    """Names of the layers that were changed: see `Optimized`."""

    folded: tuple[tuple[str, str], ...]
    fused: tuple[tuple[str, str], ...]
    chained: tuple[tuple[str, ...], ...]


class Absorbed(Identity):
    """Stands where a layer was whose work one before it does, and takes what that hands on for it alone.

    Parameters
    ----------
    absorbed : str
        The layer's name.
    activation : Module, optional
        The layer, if it has no parameters: what is not handed on by another goes through it.
    operator : str, optional
        "relu": for a function that forward calls, no layer.
    """

    _only_takes = True

    def __init__(self, absorbed: str, activation: Module | None = None, operator: str | None = None) -> None:
        super().__init__()
        self.absorbed, self.operator = absorbed, operator
        self._activation = (activation,)  # in a tuple, it is no part of the network

    def forward(self, input: Any) -> Any:
        """The output of the layer that did the work."""
        if isinstance(input, Held):
            return input.taken_by(self)
        (activation,) = self._activation
        if activation is None:
            another_way(f"{self.absorbed!r} gets what no layer has done its work on", self)
        return activation(input)

    def extra_repr(self) -> str:
        return repr(self.absorbed)


class ChannelScale(Conv2d):
    """A normalisation of images with running statistics as a factor and a shift a channel: one pass, which may also add
    an array and limit the results."""

    def __init__(self, channels: int, *, dtype: Any = None) -> None:
        super().__init__(channels, channels, 1, groups=channels, dtype=dtype)

    def reset_parameters(self) -> None:
        self.weight.data.fill(1)
        self.bias.data.fill(0)


# ---- what may be done together -----------------------------------------------------------------------------------


def rewrite(model: Module, example: Example) -> Rewritten:
    """Fold, fuse and chain the layers of `model` as a pass with these arguments allows.

    Where that changes the results, because forward does something with the weights of a layer, nothing is done.

    Raises
    ------
    ValueError
        The arguments do not fit, or the model computes something else each time; then it is as it was.
    """
    barred: set[str] = set()
    names = {module: name for name, module in model.named_modules()}
    while True:
        try:
            return _rewrite(model, example, barred)
        except AnotherWayError as error:  # something reads values outside the tape: Tensor.data, Tensor.detach
            taker: Any = error.taker
            barred.add(getattr(taker, "absorbed", None) or names[taker])
        except _OtherResultsError:
            if barred.issuperset(names.values()):
                raise
            barred.update(names.values())


class _OtherResultsError(ValueError):
    """The rewritten network gives other results."""


def _rewrite(model: Module, example: Example, barred: set[str]) -> Rewritten:
    """As `rewrite`, without the layers `barred`."""
    names = {module: name for name, module in model.named_modules()}
    record = Recording(model, example, barred)
    folded, scales = _foldings(record)
    names |= {scale: names[norm] for norm, scale in scales.items()}
    joined = _sums(record, names, barred)
    limited = _activations(record, names, barred)
    busy = {id(layer) for layer, *_ in (*folded, *joined, *limited)}
    scales = {norm: scale for norm, scale in scales.items() if id(scale) in busy}
    chains = _chains(record, limited)
    with _Changes(model) as changes:
        absorbed = {module: Absorbed(names[module]) for _, module, _ in folded}
        absorbed |= {module: Absorbed(names[module], module) for _, module in limited if _limits(module)}
        for layer, _, affine in folded:
            changes.fold(layer, affine)
        for norm, scale in scales.items():
            changes.replace(norm, scale)
        for module, stand_in in absorbed.items():
            changes.replace(module, stand_in)
        for layer in dict.fromkeys((*(layer for layer, _ in joined), *(layer for c in chains for layer in c[:-1]))):
            changes.set(layer, "_waits", True)
        for layer, module in limited:
            changes.set(layer, "_limits", _limits(module) or (0.0, math.inf))
        takers: dict[Module, list[Module]] = defaultdict(list)
        neighbours = [pair for chain in chains for pair in itertools.pairwise(chain)]
        for layer, module in (*((layer, norm) for layer, norm, _ in folded), *joined, *limited, *neighbours):
            takers[layer].append(absorbed.get(module, module))
        for layer, those in takers.items():
            changes.set(layer, "_takers", tuple(those))
        args, kwargs = convert_leaves(_copied, example)
        result = model(*args, **kwargs)
        refuse_held(result)
        _check(leaves(result, np.ndarray), record.arrays)
    return Rewritten(
        tuple((names[layer], names[norm]) for layer, norm, _ in folded),
        tuple((names[layer], names[module]) for layer, module in joined + limited),
        tuple(tuple(names[layer] for layer in chain) for chain in chains),
    )


def _foldings(record: Recording) -> tuple[list[tuple[Any, Module, Affine]], dict[Module, ChannelScale]]:
    """Layers with the normalisations that go into them; the others, as scales that may take along what follows them."""
    folded: list[tuple[Any, Module, Affine]] = []
    scales: dict[Module, ChannelScale] = {}
    for module, entry, _ in record.calls:
        affine = _affine(module, entry)
        if affine is None or not record.once(module):
            continue
        if _can_fold(layer := record.maker(entry), entry):
            folded.append((layer, module, affine))
            record.worker[id(module)] = layer
        elif isinstance(module, BatchNorm) and (scale := _as_scale(module, entry, affine)):
            scales[module] = record.worker[id(module)] = scale
    return folded, scales


def _sums(record: Recording, names: dict[Module, str], barred: set[str]) -> list[tuple[_Conv, Module]]:
    """Convolutions with the sums that they take along: layers and ``+``."""
    from .models.residual import Add  # not before it is needed: all models come with it

    joined: list[tuple[_Conv, Module]] = []
    for module, entry, output in record.calls:
        broadcasts = any(part.shape != output.shape for part in record.parents(output))
        if isinstance(module, Add) and not broadcasts and isinstance(layer := record.maker(entry), _Conv):
            joined.append((layer, module))
    for value in record.values:
        parts = record.parents(value)
        if record.made_by_a_layer(value) or len(parts) != 2 or any(part.shape != value.shape for part in parts):
            continue
        layer = next((layer for part in parts if isinstance(layer := record.maker(part), _Conv)), None)
        name = f"{names[layer]} +" if layer else ""
        if layer and name not in barred and np.array_equal(add(parts[0].data, parts[1].data), value.data):
            stand_in = Add()
            stand_in.operator, stand_in.absorbed = "+", name
            names[stand_in] = name
            record.add_operator(stand_in, value)
            joined.append((layer, stand_in))
    return joined


def _activations(record: Recording, names: dict[Module, str], barred: set[str]) -> list[tuple[Any, Module]]:
    """Convolutions and sums with the activations that they take along: layers, and ReLU as a function."""
    from .models.residual import Add

    limited: list[tuple[Any, Module]] = []
    for module, entry, _ in record.calls:
        if _limits(module) and isinstance(layer := record.maker(entry), (_Conv, Add)):
            limited.append((layer, module))
    for value in record.values:
        parts = record.parents(value)
        if (
            record.made_by_a_layer(value)
            or len(parts) != 1
            or not isinstance(layer := record.maker(parts[0]), (_Conv, Add))
        ):
            continue
        name, before = f"{names[layer]} relu", parts[0].data
        if name not in barred and (before < 0).any() and np.array_equal(F.relu(before), value.data):
            stand_in = Absorbed(name, operator="relu")
            names[stand_in] = name
            record.add_operator(stand_in, value)
            limited.append((layer, stand_in))
    return limited


def _limits(module: Module) -> tuple[float, float] | None:
    """Between which values a layer brings its input; None for any other layer."""
    if isinstance(module, Hardtanh):
        return float(module.min_val), float(module.max_val)
    return (0.0, math.inf) if type(module) is ReLU else None


def _affine(module: Module, entry: Tensor) -> Affine | None:
    """What `module` multiplies each channel of its input by and then adds, in float64; None if it does other things."""
    if not isinstance(module, BatchNorm):
        channelwise = getattr(module, "channel_affine", None)
        return None if channelwise is None else channelwise(entry.shape)
    return None if module.training else norm_affine(module)


def norm_affine(module: BatchNorm) -> Affine | None:
    """What a normalisation by running statistics multiplies each channel by and then adds; None: it has none."""
    if module.running_mean is None:
        return None
    scale = 1 / np.sqrt(module.running_var.astype(np.float64) + module.eps)
    if module.weight is not None:
        scale = scale * module.weight.data.astype(np.float64)
    shift = -module.running_mean.astype(np.float64) * scale
    return scale, shift if module.bias is None else shift + module.bias.data.astype(np.float64)


def _can_fold(layer: Any, entry: Tensor) -> bool:
    if isinstance(layer, Linear):
        return entry.ndim == 2
    return isinstance(layer, _ConvBase) and entry.ndim == layer._nd + 2


def _as_scale(norm: BatchNorm, entry: Tensor, affine: Affine) -> ChannelScale | None:
    # float16 and bfloat16 would round factor and shift before they meet.
    if entry.ndim != 4 or entry.dtype.itemsize < 4:
        return None
    scale = ChannelScale(norm.num_features, dtype=entry.dtype)
    fold(scale, *affine)
    return scale


_MOST_CHAINED = 5
"""Convolutions in a chain. MobileNetV1 on eight images in chains of 2, 3, 4 and 8: 1.0, 1.05, 1.1 and 0.95 of the speed
of layer after layer, on one image 1.0, 1.0, 1.05 and 0.85 (Zen 3, 2 threads)."""


_MOST_PRODUCTS = 128
"""Of a convolution beside a depthwise one, for each value between them: with more, arithmetic is the limit wherever
they are. In bands MobileNetV2's blocks with 16 to 96 narrow channels are 1.05 to 1.9 times as fast, those with 160 1.0;
MobileNetV1's with 64 and 128 1.05, those with 256 and more 0.9 to 1.0 (Zen 3, 2 threads, 1 and 8 images)."""


def _chains(record: Recording, limited: list[tuple[Any, Module]]) -> list[list[_Conv]]:
    """Convolutions to be computed together, a few rows at a time."""
    limited_by = {id(module): layer for layer, module in limited if record.once(module)}
    steps: list[tuple[Any, Any, int]] = []  # neighbours in a chain, and the elements between them
    for module, entry, _ in record.calls:
        before = record.maker(entry)
        before = limited_by.get(id(before), before)
        if record.once(module) and _goes_in_bands(before, module):
            steps.append((before, module, entry.data.size))
    return _pieces(steps)


def _goes_in_bands(before: Any, after: Any) -> bool:
    """Whether it pays to compute two neighbours together, a few rows at a time."""
    if not all(isinstance(layer, Conv2d) and layer.padding_mode == "zeros" for layer in (before, after)):
        return False
    if isinstance(before, ChannelScale) or isinstance(after, ChannelScale):
        return False  # DenseNet-121's are 0.8 to 1.0 times as fast in bands
    made = math.prod(before.weight.shape[1:])
    used = math.prod(after.weight.shape[2:]) * (after.out_channels // after.groups) // math.prod(after.stride)
    if _is_depthwise(before):
        return _is_depthwise(after) or used <= _MOST_PRODUCTS
    return _is_depthwise(after) and made <= _MOST_PRODUCTS


def _is_depthwise(layer: _Conv) -> bool:
    return layer.groups == layer.in_channels > 1


def _pieces(steps: list[tuple[Any, Any, int]]) -> list[list[_Conv]]:
    """Chains of at most `_MOST_CHAINED` convolutions, from pairs of neighbours; cut where the least lies between."""
    after = {id(first): (second, between) for first, second, between in steps}
    inner = {id(second) for _, second, _ in steps}
    pieces: list[list[_Conv]] = []
    for first, _, _ in steps:
        if id(first) in inner:
            continue
        chain, sizes = [first], []
        while id(chain[-1]) in after:
            layer, between = after[id(chain[-1])]
            chain.append(layer)
            sizes.append(between)
        # best[n]: the fewest elements between the pieces of the first n convolutions, and where the last piece begins.
        best = [(0, 0)]
        for n in range(1, len(chain) + 1):
            starts = range(max(n - _MOST_CHAINED, 0), n)
            best.append(min((best[start][0] + (sizes[start - 1] if start else 0), start) for start in starts))
        end, found = len(chain), []
        while end:
            found.append(chain[best[end][1] : end])
            end = best[end][1]
        pieces += [piece for piece in reversed(found) if len(piece) > 1]
    return pieces


# ---- changes to the network --------------------------------------------------------------------------------------


class _Changes:
    """Context manager: changes to a network, which are taken back if what follows them raises."""

    def __init__(self, model: Module) -> None:
        self._model = model
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> _Changes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            for step in reversed(self._undo):
                step()

    def fold(self, layer: Any, affine: Affine) -> None:
        """Let `layer` compute its output times a factor plus a shift."""
        before = layer.weight, layer.bias

        def undo() -> None:
            layer.weight, layer.bias = before

        self._undo.append(undo)
        fold(layer, *affine)

    def set(self, layer: Module, name: str, value: Any) -> None:
        """Set an attribute that only the class has a value of."""
        self._undo.append(functools.partial(delattr, layer, name))
        setattr(layer, name, value)

    def replace(self, old: Module, new: Module) -> None:
        """Put `new` wherever `old` is."""
        new.training = old.training
        for module in list(self._model.modules()):
            for name, child in module._modules.items():
                if child is old:
                    module._modules[name] = new
                    self._undo.append(functools.partial(module._modules.__setitem__, name, old))


def fold(layer: Any, scale: np.ndarray, shift: np.ndarray) -> None:
    """Give `layer` the weight and bias with which it computes ``output * scale + shift``."""
    weight = layer.weight.data
    dtype = weight.dtype
    if layer.bias is not None:
        shift = layer.bias.data.astype(np.float64) * scale + shift
    if getattr(layer, "_transposed", False):
        # (C, K / groups, ...): the outputs of a group stand in the second dimension of that group's inputs.
        groups = layer.groups
        grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).astype(np.float64)
        product = (grouped * scale.reshape(groups, 1, -1, 1)).reshape(weight.shape)
    else:
        product = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    layer.weight = Parameter(product.astype(dtype), requires_grad=False)
    layer.bias = Parameter(shift.astype(dtype), requires_grad=False)


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _check(result: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """_OtherResultsError unless the outputs are the `expected` ones but for rounding."""
    for y, before in zip(result, expected, strict=True):
        # Far above the rounding of deep networks, far below what another computation gives.
        share = 1e-3 if before.dtype.itemsize > 2 else 0.1
        before = before.astype(np.float64)
        finite = np.isfinite(before)
        largest = np.abs(before[finite]).max(initial=0)
        change = np.abs(y[finite] - before[finite]).max(initial=0)
        if not change <= share * largest:
            raise _OtherResultsError(
                f"cannot optimize this model: its outputs change by {change:.2g} where they reach {largest:.2g}; its "
                "forward gives other values at each call, or what it reads outside the tape (Tensor.data) has changed"
            )
