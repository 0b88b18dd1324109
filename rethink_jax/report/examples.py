"""The report's page on single examples: their scores, the images of the extremes, memorized pairs."""

import csv
import math
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.errors import UserError
from rethink_jax.report import images
from rethink_jax.report.figures import draw
from rethink_jax.report.pages import Block, Heading, Text
from rethink_jax.report.tables import NOTHING, Table
from rethink_jax.runs import files, own_files
from rethink_jax.runs.score_table import ScoreTable, hardness, read
from rethink_jax.theory import c_scores, removal, subsets

_SCORES = (
    "Spearman's rank correlation of all scores with each other, each turned so that a greater one is of a "
    "harder example. The area under the curve is the probability that an example with a wrong label has a "
    "greater score than one with a right label; one half is chance."
)
_PUBLISHED = (
    "Published C-scores (Jiang et al. 2021) are turned likewise; the second column is the mean of the "
    "classes."
)
_EXTREMES = (
    "The hardest and the easiest training images by each score. Below each its label; where that is wrong, "
    "the true one first."
)
_PAIRS = (
    "Memorized training images, and below each the test image of its class that it decides most (Feldman and "
    "Zhang 2020). Below the training image its label, below the test image the influence."
)
_KEPT = (
    "Training accuracy on kept labels, on replaced ones, and the share of the replaced that get their true "
    "class, as in Arpit et al. (2017)."
)
_CURVES = {
    "train_accuracy_kept": "kept",
    "train_accuracy_replaced": "replaced",
    "train_accuracy_replaced_true": "replaced, true class",
    "test_accuracy": "test",
}
# Images in a row.
_WIDE = 8
_REMOVED = "What removing memorized training examples costs fresh networks (Feldman and Zhang 2020)"


class Scored(NamedTuple):
    """A finished run that has scores of its training examples.

    Attributes:
      name: of its directory, numbered where another run's is equal.
      path: its directory.
      config: as it ran.
      table: its scores.
      summary: `summary.json`.
    """

    name: str
    path: epath.Path
    config: ConfigDict
    table: ScoreTable
    summary: dict[str, Any]


def find(paths: Iterable[epath.Path]) -> list[Scored]:
    """Returns the runs among some directories of runs that have scores.

    Raises:
      UserError: naming a file that is damaged.
    """
    found: list[Scored] = []
    for path in paths:
        if not (path / own_files.SCORES).exists() or not (path / own_files.SUMMARY).exists():
            continue
        config = ConfigDict(files.with_tuples(files.read_config(path)))
        table, summary = read(path / own_files.SCORES), files.read_json(path / own_files.SUMMARY)
        equal = sum(run.path.name == path.name for run in found)
        name = f"{path.name}-{equal + 1}" if equal else path.name
        found.append(Scored(name, path, config, table, summary))
    return found


def page(runs: list[Scored], published: epath.Path | None = None) -> list[Block]:
    """Returns the page on runs with scores; those of the same examples with the same labels are held together.

    Args:
      runs: as `find` returns them.
      published: a file of C-scores, as `c_scores.read_published` takes it.

    Raises:
      UserError: for a file of published scores that is of none of the runs' examples.
    """
    groups: dict[bytes, list[Scored]] = {}
    for run in runs:
        labels = np.stack([run.table.labels, run.table.true_labels])
        groups.setdefault(labels.tobytes(), []).append(run)
    truths = _read_published([*groups.values()], published)
    blocks: list[Block] = [Heading("Single examples", 1), Text(_SCORES)]
    blocks += [] if published is None else [Text(_PUBLISHED)]
    loaded: dict[str, data.Dataset | str] = {}
    for group, truth in zip(groups.values(), truths, strict=True):
        key = group[0].config.data.to_json()
        if key not in loaded:
            loaded[key] = _load(group[0].config.data)
        blocks += _of_group(group, truth, loaded[key])
    return blocks


def _load(config: ConfigDict) -> data.Dataset | str:
    """Returns a data set, or why it cannot be read."""
    try:
        return data.load(config)
    except UserError as error:
        return str(error)


def _read_published(groups: list[list[Scored]], file: epath.Path | None) -> list[np.ndarray | None]:
    """Returns the published scores of each group's examples, None where the file is of others."""
    if file is None:
        return [None] * len(groups)
    found: list[np.ndarray | None] = []
    errors = []
    for group in groups:
        try:
            found.append(c_scores.read_published(file, group[0].table))
        except UserError as error:
            found.append(None)
            errors.append(error)
    if len(errors) == len(groups):
        raise errors[0]
    return found


def _of_group(
    runs: list[Scored], published: np.ndarray | None, dataset: data.Dataset | str
) -> list[Block]:
    table = runs[0].table
    wrong = int((table.labels != table.true_labels).sum())
    title = f"{runs[0].config.data.name}, {len(table.labels):,} training examples"
    blocks: list[Block] = [
        Heading(f"{title}, {wrong:,} wrong labels"),
        correlations(runs, published),
    ]
    if isinstance(dataset, str):
        blocks.append(Text(f"Images cannot be shown: {dataset}."))
    for run in runs:
        blocks += _of_run(run, dataset)
    return blocks


