"""One step of a recurrent layer: for loops over time that a program writes itself."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

import fastconv.nn.functional as F
from fastconv.devices import array_module
from fastconv.nn.modules.arguments import choice, floating_dtype, size
from fastconv.nn.modules.recurrent import Stateful
from fastconv.tensor import Parameter, Tensor, tensor

__all__ = ["GRUCell", "LSTMCell", "RNNCell"]


class _Cell(Stateful):
    """Parameters, and the shapes of input and state."""

    _gates: ClassVar[int]
    _state_names: ClassVar[tuple[str, ...]] = ("hx",)

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size = size("input_size", input_size, 1)
        self.hidden_size = size("hidden_size", hidden_size, 1)
        self.bias = bool(bias)
        kind, rows = floating_dtype(dtype), self._gates * self.hidden_size
        self.weight_ih = Parameter(np.empty((rows, self.input_size), kind))
        self.weight_hh = Parameter(np.empty((rows, self.hidden_size), kind))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(np.empty(rows, kind)) if self.bias else None)
        self.reset_parameters()
        self.to(device=device)

    def _step(self, x: Any, states: list[Any], parameters: list[Any]) -> list[Any]:
        """The states (1, N, H) after a step on `x` (1, N, I)."""
        raise NotImplementedError(f"{type(self).__name__} defines no _step")

    def _run(self, input: Any, hx: Any) -> Any:
        x = input if isinstance(input, Tensor) else tensor(input)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"input must have shape (N, {self.input_size}) or ({self.input_size},), got {tuple(x.shape)}"
            )
        batched = x.ndim == 2
        rows = x if batched else x.unsqueeze(0)
        shape = (*x.shape[:-1], self.hidden_size)
        if hx is None:
            zeros = array_module(x.data).zeros(shape, x.dtype)
            hx = (zeros,) * len(self._state_names) if len(self._state_names) > 1 else zeros
        states = []
        for name, state in self._named_states(hx):
            if state.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(state.shape)}")
            states.append(state if batched else state.unsqueeze(0))
        parameters = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        found = tuple(y.reshape(shape) for y in self._step(rows.unsqueeze(0), states, parameters))
        return found if len(found) > 1 else found[0]

    def extra_repr(self) -> str:
        """The sizes, and the options that differ from their defaults."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """One step of a simple recurrent layer: nonlinearity(W_ih x + b_ih + W_hh h + b_hh).

    Parameters
    ----------
    input_size : int
        Features of the input.
    hidden_size : int
        Features of the state.
    bias : bool
        Whether there are biases.
    nonlinearity : {"tanh", "relu"}
    device : str or int, keyword only
        Where its parameters lie: ``"cpu"`` (the default), ``"cuda"``, ``"cuda:N"`` or N.
    dtype : dtype-like, keyword only
        Of the parameters; float32 by default.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter
        (hidden_size, input_size) and (hidden_size, hidden_size).
    bias_ih, bias_hh : Parameter or None
        (hidden_size,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    ``h = cell(input, h)`` with input (N, input_size) or (input_size,) and state (N, hidden_size) or (hidden_size,),
    zeros by default. Source: torch.nn.RNNCell.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.RNNCell(3, 4)(np.zeros((2, 3), np.float32)).shape
    (2, 4)
    """

    _gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)
        self.nonlinearity = choice("nonlinearity", nonlinearity, ("tanh", "relu"))

    def _step(self, x: Any, states: list[Any], parameters: list[Any]) -> list[Any]:
        w_ih, w_hh, b_ih, b_hh = parameters
        return [F.rnn(x, states[0], w_ih, w_hh, b_ih, b_hh, self.nonlinearity)]

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")


class LSTMCell(_Cell):
    """One step of long short-term memory.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As for :class:`RNNCell`.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter
        (4 * hidden_size, input_size) and (4 * hidden_size, hidden_size), rows as in :class:`LSTM`.
    bias_ih, bias_hh : Parameter or None
        (4 * hidden_size,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    ``h, c = cell(input, (h, c))`` with the shapes of :class:`RNNCell`. Source: torch.nn.LSTMCell.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> h, c = nn.LSTMCell(3, 4)(np.zeros((2, 3), np.float32))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    _gates = 4
    _state_names = ("h_0", "c_0")

    def _step(self, x: Any, states: list[Any], parameters: list[Any]) -> list[Any]:
        both = F.lstm(x, *states, *parameters)
        return [both[0], both[1]]


class GRUCell(_Cell):
    """One step of gated recurrent units.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As for :class:`RNNCell`.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter
        (3 * hidden_size, input_size) and (3 * hidden_size, hidden_size), rows as in :class:`GRU`.
    bias_ih, bias_hh : Parameter or None
        (3 * hidden_size,).

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Notes
    -----
    ``h = cell(input, h)`` with the shapes of :class:`RNNCell`. Source: torch.nn.GRUCell.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.GRUCell(3, 4)(np.zeros(3, np.float32)).shape
    (4,)
    """

    _gates = 3

    def _step(self, x: Any, states: list[Any], parameters: list[Any]) -> list[Any]:
        return [F.gru(x, *states, *parameters)]
