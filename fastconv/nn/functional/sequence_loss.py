"""Connectionist temporal classification: the loss of labellings whose places in the sequence nobody knows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from ...devices import array_module, to_host
from ...differentiable import A, Array, apply, differentiable
from .parameters import check_floating, compute_dtype
from .reduction import check_reduction, reduce


def _lengths(given: Any, name: str, batch: int, most: int) -> ndarray:
    values = np.atleast_1d(np.asarray(to_host(given) if hasattr(given, "dtype") else given))
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {values.dtype}")
    if values.shape != (batch,):
        raise ValueError(f"{name} must have one entry for each of {batch} sequences, got shape {values.shape}")
    if (values < 0).any() or (values > most).any():
        raise ValueError(f"{name} must be from 0 to {most}, got {values.tolist()}")
    return values.astype(np.int64)


def _labels(targets: ndarray, lengths: ndarray, classes: int, blank: int) -> ndarray:
    """(N, S) labels, those behind a sequence's end blank."""
    longest = int(lengths.max(initial=0))
    rows = np.full((len(lengths), longest), blank, np.int64)
    starts = np.cumsum(lengths) - lengths
    for n, length in enumerate(lengths):
        rows[n, :length] = targets[n, :length] if targets.ndim == 2 else targets[starts[n] : starts[n] + length]
    inside = np.arange(longest) < lengths[:, None]
    if ((rows < 0) | (rows >= classes) | ((rows == blank) & inside))[inside].any():
        raise ValueError(f"targets must be classes from 0 to {classes - 1} other than blank={blank}")
    return rows


def _logsumexp(*terms: ndarray) -> ndarray:
    total = terms[0]
    for term in terms[1:]:
        total = np.logaddexp(total, term)
    return total


