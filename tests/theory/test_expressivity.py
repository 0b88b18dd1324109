import dataclasses
import json

import numpy as np
import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.errors import UserError
from rethink_jax.runs.resolve import resolve
from rethink_jax.theory import expressivity
from tests.entry_point import make_place
from tests.test_bad_input import assert_refused_at_once


def synthetic(points=200, **theorem):
    config = config_lib.experiment("expressivity", "synthetic")
    config.synthetic.update(points=points, dimension=10, classes=50)
    config.theorem.update(theorem)
    return config


def test_digits_through_the_entry_point(entry_point, tmp_path):
    here = make_place(tmp_path / "here")
    arguments = ["--config=configs/expressivity.py:digits", "--workdir=run"]
    outcome = entry_point.start(arguments, here)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "Theorem 1: 1,500 points in 64 dimensions, 3,064 weights" in outcome.stdout
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["parameters"] == 2 * 1500 + 64
    assert summary["width"] == 303
    for found in summary["ways"].values():
        assert found["points"] == 1500
        assert found["fitted"] == 1
        assert found["largest_error"] < 1e-3
    assert summary["ways"]["exact_prefix_sums"]["largest_error"] < 1e-9
    config = json.loads((here / "run" / "config.json").read_text())
    assert config["corruption"]["name"] == "random_labels"
    environment = json.loads((here / "run" / "run.json").read_text())
    assert environment["num_train"] == 1500
    again = entry_point.start(arguments, here)
    assert again.code == 0
    assert "run is finished" in again.stdout
    assert "two layers, every unit, float64" in again.stdout


def test_labels_are_those_of_a_training_run(toy):
    from rethink_jax.pipeline import inputs

    config = config_lib.experiment("expressivity", "toy")
    points, labels = expressivity._points(config, toy.info, toy)
    np.testing.assert_array_equal(points, toy.train.images.reshape(len(points), -1))
    resolved, _ = resolve(config_lib.train("toy", "random_labels"), toy)
    np.testing.assert_array_equal(labels, inputs.prepare(resolved, toy).train.labels)


def test_many_points_are_run_in_part(tmp_path):
    config = synthetic(evaluate_all_up_to=100, sample_size=30, depth=7)
    summary = expressivity.run(config, tmp_path)
    ways = summary["ways"]
    assert ways["prefix_sums"]["points"] == ways["exact_prefix_sums"]["points"] == 200
    assert ways["network"]["points"] == ways["network_extended"]["points"] == 30
    assert ways["network_extended"]["fitted"] == 1
    assert (summary["width"], summary["classes"]) == (29 + 3, 50)


def test_fewer_points_than_layers_or_than_are_to_be_run(tmp_path):
    for points in (1, 3):
        config = synthetic(points, evaluate_all_up_to=1, sample_size=10)
        summary = expressivity.run(config, tmp_path / str(points))
        assert summary["ways"]["deep_network"]["points"] == points
        assert all(found["fitted"] == 1 for found in summary["ways"].values())
    one = (tmp_path / "1" / "summary.json").read_text()
    assert json.loads(one)["smallest_gap"] is None


def test_another_seed_gives_another_network(tmp_path):
    weights = []
    for seed in range(2):
        config = synthetic()
        config.seed = seed
        weights.append(expressivity.run(config, tmp_path / str(seed))["largest_weight"])
    assert weights[0] != weights[1]


def test_another_config_in_the_same_directory(tmp_path):
    expressivity.run(synthetic(), tmp_path)
    with pytest.raises(UserError, match=r"another config \(config.theorem.depth 5 → 6\); choose"):
        expressivity.run(synthetic(depth=6), tmp_path)


def test_equal_images_are_named_and_nothing_is_written(toy, tmp_path, monkeypatch):
    images = toy.train.images.copy()
    images[9] = images[2]
    twice = dataclasses.replace(toy, train=toy.train._replace(images=images))
    monkeypatch.setattr(data, "describe", lambda _: twice.info)
    monkeypatch.setattr(data, "load", lambda _: twice)
    with pytest.raises(UserError, match=r"^points 2 and 9 are equal"):
        expressivity.run(config_lib.experiment("expressivity", "toy"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--config.experiment=train",
            "config.experiment is 'train'; it must be one of expressivity",
        ),
        ("--config.theorem.depth=0", "config.theorem.depth is 0; it must be in [1, 10000]"),
        (
            "--config.synthetic.points=0",
            "config.synthetic.points is 0; it must be in [1, 100000000]",
        ),
        ("--config.seed=-1", "config.seed is -1; it must be in [0, 2**32)"),
        (
            "--config.corruption.name=gaussian",
            "config.corruption.name is 'gaussian'; it must be one of true_labels, …",
        ),
        (
            "--config.corruption.probability=2",
            "config.corruption.probability is 2.0; it must be in [0, 1]",
        ),
        ("--config.data.name=", "config.data.name is ''; it must be the name of a data set"),
        ("--config.epochs=3", "config.epochs is no field; config has compilation_cache, …"),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "expressivity.py:digits", arguments, line, tmp_path)
