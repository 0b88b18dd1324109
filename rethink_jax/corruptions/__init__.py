"""Corruptions of a data set, as pure functions of a key and the examples' ids.

Each takes `(key, ids, images, labels)` and returns `(images, labels)`. What happens to an example depends only
on the key and its id, through integer arithmetic and exactly representable products. The result is therefore
bit-identical for every batch size, order, sharding, jit, vmap, back end and JAX version. Section 2.1 of arXiv
1611.03530 defines the paper's six; `noise` has the label noise of later work.
"""

from collections.abc import Callable

from rethink_jax.corruptions.keys import (
    SPLITS as SPLITS,
    corruption_key as corruption_key,
    key_of as key_of,
    pinned as pinned,
)
from rethink_jax.corruptions.labels import (
    partially_corrupted_labels as partially_corrupted_labels,
    random_labels as random_labels,
    replacement_chances as replacement_chances,
    true_labels as true_labels,
)
from rethink_jax.corruptions.noise import (
    ASYMMETRIC_TARGETS as ASYMMETRIC_TARGETS,
    MOST_VALUES as MOST_VALUES,
    asymmetric_labels as asymmetric_labels,
    human_labels as human_labels,
    instance_dependent_labels as instance_dependent_labels,
    pair_flip_labels as pair_flip_labels,
    symmetric_labels as symmetric_labels,
    transition_labels as transition_labels,
)
from rethink_jax.corruptions.pixels import (
    Moments as Moments,
    gaussian as gaussian,
    moments_of as moments_of,
    pixel_counts as pixel_counts,
    pixel_moments as pixel_moments,
    random_pixels as random_pixels,
    shuffled_pixels as shuffled_pixels,
)

CORRUPTIONS: dict[str, Callable] = {
    "true_labels": true_labels,
    "partially_corrupted_labels": partially_corrupted_labels,
    "random_labels": random_labels,
    "shuffled_pixels": shuffled_pixels,
    "random_pixels": random_pixels,
    "gaussian": gaussian,
    "symmetric_labels": symmetric_labels,
    "pair_flip_labels": pair_flip_labels,
    "asymmetric_labels": asymmetric_labels,
    "transition_labels": transition_labels,
    "instance_dependent_labels": instance_dependent_labels,
    "human_labels": human_labels,
}
OF_PAPER = tuple(CORRUPTIONS)[:6]
OF_PIXELS = ("shuffled_pixels", "random_pixels", "gaussian")
LABEL_CORRUPTIONS = tuple(name for name in CORRUPTIONS if name not in (*OF_PIXELS, "true_labels"))
# Of these the test labels are corrupted, too.
OF_BOTH_SPLITS = tuple(name for name in LABEL_CORRUPTIONS if name != "human_labels")
# These look at the images; the other corruptions of labels do not.
BY_IMAGE = ("instance_dependent_labels",)
# These have a probability.
PARTIAL = (
    *("partially_corrupted_labels", "symmetric_labels", "pair_flip_labels"),
    *("asymmetric_labels", "instance_dependent_labels"),
)
# These read a file.
FROM_FILE = ("transition_labels", "human_labels")
# These draw another class.
TO_OTHERS = ("symmetric_labels", "pair_flip_labels", "instance_dependent_labels")
