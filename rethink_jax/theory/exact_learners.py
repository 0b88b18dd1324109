"""Learners without training, whose memorization is known in closed form: nearest neighbour and kernel ridge."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg

from rethink_jax.errors import require
from rethink_jax.pipeline.inputs import Split

# From subsets, bool [k, n], to answers on the training set, int32 [k, n], and on the test set, int32 [k, m].
Learner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# The nearest of all that are kept for each point; a subset that has none of them is searched whole.
_NEAREST = 256
_ROWS = 500
# Their matrix has 0.8 GB in float64, and there are up to four of its size.
MOST_EXAMPLES = 10_000
# Added to the diagonal of a matrix of ones.
RIDGE = 1e-3


def squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the squared euclidean distances of images, float64 [a, b], exact for uint8.

    Args:
      left, right: real [a, ...] and [b, ...], flattened.

    Example:
      >>> squared_distances(np.uint8([[0, 0], [3, 4]]), np.uint8([[0, 255]]))
      array([[65025.],
             [63010.]])
    """
    x, y = (points.reshape(len(points), -1).astype(np.float64) for points in (left, right))
    squares = [np.square(points).sum(axis=1) for points in (x, y)]
    return np.maximum(squares[0][:, None] + squares[1][None] - 2 * (x @ y.T), 0)


def nearest_neighbour(train: Split, test: Split) -> Learner:
    """Returns the learner that answers with the label of the nearest example, of equally near ones the first.

    Args:
      train, test: the splits; distances are between pixels.
    """
    images, labels = train.images, train.labels
    near = [_nearest(split.images, images) for split in (train, test)]

    def answer(is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        on_train = [_answers(row, near[0], train.images, train) for row in is_member]
        on_test = [_answers(row, near[1], test.images, train) for row in is_member]
        return labels[np.stack(on_train)], labels[np.stack(on_test)]

    return answer


def _nearest(points: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Returns the ids of each point's nearest examples by distance and id, int32 [points, kept]."""
    kept = min(_NEAREST, len(images))
    return np.concatenate([order[:, :kept] for order in _orders(points, images)])


def _orders(points: np.ndarray, images: np.ndarray):  # type: ignore[no-untyped-def]
    """Yields the ids of all examples by their distance from each of some points, int32 [points, n]."""
    for start in range(0, len(points), _ROWS):
        distances = squared_distances(points[start : start + _ROWS], images)
        yield np.argsort(distances, axis=1, kind="stable").astype(np.int32)


def _answers(
    is_member: np.ndarray, near: np.ndarray, points: np.ndarray, train: Split
) -> np.ndarray:
    """Returns the id of each point's nearest example of a subset."""
    there = is_member[near]
    ids = near[np.arange(len(near)), there.argmax(axis=1)]
    (missing,) = np.nonzero(~there.any(axis=1))
    if len(missing):
        (subset,) = np.nonzero(is_member)
        ids[missing] = subset[_nearest(points[missing], train.images[subset])[:, 0]]
    return ids


def nearest_neighbour_memorization(images: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """Returns what `subsets.memorization` estimates of the nearest neighbour, as sums over neighbours.

    The probability that the answer comes from the neighbour of rank r is hypergeometric: the r − 1 before it
    are not in the subset, and it is. With example i a subset has size − 1 of the others, without it `size`.

    Args:
      images: real [n, ...], distances as `squared_distances` has them.
      labels: integers [n].
      size: of the subsets, in [1, n − 1].

    Returns:
      float64 [n].

    Example:
      >>> images, labels = np.uint8([[0], [1], [9]]), np.array([0, 1, 1])
      >>> nearest_neighbour_memorization(images, labels, size=2)
      array([1., 1., 0.])
    """
    n = len(images)
    scores: list[float] = []
    without, beside = (_of_rank(n - 1, subset) for subset in (size, size - 1))
    for order in _orders(images, images):
        rows = np.arange(len(scores), len(scores) + len(order), dtype=order.dtype)
        is_right = labels[order] == labels[rows][:, None]
        place = (order == rows[:, None]).argmax(axis=1)
        for right, own in zip(is_right, place.tolist(), strict=True):
            others = np.delete(right, own)
            before = beside[:own]
            with_it = before @ others[:own] + (1 - before.sum())
            scores.append(float(with_it - without @ others))
    return np.asarray(scores)


def _of_rank(n: int, size: int) -> np.ndarray:
    """Returns the probability that the first of n in a random subset has each rank, float64 [n]."""
    ranks = np.arange(n)
    absent = np.concatenate([[1.0], np.cumprod((n - size - ranks[:-1]).clip(0) / (n - ranks[:-1]))])
    return absent * size / (n - ranks)


class KernelMatrices(NamedTuple):
    """A Gaussian kernel's values, float64: of training examples [n, n], of test points with them [m, n]."""

    train: np.ndarray
    test: np.ndarray


def gaussian_matrices(train: Split, test: Split) -> KernelMatrices:
    """Returns exp(−‖x − x'‖² / s) of the pixels, s the mean squared distance of two training examples."""
    distances = [squared_distances(split.images, train.images) for split in (train, test)]
    scale = distances[0].mean() or 1.0
    return KernelMatrices(*(np.exp(-part / scale) for part in distances))


def check_size(n: int) -> None:
    """Raises `UserError` for more examples than a matrix is made of."""
    allowed = f"at most {MOST_EXAMPLES} for kernel_ridge, which solves with the whole matrix"
    require(n <= MOST_EXAMPLES, "data.examples", n, allowed)


def kernel_ridge(matrices: KernelMatrices, labels: np.ndarray, ridge: float = RIDGE) -> Learner:
    """Returns the learner that answers with the greatest entry of K(x, S) (K_SS + λ)⁻¹ Y, Y one-hot.

    Args:
      matrices: as `gaussian_matrices` returns them.
      labels: int32 [n].
      ridge: λ.
    """
    targets = np.eye(int(labels.max()) + 1)[labels]

    def answer(is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for row in is_member:
            (subset,) = np.nonzero(row)
            weights = _solve(matrices.train[np.ix_(subset, subset)], targets[subset], ridge)
            for part, matrix in zip(answers, matrices, strict=True):
                part.append((matrix[:, subset] @ weights).argmax(axis=1).astype(np.int32))
        return np.stack(answers[0]), np.stack(answers[1])

    return answer


def leave_one_out(matrix: np.ndarray, labels: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Returns the memorization by kernel ridge regression on all examples: right with each, less without it.

    Without example i the value at i is y_i − [A Y]_i / A_ii with A = (K + λ)⁻¹, so nothing is solved again.

    Args:
      matrix: K, float64 [n, n].
      labels: int32 [n].
      ridge: λ.

    Returns:
      float64 [n], −1, 0 or 1.

    Example:
      >>> leave_one_out(np.array([[1.0, 0.9], [0.9, 1.0]]), np.array([0, 1]))
      array([1., 1.])
    """
    targets = np.eye(int(labels.max()) + 1)[labels]
    inverse = _solve(matrix, np.eye(len(matrix)), ridge)
    weights = inverse @ targets
    without = targets - weights / np.diag(inverse)[:, None]
    right, right_without = ((f.argmax(axis=1) == labels) for f in (matrix @ weights, without))
    return right.astype(np.float64) - right_without


def _solve(matrix: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    shifted = matrix + ridge * np.eye(len(matrix))
    solution: np.ndarray = scipy.linalg.solve(shifted, targets, assume_a="pos")
    return solution
