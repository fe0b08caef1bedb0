"""Schedules of the learning rate against torch.optim.lr_scheduler, their states, and their refusals."""

import json
import math

import numpy as np
import pytest

import fastconv.nn as nn
from fastconv import optim

SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.3}),
    ("MultiStepLR", {"milestones": [2, 5, 5, 9], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 4}),
    ("LinearLR", {"start_factor": 0.2, "end_factor": 0.7, "total_iters": 6}),
    ("LinearLR", {}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 4, "eta_min": 0.001}),
    ("CosineAnnealingLR", {"T_max": 1}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 0.95**epoch + 0.1}),
    ("MultiplicativeLR", {"lr_lambda": lambda epoch: 0.9 + 0.01 * epoch}),
    ("PolynomialLR", {"total_iters": 9, "power": 1.7}),
    ("PolynomialLR", {}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2, "eta_min": 0.001}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": [0.5, 0.3], "step_size_up": 3, "cycle_momentum": False}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 2, "step_size_down": 4, "mode": "triangular2"}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 4, "mode": "exp_range", "gamma": 0.9}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, "scale_fn": lambda x: 1 / (5 * x)}),
    (
        "CyclicLR",
        {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, "scale_fn": lambda x: 0.9**x, "scale_mode": "iterations"},
    ),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 16}),
    ("OneCycleLR", {"max_lr": [0.5, 0.1], "epochs": 4, "steps_per_epoch": 5, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 15, "pct_start": 0.4, "three_phase": True, "div_factor": 10.0}),
]


def _optimizer(library, parameter):
    """Two groups with different learning rates."""
    return library.SGD([{"params": [parameter()]}, {"params": [parameter()], "lr": 0.02}], lr=0.1)


def _ours():
    return _optimizer(optim, lambda: nn.Parameter(np.zeros(1, np.float32)))


def _theirs(torch):
    return _optimizer(torch.optim, lambda: torch.nn.Parameter(torch.zeros(1)))


def _rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def _compare(torch, make, epochs=14, change=None):
    """The learning rates of `epochs` epochs in both libraries; `change` scales them by hand after the third."""
    ours, theirs = _ours(), _theirs(torch)
    a, b = make(optim.lr_scheduler, ours), make(torch.optim.lr_scheduler, theirs)
    for epoch in range(epochs):
        np.testing.assert_allclose(_rates(ours), _rates(theirs), rtol=1e-12, atol=1e-15, err_msg=f"epoch {epoch}")
        np.testing.assert_allclose(a.get_last_lr(), b.get_last_lr(), rtol=1e-12, atol=1e-15)
        for optimizer, schedule in ((ours, a), (theirs, b)):
            optimizer.step()
            schedule.step()
            if change and epoch == 3:
                for group in optimizer.param_groups:
                    group["lr"] *= change


def _label(value: object) -> str:
    """The name, or the options' names: a function among them prints its address, other in each process."""
    return value if isinstance(value, str) else ",".join(value)


@pytest.mark.parametrize("name, options", SCHEDULES, ids=_label)
def test_rates_are_torchs(torch, name, options):
    _compare(torch, lambda library, optimizer: getattr(library, name)(optimizer, **options))


@pytest.mark.parametrize("name, options", [SCHEDULES[0], SCHEDULES[5], SCHEDULES[6]], ids=_label)
def test_a_rate_changed_by_hand_stays_changed_as_in_torch(torch, name, options):
    _compare(torch, lambda library, optimizer: getattr(library, name)(optimizer, **options), change=0.5)


@pytest.mark.parametrize("epochs", [1, 3, 5])
@pytest.mark.parametrize("name, options", SCHEDULES, ids=_label)
def test_going_on_from_an_epoch_is_torchs(torch, name, options, epochs):
    def run(library, optimizer):
        schedule = getattr(library, name)(optimizer, **options)
        for _ in range(epochs):
            optimizer.step()
            schedule.step()
        other = getattr(library, name)(optimizer, **options, last_epoch=epochs - 1)
        rates = [_rates(optimizer)]
        for _ in range(6):
            optimizer.step()
            other.step()
            rates.append(_rates(optimizer))
        return rates

    ours, theirs = run(optim.lr_scheduler, _ours()), run(torch.optim.lr_scheduler, _theirs(torch))
    if epochs == 5 and "T_mult" in options:  # torch begins its second period anew; here it goes on
        optimizer = _ours()
        schedule = optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, **options)
        for _ in range(epochs):
            schedule.step()
        theirs = [_rates(optimizer)]
        for _ in range(6):
            schedule.step()
            theirs.append(_rates(optimizer))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def _warm_up(library, optimizer):
    parts = [
        library.LinearLR(optimizer, start_factor=0.1, total_iters=3),
        library.CosineAnnealingLR(optimizer, T_max=5, eta_min=1e-3),
        library.StepLR(optimizer, step_size=2, gamma=0.5),
    ]
    return library.SequentialLR(optimizer, parts, milestones=[3, 8])


