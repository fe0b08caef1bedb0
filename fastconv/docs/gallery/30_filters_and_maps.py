"""
Filters and the maps they make
==============================

The weights of the first convolution, and what each layer makes of one digit.
"""

import matplotlib.pyplot as plt
from digits_network import trained

from fastconv import visualize

net, digits = trained()
image = digits.test_images[:1]

figure, axes = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained")
visualize.plot_image(image[0], title=f"a {digits.test_labels[0]}", ax=axes[0])
visualize.plot_filters(net[0].weight, ax=axes[1])

# %%
# The maps after each rectifier; those of the last have been pooled.

found = visualize.activations(net, image, ["1", "3", "6"])
figure, axes = plt.subplots(1, 3, figsize=(10, 3.5), layout="constrained")
for ax, (name, maps) in zip(axes, found.items()):
    visualize.plot_activations(maps[0], title=f"layer {name}, {maps.shape[1]} maps", ax=ax)
plt.show()
