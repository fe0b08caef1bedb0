"""How optimisers go down a function of two variables: their paths, as arrays and as a film."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.nn.modules.arguments import size
from fastconv.optim import Optimizer
from fastconv.tape import enable_grad
from fastconv.tensor import Tensor
from fastconv.visualize.plots import canvas, draw_surface, extra

__all__ = ["beale", "descend", "descent_frames", "rosenbrock", "saddle", "save_gif"]


def rosenbrock(x: Any, y: Any) -> Any:
    """Rosenbrock's valley, ``(1 - x)**2 + 100 (y - x**2)**2``: a bent, nearly flat floor with its minimum at (1, 1).

    Examples
    --------
    >>> from fastconv.visualize import rosenbrock
    >>> rosenbrock(1.0, 1.0), rosenbrock(0.0, 1.0)
    (0.0, 101.0)
    """
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def beale(x: Any, y: Any) -> Any:
    """Beale's function: plateaus and steep walls, with its minimum 0 at (3, 0.5).

    Examples
    --------
    >>> from fastconv.visualize import beale
    >>> beale(3.0, 0.5)
    0.0
    """
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def saddle(x: Any, y: Any) -> Any:
    """A saddle, ``x**2 - y**2 + y**4 / 4``: flat at (0, 0), with minima at (0, ±sqrt(2)).

    Examples
    --------
    >>> from fastconv.visualize import saddle
    >>> saddle(0.0, 0.0), saddle(1.0, 2.0)
    (0.0, 1.0)
    """
    return x**2 - y**2 + y**4 / 4


def descend(
    function: Callable[[Any, Any], Any],
    start: Sequence[float],
    optimizers: Mapping[str, Callable[[list[Tensor]], Optimizer]],
    steps: int = 100,
) -> dict[str, np.ndarray]:
    """Let optimisers go down a function of two variables.

    Parameters
    ----------
    function : callable
        ``function(x, y)`` of two Tensors, with their operators; for pictures, of two arrays as well.
    start : pair of float
    optimizers : mapping of str to callable
        For each name what makes the optimiser: ``lambda parameters: optim.SGD(parameters, lr=0.01)``.
    steps : int

    Returns
    -------
    dict of str to ndarray, shape (steps + 1, 2)
        The positions in float64, the start included; NaN after an optimiser has left the range of numbers.

    Raises
    ------
    ValueError
        `start` is no pair, or the function gives more than one number.

    Examples
    --------
    >>> from fastconv import optim, visualize
    >>> paths = visualize.descend(
    ...     lambda x, y: x**2 + 2 * y**2, (2.0, 1.0), {"SGD": lambda p: optim.SGD(p, lr=0.25)}, steps=2
    ... )
    >>> paths["SGD"]
    array([[2. , 1. ],
           [1. , 0. ],
           [0.5, 0. ]])
    """
    origin = np.array(start, np.float64)
    if origin.shape != (2,):
        raise ValueError(f"start must be a pair of numbers, got {start!r}")
    count = size("steps", steps, 0)
    paths = {}
    for name, make in optimizers.items():
        point = Tensor(origin.copy(), requires_grad=True)
        optimizer = make([point])
        path = np.full((count + 1, 2), np.nan)
        path[0] = origin
        for step in range(1, count + 1):
            optimizer.zero_grad()
            with enable_grad(), np.errstate(over="ignore", invalid="ignore"):
                value = function(point[0], point[1])
                if not isinstance(value, Tensor) or value.data.size != 1:
                    raise ValueError(f"function must give one number for two Tensors, got {type(value).__name__}")
                value.backward()
                optimizer.step()
            if not np.isfinite(point.data).all():
                break
            path[step] = point.data
        paths[name] = path
    return paths


def descent_frames(
    function: Callable[[Any, Any], Any],
    paths: Mapping[str, np.ndarray],
    limits: tuple[float, float, float, float] | None = None,
    *,
    every: int = 1,
    pixels: tuple[int, int] = (480, 400),
) -> np.ndarray:
    """Pictures of the paths as they grow.

    Parameters
    ----------
    function : callable
        ``function(x, y)`` of two arrays.
    paths : mapping of str to array, shape (steps + 1, 2)
        From `descend`.
    limits : (left, right, bottom, top), optional
        By default what holds the paths, with a margin; those that go far beyond the others leave the picture.
    every : int
        Steps from frame to frame.
    pixels : pair of int
        Width and height.

    Returns
    -------
    ndarray of uint8, shape (frames, height, width, 3)
        For `save_gif`.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError, TypeError
        There is no path, or an argument is out of its range.

    Examples
    --------
    >>> from fastconv import optim, visualize
    >>> paths = visualize.descend(visualize.saddle, (1.0, 0.01), {"Adam": lambda p: optim.Adam(p, lr=0.1)}, steps=20)
    >>> visualize.descent_frames(visualize.saddle, paths, every=10, pixels=(120, 100)).shape
    (3, 100, 120, 3)
    """
    width, height = (size("pixels", n, 50) for n in pixels)
    figure, axes = canvas(width / 100, height / 100)
    lines = draw_surface(axes, function, paths, limits)
    agg: Any = figure.canvas
    agg.draw()
    ground = agg.copy_from_bbox(figure.bbox)
    last = max(len(path) for path in paths.values()) - 1
    steps = [*range(0, last, size("every", every, 1)), last]
    frames = np.empty((len(steps), height, width, 3), np.uint8)
    for frame, step in zip(frames, steps):
        agg.restore_region(ground)
        for name, (trail, head) in lines.items():
            trail.set_data(*paths[name][: step + 1].T)
            head.set_data(*paths[name][min(step, len(paths[name]) - 1), :, None])
            axes.draw_artist(trail)
            axes.draw_artist(head)
        frame[...] = np.asarray(agg.buffer_rgba())[..., :3]
    return frames


def save_gif(frames: Any, path: str | os.PathLike[str], fps: float = 20.0) -> None:
    """Write pictures to an animated GIF that repeats for ever.

    Parameters
    ----------
    frames : array of uint8, shape (frames, height, width, 3)
    path : path-like
        Ends in ``.gif``.
    fps : float
        Frames in a second, above 0 and at most 100; GIF counts in hundredths of a second.

    Raises
    ------
    ImportError
        Pillow is not installed.
    ValueError
        No frames, another suffix, or `fps` out of its range.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np
    >>> from fastconv import visualize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "film.gif")
    ...     visualize.save_gif(np.zeros((2, 4, 5, 3), np.uint8), path)
    ...     path.read_bytes()[:6]
    b'GIF89a'
    """
    array = np.asarray(frames)
    if array.ndim != 4 or array.shape[3] != 3 or array.size == 0 or array.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 (frames, height, width, 3), got {array.dtype} {array.shape}")
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"path must end in .gif, got {os.fspath(path)!r}")
    if not 0 < fps <= 100:
        raise ValueError(f"fps must be above 0 and at most 100, got {fps}")
    image = extra("PIL.Image", "Pillow")
    pictures = [image.fromarray(frame) for frame in array]
    # One palette for all frames, so that what does not move does not flicker.
    palette = pictures[-1].quantize(256)
    first, *rest = [picture.quantize(palette=palette, dither=0) for picture in pictures]
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
