"""torch's own sample arguments for its functions, Tensor methods and modules: values, gradients and refusals."""

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import from_torch

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which torch's samples import

from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402
from torch.testing._internal.common_modules import module_db  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.int32: np.int32,
    torch.int64: np.int64,
}
TOLERANCE = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-9, np.dtype(ml_dtypes.bfloat16): 3e-2}

# Of these, which draw, only shapes and dtypes can be compared.
RANDOM = {"alpha_dropout", "dropout", "dropout2d", "dropout3d", "feature_alpha_dropout", "rrelu"}
RANDOM |= {"fractional_max_pool2d", "fractional_max_pool3d", "scaled_dot_product_attention"}

# torch computes these in the 16-bit type itself, coordinates, logarithms and sums; hardsigmoid's slope in float32.
COARSE_IN_TORCH = {(name, torch.bfloat16) for name in ("grid_sample", "hinge_embedding_loss", "poisson_nll_loss")}
COARSE_IN_TORCH |= {("normalize", torch.bfloat16), ("hardsigmoid", torch.float64)}

# torch's gradient of ctc_loss is that of the logits, in place of that of the log probabilities which it takes; that of
# roots is NaN also where no window reads.
OTHER_GRADIENT = {"ctc_loss", "CTCLoss", "LPPool1d", "LPPool2d", "LPPool3d"}


def refused_by_design(name, arguments, options):
    """Calls that torch takes and fastconv does not."""
    if isinstance(options.get("eps"), float) and options["eps"] < 0:
        return True  # roots of negative variances
    if name == "avg_pool2d" and () in arguments:
        return True  # an empty stride
    if name == "batch_norm" and arguments[0].ndim < 2:
        return True  # no channels
    # A distance that takes torch's tensors.
    return name == "triplet_margin_with_distance_loss" and options.get("distance_function") is not None


def taken_beyond_torch(name, options):
    """Calls that torch refuses and fastconv takes."""
    return name.startswith("conv") and options.get("padding") == "same"  # with strides, as ONNX defines it


def converted(value, pairs=None):
    """torch's arguments as fastconv's; floating tensors become Tensors where `pairs` is a list to note both in."""
    if isinstance(value, torch.Tensor):
        array = from_torch(value)
        if pairs is None or not value.is_floating_point():
            return array
        pairs.append((value, fc.tensor(array, requires_grad=value.requires_grad)))
        return pairs[-1][1]
    if isinstance(value, torch.dtype):
        return KINDS[value]
    if isinstance(value, list | tuple):
        return type(value)(converted(item, pairs) for item in value)
    if isinstance(value, dict):
        return {key: converted(item, pairs) for key, item in value.items()}
    return value


def leaves(result):
    """All results in nested tuples, in their order."""
    return [x for item in result for x in leaves(item)] if isinstance(result, tuple | list) else [result]


def assert_close(ours, theirs, values=True):
    ours = np.asarray(ours.data if isinstance(ours, fc.Tensor) else ours)
    theirs = from_torch(theirs) if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    if values:
        a, b, tolerance = ours.astype(np.float64), theirs.astype(np.float64), TOLERANCE.get(ours.dtype, 0)
        np.testing.assert_allclose(a, b, tolerance, tolerance * np.abs(b[np.isfinite(b)]).max(initial=1))


def assert_same(ours, theirs, pairs, values=True, gradients=True):
    """Results, and the gradients of (torch's, our) `pairs` of leaves from a random gradient of the first result."""
    ours, theirs = leaves(ours), [y for y in leaves(theirs) if y is not None]
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert_close(a, b, values)
    wanted = [(a, b) for a, b in pairs if a.requires_grad]
    # torch sums the gradients of a tensor that is given twice.
    gradients = gradients and len({id(a) for a, _ in wanted}) == len(wanted)
    if not (wanted and gradients and values and isinstance(theirs[0], torch.Tensor) and theirs[0].requires_grad):
        return
    dy = torch.randn_like(theirs[0])
    expected = torch.autograd.grad(theirs[0], [a for a, _ in wanted], dy, allow_unused=True)
    ours[0].backward(from_torch(dy))
    for (_, leaf), gradient in zip(wanted, expected):
        if gradient is None or leaf.grad is None:
            assert gradient is None or not gradient.any()
        else:
            assert_close(leaf.grad, gradient)


def described(arguments, options):
    def word(x):
        return f"{tuple(x.shape)}" if isinstance(x, torch.Tensor) else repr(x)

    return ", ".join([*map(word, arguments), *(f"{name}={word(x)}" for name, x in options.items())])


def functional(op):
    """The name in nn.functional of one of torch's entries, where fastconv has it."""
    name = op.name.removeprefix("nn.functional.")
    own = name != op.name or name in ("softmax", "log_softmax", "sigmoid", "tanh")
    return name if own and hasattr(F, name) and "complex" not in op.variant_test_name else None


FUNCTIONS = [op for op in op_db if functional(op)]
METHODS = [op for op in op_db if op.method_variant is not None and hasattr(fc.Tensor, op.name)]
MODULES = [info for info in module_db if hasattr(nn, info.name.removeprefix("nn."))]


