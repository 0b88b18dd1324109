"""One training run, from its config to its summary."""

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, corruptions, data, models
from rethink_jax.distributed import jax_settings, parallel, preemption, processes
from rethink_jax.errors import Diverged, RunFailed, UserError, require
from rethink_jax.pipeline import loaders as feed_lib, preprocess, stream, train_keys
from rethink_jax.runs import display, effects, files, identity, own_files, run_directory
from rethink_jax.training import metrics, steps, train_state
from rethink_jax.training.checkpoints import (
    FOLDER,
    Checkpoints,
    newest_history,
    restore_on_all,
    steps_in,
)
from rethink_jax.training.recorder import Recorder
from rethink_jax.training.train_state import TrainState

logger = logging.getLogger(__name__)


class Experiment(NamedTuple):
    """What a resolved config stands for, on this machine's devices.

    Attributes:
      config: resolved.
      dataset_info: sizes of the data set.
      feed: of both splits' examples.
      initial_state: of NumPy arrays.
      parameters: how many the model has.
      train_steps, eval_steps: of `rethink_jax.training.steps`, mapped over the devices.
      learning_rate: as a function of the step.
    """

    config: ConfigDict
    dataset_info: data.DatasetInfo
    feed: feed_lib.Resident | feed_lib.Streamed
    initial_state: TrainState
    parameters: int
    train_steps: Callable
    eval_steps: Callable
    learning_rate: Callable[[int], Any]


@jax_settings.pin_settings()
def run(
    config: ConfigDict,
    workdir: epath.PathLike | None = None,
    dataset: data.Dataset | None = None,
    name: str = "train",
    progress: display.ProgressDisplay | None = None,
    in_sweep: bool = False,
) -> dict[str, Any]:
    """Trains as a config says, or goes on with a run that was stopped, and reports.

    Args:
      config: as `rethink_jax.config.train` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<model>-<digits of the config>`, for arrays
        and folders of images with digits of the data, too.
      dataset: what `rethink_jax.data.from_arrays` made of one's own arrays, in place of `config.data.name`.
      name: of the config file, for the default directory.
      progress: a sweep's, which shows the results itself.
      in_sweep: whether it is one of a sweep's runs, in the sweep's folder.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, before any data is loaded.
      Stopped: when a signal came; the state is saved.

    Example:
      >>> from rethink_jax import config, data
      >>> images, labels = np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 2
      >>> images += (255 * labels).astype(np.uint8)[:, None, None, None]
      >>> dataset = data.from_arrays((images, labels), (images[:8], labels[:8]))
      >>> settings = config.train("arrays", corruption="true_labels")
      >>> settings.model.width, settings.epochs = 4, 1
      >>> summary = run(settings, "runs/constant", dataset)
      epoch 1 ...
      >>> summary["status"], summary["parameters"]
      ('finished', 270)
    """
    config, info = processes.all_or_fail(lambda: resolve(config, dataset))
    open_data = _opener(config, dataset)
    path = _path(config, workdir, name, dataset, open_data)
    if not in_sweep:
        processes.on_primary(lambda: run_directory.check_no_sweep(path))
        processes.on_primary(lambda: effects.refuse(path, config, info))
    total = config_lib.total_steps(config, info.num_train)
    with contextlib.ExitStack() as stack:
        stop_request = stack.enter_context(preemption.stop_on_signals())
        stop_request.grace_seconds = config.grace_seconds
        if jax.process_count() > 1:  # the others have to hear of a signal first
            stack.enter_context(stop_request.defer())
        processes.on_primary(lambda: run_directory.summary_of(path, config))
        opened = open_data()
        summary = processes.on_primary(
            lambda: finished_summary(path, config, total, check_same_data(path, config, opened))
        )
        if summary is None:
            experiment = processes.all_or_fail(lambda: build(config, opened))
            if not stop_request.deferred:  # some library may have swallowed what the signal raised
                stop_request.raise_if_stopped()
            summary = _run(experiment, path, total, stop_request, progress, opened.fingerprint)
        else:
            logger.info("%s is finished", path)
    if progress is None:
        display.print_result(_title(summary), summary, info.num_classes)
    return summary


