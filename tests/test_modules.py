"""Module and containers: registration, listings, modes, hooks, conversions, summary, vjp."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F


class Block(nn.Module):
    """A user's module: parameters, buffers, children and one plain attribute."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(np.ones(3, np.float32))
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("offset", np.zeros((3, 1, 1), np.float32))
        self.register_buffer("scratch", np.zeros(2, np.float32), persistent=False)
        self.label = "block"

    def forward(self, x):
        return F.relu(self.norm(self.conv(x))) + self.offset


def test_registration_and_listings():
    block = Block()
    assert [name for name, _ in block.named_parameters()] == [
        "scale",
        "conv.weight",
        "conv.bias",
        "norm.weight",
        "norm.bias",
    ]
    assert [name for name, _ in block.named_buffers()] == [
        "offset",
        "scratch",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]
    assert "scratch" not in block.state_dict()
    assert [name for name, _ in block.named_children()] == ["conv", "norm"]
    assert [name for name, _ in block.named_modules()] == ["", "conv", "norm"]
    assert [name for name, _ in block.named_parameters("net", recurse=False)] == ["net.scale"]
    assert next(iter(block.modules())) is block
    assert {"scale", "offset", "conv", "label"} <= set(dir(block))


def test_listings_are_torchs_for_a_shared_layer(torch):
    def build(library):
        shared = library.Linear(2, 2)
        return library.Sequential(shared, library.ReLU(), shared, library.Sequential(shared, library.Linear(2, 1)))

    ours, theirs = build(nn), build(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert [n for n, _ in ours.named_parameters(remove_duplicate=False)] == [
        n for n, _ in theirs.named_parameters(remove_duplicate=False)
    ]
    assert repr(ours) == repr(theirs)


def test_replacing_keeps_the_order_and_deleting_forgets():
    block = Block()
    block.scale = nn.Parameter(np.zeros(3, np.float32))
    block.conv = nn.Identity()
    assert [name for name, _ in block.named_children()] == ["conv", "norm"]
    assert next(iter(block.state_dict())) == "scale"
    block.scale = None
    assert "scale" not in block.state_dict()
    block.offset = np.ones((3, 1, 1), np.float32)
    assert block.state_dict()["offset"].sum() == 3
    del block.conv
    assert not hasattr(block, "conv")
    block.label = nn.Parameter(np.zeros(1, np.float32))
    assert "label" in block.state_dict() and "label" not in vars(block)


def test_assignments_of_the_wrong_kind():
    block = Block()
    for name, value in (("scale", np.zeros(3)), ("conv", 3), ("offset", "text")):
        with pytest.raises(TypeError, match=name):
            setattr(block, name, value)
    for name in ("", "a.b", "forward", "label"):
        with pytest.raises(ValueError, match="name"):
            block.register_parameter(name, None)
    with pytest.raises(TypeError, match="string"):
        block.register_buffer(3, None)
    with pytest.raises(TypeError, match="Module"):
        block.add_module("x", np.sin)
    with pytest.raises(AttributeError, match="missing"):
        _ = block.missing

    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.ReLU()

    with pytest.raises(AttributeError, match=r"super\(\).__init__"):
        Forgetful()
    with pytest.raises(NotImplementedError, match="forward"):
        nn.Module()(1)


def test_modes_gradients_and_apply():
    block = Block()
    assert block.eval() is block and not block.norm.training
    block.train()
    assert block.norm.training
    with pytest.raises(ValueError, match="mode"):
        block.train("yes")
    block.requires_grad_(False)
    assert not any(p.requires_grad for p in block.parameters())
    block.requires_grad_()
    block.conv.weight.grad = np.ones((3, 3, 1, 1), np.float32)
    block.zero_grad(set_to_none=False)
    assert not block.conv.weight.grad.any() and block.conv.weight.grad.shape == (3, 3, 1, 1)
    block.zero_grad()
    assert block.conv.weight.grad is None
    seen = []
    assert block.apply(lambda module: seen.append(type(module).__name__)) is block
    assert seen == ["Conv2d", "BatchNorm2d", "Block"]


@pytest.mark.parametrize("method, dtype", [("double", np.float64), ("half", np.float16), ("float", np.float32)])
def test_conversions(method, dtype):
    block = Block()
    weight = block.conv.weight
    weight.grad = np.ones(weight.shape, np.float32)
    getattr(block, method)()
    assert block.conv.weight is weight and weight.dtype == weight.grad.dtype == dtype
    assert block.norm.running_mean.dtype == block.offset.dtype == dtype
    assert block.norm.num_batches_tracked.dtype == np.int64
    for wrong in (np.int32, ">f4", "text"):
        with pytest.raises(TypeError, match="dtype must be float32"):
            block.to(wrong)
    assert weight.dtype == dtype


def test_bfloat16_layers():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    layer = nn.Conv2d(2, 3, 3).to(ml_dtypes.bfloat16)
    assert layer(np.ones((1, 2, 4, 4), ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


def test_hooks():
    layer = nn.Sequential(nn.ReLU())
    calls = []
    first = layer[0].register_forward_hook(lambda module, inputs, output: calls.append((module, inputs[0].shape)))
    second = layer[0].register_forward_hook(lambda module, inputs, output: output + 1)
    x = np.zeros((2, 2), np.float32)
    assert layer(x).sum() == 4
    assert calls == [(layer[0], (2, 2))]
    second.remove()
    second.remove()
    assert layer(x).sum() == 0
    first.remove()
    layer(x)
    assert len(calls) == 2
    with pytest.raises(TypeError, match="hook"):
        layer.register_forward_hook(None)


def test_copies_and_pickles_are_independent():
    block = Block()
    x = np.random.default_rng(1).normal(size=(1, 3, 2, 2)).astype(np.float32)
    expected = block.eval()(x)
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        np.testing.assert_array_equal(twin(x), expected)
        twin.conv.weight.data[...] = 0
    np.testing.assert_array_equal(block(x), expected)


def test_sequential():
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    net = nn.Sequential(*layers)
    assert len(net) == 3 and list(net) == layers
    assert net[-1] is layers[2] and net[np.int64(1)] is layers[1]
    assert isinstance(net[1:], nn.Sequential) and list(net[1:].state_dict()) == ["2.weight", "2.bias"]
    net.append(nn.Sigmoid()).insert(1, nn.Identity())
    assert [type(m).__name__ for m in net] == ["Linear", "Identity", "ReLU", "Linear", "Sigmoid"]
    del net[1]
    assert isinstance(net.pop(), nn.Sigmoid)
    net[1] = nn.Tanh()
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    x = np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(net(x), layers[2](np.tanh(layers[0](x))))
    named = nn.Sequential(OrderedDict(first=layers[0], second=layers[1]))
    assert named.first is layers[0] and list(named.state_dict()) == ["first.weight", "first.bias"]
    assert nn.Sequential()(x) is x


def test_container_errors():
    net = nn.Sequential(nn.ReLU())
    for index in (1, -2):
        with pytest.raises(IndexError, match=str(index)):
            net[index]
    for index in ("0", 1.0, True):
        with pytest.raises(TypeError, match="index"):
            net[index]
    for call in (lambda: nn.Sequential(nn.ReLU(), None), lambda: net.append(np.tanh), lambda: nn.ModuleList([3])):
        with pytest.raises(TypeError, match="Module"):
            call()
    with pytest.raises(TypeError, match="Module"):
        net.extend([nn.ReLU(), 3])
    assert len(net) == 1
    with pytest.raises(ValueError, match="dot"):
        nn.ModuleDict({"a.b": nn.ReLU()})
    with pytest.raises(ValueError, match="keys"):
        nn.ModuleDict({"keys": nn.ReLU()})


def test_module_list_and_dict(torch):
    def build(library):
        layers = library.ModuleList([library.Linear(2, 2), library.Linear(2, 2), library.ReLU()])
        layers += [library.ReLU()]
        return library.ModuleDict({"body": layers, "head": library.Linear(2, 1)})

    ours, theirs = build(nn), build(torch.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(ours) == ["body", "head"] and "head" in ours and len(ours["body"][1:]) == 3
    head = ours.pop("head")
    assert isinstance(head, nn.Linear) and list(ours.keys()) == ["body"]
    ours["tail"] = head
    assert dict(ours.items())["tail"] is head and len(ours) == 2
    ours.clear()
    assert not list(ours.parameters())


def test_a_users_forward_sees_tensors_and_gives_back_what_came_in():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, inputs, *, mask=None):
            x = inputs["x"]
            assert isinstance(x, fc.Tensor) and isinstance(mask, fc.Tensor)
            y = self.linear(x.view(x.size(0), -1)) * mask
            return [y, {"loss": F.mse_loss(y, x)}, 3]

    net = Pair()
    x, mask = np.ones((4, 2), np.float32), np.ones(2, np.float32)
    y, losses, count = net({"x": x}, mask=mask)
    assert type(y) is np.ndarray and type(losses["loss"]) is not fc.Tensor and count == 3
    y, losses, _ = net({"x": fc.tensor(x)}, mask=fc.tensor(mask))
    losses["loss"].backward()
    assert net.linear.weight.grad is not None

    class Child(nn.Linear):
        """Inherits a forward of the package's own, which takes arrays as they are."""

    assert not Child._users_forward and type(Child(2, 2)(x)) is np.ndarray
    labels = np.array([0, 1, 1, 0])

    class Loss(nn.Module):
        def forward(self, x, labels):
            return F.cross_entropy(x, labels.view(-1))

    np.testing.assert_allclose(Loss()(y.data, labels), F.cross_entropy(y.data, labels), rtol=1e-6)


def test_summary_touches_no_state():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, 3))
    net[1].eval()
    net[4].weight.requires_grad = False
    before = {key: value.copy() for key, value in net.state_dict().items()}
    fc.manual_seed(3)
    expected = F.dropout(np.ones(50, np.float32))
    fc.manual_seed(3)
    table = net.summary((2, 1, 6, 6))
    np.testing.assert_array_equal(F.dropout(np.ones(50, np.float32)), expected)
    assert [row.output_shape for row in table.rows] == [(2, 4, 4, 4)] * 3 + [(2, 64), (2, 3)]
    assert [row.parameters for row in table.rows] == [40, 8, 0, 0, 195]
    assert table.parameters == 243 and table.trainable == 243 - 192
    assert [m.training for m in net] == [True, False, True, True, True]
    assert not any(m._forward_hooks for m in net.modules())
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert "Conv2d" in str(table) and "243 parameters" in str(table)


def test_summary_of_shared_uncalled_and_failing_layers():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Linear(2, 2)
            self.unused = nn.Linear(5, 1)

        def forward(self, x):
            return self.used(self.used(x))

    rows = Odd().summary((1, 2)).rows
    assert [(row.title, row.output_shape, row.parameters) for row in rows] == [
        ("used (Linear)", (1, 2), 6),
        ("used (Linear)", (1, 2), 0),
        ("unused (Linear)", None, 6),
    ]
    net = Odd()
    with pytest.raises(ValueError) as caught:
        net.summary((1, 3))
    layer, shape = caught.value.__notes__
    assert layer == "in layer Linear(in_features=2, out_features=2, bias=True), float32 (1, 3)"
    assert "input_shape=(1, 3)" in shape
    assert net.training and not net.used._forward_hooks
    with pytest.raises(ValueError, match="input_shape"):
        net.summary((1, -2))


def test_vjp_accumulates_and_repeats():
    layer = nn.Linear(3, 2)
    x = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    y, pullback = layer.vjp(x)
    assert type(y) is np.ndarray
    dy = np.ones((4, 2), np.float32)
    dx = pullback(dy)
    np.testing.assert_allclose(dx, dy @ layer.weight.data, rtol=1e-6)
    once = layer.weight.grad.copy()
    np.testing.assert_array_equal(pullback(dy), dx)
    np.testing.assert_allclose(layer.weight.grad, 2 * once, rtol=1e-6)
    with pytest.raises(ValueError, match="shape"):
        pullback(np.ones((4, 3), np.float32))
    np.testing.assert_allclose(layer.weight.grad, 2 * once, rtol=1e-6)


def test_vjp_of_losses_frozen_layers_and_constants():
    logits = np.zeros((2, 3), np.float32)
    loss, pullback = nn.CrossEntropyLoss().vjp(logits, np.array([0, 2]))
    assert pullback(np.ones_like(loss)).shape == (2, 3)
    layer = nn.Linear(2, 2).requires_grad_(False)
    y, pullback = layer.vjp(np.ones((1, 2), np.float32))
    np.testing.assert_allclose(pullback(np.ones_like(y)), layer.weight.data.sum(0)[None], rtol=1e-6)
    assert layer.weight.grad is None

    class Constant(nn.Module):
        def forward(self, x):
            return np.ones(3, np.float32)

    y, pullback = Constant().vjp(np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(pullback(y), np.zeros((1, 2), np.float32))
    with fc.no_grad():
        y, pullback = nn.ReLU().vjp(np.ones(2, np.float32))
    np.testing.assert_array_equal(pullback(y), np.ones(2, np.float32))


def test_lookup_by_dotted_names():
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()))
    assert net.get_submodule("") is net and net.get_submodule("1.1") is net[1][1]
    assert net.get_parameter("1.0.weight") is net[1][0].weight
    assert net.get_buffer("1.0.running_mean") is net[1][0].running_mean
    for call, message in (
        (lambda: net.get_submodule("1.5.x"), "has no module '1.5.x': nothing is named '5'"),
        (lambda: net.get_parameter("0.scale"), "has no parameter '0.scale'"),
        (lambda: net.get_parameter("1.0.running_mean"), "has no parameter"),
        (lambda: net.get_buffer("2.weight"), "has no module '2'"),
    ):
        with pytest.raises(AttributeError, match=message):
            call()


