"""Weights that are computed from other parameters before each forward: weight and spectral normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.devices import array_module
from fastconv.nn.modules.arguments import number, size
from fastconv.nn.modules.calling import holds_tensor
from fastconv.nn.modules.module import Module
from fastconv.random import generator
from fastconv.tape import no_grad
from fastconv.tensor import Parameter, Tensor

__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]


class _Reparameterization:
    """The hooks around forward that set the weight; subclasses compute it from ``name_part`` for each of `parts`."""

    parts: tuple[str, ...]

    def __init__(self, name: str) -> None:
        self.name = name

    def weight(self, module: Module) -> Tensor:
        raise NotImplementedError

    def before(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before forward: a weight that is recorded where a Tensor comes in."""
        if holds_tensor(args) or holds_tensor(kwargs):
            setattr(module, self.name, self.weight(module))
        else:
            self.set(module)

    def after(self, module: Module, args: tuple[Any, ...], output: Any) -> None:
        """After forward: the same weight without its record, which a copy of the module could not take along."""
        setattr(module, self.name, Tensor(getattr(module, self.name).data))

    def set(self, module: Module) -> None:
        """Set the weight; nothing is recorded."""
        with no_grad():
            setattr(module, self.name, self.weight(module))


def _parameter(module: Module, name: str) -> Parameter:
    """The parameter to compute from now on."""
    if not isinstance(module, Module):
        raise TypeError(f"module must be a Module, got {type(module).__name__}")
    weight = module._parameters.get(name)
    if weight is None:
        taken = any(other.name == name for other in _hooks(module))
        raise ValueError(f"{name!r} of {module._get_name()} is {'computed already' if taken else 'no parameter'}")
    return weight


def _attach(module: Module, hook: _Reparameterization) -> None:
    """Put `hook` around the forward of `module`, in the place of a parameter."""
    delattr(module, hook.name)
    module.register_forward_pre_hook(hook.before, with_kwargs=True)
    module.register_forward_hook(hook.after, prepend=True)


def _hooks(module: Module) -> list[_Reparameterization]:
    functions = (getattr(entry, "hook", None) for entry in module._forward_pre_hooks.values())
    owners = (getattr(function, "__self__", None) for function in functions)
    return [owner for owner in owners if isinstance(owner, _Reparameterization)]


def _remove(module: Module, name: str, kind: type[_Reparameterization]) -> Module:
    """Take the hooks of this kind off and make their weight a parameter again."""
    for hook in _hooks(module):
        if isinstance(hook, kind) and hook.name == name:
            training, module.training = module.training, False  # what training would improve stays as it is
            try:
                hook.set(module)
            finally:
                module.training = training
            weight = getattr(module, name)
            for attribute in (name, *(f"{name}_{part}" for part in hook.parts)):
                delattr(module, attribute)
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key, entry in list(hooks.items()):
                    if getattr(getattr(entry, "hook", entry), "__self__", None) is hook:
                        del hooks[key]
            module.register_parameter(name, Parameter(weight.data))
            return module
    raise ValueError(f"{name!r} of {module._get_name()} is not normalised so")


# ---- weight normalisation ----------------------------------------------------------------------------------------


class _WeightNorm(_Reparameterization):
    parts = ("g", "v")

    def __init__(self, name: str, dim: int | None) -> None:
        super().__init__(name)
        self.dim = dim

    def norm(self, v: Tensor) -> Tensor:
        """Over all dimensions but `dim`, which all stay, with extent 1; over the whole array without one."""
        if self.dim is None:
            return (v * v).sum().sqrt()
        axes = tuple(axis for axis in range(v.ndim) if axis != self.dim)
        return (v * v).sum(axes, keepdim=True).sqrt() if axes else v.abs()

    def weight(self, module: Module) -> Tensor:
        v = getattr(module, f"{self.name}_v")
        return v * (getattr(module, f"{self.name}_g") / self.norm(v))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train the length and the direction of a layer's weights apart: w = g v / ‖v‖.

    Parameters
    ----------
    module : Module
        Changed in place: its parameter `name` becomes the parameters ``name_g`` and ``name_v``, from which it is
        computed before each forward.
    name : str
    dim : int or None
        The dimension along which each slice has a length of its own, 0 for the outputs of a layer; None (and, as in
        torch, -1): one length for the whole weight.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        No such parameter or dimension.
    TypeError
        `module` is no Module.

    Notes
    -----
    Salimans & Kingma 2016. Source: torch.nn.utils.weight_norm, whose keys `state_dict` has.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> layer = nn.utils.weight_norm(nn.Linear(20, 40))
    >>> {key: value.shape for key, value in layer.state_dict().items()}
    {'bias': (40,), 'weight_g': (40, 1), 'weight_v': (40, 20)}
    """
    weight = _parameter(module, name)
    along = None if dim is None or size("dim", dim, -1) == -1 else int(dim)
    if along is not None and along >= weight.ndim:
        raise ValueError(f"dim must be below the {weight.ndim} dimensions of {name!r}, got {dim}")
    hook = _WeightNorm(name, along)
    _attach(module, hook)
    with no_grad():
        length = hook.norm(weight)
    module.register_parameter(f"{name}_g", Parameter(length.data))
    module.register_parameter(f"{name}_v", Parameter(weight.data))
    hook.set(module)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make the weight that `weight_norm` computes a parameter again.

    Parameters
    ----------
    module : Module
    name : str

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        The weight is not computed by `weight_norm`.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> layer = nn.utils.remove_weight_norm(nn.utils.weight_norm(nn.Linear(20, 40)))
    >>> list(layer.state_dict())
    ['bias', 'weight']
    """
    return _remove(module, name, _WeightNorm)


