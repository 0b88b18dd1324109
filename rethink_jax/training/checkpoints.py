"""Orbax checkpoints of a train state: save, verify, restore, fall back to the one before."""

import contextlib
import errno
import glob
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from etils.epath.gpath import PosixGPath

from rethink_jax.distributed import processes
from rethink_jax.errors import RunFailed
from rethink_jax.training.train_state import TrainState

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
_STATE, _META = "state", "meta"
# What Orbax puts into a checkpoint; a directory that has none of it is not one.
_ENTRIES = {_STATE, _META, "_CHECKPOINT_METADATA"}
_COMMITTED = "commit_success.txt"
_HALF_WRITTEN = re.compile(r"\d+\.orbax-checkpoint-tmp(-\d+)?")

# What a damaged file makes of Orbax, TensorStore and json; any other error says nothing about the checkpoint.
_DECODING = (ValueError, KeyError, TypeError, AttributeError, IndexError)
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_MISSING_CODES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_TEMPORARY = re.compile(
    "RESOURCE_EXHAUSTED|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|PERMISSION_DENIED"
    "|UNAUTHENTICATED|UNIMPLEMENTED|INTERNAL|UNKNOWN"
)


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      state: of NumPy arrays.
      fingerprint: of the run's data.
      history: the evaluations up to the state's step, as in `metrics.jsonl`.
      epoch_correct: the correct answers of the steps of this epoch so far, each before its step.
    """

    state: Any
    fingerprint: str
    history: list[dict[str, Any]]
    epoch_correct: int = 0


class _Literal(PosixGPath):
    """A path whose own characters are never a pattern: Orbax looks for files below it with `glob`."""

    def glob(self, pattern: str) -> Iterator["_Literal"]:
        """Yields what matches the pattern below this path."""
        escaped = type(self)(glob.escape(os.fspath(self)))
        yield from super(_Literal, escaped).glob(pattern)


class Checkpoints:
    """The checkpoints of one run directory, each named by its step; only the primary process has them open.

    Orbax writes a checkpoint under a temporary name and renames it when it is whole. Beside the arrays lie
    SHA-256 digests of all that was saved. What else is in the folder is left alone.
    """

    def __init__(self, workdir: epath.Path, keep: int = 1, read_only: bool = False):
        self.folder = _Literal(workdir) / FOLDER
        self._keep = keep
        self._newest_whole: int | None = None
        self._damaged: set[int] = set()
        if not read_only:
            self.folder.mkdir(exist_ok=True)
        options = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        )
        # The handlers, too, would otherwise wait for the other processes.
        self._orbax = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(
                composite_options=ocp.CompositeOptions(multiprocessing_options=options),
                **{
                    _STATE: ocp.StandardCheckpointHandler(multiprocessing_options=options),
                    _META: ocp.JsonCheckpointHandler(multiprocessing_options=options),
                },
            ),
            multiprocessing_options=options,
        )

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints that are there, damaged ones included, in order."""
        return steps_in(self.folder)

    def save(self, saved: Saved) -> None:
        """Saves a state of NumPy arrays under its step, unless that is the newest whole checkpoint.

        Raises:
          RunFailed: it cannot be written; those before it are as they were.
        """
        step = int(saved.state.step)
        if not self.folder.exists():
            raise RunFailed(f"{self.folder} is gone; the state at step {step} is not saved")
        remove_half_written(self.folder)
        if step == self._newest_whole:
            return
        target = self.folder / str(step)
        if target.exists() and step not in self.steps():
            raise RunFailed(f"{target} is no checkpoint; move it, and run the same command again")
        meta = {**saved._asdict(), "sha256": _digests(saved)}
        del meta["state"]
        items = {_STATE: ocp.args.StandardSave(saved.state), _META: ocp.args.JsonSave(meta)}
        try:
            # One that is there already is damaged, or it would have been restored.
            self._orbax.save(target, args=ocp.args.Composite(**items), force=True)
        except Exception as error:  # Orbax and TensorStore agree on no type for a full disk
            # Its threads may still write there; what is left now, the next save removes.
            with contextlib.suppress(OSError):
                remove_half_written(self.folder)
            kept = self._newest_whole
            consequence = (
                "no checkpoint is left" if kept is None else f"step {kept} is the newest left"
            )
            raise RunFailed(
                f"checkpoint {step} cannot be written in {self.folder}: {_line(error)}; {consequence}"
            ) from error
        self._newest_whole = step
        self._damaged.discard(step)
        self._remove_old(step)

    def _remove_old(self, newest: int) -> None:
        earlier = [step for step in self.steps() if step <= newest]
        whole = [step for step in earlier if step not in self._damaged]
        for step in set(earlier) - set(whole[-self._keep :]):
            (self.folder / str(step)).rmtree(missing_ok=True)

    def restore_newest(self, like: TrainState | None = None) -> Saved | None:
        """Restores the newest checkpoint that matches its digests.

        Args:
          like: a state of the same structure, shapes and dtypes; without it, nested dicts come back.

        Returns:
          What was saved; None where no checkpoint is whole.

        Raises:
          RunFailed: one cannot be read, which does not mean that it is damaged, or is of another structure.
        """
        for step in reversed(self.steps()):
            try:
                saved = self._read(step)
            except Exception as error:
                if not _is_damage(error) or not _can_be_read(self.folder / str(step)):
                    raise RunFailed(
                        f"checkpoint {step} in {self.folder} cannot be read: {_line(error)}; "
                        "nothing was changed, run the same command again"
                    ) from error
                logger.warning("checkpoint %d is damaged and passed over: %s", step, _line(error))
                self._damaged.add(step)
                continue
            if saved is None:
                logger.warning("checkpoint %d does not match its digests and is passed over", step)
                self._damaged.add(step)
                continue
            if like is not None:
                saved = saved._replace(state=self._fit(step, saved.state, like))
            self._newest_whole = step
            return saved
        return None

    def _read(self, step: int) -> Saved | None:
        """Returns what a checkpoint holds, arrays in nested dicts; None where it does not match its digests."""
        items = self._orbax.restore(
            self.folder / str(step),
            args=ocp.args.Composite(
                **{_STATE: ocp.args.StandardRestore(), _META: ocp.args.JsonRestore()}
            ),
        )
        meta = dict(items[_META])
        digests = meta.pop("sha256")
        saved = Saved(items[_STATE], **meta)
        return saved if _digests(saved) == digests else None

    def _fit(self, step: int, state: Any, like: TrainState) -> TrainState:
        """Returns the arrays of nested dicts in the structure of `like`.

        Raises:
          RunFailed: they have other names, shapes or dtypes.
        """
        restored, expected = _by_name(state), _by_name(like)
        kinds = [
            {name: (leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
            for leaves in (restored, expected)
        ]
        if kinds[0] != kinds[1]:
            differing = sorted(name for name, _ in kinds[0].items() ^ kinds[1].items())
            raise RunFailed(
                f"checkpoint {step} in {self.folder} is of another model or version: {differing[0]} differs; "
                "nothing was changed"
            )
        return jax.tree.unflatten(jax.tree.structure(like), [restored[name] for name in expected])

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._orbax.close()


def steps_in(folder: epath.Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, damaged ones included, in order."""
    return sorted(int(entry.name) for entry in _entries(folder) if _is_checkpoint(entry))


def half_written(folder: epath.Path) -> list[epath.Path]:
    """Returns what a killed process left of checkpoints in a folder."""
    return [
        entry
        for entry in _entries(folder)
        if _HALF_WRITTEN.fullmatch(entry.name) or _is_checkpoint(entry, committed=False)
    ]


def _entries(folder: epath.Path) -> list[epath.Path]:
    return list(folder.iterdir()) if folder.exists() else []


def _is_checkpoint(path: epath.Path, committed: bool = True) -> bool:
    """Returns whether Orbax has made this directory; in a bucket, which cannot rename, to its end or not."""
    if not re.fullmatch(r"0|[1-9]\d*", path.name):
        return False
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # a run may be removing it
        names = {entry.name for entry in path.iterdir()}
        is_whole = "://" not in os.fspath(path) or _COMMITTED in names
        return bool(_ENTRIES & names) and is_whole == committed
    return False


def remove_half_written(folder: epath.Path) -> None:
    """Removes what a killed process left of checkpoints."""
    for folder_left in half_written(folder):
        folder_left.rmtree(missing_ok=True)


def newest_history(workdir: epath.Path) -> list[dict[str, Any]] | None:
    """Returns the evaluations that a run's newest checkpoint has, without its state.

    None where there is no checkpoint; one empty evaluation, which no run has, where its file cannot be read.
    """
    folder = workdir / FOLDER
    steps = steps_in(folder)
    if not steps:
        return None
    try:
        return json.loads((folder / str(steps[-1]) / _META / "metadata").read_text())["history"]
    except (OSError, ValueError, KeyError, TypeError):
        return [{}]


def restore_on_all(checkpoints: Checkpoints | None, like: TrainState) -> Saved | None:
    """Returns what the primary process restores, on all processes.

    Args:
      checkpoints: the primary process's; None on the others.
      like: a state of the same structure, shapes and dtypes.

    Raises:
      RunFailed: as `Checkpoints.restore_newest` does.
    """
    restored: list[Saved | None] = []

    def restore() -> list[Any] | None:
        saved = checkpoints.restore_newest(like) if checkpoints is not None else None
        restored.append(saved)
        return saved and list(saved[1:])

    meta = processes.on_primary(restore)
    if meta is None:
        return None
    saved = restored[0] if restored else None
    return Saved(processes.broadcast(like if saved is None else saved.state), *meta)


def _is_damage(error: BaseException) -> bool:
    """Returns whether an error of reading comes from the checkpoint's bytes, and would come again."""
    if isinstance(error, OSError):
        return isinstance(error, _MISSING)
    text = str(error)
    if codes := re.findall(r"os_error_code='(\d+)'", text):
        return all(int(code) in _MISSING_CODES for code in codes)
    return isinstance(error, _DECODING) and not _TEMPORARY.match(text)


def _digests(saved: Saved) -> dict[str, str]:
    """Returns the SHA-256 of each array, and of all else together."""
    digests = {
        name: hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
        for name, leaf in _by_name(saved.state).items()
    }
    rest = json.dumps(saved[1:], sort_keys=True)
    return digests | {"": hashlib.sha256(rest.encode()).hexdigest()}


def _can_be_read(path: epath.Path) -> bool:
    """Returns whether every file that is there can be opened: what cannot be is reported as missing, too."""
    try:
        if path.is_dir():
            return all(map(_can_be_read, path.iterdir()))
        with path.open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def _by_name(state: Any) -> dict[str, Any]:
    """Returns the arrays of a state, in its own structure or in nested dicts, by the same names."""
    return {
        "/".join(
            str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path
        ): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _line(error: Exception) -> str:
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]
