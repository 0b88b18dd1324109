import json

import numpy as np
import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.errors import UserError
from rethink_jax.theory import minimum_norm
from tests.test_bad_input import assert_refused_at_once

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 60)), RNG.standard_normal((12, 3))


def test_least_norm():
    found = minimum_norm.least_norm(X, Y)
    np.testing.assert_allclose(found, X.T @ np.linalg.solve(X @ X.T, Y), atol=1e-12)


def test_sgd_by_its_definition():
    """Two epochs in plain NumPy."""
    start = RNG.standard_normal((60, 3))
    path = minimum_norm.descend(X, Y, start, 2, seed=5)
    assert len(path) == len(minimum_norm.recorded_epochs(2)) == 3
    np.testing.assert_array_equal(path[0], start)
    rate, weights = 1 / np.square(X).sum(axis=1).max(), start.copy()
    for epoch in range(2):
        for i in minimum_norm.batching.epoch_batches(5, epoch, 12, 1)[:, 0]:
            weights -= rate * np.outer(X[i], X[i] @ weights - Y[i])
        np.testing.assert_allclose(path[epoch + 1], weights, atol=1e-12)


def test_from_zero_to_the_least_norm_and_from_elsewhere_to_another():
    summary = minimum_norm.summarize(X, Y, 600, seed=1)
    solution = minimum_norm.least_norm(X, Y)
    assert summary["norm"] == pytest.approx(np.linalg.norm(solution))
    zero, random = (summary["paths"][start] for start in ("zero", "random"))
    assert zero["loss"][-1] < 1e-20
    assert zero["distance"][-1] < 1e-9
    assert max(zero["outside"]) < 1e-12
    assert random["loss"][-1] < 1e-20
    # What the start has outside of the span stays, and is all that is left.
    np.testing.assert_allclose(random["outside"], random["outside"][0], rtol=1e-9)
    assert random["distance"][-1] == pytest.approx(random["outside"][0], rel=1e-6)
    assert random["norm"][0] == pytest.approx(1)
    assert random["norm"][-1] == pytest.approx(np.hypot(1, random["outside"][0]), rel=1e-6)


def test_examples_that_are_no_basis():
    with pytest.raises(UserError, match=r"13 examples of 60 values span 12 dimensions; set config"):
        minimum_norm.least_norm(np.concatenate([X, X[:1]]), np.concatenate([Y, Y[:1]]))


def test_recorded_epochs():
    found = minimum_norm.recorded_epochs(1000)
    assert (found[0], found[1], found[-1]) == (0, 1, 1000)
    assert found == sorted(set(found))
    assert minimum_norm.recorded_epochs(1) == [0, 1]


def test_run(toy, tmp_path, monkeypatch, capsys):
    few = data.from_arrays((toy.train.images[:20], toy.train.labels[:20]), toy.test, "toy")
    monkeypatch.setattr(data, "load", lambda config: few)
    monkeypatch.setattr(data, "describe", lambda config: few.info)
    config = config_lib.experiment("minimum_norm", "toy")
    config.sgd.epochs = 300
    summary = minimum_norm.run(config, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (summary["examples"], summary["dimension"], summary["classes"]) == (20, 432, 5)
    assert (
        summary["paths"]["zero"]["distance"][-1] < 0.05 < summary["paths"]["random"]["distance"][-1]
    )
    assert "SGD on a linear model: 20 examples, 432 weights a class" in capsys.readouterr().out
    assert minimum_norm.run(config, tmp_path) == summary


def test_random_labels_are_those_of_a_training_run(toy):
    config = config_lib.experiment("minimum_norm", "toy")
    labels = minimum_norm.inputs.corrupt_labels(
        config.corruption, "train", toy.train.labels, toy.info
    )
    training = config_lib.fill_in(config_lib.train("toy", "random_labels"), 300, 12)
    prepared = minimum_norm.inputs.prepare(training, toy)
    np.testing.assert_array_equal(labels, prepared.train.labels)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--config.sgd.epochs=0", "config.sgd.epochs is 0; it must be in [1, 1000000]"),
        ("--config.sgd.rate=1", "config.sgd.rate is no field; config.sgd has epochs"),
        ("--config.seed=-1", "config.seed is -1; it must be in [0, 2**32)"),
        (
            "--config.corruption.name=gaussian",
            "config.corruption.name is 'gaussian'; it must be one of true_labels, …",
        ),
        (
            "--config.experiment=train",
            "config.experiment is 'train'; it must be one of minimum_norm",
        ),
        (
            "--config.data.examples=100",
            "100 examples of 64 values span 54 dimensions; set config.data.examples to 54 at most, …",
        ),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "minimum_norm.py:digits", arguments, line, tmp_path)
