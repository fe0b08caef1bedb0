"""`optimize`: a copy of a network for inference, with its batch normalisation inside the convolutions."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import backend
from .devices import is_array, to_host
from .fusion import rewrite
from .layouts import channels_first, channels_last
from .leaves import any_leaf
from .nn.functional.packing import pack_weight
from .nn.modules.arguments import floating_dtype, input_shapes, is_floating
from .nn.modules.calling import convert_leaves, plain
from .nn.modules.conv import _Conv
from .nn.modules.linear import Linear
from .nn.modules.module import Module
from .nn.modules.pending import refuse_held
from .nn.modules.state import LoadResult
from .nn.modules.summary import place_of

__all__ = ["Optimized", "optimize"]


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
        ``"conv1 relu"`` and ``"conv1 +"`` are what ``forward`` does to the output of ``conv1`` without a layer.
    chained : tuple of tuples of str or None
        Names of the convolutions that are computed together, a few rows at a time.

    Examples
    --------
    >>> import fastconv as fc, fastconv.nn as nn
    >>> fast = fc.optimize(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU()), (1, 3))
    >>> fast.folded, fast.fused
    ((('0', '1'),), ())
    """

    def __init__(self, model: Module, pack_weights: bool = True) -> None:
        super().__init__()
        self.model = model
        self.pack_weights = pack_weights
        self.folded: tuple[tuple[str, str], ...] | None = None
        self.fused: tuple[tuple[str, str], ...] | None = None
        self.chained: tuple[tuple[str, ...], ...] | None = None
        self._lock = threading.Lock()
        super().train(False)

    def train(self, mode: bool = True) -> Optimized:
        """Nothing: an optimised network stays in evaluation mode."""
        return self

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The network's outputs for `inputs` and keyword arguments, in the memory layout of the first input.

        Raises
        ------
        ValueError
            The network's ``forward`` goes another way than in the pass by which it was rewritten, and meets there what
            is not computed any more.
        """
        if self.folded is None:
            self.prepare(*inputs, **options)
        first: Any = inputs[0] if inputs else None
        output = self.model(*(channels_last(x) if is_array(x) and x.ndim > 2 else x for x in inputs), **options)
        refuse_held(output)
        if not is_array(first) or _is_channels_last(first):
            return output
        return convert_leaves(_contiguous, output)

    def prepare(self, *inputs: Any, **options: Any) -> None:
        """Find out what can be folded from a forward pass over arguments like these.

        Arrays of floating point stand for their shape and dtype: others are drawn at random in their place, of one
        image where that will do.

        Raises
        ------
        ValueError
            The network computes something else at each call.
        """
        with self._lock:
            if self.folded is not None:
                return
            place = place_of(self.model)
            self.model.cpu()  # what can be folded is found out there
            try:
                found = rewrite(self.model, _like((inputs, options), True))
            except ValueError:
                if not any_leaf(_is_batch, (inputs, options)):
                    raise
                found = rewrite(self.model, _like((inputs, options), False))  # the first dimension is no batch
            finally:
                self.model.to(place)
            self.folded, self.fused, self.chained = found
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


def optimize(model: Module, input_shape: Any = None, *, pack_weights: bool = True) -> Optimized:
    """A copy of `model` for inference that computes the same with less.

    Batch normalisation with running statistics is folded into the convolution, transposed convolution or linear layer
    before it; ReLU, ReLU6 and Hardtanh, and the sums at the end of residual blocks (also where ``forward`` says ``+``
    and ``F.relu``), are computed by the convolution before them while its results are in registers; depthwise
    convolutions and their neighbours are computed together, a few rows at a time, so that nothing between them goes to
    memory; the interior runs in channels-last, whatever the input's layout; weights are packed once.

    Parameters
    ----------
    model : Module
        Stays as it is; changes to it after the call do not reach the copy.
    input_shape : sequence of int, or a sequence of them, optional
        Shape of an input with its batch dimension, such as ``(1, 3, 224, 224)``, of several inputs one each: the copy
        is rewritten at once. By default that happens at the first call, with the shapes of its inputs.
    pack_weights : bool
        Keep the weights of convolutions and linear layers as `fastconv.nn.functional.pack_weight` does: up to twice as
        fast for single images, for one to two times more memory. False: pack them in each call.

    Returns
    -------
    Optimized
        A Module; its results differ from the model's by rounding alone. What may be folded is read from one recorded
        pass. Where ``forward`` goes another way at another call, for a flag, a shape or the values, and needs there
        what is not computed any more, the call raises ValueError: optimise a model for each way. Its parameters are
        frozen, packed ones read-only.

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
      (1): Absorbed('1')
      (2): Absorbed('2')
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
        dtype = floating_dtype(next((p.data.dtype for p in model.parameters() if is_floating(p.data.dtype)), None))
        shapes = input_shapes("input_shape", input_shape, 1)
        optimized.prepare(*(np.broadcast_to(np.zeros((), dtype), shape) for shape in shapes))
    for parameter in optimized.parameters():
        parameter.requires_grad = False
        parameter.grad = None
    return optimized


# ---- arguments of the recorded pass -------------------------------------------------------------------------------


def _is_batch(value: Any) -> bool:
    value = plain(value)
    return is_array(value) and value.ndim > 0 and len(value) != 1


def _like(example: tuple[Any, Any], single: bool) -> tuple[Any, Any]:
    """Arguments on the CPU, with `single` of one image: other numbers for floating point, everything else as it is."""
    rng = np.random.default_rng(0)

    def drawn(value: Any) -> Any:
        value = plain(value)
        if not is_array(value):
            return value
        if single and value.ndim:
            # An image of none would show no difference.
            value = value[:1] if len(value) else np.zeros((1, *value.shape[1:]), value.dtype)
        if not is_floating(value.dtype):
            return to_host(value)
        return rng.standard_normal(value.shape).astype(value.dtype)

    return convert_leaves(drawn, example)


# ---- memory layout -----------------------------------------------------------------------------------------------


def _is_channels_last(x: np.ndarray) -> bool:
    return x.ndim > 2 and not x.flags.c_contiguous and np.moveaxis(x, 1, -1).flags.c_contiguous


def _contiguous(y: Any) -> Any:
    return channels_first(y) if is_array(y) and y.ndim > 2 else y
