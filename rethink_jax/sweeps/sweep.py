"""Many runs from one config: which are done, which to start, and where."""

import contextlib
import fnmatch
import functools
import importlib.util
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data
from rethink_jax.distributed import jax_settings, preemption, processes
from rethink_jax.errors import (
    Diverged,
    InUse,
    RunFailed,
    UserError,
    line_with_type,
    one_line,
    require,
)
from rethink_jax.pipeline import loaders
from rethink_jax.runs import display, effects, identity
from rethink_jax.runs.resolve import resolve
from rethink_jax.sweeps import groups, launchers
from rethink_jax.sweeps.manifest import PlannedRun, RunOutcome, SweepManifest
from rethink_jax.training import together, train

logger = logging.getLogger(__name__)


@jax_settings.pin_settings()
def run(
    config: ConfigDict,
    workdir: epath.PathLike | None = None,
    dataset: data.Dataset | None = None,
    name: str = "sweep",
) -> dict[str, Any]:
    """Runs the unfinished runs of a sweep, and reports on all of it.

    Args:
      config: as `rethink_jax.config.sweep` returns it, changed at will.
      workdir: the sweep's directory; by default `runs/<name>-<data>-<digits of the config>`.
      dataset: for all runs, in place of `config.data.name`.
      name: of the config file, for the default directory.

    Returns:
      The content of `sweep.json`.

    Raises:
      UserError: for a run that cannot be run, before the first one begins.
      RunFailed: at the end, where runs have failed.
      Stopped: when a signal came; the state is saved.
    """
    path = _path(config, workdir, name, dataset)
    open_data = _opener(dataset)
    with contextlib.ExitStack() as stack:
        stop_request = stack.enter_context(preemption.stop_on_signals())
        if jax.process_count() > 1:  # the others have to hear of a signal first
            stack.enter_context(stop_request.defer())
        runs = processes.all_or_fail(lambda: plan(config, path, dataset))
        executor = None if config.launcher == "local" else _executor(config, path)
        manifest = SweepManifest(path, config.sweep.name, config.sweep.size, runs, open_data)
        _tell_ignored(runs)
        shown = stack.enter_context(display.show_sweep(len(runs)))
        if executor is None:
            in_groups = config.sweep.together == "auto" and jax.process_count() == 1
            _run_here(manifest, open_data, shown, stop_request, in_groups)
        else:
            _run_in_jobs(manifest, executor, shown, stop_request)
    manifest.refresh()  # other processes' runs may have ended meanwhile
    manifest.print_table(shown.progress)
    if names := [manifest.name_of(run) for run in manifest.unfinished()]:
        raise RunFailed(
            f"{len(names)} of {len(runs)} runs are not done: {', '.join(names)}; "
            "run the same command again to try them again"
        )
    return manifest.content


def plan(
    config: ConfigDict, path: epath.Path, dataset: data.Dataset | None = None
) -> list[PlannedRun]:
    """Resolves and checks every run of a sweep; the first seed of all comes before the second.

    Raises:
      UserError: naming the run whose config has no run.
    """
    config_lib.check(config)
    launcher = config.launcher
    if config.launcher != "local" and (dataset is not None or jax.process_count() > 1):
        raise UserError(
            f"config.launcher is {config.launcher!r}; it must be local in several processes "
            "and for a data set of one's own arrays"
        )
    if launcher != "local" and importlib.util.find_spec("submitit") is None:
        needed = "which needs submitit: pip install -e '.[slurm]'"
        raise UserError(f"config.launcher is {launcher!r}, {needed}")
    _check_runs(config.sweep.runs)
    chosen = _chosen(config)
    runs = []
    for repeat in range(config.sweep.seeds):
        for entry in chosen:
            try:
                resolved, info = resolve(_config_of(config, entry, repeat), dataset)
            except UserError as error:
                raise UserError(f"run {entry['name']}: {error}") from error
            run_path = path / f"{entry['name']}-seed{resolved.seed}"
            total = config_lib.total_steps(resolved, info.num_train)
            expect = entry["expect_divergence"]
            ignored = tuple(effects.ignored(resolved, info))
            name, seed = entry["name"], resolved.seed
            runs.append(PlannedRun(name, seed, resolved, run_path, expect, total, ignored))
    _refuse_ignored_by_all(config, runs)
    return runs


def _refuse_ignored_by_all(config: ConfigDict, runs: list[PlannedRun]) -> None:
    """Raises `UserError` for a setting of the sweep's that changes nothing in any of its runs."""
    for field, ignoring in _ignored(runs).items():
        value = config_lib.get(config, field)
        is_shared = value != config_lib.get(config_lib.base(), field)
        if is_shared and len(ignoring) == len(runs):
            for run, setting in ignoring:
                effects.refuse_one(run.path, setting)


def _ignored(runs: list[PlannedRun]) -> dict[str, list[tuple[PlannedRun, effects.Ignored]]]:
    """Returns the fields that runs ignore, with the runs that do."""
    fields: dict[str, list[tuple[PlannedRun, effects.Ignored]]] = {}
    for run in runs:
        for setting in run.ignored:
            fields.setdefault(setting.field, []).append((run, setting))
    return fields


