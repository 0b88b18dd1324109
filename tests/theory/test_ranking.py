"""Rankings against loops with SciPy, on planted and on random measures."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st
from scipy import stats

from rethink_jax.theory import ranking

AXES = 4
GRID = np.array(list(itertools.product(range(3), repeat=AXES)))
SETTINGS, SEEDS = np.concatenate([GRID, GRID]), np.repeat([0, 1], len(GRID))
GAP = np.random.default_rng(0).normal(size=len(SETTINGS))


def loops(measure, gap, settings, seeds):
    """ψ of each axis, its groups one after another."""
    psi = []
    for axis in range(settings.shape[1]):
        groups = {}
        for i, setting in enumerate(settings.tolist()):
            held = (*setting[:axis], *setting[axis + 1 :], seeds[i])
            groups.setdefault(held, []).append(i)
        taus = [
            stats.kendalltau(measure[members], gap[members]).statistic
            for members in groups.values()
            if len(members) > 1
        ]
        psi.append(np.mean(taus) if taus else None)
    return psi


def loops_of_errors(measure, gap, settings, seeds):
    """The sign error of each axis and lower value."""
    errors = {}
    for i, j in itertools.permutations(range(len(measure)), 2):
        step = settings[j] - settings[i]
        if seeds[i] == seeds[j] and sorted(step.tolist()) == [0] * (AXES - 1) + [1]:
            axis = int(step.argmax())
            is_wrong = (measure[i] < measure[j]) != (gap[i] < gap[j])
            errors.setdefault((axis, int(settings[i, axis])), []).append(is_wrong)
    return {key: np.mean(values) for key, values in errors.items()}


def random_part(seed):
    """Networks of the grid, some of them missing, and a measure."""
    rng = np.random.default_rng(seed)
    kept = rng.random(len(SETTINGS)) < rng.uniform(0.05, 1)
    kept[:2] = True
    return rng.normal(size=kept.sum()), GAP[kept], SETTINGS[kept], SEEDS[kept]


@pytest.mark.parametrize("seed", range(8))
def test_against_loops(seed):
    measure, gap, settings, seeds = random_part(seed)
    judged = ranking.judge(measure, gap, settings, seeds)
    assert judged["tau"].value == pytest.approx(stats.kendalltau(measure, gap).statistic)
    psi = loops(measure, gap, settings, seeds)
    assert [value.value for value in judged["psi"]] == pytest.approx(psi)
    assert judged["Psi"].value == pytest.approx(np.mean([x for x in psi if x is not None]))
    errors = {
        axis * 3 + low: x
        for (axis, low), x in loops_of_errors(measure, gap, settings, seeds).items()
    }
    assert judged["environments"] == pytest.approx(errors)
    assert judged["sign_error"].value == pytest.approx(np.mean([*errors.values()]))
    assert judged["worst_sign_error"].value == max(judged["environments"].values())


def test_a_perfect_measure_and_its_reverse():
    for measure, sign in ((np.exp(GAP), 1), (-(GAP**3), -1)):
        judged = ranking.judge(measure, GAP, SETTINGS, SEEDS)
        told = [judged["tau"], judged["Psi"], *judged["psi"]]
        assert np.array(told) == pytest.approx(sign)
        errors = [judged["sign_error"], judged["worst_sign_error"]]
        assert np.array(errors) == pytest.approx((1 - sign) / 2)
        assert len(judged["environments"]) == 8


def test_a_random_measure():
    """With 216 groups of three the standard deviation of Ψ is about 0.043."""
    draws = [np.random.default_rng(seed).normal(size=len(GAP)) for seed in range(1, 21)]
    judged = [ranking.judge(draw, GAP, SETTINGS, SEEDS) for draw in draws]
    values = np.array([one["Psi"].value for one in judged])
    assert abs(values[0]) <= 0.1
    assert abs(values.mean()) <= 0.04
    assert np.abs(values).max() > 0.02
    covered = [one["Psi"].low <= 0 <= one["Psi"].high for one in judged]
    assert np.mean(covered) >= 0.8
    assert np.mean([one["tau"].low <= 0 <= one["tau"].high for one in judged]) >= 0.8


def test_psi_asks_of_each_axis():
    """A measure of width alone follows it, and ties on the other axes."""
    gap = SETTINGS[:, 0] + 0.1 * np.random.default_rng(3).random(len(SETTINGS))
    judged = ranking.judge(SETTINGS[:, 0].astype(float), gap, SETTINGS, SEEDS)
    assert [value.value for value in judged["psi"]] == [1, 0, 0, 0]
    assert judged["Psi"].value == 0.25
    assert [judged["environments"][i] for i in (0, 1, 3, 10)] == [0, 0, 0.5, 0.5]


@hypothesis_settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 3), st.floats(-5, 5))
def test_monotone_maps_change_nothing(seed, scale, shift):
    measure, gap, settings, seeds = random_part(seed)
    mapped = np.exp(scale * np.round(measure, 6)) + shift
    judged = ranking.judge(np.round(measure, 6), gap, settings, seeds)
    assert ranking.judge(mapped, gap, settings, seeds) == judged


def test_ties_and_infinity():
    measure, gap = np.array([np.inf, np.inf, 1.0]), np.array([3.0, 2.0, 1.0])
    assert ranking.kendall_tau(measure, gap) == pytest.approx(2 / 3)
    assert ranking.kendall_tau(measure[:1], gap[:1]) is None


def test_what_no_pair_tells():
    settings = np.array([[0, 0], [2, 1], [1, 2]])
    judged = ranking.judge(np.arange(3.0), np.arange(3.0), settings, np.zeros(3, int))
    assert judged["tau"].value == 1
    assert judged["psi"] == [(None, None, None)] * 2
    assert judged["Psi"] == judged["sign_error"] == judged["worst_sign_error"] == (None,) * 3
    assert judged["environments"] == {}


def test_resamples_without_a_pair_are_left_out():
    """Two settings of one seed: half of the resamples have one of them twice."""
    settings = np.array([[0], [1]])
    judged = ranking.judge(np.array([1.0, 2.0]), np.array([1.0, 2.0]), settings, np.zeros(2, int))
    assert judged["tau"] == judged["Psi"] == (1, 1, 1)
    one = ranking.judge(np.ones(2), np.ones(2), np.zeros((2, 1), int), np.arange(2))
    assert one["tau"] == (0, None, None)


def test_intervals_narrow_with_groups():
    """A resample of twice the groups has an interval narrower by about √2."""
    rng = np.random.default_rng(5)
    measure = GAP + rng.normal(size=len(GAP))
    half = SEEDS == 0
    wide = ranking.judge(measure[half], GAP[half], SETTINGS[half], SEEDS[half])["Psi"]
    narrow = ranking.judge(measure, GAP, SETTINGS, SEEDS)["Psi"]
    assert 0.5 < (narrow.high - narrow.low) / (wide.high - wide.low) < 0.9
    assert narrow.low < narrow.value < narrow.high
