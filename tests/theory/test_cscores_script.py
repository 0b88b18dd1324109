"""The comparison of a run's C-scores with a published file."""

import json
import runpy
import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.entry_point import ROOT

HEAD = "id,own_id,label,true_label,memorization,c_score"


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """A function of a run's scores and labels and of a file, which returns what the script prints."""

    def call(scores, labels, file):
        examples = enumerate(zip(labels, scores, strict=True))
        lines = [f"{i},,{label},{label},,{score}" for i, (label, score) in examples]
        (tmp_path / "scores.csv").write_text("\n".join([HEAD, *lines]) + "\n")
        monkeypatch.setattr(sys, "argv", ["cscores.py", str(tmp_path), str(file)])
        runpy.run_path(str(ROOT / "docs" / "results" / "cscores.py"), run_name="__main__")
        return json.loads(capsys.readouterr().out)

    return call


def test_agreement(compare, tmp_path):
    rng = np.random.default_rng(0)
    truth, labels = rng.random(400).clip(0, 0.99).round(2), rng.integers(0, 4, 400)
    scores = (truth + 0.1 * rng.standard_normal(400)).round(6)
    np.save(tmp_path / "truth.npy", truth)
    shown = [*scores[:-1].tolist(), ""]  # the last one has no score
    found = compare(shown, labels.tolist(), tmp_path / "truth.npy")
    assert (found["examples"], found["scored"]) == (400, 399)
    assert found["rank_correlation"] == pytest.approx(spearmanr(scores[:-1], truth[:-1])[0])
    hard = truth[:-1] < 0.99
    expected = spearmanr(scores[:-1][hard], truth[:-1][hard])[0]
    assert found["below_0.99"] == pytest.approx(expected)
    own = [
        spearmanr(scores[:-1][c], truth[:-1][c])[0] for c in (labels[:-1] == k for k in range(4))
    ]
    assert found["within_classes"] == pytest.approx(np.mean(own))
    assert abs(found["within_classes_shuffled"]) < 0.2
    np.savez(tmp_path / "truth.npz", scores=truth, labels=labels)
    assert compare(shown, labels.tolist(), tmp_path / "truth.npz") == found


def test_order_by_own_ids_and_another_score(tmp_path, monkeypatch, capsys):
    """Ids count within a class, in the file's order; the table is that of a run with records."""
    truth, labels = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0, 1, 0, 1, 1])
    order = [4, 0, 3, 2, 1]
    own_ids = ["train_b_0002", "train_a_0000", "train_b_0001", "train_a_0001", "train_b_0000"]
    rows = [f"{i},{own_ids[i]},0,{labels[k]},{truth[k]}" for i, k in enumerate(order)]
    (tmp_path / "scores.csv").write_text(
        "\n".join(["id,own_id,label,true_label,share_right", *rows]) + "\n"
    )
    np.savez(tmp_path / "truth.npz", scores=truth, labels=labels)
    script = str(ROOT / "docs" / "results" / "cscores.py")
    arguments = [script, str(tmp_path), str(tmp_path / "truth.npz")]
    monkeypatch.setattr(sys, "argv", [*arguments, "share_right"])
    runpy.run_path(script, run_name="__main__")
    assert json.loads(capsys.readouterr().out)["rank_correlation"] == 1.0
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="has no column 'c_score'; it has share_right"):
        runpy.run_path(script, run_name="__main__")


def test_files_of_other_examples_are_refused(compare, tmp_path):
    np.save(tmp_path / "short.npy", np.ones(3))
    np.savez(tmp_path / "other.npz", scores=np.ones(4), labels=[0, 1, 1, 0])
    for file, line in (("short.npy", "has scores of shape"), ("other.npz", "has other labels")):
        with pytest.raises(SystemExit, match=line):
            compare([0.5] * 4, [0, 1, 0, 1], tmp_path / file)
