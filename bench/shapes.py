"""The list of named shapes that tests and benchmarks share.

``CONVS``, ``POOLS`` and ``NORMS`` are layers of well-known networks at their published input size (224 x 224 for the
ImageNet networks, 28 x 28 for the digit networks), each distinct layer once. ``AWKWARD`` holds small convolutions that
straddle tile edges or combine options in ways networks do not; only the tests use it. ``shrink`` makes a test-sized
case of a network's layer.

Sizes are named as in the field: input N C H W, filter K C/groups R S, output N K P Q. ``padding`` is one
(before, after) pair a dimension; ``stride`` and ``dilation`` are one number a dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

BATCH = 8


def _windows(size: int, kernel: int, stride: int, pads: Pair, dilation: int = 1, ceil_mode: bool = False) -> int:
    """Number of window positions along one dimension, as torch counts them."""
    span = size + sum(pads) - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    # The last window must start inside the input or the padding before it.
    return count - 1 if (count - 1) * stride >= size + pads[0] else count


@dataclass(frozen=True)
class ConvCase:
    """One convolution: input (N, C, H, W), filters (K, C // groups, R, S), output (N, K, P, Q)."""

    name: str
    network: str
    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: Pair = (1, 1)
    padding: Pads = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def P(self) -> int:
        return _windows(self.H, self.R, self.stride[0], self.padding[0], self.dilation[0])

    @property
    def Q(self) -> int:
        return _windows(self.W, self.S, self.stride[1], self.padding[1], self.dilation[1])

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        return self.K, self.C // self.groups, self.R, self.S

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.K, self.P, self.Q

    @property
    def depthwise(self) -> bool:
        return self.groups == self.C > 1

    @property
    def terms(self) -> int:
        """Products summed into one output element."""
        return self.C // self.groups * self.R * self.S

    @property
    def flops(self) -> int:
        """Multiplications and additions of the forward pass (each gradient has as many)."""
        return 2 * self.N * self.K * self.P * self.Q * self.terms

    def __str__(self) -> str:
        return f"{self.network}-{self.name}"


@dataclass(frozen=True)
class PoolCase:
    """One pooling layer; `kind` is "max", "avg" or "adaptive_avg" (then `kernel` is the output size)."""

    name: str
    network: str
    kind: str
    N: int
    C: int
    H: int
    W: int
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil_mode: bool = False

    @property
    def P(self) -> int:
        return self._outputs(0, self.H)

    @property
    def Q(self) -> int:
        return self._outputs(1, self.W)

    def _outputs(self, i: int, size: int) -> int:
        if self.kind == "adaptive_avg":
            return self.kernel[i]
        pads = (self.padding[i], self.padding[i])
        return _windows(size, self.kernel[i], self.stride[i], pads, ceil_mode=self.ceil_mode)

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.P, self.Q

    def __str__(self) -> str:
        return f"{self.network}-{self.name}"


@dataclass(frozen=True)
class NormCase:
    """One normalisation layer; `kind` is "batch" or "local_response" (then `size` is its window)."""

    name: str
    network: str
    kind: str
    N: int
    C: int
    H: int
    W: int
    size: int = 5

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    def __str__(self) -> str:
        return f"{self.network}-{self.name}"


def _conv(
    network: str, name: str, C: int, H: int, K: int, R: int, stride: int = 1, pad: int = 0, groups: int = 1
) -> ConvCase:
    """A square layer of a network."""
    pads = ((pad, pad), (pad, pad))
    return ConvCase(name, network, BATCH, C, H, H, K, R, R, (stride, stride), pads, (1, 1), groups)


def _depthwise(network: str, name: str, C: int, H: int, stride: int) -> ConvCase:
    return _conv(network, name, C, H, C, 3, stride, 1, groups=C)


CONVS: tuple[ConvCase, ...] = (
    # ResNet-50 (He et al. 2015, torchvision's variant: the stride is in the 3x3).
    _conv("resnet50", "conv1", 3, 224, 64, 7, 2, 3),
    _conv("resnet50", "conv2a_1x1", 64, 56, 64, 1),
    _conv("resnet50", "conv2_3x3", 64, 56, 64, 3, 1, 1),
    _conv("resnet50", "conv2_expand", 64, 56, 256, 1),
    _conv("resnet50", "conv2_reduce", 256, 56, 64, 1),
    _conv("resnet50", "conv3a_reduce", 256, 56, 128, 1),
    _conv("resnet50", "conv3a_3x3_s2", 128, 56, 128, 3, 2, 1),
    _conv("resnet50", "conv3a_skip_s2", 256, 56, 512, 1, 2),
    _conv("resnet50", "conv3_expand", 128, 28, 512, 1),
    _conv("resnet50", "conv3_reduce", 512, 28, 128, 1),
    _conv("resnet50", "conv3_3x3", 128, 28, 128, 3, 1, 1),
    _conv("resnet50", "conv4a_reduce", 512, 28, 256, 1),
    _conv("resnet50", "conv4a_3x3_s2", 256, 28, 256, 3, 2, 1),
    _conv("resnet50", "conv4a_skip_s2", 512, 28, 1024, 1, 2),
    _conv("resnet50", "conv4_expand", 256, 14, 1024, 1),
    _conv("resnet50", "conv4_reduce", 1024, 14, 256, 1),
    _conv("resnet50", "conv4_3x3", 256, 14, 256, 3, 1, 1),
    _conv("resnet50", "conv5a_reduce", 1024, 14, 512, 1),
    _conv("resnet50", "conv5a_3x3_s2", 512, 14, 512, 3, 2, 1),
    _conv("resnet50", "conv5a_skip_s2", 1024, 14, 2048, 1, 2),
    _conv("resnet50", "conv5_expand", 512, 7, 2048, 1),
    _conv("resnet50", "conv5_reduce", 2048, 7, 512, 1),
    _conv("resnet50", "conv5_3x3", 512, 7, 512, 3, 1, 1),
    # VGG-16 (Simonyan and Zisserman 2014).
    _conv("vgg16", "conv1_1", 3, 224, 64, 3, 1, 1),
    _conv("vgg16", "conv1_2", 64, 224, 64, 3, 1, 1),
    _conv("vgg16", "conv2_1", 64, 112, 128, 3, 1, 1),
    _conv("vgg16", "conv2_2", 128, 112, 128, 3, 1, 1),
    _conv("vgg16", "conv3_1", 128, 56, 256, 3, 1, 1),
    _conv("vgg16", "conv3_2", 256, 56, 256, 3, 1, 1),
    _conv("vgg16", "conv4_1", 256, 28, 512, 3, 1, 1),
    _conv("vgg16", "conv4_2", 512, 28, 512, 3, 1, 1),
    _conv("vgg16", "conv5", 512, 14, 512, 3, 1, 1),
    # GoogLeNet (Szegedy et al. 2014).
    _conv("googlenet", "conv3", 64, 56, 192, 3, 1, 1),
    _conv("googlenet", "3a_1x1", 192, 28, 64, 1),
    _conv("googlenet", "3a_3x3_reduce", 192, 28, 96, 1),
    _conv("googlenet", "3a_3x3", 96, 28, 128, 3, 1, 1),
    _conv("googlenet", "3a_5x5_reduce", 192, 28, 16, 1),
    _conv("googlenet", "3a_5x5", 16, 28, 32, 5, 1, 2),
    _conv("googlenet", "4a_1x1", 480, 14, 192, 1),
    _conv("googlenet", "4a_3x3", 96, 14, 208, 3, 1, 1),
    _conv("googlenet", "4a_5x5", 16, 14, 48, 5, 1, 2),
    _conv("googlenet", "4e_3x3", 160, 14, 320, 3, 1, 1),
    _conv("googlenet", "5b_1x1", 832, 7, 384, 1),
    _conv("googlenet", "5b_3x3", 192, 7, 384, 3, 1, 1),
    _conv("googlenet", "5b_5x5", 48, 7, 128, 5, 1, 2),
    # AlexNet (Krizhevsky 2014, the one-column variant that torchvision has).
    _conv("alexnet", "conv1", 3, 224, 64, 11, 4, 2),
    _conv("alexnet", "conv2", 64, 27, 192, 5, 1, 2),
    _conv("alexnet", "conv3", 192, 13, 384, 3, 1, 1),
    _conv("alexnet", "conv4", 384, 13, 256, 3, 1, 1),
    _conv("alexnet", "conv5", 256, 13, 256, 3, 1, 1),
    # MobileNetV2 (Sandler et al. 2018): depthwise 3x3 between pointwise layers.
    _conv("mobilenetv2", "conv1", 3, 224, 32, 3, 2, 1),
    _depthwise("mobilenetv2", "dw1", 32, 112, 1),
    _conv("mobilenetv2", "pw1_project", 32, 112, 16, 1),
    _conv("mobilenetv2", "pw2_expand", 16, 112, 96, 1),
    _depthwise("mobilenetv2", "dw2_s2", 96, 112, 2),
    _conv("mobilenetv2", "pw2_project", 96, 56, 24, 1),
    _conv("mobilenetv2", "pw3_expand", 24, 56, 144, 1),
    _depthwise("mobilenetv2", "dw3", 144, 56, 1),
    _depthwise("mobilenetv2", "dw4_s2", 144, 56, 2),
    _conv("mobilenetv2", "pw4_project", 144, 28, 32, 1),
    _conv("mobilenetv2", "pw5_expand", 32, 28, 192, 1),
    _depthwise("mobilenetv2", "dw5", 192, 28, 1),
    _depthwise("mobilenetv2", "dw7_s2", 192, 28, 2),
    _conv("mobilenetv2", "pw8_expand", 64, 14, 384, 1),
    _depthwise("mobilenetv2", "dw8", 384, 14, 1),
    _conv("mobilenetv2", "pw11_project", 384, 14, 96, 1),
    _depthwise("mobilenetv2", "dw12", 576, 14, 1),
    _depthwise("mobilenetv2", "dw14_s2", 576, 14, 2),
    _conv("mobilenetv2", "pw15_expand", 160, 7, 960, 1),
    _depthwise("mobilenetv2", "dw15", 960, 7, 1),
    _conv("mobilenetv2", "pw17_project", 960, 7, 320, 1),
    _conv("mobilenetv2", "last", 320, 7, 1280, 1),
    # DenseNet-121 (Huang et al. 2016).
    _conv("densenet121", "block1_bottleneck", 64, 56, 128, 1),
    _conv("densenet121", "block1_3x3", 128, 56, 32, 3, 1, 1),
    _conv("densenet121", "transition1", 256, 56, 128, 1),
    _conv("densenet121", "block2_3x3", 128, 28, 32, 3, 1, 1),
    _conv("densenet121", "transition2", 512, 28, 256, 1),
    _conv("densenet121", "block3_bottleneck", 1024, 14, 128, 1),
    _conv("densenet121", "block3_3x3", 128, 14, 32, 3, 1, 1),
    _conv("densenet121", "transition3", 1024, 14, 512, 1),
    _conv("densenet121", "block4_bottleneck", 1024, 7, 128, 1),
    _conv("densenet121", "block4_3x3", 128, 7, 32, 3, 1, 1),
    # LeNet-5 (LeCun et al. 1998) and the small MNIST network of Keras' examples.
    _conv("lenet", "conv1", 1, 28, 6, 5, 1, 2),
    _conv("lenet", "conv2", 6, 14, 16, 5),
    _conv("lenet", "conv3", 16, 5, 120, 5),
    _conv("keras_mnist", "conv1", 1, 28, 32, 3),
    _conv("keras_mnist", "conv2", 32, 13, 64, 3),
)


def _pool(
    network: str, name: str, kind: str, C: int, H: int, kernel: int, stride: int, pad: int = 0, ceil: bool = False
) -> PoolCase:
    return PoolCase(name, network, kind, BATCH, C, H, H, (kernel, kernel), (stride, stride), (pad, pad), ceil)


POOLS: tuple[PoolCase, ...] = (
    _pool("resnet50", "maxpool", "max", 64, 112, 3, 2, 1),
    _pool("resnet50", "global", "adaptive_avg", 2048, 7, 1, 1),
    _pool("vgg16", "pool1", "max", 64, 224, 2, 2),
    _pool("vgg16", "pool2", "max", 128, 112, 2, 2),
    _pool("vgg16", "pool3", "max", 256, 56, 2, 2),
    _pool("vgg16", "pool4", "max", 512, 28, 2, 2),
    _pool("vgg16", "pool5", "max", 512, 14, 2, 2),
    _pool("googlenet", "maxpool1", "max", 64, 112, 3, 2, 0, True),
    _pool("googlenet", "maxpool2", "max", 192, 56, 3, 2, 0, True),
    _pool("googlenet", "maxpool3", "max", 480, 28, 3, 2, 0, True),
    _pool("googlenet", "maxpool4", "max", 832, 14, 2, 2, 0, True),
    _pool("googlenet", "3a_branch", "max", 192, 28, 3, 1, 1),
    _pool("googlenet", "4a_branch", "max", 480, 14, 3, 1, 1),
    _pool("googlenet", "5a_branch", "max", 832, 7, 3, 1, 1),
    _pool("googlenet", "global", "avg", 1024, 7, 7, 1),
    _pool("alexnet", "pool1", "max", 64, 55, 3, 2),
    _pool("alexnet", "pool2", "max", 192, 27, 3, 2),
    _pool("alexnet", "pool5", "max", 256, 13, 3, 2),
    _pool("mobilenetv2", "global", "adaptive_avg", 1280, 7, 1, 1),
    _pool("densenet121", "transition1", "avg", 128, 56, 2, 2),
    _pool("densenet121", "transition2", "avg", 256, 28, 2, 2),
    _pool("densenet121", "transition3", "avg", 512, 14, 2, 2),
    _pool("lenet", "pool1", "avg", 6, 28, 2, 2),
    _pool("lenet", "pool2", "avg", 16, 10, 2, 2),
    _pool("keras_mnist", "pool1", "max", 32, 26, 2, 2),
    _pool("keras_mnist", "pool2", "max", 64, 11, 2, 2),
)


def _norm(network: str, name: str, C: int, H: int, kind: str = "batch") -> NormCase:
    return NormCase(name, network, kind, BATCH, C, H, H)


NORMS: tuple[NormCase, ...] = (
    _norm("resnet50", "bn1", 64, 112),
    _norm("resnet50", "conv2_bn", 64, 56),
    _norm("resnet50", "conv2_bn_expand", 256, 56),
    _norm("resnet50", "conv3_bn", 128, 28),
    _norm("resnet50", "conv3_bn_expand", 512, 28),
    _norm("resnet50", "conv4_bn", 256, 14),
    _norm("resnet50", "conv4_bn_expand", 1024, 14),
    _norm("resnet50", "conv5_bn", 512, 7),
    _norm("resnet50", "conv5_bn_expand", 2048, 7),
    _norm("mobilenetv2", "bn1", 32, 112),
    _norm("mobilenetv2", "bn2_expand", 96, 112),
    _norm("mobilenetv2", "bn3_expand", 144, 56),
    _norm("mobilenetv2", "bn5_expand", 192, 28),
    _norm("mobilenetv2", "bn12_expand", 576, 14),
    _norm("mobilenetv2", "bn15_expand", 960, 7),
    _norm("densenet121", "transition1_bn", 256, 56),
    _norm("densenet121", "transition2_bn", 512, 28),
    _norm("alexnet", "lrn1", 96, 55, "local_response"),
    _norm("alexnet", "lrn2", 256, 27, "local_response"),
    _norm("googlenet", "lrn1", 64, 56, "local_response"),
    _norm("googlenet", "lrn2", 192, 56, "local_response"),
)


# One below, at and one above the tile and vector widths that kernels use.
EDGES = (1, 2, 3, 6, 7, 8, 13, 14, 15, 16, 17, 31, 32, 33, 47, 48, 49)


def _awkward(name: str, C: int, H: int, W: int, K: int, R: int = 3, S: int = 3, N: int = 2, **options) -> ConvCase:
    return ConvCase(name, "awkward", N, C, H, W, K, R, S, **options)


_ONE = ((1, 1), (1, 1))

AWKWARD: tuple[ConvCase, ...] = (
    *(_awkward(f"C{n}", n, 5, 9, 3, padding=_ONE) for n in EDGES),
    *(_awkward(f"K{n}", 3, 5, 9, n, padding=_ONE) for n in EDGES),
    *(_awkward(f"W{n}", 3, 4, n, 5, padding=_ONE) for n in EDGES),
    *(_awkward(f"W{n}_s2", 4, 5, n, 6, stride=(2, 2), padding=_ONE) for n in EDGES),
    *(_awkward(f"C{n}_K{n}_1x1", n, 3, 7, n, 1, 1) for n in EDGES),
    *(_awkward(f"depthwise_C{n}", n, 6, 7, n, padding=_ONE, groups=n) for n in EDGES if n > 1),
    *(_awkward(f"depthwise_W{n}", 4, 4, n, 4, padding=_ONE, groups=4) for n in EDGES),
    *(
        _awkward(
            f"depthwise_{k}x{k}_s{s}",
            18,
            13,
            11,
            18,
            k,
            k,
            stride=(s, s),
            groups=18,
            padding=((k // 2, k // 2), (k // 2, k // 2)),
        )
        for k in (3, 4, 5, 6, 7)
        for s in (1, 2)
    ),
    _awkward("depthwise_multiplier2", 6, 7, 9, 12, groups=6, padding=_ONE),
    _awkward("depthwise_dilated", 17, 11, 12, 17, groups=17, padding=((2, 2), (2, 2)), dilation=(2, 2)),
    _awkward("depthwise_asymmetric", 5, 7, 8, 5, groups=5, padding=((0, 1), (2, 0)), stride=(2, 1)),
    _awkward("one_pixel", 1, 1, 1, 1, 1, 1, N=1),
    _awkward("one_pixel_many_channels", 37, 1, 1, 41, 1, 1, N=1),
    _awkward("kernel_is_image", 5, 4, 6, 7, 4, 6),
    _awkward("single_image", 7, 9, 10, 11, N=1, padding=_ONE),
    _awkward("empty_batch", 3, 5, 6, 4, N=0, padding=_ONE),
    _awkward("prime_sizes", 11, 13, 19, 23, 5, 3, N=3, padding=((2, 2), (1, 1))),
    _awkward("row_kernel", 5, 6, 17, 4, 1, 7, padding=((0, 0), (3, 3))),
    _awkward("column_kernel", 5, 17, 6, 4, 7, 1, padding=((3, 3), (0, 0))),
    _awkward("even_kernel", 4, 8, 9, 6, 2, 4, padding=((1, 1), (2, 2))),
    _awkward("stride_over_kernel", 4, 11, 13, 5, 2, 2, stride=(3, 4)),
    _awkward("stride_over_image", 3, 5, 6, 4, 3, 3, stride=(9, 7), padding=_ONE),
    _awkward("stride_2_1x1", 9, 8, 9, 10, 1, 1, stride=(2, 2)),
    _awkward("mixed_stride", 5, 9, 14, 6, stride=(1, 3), padding=_ONE),
    _awkward("asymmetric_padding", 4, 7, 8, 5, padding=((0, 2), (3, 1))),
    _awkward("asymmetric_padding_s2", 4, 7, 9, 5, stride=(2, 2), padding=((0, 1), (0, 1))),
    _awkward("padding_over_kernel", 3, 4, 4, 4, padding=((4, 4), (5, 3))),
    _awkward("padded_1x1", 3, 4, 5, 4, 1, 1, padding=_ONE),
    _awkward("dilation_2", 5, 9, 11, 6, dilation=(2, 2), padding=((2, 2), (2, 2))),
    _awkward("dilation_3_2_stride_2", 4, 13, 12, 5, stride=(2, 2), dilation=(3, 2), padding=((3, 3), (2, 2))),
    _awkward("dilation_reaches_only_padding", 3, 3, 3, 4, dilation=(4, 4), padding=((4, 4), (4, 4))),
    _awkward("groups_2", 6, 7, 8, 10, padding=_ONE, groups=2),
    _awkward("groups_of_16", 32, 5, 7, 48, padding=_ONE, groups=2),
    _awkward("groups_of_17", 34, 5, 7, 30, padding=_ONE, groups=2, stride=(2, 2)),
    _awkward("groups_8", 16, 6, 6, 24, padding=_ONE, groups=8),
    _awkward("groups_1x1", 12, 5, 6, 8, 1, 1, groups=4),
    _awkward("large_kernel", 3, 17, 16, 4, 11, 11, stride=(4, 4), padding=((2, 2), (2, 2))),
    _awkward("image_stem", 3, 15, 18, 17, 7, 7, stride=(2, 2), padding=((3, 3), (3, 3))),
    _awkward("many_terms", 150, 5, 6, 20, padding=_ONE),
)


def shrink(case: ConvCase, channels: int = 12, space: int = 12, batch: int = 2) -> ConvCase:
    """The same structure (kernel, stride, padding, dilation, depthwise or grouped) with sizes capped for a test.

    >>> print(shrink(CONVS[0]).x_shape)
    (2, 3, 12, 12)
    """
    groups = min(case.groups, channels)
    per_group = max(1, channels // groups)
    C = groups * min(case.C // case.groups, per_group)
    K = groups * min(case.K // case.groups, per_group)
    # At least the dilated kernel plus one stride, so that the layer still has more than one window.
    H = min(case.H, max(space, case.dilation[0] * (case.R - 1) + 1 + case.stride[0]))
    W = min(case.W, max(space, case.dilation[1] * (case.S - 1) + 1 + case.stride[1]))
    return replace(case, N=min(case.N, batch), C=C, H=H, W=W, K=K, groups=groups)
