"""How far an MLP's weights may move before training accuracy falls: at random, and in the worst direction.

PAC-Bayes flatness and sharpness as Jiang et al. 2020 (arXiv 1912.02178) define them: the largest perturbation
that costs at most a tenth of the training examples. Noise has standard deviation σ; a public code passes σ² to
a function that takes the standard deviation.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

# Share of the training examples that a perturbation may cost.
COST = 0.1
# Bisections of log₂, between these ends: the result is within a factor of 1.003.
LOW, HIGH, _BISECTIONS = -16.0, 0.0, 12
DRAWS, _ASCENTS = 5, 3


@functools.partial(jax.jit, static_argnums=(0, 5))
def noise(
    model: nn.Module,
    params: Any,
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    draws: int = DRAWS,
) -> jax.Array:
    """Returns the largest σ for which Gaussian noise on all weights costs at most `COST`, a mean over draws.

    The draws, scaled by σ, are the same for all σ and for all networks of one shape.

    Args:
      model: whose `apply` gives logits [n, classes] of `{"params": params}` and images.
      params: of the network, float32.
      images: as the model takes them, [n, ...].
      labels: int [n].
      key: of the draws.
      draws: how many.

    Returns:
      float32 scalar in [2⁻¹⁶, 1]; 2⁻¹⁶ also where less already costs too much.
    """
    flat, logits_of = _flatten(model, params, images)
    keys = jax.random.split(key, draws)

    def lost(sigma: jax.Array) -> jax.Array:
        def of_draw(key: jax.Array) -> jax.Array:
            moved = flat + sigma * jax.random.normal(key, flat.shape)
            return _correct(logits_of(moved), labels)

        return _correct(logits_of(flat), labels) - jax.lax.map(of_draw, keys).mean()

    return _largest(lambda sigma: lost(sigma) <= COST)


@functools.partial(jax.jit, static_argnums=0)
def radius(model: nn.Module, params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the largest α for which gradient ascent within |u|_∞ ≤ α costs at most `COST`.

    Ascent on the training loss takes three steps of α / 2 along the gradient's signs, each followed by
    clipping. It need not find the worst u, so the result bounds α from above.

    Args:
      model, params, images, labels: as for `noise`.

    Returns:
      float32 scalar in [2⁻¹⁶, 1].
    """
    flat, logits_of = _flatten(model, params, images)

    def loss(at: jax.Array) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(at), labels)
        return losses.mean()

    def lost(alpha: jax.Array) -> jax.Array:
        def ascend(_: Any, u: jax.Array) -> jax.Array:
            return jnp.clip(u + alpha / 2 * jnp.sign(jax.grad(loss)(flat + u)), -alpha, alpha)

        u = jax.lax.fori_loop(0, _ASCENTS, ascend, jnp.zeros_like(flat))
        return _correct(logits_of(flat), labels) - _correct(logits_of(flat + u), labels)

    return _largest(lambda alpha: lost(alpha) <= COST)


def _flatten(
    model: nn.Module, params: Any, images: jax.Array
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Returns the parameters as one vector, and a function from one to logits."""
    flat, unravel = ravel_pytree(params)

    def logits_of(at: jax.Array) -> jax.Array:
        logits: jax.Array = model.apply({"params": unravel(at)}, images)  # type: ignore[assignment]
        return logits

    return flat, logits_of


def _correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the share of correct answers."""
    return jnp.mean(logits.argmax(axis=1) == labels)


def _largest(holds: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Returns the largest size, within the ends, up to which a condition holds; bisection on its logarithm."""

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        is_kept = holds(2.0**middle)
        return jnp.where(is_kept, middle, low), jnp.where(is_kept, high, middle)

    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.float32(LOW), jnp.float32(HIGH)))
    return 2.0**low


def measure(sigma: float, alpha: float, distance: float, n: int) -> dict[str, float]:
    """Returns the measures of flatness by name, each √(measure / n).

    `sharpness` is 1 / α², `flatness` 1 / σ², and `distance_over_sigma` ‖w − w⁰‖² / 4σ², the leading term of the
    PAC-Bayes bound whose prior is the same noise around the start.

    Args:
      sigma: as `noise` returns it.
      alpha: as `radius` returns it.
      distance: ‖w − w⁰‖₂.
      n: training examples.

    Example:
      >>> measure(sigma=0.05, alpha=0.001, distance=8.0, n=1600)
      {'sharpness': 25.0, 'flatness': 0.5, 'distance_over_sigma': 2.0}
    """
    root = math.sqrt(n)
    return {
        "sharpness": 1 / alpha / root,
        "flatness": 1 / sigma / root,
        "distance_over_sigma": distance / (2 * sigma) / root,
    }
