"""CuPy arrays through `fastconv.nn.functional` and Tensors, over a stand-in for CuPy and the simulator."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import test_functional
import test_functional_numpy

import fake_cupy
import fastconv as fc
import fastconv.nn.functional as F
from checks import assert_same_bits, normal
from fastconv import reference
from functional_cases import Case, first_of

CASES = [*test_functional.CASES, *test_functional_numpy.CASES]


def on_device(cupy: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: cupy.asarray(array) for name, array in arrays.items()}


def host(value: Any) -> np.ndarray:
    """The values of a CuPy array; nothing else passes."""
    assert isinstance(value, fake_cupy.ndarray)
    return value._host()


@pytest.mark.parametrize("dtype", (np.float32, ml_dtypes.bfloat16), ids=("float32", "bfloat16"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_numpy_arrays_and_nothing_waits(cupy, case: Case, dtype):
    with fc.use_backend("cuda:simt"):
        expected, pullback = case.function.vjp(**case.draw(1, dtype), **case.options)
        y = first_of(expected)
        dy = np.asarray(normal(np.random.default_rng(2), y.shape, dtype))
        gradients = pullback(dy)
    arrays, dy = on_device(cupy, case.draw(1, dtype)), cupy.asarray(dy)
    reads = fake_cupy.Reads.count
    output, pullback = case.function.vjp(**arrays, **case.options)
    on_gpu = pullback(dy)
    called = case.function(**on_device(cupy, case.draw(1, dtype)), **case.options)
    assert fake_cupy.Reads.count == reads, "the host read values of the device"
    for result in (output, called):
        for mine, numpys in zip(*(v if isinstance(v, tuple) else (v,) for v in (result, expected)), strict=True):
            assert_same_bits(host(mine), np.asarray(numpys))
    for gradient, numpys in zip(on_gpu, gradients, strict=True):
        assert_same_bits(host(gradient), np.asarray(numpys))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tensors_record(cupy, case: Case):
    arrays = on_device(cupy, case.draw(3, np.float32))
    tensors: dict[str, Any] = {
        name: fc.tensor(array, requires_grad=name in case.differentiable) for name, array in arrays.items()
    }
    result = first_of(case.function(**tensors, **case.options))
    dy = cupy.asarray(np.asarray(normal(np.random.default_rng(4), result.shape, np.float32)))
    reads = fake_cupy.Reads.count
    result.backward(dy)
    assert fake_cupy.Reads.count == reads, "the host read values of the device"
    output, pullback = case.function.vjp(**on_device(cupy, case.draw(3, np.float32)), **case.options)
    assert_same_bits(host(result.data), host(first_of(output)))
    for name, expected in zip(case.differentiable, pullback(dy), strict=True):
        assert_same_bits(host(tensors[name].grad), host(expected))


def test_dropout_masks_are_those_of_the_host(cupy):
    x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    for function in (F.dropout, F.dropout1d, F.alpha_dropout):
        for p in (0.3, 1.0):
            fc.manual_seed(5)
            expected, pullback = function.vjp(x, p)
            fc.manual_seed(5)
            y, device_pullback = function.vjp(cupy.asarray(x), p)
            assert_same_bits(host(y), expected)
            assert_same_bits(host(device_pullback(cupy.asarray(x))[0]), pullback(x)[0])
    given = cupy.asarray(x)
    assert F.dropout(given, 0.5, inplace=True) is given
    assert 0 < (host(given) == 0).sum() < x.size


@pytest.mark.parametrize("inplace", (False, True))
def test_inplace_activations(cupy, inplace):
    x = cupy.asarray(np.array([-1.0, 7.0], np.float32))
    y = F.relu6(x, inplace)
    assert host(y).tolist() == [0, 6]
    assert (y is x) == inplace


def test_devices_and_libraries_are_not_mixed(cupy):
    x, t = cupy.asarray(np.ones((2, 3))), np.zeros(2, int)
    with pytest.raises(
        ValueError, match="cross_entropy: all arrays must be on one device, got input on cuda:0, target"
    ):
        F.cross_entropy(x, t)
    with pytest.raises(ValueError, match="input on cpu, target on cuda:0"):
        F.mse_loss(np.ones((2, 3)), x)
    with pytest.raises(ValueError, match="input on cuda:0, target on cuda:1"):
        F.mse_loss(x, cupy.asarray(np.ones((2, 3)), device=1))
    with pytest.raises(ValueError, match=r"conv2d: .* weight on cpu"):
        F.conv2d(cupy.asarray(np.ones((1, 1, 3, 3))), np.ones((1, 1, 3, 3)))
    pullback = F.sigmoid.vjp(x)[1]
    with pytest.raises(ValueError, match="pullback: all arrays must be on one device, got dy on cpu"):
        pullback(np.ones((2, 3)))
    recorded = fc.tensor(x, requires_grad=True)
    for compute in (lambda: recorded + np.ones(3), lambda: np.ones(3) * recorded, lambda: recorded @ np.ones(3)):
        with pytest.raises(ValueError, match=r"on one device, got arrays on c.* and c"):
            compute()
    with pytest.raises(ValueError, match="cat: all arrays must be on one device"):
        fc.cat([recorded, np.ones((2, 3))])
    with pytest.raises(ValueError, match=r"backward: .*gradient on cpu"):
        (recorded * 2).backward(np.ones((2, 3)))


def test_chains_of_convolutions(cupy):
    """Arrays within the stages go to the device's kernels, too, and are looked at for the device they lie on."""
    rng = np.random.default_rng(0)
    x, w1, b1, w2 = (
        rng.standard_normal(s).astype(np.float32) for s in ((2, 3, 6, 5), (4, 3, 1, 1), (4,), (4, 1, 3, 3))
    )

    def stages(there):
        return [
            (there(w1), there(b1), 1, 0, 1, 1, 0.0, 6.0),
            (there(w2), None, (2, 1), 1, 1, 4, -np.inf, np.inf),
        ]

    kernels = fc.cuda.kernels()
    y = kernels.conv_chain_forward(cupy.asarray(x), stages(cupy.asarray), 2)
    assert isinstance(y, cupy.ndarray)
    expected = reference.conv_chain_forward(x, stages(np.asarray), 2)
    np.testing.assert_allclose(host(y), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="all arrays must be CuPy arrays"):
        kernels.conv_chain_forward(cupy.asarray(x), stages(np.asarray), 2)
    with pytest.raises(ValueError, match="all arrays must be on one device"):
        kernels.conv_chain_forward(cupy.asarray(x), stages(lambda a: cupy.asarray(a, device=1)), 2)


