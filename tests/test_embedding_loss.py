"""Distances, losses of embeddings, of several labels, and likelihoods: torch's values, gradients, layers, refusals."""

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
import fastconv.nn as nn
import fastconv.nn.functional as F
from checks import from_torch, to_torch
from fastconv.reference import embedding_loss, loss
from functional_cases import (
    Case,
    check_dlpack,
    check_dtype,
    check_finite_differences,
    check_matches_torch,
    check_pullback,
    check_tensor,
    positive,
    probabilities,
    signs,
)


def labels(*rows):
    """The right classes of each sample, -1 after the last."""
    return lambda rng: np.array(rows)


def counts(*shape):
    """Small whole numbers, as floating-point numbers; not 0, where torch's gradient of Stirling's formula is NaN."""
    return lambda rng: rng.integers(1, 6, shape).astype(float)


VECTORS = {"x1": (4, 3), "x2": (4, 3)}
RANKED = {"input1": (4, 3), "input2": (4, 3), "target": signs(4, 3)}
PAIRS = {"input1": (6, 3), "input2": (6, 3), "target": signs(6)}
TRIPLET = {"anchor": (4, 3), "positive": (4, 3), "negative": (4, 3)}
LABELLED = {"input": (3, 4), "target": labels([3, 0, -1, 1], [-1, 0, 0, 0], [0, 1, 2, 3])}
GAUSSIAN = {"input": (4, 3), "target": (4, 3)}
COUNTED = {"input": positive(4, 3), "target": counts(4, 3)}

