"""What happens to images between the data set and the model: pure, batched, on the device."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from ml_collections import ConfigDict

from rethink_jax.corruptions import pinned
from rethink_jax.train_keys import AUGMENT, example_keys


def center_crop(images: jax.Array, size: int) -> jax.Array:
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
      then flipped. What happens to an example depends on the seed, the epoch and its id alone.
    """
    augment, size = config.augment, config.data.size
    if not (augment.random_crop or augment.flip or augment.rotation_degrees):
        return None

    def augment_one(key: jax.Array, image: jax.Array) -> jax.Array:
        angle_key, crop_key, flip_key = jax.random.split(key, 3)
        if augment.rotation_degrees:
            limit = math.radians(augment.rotation_degrees)
            image = rotate(image, jax.random.uniform(angle_key, minval=-limit, maxval=limit))
        if augment.random_crop:
            room = jnp.array([image.shape[0] - size + 1, image.shape[1] - size + 1, 1])
            start = jax.random.randint(crop_key, (3,), 0, room)
            image = jax.lax.dynamic_slice(image, start, (size, size, image.shape[2]))
        if augment.flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        return image

    @pinned
    def augment_batch(step: jax.Array, ids: jax.Array, images: jax.Array) -> jax.Array:
        keys = example_keys(config.seed, AUGMENT, step // steps_per_epoch, ids)
        return jax.vmap(augment_one)(keys, images.astype(jnp.float32))

    return augment_batch


def rotate(image: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotates an image about its centre, with bilinear interpolation (table 4: up to 25°).

    Outside of the image lie the values of its edge; ours.

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