def test_a_sequence_is_torchs(torch):
    _compare(torch, _warm_up)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_a_plateau_is_torchs(torch, mode, threshold_mode, cooldown):
    options = {"mode": mode, "threshold_mode": threshold_mode, "cooldown": cooldown, "min_lr": [0.03, 0.001]}
    ours, theirs = _ours(), _theirs(torch)
    a = optim.lr_scheduler.ReduceLROnPlateau(ours, factor=0.5, patience=1, threshold=0.1, **options)
    b = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.5, patience=1, threshold=0.1, **options)
    values = [3.0, 2.0, 1.95, 1.94, 2.5, 2.4, 1.0, 1.0, 1.0, 1.0, float("nan"), 1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    for value in values:
        a.step(value)
        b.step(value)
        assert _rates(ours) == pytest.approx(_rates(theirs), rel=1e-12)
    assert a.best == b.best and a.num_bad_epochs == b.num_bad_epochs
    assert _rates(ours)[0] < 0.1


SAVED = [*SCHEDULES[:8], SCHEDULES[15], ("sequence", {}), ("chained", {}), ("plateau", {})]


@pytest.mark.parametrize("name, options", SAVED, ids=_label)
def test_a_state_goes_through_json_and_on(name, options):
    def make(optimizer):
        if name == "sequence":
            return _warm_up(optim.lr_scheduler, optimizer)
        if name == "chained":
            return _chained(optim.lr_scheduler, optimizer)
        if name == "plateau":
            return optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return getattr(optim.lr_scheduler, name)(optimizer, **options)

    def go_on(optimizer, schedule):
        rates = []
        for _ in range(6):
            schedule.step(*([1.0] if name == "plateau" else []))
            rates.append(_rates(optimizer))
        return rates

    optimizer = _ours()
    schedule = make(optimizer)
    for _ in range(4):
        schedule.step(*([1.0] if name == "plateau" else []))
    saved = json.loads(json.dumps(schedule.state_dict()))
    saved_optimizer = optimizer.state_dict()
    other_optimizer = _ours()
    other = make(other_optimizer)
    other.load_state_dict(saved)
    other_optimizer.load_state_dict(saved_optimizer)
    assert other.get_last_lr() == schedule.get_last_lr()
    assert go_on(other_optimizer, other) == go_on(optimizer, schedule)


def test_a_state_of_another_schedule_changes_nothing():
    optimizer = _ours()
    schedule = optim.lr_scheduler.StepLR(optimizer, 2)
    before = schedule.state_dict()
    single = optim.SGD([nn.Parameter(np.zeros(1, np.float32))], lr=0.1)
    for wrong, error in (
        (optim.lr_scheduler.ExponentialLR(optimizer, 0.5).state_dict(), ValueError),
        (optim.lr_scheduler.StepLR(single, 7).state_dict(), ValueError),
        ({}, ValueError),
        (None, TypeError),
    ):
        with pytest.raises(error, match="state_dict"):
            schedule.load_state_dict(wrong)
        assert schedule.state_dict() == before
    sequence = _warm_up(optim.lr_scheduler, _ours())
    sequence.step()
    before = sequence.state_dict()
    broken = _warm_up(optim.lr_scheduler, _ours()).state_dict()
    broken["_schedulers"][2] = {}
    for wrong in (broken, {**before, "_schedulers": []}, {}, None):
        with pytest.raises(ValueError, match="state_dict"):
            sequence.load_state_dict(wrong)
        assert sequence.state_dict() == before


def test_going_on_without_a_state_needs_the_first_rates():
    with pytest.raises(ValueError, match="last_epoch"):
        optim.lr_scheduler.StepLR(_ours(), 2, last_epoch=4)


@pytest.mark.parametrize(
    "name, options, error, word",
    [
        ("StepLR", {"step_size": 0}, ValueError, "step_size"),
        ("StepLR", {"step_size": 1.5}, TypeError, "step_size"),
        ("StepLR", {"step_size": 1, "gamma": -1}, ValueError, "gamma"),
        ("StepLR", {"step_size": 1, "gamma": math.nan}, ValueError, "gamma"),
        ("MultiStepLR", {"milestones": [-1]}, ValueError, "milestones"),
        ("MultiStepLR", {"milestones": [1.0]}, TypeError, "milestones"),
        ("ConstantLR", {"factor": 0.0}, ValueError, "factor"),
        ("ConstantLR", {"total_iters": 0}, ValueError, "total_iters"),
        ("LinearLR", {"start_factor": 0.0}, ValueError, "start_factor"),
        ("LinearLR", {"start_factor": 1.5}, ValueError, "start_factor"),
        ("LinearLR", {"end_factor": 1.5}, ValueError, "end_factor"),
        ("LinearLR", {"end_factor": "1"}, TypeError, "end_factor"),
        ("ExponentialLR", {"gamma": None}, TypeError, "gamma"),
        ("CosineAnnealingLR", {"T_max": 0}, ValueError, "T_max"),
        ("CosineAnnealingLR", {"T_max": 2, "eta_min": -1.0}, ValueError, "eta_min"),
        ("LambdaLR", {"lr_lambda": 0.5}, ValueError, "lr_lambda"),
        ("LambdaLR", {"lr_lambda": [abs]}, ValueError, "lr_lambda"),
        ("SequentialLR", {"schedulers": [], "milestones": []}, ValueError, "milestones"),
        ("ReduceLROnPlateau", {"factor": 1.0}, ValueError, "factor"),
        ("ReduceLROnPlateau", {"mode": "lowest"}, ValueError, "mode"),
        ("ReduceLROnPlateau", {"threshold_mode": "ratio"}, ValueError, "threshold_mode"),
        ("ReduceLROnPlateau", {"patience": -1}, ValueError, "patience"),
        ("ReduceLROnPlateau", {"min_lr": [0.1]}, ValueError, "min_lr"),
    ],
    ids=str,
)
def test_bad_options(name, options, error, word):
    with pytest.raises(error, match=word):
        getattr(optim.lr_scheduler, name)(_ours(), **options)


def test_bad_optimizers_and_sequences():
    schedulers = optim.lr_scheduler
    for make in (lambda o: schedulers.StepLR(o, 1), schedulers.ReduceLROnPlateau):
        with pytest.raises(TypeError, match="optimizer must be an Optimizer"):
            make(nn.Linear(1, 1))
    optimizer, other = _ours(), _ours()
    step, foreign = schedulers.StepLR(optimizer, 1), schedulers.StepLR(other, 1)
    plateau = schedulers.ReduceLROnPlateau(optimizer)
    for parts, milestones, word in (
        ([step, foreign], [2], "of this optimizer"),
        ([step, plateau], [2], "measured value"),
        ([step, step], [], "one fewer"),
        ([step, step, step], [3, 3], "must rise"),
        ([step, step], [0], "milestones"),
    ):
        with pytest.raises(ValueError, match=word):
            schedulers.SequentialLR(optimizer, parts, milestones)
    with pytest.raises(TypeError, match="metrics"):
        plateau.step()


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize(
    "make, steps",
    [
        (lambda library, optimizer: library.CyclicLR(optimizer, 0.1, 1.0, 3, 2, "triangular2"), 12),
        (lambda library, optimizer: library.OneCycleLR(optimizer, 1.0, total_steps=7), 7),  # one behind the last batch
    ],
    ids=["CyclicLR", "OneCycleLR"],
)
def test_cycles_move_the_momentum_as_torch(torch, name, make, steps):
    options = {"momentum": 0.9} if name == "SGD" else {}
    ours = getattr(optim, name)([nn.Parameter(np.zeros(1, np.float32))], lr=0.1, **options)
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))], lr=0.1, **options)
    a, b = make(optim.lr_scheduler, ours), make(torch.optim.lr_scheduler, theirs)
    for step in range(steps + 1):
        for key in ("lr", "momentum", "betas"):
            if key in theirs.param_groups[0]:
                np.testing.assert_allclose(ours.param_groups[0][key], theirs.param_groups[0][key], rtol=1e-12)
        if step < steps:
            for optimizer, schedule in ((ours, a), (theirs, b)):
                optimizer.step()
                schedule.step()


