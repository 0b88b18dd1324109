"""What the removal of memorized examples costs: whom it takes, and what the numbers are."""

import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from etils import epath
from scipy import stats

from rethink_jax.theory import removal, subsets

CONDITIONS = (removal.ALL, removal.MEMORIZED, removal.OTHERS)


@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_as_many_others_of_each_class(seed, count):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 60)
    removed = np.zeros(60, bool)
    removed[rng.choice(60, count, replace=False)] = True
    draws = rng.integers(0, 8, (4, 60), dtype=np.uint32)  # many are equal
    taken = removal.others_of_class(draws, labels, removed)
    fits = all(2 * np.sum(removed & (labels == c)) <= np.sum(labels == c) for c in range(3))
    assert (taken is not None) == fits
    if taken is None:
        return
    assert not (taken & removed).any()
    for row, own in zip(taken, draws, strict=True):
        for c in range(3):
            candidates = sorted(
                (int(own[i]), i) for i in range(60) if labels[i] == c and not removed[i]
            )
            expected = {i for _, i in candidates[: np.sum(removed & (labels == c))]}
            assert set(np.nonzero(row & (labels == c))[0]) == expected


def test_effects_are_differences_of_networks_with_the_same_seed():
    rng = np.random.default_rng(0)
    correct = {name: rng.random((5, 40)) < 0.6 for name in CONDITIONS}
    affected = np.array([3, 4, 17])
    found = removal.effects(correct, affected)
    assert found["affected"] == 3
    for name in CONDITIONS:
        expected = [np.mean([row[j] for j in affected]) for row in correct[name]]
        assert found["accuracy"][name]["affected"]["mean"] == pytest.approx(np.mean(expected))
    for name in CONDITIONS[1:]:
        drops = [a.mean() - b.mean() for a, b in zip(correct["all"], correct[name], strict=True)]
        own = found["cost"][name]["test"]
        low, high = stats.t.interval(0.95, 4, np.mean(drops), stats.sem(drops))
        assert (own["mean"], own["low"], own["high"]) == pytest.approx((np.mean(drops), low, high))


def pairs_of(train_ids, test_ids):
    ids = (np.asarray(x, np.int32) for x in (train_ids, test_ids))
    nothing = np.zeros((0, 0), np.int32)
    return subsets.Pairs(nothing, nothing, *ids, np.ones(len(train_ids), np.float32))


def test_each_condition_is_trained_once(tmp_path):
    """A network of this test is right on a test point when it was trained on the example of the same id."""
    path, trained = epath.Path(tmp_path), []
    labels = np.array([0, 0, 0, 1, 1, 1])
    draws = np.arange(12, dtype=np.uint32).reshape(2, 6)

    def train(condition, is_member):
        trained.append((condition, is_member.sum(axis=1).tolist()))
        if stopping and condition == removal.OTHERS:
            raise KeyboardInterrupt
        return is_member

    arguments = path, draws, labels, pairs_of([1, 4, 4], [1, 4, 5]), train
    stopping = True
    with pytest.raises(KeyboardInterrupt):
        removal.measure(*arguments)
    stopping = False
    found = removal.measure(*arguments)
    names = [name for name, _ in trained]
    assert names == [*CONDITIONS, removal.OTHERS]
    assert [sizes for _, sizes in trained] == [[6, 6], [4, 4], [4, 4], [4, 4]]
    assert (found["networks"], found["removed"], found["affected"]) == (2, 2, 3)
    costs = {name: own["affected"]["mean"] for name, own in found["cost"].items()}
    assert costs == pytest.approx({removal.MEMORIZED: 2 / 3, removal.OTHERS: 0})
    assert json.loads(json.dumps(found)) == found
    assert removal.rows(found)[0][1] == "66.67 [66.67, 66.67] points"


@pytest.mark.parametrize(
    ("ids", "reason"), [([], "no pair is memorized"), ([0, 1], "a class has too few others")]
)
def test_what_cannot_be_removed_is_said(ids, reason, tmp_path):
    path = epath.Path(tmp_path)
    labels, draws = np.array([0, 0, 0, 1, 1]), np.zeros((2, 5), np.uint32)
    found = removal.measure(path, draws, labels, pairs_of(ids, ids), pytest.fail)
    assert found == {"networks": 2, "removed": len(ids), "impossible": reason}
    assert removal.rows(found)[0][1] == f"not possible: {reason}"
    assert not list(tmp_path.iterdir())
