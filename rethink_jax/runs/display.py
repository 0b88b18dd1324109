"""What the primary process shows of runs and sweeps: bars on a terminal, lines elsewhere."""

import datetime
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from rethink_jax.distributed import processes

_SECONDS_BETWEEN_LINES = 10.0


class ProgressDisplay(NamedTuple):
    """Where a sweep and its runs are shown together.

    Attributes:
      console: quiet on other processes than the primary one.
      bars: on it, where it is a terminal; else None.
    """

    console: Console
    bars: Progress | None


@contextmanager
def _open(*columns: ProgressColumn) -> Iterator[ProgressDisplay]:
    console = Console(soft_wrap=True, quiet=not processes.is_primary())
    if console.quiet or not sys.stdout.isatty():
        yield ProgressDisplay(console, None)
        return
    with Progress(*columns, console=console) as bars:
        yield ProgressDisplay(console, bars)


class EvaluationDisplay:
    """How far an evaluation is and how long it still takes: on a run's bar, elsewhere a line now and then."""

    def __init__(self, progress: ProgressDisplay):
        self._console, self._bars = progress
        self._task: Any = None
        self._start = self._shown = time.monotonic()

    def show(self, done: int, total: int) -> None:
        """Shows how many examples are done, the first time none."""
        now = time.monotonic()
        if done == 0:
            self._start = self._shown = now
        remaining = _duration((now - self._start) / done * (total - done)) if done else ""
        text = f"evaluating: {done:,} of {total:,} examples" + (
            f", {remaining} left" if remaining else ""
        )
        if self._bars is not None:
            self._show_bar(text, done, total)
        elif now > self._shown + _SECONDS_BETWEEN_LINES and done < total:
            self._console.print(text, highlight=False)
            self._shown = now

    def _show_bar(self, text: str, done: int, total: int) -> None:
        assert self._bars is not None
        if self._task is None:
            self._task = self._bars.add_task("evaluating", total=total, status="")
        self._bars.update(self._task, completed=done, total=total, status=text)
        if done >= total:
            self._bars.remove_task(self._task)
            self._task = None


@contextmanager
def show_evaluation() -> Iterator[EvaluationDisplay]:
    """Yields the display of an evaluation by itself."""
    with _open(BarColumn(), TextColumn("{task.fields[status]}")) as progress:
        yield EvaluationDisplay(progress)


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


class RunDisplay:
    """A bar of the steps on a terminal, a line for each evaluation elsewhere."""

    def __init__(self, progress: ProgressDisplay, total_steps: int):
        self._console, self._bars = progress
        if self._bars is not None:
            self._task = self._bars.add_task("training", total=total_steps, status="")
        self._evaluation = EvaluationDisplay(progress)

    def remove(self) -> None:
        """Takes the bar away."""
        if self._bars is not None:
            self._bars.remove_task(self._task)

    def step(self, step: int) -> None:
        """Shows how far the run is."""
        if self._bars is not None:
            self._bars.update(self._task, completed=step)

    def evaluating(self, done: int, total: int) -> None:
        """Shows how far an evaluation is, in examples; the bar is there until it is over."""
        self._evaluation.show(done, total)

    def record(self, record: dict[str, Any], what: str = "") -> None:
        """Shows one evaluation, as `metrics.jsonl` has it; `what` says whose it is."""
        if self._console.quiet:
            return
        text = (
            f"{what}train {percent(record['train_accuracy'])} (loss {record['train_loss']:.4f})  "
            f"test {percent(record['test_accuracy'])}"
        )
        if "train_evaluated" in record:
            text += _of_the_first(record, "train_accuracy")
        if self._bars is not None:
            self._bars.update(self._task, status=text, completed=record["step"])
        else:
            self._console.print(
                f"epoch {record['epoch']:g}  step {record['step']}  {text}  "
                f"{record['images_per_second']:.0f} images/s",
                highlight=False,
            )


def hidden() -> ProgressDisplay:
    """Returns the progress display of a run that is not shown by itself."""
    return ProgressDisplay(Console(quiet=True), None)


@contextmanager
def show_run(total_steps: int, progress: ProgressDisplay | None = None) -> Iterator[RunDisplay]:
    """Yields the display of a run, in a sweep's progress display or in one of its own."""
    if progress is not None:
        run_display = RunDisplay(progress, total_steps)
        try:
            yield run_display
        finally:
            run_display.remove()
        return
    columns = (
        *(TextColumn("{task.completed:.0f}/{task.total:.0f} steps"), BarColumn()),
        *(TextColumn("{task.fields[status]}"), TimeRemainingColumn()),
    )
    with _open(*columns) as own:
        yield RunDisplay(own, total_steps)


