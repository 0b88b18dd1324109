import contextlib
import itertools
import json
import os
import signal
import time
from pathlib import Path

import pytest
from etils import epath
from submitit.slurm import slurm

from rethink_jax import config as config_lib, data
from rethink_jax.config import sweep_entry
from rethink_jax.distributed import parallel, preemption
from rethink_jax.errors import RunFailed, UserError
from rethink_jax.runs import display
from rethink_jax.sweeps import launchers, sweep
from rethink_jax.sweeps.manifest import RunOutcome
from rethink_jax.training import load, train
from tests.entry_point import make_place
from tests.test_bad_input import assert_refused, content, mine

TRUE = sweep_entry("true", {})
RANDOM = sweep_entry("random", {"corruption.name": "random_labels"})
# Diverges in its first step: the MLP's loss is then infinite or no number.
WILD = {"optimizer.learning_rate": 1e30}


def sweep_config(*runs, **fields):
    shared = {"model.name": "mlp", "model.width": 16, "epochs": 2, **fields}
    config = config_lib.sweep("toys", "toy", runs or (TRUE, RANDOM), shared)
    config.sweep.together = "never"
    return config


def read(path):
    return json.loads((path / "sweep.json").read_text())


def statuses(path):
    return {entry["directory"]: entry["status"] for entry in read(path)["runs"]}


@pytest.fixture
def trained(monkeypatch):
    """The names of the directories that `train.run` is called for."""
    calls, run = [], train.run

    def counting(config, path, *rest, **options):
        calls.append(path.name)
        return run(config, path, *rest, **options)

    monkeypatch.setattr(train, "run", counting)
    return calls


def test_runs_every_run_in_a_directory_of_its_own(toy, tmp_path, capsys):
    result = sweep.run(sweep_config(), tmp_path, toy)
    assert result == read(tmp_path)
    assert result == {
        "name": "toys",
        "size": "full",
        "runs": [
            {
                "name": name,
                "seed": 0,
                "directory": f"{name}-seed0",
                "expect_divergence": False,
                "status": "finished",
                "diverged": False,
            }
            for name in ("true", "random")
        ],
    }
    run = load.load_run(tmp_path / "random-seed0")
    assert run.config.experiment == "train"
    assert "sweep" not in run.config
    assert run.config.corruption.name == "random_labels"
    assert run.summary["epochs"] == 2
    printed = capsys.readouterr().out
    assert "run 1 of 2: true, seed 0\n" in printed
    assert "run 2 of 2: random, seed 0  about 0:00:" in printed
    train_accuracy = f"{run.summary['train_accuracy']:.2%}"
    assert f"random, seed 0: finished, train {train_accuracy}" in printed
    row = [line for line in printed.splitlines() if line.startswith("│ random")]
    assert [cell.strip() for cell in row[0].split("│")][1:5] == [
        *("random", "0", "finished", train_accuracy)
    ]
    assert "chance" not in printed  # the runs leave their results to the sweep


def test_only_some_of_the_runs(toy, tmp_path, stubbed, trained, capsys):
    config = sweep_config(TRUE, RANDOM, sweep_entry("random-wide", {"model.depth": 2}))
    config.sweep.only = "true"
    sweep.run(config, tmp_path, toy)
    assert trained == ["true-seed0"]
    config.sweep.only = "*-wide,tr?e"
    result = sweep.run(config, tmp_path, toy)
    assert trained == ["true-seed0", "random-wide-seed0"]
    assert list(statuses(tmp_path)) == ["true-seed0", "random-wide-seed0"]
    config.sweep.only = "random"
    result = sweep.run(config, tmp_path, toy)
    assert [entry["directory"] for entry in result["runs"]] == [
        *("random-seed0", "true-seed0", "random-wide-seed0")
    ]


@pytest.mark.parametrize("only", ["", "wide", "true,", "TRUE", "true,*-x"])
def test_a_choice_of_no_run_is_refused(only, toy, tmp_path):
    config = sweep_config()
    config.sweep.only = only
    with pytest.raises(
        UserError, match=r"config.sweep.only is '.*'; it must be a name or a pattern"
    ):
        sweep.run(config, tmp_path / "sweep", toy)
    assert not (tmp_path / "sweep").exists()


