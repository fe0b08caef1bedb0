"""The tape: every operator's values and gradients are torch's; leaves, freeing, no_grad, errors."""

import threading
import weakref

import ml_dtypes
import numpy as np
import pytest

import checks
import fastconv as fc
import fastconv.nn.functional as F
from checks import from_torch, to_torch
from fastconv.tensor import Parameter


def draw(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.asarray(rng.uniform(0.5, 2, shape)) for shape in shapes]


def index(a, values):
    """Indices as `a` takes them."""
    return values if isinstance(a, fc.Tensor) else to_torch(np.array(values))


def mask(a, values):
    return np.array(values) if isinstance(a, fc.Tensor) else to_torch(np.array(values))


# Written once, run with fastconv's Tensors and with torch's: (name, shapes of the leaves, function).
PROGRAMS = [
    ("add", [(2, 3), (3,)], lambda a, b: a + b + 2),
    ("radd", [(2, 3)], lambda a: 1.5 + a),
    ("sub", [(2, 3), (2, 1)], lambda a, b: a - b - 1),
    ("rsub", [(2, 3)], lambda a: 1 - a),
    ("mul", [(2, 1, 3), (4, 1)], lambda a, b: a * b * 3),
    ("div", [(2, 3), (1, 3)], lambda a, b: a / b / 2),
    ("rdiv", [(2, 3)], lambda a: 2 / a),
    ("pow", [(2, 3)], lambda a: a**3 + a**0.5 + a**0 + a.pow(2)),
    ("pow_tensor", [(2, 3), (3,)], lambda a, b: a**b),
    ("rpow", [(2, 3)], lambda a: 2.0**a),
    ("neg", [(2, 3)], lambda a: -a),
    ("abs", [(2, 3)], lambda a: abs(a - 1) + (a - 1).abs()),
    ("matmul", [(2, 3), (3, 4)], lambda a, b: a @ b),
    ("matmul_vectors", [(3,), (3,)], lambda a, b: a @ b),
    ("matmul_row", [(3,), (2, 3, 4)], lambda a, b: a @ b),
    ("matmul_column", [(2, 5, 3), (3,)], lambda a, b: a @ b),
    ("matmul_batches", [(2, 1, 5, 3), (4, 3, 2)], lambda a, b: a @ b),
    ("exp_log_sqrt", [(2, 3)], lambda a: a.exp() + a.log() + a.sqrt()),
    ("clamp", [(2, 3)], lambda a: a.clamp(0.8, 1.4) + a.clamp(min=1.0) + a.clip(max=1.2)),
    ("sum", [(2, 3, 4)], lambda a: a.sum()),
    ("sum_dim", [(2, 3, 4)], lambda a: a.sum(1) * a.sum((0, 2), keepdim=True).sum()),
    ("mean", [(2, 3, 4)], lambda a: a.mean() + a.mean(-1, keepdim=True)),
    ("var", [(2, 3, 4)], lambda a: a.var() + a.var(1, keepdim=True) + a.var(dim=(0, 2), unbiased=False).sum()),
    ("std", [(2, 3)], lambda a: a.std(1) + a.std()),
    ("max", [(2, 3)], lambda a: a.max() + a.max(1).values + a.max(dim=0, keepdim=True)[0].sum()),
    ("min", [(2, 3)], lambda a: a.min() + a.min(-1)[0]),
    ("reshape", [(2, 6)], lambda a: a.reshape(3, 4) * a.view(3, -1) * a.reshape((3, 4))),
    ("flatten", [(2, 3, 4)], lambda a: a.flatten(1) * a.flatten().reshape(2, 12)),
    ("squeeze", [(2, 1, 3, 1)], lambda a: a.squeeze() * a.squeeze(1).squeeze(-1) * a.squeeze(0).sum()),
    ("unsqueeze", [(2, 3)], lambda a: a.unsqueeze(0) * a.unsqueeze(-1)[:, :1].reshape(2, 1)),
    ("permute", [(2, 3, 4)], lambda a: a.permute(2, 0, 1) * a.permute((2, 0, 1))),
    ("transpose", [(2, 3, 4)], lambda a: a.transpose(0, -1) * a.transpose(2, 0)),
    ("matrix_transpose", [(2, 3)], lambda a: a.T * a.t()),
    ("slices", [(4, 5)], lambda a: a[1:3, ::2] * a[None, 0, 1:4] * a[..., -1].sum()),
    ("index_array", [(4, 5)], lambda a: a[[0, 2, 0]] + a[[1, 1, 3], [0, 0, 4]].sum()),
    ("expand", [(2, 1, 3)], lambda a: a.expand(2, 4, -1) * a.expand((5, 2, 4, 3)) * a.expand_as(a.expand(-1, 4, 3))),
    ("split", [(2, 5)], lambda a: a.split(2, 1)[1] * a.split([1, 4], dim=-1)[0] + a.split(2, 1)[2]),
    ("chunk", [(5, 2)], lambda a: a.chunk(2)[1] * a.chunk(3)[0] + a.chunk(2, dim=1)[1][:2]),
    ("iterate", [(3, 2)], lambda a: sum(row * (i + 1) for i, row in enumerate(a))),
    ("functions", [(2, 3)], lambda a: a.relu() + a.sigmoid() + a.tanh() + a.softmax(1) + a.log_softmax(0)),
    ("clone", [(2, 3)], lambda a: a.clone().contiguous() * a.detach()),
    ("named", [(2, 3), (3,)], lambda a, b: a.add(b, alpha=2).sub(b, alpha=0.5).mul(a).div(b).neg() + a.add(b).sub(1)),
    ("products", [(2, 3), (3, 4)], lambda a, b: a.mm(b) + a.matmul(b) + a[0].dot(b[:, 0])),
    ("bmm", [(2, 3, 4), (2, 4, 5)], lambda a, b: a.bmm(b)),
    ("elements", [(2, 3)], lambda a: a.square() + a.reciprocal() + a.rsqrt() + a.log1p() + a.log2() + a.log10()),
    ("periodic", [(2, 3)], lambda a: a.sin() * a.cos()),
    (
        "steps",
        [(2, 3)],
        lambda a: a + (a - 1).sign() + (3 * a).round() + a.floor() + a.ceil() + a.div(2, rounding_mode="floor"),
    ),
    ("larger", [(2, 3), (3,)], lambda a, b: a.maximum(b) + a.minimum(b.roll(1)) * 2 + a.maximum(a)),
    ("prod", [(2, 3)], lambda a: a.prod() + a.prod(1) + a.prod(0, keepdim=True).sum() + (a - a[0, 0]).prod(1)),
    (
        "norm",
        [(2, 3)],
        lambda a: a.norm() + a.norm(1, 1) + a.norm(3.0, dim=0, keepdim=True).sum() + (a - 1).norm(float("inf")),
    ),
    ("norm_dims", [(2, 3, 4)], lambda a: (a - 1).norm(dim=(1, 2)) + (a - 1).norm("fro", (0, 2)).sum() + (a * 0).norm()),
    ("amax", [(2, 3, 4)], lambda a: a.amax(1) + a.amin((0, 1), keepdim=True)[0] + a.amax()),
    ("logsumexp", [(2, 3, 4)], lambda a: a.logsumexp(1) * (a * 900).logsumexp((0, 2), keepdim=True).sum()),
    ("cumsum", [(2, 3)], lambda a: a.cumsum(1) * a.cumsum(-2)),
    (
        "sort",
        [(3, 4)],
        lambda a: a.sort(0)[0] * a.sort(descending=True).values + a.topk(2, 0)[0].sum() + a.topk(1, largest=False)[0],
    ),
    ("gather", [(3, 4)], lambda a: a.gather(1, index(a, [[0, 0], [3, 1]])) * a.gather(0, index(a, [[2, 1]]))),
    (
        "index_select",
        [(3, 4)],
        lambda a: a.index_select(1, index(a, [0, 0, 2])) * a.index_select(-2, index(a, [1]))[:, :3],
    ),
    ("masked_fill", [(2, 3)], lambda a: a.masked_fill(mask(a, [True, False, True]), -4.0) * a),
    ("where", [(2, 3), (3,)], lambda a, b: a.where(a > 1, b) + a.where(a < 1.5, 0.25)),
    (
        "repeat",
        [(2, 3)],
        lambda a: a.repeat(2, 1).sum() + a.repeat(3, 2, 2) * a.tile(2).repeat(2, 1) + a.tile((1, 1, 2)).sum(),
    ),
    ("flip_roll", [(2, 3)], lambda a: a.flip(0) * a.flip((0, 1)) * a.roll(1) * a.roll((1, -2), (0, 1))),
    (
        "unbind",
        [(3, 2)],
        lambda a: a.unbind()[2] * a.unbind(1)[0][:2] + a.t().view_as(a.reshape(2, 3)).reshape_as(a)[0],
    ),
    ("types", [(2, 3)], lambda a: a.float().double() * a.double()),
    ("reused", [(2, 3)], lambda a: (a * a + a) * (a * a)),
]


