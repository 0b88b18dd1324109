import itertools

import numpy as np
import pytest
from scipy import linalg

from rethink_jax.errors import RunFailed
from rethink_jax.kernels.kernel import Kernel, gaussian, linear
from rethink_jax.kernels.preconditioner import factorize, precondition
from rethink_jax.kernels.solve import conjugate_gradients
from tests.kernels.test_matrix import POINTS, TARGETS, exact, make


def preconditioner(matrix, rank=50, ridge=0.0):
    return precondition(matrix, ridge, rank, seed=0)


def solve(matrix, tolerance, ridge=0.0, rank=50, start=None, targets=TARGETS):
    prepared = preconditioner(matrix, rank, ridge)
    iterates = conjugate_gradients(matrix, targets, ridge, prepared, tolerance, start)
    return next(i for i in itertools.islice(iterates, 3000) if i.residual <= tolerance)


@pytest.mark.parametrize("rank", [1, 50, 200, 500])
def test_preconditioner_is_an_inverse(rank):
    prepared = preconditioner(make(), rank, ridge=0.1)
    u, values = prepared.vectors, prepared.values
    assert u.shape[1] <= min(rank, 203)
    np.testing.assert_allclose(u.T @ u, np.eye(u.shape[1]), atol=1e-10)
    forward = u @ np.diag(values) @ u.T + prepared.shift * np.eye(203)
    np.testing.assert_allclose(prepared @ (forward @ TARGETS), TARGETS, atol=1e-8)
    if rank > 203:
        np.testing.assert_allclose(forward, exact() + 0.1 * np.eye(203), atol=1e-6)


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_solution_against_lapack(devices, ridge):
    found = solve(make(), 1e-10, ridge)
    expected = linalg.solve(exact() + ridge * np.eye(203), TARGETS, assume_a="pos")
    np.testing.assert_allclose(found.solution, expected, rtol=1e-6, atol=1e-6)


def test_interpolates_without_a_ridge():
    found = solve(make(), 1e-8, rank=203)
    missing = TARGETS - exact() @ found.solution
    relative = np.linalg.norm(missing, axis=0) / np.linalg.norm(TARGETS, axis=0)
    assert relative.max() < 1e-7


def test_a_factor_is_the_inverse_and_solves_in_one_iteration():
    matrix = make()
    whole = matrix.columns(np.arange(203)) + 0.1 * np.eye(203)
    factor = factorize(matrix, 0.1)
    np.testing.assert_allclose(factor @ (whole @ TARGETS), TARGETS, atol=1e-9)
    iterates = conjugate_gradients(matrix, TARGETS, 0.1, factor, 1e-9)
    first, second = next(iterates), next(iterates)
    assert (first.residual, second.iterations) == (1.0, 1)
    assert second.residual < 1e-9


def test_a_matrix_that_is_singular_has_no_factor():
    matrix = make(kernel=linear())
    assert factorize(matrix, 0.0) is None
    assert factorize(matrix, 1.0) is not None


def test_a_preconditioner_saves_iterations():
    counts = [solve(make(), 1e-6, 0.01, rank).iterations for rank in (1, 50, 150)]
    assert counts[0] > 2 * counts[1] > 4 * counts[2] >= 4


def test_goes_on_from_an_iterate():
    matrix = make()
    middle = solve(matrix, 1e-3, 0.1)
    whole = solve(matrix, 1e-9, 0.1)
    rest = solve(matrix, 1e-9, 0.1, start=middle)
    assert middle.iterations < rest.iterations < 2 * whole.iterations
    np.testing.assert_allclose(rest.solution, whole.solution, atol=1e-6)


