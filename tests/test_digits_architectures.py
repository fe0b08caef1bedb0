"""The example that trains small networks on the digits: one short run of each of two families."""

import pytest

pytest.importorskip("sklearn")
from fastconv.examples import digits_architectures


def test_networks_learn_the_digits(capsys):
    results = digits_architectures.main(["--networks", "ResNet", "DenseNet", "--epochs", "2", "--seeds", "1"])
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:2] == ["network", "parameters"] and len(out) == 3
    for runs in results.values():
        assert len(runs) == 1 and runs[0]["accuracy"] > 0.75 and runs[0]["same"] >= 358
    again = digits_architectures.train("ResNet", 1, 4), digits_architectures.train("ResNet", 1, 4)
    assert again[0]["accuracy"] == again[1]["accuracy"]


def test_all_families_are_built():
    for name, build in digits_architectures.NETWORKS.items():
        size = 32 if name == "LeNet-5" else 8
        assert build().eval().summary((1, 1, size, size)).rows[-1].output_shape == (1, 10)
    with pytest.raises(SystemExit):
        digits_architectures.main(["--networks", "GPT"])