def test_setting_a_module_by_its_dotted_name(torch):
    for library in (nn, torch.nn):
        net = library.Sequential(library.Linear(2, 3), library.Sequential(library.BatchNorm1d(3), library.ReLU()))
        net.set_submodule("1.1", library.Identity(), strict=True)
        net.set_submodule("1.extra", library.Tanh())
        net.set_submodule("0", library.Flatten())
        assert [type(child).__name__ for child in net.modules()] == [
            *("Sequential", "Flatten", "Sequential", "BatchNorm1d", "Identity", "Tanh"),
        ]
        for error, arguments in (
            (ValueError, ("", library.ReLU())),
            (ValueError, ("1.1", "relu")),
            (AttributeError, ("5.x", library.ReLU())),
            (AttributeError, ("1.other", library.ReLU(), True)),
        ):
            with pytest.raises(error):
                net.set_submodule(*arguments)
        assert len(list(net.modules())) == 6


def test_hooks_before_the_forward_change_its_inputs():
    layer = nn.ReLU()
    seen = []
    first = layer.register_forward_pre_hook(lambda module, inputs: seen.append((module, inputs[0].tolist())))
    second = layer.register_forward_pre_hook(lambda module, inputs: -inputs[0])
    layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].tolist()))
    np.testing.assert_array_equal(layer(np.array([-1.0, 2.0])), [1, 0])
    assert seen == [(layer, [-1.0, 2.0]), [1.0, -2.0]]
    first.remove()
    second.remove()
    np.testing.assert_array_equal(layer(np.array([-1.0, 2.0])), [0, 2])
    with pytest.raises(TypeError, match="hook must be callable"):
        layer.register_forward_pre_hook(3)


