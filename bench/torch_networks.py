"""The networks again, in torch: written from the papers and torchvision's names, as short as they can be.

The tests hold `fastconv.models` against them, the benchmark times them. torch is imported by whoever asks for one of
them, so each definition takes the module as its first argument.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


def resnet(torch: Any, bottleneck: bool, layers: tuple[int, ...], classes: int, channels: int, **o: Any) -> Any:
    nn = torch.nn
    width, groups, base = o.get("width", 64), o.get("groups", 1), o.get("base", 64)
    small, shortcut, stride_in_1x1 = o.get("small", False), o.get("shortcut", True), o.get("stride_in_1x1", False)
    expansion = 4 if bottleneck else 1

    class Block(nn.Module):
        def __init__(self, inputs: int, planes: int, stride: int) -> None:
            super().__init__()
            outputs = planes * expansion
            if bottleneck:
                inner = int(planes * (base / 64)) * groups
                first, second = (stride, 1) if stride_in_1x1 else (1, stride)
                self.conv1 = nn.Conv2d(inputs, inner, 1, first, bias=False)
                self.bn1 = nn.BatchNorm2d(inner)
                self.conv2 = nn.Conv2d(inner, inner, 3, second, 1, groups=groups, bias=False)
                self.bn2 = nn.BatchNorm2d(inner)
                self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
                self.bn3 = nn.BatchNorm2d(outputs)
            else:
                self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
                self.bn1 = nn.BatchNorm2d(planes)
                self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
                self.bn2 = nn.BatchNorm2d(planes)
            self.downsample = None
            if shortcut and (stride != 1 or inputs != outputs):
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            if bottleneck:
                y = self.bn3(self.conv3(y.relu()))
            if shortcut:
                y = y + (x if self.downsample is None else self.downsample(x))
            return y.relu()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, *((3, 1, 1) if small else (7, 2, 3)), bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
            inputs = width
            for i, blocks in enumerate(layers):
                stage = []
                for j in range(blocks):
                    stage.append(Block(inputs, width << i, 2 if i and not j else 1))
                    inputs = (width << i) * expansion
                self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            self.fc = nn.Linear(inputs, classes)

        def forward(self, x: Any) -> Any:
            x = self.maxpool(self.bn1(self.conv1(x)).relu())
            for i in range(len(layers)):
                x = getattr(self, f"layer{i + 1}")(x)
            return self.fc(x.mean((2, 3)))

    return Net()


class Features:
    """`features`, pooling to a size, `classifier`: the frame of AlexNet, VGG, ZFNet, C3D and MobileNet."""

    def __new__(cls, torch: Any, features: Any, pooled: Any, classifier: Any) -> Any:
        class Net(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features = features
                self.classifier = classifier

            def forward(self, x: Any) -> Any:
                x = self.features(x)
                pool = getattr(torch.nn.functional, f"adaptive_avg_pool{x.ndim - 2}d")
                return self.classifier(pool(x, pooled).flatten(1))

        return Net()


def vgg(torch: Any, configuration: list[Any], classes: int, channels: int, hidden: int, size: int, **o: Any) -> Any:
    nn = torch.nn
    layers = []
    for entry in configuration:
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, abs(entry), 3 if entry > 0 else 1, padding=int(entry > 0)))
        channels = abs(entry)
        layers += [nn.BatchNorm2d(channels)] if o.get("bn") else []
        layers.append(nn.ReLU())
        if o.get("lrn") and len(layers) == 2:
            layers.append(nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0))
    width, drop = channels * size**2, lambda: nn.Dropout(0.0)
    head = [nn.Linear(width, hidden), nn.ReLU(), drop(), nn.Linear(hidden, hidden), nn.ReLU(), drop()]
    head.append(nn.Linear(hidden, classes))
    return Features(torch, nn.Sequential(*layers), size, nn.Sequential(*head))


def alexnet_features(torch: Any, two_groups: bool, channels: int) -> Any:
    nn = torch.nn
    if not two_groups:
        c, lrn, g = (64, 192, 384, 256, 256), [], 1
    else:
        c, lrn, g = (96, 256, 384, 384, 256), [nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)], 2
    return nn.Sequential(
        *(nn.Conv2d(channels, c[0], 11, 4, 2), nn.ReLU(), *lrn, nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(c[0], c[1], 5, 1, 2, groups=g), nn.ReLU(), *lrn, nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(c[1], c[2], 3, 1, 1), nn.ReLU()),
        *(nn.Conv2d(c[2], c[3], 3, 1, 1, groups=g), nn.ReLU()),
        *(nn.Conv2d(c[3], c[4], 3, 1, 1, groups=g), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )


def zfnet_features(torch: Any, channels: int) -> Any:
    nn = torch.nn
    layers = []
    for inputs, outputs, kernel, stride, padding in ((channels, 96, 7, 2, 1), (96, 256, 5, 2, 0)):
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        layers.append(nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0))
    for inputs, outputs in ((256, 384), (384, 384), (384, 256)):
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2))


def _basic(torch: Any, inputs: int, outputs: int, kernel: Any, bn: bool = True, **o: Any) -> Any:
    nn = torch.nn
    layers = [("conv", nn.Conv2d(inputs, outputs, kernel, bias=not bn, **o))]
    layers += [("bn", nn.BatchNorm2d(outputs, eps=1e-3))] if bn else []
    return nn.Sequential(OrderedDict([*layers, ("relu", nn.ReLU())]))


def googlenet(torch: Any, classes: int, channels: int, width: float, paper: bool = False) -> Any:
    nn, F = torch.nn, torch.nn.functional

    def s(c: int) -> int:
        return max(1, round(c * width))

    def basic(inputs: int, outputs: int, kernel: int, **o: Any) -> Any:
        return _basic(torch, inputs, outputs, kernel, not paper, **o)

    class Inception(nn.Module):
        def __init__(self, inputs: int, a: int, b1: int, b2: int, c1: int, c2: int, d: int) -> None:
            super().__init__()
            k, p = (5, 2) if paper else (3, 1)
            self.branch1 = basic(inputs, a, 1)
            self.branch2 = nn.Sequential(basic(inputs, b1, 1), basic(b1, b2, 3, padding=1))
            self.branch3 = nn.Sequential(basic(inputs, c1, 1), basic(c1, c2, k, padding=p))
            self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), basic(inputs, d, 1))

        def forward(self, x: Any) -> Any:
            return torch.cat([branch(x) for branch in self.children()], 1)

    class Aux(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.conv = basic(inputs, s(128), 1)
            self.fc1 = nn.Linear(16 * s(128), s(1024))
            self.fc2 = nn.Linear(s(1024), classes)

        def forward(self, x: Any) -> Any:
            return self.fc2(self.fc1(self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)).relu())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = basic(channels, s(64), 7, stride=2, padding=3)
            self.conv2 = basic(s(64), s(64), 1)
            self.conv3 = basic(s(64), s(192), 3, padding=1)
            c = s(192)
            for name, row in (
                ("3a", (64, 96, 128, 16, 32, 32)),
                ("3b", (128, 128, 192, 32, 96, 64)),
                ("4a", (192, 96, 208, 16, 48, 64)),
                ("4b", (160, 112, 224, 24, 64, 64)),
                ("4c", (128, 128, 256, 24, 64, 64)),
                ("4d", (112, 144, 288, 32, 64, 64)),
                ("4e", (256, 160, 320, 32, 128, 128)),
                ("5a", (256, 160, 320, 32, 128, 128)),
                ("5b", (384, 192, 384, 48, 128, 128)),
            ):
                self.add_module(f"inception{name}", Inception(c, *map(s, row)))
                c = sum(s(row[i]) for i in (0, 2, 4, 5))
            self.aux1 = Aux(sum(map(s, (192, 208, 48, 64))))
            self.aux2 = Aux(sum(map(s, (112, 288, 64, 64))))
            self.fc = nn.Linear(c, classes)

        def forward(self, x: Any) -> Any:
            def normalize(x: Any) -> Any:
                return F.local_response_norm(x, 5, 1e-4, 0.75, 1.0) if paper else x

            def pool(x: Any, k: int = 3) -> Any:
                return F.max_pool2d(x, k, 2, ceil_mode=True)

            x = pool(normalize(self.conv3(self.conv2(normalize(pool(self.conv1(x)))))))
            x = pool(self.inception3b(self.inception3a(x)))
            a = self.inception4a(x)
            d = self.inception4d(self.inception4c(self.inception4b(a)))
            x = self.inception5b(self.inception5a(pool(self.inception4e(d), 3 if paper else 2)))
            y = self.fc(x.mean((2, 3)))
            return (y, self.aux2(d), self.aux1(a)) if self.training else y

    return Net()


def inception(torch: Any, version: int, classes: int, channels: int, width: float, aux: bool) -> Any:
    nn, F = torch.nn, torch.nn.functional

    def s(c: int) -> int:
        return max(1, round(c * width))

    class Mixed(nn.Module):
        """Branches by name; `wiring` says what is concatenated: chains of names, where a tuple at the end spreads."""

        def __init__(self, inputs: int, rows: list[Any], wiring: list[Any], pool: str) -> None:
            super().__init__()
            self.wiring, self.pool = wiring, pool
            outputs = {"x": inputs}
            for name, source, c, kernel, *stride in rows:
                pads = (
                    0
                    if stride
                    else tuple((k - 1) // 2 for k in (kernel if isinstance(kernel, tuple) else (kernel,) * 2))
                )
                layer = _basic(torch, outputs[source], c, kernel, stride=(stride or [1])[0], padding=pads)
                self.add_module(name, layer)
                outputs[name] = c
            self.sources = {row[0]: row[1] for row in rows}
            self.outputs = sum(outputs[w] for w in wiring) + (inputs if pool == "max" else 0)

        def forward(self, x: Any) -> Any:
            values = {"x": x}
            for name, source in self.sources.items():
                value = F.avg_pool2d(x, 3, 1, 1) if name == "branch_pool" else values[source]
                values[name] = getattr(self, name)(value)
            parts = [values[w] for w in self.wiring]
            return torch.cat(parts + ([F.max_pool2d(x, 3, 2)] if self.pool == "max" else []), 1)

    def module_a(c: int, pool: int, factorized: bool = False) -> Any:
        second = "branch3x3" if factorized else "branch5x5"
        rows = [
            ("branch1x1", "x", s(64), 1),
            (f"{second}_1", "x", s(48), 1),
            (f"{second}_2", f"{second}_1", s(64), 3 if factorized else 5),
            ("branch3x3dbl_1", "x", s(64), 1),
            ("branch3x3dbl_2", "branch3x3dbl_1", s(96), 3),
            ("branch3x3dbl_3", "branch3x3dbl_2", s(96), 3),
            ("branch_pool", "x", pool, 1),
        ]
        return Mixed(c, rows, ["branch1x1", f"{second}_2", "branch3x3dbl_3", "branch_pool"], "avg")

    def module_b(c: int) -> Any:
        rows = [
            ("branch3x3", "x", s(384), 3, 2),
            ("branch3x3dbl_1", "x", s(64), 1),
            ("branch3x3dbl_2", "branch3x3dbl_1", s(96), 3),
            ("branch3x3dbl_3", "branch3x3dbl_2", s(96), 3, 2),
        ]
        return Mixed(c, rows, ["branch3x3", "branch3x3dbl_3"], "max")

    def module_c(c: int, c7: int) -> Any:
        row, column = (1, 7), (7, 1)
        rows = [("branch1x1", "x", s(192), 1), ("branch7x7_1", "x", c7, 1), ("branch7x7_2", "branch7x7_1", c7, row)]
        rows += [("branch7x7_3", "branch7x7_2", s(192), column), ("branch7x7dbl_1", "x", c7, 1)]
        for i, kernel in enumerate((column, row, column, row), 2):
            rows.append((f"branch7x7dbl_{i}", f"branch7x7dbl_{i - 1}", s(192) if i == 5 else c7, kernel))
        rows.append(("branch_pool", "x", s(192), 1))
        return Mixed(c, rows, ["branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool"], "avg")

    def module_d(c: int) -> Any:
        rows = [
            ("branch3x3_1", "x", s(192), 1),
            ("branch3x3_2", "branch3x3_1", s(320), 3, 2),
            ("branch7x7x3_1", "x", s(192), 1),
            ("branch7x7x3_2", "branch7x7x3_1", s(192), (1, 7)),
            ("branch7x7x3_3", "branch7x7x3_2", s(192), (7, 1)),
            ("branch7x7x3_4", "branch7x7x3_3", s(192), 3, 2),
        ]
        return Mixed(c, rows, ["branch3x3_2", "branch7x7x3_4"], "max")

    def module_e(c: int) -> Any:
        rows = [
            ("branch1x1", "x", s(320), 1),
            ("branch3x3_1", "x", s(384), 1),
            ("branch3x3_2a", "branch3x3_1", s(384), (1, 3)),
            ("branch3x3_2b", "branch3x3_1", s(384), (3, 1)),
            ("branch3x3dbl_1", "x", s(448), 1),
            ("branch3x3dbl_2", "branch3x3dbl_1", s(384), 3),
            ("branch3x3dbl_3a", "branch3x3dbl_2", s(384), (1, 3)),
            ("branch3x3dbl_3b", "branch3x3dbl_2", s(384), (3, 1)),
            ("branch_pool", "x", s(192), 1),
        ]
        ends = ["branch3x3_2a", "branch3x3_2b", "branch3x3dbl_3a", "branch3x3dbl_3b"]
        return Mixed(c, rows, ["branch1x1", *ends, "branch_pool"], "avg")

    class Aux(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.conv0 = _basic(torch, inputs, s(128), 1, version == 3)
            self.conv1 = _basic(torch, s(128), s(768), 5, version == 3)
            self.fc = nn.Linear(s(768), classes)

        def forward(self, x: Any) -> Any:
            return self.fc(self.conv1(self.conv0(F.avg_pool2d(x, 5, 3))).mean((2, 3)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if version == 3:
                self.Conv2d_1a_3x3 = _basic(torch, channels, s(32), 3, stride=2)
                self.Conv2d_2a_3x3 = _basic(torch, s(32), s(32), 3)
                self.Conv2d_2b_3x3 = _basic(torch, s(32), s(64), 3, padding=1)
                self.maxpool1 = nn.MaxPool2d(3, 2)
                self.Conv2d_3b_1x1 = _basic(torch, s(64), s(80), 1)
                self.Conv2d_4a_3x3 = _basic(torch, s(80), s(192), 3)
                self.maxpool2 = nn.MaxPool2d(3, 2)
                c = s(192)
                plan = [("Mixed_5b", module_a, s(32)), ("Mixed_5c", module_a, s(64)), ("Mixed_5d", module_a, s(64))]
                plan += [("Mixed_6a", module_b)]
                plan += [(f"Mixed_6{x}", module_c, s(c7)) for x, c7 in zip("bcde", (128, 160, 160, 192))]
                plan += [("AuxLogits", Aux), ("Mixed_7a", module_d), ("Mixed_7b", module_e), ("Mixed_7c", module_e)]
            else:
                self.conv1 = _basic(torch, channels, s(32), 3, stride=2)
                self.conv2 = _basic(torch, s(32), s(32), 3)
                self.conv3 = _basic(torch, s(32), s(64), 3, padding=1)
                self.maxpool = nn.MaxPool2d(3, 2)
                self.conv4 = _basic(torch, s(64), s(80), 3)
                self.conv5 = _basic(torch, s(80), s(192), 3, stride=2)
                self.conv6 = _basic(torch, s(192), s(288), 3, padding=1)
                c = s(288)
                plan = [
                    ("figure5a", module_a, s(64), True),
                    ("figure5b", module_a, s(64), True),
                    ("figure5c", module_b),
                ]
                plan += [(f"figure6{x}", module_c, s(c7)) for x, c7 in zip("abcde", (128, 128, 160, 160, 192))]
                plan += [("AuxLogits", Aux), ("reduction", module_d), ("figure7a", module_e), ("figure7b", module_e)]
            for name, make, *arguments in plan:
                if name != "AuxLogits" or aux:
                    module = make(c, *arguments)
                    self.add_module(name, module)
                    c = getattr(module, "outputs", c)
            self.fc = nn.Linear(c, classes)

        def forward(self, x: Any) -> Any:
            extra = None
            for name, module in list(self.named_children())[:-1]:
                if name == "AuxLogits":
                    extra = module(x) if self.training else None
                else:
                    x = module(x)
            y = self.fc(x.mean((2, 3)))
            return y if extra is None else (y, extra)

    return Net()


def densenet(torch: Any, k: int, blocks: tuple[int, ...], init: int, classes: int, channels: int, **o: Any) -> Any:
    nn = torch.nn
    bn_size, small, theta = o.get("bn_size", 4), o.get("small", False), o.get("compression", 0.5)

    class Layer(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.norm1 = nn.BatchNorm2d(inputs)
            if bn_size:
                self.conv1 = nn.Conv2d(inputs, bn_size * k, 1, bias=False)
                self.norm2 = nn.BatchNorm2d(bn_size * k)
                self.conv2 = nn.Conv2d(bn_size * k, k, 3, padding=1, bias=False)
            else:
                self.conv1 = nn.Conv2d(inputs, k, 3, padding=1, bias=False)

        def forward(self, x: Any) -> Any:
            y = self.conv1(self.norm1(x).relu())
            return torch.cat([x, self.conv2(self.norm2(y).relu()) if bn_size else y], 1)

    layers: Any = [("conv0", nn.Conv2d(channels, init, *((3, 1, 1) if small else (7, 2, 3)), bias=False))]
    if not small:
        layers += [("norm0", nn.BatchNorm2d(init)), ("relu0", nn.ReLU()), ("pool0", nn.MaxPool2d(3, 2, 1))]
    c = init
    for i, n in enumerate(blocks, 1):
        block = OrderedDict((f"denselayer{j + 1}", Layer(c + j * k)) for j in range(n))
        layers.append((f"denseblock{i}", nn.Sequential(block)))
        c += n * k
        if i < len(blocks):
            parts: Any = [("norm", nn.BatchNorm2d(c)), ("relu", nn.ReLU())]
            parts += [("conv", nn.Conv2d(c, int(c * theta), 1, bias=False)), ("pool", nn.AvgPool2d(2))]
            layers.append((f"transition{i}", nn.Sequential(OrderedDict(parts))))
            c = int(c * theta)
    layers.append(("norm5", nn.BatchNorm2d(c)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(OrderedDict(layers))
            self.classifier = nn.Linear(c, classes)

        def forward(self, x: Any) -> Any:
            return self.classifier(self.features(x).relu().mean((2, 3)))

    return Net()


def mobilenet_v1(torch: Any, classes: int, channels: int, width: float) -> Any:
    nn = torch.nn
    c = [max(8, int(n * width)) for n in (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)]
    layers = [nn.Sequential(nn.Conv2d(channels, c[0], 3, 2, 1, bias=False), nn.BatchNorm2d(c[0]), nn.ReLU())]
    for i in range(13):
        layers.append(
            nn.Sequential(
                nn.Conv2d(c[i], c[i], 3, 2 if i in (1, 3, 5, 11) else 1, 1, groups=c[i], bias=False),
                nn.BatchNorm2d(c[i]),
                nn.ReLU(),
                nn.Conv2d(c[i], c[i + 1], 1, bias=False),
                nn.BatchNorm2d(c[i + 1]),
                nn.ReLU(),
            )
        )
    return Features(torch, nn.Sequential(*layers), 1, nn.Linear(c[-1], classes))


def mobilenet_v2(torch: Any, classes: int, channels: int, setting: Any, first: int, last: int) -> Any:
    nn = torch.nn

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6())

    class Inverted(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, t: int) -> None:
            super().__init__()
            self.add = stride == 1 and inputs == outputs
            self.conv = nn.Sequential(
                *([conv(inputs, t * inputs, 1)] if t > 1 else []),
                conv(t * inputs, t * inputs, 3, stride, t * inputs),
                nn.Conv2d(t * inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

        def forward(self, x: Any) -> Any:
            return x + self.conv(x) if self.add else self.conv(x)

    layers, c = [conv(channels, first, 3, 2)], first
    for t, out, n, stride in setting:
        for i in range(n):
            layers.append(Inverted(c, out, stride if i == 0 else 1, t))
            c = out
    layers.append(conv(c, last, 1))
    head = nn.Sequential(nn.Dropout(0.0), nn.Linear(last, classes))
    return Features(torch, nn.Sequential(*layers), 1, head)
