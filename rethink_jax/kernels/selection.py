"""Chooses features, γ and ridge by the error on a held-out part of the training set."""

import itertools
import logging
from typing import Any

import numpy as np

from rethink_jax import data
from rethink_jax.distributed import processes
from rethink_jax.errors import RunFailed
from rethink_jax.kernels import solve
from rethink_jax.kernels.features import Features, candidates as feature_candidates
from rethink_jax.kernels.kernel import of_points
from rethink_jax.kernels.session import (
    LabelledProducts,
    Session,
    compute_products,
    solver_settings,
)
from rethink_jax.kernels.summary import error_rate, has_same_settings
from rethink_jax.runs import files
from rethink_jax.runs.own_files import SELECTION

logger = logging.getLogger(__name__)

Entry = dict[str, Any]


def select(session: Session) -> tuple[Features, list[Entry]]:
    """Returns features, and one or two choices of γ and ridge: without a ridge, with one, or both.

    A config that leaves no choice is taken as it is.

    Raises:
      RunFailed: no candidate could be solved.
    """
    kernel = session.config.kernel
    known = list(feature_candidates(session.config, session.dataset.train.images))
    candidates = [
        own | {"gamma": gamma, "ridge": ridge}
        for own, _ in known
        for gamma, ridge in itertools.product(kernel.gammas, kernel.ridges)
    ]
    if len(candidates) == 1:
        return known[0][1], candidates
    per_features = len(candidates) // len(known)
    log = _try_all(session, [features for _, features in known], candidates)
    if all(entry["error"] is None for entry in log):
        file = session.path / SELECTION
        raise RunFailed(
            f"none of {len(log)} candidates could be solved; {file} says why{solve.ADVICE}, "
            "and they are tried again"
        )
    numbers = choose(log, per_features)
    return known[numbers[0] // per_features][1], [candidates[i] for i in numbers]


def _try_all(session: Session, known: list[Features], candidates: list[Entry]) -> list[Entry]:
    """Returns each candidate with its error on the held-out part; `selection.json` keeps them.

    What failed with other settings of the solver, or was not solved to the tolerance, is tried again.
    """
    file = session.path / SELECTION
    log = processes.on_primary(lambda: files.read_json(file)["log"] if file.exists() else [])
    examples, held_out = _split(session)
    prepared: LabelledProducts | None = None
    per_features = len(candidates) // len(known)
    prepared_number = -1
    for number, candidate in enumerate(candidates):
        if number < len(log) and not _is_to_be_tried(session, log[number]):
            continue
        session.show(f"candidate {number + 1} of {len(candidates)}", 0)
        if prepared is None or number // per_features != prepared_number:
            prepared_number = number // per_features
            features = known[prepared_number]
            prepared = compute_products(session, features, examples, held_out, "choosing")
        entry = candidate | _try(session, prepared, candidate)
        log[number : number + 1] = [entry]
        logger.info("%s", entry)
        processes.on_primary(lambda: files.write_json(file, {"log": log}))
        processes.on_primary(session.keep_seconds)
    return log


def _split(session: Session) -> tuple[data.Examples, data.Examples]:
    """Returns a random part of the training set to solve for, and another part to count errors on."""
    kernel, train = session.config.kernel, session.dataset.train
    order = np.random.default_rng(session.config.seed).permutation(len(train.labels))
    cut = max(1, round(kernel.validation_fraction * len(order)))
    examples, held_out = (
        data.Examples(train.images[ids], train.labels[ids])
        for ids in (order[cut : cut + kernel.selection_examples], order[:cut])
    )
    return examples, held_out


def _is_to_be_tried(session: Session, entry: Entry) -> bool:
    if entry["error"] is None:
        return not has_same_settings(entry, session.config)
    return bool(entry["residual"] > session.config.solver.tolerance)


def _try(session: Session, prepared: LabelledProducts, candidate: Entry) -> Entry:
    """Solves for a candidate and returns its error on the held-out part, None where it cannot be solved."""
    products, labels, held_out_labels = prepared
    sizes = {"examples": len(labels), "held_out": len(held_out_labels)}
    config, distance = session.config, products.mean_square_distance
    kernel = of_points(config, candidate["gamma"], distance, products.n)
    matrix = products.matrix(kernel, keep=True)
    try:
        iterate = solve.solve_to_tolerance(session, matrix, labels, candidate["ridge"], "choosing")
    except RunFailed as error:
        return sizes | {"error": None, "why": str(error), "solver": solver_settings(config)}
    return sizes | {
        "error": error_rate(matrix.predict(iterate.solution[:, :-1]), held_out_labels),
        "residual": iterate.residual,
        "iterations": iterate.iterations,
    }


def choose(log: list[Entry], per_features: int) -> list[int]:
    """Returns the positions in a log of the candidates to solve the whole training set with, one or two.

    The first is the one with the fewest errors among those without a ridge, the second among those with one.
    Where no candidate of a kind could be solved, the other stands alone. The second is chosen among the first
    one's features, because both solves then share the inner products.

    Args:
      log: of `selection.json`; `error` is None where the solve failed.
      per_features: how many entries in a row have the same features.

    Example:
      >>> log = [{"ridge": 0, "error": 0.2}, {"ridge": 1, "error": 0.1}]
      >>> choose(log, per_features=2)
      [0, 1]
    """
    solved = [number for number, entry in enumerate(log) if entry["error"] is not None]

    def best(numbers: list[int]) -> list[int]:
        return [min(numbers, key=lambda number: log[number]["error"])] if numbers else []

    without = best([number for number in solved if log[number]["ridge"] == 0])
    return without + best(
        [
            number
            for number in solved
            if log[number]["ridge"] > 0
            and (not without or number // per_features == without[0] // per_features)
        ]
    )
