"""Where a sliding window meets its input: output sizes, padding rules, and the positions each kernel tap touches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks

Index = tuple[Any, ...]


@dataclass(frozen=True)
class Window:
    """One window operation: input and output size; kernel, stride, padding on both sides and dilation a dimension."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...]

    def taps(self) -> Iterator[tuple[Index, Index, Index]]:
        """For each kernel tap that meets the input: the tap, the output positions that see it, and what they see.

        Output o sees input o * stride + tap * dilation - before. Positions in the padding are left out of the slices,
        so that no padded copy is needed; they index the last dimensions of an array.
        """
        axes = [
            list(_axis_taps(*numbers))
            for numbers in zip(self.size, self.kernel, self.stride, self.before, self.dilation, self.out)
        ]
        for combination in itertools.product(*axes):
            tap, dst, src = zip(*combination)
            yield tap, (..., *dst), (..., *src)


def _axis_taps(
    size: int, kernel: int, stride: int, before: int, dilation: int, out: int
) -> Iterator[tuple[int, slice, slice]]:
    # Taps outside first..last see padding at every output; a kernel of 2**40 in 2**39 of padding would never end.
    first = max(0, -(((out - 1) * stride - before) // dilation))
    last = min(kernel - 1, (size - 1 + before) // dilation)
    for tap in range(first, last + 1):
        offset = tap * dilation - before
        low = max(0, -(offset // stride))
        high = min(out, (size - 1 - offset) // stride + 1)
        if low < high:
            start = low * stride + offset
            yield tap, slice(low, high), slice(start, start + (high - low - 1) * stride + 1, stride)


def _transposed(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(before for before, _ in pairs), tuple(after for _, after in pairs)


def effective_kernel(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Input positions from the first to the last tap."""
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    for number in extent:
        if number > checks.INT64_MAX:
            raise ValueError(
                f"dilation is {dilation}: dilation * (kernel - 1) + 1 overflows 64 bits with kernel {kernel}"
            )
    return extent


def padding_pairs(padding: object, nd: int) -> tuple[tuple[int, int], ...]:
    """(before, after) for each dimension, from an integer, a sequence of integers or one of pairs."""
    if isinstance(padding, np.ndarray) and padding.ndim:
        padding = padding.tolist()
    if not (isinstance(padding, list | tuple) and padding and checks.is_sequence(padding[0])):
        return tuple((amount, amount) for amount in checks.integers("padding", padding, nd, 0))
    pairs = [checks.sequence("padding", entry, 2) for entry in checks.sequence("padding", padding, nd)]
    return tuple((checks.integer("padding", before, 0), checks.integer("padding", after, 0)) for before, after in pairs)


def _pairs_for(
    padding: object, size: tuple[int, ...], steps: tuple[int, ...], extent: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """(before, after) a dimension; "same" is ONNX SAME_UPPER: ceil(size / stride) outputs, the odd pad behind."""
    if not isinstance(padding, str):
        return padding_pairs(padding, len(size))
    if checks.choice("padding", padding, ("same", "valid")) == "valid":
        return ((0, 0),) * len(size)
    totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(size, steps, extent)]
    return tuple((total // 2, total - total // 2) for total in totals)


def convolution_window(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: object,
    padding: object,
    dilation: object,
) -> Window:
    """The window of a convolution; `padding` may also be "valid" or "same" (ONNX SAME_UPPER, also with a stride)."""
    nd = len(size)
    steps = checks.integers("stride", stride, nd, 1)
    gaps = checks.integers("dilation", dilation, nd, 1)
    extent = effective_kernel(kernel, gaps)
    pairs = _pairs_for(padding, size, steps, extent)
    out = []
    for n, (before, after), e, s in zip(size, pairs, extent, steps):
        padded = n + before + after
        if padded > checks.INT64_MAX:
            raise ValueError(f"padding is {checks.describe(padding)}: the padded input overflows 64 bits")
        if padded < e:
            raise ValueError(
                f"weight has spatial size {kernel}: with dilation {gaps} it covers {extent}, "
                f"more than the padded input (input {size}, padding {pairs})"
            )
        out.append((padded - e) // s + 1)
    return Window(size, kernel, steps, *_transposed(pairs), gaps, tuple(out))


def transposed_window(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: object,
    padding: object,
    output_padding: object,
    dilation: object,
) -> Window:
    """The window of the convolution whose adjoint is wanted: its `size` is the transposed convolution's output."""
    nd = len(size)
    steps = checks.integers("stride", stride, nd, 1)
    gaps = checks.integers("dilation", dilation, nd, 1)
    extra = checks.integers("output_padding", output_padding, nd, 0)
    pairs = padding_pairs(padding, nd)
    extent = effective_kernel(kernel, gaps)
    result = []
    for n, (before, after), e, s, d, more in zip(size, pairs, extent, steps, gaps, extra):
        if more >= max(s, d):
            raise ValueError(
                f"output_padding is {checks.describe(output_padding)}: "
                f"must be smaller than stride {steps} or dilation {gaps}"
            )
        length = (n - 1) * s + e + more - before - after
        if length > checks.INT64_MAX:
            raise ValueError(f"stride is {checks.describe(stride)}: the output size overflows 64 bits")
        if length < 1:
            raise ValueError(
                f"padding is {checks.describe(padding)}: the output size would be {length}, must be at least 1"
            )
        result.append(length)
    return Window(tuple(result), kernel, steps, *_transposed(pairs), gaps, size)


def pooling_window(
    size: tuple[int, ...],
    kernel_size: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: object,
) -> Window:
    """The window of a pooling operator, with torch's rule for `ceil_mode`.

    Padding by numbers is at most half of the kernel, as in torch; by pairs it is smaller than the window.
    """
    nd = len(size)
    kernel = checks.integers("kernel_size", kernel_size, nd, 1)
    steps = kernel if stride is None else checks.integers("stride", stride, nd, 1)
    gaps = checks.integers("dilation", dilation, nd, 1)
    round_up = checks.flag("ceil_mode", ceil_mode)
    extent = effective_kernel(kernel, gaps)
    pairs = _pairs_for(padding, size, steps, extent)
    by_numbers = not isinstance(padding, str) and not (np.iterable(padding) and any(map(np.iterable, padding)))
    out = []
    for n, k, s, (before, after), e in zip(size, kernel, steps, pairs, extent):
        if by_numbers and before > k // 2:
            raise ValueError(f"padding is {checks.describe(padding)}: must be at most half of kernel_size {kernel}")
        if max(before, after) >= e:
            raise ValueError(f"padding is {checks.describe(padding)}: must be smaller than the window {extent}")
        if n + before + after > checks.INT64_MAX:
            raise ValueError(f"padding is {checks.describe(padding)}: the padded input overflows 64 bits")
        steps_taken = -(-(n + before + after - e) // s) if round_up else (n + before + after - e) // s
        # A window that would start in the trailing padding is dropped, as in torch.
        if round_up and steps_taken * s >= n + before:
            steps_taken -= 1
        if steps_taken < 0:
            raise ValueError(f"kernel_size is {kernel}: the window {extent} exceeds the padded input {size}")
        out.append(steps_taken + 1)
    return Window(size, kernel, steps, *_transposed(pairs), gaps, tuple(out))
