"""Connectionist temporal classification: all paths counted one by one, torch's values and gradients, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import directional_derivative, from_torch, to_torch


def drawn(steps: int, batch: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((steps, batch, classes))


def collapsed(path: tuple[int, ...], blank: int) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != blank]


@pytest.mark.parametrize("target", [[], [1], [2, 1], [1, 1], [1, 2, 1]])
@pytest.mark.parametrize("blank", [0, 2])
def test_sum_over_all_paths(target, blank):
    target = [(label + blank) % 3 for label in target]  # not the blank
    log_probs = F.log_softmax(drawn(4, 1, 3), 2)
    paths = [path for path in itertools.product(range(3), repeat=4) if collapsed(path, blank) == target]
    expected = sum(np.exp(sum(log_probs[t, 0, label] for t, label in enumerate(path))) for path in paths)
    loss = F.ctc_loss(log_probs, np.array([target], np.int64), [4], [len(target)], blank, "sum")
    np.testing.assert_allclose(np.exp(-loss), expected, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("layout", ["rows", "one after the other"])
@pytest.mark.parametrize("blank", [0, 4])
def test_as_torch(torch, reduction, layout, blank):
    """Sequences of all lengths; the gradient through log_softmax, where torch's is the derivative, too."""
    x = drawn(9, 5, 6)
    input_lengths, target_lengths = np.array([9, 7, 4, 9, 1]), np.array([4, 2, 3, 0, 1])
    rng = np.random.default_rng(1)
    rows = (blank + 1 + rng.integers(0, 5, (5, 4))) % 6
    rows[0] = rows[0, 0]  # a label again and again needs blanks between
    targets = rows if layout == "rows" else np.concatenate([row[:n] for row, n in zip(rows, target_lengths)])
    ours, theirs = fc.tensor(x, requires_grad=True), to_torch(x).requires_grad_()
    loss = F.ctc_loss(F.log_softmax(ours, 2), targets, input_lengths, target_lengths, blank, reduction)
    lengths = [to_torch(a) for a in (input_lengths, target_lengths)]
    functional = torch.nn.functional
    expected = functional.ctc_loss(theirs.log_softmax(2), to_torch(targets), *lengths, blank, reduction)
    np.testing.assert_allclose(loss.data, from_torch(expected), rtol=1e-11)
    dy = np.asarray(rng.standard_normal(loss.shape))
    loss.backward(dy)
    expected.backward(to_torch(dy))
    np.testing.assert_allclose(ours.grad, from_torch(theirs.grad), rtol=1e-9, atol=1e-12)
    layer = nn.CTCLoss(blank, reduction)
    np.testing.assert_array_equal(layer(F.log_softmax(x, 2), targets, input_lengths, target_lengths), loss.data)


def test_derivative():
    targets, lengths = np.array([[1, 2, 2], [3, 1, 0]]), ([6, 5], [3, 2])

    def function(log_probs):
        return F.ctc_loss(log_probs, targets, *lengths)

    def vjp(log_probs):
        return F.ctc_loss.vjp(log_probs, targets, *lengths)

    directional_derivative(function, vjp, [F.log_softmax(drawn(6, 2, 4), 2)], np.random.default_rng(2))


def test_too_few_steps(torch):
    """No path has the labels: an infinite loss without a gradient, or none at all."""
    x, targets = drawn(3, 2, 4), np.array([[1, 1, 2], [1, 2, 3]])
    for zero in (False, True):
        ours, theirs = fc.tensor(x, requires_grad=True), to_torch(x).requires_grad_()
        loss = F.ctc_loss(F.log_softmax(ours, 2), targets, [3, 3], [3, 3], 0, "none", zero)
        given = [to_torch(np.array([3, 3]))] * 2
        expected = torch.nn.functional.ctc_loss(theirs.log_softmax(2), to_torch(targets), *given, 0, "none", zero)
        np.testing.assert_allclose(loss.data, from_torch(expected), rtol=1e-12)
        assert np.isinf(loss.data[0]) != zero
        loss[1 if not zero else slice(None)].sum().backward()
        if zero:
            expected.sum().backward()
            np.testing.assert_allclose(ours.grad, from_torch(theirs.grad), rtol=1e-9, atol=1e-12)


def test_without_a_batch_and_in_other_types():
    x = F.log_softmax(drawn(5, 1, 4), 2)
    targets = np.array([2, 3], np.int32)
    expected = F.ctc_loss(x, targets[None], [5], [2])
    for lengths in ((5, 2), ([5], [2]), (np.array(5), np.array([2], np.int16))):
        np.testing.assert_allclose(F.ctc_loss(x[:, 0], targets, *lengths), expected, rtol=1e-14)
    assert F.ctc_loss(x[:, 0], targets, 5, 2, reduction="none").shape == ()
    for dtype in (np.float32, np.float16):
        loss, pullback = F.ctc_loss.vjp(x.astype(dtype), targets[None], [5], [2])
        assert loss.dtype == dtype
        np.testing.assert_allclose(loss, expected, rtol=2e-3)
        (gradient,) = pullback(np.ones((), dtype))
        assert gradient.dtype == dtype and gradient.shape == x.shape
        np.testing.assert_allclose(gradient.astype(np.float64).sum((1, 2)), -0.5, rtol=2e-3)  # one class a step
    assert F.ctc_loss(x[:0], targets[None, :0], [0], [0], reduction="sum") == 0


def test_bad_calls():
    x, targets = drawn(4, 2, 3), np.array([[1, 2], [2, 1]])
    for call, message in (
        (lambda: F.ctc_loss(x[0, 0], targets, [4, 4], [2, 2]), "log_probs must be"),
        (lambda: F.ctc_loss(x, targets[:1], [4, 4], [2, 2]), "targets must be"),
        (lambda: F.ctc_loss(x, targets, [4], [2, 2]), "input_lengths must have one entry"),
        (lambda: F.ctc_loss(x, targets, [4, 5], [2, 2]), "input_lengths must be from 0 to 4"),
        (lambda: F.ctc_loss(x, targets, [4, 4], [2, 3]), "target_lengths must be from 0 to 2"),
        (lambda: F.ctc_loss(x, targets, [4, 4], [-1, 2]), "target_lengths must be from 0 to 2"),
        (lambda: F.ctc_loss(x, targets.ravel(), [4, 4], [2, 1]), "add up to the 4 targets"),
        (lambda: F.ctc_loss(x, targets + 1, [4, 4], [2, 2]), "classes from 0 to 2"),
        (lambda: F.ctc_loss(x, targets, [4, 4], [2, 2], 1), "other than blank=1"),
        (lambda: F.ctc_loss(x, targets, [4, 4], [2, 2], 3), "blank must be"),
        (lambda: F.ctc_loss(x, targets, [4, 4], [2, 2], reduction="max"), "reduction must be"),
        (lambda: nn.CTCLoss(-1), "blank"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in (
        (lambda: F.ctc_loss(x, targets * 1.0, [4, 4], [2, 2]), "targets must be integers"),
        (lambda: F.ctc_loss(x, targets, [4.0, 4.0], [2, 2]), "input_lengths must be integers"),
        (lambda: F.ctc_loss(x.astype(int), targets, [4, 4], [2, 2]), "log_probs must be"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
