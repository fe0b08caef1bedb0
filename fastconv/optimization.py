"""`optimize`: a copy of a network for inference, with its batch normalisation inside the convolutions."""

from __future__ import annotations

import copy
import functools
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import backend
from .devices import is_array
from .layouts import channels_first, channels_last
from .nn.functional.packing import pack_weight
from .nn.modules.activation import Hardtanh, LeakyReLU, ReLU
from .nn.modules.arguments import is_floating, size
from .nn.modules.calling import convert_leaves
from .nn.modules.conv import Conv2d, _Conv, _ConvBase
from .nn.modules.elementwise_activation import CELU, ELU, SELU, Hardsigmoid, Hardswish, Mish, RReLU, SiLU, Threshold
from .nn.modules.linear import Linear
from .nn.modules.module import Module
from .nn.modules.normalization import BatchNorm
from .nn.modules.shape import Identity
from .nn.modules.state import LoadResult
from .nn.modules.summary import place_of
from .tape import enable_grad, keep_values, parents_of, topological_order
from .tensor import Parameter, Tensor

__all__ = ["Optimized", "optimize"]

Call = tuple[Module, Tensor, Tensor]
"""A call of a layer in a recorded pass: the layer, its first input, its output."""

Affine = tuple[np.ndarray, np.ndarray]
"""A factor and a shift for each channel."""

Values = dict[int, Tensor]
"""What a recorded pass computed, by the id of the Nodes."""

_COPYING = (Hardtanh, LeakyReLU, CELU, ELU, SELU, Hardsigmoid, Hardswish, Mish, RReLU, SiLU, Threshold)
"""Layers that have no kernel in place: they would compute another array and copy it back, at twice the time."""


class Optimized(Module):
    """What `optimize` returns: a network in evaluation mode that computes in channels-last and gives back your layout.

    Attributes
    ----------
    model : Module
        The rewritten copy.
    folded : tuple of (str, str) or None
        Names of the convolutions and of the normalisations that went into them; None before the first call.
    fused : tuple of (str, str) or None
        Names of the convolutions, normalisations and sums, and of the activations (or of the sum) that they take along.
    chained : tuple of tuples of str or None
        Names of the convolutions that are computed together, a few rows at a time.
    inplace : tuple of str or None
        Names of the layers that overwrite their input.

    Examples
    --------
    >>> import fastconv as fc, fastconv.nn as nn
    >>> fast = fc.optimize(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU()), (1, 3))
    >>> fast.folded, fast.inplace
    ((('0', '1'),), ('2',))
    """

    def __init__(self, model: Module, pack_weights: bool = True) -> None:
        super().__init__()
        self.model = model
        self.pack_weights = pack_weights
        self.folded: tuple[tuple[str, str], ...] | None = None
        self.fused: tuple[tuple[str, str], ...] | None = None
        self.chained: tuple[tuple[str, ...], ...] | None = None
        self.inplace: tuple[str, ...] | None = None
        self._lock = threading.Lock()
        super().train(False)

    def train(self, mode: bool = True) -> Optimized:
        """Nothing: an optimised network stays in evaluation mode."""
        return self

    def forward(self, *inputs: Any) -> Any:
        """The network's outputs for `inputs`, in the memory layout of the first."""
        if self.folded is None:
            self.prepare(*(tuple(np.shape(x)) for x in inputs))
        first: Any = inputs[0] if inputs else None
        if not is_array(first):
            return self.model(*inputs)
        output = self.model(*(channels_last(x) if is_array(x) and x.ndim > 2 else x for x in inputs))
        if _is_channels_last(first):
            return output
        return convert_leaves(_contiguous, output)

    def prepare(self, *shapes: Sequence[int]) -> None:
        """Find out what can be folded from a forward pass over one random input of each of these shapes.

        Raises
        ------
        ValueError
            The rewritten network computes something else, because its forward reads values outside the tape (through
            ``data`` or ``numpy()``).
        """
        with self._lock:
            if self.folded is not None:
                return
            place = place_of(self.model)
            self.model.cpu()  # what can be folded is found out there
            whole = [tuple(shape) for shape in shapes]
            single = [(min(shape[0], 1), *shape[1:]) if shape else shape for shape in whole]
            try:
                found = _rewrite(self.model, single)
            except ValueError:
                if single == whole:
                    raise
                found = _rewrite(self.model, whole)  # the first dimension is no batch
            finally:
                self.model.to(place)
            self.folded, self.fused, self.chained, self.inplace = found
            self._pack()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """As `Module.load_state_dict`; what is loaded is packed again."""
        try:
            return super().load_state_dict(state_dict, strict)
        finally:
            self._pack()

    def _pack(self) -> None:
        """Freeze the weights that the native kernels pack."""
        if not self.pack_weights or self.folded is None or not backend.get_backend().startswith("cpu"):
            return
        for layer in self.model.modules():
            # One input channel a group: such kernels pack nothing.
            if isinstance(layer, Linear) or (isinstance(layer, _Conv) and layer.groups < max(layer.in_channels, 2)):
                weight = layer.weight
                if isinstance(weight.data, np.ndarray) and weight.data.flags.writeable:
                    weight.data = pack_weight(weight)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__["_lock"] = threading.Lock()
        self._pack()  # copies are writable again