def test_methods_of_tensors(cupy):
    """The values and gradients of the host, on the device."""

    def program(a, mask, index):
        y = a.square().add(a.rsqrt(), alpha=2).div(a.log1p()).maximum(0.5) + a.prod(1, keepdim=True) + a.norm(dim=0)
        y = y + a.logsumexp(1, keepdim=True) + a.cumsum(1) + a.sort(1, descending=True)[0] + a.topk(1)[0]
        y = y.masked_fill(mask, 0.25) + a.where(mask, 1.5) + a.gather(1, index) + a.roll(1, 0) + a.flip(1)
        y = y + a.index_select(0, index[:, 0]) + a.amax(1, keepdim=True) + a.floor() + (2 * a).round() + a.sin()
        return y * a.repeat(2, 1)[:2] + a.tile(1, 2)[:, :3] + a.unbind(0)[1] + a.log2() - a.log10() + a.minimum(a)

    values = np.random.default_rng(0).uniform(0.5, 2, (2, 3))
    mask, index = values > 1, np.array([[2, 0, 0], [1, 1, 2]]) % 2
    ours, theirs = (fc.tensor(library.asarray(values), requires_grad=True) for library in (np, cupy))
    expected, y = program(ours, mask, index), program(theirs, cupy.asarray(mask), cupy.asarray(index))
    assert isinstance(y.data, cupy.ndarray)
    np.testing.assert_allclose(host(y.data), expected.data, rtol=1e-14)
    expected.sum().backward()
    y.sum().backward()
    np.testing.assert_allclose(host(theirs.grad), ours.grad, rtol=1e-13)
    with fc.no_grad():
        assert host(theirs.zero_().add_(1).data).tolist() == [[1.0] * 3] * 2


