"""Layers that learn the size of their input from the first array they meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastconv.devices import device_of, to_device
from fastconv.nn.modules.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from fastconv.nn.modules.linear import Linear
from fastconv.nn.modules.module import Module
from fastconv.nn.modules.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from fastconv.tensor import UninitializedParameter

__all__ = [
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LazyLinear",
]


class _Lazy(Module):
    """What lazy layers share: until the size of the input is known, their parameters have no elements.

    Then the layer becomes one of the ordinary class `_becomes`, with the same Parameter objects: an optimiser that has
    them goes on.
    """

    _becomes: Any  # a class
    _size: str  # the attribute that is found out, the first argument of `_becomes`
    _arguments: tuple[Any, ...]  # the others

    def _wait(self) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                self._parameters[name] = UninitializedParameter(dtype=parameter.dtype)

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter still waits for its size."""
        return any(isinstance(parameter, UninitializedParameter) for parameter in self._parameters.values())

    def initialize_parameters(self, x: Any) -> None:
        """Give the parameters the sizes that `x` asks for, and the values that a new layer has."""
        self._become(self._size_of(x))

    def reset_parameters(self) -> None:
        """Nothing, as long as the parameters wait."""
        if not self.has_uninitialized_params():
            super().reset_parameters()  # type: ignore[misc]

    def forward(self, input: Any, *rest: Any, **options: Any) -> Any:
        """Become an ordinary layer, and compute as it does."""
        self.initialize_parameters(input)
        return self.forward(input, *rest, **options)  # no longer this one

    def _size_of(self, x: Any) -> int:
        raise NotImplementedError

    def _become(self, size: int) -> Callable[[], None]:
        """Become an ordinary layer for inputs of this size; the function that is returned takes it back."""
        waiting = {n: p for n, p in self._parameters.items() if isinstance(p, UninitializedParameter)}
        empty = {n: b for n, b in self._buffers.items() if b is not None and b.size == 0}
        kinds = [value.dtype for value in (*waiting.values(), *empty.values())]
        new = self._becomes(size, *self._arguments, dtype=kinds[0] if kinds else None)
        lazy, arguments, before = type(self), self._arguments, getattr(self, self._size)
        for name, parameter in waiting.items():
            value = to_device(new._parameters[name].data, parameter.device)
            parameter.materialize(value.shape)
            parameter.data = value
        for name, buffer in empty.items():
            self._buffers[name] = to_device(new._buffers[name], device_of(buffer))
        setattr(self, self._size, getattr(new, self._size))
        del self._arguments
        self.__class__ = self._becomes

        def take_back() -> None:
            self.__class__ = lazy
            self._arguments = arguments
            setattr(self, self._size, before)
            for parameter in waiting.values():
                parameter.__class__ = UninitializedParameter
                parameter.data = parameter.data.ravel()[:0].copy()
            self._buffers.update(empty)

        return take_back

    def _take_size(self, values: Mapping[str, Any], prefix: str) -> Callable[[], None] | None:
        """Become what the arrays of a state dictionary ask for, where they do."""
        for name, axis in self._state_axes():
            value = values.get(prefix + name, ())
            shape = tuple(value.shape) if hasattr(value, "shape") else np.shape(value)
            if len(shape) > axis and 0 not in shape:
                return self._become(shape[axis] * self._per_entry())
        return None

    def _state_axes(self) -> tuple[tuple[str, int], ...]:
        """The arrays of the state that tell the size, and the axis along which they do."""
        raise NotImplementedError

    def _per_entry(self) -> int:
        """Channels for each entry along that axis."""
        return 1


class _LazyConv(_Lazy):
    _size = "in_channels"
    _nd: int
    _transposed: bool

    def _size_of(self, x: Any) -> int:
        shape = tuple(x.shape)
        if len(shape) not in (self._nd + 1, self._nd + 2):
            raise ValueError(
                f"input must be {self._nd + 1}D or {self._nd + 2}D for {type(self).__name__}, got shape {shape}"
            )
        return shape[-self._nd - 1]

    def _state_axes(self) -> tuple[tuple[str, int], ...]:
        return (("weight", 0 if self._transposed else 1),)

    def _per_entry(self) -> int:
        return 1 if self._transposed else int(self.groups)


