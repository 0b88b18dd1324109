"""What a training run carries from step to step, and the optimizer that moves it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from ml_collections import ConfigDict


class TrainState(struct.PyTreeNode):
    """The whole state of a run: everything else is a function of the config and of `step`.

    Attributes:
      step: int32 scalar, the optimizer steps taken.
      params: the model's parameters, float32.
      batch_stats: BatchNorm's running statistics, float32; empty without BatchNorm.
      opt_state: optax's.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


def create(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    """Returns the state at step 0, a function of the seed alone.

    Args:
      model: as `rethink_jax.models.create` returns it.
      optimizer: as `make_optimizer` returns it.
      image_shape: (height, width, channels) of what the model sees.
      seed: `config.seed`.
    """

    @jax.jit
    def init(key: jax.Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, *image_shape), jnp.float32))
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
        )

    return init(jax.random.key(seed, impl="threefry2x32"))


def learning_rate(config: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step: multiplied by `decay_per_epoch` after each epoch."""
    return optax.exponential_decay(
        config.optimizer.learning_rate,
        transition_steps=steps_per_epoch,
        decay_rate=config.optimizer.decay_per_epoch,
        staircase=True,
    )


def make_optimizer(config: ConfigDict, steps_per_epoch: int) -> optax.GradientTransformation:
    """Returns SGD with momentum (section 3 and appendix A of the paper)."""
    return optax.sgd(
        learning_rate(config, steps_per_epoch), momentum=config.optimizer.momentum or None
    )