def test_a_run_is_what_the_entry_point_makes_of_its_config(toy, tmp_path):
    sweep.run(sweep_config(RANDOM), tmp_path / "sweep", toy)
    config = config_lib.train("toy", "random_labels")
    config.update_from_flattened_dict({"model.name": "mlp", "model.width": 16, "epochs": 2})
    train.run(config, tmp_path / "alone", toy)
    alone, within = (load.load_run(tmp_path / where) for where in ("alone", "sweep/random-seed0"))
    assert alone.config == within.config
    assert alone.summary["train_loss"] == within.summary["train_loss"]


def test_skips_what_is_finished(toy, tmp_path, stubbed, trained, capsys):
    sweep.run(sweep_config(TRUE), tmp_path, toy)
    result = sweep.run(sweep_config(), tmp_path, toy)
    assert trained == ["true-seed0", "random-seed0"]
    assert [entry["status"] for entry in result["runs"]] == ["finished", "finished"]
    printed = capsys.readouterr().out
    assert "1 of 2 runs are done already" in printed
    assert "run 2 of 2: random" in printed
    assert sweep.run(sweep_config(), tmp_path, toy) == result
    assert len(trained) == 2


def test_more_epochs_go_on_with_what_is_finished(toy, tmp_path, trained):
    sweep.run(sweep_config(), tmp_path, toy)
    sweep.run(sweep_config(epochs=3), tmp_path, toy)
    assert trained == 2 * ["true-seed0", "random-seed0"]
    assert load.load_run(tmp_path / "true-seed0").summary["epochs"] == 3


def test_stopped_by_a_signal_the_same_command_goes_on(toy, tmp_path, monkeypatch, trained):
    config = sweep_config(TRUE, RANDOM, sweep_entry("last", {"model.depth": 2}))
    sweep.run(config, tmp_path / "whole", toy)
    shard_ids, calls = parallel.shard_ids, itertools.count()
    steps_and_evaluations = 6 + 4
    with monkeypatch.context() as patch:

        def signalling(ids):
            if next(calls) == steps_and_evaluations + 2:  # in the second run
                os.kill(os.getpid(), signal.SIGTERM)
            return shard_ids(ids)

        patch.setattr(parallel, "shard_ids", signalling)
        with pytest.raises(preemption.Stopped, match=r"SIGTERM: stopped; step \d is saved in"):
            sweep.run(config, tmp_path / "parts", toy)
    assert statuses(tmp_path / "parts") == {
        "true-seed0": "finished",
        "random-seed0": "stopped",
        "last-seed0": "not run yet",
    }
    trained.clear()
    sweep.run(config, tmp_path / "parts", toy)
    assert trained == ["random-seed0", "last-seed0"]
    for name in statuses(tmp_path / "parts"):
        whole, parts = (load.load_run(tmp_path / half / name) for half in ("whole", "parts"))
        assert whole.summary["train_loss"] == parts.summary["train_loss"]


def test_a_signal_between_two_runs(toy, tmp_path, stubbed, monkeypatch):
    end = display.SweepDisplay.end

    def signalling(*args):
        end(*args)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(display.SweepDisplay, "end", signalling)
    with pytest.raises(preemption.Stopped, match="SIGTERM: stopped; "):
        sweep.run(sweep_config(), tmp_path, toy)
    assert statuses(tmp_path) == {"true-seed0": "finished", "random-seed0": "not run yet"}


def test_a_failure_does_not_stop_the_rest(toy, tmp_path, trained, capsys):
    config = sweep_config(sweep_entry("wild", WILD), RANDOM)
    with pytest.raises(RunFailed, match=r"^1 of 2 runs are not done: wild-seed0; run the same"):
        sweep.run(config, tmp_path, toy)
    assert statuses(tmp_path) == {"wild-seed0": "failed", "random-seed0": "finished"}
    assert "wild, seed 0: diverged: the loss is " in capsys.readouterr().out
    with pytest.raises(RunFailed, match="wild-seed0"):  # it was not expected, and is tried again
        sweep.run(config, tmp_path, toy)
    assert trained == ["wild-seed0", "random-seed0", "wild-seed0"]


