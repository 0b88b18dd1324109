import os
import subprocess
import sys
from pathlib import Path

import pytest

from rethink_jax.run_directory import load_run

ROOT = Path(__file__).parents[1]
CONFIG = "--config=configs/random_pixels.py:digits"


def door(*arguments, **environment):
    """Goes through the one door as a user does: another process, at the top of the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "rethink_jax.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "", **environment},
        capture_output=True,
        text=True,
    )


BEFORE_JAX = {
    (): "--config is missing; for example --config=configs/random_pixels.py:digits",
    ("--config=configs/nope.py",): "--config names 'configs/nope.py', which is no file",
    (
        "--config=configs/nope.py",
        "--config.seed=1",
    ): "--config names 'configs/nope.py', which is no",
    (CONFIG, "--nope"): "Unknown command line flag 'nope'",
    (CONFIG, "false"): "'false' belongs to no flag; write --flag=value, with an equals sign",
    (CONFIG, "--config.model.batch_norm", "false"): "'false' belongs to no flag",
    (CONFIG, "--config.nope=1"): "config.nope is no field; config has batch_size, checkpoint,",
    (
        CONFIG,
        "--config.optimizer.nope=1",
    ): "config.optimizer.nope is no field; config.optimizer has",
    (CONFIG, "--config.seed.nope=1"): "config.seed.nope is no field; config.seed has no fields",
    (CONFIG, "--config.epochs=few"): "config.epochs is 'few'; it must be a whole number",
    (CONFIG, "--config.epochs=2.5"): "config.epochs is '2.5'; it must be a whole number",
    (
        CONFIG,
        "--config.optimizer.momentum=x",
    ): "config.optimizer.momentum is 'x'; it must be a number",
    (
        CONFIG,
        "--config.stop_when_fitted=maybe",
    ): "config.stop_when_fitted is 'maybe'; it must be true",
    (
        CONFIG,
        "--config.model=mlp",
    ): "config.model is a group of fields; set one of batch_norm, depth",
    ("--config.seed=1", CONFIG): "Found --config.seed=1 in argv before a value for --config",
}
BEFORE_DATA = {
    ("--config.experiment=nope",): "config.experiment is 'nope'; it must be one of train, evaluate",
    ("--config.corruption.name=noise",): "config.corruption.name is 'noise'; it must be one of",
    ("--config.corruption.probability=1.5",): "config.corruption.probability is 1.5; it must be in",
    (
        "--config.model.name=vgg",
    ): "config.model.name is 'vgg'; it must be one of mlp, small_alexnet",
    ("--config.data.name=cifar11",): "config.data.name is 'cifar11'; TFDS knows no such data set",
    ("--config.data.size=9",): "config.data.size is 9; it must be at most 8, the side of digits",
    ("--config.batch_size=0",): "config.batch_size is 0; it must be 1 or more",
}


def assert_refused(result, line, workdir):
    assert result.returncode == 2
    assert result.stderr.startswith(f"rethink_jax: {line}")
    assert result.stderr.count("\n") == 1
    assert not workdir.exists()


@pytest.mark.parametrize(("arguments", "line"), BEFORE_JAX.items(), ids=str)
def test_a_wrong_command_line_is_one_line(arguments, line, tmp_path):
    workdir = tmp_path / "run"
    assert_refused(door(*arguments, f"--workdir={workdir}"), line, workdir)


def test_a_flag_without_its_value_is_one_line(tmp_path):
    result = door(f"--workdir={tmp_path / 'run'}", CONFIG, "--config.epochs")
    assert_refused(result, "Missing value for flag --config.epochs", tmp_path / "run")


@pytest.mark.parametrize(("arguments", "line"), BEFORE_DATA.items(), ids=str)
def test_a_wrong_value_is_one_line_before_any_data_is_loaded(arguments, line, tmp_path):
    workdir = tmp_path / "run"
    cache = tmp_path / "cache"
    result = door(CONFIG, *arguments, f"--workdir={workdir}", RETHINK_JAX_CACHE=str(cache))
    assert_refused(result, line, workdir)
    assert not cache.exists()


def test_a_batch_that_the_devices_do_not_divide(tmp_path):
    devices = "--xla_force_host_platform_device_count=3"
    result = door(CONFIG, f"--workdir={tmp_path / 'run'}", XLA_FLAGS=devices)
    line = "config.batch_size is 128; it must be a multiple of the number of devices, 3"
    assert_refused(result, line, tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def get_config():\n    return 1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def get_config(:\n", "SyntaxError: "),
        ("import nothing_of_the_kind\n", "ModuleNotFoundError: No module named 'nothing_of"),
    ],
)
def test_a_broken_config_file_is_one_line(text, line, tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(text)
    result = door(f"--config={file}", f"--workdir={tmp_path / 'run'}")
    assert_refused(result, f"{file}: {line}", tmp_path / "run")


def test_debug_shows_the_traceback(tmp_path):
    result = door(CONFIG, "--config.data.size=9", f"--workdir={tmp_path / 'run'}", "--debug")
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_the_main_job(tmp_path):
    flags = (f"--workdir={tmp_path}", "--config.epochs=3", "--config.optimizer.learning_rate=0.05")
    result = door(CONFIG, *flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    run = load_run(tmp_path)
    assert run.config.corruption.name == "random_pixels"
    assert run.config.optimizer.learning_rate == 0.05
    assert f"epoch 3  step 36  train {run.summary['train_accuracy']:.2%}" in result.stdout
    again = door(CONFIG, *flags)
    assert again.returncode == 0
    assert "is finished" in again.stdout
    other = door(CONFIG, *flags, "--config.seed=1")
    assert other.returncode == 2
    assert "config.seed 0 → 1" in other.stderr