# ---- spectral normalisation --------------------------------------------------------------------------------------


class _SpectralNorm(_Reparameterization):
    parts = ("orig", "u", "v")

    def __init__(self, name: str, iterations: int, eps: float, dim: int) -> None:
        super().__init__(name)
        self.iterations, self.eps, self.dim = iterations, eps, dim

    def matrix(self, weight: Any) -> Any:
        """The weight with `dim` as rows and everything else as columns."""
        axes = (self.dim, *(axis for axis in range(weight.ndim) if axis != self.dim))
        moved = weight.permute(*axes) if isinstance(weight, Tensor) else weight.transpose(axes)
        return moved.reshape(moved.shape[0], -1)

    def normalized(self, x: Any) -> Any:
        """x / max(‖x‖, eps)."""
        return x / max(float(array_module(x).linalg.norm(x)), self.eps)

    def weight(self, module: Module) -> Tensor:
        original = getattr(module, f"{self.name}_orig")
        u, v = (getattr(module, f"{self.name}_{key}") for key in "uv")
        if module.training:
            matrix = self.matrix(original.data)
            for _ in range(self.iterations):
                v[...] = self.normalized(matrix.T @ u)
                u[...] = self.normalized(matrix @ v)
        # Copies, for the next forward changes u and v before this one's backward may read them.
        sigma = (Tensor(u.copy()) * (self.matrix(original) @ Tensor(v.copy()))).sum()
        return original / sigma


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide a layer's weight by its largest singular value, so that no input is stretched by more than 1.

    Parameters
    ----------
    module : Module
        Changed in place: its parameter `name` becomes ``name_orig``, from which it is computed before each forward.
        The buffers ``name_u`` and ``name_v`` estimate the singular vectors.
    name : str
    n_power_iterations : int
        By which each forward in training mode improves the estimate.
    eps : float
        Below which a vector's length is not divided by.
    dim : int, optional
        The dimension of the outputs: by default 1 for transposed convolutions, 0 for all others.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        No such parameter or dimension, or a number out of its range.
    TypeError
        An argument of the wrong kind.

    Notes
    -----
    Miyato et al. 2018. Source: torch.nn.utils.spectral_norm, whose keys `state_dict` has.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.Linear(2, 2)
    >>> layer.weight.data[:] = np.diag([5, 1])
    >>> layer = nn.utils.spectral_norm(layer, n_power_iterations=50)
    >>> _ = layer(np.zeros((1, 2), np.float32))
    >>> layer.weight.data.round(3)
    array([[1. , 0. ],
           [0. , 0.2]], dtype=float32)
    """
    iterations = size("n_power_iterations", n_power_iterations, 1)
    if not number("eps", eps) > 0:
        raise ValueError(f"eps must be above 0, got {eps}")
    weight = _parameter(module, name)
    rows = (1 if getattr(module, "_transposed", False) else 0) if dim is None else size("dim", dim, 0)
    if rows >= weight.ndim:
        raise ValueError(f"dim must be below the {weight.ndim} dimensions of {name!r}, got {dim}")
    hook = _SpectralNorm(name, iterations, float(eps), rows)
    _attach(module, hook)
    module.register_parameter(f"{name}_orig", weight)
    matrix = hook.matrix(weight.data)
    for key, count in zip("uv", matrix.shape):
        start = generator().standard_normal(count).astype(np.float32)
        start = array_module(matrix).asarray(start).astype(matrix.dtype)
        module.register_buffer(f"{name}_{key}", hook.normalized(start))
    setattr(module, name, Tensor(weight.data))
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make the weight that `spectral_norm` computes a parameter again.

    Parameters
    ----------
    module : Module
    name : str

    Returns
    -------
    Module
        `module`, with the normalised weight.

    Raises
    ------
    ValueError
        The weight is not computed by `spectral_norm`.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> layer = nn.utils.remove_spectral_norm(nn.utils.spectral_norm(nn.Linear(20, 40)))
    >>> list(layer.state_dict())
    ['bias', 'weight']
    """
    return _remove(module, name, _SpectralNorm)
