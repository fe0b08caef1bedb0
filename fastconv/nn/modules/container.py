"""Modules that hold other modules: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Self

from fastconv.nn.modules.arguments import size
from fastconv.nn.modules.module import Module, format_module, indent
from fastconv.nn.modules.norm_relu import LEADERS, fuses, is_untouched, norm_relu, pools_first
from fastconv.nn.modules.pending import Held

__all__ = ["ModuleDict", "ModuleList", "Sequential"]


def _checked(module: Any) -> Module:
    if not isinstance(module, Module):
        hint = ": give its entries one by one, with a star before it" if isinstance(module, list | tuple) else ""
        raise TypeError(f"module must be a Module, got {type(module).__name__}{hint}")
    return module


class _Numbered(Module):
    """What Sequential and ModuleList share: children in an order, named by their positions."""

    def _key(self, index: int) -> str:
        """The name of the child at `index`, which counts from the end where it is negative."""
        keys = list(self._modules)
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise TypeError(f"index must be an integer or a slice, got {index!r}")
        position = index.__index__()
        if not -len(keys) <= position < len(keys):
            raise IndexError(f"index {position} is out of range for {len(keys)} modules")
        return keys[position]

    def _renumber(self, modules: Iterable[Module]) -> None:
        replacement = {str(i): module for i, module in enumerate(modules)}
        self._modules.clear()
        self._modules.update(replacement)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(self._modules.values()))

    def __getitem__(self, index: Any) -> Any:
        return self._modules[self._key(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        self._modules[self._key(index)] = _checked(module)

    def __delitem__(self, index: int | slice) -> None:
        keys = list(self._modules)
        doomed = set(keys[index] if isinstance(index, slice) else [self._key(index)])
        self._renumber(module for key, module in self._modules.items() if key not in doomed)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        return self.extend([module])

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end, all of them or none."""
        checked = [_checked(module) for module in modules]
        for module in checked:
            self.add_module(str(len(self._modules)), module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Add a module before position `index`; the later ones are numbered anew."""
        modules = list(self._modules.values())
        if not -len(modules) <= index <= len(modules):
            raise IndexError(f"index {index} is out of range for {len(modules)} modules")
        modules.insert(index, _checked(module))
        self._renumber(modules)
        return self

    def pop(self, index: int = -1) -> Module:
        """Take a module out and return it; the later ones are numbered anew."""
        module = self[index]
        del self[index]
        return module


class Named(Module):
    """What ModuleDict and ParameterDict share: entries with names, in an order."""

    @property
    def _entries(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} holds nothing")

    def __setitem__(self, key: str, value: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__} holds nothing")

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __delitem__(self, key: str) -> None:
        del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._entries))

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._entries.keys()

    def values(self) -> ValuesView[Any]:
        """The entries without their names."""
        return self._entries.values()

    def items(self) -> ItemsView[str, Any]:
        """Pairs of names and entries."""
        return self._entries.items()

    def update(self, entries: Any) -> None:
        """Add entries, or replace those of the same names, from a mapping, its like, or pairs."""
        pairs = entries.items() if isinstance(entries, Mapping | Named) else entries
        if not isinstance(pairs, Iterable):
            raise TypeError(f"entries must be a mapping or an iterable of pairs, got {type(entries).__name__}")
        for i, pair in enumerate(pairs):
            if not isinstance(pair, Iterable) or len(taken := tuple(pair)) != 2:
                raise ValueError(f"entries must hold pairs of a name and a value, got {pair!r} at {i}")
            self[taken[0]] = taken[1]

    def pop(self, key: str) -> Any:
        """Take an entry out and return it."""
        return self._entries.pop(key)

    def clear(self) -> None:
        """Take all entries out."""
        self._entries.clear()


class Sequential(_Numbered):
    """Modules that are applied one after another.

    Parameters
    ----------
    *args : Module, or one OrderedDict of str to Module
        The layers; a dictionary names them, otherwise their positions do.

    Raises
    ------
    TypeError
        An argument is no Module.

    Notes
    -----
    Integers and slices index it; a slice is a Sequential that shares the layers, and so are ``a + b`` and ``a * 2``.
    Source: torch.nn.Sequential.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> net = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10))
    >>> net(np.zeros((3, 1, 8, 8), np.float32)).shape
    (3, 10)
    >>> net[:2]
    Sequential(
      (0): Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))
      (1): ReLU()
    )
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        named = args[0].items() if len(args) == 1 and isinstance(args[0], Mapping) else enumerate(args)
        for name, module in named:
            self.add_module(name if isinstance(name, str) else str(name), _checked(module))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def __add__(self, other: Any) -> Sequential:
        return Sequential(*self, *other) if isinstance(other, Sequential) else NotImplemented

    def __iadd__(self, other: Any) -> Self:
        return self.extend(other) if isinstance(other, Sequential) else NotImplemented

    def __mul__(self, times: Any) -> Sequential:
        return Sequential(*self._repeated(times))

    __rmul__ = __mul__

    def __imul__(self, times: Any) -> Self:
        self._renumber(self._repeated(times))
        return self

    def _repeated(self, times: Any) -> list[Module]:
        return list(self) * size("times", times, 1)

    def forward(self, input: Any) -> Any:
        """Apply the layers in order; where nobody can tell, batch normalisation in training and the ReLU behind it as
        one operation, and max-pooling before the ReLU that it follows.
        """
        modules = tuple(self._modules.values())
        i = 0
        while i < len(modules):
            module = modules[i]
            i += 1
            if type(input) is Held and module is input.takers[0] and module._only_takes and is_untouched(module):
                input = input.taken_by(module)  # what calling it would do
                continue
            following = modules[i] if type(module) in LEADERS and i < len(modules) else None
            if following is not None and fuses(module, following):
                input = norm_relu(module, following, input)
                i += 1
            elif following is not None and pools_first(module, following):
                input = module(following(input))
                i += 1
            else:
                input = module(input)
        return input