CASES = [
    Case("pairwise_distance", VECTORS),
    Case("pairwise_distance", {"x1": (2, 1, 3), "x2": (4, 3)}, {"p": 1.0, "keepdim": True}),
    Case("pairwise_distance", VECTORS, {"p": 3.5, "eps": 0.1}),
    Case("pairwise_distance", {"x1": (3,), "x2": (3,)}, {"p": float("inf")}),
    Case("cosine_similarity", VECTORS),
    Case("cosine_similarity", {"x1": (2, 3, 4), "x2": (3, 1)}, {"dim": -2}),
    Case("margin_ranking_loss", RANKED),
    Case("margin_ranking_loss", RANKED, {"margin": 0.7, "reduction": "none"}),
    Case("cosine_embedding_loss", PAIRS),
    Case("cosine_embedding_loss", PAIRS, {"margin": -0.4, "reduction": "none"}),
    Case("cosine_embedding_loss", {"input1": (3,), "input2": (3,), "target": signs()}, {"reduction": "sum"}),
    Case("triplet_margin_loss", TRIPLET),
    Case("triplet_margin_loss", TRIPLET, {"swap": True, "p": 1.0, "margin": 2.0, "reduction": "none"}),
    Case("triplet_margin_loss", dict.fromkeys(TRIPLET, (2, 3, 4)), {"swap": True, "reduction": "sum"}),
    Case("triplet_margin_with_distance_loss", TRIPLET),
    Case("triplet_margin_with_distance_loss", TRIPLET, {"swap": True, "margin": 2.0, "reduction": "none"}),
    Case("soft_margin_loss", {"input": (4, 3), "target": signs(4, 3)}),
    Case("soft_margin_loss", {"input": (4,), "target": signs(4)}, {"reduction": "none"}),
    Case("multilabel_margin_loss", LABELLED),
    Case("multilabel_margin_loss", LABELLED, {"reduction": "none"}),
    Case("multilabel_margin_loss", {"input": (3,), "target": labels(1, -1, 0)}, {"reduction": "sum"}),
    Case("multilabel_soft_margin_loss", {"input": (4, 3), "target": probabilities(4, 3)}),
    Case(
        "multilabel_soft_margin_loss",
        {"input": (2, 4, 3), "target": probabilities(2, 4, 3), "weight": probabilities(3)},
        {"reduction": "none"},
    ),
    Case("gaussian_nll_loss", {**GAUSSIAN, "var": positive(4, 3)}),
    Case("gaussian_nll_loss", {**GAUSSIAN, "var": positive(4)}, {"full": True, "reduction": "sum"}),
    Case("gaussian_nll_loss", {**GAUSSIAN, "var": positive(4, 1)}, {"reduction": "none"}),
    Case("poisson_nll_loss", COUNTED),
    Case("poisson_nll_loss", COUNTED, {"log_input": False, "eps": 0.01, "reduction": "sum"}),
    Case("poisson_nll_loss", COUNTED, {"full": True, "reduction": "none"}),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


@cases
def test_torch(case: Case, torch):
    check_matches_torch(case, torch)


@cases
def test_gradients(case: Case):
    # Stirling's formula begins at a target of 1, where counts lie: no finite difference across that step.
    if case.options.get("full") is not True or case.name != "poisson_nll_loss":
        check_finite_differences(case)
    check_pullback(case)


def test_the_gradient_of_a_short_vector():
    """torch lets the gradient pass through the limit of the norm; here it is that of the value."""
    check_finite_differences(Case("cosine_similarity", VECTORS, {"dim": 0, "eps": 1.5}))


@cases
def test_tensor_and_dlpack(case: Case, torch):
    check_tensor(case)
    check_dlpack(case, torch)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@cases
def test_dtype(case: Case, dtype):
    check_dtype(case, dtype)


def _has_twin(case):
    """Layouts that the twins do not take are left out, and the loss whose distance is the caller's."""
    first = case.draw(0)[next(iter(case.arrays))]
    return "keepdim" not in case.options and first.ndim > 1 and "with_distance" not in case.name


TWINS = [case for case in CASES if _has_twin(case)]


@pytest.mark.parametrize("case", TWINS, ids=str)
def test_float64_twins(case: Case):
    """The reference's twins, whose arguments are positional, give the functions' values."""
    module = embedding_loss if hasattr(embedding_loss, case.name) else loss
    renamed = {"input": "x", "input1": "x1", "input2": "x2"}
    arrays = {renamed.get(name, name): array for name, array in case.draw(1).items()}
    if case.name in ("cosine_similarity", "pairwise_distance", "triplet_margin_loss"):
        arrays = case.draw(1)
    expected = getattr(module, case.name)(**arrays, **case.options)
    np.testing.assert_allclose(case.function(**case.draw(1), **case.options), expected, rtol=1e-12, atol=1e-13)


def _squares(a, b):
    return ((a - b) ** 2).sum(-1)


@pytest.mark.parametrize("swap", [True, False])
def test_triplets_with_a_distance_of_ones_own(torch, swap):
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(6, 3)) for _ in range(3)]
    tensors, others = [fc.tensor(a, requires_grad=True) for a in arrays], [to_torch(a).requires_grad_() for a in arrays]
    options = {"distance_function": _squares, "margin": 3.0, "swap": swap, "reduction": "sum"}
    ours = nn.TripletMarginWithDistanceLoss(**options)(*tensors)
    theirs = torch.nn.TripletMarginWithDistanceLoss(**options)(*others)
    np.testing.assert_allclose(ours.data, from_torch(theirs), rtol=1e-12)
    ours.backward()
    theirs.backward()
    for tensor, other in zip(tensors, others, strict=True):
        np.testing.assert_allclose(tensor.grad, from_torch(other.grad), rtol=1e-10, atol=1e-12)
    with pytest.raises(TypeError, match="distance_function must map two Tensors to one"):
        F.triplet_margin_with_distance_loss(*arrays, distance_function=lambda a, b: 1.0)
    with pytest.raises(TypeError, match="distance_function must be callable"):
        nn.TripletMarginWithDistanceLoss(distance_function=2)
    with pytest.raises(ValueError, match="margin must be above 0"):
        nn.TripletMarginWithDistanceLoss(margin=-1.0)


def test_the_svm_twin():
    rng = np.random.default_rng(0)
    x, target, weight = rng.normal(size=(5, 4)), rng.integers(0, 4, 5), rng.uniform(0.5, 2, 4)
    for options in ({}, {"p": 2, "margin": 0.3, "weight": weight, "reduction": "none"}):
        np.testing.assert_allclose(
            F.multi_margin_loss(x, target, **options), loss.multi_margin_loss(x, target, **options), rtol=1e-12
        )


