"""Many runs from one config: which are done, which to start, and where."""

import contextlib
import datetime
import fnmatch
import functools
import importlib.util
import logging
import re
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from rethink_jax import (
    config as config_lib,
    data,
    metrics,
    parallel,
    preemption,
    run_directory,
    train,
)
from rethink_jax.config import Diverged, RunFailed, UserError, require
from rethink_jax.data import cache

FILE = "sweep.json"
LAUNCHERS = ("local", "slurm", "submitit_local")

_JOB_MINUTES = 24 * 60  # unless Slurm's own variable SBATCH_TIMELIMIT says otherwise


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: as the config file has it.
      seed: of training.
      config: settled.
      path: its run directory.
      expect_divergence: whether a loss that is not finite is a result and no failure.
      total_steps: of the whole run.
    """

    name: str
    seed: int
    config: ConfigDict
    path: epath.Path
    expect_divergence: bool
    total_steps: int


class Outcome(NamedTuple):
    """How an attempt at a run ended.

    Attributes:
      error: in one line, what ended it early; None for a finished run.
      diverged: whether that was a loss that is not finite.
    """

    error: str | None = None
    diverged: bool = False


def run(
    config: ConfigDict,
    workdir: epath.PathLike | None = None,
    dataset: data.Dataset | None = None,
    name: str = "sweep",
) -> dict[str, Any]:
    """Runs what is left to run of a sweep, and reports on all of it.

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
    with contextlib.ExitStack() as stack:
        stop_request = stack.enter_context(preemption.stop_on_signals())
        if jax.process_count() > 1:  # the others have to hear of a signal first
            stack.enter_context(stop_request.defer())
        runs = parallel.on_all(lambda: plan(config, path, dataset))
        executor = None if config.launcher == "local" else _executor(config, path)
        ledger = Ledger(path, config.sweep.name, config.sweep.size, runs)
        display = stack.enter_context(_display(len(runs)))
        if executor is None:
            _run_here(ledger, dataset, display, stop_request)
        else:
            _run_in_jobs(ledger, executor, display, stop_request)
    ledger.print_table()
    if left := [run.path.name for run in ledger.left()]:
        raise RunFailed(
            f"{len(left)} of {len(runs)} runs are not done: {', '.join(left)}; "
            "run the same command again to try them again"
        )
    return ledger.content


def plan(config: ConfigDict, path: epath.Path, dataset: data.Dataset | None = None) -> list[Run]:
    """Settles and checks every run of a sweep; the first seed of all comes before the second.

    Raises:
      UserError: naming the run whose config has no run.
    """
    config_lib.check_fields(config)
    launcher, allowed = config.launcher, f"one of {', '.join(LAUNCHERS)}"
    require(launcher in LAUNCHERS, "launcher", launcher, allowed)
    if config.launcher != "local" and (dataset is not None or jax.process_count() > 1):
        raise UserError(
            f"config.launcher is {config.launcher!r}; it must be local in several processes "
            "and for a data set of one's own arrays"
        )
    if launcher != "local" and importlib.util.find_spec("submitit") is None:
        needed = "which needs submitit: pip install -e '.[slurm]'"
        raise UserError(f"config.launcher is {launcher!r}, {needed}")
    seeds = config.sweep.seeds
    require(1 <= seeds <= 1000, "sweep.seeds", seeds, "in [1, 1000]")
    _check_runs(config.sweep.runs)
    chosen = _chosen(config)
    runs = []
    for repeat in range(seeds):
        for entry in chosen:
            try:
                settled, info = train.settle(_config_of(config, entry, repeat), dataset)
            except UserError as error:
                raise UserError(f"run {entry['name']}: {error}") from error
            run_path = path / f"{entry['name']}-seed{settled.seed}"
            total = config_lib.total_steps(settled, info.num_train)
            expect = entry["expect_divergence"]
            runs.append(Run(entry["name"], settled.seed, settled, run_path, expect, total))
    return runs


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
    what = "runs as rethink_jax.config.named_run returns them"
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
    del fields["sweep"], fields["launcher"]
    own, default = ConfigDict(fields), config_lib.base()
    for field, value in entry["fields"].items():
        try:
            shared = config_lib.get(own, field)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"config.{field} is no field") from error
        is_set = shared != config_lib.get(default, field)
        if is_set and field.split(".")[0] in run_directory.CHANGEABLE:
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