def _run(
    experiment: Experiment,
    path: epath.Path,
    total: int,
    stop_request: preemption.StopRequest,
    progress: display.ProgressDisplay | None,
    data_fingerprint: str,
) -> dict[str, Any]:
    """Trains in a run directory from what is there, and returns the summary that it leaves."""
    fingerprint, info = experiment.feed.fingerprint, experiment.dataset_info
    recorder = Recorder(path, experiment.config, fingerprint, info, stop_request, data_fingerprint)
    with contextlib.closing(experiment.feed), recorder:
        state = recorder.restore(experiment.initial_state, total, progress)
        with stop_request.defer():
            try:
                whole = _train(experiment, state, total, recorder, stop_request)
            except RunFailed:
                with contextlib.suppress(RunFailed):
                    recorder.summarize("failed", experiment.parameters)
                raise
            status = "finished" if whole else "stopped"
            summary = recorder.summarize(status, experiment.parameters)
    if not whole:
        stop_request.raise_if_stopped()
    return summary


@jax_settings.pin_settings()
def evaluate(
    config: ConfigDict,
    workdir: epath.PathLike | None = None,
    dataset: data.Dataset | None = None,
    name: str = "train",
) -> dict[str, Any]:
    """Evaluates the newest checkpoint of a run and writes `evaluation.json`.

    Args:
      config: the run's own; `config.experiment` is not looked at.
      workdir: the run's directory; by default the one that `run` would take.
      dataset: as for `run`.
      name: as for `run`.

    Returns:
      One record as in `metrics.jsonl`, less those that belong to training.

    Raises:
      UserError: where there is no such run, or none with a checkpoint, or one that was trained on other data.
    """
    config, info = processes.all_or_fail(lambda: resolve(config, dataset))
    open_data = _opener(config, dataset)
    path = _path(config, workdir, name, dataset, open_data)

    def check() -> None:
        if not (path / own_files.CONFIG).exists():
            raise UserError(f"{path} holds no run to evaluate; train it first")
        run_directory.check_same_run(path, config)
        if not steps_in(path / FOLDER):
            raise UserError(f"{path} has no whole checkpoint to evaluate")

    processes.on_primary(check)
    opened = open_data()
    processes.on_primary(lambda: check_same_data(path, config, opened))
    experiment = processes.all_or_fail(lambda: build(config, opened))
    checkpoints = Checkpoints(path, read_only=True) if processes.is_primary() else None
    saved = restore_on_all(checkpoints, experiment.initial_state)
    if saved is None:
        raise UserError(f"{path} has no whole checkpoint to evaluate")
    now = experiment.feed.fingerprint
    if saved.fingerprint != now:
        raise UserError(
            f"{path} was made from other data: fingerprint {saved.fingerprint[:8]}, now {now[:8]}; "
            "evaluate it on its own"
        )
    with contextlib.closing(experiment.feed), display.show_evaluation() as shown:
        record = _evaluate(experiment, parallel.replicate(saved.state), shown.show) or {}
    display.print_result(f"step {record['step']}", record, info.num_classes)
    processes.on_primary(lambda: files.write_json(path / "evaluation.json", record))
    return record


def resolve(
    config: ConfigDict, dataset: data.Dataset | None = None
) -> tuple[ConfigDict, data.DatasetInfo]:
    """Checks a config and resolves its defaults, before any data is loaded.

    Returns:
      The resolved config, and the sizes of its data set.

    Raises:
      UserError: one line that names the field, its value and what is allowed.
    """
    stream.check_main_guard()
    for room in (config_lib, corruptions, feed_lib, models, parallel):
        room.check(config)
    if dataset is None:
        data.check(config)
        info = data.describe(config.data)
    else:
        info = data.describe_as_asked(dataset, config.data)
        channels, own = config.data.channels, info.image_shape[-1]
        require(
            channels in (None, own),
            "data.channels",
            channels,
            f"left out, or {own} as {info.name} has",
        )
        config = ConfigDict(config.copy_and_resolve_references())
        config.data.name = info.name
    side = min(info.image_shape[:2])
    config = config_lib.resolve(config, info.num_train, side)
    models.check(config)  # the model may have been left to be resolved
    size = config.data.size
    if not config.data.stream:
        require(
            size <= side, "data.size", size, f"at most {side}, the side of {info.name}'s images"
        )
    models.check_side(config)
    preprocess.check(config, info.image_shape[-1])
    return config, info


