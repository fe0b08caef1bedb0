"""Drawing with matplotlib. Every ``plot_...`` draws into the Axes it is given, or a new Figure's, and returns them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from fastconv.nn.modules.calling import plain
from fastconv.visualize.excitation import Excitation
from fastconv.visualize.images import filter_grid, resize, scaled, tile
from fastconv.visualize.receptive import ReceptiveField

__all__ = [
    "plot_activations",
    "plot_confusion_matrix",
    "plot_descent",
    "plot_excitations",
    "plot_filters",
    "plot_heatmap",
    "plot_image",
    "plot_receptive_field",
]


def extra(module: str, name: str) -> Any:
    """An optional module, or an ImportError that says how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'this needs {name}: pip install "fastconv[visualize]"') from error


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """A Figure (in inches of 100 pixels) and its Axes, made without pyplot: no window system is touched."""
    figure = extra("matplotlib.figure", "matplotlib").Figure(figsize=(width, height), dpi=100, layout="constrained")
    extra("matplotlib.backends.backend_agg", "matplotlib").FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _axes(ax: Any, width: float = 5.0, height: float = 5.0) -> Any:
    return canvas(width, height)[1] if ax is None else ax


def _bare(ax: Any, title: str | None) -> Any:
    ax.set(xticks=[], yticks=[])
    if title is not None:
        ax.set_title(title)
    return ax


def _picture(image: Any) -> np.ndarray:
    """(H, W), (1, H, W) or (3, H, W) as matplotlib takes it, from 0 to 1; of other channels, their mean."""
    array = np.asarray(plain(image))
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"image must be (H, W) or (C, H, W) and not empty, got shape {array.shape}")
    array = array.astype(np.float32)
    if array.min() < 0 or array.max() > 1:
        array = scaled(array, array.min(), array.max())
    return np.moveaxis(array, 0, -1) if len(array) == 3 else array.mean(axis=0)


def _show(ax: Any, picture: np.ndarray) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def plot_image(image: Any, *, title: str | None = None, ax: Any = None) -> Any:
    """Draw one image.

    Parameters
    ----------
    image : array, shape (H, W) or (C, H, W)
        In colour with three channels, otherwise the mean of the channels in grey. Values outside 0 ... 1 are scaled.
    title : str, optional
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
        ``ax.figure.savefig(path)`` writes the picture.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError
        `image` is no image.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import visualize
    >>> visualize.plot_image(np.eye(3), title="identity").get_title()
    'identity'
    """
    ax = _axes(ax)
    _show(ax, _picture(image))
    return _bare(ax, title)


def plot_filters(weight: Any, columns: int | None = None, *, each: bool = False, ax: Any = None) -> Any:
    """Draw the filters of a convolution as `filter_grid` arranges them.

    Parameters
    ----------
    weight, columns, each
        As for `filter_grid`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError, ValueError, TypeError
        As `plot_image` and `filter_grid`.

    Examples
    --------
    >>> import fastconv.nn as nn
    >>> from fastconv import visualize
    >>> visualize.plot_filters(nn.Conv2d(3, 16, 5).weight).images[0].get_array().shape
    (23, 23, 3)
    """
    ax = _axes(ax)
    _show(ax, filter_grid(weight, columns, each=each))
    return _bare(ax, None)


