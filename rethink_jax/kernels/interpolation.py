"""Minimum-norm interpolation with a kernel, the paper's linear models (sections 4 and 5, table 3)."""

import contextlib
import functools
import json
import logging
import time
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.distributed import jax_settings, processes
from rethink_jax.errors import RunFailed, require
from rethink_jax.kernels import features as features_lib, noise, solve
from rethink_jax.kernels.features import Features
from rethink_jax.kernels.fields import FIELDS as FIELDS
from rethink_jax.kernels.kernel import of_points
from rethink_jax.kernels.selection import Entry, select
from rethink_jax.kernels.session import (
    LabelledProducts,
    Session,
    compute_products,
    seconds_before,
    solver_settings,
)
from rethink_jax.kernels.summary import is_done, solutions, table
from rethink_jax.pipeline import inputs
from rethink_jax.runs import display, files, opening
from rethink_jax.runs.own_files import PRODUCTS, SOLUTION, WITH_RIDGE
from rethink_jax.runs.resolve import resolve
from rethink_jax.runs.run_in_parts import Show, run_in_parts

logger = logging.getLogger(__name__)

# How many equations of a solution are checked in float64.
EXACT_ROWS = 200


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "kernel"
) -> dict[str, Any]:
    """Interpolates a training set with the least norm, and counts the errors on the test set, once.

    Args:
      config: as `rethink_jax.config.experiment("kernel", …)` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, and in several processes.
      RunFailed: the solve does not come down to its tolerance.
      Stopped: when a signal came; the iterate is saved.
    """
    config, _ = resolve(config)
    processes.check_one_process(config)
    summary = run_in_parts(
        *(config, workdir, name, functools.partial(_compute, config), "what is done is"),
        is_done=lambda summary: is_done(summary, config),
        older=lambda dataset: inputs.digest([dataset.train[:2]]),
    )
    display.print_rows(*table(summary))
    for solution in solutions(summary):
        if "noise" in solution:
            display.print_rows(*noise.table(solution))
    return summary


def _compute(
    config: ConfigDict, path: epath.Path, dataset: data.Dataset, show: Show
) -> dict[str, Any]:
    """Computes in a run directory what it does not have yet, and writes and returns the summary."""
    features_lib.check_images(config, dataset.info.image_shape)
    n = dataset.info.num_train
    require(n > 1, "data.examples", n, "2 or more for a kernel")
    started = time.monotonic()
    with contextlib.ExitStack() as stack:

        def begin() -> float:
            noted = {
                "num_train": dataset.info.num_train,
                "fingerprint": inputs.digest([dataset.train[:2]]),
                "data_fingerprint": dataset.fingerprint,
            }
            stack.enter_context(opening.open_described(path, config, **noted))
            return seconds_before(path)

        started -= processes.on_primary(begin)
        session = Session(config, path, dataset, show, started)
        stack.callback(session.keep_seconds)
        features, choices = select(session)
        summary = _solve_all(session, features, choices)

        def end() -> None:
            files.write_summary(path, summary)
            (path / PRODUCTS).unlink(missing_ok=True)

        processes.on_primary(end)
    return summary


def _solve_all(session: Session, features: Features, choices: list[Entry]) -> dict[str, Any]:
    """Solves the whole training set with each choice; one that cannot be solved is noted.

    Raises:
      RunFailed: none could be solved, or a file cannot be written.
    """
    solved: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for entry in choices:
        # Computed anew for each: there is no memory for a second one's products beside the matrix.
        keep = features.parts > 1 or len(choices) > 1
        prepared = _products_of_all(session, features, _features_of(entry), keep)
        prefix = f"{WITH_RIDGE}-" if entry is not choices[0] else ""
        try:
            solved.append(_solve(session, prepared, entry, session.path / f"{prefix}{SOLUTION}"))
        except RunFailed as error:
            is_of_files = isinstance(error.__cause__, OSError)
            if is_of_files or (not solved and entry is choices[-1]):
                raise
            logger.warning("no solution with ridge %g: %s", entry["ridge"], error)
            failed.append(entry | {"why": str(error), "solver": solver_settings(session.config)})
    summary = {
        "status": "finished",
        "examples": len(session.dataset.train.labels),
        "dimension": prepared.products.dimension,
        "dtype": str(prepared.products.dtype),
        "scaled": session.config.kernel.gamma_scale,
        **solved[0],
    }
    summary |= {WITH_RIDGE: solved[1]} if len(solved) > 1 else {}
    summary |= {"failed": failed} if failed else {}
    return summary | {"seconds": session.seconds()}


def _products_of_all(
    session: Session, features: Features, choice: str, keep: bool
) -> LabelledProducts:
    train, test = session.dataset.train, session.dataset.test
    file = session.path / PRODUCTS if keep else None
    rng, n = np.random.default_rng(session.config.seed), len(train.labels)
    checked = rng.choice(n, min(EXACT_ROWS, n), replace=False)
    return compute_products(session, features, train, test, "all examples", checked, file, choice)


def _solve(
    session: Session, prepared: LabelledProducts, entry: Entry, file: epath.Path
) -> dict[str, Any]:
    """Solves the whole training set and measures the solution; the products' memory goes to the matrix."""
    products, ridge = prepared.products, entry["ridge"]
    distance = products.mean_square_distance
    kernel = of_points(session.config, entry["gamma"], distance, products.n)
    matrix = products.matrix(kernel)
    info = session.dataset.info
    levels = noise.levels(session.config, prepared, info)
    labels = np.stack([level.train for level in levels], axis=1)
    iterate = solve.solve_to_tolerance(
        session, matrix, labels, ridge, "all examples", file, _text(entry)
    )
    measured = (levels, prepared, kernel, matrix, iterate, ridge, info.num_classes)
    return {**entry, **noise.summarize(*measured)}


def _features_of(entry: Entry) -> str:
    own = {name: value for name, value in entry.items() if name not in ("gamma", "ridge")}
    return _text(own)


def _text(entry: Entry) -> str:
    return json.dumps(entry, sort_keys=True)