def build(config: ConfigDict, opened: data.Dataset | data.Source | None = None) -> Experiment:
    """Returns the experiment of a resolved config and its data, which may be open: initializes, maps."""
    feed = feed_lib.make(config, opened)
    info = feed.info
    steps_per_epoch = config_lib.steps_per_epoch(config, info.num_train)
    size = config.data.size
    image_shape = (size, size, info.image_shape[-1])
    model = models.create(config.model, info.num_classes, config.dtype, parallel.AXIS)
    total = config_lib.total_steps(config, info.num_train)
    learning_rate = train_state.learning_rate(config, steps_per_epoch, total)
    optimizer = train_state.make_optimizer(config, learning_rate)
    initial_state = jax.device_get(train_state.create(model, optimizer, image_shape, config.seed))
    return Experiment(
        config=config,
        dataset_info=info,
        feed=feed,
        initial_state=initial_state,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(initial_state.params)),
        train_steps=parallel.map_over_devices(
            steps.make_train_steps(
                model,
                optimizer,
                preprocess.make_augment(config, steps_per_epoch),
                _dropout_keys(config),
                feed.look_up,
                config.label_smoothing,
            ),
            donate_first=True,
            sharded_argnums=feed.sharded_argnums,
        ),
        eval_steps=parallel.map_over_devices(
            steps.make_eval_steps(model, size, feed.look_up), sharded_argnums=feed.sharded_argnums
        ),
        learning_rate=learning_rate,
    )


def _dropout_keys(config: ConfigDict) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    if not config.model.dropout:
        return None
    return functools.partial(train_keys.example_keys, config.seed, train_keys.DROPOUT)


def _train(
    experiment: Experiment,
    state: TrainState,
    total: int,
    recorder: Recorder,
    stop_request: preemption.StopRequest,
) -> bool:
    """Trains up to step `total` or a fitted training set; returns False where a request to stop came before."""
    config, n = experiment.config, experiment.dataset_info.num_train
    per_epoch = config_lib.steps_per_epoch(config, n)
    history = recorder.history
    stopwatch = metrics.Stopwatch(history[-1]["seconds"] if history else 0.0)
    pace = _Pace(stop_request)
    step, speed, whole = int(state.step), 0.0, False
    state = parallel.replicate(state)
    while not pace.stopped:
        if _evaluation_is_due(config, step, per_epoch, total, history):
            record = _evaluate(experiment, state, recorder.evaluating, pace)
            if record is None:
                break
            seen = min((step - 1) % per_epoch * config.batch_size + config.batch_size, n)
            for name in ("train_loss", "test_loss"):
                if not math.isfinite(record[name]):
                    raise Diverged(f"{name} is {record[name]} at step {step}; {recorder.newest}")
            seconds = stopwatch.seconds()
            rate = float(experiment.learning_rate(step - 1))
            recorder.record(
                {
                    "epoch": step / per_epoch,
                    **record,
                    "train_accuracy_online": recorder.epoch_correct / seen,
                    "seconds": seconds,
                    "images_per_second": speed,
                    "learning_rate": rate,
                }
            )
        if _checkpoint_is_due(config, step, per_epoch):
            recorder.save(parallel.fetch(state))
        whole = step >= total or _is_fitted(config, history)
        if whole:
            break
        epoch, first = divmod(step, per_epoch)
        end = int(min(total, (epoch + 1) * per_epoch, _next_checkpoint(config, step)))
        if first == 0:
            recorder.epoch_correct = 0
        started, before = stopwatch.seconds(), step
        state, step = _take_steps(experiment, state, step, end, recorder, pace)
        seen = min(n, (first + step - before) * config.batch_size) - first * config.batch_size
        speed = seen / (stopwatch.seconds() - started)
    recorder.save(parallel.fetch(state))
    return whole


