"""The solve K α = Y by conjugate gradients, preconditioned with a factor of low rank that is on the host."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import linalg

from rethink_jax.errors import RunFailed
from rethink_jax.kernels.matrix import KernelMatrix


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
    smallest, largest = 10 * float(np.finfo(matrix.dtype).eps), float(np.max(diagonal))
    done = 0
    while done < factor.shape[1] and left.sum() > smallest * diagonal.sum():
        size = min(block, factor.shape[1] - done, int(np.count_nonzero(left)))
        pivots = rng.choice(matrix.n, size, replace=False, p=left / left.sum())
        before = factor[:, :done]
        columns = matrix.columns(pivots) - before @ before[pivots].T
        # No Cholesky factor: examples that are almost equal make the corner singular.
        values, vectors = linalg.eigh(columns[pivots])
        kept = values > size * smallest * max(float(values[-1]), largest)
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

    Products of the iteration are in K's dtype, all else is in float64. The recurrence of the residual drifts
    from the residual itself, which is computed anew every fiftieth time, and where the tolerance seems to be
    reached. So each direction is made orthogonal to the last one's image, and each step is as long as the
    residual at hand asks for (Notay 2000, flexible conjugate gradients). The textbook's ratios of residuals
    take for granted that the recurrence was never left; at float32's floor their directions grow without bound.

    Args:
      matrix: K.
      targets: Y, float64 [n, k].
      ridge: added to K's diagonal.
      preconditioner: as `precondition` returns it.
      tolerance: a residual up to this is the solution's own; a column that has it is left as it is.
      start: an iterate to go on from.

    Raises:
      RunFailed: the matrix is not positive definite in this precision, or not finite.
    """
    solution = np.zeros_like(targets) if start is None else start.solution.copy()
    iterations = 0 if start is None else start.iterations

    def missing() -> np.ndarray:
        return targets - matrix.multiply_precisely(solution) - ridge * solution

    norms = np.linalg.norm(targets, axis=0)
    norms[norms == 0] = 1  # a class without examples
    residual = missing()
    direction, image, curvature = *2 * [np.zeros_like(targets)], np.ones(len(norms))
    while True:
        relative = np.linalg.norm(residual, axis=0) / norms
        if not np.isfinite(relative).all():
            raise RunFailed(f"the residual is not finite after {iterations} iterations")
        yield Iterate(solution, float(relative.max()), iterations)
        preconditioned = preconditioner @ residual
        direction = preconditioned - (preconditioned * image).sum(axis=0) / curvature * direction
        image = matrix @ direction + ridge * direction
        curvature, is_open = (direction * image).sum(axis=0), relative > tolerance
        if (curvature[is_open] <= 0).any():
            raise RunFailed(
                f"the kernel matrix is not positive definite in {matrix.dtype}; set config.kernel.ridges "
                "above 0, or config.solver.dtype float64"
            )
        curvature[~(curvature > 0)] = 1
        step = np.where(is_open, (direction * residual).sum(axis=0) / curvature, 0)
        solution = solution + step * direction
        residual = residual - step * image
        iterations += 1
        if iterations % 50 == 0 or (np.linalg.norm(residual, axis=0) <= tolerance * norms).all():
            residual = missing()


def is_solved(iterate: Iterate, tolerance: float, max_iterations: int, advice: str = "") -> bool:
    """Returns whether an iterate is a solution.

    Raises:
      RunFailed: it is none after so many iterations; `advice` ends the line.
    """
    if iterate.residual <= tolerance:
        return True
    if iterate.iterations >= max_iterations:
        raise RunFailed(
            f"the residual is {iterate.residual:.1e} after {iterate.iterations} iterations{advice}"
        )
    return False
