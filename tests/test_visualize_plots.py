"""Confusion matrices, paths of optimisers, and what the plots put on their axes."""

import sys

import numpy as np
import pytest

import fastconv.nn as nn
from fastconv import optim, visualize


def test_confusion_matrix_is_sklearns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 5, 200), rng.normal(size=(200, 5))
    predictions = scores.argmax(axis=1)
    np.testing.assert_array_equal(
        visualize.confusion_matrix(labels, scores), metrics.confusion_matrix(labels, predictions)
    )
    for ours, theirs in (("true", "true"), ("predicted", "pred"), ("all", "all")):
        np.testing.assert_allclose(
            visualize.confusion_matrix(labels, predictions, 5, normalize=ours),
            metrics.confusion_matrix(labels, predictions, normalize=theirs),
        )


def test_classes_without_images():
    matrix = visualize.confusion_matrix([2, 2, 0], [2, 1, 0], 4)
    np.testing.assert_array_equal(matrix, [[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    shares = visualize.confusion_matrix([2, 2, 0], [2, 1, 0], 4, normalize="true")
    np.testing.assert_array_equal(shares.sum(axis=1), [1, 0, 1, 0])
    np.testing.assert_array_equal(visualize.confusion_matrix([], [], 2), np.zeros((2, 2)))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (([0, 1], [0]), ValueError, "of one length"),
        (([0, -1], [0, 0]), ValueError, "got -1"),
        (([0, 3], [0, 0], 3), ValueError, "from 0 to 2, got 3"),
        (([0, 1], [0.5, 0.1]), TypeError, "predictions must be integers"),
        (([0], [0], 0), ValueError, "num_classes"),
    ],
)
def test_bad_labels(arguments, error, message):
    with pytest.raises(error, match=message):
        visualize.confusion_matrix(*arguments)


def test_paths_of_gradient_descent_and_momentum():
    """On a parabola each step multiplies the position by 1 - lr * curvature."""
    makers = {
        "plain": lambda p: optim.SGD(p, lr=0.1),
        "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.5),
        "diverging": lambda p: optim.SGD(p, lr=1e200),
    }
    paths = visualize.descend(lambda x, y: x**2 / 2 + 2 * y**2, (1.0, -2.0), makers, steps=6)
    steps = np.arange(7)
    np.testing.assert_allclose(paths["plain"], np.stack([0.9**steps, -2 * 0.6**steps], axis=1), rtol=1e-12)
    x, velocity = 1.0, 0.0
    for step in range(1, 7):
        velocity = 0.5 * velocity + x
        x -= 0.1 * velocity
        np.testing.assert_allclose(paths["momentum"][step, 0], x, rtol=1e-12)
    assert np.isfinite(paths["diverging"][:2]).all() and np.isnan(paths["diverging"][-1]).all()


def test_surfaces_have_their_minima_where_they_say():
    for function, minimum in (
        (visualize.rosenbrock, (1, 1)),
        (visualize.beale, (3, 0.5)),
        (visualize.saddle, (0, np.sqrt(2))),
    ):
        start = np.add(minimum, 0.05)
        path = visualize.descend(function, start, {"Adam": lambda p: optim.Adam(p, lr=0.01)}, steps=500)["Adam"]
        np.testing.assert_allclose(path[-1], minimum, atol=2e-2)
        values = function(*path[[0, -1]].T)
        assert values[1] < values[0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((visualize.saddle, (1, 2, 3), {}), "start must be a pair"),
        ((lambda x, y: 3.0, (1, 2), {"a": optim.SGD}), "one number for two Tensors"),
    ],
)
def test_bad_descents(arguments, message):
    with pytest.raises(ValueError, match=message):
        visualize.descend(*arguments)