def test_hooks_with_keywords_and_before_others_as_torchs(torch):
    def program(library):
        class Scaled(library.nn.Module):
            def forward(self, x, factor=1.0):
                return x * factor

        module, seen = Scaled(), []
        x = library.tensor([3.0])
        module.register_forward_hook(lambda m, inputs, output: seen.append(("late", float(output[0]))))
        module.register_forward_hook(
            lambda m, inputs, kwargs, output: seen.append(kwargs) or output + 1, with_kwargs=True, prepend=True
        )
        module.register_forward_pre_hook(lambda m, inputs: seen.append("plain"))
        with (
            module.register_forward_pre_hook(
                lambda m, inputs, kwargs: ((inputs[0] * 2,), {"factor": 5.0}), with_kwargs=True
            ),
            module.register_forward_pre_hook(lambda m, inputs: seen.append("first"), prepend=True),
        ):
            seen.append(float(module(x, factor=7.0)[0]))
        seen.append(float(module(x, factor=7.0)[0]))
        return seen

    assert program(fc) == program(torch)
    module = nn.ReLU()
    module.register_forward_pre_hook(lambda m, inputs, kwargs: inputs, with_kwargs=True)
    with pytest.raises(ValueError, match=r"None or a tuple \(args, kwargs\)"):
        module(np.zeros(2))
    with pytest.raises(TypeError, match="hook must be callable"):
        module.register_forward_hook(3, with_kwargs=True)


