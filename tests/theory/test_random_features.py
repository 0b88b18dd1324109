import numpy as np
import pytest
from hypothesis import given, strategies as st

from rethink_jax.errors import RunFailed
from rethink_jax.theory import random_features
from rethink_jax.theory.random_features import Above, Below, Sides

N, TEST, DIMENSION, TARGETS = 300, 50, 20, 4


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    points = Sides(rng.random((N, DIMENSION)), rng.random((TEST, DIMENSION)))
    y = np.eye(TARGETS)[rng.integers(TARGETS, size=N)]
    return points, random_features.draw(1, 500, DIMENSION, 0.5), y


def written_out(points, v, count):
    """The definition, one number after another."""
    columns = [
        [(np.cos if k % 2 == 0 else np.sin)(v[k // 2] @ x) for k in range(count)] for x in points
    ]
    return np.array(columns)


def solution(problem, count):
    points, v, y = problem
    if count <= N:
        return Below(points, v, y, 300).solve(count)
    grown = Above(points, v, y)
    assert list(grown.grow(count))[-1] == 1
    return grown.solve()


@pytest.mark.parametrize("count", [1, 30, 151, 240, 285, 315, 361, 600, 999])
def test_least_squares_by_numpy(problem, count):
    points, v, y = problem
    phi, across = (written_out(split, v, count) for split in points)
    a, _, rank, singular = np.linalg.lstsq(phi, y)
    assert rank == min(N, count)
    found = solution(problem, count)
    np.testing.assert_allclose(found.values.train, phi @ a, atol=1e-8)
    np.testing.assert_allclose(found.values.test, across @ a, atol=1e-8)
    np.testing.assert_allclose(found.norms, np.linalg.norm(a, axis=0), rtol=1e-8)
    expected = np.linalg.norm(phi @ a - y) / np.linalg.norm(y)
    assert found.residual == pytest.approx(expected, abs=1e-9)
    # In the 1-norm, which is within a factor of N of the 2-norm's.
    condition = singular[0] / singular[-1]
    assert condition / N < found.condition < condition * N


def test_at_the_threshold_by_singular_values(problem):
    points, v, y = problem
    phi, across = (written_out(split, v, N) for split in points)
    left, singular, right = np.linalg.svd(phi)
    assert singular[-1] > 1e-12 * singular[0]  # no cutoff
    a = right.T @ ((left.T @ y) / singular[:, None])
    found = solution(problem, N)
    np.testing.assert_allclose(found.values.test, across @ a, atol=1e-6)
    np.testing.assert_allclose(found.norms, np.linalg.norm(a, axis=0), rtol=1e-7)
    assert found.residual < 1e-10


def test_growing_step_by_step_is_growing_at_once(problem, monkeypatch):
    points, v, y = problem
    whole = solution(problem, 777)
    monkeypatch.setattr(random_features, "_COLUMNS", 100)
    grown = Above(points, v, y)
    for count in (350, 351, 777):
        parts = list(grown.grow(count))
        assert parts == sorted(parts)
        assert parts[-1] == 1
    np.testing.assert_allclose(grown.solve().values.test, whole.values.test, atol=1e-10)


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 5))
def test_features_are_nested(first, count, n):
    rng = np.random.default_rng(n)
    points, v = rng.random((n, 3)), rng.standard_normal((41, 3))
    some = random_features.features(points, v, first, first + count)
    assert some.shape == (n, count)
    expected = written_out(points, v, first + count)[:, first:]
    np.testing.assert_allclose(some, expected, atol=1e-12)


def test_frequencies_are_nested_and_have_their_deviation():
    many = random_features.draw(3, 2000, 50, 5.0)
    np.testing.assert_array_equal(many[:7], random_features.draw(3, 7, 50, 5.0))
    assert many.std() == pytest.approx(0.2, rel=0.02)
    assert abs(many.mean()) < 0.003
    assert not np.array_equal(many, random_features.draw(4, 2000, 50, 5.0))


def test_products_of_many_features_are_the_gaussian_kernel():
    rng = np.random.default_rng(0)
    points = rng.random((5, 8))
    v = random_features.draw(0, 200_000, 8, 0.7)
    phi = random_features.features(points, v, 0, 400_000)
    squares = np.square(points[:, None] - points).sum(axis=-1)
    kernel = np.exp(-squares / (2 * 0.7**2))
    np.testing.assert_allclose(phi @ phi.T / 200_000, kernel, atol=5 * np.sqrt(0.5 / 200_000))


def test_equal_points_are_refused_on_both_sides_of_the_threshold(problem):
    points, v, y = problem
    twice = points.train.copy()
    twice[7] = twice[5]
    same = points._replace(train=twice)
    with pytest.raises(
        RunFailed, match="300 features depend on each other in float64; set a smaller"
    ):
        Below(same, v, y, 300).solve(300)
    grown = Above(same, v, y)
    list(grown.grow(400))
    with pytest.raises(RunFailed, match="400 features depend on each other"):
        grown.solve()