def test_a_full_disk_is_no_divergence(toy, tmp_path, monkeypatch, trained):
    config = sweep_config(sweep_entry("true", {}, expect_divergence=True))
    with monkeypatch.context() as patch:

        def full(*args):
            raise OSError(28, "No space left on device", "metrics.jsonl")

        patch.setattr("rethink_jax.runs.writers.MetricsWriter.write", full)
        with pytest.raises(RunFailed, match="1 of 1 runs are not done"):
            sweep.run(config, tmp_path, toy)
    assert statuses(tmp_path) == {"true-seed0": "failed"}
    sweep.run(config, tmp_path, toy)
    assert trained == 2 * ["true-seed0"]
    assert statuses(tmp_path) == {"true-seed0": "finished"}


def test_an_expected_divergence_is_a_result(toy, tmp_path, trained, capsys):
    config = sweep_config(sweep_entry("wild", WILD, expect_divergence=True), RANDOM)
    result = sweep.run(config, tmp_path, toy)
    entry = result["runs"][0]
    assert (entry["status"], entry["diverged"]) == ("failed", True)
    assert load.load_run(tmp_path / "wild-seed0").summary["status"] == "failed"
    assert "wild, seed 0: diverged, as expected: the loss is " in capsys.readouterr().out
    assert sweep.run(config, tmp_path, toy) == result
    assert trained == ["wild-seed0", "random-seed0"]


def test_what_is_expected_to_diverge_may_also_finish(toy, tmp_path):
    sweep.run(sweep_config(sweep_entry("true", {}, expect_divergence=True)), tmp_path, toy)
    assert statuses(tmp_path) == {"true-seed0": "finished"}


def test_seeds_vary_training_and_corruption(toy, tmp_path, trained):
    config = sweep_config()
    sweep.run(config, tmp_path, toy)
    config.sweep.seeds = 3
    result = sweep.run(config, tmp_path, toy)
    assert trained == [f"{name}-seed{seed}" for seed in range(3) for name in ("true", "random")]
    for entry in result["runs"]:
        resolved = load.load_run(tmp_path / entry["directory"]).config
        assert (resolved.seed, resolved.corruption.seed) == (entry["seed"], entry["seed"])
    fingerprints = {
        json.loads((tmp_path / f"random-seed{seed}" / "run.json").read_text())["fingerprint"]
        for seed in range(3)
    }
    assert len(fingerprints) == 3
    config.sweep.seeds = 1
    sweep.run(config, tmp_path, toy)
    assert len(read(tmp_path)["runs"]) == 6  # what is measured stays in the report


