"""Label noise of later work: wrong classes alone, class by class, by a matrix, by the image, or by people.

At the same probability, key and ids the kinds that draw a chance change the same examples as
`partially_corrupted_labels`, or fewer where a class stays as it is.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rethink_jax.corruptions.keys import check_examples, narrowed_labels, pinned
from rethink_jax.corruptions.pixels import normals

# Classes that are taken for others (Patrini et al. 2017): truck for automobile, bird for airplane, deer for
# horse, cat and dog for each other; of the digits 2 for 7, 3 for 8, 7 for 1, 5 and 6 for each other.
_CIFAR10_TARGETS = (0, 1, 0, 5, 7, 3, 6, 7, 8, 1)
_DIGIT_TARGETS = (0, 1, 7, 8, 4, 6, 5, 1, 8, 9)
ASYMMETRIC_TARGETS = {
    **dict.fromkeys(("cifar10", "cifar10_jpeg", "cifar10_n"), _CIFAR10_TARGETS),
    **dict.fromkeys(("mnist", "digits"), _DIGIT_TARGETS),
}

# A matrix's probabilities are rounded to multiples of 2**-30.
_BITS = 30
# Of instance-dependent noise: rates in 1/1024, weights in 1/32, pixels in 1/64, Gumbel draws in 1/64.
_RATES, _WEIGHTS, _PIXELS, _GUMBEL = 1024, 32, 64, 64
_RATE_STD = 0.1
MOST_VALUES = 2**16  # of an image: the sums of products stay in int32


@pinned
def symmetric_labels(
    key: jax.Array,
    ids: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    probability: float | jax.Array,
    num_classes: int,
) -> tuple[jax.Array, jax.Array]:
    """Replaces each label, with some probability, by a uniform random *other* class (Nakkiran et al. 2020).

    Nested like `partially_corrupted_labels`, which may draw the true class again: about `probability` of the
    labels change here, and `probability * (num_classes - 1) / num_classes` there.

    Args:
      key: a scalar key of `corruption_key(seed, split)`.
      ids: integers [n], the examples' positions in their split.
      images: any dtype [n, height, width, channels]; returned unchanged.
      labels: integers [n] in [0, num_classes).
      probability: in [0, 1].
      num_classes: the number of classes K, 2 or more.

    Returns:
      `(images, labels)`, labels in the dtype they came in, but 64 bits as int32.

    Raises:
      ValueError: for shapes, ids or labels that do not fit, or a concrete `probability` outside [0, 1].

    Example:
      >>> from rethink_jax.corruptions import corruption_key
      >>> images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.arange(8)
      >>> key, ids = corruption_key(0, "train"), np.arange(8)
      >>> print(symmetric_labels(key, ids, images, labels, probability=0.5, num_classes=10)[1])
      [3 0 5 7 4 4 6 1]
    """
    ids, labels = _check(ids, images, labels, num_classes)
    keys = _keys(key, ids)

    def shift(label_key: jax.Array) -> jax.Array:
        return 1 + jax.random.randint(label_key, (), 0, num_classes - 1, jnp.int32)

    others = (labels.astype(jnp.int32) + jax.vmap(shift)(keys[:, 1])) % num_classes
    return images, _replace(keys, probability, labels, others)


@pinned
def pair_flip_labels(
    key: jax.Array,
    ids: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    probability: float | jax.Array,
    num_classes: int,
) -> tuple[jax.Array, jax.Array]:
    """Replaces each label, with some probability, by the next class; 0 follows the last (Han et al. 2018).

    Nested; arguments, result and errors as of `symmetric_labels`.

    Example:
      >>> from rethink_jax.corruptions import corruption_key
      >>> images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.arange(8)
      >>> key, ids = corruption_key(0, "train"), np.arange(8)
      >>> print(pair_flip_labels(key, ids, images, labels, probability=0.5, num_classes=8)[1])
      [1 2 3 4 4 6 6 0]
    """
    ids, labels = _check(ids, images, labels, num_classes)
    others = (labels.astype(jnp.int32) + 1) % num_classes
    return images, _replace(_keys(key, ids), probability, labels, others)


@pinned
def asymmetric_labels(
    key: jax.Array,
    ids: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    probability: float | jax.Array,
    targets: Sequence[int],
) -> tuple[jax.Array, jax.Array]:
    """Replaces each label, with some probability, by the class that its own is taken for (Patrini et al. 2017).

    Nested; arguments, result and errors as of `symmetric_labels`, but

    Args:
      key, ids, images, labels, probability: as there.
      targets: for each class the one that replaces it, itself where it stays; `ASYMMETRIC_TARGETS` has them.

    Example:
      >>> from rethink_jax.corruptions import corruption_key
      >>> images, labels = np.zeros((10, 2, 2, 1), np.uint8), np.arange(10)
      >>> key, ids = corruption_key(0, "train"), np.arange(10)
      >>> targets = ASYMMETRIC_TARGETS["cifar10"]
      >>> print(asymmetric_labels(key, ids, images, labels, probability=1.0, targets=targets)[1])
      [0 1 0 5 7 3 6 7 8 1]
    """
    ids, labels = _check(ids, images, labels, len(targets))
    others = jnp.asarray(targets, jnp.int32)[labels]
    return images, _replace(_keys(key, ids), probability, labels, others)


@pinned
def transition_labels(
    key: jax.Array, ids: jax.Array, images: jax.Array, labels: jax.Array, *, matrix: Any
) -> tuple[jax.Array, jax.Array]:
    """Draws each label from its class's row of a transition matrix.

    Args:
      key: a scalar key of `corruption_key(seed, split)`.
      ids: integers [n], the examples' positions in their split.
      images: any dtype [n, height, width, channels]; returned unchanged.
      labels: integers [n] in [0, K).
      matrix: [K, K], row c the probabilities of the labels that examples of class c get; not traced.

    Returns:
      `(images, labels)`, labels in the dtype they came in, but 64 bits as int32.

    Raises:
      ValueError: for shapes, ids or labels that do not fit, or rows that are no probabilities.

    Example:
      >>> from rethink_jax.corruptions import corruption_key
      >>> images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.arange(8) % 2
      >>> matrix = [[0.5, 0.5], [0, 1]]
      >>> key, ids = corruption_key(0, "train"), np.arange(8)
      >>> print(transition_labels(key, ids, images, labels, matrix=matrix)[1])
      [0 1 0 1 1 1 0 1]
    """
    thresholds = _thresholds(np.asarray(matrix, np.float64))
    ids, labels = _check(ids, images, labels, len(thresholds))
    rows = jnp.asarray(thresholds)[labels]

    def draw(example_id: jax.Array, row: jax.Array) -> jax.Array:
        bits = jax.random.bits(jax.random.fold_in(key, example_id), (), jnp.uint32)
        return jnp.sum(row <= (bits >> (32 - _BITS)).astype(jnp.int32), dtype=jnp.int32)

    return images, jax.vmap(draw)(ids, rows).astype(labels.dtype)


@pinned
def instance_dependent_labels(
    key: jax.Array,
    ids: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    probability: float,
    num_classes: int,
    weights_key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Replaces each label, with a rate of its own, by a class that depends on its image (Xia et al. 2020).

    An example's rate is a normal of mean `probability` and deviation 0.1, cut to [0, 1]. The class is drawn
    from the softmax of the image's products with standard normal weights, one matrix for each true class, which
    itself is left out. Pixels are (value − 128) / 64. All of it is computed in integers: rates are multiples of
    1/1024, weights of 1/32, and the class has the greatest sum of product and Gumbel noise, a multiple of 1/64.

    Args:
      key: a scalar key of `corruption_key(seed, split)`.
      ids: integers [n], the examples' positions in their split.
      images: uint8 [n, height, width, channels], at most 65,536 values each; returned unchanged.
      labels: integers [n] in [0, num_classes).
      probability: in [0, 1]; not traced.
      num_classes: the number of classes K, 2 or more.
      weights_key: of the weights, which the splits share: `corruption_key(seed)`.

    Returns:
      `(images, labels)`, labels in the dtype they came in, but 64 bits as int32.

    Raises:
      ValueError: for shapes, ids, labels or images that do not fit, or a `probability` outside [0, 1].

    Example:
      >>> from rethink_jax.corruptions import corruption_key
      >>> images = np.arange(32, dtype=np.uint8).reshape(8, 2, 2, 1)
      >>> key, ids, labels = corruption_key(0, "train"), np.arange(8), np.arange(8)
      >>> extra = {"probability": 0.5, "num_classes": 8, "weights_key": corruption_key(0)}
      >>> print(instance_dependent_labels(key, ids, images, labels, **extra)[1])
      [3 1 0 3 4 7 5 5]
    """
    ids, labels = _check(ids, images, labels, num_classes)
    pixels = images.reshape(images.shape[0], -1)
    if pixels.dtype != np.uint8 or pixels.shape[1] > MOST_VALUES:
        raise ValueError(
            f"images are {images.dtype} {images.shape[1:]}; they must be uint8 of at most {MOST_VALUES} values"
        )
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}; it must be in [0, 1]")
    weights = normals(weights_key, (num_classes, pixels.shape[1], num_classes)) // (512 // _WEIGHTS)
    draw = functools.partial(
        _draw_by_image, key, weights, jnp.asarray(_rates(probability)), jnp.asarray(_gumbels())
    )
    return images, jax.vmap(draw)(ids, pixels, labels.astype(jnp.int32)).astype(labels.dtype)


