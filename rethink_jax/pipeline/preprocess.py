"""Crops, whitening and augmentation of batches of images: pure functions, on the device."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from ml_collections import ConfigDict

from rethink_jax.corruptions import key_of, pinned

Images = TypeVar("Images", jax.Array, np.ndarray)

# Fold into the seed's key, which itself orders the data, so that no two uses share draws.
AUGMENT, DROPOUT = 1, 2


@pinned
def example_keys(seed: int, purpose: int, time: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns a key for each example of a batch.

    Args:
      seed: `config.seed`.
      purpose: `AUGMENT` or `DROPOUT`.
      time: int32 scalar, the epoch or the step.
      ids: int32 [n]; those of padding give keys like any other.

    Returns:
      threefry2x32 keys [n].
    """
    key = jax.random.fold_in(key_of(seed), purpose)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, time), ids)


def center_crop(images: Images, size: int) -> Images:
    """Cuts the central square out of every image (section 3: 28×28 out of CIFAR-10's 32×32).

    Args:
      images: any dtype [n, height, width, channels].
      size: side of the square, at most the height and the width.

    Returns:
      Images [n, size, size, channels].

    Raises:
      ValueError: for a square larger than the images.
    """
    height, width = images.shape[1:3]
    if size > min(height, width):
        raise ValueError(f"size is {size}; images are {height}×{width}")
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, top : top + size, left : left + size]


def whiten(images: jax.Array) -> jax.Array:
    """Divides by 255, then gives each image mean 0 and standard deviation 1 over all its values (section 3).

    The standard deviation is taken as 1/√N at least, N the number of an image's values, so that a constant
    image becomes zeros.

    Args:
      images: any real dtype [n, height, width, channels], on the scale 0 … 255.

    Returns:
      Images float32 [n, height, width, channels]; float64 if that came in.

    Example:
      >>> images = np.uint8([0, 255, 255, 0]).reshape(1, 2, 2, 1)
      >>> print(whiten(images).reshape(4))
      [-1.  1.  1. -1.]
    """
    images = images.astype(jnp.float64 if images.dtype == jnp.float64 else jnp.float32) / 255
    centered = images - images.mean(axis=(1, 2, 3), keepdims=True)
    std = jnp.sqrt(jnp.square(centered).mean(axis=(1, 2, 3), keepdims=True))
    return centered / jnp.maximum(std, 1 / math.sqrt(math.prod(images.shape[1:])))


def make_augment(
    config: ConfigDict, steps_per_epoch: int
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None:
    """Returns the augmentation that `config.augment` asks for, or None (appendix A, table 4).

    Returns:
      A function of the step (int32 scalar), ids int32 [n] and images of any real dtype [n, height, width,
      channels] to float32 images on the same scale, rotated, then cropped at random to `config.data.size`,
      then flipped, then distorted in their colours. What is streamed is cropped already, before it gets to the
      device. What happens to an example depends on the seed, the epoch and its id alone.
    """
    augment, size = config.augment, config.data.size
    random_crop = augment.random_crop and not config.data.stream
    if not (random_crop or augment.flip or augment.rotation_degrees or augment.color):
        return None

    def augment_one(key: jax.Array, image: jax.Array) -> jax.Array:
        angle_key, crop_key, flip_key, color_key = jax.random.split(key, 4)
        if augment.rotation_degrees:
            limit = math.radians(augment.rotation_degrees)
            image = rotate(image, jax.random.uniform(angle_key, (), jnp.float32, -limit, limit))
        if random_crop:
            starts = jnp.array([image.shape[0] - size + 1, image.shape[1] - size + 1, 1])
            start = jax.random.randint(crop_key, (3,), 0, starts, jnp.int32)
            image = jax.lax.dynamic_slice(image, start, (size, size, image.shape[2]))
        if augment.flip:
            image = jnp.where(
                jax.random.bernoulli(flip_key, jnp.float32(0.5)), image[:, ::-1], image
            )
        if augment.color:
            image = distort_color(image, *_draw_distortion(color_key))
        return image

    @pinned
    def augment_batch(step: jax.Array, ids: jax.Array, images: jax.Array) -> jax.Array:
        keys = example_keys(config.seed, AUGMENT, step // steps_per_epoch, ids)
        return jax.vmap(augment_one)(keys, images.astype(jnp.float32))

    return augment_batch


def rotate(image: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotates an image about its centre, with bilinear interpolation (table 4: up to 25°).

    Pixels from outside the image repeat its edge. Not stated in the paper; our choice.

    Args:
      image: float32 [height, width, channels].
      angle: float32 scalar, in radians, counterclockwise.
    """
    height, width, channels = image.shape
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    rows, columns = np.arange(height) - centre_y, np.arange(width) - centre_x
    y, x = np.meshgrid(rows.astype(np.float32), columns.astype(np.float32), indexing="ij")
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    from_y, from_x = centre_y + cos * y + sin * x, centre_x + cos * x - sin * y
    return jnp.stack(
        [
            map_coordinates(image[..., channel], [from_y, from_x], order=1, mode="nearest")
            for channel in range(channels)
        ],
        axis=-1,
    )


def distort_color(
    image: jax.Array,
    brightness: jax.Array,
    saturation: jax.Array,
    hue: jax.Array,
    contrast: jax.Array,
) -> jax.Array:
    """Changes brightness, saturation, hue and contrast, in this order, then clips to 0 … 255.

    The Inceptions' distortion of colours, the first of the four orders of TF-slim's `inception_preprocessing`
    for all images. Between the four nothing is clipped but the saturation, which is 1 at most.

    Args:
      image: float32 [height, width, 3], red, green and blue on the scale 0 … 255.
      brightness: float32 scalar, added to all values.
      saturation: float32 scalar, by which the saturation of HSV is multiplied.
      hue: float32 scalar, added to the hue of HSV, in turns.
      contrast: float32 scalar, by which each channel's differences from its mean are multiplied.

    Returns:
      An image like `image`.
    """
    image = image + brightness
    value, spread = image.max(axis=-1), image.max(axis=-1) - image.min(axis=-1)
    sixths = _hue(image, spread) + 6 * hue
    # Value times saturation, which is the spread of the channels again.
    spread = jnp.minimum(saturation * spread, jnp.maximum(value, 0))
    # From HSV, with no cases: each channel is the value less a trapezoid of the hue.
    places = jnp.array([5.0, 3.0, 1.0], jnp.float32)[None, None] + sixths[..., None]
    places = places % 6
    trapezoid = jnp.clip(jnp.minimum(places, 4 - places), 0, 1)
    image = value[..., None] - spread[..., None] * trapezoid
    mean = image.mean(axis=(0, 1), keepdims=True)
    return jnp.clip((image - mean) * contrast + mean, 0, 255)


def _hue(image: jax.Array, spread: jax.Array) -> jax.Array:
    """Returns the hue of HSV in sixths of a turn, in [−1, 5]; 0 for grey."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    divisor = jnp.where(spread > 0, spread, 1)
    return jnp.select(
        [(red >= green) & (red >= blue), green >= blue],
        [(green - blue) / divisor, 2 + (blue - red) / divisor],
        4 + (red - green) / divisor,
    )


def _draw_distortion(key: jax.Array) -> list[jax.Array]:
    """Draws what `distort_color` takes, uniformly and as far as TF-slim does."""
    limits = ((-32.0, 32.0), (0.5, 1.5), (-0.2, 0.2), (0.5, 1.5))
    return [
        jax.random.uniform(part, (), jnp.float32, low, high)
        for part, (low, high) in zip(jax.random.split(key, len(limits)), limits, strict=True)
    ]
