"""Orbax checkpoints of a train state: save, verify, restore, fall back to the one before."""

import hashlib
import logging
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from rethink_jax.train_state import TrainState

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run directory, each named by its step.

    Orbax writes a checkpoint under a temporary name and renames it when it is whole. Beside the arrays lie
    their SHA-256 digests and the fingerprint of the run's data.
    """

    def __init__(self, workdir: epath.Path, keep: int = 1, read_only: bool = False):
        self.folder = workdir / FOLDER
        self._newest_whole: int | None = None
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep,
                create=not read_only,
                read_only=read_only,
                enable_async_checkpointing=False,
            ),
        )

    def save(self, state: TrainState, fingerprint: str) -> None:
        """Saves a state of NumPy arrays under its step, unless that is the newest whole checkpoint."""
        step = int(state.step)
        if step == self._newest_whole:
            return
        if step in self._manager.all_steps():  # damaged, or it would have been restored
            self._manager.delete(step)
        meta = {"fingerprint": fingerprint, "sha256": _digests(state)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            ),
            force=True,
        )
        self._newest_whole = step

    def restore_newest(self, like: TrainState | None = None) -> tuple[Any, str] | None:
        """Restores the newest checkpoint whose arrays match their digests.

        Args:
          like: a state of the same structure, shapes and dtypes; without it, nested dicts come back.

        Returns:
          The state, of NumPy arrays, and the fingerprint of its data; None where no checkpoint is whole.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                saved = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(like), meta=ocp.args.JsonRestore()
                    ),
                )
            except Exception as error:  # whatever a damaged file makes of Orbax and TensorStore
                logger.warning("checkpoint %d is damaged and passed over: %s", step, _line(error))
                continue
            if _digests(saved["state"]) == saved["meta"]["sha256"]:
                self._newest_whole = step
                return saved["state"], saved["meta"]["fingerprint"]
            logger.warning("checkpoint %d does not match its digests and is passed over", step)
        return None

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._manager.close()


def _digests(state: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        "/".join(
            str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path
        ): (hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest())
        for path, leaf in leaves
    }


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]
