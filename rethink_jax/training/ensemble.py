"""Runs that train together as one program: several members on each device, and no sums between members.

Members differ in their seed, learning rate, weight decay and corrupted labels alone. They see the same images,
which lie on each device once. Each member has its own weights, labels and order of examples, and takes the
steps that it would take by itself.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from rethink_jax import config as config_lib, corruptions, data, models
from rethink_jax.corruptions import key_of
from rethink_jax.distributed import parallel
from rethink_jax.errors import Diverged
from rethink_jax.pipeline import batching, inputs, loaders, preprocess
from rethink_jax.training import steps, train_state
from rethink_jax.training.experiment import dropout_keys, recipe_of
from rethink_jax.training.optimizer import learning_rate, make_optimizer
from rethink_jax.training.train_state import TrainState

# Examples of a batch of an evaluation, for each member.
_EVAL_BATCH = 500


def shared_by_members(config: ConfigDict) -> str | None:
    """Returns what runs that train together have in common, as text; None for a run that trains alone.

    Args:
      config: resolved.
    """
    is_of_one_device = config.cpu_devices in (None, 1)
    has_convolutions = models.MODELS[config.model.name].convolutions
    has_records = config.records.every_epochs is not None
    if config.data.stream or has_convolutions or has_records or not is_of_one_device:
        return None
    common = config.to_dict()
    if "seed" not in recipe_of(config):
        del common["seed"]
    del common["optimizer"]["learning_rate"]
    common["optimizer"]["weight_decay"] = bool(config.optimizer.weight_decay)
    if config.corruption.name not in (*corruptions.OF_PIXELS, *corruptions.BY_IMAGE):
        del common["corruption"]
    return json.dumps(common, sort_keys=True)


class Members(NamedTuple):
    """What differs between members, each array with a leading axis of all of them.

    Attributes:
      learning_rate, weight_decay: float32 [members].
      train_labels, test_labels: int32 [members, examples], corrupted.
    """

    learning_rate: np.ndarray
    weight_decay: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


class Programs(NamedTuple):
    """What members that train together are compiled to; arguments have a leading axis of devices, then members.

    Attributes:
      initialize: a key → the state of one member at step 0.
      train_steps: (states, `Members`, `Split`, ids [devices, members, k, batch], number) → states, sums.
      eval_steps: (states, labels, `Split`, ids [k, batch]) → sums.
      answer_steps: (states, `Split`, ids [k, batch]) → classes int32 [devices, members, k, batch].
    """

    initialize: Callable[[jax.Array], TrainState]
    train_steps: Callable
    eval_steps: Callable
    answer_steps: Callable


class Ensemble(NamedTuple):
    """What the configs of runs that train together stand for, on this machine's devices.

    Attributes:
      configs: resolved, one for each member.
      dataset_info: sizes of the data set.
      fingerprints: of each member's data.
      initial_states: of NumPy arrays.
      parameters: how many each member's model has.
      members: what differs between them.
      train_images, test_images: replicated on the devices; their true labels beside them.
      train_steps, eval_steps: as `_programs` makes them.
    """

    configs: Sequence[ConfigDict]
    dataset_info: data.DatasetInfo
    fingerprints: Sequence[str]
    initial_states: Sequence[TrainState]
    parameters: int
    members: Members
    train: inputs.Split
    test: inputs.Split
    train_steps: Callable
    eval_steps: Callable


def build(configs: Sequence[ConfigDict], dataset: data.Dataset) -> Ensemble:
    """Builds what runs need that train together: their data, initial states, and steps of all of them.

    Args:
      configs: resolved, of equal `shared_by_members`.
      dataset: of all of them.

    Raises:
      UserError: a part is to be evaluated, and the examples are sorted by class.
    """
    first, info = configs[0], dataset.info
    for examples in (dataset.train, dataset.test):
        loaders.check_part(first, len(examples.labels), examples.labels.__getitem__)
    labels, fingerprints, images = [], [], None
    for config in configs:
        prepared = inputs.prepare(config, dataset)
        fingerprints.append(prepared.fingerprint)
        labels.append((prepared.train.labels, prepared.test.labels))
        images = images or (prepared.train.images, prepared.test.images)
    inputs.log_changes([seen for seen, _ in labels], dataset.train.labels)
    assert images is not None
    train, test = (
        parallel.replicate(inputs.Split(seen, split.labels, split.labels))
        for seen, split in zip(images, (dataset.train, dataset.test), strict=True)
    )
    programs = programs_of(first, info, info.num_train)
    states = [jax.device_get(programs.initialize(key_of(config.seed))) for config in configs]
    return Ensemble(
        configs=configs,
        dataset_info=info,
        fingerprints=fingerprints,
        initial_states=states,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(states[0].params)),
        members=Members(
            np.asarray([config.optimizer.learning_rate for config in configs], np.float32),
            np.asarray([config.optimizer.weight_decay for config in configs], np.float32),
            *(np.stack(column) for column in zip(*labels, strict=True)),
        ),
        train=train,
        test=test,
        train_steps=programs.train_steps,
        eval_steps=programs.eval_steps,
    )


def programs_of(config: ConfigDict, info: data.DatasetInfo, num_train: int) -> Programs:
    """Returns the programs of members, compiled once for equal recipes.

    Args:
      config: resolved, of any of them.
      info: of the data set.
      num_train: the examples that each member is trained on.
    """
    return _programs(
        _recipe(config),
        info.num_classes,
        info.image_shape[-1],
        config_lib.steps_per_epoch(config, num_train),
        config_lib.total_steps(config, num_train),
        tuple(parallel.devices()),
    )


def _recipe(config: ConfigDict) -> FrozenConfigDict:
    """Returns the fields that the program of all members is made of."""
    recipe = ConfigDict(recipe_of(config).to_dict())
    recipe.optimizer.learning_rate = 1.0
    recipe.optimizer.weight_decay = float(bool(config.optimizer.weight_decay))
    return FrozenConfigDict(recipe)


@functools.lru_cache(maxsize=8)
def _programs(
    recipe: FrozenConfigDict,
    num_classes: int,
    channels: int,
    steps_per_epoch: int,
    total_steps: int,
    devices: tuple[jax.Device, ...],
) -> Programs:
    """Returns the programs of all members; the cache must know the `devices`, which `parallel` maps over."""
    size = recipe.data.size
    model = models.create(recipe.model, num_classes, recipe.dtype)

    def optimizer_of(rate: Any, weight_decay: Any) -> Any:
        schedule = learning_rate(recipe, steps_per_epoch, total_steps, rate)
        return make_optimizer(recipe, schedule, weight_decay)

    def train_steps(
        states: TrainState,
        members: Members,
        examples: inputs.Split,
        ids: jax.Array,
        num_steps: jax.Array,
    ) -> tuple[TrainState, steps.Sums]:
        def of_member(
            state: TrainState, member: Members, ids: jax.Array
        ) -> tuple[TrainState, steps.Sums]:
            take = steps.make_train_steps(
                model,
                optimizer_of(member.learning_rate, member.weight_decay),
                preprocess.make_augment(recipe, steps_per_epoch),
                dropout_keys(recipe),
                label_smoothing=recipe.label_smoothing,
                axis=steps.NO_AXIS,
            )
            return take(state, examples._replace(labels=member.train_labels), ids, num_steps)

        return jax.vmap(of_member)(states, members, ids)

    evaluate = steps.make_eval_steps(model, size, axis=steps.NO_AXIS)

    def eval_steps(
        states: TrainState, labels: jax.Array, examples: inputs.Split, ids: jax.Array
    ) -> steps.Sums:
        def of_member(state: TrainState, labels: Any) -> steps.Sums:
            return evaluate(state, examples._replace(labels=labels), ids)

        return jax.vmap(of_member)(states, labels)

    answer = steps.make_answer_steps(model, size)

    def answer_steps(states: TrainState, examples: inputs.Split, ids: jax.Array) -> jax.Array:
        return jax.vmap(lambda state: answer(state, examples, ids))(states)

    a_rate, a_decay = jnp.float32(1.0), jnp.float32(recipe.optimizer.weight_decay)
    return Programs(
        train_state.make_initialize(model, optimizer_of(a_rate, a_decay), (size, size, channels)),
        parallel.map_over_devices(train_steps, (0, 1, 3), sharded_output=True, donate_first=True),
        parallel.map_over_devices(eval_steps, (0, 1), sharded_output=True),
        parallel.map_over_devices(answer_steps, (0,), sharded_output=True),
    )


def divide(trees: Sequence[Any]) -> Any:
    """Stacks a tree of NumPy arrays for each member, and divides them over the devices.

    Devices hold equal numbers of members: the last one is there several times where they do not divide.

    Returns:
      A tree of arrays [local devices, members on each, ...] on the devices.
    """
    devices = len(parallel.devices())
    padded = [*trees, *[trees[-1]] * (-len(trees) % devices)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *padded)
    return parallel.put_shards(jax.tree.map(parallel.local_shards, stacked))


def gather_members(tree: Any, count: int) -> list[Any]:
    """Returns what `divide` divided, as a tree of NumPy arrays for each of the first `count` members."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], jax.device_get(tree))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], flat) for i in range(count)]


def check_finite(losses: Sequence[float], field: str, rate: float) -> None:
    """Raises `Diverged` where a network's last loss is not finite; weights that are not stay so.

    Args:
      losses: of each network.
      field: of the config, which has the learning rate `rate` of all of them.
    """
    if not np.isfinite(losses).all():
        raise Diverged(
            f"{np.sum(~np.isfinite(losses))} of {len(losses)} networks have a loss that is not finite; lower "
            f"{field}, {rate:g}"
        )


def training_ids(
    configs: Sequence[ConfigDict], n: int, epoch: int, first: int, end: int
) -> np.ndarray:
    """Returns each member's ids of the steps `first` to `end` of an epoch, int32 [members, steps, batch]."""

    seeds = [config.seed for config in configs]
    return batching.epoch_batches_of(seeds, epoch, n, configs[0].batch_size)[:, first:end]


def evaluation_ids(count: int) -> list[np.ndarray]:
    """Returns the ids of the dispatches of an evaluation of so many examples, each int32 [batches, batch]."""
    batches = batching.in_batches(np.arange(count), min(_EVAL_BATCH, count))
    per_dispatch = parallel.STEPS_PER_DISPATCH
    return [batches[i : i + per_dispatch] for i in range(0, len(batches), per_dispatch)]
