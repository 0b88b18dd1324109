import dataclasses
import json

import jax
import numpy as np
import pytest

from rethink_jax import config as config_lib
from rethink_jax.errors import UserError
from rethink_jax.theory import rademacher, stability
from rethink_jax.training import load
from tests.conftest import serve, use_devices
from tests.test_bad_input import assert_refused_at_once

KINDS = ("true_labels", "random_labels")


def toy_config(**fields):
    config = config_lib.experiment("stability", "toy")
    config.update_from_flattened_dict({"model.width": 64, "stability.replacements": 2, **fields})
    return config


def test_one_example_is_replaced(toy):
    number = 3 + len(toy.test.labels)  # more than there are test examples: they come again
    other = stability.replace(toy, 7, number)
    differing = (other.train.images != toy.train.images).any(axis=(1, 2, 3))
    assert differing.nonzero()[0].tolist() == [7]
    np.testing.assert_array_equal(other.train.images[7], toy.test.images[3])
    assert other.train.labels[7] == toy.test.labels[3]
    assert not (toy.train.images[7] == toy.test.images[3]).all()


@pytest.mark.ci
def test_the_table(from_toy, toy, tmp_path, capsys):
    summary = stability.run(toy_config(), tmp_path)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["networks"]) == set(KINDS)
    halves = rademacher.two_classes(toy)
    for kind in KINDS:
        found = summary["networks"][kind]
        assert found["train_error"]["mean"] == 0
        assert found["margin"] > 0
        assert found["bound"] >= 1  # on true labels as on random ones
        assert len(found["changes"]) == 2
        for number, change in enumerate(found["changes"]):
            assert change["error_with"] == 0
            assert 0 <= change["loss_change"] <= change["greatest_change"] <= 1
            again = load.load_run(tmp_path / "replaced" / str(number) / f"{kind}-seed0")
            logits = stability._logits(again, halves.train.images[change["example"]][None])
            config = again.config
            label = rademacher_labels(config, halves)[change["example"]]
            assert change["error_without"] == int(logits[0].argmax() != label)
    greatest = [summary["networks"][kind]["greatest_change"] for kind in KINDS]
    assert summary["stability_at_least"] == max(greatest)
    true, random = (summary["networks"][kind]["kernel"]["norm"] for kind in KINDS)
    assert random > true  # the norm does see the labels
    expected = by_h_infinity(halves, tmp_path)
    for kind in KINDS:
        found = summary["networks"][kind]["fine_grained"]
        assert found == pytest.approx(expected[kind], rel=1e-9)
    assert expected["random_labels"]["measure"] > 1.2 * expected["true_labels"]["measure"]
    assert summary["rademacher_at_least"] > 0.8
    printed = capsys.readouterr().out
    assert "mlp on 300 points of two classes, 2 of them replaced" in printed
    assert "Rademacher complexity, at least" in printed
    assert stability.run(toy_config(), tmp_path) == summary


def by_h_infinity(halves, path):
    """The measure and the test error by NumPy's own solver."""
    train, test = (
        split.images.reshape(len(split.labels), -1).astype(float)
        for split in (halves.train, halves.test)
    )
    train, test = (x / np.sqrt((x**2).sum(1, keepdims=True)) for x in (train, test))
    h, across = (
        x @ train.T * (np.pi - np.arccos(np.clip(x @ train.T, -1, 1))) / (2 * np.pi)
        for x in (train, test)
    )
    np.fill_diagonal(h, 0.5)
    found = {}
    for kind in KINDS:
        config = load.load_run(path / "runs" / f"{kind}-seed0").config
        prepared = stability.inputs.prepare(config, halves)
        y = 2.0 * prepared.train.labels - 1
        weights = np.linalg.solve(h, y)
        wrong = ((across @ weights > 0) != prepared.test.labels).mean()
        found[kind] = {"measure": np.sqrt(2 * y @ weights / len(y)), "test_error": wrong}
    return found


@pytest.mark.parametrize("reason", ["the same image", "too many"])
def test_a_table_without_the_measure(reason, from_toy, toy, tmp_path, monkeypatch, caplog):
    if reason == "too many":
        monkeypatch.setattr(stability, "_MOST_EXAMPLES", 299)
        told = "no measure by H∞ of more than 299 examples"
    else:
        images = toy.train.images.copy()
        images[5] = images[9]
        serve(dataclasses.replace(toy, train=toy.train._replace(images=images)), monkeypatch)
        told = "no measure by H∞: examples 5 and 9 are the same image"
    summary = stability.run(toy_config(**ONE_EPOCH), tmp_path)
    assert told in caplog.text
    assert summary["networks"]["true_labels"]["fine_grained"] is None
    assert ("√(2 yᵀ(H∞)⁻¹y / n)", "—", "—") in stability.table(summary)[2]


def rademacher_labels(config, dataset):
    return stability.inputs.prepare(config, dataset).train.labels


ONE_EPOCH = {"epochs": 1, "stop_when_fitted": False, "stability.replacements": 1}


@pytest.fixture(scope="module")
def one_epoch(toy, tmp_path_factory):
    """The directory of a short run."""
    path = tmp_path_factory.mktemp("one_epoch")
    with pytest.MonkeyPatch.context() as patch:
        serve(toy, patch)
        use_devices(patch, 2)
        stability.run(toy_config(**ONE_EPOCH), path)
    return path


def test_logits_are_those_that_were_evaluated(one_epoch, toy):
    left = load.load_run(one_epoch / "runs" / "true_labels-seed0")
    halves = rademacher.two_classes(toy)
    answers = stability._logits(left, halves.test.images).argmax(axis=1)
    assert np.mean(answers == halves.test.labels) == pytest.approx(left.summary["test_accuracy"])


def test_the_same_training_set_changes_nothing(from_toy, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(stability, "replace", lambda dataset, *_: dataset)
    summary = stability.run(toy_config(**ONE_EPOCH), tmp_path)
    assert summary["stability_at_least"] == 0
    assert summary["networks"]["true_labels"]["answers_changed"] == 0


@pytest.mark.slow
def test_a_model_without_a_path_norm(from_toy, tmp_path):
    fields = {
        "stability.replacements": 1,
        "model.name": "small_alexnet",
        "steps": 1,
        "stop_when_fitted": False,
    }
    config = toy_config(**fields)
    summary = stability.run(config, tmp_path)
    assert summary["networks"]["true_labels"]["path_norm"] is None
    assert ("path norm over margin", "—", "—") in stability.table(summary)[2]


def test_several_processes_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="'stability'; it runs in one process, on all its devices"):
        stability.run(toy_config(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_config_is_refused(one_epoch, from_toy):
    config = toy_config(**ONE_EPOCH | {"stability.replacements": 3})
    with pytest.raises(UserError, match=r"another config \(config.stability.replacements 1 → 3\)"):
        stability.run(config, one_epoch)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--config.stability.replacements=0",
            "config.stability.replacements is 0; it must be in [1, 1000]",
        ),
        (
            "--config.stability.nope=0",
            "config.stability.nope is no field; config.stability has replacements",
        ),
        ("--config.experiment=train", "config.experiment is 'train'; it must be one of stability"),
        ("--config.model.depth=0", "config.model.depth is 0; it must be 1 or more"),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "stability.py:digits", arguments, line, tmp_path)
