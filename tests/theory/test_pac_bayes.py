"""The experiment: what it leaves, that its bound follows from its posterior, that it resumes."""

import contextlib
import json
import math
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from scipy.optimize import brentq

from rethink_jax import config as config_lib
from rethink_jax.distributed import preemption
from rethink_jax.errors import Diverged, UserError
from rethink_jax.report import contents
from rethink_jax.runs import files
from rethink_jax.theory import pac_bayes, pac_bayes_bounds as bounds, posterior as lib
from rethink_jax.training.checkpoints import Checkpoints
from tests.config.test_config import load
from tests.conftest import serve
from tests.entry_point import ROOT, environment_of_a_command, make_place, start
from tests.stopping import stop_when_shown, wait_for
from tests.test_bad_input import assert_refused_at_once

FIELDS = {
    "width": 8,
    "sgd_epochs": 30,
    "sgd_learning_rate": 0.1,
    "epochs": 12,
    "batch_size": 50,
    "learning_rate": 0.01,
    "passes": 4,
}


def toy_config(labels="true_labels", **fields):
    config = config_lib.experiment("pac_bayes", "toy")
    config.corruption.name = labels
    config.pac_bayes.update({**FIELDS, **fields})
    return config


@pytest.fixture(scope="module", params=["true_labels", "random_labels"])
def whole(request, toy, tmp_path_factory):
    """The labels, directory and summary of an undisturbed run."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        serve(toy, patch)
        return request.param, path, pac_bayes.run(toy_config(request.param), path)


def lines_of(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("seconds") > 0 for line in lines)
    return lines


def without_clock(summary):
    return {name: value for name, value in summary.items() if name != "seconds"}


def posterior_of(path):
    with contextlib.closing(Checkpoints(files.epath.Path(path), read_only=True)) as checkpoints:
        return checkpoints.restore_newest().state["posterior"]


def session_of(labels, toy):
    dataset = pac_bayes.two_classes(toy)
    return pac_bayes._session(toy_config(labels), files.epath.Path("."), dataset, lambda *_: None)


def test_what_a_run_leaves(whole, toy):
    labels, path, summary = whole
    assert {file.name for file in path.iterdir()} == {
        *("config.json", "run.json", "summary.json", "metrics.jsonl", "seconds.json", "lock"),
        *("checkpoints", "tensorboard"),
    }
    assert json.loads((path / "summary.json").read_text()) == summary
    assert (summary["labels"], summary["examples"], summary["test_examples"]) == (labels, 300, 60)
    assert summary["parameters"] == 433 * 8 + 9
    assert [line["epoch"] for line in lines_of(path)] == [0, 10, 12]
    assert [line["step"] for line in lines_of(path)] == [0, 60, 72]
    assert summary["start"]["draws"] == 300
    assert summary["optimized"]["draws"] == 1200
    assert summary["optimized"]["pinsker"] < summary["start"]["pinsker"]
    for kind in ("start", "optimized"):
        assert summary[kind]["bound"] <= min(1, summary[kind]["pinsker"])
        assert summary[kind]["bound"] >= summary[kind]["test_error"] - 0.1
    if labels == "true_labels":
        assert summary["sgd"]["train"] < 0.1
        assert summary["optimized"]["test_error"] < 0.3
    else:
        assert summary["optimized"]["bound"] > 0.5
        assert 0.25 < summary["optimized"]["test_error"] < 0.75


def test_the_bound_follows_from_the_posterior(whole, toy):
    """Once more with NumPy and SciPy, from the checkpoint and the draws that the summary tells of."""
    _, path, summary = whole
    found, one = posterior_of(path), summary["optimized"]
    prior_means = lib.initial_weights(0, 432, 8)
    variance, kl = one["prior_variance"], 0.0
    for name, prior in zip(("hidden", "output"), prior_means, strict=True):
        mean = found["means"][name].astype(np.float64)
        log_variance = found["log_variances"][name].astype(np.float64)
        ratio = np.exp(log_variance) / variance
        kl += 0.5 * np.sum(ratio + (mean - np.asarray(prior)) ** 2 / variance - 1 - np.log(ratio))
    assert one["kl"] == pytest.approx(kl, rel=1e-9)
    j = round(100 * math.log(0.1 / variance))
    assert variance == pytest.approx(0.1 * math.exp(-j / 100), rel=1e-12)
    limit = (kl + math.log(300 * math.pi**2 * j**2 / (6 * 0.025))) / 299
    assert one["limit"] == pytest.approx(limit, rel=1e-9)

    def inverse(q, limit):
        def difference(p):
            parts = ((q, p), (1 - q, 1 - p))
            return sum(a * math.log(a / b) for a, b in parts if a > 0) - limit

        return brentq(difference, q, 1 - 1e-15) if difference(1 - 1e-15) > 0 else 1.0

    train = inverse(one["train_error"], math.log(2 / 0.01) / 1200)
    assert one["train_error_bound"] == pytest.approx(train, abs=1e-9)
    assert one["pinsker"] == pytest.approx(train + math.sqrt(limit / 2), abs=1e-9)
    assert one["bound"] == pytest.approx(inverse(train, limit), abs=1e-9)


def test_errors_are_those_of_drawn_weights(whole, toy):
    """The training error, with weights drawn as a whole, to four standard errors."""
    labels, path, summary = whole
    found, rng = posterior_of(path), np.random.default_rng(0)
    session = session_of(labels, toy)
    inputs, signs = (np.asarray(part, np.float64) for part in session.train)
    errors = []
    for _ in range(300):
        hidden, output = (
            found["means"][name]
            + np.exp(found["log_variances"][name] / 2)
            * rng.standard_normal(found["means"][name].shape)
            for name in ("hidden", "output")
        )
        values = np.maximum(inputs @ hidden, 0) @ output[:-1] + output[-1]
        errors.append(np.mean(signs * values <= 0))
    slack = 4 * (np.std(errors) / math.sqrt(300) + 0.5 / math.sqrt(1200))
    assert summary["optimized"]["train_error"] == pytest.approx(np.mean(errors), abs=slack)


def test_labels(toy):
    """Two classes as ±1, a column of ones; random labels are drawn once, of the test set, too."""
    session = session_of("true_labels", toy)
    np.testing.assert_array_equal(session.train.labels, np.where(toy.train.labels >= 2, 1, -1))
    np.testing.assert_array_equal(session.test.labels, np.where(toy.test.labels >= 2, 1, -1))
    expected = toy.test.images.reshape(60, -1).astype(np.float32) / 255
    np.testing.assert_allclose(session.test.inputs[:, :-1], expected, rtol=1e-6)
    np.testing.assert_array_equal(session.test.inputs[:, -1], 1)
    drawn = session_of("random_labels", toy)
    for split, true in ((drawn.train, session.train), (drawn.test, session.test)):
        own = np.asarray(split.labels)
        assert {*own.tolist()} == {-1, 1}
        assert abs(np.mean(own == np.asarray(true.labels)) - 0.5) < 0.2


@pytest.mark.parametrize("count", [2, 31, 38, 45])
def test_stopped_and_resumed(count, whole, from_toy, tmp_path, monkeypatch):
    labels, path, undisturbed = whole
    with monkeypatch.context() as patch:
        stop_when_shown(patch, count)
        with pytest.raises(preemption.Stopped, match="SIGTERM: stopped; finished epochs are saved"):
            pac_bayes.run(toy_config(labels), tmp_path)
    assert not (tmp_path / "summary.json").exists()
    summary = pac_bayes.run(toy_config(labels), tmp_path)
    assert without_clock(summary) == without_clock(undisturbed)
    assert lines_of(tmp_path) == lines_of(path)
    for one, other in zip(*map(jax.tree.leaves, map(posterior_of, (tmp_path, path))), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_finished_run_prints_its_results_again(whole, from_toy, capsys):
    labels, path, summary = whole
    before = (path / "summary.json").read_bytes()
    assert pac_bayes.run(toy_config(labels), path) == summary
    assert (path / "summary.json").read_bytes() == before
    words = labels.replace("_", " ")
    assert f"PAC-Bayes bound: 300 examples with {words}, 3,473 weights" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"another config \(config.pac_bayes.width 8 → 9\)"):
        pac_bayes.run(toy_config(labels, width=9), path)


def test_the_report(whole, tmp_path):
    _, path, summary = whole
    (tmp_path / "toy").symlink_to(path)
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    title, columns, rows = pac_bayes.table(summary)
    assert f"## {title}" in page
    assert {len(row) for row in rows} == {len(columns)}
    assert all(cell in page for row in rows for cell in row)
    assert pac_bayes.verdict(summary) in page


def certificate(bound, test_error=0.035):
    return {"train_error": 0.03, "test_error": test_error, "bound": bound}


@pytest.mark.parametrize(
    ("labels", "bound", "came_out"),
    [
        ("true_labels", 0.2, True),
        ("true_labels", 0.5, False),
        ("true_labels", 0.03, False),
        ("random_labels", 0.51, True),
        ("random_labels", 0.49, False),
    ],
)
def test_the_verdict(labels, bound, came_out):
    at_end = 0.035 if labels == "true_labels" else 0.501
    summary = {
        "labels": labels,
        "sgd": {"train": 0.01, "test": 0.02},
        "start": certificate(1.0),
        "optimized": certificate(bound, test_error=at_end),
    }
    assert pac_bayes.verdict(summary).endswith(
        "It came out." if came_out else "It did not come out."
    )


def test_weights_that_are_not_finite(from_toy, tmp_path):
    for field in ("learning_rate", "sgd_learning_rate"):
        line = rf"a weight is not finite after epoch \d+; lower config.pac_bayes.{field}$"
        with pytest.raises(Diverged, match=line):
            pac_bayes.run(toy_config(**{field: 1e30}), tmp_path / field)
        assert not (tmp_path / field / "summary.json").exists()


def test_several_processes_are_refused(monkeypatch, from_toy, tmp_path):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="'pac_bayes'; it runs in one process"):
        pac_bayes.run(toy_config(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "shown", "allowed"),
    [
        ("pac_bayes.width=0", "0", "in [1, 1048576]"),
        ("pac_bayes.epochs=0", "0", "in [1, 1000000]"),
        ("pac_bayes.sgd_epochs=0", "0", "in [1, 1000000]"),
        ("pac_bayes.passes=0", "0", "in [1, 1000000]"),
        ("pac_bayes.learning_rate=0", "0.0", "above 0 and finite"),
        ("pac_bayes.delta=0.", "0.0", "in (0, 0.5)"),
        ("pac_bayes.sampling_delta=.5", "0.5", "in (0, 0.5)"),
        ("pac_bayes.batch_size=1501", "1501", "at most 1500, the training examples"),
        (
            "corruption.name=shuffled_pixels",
            "'shuffled_pixels'",
            "one of true_labels, random_labels",
        ),
        ("corruption.probability=.5", "0.5", "1.0 or left out for true_labels"),
        ("data.examples=1", "1", "2 or more for a bound"),
    ],
)
def test_one_line_and_nothing_written(field, shown, allowed, in_process, tmp_path):
    line = f"config.{field.partition('=')[0]} is {shown}; it must be {allowed}"
    assert_refused_at_once(in_process, "pac_bayes.py:smoke", f"--config.{field}", line, tmp_path)


def test_the_config_file():
    get_config = load(ROOT / "configs" / "pac_bayes.py").get_config
    names = [
        (get_config(*at).data.name, get_config(*at).corruption.name) for at in ((), ("smoke",))
    ]
    assert names == [("mnist", "true_labels"), ("digits", "true_labels")]
    drawn = get_config("random_labels")
    assert (drawn.data.name, drawn.corruption.name) == ("mnist", "random_labels")
    assert get_config("fashion_mnist").data.name == "fashion_mnist"


def number_of_lines(file):
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.ci
def test_killed_stopped_and_resumed_processes(tmp_path, monkeypatch):
    here = make_place(tmp_path / "here")
    arguments = ["--config=configs/pac_bayes.py:smoke", "--config.pac_bayes.epochs=300"]
    assert start([*arguments, "--workdir=whole"], here).code == 0
    stopped, codes = here / "stopped", []
    for number, lines in ((signal.SIGTERM, 2), (signal.SIGKILL, 5)):
        process = subprocess.Popen(
            [sys.executable, "-m", "rethink_jax.main", *arguments, "--workdir=stopped"],
            cwd=here,
            env=environment_of_a_command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_for(process, lambda own=lines: number_of_lines(stopped / "metrics.jsonl") >= own)
        process.send_signal(number)
        process.communicate()
        codes.append(process.returncode)
    assert codes == [preemption.EXIT_CODE, -signal.SIGKILL]
    assert not (stopped / "summary.json").exists()
    assert start([*arguments, "--workdir=stopped"], here).code == 0
    summaries = [
        json.loads((here / name / "summary.json").read_text()) for name in ("whole", "stopped")
    ]
    assert without_clock(summaries[0]) == without_clock(summaries[1])
    assert lines_of(stopped) == lines_of(here / "whole")


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docs" / "results" / "theory").glob("pac_bayes*.json"))
)
def test_the_records_hold(file):
    """The bounds in the docs follow from the errors, draws and KL beside them."""
    summary = json.loads(file.read_text())["summary"]
    for kind in ("start", "optimized"):
        one = summary[kind]
        j = round(100 * math.log(0.1 / one["prior_variance"]))
        n, delta = summary["examples"], summary["delta"]
        limit = (one["kl"] + math.log(n * (math.pi * j) ** 2 / (6 * delta))) / (n - 1)
        assert one["limit"] == pytest.approx(limit, rel=1e-9)
        found = bounds.bound_error(
            one["train_error"], one["draws"], limit, summary["sampling_delta"]
        )
        assert found == pytest.approx(
            [one[name] for name in ("train_error_bound", "pinsker", "bound")]
        )
