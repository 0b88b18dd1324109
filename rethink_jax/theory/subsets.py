"""Members trained on keyed subsets, and what their answers tell of single examples.

Memorization and influence are those of Feldman and Zhang 2020 (arXiv 2008.03703): how much more often a member
is right on an example when it was trained on it, and on a test point when it was trained on an example. The
C-score is that of Jiang, Zhang, Talwar and Mozer 2021 (arXiv 2002.03206): how often members are right on an
example that they were not trained on, in the mean over sizes of the subset. All functions are pure.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from rethink_jax.corruptions import key_of, pinned
from rethink_jax.sweeps import estimates

# Folded into the seed's key beside those of `pipeline.preprocess`, so that no two uses share draws.
MEMBERSHIP, MEMBER_SEED = 3, 4

# A pair of a training example and a test point of its class counts from here on (Feldman and Zhang 2020).
LEAST_MEMORIZATION, LEAST_INFLUENCE = 0.25, 0.15

# Training examples that are kept for each test point, the most influential.
STRONGEST = 50

_TEST_POINTS = 200


def subset_size(fraction: float, n: int) -> int:
    """Returns ⌊fraction · n⌋ of the fraction as it is typed: ⌊0.29 · 100⌋ is 29, where floats give 28.

    Example:
      >>> subset_size(0.29, 100), subset_size(0.7, 297)
      (29, 207)
    """
    return math.floor(Fraction(str(fraction)) * n)


@pinned
def membership(seed: int, members: Sequence[int], n: int, size: int) -> np.ndarray:
    """Returns the examples that each member is trained on: those of the lowest draws, of equal ones the first.

    The draw of an example is 32 bits of threefry2x32, keyed by the seed, the member and the id. A subset
    therefore depends on nothing else, and lies in each larger one of the same member.

    Args:
      seed: `config.seed`, in [0, 2**32).
      members: their numbers, each in [0, 2**32).
      n: the number of examples.
      size: of each subset, in [0, n].

    Returns:
      bool [members, n], `size` of each row true.

    Raises:
      ValueError: the size is not in [0, n].

    Example:
      >>> membership(seed=0, members=[0, 1], n=8, size=3).astype(int)
      array([[0, 1, 0, 1, 1, 0, 0, 0],
             [1, 0, 0, 1, 0, 0, 0, 1]])
    """
    if not 0 <= size <= n:
        raise ValueError(f"size is {size}; it must be in [0, {n}]")
    lowest = np.argsort(draws(seed, members, n), axis=1, kind="stable")[:, :size]
    is_member = np.zeros((len(members), n), bool)
    np.put_along_axis(is_member, lowest, True, axis=1)
    return is_member


@pinned
def draws(seed: int, members: Sequence[int], n: int) -> np.ndarray:
    """Returns the draw of each example for each member, uint32 [members, n]; arguments as for `membership`."""
    return np.asarray(_draws(np.uint32(seed), np.asarray(members, np.uint32), n))


@functools.partial(jax.jit, static_argnames="n")
def _draws(seed: Any, members: Any, n: int) -> jax.Array:
    key = jax.random.fold_in(key_of(seed), MEMBERSHIP)

    def draw(member: jax.Array, example_id: jax.Array) -> jax.Array:
        own = jax.random.fold_in(jax.random.fold_in(key, member), example_id)
        return jax.random.bits(own, (), jnp.uint32)

    of_member = jax.vmap(draw, (None, 0))
    return jax.vmap(of_member, (0, None))(members, jnp.arange(n, dtype=jnp.uint32))


@pinned
def member_seeds(seed: int, members: Sequence[int]) -> np.ndarray:
    """Returns the seed of each member's initial weights and order of examples, uint32 [members]."""
    key = jax.random.fold_in(key_of(seed), MEMBER_SEED)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(np.asarray(members, np.uint32)))
    return np.asarray(jax.vmap(lambda own: jax.random.bits(own, (), jnp.uint32))(keys))


