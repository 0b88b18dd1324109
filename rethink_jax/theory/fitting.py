"""MLPs of one shape, each trained on so many examples: which of them fit all of theirs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from rethink_jax import models
from rethink_jax.corruptions import key_of
from rethink_jax.data import DatasetInfo
from rethink_jax.distributed import parallel
from rethink_jax.pipeline import batching, inputs
from rethink_jax.training import ensemble, steps, train_state
from rethink_jax.training.experiment import recipe_of
from rethink_jax.training.optimizer import learning_rate, make_optimizer
from rethink_jax.training.train_state import TrainState

# Dispatches from one count of the wrong answers to the next, and examples of a batch of it.
_BETWEEN_COUNTS = 10
_COUNTED = 500


class Task(NamedTuple):
    """Examples to fit, and the networks that try it, of which the best one counts.

    Attributes:
      seeds: of each network's initial weights; the first one is also that of the order of all their batches.
      order: int32 [n], ids of the training set.
      labels: int32 [n], of the training set, by id.
      size: how many examples of `order` are to be fitted, the first.
    """

    seeds: Sequence[int]
    order: np.ndarray
    labels: np.ndarray
    size: int


class Fit(NamedTuple):
    """How well examples were fitted.

    Attributes:
      wrong: wrong answers on them, the fewest of any network at any count.
      steps: after which these were counted.
    """

    wrong: int
    steps: int


class Trainer:
    """Trains networks on one training set, which lies on every device once."""

    def __init__(self, info: DatasetInfo, train: inputs.Split):
        """Takes the sizes of the data set, and its training images."""
        self._info, self._train = info, parallel.replicate(train)

    def fit(
        self, config: ConfigDict, tasks: Sequence[Task], show: Callable[[float], None]
    ) -> list[Fit]:
        """Trains all tasks' networks together until each task is fitted, or the steps are taken.

        Args:
          config: resolved, of a training run of `config.steps` steps whose rate does not depend on epochs.
          tasks: for networks of this config, with equally many each.
          show: is told how much is done; raises `Stopped` after a signal.

        Raises:
          Diverged: a loss is not finite.
        """
        programs = _programs(
            recipe_of(config),
            self._info.num_classes,
            self._info.image_shape[-1],
            config.steps,
            tuple(parallel.devices()),
        )
        labels = ensemble.divide([task.labels for task in tasks])
        states = ensemble.divide([_initial_states(programs, task) for task in tasks])
        found = [Fit(task.size, 0) for task in tasks]
        # Padding is not free: where all have few examples, batches are as small.
        most = max(task.size for task in tasks)
        batch_size = min(config.batch_size, 1 << (most - 1).bit_length())
        for dispatch, first in enumerate(range(0, config.steps, parallel.STEPS_PER_DISPATCH), 1):
            taken = min(parallel.STEPS_PER_DISPATCH, config.steps - first)
            ids = ensemble.divide([batch_ids(task, batch_size, first) for task in tasks])
            count = parallel.stage_count(taken)
            states, losses = programs.train_steps(states, labels, self._train, ids, count)
            done = first + taken
            if dispatch % _BETWEEN_COUNTS == 0 or done == config.steps:
                _check_finite(ensemble.gather_members(losses, len(tasks)), taken, config)
                fewest = self._count(programs, states, labels, tasks)
                found = [
                    min(one, Fit(wrong, done), key=lambda fit: fit.wrong)
                    for one, wrong in zip(found, fewest, strict=True)
                ]
                if not any(fit.wrong for fit in found):
                    break
            show(done / config.steps)
        return found

    def _count(
        self, programs: "_Programs", states: TrainState, labels: Any, tasks: Sequence[Task]
    ) -> list[int]:
        """Returns how many of its examples the best network of each task has wrong."""
        total = np.zeros((len(tasks), len(tasks[0].seeds)), int)
        for start in range(0, max(task.size for task in tasks), _COUNTED):
            ids = [_padded(task.order[start : task.size], _COUNTED) for task in tasks]
            wrong = programs.count_wrong(states, labels, self._train, ensemble.divide(ids))
            total += np.stack(ensemble.gather_members(wrong, len(tasks)))
        return total.min(axis=1).tolist()


class _Programs(NamedTuple):
    """What networks are compiled to; arguments have a leading axis of devices, then of tasks.

    Attributes:
      initialize: a key → the state of one network.
      train_steps: (states, labels, `Split`, ids [k, batch], number) → states, losses [networks, k].
      count_wrong: (states, labels, `Split`, ids [batch]) → wrong answers [networks].
    """

    initialize: Callable[[jax.Array], TrainState]
    train_steps: Callable
    count_wrong: Callable


@functools.lru_cache(maxsize=8)
def _programs(
    recipe: FrozenConfigDict,
    num_classes: int,
    channels: int,
    total_steps: int,
    devices: tuple[jax.Device, ...],
) -> _Programs:
    """Returns the programs; the cache must know the `devices`, which `parallel` maps over."""
    size = recipe.data.size
    model = models.create(recipe.model, num_classes, recipe.dtype)
    optimizer = make_optimizer(recipe, learning_rate(recipe, 1, total_steps))
    take = steps.make_train_steps(model, optimizer, axis=steps.NO_AXIS)
    answer = steps.make_answer_steps(model, size)

    # Networks of one task see the same batches, which are gathered and whitened once.
    def train_steps(
        states: TrainState,
        labels: jax.Array,
        examples: inputs.Split,
        ids: jax.Array,
        num_steps: jax.Array,
    ) -> tuple[TrainState, jax.Array]:
        def of_task(
            states: TrainState, labels: Any, ids: jax.Array
        ) -> tuple[TrainState, jax.Array]:
            labelled = examples._replace(labels=labels)
            states, sums = jax.vmap(lambda state: take(state, labelled, ids, num_steps))(states)
            return states, sums["loss"]

        return jax.vmap(of_task)(states, labels, ids)

    def count_wrong(
        states: TrainState, labels: jax.Array, examples: inputs.Split, ids: jax.Array
    ) -> jax.Array:
        def of_task(states: TrainState, labels: jax.Array, ids: jax.Array) -> jax.Array:
            answers = jax.vmap(lambda state: answer(state, examples, ids[None])[0])(states)
            is_wrong = (ids >= 0)[None] & (answers != labels[ids][None])
            return jnp.sum(is_wrong, axis=1, dtype=jnp.int32)

        return jax.vmap(of_task)(states, labels, ids)

    return _Programs(
        train_state.make_initialize(model, optimizer, (size, size, channels)),
        parallel.map_over_devices(train_steps, (0, 1, 3), sharded_output=True, donate_first=True),
        parallel.map_over_devices(count_wrong, (0, 1, 3), sharded_output=True),
    )


def _initial_states(programs: _Programs, task: Task) -> Any:
    """Returns the states of a task's networks, NumPy arrays with a leading axis of them."""
    states = [jax.device_get(programs.initialize(key_of(seed))) for seed in task.seeds]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


