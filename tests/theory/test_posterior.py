"""The network with random weights, beside weights drawn one by one and gradients by hand."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp

from rethink_jax.theory import pac_bayes_bounds as bounds, posterior as lib

D, M = 5, 7


def draw_posterior(seed=0, log_variance=-2.0):
    rng = np.random.default_rng(seed)

    def weights(scale, shift):
        shapes = ((D + 1, M), (M + 1,))
        parts = [scale * rng.standard_normal(shape) + shift for shape in shapes]
        return lib.Weights(*(jnp.asarray(part, jnp.float32) for part in parts))

    return lib.Posterior(weights(0.5, 0.0), weights(0.3, log_variance), jnp.float32(-3))


def draw_data(n, seed=1):
    rng = np.random.default_rng(seed)
    inputs = np.concatenate([rng.random((n, D)), np.ones((n, 1))], axis=1)
    labels = np.where(inputs[:, 0] + 0.2 * rng.standard_normal(n) > 0.5, 1, -1)
    return lib.Data(jnp.asarray(inputs, jnp.float32), jnp.asarray(labels, jnp.float32))


def network(hidden, output, inputs):
    """NumPy's outputs, of weights [..., d + 1, m] and [..., m + 1]."""
    units = np.maximum(inputs @ hidden, 0)
    return (units * output[..., None, :-1]).sum(axis=-1) + output[..., -1:]


def in_numpy(weights):
    return [np.asarray(part, np.float64) for part in weights]


def test_outputs():
    means, inputs = draw_posterior().means, draw_data(9).inputs
    expected = network(*in_numpy(means), np.asarray(inputs, np.float64))
    np.testing.assert_allclose(lib.outputs(means, inputs), expected, rtol=1e-5, atol=1e-6)


def test_drawn_outputs_are_those_of_drawn_weights():
    """Each output is distributed as with whole weights that are drawn; examples share nothing."""
    posterior, inputs, count = draw_posterior(), draw_data(3).inputs, 20_000
    draw = jax.jit(jax.vmap(lambda key: lib.draw_outputs(posterior, inputs, key)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), count)))
    rng = np.random.default_rng(4)
    drawn = [
        mean + np.exp(log_variance / 2) * rng.standard_normal((count, *mean.shape))
        for mean, log_variance in zip(
            in_numpy(posterior.means), in_numpy(posterior.log_variances), strict=True
        )
    ]
    expected = network(*drawn, np.asarray(inputs, np.float64))
    for one, other in zip(found.T, expected.T, strict=True):
        assert ks_2samp(one, other).pvalue > 1e-3
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(found.std(axis=0), expected.std(axis=0), rtol=0.03)
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.03
    assert np.abs(np.corrcoef(expected.T) - np.eye(3)).max() > 0.3


@hypothesis.given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20), st.data())
def test_the_surrogate_is_no_less_than_the_error(values, drawn):
    labels = drawn.draw(
        st.lists(st.sampled_from([-1, 1]), min_size=len(values), max_size=len(values))
    )
    values, labels = np.array(values, np.float32), np.array(labels, np.float32)
    found = float(lib.surrogate(jnp.asarray(values), jnp.asarray(labels)))
    expected = np.mean(np.logaddexp(0, -labels.astype(float) * values)) / np.log(2)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found >= np.mean(values * labels <= 0) - 1e-6


@pytest.mark.parametrize("number", [1, 250, 700])
def test_the_limit_is_the_certificates(number):
    posterior, prior_means = draw_posterior(), draw_posterior(5).means
    log_prior = jnp.asarray(np.log(0.1) - number / 100, jnp.float32)
    n, delta = 500, 0.025
    found = lib.limit_of(posterior._replace(log_prior=log_prior), prior_means, n, delta)
    flat = [
        np.concatenate([part.ravel() for part in in_numpy(weights)])
        for weights in (posterior.means, posterior.log_variances, prior_means)
    ]
    kl = bounds.gaussian_kl(*flat, 0.1 * np.exp(-number / 100))
    expected = (kl + np.log(n * (np.pi * number) ** 2 / (6 * delta))) / (n - 1)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert bounds.choose_prior(*flat, n, delta).limit <= expected


def test_initial_weights():
    weights = lib.initial_weights(3, 400, 50)
    hidden, output = map(np.asarray, weights)
    assert (hidden.shape, output.shape) == ((401, 50), (51,))
    assert not hidden[-1].any()
    assert output[-1] == 0
    for part in (hidden[:-1], output[:-1]):
        assert np.abs(part).max() <= 0.08
        # A normal's standard deviation, cut at two of them, is 0.8796 of its own.
        assert part.std() == pytest.approx(0.04 * 0.8796, rel=0.02 if part.size > 50 else 0.3)
    np.testing.assert_array_equal(lib.initial_weights(3, 400, 50).hidden, hidden)
    assert (np.asarray(lib.initial_weights(4, 400, 50).hidden) != hidden).any()


@pytest.mark.parametrize("rows", [3, 10, 50])
def test_wrong_answers_are_counted(rows, monkeypatch):
    monkeypatch.setattr(lib, "_ROWS", rows)
    means, data = draw_posterior().means, draw_data(50)
    expected = np.sum(np.asarray(lib.outputs(means, data.inputs)) * np.asarray(data.labels) <= 0)
    key = jax.random.key(0)
    assert 0 < lib.count_wrong(means, data, key) == expected < 50
    certain = lib.Posterior(means, jax.tree.map(lambda part: part * 0 - 80, means), jnp.float32(0))
    assert lib.count_wrong(certain, data, key) == expected
    broken = means._replace(output=means.output * jnp.float32(np.nan))
    assert lib.count_wrong(broken, data, key) == 50


