"""Preconditioners for a kernel matrix, on the host: one of low rank, and the matrix's own factor."""

from typing import NamedTuple

import numpy as np
from scipy import linalg

from rethink_jax.kernels.matrix import KernelMatrix

_COLUMNS = 1000  # that are copied at a time


class Preconditioner(NamedTuple):
    """The inverse of U Λ Uᵀ + μ I, Λ and U some of K's eigenvalues and vectors, about.

    Attributes:
      vectors: U, orthonormal, [n, rank] in the matrix's dtype.
      values: Λ's diagonal, float64 [rank].
      shift: μ.
    """

    vectors: np.ndarray
    values: np.ndarray
    shift: float

    def __matmul__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns (U Λ Uᵀ + μ I)⁻¹ V for V float64 [n, k]."""
        within = self._project(vectors)
        rest = vectors - self._expand(within)
        # Once more: what rounding leaves of U's directions in the rest is large against 1 / (Λ + μ).
        rest -= self._expand(self._project(rest))
        return self._expand(within / (self.values + self.shift)[:, None]) + rest / self.shift

    def _project(self, vectors: np.ndarray) -> np.ndarray:
        return (self.vectors.T @ vectors.astype(self.vectors.dtype)).astype(np.float64)

    def _expand(self, within: np.ndarray) -> np.ndarray:
        return (self.vectors @ within.astype(self.vectors.dtype)).astype(np.float64)


class Factor(NamedTuple):
    """The inverse of K + ridge I itself.

    Attributes:
      lower: its Cholesky factor, float64 [n, n].
    """

    lower: np.ndarray

    def __matmul__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns (K + ridge I)⁻¹ V for V float64 [n, k]."""
        solved: np.ndarray = linalg.cho_solve((self.lower, True), vectors, check_finite=False)
        return solved


def factorize(matrix: KernelMatrix, ridge: float) -> Factor | None:
    """Returns the Cholesky factor of K + ridge I, None where it is singular in float64.

    Args:
      matrix: K, of which a whole copy is made.
      ridge: added to its diagonal.
    """
    whole = np.empty((matrix.n, matrix.n), order="F")
    for start in range(0, matrix.n, _COLUMNS):
        some = np.arange(start, min(start + _COLUMNS, matrix.n))
        whole[:, some] = matrix.columns(some)
    whole[np.diag_indices(matrix.n)] += ridge
    smallest = matrix.n * float(np.finfo(np.float64).eps) * float(whole.diagonal().max())
    try:
        lower = linalg.cholesky(whole, lower=True, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    return Factor(lower) if np.square(lower.diagonal()).min() > smallest else None


def precondition(matrix: KernelMatrix, ridge: float, rank: int, seed: int) -> Preconditioner:
    """Returns a preconditioner for K + ridge I from a randomly pivoted Cholesky factor.

    Pivots are drawn in blocks, each with a probability proportional to its diagonal entry in the remainder
    (Chen, Epperly, Tropp and Webber 2022; as a preconditioner Díaz et al. 2023).

    Args:
      matrix: K.
      ridge: added to its diagonal.
      rank: of the factor, at most n.
      seed: of the pivots.
    """
    rng, block, diagonal = np.random.default_rng(seed), 200, matrix.diagonal
    remainder = diagonal.copy()
    factor = np.zeros((matrix.n, min(rank, matrix.n)), matrix.dtype)
    smallest, largest = 10 * float(np.finfo(matrix.dtype).eps), float(np.max(diagonal))
    done = 0
    while done < factor.shape[1] and remainder.sum() > smallest * diagonal.sum():
        size = min(block, factor.shape[1] - done, int(np.count_nonzero(remainder)))
        pivots = rng.choice(matrix.n, size, replace=False, p=remainder / remainder.sum())
        before = factor[:, :done]
        columns = matrix.columns(pivots) - before @ before[pivots].T
        # No Cholesky factor: examples that are almost equal make the corner singular.
        values, vectors = linalg.eigh(columns[pivots])
        kept = values > size * smallest * max(float(values[-1]), largest)
        new = columns @ (vectors[:, kept] / np.sqrt(values[kept]))
        factor[:, done : done + new.shape[1]] = new
        remainder = np.maximum(remainder - np.square(new).sum(axis=1), 0)
        remainder[pivots] = 0
        done += new.shape[1]
    orthonormal, triangle = np.linalg.qr(factor[:, :done])
    inner, singular, _ = np.linalg.svd(triangle.astype(np.float64))
    vectors = orthonormal @ inner.astype(matrix.dtype)
    # The remainder of the matrix is about as large as the remainder of its diagonal.
    shift = ridge + max(float(remainder.mean()), smallest * float(diagonal.mean()))
    return Preconditioner(vectors, np.square(singular), shift)
