"""Stops runs in every way and checks that they end like undisturbed ones: `python -m rethink_jax.chaos`.

Each trial runs the command line, as a user does, on the digits. Times: docs/testing.md.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags, logging
from etils import epath
from rich.console import Console
from rich.table import Table
from tensorboardX.proto.event_pb2 import Event

from rethink_jax import cli, output
from rethink_jax.distributed import preemption
from rethink_jax.errors import FAILED, InUse, UserError, exit_on_error, leave
from rethink_jax.runs import files, run_directory
from rethink_jax.training import records
from rethink_jax.training.checkpoints import FOLDER, Checkpoints, half_written

_KILLS = flags.DEFINE_integer("kills", 100, "SIGKILLs, half of them aimed at checkpoint writes.")
_TERMS = flags.DEFINE_integer("terms", 30, "SIGTERMs.")
_DAMAGED = flags.DEFINE_integer("damaged", 30, "Damaged newest checkpoints.")
_PAIRS = flags.DEFINE_integer("pairs", 10, "Runs of two processes of which one is killed.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments, files and bytes.")
_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/chaos", "An empty or new folder for all runs.", allow_override=True
)

_ROOT = Path(__file__).parents[1]
_FIELDS = (
    "--config.model.width=64",
    "--config.checkpoint.every_steps=5",
    "--config.records.every_epochs=1",
)
EPOCHS = 20
UV_RUN = ("uv", "run", "--no-sync")
_STOPS_IN_A_ROW = 5
_CLOCK = ("seconds", "images_per_second")
# The files that Orbax needs to restore a checkpoint.
_NEEDED = ("state/d/*", "state/manifest.ocdbt", "state/_METADATA", "meta/metadata")


class TrialOutcome(NamedTuple):
    """How the trials of one kind went; `note` says what else was observed."""

    trial: str
    passed: int
    total: int
    note: str


def start(
    path: Path, *more: str, devices: int = 1, launcher: Sequence[str] = ()
) -> subprocess.Popen:
    """Starts or resumes the run in a directory, and appends what it prints to `<path>.log`.

    Args:
      path: the run's directory.
      *more: flags of the run.
      devices: how many CPU devices are simulated.
      launcher: a command that starts the run, such as `UV_RUN`. Both are in a process group of their own.
    """
    command = [sys.executable, "-m", "rethink_jax.main", "--config=configs/random_labels.py:digits"]
    environment = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    with open(f"{path}.log", "ab") as log:
        return subprocess.Popen(
            [
                *launcher,
                *command,
                *_FIELDS,
                f"--config.epochs={EPOCHS}",
                f"--workdir={path}",
                *more,
            ],
            cwd=_ROOT,
            env={**os.environ, **environment, "JAX_PLATFORMS": "cpu"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    """Sends a signal to a run's whole process group, as `timeout` and Slurm do.

    Under `uv run` a SIGTERM thus arrives twice, once through uv.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def wait_until_gone(process: subprocess.Popen, path: Path) -> int:
    """Waits until a run, and whatever `uv run` started, has ended; returns the exit code."""
    code = process.wait()
    while True:
        with contextlib.suppress(InUse):
            run_directory.check_free(epath.Path(path))
            return code
        time.sleep(0.01)


def finish(path: Path, *more: str, devices: int = 1) -> None:
    """Runs to the end; `RuntimeError` if the run fails."""
    if (code := start(path, *more, devices=devices).wait()) != 0:
        raise RuntimeError(f"{path} left with {code}; see {path}.log")


def differences(path: Path, reference: Path) -> list[str]:
    """Returns where a finished run differs from another, times aside; arrays are compared as bytes."""
    a, b = (_final_arrays(epath.Path(run)) for run in (path, reference))
    found = [name for name in sorted(a | b) if a.get(name) != b.get(name)]
    parts = (("metrics.jsonl", _metrics), ("tensorboard", _events), ("records", _record_files))
    for name, read in parts:
        if read(path) != read(reference):
            found.append(name)
    summaries = [files.read_json(epath.Path(run) / "summary.json") for run in (path, reference)]
    if _without_clock(summaries[0]) != _without_clock(summaries[1]):
        found.append("summary.json")
    if leftovers := [file.name for file in half_written(path / FOLDER)]:
        found.append(f"half-written {leftovers}")
    return found


