"""PAC-Bayes bounds on the error of a network with random weights, in float64 (Dziugaite and Roy 2017).

Weights are drawn from a Gaussian Q, the posterior, which may depend on the n training examples; the prior
P = N(w₀, λI) may not. With probability 1 − δ over the training examples, for all Q at once,

    kl(training error ‖ error) ≤ (KL(Q‖P) + log(n/δ)) / (n − 1)

(Langford and Seeger 2001; arXiv 1703.11008, theorem 2.2). λ is one of c·exp(−j/b), j = 1, 2, … (section 3), the
j-th with 6δ/(πj)² of δ, which adds up to δ.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr

# The grid of prior variances: those of the authors' code.
LARGEST_VARIANCE, PER_E_FOLD = 0.1, 100
_MOST = 10_000  # down to variances of e^−100, which no posterior in float32 comes near


def binary_kl(q: float, p: float) -> float:
    """Returns kl(q‖p) = q log(q/p) + (1 − q) log((1 − q)/(1 − p)), of two coins, in nats.

    Args:
      q: in [0, 1].
      p: in [0, 1].

    Example:
      >>> binary_kl(0.5, 0.5), round(binary_kl(0.0, 0.5), 4), binary_kl(0.5, 1.0)
      (0.0, 0.6931, inf)
    """
    return float(rel_entr(q, p) + rel_entr(1 - q, 1 - p))


def invert_kl(q: float, limit: float) -> float:
    """Returns the largest p with kl(q‖p) ≤ limit, by bisection from above.

    What is returned is never below that p: kl(q‖·) exceeds the limit there, as float64 computes it, or it is 1.

    Args:
      q: in [0, 1].
      limit: 0 or more.

    Raises:
      ValueError: an argument is out of its range, or not a number.

    Example:
      >>> round(invert_kl(0.0, np.log(2)), 6), round(invert_kl(0.03, 0.09), 4), invert_kl(0.5, 50.0)
      (0.5, 0.1607, 1.0)
    """
    if not (0 <= q <= 1 and limit >= 0):
        raise ValueError(f"kl cannot be inverted at q = {q}, limit = {limit}")
    low, high = float(q), 1.0
    while low < (middle := low + (high - low) / 2) < high:
        if binary_kl(q, middle) > limit:
            high = middle
        else:
            low = middle
    return high


def bound_mean(mean: float, draws: int, delta: float) -> float:
    """Returns a bound on the mean of independent draws in [0, 1], which holds with probability 1 − delta.

    Chernoff's bound in Hoeffding's form (1963, theorem 1): kl(observed ‖ expected) ≤ log(2/δ)/draws. The draws
    need not have one distribution; `expected` is the mean over them.

    Args:
      mean: what was observed, in [0, 1].
      draws: how many.
      delta: in (0, 1).

    Example:
      >>> round(bound_mean(0.03, 150_000, 0.01), 4)
      0.0315
    """
    return invert_kl(mean, np.log(2 / delta) / draws)


class Prior(NamedTuple):
    """The prior that suits a posterior best.

    Attributes:
      number: j.
      variance: λ = c·exp(−j/b).
      kl: KL(Q‖P), in nats.
      limit: of kl(training error ‖ error): KL(Q‖P) and what n, δ and j add, over n − 1.
    """

    number: int
    variance: float
    kl: float
    limit: float


def gaussian_kl(
    means: np.ndarray, log_variances: np.ndarray, prior_means: np.ndarray, prior_variance: float
) -> float:
    """Returns KL(N(μ, diag σ²) ‖ N(w₀, λI)) = ½ Σ ((σ² + (μ − w₀)²)/λ − 1 + log λ − log σ²), in nats.

    Args:
      means: μ, floating [d].
      log_variances: log σ², floating [d].
      prior_means: w₀, floating [d].
      prior_variance: λ, above 0.

    Example:
      >>> gaussian_kl(np.array([1.0]), np.array([0.0]), np.array([0.0]), 1.0)
      0.5
    """
    squares, logs, count = _moments(means, log_variances, prior_means)
    log_prior = float(np.log(prior_variance))
    return 0.5 * (squares / prior_variance - count + count * log_prior - logs)


def _moments(
    means: np.ndarray, log_variances: np.ndarray, prior_means: np.ndarray
) -> tuple[float, float, int]:
    """Returns what KL depends on: Σ σ² + (μ − w₀)², Σ log σ², and d."""
    means, log_variances, prior_means = (
        np.asarray(part, np.float64) for part in (means, log_variances, prior_means)
    )
    squares = np.sum(np.exp(log_variances) + np.square(means - prior_means))
    return float(squares), float(np.sum(log_variances)), means.size


def choose_prior(
    means: np.ndarray,
    log_variances: np.ndarray,
    prior_means: np.ndarray,
    examples: int,
    delta: float,
) -> Prior:
    """Returns the prior of the grid that gives the smallest limit.

    Args:
      means: of the posterior, floating [d].
      log_variances: of the posterior, floating [d].
      prior_means: w₀, floating [d].
      examples: n, 2 or more.
      delta: δ, the probability that the bound does not hold.
    """
    squares, logs, count = _moments(means, log_variances, prior_means)
    index = np.arange(1, _MOST + 1)
    variances = LARGEST_VARIANCE * np.exp(-index / PER_E_FOLD)
    kl = 0.5 * (squares / variances - count + count * np.log(variances) - logs)
    limits = (kl + np.log(examples * (np.pi * index) ** 2 / (6 * delta))) / (examples - 1)
    best = int(limits.argmin())
    return Prior(best + 1, *(float(part[best]) for part in (variances, kl, limits)))


class Bound(NamedTuple):
    """What is known of the error of a network with random weights.

    Attributes:
      train_error: the largest that the training error is likely to be, from draws of weights.
      pinsker: train_error + √(limit/2), a bound on the error that may exceed 1.
      inverted: the kl inverted, never above the other one or above 1.
    """

    train_error: float
    pinsker: float
    inverted: float


def bound_error(observed: float, draws: int, limit: float, sampling_delta: float) -> Bound:
    """Returns bounds on the error, which hold with probability 1 − δ − sampling_delta.

    Args:
      observed: the share of wrong answers on training examples, each with weights of its own.
      draws: how many there were.
      limit: as `Prior` has it for δ.
      sampling_delta: the probability that the draws mislead.

    Example:
      >>> [round(value, 4) for value in bound_error(0.03, 150_000, 0.09, 0.01)]
      [0.0315, 0.2436, 0.1634]
    """
    train_error = bound_mean(observed, draws, sampling_delta)
    pinsker = train_error + float(np.sqrt(limit / 2))
    return Bound(train_error, pinsker, invert_kl(train_error, limit))
