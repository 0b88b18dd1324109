"""A run's JSON and text files: written whole or not at all, read and checked against their digests."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from rethink_jax.config import default_config_for, with_todays_names
from rethink_jax.errors import UserError
from rethink_jax.runs.own_files import CONFIG, ENVIRONMENT, METRICS, PARTIAL, SUMMARY


def is_in_bucket(path: epath.PathLike) -> bool:
    """Returns whether a path is an address, `gs://…`: there are no locks there and nothing is appended."""
    return "://" in os.fspath(path)


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
      UserError: it is not a JSON object.
      OSError: it cannot be read, which says nothing about its content.
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

    A field that `fill_in` fills in has no default here, so a new one must be left None where it is not set.

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
    known = read_digests(path)
    before = [_digest(file.read_bytes())] if file.exists() else []
    digests = [_digest(text.encode()), *(digest for digest in before if digest in known)]
    write_json(path / ENVIRONMENT, read_environment(path) | {"digests": digests})
    write_text(file, text)


def read_summary(path: epath.Path) -> dict[str, Any] | None:
    """Reads `summary.json`; None where there is none.

    Raises:
      UserError: it is damaged, or does not match its digest, where `run.json` has one.
    """
    file = path / SUMMARY
    if not file.exists():
        return None
    summary, digests = read_json(file), read_digests(path)
    if digests and _digest(file.read_bytes()) not in digests:
        raise UserError(
            f"{file} is damaged: it does not match its digest in {ENVIRONMENT}; choose another --workdir"
        )
    return summary


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_digests(path: epath.Path) -> list[str]:
    """Returns what `run.json` says of `summary.json`; nothing in runs of an older version."""
    digests = read_environment(path).get("digests")
    return digests if isinstance(digests, list) else []


def read_environment(path: epath.Path) -> dict[str, Any]:
    """Returns the content of `run.json`; nothing where it is missing or damaged.

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
    """Calls `write` with a temporary name, and renames the file to its own once it is on the disk."""
    partial = path.with_name(path.name + PARTIAL)
    write(partial)
    if is_in_bucket(path):
        partial.replace(path)
        return
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def _sync(path: epath.Path) -> None:
    """Flushes a file, or a directory's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # A file system may sync no directories.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


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


def with_tuples(value: Any) -> Any:
    """Returns a config's fields as read from JSON, with lists turned back into tuples."""
    if isinstance(value, dict):
        return {name: with_tuples(inner) for name, inner in value.items()}
    return tuple(with_tuples(inner) for inner in value) if isinstance(value, list) else value
