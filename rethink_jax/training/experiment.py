"""What a resolved config stands for, built on this machine's devices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from rethink_jax import config as config_lib, data, models
from rethink_jax.corruptions import key_of
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
    programs = _programs(
        recipe_of(config),
        info.num_classes,
        info.image_shape[-1],
        config_lib.steps_per_epoch(config, info.num_train),
        config_lib.total_steps(config, info.num_train),
        loader.gather,
        loader.sharded_argnums,
        tuple(parallel.devices()),
    )
    initial_state = jax.device_get(programs.initialize(key_of(config.seed)))
    return Experiment(
        config=config,
        dataset_info=info,
        loader=loader,
        initial_state=initial_state,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(initial_state.params)),
        train_steps=programs.train_steps,
        eval_steps=programs.eval_steps,
        learning_rate=programs.learning_rate,
    )


class _Programs(NamedTuple):
    """What JAX traces and compiles for a run; the fields are those of `Experiment`."""

    initialize: Callable[[jax.Array], TrainState]
    train_steps: Callable
    eval_steps: Callable
    learning_rate: Callable[[int], Any]


def recipe_of(config: ConfigDict) -> FrozenConfigDict:
    """Returns the fields that programs are made of; they cannot read what is not among them."""
    names = ["dtype", "label_smoothing", "model", "optimizer", "augment"]
    if config.model.dropout or any(config.augment.values()):
        names.append("seed")
    data_fields = {name: config.data[name] for name in ("size", "stream")}
    per_example = config.records.every_epochs is not None
    fields = {name: config[name] for name in names}
    return FrozenConfigDict({**fields, "data": data_fields, "per_example": per_example})


# Runs of a sweep that differ in their data, their corruption or their seed alone are compiled once.
@functools.lru_cache(maxsize=8)
def _programs(
    recipe: FrozenConfigDict,
    num_classes: int,
    channels: int,
    steps_per_epoch: int,
    total_steps: int,
    gather: Callable,
    sharded_argnums: tuple[int, ...],
    devices: tuple[jax.Device, ...],
) -> _Programs:
    """Returns the programs of a recipe; `devices` is what `parallel` maps over, which the cache must know."""
    size = recipe.data.size
    model = models.create(recipe.model, num_classes, recipe.dtype, parallel.AXIS)
    rate = learning_rate(recipe, steps_per_epoch, total_steps)
    optimizer = make_optimizer(recipe, rate)
    train_steps = steps.make_train_steps(
        model,
        optimizer,
        preprocess.make_augment(recipe, steps_per_epoch),
        dropout_keys(recipe),
        gather,
        recipe.label_smoothing,
        per_example=recipe.per_example,
    )
    eval_steps = steps.make_eval_steps(model, size, gather, per_example=recipe.per_example)
    return _Programs(
        train_state.make_initialize(model, optimizer, (size, size, channels)),
        parallel.map_over_devices(train_steps, sharded_argnums, donate_first=True),
        parallel.map_over_devices(eval_steps, sharded_argnums),
        rate,
    )


def dropout_keys(config: ConfigDict) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Returns a function from a step and its ids to a key for each example; None without dropout."""
    if not config.model.dropout:
        return None
    return functools.partial(preprocess.example_keys, config.seed, preprocess.DROPOUT)
