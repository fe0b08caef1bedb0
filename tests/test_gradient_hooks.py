"""Hooks on the gradients of leaves: when they run, what they see, and what they do to the pass."""

import copy
import pickle

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from fastconv.tape import after_backward
from fastconv.tensor_dimensions import Extremum


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


# ---- gradients of any Tensor ---------------------------------------------------------------------------------------


def test_hooks_see_and_replace_gradients_as_in_torch(torch):
    """Of computed Tensors, of leaves and of the root; several in a row, each with what the one before gave."""

    def program(x, seen):
        y = x * x
        z = y * 3 + y.exp()
        total = z.sum()
        x.register_hook(lambda g: seen.append(("x", np.asarray(g).tolist())))
        y.register_hook(lambda g: seen.append(("y", np.asarray(g).tolist())))
        handle = y.register_hook(lambda g: g * 100)
        y.register_hook(lambda g: g * 2)
        y.register_hook(lambda g: seen.append(("y again", np.asarray(g).tolist())))
        handle.remove()
        x.register_hook(lambda g: g + 1)
        total.register_hook(lambda g: g * 0.5)
        for kept in (y, z):
            kept.retain_grad()
            kept.retain_grad()
        for _ in range(2):
            total.backward(retain_graph=True)
        return x.grad, y.grad, z.grad

    values, ours, theirs = np.array([0.5, -1.0, 2.0]), [], []
    found = program(fc.tensor(values, requires_grad=True), ours)
    expected = program(torch.tensor(values, requires_grad=True), theirs)
    assert [name for name, _ in ours] == [name for name, _ in theirs] and len(ours) == 6
    for (_, a), (_, b) in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-14)


def test_a_hook_outlives_neither_its_value_nor_copies():
    x, seen = leaf(1.0, 2.0), []
    x.register_hook(lambda g: seen.append(1))
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        (other * 2).sum().backward()
    assert not seen
    y = x * 2
    y.retain_grad()
    total = y.sum()
    del y  # nobody to leave the gradient to
    total.backward()
    assert seen == [1] and x.grad.tolist() == [2.0, 2.0]


def test_bad_hooks_of_gradients():
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match="requires a gradient"):
        fc.tensor([1.0]).register_hook(lambda g: g)
    with pytest.raises(ValueError, match="requires a gradient"):
        fc.tensor([1.0]).retain_grad()
    with pytest.raises(TypeError, match="callable"):
        x.register_hook(3)
    for wrong, message in ((np.ones(3), r"shape \(2,\) or None, got \(3,\)"), (4.0, "got float")):
        y = x * 2
        y.register_hook(lambda g, wrong=wrong: wrong)
        with pytest.raises(ValueError, match=message):
            y.sum().backward()
    x.retain_grad()  # a leaf keeps its gradient anyway
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


# ---- gradients through modules -------------------------------------------------------------------------------------


def as_lists(gradients):
    return [None if g is None else np.asarray(g).tolist() for g in gradients]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # torch's, where no input needs a gradient
@pytest.mark.parametrize("needed", [True, False])
def test_backward_hooks_of_modules_as_in_torch(torch, needed):
    """What they see and in which order, also where the input needs no gradient; a replacement goes on."""
    weights = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float64)
    values = np.random.default_rng(1).standard_normal((5, 4))

    def program(nn, tensor, seen):
        net = nn.Sequential(nn.Linear(4, 3, dtype=values.dtype), nn.ReLU(), nn.Linear(3, 2, dtype=values.dtype))
        parameters = {"0.weight": weights[0], "0.bias": weights[0, :, 0], "2.weight": weights[1, :2, :3]}
        net.load_state_dict({k: tensor(v) for k, v in (parameters | {"2.bias": weights[1, :2, 3]}).items()})
        handles = [
            module.register_full_backward_hook(
                lambda module, before, after, name=name: seen.append((name, as_lists(before), as_lists(after)))
            )
            for name, module in net.named_modules()
        ]
        net[1].register_full_backward_hook(lambda module, before, after: (before[0] * 2,))
        x = tensor(values)
        x.requires_grad_(needed)
        net(x).sum().backward()
        handles[1].remove()
        net(x).sum().backward()
        return x.grad, net[0].weight.grad

    ours, theirs = [], []
    kind = {np.dtype(np.float64): torch.float64}

    class Torch:
        Sequential, ReLU = torch.nn.Sequential, torch.nn.ReLU
        Linear = staticmethod(lambda i, o, dtype: torch.nn.Linear(i, o, dtype=kind[dtype]))

    found = program(nn, lambda v: fc.tensor(v.copy()), ours)
    expected = program(Torch, lambda v: torch.from_numpy(v.copy()), theirs)
    assert [entry[0] for entry in ours] == [entry[0] for entry in theirs]
    for (_, *a), (_, *b) in zip(ours, theirs):
        for mine, other in zip(a, b):
            assert [g is None for g in mine] == [g is None for g in other]
            for g, h in zip(mine, other):
                if g is not None:
                    np.testing.assert_allclose(g, h, rtol=1e-12)
    for a, b in zip(found, expected):
        if b is not None:
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-12)


