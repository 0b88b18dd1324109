"""True labels beside random ones, as H∞ tells them apart: a measure, a spectrum, the speed of gradient descent.

Two classes as ±1, on nested subsets of a data set: for labels of which a share p is drawn again as fair signs,
and for draws of random labels, √(2 yᵀ(H∞)⁻¹y / n) and the test error of the interpolation with H∞ (Arora et al.
2019, arXiv 1901.08584, sections 4 to 6).
"""

import dataclasses
import logging
import time
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.config.base import COMPILATION_CACHE, DATA, EXPERIMENT
from rethink_jax.config.fields import (
    COUNT,
    FLOAT32,
    POSITIVE,
    SEED,
    Allowed,
    Field,
    Fields,
    of_numbers,
    within,
)
from rethink_jax.distributed import jax_settings
from rethink_jax.errors import require
from rethink_jax.pipeline import inputs
from rethink_jax.runs import display, run_once
from rethink_jax.runs.resolve import resolve
from rethink_jax.runs.writers import write_figure
from rethink_jax.sweeps import estimates
from rethink_jax.theory import gram, two_layer

logger = logging.getLogger(__name__)


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


FIELDS: Fields = {
    "experiment": EXPERIMENT._replace(default="fine_grained"),
    "seed": Field(
        0, "Seed of the subsets, of random labels and of initial weights.", SEED, in_report=False
    ),
    **DATA,
    "fine_grained.classes": Field(
        (0, 1),
        "The two classes, −1 and 1.",
        (
            Allowed(
                "two different classes, whole numbers from 0",
                lambda value: (
                    len(value) == 2 == len({*value})
                    and all(_is_whole(one, 0, 10**6) for one in value)
                ),
            ),
        ),
    ),
    "fine_grained.sizes": Field(
        (1000, 2000, 4000, 10_000),
        "Examples of each subset; a smaller one is part of a larger one.",
        of_numbers("whole numbers in [2, 50000]", lambda value: _is_whole(value, 2, 50_000)),
    ),
    "fine_grained.draws": Field(5, "Draws of random labels.", within(1, 1000)),
    "fine_grained.spectrum_up_to": Field(
        4000, "Largest subset whose eigenvectors are computed.", within(1, 50_000)
    ),
    "fine_grained.widths": Field(
        (2000, 8000),
        "Units of the two-layer networks that are trained; `()` trains none.",
        (
            Allowed(
                "even whole numbers in [2, 1000000], or ()",
                lambda value: all(_is_whole(m, 2, 10**6) and m % 2 == 0 for m in value),
            ),
        ),
    ),
    "fine_grained.initial_std": Field(
        10.0, "Standard deviation κ of their initial weights.", POSITIVE + FLOAT32
    ),
    "fine_grained.trained_examples": Field(1000, "Examples that they are trained on.", COUNT),
    "fine_grained.steps": Field(1000, "Steps of gradient descent.", within(1, 10**6)),
    "compilation_cache": COMPILATION_CACHE,
}

CURVES = "curves.png"
LEVELS = tuple(level / 10 for level in range(11))
TRUE, RANDOM = "true_labels", "random_labels"


class Examples(NamedTuple):
    """Two classes as ±1, the training examples in a random order of which subsets are the beginning.

    Attributes:
      train: float64 [n, d], of unit length.
      labels: float64 [n, levels + draws]: with a share p of each of `LEVELS` drawn again, then random ones.
      test: float64 [m, d].
      test_labels: float64 [m].
      ids: int [n], of the training examples in the data set.
    """

    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    ids: np.ndarray


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "fine_grained"
) -> dict[str, Any]:
    """Computes H∞ of two classes, and says what it tells of true and of random labels.

    Args:
      config: as `rethink_jax.config.experiment("fine_grained", …)` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, and for images that make H∞ singular.
    """
    config, _ = resolve(config)

    def compute(dataset: data.Dataset | None) -> tuple[dict[str, Any], int]:
        assert dataset is not None
        return summarize(config, _examples(config, dataset)), dataset.info.num_train

    def leave(summary: dict[str, Any], path: epath.Path) -> None:
        write_figure(path / CURVES, (5, 6), lambda figure: draw_measure(figure, summary))

    def load() -> data.Dataset:
        return data.load(config.data)

    return run_once.run_once(config, workdir, name, load, compute, table, leave)