def _evaluation_is_due(
    config: ConfigDict, step: int, per_epoch: int, total: int, history: list[metrics.Record]
) -> bool:
    """Returns whether the state at a step is to be evaluated, and was not before a stop."""
    epoch, within = divmod(step, per_epoch)
    due = within == 0 and epoch > 0 and epoch % config.evaluate.every_epochs == 0
    return (due or step == total) and (not history or history[-1]["step"] < step)


def _checkpoint_is_due(config: ConfigDict, step: int, per_epoch: int) -> bool:
    every_steps = config.checkpoint.every_steps or per_epoch * config.checkpoint.every_epochs
    return step > 0 and step % every_steps == 0


def _next_checkpoint(config: ConfigDict, step: int) -> float:
    every_steps = config.checkpoint.every_steps
    return step - step % every_steps + every_steps if every_steps else math.inf


class _Pace:
    """How many steps one dispatch may take, and whether it is time to stop: all processes agree on both.

    A dispatch is to take no more than a quarter of the grace time, so that there is time left to save.
    """

    def __init__(self, stop_request: preemption.StopRequest):
        self.stopped = False
        self.steps = 1  # the first one compiles
        self._stop_request = stop_request
        self._last, self._since = time.monotonic(), 0

    def update(self, steps: int) -> None:
        """Looks at the clock and for signals, once `self.steps` were dispatched since the last time or none."""
        self._since += steps
        if steps and self._since < self.steps:  # a stream's dispatches have one step each
            return
        since, self._since, now = self._since, 0, time.monotonic()
        stop = self._stop_request.signal_name is not None
        stop_anywhere, seconds = processes.all_reduce_max(
            [float(stop), (now - self._last) / max(since, 1)]
        )
        self._last = now
        self.stopped = bool(stop_anywhere)
        if self.stopped and not stop:
            self._stop_request.signal_name = "a signal to another process"
        if steps:
            fitting = int(self._stop_request.grace_seconds / 4 / seconds) if seconds else self.steps
            self.steps = max(1, min(fitting, parallel.steps_per_dispatch()))


def _take_steps(
    experiment: Experiment,
    state: TrainState,
    step: int,
    end: int,
    recorder: Recorder,
    pace: _Pace,
) -> tuple[TrainState, int]:
    """Takes the steps up to `end`, of one epoch, or to a request to stop; returns the state and its step.

    Raises:
      Diverged: a loss is not finite.
    """
    pending: list[tuple[int, Any]] = []  # read one dispatch late, so that the devices need not wait
    for examples, ids, taken in experiment.feed.train(step, end, lambda: pace.steps):
        state, sums = experiment.train_steps(state, examples, ids, np.int32(taken))
        pending.append((step, sums))
        step += taken
        if len(pending) > 1:
            _read(*pending.pop(0), recorder)
        recorder.show(step)
        pace.update(taken)
        if pace.stopped:
            break
    for first, sums in pending:
        _read(first, sums, recorder)
    return state, step


def _read(first: int, sums: steps.Sums, recorder: Recorder) -> None:
    """Counts the correct answers of the steps from `first` on; `Diverged` for a loss that is not finite."""
    fetched = parallel.fetch(sums)
    for i, loss in enumerate(fetched["loss"]):
        if not np.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {first + i}; {recorder.newest}")
    recorder.epoch_correct += int(fetched["correct"].sum())


