"""Errors that nobody else would tell of: in threads, in crashes, in the environment."""

import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from rethink_jax import config as config_lib, main
from rethink_jax.data import cache
from rethink_jax.distributed import jax_settings, parallel, processes
from rethink_jax.errors import UserError
from rethink_jax.kernels import summary
from rethink_jax.runs import environment
from rethink_jax.training import optimizer, steps, train, train_state
from tests.entry_point import make_place, start
from tests.test_bad_input import BASE, DIGITS, assert_refused, mine


@pytest.mark.parametrize(
    ("arguments", "debug"),
    [
        ("", False),
        ("--debug", True),
        ("-debug", True),
        ("--debug=1", True),
        ("--debug=True", True),
        ("--debug=t", True),
        ("--debug=0", False),
        ("--debug=false", False),
        ("--nodebug", False),
        ("--debug --nodebug", False),
        ("--debug=perhaps", False),
        ("-- --debug", False),
    ],
)
def test_debug_is_read_as_absl_reads_it(arguments, debug, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main", *arguments.split()])
    assert main._debug() is debug


def thrown_in(filename):
    """What `threading.excepthook` gets for an error in a function of a file."""
    code = compile("def run(): raise OSError('broken\\npipe')", filename, "exec")
    space = {}
    exec(code, space)
    try:
        space["run"]()
    except OSError as error:
        return types.SimpleNamespace(exc_value=error, exc_traceback=error.__traceback__.tb_next)


def test_errors_of_our_threads_are_told(capsys):
    main._print_if_ours(thrown_in("orbax/checkpoint.py"))
    assert capsys.readouterr().err == ""
    main._print_if_ours(thrown_in(train_state.__file__))
    assert capsys.readouterr().err == ("rethink_jax: OSError: broken pipe (--debug shows where)\n")


def crash(entry_point, tmp_path, statement):
    here = make_place(tmp_path / "here")
    broken = (
        f"import ctypes, os, rethink_jax.config\nrethink_jax.config.check = lambda c: {statement}\n"
    )
    mine(broken + BASE.format("c.data.name = 'digits'"))(here)
    return entry_point.start(["--config=mine.py"], here)


def test_a_crash_tells_where(entry_point, tmp_path):
    outcome = crash(entry_point, tmp_path, "ctypes.string_at(0)")
    assert outcome.code == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in outcome.stderr
    assert "mine.py" in outcome.stderr


def test_an_abort_is_left_to_who_aborts(entry_point, tmp_path):
    outcome = crash(entry_point, tmp_path, "os.abort()")
    assert (outcome.code, outcome.stderr) == (-signal.SIGABRT, "")


def test_a_process_of_several_that_finds_no_others_is_refused(entry_point, tmp_path):
    here = make_place(tmp_path / "here")
    line = (
        "the cluster's environment tells of several processes, but JAX finds no others by it "
        "(SLURM_PROCID='1'); …"
    )
    assert_refused(entry_point.start(shlex.split(DIGITS), here, SLURM_PROCID="1"), line)
    assert not (here / "run").exists()


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("no\nsuch backend")])
def test_a_platform_that_is_not_there_is_named(error, monkeypatch):
    def devices():
        raise error

    monkeypatch.setattr(parallel.jax, "devices", devices)
    before = parallel.jax.config.values["jax_platforms"]
    told = " \\(no such backend\\)" if str(error) else ""
    line = f"^JAX_PLATFORMS is 'cpu', which JAX does not have here{told}; available is 'cpu'$"
    with pytest.raises(UserError, match=line):
        jax_settings.check_platforms()
    assert parallel.jax.config.values["jax_platforms"] == before == "cpu"


def test_a_platform_that_is_not_there_is_refused(tmp_path):
    here = make_place(tmp_path / "here")
    outcome = start(shlex.split(DIGITS), here, JAX_PLATFORMS="mine")
    assert_refused(outcome, "JAX_PLATFORMS is 'mine', which JAX does not have here (…")
    assert not (here / "run").exists()