def test_a_device_of_its_own_is_the_current_one_while_it_computes(cupy, monkeypatch):
    x = cupy.asarray(np.ones((2, 3), np.float32), device=2)
    y, pullback = F.softmax.vjp(x, 1)
    assert y.device.id == 2 and fake_cupy.Device.current == 0
    assert pullback(y)[0].device.id == 2
    leaf = fc.tensor(x, requires_grad=True)
    F.tanh(leaf).backward(y)
    assert leaf.grad.device.id == 2


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (F.cross_entropy, [0, 3]),
        (F.nll_loss, [-1, 1]),
        (F.multi_margin_loss, [0, 3]),
        (F.multilabel_margin_loss, [[0, 3, -1], [1, -1, -1]]),
    ],
)
def test_wrong_classes_give_nan_where_the_check_would_wait(cupy, loss, target):
    x, t = np.ones((2, 3), np.float32), np.array(target)
    with pytest.raises(ValueError, match="target must hold classes"):
        loss(x, t)
    assert np.isnan(host(loss(cupy.asarray(x), cupy.asarray(t))))
    ok = np.clip(t, 0, 2)
    assert np.isfinite(host(loss(cupy.asarray(x), cupy.asarray(ok))))


def test_forbidden_values_give_nan_where_the_check_would_wait(cupy):
    wrong = cupy.asarray(np.array([0.5, -0.5], np.float32))
    one = cupy.asarray(np.ones(2, np.float32))
    assert np.isnan(host(F.binary_cross_entropy(wrong, one)))
    assert np.isnan(host(F.gaussian_nll_loss(one, one, wrong)))


def test_the_backend_may_change_in_between(cupy):
    leaf = fc.tensor(cupy.asarray(np.ones((1, 1, 2, 2), np.float32)), requires_grad=True)
    with fc.use_backend("reference"):
        y = F.relu(leaf).sum()
    y.backward()
    assert host(leaf.grad).tolist() == [[[[1, 1], [1, 1]]]]


class Foreign:
    """An array of another library on a GPU."""

    def __init__(self, array: Any, kind: int = 2) -> None:
        self.array, self.kind = array, kind
        self.dtype = array.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, **options: object) -> object:
        return self.array


@pytest.mark.parametrize("kind", (2, 13), ids=("cuda", "managed"))
def test_arrays_of_other_libraries_are_taken_without_a_copy(cupy, kind):
    x = cupy.asarray(np.array([[-1.0, 2.0]], np.float32))
    assert fc.tensor(Foreign(x, kind)).data is x
    y, pullback = F.relu.vjp(Foreign(x, kind))
    assert host(y).tolist() == [[0, 2]]
    assert host(pullback(Foreign(x, kind))[0]).tolist() == [[0, 2]]
    assert host(F.softmax(Foreign(x, kind), 1)).sum() == pytest.approx(1)
    with pytest.raises(NotImplementedError, match=r"x must be in the host's memory, .*asnumpy"):
        fc.interop.to_numpy(Foreign(x, 10), "x")  # a ROCm device


def test_cuda_array_interface(cupy, monkeypatch):
    x = cupy.asarray(np.array([[-1.0, 2.0]], np.float32))

    class Described:
        __cuda_array_interface__ = property(lambda self: {"version": 3})

    asarray = cupy.asarray
    with monkeypatch.context() as patch:
        patch.setattr(cupy, "asarray", lambda a, *rest: x if isinstance(a, Described) else asarray(a, *rest))
        assert host(F.relu(Described())).tolist() == [[0, 2]]
        assert fc.tensor(Described()).data is x


def test_a_library_that_refuses(cupy):
    class Refuses(Foreign):
        def __dlpack__(self, **options: object) -> object:
            raise BufferError("requires a gradient")

    with pytest.raises(ValueError, match="input could not be taken into CuPy: requires a gradient"):
        F.relu(Refuses(cupy.asarray(np.ones(2))))


def test_one_hot(cupy):
    assert host(F.one_hot(cupy.asarray(np.array([1, 0])), 2)).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("dtype", (np.float32, np.int64), ids=("float32", "int64"))
def test_layouts_of_device_arrays(cupy, dtype):
    x = cupy.asarray(np.arange(2 * 3 * 4 * 5, dtype=dtype).reshape(2, 3, 4, 5))
    reads = fake_cupy.Reads.count
    last = fc.channels_last(x)
    back = fc.channels_first(last)
    assert fake_cupy.Reads.count == reads and fc.channels_last(last) is last
    assert last.strides == tuple(x.itemsize * n for n in (60, 1, 15, 3)) and back.strides == x.strides
    for result in (last, back):
        np.testing.assert_array_equal(host(result), host(x))
