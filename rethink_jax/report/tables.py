"""The report's tables as text: results beside the paper's, and how each row was measured."""

import csv
import io
from typing import NamedTuple

from rethink_jax import paper
from rethink_jax.report.measures import Censored, Measure, Quantity
from rethink_jax.report.runs import (
    DIVERGED,
    ReportedRun,
    Sweep,
    changes_of,
    data_of,
    hardware_of,
    planned_epochs,
    precision_of,
    times_resumed,
)
from rethink_jax.report.specification import Section
from rethink_jax.sweeps.estimates import Estimate

NOTHING = "—"
FAILED_TO_CONVERGE = "failed to converge"

_SCALES = {"percent": 100.0, "epochs": 1.0, "times": 1.0, "nats": 1.0, "norm": 1.0}
_DIGITS = {"percent": 2, "epochs": 1, "times": 2, "nats": 3, "norm": 2}
_WORDS = {DIVERGED: "diverged, as the paper's did"}


class Table(NamedTuple):
    """Cells of text; the first column names the row."""

    columns: list[str]
    rows: list[list[str]]


def results(sweep: Sweep, section: Section) -> Table:
    """Returns a table of the paper again, ours beside theirs; collected runs have a line for each kind."""
    keys = section.row_keys(sweep)
    lines = [
        (key, line) for key in keys for line in sweep.lines(key) if line or not sweep.collected
    ]
    measured = [
        [section.measure(sweep, key, quantity, line) for quantity in section.quantities]
        for key, line in lines
    ]
    beside = {key for row in section.rows for key in row.values}
    shown = [
        quantity
        for i, quantity in enumerate(section.quantities)
        if quantity.compared in beside or any(measures[i].readings for measures in measured)
    ]
    columns = ["row", *(("data", "epochs", "devices") if sweep.collected else ())]
    for quantity in shown:
        if not quantity.in_parentheses:
            columns += columns_of(quantity, quantity.compared in beside)
    rows = []
    for (key, line), measures in zip(lines, measured, strict=True):
        cells = [paper.label(key), *(kind_of(line) if sweep.collected else ())]
        for measure in (measure for measure in measures if measure.quantity in shown):
            own = _cells(measure, measure.quantity.compared in beside)
            if measure.quantity.in_parentheses:
                cells[-len(own) :] = map(_with_parentheses, cells[-len(own) :], own)
            else:
                cells += own
        if not sweep.collected and not finished(line):
            cells[1] = state(line)
        rows.append([*cells, seeds(line)])
    return Table([*columns, "seeds"], rows)


def finished(runs: list[ReportedRun]) -> list[ReportedRun]:
    """Returns the finished runs of a line."""
    return [run for run in runs if run.state == "finished"]


def without_alike(table: Table, columns: tuple[str, ...]) -> tuple[Table, str]:
    """Drops those of some columns whose cells are all alike; returns the table and what they say."""
    cells = {name: {row[i] for row in table.rows} for i, name in enumerate(table.columns)}
    alike = {name: next(iter(cells[name])) for name in columns if len(cells.get(name, ())) == 1}
    kept = [i for i, name in enumerate(table.columns) if name not in alike]
    rows = [[row[i] for i in kept] for row in table.rows]
    values = [_in_a_sentence(name, text) for name, text in alike.items() if text != NOTHING]
    return Table([table.columns[i] for i in kept], rows), "; ".join(values)


def _in_a_sentence(column: str, text: str) -> str:
    return text if column in ("data", "devices", "precision") else f"{column}: {text}"


def kind_of(line: list[ReportedRun]) -> list[str]:
    """Returns on what and for how long the runs of one line were, in words."""
    return [describe_data(line[0]), trained_for(line), _distinct(map(hardware_of, line))]


def trained_for(line: list[ReportedRun]) -> str:
    """Returns for how many epochs a line's runs were trained, in words, and whether that was all."""
    planned = planned_epochs(line[0])
    epochs = sorted({run.summary.get("epochs", 0) for run in line})
    text = ", ".join(f"{epoch:g}" for epoch in epochs)
    if line[0].state == "finished":
        text += ", fitted" if epochs[-1] < planned else ""
    else:
        word = _WORDS.get(line[0].state, line[0].state)
        text = f"{word} at epoch {text} of {planned:g}"
    return "; ".join([text, *(f"resumed {times}" for run in line if (times := times_resumed(run)))])


def columns_of(quantity: Quantity, beside: bool) -> list[str]:
    """Returns the titles of a quantity's columns, with the paper's `beside` ours or not."""
    ours = quantity.title + (" (%)" if quantity.unit == "percent" else "")
    return [f"{ours}: ours", "paper", "difference"] if beside else [ours]


def _cells(measure: Measure, beside: bool) -> list[str]:
    if not beside:
        return [ours(measure)]
    unit = measure.quantity.unit
    difference = NOTHING
    if measure.difference is not None:
        difference = number(measure.difference, unit, sign=True)
    return [ours(measure), theirs(measure), difference]


def _with_parentheses(cell: str, more: str) -> str:
    return cell if more == NOTHING else f"{cell} ({more})"


def ours(measure: Measure) -> str:
    """Returns our number in words: a mean over seeds, or each seed's where a run is censored."""
    unit = measure.quantity.unit
    if measure.estimate is not None:
        return _estimate(measure.estimate, unit)
    if not measure.readings:
        return NOTHING
    return "; ".join(
        f"> {number(reading.until, unit)} (censored)"
        if isinstance(reading, Censored)
        else number(reading, unit)
        for reading in measure.readings
    )


