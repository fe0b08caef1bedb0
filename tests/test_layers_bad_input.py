"""Layers refuse bad arguments when they are built, and bad inputs without changing their state."""

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn

BAD_ARGUMENTS = [
    ("Conv2d", (3, 4, 0), {}, ValueError, "kernel_size"),
    ("Conv2d", (3, 4, -1), {}, ValueError, "kernel_size"),
    ("Conv2d", (3, 4, []), {}, ValueError, "kernel_size"),
    ("Conv2d", (3, 4, (3, 3, 3)), {}, ValueError, "kernel_size"),
    ("Conv2d", (3, 4, 3.0), {}, TypeError, "kernel_size"),
    ("Conv2d", (3, 4, True), {}, TypeError, "kernel_size"),
    ("Conv2d", (3, 4, "3"), {}, TypeError, "kernel_size"),
    ("Conv2d", (3, 4, None), {}, TypeError, "kernel_size"),
    ("Conv2d", (3, 4, float("nan")), {}, TypeError, "kernel_size"),
    ("Conv2d", (3, 4, 3), {"stride": 0}, ValueError, "stride"),
    ("Conv2d", (3, 4, 3), {"stride": (1, -1)}, ValueError, "stride"),
    ("Conv2d", (3, 4, 3), {"dilation": 0}, ValueError, "dilation"),
    ("Conv2d", (3, 4, 3), {"padding": -1}, ValueError, "padding"),
    ("Conv2d", (3, 4, 3), {"padding": "full"}, ValueError, "padding"),
    ("Conv2d", (3, 4, 3), {"padding": ((1, 2),)}, ValueError, "padding"),
    ("Conv2d", (3, 4, 3), {"padding": ((1, 2, 3), 1)}, ValueError, "padding"),
    ("Conv2d", (3, 4, 3), {"padding": ((1, -2), 1)}, ValueError, "padding"),
    ("Conv2d", (3, 4, 3), {"groups": 0}, ValueError, "groups"),
    ("Conv2d", (3, 6, 3), {"groups": 2}, ValueError, "in_channels"),
    ("Conv2d", (4, 3, 3), {"groups": 2}, ValueError, "out_channels"),
    ("Conv2d", (-1, 3, 3), {}, ValueError, "in_channels"),
    ("Conv2d", (3, 4, 3), {"padding_mode": "mirror"}, ValueError, "padding_mode"),
    ("Conv2d", (3, 4, 3), {"dtype": np.int32}, TypeError, "dtype"),
    ("Conv2d", (3, 4, 3), {"dtype": ">f4"}, TypeError, "dtype"),
    ("ConvTranspose2d", (4, 3, 3), {"groups": 2}, ValueError, "out_channels"),
    ("ConvTranspose2d", (4, 3, 3), {"output_padding": 1}, ValueError, "output_padding"),
    ("ConvTranspose2d", (4, 3, 3), {"padding": "same"}, TypeError, "padding"),
    ("ConvTranspose2d", (4, 3, 3), {"padding_mode": "reflect"}, ValueError, "padding_mode"),
    ("MaxPool2d", (0,), {}, ValueError, "kernel_size"),
    ("MaxPool2d", ((2, 2, 2),), {}, ValueError, "kernel_size"),
    ("MaxPool2d", (2,), {"stride": 0}, ValueError, "stride"),
    ("MaxPool1d", (2,), {"padding": -1}, ValueError, "padding"),
    ("MaxPool2d", (2,), {"padding": ((0, 1), (0, -1))}, ValueError, "padding"),
    ("AvgPool2d", (2,), {"padding": ((0, 1),)}, ValueError, "padding"),
    ("AvgPool1d", (2,), {"padding": "full"}, ValueError, "padding"),
    ("MaxPool3d", (2,), {"dilation": 0}, ValueError, "dilation"),
    ("MaxUnpool2d", (2,), {"stride": 0}, ValueError, "stride"),
    ("AvgPool1d", (0,), {}, ValueError, "kernel_size"),
    ("AvgPool2d", (2,), {"divisor_override": 0}, ValueError, "divisor_override"),
    ("AvgPool2d", (2,), {"divisor_override": 1.5}, TypeError, "divisor_override"),
    ("LPPool2d", (0, 2), {}, ValueError, "norm_type"),
    ("LPPool2d", ("2", 2), {}, TypeError, "norm_type"),
    ("LPPool2d", (2, 2), {"stride": 0}, ValueError, "stride"),
    ("AdaptiveAvgPool2d", (-1,), {}, ValueError, "output_size"),
    ("AdaptiveAvgPool2d", ((1, 2, 3),), {}, ValueError, "output_size"),
    ("AdaptiveMaxPool2d", (1.5,), {}, TypeError, "output_size"),
    ("BatchNorm2d", (-1,), {}, ValueError, "num_features"),
    ("BatchNorm2d", (3.0,), {}, TypeError, "num_features"),
    ("BatchNorm2d", (3,), {"eps": -1.0}, ValueError, "eps"),
    ("BatchNorm2d", (3,), {"momentum": "0.1"}, TypeError, "momentum"),
    ("InstanceNorm2d", (3,), {"eps": None}, TypeError, "eps"),
    ("LocalResponseNorm", (0,), {}, ValueError, "size"),
    ("LocalResponseNorm", (3,), {"alpha": None}, TypeError, "alpha"),
    ("Linear", (-1, 3), {}, ValueError, "in_features"),
    ("Linear", (2, 3.5), {}, TypeError, "out_features"),
    ("Bilinear", (0, 3, 2), {}, ValueError, "in1_features"),
    ("PReLU", (0,), {}, ValueError, "num_parameters"),
    ("Hardtanh", (1.0, 1.0), {}, ValueError, "max_val"),
    ("LeakyReLU", ("x",), {}, TypeError, "negative_slope"),
    ("Dropout", (1.5,), {}, ValueError, "p must"),
    ("Dropout2d", (-0.1,), {}, ValueError, "p must"),
    ("Dropout", (float("nan"),), {}, ValueError, "p must"),
    ("ReflectionPad2d", ((1, 2),), {}, ValueError, "padding"),
    ("ZeroPad2d", ((1, 2),), {}, ValueError, "padding"),
    ("ConstantPad1d", (1, "0"), {}, TypeError, "value"),
    ("Unfold", (0,), {}, ValueError, "kernel_size"),
    ("Unflatten", (1, (-1, -1)), {}, ValueError, "unflattened_size"),
    ("Flatten", (1.0,), {}, TypeError, "start_dim"),
    ("CrossEntropyLoss", (), {"reduction": "average"}, ValueError, "reduction"),
    ("CrossEntropyLoss", (), {"label_smoothing": 1.5}, ValueError, "label_smoothing"),
    ("CrossEntropyLoss", ([1.0, 2.0],), {}, TypeError, "weight"),
    ("MSELoss", (), {"reduction": "batchmean"}, ValueError, "reduction"),
    ("HuberLoss", (), {"delta": 0.0}, ValueError, "delta"),
    ("SmoothL1Loss", (), {"beta": -1.0}, ValueError, "beta"),
]