def plot_activations(maps: Any, columns: int | None = None, *, title: str | None = None, ax: Any = None) -> Any:
    """Draw the maps of one image, each scaled by its own range.

    Parameters
    ----------
    maps : array, shape (K, P, Q)
        ``activations(model, x, layer)[0]``.
    columns : int, optional
        Maps in a row.
    title : str, optional
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError, ValueError, TypeError
        As `plot_image` and `tile`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import visualize
    >>> visualize.plot_activations(np.random.default_rng(0).normal(size=(6, 8, 8))).images[0].get_array().shape
    (17, 26)
    """
    array = np.asarray(plain(maps))
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"maps must be (K, P, Q) and not empty, got shape {array.shape}")
    own = scaled(array, array.min(axis=(1, 2), keepdims=True), array.max(axis=(1, 2), keepdims=True))
    ax = _axes(ax)
    ax.imshow(tile(own, columns, fill=1.0), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    return _bare(ax, title)


def plot_heatmap(
    image: Any, heat: Any, *, alpha: float = 0.5, signed: bool = False, title: str | None = None, ax: Any = None
) -> Any:
    """Draw an image with a map of saliency, Grad-CAM or occlusion over it.

    Parameters
    ----------
    image : array, shape (H, W) or (C, H, W)
        Drawn in grey.
    heat : array, shape (P, Q)
        Enlarged to (H, W) where it is smaller.
    alpha : float
        Opacity of the map, from 0 to 1.
    signed : bool
        Red above 0 and blue below (for an occlusion map), instead of dark to bright.
    title : str, optional
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError, ValueError
        As `plot_image`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import visualize
    >>> ax = visualize.plot_heatmap(np.zeros((3, 8, 8)), np.eye(4))
    >>> [layer.get_array().shape for layer in ax.images]
    [(8, 8), (8, 8)]
    """
    picture = _picture(image)
    picture = picture.mean(axis=-1) if picture.ndim == 3 else picture
    values = np.asarray(plain(heat))
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"heat must be (P, Q) and not empty, got shape {values.shape}")
    if values.shape != picture.shape:
        values = resize(values, picture.shape)
    limit = float(np.abs(values).max()) or 1.0
    ax = _axes(ax)
    _show(ax, picture)
    low, colours = (-limit, "RdBu_r") if signed else (min(0.0, float(values.min())), "inferno")
    ax.imshow(values, cmap=colours, vmin=low, vmax=limit, alpha=alpha, interpolation="nearest")
    return _bare(ax, title)


def plot_excitations(found: Sequence[Excitation], columns: int | None = None, *, ax: Any = None) -> Any:
    """Draw the patches of `strongest_inputs`, the strongest first, all on one scale.

    Parameters
    ----------
    found : sequence of Excitation
    columns : int, optional
        Patches in a row.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError, ValueError, TypeError
        As `plot_image` and `tile`.

    Examples
    --------
    >>> import numpy as np, fastconv.nn as nn
    >>> from fastconv import visualize
    >>> images = np.random.default_rng(0).normal(size=(9, 1, 8, 8)).astype(np.float32)
    >>> found = visualize.strongest_inputs(nn.Conv2d(1, 2, 3), images, "", 1)
    >>> visualize.plot_excitations(found).images[0].get_array().shape
    (11, 11)
    """
    if not found:
        raise ValueError("found must not be empty")
    patches = np.stack([each.patch for each in found])
    ax = _axes(ax)
    _show(ax, _picture(tile(patches, columns, fill=patches.max())))
    return _bare(ax, None)


def plot_receptive_field(image: Any, field: ReceptiveField, position: Sequence[int], *, ax: Any = None) -> Any:
    """Draw an image and in it what the unit at `position` of a layer sees.

    Parameters
    ----------
    image : array, shape (H, W) or (C, H, W)
    field : ReceptiveField
        Of the layer, from `receptive_field`.
    position : pair of int
        Row and column of the unit in its map.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError, ValueError
        As `plot_image`, or a `position` that is no pair.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import visualize
    >>> field = visualize.ReceptiveField(size=(6, 6), stride=(2, 2), start=(0, 0))
    >>> visualize.plot_receptive_field(np.zeros((16, 16)), field, (3, 1)).patches[0].get_xy()
    (1.5, 5.5)
    """
    ax = plot_image(image, ax=ax)
    (top, bottom), (left, right) = field.box(position)
    rectangle = extra("matplotlib.patches", "matplotlib").Rectangle
    # Pixel centres are whole numbers, so that edges lie half a pixel before them.
    ax.add_patch(rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor="red"))
    return ax


