"""The bounds' arithmetic, beside SciPy's and brute force."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm

from rethink_jax.theory import pac_bayes_bounds as bounds

SHARES = st.floats(0, 1)
LIMITS = st.floats(1e-9, 40)


def kl_by_the_formula(q, p):
    parts = [(q, p), (1 - q, 1 - p)]
    return sum(a * math.log(a / b) for a, b in parts if a > 0)


@hypothesis.given(SHARES, st.floats(1e-9, 1 - 1e-9))
def test_kl_of_coins(q, p):
    assert bounds.binary_kl(q, p) == pytest.approx(kl_by_the_formula(q, p), rel=1e-9, abs=1e-14)


@hypothesis.given(SHARES, LIMITS)
def test_the_inverse_is_the_first_float_above(q, limit):
    p = bounds.invert_kl(q, limit)
    assert q <= p <= 1
    assert p == 1 or bounds.binary_kl(q, p) > limit
    below = math.nextafter(p, 0)
    assert below < q or bounds.binary_kl(q, below) <= limit


@hypothesis.given(st.floats(0.001, 0.9), st.floats(1e-4, 5))
def test_the_inverse_by_brent(q, limit):
    p = bounds.invert_kl(q, limit)
    if kl_by_the_formula(q, 1 - 1e-12) > limit:
        root = brentq(lambda p: kl_by_the_formula(q, p) - limit, q, 1 - 1e-12, xtol=1e-14)
        assert p == pytest.approx(root, abs=1e-11)
    else:
        assert p > 1 - 1e-12


@pytest.mark.parametrize(("q", "limit"), [(0.0, 0.3), (0.028, 0.0937), (0.4, 0.05), (0.99, 2.0)])
def test_the_inverse_by_search(q, limit):
    grid = np.linspace(q, 1, 1_000_001)[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = q * np.log(q / grid) if q else 0.0
        values = values + (1 - q) * np.log((1 - q) / (1 - grid))
    assert bounds.invert_kl(q, limit) == pytest.approx(grid[values <= limit].max(), abs=1.1e-6)


@hypothesis.given(LIMITS)
def test_the_inverse_at_the_ends(limit):
    assert bounds.invert_kl(0.0, limit) == pytest.approx(-math.expm1(-limit), rel=1e-6)
    assert bounds.invert_kl(1.0, limit) == 1
    assert bounds.invert_kl(0.5, 0.0) == pytest.approx(0.5, abs=1e-7)


@hypothesis.given(SHARES, SHARES, LIMITS, LIMITS)
def test_the_inverse_is_monotone_and_below_pinskers(first, second, low, high):
    q, other = sorted((first, second))
    limit, larger = sorted((low, high))
    p = bounds.invert_kl(q, limit)
    assert p <= bounds.invert_kl(other, limit)
    assert p <= bounds.invert_kl(q, larger)
    assert p <= q + math.sqrt(limit / 2) + 1e-8


@pytest.mark.parametrize(
    ("q", "limit"), [(-0.1, 1.0), (1.1, 1.0), (0.5, -1.0), (math.nan, 1.0), (0.5, math.nan)]
)
def test_what_cannot_be_inverted(q, limit):
    with pytest.raises(ValueError, match="kl cannot be inverted at q = "):
        bounds.invert_kl(q, limit)


@pytest.mark.parametrize("draws", [1, 20, 300])
@pytest.mark.parametrize("delta", [0.01, 0.2])
def test_the_bound_of_a_mean_covers(draws, delta):
    """For coins, exactly: too low with at most the probability δ/2, never below Clopper and Pearson's."""
    counts = np.arange(draws + 1)
    found = np.array([bounds.bound_mean(k / draws, draws, delta) for k in counts])
    exact = beta.ppf(1 - delta / 2, counts + 1, draws - counts)[:-1]
    assert (found[:-1] >= exact - 1e-12).all()  # equal for no wrong draw
    assert found[-1] == 1
    for mean in (0.01, 0.1, 0.5, 0.9):
        assert binom.pmf(counts, draws, mean)[found < mean].sum() <= delta / 2


def gaussians(d, seed=0):
    rng = np.random.default_rng(seed)
    means, prior_means = rng.standard_normal((2, d))
    return means, rng.standard_normal(d) - 1, prior_means


