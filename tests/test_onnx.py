"""Networks from ONNX files: the ONNX project's own test cases and networks, training, and files that are none."""

import copy
import functools
import io
import pickle
import re
import sys
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
from fastconv.devices import to_host
from fastconv.onnx import OnnxNetwork, operator_names

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"

# What is refused, and why: the pattern of the cases' names and the error.
REFUSED = {
    r"cast(like)?_.*_to_(FLOAT8|FLOAT4|U?INT4|U?INT2)": (NotImplementedError, "are not computed"),
    r"col2im_5d": (NotImplementedError, "two dimensions"),
    r"training_dropout": (NotImplementedError, "training_mode"),
    r"lstm_with_peepholes": (NotImplementedError, "peephole"),
    r"maxpool_2d_uint8": (TypeError, "uint8"),
    r"scatter_elements_with_reduction_(mul|max|min)": (NotImplementedError, "reduction"),
}
# Sequences and optional values are no arrays.
NO_ARRAYS = ("test_identity_sequence", "test_identity_opt")
WITHOUT_CASE = {"GlobalLpPool"}


@functools.cache
def node_cases():
    """ONNX's cases of single nodes by operator, those of several nodes under None."""
    from onnx.backend.test.loader import load_model_tests

    found = defaultdict(list)
    known = set(operator_names())
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # its computations of infinities
        cases = load_model_tests(kind="node")
    for case in cases:
        nodes = case.model.graph.node
        if not {node.op_type for node in nodes} <= known or any(node.domain not in ("", "ai.onnx") for node in nodes):
            continue
        if case.name not in NO_ARRAYS:
            found[nodes[0].op_type if len(nodes) == 1 else None].append(case)
    return found


def array(value):
    return numpy_helper.to_array(value) if hasattr(value, "SerializeToString") else np.asarray(value)