class _LazyForwardConv(_LazyConv):
    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[Any, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        rest = out_channels, kernel_size, stride, padding, dilation, groups
        super().__init__(0, *rest, bias, padding_mode, dtype=dtype)  # type: ignore[call-arg]
        self._arguments = (*rest, bias, padding_mode)
        self._wait()
        self.to(device=device)


class _LazyTransposedConv(_LazyConv):
    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        padding_mode: str = "zeros",
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        rest = out_channels, kernel_size, stride, padding, output_padding, groups
        super().__init__(0, *rest, bias, dilation, padding_mode, dtype=dtype)  # type: ignore[call-arg]
        self._arguments = (*rest, bias, dilation, padding_mode)
        self._wait()
        self.to(device=device)


class LazyConv1d(_LazyForwardConv, Conv1d):
    """:class:`Conv1d` whose `in_channels` are those of the first input; see :class:`LazyConv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyConv1d(4, 3, padding=1)(np.zeros((1, 2, 10), np.float32)).shape
    (1, 4, 10)
    """

    _becomes = Conv1d


class LazyConv2d(_LazyForwardConv, Conv2d):
    """:class:`Conv2d` whose `in_channels` are those of the first input.

    Parameters
    ----------
    out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        As for :class:`Conv2d`.

    Attributes
    ----------
    weight, bias : UninitializedParameter
        Without elements until the first call, or until :meth:`Module.load_state_dict` brings arrays.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule; at the first call, an input of another rank, or channels that `groups` does not
        divide. The layer goes on waiting then.

    Notes
    -----
    The first call makes the layer one of class Conv2d, with the values that such a layer would have drawn. An optimiser
    may be made before it; functions of :mod:`fastconv.nn.init` may not be used on the parameters before it.
    Source: torch.nn.LazyConv2d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> net = nn.Sequential(nn.LazyConv2d(6, 5, padding=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    >>> net(np.zeros((1, 1, 28, 28), np.float32)).shape
    (1, 10)
    >>> net[0]
    Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))
    """

    _becomes = Conv2d


class LazyConv3d(_LazyForwardConv, Conv3d):
    """:class:`Conv3d` whose `in_channels` are those of the first input; see :class:`LazyConv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyConv3d(2, 3)(np.zeros((1, 1, 5, 6, 7), np.float32)).shape
    (1, 2, 3, 4, 5)
    """

    _becomes = Conv3d


class LazyConvTranspose1d(_LazyTransposedConv, ConvTranspose1d):
    """:class:`ConvTranspose1d` whose `in_channels` are those of the first input; see :class:`LazyConv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyConvTranspose1d(4, 2, stride=2)(np.zeros((1, 3, 5), np.float32)).shape
    (1, 4, 10)
    """

    _becomes = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposedConv, ConvTranspose2d):
    """:class:`ConvTranspose2d` whose `in_channels` are those of the first input; see :class:`LazyConv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyConvTranspose2d(4, 2, stride=2)(np.zeros((1, 3, 5, 6), np.float32)).shape
    (1, 4, 10, 12)
    """

    _becomes = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposedConv, ConvTranspose3d):
    """:class:`ConvTranspose3d` whose `in_channels` are those of the first input; see :class:`LazyConv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyConvTranspose3d(4, 2)(np.zeros((1, 3, 2, 3, 4), np.float32)).shape
    (1, 4, 3, 4, 5)
    """

    _becomes = ConvTranspose3d


