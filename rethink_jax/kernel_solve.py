"""The solve K α = Y by conjugate gradients, preconditioned with a factor of low rank that is on the host."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import linalg

from rethink_jax.config import RunFailed
from rethink_jax.kernel_matrix import KernelMatrix


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


def precondition(matrix: KernelMatrix, ridge: float, rank: int, seed: int) -> Preconditioner:
    """Returns a preconditioner for K + ridge I from a randomly pivoted Cholesky factor.

    Pivots are drawn in blocks, each with the probability of what is left of its diagonal entry (Chen, Epperly,
    Tropp and Webber 2022; as a preconditioner Díaz et al. 2023).

    Args:
      matrix: K.
      ridge: added to its diagonal.
      rank: of the factor, at most n.
      seed: of the pivots.
    """
    rng, block, diagonal = np.random.default_rng(seed), 200, matrix.diagonal
    left = diagonal.copy()
    factor = np.zeros((matrix.n, min(rank, matrix.n)), matrix.dtype)
    smallest = 10 * float(np.finfo(matrix.dtype).eps)
    done = 0
    while done < factor.shape[1] and left.sum() > smallest * diagonal.sum():
        size = min(block, factor.shape[1] - done, int(np.count_nonzero(left)))
        pivots = rng.choice(matrix.n, size, replace=False, p=left / left.sum())
        before = factor[:, :done]
        columns = matrix.columns(pivots) - before @ before[pivots].T
        # No Cholesky factor: examples that are almost equal make the corner singular.
        values, vectors = linalg.eigh(columns[pivots])
        kept = values > size * smallest * max(values[-1], float(diagonal.max()))
        new = columns @ (vectors[:, kept] / np.sqrt(values[kept]))
        factor[:, done : done + new.shape[1]] = new
        left = np.maximum(left - np.square(new).sum(axis=1), 0)
        left[pivots] = 0
        done += new.shape[1]
    orthonormal, triangle = np.linalg.qr(factor[:, :done])
    inner, singular, _ = np.linalg.svd(triangle.astype(np.float64))
    vectors = orthonormal @ inner.astype(matrix.dtype)
    # What is left of the matrix is about as large as what is left of its diagonal.
    shift = ridge + max(float(left.mean()), smallest * float(diagonal.mean()))
    return Preconditioner(vectors, np.square(singular), shift)


class Iterate(NamedTuple):
    """Where the solve is.

    Attributes:
      solution: float64 [n, k].
      residual: ‖Y − (K + ridge I) α‖ / ‖Y‖ of the worst column.
      iterations: so far.
    """

    solution: np.ndarray
    residual: float
    iterations: int


def conjugate_gradients(
    matrix: KernelMatrix,
    targets: np.ndarray,
    ridge: float,
    preconditioner: Preconditioner,
    tolerance: float,
    start: Iterate | None = None,
) -> Iterator[Iterate]:
    """Yields better and better solutions of (K + ridge I) α = Y, without end; each column by itself.

    Products with K are in its dtype, all else in float64. The recurrence of the residual drifts from the
    residual itself, which is computed anew every fiftieth time, and wherever the tolerance seems to be reached.

    Args:
      matrix: K.
      targets: Y, float64 [n, k].
      ridge: added to K's diagonal.
      preconditioner: as `precondition` returns it.
      tolerance: a residual up to this is the solution's own.
      start: an iterate to go on from.

    Raises:
      RunFailed: the matrix is not positive definite in this precision.
    """
    solution = np.zeros_like(targets) if start is None else start.solution.copy()
    iterations = 0 if start is None else start.iterations

    def apply(vectors: np.ndarray) -> np.ndarray:
        return matrix @ vectors + ridge * vectors

    norms = np.linalg.norm(targets, axis=0)
    norms[norms == 0] = 1  # a class without examples

    def relative() -> float:
        return float((np.linalg.norm(residual, axis=0) / norms).max())

    residual = targets - apply(solution)
    yield Iterate(solution, relative(), iterations)
    direction, product = np.zeros_like(targets), np.ones(targets.shape[1])
    while True:
        preconditioned = preconditioner @ residual
        before, product = product, (residual * preconditioned).sum(axis=0)
        ratio = np.divide(product, before, out=np.zeros_like(product), where=before > 0)
        direction = preconditioned + ratio * direction
        image = apply(direction)
        curvature = (direction * image).sum(axis=0)
        if (curvature < 0).any():
            raise RunFailed(
                f"the kernel matrix is not positive definite in {matrix.dtype}; set config.kernel.ridges "
                "above 0, or config.solver.dtype float64"
            )
        step = np.divide(product, curvature, out=np.zeros_like(product), where=curvature > 0)
        solution = solution + step * direction
        residual = residual - step * image
        iterations += 1
        if iterations % 50 == 0 or relative() <= tolerance:
            residual = targets - apply(solution)
        yield Iterate(solution, relative(), iterations)


def is_solved(iterate: Iterate, tolerance: float, most_iterations: int, advice: str = "") -> bool:
    """Returns whether an iterate is a solution.

    Raises:
      RunFailed: it is none after so many iterations; `advice` ends the line.
    """
    if iterate.residual <= tolerance:
        return True
    if iterate.iterations >= most_iterations:
        raise RunFailed(
            f"the residual is {iterate.residual:.1e} after {iterate.iterations} iterations{advice}"
        )
    return False
