"""From a data set to the arrays that a run sees, cropped and corrupted."""

import functools
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from rethink_jax import corruptions
from rethink_jax.data import Dataset, DatasetInfo, Examples, label_files
from rethink_jax.data.source import digest
from rethink_jax.pipeline.preprocess import center_crop

logger = logging.getLogger(__name__)

_CHUNK = 1000
_WITH_CLASSES = (
    *("partially_corrupted_labels", "random_labels", "symmetric_labels", "pair_flip_labels"),
    "instance_dependent_labels",
)
_CHUNKED = (*corruptions.OF_PIXELS, *corruptions.BY_IMAGE)


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
    train = _corrupt(config, "train", dataset.train, dataset.info, moments)
    test = _corrupt(config, "test", dataset.test, dataset.info, moments)
    return Inputs(train, test, fingerprint=digest([train, test]))


def _corrupt(
    config: ConfigDict,
    split: str,
    examples: Examples,
    info: DatasetInfo,
    moments: corruptions.Moments | None,
) -> Split:
    size, random_crop = config.data.size, config.augment.random_crop
    size_after = None if random_crop and split == "train" else size
    if config.corruption.name not in _CHUNKED:
        images = examples.images
        if size_after is not None:
            images = np.ascontiguousarray(center_crop(images, size_after))
        labels = corrupt_labels(config.corruption, split, examples.labels, info, examples.own_ids)
        return Split(images, labels, examples.labels)
    corruption = {name: value for name, value in config.corruption.items() if name != "seed"}
    apply = functools.partial(
        _corrupt_chunk,
        corruption=FrozenConfigDict(corruption),
        info=info,
        size_before=None if config.corruption.before_crop or random_crop else size,
        size_after=size_after,
    )
    key = split_key(config.corruption, split)
    shared_key = corruptions.corruption_key(config.corruption.seed)
    n = len(examples.labels)
    chunk = min(n, _CHUNK)
    parts = []
    for start in range(0, n, chunk):
        # The last chunk wraps round to the split's beginning, so that all have the one compiled shape.
        ids = np.arange(start, start + chunk, dtype=np.int32) % n
        parts.append(
            jax.device_get(
                apply(key, shared_key, ids, examples.images[ids], examples.labels[ids], moments)
            )
        )
    images, labels = (np.concatenate(column)[:n] for column in zip(*parts, strict=True))
    return Split(images, labels, examples.labels)


@functools.partial(jax.jit, static_argnames=("corruption", "info", "size_before", "size_after"))
def _corrupt_chunk(
    key: jax.Array,
    shared_key: jax.Array,
    ids: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    moments: corruptions.Moments | None,
    *,
    corruption: FrozenConfigDict,
    info: DatasetInfo,
    size_before: int | None,
    size_after: int | None,
) -> tuple[jax.Array, jax.Array]:
    """Corrupts some examples; cuts squares of these sizes before and after, None leaves images whole."""
    if size_before is not None:
        images = center_crop(images, size_before)
    corrupt = from_config(corruption, info, moments, shared_key)
    images, labels = corrupt(key, ids, images, labels)
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
    info: DatasetInfo,
    moments: corruptions.Moments | None = None,
    shared_key: jax.Array | None = None,
    given: np.ndarray | None = None,
) -> Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns `config.corruption` as a function `(key, ids, images, labels) -> (images, labels)`.

    Args:
      corruption: `config.corruption`.
      info: sizes of the data set.
      moments: of the training set's pixels; only `gaussian` needs them.
      shared_key: `corruption_key(seed)`; only `instance_dependent_labels` needs it.
      given: a split's labels by id; only `human_labels` needs them.
    """
    name = corruption.name
    extra: dict[str, Any] = {}
    if name in corruptions.PARTIAL:
        extra["probability"] = corruption.probability
    if name in _WITH_CLASSES:
        extra["num_classes"] = info.num_classes
    if name == "gaussian":
        extra["moments"] = moments
    if name == "asymmetric_labels":
        extra["targets"] = corruptions.ASYMMETRIC_TARGETS[family(info.name)]
    if name == "transition_labels":
        extra["matrix"] = label_files.transition_matrix(
            corruption.file, corruption.annotator, info.num_classes
        )
    if name == "instance_dependent_labels":
        extra["weights_key"] = shared_key
    if name == "human_labels":
        extra["given"] = given
    return functools.partial(corruptions.CORRUPTIONS[name], **extra)


def family(name: str) -> str:
    """Returns a data set's name without TFDS's config and version."""
    return re.split("[/:]", name)[0]


def corrupt_labels(
    corruption: ConfigDict,
    split: str,
    labels: np.ndarray,
    info: DatasetInfo,
    own_ids: np.ndarray | None = None,
) -> np.ndarray:
    """Returns a split's labels, int32 [n], as a corruption of labels leaves them that does not look at images.

    Args:
      corruption: `config.corruption`.
      split: `train` or `test`; nobody gave the test examples labels, so `human_labels` leaves them.
      labels: int32 [n].
      info: sizes of the data set.
      own_ids: as in `Examples`; only `human_labels` needs them.

    Raises:
      UserError: as `label_files.human_labels`.
    """
    name, given = corruption.name, None
    if name not in corruptions.LABEL_CORRUPTIONS or (name == "human_labels" and split == "test"):
        return labels
    if name == "human_labels":
        given = label_files.human_labels(
            *(corruption.file, corruption.annotator, labels, own_ids),
            *(info.name, info.num_classes),
        )
    no_images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    corrupt = from_config(corruption, info, given=given)
    key = split_key(corruption, split)
    ids = np.arange(len(labels), dtype=np.int32)
    return np.asarray(corrupt(key, *map(jnp.asarray, (ids, no_images, labels)))[1])


def labels_by(
    name: str,
    labels: np.ndarray,
    info: DatasetInfo,
    seed: int,
    probability: float,
    split: str = "train",
) -> np.ndarray:
    """Returns what `corrupt_labels` does, for a corruption that no config has."""
    corruption = ConfigDict({"name": name, "probability": float(probability), "seed": seed})
    return corrupt_labels(corruption, split, labels, info)


def log_changes(labels: Sequence[np.ndarray], true_labels: np.ndarray) -> None:
    """Logs how many training labels differ from the true ones, where any do; of several runs the range."""
    counts = sorted(int(np.sum(seen != true_labels)) for seen in labels)
    if not counts[-1]:
        return
    n, ends = len(true_labels), dict.fromkeys((counts[0], counts[-1]))
    shown, shares = (
        " to ".join(form.format(k, k / n) for k in ends) for form in ("{:,}", "{1:.2%}")
    )
    logger.info("%s of %s training labels differ from the true ones (%s)", shown, f"{n:,}", shares)