@pytest.mark.parametrize(("name", "shapes", "program"), PROGRAMS, ids=[p[0] for p in PROGRAMS])
def test_program_matches_torch(name, shapes, program, torch):
    arrays = draw(*shapes)
    ours = [fc.tensor(a, requires_grad=True) for a in arrays]
    theirs = [to_torch(a).requires_grad_() for a in arrays]
    with fc.use_backend("reference"):
        y, expected = program(*ours), program(*theirs)
        dy = draw(y.shape)[0]
        y.backward(dy)
    np.testing.assert_allclose(y.data, from_torch(expected), rtol=1e-13)
    expected.backward(to_torch(dy))
    for a, b in zip(ours, theirs):
        assert a.grad.shape == a.shape and a.grad.dtype == a.dtype and a.grad.flags.writeable
        np.testing.assert_allclose(a.grad, from_torch(b.grad), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("join", ["cat", "stack"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_joining(join, dim, torch):
    arrays = draw((2, 3), (2, 3), (2, 3))
    ours = [fc.tensor(a, requires_grad=i != 1) for i, a in enumerate(arrays)]
    theirs = [to_torch(a).requires_grad_(i != 1) for i, a in enumerate(arrays)]
    y = getattr(fc, join)([ours[0], arrays[1], ours[2]], dim)
    expected = getattr(torch, join)(theirs, dim)
    np.testing.assert_array_equal(y.data, from_torch(expected))
    dy = draw(y.shape)[0]
    y.backward(dy)
    expected.backward(to_torch(dy))
    for i in (0, 2):
        np.testing.assert_array_equal(ours[i].grad, from_torch(theirs[i].grad))
    plain = getattr(fc, join)(arrays, dim)
    assert type(plain) is np.ndarray
    np.testing.assert_array_equal(plain, y.data)


def test_flatten_arrays_and_tensors():
    x = np.zeros((2, 3, 4))
    assert type(fc.flatten(x, 1)) is np.ndarray and fc.flatten(x, 1).shape == (2, 12)
    assert isinstance(fc.flatten(fc.tensor(x), 0, 1), fc.Tensor) and fc.flatten(fc.tensor(x), 0, 1).shape == (6, 4)
    with pytest.raises(ValueError, match="start_dim"):
        fc.flatten(x, 2, 1)


def test_array_operators_record():
    """NumPy leaves `array op tensor` to the Tensor."""
    a, (x, m) = np.full(3, 2.0), draw((3,), (3, 3))
    for make, slope in [
        (lambda t: a + t, np.ones(3)),
        (lambda t: a - t, -np.ones(3)),
        (lambda t: a * t, a),
        (lambda t: a / t, -a / x**2),
        (lambda t: a**t, a**x * np.log(a)),
        (lambda t: m @ t, m.sum(0)),
    ]:
        t = fc.tensor(x, requires_grad=True)
        y = make(t)
        assert isinstance(y, fc.Tensor)
        y.sum().backward()
        np.testing.assert_allclose(t.grad, slope)
    with pytest.raises(TypeError):
        np.exp(fc.tensor(x))  # would leave the tape silently


def test_numbers_keep_the_dtype():
    t = fc.tensor(np.ones(2, np.float32))
    for y in (t * 2.5, 2.5 * t, t / np.float64(3), t + np.float64(1), t**2, t.mean(), t.var()):
        assert y.dtype == np.float32
    half = fc.tensor(np.ones(2, ml_dtypes.bfloat16))
    for y in (half + 1.0, 1.5 * half, half / np.float32(3), half - 1, half**2, half.maximum(2.0), half.pow(0.5)):
        assert y.dtype == ml_dtypes.bfloat16
    assert fc.tensor([1.0, 2.0]).dtype == np.float32
    assert fc.tensor([1, 2]).dtype == np.int64
    assert fc.tensor(np.ones(2)).dtype == np.float64
    assert fc.tensor(np.ones(2), dtype=np.float16).dtype == np.float16


def test_sixteen_bit_sums_are_accumulated_in_float32():
    ones = np.ones(4096, ml_dtypes.bfloat16)
    t = fc.tensor(ones, requires_grad=True)
    assert float(t.sum()) == 4096 and t.sum().dtype == ml_dtypes.bfloat16
    (fc.tensor(ones) * t[:1]).sum().backward()
    assert float(t.grad[0]) == 4096


@pytest.mark.parametrize("name", ["mean", "nanmean", "var", "std"])
@pytest.mark.parametrize("shift", [6.0, 300.0])  # whose sum, whose square float16 does not reach
def test_moments_of_sixteen_bit_values_do_not_overflow(name, shift, torch):
    values = (shift + np.random.default_rng(0).integers(-2, 3, (2, 120, 120))).astype(np.float16)
    # In float64: torch's own float16 nanmean is inf.
    x, t = fc.tensor(values, requires_grad=True), torch.tensor(values, dtype=torch.float64, requires_grad=True)
    dim = () if name == "nanmean" else ((1, 2),)
    y, expected = getattr(x, name)(*dim), getattr(t, name)(*dim)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.data, from_torch(expected.detach()), rtol=1e-3)
    y.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(x.grad, from_torch(t.grad), rtol=2e-3, atol=3e-7)


@np.errstate(all="ignore")
def test_powers_of_zero_have_torchs_gradients(torch):
    base, exponent = np.array([0.0, 2.0, 0.0, 0.0, -1.0]), np.array([2.0, 3.0, 0.0, -1.0, 2.0])
    ours = [fc.tensor(a, requires_grad=True) for a in (base, exponent)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (base, exponent)]
    for a, n in (ours, theirs):
        (a**n + 0.0 ** (n + 1)).sum().backward()
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.grad, b.grad.numpy())


def test_the_deviation_of_equal_values_has_no_gradient(torch):
    values = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 4.0]])
    x, t = fc.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    for a in (x, t):
        a.std(1).sum().backward()
    np.testing.assert_allclose(x.grad, t.grad.numpy())


