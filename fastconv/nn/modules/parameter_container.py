"""Modules that hold parameters: ParameterList and ParameterDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from fastconv.devices import is_array
from fastconv.nn.modules.container import Named
from fastconv.nn.modules.module import Module, format_module
from fastconv.tensor import Parameter, Tensor

__all__ = ["ParameterDict", "ParameterList"]


def _parameter(value: Any) -> Parameter:
    return value if isinstance(value, Parameter) else Parameter(value.data if isinstance(value, Tensor) else value)


def _listed(module: Module) -> str:
    """A module that holds parameters alone, a line for each."""
    lines = [
        f"({name}): Parameter containing: [{p.dtype} of size {'x'.join(map(str, p.shape))}]"
        for name, p in module.named_parameters()
    ]
    return format_module(module._get_name(), "", lines)


class ParameterList(Module):
    """A list of parameters, which :meth:`Module.parameters` and ``state_dict`` find.

    Parameters
    ----------
    values : iterable of Parameter, Tensor or array, optional
        What is no Parameter becomes one.

    Raises
    ------
    TypeError
        A value is no floating array.

    Notes
    -----
    Source: torch.nn.ParameterList.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> scales = nn.ParameterList([np.ones(2, np.float32), np.zeros(3, np.float32)])
    >>> len(scales), list(scales.state_dict())
    (2, ['0', '1'])
    """

    def __init__(self, values: Iterable[Any] = ()) -> None:
        super().__init__()
        self.extend(values)

    def append(self, value: Any) -> Self:
        """Add a parameter at the end."""
        self.register_parameter(str(len(self)), _parameter(value))
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Add several parameters at the end, all of them or none."""
        if isinstance(values, Tensor) or is_array(values) or not isinstance(values, Iterable):
            raise TypeError(f"values must be an iterable of parameters, got {type(values).__name__}")
        for parameter in [_parameter(value) for value in values]:
            self.append(parameter)
        return self

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self.extend(values)

    def _name(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} parameters")
        return str(index % len(self))

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._parameters.values()))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._parameters[self._name(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        self._parameters[self._name(index)] = _parameter(value)

    def __repr__(self) -> str:
        return _listed(self)


class ParameterDict(Named):
    """Parameters by names, which :meth:`Module.parameters` and ``state_dict`` find.

    Parameters
    ----------
    parameters : mapping of str to Parameter, Tensor or array, or iterable of such pairs, optional
        What is no Parameter becomes one.

    Raises
    ------
    TypeError, ValueError
        A value is no floating array, or a name is none that a parameter may have.

    Notes
    -----
    Source: torch.nn.ParameterDict.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> scales = nn.ParameterDict({"left": np.ones(2, np.float32)})
    >>> scales["right"] = np.zeros(3, np.float32)
    >>> list(scales.keys()), "left" in scales
    (['left', 'right'], True)
    """

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self.update({} if parameters is None else parameters)

    @property
    def _entries(self) -> dict[str, Any]:
        return self._parameters

    def __setitem__(self, name: str, value: Any) -> None:
        self.register_parameter(name, _parameter(value))

    def __reversed__(self) -> Iterator[str]:
        return reversed(tuple(self._parameters))

    def __or__(self, other: Any) -> ParameterDict:
        union = self.copy()
        union |= other
        return union

    def __ror__(self, other: Any) -> ParameterDict:
        union = ParameterDict(other)
        union |= self
        return union

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def copy(self) -> ParameterDict:
        """Another dictionary of the same parameters."""
        return ParameterDict(self)

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """Another dictionary, with `default` under all these names."""
        return ParameterDict((key, default) for key in keys)

    def get(self, key: str, default: Any = None) -> Any:
        """The parameter of this name, or `default`."""
        return self._parameters.get(key, default)

    def popitem(self) -> tuple[str, Any]:
        """Take the last entry out and return it with its name."""
        return self._parameters.popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The parameter of this name, which becomes `default` where there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def __repr__(self) -> str:
        return _listed(self)
