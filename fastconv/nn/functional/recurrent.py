"""One layer of a recurrent network in one direction, with backpropagation through time: rnn, lstm and gru.

The input's part of all gates is one product over all steps; only the state's part has to go step by step. Backward the
same: the steps give the gradients of the gates, and one product over all steps makes those of each weight of them.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ... import backend
from ...devices import array_module
from ...differentiable import A, Array, apply, differentiable
from .activation import logistic
from .parameters import check_floating, check_same_dtype, compute_dtype


def _checked(
    gates: int, x: ndarray, states: dict[str, ndarray], weights: dict[str, ndarray | None], hidden: int | None = None
) -> list:
    """All arrays in the type to compute in; `gates` is how often the hidden size goes into the weights' rows.

    `hidden` is that size where h0, the output, is a projection of it.
    """
    check_floating(x, "input")
    if x.ndim != 3:
        raise ValueError(f"input must have shape (L, N, I), got {x.shape}")
    steps, batch, features = x.shape
    if not steps:
        raise ValueError(f"input must have at least one step, got shape {x.shape}")
    h0 = states["h0"]
    if h0.ndim != 2 or h0.shape[0] != batch:
        raise ValueError(f"h0 must have shape ({batch}, H) for an input of shape {x.shape}, got {h0.shape}")
    output = h0.shape[1]
    hidden = output if hidden is None else hidden
    rows = gates * hidden
    expected = {
        "h0": (batch, output),
        "c0": (batch, hidden),
        "weight_ih": (rows, features),
        "weight_hh": (rows, output),
        "weight_hr": (output, hidden),
        "bias_ih": (rows,),
        "bias_hh": (rows,),
    }
    for name, array in {**states, **weights}.items():
        if array is None:
            continue
        check_same_dtype(array, name, x, "input")
        if array.shape != expected[name]:
            raise ValueError(f"{name} must have shape {expected[name]}, got {array.shape}")
    wide = compute_dtype(x)
    return [None if a is None else a.astype(wide, copy=False) for a in (x, *states.values(), *weights.values())]


def _parameter_gradients(wanted, dx_gates, dh_gates, x, previous, dtype):
    """The gradients of weight_ih, weight_hh, bias_ih and bias_hh from those of both parts of the gates."""
    ops = backend.ops
    pairs = (
        (wanted[0], lambda: ops.linear_backward_weight(dx_gates, x)),
        (wanted[1], lambda: ops.linear_backward_weight(dh_gates, previous)),
        (wanted[2], lambda: ops.linear_backward_bias(dx_gates)),
        (wanted[3], lambda: ops.linear_backward_bias(dh_gates)),
    )
    return tuple(compute().astype(dtype, copy=False) if is_wanted else None for is_wanted, compute in pairs)


def _lstm_rule(wanted, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr):
    weights = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    hidden = c0.shape[1] if weight_hr is not None and c0.ndim == 2 else None
    arrays = _checked(4, x, {"h0": h0, "c0": c0}, {**weights, "weight_hr": weight_hr}, hidden)
    a, h, c, w_ih, w_hh, b_ih, b_hh, w_hr = arrays
    ops, library = backend.ops, array_module(x)
    steps, (batch, hidden) = len(a), c.shape
    from_input = ops.linear_forward(a, w_ih, b_ih)
    gates = library.empty((steps, batch, 4, hidden), a.dtype)
    outputs = library.empty((steps + 1, *h.shape), a.dtype)
    cells = library.empty((steps + 1, *c.shape), a.dtype)
    outputs[0], cells[0] = h, c
    for t in range(steps):
        z = (from_input[t] + ops.linear_forward(outputs[t], w_hh, b_hh)).reshape(batch, 4, hidden)
        gates[t] = logistic(z)
        gates[t, :, 2] = np.tanh(z[:, 2])
        i, f, g, o = np.moveaxis(gates[t], 1, 0)
        cells[t + 1] = f * cells[t] + i * g
        y = o * np.tanh(cells[t + 1])
        outputs[t + 1] = y if w_hr is None else ops.linear_forward(y, w_hr, None)

    def pullback(dy):
        to_output, to_cell = (dy[0], dy[1]) if w_hr is None else (dy[..., : h.shape[1]], dy[..., h.shape[1] :])
        dz = np.empty_like(gates)
        dprojected = None if w_hr is None else np.empty_like(outputs[1:])
        dh, dc = np.zeros_like(h), np.zeros_like(c)
        for t in reversed(range(steps)):
            i, f, g, o = np.moveaxis(gates[t], 1, 0)
            dh = dh + to_output[t]
            if w_hr is not None:
                dprojected[t] = dh
                dh = ops.linear_backward_input(dprojected[t], w_hr)
            squashed = np.tanh(cells[t + 1])
            dc = dc + to_cell[t] + dh * o * (1 - squashed * squashed)
            dz[t, :, 0] = dc * g * i * (1 - i)
            dz[t, :, 1] = dc * cells[t] * f * (1 - f)
            dz[t, :, 2] = dc * i * (1 - g * g)
            dz[t, :, 3] = dh * squashed * o * (1 - o)
            dh = ops.linear_backward_input(dz[t].reshape(batch, len(w_hh)), w_hh)
            dc = dc * f
        flat = dz.reshape(steps, batch, len(w_hh))
        dx = ops.linear_backward_input(flat, w_ih).astype(x.dtype, copy=False) if wanted[0] else None
        ends = (d.astype(x.dtype, copy=False) if w else None for d, w in zip((dh, dc), wanted[1:3]))
        parameters = _parameter_gradients(wanted[3:7], flat, flat, a, outputs[:-1], x.dtype)
        dw_hr = None
        if wanted[7]:
            values = gates[:, :, 3] * np.tanh(cells[1:])
            dw_hr = ops.linear_backward_weight(dprojected, values).astype(x.dtype, copy=False)
        return (dx, *ends, *parameters, dw_hr)

    both = np.stack([outputs[1:], cells[1:]]) if w_hr is None else np.concatenate([outputs[1:], cells[1:]], axis=2)
    return both.astype(x.dtype, copy=False), pullback


def _gru_rule(wanted, x, h0, weight_ih, weight_hh, bias_ih, bias_hh):
    weights = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    a, h, w_ih, w_hh, b_ih, b_hh = _checked(3, x, {"h0": h0}, weights)
    ops, library = backend.ops, array_module(x)
    steps, (batch, hidden) = len(a), h.shape
    from_input = ops.linear_forward(a, w_ih, b_ih).reshape(steps, batch, 3, hidden)
    gates = library.empty((steps, batch, 3, hidden), a.dtype)
    from_state = library.empty((steps, batch, hidden), a.dtype)
    states = library.empty((steps + 1, batch, hidden), a.dtype)
    states[0] = h
    for t in range(steps):
        z = ops.linear_forward(states[t], w_hh, b_hh).reshape(batch, 3, hidden)
        gates[t, :, :2] = logistic(from_input[t, :, :2] + z[:, :2])
        from_state[t] = z[:, 2]
        reset, update = gates[t, :, 0], gates[t, :, 1]
        gates[t, :, 2] = np.tanh(from_input[t, :, 2] + reset * from_state[t])
        states[t + 1] = (1 - update) * gates[t, :, 2] + update * states[t]

    def pullback(dy):
        dx_gates = np.empty_like(gates)
        dh_gates = np.empty_like(gates)
        dh = np.zeros_like(h)
        for t in reversed(range(steps)):
            reset, update, candidate = np.moveaxis(gates[t], 1, 0)
            dh = dh + dy[t]
            d = dh * (1 - update) * (1 - candidate * candidate)
            dx_gates[t, :, 0] = d * from_state[t] * reset * (1 - reset)
            dx_gates[t, :, 1] = dh * (states[t] - candidate) * update * (1 - update)
            dx_gates[t, :, 2] = d
            dh_gates[t, :, :2] = dx_gates[t, :, :2]
            dh_gates[t, :, 2] = d * reset
            dh = dh * update + ops.linear_backward_input(dh_gates[t].reshape(batch, len(w_hh)), w_hh)
        flat, flat_h = (d.reshape(steps, batch, len(w_hh)) for d in (dx_gates, dh_gates))
        dx = ops.linear_backward_input(flat, w_ih).astype(x.dtype, copy=False) if wanted[0] else None
        dh0 = dh.astype(x.dtype, copy=False) if wanted[1] else None
        return (dx, dh0, *_parameter_gradients(wanted[2:], flat, flat_h, a, states[:-1], x.dtype))

    return states[1:].astype(x.dtype), pullback


def _rnn_rule(wanted, x, h0, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity):
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
    weights = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    a, h, w_ih, w_hh, b_ih, b_hh = _checked(1, x, {"h0": h0}, weights)
    ops, library = backend.ops, array_module(x)
    steps = len(a)
    from_input = ops.linear_forward(a, w_ih, b_ih)
    states = library.empty((steps + 1, *h.shape), a.dtype)
    states[0] = h
    for t in range(steps):
        z = from_input[t] + ops.linear_forward(states[t], w_hh, b_hh)
        states[t + 1] = np.tanh(z) if nonlinearity == "tanh" else ops.relu_forward(z, True)

    def pullback(dy):
        dz = np.empty_like(from_input)
        dh = np.zeros_like(h)
        for t in reversed(range(steps)):
            y = states[t + 1]
            slope = 1 - y * y if nonlinearity == "tanh" else (y > 0).astype(y.dtype)
            dz[t] = (dh + dy[t]) * slope
            dh = ops.linear_backward_input(dz[t], w_hh)
        dx = ops.linear_backward_input(dz, w_ih).astype(x.dtype, copy=False) if wanted[0] else None
        dh0 = dh.astype(x.dtype, copy=False) if wanted[1] else None
        return (dx, dh0, *_parameter_gradients(wanted[2:], dz, dz, a, states[:-1], x.dtype))

    return states[1:].astype(x.dtype), pullback


@differentiable(_rnn_rule, wrt=("input", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh"))
def rnn(
    input: A,
    h0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    nonlinearity: str = "tanh",
) -> A:
    """One layer of a simple recurrent network in one direction.

    Parameters
    ----------
    input : array, shape (L, N, I)
        Steps, batch, features; float32, float64, float16 or bfloat16, the same for all arrays.
    h0 : array, shape (N, H)
        The state before the first step.
    weight_ih, weight_hh : array, shape (H, I) and (H, H)
    bias_ih, bias_hh : array, shape (H,), optional
    nonlinearity : {"tanh", "relu"}

    Returns
    -------
    array, shape (L, N, H)
        The state after each step, which is the output.

    Raises
    ------
    ValueError
        Shapes that do not fit, no step at all, or another `nonlinearity`.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Notes
    -----
    Elman 1990. 16-bit types are computed in float32.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.rnn(np.ones((5, 2, 3)), np.zeros((2, 4)), np.ones((4, 3)), np.ones((4, 4))).shape
    (5, 2, 4)
    """
    return apply(rnn, input, h0, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity)


@differentiable(_lstm_rule, wrt=("input", "h0", "c0", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"))
def lstm(
    input: A,
    h0: Array,
    c0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    weight_hr: Array | None = None,
) -> A:
    """One layer of long short-term memory in one direction.

    Parameters
    ----------
    input : array, shape (L, N, I)
        Steps, batch, features; float32, float64, float16 or bfloat16, the same for all arrays.
    h0, c0 : array, shape (N, H)
        The state before the first step.
    weight_ih, weight_hh : array, shape (4 * H, I) and (4 * H, H)
        Rows of the input gate, the forget gate, the cell and the output gate, as torch.nn.LSTM has them.
    bias_ih, bias_hh : array, shape (4 * H,), optional
    weight_hr : array, shape (P, H), optional
        Projects the output to P features; then `h0` is (N, P) and `weight_hh` (4 * H, P).

    Returns
    -------
    array, shape (2, L, N, H), or (L, N, P + H) with `weight_hr`
        The output h and the cell c after each step.

    Raises
    ------
    ValueError
        Shapes that do not fit, or no step at all.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Notes
    -----
    Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000; projections: Sak et al. 2014. 16-bit types
    are computed in float32.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> x, state = np.ones((5, 2, 3)), np.zeros((2, 4))
    >>> F.lstm(x, state, state, np.ones((16, 3)), np.ones((16, 4))).shape
    (2, 5, 2, 4)
    """
    return apply(lstm, input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)


@differentiable(_gru_rule, wrt=("input", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh"))
def gru(
    input: A,
    h0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
) -> A:
    """One layer of gated recurrent units in one direction.

    Parameters
    ----------
    input : array, shape (L, N, I)
        Steps, batch, features; float32, float64, float16 or bfloat16, the same for all arrays.
    h0 : array, shape (N, H)
        The state before the first step.
    weight_ih, weight_hh : array, shape (3 * H, I) and (3 * H, H)
        Rows of the reset gate, the update gate and the candidate, as torch.nn.GRU has them.
    bias_ih, bias_hh : array, shape (3 * H,), optional

    Returns
    -------
    array, shape (L, N, H)
        The state after each step, which is the output.

    Raises
    ------
    ValueError
        Shapes that do not fit, or no step at all.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Notes
    -----
    Cho et al. 2014; as in torch and cuDNN the reset gate works on the product of the state, not on the state.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> F.gru(np.ones((5, 2, 3)), np.zeros((2, 4)), np.ones((12, 3)), np.ones((12, 4))).shape
    (5, 2, 4)
    """
    return apply(gru, input, h0, weight_ih, weight_hh, bias_ih, bias_hh)
