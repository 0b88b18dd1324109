"""Finds runs in directories: single ones, those of sweeps, and those of kernels and theory."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib
from rethink_jax.errors import UserError
from rethink_jax.report import experiments
from rethink_jax.report.runs import (
    DIVERGED,
    ReportedRun,
    circumstances,
    hardware_of,
    read_finished,
    runs_to_list,
    with_losses_told,
)
from rethink_jax.runs import files, own_files, run_directory
from rethink_jax.sweeps import sweep_file
from rethink_jax.training import metrics

# How many levels of directories are searched.
_DEPTH = 3
# What reading a damaged run raises.
_DAMAGE = (KeyError, TypeError, AttributeError, ValueError, ArithmeticError)


class Collection(NamedTuple):
    """What directories hold: training runs, and finished runs of kernels and theory."""

    trained: list[ReportedRun]
    computed: list[ReportedRun]


def read(workdirs: Iterable[epath.PathLike]) -> Collection:
    """Reads all runs in some directories and reports, each once.

    Args:
      workdirs: directories of runs, or the `report.json` of a report, whose runs have no curves.

    Raises:
      UserError: one of them is neither, or holds no run, or one that is damaged.
    """
    by_content: dict[str, ReportedRun] = {}
    for workdir in workdirs:
        top = run_directory.path_of(workdir)
        here = _read_report(top) if top.is_file() else _read_all(top)
        if not here:
            raise UserError(
                f"--workdir is {workdir}; it holds no sweep: {own_files.SWEEP} is missing there, and no "
                f"training run or finished run of {', '.join(experiments.EXPERIMENTS)}"
            )
        for run in here:
            key = _content(run)
            if key not in by_content or not by_content[key].history:  # a report has no curves
                by_content[key] = run
    runs = _named_apart([*by_content.values()])
    kinds = [run.config["experiment"] == "train" for run in runs]
    return Collection(
        trained=[run for run, is_trained in zip(runs, kinds, strict=True) if is_trained],
        computed=[run for run, is_trained in zip(runs, kinds, strict=True) if not is_trained],
    )


def _read_report(file: epath.Path) -> list[ReportedRun]:
    """Reads the runs of a report, without those of which a sweep's report has no config."""
    try:
        entries = [entry for entry in files.read_json(file)["runs"] if entry["config"]]
        if not entries:
            raise UserError(f"--workdir is {file}; it reports no run that has begun")
        return [_reported(file, **entry) for entry in entries]
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{file} is no report, or is damaged ({reason})") from error


def _reported(
    file: epath.Path,
    name: str,
    seed: int,
    state: str,
    config: dict[str, Any],
    environment: dict[str, Any],
    summary: dict[str, Any],
    rows: list[Any] | None = None,
) -> ReportedRun:
    """Returns a run from the fields of its entry in a report; without `rows` it is of a sweep."""
    fields = files.complete(config)
    environment, summary = with_losses_told(environment), with_losses_told(summary)
    run = ReportedRun("", seed, state, fields, environment, [], summary)
    if fields["experiment"] != "train":
        return run._replace(row=name)
    circumstances(run), hardware_of(run)  # raises here where a file is damaged
    place = name if rows is not None else f"{file.parent.name}/{name}-seed{seed}"
    return run._replace(place=place)


def _read_all(top: epath.Path) -> list[ReportedRun]:
    return [run for path in runs_in(top) if (run := _read_run(path, top)) is not None]


def runs_in(path: epath.Path, depth: int = _DEPTH) -> Iterator[epath.Path]:
    """Finds the run directories in a directory, but not inside other runs."""
    if (path / own_files.CONFIG).exists():
        yield path
    elif depth:
        for inner in sorted(path.iterdir()):
            if inner.is_dir() and not inner.name.startswith("."):
                yield from runs_in(inner, depth - 1)


def _read_run(path: epath.Path, top: epath.Path) -> ReportedRun | None:
    """Reads a run directory; None for one of kernels or theory that is not finished."""
    try:
        config = files.read_config(path)
        kind = config["experiment"]
        place = "/".join([top.name, *path.parts[len(top.parts) :]])
        if kind == "train":
            run = _read_training(path, config)._replace(place=place)
            circumstances(run), hardware_of(run)  # raises here where a file is damaged
            return run
        if kind not in experiments.EXPERIMENTS:
            known = ", ".join(("train", *experiments.EXPERIMENTS))
            raise UserError(
                f"{path / own_files.CONFIG} is of the experiment {kind!r}; there is a report of {known}"
            )
        finished = (path / own_files.SUMMARY).exists()
        return read_finished(path, path.name, config.get("seed", 0)) if finished else None
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"the run in {path} is damaged, or was made by an older version ({reason})"
        ) from error


def _read_training(path: epath.Path, config: dict[str, Any]) -> ReportedRun:
    """Reads a training run; where it is not finished, its evaluations are summarized here."""
    environment = with_losses_told(files.read_json(path / own_files.ENVIRONMENT))
    history = files.read_metrics(path)
    file = path / own_files.SUMMARY
    summary = with_losses_told(files.read_json(file)) if file.exists() else {}
    total = config_lib.total_steps(ConfigDict(config), environment["num_train"])
    state = "finished"
    if summary.get("status") != "finished" or not metrics.has_ended(config, summary, total):
        failed = summary.get("status") == "failed"
        state = (DIVERGED if _has_diverged(path) else "failed") if failed else "stopped"
        parameters = summary.get("parameters", 0)
        summary = metrics.summarize(history, state, parameters) if history else {}
    return ReportedRun("", config["seed"], state, config, environment, history, summary)


def _has_diverged(path: epath.Path) -> bool:
    """Returns whether a run's sweep says that it has diverged, as was expected."""
    file = path.parent / own_files.SWEEP
    if not file.exists():
        return False
    entry = sweep_file.read(file).by_directory().get(path.name)
    return entry is not None and entry.expect_divergence and entry.diverged


def _content(run: ReportedRun) -> str:
    """Returns a run's content as text; a copy of the run has the same, and so has its entry in a report."""
    (entry,) = runs_to_list([run._replace(row="")])
    return json.dumps(entry, sort_keys=True)


def _named_apart(runs: list[ReportedRun]) -> list[ReportedRun]:
    """Numbers the runs whose names are equal."""
    counts: dict[str, int] = {}

    def apart(name: str) -> str:
        counts[name] = counts.get(name, 0) + 1
        return name if not name or counts[name] == 1 else f"{name}-{counts[name]}"

    return [run._replace(place=apart(run.place), row=apart(run.row)) for run in runs]
