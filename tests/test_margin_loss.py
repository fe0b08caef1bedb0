"""Multiclass SVM losses: torch's multi_margin_loss (Weston-Watkins), and one binary SVM a class."""

import numpy as np
import pytest

import fastconv.nn as nn
import fastconv.nn.functional as F
from functional_cases import (
    Case,
    check_dtype,
    check_finite_differences,
    check_matches_torch,
    check_pullback,
    check_tensor,
    classes,
    probabilities,
)

SCORES = {"input": (4, 5), "target": classes(5, 4)}
WESTON_WATKINS = [
    Case("multi_margin_loss", SCORES),
    Case("multi_margin_loss", {**SCORES, "weight": probabilities(5)}, {"p": 2, "margin": 0.3}),
    Case("multi_margin_loss", {"input": (5,), "target": classes(5)}, {"reduction": "sum"}),
    Case("multi_margin_loss", {**SCORES, "weight": probabilities(5)}, {"reduction": "none"}),
]
ONE_VS_ALL = [
    Case("one_vs_all_hinge_loss", SCORES),
    Case("one_vs_all_hinge_loss", SCORES, {"p": 2, "margin": 0.3, "reduction": "none"}),
    Case("one_vs_all_hinge_loss", {"input": (5,), "target": classes(5)}, {"reduction": "sum"}),
]
X = np.array([[3.0, 0.5, -2.0], [0.0, 0.25, 4.0]])
LABELS = np.array([0, 1])


@pytest.mark.parametrize("case", WESTON_WATKINS, ids=str)
def test_weston_watkins_is_torchs(case, torch):
    check_matches_torch(case, torch)


@pytest.mark.parametrize("case", [*WESTON_WATKINS, *ONE_VS_ALL], ids=str)
def test_gradients_and_dtypes(case):
    check_finite_differences(case)
    check_pullback(case)
    check_tensor(case)
    check_dtype(case, np.float32)
    check_dtype(case, np.float16)


def test_one_vs_all_by_hand():
    np.testing.assert_array_equal(F.one_vs_all_hinge_loss(X, LABELS, reduction="none"), [1.5, 1 + 0.75 + 5])
    np.testing.assert_array_equal(
        F.one_vs_all_hinge_loss(X, LABELS, 2, 0.5, reduction="none"), [1, 0.25 + 0.0625 + 20.25]
    )


def test_layers_are_their_functions(torch):
    weight = np.array([0.5, 1.0, 2.0])
    ours = nn.MultiMarginLoss(2, 0.5, weight, reduction="sum")
    theirs = torch.nn.MultiMarginLoss(2, 0.5, torch.tensor(weight), reduction="sum")
    assert float(ours(X, LABELS)) == pytest.approx(float(theirs(torch.tensor(X), torch.tensor(LABELS))))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    one = nn.OneVsAllHingeLoss(2, 0.5, reduction="none")
    np.testing.assert_array_equal(one(X, LABELS), F.one_vs_all_hinge_loss(X, LABELS, 2, 0.5, reduction="none"))


@pytest.mark.parametrize("function", [F.multi_margin_loss, F.one_vs_all_hinge_loss])
def test_bad_input(function):
    for error, message, call in (
        (ValueError, "target must hold classes from 0 to 2, got 3", lambda: function(X, np.array([0, 3]))),
        (ValueError, "target must hold classes from 0 to 2, got -100", lambda: function(X, np.array([-100, 0]))),
        (ValueError, r"target must have shape \(2,\)", lambda: function(X, LABELS[:1])),
        (ValueError, "input must have shape", lambda: function(X[None], LABELS[None])),
        (ValueError, "at least one class", lambda: function(X[:, :0], LABELS)),
        (ValueError, "p must be 1 or 2, got 3", lambda: function(X, LABELS, 3)),
        (ValueError, "reduction must be one of", lambda: function(X, LABELS, reduction="all")),
        (TypeError, "target must hold integers", lambda: function(X, LABELS * 1.0)),
        (TypeError, "input must be float32", lambda: function(X.astype(int), LABELS)),
    ):
        with pytest.raises(error, match=message):
            call()
    assert np.isnan(function(X[:0], LABELS[:0])) and function(X[:0], LABELS[:0], reduction="none").shape == (0,)


def test_bad_weight_and_layers():
    with pytest.raises(ValueError, match="weight must have one entry for each of 3 classes"):
        F.multi_margin_loss(X, LABELS, weight=np.ones(2))
    with pytest.raises(TypeError, match="weight must have the dtype of input"):
        F.multi_margin_loss(X, LABELS, weight=np.ones(3, np.float32))
    for layer in (nn.MultiMarginLoss, nn.OneVsAllHingeLoss):
        with pytest.raises(ValueError, match="p must be 1 or 2, got 3"):
            layer(3)
        with pytest.raises(TypeError, match="margin must be a real number"):
            layer(1, "wide")
