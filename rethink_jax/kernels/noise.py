"""Interpolation of corrupted labels, with the matrix that the true ones are interpolated with.

A kernel that fits labels of which a share is wrong can still be right on most new points (Belkin et al. 2018,
arXiv 1802.01396). All levels are columns of one solve.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from rethink_jax.data import DatasetInfo
from rethink_jax.kernels.kernel import Kernel
from rethink_jax.kernels.matrix import KernelMatrix
from rethink_jax.kernels.session import LabelledProducts
from rethink_jax.kernels.solve import Iterate
from rethink_jax.kernels.summary import error_rate, measure
from rethink_jax.pipeline import inputs
from rethink_jax.runs import display

_REPLACED = "partially_corrupted_labels"


class Level(NamedTuple):
    """Labels of both splits, each replaced by a uniform random class with one probability.

    Attributes:
      probability: p.
      train: int32 [n].
      test: int32 [m].
    """

    probability: float
    train: np.ndarray
    test: np.ndarray


def levels(config: ConfigDict, prepared: LabelledProducts, info: DatasetInfo) -> list[Level]:
    """Returns the true labels as a level of p = 0, and those of `config.noise.probabilities`."""
    found = [Level(0.0, prepared.labels, prepared.test_labels)]
    for probability in config.noise.probabilities or ():
        both = [
            inputs.labels_by(_REPLACED, labels, info, config.seed, probability, split)
            for split, labels in (("train", prepared.labels), ("test", prepared.test_labels))
        ]
        found.append(Level(float(probability), *both))
    return found


def summarize(
    known: list[Level],
    prepared: LabelledProducts,
    kernel: Kernel,
    matrix: KernelMatrix,
    iterate: Iterate,
    ridge: float,
    classes: int,
) -> dict[str, Any]:
    """Returns what `measure` says of the true labels, and under `noise`, if there are more, of each level.

    Args:
      known: as `levels` returns them.
      prepared: the products, and the true labels.
      kernel: of the matrix.
      matrix: K, and its rows of the test points.
      iterate: with the solution for the targets of all levels, float64 [n, levels · classes + 1].
      ridge: added to K's diagonal.
      classes: how many there are.
    """
    measured = []
    for i, level in enumerate(known):
        own = np.append(np.arange(i * classes, (i + 1) * classes), -1)
        part = iterate._replace(solution=iterate.solution[:, own])
        labelled = prepared._replace(labels=level.train)
        found = measure(labelled, kernel, matrix, part, ridge, classes)
        corrupted = error_rate(matrix.predict(part.solution[:, :-1]), level.test)
        of_level = {
            "probability": level.probability,
            "replaced": float(np.mean(level.train != prepared.labels)),
            "replaced_test": float(np.mean(level.test != prepared.test_labels)),
            "test_error_corrupted": corrupted,
        }
        measured.append(of_level | found)
        if i == 0:
            of_true = found
    return of_true | ({"noise": measured} if len(known) > 1 else {})


def table(solution: dict[str, Any]) -> display.Rows:
    """Returns what a solution's summary has under `noise`, in words."""
    title = "Labels replaced with probability p"
    columns = (
        *("p", "wrong training labels (%)", "training error (%)", "test error (%)"),
        *("against corrupted test labels (%)", "wrong test labels (%)"),
        *("norm, one-hot targets", "norm, targets ±1", "residual of some rows in float64"),
    )
    rows = []
    for one in solution["noise"]:
        errors = (one["replaced"], one["train_error"], one["test_error"])
        corrupted = (one["test_error_corrupted"], one["replaced_test"])
        rows.append(
            (
                f"{one['probability']:g}",
                *(f"{100 * error:.2f}" for error in (*errors, *corrupted)),
                *(f"{one[name]:.1f}" for name in ("norm_one_hot", "norm_signs")),
                f"{one['residual_float64']:.1e}",
            )
        )
    return title, columns, rows


def conclude(solution: dict[str, Any]) -> str:
    """Returns in a sentence or two whether noise was interpolated, and what that cost."""
    levels = sorted(solution["noise"], key=lambda one: one["probability"])
    fitted = all(one["train_error"] == 0 for one in levels)
    norms = [one["norm_one_hot"] for one in levels]
    rises = all(low < high for low, high in itertools.pairwise(norms))
    of_true = levels[0]["test_error"]
    is_cheap = all(
        one["test_error"] - of_true < one["replaced"]
        for one in levels
        if 0 < one["probability"] < 1
    )
    return (
        f"Training error 0 at every p: {_yes(fitted)}. The norm rises with p: {_yes(rises)}. Below p = 1 the "
        f"test error grows by less than the share of wrong training labels: {_yes(is_cheap)}."
    )


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def draw(figure: Any, runs: dict[str, dict[str, Any]]) -> None:
    """Draws errors and norms against p on an empty figure of matplotlib's.

    Args:
      figure: of matplotlib's.
      runs: a name → a solution's summary.
    """
    of_errors, of_norms = figure.subplots(2, 1)
    for i, (name, solution) in enumerate(runs.items()):
        levels = sorted(solution["noise"], key=lambda one: one["probability"])
        p, colour = [one["probability"] for one in levels], f"C{i}"
        for key, line, words in (
            ("test_error", "o-", "true test labels"),
            ("test_error_corrupted", "s--", "corrupted test labels"),
            ("train_error", "x:", "training labels"),
        ):
            errors = [100 * one[key] for one in levels]
            # One legend for the lines and one for the colours: six entries would hide half of the curves.
            of_errors.plot(p, errors, line, color=colour, label="" if i else words)
        of_norms.plot(p, [one["norm_one_hot"] for one in levels], "o-", color=colour, label=name)
    of_errors.set(xlabel="p", ylabel="error (%)", ylim=(-2, 100))
    of_norms.set(xlabel="p", ylabel="norm, one-hot targets", ylim=(0, None))
    of_errors.legend(loc="upper left")
    of_norms.legend()
    for axes in (of_errors, of_norms):
        axes.grid(alpha=0.3)
