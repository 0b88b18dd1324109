"""A network of one hidden layer with Gaussian weights: trained, drawn, evaluated (Dziugaite and Roy 2017).

A step draws the hidden units' inputs and the output instead of the weights: given an example, these are
independent Gaussians whose means and variances are sums over the weights (Kingma et al. 2015, arXiv
1506.02557). Each example of a batch thus has weights of its own, at the price of two products of matrices
instead of one.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from rethink_jax.corruptions import key_of
from rethink_jax.pipeline import batching
from rethink_jax.theory.pac_bayes_bounds import LARGEST_VARIANCE, PER_E_FOLD

# Of the authors' code: weights cut at two of these, biases 0.
INITIAL_STD = 0.04
MOMENTUM, SGD_BATCH = 0.9, 100
FIRST_LOG_VARIANCE = -6.0
# The rate of Adam falls along a cosine to this part of it.
_LAST_RATE = 0.01
_ROWS = 1000  # that are evaluated at a time

_WEIGHTS, _STEPS, _EVALUATION = range(3)


class Weights(NamedTuple):
    """Weights, or something for each of them; the last row or entry is for biases.

    Attributes:
      hidden: float32 [d + 1, m].
      output: float32 [m + 1].
    """

    hidden: jax.Array
    output: jax.Array


class Posterior(NamedTuple):
    """N(means, exp(log_variances)), and the logarithm of the prior's variance λ.

    Attributes:
      means, log_variances: as `Weights`.
      log_prior: float32 scalar.
    """

    means: Weights
    log_variances: Weights
    log_prior: jax.Array


class State(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      step: epochs so far, of SGD and then of the bound's optimization; int32 scalar.
      posterior: during SGD its means alone change.
      sgd: the state of SGD.
      adam: the state of the bound's optimizer.
    """

    step: Any
    posterior: Posterior
    sgd: Any
    adam: Any


class Data(NamedTuple):
    """Examples of two classes.

    Attributes:
      inputs: float32 [n, d + 1], the last column 1.
      labels: ±1, float32 [n].
    """

    inputs: jax.Array
    labels: jax.Array


def initial_weights(seed: int, inputs: int, width: int) -> Weights:
    """Draws the weights that SGD starts from, the prior's means."""
    keys = jax.random.split(jax.random.fold_in(key_of(seed), _WEIGHTS))

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return INITIAL_STD * jax.random.truncated_normal(key, -2, 2, shape, jnp.float32)

    hidden, output = draw(keys[0], (inputs, width)), draw(keys[1], (width,))
    return Weights(jnp.pad(hidden, ((0, 1), (0, 0))), jnp.pad(output, (0, 1)))


def initial_state(means: Weights, rate: optax.Schedule) -> State:
    """Returns the state before the first epoch, with these weights for means."""
    log_variances = jax.tree.map(lambda part: jnp.full_like(part, FIRST_LOG_VARIANCE), means)
    posterior = Posterior(means, log_variances, jnp.asarray(FIRST_LOG_VARIANCE, jnp.float32))
    sgd, adam = _sgd(0.0).init(means), optax.adam(rate).init(posterior)
    return State(jnp.zeros((), jnp.int32), posterior, sgd, adam)


def _sgd(rate: jax.typing.ArrayLike) -> optax.GradientTransformation:
    return optax.sgd(rate, MOMENTUM)


def falling_rate(rate: float, epochs: int, batches: int) -> optax.Schedule:
    """Returns the learning rate of Adam as a function of its step."""
    schedule = optax.cosine_decay_schedule(rate, epochs * batches, _LAST_RATE)
    return lambda step: schedule(jnp.asarray(step, jnp.float32))


def outputs(weights: Weights, inputs: jax.Array) -> jax.Array:
    """Returns the network's outputs, float32 [n]; their signs are its answers."""
    hidden = jnp.maximum(inputs @ weights.hidden, 0.0)
    return hidden @ weights.output[:-1] + weights.output[-1]


def draw_outputs(posterior: Posterior, inputs: jax.Array, key: jax.Array) -> jax.Array:
    """Returns outputs float32 [n], each of a network of its own with weights drawn from the posterior."""
    keys = jax.random.split(key)
    means, variances = posterior.means, jax.tree.map(jnp.exp, posterior.log_variances)
    hidden = _draw(inputs @ means.hidden, jnp.square(inputs) @ variances.hidden, keys[0])
    hidden = jnp.maximum(hidden, 0.0)
    mean = hidden @ means.output[:-1] + means.output[-1]
    variance = jnp.square(hidden) @ variances.output[:-1] + variances.output[-1]
    return _draw(mean, variance, keys[1])


def _draw(mean: jax.Array, variance: jax.Array, key: jax.Array) -> jax.Array:
    return mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape, jnp.float32)