def test_a_list_of_layers_is_refused_with_advice():
    with pytest.raises(TypeError, match="got list: give its entries one by one"):
        nn.Sequential([nn.ReLU(), nn.Tanh()])


def test_errors_name_the_layer_and_what_it_got():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(5)))
    with pytest.raises(ValueError) as caught:
        net(np.zeros((2, 3), np.float32))
    (note,) = caught.value.__notes__
    assert note.startswith("in layer BatchNorm1d(5, ") and note.endswith(", float32 (2, 4)")
    with pytest.raises(TypeError) as caught:
        net(fc.tensor(np.zeros((2, 3))))
    (note,) = caught.value.__notes__
    assert note.startswith("in layer Linear(in_features=3, ") and "float64 (2, 3); its parameters are float32" in note

    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="must have") as caught:
        net(torch.zeros((2, 3), dtype=torch.float64))
    assert "torch.float64 (2, 3)" in caught.value.__notes__[0]

    class Own(nn.Module):
        def forward(self, x):
            raise ValueError("what is this")

    with pytest.raises(ValueError, match="what is this") as caught:
        Own()(np.zeros(2))
    assert caught.value.__notes__ == ["in layer Own, float64 (2,)"]


def test_lists_and_dictionaries_of_parameters(torch):
    arrays = [np.ones(2, np.float32), np.zeros((3, 1), np.float32)]
    ours, theirs = nn.ParameterList(arrays), torch.nn.ParameterList(map(torch.tensor, arrays))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.append(fc.tensor([5.0])).extend([np.full(1, 7.0)])
    assert len(ours) == 4 and ours[-1].data[0] == 7 and isinstance(ours[2], nn.Parameter)
    assert len(ours[1:3]) == 2 and [p.shape for p in ours][:2] == [(2,), (3, 1)]
    ours[-2] = np.full(2, 9.0)
    assert ours[2].data[0] == 9 and len(list(ours.parameters())) == 4
    for index in (4, -5):
        with pytest.raises(IndexError, match="out of range for 4 parameters"):
            ours[index]
    named = nn.ParameterDict({"a": arrays[0]})
    named.update({"b": nn.Parameter(arrays[1])})
    assert list(named) == ["a", "b"] and "a" in named and len(named) == 2 and named["b"].shape == (3, 1)
    net = nn.Sequential(ours, named)
    assert list(net.state_dict()) == ["0.0", "0.1", "0.2", "0.3", "1.a", "1.b"]
    del named["a"]
    assert list(named.keys()) == ["b"] and [n for n, _ in named.items()] == ["b"] and len(list(named.values())) == 1
    for values, error in (([3], TypeError), ([np.ones(2, int)], TypeError)):
        with pytest.raises(error):
            nn.ParameterList(values)
    with pytest.raises(ValueError, match="dot"):
        nn.ParameterDict({"a.b": arrays[0]})
    ours += [np.zeros(1)]
    assert len(ours) == 5 and repr(ours[1:2]) == "ParameterList(\n  (0): Parameter containing: [float32 of size 3x1]\n)"
    for values in (nn.Parameter(np.ones((2, 3))), np.ones((2, 3)), 3):
        with pytest.raises(TypeError, match="values must be an iterable of parameters"):
            ours.extend(values)