LAYERS = [
    ("CosineSimilarity", {"dim": 0}, 2, None),
    ("PairwiseDistance", {"p": 1.0, "keepdim": True}, 2, None),
    ("MarginRankingLoss", {"margin": 0.3, "reduction": "sum"}, 2, "signs"),
    ("CosineEmbeddingLoss", {"margin": 0.2}, 2, "pair"),
    ("TripletMarginLoss", {"margin": 2.0, "p": 1.0, "swap": True, "reduction": "none"}, 3, None),
    ("SoftMarginLoss", {}, 1, "signs"),
    ("MultiLabelMarginLoss", {"reduction": "sum"}, 1, "labels"),
    ("MultiLabelSoftMarginLoss", {"weight": 4}, 1, "binary"),
    ("GaussianNLLLoss", {"full": True, "eps": 0.6}, 2, "variance"),
    ("PoissonNLLLoss", {"log_input": False, "full": True, "eps": 9.0}, 1, "counts"),
]


@pytest.mark.parametrize("name, options, inputs, kind", LAYERS, ids=str)
def test_layers_are_torchs(torch, name, options, inputs, kind):
    rng = np.random.default_rng(14)
    arrays = [rng.normal(size=(5, 4)) for _ in range(inputs)]
    targets = {
        None: None,
        "signs": rng.choice([-1.0, 1.0], (5, 4)),
        "pair": rng.choice([-1.0, 1.0], 5),
        "labels": np.array([[0, 2, -1, 1]] * 5),
        "binary": rng.integers(0, 2, (5, 4)).astype(float),
        "variance": rng.uniform(0.5, 2, (5, 4)),
        "counts": rng.integers(0, 5, (5, 4)).astype(float),
    }
    weight = {"weight": rng.uniform(0.5, 2, options["weight"])} if "weight" in options else {}
    ours = getattr(nn, name)(**{**options, **weight})
    theirs = getattr(torch.nn, name)(**{**options, **{key: to_torch(value) for key, value in weight.items()}})
    target = [] if targets[kind] is None else [targets[kind]]
    tensors, others = [fc.tensor(a, requires_grad=True) for a in arrays], [to_torch(a).requires_grad_() for a in arrays]
    value, expected = ours(*tensors, *target), theirs(*others, *map(to_torch, target))
    np.testing.assert_allclose(value.data, from_torch(expected), rtol=1e-9, atol=1e-12)
    value.sum().backward()
    expected.sum().backward()
    for tensor, other in zip(tensors, others, strict=True):
        np.testing.assert_allclose(tensor.grad, from_torch(other.grad), rtol=1e-9, atol=1e-12)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_extreme_values_stay_finite():
    near = np.array([[1.0, 2.0]])
    y, pullback = F.pairwise_distance.vjp(near, near, eps=0.0)
    assert y == 0 and not pullback(y)[0].any()
    far = np.array([[3e200, 4e200]])
    np.testing.assert_allclose(F.pairwise_distance(far, np.zeros((1, 2))), 5e200)
    zero = np.zeros((1, 2))
    assert (
        F.cosine_similarity(zero, zero) == 0 and np.isfinite(F.cosine_similarity.vjp(zero, near)[1](np.ones(1))).all()
    )
    x = np.array([-1e4, 1e4])
    y, pullback = F.soft_margin_loss.vjp(x, np.ones(2), reduction="none")
    np.testing.assert_array_equal(y, [1e4, 0])
    np.testing.assert_array_equal(pullback(np.ones(2))[0], [-1, 0])
    assert F.gaussian_nll_loss(np.ones(2), np.ones(2), 0.0) == 0.5 * np.log(1e-6)
    assert isinstance(F.gaussian_nll_loss(fc.tensor(np.ones(2), requires_grad=True), np.ones(2), 1.0), fc.Tensor)


