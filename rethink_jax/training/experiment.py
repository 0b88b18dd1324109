"""What a resolved config stands for, built on this machine's devices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data, models
from rethink_jax.distributed import parallel
from rethink_jax.pipeline import loaders, preprocess
from rethink_jax.training import steps, train_state
from rethink_jax.training.optimizer import learning_rate, make_optimizer
from rethink_jax.training.train_state import TrainState


class Experiment(NamedTuple):
    """What a resolved config stands for, on this machine's devices.

    Attributes:
      config: resolved.
      dataset_info: sizes of the data set.
      loader: of both splits' batches.
      initial_state: of NumPy arrays.
      parameters: how many the model has.
      train_steps, eval_steps: of `rethink_jax.training.steps`, mapped over the devices.
      learning_rate: as a function of the step.
    """

    config: ConfigDict
    dataset_info: data.DatasetInfo
    loader: loaders.InMemoryLoader | loaders.StreamingLoader
    initial_state: TrainState
    parameters: int
    train_steps: Callable
    eval_steps: Callable
    learning_rate: Callable[[int], Any]


def build(config: ConfigDict, opened: data.Dataset | data.Source | None = None) -> Experiment:
    """Builds what a run needs: loader, initial state, and steps mapped over the devices.

    Args:
      config: resolved.
      opened: the config's data, as `loaders.open_data` returns them; `None` opens them here.
    """
    loader = loaders.make(config, opened)
    info = loader.info
    steps_per_epoch = config_lib.steps_per_epoch(config, info.num_train)
    size = config.data.size
    image_shape = (size, size, info.image_shape[-1])
    model = models.create(config.model, info.num_classes, config.dtype, parallel.AXIS)
    total = config_lib.total_steps(config, info.num_train)
    rate = learning_rate(config, steps_per_epoch, total)
    optimizer = make_optimizer(config, rate)
    initial_state = jax.device_get(train_state.create(model, optimizer, image_shape, config.seed))
    return Experiment(
        config=config,
        dataset_info=info,
        loader=loader,
        initial_state=initial_state,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(initial_state.params)),
        train_steps=parallel.map_over_devices(
            steps.make_train_steps(
                model,
                optimizer,
                preprocess.make_augment(config, steps_per_epoch),
                _dropout_keys(config),
                loader.gather,
                config.label_smoothing,
            ),
            donate_first=True,
            sharded_argnums=loader.sharded_argnums,
        ),
        eval_steps=parallel.map_over_devices(
            steps.make_eval_steps(model, size, loader.gather),
            sharded_argnums=loader.sharded_argnums,
        ),
        learning_rate=rate,
    )


def _dropout_keys(config: ConfigDict) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    if not config.model.dropout:
        return None
    return functools.partial(preprocess.example_keys, config.seed, preprocess.DROPOUT)
