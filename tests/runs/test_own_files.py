"""A directory that is not ours is refused, and nothing in it is touched."""

import errno
import fcntl
import json
import os
import random
import shutil
from pathlib import Path

import pytest
from etils import epath

from rethink_jax import config as config_lib
from rethink_jax.config import base, fill_in
from rethink_jax.errors import RunFailed, UserError
from rethink_jax.kernels import interpolation
from rethink_jax.runs import files, own_files, run_directory
from rethink_jax.sweeps import sweep
from rethink_jax.theory import (
    capacity,
    certificate,
    double_descent,
    expressivity,
    fine_grained,
    judged,
    memorization,
    minimum_norm,
    pac_bayes,
    rademacher,
    stability,
)
from rethink_jax.training import load, train
from tests.conftest import use_devices

FOREIGN = [
    "thesis.partial",
    "checkpoints/100/model.bin",
    "tensorboard/thesis",
    "thesis.txt",
    "summary.json",
    "run/config.json",
    "lock/key",
    "sweep.json",
]


def content_of(folder):
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(folder).rglob("*"))
        if path.name != "lock" or path.is_dir()
    }


def write(folder, name, text="mine"):
    file = Path(folder, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def resolved():
    return fill_in(base(), 1500, 8)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_directory_of_other_files_is_refused(name, tmp_path):
    write(tmp_path, name)
    before = content_of(tmp_path)
    for begin in (
        lambda path: run_directory.summary_of(path, resolved()),
        lambda path: run_directory.open_run(path, resolved()).__enter__(),
    ):
        with pytest.raises(UserError) as error:
            begin(epath.Path(tmp_path))
        assert str(error.value) == (
            f"{tmp_path} is not empty and holds no run: config.json is missing beside "
            f"{name.split('/')[0]!r}; choose another --workdir"
        )
    assert content_of(tmp_path) == before


def test_what_may_be_there_before_a_run(tmp_path):
    kept = [".DS_Store", ".nfs001/x", "log.txt", "slurm-17.out", "job.err", "train.log"]
    for name in (*kept, "config.json.partial", "products.npz.partial"):
        write(tmp_path, name)
    (tmp_path / "checkpoints").mkdir()
    write(tmp_path, "lock", "process 3 on node since 2026-01-01 00:00:00\n")
    path = epath.Path(tmp_path)
    with run_directory.open_run(path, resolved()):
        run_directory.write_metadata(path, resolved())
    for name in kept:
        assert (tmp_path / name).read_text() == "mine"
    assert not list(tmp_path.glob("*.partial"))


def test_another_programs_lock(tmp_path):
    write(tmp_path, "lock", "thesis")
    with pytest.raises(UserError, match="missing beside 'lock'"):
        own_files.check(epath.Path(tmp_path))
    assert (tmp_path / "lock").read_text() == "thesis"


def test_a_sweep_that_has_lost_its_list(tmp_path):
    path = epath.Path(tmp_path)
    (path / "mlp1-seed0").mkdir()
    run_directory.write_metadata(path / "mlp1-seed0", resolved())
    write(tmp_path, "report/report.json")
    write(tmp_path, "jobs/17_0_log.out")
    own_files.check(path, own_files.SWEEP)
    write(tmp_path, "thesis.txt")
    with pytest.raises(
        UserError, match=r"holds no sweep: sweep.json is missing beside 'thesis.txt'"
    ):
        own_files.check(path, own_files.SWEEP)


def experiments():
    """Each experiment on the digits, which are too many to be trained on in the time of a test."""
    training = config_lib.train("digits", "random_labels")
    training.epochs = 1
    table = config_lib.sweep("digits", "smoke", ())
    table.sweep.runs = (config_lib.sweep_entry("a", {"model.width": 4}),)
    return {
        "train": (train.run, training),
        "evaluate": (train.evaluate, training),
        "sweep": (sweep.run, table),
        "kernel": (interpolation.run, config_lib.experiment("kernel", "digits")),
        "expressivity": (expressivity.run, config_lib.experiment("expressivity", "digits")),
        "rademacher": (rademacher.run, config_lib.experiment("rademacher", "digits")),
        "stability": (stability.run, config_lib.experiment("stability", "digits")),
        "minimum_norm": (minimum_norm.run, config_lib.experiment("minimum_norm", "digits")),
        "memorization": (memorization.run, config_lib.experiment("memorization", "digits")),
        "fine_grained": (fine_grained.run, config_lib.experiment("fine_grained", "digits")),
        "pac_bayes": (pac_bayes.run, config_lib.experiment("pac_bayes", "digits")),
        "certificate": (certificate.run, config_lib.experiment("certificate", "digits")),
        "capacity": (capacity.run, config_lib.experiment("capacity", "digits")),
        "double_descent": (double_descent.run, config_lib.experiment("double_descent", "digits")),
        "measures": (judged.run, config_lib.experiment("measures", "digits")),
    }


OURS = (*own_files.FILES, "checkpoints", "tensorboard", "runs", "replaced", "report", "jobs")


@pytest.mark.parametrize("experiment", experiments())
def test_200_foreign_files(experiment, tmp_path):
    """Random names, some like ours, at any depth: all are there afterwards."""
    rng = random.Random(experiment)
    for number in range(200):
        part = rng.choice([*OURS, "thesis", "100", f"x{number}", "events.out.tfevents.1.me"])
        end = rng.choice(["", ".partial", ".orbax-checkpoint-tmp", ".npz", ".tmp"])
        folder = rng.choice(["", "checkpoints/", "checkpoints/3/", "tensorboard/", "a/b/"])
        name = f"{folder}{part}{end}-{number}" if rng.random() < 0.7 else f"{folder}{number}{end}"
        write(tmp_path, name, str(number))
    before = content_of(tmp_path)
    run, config = experiments()[experiment]
    with pytest.raises(UserError) as error:
        run(config, tmp_path)
    assert "\n" not in str(error.value)
    assert content_of(tmp_path) == before
    assert len([content for content in before.values() if content is not None]) == 200


def test_only_our_files_are_removed_from_a_run(toy, tmp_path):
    config = config_lib.train("toy", "random_labels")
    config.update_from_flattened_dict({"model.name": "mlp", "model.width": 4, "epochs": 1})
    train.run(config, tmp_path, toy)
    foreign = ["thesis.partial", "tensorboard/thesis", "checkpoints/100/a", "notes/x", "old.npz"]
    for name in foreign:
        write(tmp_path, name)
    config.epochs = 2
    config.checkpoint.keep = 1
    assert train.run(config, tmp_path, toy)["epochs"] == 2
    for name in foreign:
        assert (tmp_path / name).read_text() == "mine"
    assert len([f for f in (tmp_path / "tensorboard").iterdir() if f.name != "thesis"]) == 1


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\tb", "a\udcffb"])
def test_names_that_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="no backslash, line break") as error:
        run_directory.path_of(tmp_path / name)
    assert "\n" not in str(error.value)


