import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from rethink_jax import config as config_lib
from rethink_jax.distributed import preemption
from rethink_jax.pipeline import inputs
from rethink_jax.theory import double_descent
from tests.config.test_config import load
from tests.entry_point import ROOT
from tests.stopping import stop_when_shown
from tests.test_bad_input import assert_refused_at_once

RATIOS = (0.1, 0.5, 1, 1.5, 4.0)


def toy_config(**fields):
    config = config_lib.experiment("double_descent", "toy")
    config.double_descent.update({"ratios": RATIOS, "bandwidth": 2.0, **fields})
    return config


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The config file's own small run: its directory and summary."""
    path = tmp_path_factory.mktemp("double_descent") / "run"
    config = load(ROOT / "configs" / "double_descent.py").get_config("smoke")
    return path, double_descent.run(config, path)


def test_digits_descend_twice(digits):
    path, summary = digits
    assert json.loads((path / "summary.json").read_text()) == summary
    assert (path / "curves.png").read_bytes().startswith(b"\x89PNG")
    points = {one["features"]: one for one in summary["points"]}
    assert len(points) == 22
    assert {one["ratio"] * 500 for one in points.values()} == {*points}
    true, noisy = summary["peaks"]
    assert true["came_out"]
    assert (true["probability"], noisy["probability"]) == (0.0, 0.2)
    for peak in (true, noisy):
        assert peak["features"] == 500
        assert peak["end"] < peak["best_below"] < peak["error"] / 2
    for i, level in enumerate(points[500]["levels"]):
        norms = {count: one["levels"][i]["norm"] for count, one in points.items()}
        assert max(norms, key=norms.get) == 500
        assert norms[3000] < norms[500] / 10
        assert level["train_error"] == 0
        assert level["function_norm"] == pytest.approx(level["norm"] * np.sqrt(250))
        assert level["test_loss"] > 10 * points[3000]["levels"][i]["test_loss"]
    assert all(one["residual"] < 1e-9 for count, one in points.items() if count >= 500)
    title, columns, rows = double_descent.table(summary)
    assert title == "Random Fourier features, 500 examples"
    assert {len(columns)} == {len(row) for row in rows}
    _, columns, rows = double_descent.peaks_table(summary)
    assert {len(columns)} == {len(row) for row in rows}
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("0", "500", "yes"),
        ("0.2", "500", "no"),
    ]


def test_what_is_measured_by_a_plain_solve(from_toy, toy, tmp_path):
    config = toy_config(probabilities=(0.3,), ratios=(0.4, 1.0, 2.0))
    points = {one["features"]: one for one in double_descent.run(config, tmp_path)["points"]}
    images, test = (s.images.reshape(len(s.labels), -1) / 255 for s in (toy.train, toy.test))
    corruption = ConfigDict({"name": "partially_corrupted_labels", "probability": 0.3, "seed": 0})
    labels = inputs.corrupt_labels(corruption, "train", toy.train.labels, toy.info)
    assert 0.1 < np.mean(labels != toy.train.labels) < 0.4
    v = np.random.default_rng(0).standard_normal((300, images.shape[1])) / 2
    for count in (120, 600):
        phi, across = (
            np.stack([np.cos(x @ v.T), np.sin(x @ v.T)], axis=2).reshape(len(x), -1)[:, :count]
            for x in (images, test)
        )
        a = np.linalg.lstsq(phi, np.eye(5)[labels])[0]
        level = points[count]["levels"][0]
        assert level["test_error"] == np.mean((across @ a).argmax(axis=1) != toy.test.labels)
        assert level["train_error"] == np.mean((phi @ a).argmax(axis=1) != labels)
        for name, values, targets in (
            ("test_loss", across @ a, toy.test.labels),
            ("train_loss", phi @ a, labels),
        ):
            expected = np.square(values - np.eye(5)[targets]).sum(axis=1).mean()
            assert level[name] == pytest.approx(expected, abs=1e-8)
        assert level["norm"] == pytest.approx(np.linalg.norm(a), rel=1e-8)


