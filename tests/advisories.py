"""Calls that broke other libraries, and what people do wrong with functions, pullbacks and layers.

The ids of the rows name the security advisory (CVE of TensorFlow) or the issue (of PyTorch) that the input is from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastconv as fc
import fastconv.nn.functional as F
from hostile import NOT_ARRAYS, B, Row, W, X, either, f32, gives, i64, name_of, raises


def _conv(x, w, stride=1, padding=0, dilation=1, groups=1, nd=2):
    return lambda b: b.conv_forward(x, w, None, stride, padding, dilation, groups, nd)


def _conv_gradients(id: str, dy, x_shape, w_shape, *names: str, stride=1, padding=0, dilation=1, nd=2) -> list[Row]:
    """Both gradients of a convolution whose three shapes contradict each other."""
    x, w = np.zeros(x_shape, np.float32), np.zeros(w_shape, np.float32)
    rest = stride, padding, dilation, 1, nd
    return [
        raises(f"{id}-dx", lambda b: b.conv_backward_input(dy, w, x_shape, *rest), *names),
        raises(f"{id}-dw", lambda b: b.conv_backward_weight(dy, x, w_shape, *rest), *names),
    ]


CONV_NAMES = ("input", "weight", "grad_output", "dy", "x", "w", "x_shape", "w_shape")
POOL_NAMES = ("grad_output", "dy", "indices", "saved", "input", "x_shape")


def _known_conv() -> Iterator[Row]:
    """Rows 1 to 9, 17, 18, 20, 22 and 24 of the table of advisories, as far as they are about convolution."""
    x = f32(1, 2, 5, 5)
    yield raises("CVE-2021-29526-filter-all-zero", _conv(x, f32(0, 0, 0, 0)), "weight")
    yield raises("CVE-2021-41209-filter-no-height", _conv(x, f32(3, 2, 0, 3)), "weight")
    yield raises("filter-no-channels", _conv(x, f32(3, 0, 3, 3)), "weight", "input")
    yield either("filter-no-outputs", _conv(x, f32(0, 2, 3, 3)), "weight", shape=(1, 0, 3, 3))
    yield either("no-channels", _conv(f32(1, 0, 5, 5), f32(3, 0, 3, 3)), "weight", "input", shape=(1, 3, 3, 3))
    yield either(
        "CVE-2022-35996-no-height-but-padding",
        _conv(f32(1, 1, 0, 2), f32(1, 1, 1, 1), padding=1),
        "input",
        shape=(1, 1, 2, 4),
    )
    yield from _conv_gradients("CVE-2021-29525", f32(52, 0, 1, 1), (52, 5, 1, 1), (0, 5, 0, 1), *CONV_NAMES)
    yield from _conv_gradients("CVE-2021-29538", f32(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), *CONV_NAMES)
    yield from _conv_gradients(
        "CVE-2021-29540-channels", f32(1, 3, 1, 1), (1, 2, 5, 5), (3, 1, 2, 2), *CONV_NAMES, stride=(66, 49)
    )
    yield from _conv_gradients("CVE-2021-29540-empty", f32(3, 8, 1, 1), (0, 5, 1, 1), (8, 1, 3, 8), *CONV_NAMES)
    yield from _conv_gradients(
        "CVE-2021-29520", f32(1, 1, 1, 1, 1), (1, 2, 1, 1, 1), (1, 1, 4, 1, 6), *CONV_NAMES, nd=3
    )
    yield from _conv_gradients("CVE-2021-29522", f32(0, 0, 0, 0, 0), (0,) * 5, (0,) * 5, *CONV_NAMES, nd=3)
    yield raises("CVE-2021-29527-filter", _conv(f32(1, 1, 3, 3), f32(1, 1, 0, 1)), "weight")
    for label, w, groups in (("conv", f32(3, 2, 3, 3), 1), ("depthwise", f32(2, 1, 3, 3), 2)):
        for name in ("stride", "dilation"):
            for value in (0, (0, 1), -1, -(2**31)):
                yield raises(
                    f"CVE-2022-21741-{label}-{name}-{value}", _conv(x, w, groups=groups, **{name: value}), name
                )
        yield either(
            f"pytorch-148275-{label}-stride-2**31",
            _conv(x, w, groups=groups, stride=2**31),
            "stride",
            shape=(1, w.shape[0], 1, 1),
        )
        yield raises(
            f"pytorch-136716-{label}-dilation-2**63-1",
            _conv(x, w, groups=groups, dilation=2**63 - 1),
            "dilation",
            "weight",
        )
    for groups in (0, -1, 3, 4, 2**31):
        yield raises(f"CVE-2023-27579-groups-{groups}", _conv(x, f32(4, 2, 3, 3), groups=groups), "groups", "weight")
    yield raises("pytorch-73193-outputs-no-multiple", _conv(x, f32(3, 1, 3, 3), groups=2), "groups", "weight")
    yield raises("CVE-2021-29566-filter", _conv(f32(1, 3, 4, 4), f32(3, 3, 0, 0), stride=40, dilation=56), "weight")
    yield raises("kernel-over-image", _conv(x, f32(3, 2, 6, 3)), "weight", "kernel_size", "input")
    yield raises("kernel-over-image-dilated", _conv(x, f32(3, 2, 3, 3), dilation=(1, 9)), "weight", "dilation", "input")
    yield raises("channels-differ", _conv(x, f32(3, 3, 3, 3)), "weight", "input", "groups")
    yield raises("bias-length", lambda b: b.conv_forward(x, f32(3, 2, 3, 3), f32(4), 1, 0, 1, 1, 2), "bias")
    for padding in (-1, (1, -1), ((0, -1), (0, 0)), "full", "SAME", ((1, 1),), ((1, 1, 1), (1, 1)), (((1,),),), [[]]):
        yield raises(f"padding-{name_of(padding)}", _conv(x, f32(3, 2, 3, 3), padding=padding), "padding")
    yield either("padding-2**40", _conv(x, f32(3, 2, 3, 3), padding=2**40), "padding", "output", "input")
    for shape in ((2**31, 1, 2**31, 1), (2**20, 2**20, 2**20, 2**20)):
        dy = np.broadcast_to(np.float32(1), (1, 1, 1, 1))
        yield raises(
            f"product-{name_of(shape)}",
            lambda b, s=shape, dy=dy: b.conv_backward_input(dy, f32(1, 1, 1, 1), s, 1, 0, 1, 1, 2),
            *CONV_NAMES,
        )
    wide = np.broadcast_to(np.float32(1), (2**20, 1, 2**10, 2**10))
    yield either("more-than-memory", _conv(wide, f32(1, 1, 1, 1)), "input")

    def transpose(x, w, stride=1, padding=0, output_padding=0, groups=1, dilation=1, nd=2):
        return lambda b: b.conv_transpose_forward(x, w, None, stride, padding, output_padding, groups, dilation, nd)

    yield raises("CVE-2023-25661", transpose(f32(1, 3, 32, 32, 0), f32(3, 2, 1, 1, 1), nd=3), "input")
    w = f32(2, 3, 3, 3)
    yield raises("transposed-output-padding", transpose(x, w, output_padding=1), "output_padding")
    yield raises("transposed-padding-over-output", transpose(x, w, padding=4), "padding")
    yield either("transposed-stride-2**62", transpose(x, w, stride=2**62), "stride", "output")
    yield raises("transposed-stride-0", transpose(x, w, stride=0), "stride")
    yield raises("transposed-groups-0", transpose(x, w, groups=0), "groups")
    yield raises("transposed-same", transpose(x, w, padding="same"), "padding")
    dy = f32(1, 3, 6, 6)
    rest = 2, 1, 1, 1, 3, 2
    yield raises("pytorch-5112-dx", lambda b: b.conv_transpose_backward_input(dy, w, x.shape, *rest), *CONV_NAMES)
    yield raises("pytorch-5112-dw", lambda b: b.conv_transpose_backward_weight(dy, x, w.shape, *rest), *CONV_NAMES)
    for nd in (0, -1, 4, True, 2.0, None):
        yield raises(f"nd-{nd}", _conv(x, f32(3, 2, 3, 3), nd=nd), "nd", "input")


def _known_pool() -> Iterator[Row]:
    """Rows 8, 10 to 16, 18, 21 and 23 of the table of advisories."""
    x = f32(1, 2, 6, 6)
    for kernel in (0, (2, 0), (2, -2), 10**20, 1e20, [], (2, 2, 0), 8608480567731124087):
        yield raises(
            f"CVE-2021-41196-max-{name_of(kernel)}",
            lambda b, k=kernel: b.max_pool_forward(x, k, 1, 0, 1, False, 2, "none"),
            "kernel_size",
        )
        yield raises(
            f"CVE-2022-35941-avg-{name_of(kernel)}",
            lambda b, k=kernel: b.avg_pool_forward(x, k, 1, 0, False, True, None, 2),
            "kernel_size",
        )
        yield raises(
            f"lp-{name_of(kernel)}", lambda b, k=kernel: b.lp_pool_forward(x, 2.0, k, 1, False, 2), "kernel_size"
        )
    for stride in (0, (1, 0), -1):
        yield raises(
            f"CVE-2025-2953-max-stride-{stride}",
            lambda b, s=stride: b.max_pool_forward(x, 2, s, 0, 1, False, 2, "none"),
            "stride",
        )
        yield raises(
            f"CVE-2021-29586-avg-stride-{stride}",
            lambda b, s=stride: b.avg_pool_forward(x, 2, s, 0, False, True, None, 2),
            "stride",
        )
    yield raises("max-padding-over-half", lambda b: b.max_pool_forward(x, 3, 1, 2, 1, False, 2, "none"), "padding")
    yield raises("avg-padding-over-half", lambda b: b.avg_pool_forward(x, 3, 1, 2, False, True, None, 2), "padding")
    yield raises("avg-divisor-0", lambda b: b.avg_pool_forward(x, 2, 2, 0, False, True, 0, 2), "divisor_override")
    shape = (-536870912,) * 4
    yield raises("CVE-2022-35968", lambda b: b.avg_pool_backward(x, shape, 2, 2, 0, False, True, None, 2), *POOL_NAMES)
    dy, saved = f32(10, 6, 3, 7, 7), i64(10, 6, 3, 7, 7)
    small = (3, 1, 1, 1, 1)
    yield raises(
        "CVE-2021-29577-max", lambda b: b.max_pool_backward(dy, saved, small, 1, 1, 0, 1, False, 3), *POOL_NAMES
    )
    yield raises(
        "CVE-2021-29577-avg", lambda b: b.avg_pool_backward(dy, small, 1, 1, 0, False, True, None, 3), *POOL_NAMES
    )
    yield raises(
        "pytorch-140923",
        lambda b: b.max_pool_backward(f32(1, 9, 3, 3), i64(1, 9, 3, 3), (1, 5, 6, 6), 2, 2, 0, 1, False, 2),
        *POOL_NAMES,
    )
    for id, shape in (("CVE-2021-29579", (1, 1, 1, 1)), ("CVE-2021-37674", (0, 0, 0, 0))):
        yield raises(
            id,
            lambda b, s=shape: b.max_pool_backward(f32(0, 0, 0, 0), i64(0, 0, 0, 0), s, 1, 1, 0, 1, False, 2),
            *POOL_NAMES,
        )
    yield raises(
        "CVE-2021-29576",
        lambda b: b.max_pool_backward(f32(11, 2, 3, 3), i64(1, 2, 3, 3), (11, 2, 6, 6), 2, 2, 0, 1, False, 2),
        *POOL_NAMES,
    )
    for value in (-1, 36, 2**31, -(2**63), 2**63 - 1):
        indices = np.where(np.arange(18).reshape(1, 2, 3, 3) == 7, value, 0)
        yield raises(
            f"pytorch-152804-unpool-{value}",
            lambda b, i=indices: b.max_unpool_forward(f32(1, 2, 3, 3), i, (6, 6), 2),
            "indices",
        )
        yield raises(
            f"pytorch-91555-unpool-backward-{value}", lambda b, i=indices: b.max_unpool_backward(x, i, 2), "indices"
        )
    for size in (-1, (1, -1), 1.5, "2", (1, 2, 3), [], 1879048192, 2**63):
        yield raises(
            f"CVE-2022-41885-adaptive-{name_of(size)}",
            lambda b, s=size: b.adaptive_avg_pool_forward(x, s, 2),
            "output_size",
            "output",
        )
        yield raises(
            f"CVE-2022-41885-adaptive-max-{name_of(size)}",
            lambda b, s=size: b.adaptive_max_pool_forward(x, s, 2, "flat"),
            "output_size",
            "output",
        )
    for size in ((1879048192, 1879048192), (-1, 6), (6, 6.0), None, "66", (2**63, 1), (True, 36)):
        yield raises(
            f"pytorch-107543-unpool-{name_of(size)}",
            lambda b, s=size: b.max_unpool_forward(f32(1, 2, 3, 3), i64(1, 2, 3, 3), s, 2),
            "output_size",
            "output",
        )
    yield gives(
        "CVE-2021-29578-adaptive-more-than-input", lambda b: b.adaptive_avg_pool_forward(x, (9, 7), 2), (1, 2, 9, 7)
    )
    yield gives(
        "pytorch-47054-permuted",
        lambda b: b.max_pool_forward(f32(6, 5, 4).transpose(1, 2, 0), 2, None, 0, 1, False, 1, "none"),
        (5, 4, 3),
    )
    for mode in (None, True, "both", 1, b"flat"):
        yield raises(
            f"indices-{name_of(mode)}", lambda b, m=mode: b.max_pool_forward(x, 2, 2, 0, 1, False, 2, m), "indices"
        )
    strange = {
        "object": object(),
        "None": None,
        "float": f32(1, 2, 3, 3),
        "tuple": (i64(1, 2, 3, 3),),
        "rank": i64(1, 2, 3),
        "negative": i64(1, 2, 3, 3) - 7,
    }
    for what, saved in strange.items():
        yield raises(
            f"saved-{what}",
            lambda b, s=saved: b.max_pool_backward(f32(1, 2, 3, 3), s, x.shape, 2, 2, 0, 1, False, 2),
            "indices",
            "saved",
        )
    yield raises(
        "CVE-2021-41223",
        lambda b: b.batch_norm_backward(f32(1, 3, 1, 3), f32(1, 2, 1, 1), f32(2), f32(2), f32(3), True),
        "grad_output",
        "dy",
        "invstd",
    )
    yield raises(
        "batch-norm-one-value",
        lambda b: b.batch_norm_forward(f32(1, 3, 1, 1), None, None, None, None, True, 0.1, 1e-5),
        "input",
        "training",
    )
    yield raises(
        "batch-norm-no-statistics",
        lambda b: b.batch_norm_forward(f32(2, 3), None, None, None, None, False, 0.1, 1e-5),
        "running_mean",
        "training",
    )
    for size in (0, -1, 1.5):
        yield raises(f"local-response-{size}", lambda b, s=size: b.local_response_norm_forward(x, s, 1, 1, 1), "size")
    yield raises("hardtanh-limits", lambda b: b.hardtanh_forward(x, 1.0, -1.0), "min_val", "max_val")
    yield raises("prelu-count", lambda b: b.prelu_forward(x, f32(3)), "weight")
    yield raises("linear-features", lambda b: b.linear_forward(f32(2, 5), f32(3, 4), None), "weight", "input")


FUNCTIONAL: dict[str, tuple[Callable[[], Any], tuple[np.ndarray, ...], dict[str, Any]]] = {
    "conv1d": (lambda: F.conv1d, (f32(2, 3, 9), f32(4, 3, 3), f32(4)), {}),
    "conv2d": (lambda: F.conv2d, (X, W, B), {"groups": 2}),
    "conv3d": (lambda: F.conv3d, (f32(1, 2, 3, 3, 3), f32(2, 2, 2, 2, 2)), {}),
    "conv_transpose2d": (lambda: F.conv_transpose2d, (X, f32(4, 3, 2, 2)), {"stride": 2}),
    "max_pool2d": (lambda: F.max_pool2d, (X,), {"kernel_size": 2}),
    "avg_pool2d": (lambda: F.avg_pool2d, (X,), {"kernel_size": 2}),
    "lp_pool2d": (lambda: F.lp_pool2d, (X,), {"norm_type": 2, "kernel_size": 2}),
    "adaptive_avg_pool2d": (lambda: F.adaptive_avg_pool2d, (X,), {"output_size": 3}),
    "adaptive_max_pool2d": (lambda: F.adaptive_max_pool2d, (X,), {"output_size": 3}),
    "batch_norm": (lambda: F.batch_norm, (X,), {"running_mean": None, "running_var": None, "training": True}),
    "instance_norm": (lambda: F.instance_norm, (X,), {}),
    "local_response_norm": (lambda: F.local_response_norm, (X,), {"size": 3}),
    "linear": (lambda: F.linear, (f32(3, 5), f32(4, 5), f32(4)), {}),
    "relu": (lambda: F.relu, (X,), {}),
    "leaky_relu": (lambda: F.leaky_relu, (X,), {}),
    "prelu": (lambda: F.prelu, (X, f32(4)), {}),
}

INPUTS = ("input", "weight", "bias", "grad_output", "x", "w", "b", "dy", "grad")


def _functional() -> Iterator[Row]:
    """What people hand to functions and to pullbacks in place of an array, and gradients that do not fit."""
    for name, (function, arrays, options) in FUNCTIONAL.items():
        for what, spoil in NOT_ARRAYS.items():
            if what == "list":
                continue
            yield raises(
                f"F.{name}-{what}",
                lambda b, f=function, a=arrays, o=options, s=spoil: f()(s(a[0]), *a[1:], **o),
                *INPUTS,
            )
        for what, gradient in {
            "shape": lambda y: np.ones((*y.shape[:-1], y.shape[-1] + 1), np.float32),
            "rank": lambda y: y[0],
            "0d": lambda y: np.float32(1),
            "batch": lambda y: np.repeat(y, 2, 0),
            "empty": lambda y: y[:0],
            "float64": lambda y: y.astype(np.float64),
            "int": lambda y: y.astype(np.int32),
            "big_endian": lambda y: y.astype(">f4"),
            "None": lambda y: None,
            "object": lambda y: y.astype(object),
        }.items():

            def call(b, function=function, arrays=arrays, options=options, gradient=gradient):
                y, pullback = function().vjp(*arrays, **options)
                return pullback(gradient(y))

            yield raises(f"F.{name}.vjp-{what}", call, *INPUTS)


def _layers() -> Iterator[Row]:
    """Constructors of layers with parameters that no call could use; what is only known at the call fails there."""

    def build(layer: str, *arguments: Any, x: np.ndarray = X, **options: Any) -> Callable[[Any], Any]:
        return lambda b: getattr(fc.nn, layer)(*arguments, **options)(x)

    for name in ("stride", "dilation"):
        for value in (0, -1, (1, 0), 1.5, "1", True, (1, 1, 1), [], None):
            yield raises(f"nn.Conv2d-{name}-{name_of(value)}", build("Conv2d", 4, 6, 3, **{name: value}), name)
    for value in (0, -1, (3, 0), 1.5, "3", [], (3, 3, 3), None, True):
        yield raises(f"nn.Conv2d-kernel_size-{name_of(value)}", build("Conv2d", 4, 6, value), "kernel_size")
        yield raises(
            f"nn.ConvTranspose2d-kernel_size-{name_of(value)}", build("ConvTranspose2d", 4, 6, value), "kernel_size"
        )
        yield raises(f"nn.MaxPool2d-kernel_size-{name_of(value)}", build("MaxPool2d", value), "kernel_size")
        yield raises(f"nn.AvgPool2d-kernel_size-{name_of(value)}", build("AvgPool2d", value), "kernel_size")
    for value in (0, -1, 3, 1.0, "2", None, True):
        yield raises(
            f"nn.Conv2d-groups-{name_of(value)}", build("Conv2d", 4, 6, 3, groups=value), "groups", "in_channels"
        )
    for value in (-1, (1, -1), 1.5, "full", True, (1, 1, 1)):
        yield raises(f"nn.Conv2d-padding-{name_of(value)}", build("Conv2d", 4, 6, 3, padding=value), "padding")
    yield raises("nn.Conv2d-padding_mode", build("Conv2d", 4, 6, 3, padding=1, padding_mode="mirror"), "padding_mode")
    for value in (-1, 1.5, "4", None, True):
        yield raises(f"nn.Conv2d-in_channels-{value}", build("Conv2d", value, 6, 3), "in_channels")
        yield raises(f"nn.Conv2d-out_channels-{value}", build("Conv2d", 4, value, 3), "out_channels")
        yield raises(f"nn.BatchNorm2d-num_features-{value}", build("BatchNorm2d", value), "num_features")
        yield raises(f"nn.Linear-in_features-{value}", build("Linear", value, 2), "in_features")
    yield raises("nn.Conv2d-channels", build("Conv2d", 5, 6, 3), "weight", "input", "groups")
    yield raises("nn.Conv2d-rank", build("Conv2d", 4, 6, 3, x=f32(4, 4)), "input")
    yield raises("nn.BatchNorm2d-channels", build("BatchNorm2d", 5), "input", "weight", "running_mean", "num_features")
    yield raises("nn.BatchNorm2d-rank", build("BatchNorm2d", 4, x=f32(4, 4)), "input")
    yield raises("nn.MaxPool2d-rank", build("MaxPool2d", 2, x=f32(4, 4)), "input", "x")
    yield raises("nn.MaxPool2d-window", build("MaxPool2d", 7), "kernel_size", "input")
    yield raises("nn.Linear-features", build("Linear", 5, 2), "input", "weight")
    for value in (-0.1, 1.1, "0.5", None):
        yield raises(f"nn.Dropout-p-{value}", build("Dropout", value), "p")
    yield raises(
        "nn.ConvTranspose2d-output_padding", build("ConvTranspose2d", 4, 6, 3, output_padding=1), "output_padding"
    )


def known_rows() -> Iterator[Row]:
    """All rows of this module."""
    yield from _known_conv()
    yield from _known_pool()
    yield from _functional()
    yield from _layers()
