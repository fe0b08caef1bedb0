"""
What a class looks like to the network
======================================

Class maximisation: images that climb the score of each class, from noise.
"""

import matplotlib.pyplot as plt
import numpy as np
from digits_network import trained

from fastconv import visualize

net, _ = trained()
figure, axes = plt.subplots(2, 5, figsize=(10, 4.4), layout="constrained")
for digit, ax in enumerate(axes.flat):
    image = visualize.maximize_unit(
        net, digit, (1, 1, 8, 8), steps=150, l2=0.3, limits=(0, 1), rng=np.random.default_rng(digit)
    )
    scores = net(image)[0]
    visualize.plot_image(image[0], title=f"{digit}: score {scores[digit]:.0f}", ax=ax)
plt.show()
