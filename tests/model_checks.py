"""What every network must do: count as published, agree with a torch definition under the same weights, and learn."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv as fc
import fastconv.nn as nn
from fastconv.models import get_model, model_info

__all__ = ["assert_follows_torch", "count", "gradients_reach_all", "macs"]


def count(name: str, **options: Any) -> int:
    """Trainable parameters of a model of the catalogue, built without drawing its weights."""
    with nn.init.skip_init():
        return sum(p.numel() for p in get_model(name, **options).parameters())


def macs(name: str) -> int:
    """Multiply-accumulates of a model of the catalogue for one input of the size it was made for."""
    with nn.init.skip_init():
        return get_model(name).summary((1, *model_info(name).input_shape)).macs


def _outputs(output: Any) -> list[Any]:
    return [y for y in (output if isinstance(output, tuple) else (output,)) if y is not None]


def _near(actual: np.ndarray, expected: Any, floor: float = 1e-30) -> None:
    expected = expected.detach().numpy()
    scale = max(float(np.abs(expected).max(initial=0)), floor)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9 * scale)


def assert_follows_torch(ours: nn.Module, theirs: Any, torch: Any, shape: tuple[int, ...], seed: int = 0) -> None:
    """Same keys and shapes in the same order; under `theirs`' weights the same outputs, gradients and statistics.

    In evaluation mode, then in training mode (where the networks must not drop anything), in float64: what differs by
    more than rounding is a difference of the architectures.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    theirs = theirs.double()
    ours = ours.double()
    mine = {key: value.shape for key, value in ours.state_dict().items()}
    assert mine == {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert list(mine) == list(theirs.state_dict())
    with torch.no_grad():
        for name, buffer in theirs.named_buffers():
            if "running" in name:  # zeros and ones would hide a normalisation that is left out
                buffer.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, buffer.shape)))
    ours.load_state_dict(theirs.state_dict())
    for mode in (False, True):
        ours.train(mode)
        theirs.train(mode)
        x = rng.standard_normal(shape)
        tx = torch.tensor(x, requires_grad=True)
        x = fc.tensor(x, requires_grad=True)
        outputs, expected = _outputs(ours(x)), _outputs(theirs(tx))
        assert len(outputs) == len(expected)
        weights = [rng.standard_normal(y.shape) for y in outputs]
        for y, t in zip(outputs, expected):
            _near(y.data, t)
        ours.zero_grad()
        theirs.zero_grad()
        sum((y * w).sum() for y, w in zip(outputs, weights)).backward()
        sum((t * torch.from_numpy(w)).sum() for t, w in zip(expected, weights)).backward()
        _near(x.grad, tx.grad)
        # A bias before a normalisation has no gradient but rounding: small against those of the others.
        largest = max(float(q.grad.abs().max()) for q in theirs.parameters() if q.grad is not None)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if q.grad is not None:
                _near(p.grad, q.grad, 1e-3 * largest)
    for b, t in zip(ours.buffers(), theirs.buffers(), strict=True):
        _near(b, t)


def gradients_reach_all(net: nn.Module, x: np.ndarray) -> None:
    """A backward pass from every output leaves a finite gradient in every parameter, not zero throughout."""
    net.zero_grad()
    total = sum((y * y).sum() for y in _outputs(net(fc.tensor(x))))
    total.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and np.isfinite(parameter.grad).all(), name
    assert any(p.grad.any() for p in net.parameters())