def test_backward_hooks_of_modules_with_several_inputs():
    class Product(nn.Module):
        def forward(self, x, y):
            return x * y, x + y

    module, seen = Product(), []
    handle = module.register_full_backward_hook(lambda module, *gradients: seen.append(gradients))
    x, y = leaf(2.0), leaf(5.0)
    product, total = module(x, y)
    (product + 10 * total).sum().backward(retain_graph=True)
    (product + 10 * total).sum().backward()
    for before, after in seen:
        assert as_lists(before) == [[15.0], [12.0]] and as_lists(after) == [[1.0], [10.0]]
    assert len(seen) == 2
    handle.remove()
    x.grad = y.grad = None
    module.register_full_backward_hook(lambda module, before, after: (before[0] * 2, before[1] * 3))
    (product, total), z = module(x, y), leaf(1.0)
    (product + z * total).sum().backward()
    assert as_lists((x.grad, y.grad, z.grad)) == [[12.0], [9.0], [7.0]]


def test_backward_hooks_run_once_where_inputs_or_outputs_are_not_used(torch):
    def program(library, seen):
        class Parted(library.nn.Module):
            def forward(self, a, b, c):
                return a * 2, b * 3

        module = Parted()
        module.register_full_backward_hook(lambda module, *gradients: seen.append([as_lists(g) for g in gradients]))
        a, b, c = (library.tensor([1.0], requires_grad=True) for _ in range(3))
        module(a, b, c)[0].sum().backward()
        first, second = module(a, b, c)
        (first * second).sum().backward()
        return as_lists((a.grad, b.grad))

    ours, theirs = [], []
    assert program(fc, ours) == program(torch, theirs)
    assert len(ours) == 2
    for (before, after), (expected, expected_after) in zip(ours, theirs, strict=True):
        assert before == expected
        # torch gives zeros for an output that was not used; here there is no gradient.
        assert [g or [0.0] for g in after] == [g or [0.0] for g in expected_after]


def test_backward_hooks_of_modules_with_named_outputs():
    class Named(nn.Module):
        def forward(self, x):
            return Extremum(x * 2, np.array(0))

    module, seen = Named(), []
    module.register_full_backward_hook(lambda module, before, after: seen.append(as_lists(after)))
    output = module(leaf(1.0, 3.0))
    assert isinstance(output, Extremum)
    output.values.sum().backward()
    assert seen == [[[1.0, 1.0], None]]


def test_backward_hooks_that_return_what_does_not_fit():
    for wrong, message in (((np.ones(3), np.ones(2)), "must return 1 gradients"), (np.ones(3), r"of shape \(3,\)")):
        layer = nn.ReLU()
        layer.register_full_backward_hook(lambda module, before, after, wrong=wrong: wrong)
        with pytest.raises(ValueError, match=message):
            layer(leaf(1.0, 2.0)).sum().backward()
    with pytest.raises(TypeError, match="callable"):
        nn.ReLU().register_full_backward_hook(None)


def test_arrays_record_nothing_for_backward_hooks():
    layer, seen = nn.ReLU(), []
    layer.register_full_backward_hook(lambda *arguments: seen.append(arguments))
    assert type(layer(np.ones(2, np.float32))) is np.ndarray
    with fc.no_grad():
        layer(leaf(1.0))
    assert not seen
    _, pullback = layer.vjp(np.array([-1.0, 2.0], np.float32))
    np.testing.assert_array_equal(pullback(np.ones(2, np.float32)), [0, 1])
    assert as_lists(seen[0][1]) == [[0.0, 1.0]]


def test_grad_cam_by_hand():
    """The way it is written in torch's tutorials: a hook on the features, another on their gradient."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    kept = {}
    net[1].register_forward_hook(lambda module, inputs, output: kept.update(features=output))
    net[1].register_full_backward_hook(lambda module, before, after: kept.update(gradient=after[0]))
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    net(fc.tensor(x))[0, 2].backward()
    weights = kept["gradient"].mean((2, 3), keepdims=True)
    by_hand = np.maximum((weights * kept["features"].numpy()).sum(1)[0], 0)
    assert by_hand.shape == (6, 6)
    np.testing.assert_allclose(weights.ravel() * 36, net[4].weight.numpy()[2], rtol=1e-5)
