"""Modules that hold parameters: ParameterList and ParameterDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Self

from fastconv.nn.modules.module import Module
from fastconv.tensor import Parameter, Tensor

__all__ = ["ParameterDict", "ParameterList"]


def _parameter(value: Any) -> Parameter:
    return value if isinstance(value, Parameter) else Parameter(value.data if isinstance(value, Tensor) else value)


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
        """Add several parameters at the end."""
        for value in list(values):
            self.append(value)
        return self

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


class ParameterDict(Module):
    """Parameters by names, which :meth:`Module.parameters` and ``state_dict`` find.

    Parameters
    ----------
    parameters : mapping of str to Parameter, Tensor or array, optional
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

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.update(parameters or {})

    def update(self, parameters: Mapping[str, Any]) -> None:
        """Add parameters, or replace those of the same names."""
        for name, value in parameters.items():
            self[name] = value

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._parameters.keys()

    def values(self) -> ValuesView[Any]:
        """The parameters."""
        return self._parameters.values()

    def items(self) -> Any:
        """Pairs of names and parameters."""
        return self._parameters.items()

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._parameters))

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def __getitem__(self, name: str) -> Any:
        return self._parameters[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.register_parameter(name, _parameter(value))

    def __delitem__(self, name: str) -> None:
        del self._parameters[name]
