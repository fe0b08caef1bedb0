"""The NumPy reference backend: what every native kernel is held against.

Short vectorised NumPy, float64 accumulation for every dtype, one rounding of the result to the input's dtype, no native
code and no arithmetic shared with it. It offers the backend function list (see `fastconv.backend`) and validates on its
own. The modules `fastconv.reference.functional` and `fastconv.reference.loss` hold float64 twins, forward only, of the
operators that have one implementation for all backends; tests compare with them.

All functions take NumPy arrays of one dtype (float16, float32, float64 or ml_dtypes.bfloat16), positionally, and return
new arrays of that dtype; a channels-last input gives a channels-last result. Bad shapes and parameters raise
`ValueError`, bad dtypes and kinds `TypeError`, before anything is written.
"""

from .activation import (
    hardtanh_backward,
    hardtanh_forward,
    leaky_relu_backward,
    leaky_relu_forward,
    prelu_backward,
    prelu_forward,
    relu_backward,
    relu_forward,
)
from .conv import (
    conv_backward_bias,
    conv_backward_input,
    conv_backward_weight,
    conv_chain_forward,
    conv_forward,
    conv_transpose_backward_input,
    conv_transpose_backward_weight,
    conv_transpose_forward,
)
from .joining import add_forward, cat_forward
from .layout import layout_forward
from .linear import (
    linear_backward_bias,
    linear_backward_input,
    linear_backward_weight,
    linear_forward,
)
from .norm import (
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_relu_backward,
    batch_norm_relu_forward,
    instance_norm_backward,
    instance_norm_forward,
    local_response_norm_backward,
    local_response_norm_forward,
)
from .pool import (
    adaptive_avg_pool_backward,
    adaptive_avg_pool_forward,
    adaptive_max_pool_backward,
    adaptive_max_pool_forward,
    avg_pool_backward,
    avg_pool_forward,
    lp_pool_backward,
    lp_pool_forward,
    max_pool_backward,
    max_pool_forward,
    max_unpool_backward,
    max_unpool_forward,
)

__all__ = [
    "adaptive_avg_pool_backward",
    "adaptive_avg_pool_forward",
    "adaptive_max_pool_backward",
    "adaptive_max_pool_forward",
    "add_forward",
    "avg_pool_backward",
    "avg_pool_forward",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_relu_backward",
    "batch_norm_relu_forward",
    "cat_forward",
    "conv_backward_bias",
    "conv_backward_input",
    "conv_backward_weight",
    "conv_chain_forward",
    "conv_forward",
    "conv_transpose_backward_input",
    "conv_transpose_backward_weight",
    "conv_transpose_forward",
    "hardtanh_backward",
    "hardtanh_forward",
    "instance_norm_backward",
    "instance_norm_forward",
    "layout_forward",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "linear_backward_bias",
    "linear_backward_input",
    "linear_backward_weight",
    "linear_forward",
    "local_response_norm_backward",
    "local_response_norm_forward",
    "lp_pool_backward",
    "lp_pool_forward",
    "max_pool_backward",
    "max_pool_forward",
    "max_unpool_backward",
    "max_unpool_forward",
    "prelu_backward",
    "prelu_forward",
    "relu_backward",
    "relu_forward",
]
