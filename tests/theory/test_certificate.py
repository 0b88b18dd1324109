"""The experiment on certificates: which labels are random, what is counted, and that it resumes."""

import json
import math
import os
import signal

import jax
import numpy as np
import pytest

from rethink_jax import config as config_lib
from rethink_jax.distributed import preemption
from rethink_jax.errors import UserError
from rethink_jax.models import create
from rethink_jax.pipeline import inputs
from rethink_jax.pipeline.preprocess import whiten
from rethink_jax.runs import display, files
from rethink_jax.theory import certificate, rademacher, ratt
from rethink_jax.training import load
from tests.conftest import serve, use_devices
from tests.test_bad_input import assert_refused_at_once

RANDOM_EXAMPLES = 90


def toy_config(**fields):
    config = config_lib.experiment("certificate", "toy")
    config.certificate.update(random_examples=RANDOM_EXAMPLES, draws=2)
    config.update_from_flattened_dict({"model.width": 32, "epochs": 6, **fields})
    return config


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The directory of an undisturbed run."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        serve(toy, patch)
        use_devices(patch, 2)
        certificate.run(toy_config(), path)
    return path


@pytest.fixture(scope="module")
def summary(whole):
    return json.loads((whole / "summary.json").read_text())


def labels_of(config, toy):
    """A run's labels, and which of them were drawn, by marks instead of labels."""
    halves = rademacher.two_classes(toy)
    labels = inputs.corrupt_labels(config.corruption, "train", halves.train.labels, halves.info)
    marks = np.full(len(labels), -1, np.int32)
    marked = inputs.corrupt_labels(config.corruption, "train", marks, halves.info)
    return halves, labels, marked >= 0


@pytest.mark.parametrize("draw", [0, 1])
def test_as_many_labels_are_random_as_asked(draw, whole, toy):
    one = load.load_run(whole / "runs" / f"draw{draw}-seed{draw}")
    assert (one.config.seed, one.config.corruption.seed) == (draw, draw)
    halves, labels, is_random = labels_of(one.config, toy)
    assert is_random.sum() == RANDOM_EXAMPLES
    np.testing.assert_array_equal(labels[~is_random], halves.train.labels[~is_random])
    wrong = np.sum(labels[is_random] != halves.train.labels[is_random])
    assert abs(wrong - RANDOM_EXAMPLES / 2) < 4 * math.sqrt(RANDOM_EXAMPLES) / 2


def test_draws_have_random_labels_of_their_own(whole, toy):
    first, second = (
        labels_of(load.load_run(whole / "runs" / f"draw{k}-seed{k}").config, toy)[2]
        for k in range(2)
    )
    assert (first != second).any()


def test_what_is_counted_is_what_the_network_answers(whole, summary, toy):
    """The last evaluation, from the parameters of the last checkpoint."""
    one = load.load_run(whole / "runs" / "draw1-seed1")
    halves, labels, is_random = labels_of(one.config, toy)
    model = create(one.config.model, 2, one.config.dtype)
    wrong = {}
    for split in ("train", "test"):
        logits = model.apply(
            {"params": one.params}, whiten(jax.numpy.asarray(getattr(halves, split).images))
        )
        wrong[split] = np.asarray(logits).argmax(axis=1)
    errors = wrong["train"] != labels
    expected = {
        "labelled": errors[~is_random].mean(),
        "random": errors[is_random].mean(),
        "wrong": errors[labels != halves.train.labels].mean(),
        "test": (wrong["test"] != halves.test.labels).mean(),
        "epochs": 6,
    }
    history = summary["histories"][1]
    assert {name: history[name][-1] for name in expected} == pytest.approx(expected)
    counts = np.array([errors[~is_random].sum()]), np.array([errors[is_random].sum()])
    bound = ratt.certificate(counts[0], 210, counts[1], 90, 0.05, 6)
    assert history["certificate"][-1] == pytest.approx(bound[0])


def test_the_summary(summary):
    assert (summary["labelled_examples"], summary["random_examples"]) == (210, 90)
    assert (summary["looks"], summary["evaluations"]) == (6, 12)
    histories = summary["histories"]
    least = [min(one["certificate"]) for one in histories]
    assert summary["chosen"]["certificate"]["mean"] == pytest.approx(np.mean(least))
    chosen = [one["certificate"].index(value) for one, value in zip(histories, least, strict=True)]
    tests = [one["test"][i] for one, i in zip(histories, chosen, strict=True)]
    assert summary["chosen"]["test"]["greatest"] == max(tests)
    assert summary["last"]["test"]["least"] == min(one["test"][-1] for one in histories)
    pairs = [
        (c, t, w)
        for one in histories
        for c, t, w in zip(one["certificate"], one["test"], one["wrong"], strict=True)
    ]
    assert summary["smallest_margin"] == pytest.approx(min(c - t for c, t, _ in pairs))
    assert summary["below_test_error"] == sum(c < t for c, t, _ in pairs)
    assumption = summary["assumption"]
    assert assumption["greatest_excess"] == pytest.approx(max(w + t - 1 for _, t, w in pairs))
    assert assumption["kept"] <= 12
    assert all(one["certificate"] >= 0.95 for one in summary["coverage"])


