"""Every layer against torch.nn's: state_dict, repr, outputs and gradients with the same weights."""

import math

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn

# Class, positional and keyword arguments, shapes of the inputs.
LAYERS = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, [(2, 4, 9)]),
    ("Conv1d", (4, 6, 3), {"padding": "same", "dilation": 2, "padding_mode": "circular"}, [(4, 9)]),
    ("Conv2d", (3, 4, 3), {}, [(2, 3, 6, 7)]),
    ("Conv2d", (3, 4, (3, 2)), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "bias": False}, [(3, 8, 7)]),
    ("Conv2d", (4, 4, 3), {"padding": "same", "groups": 4}, [(2, 4, 5, 5)]),
    ("Conv2d", (2, 3, 4), {"padding": "same", "padding_mode": "replicate"}, [(2, 2, 6, 5)]),
    ("Conv2d", (2, 3, 3), {"padding": (1, 2), "padding_mode": "reflect"}, [(2, 2, 6, 5)]),
    ("Conv2d", (2, 3, 3), {"padding": "valid", "padding_mode": "reflect"}, [(2, 2, 6, 5)]),
    ("Conv3d", (2, 2, 2), {"stride": 2, "padding": 1}, [(1, 2, 4, 3, 5)]),
    ("ConvTranspose1d", (4, 2, 3), {"stride": 2, "groups": 2}, [(2, 4, 5)]),
    ("ConvTranspose2d", (4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}, [(2, 4, 3, 4)]),
    ("ConvTranspose2d", (2, 2, 2), {"dilation": 2, "bias": False}, [(2, 3, 4)]),
    ("ConvTranspose3d", (2, 2, 2), {"stride": (1, 2, 1)}, [(1, 2, 2, 3, 2)]),
    ("MaxPool1d", (2,), {}, [(2, 3, 7)]),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, [(2, 3, 6, 7)]),
    ("MaxPool2d", ((2, 3),), {"dilation": (2, 1)}, [(3, 6, 7)]),
    ("MaxPool3d", (2,), {"stride": 1}, [(1, 2, 3, 4, 3)]),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, [(2, 3, 7)]),
    ("AvgPool2d", (2,), {"ceil_mode": True}, [(2, 3, 5, 5)]),
    ("AvgPool2d", (3,), {"padding": 1, "divisor_override": 5}, [(2, 3, 6, 6)]),
    ("AvgPool3d", (2,), {}, [(1, 2, 4, 4, 5)]),
    ("LPPool1d", (2, 3), {}, [(2, 3, 7)]),
    ("LPPool2d", (3, 2), {"stride": 1}, [(2, 3, 5, 5)]),
    ("LPPool3d", (2, 2), {"ceil_mode": True}, [(1, 2, 4, 4, 5)]),
    ("AdaptiveAvgPool1d", (3,), {}, [(2, 3, 7)]),
    ("AdaptiveAvgPool2d", ((None, 2),), {}, [(2, 3, 5, 7)]),
    ("AdaptiveAvgPool3d", (2,), {}, [(1, 2, 3, 4, 5)]),
    ("AdaptiveMaxPool1d", (3,), {}, [(2, 3, 7)]),
    ("AdaptiveMaxPool2d", ((2, None),), {}, [(2, 3, 5, 7)]),
    ("AdaptiveMaxPool3d", (2,), {}, [(1, 2, 3, 4, 5)]),
    ("BatchNorm1d", (4,), {}, [(5, 4)]),
    ("BatchNorm1d", (4,), {"momentum": None}, [(5, 4, 3)]),
    ("BatchNorm2d", (3,), {"eps": 1e-3, "momentum": 0.3}, [(2, 3, 4, 5)]),
    ("BatchNorm2d", (3,), {"affine": False}, [(2, 3, 4, 5)]),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, [(2, 3, 4, 5)]),
    ("BatchNorm3d", (2,), {}, [(2, 2, 3, 2, 2)]),
    ("InstanceNorm1d", (3,), {"affine": True}, [(3, 6)]),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, [(2, 3, 4, 5)]),
    ("InstanceNorm2d", (3,), {}, [(3, 4, 5)]),
    ("InstanceNorm3d", (2,), {}, [(2, 2, 3, 2, 2)]),
    ("LocalResponseNorm", (3,), {"alpha": 0.5, "k": 2.0}, [(2, 5, 3, 3)]),
    ("Linear", (4, 3), {}, [(5, 4)]),
    ("Linear", (4, 3), {"bias": False}, [(2, 5, 4)]),
    ("Bilinear", (4, 3, 2), {}, [(5, 4), (5, 3)]),
    ("ReLU", (), {}, [(2, 3)]),
    ("ReLU6", (), {}, [(2, 3)]),
    ("LeakyReLU", (0.2,), {}, [(2, 3)]),
    ("PReLU", (3,), {"init": 0.5}, [(2, 3, 4)]),
    ("Hardtanh", (-0.5, 0.7), {}, [(2, 3)]),
    ("Sigmoid", (), {}, [(2, 3)]),
    ("Tanh", (), {}, [(2, 3)]),
    ("Softplus", (), {"beta": 2.0}, [(2, 3)]),
    ("Softmax", (1,), {}, [(2, 3)]),
    ("LogSoftmax", (), {"dim": -1}, [(2, 3)]),
    ("Dropout", (0.0,), {}, [(2, 3)]),
    ("Dropout2d", (0.0,), {}, [(2, 3, 4, 4)]),
    ("ConstantPad1d", (2, 1.5), {}, [(2, 3, 4)]),
    ("ConstantPad2d", ((1, -1, 2, 0), 1.5), {}, [(2, 3, 4, 4)]),
    ("ConstantPad3d", (1, 0.5), {}, [(1, 2, 3, 3, 3)]),
    ("ZeroPad1d", (1,), {}, [(2, 3, 4)]),
    ("ZeroPad2d", ((1, 0, 2, 3),), {}, [(2, 3, 4, 4)]),
    ("ZeroPad3d", (1,), {}, [(1, 2, 3, 3, 3)]),
    ("ReflectionPad1d", (2,), {}, [(2, 3, 4)]),
    ("ReflectionPad2d", ((1, 0, 2, 3),), {}, [(2, 3, 4, 4)]),
    ("ReflectionPad3d", (1,), {}, [(1, 2, 3, 3, 3)]),
    ("ReplicationPad1d", ((3, 1),), {}, [(3, 4)]),
    ("ReplicationPad2d", (2,), {}, [(2, 3, 4, 4)]),
    ("ReplicationPad3d", (1,), {}, [(1, 2, 3, 3, 3)]),
    ("CircularPad1d", (2,), {}, [(2, 3, 4)]),
    ("CircularPad2d", ((1, 0, 2, 3),), {}, [(2, 3, 4, 4)]),
    ("CircularPad3d", (1,), {}, [(1, 2, 3, 3, 3)]),
    ("ELU", (0.5,), {"inplace": False}, [(2, 3)]),
    ("SELU", (), {}, [(2, 3)]),
    ("CELU", (0.5,), {}, [(2, 3)]),
    ("GELU", (), {}, [(2, 3)]),
    ("GELU", ("tanh",), {}, [(2, 3)]),
    ("SiLU", (), {}, [(2, 3)]),
    ("Mish", (), {}, [(2, 3)]),
    ("Hardswish", (), {}, [(2, 3)]),
    ("Hardshrink", (0.25,), {}, [(2, 3)]),
    ("Softshrink", (0.25,), {}, [(2, 3)]),
    ("Tanhshrink", (), {}, [(2, 3)]),
    ("Softsign", (), {}, [(2, 3)]),
    ("LogSigmoid", (), {}, [(2, 3)]),
    ("Threshold", (0.25, -3.0), {}, [(2, 3)]),
    ("RReLU", (0.25, 0.25), {}, [(2, 3)]),
    ("GLU", (1,), {}, [(2, 4)]),
    ("Softmin", (1,), {}, [(2, 3)]),
    ("Softmax2d", (), {}, [(2, 3, 4, 4)]),
    ("Dropout1d", (0.0,), {}, [(2, 3, 4)]),
    ("Dropout3d", (0.0,), {}, [(2, 3, 4, 4, 2)]),
    ("AlphaDropout", (0.0,), {}, [(2, 3)]),
    ("GroupNorm", (2, 4), {}, [(3, 4, 5, 2)]),
    ("GroupNorm", (4, 4), {"eps": 0.1, "bias": False}, [(3, 4, 5)]),
    ("GroupNorm", (1, 4), {"affine": False}, [(3, 4)]),
    ("LayerNorm", (5,), {}, [(3, 4, 5)]),
    ("LayerNorm", ([4, 5],), {"bias": False}, [(3, 4, 5)]),
    ("LayerNorm", ((4, 5),), {"elementwise_affine": False, "eps": 0.1}, [(4, 5)]),
    ("Upsample", (), {"scale_factor": 2}, [(2, 3, 4, 5)]),
    ("Upsample", ((7, 3),), {"mode": "bicubic", "align_corners": True}, [(2, 3, 4, 5)]),
    ("Upsample", (6,), {"mode": "linear"}, [(2, 3, 4)]),
    ("UpsamplingNearest2d", (7,), {}, [(2, 3, 4, 5)]),
    ("UpsamplingBilinear2d", (), {"scale_factor": (2.0, 1.5)}, [(2, 3, 4, 5)]),
    ("PixelShuffle", (2,), {}, [(2, 8, 3, 4)]),
    ("PixelUnshuffle", (2,), {}, [(3, 4, 6)]),
    ("Fold", ((4, 5), 2), {"stride": 2, "padding": 1}, [(2, 12, 9)]),
    ("Unfold", (2,), {"stride": 2, "padding": 1}, [(2, 3, 4, 5)]),
    ("Flatten", (), {}, [(2, 3, 4)]),
    ("Flatten", (0, 1), {}, [(2, 3, 4)]),
    ("Unflatten", (1, (2, 3)), {}, [(2, 6)]),
    ("Identity", (7,), {"unused": 1}, [(2, 3)]),
]
LOSSES = [
    ("MSELoss", {}, "same"),
    ("MSELoss", {"reduction": "sum"}, "same"),
    ("L1Loss", {"reduction": "none"}, "same"),
    ("SmoothL1Loss", {"beta": 0.5}, "same"),
    ("HuberLoss", {"delta": 0.7}, "same"),
    ("HuberLoss", {"delta": math.inf}, "same"),
    ("HuberLoss", {"delta": 2.0, "reduction": "none"}, "same"),
    ("KLDivLoss", {"reduction": "batchmean"}, "probabilities"),
    ("KLDivLoss", {"log_target": True, "reduction": "sum"}, "same"),
    ("HingeEmbeddingLoss", {"margin": 0.5}, "signs"),
    ("BCEWithLogitsLoss", {}, "probabilities"),
    ("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 1}, "classes"),
    ("CrossEntropyLoss", {"reduction": "sum"}, "classes"),
    ("NLLLoss", {"reduction": "none"}, "classes"),
]
WEIGHTED = [
    ("CrossEntropyLoss", {"weight": 4}, "classes"),
    ("NLLLoss", {"weight": 4}, "classes"),
    ("BCEWithLogitsLoss", {"weight": 4, "pos_weight": 4}, "probabilities"),
]


def _id(case):
    return case if isinstance(case, str) else None


def _pair(torch, name, args, kwargs):
    """The layer of both libraries in float64, with torch's weights in both and biases of normalisation off zero."""
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1
    ours = getattr(nn, name)(*args, **kwargs).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _close(ours, theirs):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name, args, kwargs, shapes", LAYERS, ids=_id)
def test_state_and_repr_are_torchs(torch, name, args, kwargs, shapes):
    ours, theirs = getattr(nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    expected = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in theirs.state_dict().items()
    }
    assert {key: (value.shape, value.dtype.name) for key, value in ours.state_dict().items()} == expected
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name, args, kwargs, shapes", LAYERS, ids=_id)
def test_outputs_gradients_and_statistics_are_torchs(torch, name, args, kwargs, shapes):
    rng = np.random.default_rng(7)
    ours, theirs = _pair(torch, name, args, kwargs)
    for mode in (True, True, False):  # twice in training mode, because running averages depend on what came before
        ours.train(mode)
        theirs.train(mode)
        arrays = [rng.normal(size=shape) for shape in shapes]
        inputs = [torch.tensor(array, requires_grad=True) for array in arrays]
        expected = theirs(*inputs)
        y, pullback = ours.vjp(*arrays)
        _close(y, expected)
        dy = rng.normal(size=y.shape)
        ours.zero_grad()
        theirs.zero_grad()
        dx = pullback(dy)
        expected.backward(torch.tensor(dy))
        for gradient, tensor in zip(dx if len(arrays) > 1 else [dx], inputs, strict=True):
            _close(gradient, tensor.grad)
        for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            _close(parameter.grad, other.grad)
        for buffer, other in zip(ours.buffers(), theirs.buffers(), strict=True):
            _close(buffer, other)


@pytest.mark.parametrize("name, args, kwargs, shapes", LAYERS, ids=_id)
def test_arrays_give_arrays_and_record_nothing(name, args, kwargs, shapes):
    layer = getattr(nn, name)(*args, **kwargs)
    inputs = [np.random.default_rng(8).normal(size=shape).astype(np.float32) for shape in shapes]
    before = [x.copy() for x in inputs]
    y = layer(*inputs)
    assert type(y) is np.ndarray and y.dtype == np.float32
    for x, old in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, old)
    recorded = layer.eval()(*map(fc.tensor, inputs))
    assert isinstance(recorded, fc.Tensor)
    assert recorded.requires_grad == any(True for _ in layer.parameters())


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_unpooling_layers_are_torchs(torch, nd):
    x = np.random.default_rng(9).normal(size=(2, 3, *(6, 5, 4)[:nd]))
    pool, unpool = getattr(nn, f"MaxPool{nd}d")(2, return_indices=True), getattr(nn, f"MaxUnpool{nd}d")(2)
    their_pool = getattr(torch.nn, f"MaxPool{nd}d")(2, return_indices=True)
    their_unpool = getattr(torch.nn, f"MaxUnpool{nd}d")(2)
    assert repr(unpool) == repr(their_unpool)
    y, indices = pool(x)
    expected, positions = their_pool(torch.tensor(x))
    np.testing.assert_array_equal(indices, positions.numpy())
    size = x.shape[2:]
    _close(unpool(y, indices, output_size=size), their_unpool(expected, positions, output_size=size))


