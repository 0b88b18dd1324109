"""Random Fourier features, and the least-squares solution with each number of them, of least norm beyond n.

f(x) = Σ_k b_k cos(v_k·x) + c_k sin(v_k·x) with v_k ~ N(0, σ⁻²I) (Rahimi and Recht 2007; Belkin et al. 2019,
arXiv 1812.11118, with complex coefficients). N counts real coefficients, two to each v_k. Features are nested:
N of them are the first N of more.

Up to N = n one factorization Φ = QR serves all N, because the factors of the first N columns are the first N
columns of Q and the leading block of R; it does not square Φ's condition number as the normal equations would.
Beyond, a = Φᵀα with ΦΦᵀα = y, and ΦΦᵀ grows by the products of further columns alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import (
    LinAlgError,
    blas,
    cho_solve,
    cholesky,
    lapack,
    qr_multiply,
    solve_triangular,
)

from rethink_jax.errors import RunFailed

_COLUMNS = 2000  # that are computed at a time
# A larger condition number of Φ leaves no digits of a solution, or of its square.
_EPSILON = np.finfo(np.float64).eps


class Sides(NamedTuple):
    """Something of the training points and of the test points."""

    train: np.ndarray
    test: np.ndarray


class Solution(NamedTuple):
    """The solution with some number of features, for k targets.

    Attributes:
      values: f at both splits' points, float64 [n, k] and [m, k].
      norms: ‖a‖ of each target, float64 [k].
      condition: condition number of Φ, as LAPACK estimates it in the 1-norm; the root of that of ΦΦᵀ beyond n.
      residual: ‖Φa − y‖ / ‖y‖ over all targets.
    """

    values: Sides
    norms: np.ndarray
    condition: float
    residual: float


def draw(seed: int, count: int, dimension: int, bandwidth: float) -> np.ndarray:
    """Returns v_k ~ N(0, σ⁻²I), float64 [count, dimension]; the first ones of more are the same."""
    return np.random.default_rng(seed).standard_normal((count, dimension)) / bandwidth


def features(points: np.ndarray, v: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Returns the features from number `first` to before `stop`: cos(v_0·x), sin(v_0·x), cos(v_1·x) …

    Args:
      points: float64 [n, d].
      v: float64 [frequencies, d].
      first: of the features.
      stop: after the last one.

    Returns:
      float64 [n, stop − first], in Fortran's order.

    Example:
      >>> points, v = np.array([[0.0], [np.pi]]), np.array([[1.0], [0.5]])
      >>> features(points, v, 0, 3).round(3).tolist()  # cos x, sin x, cos x/2
      [[1.0, 0.0, 1.0], [-1.0, 0.0, 0.0]]
    """
    angles = v[first // 2 : -(-stop // 2)] @ points.T
    pairs = np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(-1, len(points))
    return pairs[first % 2 :][: stop - first].T


def _blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, _COLUMNS):
        yield first, min(first + _COLUMNS, stop)


class Below:
    """All solutions with up to n features, by one QR factorization."""

    def __init__(self, points: Sides, v: np.ndarray, y: np.ndarray, most: int):
        """Factors the first `most` ≤ n features, for targets y float64 [n, k]."""
        self._features = Sides(*(features(split, v, 0, most) for split in points))
        self._y = y
        projected, self._r = qr_multiply(self._features.train, np.asfortranarray(y.T), mode="right")
        self._projected = projected.T

    def solve(self, count: int) -> Solution:
        """Returns the solution with so many features.

        Raises:
          RunFailed: they depend on each other in float64.
        """
        r = np.asfortranarray(self._r[:count, :count])
        reciprocal, _ = lapack.dtrcon(r, norm="1", uplo="U")
        _check(reciprocal, count)
        a = solve_triangular(r, self._projected[:count], check_finite=False)
        values = Sides(*(split[:, :count] @ a for split in self._features))
        norms = np.linalg.norm(a, axis=0)
        return Solution(values, norms, 1 / reciprocal, _residual(values.train, self._y))


class Above:
    """Solutions of least norm with more than n features, in rising order of their number."""

    def __init__(self, points: Sides, v: np.ndarray, y: np.ndarray):
        """Begins with no features, for targets y float64 [n, k]."""
        n = len(y)
        self._points, self._v, self._y, self._count = points, v, y, 0
        self._gram = np.zeros((n, n), order="F")

    def grow(self, count: int) -> Iterator[float]:
        """Adds the products of the features up to `count`; yields the part of this that is done."""
        start = self._count
        for first, stop in _blocks(start, count):
            block = features(self._points.train, self._v, first, stop)
            self._gram = blas.dsyrk(1.0, block, 1.0, self._gram, lower=1, overwrite_c=1)
            self._count = stop
            yield (stop - start) / (count - start)

    def solve(self) -> Solution:
        """Returns the solution with the features so far.

        Raises:
          RunFailed: ΦΦᵀ is not positive definite in float64.
        """
        lower = np.abs(self._gram)  # zero above the diagonal
        norm = (lower.sum(axis=0) + lower.sum(axis=1) - lower.diagonal()).max()
        del lower
        try:
            factor = cholesky(self._gram, lower=True, check_finite=False)
        except LinAlgError as error:
            raise _dependent(self._count) from error
        reciprocal, _ = lapack.dpocon(factor, norm, uplo="L")
        _check(reciprocal, self._count)
        alpha = cho_solve((factor, True), self._y, check_finite=False)
        del factor
        fitted = blas.dsymm(1.0, self._gram, alpha, lower=1)
        predicted, squares = np.zeros((len(self._points.test), alpha.shape[1])), 0.0
        # Computed again: all of them would be 10 GB.
        for first, stop in _blocks(0, self._count):
            a = features(self._points.train, self._v, first, stop).T @ alpha
            predicted += features(self._points.test, self._v, first, stop) @ a
            squares = squares + np.square(a).sum(axis=0)
        values, residual = Sides(fitted, predicted), _residual(fitted, self._y)
        return Solution(values, np.sqrt(squares), float(reciprocal**-0.5), residual)


def _residual(values: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.norm(values - y) / np.linalg.norm(y))


def _check(reciprocal: float, count: int) -> None:
    if reciprocal < _EPSILON:
        raise _dependent(count)


def _dependent(count: int) -> RunFailed:
    return RunFailed(
        f"{count} features depend on each other in float64; set a smaller config.double_descent.bandwidth, or "
        "leave out images that are the same"
    )