class LazyLinear(_Lazy, Linear):
    """:class:`Linear` whose `in_features` are those of the first input; see :class:`LazyConv2d`.

    Parameters
    ----------
    out_features, bias, device, dtype
        As for :class:`Linear`.

    Notes
    -----
    Source: torch.nn.LazyLinear.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.LazyLinear(2)
    >>> layer
    LazyLinear(in_features=0, out_features=2, bias=True)
    >>> layer(np.zeros((5, 3), np.float32)).shape
    (5, 2)
    >>> layer
    Linear(in_features=3, out_features=2, bias=True)
    """

    _becomes = Linear
    _size = "in_features"

    def __init__(self, out_features: int, bias: bool = True, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, out_features, bias, dtype=dtype)  # type: ignore[call-arg]
        self._arguments = out_features, bias
        self._wait()
        self.to(device=device)

    def _size_of(self, x: Any) -> int:
        shape = tuple(x.shape)
        if not shape:
            raise ValueError("input must have at least one dimension for LazyLinear, got shape ()")
        return int(shape[-1])

    def _state_axes(self) -> tuple[tuple[str, int], ...]:
        return (("weight", 1),)


class _LazyNorm(_Lazy):
    _size = "num_features"
    _batch_axis = True  # whether inputs always have one

    # torch's lazy instance norms have these defaults, too, unlike its ordinary ones.
    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = eps, momentum, affine, track_running_stats
        super().__init__(0, *options, bias=bias, dtype=dtype)  # type: ignore[call-arg]
        self._arguments = options
        self._wait()
        self.to(device=device)

    def _size_of(self, x: Any) -> int:
        self._check_rank(x)  # type: ignore[operator]
        return int(x.shape[1 if self._batch_axis else 1 - max(self._ranks)])  # type: ignore[attr-defined]

    def _state_axes(self) -> tuple[tuple[str, int], ...]:
        return ("weight", 0), ("running_mean", 0)


class _LazyInstanceNorm(_LazyNorm):
    _batch_axis = False


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """:class:`BatchNorm1d` whose `num_features` are those of the first input; see :class:`LazyBatchNorm2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyBatchNorm1d()(np.zeros((4, 3), np.float32)).shape
    (4, 3)
    """

    _becomes = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """:class:`BatchNorm2d` whose `num_features` are those of the first input.

    Parameters
    ----------
    eps, momentum, affine, track_running_stats, bias, device, dtype
        As for :class:`BatchNorm2d`.

    Notes
    -----
    The first call makes the layer one of class BatchNorm2d; see :class:`LazyConv2d`. Source: torch.nn.LazyBatchNorm2d.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> layer = nn.LazyBatchNorm2d()
    >>> layer(np.zeros((2, 3, 4, 4), np.float32)).shape, layer.running_mean.shape
    ((2, 3, 4, 4), (3,))
    """

    _becomes = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """:class:`BatchNorm3d` whose `num_features` are those of the first input; see :class:`LazyBatchNorm2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyBatchNorm3d()(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 3, 4, 5)
    """

    _becomes = BatchNorm3d


class LazyInstanceNorm1d(_LazyInstanceNorm, InstanceNorm1d):
    """:class:`InstanceNorm1d` whose `num_features` are those of the first input; see :class:`LazyBatchNorm2d`.

    As in torch, `affine` and `track_running_stats` are True by default, unlike those of the ordinary layer.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyInstanceNorm1d()(np.zeros((2, 3, 4), np.float32)).shape
    (2, 3, 4)
    """

    _becomes = InstanceNorm1d


class LazyInstanceNorm2d(_LazyInstanceNorm, InstanceNorm2d):
    """:class:`InstanceNorm2d` whose `num_features` are those of the first input; see :class:`LazyBatchNorm2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyInstanceNorm2d()(np.zeros((2, 3, 4, 4), np.float32)).shape
    (2, 3, 4, 4)
    """

    _becomes = InstanceNorm2d


class LazyInstanceNorm3d(_LazyInstanceNorm, InstanceNorm3d):
    """:class:`InstanceNorm3d` whose `num_features` are those of the first input; see :class:`LazyBatchNorm2d`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> nn.LazyInstanceNorm3d()(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 3, 4, 5)
    """

    _becomes = InstanceNorm3d
