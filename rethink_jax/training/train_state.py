"""What a training run carries from step to step."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from rethink_jax.corruptions import key_of
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


@jax_settings.pin_settings()
def create(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    """Returns the state at step 0, a function of the seed alone.

    Args:
      model: as `rethink_jax.models.create` returns it.
      optimizer: as `optimizer.make_optimizer` returns it.
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

    return init(key_of(seed))
