"""Hooks on the gradients of leaves: when they run, what they see, and what they do to the pass."""

import copy
import pickle

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.tape import after_backward


def leaf(*values):
    return fc.tensor(np.array(values, np.float64), requires_grad=True)


def test_a_hook_sees_the_whole_gradient_once_a_pass():
    """Of a leaf that enters in three places: all three parts, and what earlier passes left, as in torch."""
    x, seen = leaf(1.0, 2.0), []
    x.register_post_accumulate_grad_hook(lambda tensor: seen.append((tensor is x, tensor.grad.tolist())))
    for expected in ([6.0, 8.0], [12.0, 16.0]):
        (x * x + (x + 1).sum() + x * 2).sum().backward()
        assert seen.pop() == (True, expected) and not seen


def test_hooks_run_while_the_pass_still_runs():
    """The gradient of the last layer is complete before those of the first are computed."""
    first, last = nn.Linear(3, 4), nn.Linear(4, 2)
    events = []
    for name, parameter in (("first", first.weight), ("last", last.weight)):
        others = first.weight if name == "last" else last.weight
        parameter.register_post_accumulate_grad_hook(
            lambda tensor, name=name, others=others: events.append((name, others.grad is not None))
        )
    last(F.relu(first(fc.tensor(np.ones((5, 3), np.float32))))).sum().backward()
    assert events == [("last", False), ("first", True)]


def test_hooks_in_order_and_their_removal():
    x, calls = leaf(1.0), []
    handles = [x.register_post_accumulate_grad_hook(lambda _, i=i: calls.append(i)) for i in range(3)]
    (x * 1).sum().backward()
    handles[1].remove()
    handles[1].remove()
    (x * 1).sum().backward()
    assert calls == [0, 1, 2, 0, 2]


def test_a_hook_may_take_the_gradient_away():
    """The step of a parameter in its hook, so that no two gradients live at once."""
    x = leaf(1.0, 2.0)

    def step(tensor):
        tensor.data -= 0.5 * tensor.grad
        tensor.grad = None

    x.register_post_accumulate_grad_hook(step)
    (x * x).sum().backward()
    assert x.grad is None and x.numpy().tolist() == [0.0, 0.0]


def test_torch_agrees(torch):
    values = np.array([[0.5, -1.0], [2.0, 3.0]])
    ours, theirs, seen = fc.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True), []
    ours.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.copy()))
    theirs.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.numpy().copy()))
    for x in (ours, theirs):
        ((x @ x) * x).sum().backward()
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-12)


def test_no_hook_on_what_keeps_no_gradient():
    x = leaf(1.0)
    for tensor in (x * 2, fc.tensor([1.0])):
        with pytest.raises(ValueError, match="leaf that requires a gradient"):
            tensor.register_post_accumulate_grad_hook(print)
    with pytest.raises(TypeError, match="hook must be callable, got 3"):
        x.register_post_accumulate_grad_hook(3)


def test_copies_have_no_hooks():
    weight, calls = nn.Parameter(np.ones(2)), []
    weight.register_post_accumulate_grad_hook(calls.append)  # a bound method of this list: it cannot be pickled
    weight.register_post_accumulate_grad_hook(lambda _: None)
    for other in (copy.deepcopy(weight), copy.copy(weight), pickle.loads(pickle.dumps(weight))):
        assert isinstance(other, nn.Parameter) and other.numpy().tolist() == [1.0, 1.0]
        (other * 2).sum().backward()
        assert other.grad.tolist() == [2.0, 2.0]
    assert not calls


def test_after_backward_runs_last_and_once():
    x, y, events = leaf(1.0), leaf(2.0), []

    def hook(tensor):
        if not events:
            after_backward(lambda: events.append((x.grad is None, y.grad is None)))
        events.append("hook")

    handles = [each.register_post_accumulate_grad_hook(hook) for each in (x, y)]
    (x * y).sum().backward()
    assert events == ["hook", "hook", (False, False)]
    for handle in handles:
        handle.remove()
    (x * y).sum().backward()
    assert len(events) == 3


def test_after_backward_belongs_to_its_own_pass():
    """A pass within a hook ends before the pass around it; one that failed leaves nothing to call."""
    x, y, events = leaf(1.0), leaf(1.0), []

    def outer(_):
        after_backward(lambda: events.append("outer"))
        (y * 2).sum().backward()

    handle = x.register_post_accumulate_grad_hook(outer)
    y.register_post_accumulate_grad_hook(lambda _: after_backward(lambda: events.append("inner")))
    (x * 1).sum().backward()
    assert events == ["inner", "outer"]
    handle.remove()

    def failing(_):
        after_backward(lambda: events.append("never"))
        raise ArithmeticError("bad gradient")

    x.register_post_accumulate_grad_hook(failing)
    with pytest.raises(ArithmeticError, match="bad gradient"):
        (x * 1).sum().backward()
    (y * 2).sum().backward()
    assert events == ["inner", "outer", "inner"]
    with pytest.raises(RuntimeError, match="no backward pass runs"):
        after_backward(list)
