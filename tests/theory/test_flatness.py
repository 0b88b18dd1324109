"""Flatness of a linear classifier, where both sizes are known, and of an MLP."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy import optimize, stats

from rethink_jax.models.mlp import MLP
from rethink_jax.theory import flatness

N, D = 400, 6


class Linear(nn.Module):
    """Two logits."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, use_bias=False)(x)


@pytest.fixture(scope="module")
def linear():
    """Weights that are right on all examples, these, and their labels."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(D, 2)).astype(np.float32)
    images = rng.normal(size=(N, D)).astype(np.float32)
    return (
        {"Dense_0": {"kernel": kernel}},
        images,
        (images @ kernel).argmax(axis=1).astype(np.int32),
    )


def margins_of(linear):
    params, images, _ = linear
    logits = images.astype(float) @ params["Dense_0"]["kernel"]
    return np.abs(logits[:, 0] - logits[:, 1])


def sigma_of(linear, draws=2000):
    return float(flatness.noise(Linear(), *linear, jax.random.key(0), draws))


def test_noise_on_a_linear_classifier(linear):
    """Its logits' difference has a normal distribution with standard deviation √2 σ ‖x‖."""
    margins, norms = margins_of(linear), np.linalg.norm(linear[1].astype(float), axis=1)

    def excess(sigma):
        return stats.norm.cdf(-margins / (np.sqrt(2) * sigma * norms)).mean() - flatness.COST

    expected = optimize.brentq(excess, 1e-3, 1)
    assert 2**-10 < expected < 0.9
    assert sigma_of(linear) == pytest.approx(expected, rel=0.03)


def test_radius_of_a_linear_classifier(linear):
    """All signs of the gradient may agree in one example alone: the worst of a single one is known."""
    params, images, labels = (linear[0], linear[1][:1], linear[2][:1])
    expected = margins_of(linear)[0] / (2 * np.abs(images).sum())
    found = float(flatness.radius(Linear(), params, images, labels))
    assert found == pytest.approx(expected, rel=0.01)
    # Of all examples the worst u of each is another one.
    everywhere = float(flatness.radius(Linear(), *linear))
    each = np.sort(margins_of(linear) / (2 * np.abs(linear[1]).sum(axis=1)))
    assert everywhere >= each[int(flatness.COST * N)] * 0.99


def test_the_worst_costs_more_than_noise(linear):
    assert float(flatness.radius(Linear(), *linear)) < sigma_of(linear, 50)


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_noise_scales_with_the_weights_of_a_linear_classifier(linear, scale):
    params, images, labels = linear
    scaled = {"Dense_0": {"kernel": params["Dense_0"]["kernel"] * np.float32(scale)}}
    both = (sigma_of(one, 20) for one in (linear, (scaled, images, labels)))
    before, after = both
    assert after == pytest.approx(min(1, scale * before), rel=0.01)


def test_the_ends(linear):
    params, images, labels = linear
    nothing_lost = np.zeros(len(labels), np.int32)
    zero = {"Dense_0": {"kernel": np.zeros((D, 2), np.float32)}}
    constant = np.zeros_like(images)  # the logits are 0 whatever the weights
    assert float(flatness.noise(Linear(), params, constant, nothing_lost, jax.random.key(0))) > 0.99
    assert sigma_of((zero, images, nothing_lost), 20) == 2.0**flatness.LOW
    huge = {"Dense_0": {"kernel": params["Dense_0"]["kernel"] * np.float32(1e6)}}
    assert sigma_of((huge, images, labels), 5) > 0.99


def test_an_mlp(linear):
    """Examples of wrong labels do not count; draws and results are the same each time."""
    _, images, labels = linear
    model = MLP(2, depth=2, width=16)
    params = model.init(jax.random.key(1), images)["params"]
    labels = np.asarray(model.apply({"params": params}, images)).argmax(axis=1).astype(np.int32)
    first, again = (
        float(flatness.noise(MLP(2, depth=2, width=16), params, images, labels, jax.random.key(3)))
        for _ in range(2)
    )
    assert first == again
    other = float(flatness.noise(model, params, images, labels, jax.random.key(4)))
    assert other != first
    assert other == pytest.approx(first, rel=0.5)
    assert 0 < float(flatness.radius(model, params, images, labels)) < first

    lost = [share_lost(model, params, images, labels, factor * first) for factor in (0.5, 1, 2)]
    assert lost[0] < 0.08 < lost[1] + 0.03
    assert lost[1] < 0.13 < lost[2] + 0.03
    assert lost == sorted(lost)


def share_lost(model, params, images, labels, sigma):
    """The share of wrong answers under NumPy's noise."""
    rng, wrong = np.random.default_rng(0), []
    for _ in range(20):
        moved = jax.tree.map(
            lambda x: (np.asarray(x) + sigma * rng.normal(size=x.shape)).astype(np.float32), params
        )
        answers = np.asarray(model.apply({"params": moved}, images)).argmax(axis=1)
        wrong.append(np.mean(answers != labels))
    return np.mean(wrong)


def test_models_of_one_shape_share_a_program(linear):
    _, images, labels = linear
    params = MLP(2, width=3).init(jax.random.key(0), images)["params"]
    flatness.radius(MLP(2, width=3), params, images, labels)
    before = flatness.radius._cache_size()
    flatness.radius(MLP(2, width=3), params, images, labels)
    assert flatness.radius._cache_size() == before
