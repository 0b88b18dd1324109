"""Corruptions of pixels in the paper: shuffled, shuffled each image by itself, replaced by Gaussian noise."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rethink_jax.corruptions.keys import check_examples, pinned

# Standard normals are drawn in whole multiples of 1/512.
_NORMAL_STEPS = 512


class Moments(NamedTuple):
    """Mean and standard deviation of a data set's pixels, float32 [channels] each, on its own scale."""

    mean: np.ndarray
    std: np.ndarray


@pinned
def shuffled_pixels(
    key: jax.Array, ids: jax.Array, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Applies one random permutation of the pixels to all images, training and test alike (section 2.1).

    The channels of a pixel move together.

    Args:
      key: a scalar key of `corruption_key(seed)`, without a split.
      ids: integers [n]; unused.
      images: any dtype [n, height, width, channels].
      labels: integers [n]; returned unchanged.

    Returns:
      `(images, labels)`.

    Raises:
      ValueError: for shapes, ids or labels that do not fit.

    Example:
      >>> from rethink_jax.corruptions import corruption_key
      >>> images = np.tile(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1), (3, 1, 1, 1))
      >>> ids = labels = np.arange(3)
      >>> print(shuffled_pixels(corruption_key(0), ids, images, labels)[0].reshape(3, 4))
      [[0 1 3 2]
       [0 1 3 2]
       [0 1 3 2]]
    """
    check_examples(ids, images, labels)
    pixels = _pixels(images)
    order = jax.random.permutation(key, pixels.shape[1])
    return pixels[:, order].reshape(images.shape), labels


@pinned
def random_pixels(
    key: jax.Array, ids: jax.Array, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Applies an independent random permutation of the pixels to each image (section 2.1).

    The channels of a pixel move together.

    Args:
      key: a scalar key of `corruption_key(seed, split)`.
      ids: integers [n], the examples' positions in their split.
      images: any dtype [n, height, width, channels].
      labels: integers [n]; returned unchanged.

    Returns:
      `(images, labels)`.

    Raises:
      ValueError: for shapes, ids or labels that do not fit.

    Example:
      >>> from rethink_jax.corruptions import corruption_key
      >>> images = np.tile(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1), (3, 1, 1, 1))
      >>> ids = labels = np.arange(3)
      >>> print(random_pixels(corruption_key(0, "train"), ids, images, labels)[0].reshape(3, 4))
      [[0 1 2 3]
       [3 1 0 2]
       [0 1 3 2]]
    """
    ids = check_examples(ids, images, labels)

    def permute(example_id: jax.Array, pixels: jax.Array) -> jax.Array:
        return pixels[jax.random.permutation(jax.random.fold_in(key, example_id), pixels.shape[0])]

    return jax.vmap(permute)(ids, _pixels(images)).reshape(images.shape), labels


@pinned
def gaussian(
    key: jax.Array, ids: jax.Array, images: jax.Array, labels: jax.Array, *, moments: Moments
) -> tuple[jax.Array, jax.Array]:
    """Replaces each image by Gaussian noise with the data set's mean and variance (section 2.1).

    The noise is on the scale of the moments, neither clipped nor rounded to pixel values. A standard normal is
    drawn to the nearest 1/512 by inverting its distribution function on 32 random bits, which reaches ±6.2, and
    the standard deviation is rounded to 12 significant bits. Their product is then exact in float32, so the
    result does not depend on whether a compiler fuses the multiplication with the addition.

    Args:
      key: a scalar key of `corruption_key(seed, split)`.
      ids: integers [n], the examples' positions in their split.
      images: any dtype [n, height, width, channels]; only their shape is used.
      labels: integers [n]; returned unchanged.
      moments: of the training set, for both splits; per channel, or the same for all.

    Returns:
      `(images, labels)`, images float32.

    Raises:
      ValueError: for shapes, ids or labels that do not fit.

    Example:
      >>> from rethink_jax.corruptions import corruption_key
      >>> moments = Moments(mean=np.float32([120]), std=np.float32([64]))
      >>> images, ids = np.zeros((2, 2, 2, 1), np.uint8), np.arange(2)
      >>> noise, _ = gaussian(corruption_key(0, "train"), ids, images, ids, moments=moments)
      >>> print(noise.reshape(2, 4))
      [[ 83.25  171.25  103.375 211.5  ]
       [ 39.5    94.25   48.25  176.25 ]]
    """
    ids = check_examples(ids, images, labels)
    channels = images.shape[-1:]
    if jnp.shape(moments.mean) != channels or jnp.shape(moments.std) != channels:
        raise ValueError(
            f"moments have shapes {jnp.shape(moments.mean)} and {jnp.shape(moments.std)}; "
            f"they must have one value for each of {channels[0]} channels"
        )

    def draw(example_id: jax.Array) -> jax.Array:
        steps = normals(jax.random.fold_in(key, example_id), images.shape[1:])
        return steps.astype(jnp.float32) / _NORMAL_STEPS

    mean, std = (jnp.asarray(m, jnp.float32)[None, None, None] for m in moments)
    std = lax.reduce_precision(std, exponent_bits=8, mantissa_bits=11)
    return mean + std * jax.vmap(draw)(ids), labels


def normals(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns standard normals in whole multiples of 1/512, int32; see `gaussian`."""
    thresholds = jnp.asarray(_normal_thresholds())
    bits = jax.random.bits(key, shape, jnp.uint32)
    return jnp.searchsorted(thresholds, bits, side="right") - thresholds.size // 2


def pixel_moments(images: np.ndarray, per_channel: bool = True) -> Moments:
    """Returns the mean and standard deviation of a data set's pixels, exact before their rounding.

    Args:
      images: uint8 [n, height, width, channels].
      per_channel: whether each channel has its own moments; otherwise all share those of all values.
    """
    return moments_of(pixel_counts(images), per_channel)


def pixel_counts(images: np.ndarray) -> np.ndarray:
    """Returns how often each channel has each value, int [channels, 256]; images as in `pixel_moments`."""
    return np.stack(
        [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    )


def moments_of(counts: np.ndarray, per_channel: bool) -> Moments:
    """Returns the moments that `pixel_moments` has, from the counts of `pixel_counts`."""
    values = np.arange(256, dtype=np.float64)
    if not per_channel:
        counts = np.broadcast_to(counts.sum(axis=0), counts.shape)
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = (counts * np.square(values - mean[:, None])).sum(axis=1) / total
    return Moments(mean.astype(np.float32), np.sqrt(variance).astype(np.float32))


@functools.cache
def _normal_thresholds() -> np.ndarray:
    """Returns uint32 thresholds: how many are at most 32 random bits gives a standard normal, in 1/512ths."""
    from scipy import special  # takes half as long to import as JAX

    reach = int(6.24 * _NORMAL_STEPS)
    edges = (np.arange(-reach, reach) + 0.5) / _NORMAL_STEPS
    return np.floor(special.ndtr(edges) * 2.0**32).astype(np.uint32)


def _pixels(images: jax.Array) -> jax.Array:
    return images.reshape(images.shape[0], -1, images.shape[-1])
