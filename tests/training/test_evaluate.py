"""Evaluations: how far they are, and those of the first examples alone."""

import itertools
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data
from rethink_jax.errors import UserError
from rethink_jax.pipeline import loaders
from rethink_jax.report import runs as report_runs
from rethink_jax.runs import display, run_directory
from rethink_jax.runs.resolve import resolve
from rethink_jax.training import load, train
from tests.conftest import use_terminal


def settings(**fields):
    config = config_lib.train("toy", "random_labels")
    defaults = {"model.name": "mlp", "model.width": 4, "epochs": 1, "stop_when_fitted": False}
    config.update_from_flattened_dict({**defaults, **fields})
    return config


def test_only_the_first_examples_and_it_says_so(toy, tmp_path, capsys):
    part = train.run(settings(**{"evaluate.examples": 50}), tmp_path / "part", toy)
    printed = capsys.readouterr().out
    assert "training set, on the first 50 examples" in printed
    assert "test set, true labels, on the first 50 examples" in printed
    assert part["train_evaluated"] == part["test_evaluated"] == 50
    whole = train.run(settings(), tmp_path / "whole", toy)
    assert "on the first" not in capsys.readouterr().out
    assert not {"train_evaluated", "test_evaluated"} & whole.keys()
    # The same weights, so the same answers, of which the first fifty are counted.
    assert (part["train_accuracy"] * 50).is_integer()
    assert part["train_loss"] != whole["train_loss"]
    (record,) = load.load_run(tmp_path / "part").metrics
    assert record["train_evaluated"] == 50
    evaluated = train.evaluate(settings(), tmp_path / "part", toy)
    assert evaluated["train_loss"] == whole["train_loss"]
    assert "train_evaluated" not in evaluated


def test_more_examples_than_there_are_is_all(toy, tmp_path):
    summary = train.run(settings(**{"evaluate.examples": 100}), tmp_path, toy)
    assert summary["train_evaluated"] == 100
    assert "test_evaluated" not in summary


def test_a_stream_evaluates_the_first_examples_too(tmp_path):
    config = config_lib.train("digits", "true_labels")
    config.update_from_flattened_dict(
        {"data.stream": True, "data.size": 8, "data.workers": 0, "data.fake": True}
        | {"data.examples": 64, "batch_size": 16, "model.name": "mlp", "model.width": 4}
        | {"epochs": 1, "stop_when_fitted": False, "evaluate.examples": 20}
    )
    summary = train.run(config, tmp_path)
    assert summary["train_evaluated"] == summary["test_evaluated"] == 20
    assert (summary["train_accuracy"] * 20).is_integer()


def test_fitted_means_the_whole_set(toy, tmp_path):
    line = r"^config.stop_when_fitted is True; it must be False where config.evaluate.examples"
    with pytest.raises(UserError, match=line):
        train.run(settings(**{"evaluate.examples": 5, "stop_when_fitted": True}), tmp_path, toy)
    config = settings(**{"evaluate.examples": 5})
    line = r"^config.stop_at_loss is 0.1; it must be left out where config.evaluate.examples"
    with pytest.raises(UserError, match=line):
        train.run(settings(**{"evaluate.examples": 5, "stop_at_loss": 0.1}), tmp_path, toy)
    config.stop_when_fitted = None
    resolved, _ = resolve(config, toy)
    assert resolved.stop_when_fitted is False


@pytest.mark.parametrize("value", [0, -1, 2**31])
def test_how_many_is_checked(value, toy, tmp_path):
    line = rf"^config.evaluate.examples is {value}; it must be in \[1, 2\*\*31\)$"
    with pytest.raises(UserError, match=line):
        train.run(settings(**{"evaluate.examples": value}), tmp_path, toy)


def test_a_directory_named_before_the_field_keeps_its_name(toy):
    resolved, _ = resolve(settings(), toy)
    fields = resolved.to_dict()
    del fields["evaluate"]["examples"]
    assert config_lib.digest(resolved) == config_lib.digest(ConfigDict(fields))
    other, _ = resolve(settings(**{"evaluate.examples": 7}), toy)
    assert config_lib.digest(other) != config_lib.digest(resolved)


def test_a_report_says_which_numbers_are_not_of_the_whole_set(toy, tmp_path):
    train.run(settings(**{"evaluate.examples": 50}), tmp_path, toy)
    run = report_runs.read_finished(run_directory.path_of(tmp_path), "mlp1", 0)
    (line,) = report_runs.warn_of_parts([run])
    assert line.startswith("Not the whole sets: losses and accuracies of mlp1 (seed 0) are those")
    assert report_runs.warn_of_parts([run._replace(summary={})]) == []


def test_lines_every_ten_seconds_with_the_time_left(capsys, monkeypatch):
    clock = itertools.count(0.0, 6.0)
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    with display.show_evaluation() as shown:
        for done in range(0, 6000, 1000):
            shown.show(done, 5000)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "evaluating: 2,000 of 5,000 examples, 0:00:18 left",
        "evaluating: 4,000 of 5,000 examples, 0:00:06 left",
    ]


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = use_terminal(monkeypatch)
    with display.show_run(50) as shown:
        shown.evaluating(0, 5000)
        shown.evaluating(1000, 5000)
        shown._bars.refresh()
        shown.evaluating(5000, 5000)
    assert "1,000 of 5,000 examples" in terminal.getvalue()


def test_a_run_and_an_evaluation_show_how_far_they_are(toy, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        display.EvaluationDisplay, "show", lambda self, done, total: shown.append((done, total))
    )
    monkeypatch.setattr(loaders, "_EVAL_OF_SIMULATED_DEVICE", (1, 32))
    train.run(settings(), tmp_path, toy)
    train.evaluate(settings(), tmp_path, toy)
    assert shown == 2 * [(done, 360) for done in (0, 64, 128, 192, 256, 300, 360)]
    assert json.loads((tmp_path / "evaluation.json").read_text())["step"] == 3


def test_the_first_of_a_sorted_set_are_refused(tmp_path):
    """They are of the first classes alone, and their accuracy says nothing of the set."""
    labels = np.repeat(np.arange(5), 20)
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4), dtype=np.uint8)
    mine = data.from_arrays((images, labels), (images, labels), name="mine")
    line = r"^config.evaluate.examples is 50; it must be left out for a set that is sorted by class"
    with pytest.raises(UserError, match=line):
        train.run(settings(**{"evaluate.examples": 50}), tmp_path / "run", mine)
    assert not (tmp_path / "run").exists()