def _chained(library, optimizer):
    parts = [
        library.LinearLR(optimizer, start_factor=0.1, total_iters=4),
        library.ExponentialLR(optimizer, 0.9),
        library.StepLR(optimizer, 3, 0.5),
    ]
    return library.ChainedScheduler(parts)


def test_schedules_at_once_are_torchs(torch):
    _compare(torch, _chained)
    _compare(torch, _chained, change=0.5)
    optimizer = _ours()
    schedule = _chained(optim.lr_scheduler, optimizer)
    first = _rates(optimizer)
    for _ in range(5):
        schedule.step()
    assert schedule.get_last_lr() == _rates(optimizer) != first
    schedule.restart()
    assert schedule.get_last_lr() == _rates(optimizer) == first


def test_schedules_at_once_refuse():
    optimizer, schedulers = _ours(), optim.lr_scheduler
    part = schedulers.StepLR(optimizer, 1)
    for error, message, arguments in (
        (ValueError, "at least one entry", ([],)),
        (ValueError, "schedules of this optimizer", ([part, schedulers.StepLR(_ours(), 1)],)),
        (ValueError, "schedules of this optimizer", ([part], _ours())),
        (ValueError, "ReduceLROnPlateau", ([part, schedulers.ReduceLROnPlateau(optimizer)],)),
        (TypeError, "optimizer must be an Optimizer", ([3],)),
    ):
        with pytest.raises(error, match=message):
            schedulers.ChainedScheduler(*arguments)


