"""Trainer: what it computes, and that a run that was stopped goes on bit for bit."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import heed_interrupts
from fastconv import optim
from fastconv.data import DataLoader, TensorDataset, transforms
from fastconv.training import History, read_checkpoint, write_checkpoint

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 40)
IMAGES = (RNG.normal(size=(40, 1, 6, 6)) + LABELS[:, None, None, None]).astype(np.float32)


def _net(seed=1):
    fc.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3)
    )


def _loader(**options):
    augment = transforms.RandomHorizontalFlip()
    return DataLoader(
        TensorDataset(IMAGES, LABELS), **{"batch_size": 16, "shuffle": True, "seed": 5, **options}, transform=augment
    )


def _validation():
    return DataLoader(TensorDataset(IMAGES[:20], LABELS[:20]), 8)


def _trainer(net=None, optimizer=None, scheduler=True, **options):
    net = net or _net()
    optimizer = optimizer or optim.Adam(net.parameters(), lr=0.01)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6) if scheduler else None
    return fc.Trainer(net, optimizer, scheduler=schedule, **{"log": None, "progress": False, **options})


def _state(trainer):
    return {name: value.tobytes() for name, value in trainer.model.state_dict().items()}


def test_it_trains_and_measures(capsys):
    trainer = _trainer(log=print)
    history = trainer.fit(_loader(), 6, _validation())
    assert trainer.epoch == len(history) == 6 and history.column("epoch") == [1, 2, 3, 4, 5, 6]
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[0].startswith("epoch 1/6: loss ") and "img/s" in lines[0]
    assert history.column("lr")[0] == 0.01 and history.column("lr")[3] == pytest.approx(0.005)
    measured = trainer.evaluate(_validation())
    assert measured == {"loss": history[-1]["val_loss"], "accuracy": history[-1]["val_accuracy"]}
    logits = trainer.predict(_validation())
    np.testing.assert_array_equal(logits, trainer.predict([IMAGES[:8], IMAGES[8:16], IMAGES[16:20]]))
    assert (logits.argmax(1) == LABELS[:20]).mean() == measured["accuracy"]
    assert measured["loss"] == pytest.approx(float(F.cross_entropy(logits, LABELS[:20])), rel=1e-5)
    assert trainer.model.training


def test_a_step_is_that_of_a_plain_loop():
    net, plain = _net(), _net()
    batches = list(_loader())
    trainer = _trainer(net, optim.SGD(net.parameters(), lr=0.1, momentum=0.9), scheduler=False, max_grad_norm=0.5)
    fc.manual_seed(8)
    trainer.fit(batches, 1)
    optimizer = optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    fc.manual_seed(8)
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(plain(fc.tensor(x)), y).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    for (name, value), expected in zip(net.state_dict().items(), plain.state_dict().values(), strict=True):
        np.testing.assert_array_equal(value, expected, err_msg=name)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_run_goes_on_bit_for_bit(tmp_path, suffix):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    whole = _trainer()
    whole.fit(_loader(), 5, _validation())
    first = _trainer(checkpoint=tmp_path / f"last.{suffix}")
    first.fit(_loader(), 2, _validation())
    fc.manual_seed(99)
    second = _trainer(_net(7), checkpoint=tmp_path / f"last.{suffix}")
    second.load(tmp_path / f"last.{suffix}")
    assert second.epoch == 2
    second.fit(_loader(seed=123, num_workers=2), 5, _validation())
    assert _state(second) == _state(whole)
    for name in ("loss", "accuracy", "val_loss", "lr"):
        assert second.history.column(name) == whole.history.column(name)
    moments = [trainer.optimizer.state_dict()["state"] for trainer in (whole, second)]
    for number, entry in moments[0].items():
        np.testing.assert_array_equal(entry["exp_avg"], moments[1][number]["exp_avg"])
    assert second.fit(_loader(), 5) is second.history and second.epoch == 5


def test_schedules_of_batches_and_of_values(tmp_path):
    net = _net()
    optimizer = optim.SGD(net.parameters(), lr=1.0)
    warm_up = optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=6)
    trainer = fc.Trainer(net, optimizer, scheduler=warm_up, schedule_batches=True, log=None)
    trainer.fit(_loader(), 1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 + 0.9 * 3 / 6)
    watched = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=1e9)
    fc.Trainer(net, optimizer, scheduler=watched, log=None).fit(_loader(), 3, _validation())
    assert watched.last_epoch == 3 and optimizer.param_groups[0]["lr"] < 0.6


def test_early_stopping_keeps_the_best_weights(tmp_path):
    net = _net()
    optimizer = optim.SGD(net.parameters(), lr=0.0)  # only the running statistics change
    trainer = fc.Trainer(net, optimizer, checkpoint=tmp_path / "run.npz", patience=2, monitor="accuracy", log=None)
    values = iter([0.5, 0.7, 0.7, 0.6, 0.9])
    epoch = trainer._epoch
    trainer._epoch = lambda *arguments: {**epoch(*arguments), "accuracy": next(values)}
    trainer.fit(_loader(), 10)
    assert trainer.epoch == 4
    assert fc.load(trainer.best_checkpoint)["1.num_batches_tracked"] == 6  # after the second epoch of three batches
    again = fc.Trainer(net, optimizer, checkpoint=tmp_path / "run.npz", patience=2, monitor="accuracy", log=None)
    again.load(tmp_path / "run.npz")
    assert again.fit(_loader(), 10)[-1]["epoch"] == 4


class _Broken(nn.Module):
    """NaN from the given step on, in a layer of its own."""

    def __init__(self, step):
        super().__init__()
        self.step = step
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * float("nan") if self.calls >= self.step else x


def _with(layer):
    net = _net()
    return nn.Sequential(*list(net)[:3], layer, *list(net)[4:])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: (_with(_Broken(5)), {}), r"loss became nan in step 2 of epoch 2; it began in layer '3' \(_Broken\)"),
        (lambda: (_net(), {"lr": 1e30}), r"in step 2 of epoch 1; it began in .*"),
        (
            lambda: (_net(), {"lr": float("inf")}),
            r"the update of the step before: parameter '0.weight' \(and 5 more\) is not finite",
        ),
    ],
    ids=["layer", "overflow", "update"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_no_number_stops_and_names_the_place(tmp_path, make, message):
    net, options = make()
    optimizer = optim.SGD(net.parameters(), **({"lr": 0.01} | {k: v for k, v in options.items() if v != np.inf}))
    if options.get("lr") == np.inf:
        optimizer.param_groups[0]["lr"] = np.inf
    trainer = fc.Trainer(net, optimizer, checkpoint=tmp_path / "run.npz", log=None)
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit(_loader(), 4)
    assert read_checkpoint(tmp_path / "run.npz").epoch == trainer.epoch
    assert all(np.isfinite(value).all() for value in read_checkpoint(tmp_path / "run.npz").model.values())


def test_other_origins_of_a_loss_that_is_no_number():
    images = IMAGES.copy()
    images[3, 0, 2, 2] = np.inf
    trainer = _trainer()
    with pytest.raises(FloatingPointError, match="step 1 of epoch 1; it began in the images"):
        trainer.fit([(images, LABELS)], 1)
    before = _state(trainer)
    trainer.loss = lambda output, target: F.cross_entropy(output, target) * float("inf")
    with pytest.raises(FloatingPointError, match=r"loss became inf .* the loss function"):
        trainer.fit([(IMAGES, LABELS)], 1)
    assert {k: v for k, v in before.items() if "running" not in k and "num" not in k} == {
        k: v for k, v in _state(trainer).items() if "running" not in k and "num" not in k
    }

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Flatten(), nn.Linear(36, 3)

        def forward(self, x):
            return self.second(self.first(x) / 0.0)

    net = Hidden()
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"the input of layer 'second' \(Linear\)"):
        fc.Trainer(net, optim.SGD(net.parameters()), log=None).fit([(IMAGES, LABELS)], 1)


def test_gradients_that_overflow_in_the_last_step_reach_no_checkpoint(tmp_path):
    trainer = _trainer(checkpoint=tmp_path / "run.npz", scheduler=False)

    def spoil(parameter):
        parameter.grad = np.full_like(parameter.grad, np.nan)

    trainer.model[0].weight.register_post_accumulate_grad_hook(spoil)
    with pytest.raises(FloatingPointError, match=r"'0.weight' is not finite after the last step of epoch 1"):
        trainer.fit([(IMAGES, LABELS)], 1)
    assert read_checkpoint(tmp_path / "run.npz").epoch == 0


def test_bad_batches_are_named():
    trainer = _trainer()
    labels = LABELS.copy()
    labels[20] = 3
    with pytest.raises(ValueError, match=r"classes from 0 to 2 .* got 3") as caught:
        trainer.fit(DataLoader(TensorDataset(IMAGES, labels), 16), 1)
    assert caught.value.__notes__ == ["in step 2 of epoch 1"]
    with pytest.raises(ValueError, match=r"pairs \(input, target\), got ndarray"):
        trainer.fit([IMAGES], 1)
    for call in (lambda: trainer.fit([], 1), lambda: trainer.evaluate([]), lambda: trainer.predict([])):
        with pytest.raises(ValueError, match="at least one"):
            call()
    early = _trainer(monitor="val_accuracy")
    before = _state(early)
    with pytest.raises(ValueError, match="monitor='val_accuracy' needs validation, got none"):
        early.fit([(IMAGES, LABELS)], 1)
    assert _state(early) == before
    pair = np.ones((3, 2), np.float32), np.ones((3, 1), np.float32)
    with pytest.raises(ValueError, match=r"monitor must be one of .*loss.*; got 'accuracy'"):
        _trainer(nn.Linear(2, 1), monitor="accuracy", loss=F.mse_loss).fit([pair], 1)
    with pytest.raises(ValueError, match="optimizer must hold parameters of the model"):
        fc.Trainer(early.model, optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0))


def test_frozen_normalisation_stays_in_evaluation_mode():
    trainer = _trainer()
    norm, dropout = trainer.model[1], trainer.model[3]
    norm.eval()
    running = norm.running_mean.copy()
    trainer.fit(_loader(), 2, _validation())
    assert not norm.training and dropout.training and trainer.model.training
    np.testing.assert_array_equal(norm.running_mean, running)
    trainer.model.eval()  # the whole of it: to be trained
    trainer.fit(_loader(), 3)
    assert norm.training and (norm.running_mean != running).all()


def test_auxiliary_outputs_and_pixels_and_regression():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.aux = nn.Linear(36, 3), nn.Linear(36, 3)

        def forward(self, x):
            x = x.flatten(1)
            return (self.main(x), self.aux(x), None) if self.training else self.main(x)

    net = Two()
    trainer = fc.Trainer(net, optim.SGD(net.parameters(), lr=0.0), auxiliary_weight=0.5, log=None)
    row = trainer.fit([(IMAGES, LABELS)], 1)[0]
    flat = IMAGES.reshape(40, -1)
    main, aux = (float(F.cross_entropy(layer(flat), LABELS)) for layer in (net.main, net.aux))
    assert row["loss"] == pytest.approx(main + 0.5 * aux, rel=1e-6)
    assert trainer.evaluate([(IMAGES, LABELS)])["loss"] == pytest.approx(main, rel=1e-6)
    pixels = nn.Conv2d(1, 2, 1)
    masks = (IMAGES[:, 0] > 1).astype(int)
    row = fc.Trainer(pixels, optim.Adam(pixels.parameters(), lr=0.1), log=None).fit([(IMAGES, masks)] * 60, 1)[0]
    assert row["accuracy"] > 0.7
    line = nn.Linear(1, 1)
    row = fc.Trainer(line, optim.SGD(line.parameters()), F.mse_loss, log=None).fit([(flat[:, :1], flat[:, 1:2])], 1)[0]
    assert "accuracy" not in row


def test_another_run_is_refused_and_nothing_changes(tmp_path):
    path = tmp_path / "run.npz"
    _trainer(checkpoint=path, config={"batch": 16, "augment": "flip"}).fit(_loader(), 1)

    def refused(trainer, *words):
        before, rng = _state(trainer), fc.get_rng_state()
        with pytest.raises(ValueError) as caught:
            trainer.load(path)
        assert all(word in str(caught.value) for word in (str(path), *words)), caught.value
        assert _state(trainer) == before and fc.get_rng_state() == rng and trainer.epoch == 0

    config = {"batch": 16, "augment": "flip"}
    refused(_trainer(config={"batch": 32, "augment": "flip"}), "batch: 16 then, 32 now")
    refused(_trainer(), "augment: 'flip' then, None now")
    refused(_trainer(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), config=config), "'1.weight' has shape (4,)")
    net = _net()
    refused(_trainer(net, optim.SGD(net.parameters()), config=config), "SGD")
    refused(_trainer(scheduler=False, config=config), "with a schedule")
    other = _trainer(config=config)
    other.scheduler = optim.lr_scheduler.StepLR(other.optimizer, 3)
    refused(other, "StepLR")
    trainer = _trainer(config=config)
    trainer.load(path)
    with pytest.raises(ValueError, match="batch_size: 16 then, 8 now"):
        trainer.fit(_loader(batch_size=8), 2)


def test_damaged_checkpoints(tmp_path):
    path = tmp_path / "run.npz"
    trainer = _trainer(checkpoint=path)
    trainer.fit(_loader(), 1)
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        trainer.load(tmp_path / "nothing.npz")
    for content in (b"", whole[: len(whole) // 2], b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=str(path)):
            trainer.load(path)
    fc.save(trainer.model, path)
    with pytest.raises(ValueError, match="no checkpoint: it holds weights alone"):
        trainer.load(path)
    for header in (b"no json", b"{}", json.dumps({"format": "fastconv checkpoint 1"}).encode(), b"[]"):
        fc.save({"header": np.frombuffer(header, np.uint8)}, path)
        with pytest.raises(ValueError, match="no checkpoint of this version, or damaged"):
            trainer.load(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run-best.npz", "run.npz"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "run.npz"
    trainer = _trainer(checkpoint=path)
    trainer.fit(_loader(), 1)
    before = path.read_bytes()
    trainer.config = {"object": object()}
    with pytest.raises(TypeError, match="numbers, strings and lists, got object"):
        trainer.save(path)
    assert path.read_bytes() == before
    state = read_checkpoint(path)
    write_checkpoint(path, state)
    assert read_checkpoint(path).history == state.history


PROGRAM = """
    import sys, time, numpy as np, fastconv as fc, fastconv.nn as nn, fastconv.optim as optim
    from fastconv.data import DataLoader, Dataset

    class Slow(Dataset):
        def __len__(self): return 8
        def __getitem__(self, i):
            if armed: print("working", flush=True); time.sleep(0.2)
            return np.full((2,), i, np.float32), i % 2

    armed = False
    net = nn.Linear(2, 2)
    loader = DataLoader(Slow(), 2, num_workers=2, seed=1)
    trainer = fc.Trainer(net, optim.SGD(net.parameters(), lr=0.01), checkpoint=sys.argv[1], log=None)
    trainer.fit(loader, 2)
    armed = True
    trainer.fit(loader, 3)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_stopped_leaves_its_last_epoch(tmp_path, number):
    path = tmp_path / "run.npz"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), path],
        preexec_fn=heed_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline().startswith("working")  # two workers may print at once
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if number == signal.SIGINT:
        assert "in epoch 3; the checkpoint holds 2 whole epochs" in errors
    state = read_checkpoint(path)
    assert state.epoch == 2 and state.loader["epoch"] == 2
    net = nn.Linear(2, 2)
    trainer = fc.Trainer(net, optim.SGD(net.parameters(), lr=0.01), log=None)
    trainer.load(path)
    x, y = np.repeat(np.arange(8, dtype=np.float32)[:, None], 2, 1), np.arange(8) % 2
    assert trainer.fit(DataLoader(TensorDataset(x, y), 2), 3)[-1]["epoch"] == 3


