"""nn.utils: parameters as one vector, normalisations folded into the layers before them, against torch."""

import numpy as np
import pytest
from test_optimize import image, settled

import fastconv as fc
import fastconv.nn as nn
from checks import from_torch, to_torch


def test_parameters_as_a_vector_and_back():
    torch = pytest.importorskip("torch")
    layer, theirs = nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict({key: to_torch(value) for key, value in layer.state_dict().items()})
    vector = nn.utils.parameters_to_vector(layer.parameters())
    np.testing.assert_array_equal(vector.data, from_torch(torch.nn.utils.parameters_to_vector(theirs.parameters())))
    (vector * fc.tensor(np.arange(8, dtype=np.float32))).sum().backward()
    np.testing.assert_array_equal(layer.weight.grad, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(layer.bias.grad, [6, 7])
    weight = layer.weight.data
    for vec in (np.arange(8), fc.tensor(np.arange(8.0))):
        weight[...] = 0
        nn.utils.vector_to_parameters(vec, layer.parameters())
        assert layer.weight.data is weight and weight.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert layer.bias.data.tolist() == [6, 7]


def test_a_packed_weight_is_written_too():
    layer = nn.Conv2d(16, 16, 3)
    layer.weight.data = nn.functional.pack_weight(layer.weight)
    x, zeros = image(1, 16, 5, 5), np.zeros(16 * 16 * 9 + 16, np.float32)
    assert layer(x).any()
    nn.utils.vector_to_parameters(zeros, layer.parameters())
    assert not layer(x).any()


def test_vectors_that_do_not_fit():
    layer = nn.Linear(3, 2)
    before = {key: value.copy() for key, value in layer.state_dict().items()}
    for wrong in (np.zeros(7), np.zeros(9), np.zeros((8, 1)), np.float32(1)):
        with pytest.raises(ValueError, match=r"vec must have shape \(8,\), the elements of all parameters, got"):
            nn.utils.vector_to_parameters(wrong, layer.parameters())
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    with pytest.raises(ValueError, match="parameters must be at least one"):
        nn.utils.parameters_to_vector([])
    with pytest.raises(TypeError, match="parameters must hold Tensors, got ndarray"):
        nn.utils.parameters_to_vector([np.zeros(3)])


@pytest.mark.parametrize(
    "make, norm, shape",
    [
        (lambda n: n.Conv1d(3, 4, 3, bias=False), lambda n: n.BatchNorm1d(4), (2, 3, 9)),
        (lambda n: n.Conv2d(4, 6, 3, groups=2), lambda n: n.BatchNorm2d(6, affine=False), (2, 4, 6, 5)),
        (lambda n: n.Conv3d(2, 3, 2), lambda n: n.BatchNorm3d(3), (1, 2, 4, 4, 4)),
        (lambda n: n.ConvTranspose2d(4, 6, 3, 2), lambda n: n.BatchNorm2d(6), (2, 4, 5, 5)),
        (lambda n: n.Linear(5, 4, bias=False), lambda n: n.BatchNorm1d(4), (3, 5)),
    ],
)
def test_folding_a_normalisation(make, norm, shape):
    torch = pytest.importorskip("torch")
    net = settled(nn.Sequential(make(nn), norm(nn)))
    theirs = torch.nn.Sequential(make(torch.nn), norm(torch.nn)).eval()
    theirs.load_state_dict({key: to_torch(np.asarray(value)) for key, value in net.state_dict().items()})
    before = {key: value.copy() for key, value in net.state_dict().items()}
    if isinstance(net[0], nn.Linear):
        ours, fused = (u.fuse_linear_bn_eval for u in (nn.utils, torch.nn.utils.fusion))
        layer, expected = ours(net[0], net[1]), fused(theirs[0], theirs[1])
    else:
        transposed = isinstance(net[0], nn.ConvTranspose2d)
        layer = nn.utils.fuse_conv_bn_eval(net[0], net[1], transposed)
        expected = torch.nn.utils.fusion.fuse_conv_bn_eval(theirs[0], theirs[1], transposed)
    for name in ("weight", "bias"):
        value = getattr(layer, name)
        assert value.requires_grad
        np.testing.assert_allclose(value.data, from_torch(getattr(expected, name).detach()), rtol=1e-5, atol=1e-6)
    x = image(*shape)
    assert type(layer) is type(net[0]) and not layer.training
    np.testing.assert_allclose(layer(x), net(x), rtol=1e-4, atol=1e-5)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_what_cannot_be_folded():
    conv, bn, linear = nn.Conv2d(3, 4, 3).eval(), nn.BatchNorm2d(4).eval(), nn.Linear(3, 4).eval()
    fuse = nn.utils.fuse_conv_bn_eval
    for arguments, error, message in (
        ((linear, bn), TypeError, "conv must be a convolution, got Linear"),
        ((conv, nn.GroupNorm(2, 4).eval()), TypeError, "bn must be a batch normalisation, got GroupNorm"),
        ((nn.Conv2d(3, 4, 3), bn), ValueError, "conv and bn must be in evaluation mode"),
        ((conv, nn.BatchNorm2d(4)), ValueError, "conv and bn must be in evaluation mode"),
        ((conv, nn.BatchNorm2d(5).eval()), ValueError, "bn must have the 4 channels that conv puts out, got 5"),
        ((nn.utils.weight_norm(nn.Conv2d(3, 4, 3)).eval(), bn), ValueError, "conv must have its weight as a parameter"),
        ((conv, nn.BatchNorm2d(4, track_running_stats=False).eval()), ValueError, "bn must have running statistics"),
    ):
        with pytest.raises(error, match=message):
            fuse(*arguments)
    with pytest.raises(TypeError, match="linear must be a Linear layer, got Conv2d"):
        nn.utils.fuse_linear_bn_eval(conv, bn)
