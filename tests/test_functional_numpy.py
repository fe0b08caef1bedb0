"""The functions that are NumPy on every backend: losses, softmax, padding, dropout, unfold, bilinear."""

import ml_dtypes
import numpy as np
import pytest

from functional_cases import (
    Case,
    check_dlpack,
    check_dtype,
    check_finite_differences,
    check_matches_torch,
    check_pullback,
    check_tensor,
    classes,
    distributions,
    probabilities,
    signs,
)

PAIR = {"input": (4, 3), "target": (4, 3)}
SCORES = {"input": (4, 5), "target": classes(5, 4)}
IMAGE_SCORES = {"input": (2, 5, 3, 2), "target": classes(5, 2, 3, 2)}
WEIGHT = {"weight": probabilities(5)}
LOG_PAIR = {"input": lambda rng: np.log(distributions(4, 3)(rng)), "target": distributions(4, 3)}
BINARY = {"input": probabilities(4, 3), "target": probabilities(4, 3)}

CASES = [
    Case("sigmoid", {"input": (3, 4)}),
    Case("tanh", {"input": (3, 4)}),
    Case("softplus", {"input": (3, 4)}),
    Case("softplus", {"input": (3, 4)}, {"beta": 2.0, "threshold": 1.0}),
    Case("elu", {"input": (3, 4)}, {"alpha": 0.7}),
    Case("selu", {"input": (3, 4)}),
    Case("celu", {"input": (3, 4)}, {"alpha": 0.5}),
    Case("gelu", {"input": (3, 4)}),
    Case("gelu", {"input": (3, 4)}, {"approximate": "tanh"}),
    Case("silu", {"input": (3, 4)}),
    Case("mish", {"input": (3, 4)}),
    Case("softsign", {"input": (3, 4)}),
    Case("logsigmoid", {"input": (3, 4)}),
    Case("tanhshrink", {"input": (3, 4)}),
    Case("glu", {"input": (3, 4)}, {"dim": 1}),
    Case("hardswish", {"input": (3, 4)}),
    Case("hardshrink", {"input": (3, 4)}, {"lambd": 0.3}),
    Case("softshrink", {"input": (3, 4)}, {"lambd": 0.3}),
    Case("threshold", {"input": (3, 4)}, {"threshold": 0.1, "value": -2.0}),
    Case("rrelu", {"input": (3, 4)}, {"lower": 0.1, "upper": 0.3}),
    Case("softmax", {"input": (2, 3, 4)}, {"dim": -1}),
    Case("softmax", {"input": (2, 3, 4)}, {"dim": 1}),
    Case("softmax", {"input": ()}, {"dim": 0}),
    Case("log_softmax", {"input": (2, 3, 4)}, {"dim": 0}),
    Case("log_softmax", {"input": (5,)}, {"dim": -1}),
    Case("softmin", {"input": (2, 3, 4)}, {"dim": 1}),
    Case("interpolate", {"input": (2, 3, 7, 5)}, {"scale_factor": 2}),
    Case("interpolate", {"input": (2, 3, 7)}, {"size": 3, "mode": "nearest-exact"}),
    Case("interpolate", {"input": (2, 3, 7)}, {"size": 10, "mode": "linear", "align_corners": True}),
    Case("interpolate", {"input": (2, 3, 7, 5)}, {"scale_factor": (1.7, 0.5), "mode": "bilinear"}),
    Case("interpolate", {"input": (2, 3, 7, 5)}, {"size": (4, 9), "mode": "bicubic"}),
    Case("interpolate", {"input": (2, 3, 7, 5)}, {"size": (3, 9), "mode": "bilinear", "antialias": True}),
    Case("interpolate", {"input": (2, 3, 7, 5)}, {"size": (3, 4), "mode": "bicubic", "antialias": True}),
    Case("interpolate", {"input": (1, 2, 3, 4, 5)}, {"size": 6, "mode": "trilinear"}),
    Case("grid_sample", {"input": (2, 3, 4, 5), "grid": (2, 3, 2, 2)}),
    Case("grid_sample", {"input": (2, 3, 4, 5), "grid": (2, 3, 2, 2)}, {"padding_mode": "border"}),
    Case("grid_sample", {"input": (2, 3, 4, 5), "grid": (2, 3, 2, 2)}, {"padding_mode": "reflection"}),
    Case("grid_sample", {"input": (2, 3, 4, 5), "grid": (2, 3, 2, 2)}, {"mode": "nearest", "align_corners": True}),
    Case("grid_sample", {"input": (2, 3, 4, 5), "grid": (2, 3, 2, 2)}, {"mode": "bicubic"}),
    Case(
        "grid_sample",
        {"input": (2, 3, 4, 5), "grid": (2, 3, 2, 2)},
        {"mode": "bicubic", "padding_mode": "reflection", "align_corners": True},
    ),
    Case("grid_sample", {"input": (2, 3, 2, 4, 5), "grid": (2, 2, 3, 2, 3)}),
    Case(
        "grid_sample",
        {"input": (2, 3, 2, 4, 5), "grid": (2, 2, 3, 2, 3)},
        {"padding_mode": "reflection", "align_corners": True},
    ),
    Case("affine_grid", {"theta": (2, 2, 3)}, {"size": (2, 3, 4, 5)}),
    Case("affine_grid", {"theta": (2, 3, 4)}, {"size": (2, 3, 4, 1, 5), "align_corners": True}),
    Case("interpolate", {"input": (2, 3, 7, 5)}, {"size": (3, 2), "mode": "area"}),
    Case("pixel_shuffle", {"input": (2, 12, 3, 2)}, {"upscale_factor": 2}),
    Case("pixel_unshuffle", {"input": (3, 6, 9)}, {"downscale_factor": 3}),
    Case("group_norm", {"input": (3, 6, 2, 5), "weight": (6,), "bias": (6,)}, {"num_groups": 3}),
    Case("group_norm", {"input": (3, 4)}, {"num_groups": 2, "eps": 0.1}),
    Case("layer_norm", {"input": (2, 3, 4, 5), "weight": (4, 5), "bias": (4, 5)}, {"normalized_shape": (4, 5)}),
    Case("layer_norm", {"input": (7, 4), "weight": (4,)}, {"normalized_shape": (4,)}),
    Case("rms_norm", {"input": (2, 3, 4, 5), "weight": (4, 5)}, {"normalized_shape": (4, 5)}),
    Case("rms_norm", {"input": (7, 4)}, {"normalized_shape": (4,), "eps": 0.1}),
    Case("scaled_dot_product_attention", {"query": (2, 3, 5, 4), "key": (2, 3, 6, 4), "value": (2, 3, 6, 7)}),
    Case("scaled_dot_product_attention", {"query": (5, 4), "key": (5, 4), "value": (5, 2)}, {"is_causal": True}),
    Case(
        "scaled_dot_product_attention",
        {"query": (2, 3, 5, 4), "key": (2, 3, 6, 4), "value": (2, 3, 6, 4), "attn_mask": (3, 5, 6)},
        {"scale": 0.3},
    ),
    Case(
        "scaled_dot_product_attention",
        {"query": (2, 6, 5, 4), "key": (2, 2, 5, 4), "value": (2, 3, 5, 4)},
        {"enable_gqa": True, "is_causal": True},
    ),
    Case("fractional_max_pool2d", {"input": (2, 3, 7, 6)}, {"kernel_size": (3, 2), "output_size": (5, 5)}),
    Case("fractional_max_pool2d", {"input": (3, 5, 5)}, {"kernel_size": 5, "output_ratio": (0.2, 0.3)}),
    Case("fractional_max_pool2d_with_indices", {"input": (2, 3, 5, 6)}, {"kernel_size": 2, "output_size": (4, 5)}),
    Case("fractional_max_pool3d", {"input": (1, 2, 4, 3, 5)}, {"kernel_size": (2, 1, 3), "output_size": 1}),
    Case("fractional_max_pool3d_with_indices", {"input": (2, 4, 5, 6)}, {"kernel_size": 2, "output_size": 1}),
    Case("upsample", {"input": (2, 3, 4)}, {"scale_factor": 1.5, "mode": "linear"}),
    Case("upsample_nearest", {"input": (2, 3, 4, 2)}, {"size": (6, 3)}),
    Case("upsample_bilinear", {"input": (2, 3, 4, 2)}, {"scale_factor": 2}),
    Case("pdist", {"input": (5, 3)}),
    Case("pdist", {"input": (4, 3)}, {"p": 1.0}),
    Case("pdist", {"input": (4, 3)}, {"p": 3.5}),
    Case("pdist", {"input": (4, 3)}, {"p": float("inf")}),
    Case("normalize", {"input": (4, 3, 2)}),
    Case("normalize", {"input": (5,)}, {"p": 3.0, "dim": 0, "eps": 0.1}),
    Case("normalize", {"input": (4, 3)}, {"p": 1.0, "dim": -1, "eps": 9.0}),
    Case("embedding", {"input": classes(5, 4, 3), "weight": (5, 2)}),
    Case("bilinear", {"input1": (2, 3, 4), "input2": (2, 3, 5), "weight": (6, 4, 5), "bias": (6,)}),
    Case("bilinear", {"input1": (4,), "input2": (5,), "weight": (6, 4, 5)}),
    Case("pad", {"input": (2, 3, 4)}, {"pad": (1, 2), "value": 7.0}),
    Case("pad", {"input": (2, 3, 4)}, {"pad": (-1, 2, 1, -2, 0, 1)}),
    Case("pad", {"input": (2, 3, 4, 5)}, {"pad": (3, 1, 2, 3), "mode": "reflect"}),
    Case("pad", {"input": (2, 3, 4, 5)}, {"pad": (7, 1, 2, 6), "mode": "replicate"}),
    Case("pad", {"input": (3, 4, 5)}, {"pad": (5, 1, 2, 4), "mode": "circular"}),
    Case("pad", {"input": (1, 2, 3, 4, 2)}, {"pad": (1, 0, 2, 1, 1, 2), "mode": "reflect"}),
    Case("pad", {"input": (2, 3, 6)}, {"pad": (-2, 3), "mode": "replicate"}),
    Case("unfold", {"input": (2, 3, 6, 5)}, {"kernel_size": (3, 2), "padding": 1, "stride": 2}),
    Case("unfold", {"input": (3, 6, 5)}, {"kernel_size": 2, "dilation": (2, 3)}),
    Case("fold", {"input": (2, 12, 12)}, {"output_size": (5, 4), "kernel_size": 2}),
    Case("fold", {"input": (12, 9)}, {"output_size": (5, 4), "kernel_size": 2, "padding": 1, "stride": 2}),
    Case("mse_loss", PAIR),
    Case("mse_loss", {**PAIR, "weight": probabilities(4, 3)}),
    Case("mse_loss", PAIR, {"reduction": "none"}),
    Case("l1_loss", PAIR, {"reduction": "sum"}),
    Case("smooth_l1_loss", PAIR, {"beta": 0.7}),
    Case("smooth_l1_loss", PAIR, {"beta": 0.0, "reduction": "none"}),
    Case("huber_loss", PAIR, {"delta": 0.7}),
    Case("huber_loss", {**PAIR, "weight": (4, 3)}, {"delta": 0.7}),
    Case("mse_loss", {**PAIR, "weight": (4, 3)}),
    Case("kl_div", LOG_PAIR),
    Case("kl_div", LOG_PAIR, {"reduction": "batchmean"}),
    Case("kl_div", {"input": (4, 3), "target": (4, 3)}, {"reduction": "none", "log_target": True}),
    Case("hinge_embedding_loss", {"input": (4, 3), "target": signs(4, 3)}, {"margin": 0.5}),
    Case("binary_cross_entropy", BINARY),
    Case("binary_cross_entropy", {**BINARY, "weight": probabilities(4, 3)}, {"reduction": "sum"}),
    Case("binary_cross_entropy_with_logits", {"input": (4, 3), "target": probabilities(4, 3)}, {"reduction": "none"}),
    Case(
        "binary_cross_entropy_with_logits",
        {"input": (4, 3), "target": probabilities(4, 3), "weight": probabilities(4, 1), "pos_weight": probabilities(3)},
    ),
    Case("cross_entropy", SCORES),
    Case("cross_entropy", {**SCORES, **WEIGHT}, {"label_smoothing": 0.2, "ignore_index": 2}),
    Case("cross_entropy", {**IMAGE_SCORES, **WEIGHT}, {"reduction": "none"}),
    Case("cross_entropy", {"input": (5,), "target": classes(5)}, {"reduction": "sum"}),
    Case("cross_entropy", {"input": (4, 5), "target": distributions(4, 5), **WEIGHT}, {"label_smoothing": 0.1}),
    Case("cross_entropy", {"input": (2, 5, 3), "target": distributions(2, 5, 3)}, {"reduction": "none"}),
    Case("nll_loss", SCORES),
    Case("nll_loss", {**IMAGE_SCORES, **WEIGHT}, {"ignore_index": 3}),
    Case("nll_loss", {"input": (5,), "target": classes(5), **WEIGHT}, {"reduction": "none"}),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


@cases
def test_torch(case: Case, torch):
    check_matches_torch(case, torch)


@cases
def test_finite_differences(case: Case):
    check_finite_differences(case)


@cases
def test_pullback(case: Case):
    check_pullback(case)


@cases
def test_tensor(case: Case):
    check_tensor(case)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@cases
def test_dtype(case: Case, dtype):
    check_dtype(case, dtype)


@cases
def test_dlpack(case: Case, torch):
    check_dlpack(case, torch)