def test_history_files(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    history = History([{"epoch": 1, "loss": 2.0, "accuracy": 0.1}, {"epoch": 2, "loss": 1.0, "val_loss": 0.5}])
    history.to_csv(tmp_path / "run.csv")
    rows = list(csv.DictReader((tmp_path / "run.csv").read_text().splitlines()))
    assert rows[0] == {"epoch": "1", "loss": "2.0", "accuracy": "0.1", "val_loss": ""} and len(rows) == 2
    history.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list(tmp_path.iterdir())) == 2 and "2 epochs" in repr(history)
    with pytest.raises(OSError):
        history.to_csv(tmp_path / "no" / "such.csv")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"fastconv\[demo\]"):
        history.plot(tmp_path / "run.png")


@pytest.mark.parametrize(
    "options, error, word",
    [
        ({"scheduler": 3}, ValueError, "scheduler"),
        ({"schedule_batches": True}, ValueError, "schedule_batches"),
        ({"max_grad_norm": 0.0}, ValueError, "max_grad_norm"),
        ({"auxiliary_weight": "0.3"}, TypeError, "auxiliary_weight"),
        ({"checkpoint": "run.pt"}, ValueError, r"checkpoint must end in \.npz or \.safetensors"),
        ({"patience": 0}, ValueError, "patience"),
        ({"monitor": "f1"}, ValueError, "monitor"),
    ],
    ids=str,
)
def test_bad_options(options, error, word):
    net = _net()
    with pytest.raises(error, match=word):
        fc.Trainer(net, optim.SGD(net.parameters()), **options)


def test_bad_arguments():
    net = _net()
    optimizer = optim.SGD(net.parameters())
    with pytest.raises(TypeError, match="model must be a Module"):
        fc.Trainer(F.relu, optimizer)
    with pytest.raises(TypeError, match="optimizer must be an Optimizer"):
        fc.Trainer(net, "SGD")
    with pytest.raises(ValueError, match="checkpoint must be given"):
        _ = fc.Trainer(net, optimizer).best_checkpoint
    with pytest.raises(ValueError, match="of this optimizer"):
        foreign = optim.lr_scheduler.StepLR(optim.SGD(_net().parameters()), 1)
        fc.Trainer(net, optimizer, scheduler=foreign)
    with pytest.raises(ValueError, match="state must be what get_rng_state returned"):
        fc.set_rng_state({"state": {"key": [1], "counter": [2]}, "buffer": []})
