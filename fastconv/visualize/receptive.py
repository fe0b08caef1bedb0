"""Receptive fields: which part of the image a unit can see, by arithmetic over whatever the forward pass does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

import fastconv.nn.functional as F
from fastconv.nn.functional.parameters import integers
from fastconv.nn.modules.arguments import size
from fastconv.nn.modules.module import Module
from fastconv.reference.window import convolution_window
from fastconv.tape import Node, enable_grad, keep_values, parents_of, substitute_rules, topological_order
from fastconv.tensor import Tensor
from fastconv.visualize.layers import first_output, hooks, inspection

__all__ = ["ReceptiveField", "ReceptiveFields", "receptive_field"]

Span = tuple[Fraction, Fraction, Fraction]
"""Step, first and last: unit u of a dimension sees the pixels from ``step * u + first`` to ``step * u + last``."""


@dataclass(frozen=True)
class ReceptiveField:
    """What the units of one layer see, one entry for each dimension of the image.

    Attributes
    ----------
    size : tuple of int
        Pixels that a unit can see, those in the padding included.
    stride : tuple of int or Fraction
        Pixels from one unit's field to the next one's; 0 where all units see the same (after a flattening, a global
        pooling), a Fraction after transposed convolutions.
    start : tuple of int or Fraction
        First pixel that unit 0 sees (with a Fraction, the next whole one); negative in the padding.

    Examples
    --------
    >>> from fastconv.visualize import ReceptiveField
    >>> ReceptiveField(size=(6, 6), stride=(2, 2), start=(0, 0)).box((3, 1))
    ((6, 12), (2, 8))
    """

    size: tuple[int, ...]
    stride: tuple[Any, ...]
    start: tuple[Any, ...]

    def box(self, position: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """(start, stop) in each dimension of what the unit at `position` sees, not clipped to the image."""
        if len(position) != len(self.size):
            raise ValueError(f"position must have {len(self.size)} entries, got {position!r}")
        starts = [math.ceil(s * u + first) for s, u, first in zip(self.stride, position, self.start)]
        return tuple((start, start + n) for start, n in zip(starts, self.size))


class ReceptiveFields(dict[str, ReceptiveField]):
    """Receptive fields by the names of the layers; ``print`` shows a table."""

    def __str__(self) -> str:
        cells = [("Layer", "Field", "Stride", "Start")]
        for name, field in self.items():
            size, stride, start = (" x ".join(map(str, entry)) for entry in (field.size, field.stride, field.start))
            cells.append((name, size, stride, start))
        widths = [max(len(row[column]) for row in cells) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
        return "\n".join([lines[0], "-" * (sum(widths) + 6), *lines[1:]])


def receptive_field(model: Module, input_shape: Sequence[int], layers: str | Sequence[str] | None = None) -> Any:
    """Receptive field of layers: how many pixels a unit sees, how far apart and where the first field begins.

    Parameters
    ----------
    model : Module
        Any: the forward pass runs once on zeros, and the fields follow its operations, branches and shortcuts included.
    input_shape : sequence of int
        Shape of an input with its batch dimension, such as ``(1, 3, 224, 224)``; one, two or three spatial dimensions.
    layers : str, sequence of str, or None
        Names of layers; None: all layers that contain no others and depend on the input.

    Returns
    -------
    ReceptiveField, or ReceptiveFields
        The field for one name; for several a dictionary in the order of the names, which prints as a table.

    Raises
    ------
    ValueError
        There is no such layer, the forward pass does not call it, or its output does not depend on the input.

    Notes
    -----
    Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks": through a window of size
    k, stride s, dilation d and padding p before the first pixel, a field of step a grows by ``a (d (k - 1))``, begins
    ``a p`` earlier and steps by ``a s``; where branches meet, it is what any of them sees. Statistics of
    normalisations are not counted. An operation that is not known (slicing, matrix products, a change of shape) is
    taken to see everything where it changes the size of a spatial dimension and one place where it does not.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv import visualize
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, dilation=2))
    >>> visualize.receptive_field(net, (1, 3, 32, 32), "3")
    ReceptiveField(size=(12, 12), stride=(2, 2), start=(-1, -1))
    >>> print(visualize.receptive_field(net, (1, 3, 32, 32)))
    Layer  Field    Stride  Start
    -------------------------------
    0      3 x 3    1 x 1   -1 x -1
    1      3 x 3    1 x 1   -1 x -1
    2      4 x 4    2 x 2   -1 x -1
    3      12 x 12  2 x 2   -1 x -1
    """
    shape = tuple(size("input_shape", entry, 1) for entry in input_shape)
    if not 3 <= len(shape) <= 5:
        raise ValueError(f"input_shape must be (N, C, ...) with one to three spatial dimensions, got {shape}")
    calls: dict[int, tuple[Any, ...]] = {}

    def noting(spec: Any) -> Callable[..., Any]:
        def rule(wanted, *values):
            output, pullback = spec.rule(wanted, *values)
            calls[id(pullback)] = (spec, values, pullback)  # kept, so that no other pullback gets its id
            return output, pullback

        return rule

    with inspection(model), enable_grad():
        dtype = next((parameter.data.dtype for parameter in model.parameters()), np.dtype(np.float32))
        image = Tensor(np.zeros(shape, dtype), requires_grad=True)
        names = [name for name, module in model.named_modules() if not module._modules] if layers is None else layers
        wanted = [layers] if isinstance(layers, str) else list(names)
        found: dict[str, Any] = {}
        with (
            substitute_rules(noting),
            keep_values() as values,
            hooks(model, wanted, lambda name, output: found.update({name: first_output(output)})),
        ):
            model(image)
    fields = ReceptiveFields()
    known: dict[int, tuple[Span, ...]] = {id(image): ((Fraction(1), Fraction(0), Fraction(0)),) * (len(shape) - 2)}
    for name in wanted:
        output = found.get(name)
        if isinstance(output, Tensor) and (output.requires_grad or output is image):
            fields[name] = _as_field(_spans(output, known, calls, values))
        elif layers is not None:
            reason = "does not depend on the input" if name in found else "was not called by the forward pass"
            raise ValueError(f"layer {name!r} {reason}, so it has no receptive field")
    return fields[layers] if isinstance(layers, str) else fields


def _as_field(spans: tuple[Span, ...]) -> ReceptiveField:
    sizes = tuple(math.floor(last - first) + 1 for _, first, last in spans)
    return ReceptiveField(sizes, tuple(_plain(step) for step, _, _ in spans), tuple(_plain(low) for _, low, _ in spans))


def _plain(number: Fraction) -> int | Fraction:
    return int(number) if number.denominator == 1 else number


def _spans(
    output: Tensor,
    known: dict[int, tuple[Span, ...]],
    calls: dict[int, tuple[Any, ...]],
    values: dict[int, Tensor],
) -> tuple[Span, ...]:
    """The spans of `output`; `known` holds those of every vertex that has been passed, by identity."""
    for node in topological_order(output):
        if id(node) not in known and isinstance(node, Node):
            parents = [parent for parent in parents_of(node) if id(parent) in known]
            shapes = [(p if isinstance(p, Tensor) else values[id(p)]).shape for p in parents]
            shape = values[id(node)].shape
            call = calls.get(id(node.pullback))
            through = _WINDOWS.get(call[0].rule) if call else None
            if call and through and parents:
                options = dict(zip(call[0].names, call[1]))
                source = shapes[0][-len(known[id(parents[0])]) :]
                windows = through(options, source, shape[-len(source) :])
                known[id(node)] = tuple(_compose(span, w) for span, w in zip(known[id(parents[0])], windows))
            else:
                mixing = call is not None and call[0].rule is F.linear.spec.rule
                arriving = [_passed_on(known[id(p)], before, shape, mixing) for p, before in zip(parents, shapes)]
                if arriving:
                    known[id(node)] = tuple(_union(dims) for dims in zip(*arriving))
    return known[id(output._node or output)]


def _compose(span: Span, window: Span) -> Span:
    """What a unit sees that sees, through `window`, units with this `span`."""
    (step, first, last), (inner, low, high) = span, window
    return step * inner, first + step * low, last + step * high


def _passed_on(spans: tuple[Span, ...], source: tuple[int, ...], target: tuple[int, ...], mixing: bool) -> list[Any]:
    """Spans and sizes after an operation without a window: kept, spread from one position, or the whole dimension."""
    nd = len(spans)
    result = []
    for i, (step, first, last) in enumerate(spans):
        here = len(source) >= nd + 2 and len(target) >= nd + 2
        before = source[len(source) - nd + i] if len(source) >= nd + 2 else 1
        after = target[len(target) - nd + i] if len(target) >= nd + 2 else 1
        if here and before == after and not (mixing and i == nd - 1):
            result.append(((step, first, last), after))
        else:  # for a dimension of one position this is that position's field
            result.append(((Fraction(0), first, last + step * (before - 1)), after))
    return result


def _union(arriving: Sequence[tuple[Span, int]]) -> Span:
    """What units see that see through several branches."""
    spans = [span for span, _ in arriving]
    steps = {step for step, _, _ in spans}
    if len(steps) == 1:
        return steps.pop(), min(first for _, first, _ in spans), max(last for _, _, last in spans)
    whole = [(first, last + step * (count - 1)) for (step, first, last), count in arriving]
    return Fraction(0), min(first for first, _ in whole), max(last for _, last in whole)


# What one output position of an operation sees of its input, for each dimension.


def _windows(kernel: Any, stride: Any, padding: Any, dilation: Any, source: tuple[int, ...]) -> list[Span]:
    """Of a sliding window: output o sees the inputs from ``stride * o - padding`` on."""
    kernel = integers(kernel, len(source), "kernel_size", 1)
    seen = convolution_window(source, kernel, kernel if stride is None else stride, padding, dilation)
    return [
        (Fraction(s), Fraction(-before), Fraction(d * (k - 1) - before))
        for k, s, before, d in zip(seen.kernel, seen.stride, seen.before, seen.dilation)
    ]


def _convolution(options: dict[str, Any], source: tuple[int, ...], target: tuple[int, ...]) -> list[Span]:
    o = options
    return _windows(o["weight"].shape[2:], o["stride"], o["padding"], o["dilation"], source)


def _pooling(options: dict[str, Any], source: tuple[int, ...], target: tuple[int, ...]) -> list[Span]:
    o = options
    return _windows(o["kernel_size"], o["stride"], o.get("padding", 0), o.get("dilation", 1), source)


def _scattering(options: dict[str, Any], source: tuple[int, ...], target: tuple[int, ...]) -> list[Span]:
    """Of a window in reverse: input i reaches the outputs from ``stride * i - padding`` on."""
    nd = len(source)
    kernel = integers(options["kernel_size"], nd, "kernel_size", 1) if "kernel_size" in options else None
    kernel = options["weight"].shape[2:] if kernel is None else kernel
    stride = kernel if options["stride"] is None else integers(options["stride"], nd, "stride", 1)
    padding = integers(options["padding"], nd, "padding", 0)
    dilation = integers(options.get("dilation", 1), nd, "dilation", 1)
    return [
        (Fraction(1, s), Fraction(p - d * (k - 1), s), Fraction(p, s))
        for k, s, p, d in zip(kernel, stride, padding, dilation)
    ]


def _adaptive(options: dict[str, Any], source: tuple[int, ...], target: tuple[int, ...]) -> list[Span]:
    """Output o of m sees the inputs from ``floor(o n / m)`` to ``ceil((o + 1) n / m) - 1``, about.

    A single output has no neighbour that would be `n` further on.
    """
    spans = []
    for n, m in zip(source, target):
        slack = Fraction(0) if n % m == 0 else Fraction(m - 1, m)
        spans.append((Fraction(n, m) if m > 1 else Fraction(0), -slack, Fraction(n, m) + slack - 1))
    return spans


def _shift(options: dict[str, Any], source: tuple[int, ...], target: tuple[int, ...]) -> list[Span]:
    """Of padding, whatever fills it: the pads come in pairs from the last dimension on."""
    pads = [*options["pad"], *(0,) * (2 * len(source) - len(options["pad"]))]
    shifts = [Fraction(-int(pads[2 * i])) for i in reversed(range(len(source)))]
    return [(Fraction(1), shift, shift) for shift in shifts]


def _resampling(options: dict[str, Any], source: tuple[int, ...], target: tuple[int, ...]) -> list[Span]:
    """Output o sees inputs around a point: that below it, the two beside it, four of them; with antialiasing more."""
    mode = options["mode"]
    if mode == "area":
        return _adaptive(options, source, target)
    before, after = {"nearest": (0, 0), "nearest-exact": (0, 0), "bicubic": (1, 2)}.get(mode, (0, 1))
    spans = []
    for n, m in zip(source, target):
        corners = options["align_corners"]
        step = Fraction(n - 1, max(m - 1, 1)) if corners else Fraction(n, m)
        if mode == "nearest" or (corners and not options["antialias"]):
            point = Fraction(0)
        else:
            point = step / 2 - (0 if mode == "nearest-exact" else Fraction(1, 2))
        if options["antialias"]:
            reach = (before + 1) * max(step, Fraction(1))
            spans.append((step, point - reach, point + reach))
        else:  # points are multiples of 1 / d, and so is how far they lie above the input below them
            d = math.lcm(step.denominator, point.denominator)
            spans.append((step, point - before - 1 + Fraction(1, d), point + after - (Fraction(1, d) if after else 0)))
    return spans


_WINDOWS: dict[Any, Callable[..., list[Span]]] = {
    getattr(F, name).spec.rule: through
    for through, names in (
        (_convolution, ("conv{}d",)),
        (_scattering, ("conv_transpose{}d", "max_unpool{}d")),
        (_pooling, ("max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "lp_pool{}d")),
        (_adaptive, ("adaptive_avg_pool{}d", "adaptive_max_pool{}d", "adaptive_max_pool{}d_with_indices")),
    )
    for name in (pattern.format(nd) for pattern in names for nd in (1, 2, 3))
} | {F.pad.spec.rule: _shift, F.interpolate.spec.rule: _resampling}
