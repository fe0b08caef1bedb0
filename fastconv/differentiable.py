"""What makes a function of arrays differentiable: its rule, its ``.vjp``, and what it does with Tensors.

A rule is ``rule(wanted, *arguments) -> (output, pullback)`` on plain NumPy arrays. `arguments` are all arguments of the
function in signature order; `wanted` has one bool for each name in `wrt`, and the pullback maps the gradient of the
(first) output to one gradient for each, None where it is not wanted. The decorator attaches ``.vjp`` and ``.spec`` to
the function and returns the function itself, so that a call with plain arrays costs nothing more than its own body:

    @differentiable(rule, wrt=("input", "weight"))
    def linear(input, weight):
        if type(input) is ndarray and type(weight) is ndarray:      # the common case, straight to the backend
            return backend.ops.linear_forward(input, weight)
        return apply(linear, input, weight)                         # Tensors, other libraries' arrays, mistakes
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import numpy as np

from .devices import array_module, guard, one_device
from .elements import is_floating
from .interop import like, to_array
from .tape import mode
from .tensor import Parameter, Tensor, record

Array = Any
"""An argument that may be a numpy.ndarray, an array with ``__dlpack__``, or a fastconv.Tensor."""

A = TypeVar("A")
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Spec(NamedTuple):
    """A differentiable function's rule and where its array arguments are."""

    rule: Callable[..., tuple[Any, Callable[[np.ndarray], tuple]]]
    names: tuple[str, ...]
    positional: int
    defaults: tuple[Any, ...]
    arrays: tuple[int, ...]
    wrt: tuple[int, ...]
    inplace: int | None


class Differentiable(Protocol[P, R_co]):
    """A function with its vector-Jacobian product."""

    spec: Spec
    vjp: Callable[..., tuple[Any, Callable[[Any], tuple]]]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


def differentiable(
    rule: Callable[..., Any], wrt: tuple[str, ...], buffers: tuple[str, ...] = ()
) -> Callable[[Callable[P, R_co]], Differentiable[P, R_co]]:
    """Decorator: give a function its `rule`; `buffers` are array arguments without a gradient."""

    def attach(function: Callable[P, R_co]) -> Differentiable[P, R_co]:
        code = function.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        target = cast(Any, function)
        target.spec = Spec(
            rule,
            names,
            code.co_argcount,
            _defaults_of(function),
            tuple(i for i, name in enumerate(names) if name in wrt or name in buffers),
            tuple(names.index(name) for name in wrt),
            names.index("inplace") if "inplace" in names else None,
        )
        target.vjp = _make_vjp(target)
        return target

    return attach


def _arrays_of(function: Any, values: list[Any]) -> bool:
    """Replace each array argument in `values` by the array that it stands for; whether these are CuPy's."""
    spec, on_device = function.spec, False
    for i in spec.arrays:
        value = values[i]
        if type(value) is not np.ndarray and value is not None:
            value = value.data if isinstance(value, Tensor) else value
            if type(value) is not np.ndarray:
                value = to_array(value, spec.names[i])
                on_device |= type(value) is not np.ndarray
            values[i] = value
    if on_device:
        one_device(function.__name__, ((spec.names[i], values[i]) for i in spec.arrays))
    return on_device


def _run(rule: Callable[..., Any], wanted: tuple[bool, ...], values: list[Any], of: Any) -> Any:
    """Output and pullback, both computed on the GPU of the array `of`."""
    with guard(of):
        output, pullback = rule(wanted, *values)

    def guarded(dy: Any) -> Any:
        with guard(dy):
            return pullback(dy)

    return output, guarded


def apply(function: Any, *arguments: Any) -> Any:
    """Call `function` with all its arguments in signature order: Tensors are recorded, arrays are not.

    A call is one of Tensors where its first argument is a Tensor or any other array argument is a Tensor that is no
    Parameter; then the result is a Tensor. Otherwise the result is an array of the first argument's library.
    """
    spec: Spec = function.spec
    values = list(arguments)
    first = values[spec.arrays[0]]
    if isinstance(first, Tensor) or any(
        isinstance(values[i], Tensor) and not isinstance(values[i], Parameter) for i in spec.arrays
    ):
        return _apply_to_tensors(function, values)
    nothing = (False,) * len(spec.wrt)
    if _arrays_of(function, values):
        output = _run(spec.rule, nothing, values, values[spec.arrays[0]])[0]
    else:
        output = spec.rule(nothing, *values)[0]
    if spec.inplace is not None and values[spec.inplace]:
        return first
    return output if type(first) is np.ndarray else like(output, first)


