import jax
import numpy as np
import pytest

from rethink_jax.theory import gram, two_layer
from tests.theory.test_gram import draw, signs


def test_starts_at_zero_in_pairs():
    x = draw(10, 5)
    z, a = two_layer.start(x, 8, 0.5, seed=3)
    w = np.random.default_rng([3, 8]).standard_normal((4, 5)) / 2
    np.testing.assert_allclose(z, np.concatenate([x @ w.T, x @ w.T], axis=1))
    np.testing.assert_array_equal(a, [1, 1, 1, 1, -1, -1, -1, -1])
    np.testing.assert_allclose(np.maximum(z, 0) @ a, 0, atol=1e-12)
    assert two_layer.start(x.astype(np.float32), 8, 0.5, 3)[0].dtype == np.float32


def test_gradient_descent_by_its_definition():
    """Steps of the weights themselves, in plain NumPy."""
    x, y, width, rate = draw(12, 5), signs(12, 1)[:, 0], 20, 0.3
    z, a = two_layer.start(x, width, 1.0, seed=0)
    found = two_layer.descend(x @ x.T, z, a, y, rate, 30)
    half = np.random.default_rng([0, width]).standard_normal((width // 2, 5))
    w = np.concatenate([half, half])
    for residual in found:
        missing = np.maximum(x @ w.T, 0) @ a / np.sqrt(width) - y
        assert residual == pytest.approx(np.linalg.norm(missing), rel=1e-9)
        active = (x @ w.T > 0) * missing[:, None]
        w -= rate * a[:, None] / np.sqrt(width) * (active.T @ x)
    assert found[-1] < 0.9 * found[0]


def test_linear_descent_follows_its_own_gram_matrix():
    x, y, width, steps = draw(20, 8), signs(20, 1), 50, 200
    z, a = two_layer.start(x, width, 1.0, seed=1)
    own = x @ x.T * ((z > 0).astype(float) @ (z > 0).T) / width
    rate = 1 / np.linalg.eigvalsh(own).max()
    predicted = gram.spectrum(own, y).residuals(rate, steps)[:, 0]
    found = two_layer.descend(x @ x.T, z, a, y[:, 0], rate, steps, is_linear=True)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, predicted, rtol=1e-11, atol=1e-13)
    assert not jax.config.values["jax_enable_x64"]


def test_wider_networks_are_nearer_to_the_infinite_one():
    x, y = draw(30, 20), signs(30, 2)
    infinite = gram.spectrum(gram.matrix(x, np.arange(30)), y)
    training = two_layer.Training(x, {"a": y[:, 0], "b": y[:, 1]}, infinite, 10)
    found = training.summarize((20, 20_000), 10.0, seed=0)
    narrow, wide = found["networks"][:2], found["networks"][2:]
    for one, other in zip(narrow, wide, strict=True):
        assert other["largest_difference"] < 0.1 * one["largest_difference"]
        assert other["largest_difference"] < 0.05
        assert len(other["residuals"]) == len(other["predicted"]) == len(found["recorded"])
    assert found["learning_rate"] == pytest.approx(1 / infinite.eigenvalues[0])
    assert [one["labels"] for one in found["networks"]] == ["a", "b", "a", "b"]
    assert [row[0] for row in two_layer.table(found)[2]] == ["20", "20", "20,000", "20,000"]


def test_summary_of_a_network():
    residuals, predicted = np.float32([4, 3, 2, 1]), np.array([2, 1.5, 1.25, 0.9])
    found = two_layer.summarize_network(6, "true_labels", residuals, predicted)
    assert found["residuals"] == [1, 0.75, 0.5, 0.25]
    np.testing.assert_allclose(found["predicted"], [1, 0.75, 0.625, 0.45])
    assert found["largest_difference"] == pytest.approx(1 - 0.25 / 0.45)
    assert found["steps_to_half"] == [2, 3]
    slow = two_layer.summarize_network(6, "true_labels", residuals, np.ones(4))
    assert slow["steps_to_half"] == [2, None]
    training = {"examples": 5, "steps": 3, "initial_std": 1.0, "networks": [slow]}
    assert two_layer.table(training)[2][0][-2:] == ("2", "—")


def test_recorded_steps():
    assert two_layer.recorded_steps(3) == [0, 1, 2, 3]
    found = two_layer.recorded_steps(1000)
    assert (found[0], found[-1], len(found)) == (0, 1000, 101)
