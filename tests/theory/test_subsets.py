"""Draws of subsets, and estimators beside loops that know nothing of them."""

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import jaccard_score, roc_auc_score

from rethink_jax import corruptions
from rethink_jax.theory import subsets


def draw_by_hand(seed, member, example_id):
    """The draw of one example, alone."""
    with jax.threefry_partitionable(True):
        key = jax.random.wrap_key_data(np.array([0, seed], np.uint32), impl="threefry2x32")
        for number in (subsets.MEMBERSHIP, member, example_id):
            key = jax.random.fold_in(key, number)
        return int(jax.random.bits(key, (), np.uint32))


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_a_subset_has_the_lowest_draws(seed):
    is_member = subsets.membership(seed, [0, 5, 2**31 + 3], 30, 12)
    for row, member in zip(is_member, (0, 5, 2**31 + 3), strict=True):
        draws = [(draw_by_hand(seed, member, i), i) for i in range(30)]
        assert set(np.nonzero(row)[0]) == {i for _, i in sorted(draws)[:12]}


def test_of_equal_draws_the_first_id_counts(monkeypatch):
    draws = np.array([[5, 3, 3, 3, 9]], np.uint32)
    monkeypatch.setattr(subsets, "_draws", lambda *arguments: draws)
    assert subsets.membership(0, [0], 5, 2).tolist() == [[False, True, True, False, False]]


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 41]), st.data())
def test_subsets_are_nested_and_exactly_as_large(seed, n, drawn):
    sizes = sorted(drawn.draw(st.lists(st.integers(0, n), min_size=2, max_size=4)))
    members = [subsets.membership(seed, [0, 1, 2], n, size) for size in sizes]
    for size, own in zip(sizes, members, strict=True):
        assert own.sum(axis=1).tolist() == [size] * 3
    for smaller, larger in itertools.pairwise(members):
        assert not (smaller & ~larger).any()


def test_a_subset_depends_on_no_other_member():
    together = subsets.membership(3, range(9), 100, 40)
    alone = [subsets.membership(3, [member], 100, 40)[0] for member in range(9)]
    np.testing.assert_array_equal(together, alone)
    assert len({row.tobytes() for row in together}) == 9
    assert (together != subsets.membership(4, range(9), 100, 40)).any(axis=1).all()
    with pytest.raises(ValueError, match=r"size is 101; it must be in \[0, 100\]"):
        subsets.membership(0, [0], 100, 101)


def test_settings_of_jax_change_no_subset():
    expected = subsets.membership(1, [0, 1], 50, 20), subsets.member_seeds(1, [0, 1])
    with jax.threefry_partitionable(False), jax.default_prng_impl("rbg"):
        again = subsets.membership(1, [0, 1], 50, 20), subsets.member_seeds(1, [0, 1])
    for left, right in zip(expected, again, strict=True):
        np.testing.assert_array_equal(left, right)


def test_every_example_is_drawn_equally_often():
    """Within 5 standard deviations in 4,000 members; two examples, together as often as by chance."""
    is_member = subsets.membership(0, range(4000), 20, 6)
    tolerance = 5 * math.sqrt(0.3 * 0.7 / 4000)
    assert np.abs(is_member.mean(axis=0) - 0.3).max() < tolerance
    pairs = np.triu_indices(20, 1)
    both = (is_member[:, pairs[0]] & is_member[:, pairs[1]]).mean(axis=0)
    assert np.abs(both - 6 * 5 / (20 * 19)).max() < tolerance


def test_seeds_of_members():
    seeds = subsets.member_seeds(0, range(1000))
    assert seeds.dtype == np.uint32
    assert len({*seeds.tolist()}) == 1000
    np.testing.assert_array_equal(subsets.member_seeds(0, [17, 3]), seeds[[17, 3]])
    key = corruptions.key_of(0)
    with jax.threefry_partitionable(True):
        own = jax.random.fold_in(jax.random.fold_in(key, subsets.MEMBER_SEED), 17)
        assert int(jax.random.bits(own, (), np.uint32)) == seeds[17]


@pytest.mark.parametrize(
    ("fraction", "n", "size"),
    [(0.7, 10, 7), (0.29, 100, 29), (0.1, 60_000, 6000), (0.3, 9, 2), (1e-7, 100, 0)],
)
def test_sizes(fraction, n, size):
    assert subsets.subset_size(fraction, n) == size


def some_answers(t=13, n=11, m=5, seed=0):
    rng = np.random.default_rng(seed)
    is_member, correct, on_test = (rng.random((t, width)) < 0.6 for width in (n, n, m))
    is_member[:, 0], is_member[:, 1] = True, False  # never without, never with
    return is_member, correct, on_test, rng.integers(0, 3, t) / 10


def by_loops(is_member, correct_of, groups, i):
    """The mean over groups of both shares of right answers, with example i and without it."""
    differences, without = [], []
    for group in sorted(set(groups)):
        hits = {True: [], False: []}
        for row, answers, own in zip(is_member, correct_of, groups, strict=True):
            if own == group:
                hits[bool(row[i])].append(int(answers))
        if hits[False]:
            without.append(sum(hits[False]) / len(hits[False]))
        if hits[True] and hits[False]:
            share = sum(hits[True]) / len(hits[True]), sum(hits[False]) / len(hits[False])
            differences.append(share[0] - share[1])
    return [sum(x) / len(x) if x else math.nan for x in (differences, without)]