def _apply_to_tensors(function: Any, values: list[Any]) -> Any:
    spec: Spec = function.spec
    tensors = [values[i] if isinstance(values[i], Tensor) and values[i].requires_grad else None for i in spec.wrt]
    wanted = tuple(mode.enabled and tensor is not None for tensor in tensors)
    on_device = _arrays_of(function, values)
    if spec.inplace is not None:
        values[spec.inplace] = False  # a recorded value must stay what it was
    rule = spec.rule if mode.substitute is None else mode.substitute(spec)
    if on_device:
        output, pullback = _run(rule, wanted, values, values[spec.arrays[0]])
    else:
        output, pullback = rule(wanted, *values)
    y, *indices = output if isinstance(output, tuple) else (output,)
    result = record(y, tensors, pullback) if any(wanted) else Tensor(y)
    return (result, *map(Tensor, indices)) if indices else result


_REQUIRED = object()


def _defaults_of(function: Any) -> tuple[Any, ...]:
    """The default of each argument in signature order, `_REQUIRED` where there is none."""
    code, defaults = function.__code__, function.__defaults__ or ()
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    required = (_REQUIRED,) * (code.co_argcount - len(defaults))
    return (*required, *defaults, *((function.__kwdefaults__ or {}).get(name, _REQUIRED) for name in keywords))


def _bind(function: Any, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """All arguments of a call in signature order. (inspect.Signature.bind does the same ten times slower.)"""
    spec = function.spec
    if len(args) > spec.positional:
        raise TypeError(f"{function.__name__}.vjp takes {spec.positional} positional arguments, got {len(args)}")
    values = [*args, *spec.defaults[len(args) :]]
    for name, value in kwargs.items():
        if name not in spec.names:
            raise TypeError(f"{function.__name__}.vjp got an unexpected keyword argument {name!r}")
        i = spec.names.index(name)
        if i < len(args):
            raise TypeError(f"{function.__name__}.vjp got multiple values for argument {name!r}")
        values[i] = value
    for name, value in zip(spec.names, values):
        if value is _REQUIRED:
            raise TypeError(f"{function.__name__}.vjp is missing a required argument: {name!r}")
    return values


def _make_vjp(function: Any) -> Callable[..., tuple[Any, Callable[[Any], tuple]]]:
    def vjp(*args: Any, wrt: Any = None, **kwargs: Any) -> tuple[Any, Callable[[Any], tuple]]:
        spec = function.spec
        values = _bind(function, args, kwargs)
        first = values[spec.arrays[0]]
        on_device = _arrays_of(function, values)
        if spec.inplace is not None:
            values[spec.inplace] = False
        given = [spec.names[i] for i in spec.wrt if values[i] is not None and is_floating(values[i].dtype)]
        wanted_names = given if wrt is None else [wrt] if isinstance(wrt, str) else list(wrt)
        for name in wanted_names:
            if name not in given:
                raise ValueError(f"wrt must name arrays given among {', '.join(given)}; got {name!r}")
        wanted = tuple(spec.names[i] in wanted_names for i in spec.wrt)
        if on_device:
            output, rule_pullback = _run(spec.rule, wanted, values, values[spec.arrays[0]])
        else:
            output, rule_pullback = spec.rule(wanted, *values)
        y = output[0] if isinstance(output, tuple) else output
        shape, dtype = y.shape, y.dtype
        owner = first.data if isinstance(first, Tensor) else first

        def pullback(dy: Any) -> tuple:
            gradients = rule_pullback(_gradient_of(dy, shape, dtype, y))
            return tuple(like(g, owner) for g, is_wanted in zip(gradients, wanted) if is_wanted)

        return like(output, owner), pullback

    vjp.__name__ = "vjp"
    vjp.__qualname__ = f"{function.__name__}.vjp"
    vjp.__doc__ = (
        f"(output, pullback) of {function.__name__}: takes its arguments, and `wrt`, the names of those whose "
        "gradients are wanted (default: every differentiable array given). The pullback maps the gradient of the "
        "(first) output to a tuple with one gradient for each, in signature order, and may be called more than once."
    )
    return vjp


def _gradient_of(dy: Any, shape: tuple[int, ...], dtype: np.dtype, y: Any) -> np.ndarray:
    """`dy` as an array, checked against the output that it is the gradient of."""
    if isinstance(dy, Tensor):
        dy = dy.data
    elif isinstance(dy, np.generic) or (shape == () and isinstance(dy, int | float)):
        dy = array_module(y).asarray(dy, None if isinstance(dy, np.generic) else dtype)
    elif type(dy) is not np.ndarray:
        dy = to_array(dy, "dy")
    if type(dy) is not type(y):
        one_device("pullback", (("dy", dy), ("the output", y)))
    if dy.shape != shape:
        raise ValueError(f"dy must have the output's shape {shape}, got {dy.shape}")
    if dy.dtype != dtype:
        raise TypeError(f"dy must have the output's dtype {dtype}, got {dy.dtype}")
    return dy
