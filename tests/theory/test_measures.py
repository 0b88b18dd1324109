import itertools
import math

import jax
import numpy as np
import pytest

from rethink_jax.errors import RunFailed
from rethink_jax.models.mlp import MLP
from rethink_jax.theory import measures

RNG = np.random.default_rng(0)


def test_path_norm_over_all_paths():
    model = MLP(num_classes=2, depth=2, width=3)
    params = model.init(jax.random.key(0), np.zeros((1, 2, 2, 1), np.float32))["params"]
    params = jax.tree.map(lambda x: RNG.standard_normal(x.shape), params)
    kernels = [params[f"Dense_{i}"]["kernel"] for i in range(3)]
    biases = [params[f"Dense_{i}"]["bias"] for i in range(3)]
    total = 0.0
    for start in range(4):  # a path begins at an input …
        for i, j, k in itertools.product(range(3), range(3), range(2)):
            total += (kernels[0][start, i] * kernels[1][i, j] * kernels[2][j, k]) ** 2
    for i, j, k in itertools.product(range(3), range(3), range(2)):  # … or at a bias
        total += (biases[0][i] * kernels[1][i, j] * kernels[2][j, k]) ** 2
    for j, k in itertools.product(range(3), range(2)):
        total += (biases[1][j] * kernels[2][j, k]) ** 2
    total += (biases[2] ** 2).sum()
    assert measures.path_norm(params) == pytest.approx(math.sqrt(total))


def test_path_norm_with_ten_layers_in_their_order():
    model = MLP(num_classes=2, depth=10, width=3)
    params = model.init(jax.random.key(0), np.zeros((1, 2, 1, 1), np.float32))["params"]
    along = np.ones(2)
    for i in range(11):
        along = along @ np.asarray(params[f"Dense_{i}"]["kernel"]) ** 2
    assert measures.path_norm(params) == pytest.approx(math.sqrt(along.sum()), rel=1e-5)


def test_margins():
    logits = np.array([[3.0, 1.0, 2.5], [0.0, 1.0, 4.0]], np.float32)
    np.testing.assert_allclose(measures.margins(logits, np.array([0, 1])), [0.5, -3.0])


def test_counts_and_bounds():
    assert measures.vc_dimension(1024, 3) == 1024 * 3 * 10
    slack = math.sqrt(math.log(20) / 200)
    assert measures.uniform_stability_bound(0.25, 100, 0.95) == pytest.approx(0.25 + 51 * slack)
    assert measures.uniform_stability_bound(0.0, 100, 0.95) == pytest.approx(slack)


def test_interpolation_against_numpy():
    train, test, targets = (RNG.standard_normal(shape) for shape in ((50, 6), (9, 6), (50, 2)))
    squares = np.square(train[:, None] - train).sum(axis=-1)
    gamma = 1 / squares.mean()
    solution = np.linalg.solve(np.exp(-gamma * squares), targets)
    norms, values = measures.interpolate(train, test, targets, seed=0)
    expected = np.sqrt((solution * targets).sum(axis=0) / 50)
    np.testing.assert_allclose(norms, expected, rtol=1e-3)
    at_test = np.exp(-gamma * np.square(test[:, None] - train).sum(axis=-1)) @ solution
    np.testing.assert_allclose(values, at_test, atol=1e-2)


def test_equal_points_with_different_targets(monkeypatch):
    monkeypatch.setattr(measures, "_MOST_ITERATIONS", 20)
    points = np.ones((4, 2))
    points[2:] = 3.0
    with pytest.raises(RunFailed):
        measures.interpolate(points, points, np.array([[1.0], [-1.0], [1.0], [1.0]]), seed=0)
