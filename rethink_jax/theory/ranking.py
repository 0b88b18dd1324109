"""How well a measure of complexity ranks networks by their generalization gap.

Kendall's τ over all pairs, its granulated form within groups where one hyper-parameter varies (Jiang et al.
2020, arXiv 1912.02178), and the sign error of each environment (Dziugaite et al. 2020, arXiv 2010.11924). A tie
in the measure or in the gap counts as half right everywhere: a sign of 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE, _RESAMPLES = 0.95, 1000


class Pairs(NamedTuple):
    """All pairs of networks of one seed whose settings differ on one axis; int [pairs] each.

    Attributes:
      first, second: the networks' positions.
      axis: on which they differ.
      group: of the networks that differ from one another on this axis alone; each group has one axis.
      environment: the axis and the two neighbouring values; −1 where the values are no neighbours.
    """

    first: np.ndarray
    second: np.ndarray
    axis: np.ndarray
    group: np.ndarray
    environment: np.ndarray


class Value(NamedTuple):
    """A statistic with the ends of its 95 % bootstrap interval; None where no pair tells it."""

    value: float | None
    low: float | None
    high: float | None


def agreements(measure: np.ndarray, gap: np.ndarray, first: Any, second: Any) -> np.ndarray:
    """Returns 1 where a pair has one order by both, −1 where by opposite ones, 0 for a tie: int [pairs]."""

    def sign(x: np.ndarray) -> np.ndarray:  # no difference, because ∞ − ∞ is none
        return (x[first] > x[second]).astype(int) - (x[first] < x[second])

    return sign(measure) * sign(gap)


def kendall_tau(measure: np.ndarray, gap: np.ndarray) -> float | None:
    """Returns the mean of `agreements` over all pairs, as Jiang et al. define τ; None where there is no pair.

    Without ties it is `scipy.stats.kendalltau`. With ties it is Kendall's τ-a; scipy's τ-b is farther from 0.

    Args:
      measure: float [networks].
      gap: of their generalization, float [networks].

    Example:
      >>> kendall_tau(np.array([1.0, 2.0, 4.0, 3.0]), np.array([0.1, 0.2, 0.3, 0.4]))
      0.6666666666666666
    """
    first, second = np.triu_indices(len(measure), 1)
    return float(agreements(measure, gap, first, second).mean()) if len(first) else None


def find_pairs(settings: np.ndarray, seeds: np.ndarray) -> Pairs:
    """Returns the pairs that granulated τ and sign errors are taken over.

    Args:
      settings: int [networks, axes], the position of each network's value on each axis.
      seeds: int [networks]; networks of different seeds are in different groups.

    Example:
      >>> pairs = find_pairs(np.array([[0, 0], [1, 0], [1, 1]]), np.zeros(3, int))
      >>> pairs.first.tolist(), pairs.second.tolist(), pairs.axis.tolist()
      ([0, 1], [1, 2], [0, 1])
    """
    first, second = np.triu_indices(len(settings), 1)
    differs = settings[first] != settings[second]
    is_pair = (differs.sum(axis=1) == 1) & (seeds[first] == seeds[second])
    first, second = first[is_pair], second[is_pair]
    axis = differs[is_pair].argmax(axis=1)
    held = np.column_stack([settings[first], seeds[first], axis])
    held[np.arange(len(first)), axis] = -1
    _, group = np.unique(held, axis=0, return_inverse=True)
    values = np.sort([settings[first, axis], settings[second, axis]], axis=0)
    numbers = axis * (settings.max(initial=0) + 1) + values[0]
    environment = np.where(values[1] - values[0] == 1, numbers, -1)
    return Pairs(first, second, axis, group.reshape(-1), environment)


def granulated(agreement: np.ndarray, pairs: Pairs, axes: int) -> list[float | None]:
    """Returns ψ of each axis: τ within each of its groups, and the mean over these (Jiang et al.).

    A group without some of its networks counts with the others, and one with fewer than two not at all.

    Args:
      agreement: of each pair, as `agreements` returns it.
      pairs: as `find_pairs` returns them.
      axes: how many there are.
    """
    return [_mean(list(_of_groups(agreement, pairs, axis))) for axis in range(axes)]


def _of_groups(agreement: np.ndarray, pairs: Pairs, axis: int) -> np.ndarray:
    """Returns τ within each group of an axis, float [groups]."""
    is_of_axis = pairs.axis == axis
    _, group = np.unique(pairs.group[is_of_axis], return_inverse=True)
    counts = np.bincount(group)
    return np.bincount(group, weights=agreement[is_of_axis].astype(np.float64)) / counts


def sign_errors(agreement: np.ndarray, pairs: Pairs) -> dict[int, float]:
    """Returns the sign error of each environment by its number: the mean of (1 − agreement) / 2 over pairs.

    An environment is an axis with two neighbouring values. Pairs count alike; Dziugaite et al. weigh them by
    how sure the sign of the gap's difference is.
    """
    found = np.unique(pairs.environment[pairs.environment >= 0]).tolist()
    errors = (1 - agreement) / 2
    return {number: float(errors[pairs.environment == number].mean()) for number in found}


def judge(
    measure: np.ndarray, gap: np.ndarray, settings: np.ndarray, seeds: np.ndarray, key: int = 0
) -> dict[str, Any]:
    """Returns how a measure ranks networks, with 95 % bootstrap intervals (percentiles of 1,000 resamples).

    τ resamples settings, each with all its seeds. ψ, Ψ and sign errors resample the groups of each axis; these
    share networks with the groups of other axes, so that the intervals of Ψ are approximate.

    Args:
      measure, gap: float [networks].
      settings: int [networks, axes].
      seeds: int [networks].
      key: of the resampling.

    Returns:
      `tau` and `Psi`, a `Value` each; `psi`, one for each axis; `sign_error`, the mean over environments, and
      `worst_sign_error`, the largest, a `Value` each; `environments`, their numbers with their errors.
    """
    pairs, axes = find_pairs(settings, seeds), settings.shape[1]
    agreement = agreements(measure, gap, pairs.first, pairs.second)
    generator = np.random.default_rng(key)
    psi, errors = granulated(agreement, pairs, axes), sign_errors(agreement, pairs)
    samples = [
        _resample(_of_groups(agreement, pairs, axis), generator)
        if psi[axis] is not None
        else np.full(_RESAMPLES, np.nan)
        for axis in range(axes)
    ]
    told = [sample for sample in samples if not np.isnan(sample).any()]
    resampled = _resample_errors(agreement, pairs, generator)
    values = list(errors.values())
    return {
        "tau": _interval(
            kendall_tau(measure, gap), _resample_tau(measure, gap, settings, generator)
        ),
        "psi": [_interval(value, sample) for value, sample in zip(psi, samples, strict=True)],
        "Psi": _interval(_mean([x for x in psi if x is not None]), _across(told, np.mean)),
        "sign_error": _interval(_mean(values), _across(resampled, np.mean)),
        "worst_sign_error": _interval(max(values, default=None), _across(resampled, np.max)),
        "environments": errors,
    }


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _across(samples: list[np.ndarray], function: Callable[..., Any]) -> np.ndarray:
    """Returns a function of the samples, each [resamples], in every resample."""
    return function(samples, axis=0) if samples else np.full(_RESAMPLES, np.nan)


def _interval(value: float | None, sample: np.ndarray) -> Value:
    if value is None:
        return Value(None, None, None)
    sample = sample[~np.isnan(sample)]  # NaN for resamples without a pair
    if not len(sample):
        return Value(value, None, None)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(sample, [tail, 100 - tail]).tolist()
    return Value(value, low, high)


def _resample(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the mean of each resample of values, float [resamples]."""
    return values[generator.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)


def _resample_errors(
    agreement: np.ndarray, pairs: Pairs, generator: np.random.Generator
) -> list[np.ndarray]:
    """Returns each environment's sign errors; a group has one pair in it."""
    numbers = np.unique(pairs.environment[pairs.environment >= 0])
    errors = (1 - agreement) / 2
    return [_resample(errors[pairs.environment == number], generator) for number in numbers]


def _resample_tau(
    measure: np.ndarray, gap: np.ndarray, settings: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Returns τ of resampled settings; a network makes no pair with its own copies."""
    _, setting = np.unique(settings, axis=0, return_inverse=True)
    setting, number = setting.reshape(-1), setting.max(initial=-1) + 1
    if number < 2:
        return np.full(_RESAMPLES, np.nan)
    everything = np.arange(len(measure))
    agreement = agreements(measure, gap, everything[:, None], everything[None]).astype(np.float64)
    times = generator.multinomial(number, np.full(number, 1 / number), size=_RESAMPLES)
    weights = times[:, setting].astype(np.float64)
    sums = np.einsum("ri,ij,rj->r", weights, agreement, weights, optimize=True)
    pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    return np.divide(sums, pairs, out=np.full(_RESAMPLES, np.nan), where=pairs > 0)