def theirs(measure: Measure) -> str:
    """Returns the paper's number in words."""
    if measure.paper is None:
        return FAILED_TO_CONVERGE if measure.flag else NOTHING
    return number(measure.paper, measure.quantity.unit)


def number(value: float, unit: str, sign: bool = False) -> str:
    """Returns a number with its unit's digits; whole epochs without any."""
    scaled = value * _SCALES[unit]
    digits = 0 if unit == "epochs" and scaled == round(scaled) else _DIGITS[unit]
    return f"{scaled:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _estimate(estimate: Estimate, unit: str) -> str:
    text = number(estimate.mean, unit)
    if estimate.deviation is None or estimate.low is None or estimate.high is None:
        return text
    return (
        f"{text} ± {number(estimate.deviation, unit)} "
        f"[{number(estimate.low, unit)}, {number(estimate.high, unit)}]"
    )


def state(runs: list[ReportedRun]) -> str:
    """Returns how a row's runs ended, in words: "not run", or "2 finished, 1 failed"."""
    states = [run.state for run in runs]
    kinds = dict.fromkeys(states)
    if len(kinds) <= 1:
        return _WORDS.get(states[0], states[0]) if states else "not run"
    return ", ".join(f"{states.count(kind)} {_WORDS.get(kind, kind)}" for kind in kinds)


def seeds(runs: list[ReportedRun]) -> str:
    """Returns how many seeds a row's numbers are from."""
    whole = len(finished(runs))
    return f"{whole} of {len(runs)}" if 0 < whole < len(runs) else str(whole)


def not_run(sweep: Sweep, section: Section) -> str:
    """Returns the rows of the paper without any run, in words; the levels of one network together."""
    labels: dict[str, list[str]] = {}
    for row in section.rows:
        if not sweep.of(row.key):
            words, _, level = row.label.partition(", p = ")
            labels.setdefault(words, []).extend([level] if level else [])
    return "; ".join(
        words + (f", p = {', '.join(levels)}" if levels else "") for words, levels in labels.items()
    )


def how_measured(sweep: Sweep, section: Section) -> Table:
    """Returns on which data and devices, and for how long, each row was measured."""
    rows = []
    for key in section.row_keys(sweep):
        runs = sweep.of(key)
        rows.append([paper.label(key), state(runs), *_circumstances(finished(runs))])
    return Table(
        [
            "row",
            "runs",
            "data",
            "devices",
            "precision",
            "epochs",
            "changed in the recipe",
            "seconds, all seeds",
        ],
        rows,
    )


def _circumstances(runs: list[ReportedRun]) -> list[str]:
    """Returns data, devices, precision, epochs, changes and seconds in words."""
    if not runs:
        return [NOTHING] * 6
    epochs = _distinct(f"{run.summary.get('epochs', 0):g}" for run in runs)
    return [
        _distinct(describe_data(run) for run in runs),
        _distinct(hardware_of(run) for run in runs),
        _distinct(precision_of(run) for run in runs),
        epochs,
        _distinct(changes_of(run) or "nothing" for run in runs),
        f"{sum(run.summary.get('seconds', 0.0) for run in runs):.0f}",
    ]


def _distinct(texts: object) -> str:
    return "; ".join(dict.fromkeys(texts))  # type: ignore[call-overload]


def describe_data(run: ReportedRun) -> str:
    """Returns the data set's name and number of training examples in words."""
    name, examples = data_of(run)
    return f"{name}, {examples:,} examples"


_CSV_COLUMNS = (
    *("section", "row", "quantity", "unit", "mean", "standard_deviation", "low_95", "high_95"),
    *("seeds", "censored", "values", "paper", "paper_flag", "difference"),
    *("runs", "data", "devices", "precision", "epochs", "changes", "seconds"),
)


def to_csv(measured: list[tuple[Sweep, tuple[Section, ...]]]) -> str:
    """Returns every number of the report, one a line; accuracies and errors as fractions."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for sweep, sections in measured:
        for section in sections:
            for key in section.row_keys(sweep):
                for line in sweep.lines(key):
                    writer.writerows(_csv_lines(sweep, section, key, line))
    return stream.getvalue()


def _csv_lines(
    sweep: Sweep, section: Section, key: str, line: list[ReportedRun]
) -> list[list[object]]:
    """Returns a line for each quantity of a row."""
    measured = finished(line) or (line if sweep.collected else [])
    how = [state(line) if finished(line) or not sweep.collected or not line else trained_for(line)]
    how += [x if x != NOTHING else "" for x in _circumstances(measured)]
    measures = [section.measure(sweep, key, quantity, line) for quantity in section.quantities]
    return [[section.title.partition(":")[0], *_csv_cells(measure), *how] for measure in measures]


def _csv_cells(measure: Measure) -> list[object]:
    paper_number: object = measure.paper
    if measure.paper is None and measure.flag:
        paper_number = FAILED_TO_CONVERGE
    values = [
        f">{_plain(reading.until)}" if isinstance(reading, Censored) else _plain(reading)
        for reading in measure.readings
    ]
    return [
        *(measure.row, measure.quantity.key, measure.quantity.unit),
        *map(_plain, (measure.estimate or (None,) * 5)[:4]),
        *(len(measure.readings), measure.censored, " ".join(values)),
        *(paper_number, measure.flag, _plain(measure.difference)),
    ]


def _plain(value: float | None) -> str:
    """Returns a number without the last digits that a difference of two fractions leaves."""
    return "" if value is None else f"{value:.10g}"