class ModuleList(_Numbered):
    """A list of modules whose parameters are found; it has no forward of its own.

    Parameters
    ----------
    modules : iterable of Module, optional
        The first entries.

    Raises
    ------
    TypeError
        An entry is no Module.

    Notes
    -----
    Source: torch.nn.ModuleList.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    >>> layers
    ModuleList(
      (0-2): 3 x Linear(in_features=4, out_features=4, bias=True)
    )
    >>> len(list(layers.parameters()))
    6
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(() if modules is None else modules)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ModuleList(list(self._modules.values())[index])
        return super().__getitem__(index)

    def __add__(self, modules: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *modules])

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __repr__(self) -> str:
        # As torch prints it: runs of equal entries as one line with their count.
        runs: list[tuple[int, int, str]] = []
        for i, module in enumerate(self._modules.values()):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], i, text)
            else:
                runs.append((i, i, text))
        lines = [
            f"({first}): {indent(text)}" if first == last else f"({first}-{last}): {last - first + 1} x {indent(text)}"
            for first, last, text in runs
        ]
        return format_module(self._get_name(), "", lines)


class ModuleDict(Named):
    """A dictionary of modules whose parameters are found; it has no forward of its own.

    Parameters
    ----------
    modules : mapping of str to Module, or iterable of such pairs, optional
        The first entries.

    Raises
    ------
    TypeError
        A value is no Module, or a key no string.
    ValueError
        A key is empty, contains a dot, or is an attribute of the class.

    Notes
    -----
    Source: torch.nn.ModuleDict.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> heads = nn.ModuleDict({"boxes": nn.Linear(8, 4), "classes": nn.Linear(8, 10)})
    >>> heads["boxes"].out_features, list(heads)
    (4, ['boxes', 'classes'])
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        self.update({} if modules is None else modules)

    @property
    def _entries(self) -> dict[str, Any]:
        return self._modules

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, _checked(module))
