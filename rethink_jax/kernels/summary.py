"""What a kernel run leaves of its solutions: errors and norms, and how they are shown."""

import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rethink_jax import config as config_lib
from rethink_jax.kernels.kernel import Kernel
from rethink_jax.kernels.matrix import KernelMatrix
from rethink_jax.kernels.session import LabelledProducts, solver_settings
from rethink_jax.kernels.solve import Iterate, targets_of
from rethink_jax.runs import display
from rethink_jax.runs.own_files import WITH_RIDGE

_WORDS = {
    "gamma": ("γ", "{:g}"),
    "ridge": ("ridge", "{:g}"),
    "test_error": ("test error", "{:.2%}"),
    "train_error": ("training error", "{:.2%}"),
    "norm_one_hot": ("norm, one-hot targets", "{:.1f}"),
    "norm_signs": ("norm, targets ±1", "{:.1f}"),
    "residual": ("residual", "{:.1e}"),
    "residual_float64": ("residual of some rows in float64", "{:.1e}"),
    "iterations": ("iterations", "{}"),
}


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns `summary.json` in words."""
    columns = solutions(summary)
    rows = [
        (text, *(form.format(solution[field]) for solution in columns))
        for field, (text, form) in _WORDS.items()
    ]
    if summary.get("scaled"):
        rows[0] = ("γ · mean squared distance", *rows[0][1:])
    for failed in summary.get("failed", ()):
        rows.append((f"ridge {failed['ridge']:g}", failed["why"], *[""] * (len(columns) - 1)))
    title = "{examples:,} examples, {dimension:,} dimensions, {dtype}, {seconds:.0f} s"
    return title.format(**summary), ("",) * len(rows[0]), rows


def solutions(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the solutions in `summary.json`: the first one, and that with a ridge where there is one."""
    return [summary, *([summary[WITH_RIDGE]] if WITH_RIDGE in summary else [])]


def is_done(summary: dict[str, Any], config: ConfigDict) -> bool:
    """Returns whether all solves reached the tolerance, or failed with the very settings of this config."""
    return all(
        solution["residual"] <= config.solver.tolerance for solution in solutions(summary)
    ) and all(has_same_settings(failed, config) for failed in summary.get("failed", ()))


def has_same_settings(entry: dict[str, Any], config: ConfigDict) -> bool:
    """Returns whether an entry of a summary or a selection was made with the settings of this config."""
    settings = {"solver": entry.get("solver")}
    return config_lib.with_todays_names(settings)["solver"] == solver_settings(config)


def measure(
    prepared: LabelledProducts,
    kernel: Kernel,
    matrix: KernelMatrix,
    iterate: Iterate,
    ridge: float,
    classes: int,
) -> dict[str, Any]:
    """Returns errors, norms and residuals of a solution of the whole training set.

    Args:
      prepared: the products and labels that were solved for.
      kernel: of the matrix.
      matrix: K, and its rows of the test points.
      iterate: with the solution for the targets of `targets_of`, float64 [n, classes + 1].
      ridge: added to K's diagonal.
      classes: how many there are.
    """
    products, labels, test_labels = prepared
    solution = iterate.solution
    fitted = matrix.multiply_precisely(solution)
    of_signs = 2 * solution[:, :-1] - solution[:, -1:], 2 * fitted[:, :-1] - fitted[:, -1:]
    norms = {
        f"norm_{name}": math.sqrt(max(float((alpha * image).sum()), 0))
        for name, (alpha, image) in (
            ("one_hot", (solution[:, :-1], fitted[:, :-1])),
            ("signs", of_signs),
        )
    }
    targets = targets_of(labels, classes)[products.checked]
    exact = products.exact_rows(kernel) @ solution + ridge * solution[products.checked]
    return {
        "test_error": error_rate(matrix.predict(solution[:, :-1]), test_labels),
        "train_error": error_rate(fitted[:, :-1], labels),
        **norms,
        "norm_of_coefficients": float(np.linalg.norm(solution[:, :-1])),
        "residual": iterate.residual,
        "residual_float64": float(np.linalg.norm(targets - exact) / np.linalg.norm(targets)),
        "iterations": iterate.iterations,
    }


def error_rate(values: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of examples whose greatest value [n, classes] is not the label's [n].

    An example with a value that is no number counts as wrong: NumPy's `argmax` would answer with its class.
    """
    is_number = ~np.isnan(values).any(axis=1)
    return float(np.mean(~is_number | (values.argmax(axis=1) != labels)))