def kill(
    count: int, folder: Path, reference: Path, lifetime: float, rng: random.Random
) -> TrialOutcome:
    """Kills runs at random moments, every second one while it writes a checkpoint, and then finishes them.

    Half of each kind are started by `uv run`, which is killed together with what it started.
    """
    in_a_write = 0

    def stop(process: subprocess.Popen, path: Path, trial: int) -> bool:
        nonlocal in_a_write
        if trial % 2:
            _wait_for_write(process, path, rng.randint(1, 8))
            time.sleep(rng.uniform(0, 0.02))
        else:
            _wait(process, rng.uniform(0, lifetime))
        signal_group(process, signal.SIGKILL)
        killed = wait_until_gone(process, path) == -signal.SIGKILL
        in_a_write += killed and bool(half_written(path / FOLDER))
        return killed

    passed = _stop_in_a_row(count, folder / "kill", reference, stop)
    return TrialOutcome("SIGKILL", passed, count, f"{in_a_write} left a half-written checkpoint")


def terminate(
    count: int, folder: Path, reference: Path, lifetime: float, rng: random.Random
) -> TrialOutcome:
    """Sends SIGTERM to runs at random moments, and then finishes them."""
    slowest, wrong = 0.0, []

    def stop(process: subprocess.Popen, path: Path, trial: int) -> bool:
        nonlocal slowest
        _wait(process, rng.uniform(0.5, lifetime))
        sent = time.monotonic()
        signal_group(process, signal.SIGTERM)
        code = wait_until_gone(process, path)
        if code == 0:  # it was finished before the signal came
            return False
        slowest = max(slowest, time.monotonic() - sent)
        if code != preemption.EXIT_CODE:
            wrong.append(code)
        return True

    passed = _stop_in_a_row(count, folder / "term", reference, stop)
    note = f"the slowest left after {slowest:.1f} s"
    return TrialOutcome(
        "SIGTERM", passed - len(wrong), count, note + (f", codes {wrong}" if wrong else "")
    )


def damage(count: int, folder: Path, reference: Path, rng: random.Random) -> TrialOutcome:
    """Damages the newest checkpoint of a stopped run, and then finishes it."""
    stopped = folder / "stopped"
    finish(stopped, f"--config.epochs={EPOCHS // 2}")
    passed, by_kind = 0, dict.fromkeys(("a byte flipped", "a file cut", "a file gone"), 0)
    for trial in range(count):
        path = folder / f"damaged-{trial}"
        shutil.copytree(stopped, path)
        steps = sorted(int(file.name) for file in (path / FOLDER).iterdir())
        newest = path / FOLDER / str(steps[-1])
        file = rng.choice(sorted(newest.glob(rng.choice(_NEEDED))))
        kind = list(by_kind)[trial % 3]
        _damage(file, kind, rng)
        finish(path)
        log = Path(f"{path}.log").read_text()
        noticed = f"resuming from step {steps[-2]} " in log and "passed over" in log
        good = noticed and not _report(path, reference)
        passed += good
        by_kind[kind] += good
    note = ", ".join(f"{kind}: {number}" for kind, number in by_kind.items())
    return TrialOutcome("damaged newest checkpoint", passed, count, note)


def kill_one_of_two(count: int, folder: Path, rng: random.Random) -> TrialOutcome:
    """Kills one of two processes, checks that the other ends, and then finishes both."""
    reference = folder / "pair"
    began = time.monotonic()
    finish_pair(reference)
    lifetime = time.monotonic() - began
    passed, trial, slowest = 0, 0, 0.0
    while trial < count:
        path = folder / f"pair-{trial}"
        victim, other = start_pair(path)[:: 1 if trial % 2 else -1]
        _wait(victim, rng.uniform(0.3, 0.9) * lifetime)
        victim.kill()
        if victim.wait() == 0:  # it was finished before
            other.wait()
            shutil.rmtree(path)
            continue
        sent = time.monotonic()
        _wait(other, 60)
        code = other.poll()
        other.kill()
        if code == 0 and _is_finished(path):  # killed on its way out, when nothing was left to do
            shutil.rmtree(path)
            continue
        slowest = max(slowest, time.monotonic() - sent)
        finish_pair(path)
        passed += code not in (None, 0) and not _report(path, reference)
        trial += 1
    return TrialOutcome(
        "one of two killed", passed, count, f"the other left within {slowest:.1f} s"
    )


def _is_finished(path: Path) -> bool:
    summary = files.read_summary(epath.Path(path))
    return summary is not None and summary["status"] == "finished"


def _stop_in_a_row(
    count: int, folder: Path, reference: Path, stop: Callable[[subprocess.Popen, Path, int], bool]
) -> int:
    """Stops each run up to five times before it may finish; returns the number of stops of runs that end equal.

    Two of every four are started by `uv run`.
    """
    passed = trial = chain = 0
    while trial < count:
        path = folder.with_name(f"{folder.name}-{chain}")
        first = trial
        while trial < min(count, first + _STOPS_IN_A_ROW):
            if not stop(start(path, launcher=UV_RUN if trial % 4 > 1 else ()), path, trial):
                break
            trial += 1
        finish(path)
        if not _report(path, reference):
            passed += trial - first
        chain += 1
    return passed


