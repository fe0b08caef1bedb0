"""Bad input of the functions written in NumPy: one clear error that names the argument, or the right answer."""

import numpy as np
import pytest

import fastconv.nn.functional as F
from fastconv.nn.functional.parameters import integers

X = np.ones((4, 3))
IMAGE = np.ones((2, 3, 5, 4))
LABELS = np.array([0, 1, 2, 0])

ELEMENTWISE = [F.sigmoid, F.tanh, F.softplus, F.dropout, lambda x: F.softmax(x, 0), lambda x: F.log_softmax(x, 0)]
PAIRS = [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div, F.binary_cross_entropy_with_logits]
WRONG_DTYPES = [np.int64, np.bool_, np.complex64, np.dtype(">f4"), object, np.longdouble, "U3"]


@pytest.mark.parametrize("dtype", WRONG_DTYPES, ids=str)
def test_wrong_dtype(dtype):
    x = np.ones((4, 3)).astype(dtype)
    for function in (
        *ELEMENTWISE,
        lambda x: F.pad(x, (1, 1)),
        lambda x: F.unfold(x.reshape(1, 4, 3), 2),
        lambda x: F.fold(x, (2, 4), (2, 2)),
        lambda x: F.bilinear(x, x, x.reshape(4, 1, 3)),
        lambda x: F.cross_entropy(x, LABELS),
        lambda x: F.nll_loss(x, LABELS),
        lambda x: F.hinge_embedding_loss(x, x),
        lambda x: F.binary_cross_entropy(x, x),
        *(lambda x, f=f: f(x, x) for f in PAIRS),
    ):
        with pytest.raises(TypeError, match=r"input1? must be float32, float64, float16 or bfloat16, got dtype"):
            function(x)


@pytest.mark.parametrize("function", PAIRS)
def test_pairs(function):
    with pytest.raises(ValueError, match=r"target must have the input's shape \(4, 3\), got \(3,\)"):
        function(X, np.ones(3))
    with pytest.raises(TypeError, match="target must have the dtype of input, float64; got float32"):
        function(X, X.astype(np.float32))
    with pytest.raises(TypeError, match="target must have the dtype"):
        function(X, np.ones((4, 3), int))
    with pytest.raises(ValueError, match="reduction must be one of none, mean, sum"):
        function(X, X, reduction="average")
    assert np.isnan(function(X[:0], X[:0])) and function(X[:0], X[:0], reduction="none").shape == (0, 3)
    assert np.isnan(function(np.full_like(X, np.nan), X))


