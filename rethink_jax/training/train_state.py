"""What a training run carries from step to step."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from rethink_jax.distributed import jax_settings


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


def make_initialize(
    model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, int, int]
) -> Callable[[jax.Array], TrainState]:
    """Returns a compiled function from a key, as `key_of(config.seed)`, to the state at step 0.

    Args:
      model: as `rethink_jax.models.create` returns it.
      optimizer: as `optimizer.make_optimizer` returns it.
      image_shape: (height, width, channels) of what the model sees.
    """

    @jax_settings.pin_settings()
    @jax.jit
    def initialize(key: jax.Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, *image_shape), jnp.float32))
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
        )

    return initialize
