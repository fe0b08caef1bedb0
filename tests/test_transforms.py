"""Augmentation: what each transform does, that it follows from its generator, and that it leaves its input alone."""

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from fastconv.data import transforms as T

IMAGES = np.random.default_rng(0).random((6, 3, 8, 10)).astype(np.float32)
ALL = [
    T.RandomHorizontalFlip(),
    T.RandomVerticalFlip(),
    T.RandomCrop((6, 7)),
    T.RandomCrop((8, 10), padding=2, padding_mode="reflect"),
    T.CenterCrop(5),
    T.RandomAffine(30, (0.1, 0.2), (0.8, 1.2)),
    T.RandomRotation(20, padding_mode="edge"),
    T.RandomTranslation(0.3, fill=0.5),
    T.RandomZoom((0.5, 2.0)),
    T.ColorJitter(0.3, 0.4, 0.5),
    T.RandomErasing(),
    T.RandomErasing(value="random"),
    T.RandomResizedCrop((6, 7)),
    T.Normalize((0.1, 0.2, 0.3), 0.5),
    T.Resize((5, 13)),
    T.Compose([T.RandomHorizontalFlip(), T.RandomErasing()]),
]
every = pytest.mark.parametrize("transform", ALL, ids=[type(t).__name__ + str(i) for i, t in enumerate(ALL)])


def _rng(seed=1):
    return np.random.default_rng(seed)


@every
def test_results_follow_from_the_generator(transform):
    before = IMAGES.copy()
    first = transform(IMAGES, rng=_rng())
    np.testing.assert_array_equal(transform(IMAGES, rng=_rng()), first)
    np.testing.assert_array_equal(IMAGES, before)
    assert first.dtype == np.float32 and first.shape[:2] == (6, 3)
    if not isinstance(transform, T.CenterCrop | T.Normalize | T.Resize):
        assert not np.array_equal(transform(IMAGES, rng=_rng(2)), first)
        # Each image is transformed on its own.
        same = np.broadcast_to(IMAGES[:1], IMAGES.shape)
        assert len({image.tobytes() for image in transform(same, rng=_rng(3))}) > 1
    fc.manual_seed(5)
    drawn = transform(IMAGES)
    fc.manual_seed(5)
    np.testing.assert_array_equal(transform(IMAGES), drawn)


@every
def test_one_image_is_a_batch_of_one(transform):
    np.testing.assert_array_equal(transform(IMAGES[0], rng=_rng()), transform(IMAGES[:1], rng=_rng())[0])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
@every
def test_the_dtype_stays(transform, dtype):
    images = IMAGES.astype(dtype)
    images.flags.writeable = False
    result = transform(images, rng=_rng())
    assert result.dtype == dtype
    if transform is ALL[11]:
        return  # what it draws is not of the images' precision
    exact = transform(images.astype(np.float64), rng=_rng())
    np.testing.assert_allclose(result.astype(np.float64), exact, atol=16 * float(ml_dtypes.finfo(dtype).eps))


@every
def test_no_images(transform):
    assert transform(IMAGES[:0], rng=_rng()).shape[:2] == (0, 3)


def test_flips():
    always, never = T.RandomHorizontalFlip(1.0), T.RandomVerticalFlip(0.0)
    np.testing.assert_array_equal(always(IMAGES), IMAGES[..., ::-1])
    np.testing.assert_array_equal(never(IMAGES), IMAGES)
    np.testing.assert_array_equal(T.RandomVerticalFlip(1.0)(IMAGES), IMAGES[:, :, ::-1])
    flipped = T.RandomHorizontalFlip(0.25)(np.arange(2.0) * np.ones((4000, 1, 1, 2)), rng=_rng())[:, 0, 0, 0]
    assert abs(flipped.mean() - 0.25) < 0.03


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_crops_are_parts_of_the_padded_image(mode):
    crop = T.RandomCrop((8, 10), padding=2, padding_mode=mode, fill=0.5)
    options = {"constant_values": 0.5} if mode == "constant" else {}
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (2, 2), (2, 2)), mode, **options)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 10), (2, 3))
    places = set()
    for result, options_of_image in zip(crop(IMAGES, rng=_rng()), windows, strict=True):
        found = np.argwhere((options_of_image == result[:, None, None]).all(axis=(0, 3, 4)))
        assert len(found)
        places.add(tuple(found[0]))
    assert len(places) > 1
    np.testing.assert_array_equal(T.CenterCrop((4, 4))(IMAGES), IMAGES[:, :, 2:6, 3:7])