CALLS = [
    ("beta must be positive, got 0", lambda: F.softplus(X, beta=0)),
    ("dim must be from -2 to 1 for 2 dimensions, got 2", lambda: F.softmax(X, 2)),
    ("dim must be from -1 to 0 for 0 dimensions, got 1", lambda: F.log_softmax(np.ones(()), 1)),
    ("beta must not be negative", lambda: F.smooth_l1_loss(X, X, beta=-1)),
    ("delta must be positive", lambda: F.huber_loss(X, X, delta=0.0)),
    ("weight must broadcast", lambda: F.mse_loss(X, X, weight=np.ones((2, 3)))),
    ("weight must broadcast", lambda: F.mse_loss(X, X, weight=np.ones((5, 4, 3)))),
    ("pos_weight must broadcast", lambda: F.binary_cross_entropy_with_logits(X, X, pos_weight=np.ones(4))),
    ("input must hold probabilities", lambda: F.binary_cross_entropy(1.5 * X, X)),
    ("input must hold probabilities", lambda: F.binary_cross_entropy(-X, X)),
    ("target must hold probabilities", lambda: F.binary_cross_entropy(X, 1.5 * X)),
    ("target must hold probabilities", lambda: F.binary_cross_entropy(X, -X)),
    ("target must have the input's shape", lambda: F.hinge_embedding_loss(X, np.ones(4, int))),
    ("target must hold classes from 0 to 2 or ignore_index -100, got 3", lambda: F.nll_loss(X, LABELS + 1)),
    ("target must hold classes from 0 to 2 or ignore_index -100, got -1", lambda: F.cross_entropy(X, LABELS - 1)),
    (r"target must have shape \(4,\) for an input of shape \(4, 3\)", lambda: F.cross_entropy(X, LABELS[:3])),
    (r"target must have shape \(\)", lambda: F.nll_loss(np.ones(3), LABELS)),
    ("target must have the input's shape", lambda: F.cross_entropy(X, np.ones((4, 2)))),
    ("ignore_index must be left out", lambda: F.cross_entropy(X, X, ignore_index=1)),
    ("label_smoothing must be from 0 to 1", lambda: F.cross_entropy(X, LABELS, label_smoothing=1.5)),
    ("label_smoothing must be from 0 to 1", lambda: F.cross_entropy(X, LABELS, label_smoothing=float("nan"))),
    ("weight must have one entry for each of 3 classes", lambda: F.cross_entropy(X, LABELS, np.ones(4))),
    ("input must have at least one class", lambda: F.cross_entropy(np.ones((2, 0)), np.zeros(2, int))),
    ("input must have shape", lambda: F.nll_loss(np.ones(()), np.zeros((), int))),
    ("reduction must be", lambda: F.cross_entropy(X, LABELS, reduction="batchmean")),
    ("pad must be", lambda: F.pad(X, (1,))),
    ("pad must be", lambda: F.pad(X, 1)),
    ("pad must be", lambda: F.pad(X, (1,) * 6)),
    ("pad must not remove more", lambda: F.pad(X, (-2, -2))),
    ("pad must not remove more", lambda: F.pad(X, (-4, 9))),
    ("pad must be at most 2 in mode reflect", lambda: F.pad(X, (3, 0), "reflect")),
    ("pad must be at most 3 in mode circular", lambda: F.pad(X, (0, 4), "circular")),
    ("pad must be at most 0 in mode replicate", lambda: F.pad(X[:, :0], (0, 1), "replicate")),
    ("pad must be at most 0 in mode reflect", lambda: F.pad(X[:, :0], (1, 0), "reflect")),
    ("pad must", lambda: F.pad(X, (2**62, 2**62))),
    ("pad must", lambda: F.pad(X, (2**64, 0))),
    ("mode must be one of constant, reflect, replicate, circular; got 'edge'", lambda: F.pad(X, (1, 1), "edge")),
    ("value must not be given in mode reflect", lambda: F.pad(X, (1, 1), "reflect", 1.0)),
    ("input must have shape", lambda: F.unfold(X, 2)),
    ("must fit into", lambda: F.unfold(IMAGE, 6)),
    ("must fit into", lambda: F.unfold(IMAGE, 2**62, dilation=2**62)),
    ("kernel_size must be at least 1", lambda: F.unfold(IMAGE, 0)),
    ("stride must be at least 1", lambda: F.unfold(IMAGE, 2, stride=0)),
    ("dilation must be at least 1", lambda: F.unfold(IMAGE, 2, dilation=(1, -1))),
    ("padding must be at least 0", lambda: F.unfold(IMAGE, 2, padding=-1)),
    ("kernel_size must be an int or 2 ints", lambda: F.unfold(IMAGE, (2, 2, 2))),
    ("kernel_size must be an int or 2 ints", lambda: F.unfold(IMAGE, [])),
    ("must be at least 1 and fit 64 bits", lambda: F.unfold(IMAGE, 2**63)),
    ("input must have a multiple of 4 rows and 2 columns", lambda: F.fold(np.ones((4, 3)), (2, 3), 2)),
    ("input must have a multiple of 4 rows", lambda: F.fold(np.ones((6, 2)), (2, 3), 2)),
    ("input must have shape", lambda: F.fold(IMAGE, (2, 3), 2)),
    ("input1 and input2 must agree", lambda: F.bilinear(X, X[:2], np.ones((1, 3, 3)))),
    ("weight must have shape", lambda: F.bilinear(X, X, np.ones((1, 3, 4)))),
    ("bias must have shape", lambda: F.bilinear(X, X, np.ones((1, 3, 3)), np.ones(2))),
    ("min_val must not be above", lambda: F.hardtanh(X, 1.0, 0.5)),
    ("input must have 3 or 4 dimensions", lambda: F.dropout2d(X)),
]


@pytest.mark.parametrize(("message", "call"), CALLS, ids=[str(i) for i in range(len(CALLS))])
def test_value_errors(message, call):
    with pytest.raises(ValueError, match=message):
        call()