def _examples(config: ConfigDict, dataset: data.Dataset) -> Examples:
    """Returns as many examples of the two classes as are needed, and all of the test set."""
    fields, classes = config.fine_grained, dataset.info.num_classes
    two_classes = dataclasses.replace(dataset.info, num_classes=2)
    allowed = f"two of {dataset.info.name}'s {classes} classes, from 0 to {classes - 1}"
    require(max(fields.classes) < classes, "fine_grained.classes", fields.classes, allowed)
    ids, test_ids = (
        np.flatnonzero(np.isin(split.labels, fields.classes))
        for split in (dataset.train, dataset.test)
    )
    needed = {"sizes": max(fields.sizes)}
    if fields.widths:
        needed["trained_examples"] = fields.trained_examples
    for field, count in needed.items():
        allowed = f"at most {len(ids)}, the examples of the two classes"
        require(count <= len(ids), f"fine_grained.{field}", fields[field], allowed)
    ids = np.random.default_rng(config.seed).permutation(ids)[: max(needed.values())]
    is_second = (dataset.train.labels[ids] == fields.classes[1]).astype(np.int32)
    labels = [
        _corrupted(is_second, two_classes, "partially_corrupted_labels", level, config.seed)
        for level in LEVELS
    ]
    labels += [
        _corrupted(is_second, two_classes, "random_labels", 1.0, (config.seed + draw) % 2**32)
        for draw in range(1, fields.draws + 1)
    ]
    return Examples(
        gram.unit_vectors(dataset.train.images[ids], ids),
        np.stack(labels, axis=1),
        gram.unit_vectors(dataset.test.images[test_ids], test_ids),
        2.0 * (dataset.test.labels[test_ids] == fields.classes[1]) - 1,
        ids,
    )


def _corrupted(
    is_second: np.ndarray, info: data.DatasetInfo, name: str, probability: float, seed: int
) -> np.ndarray:
    return 2.0 * inputs.labels_by(name, is_second, info, seed, probability) - 1


def summarize(config: ConfigDict, examples: Examples) -> dict[str, Any]:
    """Returns `summary.json`: the measure of each subset and labels, and the speed of each network."""
    fields, started = config.fine_grained, time.perf_counter()
    sizes, largest = sorted({*fields.sizes}), max(fields.sizes)
    h = gram.matrix(examples.train[:largest], examples.ids)
    factor = gram.Factor(h)
    across = gram.arc_cosine(examples.test @ examples.train[:largest].T)
    traces = factor.traces()
    subsets = []
    for n in sizes:
        found = factor.of_labels(examples.labels[:n])
        errors = _test_errors(across[:, :n] @ found.weights, examples.test_labels)
        own = gram.spectrum(h[:n, :n], examples.labels[:n]) if n <= fields.spectrum_up_to else None
        trace = float(np.sqrt(2 * traces[n - 1] / n))
        subsets.append(summarize_subset(found, errors, trace, own))
        logger.info("%d examples: %.0f s so far", n, time.perf_counter() - started)
    del h, factor, across
    return {
        "status": "finished",
        "classes": list(fields.classes),
        "dimension": examples.train.shape[1],
        "test_examples": len(examples.test),
        "subsets": subsets,
        "training": _train(config, examples) if fields.widths else None,
        "seconds": time.perf_counter() - started,
    }


