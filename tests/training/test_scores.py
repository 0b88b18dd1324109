"""Scores of examples against references written as loops over one example after the other."""

import csv

import numpy as np
import pytest
from etils import epath
from hypothesis import given, strategies as st

from rethink_jax.errors import UserError
from rethink_jax.runs import score_table
from rethink_jax.training import scores
from rethink_jax.training.records import OfExamples


class Machine:
    """An example's history, one presentation after the other."""

    def __init__(self):
        self.was_right, self.ever, self.events, self.first, self.since = False, False, 0, -1, -1

    def see(self, time, right):
        if self.was_right and not right:
            self.events += 1
        if right and not self.ever:
            self.first, self.ever = time, True
        if right and not self.was_right:
            self.since = time
        if not right:
            self.since = -1
        self.was_right = right


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=9))
def test_histories_against_a_state_machine(rows):
    right = np.array(rows)
    for example in range(3):
        machine = Machine()
        for time, row in enumerate(rows):
            machine.see(time, row[example])
        events = machine.events if machine.ever else scores.NEVER
        assert scores.forgetting_events(right)[example] == events
        assert scores.first_learned(right)[example] == machine.first
        assert scores.last_learned(right)[example] == machine.since


def random_values(seed=0, count=5, n=7):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, n, 4)).astype(np.float32)
    labels = rng.integers(0, 4, n)
    own = logits[:, np.arange(n), labels]
    others = logits.copy()
    others[:, np.arange(n), labels] = -np.inf
    losses = np.log(np.exp(logits).sum(-1)) - own
    return OfExamples(logits.argmax(-1), own - others.max(-1), losses), logits, labels


def test_means_against_loops():
    values, logits, labels = random_values()
    found = scores.all_scores(values, labels)
    assert {*found} == {*scores.SCORES}
    for i, label in enumerate(labels):
        chances, margins, rights = [], [], []
        for row in logits[:, i].astype(np.float64):
            probabilities = np.exp(row) / np.exp(row).sum()
            chances.append(probabilities[label])
            margins.append(row[label] - max(np.delete(row, label)))
            rights.append(probabilities.argmax() == label)
        assert found["confidence"][i] == pytest.approx(sum(chances) / 5, rel=1e-6)
        mean = sum(chances) / 5
        spread = (sum((chance - mean) ** 2 for chance in chances) / 5) ** 0.5
        assert found["variability"][i] == pytest.approx(spread, rel=1e-5)
        assert found["area_under_margin"][i] == pytest.approx(sum(margins) / 5, rel=1e-6, abs=1e-6)
        assert found["cumulative_loss"][i] == pytest.approx(-sum(np.log(chances)), rel=1e-6)
        assert found["share_right"][i] == sum(rights) / 5


@pytest.mark.parametrize(("count", "early"), [(1, 1), (9, 1), (19, 1), (20, 2), (45, 4)])
def test_el2n_by_a_loop(count, early):
    norms = np.random.default_rng(1).uniform(0, np.sqrt(2), (count, 6)).astype(np.float32)
    found = scores.el2n(norms)
    for i in range(6):
        assert found[i] == pytest.approx(sum(map(float, norms[:early, i])) / early, rel=1e-12)
    values, _, labels = random_values()
    assert {*scores.all_scores(values, labels, norms)} == {*scores.SCORES, "el2n"}


@pytest.mark.parametrize("own_ids", [None, np.array([f"train_{i}, é" for i in range(7)])])
def test_table(own_ids):
    values, _, labels = random_values()
    found = scores.all_scores(values, labels)
    table = score_table.ScoreTable(labels, labels[::-1], own_ids, found)
    text = score_table.to_csv(table)
    rows = [*csv.DictReader(text.splitlines())]
    assert [int(row["id"]) for row in rows] == [*range(7)]
    assert [row["own_id"] for row in rows] == ([""] * 7 if own_ids is None else own_ids.tolist())
    assert [int(row["true_label"]) for row in rows] == labels[::-1].tolist()
    for name, column in found.items():
        np.testing.assert_array_equal([float(row[name]) for row in rows], column)


@pytest.mark.parametrize("own_ids", [None, np.array(["a,b", 'c"d'])])
def test_a_table_is_read_again(own_ids, tmp_path):
    found = {"c_score": np.array([0.1, np.nan]), "first_learned": np.array([-1, 3])}
    table = score_table.ScoreTable(np.array([1, 2]), np.array([1, 0]), own_ids, found)
    file = epath.Path(tmp_path) / "scores.csv"
    file.write_text(score_table.to_csv(table))
    again = score_table.read(file)
    for left, right in zip(table[:2], again[:2], strict=True):
        np.testing.assert_array_equal(left, right)
    assert (again.own_ids is None) == (own_ids is None)
    if own_ids is not None:
        assert again.own_ids.tolist() == own_ids.tolist()
    assert {*again.scores} == {*found}
    for name, values in found.items():
        np.testing.assert_array_equal(again.scores[name], values)


@pytest.mark.parametrize("text", ["", "id,label\n0,1\n", "id,own_id,label,true_label\n0,,x,1\n"])
def test_other_files_are_no_tables(text, tmp_path):
    file = epath.Path(tmp_path) / "scores.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=r"scores\.csv is no table of scores: "):
        score_table.read(file)


def test_a_harder_example_has_a_greater_hardness():
    """One that is right from the start against one that never is."""
    right = np.array([[1, 0], [1, 0], [1, 0]], bool)
    margin, loss = (np.array([[easy, hard]] * 3) for easy, hard in ((2.0, -2.0), (0.1, 2.0)))
    values = OfExamples(np.where(right, 0, 1), margin, loss)
    found = scores.all_scores(values, np.array([0, 0]))
    for name in {*found} - {"variability"}:
        easy, hard = score_table.hardness(name, found[name])
        assert easy < hard, name