def test_one_cycle_ends():
    schedule = optim.lr_scheduler.OneCycleLR(_ours(), 1.0, total_steps=7, cycle_momentum=False)
    for _ in range(7):
        schedule.step()
    with pytest.raises(ValueError, match="step must not be called more than total_steps=7 times"):
        schedule.step()


def test_warm_restarts_at_fractions_of_an_epoch_are_torchs(torch):
    ours, theirs = _ours(), _theirs(torch)
    a = optim.lr_scheduler.CosineAnnealingWarmRestarts(ours, 2, 2)
    b = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, 2, 2)
    theirs.step()
    for epoch in (0.25, 1.75, 2.5, 5.75, 6.25, 20.5, 1.0):
        a.step(epoch)
        b.step(epoch)
        np.testing.assert_allclose(_rates(ours), _rates(theirs), rtol=1e-12)
        assert a.last_epoch == b.last_epoch
    a.restart()
    assert _rates(ours) == [0.1, 0.02] and a.last_epoch == 0


CYCLES_REFUSED = [
    (ValueError, "total_steps must be given", "OneCycleLR", (0.1,), {}),
    (ValueError, "total_steps must be at least 1", "OneCycleLR", (0.1, 0), {}),
    (ValueError, "max_lr must be a number, or one for each of 2 groups", "OneCycleLR", ([0.1], 5), {}),
    (ValueError, "pct_start must be from 0 to 1", "OneCycleLR", (0.1, 5), {"pct_start": 1.5}),
    (ValueError, "anneal_strategy must be one of", "OneCycleLR", (0.1, 5), {"anneal_strategy": "step"}),
    (ValueError, "step_size_up must be at least 1", "CyclicLR", (0.1, 0.5, 0), {}),
    (ValueError, "mode must be one of", "CyclicLR", (0.1, 0.5), {"mode": "square"}),
    (ValueError, "scale_mode must be one of", "CyclicLR", (0.1, 0.5), {"scale_mode": "epochs"}),
    (ValueError, "base_lr must be a number, or one for each of 2", "CyclicLR", ([0.1], 0.5), {}),
    (TypeError, "scale_fn must be callable", "CyclicLR", (0.1, 0.5), {"scale_fn": 2.0}),
    (ValueError, "T_0 must be at least 1", "CosineAnnealingWarmRestarts", (0,), {}),
    (ValueError, "T_mult must be at least 1", "CosineAnnealingWarmRestarts", (2, 0), {}),
    (ValueError, "total_iters must be at least 1", "PolynomialLR", (0,), {}),
    (ValueError, "lr_lambda must be", "MultiplicativeLR", (0.9,), {}),
]


@pytest.mark.parametrize(("error", "message", "name", "args", "options"), CYCLES_REFUSED)
def test_cycles_refuse(error, message, name, args, options):
    optimizer = _ours()
    with pytest.raises(error, match=message):
        getattr(optim.lr_scheduler, name)(optimizer, *args, **options)
    assert _rates(optimizer) == [0.1, 0.02]
    without = optim.Adagrad([nn.Parameter(np.zeros(1, np.float32))])
    with pytest.raises(ValueError, match="cycle_momentum must be False"):
        optim.lr_scheduler.OneCycleLR(without, 0.1, 5)
    with pytest.raises(ValueError, match="cycle_momentum must be False"):
        optim.lr_scheduler.CyclicLR(without, 0.1, 5)