def human_labels(
    key: jax.Array, ids: jax.Array, images: jax.Array, labels: jax.Array, *, given: Any
) -> tuple[jax.Array, jax.Array]:
    """Replaces the labels by given ones, which people wrote (Wei et al. 2022).

    Args:
      key: unused.
      ids: integers [n], the examples' positions in their split.
      images: any dtype [n, height, width, channels]; returned unchanged.
      labels: integers [n].
      given: integers [size of the split], by id.

    Returns:
      `(images, labels)`, labels in the dtype they came in, but 64 bits as int32.

    Raises:
      ValueError: for shapes, ids or labels that do not fit.

    Example:
      >>> images, ids = np.zeros((3, 2, 2, 1), np.uint8), np.array([4, 0, 2])
      >>> print(human_labels(None, ids, images, ids, given=np.array([9, 8, 7, 6, 5]))[1])
      [5 9 7]
    """
    ids = check_examples(ids, images, labels)
    labels = narrowed_labels(labels)
    if not isinstance(ids, jax.core.Tracer) and np.max(ids, initial=0) >= len(given):
        raise ValueError(f"ids go up to {np.max(ids)}; there are {len(given)} given labels")
    return images, jnp.asarray(given)[ids].astype(labels.dtype)


def _check(ids: Any, images: Any, labels: Any, num_classes: int) -> tuple[Any, Any]:
    """Returns ids and labels in at most 32 bits; `ValueError` as `check_examples`, and for other classes."""
    ids = check_examples(ids, images, labels)
    labels = narrowed_labels(labels, num_classes)
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; there must be another class")
    if isinstance(labels, jax.core.Tracer):
        return ids, labels
    least, most = np.min(labels, initial=0), np.max(labels, initial=0)
    if least < 0 or most >= num_classes:
        raise ValueError(f"labels go from {least} to {most}; they must be in [0, {num_classes})")
    return ids, jnp.asarray(labels)