@pytest.mark.parametrize("mode", ["constant", "edge"])
@pytest.mark.parametrize("angle, shift, zoom", [(25.0, 0.0, 1.0), (0.0, 0.3, 1.0), (0.0, 0.0, 1.7), (-70.0, 0.2, 0.6)])
def test_affine_maps_are_scipys(angle, shift, zoom, mode):
    ndimage = pytest.importorskip("scipy.ndimage")
    images = IMAGES.astype(np.float64)
    transform = T.RandomAffine((angle, angle), shift, (zoom, zoom), fill=0.25, padding_mode=mode)
    result = transform(images, rng=_rng())
    draws = _rng()  # the transform's own, in its order
    draws.uniform(angle, angle, (6, 1, 1))
    down, right = (draws.uniform(-shift, shift, (6, 1, 1)).ravel() for _ in range(2))
    radians = np.deg2rad(angle)
    matrix = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]]) / zoom
    centre = (np.array(images.shape[2:]) - 1) / 2
    for n in range(6):
        moved = centre + np.array([down[n] * 8, right[n] * 10])
        for c in range(3):
            options = {"mode": "grid-constant", "cval": 0.25} if mode == "constant" else {"mode": "nearest"}
            expected = ndimage.affine_transform(images[n, c], matrix, centre - matrix @ moved, order=1, **options)
            np.testing.assert_allclose(result[n, c], expected, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 10), (3, 4), (16, 20), (5, 31), (1, 1)])
def test_resizing_is_pillows(size):
    image = pytest.importorskip("PIL.Image")
    result = T.Resize(size)(IMAGES)
    for ours, plane in zip(result[0], IMAGES[0], strict=True):
        theirs = image.fromarray(plane).resize(size[::-1], image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-5, atol=1e-6)
    assert result.flags.writeable and not np.shares_memory(result, IMAGES)


def test_sizes_and_places_are_torchvisions():
    """Its rules written out: a shorter edge is resized, the rounded half of the rest is cut off, shifts are (x, y)."""
    for have, want in (((8, 10), (4, 5)), ((10, 8), (5, 4)), ((9, 31), (4, 13)), ((31, 9), (13, 4))):
        assert T.Resize(4)(np.zeros((1, *have))).shape == (1, *want)
    line = np.arange(9.0).reshape(1, 1, 9)
    for width, first in ((9, 0), (8, 0), (7, 1), (6, 2), (5, 2), (4, 2), (3, 3), (2, 4), (1, 4)):
        np.testing.assert_array_equal(T.CenterCrop((1, width))(line)[0, 0], np.arange(first, first + width))
    moved = T.RandomAffine(0, (0.0, 0.3))(np.broadcast_to(np.arange(8.0), (6, 1, 8, 8)), rng=_rng())
    np.testing.assert_allclose(moved[:, 0, 4], np.broadcast_to(np.arange(8.0), (6, 8)))


def test_resized_crops_are_parts_in_one_size():
    """Of a plane that rises along both sides, the corners of a result tell which part it was."""
    y, x = np.mgrid[0:60, 0:80].astype(np.float64)
    images = np.broadcast_to(np.stack([y, x]), (400, 2, 60, 80))
    crops = T.RandomResizedCrop((11, 9), scale=(0.1, 0.3), ratio=(0.5, 2.0))(images, rng=_rng())
    steps = [
        np.diff(crops[:, 0, 3:-3], axis=1),
        np.diff(crops[:, 1, :, 3:-3], axis=2),
    ]  # away from what the border bends
    assert all((np.ptp(step, axis=(1, 2)) < 0.2 * step.mean((1, 2))).all() for step in steps)
    height, width = steps[0].mean((1, 2)) * 11, steps[1].mean((1, 2)) * 9
    share, ratio = height * width / 4800, width / height
    assert 0.09 < share.min() < 0.12 and 0.27 < share.max() < 0.32 and abs(share.mean() - 0.2) < 0.02
    assert 0.45 < ratio.min() < 0.6 and 1.7 < ratio.max() < 2.2 and abs(np.log(ratio).mean()) < 0.08
    centre = crops[:, :, 5, 4]
    assert (centre[:, 0] > 0).all() and (centre[:, 0] < 59).all() and np.ptp(centre[:, 1]) > 40
    wide = T.RandomResizedCrop(4, scale=(1.0, 1.0), ratio=(4.0, 4.0))(images[:1], rng=_rng())  # cut to the image
    np.testing.assert_allclose(np.diff(wide[0, 1], axis=1)[:, 1], 20)
    np.testing.assert_array_equal(T.RandomResizedCrop((60, 80), (1, 1), (4 / 3, 4 / 3))(images[:2]), images[:2])


