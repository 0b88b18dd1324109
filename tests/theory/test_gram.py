import numpy as np
import pytest

from rethink_jax.errors import UserError
from rethink_jax.theory import gram


def draw(n, d, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1)[:, None]


def signs(n, k, seed=1):
    return np.random.default_rng(seed).choice([-1.0, 1.0], (n, k))


def by_the_formula(x):
    h = np.empty((len(x), len(x)))
    for i, one in enumerate(x):
        for j, other in enumerate(x):
            product = min(max(one @ other, -1), 1)
            h[i, j] = product * (np.pi - np.arccos(product)) / (2 * np.pi)
        h[i, i] = 0.5
    return h


def test_matrix_by_the_formula(monkeypatch):
    monkeypatch.setattr(gram, "_ROWS", 7)
    x = draw(40, 6)
    h = gram.matrix(x, np.arange(40))
    np.testing.assert_allclose(h, by_the_formula(x), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(h, h.T)
    np.testing.assert_array_equal(np.diag(h), 0.5)
    across = gram.arc_cosine(x[:5] @ x.T)
    np.testing.assert_allclose(across, h[:5], rtol=0, atol=1e-7)  # arccos at 1


def test_matrix_by_monte_carlo():
    """The mean over w of x_i·x_j where both w·x_i and w·x_j are positive, to three standard errors."""
    x, count = draw(6, 4), 10**6
    is_active = np.random.default_rng(5).standard_normal((count, 4)) @ x.T > 0
    both = is_active.T.astype(float) @ is_active / count
    error = np.abs(x @ x.T) * np.sqrt(both * (1 - both) / count)
    assert (np.abs(gram.matrix(x, np.arange(6)) - x @ x.T * both) <= 3 * error).all()


def test_unit_vectors():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    vectors = gram.unit_vectors(images, np.arange(5))
    flat = images.reshape(5, -1).astype(float)
    np.testing.assert_allclose(vectors, flat / np.sqrt((flat**2).sum(axis=1, keepdims=True)))
    images[3] = 0
    with pytest.raises(UserError, match=r"^example 13 is black and has no direction$"):
        gram.unit_vectors(images, np.arange(10, 15))


def test_labels_of_every_subset_by_a_plain_solve():
    x, y = draw(120, 20), signs(120, 4)
    h = gram.matrix(x, np.arange(120))
    factor = gram.Factor(h)
    traces = factor.traces()
    for n in (2, 50, 120):
        found = factor.of_labels(y[:n])
        part = by_the_formula(x[:n])
        weights = np.linalg.solve(part, y[:n])
        value = np.sqrt(2 * np.einsum("nk,nk->k", y[:n], weights) / n)
        np.testing.assert_allclose(found.measure, value, rtol=1e-6)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-6, atol=1e-9)
        assert found.residual < 1e-10
        assert traces[n - 1] == pytest.approx(np.trace(np.linalg.inv(part)), rel=1e-6)


def test_residual_is_that_of_the_equations():
    x, y = draw(30, 20), signs(30, 2)
    h = gram.matrix(x, np.arange(30))
    factor = gram.Factor(h.copy())
    factor._h = h + 0.01 * np.eye(30)  # another matrix than was factored
    found = factor.of_labels(y)
    expected = 0.01 * np.linalg.norm(found.weights, axis=0) / np.sqrt(30)
    assert found.residual == pytest.approx(expected.max())


def test_the_mean_over_random_signs_is_the_trace():
    x = draw(80, 20)
    factor = gram.Factor(gram.matrix(x, np.arange(80)))
    values = factor.of_labels(signs(80, 200)).measure ** 2 * 80 / 2
    error = values.std(ddof=1) / np.sqrt(200)
    assert abs(values.mean() - factor.traces()[-1]) <= 3 * error


def test_spectrum():
    x, y = draw(50, 20), signs(50, 3)
    h = gram.matrix(x, np.arange(50))
    found = gram.spectrum(h, y)
    eigenvalues, vectors = np.linalg.eigh(h)
    np.testing.assert_allclose(found.eigenvalues, eigenvalues[::-1], rtol=1e-9)
    squares = (vectors.T @ y)[::-1] ** 2
    np.testing.assert_allclose(found.squares, squares, atol=1e-9)
    shares = [squares[:count].sum(axis=0) / 50 for count in (1, 5, 25)]
    np.testing.assert_allclose(found.shares(), shares, atol=1e-9)
    np.testing.assert_allclose(found.measure(), gram.Factor(h).of_labels(y).measure, rtol=1e-9)


def test_predicted_residuals_are_those_of_the_recursion():
    x, y = draw(30, 10), signs(30, 2)
    h = gram.matrix(x, np.arange(30))
    rate, missing = 0.7 / np.linalg.eigvalsh(h).max(), -y
    predicted = gram.spectrum(h, y).residuals(rate, 5)
    for step in range(6):
        np.testing.assert_allclose(predicted[step], np.linalg.norm(missing, axis=0), rtol=1e-9)
        missing = missing - rate * h @ missing


def test_parallel_images_are_named():
    x = draw(10, 5)
    x[7] = x[2]
    line = r"^examples 102 and 107 are the same image but for brightness, which makes H∞ singular"
    with pytest.raises(UserError, match=line):
        gram.matrix(x, np.arange(100, 110))


def test_a_singular_matrix_is_refused():
    with pytest.raises(UserError, match=r"^H∞ of 2 examples is singular in float64: some images"):
        gram.Factor(np.array([[0.5, 0.6], [0.6, 0.5]]))
