"""Optimisers against torch.optim, and their refusals."""

import copy
import threading

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
from fastconv import optim

OPTIONS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "maximize": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "maximize": True}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.5, "amsgrad": True}),
    ("Adagrad", {"lr": 0.05}),
    (
        "Adagrad",
        {"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.2, "initial_accumulator_value": 0.3, "eps": 0.01},
    ),
    ("RMSprop", {"lr": 0.05}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.7, "momentum": 0.8, "weight_decay": 0.1, "eps": 1e-3}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.7, "momentum": 0.8, "centered": True, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.7, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {}),
    ("Adamax", {"lr": 0.05, "betas": (0.8, 0.7), "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.05, "betas": (0.8, 0.7), "eps": 1e-3, "weight_decay": 0.1, "momentum_decay": 0.3}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RAdam", {"lr": 0.05}),
    ("RAdam", {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.05, "etas": (0.3, 1.5), "step_sizes": (0.02, 0.08), "maximize": True}),
]
STATES = [OPTIONS[i] for i in (1, 3, 5, 7, 11, 14, 16, 18, 20, 23, 26)]


def _run(torch, name, options, dtype, steps=6, groups=False):
    """Both optimisers over the same gradients; returns both lists of parameters and both optimisers."""
    rng = np.random.default_rng(4)
    arrays = [rng.normal(size=shape).astype(dtype) for shape in ((3, 2), (4,), ())]
    ours = [nn.Parameter(array.copy()) for array in arrays]
    theirs = [torch.nn.Parameter(torch.tensor(array)) for array in arrays]

    def grouped(parameters):
        return [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.01}] if groups else parameters

    a, b = getattr(optim, name)(grouped(ours), **options), getattr(torch.optim, name)(grouped(theirs), **options)
    for step in range(steps):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            if i == 1 and step == 2:
                p.grad = q.grad = None
                continue
            # Gradients that shrink, so that amsgrad's maximum matters.
            p.grad = (rng.normal(size=p.shape) * 0.5**step).astype(dtype)
            q.grad = torch.tensor(p.grad)
        a.step()
        b.step()
    return ours, theirs, a, b


def _tolerance(name):
    """torch keeps NAdam's product of momenta in float32."""
    return {"rtol": 1e-7, "atol": 1e-9} if name == "NAdam" else {"rtol": 1e-12, "atol": 1e-14}


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("name, options", OPTIONS, ids=str)
def test_steps_are_torchs(torch, name, options, groups):
    ours, theirs, _, _ = _run(torch, name, options, np.float64, groups=groups)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), **_tolerance(name))


