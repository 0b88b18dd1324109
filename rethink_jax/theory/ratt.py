"""A bound on the test error from training errors, where the labels of some training examples are random.

Garg, Balakrishnan, Kolter and Lipton 2021 (RATT, arXiv 2105.00303): a network that is trained on labelled and
on randomly labelled examples, and is right on the first and no better than chance on the others, predicts well.
The bound for two classes is theirs; its terms are derived here, exact where they can be.

S holds n examples of a distribution D over points of two classes, S̃ m more whose labels are fair coins. M are
the examples of S̃ whose coin is wrong, C the others. M is a sample of D', which is D with the other class as
label, so that a network's errors add up to E_D + E_D' = 1. Let δ be the probability that the bound may fail for
any of K networks, for example those after each of K epochs:

1. |M| is binomial (m, ½) and lies between its quantiles l and u = m − l at δ/6, but for a probability of δ/3.
   It does not depend on the network and is paid for once.
2. Training does not tell S from C. Given the network and all n + |C| of these examples, C is a random subset.
   Of T errors on them, hypergeometrically many (n + |C|, T, n) are on S. So T is at most the greatest number
   for which as few errors on S as were found, a, have a probability above δ/3K, and C has at most c = T − a
   errors. c is greatest for the largest C, of m − l.
3. **Assumption**: E_M ≤ E_D' + √(ln(3K/δ) / 2|M|), but for a probability of δ/3K. For a network that does not
   depend on M this is Hoeffding's inequality. It holds, too, for an f with the fewest training errors, A(f) +
   |M| E_M(f) with A those on S and C: let g minimize A(g) + |M| E_D'(g), which does not depend on M. Then
   E_M(f) − E_D'(f) ≤ E_M(g) − E_D'(g), by the sum of the two inequalities, and Hoeffding bounds that of g. For
   networks trained by gradient descent it is assumption 1 of Garg et al.: wrong labels that were trained on are
   fitted at least as well as new ones.

With b errors on S̃, M has at least b − c, and

    E_D = 1 − E_D' ≤ 1 − E_M + √(ln(3K/δ) / 2|M|) ≤ 1 − (b − c) / u + √(ln(3K/δ) / 2l)

(with l for u where b < c). All functions are pure.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats


def certificate(
    labelled_errors: np.ndarray,
    labelled: int,
    random_errors: np.ndarray,
    randomly_labelled: int,
    delta: float,
    looks: int = 1,
) -> np.ndarray:
    """Returns a bound on the test error in two classes, which the module derives.

    Args:
      labelled_errors: integers [k], the wrong answers on the labelled training examples.
      labelled: n, how many these are.
      random_errors: integers [k], the wrong answers on the randomly labelled ones, by their labels.
      randomly_labelled: m, how many these are.
      delta: the probability that any of the bounds fails, in (0, 1).
      looks: K, the networks among which one may choose by their bounds; at least k of one training run.

    Returns:
      float64 [k]; a bound of 1 or more says nothing.

    Raises:
      ValueError: for a number that is not allowed, and so few examples that no coin may be wrong.

    Example:
      >>> found = certificate(np.array([1500, 0]), 50_000, np.array([4900, 0]), 10_000, delta=0.05, looks=60)
      >>> found.round(3)
      array([0.111, 1.03 ])
    """
    n, m = labelled, randomly_labelled
    a, b = np.asarray(labelled_errors), np.asarray(random_errors)
    if not 0 < delta < 1 or looks < 1:
        raise ValueError(
            f"delta is {delta} and looks {looks}; they must be in (0, 1) and 1 or more"
        )
    if (a < 0).any() or (a > n).any() or (b < 0).any() or (b > m).any():
        raise ValueError(f"errors must be in [0, {n}] and [0, {m}]")
    most, least = (
        int(quantile(delta / 6, m, 0.5)) for quantile in (stats.binom.isf, stats.binom.ppf)
    )
    if least < 1:
        raise ValueError(f"randomly_labelled is {m}; it must be larger for a delta of {delta}")
    own = delta / (3 * looks)
    wrong = b - _most_errors(a, n, m - least, own)
    return 1 - np.where(wrong > 0, wrong / most, wrong / least) + hoeffding(own, least)


def hoeffding(delta: float, n: float) -> float:
    """Returns √(ln(1/δ) / 2n): a mean of n terms in [0, 1] is so far above its expectation at most with δ."""
    return math.sqrt(math.log(1 / delta) / (2 * n))


def _most_errors(found: np.ndarray, n: int, others: int, delta: float) -> np.ndarray:
    """Returns how many errors there may be on further examples, where so many were found on n.

    Of all subsets of n these n are a random one: Clopper and Pearson's interval for a finite population.
    """
    low, high = found, found + others
    while (low < high).any():
        middle = (low + high + 1) // 2
        is_likely = stats.hypergeom.cdf(found, n + others, middle, n) > delta
        low, high = np.where(is_likely, middle, low), np.where(is_likely, high, middle - 1)
    return low - found


def leading_term(labelled_error: np.ndarray, random_error: np.ndarray) -> np.ndarray:
    """Returns E_S + 1 − 2 E_S̃, which the bound tends to with many examples, and no bound by itself.

    Example:
      >>> float(leading_term(np.float64(0.25), np.float64(0.5)))
      0.25
    """
    return labelled_error + 1 - 2 * random_error


class Coverage(NamedTuple):
    """How often bounds hold in simulations.

    Attributes:
      error: the test error that was simulated.
      fitted: the share of the training examples that the network knows by heart.
      certificate: the share of simulations in which the certificate is no less than the error.
      leading_term: that of the leading term.
      mean: the mean certificate.
    """

    error: float
    fitted: float
    certificate: float
    leading_term: float
    mean: float


def simulate(
    labelled: int,
    randomly_labelled: int,
    delta: float,
    error: float,
    fitted: float = 0.0,
    repeats: int = 1000,
    seed: int = 0,
) -> Coverage:
    """Simulates training sets, and how often the bounds hold for one network at a time.

    The network knows a random share of all training examples by heart, and gives their labels. On others it is
    wrong with a fixed probability, its test error, as if it did not depend on the training set.

    Args:
      labelled, randomly_labelled, delta: as for `certificate`.
      error: its test error.
      fitted: that share.
      repeats: the training sets.
      seed: of all draws.

    Example:
      >>> found = simulate(500, 200, delta=0.05, error=0.1, repeats=100)
      >>> found.certificate, found.leading_term < 0.9
      (1.0, True)
    """
    rng, n, m = np.random.default_rng(seed), labelled, randomly_labelled
    by_itself = 1 - fitted
    wrong_coins = rng.binomial(m, 0.5, repeats)
    a = rng.binomial(n, by_itself * error, repeats)
    b = rng.binomial(wrong_coins, by_itself * (1 - error))
    b += rng.binomial(m - wrong_coins, by_itself * error)
    bounds = certificate(a, n, b, m, delta)
    leading = leading_term(a / n, b / m)
    of_bounds, of_leading = (float(np.mean(values >= error)) for values in (bounds, leading))
    return Coverage(error, fitted, of_bounds, of_leading, float(bounds.mean()))
