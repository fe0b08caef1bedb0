"""A pytest plugin (``-p fake_gpu``): the simulator takes the place of a GPU, so that there is a backend "cuda"."""

import fake_cupy

fake_cupy.install()
