"""Gradient descent on the first layer of a two-layer ReLU network (Arora et al. 2019, arXiv 1901.08584).

f(x) = m^(−1/2) Σ_r a_r max(w_r·x, 0), a_r = ±1 fixed. The loss is ½ Σ_i (f(x_i) − y_i)². Units come in pairs of
equal w and opposite a, so that f = 0 at the start.

Every gradient is a sum of inputs, so that Z_ir = w_r·x_i tells all: a step is Z ← Z − η G D with G_ij = x_i·x_j
and D the loss's derivative by Z. For n inputs of more than n/2 coordinates this costs less than steps of w.
"""

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rethink_jax.kernels.matrix import precision
from rethink_jax.runs import display
from rethink_jax.theory import gram

logger = logging.getLogger(__name__)


def start(vectors: np.ndarray, width: int, std: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws w ~ N(0, κ²I) in pairs and returns w·x and a.

    Args:
      vectors: floating [n, d], the inputs.
      width: the number of units, even.
      std: κ. H∞ does not depend on it; the larger it is, the fewer units change between active and inactive.
      seed: of w, with the width.

    Returns:
      Z [n, width] and a [width], in the dtype of the vectors.
    """
    rng = np.random.default_rng([seed, width])
    weights = std * rng.standard_normal((width // 2, vectors.shape[1]))
    half = vectors @ weights.astype(vectors.dtype).T
    signs = np.repeat(np.array([1, -1], vectors.dtype), width // 2)
    return np.concatenate([half, half], axis=1), signs


def descend(
    products: np.ndarray,
    start: np.ndarray,
    signs: np.ndarray,
    y: np.ndarray,
    rate: float,
    steps: int,
    is_linear: bool = False,
) -> np.ndarray:
    """Returns ‖f − y‖ after 0, 1, … `steps` steps of gradient descent, [steps + 1], in the arguments' dtype.

    Args:
      products: x_i·x_j, floating [n, n].
      start: Z, [n, m].
      signs: a, [m].
      y: [n].
      rate: the learning rate η.
      steps: how many.
      is_linear: whether the units that are active at the start are so to the end, as in an infinite network.
    """
    with precision(y.dtype):
        return np.asarray(_descend(products, start, signs, y, y.dtype.type(rate), steps, is_linear))


@functools.partial(jax.jit, static_argnames=("steps", "is_linear"))
def _descend(
    products: jax.Array,
    start: jax.Array,
    signs: jax.Array,
    y: jax.Array,
    rate: jax.Array,
    steps: int,
    is_linear: bool,
) -> jax.Array:
    weights = signs / jnp.sqrt(jnp.asarray(signs.size, signs.dtype))

    def step(z: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        is_active = ((start if is_linear else z) > 0).astype(z.dtype)
        missing = (is_active * z) @ weights - y
        derivative = missing[:, None] * is_active * weights[None]
        return z - rate * (products @ derivative), jnp.linalg.norm(missing)

    return lax.scan(step, start, length=steps + 1)[1]


class Training(NamedTuple):
    """What networks are trained on, and what becomes of one of infinite width.

    Attributes:
      vectors: float64 [n, d], of unit length.
      labels: the names of labels and ±1 for each example, float64 [n].
      infinite: the spectrum of H∞ and of these labels.
      steps: of gradient descent, at a rate of one over H∞'s largest eigenvalue.
    """

    vectors: np.ndarray
    labels: dict[str, np.ndarray]
    infinite: gram.Spectrum
    steps: int

    def summarize(self, widths: Sequence[int], std: float, seed: int) -> dict[str, Any]:
        """Trains a network of each width on each of the labels, in float32, from weights of this κ and seed."""
        rate = float(1 / self.infinite.eigenvalues[0])
        predicted = self.infinite.residuals(rate, self.steps)
        vectors = self.vectors.astype(np.float32)
        products = (self.vectors @ self.vectors.T).astype(np.float32)
        networks = []
        for width in widths:
            z, signs = start(vectors, width, std, seed)
            for i, (kind, y) in enumerate(self.labels.items()):
                y = y.astype(np.float32)
                residuals = descend(products, z, signs, y, rate, self.steps)
                networks.append(summarize_network(width, kind, residuals, predicted[:, i]))
                logger.info("%d units trained on %s", width, kind.replace("_", " "))
        return {
            "examples": len(vectors),
            "learning_rate": rate,
            "initial_std": std,
            "steps": self.steps,
            "recorded": recorded_steps(self.steps),
            "networks": networks,
        }


def recorded_steps(steps: int) -> list[int]:
    """Returns 0, the last step and about a hundred between."""
    return sorted({*np.linspace(0, steps, min(steps, 100) + 1).astype(int).tolist()})


_SMALLEST = 1e-6


def summarize_network(
    width: int, kind: str, residuals: np.ndarray, predicted: np.ndarray
) -> dict[str, Any]:
    """Returns a network's ‖f − y‖ / ‖y‖ beside the prediction, for f = 0 at the start."""
    steps = recorded_steps(len(residuals) - 1)
    measured, expected = residuals / residuals[0], predicted / predicted[0]
    halved = [np.flatnonzero(curve <= 0.5) for curve in (measured, expected)]
    return {
        "width": width,
        "labels": kind,
        "residuals": measured[steps].tolist(),
        "predicted": expected[steps].tolist(),
        # Below it float32's rounding of the output is what is left.
        "largest_difference": float(np.abs(measured / expected - 1)[expected > _SMALLEST].max()),
        "steps_to_half": [int(found[0]) if len(found) else None for found in halved],
    }


def table(training: dict[str, Any]) -> display.Rows:
    """Returns where each network ended and how far it was from the prediction, in words."""
    title = "Gradient descent on {examples:,} examples, {steps:,} steps, κ = {initial_std:g}: ‖f − y‖ / ‖y‖"
    columns = (
        *("units", "labels", "at the end", "predicted", "largest difference"),
        *("steps to ½", "predicted"),
    )
    rows = []
    for one in training["networks"]:
        halved = ["—" if steps is None else f"{steps:,}" for steps in one["steps_to_half"]]
        rows.append(
            (
                f"{one['width']:,}",
                one["labels"].replace("_", " "),
                *(f"{one[field][-1]:.4f}" for field in ("residuals", "predicted")),
                display.percent(one["largest_difference"]),
                *halved,
            )
        )
    return title.format(**training), columns, rows


def draw(figure: Any, training: dict[str, Any]) -> None:
    """Draws residuals against steps, predictions dashed, on an empty figure of matplotlib's."""
    axes = figure.subplots()
    kinds = list(dict.fromkeys(one["labels"] for one in training["networks"]))
    widths = sorted({one["width"] for one in training["networks"]})
    for one in training["networks"]:
        colour = ("tab:blue", "tab:orange")[kinds.index(one["labels"])]
        label = f"{one['labels'].replace('_', ' ')}, {one['width']:,} units"
        alpha = 0.4 + 0.6 * (widths.index(one["width"]) + 1) / len(widths)
        axes.plot(training["recorded"], one["residuals"], color=colour, alpha=alpha, label=label)
        if one["width"] == widths[-1]:
            axes.plot(training["recorded"], one["predicted"], "k--", linewidth=0.8)
    axes.plot([], [], "k--", linewidth=0.8, label="predicted")
    axes.set(xlabel="step", ylabel="‖f − y‖ / ‖y‖", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
