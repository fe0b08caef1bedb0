"""The benchmark of whole networks, on one small enough to run here."""

import json

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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_both_modes_against_torch(torch, tmp_path, capsys):
    file = tmp_path / "networks.json"
    assert cli.main(["networks", "resnet18", "--batch", "2", "--quick", "--json", str(file)]) == 0
    inference, training = json.loads(file.read_text())["rows"]
    assert list(inference["seconds"]) == [
        "fastconv",
        "fastconv optimized",
        "torch nchw",
        "torch nhwc",
        "torch optimized",
    ]
    assert list(training["seconds"]) == ["fastconv", "torch nchw", "torch nhwc"]
    for row in (inference, training):
        ours, theirs = (
            min(s for way, s in row["seconds"].items() if way.startswith(library)) for library in ("fastconv", "torch")
        )
        assert row["ratio"] == pytest.approx(theirs / ours) and row["difference"] < 1e-5
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and out[0].startswith("resnet18     inference batch 2  fastconv ") and out[1].endswith("x")


def test_without_torch_fastconv_alone(capsys):
    assert cli.main(["networks", "--batch", "1", "--against", "none", "--quick", "--mode", "inference"]) == 0
    out = capsys.readouterr().out
    assert "fastconv optimized" in out and "torch" not in out


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
    assert "NAME must be one of resnet18; got 'resnet19'" in capsys.readouterr().err