def plot_confusion_matrix(matrix: Any, names: Sequence[str] | None = None, *, ax: Any = None) -> Any:
    """Draw a confusion matrix with its numbers.

    Parameters
    ----------
    matrix : array, shape (K, K)
        From `confusion_matrix`; shares are written in percent.
    names : sequence of K str, optional
        Of the classes.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError
        `matrix` is not square, or there is not one name for each class.

    Examples
    --------
    >>> from fastconv import visualize
    >>> ax = visualize.plot_confusion_matrix([[8, 2], [0, 9]], ["cat", "dog"])
    >>> [text.get_text() for text in ax.texts]
    ['8', '2', '0', '9']
    """
    counts = np.asarray(plain(matrix))
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"matrix must be (K, K), got shape {counts.shape}")
    classes = len(counts)
    titles = [str(i) for i in range(classes)] if names is None else list(names)
    if len(titles) != classes:
        raise ValueError(f"names must have one entry for each of {classes} classes, got {len(titles)}")
    ax = _axes(ax, 1.5 + 0.45 * classes, 1.5 + 0.45 * classes)
    rows = counts.sum(axis=1, keepdims=True)
    shares = counts / np.where(rows > 0, rows, 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(classes, classes):
        value = counts[i, j]
        text = f"{value:d}" if counts.dtype.kind in "iu" else f"{100 * value:.0f}"
        ax.text(j, i, text, ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black")
    ax.set(xticks=range(classes), yticks=range(classes), xlabel="taken for", ylabel="class")
    ax.set_xticklabels(titles, rotation=0 if max(map(len, titles)) < 3 else 90)
    ax.set_yticklabels(titles)
    return ax


def draw_surface(
    ax: Any,
    function: Callable[[Any, Any], Any],
    paths: Mapping[str, np.ndarray],
    limits: tuple[float, float, float, float] | None,
) -> dict[str, tuple[Any, Any]]:
    """Contours of the function, a legend, and for each path its two lines: the trail and the point at its head."""
    finite = [path[np.isfinite(path).all(axis=1)] for path in paths.values()]
    if not finite or not all(map(len, finite)):
        raise ValueError("paths must hold at least one path with a finite start")
    if limits is None:
        # An optimiser that flies off shall not shrink the others to a dot: half of the paths set the scale.
        away = [np.abs(path - path[0]).max(axis=1) for path in finite]
        reach = 3 * sorted(float(distance.max()) for distance in away)[(len(finite) - 1) // 2]
        near = np.concatenate([path[distance <= reach] for path, distance in zip(finite, away)])
        low, high = near.min(axis=0), near.max(axis=0)
        margin = np.maximum(0.15 * (high - low), 0.5)
        limits = (low[0] - margin[0], high[0] + margin[0], low[1] - margin[1], high[1] + margin[1])
    left, right, bottom, top = limits
    if not (left < right and bottom < top):
        raise ValueError(f"limits must be (left, right, bottom, top) in order, got {limits}")
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    z = np.asarray(function(x, y), np.float64)
    # Steps that shrink towards the minimum show valley and wall alike.
    levels = z.min() + np.geomspace(1e-3, 1, 25) * max(float(z.max() - z.min()), 1e-12)
    ax.contour(x, y, z, levels=levels, cmap="Greys_r", linewidths=0.6)
    lines = {}
    for i, name in enumerate(paths):
        (trail,) = ax.plot([], [], color=f"C{i}", linewidth=1.5, label=name)
        (head,) = ax.plot([], [], "o", color=f"C{i}", markersize=5)
        lines[name] = (trail, head)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize="small", frameon=False)
    return lines


def plot_descent(
    function: Callable[[Any, Any], Any],
    paths: Mapping[str, np.ndarray],
    limits: tuple[float, float, float, float] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw the paths of optimisers over the contours of a function.

    Parameters
    ----------
    function : callable
        ``function(x, y)`` of two arrays.
    paths : mapping of str to array, shape (steps + 1, 2)
        From `descend`.
    limits : (left, right, bottom, top), optional
        By default what holds the paths, with a margin; those that go far beyond the others leave the picture.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError
        There is no path, or `limits` are out of order.

    Examples
    --------
    >>> from fastconv import optim, visualize
    >>> paths = visualize.descend(visualize.beale, (1.0, 1.5), {"Adam": lambda p: optim.Adam(p, lr=0.1)}, steps=50)
    >>> ax = visualize.plot_descent(visualize.beale, paths)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['Adam']
    """
    ax = _axes(ax, 6.0, 5.0)
    for name, (trail, head) in draw_surface(ax, function, paths, limits).items():
        path = paths[name][np.isfinite(paths[name]).all(axis=1)]
        trail.set_data(*path.T)
        head.set_data(*path[-1:].T)
    return ax