class Ledger:
    """What is known of the runs of a sweep, and `sweep.json`, which says it; all processes call alike.

    Attributes:
      path: the sweep's directory.
      runs: all of them.
      content: of `sweep.json`.
    """

    def __init__(self, path: epath.Path, name: str, size: str, runs: list[Run]):
        self.path = path
        self.runs = runs
        self.content: dict[str, Any] = {"name": name, "size": size, "runs": []}
        self._outcomes: dict[epath.Path, Outcome] = {}
        self._summaries: dict[str, dict[str, Any]] = {}
        self._others: list[dict[str, Any]] = []
        self._diverged_before = parallel.on_primary(self._take_up)
        self._update()

    def _take_up(self) -> list[str]:
        """Returns the directories of runs that have diverged before; refuses another sweep's directory."""
        if (self.path / run_directory.CONFIG).exists():
            raise UserError(f"{self.path} holds a run and no sweep; choose another --workdir")
        for run in self.runs:
            run_directory.check_free(run.path)
            run_directory.check_same_run(run.path, run.config)
        file = self.path / FILE
        if not file.exists():
            return []
        before = run_directory.read_json(file)
        try:
            names = before["name"], before["size"]
            diverged = [entry["directory"] for entry in before["runs"] if entry["diverged"]]
            own = {run.path.name for run in self.runs}
            self._others = [entry for entry in before["runs"] if entry["directory"] not in own]
        except (KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged; remove it") from error
        if names != (self.content["name"], self.content["size"]):
            raise UserError(
                f"{self.path} holds another sweep ({names[0]}, {names[1]}); choose another --workdir"
            )
        return diverged

    def left(self) -> list[Run]:
        """Returns the runs that are not done."""
        return [run for run in self.runs if not self.is_done(run)]

    def is_done(self, run: Run) -> bool:
        """Returns whether a run is finished, or has diverged as expected."""
        entry = self._entry(run)
        return entry["status"] == "finished" or (entry["diverged"] and run.expect_divergence)

    def status(self, run: Run) -> str:
        """Returns what `sweep.json` says of a run, or that it has diverged."""
        entry = self._entry(run)
        return "diverged" if entry["diverged"] else entry["status"]

    def summary(self, run: Run) -> dict[str, Any]:
        """Returns what the run's `summary.json` says; nothing where there is none."""
        return self._summaries[run.path.name]

    def end(self, run: Run, outcome: Outcome) -> None:
        """Notes how a run ended."""
        self._outcomes[run.path] = outcome
        self._update()

    def _entry(self, run: Run) -> dict[str, Any]:
        return next(e for e in self.content["runs"] if e["directory"] == run.path.name)

    def _update(self) -> None:
        """Looks into the run directories and writes `sweep.json`."""
        entries = parallel.on_primary(lambda: [self._look(run) for run in self.runs])
        self._summaries = {entry["directory"]: entry.pop("summary") for entry in entries}
        self.content["runs"] = [*entries, *self._others]

        def write() -> None:
            self.path.mkdir(parents=True, exist_ok=True)
            run_directory.write_json(self.path / FILE, self.content)

        parallel.on_primary(write)

    def _look(self, run: Run) -> dict[str, Any]:
        outcome = self._outcomes.get(run.path, Outcome())
        file = run.path / run_directory.SUMMARY
        summary = run_directory.read_json(file) if file.exists() else {}
        began = (run.path / run_directory.CONFIG).exists()
        finished = None
        with contextlib.suppress(UserError):  # another process may have taken the directory
            finished = train.finished_summary(run.path, run.config, run.total_steps)
        if finished is not None:
            status = "finished"
        elif outcome.error is not None or summary.get("status") == "failed":
            status = "failed"
        else:
            status = "stopped" if began else "not run yet"
        diverged = outcome.diverged or run.path.name in self._diverged_before
        return {
            "name": run.name,
            "seed": run.seed,
            "directory": run.path.name,
            "expect_divergence": run.expect_divergence,
            "status": status,
            "diverged": status == "failed" and diverged,
            "summary": summary,
        }

    def print_table(self) -> None:
        """Prints a line for each run, on the primary process."""
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
                _percent(summary.get("train_accuracy")),
                _percent(summary.get("test_accuracy")),
                f"{summary['seconds']:.0f}" if summary else "",
            )
        Console(soft_wrap=True, quiet=not parallel.is_primary()).print(table)