def optimize(model: Module, input_shape: Sequence[int] | None = None, *, pack_weights: bool = True) -> Optimized:
    """A copy of `model` for inference that computes the same with less.

    Batch normalisation with running statistics is folded into the convolution, transposed convolution or linear layer
    before it; ReLU, ReLU6 and Hardtanh, and the sums at the end of residual blocks, are computed by the convolution
    before them while its results are in registers; where that cannot be, they overwrite arrays that nothing else reads;
    depthwise convolutions and their neighbours are computed together, a few rows at a time, so that nothing between
    them goes to memory; the interior runs in channels-last, whatever the input's layout; weights are packed once.

    Parameters
    ----------
    model : Module
        Stays as it is; changes to it after the call do not reach the copy.
    input_shape : sequence of int, optional
        Shape of an input with its batch dimension, such as ``(1, 3, 224, 224)``: the copy is rewritten at once. By
        default that happens at the first call, with the shape of its inputs.
    pack_weights : bool
        Keep the weights of convolutions and linear layers as `fastconv.nn.functional.pack_weight` does: up to twice as
        fast for single images, for one to two times more memory. False: pack them in each call.

    Returns
    -------
    Optimized
        A Module; its results differ from the model's by rounding alone, as long as its ``forward`` goes the way that it
        went in one recorded pass, from which is read what may be folded. Where it goes another way at another call, for
        a flag, a shape or the values, it may find there what is not computed any more: optimise a model for each way.
        Its parameters are frozen, packed ones read-only.

    Raises
    ------
    TypeError
        `model` is no Module.
    ValueError
        `input_shape` does not fit the model, or the copy does not compute what the model does.

    Notes
    -----
    Jacob et al. 2018, section 3.2, for the folding: ``w' = w g / sqrt(var + eps)``, ``b' = (b - mean) g / sqrt(var +
    eps) + beta``, computed in float64. A normalisation stays where its input is used elsewhere, too, where it comes
    first (DenseNet), or where it has no running statistics; with them, it takes the activation or the sum behind it
    along.

    Examples
    --------
    >>> import numpy as np, fastconv as fc, fastconv.nn as nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> fast = fc.optimize(net, (1, 3, 32, 32))
    >>> fast.model
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), limits=(0.0, inf))
      (1): Identity()
      (2): Identity()
    )
    >>> x = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    >>> bool(np.allclose(fast(x), net(x), atol=1e-6))
    True
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    if isinstance(model, Optimized):
        return copy.deepcopy(model)
    optimized = Optimized(copy.deepcopy(model), bool(pack_weights))
    if input_shape is not None:
        optimized.prepare(tuple(size("input_shape", extent, 1) for extent in input_shape))
    for parameter in optimized.parameters():
        parameter.requires_grad = False
        parameter.grad = None
    return optimized


# ---- memory layout -----------------------------------------------------------------------------------------------


def _is_channels_last(x: np.ndarray) -> bool:
    return x.ndim > 2 and not x.flags.c_contiguous and np.moveaxis(x, 1, -1).flags.c_contiguous


def _contiguous(y: Any) -> Any:
    return channels_first(y) if is_array(y) and y.ndim > 2 else y


# ---- rewriting ---------------------------------------------------------------------------------------------------


Pairs = tuple[tuple[str, str], ...]
Found = tuple[Pairs, Pairs, tuple[tuple[str, ...], ...], tuple[str, ...]]


def _rewrite(model: Module, shapes: Sequence[Sequence[int]]) -> Found:
    """Fold, fuse, chain and overwrite in `model` what one recorded pass allows; the names of the layers concerned."""
    from .models.residual import Add  # not before it is needed: all models come with it

    rng = np.random.default_rng(0)
    dtype = next((p.data.dtype for p in model.parameters() if is_floating(p.data.dtype)), np.dtype(np.float32))
    inputs = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    names = {module: name for name, module in model.named_modules()}
    calls, outputs, values = _recorded_calls(model, inputs)
    readers = Counter(id(parent) for tensor in _all_behind(outputs, values) for parent in _parents(tensor, values))
    readers.update(id(output) for output in outputs)
    times = Counter(id(module) for module, _, _ in calls)
    made_by = {id(output): (module, entry) for module, entry, output in calls}

    layer_of: dict[int, Any] = {}

    def maker(value: Tensor) -> Any:
        """The layer that made `value` for one reader alone, in its only call; what it takes in may stand between."""
        layer = made_by.get(id(value), (None, None))[0]
        if times[id(layer)] != 1 or readers[id(value)] != 1:
            return None
        return layer_of.get(id(layer), layer)

    folded, scales = [], {}
    for module, entry, _ in calls:
        affine = _affine(module, entry)
        if affine is None or times[id(module)] != 1:
            continue
        if _can_fold(layer := maker(entry), entry):
            folded.append((layer, module, affine))
            layer_of[id(module)] = layer
        elif isinstance(module, BatchNorm) and (scale := _as_scale(module, entry, affine)):
            # A norm that stays may take along what follows it.
            scales[module] = layer_of[id(module)] = scale
            names[scale] = names[module]

    joined, limited = [], []  # convolutions with their sums; convolutions or sums with their activations
    for module, entry, output in calls:
        broadcasts = any(part.shape != output.shape for part in _parents(output, values))
        if isinstance(module, Add) and not broadcasts and isinstance(layer := maker(entry), _Conv):
            joined.append((layer, module))
    for module in {id(module): module for module, _, _ in calls if _limits(module)}.values():
        makers = [maker(entry) for other, entry, _ in calls if other is module]
        if all(isinstance(layer, (_Conv, Add)) for layer in makers):
            limited += [(layer, module) for layer in makers]
    takers = [layer for layer, *_ in (*joined, *limited, *folded)]
    scales = {norm: scale for norm, scale in scales.items() if any(scale is layer for layer in takers)}
    limited_by = {id(module): layer for layer, module in limited if times[id(module)] == 1}
    steps: list[tuple[Any, Any, int]] = []  # neighbours in a chain, and the elements between them
    for module, entry, _ in calls:
        before = maker(entry)
        before = limited_by.get(id(before), before)
        if times[id(module)] == 1 and _goes_in_bands(before, module):
            steps.append((before, module, entry.data.size))
    chains = _pieces(steps)
    gone = {id(module) for _, module in limited} | {id(module) for _, module in joined}
    inplace = []
    for module in {id(module): module for module, _, _ in calls}.values():
        entries = [entry for other, entry, _ in calls if other is module]
        if getattr(module, "inplace", None) is not False or isinstance(module, _COPYING) or id(module) in gone:
            continue
        if all(readers[id(e)] == 1 and _is_fresh(e, values) for e in entries):
            inplace.append(module)

    undo: list[Callable[[], None]] = []
    try:
        for layer, module, affine in folded:
            undo += [_fold(layer, *affine), _replace(model, module, Identity())]
        undo += [_replace(model, norm, scale) for norm, scale in scales.items()]
        for layer in {
            id(layer): layer for layer in (*(a for a, _ in joined), *(a for c in chains for a in c[:-1]))
        }.values():
            layer._waits = True
            undo.append(functools.partial(delattr, layer, "_waits"))
        for layer, module in limited:
            layer._limits = _limits(module)
            undo.append(functools.partial(delattr, layer, "_limits"))
        for module in {id(module): module for _, module in limited}.values():
            undo.append(_replace(model, module, Identity()))
        for module in inplace:
            module.inplace = True
            undo.append(functools.partial(setattr, module, "inplace", False))
        _check(model(*(x.copy() for x in inputs)), [output.data for output in outputs])
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    pairs = [tuple((names[a], names[b]) for a, b, *_ in found) for found in (folded, joined + limited)]
    chained = tuple(tuple(names[layer] for layer in chain) for chain in chains)
    return pairs[0], pairs[1], chained, tuple(names[module] for module in inplace)


_MOST_CHAINED = 5
"""Convolutions in a chain. MobileNetV1 on eight images in chains of 2, 3, 4 and 8: 1.0, 1.05, 1.1 and 0.95 of the speed
of layer after layer, on one image 1.0, 1.0, 1.05 and 0.85 (Zen 3, 2 threads)."""


_MOST_PRODUCTS = 128
"""Of a convolution beside a depthwise one, for each value between them: with more, arithmetic is the limit wherever
they are. In bands MobileNetV2's blocks with 16 to 96 narrow channels are 1.05 to 1.9 times as fast, those with 160 1.0;
MobileNetV1's with 64 and 128 1.05, those with 256 and more 0.9 to 1.0 (Zen 3, 2 threads, 1 and 8 images)."""


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


