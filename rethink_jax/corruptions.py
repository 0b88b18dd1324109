"""The paper's six versions of a data set, as pure functions of a key and the examples' ids.

Each takes `(key, ids, images, labels)` and returns `(images, labels)`. What happens to an example depends only
on the key and its id, through integer arithmetic and exactly representable products. The result is therefore
bit-identical for every batch size, order, sharding, jit, vmap, back end and JAX version. Section 2.1 of arXiv
1611.03530 defines them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SPLITS = ("train", "test")

# Standard normals are drawn in whole multiples of 1/512.
_NORMAL_STEPS = 512


class Moments(NamedTuple):
    """Mean and standard deviation of a data set's pixels, float32 [channels] each, on its own scale."""

    mean: np.ndarray
    std: np.ndarray


def pinned(function: Callable) -> Callable:
    """Returns the function with the one global setting pinned that changes threefry's bits."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.threefry_partitionable(True):
            return function(*args, **kwargs)

    return wrapped


def key_of(seed: int) -> jax.Array:
    """Returns the scalar threefry2x32 key of a seed in [0, 2**32), independent of JAX's settings."""
    return jax.random.wrap_key_data(jnp.array([0, seed], jnp.uint32), impl="threefry2x32")


@pinned
def corruption_key(seed: int, split: str | None = None) -> jax.Array:
    """Returns the key of a corruption seed.

    Args:
      seed: `config.corruption.seed`, in [0, 2**32).
      split: `train` or `test`, whose ids are keyed apart; None for `shuffled_pixels`, whose one
        permutation they share.

    Returns:
      A scalar threefry2x32 key.

    Raises:
      ValueError: for another split.

    Example:
      >>> key = corruption_key(seed=0, split="train")
      >>> jax.random.key_data(key).tolist()
      [1797259609, 2579123966]
    """
    key = key_of(seed)
    return key if split is None else jax.random.fold_in(key, SPLITS.index(split))


