"""One training run, from its config to its summary."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import (
    config as config_lib,
    corruptions,
    data,
    inputs,
    metrics,
    models,
    parallel,
    preemption,
    run_directory,
    steps,
    train_state,
)
from rethink_jax.checkpoints import Checkpoints
from rethink_jax.config import require
from rethink_jax.train_state import TrainState

logger = logging.getLogger(__name__)

# Examples in one batch of an evaluation, on all devices together.
_EVAL_BATCH = 1000


class Experiment(NamedTuple):
    """What a settled config stands for, on this machine's devices.

    Attributes:
      config: settled.
      dataset_info: sizes of the data set.
      inputs: both splits, cropped and corrupted, in host memory.
      train, test: the same on the devices.
      initial_state: of NumPy arrays.
      parameters: how many the model has.
      train_steps, eval_steps: of `rethink_jax.steps`, mapped over the devices.
      learning_rate: as a function of the step.
    """

    config: ConfigDict
    dataset_info: data.DatasetInfo
    inputs: inputs.Inputs
    train: inputs.Split
    test: inputs.Split
    initial_state: TrainState
    parameters: int
    train_steps: Callable
    eval_steps: Callable
    learning_rate: Callable[[int], Any]


def run(
    config: ConfigDict,
    workdir: epath.PathLike | None = None,
    dataset: data.Dataset | None = None,
    name: str = "train",
) -> dict[str, Any]:
    """Trains as a config says, or goes on with a run that was stopped, and reports.

    Args:
      config: as `rethink_jax.config.train` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<model>-<digits of the config>`.
      dataset: what `rethink_jax.data.from_arrays` made of one's own arrays, in place of `config.data.name`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, before any data is loaded.
      Stopped: when a signal came; the state is saved.
    """
    config, info = settle(config, dataset)
    path = _path(config, workdir, name)
    run_directory.check_same_run(path, config)
    total = config_lib.total_steps(config, info.num_train)
    if finished := _finished_summary(path, config, total):
        logger.info("%s is finished", path)
        metrics.print_result(_title(finished), finished, info.num_classes)
        return finished

    with preemption.stop_on_signals() as stop_request:
        experiment = build(config, dataset or data.load(config.data))
        run_directory.open_run(path, config)
        run_directory.write_json(
            path / run_directory.ENVIRONMENT,
            run_directory.environment(fingerprint=experiment.inputs.fingerprint),
        )
        checkpoints = Checkpoints(path, config.checkpoint.keep)
        state, history = _restore_or_start(path, checkpoints, experiment)
        writer = metrics.Writer(path, history)
        logger.info("run directory: %s", path)
        try:
            with metrics.display(total, quiet=jax.process_index() > 0) as display:
                state = _train(
                    experiment, state, history, total, checkpoints, writer, display, stop_request
                )
        finally:
            writer.close()
            checkpoints.close()

    stopped = stop_request.signal_name is not None
    status = "stopped" if stopped else "finished"
    summary = metrics.summarize(history, status, experiment.parameters)
    run_directory.write_json(path / run_directory.SUMMARY, summary)
    if stopped:
        raise preemption.Stopped(
            f"{stop_request.signal_name}: stopped and saved at step {int(state.step)} in {path}; "
            "run the same command again to go on"
        )
    metrics.draw_curves(history, info.num_classes, path / "curves.png")
    metrics.print_result(_title(summary), summary, info.num_classes)
    return summary


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
      UserError: where there is no such run, or none with a checkpoint.
    """
    config, info = settle(config, dataset)
    path = _path(config, workdir, name)
    if not (path / run_directory.CONFIG).exists():
        raise config_lib.UserError(f"{path} holds no run to evaluate; train it first")
    run_directory.check_same_run(path, config)
    experiment = build(config, dataset or data.load(config.data))
    checkpoints = Checkpoints(path, read_only=True)
    saved = checkpoints.restore_newest(experiment.initial_state)
    checkpoints.close()
    if saved is None:
        raise config_lib.UserError(f"{path} has no whole checkpoint to evaluate")
    state = parallel.replicate(saved[0])
    record = _evaluate(experiment, state)
    run_directory.write_json(path / "evaluation.json", record)
    metrics.print_result(f"step {record['step']}", record, info.num_classes)
    return record


def settle(
    config: ConfigDict, dataset: data.Dataset | None = None
) -> tuple[ConfigDict, data.DatasetInfo]:
    """Checks a config and settles its defaults, before any data is loaded.

    Returns:
      The settled config, and the sizes of its data set.

    Raises:
      UserError: one line that names the field, its value and what is allowed.
    """
    for room in (config_lib, corruptions, models, parallel):
        room.check(config)
    if dataset is None:
        data.check(config)
        info = data.describe(config.data)
    else:
        info = dataset.info
        config = ConfigDict(config.copy_and_resolve_references())
        config.data.name = info.name
    side = min(info.image_shape[:2])
    config = config_lib.settle(config, info.num_train, side)
    size = config.data.size
    require(size <= side, "data.size", size, f"at most {side}, the side of {info.name}'s images")
    return config, info


def build(config: ConfigDict, dataset: data.Dataset) -> Experiment:
    """Returns the experiment that a settled config and its data set make: corrupts, initializes, maps."""
    info = dataset.info
    steps_per_epoch = config_lib.steps_per_epoch(config, info.num_train)
    prepared = inputs.prepare(config, dataset)
    image_shape = prepared.train.images.shape[1:]
    model = models.create(config.model, info.num_classes, config.dtype, parallel.AXIS)
    optimizer = train_state.make_optimizer(config, steps_per_epoch)
    initial_state = jax.device_get(train_state.create(model, optimizer, image_shape, config.seed))
    return Experiment(
        config=config,
        dataset_info=info,
        inputs=prepared,
        train=parallel.replicate(prepared.train),
        test=parallel.replicate(prepared.test),
        initial_state=initial_state,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(initial_state.params)),
        train_steps=parallel.map_over_devices(
            steps.make_train_steps(model, optimizer), donate_first=True
        ),
        eval_steps=parallel.map_over_devices(steps.make_eval_steps(model)),
        learning_rate=train_state.learning_rate(config, steps_per_epoch),
    )


def _train(
    experiment: Experiment,
    state: TrainState,
    history: list[metrics.Record],
    total: int,
    checkpoints: Checkpoints,
    writer: metrics.Writer,
    display: metrics.Display,
    stop_request: preemption.StopRequest,
) -> TrainState:
    """Trains up to step `total` or a request to stop; appends to the history what it evaluates."""
    config, n = experiment.config, experiment.dataset_info.num_train
    per_epoch = config_lib.steps_per_epoch(config, n)
    fingerprint = experiment.inputs.fingerprint
    stopwatch = metrics.Stopwatch(history[-1]["seconds"] if history else 0.0)
    step, done = int(state.step), False
    state = parallel.replicate(state)
    while step < total and not done:
        epoch, first = divmod(step, per_epoch)
        batches = inputs.epoch_batches(config.seed, epoch, n, config.batch_size)
        batches = batches[first : first + total - step]
        started = stopwatch.seconds()
        state, taken = _train_on(experiment, state, batches, step, display, stop_request)
        step += taken
        if stop_request.signal_name is not None:
            break
        images = int(np.sum(batches != inputs.PADDING))
        speed = images / (stopwatch.seconds() - started)
        epochs = step // per_epoch
        if epochs % config.evaluate.every_epochs == 0 or step == total:
            record = {
                "epoch": step / per_epoch,
                **_evaluate(experiment, state),
                "seconds": stopwatch.seconds(),
                "images_per_second": speed,
                "learning_rate": float(experiment.learning_rate(step - 1)),
            }
            history.append(record)
            writer.write(record)
            display.record(record)
            done = config.stop_when_fitted and record["train_accuracy"] == 1.0
        if epochs % config.checkpoint.every_epochs == 0:
            checkpoints.save(parallel.fetch(state), fingerprint)
    state = parallel.fetch(state)
    checkpoints.save(state, fingerprint)
    return state


def _train_on(
    experiment: Experiment,
    state: TrainState,
    batches: np.ndarray,
    step: int,
    display: metrics.Display,
    stop_request: preemption.StopRequest,
) -> tuple[TrainState, int]:
    """Takes a step for each batch, and returns the state and how many it took before a request to stop."""
    per_dispatch = parallel.steps_per_dispatch()
    taken = 0
    for start in range(0, len(batches), per_dispatch):
        part = batches[start : start + per_dispatch]
        padding = [(0, per_dispatch - len(part)), (0, 0)]
        ids = np.pad(part, padding, constant_values=inputs.PADDING)
        state, _ = experiment.train_steps(
            state, experiment.train, parallel.shard_ids(ids), np.int32(len(part))
        )
        taken += len(part)
        display.step(step + taken)
        if stop_request.signal_name is not None:
            break
    jax.block_until_ready(state)
    return state, taken


def _evaluate(experiment: Experiment, state: TrainState) -> metrics.Record:
    """Evaluates the whole training and test set with fixed weights."""
    devices = len(parallel.devices())
    batch = -(-_EVAL_BATCH // devices) * devices
    per_dispatch = parallel.steps_per_dispatch()

    def sums(split: inputs.Split, n: int) -> list[dict[str, np.ndarray]]:
        batches = inputs.in_batches(np.arange(n), batch)
        parts = [batches[i : i + per_dispatch] for i in range(0, len(batches), per_dispatch)]
        return parallel.fetch(
            [experiment.eval_steps(state, split, parallel.shard_ids(part)) for part in parts]
        )

    info = experiment.dataset_info
    train, test = sums(experiment.train, info.num_train), sums(experiment.test, info.num_test)
    train_loss, train_accuracy = metrics.from_sums(train)
    test_loss, test_accuracy = metrics.from_sums(test, true_labels=True)
    record = {
        "step": int(parallel.fetch(state.step)),
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
    }
    if experiment.config.corruption.name in corruptions.LABEL_CORRUPTIONS:
        corrupted_loss, corrupted_accuracy = metrics.from_sums(test)
        record |= {
            "test_loss_corrupted": corrupted_loss,
            "test_accuracy_corrupted": corrupted_accuracy,
        }
    return record


def _restore_or_start(
    path: epath.Path, checkpoints: Checkpoints, experiment: Experiment
) -> tuple[TrainState, list[metrics.Record]]:
    """Returns the state to go on from and the evaluations up to it."""
    saved = checkpoints.restore_newest(experiment.initial_state)
    if saved is None:
        return experiment.initial_state, []
    state, fingerprint = saved
    if fingerprint != experiment.inputs.fingerprint:
        raise config_lib.UserError(
            f"{path} was trained on other data: fingerprint {fingerprint[:8]}, "
            f"now {experiment.inputs.fingerprint[:8]}; choose another --workdir"
        )
    step = int(state.step)
    logger.info("going on from step %d in %s", step, path)
    return state, [record for record in run_directory.read_metrics(path) if record["step"] <= step]


def _finished_summary(path: epath.Path, config: ConfigDict, total: int) -> dict[str, Any] | None:
    file = path / run_directory.SUMMARY
    if not file.exists():
        return None
    summary = run_directory.read_json(file)
    fitted = config.stop_when_fitted and summary["train_accuracy"] == 1.0
    whole = summary["steps"] >= total or fitted
    return summary if summary["status"] == "finished" and whole else None


def _title(summary: dict[str, Any]) -> str:
    return f"{summary['epochs']:g} epochs, {summary['parameters']:,} parameters"


def _path(config: ConfigDict, workdir: epath.PathLike | None, name: str) -> epath.Path:
    """Returns the run's directory; without a `workdir`, equal configs get the same one."""
    if workdir is not None:
        return epath.Path(workdir).expanduser().resolve()
    title = f"{name}-{config.data.name}-{config.model.name}-{config_lib.digest(config)}"
    return epath.Path("runs", title).resolve()
