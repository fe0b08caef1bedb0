"""
Optimisers on a surface
=======================

Four optimisers from one start on Beale's function, as a picture and as an animated GIF.
"""

import tempfile
from pathlib import Path

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
# A film of it, of which six pictures are shown.

frames = visualize.descent_frames(visualize.beale, paths, every=40, pixels=(320, 260))
with tempfile.TemporaryDirectory() as folder:
    film = Path(folder, "descent.gif")
    visualize.save_gif(frames, film, fps=5)
    print(f"{len(frames)} frames in {film.stat().st_size:,} bytes")
figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained")
for ax, frame, step in zip(axes.flat, frames, (*range(0, 200, 40), 200)):
    ax.imshow(frame)
    ax.set(xticks=[], yticks=[], title=f"step {step}")
plt.show()
