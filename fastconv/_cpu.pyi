"""The native module: the backend functions (see ``fastconv.backend``) and what configures them.

Arrays are float32, float64, float16 or ml_dtypes.bfloat16, one dtype a call; `nd` is the number of spatial dimensions.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from numpy import ndarray

_Array: TypeAlias = ndarray[Any, Any]
_Ints: TypeAlias = int | Sequence[int]
_Padding: TypeAlias = int | str | Sequence[int | Sequence[int]]
_Shape: TypeAlias = tuple[int, ...]
_Stage: TypeAlias = tuple[_Array, _Array | None, _Ints, _Padding, _Ints, int, float, float]
_Indices: TypeAlias = Literal["none", "flat", "window"]

def conv_forward(
    x: _Array,
    w: _Array,
    b: _Array | None,
    stride: _Ints,
    padding: _Padding,
    dilation: _Ints,
    groups: int,
    nd: int,
    add: _Array | None = None,
    low: float = ...,
    high: float = ...,
) -> _Array: ...
def conv_chain_forward(x: _Array, stages: Sequence[_Stage], nd: int, add: _Array | None = None) -> _Array: ...
def conv_backward_input(
    dy: _Array, w: _Array, x_shape: _Shape, stride: _Ints, padding: _Padding, dilation: _Ints, groups: int, nd: int
) -> _Array: ...
def conv_backward_weight(
    dy: _Array, x: _Array, w_shape: _Shape, stride: _Ints, padding: _Padding, dilation: _Ints, groups: int, nd: int
) -> _Array: ...
def pack_weight(weight: _Array) -> _Array: ...
def packed_bytes(weight: _Array) -> int: ...
def conv_backward_bias(dy: _Array, nd: int) -> _Array: ...
def conv_transpose_forward(
    x: _Array,
    w: _Array,
    b: _Array | None,
    stride: _Ints,
    padding: _Padding,
    output_padding: _Ints,
    groups: int,
    dilation: _Ints,
    nd: int,
) -> _Array: ...
def conv_transpose_backward_input(
    dy: _Array,
    w: _Array,
    x_shape: _Shape,
    stride: _Ints,
    padding: _Padding,
    output_padding: _Ints,
    groups: int,
    dilation: _Ints,
    nd: int,
) -> _Array: ...
def conv_transpose_backward_weight(
    dy: _Array,
    x: _Array,
    w_shape: _Shape,
    stride: _Ints,
    padding: _Padding,
    output_padding: _Ints,
    groups: int,
    dilation: _Ints,
    nd: int,
) -> _Array: ...
def linear_forward(x: _Array, w: _Array, b: _Array | None) -> _Array: ...
def linear_backward_input(dy: _Array, w: _Array) -> _Array: ...
def linear_backward_weight(dy: _Array, x: _Array) -> _Array: ...
def linear_backward_bias(dy: _Array) -> _Array: ...
def max_pool_forward(
    x: _Array,
    kernel: _Ints,
    stride: _Ints | None,
    padding: _Ints,
    dilation: _Ints,
    ceil_mode: bool,
    nd: int,
    indices: _Indices,
) -> Any: ...
def max_pool_backward(
    dy: _Array,
    saved: _Array,
    x_shape: _Shape,
    kernel: _Ints,
    stride: _Ints | None,
    padding: _Ints,
    dilation: _Ints,
    ceil_mode: bool,
    nd: int,
) -> _Array: ...
def max_unpool_forward(x: _Array, indices: _Array, output_size: Sequence[int], nd: int) -> _Array: ...
def max_unpool_backward(dy: _Array, indices: _Array, nd: int) -> _Array: ...
def avg_pool_forward(
    x: _Array,
    kernel: _Ints,
    stride: _Ints | None,
    padding: _Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    nd: int,
) -> _Array: ...
def avg_pool_backward(
    dy: _Array,
    x_shape: _Shape,
    kernel: _Ints,
    stride: _Ints | None,
    padding: _Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    nd: int,
) -> _Array: ...
def lp_pool_forward(
    x: _Array, norm_type: float, kernel: _Ints, stride: _Ints | None, ceil_mode: bool, nd: int
) -> _Array: ...
def lp_pool_backward(
    dy: _Array, x: _Array, y: _Array, norm_type: float, kernel: _Ints, stride: _Ints | None, ceil_mode: bool, nd: int
) -> _Array: ...
def adaptive_avg_pool_forward(x: _Array, output_size: int | Sequence[int | None] | None, nd: int) -> _Array: ...
def adaptive_avg_pool_backward(dy: _Array, x_shape: _Shape, nd: int) -> _Array: ...
def adaptive_max_pool_forward(
    x: _Array, output_size: int | Sequence[int | None] | None, nd: int, indices: _Indices
) -> Any: ...
def adaptive_max_pool_backward(dy: _Array, saved: _Array, x_shape: _Shape, nd: int) -> _Array: ...
def batch_norm_forward(
    x: _Array,
    weight: _Array | None,
    bias: _Array | None,
    running_mean: _Array | None,
    running_var: _Array | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[_Array, _Array, _Array]: ...
def batch_norm_backward(
    dy: _Array, x: _Array, weight: _Array | None, mean: _Array, invstd: _Array, training: bool
) -> tuple[_Array, _Array, _Array]: ...
def batch_norm_relu_forward(
    x: _Array,
    weight: _Array | None,
    bias: _Array | None,
    running_mean: _Array | None,
    running_var: _Array | None,
    training: bool,
    momentum: float,
    eps: float,
    residual: _Array | None,
    max_val: float,
) -> tuple[_Array, _Array]: ...
def batch_norm_relu_backward(
    dy: _Array, x: _Array, weight: _Array | None, saved: _Array, training: bool, max_val: float
) -> tuple[_Array, _Array, _Array]: ...
def instance_norm_forward(
    x: _Array,
    weight: _Array | None,
    bias: _Array | None,
    running_mean: _Array | None,
    running_var: _Array | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
) -> tuple[_Array, _Array, _Array]: ...
def instance_norm_backward(
    dy: _Array, x: _Array, weight: _Array | None, mean: _Array, invstd: _Array, use_input_stats: bool
) -> tuple[_Array, _Array, _Array]: ...
def local_response_norm_forward(x: _Array, size: int, alpha: float, beta: float, k: float) -> _Array: ...
def local_response_norm_backward(dy: _Array, x: _Array, size: int, alpha: float, beta: float, k: float) -> _Array: ...
def add_forward(a: _Array, b: _Array, inplace: bool = False) -> _Array: ...
def cat_forward(dim: int, *arrays: _Array) -> _Array: ...
def layout_forward(x: _Array, channels_last: bool) -> _Array: ...
def relu_forward(x: _Array, inplace: bool = False) -> _Array: ...
def relu_backward(dy: _Array, y: _Array) -> _Array: ...
def hardtanh_forward(x: _Array, min_val: float, max_val: float) -> _Array: ...
def hardtanh_backward(dy: _Array, x: _Array, min_val: float, max_val: float) -> _Array: ...
def leaky_relu_forward(x: _Array, negative_slope: float) -> _Array: ...
def leaky_relu_backward(dy: _Array, x: _Array, negative_slope: float) -> _Array: ...
def prelu_forward(x: _Array, weight: _Array) -> _Array: ...
def prelu_backward(dy: _Array, x: _Array, weight: _Array) -> tuple[_Array, _Array]: ...
def conv_plan(
    op: str,
    x_shape: _Shape,
    w_shape: _Shape,
    stride: _Ints = 1,
    padding: _Padding = 0,
    dilation: _Ints = 1,
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
def set_conv_algorithm(name: str) -> None: ...
def get_conv_algorithm() -> str: ...
def fma_peak(wide: bool) -> float: ...
def tile_peak() -> float: ...
def workspace_peak() -> int: ...
def reset_workspace_peak() -> None: ...
def release_memory() -> None: ...
