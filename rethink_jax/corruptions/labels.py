"""Corruptions of labels in the paper: every label, or a share of them, replaced by a uniform random class."""

import jax
import jax.numpy as jnp

from rethink_jax.corruptions.keys import check_examples, narrowed_labels, pinned


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
      >>> import numpy as np
      >>> from rethink_jax.corruptions import corruption_key
      >>> images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.array([7, 1, 4])
      >>> true_labels(corruption_key(0, "train"), np.arange(3), images, labels)[1].tolist()
      [7, 1, 4]
    """
    check_examples(ids, images, labels)
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
      >>> import numpy as np
      >>> from rethink_jax.corruptions import corruption_key
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
    ids = check_examples(ids, images, labels)
    labels = narrowed_labels(labels, num_classes)
    if not isinstance(probability, jax.core.Tracer) and not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}; it must be in [0, 1]")

    def draw(example_id: jax.Array) -> jax.Array:
        _, label = _keys_of_example(key, example_id)
        return jax.random.randint(label, (), 0, num_classes, jnp.int32)

    drawn = jax.vmap(draw)(ids)
    replaced = replacement_chances(key, ids) < jnp.asarray(probability, jnp.float32)
    return images, jnp.where(replaced, drawn.astype(labels.dtype), labels)


def _keys_of_example(key: jax.Array, example_id: jax.Array) -> jax.Array:
    """Returns two keys [2]: of whether the label is replaced, and of the new one."""
    return jax.random.split(jax.random.fold_in(key, example_id))


@pinned
def replacement_chances(key: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns the probability above which `partially_corrupted_labels` replaces each label, float32 [n].

    Args:
      key: as there.
      ids: integers [n], the examples' positions in their split.

    Example:
      >>> import numpy as np
      >>> from rethink_jax.corruptions import corruption_key
      >>> np.asarray(replacement_chances(corruption_key(0, "train"), np.arange(4))).round(3)
      array([0.072, 0.016, 0.044, 0.439], dtype=float32)
    """

    def draw(example_id: jax.Array) -> jax.Array:
        return jax.random.uniform(_keys_of_example(key, example_id)[0], (), jnp.float32)

    return jax.vmap(draw)(jnp.asarray(ids))


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

      >>> import numpy as np
      >>> from rethink_jax.corruptions import corruption_key
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
