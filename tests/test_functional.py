"""The functional layer over every backend: torch's values and gradients, vjp, Tensors, dtypes, dlpack."""

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
    positions,
    positive,
)

CONV = {"input": (2, 4, 7, 6), "weight": (6, 4, 3, 2), "bias": (6,)}
TRANSPOSE = {"input": (2, 4, 4, 3), "weight": (4, 3, 3, 2), "bias": (3,)}
NORM = {"weight": (3,), "bias": (3,)}
STATISTICS = {"running_mean": (3,), "running_var": positive(3)}

CASES = [
    Case("conv1d", {"input": (2, 3, 9), "weight": (4, 3, 3), "bias": (4,)}, {"stride": 2, "padding": 1}),
    Case("conv1d", {"input": (3, 9), "weight": (6, 1, 4)}, {"groups": 3, "padding": "same"}),
    Case("conv2d", CONV),
    Case("conv2d", {"input": (4, 7, 6), "weight": (6, 4, 3, 2)}, {"padding": "valid"}),
    Case("conv2d", CONV, {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}),
    Case("conv2d", {"input": (2, 4, 7, 6), "weight": (6, 2, 3, 3), "bias": (6,)}, {"groups": 2, "padding": "same"}),
    Case("conv2d", {"input": (2, 4, 7, 6), "weight": (4, 1, 3, 3)}, {"groups": 4, "stride": 2}),
    Case("conv3d", {"input": (2, 2, 4, 5, 4), "weight": (3, 2, 2, 3, 2), "bias": (3,)}, {"padding": (0, 1, 1)}),
    Case("conv_transpose1d", {"input": (2, 4, 5), "weight": (4, 3, 3), "bias": (3,)}, {"stride": 2}),
    Case("conv_transpose2d", TRANSPOSE, {"stride": 2, "padding": 1, "output_padding": (1, 0)}),
    Case("conv_transpose2d", {"input": (4, 4, 3), "weight": (4, 3, 3, 2)}, {"groups": 2, "dilation": 2}),
    Case("conv_transpose3d", {"input": (1, 2, 3, 2, 3), "weight": (2, 3, 2, 2, 2), "bias": (3,)}, {"stride": 2}),
    Case("linear", {"input": (2, 3, 5), "weight": (4, 5), "bias": (4,)}),
    Case("linear", {"input": (5,), "weight": (4, 5)}),
    Case("max_pool1d", {"input": (2, 3, 9)}, {"kernel_size": 3, "stride": 2, "padding": 1}),
    Case("max_pool2d", {"input": (2, 3, 7, 6)}, {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    Case("max_pool2d", {"input": (3, 7, 6)}, {"kernel_size": (2, 3), "dilation": 2}),
    Case("max_pool2d", {"input": (2, 3, 7, 6)}, {"kernel_size": 2, "return_indices": True}),
    Case("max_pool2d_with_indices", {"input": (2, 3, 7, 6)}, {"kernel_size": 3, "stride": 1}),
    Case("max_pool3d", {"input": (1, 2, 4, 5, 4)}, {"kernel_size": 2}),
    Case("max_unpool1d", {"input": (2, 1, 4), "indices": positions(8, 2, 1, 4)}, {"kernel_size": 2}),
    Case(
        "max_unpool2d",
        {"input": (2, 2, 3, 2), "indices": positions(35, 2, 2, 3, 2)},
        {"kernel_size": 2, "output_size": (7, 5)},
    ),
    Case("max_unpool3d", {"input": (2, 1, 2, 2, 2), "indices": positions(64, 2, 1, 2, 2, 2)}, {"kernel_size": 2}),
    Case("avg_pool1d", {"input": (2, 3, 9)}, {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    Case("avg_pool2d", {"input": (2, 3, 7, 6)}, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    Case("avg_pool2d", {"input": (3, 7, 6)}, {"kernel_size": (2, 3), "divisor_override": 5}),
    Case("avg_pool3d", {"input": (1, 2, 4, 5, 4)}, {"kernel_size": 2, "divisor_override": 3}),
    Case("lp_pool1d", {"input": positive(2, 3, 9)}, {"norm_type": 2, "kernel_size": 3}),
    Case("lp_pool2d", {"input": positive(2, 3, 7, 6)}, {"norm_type": 3, "kernel_size": (3, 2), "stride": 2}),
    Case("lp_pool3d", {"input": positive(1, 2, 4, 5, 4)}, {"norm_type": 1.5, "kernel_size": 2, "ceil_mode": True}),
    Case("adaptive_avg_pool1d", {"input": (2, 3, 9)}, {"output_size": 4}),
    Case("adaptive_avg_pool2d", {"input": (2, 3, 7, 6)}, {"output_size": (3, None)}),
    Case("adaptive_avg_pool2d", {"input": (3, 7, 6)}, {"output_size": 1}),
    Case("adaptive_avg_pool3d", {"input": (1, 2, 4, 5, 4)}, {"output_size": (2, 3, 1)}),
    Case("adaptive_max_pool1d", {"input": (2, 3, 9)}, {"output_size": 4}),
    Case("adaptive_max_pool2d", {"input": (3, 7, 6)}, {"output_size": (None, 4)}),
    Case("adaptive_max_pool2d", {"input": (2, 3, 7, 6)}, {"output_size": 3, "return_indices": True}),
    Case("adaptive_max_pool3d", {"input": (1, 2, 4, 5, 4)}, {"output_size": (2, 3, 1)}),
    Case("batch_norm", {"input": (4, 3, 3, 2), **STATISTICS, **NORM}, {"training": True, "momentum": 0.3}),
    Case("batch_norm", {"input": (4, 3), **STATISTICS, **NORM}, {"eps": 1e-3}),
    Case("batch_norm", {"input": (2, 3, 2, 2, 2, 2), **STATISTICS}, {"training": True}),
    Case(
        "batch_norm_relu", {"input": (4, 3, 3, 2), **STATISTICS, **NORM, "residual": (4, 3, 3, 2)}, {"training": True}
    ),
    Case("batch_norm_relu", {"input": (5, 3, 4), **NORM, **STATISTICS}, {"training": True, "max_val": 0.9}),
    Case("instance_norm", {"input": (2, 3, 4, 3), **NORM}),
    Case("instance_norm", {"input": (2, 3, 7), **STATISTICS, **NORM}, {"momentum": 0.2}),
    Case("local_response_norm", {"input": (2, 6, 3, 2)}, {"size": 3, "alpha": 0.5, "beta": 0.6, "k": 2.0}),
    Case("local_response_norm", {"input": (2, 6, 3)}, {"size": 4, "alpha": 0.5}),
    Case("relu", {"input": (3, 4)}),
    Case("relu6", {"input": lambda rng: 6 * rng.standard_normal((3, 4))}),
    Case("leaky_relu", {"input": (3, 4)}, {"negative_slope": 0.2}),
    Case("prelu", {"input": (2, 3, 4), "weight": (3,)}),
    Case("prelu", {"input": (2, 3, 4), "weight": (1,)}),
    Case("hardtanh", {"input": (3, 4)}, {"min_val": -0.5, "max_val": 0.8}),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


@cases
def test_torch(backend, case: Case, torch):
    check_matches_torch(case, torch)


@cases
def test_finite_differences(backend, case: Case):
    check_finite_differences(case)


@cases
def test_pullback(backend, case: Case):
    check_pullback(case)


@cases
def test_tensor(backend, case: Case):
    check_tensor(case)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@cases
def test_dtype(backend, case: Case, dtype):
    check_dtype(case, dtype)


@cases
def test_dlpack(backend, case: Case, torch):
    check_dlpack(case, torch)
