"""What happens to images between the data set and the model: pure, batched, on the device."""

import math

import jax
import jax.numpy as jnp


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
