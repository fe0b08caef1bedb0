"""Whole networks: inference as built and through `fastconv.optimize`, and a training step, against other libraries.

Inference   fastconv in both layouts and optimized, also with float32 precision "high"; torch contiguous, channels-last
            and through jit.optimize_for_inference; ONNX Runtime and OpenVINO
Training    forward, cross entropy, backward, SGD with momentum; both libraries contiguous and channels-last; with
            --memory also how far each way's resident memory rises, in a process of its own
Denormal    inference with the weights and statistics that a new MobileNetV2 starts with, which make activations ever
            smaller, and images so dark that these are denormal numbers; beside it the images as they are

A NAME that ends in .onnx is a file with one input: inference of it, in all libraries but torch.

All libraries have the same weights, otherwise with the statistics that one batch gives. Outputs are compared before
anything is timed. The last column is the time of the others' best way over that of fastconv's best at full precision;
for denormal activations fastconv's time with normal ones over that with denormal ones.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
import fastconv.nn.functional as F
from fastconv import models, optim

from . import memory, onnx_peers, torch_networks
from .measure import Effort, interleaved
from .run import set_threads

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


# In the order in which they are measured: training changes statistics.
MODES = ("inference", "denormal", "training")
DENORMAL, DARKNESS = "mobilenet_v2", np.float32(1e-36)
HIGH = "fastconv high"


@dataclass(frozen=True)
class NetworkRow:
    """Seconds of each way for one network; `difference` of the outputs from torch's, as a share of the largest.

    `memory` is the peak of a training step in bytes, where it was measured.
    """

    network: str
    mode: str
    batch: int
    threads: int
    seconds: dict[str, float]
    spread: dict[str, float]
    difference: float | None
    memory: dict[str, int] = field(default_factory=dict)

    def best(self, ours: bool) -> float | None:
        """Seconds of the fastest way of fastconv (not at reduced precision) or of the others."""
        return min(
            (s for way, s in self.seconds.items() if way.startswith("fastconv") is ours and way != HIGH), default=None
        )

    @property
    def ratio(self) -> float | None:
        """Time of the others' best way over that of fastconv's best; None without others."""
        if self.mode == "denormal":
            return self.seconds["fastconv normal"] / self.seconds["fastconv"]
        ours, theirs = self.best(True), self.best(False)
        return None if theirs is None or ours is None else theirs / ours

    @property
    def ratio_high(self) -> float | None:
        """The same with fastconv at precision "high"; None where that was not measured."""
        theirs = self.best(False)
        return None if theirs is None or HIGH not in self.seconds else theirs / self.seconds[HIGH]

    def __str__(self) -> str:
        ways = "  ".join(f"{way} {1e3 * s:.1f} ms ±{100 * self.spread[way]:.0f} %" for way, s in self.seconds.items())
        ratio = "" if self.ratio is None else f"  {self.ratio:.2f}x"
        high = "" if self.ratio_high is None else f", high {self.ratio_high:.2f}x"
        peaks = "".join(f"  {way} {size / 1e6:.0f} MB" for way, size in self.memory.items())
        return (
            f"{self.network:<12} {self.mode:<9} batch {self.batch}, {self.threads} threads  {ways}{ratio}{high}{peaks}"
        )


@dataclass(frozen=True)
class Plan:
    """What is measured of each network: "inference" with every batch and number of threads, the rest with the last."""

    batches: Sequence[int]
    threads: Sequence[int]
    modes: Sequence[str]
    effort: Effort
    memory: bool = False  # also that of training steps


def run(names: Sequence[str], plan: Plan, torch: Any = None, others: Mapping[str, Any] = {}) -> Iterator[NetworkRow]:
    """Measure networks in the modes of `MODES`; without `torch` fastconv alone.

    `torch` is that of `bench.peers`, `others` those of `bench.onnx_peers`, which need torch, too.

    Raises
    ------
    ArithmeticError
        The outputs of two libraries differ by more than rounding.
    """
    for name in names:
        if name.endswith(".onnx"):
            yield from _file_rows(name, plan, others)
            continue
        shape = models.model_info(name).input_shape
        images = np.random.default_rng(0).standard_normal((max(plan.batches), *shape), np.float32)
        module = None if torch is None else torch.module
        ours, theirs, untrained = _twins(name, images[:2], module)
        model = onnx_peers.export(module, theirs.eval(), (1, *shape)) if torch is not None and others else b""
        difference = None if torch is None else _difference(name, ours, theirs, images[:1], module)
        for mode in sorted(plan.modes, key=MODES.index):
            last = (plan.threads[-1:], plan.batches[-1:] if mode == "training" else plan.batches[:1])
            if mode == "denormal" and name != DENORMAL:
                continue
            for threads, batch in itertools.product(*((plan.threads, plan.batches) if mode == "inference" else last)):
                set_threads(threads, torch)
                x = images[:batch]
                if mode == "inference":
                    calls = _inference(ours, theirs, x, module)
                    calls |= {each: peer.call(model, x, threads) for each, peer in others.items() if model}
                elif mode == "training":
                    calls = _training(ours, theirs, x, module)
                else:
                    calls = _denormal(ours, untrained, theirs, x, module)
                if mode == "inference":
                    _agree(name, {way: call for way, call in calls.items() if way in ("fastconv", *others)})
                peaks = mode == "training" and plan.memory
                sizes = {way: memory.peak(way, name, batch, threads) for way in calls} if peaks else {}
                yield _timed(calls, plan.effort, name, mode, batch, threads, difference, sizes)


def _timed(
    calls: Mapping[str, Callable[[], Any]],
    effort: Effort,
    name: str,
    mode: str,
    batch: int,
    threads: int,
    difference: float | None = None,
    sizes: Mapping[str, int] = {},
) -> NetworkRow:
    timings = interleaved(calls, effort)
    seconds = {way: timing.seconds for way, timing in timings.items()}
    spread = {way: timing.spread for way, timing in timings.items()}
    return NetworkRow(name, mode, batch, threads, seconds, spread, difference, dict(sizes))


def _file_rows(path: str, plan: Plan, others: Mapping[str, Any]) -> Iterator[NetworkRow]:
    """Inference of the network in an ONNX file, with the batch that the file fixes where it does."""
    net = fc.onnx.load(path)
    if len(net.input_shapes) != 1 or not all(isinstance(size, int) for size in net.input_shapes[0][1:]):
        raise ValueError(f"{path} must have one input whose sizes but the batch are fixed, got {net.input_shapes}")
    free, *rest = net.input_shapes[0]
    name, model = Path(path).stem, Path(path).read_bytes()
    for threads, batch in itertools.product(plan.threads, [free] if isinstance(free, int) else plan.batches):
        set_threads(threads, None)
        x = np.random.default_rng(0).standard_normal((batch, *rest), np.float32)
        calls = _inference(net, None, x, None)
        calls |= {each: peer.call(model, x, threads) for each, peer in others.items()}
        _agree(name, {way: call for way, call in calls.items() if way in ("fastconv", *others)})
        yield _timed(calls, plan.effort, name, "inference", batch, threads)


def _twins(name: str, x: np.ndarray, torch: Any) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """The network, and torch's with the same weights, both with the statistics of this batch; the state before them."""
    build, build_theirs = NETWORKS[name]
    fc.manual_seed(0)
    ours = build()
    untrained = {key: np.array(value) for key, value in ours.state_dict().items()} if name == DENORMAL else {}
    norms = [module for module in ours.modules() if hasattr(module, "running_mean")]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    ours.train()(x)
    for norm, momentum in zip(norms, before):
        norm.momentum = momentum
    if torch is None:
        return ours, None, untrained
    theirs = build_theirs(torch)
    theirs.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in ours.state_dict().items()})
    return ours, theirs, untrained


