"""SGD as the paper's sections and appendix describe it: learning rates, momentum, weight decay."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict


def learning_rate(
    config: ConfigDict,
    steps_per_epoch: int,
    total_steps: int,
    initial: jax.typing.ArrayLike | None = None,
) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    With the schedule `exponential` it is multiplied by `decay_per_epoch` after each epoch, and by 0.1 after
    each of `drop_epochs`. With `cosine` it falls from `learning_rate` along half a cosine and is 0 after the
    run's last step (Loshchilov and Hutter 2017). A warm-up multiplies either by a factor that rises linearly
    to 1 over the first `warmup_epochs` (Goyal et al. 2017); both schedules begin with it, not after it.

    Args:
      config: resolved.
      steps_per_epoch: of the run.
      total_steps: of the run.
      initial: in place of `config.optimizer.learning_rate`, float32.
    """
    initial = config.optimizer.learning_rate if initial is None else initial
    rate = (
        _cosine(initial, total_steps)
        if config.optimizer.schedule == "cosine"
        else _exponential(config, initial, steps_per_epoch)
    )
    warmup_steps = round(config.optimizer.warmup_epochs * steps_per_epoch)
    if not warmup_steps:
        return rate

    def warmed_up(step: jax.typing.ArrayLike) -> jax.Array:
        factor = (jnp.asarray(step, jnp.float32) + 1.0) / float(warmup_steps)
        return jnp.minimum(factor, 1.0) * rate(step)

    return warmed_up


def _cosine(initial: Any, total_steps: int) -> optax.Schedule:
    rate = optax.cosine_decay_schedule(initial, total_steps)
    return lambda step: rate(jnp.asarray(step, jnp.float32))


def _exponential(config: ConfigDict, initial: Any, steps_per_epoch: int) -> optax.Schedule:
    decay = optax.exponential_decay(
        initial,
        transition_steps=steps_per_epoch,
        decay_rate=config.optimizer.decay_per_epoch,
        staircase=True,
    )
    if not config.optimizer.drop_epochs:
        return decay
    drops = steps_per_epoch * np.asarray(config.optimizer.drop_epochs, np.int64)
    drops = np.minimum(drops, 2**31 - 1).astype(np.int32)  # no run has so many steps

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        factors = jnp.where(jnp.asarray(step, jnp.int32) >= drops, 0.1, 1.0)
        return decay(step) * jnp.prod(factors.astype(jnp.float32))

    return rate


def make_optimizer(
    config: ConfigDict, rate: optax.Schedule, weight_decay: jax.Array | None = None
) -> optax.GradientTransformation:
    """Returns SGD with momentum and weight decay (section 3 and appendix A of the paper).

    Weight decay is λw, added to the gradient; the reported loss leaves it out.

    Args:
      config: resolved.
      rate: as `learning_rate` returns it.
      weight_decay: in place of the coefficient of a config that has one, float32.
    """
    sgd = optax.sgd(rate, momentum=config.optimizer.momentum or None)
    if not config.optimizer.weight_decay:
        return sgd
    mask = functools.partial(decay_mask, on=config.optimizer.weight_decay_on)
    coefficient: Any = config.optimizer.weight_decay if weight_decay is None else weight_decay
    return optax.chain(optax.add_decayed_weights(coefficient, mask), sgd)


def decay_mask(params: Any, on: str) -> Any:
    """Returns which parameters weight decay touches, a tree of booleans.

    Args:
      params: the model's.
      on: `all`; `kernels`, those of convolutions and dense layers; `hidden_dense`, the kernels of the dense
        layers before the last one: our reading of the paper's AlexNet.
    """
    dense = sorted((name for name in params if name.startswith("Dense_")), key=_number)

    def touches(path: tuple[Any, ...], leaf: Any) -> bool:
        first, last = path[0].key, path[-1].key
        return on == "all" or (last == "kernel" and (on == "kernels" or first in dense[:-1]))

    return jax.tree_util.tree_map_with_path(touches, params)


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