def _run_here(
    ledger: Ledger,
    dataset: data.Dataset | None,
    display: "_Display",
    stop_request: preemption.StopRequest,
) -> None:
    """Runs what is left, one run after another, in this process."""
    left = ledger.left()
    display.skip(len(ledger.runs) - len(left))
    loaded: tuple[dict[str, Any], data.Dataset] | None = None
    for run in left:
        done = len(ledger.runs) - len(ledger.left())
        stop_request.saved = (
            f"stopped; {done} of {len(ledger.runs)} runs are done in {ledger.path}; "
            "run the same command again to go on"
        )
        _raise_if_stopped(stop_request)
        display.begin(run)
        own = dataset
        if own is None:
            source = run.config.data.to_dict()
            if loaded is None or loaded[0] != source:
                loaded = source, parallel.on_all(functools.partial(data.load, run.config.data))
            own = loaded[1]
        try:
            outcome = _attempt(run.config, run.path, own)
        except preemption.Stopped:
            ledger.end(run, Outcome())
            raise
        ledger.end(run, outcome)
        display.end(run, outcome, ledger)


def _attempt(
    config: ConfigDict, path: epath.PathLike, dataset: data.Dataset | None = None
) -> Outcome:
    """Runs one run to its end, whatever that is, but for a signal."""
    try:
        train.run(config, path, dataset)
    except (RunFailed, UserError) as error:
        return Outcome(str(error), isinstance(error, Diverged))
    except jax.errors.JaxRuntimeError as error:  # too little memory on a device, for example
        if jax.process_count() > 1:
            raise  # the others may wait
        return Outcome(" ".join(str(error).split())[:500])
    return Outcome()


def _raise_if_stopped(stop_request: preemption.StopRequest) -> None:
    """Raises `Stopped` on all processes where a signal has come to one."""
    (stop,) = parallel.maxima([float(stop_request.signal_name is not None)])
    if stop and stop_request.signal_name is None:
        stop_request.signal_name = "a signal to another process"
    stop_request.raise_if_stopped()


def _run_in_jobs(
    ledger: Ledger, executor: Any, display: "_Display", stop_request: preemption.StopRequest
) -> None:
    """Submits a job for each run that is left, and waits for them."""
    left = ledger.left()
    display.skip(len(ledger.runs) - len(left))
    jobs = {run: executor.submit(_job, run.config.to_dict(), str(run.path)) for run in left}
    stop_request.saved = "the jobs go on; run the same command again when they have ended"
    for run, job in jobs.items():
        display.begin(run, f"job {job.job_id}")
    waiting = dict(jobs)
    while waiting:
        time.sleep(0.5)
        stop_request.raise_if_stopped()
        for run, job in list(waiting.items()):
            if job.done():
                del waiting[run]
                error = job.exception()
                outcome = Outcome(" ".join(str(error).split())[-500:]) if error else job.result()
                ledger.end(run, outcome)
                display.end(run, outcome, ledger)


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
    executor.update_parameters(name=config.sweep.name, timeout_min=_JOB_MINUTES)
    return executor


