import numpy as np
import pytest
from scipy import signal

from rethink_jax import config as config_lib, features
from rethink_jax.config import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 12, 14, 2)).astype(np.uint8)


def test_pixels():
    found = features.pixels(IMAGES)
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
def test_gabor_features_against_scipy(pool):
    found = features.gabor(3, (4.0, 6.0), pool)(IMAGES)
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
    whole = features.gabor(2, (4.0,), 4)(IMAGES)
    monkeypatch.setattr(features, "_BATCH", 2)
    np.testing.assert_allclose(features.gabor(2, (4.0,), 4)(IMAGES), whole, rtol=1e-6)


def test_candidates():
    config = config_lib.kernel("mnist", (1.0,))
    assert [own for own, _ in features.candidates(config)] == [{}]
    config.features.update(name="gabor", wavelengths=((3.0,), (4, 8)), pools=(2, 4))
    assert [own for own, _ in features.candidates(config)] == [
        {"wavelengths": list(wavelengths), "pool": pool}
        for wavelengths in ((3.0,), (4, 8))
        for pool in (2, 4)
    ]


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("name", "sift", "pixels or gabor"),
        ("orientations", 0, r"in \[1, 64\]"),
        ("wavelengths", (4.0,), r"tuples of numbers in \[2, 256\]"),
        ("wavelengths", ((1.0,),), r"tuples of numbers in \[2, 256\]"),
        ("wavelengths", (), r"tuples of numbers in \[2, 256\]"),
        ("pools", (2.5,), r"whole numbers in \[1, 256\]"),
        ("pools", (), r"whole numbers in \[1, 256\]"),
    ],
)
def test_what_is_refused(field, value, allowed):
    config = config_lib.kernel("mnist", (1.0,))
    config.features[field] = value
    with pytest.raises(UserError, match=rf"config.features.{field} is .*; it must be {allowed}"):
        features.check(config)
