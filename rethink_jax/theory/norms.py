"""Measures of an MLP's complexity from its weights, its initial weights and its margins on training examples.

All are on one scale, √(measure / n) for n training examples, as Jiang et al. 2020 (arXiv 1912.02178) compare
them. Norms of layers are those of kernels W [inputs, outputs], without biases, as in their code and that of
Dziugaite et al. 2020; the path norm and the distance to the start count biases, too.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from rethink_jax.theory import measures
from rethink_jax.training import metrics

# Of the training margins: few are smaller, and one odd example does not decide (Jiang et al. 2019).
MARGIN_PERCENTILE = 10


class Layer(NamedTuple):
    """What is measured of a layer with kernel W that began as W⁰.

    Attributes:
      spectral: the largest singular value of W.
      frobenius: ‖W − W⁰‖_F.
      group: ‖W − W⁰‖₂,₁, the sum over units of the norm of what comes in.
    """

    spectral: float
    frobenius: float
    group: float


def margin(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the tenth percentile γ of the margins, of logits [n, classes] and labels [n]."""
    return float(np.percentile(measures.margins(logits, labels), MARGIN_PERCENTILE))


def layers(params: dict[str, Any], start: dict[str, Any]) -> list[Layer]:
    """Returns what is measured of each layer of an MLP; initial parameters of the same shapes."""
    found = []
    for name in sorted(params):
        kernel, before = (np.asarray(tree[name]["kernel"], np.float64) for tree in (params, start))
        moved = kernel - before
        found.append(
            Layer(
                float(np.linalg.norm(kernel, 2)),
                float(np.linalg.norm(moved)),
                float(np.linalg.norm(moved, axis=0).sum()),
            )
        )
    return found


def measure(
    params: dict[str, Any], start: dict[str, Any], gamma: float, n: int
) -> dict[str, float]:
    """Returns the measures of an MLP by name, each √(measure / n); ∞ where γ is needed and is not positive.

    With s_i the spectral norm of layer i of d:

    | name | measure | source |
    |---|---|---|
    | `parameters` | their number | |
    | `inverse_margin` | 1 / γ² | Jiang et al. 2020 |
    | `spectral` | Π s_i² / γ² | Jiang et al. 2020 |
    | `spectral_distance` | Π s_i² · Σ ‖W_i − W_i⁰‖_F² / s_i² / γ² | Neyshabur et al. 2018, arXiv 1707.09564 |
    | `bartlett` | Π s_i² · (Σ (‖W_i − W_i⁰‖₂,₁ / s_i)^⅔)³ / γ² | Bartlett et al. 2017, arXiv 1706.08498 |
    | `path_norm` | Σ over paths of Π w² / γ² | Neyshabur et al. 2015 |
    | `distance` | ‖w − w⁰‖² | Nagarajan and Kolter 2019 |

    Factors of depth, width and logarithms of the bounds are left out.

    Args:
      params: of `rethink_jax.models.mlp.MLP`.
      start: its initial parameters.
      gamma: as `margin` returns it.
      n: training examples.

    Example:
      >>> layer = {"kernel": np.diag([3.0, 4.0]), "bias": np.zeros(2)}
      >>> zero = {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)}
      >>> found = measure({"Dense_0": layer}, {"Dense_0": zero}, gamma=2.0, n=100)
      >>> found["spectral"], found["bartlett"], found["distance"], found["inverse_margin"]
      (0.2, 0.35, 0.5, 0.05)
    """
    per_layer = layers(params, start)
    product = math.prod(layer.spectral for layer in per_layer)
    moved = sum((layer.frobenius / layer.spectral) ** 2 for layer in per_layer)
    groups = sum((layer.group / layer.spectral) ** (2 / 3) for layer in per_layer)
    over_margin = 1 / gamma if gamma > 0 else math.inf
    number = sum(np.size(part) for layer in params.values() for part in layer.values())
    roots = {
        "parameters": math.sqrt(number),
        "inverse_margin": over_margin,
        "spectral": product * over_margin,
        "spectral_distance": product * math.sqrt(moved) * over_margin,
        "bartlett": product * groups**1.5 * over_margin,
        "path_norm": measures.path_norm(params) * over_margin,
        "distance": metrics.of_weights(params, start)["weight_distance"],
    }
    return {name: root / math.sqrt(n) for name, root in roots.items()}
