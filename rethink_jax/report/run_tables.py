"""The report's tables of single training runs: all of them, and those of no row of the paper."""

from rethink_jax import paper
from rethink_jax.report.catalog import SPECIFICATIONS
from rethink_jax.report.measures import BEST, EPOCHS, TEST, TRAIN, Measure
from rethink_jax.report.rows import Other, Row, settings_of
from rethink_jax.report.runs import ReportedRun, Sweep, hardware_of, precision_of, times_resumed
from rethink_jax.report.tables import (
    NOTHING,
    Table,
    columns_of,
    describe_data,
    kind_of,
    ours,
    trained_for,
)

# Those columns of all runs that a sentence tells as well.
SETTINGS_OF_RUNS = (
    "seed",
    "evaluated every",
    "also set",
    "data",
    "devices",
    "precision",
    "resumed",
)


def all_runs(runs: list[ReportedRun], of_rows: dict[str, list[Row]]) -> Table:
    """Returns what each training run was, and what it measures."""
    columns = [
        "run",
        "measures",
        "seed",
        "epochs",
        "evaluated every",
        "also set",
        "data",
        "devices",
    ]
    columns += ["precision", "seconds", "resumed"]
    cells = []
    for run in runs:
        every, times = run.config["evaluate"]["every_epochs"], times_resumed(run)
        cells.append(
            [
                *(run.place, "; ".join(map(_place_of, of_rows[run.place])) or "another recipe"),
                *(str(run.seed), trained_for([run]), "epoch" if every == 1 else f"{every} epochs"),
                *(settings_of(run) or NOTHING, describe_data(run), hardware_of(run)),
                *(precision_of(run), f"{run.summary.get('seconds', 0.0):.0f}"),
                "not recorded" if times is None else times or "never",
            ]
        )
    return Table(columns, cells)


def _place_of(row: Row) -> str:
    titles = [section.title.partition(":")[0] for section in SPECIFICATIONS[row.table].sections]
    where = " and ".join([titles[0], *(title.removeprefix("Figure ") for title in titles[1:])])
    if len(titles) > 1:
        where = where.replace("Figure", "Figures")
    return f"{where}: {paper.label(row.key)}"


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)


_SHOWN_OF_OTHERS = (TRAIN, TEST, BEST, EPOCHS)


def other_recipes(runs: list[tuple[ReportedRun, Other]]) -> Table:
    """Returns the runs of no row, each with the row that it differs least from, and in what."""
    columns = ["run", "the nearest row", "what differs", "data", "epochs", "devices", "seed"]
    columns += [column for q in _SHOWN_OF_OTHERS for column in columns_of(q, beside=False)]
    cells = []
    for run, (row, differences) in runs:
        differing = ", ".join(
            f"{field.rpartition('.')[2]} {_shown(own)} instead of {_shown(usual)}"
            for field, usual, own in differences
        )
        alone = Sweep("", "", (run,), collected=True)
        numbers = [q.read(run, alone) if run.summary else None for q in _SHOWN_OF_OTHERS]
        measured = [
            Measure("", q, [] if number is None else [number], None, None)
            for q, number in zip(_SHOWN_OF_OTHERS, numbers, strict=True)
        ]
        cells.append([run.place, _place_of(row), differing, *kind_of([run]), str(run.seed)])
        cells[-1] += map(ours, measured)
    return Table(columns, cells)