def test_draws_of_an_example_are_independent():
    """Counts over many passes vary as sums of independent coins do."""
    posterior, data = draw_posterior(log_variance=-1.0), draw_data(40)
    draw = jax.jit(jax.vmap(lambda key: lib.draw_outputs(posterior, data.inputs, key)))
    values = draw(jax.random.split(jax.random.key(2), 20_000))
    wrong = (np.asarray(values) * np.asarray(data.labels) <= 0).mean(axis=0)
    counts = [lib.count_wrong(posterior, data, lib.pass_key(0, 0, number)) for number in range(400)]
    variance = (wrong * (1 - wrong)).sum()
    assert np.mean(counts) == pytest.approx(wrong.sum(), abs=4 * np.sqrt(variance / 400))
    assert np.var(counts) == pytest.approx(variance, rel=0.3)


def gradient_by_hand(hidden, output, x, y):
    units = np.maximum(x @ hidden, 0)
    values = units @ output[:-1] + output[-1]
    slope = -y / (1 + np.exp(y * values)) / np.log(2) / len(y)
    back = slope[:, None] * output[None, :-1] * (units > 0)
    return x.T @ back, np.append(units.T @ slope, slope.sum())


def test_sgd_by_hand():
    posterior, data = draw_posterior(), draw_data(12)
    state = lib.initial_state(posterior.means, lib.falling_rate(0.1, 1, 1))
    ids = np.array([[0, 3, 5, 9], [1, 2, 4, 11], [6, 7, 8, 10]], np.int32)
    after = lib.sgd_epoch(state, data, ids, 0.2)
    hidden, output = in_numpy(posterior.means)
    momenta = [np.zeros_like(hidden), np.zeros_like(output)]
    inputs, labels = in_numpy(data)
    for batch in ids:
        gradient = gradient_by_hand(hidden, output, inputs[batch], labels[batch])
        momenta = [0.9 * m + g for m, g in zip(momenta, gradient, strict=True)]
        hidden, output = hidden - 0.2 * momenta[0], output - 0.2 * momenta[1]
    np.testing.assert_allclose(after.posterior.means.hidden, hidden, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.posterior.means.output, output, rtol=1e-4, atol=1e-6)
    assert int(after.step) == 1
    np.testing.assert_array_equal(after.posterior.log_variances.hidden, -6)


def test_one_step_of_adam_by_hand():
    """Of weights that do not vary the objective is the means'; Adam's first step is the gradient's sign."""
    means, data, rate, delta = draw_posterior().means, draw_data(12), 0.01, 0.025
    prior_means = draw_posterior(5).means
    state = lib.initial_state(means, lib.falling_rate(rate, 1, 1))
    still = jax.tree.map(lambda part: part * 0 - 60, means)
    state = state._replace(posterior=state.posterior._replace(log_variances=still))
    after, value = lib.bound_epoch(
        *(state, data, prior_means, np.arange(12, dtype=np.int32)[None], jax.random.key(0)),
        rate=lib.falling_rate(rate, 1, 1),
        delta=delta,
    )
    values = network(*in_numpy(means), np.asarray(data.inputs, np.float64))
    surrogate = np.mean(np.logaddexp(0, -np.asarray(data.labels) * values)) / np.log(2)
    variance, moved = (
        np.exp(-6),
        [a - b for a, b in zip(in_numpy(means), in_numpy(prior_means), strict=True)],
    )
    count = sum(part.size for part in moved)
    kl = 0.5 * (sum((part**2).sum() for part in moved) / variance + count * (-1 - 6 + 60))
    j = 100 * (np.log(0.1) + 6)
    limit = (kl + 2 * np.log(j) + np.log(np.pi**2 * 12 / (6 * delta))) / 11
    assert float(value) == pytest.approx(surrogate + np.sqrt(limit / 2), rel=1e-4)
    own = gradient_by_hand(*in_numpy(means), *in_numpy(data))
    for before, now, gradient, pull in zip(
        in_numpy(means), in_numpy(after.posterior.means), own, moved, strict=True
    ):
        whole = gradient + pull / variance / 11 / (4 * np.sqrt(limit / 2))
        np.testing.assert_allclose(now - before, -rate * np.sign(whole), rtol=1e-3)
    # A larger variance lowers KL(Q‖P), and a larger λ does here.
    assert (np.asarray(after.posterior.log_variances.hidden) > -60).all()
    assert float(after.posterior.log_prior) > -6


def test_the_bound_is_lowered():
    data, means = draw_data(400), lib.initial_weights(0, D, M)
    rate = lib.falling_rate(0.01, 20, 8)
    state = lib.initial_state(means, rate)
    state = state._replace(posterior=state.posterior._replace(log_prior=jnp.float32(-4)))
    found = []
    for epoch in range(20):
        ids = np.random.default_rng(epoch).permutation(400).astype(np.int32).reshape(8, 50)
        state, value = lib.bound_epoch(
            state, data, means, ids, lib.epoch_key(0, epoch), rate=rate, delta=0.025
        )
        found.append(float(value))
    assert found[-1] < found[0] - 0.05
    assert float(rate(160)) == pytest.approx(0.01 * 0.01)


def test_keys_are_apart():
    keys = [lib.epoch_key(0, 1), lib.epoch_key(0, 2), lib.epoch_key(1, 1)]
    keys += [lib.pass_key(0, *at) for at in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}) == 7
