"""MLPs of one shape, each trained on so many examples: which of them fit all of theirs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rethink_jax import models
from rethink_jax.corruptions import key_of
from rethink_jax.data import DatasetInfo
from rethink_jax.distributed import parallel
from rethink_jax.pipeline import batching, inputs
from rethink_jax.training import ensemble, steps
from rethink_jax.training.ensemble import STEPS_PER_DISPATCH, Members
from rethink_jax.training.train_state import TrainState

# Dispatches from one count of the wrong answers to the next, and examples of a batch of it.
_BETWEEN_COUNTS = 10
_COUNTED = 500


class Task(NamedTuple):
    """Examples to fit, and the networks that try it, of which the best one counts.

    Attributes:
      seeds: of each network's initial weights and order of batches.
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
          tasks: for networks of this config.
          show: is told how much is done; raises `Stopped` after a signal.

        Raises:
          Diverged: a loss is not finite.
        """
        programs = ensemble.programs_of(config, self._info, self._info.num_train)
        count_wrong = _make_count_wrong(config, self._info)
        networks = [(task, seed) for task in tasks for seed in task.seeds]
        differing, rate = _differing(config, networks)
        states = ensemble.divide(
            [jax.device_get(programs.initialize(key_of(seed))) for _, seed in networks]
        )
        found = [Fit(task.size, 0) for task in tasks]
        # Padding is not free: where all have few examples, batches are as small.
        most = max(task.size for task in tasks)
        batch_size = min(config.batch_size, 1 << (most - 1).bit_length())
        for dispatch, first in enumerate(range(0, config.steps, STEPS_PER_DISPATCH), 1):
            taken = min(STEPS_PER_DISPATCH, config.steps - first)
            ids = [batch_ids(task, seed, batch_size, first) for task, seed in networks]
            states, sums = programs.train_steps(
                *(states, differing, self._train, ensemble.divide(ids)),
                parallel.stage_count(taken),
            )
            done = first + taken
            if dispatch % _BETWEEN_COUNTS == 0 or done == config.steps:
                field = "config.capacity.learning_rate"
                ensemble.check_finite(sums, taken, len(networks), field, rate)
                wrong = self._count(count_wrong, states, differing.train_labels, networks)
                found = [
                    min(one, Fit(fewest, done), key=lambda fit: fit.wrong)
                    for one, fewest in zip(found, _fewest(wrong, tasks), strict=True)
                ]
                if not any(fit.wrong for fit in found):
                    break
            show(done / config.steps)
        return found

    def _count(
        self,
        count_wrong: Callable,
        states: TrainState,
        labels: Any,
        networks: Sequence[tuple[Task, int]],
    ) -> np.ndarray:
        """Returns how many of its examples each network has wrong, int [networks]."""
        total = np.zeros(len(networks), int)
        for start in range(0, max(task.size for task, _ in networks), _COUNTED):
            ids = [_padded(task.order[start : task.size], _COUNTED) for task, _ in networks]
            wrong = count_wrong(states, labels, self._train, ensemble.divide(ids))
            total += np.array(ensemble.gather_members(wrong, len(networks)))
        return total


def _differing(config: ConfigDict, networks: Sequence[tuple[Task, int]]) -> tuple[Members, float]:
    """Returns what differs between networks, divided over the devices, and the rate of all."""
    rate, decay = (
        np.asarray(value, np.float32)
        for value in (config.optimizer.learning_rate, config.optimizer.weight_decay)
    )
    # Training looks at no test labels.
    none = np.zeros(1, np.int32)
    members = [Members(rate, decay, task.labels, none) for task, _ in networks]
    return ensemble.divide(members), float(rate)


def _fewest(wrong: np.ndarray, tasks: Sequence[Task]) -> list[int]:
    """Returns the fewest wrong answers of each task's networks, for those of all networks."""
    ends = np.cumsum([len(task.seeds) for task in tasks])
    return [int(own.min()) for own in np.split(wrong, ends[:-1])]


def batch_ids(task: Task, seed: int, batch_size: int, first: int) -> np.ndarray:
    """Returns the ids of a dispatch's batches, a pure function of its arguments.

    Networks with no more examples than a batch has see all of them at each step. The others' batches are cut
    from one permutation after the other, so that each is full.

    Args:
      task: what is fitted.
      seed: of the network.
      batch_size: 1 or more.
      first: the dispatch's first step.

    Returns:
      int32 [STEPS_PER_DISPATCH, batch_size], padding where there are fewer examples.
    """
    shape, n = (STEPS_PER_DISPATCH, batch_size), task.size
    if n <= batch_size:
        return np.broadcast_to(_padded(task.order[:n], batch_size), shape)
    start, end = first * batch_size, (first + STEPS_PER_DISPATCH) * batch_size
    epochs = range(start // n, -(-end // n))
    orders = [np.random.default_rng((seed, epoch)).permutation(n) for epoch in epochs]
    begin = start - epochs[0] * n
    positions = np.concatenate(orders)[begin : begin + end - start]
    return task.order[positions].reshape(shape)


def _padded(ids: np.ndarray, size: int) -> np.ndarray:
    ids = ids[:size]
    return np.pad(ids, (0, size - len(ids)), constant_values=batching.PADDING)


def _make_count_wrong(config: ConfigDict, info: DatasetInfo) -> Callable:
    """Returns (states, labels, `Split`, ids [networks, batch]) → wrong answers [networks], over the devices."""
    model = models.create(config.model, info.num_classes, config.dtype)
    answer = steps.make_answer_steps(model, config.data.size)

    def count_wrong(
        states: TrainState, labels: jax.Array, examples: inputs.Split, ids: jax.Array
    ) -> jax.Array:
        def of_member(state: TrainState, labels: jax.Array, ids: jax.Array) -> jax.Array:
            answers = answer(state, examples, ids[None])[0]
            return jnp.sum((ids >= 0) & (answers != labels[ids]), dtype=jnp.int32)

        return jax.vmap(of_member)(states, labels, ids)

    return parallel.map_over_devices(count_wrong, (0, 1, 3), sharded_output=True)
