import json
import math
import os
import signal

import numpy as np
import pytest

from rethink_jax import config as config_lib
from rethink_jax.distributed import preemption
from rethink_jax.errors import RunFailed, UserError
from rethink_jax.runs import display
from rethink_jax.theory import rademacher
from rethink_jax.training import load
from tests.test_bad_input import assert_refused_at_once


def toy_config(**fields):
    config = config_lib.experiment("rademacher", "toy")
    config.update_from_flattened_dict({"model.width": 64, "rademacher.draws": 2, **fields})
    return config


def test_random_signs_are_fitted_and_true_labels_too(from_toy, toy, tmp_path, capsys):
    summary = rademacher.run(toy_config(), tmp_path)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["draws"] == [1.0, 1.0]
    assert summary["complexity"]["mean"] == 1
    true, random = (summary["networks"][kind] for kind in ("true_labels", "random_labels"))
    slack = 3 * math.sqrt(math.log(40) / 600)
    at_least = 1 - math.sqrt(2 * math.log(20) / 600)
    assert summary["at_least"] == pytest.approx(at_least)
    assert true["bound"] == random["bound"] == pytest.approx(at_least + slack)
    for kind, found in summary["networks"].items():
        left = [
            load.load_run(tmp_path / "runs" / f"{kind}-seed{seed}").summary for seed in range(2)
        ]
        labels = "_corrupted" if kind == "random_labels" else ""
        errors = [1 - one["test_accuracy" + labels] for one in left]
        assert found["test_error"]["mean"] == pytest.approx(np.mean(errors))
        assert found["test_error"]["deviation"] == pytest.approx(np.std(errors, ddof=1))
    assert summary["points"] == 300
    fitted = load.load_run(tmp_path / "runs" / "random_labels-seed1")
    assert (fitted.config.seed, fitted.config.corruption.seed) == (1, 1)
    printed = capsys.readouterr().out
    assert "complexity of mlp on 300 points: 1.0000 found, so at least 0.9001" in printed
    assert "(says nothing)" in printed


def test_signs_that_are_not_fitted(from_toy, tmp_path):
    """The complexity is what they were fitted to; the same command again changes nothing."""
    config = toy_config(epochs=2, stop_when_fitted=False)
    config.rademacher.draws = 1
    first = rademacher.run(config, tmp_path)
    config.rademacher.draws = 2
    with pytest.raises(UserError, match=r"another config \(config.rademacher.draws 1 → 2\)"):
        rademacher.run(config, tmp_path)
    config.rademacher.draws = 1
    assert rademacher.run(config, tmp_path) == first
    accuracy = load.load_run(tmp_path / "runs" / "random_labels-seed0").summary
    assert first["draws"] == [2 * accuracy["train_accuracy"] - 1]
    assert 0 < first["draws"][0] < 0.9
    assert first["complexity"]["low"] is None  # one draw has no interval


def test_a_run_that_fails_leaves_no_summary(from_toy, tmp_path):
    with pytest.raises(RunFailed, match="4 of 4 runs are not done"):
        rademacher.run(toy_config(**{"optimizer.learning_rate": 1e30}), tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_goes_on_where_it_was_stopped(from_toy, tmp_path, monkeypatch):
    config = toy_config(epochs=2, stop_when_fitted=False)
    whole = rademacher.run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        end = display.SweepDisplay.end

        def signalling(*args):
            end(*args)
            os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(display.SweepDisplay, "end", signalling)
        with pytest.raises(preemption.Stopped):
            rademacher.run(config, tmp_path / "parts")
    assert not (tmp_path / "parts" / "summary.json").exists()
    config.rademacher.draws = 1
    with pytest.raises(UserError, match=r"another config \(config.rademacher.draws 2 → 1\)"):
        rademacher.run(config, tmp_path / "parts")
    config.rademacher.draws = 2
    parts = rademacher.run(config, tmp_path / "parts")
    assert parts | {"seconds": 0} == whole | {"seconds": 0}


def test_true_labels_are_not_to_be_changed(from_toy, tmp_path):
    with pytest.raises(
        UserError, match=r"config.corruption.name is 'random_labels'; it must be left"
    ):
        rademacher.run(toy_config(**{"corruption.name": "random_labels"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_classes(toy):
    halves = rademacher.two_classes(toy)
    assert halves.info.num_classes == 2
    for split in ("train", "test"):
        labels = getattr(toy, split).labels
        np.testing.assert_array_equal(getattr(halves, split).labels, labels >= 2)
        assert getattr(halves, split).labels.dtype == labels.dtype


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--config.rademacher.draws=0", "config.rademacher.draws is 0; it must be in [1, 1000]"),
        (
            "--config.rademacher.nope=0",
            "config.rademacher.nope is no field; config.rademacher has draws",
        ),
        ("--config.experiment=train", "config.experiment is 'train'; it must be one of rademacher"),
        ("--config.model.width=0", "config.model.width is 0; it must be 1 or more"),
        ("--config.data.examples=0", "config.data.examples is 0; it must be in [1, 2**31)"),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "rademacher.py:digits", arguments, line, tmp_path)
