"""Reads a sweep's directory: its runs, how each of them ended, and the files of those that finished."""

import contextlib
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, paper
from rethink_jax.errors import UserError
from rethink_jax.runs import files, own_files, run_directory
from rethink_jax.sweeps import sweep_file

STATUSES = ("finished", "stopped", "failed", "not run yet", "not run")
DIVERGED = "diverged"


class ReportedRun(NamedTuple):
    """One run of a sweep.

    Attributes:
      row: key of the paper's row that it measures again.
      seed: of the run.
      state: "finished", "stopped", "failed", "not run", or `DIVERGED` for a run that was expected to.
      config: as it ran; empty for a run of a sweep that is not finished.
      environment: `run.json`, likewise.
      history: the records of `metrics.jsonl`, likewise.
      summary: `summary.json`, likewise.
      place: its path from the directory that was given; empty for a run of a sweep.
    """

    row: str
    seed: int
    state: str
    config: dict[str, Any]
    environment: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    place: str = ""


class Sweep(NamedTuple):
    """The runs of one table or figure.

    Attributes:
      name: of the table or figure.
      size: smoke, small or full.
      runs: all of them.
      collected: whether they are from anywhere, and not of one sweep.
    """

    name: str
    size: str
    runs: tuple[ReportedRun, ...]
    collected: bool = False

    def of(self, row: str) -> list[ReportedRun]:
        """Returns a row's runs, by seed."""
        return sorted((run for run in self.runs if run.row == row), key=lambda run: run.seed)

    def finished(self, row: str) -> list[ReportedRun]:
        """Returns a row's finished runs, the only ones that numbers are taken from."""
        return [run for run in self.of(row) if run.state == "finished"]

    def lines(self, row: str) -> list[list[ReportedRun]]:
        """Returns the runs of each line of a row, one at least; collected ones by what may be averaged."""
        return group(self.of(row)) or [[]] if self.collected else [self.of(row)]

    def beside(self, run: ReportedRun, row: str) -> list[ReportedRun]:
        """Returns the finished runs of another row that a run may be held against."""
        if not self.collected:
            return self.finished(row)
        same = circumstances(run)
        whole = (line for line in self.lines(row) if line and line[0].state == "finished")
        return next((line for line in whole if circumstances(line[0]) == same), [])


class Circumstances(NamedTuple):
    """What runs have in common whose numbers may be averaged.

    Attributes:
      data: the data set's name, or that it was made up.
      examples: of the training set.
      epochs: that were planned.
      stop_when_fitted: whether a fitted run ends before.
      stop_at_loss: the training loss at which a run ends before.
      devices: what kinds of hardware.
    """

    data: str
    examples: int
    epochs: float
    stop_when_fitted: bool
    stop_at_loss: float | None
    devices: tuple[str, ...]


def circumstances(run: ReportedRun) -> Circumstances:
    """Returns a run's circumstances."""
    kinds = [kind for start in _starts(run.environment) for kind in _kinds_of_devices(start)]
    return Circumstances(
        *data_of(run),
        planned_epochs(run),
        bool(run.config["stop_when_fitted"]),
        run.config.get("stop_at_loss"),
        tuple(sorted({*kinds})),
    )


