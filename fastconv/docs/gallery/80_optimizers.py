"""
Optimisers on a surface
=======================

Four optimisers from one start on Beale's function. :func:`fastconv.visualize.descent_frames` and
:func:`fastconv.visualize.save_gif` make a film of it.
"""

import matplotlib.pyplot as plt

from fastconv import optim, visualize

makers = {
    "SGD": lambda p: optim.SGD(p, lr=1e-3),
    "momentum": lambda p: optim.SGD(p, lr=1e-3, momentum=0.9),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.02),
    "Adam": lambda p: optim.Adam(p, lr=0.05),
}
paths = visualize.descend(visualize.beale, (1.0, 1.5), makers, steps=200)
visualize.plot_descent(visualize.beale, paths, ax=plt.subplots(figsize=(6, 5))[1])

# %%
# The same as six pictures of the film.

frames = visualize.descent_frames(visualize.beale, paths, every=40, pixels=(320, 260))
figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained")
for ax, frame, step in zip(axes.flat, frames, (*range(0, 200, 40), 200)):
    ax.imshow(frame)
    ax.set(xticks=[], yticks=[], title=f"step {step}")
plt.show()
