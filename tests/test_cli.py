"""The command line in this process (and once in one of its own): results, JSON, exit status, one line for an error."""

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import fastconv as fc
from fastconv import backend as backends
from fastconv import reference
from fastconv.cli import main, output
from fastconv.progress import progress

QUICK = ["--backend", "reference", "--dtype", "float32", "--shapes", "edge"]


@pytest.fixture(autouse=True)
def keep_the_active_backend():
    before = fc.get_backend()
    yield
    if before in fc.available_backends():
        fc.set_backend(before)


def run(capsys, *argv):
    status = main(argv)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def fails(capsys, status, message, *argv):
    got, out, err = run(capsys, *argv)
    assert got == status
    assert message in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    return out


@pytest.mark.parametrize("verb", ["info", "verify", "explain", "models", "visualize", "demo"])
def test_help_has_examples(capsys, verb):
    status, out, _ = run(capsys, verb, "--help")
    assert status == 0 and "examples:" in out and "--json" in out and f"fastconv {verb}" in out


def test_usage(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastconv {fc.__version__}\n"
    assert main(["--help"]) == 0
    assert "verify" in capsys.readouterr().out
    for argv in ([], ["nonsense"], ["info", "--nonsense"], ["verify", "--seed", "x"], ["verify", "--seed", "-1"]):
        assert main(argv) == 2
        assert "Traceback" not in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_progress_is_for_terminals(monkeypatch, has_tqdm):
    if has_tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    for stream, shown, expected in ((Terminal(), True, True), (Terminal(), False, False), (io.StringIO(), True, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(progress(range(3), 3, "work", shown, lambda: "going well")) == [0, 1, 2]
        assert ("work" in stream.getvalue()) == expected


def test_json_has_no_infinity(capsys):
    output.print_json({"a": float("inf"), "b": [float("nan"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5]}


def test_module_and_script_are_the_same_program():
    result = subprocess.run(
        [sys.executable, "-m", "fastconv", "info", "--json"], capture_output=True, text=True, timeout=60, check=True
    )
    report = json.loads(result.stdout)
    assert report["fastconv"] == fc.__version__ and report["numpy"] == np.__version__
    assert report["backends"] == list(fc.available_backends())


def test_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m fastconv verify --quick --op relu --backend reference | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert "operation" in result.stdout and "Traceback" not in result.stderr


def test_terminals_without_a_character_show_another():
    command = [sys.executable, "-m", "fastconv", "explain", "relu", "5x7", "--backend", "reference"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True)
    assert "?" in result.stdout and not result.stderr


def test_info(capsys):
    status, out, _ = run(capsys, "info")
    assert status == 0 and f"fastconv: {fc.__version__}" in out and "cupy: " in out
    if "cpu" in fc.available_backends():
        report = json.loads(run(capsys, "info", "--json")[1])
        assert report["isa"] in report["isas"] and report["build"]["isa_why"] and report["threads"]["why"]
        assert report["openmp_runtime"]


def test_verify_rows_and_summary(capsys):
    status, out, err = run(capsys, "verify", *QUICK, "--op", "relu", "--op", "linear_forward")
    assert status == 0 and err == ""
    assert "linear_forward" in out and "relu_backward" in out and "conv_forward" not in out
    assert "comparisons passed" in out


def test_verify_json(capsys):
    status, out, _ = run(capsys, "verify", *QUICK, "--op", "conv2d", "--json")
    report = json.loads(out)
    assert status == 0 and report["passed"] and report["failed"] == 0 and report["seed"] == 0
    assert {row["op"] for row in report["rows"]} == {
        f"conv_{way}" for way in ("forward", "backward_input", "backward_weight", "backward_bias")
    }
    assert all(row["error"] <= row["bound"] for row in report["rows"])


def test_verify_every_backend(capsys):
    status, out, _ = run(capsys, "verify", "--quick", "--op", "avg_pool", "--json")
    names = {name for name in fc.available_backends() if name.startswith("cpu:")} or {"reference"}
    assert status == 0 and {row["backend"] for row in json.loads(out)["rows"]} == names


def test_verify_notices_a_wrong_kernel(capsys, monkeypatch):
    right = reference.linear_forward

    def wrong(x, w, b):
        y = right(x, w, b)
        return y if y.dtype == np.float64 else np.nextafter(y, np.float32(np.inf)) * np.float32(1.001)

    monkeypatch.setattr(reference, "linear_forward", wrong)
    status, out, err = run(capsys, "verify", *QUICK, "--op", "linear")
    assert status == 1 and "FAILED" in out and "FAILED linear_forward" in err

    def broken(dy, w):
        if dy.dtype == np.float64:
            return dy @ w
        raise RuntimeError("out of order")

    monkeypatch.setattr(reference, "linear_forward", right)
    monkeypatch.setattr(reference, "linear_backward_input", broken)
    status, out, _ = run(capsys, "verify", *QUICK, "--op", "linear", "--json")
    report = json.loads(out)
    assert status == 1 and not report["passed"]
    failed = [row for row in report["rows"] if not row["passed"]]
    assert failed and all("RuntimeError: out of order" in row["problem"] for row in failed)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--op", "nonsense"], "--op must be one of"),
        (["--shapes", "huge"], "--shapes must be one of edge, layers, random"),
        (["--dtype", "int8"], "--dtype must be one of"),
        (["--backend", "cpu:mmx"], "--backend must be one of"),
        (["--op", "lp_pool", "--shapes", "layers"], "no case matches"),
        (["--check", "no-such-file.npz"], "no-such-file.npz"),
        (["--op", "relu", "--save", "no/such/directory/x.npz"], "no/such/directory"),
    ],
)
def test_verify_bad_options(capsys, argv, message):
    fails(capsys, 2, message, "verify", *argv)


@pytest.fixture
def golden(tmp_path, capsys):
    path = tmp_path / "golden.npz"
    options = (
        "--backend",
        "reference",
        "--shapes",
        "edge",
        "--op",
        "linear",
        "--op",
        "max_pool_forward",
        "--seed",
        "5",
    )
    assert main(["verify", *options, "--save", str(path)]) == 0
    capsys.readouterr()
    return path


def test_golden_outputs_agree(capsys, golden):
    status, out, _ = run(capsys, "verify", "--check", str(golden), "--json")
    report = json.loads(out)
    assert status == 0 and report["seed"] == 5
    assert {row["op"] for row in report["rows"]} >= {"linear_forward", "max_pool_forward"}
    narrowed = json.loads(run(capsys, "verify", "--check", str(golden), "--op", "linear", "--json")[1])
    assert 0 < len(narrowed["rows"]) < len(report["rows"])


def rewrite(path, change):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(path, **arrays)


def change_header(**values):
    def change(arrays):
        header = json.loads(arrays["header"].tobytes())
        arrays["header"] = np.frombuffer(json.dumps({**header, **values}).encode(), np.uint8)

    return change


def test_golden_outputs_differ(capsys, golden):
    def change(arrays):
        arrays["0.0"] = arrays["0.0"] + 1

    rewrite(golden, change)
    status, out, _ = run(capsys, "verify", "--check", str(golden), "--json")
    assert status == 1 and json.loads(out)["failed"] == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda arrays: arrays.pop("header"), "header"),
        (lambda arrays: arrays.pop("0.0"), "0.0"),
        (lambda arrays: arrays.update({"0.0": arrays["0.0"][..., :-1]}), "expected"),
        (lambda arrays: arrays.update({"0.0": arrays["0.0"].astype(np.complex128)}), "expected"),
        (lambda arrays: arrays.update(header=np.zeros(3, np.uint8)), "header is damaged"),
        (lambda arrays: arrays.update(header=np.array(["x"], object)), "Python objects"),
        (change_header(format="something else"), "not written by"),
        (change_header(seed=None), "header is damaged"),
        (change_header(seed=6), "differ"),
        (change_header(effort="endless"), "effort"),
        (
            change_header(entries=[{"case": "conv_forward of old", "dtype": "float32", "inputs": 0, "outputs": 1}]),
            "table",
        ),
    ],
)
def test_golden_file_with_wrong_content(capsys, golden, change, message):
    rewrite(golden, change)
    fails(capsys, 2, message, "verify", "--check", str(golden))


