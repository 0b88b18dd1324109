"""H∞, the Gram matrix of a wide two-layer ReLU network whose first layer is trained, and its word on labels.

For inputs of unit length H∞_ij = x_i·x_j (π − arccos(x_i·x_j)) / 2π, the mean over w ~ N(0, I) of x_i·x_j where
both w·x_i and w·x_j are positive. √(2 yᵀ(H∞)⁻¹y / n) bounds the test error, but for terms that vanish with n
(Arora et al. 2019, arXiv 1901.08584, theorem 5.1).

The subsets are nested, so one Cholesky factor H∞ = LLᵀ has those of all: the factor of the first n examples is
the first n rows and columns of L, and yᵀ(H∞)⁻¹y the sum of the first n squares of L⁻¹y.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, eigh, lapack, solve_triangular

from rethink_jax.errors import UserError

# Above this cosine float64 keeps too few digits of an angle; such images are the same but for a factor.
_PARALLEL = 1 - 1e-10
_ROWS = 1000  # that are mapped at a time
SHARES = (0.01, 0.1, 0.5)


def unit_vectors(images: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns images as vectors of unit length, float64 [n, d].

    Args:
      images: uint8 [n, …].
      ids: int [n], the images' names for an error.

    Raises:
      UserError: an image is black; the line names it.
    """
    vectors = images.reshape(len(images), -1).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    if not lengths.all():
        raise UserError(f"example {ids[lengths.argmin()]} is black and has no direction")
    vectors /= lengths[:, None]
    return vectors


def arc_cosine(products: np.ndarray) -> np.ndarray:
    """Turns inner products of unit vectors into H∞'s entries, in place, and returns them.

    Args:
      products: float64 [n, m].

    Example:
      >>> arc_cosine(np.array([[1.0, 0.0, -1.0]])).tolist()
      [[0.5, 0.0, -0.0]]
    """
    for i in range(0, len(products), _ROWS):
        rows = products[i : i + _ROWS]
        np.clip(rows, -1, 1, out=rows)
        rows *= (np.pi - np.arccos(rows)) / (2 * np.pi)
    return products


def matrix(vectors: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns H∞, float64 [n, n]: symmetric, and ½ on the diagonal.

    Args:
      vectors: float64 [n, d], of unit length.
      ids: int [n], their names for an error.

    Raises:
      UserError: two vectors are parallel, so that H∞ is singular; the line names them.

    Example:
      >>> h = matrix(np.eye(2), np.arange(2))
      >>> h.tolist()
      [[0.5, 0.0], [0.0, 0.5]]
    """
    products = vectors @ vectors.T
    np.fill_diagonal(products, -1)
    first, second = np.unravel_index(products.argmax(), products.shape)
    if products[first, second] > _PARALLEL:
        raise UserError(
            f"examples {ids[first]} and {ids[second]} are the same image but for brightness, which "
            "makes H∞ singular; leave one of them out"
        )
    np.fill_diagonal(products, 1)
    return arc_cosine(products)


class Labels(NamedTuple):
    """What H∞ says of some labels of its first n examples.

    Attributes:
      measure: √(2 yᵀ(H∞)⁻¹y / n), float64 [k].
      weights: (H∞)⁻¹y, float64 [n, k]: f(x) = Σ_i weights_i h(x, x_i) interpolates.
      residual: ‖H∞ weights − y‖ / ‖y‖, the largest of all labels.
    """

    measure: np.ndarray
    weights: np.ndarray
    residual: float


class Factor:
    """The Cholesky factor of H∞, which has the factors of all its leading blocks."""

    def __init__(self, h: np.ndarray):
        """Factors H∞, float64 [n, n]; memory for two more such matrices is needed.

        Raises:
          UserError: it is not positive definite in float64.
        """
        self._h = h
        try:
            # Of the transpose, which is the same matrix, in the order of LAPACK's own.
            self._lower = cholesky(h.T, lower=True, check_finite=False)
        except np.linalg.LinAlgError as error:
            raise UserError(
                f"H∞ of {len(h)} examples is singular in float64: some images are nearly the same"
            ) from error

    def of_labels(self, y: np.ndarray) -> Labels:
        """Returns what it says of labels float64 [n, k] of the first n examples."""
        n = len(y)
        lower = self._lower[:n, :n]
        solved = solve_triangular(lower, y, lower=True, check_finite=False)
        measure = np.sqrt(2 * np.square(solved).sum(axis=0) / n)
        weights = solve_triangular(lower, solved, lower=True, trans="T", check_finite=False)
        missing = np.linalg.norm(self._h[:n, :n] @ weights - y, axis=0)
        return Labels(measure, weights, float((missing / np.linalg.norm(y, axis=0)).max()))

    def traces(self) -> np.ndarray:
        """Returns tr (H∞)⁻¹ of the first 1, 2, … n examples, float64 [n]."""
        inverse, _ = lapack.dtrtri(self._lower, lower=1)
        return np.cumsum(np.einsum("ij,ij->i", inverse, inverse))


class Spectrum(NamedTuple):
    """Eigenvalues of H∞, the largest first, and the squares of labels' projections on the eigenvectors.

    Attributes:
      eigenvalues: float64 [n].
      squares: (v_i·y)², float64 [n, k].
    """

    eigenvalues: np.ndarray
    squares: np.ndarray

    def shares(self) -> np.ndarray:
        """Returns the parts of ‖y‖² on the top 1, 10 and 50 % of eigenvectors, float64 [3, k]."""
        counts = [max(1, round(share * len(self.eigenvalues))) for share in SHARES]
        sums = np.stack([self.squares[:count].sum(axis=0) for count in counts])
        return sums / self.squares.sum(axis=0)[None]

    def measure(self) -> np.ndarray:
        """Returns √(2 yᵀ(H∞)⁻¹y / n) once more, float64 [k]."""
        n = len(self.eigenvalues)
        return np.sqrt(2 * (self.squares / self.eigenvalues[:, None]).sum(axis=0) / n)

    def residuals(self, rate: float, steps: int) -> np.ndarray:
        """Returns √(Σ_i (1 − ηλ_i)^{2k} (v_i·y)²) for steps k = 0 … `steps`, float64 [steps + 1, k].

        The distance of gradient descent's outputs from y, for a network of infinite width (theorem 4.1).
        """
        factors = (1 - rate * self.eigenvalues) ** 2
        powers = factors[None] ** np.arange(steps + 1)[:, None]
        return np.sqrt(powers @ self.squares)


def spectrum(h: np.ndarray, y: np.ndarray) -> Spectrum:
    """Returns the spectrum of a symmetric matrix float64 [n, n] and of labels float64 [n, k]."""
    eigenvalues, vectors = eigh(h, check_finite=False)
    return Spectrum(eigenvalues[::-1], np.square(vectors.T @ y)[::-1])