class TestDrawn:
    """These need matplotlib."""

    @pytest.fixture(autouse=True)
    def matplotlib(self):
        pytest.importorskip("matplotlib")

    @pytest.fixture
    def paths(self):
        makers = {"SGD": lambda p: optim.SGD(p, lr=0.1), "lost": lambda p: optim.SGD(p, lr=1e160)}
        return visualize.descend(visualize.saddle, (1.0, 0.2), makers, steps=9)

    def test_images_and_grids(self):
        rng = np.random.default_rng(0)
        colour = rng.normal(size=(3, 4, 5))
        drawn = visualize.plot_image(colour).images[0].get_array()
        span = colour.max() - colour.min()
        np.testing.assert_allclose(drawn, np.moveaxis((colour - colour.min()) / span, 0, -1), rtol=1e-5)
        grey = rng.uniform(size=(1, 4, 5))
        np.testing.assert_allclose(visualize.plot_image(grey).images[0].get_array(), grey[0], rtol=1e-6)
        weight = nn.Conv2d(1, 6, 5).weight
        np.testing.assert_array_equal(
            visualize.plot_filters(weight, 3).images[0].get_array(), visualize.filter_grid(weight, 3)
        )
        maps = np.stack([np.eye(3), 100 * np.eye(3), np.zeros((3, 3))])
        drawn = visualize.plot_activations(maps, 3, title="maps")
        np.testing.assert_array_equal(drawn.images[0].get_array()[:, :3], np.eye(3))
        np.testing.assert_array_equal(drawn.images[0].get_array()[:, 4:7], np.eye(3))
        assert drawn.get_title() == "maps" and not drawn.images[0].get_array()[:, 8:].any()

    def test_heatmaps(self):
        image, heat = np.zeros((3, 8, 8)), np.array([[0.0, 2.0], [-4.0, 1.0]])
        bright = visualize.plot_heatmap(image, np.abs(heat)).images[1]
        assert bright.get_clim() == (0, 4) and bright.get_array().shape == (8, 8)
        np.testing.assert_allclose(bright.get_array(), visualize.resize(np.abs(heat), (8, 8)))
        signed = visualize.plot_heatmap(image, heat, signed=True, alpha=0.25).images[1]
        assert signed.get_clim() == (-4, 4) and signed.get_alpha() == 0.25

    def test_patches_and_fields(self):
        found = [
            visualize.Excitation(1.0, 0, (0, 0), ((0, 2), (0, 2)), np.full((1, 2, 2), value)) for value in (0.25, 0.75)
        ]
        drawn = visualize.plot_excitations(found, 2).images[0].get_array()
        np.testing.assert_array_equal(drawn[0], [0.25, 0.25, 0.75, 0.75, 0.75])
        field = visualize.ReceptiveField((4, 6), (2, 2), (-1, 0))
        box = visualize.plot_receptive_field(np.zeros((1, 9, 9)), field, (1, 2)).patches[0]
        assert (*box.get_xy(), box.get_width(), box.get_height()) == (3.5, 0.5, 6, 4)

    def test_confusion_matrix_with_numbers(self):
        ax = visualize.plot_confusion_matrix(np.array([[0.75, 0.25], [0, 1]]), ["cat", "dog"])
        assert [text.get_text() for text in ax.texts] == ["75", "25", "0", "100"]
        assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]
        for arguments in (([[1, 2]],), ([[1]], ["a", "b"])):
            with pytest.raises(ValueError, match=r"matrix|names"):
                visualize.plot_confusion_matrix(*arguments)

    def test_axes_that_are_given_are_used(self, paths):
        _, ax = visualize.plots.canvas(2, 2)
        field = visualize.ReceptiveField((2, 2), (1, 1), (0, 0))
        for draw in (
            lambda: visualize.plot_image(np.eye(2), ax=ax),
            lambda: visualize.plot_heatmap(np.eye(2), np.eye(2), ax=ax),
            lambda: visualize.plot_receptive_field(np.eye(2), field, (0, 0), ax=ax),
            lambda: visualize.plot_confusion_matrix(np.eye(2), ax=ax),
            lambda: visualize.plot_descent(visualize.saddle, paths, ax=ax),
        ):
            assert draw() is ax
        assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()

    def test_films(self, paths, tmp_path):
        pillow = pytest.importorskip("PIL.Image")
        frames = visualize.descent_frames(visualize.saddle, paths, every=4, pixels=(160, 120))
        assert frames.shape == (4, 120, 160, 3)  # steps 0, 4, 8 and the last
        assert all((frame != frames[0]).any() for frame in frames[1:])
        path = tmp_path / "descent.gif"
        visualize.save_gif(frames, path, fps=10)
        with pillow.open(path) as film:
            assert film.n_frames == 4 and film.size == (160, 120) and film.info["duration"] == 100
            for i, frame in enumerate(frames):
                film.seek(i)
                assert np.abs(np.asarray(film.convert("RGB")).astype(int) - frame).mean() < 8
        for bad, name, fps in ((frames[0], "a.gif", 5), (frames, "a.png", 5), (frames, "a.gif", 0)):
            with pytest.raises(ValueError, match=r"frames|path|fps"):
                visualize.save_gif(bad, tmp_path / name, fps)

    def test_static_paths(self, paths):
        ax = visualize.plot_descent(visualize.saddle, paths, limits=(-1, 2, -1, 1))
        trails = {line.get_label(): line.get_xydata() for line in ax.lines if not line.get_label().startswith("_")}
        np.testing.assert_array_equal(trails["SGD"], paths["SGD"])
        assert len(trails["lost"]) < 10 and ax.get_xlim() == (-1, 2)
        left, right, bottom, top = (*(ax := visualize.plot_descent(visualize.saddle, paths)).get_xlim(), *ax.get_ylim())
        assert -1 < left < 0 and 1 < right < 2 and bottom < 0.2 and top < 3  # where SGD is, not where the other flew
        for broken, limits in (({}, None), ({"a": np.full((3, 2), np.nan)}, None), (paths, (1, 0, 0, 1))):
            with pytest.raises(ValueError, match=r"paths|limits"):
                visualize.plot_descent(visualize.saddle, broken, limits)

    @pytest.mark.parametrize(
        "call",
        [
            lambda: visualize.plot_image(np.zeros((2, 2, 2, 2))),
            lambda: visualize.plot_activations(np.zeros((2, 2))),
            lambda: visualize.plot_heatmap(np.eye(2), np.zeros(3)),
            lambda: visualize.plot_excitations([]),
        ],
    )
    def test_what_is_no_picture(self, call):
        with pytest.raises(ValueError, match="must"):
            call()


def test_missing_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"matplotlib.*fastconv\[visualize\]"):
        visualize.plot_image(np.eye(2))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"Pillow.*fastconv\[visualize\]"):
        visualize.save_gif(np.zeros((1, 2, 2, 3), np.uint8), "film.gif")