X = np.ones((4, 3))
CALLS = [
    (ValueError, "p must be a number", lambda: F.pairwise_distance(X, X, float("nan"))),
    (ValueError, "must have shapes that broadcast", lambda: F.pairwise_distance(X, X[:, :2])),
    (ValueError, r"must have shape \(\*, D\)", lambda: F.pairwise_distance(np.ones(()), X)),
    (TypeError, "x2 must have the dtype of x1", lambda: F.cosine_similarity(X, X.astype(np.float32))),
    (TypeError, "x1 must be float32", lambda: F.cosine_similarity(X.astype(int), X)),
    (ValueError, "dim must be from -2 to 1", lambda: F.cosine_similarity(X, X, 2)),
    (ValueError, "input2 must have the shape", lambda: F.margin_ranking_loss(X, X[:1], X)),
    (ValueError, r"target must have shape \(4, 3\)", lambda: F.margin_ranking_loss(X, X, X[0])),
    (TypeError, "target must have the dtype", lambda: F.margin_ranking_loss(X, X, X.astype(np.float32))),
    (ValueError, r"must both have shape \(N, D\)", lambda: F.cosine_embedding_loss(X, X[0], np.ones(4))),
    (ValueError, r"target must have shape \(4,\)", lambda: F.cosine_embedding_loss(X, X, X)),
    (ValueError, "one shape", lambda: F.triplet_margin_loss(X, X, X[0])),
    (ValueError, "p must be a number", lambda: F.triplet_margin_loss(X, X, X, p="2")),
    (ValueError, "margin must be above 0", lambda: F.triplet_margin_loss(X, X, X, margin=0.0)),
    (ValueError, "target must have the input's shape", lambda: F.soft_margin_loss(X, X[0])),
    (
        ValueError,
        "target must hold classes from 0 to 2, or -1",
        lambda: F.multilabel_margin_loss(X, np.full((4, 3), 3)),
    ),
    (ValueError, "target must have the input's shape", lambda: F.multilabel_margin_loss(X, np.zeros((4, 2), int))),
    (TypeError, "target must hold integers", lambda: F.multilabel_margin_loss(X, X)),
    (ValueError, "at least one class", lambda: F.multilabel_margin_loss(X[:, :0], np.zeros((4, 0), int))),
    (ValueError, "at least one class", lambda: F.multilabel_soft_margin_loss(X[:, :0], X[:, :0])),
    (ValueError, "weight must broadcast", lambda: F.multilabel_soft_margin_loss(X, X, np.ones(4))),
    (ValueError, "var must have the input's shape", lambda: F.gaussian_nll_loss(X, X, np.ones(3))),
    (ValueError, "var must not be negative", lambda: F.gaussian_nll_loss(X, X, -X)),
    (ValueError, "var must not be negative", lambda: F.gaussian_nll_loss(X, X, -1.0)),
    (ValueError, "eps must be positive", lambda: F.gaussian_nll_loss(X, X, X, eps=0.0)),
    (TypeError, "input must be an array", lambda: F.gaussian_nll_loss([1.0], X, 1.0)),
    (TypeError, "target must have the dtype", lambda: F.poisson_nll_loss(X, X.astype(int))),
    (ValueError, "margin must be above 0", lambda: nn.TripletMarginLoss(margin=0.0)),
    (ValueError, "p must be a number", lambda: nn.PairwiseDistance(p=float("nan"))),
    (ValueError, "eps must be positive", lambda: nn.GaussianNLLLoss(eps=0.0)),
    (TypeError, "margin must be a real number", lambda: nn.MarginRankingLoss("1")),
    (ValueError, "reduction must be one of", lambda: nn.SoftMarginLoss(reduction="all")),
]


@pytest.mark.parametrize("error, message, call", CALLS, ids=[str(i) for i in range(len(CALLS))])
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_empty_batches():
    none = X[:0]
    for value in (
        F.margin_ranking_loss(none, none, none),
        F.cosine_embedding_loss(none, none, none[:, 0]),
        F.triplet_margin_loss(none, none, none),
        F.soft_margin_loss(none, none),
        F.multilabel_margin_loss(none, none.astype(int)),
        F.multilabel_soft_margin_loss(none, none),
        F.gaussian_nll_loss(none, none, none),
        F.poisson_nll_loss(none, none),
    ):
        assert np.isnan(value)
    assert F.pairwise_distance(none, none).shape == F.cosine_similarity(none, none).shape == (0,)
