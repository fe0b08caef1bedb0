"""The benchmark of whole networks, on one small enough to run here."""

import json

import numpy as np
import pytest

from checks import torch_networks
from fastconv import models

try:
    from fastconv.bench import cli, measure, networks
except ModuleNotFoundError:  # a source tree: bench/ lies beside fastconv/
    from bench import cli, measure, networks


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(measure, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(cli, "_QUICK", measure.Effort(rounds=2, block_seconds=1e-4))
    # Not narrower: torch 2.13 writes beyond its memory when it trains 4 channels in channels-last.
    twins = (
        lambda: models.ResNet(models.BasicBlock, (1, 1), 1000, 3, width=16),
        lambda torch: torch_networks.resnet(torch, False, (1, 1), 1000, 3, width=16),
    )
    monkeypatch.setattr(networks, "NETWORKS", {"resnet18": twins})


class Peer:
    """Stands in for ONNX Runtime: is given the file, and answers with what `answer` makes of our output."""

    name = "peer 1.0"

    def __init__(self, answer=lambda y: y):
        self.answer = answer
        self.asked = []

    def call(self, model, x, threads):
        self.asked.append((len(model) > 0, x.shape[0], threads))
        net = networks.NETWORKS["resnet18"][0]()
        net.load_state_dict(self.state)
        return lambda: self.answer(net.eval()(x))


@pytest.fixture
def peer(monkeypatch):
    """`Peer` in place of ONNX Runtime, which need not be installed; nothing is exported."""
    found = Peer()
    twins = networks._twins

    def noting(*arguments):
        result = twins(*arguments)
        found.state = {key: np.array(value) for key, value in result[0].state_dict().items()}
        return result

    monkeypatch.setattr(networks, "_twins", noting)
    monkeypatch.setattr(networks.onnx_peers, "export", lambda *arguments: b"model")
    monkeypatch.setattr(networks.onnx_peers, "load", lambda: {"onnxruntime": found})
    return found


def test_a_file(peer, tmp_path):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    sides = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", channels, 6, 6])
        for name, channels in (("image", 2), ("y", 3))
    ]
    weight = onnx.numpy_helper.from_array(np.ones((3, 2, 1, 1), np.float32), "w")
    node = helper.make_node("Conv", ["image", "w"], ["y"])
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "small", sides[:1], sides[1:], [weight])), path)
    peer.call = lambda model, x, threads: lambda: np.repeat(x.sum(1, keepdims=True), 3, 1)
    plan = networks.Plan([1, 2], [1], ["inference"], measure.Effort(rounds=2, block_seconds=1e-4))
    for row, batch in zip(networks.run([str(path)], plan, None, {"onnxruntime": peer}), (1, 2), strict=True):
        assert (row.network, row.mode, row.batch) == ("small", "inference", batch)
        assert list(row.seconds) == [*OURS, "onnxruntime"] and row.ratio > 0
    sides[0].type.tensor_type.shape.dim[3].dim_param = "width"
    onnx.save(helper.make_model(helper.make_graph([node], "small", sides[:1], sides[1:], [weight])), path)
    with pytest.raises(ValueError, match=r"small\.onnx must have one input"):
        next(networks.run([str(path)], plan))