def _starts(environment: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the environments of a run's starts, the last one first; of damaged ones nothing is known."""
    earlier = environment.get("sessions", [])[:-1]
    return [environment, *(session for session in earlier if session.get("devices"))]


def _kinds_of_devices(environment: dict[str, Any]) -> list[str]:
    return [environment["cpu"]] if environment["backend"] == "cpu" else environment["devices"]


def planned_epochs(run: ReportedRun) -> float:
    """Returns for how many epochs a run was to train."""
    if run.config["steps"] is None:
        return float(run.config["epochs"])
    return run.config["steps"] / math.ceil(run.environment["num_train"] / run.config["batch_size"])


def group(runs: list[ReportedRun]) -> list[list[ReportedRun]]:
    """Returns the runs that may be averaged together: finished, of equal circumstances, each of another seed.

    Most examples come first, and what is not finished last, each run by itself.
    """
    groups: list[list[ReportedRun]] = []
    for run in runs:
        fitting = (
            members
            for members in groups
            if run.state == members[0].state == "finished"
            and circumstances(run) == circumstances(members[0])
            and _seeds(run) not in map(_seeds, members)
        )
        group_of_run = next(fitting, None)
        if group_of_run is None:
            groups.append([run])
        else:
            group_of_run.append(run)
    return sorted(groups, key=lambda members: (-data_of(members[0])[1], data_of(members[0])))


def _seeds(run: ReportedRun) -> tuple[int, int]:
    return run.seed, run.config["corruption"]["seed"]


def read_sweep(workdir: epath.PathLike) -> Sweep:
    """Reads a sweep's directory.

    Raises:
      UserError: it holds no sweep, or one that is damaged.
    """
    path = epath.Path(workdir).expanduser()
    file = path / own_files.SWEEP
    content = sweep_file.read(file)
    try:
        runs = tuple(_read_run(path, entry) for entry in content.runs)
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged: {type(error).__name__}: {error}") from error
    return Sweep(str(content.name), str(content.size), runs)


def _read_run(path: epath.Path, entry: sweep_file.Entry) -> ReportedRun:
    """Reads one run of a sweep's list."""
    if entry.status not in STATUSES:
        raise UserError(
            f"{path / own_files.SWEEP} is damaged: the status of {entry.directory} is {entry.status!r}; "
            f"it must be one of {', '.join(STATUSES)}"
        )
    diverged = entry.expect_divergence and entry.diverged
    state = DIVERGED if diverged else entry.status.removesuffix(" yet")
    if state != "finished":
        return ReportedRun(entry.name, entry.seed, state, {}, {}, [], {})
    return read_finished(path / entry.directory, entry.name, entry.seed)


class LostField(KeyError):
    """A field that a run's file does not have: the file is at fault, and not the report."""


class _Fields(dict[str, Any]):
    """The fields of a run's file; one that it lacks is a `LostField`."""

    def __missing__(self, name: str) -> Any:
        raise LostField(name)


def with_losses_told(value: Any) -> Any:
    """Returns what a run's file holds, where a field that is not there is a `LostField` and no `KeyError`."""
    if isinstance(value, dict):
        return _Fields({name: with_losses_told(inner) for name, inner in value.items()})
    return [with_losses_told(inner) for inner in value] if isinstance(value, list) else value


def read_finished(place: epath.Path, row: str, seed: int) -> ReportedRun:
    """Reads the directory of a finished run; a row's key and the seed come from elsewhere."""
    config = files.read_config(place)
    environment, summary = (
        with_losses_told(files.read_json(place / file))
        for file in (own_files.ENVIRONMENT, own_files.SUMMARY)
    )
    history = files.read_metrics(place)
    return ReportedRun(row, seed, "finished", config, environment, history, summary)


def to_dict(sweep: Sweep) -> dict[str, Any]:
    """Returns a sweep for `report.json`: its runs without their curves and without paths."""
    return {"name": sweep.name, "size": sweep.size, "runs": runs_to_list(sweep.runs)}


def runs_to_list(runs: Iterable[ReportedRun]) -> list[dict[str, Any]]:
    """Returns runs for `report.json`, without their curves and without paths."""
    entries = []
    for run in runs:
        fields = {name: value for name, value in run.config.items() if name != "compilation_cache"}
        if fields:
            data = {name: value for name, value in fields["data"].items() if name != "data_dir"}
            fields["data"] = data
        environment = _without_paths(run.environment)
        files_of_run = {"config": fields, "environment": environment, "summary": run.summary}
        entries.append({"name": run.row, "seed": run.seed, "state": run.state, **files_of_run})
    return entries


def _without_paths(environment: dict[str, Any]) -> dict[str, Any]:
    """Replaces paths in the variables of an environment, and of each of its starts, by PATH."""
    cleaned = dict(environment)
    if "variables" in cleaned:
        cleaned["variables"] = {
            name: re.sub(r"(^|[=\s:,])~?/[^\s:,]*", r"\1PATH", value)
            for name, value in cleaned["variables"].items()
        }
    if "sessions" in cleaned:
        cleaned["sessions"] = [_without_paths(session) for session in cleaned["sessions"]]
    return cleaned


def data_of(run: ReportedRun) -> tuple[str, int]:
    """Returns the data set's name, marked where the data are made up, and its number of training examples."""
    name = run.config["data"]["name"]
    return f"made-up {name}" if _is_made_up(run) else name, run.environment["num_train"]


def _is_made_up(run: ReportedRun) -> bool:
    # An unfinished run has no config here; configs of earlier versions lack the field.
    return bool(run.config.get("data", {}).get("fake"))


def title(what: str, runs: Iterable[ReportedRun]) -> str:
    """Returns a report's title, which mentions made-up data."""
    more = ", made-up data" if any(map(_is_made_up, runs)) else ""
    return f"Zhang et al. 2017, {what}{more}: ours beside the paper's"


def warn_of_made_up(runs: Iterable[ReportedRun]) -> list[str]:
    """Returns the warning that data are made up, or nothing."""
    made_up = [_is_made_up(run) for run in runs if run.config]
    if not any(made_up):
        return []
    which = "all" if all(made_up) else f"{sum(made_up)} of {len(made_up)}"
    return [
        f"Made-up data: {which} finished runs had random images with random labels instead of the "
        "data set that they name. Their numbers show that the program runs and nothing else."
    ]


def warn_of_parts(runs: Iterable[ReportedRun]) -> list[str]:
    """Returns what a report has to say first where only a part of the examples was evaluated."""
    partial = [run for run in runs if {"train_evaluated", "test_evaluated"} & run.summary.keys()]
    if not partial:
        return []
    names = ", ".join(f"{run.row} (seed {run.seed})" for run in partial)
    return [
        f"Not the whole sets: losses and accuracies of {names} are those on the first examples by id, as "
        "`config.evaluate.examples` says, and not comparable with the paper's."
    ]


def changes_of(run: ReportedRun) -> str:
    """Returns in words what a run changes in the default recipe, beside what its row's name tells."""
    own = run.config
    default = _recipe_of(run)
    fields = config_lib.fields_for(own)
    side = own["data"]["size"]
    usual = config_lib.fill_in(default, run.environment["num_train"], side).to_dict()
    return ", ".join(
        f"{field.rpartition('.')[2]} {value}"
        for field, _, value in run_directory.differences(usual, own)
        if field not in fields or fields[field].in_report
    )


def _recipe_of(run: ReportedRun) -> ConfigDict:
    """Returns the default recipe of what a run's row names, not resolved; without the values in its name."""
    if paper.words_of(run.row)[0].text in config_lib.LABELS:
        recipe = config_lib.imagenet(run.config["data"]["name"], "true_labels")
        make, fields = config_lib.imagenet_entry, {}
    else:
        recipe = config_lib.base()
        recipe.data.size = run.config["data"]["size"]  # which is the data set's
        make, fields = config_lib.cifar10_entry, config_lib.NETWORKS["inception"]
    with contextlib.suppress(UserError):  # the user's own name says nothing of a recipe
        fields = make(run.row)["fields"]
    for own in config_lib.values_in(run.row).values():
        fields = {field: value for field, value in fields.items() if field not in own}
    recipe.update_from_flattened_dict(fields)
    return recipe


def level_of(run: ReportedRun) -> tuple[str, float] | None:
    """Returns a run's model and p, None for a row that is not of Figures 1b and 1c."""
    model, *rest = paper.words_of(run.row)
    levels = [float(word.number) for word in rest if word.name == "p" and word.number]
    return (model.text, levels[0]) if len(rest) == len(levels) == 1 else None


def hardware_of(run: ReportedRun) -> str:
    """Returns the devices of all of a run's starts in words: "2 × NVIDIA H200", or "AMD EPYC, 2 cores"."""
    return "; ".join(dict.fromkeys(map(_hardware, _starts(run.environment))))


def _hardware(environment: dict[str, Any]) -> str:
    devices = environment["devices"]
    kinds = {kind: devices.count(kind) for kind in dict.fromkeys(devices)}
    if environment["backend"] == "cpu":
        cores = environment["cores"]
        return f"{environment['cpu']}, {cores} core{'s' if cores > 1 else ''}"
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.items())


