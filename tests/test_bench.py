"""The benchmark: what it chooses, that it checks before it times, its files, comparison and tables."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import fastconv as fc
from fastconv import cli as program

try:
    from fastconv.bench import cli, cliffs, compare, goals, measure, peers, report, run, sweep, task
except ModuleNotFoundError:  # a source tree: bench/ lies beside fastconv/
    from bench import cli, cliffs, compare, goals, measure, peers, report, run, sweep, task

# The smallest layer of each operation.
SMALL = r"^(lenet-conv2|mobilenetv2-dw15|lenet-pool2|resnet50-conv5_bn|lenet-relu1|F\.relu)$"
CEILINGS = {"flops": 1e11, "bandwidth": 1e10}


@pytest.fixture
def fast(monkeypatch):
    """Blocks of a moment, and ceilings without their measurement."""
    monkeypatch.setattr(measure, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(cli, "_QUICK", measure.Effort(rounds=3, block_seconds=0.0005))
    monkeypatch.setattr(cli, "ceilings", lambda *_: CEILINGS)


WORDS = ("highest", "high")


@pytest.mark.parametrize(("busy", "pauses"), [([0.0], 1), ([0.008, 0.008, 0.004, 0.0, 0.0], 4), ([0.008] * 1000, 25)])
def test_a_block_begins_when_the_threads_of_the_last_one_sleep(monkeypatch, busy, pauses):
    used, slept = [0.0], []

    def sleep(seconds):
        used[0] += busy[len(slept)]
        slept.append(seconds)

    monkeypatch.setattr(measure.time, "process_time", lambda: used[0])
    monkeypatch.setattr(measure.time, "sleep", sleep)
    measure.settle()
    assert slept == [measure.SETTLE_SECONDS] * pauses


def small_tasks():
    for operation in run.OPERATIONS:
        for found in run.tasks(operation, batch=2):
            if cli._expression(SMALL).search(found.layer):
                yield found


def settings(torch=None):
    effort = measure.Effort(rounds=2, block_seconds=0.0005)
    return run.Settings(task.LAYOUTS, np.dtype(np.float32), 1, 2, effort, torch)


def test_a_run_writes_all_rows_as_json(fast, tmp_path, capsys):
    file = tmp_path / "result.json"
    status = cli.main(["--quick", "--layer", SMALL, "--batch", "1", "--against", "none", "--json", str(file)])
    assert status == 0
    result = json.loads(file.read_text())
    assert [row["op"] for row in result["rows"]] == [
        *("conv", "conv_packed", "conv_backward", "depthwise", "depthwise_backward", "pool", "pool_backward"),
        *("norm", "norm_backward", "norm_relu", "norm_relu_backward", "relu", "relu_backward", "call"),
    ]
    for row in result["rows"]:
        assert row["check"]["passed"] and row["batch"] == 1 and row["dtype"] == "float32"
        assert list(row["times"]) == (["nchw"] if row["op"] == "call" else ["nchw", "nhwc"])
        for timing in row["times"].values():
            assert timing["ms"] > 0 and timing["spread"] >= 0 and len(timing["blocks"]) == 3
    assert result["environment"]["fastconv"] == fc.__version__
    printed = capsys.readouterr().out
    assert "lenet-conv2" in printed and "14 rows" in printed


def test_a_run_of_several_batches_and_precisions(fast, cpu_backend, tmp_path, capsys):
    """What depends on neither is measured once, and every combination has its own goals."""
    file = tmp_path / "result.json"
    options = [
        "--quick",
        "--layer",
        r"^(lenet-conv2|lenet-relu1|F\.relu)$",
        "--batch",
        "2,1",
        "--precision",
        "high,highest",
    ]
    assert cli.main([*options, "--threads", "1,2", "--against", "none", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    found = Counter((row["op"], row["batch"], row["precision"]) for row in result["rows"])
    conv = {(op, batch, word) for op in ("conv", "conv_packed", "conv_backward") for batch in (1, 2) for word in WORDS}
    relu = {(op, batch, "highest") for op in ("relu", "relu_backward") for batch in (1, 2)}
    assert found == dict.fromkeys((*conv, *relu, ("call", 2, "highest")), 2)  # with one thread and two
    assert result["run"]["batch"] == [2, 1] and result["run"]["precision"] == list(WORDS)
    workspaces = [goal for goal in result["goals"] if goal["title"] == "workspace of any conv2d, forward"]
    assert {(g["threads"], g["batch"], g["precision"]) for g in workspaces} == {
        (n, batch, word) for n in (1, 2) for batch in (1, 2) for word in WORDS
    }
    assert "conv_packed, 2 threads, batch 1, high " in capsys.readouterr().out
    assert program.main(["bench", "table", str(file)]) == 0
    assert "batch 2, 1;" in capsys.readouterr().out
    assert program.main(["bench", "compare", str(file), str(file)]) == 0
    assert f"{2 * (2 * len(conv) + 2 * len(relu)) + 2} SAME" in capsys.readouterr().out


def test_a_run_against_torch_has_its_times(fast, torch, tmp_path, capsys):
    file = tmp_path / "result.json"
    assert cli.main(["--quick", "--layer", "^lenet-conv2$", "--batch", "1", "--json", str(file)]) == 0
    for row in json.loads(file.read_text())["rows"]:
        assert list(row["times"]) == ["nchw", "nhwc", "torch nchw", "torch nhwc"]
    assert "geometric means of ours / torch" in capsys.readouterr().out


def test_the_run_restores_threads_and_backend(fast, kernel_backend):
    before = fc.get_num_threads(), fc.get_backend()
    isa = kernel_backend.isa()
    arguments = ["--layer", "F.relu", "--threads", "1", "--isa", "generic", "--against", "none", "--quick"]
    assert cli.main(arguments) == 0
    assert (fc.get_num_threads(), fc.get_backend()) == before and kernel_backend.isa() == isa


@pytest.mark.parametrize("index", range(11))
def test_results_are_held_against_the_reference(index):
    found = list(small_tasks())[index]
    arrays = found.arrays(np.dtype(np.float32))
    expected = task.oracle(found, arrays, None)
    for layout in task.LAYOUTS:
        arranged = task.arrange(arrays, layout)
        if arranged is not None:
            assert expected.error(found.ours(arranged)()) <= 1
    outputs = [y.astype(np.float32) for y in expected.outputs]
    outputs[-1] = outputs[-1] + 1
    assert expected.error(tuple(outputs)) > 1


@pytest.mark.parametrize("index", range(11))
def test_torch_computes_the_same(index, torch):
    found, peer = list(small_tasks())[index], peers.load()
    arrays = found.arrays(np.dtype(np.float32))
    with torch.no_grad():
        outputs = peer.wide(found.torch(peer, peer.tensors(arrays, channels_last=True))())
    outputs = tuple(y.astype(np.float32) for y in outputs)
    assert task.oracle(found, arrays, None).error(outputs) <= 1


@pytest.mark.parametrize("wrong", [lambda y: y + 1, lambda y: y[:1], lambda y: y * np.float32(np.nan)])
def test_a_wrong_result_is_not_timed(wrong):
    right = next(found for found in small_tasks() if found.op == "relu")

    def ours(arrays):
        y = right.ours(arrays)()
        return lambda: y if y.dtype == np.float64 else wrong(y)  # the reference is asked in float64

    row = run.row(replace(right, ours=ours), settings())
    assert not row["check"]["passed"] and row["times"] == {}
    assert "WRONG" in report.lines(row, CEILINGS)[0]
    assert run.row(right, settings())["check"]["passed"]


def test_candidates_take_turns(monkeypatch):
    monkeypatch.setattr(measure, "SETTLE_SECONDS", 0)
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = measure.interleaved(calls, measure.Effort(rounds=3, block_seconds=0.0005))
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == ["a", "b"] * 4  # once to learn how long a call takes, then three rounds
    assert all(len(t.blocks) == 3 and t.seconds == sorted(t.blocks)[1] for t in timings.values())


def options(*arguments):
    return cli._run_parser().parse_args(arguments)


def test_what_is_chosen():
    for op in ("conv", "conv_packed", "conv_backward"):
        selection = [found.layer for found in cli._selected(options("--op", op), 8)]
        assert len(selection) == len(cli.REPRESENTATIVE) and set(selection) == cli.REPRESENTATIVE
    everything = {found.layer for found in cli._selected(options("--op", "conv", "--all"), 8)}
    assert everything > set(selection) and not any("-dw" in layer for layer in everything)
    vgg = [found.layer for found in cli._selected(options("--op", "conv_backward", "--network", "vgg16"), 8)]
    assert len(vgg) == 9 and all(layer.startswith("vgg16-") for layer in vgg)
    assert {found.op for found in cli._selected(options(), 8)} == {
        *("conv", "conv_packed", "conv_backward", "depthwise", "depthwise_backward", "pool", "pool_backward"),
        *("norm", "norm_backward", "norm_relu", "norm_relu_backward", "relu", "relu_backward"),
        *("layout", "block", "call"),
    }
    both = {found.op for found in cli._selected(options("--op", "relu,conv"), 8)}
    assert both == {"conv", "relu", "relu_backward"}
    assert options("--op", "all").op == options().op
    with pytest.raises(ValueError, match="no layer"):
        cli._selected(options("--op", "pool", "--layer", "no such layer"), 8)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--op", "nothing"],
        ["--op", "conv,nothing"],
        ["--layer", "("],
        ["--threads", "0"],
        ["--threads", "two"],
        ["--batch", "-1"],
        ["--batch", "1,x"],
        ["--precision", "highest,lowest"],
        ["--sweep", "--batch", "1,2"],
        ["--layout", "nchw,chwn"],
        ["--dtype", "int8"],
        ["compare", "only-one.json"],
        ["table"],
    ],
)
def test_bad_usage(arguments, capsys):
    assert program.main(["bench", *arguments]) == 2
    assert "error" in capsys.readouterr().err


def test_bad_files(tmp_path, capsys):
    missing, broken, other = (tmp_path / name for name in ("missing.json", "broken.json", "other.json"))
    broken.write_text('{"rows": [')
    other.write_text("[]")
    for file in (missing, broken, other):
        assert program.main(["bench", "table", str(file)]) == 2
        assert program.main(["bench", "compare", str(file), str(file)]) == 2
    assert program.main(["bench", "--json", str(tmp_path / "nowhere" / "result.json")]) == 2
    assert capsys.readouterr().err.count("error") == 7


def test_the_program_finds_the_benchmark(capsys):
    assert program.main(["bench", "--help"]) == 0
    assert "--roofline" in capsys.readouterr().out


def made_row(op, kind="", layer="net-layer", workspace=None, **times):
    """A row with these times in ms; an underscore in a name stands for the space."""
    return {
        "op": op,
        "kind": kind,
        "layer": layer,
        "shape": "",
        "dtype": "float32",
        "threads": 2,
        "batch": 8,
        "flops": 10**9,
        "bytes": 10**8,
        "workspace": workspace,
        "check": {"passed": True, "error over bound": 0.5},
        "times": {
            name.replace("_", " "): {"ms": ms, "spread": 0.02, "blocks": [0.99 * ms, ms, 1.01 * ms]}
            for name, ms in times.items()
        },
    }


def made_result(*rows):
    return {
        "environment": {"processor": "a processor", "isa": "avx2", "backend": "cpu", "peer": "torch 0"},
        "run": {"dtype": "float32", "batch": 8},
        "ceilings": {"2": CEILINGS},
        "rows": list(rows),
    }


def test_goals():
    times = {"nchw": 4.0, "nhwc": 2.0, "torch_nchw": 8.0, "torch_nhwc": 2.0}
    rows = [
        made_row("conv", workspace=10**7, **times),
        made_row("conv", workspace=10**6, nchw=1.0, nhwc=1.0, torch_nchw=2.0, torch_nhwc=4.0),
        made_row("conv", layer="lenet-conv1", **times) | {"batch": 1},
        made_row("conv", **times) | {"precision": "high"},
        made_row("conv", **times) | {"dtype": "bfloat16"},
        made_row("pool", "max", nchw=20.0, torch_nchw=100.0),
        made_row("call", "relu", nchw=0.002),
    ]
    found = {r["title"]: r for r in goals.results(rows, CEILINGS)}
    better = found["conv2d forward, better layouts"]
    assert better["value"] == pytest.approx(2 ** (1 / 3)) and better["rows"] == 3 and not better["met"]  # 1, 2 and 1
    assert found["conv2d forward, the layer of the lowest ratio"]["value"] == 1
    assert found["conv2d forward, NCHW against torch NCHW"]["value"] == pytest.approx(2)
    assert found["conv2d forward, better layouts, 'high'"]["rows"] == 1
    assert found["conv2d forward, bfloat16, against channels-last"]["value"] == pytest.approx(1)
    assert found["conv2d forward, LeNet and Keras-MNIST, one image"]["rows"] == 1
    assert found["max/avg pool forward, NCHW"]["value"] == pytest.approx(5)
    assert not found["max/avg pool forward, NCHW"]["met"]
    assert found["max/avg pool forward, NCHW, of copy bandwidth"]["value"] == pytest.approx(50)  # 1e8 B in 20 ms
    assert found["F.relu on a (1, 1, 8, 8) image"]["value"] == pytest.approx(2)
    assert found["workspace of any conv2d, forward"]["value"] == pytest.approx(10)
    assert "max/avg pool backward, better layouts" not in found
    rows[5]["check"]["passed"] = False
    assert {r["title"]: r["met"] for r in goals.results(rows, CEILINGS)}["max/avg pool forward, NCHW"] is False
    text = goals.lines(goals.results(rows, CEILINGS))
    assert sum(line.endswith("SHORT") for line in text) == 10  # three of them of the wrong row


def test_compare(tmp_path, capsys):
    before = made_result(
        made_row("conv", layer="a-1", nchw=10.0, torch_nchw=10.0),
        made_row("conv", layer="a-2", nchw=10.0, torch_nchw=10.0),
        made_row("conv", layer="a-3", nchw=10.0, torch_nchw=10.0),
        made_row("conv", layer="gone", nchw=10.0),
    )
    after = made_result(
        made_row("conv", layer="a-1", nchw=5.0, torch_nchw=10.0),
        made_row("conv", layer="a-2", nchw=10.2, torch_nchw=10.0),
        made_row("conv", layer="a-3", nchw=20.0, torch_nchw=20.0),
    )
    assert [r["verdict"] for r in compare.compare(before, after)] == ["FAST", "SAME", "SLOW"]
    # The third row's machine was twice as slow for torch, too.
    assert [r["verdict"] for r in compare.compare(before, after, relative=True)] == ["FAST", "SAME", "SAME"]
    files = [tmp_path / name for name in ("before.json", "after.json")]
    for file, result in zip(files, (before, after)):
        file.write_text(json.dumps(result))
    assert cli.main(["compare", *map(str, files)]) == 0
    assert "1 FAST, 1 SLOW, 1 SAME, 0 AMBG" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no row"):
        files[0].write_text(json.dumps(made_result()))
        cli.main(["compare", *map(str, files)])


def test_the_table_goes_between_the_markers(tmp_path):
    result, readme = tmp_path / "result.json", tmp_path / "README.md"
    rows = (
        made_row("conv", nchw=4.0, nhwc=2.0, torch_nchw=8.0, torch_nhwc=2.0),
        made_row("call", "relu", layer="F.relu", nchw=0.002, torch_nchw=0.001),
    )
    result.write_text(json.dumps(made_result(*rows)))
    readme.write_text("before\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\nafter\n")
    for _ in range(2):  # a second time changes nothing
        assert cli.main(["table", str(result), "--insert", str(readme)]) == 0
        text = readme.read_text()
        assert text.startswith("before\n<!-- benchmark: begin -->\n") and text.endswith(
            "<!-- benchmark: end -->\nafter\n"
        )
        assert "old" not in text and "| conv2d forward | 1 | 2.00 | 1.00 | 1.00 |" in text
        assert "| `F.relu`  | 2.00 | 1.00 |" in text and "a processor" in text
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="must have the lines"):
        cli.main(["table", str(result), "--insert", str(readme)])
    assert readme.read_text() == "no markers"


def test_roofline(tmp_path):
    pytest.importorskip("matplotlib")
    from importlib import import_module

    picture = import_module(cli.__package__ + ".picture")
    file = tmp_path / "roofline.png"
    rows = [made_row("conv", nchw=4.0, torch_nchw=8.0), made_row("pool", "max", nchw=20.0), made_row("call", nchw=1.0)]
    picture.roofline(rows, CEILINGS, "a processor", file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_cliffs_compare_sizes_with_their_aligned_neighbours(monkeypatch):
    """Time per operation over that of the next multiple of 16, the worst for each dimension."""

    def timed(calls, effort):
        """A time of 1 for every column; 8 times that where the image is 5 wide, but in the weight gradient."""
        width = calls["forward"]().shape[-1]
        slow = {way: 8.0 if width == 5 and way != "weight gradient" else 1.0 for way in calls}
        return {way: measure.Timing((slow[way] * width,)) for way in calls}

    monkeypatch.setattr(cliffs, "interleaved", timed)
    effort = measure.Effort(rounds=1, block_seconds=1e-6)
    found = [c for c in cliffs.sizes(effort, ["nchw"], (4, 5, 16)) if " W = " in c.what]
    assert [(c.what, c.value, c.met) for c in found] == [
        ("forward, worst W = 5", 8, False),
        ("input gradient, worst W = 5", 8, False),
        ("weight gradient, worst W = 16", 1, True),
    ]


def test_cliffs_are_printed_and_written(monkeypatch, tmp_path, capsys):
    rows = [
        cliffs.Cliff("sizes", "forward, worst C = 1", "nchw", 3, 2),
        cliffs.Cliff("threads", "x", "nhwc", 1.9, 1.8, True),
    ]
    monkeypatch.setattr(cliffs, "run", lambda effort: iter(rows))
    assert cli.main(["cliffs", "--quick", "--json", str(tmp_path / "c.json")]) == 0
    printed = capsys.readouterr().out
    assert "at most 2  CLIFF" in printed and "1 of 2 within their limits" in printed
    assert [row["met"] for row in json.loads((tmp_path / "c.json").read_text())["rows"]] == [False, True]


def test_sweep_measures_every_algorithm(fast, cpu_backend, tmp_path, capsys):
    file = tmp_path / "sweep.json"
    arguments = ["--sweep", "--quick", "--layer", "^googlenet-4a_1x1$", "--batch", "1", "--op", "conv"]
    assert cli.main([*arguments, "--precision", "high", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["layout"] for row in rows] == ["nchw", "nhwc"]
    assert {"direct", "pointwise"} <= set(rows[0]["seconds"])
    assert rows[0]["chosen"] == ("amx" if cpu_backend.isa().startswith("amx") else "pointwise")
    assert all(row["loss"] >= 1 for row in rows)
    assert "of 2 rows" in capsys.readouterr().out
    assert cpu_backend.get_conv_algorithm() == "" and fc.get_float32_precision() == "highest"
    with pytest.raises(ValueError, match="no convolution"):
        cli.main(["--sweep", "--op", "relu"])


def test_sweep_finds_where_the_rule_loses():
    """An algorithm of a lower precision is not held against the rule where "highest" is asked for."""
    seconds = {"direct": 1.2e-3, "winograd_2x2": 1e-3, "winograd_4x4": 0.8e-3}
    row = sweep.Sweep("vgg16-conv5", "conv_forward", "nhwc", 10**9, "direct", seconds, ("winograd_4x4",))
    assert row.best == "winograd_2x2" and row.loss == pytest.approx(1.2)
    assert "LOSES 1.20 to winograd_2x2" in sweep.line(row)
    assert "LOSES" not in sweep.line(replace(row, chosen="winograd_2x2"))
    row = replace(row, less_exact=())
    assert row.best == "winograd_4x4" and row.loss == pytest.approx(1.5)


def test_denormals_take_the_same_calls():
    effort = measure.Effort(rounds=1, block_seconds=1e-6)
    found = list(cliffs.denormals(effort, ["nhwc"]))
    assert {c.what for c in found} >= {"forward", "weight gradient", "depthwise", "batch_norm", "relu"}
    assert all(c.value > 0 and c.limit == 1.1 for c in found)