@contextmanager
def show_parts() -> Iterator[Callable[[str, float], None]]:
    """Yields a function that shows how far a part of a computation is: a bar, elsewhere some lines."""
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %")),
        TimeRemainingColumn(),
    )
    with _open(*columns) as progress:
        if progress.bars is not None:
            task = progress.bars.add_task("", total=1.0)
        shown_part, shown_at = "", 0.0

        def show(part: str, fraction: float) -> None:
            nonlocal shown_part, shown_at
            if progress.bars is not None:
                if part != shown_part:
                    progress.bars.reset(task, total=1.0)
                progress.bars.update(task, description=part, completed=fraction)
            elif part != shown_part or time.monotonic() > shown_at + _SECONDS_BETWEEN_LINES:
                progress.console.print(f"{part}  {fraction:.0%}", highlight=False)
                shown_at = time.monotonic()
            shown_part = part

        yield show


class SweepDisplay:
    """A bar of the runs on a terminal, elsewhere two lines for each run.

    Attributes:
      progress: for the runs.
    """

    def __init__(self, progress: ProgressDisplay, total: int):
        self.progress = progress
        self._total = total
        self._begun = self._done = self._done_here = 0
        self._start = time.monotonic()
        if progress.bars is not None:
            self._task = progress.bars.add_task("sweep", total=total, status="")

    def skip(self, count: int) -> None:
        """Counts runs that are done already."""
        self._begun += count
        self._done += count
        if count:
            self._print(f"{count} of {self._total} runs are done already")

    def begin(self, name: str, where: str = "", count: int = 1) -> None:
        """Shows that a run begins, or several together."""
        first, self._begun = self._begun + 1, self._begun + count
        numbers = f"run {first}" if count == 1 else f"runs {first} to {self._begun}"
        self._show(f"{numbers} of {self._total}: {name}", where or self._time_left())

    def end(self, name: str, how: str) -> None:
        """Shows how a run ended, and the time left for the others."""
        self._done += 1
        self._done_here += 1
        self._print(f"{name}: {how}")
        if self.progress.bars is not None:
            self.progress.bars.update(self._task, completed=self._done, status=self._time_left())

    def _show(self, title: str, status: str) -> None:
        if self.progress.bars is None:
            self._print(f"{title}  {status}".rstrip())
        else:
            self.progress.bars.update(
                self._task, description=title, completed=self._done, status=status
            )

    def _print(self, line: str) -> None:
        self.progress.console.print(line, highlight=False, markup=False)

    def _time_left(self) -> str:
        """Returns how long the runs that are left take, if they take as long as those done here."""
        if not self._done_here:
            return ""
        each = (time.monotonic() - self._start) / self._done_here
        return f"about {_duration(each * (self._total - self._done))} left"


@contextmanager
def show_sweep(total: int) -> Iterator[SweepDisplay]:
    """Yields the display of a sweep of so many runs."""
    columns = (
        *(TextColumn("{task.description}"), BarColumn()),
        TextColumn("{task.fields[status]}"),
    )
    with _open(*columns) as progress:
        if progress.bars is None:
            yield SweepDisplay(progress, total)
            return
        with _without_log():
            yield SweepDisplay(progress, total)


@contextmanager
def _without_log() -> Iterator[None]:
    """Has the runs' log give way to the bar, which it would tear."""
    log = logging.getLogger("rethink_jax")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def print_result(title: str, record: dict[str, Any], num_classes: int) -> None:
    """Prints the accuracies of a summary or an evaluation beside chance, on the primary process."""
    columns = {"accuracy": ("accuracy", 1)}  # the name of its fractions, how many answers it takes
    if "test_top5" in record:
        columns["top-5 accuracy"] = ("top5", 5)
    names = {
        "training set": "train_{}",
        "its kept labels": "train_{}_kept",
        "its replaced labels": "train_{}_replaced",
        "its replaced labels, true class": "train_{}_replaced_true",
        "test set, true labels": "test_{}",
        "test set, corrupted labels": "test_{}_corrupted",
    }
    rows = [
        (
            text + _of_the_first(record, name),
            *(
                percent(record[name.format(kind)]) if name.format(kind) in record else ""
                for kind, _ in columns.values()
            ),
        )
        for text, name in names.items()
        if record.get(name.format("accuracy")) is not None
    ]
    chance = (percent(answers / num_classes) for _, answers in columns.values())
    print_rows(title, ("", *columns), [*rows, ("chance", *chance)])


def _of_the_first(record: dict[str, Any], name: str) -> str:
    """Returns in words that not all examples of a split were evaluated; nothing where all were."""
    count = record.get(f"{name.partition('_')[0]}_evaluated")
    return f", on the first {count:,} examples" if count else ""


# A title, the names of the columns, and the rows; the first column names each row.
Rows = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table on the primary process; its first column names the rows."""
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True, quiet=not processes.is_primary()).print(table)


def percent(fraction: float | None) -> str:
    """Returns a fraction in percent, and nothing for None."""
    return "" if fraction is None else f"{fraction:.2%}"