@pytest.mark.parametrize("name, args, kwargs, error, words", BAD_ARGUMENTS, ids=str)
def test_constructors_name_what_is_wrong(name, args, kwargs, error, words):
    with pytest.raises(error, match=words):
        getattr(nn, name)(*args, **kwargs)


BAD_INPUTS = [
    (lambda: nn.Conv2d(3, 4, 3), (2, 4, 5, 5)),
    (lambda: nn.Conv2d(3, 4, 3), (3, 5)),
    (lambda: nn.Conv2d(3, 4, 3), (2, 3, 2, 2)),
    (lambda: nn.Conv2d(3, 4, 3, padding=3, padding_mode="reflect"), (2, 3, 3, 3)),
    (lambda: nn.ConvTranspose2d(3, 4, 3), (2, 4, 5, 5)),
    (lambda: nn.MaxPool2d(3), (2, 3, 2, 2)),
    (lambda: nn.MaxPool2d(2, padding=2), (2, 3, 4, 4)),
    (lambda: nn.AvgPool2d(3), (4, 4)),
    (lambda: nn.BatchNorm1d(3), (2, 3, 4, 4)),
    (lambda: nn.BatchNorm2d(3), (3, 4, 4)),
    (lambda: nn.BatchNorm2d(3), (2, 4, 4, 4)),
    (lambda: nn.BatchNorm2d(3), (1, 3, 1, 1)),
    (lambda: nn.BatchNorm3d(3), (2, 3, 4, 4)),
    (lambda: nn.InstanceNorm2d(3), (2, 4, 4, 4)),
    (lambda: nn.InstanceNorm2d(3, track_running_stats=True), (2, 3)),
    (lambda: nn.Linear(3, 4), (2, 4)),
    (lambda: nn.PReLU(3), (2, 4)),
    (lambda: nn.ReflectionPad2d(3), (2, 3, 3, 3)),
    (lambda: nn.Flatten(2), (2, 3)),
    (lambda: nn.Flatten(-1, 0), (2, 3)),
    (lambda: nn.Unflatten(1, (2, 2)), (2, 3)),
    (lambda: nn.Unflatten(1, (0, -1)), (2, 3)),
    (lambda: nn.Unfold(3), (2, 3, 2, 2)),
]