def _check_finite(losses: Sequence[np.ndarray], taken: int, config: ConfigDict) -> None:
    """Raises `Diverged` where the last loss of a network is not finite; weights that are not stay so."""
    last = np.stack(losses)[..., taken - 1]
    rate = config.optimizer.learning_rate
    ensemble.check_finite(last.reshape(-1).tolist(), "config.capacity.learning_rate", rate)


def batch_ids(task: Task, batch_size: int, first: int) -> np.ndarray:
    """Returns the ids of a dispatch's batches, a pure function of its arguments.

    Networks with no more examples than a batch has see all of them at each step. The others' batches are cut
    from one permutation after the other, so that each is full.

    Args:
      task: what is fitted.
      batch_size: 1 or more.
      first: the dispatch's first step.

    Returns:
      int32 [parallel.STEPS_PER_DISPATCH, batch_size], padding where there are fewer examples.
    """
    shape, n = (parallel.STEPS_PER_DISPATCH, batch_size), task.size
    if n <= batch_size:
        return np.broadcast_to(_padded(task.order[:n], batch_size), shape)
    start, end = first * batch_size, (first + parallel.STEPS_PER_DISPATCH) * batch_size
    epochs = range(start // n, -(-end // n))
    orders = [np.random.default_rng((task.seeds[0], epoch)).permutation(n) for epoch in epochs]
    begin = start - epochs[0] * n
    positions = np.concatenate(orders)[begin : begin + end - start]
    return task.order[positions].reshape(shape)


def _padded(ids: np.ndarray, size: int) -> np.ndarray:
    ids = ids[:size]
    return np.pad(ids, (0, size - len(ids)), constant_values=batching.PADDING)
