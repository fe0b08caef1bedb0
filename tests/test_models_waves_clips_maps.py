"""Networks of sounds, clips and pixel maps: sizes, torch definitions under one state, shapes, bad input."""

import numpy as np
import pytest

import fastconv as fc
import fastconv.nn.functional as F
from checks import torch_networks as theirs
from fastconv import models
from fastconv.models.segmentation import bilinear_kernel
from model_checks import assert_follows_torch, count, gradients_reach_all


def test_sizes():
    # Dai et al., table 1: 0.2, 0.5, 1.8, 3.7 and 4 million. C3D: 80 million for the classes of Sports-1M.
    sizes = {"m3": 0.2e6, "m5": 0.5e6, "m11": 1.8e6, "m18": 3.7e6, "m34_res": 4e6}
    for name, published in sizes.items():
        assert count(name) == pytest.approx(published, rel=0.12)
    assert count("c3d") == 79_991_015
    assert count("c3d", num_classes=101) == 78_409_573
    # The paper's 31.0 million, and 0.006 more for the normalisation in place of biases.
    assert count("unet") == 31_036_546


@pytest.mark.parametrize("residual", [False, True])
def test_waveform_network(torch, residual):
    tnn = torch.nn
    ours = models.WaveformNet([(3, 2), (5, 1)], 4, 6, 2, kernel_size=9, pool_last=not residual, residual=residual)

    class Block(tnn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.body = tnn.Sequential(*conv(inputs, outputs), tnn.ReLU(), *conv(outputs, outputs))
            self.shortcut = tnn.Identity() if inputs == outputs else tnn.Conv1d(inputs, outputs, 1)

        def forward(self, x):
            return (self.body(x) + self.shortcut(x)).relu()

    def conv(inputs, outputs):
        return tnn.Conv1d(inputs, outputs, 3, padding=1), tnn.BatchNorm1d(outputs)

    def layer(inputs, outputs):
        return [Block(inputs, outputs)] if residual else [*conv(inputs, outputs), tnn.ReLU()]

    # 164 samples: ceil(164 / 4) windows need 5 zeros, the odd one at the end.
    first = tnn.Conv1d(2, 4, 9, 4)
    stages = [*layer(4, 3), *layer(3, 3), tnn.MaxPool1d(4), *layer(3, 5), *([] if residual else [tnn.MaxPool1d(4)])]
    features = tnn.Sequential(first, tnn.BatchNorm1d(4), tnn.ReLU(), tnn.MaxPool1d(4), *stages)
    features[0].register_forward_pre_hook(lambda module, inputs: (tnn.functional.pad(inputs[0], (2, 3)),))
    net = theirs.Features(torch, features, 1, tnn.Linear(5, 6))
    assert_follows_torch(ours, net, torch, (3, 2, 164 * 4))


@pytest.mark.parametrize("name", ["m3", "m5", "m11", "m18", "m34_res"])
def test_waveform_networks_hear_the_papers_input(name):
    net = models.get_model(name, width=0.0625).eval()
    shapes = {}
    net.avgpool.register_forward_hook(lambda module, inputs, output: shapes.update(features=inputs[0].shape))
    assert net(np.zeros((1, 1, 32000), np.float32)).shape == (1, 10)
    # 32000 / 4 / 4 = 2000 samples after the first pooling, then a fourth at every other one, rounded down.
    assert shapes["features"][2] == {"m3": 500, "m5": 31, "m11": 31, "m18": 31, "m34_res": 31}[name]


def test_c3d(torch):
    tnn = torch.nn
    ours = models.C3D(5, 2, width=0.0625, batch_norm=True, dropout=0.0)
    layers, channels = [], 2
    for i, stage in enumerate([(4,), (8,), (16, 16), (32, 32), (32, 32)]):
        for out in stage:
            layers += [tnn.Conv3d(channels, out, 3, padding=1), tnn.BatchNorm3d(out), tnn.ReLU()]
            channels = out
        layers.append(tnn.MaxPool3d((1, 2, 2) if i == 0 else 2, padding=(0, 1, 1) if i == 4 else 0))
    drop = tnn.Dropout(0.0)
    head = tnn.Sequential(tnn.Linear(512, 256), tnn.ReLU(), drop, tnn.Linear(256, 256), tnn.ReLU(), drop)
    head.append(tnn.Linear(256, 5))
    net = theirs.Features(torch, tnn.Sequential(*layers), (1, 4, 4), head)
    assert_follows_torch(ours, net, torch, (2, 2, 16, 48, 32))


def _block(tnn, inputs, outputs, dilation=1):
    layers = []
    for _ in range(2):
        layers += [tnn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)]
        layers += [tnn.BatchNorm2d(outputs), tnn.ReLU()]
        inputs = outputs
    return tnn.Sequential(*layers)


