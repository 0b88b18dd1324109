"""What a training run writes while it runs: checkpoints, metrics, progress, summary."""

import contextlib
import functools
import logging
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax.data import DatasetInfo
from rethink_jax.distributed import preemption, processes
from rethink_jax.errors import Diverged, RunFailed, UserError
from rethink_jax.runs import display, files, own_files, run_directory, score_table, writers
from rethink_jax.training import metrics, records, scores
from rethink_jax.training.checkpoints import Checkpoints, Saved, restore_on_all
from rethink_jax.training.train_state import TrainState

logger = logging.getLogger(__name__)


class Recorder:
    """The open files of one run; all processes make the same calls, the primary one writes.

    A file that cannot be written raises `RunFailed` on all of them.

    Attributes:
      history: the evaluations so far, as in `metrics.jsonl`.
      epoch_correct: the correct answers of the epoch's steps so far, each before its step.
      newest: in words, the newest checkpoint.
      records: of every example; None where the config asks for none.
    """

    def __init__(
        self,
        path: epath.Path,
        config: ConfigDict,
        fingerprint: str,
        dataset_info: DatasetInfo,
        stop_request: preemption.StopRequest,
        data_fingerprint: str = "",
    ):
        self.history: list[metrics.Record] = []
        self.epoch_correct = 0
        self.newest = f"no checkpoint is in {path} yet"
        self.records = records.Writer(path, dataset_info) if config.records.every_epochs else None
        self._path = path
        self._config = config
        self._fingerprint = fingerprint
        self._data_fingerprint = data_fingerprint
        self._dataset_info = dataset_info
        self._stop_request = stop_request
        self._open_files = contextlib.ExitStack()
        self._checkpoints: Any = None
        self._writer: Any = None
        self._display: Any = None

    def __enter__(self) -> "Recorder":
        def open_files() -> None:
            self._open_files.enter_context(run_directory.open_run(self._path, self._config))
            self._checkpoints = Checkpoints(self._path, self._config.checkpoint.keep)
            self._open_files.callback(self._checkpoints.close)

        processes.on_primary(open_files)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open_files.close()

    def restore(
        self,
        initial_state: TrainState,
        total_steps: int,
        progress: display.ProgressDisplay | None = None,
    ) -> TrainState:
        """Returns the state to resume from, restores `history`, and starts to write and to show.

        Raises:
          UserError: the directory's run was trained on other data.
          RunFailed: there are checkpoints and none can be restored; nothing was written.
        """
        saved = restore_on_all(self._checkpoints, initial_state)
        state = initial_state
        if saved is None:
            processes.on_primary(self._refuse_damaged)
        else:
            if saved.fingerprint != self._fingerprint:
                raise UserError(
                    f"{self._path} was trained on other data: fingerprint {saved.fingerprint[:8]}, "
                    f"now {self._fingerprint[:8]}; choose another --workdir"
                )
            state, self.history = saved.state, saved.history
            self.epoch_correct = saved.epoch_correct
            self._set_newest(int(state.step))
            logger.info("resuming from step %d in %s", state.step, self._path)

        def begin() -> None:
            if self.records:
                self.records.restore(int(state.step))
                self.records.cut_back(int(state.step))
            run_directory.write_metadata(
                self._path,
                self._config,
                start_step=int(state.step),
                num_train=self._dataset_info.num_train,
                num_classes=self._dataset_info.num_classes,
                fingerprint=self._fingerprint,
                data_fingerprint=self._data_fingerprint,
            )
            self._writer = writers.MetricsWriter(self._path, self.history)
            self._open_files.callback(self._writer.close)
            logger.info("run directory: %s", self._path)

        processes.on_primary(begin)
        self._display = self._open_files.enter_context(display.show_run(total_steps, progress))
        return state

    def _refuse_damaged(self) -> None:
        if steps := self._checkpoints.steps():
            listed = ", ".join(map(str, steps))
            raise RunFailed(
                f"none of the checkpoints in {self._checkpoints.folder} is whole ({listed}); "
                "nothing was changed; remove them to train anew, or choose another --workdir"
            )

    def show(self, step: int) -> None:
        """Shows how far the run is."""
        self._display.step(step)

    def evaluating(self, done: int, total: int) -> None:
        """Shows how far an evaluation is, in examples."""
        self._display.evaluating(done, total)

    def begin_epoch(self) -> None:
        """Forgets what the epoch before has counted and presented."""
        self.epoch_correct = 0
        if self.records:
            self.records.begin_epoch()

    def record_examples(self, step: int, per_epoch: int) -> None:
        """Writes a record of every example where one is due; before `record`, which counts as its end."""
        if self.records:
            every = per_epoch * self._config.records.every_epochs
            if step % every == 0:
                processes.on_primary(functools.partial(self.records.write, step))
            self.records.forget_evaluation()

    def record(self, record: metrics.Record) -> None:
        """Adds an evaluation to the history and its files."""
        self.history.append(record)
        processes.on_primary(lambda: self._writer.write(record))
        self._display.record(record)

    def save(self, state: TrainState) -> None:
        """Saves a state of NumPy arrays; only a finite one is worth resuming from.

        Raises:
          RunFailed: it is not finite, a `Diverged`, or cannot be written.
        """
        step = int(state.step)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
            raise Diverged(f"the weights after step {step} are not finite; {self.newest}")
        saved = Saved(state, self._fingerprint, self.history, self.epoch_correct)

        def save() -> None:
            if self.records:  # first: a checkpoint without them could not be resumed from
                self.records.keep_presented(step, self._checkpoints.steps())
            self._checkpoints.save(saved)

        processes.on_primary(save)
        self._set_newest(step)

    def summarize(self, status: str, parameters: int) -> metrics.Record:
        """Writes `summary.json`, and the curves of a run that has any, and returns the summary."""
        summary = metrics.summarize(self.history, status, parameters)

        def write() -> None:
            if self.history:
                num_classes = self._dataset_info.num_classes
                writers.draw_curves(self.history, num_classes, self._path / "curves.png")
            # Its numbers are those of `metrics.jsonl` and of the checkpoint, by which they are checked.
            files.write_json(self._path / own_files.SUMMARY, summary)

        processes.on_primary(write)
        return summary

    def write_scores(self, train_labels: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> None:
        """Writes `scores.csv` of a run that keeps records.

        Args:
          train_labels: as `InMemoryLoader` has them.
        """

        def write() -> None:
            found = records.read(self._path)
            if found is not None:
                of_examples = scores.all_scores(found.presented, train_labels[0], found.error_norm)
                table = score_table.ScoreTable(*train_labels, of_examples)
                files.write_text(self._path / own_files.SCORES, score_table.to_csv(table))

        if self.records:
            processes.on_primary(write)

    def _set_newest(self, step: int) -> None:
        self.newest = f"step {step} is saved in {self._path}"
        self._stop_request.saved = f"stopped; {self.newest}; run the same command again to go on"