@pytest.mark.parametrize("name, options", OPTIONS[1:6:2], ids=str)
def test_float32_and_16_bits(torch, name, options):
    ours, theirs, _, _ = _run(torch, name, options, np.float32)
    for p, q in zip(ours, theirs, strict=True):
        assert p.dtype == np.float32
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-5, atol=1e-6)
    ours, theirs, _, _ = _run(torch, name, {**options, "lr": 0.01}, np.float16)
    for p, q in zip(ours, theirs, strict=True):
        assert p.dtype == np.float16
        np.testing.assert_allclose(p.data.astype(float), q.detach().numpy().astype(float), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name, options", OPTIONS, ids=str)
def test_blocks_and_threads_change_no_bit(monkeypatch, name, options):
    """Large parameters go through the cache in blocks; ones that are not contiguous in one piece."""
    monkeypatch.setattr(optim.optimizer, "_WORTH_A_THREAD", 1)
    rng = np.random.default_rng(6)
    arrays = [rng.normal(size=(4, 23)).astype(np.float32), np.asfortranarray(rng.normal(size=(5, 7)))]
    gradients = [[rng.normal(size=a.shape).astype(a.dtype) for a in arrays] for _ in range(4)]

    def run(block, threads):
        monkeypatch.setattr(optim.optimizer, "_BLOCK", block)
        monkeypatch.setattr(optim.threads, "_thread_count", lambda: threads)
        parameters = [nn.Parameter(a.copy(order="K")) for a in arrays]
        optimizer = getattr(optim, name)(parameters, **options)
        for step in gradients:
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = gradient
            optimizer.step()
        return [p.data for p in parameters], optimizer.state_dict()["state"]

    whole, state = run(1 << 16, 1)
    for parts, other in (run(16, 1), run(16, 3)):
        for a, b in zip(whole, parts, strict=True):
            np.testing.assert_array_equal(a, b)
        assert state.keys() == other.keys()
        for number, entry in state.items():
            assert entry.keys() == other[number].keys()
            for moment, value in entry.items():
                np.testing.assert_array_equal(value, other[number][moment])


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_raise_what_numpy_shall_raise(monkeypatch, threads):
    monkeypatch.setattr(optim.optimizer, "_BLOCK", 16)
    monkeypatch.setattr(optim.optimizer, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(optim.threads, "_thread_count", lambda: threads)
    parameter = nn.Parameter(np.full(4000, 3e38, np.float32))
    parameter.grad = np.full(4000, -3e38, np.float32)
    optimizer = optim.SGD([parameter], lr=1.0)
    before = threading.active_count()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        optimizer.step()
    assert threading.active_count() == before
    with np.errstate(over="ignore"):
        optimizer.step()
    assert np.isinf(parameter.data).all()


def test_updates_are_in_place_and_skip_what_has_no_gradient():
    layer = nn.Linear(2, 1)
    array, bias = layer.weight.data, layer.bias.data.copy()
    layer.weight.grad = np.ones((1, 2), np.float32)
    optimizer = optim.SGD(layer.parameters(), lr=0.5)
    before = array.copy()
    optimizer.step()
    assert layer.weight.data is array
    np.testing.assert_array_equal(array, before - 0.5)
    np.testing.assert_array_equal(layer.bias.data, bias)
    optimizer.zero_grad(set_to_none=False)
    assert not layer.weight.grad.any()
    optimizer.zero_grad()
    assert layer.weight.grad is None


def test_closure_and_changed_learning_rate():
    w = fc.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([("w", w)], lr=1.0)
    optimizer.param_groups[0]["lr"] *= 0.25

    def closure():
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0
    assert w.data.tolist() == [0.5]


@pytest.mark.parametrize("name, options", STATES, ids=str)
def test_a_loaded_state_goes_on_as_if_nothing_had_happened(torch, name, options):
    ours, _, optimizer, theirs = _run(torch, name, options, np.float64)
    twins = [nn.Parameter(p.data.copy()) for p in ours]
    other = getattr(optim, name)(twins, lr=99.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    third = [nn.Parameter(p.data.copy()) for p in ours]
    from_torch = getattr(optim, name)(third, lr=99.0)
    from_torch.load_state_dict(theirs.state_dict())
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for parameters, opt in ((ours, optimizer), (twins, other), (third, from_torch)):
        for p in parameters:
            p.grad = np.ones(p.shape)
        opt.step()
    for p, q, r in zip(ours, twins, third, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
        np.testing.assert_allclose(p.data, r.data, rtol=_tolerance(name)["rtol"])


def test_loading_checks_before_it_changes():
    parameters = [nn.Parameter(np.zeros(3, np.float32)), nn.Parameter(np.zeros(2, np.float32))]
    optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9)
    for p in parameters:
        p.grad = np.ones_like(p.data)
    optimizer.step()
    good = copy.deepcopy(optimizer.state_dict())

    def broken(change):
        state = copy.deepcopy(good)
        state["param_groups"][0]["lr"] = 7.0
        change(state)
        return state

    for change in (
        lambda s: s["state"][1].update(momentum_buffer=np.ones(3)),
        lambda s: s["state"][1].update(unknown=np.ones(2)),
        lambda s: s["state"].update({5: {}}),
        lambda s: s["param_groups"].append({"params": []}),
        lambda s: s["param_groups"][0].update(params=[0]),
        lambda s: s["param_groups"][0].update(momentum=-1.0),
        lambda s: s.pop("state"),
    ):
        with pytest.raises(ValueError):
            optimizer.load_state_dict(broken(change))
        assert optimizer.param_groups[0]["lr"] == 0.1
        np.testing.assert_array_equal(optimizer.state_dict()["state"][1]["momentum_buffer"], np.ones(2))
    with pytest.raises(ValueError):
        optimizer.load_state_dict(None)


def test_a_misshapen_gradient_changes_no_parameter():
    parameters = [nn.Parameter(np.zeros(3, np.float32)), nn.Parameter(np.zeros(2, np.float32))]
    optimizer = optim.Adam(parameters)
    parameters[0].grad = np.ones(3, np.float32)
    parameters[1].grad = np.ones(3, np.float32)
    with pytest.raises(ValueError, match=r"grad must have shape \(2,\)"):
        optimizer.step()
    assert not parameters[0].data.any() and not optimizer.state
    parameters[1].grad = np.ones(2, np.float32)
    parameters[1].data.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        optimizer.step()
    assert not parameters[0].data.any()


@pytest.mark.parametrize(
    "name, options, error",
    [
        ("SGD", {"lr": -1.0}, ValueError),
        ("SGD", {"lr": float("nan")}, ValueError),
        ("SGD", {"lr": "fast"}, TypeError),
        ("SGD", {"lr": True}, TypeError),
        ("SGD", {"momentum": -0.1}, ValueError),
        ("SGD", {"weight_decay": -0.1}, ValueError),
        ("SGD", {"nesterov": True}, ValueError),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError),
        ("Adam", {"eps": -1.0}, ValueError),
        ("Adam", {"betas": (1.0, 0.9)}, ValueError),
        ("Adam", {"betas": (0.9, -0.1)}, ValueError),
        ("Adam", {"betas": 0.9}, ValueError),
        ("AdamW", {"betas": (0.9, 0.9, 0.9)}, ValueError),
        ("Adagrad", {"lr_decay": -1.0}, ValueError),
        ("Adagrad", {"initial_accumulator_value": -1.0}, ValueError),
        ("RMSprop", {"alpha": 1.0}, ValueError),
        ("RMSprop", {"momentum": "0.9"}, TypeError),
        ("Adadelta", {"rho": -0.1}, ValueError),
        ("Adadelta", {"eps": -1e-3}, ValueError),
        ("Adamax", {"betas": (0.9, 1.0)}, ValueError),
        ("NAdam", {"momentum_decay": -1.0}, ValueError),
        ("RAdam", {"weight_decay": None}, TypeError),
        ("Rprop", {"etas": (1.0, 1.2)}, ValueError),
        ("Rprop", {"etas": 0.5}, ValueError),
        ("Rprop", {"step_sizes": (1.0, 0.5)}, ValueError),
    ],
    ids=str,
)
def test_bad_options(name, options, error):
    with pytest.raises(error, match="|".join(options)):
        getattr(optim, name)([nn.Parameter(np.zeros(1, np.float32))], **options)


def test_bad_parameters():
    parameter = nn.Parameter(np.zeros(1, np.float32))
    for params, error in (
        ([], ValueError),
        ([parameter, parameter], ValueError),
        ([{"params": parameter}, {"params": [parameter]}], ValueError),
        (parameter, TypeError),
        (3, TypeError),
        ([np.zeros(1)], TypeError),
        ([fc.tensor([1.0])], ValueError),
        ([{"lr": 0.1}], TypeError),
        ([{"params": parameter, "speed": 1}], TypeError),
        ({parameter}, TypeError),
        ([{"params": {parameter}}], TypeError),
        ([("first", parameter), nn.Parameter(np.zeros(1))], ValueError),
    ):
        with pytest.raises(error, match="param"):
            optim.SGD(params, lr=0.1)
    optimizer = optim.SGD([parameter], lr=0.1)
    optimizer.add_param_group({"params": nn.Parameter(np.zeros(1, np.float32)), "lr": 0.2})
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    assert "lr: 0.2" in repr(optimizer)
