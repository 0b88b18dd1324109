"""Measures of complexity, of a network or of its labels, to be held against the test error (section 2.2)."""

import math
from typing import Any

import numpy as np

from rethink_jax.kernels.kernel import gaussian
from rethink_jax.kernels.matrix import InnerProducts, KernelMatrix, default_dtype
from rethink_jax.kernels.preconditioner import precondition
from rethink_jax.kernels.solve import conjugate_gradients, is_solved

# Of the kernel's solution; coarser residuals change the norm's third digit.
_TOLERANCE, _RANK, _MOST_ITERATIONS = 1e-4, 1000, 3000


def vc_dimension(parameters: int, layers: int) -> float:
    """Returns W L log₂ W, the order of a ReLU network's VC dimension, up to a constant factor.

    Bartlett, Harvey, Liaw, Mehrabian 2019: between W L log(W / L) and W L log W.

    Args:
      parameters: W.
      layers: L, those with weights.
    """
    return parameters * layers * math.log2(parameters)


def uniform_stability_bound(beta: float, n: int, confidence: float) -> float:
    """Returns by how much the loss on new points may exceed that of training (Mohri et al. 2018, theorem 14.2).

    Args:
      beta: the uniform stability, of a loss in [0, 1]: the greatest change when one example is replaced.
      n: the number of training examples.
      confidence: the probability with which the bound holds.
    """
    return beta + (2 * n * beta + 1) * math.sqrt(math.log(1 / (1 - confidence)) / (2 * n))


def path_norm(params: dict[str, Any]) -> float:
    """Returns √ Σ over paths of the product of squared weights, of an MLP with biases (Neyshabur et al. 2015).

    Args:
      params: of `rethink_jax.models.mlp.MLP`.
    """
    layers = [params[name] for name in sorted(params, key=lambda name: int(name.split("_")[-1]))]
    along = np.ones(layers[0]["kernel"].shape[0])
    for layer in layers:
        kernel, bias = (np.asarray(layer[part], np.float64) for part in ("kernel", "bias"))
        along = along @ kernel**2 + bias**2
    return math.sqrt(along.sum())


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the label's logit less the greatest other one: [n], for logits [n, classes] and labels [n]."""
    own = logits[np.arange(len(labels)), labels]
    other_logits = logits.astype(np.float64)
    other_logits[np.arange(len(labels)), labels] = -np.inf
    return own - other_logits.max(axis=1)


def interpolate(
    train: np.ndarray, test: np.ndarray, targets: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolates targets with a Gaussian kernel and the least norm; γ is one over the mean squared distance.

    Args:
      train: points, floating [n, d].
      test: points, floating [m, d].
      targets: float64 [n, k].
      seed: of the preconditioner.

    Returns:
      √(yᵀK⁻¹y / n) of each column, float64 [k]: it bounds the Rademacher complexity of all functions whose norm
      is as small; and the values at the test points, float64 [m, k].

    Raises:
      RunFailed: the matrix is singular in its precision, float64 up to 20,000 examples.
    """
    n = len(train)
    products = InnerProducts(n, len(test), default_dtype(n))
    products.add(np.concatenate([train, test]), lambda fraction: None)
    distance = products.mean_square_distance
    matrix = products.matrix(gaussian(1 / distance, distance))
    solution = _solve(matrix, targets, seed)
    squares = np.maximum((solution * (matrix @ solution)).sum(axis=0), 0)
    return np.sqrt(squares / n), matrix.predict(solution)


def _solve(matrix: KernelMatrix, targets: np.ndarray, seed: int) -> np.ndarray:
    preconditioner = precondition(matrix, 0.0, min(_RANK, matrix.n), seed)
    iterates = conjugate_gradients(matrix, targets, 0.0, preconditioner, _TOLERANCE)
    solved = (i for i in iterates if is_solved(i, _TOLERANCE, _MOST_ITERATIONS))
    return next(solved).solution