def _evaluate(
    experiment: Experiment,
    state: TrainState,
    show: Callable[[int, int], None],
    pace: _Pace | None = None,
) -> metrics.Record | None:
    """Evaluates the training and the test set with fixed weights; None where a request to stop came.

    Where `config.evaluate.examples` leaves out some, `train_evaluated` and `test_evaluated` say how many
    there were.
    """
    train: list[Any] = []
    test: list[Any] = []
    config, info = experiment.config, experiment.dataset_info
    counts = {split: feed_lib.evaluated(config, info, split) for split in ("train", "test")}
    done, total = 0, sum(counts.values())
    show(done, total)
    for split, (examples, ids, _) in experiment.feed.evaluate(("train", "test")):
        sums = parallel.fetch(experiment.eval_steps(state, examples, ids))
        (train if split == "train" else test).append(sums)
        done += int(sums["count"].sum())
        show(done, total)
        if pace is not None:
            pace.update(0)
            if pace.stopped:
                return None
    on_test = metrics.from_sums(test, true_labels=True)
    record: metrics.Record = {"step": int(parallel.fetch(state.step))}
    record |= {f"train_{name}": value for name, value in metrics.from_sums(train).items()}
    record |= {f"test_{name}": value for name, value in on_test.items()}
    if experiment.config.corruption.name in corruptions.LABEL_CORRUPTIONS:
        on_corrupted = metrics.from_sums(test)
        record |= {f"test_{name}_corrupted": value for name, value in on_corrupted.items()}
    whole = {"train": info.num_train, "test": info.num_test}
    return record | {f"{split}_evaluated": n for split, n in counts.items() if n < whole[split]}


def check_same_data(
    path: epath.Path, config: ConfigDict, opened: data.Dataset | data.Source
) -> bool:
    """Returns whether a directory's run is known to be of these data; `UserError` where it is of others."""
    return identity.check_same_data(
        path, config, opened.fingerprint, lambda: feed_lib.fingerprint(config, opened)
    )


def finished_summary(
    path: epath.Path, config: ConfigDict, total: int, is_same_data: bool
) -> dict[str, Any] | None:
    """Returns the summary of a run that has nothing left to do, and refuses another run's directory.

    Args:
      path: the run's directory.
      config: resolved.
      total: the steps of the whole run.
      is_same_data: what `check_same_data` returned. Where it is not known, the checkpoint tells.

    Raises:
      UserError: the directory is another run's, or what is left of this one cannot be trusted.
    """
    summary = run_directory.summary_of(path, config)
    if summary is None or summary.get("status") != "finished":
        return None
    fitted = config.stop_when_fitted and metrics.has_fitted_all(summary)
    whole = summary.get("steps", 0) >= total or fitted
    if whole and is_same_data and _fits_metrics(path, summary):
        return summary
    if newest_history(path) is None:
        raise UserError(
            f"{path} has a finished run and no checkpoint, by which its files could be checked or it could be "
            "resumed; choose another --workdir"
        )
    return None


def _fits_metrics(path: epath.Path, summary: dict[str, Any]) -> bool:
    """Returns whether a summary is that of `metrics.jsonl`, and this the newest checkpoint's evaluations."""
    try:
        history = files.read_metrics(path)
        told = metrics.summarize(history, "finished", summary["parameters"])
    except (UserError, KeyError, TypeError):
        return False
    return told == summary and newest_history(path) in (None, history)


def _is_fitted(config: ConfigDict, history: list[metrics.Record]) -> bool:
    return config.stop_when_fitted and bool(history) and metrics.has_fitted_all(history[-1])


def _title(summary: dict[str, Any]) -> str:
    return f"{summary['epochs']:g} epochs, {summary['parameters']:,} parameters"


def _opener(
    config: ConfigDict, dataset: data.Dataset | None
) -> Callable[[], data.Dataset | data.Source]:
    """Returns a function that opens a resolved config's data, once; all processes call it."""

    def open_data() -> data.Dataset | data.Source:
        opened = feed_lib.open_data(config, dataset)
        assert opened.fingerprint  # a record that cannot be read is an error on all processes
        return opened

    return functools.cache(lambda: processes.all_or_fail(open_data))


def _path(
    config: ConfigDict,
    workdir: epath.PathLike | None,
    name: str,
    dataset: data.Dataset | None,
    open_data: Callable[[], data.Dataset | data.Source],
) -> epath.Path:
    """Returns the run's directory; without a `workdir`, equal configs on equal data get the same one."""
    words = (name, config.data.name, config.model.name)
    return identity.path_of(
        workdir, config, lambda: open_data().fingerprint, *words, dataset=dataset
    )