@pytest.mark.parametrize("make, shape", BAD_INPUTS)
@pytest.mark.parametrize("wrap", [np.asarray, fc.tensor], ids=["array", "Tensor"])
def test_bad_inputs_leave_the_state_as_it_was(make, shape, wrap):
    layer = make()
    before = {key: value.copy() for key, value in layer.state_dict().items()}
    with pytest.raises(ValueError):
        layer(wrap(np.ones(shape, np.float32)))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("dtype", [np.int64, bool, object, ">f4", np.float64, np.complex64])
@pytest.mark.parametrize("make", [lambda: nn.Conv2d(2, 2, 1), lambda: nn.BatchNorm2d(2)], ids=["conv", "norm"])
def test_other_dtypes_are_type_errors(make, dtype):
    layer = make()
    before = {key: value.copy() for key, value in layer.state_dict().items()}
    with pytest.raises(TypeError):
        layer(np.ones((1, 2, 3, 3)).astype(dtype))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_read_only_statistics_are_refused_before_anything_is_written():
    layer = nn.BatchNorm2d(2)
    layer.running_var.flags.writeable = False
    with pytest.raises(ValueError):
        layer(np.random.default_rng(1).normal(size=(2, 2, 3, 3)).astype(np.float32))
    assert not layer.running_mean.any() and layer.num_batches_tracked == 0


def test_transposed_output_size_out_of_reach():
    layer = nn.ConvTranspose2d(2, 2, 3, stride=2)
    x = np.zeros((1, 2, 3, 3), np.float32)
    for output_size in ((9, 7), (7, 6), (7,), (1, 2, 3, 7, 7)):
        with pytest.raises(ValueError, match="output_size"):
            layer(x, output_size=output_size)
    with pytest.raises(TypeError, match="output_size"):
        layer(x, output_size=(7.0, 7))


def test_empty_batches_and_sizes():
    x = np.zeros((0, 3, 6, 6), np.float32)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    assert net(x).shape == (0, 2)
    assert nn.Unflatten(1, (3, -1))(np.zeros((0, 6), np.float32)).shape == (0, 3, 2)
    assert nn.Linear(0, 2)(np.zeros((3, 0), np.float32)).shape == (3, 2)


def test_same_padding_with_stride_and_unequal_sides():
    """What torch does not have: ONNX' SAME_UPPER and (before, after) pairs, for all padding modes alike."""
    x = np.random.default_rng(2).normal(size=(2, 2, 7, 8)).astype(np.float32)
    for mode, numpy_mode in (
        ("zeros", "constant"),
        ("reflect", "reflect"),
        ("replicate", "edge"),
        ("circular", "wrap"),
    ):
        plain = nn.Conv2d(2, 3, 4, stride=3)
        same = nn.Conv2d(2, 3, 4, stride=3, padding="same", padding_mode=mode)
        pairs = nn.Conv2d(2, 3, 4, stride=3, padding=((1, 2), 1), padding_mode=mode)
        for layer in (same, pairs):
            layer.load_state_dict(plain.state_dict())
        # 7 -> ceil(7 / 3) = 3 outputs need (3 - 1) * 3 + 4 = 10 rows: 1 before, 2 after; 8 -> 3 outputs: 1 and 1.
        expected = plain(np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 1)), mode=numpy_mode))
        np.testing.assert_allclose(same(x), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(pairs(x), expected, rtol=1e-5, atol=1e-6)
    assert repr(pairs).startswith("Conv2d(2, 3, kernel_size=(4, 4), stride=(3, 3), padding=((1, 2), (1, 1))")
