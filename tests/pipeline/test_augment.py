import colorsys
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from rethink_jax import config as config_lib, data
from rethink_jax.errors import UserError
from rethink_jax.models.layers import dropout
from rethink_jax.pipeline import inputs, preprocess
from rethink_jax.runs.resolve import resolve
from tests.data_helpers import of_size

IDS = np.array([5, 0, 7, 3, 2], np.int32)


def random_images(n=8, side=10):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def augment(size=10, seed=0, stream=False, **fields):
    config = config_lib.base()
    config.seed = seed
    config.data.update(size=size, stream=stream)
    config.augment.update(fields)
    return preprocess.make_augment(config, steps_per_epoch=4)


def rotate_in_numpy(image, angle):
    """Looks up each pixel where it comes from, between the four around that place."""
    side = image.shape[0]
    middle = (side - 1) / 2
    result = np.zeros(image.shape)
    for row in range(side):
        for column in range(side):
            y, x = row - middle, column - middle
            from_y = np.clip(middle + math.cos(angle) * y + math.sin(angle) * x, 0, side - 1)
            from_x = np.clip(middle + math.cos(angle) * x - math.sin(angle) * y, 0, side - 1)
            top, left = min(int(from_y), side - 2), min(int(from_x), side - 2)
            down, right = from_y - top, from_x - left
            result[row, column] = (
                (1 - down) * (1 - right) * image[top, left]
                + (1 - down) * right * image[top, left + 1]
                + down * (1 - right) * image[top + 1, left]
                + down * right * image[top + 1, left + 1]
            )
    return result


@given(st.floats(-math.pi, math.pi))
def test_rotate_against_numpy(angle):
    image = random_images()[0].astype(np.float32)
    expected = rotate_in_numpy(image.astype(np.float64), angle)
    np.testing.assert_allclose(preprocess.rotate(image, np.float32(angle)), expected, atol=0.05)


def test_a_quarter_turn_is_counterclockwise():
    image = random_images()[0].astype(np.float32)
    turned = preprocess.rotate(image, np.float32(math.pi / 2))
    np.testing.assert_allclose(turned, np.rot90(image), atol=0.01)


def test_no_augmentation_is_none():
    assert augment() is None