def test_a_dictionary_of_parameters_is_a_dictionary():
    one, two, three = (nn.Parameter(np.full(n, n, np.float64)) for n in (1, 2, 3))
    named = nn.ParameterDict([("a", one), ("b", two)])
    assert list(reversed(named)) == ["b", "a"] and named.get("c") is None and named.get("a") is one
    assert list(named | {"c": three}) == ["a", "b", "c"] and list({"c": three} | named) == ["c", "a", "b"]
    assert named.setdefault("a", three) is one and named.setdefault("c", three) is three
    assert named.popitem() == ("c", three) and named.pop("b") is two and list(named.state_dict()) == ["a"]
    other = named.copy()
    other |= zip(["b"], [two])
    assert list(other) == ["a", "b"] and list(named) == ["a"] and other["a"] is one
    assert list(named.fromkeys(["x", "y"], three)) == ["x", "y"]
    named.clear()
    assert not len(named) and repr(named) == "ParameterDict()"
    for entries, error in ((1, TypeError), ([1], ValueError), ([("a", one, two)], ValueError)):
        with pytest.raises(error, match="entries must"):
            named.update(entries)


def test_containers_join_as_torchs(torch):
    def build(library):
        layers = library.nn.Sequential(library.nn.ReLU(), library.nn.Tanh())
        other = library.nn.Sequential(library.nn.Sigmoid())
        joined, thrice, twice = layers + other, 2 * other * 1, layers * 2
        layers += other
        other *= 3
        listed = library.nn.ModuleList([joined]) + library.nn.ModuleList([layers])
        named = library.nn.ModuleDict({"a": other})
        named.update(library.nn.ModuleDict({"b": listed}))
        return joined, thrice, twice, layers, other, listed, named, library.nn.ModuleDict(named)

    for a, b in zip(build(fc), build(torch), strict=True):
        assert repr(a) == repr(b)
    layers = nn.Sequential(nn.ReLU(), nn.Tanh())
    for error, wrong in (
        (TypeError, lambda: layers + nn.ReLU()),
        (TypeError, lambda: layers * 1.5),
        (ValueError, lambda: layers * 0),
        (IndexError, lambda: layers.insert(-3, nn.ReLU())),
        (IndexError, lambda: layers.insert(3, nn.ReLU())),
        (TypeError, lambda: nn.ModuleList(layers) + range(1)),
    ):
        with pytest.raises(error):
            wrong()
    assert len(layers) == 2
