"""
What excites a unit
===================

The parts of the test images that excite channels of the last convolution most, each cut to what the channel can see of
it; and which part of the image that is.
"""

import matplotlib.pyplot as plt
from digits_network import trained

from fastconv import models, visualize
from fastconv.nn.init import skip_init

net, digits = trained()
print(visualize.receptive_field(net, (1, 1, 8, 8)))

figure, axes = plt.subplots(2, 4, figsize=(10, 5), layout="constrained")
for channel, ax in enumerate(axes.flat):
    found = visualize.strongest_inputs(net, digits.test_images, "6", channel, count=9)
    visualize.plot_excitations(found, ax=ax).set_title(f"channel {channel}, up to {found[0].score:.1f}")

# %%
# Receptive fields follow from the operations of any network: here those of ResNet-50's stages, larger than its images.

with skip_init():
    resnet = models.resnet50()
print(visualize.receptive_field(resnet, (1, 3, 32, 32), ["conv1", "layer1", "layer2", "layer3", "layer4"]))

field = visualize.receptive_field(net, (1, 1, 8, 8), "3")
visualize.plot_receptive_field(digits.test_images[0], field, (5, 2), ax=plt.subplots(figsize=(3, 3))[1])
plt.show()
