"""`DataParallel`: a network whose gradients are those of the batch of all ranks together."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..devices import array_module, device_of, guard, is_array
from ..hooks import HookHandle
from ..nn.modules.arguments import number
from ..nn.modules.calling import convert_leaves, holds_tensor
from ..nn.modules.module import Module
from ..nn.modules.sync_batch_norm import SyncBatchNorm
from ..tape import after_backward, is_grad_enabled
from ..tensor import Tensor, record
from .buckets import Buckets
from .communicator import Communicator, bytes_of, world

__all__ = ["DataParallel"]


class DataParallel(Module):
    """A network that trains on all ranks at once, each with its part of the batch.

    At construction every rank gets the parameters and buffers of rank 0. In a backward pass through the output, the
    gradients are averaged over the examples of all ranks while the pass goes on: they are collected in buckets, and
    the sum of a bucket begins when its last gradient is there. When ``backward`` returns, every rank has the same
    gradients, those of one process with the whole batch, and an ordinary optimiser keeps the parameters equal.

    Parameters
    ----------
    module : Module
        The same network on every rank, its values may differ.
    broadcast_buffers : bool
        Give every rank the buffers of rank 0 (running statistics) before each forward pass in training. Those of
        SyncBatchNorm are equal anyway.
    process_group : Communicator, optional
        All ranks (:func:`fastconv.distributed.world`) by default.
    bucket_cap_mb : float
        Megabytes of gradients that are sent at once.

    Attributes
    ----------
    module : Module
        The network itself. Use it for evaluation and for checkpoints, whose names are then those of one process.

    Raises
    ------
    TypeError
        `module` is no Module.
    ValueError
        With several ranks: parameters or buffers elsewhere than on the device of `process_group`.
    ValueError
        The ranks have different networks (names, shapes or dtypes of their parameters and buffers), or
        `bucket_cap_mb` is not positive.

    Notes
    -----
    The loss must be a mean over the examples of the rank. Each rank's gradient is weighted by the length of the first
    array that the forward pass was given, so that parts of different lengths, even 0, count as they should. Every rank
    must make the same number of passes. Parameters that no rank has used in a pass keep ``grad`` None.
    The sums are taken in the order of the ranks: a run is the same, bit for bit, as the one before.
    Source: torch.nn.parallel.DistributedDataParallel (Li et al. 2020, "PyTorch Distributed", arXiv:2006.15704).

    Examples
    --------
    Started as ``mpiexec -n 4 python train.py`` this would use a quarter of the batch on each rank:

    >>> import numpy as np, fastconv as fc, fastconv.nn as nn, fastconv.nn.functional as F
    >>> import fastconv.distributed as dist
    >>> group = dist.world()
    >>> net = dist.DataParallel(nn.Linear(3, 2))
    >>> optimizer = fc.optim.SGD(net.parameters(), lr=0.1)
    >>> x, labels = np.ones((8, 3), np.float32), np.zeros(8, int)
    >>> x, labels = x[group.rank :: group.size], labels[group.rank :: group.size]
    >>> F.cross_entropy(net(fc.tensor(x)), labels).backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        module: Module,
        *,
        broadcast_buffers: bool = True,
        process_group: Communicator | None = None,
        bucket_cap_mb: float = 25.0,
    ) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"module must be a Module, got {type(module).__name__}")
        if not number("bucket_cap_mb", bucket_cap_mb) > 0:
            raise ValueError(f"bucket_cap_mb must be positive, got {bucket_cap_mb}")
        super().__init__()
        self.module = module
        self.training = module.training
        self.broadcast_buffers = bool(broadcast_buffers)
        self.process_group = world() if process_group is None else process_group
        self._capacity = int(bucket_cap_mb * 1e6)
        self._synchronizing = True
        self._pass: _Pass | None = None
        self._examples = 0
        self._buckets: Buckets | None = None
        self._hooked: list[tuple[int, np.dtype]] = []
        self._handles: list[HookHandle] = []
        if self.process_group.size > 1:
            self._check_device()
            self._check_same_network()
            self._broadcast([*(p.data for p in module.parameters()), *module.buffers()])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run `module`; a backward pass through the result averages the gradients."""
        if self.process_group.size == 1 or not (self.training and is_grad_enabled() and holds_tensor((args, kwargs))):
            return self.module(*args, **kwargs)
        self._prepare()
        self.synchronize_buffers()
        call = _Call(_batch_size((args, kwargs)), self._synchronizing)

        def mark(value: Any) -> Any:
            if not (isinstance(value, Tensor) and value.requires_grad):
                return value

            # The pullback of the output runs before those of the layers: it tells the hooks that this pass is theirs.
            def begin(dy: np.ndarray) -> list[np.ndarray]:
                self._begin(call)
                return [dy]

            return record(value.data, [value], begin)

        return convert_leaves(mark, self.module(*args, **kwargs))

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Context manager: gradients of forward passes inside stay local and add up; the next pass outside sends them.

        Examples
        --------
        >>> import numpy as np, fastconv as fc, fastconv.nn as nn
        >>> from fastconv.distributed import DataParallel
        >>> net = DataParallel(nn.Linear(3, 1))
        >>> x = fc.tensor(np.ones((2, 3), np.float32))
        >>> with net.no_sync():
        ...     (net(x).mean() / 2).backward()
        >>> (net(x).mean() / 2).backward()
        """
        before, self._synchronizing = self._synchronizing, False
        try:
            yield
        finally:
            self._synchronizing = before

    # ---- the backward pass -----------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Hooks on the parameters that are trained now: freezing and ``to`` may have changed them."""
        self._check_device()
        self._pass = None  # of a pass that ended with an exception
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        hooked = [(id(parameter), parameter.data.dtype) for parameter in trained]
        if hooked == self._hooked:
            return
        for handle in self._handles:
            handle.remove()
        self._hooked = hooked
        self._buckets = Buckets(trained, self.process_group, self._capacity)
        self._handles = [each.register_post_accumulate_grad_hook(self._take) for each in trained]

    def _begin(self, call: _Call) -> None:
        if self._pass is None:
            self._pass = _Pass()
            after_backward(self._end)
        if call not in self._pass.calls:
            self._pass.calls.append(call)
            self._pass.synchronizing |= call.synchronizing
            self._examples += call.examples

    def _take(self, parameter: Tensor) -> None:
        if self._buckets is not None and self._pass is not None and self._pass.synchronizing:
            self._buckets.add(parameter, self._examples)

    def _end(self) -> None:
        if self._buckets is not None and self._pass is not None and self._pass.synchronizing:
            self._buckets.finish(self._examples)
            self._examples = 0
        self._pass = None

    # ---- parameters and buffers ------------------------------------------------------------------------------------

    def _check_device(self) -> None:
        values = (*(parameter.data for parameter in self.module.parameters()), *self.module.buffers())
        here = self.process_group.device
        if places := {device_of(value) for value in values} - {here}:
            hint = "on GPUs its process_group is a NCCLCommunicator" if here == "cpu" else f'call to("{here}") before'
            raise ValueError(
                f"module must be on {here}, where rank {self.process_group.rank} of its process_group computes, got "
                f"parameters or buffers on {', '.join(sorted(places))}: {hint}"
            )

    def _check_same_network(self) -> None:
        entries = (*self.module.named_parameters(), *self.module.named_buffers())
        listing = "\n".join(f"{name} {value.shape} {value.dtype}" for name, value in entries)
        digest = np.frombuffer(hashlib.sha256(listing.encode()).digest(), np.uint8)
        digests = self.process_group.all_gather(digest)
        others = [rank for rank in range(len(digests)) if (digests[rank] != digests[0]).any()]
        if others:
            raise ValueError(
                f"module must be the same network on every rank: that of rank {others[0]} has other parameters or "
                "buffers (names, shapes or dtypes) than that of rank 0"
            )

    def synchronize_buffers(self) -> None:
        """Give every rank the buffers of rank 0, if `broadcast_buffers` is set: for after the last training step."""
        if self.broadcast_buffers and self.process_group.size > 1:
            modules = (module for module in self.module.modules() if not isinstance(module, SyncBatchNorm))
            self._broadcast([buffer for module in modules for buffer in module.buffers(recurse=False)])

    def _broadcast(self, arrays: Iterable[np.ndarray]) -> None:
        """Overwrite the arrays with those of rank 0, in messages of the size of a bucket."""
        part: list[np.ndarray] = []
        for array in arrays:
            part.append(array)
            if sum(each.nbytes for each in part) >= self._capacity:
                self._broadcast_part(part)
                part = []
        if part:
            self._broadcast_part(part)

    def _broadcast_part(self, arrays: list[np.ndarray]) -> None:
        library = array_module(arrays[0])
        with guard(arrays[0]):
            packed = library.concatenate([bytes_of(library.ascontiguousarray(a)) for a in arrays])
            self.process_group.broadcast(packed)
            start = 0
            for array in arrays:
                # A part of its own, as it may begin anywhere and CuPy's views have to be aligned.
                array[...] = packed[start : start + array.nbytes].copy().view(array.dtype).reshape(array.shape)
                start += array.nbytes


class _Call:
    """One forward pass: the examples that this rank gave it, and whether it is to be averaged."""

    def __init__(self, examples: int, synchronizing: bool) -> None:
        self.examples = examples
        self.synchronizing = synchronizing


class _Pass:
    """One backward pass, which may go through several calls."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.synchronizing = False


def _batch_size(value: Any) -> int:
    """Length of the first array in the arguments; 1 where there is none."""
    sizes: list[int] = []

    def look(leaf: Any) -> None:
        if (isinstance(leaf, Tensor) or is_array(leaf)) and leaf.ndim > 0:
            sizes.append(leaf.shape[0])

    convert_leaves(look, value)
    return sizes[0] if sizes else 1