def memorization(
    is_member: np.ndarray, correct: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Returns how much more often members are right on an example that they were trained on.

    Args:
      is_member: bool [t, n], the examples that each of t members was trained on.
      correct: bool [t, n], whether its answer is the example's label.
      groups: integers [t], equal for subsets of equal size; None for one size. Of several the mean counts.

    Returns:
      float64 [n] in [−1, 1]; NaN for an example that in no group has members both with and without it.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      >>> is_member = np.array([[1, 1], [1, 0], [0, 1], [0, 1]], bool)
      >>> correct = np.array([[1, 1], [1, 1], [0, 1], [1, 0]], bool)
      >>> np.round(memorization(is_member, correct), 3)  # 2/2 − 1/2 and 2/3 − 1/1
      array([ 0.5  , -0.333])
    """
    _check(is_member, correct)
    return _mean_over_groups(
        [
            _share(is_member[own] & correct[own], is_member[own])
            - _share(~is_member[own] & correct[own], ~is_member[own])
            for own in _split(groups, len(is_member))
        ]
    )


def c_scores(
    is_member: np.ndarray, correct: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Returns how often members are right on an example that they were not trained on, the mean over groups.

    Args and errors are those of `memorization`.

    Returns:
      float64 [n] in [0, 1]; groups in which all members were trained on the example are left out, and an
      example without any other has NaN.

    Example:
      >>> is_member = np.array([[1, 1], [1, 0], [0, 1], [0, 1]], bool)
      >>> correct = np.array([[1, 1], [1, 1], [0, 1], [1, 0]], bool)
      >>> c_scores(is_member, correct)
      array([0.5, 1. ])
    """
    _check(is_member, correct)
    return _mean_over_groups(
        [
            _share(~is_member[own] & correct[own], ~is_member[own])
            for own in _split(groups, len(is_member))
        ]
    )


def influence(
    is_member: np.ndarray, correct: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Returns how much more often members are right on a test point when they were trained on an example.

    Args:
      is_member: bool [t, n].
      correct: bool [t, m], of the members' answers on m test points.
      groups: as for `memorization`.

    Returns:
      float32 [n, m] in [−1, 1], NaN as there.

    Raises:
      ValueError: for shapes that do not fit.

    Example:
      >>> is_member = np.array([[1, 1], [1, 0], [0, 1], [0, 1]], bool)
      >>> influence(is_member, np.array([[1], [1], [0], [0]], bool))[:, 0].round(3)
      array([ 1.   , -0.667], dtype=float32)
    """
    if is_member.ndim != 2 or correct.ndim != 2 or len(is_member) != len(correct):
        raise ValueError(f"is_member is {is_member.shape} and correct {correct.shape}")
    return _weights(is_member, groups).T @ correct.astype(np.float32)


def _weights(is_member: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Returns by which sum over members influence is estimated, float32 [t, n]; NaN where it has no value.

    Of a group with k members trained on example i and l others, these have the weights 1/k and −1/l, divided by
    the number of groups in which both are there. Influence is then one product of matrices.
    """
    weights = np.zeros(is_member.shape, np.float32)
    count = np.zeros(is_member.shape[1], np.float32)
    for own in _split(groups, len(is_member)):
        trained = is_member[own].sum(axis=0)
        others = len(own) - trained
        has_both = (trained > 0) & (others > 0)
        plus, minus = (has_both / np.maximum(number, 1) for number in (trained, others))
        weights[own] = np.where(is_member[own], plus[None], -minus[None])
        count += has_both
    with np.errstate(invalid="ignore"):
        return np.divide(weights, count[None], out=weights)


def spread(correct: np.ndarray) -> dict[str, Any]:
    """Returns whether some examples are easier than others: how often members are wrong on each.

    Arpit et al. 2017 (arXiv 1706.05394, figure 1), where members see all examples for one epoch. Were all
    examples equally hard, the members' answers to one would be independent draws of the same chance.

    Args:
      correct: bool [t, n], of members that differ in their initial weights and order alone.

    Returns:
      Of the share of members that are wrong on an example: its mean and standard deviation over the examples,
      the standard deviation of equally hard ones, √(p (1 − p) / t) for the mean p, and 101 quantiles; and of
      how many examples no member and every member is wrong, as shares.

    Example:
      >>> found = spread(np.array([[1, 0, 1, 0], [1, 0, 0, 1]], bool))
      >>> found["mean"], found["never_wrong"], found["always_wrong"], round(found["binomial_deviation"], 3)
      (0.5, 0.25, 0.25, 0.354)
    """
    wrong = 1 - correct.mean(axis=0, dtype=np.float64)
    mean = float(wrong.mean())
    return {
        "members": len(correct),
        "mean": mean,
        "deviation": float(wrong.std()),
        "binomial_deviation": math.sqrt(mean * (1 - mean) / len(correct)),
        "never_wrong": float(correct.all(axis=0).mean()),
        "always_wrong": float((~correct).all(axis=0).mean()),
        "quantiles": np.quantile(wrong, np.linspace(0, 1, 101)).round(6).tolist(),
    }


class Pairs(NamedTuple):
    """Test points and the training examples that decide them.

    Attributes:
      strongest: int32 [m, k], for each test point the ids of the most influential training examples.
      strongest_influence: float32 [m, k]; NaN counts as −1.
      train_ids, test_ids: int32 [pairs], of the same class, memorized and influential, by test point.
      influence: float32 [pairs].
    """

    strongest: np.ndarray
    strongest_influence: np.ndarray
    train_ids: np.ndarray
    test_ids: np.ndarray
    influence: np.ndarray


def find_pairs(
    is_member: np.ndarray,
    correct: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    test_labels: np.ndarray,
    groups: np.ndarray | None = None,
) -> Pairs:
    """Returns the most influential training examples of each test point, and all memorized pairs.

    A pair has one class, and at least a memorization of `LEAST_MEMORIZATION` and an influence of
    `LEAST_INFLUENCE`. Influences are computed for some test points at a time and are never all in memory;
    what is there has t · n + 200 · n numbers of float32.

    Args:
      is_member, correct, groups: as for `influence`.
      scores: floating [n], the examples' memorization.
      labels, test_labels: integers [n] and [m].
    """
    is_memorized = scores >= LEAST_MEMORIZATION  # not where it is NaN
    kept, weights = min(STRONGEST, is_member.shape[1]), _weights(is_member, groups)
    is_scored = np.isfinite(weights[0])
    if not is_scored.any():
        return _no_pairs(correct.shape[1], kept)
    strongest, values, pairs = [], [], []
    for start in range(0, correct.shape[1], _TEST_POINTS):
        part = correct[:, start : start + _TEST_POINTS].astype(np.float32).T @ weights
        part[:, ~is_scored] = -1
        for test_id, column in enumerate(part, start):
            ids = _greatest(column, kept)
            strongest.append(ids)
            values.append(column[ids])
            is_pair = is_memorized & (labels == test_labels[test_id]) & (column >= LEAST_INFLUENCE)
            (found,) = np.nonzero(is_pair)
            pairs.append((found, np.full(len(found), test_id), column[found]))
    train_ids, test_ids, influences = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return Pairs(
        np.stack(strongest).astype(np.int32),
        np.stack(values),
        train_ids.astype(np.int32),
        test_ids.astype(np.int32),
        influences,
    )


def _no_pairs(test_points: int, kept: int) -> Pairs:
    """Returns what there is where no example has an influence: the first ids, at −1, and no pairs."""
    strongest = np.tile(np.arange(kept, dtype=np.int32), (test_points, 1))
    nothing = np.zeros(0, np.int32)
    lowest = np.full(strongest.shape, -1, np.float32)
    return Pairs(strongest, lowest, nothing, nothing, np.zeros(0, np.float32))


def _greatest(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the positions of the greatest values in falling order, of equal ones the first."""
    least = np.partition(values, len(values) - count)[len(values) - count]
    (candidates,) = np.nonzero(values >= least)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]


def area_under_curve(scores: np.ndarray, is_wrong: np.ndarray) -> float | None:
    """Returns the probability that a wrong label has a greater score than a right one, ties for half.

    Args:
      scores: floating [n], without NaN.
      is_wrong: bool [n].

    Returns:
      None where all are wrong or none is.

    Example:
      >>> area_under_curve(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
      0.875
    """
    wrong, right = int(is_wrong.sum()), int((~is_wrong).sum())
    if not wrong or not right:
        return None
    ranks = rankdata(scores)[is_wrong].sum()
    return float((ranks - wrong * (wrong + 1) / 2) / (wrong * right))


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float | None:
    """Returns Spearman's correlation where neither is NaN, infinite values last; None where it has none.

    Example:
      >>> rank_correlation(np.array([0.1, 0.2, np.nan, 0.9]), np.array([1.0, 3.0, 0.0, 7.0]))
      1.0
    """
    both = ~(np.isnan(left) | np.isnan(right))
    return estimates.rank_correlation(left[both].tolist(), right[both].tolist())


def overlap(left: np.ndarray, right: np.ndarray) -> float | None:
    """Returns Jaccard's index of two sets, bool [n] each; None where both are empty.

    Example:
      >>> overlap(np.array([True, True, False]), np.array([True, False, False]))
      0.5
    """
    either = int((left | right).sum())
    return int((left & right).sum()) / either if either else None


def _check(is_member: np.ndarray, correct: np.ndarray) -> None:
    if is_member.ndim != 2 or is_member.shape != correct.shape:
        raise ValueError(f"is_member is {is_member.shape} and correct {correct.shape}")


def _split(groups: np.ndarray | None, count: int) -> list[np.ndarray]:
    """Returns the positions of each group's members."""
    if groups is None:
        return [np.arange(count)]
    return [np.nonzero(groups == own)[0] for own in np.unique(groups)]


def _share(hits: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns the quotients of two columns' sums; NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore"):
        return np.divide(hits.sum(axis=0), of.sum(axis=0), dtype=np.float64)


def _mean_over_groups(parts: list[np.ndarray]) -> np.ndarray:
    """Returns the mean of those that are numbers, NaN where none is, in the dtype of the parts."""
    total, count = np.zeros_like(parts[0]), np.zeros_like(parts[0])
    for part in parts:
        is_number = np.isfinite(part)
        total += np.where(is_number, part, 0)
        count += is_number
    with np.errstate(invalid="ignore"):
        return total / count
