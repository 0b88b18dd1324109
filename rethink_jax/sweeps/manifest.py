"""What is known of a sweep's runs, and the `sweep.json` that says it."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict
from rich.table import Table

from rethink_jax import data
from rethink_jax.distributed import processes
from rethink_jax.errors import UserError
from rethink_jax.runs import effects, files, own_files, run_directory
from rethink_jax.runs.display import ProgressDisplay, percent
from rethink_jax.training import train

# Experiments with sweeps in their own folders.
_HOLDERS = ("rademacher", "stability")


class PlannedRun(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: as the config file has it.
      seed: of training.
      config: resolved.
      path: its run directory.
      expect_divergence: whether a loss that is not finite is a result and no failure.
      total_steps: of the whole run.
      ignored: its settings that change nothing in it.
    """

    name: str
    seed: int
    config: ConfigDict
    path: epath.Path
    expect_divergence: bool
    total_steps: int
    ignored: tuple[effects.Ignored, ...] = ()


class RunOutcome(NamedTuple):
    """How an attempt at a run ended.

    Attributes:
      error: in one line, what ended it early; None for a finished run.
      diverged: whether that was a loss that is not finite.
      in_use: whether it was another process that has the run open.
    """

    error: str | None = None
    diverged: bool = False
    in_use: bool = False