def _keys(key: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns two keys for each example, [n, 2]: of the chance and of the label."""
    return jax.vmap(lambda example_id: jax.random.split(jax.random.fold_in(key, example_id)))(ids)


def _replace(
    keys: jax.Array, probability: float | jax.Array, labels: jax.Array, others: jax.Array
) -> jax.Array:
    """Returns the labels, with some probability replaced."""
    if not isinstance(probability, jax.core.Tracer) and not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}; it must be in [0, 1]")
    chances = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(keys[:, 0])
    replaced = chances < jnp.asarray(probability, jnp.float32)
    return jnp.where(replaced, others.astype(labels.dtype), labels)


def _thresholds(matrix: np.ndarray) -> np.ndarray:
    """Returns int32 [K, K − 1]: how many are at most 30 random bits is the class that a row draws."""
    is_square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if not is_square or not (matrix >= 0).all() or (abs(matrix.sum(axis=1) - 1) > 1e-6).any():
        raise ValueError(
            f"the matrix has shape {matrix.shape}; it must be square, with rows of probabilities that sum to 1"
        )
    cumulative = np.cumsum(matrix, axis=1) / matrix.sum(axis=1, keepdims=True)
    return np.round(cumulative[:, :-1] * 2.0**_BITS).astype(np.int32)


def _rates(mean: float) -> np.ndarray:
    """Returns uint32 thresholds: how many are at most 32 random bits is a rate, in 1/1024."""
    from scipy import special  # takes half as long to import as JAX

    edges = (np.arange(_RATES) + 0.5) / _RATES
    least, most = special.ndtr((np.array([0.0, 1.0]) - mean) / _RATE_STD)
    shares = (special.ndtr((edges - mean) / _RATE_STD) - least) / (most - least)
    return np.minimum(np.floor(shares * 2.0**32), 2.0**32 - 1).astype(np.uint32)


def _gumbels() -> np.ndarray:
    """Returns uint32 thresholds: how many are at most 32 random bits is Gumbel noise, but for a constant."""
    edges = (np.arange(round(-3.5 * _GUMBEL), 22 * _GUMBEL) + 0.5) / _GUMBEL
    return np.floor(np.exp(-np.exp(-edges)) * 2.0**32).astype(np.uint32)


def _draw_by_image(
    key: jax.Array,
    weights: jax.Array,
    rates: jax.Array,
    gumbels: jax.Array,
    example_id: jax.Array,
    values: jax.Array,
    label: jax.Array,
) -> jax.Array:
    """Returns one example's label; see `instance_dependent_labels`."""
    of_rate, of_chance, of_label = jax.random.split(jax.random.fold_in(key, example_id), 3)
    rate = jnp.searchsorted(rates, jax.random.bits(of_rate, (), jnp.uint32), side="right")
    chance = (jax.random.bits(of_chance, (), jnp.uint32) >> 22).astype(jnp.int32)
    bits = jax.random.bits(of_label, weights.shape[-1:], jnp.uint32)
    noise = jnp.searchsorted(gumbels, bits, side="right").astype(jnp.int32)
    products = (values.astype(jnp.int32) - 128) @ weights[label]
    scores = products + noise * (_PIXELS * _WEIGHTS // _GUMBEL)
    is_other = jnp.arange(weights.shape[-1], dtype=jnp.int32) != label
    other = jnp.argmax(jnp.where(is_other, scores, jnp.iinfo(jnp.int32).min))
    return jnp.where(chance < rate.astype(jnp.int32), other.astype(jnp.int32), label)
