"""Predictions for the GPU: recorded launches, the arithmetic, the page, and what nvcc's output is read for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import backend

try:
    from fastconv.bench import cli
    from fastconv.bench.gpu import census, predict, work
    from fastconv.bench.shapes import CONVS
except ModuleNotFoundError:  # a source tree: bench/ lies beside fastconv/
    from bench import cli
    from bench.gpu import census, predict, work
    from bench.shapes import CONVS

TREE = Path(__file__).resolve().parent.parent
with_simulator = pytest.mark.skipif("cuda:simt" not in fc.available_backends(), reason="the simulator is not built")
LAYER = next(case for case in CONVS if str(case) == "resnet50-conv3_3x3")


@with_simulator
def test_recorded_launches_are_those_that_run():
    simulator = backend.simulator()
    x, w = np.ones((1, 3, 6, 6), np.float32), np.ones((4, 3, 3, 3), np.float32)
    simulator.reset_counters()
    simulator.conv_backward_weight(np.ones((1, 4, 6, 6), np.float32), x, w.shape, 1, 1, 1, 1, 2)
    ran = simulator.counters()
    simulator.start_recording()
    try:
        simulator.conv_backward_weight(np.ones((1, 4, 6, 6), np.float32), x, w.shape, 1, 1, 1, 1, 2)
    finally:
        recorded = [predict.Launch(*launch) for launch in simulator.stop_recording()]
    assert simulator.counters() == ran, "a recorded launch was run"
    assert len(recorded) == ran["launches"] and sum(launch.blocks for launch in recorded) == ran["blocks"]
    names = ["channels_last", "channels_last", "conv_backward_weight", "weight_sum"]
    assert [launch.kernel for launch in recorded] == names and recorded[2].threads % 32 == 0
    assert simulator.relu_forward(-x).max() == 0  # runs again


def test_filling():
    assert predict.Launch("k", 132, 256, 0).filling == 1
    assert predict.Launch("k", 66, 256, 0).filling == 0.5
    assert predict.Launch("k", 133, 256, 0).filling == 133 / 264
    assert predict.Launch("k", 132, 64, 0).filling == 0.25  # two warps where eight are wanted
    assert predict.Launch("k", 128, 256, 0).bandwidth == 128 * 256 * 16 / predict.LATENCY
    assert predict.Launch("k", 9999, 256, 0).bandwidth == predict.BANDWIDTH * predict.MEMORY_SHARE
    launch = predict.Launch("k", 1320, 128, 100 << 10)
    assert launch.resident == 2 and launch.waves == 5


@with_simulator
@pytest.mark.parametrize("precision", ("bf16", "fp32", "tf32"))
@pytest.mark.parametrize("way", work.WAYS)
def test_prediction_of_a_layer(precision, way):
    case = predict_case = work.conv(LAYER, way, precision)
    found = predict.predict(case)
    assert found.work is predict_case and found.launches and found.kernel
    assert found.bound == "compute" and found.floor == LAYER.flops / predict.FLOORS[precision]
    assert found.floor < found.seconds < 1
    assert backend.simulator().get_float32_precision() == "highest"


@with_simulator
def test_prediction_of_a_pool_is_its_bytes():
    pools = (w for w in work.memory_bound(8, ("resnet50",), dry=False) if w.layer == "resnet50-maxpool")
    found = predict.predict(next(pools))
    assert found.bound == "memory" and found.floor == found.work.bytes / predict.BANDWIDTH
    transferred = found.seconds - predict.LAUNCH * len(found.launches)
    assert transferred == pytest.approx(found.floor / predict.MEMORY_SHARE)


@with_simulator
def test_the_page_against_a_measurement(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(predict, "convolutions", lambda *_, **__: [work.conv(LAYER, way, "bf16") for way in work.WAYS])
    monkeypatch.setattr(predict, "memory_bound", lambda *_, **__: [])
    microseconds = 1e6 * predict.predict(work.conv(LAYER, "forward", "bf16")).seconds
    case = {
        "stage": "ours",
        "key": f"conv {LAYER} forward bf16",
        "times": {"fastconv nhwc": {"ms": microseconds / 500}},
    }
    file = tmp_path / "gpu_day.json"
    file.write_text(json.dumps({"environment": {"dry": False}, "cases": [case, {"stage": "peer", "key": "x"}]}))
    assert cli.main(["predict", "--no-nvcc", "--against", str(file)]) == 0
    page = capsys.readouterr().out
    assert page.startswith("# Predicted, never measured\n")
    assert f"| {microseconds:.3g} / {2 * microseconds:.3g} (2.00) |" in page and " / - |" in page

    assert cli.main(["predict", "--no-nvcc", "--out", str(tmp_path / "page.md")]) == 0
    assert " / " not in (tmp_path / "page.md").read_text().partition("## Convolutions")[2]
    for text, error in (('{"environment": {"dry": true}, "cases": []}', "dry run"), ("[]", "is not the gpu_day.json")):
        file.write_text(text)
        with pytest.raises(ValueError, match=error):
            cli.main(["predict", "--no-nvcc", "--against", str(file)])


def test_the_committed_page_is_marked():
    text = (TREE / "bench" / "results" / "predicted.md").read_text()
    assert (
        text.startswith("# Predicted, never measured\n") and " / " not in text.partition("## Convolutions")[2][:20000]
    )


PTX = """
.visible .entry _Z1kPf(
.param .u64 _Z1kPf_param_0
)
{
.reg .f32 %f<4>;
ld.global.nc.f32 %f1, [%rd1];
@%p1 bra $L1;
fma.rn.f32 %f2, %f1, %f1, %f1;
@!%p2 fma.rn.f32 %f3, %f1, %f1, %f1;
mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};
cp.async.cg.shared.global [%r1], [%rd2], 16, %r2;
cp.async.wait_group 1;
$L1:
ret;
}
"""
LOG = """ptxas info    : Compiling entry function '_Z1kPf' for 'sm_90a'
ptxas info    : Function properties for _Z1kPf
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 93 registers, used 1 barriers
"""


def test_what_nvcc_says():
    assert census.registers(LOG) == {"_Z1kPf": (93, 16)}
    total, counts = census.instructions(PTX)["_Z1kPf"]
    assert total == 8
    assert {name: n for name, n in counts.items() if n} == {"fma": 2, "ld.global": 1, "mma": 1, "cp.async": 1}
    (row,) = census.table([census.Kernel("k", 93, 16, total, counts)])[2:]
    assert row.startswith("| `k` | 93 | 16 | 8 | 1 |")


def test_without_nvcc(monkeypatch):
    monkeypatch.setattr(census.shutil, "which", lambda name: None)
    assert census.census(TREE) is None


@pytest.mark.skipif(census.shutil.which("nvcc") is None, reason="needs nvcc")
def test_census_of_a_source():
    kernels = census.compile_one(TREE / "csrc" / "cuda" / "local_response_norm.cu", "90a")
    assert kernels and all(k.registers > 0 and k.counts["st.global"] > 0 and "kernel" in k.name for k in kernels)


@with_simulator
def test_predictions_allocate_nothing():
    """Arrays of the largest layers are never touched."""
    code = (
        "from pathlib import Path\n"
        "try: from fastconv.bench.gpu import predict, work\n"
        "except ModuleNotFoundError: from bench.gpu import predict, work\n"
        "for found in work.convolutions(64, ('vgg16',), False):\n"
        "    if found.layer == 'vgg16-conv1_2': predict.predict(found)\n"
        # Not ru_maxrss, which begins with the peak of the process that started this one.
        "line = next(l for l in Path('/proc/self/status').read_text().splitlines() if l.startswith('VmHWM'))\n"
        "print(int(line.split()[1]) >> 10)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert int(done.stdout) < 600, "MiB"