def _difference(name: str, ours: Any, theirs: Any, x: np.ndarray, torch: Any) -> float:
    with torch.inference_mode():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
    difference = float(np.abs(ours.eval()(x) - expected).max() / np.abs(expected).max())
    if not difference < 1e-3:
        raise ArithmeticError(f"{name}: the outputs differ from torch's by {difference:.1e} of the largest")
    return difference


def _agree(name: str, calls: Mapping[str, Callable[[], Any]]) -> None:
    """Like `_difference`, for outputs of the same input."""
    first, *others = calls
    expected = calls[first]()
    for way in others:
        difference = float(np.abs(calls[way]() - expected).max() / np.abs(expected).max())
        if not difference < 1e-3:
            raise ArithmeticError(f"{name}: the outputs of {way} differ from ours by {difference:.1e} of the largest")


def _at_high_precision(call: Callable[[], Any]) -> Callable[[], Any]:
    def guarded() -> Any:
        before = fc.get_float32_precision()
        fc.set_float32_precision("high")
        try:
            return call()
        finally:
            fc.set_float32_precision(before)

    return guarded


def _without_gradients(torch: Any, model: Any, argument: Any) -> Callable[[], Any]:
    def call() -> Any:
        with torch.inference_mode():
            return model(argument)

    return call