def _job(fields: dict[str, Any], path: str) -> Outcome:
    """What a job does, in a process of its own."""
    config = ConfigDict(fields)
    parallel.use_compilation_cache(config.compilation_cache or cache.root() / "compiled")
    try:
        return _attempt(config, path)
    except preemption.Stopped:
        return Outcome()


class _Display:
    """One display over the whole sweep: a bar on a terminal, elsewhere two lines for each run."""

    def __init__(self, console: Console, progress: Progress | None, total: int):
        self._console, self._progress, self._total = console, progress, total
        self._begun = self._done = self._done_here = 0
        self._start = time.monotonic()
        if progress is not None:
            self._task = progress.add_task("sweep", total=total, status="")

    def skip(self, count: int) -> None:
        """Counts runs that are done already."""
        self._begun += count
        self._done += count
        if count:
            self._print(f"{count} of {self._total} runs are done already")

    def begin(self, run: Run, where: str = "") -> None:
        """Shows that a run begins."""
        self._begun += 1
        title = f"run {self._begun} of {self._total}"
        self._show(f"{title}: {run.name}, seed {run.seed}", where or self._time_left())

    def end(self, run: Run, outcome: Outcome, ledger: Ledger) -> None:
        """Shows how a run ended, and the time left for the others."""
        self._done += 1
        self._done_here += 1
        text = ledger.status(run)
        if outcome.error is not None:
            text += f"{', as expected' if ledger.is_done(run) else ''}: {outcome.error}"
        elif summary := ledger.summary(run):
            accuracies = [_percent(summary[f"{split}_accuracy"]) for split in ("train", "test")]
            text += ", train {}, test {}".format(*accuracies)
        self._print(f"{run.name}, seed {run.seed}: {text}")
        if self._progress is not None:
            self._progress.update(self._task, completed=self._done, status=self._time_left())

    def _show(self, title: str, status: str) -> None:
        if self._progress is None:
            self._print(f"{title}  {status}".rstrip())
        else:
            self._progress.update(
                self._task, description=title, completed=self._done, status=status
            )

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)

    def _time_left(self) -> str:
        """Returns how long the runs that are left take, if they take as long as those done here."""
        if not self._done_here:
            return ""
        each = (time.monotonic() - self._start) / self._done_here
        left = datetime.timedelta(seconds=round(each * (self._total - self._done)))
        return f"about {left} left"


@contextlib.contextmanager
def _display(total: int) -> Iterator[_Display]:
    console = Console(soft_wrap=True, quiet=not parallel.is_primary())
    if console.quiet or not sys.stdout.isatty():
        with metrics.show_within(console, None):
            yield _Display(console, None, total)
        return
    columns = (
        *(TextColumn("{task.description}"), BarColumn()),
        TextColumn("{task.fields[status]}"),
    )
    with (
        Progress(*columns, console=console) as progress,
        metrics.show_within(console, progress),
        _without_log(),
    ):
        yield _Display(console, progress, total)


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Has the runs' log give way to the bar, which it would tear."""
    log = logging.getLogger("rethink_jax")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.2%}"


def _path(
    config: ConfigDict, workdir: epath.PathLike | None, name: str, dataset: data.Dataset | None
) -> epath.Path:
    """Returns the sweep's directory; without a `workdir`, equal configs get one, whichever runs are chosen."""
    if workdir is not None:
        return epath.Path(workdir).expanduser().resolve()
    fields = ConfigDict(config.to_dict())
    del fields.launcher, fields.sweep.seeds, fields.sweep.only
    data_name = config.data.name if dataset is None else dataset.info.name
    return epath.Path("runs", f"{name}-{data_name}-{config_lib.digest(fields)}").resolve()