def test_unet(torch):
    tnn = torch.nn

    class Net(tnn.Module):
        def __init__(self):
            super().__init__()
            self.down = tnn.ModuleList([_block(tnn, 2, 3), _block(tnn, 3, 6)])
            self.bottom = _block(tnn, 6, 12, 2)
            self.across = tnn.ModuleList([tnn.ConvTranspose2d(12, 6, 2, 2), tnn.ConvTranspose2d(6, 3, 2, 2)])
            self.up = tnn.ModuleList([_block(tnn, 12, 6), _block(tnn, 6, 3)])
            self.head = tnn.Conv2d(3, 5, 1)

        def forward(self, x):
            fine = self.down[0](x)
            coarse = self.down[1](tnn.functional.max_pool2d(fine, 2))
            x = self.bottom(tnn.functional.max_pool2d(coarse, 2))
            x = self.up[0](torch.cat([coarse, self.across[0](x)], 1))
            x = self.up[1](torch.cat([fine, self.across[1](x)], 1))
            return self.head(x)

    assert_follows_torch(models.UNet(5, 2, width=3, depth=2, dilation=2), Net(), torch, (2, 2, 8, 12))


def test_fcn(torch):
    tnn = torch.nn

    class Net(tnn.Module):
        def __init__(self):
            super().__init__()
            self.stages = tnn.ModuleList([_block(tnn, 2, 3), _block(tnn, 3, 6), _block(tnn, 6, 12)])
            self.context = _block(tnn, 12, 12, 2)
            self.scores = tnn.ModuleList([tnn.Conv2d(c, 5, 1) for c in (12, 6, 3)])
            self.enlarge = tnn.ModuleList([tnn.ConvTranspose2d(5, 5, 4, 2, 1, groups=5, bias=False) for _ in range(3)])

        def forward(self, x):
            kept = []
            for stage in self.stages:
                x = tnn.functional.max_pool2d(stage(x), 2)
                kept.append(x)
            y = self.scores[0](self.context(x))
            y = self.enlarge[0](y) + self.scores[1](kept[1])
            y = self.enlarge[1](y) + self.scores[2](kept[0])
            return self.enlarge[2](y)

    assert_follows_torch(models.FCN(5, 2, width=3, depth=3, skips=2), Net(), torch, (2, 2, 16, 8))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_scores_are_enlarged_bilinearly_at_first(torch, factor):
    x = np.random.default_rng(0).standard_normal((1, 1, 5, 6))
    y = F.conv_transpose2d(x, bilinear_kernel(factor)[None, None], stride=factor, padding=factor // 2)
    interpolate = torch.nn.functional.interpolate
    expected = interpolate(torch.tensor(x), scale_factor=factor, mode="bilinear", align_corners=False).numpy()
    inner = slice(factor, -factor)  # at the border zeros lie outside, not copies
    np.testing.assert_allclose(y[..., inner, inner], expected[..., inner, inner], rtol=1e-12)
    net = models.FCN(3, 1, width=2, depth=4, skips=1)
    for layer, f in zip(net.enlarge, (2, 8)):
        np.testing.assert_array_equal(layer.weight.data[:, 0], np.broadcast_to(bilinear_kernel(f), (3, 2 * f, 2 * f)))


def test_segmentation_learns():
    fc.manual_seed(3)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 1, 16, 16)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(np.int64)
    for net in (models.UNet(2, 1, width=4, depth=2), models.FCN(2, 1, width=8, depth=2, skips=1)):
        gradients_reach_all(net, x)
        optimizer = fc.optim.Adam(net.parameters(), lr=0.02)
        losses = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(fc.tensor(x)), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]


def test_bad_input():
    x = np.zeros((1, 1, 12, 10), np.float32)
    for message, call in (
        ("must have a height and a width divisible by 4, got shape", lambda: models.UNet(width=2, depth=2)(x)),
        ("must have a height and a width divisible by 8", lambda: models.FCN(2, 1, width=2, depth=3)(x)),
        ("divisible by 2", lambda: models.UNet(width=2, depth=1)(x[:, :, :0])),
        ("skips must be below depth=3, got 3", lambda: models.FCN(depth=3, skips=3)),
        ("depth must be at least 1, got 0", lambda: models.UNet(depth=0)),
        ("dilation must be at least 1, got 0", lambda: models.UNet(dilation=0)),
        ("factor must be even, got 3", lambda: bilinear_kernel(3)),
        ("width must be positive, got 0", lambda: models.C3D(width=0)),
        ("kernel_size must be at least 1", lambda: models.m5(kernel_size=0)),
        ("first must be at least 1", lambda: models.WaveformNet([(2, 1)], 0)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
