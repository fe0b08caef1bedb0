"""
DeepDream
=========

A photograph, changed so that what a layer finds in it grows, from small sizes to its own. The network here has VGG's
first layers with random weights; with weights for ImageNet (``net.load_state_dict(fc.load("vgg16.safetensors"))``) the
same lines bring the dogs and pagodas.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import fastconv as fc
from fastconv import models, visualize

photo = load_sample_image("china.jpg").transpose(2, 0, 1)[None] / np.float32(255)
photo = visualize.resize(photo, (160, 240)).astype(np.float32)
fc.manual_seed(1)
net = models.VGG((24, 24, "M", 48, 48, "M", 96), hidden=0, pooled_size=1)

dream = visualize.deep_dream(
    net,
    photo - 0.5,
    "features.8",
    octaves=3,
    steps=6,
    lr=0.015,
    jitter=8,
    limits=(-0.5, 0.5),
    rng=np.random.default_rng(0),
)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
visualize.plot_image(photo[0], title="photograph", ax=axes[0])
visualize.plot_image(dream[0] + 0.5, title="dream", ax=axes[1])
plt.show()