def times_resumed(run: ReportedRun) -> str | None:
    """Returns how often a run was resumed, in words: empty for never, None where it was not recorded."""
    sessions = run.environment.get("sessions")
    if sessions is None:
        return None
    times = len(sessions) - 1
    least = "at least " if sessions[0].get("step") is None else ""
    return f"{least}{times} time{'' if times == 1 else 's'}" if times else ""


def precision_of(run: ReportedRun) -> str:
    """Returns what matrix products are computed in, in words."""
    environment = run.environment
    dtype, setting = run.config["dtype"], environment["matmul_precision"]
    if environment["backend"] == "cpu" or dtype != "float32":
        return dtype
    if environment["backend"] == "gpu" and setting == "default":
        return "float32, products in TF32 where the GPU has it"
    return f"float32, products at {setting} precision"


def versions(runs: Iterable[ReportedRun]) -> list[str]:
    """Returns the revision, packages and platform that runs were made with, a sentence for each combination."""
    counts: dict[str, int] = {}
    for run in runs:
        if run.environment:
            environment = run.environment
            git = environment.get("git") or {}
            revision = str(git.get("revision", "unknown"))[:8] + (
                ", changed" if git.get("dirty") else ""
            )
            text = (
                f"revision {revision}, JAX {environment.get('packages', {}).get('jax')}, "
                f"Python {environment.get('python')}, {environment.get('backend')}, "
                f"{environment.get('platform')}"
            )
            counts[text] = counts.get(text, 0) + 1
    return [f"{count} of the runs: {text}." for text, count in counts.items()]