def correlations(runs: list[Scored], published: np.ndarray | None) -> Table:
    """Returns the rank correlations of the scores of runs on the same examples."""
    names, columns = [], []
    for run in runs:
        for name, values in run.table.scores.items():
            names.append(f"{name.replace('_', ' ')} ({run.name})")
            columns.append(hardness(name, values))
    table = runs[0].table
    is_wrong = table.labels != table.true_labels
    heads = ["score", *(["area under the curve"] if is_wrong.any() else [])]
    heads += ["published", "published, within classes"] if published is not None else []
    rows = []
    for place, (name, values) in enumerate(zip(names, columns, strict=True), 1):
        cells = [f"{place} {name}"]
        if is_wrong.any():
            scored = ~np.isnan(values)
            cells.append(_shown(subsets.area_under_curve(values[scored], is_wrong[scored])))
        if published is not None:
            within = c_scores.within_classes(values, -published, table.true_labels)
            cells += [_shown(subsets.rank_correlation(values, -published)), _shown(within)]
        cells += [_shown(subsets.rank_correlation(values, other)) for other in columns]
        rows.append(cells)
    return Table([*heads, *map(str, range(1, len(names) + 1))], rows)


def _shown(value: float | None) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:.3f}"


def _of_run(run: Scored, dataset: data.Dataset | str) -> list[Block]:
    blocks: list[Block] = [Heading(run.name, 3)]
    if not isinstance(dataset, str):
        rows = extremes(run.table, dataset.train.images)
        fill = partial(images.fill, rows=rows)
        blocks.append(draw(f"{run.name}-extremes", _EXTREMES, fill, 0.55 * len(rows)))
        pairs = memorized_pairs(run, dataset)
        if pairs:
            fill = partial(images.fill, rows=pairs)
            blocks.append(draw(f"{run.name}-pairs", _PAIRS, fill, 0.62 * len(pairs)))
    history = files.read_metrics(run.path) if (run.path / own_files.METRICS).exists() else []
    if any("train_accuracy_replaced" in record for record in history):
        fill = partial(_fill_curves, history=history)
        blocks.append(draw(f"{run.name}-kept_and_replaced", _KEPT, fill))
    if run.summary.get("removal") is not None:
        rows_of_removal = [list(row) for row in removal.rows(run.summary["removal"])]
        blocks += [Text(f"{_REMOVED}:"), Table(["", "value"], rows_of_removal)]
    return blocks


def extremes(table: ScoreTable, train_images: np.ndarray) -> list[images.Row]:
    """Returns the hardest and the easiest images by each score; of equal ones the first ids count."""
    rows = []
    for name, values in table.scores.items():
        turned = hardness(name, values)
        for title, order in (("hardest", -turned), ("easiest", turned)):
            ids = np.argsort(order, kind="stable")[:_WIDE]  # NaN comes last
            words = [_label(table, id_) for id_ in ids]
            rows.append(images.Row(f"{name.replace('_', ' ')}:\n{title}", train_images[ids], words))
    return rows


def _label(table: ScoreTable, id_: int) -> str:
    given, true = int(table.labels[id_]), int(table.true_labels[id_])
    return f"{given}" if given == true else f"{true} → {given}"


def memorized_pairs(run: Scored, dataset: data.Dataset) -> list[images.Row]:
    """Returns the pairs of greatest influence, each training example and each test point once."""
    file = run.path / own_files.PAIRS
    if not file.exists():
        return []
    pairs = [
        (float(row["influence"]), int(row["train_id"]), int(row["test_id"]))
        for row in csv.DictReader(file.read_text().splitlines())
    ]
    chosen: dict[int, tuple[int, float]] = {}
    for influence, train_id, test_id in sorted(pairs, key=lambda pair: -pair[0]):
        seen = {own for own, _ in chosen.values()}
        if len(chosen) < 2 * _WIDE and train_id not in chosen and test_id not in seen:
            chosen[train_id] = test_id, influence
    rows = []
    for start in range(0, len(chosen), _WIDE):
        part = [*chosen.items()][start : start + _WIDE]
        train_ids, test_ids = [id_ for id_, _ in part], [own for _, (own, _) in part]
        labels = [_label(run.table, id_) for id_ in train_ids]
        influences = [f"{influence:.2f}" for _, (_, influence) in part]
        rows.append(images.Row("training", dataset.train.images[train_ids], labels))
        rows.append(images.Row("test", dataset.test.images[test_ids], influences))
    return rows


def _fill_curves(figure: Figure, history: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    epochs = [record["epoch"] for record in history]
    for name, label in _CURVES.items():
        shares = [100 * record.get(name, math.nan) for record in history]
        axes.plot(epochs, shares, label=label, linewidth=1)
    axes.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 102))
    axes.legend()
    axes.grid(alpha=0.3)
