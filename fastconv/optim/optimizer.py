"""`Optimizer`: parameter groups, the walk over them, and the state that goes into a checkpoint."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any, cast

import numpy as np

from ..cuda import is_device_array
from ..devices import as_array, device_of, guard, is_array, is_writable, one_device, thaw, to_device
from ..nn.modules.state import host_array
from ..tensor import Parameter, Tensor
from .threads import run_together

Options = dict[str, Any]

__all__ = ["Optimizer", "check_pair", "check_range"]

# Elements of a block: three float32 arrays of this size fit a second-level cache of 2 MB. SGD with momentum took 25
# million parameters on one and two threads of a Zen 4 (1 MB of that cache each) 33 and 22 ms in blocks of 1 << 16, and
# 29 and 17 ms in these.
_BLOCK = 1 << 17
_WORTH_A_THREAD = 1 << 17


class Optimizer:
    """Base class: parameter groups, ``zero_grad``, ``step`` and the state that goes into a checkpoint.

    Parameters
    ----------
    params : iterable of Parameter, of (name, Parameter) pairs, or of dict
        The parameters, or groups of them: ``{"params": [...], "lr": ...}`` with options of their own.
    defaults : dict
        Options of the groups that do not name them.

    Attributes
    ----------
    param_groups : list of dict
        Options may be changed between steps: ``optimizer.param_groups[0]["lr"] *= 0.1``.
    state : dict of Parameter to dict
        Moments of the parameters that have taken a step.

    Raises
    ------
    ValueError
        No parameters, one that stands in two places, or an option outside its range.
    TypeError
        An entry is no floating Tensor, or an option is unknown.

    Notes
    -----
    Source: torch.optim.Optimizer.

    Examples
    --------
    >>> import fastconv.nn as nn, fastconv.optim as optim
    >>> net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    >>> groups = [{"params": net[0].parameters()}, {"params": net[1].parameters(), "lr": 0.01}]
    >>> [group["lr"] for group in optim.SGD(groups, lr=0.1).param_groups]
    [0.1, 0.01]
    """

    # For an entry of state_dict()["state"]: which names it may have, and whether each is a count, another number or
    # like the parameter.
    _counts: tuple[str, ...] = ()
    _factors: tuple[str, ...] = ()
    _arrays: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, Options] = {}
        if isinstance(params, (Tensor, str)) or not isinstance(params, Iterable):
            raise TypeError(f"params must be an iterable of parameters or groups, got {type(params).__name__}")
        if isinstance(params, set | frozenset):
            params = [{"params": params}]
        entries = list(params)
        if not entries:
            raise ValueError("params must hold at least one parameter, got none")
        groups = entries if isinstance(entries[0], Mapping) else [{"params": entries}]
        for group in groups:
            self.add_param_group(group)

    def _check_options(self, group: Mapping[str, Any]) -> None:
        """Raise where an option of `group` lies outside its range."""
        raise NotImplementedError(f"{type(self).__name__} defines no _check_options")

    def _update(
        self, parameter: np.ndarray, gradient: np.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Change `parameter` in place by one step."""
        raise NotImplementedError(f"{type(self).__name__} defines no _update")

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own, such as layers that thaw later.

        Parameters
        ----------
        param_group : mapping
            ``"params"`` (a Parameter or an iterable of them) and any of the optimiser's options.
        """
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError(f"param_group must be a mapping with the key 'params', got {param_group!r}")
        unknown = sorted(set(param_group) - set(self.defaults) - {"params"})
        if unknown:
            raise TypeError(
                f"param_group has unknown options {unknown}; {type(self).__name__} has {list(self.defaults)}"
            )
        given = param_group["params"]
        if isinstance(given, set | frozenset):
            raise TypeError("params must have an order, got a set: state_dict would name other parameters next time")
        entries = [given] if isinstance(given, Tensor) else list(given)
        named = sum(isinstance(entry, tuple) for entry in entries)
        if 0 < named < len(entries):
            raise ValueError(f"params must all have names or none, got {named} of {len(entries)} with one")
        parameters = [entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry for entry in entries]
        seen = {id(p) for group in self.param_groups for p in group["params"]}
        for parameter in parameters:
            if not isinstance(parameter, Tensor):
                raise TypeError(f"params must hold Parameters, got {type(parameter).__name__}")
            if not isinstance(parameter, Parameter) and not (parameter.is_leaf and parameter.requires_grad):
                raise ValueError("params must hold Parameters or leaf Tensors that require a gradient")
            if id(parameter) in seen:
                raise ValueError(f"params must hold each parameter once; one of shape {parameter.shape} came again")
            seen.add(id(parameter))
        group = {**self.defaults, **param_group, "params": parameters}
        self._check_options(group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or with ``set_to_none=False`` fill them with zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad = np.zeros_like(parameter.grad)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change all parameters by one step; a `closure` computes loss and gradients first, and its loss is returned.

        Raises
        ------
        ValueError
            A gradient has another shape than its parameter; no parameter is changed then.
        """
        loss = None if closure is None else closure()
        pairs = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for parameter, _ in pairs:
            if np.shape(parameter.grad) != parameter.data.shape:
                raise ValueError(f"grad must have shape {parameter.data.shape}, got {np.shape(parameter.grad)}")
            thaw(parameter)
            if not is_writable(parameter.data):
                raise ValueError(f"parameter of shape {parameter.data.shape} is read-only")
            if is_device_array(parameter.data) != is_device_array(parameter.grad):
                one_device("step", (("a parameter", parameter.data), ("its grad", parameter.grad)))
        tasks: list[Callable[[], None]] = []
        elements = 0
        for parameter, group in pairs:
            if type(parameter.data) is type(parameter.grad) is np.ndarray:
                tasks += self._tasks(parameter, group)
                elements += parameter.data.size
            else:  # by CuPy, on the GPU of the parameter: of the arrays as they are, no blocks
                with guard(parameter.data):
                    self._update_whole(parameter.data, parameter.grad, self._state_beside(parameter), group)
        run_together(tasks, elements // _WORTH_A_THREAD)
        return loss

    def _state_beside(self, parameter: Tensor) -> dict[str, Any]:
        """The moments of `parameter`, moved to where it is: it may have left them behind."""
        state = self.state.setdefault(parameter, {})
        place = device_of(parameter.data)
        for name, value in state.items():
            if is_array(value) and device_of(value) != place:
                state[name] = to_device(value, place)
        return state

    def _keeps_state(self, group: Mapping[str, Any]) -> bool:
        """Whether a step with these options leaves moments."""
        return True

    def _tasks(self, parameter: Tensor, group: dict[str, Any]) -> list[Callable[[], None]]:
        """The step of one parameter, block by block where it is large: what is computed in between stays in the cache.

        Blocks depend on nothing but their own elements, so they may be computed in any order and by any thread.
        """
        data, gradient = parameter.data, parameter.grad
        state = self._state_beside(parameter)
        moments = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        first_step = self._keeps_state(group) and not moments  # it makes the moments, for the whole parameter
        arrays = (data, gradient, *moments.values())
        if (
            data.size <= _BLOCK
            or first_step
            or not all(type(a) is np.ndarray and a.dtype == data.dtype and a.flags.c_contiguous for a in arrays)
            or data.dtype.itemsize == 2
        ):
            return [functools.partial(self._update_whole, data, gradient, state, group)]
        counts = {name: value for name, value in state.items() if name not in moments}
        flat, flat_gradient = data.reshape(-1), cast(np.ndarray, gradient).reshape(-1)
        flat_moments = {name: value.reshape(-1) for name, value in moments.items()}

        def block(start: int) -> None:
            part = slice(start, start + _BLOCK)
            own = {**counts, **{name: value[part] for name, value in flat_moments.items()}}
            self._update(flat[part], -flat_gradient[part] if group["maximize"] else flat_gradient[part], own, group)
            if start == 0:  # every block counts alike
                state.update({name: own[name] for name in counts})

        return [functools.partial(block, start) for start in range(0, data.size, _BLOCK)]

    def _update_whole(self, data: Any, gradient: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        # 16-bit types step in float32 and are rounded once; float32 and float64 step in place.
        wide = data.astype(np.float32) if data.dtype.itemsize == 2 else data
        gradient = as_array(gradient, wide.dtype)
        self._update(wide, -gradient if group["maximize"] else gradient, state, group)
        if wide is not data:
            data[...] = wide

    def state_dict(self) -> dict[str, Any]:
        """Options and moments for a checkpoint, as torch lays them out; the arrays are the optimiser's own.

        Returns
        -------
        dict
            ``"state"`` maps the parameter's number to its moments, ``"param_groups"`` lists the options.

        Examples
        --------
        >>> import fastconv.nn as nn, fastconv.optim as optim
        >>> optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1).state_dict()["param_groups"][0]["params"]
        [0, 1]
        """
        numbers_of = {id(p): i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}
        groups = [{**group, "params": [numbers_of[id(p)] for p in group["params"]]} for group in self.param_groups]
        state = {numbers_of[id(p)]: dict(entry) for p, entry in self.state.items() if entry}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the options and (copies of) the moments of another optimiser of the same kind.

        Raises
        ------
        ValueError
            Groups, numbers of parameters, names or shapes differ; nothing is changed then.
        """
        if not isinstance(state_dict, Mapping) or set(state_dict) != {"state", "param_groups"}:
            raise ValueError("state_dict must be a mapping with the keys 'state' and 'param_groups'")
        saved = list(state_dict["param_groups"])
        counts, wanted = [len(g["params"]) for g in saved], [len(g["params"]) for g in self.param_groups]
        if counts != wanted:
            raise ValueError(f"state_dict has groups of {counts} parameters, the optimiser has {wanted}")
        groups = []
        for own, other in zip(self.param_groups, saved, strict=True):
            # Options that this optimiser does not have (torch's foreach, fused) change no result and are left out.
            # "initial_lr" is what the schedules of `lr_scheduler` keep there.
            options = {key: deepcopy(other[key]) for key in (*self.defaults, "initial_lr") if key in other}
            groups.append({**own, **options})
            self._check_options(groups[-1])
        saved_numbers = [number for group in saved for number in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        by_number = dict(zip(saved_numbers, parameters, strict=True))
        state: dict[Tensor, Options] = {}
        for number, entry in state_dict["state"].items():
            if number not in by_number:
                raise ValueError(f"state_dict has moments of parameter {number!r}, which is in none of its groups")
            parameter = by_number[number]
            state[parameter] = {name: self._moment(name, value, parameter) for name, value in entry.items()}
        self.param_groups = groups
        self.state = state

    def _moment(self, name: str, value: Any, parameter: Tensor) -> Any:
        """A private copy of one saved moment after its check."""
        if name in self._counts:
            return int(value)
        if name in self._factors:
            return float(value)
        if name not in self._arrays:
            raise ValueError(f"state_dict has the moment {name!r}, {type(self).__name__} has {self._arrays}")
        if value is None:
            return None
        kind = np.float32 if parameter.data.dtype.itemsize == 2 else parameter.data.dtype
        array = np.array(host_array(value), kind)
        if array.shape != parameter.data.shape:
            raise ValueError(f"moment {name!r} has shape {array.shape}, its parameter {parameter.data.shape}")
        return to_device(array, device_of(parameter.data))

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def check_range(name: str, value: Any, low: float = 0.0, below: float = math.inf) -> None:
    """Raise unless `value` is a real number from `low` to (not including) `below`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if not low <= float(value) < below:
        limit = "not be negative" if below == math.inf else f"lie in [{low:g}, {below:g})"
        raise ValueError(f"{name} must {limit}, got {value}")


def check_pair(name: str, value: Any, below: float = math.inf) -> None:
    """Raise unless `value` is two such numbers."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be a pair of numbers, got {value!r}")
    for entry in value:
        check_range(name, entry, 0.0, below)
