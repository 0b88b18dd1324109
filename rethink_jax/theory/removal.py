"""What memorized examples are worth: fresh networks without them, and without as many others of their classes.

Feldman and Zhang 2020 (arXiv 2008.03703). The networks are not those that chose the examples, so that the
choice favours neither.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from rethink_jax.distributed import processes
from rethink_jax.kernels.matrix import read_arrays
from rethink_jax.runs import files
from rethink_jax.runs.own_files import REMOVAL
from rethink_jax.sweeps.estimates import estimate
from rethink_jax.theory import subsets

ALL, MEMORIZED, OTHERS = "all", "without_memorized", "without_others"

# Trains a network on each subset, bool [k, n], and returns whether it is right on test points, bool [k, m].
Train = Callable[[str, np.ndarray], np.ndarray]


def others_of_class(
    draws: np.ndarray, labels: np.ndarray, removed: np.ndarray
) -> np.ndarray | None:
    """Returns for each network as many other examples of each class as are removed of it.

    Args:
      draws: uint32 [k, n], as `subsets.draws` returns them; the lowest decide, of equal ones the first.
      labels: integers [n].
      removed: bool [n].

    Returns:
      bool [k, n]; None where a class has too few others.

    Example:
      >>> draws = np.array([[3, 1, 2, 9, 4]])
      >>> removed = np.array([False, True, False, False, True])
      >>> others_of_class(draws, np.array([0, 0, 0, 1, 1]), removed).astype(int)
      array([[0, 0, 1, 1, 0]])
    """
    taken = np.zeros(draws.shape, bool)
    for own in np.unique(labels[removed]):
        (candidates,) = np.nonzero((labels == own) & ~removed)
        count = int(np.sum((labels == own) & removed))
        if count > len(candidates):
            return None
        lowest = np.argsort(draws[:, candidates], axis=1, kind="stable")[:, :count]
        np.put_along_axis(taken, candidates[lowest], True, axis=1)
    return taken


def measure(
    path: epath.Path, draws: np.ndarray, labels: np.ndarray, pairs: subsets.Pairs, train: Train
) -> dict[str, Any]:
    """Trains the networks that the run's directory does not have yet, and returns what removal costs.

    Args:
      path: of the run, which keeps what is trained.
      draws: uint32 [k, n], of k networks.
      labels: integers [n], those trained on.
      pairs: their training examples are removed, their test points are the affected ones.
      train: is called with the name of the condition, too.

    Returns:
      What `effects` does and how many examples are removed, or why they cannot be.
    """
    removed = np.zeros(len(labels), bool)
    removed[pairs.train_ids] = True
    found: dict[str, Any] = {"networks": len(draws), "removed": int(removed.sum())}
    others = others_of_class(draws, labels, removed)
    if not removed.any() or others is None:
        reason = "a class has too few others" if removed.any() else "no pair is memorized"
        return {**found, "impossible": reason}
    without = {ALL: np.zeros_like(others), MEMORIZED: removed[None].repeat(len(draws), 0)}
    correct = read_arrays(path / REMOVAL) if (path / REMOVAL).exists() else {}
    for condition, left_out in {**without, OTHERS: others}.items():
        if condition not in correct:
            correct[condition] = train(condition, ~left_out)
            save = functools.partial(_save, correct)
            processes.on_primary(functools.partial(files.write_whole, path / REMOVAL, save))
    return {**found, **effects(correct, np.unique(pairs.test_ids))}


def _save(correct: dict[str, np.ndarray], file: epath.Path) -> None:
    with file.open("wb") as stream:
        np.savez_compressed(stream, **correct)  # type: ignore[arg-type]


def effects(correct: dict[str, np.ndarray], affected: np.ndarray) -> dict[str, Any]:
    """Returns accuracies and what removal takes from them, on the affected test points and on all.

    Args:
      correct: for each condition whether networks are right on test points, bool [k, m]; rows of one place
        are of networks with the same seed.
      affected: ids of test points.

    Returns:
      Estimates over the networks, as `estimates.estimate` makes them: `accuracy`, and in `cost` the differences
      of networks with the same seed.

    Example:
      >>> correct = {ALL: np.ones((2, 4), bool), MEMORIZED: np.eye(2, 4, dtype=bool)}
      >>> correct[OTHERS] = correct[ALL]
      >>> cost = effects(correct, affected=np.array([0, 1]))["cost"]
      >>> cost[MEMORIZED]["affected"]["mean"], cost[OTHERS]["affected"]["mean"]
      (0.5, 0.0)
    """
    shares = {
        condition: {"affected": own[:, affected].mean(axis=1), "test": own.mean(axis=1)}
        for condition, own in correct.items()
    }
    accuracy = {
        condition: {where: _estimate(values) for where, values in own.items()}
        for condition, own in shares.items()
    }
    cost = {
        condition: {where: _estimate(shares[ALL][where] - values) for where, values in own.items()}
        for condition, own in shares.items()
        if condition != ALL
    }
    return {"affected": len(affected), "accuracy": accuracy, "cost": cost}


def _estimate(values: np.ndarray) -> dict[str, Any]:
    return estimate(values.tolist())._asdict()


def rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the headline numbers in words, for `memorization.table`."""
    title = f"removal of {found['removed']:,} examples of memorized pairs"
    if "impossible" in found:
        return [(title, f"not possible: {found['impossible']}")]

    def points(condition: str, where: str) -> str:
        own = found["cost"][condition][where]
        interval = (
            "" if own["low"] is None else f" [{100 * own['low']:.2f}, {100 * own['high']:.2f}]"
        )
        return f"{100 * own['mean']:.2f}{interval} points"

    return [
        (
            f"{title}: cost on {found['affected']:,} affected test points",
            points(MEMORIZED, "affected"),
        ),
        ("on the test set", points(MEMORIZED, "test")),
        ("of as many others of the same classes: on the affected ones", points(OTHERS, "affected")),
        ("on the test set", points(OTHERS, "test")),
    ]
