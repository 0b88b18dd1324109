"""Which examples `config.data.examples` takes: the first, or random ones of a set that is sorted by class."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rethink_jax.data.source import EncodedSplit, read_labels

logger = logging.getLogger(__name__)

# Keeps the draws of subsets apart from all others.
_SUBSETS = 7
# Of a large set, so many evenly spaced runs of so many neighbours decide.
_RUNS, _RUN = 32, 32
# The probability of taking a shuffled set for a sorted one.
_SIGNIFICANT = 1e-9


def choose_examples(
    n: int, count: int, labels_at: Callable[[np.ndarray], Sequence[int] | np.ndarray], what: str
) -> np.ndarray:
    """Returns the positions of `count` of n examples, and logs which they are.

    A shuffled set gives its first examples. In a set that is sorted by class, or nearly so, these would have
    only few of the classes. It gives examples in a random order that is the same for every `count`, so a
    smaller subset begins a larger one. If `count` is n or more, all are taken in their own order.

    Args:
      n: the size of the set.
      count: how many to take at most.
      labels_at: function of positions, int [m], to their labels.
      what: the examples, in words.

    Returns:
      int64 [min(n, count)].
    """
    if count >= n:
        return np.arange(n)
    if not is_sorted_by_class(n, labels_at):
        logger.info("%s: the first %s of %s", what, f"{count:,}", f"{n:,}")
        return np.arange(count)
    logger.info(
        "%s: %s of %s, drawn at random because the set is sorted by class",
        *(what, f"{count:,}", f"{n:,}"),
    )
    draws = np.random.Philox(key=[0, _SUBSETS]).random_raw(n)
    return np.argsort(draws, kind="stable")[:count]


def is_sorted_by_class(n: int, labels_at: Callable[[np.ndarray], Any]) -> bool:
    """Returns whether the order of examples tells their classes, judged by 1,024 of them if there are more.

    It does if neighbours have the same class twice as often as in a shuffled set, if every class is contiguous,
    or if some classes come before others (the test of Kruskal and Wallis 1952).

    Args:
      n: the size of the set.
      labels_at: as for `choose_examples`.
    """
    if n <= _RUNS * _RUN:
        positions = np.arange(n)[np.newaxis]
    else:
        starts = np.arange(_RUNS) * (n - _RUN) // (_RUNS - 1)
        positions = starts[:, np.newaxis] + np.arange(_RUN)
    labels = np.asarray(labels_at(positions.ravel()))
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        return False
    total = labels.size
    changes = np.diff(classes.reshape(positions.shape)) != 0
    in_pieces = len(positions) == 1 and changes.sum() == len(sizes) - 1
    when_shuffled = 1 - (sizes * (sizes - 1)).sum() / (total * (total - 1))
    from scipy import special  # takes half as long to import as JAX

    rank_sums = np.bincount(classes, weights=np.arange(1, total + 1))
    spread = 12 / (total * (total + 1)) * (rank_sums**2 / sizes).sum() - 3 * (total + 1)
    chance = special.chdtrc(len(sizes) - 1, spread)
    return bool(in_pieces or changes.mean() <= when_shuffled / 2 or chance < _SIGNIFICANT)


def choose_records(split: EncodedSplit, count: int, num_classes: int, what: str) -> EncodedSplit:
    """Returns an encoded split of the examples that `choose_examples` chooses; `UserError` as `read_labels`."""
    labels_at = functools.partial(read_labels, split, num_classes)
    ids = choose_examples(split.count, count, labels_at, what).tolist()
    if ids == [*range(len(ids))]:
        return dataclasses.replace(split, count=len(ids))
    return dataclasses.replace(
        split,
        count=len(ids),
        fetch=functools.partial(_fetch_chosen, split, ids),
        where=functools.partial(_where_chosen, split, ids),
    )


def _fetch_chosen(
    split: EncodedSplit, ids: Sequence[int], positions: Sequence[int]
) -> Sequence[Any]:
    return split.fetch([ids[position] for position in positions])


def _where_chosen(split: EncodedSplit, ids: Sequence[int], position: int) -> str:
    return split.where(ids[position])