def tuple_of(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def agree(outputs, expected, name):
    """Types and shapes as ONNX has them, values within its tolerance for each type."""
    assert len(outputs) == len(expected), name
    for y, wanted in zip(outputs, map(np.asarray, expected)):
        assert type(y) is np.ndarray and (y.dtype, y.shape) == (wanted.dtype, wanted.shape), name
        if wanted.dtype.kind not in "fV":
            np.testing.assert_array_equal(y, wanted, err_msg=name)
            continue
        rtol, atol = (1e-3, 1e-7) if wanted.dtype.itemsize > 2 else (1e-2, 1e-3)
        np.testing.assert_allclose(y.astype(np.float64), wanted.astype(np.float64), rtol, atol, err_msg=name)


@np.errstate(all="ignore")
def hold(case):
    """Compute one of ONNX's cases, or see it refused."""
    for pattern, (error, text) in REFUSED.items():
        if re.match(f"test_{pattern}", case.name):
            with pytest.raises(error, match=text):
                fc.onnx.load(case.model)(*map(array, case.data_sets[0][0]))
            return
    net = fc.onnx.load(case.model)
    for inputs, outputs in case.data_sets:
        agree(tuple_of(net(*map(array, inputs))), [array(y) for y in outputs], case.name)


@pytest.mark.parametrize("name", operator_names())
def test_an_operator_computes_what_onnx_says(name):
    cases = node_cases()[name]
    assert bool(cases) != (name in WITHOUT_CASE)
    for case in cases:
        hold(case)


@pytest.mark.parametrize("name", operator_names())
@np.errstate(all="ignore")
def test_an_operator_computes_the_same_on_a_gpu(cupy, name):
    for case in node_cases()[name]:
        inputs = [array(value) for value in case.data_sets[0][0]]
        held = all(value.dtype.isbuiltin == 1 and value.dtype.kind in "biuf" for value in inputs)  # by CuPy, too
        if held and not any(re.match(f"test_{pattern}", case.name) for pattern in REFUSED):
            outputs = tuple_of(fc.onnx.load(case.model).to("cuda")(*map(cupy.asarray, inputs)))
            agree(tuple(map(to_host, outputs)), [array(y) for y in case.data_sets[0][1]], case.name)


def test_operators_together_compute_what_onnx_says():
    cases = node_cases()[None]
    assert len(cases) > 300
    for case in cases:
        hold(case)


def tensors(folder, kind):
    paths = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    return [numpy_helper.to_array(onnx.load_tensor(path)) for path in paths]


@pytest.mark.parametrize("folder", ["pytorch-converted", "pytorch-operator"])
def test_networks_that_torch_exported_long_ago(folder):
    paths = sorted((DATA / folder).glob("*/model.onnx"))
    assert len(paths) > 30
    for path in paths:
        net = fc.onnx.load(path)
        for data in path.parent.glob("test_data_set_*"):
            with np.errstate(invalid="ignore"):  # of powers of negative numbers
                agree(tuple_of(net(*tensors(data, "input"))), tensors(data, "output"), path.parent.name)


@pytest.mark.parametrize(
    "name",
    [
        *("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50"),
        *("shufflenet", "squeezenet", "vgg19", "zfnet512"),
    ],
)
def test_the_networks_of_onnx_as_they_are_and_optimized(name):
    path = DATA / "light" / f"light_{name}.onnx"
    net = fc.onnx.load(path)
    (shape,) = net.input_shapes
    count = np.prod(shape)
    x = (np.arange(count).reshape(shape) / count).astype(np.float32)
    expected = numpy_helper.to_array(onnx.load_tensor(path.with_name(f"{path.stem}_output_0.pb")))
    agree((net(x),), [expected], name)
    fast = fc.optimize(net, shape)
    assert fast.fused or fast.folded
    agree((fast(x),), [expected], name)


@pytest.mark.parametrize(
    ("kind", "expected"), [("L1", [2, 3]), ("L2", [2, 3]), ("LogSum", [np.nan, np.log(3)]), ("Max", [-2, 3])]
)
@np.errstate(invalid="ignore")
def test_reductions_over_no_axes_see_each_element_alone(kind, expected):
    node = helper.make_node(f"Reduce{kind}", ["x", "axes"], ["y"], noop_with_empty_axes=1)
    net = fc.onnx.load(model_of([node], {"x": [2]}, {"y": [2]}, {"axes": np.zeros(0, np.int64)}, opset=18))
    np.testing.assert_allclose(net(np.float32([-2, 3])), expected, rtol=1e-6)


def test_global_power_mean():
    net = fc.onnx.load(
        model_of([helper.make_node("GlobalLpPool", ["x"], ["y"], p=3)], {"x": [1, 2, 2]}, {"y": [1, 2, 1]})
    )
    y = net(np.float32([[[1, -2], [3, 4]]]))
    np.testing.assert_allclose(y, [[[9 ** (1 / 3)], [91 ** (1 / 3)]]], rtol=1e-6)


ones = functools.partial(np.ones, dtype=np.float32)


# ---- a small network ------------------------------------------------------------------------------------------------


def model_of(nodes, inputs, outputs, initializers=(), opset=17):
    """A checked model; inputs and outputs as {name: shape}."""
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in dict(initializers).items()]
    graph = helper.make_graph(nodes, "graph", *sides, initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    onnx.checker.check_model(model)
    return model


def residual_model():
    """Convolution, normalisation, a shortcut, shape arithmetic and a classifier."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return (rng.standard_normal(shape) / 4).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="stem/conv.1", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c1", "s", "t", "m", "v"], ["n1"], name="stem/norm"),
        helper.make_node("Relu", ["n1"], ["r1"], name="stem/relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv", auto_pad="SAME_UPPER"),
        helper.make_node("Add", ["c2", "r1"], ["a"], name="add"),
        helper.make_node("MaxPool", ["a"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Dropout", ["p", "ratio"], ["d"], name="drop"),
        helper.make_node("Shape", ["d"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Concat", ["batch", "rest"], ["flat_shape"], axis=0),
        helper.make_node("Reshape", ["d", "flat_shape"], ["flat"]),
        helper.make_node("Mul", ["flat", "gain"], ["scaled"], name="gain"),
        helper.make_node("Gemm", ["scaled", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    weights = {
        "w1": draw(4, 2, 3, 3),
        "b1": draw(4),
        "s": 1 + draw(4),
        "t": draw(4),
        "m": draw(4),
        "v": np.abs(draw(4)) + 1,
        "w2": draw(4, 4, 3, 3),
        "ratio": np.array(0.5, np.float32),
        "zero": np.array([0]),
        "rest": np.array([-1]),
        "gain": 1 + draw(36),
        "w3": draw(3, 36),
        "b3": draw(3),
    }
    return model_of(nodes, {"x": ["n", 2, 5, 5]}, {"y": ["n", 3]}, weights)


def images(batch=3):
    return np.random.default_rng(1).standard_normal((batch, 2, 5, 5)).astype(np.float32)


def test_nodes_become_layers_and_weights_become_parameters():
    net = fc.onnx.load(residual_model())
    assert (net.input_names, net.output_names, net.input_shapes) == (("x",), ("y",), (("n", 2, 5, 5),))
    assert not net.training
    kinds = {name: type(child).__name__ for name, child in net.named_children()}
    assert kinds["stem_conv_1"] == "Conv2d" and kinds["pool"] == "MaxPool2d" and kinds["head"] == "Linear"
    assert kinds["add"] == "Add" and kinds["drop"] == "Dropout" and kinds["gain"] == "Operation"
    learned = {name for name, _ in net.named_parameters()}
    assert learned == {
        *("stem_conv_1.weight", "stem_conv_1.bias", "stem_norm.weight", "stem_norm.bias"),
        *("conv.weight", "gain.input1", "head.weight", "head.bias"),
    }
    assert "(gain): Mul()" in repr(net)


def test_any_batch_and_the_reference_evaluator_agree():
    from onnx.reference import ReferenceEvaluator

    model = residual_model()
    net = fc.onnx.load(model)
    for batch in (1, 3):
        x = images(batch)
        (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
        np.testing.assert_allclose(net(x), expected, rtol=1e-4, atol=1e-5)


def test_a_network_can_be_trained_further():
    net = fc.onnx.load(residual_model())
    x, labels = images(8), np.arange(8) % 3
    optimizer = fc.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(net(fc.tensor(x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2
    net.train()
    assert (net(x) != net(x)).any()  # dropout is back
    net, wide = net.eval().to(np.float64), x.astype(np.float64)
    y, pullback = net.vjp(wide)
    direction = np.random.default_rng(2).standard_normal(x.shape)
    change = (net(wide + 1e-6 * direction) - net(wide - 1e-6 * direction)).sum() / 2e-6
    np.testing.assert_allclose((pullback(np.ones_like(y)) * direction).sum(), change, rtol=1e-6)


def test_copies_states_and_optimize():
    net = fc.onnx.load(residual_model())
    x = images()
    y = net(x)
    fast = fc.optimize(net, (1, 2, 5, 5))
    assert ("stem_conv_1", "stem_norm") in fast.folded and ("conv", "add") in fast.fused
    np.testing.assert_allclose(fast(x), y, rtol=1e-5, atol=1e-6)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other(x), y)
    state = {name: value * 0 for name, value in net.state_dict().items()}
    assert net.load_state_dict(state) == ([], [])
    assert not net(x).any()
    report = fc.explain(fc.onnx.load(residual_model()), (1, 2, 5, 5))
    assert "head" in str(report)


def test_scales_of_channels_go_into_the_layer_before():
    rng = np.random.default_rng(3)
    channels = {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in CHANNELS.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Mul", ["c", "a"], ["m"], name="mul"),
        helper.make_node("Add", ["b", "m"], ["p"], name="add"),
        helper.make_node("Div", ["p", "a"], ["q"], name="div"),
        helper.make_node("Sub", ["one", "q"], ["r"], name="sub"),
        helper.make_node("Relu", ["r"], ["s"], name="relu"),
        helper.make_node("Mul", ["s", "row"], ["y"], name="rows"),
    ]
    net = fc.onnx.load(model_of(nodes, {"x": [1, 2, 5, 5]}, {"y": [1, 3, 5, 5]}, channels))
    x = images(1)
    fast = fc.optimize(net, x.shape)
    assert fast.folded == (("conv", "mul"), ("conv", "add"), ("conv", "div"), ("conv", "sub"))
    assert fast.fused == (("conv", "relu"),)
    np.testing.assert_allclose(fast(x), net(x), rtol=1e-5, atol=1e-6)


CHANNELS = {"w": (3, 2, 1, 1), "a": (3, 1, 1), "b": (1, 3, 1, 1), "one": (1,), "row": (5,)}


@pytest.mark.parametrize(
    ("kind", "inputs", "constant"),
    [
        ("Div", ["x", "k"], ones((3, 1, 1)) * np.float32([[[1]], [[0]], [[2]]])),
        ("Div", ["k", "x"], ones((3, 1, 1))),
        ("Mul", ["x", "k"], ones((3, 5, 1))),
        ("Mul", ["x", "k"], ones(5)),
        ("Add", ["x", "k"], ones((2, 3, 1, 1))),
        ("Pow", ["x", "k"], ones((3, 1, 1))),
    ],
)
def test_what_is_no_scale_of_channels(kind, inputs, constant):
    net = fc.onnx.load(
        model_of([helper.make_node(kind, inputs, ["y"])], {"x": [1, 3, 5, 5]}, {"y": ["n"]}, {"k": constant})
    )
    assert net.y.channel_affine((1, 3, 5, 5)) is None


def test_a_norm_that_stays_takes_scales_along():
    path = DATA / "light" / "light_densenet121.onnx"
    fast = fc.optimize(fc.onnx.load(path), (1, 3, 224, 224))
    left = [module.node.op_type for module in fast.modules() if hasattr(module, "node")]
    assert "Mul" not in left and "Add" not in left


def test_networks_on_a_gpu(cupy):
    net = fc.onnx.load(residual_model())
    x, labels = images(), np.arange(3)
    expected = net(x)
    net.to("cuda")
    np.testing.assert_allclose(to_host(net(cupy.asarray(x))), expected, rtol=1e-5, atol=1e-6)
    nn.functional.cross_entropy(net(fc.tensor(cupy.asarray(x))), cupy.asarray(labels)).backward()
    assert all(isinstance(p.grad, cupy.ndarray) for p in net.parameters())


def test_weights_of_two_nodes_are_two_parameters():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    net = fc.onnx.load(model_of(nodes, {"x": [2, 2]}, {"y": [2, 2]}, {"w": np.eye(2, dtype=np.float32)}))
    first, second = net.parameters()
    assert not np.shares_memory(first.data, second.data)


def test_several_inputs_outputs_and_constants():
    nodes = [
        helper.make_node("Split", ["x"], ["a", "", "b"], axis=1, num_outputs=3),
        helper.make_node("Sub", ["a", "z"], ["d"]),
        helper.make_node("Sqrt", ["four"], ["two"]),
    ]
    outputs = {"b": [2, 1], "d": [2, 1], "two": [1], "z": [2, 1]}
    model = model_of(nodes, {"x": [2, 3], "z": [2, 1]}, outputs, {"four": np.array([4], np.float32)}, opset=18)
    net = fc.onnx.load(model)
    x, z = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 1), np.float32)
    b, d, two, same = net(x, z)
    np.testing.assert_array_equal(b, [[2], [5]])
    np.testing.assert_array_equal(d, [[-1], [2]])
    assert two == 2 and same is z
    assert [name for name, _ in net.named_children()] == ["a", "d"]  # what is constant has been computed
    with pytest.raises(TypeError, match=r"takes 2 inputs \(x, z\), got 1"):
        net(x)


def test_local_functions_are_read():
    double = helper.make_function(
        "mine", "Twice", ["u"], ["v"], [helper.make_node("Add", ["u", "u"], ["v"])], [helper.make_opsetid("", 17)]
    )
    graph = model_of([helper.make_node("Identity", ["x"], ["y"])], {"x": [2]}, {"y": [2]}).graph
    graph.node[0].CopyFrom(helper.make_node("Twice", ["x"], ["y"], domain="mine"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    net = fc.onnx.load(helper.make_model(graph, functions=[double], opset_imports=opsets))
    np.testing.assert_array_equal(net(np.float32([1, 2])), [2, 4])


# ---- against torch --------------------------------------------------------------------------------------------------


def test_networks_that_torch_exports(torch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            t = torch.nn
            self.features = t.Sequential(
                *(t.Conv2d(3, 8, 3, 2, 1, bias=False), t.BatchNorm2d(8), t.Hardswish()),
                *(t.Conv2d(8, 8, 3, 1, 1, groups=8), t.GroupNorm(2, 8), t.GELU()),
                *(t.Upsample(scale_factor=2, mode="bilinear"), t.AvgPool2d(3, 2, 1, ceil_mode=True)),
                t.ConvTranspose2d(8, 4, 3, 2, 1, 1),
            )
            self.sequence = t.LSTM(4 * 18, 6, bidirectional=True, batch_first=True)
            self.head = t.Linear(12, 5)

        def forward(self, x):
            x = self.features(x).permute(0, 2, 1, 3).flatten(2)
            return torch.nn.functional.log_softmax(self.head(self.sequence(x)[0]), dim=-1)

    torch.manual_seed(0)
    net = Net().eval()
    x = torch.randn(2, 3, 16, 16)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter by tracing is deprecated
        torch.onnx.export(net, (x,), file, dynamo=False, opset_version=17)
    ours = fc.onnx.load(file.getvalue())
    x.requires_grad_()
    y = net(x)
    np.testing.assert_allclose(ours(x.detach().numpy()), y.detach().numpy(), rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    z = fc.tensor(x.detach().numpy(), requires_grad=True)
    ours(z).square().sum().backward()
    np.testing.assert_allclose(z.grad, x.grad.numpy(), rtol=1e-3, atol=1e-4)


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.onnx"):
        fc.onnx.load(tmp_path / "missing.onnx")
    whole = residual_model().SerializeToString()
    for text, content in (("no valid ONNX", b"PNG, say"), ("no valid ONNX", whole[:300]), ("no valid ONNX", b"")):
        path = tmp_path / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=text) as caught:
            fc.onnx.load(path)
        assert "broken.onnx" in str(caught.value)
        with pytest.raises(ValueError, match=text):
            fc.onnx.load(content)
    with pytest.raises(TypeError, match=r"source must be a path, bytes or an onnx\.ModelProto, got int"):
        fc.onnx.load(3)


def test_weights_in_a_file_of_their_own(tmp_path):
    model = residual_model()
    x = images()
    expected = fc.onnx.load(model)(x)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.bin")
    np.testing.assert_array_equal(fc.onnx.load(tmp_path / "net.onnx")(x), expected)
    (tmp_path / "net.bin").unlink()
    with pytest.raises((ValueError, OSError), match=r"net\.bin"):
        fc.onnx.load(tmp_path / "net.onnx")


def test_graphs_that_break_the_rules():
    model = residual_model()
    model.graph.node[3].input[0] = "nowhere"
    with pytest.raises(ValueError, match="nowhere"):
        fc.onnx.load(model)


def test_unknown_operators_are_all_named():
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], name="first"),
        helper.make_node("Det", ["x"], ["b"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    model = model_of(nodes, {"x": [2, 2]}, {"y": [2, 2]})
    with pytest.raises(NotImplementedError, match=r"Det \(first at 'b'\), NonZero \(first at 'first'\)"):
        fc.onnx.load(model)
    model.graph.node[0].CopyFrom(helper.make_node("Relu", ["x"], ["a"], domain="com.vendor"))
    model.opset_import.append(helper.make_opsetid("com.vendor", 1))
    with pytest.raises(NotImplementedError, match=r"com\.vendor\.Relu"):
        fc.onnx.load(model)
    old = model_of([helper.make_node("Concat", ["x", "x"], ["y"])], {"x": [2]}, {"y": [4]}, opset=3)
    with pytest.raises(NotImplementedError, match="Concat of opset 3 is not read: opset 4 and later are"):
        fc.onnx.load(old)


@pytest.mark.parametrize(
    ("operator", "attributes", "second", "shape", "text"),
    [
        ("Conv", {}, ones((2, 3, 3, 3)), (1, 2, 5, 5), "channels"),
        ("Conv", {}, ones((2, 2)), (1, 2), "3 to 5 dimensions"),
        ("MaxPool", {"kernel_shape": [9, 9]}, None, (1, 2, 5, 5), "does not fit"),
        ("MaxPool", {"kernel_shape": [2], "auto_pad": "SAME_LOWER"}, None, (1, 2, 5, 5), "3 dimensions"),
        ("Reshape", {}, np.array([7, 7]), (2, 5), "reshape"),
        ("Squeeze", {}, np.array([0]), (2, 5), "not of size 1"),
        ("Squeeze", {}, np.array([7]), (2, 5), r"node 'y' cannot be computed from inputs of shape \(2, 5\)"),
        ("Gather", {"axis": 1}, np.array([9]), (2, 5), "node 'y' cannot be computed"),
        ("Concat", {"axis": 4}, ones((2, 5)), (2, 5), "axis 4"),
        ("Upsample", {}, ones(2) / 9, (2, 5), "at least 1"),
        ("Pad", {"mode": "reflect"}, np.array([0, 9] * 2), (2, 0), "empty"),
    ],
)
def test_inputs_that_do_not_fit(operator, attributes, second, shape, text):
    weights = {} if second is None else {"w": second}
    node = helper.make_node(operator, ["x", *weights], ["y"], **attributes)
    opset = 9 if operator == "Upsample" else 17
    net = fc.onnx.load(model_of([node], {"x": shape}, {"y": ["free"]}, weights, opset))
    with pytest.raises(ValueError, match=text) as caught:
        net(np.ones(shape, np.float32))
    assert "'y'" in str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"fastconv\[onnx\]"):
        fc.onnx.load(b"")
    assert OnnxNetwork.__module__ == "fastconv.onnx.network"  # what has been read runs without it
