"""A kernel matrix whose rows are shared among the devices: products, columns, and the solve K α = Y.

K has n² entries: 14.4 GB in float32 for 60,000 points. It is kept once, in blocks of rows that are computed
where they stay; vectors and a preconditioner of low rank are on the host.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import linalg

from rethink_jax import parallel
from rethink_jax.config import RunFailed

# Rows of a block on one device: with 60,000 columns half a gigabyte.
_ROWS = 2048

Kernel = Callable[[jax.Array, jax.Array], jax.Array]


def gaussian(gamma: float) -> Kernel:
    """Returns exp(−γ‖x − x'‖²) of points [m, d] and [n, d] as a function to [m, n], float32 or float64."""

    def kernel(x: jax.Array, y: jax.Array) -> jax.Array:
        squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)[None] - 2 * (x @ y.T)
        return jnp.exp(-gamma * jnp.maximum(squares, 0))

    return kernel


def linear(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns ⟨x, x'⟩ of points [m, d] and [n, d], to [m, n]."""
    return x @ y.T


@contextmanager
def precision(dtype: np.dtype) -> Iterator[None]:
    """Has JAX compute in a dtype, and products in all of its digits: GPUs and TPUs would take fewer."""
    with jax.enable_x64(dtype == np.float64), jax.default_matmul_precision("highest"):
        yield


class KernelMatrix:
    """The symmetric matrix of a kernel's values at n points, its rows on all devices.

    Attributes:
      n: the number of points.
      dtype: of the matrix.
    """

    def __init__(self, kernel: Kernel, points: np.ndarray, show: Callable[[float], None]):
        """Computes the matrix.

        Args:
          kernel: of this module.
          points: float32 or float64 [n, d]; the matrix has their dtype.
          show: is told which part of the matrix is there.
        """
        self.n, self.dtype = len(points), points.dtype
        devices = len(parallel.devices())
        rows = min(_ROWS, -(-self.n // devices))
        self._step = rows * devices
        padded = np.pad(points, [(0, -self.n % self._step), (0, 0)])
        build = parallel.map_parts(kernel, (True, False), out_parts=True)
        self._blocks = []
        with precision(self.dtype):
            replicated = parallel.replicate(points)
            for start in range(0, self.n, self._step):
                part = parallel.local_parts(padded[start : start + self._step])
                self._blocks.append(jax.block_until_ready(build(part, replicated)))
                show(min(1.0, (start + self._step) / self.n))
        self._multiply = parallel.map_parts(_multiply, (True, False), out_parts=False)
        self._take = parallel.map_parts(_take, (True, False), out_parts=False)

    def __matmul__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns K V for V [n, k], in the matrix's dtype."""
        return self._over_blocks(self._multiply, vectors.astype(self.dtype))

    def columns(self, indices: np.ndarray) -> np.ndarray:
        """Returns columns of K, [n, k]."""
        return self._over_blocks(self._take, indices.astype(np.int32))

    def _over_blocks(self, function: Callable, argument: np.ndarray) -> np.ndarray:
        with precision(self.dtype):
            replicated = parallel.replicate(argument)
            parts = [function(block, replicated) for block in self._blocks]
            fetched = [parallel.fetch(part) for part in parts]
        return np.concatenate([part.reshape(self._step, -1) for part in fetched])[: self.n]


def _multiply(block: jax.Array, vectors: jax.Array) -> jax.Array:
    return lax.all_gather(block @ vectors, parallel.AXIS)


def _take(block: jax.Array, indices: jax.Array) -> jax.Array:
    return lax.all_gather(block[:, indices], parallel.AXIS)


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


def precondition(
    matrix: KernelMatrix, diagonal: np.ndarray, ridge: float, rank: int, seed: int
) -> Preconditioner:
    """Returns a preconditioner for K + ridge I from a randomly pivoted Cholesky factor.

    Pivots are drawn in blocks, each with the probability of what is left of its diagonal entry (Chen, Epperly,
    Tropp and Webber 2022; as a preconditioner Díaz et al. 2023).

    Args:
      matrix: K.
      diagonal: K's, float64 [n].
      ridge: added to it.
      rank: of the factor, at most n.
      seed: of the pivots.
    """
    rng, block = np.random.default_rng(seed), 200
    left = diagonal.astype(np.float64)
    factor = np.zeros((matrix.n, min(rank, matrix.n)), matrix.dtype)
    smallest = 10 * float(np.finfo(matrix.dtype).eps)
    done = 0
    while done < factor.shape[1] and left.sum() > smallest * diagonal.sum():
        size = min(block, factor.shape[1] - done, int(np.count_nonzero(left)))
        pivots = rng.choice(matrix.n, size, replace=False, p=left / left.sum())
        before = factor[:, :done]
        columns = (matrix.columns(pivots) - before @ before[pivots].T).astype(np.float64)
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
        return (matrix @ vectors).astype(np.float64) + ridge * vectors

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