# A file system without locks, and one that is read-only.


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_no_locks(code, tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = epath.Path(tmp_path) / "run"
    for _ in range(2):
        with run_directory.open_run(path, resolved()):
            run_directory.write_metadata(path, resolved())
        run_directory.check_free(path)
    assert load.load_run(path).config == resolved()
    assert [
        r.getMessage() for r in caplog.records if r.name == "rethink_jax.runs.run_directory"
    ] == [f"{path} cannot be locked on its file system; see that no other process runs in it"] * 2


def test_a_read_only_directory(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    path = epath.Path(tmp_path)
    monkeypatch.setattr(run_directory, "open", refuse, raising=False)
    with (
        pytest.raises(UserError, match="cannot be written: Read-only file system; choose another"),
        run_directory.open_run(path, resolved()),
    ):
        pass


def test_files_are_synced_before_and_after_they_are_renamed(tmp_path, monkeypatch):
    seen, sync = [], os.fsync

    def watched(descriptor):
        seen.append((os.readlink(f"/proc/self/fd/{descriptor}"), (tmp_path / "a.json").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    files.write_json(epath.Path(tmp_path) / "a.json", {})
    assert seen == [(f"{tmp_path}/a.json.partial", False), (str(tmp_path), True)]


# A damaged run.


@pytest.fixture(scope="module")
def runs(toy, tmp_path_factory):
    """A finished run, and the same one stopped on the way, each with its config."""
    path = tmp_path_factory.mktemp("runs")
    config = config_lib.train("toy", "random_labels")
    fields = {"model.name": "mlp", "model.width": 4, "epochs": 4, "checkpoint.every_epochs": 1}
    config.update_from_flattened_dict(fields)
    half = config.copy_and_resolve_references()
    half.epochs = 2
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 2)  # as the tests have
        train.run(config, path / "whole", toy)
        train.run(half, path / "stopped", toy)
    return path, config


def damage(folder, rng):
    """Damages one to three files: random bytes inserted or replacing others, a file cut or gone."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    for file in rng.sample(files, rng.randint(1, 3)):
        content = bytearray(file.read_bytes())
        kind = rng.choice(["gone", "cut", "a bit", "a digit", "random"])
        start = rng.randrange(len(content) + 1)
        if kind == "gone":
            file.unlink()
            continue
        if kind == "cut":
            content = content[:start]
        elif kind == "a bit" and start < len(content):
            content[start] ^= 1 << rng.randrange(8)
        elif kind == "a digit" and (at := [i for i, c in enumerate(content) if chr(c).isdigit()]):
            content[rng.choice(at)] = ord(rng.choice("0123456789"))
        elif kind == "random":
            content[start : start + rng.randrange(30)] = rng.randbytes(rng.randrange(30))
        file.write_bytes(content)


def without_clock(record):
    return {
        name: value
        for name, value in record.items()
        if name not in ("seconds", "images_per_second")
    }


def outcome_of_damage(runs, toy, seed, folder):
    """Returns "resumed", or the line's kind; asserts that nothing else happens."""
    path, config = runs
    rng = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(path / rng.choice(["whole", "stopped"]), folder)
    damage(folder, rng)
    before = content_of(folder)
    refused: Exception | None = None
    try:
        summary = train.run(config, folder, toy)
    except (UserError, RunFailed) as error:
        refused = error
    if refused is not None:
        assert "\n" not in str(refused)
        assert content_of(folder) == before
        return type(refused).__name__
    whole = load.load_run(path / "whole")
    assert without_clock(summary) == without_clock(whole.summary)
    return "equal"


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("trials", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_damaged_runs_resume_or_are_refused(trials, runs, toy, tmp_path):
    outcomes = [outcome_of_damage(runs, toy, seed, tmp_path / "run") for seed in range(trials)]
    counts = {kind: outcomes.count(kind) for kind in sorted(set(outcomes))}
    print(counts)
    assert counts["equal"] > 0


@pytest.mark.parametrize("file", ["summary.json", "metrics.jsonl"])
def test_changed_numbers_of_a_training_run_are_written_again(file, runs, toy, tmp_path):
    path, config = runs
    shutil.copytree(path / "whole", tmp_path / "run")
    text = (tmp_path / "run" / file).read_text()
    changed = text.replace('"test_accuracy": 0.', '"test_accuracy": 0.9', 1)
    assert changed != text
    (tmp_path / "run" / file).write_text(changed)
    whole = load.load_run(path / "whole")
    assert without_clock(train.run(config, tmp_path / "run", toy)) == without_clock(whole.summary)
    assert (tmp_path / "run" / file).read_text() == text


def test_changed_numbers_of_other_experiments_are_refused(tmp_path):
    config = config_lib.experiment("expressivity", "synthetic")
    config.synthetic.points = 20
    summary = expressivity.run(config, tmp_path)
    assert expressivity.run(config, tmp_path) == summary
    text = (tmp_path / "summary.json").read_text()
    (tmp_path / "summary.json").write_text(text.replace('"fitted": 1.0', '"fitted": 0.5', 1))
    before = content_of(tmp_path)
    with pytest.raises(UserError, match=r"does not match its digest in run\.json"):
        expressivity.run(config, tmp_path)
    assert content_of(tmp_path) == before


def test_a_summary_and_its_digest_fit_after_a_kill_between_them(tmp_path, monkeypatch):
    path = epath.Path(tmp_path)
    run_directory.write_metadata(path, resolved())
    files.write_summary(path, {"status": "finished", "n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(
            files, "write_text", lambda *rest: None if "summary" in str(rest[0]) else 1 / 0
        )
        patch.setattr(files, "write_json", lambda file, value: file.write_text(json.dumps(value)))
        for n in (2, 3):
            files.write_summary(path, {"status": "finished", "n": n})
    assert files.read_summary(path) == {"status": "finished", "n": 1}
    files.write_summary(path, {"status": "finished", "n": 4})
    assert files.read_summary(path) == {"status": "finished", "n": 4}


def test_no_checkpoint_that_restores(runs, toy, tmp_path):
    path, config = runs
    shutil.copytree(path / "stopped", tmp_path / "run")
    for file in (tmp_path / "run").rglob("meta/metadata"):
        file.write_text("{")
    before = content_of(tmp_path / "run")
    with pytest.raises(
        RunFailed, match=r"none of the checkpoints in .* is whole .*nothing was changed"
    ):
        train.run(config, tmp_path / "run", toy)
    assert content_of(tmp_path / "run") == before