def test_residuals_are_those_of_the_solution():
    matrix = make("float32")
    iterates = conjugate_gradients(matrix, TARGETS, 0.1, preconditioner(matrix, 2, 0.1), 1e-9)
    for iterate in itertools.islice(iterates, 0, 120, 10):
        missing = TARGETS - (exact() + 0.1 * np.eye(203)) @ iterate.solution
        relative = np.linalg.norm(missing, axis=0) / np.linalg.norm(TARGETS, axis=0)
        assert iterate.residual == pytest.approx(relative.max(), rel=0.05, abs=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_tolerance_is_met_by_the_residual_itself(dtype):
    """And not by its recurrence alone."""
    matrix = make(dtype)
    found = solve(matrix, 1e-9, 0.1, rank=10)
    missing = TARGETS - matrix.columns(np.arange(203)) @ found.solution - 0.1 * found.solution
    relative = np.linalg.norm(missing, axis=0) / np.linalg.norm(TARGETS, axis=0)
    assert 0.1 * found.residual < relative.max() < 1.1e-9


def test_float32_comes_below_the_rounding_of_its_products_and_stays_there(monkeypatch):
    """An easy and a hard column, far beyond the iterations that they need."""
    matrix = make("float32", gaussian(0.05))
    hard, _ = np.linalg.qr(matrix.columns(np.arange(203)))
    targets = np.stack([TARGETS[:, 0], hard[:, 0]], axis=1)
    prepared = preconditioner(matrix, 20, 1e-4)

    def residuals():
        iterates = conjugate_gradients(matrix, targets, 1e-4, prepared, 1e-12)
        return [i.residual for i in itertools.islice(iterates, 1500)]

    assert max(residuals()[200:]) < 1e-7
    monkeypatch.setattr(matrix, "multiply_precisely", matrix.__matmul__)
    assert 1e-6 < max(residuals()[200:]) < 1


@pytest.mark.parametrize("ridge", [0.0, 1e-5])
def test_pairs_that_are_almost_equal(ridge):
    """Rounding makes eigenvalues negative, a small ridge mends it."""
    rng = np.random.default_rng(1)
    points = np.concatenate([POINTS, POINTS + 0.01 * rng.standard_normal(POINTS.shape)])
    matrix, targets = make("float32", points=points), rng.standard_normal((406, 3))
    rounded = matrix.columns(np.arange(406)) + ridge * np.eye(406)
    assert (linalg.eigvalsh(rounded)[0] > 0) == (ridge > 0)
    if ridge == 0:
        with pytest.raises(RunFailed, match="not positive definite in float32"):
            solve(matrix, 1e-6, rank=100, targets=targets)
        return
    found = solve(matrix, 1e-6, ridge, rank=100, targets=targets)
    missing = targets - rounded @ found.solution
    assert np.linalg.norm(missing, axis=0).max() < 2e-6 * np.linalg.norm(targets, axis=0).max()


def test_a_class_without_examples():
    found = solve(make(), 1e-9, 0.1, targets=np.column_stack([TARGETS, np.zeros(203)]))
    assert not found.solution[:, 3].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_examples_that_are_equal_and_a_kernel_of_low_rank(dtype):
    """The matrix has rank 7: what is left of its diagonal after two blocks is rounding."""
    points = np.concatenate([POINTS, POINTS, POINTS])
    matrix = make(dtype, linear(), points)
    prepared = precondition(matrix, 0.5, 500, seed=0)
    targets = np.concatenate([TARGETS, -TARGETS, TARGETS])
    iterates = conjugate_gradients(matrix, targets, 0.5, prepared, 1e-4)
    found = next(i for i in itertools.islice(iterates, 20) if i.residual <= 1e-4)
    expected = linalg.solve(points @ points.T + 0.5 * np.eye(len(points)), targets)
    np.testing.assert_allclose(found.solution, expected, atol=1e-2)


def test_what_is_not_finite_is_refused():
    matrix = make(kernel=Kernel(lambda products, x, y: products * np.nan, 0.0))
    good = preconditioner(make())
    with pytest.raises(RunFailed, match=r"the residual is not finite after 0 iterations"):
        next(conjugate_gradients(matrix, TARGETS, 0.0, good, 0.1))


def test_what_is_no_kernel_is_refused():
    matrix = make(kernel=Kernel(lambda products, x, y: -products, 0.0))
    good = preconditioner(make())
    with pytest.raises(RunFailed, match=r"not positive definite in float64; set config.kernel"):
        list(itertools.islice(conjugate_gradients(matrix, TARGETS, 0.0, good, 0.1), 9))