@pytest.mark.parametrize(
    ("part", "saved"),
    [
        ("up to n features: factorization", []),
        ("up to n features", [30]),
        ("450 features: solution", [30, 150, 300, 450]),
        ("1,200 features: matrix", [30, 150, 300, 450]),
    ],
)
def test_stopped_and_resumed(part, saved, from_toy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_when_shown(patch, 1, part)
        message = "SIGTERM: stopped; what is done is saved in"
        with pytest.raises(preemption.Stopped, match=message):
            double_descent.run(toy_config(), tmp_path / "parts")
    file = tmp_path / "parts" / "points.json"
    points = json.loads(file.read_text())["points"] if file.exists() else []
    assert [one["features"] for one in points] == saved
    solved = []
    original = double_descent._measure
    monkeypatch.setattr(
        double_descent,
        "_measure",
        lambda config, problem, count, solution: (
            solved.append(count) or original(config, problem, count, solution)
        ),
    )
    resumed = double_descent.run(toy_config(), tmp_path / "parts")
    assert solved == [count for count in (30, 150, 300, 450, 1200) if count not in saved]
    whole = double_descent.run(toy_config(), tmp_path / "whole")
    assert [one["features"] for one in resumed["points"]] == [30, 150, 300, 450, 1200]
    for one, other in zip(resumed["points"], whole["points"], strict=True):
        for level, same in zip(one["levels"], other["levels"], strict=True):
            assert level["test_error"] == same["test_error"]
            assert level["norm"] == pytest.approx(same["norm"], rel=1e-8)


def peak_of(errors, n=100):
    points = [
        {"features": count, "levels": [{"probability": 0.2, "test_error": error}]}
        for count, error in errors.items()
    ]
    return double_descent.find_peak(points, n, 0)


def test_a_peak_that_counts():
    assert peak_of({50: 0.3, 90: 0.5, 100: 0.9, 110: 0.4, 600: 0.2}) == {
        "probability": 0.2,
        "features": 100,
        "error": 0.9,
        "best_below": 0.3,
        "best_above": 0.2,
        "end": 0.2,
        "came_out": True,
    }


@pytest.mark.parametrize(
    "errors",
    [
        {50: 0.3, 90: 0.95, 100: 0.9, 600: 0.2},  # not at n
        {50: 0.31, 100: 0.9, 600: 0.2},  # too low beside the best below
        {50: 0.25, 100: 0.9, 600: 0.31},  # and above; ends above the best below
        {50: 0.2, 100: 0.9, 200: 0.1, 600: 0.2},  # no lower at the end
    ],
)
def test_a_peak_that_does_not_count(errors):
    peak = peak_of(errors)
    assert not peak["came_out"]
    assert double_descent.conclude({"peaks": [peak]})[0].endswith("Double descent: no.")


def test_the_paper_s_numbers_of_features():
    config = load(ROOT / "configs" / "double_descent.py").get_config("mnist")
    assert (config.data.name, config.data.examples) == ("mnist", 10_000)
    thousands = {round(10 * ratio, 3) for ratio in config.double_descent.ratios}
    printed = {0.5, 1, 1.5, 2, 2.5, 3, *range(4, 15), 20, 40, 60}
    assert printed <= thousands


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--config.double_descent.ratios=(0.5,2.0)",
            "config.double_descent.ratios is (0.5, 2.0); it must be numbers in (0, 100], 1 and some below and "
            "above it",
        ),
        (
            "--config.double_descent.ratios=(1.0,2.0)",
            "config.double_descent.ratios is (1.0, 2.0); it must be numbers in (0, 100], 1 …",
        ),
        (
            "--config.double_descent.ratios=()",
            "config.double_descent.ratios is (); it must be numbers in (0, 100], 1 …",
        ),
        (
            "--config.double_descent.ratios=(0.5,1.0,'x')",
            "config.double_descent.ratios is (0.5, 1.0, 'x'); it must be numbers in (0, 100], 1 …",
        ),
        (
            "--config.double_descent.probabilities=(1.5,)",
            "config.double_descent.probabilities is (1.5,); it must be one or more numbers in [0, 1]",
        ),
        (
            "--config.double_descent.bandwidth=0",
            "config.double_descent.bandwidth is 0.0; it must be above 0 and finite",
        ),
        ("--config.epochs=3", "config.epochs is no field; config has compilation_cache, …"),
        (
            "--config.experiment=train",
            "config.experiment is 'train'; it must be one of double_descent",
        ),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "double_descent.py:smoke", arguments, line, tmp_path)
