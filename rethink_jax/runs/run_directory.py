"""What every experiment leaves behind, and how it is read again."""

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
from etils import epath
from ml_collections import ConfigDict

from rethink_jax.config import default_config_for, with_todays_names
from rethink_jax.errors import InUse, UserError
from rethink_jax.runs import own_files
from rethink_jax.runs.own_files import (
    CONFIG as CONFIG,
    ENVIRONMENT as ENVIRONMENT,
    LOCK as LOCK,
    METRICS as METRICS,
    PARTIAL as PARTIAL,
    SUMMARY as SUMMARY,
    SWEEP as SWEEP,
)
from rethink_jax.training.checkpoints import Checkpoints

logger = logging.getLogger(__name__)

# Fields that a run may change when it is taken up again: they do not change what it computes up to a step.
CHANGEABLE = (
    *("experiment", "epochs", "steps", "stop_when_fitted"),
    *("evaluate", "checkpoint", "grace_seconds", "compilation_cache", "solver", "data.workers"),
    "data.data_dir",  # the data's fingerprint tells whether they are the same
)

# What a file system without locks answers.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)

# Of variables that may change what a run computes.
_PREFIXES = ("JAX_", "XLA_", "LIBTPU_", "NVIDIA_TF32_", "TF_CUDNN_", "TF_XLA_")

# JAX's settings that may do so, and their values where nothing sets them.
JAX_DEFAULTS: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_enable_custom_prng": False,
    "jax_random_seed_offset": 0,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_softmax_custom_jvp": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_memory_fitting_level": "O2",
    "jax_default_device": None,
    "jax_num_cpu_devices": -1,
}
_PACKAGES = ("rethink_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Run(NamedTuple):
    """A run as its directory tells it.

    Attributes:
      config: as it ran.
      metrics: one dict for each evaluation; the keys of `metrics.jsonl`.
      summary: `summary.json`, or an empty dict for a run that has not ended.
      params: the model's parameters of the newest whole checkpoint, NumPy; None where there is none.
      batch_stats: BatchNorm's running statistics likewise.
    """

    config: ConfigDict
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    params: Any
    batch_stats: Any


def load_run(workdir: epath.PathLike) -> Run:
    """Reads a run directory.

    Args:
      workdir: the directory of a training run.

    Returns:
      Its config, metrics, summary and parameters.

    Raises:
      UserError: where there is no run in that directory.
    """
    path = _absolute(epath.Path(workdir))
    if not (path / CONFIG).exists():
        raise UserError(f"{workdir} holds no run: {CONFIG} is missing there")
    checkpoints = Checkpoints(path, read_only=True)
    saved = checkpoints.restore_newest()
    checkpoints.close()
    state = saved.state if saved else {"params": None, "batch_stats": None}
    return Run(
        config=ConfigDict(_with_tuples(read_config(path))),
        metrics=read_metrics(path),
        summary=read_summary(path) or {},
        params=state["params"],
        batch_stats=state.get("batch_stats") or {},
    )


def path_of(workdir: epath.PathLike | None, *words: str) -> epath.Path:
    """Returns a run's directory: `workdir`, or the words with dashes between them in `runs`.

    Raises:
      UserError: for a name that cannot be written in one line, or that TensorStore cannot open.
    """
    where = epath.Path("runs", "-".join(words)) if workdir is None else epath.Path(workdir)
    path = _absolute(where)
    own_files.check_name(path)
    return path


def is_in_bucket(path: epath.PathLike) -> bool:
    """Returns whether a path is an address, `gs://…`: there are no locks there and nothing is appended."""
    return "://" in os.fspath(path)


def _absolute(path: epath.Path) -> epath.Path:
    return path if is_in_bucket(path) else path.expanduser().resolve()


def summary_of(path: epath.Path, config: ConfigDict) -> dict[str, Any] | None:
    """Returns `summary.json` of a run of this config, None where there is none.

    Raises:
      UserError: the directory is in use, or holds something else or a run of another config.
    """
    check_usable(path, config)
    return read_summary(path)


def check_usable(path: epath.Path, config: ConfigDict) -> None:
    """Refuses a directory that is in use, or holds something else or a run of another config; writes nothing.

    Raises:
      UserError: with what is wrong.
    """
    own_files.check(path)
    check_free(path)
    check_same_run(path, config)


@contextlib.contextmanager
def open_run(path: epath.Path, config: ConfigDict) -> Iterator[None]:
    """Makes a run directory, or takes one up again, and keeps other processes out while it is open.

    Raises:
      UserError: it is in use, cannot be written, or holds something else or a run of another config.
    """
    own_files.check(path)
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_lock(path))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise UserError(
                f"{path} cannot be written: {error.strerror}; choose another --workdir"
            ) from error
        check_same_run(path, config)
        yield


