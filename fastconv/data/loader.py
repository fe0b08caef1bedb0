"""`DataLoader`: a data set in batches, in an order and with random numbers that follow from a seed alone.

Nothing here depends on who is first: the order of an epoch is drawn from (seed, epoch), what a transform of a batch
draws from (seed, epoch, number of the batch), and batches are handed out in their order. So a loader with eight workers
gives the batches of one without, and a loader whose `epoch` is set to k goes on as if it had run k epochs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ..nn.modules.arguments import size
from ..nn.modules.calling import convert_leaves
from ..random import generator
from .dataset import Subset
from .sampler import Sampler
from .shard import ShardGenerator

__all__ = ["DataLoader", "collate"]


def collate(samples: Sequence[Any]) -> Any:
    """Samples as one batch: arrays and numbers are stacked, in the type that holds them all, strings become a list;
    tuples, named ones too, and dictionaries entry by entry.

    Parameters
    ----------
    samples : sequence
        At least one; all of one structure.

    Raises
    ------
    ValueError
        Shapes, lengths or keys that differ.
    TypeError
        What is no number, no array and no string.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data import collate
    >>> collate([(np.zeros(2), 7), (np.ones(2), 8)])
    (array([[0., 0.],
           [1., 1.]]), array([7, 8]))
    """
    first = samples[0]
    if isinstance(first, tuple | list):
        if len({len(sample) for sample in samples}) != 1:
            raise ValueError(f"samples must have one length to become a batch, got {sorted({len(s) for s in samples})}")
        fields = [collate(entries) for entries in zip(*samples)]
        return first._make(fields) if hasattr(first, "_make") else tuple(fields)
    if isinstance(first, dict):
        if any(set(sample) != set(first) for sample in samples):
            raise ValueError("samples must have the same keys to become a batch")
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, str | bytes):
        return list(samples)
    arrays = [np.asarray(sample) for sample in samples]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) != 1:
        raise ValueError(f"samples must have one shape to become a batch, got {', '.join(map(str, shapes))}")
    if odd := [type(s).__name__ for s, array in zip(samples, arrays) if array.dtype.kind not in "biufcV"]:
        raise TypeError(f"samples must be numbers, arrays or strings, got {odd[0]}")
    # A Python float says nothing about its precision: it becomes what layers compute in.
    types = {type(sample) for sample in samples}
    batch = np.stack(arrays)
    return batch.astype(np.float32) if float in types and types <= {float, int, bool} else batch


class DataLoader:
    """A data set in batches.

    Parameters
    ----------
    dataset : Dataset, or whatever has ``len`` and an index
        A method ``batch(indices)``, where it has one, gives a whole batch at once.
    batch_size : int
        Samples in a batch; the last one holds what is left.
    shuffle : bool
        Whether each epoch has an order of its own.
    num_workers : int
        Threads that prepare batches ahead; 0 prepares each when it is asked for. (Decoding images and computing with
        arrays runs outside Python's lock, and threads need not copy what they made.)
    collate_fn : callable, optional
        Makes a batch of a list of samples; :func:`collate` by default.
    drop_last : bool
        Whether to leave out a last batch that is not full.
    prefetch_factor : int, optional
        Batches prepared ahead for each worker, 2 by default.
    sampler : Sampler or iterable of int, keyword only, optional
        The indices of an epoch in their order, in place of `shuffle`; an iterable is gone through anew in each epoch,
        and has a length.
    transform : callable, keyword only, optional
        ``transform(images, rng=...)`` on the first array of each batch, such as those of
        :mod:`fastconv.data.transforms`.
    seed : int, keyword only, optional
        Of the order and of the transform's random numbers; drawn from the generator of :func:`fastconv.manual_seed`
        where it is not given.
    shard : pair of int, keyword only
        ``(rank, count)``: of each batch only the part of this one of `count` processes that train together. All parts
        together are the batch of one process; what a transform draws depends on `count`. This stands for torch's
        DistributedSampler, but repeats no sample: parts of a last batch may differ in length by one, or be empty.
    pin_memory, persistent_workers : bool, keyword only
        Without effect, so that calls of torch's loader need no change: batches are NumPy arrays, and threads start in
        no time.

    Attributes
    ----------
    epoch : int
        Number of the next epoch. Setting it is all that going on after a restart needs.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule, the data set is empty, or a sampler gives an index that it has not. What goes wrong
        in a worker is raised where its batch is asked for, with a note that names the samples.

    Notes
    -----
    Source: torch.utils.data.DataLoader.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.data import DataLoader, TensorDataset
    >>> data = TensorDataset(np.arange(10), np.arange(10) % 2)
    >>> for x, y in DataLoader(data, batch_size=4):
    ...     print(x, y)
    [0 1 2 3] [0 1 0 1]
    [4 5 6 7] [0 1 0 1]
    [8 9] [0 1]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        prefetch_factor: int | None = None,
        *,
        sampler: Any = None,
        transform: Callable[..., Any] | None = None,
        seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
        pin_memory: bool = False,
        persistent_workers: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = size("batch_size", batch_size, 1)
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        self.num_workers = size("num_workers", num_workers, 0)
        self.collate_fn, self.transform = collate_fn, transform
        self.prefetch_factor = size("prefetch_factor", 2 if prefetch_factor is None else prefetch_factor, 1)
        self.seed = int(generator().integers(2**63)) if seed is None else size("seed", seed, 0)
        rank, count = shard
        self.shard = (size("shard", rank, 0), size("shard", count, 1))
        if rank >= count:
            raise ValueError(f"shard must be (rank, count) with rank below count, got {shard}")
        if self.batch_size % count:
            raise ValueError(f"batch_size must be a multiple of the {count} processes, got {batch_size}")
        if not len(dataset):
            raise ValueError("dataset must hold at least one sample, got none")
        if sampler is not None and shuffle:
            raise ValueError("sampler must be None where shuffle is True: it decides the order itself")
        self.sampler = sampler
        if not self._count:
            raise ValueError("sampler must give at least one index, got none")
        if not len(self):
            raise ValueError(f"drop_last leaves no batch: {self._count} samples, batch_size {self.batch_size}")
        self.epoch = 0

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self._count // self.batch_size if self.drop_last else -(-self._count // self.batch_size)

    @property
    def _count(self) -> int:
        """Samples of an epoch."""
        return len(self.dataset) if self.sampler is None else len(self.sampler)

    def _order(self, epoch: int) -> np.ndarray:
        """The indices of an epoch."""
        count, sampler = len(self.dataset), self.sampler
        if sampler is None:
            return self._random(epoch).permutation(count) if self.shuffle else np.arange(count)
        drawn = sampler.draw(self._random(epoch)) if isinstance(sampler, Sampler) else list(sampler)
        order = np.asarray(drawn)
        if not order.size:
            raise ValueError("sampler must give at least one index, got none")
        if order.shape != (self._count,) or order.dtype.kind not in "iu":
            raise ValueError(f"sampler must give {self._count} indices, got {order.dtype} of shape {order.shape}")
        if order.min() < 0 or order.max() >= count:
            raise ValueError(f"sampler must give indices from 0 to {count - 1}, got {order.min()} to {order.max()}")
        return order.astype(np.int64)

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, *key))))

    def _batch(self, epoch: int, number: int, whole: np.ndarray) -> Any:
        rank, ranks = self.shard
        start, stop = len(whole) * rank // ranks, len(whole) * (rank + 1) // ranks
        indices = whole[start:stop]
        if not len(indices):  # fewer samples than processes: a batch of none, in the shapes that a sample has
            return convert_leaves(lambda array: array[:0], self._batch(epoch, number, np.zeros(ranks, np.int64)))
        try:
            batch = _fetch(self.dataset, indices, self.collate_fn)
            if self.transform is None:
                return batch
            rng = self._random(epoch, 1 + number)
            if len(indices) < len(whole):
                rng = ShardGenerator(rng.bit_generator, start, stop, len(whole))
            if isinstance(batch, tuple):
                return (self.transform(batch[0], rng=rng), *batch[1:])
            return self.transform(batch, rng=rng)
        except Exception as error:
            named = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
            error.add_note(f"in batch {number} of epoch {epoch}, samples {named}")
            raise

    def __iter__(self) -> Iterator[Any]:
        """Go through one epoch; the next call goes through the next one."""
        epoch = self.epoch
        order = self._order(epoch)
        self.epoch = epoch + 1
        work = [
            (epoch, number, order[number * self.batch_size : (number + 1) * self.batch_size])
            for number in range(len(self))
        ]
        return self._ahead(work) if self.num_workers else (self._batch(*item) for item in work)

    def _ahead(self, work: list[tuple[int, int, np.ndarray]]) -> Iterator[Any]:
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="fastconv-loader")
        try:
            waiting: deque[Future[Any]] = deque()
            for item in work:
                waiting.append(pool.submit(self._batch, *item))
                if len(waiting) > self.num_workers * self.prefetch_factor:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Also where the loop that asks for batches was left, or a batch raised.
            pool.shutdown(wait=True, cancel_futures=True)

    def state_dict(self) -> dict[str, Any]:
        """What the next epochs follow from, for a checkpoint."""
        return {"seed": self.seed, "epoch": self.epoch, **self._shape()}

    def _shape(self) -> dict[str, Any]:
        return {
            "samples": self._count,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the epochs of another loader, whose seed becomes this one's.

        Raises
        ------
        ValueError
            That loader had another number of samples or other options; nothing is changed then.
        """
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(self.state_dict()):
            raise ValueError(f"state_dict must have the keys {', '.join(self.state_dict())}")
        differing = [
            f"{name}: {state_dict[name]} then, {value} now"
            for name, value in self._shape().items()
            if state_dict[name] != value
        ]
        if differing:
            raise ValueError(f"state_dict is that of a loader with other options; {'; '.join(differing)}")
        self.seed, self.epoch = size("seed", state_dict["seed"], 0), size("epoch", state_dict["epoch"], 0)

    def __repr__(self) -> str:
        name = type(self.dataset).__name__
        return f"DataLoader({name} of {len(self.dataset)}, batch_size={self.batch_size}, shuffle={self.shuffle})"


def _fetch(dataset: Any, indices: np.ndarray, collate_fn: Callable[[list[Any]], Any] | None) -> Any:
    if collate_fn is None:
        while isinstance(dataset, Subset):
            dataset, indices = dataset.dataset, dataset.indices[indices]
        if callable(getattr(dataset, "batch", None)):
            return dataset.batch(indices)
    samples = [dataset[index] for index in indices.tolist()]
    return (collate_fn or collate)(samples)
