"""Several sweeps in one directory, runs in a sweep's folder, and runs that end in an unexpected way."""

import contextlib
import fcntl
import json
import subprocess
import sys
import threading

import pytest

from rethink_jax import config as config_lib
from rethink_jax.config import sweep_entry
from rethink_jax.distributed import processes
from rethink_jax.errors import Diverged, InUse, RunFailed, UserError
from rethink_jax.sweeps import sweep
from rethink_jax.theory import stability
from rethink_jax.training import train
from tests.entry_point import make_place
from tests.sweeps.test_sweep import RANDOM, TRUE, statuses, sweep_config
from tests.test_bad_input import assert_refused, content

OTHERS = tuple(sweep_entry(f"other{i}", {"model.depth": 2}) for i in range(3))


@contextlib.contextmanager
def held(path):
    """Has another process hold a run's directory."""
    path.mkdir(parents=True, exist_ok=True)
    with open(path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 1 on another machine\n")
        file.flush()
        yield


def only(config, pattern):
    config.sweep.only = pattern
    return config


def test_two_sweeps_in_one_directory_keep_each_others_rows(toy, tmp_path, monkeypatch, stubbed):
    """The second one begins and ends while the first one is at its first run."""
    inner, run = [], train.run

    def interrupted(config, path, *rest, **options):
        if not inner:
            inner.append(path)
            sweep.run(only(sweep_config(TRUE, RANDOM, *OTHERS), "other*"), tmp_path, toy)
        return run(config, path, *rest, **options)

    monkeypatch.setattr(train, "run", interrupted)
    result = sweep.run(only(sweep_config(TRUE, RANDOM, *OTHERS), "true,random"), tmp_path, toy)
    names = ["true", "random", "other0", "other1", "other2"]
    assert statuses(tmp_path) == {f"{name}-seed0": "finished" for name in names}
    assert [entry["name"] for entry in result["runs"]] == names


def test_many_sweeps_at_once_lose_no_row(toy, tmp_path, stubbed):
    """As threads, each of which opens the lock for itself as a process does."""
    runs = [sweep_entry(f"run{i}", {}) for i in range(8)]
    config = sweep_config(*runs)
    ledgers = []
    for i in range(8):
        planned = sweep.plan(only(config, f"run{i}"), tmp_path, toy)
        ledgers.append(
            (sweep.SweepManifest(tmp_path, "toys", "full", planned, lambda config: toy), planned[0])
        )

    def work(manifest, run):
        for _ in range(5):
            manifest.end({run.path: sweep.RunOutcome("died")})

    threads = [threading.Thread(target=work, args=pair) for pair in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses(tmp_path) == {f"run{i}-seed0": "failed" for i in range(8)}


@pytest.mark.slow
def test_two_processes_in_one_directory(tmp_path):
    here = make_place(tmp_path / "here")
    command = [sys.executable, "-m", "rethink_jax.main", "--config=configs/table1.py:smoke"]
    command += ["--workdir=table1", "--config.epochs=1"]
    running = [
        subprocess.Popen([*command, f"--config.sweep.only={rows}"], cwd=here)
        for rows in ("mlp1*", "mlp3*")
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert len(statuses(here / "table1")) == 6
    assert set(statuses(here / "table1").values()) == {"finished"}


def test_a_run_that_another_process_has_open_is_left_to_it(toy, tmp_path, stubbed, capsys):
    stubbed.errors["true-seed0"] = InUse("true-seed0 is in use by process 1 on another machine")
    with held(tmp_path / "true-seed0"):
        told = r"^1 of 2 runs are not done: true-seed0 \(running elsewhere\); run the same command"
        with pytest.raises(RunFailed, match=told):
            sweep.run(sweep_config(), tmp_path, toy)
        assert statuses(tmp_path) == {"true-seed0": "not run yet", "random-seed0": "finished"}
    assert "true, seed 0: running elsewhere: true-seed0 is in use by" in capsys.readouterr().out
    stubbed.errors.clear()
    sweep.run(sweep_config(), tmp_path, toy)
    assert set(statuses(tmp_path).values()) == {"finished"}


def test_a_real_run_that_is_in_use(toy, tmp_path):
    """The lock is the run's own."""
    with held(tmp_path / "true-seed0"), pytest.raises(RunFailed, match="running elsewhere"):
        sweep.run(only(sweep_config(epochs=1), "true"), tmp_path, toy)
    assert statuses(tmp_path) == {"true-seed0": "not run yet"}


# Ends that nobody expected.


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "MemoryError"),
        (RuntimeError("a worker\nprocess died"), "RuntimeError: a worker process died"),
        (ValueError("x" * 2000), "ValueError: xxx"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (UserError("the image 3 does not decode"), "the image 3 does not decode"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_ends_a_run_the_rest_is_run(error, line, toy, tmp_path, stubbed, capsys):
    stubbed.errors["true-seed0"] = error
    with pytest.raises(RunFailed, match=r"^1 of 2 runs are not done: true-seed0; run the same"):
        sweep.run(sweep_config(), tmp_path, toy)
    assert statuses(tmp_path) == {"true-seed0": "failed", "random-seed0": "finished"}
    printed = capsys.readouterr().out
    assert f"true, seed 0: failed: {line}" in printed
    assert "x" * 600 not in printed.replace("\n", "")


def test_data_that_do_not_load_are_a_failure_of_their_run(toy, tmp_path, monkeypatch, stubbed):
    """The two runs have other data."""
    monkeypatch.setattr(sweep.data, "describe", lambda config: toy.info)

    def load(config):
        if config.examples == 7:
            raise MemoryError
        return toy

    monkeypatch.setattr(sweep.data, "load", load)
    config = sweep_config(sweep_entry("few", {"data.examples": 7}), RANDOM)
    with pytest.raises(RunFailed, match="few-seed0"):
        sweep.run(config, tmp_path)
    assert statuses(tmp_path) == {"few-seed0": "failed", "random-seed0": "finished"}


def test_in_several_processes_what_the_others_wait_for_ends_all(tmp_path, monkeypatch, stubbed):
    stubbed.errors[tmp_path.name] = ValueError("x")
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(ValueError, match="x"):
        sweep._attempt(sweep_config(), tmp_path)


def test_stability_goes_on_with_the_other_examples(toy, tmp_path, monkeypatch, from_toy):
    tried = []

    def train_both(settings, path, dataset, seeds):
        tried.append(path.name)
        if path.name == "0":
            raise RunFailed("1 of 2 runs are not done: random_labels-seed0; again")
        return []

    monkeypatch.setattr(stability, "train_both", train_both)
    config = config_lib.experiment("stability", "toy")
    config.stability.replacements = 3
    with pytest.raises(RunFailed, match=r"^1 of 4 sweeps .*: 1 of 2 runs are not done"):
        stability.run(config, tmp_path / "run")
    assert tried == ["runs", "0", "1", "2"]


# Folders within folders.


def test_no_run_in_a_sweeps_folder_but_the_sweeps(toy, tmp_path, stubbed, monkeypatch):
    sweep.run(sweep_config(), tmp_path, toy)
    monkeypatch.undo()
    config = config_lib.train("toy", "true_labels")
    config.epochs = 1
    before = content(tmp_path)
    for path, told in (
        (tmp_path, f"{tmp_path} holds a sweep and no run"),
        (tmp_path / "mine", f"{tmp_path / 'mine'} lies in the folder of a sweep"),
        (tmp_path / "mlp1-seed0", f"{tmp_path / 'mlp1-seed0'} lies in the folder of a sweep"),
    ):
        with pytest.raises(UserError, match=f"^{told}.*; choose another --workdir$"):
            train.run(config, path, toy)
    with pytest.raises(UserError, match="holds a run of another config"):
        train.run(config, tmp_path / "true-seed0", toy)
    assert content(tmp_path) == before


def test_a_sweeps_run_can_be_continued_by_itself(toy, tmp_path):
    config = only(sweep_config(epochs=1), "true")
    sweep.run(config, tmp_path, toy)
    alone = sweep.plan(config, tmp_path, toy)[0].config
    alone.epochs = 2
    assert train.run(alone, tmp_path / "true-seed0", toy)["epochs"] == 2
    sweep.run(config, tmp_path, toy)  # is done


def test_no_sweep_in_a_runs_folder(toy, tmp_path):
    config = config_lib.train("toy", "true_labels")
    config.update_from_flattened_dict({"model.name": "mlp", "model.width": 8, "epochs": 1})
    train.run(config, tmp_path / "run", toy)
    before = content(tmp_path)
    for path in (tmp_path / "run", tmp_path / "run" / "sweep"):
        with pytest.raises(UserError, match=r"choose another --workdir$"):
            sweep.run(sweep_config(), path, toy)
    sweep.run(only(sweep_config(epochs=1), "true"), tmp_path / "sweep", toy)
    with pytest.raises(UserError, match="lies in the folder of a sweep"):
        sweep.run(sweep_config(), tmp_path / "sweep" / "random-seed0", toy)
    assert {
        name: b for name, b in content(tmp_path).items() if not name.startswith("sweep")
    } == before


KINDS = {
    "train": "configs/true_labels.py:digits",
    "kernel": "configs/kernel_mnist.py:digits",
    "expressivity": "configs/expressivity.py:digits",
    "minimum_norm": "configs/minimum_norm.py:digits",
    "fine_grained": "configs/fine_grained.py:smoke",
    "pac_bayes": "configs/pac_bayes.py:smoke",
    "certificate": "configs/certificate.py:smoke",
    "capacity": "configs/capacity.py:smoke",
    "double_descent": "configs/double_descent.py:smoke",
    "measures": "configs/measures.py:smoke",
    "rademacher": "configs/rademacher.py:digits",
    "stability": "configs/stability.py:digits",
    "memorization": "configs/memorization.py:smoke",
    "sweep": "configs/table1.py:smoke",
}


@pytest.mark.parametrize("file", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("place", ["table1", "table1/mine", "table1/mlp1-seed0"])
def test_every_experiment_keeps_out_of_a_sweeps_folder(file, place, in_process, tmp_path):
    here = make_place(tmp_path / "here")
    (here / "table1").mkdir()
    entry = {"name": "mlp1", "seed": 0, "directory": "mlp1-seed0", "status": "not run yet"}
    entry |= {"expect_divergence": False, "diverged": False}
    listed = {"name": "another", "size": "full", "runs": [entry]}
    (here / "table1" / "sweep.json").write_text(json.dumps(listed))
    before = content(here)
    outcome = in_process.start([f"--config={file}", f"--workdir={place}"], here)
    assert_refused(outcome, f"{here / place} …")
    assert content(here) == before


def test_a_cut_sweep_json_is_refused_and_kept(toy, tmp_path, stubbed):
    sweep.run(sweep_config(), tmp_path, toy)
    file = tmp_path / "sweep.json"
    file.write_text(file.read_text()[:40])
    before = content(tmp_path)
    with pytest.raises(UserError, match="is damaged"):
        sweep.run(sweep_config(), tmp_path, toy)
    assert content(tmp_path) == before


def test_what_a_process_raises_comes_to_the_others_as_it_is(monkeypatch):
    sent = []
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr(processes, "is_primary", lambda: True)
    monkeypatch.setattr(
        processes, "_broadcast_bytes", lambda content: sent.append(content) or content
    )
    for kind in (UserError, InUse, RunFailed, Diverged):

        def fail(kind=kind):
            raise kind("a line")

        with pytest.raises(kind, match=r"^a line$") as error:
            processes.on_primary(fail)
        assert error.type is kind