def test_adaptive_max_pool_indices_are_torchs(torch):
    x = np.random.default_rng(10).normal(size=(2, 3, 5, 7))
    y, indices = nn.AdaptiveMaxPool2d(2, return_indices=True)(x)
    expected, positions = torch.nn.AdaptiveMaxPool2d(2, return_indices=True)(torch.tensor(x))
    _close(y, expected)
    np.testing.assert_array_equal(indices, positions.numpy())


@pytest.mark.parametrize("output_size", [(7, 9), (8, 10), (2, 3, 8, 9)])
def test_transposed_output_size_is_torchs(torch, output_size):
    ours, theirs = _pair(torch, "ConvTranspose2d", (3, 3, 3), {"stride": 2})
    x = np.random.default_rng(11).normal(size=(2, 3, 3, 4))
    _close(ours(x, output_size=output_size), theirs(torch.tensor(x), output_size=list(output_size)))


def _loss_target(rng, kind):
    classes = rng.integers(0, 4, 5)
    return {
        "same": rng.normal(size=(5, 4)),
        "signs": rng.choice([-1.0, 1.0], (5, 4)),
        "probabilities": rng.uniform(0.1, 0.9, (5, 4)),
        "classes": np.where(classes == 1, 0, classes),
    }[kind]


@pytest.mark.parametrize("name, options, kind", [*LOSSES, *WEIGHTED], ids=_id)
def test_losses_are_torchs(torch, name, options, kind):
    rng = np.random.default_rng(12)
    x, target = rng.normal(size=(5, 4)), _loss_target(rng, kind)
    arrays = {key: rng.uniform(0.5, 2, value) for key, value in options.items() if key.endswith("weight")}
    ours = getattr(nn, name)(**{**options, **arrays})
    theirs = getattr(torch.nn, name)(**{**options, **{key: torch.tensor(value) for key, value in arrays.items()}})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    tensor = fc.tensor(x, requires_grad=True)
    other = torch.tensor(x, requires_grad=True)
    loss, expected = ours(tensor, target), theirs(other, torch.tensor(target))
    _close(loss.data, expected)
    loss.sum().backward()
    expected.sum().backward()
    _close(tensor.grad, other.grad)