def check_free(path: epath.Path) -> None:
    """Raises `UserError` where another process has the run open; writes nothing."""
    if (path / LOCK).exists() and not is_in_bucket(path):
        with open(path / LOCK, errors="replace") as file:
            _take(file, fcntl.LOCK_SH, path)


@contextlib.contextmanager
def _lock(path: epath.Path) -> Iterator[None]:
    """Holds the directory's lock, which the system takes back from a process that has died."""
    if is_in_bucket(path):
        yield
        return
    with open(path / LOCK, "a+", errors="replace") as file:  # epath knows no "a+"
        if not _take(file, fcntl.LOCK_EX, path):
            logger.warning(
                "%s cannot be locked on its file system; see that no other process runs in it", path
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%F %T')}\n")
        file.flush()
        yield


@contextlib.contextmanager
def locked(file: epath.Path) -> Iterator[None]:
    """Waits for a lock on a file, and holds it; where there are no locks there is nothing to wait for."""
    if is_in_bucket(file):
        yield
        return
    with open(file, "a") as held:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _take(file: TextIO, kind: int, path: epath.Path) -> bool:
    """Takes a lock until the file is closed, and returns whether its file system has locks.

    Raises:
      InUse: another process has it.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = " ".join(file.read().split()) or "another process"
        raise InUse(
            f"{path} is in use by {holder}; wait for it, or choose another --workdir"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def describe(
    path: epath.Path, config: ConfigDict, start_step: int | None = None, **more: Any
) -> None:
    """Begins to write: removes half-written files, writes `config.json` and `run.json`.

    `more` is told beside the environment.

    A training run gives the step that it starts from. Its `sessions` keep one entry for each start: step, date
    and environment. Of the starts of an older version only the last one's environment is known.
    """
    told = environment()
    if start_step is not None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        session = {"step": start_step, "date": now, **told}
        more["sessions"] = [*_earlier_sessions(path, tuple(told)), session]
    if digests := _read_digests(path):
        more["digests"] = digests
    own_files.remove_partial(path)
    write_json(path / CONFIG, config.to_dict())
    write_json(path / ENVIRONMENT, told | more)


def _earlier_sessions(path: epath.Path, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    if not (path / ENVIRONMENT).exists():
        return []
    before = _read_environment(path)
    sessions = before.get("sessions")
    if isinstance(sessions, list) and all(isinstance(session, dict) for session in sessions):
        return sessions
    return [{"step": None, "date": None, **{field: before.get(field) for field in fields}}]


def check_same_run(path: epath.Path, config: ConfigDict) -> None:
    """Refuses a directory that holds a run of another config; writes nothing.

    Raises:
      UserError: with the fields that differ; those in `CHANGEABLE` may.
    """
    if (path / CONFIG).exists():
        before, after = read_config(path), config.to_dict()
        changeable = {*CHANGEABLE}
        if after.get("optimizer", {}).get("schedule") == "cosine":
            changeable -= {"epochs", "steps"}  # the rate of every step depends on them
        differing = [
            f"config.{field} {old!r} → {new!r}"
            for field, old, new in differences(before, after)
            if not {field, field.split(".")[0]} & changeable
        ]
        if differing:
            raise UserError(
                f"{path} holds a run of another config ({', '.join(differing)}); "
                "choose another --workdir"
            )


def check_no_sweep(path: epath.Path) -> None:
    """Refuses a sweep's folder for a run of one's own, and a new one in it, which would be in the sweep's way.

    Raises:
      UserError: with the sweep's folder.
    """
    if (path / SWEEP).exists():
        raise UserError(f"{path} holds a sweep and no run; choose another --workdir")
    if (path.parent / SWEEP).exists() and not (path / CONFIG).exists():
        raise UserError(f"{path} lies in the folder of a sweep; choose another --workdir")


def environment(**more: Any) -> dict[str, Any]:
    """Returns what `run.json` tells of the machine and the code, with `more` beside it."""
    return {
        "git": _git_revision(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "variables": _variables(),
        "jax_settings": _jax_settings(),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"] or "default",
        **more,
    }


def _variables() -> dict[str, str]:
    """Returns the variables of the environment that JAX, XLA and their libraries read."""
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_PREFIXES)}


def _jax_settings() -> dict[str, Any]:
    """Returns the settings of `JAX_DEFAULTS` that have another value now."""
    values = {name: jax.config.values.get(name) for name in JAX_DEFAULTS}
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in values.items()
        if value != JAX_DEFAULTS[name]
    }


def read_metrics(path: epath.Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`; an unfinished last line is left out.

    Raises:
      UserError: another line is damaged.
    """
    file = path / METRICS
    if not file.exists():
        return []
    try:
        lines = file.read_text().split("\n")
        return [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}") from error


def read_json(path: epath.Path) -> dict[str, Any]:
    """Reads one of a run's JSON files.

    Raises:
      UserError: it is none.
      OSError: it cannot be read, which says nothing of what is in it.
    """
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, IsADirectoryError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}; choose another --workdir") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no object; choose another --workdir")
    return content