def full_name(op):
    return op.full_name


def samples(op, dtype):
    torch.manual_seed(0)
    for sample in op.sample_inputs("cpu", dtype, requires_grad=op.supports_autograd):
        yield (sample.input, *sample.args), sample.kwargs


def test_most_of_torch_is_there():
    assert len(FUNCTIONS) > 110 and len(METHODS) > 150 and len(MODULES) > 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", FUNCTIONS, ids=full_name)
def test_function(op, dtype):
    """With arrays, and with Tensors and their gradients."""
    name = functional(op)
    if dtype not in op.supported_dtypes("cpu"):
        pytest.skip("torch has no samples of this type")
    function, exact = getattr(F, name), (name, dtype) not in COARSE_IN_TORCH
    for arguments, options in samples(op, dtype):
        if refused_by_design(name, arguments, options):
            continue
        if name == "embedding":  # torch's samples name the weight first
            arguments = arguments[1::-1]
        drawn = name in RANDOM and options.get("training", True) and options.get("dropout_p", 1) > 0
        theirs = getattr(torch.nn.functional, name, getattr(torch, name, None))(*arguments, **options)
        try:
            assert_same(function(*converted(arguments), **converted(options)), theirs, [], exact and not drawn)
            pairs = []
            ours = function(*converted(arguments, pairs), **converted(options, pairs))
            assert_same(ours, theirs, pairs, exact and not drawn, name not in OTHER_GRADIENT)
        except Exception as error:
            raise AssertionError(f"{name}({described(arguments, options)}): {error}") from error


@pytest.mark.parametrize("op", [op for op in FUNCTIONS if op.error_inputs_func], ids=full_name)
def test_function_refuses_what_torch_refuses(op):
    name = functional(op)
    for wrong in op.error_inputs("cpu"):
        sample = wrong.sample_input
        arguments, options = (sample.input, *sample.args), sample.kwargs
        if taken_beyond_torch(name, options) or not isinstance(sample.input, torch.Tensor):
            continue
        try:
            op.op(*arguments, **options)
        except Exception:
            with pytest.raises((ValueError, TypeError, NotImplementedError)):
                getattr(F, name)(*converted(arguments), **converted(options))
                pytest.fail(f"{name}({described(arguments, options)}) is taken")


# Options of torch's memory formats and places, which mean nothing here; nuclear norms; `gather` of nothing in another
# number of dimensions; scattering to a number.
LEFT_OUT = {"memory_format", "device", "output_size"}


@pytest.mark.parametrize("op", METHODS, ids=full_name)
def test_method(op):
    if torch.float32 not in op.supported_dtypes("cpu"):
        pytest.skip("torch has no samples of this type")
    for arguments, options in samples(op, torch.float32):
        first = arguments[0]
        if not isinstance(first, torch.Tensor) or LEFT_OUT & options.keys() or "nuc" in arguments:
            continue
        if op.name in ("gather", "scatter", "scatter_add") and (first.ndim == 0 or arguments[2].numel() == 0):
            continue
        try:
            theirs = op.method_variant(*arguments, **options)
        except Exception:
            continue
        pairs = []
        try:
            ours = getattr(converted(first, pairs), op.name)(
                *converted(arguments[1:], pairs), **converted(options, pairs)
            )
            assert_same(ours, theirs, pairs)
        except Exception as error:
            raise AssertionError(f"Tensor.{op.name}({described(arguments, options)}): {error}") from error


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("info", MODULES, ids=lambda info: info.name)
def test_module(info, training):
    """The same options, state and input give the same output, gradients and state."""
    name = info.name.removeprefix("nn.")
    torch.manual_seed(0)
    for sample in info.module_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=True, training=training
    ):
        made, called = sample.constructor_input, sample.forward_input
        if called is None or name == "Embedding":  # whose input are integers alone
            continue
        drawn = "Fractional" in name and made.kwargs.get("_random_samples") is None
        options = {key: value for key, value in made.kwargs.items() if key != "device"}
        reference = info.module_cls(*made.args, **made.kwargs).to(torch.float32)
        ours = getattr(nn, name)(*converted(made.args), **converted(options)).to(np.float32)
        try:
            reference.train(training)
            ours.train(training)
            if "Lazy" in name:
                reference(*called.args, **called.kwargs)
            ours.load_state_dict({key: from_torch(value) for key, value in reference.state_dict().items()})
            theirs, pairs = reference(*called.args, **called.kwargs), []
            result = ours(*converted(called.args, pairs), **converted(called.kwargs, pairs))
            pairs += zip(reference.parameters(), ours.parameters())
            assert_same(result, theirs, pairs, not drawn, name not in OTHER_GRADIENT)
            state = ours.state_dict()
            assert list(state) == list(reference.state_dict())
            for key, value in reference.state_dict().items():
                assert_close(state[key], value)
        except Exception as error:
            words = described(made.args, made.kwargs), described(called.args, called.kwargs)
            raise AssertionError(f"{name}({words[0]})({words[1]}): {error}") from error