OURS = ["fastconv", "fastconv nhwc", "fastconv optimized", "fastconv high"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_all_modes_against_all(torch, peer, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "DENORMAL", "resnet18")
    file = tmp_path / "networks.json"
    assert cli.main(["networks", "--batch", "1,2", "--threads", "1", "--quick", "--json", str(file)]) == 0
    *inference, denormal, training = json.loads(file.read_text())["rows"]
    ours = OURS
    theirs = ["torch nchw", "torch nhwc", "torch optimized", "onnxruntime"]
    for row, batch in zip(inference, (1, 2), strict=True):
        seconds = row["seconds"]
        assert list(seconds) == ours + theirs and row["batch"] == batch and row["threads"] == 1
        best = min(seconds[way] for way in theirs)
        assert row["ratio"] == pytest.approx(best / min(seconds[way] for way in ours[:3]))
        assert row["ratio_high"] == pytest.approx(best / seconds["fastconv high"])
    assert list(denormal["seconds"]) == ["fastconv", "fastconv normal", "torch", "torch normal"]
    assert denormal["ratio"] == denormal["seconds"]["fastconv normal"] / denormal["seconds"]["fastconv"]
    assert list(training["seconds"]) == ["fastconv", "fastconv nhwc", "torch nchw", "torch nhwc"]
    assert training["memory"] == {}
    assert denormal["batch"] == 1 and training["batch"] == 2
    assert all(row["difference"] < 1e-5 for row in (*inference, denormal, training))
    assert peer.asked == [(True, 1, 1), (True, 2, 1)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_table_and_bars(torch, peer, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file, picture, readme = tmp_path / "networks.json", tmp_path / "networks.png", tmp_path / "README.md"
    options = ["--batch", "2", "--threads", "1,2", "--quick", "--json", str(file), "--plot", str(picture)]
    assert cli.main(["networks", *options]) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    readme.write_text("before\n<!-- networks: begin -->\n<!-- networks: end -->\nafter\n")
    assert cli.main(["table", str(file), "--insert", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- networks: begin -->\n") and text.endswith("<!-- networks: end -->\nafter\n")
    assert "peer 1.0 in the same run" in text
    row = json.loads(file.read_text())["rows"][0]
    (line,) = (line for line in text.splitlines() if line.startswith("| resnet18, batch 2, 1 thread "))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert float(cells[6]) == pytest.approx(row["ratio"], rel=0.01)
    assert float(cells[2]) == pytest.approx(1e3 * row["seconds"]["fastconv optimized"], rel=0.01)
    assert "| geometric mean, batch 2, 2 threads |" in text and "| training step | fastconv | torch | x |" in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_memory_of_training_steps(torch, tmp_path, capsys):
    """In processes of their own, which train the real ResNet-18."""
    file = tmp_path / "networks.json"
    options = ["--against", "torch", "--mode", "training", "--batch", "1", "--threads", "1", "--quick", "--memory"]
    assert cli.main(["networks", *options, "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert list(row["memory"]) == list(row["seconds"])
    # Three copies of 11.7 million parameters, activations, and whatever the libraries keep.
    assert all(140e6 < size < 600e6 for size in row["memory"].values())
    capsys.readouterr()
    assert cli.main(["table", str(file)]) == 0
    out = capsys.readouterr().out
    best = min(("fastconv", "fastconv nhwc"), key=row["seconds"].get)
    assert "MB, fastconv | MB, torch |" in out and f"| {row['memory'][best] / 1e6:.0f} |" in out
    with pytest.raises(RuntimeError, match=r"of fastconv failed: [\s\S]*no_such_network"):
        networks.memory.peak("fastconv", "no_such_network", 1, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_peer_with_other_outputs(torch, peer):
    peer.answer = lambda y: y * 1.01
    with pytest.raises(ArithmeticError, match=r"resnet18: .* of onnxruntime differ from ours by 1\.0e-02"):
        cli.main(["networks", "--batch", "1", "--quick"])


def test_files_for_onnx_peers(torch):
    onnx = pytest.importorskip("onnx")
    onnx_peers = networks.onnx_peers
    net = networks.NETWORKS["resnet18"][1](torch).eval()
    file = onnx_peers.export(torch, net, (1, 3, 32, 32))
    onnx.checker.check_model(onnx.load_from_string(file))
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    expected = net(torch.from_numpy(x)).detach().numpy()
    for peer in onnx_peers.load().values():
        np.testing.assert_allclose(peer.call(file, x, 1)(), expected, rtol=1e-3, atol=1e-4)


def test_without_torch_fastconv_alone(capsys):
    arguments = ["networks", "--batch", "1", "--threads", "1", "--against", "none", "--quick", "--mode", "inference"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "fastconv optimized" in out and "torch" not in out and "1 rows in" in out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_another_network_is_no_twin(torch, monkeypatch):
    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch_networks.resnet(torch, False, (1, 1), 1000, 3, width=16)

        def load_state_dict(self, state):
            self.net.load_state_dict(state)

        def forward(self, x):
            return self.net(x) * 1.01

    monkeypatch.setitem(networks.NETWORKS, "resnet18", (networks.NETWORKS["resnet18"][0], lambda torch: Other()))
    with pytest.raises(ArithmeticError, match=r"resnet18: the outputs differ from torch's by .* of the largest"):
        cli.main(["networks", "--batch", "1", "--quick"])


def test_unknown_names(capsys):
    with pytest.raises(SystemExit):
        cli.main(["networks", "resnet19"])
    assert "NAME must be one of resnet18, or a file.onnx; got 'resnet19'" in capsys.readouterr().err
