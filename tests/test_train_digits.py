"""The example of a whole training run on the digits: it learns, and a second call goes on."""

import pytest

from fastconv.examples import train_digits

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def test_the_example_learns_and_goes_on(tmp_path, capsys):
    arguments = ["--model", "mlp", "--folder", str(tmp_path)]
    assert train_digits.main([*arguments, "--epochs", "2"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("epoch 1/2") and {path.suffix for path in tmp_path.iterdir()} == {".npz", ".csv", ".png"}
    assert train_digits.main([*arguments, "--epochs", "3"]) == 0
    second = capsys.readouterr().out
    assert second.startswith("going on after epoch 2\nepoch 3/3")
    assert float(second.split()[-2]) > 80
    with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
        train_digits.main([*arguments, "--seed", "1"])