def read_config(path: epath.Path) -> dict[str, Any]:
    """Reads a run's `config.json`; fields that it lacks, newer than the run, have their defaults.

    Fields that had another name when the run was made have today's.

    A field that `resolve` fills in has no default here, so a new one must be left None where it is not set.

    Raises:
      UserError: there is none, or it is damaged.
    """
    return complete(read_json(path / CONFIG))


def complete(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns a config's fields under today's names, with the defaults of those that are newer than it."""
    fields = with_todays_names(fields)
    return with_defaults(fields, default_config_for(ConfigDict(fields)).to_dict())


def with_defaults(fields: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields with the defaults of those that are missing, in groups, too."""
    groups = {
        name: with_defaults(value, defaults[name])
        for name, value in fields.items()
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
    }
    return defaults | fields | groups


def write_summary(path: epath.Path, summary: dict[str, Any]) -> None:
    """Writes `summary.json` of a run without checkpoints, and first its digest into `run.json`.

    The digest of the one before stays there: whichever of the two files a kill leaves as it was, they fit.
    """
    text, file = _to_text(summary), path / SUMMARY
    known = _read_digests(path)
    before = [_digest(file.read_bytes())] if file.exists() else []
    digests = [_digest(text.encode()), *(digest for digest in before if digest in known)]
    write_json(path / ENVIRONMENT, _read_environment(path) | {"digests": digests})
    write_text(file, text)


def read_summary(path: epath.Path) -> dict[str, Any] | None:
    """Reads `summary.json`; None where there is none.

    Raises:
      UserError: it is damaged, or does not match its digest, where `run.json` has one.
    """
    file = path / SUMMARY
    if not file.exists():
        return None
    summary, digests = read_json(file), _read_digests(path)
    if digests and _digest(file.read_bytes()) not in digests:
        raise UserError(
            f"{file} is damaged: it does not match its digest in {ENVIRONMENT}; choose another --workdir"
        )
    return summary


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_digests(path: epath.Path) -> list[str]:
    """Returns what `run.json` says of `summary.json`; nothing in runs of an older version."""
    digests = _read_environment(path).get("digests")
    return digests if isinstance(digests, list) else []


def _read_environment(path: epath.Path) -> dict[str, Any]:
    """Returns the content of `run.json`; nothing where it is damaged, because it is written anew.

    Raises:
      OSError: it cannot be read.
    """
    if not (path / ENVIRONMENT).exists():
        return {}
    try:
        return read_json(path / ENVIRONMENT)
    except UserError:
        return {}


def write_json(path: epath.Path, value: Any) -> None:
    """Writes one JSON file, whole or not at all."""
    write_text(path, _to_text(value))


def _to_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_text(path: epath.Path, text: str) -> None:
    """Writes one text file, whole or not at all."""
    write_whole(path, lambda partial: partial.write_text(text))


def write_whole(path: epath.Path, write: Callable[[epath.Path], object]) -> None:
    """Has `write` write a file under another name until it is whole, and on the disk."""
    partial = path.with_name(path.name + PARTIAL)
    write(partial)
    if is_in_bucket(path):
        partial.replace(path)
        return
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def _sync(path: epath.Path) -> None:
    """Has the system write a file, or a directory's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # a file system may sync no directories
            raise
    finally:
        os.close(descriptor)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns the flattened fields that differ, with what they were and are; lists are tuples in JSON."""
    old, new = (_flat(_with_tuples(fields)) for fields in (before, after))
    return [
        (field, old.get(field), new.get(field))
        for field in sorted(old | new)
        if old.get(field) != new.get(field)
    ]


def _with_tuples(value: Any) -> Any:
    """Returns what JSON has made of a config's fields, with tuples in the place of lists."""
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(_with_tuples(inner) for inner in value) if isinstance(value, list) else value


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in fields.items():
        inner = (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
        flat.update(inner)
    return flat


def _cpu_model() -> str:
    """Returns the processor's name; Python's own `platform.processor` does not know it on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git_revision() -> dict[str, Any] | None:
    """Returns the project's revision; None for an installed package, whatever repository it lies in."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        if Path(git("rev-parse", "--show-toplevel")) != Path(__file__).resolve().parents[2]:
            return None
        revision = git("rev-parse", "HEAD")
        return {"revision": revision, "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