def true_labels(
    key: jax.Array, ids: jax.Array, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the examples unchanged: the original data set of section 2.1.

    Args:
      key: unused, like the ids.
      ids: integers [n], the examples' positions in their split.
      images: any dtype [n, height, width, channels].
      labels: integers [n].

    Returns:
      `(images, labels)`.

    Example:
      >>> images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.array([7, 1, 4])
      >>> true_labels(corruption_key(0, "train"), np.arange(3), images, labels)[1].tolist()
      [7, 1, 4]
    """
    _check(ids, images, labels)
    return images, labels


@pinned
def partially_corrupted_labels(
    key: jax.Array,
    ids: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    probability: float | jax.Array,
    num_classes: int,
) -> tuple[jax.Array, jax.Array]:
    """Replaces each label, with some probability, by a uniform random class (section 2.1).

    The true class may be drawn, so about `probability * (num_classes - 1) / num_classes` of the labels
    change. The draws are nested: an example replaced at p is replaced by the same label at every p' > p.

    Args:
      key: a scalar key of `corruption_key(seed, split)`.
      ids: integers [n], the examples' positions in their split.
      images: any dtype [n, height, width, channels]; returned unchanged.
      labels: integers [n].
      probability: in [0, 1]; 1 is `random_labels`.
      num_classes: the number of classes K; labels are drawn from 0 … K − 1.

    Returns:
      `(images, labels)`, labels in the dtype they came in, but 64 bits as int32.

    Raises:
      ValueError: for shapes, ids or labels that do not fit, or a concrete `probability` outside [0, 1].

    Example:
      >>> key, ids = corruption_key(0, "train"), np.arange(8)
      >>> images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.arange(8)
      >>> for p in (0.3, 0.5, 1.0):
      ...     _, replaced = partially_corrupted_labels(
      ...         key, ids, images, labels, probability=p, num_classes=10
      ...     )
      ...     print(replaced)
      [3 7 7 3 4 5 6 7]
      [3 7 7 2 4 7 6 7]
      [3 7 7 2 3 7 8 7]
    """
    ids = _check(ids, images, labels)
    labels = _narrowed(labels, "labels", np.iinfo(np.int32).min, np.int32)
    most = np.iinfo(labels.dtype).max
    if not 1 <= num_classes <= min(most + 1, 2**31 - 1):
        raise ValueError(
            f"num_classes is {num_classes}; it must be 1 or more, and labels of {labels.dtype} go up to {most}"
        )
    if not isinstance(probability, jax.core.Tracer) and not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}; it must be in [0, 1]")

    def draw(example_id: jax.Array) -> tuple[jax.Array, jax.Array]:
        chance, label = jax.random.split(jax.random.fold_in(key, example_id))
        return (
            jax.random.uniform(chance, (), jnp.float32),
            jax.random.randint(label, (), 0, num_classes, jnp.int32),
        )

    chances, drawn = jax.vmap(draw)(ids)
    replaced = chances < jnp.asarray(probability, jnp.float32)
    return images, jnp.where(replaced, drawn.astype(labels.dtype), labels)


def random_labels(
    key: jax.Array, ids: jax.Array, images: jax.Array, labels: jax.Array, *, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Replaces every label by a uniform random class (section 2.1).

    Args:
      key: a scalar key of `corruption_key(seed, split)`.
      ids: integers [n], the examples' positions in their split.
      images: any dtype [n, height, width, channels]; returned unchanged.
      labels: integers [n].
      num_classes: the number of classes K; labels are drawn from 0 … K − 1.

    Returns:
      `(images, labels)`, labels in the dtype they came in, but 64 bits as int32.

    Raises:
      ValueError: for shapes, ids or labels that do not fit.

    Example:
      An example gets the same label in any batch.

      >>> key = corruption_key(0, "train")
      >>> images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.arange(8)
      >>> print(random_labels(key, np.arange(8), images, labels, num_classes=10)[1])
      [3 7 7 2 3 7 8 7]
      >>> last = np.arange(5, 8)
      >>> print(random_labels(key, last, images[last], labels[last], num_classes=10)[1])
      [7 8 7]
    """
    return partially_corrupted_labels(
        key, ids, images, labels, probability=1.0, num_classes=num_classes
    )


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
      >>> images = np.tile(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1), (3, 1, 1, 1))
      >>> ids = labels = np.arange(3)
      >>> print(shuffled_pixels(corruption_key(0), ids, images, labels)[0].reshape(3, 4))
      [[0 1 3 2]
       [0 1 3 2]
       [0 1 3 2]]
    """
    _check(ids, images, labels)
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
      >>> images = np.tile(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1), (3, 1, 1, 1))
      >>> ids = labels = np.arange(3)
      >>> print(random_pixels(corruption_key(0, "train"), ids, images, labels)[0].reshape(3, 4))
      [[0 1 2 3]
       [3 1 0 2]
       [0 1 3 2]]
    """
    ids = _check(ids, images, labels)

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
      >>> moments = Moments(mean=np.float32([120]), std=np.float32([64]))
      >>> images, ids = np.zeros((2, 2, 2, 1), np.uint8), np.arange(2)
      >>> noise, _ = gaussian(corruption_key(0, "train"), ids, images, ids, moments=moments)
      >>> print(noise.reshape(2, 4))
      [[ 83.25  171.25  103.375 211.5  ]
       [ 39.5    94.25   48.25  176.25 ]]
    """
    ids = _check(ids, images, labels)
    channels = images.shape[-1:]
    if jnp.shape(moments.mean) != channels or jnp.shape(moments.std) != channels:
        raise ValueError(
            f"moments have shapes {jnp.shape(moments.mean)} and {jnp.shape(moments.std)}; "
            f"they must have one value for each of {channels[0]} channels"
        )
    thresholds = jnp.asarray(_normal_thresholds())

    def draw(example_id: jax.Array) -> jax.Array:
        bits = jax.random.bits(jax.random.fold_in(key, example_id), images.shape[1:], jnp.uint32)
        steps = jnp.searchsorted(thresholds, bits, side="right")
        return (steps - thresholds.size // 2).astype(jnp.float32) / _NORMAL_STEPS

    mean, std = (jnp.asarray(m, jnp.float32)[None, None, None] for m in moments)
    std = lax.reduce_precision(std, exponent_bits=8, mantissa_bits=11)
    return mean + std * jax.vmap(draw)(ids), labels


CORRUPTIONS: dict[str, Callable] = {
    "true_labels": true_labels,
    "partially_corrupted_labels": partially_corrupted_labels,
    "random_labels": random_labels,
    "shuffled_pixels": shuffled_pixels,
    "random_pixels": random_pixels,
    "gaussian": gaussian,
}
LABEL_CORRUPTIONS = ("partially_corrupted_labels", "random_labels")


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


def _check(ids: Any, images: Any, labels: Any) -> Any:
    """Returns the ids in at most 32 bits; `ValueError` for shapes or values that do not fit."""
    n = np.shape(ids)
    if len(n) != 1 or np.shape(labels) != n or images.ndim != 4 or images.shape[:1] != n:
        raise ValueError(
            f"ids, images and labels have shapes {n}, {images.shape} and {np.shape(labels)}; "
            "they must be [n], [n, height, width, channels] and [n]"
        )
    return _narrowed(ids, "ids", 0, np.uint32)


def _narrowed(values: Any, what: str, least: int, dtype: type[np.integer]) -> Any:
    """Returns integers unchanged, but 64 bits as `dtype`, to which JAX would convert them by wrapping around.

    Raises `ValueError` for anything but integers, and for values below `least` or too large for `dtype`.
    """
    array = values if hasattr(values, "dtype") else np.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{what} are {array.dtype}; they must be integers")
    if array.dtype.itemsize <= 4 or isinstance(array, jax.core.Tracer):
        return array
    array, most = np.asarray(array), np.iinfo(dtype).max
    if array.size and not (least <= array.min() and array.max() <= most):
        found = f"go from {array.min()} to {array.max()}"
        raise ValueError(f"{what} {found}; they must be in [{least}, {most}]")
    return array.astype(dtype)
