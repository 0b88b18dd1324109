import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from rethink_jax import config as config_lib
from rethink_jax.config import base, experiment, fill_in
from rethink_jax.distributed import parallel
from rethink_jax.errors import UserError
from rethink_jax.runs import environment, files, run_directory
from rethink_jax.training import load
from rethink_jax.training.checkpoints import Checkpoints, Saved
from rethink_jax.training.train_state import TrainState

FILES = {"config.json", "run.json", "lock"}
RECORD = {"epoch": 1.0, "step": 12, "train_loss": 0.5, "test_accuracy": 0.25}


@pytest.fixture
def path(tmp_path):
    return epath.Path(tmp_path) / "run"


def opened(path, config):
    with run_directory.open_run(path, config):
        run_directory.write_metadata(path, config)


def resolved(**fields):
    config = fill_in(base(), 1500, 8)
    config.update_from_flattened_dict(fields, strip_prefix="")
    return config


def flat(fields, prefix=""):
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def another(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return (*value, 3)
    return 3 if value is None else value / 2 or 0.5 if isinstance(value, float) else value + 1


FIELDS = dict(flat(fill_in(base(), 1500, 8).to_dict()))
FREE = ["experiment", "epochs", "steps", "stop_when_fitted", "stop_at_loss"]
FREE += ["evaluate.every_epochs", "evaluate.examples", "grace_seconds", "compilation_cache"]
FREE += ["checkpoint.every_epochs", "checkpoint.every_steps", "checkpoint.keep", "data.workers"]
FREE += ["data.data_dir", "cpu_devices", "corruption.file"]


# Opening.


def test_opening_writes_the_config(path):
    config = resolved(seed=3)
    opened(path, config)
    assert {file.name for file in path.iterdir()} == FILES
    assert load.load_run(path).config == config
    opened(path, config)
    assert load.load_run(path).config.to_dict() == config.to_dict()


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_another_value_of_a_field(path, field):
    opened(path, resolved())
    text = ("data.data_dir", "compilation_cache")
    new = "elsewhere" if field in text else another(FIELDS[field])
    other = resolved(**{field: new})
    if field in FREE:
        opened(path, other)
        assert load.load_run(path).config.to_dict() == other.to_dict()
        return
    with pytest.raises(UserError) as error:
        opened(path, other)
    assert str(error.value) == (
        f"{path} holds a run of another config (config.{field} {FIELDS[field]!r} → {new!r}); "
        "choose another --workdir"
    )
    assert load.load_run(path).config.to_dict() == resolved().to_dict()


def start(path, step):
    with run_directory.open_run(path, resolved()):
        run_directory.write_metadata(path, resolved(), start_step=step, num_train=1500)
    return files.read_json(path / "run.json")


def test_every_start_of_a_run_is_kept(path, monkeypatch):
    assert [s["step"] for s in start(path, 0)["sessions"]] == [0]
    monkeypatch.setattr(platform, "python_version", lambda: "3.99")
    environment = start(path, 12)
    first, second = environment["sessions"]
    assert (first["step"], second["step"]) == (0, 12)
    assert (first["python"], second["python"]) == (sys.version.split()[0], "3.99")
    assert first["date"] <= second["date"]
    assert second["devices"] == ["cpu"] * len(parallel.devices())
    assert (environment["python"], environment["num_train"]) == ("3.99", 1500)


def test_a_run_of_an_older_version_has_a_start_of_which_little_is_known(path):
    opened(path, resolved())
    earlier = files.read_json(path / "run.json")
    assert "sessions" not in earlier
    first, second = start(path, 12)["sessions"]
    assert (first["step"], first["date"], first["cpu"]) == (None, None, earlier["cpu"])
    assert second["step"] == 12


@pytest.mark.parametrize("content", ["{", "[]", '{"sessions": 3}', '{"sessions": [3]}'])
def test_damaged_starts_stop_no_run(path, content):
    opened(path, resolved())
    (path / "run.json").write_text(content)
    first, second = start(path, 12)["sessions"]
    assert (first["step"], second["step"]) == (None, 12)


def test_every_difference_is_listed(path):
    opened(path, resolved())
    other = resolved(**{"seed": 1, "epochs": 7, "model.depth": 3, "optimizer.learning_rate": 0.5})
    with pytest.raises(UserError) as error:
        opened(path, other)
    listed = (
        "config.model.depth 1 → 3, config.optimizer.learning_rate 0.01 → 0.5, config.seed 0 → 1"
    )
    assert f"({listed})" in str(error.value)
    assert "epochs" not in str(error.value)


def forget(path, *fields):
    """Takes fields out of `config.json`, as if an earlier version had written it."""
    config = json.loads((path / "config.json").read_text())
    for field in fields:
        *groups, name = field.split(".")
        holder = config
        for group in groups:
            holder = holder[group]
        del holder[name]
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("field", ["label_smoothing", "augment.color", "augment", "data.workers"])
def test_a_field_newer_than_the_run_has_its_default(path, field):
    opened(path, resolved())
    forget(path, field)
    assert load.load_run(path).config == resolved()
    other = resolved(**{"label_smoothing": 0.1, "augment.color": True})
    if field != "data.workers":
        with pytest.raises(UserError, match=r"config\.augment\.color False → True"):
            opened(path, other)
    opened(path, resolved())
    assert "label_smoothing" in json.loads((path / "config.json").read_text())


def test_a_newer_field_of_another_kind_of_run(path):
    config = experiment("kernel", "digits")
    opened(path, config)
    forget(path, "features", "solver.rank", "kernel.validation_fraction")
    opened(path, config)
    forget(path, "features", "solver.rank", "kernel.validation_fraction")
    config.kernel.validation_fraction = 0.5
    with pytest.raises(UserError, match=r"\(config\.kernel\.validation_fraction 0\.\d+ → 0\.5\)"):
        opened(path, config)


# Reading.


def test_a_directory_without_a_run(tmp_path, path):
    for where in (path, tmp_path, str(tmp_path)):
        with pytest.raises(UserError) as error:
            load.load_run(where)
        assert str(error.value) == f"{where} holds no run: config.json is missing there"
    assert not path.exists()


def test_a_run_that_has_not_saved(path):
    opened(path, resolved())
    run = load.load_run(path)
    assert (run.metrics, run.summary, run.params, run.batch_stats) == ([], {}, None, {})
    assert not (path / "checkpoints").exists()


@pytest.mark.parametrize("batch_stats", [{}, {"BatchNorm_0": {"mean": np.arange(3.0)}}])
def test_a_whole_run(path, batch_stats):
    opened(path, resolved())
    params = {"Dense_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    batch_stats = jax.tree.map(np.float32, batch_stats)
    checkpoints = Checkpoints(path)
    checkpoints.save(
        Saved(TrainState(np.array(12, np.int32), params, batch_stats, (params,)), "f", [])
    )
    checkpoints.close()
    files.write_text(path / "metrics.jsonl", json.dumps(RECORD) + "\n")
    files.write_json(path / "summary.json", {"status": "finished"})
    run = load.load_run(str(path))
    assert run.metrics == [RECORD]
    assert run.summary == {"status": "finished"}
    assert jax.tree.structure(run.params) == jax.tree.structure(params)
    np.testing.assert_array_equal(run.params["Dense_0"]["kernel"], params["Dense_0"]["kernel"])
    assert jax.tree.structure(run.batch_stats) == jax.tree.structure(batch_stats)
    jax.tree.map(np.testing.assert_array_equal, run.batch_stats, batch_stats)


def test_reading_a_run_changes_nothing(path):
    opened(path, resolved())
    checkpoints = Checkpoints(path, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(
            Saved(TrainState(np.array(step, np.int32), {"w": np.ones(2)}, {}, ()), "f", [])
        )
    checkpoints.close()

    def content():
        files = [file for file in Path(path).glob("**/*") if file.is_file()]
        return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    before = content()
    assert len(before) > 3
    load.load_run(path)
    assert content() == before


# Metrics.


def test_no_metrics(path):
    assert files.read_metrics(path) == []


@pytest.mark.parametrize("cut", range(1, 1 + len(json.dumps(RECORD))))
def test_an_unfinished_last_line_is_left_out(path, cut):
    path.mkdir()
    later = json.dumps({**RECORD, "step": 24})
    (path / "metrics.jsonl").write_text(json.dumps(RECORD) + "\n" + later[:cut])
    assert files.read_metrics(path) == [RECORD]


def test_a_damaged_line_is_named(path):
    path.mkdir()
    (path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged: Unterminated string"):
        files.read_metrics(path)
    (path / "metrics.jsonl").write_bytes(b'{"epoch": \xff}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged: .* can't decode"):
        files.read_metrics(path)


def test_a_damaged_config_is_named(path):
    opened(path, resolved())
    (path / "config.json").write_text('{"seed": 0')
    for read in (
        load.load_run,
        lambda path: run_directory.check_same_run(path, resolved()),
    ):
        with pytest.raises(UserError, match=r"config.json is damaged: Expecting"):
            read(path)


def test_an_error_of_reading_is_no_damage(path, monkeypatch):
    opened(path, resolved())

    def fail(*arguments, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(type(path), "read_text", fail)
    with pytest.raises(OSError, match="Input/output error"):
        run_directory.check_same_run(path, resolved())


# The lock.


def test_a_directory_in_use_is_refused(path):
    with run_directory.open_run(path, resolved()):
        with pytest.raises(UserError) as error, run_directory.open_run(path, resolved()):
            pass
        with pytest.raises(UserError):
            run_directory.check_free(path)
    line = f"{path} is in use by process {os.getpid()} on {platform.node()} since "
    assert str(error.value).startswith(line)
    assert str(error.value).endswith("; wait for it, or choose another --workdir")
    run_directory.check_free(path)
    opened(path, resolved())


def test_the_lock_of_a_dead_process_is_taken_over(path):
    program = (
        "import os, sys; from etils import epath; from rethink_jax.runs import run_directory as r;"
        "lock = r._lock(epath.Path(sys.argv[1])); lock.__enter__(); print('held', flush=True);"
        "sys.stdin.read()"
    )
    path.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"in use by process {process.pid} on "):
            run_directory.check_free(path)
        process.kill()
    opened(path, resolved())


def test_half_written_files_are_removed(path):
    path.mkdir()
    (path / "summary.json.partial").write_text("{")
    opened(path, resolved())
    assert {file.name for file in path.iterdir()} == FILES


def test_whole_lines(path):
    path.mkdir()
    records = [{**RECORD, "step": step} for step in (12, 24, 36)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert files.read_metrics(path) == records


# Writing.


def test_json_round_trip(path):
    path.mkdir()
    value = {"model": "MLP 3×512", "none": None, "list": [1, 2.5, True]}
    files.write_json(path / "a.json", value)
    assert files.read_json(path / "a.json") == value
    assert "3×512" in (path / "a.json").read_text()
    assert [file.name for file in path.iterdir()] == ["a.json"]


def test_a_file_is_whole_at_every_moment(path, monkeypatch):
    path.mkdir()
    file = path / "a.json"
    files.write_json(file, {"old": 1})
    seen = []
    replace = type(path).replace

    def watched(self, target):
        seen.append((files.read_json(file), json.loads(self.read_text()), self.parent))
        return replace(self, target)

    monkeypatch.setattr(type(path), "replace", watched)
    files.write_json(file, {"new": 2})
    assert seen == [({"old": 1}, {"new": 2}, path)]
    assert files.read_json(file) == {"new": 2}
    assert [file.name for file in path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    path.mkdir()
    file = path / "a.json"
    files.write_json(file, {"old": 1})
    with pytest.raises(TypeError):
        files.write_json(file, {"new": object()})

    def full(self, text):
        self.write_bytes(text[:3].encode())
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "write_text", full)
        with pytest.raises(OSError, match="no space"):
            files.write_json(file, {"new": 2})
    assert files.read_json(file) == {"old": 1}
    files.write_json(file, {"new": 2})
    assert [file.name for file in path.iterdir()] == ["a.json"]


# The environment.


def test_environment():
    tells = environment.describe(fingerprint="abc")
    assert tells["fingerprint"] == "abc"
    assert tells["python"] == platform.python_version()
    assert tells["platform"] == platform.platform()
    assert tells["backend"] == "cpu"
    assert tells["devices"] == [jax.devices()[0].device_kind] * 2
    assert tells["processes"] == 1
    assert tells["packages"]["jax"] == jax.__version__
    assert tells["packages"]["numpy"] == np.__version__
    assert {"rethink_jax", "jaxlib", "flax", "optax", "orbax-checkpoint"} < set(tells["packages"])
    assert json.loads(json.dumps(tells)) == tells


def test_git_revision(monkeypatch):
    root = Path(environment.__file__).resolve().parents[2]
    answers = {"ls-files": "environment.py\n", "--show-toplevel": f"{root}\n"}
    answers |= {"HEAD": "0123abcd\n", "status": " M rethink_jax/training/train.py\n"}

    def git(command, **options):
        assert options["check"]
        result = [answer for name, answer in answers.items() if name in command]
        return environment.subprocess.CompletedProcess(command, 0, stdout=result[0])

    monkeypatch.setattr(environment.subprocess, "run", git)
    assert environment.describe()["git"] == {"revision": "0123abcd", "dirty": True}
    answers["status"] = "\n"
    assert environment.describe()["git"] == {"revision": "0123abcd", "dirty": False}


def test_no_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.describe()["git"] is None


def test_no_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.describe()["git"] is None


@pytest.mark.parametrize("field", ["epochs", "steps"])
def test_a_cosine_cannot_be_made_longer(path, field):
    opened(path, resolved(**{"optimizer.schedule": "cosine"}))
    longer = resolved(**{"optimizer.schedule": "cosine", field: 700})
    with (
        pytest.raises(UserError, match=rf"config\.{field} \w+ → 700"),
        run_directory.open_run(path, longer),
    ):
        pass


def test_fields_that_may_change_are_fields():
    assert config_lib.may_change(resolved().to_dict()) == {*FREE} <= {*FIELDS}
    fields = config_lib.may_change(experiment("kernel", "mnist").to_dict())
    solver = {f"solver.{name}" for name in experiment("kernel", "mnist").solver}
    assert solver == {name for name in fields if name.startswith("solver.")}