def test_normalisation_takes_arrays():
    mean, std = IMAGES.mean((0, 2, 3)), IMAGES.std((0, 2, 3))
    result = T.Normalize(mean, std)(IMAGES)
    np.testing.assert_allclose(result.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_array_equal(result, T.Normalize(mean.tolist(), std.tolist())(IMAGES))


def test_colour():
    np.testing.assert_allclose(T.ColorJitter((0.5, 0.5))(IMAGES), IMAGES / 2, rtol=1e-6)
    np.testing.assert_allclose(T.ColorJitter(saturation=(0.0, 0.0))(IMAGES).std(axis=1), 0, atol=1e-6)
    grey = 0.299 * IMAGES[:, 0] + 0.587 * IMAGES[:, 1] + 0.114 * IMAGES[:, 2]
    flat = T.ColorJitter(contrast=(0.0, 0.0))(IMAGES)
    np.testing.assert_allclose(
        flat, np.broadcast_to(grey.mean(axis=(1, 2))[:, None, None, None], IMAGES.shape), rtol=1e-5
    )
    bright = T.ColorJitter(3.0, 3.0, 3.0)(IMAGES, rng=_rng())
    assert bright.min() >= 0 and bright.max() <= 1
    np.testing.assert_allclose(T.ColorJitter((2.0, 2.0), saturation=0.9)(IMAGES[:, :1] / 2), IMAGES[:, :1], rtol=1e-6)
    np.testing.assert_array_equal(T.ColorJitter()(IMAGES), IMAGES)


def test_erasing():
    images = np.ones((300, 2, 20, 30), np.float32)
    erased = T.RandomErasing(0.5, scale=(0.1, 0.2), ratio=(0.5, 2.0))(images, rng=_rng()) == 0
    parts = erased.mean(axis=(1, 2, 3))
    assert 0.4 < (parts > 0).mean() < 0.6
    assert parts[parts > 0].min() > 0.08 and parts.max() < 0.23
    for image in erased[parts > 0]:
        rows, columns = image[0].any(axis=1), image[0].any(axis=0)
        assert (image == rows[:, None] & columns).all()
    noisy = T.RandomErasing(1.0, value="random")(images, rng=_rng())
    assert abs(noisy[noisy != 1].std() - 1) < 0.05


def test_normalise():
    mean, std = (0.1, 0.2, 0.3), (1.0, 2.0, 4.0)
    expected = (IMAGES - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    np.testing.assert_allclose(T.Normalize(mean, std)(IMAGES), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make, error, word",
    [
        (lambda: T.RandomHorizontalFlip(1.5), ValueError, "p must be from 0 to 1"),
        (lambda: T.RandomHorizontalFlip("often"), TypeError, "p must be a real number"),
        (lambda: T.RandomCrop(0), ValueError, "size must be at least 1"),
        (lambda: T.RandomCrop((1, 2, 3)), ValueError, "size must be"),
        (lambda: T.RandomCrop(2, padding=-1), ValueError, "padding"),
        (lambda: T.RandomCrop(2, padding_mode="wrap"), ValueError, "padding_mode"),
        (lambda: T.RandomRotation(-5), ValueError, "degrees must not be negative"),
        (lambda: T.RandomRotation((5, -5)), ValueError, "degrees must be a number or a pair"),
        (lambda: T.RandomTranslation(1.5), ValueError, "translate"),
        (lambda: T.RandomZoom((0.0, 1.0)), ValueError, "scale must be a pair 0 < low"),
        (lambda: T.RandomZoom(2.0), ValueError, "scale must be a pair"),
        (lambda: T.Resize((4, 0)), ValueError, "size must be at least 1"),
        (lambda: T.ColorJitter(-1), ValueError, "brightness must not be negative"),
        (lambda: T.ColorJitter(contrast=(2, 1)), ValueError, "contrast"),
        (lambda: T.RandomErasing(scale=(0.5, 1.5)), ValueError, "scale must be at most 1"),
        (lambda: T.RandomErasing(value="black"), TypeError, "value"),
        (lambda: T.RandomResizedCrop(0), ValueError, "size must be at least 1"),
        (lambda: T.RandomResizedCrop(8, scale=(0.5, 1.5)), ValueError, "scale must be at most 1"),
        (lambda: T.RandomResizedCrop(8, ratio=2.0), ValueError, "ratio must be a pair"),
        (lambda: T.Normalize(0.5, 0.0), ValueError, "std must be above 0"),
        (lambda: T.Normalize("a", 1.0), TypeError, "mean"),
        (lambda: T.Compose([3]), TypeError, "callable"),
    ],
)
def test_bad_parameters(make, error, word):
    with pytest.raises(error, match=word):
        make()


def test_bad_images():
    flip = T.RandomHorizontalFlip()
    for images, error, word in (
        (np.zeros((2, 3, 4, 4), np.uint8), TypeError, "floating-point"),
        (np.zeros((4, 4)), ValueError, r"\(C, H, W\) or \(N, C, H, W\)"),
    ):
        with pytest.raises(error, match=word):
            flip(images)
    for transform, word in (
        (T.RandomCrop(9), "size must fit"),
        (T.CenterCrop(9), "size must fit"),
        (T.RandomCrop(8, padding=8, padding_mode="reflect"), "padding must be below"),
        (T.Normalize((0.1, 0.2), 1.0), "mean must be one number or one for each of 3 channels"),
    ):
        with pytest.raises(ValueError, match=word):
            transform(IMAGES)
    with pytest.raises(TypeError, match="rng"):
        flip(IMAGES, rng=3)