def test_gaussian_kl_by_quadrature():
    means, log_variances, prior_means = gaussians(3)
    expected = 0.0
    for mean, log_variance, prior_mean in zip(means, log_variances, prior_means, strict=True):
        own = norm(mean, math.exp(log_variance / 2))
        prior = norm(prior_mean, math.sqrt(0.7))
        ratio = lambda x, own=own, prior=prior: own.pdf(x) * (own.logpdf(x) - prior.logpdf(x))  # noqa: E731
        expected += quad(ratio, mean - 12, mean + 12, points=[mean])[0]
    found = bounds.gaussian_kl(means, log_variances, prior_means, 0.7)
    assert found == pytest.approx(expected, rel=1e-8)
    assert bounds.gaussian_kl(means, np.full(3, math.log(0.7)), means, 0.7) == pytest.approx(0)


def test_gaussian_kl_of_float32_is_summed_in_float64():
    means = np.full(10**6, 0.1, np.float32)
    found = bounds.gaussian_kl(means, np.zeros_like(means), np.zeros_like(means), 1.0)
    assert found == pytest.approx(0.5e6 * float(np.float32(0.1)) ** 2, rel=1e-9)


@pytest.mark.parametrize("d", [1, 300])
@pytest.mark.parametrize("delta", [0.025, 0.3])
def test_the_prior_by_search(d, delta):
    means, log_variances, prior_means = gaussians(d)
    means, prior_means, n = means / 30, prior_means / 30, 1000
    log_variances = log_variances - 6
    limits = {}
    for j in range(1, 3000):
        variance = 0.1 * math.exp(-j / 100)
        kl = bounds.gaussian_kl(means, log_variances, prior_means, variance)
        own_delta = 6 * delta / (math.pi * j) ** 2
        limits[j] = (kl + math.log(n / own_delta)) / (n - 1)
    best = min(limits, key=limits.get)
    prior = bounds.choose_prior(means, log_variances, prior_means, n, delta)
    assert prior.number == best
    assert 1 < best < 2999 or d == 1
    assert prior.variance == pytest.approx(0.1 * math.exp(-best / 100), rel=1e-12)
    assert prior.limit == pytest.approx(limits[best], rel=1e-9)
    expected = bounds.gaussian_kl(means, log_variances, prior_means, prior.variance)
    assert prior.kl == pytest.approx(expected, rel=1e-9)


def test_the_whole_bound():
    """Worked by hand: 0.03 of 150,000 draws, limit 0.09."""
    found = bounds.bound_error(0.03, 150_000, 0.09, 0.01)
    epsilon = math.log(200) / 150_000
    train = brentq(lambda p: kl_by_the_formula(0.03, p) - epsilon, 0.03, 0.9, xtol=1e-15)
    error = brentq(lambda p: kl_by_the_formula(train, p) - 0.09, train, 0.9, xtol=1e-15)
    expected = (train, train + math.sqrt(0.045), error)
    assert found == pytest.approx(expected, abs=1e-12)
    assert bounds.bound_error(0.4, 100, 3.0, 0.01)[1:] == pytest.approx(
        (bounds.bound_mean(0.4, 100, 0.01) + math.sqrt(1.5), 1), abs=3e-3
    )


@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_the_bound_holds_for_random_labels(spread):
    """A linear classifier that fits random labels: the error is ½, whatever the training error is.

    w ~ N(μ, s²I) is wrong on (x, y) with the probability Φ(−y μ·x / s‖x‖), which needs no draws.
    """
    rng, n, d, delta, repeats = np.random.default_rng(3), 60, 80, 0.05, 300
    too_low, train_errors = 0, []
    for _ in range(repeats):
        x, y = rng.standard_normal((n, d)), rng.choice([-1.0, 1.0], n)
        prior_means = 0.1 * rng.standard_normal(d)
        step = np.linalg.lstsq(x, y - x @ prior_means, rcond=None)[0]
        means = prior_means + rng.choice([0.2, 1.0]) * step
        wrong = norm.cdf(-y * (x @ means) / (spread * np.linalg.norm(x, axis=1)))
        logs = np.full(d, 2 * math.log(spread))
        prior = bounds.choose_prior(means, logs, prior_means, n, delta)
        train_errors.append(wrong.mean())
        too_low += bounds.invert_kl(wrong.mean(), prior.limit) < 0.5
    assert too_low <= delta * repeats
    assert np.mean(train_errors) < 0.45
    # Without KL(Q‖P) the bound would be wrong.
    limit = math.log(n * math.pi**2 / (6 * delta)) / (n - 1)
    assert spread > 0.1 or np.mean([bounds.invert_kl(e, limit) < 0.5 for e in train_errors]) > 0.3
