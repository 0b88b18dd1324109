"""One training run, from its config to its summary."""

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data
from rethink_jax.distributed import jax_settings, parallel, preemption, processes
from rethink_jax.errors import RunFailed, UserError
from rethink_jax.pipeline import loaders
from rethink_jax.runs import (
    cpu_devices,
    display,
    files,
    identity,
    opening,
    own_files,
    run_directory,
)
from rethink_jax.runs.resolve import resolve
from rethink_jax.training import loop, metrics
from rethink_jax.training.checkpoints import (
    FOLDER,
    Checkpoints,
    newest_history,
    restore_on_all,
    steps_in,
)
from rethink_jax.training.experiment import Experiment, build
from rethink_jax.training.recorder import Recorder

logger = logging.getLogger(__name__)


@jax_settings.pin_settings()
def run(
    config: ConfigDict,
    workdir: epath.PathLike | None = None,
    dataset: data.Dataset | None = None,
    name: str = "train",
    progress: display.ProgressDisplay | None = None,
    in_sweep: bool = False,
) -> dict[str, Any]:
    """Trains as a config says, or resumes a run that was interrupted, and shows the result.

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
      >>> import numpy as np
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
        processes.on_primary(lambda: opening.check_new(path, config, info))
    total = config_lib.total_steps(config, info.num_train)
    with contextlib.ExitStack() as stack, cpu_devices.use(config, path):
        stop_request = _listen(stack, config)
        processes.on_primary(lambda: run_directory.summary_of(path, config))
        opened = open_data()
        summary = processes.on_primary(
            lambda: finished_summary(path, config, total, check_same_data(path, config, opened))
        )
        if summary is None:
            experiment = processes.all_or_fail(lambda: build(config, opened))
            summary = _run(experiment, path, total, stop_request, progress, opened.fingerprint)
        else:
            logger.info("%s is finished", path)
    if progress is None:
        display.print_result(_title(summary), summary, info.num_classes)
    return summary


def _listen(stack: contextlib.ExitStack, config: ConfigDict) -> preemption.StopRequest:
    """Catches signals until the stack closes; one of several processes only notes them until all have heard."""
    stop_request = stack.enter_context(preemption.stop_on_signals())
    stop_request.grace_seconds = config.grace_seconds
    if jax.process_count() > 1:
        stack.enter_context(stop_request.defer())
    return stop_request


def _run(
    experiment: Experiment,
    path: epath.Path,
    total: int,
    stop_request: preemption.StopRequest,
    progress: display.ProgressDisplay | None,
    data_fingerprint: str,
) -> dict[str, Any]:
    """Trains in a run directory from its newest checkpoint or from the start, and returns its summary."""
    if not stop_request.deferred:  # some library may have swallowed what the signal raised
        stop_request.raise_if_stopped()
    fingerprint, info = experiment.loader.fingerprint, experiment.dataset_info
    recorder = Recorder(path, experiment.config, fingerprint, info, stop_request, data_fingerprint)
    with contextlib.closing(experiment.loader), recorder:
        state = recorder.restore(experiment.initial_state, total, progress)
        with stop_request.defer():
            try:
                is_finished = loop.train(experiment, state, total, recorder, stop_request)
            except RunFailed:
                with contextlib.suppress(RunFailed):
                    recorder.summarize("failed", experiment.parameters)
                raise
            if is_finished and isinstance(experiment.loader, loaders.InMemoryLoader):
                recorder.write_scores(experiment.loader.train_labels)
            status = "finished" if is_finished else "stopped"
            summary = recorder.summarize(status, experiment.parameters)
    if not is_finished:
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
    with cpu_devices.use(config, path):
        record = _evaluate(config, path, opened)
    display.print_result(f"step {record['step']}", record, info.num_classes)
    processes.on_primary(lambda: files.write_json(path / "evaluation.json", record))
    return record


def _evaluate(
    config: ConfigDict, path: epath.Path, opened: data.Dataset | data.Source
) -> dict[str, Any]:
    """Returns the evaluation of a run's newest checkpoint."""
    experiment = processes.all_or_fail(lambda: build(config, opened))
    checkpoints = Checkpoints(path, read_only=True) if processes.is_primary() else None
    saved = restore_on_all(checkpoints, experiment.initial_state)
    if saved is None:
        raise UserError(f"{path} has no whole checkpoint to evaluate")
    now = experiment.loader.fingerprint
    if saved.fingerprint != now:
        raise UserError(
            f"{path} was made from other data: fingerprint {saved.fingerprint[:8]}, now {now[:8]}; "
            "evaluate it on its own"
        )
    with contextlib.closing(experiment.loader), display.show_evaluation() as shown:
        return loop.evaluate(experiment, parallel.replicate(saved.state), shown.show) or {}


def check_same_data(
    path: epath.Path, config: ConfigDict, opened: data.Dataset | data.Source
) -> bool:
    """Returns whether a directory's run is known to be of these data; `UserError` where it is of others."""
    return identity.check_same_data(
        path, config, opened.fingerprint, lambda: loaders.fingerprint(config, opened)
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
      UserError: the directory is another run's, or this run's files cannot be checked.
    """
    summary = run_directory.summary_of(path, config)
    if summary is None or summary.get("status") != "finished":
        return None
    if metrics.has_ended(config, summary, total) and is_same_data and _fits_metrics(path, summary):
        return summary
    if newest_history(path) is None:
        raise UserError(
            f"{path} has a finished run and no checkpoint, by which its files could be checked or it could be "
            "resumed; choose another --workdir"
        )
    return None


def _fits_metrics(path: epath.Path, summary: dict[str, Any]) -> bool:
    """Returns whether a summary is that of `metrics.jsonl`, and this the newest checkpoint's evaluations.

    The last evaluation may have come after the checkpoint of its step, where a signal came between the two.
    """
    try:
        history = files.read_metrics(path)
        expected = metrics.summarize(history, "finished", summary["parameters"])
    except (UserError, KeyError, TypeError):
        return False
    if expected != summary:
        return False
    steps = steps_in(path / FOLDER)
    came_later = bool(steps and history) and history[-1]["step"] == steps[-1]
    known = (None, history, history[:-1]) if came_later else (None, history)
    return newest_history(path) in known


def _title(summary: dict[str, Any]) -> str:
    return f"{summary['epochs']:g} epochs, {summary['parameters']:,} parameters"


def _opener(
    config: ConfigDict, dataset: data.Dataset | None
) -> Callable[[], data.Dataset | data.Source]:
    """Returns a function that opens a resolved config's data, once; all processes call it."""

    def open_data() -> data.Dataset | data.Source:
        opened = loaders.open_data(config, dataset)
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
