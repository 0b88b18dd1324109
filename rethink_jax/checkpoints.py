"""Orbax checkpoints of a train state: save, verify, restore, fall back to the one before."""

import contextlib
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

from rethink_jax import parallel
from rethink_jax.config import RunFailed
from rethink_jax.train_state import TrainState

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
HALF_WRITTEN = "*.orbax-checkpoint-tmp*"


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


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Has absl's log, and so Orbax, print errors alone."""
    log = logging.getLogger("absl")

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    log.addFilter(is_error)
    try:
        yield
    finally:
        log.removeFilter(is_error)


class Checkpoints:
    """The checkpoints of one run directory, each named by its step; only the primary process has them open.

    Orbax writes a checkpoint under a temporary name and renames it when it is whole; what was left
    half-written is removed when a run is taken up. Beside the arrays lie SHA-256 digests of all that was saved.
    """

    def __init__(self, workdir: epath.Path, keep: int = 1, read_only: bool = False):
        self.folder = workdir / FOLDER
        self._newest_whole: int | None = None
        if not read_only:
            self.folder.mkdir(exist_ok=True)
        with _without_warnings():  # Orbax's, that what is only read is only read
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=None if read_only else keep,
                    create=False,
                    read_only=read_only,
                    cleanup_tmp_directories=not read_only,
                    enable_async_checkpointing=False,
                    multiprocessing_options=ocp.options.MultiprocessingOptions(
                        primary_host=jax.process_index(), active_processes={jax.process_index()}
                    ),
                ),
            )

    def save(self, saved: Saved) -> None:
        """Saves a state of NumPy arrays under its step, unless that is the newest whole checkpoint.

        Raises:
          RunFailed: it cannot be written; those before it are as they were.
        """
        step = int(saved.state.step)
        if step == self._newest_whole:
            return
        if not self.folder.exists():
            raise RunFailed(f"{self.folder} is gone; the state at step {step} is not saved")
        meta = {**saved._asdict(), "sha256": _digests(saved)}
        del meta["state"]
        try:
            if step in self._manager.all_steps():  # damaged, or it would have been restored
                self._manager.delete(step)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(saved.state), meta=ocp.args.JsonSave(meta)
                ),
                force=True,
            )
        except Exception as error:  # Orbax and TensorStore agree on no type for a full disk
            for half in self.folder.glob(HALF_WRITTEN):
                half.rmtree(missing_ok=True)
            kept = self._newest_whole
            left = "no checkpoint is left" if kept is None else f"step {kept} is the newest left"
            raise RunFailed(
                f"checkpoint {step} cannot be written in {self.folder}: {_line(error)}; {left}"
            ) from error
        self._newest_whole = step

    def restore_newest(self, like: TrainState | None = None) -> Saved | None:
        """Restores the newest checkpoint that matches its digests.

        Args:
          like: a state of the same structure, shapes and dtypes; without it, nested dicts come back.

        Returns:
          What was saved; None where no checkpoint is whole.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                items = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(like), meta=ocp.args.JsonRestore()
                    ),
                )
                digests = items["meta"].pop("sha256")
                saved = Saved(items["state"], **items["meta"])
                whole = _digests(saved) == digests
            except Exception as error:  # whatever a damaged file makes of Orbax and TensorStore
                logger.warning("checkpoint %d is damaged and passed over: %s", step, _line(error))
                continue
            if whole:
                self._newest_whole = step
                return saved
            logger.warning("checkpoint %d does not match its digests and is passed over", step)
        return None

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._manager.close()


def newest_history(workdir: epath.Path) -> list[dict[str, Any]] | None:
    """Returns the evaluations that a run's newest checkpoint has, without its state.

    None where there is no checkpoint; no evaluations where its file cannot be read.
    """
    folder = workdir / FOLDER
    steps = (
        [int(step.name) for step in folder.iterdir() if step.name.isdecimal()]
        if folder.exists()
        else []
    )
    if not steps:
        return None
    try:
        return json.loads((folder / str(max(steps)) / "meta" / "metadata").read_text())["history"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def restore_on_all(checkpoints: Checkpoints | None, like: TrainState) -> Saved | None:
    """Returns what the primary process restores, on all processes.

    Args:
      checkpoints: the primary process's; None on the others.
      like: a state of the same structure, shapes and dtypes.
    """
    saved = checkpoints.restore_newest(like) if checkpoints is not None else None
    meta = parallel.on_primary(lambda: saved and list(saved[1:]))
    if meta is None:
        return None
    return Saved(parallel.broadcast(like if saved is None else saved.state), *meta)


def _digests(saved: Saved) -> dict[str, str]:
    """Returns the SHA-256 of each array, and of all else together."""
    leaves = jax.tree_util.tree_leaves_with_path(saved.state)
    digests = {
        "/".join(
            str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path
        ): hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
        for path, leaf in leaves
    }
    rest = json.dumps(saved[1:], sort_keys=True)
    return digests | {"": hashlib.sha256(rest.encode()).hexdigest()}


def _line(error: Exception) -> str:
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]