def test_a_stream_is_left_to_the_runs(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(train, "run", lambda config, path, dataset, **_: given.append(dataset))
    config = sweep_config(**{"data.name": "digits", "data.fake": True, "data.stream": True})
    with pytest.raises(RunFailed, match="2 of 2 runs are not done"):
        sweep.run(config, tmp_path)
    assert given == [None, None]


def test_data_are_loaded_once(toy, tmp_path, stubbed, monkeypatch):
    loads = []
    monkeypatch.setattr(data, "describe", lambda config: toy.info)
    monkeypatch.setattr(data, "load", lambda config: loads.append(config.name) or toy)
    sweep.run(sweep_config(), tmp_path)
    assert loads == ["toy"]
    sweep.run(sweep_config(), tmp_path)
    assert loads == ["toy"] * 2  # nothing is left to run, of these data


def test_in_a_terminal_there_is_one_display(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    sweep.run(sweep_config(), tmp_path, toy)
    printed = capsys.readouterr().out
    assert "run 2 of 2: random, seed 0" in printed
    assert "run directory" not in printed
    assert "epoch 1  step" not in printed


def test_a_job_that_dies_is_a_failure(tmp_path, monkeypatch, capsys):
    class Job:
        job_id = "7"

        def __init__(self, dies):
            self.dies, self.looks = dies, 0

        def done(self):
            self.looks += 1
            return self.looks == (1 if self.dies else 2)

        def exception(self):
            return RuntimeError("killed,\n  signal 9") if self.dies else None

        def result(self):
            return sweep.RunOutcome()

    class Executor:
        def submit(self, function, fields, path):
            dies = "wild" in path
            if not dies:
                function(fields, path)
            return Job(dies)

    monkeypatch.setattr(sweep, "_executor", lambda config, path: Executor())
    fields = {"model.name": "mlp", "model.width": 4, "data.examples": 64, "epochs": 1}
    config = config_lib.sweep("toys", "digits", [sweep_entry("wild", {}), TRUE], fields)
    config.launcher = "submitit_local"
    with pytest.raises(RunFailed, match=r"^1 of 2 runs are not done: wild-seed0; "):
        sweep.run(config, tmp_path)
    assert statuses(tmp_path) == {"wild-seed0": "failed", "true-seed0": "finished"}
    printed = capsys.readouterr().out
    assert "run 2 of 2: true, seed 0  job 7\n" in printed
    assert "wild, seed 0: failed: killed, signal 9\n" in printed


def test_without_submitit(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = config_lib.sweep("toys", "digits", [TRUE])
    config.launcher = "slurm"
    line = r"^config.launcher is 'slurm', which needs submitit: pip install -e '\.\[slurm\]'$"
    with pytest.raises(UserError, match=line):
        sweep.run(config, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


# Mistakes, each before the first run.


@pytest.mark.parametrize(
    ("runs", "fields", "line"),
    [
        (
            [TRUE, sweep_entry("bad", {"model.width": -1})],
            {"model.width": 512},
            "run bad: config.model.width is -1; it must be 1 or more",
        ),
        ([TRUE, sweep_entry("bad", {"nope": 1})], {}, "run bad: config.nope is no field"),
        ([TRUE, sweep_entry("bad", {"seed.x": 1})], {}, "run bad: config.seed.x is no field"),
        (
            [sweep_entry("bad", {"seed": "x"})],
            {},
            "run bad: config.seed is 'x', which is of another type",
        ),
        (
            [sweep_entry("bad", {"data.size": 13})],
            {},
            "run bad: config.data.size is 13; it must be at most 12, the side of toy's images",
        ),
        (
            [sweep_entry("deep", {"model.depth": 3})],
            {"model.depth": 2},
            "run deep: config.model.depth is 2; it must be left to the runs of the sweep",
        ),
        ([TRUE, TRUE], {}, "config.sweep.runs is ['true', 'true']; it must be runs of different"),
        (
            [sweep_entry("../up", {})],
            {},
            "config.sweep.runs is '../up'; it must be names of letters",
        ),
        ([{"name": "a"}], {}, "config.sweep.runs is ({'name': 'a'},); it must be runs as"),
        ([TRUE], {"sweep.seeds": 0}, "config.sweep.seeds is 0; it must be in [1, 1000]"),
        ([TRUE], {"launcher": "pbs"}, "config.launcher is 'pbs'; it must be one of local, slurm"),
        ([TRUE], {"launcher": "slurm"}, "config.launcher is 'slurm'; it must be local in several"),
    ],
)
def test_mistakes_name_the_run_and_leave_nothing(runs, fields, line, toy, tmp_path):
    config = sweep_config(*runs)
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError) as error:
        sweep.run(config, tmp_path / "sweep", toy)
    assert str(error.value).startswith(line)
    assert not (tmp_path / "sweep").exists()


def test_no_runs(toy, tmp_path):
    config = sweep_config()
    config.sweep.runs = ()
    with pytest.raises(UserError, match=r"config.sweep.runs is \(\); it must be runs as"):
        sweep.run(config, tmp_path, toy)


def test_how_long_runs_train_the_sweeps_config_says_first(toy, tmp_path):
    config = sweep_config(sweep_entry("long", {"epochs": 100}), TRUE)
    lengths = {run.name: run.config.epochs for run in sweep.plan(config, tmp_path, toy)}
    assert lengths == {"long": 2, "true": 2}
    config.epochs = None
    lengths = {run.name: run.config.epochs for run in sweep.plan(config, tmp_path, toy)}
    assert lengths == {"long": 100, "true": 600}


def test_another_config_in_one_of_the_directories(toy, tmp_path, trained):
    sweep.run(sweep_config(RANDOM), tmp_path, toy)
    with pytest.raises(UserError, match=r"random-seed0 holds a run of another config \(config.b"):
        sweep.run(sweep_config(batch_size=64), tmp_path, toy)
    assert trained == ["random-seed0"]


def test_another_sweep_in_the_same_directory(toy, tmp_path, stubbed):
    config = sweep_config()
    sweep.run(config, tmp_path, toy)
    config.sweep.name = "others"
    with pytest.raises(UserError, match=r"holds another sweep \(toys, full\); choose another"):
        sweep.run(config, tmp_path, toy)


def test_a_run_in_the_same_directory(toy, tmp_path):
    config = config_lib.train("toy", "true_labels")
    config.epochs = 1
    train.run(config, tmp_path, toy)
    with pytest.raises(UserError, match="holds a run and no sweep; choose another --workdir"):
        sweep.run(sweep_config(), tmp_path, toy)


# Through the entry point.


SMOKE = "--config=configs/figure1a.py:smoke"


def test_through_the_entry_point(entry_point, tmp_path):
    here = make_place(tmp_path / "here")
    arguments = [SMOKE, "--config.model.name=mlp", "--config.epochs=1", "--config.data.examples=99"]
    arguments.append("--config.sweep.only=true_labels,random_labels")
    # Figure 1a's network is the sweep's own, so that the command line may name another.
    outcome = entry_point.start(arguments, here)
    assert (outcome.code, outcome.stderr) == (0, "")
    (path,) = (here / "runs").iterdir()
    assert path.name.startswith("figure1a-digits-")
    assert set(statuses(path).values()) == {"finished"}
    assert (
        "runs 1 to 2 of 2: true_labels, seed 0 to random_labels, seed 0, together" in outcome.stdout
    )
    again = entry_point.start([*arguments, "--config.sweep.seeds=2"], here)
    assert again.code == 0
    assert "2 of 4 runs are done already" in again.stdout


@pytest.mark.ci
def test_a_job_for_each_run(entry_point, tmp_path):
    """Submitit's local executor runs what Slurm would, each in a process of its own."""
    here = make_place(tmp_path / "here")
    arguments = [
        *("--config=configs/table1.py:smoke", "--config.sweep.only=mlp1,mlp1-random"),
        *("--config.data.examples=99",),
        *("--config.launcher=submitit_local", "--config.epochs=1", "--workdir=table1"),
    ]
    outcome = entry_point.start(arguments, here)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert statuses(here / "table1") == {"mlp1-seed0": "finished", "mlp1-random-seed0": "finished"}
    assert "run 2 of 2: mlp1-random, seed 0  job " in outcome.stdout
    assert "mlp1-random, seed 0: finished, train " in outcome.stdout


def pid_of(lock):
    """The process that a run directory's lock names, once there is one."""
    for _ in range(1000):
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
            return int(lock.read_text().split()[1])
        time.sleep(0.05)
    raise TimeoutError(lock)


@pytest.mark.ci
def test_a_job_that_is_preempted_is_requeued_and_resumes(tmp_path):
    """Submitit signals a job with SIGUSR2; what it requeues begins where that one was saved."""
    config = config_lib.sweep("toys", "digits", [TRUE], {"model.name": "mlp", "model.width": 4})
    config.update_from_flattened_dict({"data.examples": 64, "epochs": 100_000})
    config.stop_when_fitted = False
    config.launcher = "submitit_local"
    (run,) = sweep.plan(config, epath.Path(tmp_path))
    executor = sweep._executor(config, epath.Path(tmp_path))
    function = launchers.Job(sweep._attempt, RunOutcome())
    job = executor.submit(function, run.config.to_dict(), str(run.path))
    checkpoints = Path(run.path) / "checkpoints"
    first = pid_of(Path(run.path) / "lock")
    while not any(checkpoints.glob("[0-9]*")):
        time.sleep(0.05)
    os.kill(first, signal.SIGUSR2)
    while (second := pid_of(Path(run.path) / "lock")) == first:
        time.sleep(0.05)
    log = Path(job.paths.stdout)
    while "  step " not in log.read_text().rpartition("Requeued job")[2]:
        assert not job.done(), log.read_text()
        time.sleep(0.05)
    starts = json.loads((Path(run.path) / "run.json").read_text())["sessions"]
    assert [start["step"] > 0 for start in starts] == [False, True]
    os.kill(second, signal.SIGTERM)
    assert job.result() == RunOutcome()
    assert json.loads((Path(run.path) / "summary.json").read_text())["status"] == "stopped"


def test_what_a_job_asks_for():
    config = config_lib.sweep("toys", "digits", [TRUE])
    assert launchers.parameters_of(config) == {"name": "toys", "timeout_min": 1440}
    config.launcher = "slurm"
    config.slurm.update(gpus=1, memory_gb=64.0, cpus=16, partition="gpu", minutes=90)
    config.slurm.parameters = "account=mine --qos=high exclusive"
    config_lib.check(config)
    parameters = launchers.parameters_of(config)
    assert parameters == {
        "name": "toys",
        "timeout_min": 90,
        "gpus_per_node": 1,
        "mem_gb": 64.0,
        "cpus_per_task": 16,
        "slurm_partition": "gpu",
        "slurm_additional_parameters": {"account": "mine", "qos": "high", "exclusive": True},
    }
    text = slurm._make_sbatch_string(
        command="python",
        folder="jobs",
        **object.__new__(slurm.SlurmExecutor)._convert_parameters(
            {name.removeprefix("slurm_"): value for name, value in parameters.items()}
        ),
    )
    for line in ("--gpus-per-node=1", "--mem=64GB", "--cpus-per-task=16", "--partition=gpu"):
        assert f"#SBATCH {line}\n" in text
    for line in ("--time=90", "--account=mine", "--qos=high", "--exclusive"):
        assert f"#SBATCH {line}\n" in text


@pytest.mark.parametrize(
    ("launcher", "field", "value", "allowed"),
    [
        ("slurm", "gpus", -1, r"in \[0, 1024\]"),
        ("slurm", "memory_gb", 0.0, "above 0 and finite"),
        ("slurm", "cpus", 0, r"in \[1, 65536\]"),
        ("slurm", "minutes", 0, r"in \[1, 525600\]"),
        ("slurm", "partition", "a b", "a partition's name"),
        ("slurm", "parameters", "account = mine", "words like account=mine"),
        ("slurm", "parameters", "mem=3", "words like account=mine"),
        ("submitit_local", "partition", "gpu", "left out for config.launcher=submitit_local"),
        ("local", "gpus", 1, "left out for config.launcher=local"),
    ],
)
def test_what_a_job_cannot_ask_for(launcher, field, value, allowed, tmp_path):
    config = config_lib.sweep("toys", "digits", [TRUE])
    config.launcher = launcher
    config.slurm[field] = value
    with pytest.raises(
        UserError, match=rf"^config.slurm.{field} is {value!r}; it must be {allowed}"
    ):
        sweep.run(config, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--config=configs/table1.py:a,b",
            "configs/table1.py:a,b: the config's argument is 'a,b'; it must be DATA, SIZE or DATA,SIZE, "
            "and SIZE one of smoke, small, full",
        ),
        (
            f"{SMOKE} --config.experiment=train",
            "config.experiment is 'train'; it must be one of sweep",
        ),
        (
            f"{SMOKE} --config.sweep.seeds=two",
            "config.sweep.seeds is 'two'; it must be a whole number",
        ),
        (f"{SMOKE} --config.sweep.nope=1", "config.sweep.nope is no field; config.sweep has …"),
        (
            f"{SMOKE} --config.batch_size=0",
            "config.batch_size is 0; it must be in …",
        ),
        (
            f"{SMOKE} --config.corruption.name=gaussian",
            "run true_labels: config.corruption.name is 'gaussian'; it must be left to the runs of …",
        ),
        (
            f"{SMOKE} --config.data.size=9",
            "run true_labels: config.data.size is 9; it must be at most 8, the side of digits's images",
        ),
        (
            "--config=configs/true_labels.py:digits --config.experiment=sweep",
            "config.experiment is 'sweep'; it must be one of train, evaluate",
        ),
        (
            "--config=mine.py",
            "config.sweep.seeds is missing; config.sweep has name, only, runs, seeds, …",
        ),
        (f"{SMOKE} --config.launcher=slurm", "config.launcher is 'slurm'…"),
    ],
)
def test_one_line_and_nothing_written(arguments, line, in_process, tmp_path):
    here = make_place(tmp_path / "here")
    mine(
        "from rethink_jax import config\ndef get_config():\n"
        "    c = config.sweep('a', 'digits', []); del c.sweep.seeds; return c\n"
    )(here)
    before = content(here)
    assert_refused(in_process.start(arguments.split(), here), line)
    assert content(here) == before
