"""Double descent: test error, loss and norm of least squares against the number of random Fourier features.

Belkin et al. 2019 (arXiv 1812.11118, figure 2): the test error peaks where the features are as many as the
examples, and falls beyond. True labels, and labels of which a share is replaced, share one factorization.
"""

import functools
import itertools
import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.config.base import COMPILATION_CACHE, DATA, EXPERIMENT, GRACE_SECONDS
from rethink_jax.config.fields import POSITIVE, SEED, Allowed, Field, Fields, of_numbers
from rethink_jax.distributed import jax_settings, processes
from rethink_jax.pipeline import inputs
from rethink_jax.runs import display, files, opening
from rethink_jax.runs.own_files import CURVES, POINTS
from rethink_jax.runs.resolve import resolve
from rethink_jax.runs.run_in_parts import Show, run_in_parts
from rethink_jax.runs.writers import write_figure
from rethink_jax.theory import random_features
from rethink_jax.theory.random_features import Above, Below, Sides, Solution

logger = logging.getLogger(__name__)


def _are_ratios(values: Any) -> bool:
    numbers = [x for x in values if isinstance(x, int | float) and 0 < x <= 100]
    is_complete = 1 in numbers and min(numbers) < 1 < max(numbers)
    return len(numbers) == len(values) and is_complete


FIELDS: Fields = {
    "experiment": EXPERIMENT._replace(default="double_descent"),
    "seed": Field(
        0, "Seed of the features and of which labels are replaced.", SEED, in_report=False
    ),
    **DATA,
    "double_descent.ratios": Field(
        (
            *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
            *(1.05, 1.1, 1.2, 1.3, 1.4, 2.0, 4.0, 6.0),
        ),
        "Numbers of features N, divided by the number of examples n.",
        (Allowed("numbers in (0, 100], 1 and some below and above it", _are_ratios),),
    ),
    "double_descent.probabilities": Field(
        (0.0, 0.2),
        "Probabilities with which labels are replaced by a uniform random class.",
        of_numbers("one or more numbers in [0, 1]", lambda p: 0 <= p <= 1),
    ),
    "double_descent.bandwidth": Field(
        5.0, "σ of the frequencies N(0, σ⁻²I), for pixels of 0 to 1.", POSITIVE
    ),
    "grace_seconds": GRACE_SECONDS,
    "compilation_cache": COMPILATION_CACHE,
}


class Problem(NamedTuple):
    """What is fitted.

    Attributes:
      points: both splits' images, float64 [n, d] and [m, d], pixels of 0 to 1.
      labels: of the training examples at each probability, int32 [n, levels].
      test_labels: int32 [m], true.
      classes: how many there are.
      v: the frequencies, float64 [⌈N/2⌉, d] for the largest N.
      counts: the numbers of features, rising.
    """

    points: Sides
    labels: np.ndarray
    test_labels: np.ndarray
    classes: int
    v: np.ndarray
    counts: list[int]

    @property
    def targets(self) -> np.ndarray:
        """One-hot targets of all levels side by side, float64 [n, levels · classes]."""
        return np.eye(self.classes)[self.labels].reshape(len(self.labels), -1)


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "double_descent"
) -> dict[str, Any]:
    """Solves for each number of features, and measures each solution on the test set.

    Args:
      config: as `rethink_jax.config.experiment("double_descent", …)` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, and in several processes.
      RunFailed: features depend on each other in float64, or a file cannot be written.
      Stopped: when a signal came; the numbers of features that are done are saved.
    """
    config, _ = resolve(config)
    processes.check_one_process(config)
    # Nothing to wait for at a signal: what is done is saved already.
    summary = run_in_parts(
        config, workdir, name, functools.partial(_compute, config), "what is done is", defer=False
    )
    display.print_rows(*peaks_table(summary))
    return summary