def _report(path: Path, reference: Path) -> list[str]:
    found = differences(path, reference)
    print(f"{path.name}: {', '.join(found) if found else 'equal'}", flush=True)
    return found


def _wait(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _wait_for_write(process: subprocess.Popen, path: Path, which: int) -> None:
    """Waits until a run begins to write its `which`-th checkpoint."""
    seen: set[str] = set()
    while process.poll() is None and len(seen) < which:
        seen |= {file.name for file in half_written(path / FOLDER)}
        time.sleep(0.0005)


def _damage(file: Path, kind: str, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if kind == "a file gone":
        file.unlink()
    elif kind == "a file cut":
        file.write_bytes(content[: rng.randrange(len(content))])
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)


def start_pair(path: Path, *more: str) -> list[subprocess.Popen]:
    """Starts or resumes a run of two processes with two devices each; `more` as for `start`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = (*more, f"--coordinator_address={address}", "--num_processes=2")
    return [start(path, *together, f"--process_id={i}", devices=2) for i in range(2)]


def finish_pair(path: Path, *more: str) -> None:
    """Runs both processes to the end; `RuntimeError` if one fails."""
    codes = [process.wait() for process in start_pair(path, *more)]
    if codes != [0, 0]:
        raise RuntimeError(f"{path} left with {codes}; see {path}.log")


def _final_arrays(path: epath.Path) -> dict[str, bytes]:
    checkpoints = Checkpoints(path, read_only=True)
    saved = checkpoints.restore_newest()
    checkpoints.close()
    leaves = jax.tree_util.tree_leaves_with_path(saved and saved.state)
    return {jax.tree_util.keystr(key): np.asarray(leaf).tobytes() for key, leaf in leaves}


def _metrics(path: Path) -> list[dict]:
    return [_without_clock(record) for record in files.read_metrics(epath.Path(path))]


def _record_files(path: Path) -> dict[str, bytes]:
    folder = path / records.FOLDER
    return {file.name: file.read_bytes() for file in folder.glob("step-*.npz")}


def _without_clock(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in _CLOCK}


def _events(path: Path) -> list[tuple[int, dict]]:
    (file,) = (path / "tensorboard").iterdir()
    scalars = []
    for event in _records(file.read_bytes()):
        values = {value.tag: value.simple_value for value in event.summary.value}
        if values:
            scalars.append((event.step, _without_clock(values)))
    return scalars


def _records(content: bytes) -> Iterator[Event]:
    """Yields the events of a TFRecord file; each is stored as its length, two checksums and its bytes."""
    start = 0
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        yield Event.FromString(content[start + 12 : start + 12 + length])
        start += length + 16


def _parse_flags(argv: list[str]) -> list[str]:
    with exit_on_error():
        cli.parse_flags(argv)
    return argv


def main(argv: list[str]) -> None:
    """Runs all trials and prints their table."""
    logging.set_verbosity(logging.FATAL)  # Orbax logs everything it does
    rng = random.Random(_SEED.value)
    folder = Path(_WORKDIR.value).expanduser().resolve()
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        place = "it must be an empty folder, or a place for one"
        leave(UserError(f"--workdir is {_WORKDIR.value!r}; {place}"))
    if not shutil.which("uv"):
        leave(UserError("uv is not installed; half of the runs are started by it"))
    folder.mkdir(parents=True, exist_ok=True)
    reference = folder / "undisturbed"
    finish(folder / "warm-up")  # prepares the data
    began = time.monotonic()
    finish(reference)
    lifetime = time.monotonic() - began
    outcomes = [
        kill(_KILLS.value, folder, reference, lifetime, rng),
        terminate(_TERMS.value, folder, reference, lifetime, rng),
        damage(_DAMAGED.value, folder, reference, rng),
        kill_one_of_two(_PAIRS.value, folder, rng),
    ]
    table = Table("trial", "equal to the undisturbed run", "seen")
    for outcome in outcomes:
        table.add_row(outcome.trial, f"{outcome.passed} of {outcome.total}", outcome.note)
    Console(soft_wrap=True).print(table)
    print(json.dumps([outcome._asdict() for outcome in outcomes]))
    if any(outcome.passed < outcome.total for outcome in outcomes):
        sys.exit(FAILED)


if __name__ == "__main__":
    output.drop_what_cannot_be_written()
    app.run(main, flags_parser=_parse_flags)
