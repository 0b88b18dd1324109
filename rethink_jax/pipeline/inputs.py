"""From a data set to the arrays that a run sees, cropped and corrupted."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from rethink_jax import corruptions
from rethink_jax.data import Dataset, Examples
from rethink_jax.data.source import digest
from rethink_jax.pipeline.preprocess import center_crop

_CHUNK = 1000
_OF_NO_PIXELS = ("true_labels", *corruptions.LABEL_CORRUPTIONS)


class Split(NamedTuple):
    """A split as a run sees it; an example's id is its position.

    Attributes:
      images: uint8 or float32 [n, size, size, channels], on the scale 0 … 255.
      labels: int32 [n], corrupted where the config says so.
      true_labels: int32 [n].
    """

    images: np.ndarray
    labels: np.ndarray
    true_labels: np.ndarray


def gather(split: Split, ids: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the examples of a batch from a split on the same device.

    Args:
      split: of JAX arrays.
      ids: int32 [n]; an id of padding yields any example, to be masked later.

    Returns:
      Images [n, size, size, channels], labels int32 [n] and true labels int32 [n].
    """
    images, labels, true_labels = (jnp.asarray(array)[ids] for array in split)
    return images, labels, true_labels


class Inputs(NamedTuple):
    """Both splits, and the digest by which a resumed run knows that its data are the same."""

    train: Split
    test: Split
    fingerprint: str


def prepare(config: ConfigDict, dataset: Dataset) -> Inputs:
    """Crops and corrupts a data set, once, as `config.data.size` and `config.corruption` say.

    Where training crops at random, corruption comes before every crop and the training images stay whole.
    The test labels are corrupted like the training labels, beside the true ones: the paper measures against
    the true ones, its authors' own code against the corrupted ones.

    Args:
      config: a resolved config.
      dataset: as `rethink_jax.data.load` returns it.
    """
    moments = None
    if config.corruption.name == "gaussian":
        moments = corruptions.pixel_moments(dataset.train.images, config.corruption.per_channel)
    num_classes = dataset.info.num_classes
    train = _corrupt(config, "train", dataset.train, num_classes, moments)
    test = _corrupt(config, "test", dataset.test, num_classes, moments)
    return Inputs(train, test, fingerprint=digest([train, test]))


def _corrupt(
    config: ConfigDict,
    split: str,
    examples: Examples,
    num_classes: int,
    moments: corruptions.Moments | None,
) -> Split:
    size, random_crop = config.data.size, config.augment.random_crop
    size_after = None if random_crop and split == "train" else size
    if config.corruption.name in _OF_NO_PIXELS:
        images = examples.images
        if size_after is not None:
            images = np.ascontiguousarray(center_crop(images, size_after))
        labels = corrupt_labels(config.corruption, split, examples.labels, num_classes)
        return Split(images, labels, examples.labels)
    corruption = {name: value for name, value in config.corruption.items() if name != "seed"}
    apply = functools.partial(
        _corrupt_chunk,
        corruption=FrozenConfigDict(corruption),
        num_classes=num_classes,
        size_before=None if config.corruption.before_crop or random_crop else size,
        size_after=size_after,
    )
    key = split_key(config.corruption, split)
    n = len(examples.labels)
    chunk = min(n, _CHUNK)
    parts = []
    for start in range(0, n, chunk):
        # The last chunk wraps round to the split's beginning, so that all have the one compiled shape.
        ids = np.arange(start, start + chunk, dtype=np.int32) % n
        parts.append(
            jax.device_get(apply(key, ids, examples.images[ids], examples.labels[ids], moments))
        )
    images, labels = (np.concatenate(column)[:n] for column in zip(*parts, strict=True))
    return Split(images, labels, examples.labels)


@functools.partial(
    jax.jit, static_argnames=("corruption", "num_classes", "size_before", "size_after")
)
def _corrupt_chunk(
    key: jax.Array,
    ids: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    moments: corruptions.Moments | None,
    *,
    corruption: FrozenConfigDict,
    num_classes: int,
    size_before: int | None,
    size_after: int | None,
) -> tuple[jax.Array, jax.Array]:
    """Corrupts some examples; cuts squares of these sizes before and after, None leaves images whole."""
    if size_before is not None:
        images = center_crop(images, size_before)
    images, labels = from_config(corruption, num_classes, moments)(key, ids, images, labels)
    if size_after is not None:
        images = center_crop(images, size_after)
    return images, labels


def split_key(corruption: ConfigDict, split: str) -> jax.Array:
    """Returns the key of `config.corruption` for a split, `train` or `test`."""
    return corruptions.corruption_key(
        corruption.seed, None if corruption.name == "shuffled_pixels" else split
    )


def from_config(
    corruption: ConfigDict | FrozenConfigDict,
    num_classes: int,
    moments: corruptions.Moments | None,
) -> Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns `config.corruption` as a function `(key, ids, images, labels) -> (images, labels)`.

    Args:
      corruption: `config.corruption`.
      num_classes: the number of classes.
      moments: of the training set's pixels; only `gaussian` needs them.
    """
    extra = {
        "partially_corrupted_labels": {
            "probability": corruption.probability,
            "num_classes": num_classes,
        },
        "random_labels": {"num_classes": num_classes},
        "gaussian": {"moments": moments},
    }
    return functools.partial(
        corruptions.CORRUPTIONS[corruption.name], **extra.get(corruption.name, {})
    )


def corrupt_labels(
    corruption: ConfigDict, split: str, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Returns a split's labels, int32 [n], as a corruption of labels leaves them."""
    if corruption.name not in corruptions.LABEL_CORRUPTIONS:
        return labels
    no_images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    corrupt = from_config(corruption, num_classes, moments=None)
    key = split_key(corruption, split)
    ids = np.arange(len(labels), dtype=np.int32)
    return np.asarray(corrupt(key, *map(jnp.asarray, (ids, no_images, labels)))[1])
