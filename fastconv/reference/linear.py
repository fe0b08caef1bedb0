"""The fully connected layer. Source: torch.nn.functional.linear, ONNX Gemm."""

from __future__ import annotations

import math

import numpy as np

from . import checks


def _features(shape: tuple[int, ...], w: np.ndarray) -> None:
    checks.rank("weight", w, (1, 2))
    if not shape or shape[-1] != w.shape[-1]:
        raise ValueError(f"input has shape {shape}: its last dimension must be weight.shape[-1] = {w.shape[-1]}")


@np.errstate(all="ignore")
def linear_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """x (*, I) times w (O, I) transposed plus b (O,), giving (*, O); with w (I,) and b () giving (*).

    >>> linear_forward(np.array([1.0, 2.0]), np.array([[3.0, 4.0]]), np.array([0.5]))
    array([11.5])
    """
    x = checks.array("input", x)
    w = checks.array("weight", w, (x.dtype,))
    b = checks.optional_array("bias", b, (x.dtype,))
    _features(x.shape, w)
    if b is not None:
        checks.same_shape("bias", b, w.shape[:-1], "one value for each output feature")
    checks.size_limit("output", x.shape[:-1] + w.shape[:-1])
    y = np.asarray(checks.wide(x) @ checks.wide(w).T)
    return checks.rounded(y if b is None else np.asarray(y + checks.wide(b)), x.dtype)


@np.errstate(all="ignore")
def linear_backward_input(dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """dy (*, O) times w (O, I), giving (*, I); with w (I,): dy (*) times w."""
    dy = checks.array("grad_output", dy)
    w = checks.array("weight", w, (dy.dtype,))
    checks.rank("weight", w, (1, 2))
    if w.ndim == 1:
        return checks.rounded(checks.wide(dy)[..., None] * checks.wide(w), dy.dtype)
    if not dy.ndim or dy.shape[-1] != w.shape[0]:
        raise ValueError(f"grad_output has shape {dy.shape}: its last dimension must be weight.shape[0] = {w.shape[0]}")
    checks.size_limit("input", dy.shape[:-1] + w.shape[1:])
    return checks.rounded(checks.wide(dy) @ checks.wide(w), dy.dtype)


@np.errstate(all="ignore")
def linear_backward_weight(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dy (*, O) and x (*, I) summed over * to (O, I); dy (*) and x (*, I) to (I,)."""
    x = checks.array("input", x)
    dy = checks.array("grad_output", dy, (x.dtype,))
    if not x.ndim or dy.ndim not in (x.ndim - 1, x.ndim) or dy.shape[: x.ndim - 1] != x.shape[:-1]:
        raise ValueError(f"grad_output has shape {dy.shape}: must be that of the output for input {x.shape}")
    outputs = dy.shape[x.ndim - 1 :]
    checks.size_limit("weight", (*outputs, x.shape[-1]))
    rows = checks.wide(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return checks.rounded(checks.wide(dy).reshape(rows.shape[0], *outputs).T @ rows, x.dtype)


@np.errstate(all="ignore")
def linear_backward_bias(dy: np.ndarray) -> np.ndarray:
    """dy (*, O) summed over * to (O,)."""
    dy = checks.array("grad_output", dy)
    if not dy.ndim:
        raise ValueError("grad_output has shape (): must have at least one dimension, (*, O)")
    return checks.rounded(checks.wide(dy).sum(axis=tuple(range(dy.ndim - 1))), dy.dtype)