def surrogate(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean logistic loss over log 2, which is at least the share of wrong answers."""
    return jnp.mean(jax.nn.softplus(-labels * values)) / jnp.log(jnp.float32(2))


def limit_of(posterior: Posterior, prior_means: Weights, examples: int, delta: float) -> jax.Array:
    """Returns the limit of `pac_bayes_bounds.choose_prior` for any λ, not only those of the grid."""

    def divergence(mean: jax.Array, log_variance: jax.Array, prior_mean: jax.Array) -> jax.Array:
        moved = jnp.exp(log_variance) + jnp.square(mean - prior_mean)
        ratio = posterior.log_prior - log_variance
        return 0.5 * jnp.sum(moved * jnp.exp(-posterior.log_prior) - 1 + ratio)

    kl = sum(map(divergence, posterior.means, posterior.log_variances, prior_means))
    index = jnp.maximum(PER_E_FOLD * (float(np.log(LARGEST_VARIANCE)) - posterior.log_prior), 1.0)
    constant = float(np.log(examples * np.pi**2 / (6 * delta)))
    return (kl + 2 * jnp.log(index) + constant) / (examples - 1)


@jax.jit
def sgd_epoch(state: State, data: Data, ids: jax.Array, rate: jax.typing.ArrayLike) -> State:
    """Trains the means for an epoch, as an ordinary network, on batches of ids int32 [batches, size]."""

    def loss(means: Weights, batch: jax.Array) -> jax.Array:
        return surrogate(outputs(means, data.inputs[batch]), data.labels[batch])

    def step(carried: tuple[Weights, Any], batch: jax.Array) -> tuple[tuple[Weights, Any], None]:
        means, own = carried
        updates, own = _sgd(rate).update(jax.grad(loss)(means, batch), own)
        return (optax.apply_updates(means, updates), own), None

    (means, sgd), _ = lax.scan(step, (state.posterior.means, state.sgd), ids)
    return State(state.step + 1, state.posterior._replace(means=means), sgd, state.adam)


@functools.partial(jax.jit, static_argnames=("rate", "delta"))
def bound_epoch(
    state: State,
    data: Data,
    prior_means: Weights,
    ids: jax.Array,
    key: jax.Array,
    *,
    rate: optax.Schedule,
    delta: float,
) -> tuple[State, jax.Array]:
    """Lowers surrogate + √(limit/2), Pinsker's bound, for an epoch, and returns its mean over the steps.

    Args:
      state: where the last epoch ended.
      data: the training examples.
      prior_means: w₀.
      ids: of the batches, int32 [batches, size].
      key: of the epoch's draws.
      rate: as `falling_rate` returns it.
      delta: δ of the bound.
    """
    optimizer = optax.adam(rate)

    def objective(posterior: Posterior, batch: jax.Array, key: jax.Array) -> jax.Array:
        values = draw_outputs(posterior, data.inputs[batch], key)
        limit = limit_of(posterior, prior_means, len(data.labels), delta)
        return surrogate(values, data.labels[batch]) + jnp.sqrt(limit / 2)

    def step(carried: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        posterior, own = carried
        value, gradient = jax.value_and_grad(objective)(posterior, *at)
        with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes dtypes
            updates, own = optimizer.update(gradient, own)
        return (optax.apply_updates(posterior, updates), own), value

    keys = jax.random.split(key, len(ids))
    (posterior, adam), values = lax.scan(step, (state.posterior, state.adam), (ids, keys))
    return State(state.step + 1, posterior, state.sgd, adam), values.mean()


def epoch_key(seed: int, epoch: int) -> jax.Array:
    """Returns the key of an epoch's draws."""
    return jax.random.fold_in(jax.random.fold_in(key_of(seed), _STEPS), epoch)


def pass_key(seed: int, split: int, number: int) -> jax.Array:
    """Returns the key of one pass over a split, with which its examples' weights are drawn."""
    key = jax.random.fold_in(jax.random.fold_in(key_of(seed), _EVALUATION), split)
    return jax.random.fold_in(key, number)


@jax.jit
def _count_wrong(weights: Weights | Posterior, data: Data, ids: jax.Array, key: Any) -> jax.Array:
    def count(total: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        own, key = at
        inputs = data.inputs[own]
        if isinstance(weights, Posterior):
            values = draw_outputs(weights, inputs, key)
        else:
            values = outputs(weights, inputs)
        # What is not a number is wrong.
        is_wrong = ~(values * data.labels[own] > 0) & (own != batching.PADDING)
        return total + jnp.sum(is_wrong, dtype=jnp.int32), None

    return lax.scan(count, jnp.zeros((), jnp.int32), (ids, jax.random.split(key, len(ids))))[0]


def count_wrong(weights: Weights | Posterior, data: Data, key: jax.Array) -> int:
    """Returns how many answers are wrong; with a posterior each example has weights of its own draw."""
    n = len(data.labels)
    ids = batching.in_batches(np.arange(n, dtype=np.int32), min(n, _ROWS))
    return int(_count_wrong(weights, data, ids, key))
