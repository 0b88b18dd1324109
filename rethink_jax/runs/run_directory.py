"""The directory of a run: its path, who may use it, how it is opened, and what `run.json` says."""

import contextlib
import errno
import fcntl
import logging
import os
import platform
import time
from collections.abc import Iterator
from typing import Any, TextIO

from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from rethink_jax import corruptions
from rethink_jax.config import may_change
from rethink_jax.data import label_files
from rethink_jax.errors import InUse, UserError
from rethink_jax.runs import environment, files, own_files
from rethink_jax.runs.files import is_in_bucket
from rethink_jax.runs.own_files import CONFIG, ENVIRONMENT, LOCK, SWEEP

logger = logging.getLogger(__name__)

# Errors of a file system without locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


def path_of(workdir: epath.PathLike | None, *words: str) -> epath.Path:
    """Returns a run's directory: `workdir`, or the words with dashes between them in `runs`.

    Raises:
      UserError: for a name that cannot be written in one line, or that TensorStore cannot open.
    """
    where = epath.Path("runs", "-".join(words)) if workdir is None else epath.Path(workdir)
    path = absolute(where)
    own_files.check_name(path)
    return path


def absolute(path: epath.Path) -> epath.Path:
    """Returns a path that does not depend on the current directory; an address as it is."""
    return path if is_in_bucket(path) else path.expanduser().resolve()


def summary_of(path: epath.Path, config: ConfigDict) -> dict[str, Any] | None:
    """Returns `summary.json` of a run of this config, None where there is none.

    Raises:
      UserError: the directory is in use, or holds something else or a run of another config.
    """
    check_usable(path, config)
    return files.read_summary(path)


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
    """Makes or reopens a run directory, and keeps other processes out while it is open.

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


# In `run.json`, the SHA-256 of `config.corruption.file`, which is no part of the data's fingerprint.
CORRUPTION_FILE = "corruption_file"


def write_metadata(
    path: epath.Path, config: ConfigDict, start_step: int | None = None, **more: Any
) -> None:
    """Removes half-written files and writes `config.json` and `run.json`.

    Args:
      path: of an open run directory.
      config: of the run.
      start_step: of a training run, the step that it starts from. `sessions` in `run.json` keeps the step, date
        and environment of each start; of a run of an older version only the last environment is known.
      more: further fields of `run.json`, beside the description of the environment.
    """
    description = environment.describe()
    if start_step is not None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        session = {"step": start_step, "date": now, **description}
        more["sessions"] = [*_earlier_sessions(path, tuple(description)), session]
    if digests := files.read_digests(path):
        more["digests"] = digests
    if "corruption" in config and config.corruption.name in corruptions.FROM_FILE:
        more[CORRUPTION_FILE] = label_files.digest(config.corruption.file)
    own_files.remove_partial(path)
    files.write_json(path / CONFIG, config.to_dict())
    files.write_json(path / ENVIRONMENT, description | more)


def _earlier_sessions(path: epath.Path, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    if not (path / ENVIRONMENT).exists():
        return []
    before = files.read_environment(path)
    sessions = before.get("sessions")
    if isinstance(sessions, list) and all(isinstance(session, dict) for session in sessions):
        return sessions
    return [{"step": None, "date": None, **{field: before.get(field) for field in fields}}]


def check_same_run(path: epath.Path, config: ConfigDict) -> None:
    """Refuses a directory that holds a run of another config; writes nothing.

    Raises:
      UserError: with the fields that differ; some may change (`config.may_change`).
    """
    if (path / CONFIG).exists():
        before, after = files.read_config(path), config.to_dict()
        changeable = may_change(after)
        differing = [
            f"config.{field} {old!r} → {new!r}"
            for field, old, new in differences(before, after)
            if field not in changeable
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


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns the flattened fields that differ, with what they were and are; lists are tuples in JSON."""
    old, new = (flatten_dict(files.with_tuples(fields), sep=".") for fields in (before, after))
    return [
        (field, old.get(field), new.get(field))
        for field in sorted(old | new)
        if old.get(field) != new.get(field)
    ]