def channels_last(x: np.ndarray) -> np.ndarray:
    """`x` with channels-last strides."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def _inference(ours: Any, theirs: Any, x: np.ndarray, torch: Any) -> dict[str, Callable[[], Any]]:
    ours.eval()
    fast = fc.optimize(ours, (1, *x.shape[1:]))
    x_last = channels_last(x)
    calls: dict[str, Callable[[], Any]] = {
        "fastconv": lambda: ours(x),
        "fastconv nhwc": lambda: ours(x_last),
        "fastconv optimized": lambda: fast(x),
        HIGH: _at_high_precision(lambda: fast(x)),
    }
    if torch is None:
        return calls
    theirs.eval()
    tensor = torch.from_numpy(x)
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    tensor_last = tensor.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(copy.deepcopy(theirs), tensor))
        fused = torch.jit.optimize_for_inference(traced)

    return calls | {
        "torch nchw": _without_gradients(torch, theirs, tensor),
        "torch nhwc": _without_gradients(torch, last, tensor_last),
        "torch optimized": _without_gradients(torch, fused, tensor),
    }


def _denormal(
    ours: Any, state: Mapping[str, np.ndarray], theirs: Any, x: np.ndarray, torch: Any
) -> dict[str, Callable[[], Any]]:
    fresh, dark = copy.deepcopy(ours).eval(), x * DARKNESS
    fresh.load_state_dict(state)
    calls: dict[str, Callable[[], Any]] = {"fastconv": lambda: fresh(dark), "fastconv normal": lambda: fresh(x)}
    if torch is None:
        return calls
    their_fresh = copy.deepcopy(theirs).eval()
    their_fresh.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return calls | {
        "torch": _without_gradients(torch, their_fresh, torch.from_numpy(dark)),
        "torch normal": _without_gradients(torch, their_fresh, torch.from_numpy(x)),
    }


# A small step, so that hundreds of them on one batch leave the weights where they are.
_OPTIONS: dict[str, Any] = {"lr": 1e-6, "momentum": 0.9}


def _outputs(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def own_step(model: Any, x: np.ndarray) -> Callable[[], None]:
    """A training step of our network on `x`."""
    labels = np.arange(len(x)) % 1000
    optimizer = optim.SGD(model.parameters(), **_OPTIONS)

    def step() -> None:
        optimizer.zero_grad()
        sum(F.cross_entropy(y, labels) for y in _outputs(model(fc.tensor(x)))).backward()
        optimizer.step()

    return step


def their_step(torch: Any, model: Any, x: np.ndarray, memory_format: Any) -> Callable[[], None]:
    """The same of torch's, which has that format, as `x` will."""
    tensor = torch.from_numpy(x).to(memory_format=memory_format)
    target = torch.from_numpy(np.arange(len(x)) % 1000)
    optimizer = torch.optim.SGD(model.parameters(), **_OPTIONS)

    def step() -> None:
        optimizer.zero_grad()
        sum(torch.nn.functional.cross_entropy(y, target) for y in _outputs(model(tensor))).backward()
        optimizer.step()

    return step


def _training(ours: Any, theirs: Any, x: np.ndarray, torch: Any) -> dict[str, Callable[[], Any]]:
    ours.train()
    calls: dict[str, Callable[[], Any]] = {
        "fastconv": own_step(ours, x),
        "fastconv nhwc": own_step(ours, channels_last(x)),
    }
    if torch is None:
        return calls
    formats = {"torch nchw": torch.contiguous_format, "torch nhwc": torch.channels_last}
    return calls | {
        way: their_step(torch, copy.deepcopy(theirs).train().to(memory_format=memory_format), x, memory_format)
        for way, memory_format in formats.items()
    }
