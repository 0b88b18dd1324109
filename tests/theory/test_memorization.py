"""The experiment on ensembles: what it leaves, and that nothing but the draws decides it."""

import csv
import json
import operator
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.distributed import preemption
from rethink_jax.errors import Diverged, UserError
from rethink_jax.pipeline import inputs
from rethink_jax.report import contents
from rethink_jax.runs import files
from rethink_jax.runs.resolve import resolve
from rethink_jax.theory import (
    exact_learners,
    member_records,
    memorization,
    scores as score_numbers,
    subsets,
)
from rethink_jax.theory.networks import Trainer
from rethink_jax.training import load, train as train_lib
from tests.conftest import serve, use_devices
from tests.entry_point import environment_of_a_command, make_place, start
from tests.stopping import stop_when_shown, wait_for
from tests.test_bad_input import assert_refused_at_once

WRITTEN = ("members.npz", "influence.npz", "scores.csv", "pairs.csv")
FIELDS = {
    "model.width": 16,
    "epochs": 4,
    "optimizer.learning_rate": 0.05,
    "memorization.members": 8,
    "memorization.at_once": 4,
    "corruption.name": "partially_corrupted_labels",
    "corruption.probability": 0.2,
}


def toy_config(**fields):
    config = config_lib.experiment("memorization", "toy")
    config.update_from_flattened_dict({**FIELDS, **fields})
    return config


def bytes_of(path):
    return {name: (path / name).read_bytes() for name in WRITTEN}


def without_clock(summary):
    return {k: v for k, v in summary.items() if k not in ("seconds", "members_per_minute")}


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The directory of an undisturbed run, on two devices."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        serve(toy, patch)
        use_devices(patch, 2)
        memorization.run(toy_config(), path)
    return path


def records_of(path, toy):
    return member_records.restore(path / "members.npz", len(toy.train.labels), len(toy.test.labels))


def test_what_a_run_leaves(whole, toy):
    assert {file.name for file in whole.iterdir()} == {
        *(*WRITTEN, "config.json", "run.json", "summary.json", "seconds.json", "lock")
    }
    summary = json.loads((whole / "summary.json").read_text())
    assert summary == files.read_summary(files.epath.Path(whole))
    prepared = inputs.prepare(resolve_toy(toy), toy)
    records = records_of(whole, toy)
    assert records.member.tolist() == [*range(8)]
    assert records.is_member.sum(axis=1).tolist() == [210] * 8
    np.testing.assert_array_equal(records.is_member, subsets.membership(0, range(8), 300, 210))
    scores = subsets.memorization(records.is_member, records.train_correct)
    with (whole / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == [*range(300)]
    assert [int(row["label"]) for row in rows] == prepared.train.labels.tolist()
    assert [int(row["true_label"]) for row in rows] == toy.train.labels.tolist()
    wrong = np.array([row["label"] != row["true_label"] for row in rows])
    np.testing.assert_array_equal(wrong, prepared.train.labels != toy.train.labels)
    written = [float(row["memorization"] or "nan") for row in rows]
    np.testing.assert_allclose(written, scores, atol=1e-6)
    assert summary["wrong_labels"] == wrong.sum() > 30
    assert summary["memorization"]["mean_wrong"] == pytest.approx(np.nanmean(scores[wrong]))
    assert summary["memorization"]["mean"] > 0.4
    assert summary["accuracy"]["test"] == records.test_correct.mean()
    assert sum(summary["histogram"]["right"]) == np.isfinite(scores[~wrong]).sum()


def resolve_toy(toy, **fields):
    with pytest.MonkeyPatch.context() as patch:
        serve(toy, patch)
        return resolve(toy_config(**fields))[0]


def test_pairs_are_influential(whole, toy):
    records, labels = records_of(whole, toy), inputs.prepare(resolve_toy(toy), toy).train.labels
    scores = subsets.memorization(records.is_member, records.train_correct)
    matrix = subsets.influence(records.is_member, records.test_correct)
    with np.errstate(invalid="ignore"):
        is_pair = (scores >= 0.25)[:, None] & (matrix >= 0.15)
    is_pair &= labels[:, None] == toy.test.labels[None]
    with (whole / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(int(row["train_id"]), int(row["test_id"])) for row in rows} == {
        *map(tuple, np.argwhere(is_pair).tolist())
    }
    assert len(rows) == is_pair.sum() > 0
    for row in rows:
        i, j = int(row["train_id"]), int(row["test_id"])
        written = float(row["memorization"]), float(row["influence"])
        assert written == pytest.approx((scores[i], matrix[i, j]), abs=1e-6)


def test_a_finished_run_prints_its_results_again(whole, from_toy, capsys):
    before = bytes_of(whole)
    summary = memorization.run(toy_config(), whole)
    assert summary == json.loads((whole / "summary.json").read_text())
    assert bytes_of(whole) == before
    assert "8 members (mlp) on subsets of 300 examples" in capsys.readouterr().out


def test_members_are_independent_of_devices_and_of_how_many_train_at_once(
    whole, from_toy, toy, devices, tmp_path
):
    memorization.run(toy_config(**{"memorization.at_once": 8}), tmp_path)
    expected, found = records_of(whole, toy), records_of(tmp_path, toy)
    np.testing.assert_array_equal(found.is_member, expected.is_member)
    for left, right in ((found[3], expected[3]), (found[4], expected[4])):
        assert (left != right).mean() < 0.002  # examples between two classes


def test_members_are_independent_of_their_number(whole, from_toy, toy, tmp_path):
    memorization.run(toy_config(**{"memorization.members": 4}), tmp_path)
    expected, found = records_of(whole, toy), records_of(tmp_path, toy)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right[:4])


