"""The bound from random labels: its parts by other means, its laws, and how often it holds."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from rethink_jax.theory import ratt

DELTA = 0.1


def most_errors(a, n, others, delta):
    """The greatest c, by summing the probabilities of each number of errors on n of n + others examples."""
    candidates = []
    for c in range(others + 1):
        total, ways = a + c, math.comb(n + others, n)
        below = sum(
            math.comb(total, k) * math.comb(n + others - total, n - k) for k in range(min(a, n) + 1)
        )
        if below / ways > delta:
            candidates.append(c)
    return max(candidates)


def by_definition(a, n, b, m, delta, looks):
    """The bound with the binomial's tails and the hypergeometric's as sums of exact fractions."""
    tail = [sum(math.comb(m, k) for k in range(j + 1)) / 2**m for j in range(m + 1)]
    low = min(j for j in range(m + 1) if tail[j] >= delta / 6)
    own = delta / 3 / looks
    c = most_errors(a, n, m - low, own)
    share = (b - c) / (m - low) if b > c else (b - c) / low
    return 1 - share + math.sqrt(math.log(1 / own) / 2 / low)


@given(
    a=st.integers(0, 30),
    b=st.integers(0, 20),
    delta=st.sampled_from([0.3, 0.05]),
    looks=st.integers(1, 5),
)
def test_by_definition(a, b, delta, looks):
    found = ratt.certificate(np.array([a]), 30, np.array([b]), 20, delta, looks)
    assert found == pytest.approx([by_definition(a, 30, b, 20, delta, looks)], abs=1e-12)


def test_a_golden_value():
    """n = 50,000, m = 10,000, 3 % and 49 % wrong, δ = 0.05 over 60 evaluations, by SciPy's tails."""
    own, m = 0.05 / 180, 10_000
    assert stats.binom.cdf([4879, 4880], m, 0.5) == pytest.approx([0.0080, 0.0084], abs=1e-4)
    c = next(c for c in range(2000) if stats.hypergeom.cdf(1500, 55_120, 1501 + c, 50_000) <= own)
    bound = 1 - (4900 - c) / 5120 + math.sqrt(math.log(1 / own) / (2 * 4880))
    (found,) = ratt.certificate(np.array([1500]), 50_000, np.array([4900]), m, 0.05, 60)
    assert found == pytest.approx(bound, abs=1e-12) == pytest.approx(0.1110, abs=5e-5)


@given(a=st.integers(0, 399), b=st.integers(1, 200), looks=st.integers(1, 50))
def test_monotone(a, b, looks):
    def bound(a, b, delta=DELTA, looks=looks):
        return ratt.certificate(np.array([a]), 400, np.array([b]), 200, delta, looks)[0]

    assert bound(a, b) < bound(a, b - 1)
    assert bound(a, b) <= bound(a + 1, b)
    assert bound(a, b) < bound(a, b, looks=looks + 1)
    assert bound(a, b) < bound(a, b, delta=DELTA / 2)
    assert bound(a, b) > ratt.leading_term(a / 400, b / 200)


def test_fitted_random_labels_certify_nothing():
    assert ratt.certificate(np.array([0]), 10**5, np.array([0]), 10**5, DELTA)[0] > 1


def test_the_slack_vanishes():
    sizes = (10**2, 10**4, 10**6)
    bounds = [
        ratt.certificate(np.array([n // 50]), n, np.array([n * 48 // 100]), n, DELTA)[0]
        for n in sizes
    ]
    assert bounds[0] > bounds[1] > bounds[2] > 0.06
    assert bounds[2] < 0.066  # 2 % and 1 − 2 · 48 % wrong


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((1, 10, 1, 100, 0.0), "delta is 0.0"),
        ((1, 10, 1, 100, 0.05, 0), "looks 0"),
        ((11, 10, 1, 100, 0.05), r"errors must be in \[0, 10\]"),
        ((1, 10, 101, 100, 0.05), r"\[0, 100\]"),
        ((1, 10, 1, 3, 0.05), "randomly_labelled is 3"),
    ],
)
def test_what_is_refused(arguments, line):
    a, n, b, *rest = arguments
    with pytest.raises(ValueError, match=line):
        ratt.certificate(np.array([a]), n, np.array([b]), *rest)


def test_errors_on_further_examples_are_covered_but_not_by_much():
    """A binomial number of errors on 2,000 examples bounds that on 500 others in all but about δ."""
    rng = np.random.default_rng(0)
    a, c = rng.binomial(2000, 0.1, 4000), rng.binomial(500, 0.1, 4000)
    misses = np.mean(c > ratt._most_errors(a, 2000, 500, DELTA))
    assert 0.6 * DELTA < misses <= DELTA + 4 * math.sqrt(DELTA / 4000)


@pytest.mark.parametrize("error", [0.01, 0.2, 0.5])
@pytest.mark.parametrize("fitted", [0.0, 0.3])
def test_simulated_coverage(error, fitted):
    found = ratt.simulate(3000, 1000, DELTA, error, fitted, repeats=400)
    assert found.certificate >= 1 - DELTA
    if not fitted:  # what has no slack is no bound
        assert 0.4 < found.leading_term < 0.6
    assert found == ratt.simulate(3000, 1000, DELTA, error, fitted, repeats=400)


def test_a_simulation_can_fail(monkeypatch):
    """Without a part of the slack too few bounds hold."""
    monkeypatch.setattr(ratt, "hoeffding", lambda *_: -0.07)
    assert ratt.simulate(3000, 1000, DELTA, 0.2, repeats=400).certificate < 1 - DELTA


def test_coverage_of_minimizers_of_the_training_error():
    """200 classifiers on 40 points: the one with the fewest training errors, and a look at the ten best."""
    rng = np.random.default_rng(1)
    points, n, m, looks, repeats = 40, 120, 80, 10, 300
    classifiers = rng.integers(0, 2, (200, points))
    p_one = rng.choice([0.1, 0.9], points)  # of label 1 at each point: labels are noisy
    population = np.where(classifiers == 1, 1 - p_one, p_one).mean(axis=1)
    kept, gaps = 0, []
    for _ in range(repeats):
        x = rng.integers(0, points, n + m)
        y = (rng.random(n + m) < p_one[x]).astype(int)
        y[n:] = rng.integers(0, 2, m)
        wrong = classifiers[:, x] != y
        best = np.argsort(wrong.sum(axis=1), kind="stable")[:looks]
        a, b = wrong[best, :n].sum(axis=1), wrong[best, n:].sum(axis=1)
        bounds = ratt.certificate(a, n, b, m, DELTA, looks)
        kept += bool((bounds >= population[best]).all())
        gaps.append(population[best[0]] - ratt.leading_term(a[0] / n, b[0] / m))
    assert kept / repeats >= 1 - DELTA
    assert np.mean(np.array(gaps) > 0) > 0.02  # the leading term alone fails
