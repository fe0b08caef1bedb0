"""Recurrent layers: RNN, LSTM and GRU, of several layers and in both directions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

import fastconv.nn.functional as F
from fastconv.devices import array_module
from fastconv.interop import like
from fastconv.joining import cat, stack
from fastconv.nn import init
from fastconv.nn.modules.arguments import choice, floating_dtype, number, size
from fastconv.nn.modules.calling import call_with_tensors, convert_leaves, holds_tensor
from fastconv.nn.modules.module import Module
from fastconv.tensor import Parameter, Tensor, tensor

__all__ = ["GRU", "LSTM", "RNN"]


class Stateful(Module):
    """Of layers and cells: how parameters are drawn, and the states that they take."""

    _state_names: ClassVar[tuple[str, ...]]
    hidden_size: int

    def reset_parameters(self) -> None:
        """Draw all parameters anew from U(-b, b), b = 1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _named_states(self, hx: Any) -> list[tuple[str, Tensor]]:
        """The names of the kinds of state (h, and for LSTM c), and those that were given."""
        given = (hx,) if len(self._state_names) == 1 else hx
        if not isinstance(given, tuple | list) or len(given) != len(self._state_names):
            raise TypeError(f"hx must be a tuple ({', '.join(self._state_names)}), got {type(hx).__name__}")
        return [
            (n, value if isinstance(value, Tensor) else tensor(value)) for n, value in zip(self._state_names, given)
        ]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """The output and the last states, or the state after the step; see the class for the shapes."""
        if not holds_tensor((input, hx)):
            result = call_with_tensors(self._run, (input, hx), {})
            return convert_leaves(lambda y: like(y, input), result)
        return self._run(input, hx)

    def _run(self, input: Any, hx: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no _run")


class _Recurrent(Stateful):
    """What they have in common: parameters, layers, directions, the shapes of input, state and output."""

    _gates: ClassVar[int]
    _projects: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        device: Any = None,
        dtype: Any = None,
        proj_size: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"{name} must be a bool, got {value!r}")
        self.input_size = size("input_size", input_size, 1)
        self.hidden_size = size("hidden_size", hidden_size, 1)
        self.num_layers = size("num_layers", num_layers, 1)
        self.proj_size = size("proj_size", proj_size, 0)
        if self.proj_size and not self._projects:
            raise ValueError(f"proj_size is for LSTM alone, got {proj_size}")
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size must be smaller than hidden_size {self.hidden_size}, got {proj_size}")
        self.bias, self.batch_first, self.bidirectional = bool(bias), bool(batch_first), bool(bidirectional)
        if not 0 <= number("dropout", dropout) <= 1:
            raise ValueError(f"dropout must be between 0 and 1, got {dropout}")
        if dropout and self.num_layers == 1:
            raise ValueError(f"dropout works between layers: it must be 0 for one layer, got {dropout}")
        self.dropout = dropout
        kind, rows = floating_dtype(dtype), self._gates * self.hidden_size
        for layer, ending in self._passes():
            features = self._output_size * self._directions if layer else self.input_size
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, features), "weight_hh": (rows, self._output_size)}
            if self.bias:
                shapes.update(bias_ih=(rows,), bias_hh=(rows,))
            if self.proj_size:
                shapes["weight_hr"] = (self.proj_size, self.hidden_size)
            for name, shape in shapes.items():
                self.register_parameter(f"{name}_l{layer}{ending}", Parameter(np.empty(shape, kind)))
        self.reset_parameters()
        self.to(device=device)

    @property
    def _output_size(self) -> int:
        return self.proj_size or self.hidden_size

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _passes(self) -> list[tuple[int, str]]:
        """Layer and ending of the parameters' names, in the order of the states."""
        endings = ("", "_reverse")[: self._directions]
        return [(layer, ending) for layer in range(self.num_layers) for ending in endings]

    def _states(self, hx: Any, x: Tensor, batched: bool) -> list[list[Any]]:
        """For each kind of state (h, and for LSTM c) the states (N, H) of all passes; zeros where none was given."""
        count, batch = len(self._passes()), x.shape[1]
        features = {"h_0": self._output_size, "c_0": self.hidden_size}
        if hx is None:
            library = array_module(x.data)
            return [[library.zeros((batch, features[name]), x.dtype)] * count for name in self._state_names]
        states = []
        for name, state in self._named_states(hx):
            shape = (count, batch, features[name]) if batched else (count, features[name])
            if state.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {state.shape}")
            states.append([state[i] if batched else state[i].reshape(1, -1) for i in range(count)])
        return states

    def _one_pass(self, x: Any, states: list[Any], parameters: list[Any]) -> list[Any]:
        """The states (L, N, H) after each step, the output first."""
        raise NotImplementedError(f"{type(self).__name__} defines no _one_pass")

    def _run(self, input: Any, hx: Any) -> Any:
        x = input if isinstance(input, Tensor) else tensor(input)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"input must have shape ({'N, L' if self.batch_first else 'L, N'}, {self.input_size}) or "
                f"(L, {self.input_size}), got {x.shape}"
            )
        batched = x.ndim == 3
        if not batched:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        states = self._states(hx, x, batched)
        last: list[list[Any]] = [[] for _ in states]
        outputs: list[Any] = []
        for number_of_pass, (layer, ending) in enumerate(self._passes()):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]
            parameters = [getattr(self, f"{name}_l{layer}{ending}") for name in names]
            if self.proj_size:
                parameters = [*(*parameters, None, None)[:4], getattr(self, f"weight_hr_l{layer}{ending}")]
            results = self._one_pass(x[::-1] if ending else x, [state[number_of_pass] for state in states], parameters)
            for ends, result in zip(last, results):
                ends.append(result[-1])
            outputs.append(results[0][::-1] if ending else results[0])
            if len(outputs) == self._directions:
                x, outputs = (cat(outputs, 2) if self.bidirectional else outputs[0]), []
                if self.dropout and layer < self.num_layers - 1:
                    x = F.dropout(x, self.dropout, self.training)
        final = tuple(stack(ends) if batched else stack(ends).reshape(len(ends), -1) for ends in last)
        if not batched:
            x = x.reshape(len(x), -1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, final if len(final) > 1 else final[0]

    def extra_repr(self) -> str:
        """The sizes, and the options that differ from their defaults."""
        words = [str(self.input_size), str(self.hidden_size)]
        defaults = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0}
        defaults["bidirectional"] = False
        words += [f"{name}={getattr(self, name)}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join(words)


class LSTM(_Recurrent):
    """Long short-term memory.

    Parameters
    ----------
    input_size : int
        Features of each step.
    hidden_size : int
        Features of the state.
    num_layers : int
        Layers, each on the outputs of the one below.
    bias : bool
        Whether the gates have biases.
    batch_first : bool
        Whether input and output are (N, L, features) instead of (L, N, features).
    dropout : float
        Probability of dropping each output between layers.
    bidirectional : bool
        Whether each layer also runs backwards; the outputs of both directions stand side by side.
    proj_size : int
        Where not 0, the output is a projection of the state to so many features, fewer than `hidden_size`.
    device : str or int, keyword only
        Where its parameters lie: ``"cpu"`` (the default), ``"cuda"``, ``"cuda:N"`` or N.
    dtype : dtype-like, keyword only
        Of the parameters; float32 by default.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0 : Parameter
        (4 * hidden_size, features) and (4 * hidden_size, hidden_size), rows of input gate, forget gate, cell and
        output gate; of layer k ``_lk``, of the direction backwards ``_lk_reverse``.
    bias_ih_l0, bias_hh_l0 : Parameter
        (4 * hidden_size,).
    weight_hr_l0 : Parameter
        (proj_size, hidden_size), where there is a projection; ``weight_hh_l0`` is (4 * hidden_size, proj_size) then.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    ``output, (h_n, c_n) = lstm(input, (h_0, c_0))`` with input (L, N, input_size) or (L, input_size), output
    (L, N, D * hidden_size) and states (D * num_layers, N, hidden_size), D = 2 where bidirectional; zeros are the first
    states by default. With a projection output and h have proj_size features instead of hidden_size. Hochreiter &
    Schmidhuber 1997; Sak et al. 2014 (projections). Source: torch.nn.LSTM; ONNX LSTM.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> output, (h, c) = nn.LSTM(3, 4, num_layers=2)(np.zeros((7, 2, 3), np.float32))
    >>> output.shape, h.shape
    ((7, 2, 4), (2, 2, 4))
    """

    _gates = 4
    _projects = True
    _state_names = ("h_0", "c_0")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = bias, batch_first, dropout, bidirectional
        super().__init__(input_size, hidden_size, num_layers, *options, device=device, dtype=dtype, proj_size=proj_size)

    def _one_pass(self, x: Any, states: list[Any], parameters: list[Any]) -> list[Any]:
        both = F.lstm(x, *states, *parameters)
        return [both[..., : self.proj_size], both[..., self.proj_size :]] if self.proj_size else [both[0], both[1]]


class RNN(_Recurrent):
    """A simple recurrent network: h = nonlinearity(W_ih x + b_ih + W_hh h + b_hh).

    Parameters
    ----------
    nonlinearity : {"tanh", "relu"}
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As for :class:`LSTM`.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0 : Parameter
        (hidden_size, features) and (hidden_size, hidden_size); of layer k ``_lk``, of the direction backwards
        ``_lk_reverse``.
    bias_ih_l0, bias_hh_l0 : Parameter
        (hidden_size,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    ``output, h_n = rnn(input, h_0)`` with the shapes of :class:`LSTM`. Elman 1990. Source: torch.nn.RNN; ONNX RNN.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> output, h = nn.RNN(3, 4, nonlinearity="relu")(np.zeros((7, 2, 3), np.float32))
    >>> output.shape, h.shape
    ((7, 2, 4), (1, 2, 4))
    """

    _gates = 1
    _state_names = ("h_0",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = bias, batch_first, dropout, bidirectional
        super().__init__(input_size, hidden_size, num_layers, *options, device=device, dtype=dtype)
        self.nonlinearity = choice("nonlinearity", nonlinearity, ("tanh", "relu"))

    def _one_pass(self, x: Any, states: list[Any], parameters: list[Any]) -> list[Any]:
        w_ih, w_hh, b_ih, b_hh = (*parameters, None, None)[:4]
        return [F.rnn(x, states[0], w_ih, w_hh, b_ih, b_hh, self.nonlinearity)]


class GRU(_Recurrent):
    """Gated recurrent units.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As for :class:`LSTM`.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0 : Parameter
        (3 * hidden_size, features) and (3 * hidden_size, hidden_size), rows of reset gate, update gate and candidate;
        of layer k ``_lk``, of the direction backwards ``_lk_reverse``.
    bias_ih_l0, bias_hh_l0 : Parameter
        (3 * hidden_size,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    ``output, h_n = gru(input, h_0)`` with the shapes of :class:`LSTM`. Cho et al. 2014. Source: torch.nn.GRU; ONNX GRU
    with linear_before_reset.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> output, h = nn.GRU(3, 4, batch_first=True, bidirectional=True)(np.zeros((2, 7, 3), np.float32))
    >>> output.shape, h.shape
    ((2, 7, 8), (2, 2, 4))
    """

    _gates = 3
    _state_names = ("h_0",)

    def _one_pass(self, x: Any, states: list[Any], parameters: list[Any]) -> list[Any]:
        return [F.gru(x, *states, *parameters)]