def test_axis_is_numpy_dim_is_torch():
    x = np.array([[1.0, 5.0, 2.0], [7.0, 3.0, 4.0]])
    t = fc.tensor(x, requires_grad=True)
    np.testing.assert_array_equal(t.sum(axis=1, keepdims=True).data, x.sum(1, keepdims=True))
    np.testing.assert_array_equal(t.max(axis=(0, 1)).data, 7)
    np.testing.assert_array_equal(t.max(1).indices, [1, 0])
    np.testing.assert_array_equal(t.argmax(1), [1, 0])
    with pytest.raises(ValueError, match="dim and axis"):
        t.sum(0, axis=1)
    with pytest.raises(ValueError, match="dim must be"):
        t.sum(2)


def test_extremum_ties_and_nan():
    t = fc.tensor(np.array([2.0, 2.0, 1.0, 2.0]), requires_grad=True)
    t.max().backward()
    np.testing.assert_allclose(t.grad, [1 / 3, 1 / 3, 0, 1 / 3])
    t = fc.tensor(np.array([2.0, 2.0, 1.0]), requires_grad=True)
    t.max(0).values.backward()
    np.testing.assert_array_equal(t.grad, [1, 0, 0])
    t = fc.tensor(np.array([2.0, np.nan]), requires_grad=True)
    t.max().backward()
    np.testing.assert_array_equal(t.grad, [0, 1])


