"""Mean, standard deviation and interval over seeds, and rank correlation."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean over seeds; what one seed cannot tell is None.

    Attributes:
      mean: over the seeds.
      deviation: the standard deviation of the sample, with n − 1.
      low: lower end of Student's 95 % interval of the mean.
      high: its upper end.
      seeds: how many there are.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    seeds: int


def estimate(values: list[float]) -> Estimate:
    """Returns the estimate from one value or more."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, None, None, None, n)
    deviation = float(np.std(values, ddof=1))
    half = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(n)
    return Estimate(mean, deviation, mean - half, mean + half, n)


def rank_correlation(x: list[float], y: list[float]) -> float | None:
    """Returns Spearman's correlation, None where it is not defined; infinite values come last, tied."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    from scipy import stats  # takes as long to import as JAX

    # Sums of ranks are exact, so that equal orders have 1; `stats.spearmanr` misses it by rounding.
    left, right = (ranks - ranks.mean() for ranks in map(stats.rankdata, (x, y)))
    return float(left @ right) / math.sqrt(float(left @ left) * float(right @ right))
