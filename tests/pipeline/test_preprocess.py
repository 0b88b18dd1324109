import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from rethink_jax.pipeline import preprocess

SHAPES = st.sampled_from([(1, 1, 1, 1), (2, 5, 3, 1), (3, 4, 4, 3), (2, 7, 6, 2)])
SIDE = st.integers(1, 9)


def whiten(images):
    return jax.device_get(preprocess.whiten(images))


def reference(images):
    """The paper's formula in float64, an image at a time."""
    white = np.empty(images.shape)
    for i, image in enumerate(images.astype(np.float64) / 255):
        white[i] = (image - image.mean()) / max(image.std(), 1 / np.sqrt(image.size))
    return white


# Crop.


def test_crop_of_cifar10():
    rows, columns = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    image = np.stack([rows, columns], axis=-1).astype(np.uint8)[np.newaxis]
    cropped = jax.device_get(preprocess.center_crop(image, 28))
    assert cropped.shape == (1, 28, 28, 2)
    assert cropped.dtype == np.uint8
    assert cropped[0, :, 5, 0].tolist() == list(range(2, 30))
    assert cropped[0, 5, :, 1].tolist() == list(range(2, 30))


@given(height=SIDE, width=SIDE, size=SIDE, dtype=st.sampled_from([np.uint8, np.float32]))
def test_crop_against_slices(height, width, size, dtype):
    size = min(height, width, size)
    images = np.arange(2 * height * width * 3).reshape(2, height, width, 3).astype(dtype)
    rows = slice((height - size) // 2, (height - size) // 2 + size)
    columns = slice((width - size) // 2, (width - size) // 2 + size)
    cropped = jax.device_get(preprocess.center_crop(images, size))
    assert cropped.dtype == dtype
    np.testing.assert_array_equal(cropped, images[:, rows, columns])


@pytest.mark.parametrize("shape", [(1, 8, 5, 3), (1, 5, 8, 3)])
def test_crop_larger_than_the_images(shape):
    with pytest.raises(ValueError, match=f"^size is 6; images are {shape[1]}×{shape[2]}$"):
        preprocess.center_crop(np.zeros(shape, np.uint8), 6)


# Whitening.


def test_golden_whitening():
    # Deviations ±1/2 around a mean of 1/2: std 1/2, above the floor of 1/√8.
    wide = np.array([0, 255] * 4, np.uint8).reshape(1, 2, 2, 2)
    np.testing.assert_allclose(whiten(wide).ravel(), [-1, 1] * 4, rtol=1e-6)
    # Mean 1/4 and std 0.433, below the floor of 1/√4: divided by 1/2.
    narrow = np.array([0, 0, 0, 255], np.uint8).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(whiten(narrow).ravel(), [-0.5, -0.5, -0.5, 1.5], rtol=1e-6)


@given(hnp.arrays(np.uint8, SHAPES))
def test_whitening_against_numpy(images):
    white = whiten(images)
    assert white.dtype == np.float32
    np.testing.assert_allclose(white, reference(images), rtol=1e-5, atol=2e-5)


def test_whitening_of_floats_beyond_the_pixel_scale():
    images = np.random.default_rng(0).normal(120, 200, (3, 6, 5, 3)).astype(np.float32)
    assert images.min() < 0
    assert images.max() > 255
    np.testing.assert_allclose(whiten(images), reference(images), rtol=1e-5, atol=2e-5)


def test_mean_0_and_standard_deviation_1():
    images = np.random.default_rng(1).integers(0, 256, (20, 28, 28, 3)).astype(np.uint8)
    images[0] //= 8  # dark, and its deviation still above the floor
    white = whiten(images).astype(np.float64)
    np.testing.assert_allclose(white.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(white.std(axis=(1, 2, 3)), 1, rtol=1e-5)


@pytest.mark.parametrize("value", [0, 77, 149, 255])
def test_a_constant_image_becomes_zeros(value):
    white = whiten(np.full((2, 28, 28, 3), value, np.uint8))
    np.testing.assert_allclose(white, 0, atol=1e-5)


@given(hnp.arrays(np.uint8, SHAPES), st.integers(0, 2**32 - 1))
def test_whitening_commutes_with_a_permutation_of_the_values(images, seed):
    order = np.random.default_rng(seed).permutation(images[0].size)

    def permute(images):
        return images.reshape(len(images), -1)[:, order].reshape(images.shape)

    np.testing.assert_allclose(whiten(permute(images)), permute(whiten(images)), atol=2e-5)


def test_each_image_is_whitened_alone():
    images = np.random.default_rng(2).integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    others = images.copy()
    others[1:] = 7
    np.testing.assert_array_equal(whiten(images)[0], whiten(others)[0])
