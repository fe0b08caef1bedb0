"""grid_sample and affine_grid: every mode far outside the image, odd positions and sizes, layouts, bad input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastconv.nn.functional as F
from checks import channels_last, from_torch, to_torch

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4, 5))
GRID = RNG.uniform(-4, 4, (2, 6, 7, 2))
VOLUMES = RNG.standard_normal((2, 2, 3, 1, 5))
VOLUME_GRID = RNG.uniform(-4, 4, (2, 3, 2, 4, 3))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_positions_far_outside_are_torchs(torch, mode, padding_mode, align_corners):
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    single = X[:, :, :1, :1]  # one element has nothing to reflect between
    for x, grid in ((X, GRID), (single, GRID), (X[:0], GRID[:0]), (X, GRID[:, :0]), (VOLUMES, VOLUME_GRID)):
        if mode == "bicubic" and x.ndim == 5:
            continue
        tensors = [to_torch(a).requires_grad_() for a in (x, grid)]
        expected = torch.nn.functional.grid_sample(*tensors, **options)
        y, pullback = F.grid_sample.vjp(x, grid, **options)
        np.testing.assert_allclose(y, from_torch(expected), atol=1e-12)
        dy = RNG.standard_normal(y.shape)
        expected.backward(to_torch(dy))
        for mine, tensor in zip(pullback(dy), tensors, strict=True):
            np.testing.assert_allclose(mine, from_torch(tensor.grad), atol=1e-11)


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_positions_that_are_no_numbers(mode, padding_mode):
    grid = np.full((1, 1, 4, 2), -1.0)
    grid[0, 0, 0, 0] = np.nan
    grid[0, 0, 1:] = [[np.inf, 0], [0, -np.inf], [1e300, 0]]
    y, pullback = F.grid_sample.vjp(X[:1], grid, mode, padding_mode)
    corner = F.grid_sample(X[:1], np.full((1, 1, 1, 2), -1.0), mode, padding_mode)
    np.testing.assert_array_equal(y[..., :1], corner)  # NaN counts as -1
    if padding_mode == "zeros":
        np.testing.assert_array_equal(y[..., 1:], 0)
    if padding_mode == "border":  # beyond the last element is the last element
        far = np.clip(grid[:, :, 1:], -4, 4)
        np.testing.assert_allclose(y[..., 1:], F.grid_sample(X[:1], far, mode, padding_mode))
    assert all(np.isfinite(result).all() for result in (y, *pullback(np.ones_like(y))))


def test_an_identity_gives_the_image_in_its_layout():
    theta = np.broadcast_to(np.eye(2, 3), (2, 2, 3))
    for align_corners in (False, True):
        grid = F.affine_grid(theta, X.shape, align_corners)
        for x in (X, channels_last(X)):
            y = F.grid_sample(x, grid, align_corners=align_corners)
            np.testing.assert_allclose(y, x, atol=1e-12)
            assert y.strides == x.strides


@pytest.mark.parametrize("align_corners", [None, False, True])
@pytest.mark.parametrize("size", [(2, 1, 3, 4), (2, 1, 1, 1), (2, 1, 2, 1, 5)], ids=str)
def test_affine_grids_are_torchs(torch, size, align_corners):
    nd = len(size) - 2
    theta = RNG.standard_normal((2, nd, nd + 1))
    tensor = to_torch(theta).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: the default has changed
        expected = torch.nn.functional.affine_grid(tensor, list(size), align_corners)
    y, pullback = F.affine_grid.vjp(theta, size, align_corners)
    np.testing.assert_allclose(y, from_torch(expected), atol=1e-14)
    dy = RNG.standard_normal(y.shape)
    expected.backward(to_torch(dy))
    np.testing.assert_allclose(pullback(dy)[0], from_torch(tensor.grad), atol=1e-12)


ERRORS = [
    (
        ValueError,
        "mode must be one of bilinear, nearest, bicubic; got 'cubic'",
        lambda: F.grid_sample(X, GRID, "cubic"),
    ),
    (ValueError, "padding_mode must be one of zeros", lambda: F.grid_sample(X, GRID, padding_mode="circular")),
    (ValueError, r"input must have shape \(N, C, H, W\) or", lambda: F.grid_sample(X[0], GRID)),
    (ValueError, "in mode bicubic", lambda: F.grid_sample(VOLUMES, VOLUME_GRID, "bicubic")),
    (ValueError, r"grid must have shape \(N, H, W, 2\) with the N=2", lambda: F.grid_sample(X, GRID[:1])),
    (ValueError, "grid must have shape", lambda: F.grid_sample(X, GRID[..., :1])),
    (ValueError, r"grid must have shape \(N, D, H, W, 3\)", lambda: F.grid_sample(VOLUMES, GRID)),
    (ValueError, "at least one element", lambda: F.grid_sample(X[:, :, :0], GRID)),
    (TypeError, "grid must have the dtype of input", lambda: F.grid_sample(X, GRID.astype(np.float32))),
    (TypeError, "input must be float32", lambda: F.grid_sample(X.astype(int), GRID.astype(int))),
    (ValueError, "size must be at least 1", lambda: F.affine_grid(np.zeros((2, 2, 3)), (2, 1, 0, 4))),
    (ValueError, "size must be", lambda: F.affine_grid(np.zeros((2, 2, 3)), (2, 1, 3))),
    (ValueError, r"theta must have shape \(3, 2, 3\)", lambda: F.affine_grid(np.zeros((2, 2, 3)), (3, 1, 4, 4))),
    (TypeError, "size must be an int", lambda: F.affine_grid(np.zeros((2, 2, 3)), (2, 1, 4.0, 4))),
    (TypeError, "theta must be float32", lambda: F.affine_grid(np.zeros((2, 2, 3), int), (2, 1, 4, 4))),
]


@pytest.mark.parametrize("error, message, call", ERRORS, ids=[message for _, message, _ in ERRORS])
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
