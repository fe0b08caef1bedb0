"""
Style transfer
==============

The content of one photograph in the colours and textures of another. Layers with random weights do for textures; VGG-19
with weights for ImageNet, as in the paper, does for brush strokes.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import fastconv as fc
from fastconv import models, visualize


def photograph(name):
    """Values from -0.5 to 0.5, (1, 3, 96, 144)."""
    pixels = load_sample_image(name).transpose(2, 0, 1)[None] / np.float32(255)
    return visualize.resize(pixels, (96, 144)).astype(np.float32) - np.float32(0.5)


content, style = photograph("china.jpg"), photograph("flower.jpg")
fc.manual_seed(0)
net = models.VGG((32, 32, "M", 64), hidden=0, pooled_size=1)
layers = ["features.1", "features.3", "features.6"]
result = visualize.style_transfer(
    net, content, style, "features.3", layers, style_weight=3e3, steps=60, lr=0.03, limits=(-0.5, 0.5)
)
print(f"style loss {result.style_losses[0]:.3g} -> {result.style_losses[-1]:.3g}")

figure, axes = plt.subplots(1, 3, figsize=(11, 2.8), layout="constrained")
for ax, image, title in zip(axes, (content, style, result.image), ("content", "style", "both")):
    visualize.plot_image(image[0] + 0.5, title=title, ax=ax)
plt.show()