def _tell_ignored(runs: list[PlannedRun]) -> None:
    for field, ignoring in _ignored(runs).items():
        names = ", ".join(dict.fromkeys(run.name for run, _ in ignoring))
        logger.info("config.%s is %r and changes nothing in %s", field, ignoring[0][1].value, names)


def _chosen(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the runs whose names `config.sweep.only` matches: patterns with * and ?, commas between."""
    patterns = config.sweep.only.split(",")
    names = [entry["name"] for entry in config.sweep.runs]
    for pattern in patterns:
        known = f"a name or a pattern of {', '.join(names)}"
        require(
            any(fnmatch.fnmatchcase(name, pattern) for name in names), "sweep.only", pattern, known
        )
    return [
        entry
        for entry in config.sweep.runs
        if any(fnmatch.fnmatchcase(entry["name"], pattern) for pattern in patterns)
    ]


def _check_runs(runs: Any) -> None:
    what = "runs as rethink_jax.config.sweep_entry returns them"
    kinds = {"name": str, "fields": dict, "expect_divergence": bool}
    for entry in runs:
        keys = isinstance(entry, dict) and {key: type(value) for key, value in entry.items()}
        require(keys == kinds, "sweep.runs", runs, what)
        name = entry["name"]
        fits = bool(re.fullmatch(r"[\w+-][\w.+-]*", name))
        require(fits, "sweep.runs", name, "names of letters, digits, '_', '.', '+' and '-'")
    names = [entry["name"] for entry in runs]
    require(bool(names), "sweep.runs", runs, what)
    require(len(set(names)) == len(names), "sweep.runs", names, "runs of different names")


def _config_of(config: ConfigDict, entry: dict[str, Any], repeat: int) -> ConfigDict:
    """Returns the training config of one run: the sweep's, with what the run changes and the seeds moved on.

    Of how long a run trains and how it is saved the sweep's config has the last word where it says anything,
    because it is there that the command line writes. What else a run sets its name may tell of.
    """
    fields = config.to_dict()
    del fields["sweep"], fields["launcher"], fields["slurm"]
    own, default = ConfigDict(fields), config_lib.base()
    changeable = config_lib.may_change({})
    for field, value in entry["fields"].items():
        try:
            shared = config_lib.get(own, field)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"config.{field} is no field") from error
        is_set = shared != config_lib.get(default, field)
        if is_set and field in changeable and not field.startswith("data."):
            continue
        unset = "left to the runs of the sweep, which set it each for itself"
        require(not is_set or shared == value, field, shared, unset)
        try:
            own.update_from_flattened_dict({field: value})
        except (TypeError, ValueError) as error:
            raise UserError(f"config.{field} is {value!r}, which is of another type") from error
    own.experiment = "train"
    own.seed += repeat
    own.corruption.seed += repeat
    return own


def _opener(
    dataset: data.Dataset | None,
) -> Callable[[ConfigDict], data.Dataset | data.Source]:
    """Returns a function that opens the data of a run's config, and keeps them for the next run."""
    opened: dict[str, data.Dataset | data.Source] = {}

    def open_data(config: ConfigDict) -> data.Dataset | data.Source:
        key = json.dumps(config.data.to_dict(), sort_keys=True)
        if key not in opened:
            opened.clear()  # before others are loaded beside them
            opened[key] = loaders.open_data(config, dataset)
        return opened[key]

    return open_data


def _run_here(
    manifest: SweepManifest,
    open_data: Callable[[ConfigDict], data.Dataset | data.Source],
    shown: display.SweepDisplay,
    stop_request: preemption.StopRequest,
    in_groups: bool,
) -> None:
    """Runs the unfinished runs in this process: some together, the others one after another."""
    unfinished = manifest.unfinished()
    shown.skip(len(manifest.runs) - len(unfinished))
    for group in groups.divide(unfinished) if in_groups else [[run] for run in unfinished]:
        done = len(manifest.runs) - len(manifest.unfinished())
        stop_request.saved = (
            f"stopped; {done} of {len(manifest.runs)} runs are done in {manifest.path}; "
            "run the same command again to go on"
        )
        processes.raise_if_stopped(stop_request)
        shown.begin(_title_of(group), count=len(group))
        outcomes = {run.path: RunOutcome() for run in group}
        try:
            opened = processes.all_or_fail(functools.partial(open_data, group[0].config))
            own = opened if isinstance(opened, data.Dataset) else None
            _attempt_group(group, own, shown.progress, outcomes)
        except preemption.Stopped:
            manifest.end(outcomes)
            for run in group:
                if outcomes[run.path].error is not None:
                    shown.end(_title(run), _how_it_ended(run, outcomes[run.path], manifest))
            raise
        except Exception as error:  # the data do not load
            outcomes = dict.fromkeys(outcomes, _outcome_of(error))
        manifest.end(outcomes)
        for run in group:
            shown.end(_title(run), _how_it_ended(run, outcomes[run.path], manifest))


def _attempt_group(
    group: list[PlannedRun],
    dataset: data.Dataset | None,
    progress: display.ProgressDisplay,
    outcomes: dict[epath.Path, RunOutcome],
) -> None:
    """Runs one run, or several together, and notes how they end, whatever that is, but for a signal.

    Members that something unexpected ends, too little memory for all of them perhaps, are tried again in
    smaller groups.
    """
    if len(group) == 1:
        (run,) = group
        outcomes[run.path] = _attempt(run.config, run.path, dataset, progress)
        return
    assert dataset is not None
    configs, paths = [run.config for run in group], [run.path for run in group]
    errors: dict[int, Exception] = {}
    try:
        together.run(configs, paths, dataset, progress, errors)
    finally:
        outcomes |= {paths[index]: _outcome_of(error) for index, error in errors.items()}
    unexpected = [index for index in errors if not isinstance(errors[index], RunFailed | UserError)]
    if unexpected:
        line = line_with_type(errors[unexpected[0]])
        logger.warning("%d runs are tried in smaller groups: %s", len(unexpected), line)
        half = -(-len(unexpected) // 2)
        for part in (unexpected[:half], unexpected[half:]):
            if part:
                _attempt_group([group[index] for index in part], dataset, progress, outcomes)


def _attempt(
    config: ConfigDict,
    path: epath.PathLike,
    dataset: data.Dataset | None = None,
    progress: display.ProgressDisplay | None = None,
) -> RunOutcome:
    """Runs one run to its end, whatever that is, but for a signal."""
    try:
        train.run(config, path, dataset, progress=progress, in_sweep=True)
    except Exception as error:
        return _outcome_of(error)
    return RunOutcome()


def _outcome_of(error: Exception) -> RunOutcome:
    """Returns what is noted of what ended a run: too little memory, a dead worker, whatever it is."""
    if isinstance(error, RunFailed | UserError):
        return RunOutcome(str(error), isinstance(error, Diverged), isinstance(error, InUse))
    if jax.process_count() > 1:
        raise error  # the others may wait
    return RunOutcome(line_with_type(error))


def _run_in_jobs(
    manifest: SweepManifest,
    executor: Any,
    shown: display.SweepDisplay,
    stop_request: preemption.StopRequest,
) -> None:
    """Submits a job for each unfinished run, and waits for them."""
    unfinished = manifest.unfinished()
    shown.skip(len(manifest.runs) - len(unfinished))
    stop_request.saved = "the jobs go on; run the same command again when they have ended"
    waiting = []
    for run in unfinished:
        job = executor.submit(
            launchers.Job(_attempt, RunOutcome()), run.config.to_dict(), str(run.path)
        )
        waiting.append((run, job))
        shown.begin(_title(run), f"job {job.job_id}")
    while waiting:
        time.sleep(0.5)
        stop_request.raise_if_stopped()
        ended = [(run, job) for run, job in waiting if job.done()]
        for run, job in ended:
            error = job.exception()
            outcome = RunOutcome(one_line(error)[-500:]) if error else job.result()
            manifest.end({run.path: outcome})
            shown.end(_title(run), _how_it_ended(run, outcome, manifest))
        waiting = [pair for pair in waiting if all(pair[1] is not job for _, job in ended)]


def _executor(config: ConfigDict, path: epath.Path) -> Any:
    """Returns submitit's executor for `config.launcher`; writes nothing.

    Raises:
      UserError: there is no Slurm.
    """
    import submitit  # an extra

    cluster = "slurm" if config.launcher == "slurm" else "local"
    try:
        executor = submitit.AutoExecutor(folder=str(path / "jobs"), cluster=cluster)
    except RuntimeError as error:
        raise UserError(f"config.launcher is {config.launcher!r}: {error}") from error
    executor.update_parameters(**launchers.parameters_of(config))
    return executor


def _title_of(group: list[PlannedRun]) -> str:
    if len(group) == 1:
        return _title(group[0])
    return f"{_title(group[0])} to {_title(group[-1])}, together"


def _title(run: PlannedRun) -> str:
    return f"{run.name}, seed {run.seed}"


def _how_it_ended(run: PlannedRun, outcome: RunOutcome, manifest: SweepManifest) -> str:
    text = manifest.status(run)
    if outcome.error is not None:
        return f"{text}{', as expected' if manifest.is_done(run) else ''}: {outcome.error}"
    if summary := manifest.summary(run):
        train_accuracy, test_accuracy = (
            display.percent(summary[f"{split}_accuracy"]) for split in ("train", "test")
        )
        text += f", train {train_accuracy}, test {test_accuracy}"
    return text


def _path(
    config: ConfigDict, workdir: epath.PathLike | None, name: str, dataset: data.Dataset | None
) -> epath.Path:
    """Returns the sweep's directory; without a `workdir`, equal configs get one, whichever runs are chosen."""
    fields = ConfigDict(config.to_dict())

    def fingerprint() -> str:
        return processes.all_or_fail(lambda: loaders.open_data(config, dataset)).fingerprint

    data_name = config.data.name if dataset is None else dataset.info.name
    return identity.path_of(workdir, fields, fingerprint, name, data_name, dataset=dataset)
