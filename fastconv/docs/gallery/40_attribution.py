"""
What an answer rests on
=======================

Saliency, guided backpropagation, the deconvolutional network, Grad-CAM and occlusion, for one digit of each kind.
"""

import matplotlib.pyplot as plt
import numpy as np
from digits_network import trained

from fastconv import visualize

net, digits = trained()
first = [int(np.flatnonzero(digits.test_labels == kind)[0]) for kind in (0, 3, 4, 7)]
images, labels = digits.test_images[first], digits.test_labels[first]
print("right:", labels, "answered:", net(images).argmax(axis=1))

maps = {
    "saliency": visualize.saliency(net, images, labels),
    "guided": visualize.guided_backprop(net, images, labels)[:, 0],
    "deconvnet": visualize.deconvnet(net, images, labels)[:, 0],
    "Grad-CAM": visualize.grad_cam(net, images, "6", labels),
    "occlusion": visualize.occlusion_map(net, images, labels, window=2, stride=1),
}
figure, axes = plt.subplots(len(images), 1 + len(maps), figsize=(10, 7), layout="constrained")
for row, image in zip(range(len(images)), images):
    visualize.plot_image(image, title="image" if row == 0 else None, ax=axes[row, 0])
    for ax, (name, heat) in zip(axes[row, 1:], maps.items()):
        signed = name in ("guided", "deconvnet", "occlusion")
        visualize.plot_heatmap(image, heat[row], alpha=0.8, signed=signed, title=name if row == 0 else None, ax=ax)
plt.show()