def _test_errors(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.mean((values > 0) != (labels > 0)[:, None], axis=0)


def summarize_subset(
    found: gram.Labels, errors: np.ndarray, trace: float, own: gram.Spectrum | None
) -> dict[str, Any]:
    """Returns what is known of a subset, float64 numbers of the levels first and then of the draws.

    Args:
      found: of all labels.
      errors: test errors of their interpolations.
      trace: √(2 tr (H∞)⁻¹ / n), around which the measure of random labels lies.
      own: the spectrum, where it was computed.
    """
    count = len(LEVELS)
    measures, test_errors = found.measure[:count], errors[:count]
    summary: dict[str, Any] = {
        "examples": len(found.weights),
        TRUE: float(found.measure[0]),
        RANDOM: float(found.measure[count:].mean()),
        "random_draws": found.measure[count:].tolist(),
        "trace": trace,
        "levels": [
            {"probability": level, "measure": measure, "test_error": error}
            for level, measure, error in zip(
                LEVELS, measures.tolist(), test_errors.tolist(), strict=True
            )
        ],
        "random_test_error": float(errors[count:].mean()),
        "spearman": estimates.rank_correlation(measures.tolist(), test_errors.tolist()),
        "residual": found.residual,
    }
    if own is not None:
        shares = own.shares()
        summary["spectrum"] = {
            "largest": float(own.eigenvalues[0]),
            "smallest": float(own.eigenvalues[-1]),
            "shares": list(gram.SHARES),
            TRUE: shares[:, 0].tolist(),
            RANDOM: shares[:, count:].mean(axis=1).tolist(),
            "difference": float(np.abs(own.measure() / found.measure - 1).max()),
        }
    return summary


def _train(config: ConfigDict, examples: Examples) -> dict[str, Any]:
    fields = config.fine_grained
    count = fields.trained_examples
    labels = {TRUE: examples.labels[:count, 0], RANDOM: examples.labels[:count, len(LEVELS)]}
    h = gram.matrix(examples.train[:count], examples.ids)
    infinite = gram.spectrum(h, np.stack([*labels.values()], axis=1))
    training = two_layer.Training(examples.train[:count], labels, infinite, fields.steps)
    return training.summarize(fields.widths, fields.initial_std, config.seed)


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns measure and test error of each subset, in words."""
    title = "H∞ of classes {first} and {second}: √(2 yᵀ(H∞)⁻¹y / n)"
    columns = (
        *("examples", "true labels", "random labels", "ratio", "√(2 tr (H∞)⁻¹ / n)"),
        *("test error, true", "random", "Spearman", "residual"),
    )
    rows = []
    for one in summary["subsets"]:
        spearman = "—" if one["spearman"] is None else f"{one['spearman']:.3f}"
        errors = (one["levels"][0]["test_error"], one["random_test_error"])
        rows.append(
            (
                f"{one['examples']:,}",
                *(f"{one[kind]:.3f}" for kind in (TRUE, RANDOM)),
                f"{one[RANDOM] / one[TRUE]:.2f}",
                f"{one['trace']:.3f}",
                *(display.percent(error) for error in errors),
                spearman,
                f"{one['residual']:.1e}",
            )
        )
    first, second = summary["classes"]
    return title.format(first=first, second=second), columns, rows


def spectrum_table(summary: dict[str, Any]) -> display.Rows:
    """Returns the parts of labels on the top eigenvectors of each subset whose spectrum is known, in words."""
    title = "‖y‖² on the top eigenvectors of H∞"
    shares = [f"{share:.0%}" for share in gram.SHARES]
    columns = (
        "examples",
        *(f"top {share}, {kind}" for kind in ("true", "random") for share in shares),
    )
    rows = [
        (
            f"{one['examples']:,}",
            *(f"{part:.3f}" for kind in (TRUE, RANDOM) for part in one["spectrum"][kind]),
        )
        for one in summary["subsets"]
        if "spectrum" in one
    ]
    return title, columns, rows


def draw_measure(figure: Any, summary: dict[str, Any]) -> None:
    """Draws the measure against examples, and test errors against it, on an empty figure of matplotlib's."""
    of_examples, of_errors = figure.subplots(2, 1)
    subsets = summary["subsets"]
    sizes = [one["examples"] for one in subsets]
    for kind, colour in ((TRUE, "tab:blue"), (RANDOM, "tab:orange")):
        values = [one[kind] for one in subsets]
        of_examples.plot(sizes, values, "o-", color=colour, label=kind.replace("_", " "))
    traces = [one["trace"] for one in subsets]
    of_examples.plot(sizes, traces, ":", color="tab:gray", label="mean over random signs")
    for one in subsets:
        points = [(level["measure"], 100 * level["test_error"]) for level in one["levels"]]
        of_errors.plot(*zip(*points, strict=True), "o-", label=f"{one['examples']:,} examples")
    of_examples.set(xlabel="examples", ylabel="measure", xscale="log", ylim=(0, None))
    of_errors.set(xlabel="measure, for p = 0, 0.1 … 1", ylabel="test error (%)")
    for axes in (of_examples, of_errors):
        axes.legend()
        axes.grid(alpha=0.3)
