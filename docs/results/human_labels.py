"""What do human, drawn and symmetric wrong labels cost a network, and how well does one score find them?

    python docs/results/human_labels.py SWEEP

SWEEP is the directory of a sweep of `configs/human_labels.py` with records. Prints a row for each kind of
labels: the share that is wrong, epochs to a training loss below 0.05 and to a training accuracy of 99.9 %, test
accuracy at the end and at its best, and the area under the curve for wrong labels of the cumulative loss; means
over seeds and Student's 95 % intervals. A run that has not finished is left out. Not in the paper.
"""

import json
import sys
from pathlib import Path

from etils import epath

from rethink_jax.runs import score_table
from rethink_jax.sweeps.estimates import estimate
from rethink_jax.theory import subsets

SCORE = "cumulative_loss"
COLUMNS = ("wrong", "epochs_to_fit", "epochs_to_fit_accuracy", "test", "best_test", "area")
PERCENT = ("wrong", "test", "best_test")


def read(run: Path) -> dict[str, float | None]:
    """Returns one run's numbers."""
    summary = json.loads((run / "summary.json").read_text())
    table = score_table.read(epath.Path(run) / "scores.csv")
    is_wrong = table.labels != table.true_labels
    return {
        "wrong": float(is_wrong.mean()),
        "epochs_to_fit": summary["epochs_to_fit"],
        "epochs_to_fit_accuracy": summary["epochs_to_fit_accuracy"],
        "test": summary["test_accuracy"],
        "best_test": summary["best_test_accuracy"],
        "area": subsets.area_under_curve(table.scores[SCORE], is_wrong),
    }


def show(name: str, values: list[float | None]) -> str:
    """Returns the mean and its interval; what one seed lacks has none."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "—"
    found, scale = estimate(known), 100 if name in PERCENT else 1
    digits = 3 if name == "area" else 2
    interval = (
        ""
        if found.low is None
        else f" [{scale * found.low:.{digits}f}, {scale * (found.high or 0):.{digits}f}]"
    )
    return f"{scale * found.mean:.{digits}f}{interval}"


def main(sweep: str) -> None:
    """Prints the table as Markdown."""
    of_kind: dict[str, list[dict[str, float | None]]] = {}
    for run in sorted(Path(sweep).glob("*-seed*")):
        if (run / "scores.csv").exists():
            of_kind.setdefault(run.name.rpartition("-seed")[0], []).append(read(run))
    print(f"| labels | seeds | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}")
    for kind, runs in of_kind.items():
        cells = [show(name, [run[name] for run in runs]) for name in COLUMNS]
        print(f"| {kind} | {len(runs)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
