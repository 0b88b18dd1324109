import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import linalg

from rethink_jax.distributed import preemption
from rethink_jax.kernels import interpolation, noise, solve
from rethink_jax.pipeline import inputs
from tests.config.test_config import load
from tests.data_helpers import kernel_config
from tests.entry_point import ROOT
from tests.stopping import stop_when_shown
from tests.test_bad_input import assert_refused_at_once


def make(**solver):
    config = kernel_config("toy", (0.1,))
    config.noise.probabilities = (0.3, 1.0)
    config.solver.update({"tolerance": 1e-10, **solver})
    return config


def labels_of(toy, split, labels, p):
    corruption = ConfigDict({"name": "partially_corrupted_labels", "probability": p, "seed": 0})
    return inputs.corrupt_labels(corruption, split, labels, toy.info)


def test_every_level_by_a_plain_solve(from_toy, toy, tmp_path):
    summary = interpolation.run(make(), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    points, test = (s.images.reshape(len(s.labels), -1) / 255 for s in (toy.train, toy.test))

    def kernel(x, y):
        return np.exp(-0.1 * np.square(x[:, None] - y).sum(axis=-1))

    k, across = kernel(points, points), kernel(test, points)
    assert [one["probability"] for one in summary["noise"]] == [0.0, 0.3, 1.0]
    for one in summary["noise"]:
        labels, test_labels = (
            labels_of(toy, split, part.labels, one["probability"])
            for split, part in (("train", toy.train), ("test", toy.test))
        )
        targets = np.eye(5)[labels]
        alpha = linalg.solve(k, targets, assume_a="pos")
        answers = (across @ alpha).argmax(axis=1)
        assert one["test_error"] == np.mean(answers != toy.test.labels)
        assert one["test_error_corrupted"] == np.mean(answers != test_labels)
        assert one["train_error"] == 0
        assert one["replaced"] == np.mean(labels != toy.train.labels)
        assert one["replaced_test"] == np.mean(test_labels != toy.test.labels)
        assert one["norm_one_hot"] == pytest.approx(np.sqrt((alpha * (k @ alpha)).sum()), rel=1e-6)
        signs = linalg.solve(k, 2 * targets - 1, assume_a="pos")
        expected = np.sqrt((signs * (k @ signs)).sum())
        assert one["norm_signs"] == pytest.approx(expected, rel=1e-6)
        assert one["residual_float64"] < 1e-8


def test_true_labels_are_solved_for_as_without_noise(from_toy, tmp_path):
    summary = interpolation.run(make(), tmp_path / "noisy")
    alone = interpolation.run(kernel_config("toy", (0.1,)), tmp_path / "alone")
    assert "noise" not in alone
    assert summary["test_error"] == alone["test_error"]
    assert summary["norm_one_hot"] == pytest.approx(alone["norm_one_hot"], rel=1e-3)
    assert {*summary} - {*alone} == {"noise"}
    first = summary["noise"][0]
    assert {name: first[name] for name in first if name in alone} == {
        name: summary[name] for name in first if name in alone
    }


def test_targets_of_several_labels_stand_side_by_side():
    labels = np.array([[0, 2], [1, 1]])
    both = solve.targets_of(labels, 3)
    assert both.tolist() == [[1, 0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 1, 0, 1]]
    np.testing.assert_array_equal(both[:, [0, 1, 2, 6]], solve.targets_of(labels[:, 0], 3))


def test_a_stopped_solve_resumes_with_all_levels(from_toy, tmp_path, monkeypatch):
    config = make(rank=10)
    with monkeypatch.context() as patch:
        stop_when_shown(patch, 3, "all examples: solve")
        with pytest.raises(preemption.Stopped):
            interpolation.run(config, tmp_path / "parts")
    saved = np.load(tmp_path / "parts" / "solution.npz")
    assert saved["solution"].shape == (300, 3 * 5 + 1)
    resumed = interpolation.run(config, tmp_path / "parts")
    whole = interpolation.run(config, tmp_path / "whole")
    for one, other in zip(resumed["noise"], whole["noise"], strict=True):
        assert one["norm_one_hot"] == pytest.approx(other["norm_one_hot"], rel=1e-6)
        assert one["test_error_corrupted"] == other["test_error_corrupted"]


def level(p, norm, train_error=0.0, test_error=0.1, replaced=0.2):
    return {
        "probability": p,
        "norm_one_hot": norm,
        "train_error": train_error,
        "test_error": test_error,
        "replaced": replaced,
    }


def test_what_did_not_come_out_is_said():
    good = [level(0.0, 1.0), level(0.5, 2.0), level(1.0, 3.0, test_error=0.9)]
    assert noise.conclude({"noise": good[::-1]}).count(": yes") == 3
    for bad in (
        level(0.5, 2.0, train_error=0.01),
        level(0.5, 3.5),
        level(0.5, 2.0, test_error=0.31),
    ):
        line = noise.conclude({"noise": [good[0], bad, good[2]]})
        assert (line.count(": yes"), line.count(": no")) == (2, 1)


def test_the_config_file_is_an_experiment_on_few_digits():
    config = load(ROOT / "configs" / "kernel_noise.py").get_config("smoke")
    assert (config.experiment, config.data.name, config.data.examples) == ("kernel", "digits", 1000)
    assert config.noise.probabilities == (0.2, 0.5, 1.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("()", "()"),
        ("(0.0,)", "(0.0,)"),
        ("(0.2,1.1)", "(0.2, 1.1)"),
        ("('x',)", "('x',)"),
    ],
)
def test_one_line_and_nothing_written(in_process, value, words, tmp_path):
    line = f"config.noise.probabilities is {words}; it must be one or more numbers in (0, 1]"
    arguments = f"--config.noise.probabilities={value}"
    assert_refused_at_once(in_process, "kernel_noise.py:smoke", arguments, line, tmp_path)