def _ctc_rule(wanted, log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity):
    check_floating(log_probs, "log_probs")
    check_reduction(reduction)
    if log_probs.ndim not in (2, 3):
        raise ValueError(f"log_probs must be (T, N, C) or (T, C), got shape {log_probs.shape}")
    batched = log_probs.ndim == 3
    given = log_probs if batched else log_probs[:, None]
    steps, batch, classes = given.shape
    if not 0 <= blank < classes:
        raise ValueError(f"blank must be a class from 0 to {classes - 1}, got {blank}")
    host = to_host(targets)
    if host.dtype.kind not in "iu":
        raise TypeError(f"targets must be integers, got dtype {host.dtype}")
    if host.ndim == 1 and not batched:
        host = host[None]
    if host.ndim not in (1, 2) or (host.ndim == 2 and len(host) != batch):
        raise ValueError(f"targets must be ({batch}, S) or all labels one after the other, got shape {targets.shape}")
    times = _lengths(input_lengths, "input_lengths", batch, steps)
    most = host.shape[1] if host.ndim == 2 else host.size
    lengths = _lengths(target_lengths, "target_lengths", batch, most)
    if host.ndim == 1 and lengths.sum() != host.size:
        raise ValueError(f"target_lengths must add up to the {host.size} targets, got {int(lengths.sum())}")
    labels = _labels(host, lengths, classes, blank)
    wide = np.dtype(np.float64)  # of the recursions, on the host: sums of very different magnitudes
    logs = to_host(given).astype(wide).transpose(1, 0, 2)

    # States: blank, label, blank, ..., label, blank.
    states = np.full((batch, 2 * labels.shape[1] + 1), blank, np.int64)
    states[:, 1::2] = labels
    width, rows = states.shape[1], np.arange(batch)
    used = np.arange(width) < (2 * lengths + 1)[:, None]
    skips = np.zeros(states.shape, bool)
    skips[:, 2:] = (states[:, 2:] != states[:, :-2]) & (states[:, 2:] != blank)
    emitted = np.take_along_axis(logs, np.broadcast_to(states[:, None], (batch, steps, width)), 2)
    never = -np.inf

    def shifted(x: ndarray, by: int) -> ndarray:
        y = np.full(x.shape, never)
        if by > 0:
            y[:, by:] = x[:, :-by] if by < width else y[:, by:]
        else:
            y[:, :by] = x[:, -by:] if -by < width else y[:, :by]
        return y

    with np.errstate(invalid="ignore"):
        alpha = np.full((steps, batch, width), never)
        if steps:
            alpha[0, :, :2] = np.where(used[:, :2], emitted[:, 0, :2], never)
        for t in range(1, steps):
            before = alpha[t - 1]
            moves = _logsumexp(before, shifted(before, 1), np.where(skips, shifted(before, 2), never))
            alpha[t] = np.where(used, moves + emitted[:, t], never)
        last = np.maximum(times - 1, 0)
        ends = alpha[last, rows] if steps else np.full((batch, width), never)
        end = 2 * lengths
        likelihood = _logsumexp(ends[rows, end], np.where(lengths > 0, ends[rows, np.maximum(end - 1, 0)], never))
        # A sequence without steps has the empty labelling, for sure.
        likelihood = np.where(times == 0, np.where(lengths == 0, 0.0, never), likelihood)
    losses = -likelihood
    lost = np.isinf(losses)
    if zero_infinity:
        losses = np.where(lost, 0.0, losses)

    def posterior() -> ndarray:
        """(N, T, C): how often, given the labelling, each class is emitted at each step."""
        beta = np.full((steps, batch, width), never)
        at = np.arange(width)
        final = ((at == end[:, None]) | ((at == end[:, None] - 1) & (lengths[:, None] > 0))) & used
        skips_from = np.zeros(states.shape, bool)
        skips_from[:, :-2] = skips[:, 2:]
        with np.errstate(invalid="ignore"):
            for t in range(steps - 1, -1, -1):
                if t + 1 < steps:
                    behind = beta[t + 1] + emitted[:, t + 1]
                    moves = _logsumexp(behind, shifted(behind, -1), np.where(skips_from, shifted(behind, -2), never))
                else:
                    moves = np.full((batch, width), never)
                starts = np.where((times == t + 1)[:, None] & final, 0.0, never)
                beta[t] = np.where(
                    (times > t)[:, None] & used, np.where((times == t + 1)[:, None], starts, moves), never
                )
            share = np.exp(np.where(lost[None, :, None], never, alpha + beta - likelihood[None, :, None]))
        result = np.zeros((batch, steps, classes))
        np.add.at(
            result,
            (rows[:, None, None], np.arange(steps)[None, :, None], states[:, None, :]),
            share.transpose(1, 0, 2),
        )
        if not zero_infinity:
            result[lost] = np.nan
        return result

    per = np.maximum(lengths, 1) if reduction == "mean" else np.ones(batch)
    library, kind = array_module(log_probs), compute_dtype(log_probs)
    scaled = losses / per
    if not batched and reduction == "none":
        scaled = scaled[0]
    y, spread = reduce(library.asarray(scaled.astype(kind)), reduction, batch, log_probs.dtype)

    def pullback(dy):
        each = np.broadcast_to(to_host(spread(dy)).astype(wide), (batch,)) / per
        gradient = -posterior() * each[:, None, None]
        gradient = gradient.transpose(1, 0, 2).reshape(log_probs.shape).astype(log_probs.dtype)
        return (library.asarray(gradient),)

    return y, pullback


@differentiable(_ctc_rule, wrt=("log_probs",), buffers=("targets",))
def ctc_loss(
    log_probs: A,
    targets: Array,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> A:
    """Connectionist temporal classification, as torch.nn.functional.ctc_loss.

    Parameters
    ----------
    log_probs : array, shape (T, N, C) or (T, C)
        Logarithms of the classes' probabilities at each step, as from `log_softmax`.
    targets : array of int, shape (N, S), or all labels one after the other
        Classes other than `blank`; in rows, what lies behind a sequence's length is ignored.
    input_lengths, target_lengths : int array or sequence, shape (N,)
        Steps and labels of each sequence; one number without a batch dimension.
    blank : int
        The class that stands for no label.
    reduction : {"mean", "sum", "none"}
        "mean" divides each loss by its number of labels first.
    zero_infinity : bool
        0 instead of infinity, and gradient 0 instead of NaN, where there are too few steps for the labels.

    Returns
    -------
    array, shape () or (N,)

    Raises
    ------
    ValueError
        Shapes, lengths or classes that do not fit; a `reduction` that is unknown.
    TypeError
        A dtype that is not supported.

    Notes
    -----
    Graves et al., 2006, ICML. The gradient is the derivative by `log_probs`; torch adds ``exp(log_probs)`` to it, which
    vanishes in the gradient of `log_softmax`. Computed in float64 on the host, also for arrays in GPU memory.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> log_probs = np.log(np.full((2, 1, 3), 1 / 3))
    >>> float(np.exp(-F.ctc_loss(log_probs, np.array([[1]]), [2], [1], reduction="sum")).round(6))  # 3 of 9 ways
    0.333333
    """
    return apply(ctc_loss, log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity)
