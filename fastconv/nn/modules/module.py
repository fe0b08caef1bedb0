"""Module: the base class of all layers and networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from fastconv.devices import destination, is_array, to_device
from fastconv.nn.modules.arguments import floating_dtype, is_floating
from fastconv.nn.modules.calling import call_with_tensors, convert_leaves, holds_tensor, note_layer, plain
from fastconv.nn.modules.hooking import GradientWatch, Hooked, call_after, call_before
from fastconv.nn.modules.state import LoadResult, lazy_sizes, load_entries, writable_state
from fastconv.nn.modules.summary import Summary, summarize
from fastconv.tape import enable_grad
from fastconv.tensor import Parameter, Tensor, tensor

__all__ = ["Module", "format_module", "indent"]


class Module(Hooked):
    """Base class of layers and networks.

    A subclass calls ``super().__init__()`` first, then assigns parameters (:class:`~fastconv.nn.Parameter`), buffers
    (:meth:`register_buffer`) and other modules as attributes, which registers them, and defines ``forward``. Calling
    the module runs ``forward``: plain arrays in give plain arrays out and record nothing, a
    :class:`fastconv.Tensor` in records for ``backward``. The ``forward`` of a subclass sees Tensors in both cases, so
    that torch's methods (``x.view(x.size(0), -1)``) always work.

    Attributes
    ----------
    training : bool
        True after construction and :meth:`train`, False after :meth:`eval`.

    Notes
    -----
    Source: torch.nn.Module.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv as fc, fastconv.nn as nn, fastconv.nn.functional as F
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv = nn.Conv2d(1, 4, 3)
    ...         self.fc = nn.Linear(4 * 6 * 6, 10)
    ...
    ...     def forward(self, x):
    ...         x = F.relu(self.conv(x))
    ...         return self.fc(fc.flatten(x, 1))
    >>> net = Net()
    >>> net(np.zeros((2, 1, 8, 8), np.float32)).shape
    (2, 10)
    >>> list(net.state_dict())
    ['conv.weight', 'conv.bias', 'fc.weight', 'fc.bias']
    """

    training: bool
    _users_forward = False
    _only_takes = False  # whether forward does no more than take what was held for it (pending.py)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:
            # The layers of this package compute on arrays as they are, without the detour over Tensors.
            cls._users_forward = not cls.__module__.startswith("fastconv.")

    def __init__(self) -> None:
        set_attribute = super().__setattr__
        set_attribute("training", True)
        set_attribute("_parameters", {})
        set_attribute("_buffers", {})
        set_attribute("_transient_buffers", set())
        set_attribute("_modules", {})
        set_attribute("_forward_hooks", {})
        set_attribute("_forward_pre_hooks", {})
        set_attribute("_backward_hooks", {})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; every subclass defines its own."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run :meth:`forward`, before it the pre-hooks and after it the hooks, in the order of their registration."""
        try:
            if self._forward_pre_hooks:
                args, kwargs = call_before(self, args, kwargs)
            watch = GradientWatch(self) if self._backward_hooks else None
            if watch is not None:
                args = watch.enter(args)
            if self._users_forward and not (holds_tensor(args) or holds_tensor(kwargs)):
                output = call_with_tensors(self.forward, args, kwargs)
            else:
                output = self.forward(*args, **kwargs)
            if self._forward_hooks:
                output = call_after(self, args, kwargs, output)
            return output if watch is None else watch.leave(output)
        except (TypeError, ValueError) as error:
            note_layer(self, args, error)
            raise

    # ---- attributes ------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Called only where ordinary lookup fails. The dictionaries are read through __dict__, so that copying and
        # unpickling, which look attributes up before any exists, do not recurse.
        entries = self.__dict__
        for kind in ("_modules", "_parameters", "_buffers"):
            if kind in entries and name in entries[kind]:
                return entries[kind][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Parameter, Module)) and "_parameters" not in self.__dict__:
            raise AttributeError(f"call super().__init__() before assigning {name!r} to a {type(self).__name__}")
        if isinstance(value, Parameter):
            self._drop(name, keep="_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._drop(name, keep="_modules")
            self.add_module(name, value)
        elif name in self.__dict__.get("_parameters", ()):
            if value is not None:
                raise TypeError(f"parameter {name!r} must be a Parameter or None, got {type(value).__name__}")
            self._parameters[name] = None
        elif name in self.__dict__.get("_modules", ()):
            if value is not None:
                raise TypeError(f"module {name!r} must be a Module or None, got {type(value).__name__}")
            self._modules[name] = None
        elif name in self.__dict__.get("_buffers", ()):
            self._buffers[name] = _buffer_array(name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if not self._drop(name):
            super().__delattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _drop(self, name: str, keep: str = "") -> bool:
        """Forget what stands under `name`; a dictionary to `keep` stays as it is, and with it the order of its keys."""
        found = False
        for kind in ("_parameters", "_buffers", "_modules"):
            if kind != keep:
                found |= self.__dict__[kind].pop(name, self) is not self
        self._transient_buffers.discard(name)
        return self.__dict__.pop(name, self) is not self or found

    def _check_name(self, kind: str, name: Any, entries: Mapping[str, Any]) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"call super().__init__() before registering a {kind}")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name must be a string, got {name!r}")
        if name == "" or "." in name:
            raise ValueError(f"{kind} name must be neither empty nor contain a dot, got {name!r}")
        if name not in entries and hasattr(self, name):
            raise ValueError(f"{kind} name {name!r} is already an attribute of {type(self).__name__}")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under `name`; None reserves the name, which then appears in no listing.

        Raises
        ------
        TypeError
            `param` is neither a Parameter nor None, or `name` is no string.
        ValueError
            `name` is empty, contains a dot, or is taken.
        """
        self._check_name("parameter", name, self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"parameter {name!r} must be a Parameter or None, got {type(param).__name__}")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Add an array that is state but not trained, such as a running mean.

        Parameters
        ----------
        name : str
            Attribute name and key in :meth:`state_dict`.
        tensor : array, Tensor or None
            Kept as a plain array, without a copy; None reserves the name.
        persistent : bool
            Whether the buffer belongs to :meth:`state_dict`.
        """
        self._check_name("buffer", name, self._buffers)
        self._buffers[name] = _buffer_array(name, tensor)
        if persistent:
            self._transient_buffers.discard(name)
        else:
            self._transient_buffers.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under `name`, as an attribute assignment does."""
        self._check_name("module", name, self._modules)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module {name!r} must be a Module or None, got {type(module).__name__}")
        self._modules[name] = module

    register_module = add_module

    def get_submodule(self, target: str) -> Module:
        """The module below this one with the dotted name `target`; "" is this one. AttributeError where none is.

        Examples
        --------
        >>> import fastconv.nn as nn
        >>> nn.Sequential(nn.Sequential(nn.ReLU())).get_submodule("0.0")
        ReLU()
        """
        module = self
        for name in filter(None, target.split(".")):
            if name not in module._modules or module._modules[name] is None:
                raise AttributeError(f"{type(self).__name__} has no module {target!r}: nothing is named {name!r}")
            module = module._modules[name]
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put `module` where `target`, a dotted name, stands; with `strict` only in the place of another one.

        AttributeError where a module on the way, with `strict` the last one, too, is missing; ValueError for no module.
        """
        path, _, name = target.rpartition(".")
        if not name or not isinstance(module, Module):
            raise ValueError(f"set_submodule takes a name and a Module, got {target!r} and {type(module).__name__}")
        parent = self.get_submodule(path)
        if strict and parent._modules.get(name) is None:
            raise AttributeError(f"{type(self).__name__} has no module {target!r}")
        if name in parent._modules:
            parent._modules[name] = module
        else:
            parent.add_module(name, module)

    def _get_entry(self, kind: str, word: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        value = getattr(self.get_submodule(path), kind).get(name)
        if value is None:
            raise AttributeError(f"{type(self).__name__} has no {word} {target!r}")
        return value

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with the dotted name `target`; AttributeError where there is none."""
        return self._get_entry("_parameters", "parameter", target)

    def get_buffer(self, target: str) -> Any:
        """The buffer with the dotted name `target`; AttributeError where there is none."""
        return self._get_entry("_buffers", "buffer", target)

    # ---- listings --------------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children with their names, each module once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct children, each once."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[int] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module (under the name `prefix`) and all modules below it with their dotted names, parents first."""
        memo = set() if memo is None else memo
        if id(self) in memo:
            return
        if remove_duplicate:
            memo.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, _join(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all modules below it, parents first, each once."""
        return (module for _, module in self.named_modules())

    def _named_entries(self, kind: str, prefix: str, recurse: bool, once: bool) -> Iterator[tuple[str, Any]]:
        seen = set()
        owners = self.named_modules(prefix=prefix, remove_duplicate=once) if recurse else ((prefix, self),)
        for path, module in owners:
            for name, value in getattr(module, kind).items():
                if value is not None and not (once and id(value) in seen):
                    seen.add(id(value))
                    yield _join(path, name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their dotted names; shared ones once unless `remove_duplicate` is False."""
        return self._named_entries("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once: what an optimiser takes."""
        return (value for _, value in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """The buffers (plain arrays) with their dotted names."""
        return self._named_entries("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Any]:
        """The buffers (plain arrays), each once."""
        return (value for _, value in self.named_buffers(recurse=recurse))

    # ---- modes and conversions -------------------------------------------------------------------------------------

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module below this one, then on this one (for initialisation, mostly)."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set training (or, with False, evaluation) mode here and below: dropout and normalisation depend on it."""
        if not isinstance(mode, bool):
            raise ValueError(f"mode must be True or False, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode here and below."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether the parameters collect gradients; False freezes them."""
        for parameter in self.parameters():
            parameter.requires_grad = bool(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters, or with ``set_to_none=False`` fill them with zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = np.zeros_like(parameter.grad)

    def to(self, *args: Any, device: Any = None, dtype: Any = None) -> Self:
        """Move parameters, gradients and buffers to `device`, convert the floating ones to `dtype`, in this module.

        Takes a device (``"cpu"``, ``"cuda"``, ``"cuda:N"`` or N), a dtype, both in this order, or a Tensor for its own.
        The parameters stay the same objects: an optimiser goes on with them, its moments follow at its next step.

        Raises
        ------
        TypeError, ValueError, NotImplementedError
            Any other dtype; no such device; CuPy arrays cannot be computed here. Nothing is converted then.

        Examples
        --------
        >>> import numpy as np
        >>> import fastconv.nn as nn
        >>> nn.Linear(2, 3).to("cpu", np.float64).weight.dtype
        dtype('float64')
        """
        place, kind = destination(args, device, dtype)
        if place is None and kind is None:
            return self  # as most constructors ask for
        target = None if kind is None else floating_dtype(kind)

        def convert(array: Any) -> Any:
            moved = array if place is None or array is None else to_device(array, place)
            return (
                moved
                if moved is None or target is None or not is_floating(moved.dtype)
                else moved.astype(target, copy=False)
            )

        for module in self.modules():
            for parameter in module._parameters.values():
                if parameter is not None:
                    parameter.data, parameter.grad = convert(parameter.data), convert(parameter.grad)
            module._buffers.update({name: convert(buffer) for name, buffer in module._buffers.items()})
        return self

    def cuda(self, device: Any = None) -> Self:
        """Move to GPU `device`, by default CuPy's current one; see :meth:`to`."""
        return self.to("cuda" if device is None else device)

    def cpu(self) -> Self:
        """Move to the host's memory; see :meth:`to`."""
        return self.to("cpu")

    def float(self) -> Self:
        """Convert to float32; see :meth:`to`."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Convert to float64; see :meth:`to`."""
        return self.to(np.float64)

    def half(self) -> Self:
        """Convert to float16; see :meth:`to`."""
        return self.to(np.float16)

    def bfloat16(self) -> Self:
        """Convert to bfloat16, which needs the package ml_dtypes; see :meth:`to`."""
        return self.to("bfloat16")

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self, *, prefix: str = "") -> OrderedDict[str, Any]:
        """Parameters and persistent buffers under torch's keys, as plain arrays that share the module's memory.

        Copy the values (``{k: v.copy() for k, v in net.state_dict().items()}``) to keep a state while training goes on.

        Examples
        --------
        >>> import fastconv.nn as nn
        >>> [(name, value.shape) for name, value in nn.Conv2d(3, 8, 5).state_dict().items()]
        [('weight', (8, 3, 5, 5)), ('bias', (8,))]
        """
        entries: OrderedDict[str, Any] = OrderedDict()
        for path, module in self.named_modules(prefix=prefix.removesuffix("."), remove_duplicate=False):
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    entries[_join(path, name)] = parameter.data
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._transient_buffers:
                    entries[_join(path, name)] = buffer
        return entries

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy values into the parameters and buffers, all of them or none.

        Parameters
        ----------
        state_dict : mapping of str to array
            Arrays, Tensors, torch tensors, or anything NumPy can read. Floating values are converted to the dtype of
            the entry they go to.
        strict : bool
            Whether missing and unexpected keys are errors. Misshapen values always are.

        Returns
        -------
        LoadResult
            Named tuple ``(missing_keys, unexpected_keys)``, both empty where `strict`.

        Raises
        ------
        ValueError
            One error that lists every problem: missing, unexpected, misshapen, or of the wrong kind (integers for a
            weight, objects, complex numbers). The module is unchanged then.
        TypeError
            `state_dict` is no mapping.

        Examples
        --------
        >>> import numpy as np
        >>> import fastconv.nn as nn
        >>> layer = nn.Linear(2, 1)
        >>> layer.load_state_dict({"weight": np.ones((1, 2), np.float32), "bias": np.zeros(1, np.float32)})
        <All keys matched successfully>
        >>> layer.load_state_dict({"weight": np.ones((1, 3), np.float32)})
        Traceback (most recent call last):
            ...
        ValueError: cannot load this state into Linear, which is unchanged; 2 problems:
          missing key 'bias'
          'weight' has shape (1, 3), the module needs (1, 2)
        """
        with lazy_sizes(self, state_dict):
            return load_entries(type(self).__name__, writable_state(self), state_dict, strict)

    def vjp(self, *inputs: Any) -> tuple[Any, Callable[[Any], Any]]:
        """The output, and the pullback that maps its gradient to the gradient of the input.

        Parameters
        ----------
        *inputs : array
            What :meth:`forward` takes; those that are no floating arrays (classes, indices) get no gradient.

        Returns
        -------
        y : array
            The output.
        pullback : callable
            ``pullback(dy)`` returns ``dx`` (a tuple where more than one input is floating) and adds the gradients of
            the parameters to their ``grad``. It may be called more than once.

        Examples
        --------
        >>> import numpy as np
        >>> import fastconv.nn as nn
        >>> layer = nn.Linear(3, 2)
        >>> y, pullback = layer.vjp(np.ones((4, 3), np.float32))
        >>> dx = pullback(np.ones_like(y))
        >>> dx.shape, layer.weight.grad.shape
        ((4, 3), (2, 3))
        """
        arguments = [_leaf(x) for x in inputs]
        leaves = [x for x in arguments if isinstance(x, Tensor)]
        with enable_grad():
            output = self(*arguments)
        first = output[0] if isinstance(output, tuple) else output

        def pullback(dy: Any) -> Any:
            for leaf in leaves:
                leaf.grad = None
            if isinstance(first, Tensor) and first.requires_grad:
                first.backward(dy, retain_graph=True)
            gradients = tuple(np.zeros_like(leaf.data) if leaf.grad is None else leaf.grad for leaf in leaves)
            return gradients[0] if len(gradients) == 1 else gradients

        return convert_leaves(plain, output), pullback

    def summary(self, input_shape: Any, dtype: Any = None) -> Summary:
        """A printable table of the layers, their output shapes and parameter counts.

        Parameters
        ----------
        input_shape : tuple of int, or sequence of them
            Shape of the input with its batch dimension, such as ``(1, 3, 224, 224)``; of several inputs one each.
        dtype : dtype-like, optional
            Of the inputs; by default that of the first parameter, else float32.

        Returns
        -------
        Summary
            Prints as a table; its ``rows`` and ``parameters`` can be read.

        Notes
        -----
        Runs one forward pass over zeros in evaluation mode; modes, buffers and gradients are left as they were.

        Examples
        --------
        >>> import fastconv.nn as nn
        >>> print(nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)).summary((1, 1, 28, 28)))
        Layer          Output shape    Parameters
        -----------------------------------------
        0 (Conv2d)     (1, 6, 24, 24)         156
        1 (ReLU)       (1, 6, 24, 24)           0
        2 (MaxPool2d)  (1, 6, 12, 12)           0
        -----------------------------------------
        156 parameters, 156 of them trainable
        """
        return summarize(self, input_shape, dtype)

    # ---- printing --------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the parentheses of ``repr``; layers show their arguments here."""
        return ""

    def _get_name(self) -> str:
        """What the layer is called where it is printed, by torch's name."""
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = [f"({name}): {indent(repr(module))}" for name, module in self._modules.items()]
        return format_module(self._get_name(), extra, lines)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _leaf(value: Any) -> Any:
    """A new leaf of the tape for a floating array, other arguments as they are."""
    value = plain(value)
    if hasattr(value, "dtype") and hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        value = tensor(value).data
    return Tensor(value, requires_grad=True) if is_array(value) and is_floating(value.dtype) else value


def _buffer_array(name: str, value: Any) -> Any:
    value = plain(value)
    if value is not None and not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise TypeError(f"buffer {name!r} must be an array or None, got {type(value).__name__}")
    return np.asarray(value) if isinstance(value, np.generic) else value


def indent(text: str) -> str:
    """`text` as it stands inside the parentheses of an outer module's repr."""
    return text.replace("\n", "\n  ")


def format_module(name: str, extra: str, lines: list[str]) -> str:
    """The repr of a module: its arguments, then one line per child, as torch prints them."""
    if not lines:
        return f"{name}({extra})"
    return "\n  ".join([f"{name}(", *([extra] if extra else []), *lines]) + "\n)"