@pytest.mark.parametrize(("count", "members"), [(2, 0), (9, 4), (14, 8)])
def test_stopped_and_resumed(count, members, whole, from_toy, toy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_when_shown(patch, count)
        line = "SIGTERM: stopped; finished members are saved in"
        with pytest.raises(preemption.Stopped, match=line):
            memorization.run(toy_config(), tmp_path)
    assert len(records_of(tmp_path, toy).member) == members
    assert not (tmp_path / "summary.json").exists()
    summary = memorization.run(toy_config(), tmp_path)
    assert bytes_of(tmp_path) == bytes_of(whole)
    undisturbed = json.loads((whole / "summary.json").read_text())
    assert without_clock(summary) == without_clock(undisturbed)


def test_removal_trains_fresh_networks(tmp_path, monkeypatch):
    """They are numbered after the members; a run that is stopped among them resumes there."""
    config = config_lib.experiment("memorization", "digits")
    fields = {"members": 20, "removal_networks": 3, "at_once": 2}
    config.update_from_flattened_dict({f"memorization.{name}": x for name, x in fields.items()})
    config.data.examples, config.optimizer.learning_rate = 256, 0.1
    with monkeypatch.context() as patch:
        stop_when_shown(patch, 1, "without others")
        with pytest.raises(preemption.Stopped):
            memorization.run(config, tmp_path)
    with np.load(tmp_path / "removal.npz") as saved:
        assert {*saved} == {"all", "without_memorized"}
        stopped = {name: saved[name] for name in saved}
    found = memorization.run(config, tmp_path)["removal"]
    with np.load(tmp_path / "removal.npz") as saved:
        assert {name: len(saved[name]) for name in saved} == dict.fromkeys(
            ("all", "without_memorized", "without_others"), 3
        )
        for name, correct in stopped.items():
            np.testing.assert_array_equal(saved[name], correct)
    resolved, info = resolve(config)
    dataset = data.load(resolved.data)
    trainer = Trainer(resolved, info, inputs.prepare(resolved, dataset))
    seeds = subsets.member_seeds(0, [20, 21, 22])
    answers = trainer.answer(np.ones((3, 256), bool), seeds, lambda part: None)[1]
    assert (stopped["all"] == (answers == dataset.test.labels)).mean() > 0.998
    with (tmp_path / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert found["removed"] == len({row["train_id"] for row in rows})
    assert found["affected"] == len({row["test_id"] for row in rows})
    costs = (
        found["cost"][name]["affected"]["mean"] for name in ("without_memorized", "without_others")
    )
    assert operator.gt(*costs)


def test_a_damaged_file_of_members_is_made_again(whole, from_toy, tmp_path, caplog):
    memorization.run(toy_config(**{"memorization.members": 4}), tmp_path)
    (tmp_path / "summary.json").unlink()
    expected = (tmp_path / "members.npz").read_bytes()
    for damaged in (expected[:200], b"", expected[:-700] + b"x" * 700):
        (tmp_path / "members.npz").write_bytes(damaged)
        (tmp_path / "summary.json").unlink(missing_ok=True)
        memorization.run(toy_config(**{"memorization.members": 4}), tmp_path)
        assert (tmp_path / "members.npz").read_bytes() == expected


def test_a_member_is_a_run_on_its_subset(toy, tmp_path):
    """A member's answers are those of a training run whose data set is the subset."""
    config = resolve_toy(toy, **{"corruption.name": "true_labels", "corruption.probability": 1.0})
    is_member = subsets.membership(0, [0, 1], 300, 128)
    seeds = np.array([5, 6], np.uint32)
    prepared = inputs.prepare(config, toy)
    trainer = Trainer(config, toy.info, prepared)
    answers = trainer.answer(is_member, seeds, lambda fraction: None)[1]
    for row, seed, own in zip(is_member, seeds.tolist(), answers, strict=True):
        subset = data.from_arrays((toy.train.images[row], toy.train.labels[row]), toy.test, "half")
        alone = config_lib.train("half", "true_labels")
        alone.update_from_flattened_dict(
            {name: FIELDS[name] for name in ("model.width", "epochs", "optimizer.learning_rate")}
            | {"model.name": "mlp", "seed": seed, "stop_when_fitted": False}
        )
        train_lib.run(alone, tmp_path / str(seed), subset)
        summary = load.load_run(tmp_path / str(seed)).summary
        accuracy = np.mean(own == toy.test.labels)
        assert accuracy == pytest.approx(summary["test_accuracy"], abs=1 / 60 + 1e-9)


def test_several_fractions(from_toy, toy, tmp_path):
    fields = {"memorization.fractions": (0.3, 0.6), "memorization.members": 3}
    learner = {"memorization.learner": "nearest_neighbour"}
    summary = memorization.run(toy_config(**fields, **learner), tmp_path)
    records = records_of(tmp_path, toy)
    assert records.fraction.tolist() == [0.3] * 3 + [0.6] * 3
    assert records.member.tolist() == [0, 2, 4, 1, 3, 5]
    assert records.is_member.sum(axis=1).tolist() == [90] * 3 + [180] * 3
    assert summary["fractions"] == [0.3, 0.6]
    consistency = subsets.c_scores(records.is_member, records.train_correct, records.fraction)
    assert summary["c_score"]["mean"] == pytest.approx(np.nanmean(consistency))


@pytest.mark.parametrize("learner", ["nearest_neighbour", "kernel_ridge"])
def test_learners_in_closed_form(learner, from_toy, toy, tmp_path, capsys):
    fields = {"memorization.learner": learner, "memorization.members": 30}
    summary = memorization.run(toy_config(**fields), tmp_path)
    assert summary["exact"]["rank_correlation"] > 0.6
    assert summary["memorization"]["mean_wrong"] > 0.7
    assert summary["c_score"]["auc"] > 0.9
    prepared = inputs.prepare(resolve_toy(toy), toy)
    records = records_of(tmp_path, toy)
    scores = subsets.memorization(records.is_member, records.train_correct)
    if learner == "nearest_neighbour":
        exact = exact_learners.nearest_neighbour_memorization(
            prepared.train.images, prepared.train.labels, 210
        )
    else:
        matrix = exact_learners.gaussian_matrices(prepared.train, prepared.test).train
        exact = exact_learners.leave_one_out(matrix, prepared.train.labels)
    difference = np.mean(np.square(scores - exact))
    assert summary["exact"]["mean_squared_difference"] == pytest.approx(difference)
    assert "memorization in closed form, mean" in capsys.readouterr().out


def test_the_report(whole, tmp_path):
    (tmp_path / "toy").symlink_to(whole)
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    title, _, rows = score_numbers.table(json.loads((whole / "summary.json").read_text()))
    assert f"## {title}" in page
    for row in rows:
        assert all(cell in page for cell in row)
    assert (tmp_path / "report" / "toy-memorization.svg").exists()


def test_a_loss_that_is_not_finite(from_toy, tmp_path):
    with pytest.raises(
        Diverged, match=r"4 of 4 networks have a loss that is not finite; lower con"
    ):
        memorization.run(toy_config(**{"optimizer.learning_rate": 1e30}), tmp_path)
    assert not (tmp_path / "members.npz").exists()


def test_other_members_are_refused(whole, from_toy):
    for field, value in (("memorization.members", 9), ("epochs", 5)):
        with pytest.raises(UserError, match=rf"another config \(config.{field} \d+ → {value}\)"):
            memorization.run(toy_config(**{field: value}), whole)


def test_several_processes_are_refused(monkeypatch, from_toy, tmp_path):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="'memorization'; it runs in one process, on all its dev"):
        memorization.run(toy_config(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "shown", "allowed"),
    [
        ("memorization.learner=svm", "'svm'", "one of mlp, nearest_neighbour, kernel_ridge"),
        ("memorization.members=1", "1", "in [2, 1000000]"),
        ("memorization.at_once=0", "0", "in [1, 10000]"),
        ("memorization.fractions=()", "()", "one or more different numbers in (0, 1]"),
        ("memorization.fractions=(1,)", "(1,)", "one or more different numbers in (0, 1]"),
        ("memorization.fractions=(.5,.5)", "(0.5, 0.5)", "one or more different numbers in …"),
        (
            "memorization.fractions=(.001,)",
            "(0.001,)",
            "1, or such that subsets of 256 examples have 1 to 255; they have [0]",
        ),
        ("model.name=small_alexnet", "'small_alexnet'", "mlp; convolutions of several members …"),
        ("stop_at_loss=0.1", "0.1", "None or left out for memorization, which does no such thing"),
        ("stop_when_fitted=true", "True", "False or left out for memorization, which does …"),
        ("checkpoint.every_epochs=3", "3", "10 or left out for memorization, which does no …"),
        ("evaluate.examples=9", "9", "None or left out for memorization, which does no such …"),
        ("data.stream=true", "True", "False for memorization, whose data are in memory"),
        ("corruption.name=true_labels", "0.1", "1.0 or left out for true_labels"),
        ("experiment=train", "'train'", "one of memorization"),
        ("epochs=0", "0", "in [1, 2**31)"),
    ],
)
def test_one_line_and_nothing_written(field, shown, allowed, in_process, tmp_path):
    name = "corruption.probability" if field.startswith("corr") else field.partition("=")[0]
    line = f"config.{name} is {shown}; it must be {allowed}"
    config = "memorization.py:smoke"
    assert_refused_at_once(in_process, config, f"--config.{field}", line, tmp_path)


def test_too_many_examples_for_a_matrix(from_toy, tmp_path, monkeypatch):
    monkeypatch.setattr(exact_learners, "MOST_EXAMPLES", 299)
    with pytest.raises(UserError, match=r"config.data.examples is 300; it must be at most 299"):
        memorization.run(toy_config(**{"memorization.learner": "kernel_ridge"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_members_that_see_all_examples(from_toy, toy, tmp_path):
    """Nothing can be said of memorization; how often they are wrong on each example can."""
    fields = {"memorization.fractions": (1.0,), "epochs": 1}
    summary = memorization.run(toy_config(**fields), tmp_path)
    records = records_of(tmp_path, toy)
    assert records.is_member.all()
    wrong = [1 - column.mean() for column in records.train_correct.T]
    found = summary["spread"]
    assert found["mean"] == pytest.approx(np.mean(wrong))
    assert found["deviation"] == pytest.approx(np.std(wrong))
    assert found["never_wrong"] == np.mean(np.array(wrong) == 0)
    assert found["always_wrong"] == np.mean(np.array(wrong) == 1)
    assert summary["memorization"]["mean"] is summary["accuracy"]["held_out"] is None
    assert summary["pairs"]["count"] == 0
    shown = dict(row for row in score_numbers.table(summary)[2])
    assert "standard deviation over examples" in shown
    assert "memorization, mean" not in shown


@pytest.mark.ci
def test_killed_stopped_and_resumed_processes(tmp_path):
    here = make_place(tmp_path / "here")
    fields = {"memorization.members": 24, "memorization.at_once": 4, "epochs": 8}
    arguments = ["--config=configs/memorization.py:smoke"]
    arguments += [f"--config.{name}={value}" for name, value in fields.items()]
    assert start([*arguments, "--workdir=whole"], here).code == 0
    members, codes = here / "stopped" / "members.npz", []
    for number, size in ((signal.SIGKILL, 0), (signal.SIGTERM, 1)):
        before = members.stat().st_size if size else 0
        process = subprocess.Popen(
            [sys.executable, "-m", "rethink_jax.main", *arguments, "--workdir=stopped"],
            cwd=here,
            env=environment_of_a_command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_for(process, lambda own=before: members.exists() and members.stat().st_size > own)
        process.send_signal(number)
        process.communicate()
        codes.append(process.returncode)
    assert codes == [-signal.SIGKILL, preemption.EXIT_CODE]
    assert not (here / "stopped" / "summary.json").exists()
    assert start([*arguments, "--workdir=stopped"], here).code == 0
    assert bytes_of(here / "stopped") == bytes_of(here / "whole")


@pytest.mark.ci
@pytest.mark.parametrize("file", ["memorization", "cscores", "easy_examples"])
def test_the_configs(file, entry_point, tmp_path):
    here = make_place(tmp_path / "here")
    outcome = entry_point.start(
        [f"--config=configs/{file}.py:smoke", "--config.epochs=1", "--workdir=run"], here
    )
    assert outcome.code == 0, outcome.stderr
    assert "on subsets of 256 examples" in outcome.stdout
