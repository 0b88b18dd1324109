"""Keys, and the checks of what a corruption is given."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SPLITS = ("train", "test")


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


def check_examples(ids: Any, images: Any, labels: Any) -> Any:
    """Returns the ids in at most 32 bits; `ValueError` for shapes or values that do not fit."""
    n = np.shape(ids)
    if len(n) != 1 or np.shape(labels) != n or images.ndim != 4 or images.shape[:1] != n:
        raise ValueError(
            f"ids, images and labels have shapes {n}, {images.shape} and {np.shape(labels)}; "
            "they must be [n], [n, height, width, channels] and [n]"
        )
    return _narrowed(ids, "ids", 0, np.uint32)


def narrowed_labels(labels: Any, num_classes: int = 1) -> Any:
    """Returns the labels in at most 32 bits; `ValueError` for values or classes that do not fit."""
    labels = _narrowed(labels, "labels", np.iinfo(np.int32).min, np.int32)
    most = np.iinfo(labels.dtype).max
    if not 1 <= num_classes <= min(most + 1, 2**31 - 1):
        raise ValueError(
            f"num_classes is {num_classes}; it must be 1 or more, and labels of {labels.dtype} go up to {most}"
        )
    return labels


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
