from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st

from rethink_jax.errors import UserError
from rethink_jax.theory import theorem1


def draw(n, d, seed=0, classes=10):
    rng = np.random.default_rng(seed)
    points = np.unique(rng.integers(0, 256, (n, d), dtype=np.uint8), axis=0)
    rng.shuffle(points)
    return points, rng.integers(0, classes, len(points), dtype=np.int32)


def fractions(network, points):
    """The network's values by its definition, in exact arithmetic."""
    a, b, w = ([Fraction(x) for x in part.tolist()] for part in network)
    values = []
    for point in points.tolist():
        z = sum(x * y for x, y in zip(a, point, strict=True))
        values.append(sum(w_j * max(z - b_j, 0) for w_j, b_j in zip(w, b, strict=True)))
    return values


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_has_the_values_at_the_points(n, d, seed):
    points, values = draw(n, d, seed)
    network = theorem1.construct(points, values, seed)
    n, d = points.shape
    assert network.size == 2 * n + d
    exact = fractions(network, points)
    assert max(abs(x - y) for x, y in zip(exact, values.tolist(), strict=True)) < 1e-9
    z = theorem1.project(points, network.a)
    np.testing.assert_array_equal(theorem1.evaluate_exact(network, z), [float(x) for x in exact])
    np.testing.assert_allclose(theorem1.run(network, points), values, atol=1e-6)
    np.testing.assert_allclose(theorem1.values_by_prefix_sums(network, z), values, atol=1e-6)


def test_is_the_papers_construction():
    """b_1 < z_1 < b_2 < …, the matrix is lower triangular, and w solves A w = y."""
    points, values = draw(40, 7)
    network = theorem1.construct(points, values, 3)
    z = theorem1.project(points, network.a)
    order = np.argsort(z)
    interleaved = np.stack([network.b, z[order]], axis=1).ravel()
    assert (np.diff(interleaved) > 0).all()
    matrix = np.maximum(z[order][:, None] - network.b, 0)
    assert (matrix[np.triu_indices(len(z), 1)] == 0).all()
    solved = np.linalg.solve(matrix, values[order].astype(float))
    np.testing.assert_allclose(network.w, solved, rtol=1e-9, atol=1e-9 * abs(solved).max())


def test_projection_has_no_rounding_error():
    points = np.full((2, 3072), 255, np.uint8)
    points[1, 0] = 254
    a = theorem1.construct(points, np.array([0, 1]), 0).a
    whole = [sum(Fraction(x) * y for x, y in zip(a, p, strict=True)) for p in points.tolist()]
    assert whole == [Fraction(z) for z in theorem1.project(points, a).tolist()]
    assert whole == [Fraction(z) for z in theorem1.project(points[:, ::-1], a[::-1]).tolist()]


def test_values_between_the_points():
    points, values = draw(30, 4)
    network = theorem1.construct(points, values, 0)
    unit = theorem1._unit(4)
    places = np.floor(np.linspace(network.b[0] - 5, network.b[-1] + 5, 101) / unit) * unit
    _, b, w = network
    expected = [
        sum(
            Fraction(w_j) * max(Fraction(z) - Fraction(b_j), 0)
            for w_j, b_j in zip(w, b, strict=True)
        )
        for z in places
    ]
    np.testing.assert_array_equal(
        theorem1.evaluate_exact(network, places), [float(x) for x in expected]
    )
    np.testing.assert_allclose(
        theorem1.values_by_prefix_sums(network, places), [float(x) for x in expected], atol=1e-6
    )


def test_twice_the_digits():
    """A network whose terms cancel: float64 loses some of the value, twice its digits do not."""
    points, values = draw(3000, 3, classes=1000)
    network = theorem1.construct(points, values, 0)
    z = theorem1.project(points, network.a)
    exact = theorem1.evaluate_exact(network, z)
    extended = theorem1.evaluate_double_double(network, points)
    np.testing.assert_allclose(extended, exact, rtol=0, atol=1e-15)
    assert np.abs(theorem1.run(network, points) - exact).max() > 1e-9


@pytest.mark.parametrize("depth", [1, 2, 3, 25, 200])
def test_corollary_1(depth):
    points, values = draw(200, 6)
    network = theorem1.construct(points, values, 0)
    np.testing.assert_allclose(theorem1.run_deep(network, points, depth), values, atol=1e-6)


def test_the_plain_way():
    points, values = draw(50, 5)
    z = np.sort(theorem1.project(points, theorem1.construct(points, values, 0).a))
    b, w = theorem1.solve_plainly(z, values)
    np.testing.assert_array_equal(b[1:], (z[1:] + z[:-1]) / 2)
    matrix = np.maximum(z[:, None] - b, 0)
    np.testing.assert_allclose(matrix @ w, values, atol=1e-6)


def test_equal_points_are_named():
    points, values = draw(40, 3)
    points[31] = points[4]
    with pytest.raises(UserError, match=r"^points 4 and 31 are equal; no function has two values"):
        theorem1.construct(points, values, 0)


def test_a_direction_that_tells_points_not_apart_is_drawn_again(monkeypatch):
    draws = []

    class Rng:
        def random(self, d):
            draws.append(d)
            return np.array([0.5, 0.5] if len(draws) == 1 else [0.5, 0.25])

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Rng())
    points = np.array([[1, 2], [2, 1]], np.uint8)
    network = theorem1.construct(points, np.array([3, 5]), 0)
    assert len(draws) == 2
    np.testing.assert_allclose(theorem1.run(network, points), [3, 5])


def test_a_hundred_thousand_points():
    points, values = draw(100_000, 20)
    network = theorem1.construct(points, values, 0)
    z = theorem1.project(points, network.a)
    assert np.abs(theorem1.evaluate_exact(network, z) - values).max() < 1e-6
