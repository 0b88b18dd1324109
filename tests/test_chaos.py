"""Short forms of `python -m rethink_jax.chaos`, through the entry point, and two processes beside one."""

import random
import re
import resource
import shutil
import signal
import time

import numpy as np
import pytest

from rethink_jax import chaos
from rethink_jax.training import load

pytestmark = pytest.mark.ci

EPOCHS, STEPS = 6, 12  # of an epoch


@pytest.fixture(scope="module", autouse=True)
def short_runs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chaos, "EPOCHS", EPOCHS)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="module")
def reference(folder):
    """An undisturbed run, and seconds within which another one has not ended, which need not compile."""
    began = time.monotonic()
    chaos.finish(folder / "undisturbed")
    return folder / "undisturbed", (time.monotonic() - began) / 3


def test_differences_are_found(reference, tmp_path):
    run, _ = reference
    assert chaos.differences(run, run) == []
    other = tmp_path / "other"
    shutil.copytree(run, other)
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(lines + lines[-1:]))
    (event_file,) = (other / "tensorboard").iterdir()
    event_file.write_bytes(event_file.read_bytes() * 2)
    (other / "checkpoints" / "75.orbax-checkpoint-tmp").mkdir()
    shutil.rmtree(other / "checkpoints" / f"{EPOCHS * STEPS}")
    (other / "records" / f"step-{STEPS:08d}.npz").unlink()
    found = chaos.differences(other, run)
    assert ".params" in str(found) or "['params']" in str(found)
    assert found[-4:] == [
        "metrics.jsonl",
        "tensorboard",
        "records",
        "half-written ['75.orbax-checkpoint-tmp']",
    ]


def test_sigkill(folder, reference):
    outcome = chaos.kill(2, folder, *reference, random.Random(0))
    assert (outcome.passed, outcome.total) == (2, 2)


def test_sigterm(folder, reference):
    outcome = chaos.terminate(1, folder, *reference, random.Random(1))
    assert (outcome.passed, outcome.total) == (1, 1)


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
@pytest.mark.parametrize("launcher", [chaos.UV_RUN, ("timeout", "600", *chaos.UV_RUN)])
def test_sigterm_through_uv_run(launcher, folder, reference):
    """The signal comes twice, directly and through uv; `timeout` sends its own to the group, too."""
    path = folder / launcher[0]
    process = chaos.start(path, launcher=launcher)
    wait_for_checkpoint(path)
    if launcher[0] == "timeout":
        process.terminate()  # which it passes on as it does when the time is over
    else:
        chaos.signal_group(process, signal.SIGTERM)
    assert chaos.wait_until_gone(process, path) == 75
    chaos.finish(path)
    assert chaos.differences(path, reference[0]) == []


def wait_for_checkpoint(path):
    while not any((path / "checkpoints").glob("[0-9]*")):
        time.sleep(0.02)


def test_damaged_newest_checkpoints(folder, reference):
    outcome = chaos.damage(2, folder, reference[0], random.Random(2))
    assert (outcome.passed, outcome.total) == (2, 2)


@pytest.mark.slow
def test_two_processes(folder, reference):
    """One of two is killed; both together give the losses of one process with as many devices."""
    outcome = chaos.kill_one_of_two(1, folder, random.Random(3))
    assert (outcome.passed, outcome.total) == (1, 1)
    chaos.finish(folder / "four", devices=4)
    pair, four = (load.load_run(folder / name) for name in ("pair", "four"))
    assert len(pair.metrics) == len(four.metrics) == len(four.records.steps) == EPOCHS
    for group in ("presented", "train", "test"):
        one, two = (getattr(run.records, group).answer for run in (pair, four))
        np.testing.assert_array_equal(one, two)
    for a, b in zip(pair.metrics, four.metrics, strict=True):
        for name in ("train_loss", "test_loss", "test_loss_corrupted"):
            assert a[name] == pytest.approx(b[name], rel=1e-5)


STREAM = [
    f"--config.data.{field}"
    for field in ("fake=true", "stream=true", "size=8", "examples=200", "workers=0")
]


def test_two_processes_that_stream(folder):
    """Of two processes one is killed; one process with as many devices resumes with the same examples."""
    whole, parts = folder / "whole-stream", folder / "pair-stream"
    chaos.finish(whole, *STREAM, devices=4)
    pair = chaos.start_pair(parts, *STREAM)
    wait_for_checkpoint(parts)
    pair[1].kill()
    pair[1].wait()
    assert pair[0].wait() != 0
    chaos.finish(parts, *STREAM, devices=4)
    assert "resuming from step" in (folder / "pair-stream.log").read_text()
    one, two = (load.load_run(path).metrics for path in (whole, parts))
    assert len(one) == len(two) == EPOCHS
    for a, b in zip(one, two, strict=True):
        assert a["train_accuracy_online"] == b["train_accuracy_online"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
        assert a["test_loss_corrupted"] == pytest.approx(b["test_loss_corrupted"], rel=1e-5)


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_sigterm_to_one_of_two_processes(which, folder):
    """Both save the same step and exit with 75; the pair resumes."""
    path = folder / f"pair-term-{which}"
    pair = chaos.start_pair(path)
    wait_for_checkpoint(path)
    pair[which].terminate()
    assert [process.wait() for process in pair] == [75, 75]
    log = (folder / f"{path.name}.log").read_text()
    assert len(set(re.findall(r"stopped; step (\d+) is saved", log))) == 1
    assert log.count("is saved in") == 2
    assert "SIGTERM: stopped" in log
    assert "a signal to another process: stopped" in log
    chaos.finish_pair(path)
    steps = [record["step"] for record in load.load_run(path).metrics]
    assert steps == [STEPS * (i + 1) for i in range(EPOCHS)]


def test_a_full_disk(folder, reference):
    """A file-size limit stands for it: no file of the next checkpoint can be written whole."""
    path = folder / "full"
    chaos.finish(path, "--config.steps=48")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        process = chaos.start(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert process.wait() == 1
    (line,) = [
        line for line in (folder / "full.log").read_text().splitlines() if "rethink_jax:" in line
    ]
    assert line.startswith("rethink_jax: ")
    assert "File too large" in line
    chaos.finish(path)
    assert chaos.differences(path, reference[0]) == []