def test_comparisons_give_arrays():
    t = fc.tensor(np.array([1.0, 2.0]))
    for result, expected in [
        (t == 1, [True, False]),
        (t != t, [False, False]),
        (t < 2, [True, False]),
        (t <= fc.tensor(np.array([1.0, 1.0])), [True, False]),
        (t > 1, [False, True]),
        (t >= np.array([2.0, 2.0]), [False, True]),
    ]:
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected)
    assert len({t, t.detach()}) == 2  # hashed by identity


def test_gradients_accumulate_until_none():
    w = Parameter(np.ones(2))
    for _ in range(2):
        (w * 3).sum().backward()
    np.testing.assert_array_equal(w.grad, [6, 6])
    w.grad = None
    (w * 3).sum().backward()
    np.testing.assert_array_equal(w.grad, [3, 3])


def test_gradients_share_no_memory():
    a, b = Parameter(np.ones(3)), Parameter(np.ones(3))
    dy = np.ones(3)
    (a + b).backward(dy)
    a.grad += 1
    np.testing.assert_array_equal(b.grad, 1)
    np.testing.assert_array_equal(dy, 1)


def test_second_backward_is_an_error_and_writes_nothing():
    a, b = Parameter(np.ones(3)), Parameter(np.ones(3))
    shared = a * b
    shared.sum().backward()
    with pytest.raises(ValueError, match="freed the record"):
        (shared * b).sum().backward()
    np.testing.assert_array_equal(b.grad, 1)
    y = (a * b).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(a.grad, 3)