def test_binary_cross_entropy_is_torchs(torch):
    rng = np.random.default_rng(13)
    x, target = rng.uniform(size=(5, 4)), rng.uniform(size=(5, 4))
    weight = rng.uniform(size=4)
    ours = nn.BCELoss(weight, reduction="sum")(x, target)
    _close(ours, torch.nn.BCELoss(torch.tensor(weight), reduction="sum")(torch.tensor(x), torch.tensor(target)))


@pytest.mark.parametrize("options", [{}, {"padding_idx": -1}, {"max_norm": 1.0, "norm_type": 1.0}])
def test_embedding_is_torchs(torch, options):
    ours, theirs = _pair(torch, "Embedding", (5, 3), options)
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    numbers = np.array([[4, 0, 4], [1, 1, 1]])
    y, expected = ours(fc.tensor(numbers)), theirs(torch.tensor(numbers))
    _close(y.data, expected)
    y.sum().backward()
    expected.sum().backward()
    _close(ours.weight.data, theirs.weight)
    _close(ours.weight.grad, theirs.weight.grad)
    assert type(ours(numbers)) is np.ndarray
    frozen = nn.Embedding.from_pretrained(theirs.weight)
    _close(frozen(numbers), theirs(torch.tensor(numbers)))
    assert not frozen.weight.requires_grad and frozen.weight.dtype == np.float64