def _limits(module: Module) -> tuple[float, float] | None:
    """Between which values a layer brings its input; None for any other layer."""
    if isinstance(module, Hardtanh):
        return float(module.min_val), float(module.max_val)
    return (0.0, np.inf) if type(module) is ReLU else None


def _recorded_calls(model: Module, inputs: list[np.ndarray]) -> tuple[list[Call], list[Tensor], Values]:
    """Every call of a layer without hooks in a recorded forward pass, the outputs of the pass, all that it recorded."""
    calls: list[Call] = []

    def note(module: Module, arguments: tuple[Any, ...], output: Any) -> None:
        if arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
            calls.append((module, arguments[0], output))

    layers = [
        module
        for module in model.modules()
        if not (module._modules or module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
    ]
    handles = [module.register_forward_hook(note) for module in layers]
    try:
        with enable_grad(), keep_values() as values:
            result = model(*(Tensor(x, requires_grad=True) for x in inputs))
    finally:
        for handle in handles:
            handle.remove()
    return calls, _tensors(result), values


def _tensors(result: Any) -> list[Tensor]:
    found: list[Tensor] = []
    convert_leaves(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, result)
    return found


def _parents(tensor: Tensor, values: Values) -> list[Tensor]:
    vertices = [] if tensor._node is None else parents_of(tensor._node)
    return [v if isinstance(v, Tensor) else values[id(v)] for v in vertices]


def _all_behind(outputs: list[Tensor], values: Values) -> list[Tensor]:
    """Every recorded Tensor that the outputs were computed from, each once."""
    vertices = {id(v): v for output in outputs for v in topological_order(output)}
    return [v if isinstance(v, Tensor) else values[id(v)] for v in vertices.values()]


def _is_fresh(tensor: Tensor, values: Values) -> bool:
    """Whether nothing else holds the memory of `tensor`: it was computed, and is no view of what it was made from."""
    parents = _parents(tensor, values)
    return bool(parents) and not any(np.may_share_memory(tensor.data, parent.data) for parent in parents)


class ChannelScale(Conv2d):
    """A normalisation of images with running statistics as a factor and a shift a channel: one pass, which may also add
    an array and limit the results."""

    def __init__(self, channels: int, *, dtype: Any = None) -> None:
        super().__init__(channels, channels, 1, groups=channels, dtype=dtype)

    def reset_parameters(self) -> None:
        self.weight.data.fill(1)
        self.bias.data.fill(0)


def _as_scale(norm: BatchNorm, entry: Tensor, affine: Affine) -> ChannelScale | None:
    # float16 and bfloat16 would round factor and shift before they meet.
    if entry.ndim != 4 or entry.dtype.itemsize < 4:
        return None
    scale = ChannelScale(norm.num_features, dtype=entry.dtype)
    _fold(scale, *affine)
    scale.weight.requires_grad = scale.bias.requires_grad = False
    return scale


def _affine(module: Module, entry: Tensor) -> Affine | None:
    """What `module` multiplies each channel of its input by and then adds, in float64; None if it does other things."""
    if not isinstance(module, BatchNorm):
        channelwise = getattr(module, "channel_affine", None)
        return None if channelwise is None else channelwise(entry.shape)
    if module.running_mean is None or module.training:
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


def _fold(layer: Any, scale: np.ndarray, shift: np.ndarray) -> Callable[[], None]:
    """Give `layer` the weight and bias with which it computes ``output * scale + shift``; returns the undoing."""
    before = layer.weight, layer.bias
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

    def undo() -> None:
        layer.weight, layer.bias = before

    return undo


def _replace(model: Module, old: Module, replacement: Module) -> Callable[[], None]:
    """Put `replacement` wherever `old` is; returns the undoing."""
    replacement.training = old.training
    places = [(m._modules, name) for m in model.modules() for name, child in m._modules.items() if child is old]
    for children, name in places:
        children[name] = replacement

    def undo() -> None:
        for children, name in places:
            children[name] = old

    return undo


def _check(result: Any, expected: list[np.ndarray]) -> None:
    """ValueError unless the outputs are the `expected` ones but for rounding."""
    found: list[np.ndarray] = []
    convert_leaves(lambda leaf: found.append(leaf) if isinstance(leaf, np.ndarray) else None, result)
    for y, before in zip(found, expected, strict=True):
        # Far above the rounding of deep networks, far below what another computation gives.
        share = 1e-3 if before.dtype.itemsize > 2 else 0.1
        before = before.astype(np.float64)
        finite = np.isfinite(before)
        largest = np.abs(before[finite]).max(initial=0)
        change = np.abs(y[finite] - before[finite]).max(initial=0)
        if not change <= share * largest:
            raise ValueError(
                f"cannot optimize this model: its outputs change by {change:.2g} where they reach {largest:.2g}; its "
                "forward must use values of a layer outside the tape (Tensor.data, Tensor.numpy())"
            )
