"""`Trainer`: epochs over a loader, validation, checkpoints that go on bit for bit, early stopping, history."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..devices import guard, to_device, to_host
from ..distributed import Communicator, DataParallel, SingleProcess
from ..nn import functional as F
from ..nn.modules.arguments import choice, number, size
from ..nn.modules.calling import evaluation_mode
from ..nn.modules.module import Module
from ..nn.modules.summary import place_of
from ..nn.utils import clip_grad_norm_
from ..optim import Optimizer
from ..optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from ..progress import progress as progress_bar
from ..random import get_rng_state, set_rng_state
from ..serialization import save
from ..tape import no_grad
from ..tensor import Tensor, tensor
from .checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .divergence import is_finite, origin
from .history import History
from .meter import Meter
from .ranks import check_same_order, gather_rng_states, set_own_rng_state

__all__ = ["Trainer"]

_MONITORS = ("loss", "accuracy", "val_loss", "val_accuracy")


class Trainer:
    """Trains a network: each epoch a pass over the training batches, then one over those for validation.

    Parameters
    ----------
    model : Module
        Whose output is compared with the targets. A tuple as output is taken for logits and those of auxiliary
        classifiers, whose losses count `auxiliary_weight`.
    optimizer : Optimizer
        Of the model's parameters.
    loss : callable
        ``loss(output, target)``, a mean over the batch.
    scheduler : LRScheduler, optional
        Takes a step after each epoch; :class:`~fastconv.optim.lr_scheduler.ReduceLROnPlateau` gets the monitored value.
    schedule_batches : bool, keyword only
        Whether the schedule takes a step after each batch instead.
    max_grad_norm : float, keyword only, optional
        Clips the gradients' common norm.
    auxiliary_weight : float, keyword only
        Weight of the losses of auxiliary classifiers, 0.3 in GoogLeNet.
    checkpoint : path, keyword only, optional
        ``.npz`` or ``.safetensors`` file with everything that is needed to go on, written after each epoch (and before
        the first). The weights of the best epoch stand beside it, ``last.npz`` beside ``last-best.npz``.
    patience : int, keyword only, optional
        Ends the training when the monitored value has not improved for this many epochs.
    monitor : {"loss", "accuracy", "val_loss", "val_accuracy"}, keyword only, optional
        The value that tells the best epoch; by default ``"val_loss"``, or ``"loss"`` where there is no validation.
    config : mapping, keyword only, optional
        Numbers and strings that describe the run. They stand in the checkpoint, and a run with others cannot go on
        from it.
    device : str, keyword only, optional
        Moves the model there (``"cuda"``, ``"cuda:1"``, ``"cpu"``); by default it stays where it is. Batches are moved
        to the model, so that loaders of NumPy arrays train it on a GPU.
    progress : bool, keyword only
        Whether to show a progress bar on standard error, where that is a terminal.
    log : callable or None, keyword only
        Takes a line after each epoch; ``print`` by default.
    process_group : Communicator, keyword only, optional
        Trains on all its ranks at once, :func:`fastconv.distributed.world` as a rule. Every rank has a Trainer, and a
        loader that gives it its ``shard`` of each batch; losses and accuracies are those of the whole batches. Rank 0
        writes the files and shows the progress. By default this process trains alone.

    Attributes
    ----------
    epoch : int
        Epochs that are done.
    history : History
        Their losses, accuracies, learning rates and speed.

    Raises
    ------
    ValueError, TypeError
        A parameter breaks its rule.

    Examples
    --------
    >>> import numpy as np, fastconv as fc, fastconv.nn as nn, fastconv.optim as optim
    >>> from fastconv.data import DataLoader, TensorDataset
    >>> _ = fc.manual_seed(0)
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    >>> train = DataLoader(TensorDataset(x, (x.sum(axis=1) > 0).astype(int)), batch_size=16, shuffle=True)
    >>> net = nn.Linear(2, 2)
    >>> trainer = fc.Trainer(net, optim.SGD(net.parameters(), lr=1.0), log=None)
    >>> history = trainer.fit(train, epochs=20)
    >>> history[-1]["accuracy"] > 0.9
    True
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: Callable[[Any, Any], Any] = F.cross_entropy,
        scheduler: LRScheduler | None = None,
        *,
        schedule_batches: bool = False,
        max_grad_norm: float | None = None,
        auxiliary_weight: float = 0.3,
        checkpoint: str | os.PathLike[str] | None = None,
        patience: int | None = None,
        monitor: str | None = None,
        config: Mapping[str, Any] | None = None,
        device: Any = None,
        progress: bool = True,
        log: Callable[[str], None] | None = print,
        process_group: Communicator | None = None,
    ) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"model must be a Module, got {type(model).__name__}")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
        own = {id(parameter) for parameter in model.parameters()}
        if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
            raise ValueError("optimizer must hold parameters of the model, got those of another")
        if scheduler is not None and (not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not optimizer):
            raise ValueError(f"scheduler must be a schedule of this optimizer, got {scheduler!r}")
        if schedule_batches and (scheduler is None or isinstance(scheduler, ReduceLROnPlateau)):
            raise ValueError("schedule_batches needs a scheduler that counts batches, not one that watches a value")
        if max_grad_norm is not None and not number("max_grad_norm", max_grad_norm) > 0:
            raise ValueError(f"max_grad_norm must be positive, got {max_grad_norm}")
        if device is not None:
            model.to(device=device)
        self.model, self.optimizer, self.loss, self.scheduler = model, optimizer, loss, scheduler
        self.schedule_batches, self.max_grad_norm = schedule_batches, max_grad_norm
        self.auxiliary_weight = number("auxiliary_weight", auxiliary_weight)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        if self.checkpoint is not None and self.checkpoint.suffix not in (".npz", ".safetensors"):
            raise ValueError(f"checkpoint must end in .npz or .safetensors, got {str(checkpoint)!r}")
        self.patience = None if patience is None else size("patience", patience, 1)
        self.monitor = None if monitor is None else choice("monitor", monitor, _MONITORS)
        self.config = dict(config or {})
        self.process_group = SingleProcess() if process_group is None else process_group
        first = self.process_group.rank == 0
        self.progress, self.log = progress and first, log if first else None
        self._network = DataParallel(model, process_group=self.process_group)
        self.epoch = 0
        self.history = History()
        self._best: float | None = None
        self._bad_epochs = 0
        self._loaded: Checkpoint | None = None

    # ---- training --------------------------------------------------------------------------------------------------

    def fit(self, train: Iterable[Any], epochs: int, validation: Iterable[Any] | None = None) -> History:
        """Train until `epochs` epochs are done, those before a checkpoint included.

        A model in evaluation mode is put into training mode. In one that is there, layers that were put into evaluation
        mode stay so, such as frozen normalisation (``net.features.eval()``).

        Parameters
        ----------
        train : DataLoader, or iterable of (input, target)
            Gone through once an epoch.
        epochs : int
        validation : DataLoader, or iterable of (input, target), optional

        Returns
        -------
        History

        Raises
        ------
        FloatingPointError
            The loss became NaN or infinite: with the step, and the layer where it began. Nothing of that epoch gets
            into the checkpoint.
        ValueError
            A target that is no class, a batch that is no pair, or a loader other than the checkpoint's or that of
            another rank.
        KeyboardInterrupt
            The checkpoint holds the last whole epoch then.
        """
        size("epochs", epochs, 0)
        if validation is None and (self.monitor or "").startswith("val_"):
            raise ValueError(f"monitor={self.monitor!r} needs validation, got none")
        if self._loaded is not None:
            if self._loaded.loader is not None and hasattr(train, "load_state_dict"):
                train.load_state_dict(self._loaded.loader)
            if self._loaded.rng is not None:  # once more: making loaders and layers has drawn from it since
                set_own_rng_state(self._loaded.rng, self.process_group)
            self._loaded = None
        check_same_order(train, self.process_group)
        if self.checkpoint is not None and self.epoch == 0:
            self.save(self.checkpoint, train)
        while self.epoch < epochs and not self._is_stopped():
            try:
                row = self._epoch(train, epochs)
                if validation is not None:
                    row.update({f"val_{name}": value for name, value in self.evaluate(validation).items()})
            except KeyboardInterrupt as error:
                error.add_note(f"in epoch {self.epoch + 1}; the checkpoint holds {self.epoch} whole epochs")
                raise
            self._finish(row, train, epochs)
        return self.history

    def _is_stopped(self) -> bool:
        return self.patience is not None and self._bad_epochs >= self.patience

    def _epoch(self, train: Iterable[Any], epochs: int) -> dict[str, Any]:
        if not self.model.training:  # in one that is, layers in evaluation mode stay so, such as frozen norms
            self._network.train()
        meter, rate = Meter(), self.optimizer.param_groups[0]["lr"]
        label = f"epoch {self.epoch + 1}/{epochs}"
        started = time.perf_counter()
        with _closing(iter(train)) as batches:
            steps = progress_bar(batches, _length(train), label, self.progress, meter.describe)
            for step, batch in enumerate(steps):
                try:
                    images, target = self._moved(batch)
                    self._step(images, target, meter, step)
                except Exception as error:
                    error.add_note(f"in step {step + 1} of epoch {self.epoch + 1}")
                    raise
        self._network.synchronize_buffers()
        meter.reduce(self.process_group)
        if not meter.count:
            raise ValueError("train must give at least one batch in each epoch, got none")
        broken = [name for name, value in self.model.state_dict().items() if not is_finite(value)]
        if broken:
            raise FloatingPointError(f"{broken[0]!r} is not finite after the last step of epoch {self.epoch + 1}")
        return {"epoch": self.epoch + 1, "lr": rate, **meter.values(), **meter.speed(time.perf_counter() - started)}

    def _step(self, images: Any, target: Any, meter: Meter, step: int) -> None:
        rng = get_rng_state()
        output = self._network(tensor(images))
        loss = self._loss(output, target)
        value = float(loss.item())
        if len(images) and not math.isfinite(value):
            raise FloatingPointError(
                f"the loss became {value} in step {step + 1} of epoch {self.epoch + 1}; it began in "
                f"{origin(self.model, images, rng)}"
            )
        self.optimizer.zero_grad()
        loss.backward()
        if self.max_grad_norm is not None:
            clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        if self.schedule_batches and self.scheduler is not None:
            self.scheduler.step()
        meter.add(value, _main(output), target, len(images))

    def _loss(self, output: Any, target: Any) -> Any:
        if not isinstance(output, tuple):
            return self.loss(output, target)
        loss, *others = (self.loss(part, target) for part in output if part is not None)
        with guard(loss.data):
            for other in others:
                loss = loss + self.auxiliary_weight * other
        return loss

    def _finish(self, row: dict[str, Any], train: Iterable[Any], epochs: int) -> None:
        """What follows an epoch: the schedule, the best value so far, history, checkpoint, a line."""
        name = self.monitor or ("val_loss" if "val_loss" in row else "loss")
        if name not in row:
            raise ValueError(f"monitor must be one of {', '.join(row)}, which were measured; got {name!r}")
        value = row[name]
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(value)
        elif self.scheduler is not None and not self.schedule_batches:
            self.scheduler.step()
        sign = -1 if "accuracy" in name else 1
        better = not math.isnan(value) and (self._best is None or sign * value < sign * self._best)
        self._best, self._bad_epochs = (value, 0) if better else (self._best, self._bad_epochs + 1)
        self.epoch += 1
        self.history.append(row)
        if self.checkpoint is not None:
            if better and self.process_group.rank == 0:
                save(self.model, self.best_checkpoint)
            self.save(self.checkpoint, train)
        if self.log is not None:
            self.log(_line(row, epochs) + (f"; no better {name} for {self._bad_epochs}" if not better else ""))

    # ---- validation and prediction ---------------------------------------------------------------------------------

    def evaluate(self, batches: Iterable[Any]) -> dict[str, float]:
        """Loss and, where targets are classes, accuracy over batches of (input, target), in evaluation mode."""
        meter = Meter()
        with self._evaluation(), _closing(iter(batches)) as items:
            for batch in progress_bar(items, _length(batches), "evaluation", self.progress, meter.describe):
                images, target = self._moved(batch)
                output = self.model(tensor(images))
                meter.add(float(self._loss(output, target).item()), _main(output), target, len(images))
        meter.reduce(self.process_group)
        if not meter.count:
            raise ValueError("batches must hold at least one, got none")
        return meter.values()

    def predict(self, batches: Iterable[Any]) -> np.ndarray:
        """The network's outputs (N, ...) for batches of inputs, or of (input, target), in evaluation mode."""
        outputs = []
        with self._evaluation(), _closing(iter(batches)) as items:
            for batch in progress_bar(items, _length(batches), "prediction", self.progress):
                images = batch[0] if isinstance(batch, tuple | list) else batch
                outputs.append(to_host(_main(self.model(tensor(self._moved((images, images))[0]))).data))
        if not outputs:
            raise ValueError("batches must hold at least one, got none")
        return np.concatenate(outputs)

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        with evaluation_mode(self.model), no_grad():
            yield

    def _moved(self, batch: Any) -> tuple[Any, Any]:
        """Input and target on the device of the model."""
        images, target = _pair(batch)
        place = place_of(self.model)
        if place == "cpu":
            return images, target
        return tuple(to_device(tensor(x).data, place) for x in (images, target))  # type: ignore[return-value]

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    @property
    def best_checkpoint(self) -> Path:
        """Where the weights of the best epoch are: beside `checkpoint`."""
        if self.checkpoint is None:
            raise ValueError("checkpoint must be given for the best weights to be kept")
        return self.checkpoint.with_stem(f"{self.checkpoint.stem}-best")

    def save(self, path: str | os.PathLike[str], loader: Any = None) -> None:
        """Write a checkpoint; the file appears whole or not at all. `loader` brings the order of its epochs.

        With several ranks all must call it, and rank 0 writes.
        """
        state = Checkpoint(
            epoch=self.epoch,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scheduler=None if self.scheduler is None else self.scheduler.state_dict(),
            loader=loader.state_dict() if hasattr(loader, "state_dict") else None,
            rng=gather_rng_states(self.process_group),
            history=self.history.rows,
            config=self.config,
            progress={"best": self._best, "bad_epochs": self._bad_epochs},
        )
        if self.process_group.rank == 0:
            write_checkpoint(path, state)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over a checkpoint: the next :meth:`fit` goes on bit for bit where it was written.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file is damaged, or of another model, optimiser, schedule or configuration: the message lists how they
            differ, and nothing is changed.
        """
        state = read_checkpoint(path)
        differing = [
            f"{name}: {state.config.get(name)!r} then, {self.config.get(name)!r} now"
            for name in sorted({*state.config, *self.config})
            if state.config.get(name) != self.config.get(name)
        ]
        if differing:
            raise ValueError(f"{path} belongs to a run with other options; {'; '.join(differing)}")
        if (state.scheduler is None) != (self.scheduler is None):
            raise ValueError(f"{path} was written {'without' if state.scheduler is None else 'with'} a schedule")
        model = {name: value.copy() for name, value in self.model.state_dict().items()}
        optimizer, rng = self.optimizer.state_dict(), get_rng_state()
        try:
            self.model.load_state_dict(state.model)
            self.optimizer.load_state_dict(state.optimizer)
            if state.rng is not None:
                set_own_rng_state(state.rng, self.process_group)
            if self.scheduler is not None and state.scheduler is not None:
                self.scheduler.load_state_dict(state.scheduler)
        except (ValueError, TypeError) as error:
            self.model.load_state_dict(model)
            self.optimizer.load_state_dict(optimizer)
            set_rng_state(rng)
            raise ValueError(f"{path}: {error}") from error
        self.epoch, self.history = state.epoch, History(state.history)
        self._best, self._bad_epochs = state.progress["best"], state.progress["bad_epochs"]
        self._loaded = replace(state, model={}, optimizer={})


def _length(batches: Any) -> int:
    return len(batches) if hasattr(batches, "__len__") else 0


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(f"batches must be pairs (input, target), got {type(batch).__name__}")
    return batch[0], batch[1]


def _main(output: Any) -> Tensor:
    """The output itself, without those of auxiliary classifiers."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def _closing(batches: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Stops a loader's workers also where the loop over it ended early."""
    try:
        yield batches
    finally:
        if hasattr(batches, "close"):
            batches.close()


def _line(row: Mapping[str, Any], epochs: int) -> str:
    parts = [f"epoch {row['epoch']:{len(str(epochs))}d}/{epochs}: loss {row['loss']:.4f}"]
    if "accuracy" in row:
        parts.append(f"accuracy {100 * row['accuracy']:.2f} %")
    if "val_loss" in row:
        parts.append(f"validation loss {row['val_loss']:.4f}")
    if "val_accuracy" in row:
        parts.append(f"accuracy {100 * row['val_accuracy']:.2f} %")
    return ", ".join([*parts, f"{row['images_per_second']:.0f} img/s"])
