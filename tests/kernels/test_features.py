import numpy as np
import pytest
from scipy import signal

from rethink_jax import config as config_lib
from rethink_jax.errors import UserError
from rethink_jax.kernels import features

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 12, 14, 2)).astype(np.uint8)


def compute(chosen, images=IMAGES, num_train=None):
    """All parts of the features, one beside the other."""
    shown = []
    parts = [
        chosen.compute(images, part, num_train or len(images), shown.append)
        for part in range(chosen.parts)
    ]
    assert shown == [] or shown[-1] == 1
    return np.concatenate(parts, axis=1)


def test_pixels():
    found = compute(features.pixels())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, IMAGES.reshape(5, -1) / 255, rtol=1e-6)


def test_wavelets_see_their_own_orientation():
    bank = features.gabor_wavelets(4, 6.0)
    assert bank.shape == (4, 17, 17)
    np.testing.assert_allclose(bank.sum(axis=(1, 2)), 0, atol=1e-12)  # nothing on a flat image
    x = np.arange(-20, 21)
    for i, angle in enumerate(np.pi * np.arange(4) / 4):
        along = x * np.cos(angle) + x[:, None] * np.sin(angle)
        wave = np.cos(2 * np.pi * along / 6)
        responses = [np.abs(signal.convolve2d(wave, w, "valid")).mean() for w in bank]
        assert int(np.argmax(responses)) == i
        assert responses[i] > 5 * sorted(responses)[-2]


@pytest.mark.parametrize("pool", [1, 4, 5])
def test_gabor_features_against_scipy(devices, pool):
    found = compute(features.gabor(3, (4.0, 6.0), pool))
    offsets = np.arange(pool) - (pool - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * (pool / 4) ** 2))
    window = np.outer(weights, weights) / weights.sum() ** 2
    stride = max(1, pool // 2)
    expected = []
    for image in IMAGES / 255:
        for channel in range(2):
            for wavelength in (4.0, 6.0):
                for wavelet in features.gabor_wavelets(3, wavelength):
                    # The wavelets are even in their real and odd in their imaginary part.
                    response = np.abs(signal.convolve2d(image[..., channel], wavelet, "same"))
                    expected.append(pooled(response, window, stride))
    np.testing.assert_allclose(found, np.reshape(expected, (5, -1)), atol=1e-5)


def pooled(x, window, stride):
    """A convolution with SAME padding and a stride, by its definition."""
    side = len(window)
    out = [-(-n // stride) for n in x.shape]
    need = [max((m - 1) * stride + side - n, 0) for m, n in zip(out, x.shape, strict=True)]
    x = np.pad(x, [(p // 2, p - p // 2) for p in need])
    return [
        [
            (x[i * stride : i * stride + side, j * stride : j * stride + side] * window).sum()
            for j in range(out[1])
        ]
        for i in range(out[0])
    ]


def test_batches_do_not_matter(monkeypatch):
    whole = compute(features.gabor(2, (4.0,), 4))
    monkeypatch.setattr(features, "_BATCH", 2)
    np.testing.assert_allclose(compute(features.gabor(2, (4.0,), 4)), whole, rtol=1e-6)


@pytest.fixture
def small_parts(monkeypatch):
    """Three filters a part, few patches."""
    monkeypatch.setattr(features, "_FILTERS_PER_PART", 3)
    monkeypatch.setattr(features, "_PATCHES", 500)


def test_random_convolutions_by_their_definition(devices, small_parts):
    """In plain NumPy, patch by patch, with the filters that were drawn."""
    chosen = features.random_convolutions(5, 0, IMAGES[:4])
    assert chosen.parts == 2
    found = compute(chosen, num_train=4)
    project, shift = features._random_filters(5, 0, IMAGES[:4])
    expected = np.zeros((5, 2, 2, 2, 5))  # image, window's row and column, sign, filter
    rows, columns = (slice(0, 4), slice(3, 7)), (slice(0, 5), slice(4, 9))
    for i, image in enumerate(IMAGES.astype(np.float64)):
        responses = np.zeros((7, 9, 5))
        for r in range(7):
            for c in range(9):
                patch = image[r : r + 6, c : c + 6].ravel()
                patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10)
                responses[r, c] = patch @ project - shift
        for a in range(2):
            for b in range(2):
                window = responses[rows[a], columns[b]]
                for s, sign in enumerate((1, -1)):
                    expected[i, a, b, s] = np.maximum(sign * window - 0.25, 0).sum(axis=(0, 1))
    expected = (expected - expected[:4].mean(axis=0)) / expected[:4].std(axis=0)
    parts = [expected[..., :3].reshape(5, -1), expected[..., 3:].reshape(5, -1)]
    np.testing.assert_allclose(found, np.concatenate(parts, axis=1), atol=1e-3)


def test_whitened_patches():
    """What the filters see has no correlations, less what the whitening is damped by."""
    images = RNG.integers(0, 256, (40, 9, 9, 1)).astype(np.float64).cumsum(axis=1) / 9
    images = images.astype(np.uint8)
    project, shift = features._random_filters(2000, 0, images)
    patches = np.asarray(features._patches(images)).reshape(-1, 36)
    seen = patches @ project - shift
    assert abs(seen.mean()) < 0.02
    # Filters are of unit length, and so see a variance of 1, less the damping.
    assert 0.5 < seen.var(axis=0).mean() < 1.05


def test_random_convolutions_draw_by_seed(small_parts):
    first, again, other = (compute(features.random_convolutions(4, s, IMAGES)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_a_flat_set_has_no_features(small_parts):
    flat = np.full_like(IMAGES, 7)
    assert not compute(features.random_convolutions(4, 0, flat)).any()


def test_images_that_are_too_small():
    config = config_lib.experiment("kernel", "mine")
    features.check_images(config, (6, 14, 1))
    config.features.name = "random_convolutions"
    features.check_images(config, (7, 14, 1))
    line = r"need images of 7 pixels a side at least; those of mine are 6×14"
    with pytest.raises(UserError, match=line):
        features.check_images(config, (6, 14, 1))


def test_candidates():
    config = config_lib.experiment("kernel", "mnist")
    assert [own for own, _ in features.candidates(config, IMAGES)] == [{}]
    config.features.update(name="random_convolutions", filters=300)
    ((own, chosen),) = features.candidates(config, IMAGES)
    assert (own, chosen.parts) == ({}, 2)
    config.features.update(name="gabor", wavelengths=((3.0,), (4, 8)), pools=(2, 4))
    assert [own for own, _ in features.candidates(config, IMAGES)] == [
        {"wavelengths": list(wavelengths), "pool": pool}
        for wavelengths in ((3.0,), (4, 8))
        for pool in (2, 4)
    ]


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("name", "sift", "one of pixels, gabor, random_convolutions"),
        ("filters", 0, r"in \[1, 1000000\]"),
        ("orientations", 0, r"in \[1, 64\]"),
        ("wavelengths", (4.0,), r"tuples of numbers in \[2, 256\]"),
        ("wavelengths", ((1.0,),), r"tuples of numbers in \[2, 256\]"),
        ("wavelengths", (), r"tuples of numbers in \[2, 256\]"),
        ("pools", (2.5,), r"whole numbers in \[1, 256\]"),
        ("pools", (), r"whole numbers in \[1, 256\]"),
    ],
)
def test_what_is_refused(field, value, allowed):
    config = config_lib.experiment("kernel", "mnist")
    config.features[field] = value
    with pytest.raises(UserError, match=rf"config.features.{field} is .*; it must be {allowed}"):
        config_lib.check(config)