def test_a_worker_that_runs_the_script_again_is_told(toy, monkeypatch):
    config = config_lib.train("digits", "true_labels")
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(UserError, match=r"under `if __name__ == '__main__':`"):
        train.run(config, "nowhere", toy)


@pytest.mark.parametrize(
    ("variables", "alone"),
    [
        ({}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, True),  # a batch script
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, True),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, False),
        ({"SLURM_PROCID": "x"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, False),
        ({"PMI_RANK": "3"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, False),
    ],
)
def test_what_tells_of_further_processes(variables, alone, monkeypatch):
    for name in (*processes._SIZES, *processes._INDICES, processes._HOSTS):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes._says_one_process() is alone


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("OMPI_COMM_WORLD_SIZE"), "cannot be read: KeyError: 'OMPI_COMM_WORLD_SIZE'"),
        (ValueError("invalid literal for int(): 'x'"), "cannot be read: ValueError: invalid"),
    ],
)
def test_a_cluster_that_cannot_be_read_is_refused(error, told, monkeypatch):
    def initialize(*arguments, **options):
        raise error

    monkeypatch.setattr(parallel.jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=told):
        processes.start()


def test_without_a_home_the_cache_has_to_be_named(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RETHINK_JAX_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.Path, "home", home)
    with pytest.raises(UserError, match=r"home directory\. Name a folder .* RETHINK_JAX_CACHE\.$"):
        cache.root()


def test_no_number_is_no_answer():
    logits = jnp.asarray([[np.nan] * 12, [0.0] * 11 + [np.nan], [1.0] + [0.0] * 11], jnp.float32)
    labels = jnp.zeros(3, jnp.int32)
    assert steps._answers(logits).tolist() == [-1, -1, 0]
    assert steps._is_in_top5(logits, labels).tolist() == [False, False, True]
    assert summary.error_rate(np.asarray(logits), np.asarray(labels)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("optimizer.drop_epochs", (3_000_000_000,), r"whole numbers in \[1, 2\*\*31\)"),
        ("optimizer.learning_rate", 1e39, "0 or in float32's range"),
        ("optimizer.learning_rate", 1e-50, "0 or in float32's range"),
        ("optimizer.weight_decay", 1e-50, "0 or in float32's range"),
    ],
)
def test_numbers_that_32_bits_cannot_hold_are_refused(field, value, allowed):
    config = config_lib.train("digits", "true_labels")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"^config.{field} is .*; it must be {allowed}"):
        config_lib.check(config)


def test_more_steps_than_32_bits_count_are_refused():
    config = config_lib.train("digits", "true_labels")
    config.epochs = 2**31 - 1
    line = "^config.epochs is 2147483647; it must be at most 178956970, as 1500 examples"
    with pytest.raises(UserError, match=line):
        config_lib.fill_in(config, 1500, 8)
    config.epochs = 178_956_970
    config_lib.fill_in(config, 1500, 8)


def test_a_drop_after_the_last_step_that_can_be_is_none():
    config = config_lib.train("digits", "true_labels")
    config.optimizer.drop_epochs = (2_000_000_000,)
    config = config_lib.fill_in(config, 1500, 8)
    rate = optimizer.learning_rate(config, 12, 100)
    assert float(rate(99)) == pytest.approx(0.01)


def test_the_revision_is_the_projects_own(tmp_path, monkeypatch):
    """An installed package lies in a repository of somebody else's, whose revision says nothing of it."""

    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init", "-q")
    package = tmp_path / "venv/rethink_jax/runs"
    package.mkdir(parents=True)
    (package / "environment.py").touch()
    identity = ("-c", "user.name=x", "-c", "user.email=x@x")
    git(*identity, "commit", "-q", "--allow-empty", "-m", "theirs")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    assert environment._git_revision() is None  # untracked
    git("add", "-A")
    git(*identity, "commit", "-q", "-m", "vendored")
    assert environment._git_revision() is None  # tracked, in another project
    assert os.path.exists(package)
