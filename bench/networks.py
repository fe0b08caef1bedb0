"""Whole networks: inference as built and through `fastconv.optimize`, and a training step, against torch.

Inference   fastconv, fastconv.optimize; torch contiguous, channels-last and through jit.optimize_for_inference
Training    forward, cross entropy, backward, SGD with momentum; torch contiguous and channels-last

Both libraries have the same weights, with the statistics of normalisations that one batch gives: with those that a new
network starts with, activations would shrink to denormal numbers from layer to layer. Outputs are compared before
anything is timed. The last column is the time of torch's best way over that of fastconv's best.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastconv as fc
import fastconv.nn.functional as F
from fastconv import models, optim

from . import torch_networks
from .measure import Effort, interleaved

_VGG16 = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
_MOBILENET = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]

# Ours, theirs. The auxiliary classifiers of GoogLeNet are part of its training.
NETWORKS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "resnet18": (models.resnet18, lambda torch: torch_networks.resnet(torch, False, (2, 2, 2, 2), 1000, 3)),
    "resnet50": (models.resnet50, lambda torch: torch_networks.resnet(torch, True, (3, 4, 6, 3), 1000, 3)),
    "vgg16": (
        lambda: models.vgg16(dropout=0.0),
        lambda torch: torch_networks.vgg(torch, _VGG16, 1000, 3, 4096, 7),
    ),
    "googlenet": (
        lambda: models.googlenet(dropout=0.0, dropout_aux=0.0),
        lambda torch: torch_networks.googlenet(torch, 1000, 3, 1.0),
    ),
    "densenet121": (
        models.densenet121,
        lambda torch: torch_networks.densenet(torch, 32, (6, 12, 24, 16), 64, 1000, 3),
    ),
    "mobilenet_v2": (
        lambda: models.mobilenet_v2(dropout=0.0),
        lambda torch: torch_networks.mobilenet_v2(torch, 1000, 3, _MOBILENET, 32, 1280),
    ),
}


@dataclass(frozen=True)
class NetworkRow:
    """Seconds of each way for one network; `difference` of the outputs from torch's, as a share of the largest."""

    network: str
    mode: str
    batch: int
    seconds: dict[str, float]
    spread: dict[str, float]
    difference: float | None

    @property
    def ratio(self) -> float | None:
        """Time of torch's best way over that of fastconv's best; None without torch."""
        best = {
            library: min((s for way, s in self.seconds.items() if way.startswith(library)), default=None)
            for library in ("fastconv", "torch")
        }
        return None if best["torch"] is None else best["torch"] / best["fastconv"]

    def __str__(self) -> str:
        ways = "  ".join(f"{way} {1e3 * s:.1f} ms ±{100 * self.spread[way]:.0f} %" for way, s in self.seconds.items())
        ratio = "" if self.ratio is None else f"  {self.ratio:.2f}x"
        return f"{self.network:<12} {self.mode:<9} batch {self.batch}  {ways}{ratio}"


def run(
    names: Sequence[str], batch: int, modes: Sequence[str], effort: Effort, torch: Any = None
) -> Iterator[NetworkRow]:
    """Measure networks in the modes "inference" and "training"; without `torch` fastconv alone.

    Raises
    ------
    ArithmeticError
        The outputs of the two libraries differ by more than rounding.
    """
    for name in names:
        x = np.random.default_rng(0).standard_normal((batch, *models.model_info(name).input_shape), np.float32)
        ours, theirs = _twins(name, x[:2], torch)
        for mode in modes:
            calls = (_inference if mode == "inference" else _training)(ours, theirs, x, torch)
            difference = None if torch is None else _difference(name, ours, theirs, x[:1], torch)
            timings = interleaved(calls, effort)
            yield NetworkRow(
                name,
                mode,
                batch,
                {way: timing.seconds for way, timing in timings.items()},
                {way: timing.spread for way, timing in timings.items()},
                difference,
            )


def _twins(name: str, x: np.ndarray, torch: Any) -> tuple[Any, Any]:
    """The network, and torch's with the same weights; both with the statistics of this batch."""
    build, build_theirs = NETWORKS[name]
    fc.manual_seed(0)
    ours = build()
    norms = [module for module in ours.modules() if hasattr(module, "running_mean")]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    ours.train()(x)
    for norm, momentum in zip(norms, before):
        norm.momentum = momentum
    if torch is None:
        return ours, None
    theirs = build_theirs(torch)
    theirs.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in ours.state_dict().items()})
    return ours, theirs


def _difference(name: str, ours: Any, theirs: Any, x: np.ndarray, torch: Any) -> float:
    with torch.inference_mode():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
    difference = float(np.abs(ours.eval()(x) - expected).max() / np.abs(expected).max())
    if not difference < 1e-3:
        raise ArithmeticError(f"{name}: the outputs differ from torch's by {difference:.1e} of the largest")
    return difference


def _inference(ours: Any, theirs: Any, x: np.ndarray, torch: Any) -> dict[str, Callable[[], Any]]:
    ours.eval()
    fast = fc.optimize(ours, (1, *x.shape[1:]))
    calls: dict[str, Callable[[], Any]] = {"fastconv": lambda: ours(x), "fastconv optimized": lambda: fast(x)}
    if torch is None:
        return calls
    theirs.eval()
    tensor = torch.from_numpy(x)
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    tensor_last = tensor.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(copy.deepcopy(theirs), tensor))
        fused = torch.jit.optimize_for_inference(traced)

    def guarded(model: Any, argument: Any) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode():
                return model(argument)

        return call

    return calls | {
        "torch nchw": guarded(theirs, tensor),
        "torch nhwc": guarded(last, tensor_last),
        "torch optimized": guarded(fused, tensor),
    }


def _training(ours: Any, theirs: Any, x: np.ndarray, torch: Any) -> dict[str, Callable[[], Any]]:
    labels = np.arange(len(x)) % 1000

    def outputs(result: Any) -> tuple[Any, ...]:
        return result if isinstance(result, tuple) else (result,)

    # A small step, so that hundreds of them on one batch leave the weights where they are.
    options: dict[str, Any] = {"lr": 1e-6, "momentum": 0.9}
    ours.train()
    own = optim.SGD(ours.parameters(), **options)

    def step() -> None:
        own.zero_grad()
        sum(F.cross_entropy(y, labels) for y in outputs(ours(fc.tensor(x)))).backward()
        own.step()

    calls: dict[str, Callable[[], Any]] = {"fastconv": step}
    if torch is None:
        return calls

    def peer(memory_format: Any) -> Callable[[], None]:
        model = copy.deepcopy(theirs).train().to(memory_format=memory_format)
        tensor = torch.from_numpy(x).to(memory_format=memory_format)
        target = torch.from_numpy(labels)
        optimizer = torch.optim.SGD(model.parameters(), **options)

        def step() -> None:
            optimizer.zero_grad()
            sum(torch.nn.functional.cross_entropy(y, target) for y in outputs(model(tensor))).backward()
            optimizer.step()

        return step

    return calls | {"torch nchw": peer(torch.contiguous_format), "torch nhwc": peer(torch.channels_last)}
