"""What the tests check with: exact and bounded comparison, layouts, gradients, guard margins.

Three tiers hold a kernel against the reference. *Exact*: integer-valued data (``integers``), whose sums every float
format here represents, so the bits must be those of integer arithmetic (``assert_exact``). *Bound*: random data
(``normal``) under the rounding-error bound of a dot product (``assert_bound``): one formula, no tolerance picked by
hand. *Gradient*: float64 central differences (``directional_derivative``).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from fastconv import testing

try:
    from fastconv.bench import shapes, torch_networks
except ModuleNotFoundError:  # a source tree: bench/ lies beside fastconv/
    from bench import shapes, torch_networks  # type: ignore[no-redef]

__all__ = [
    "DTYPES",
    "assert_bound",
    "assert_exact",
    "assert_same_bits",
    "bits",
    "directional_derivative",
    "dtype_name",
    "from_torch",
    "guarded",
    "guards_intact",
    "heed_interrupts",
    "integers",
    "layouts",
    "normal",
    "shapes",
    "to_torch",
    "torch_networks",
]

float32, float64, float16 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
bfloat16 = np.dtype(ml_dtypes.bfloat16)
# All types; .ci/run says for the build with sanitizers that it has but two.
DTYPES = (float32, bfloat16) if os.environ.get("FASTCONV_TWO_TYPES") else (float32, float64, float16, bfloat16)

GUARD_BYTES = 4096


def dtype_name(dtype: Any) -> str:
    """Name of a dtype for test ids: ``pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)``."""
    return np.dtype(dtype).name


def integers(rng: np.random.Generator, shape: Sequence[int], dtype: Any, low: int = -4, high: int = 4) -> np.ndarray:
    """Integer-valued array, both limits included."""
    return rng.integers(low, high, size=tuple(shape), endpoint=True).astype(dtype)


def normal(rng: np.random.Generator, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Standard normal array."""
    return rng.standard_normal(tuple(shape)).astype(dtype)


def heed_interrupts() -> None:
    """For the ``preexec_fn`` of a process: what a shell starts in the background, tests perhaps, ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def bits(x: np.ndarray) -> np.ndarray:
    """The bits of a float array as unsigned integers, so that NaNs and the sign of zero can be compared."""
    return np.array(x, order="C").view(f"u{x.dtype.itemsize}")


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    """Same shape, same dtype, same bits."""
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    np.testing.assert_array_equal(bits(actual), bits(expected))


def assert_exact(actual: np.ndarray, expected: np.ndarray, dtype: Any) -> None:
    """`actual` has dtype `dtype` and the values of `expected` (int64 or float64) rounded once to it."""
    assert actual.dtype == np.dtype(dtype), f"dtype {actual.dtype}, expected {np.dtype(dtype)}"
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    np.testing.assert_array_equal(actual.astype(np.float64), expected.astype(dtype).astype(np.float64))


def assert_bound(y: np.ndarray, y64: np.ndarray, magnitude: Any, terms: int, dtype: Any, c: float = 4) -> None:
    """`y` has dtype `dtype` and is the float64 result `y64` within the numeric contract (``fastconv.testing``)."""
    assert y.dtype == np.dtype(dtype), f"dtype {y.dtype}, expected {np.dtype(dtype)}"
    testing.assert_bound(y, y64, magnitude, terms, dtype, c)


def channels_last(a: np.ndarray) -> np.ndarray:
    """The same values and shape with the channels next to each other in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def layouts(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs (name, view) with the values of `x` in different memory layouts; what surrounds the data is NaN."""
    yield "contiguous", np.array(x, order="C")
    if x.ndim >= 3:
        yield "channels_last", channels_last(x)
    frame = np.full([n + 3 for n in x.shape], np.nan, x.dtype)
    cropped = frame[(*(slice(1, 1 + n) for n in x.shape), ...)]
    cropped[...] = x
    yield "cropped", cropped
    if x.ndim >= 2:
        yield "transposed", np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    if x.ndim:
        yield "negative", np.flip(np.array(np.flip(x), order="C"))
    buffer = bytearray(x.nbytes + 1)
    misaligned = np.ndarray(x.shape, x.dtype, buffer, offset=1)
    misaligned[...] = x
    yield "misaligned", misaligned


def guarded(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Contiguous NaN-filled array in the middle of a buffer whose margins are NaN too (see ``guards_intact``).

    Fill it (``a[...] = x``) for an input: a kernel that computes with what lies beside it gives NaN.
    """
    dtype = np.dtype(dtype)
    margin = GUARD_BYTES // dtype.itemsize
    size = int(np.prod(shape, dtype=np.int64))
    buffer = np.full(size + 2 * margin, np.nan, dtype)
    return buffer[margin : margin + size].reshape(shape)


def guards_intact(array: np.ndarray) -> bool:
    """Whether nothing was written to the margins of an array made by ``guarded``."""
    buffer = array.base
    while buffer.base is not None:
        buffer = buffer.base
    margin = GUARD_BYTES // array.dtype.itemsize
    pattern = bits(np.full(margin, np.nan, array.dtype))
    return bool((bits(buffer[:margin]) == pattern).all() and (bits(buffer[-margin:]) == pattern).all())


def directional_derivative(
    f: Callable[..., np.ndarray],
    vjp: Callable[..., tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, ...]]]],
    args: Sequence[np.ndarray],
    rng: np.random.Generator,
    step: float = 1e-5,
    rtol: float = 1e-6,
) -> None:
    """Check `vjp` against float64 central differences of `f` along one random direction of all arguments together.

    `f(*args)` is an array, `vjp(*args)` a pair (output, pullback); the pullback gives one gradient per argument.
    """
    args = [np.asarray(a, np.float64) for a in args]
    directions = [rng.standard_normal(a.shape) for a in args]
    y, pullback = vjp(*args)
    dy = rng.standard_normal(y.shape)
    gradients = pullback(dy)
    assert len(gradients) == len(args), f"{len(gradients)} gradients for {len(args)} arguments"
    for a, g in zip(args, gradients, strict=True):
        assert g.shape == a.shape and g.dtype == np.float64, f"gradient {g.dtype}{g.shape} of an argument {a.shape}"
    ahead = f(*(np.asarray(a + step * v) for a, v in zip(args, directions, strict=True)))
    behind = f(*(np.asarray(a - step * v) for a, v in zip(args, directions, strict=True)))
    numeric = float(np.sum(dy * (ahead - behind))) / (2 * step)
    analytic = float(sum(np.sum(g * v) for g, v in zip(gradients, directions, strict=True)))
    # Differences cancel: what is left is accurate to the rounding of f over the step.
    scale = float(sum(np.sum(np.abs(g * v)) for g, v in zip(gradients, directions, strict=True)))
    noise = 2.0**-50 * float(np.sum(np.abs(dy) * (np.abs(ahead) + np.abs(behind)))) / step
    assert abs(numeric - analytic) <= rtol * scale + noise, f"derivative {analytic!r}, differences {numeric!r}"


def to_torch(x: np.ndarray) -> Any:
    """A torch tensor with the values of `x` (a copy)."""
    import torch

    if x.dtype == bfloat16:
        return torch.from_numpy(np.array(x).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(x))


def from_torch(t: Any) -> np.ndarray:
    """A NumPy array with the values of a torch tensor."""
    import torch

    t = t.detach().contiguous()
    if t.dtype == torch.bfloat16:
        return t.view(torch.int16).numpy().view(bfloat16)
    return t.numpy()