def test_backward_frees_what_was_recorded():
    x = fc.tensor(np.ones(3), requires_grad=True)
    y = (x * 2).exp()
    total = y.sum()
    total.backward()
    assert total._node.pullback is None and y._node.parents == ()


def test_a_record_keeps_no_value_that_no_gradient_needs():
    x = fc.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    between = x + 1
    flat = between.reshape(3, 2)
    alive = weakref.ref(between.data)
    total = F.relu(flat).sum()
    del between, flat
    assert alive() is None
    total.backward()
    np.testing.assert_array_equal(x.grad, 1)


def test_sums_of_gradients_write_to_no_array_that_something_else_refers_to():
    x = fc.tensor(np.ones(3), requires_grad=True)
    seen = []

    def noting(t):
        return t._op(t.data * 1, (t, lambda dy: seen.append((dy, dy.copy())) or dy))

    y = x * 1
    a, b, c = noting(y), noting(y), noting(y)
    noting(a + b + c + y + y).backward(np.ones(3))
    np.testing.assert_array_equal(x.grad, 5)
    assert len(seen) == 4 and all((now == then).all() for now, then in seen)


def test_backward_errors():
    x = fc.tensor(np.ones((2, 2)), requires_grad=True)
    with pytest.raises(ValueError, match="no scalar"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(4,\)"):
        (x * 2).backward(np.ones(4))
    with pytest.raises(ValueError, match="nothing that it was computed from"):
        fc.tensor(np.ones(())).backward()
    assert x.grad is None
    with pytest.raises(TypeError, match="floating-point"):
        fc.tensor([1, 2], requires_grad=True)
    with pytest.raises(TypeError, match="array of numbers"):
        fc.tensor(["a"])
    with pytest.raises(ValueError, match="only under fastconv"):
        x += 1


def test_parts_that_do_not_fit():
    t = fc.tensor(np.ones((4, 2)))
    assert [part.shape for part in t.chunk(3)] == [(2, 2), (2, 2)]
    for call in (lambda: t.split(0), lambda: t.split([1, 2]), lambda: t.split([5, -1]), lambda: t.chunk(0)):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError):
        t.expand(3, 2)


def test_in_place_operators():
    w = Parameter(np.array([1.0, 2.0]))
    data = w.data
    with fc.no_grad():
        w -= 0.5 * np.ones(2)
        w += 1
        w *= 2
        w /= 4
    assert w.data is data and isinstance(w, Parameter) and w.requires_grad
    np.testing.assert_array_equal(data, [0.75, 1.25])
    y = w * 2
    before = y.data
    y += 1  # recorded: a new Tensor
    assert y.data is not before
    y.sum().backward()
    np.testing.assert_array_equal(w.grad, 2)


def test_no_grad_and_enable_grad():
    w = Parameter(np.ones(2))

    @fc.no_grad()
    def quiet():
        assert not fc.is_grad_enabled()
        with fc.enable_grad():
            assert (w * 2).requires_grad
        return w * 2

    assert not quiet().requires_grad and fc.is_grad_enabled()
    with pytest.raises(KeyError), fc.no_grad():
        raise KeyError
    assert fc.is_grad_enabled()
    assert not quiet().requires_grad  # a decorated function can be called again


