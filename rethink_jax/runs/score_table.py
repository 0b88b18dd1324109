"""`scores.csv`: the training examples, one a line, with their labels and scores; cleanlab reads such tables."""

import csv
import io
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from rethink_jax.errors import UserError, one_line

# What counts presentations of an example has this where there is none.
NEVER = -1

_FROM_LABELS = ("id", "own_id", "label", "true_label")
_NEVER_IS_HARDEST = ("forgetting_events", "first_learned", "last_learned")
_GREATER_IS_EASIER = ("share_right", "area_under_margin", "confidence", "c_score")


class ScoreTable(NamedTuple):
    """Scores of the training examples.

    Attributes:
      labels: int [n], those trained on.
      true_labels: int [n].
      own_ids: text [n], as in `rethink_jax.data.Examples`, or None.
      scores: by their names, [n] each; NaN where there is none.
    """

    labels: np.ndarray
    true_labels: np.ndarray
    own_ids: np.ndarray | None
    scores: dict[str, np.ndarray]


def to_csv(table: ScoreTable) -> str:
    """Returns the table as text; a score that is NaN is empty."""
    n = len(table.labels)
    columns: dict[str, Any] = {
        "id": range(n),
        "own_id": [""] * n if table.own_ids is None else table.own_ids.tolist(),
        "label": table.labels.tolist(),
        "true_label": table.true_labels.tolist(),
    }
    for name, values in table.scores.items():
        columns[name] = ["" if value != value else value for value in values.tolist()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def read(file: epath.Path) -> ScoreTable:
    """Reads what `to_csv` wrote; scores become float64.

    Raises:
      UserError: it cannot be read, or is no such table.

    Example:
      >>> import tempfile
      >>> table = ScoreTable(np.array([1, 0]), np.array([1, 1]), None, {"c_score": np.array([0.5, np.nan])})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = epath.Path(folder) / "scores.csv"
      ...     _ = file.write_text(to_csv(table))
      ...     read(file).scores
      {'c_score': array([0.5, nan])}
    """
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text()), strict=True))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        labels, true_labels = (np.array(columns[n], np.int64) for n in ("label", "true_label"))
        own_ids = np.array(columns["own_id"]) if any(columns["own_id"]) else None
        scores = {
            name: np.array([value or "nan" for value in values], np.float64)
            for name, values in columns.items()
            if name not in _FROM_LABELS
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError, csv.Error) as error:
        raise UserError(f"{file} is no table of scores: {one_line(error)}") from error
    return ScoreTable(labels, true_labels, own_ids, scores)


def hardness(name: str, values: np.ndarray) -> np.ndarray:
    """Returns a score turned so that a greater one is of a harder example; what never happened is infinite.

    Example:
      >>> hardness("confidence", np.array([0.9, 0.1])), hardness("first_learned", np.array([2, NEVER]))
      (array([-0.9, -0.1]), array([ 2., inf]))
    """
    if name in _NEVER_IS_HARDEST:
        return np.where(values == NEVER, np.inf, values)
    return -values if name in _GREATER_IS_EASIER else values