@pytest.mark.parametrize("is_grouped", [False, True])
def test_estimators_are_those_of_plain_loops(is_grouped):
    is_member, correct, on_test, groups = some_answers()
    given = groups if is_grouped else None
    groups = groups if is_grouped else np.zeros(len(groups))
    scores, consistency = (
        estimate(is_member, correct, given) for estimate in (subsets.memorization, subsets.c_scores)
    )
    matrix = subsets.influence(is_member, on_test, given)
    assert scores.dtype == consistency.dtype == np.float64
    assert matrix.dtype == np.float32
    for i in range(is_member.shape[1]):
        expected = by_loops(is_member, correct[:, i], groups, i)
        np.testing.assert_allclose([scores[i], consistency[i]], expected, rtol=1e-12)
        for j in range(on_test.shape[1]):
            expected = by_loops(is_member, on_test[:, j], groups, i)[0]
            np.testing.assert_allclose(matrix[i, j], expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(scores[:2]).all()
    assert np.isnan(consistency[0])
    assert np.isfinite(consistency[1])


def test_influence_on_the_training_set_is_memorization():
    is_member, correct, *_ = some_answers(t=60)
    diagonal = np.diag(subsets.influence(is_member, correct))
    np.testing.assert_allclose(diagonal, subsets.memorization(is_member, correct), atol=1e-6)


def test_shapes_that_do_not_fit():
    for estimate in (subsets.memorization, subsets.c_scores):
        with pytest.raises(ValueError, match=r"is_member is \(3, 2\) and correct \(3, 4\)"):
            estimate(np.ones((3, 2), bool), np.ones((3, 4), bool))
    with pytest.raises(ValueError, match=r"is_member is \(3, 2\) and correct \(4, 2\)"):
        subsets.influence(np.ones((3, 2), bool), np.ones((4, 2), bool))


def test_pairs_and_the_strongest(monkeypatch):
    monkeypatch.setattr(subsets, "_TEST_POINTS", 3)  # several chunks, the last one smaller
    monkeypatch.setattr(subsets, "STRONGEST", 4)
    is_member, _, on_test, _ = some_answers(t=8, n=12, m=7, seed=1)
    rng = np.random.default_rng(0)
    correct = is_member | (rng.random((8, 12)) < 0.5)
    labels, test_labels = rng.integers(0, 2, 12), rng.integers(0, 2, 7)
    scores = subsets.memorization(is_member, correct)
    pairs = subsets.find_pairs(is_member, on_test, scores, labels, test_labels)
    matrix = np.nan_to_num(subsets.influence(is_member, on_test), nan=-1.0)
    expected = [
        (i, j)
        for j in range(7)
        for i in range(12)
        if labels[i] == test_labels[j] and scores[i] >= 0.25 and matrix[i, j] >= 0.15
    ]
    assert list(zip(pairs.train_ids.tolist(), pairs.test_ids.tolist(), strict=True)) == expected
    assert len(expected) > 3
    np.testing.assert_allclose(pairs.influence, [matrix[pair] for pair in expected], rtol=1e-5)
    for j in range(7):
        order = sorted(range(12), key=lambda i: -matrix[i, j])[:4]
        np.testing.assert_allclose(pairs.strongest_influence[j], matrix[order, j], rtol=1e-5)
        np.testing.assert_allclose(
            matrix[pairs.strongest[j], j], pairs.strongest_influence[j], rtol=1e-5
        )


def test_measures_are_those_of_libraries():
    rng = np.random.default_rng(0)
    scores, other = rng.integers(0, 6, (2, 80)) / 5
    is_wrong = rng.random(80) < 0.3
    assert subsets.area_under_curve(scores, is_wrong) == pytest.approx(
        roc_auc_score(is_wrong, scores)
    )
    assert subsets.rank_correlation(scores, other) == pytest.approx(spearmanr(scores, other)[0])
    assert subsets.overlap(scores > 0.5, other > 0.5) == pytest.approx(
        jaccard_score(scores > 0.5, other > 0.5)
    )


def test_measures_that_have_no_value():
    assert subsets.area_under_curve(np.ones(3), np.zeros(3, bool)) is None
    assert subsets.rank_correlation(np.ones(3), np.arange(3.0)) is None
    assert subsets.rank_correlation(np.array([1.0, np.nan]), np.arange(2.0)) is None
    assert subsets.overlap(np.zeros(3, bool), np.zeros(3, bool)) is None


def test_the_spread_of_equally_hard_examples_is_a_binomial_one():
    rng = np.random.default_rng(0)
    found = subsets.spread(rng.random((100, 20_000)) < 0.7)
    assert found["deviation"] == pytest.approx(found["binomial_deviation"], rel=0.02)
    assert found["binomial_deviation"] == pytest.approx(np.sqrt(0.3 * 0.7 / 100), rel=0.02)
    easy_and_hard = rng.random((100, 20_000)) < np.repeat([0.5, 0.9], 10_000)
    assert subsets.spread(easy_and_hard)["deviation"] > 4 * found["deviation"]


def test_members_of_all_examples_have_no_pairs():
    is_member, correct = np.ones((4, 60), bool), np.ones((4, 3), bool)
    labels = np.zeros(60, int)
    pairs = subsets.find_pairs(is_member, correct, np.full(60, np.nan), labels, labels[:3])
    assert pairs.strongest.tolist() == [[*range(50)]] * 3
    assert pairs.strongest.dtype == np.int32
    assert pairs.strongest_influence.dtype == np.float32
    assert (pairs.strongest_influence == -1).all()
    assert [len(part) for part in pairs[2:]] == [0, 0, 0]
