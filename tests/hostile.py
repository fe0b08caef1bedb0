"""Malformed calls and what they must do: give the right answer, or one error that names what is wrong.

``spoilt_rows`` makes them from a valid call of every backend function (``VALID``) by spoiling one argument at a time;
the calls that broke other libraries are in ``advisories``. ``test_hostile`` runs both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Row:
    """`call(backend)` must raise one of `errors` with one of `names` in its message, or give an array of `shape`.

    No `errors`: it must give a result. `shape` None: any result will do, where `errors` is not all there is to allow.
    """

    id: str
    call: Callable[[Any], Any]
    names: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    result: bool = False
    shape: tuple[int, ...] | None = None


BAD = ("ValueError", "TypeError")


def raises(id: str, call: Callable[[Any], Any], *names: str) -> Row:
    return Row(id, call, names, BAD)


def gives(id: str, call: Callable[[Any], Any], shape: tuple[int, ...]) -> Row:
    return Row(id, call, result=True, shape=shape)


def either(id: str, call: Callable[[Any], Any], *names: str, shape: tuple[int, ...] | None = None) -> Row:
    """An error, or the result where somebody may call the input valid."""
    return Row(id, call, names, (*BAD, "MemoryError"), True, shape)


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def i64(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int64)


# What messages may call an argument: its name in the functional API or in the backend's.
ALIASES = {
    "x": ("input", "x"),
    "w": ("weight", "w"),
    "b": ("bias", "b"),
    "first": ("arrays",),
    "second": ("arrays",),
    "stages": ("stages", "weight"),
    "dy": ("grad_output", "dy", "grad"),
    "x_shape": ("x_shape", "input", "input_shape"),
    "w_shape": ("w_shape", "weight", "weight_shape"),
    "kernel": ("kernel_size", "kernel"),
    "saved": ("saved", "indices"),
    "y": ("y", "output"),
}

# Every backend function: (argument, kind, value). Kinds: array, optional (array or None), stats (array written to),
# moment (array in the accumulator's type), index (int64 array), shape, ints (one or nd integers, at least 1), ints0 (at
# least 0), pads, int, bool, float, and "same" for what is not spoilt; "?" where None is a value too.
X, W, B = f32(2, 4, 6, 6), f32(6, 2, 3, 3), f32(6)
Y = f32(2, 6, 6, 6)
CONV = [("stride", "ints", 1), ("padding", "pads", 1), ("dilation", "ints", 1), ("groups", "int", 2), ("nd", "int", 2)]
TRANSPOSE = [
    ("stride", "ints", 2),
    ("padding", "ints0", 1),
    ("output_padding", "ints0", 1),
    ("groups", "int", 2),
    ("dilation", "ints", 1),
    ("nd", "int", 2),
]
POOL = [("kernel", "ints", 2), ("stride", "ints?", 2), ("padding", "ints0", 0)]
AVERAGE = [
    *POOL,
    ("ceil_mode", "bool", False),
    ("count_include_pad", "bool", True),
    ("divisor_override", "divisor?", None),
]
MAXIMUM = [*POOL, ("dilation", "ints", 1), ("ceil_mode", "bool", False), ("nd", "int", 2)]
POWER = [
    ("norm_type", "float", 2.0),
    ("kernel", "ints", 2),
    ("stride", "ints?", 2),
    ("ceil_mode", "bool", False),
    ("nd", "int", 2),
]
POOLED = f32(2, 4, 3, 3)
STATS = [("running_mean", "stats", f32(4)), ("running_var", "stats", np.abs(f32(4)))]
AFFINE = [("w", "optional", f32(4)), ("b", "optional", f32(4))]
MOMENTS = [("mean", "moment", f32(4)), ("invstd", "moment", f32(4))]

VALID: dict[str, list[tuple[str, str, Any]]] = {
    "conv_forward": [("x", "array", X), ("w", "array", W), ("b", "optional", B), *CONV],
    "conv_chain_forward": [
        ("x", "array", X),
        ("stages", "same", [(W, B, 1, 1, 1, 2, -1.0, 1.0), (f32(3, 6, 1, 1), None, 1, 0, 1, 1, -9.0, 9.0)]),
        ("nd", "int", 2),
        ("add", "optional", f32(2, 3, 6, 6)),
    ],
    "conv_backward_input": [("dy", "array", Y), ("w", "array", W), ("x_shape", "shape", X.shape), *CONV],
    "conv_backward_weight": [("dy", "array", Y), ("x", "array", X), ("w_shape", "shape", W.shape), *CONV],
    "conv_backward_bias": [("dy", "array", Y), ("nd", "int", 2)],
    "conv_transpose_forward": [
        ("x", "array", f32(2, 4, 3, 3)),
        ("w", "array", f32(4, 3, 3, 3)),
        ("b", "optional", B),
        *TRANSPOSE,
    ],
    "conv_transpose_backward_input": [
        ("dy", "array", Y),
        ("w", "array", f32(4, 3, 3, 3)),
        ("x_shape", "shape", (2, 4, 3, 3)),
        *TRANSPOSE,
    ],
    "conv_transpose_backward_weight": [
        ("dy", "array", Y),
        ("x", "array", f32(2, 4, 3, 3)),
        ("w_shape", "shape", (4, 3, 3, 3)),
        *TRANSPOSE,
    ],
    "max_pool_forward": [("x", "array", X), *MAXIMUM, ("indices", "same", "flat")],
    "max_pool_backward": [("dy", "array", POOLED), ("saved", "index", i64(2, 4, 3, 3)), ("x_shape", "shape", X.shape),
                          *MAXIMUM],
    "max_unpool_forward": [("x", "array", POOLED), ("indices", "index", i64(2, 4, 3, 3)),
                           ("output_size", "same", (6, 6)), ("nd", "int", 2)],
    "max_unpool_backward": [("dy", "array", X), ("indices", "gather", i64(2, 4, 3, 3)), ("nd", "int", 2)],
    "avg_pool_forward": [("x", "array", X), *AVERAGE, ("nd", "int", 2)],
    "avg_pool_backward": [("dy", "array", POOLED), ("x_shape", "shape", X.shape), *AVERAGE, ("nd", "int", 2)],
    "lp_pool_forward": [("x", "array", X), *POWER],
    "lp_pool_backward": [("dy", "array", POOLED), ("x", "array", X), ("y", "array", np.abs(POOLED)), *POWER],
    "adaptive_avg_pool_forward": [("x", "array", X), ("output_size", "ints0?", 3), ("nd", "int", 2)],
    "adaptive_avg_pool_backward": [("dy", "array", POOLED), ("x_shape", "shape", X.shape), ("nd", "int", 2)],
    "adaptive_max_pool_forward": [("x", "array", X), ("output_size", "ints0?", 3), ("nd", "int", 2),
                                  ("indices", "same", "flat")],
    "adaptive_max_pool_backward": [("dy", "array", POOLED), ("saved", "index", i64(2, 4, 3, 3)),
                                   ("x_shape", "shape", X.shape), ("nd", "int", 2)],
    "batch_norm_forward": [("x", "array", X), *AFFINE, *STATS, ("training", "bool", True), ("momentum", "float", 0.1),
                           ("eps", "float", 1e-5)],
    "batch_norm_backward": [("dy", "array", X), ("x", "array", X), AFFINE[0], *MOMENTS, ("training", "bool", True)],
    "batch_norm_relu_forward": [("x", "array", X), *AFFINE, *STATS, ("training", "bool", True),
                                ("momentum", "float", 0.1), ("eps", "float", 1e-5), ("residual", "optional", X),
                                ("max_val", "float", 6.0)],
    "batch_norm_relu_backward": [("dy", "array", X), ("x", "array", X), AFFINE[0], ("saved", "moment", f32(4, 4)),
                                 ("training", "bool", True), ("max_val", "float", 6.0)],
    "instance_norm_forward": [("x", "array", X), *AFFINE, *STATS, ("use_input_stats", "bool", True),
                              ("momentum", "float", 0.1), ("eps", "float", 1e-5)],
    "instance_norm_backward": [("dy", "array", X), ("x", "array", X), AFFINE[0], ("mean", "moment", f32(2, 4)),
                               ("invstd", "moment", f32(2, 4)), ("use_input_stats", "bool", True)],
    "local_response_norm_forward": [("x", "array", X), ("size", "int", 3), ("alpha", "float", 1e-4),
                                    ("beta", "float", 0.75), ("k", "float", 1.0)],
    "local_response_norm_backward": [("dy", "array", X), ("x", "array", X), ("size", "int", 3),
                                     ("alpha", "float", 1e-4), ("beta", "float", 0.75), ("k", "float", 1.0)],
    "linear_forward": [("x", "array", f32(3, 5)), ("w", "array", f32(4, 5)), ("b", "optional", f32(4))],
    "linear_backward_input": [("dy", "array", f32(3, 4)), ("w", "array", f32(4, 5))],
    "linear_backward_weight": [("dy", "array", f32(3, 4)), ("x", "array", f32(3, 5))],
    "linear_backward_bias": [("dy", "array", f32(3, 4))],
    "add_forward": [("x", "array", X), ("other", "array", X), ("inplace", "bool", False)],
    "layout_forward": [("x", "array", X), ("channels_last", "bool", True)],
    "cat_forward": [("dim", "same", 1), ("first", "array", X), ("second", "array", X)],
    "relu_forward": [("x", "array", X), ("inplace", "bool", False)],
    "relu_backward": [("dy", "array", X), ("y", "array", X)],
    "hardtanh_forward": [("x", "array", X), ("min_val", "float", -1.0), ("max_val", "float", 1.0)],
    "hardtanh_backward": [("dy", "array", X), ("x", "array", X), ("min_val", "float", -1.0), ("max_val", "float", 1.0)],
    "leaky_relu_forward": [("x", "array", X), ("negative_slope", "float", 0.1)],
    "leaky_relu_backward": [("dy", "array", X), ("x", "array", X), ("negative_slope", "float", 0.1)],
    "prelu_forward": [("x", "array", X), ("w", "array", f32(4))],
    "prelu_backward": [("dy", "array", X), ("x", "array", X), ("w", "array", f32(4))],
}  # fmt: skip

ARRAYS = ("array", "moment", "optional", "stats")

NOT_ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "int32": lambda a: a.astype(np.int32),
    "bool": lambda a: a > 0,
    "object": lambda a: a.astype(object),
    "complex": lambda a: a.astype(np.complex64),
    "big_endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "longdouble": lambda a: a.astype(np.longdouble),
    "text": lambda a: a.astype("U8"),
    "datetime": lambda a: np.zeros(a.shape, "M8[s]"),
    "list": lambda a: a.tolist(),
    "float": lambda a: 1.0,
    "string": lambda a: "input",
    "instance": lambda a: object(),
}
NOT_INTEGERS: list[Any] = [True, 1.0, 1.5, float("nan"), float("inf"), "1", b"1", 1j, object, {1: 2}, [1, 1.5],
                           [True, 1], np.float32(1), np.bool_(True), [None, "x"], [[1, 1, 1], [1]]]  # fmt: skip
WRONG_COUNTS: list[Any] = [[], (), [1, 1, 1], np.ones((0,), np.int64)]
HUGE = [2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**62, 2**63 - 1, 1879048192, 8608480567731124087]
BEYOND = [2**63, 2**64 + 1, 10**20, 10**40]


def name_of(value: Any) -> str:
    text = value.__name__ if isinstance(value, type) else repr(value)
    return text.replace(" ", "")


# What is done to one argument: (name, spoilt value, verdict). "wrong": wrong by itself, the message must name the
# argument; "clash": an error that may name any argument it contradicts; "open": an error or a result.
Change = tuple[str, Any, str]


def _spoil_array(kind: str, value: np.ndarray, alone: bool) -> Iterator[Change]:
    for what, spoil in NOT_ARRAYS.items():
        yield what, spoil(value), "wrong"
    if kind in ("array", "moment"):
        yield "None", None, "wrong"
    if not alone:
        if not os.environ.get("FASTCONV_TWO_TYPES"):  # see checks.DTYPES
            yield "float64", value.astype(np.float64), "open" if kind == "moment" else "clash"
        yield "0d", value.reshape(-1)[0].reshape(()), "clash"
    yield "rank9", value.reshape(value.shape + (1,) * (9 - value.ndim)), "open"
    for axis in range(value.ndim):
        yield f"empty{axis}", np.empty([0 if i == axis else n for i, n in enumerate(value.shape)], value.dtype), "open"
        if not alone:
            yield f"longer{axis}", np.repeat(value, 3, axis), "open"


def _spoil_index(kind: str, value: np.ndarray) -> Iterator[Change]:
    yield "float", value.astype(np.float32), "wrong"
    yield "None", None, "wrong"
    yield "list", value.tolist(), "wrong"
    yield "object", value.astype(object), "wrong"
    yield "big_endian", value.astype(">i8"), "wrong"
    yield "0d", np.zeros((), np.int64), "clash"
    for axis in range(value.ndim):
        # A gather takes any number of indices from a plane.
        gathers = kind == "gather" and axis >= 2
        yield f"longer{axis}", np.repeat(value, 3, axis), "open" if gathers else "clash"
    for number in (-1, -(2**63), 36, 2**31, 2**32, 2**63 - 1):
        spoilt = np.where(np.arange(value.size).reshape(value.shape) == 5, number, value)
        # -1 marks a window that lies in the padding.
        yield f"at{number}", spoilt, "open" if number == -1 else "wrong"


def _spoil_numbers(kind: str) -> Iterator[Change]:
    optional = kind.endswith("?")
    kind = kind.rstrip("?")
    if kind == "bool":
        for value in (None, "yes", 2, 1.0, [True], object):
            yield name_of(value), value, "open"
        return
    if kind == "float":
        for value in ("1", [1.0], object, 1j, np.ones(2)):
            yield name_of(value), value, "wrong"
        for value in (float("nan"), float("inf"), -float("inf"), 10**400, None, True):
            yield name_of(value)[:12], value, "open"
        return
    for value in NOT_INTEGERS:
        yield name_of(value), value, "wrong"
    if not optional:
        yield "None", None, "wrong"
    for value in (-1, -2, -(2**31), -(2**63)):
        yield name_of(value), value, "open" if kind == "divisor" else "wrong"
    if kind not in ("ints0", "pads"):
        yield "0", 0, "wrong"
    for value in BEYOND:
        yield f"{value:.0e}", value, "wrong"
    for value in HUGE:
        yield name_of(value), value, "open"
    if kind in ("int", "divisor"):
        for value in ([1], [], (1, 1)):
            yield name_of(value), value, "wrong"
    else:
        for value in WRONG_COUNTS:
            yield name_of(value), value, "wrong"
        for value in ((1, -1), (-(2**40), 1)):
            yield name_of(value), value, "wrong"
        # One entry for all dimensions: torch takes it.
        for value in ([1], (1, 2**40), (2**33, 2**33), np.array([1, 1], np.uint64)):
            yield name_of(value), value, "open"


def _spoil_shape(value: tuple[int, ...], any_size: bool) -> Iterator[Change]:
    for what in (None, 3, 1.5, "shape", [], (), value[:2], (*value, 1, 1), (True, *value[1:]), (2.0, *value[1:])):
        yield name_of(what), what, "wrong"
    for axis in range(len(value)):
        for size in (-1, -536870912, value[axis] + 1 + axis * 9, 2**31, 2**62, 2**63 - 1, 2**63, 10**30):
            spoilt = (*value[:axis], size, *value[axis + 1 :])
            fits = any_size and axis >= 2 and 0 < size < 2**63
            yield f"{size}at{axis}", spoilt, "open" if fits else "clash"
    yield "negative", (-536870912,) * len(value), "wrong"
    yield "huge", (1879048192,) * len(value), "clash"


def _spoilt(function: str) -> Iterator[Row]:
    arguments = VALID[function]
    alone = sum(kind in ARRAYS for _, kind, _ in arguments) == 1
    everyone = ("output", *(alias for name, _, _ in arguments for alias in ALIASES.get(name, (name,))))
    for position, (name, kind, value) in enumerate(arguments):
        if kind in ARRAYS:
            changes = _spoil_array(kind, value, alone)
        elif kind in ("index", "gather"):
            changes = _spoil_index(kind, value)
        elif kind == "shape":
            changes = _spoil_shape(value, any_size=function.startswith("adaptive"))
        elif kind == "same":
            continue
        else:
            changes = _spoil_numbers(kind)
        for what, spoilt, verdict in changes:

            def call(backend, function=function, position=position, spoilt=spoilt):
                values = [np.array(v) if k == "stats" else v for _, k, v in VALID[function]]
                values[position] = spoilt
                return getattr(backend, function)(*values)

            make = either if verdict == "open" else raises
            # People do not pass nd: where it is wrong, the ranks of the arrays are.
            names = ALIASES.get(name, (name,)) if verdict == "wrong" and name != "nd" else everyone
            yield make(f"{function}-{name}-{what}", call, *names)


def spoilt_rows() -> Iterator[Row]:
    """One row for each way to spoil each argument of each backend function."""
    for function in VALID:
        yield from _spoilt(function)