def prepare(config: ConfigDict, dataset: data.Dataset) -> Problem:
    """Returns what a config fits of a data set."""
    fields, n = config.double_descent, dataset.info.num_train
    points = Sides(
        *(
            split.images.reshape(len(split.labels), -1) / 255.0
            for split in (dataset.train, dataset.test)
        )
    )
    true = dataset.train.labels, dataset.info, config.seed
    labels = [
        inputs.labels_by("partially_corrupted_labels", *true, probability)
        for probability in fields.probabilities
    ]
    counts = sorted({max(1, round(ratio * n)) for ratio in fields.ratios})
    dimension = points.train.shape[1]
    v = random_features.draw(config.seed, -(-counts[-1] // 2), dimension, fields.bandwidth)
    classes = dataset.info.num_classes
    return Problem(points, np.stack(labels, axis=1), dataset.test.labels, classes, v, counts)


def _compute(
    config: ConfigDict, path: epath.Path, dataset: data.Dataset, show: Show
) -> dict[str, Any]:
    """Solves for the numbers of features that the directory does not have yet, and writes the summary."""
    noted = {"num_train": dataset.info.num_train, "data_fingerprint": dataset.fingerprint}
    with opening.open_described(path, config, **noted):
        problem = prepare(config, dataset)
        saved = files.read_json(path / POINTS) if (path / POINTS).exists() else {}
        points, seconds = list(saved.get("points", ())), float(saved.get("seconds", 0.0))
        started = time.monotonic() - seconds
        for count, solution in _solutions(problem, {one["features"] for one in points}, show):
            points.append(_measure(config, problem, count, solution))
            seconds = time.monotonic() - started
            logger.info("%d features: %.0f s so far", count, seconds)
            files.write_json(path / POINTS, {"points": points, "seconds": seconds})
        n = dataset.info.num_train
        summary = {
            "status": "finished",
            "examples": n,
            "test_examples": len(problem.test_labels),
            "dimension": problem.points.train.shape[1],
            "points": points,
            "peaks": [
                find_peak(points, n, level)
                for level in range(len(config.double_descent.probabilities))
            ],
            "seconds": seconds,
        }
        write_figure(path / CURVES, (5, 8), lambda figure: draw(figure, summary))
        files.write_summary(path, summary)
    return summary


def _solutions(problem: Problem, done: set[int], show: Show) -> Iterator[tuple[int, Solution]]:
    """Yields the solution of each number of features that is not done, in rising order."""
    n, targets = len(problem.labels), problem.targets
    below = [count for count in problem.counts if count <= n and count not in done]
    above = [count for count in problem.counts if count > n and count not in done]
    if below:
        show("up to n features: factorization", 0.0)
        factored = Below(problem.points, problem.v, targets, below[-1])
        for i, count in enumerate(below):
            show("up to n features", i / len(below))
            yield count, factored.solve(count)
        del factored
    grown = Above(problem.points, problem.v, targets) if above else None
    for count in above:
        assert grown is not None
        for part in grown.grow(count):
            show(f"{count:,} features: matrix", part)
        show(f"{count:,} features: solution", 0.0)
        yield count, grown.solve()


def _measure(
    config: ConfigDict, problem: Problem, count: int, solution: Solution
) -> dict[str, Any]:
    """Returns what is known of the solutions with so many features, of each level of label noise."""
    n, classes = len(problem.labels), problem.classes
    levels = []
    for i, probability in enumerate(config.double_descent.probabilities):
        own = slice(i * classes, (i + 1) * classes)
        train, test = (values[:, own] for values in solution.values)
        labels, norm = problem.labels[:, i], float(np.linalg.norm(solution.norms[own]))
        levels.append(
            {
                "probability": float(probability),
                "test_error": _error(test, problem.test_labels),
                "test_loss": _loss(test, problem.test_labels),
                "train_error": _error(train, labels),
                "train_loss": _loss(train, labels),
                "norm": norm,
                "function_norm": norm * float(np.sqrt(count / 2)),
            }
        )
    return {
        "features": count,
        "ratio": count / n,
        "condition": solution.condition,
        "residual": solution.residual,
        "levels": levels,
    }


def _error(values: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(values.argmax(axis=1) != labels))


def _loss(values: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean over examples of ‖f(x) − y‖², y one-hot."""
    targets = np.eye(values.shape[1])[labels]
    return float(np.square(values - targets).sum(axis=1).mean())


def find_peak(points: list[dict[str, Any]], n: int, level: int) -> dict[str, Any]:
    """Returns where the test error is largest, what it is elsewhere, and whether this is a double descent.

    Args:
      points: of `summary.json`.
      n: training examples.
      level: which of the probabilities.

    Returns:
      `probability`; `features` with the largest `error`; `best_below` and `best_above` n features; the error at
      the `end`, with the most features; `came_out`: the peak is at n and at least three times both of the best,
      and the end is below `best_below`.
    """
    errors = {one["features"]: one["levels"][level]["test_error"] for one in points}
    peak = max(errors, key=lambda count: errors[count])
    below = min(error for count, error in errors.items() if count < n)
    above = min(error for count, error in errors.items() if count > n)
    end = errors[max(errors)]
    is_high = errors[peak] >= 3 * max(below, above)
    return {
        "probability": points[0]["levels"][level]["probability"],
        "features": peak,
        "error": errors[peak],
        "best_below": below,
        "best_above": above,
        "end": end,
        "came_out": peak == n and is_high and end < below,
    }


def conclude(summary: dict[str, Any]) -> list[str]:
    """Returns for each probability a sentence on whether the test error descends twice."""
    return [
        f"p = {peak['probability']:g}: the test error is largest with {peak['features']:,} features, "
        f"{peak['error']:.2%}; at best {peak['best_below']:.2%} below n and {peak['best_above']:.2%} above; "
        f"{peak['end']:.2%} with the most features. Double descent: {'yes' if peak['came_out'] else 'no'}."
        for peak in summary["peaks"]
    ]


def peaks_table(summary: dict[str, Any]) -> display.Rows:
    """Returns what `conclude` says, as a table for a terminal, which is too narrow for `table`."""
    columns = (
        "p",
        "peak at N",
        "error there",
        "best, N < n",
        "best, N > n",
        "at the end",
        "descends twice",
    )
    rows = []
    for peak in summary["peaks"]:
        errors = [peak[name] for name in ("error", "best_below", "best_above", "end")]
        cells = (f"{peak['probability']:g}", f"{peak['features']:,}", *map(display.percent, errors))
        rows.append((*cells, "yes" if peak["came_out"] else "no"))
    return f"Test error, {summary['examples']:,} examples", columns, rows


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns errors, losses and norms of each number of features, in words."""
    title = f"Random Fourier features, {summary['examples']:,} examples"
    probabilities = [level["probability"] for level in summary["points"][0]["levels"]]
    of_levels = itertools.product(
        probabilities, ("test error (%)", "training error (%)", "test loss", "‖a‖")
    )
    columns = (
        "N",
        "N/n",
        "condition",
        "residual",
        *(f"p = {p:g}: {word}" for p, word in of_levels),
    )
    rows = []
    for one in summary["points"]:
        cells = [f"{one['features']:,}", f"{one['ratio']:g}"]
        cells += [f"{one[name]:.1e}" for name in ("condition", "residual")]
        for level in one["levels"]:
            cells += [f"{100 * level[name]:.2f}" for name in ("test_error", "train_error")]
            cells += [f"{level[name]:.3g}" for name in ("test_loss", "norm")]
        rows.append(tuple(cells))
    return title, columns, rows


def draw(figure: Any, summary: dict[str, Any]) -> None:
    """Draws errors, losses and norms against N/n on an empty figure of matplotlib's, the threshold dotted."""
    of_errors, of_losses, of_norms = all_axes = figure.subplots(3, 1, sharex=True)
    ratios = [one["ratio"] for one in summary["points"]]
    for i, peak in enumerate(summary["peaks"]):
        levels = [one["levels"][i] for one in summary["points"]]
        colour, label = f"C{i}", f"p = {peak['probability']:g}"
        for axes, name, scale, line, words in (
            (of_errors, "test_error", 100, "o-", "test"),
            (of_errors, "train_error", 100, "x--", "training"),
            (of_losses, "test_loss", 1, "o-", "test"),
            (of_norms, "norm", 1, "o-", "‖a‖"),
            (of_norms, "function_norm", 1, "x--", "√(N/2) ‖a‖"),
        ):
            values = [scale * level[name] for level in levels]
            axes.plot(ratios, values, line, color=colour, markersize=3, label=f"{label}, {words}")
    of_errors.set(ylabel="error (%)", ylim=(-2, 100), xscale="log")
    of_losses.set(ylabel="squared loss", yscale="log")
    of_norms.set(ylabel="norm", xlabel="N / n", yscale="log")
    for axes in all_axes:
        axes.axvline(1, color="tab:gray", linestyle=":")
        axes.legend()
        axes.grid(alpha=0.3)