class SweepManifest:
    """What is known of the runs of a sweep, and `sweep.json`, which says it; all processes call alike.

    Attributes:
      path: the sweep's directory.
      runs: all of them.
      content: of `sweep.json`.
    """

    def __init__(
        self,
        path: epath.Path,
        name: str,
        size: str,
        runs: list[PlannedRun],
        open_data: Callable[[ConfigDict], data.Dataset | data.Source],
    ):
        """Looks what is there; `open_data`, of a run's config, is called where a run has begun.

        Raises:
          UserError: the directory holds something else, or a run of another config or other data.
        """
        self.path = path
        self.runs = runs
        self.content: dict[str, Any] = {"name": name, "size": size, "runs": []}
        self._outcomes: dict[epath.Path, RunOutcome] = {}
        self._summaries: dict[str, dict[str, Any]] = {}
        self._open_data = open_data
        self._of_same_data: set[epath.Path] = set()  # on the primary process
        processes.on_primary(self._check_directory)
        self.refresh()

    def _check_directory(self) -> None:
        """Refuses another sweep's directory, a run's, and a place in one of them; writes nothing."""
        if (self.path / own_files.CONFIG).exists():
            raise UserError(f"{self.path} holds a run and no sweep; choose another --workdir")
        check_place(self.path)
        names = {run.path.name for run in self.runs}
        own_files.check(self.path, own_files.SWEEP, names)
        for run in self.runs:
            own_files.check(run.path)
            run_directory.check_same_run(run.path, run.config)
            if (run.path / own_files.CONFIG).exists():
                self._is_of_same_data(run)
        self._noted()

    def _is_of_same_data(self, run: PlannedRun) -> bool:
        """Returns whether a run that has begun is known to be of its config's data, which are opened once.

        Raises:
          UserError: it is of others.
        """
        if run.path not in self._of_same_data and train.check_same_data(
            run.path, run.config, self._open_data(run.config)
        ):
            self._of_same_data.add(run.path)
        return run.path in self._of_same_data

    def _noted(self) -> dict[str, dict[str, Any]]:
        """Returns the entries of `sweep.json` by their directories; refuses another sweep's."""
        file = self.path / own_files.SWEEP
        if not file.exists():
            return {}
        before = files.read_json(file)
        try:
            names = before["name"], before["size"]
            entries = {
                entry["directory"]: entry | {"diverged": bool(entry["diverged"])}
                for entry in before["runs"]
            }
        except (KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged; remove it") from error
        if names != (self.content["name"], self.content["size"]):
            raise UserError(
                f"{self.path} holds another sweep ({names[0]}, {names[1]}); choose another --workdir"
            )
        return entries

    def unfinished(self) -> list[PlannedRun]:
        """Returns the runs that are not done."""
        return [run for run in self.runs if not self.is_done(run)]

    def is_done(self, run: PlannedRun) -> bool:
        """Returns whether a run is finished, or has diverged as expected."""
        entry = self._entry(run)
        return entry["status"] == "finished" or (entry["diverged"] and run.expect_divergence)

    def name_of(self, run: PlannedRun) -> str:
        """Returns the name of a run's directory, and whether another process has it open."""
        elsewhere = f" ({self.status(run)})" if self.is_elsewhere(run) else ""
        return run.path.name + elsewhere

    def is_elsewhere(self, run: PlannedRun) -> bool:
        """Returns whether another process had a run open when its turn came."""
        return self._outcomes.get(run.path, RunOutcome()).in_use and not self.is_done(run)

    def status(self, run: PlannedRun) -> str:
        """Returns what `sweep.json` says of a run, or that it has diverged or runs elsewhere."""
        if self.is_elsewhere(run):
            return "running elsewhere"
        entry = self._entry(run)
        return "diverged" if entry["diverged"] else entry["status"]

    def summary(self, run: PlannedRun) -> dict[str, Any]:
        """Returns what the run's `summary.json` says; nothing where there is none."""
        return self._summaries[run.path.name]

    def end(self, run: PlannedRun, outcome: RunOutcome) -> None:
        """Notes how a run ended."""
        self._outcomes[run.path] = outcome
        self.refresh()

    def _entry(self, run: PlannedRun) -> dict[str, Any]:
        return next(e for e in self.content["runs"] if e["directory"] == run.path.name)

    def refresh(self) -> None:
        """Looks into the run directories and writes `sweep.json`, in which other sweeps' entries stay."""

        def write() -> dict[str, Any]:
            self.path.mkdir(parents=True, exist_ok=True)
            # Several sweeps may share a directory.
            with files.locked(self.path / own_files.SWEEP_LOCK):
                noted = self._noted()
                entries = [self._look(run, noted) for run in self.runs]
                summaries = {entry["directory"]: entry.pop("summary") for entry in entries}
                others = [entry for name, entry in noted.items() if name not in summaries]
                content = self.content | {"runs": [*entries, *others]}
                files.write_json(self.path / own_files.SWEEP, content)
            return {"content": content, "summaries": summaries}

        found = processes.on_primary(write)
        self.content, self._summaries = found["content"], found["summaries"]

    def _look(self, run: PlannedRun, noted: dict[str, dict[str, Any]]) -> dict[str, Any]:
        outcome = self._outcomes.get(run.path, RunOutcome())
        summary = files.read_summary(run.path) or {}
        began = (run.path / own_files.CONFIG).exists()
        finished = None
        with contextlib.suppress(UserError):  # another process may have taken the directory
            if summary.get("status") == "finished":
                is_same = self._is_of_same_data(run)
                finished = train.finished_summary(run.path, run.config, run.total_steps, is_same)
        if finished is not None:
            status = "finished"
        elif (outcome.error is not None and not outcome.in_use) or summary.get(
            "status"
        ) == "failed":
            status = "failed"
        else:
            status = "stopped" if began else "not run yet"
        before = noted.get(run.path.name, {})
        diverged = outcome.diverged or before.get("diverged", False)
        return {
            "name": run.name,
            "seed": run.seed,
            "directory": run.path.name,
            "expect_divergence": run.expect_divergence,
            "status": status,
            "diverged": status == "failed" and diverged,
            "summary": summary,
        }

    def print_table(self, progress: ProgressDisplay) -> None:
        """Prints a line for each run."""
        table = Table(title=self.content["name"])
        table.add_column("run")
        for title in ("seed", "status", "train", "test", "seconds"):
            table.add_column(title, justify="left" if title == "status" else "right")
        for run in self.runs:
            summary = self.summary(run)
            table.add_row(
                run.name,
                str(run.seed),
                self.status(run),
                percent(summary.get("train_accuracy")),
                percent(summary.get("test_accuracy")),
                f"{summary['seconds']:.0f}" if summary else "",
            )
        progress.console.print(table)


def check_place(path: epath.Path) -> None:
    """Raises `UserError` for a new sweep's folder in the folder of another sweep or of a run."""
    holder = path.parent
    if (path / own_files.SWEEP).exists():
        return
    if (holder / own_files.SWEEP).exists():
        raise UserError(f"{path} lies in the folder of a sweep; choose another --workdir")
    if (holder / own_files.CONFIG).exists() and (holder / own_files.ENVIRONMENT).exists():
        experiment = files.read_config(holder).get("experiment")
        if experiment not in _HOLDERS:
            raise UserError(f"{path} lies in the folder of a run; choose another --workdir")
