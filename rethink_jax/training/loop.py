"""The loop of a training run: steps, evaluations, checkpoints, and when to stop."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, corruptions, data
from rethink_jax.distributed import parallel, preemption, processes
from rethink_jax.errors import Diverged
from rethink_jax.pipeline import loaders
from rethink_jax.training import metrics, steps
from rethink_jax.training.experiment import Experiment
from rethink_jax.training.recorder import Recorder
from rethink_jax.training.train_state import TrainState


def train(
    experiment: Experiment,
    state: TrainState,
    total: int,
    recorder: Recorder,
    stop_request: preemption.StopRequest,
) -> bool:
    """Trains until step `total`, a fitted training set or a request to stop, and saves the state.

    Returns:
      Whether the run is finished; False where a request to stop came first.

    Raises:
      Diverged: a loss is not finite.
    """
    config, n = experiment.config, experiment.dataset_info.num_train
    per_epoch = config_lib.steps_per_epoch(config, n)
    history = recorder.history
    stopwatch = Stopwatch(history[-1]["seconds"] if history else 0.0)
    poll = StopPoll(stop_request)
    step, images_per_second, is_finished = int(state.step), 0.0, False
    state = parallel.replicate(state)
    while not poll.stopped:
        if evaluation_is_due(config, step, per_epoch, total, history):
            collect = recorder.records.evaluate if recorder.records else None
            record = evaluate(experiment, state, recorder.evaluating, poll, collect)
            if record is None:
                break
            check_finite(record, recorder)
            recorder.record_examples(step, per_epoch)
            rate = float(experiment.learning_rate(step - 1))
            seconds = stopwatch.seconds()
            record_evaluation(record, config, n, recorder, seconds, images_per_second, rate)
        if checkpoint_is_due(config, step, per_epoch):
            recorder.save(parallel.fetch(state))
        is_finished = step >= total or is_fitted(config, history)
        if is_finished:
            break
        epoch, first = divmod(step, per_epoch)
        end = int(min(total, (epoch + 1) * per_epoch, next_checkpoint(config, step)))
        if first == 0:
            recorder.begin_epoch()
        started, before = stopwatch.seconds(), step
        state, step = _take_steps(experiment, state, step, end, recorder, poll)
        images = min(n, (first + step - before) * config.batch_size) - first * config.batch_size
        images_per_second = images / (stopwatch.seconds() - started)
    recorder.save(parallel.fetch(state))
    return is_finished


def check_finite(record: metrics.Record, recorder: Recorder) -> None:
    """Raises `Diverged` for an evaluation whose loss, or norm of weights, is not finite."""
    for name in ("train_loss", "test_loss", "weight_norm"):
        if not math.isfinite(record[name]):
            raise Diverged(f"{name} is {record[name]} at step {record['step']}; {recorder.newest}")


def record_evaluation(
    record: metrics.Record,
    config: ConfigDict,
    n: int,
    recorder: Recorder,
    seconds: float,
    images_per_second: float,
    rate: float,
) -> None:
    """Records an evaluation with what training tells of the epoch that it ends, or is in.

    Args:
      record: as `evaluate` returns it.
      config: resolved.
      n: the number of training examples.
      recorder: of the run.
      seconds: of the run so far.
      images_per_second: while it trained.
      rate: of the last step.
    """
    step, per_epoch = record["step"], config_lib.steps_per_epoch(config, n)
    trained_on = min((step - 1) % per_epoch * config.batch_size + config.batch_size, n)
    recorder.record(
        {
            "epoch": step / per_epoch,
            **record,
            "train_accuracy_online": recorder.epoch_correct / trained_on,
            "seconds": seconds,
            "images_per_second": images_per_second,
            "learning_rate": rate,
        }
    )


def evaluation_is_due(
    config: ConfigDict, step: int, per_epoch: int, total: int, history: list[metrics.Record]
) -> bool:
    """Returns whether the state at a step is to be evaluated, and was not before a stop."""
    epoch, within = divmod(step, per_epoch)
    due = within == 0 and epoch > 0 and epoch % config.evaluate.every_epochs == 0
    return (due or step == total) and (not history or history[-1]["step"] < step)


def checkpoint_is_due(config: ConfigDict, step: int, per_epoch: int) -> bool:
    """Returns whether the state at a step is to be saved."""
    every_steps = config.checkpoint.every_steps or per_epoch * config.checkpoint.every_epochs
    return step > 0 and step % every_steps == 0


def next_checkpoint(config: ConfigDict, step: int) -> float:
    """Returns the next step at which a checkpoint may be due within an epoch."""
    every_steps = config.checkpoint.every_steps
    return step - step % every_steps + every_steps if every_steps else math.inf


class StopPoll:
    """Whether it is time to stop, and how many steps one dispatch may take; all processes agree on both.

    A dispatch may take a quarter of the grace time at most, so that there is time left to save.

    Attributes:
      stopped: whether a request to stop has come to any process.
      max_steps: how many steps the next dispatch may take.
    """

    def __init__(self, stop_request: preemption.StopRequest):
        """Asks nobody yet."""
        self.stopped = False
        self.max_steps = 1  # the first one compiles
        self._stop_request = stop_request
        self._polled_at, self._steps_since = time.monotonic(), 0
        self._max_evaluated, self._evaluated_since = 1, 0  # of evaluations

    def update(self, steps: int) -> None:
        """Asks all processes for signals and for their seconds per step, after a dispatch of training.

        Args:
          steps: those just dispatched. The processes are asked once `max_steps` have come together, because a
            stream's dispatches have one step each.
        """
        self._steps_since += steps
        if self._steps_since >= self.max_steps:
            affordable = self._ask(self._steps_since, self.max_steps)
            self.max_steps = min(affordable, parallel.STEPS_PER_DISPATCH)
            self._steps_since = 0

    def begin_evaluation(self) -> None:
        """Forgets how long the dispatches of an evaluation take: what came between is of training."""
        self._polled_at = time.monotonic()
        self._max_evaluated, self._evaluated_since = 1, 0

    def update_evaluation(self) -> None:
        """Asks for signals after a dispatch of an evaluation has been read.

        Several processes are asked once so many have come that they take a quarter of the grace time.
        """
        self._evaluated_since += 1
        if jax.process_count() == 1 or self._evaluated_since >= self._max_evaluated:
            affordable = self._ask(self._evaluated_since, self._max_evaluated)
            self._max_evaluated = min(affordable, 2 * self._max_evaluated)
            self._evaluated_since = 0

    def _ask(self, count: int, affordable: int) -> int:
        """Asks all processes, of which each has dispatched so many steps or batches.

        Returns:
          How many take a quarter of the grace time; `affordable` where no time has passed.
        """
        now, stop_here = time.monotonic(), self._stop_request.signal_name is not None
        stop_anywhere, seconds = processes.all_reduce_max(
            [float(stop_here), (now - self._polled_at) / count]
        )
        self._polled_at = now
        self.stopped = bool(stop_anywhere)
        if self.stopped and not stop_here:
            self._stop_request.signal_name = "a signal to another process"
        if seconds:
            affordable = int(self._stop_request.grace_seconds / 4 / seconds)
        return max(1, affordable)


def _take_steps(
    experiment: Experiment,
    state: TrainState,
    step: int,
    end: int,
    recorder: Recorder,
    poll: StopPoll,
) -> tuple[TrainState, int]:
    """Takes the steps of one epoch up to `end` or a request to stop; returns the state and its step.

    Raises:
      Diverged: a loss is not finite.
    """
    # Sums are read one dispatch late, so that the devices need not wait.
    unread: list[tuple[int, Any]] = []
    for examples, ids, num_steps in experiment.loader.train(step, end, lambda: poll.max_steps):
        count = parallel.stage_count(num_steps)
        state, sums = experiment.train_steps(state, examples, ids, count)
        unread.append((step, sums))
        step += num_steps
        if len(unread) > 1:
            _read(*unread.pop(0), recorder)
        recorder.show(step)
        poll.update(num_steps)
        if poll.stopped:
            break
    for first, sums in unread:
        _read(first, sums, recorder)
    return state, step


def _read(first: int, sums: steps.Sums, recorder: Recorder) -> None:
    """Counts the correct answers of the steps from `first` on; `Diverged` for a loss that is not finite."""
    fetched = parallel.fetch(sums)
    for i, loss in enumerate(fetched["loss"]):
        if not np.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {first + i}; {recorder.newest}")
    recorder.epoch_correct += int(fetched["correct"].sum())
    if recorder.records:
        recorder.records.present(fetched)


def evaluate(
    experiment: Experiment,
    state: TrainState,
    show: Callable[[int, int], None],
    poll: StopPoll | None = None,
    collect: Callable[[str, dict[str, np.ndarray]], None] | None = None,
) -> metrics.Record | None:
    """Evaluates the training and the test set with fixed weights; None where a request to stop came.

    Args:
      experiment: as `build` returns it.
      state: replicated on the devices.
      show: is told how many examples are done, and of how many.
      poll: None where nothing can stop the evaluation.
      collect: is given each dispatch's split and sums, as `steps.make_eval_steps` has them.
    """
    config, info = experiment.config, experiment.dataset_info
    counts = {split: loaders.evaluated(config, info, split) for split in ("train", "test")}
    sums_of: dict[str, list[Any]] = {split: [] for split in counts}
    done, total = 0, sum(counts.values())
    show(done, total)
    if poll is not None:
        poll.begin_evaluation()
    # Sums are read one dispatch late, as in training.
    unread: list[tuple[str, Any]] = []

    def read() -> int:
        split, sums = unread.pop(0)
        sums_of[split].append(parallel.fetch(sums))
        if collect is not None:
            collect(split, sums_of[split][-1])
        return int(sums_of[split][-1]["count"].sum())

    for split, (examples, ids, _) in experiment.loader.evaluate(("train", "test")):
        unread.append((split, experiment.eval_steps(state, examples, ids)))
        if len(unread) > 1:
            done += read()
            show(done, total)
            if poll is not None:
                poll.update_evaluation()
                if poll.stopped:
                    return None
    while unread:
        done += read()
    show(done, total)
    fetched = parallel.fetch((state.step, state.params))
    weights = metrics.of_weights(fetched[1], experiment.initial_state.params)
    return evaluation_of(int(fetched[0]), config, info, sums_of["train"], sums_of["test"], weights)


def evaluation_of(
    step: int,
    config: ConfigDict,
    info: data.DatasetInfo,
    train: list[dict[str, np.ndarray]],
    test: list[dict[str, np.ndarray]],
    weights: metrics.Record,
) -> metrics.Record:
    """Returns the record of an evaluation.

    Args:
      step: of the state.
      config: resolved.
      info: of the data set.
      train, test: sums of each dispatch of a split, as `steps.make_eval_steps` has them.
      weights: as `metrics.of_weights` returns them.

    Returns:
      The record as in `metrics.jsonl`, less what training tells. Where `config.evaluate.examples` leaves out
      some, `train_evaluated` and `test_evaluated` say how many there were.
    """
    on_train, on_test = metrics.from_sums(train), metrics.from_sums(test, true_labels=True)
    record: metrics.Record = {"step": step}
    on_train |= metrics.from_replaced(train)
    record |= {f"train_{name}": value for name, value in on_train.items()}
    record |= {f"test_{name}": value for name, value in on_test.items()}
    if config.corruption.name in corruptions.OF_BOTH_SPLITS:
        on_corrupted = metrics.from_sums(test)
        record |= {f"test_{name}_corrupted": value for name, value in on_corrupted.items()}
    sizes = {"train": info.num_train, "test": info.num_test}
    evaluated = {split: loaders.evaluated(config, info, split) for split in sizes}
    parts = {f"{split}_evaluated": n for split, n in evaluated.items() if n < sizes[split]}
    return record | parts | weights


def is_fitted(config: ConfigDict, history: list[metrics.Record]) -> bool:
    """Returns whether a run ends because its training set is fitted."""
    return bool(history) and metrics.is_fitted(config, history[-1])


class Stopwatch:
    """Seconds of a run, counted on over its interruptions."""

    def __init__(self, before: float = 0.0):
        self._start = time.perf_counter() - before

    def seconds(self) -> float:
        """Returns the seconds so far."""
        return time.perf_counter() - self._start