def test_no_grad_is_of_one_thread():
    seen = []
    with fc.no_grad():
        thread = threading.Thread(target=lambda: seen.append(fc.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_long_chains_need_no_recursion():
    x = fc.tensor(np.ones(1), requires_grad=True)
    y = x
    for _ in range(5000):
        y = y + 1
    y.backward()
    np.testing.assert_array_equal(x.grad, 1)


def test_only_what_needs_a_gradient_is_computed():
    x, w = fc.tensor(np.ones((2, 3))), Parameter(np.ones((4, 3)))
    with fc.use_backend("reference"):
        F.linear(x, w).sum().backward()
    assert x.grad is None
    np.testing.assert_array_equal(w.grad, 2)


def test_tensor_decides_what_is_recorded():
    """A Parameter beside a plain array counts as an array; a Tensor anywhere makes the call one of Tensors."""
    x, w = np.ones((2, 3)), np.ones((4, 3))
    with fc.use_backend("reference"):
        assert type(F.linear(x, Parameter(w))) is np.ndarray
        assert isinstance(F.linear(fc.tensor(x), w), fc.Tensor)
        y = F.linear(x, fc.tensor(w, requires_grad=True))
        assert isinstance(y, fc.Tensor) and y.requires_grad
    target = fc.tensor(np.zeros((2, 3)), requires_grad=True)
    F.mse_loss(x, target, reduction="sum").backward()
    np.testing.assert_array_equal(target.grad, -2)


def test_conversions():
    t = fc.tensor([[1.5, 2.0]], requires_grad=True)
    assert t.size() == (1, 2) and t.size(-1) == 2 and t.dim() == t.ndim == 2 and t.numel() == 2 and len(t) == 1
    assert t.tolist() == [[1.5, 2.0]] and t.numpy() is t.data and t[0, 0].item() == 1.5
    assert float(t[0, 0]) == 1.5 and int(t[0, 1]) == 2 and bool(t[0, 0]) and f"{t[0, 0]:.2f}" == "1.50"
    assert repr(t) == "tensor([[1.5, 2. ]], dtype=float32, requires_grad=True)"
    np.testing.assert_array_equal(np.asarray(t), t.data)
    assert fc.tensor(np.ones(1, ml_dtypes.bfloat16)).item() == 1.0
    assert fc.tensor(t).data is t.data and not t.detach().requires_grad and t.is_leaf
    assert t.detach().requires_grad_().requires_grad


def test_data_is_taken_without_a_copy(torch):
    x = np.ones(3, np.float32)
    assert fc.tensor(x).data is x
    t = torch.ones(3)
    fc.tensor(t).data[0] = 5
    assert t[0] == 5


def test_methods_that_give_arrays(torch):
    values = np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 0.0]])
    ours, theirs = fc.tensor(values), torch.tensor(values)
    for program in (
        *(lambda t, name=name: getattr(t, name)(1.0) for name in ("eq", "ne", "lt", "le", "gt", "ge")),
        *(lambda t, name=name: getattr(t, name)() for name in ("all", "any", "argmin", "argsort")),
        *(lambda t, name=name: getattr(t, name)(1) for name in ("all", "any", "argmin", "argsort")),
        lambda t: t.argsort(0, descending=True),
        lambda t: t.sort(descending=True)[1],
        lambda t: t.topk(2).indices,
    ):
        y = program(ours)
        assert not isinstance(y, fc.Tensor)
        np.testing.assert_array_equal(y, from_torch(program(theirs)))
    target = fc.tensor(np.array([[0], [1]]))
    prediction = ours.argmax(1, keepdim=True)
    assert target.eq(prediction).sum().item() == 2  # as in torch's example of MNIST
    equal = fc.tensor([2.0, 2.0, 1.0, 2.0])
    assert equal.sort(descending=True).indices.tolist() == [0, 1, 3, 2] and equal.sort().indices.tolist() == [
        2,
        0,
        1,
        3,
    ]
    nan = fc.tensor([np.nan, 1.0, 2.0])
    assert nan.sort(descending=True).indices.tolist() == [0, 2, 1] and nan.sort().indices.tolist() == [1, 2, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_methods_keep_the_type(dtype):
    x = fc.tensor(np.array([[0.5, 2.0], [1.0, 4.0]]).astype(dtype), requires_grad=True)
    for y in (
        *(x.rsqrt(), x.log1p(), x.log2(), x.log10(), x.sin(), x.cos(), x.sign(), x.square(), x.reciprocal()),
        *(x.maximum(1.0), x.minimum(x), x.prod(1), x.norm(), x.norm(3), x.amax(0), x.logsumexp(1), x.cumsum(0)),
        *(x.masked_fill(x > 1, 0.0), x.where(x > 1, 2.5), x.repeat(2, 2), x.topk(1)[0], x.add(2, alpha=0.5), x.roll(1)),
    ):
        assert y.dtype == dtype
        x.grad = None
        y.sum().backward()
        assert x.grad.dtype == dtype and np.isfinite(x.grad.astype(np.float64)).all()


def test_in_place_methods_write_where_nothing_is_recorded():
    memory = np.array([1.0, 2.0, 3.0])
    x = fc.tensor(memory)
    assert x.add_(1).sub_(x, alpha=0.5).mul_(4).div_(2).clamp_(max=3.5) is x
    np.testing.assert_array_equal(memory, [2.0, 3.0, 3.5])
    x.copy_(fc.tensor(7.0))
    x.add_(fc.tensor([1.0, 0.0, 0.0]), alpha=-2)
    np.testing.assert_array_equal(memory, [5.0, 7.0, 7.0])
    w = Parameter(np.ones(3))
    with fc.no_grad():
        w.fill_(2.0).add_(w, alpha=-0.25)
    np.testing.assert_array_equal(w.data, [1.5, 1.5, 1.5])
    with pytest.raises(ValueError, match="no_grad"):
        w.zero_()
    with pytest.raises(ValueError, match="no_grad"):
        (w * 2).mul_(3)
    np.testing.assert_array_equal(x.zero_().data, [0, 0, 0])


def test_bad_arguments_of_methods():
    x = fc.tensor(np.ones((2, 3)))
    for call, message in (
        (lambda: x.mm(x[0]), "2 dimensions, got 2 and 1"),
        (lambda: x.bmm(x), "3 dimensions"),
        (lambda: x.dot(x), "1 dimensions"),
        (lambda: x.div(2, rounding_mode="up"), "rounding_mode must be"),
        (lambda: x.norm(float("nan")), "p must be"),
        (lambda: x.norm("nuc"), "p must be"),
        (lambda: x.topk(4), "k must be from 0 to 3"),
        (lambda: x.gather(0, [0, 1]), "index must have 2 dimensions"),
        (lambda: x.index_select(0, [[0]]), "index must be a vector"),
        (lambda: x.repeat(2), "sizes must be 2 or more"),
        (lambda: x.repeat(2, -1), "not negative"),
        (lambda: x.cumsum(2), "dim must be"),
        (lambda: x.flip(3), "dims must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in (
        (lambda: x.gather(0, [[0.5]]), "index must hold integers|cannot"),
        (lambda: x.gather(0, np.zeros((1, 1))), "index must hold integers"),
        (lambda: x.masked_fill(np.ones(3), 0), "mask must be a bool array"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


@pytest.mark.parametrize("dtype", checks.DTYPES, ids=checks.dtype_name)
def test_products_keep_the_type(dtype):
    rng = np.random.default_rng(3)
    a, b = (fc.tensor(checks.integers(rng, shape, dtype), requires_grad=True) for shape in ((2, 3, 4), (2, 4, 5)))
    y = a @ b
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.data.astype(np.float64), a.data.astype(np.float64) @ b.data.astype(np.float64))
    y.sum().backward()
    assert a.grad.dtype == b.grad.dtype == dtype


def test_smaller_and_larger_of_unsigned_numbers():
    a, b = fc.tensor(np.array([1, 5], np.uint8)), np.array([3, 2], np.uint8)
    np.testing.assert_array_equal(a.minimum(b).data, [1, 2])
    np.testing.assert_array_equal(a.maximum(b).data, [3, 5])
