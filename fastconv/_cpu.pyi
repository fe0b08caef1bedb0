"""The native module: the backend functions (see ``fastconv.backend``) and what configures them.

Arrays are float32, float64, float16 or ml_dtypes.bfloat16, one dtype a call; `nd` is the number of spatial dimensions.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from numpy import ndarray

Array: TypeAlias = ndarray[Any, Any]
Ints: TypeAlias = int | Sequence[int]
Padding: TypeAlias = int | str | Sequence[int | Sequence[int]]
Shape: TypeAlias = tuple[int, ...]
Indices: TypeAlias = Literal["none", "flat", "window"]

def conv_forward(
    x: Array, w: Array, b: Array | None, stride: Ints, padding: Padding, dilation: Ints, groups: int, nd: int
) -> Array: ...
def conv_backward_input(
    dy: Array, w: Array, x_shape: Shape, stride: Ints, padding: Padding, dilation: Ints, groups: int, nd: int
) -> Array: ...
def conv_backward_weight(
    dy: Array, x: Array, w_shape: Shape, stride: Ints, padding: Padding, dilation: Ints, groups: int, nd: int
) -> Array: ...
def conv_backward_bias(dy: Array, nd: int) -> Array: ...
def conv_transpose_forward(
    x: Array,
    w: Array,
    b: Array | None,
    stride: Ints,
    padding: Padding,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
    nd: int,
) -> Array: ...
def conv_transpose_backward_input(
    dy: Array,
    w: Array,
    x_shape: Shape,
    stride: Ints,
    padding: Padding,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
    nd: int,
) -> Array: ...
def conv_transpose_backward_weight(
    dy: Array,
    x: Array,
    w_shape: Shape,
    stride: Ints,
    padding: Padding,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
    nd: int,
) -> Array: ...
def linear_forward(x: Array, w: Array, b: Array | None) -> Array: ...
def linear_backward_input(dy: Array, w: Array) -> Array: ...
def linear_backward_weight(dy: Array, x: Array) -> Array: ...
def linear_backward_bias(dy: Array) -> Array: ...
def max_pool_forward(
    x: Array,
    kernel: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    nd: int,
    indices: Indices,
) -> Any: ...
def max_pool_backward(
    dy: Array,
    saved: Array,
    x_shape: Shape,
    kernel: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    nd: int,
) -> Array: ...
def max_unpool_forward(x: Array, indices: Array, output_size: Sequence[int], nd: int) -> Array: ...
def max_unpool_backward(dy: Array, indices: Array, nd: int) -> Array: ...
def avg_pool_forward(
    x: Array,
    kernel: Ints,
    stride: Ints | None,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    nd: int,
) -> Array: ...
def avg_pool_backward(
    dy: Array,
    x_shape: Shape,
    kernel: Ints,
    stride: Ints | None,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    nd: int,
) -> Array: ...
def lp_pool_forward(
    x: Array, norm_type: float, kernel: Ints, stride: Ints | None, ceil_mode: bool, nd: int
) -> Array: ...
def lp_pool_backward(
    dy: Array, x: Array, y: Array, norm_type: float, kernel: Ints, stride: Ints | None, ceil_mode: bool, nd: int
) -> Array: ...
def adaptive_avg_pool_forward(x: Array, output_size: int | Sequence[int | None] | None, nd: int) -> Array: ...
def adaptive_avg_pool_backward(dy: Array, x_shape: Shape, nd: int) -> Array: ...
def adaptive_max_pool_forward(
    x: Array, output_size: int | Sequence[int | None] | None, nd: int, indices: Indices
) -> Any: ...
def adaptive_max_pool_backward(dy: Array, saved: Array, x_shape: Shape, nd: int) -> Array: ...
def batch_norm_forward(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Array, Array, Array]: ...
def batch_norm_backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, invstd: Array, training: bool
) -> tuple[Array, Array, Array]: ...
def instance_norm_forward(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
) -> tuple[Array, Array, Array]: ...
def instance_norm_backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, invstd: Array, use_input_stats: bool
) -> tuple[Array, Array, Array]: ...
def local_response_norm_forward(x: Array, size: int, alpha: float, beta: float, k: float) -> Array: ...
def local_response_norm_backward(dy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array: ...
def relu_forward(x: Array, inplace: bool = False) -> Array: ...
def relu_backward(dy: Array, y: Array) -> Array: ...
def hardtanh_forward(x: Array, min_val: float, max_val: float) -> Array: ...
def hardtanh_backward(dy: Array, x: Array, min_val: float, max_val: float) -> Array: ...
def leaky_relu_forward(x: Array, negative_slope: float) -> Array: ...
def leaky_relu_backward(dy: Array, x: Array, negative_slope: float) -> Array: ...
def prelu_forward(x: Array, weight: Array) -> Array: ...
def prelu_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array]: ...
def conv_plan(
    op: str,
    x_shape: Shape,
    w_shape: Shape,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    dtype: str = "float32",
    channels_last: bool = False,
) -> dict[str, Any]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def available_isas() -> tuple[str, ...]: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def thread_info() -> dict[str, Any]: ...
def build_info() -> dict[str, Any]: ...
def set_float32_precision(precision: str) -> None: ...
def get_float32_precision() -> str: ...
def workspace_peak() -> int: ...
def reset_workspace_peak() -> None: ...
def release_memory() -> None: ...
