"""What is known of a sweep's runs, and the `sweep.json` that says it."""

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
from rethink_jax.sweeps import sweep_file
from rethink_jax.sweeps.sweep_file import Entry, SweepFile
from rethink_jax.training import train

# Experiments with sweeps in their own folders.
_HOLDERS = ("rademacher", "stability", "certificate", "measures")


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
        self._content = SweepFile(name, size, ())
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
        self._read()

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

    def _read(self) -> dict[str, Entry]:
        """Returns the entries of `sweep.json` by their directories; refuses another sweep's."""
        file = self.path / own_files.SWEEP
        if not file.exists():
            return {}
        try:
            before = sweep_file.read(file)
        except sweep_file.Damaged as error:
            raise UserError(f"{file} is damaged; remove it") from error
        if (before.name, before.size) != (self._content.name, self._content.size):
            raise UserError(
                f"{self.path} holds another sweep ({before.name}, {before.size}); "
                "choose another --workdir"
            )
        return before.by_directory()

    @property
    def content(self) -> dict[str, Any]:
        """What `sweep.json` holds."""
        return self._content.to_dict()

    def unfinished(self) -> list[PlannedRun]:
        """Returns the runs that are not done."""
        return [run for run in self.runs if not self.is_done(run)]

    def is_done(self, run: PlannedRun) -> bool:
        """Returns whether a run is finished, or has diverged as expected."""
        entry = self._entry(run)
        return entry.status == "finished" or (entry.diverged and run.expect_divergence)

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
        return "diverged" if entry.diverged else entry.status

    def summary(self, run: PlannedRun) -> dict[str, Any]:
        """Returns what the run's `summary.json` says; nothing where there is none."""
        return self._summaries[run.path.name]

    def end(self, outcomes: dict[epath.Path, RunOutcome]) -> None:
        """Notes how runs ended, by their directories."""
        self._outcomes |= outcomes
        self.refresh()

    def _entry(self, run: PlannedRun) -> Entry:
        return self._content.by_directory()[run.path.name]

    def refresh(self) -> None:
        """Looks into the run directories and writes `sweep.json`, in which other sweeps' entries stay."""

        def write() -> dict[str, Any]:
            self.path.mkdir(parents=True, exist_ok=True)
            # Several sweeps may share a directory.
            with files.locked(self.path / own_files.SWEEP_LOCK):
                before = self._read()
                summaries = {run.path.name: files.read_summary(run.path) or {} for run in self.runs}
                entries = {
                    name: self._look(run, summaries[name], before.get(name))
                    for run in self.runs
                    for name in [run.path.name]
                }
                others = {name: entry for name, entry in before.items() if name not in entries}
                content = self._content._replace(runs=(*entries.values(), *others.values()))
                sweep_file.write(self.path / own_files.SWEEP, content)
            return {"content": content.to_dict(), "summaries": summaries}

        written = processes.on_primary(write)
        self._content = sweep_file.from_dict(written["content"])
        self._summaries = written["summaries"]

    def _look(self, run: PlannedRun, summary: dict[str, Any], before: Entry | None) -> Entry:
        outcome = self._outcomes.get(run.path, RunOutcome())
        failed = outcome.error is not None and not outcome.in_use
        if self._is_finished(run, summary):
            status = "finished"
        elif failed or summary.get("status") == "failed":
            status = "failed"
        else:
            status = "stopped" if (run.path / own_files.CONFIG).exists() else "not run yet"
        diverged = outcome.diverged or (before is not None and bool(before.diverged))
        return Entry(
            name=run.name,
            seed=run.seed,
            directory=run.path.name,
            expect_divergence=run.expect_divergence,
            status=status,
            diverged=status == "failed" and diverged,
        )

    def _is_finished(self, run: PlannedRun, summary: dict[str, Any]) -> bool:
        if summary.get("status") != "finished":
            return False
        try:
            is_same = self._is_of_same_data(run)
            return (
                train.finished_summary(run.path, run.config, run.total_steps, is_same) is not None
            )
        except UserError:  # another process may have taken the directory
            return False

    def print_table(self, progress: ProgressDisplay) -> None:
        """Prints a line for each run."""
        table = Table(title=self._content.name)
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