def history(**changes):
    values = {name: np.full(2, 0.3) for name in ("labelled", "random", "certificate")}
    values |= {"epochs": np.arange(1, 3.0), "test": np.full(2, 0.2), "wrong": np.full(2, 0.7)}
    return certificate.History(**{**values, **changes}, slack=0.05, n=210, m=90)


def test_violations_are_counted():
    """Certificates below the test error, and wrong labels fitted worse than the assumption allows."""
    histories = [
        history(),
        history(certificate=np.array([0.1, 0.2]), wrong=np.array([0.86, 0.84])),
    ]
    summary = certificate.summarize(toy_config(), histories, 2)
    assert summary["below_test_error"] == 1
    assert summary["smallest_margin"] == pytest.approx(-0.1)
    assert summary["assumption"] == pytest.approx(
        {"greatest_excess": 0.06, "slack": 0.05, "kept": 3}
    )
    assert summary["chosen"]["certificate"]["least"] == 0.1


def test_the_same_command_again(whole, summary, from_toy, capsys):
    assert certificate.run(toy_config(), whole) == summary
    printed = capsys.readouterr().out
    assert "mlp, 210 examples with true labels and 90 with random ones, δ = 0.05" in printed
    for field, value in (("epochs", 7), ("certificate.delta", 0.1)):
        with pytest.raises(UserError, match=rf"another config \(config.{field} .* → {value}\)"):
            certificate.run(toy_config(**{field: value}), whole)


def test_resumes_where_it_was_stopped(whole, summary, from_toy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        end = display.SweepDisplay.end

        def signalling(*args):
            end(*args)
            os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(display.SweepDisplay, "end", signalling)
        with pytest.raises(preemption.Stopped):
            certificate.run(toy_config(), tmp_path)
    assert not (tmp_path / "summary.json").exists()
    assert certificate.run(toy_config(), tmp_path) | {"seconds": 0} == summary | {"seconds": 0}


def test_random_labels_everywhere(from_toy, toy, tmp_path):
    config = toy_config(**{"corruption.name": "random_labels", "corruption.seed": 7})
    found = certificate.run(config, tmp_path)
    one = load.load_run(tmp_path / "runs" / "draw1-seed1")
    assert (one.config.corruption.name, one.config.corruption.seed) == ("random_labels", 8)
    halves = rademacher.two_classes(toy)
    labels = inputs.corrupt_labels(one.config.corruption, "test", halves.test.labels, halves.info)
    expected = [1 - record["test_accuracy_corrupted"] for record in one.metrics]
    assert found["histories"][1]["test"] == pytest.approx(expected)
    assert 0.2 < np.mean(labels != halves.test.labels) < 0.8
    assert (found["labels"], found["random_examples"]) == ("random_labels", 90)
    for history in found["histories"]:  # any half of the random labels may count as wrong
        assert history["wrong"] == history["random"]
    assert found["assumption"]["slack"] == pytest.approx(math.sqrt(math.log(3 * 6 / 0.05) / 90))
    assert min(one["least"] for one in (found["chosen"]["certificate"],)) > 0.5


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"epochs": 5}, 5),
        ({"epochs": 5, "evaluate.every_epochs": 2}, 3),
        ({"steps": 7}, 3),
        ({"steps": 6, "evaluate.every_epochs": 2}, 1),
    ],
)
def test_looks(fields, expected, from_toy, toy, tmp_path):
    """As many as a run has evaluations, of three steps an epoch."""
    config = toy_config(**fields)
    config.certificate.draws = 1
    found = certificate.run(config, tmp_path)
    run = tmp_path / "runs" / "draw0-seed0"
    assert found["looks"] == expected == len(files.read_metrics(files.epath.Path(run)))
    assert found["evaluations"] <= expected


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--config.certificate.random_examples=1500",
            "config.certificate.random_examples is 1500; it must be less than 1500, the training examples",
        ),
        ("--config.certificate.delta=1.0", "config.certificate.delta is 1.0; it must be in (0, 1)"),
        ("--config.certificate.draws=0", "config.certificate.draws is 0; it must be in [1, 1000]"),
        (
            "--config.corruption.name=gaussian",
            "config.corruption.name is 'gaussian'; it must be true_labels or random_labels",
        ),
        (
            "--config.records.every_epochs=2",
            "config.records.every_epochs is 2; it must be left out for certificate, which keeps a record of "
            "each evaluation",
        ),
        (
            "--config.evaluate.examples=10",
            "config.evaluate.examples is 10; it must be left out: all examples are needed",
        ),
        ("--config.data.stream", "config.data.stream is True; it must be False for certificate"),
        ("--config.model.width=0", "config.model.width is 0; it must be 1 or more"),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "certificate.py:digits", arguments, line, tmp_path)
