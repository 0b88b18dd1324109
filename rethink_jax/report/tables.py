"""The report's tables as text: results beside the paper's, and how each row was measured."""

import csv
import io
from typing import NamedTuple

from rethink_jax import paper
from rethink_jax.report.measures import Censored, Measure, Quantity, Section
from rethink_jax.report.runs import (
    DIVERGED,
    Run,
    Sweep,
    changes_of,
    data_of,
    hardware_of,
    precision_of,
)
from rethink_jax.statistics import Estimate

NOTHING = "—"
FAILED_TO_CONVERGE = "failed to converge"

_SCALES = {"percent": 100.0, "epochs": 1.0, "times": 1.0, "nats": 1.0}
_DIGITS = {"percent": 2, "epochs": 1, "times": 2, "nats": 3}
_WORDS = {DIVERGED: "diverged, as the paper's did"}


class Table(NamedTuple):
    """Cells of text; the first column names the row."""

    columns: list[str]
    rows: list[list[str]]


def results(sweep: Sweep, section: Section) -> Table:
    """Returns a table of the paper again, ours beside theirs."""
    measured = {
        key: [section.measure(sweep, key, quantity) for quantity in section.quantities]
        for key in section.row_keys(sweep)
    }
    beside = {key for row in section.rows for key in row.values}
    shown = [
        quantity
        for i, quantity in enumerate(section.quantities)
        if quantity.compared in beside or any(row[i].readings for row in measured.values())
    ]
    columns = ["row"]
    for quantity in shown:
        if not quantity.in_parentheses:
            columns += _columns(quantity, quantity.compared in beside)
    rows = []
    for key, measures in measured.items():
        cells = [paper.label(key)]
        for measure in (measure for measure in measures if measure.quantity in shown):
            own = _cells(measure, measure.quantity.compared in beside)
            if measure.quantity.in_parentheses:
                cells[-len(own) :] = map(_with_parentheses, cells[-len(own) :], own)
            else:
                cells += own
        if not sweep.finished(key):
            cells[1] = state(sweep, key)
        rows.append([*cells, seeds(sweep, key)])
    return Table([*columns, "seeds"], rows)


def _columns(quantity: Quantity, beside: bool) -> list[str]:
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


def state(sweep: Sweep, key: str) -> str:
    """Returns how a row's runs ended, in words: "not run", or "2 finished, 1 failed"."""
    states = [run.state for run in sweep.of(key)]
    kinds = dict.fromkeys(states)
    if len(kinds) <= 1:
        return _WORDS.get(states[0], states[0]) if states else "not run"
    return ", ".join(f"{states.count(kind)} {_WORDS.get(kind, kind)}" for kind in kinds)


def seeds(sweep: Sweep, key: str) -> str:
    """Returns how many seeds a row's numbers are from."""
    listed, finished = len(sweep.of(key)), len(sweep.finished(key))
    if not finished:
        return "0"
    return str(finished) if finished == listed else f"{finished} of {listed}"


def how_measured(sweep: Sweep, section: Section) -> Table:
    """Returns on which data and devices, and for how long, each row was measured."""
    rows = []
    for key in section.row_keys(sweep):
        runs = sweep.finished(key)
        rows.append([paper.label(key), state(sweep, key), *_circumstances(runs)])
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


def _circumstances(runs: list[Run]) -> list[str]:
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


def describe_data(run: Run) -> str:
    """Returns the data set's name and number of training examples in words."""
    name, examples = data_of(run)
    return f"{name}, {examples:,} examples"


_CSV_COLUMNS = (
    *("section", "row", "quantity", "unit", "mean", "standard_deviation", "low_95", "high_95"),
    *("seeds", "censored", "values", "paper", "paper_flag", "difference"),
    *("runs", "data", "devices", "precision", "epochs", "changes", "seconds"),
)


def to_csv(sweep: Sweep, sections: tuple[Section, ...]) -> str:
    """Returns every number of the report, one a line; accuracies and errors as fractions."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for section in sections:
        for key in section.row_keys(sweep):
            circumstances = _circumstances(sweep.finished(key))
            how = [state(sweep, key), *(x if x != NOTHING else "" for x in circumstances)]
            for quantity in section.quantities:
                measure = section.measure(sweep, key, quantity)
                writer.writerow([section.title.partition(":")[0], *_csv_cells(measure), *how])
    return stream.getvalue()


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