def test_damaged_golden_files(capsys, golden):
    good = golden.read_bytes()
    for content in (b"", b"PK", good[:100], good[:-30], good[:60] + b"\xff" * 40 + good[100:]):
        golden.write_bytes(content)
        fails(capsys, 2, "golden.npz", "verify", "--check", str(golden))


def test_golden_file_that_claims_a_huge_array(capsys, golden):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,), }"
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(golden, "w") as archive:
        archive.writestr("header.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    fails(capsys, 2, "do not fill", "verify", "--check", str(golden))


def test_explain(capsys):
    argv = ["explain", "conv2d", "2x3x8x8", "4x3x3x3", "4", "--padding", "1", "--stride", "2", "--backend", "reference"]
    status, out, _ = run(capsys, *argv)
    assert status == 0 and "2x4x4x4" in out and "bound" in out and "reference.conv_forward" in out
    report = json.loads(run(capsys, *argv, "--json")[1])
    assert report["output_shape"] == [2, 4, 4, 4] and report["flops"] == 2 * 2 * 4 * 16 * 27
    assert report["bytes"] == 4 * (2 * 3 * 64 + 4 * 27 + 4 + 2 * 4 * 16)
    assert report["measured_ms"] > 0 and report["bound_by"] in ("compute", "memory")


@pytest.mark.parametrize(
    "argv, shape, flops",
    [
        (["conv1d", "2x4x9", "6x2x3", "groups=2"], [2, 6, 7], 2 * 84 * 6),
        (["conv2d", "1,3,9,9", "4,3,3,3", "--padding", "same", "--channels-last"], [1, 4, 9, 9], 2 * 324 * 27),
        (["conv2d", "3x9x9", "4x3x3x3", "--stride", "2,1"], [4, 4, 7], 2 * 112 * 27),
        (["conv_transpose2d", "1x4x5x5", "4x2x3x3", "--stride", "2"], [1, 2, 11, 11], 2 * 100 * 18),
        (["max_pool2d", "1x2x8x8", "--kernel-size", "2"], [1, 2, 4, 4], 32 * 4),
        (["adaptive_avg_pool2d", "1x2x8x8", "--output-size", "1"], [1, 2, 1, 1], 128),
        (["relu", "5x7", "--dtype", "float64"], [5, 7], 35),
        (["max_unpool2d", "1x2x4x4", "1x2x4x4", "--kernel-size", "2"], [1, 2, 8, 8], 128),
    ],
)
def test_explain_operations(capsys, argv, shape, flops):
    status, out, err = run(capsys, "explain", *argv, "--backend", "reference", "--json")
    assert status == 0, err
    report = json.loads(out)
    assert report["output_shape"] == shape and report["flops"] == flops


@pytest.mark.skipif("cpu" not in fc.available_backends(), reason="the native module is not built")
def test_explain_native_kernel(capsys):
    status, out, _ = run(capsys, "explain", "conv2d", "1x16x20x20", "16x16x3x3", "--json")
    report = json.loads(out)
    assert status == 0 and report["isa"] == backends.native().isa()
    assert report["kernel"] and report["why"] and report["workspace"] >= 0
    text = run(capsys, "explain", "conv2d", "1x16x20x20", "16x16x1x1")[1]
    assert "pointwise" in text and "direct: " in text


@pytest.mark.parametrize(
    "argv, message",
    [
        (["nonsense", "1x2"], "OP must be"),
        (["__name__", "1x2"], "OP must be"),
        (["conv2d", "1x2x"], "SHAPE must look like"),
        (["conv2d", "1x3x8x8", "4x2x3x3"], "weight"),
        (["conv2d", "1x3x8x8", "4x3x3x3", "4", "5"], "at most 3 arrays"),
        (["conv2d", "1x3x8x8", "4x3x3x3", "colour=1"], "colour"),
        (["conv2d", "1x3x8x8", "4x3x3x3", "--stride", "0"], "stride"),
        (["conv2d", "1x3x8x8"], "weight"),
        (["relu", "99999999999x99999999999"], "memory"),
        (["relu", "3", "--dtype", "int8"], "--dtype"),
    ],
)
def test_explain_bad_arguments(capsys, argv, message):
    fails(capsys, 2, message, "explain", *argv, "--backend", "reference")


def test_explain_function():
    x, w = np.ones((1, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    functional = fc.nn.functional
    with fc.use_backend("reference"):
        report = fc.explain(functional.conv2d, x, w, stride=2)
        assert report.output_shape == (1, 4, 3, 3) and "conv2d" in str(report)
        assert fc.explain(functional.relu, x[:, ::-1]).inputs == ("input float32 1x3x8x8 strided view",)
        with pytest.raises(TypeError, match="function"):
            fc.explain(np.sum, x)
        with pytest.raises(ValueError, match="stride"):
            fc.explain(functional.conv2d, x, w, stride=0)


def test_bench_without_the_benchmark(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastconv.bench", None)
    monkeypatch.setitem(sys.modules, "fastconv.bench.__main__", None)
    fails(capsys, 2, "not part of this installation", "bench", "--help")
