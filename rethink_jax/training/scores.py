"""Scores of examples from one run's records: which were learned late, forgotten, or fitted against their image.

`scores.csv` takes `Records.presented`, as the definitions that speak of presentations do; EL2N takes the
evaluations. Axis 0 is the record, axis 1 the example.
"""

from collections.abc import Callable

import numpy as np

from rethink_jax.runs.score_table import NEVER
from rethink_jax.training.records import OfExamples


def learned(values: OfExamples, labels: np.ndarray) -> np.ndarray:
    """Returns whether each example was answered with its label, bool [records, n]."""
    return values.answer == labels[np.newaxis]


def forgetting_events(right: np.ndarray) -> np.ndarray:
    """Returns how often each example was forgotten (Toneva et al. 2019, arXiv 1812.05159), int64 [n].

    It is forgotten where it was right and is wrong at the next presentation. One that was never right has
    `NEVER`, which the paper counts as infinitely often.

    Args:
      right: bool [records, n], as `learned` returns it.

    Example:
      >>> right = np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0]], bool)
      >>> forgetting_events(right).tolist()
      [1, 1, -1]
    """
    events = np.sum(right[:-1] & ~right[1:], axis=0)
    return np.where(right.any(axis=0), events, NEVER)


def first_learned(right: np.ndarray) -> np.ndarray:
    """Returns the first record in which each example is right, int64 [n]; `NEVER` where none is.

    Example:
      >>> first_learned(np.array([[0, 1, 0], [1, 0, 0]], bool)).tolist()
      [1, 0, -1]
    """
    return np.where(right.any(axis=0), right.argmax(axis=0), NEVER)


def last_learned(right: np.ndarray) -> np.ndarray:
    """Returns the record from which on each example is right, int64 [n]; `NEVER` where the last is wrong.

    Example:
      >>> last_learned(np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0]], bool)).tolist()
      [1, 2, -1]
    """
    wrong = ~right[::-1]
    since = np.where(wrong.any(axis=0), len(right) - wrong.argmax(axis=0), 0)
    return np.where(right[-1], since, NEVER)


def area_under_margin(margin: np.ndarray) -> np.ndarray:
    """Returns the mean margin over the records (AUM, Pleiss et al. 2020, arXiv 2001.10528), float64 [n].

    Args:
      margin: float [records, n], the label's logit less the greatest other one.
    """
    return margin.astype(np.float64).mean(axis=0)


def confidence(loss: np.ndarray) -> np.ndarray:
    """Returns the mean probability of the label (Swayamdipta et al. 2020, arXiv 2009.10795), float64 [n].

    Args:
      loss: float [records, n], cross-entropy; the probability is exp(−loss).
    """
    return np.exp(-loss.astype(np.float64)).mean(axis=0)


def variability(loss: np.ndarray) -> np.ndarray:
    """Returns the standard deviation over the records of the label's probability; as `confidence`."""
    return np.exp(-loss.astype(np.float64)).std(axis=0)


def cumulative_loss(loss: np.ndarray) -> np.ndarray:
    """Returns the sum of the losses over the records (Ravikumar et al. 2025), float64 [n]."""
    return loss.astype(np.float64).sum(axis=0)


def el2n(error_norm: np.ndarray) -> np.ndarray:
    """Returns the mean norm of the error over the first tenth of the records (EL2N), float64 [n].

    Paul et al. 2021 (arXiv 2107.07075) take one early epoch and the mean over several runs; the tenth is ours.

    Args:
      error_norm: float [records, n], as `Records` has it.

    Example:
      >>> el2n(np.array([[0.5, 1.25], [0.0, 0.0]])).tolist()
      [0.5, 1.25]
    """
    early = max(1, len(error_norm) // 10)
    return error_norm[:early].astype(np.float64).mean(axis=0)


SCORES: dict[str, Callable[[np.ndarray, OfExamples], np.ndarray]] = {
    "forgetting_events": lambda right, values: forgetting_events(right),
    "first_learned": lambda right, values: first_learned(right),
    "last_learned": lambda right, values: last_learned(right),
    "share_right": lambda right, values: right.mean(axis=0),
    "area_under_margin": lambda right, values: area_under_margin(values.margin),
    "confidence": lambda right, values: confidence(values.loss),
    "variability": lambda right, values: variability(values.loss),
    "cumulative_loss": lambda right, values: cumulative_loss(values.loss),
}


def all_scores(
    values: OfExamples, labels: np.ndarray, error_norm: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Returns every score of `SCORES` and, where there are norms of errors, `el2n`, [n] each.

    Args:
      values: [records, n], `Records.presented` or `.train`.
      labels: int [n], those trained on.
      error_norm: float [records, n], `Records.error_norm`.

    Example:
      >>> values = OfExamples(
      ...     answer=np.array([[0, 1], [0, 0]]),
      ...     margin=np.array([[1.0, -2.0], [3.0, 2.0]]),
      ...     loss=np.zeros((2, 2)),
      ... )
      >>> scores = all_scores(values, labels=np.array([0, 0]))
      >>> scores["area_under_margin"].tolist(), scores["share_right"].tolist()
      ([2.0, 0.0], [1.0, 0.5])
    """
    right = learned(values, labels)
    found = {name: score(right, values) for name, score in SCORES.items()}
    return found if error_norm is None else {**found, "el2n": el2n(error_norm)}
