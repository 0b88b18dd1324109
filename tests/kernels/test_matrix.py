import numpy as np
import pytest

from rethink_jax.kernels import matrix as kernel_matrix
from rethink_jax.kernels.kernel import gaussian, linear
from rethink_jax.kernels.matrix import InnerProducts

RNG = np.random.default_rng(0)
POINTS = RNG.random((203, 7))
OTHERS = RNG.random((31, 7))
TARGETS = RNG.standard_normal((203, 3))
GAMMA = 0.5


def exact(points=POINTS, others=POINTS, gamma=GAMMA):
    """The Gaussian kernel in plain NumPy."""
    return np.exp(-gamma * np.square(points[:, None] - others).sum(axis=-1))


def products(dtype="float64", points=POINTS, others=OTHERS, parts=1, checked=None):
    """Inner products, the features in so many parts."""
    found = InnerProducts(len(points), len(others), np.dtype(dtype), checked)
    for part in np.array_split(np.concatenate([points, others]), parts, axis=1):
        found.add(part, lambda fraction: None)
    return found


def make(dtype="float64", kernel=None, points=POINTS):
    return products(dtype, points).matrix(kernel or gaussian(GAMMA))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_products_columns_and_others(devices, dtype, tolerance, parts, monkeypatch):
    """On 1, 2 and 4 devices, whose parts the 203 and 31 rows do not fill, in several blocks."""
    monkeypatch.setattr(kernel_matrix, "_ROWS", 45)
    matrix = products(dtype, parts=parts).matrix(gaussian(GAMMA))
    assert matrix.dtype == dtype
    np.testing.assert_allclose(matrix @ TARGETS, exact() @ TARGETS, atol=100 * tolerance)
    indices = np.array([5, 202, 0, 45, 90])
    np.testing.assert_allclose(matrix.columns(indices), exact()[:, indices], atol=tolerance)
    expected = exact(OTHERS, POINTS) @ TARGETS
    np.testing.assert_allclose(matrix.predict(TARGETS), expected, atol=100 * tolerance)
    np.testing.assert_allclose(matrix.diagonal, 1, atol=tolerance)


def test_products_in_float64_of_a_matrix_in_float32(devices):
    matrix = make("float32")
    vectors = RNG.standard_normal((203, 3)) * 1e4
    rounded = matrix.columns(np.arange(203))
    assert np.abs(rounded @ vectors - matrix @ vectors).max() > 1e-4
    np.testing.assert_allclose(matrix.multiply_precisely(vectors), rounded @ vectors, atol=1e-8)


def test_points_far_from_zero():
    """Their squares have so many digits in float32 that none were left for near points, uncentered."""
    found = InnerProducts(203, 0, np.dtype("float32"), centered=True)
    for part in np.array_split(POINTS + 1000, 2, axis=1):
        found.add(part, lambda fraction: None)
    distances = np.square(POINTS[:, None] - POINTS).sum(axis=-1)
    assert found.mean_square_distance == pytest.approx(distances.mean(), rel=1e-9)
    matrix = found.matrix(gaussian(GAMMA)).columns(np.arange(203))
    np.testing.assert_allclose(matrix, exact(), atol=3e-7)


@pytest.mark.parametrize("gamma", [0.1, 200.0])
def test_a_kernel_that_is_far_from_flat(gamma):
    matrix = make("float32", gaussian(gamma, 1.2))
    np.testing.assert_allclose(matrix.columns(np.arange(203)), exact(gamma=gamma), atol=1e-4)


def test_linear_kernel():
    matrix = make(kernel=linear())
    np.testing.assert_allclose(matrix @ TARGETS, POINTS @ (POINTS.T @ TARGETS), rtol=1e-12)
    np.testing.assert_allclose(matrix.diagonal, np.square(POINTS).sum(axis=1))


def test_what_is_known_of_the_products():
    found = products("float32", parts=2, checked=np.array([7, 3]))
    assert found.dimension == 7
    np.testing.assert_allclose(found.squares[203:], np.square(OTHERS).sum(axis=1), rtol=1e-6)
    distances = np.square(POINTS[:, None] - POINTS).sum(axis=-1)
    assert found.mean_square_distance == pytest.approx(distances.mean(), rel=1e-6)
    rows = found.exact_rows(gaussian(GAMMA))
    assert rows.dtype == np.float64
    np.testing.assert_allclose(rows, exact()[[7, 3]], atol=1e-6)


@pytest.mark.parametrize("gamma", [1e-3, 0.5])
def test_a_flat_kernel_keeps_its_digits(gamma):
    """Float32 has 1e-7 of an entry near 1, of which the differences are what counts."""
    found = products("float32")
    around = found.mean_square_distance
    vectors = RNG.standard_normal((203, 2)) * 1e3
    for offset, tolerance in ((around, 1e-5), (0.0, 1e-2)):
        matrix = found.matrix(gaussian(gamma, offset), keep=True)
        missing = matrix @ vectors - exact(gamma=gamma) @ vectors
        assert np.abs(missing).max() < tolerance * 1e3 * 203 * gamma
        indices = np.array([3, 200])
        np.testing.assert_allclose(
            matrix.columns(indices), exact(gamma=gamma)[:, indices], atol=1e-5
        )
        expected = exact(OTHERS, POINTS, gamma) @ vectors
        np.testing.assert_allclose(matrix.predict(vectors), expected, atol=0.5)
        np.testing.assert_allclose(matrix.diagonal, 1, atol=1e-5)


def test_saved_products_are_gone_on_with(devices, tmp_path):
    features = np.concatenate([POINTS, OTHERS])
    begun = InnerProducts(203, 31, np.dtype("float64"), np.array([4]))
    begun.add(features[:, :3], lambda fraction: None)
    begun.save(tmp_path / "products.npz", 2)
    again = InnerProducts(203, 31, np.dtype("float64"), np.array([4]))
    assert again.restore(tmp_path / "products.npz") == 2
    again.add(features[:, 3:], lambda fraction: None)
    assert again.dimension == 7
    np.testing.assert_allclose(again.exact_rows(gaussian(GAMMA)), exact()[[4]])
    assert again.mean_square_distance == pytest.approx(products().mean_square_distance)
    matrix = again.matrix(gaussian(GAMMA))
    np.testing.assert_allclose(matrix @ TARGETS, exact() @ TARGETS)
    expected = exact(OTHERS, POINTS) @ TARGETS
    np.testing.assert_allclose(matrix.predict(TARGETS), expected)


def test_damaged_products_are_passed_over(tmp_path, monkeypatch):
    file = tmp_path / "products.npz"
    products().save(file, 1)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    fresh = InnerProducts(203, 31, np.dtype("float64"))
    assert fresh.restore(file) == 0
    assert fresh.dimension == 0
    products().save(file, 1)
    monkeypatch.setattr(kernel_matrix, "_ROWS", 45)
    assert InnerProducts(203, 31, np.dtype("float64")).restore(file) == 0


def test_products_are_kept_for_another_kernel():
    found = products()
    found.matrix(gaussian(3.0), keep=True)
    matrix = found.matrix(gaussian(GAMMA))
    np.testing.assert_allclose(matrix @ TARGETS, exact() @ TARGETS)


def test_the_parts_that_are_there_are_shown(monkeypatch):
    monkeypatch.setattr(kernel_matrix, "_ROWS", 60)
    parts = []
    InnerProducts(203, 31, np.dtype("float32")).add(np.concatenate([POINTS, OTHERS]), parts.append)
    assert parts == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