KINDS = [
    ("kernel_size must be", lambda: F.unfold(IMAGE, 2.0)),
    ("kernel_size must be", lambda: F.unfold(IMAGE, True)),
    ("kernel_size must be", lambda: F.unfold(IMAGE, None)),
    ("kernel_size must be", lambda: F.unfold(IMAGE, "22")),
    ("stride must be", lambda: F.unfold(IMAGE, 2, stride=np.array([1.0, 2.0]))),
    ("pad must be", lambda: F.pad(X, (1.0, 1.0))),
    ("pad must be", lambda: F.pad(X, (True, False))),
    ("dim must be an int", lambda: F.softmax(X, 1.0)),
    ("dtype must be", lambda: F.softmax(X, 1, dtype=int)),
    ("target must hold integers", lambda: F.nll_loss(X, X)),
    ("target must have the dtype of input", lambda: F.cross_entropy(X, X.astype(np.float32))),
    ("target must have the dtype of input", lambda: F.cross_entropy(X, LABELS.astype(bool))),
    ("weight must have the dtype of input", lambda: F.cross_entropy(X, LABELS, np.ones(3, np.float32))),
    ("weight must have the dtype of input", lambda: F.mse_loss(X, X, weight=X.astype(int))),
    ("input2 must have the dtype of input1", lambda: F.bilinear(X, X.astype(np.float32), np.ones((1, 3, 3)))),
    ("target must be an array", lambda: F.cross_entropy(X, [0, 1, 2, 0])),
    ("got an unexpected keyword argument", lambda: F.mse_loss(X, X, size_average=True)),
    ("got an unexpected keyword argument", lambda: F.mse_loss.vjp(X, X, reduce=True)),
    ("takes 7 positional arguments, got 8", lambda: F.conv2d.vjp(IMAGE, IMAGE, None, 1, 0, 1, 1, 2)),
    ("takes 2 positional arguments, got 3", lambda: F.mse_loss.vjp(X, X, "mean")),
    ("multiple values for argument 'target'", lambda: F.mse_loss.vjp(X, X, target=X)),
    ("missing a required argument: 'target'", lambda: F.mse_loss.vjp(X)),
]


@pytest.mark.parametrize(("message", "call"), KINDS, ids=[str(i) for i in range(len(KINDS))])
def test_type_errors(message, call):
    with pytest.raises(TypeError, match=message):
        call()


def test_numpy_integers_are_integers():
    assert integers(np.int32(3), 2, "stride", 1) == (3, 3)
    assert integers(np.array([1, 2]), 2, "stride", 1) == (1, 2)
    assert integers([np.int64(1), 2], 2, "stride", 1) == (1, 2)


def test_empty_arrays():
    """No elements give no elements, and gradients of the same shape."""
    for function, x in [
        (F.sigmoid, X[:0]),
        (lambda x: F.softmax(x, 1), X[:0]),
        (lambda x: F.log_softmax(x, 1), X[:, :0]),
        (F.softplus, X[:0]),
        (F.dropout, X[:0]),
    ]:
        assert function(x).shape == x.shape
    assert F.pad(X[:0], (1, 1)).shape == (0, 5)
    assert F.pad(IMAGE[:0], (1, 1), "reflect").shape == (0, 3, 5, 6)
    assert F.unfold(IMAGE[:0], 2).shape == (0, 12, 12)
    y, pullback = F.unfold.vjp(IMAGE[:0], 2)
    assert pullback(y)[0].shape == (0, 3, 5, 4)
    assert F.bilinear(X[:0], X[:0], np.ones((2, 3, 3))).shape == (0, 2)
    assert F.cross_entropy(X[:0], LABELS[:0], reduction="sum") == 0
    assert np.isnan(F.cross_entropy(X[:0], LABELS[:0]))


@pytest.mark.parametrize(
    "function", [*ELEMENTWISE[:3], ELEMENTWISE[4], ELEMENTWISE[5], lambda x: F.pad(x, (1, 1), "circular")]
)
def test_strides_and_read_only_inputs(function):
    x = np.random.default_rng(0).standard_normal((4, 6))
    for view in (x[::-1, ::2], x.T, np.broadcast_to(x[0], (3, 6)), np.lib.stride_tricks.as_strided(x, (3, 3), (8, 8))):
        before = view.copy()
        view.flags.writeable = False
        np.testing.assert_array_equal(function(view), function(before))
        np.testing.assert_array_equal(view, before)
