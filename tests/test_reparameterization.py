"""weight_norm and spectral_norm against torch: values, gradients, state, training, removal."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from test_optimize import image

import fastconv as fc
import fastconv.nn as nn
from checks import from_torch, to_torch

LAYERS = {
    "linear": (lambda n: n.Linear(5, 4), (3, 5)),
    "conv1d": (lambda n: n.Conv1d(3, 4, 3, bias=False), (2, 3, 7)),
    "conv2d": (lambda n: n.Conv2d(4, 6, 3, groups=2), (2, 4, 6, 5)),
    "transposed": (lambda n: n.ConvTranspose2d(3, 4, 3, 2), (2, 3, 4, 4)),
}


def copied(theirs, ours):
    ours.load_state_dict({key: from_torch(value).copy() for key, value in theirs.state_dict().items()})


def torch_utils(torch):
    warnings.simplefilter("ignore")  # torch has newer names for these, too
    torch.manual_seed(0)
    return torch.nn.utils


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "norm, dim", [("weight", 0), ("weight", 1), ("weight", None), ("weight", -1), ("spectral", None)]
)
def test_training_is_torchs(name, norm, dim):
    torch = pytest.importorskip("torch")
    make, shape = LAYERS[name]
    options = {"dim": dim} if norm == "weight" else {"n_power_iterations": 2}
    ours = getattr(nn.utils, f"{norm}_norm")(make(nn), **options)
    with warnings.catch_warnings():
        theirs = getattr(torch_utils(torch), f"{norm}_norm")(make(torch.nn), **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    copied(theirs, ours)
    optimizers = fc.optim.SGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    for step in range(3):
        x = image(*shape, seed=step)
        t, u = fc.tensor(x, requires_grad=True), to_torch(x.copy()).requires_grad_()
        y, z = ours(t), theirs(u)
        np.testing.assert_allclose(y.data, from_torch(z.detach()), rtol=1e-4, atol=1e-5)
        (y * y).sum().backward()
        (z * z).sum().backward()
        np.testing.assert_allclose(t.grad, from_torch(u.grad), rtol=1e-3, atol=1e-4)
        for (key, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            np.testing.assert_allclose(p.grad, from_torch(q.grad), rtol=1e-3, atol=1e-3, err_msg=key)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        copied(theirs, ours)  # rounding must not add up
    for net in (ours, theirs):
        net.eval()
    expected = from_torch(theirs(to_torch(x)).detach())
    np.testing.assert_allclose(ours(x), expected, rtol=1e-4, atol=1e-5)
    assert type(ours(x)) is np.ndarray and not ours.weight.requires_grad
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        np.testing.assert_array_equal(twin(x), ours(x))
        twin.load_state_dict({key: 0.5 * value for key, value in twin.state_dict().items()})
        assert not np.array_equal(twin(x), ours(x))
    removed = getattr(nn.utils, f"remove_{norm}_norm")(ours)
    assert removed is ours and isinstance(ours.weight, nn.Parameter) and not ours._forward_pre_hooks
    assert set(ours.state_dict()) == set(make(nn).state_dict())
    np.testing.assert_allclose(ours(x), expected, rtol=1e-4, atol=1e-5)


def test_the_estimate_becomes_the_largest_singular_value():
    fc.manual_seed(0)
    layer = nn.utils.spectral_norm(nn.Conv2d(3, 8, 3))
    before = layer.weight_u.copy()
    x = image(1, 3, 5, 5)
    layer.eval()(x)
    np.testing.assert_array_equal(layer.weight_u, before)  # only training improves it
    layer.train()
    for _ in range(200):
        layer(x)
    assert np.linalg.norm(layer.weight.data.reshape(8, -1), 2) == pytest.approx(1, abs=1e-4)


def test_two_forwards_before_a_backward():
    torch = pytest.importorskip("torch")
    ours = nn.utils.spectral_norm(nn.Linear(5, 4))
    with warnings.catch_warnings():
        theirs = torch_utils(torch).spectral_norm(torch.nn.Linear(5, 4))
    copied(theirs, ours)
    a, b = image(3, 5), image(2, 5, seed=2)
    (ours(fc.tensor(a)).sum() * ours(fc.tensor(b)).sum()).backward()
    (theirs(to_torch(a)).sum() * theirs(to_torch(b)).sum()).backward()
    np.testing.assert_allclose(ours.weight_orig.grad, from_torch(theirs.weight_orig.grad), rtol=1e-3, atol=1e-4)


def test_optimize_leaves_such_layers_as_they_are():
    net = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.ReLU()).eval()
    x = image(2, 3, 6, 6)
    fast = fc.optimize(net, x.shape)
    assert fast.folded == ()
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-6)


def test_double_precision_and_moving():
    layer = nn.utils.spectral_norm(nn.Linear(5, 4)).double()
    y = layer(image(3, 5, dtype=np.float64))
    assert y.dtype == np.float64 and layer.weight.dtype == np.float64


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: nn.utils.weight_norm(nn.ReLU()), ValueError, "'weight' of ReLU is no parameter"),
        (lambda: nn.utils.weight_norm(nn.Linear(2, 3), "w"), ValueError, "'w' of Linear is no parameter"),
        (lambda: nn.utils.weight_norm(nn.Linear(2, 3), dim=2), ValueError, "dim must be below the 2 dimensions"),
        (lambda: nn.utils.weight_norm(nn.Linear(2, 3), dim=0.5), TypeError, "dim must be an integer"),
        (lambda: nn.utils.weight_norm(3), TypeError, "module must be a Module, got int"),
        (lambda: nn.utils.spectral_norm(nn.Linear(2, 3), dim=2), ValueError, "dim must be below the 2 dimensions"),
        (lambda: nn.utils.spectral_norm(nn.Linear(2, 3), eps=0), ValueError, "eps must be above 0, got 0"),
        (
            lambda: nn.utils.spectral_norm(nn.Linear(2, 3), "weight", 0),
            ValueError,
            "iterations must be at least",
        ),
        (
            lambda: nn.utils.spectral_norm(nn.utils.weight_norm(nn.Linear(2, 3))),
            ValueError,
            "'weight' of Linear is computed already",
        ),
        (lambda: nn.utils.remove_weight_norm(nn.Linear(2, 3)), ValueError, "'weight' of Linear is not normalised so"),
        (
            lambda: nn.utils.remove_spectral_norm(nn.utils.weight_norm(nn.Linear(2, 3))),
            ValueError,
            "'weight' of Linear is not normalised so",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Listing(nn.Linear):
    """Takes its input in a list."""

    def forward(self, xs):
        return super().forward(xs[0])


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_tensors_by_name_and_inside_lists(norm):
    for layer, call in (
        (norm(nn.Linear(3, 2)), lambda layer, x: layer(input=x)),
        (norm(Listing(3, 2)), lambda layer, x: layer([x])),
    ):
        call(layer, fc.tensor(image(2, 3))).sum().backward()
        for parameter in layer.parameters():
            assert parameter.grad is not None and parameter.grad.any()
        pickle.loads(pickle.dumps(layer))  # also after a forward that recorded
        copy.deepcopy(layer)