FIELDS = [
    {"random_crop": True, "size": 8},
    {"flip": True},
    {"rotation_degrees": 25.0},
    {"color": True},
    pytest.param(
        {"random_crop": True, "flip": True, "rotation_degrees": 25.0, "size": 8},
        marks=pytest.mark.ci,
    ),
    {"random_crop": True, "flip": True, "rotation_degrees": 25.0, "color": True, "size": 8},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_draws_depend_on_seed_epoch_and_id_alone(fields):
    images = random_images()
    function = augment(**fields)
    whole = np.asarray(function(np.int32(5), IDS, images[IDS]))
    assert whole.dtype == np.float32
    assert whole.shape == (5, function(np.int32(5), IDS[:1], images[:1]).shape[1], *whole.shape[2:])
    for position, example in enumerate(IDS):
        alone = jax.jit(function)(np.int32(7), np.array([example]), images[[example]])
        np.testing.assert_allclose(alone[0], whole[position], atol=1e-3)
    other_epoch = function(np.int32(8), IDS, images[IDS])
    other_seed = augment(seed=1, **fields)(np.int32(5), IDS, images[IDS])
    assert not np.array_equal(other_epoch, whole)
    assert not np.array_equal(other_seed, whole)


def test_a_random_crop_is_a_window_anywhere():
    images = random_images(n=400, side=6)
    ids = np.arange(400, dtype=np.int32)
    crops = np.asarray(augment(size=4, random_crop=True)(np.int32(0), ids, images))
    places = []
    for image, crop in zip(images, crops, strict=True):
        (place,) = [
            (top, left)
            for top in range(3)
            for left in range(3)
            if np.array_equal(image[top : top + 4, left : left + 4], crop)
        ]
        places.append(place)
    counts = np.unique(np.array(places), axis=0, return_counts=True)[1]
    assert len(counts) == 9
    assert counts.min() > 20  # of 44 expected


def test_half_of_the_images_are_flipped():
    images = random_images(n=400, side=4)
    flipped = np.asarray(augment(size=4, flip=True)(np.int32(0), np.arange(400), images))
    same = np.array([np.array_equal(a, b) for a, b in zip(images, flipped, strict=True)])
    mirrored = np.array(
        [np.array_equal(a[:, ::-1], b) for a, b in zip(images, flipped, strict=True)]
    )
    assert (same | mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 0.1


def test_angles_are_uniform_up_to_the_limit():
    """A bright pixel on the right edge of a dark disc tells the angle."""
    side = 41
    image = np.zeros((side, side, 1), np.uint8)
    image[side // 2, side - 6 :] = 255
    images = np.broadcast_to(image, (300, *image.shape))
    turned = augment(size=side, rotation_degrees=25.0)(np.int32(0), np.arange(300), images)
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    weight = np.asarray(turned)[..., 0]
    y = (weight * (side // 2 - rows)).sum((1, 2)) / weight.sum((1, 2))
    x = (weight * (columns - side // 2)).sum((1, 2)) / weight.sum((1, 2))
    degrees = np.degrees(np.arctan2(y, x))
    assert np.abs(degrees).max() < 26
    assert abs(degrees.mean()) < 3
    assert abs(degrees.std() - 50 / math.sqrt(12)) < 2


def test_a_random_crop_leaves_training_images_whole():
    images, labels = random_images(40), np.arange(40) % 3
    dataset = data.from_arrays((images, labels), (images[:9], labels[:9]))
    config = config_lib.train("arrays", "shuffled_pixels")
    config.data.size = 8
    config.augment.random_crop = True
    prepared = inputs.prepare(config_lib.fill_in(config, 40, 10), dataset)
    assert prepared.train.images.shape == (40, 10, 10, 3)
    assert prepared.test.images.shape == (9, 8, 8, 3)
    # The same permutation of the whole image for both: corruption comes before the crop.
    np.testing.assert_array_equal(prepared.train.images[:9, 1:9, 1:9], prepared.test.images)


# Golden: runs of before the colours came have to go on as they began.


def test_flips_and_crops_are_drawn_as_ever():
    ids = np.arange(24, dtype=np.int32)
    images = np.broadcast_to(np.array([0, 200], np.uint8)[None, None, :, None], (24, 2, 2, 1))
    flipped = np.asarray(augment(size=2, flip=True)(np.int32(0), ids, images))[:, 0, 0, 0] == 200
    assert "".join(map(str, flipped.astype(int))) == "000100110110000000001111"
    images = np.broadcast_to(np.arange(25, dtype=np.uint8).reshape(1, 5, 5, 1), (12, 5, 5, 1))
    crops = augment(size=1, random_crop=True)(np.int32(0), ids[:12], images)
    assert np.ravel(crops).tolist() == [18, 19, 20, 0, 3, 7, 21, 11, 13, 20, 20, 20]


def test_a_stream_is_cropped_before_it_comes_here():
    assert augment(size=8, stream=True, random_crop=True) is None
    images = random_images()
    flips = {"flip": True, "rotation_degrees": 25.0}
    with_crop, without = (
        augment(size=8, random_crop=crop, stream=True, **flips)(np.int32(5), IDS, images[IDS])
        for crop in (True, False)
    )
    assert with_crop.shape == images[IDS].shape
    np.testing.assert_array_equal(with_crop, without)


# Colours.


def distort_in_python(image, brightness, saturation, hue, contrast):
    """A pixel at a time, with the standard library's HSV."""
    image = image.astype(np.float64) + brightness
    for place in np.ndindex(image.shape[:2]):
        red, green, blue = image[place] / 255
        value, least = max(red, green, blue), min(red, green, blue)
        if value <= 0:
            image[place] = 255 * value
            continue
        h = colorsys.rgb_to_hsv(red, green, blue)[0]
        s = min((value - least) / value * saturation, 1)
        image[place] = 255 * np.array(colorsys.hsv_to_rgb((h + hue) % 1, s, value))
    mean = image.mean(axis=(0, 1))
    return np.clip((image - mean) * contrast + mean, 0, 255)


@given(
    hnp.arrays(np.uint8, st.sampled_from([(1, 1, 3), (3, 4, 3)])),
    st.tuples(*(st.floats(*limits) for limits in ((-32, 32), (0.5, 1.5), (-0.2, 0.2), (0.5, 1.5)))),
)
def test_colours_against_the_standard_library(image, factors):
    found = preprocess.distort_color(image.astype(np.float32), *map(np.float32, factors))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, distort_in_python(image, *factors), atol=0.01)


def test_colours_against_matplotlib():
    """Hue and saturation alone, at the sizes of a data set."""
    colors = pytest.importorskip("matplotlib.colors")
    image = np.random.default_rng(3).integers(0, 256, (32, 32, 3)).astype(np.float32)
    hsv = colors.rgb_to_hsv(image / 255)
    hsv[..., 0] = (hsv[..., 0] + 0.15) % 1
    hsv[..., 1] = np.minimum(1.4 * hsv[..., 1], 1)
    one, zero = np.float32(1), np.float32(0)
    found = preprocess.distort_color(image, zero, np.float32(1.4), np.float32(0.15), one)
    np.testing.assert_allclose(found, 255 * colors.hsv_to_rgb(hsv), atol=0.01)
    same = preprocess.distort_color(image, zero, one, zero, one)
    np.testing.assert_allclose(same, image, atol=1e-3)


def test_pixels_beyond_the_scale_have_colours_too():
    """Below black nothing is left of them; above white they are clipped at the end only."""
    image = np.array([[[250, 240, 230], [10, 5, 0]]], np.float32)
    for brightness in (30.0, -30.0):
        factors = brightness, 1.2, 0.1, 0.7
        found = preprocess.distort_color(image, *map(np.float32, factors))
        np.testing.assert_allclose(found, distort_in_python(image, *factors), atol=0.01)


def test_grey_stays_grey():
    image = np.repeat(random_images()[0, ..., :1], 3, axis=-1).astype(np.float32)
    found = np.asarray(
        preprocess.distort_color(image, *map(np.float32, (5.0, 1.5, 0.2, 1.25))).max(axis=-1)
    )
    expected = image[..., 0] + 5
    expected = np.clip((expected - expected.mean()) * 1.25 + expected.mean(), 0, 255)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def is_uniform(draws, low, high):
    """Whether all lie between the limits, and their mean and spread are those of that distribution."""
    width = high - low
    inside = low - 0.01 * width <= np.min(draws) and np.max(draws) <= high + 0.01 * width
    mean, spread = np.mean(draws) - (low + high) / 2, np.std(draws) - width / math.sqrt(12)
    return inside and abs(mean) < 0.05 * width and abs(spread) < 0.05 * width


def test_draws_of_colours_are_uniform_and_not_correlated():
    """Two greys tell brightness and contrast, one colour hue and saturation."""
    ids = np.arange(500, dtype=np.int32)
    greys = np.array([110, 140], np.uint8)[None, None, :, None]
    found = np.asarray(
        augment(size=2, color=True)(np.int32(0), ids, np.broadcast_to(greys, (500, 1, 2, 3)))
    )[:, 0]
    brightness = found.mean(axis=(1, 2)) - 125
    contrast = (found[:, 1, 0] - found[:, 0, 0]) / 30
    one = np.broadcast_to(np.array([150, 120, 120], np.uint8), (500, 1, 1, 3))
    pixels = np.asarray(augment(size=1, color=True)(np.int32(0), ids, one))[:, 0, 0]
    saturation = (pixels.max(axis=1) - pixels.min(axis=1)) / 30
    hue = (np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in pixels]) + 0.5) % 1 - 0.5
    assert is_uniform(brightness, -32, 32)
    assert is_uniform(contrast, 0.5, 1.5)
    assert is_uniform(saturation, 0.5, 1.5)
    assert is_uniform(hue, -0.2, 0.2)
    correlations = np.corrcoef([brightness, contrast, saturation, hue]) - np.eye(4)
    assert np.abs(correlations).max() < 0.15


@pytest.mark.parametrize(("channels", "allowed"), [(1, False), (2, False), (3, True), (4, False)])
def test_colours_need_three_channels(channels, allowed):
    config = config_lib.train("digits", "true_labels")
    images = of_size((8, 8, channels), name="digits")
    resolve(config, images)
    config.augment.color = True
    if allowed:
        resolve(config, images)
    else:
        line = (
            "config.augment.color is True; it must be False for digits's images, "
            "which are not red, green and blue"
        )
        with pytest.raises(UserError, match=f"^{line}$"):
            resolve(config, images)


# Dropout.


def keys_of(ids, step=3, seed=0):
    return preprocess.example_keys(seed, preprocess.DROPOUT, np.int32(step), np.asarray(ids))


def test_dropout_depends_on_step_and_id_alone():
    x = jnp.ones((5, 50))
    whole = dropout(x, 0.5, keys_of(IDS))
    alone = jnp.concatenate([dropout(x[:1], 0.5, keys_of([i])) for i in IDS])
    np.testing.assert_array_equal(whole, alone)
    assert not np.array_equal(whole, dropout(x, 0.5, keys_of(IDS, step=4)))
    assert not np.array_equal(whole, dropout(x, 0.5, keys_of(IDS, seed=1)))
    assert not np.array_equal(whole, dropout(x, 0.5, keys_of(IDS), layer=1))


def test_dropout_keeps_the_mean():
    x = jnp.ones((100, 500))
    dropped = np.asarray(dropout(x, 0.25, keys_of(np.arange(100))))
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.75], rtol=1e-6)
    assert abs(dropped.mean() - 1) < 0.01


def test_no_dropout_in_evaluation():
    x = jnp.ones((5, 50))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, keys_of(IDS)) is x
